/* The taps: the named tensors of one forward pass (spec/taps.md). This table is their single
 * source; its order is dataflow order, which "first divergence" follows. */
#ifndef GEMMA4_TAPS_H
#define GEMMA4_TAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

typedef struct gemma4_config gemma4_config; /* config.h */

/* The type of an activation. float, except in the precision build, which compiles the same source
 * with double to measure the rounding error of the float build (spec/numerics.md). */
#ifndef GEMMA4_REAL
#define GEMMA4_REAL float
#endif
typedef GEMMA4_REAL gemma4_real;

/* Everything that is known of a tap beyond how its value is computed. A new tap is one more row
 * here, and one in spec/taps.md and spec/tolerance.md, which the unit tests compare with this
 * table. No column has a default: what a row leaves out does not compile.
 *
 *   name     without "layers.N."; per-layer taps are those between LAYER_INPUT and LAYER_OUTPUT
 *   shape    what follows the position axis, a letter an axis: d hidden size, H query heads, G KV
 *            heads, D head dim, T positions of the case, F dense width, E experts, K experts per
 *            token, M expert width, V vocabulary, N tokens that the file lists of each position: as
 *            many as it likes
 *   values   REAL, or IDS: int32 ids of experts or tokens
 *   need     for full coverage: REQUIRED, OPTIONAL, or UNLESS_V_IS_K: required, but not on layers
 *            where V is K
 *   where    the models that have the tap: ANY, EXPERTS: those with experts, or NONE: it follows
 *            from another tap, and the forward pass never shows it
 *   heads    the heads (axis) that the step works on one by one, as norms and rotations per head
 *            do; '1' where it takes a row as a whole
 *   sum      the axes whose product is the length of the step's sums of products, which are
 *            accumulated in float32; "" where it has none
 *   each     how often the step rounds each value, independently (spec/tolerance.md, "Roundings")
 *   shared   roundings of a factor that a row (of a head, where heads says so) shares, in units of
 *            one
 *   rows     what comparing and injecting rows must know: PLAIN; CACHED: it is stored in the KV
 *            cache, in its type; BY_ID: in the order of topk_ids; SCORES and PROBS: the last axis
 *            is keys, of which the query sees some (forward.h): the others may hold anything in
 *            SCORES and are 0 in PROBS
 *   feeds    WEIGHTS: a weight matrix multiplies it next, which quantised engines do with 8-bit
 *            inputs; OTHER: anything else */
