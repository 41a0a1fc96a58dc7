/* The taps: the named tensors of one forward pass (spec/taps.md). This table is their single source; its order is
 * dataflow order, which "first divergence" follows. */
#ifndef GEMMA4_TAPS_H
#define GEMMA4_TAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"

/* The type of an activation. float, except in the precision build, which compiles the same source with double to
 * measure the rounding error of the float build (spec/numerics.md). */
#ifndef GEMMA4_REAL
#define GEMMA4_REAL float
#endif
typedef GEMMA4_REAL gemma4_real;

/* X(id, name, shape, values, need)
 * name     without "layers.N."; per-layer taps are those between LAYER_INPUT and LAYER_OUTPUT
 * shape    what follows the position axis, a letter an axis: d hidden size, H query heads, G KV heads, D head dim,
 *          T positions of the case, F dense width, E experts, K experts per token, M expert width, V vocabulary
 * values   REAL or IDS
 * need     REQUIRED, or OPTIONAL: not needed for full coverage */
#define GEMMA4_TAPS(X)                                              \
    X(EMBED, "embed", "d", REAL, REQUIRED)                          \
    X(LAYER_INPUT, "input", "d", REAL, OPTIONAL)                    \
    X(ATTN_NORM, "attn.norm", "d", REAL, REQUIRED)                  \
    X(ATTN_Q, "attn.q", "HD", REAL, REQUIRED)                       \
    X(ATTN_K, "attn.k", "GD", REAL, REQUIRED)                       \
    X(ATTN_V, "attn.v", "GD", REAL, REQUIRED)                       \
    X(ATTN_Q_NORM, "attn.q_norm", "HD", REAL, REQUIRED)             \
    X(ATTN_K_NORM, "attn.k_norm", "GD", REAL, REQUIRED)             \
    X(ATTN_V_NORM, "attn.v_norm", "GD", REAL, REQUIRED)             \
    X(ATTN_Q_ROPE, "attn.q_rope", "HD", REAL, REQUIRED)             \
    X(ATTN_K_ROPE, "attn.k_rope", "GD", REAL, REQUIRED)             \
    X(ATTN_SCORES, "attn.scores", "HT", REAL, OPTIONAL)             \
    X(ATTN_PROBS, "attn.probs", "HT", REAL, OPTIONAL)               \
    X(ATTN_CONTEXT, "attn.context", "HD", REAL, REQUIRED)           \
    X(ATTN_OUT, "attn.out", "d", REAL, REQUIRED)                    \
    X(ATTN_POST_NORM, "attn.post_norm", "d", REAL, REQUIRED)        \
    X(ATTN_RESIDUAL, "attn.residual", "d", REAL, REQUIRED)          \
    X(MLP_NORM, "mlp.norm", "d", REAL, REQUIRED)                    \
    X(MLP_GATE, "mlp.gate", "F", REAL, REQUIRED)                    \
    X(MLP_UP, "mlp.up", "F", REAL, REQUIRED)                        \
    X(MLP_ACT, "mlp.act", "F", REAL, REQUIRED)                      \
    X(MLP_OUT, "mlp.out", "d", REAL, REQUIRED)                      \
    X(MLP_POST_NORM, "mlp.post_norm", "d", REAL, REQUIRED)          \
    X(ROUTER_NORM, "router.norm", "d", REAL, REQUIRED)              \
    X(ROUTER_LOGITS, "router.logits", "E", REAL, REQUIRED)          \
    X(ROUTER_PROBS, "router.probs", "E", REAL, REQUIRED)            \
    X(ROUTER_TOPK_IDS, "router.topk_ids", "K", IDS, REQUIRED)       \
    X(ROUTER_TOPK_NORM, "router.topk_norm", "K", REAL, OPTIONAL)    \
    X(ROUTER_TOPK_WEIGHTS, "router.topk_weights", "K", REAL, REQUIRED) \
    X(MOE_NORM, "moe.norm", "d", REAL, REQUIRED)                    \
    X(MOE_ACT, "moe.act", "KM", REAL, OPTIONAL)                     \
    X(MOE_OUT, "moe.out", "d", REAL, REQUIRED)                      \
    X(MOE_POST_NORM, "moe.post_norm", "d", REAL, REQUIRED)          \
    X(FFN_SUM, "ffn.sum", "d", REAL, REQUIRED)                      \
    X(FFN_POST_NORM, "ffn.post_norm", "d", REAL, REQUIRED)          \
    X(FFN_RESIDUAL, "ffn.residual", "d", REAL, REQUIRED)            \
    X(LAYER_OUTPUT, "output", "d", REAL, REQUIRED)                  \
    X(FINAL_NORM, "final_norm", "d", REAL, REQUIRED)                \
    X(LOGITS_RAW, "logits_raw", "V", REAL, OPTIONAL)                \
    X(LOGITS, "logits", "V", REAL, REQUIRED)

#define GEMMA4_TAP_ENUM(id, name, shape, values, need) GEMMA4_TAP_##id,
typedef enum gemma4_tap { GEMMA4_TAPS(GEMMA4_TAP_ENUM) GEMMA4_TAP_COUNT } gemma4_tap;
#undef GEMMA4_TAP_ENUM

typedef struct gemma4_tap_info {
    const char *name;  /* "attn.q_rope" */
    const char *shape; /* "HD" */
    bool ids;          /* int32 expert ids instead of reals */
    bool optional;
    bool per_layer;
} gemma4_tap_info;

#define GEMMA4_TAP_NAME_SIZE 48

const gemma4_tap_info *gemma4_tap_describe(gemma4_tap tap);
/* "layers.5.attn.q_rope", or "embed" (layer is then ignored). Returns name. */
const char *gemma4_tap_name(gemma4_tap tap, size_t layer, char name[GEMMA4_TAP_NAME_SIZE]);
/* The inverse; false where name is no tap. layer is 0 for a tap that has none. */
bool gemma4_tap_parse(const char *name, gemma4_tap *tap, size_t *layer);
/* The axes that follow the position axis, for that layer of the model; positions is T. Returns how many (1 or 2). */
size_t gemma4_tap_dims(const gemma4_config *config, gemma4_tap tap, size_t layer, size_t positions, size_t dims[2]);

/* One tensor, as the forward pass shows it to the hook: rows consecutive positions, each dims[0] x dims[1] values, row
 * after row. The hook may read it and may overwrite it: the next step reads what the hook left. */
typedef struct gemma4_tap_event {
    gemma4_tap tap;
    size_t layer;
    size_t row;         /* index of the first position, counted from the session's first one */
    size_t rows;
    size_t rank;        /* 1 or 2 */
    size_t dims[2];     /* dims[1] is 1 where rank is 1 */
    gemma4_real *values; /* [rows, dims...]; NULL for ids */
    int32_t *ids;        /* [rows, dims...]; NULL for reals */
    size_t first_key;    /* scores and probs, shown a position at a time: the last axis holds only the visible keys,
                            and its entry 0 is the position of this index; 0 for every other tap */
} gemma4_tap_event;

/* Returns 0, or -1 with the error's message filled: the forward pass then stops and fails with it. */
typedef int (*gemma4_tap_hook)(void *context, gemma4_tap_event *event, gemma4_error *error);

#endif
