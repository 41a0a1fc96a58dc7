/* Counter-models: the model with known mistakes in it (spec/causes.md).
 *
 * A mistake is data: the parameters of the steps in which it differs from the definition.
 * gemma4_counter_step computes any tap of a layer from the tensors before it, with given
 * parameters; with the right ones it gives what ref/forward.c gives. So mistakes can be evaluated
 * one step at a time on an engine's own inputs, planted into a whole forward pass through its hook,
 * restricted to some layers, and combined. Nothing in ref/ knows of them. */
#ifndef GEMMA4_COUNTER_MODEL_H
#define GEMMA4_COUNTER_MODEL_H

#include "model.h"
#include "space.h"
#include "taps.h"

/* The RMSNorms, in dataflow order. */
typedef enum gemma4_norm {
    GEMMA4_NORM_INPUT,
    GEMMA4_NORM_Q,
    GEMMA4_NORM_K,
    GEMMA4_NORM_V,
    GEMMA4_NORM_POST_ATTENTION,
    GEMMA4_NORM_PRE_FFN,
    GEMMA4_NORM_POST_FFN_1,
    GEMMA4_NORM_ROUTER,
    GEMMA4_NORM_PRE_FFN_2,
    GEMMA4_NORM_POST_FFN_2,
    GEMMA4_NORM_POST_FFN,
    GEMMA4_NORM_FINAL,
    GEMMA4_NORM_COUNT
} gemma4_norm;

typedef enum gemma4_activation_function {
    GEMMA4_GELU_TANH,
    GEMMA4_GELU_ERF,
    GEMMA4_SILU,
    GEMMA4_QUICK_GELU /* x sigmoid(1.702 x) */,
    GEMMA4_IDENTITY,
    GEMMA4_GPT_OSS /* quick GELU of gate clamped to 7, times up clamped to +-7 plus 1 */
} gemma4_activation_function;

typedef struct gemma4_norm_parameters {
    bool dropped;         /* y = x */
    bool one_plus;        /* 1 + w */
    bool no_weight;       /* unit norm */
    bool mean_subtracted; /* LayerNorm */
    bool eps_outside;     /* sqrt(mean) + eps */
    bool over_all_heads;  /* q, k, v: one mean over all heads of a position */
    bool bf16_sum;        /* the sum of squares is accumulated in bf16 */
    bool bf16_unit;       /* x / rms is rounded to bf16 before the weight multiplies it */
    int weight_of;        /* -1: its own; else the weight of that other norm, where it has one of
                             the same length */
    double eps;           /* 0: the config's */
} gemma4_norm_parameters;

typedef enum gemma4_pairing {
    GEMMA4_PAIR_HALF,       /* j, j + D/2 */
    GEMMA4_PAIR_CONTIGUOUS, /* j, j + pairs */
    GEMMA4_PAIR_INTERLEAVED /* 2j, 2j + 1 */
} gemma4_pairing;

typedef enum gemma4_position_source {
    GEMMA4_POSITION_ABSOLUTE,
    GEMMA4_POSITION_IN_CHUNK,  /* counted from the start of the chunk that the position was fed
                                  in */
    GEMMA4_POSITION_RING_SLOT, /* counted from the start of the case, modulo the window */
    GEMMA4_POSITION_RELATIVE   /* counted from the start of the case: the first position is 0 */
} gemma4_position_source;

typedef struct gemma4_rope_parameters {
    bool skipped;
    bool before_norm;     /* q, k: rotated first, normed afterwards */
    bool first_head_only; /* the other heads stand still */
    bool other_kind;      /* theta, pairs and exponent of the other kind of layer (pairs at most
                             D/2) */
    bool other_theta;     /* only theta */
    gemma4_pairing pairing;
    gemma4_position_source position;
    double offset;         /* added to the position */
    double position_scale; /* multiplies it: 1; 0.125 for linear scaling by 8 */
    double theta;          /* 0: the config's */
    double denominator;    /* of the exponent, as a multiple of D: 1; 0.25: the rotating width of
                             full layers */
    double pairs;          /* as a multiple of the config's: 1; a value that gives D/2 at most */
    bool reversed;         /* rotates the other way */
    bool half_precision_frequencies; /* frequencies rounded to float16 */
    bool bf16_angles;                /* positions and angles rounded to bf16 */
} gemma4_rope_parameters;