/* clang-format off */
/* id; name, shape, values, need, where, heads, sum, each, shared, rows, feeds */
#define GEMMA4_TAPS(X)                                                                             \
    X(EMBED,                                                                                       \
    "embed",               "d",  REAL, REQUIRED,      ANY,     '1', "",   1, 0,   PLAIN,  OTHER)   \
    X(LAYER_INPUT,                                                                                 \
    "input",               "d",  REAL, OPTIONAL,      ANY,     '1', "",   0, 0,   PLAIN,  OTHER)   \
    X(ATTN_NORM,                                                                                   \
    "attn.norm",           "d",  REAL, REQUIRED,      ANY,     '1', "",   2, 1.5, PLAIN,  WEIGHTS) \
    X(ATTN_Q,                                                                                      \
    "attn.q",              "HD", REAL, REQUIRED,      ANY,     '1', "d",  1, 0,   PLAIN,  OTHER)   \
    X(ATTN_K,                                                                                      \
    "attn.k",              "GD", REAL, REQUIRED,      ANY,     '1', "d",  1, 0,   PLAIN,  OTHER)   \
    X(ATTN_V,                                                                                      \
    "attn.v",              "GD", REAL, UNLESS_V_IS_K, ANY,     '1', "d",  1, 0,   PLAIN,  OTHER)   \
    X(ATTN_Q_NORM,                                                                                 \
    "attn.q_norm",         "HD", REAL, REQUIRED,      ANY,     'H', "",   2, 1.5, PLAIN,  OTHER)   \
    X(ATTN_K_NORM,                                                                                 \
    "attn.k_norm",         "GD", REAL, REQUIRED,      ANY,     'G', "",   2, 1.5, PLAIN,  OTHER)   \
    X(ATTN_V_NORM,                                                                                 \
    "attn.v_norm",         "GD", REAL, REQUIRED,      ANY,     'G', "",   1, 1.5, CACHED, OTHER)   \
    X(ATTN_Q_ROPE,                                                                                 \
    "attn.q_rope",         "HD", REAL, REQUIRED,      ANY,     'H', "",   3, 0,   PLAIN,  OTHER)   \
    X(ATTN_K_ROPE,                                                                                 \
    "attn.k_rope",         "GD", REAL, REQUIRED,      ANY,     'G', "",   3, 0,   CACHED, OTHER)   \
    X(ATTN_SCORES,                                                                                 \
    "attn.scores",         "HT", REAL, OPTIONAL,      ANY,     'H', "D",  1, 0,   SCORES, OTHER)   \
    X(ATTN_PROBS,                                                                                  \
    "attn.probs",          "HT", REAL, OPTIONAL,      ANY,     'H', "",   2, 1,   PROBS,  OTHER)   \
    X(ATTN_CONTEXT,                                                                                \
    "attn.context",        "HD", REAL, REQUIRED,      ANY,     'H', "T",  1, 0,   PLAIN,  WEIGHTS) \
    X(ATTN_OUT,                                                                                    \
    "attn.out",            "d",  REAL, REQUIRED,      ANY,     '1', "HD", 1, 0,   PLAIN,  OTHER)   \
    X(ATTN_POST_NORM,                                                                              \
    "attn.post_norm",      "d",  REAL, REQUIRED,      ANY,     '1', "",   2, 1.5, PLAIN,  OTHER)   \
    X(ATTN_RESIDUAL,                                                                               \
    "attn.residual",       "d",  REAL, REQUIRED,      ANY,     '1', "",   1, 0,   PLAIN,  OTHER)   \
    X(MLP_NORM,                                                                                    \
    "mlp.norm",            "d",  REAL, REQUIRED,      ANY,     '1', "",   2, 1.5, PLAIN,  WEIGHTS) \
    X(MLP_GATE,                                                                                    \
    "mlp.gate",            "F",  REAL, REQUIRED,      ANY,     '1', "d",  1, 0,   PLAIN,  OTHER)   \
    X(MLP_UP,                                                                                      \
    "mlp.up",              "F",  REAL, REQUIRED,      ANY,     '1', "d",  1, 0,   PLAIN,  OTHER)   \
    X(MLP_ACT,                                                                                     \
    "mlp.act",             "F",  REAL, REQUIRED,      ANY,     '1', "",   3, 0,   PLAIN,  WEIGHTS) \
    X(MLP_OUT,                                                                                     \
    "mlp.out",             "d",  REAL, REQUIRED,      ANY,     '1', "F",  1, 0,   PLAIN,  OTHER)   \
    X(MLP_POST_NORM,                                                                               \
    "mlp.post_norm",       "d",  REAL, REQUIRED,      EXPERTS, '1', "",   2, 1.5, PLAIN,  OTHER)   \
    X(ROUTER_NORM,                                                                                 \
    "router.norm",         "d",  REAL, REQUIRED,      EXPERTS, '1', "",   3, 2,   PLAIN,  WEIGHTS) \
    X(ROUTER_LOGITS,                                                                               \
    "router.logits",       "E",  REAL, REQUIRED,      EXPERTS, '1', "d",  1, 0,   PLAIN,  OTHER)   \
    X(ROUTER_PROBS,                                                                                \
    "router.probs",        "E",  REAL, REQUIRED,      EXPERTS, '1', "",   2, 1,   PLAIN,  OTHER)   \
    X(ROUTER_TOPK_IDS,                                                                             \
    "router.topk_ids",     "K",  IDS,  REQUIRED,      EXPERTS, '1', "",   0, 0,   PLAIN,  OTHER)   \
    X(ROUTER_TOPK_NORM,                                                                            \
    "router.topk_norm",    "K",  REAL, OPTIONAL,      EXPERTS, '1', "",   2, 1,   BY_ID,  OTHER)   \
    X(ROUTER_TOPK_WEIGHTS,                                                                         \
    "router.topk_weights", "K",  REAL, REQUIRED,      EXPERTS, '1', "",   2, 0,   BY_ID,  OTHER)   \
    X(MOE_NORM,                                                                                    \
    "moe.norm",            "d",  REAL, REQUIRED,      EXPERTS, '1', "",   2, 1.5, PLAIN,  WEIGHTS) \
    X(MOE_ACT,                                                                                     \
    "moe.act",             "KM", REAL, OPTIONAL,      EXPERTS, '1', "d",  3, 0,   BY_ID,  WEIGHTS) \
    X(MOE_OUT,                                                                                     \
    "moe.out",             "d",  REAL, REQUIRED,      EXPERTS, '1', "M",  4, 0,   PLAIN,  OTHER)   \
    X(MOE_POST_NORM,                                                                               \
    "moe.post_norm",       "d",  REAL, REQUIRED,      EXPERTS, '1', "",   2, 1.5, PLAIN,  OTHER)   \
    X(FFN_SUM,                                                                                     \
    "ffn.sum",             "d",  REAL, REQUIRED,      EXPERTS, '1', "",   1, 0,   PLAIN,  OTHER)   \
    X(FFN_POST_NORM,                                                                               \
    "ffn.post_norm",       "d",  REAL, REQUIRED,      ANY,     '1', "",   2, 1.5, PLAIN,  OTHER)   \
    X(FFN_RESIDUAL,                                                                                \
    "ffn.residual",        "d",  REAL, REQUIRED,      ANY,     '1', "",   1, 0,   PLAIN,  OTHER)   \
    X(LAYER_OUTPUT,                                                                                \
    "output",              "d",  REAL, REQUIRED,      ANY,     '1', "",   1, 0,   PLAIN,  OTHER)   \
    X(FINAL_NORM,                                                                                  \
    "final_norm",          "d",  REAL, REQUIRED,      ANY,     '1', "",   2, 1.5, PLAIN,  WEIGHTS) \
    X(LOGITS_RAW,                                                                                  \
    "logits_raw",          "V",  REAL, OPTIONAL,      ANY,     '1', "d",  1, 0,   PLAIN,  OTHER)   \
    X(LOGITS,                                                                                      \
    "logits",              "V",  REAL, REQUIRED,      ANY,     '1', "",   3, 0,   PLAIN,  OTHER)   \
    X(LOGPROBS_IDS,                                                                                \
    "logprobs.ids",        "N",  IDS,  OPTIONAL,      NONE,    '1', "",   0, 0,   PLAIN,  OTHER)   \
    X(LOGPROBS,                                                                                    \
    "logprobs.values",     "N",  REAL, OPTIONAL,      NONE,    '1', "",   1, 0,   PLAIN,  OTHER)
