/* The dimensions and constants of one model, read from its config.json (spec/model.md,
 * "Dimensions"). */
#ifndef GEMMA4_CONFIG_H
#define GEMMA4_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "error.h"

typedef enum gemma4_layer_kind { GEMMA4_SLIDING, GEMMA4_FULL } gemma4_layer_kind;

/* What differs from layer to layer: all of it belongs to attention. */
typedef struct gemma4_layer_config {
    gemma4_layer_kind kind;
    size_t num_key_value_heads; /* G; divides num_attention_heads */
    size_t head_dim;            /* D; even */
    bool v_is_k;                /* no v_proj: V is taken from the k_proj output */
    double rope_theta;
    size_t rope_pairs; /* how many of the D/2 lane pairs (j, j + D/2) rotate: the first
                                   ones */
} gemma4_layer_config;

typedef struct gemma4_config {
    size_t hidden_size; /* d */
    size_t num_hidden_layers;
    size_t num_attention_heads;     /* H, the same in every layer */
    size_t intermediate_size;       /* F, the dense MLP's width */
    size_t num_experts;             /* E */
    size_t top_k_experts;           /* K <= E */
    size_t moe_intermediate_size;   /* M, one expert's width */
    size_t vocab_size;              /* V */
    size_t sliding_window;          /* a query sees this many positions, itself included, on sliding
                                       layers */
    size_t max_position_embeddings; /* positions are 0 ... this - 1 */
    double rms_norm_eps;
    double final_logit_softcapping; /* 0 where config.json says null: no soft-cap */
    gemma4_layer_config *layers;    /* num_hidden_layers of them */
} gemma4_config;

/* Reads and validates the config.json at path: the multimodal layout (under text_config) or the
 * text-only one. What this implementation does not compute is refused by the key's name, never
 * ignored. On failure nothing needs freeing. */
int gemma4_config_read(const char *path, gemma4_config *config, gemma4_error *error);
/* The same of a config.json in memory; name is for messages. */
int gemma4_config_parse(const char *name, const char *text, size_t size, gemma4_config *config,
                        gemma4_error *error);
void gemma4_config_free(gemma4_config *config);

#endif
