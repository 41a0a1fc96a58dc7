/* The space of mistakes (spec/space.md): everything that a step of the model can do otherwise, as
 * parameters with values.
 *
 * A setting is one parameter away from its right value, at some steps. Catalogued mistakes are
 * named points of the space; a point of a few settings is a counter-model like them (point.h), so
 * that whatever runs, plants and compares counter-models takes both. */
#ifndef GEMMA4_SPACE_H
#define GEMMA4_SPACE_H

#include "taps.h"

typedef enum gemma4_domain {
    GEMMA4_DOMAIN_REAL,  /* a number: found with an interval */
    GEMMA4_DOMAIN_WHOLE, /* a whole number */
    GEMMA4_DOMAIN_LIST,  /* numbers */
    GEMMA4_DOMAIN_WORD   /* one of some words, with a number or without */
} gemma4_domain;

/*   id, name in reports, steps, values, how it is found */
/* clang-format off */
#define GEMMA4_PARAMETERS(X)                                                                       \
    X(EPS,             "rms_norm_eps",            REAL,  "norms",                                  \
      "any positive number",         "least squares from powers of ten")                           \
    X(NORM_MEAN,       "norm.mean",               WORD,  "norms",              "removed",          \
      "tried")                                                                                     \
    X(NORM_AXIS,       "norm.axis",               WORD,  "norms of heads",     "all heads",        \
      "tried")                                                                                     \
    X(NORM_WEIGHT_OF,  "norm.weight_of",          WORD,  "norms",                                  \
      "another norm's weight, none", "every weight of the length is tried")                        \
    X(WEIGHT_FORM,     "weight.form",             WORD,  "steps that a vector multiplies",         \
      "1 + w, w^2, 1 / w, sqrt(w), 1", "tried")                                                    \
    X(WEIGHT_LAYER,    "weight.layer",            WORD,  "steps with a weight",                    \
      "another layer of the same shape", "tried")                                                  \
    X(WEIGHT_TENSOR,   "weight.tensor",           WORD,  "steps with a matrix",                    \
      "another tensor of the same shape", "tried")                                                 \
    X(WEIGHTS_ORDER,   "weights.order",           WORD,  "steps with a weight",                    \
      "transposed; lanes, heads, halves, experts of rows or columns in another order", "tried")    \
    X(WEIGHT_ZERO,     "weight.zero",             WORD,  "steps with a weight",                    \
      "a range of rows, columns, heads, experts", "from what is left out of the result")           \
    X(WEIGHT_ROUNDED,  "weight.rounded_to",       WORD,  "steps with a weight", "a number type",   \
      "tried")                                                                                     \
    X(WEIGHT_FACTOR,   "weight.factor",           REAL,  "moe.act",                                \
      "any positive number",         "least squares")                                              \
    X(WEIGHT_FACTORS,  "weight.factors",          LIST,  "router.topk_weights, moe.out",           \
      "a number for each expert", "least squares")                                                 \
    X(STEP_INPUT,      "step.input",              WORD,  "every step",                             \
      "another tensor of the same width", "tried")                                                 \
    X(INPUT_POSITIONS, "input.positions",         WORD,  "every step",                             \
      "another position's row",      "tried")                                                      \
    X(INPUT_ORDER,     "input.order",             WORD,  "every step",                             \
      "as weights.order",            "tried")                                                      \
    X(INPUT_ROUNDED,   "input.rounded_to",        WORD,  "every step",         "a number type",    \
      "tried")                                                                                     \
    X(RESULT_FACTOR,   "result.factor",           REAL,  "every step",         "any number",       \
      "least squares")                                                                             \
    X(RESULT_FACTORS,  "result.factors",          LIST,  "every step",                             \
      "a number for each head, expert, rank or lane", "least squares")                             \
    X(RESULT_ORDER,    "result.order",            WORD,  "every step",                             \
      "as weights.order",            "tried")                                                      \
    X(RESULT_ZERO,     "result.zero",             WORD,  "every step",                             \
      "a range of lanes or heads",   "from the result")                                            \
    X(RESULT_ROUNDED,  "result.rounded_to",       WORD,  "every step",         "a number type",    \
      "tried")                                                                                     \
    X(RESULT_CLAMPED,  "result.clamped",          REAL,  "every step",                             \
      "the largest absolute value",  "from the result")                                            \
    X(SUM_TYPE,        "sum.accumulated_in",      WORD,  "steps with a matrix",                    \
      "float16, bfloat16",          "tried")                                                       \
    X(ROPE_THETA,      "rope_theta",              REAL,  "RoPE",                                   \
      "any positive number",         "least squares from powers of ten")                           \
    X(ROPE_PAIRS,      "partial_rotary_factor",   REAL,  "RoPE",               "0 to 1",           \
      "every number of pairs is tried")                                                            \
    X(ROPE_PAIRING,    "rope.pairing",            WORD,  "RoPE",                                   \
      "half, contiguous, interleaved", "tried")                                                    \
    X(ROPE_DIRECTION,  "rope.direction",          WORD,  "RoPE",               "reversed",         \
      "tried")                                                                                     \
    X(ROPE_OFFSET,     "rope.position_offset",    REAL,  "RoPE",               "any number",       \
      "least squares")                                                                             \
    X(ROPE_SCALE,      "rope.position_scale",     REAL,  "RoPE",               "any number",       \
      "least squares")                                                                             \
    X(ROPE_DENOMINATOR, "rope.denominator",       REAL,  "RoPE",                                   \
      "any positive number",         "least squares")                                              \
    X(ROPE_TABLE,      "rope.table",              WORD,  "RoPE",                                   \
      "that of the other kind",      "tried")                                                      \
    X(ROPE_ROUNDED,    "rope.rounded_to",         WORD,  "RoPE",                                   \
      "the type of cos and sin",     "tried")                                                      \
    X(WINDOW,          "sliding_window",          WHOLE, "attention",                              \
      "1 to positions, none",        "every window is tried")                                      \
    X(MASK,            "attn.mask",               WORD,  "attention",                              \
      "not causal, offsets, blocks, hidden keys", "tried")                                         \
    X(ATTN_SCALE,      "attn.scale",              REAL,  "attention",          "any number",       \
      "least squares")                                                                             \
    X(ATTN_SOFTCAP,    "attn.softcap",            REAL,  "attention",                              \
      "any positive number",         "least squares from several caps")                            \
    X(KV_HEAD_OF,      "attn.kv_head_of",         LIST,  "attention",                              \
      "a KV head for each query head", "every head by itself")                                     \
    X(V_HEAD_OF,       "attn.v_head_of",          LIST,  "attention",                              \
      "a KV head for each query head", "every head by itself")                                     \
    X(K_HEAD_OF,       "attn.k_head_of",          LIST,  "attention",                              \
      "a KV head for each query head", "every head by itself")                                     \
    X(ACTIVATION,      "hidden_activation",       WORD,  "mlp.act, moe.act",                       \
      "a library of functions",      "tried")                                                      \
    X(GATE_AND_UP,     "gate_and_up",             WORD,  "mlp.act, moe.act",                       \
      "exchanged, interleaved, one missing, up + 1", "tried")                                      \
    X(TOP_K,           "top_k_experts",           WHOLE, "router",                                 \
      "1 to the number of experts",  "every number is tried")                                      \
    X(CHOICE,          "router.choice",           WORD,  "router",                                 \
      "smallest, shifted, skipped ranks, groups, by scaled probabilities", "tried")                \
    X(ROUTER_WEIGHTS,  "router.weights",          WORD,  "router",                                 \
      "functions of probabilities and logits", "tried")                                            \
    X(ROUTER_POWER,    "router.weights",          REAL,  "router",                                 \
      "a power of the probabilities", "least squares")                                             \
    X(EXPERTS_MISSING, "experts.missing",         LIST,  "moe.out",            "ranks",            \
      "tried")                                                                                     \
    X(RESIDUAL,        "residual.factors",        LIST,  "sums of two tensors", "two numbers",     \
      "least squares")                                                                             \
    X(FINAL_SOFTCAP,   "final_logit_softcapping", REAL,  "logits",                                 \
      "any positive number, none",   "least squares from several caps")
