/* The sample as data: its columns with the rates that they must reach, and its engines. */
#include "sample.h"

static const gemma4_sample_column columns[] = {
    {GEMMA4_PLANTED, "float32", GEMMA4_SET_ALL, 1},
    {GEMMA4_HONEST, "float32", GEMMA4_SET_ALL, 1},
    {GEMMA4_HONEST, "bfloat16", GEMMA4_SET_ALL, 1},
    {GEMMA4_HONEST, "float16", GEMMA4_SET_ALL, 1},
    {GEMMA4_PLANTED, "bfloat16", GEMMA4_SET_ALL, 1},
    {GEMMA4_PLANTED, "float32", GEMMA4_SET_LAYERS, 1},
    {GEMMA4_PLANTED, "bfloat16", GEMMA4_SET_LAYERS, 1},
    {GEMMA4_PLANTED, "float32", GEMMA4_SET_LOGITS, 1},
    {GEMMA4_PAIR, "float32", GEMMA4_SET_LOGITS, 1},
    {GEMMA4_PAIR, "float32", GEMMA4_SET_ALL, 1},
    {GEMMA4_PAIR, "bfloat16", GEMMA4_SET_ALL, 1},
    {GEMMA4_HONEST, "float32", GEMMA4_SET_LAYERS, 1},
    {GEMMA4_HONEST, "bfloat16", GEMMA4_SET_LAYERS, 1},
    {GEMMA4_HONEST, "float16", GEMMA4_SET_LAYERS, 1},
    {GEMMA4_HONEST, "float32", GEMMA4_SET_LOGITS, 1},
    {GEMMA4_HONEST, "bfloat16", GEMMA4_SET_LOGITS, 1},
    {GEMMA4_HONEST, "float16", GEMMA4_SET_LOGITS, 1},
};

#define EVERY GEMMA4_EVERY_LAYER
#define HONEST(id, count, listed)                                          \
    {                                                                      \
        .kind = GEMMA4_HONEST, .case_id = id, .seeds = count, .in = listed \
    }
#define PLANTED(id, variant, layer, case, tap, listed)                                           \
    {                                                                                            \
        .kind = GEMMA4_PLANTED, .case_id = case, .faults = {{id, variant, layer}}, .first = tap, \
        .in = listed                                                                             \
    }
#define PAIR(a, b, case, tap, listed)                                                     \
    {                                                                                     \
        .kind = GEMMA4_PAIR, .case_id = case, .faults = {{a, "", EVERY}, {b, "", EVERY}}, \
        .first = tap, .in = listed                                                        \
    }

/* To take seconds, not minutes: of planted mistakes, each is in the column of float32 dumps of all
 * taps and in one other; 16-bit layer outputs of honest engines are slow. */
#define LAYERS "float32 all, float32 layers"
#define LOGITS "float32 all, float32 logits"
#define BFLOAT16 "float32 all, bfloat16 all"
#define BFLOAT16_LAYERS "float32 all, bfloat16 layers"
#define NOT_16_BIT_LAYERS                                                                       \
    "float32 all, float32 layers, float32 logits, bfloat16 all, bfloat16 logits, float16 all, " \
    "float16 logits"
#define NOT_16_BIT_TAPS \
    "float32 all, float32 layers, float32 logits, bfloat16 logits, float16 logits"

/* The planted ones: every seventh of the catalogue as it was when the list was made, each on a case
 * and in columns that show it. Behind them: what only the filter finds in bfloat16, the smallest
 * effect of all, and a mistake in one layer. */
