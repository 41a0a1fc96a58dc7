/* The catalogue (spec/causes.md): counter-models of the embedding, the norms, the residual stream
 * and the head. Every mistake is a change of parameters, and a row that says what it is. */
#include "catalogue.h"

/* ---------------------------------------------------------------- embedding */

MISTAKE(embed_scale_missing, p->stream.no_embed_scale = true;)
MISTAKE(embed_scale_twice, p->stream.embed_scale_twice = true;)
MISTAKE(embed_scale_bf16_in_fp32_reference, p->stream.embed_scale_bf16 = true;)

/* -------------------------------------------------------------------- norms */

MISTAKE(rmsnorm_one_plus_w_every_norm,
        for (int norm = 0; norm < GEMMA4_NORM_COUNT; norm++) p->norm[norm].one_plus = true;)
MISTAKE(rmsnorm_one_plus_w_q_norm_and_k_norm, p->norm[GEMMA4_NORM_Q].one_plus = true;
        p->norm[GEMMA4_NORM_K].one_plus = true;)
MISTAKE(rmsnorm_low_precision_reduce_every_norm,
        for (int norm = 0; norm < GEMMA4_NORM_COUNT; norm++) p->norm[norm].bf16_sum = true;)
MISTAKE(rmsnorm_low_precision_reduce_q_norm_k_norm_and_v_norm,
        p->norm[GEMMA4_NORM_Q].bf16_sum = true;
        p->norm[GEMMA4_NORM_K].bf16_sum = true; p->norm[GEMMA4_NORM_V].bf16_sum = true;)
MISTAKE(rmsnorm_low_precision_reduce_softmax_of_attention, p->attention.bf16_probs_sum = true;)
MISTAKE(rmsnorm_downcast_before_weight,
        for (int norm = 0; norm < GEMMA4_NORM_COUNT; norm++) p->norm[norm].bf16_unit = true;)
MISTAKE(rmsnorm_as_layernorm,
        for (int norm = 0; norm < GEMMA4_NORM_COUNT; norm++) p->norm[norm].mean_subtracted = true;)
MISTAKE(rmsnorm_eps_wrong_1e_5,
        for (int norm = 0; norm < GEMMA4_NORM_COUNT; norm++) p->norm[norm].eps = 1e-5;)
MISTAKE(rmsnorm_eps_wrong_outside_the_root,
        for (int norm = 0; norm < GEMMA4_NORM_COUNT; norm++) p->norm[norm].eps_outside = true;)
MISTAKE(rmsnorm_weight_missing,
        for (int norm = 0; norm < GEMMA4_NORM_COUNT; norm++) p->norm[norm].no_weight = true;)
MISTAKE(input_norm_missing, p->norm[GEMMA4_NORM_INPUT].dropped = true;)
MISTAKE(qk_norm_missing_q_norm_and_k_norm, p->norm[GEMMA4_NORM_Q].dropped = true;
        p->norm[GEMMA4_NORM_K].dropped = true;)
MISTAKE(qk_norm_missing_q_norm, p->norm[GEMMA4_NORM_Q].dropped = true;)
MISTAKE(qk_norm_missing_k_norm, p->norm[GEMMA4_NORM_K].dropped = true;)
MISTAKE(qk_norm_swapped, p->norm[GEMMA4_NORM_Q].weight_of = GEMMA4_NORM_K;
        p->norm[GEMMA4_NORM_K].weight_of = GEMMA4_NORM_Q;)
MISTAKE(qk_norm_over_all_heads, p->norm[GEMMA4_NORM_Q].over_all_heads = true;
        p->norm[GEMMA4_NORM_K].over_all_heads = true;)
MISTAKE(v_norm_missing, p->norm[GEMMA4_NORM_V].dropped = true;)
MISTAKE(v_norm_has_weight, p->norm[GEMMA4_NORM_V].weight_of = GEMMA4_NORM_K;)
MISTAKE(post_attention_norm_missing, p->norm[GEMMA4_NORM_POST_ATTENTION].dropped = true;)
MISTAKE(rmsnorm_base_ffn_norms_dropped_both, p->norm[GEMMA4_NORM_PRE_FFN].dropped = true;
        p->norm[GEMMA4_NORM_POST_FFN].dropped = true;)
