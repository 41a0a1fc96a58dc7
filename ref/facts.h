/* What follows from a config: parameters, KV cache, context, layer table. Computed, not quoted. */
#ifndef GEMMA4_FACTS_H
#define GEMMA4_FACTS_H

#include <stdint.h>
#include <stdio.h>

#include "config.h"

typedef struct gemma4_facts {
    uint64_t total_parameters;  /* of the text decoder; the tied embedding table counts once */
    uint64_t active_parameters; /* those that work on one token: K of E experts, all the rest */
    size_t sliding_layers, full_layers;
    uint64_t kv_values_rebuilt; /* cached values per token where full layers with V = K store one
                                   vector per KV head */
    uint64_t kv_values_apart;   /* where they store K and V */
} gemma4_facts;

gemma4_facts gemma4_facts_of(const gemma4_config *config);
/* The config of the published 26B-A4B checkpoint; free with gemma4_config_free. Returns 0, or -1
 * when out of memory. */
int gemma4_published_config(gemma4_config *config, gemma4_error *error);
/* The whole page for a person. */
void gemma4_facts_print(FILE *out, const gemma4_config *config);

#endif