/* clang-format on */

#define GEMMA4_TAP_ENUM(id, name, shape, values, need, where, heads, sum, each, shared, rows, \
                        feeds)                                                                \
    GEMMA4_TAP_##id,
typedef enum gemma4_tap { GEMMA4_TAPS(GEMMA4_TAP_ENUM) GEMMA4_TAP_COUNT } gemma4_tap;
#undef GEMMA4_TAP_ENUM

typedef enum gemma4_tap_rows {
    GEMMA4_ROWS_PLAIN,
    GEMMA4_ROWS_CACHED,
    GEMMA4_ROWS_BY_ID,
    GEMMA4_ROWS_SCORES,
    GEMMA4_ROWS_PROBS
} gemma4_tap_rows;

/* A row of the table; the columns' comments hold for the fields. */
typedef struct gemma4_tap_info {
    const char *name;  /* "attn.q_rope" */
    const char *shape; /* "HD" */
    bool ids;          /* int32 ids instead of reals */
    bool optional;
    bool unless_v_is_k; /* not needed on layers where V is K */
    bool of_experts;    /* only models with experts have it */
    bool derived;       /* it follows from another tap, and no forward pass shows it */
    char heads;         /* '1', 'H' or 'G' */
    const char *sum;    /* "HD"; "" for none */
    double each_roundings, shared_roundings;
    gemma4_tap_rows rows;
    bool feeds_weights;
    bool per_layer;
} gemma4_tap_info;