/* What V is taken from. K_NORM and K_ROPE are not there yet at attn.v: they act at attn.v_norm. */
typedef enum gemma4_v_source {
    GEMMA4_V_RIGHT,
    GEMMA4_V_K_RAW,  /* the k_proj output, also where there is a v_proj */
    GEMMA4_V_K_NORM, /* K after k_norm */
    GEMMA4_V_K_ROPE, /* K after k_norm and RoPE */
    GEMMA4_V_ZERO
} gemma4_v_source;

/* Which of G KV heads query head h reads. */
typedef enum gemma4_grouping {
    GEMMA4_GROUP_NEIGHBOURS, /* h div (H/G) */
    GEMMA4_GROUP_MODULO,     /* h mod G */
    GEMMA4_GROUP_FIRST,      /* KV head 0 for all */
    GEMMA4_GROUP_OTHER_KIND  /* h div (H/G'), modulo G, with the G' of the other kind of layer */
} gemma4_grouping;

/* Which keys a query sees beyond or short of the definition's. chunk: the chunk that the query was
 * fed in. A query that sees no key at all gets probabilities and a context of 0. */
typedef enum gemma4_cache_fault {
    GEMMA4_CACHE_RIGHT,
    GEMMA4_CACHE_NO_PAST,             /* a chunk sees only itself */
    GEMMA4_CACHE_WINDOW_OF_CHUNK_END, /* sliding: every query sees only the last `window` keys
                                         before the end of its chunk */
    GEMMA4_CACHE_RING_OVERFLOW,       /* sliding: the chunk is written into a ring of `window` slots
                                         before its queries read the past from it: past keys older
                                         than `window` before the chunk's end are gone */
    GEMMA4_CACHE_CHUNK_NOT_CAUSAL,    /* queries see their whole chunk */
    GEMMA4_CACHE_MASK_OFFSET_ZERO,    /* mask as if the chunk began at position 0: its query t sees
                                         the first t + 1 keys of all */
    GEMMA4_CACHE_STALE,               /* in chunks after the first, the chunk's own keys are
                                         missing, except the query's */
    GEMMA4_CACHE_FIRST_CHUNK_LOST,    /* keys of the first chunk are hidden from later chunks */
    GEMMA4_CACHE_FIRST_CHUNK_ZERO,    /* ... are not hidden, but they and their values read as 0 */
    GEMMA4_CACHE_SLOT_AS_POSITION     /* sliding: after rollover, keys in ring slots above the
                                         query's own slot are hidden */
} gemma4_cache_fault;

typedef struct gemma4_attention_parameters {
    double scale;                                 /* multiplies scores: 1 */
    bool scale_inv_sqrt_d, scale_inv_sqrt_hidden; /* D^-0.5; (hidden / H)^-0.5 */
    double softcap;                               /* of scores; 0: none */
    int window_change;                            /* added to the window of sliding layers */
    bool no_window;                               /* sliding layers see everything */
    bool window_on_full;
    bool not_causal; /* every query sees all positions (within the window on sliding layers) */
    bool excludes_self;
    bool sink; /* a key of score 0 and value 0 beside the others (softmax off by one) */
    gemma4_grouping grouping;
    gemma4_cache_fault cache;
    bool chunked_only;   /* these parameters hold only for positions fed after the first chunk */
    bool decode_only;    /* ... only for positions fed in a chunk of one */
    bool bf16_probs_sum; /* softmax denominator accumulated in bf16 */
    bool f16_cache;      /* keys and values rounded to float16 */
    bool v_head_rolled;  /* V of the next KV head */
    bool context_zero;   /* the kernel writes nothing */
} gemma4_attention_parameters;

/* What a branch's own norm reads. A branch that comes before the tensor cannot read it:
 * gemma4_counter_step then fails. */
typedef enum gemma4_branch_input {
    GEMMA4_FROM_RESIDUAL, /* attn.residual: right */
    GEMMA4_FROM_MLP_NORM,
    GEMMA4_FROM_MOE_NORM, /* computed anew where moe.norm comes later */
    GEMMA4_FROM_MLP_OUT,
    GEMMA4_FROM_MLP_POST_NORM,
    GEMMA4_FROM_LAYER_INPUT
} gemma4_branch_input;

