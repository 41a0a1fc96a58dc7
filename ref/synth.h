/* Synthetic checkpoints in the published layout, a function of a seed (spec/synth.md). */
#ifndef GEMMA4_SYNTH_H
#define GEMMA4_SYNTH_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

typedef struct gemma4_synth_options {
    const char *preset; /* one of gemma4_synth_presets() */
    uint64_t seed;
    size_t layers; /* 0: as the preset has it; otherwise cut to, or extended to, this many */
    size_t vocab;  /* 0: as the preset has it */
    size_t shards; /* 1: one model.safetensors; more: that many files and an index */
    int vision;    /* not 0: also a small vision tower, tensors and config, as in the published
                      checkpoint */
} gemma4_synth_options;

/* NULL-terminated. */
const char *const *gemma4_synth_presets(void);

/* Writes config.json, the weights, tokenizer.json, tokenizer_config.json and generation_config.json
 * into directory, which is created where it is missing. Each file appears under its own name only
 * when it is complete, config.json last. */
int gemma4_synth(const gemma4_synth_options *options, const char *directory, gemma4_error *error);

#endif