/* clang-format on */

#define GEMMA4_PARAMETER_ENUM(id, name, domain, steps, values, found) GEMMA4_PARAMETER_##id,
typedef enum gemma4_parameter {
    GEMMA4_PARAMETERS(GEMMA4_PARAMETER_ENUM) GEMMA4_PARAMETER_COUNT
} gemma4_parameter;
#undef GEMMA4_PARAMETER_ENUM

/* A row of the table; the columns' comments hold for the fields. */
typedef struct gemma4_parameter_info {
    const char *name;
    gemma4_domain domain;
    const char *steps, *values, *found;
} gemma4_parameter_info;
const gemma4_parameter_info *gemma4_parameter_describe(gemma4_parameter parameter);

/* The order in which blocks of an axis are read. */
typedef enum gemma4_order {
    GEMMA4_REVERSED,
    GEMMA4_ROLLED,        /* block i is read from i + number */
    GEMMA4_EXCHANGED,     /* with its neighbour */
    GEMMA4_INTERLEAVED,   /* [blocks, length] written as [length, blocks] */
    GEMMA4_DEINTERLEAVED, /* the inverse */
    GEMMA4_WOVEN,         /* blocks of both halves in turn: 0, N/2, 1, N/2 + 1 ... */
    GEMMA4_UNWOVEN,       /* the inverse */
    GEMMA4_REPEATED,      /* the first, everywhere */
    GEMMA4_PERMUTED,      /* list: pairs of a block and the one that is read in its place */
    GEMMA4_TRANSPOSED     /* of a matrix: as it lies in memory, read as [columns, rows] */
} gemma4_order;

