/* What the files of the synthesiser share (spec/synth.md). */
#ifndef GEMMA4_SYNTH_INTERNAL_H
#define GEMMA4_SYNTH_INTERNAL_H

#include <stdio.h>

#include "model.h"

typedef enum synth_layout { MULTIMODAL, TEXT_ONLY, TEXT_ONLY_PER_LAYER } synth_layout;

/* Tensors of a layer (-1: of any, or of none) whose names end so are scaled: 0 silences them. The
 * last fill that matches counts; end is NULL after it. */
typedef struct synth_fill {
    int layer;
    const char *end;
    double factor;
} synth_fill;

typedef struct synth_preset {
    const char *name;
    synth_layout layout;
    size_t layers, full_every; /* every full_every-th layer is a full one, and so is the last */
    size_t hidden, heads, sliding_kv_heads, full_kv_heads, sliding_head_dim, full_head_dim, window;
    size_t dense_width, expert_width, experts, top_k, vocab;
    const synth_fill *fills; /* NULL: none */
    int equal_experts;       /* all experts of a layer are the first */
} synth_preset;

/* The preset of this name, or NULL. */
const synth_preset *synth_preset_find(const char *name);

/* The presets of the ladder (synth_ladder.c); NULL after the last. */
const synth_preset *synth_ladder_at(size_t index);
/* What a tensor's offset and spread are multiplied by. */
double synth_factor_of(const synth_preset *preset, const gemma4_tensor_spec *tensor);

/* What a tensor is filled with: offset + spread * u, u in (-1, 1) (spec/synth.md, "The bytes"). */
typedef struct synth_distribution {
    double offset, spread;
} synth_distribution;

/* Writers of the files beside the weights. Errors are sticky in f: the caller looks. vision: the
 * config describes a vision tower. */
void synth_write_config(FILE *f, const synth_preset *preset, int vision);
void synth_write_tokenizer(FILE *f, size_t vocab);
void synth_write_tokenizer_config(FILE *f);
void synth_write_generation_config(FILE *f);

/* The vision tower and its projection to the decoder's width hidden: tensors that a text decoder
 * skips. The names have no "model.". */
size_t synth_vision_count(void);
gemma4_tensor_spec synth_vision_at(size_t index, size_t hidden, synth_distribution *distribution);
/* The key "vision_config" and the ids of the image tokens, each line indented by two, with a comma
 * at the end. */
void synth_write_vision_config(FILE *f, size_t vocab);

#endif