typedef struct gemma4_mlp_parameters {
    gemma4_branch_input input; /* what its norm reads */
    gemma4_activation_function act;
    bool swapped;             /* act(up) * gate */
    bool projections_swapped; /* gate_proj's output is up_proj's and the other way round */
} gemma4_mlp_parameters;

typedef struct gemma4_router_parameters {
    gemma4_branch_input input; /* what its norm reads */
    bool no_scale_tensor, no_root, root_bf16, root_twice;
    bool bf16_logits;      /* logits rounded to bf16 before softmax and top-k */
    bool logits_are_probs; /* softmax is applied where the logits are shown, and not again */
    bool sigmoid;          /* in place of softmax */
    bool topk_not_renormalised;
    bool softmax_of_probs; /* a second softmax, over the K probabilities, in place of dividing
                                  by their sum */
    bool no_expert_scale, expert_scale_twice;
    bool expert_scale_before_normalising;
    bool expert_scale_by_rank; /* per_expert_scale[rank] instead of [id] */
    int k_change;              /* negative: the last -k_change experts get no weight, the others are
                                  renormalised */
    bool weights_uniform;      /* 1/K */
    bool ids_smallest;         /* the K smallest logits */
    bool ids_shifted;          /* id + 1 modulo E */
} gemma4_router_parameters;

typedef struct gemma4_expert_parameters {
    gemma4_branch_input input; /* what the experts' norm reads */
    gemma4_activation_function act;
    bool swapped;         /* up rows first */
    bool interleaved;     /* gate and up rows alternate */
    bool up_missing;      /* act(gate) alone */
    bool ids_shifted;     /* weights of expert id + 1 */
    bool weights_ignored; /* plain sum */
    bool weight_on_input; /* the routing weight multiplies the expert's input: gelu_tanh bends
                                  it */
    bool weight_squared;
    bool last_dropped; /* the last of the K experts is missing from the sum */
    bool first_only;
    bool down_transposed;    /* down_proj of an expert read as [M, d] */
    bool gate_up_transposed; /* gate_up_proj of an expert read as [d, 2M] */
    bool tail_dropped;       /* down_proj's inputs after the last whole group of 128 are missing;
                                  a quarter where M < 128 */
    bool f16_accumulate;     /* sums rounded to float16 after every product */
    bool all_zero;           /* the experts' weights were never loaded */
    double capacity_factor;  /* an expert takes at most ceil(factor * positions * K / E) positions
                                  of a chunk; 0: all */
} gemma4_expert_parameters;

typedef struct gemma4_stream_parameters {
    bool no_embed_scale, embed_scale_twice, embed_scale_bf16;
    bool qk_lanes_permuted;       /* rows of q_proj and k_proj reordered, per head, for pairs (2j,
                                     2j+1) */
    bool o_heads_interleaved;     /* o_proj reads [D, H] in place of [H, D] */
    bool attn_residual_from_norm; /* the residual is the normed input: aliasing */
    bool no_attn_residual, no_ffn_residual;
    bool ffn_residual_from_input;        /* adds the layer's input instead of attn.residual */
    bool ffn_residual_from_norm;         /* adds mlp.norm: aliasing */
    bool experts_ignored, dense_ignored; /* in ffn.sum */
    bool sum_averaged;                   /* (a + b) / 2 */
    bool norm_after_sum_only; /* branches are summed without their own norms: ffn.sum = mlp.out
                                     + moe.out */
    bool no_layer_scalar, layer_scalar_twice;
    bool layer_scalar_on_delta;  /* input + s * (y - input) */
    bool layer_scalar_on_branch; /* attn.residual + s * ffn.post_norm */
    bool layer_scalar_of_next;   /* the last layer's is its own */
    bool output_is_final_norm;   /* the last layer's output is shown after the final norm, which is
                                     not applied again */
    bool logits_without_norm;    /* the head reads the stream */
    bool head_scaled;            /* the head's weights are the scaled embeddings */
    bool no_softcap, softcap_twice;
    bool softcap_formula; /* x tanh(x / cap) */
    double softcap;       /* 0: the config's */
} gemma4_stream_parameters;