#define GEMMA4_TAP_NAME_SIZE 48

const gemma4_tap_info *gemma4_tap_describe(gemma4_tap tap);
/* "layers.5.attn.q_rope", or "embed" (layer is then ignored). Returns name. */
const char *gemma4_tap_name(gemma4_tap tap, size_t layer, char name[GEMMA4_TAP_NAME_SIZE]);
/* The inverse; false where name is no tap. layer is 0 for a tap that has none. */
bool gemma4_tap_parse(const char *name, gemma4_tap *tap, size_t *layer);
/* The axes that follow the position axis, for that layer of the model; positions is T. Returns how
 * many (1 or 2). The length of axis N, which no config says, is 0. */
size_t gemma4_tap_dims(const gemma4_config *config, gemma4_tap tap, size_t layer, size_t positions,
                       size_t dims[2]);

/* How many heads of a row the step works on one by one; 1 where it takes the row as a whole. */
size_t gemma4_tap_heads(const gemma4_config *config, gemma4_tap tap, size_t layer);
/* How many products each of the step's sums has; 0 where it has no sums. positions is T. */
size_t gemma4_tap_sum_length(const gemma4_config *config, gemma4_tap tap, size_t layer,
                             size_t positions);

/* Does the model's forward pass show this tap, in this layer (ignored for taps outside the layers)?
 * Not where there is no such layer. A model without experts has no router.* and moe.*; there
 * post_feedforward_layernorm reads mlp.out, so that mlp.post_norm and ffn.sum are missing too. A
 * tap that repeats another one exists: input, attn.v on layers where V is K, logits_raw of a model
 * without soft-cap. What only files hold does not: log-probabilities. */
bool gemma4_tap_exists(const gemma4_config *config, gemma4_tap tap, size_t layer);
/* Does full coverage need it? Only taps that exist, and not those that are optional; nor attn.v on
 * layers where V is K. */
bool gemma4_tap_required(const gemma4_config *config, gemma4_tap tap, size_t layer);

/* One tensor, as the forward pass shows it to the hook: rows consecutive positions, each dims[0] x
 * dims[1] values, row after row. The hook may read it and may overwrite it: the next step reads
 * what the hook left. */
typedef struct gemma4_tap_event {
    gemma4_tap tap;
    size_t layer;
    size_t row; /* index of the first position, counted from the session's first one */
    size_t rows;
    size_t rank;         /* 1 or 2 */
    size_t dims[2];      /* dims[1] is 1 where rank is 1 */
    gemma4_real *values; /* [rows, dims...]; NULL for ids */
    int32_t *ids;        /* [rows, dims...]; NULL for reals */
    size_t first_key;    /* scores and probs, shown a position at a time: the last axis holds only
                            the visible keys, and its entry 0 is the position of this index; 0 for
                            every other tap */
} gemma4_tap_event;

/* Returns 0, or -1 with the error's message filled: the forward pass then stops and fails with
 * it. */
typedef int (*gemma4_tap_hook)(void *context, gemma4_tap_event *event, gemma4_error *error);

#endif