/* Blocks of an axis that has heads, experts or ranks ("groups"), or of one that has none: then
 * there is one group. */
typedef enum gemma4_unit {
    GEMMA4_LANES,          /* single values of the whole axis */
    GEMMA4_HALVES,         /* of the whole axis */
    GEMMA4_GROUPS,         /* heads, experts, ranks */
    GEMMA4_LANES_OF_GROUP, /* single values within each group */
    GEMMA4_HALVES_OF_GROUP
} gemma4_unit;

typedef enum gemma4_number_type {
    /* towards zero */
    GEMMA4_TYPE_BF16,
    GEMMA4_TYPE_F16,
    GEMMA4_TYPE_E4M3,
    GEMMA4_TYPE_E5M2,
    GEMMA4_TYPE_BF16_CUT,
    GEMMA4_TYPE_INT8,
    GEMMA4_TYPE_INT4, /* a scale for each row: its largest value is 127 or 7 */
    GEMMA4_TYPE_COUNT
} gemma4_number_type;

typedef enum gemma4_weight_form {
    GEMMA4_FORM_ONE_PLUS,
    GEMMA4_FORM_SQUARE,
    GEMMA4_FORM_INVERSE,
    GEMMA4_FORM_ROOT,
    GEMMA4_FORM_ONE,
    GEMMA4_FORM_COUNT
} gemma4_weight_form;

typedef enum gemma4_mask {
    GEMMA4_MASK_NOT_CAUSAL,
    GEMMA4_MASK_OFFSET,       /* query t sees up to t + number */
    GEMMA4_MASK_FIRST_HIDDEN, /* the first `number` keys */
    GEMMA4_MASK_BLOCKS,       /* keys of the query's own block of `number` positions */
    GEMMA4_MASK_SELF_HIDDEN
} gemma4_mask;

