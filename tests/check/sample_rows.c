/* The sample as data: its columns with the rates that they must reach, and its engines. */
#include "sample.h"

static const gemma4_sample_column columns[] = {
    {GEMMA4_PAIR, "float32", GEMMA4_SET_LOGITS, 1},      {GEMMA4_PAIR, "float32", GEMMA4_SET_ALL, 1},
    {GEMMA4_PAIR, "bfloat16", GEMMA4_SET_ALL, 1},        {GEMMA4_PLANTED, "float32", GEMMA4_SET_LOGITS, 1},
    {GEMMA4_PLANTED, "float32", GEMMA4_SET_ALL, 1},      {GEMMA4_PLANTED, "float32", GEMMA4_SET_LAYERS, 1},
    {GEMMA4_PLANTED, "bfloat16", GEMMA4_SET_ALL, 1},     {GEMMA4_PLANTED, "bfloat16", GEMMA4_SET_LAYERS, 1},
    {GEMMA4_HONEST, "float32", GEMMA4_SET_ALL, 1},       {GEMMA4_HONEST, "float32", GEMMA4_SET_LAYERS, 1},
    {GEMMA4_HONEST, "float32", GEMMA4_SET_LOGITS, 1},    {GEMMA4_HONEST, "bfloat16", GEMMA4_SET_ALL, 1},
    {GEMMA4_HONEST, "bfloat16", GEMMA4_SET_LAYERS, 1},   {GEMMA4_HONEST, "bfloat16", GEMMA4_SET_LOGITS, 1},
    {GEMMA4_HONEST, "float16", GEMMA4_SET_ALL, 1},       {GEMMA4_HONEST, "float16", GEMMA4_SET_LAYERS, 1},
    {GEMMA4_HONEST, "float16", GEMMA4_SET_LOGITS, 1},
};

#define EVERY GEMMA4_EVERY_LAYER
#define HONEST(id, count, omitted) {.kind = GEMMA4_HONEST, .case_id = id, .seeds = count, .not_in = omitted}
#define PLANTED(id, variant, layer, case, tap, omitted) \
    {.kind = GEMMA4_PLANTED, .case_id = case, .faults = {{id, variant, layer}}, .first = tap, .not_in = omitted}
#define PAIR(a, b, case, tap, omitted) \
    {.kind = GEMMA4_PAIR, .case_id = case, .faults = {{a, "", EVERY}, {b, "", EVERY}}, .first = tap, .not_in = omitted}

/* Some columns are slow: logits alone, and layer outputs in 16 bits where nothing fails. Each engine is in a part of them. */
#define SLOW_HONEST "bfloat16 layers, float16 layers"
#define A "float32 logits, bfloat16 layers"
#define B "float32 logits, bfloat16 all"
#define C "float32 layers, bfloat16 layers"
/* These are permitted in bfloat16, or not visible there; the last one is visible with all taps only. */
#define ONLY_FLOAT32 "float32 logits, bfloat16 all, bfloat16 layers"
#define ONLY_ALL "float32 layers, float32 logits, bfloat16 layers"

/* The planted ones: every seventh of the catalogue as it was when the list was made, each on a case that shows it. Behind them: what only the
 * filter finds in bfloat16, the smallest effect of all, and a mistake in one layer. */