MISTAKE(rmsnorm_base_ffn_norms_dropped_post_feedforward_layernorm,
        p->norm[GEMMA4_NORM_POST_FFN].dropped = true;)
MISTAKE(pre_ffn_norm_is_post_attn_norm,
        p->norm[GEMMA4_NORM_PRE_FFN].weight_of = GEMMA4_NORM_POST_ATTENTION;)
MISTAKE(post_attn_and_post_ffn_norms_swapped,
        p->norm[GEMMA4_NORM_POST_ATTENTION].weight_of = GEMMA4_NORM_POST_FFN;
        p->norm[GEMMA4_NORM_POST_FFN].weight_of = GEMMA4_NORM_POST_ATTENTION;)
MISTAKE(branch_pre_norms_swapped, p->norm[GEMMA4_NORM_PRE_FFN].weight_of = GEMMA4_NORM_PRE_FFN_2;
        p->norm[GEMMA4_NORM_PRE_FFN_2].weight_of = GEMMA4_NORM_PRE_FFN;)
MISTAKE(branch_post_norms_swapped,
        p->norm[GEMMA4_NORM_POST_FFN_1].weight_of = GEMMA4_NORM_POST_FFN_2;
        p->norm[GEMMA4_NORM_POST_FFN_2].weight_of = GEMMA4_NORM_POST_FFN_1;)
MISTAKE(branch_post_norms_missing_both_branches, p->norm[GEMMA4_NORM_POST_FFN_1].dropped = true;
        p->norm[GEMMA4_NORM_POST_FFN_2].dropped = true;)
MISTAKE(branch_post_norms_missing_dense_mlp, p->norm[GEMMA4_NORM_POST_FFN_1].dropped = true;)
MISTAKE(branch_post_norms_missing_experts, p->norm[GEMMA4_NORM_POST_FFN_2].dropped = true;)
MISTAKE(branch_input_norm_fused_experts_read_mlp_norm,
        p->norm[GEMMA4_NORM_PRE_FFN_2].weight_of = GEMMA4_NORM_PRE_FFN;)
MISTAKE(branch_input_norm_fused_dense_mlp_reads_moe_norm,
        p->norm[GEMMA4_NORM_PRE_FFN].weight_of = GEMMA4_NORM_PRE_FFN_2;)
MISTAKE(branch_input_norm_fused_router_reads_mlp_norm, p->router.input = GEMMA4_FROM_MLP_NORM;
        p->norm[GEMMA4_NORM_ROUTER].dropped = true;)

/* ------------------------------------------------------------------- stream */

MISTAKE(residual_inplace_alias_attention, p->stream.attn_residual_from_norm = true;)
MISTAKE(residual_inplace_alias_feed_forward, p->stream.ffn_residual_from_norm = true;)
MISTAKE(attn_residual_missing, p->stream.no_attn_residual = true;)
MISTAKE(ffn_residual_missing, p->stream.no_ffn_residual = true;)
MISTAKE(ffn_residual_from_layer_input, p->stream.ffn_residual_from_input = true;)
MISTAKE(experts_ignored, p->stream.experts_ignored = true;)
MISTAKE(dense_branch_ignored, p->stream.dense_ignored = true;)
MISTAKE(branches_averaged, p->stream.sum_averaged = true;)
MISTAKE(branch_norms_after_sum_only, p->stream.norm_after_sum_only = true;)
MISTAKE(layer_scalar_dropped, p->stream.no_layer_scalar = true;)
MISTAKE(layer_scalar_on_delta, p->stream.layer_scalar_on_delta = true;)
MISTAKE(layer_scalar_on_branch, p->stream.layer_scalar_on_branch = true;)
MISTAKE(layer_scalar_twice, p->stream.layer_scalar_twice = true;)
MISTAKE(layer_scalar_of_next_layer, p->stream.layer_scalar_of_next = true;)

