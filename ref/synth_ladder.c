/* The presets of the ladder's rungs (spec/ladder.md): in each of them only a few features of the
 * model can move the logits. */
#include "synth_internal.h"

#include <string.h>

/* A branch whose last matrix is 0 adds exactly 0, whatever the engine's norms do. */
#define NO_ATTENTION                     \
    {                                    \
        -1, "self_attn.o_proj.weight", 0 \
    }
#define NO_DENSE                      \
    {                                 \
        -1, "mlp.down_proj.weight", 0 \
    }
#define NO_EXPERTS                 \
    {                              \
        -1, "experts.down_proj", 0 \
    }
#define SILENT_IN(layer)                                                       \
    {layer, "self_attn.o_proj.weight", 0}, {layer, "mlp.down_proj.weight", 0}, \
    {                                                                          \
        layer, "experts.down_proj", 0                                          \
    }
#define END         \
    {               \
        -1, NULL, 0 \
    }

/* Powers of two: what is scaled stays exact in bfloat16. */
static const synth_fill linear_head[] = {
    NO_ATTENTION, NO_DENSE, NO_EXPERTS, {-1, "norm.weight", 0x1p-12}, END};
static const synth_fill head[] = {NO_ATTENTION, NO_DENSE, NO_EXPERTS, END};
static const synth_fill small_embedding[] = {NO_ATTENTION,
                                             NO_DENSE,
                                             NO_EXPERTS,
                                             {-1, "embed_tokens.weight", 0x1p-12},
                                             {-1, "norm.weight", 0x1p12},
                                             END};
static const synth_fill dense[] = {NO_ATTENTION, NO_EXPERTS, END};
/* Both branches are alive: the norm of their sum would hide a factor of the only one. */
static const synth_fill small_dense[] = {NO_ATTENTION, {-1, "mlp.down_proj.weight", 0x1p-7}, END};
static const synth_fill experts[] = {NO_ATTENTION, NO_DENSE, END};
static const synth_fill small_experts[] = {NO_ATTENTION, {-1, "experts.down_proj", 0x1p-8}, END};
static const synth_fill branches[] = {NO_ATTENTION, END};
static const synth_fill attention[] = {NO_DENSE, NO_EXPERTS, END};
static const synth_fill small_attention[] = {
    NO_DENSE, NO_EXPERTS, {-1, "self_attn.o_proj.weight", 0x1p-8}, END};
static const synth_fill first_attention[] = {
    NO_DENSE, NO_EXPERTS, {1, "self_attn.o_proj.weight", 0}, END};
static const synth_fill first_small_attention[] = {NO_DENSE,
                                                   NO_EXPERTS,
                                                   {1, "self_attn.o_proj.weight", 0},
                                                   {0, "self_attn.o_proj.weight", 0x1p-8},
                                                   END};
static const synth_fill first_layer[] = {SILENT_IN(1), END};
static const synth_fill everything[] = {END};

/* Dimensions that no feature hides in: sqrt(96) is not exact in bfloat16, both kinds of layers
 * group their KV heads, and 3 of 8 experts are neither one nor two. */
#define RUNG(name, layers, full_every, fills, equal)                                               \
    {                                                                                              \
        "ladder-" name, MULTIMODAL, layers, full_every, 96, 8, 4, 2, 16, 32, 8, 64, 32, 8, 3, 256, \
            fills, equal                                                                           \
    }

static const synth_preset rungs[] = {
    RUNG("linear-head", 1, 1, linear_head, 0),
    RUNG("head", 1, 1, head, 0),
    RUNG("small-embedding", 1, 1, small_embedding, 0),
    RUNG("dense", 1, 1, dense, 0),
    RUNG("small-dense", 1, 1, small_dense, 0),
    RUNG("scalars", 3, 1, dense, 0),
    RUNG("full", 1, 1, attention, 0),
    RUNG("small-full", 1, 1, small_attention, 0),
    RUNG("sliding", 2, 2, first_attention, 0),
    RUNG("small-sliding", 2, 2, first_small_attention, 0),
    RUNG("equal-experts", 1, 1, experts, 1),
    RUNG("router", 1, 1, experts, 0),
    RUNG("small-experts", 1, 1, small_experts, 0),
    RUNG("branches", 1, 1, branches, 0),
    RUNG("block-full", 1, 1, everything, 0),
    RUNG("block-sliding", 2, 2, first_layer, 0),
    RUNG("pattern", 5, 3, attention, 0),
    RUNG("shallow", 2, 2, everything, 0),
    RUNG("deep", 6, 3, everything, 0),
};

const synth_preset *synth_ladder_at(size_t index)
{
    return index < sizeof rungs / sizeof *rungs ? &rungs[index] : NULL;
}

double synth_factor_of(const synth_preset *preset, const gemma4_tensor_spec *tensor)
{
    double factor = 1;
    size_t length = strlen(tensor->name);
    for (const synth_fill *f = preset->fills; f && f->end; f++) {
        size_t end = strlen(f->end);
        bool is = length >= end && !strcmp(tensor->name + length - end, f->end) &&
                  (length == end || tensor->name[length - end - 1] == '.');
        if (is && (f->layer < 0 || f->layer == tensor->layer))
            factor = f->factor;
    }
    return factor;
}