typedef enum gemma4_choice {
    GEMMA4_CHOICE_SMALLEST,
    GEMMA4_CHOICE_SHIFTED, /* id + number, modulo the number of experts */
    GEMMA4_CHOICE_SKIPPED, /* rank `number` */
    GEMMA4_CHOICE_GROUPS,  /* the best of each of `number` groups of neighbours, as many of each */
    GEMMA4_CHOICE_SCALED,  /* by probabilities times per_expert_scale */
    GEMMA4_CHOICE_ROUNDED  /* by bfloat16 logits */
} gemma4_choice;

typedef enum gemma4_function {
    GEMMA4_FUNCTION_RELU,
    GEMMA4_FUNCTION_RELU_SQUARED,
    GEMMA4_FUNCTION_SILU,
    GEMMA4_FUNCTION_GELU_ERF,
    GEMMA4_FUNCTION_QUICK_GELU,
    GEMMA4_FUNCTION_IDENTITY,
    GEMMA4_FUNCTION_TANH,
    GEMMA4_FUNCTION_SIGMOID,
    GEMMA4_FUNCTION_SOFTPLUS,
    GEMMA4_FUNCTION_ELU,
    GEMMA4_FUNCTION_MISH,
    GEMMA4_FUNCTION_LEAKY_RELU,   /* with its slope */
    GEMMA4_FUNCTION_SIGMOID_GELU, /* x sigmoid(number x) */
    GEMMA4_FUNCTION_GELU_CUBIC,   /* tanh GELU with another factor of x^3 */
    GEMMA4_FUNCTION_CLAMPED,      /* the right one, within +-number */
    GEMMA4_FUNCTION_OF_CLAMPED,   /* the right one, of x within +-number */
    GEMMA4_FUNCTION_COUNT
} gemma4_function;

typedef enum gemma4_gate_and_up {
    GEMMA4_GATE_AND_UP_EXCHANGED,
    GEMMA4_GATE_AND_UP_INTERLEAVED,
    GEMMA4_UP_MISSING,
    GEMMA4_GATE_MISSING,
    GEMMA4_UP_PLUS_ONE,
    GEMMA4_GATE_AND_UP_COUNT
} gemma4_gate_and_up;

typedef enum gemma4_router_weights {
    GEMMA4_WEIGHTS_P,             /* the probabilities, not divided by their sum */
    GEMMA4_WEIGHTS_SOFTMAX_P,     /* softmax of the K probabilities */
    GEMMA4_WEIGHTS_SIGMOID,       /* of the logits, divided by their sum */
    GEMMA4_WEIGHTS_SIGMOID_RAW,   /* of the logits, as they are */
    GEMMA4_WEIGHTS_UNIFORM,       /* 1 / K */
    GEMMA4_WEIGHTS_SCALED_FIRST,  /* times per_expert_scale before they are divided by their sum */
    GEMMA4_WEIGHTS_SCALED_BY_RANK /* times per_expert_scale of the rank, not of the expert */
} gemma4_router_weights;

/* Entries of a list: heads, experts, ranks. Longer ones are not solved for. */
enum { GEMMA4_LIST = 256 };

/* One parameter away from its right value. What is not the parameter's is 0. */
typedef struct gemma4_setting {
    gemma4_parameter parameter;
    uint64_t steps; /* a bit for each tap whose step it changes */
    double number;
    int word; /* one of the enumerations above: the parameter's */
    gemma4_unit unit;
    bool columns;      /* of a matrix: its columns in the place of its rows */
    size_t first, end; /* blocks that are left at 0 */
    gemma4_tap input;  /* what is changed or read otherwise: the input of the step */
    gemma4_tap tensor; /* STEP_INPUT: what is read in its place */
    size_t weight;     /* WEIGHT_TENSOR, NORM_WEIGHT_OF: offset of the other one in
                           gemma4_layer_weights; SIZE_MAX for none */
    bool absolute;     /* WEIGHT_LAYER: number is the layer, not how far away it is */
    size_t count;
    double list[GEMMA4_LIST];
} gemma4_setting;

#define GEMMA4_STEP(tap) ((uint64_t)1 << (tap))

#endif