static const gemma4_sample_row rows[] = {
    HONEST("tiny-prompt", 1, NULL),
    HONEST("tiny-decode", 1, NOT_16_BIT_LAYERS),
    HONEST("moe128-decode", 1, NOT_16_BIT_LAYERS),
    HONEST("uneven96-prompt", 1, NOT_16_BIT_TAPS),

    PLANTED("embed-scale-bf16-in-fp32-reference", "", EVERY, "uneven96-prompt", "embed", LAYERS),
    PLANTED("rmsnorm-as-layernorm", "", EVERY, "tiny-prompt", "layers.0.attn.norm", BFLOAT16),
    PLANTED("qk-norm-missing", "k_norm", EVERY, "moe128-decode", "layers.0.attn.k_norm",
            BFLOAT16_LAYERS),
    PLANTED("rmsnorm-base-ffn-norms-dropped", "post_feedforward_layernorm", EVERY, "tiny-prompt",
            "layers.0.ffn.post_norm", LOGITS),
    PLANTED("branch-post-norms-missing", "experts", EVERY, "tiny-prompt", "layers.0.moe.post_norm",
            LAYERS),
    PLANTED("ffn-residual-missing", "", EVERY, "uneven96-prompt", "layers.0.ffn.residual",
            BFLOAT16_LAYERS),
    PLANTED("layer-scalar-on-delta", "", EVERY, "tiny-prompt", "layers.0.output", BFLOAT16),
    PLANTED("embed-scale-on-tied-head", "", EVERY, "tiny-prompt", "logits_raw", LAYERS),
    PLANTED("keqv-unimplemented", "", EVERY, "tiny-prompt", "layers.5.attn.v", BFLOAT16),
    PLANTED("attn-scale-inv-sqrt-d", "", EVERY, "tiny-prompt", "layers.0.attn.scores", BFLOAT16),
    PLANTED("rope-pairing-contiguous", "", EVERY, "moe128-decode", "layers.1.attn.q_rope",
            BFLOAT16),
    PLANTED("rope-freqs-fp16", "every layer", EVERY, "tiny-prompt", "layers.0.attn.q_rope", LAYERS),
    PLANTED("rope-scaling-wrong-layer-kind", "sliding layers", EVERY, "tiny-prompt",
            "layers.0.attn.q_rope", LAYERS),
    PLANTED("rope-first-position-ignored", "", EVERY, "tiny-far", "layers.0.attn.q_rope",
            "float32 all"),
    PLANTED("rope-before-qk-norm", "", EVERY, "tiny-prompt", "layers.0.attn.q_rope", LOGITS),
    PLANTED("window-not-passed", "decode only", EVERY, "tiny-decode", "layers.0.attn.probs",
            LAYERS),
    PLANTED("chunked-prefill-ring-overflow", "", EVERY, "tiny-chunks", "layers.0.attn.scores",
            LAYERS),
    PLANTED("prefill-kv-never-uploaded", "", EVERY, "tiny-decode", "layers.0.attn.scores",
            BFLOAT16_LAYERS),
    PLANTED("router-scale-tensor-skipped", "", EVERY, "tiny-prompt", "layers.0.router.norm",
            BFLOAT16),
    PLANTED("topk-softmax-twice", "", EVERY, "moe128-decode", "layers.0.router.topk_norm",
            BFLOAT16_LAYERS),
    PLANTED("per-expert-scale-before-normalising", "", EVERY, "tiny-prompt",
            "layers.0.router.topk_norm", LAYERS),
    PLANTED("experts-silu", "", EVERY, "tiny-prompt", "layers.0.moe.act", BFLOAT16_LAYERS),
    PLANTED("fused-split-missing-on-host", "", EVERY, "tiny-prompt", "layers.0.moe.act", LOGITS),
    PLANTED("routing-weight-on-input", "", EVERY, "uneven96-prompt", "layers.0.moe.act", LAYERS),
    PLANTED("branch-reads-layer-input", "dense MLP", EVERY, "tiny-prompt", "layers.0.mlp.norm",
            LAYERS),
    PLANTED("mlp-gelu-erf", "", EVERY, "tiny-prompt", "layers.0.mlp.act", BFLOAT16),
    PLANTED("rmsnorm-eps-wrong", "1e-5", EVERY, "tiny-prompt", "layers.0.attn.norm", LAYERS),
    PLANTED("v-norm-missing", "", 7, "tiny-prompt", "layers.7.attn.v_norm", LOGITS),

    PAIR("embed-scale-missing", "experts-silu", "tiny-prompt", "embed", BFLOAT16),
    PAIR("input-norm-missing", "softcap-missing", "tiny-prompt", "layers.0.attn.norm",
         "float32 all"),
    PAIR("qk-norm-swapped", "layer-scalar-twice", "tiny-prompt", "layers.0.attn.q_norm", BFLOAT16),
    PAIR("v-norm-has-weight", "per-expert-scale-missing", "tiny-prompt", "layers.0.attn.v_norm",
         "float32 all"),
    PAIR("topk-not-renormalised", "keqv-unimplemented", "moe128-decode",
         "layers.0.router.topk_norm", BFLOAT16),
    PAIR("window-on-global-too", "mlp-silu", "tiny-decode", "layers.0.mlp.act", "float32 all"),
    PAIR("softmax-off-by-one", "layer-scalar-on-delta", "tiny-prompt", "layers.0.attn.probs",
         LOGITS),
    PAIR("router-sigmoid", "attn-residual-missing", "uneven96-prompt", "layers.0.attn.residual",
         "float32 all"),
    PAIR("branch-pre-norms-swapped", "o-proj-heads-interleaved", "tiny-prompt", "layers.0.attn.out",
         BFLOAT16),
};

const gemma4_sample gemma4_the_sample = {
    .columns = columns,
    .rows = rows,
    .column_count = sizeof columns / sizeof *columns,
    .row_count = sizeof rows / sizeof *rows,
};