enum { GEMMA4_SETTINGS = 8 };

/* Everything that a layer can do wrong. */
typedef struct gemma4_parameters {
    gemma4_norm_parameters norm[GEMMA4_NORM_COUNT];
    gemma4_rope_parameters q_rope, k_rope, v_rope /* skipped where right */;
    gemma4_v_source v;
    gemma4_attention_parameters attention;
    gemma4_mlp_parameters mlp;
    gemma4_router_parameters router;
    gemma4_expert_parameters expert;
    gemma4_stream_parameters stream;
    const gemma4_setting *settings[GEMMA4_SETTINGS]; /* beyond those above */
    size_t setting_count;
} gemma4_parameters;

/* The definition. */
gemma4_parameters gemma4_right_parameters(void);

/* One layer (or the embedding, or the head) of one run: what there is to compute a step from. */
typedef struct gemma4_step {
    const gemma4_model *model;
    size_t layer, T, first_position;
    const size_t *chunk_start; /* [T] index of the first position of the chunk that each position
                                   was fed in */
    const size_t *chunk_end;   /* [T] index after its last one */
    const int32_t *tokens;     /* [T] */
    /* Tensors of this layer as its steps read them, [T, dims]; NULL where not computed yet. For the
     * head, values[FINAL_NORM] and so on; its input, the last layer's output, is
     * values[LAYER_OUTPUT]; the embedding needs tokens only. */
    const gemma4_real *values[GEMMA4_TAP_COUNT];
    const int32_t *topk_ids; /* [T, K] */
} gemma4_step;

/* Computes one tap with the given parameters: out is [T, dims of the tap] as gemma4_tap_dims says
 * ([T, H, T] for scores and probs, 0 where masked), ids instead of out for topk_ids. Reads from the
 * step only what comes before the tap in dataflow order. Returns -1 where memory runs out or a
 * tensor that it needs is missing. */
int gemma4_counter_step(const gemma4_step *step, const gemma4_parameters *parameters,
                        gemma4_tap tap, gemma4_real *out, int32_t *ids, gemma4_error *error);

/* --- the catalogue --- */

enum { GEMMA4_ON_SLIDING = 1, GEMMA4_ON_FULL = 2, GEMMA4_ON_HEAD = 4 /* embedding and head */ };

typedef struct gemma4_counter_model {
    const char *id;      /* the cause's id; several counter-models may share one, then variant
                             tells them apart */
    const char *variant; /* "" where there is only one */
    const char *section; /* embedding, norms, attention, rope, masks, cache, router, experts,
                             dense, stream, head */
    int where;           /* GEMMA4_ON_... */
    gemma4_tap taps[16]; /* the taps that it computes differently, in dataflow order; ends with
                             GEMMA4_TAP_COUNT */
    void (*change)(gemma4_parameters *parameters); /* from right to wrong; NULL where it is a point
                                                      of the space (point.h) */
    const char *wrong, *right;                     /* one line each */
    const char *invisible; /* when it cannot be seen: short prompts, scalars at 1 ... */
    const char *seen;      /* public places where it was seen, space-separated; "" where it is
                                  only plausible */
} gemma4_counter_model;

/* From right to wrong. */
void gemma4_counter_apply(const gemma4_counter_model *counter_model, gemma4_parameters *parameters);

size_t gemma4_counter_model_count(void);
const gemma4_counter_model *gemma4_counter_model_at(size_t index);
/* Whether a counter-model has that id. */
bool gemma4_cause_exists(const char *id);
/* The unit of the values that it rounds on their way; 0: it is another kind of mistake. */
double gemma4_counter_model_rounds(const gemma4_counter_model *counter_model);
/* A rounding that engines whose arithmetic has this unit may make: a mistake in finer precisions
 * only. */
bool gemma4_counter_model_is_permitted(const gemma4_counter_model *counter_model, double unit);
/* Whether it acts on that layer's kind (or, for a tap that has no layer, on the embedding or the
 * head). */
bool gemma4_counter_model_acts(const gemma4_counter_model *counter_model,
                               const gemma4_config *config, gemma4_tap tap, size_t layer);

#endif