/* --------------------------------------------------------------------- head */

MISTAKE(final_norm_missing_norm_dropped, p->norm[GEMMA4_NORM_FINAL].dropped = true;)
MISTAKE(final_norm_missing_head_reads_the_stream, p->stream.logits_without_norm = true;)
MISTAKE(hidden_pre_vs_post_final_norm, p->stream.output_is_final_norm = true;)
MISTAKE(embed_scale_on_tied_head, p->stream.head_scaled = true;)
MISTAKE(softcap_missing, p->stream.no_softcap = true;)
MISTAKE(softcap_twice, p->stream.softcap_twice = true;)
MISTAKE(softcap_wrong_formula, p->stream.softcap_formula = true;)
MISTAKE(softcap_50, p->stream.softcap = 50;)

/* ------------------------------------------------------------------ the rows */

/* clang-format off */
const gemma4_counter_model catalogue_stream[] = {
    {"embed-scale-missing", "", "embedding", HEAD, TAPS(GEMMA4_TAP_EMBED),
     embed_scale_missing,
     "embed = embed_tokens[token]",
     "embed = embed_tokens[token] * sqrt(hidden_size)",
     "never",
     ""},
    {"embed-scale-twice", "", "embedding", HEAD, TAPS(GEMMA4_TAP_EMBED),
     embed_scale_twice,
     "embed = embed_tokens[token] * hidden_size: scaled in the table and again after the look-up",
     "embed = embed_tokens[token] * sqrt(hidden_size)",
     "never",
     ""},
    {"embed-scale-bf16-in-fp32-reference", "", "embedding", HEAD, TAPS(GEMMA4_TAP_EMBED),
     embed_scale_bf16_in_fp32_reference,
     "sqrt(hidden_size) rounded to bf16 in a float32 engine: 53.0 for 53.066",
     "embed = embed_tokens[token] * sqrt(hidden_size), exact in float32",
     "in bf16 and f16 engines, where the rounded scale is the right one; where the root is a bf16 "
     "number (hidden_size 64, 256)",
     "https://github.com/huggingface/transformers/issues/38702 "
     "https://github.com/tenstorrent/tt-metal/issues/48291 "
     "https://github.com/huggingface/transformers/pull/37109"},
    {"rmsnorm-one-plus-w", "every norm", "norms", EVERYWHERE, EVERY_WEIGHTED_NORM,
     rmsnorm_one_plus_w_every_norm,
     "y = x / rms(x) * (1 + w), as in Gemma 1 to 3",
     "y = x / sqrt(mean(x^2) + eps) * w: w as it is stored",
     "never",
     "https://github.com/pytorch/executorch/pull/19901 "
     "https://github.com/linkedin/Liger-Kernel/issues/74 "
     "https://github.com/ml-explore/mlx-lm/pull/1095 "
     "https://github.com/AI-Hypercomputer/maxtext/pull/3904"},
    {"rmsnorm-one-plus-w", "q_norm and k_norm", "norms", LAYERS, TAPS(GEMMA4_TAP_ATTN_Q_NORM,
     GEMMA4_TAP_ATTN_K_NORM),
     rmsnorm_one_plus_w_q_norm_and_k_norm,
     "q_norm and k_norm multiply by 1 + w, the other norms by w",
     "y = x / sqrt(mean(x^2) + eps) * w: w as it is stored",
     "never",
     ""},
    {"rmsnorm-low-precision-reduce", "every norm", "norms", EVERYWHERE, EVERY_NORM,
     rmsnorm_low_precision_reduce_every_norm,
     "the sum of squares is accumulated in bf16",
     "accumulated in float32 at least",
     "hardly on narrow tensors: the error grows with the width",
     "https://github.com/tenstorrent/tt-metal/issues/48746 "
     "https://github.com/tenstorrent/tt-metal/pull/48748"},
    {"rmsnorm-low-precision-reduce", "q_norm, k_norm and v_norm", "norms", LAYERS,
     TAPS(GEMMA4_TAP_ATTN_Q_NORM, GEMMA4_TAP_ATTN_K_NORM, GEMMA4_TAP_ATTN_V_NORM),
     rmsnorm_low_precision_reduce_q_norm_k_norm_and_v_norm,
     "the sum of squares of a head is accumulated in bf16",
     "accumulated in float32 at least",
     "hardly where head_dim is small",
     "https://github.com/tenstorrent/tt-metal/pull/56466 "
     "https://github.com/tenstorrent/tt-metal/pull/41426"},
    {"rmsnorm-low-precision-reduce", "softmax of attention", "norms", LAYERS,
     TAPS(GEMMA4_TAP_ATTN_PROBS, GEMMA4_TAP_ATTN_CONTEXT),
     rmsnorm_low_precision_reduce_softmax_of_attention,
     "the softmax's denominator is accumulated in bf16",
     "accumulated in float32 at least",
     "on short prompts: the error grows with the number of keys",
     "https://github.com/tenstorrent/tt-metal/issues/48746"},
    {"rmsnorm-downcast-before-weight", "", "norms", EVERYWHERE, EVERY_WEIGHTED_NORM,
     rmsnorm_downcast_before_weight,
     "bf16(x / rms(x)) * w: rounded before the weight multiplies",
     "x / rms(x) * w in float32, rounded once",
     "in bf16 engines mostly within their rounding",
     "https://github.com/vllm-project/vllm/pull/3653 "
     "https://github.com/google/gemma_pytorch/pull/67 "
     "https://github.com/vllm-project/vllm/pull/53115"},
    {"rmsnorm-as-layernorm", "", "norms", EVERYWHERE, EVERY_NORM,
     rmsnorm_as_layernorm,
     "the mean is subtracted first: LayerNorm",
     "y = x / sqrt(mean(x^2) + eps) * w: no mean is subtracted",
     "where the mean of x is near 0",
     ""},
    {"rmsnorm-eps-wrong", "1e-5", "norms", EVERYWHERE, EVERY_NORM,
     rmsnorm_eps_wrong_1e_5,
     "eps is 1e-5",
     "eps is config.json's rms_norm_eps: 1e-6",
     "where the mean square of x is far above eps: relative error 4.5e-6 / mean(x^2)",
     ""},
    {"rmsnorm-eps-wrong", "outside the root", "norms", EVERYWHERE, EVERY_NORM,
     rmsnorm_eps_wrong_outside_the_root,
     "y = x / (sqrt(mean(x^2)) + eps) * w",
     "y = x / sqrt(mean(x^2) + eps) * w",
     "where the mean square of x is far above eps",
     ""},
    {"rmsnorm-weight-missing", "", "norms", EVERYWHERE, EVERY_WEIGHTED_NORM,
     rmsnorm_weight_missing,
     "y = x / rms(x): the norms' weights were never loaded and stand at 1",
     "y = x / sqrt(mean(x^2) + eps) * w",
     "where the weights are 1, as in randomly initialised checkpoints",
     ""},
    {"input-norm-missing", "", "norms", LAYERS, TAPS(GEMMA4_TAP_ATTN_NORM),
     input_norm_missing,
     "attention reads the residual stream as it is",
     "attention reads RMSNorm(h; input_layernorm)",
     "never",
     ""},
    {"qk-norm-missing", "q_norm and k_norm", "norms", LAYERS, TAPS(GEMMA4_TAP_ATTN_Q_NORM,
     GEMMA4_TAP_ATTN_K_NORM),
     qk_norm_missing_q_norm_and_k_norm,
     "q and k are not normed",
     "q and k are RMSNormed per head",
     "never",
     ""},
    {"qk-norm-missing", "q_norm", "norms", LAYERS, TAPS(GEMMA4_TAP_ATTN_Q_NORM),
     qk_norm_missing_q_norm,
     "q is not normed",
     "q is RMSNormed per head",
     "never",
     ""},
    {"qk-norm-missing", "k_norm", "norms", LAYERS, TAPS(GEMMA4_TAP_ATTN_K_NORM),
     qk_norm_missing_k_norm,
     "k is not normed",
     "k is RMSNormed per head",
     "never",
     ""},
    {"qk-norm-swapped", "", "norms", LAYERS, TAPS(GEMMA4_TAP_ATTN_Q_NORM, GEMMA4_TAP_ATTN_K_NORM),
     qk_norm_swapped,
     "q is normed with k_norm's weight and k with q_norm's",
     "each with its own",
     "at the scores almost: without RoPE they depend on the product of both weights only",
     ""},
    {"qk-norm-over-all-heads", "", "norms", LAYERS, TAPS(GEMMA4_TAP_ATTN_Q_NORM,
     GEMMA4_TAP_ATTN_K_NORM),
     qk_norm_over_all_heads,
     "one root mean square over all heads of a position",
     "one per head",
     "where there is one head",
     ""},
    {"v-norm-missing", "", "norms", LAYERS, TAPS(GEMMA4_TAP_ATTN_V_NORM),
     v_norm_missing,
     "v = v_proj x, or k_proj x on full layers, not normed",
     "v / rms(v) per head, without a weight",
     "never",
     "https://potatodog.cc/quantumaikr/quant.cpp/commit/1037f705fc2bd2534c9c69ff61aa2022eca255b1 "
     "https://github.com/quantumaikr/quant.cpp/issues/96"},
    {"v-norm-has-weight", "", "norms", LAYERS, TAPS(GEMMA4_TAP_ATTN_V_NORM),
     v_norm_has_weight,
     "v is normed with k_norm's weight",
     "v / rms(v) per head, without a weight",
     "where k_norm's weight is 1",
     ""},
    {"post-attention-norm-missing", "", "norms", LAYERS, TAPS(GEMMA4_TAP_ATTN_POST_NORM),
     post_attention_norm_missing,
     "o_proj's output is added to the residual stream as it is",
     "RMSNorm(o_proj c; post_attention_layernorm) is added",
     "never",
     ""},
    {"rmsnorm-base-ffn-norms-dropped", "both", "norms", LAYERS, TAPS(GEMMA4_TAP_MLP_NORM,
     GEMMA4_TAP_FFN_POST_NORM),
     rmsnorm_base_ffn_norms_dropped_both,
     "pre_feedforward_layernorm and post_feedforward_layernorm are not mapped: only the norms "
     "named _1 and _2 run",
     "all five norms of the feed-forward half run",
     "never",
     "https://github.com/kekzl/imp/pull/65"},
    {"rmsnorm-base-ffn-norms-dropped", "post_feedforward_layernorm", "norms", LAYERS,
     TAPS(GEMMA4_TAP_FFN_POST_NORM),
     rmsnorm_base_ffn_norms_dropped_post_feedforward_layernorm,
     "the sum of both branches is not normed",
     "RMSNorm(m + o; post_feedforward_layernorm)",
     "never",
     ""},
    {"pre-ffn-norm-is-post-attn-norm", "", "norms", LAYERS, TAPS(GEMMA4_TAP_MLP_NORM),
     pre_ffn_norm_is_post_attn_norm,
     "the dense MLP's norm is loaded from post_attention_layernorm",
     "from pre_feedforward_layernorm",
     "where both weights are equal, as in randomly initialised checkpoints",
     "https://github.com/NVIDIA-NeMo/Megatron-Bridge/issues/4200 "
     "https://github.com/NVIDIA-NeMo/Megatron-Bridge/pull/4201"},
    {"post-attn-and-post-ffn-norms-swapped", "", "norms", LAYERS, TAPS(GEMMA4_TAP_ATTN_POST_NORM,
     GEMMA4_TAP_FFN_POST_NORM),
     post_attn_and_post_ffn_norms_swapped,
     "the weights of post_attention_layernorm and post_feedforward_layernorm are exchanged",
     "each norm has its own weight",
     "where both weights are equal",
     ""},
    {"branch-pre-norms-swapped", "", "norms", LAYERS, TAPS(GEMMA4_TAP_MLP_NORM,
     GEMMA4_TAP_MOE_NORM),
     branch_pre_norms_swapped,
     "the weights of pre_feedforward_layernorm and pre_feedforward_layernorm_2 are exchanged",
     "the first one is the dense MLP's, _2 the experts'",
     "where both weights are equal",
     ""},
    {"branch-post-norms-swapped", "", "norms", LAYERS, TAPS(GEMMA4_TAP_MLP_POST_NORM,
     GEMMA4_TAP_MOE_POST_NORM),
     branch_post_norms_swapped,
     "the weights of post_feedforward_layernorm_1 and _2 are exchanged",
     "_1 is the dense MLP's, _2 the experts'",
     "where both weights are equal",
     ""},
    {"branch-post-norms-missing", "both branches", "norms", LAYERS, TAPS(GEMMA4_TAP_MLP_POST_NORM,
     GEMMA4_TAP_MOE_POST_NORM),
     branch_post_norms_missing_both_branches,
     "post_feedforward_layernorm_1 and _2 are left out",
     "each branch is normed before the sum",
     "never",
     ""},
    {"branch-post-norms-missing", "dense MLP", "norms", LAYERS, TAPS(GEMMA4_TAP_MLP_POST_NORM),
     branch_post_norms_missing_dense_mlp,
     "post_feedforward_layernorm_1 is left out",
     "the dense branch is normed before the sum",
     "never",
     ""},
    {"branch-post-norms-missing", "experts", "norms", LAYERS, TAPS(GEMMA4_TAP_MOE_POST_NORM),
     branch_post_norms_missing_experts,
     "post_feedforward_layernorm_2 is left out",
     "the experts' branch is normed before the sum",
     "never",
     ""},
    {"branch-input-norm-fused", "experts read mlp.norm", "norms", LAYERS, TAPS(GEMMA4_TAP_MOE_NORM),
     branch_input_norm_fused_experts_read_mlp_norm,
     "the experts read RMSNorm(r; pre_feedforward_layernorm), as the dense MLP does",
     "they read RMSNorm(r; pre_feedforward_layernorm_2)",
     "where both weights are equal",
     "https://github.com/NVIDIA-NeMo/Megatron-Bridge/pull/4683"},
    {"branch-input-norm-fused", "dense MLP reads moe.norm", "norms", LAYERS,
     TAPS(GEMMA4_TAP_MLP_NORM),
     branch_input_norm_fused_dense_mlp_reads_moe_norm,
     "the dense MLP reads RMSNorm(r; pre_feedforward_layernorm_2), as the experts do",
     "it reads RMSNorm(r; pre_feedforward_layernorm)",
     "where both weights are equal",
     "https://github.com/NVIDIA-NeMo/Megatron-Bridge/pull/4683"},
    {"branch-input-norm-fused", "router reads mlp.norm", "norms", LAYERS,
     TAPS(GEMMA4_TAP_ROUTER_NORM),
     branch_input_norm_fused_router_reads_mlp_norm,
     "the router reads mlp.norm * router.scale * d^-0.5, without a norm of its own",
     "it reads unit RMSNorm(r) * router.scale * d^-0.5",
     "where pre_feedforward_layernorm's weight is 1",
     "https://github.com/NVIDIA-NeMo/Megatron-Bridge/pull/4683 "
     "https://potatodog.cc/quantumaikr/quant.cpp/commit/1037f705fc2bd2534c9c69ff61aa2022eca255b1"},
    {"residual-inplace-alias", "attention", "stream", LAYERS, TAPS(GEMMA4_TAP_ATTN_RESIDUAL),
     residual_inplace_alias_attention,
     "the norm overwrites the residual in place: r = attn.norm + a",
     "r = h + a, with the h that the norm read",
     "never",
     "https://github.com/sgl-project/sglang/pull/28005 "
     "https://github.com/sgl-project/sglang/pull/27540"},
    {"residual-inplace-alias", "feed-forward", "stream", LAYERS, TAPS(GEMMA4_TAP_FFN_RESIDUAL),
     residual_inplace_alias_feed_forward,
     "the norm overwrites the residual in place: h = mlp.norm + y",
     "h = r + y, with the r that the norm read",
     "never",
     ""},
    {"attn-residual-missing", "", "stream", LAYERS, TAPS(GEMMA4_TAP_ATTN_RESIDUAL),
     attn_residual_missing,
     "r = a: the attention branch alone",
     "r = h + a",
     "never",
     ""},
    {"ffn-residual-missing", "", "stream", LAYERS, TAPS(GEMMA4_TAP_FFN_RESIDUAL),
     ffn_residual_missing,
     "h = y: the feed-forward branch alone",
     "h = r + y",
     "never",
     ""},
    {"ffn-residual-from-layer-input", "", "stream", LAYERS, TAPS(GEMMA4_TAP_FFN_RESIDUAL),
     ffn_residual_from_layer_input,
     "h = the layer's input + y: what attention added is lost",
     "h = r + y",
     "never",
     ""},
    {"experts-ignored", "", "stream", LAYERS, TAPS(GEMMA4_TAP_FFN_SUM),
     experts_ignored,
     "only the dense MLP goes on: y = m",
     "y = m + o: dense MLP and experts",
     "never",
     "https://github.com/llmmanorg/llmman/issues/173 https://github.com/llmmanorg/llmman/pull/181 "
     "https://github.com/SharpAI/SwiftLM/pull/54"},
    {"dense-branch-ignored", "", "stream", LAYERS, TAPS(GEMMA4_TAP_FFN_SUM),
     dense_branch_ignored,
     "only the experts go on: y = o",
     "y = m + o: dense MLP and experts",
     "never",
     "https://potatodog.cc/quantumaikr/quant.cpp/commit/1037f705fc2bd2534c9c69ff61aa2022eca255b1"},
    {"branches-averaged", "", "stream", LAYERS, TAPS(GEMMA4_TAP_FFN_SUM),
     branches_averaged,
     "y = (m + o) / 2",
     "y = m + o",
     "after post_feedforward_layernorm, almost: the norm takes the factor away",
     ""},
    {"branch-norms-after-sum-only", "", "stream", LAYERS, TAPS(GEMMA4_TAP_FFN_SUM),
     branch_norms_after_sum_only,
     "y = mlp.out + moe.out: normed after the sum only",
     "each branch is normed before the sum, and the sum again",
     "never",
     ""},
    {"layer-scalar-dropped", "", "stream", LAYERS, TAPS(GEMMA4_TAP_LAYER_OUTPUT),
     layer_scalar_dropped,
     "the layer's output is not multiplied by layer_scalar",
     "h * layer_scalar: the whole stream, after both residual additions",
     "where layer_scalar is 1, as in randomly initialised checkpoints",
     "https://github.com/cloudrift-ai/emmy/pull/371 https://github.com/chrishayuk/larql/pull/125 "
     "https://github.com/kekzl/imp/pull/65"},
    {"layer-scalar-on-delta", "", "stream", LAYERS, TAPS(GEMMA4_TAP_LAYER_OUTPUT),
     layer_scalar_on_delta,
     "input + layer_scalar * (h - input): only what the layer added is scaled",
     "h * layer_scalar: the whole stream, after both residual additions",
     "where layer_scalar is 1",
     "https://github.com/quantumaikr/quant.cpp/issues/96 "
     "https://potatodog.cc/quantumaikr/quant.cpp/commit/1037f705fc2bd2534c9c69ff61aa2022eca255b1"},
    {"layer-scalar-on-branch", "", "stream", LAYERS, TAPS(GEMMA4_TAP_LAYER_OUTPUT),
     layer_scalar_on_branch,
     "r + layer_scalar * y: only the feed-forward branch is scaled",
     "h * layer_scalar: the whole stream, after both residual additions",
     "where layer_scalar is 1",
     ""},
    {"layer-scalar-twice", "", "stream", LAYERS, TAPS(GEMMA4_TAP_LAYER_OUTPUT),
     layer_scalar_twice,
     "h * layer_scalar^2",
     "h * layer_scalar: the whole stream, after both residual additions",
     "where layer_scalar is 1",
     ""},
    {"layer-scalar-of-next-layer", "", "stream", LAYERS, TAPS(GEMMA4_TAP_LAYER_OUTPUT),
     layer_scalar_of_next_layer,
     "h is multiplied by the next layer's scalar",
     "by the layer's own",
     "where neighbouring layers have the same scalar",
     ""},
    {"final-norm-missing", "norm dropped", "head", HEAD, TAPS(GEMMA4_TAP_FINAL_NORM),
     final_norm_missing_norm_dropped,
     "the head reads the last layer's output as it is",
     "logits_raw = embed_tokens RMSNorm(h; norm)",
     "never",
     ""},
    {"final-norm-missing", "head reads the stream", "head", HEAD, TAPS(GEMMA4_TAP_LOGITS_RAW),
     final_norm_missing_head_reads_the_stream,
     "final_norm is computed but the head reads the last layer's output",
     "logits_raw = embed_tokens RMSNorm(h; norm)",
     "never",
     ""},
    {"hidden-pre-vs-post-final-norm", "", "head", GEMMA4_ON_FULL | GEMMA4_ON_HEAD,
     TAPS(GEMMA4_TAP_LAYER_OUTPUT, GEMMA4_TAP_FINAL_NORM),
     hidden_pre_vs_post_final_norm,
     "what is shown as the last layer's output is already normed by the final norm",
     "the last layer's output is the stream before the final norm",
     "on every layer but the last",
     "https://github.com/ikawrakow/ik_llama.cpp/pull/2324 "
     "https://github.com/onnxruntime/mobius/pull/546 "
     "https://github.com/pegainfer-project/pegainfer/issues/831"},
    {"embed-scale-on-tied-head", "", "head", HEAD, TAPS(GEMMA4_TAP_LOGITS_RAW),
     embed_scale_on_tied_head,
     "sqrt(hidden_size) was folded into the embedding table, which is also the head",
     "the head uses the unscaled table",
     "in greedy text: the order of the logits stays",
     ""},
    {"softcap-missing", "", "head", HEAD, TAPS(GEMMA4_TAP_LOGITS),
     softcap_missing,
     "logits = logits_raw",
     "logits = 30 tanh(logits_raw / 30), once",
     "in greedy text: the order of the logits stays",
     "https://github.com/NVIDIA-NeMo/Megatron-Bridge/pull/4645 "
     "https://github.com/NVIDIA-NeMo/Megatron-Bridge/pull/4668 "
     "https://github.com/vllm-project/vllm/pull/52173 "
     "https://github.com/keras-team/keras-hub/pull/1712 "
     "https://github.com/apple/ml-cross-entropy/issues/48"},
    {"softcap-twice", "", "head", HEAD, TAPS(GEMMA4_TAP_LOGITS),
     softcap_twice,
     "the soft-cap is applied in the head and again after it",
     "logits = 30 tanh(logits_raw / 30), once",
     "in greedy text: the order of the logits stays",
     "https://github.com/NVIDIA-NeMo/Megatron-Bridge/pull/4645"},
    {"softcap-wrong-formula", "", "head", HEAD, TAPS(GEMMA4_TAP_LOGITS),
     softcap_wrong_formula,
     "logits = logits_raw tanh(logits_raw / 30)",
     "logits = 30 tanh(logits_raw / 30), once",
     "never",
     "https://github.com/unslothai/unsloth-zoo/pull/593"},
    {"softcap-50", "", "head", HEAD, TAPS(GEMMA4_TAP_LOGITS),
     softcap_50,
     "the final logits are capped at 50, which is Gemma 2's cap of attention scores",
     "logits = 30 tanh(logits_raw / 30), once",
     "in greedy text: the order of the logits stays",
     ""},
};
/* clang-format on */
const size_t catalogue_stream_count = sizeof catalogue_stream / sizeof *catalogue_stream;