static const gemma4_sample_row rows[] = {
    HONEST("tiny-prompt", 1, NULL),
    HONEST("tiny-decode", 1, SLOW_HONEST),
    HONEST("moe128-decode", 2, SLOW_HONEST),
    HONEST("uneven96-prompt", 1, SLOW_HONEST),

    PLANTED("embed-scale-bf16-in-fp32-reference", "", EVERY, "uneven96-prompt", "embed", ONLY_FLOAT32),
    PLANTED("rmsnorm-as-layernorm", "", EVERY, "tiny-prompt", "layers.0.attn.norm", A),
    PLANTED("qk-norm-missing", "k_norm", EVERY, "moe128-decode", "layers.0.attn.k_norm", B),
    PLANTED("rmsnorm-base-ffn-norms-dropped", "post_feedforward_layernorm", EVERY, "tiny-prompt", "layers.0.ffn.post_norm", C),
    PLANTED("branch-post-norms-missing", "experts", EVERY, "tiny-prompt", "layers.0.moe.post_norm", A),
    PLANTED("ffn-residual-missing", "", EVERY, "uneven96-prompt", "layers.0.ffn.residual", B),
    PLANTED("layer-scalar-on-delta", "", EVERY, "tiny-prompt", "layers.0.output", C),
    PLANTED("embed-scale-on-tied-head", "", EVERY, "tiny-prompt", "logits_raw", A),
    PLANTED("keqv-unimplemented", "", EVERY, "tiny-prompt", "layers.5.attn.v", B),
    PLANTED("attn-scale-inv-sqrt-d", "", EVERY, "tiny-prompt", "layers.0.attn.scores", C),
    PLANTED("rope-pairing-contiguous", "", EVERY, "moe128-decode", "layers.1.attn.q_rope", A),
    PLANTED("rope-freqs-fp16", "every layer", EVERY, "tiny-prompt", "layers.0.attn.q_rope", ONLY_FLOAT32),
    PLANTED("rope-scaling-wrong-layer-kind", "sliding layers", EVERY, "tiny-prompt", "layers.0.attn.q_rope", B),
    PLANTED("rope-first-position-ignored", "", EVERY, "tiny-far", "layers.0.attn.q_rope", ONLY_ALL),
    PLANTED("rope-before-qk-norm", "", EVERY, "tiny-prompt", "layers.0.attn.q_rope", C),
    PLANTED("window-not-passed", "decode only", EVERY, "tiny-decode", "layers.0.attn.probs", A),
    PLANTED("chunked-prefill-ring-overflow", "", EVERY, "tiny-chunks", "layers.0.attn.scores", B),
    PLANTED("prefill-kv-never-uploaded", "", EVERY, "tiny-decode", "layers.0.attn.scores", B),
    PLANTED("router-scale-tensor-skipped", "", EVERY, "tiny-prompt", "layers.0.router.norm", A),
    PLANTED("topk-softmax-twice", "", EVERY, "moe128-decode", "layers.0.router.topk_norm", B),
    PLANTED("per-expert-scale-before-normalising", "", EVERY, "tiny-prompt", "layers.0.router.topk_norm", A),
    PLANTED("experts-silu", "", EVERY, "tiny-prompt", "layers.0.moe.act", B),
    PLANTED("fused-split-missing-on-host", "", EVERY, "tiny-prompt", "layers.0.moe.act", C),
    PLANTED("routing-weight-on-input", "", EVERY, "uneven96-prompt", "layers.0.moe.act", B),
    PLANTED("branch-reads-layer-input", "dense MLP", EVERY, "tiny-prompt", "layers.0.mlp.norm", B),
    PLANTED("mlp-gelu-erf", "", EVERY, "tiny-prompt", "layers.0.mlp.act", A),
    PLANTED("rmsnorm-eps-wrong", "1e-5", EVERY, "tiny-prompt", "layers.0.attn.norm", ONLY_FLOAT32),
    PLANTED("v-norm-missing", "", 7, "tiny-prompt", "layers.7.attn.v_norm", C),

    PAIR("embed-scale-missing", "experts-silu", "tiny-prompt", "embed", A),
    PAIR("input-norm-missing", "softcap-missing", "tiny-prompt", "layers.0.attn.norm", NULL),
    PAIR("qk-norm-swapped", "layer-scalar-twice", "tiny-prompt", "layers.0.attn.q_norm", A),
    PAIR("v-norm-has-weight", "per-expert-scale-missing", "tiny-prompt", "layers.0.attn.v_norm", A),
    PAIR("topk-not-renormalised", "keqv-unimplemented", "moe128-decode", "layers.0.router.topk_norm", A),
    PAIR("window-on-global-too", "mlp-silu", "tiny-decode", "layers.0.mlp.act", A),
    PAIR("softmax-off-by-one", "layer-scalar-on-delta", "tiny-prompt", "layers.0.attn.probs", NULL),
    PAIR("router-sigmoid", "attn-residual-missing", "uneven96-prompt", "layers.0.attn.residual", A),
    PAIR("branch-pre-norms-swapped", "o-proj-heads-interleaved", "tiny-prompt", "layers.0.attn.out", A),
};

const gemma4_sample gemma4_the_sample = {
    .columns = columns, .rows = rows, .column_count = sizeof columns / sizeof *columns, .row_count = sizeof rows / sizeof *rows,
};
