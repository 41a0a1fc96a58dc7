/* The catalogue (spec/causes.md): counter-models of the router, the experts and the dense MLP.
 * Every mistake is a change of parameters, and a row that says what it is. */
#include "catalogue.h"

/* ------------------------------------------------------------------- router */

MISTAKE(router_double_norm, p->router.input = GEMMA4_FROM_MOE_NORM;)
MISTAKE(router_norm_or_root_scale_missing_d, p->router.no_root = true;)
MISTAKE(router_norm_or_root_scale_missing_norm, p->norm[GEMMA4_NORM_ROUTER].dropped = true;)
MISTAKE(router_scale_tensor_skipped, p->router.no_scale_tensor = true;)
MISTAKE(router_root_size_bf16, p->router.root_bf16 = true;)
MISTAKE(router_root_twice, p->router.root_twice = true;)
MISTAKE(router_low_precision, p->router.bf16_logits = true;)
MISTAKE(router_logits_are_probs, p->router.logits_are_probs = true;)
MISTAKE(router_sigmoid, p->router.sigmoid = true;)
MISTAKE(topk_not_renormalised, p->router.topk_not_renormalised = true;)
MISTAKE(topk_softmax_twice, p->router.softmax_of_probs = true;)
MISTAKE(topk_one_fewer, p->router.k_change = -1;)
MISTAKE(routing_weights_uniform, p->router.weights_uniform = true;)
MISTAKE(topk_smallest, p->router.ids_smallest = true;)
MISTAKE(topk_ids_off_by_one, p->router.ids_shifted = true;)
MISTAKE(per_expert_scale_missing, p->router.no_expert_scale = true;)
MISTAKE(per_expert_scale_twice, p->router.expert_scale_twice = true;)
MISTAKE(per_expert_scale_before_normalising, p->router.expert_scale_before_normalising = true;)
MISTAKE(per_expert_scale_by_rank, p->router.expert_scale_by_rank = true;)
MISTAKE(branch_reads_layer_input_router, p->router.input = GEMMA4_FROM_LAYER_INPUT;)

/* ------------------------------------------------------------------ experts */

MISTAKE(branches_sequential_experts_read_mlp_post_norm,
        p->expert.input = GEMMA4_FROM_MLP_POST_NORM;)
MISTAKE(branches_sequential_experts_read_mlp_out, p->expert.input = GEMMA4_FROM_MLP_OUT;)
MISTAKE(branches_sequential_router_and_experts_read_mlp_post_norm,
        p->router.input = GEMMA4_FROM_MLP_POST_NORM;
        p->expert.input = GEMMA4_FROM_MLP_POST_NORM;)
MISTAKE(branch_reads_layer_input_experts, p->expert.input = GEMMA4_FROM_LAYER_INPUT;)
MISTAKE(experts_silu, p->expert.act = GEMMA4_SILU;)
MISTAKE(experts_gelu_erf, p->expert.act = GEMMA4_GELU_ERF;)
MISTAKE(experts_quick_gelu, p->expert.act = GEMMA4_QUICK_GELU;)
MISTAKE(experts_gptoss_constants, p->expert.act = GEMMA4_GPT_OSS;)
MISTAKE(experts_act_missing, p->expert.act = GEMMA4_IDENTITY;)
MISTAKE(gate_up_swapped_up_first, p->expert.swapped = true;)
MISTAKE(gate_up_swapped_interleaved, p->expert.interleaved = true;)
MISTAKE(fused_split_missing_on_host, p->expert.up_missing = true;)
MISTAKE(expert_transpose_down_proj, p->expert.down_transposed = true;)
MISTAKE(expert_transpose_gate_up_proj, p->expert.gate_up_transposed = true;)
MISTAKE(expert_transpose_both, p->expert.down_transposed = true;
        p->expert.gate_up_transposed = true;)
MISTAKE(expert_keys_dropped, p->expert.all_zero = true;)
MISTAKE(experts_off_by_one, p->expert.ids_shifted = true;)
MISTAKE(routing_weights_ignored, p->expert.weights_ignored = true;)
MISTAKE(routing_weight_on_input, p->expert.weight_on_input = true;)
MISTAKE(routing_weight_twice, p->expert.weight_squared = true;)
MISTAKE(last_expert_dropped, p->expert.last_dropped = true;)
MISTAKE(first_expert_only, p->expert.first_only = true;)
MISTAKE(router_capacity_drop, p->expert.capacity_factor = 1;)
MISTAKE(expert_quant_tail, p->expert.tail_dropped = true;)
MISTAKE(ffn_moe_f16_accumulate, p->expert.f16_accumulate = true;)

/* -------------------------------------------------------------------- dense */

MISTAKE(branch_reads_layer_input_dense_mlp, p->mlp.input = GEMMA4_FROM_LAYER_INPUT;)
MISTAKE(mlp_silu, p->mlp.act = GEMMA4_SILU;)
MISTAKE(mlp_gelu_erf, p->mlp.act = GEMMA4_GELU_ERF;)
MISTAKE(mlp_quick_gelu, p->mlp.act = GEMMA4_QUICK_GELU;)
MISTAKE(mlp_act_missing, p->mlp.act = GEMMA4_IDENTITY;)
MISTAKE(mlp_gate_up_swapped_activation_of_up, p->mlp.swapped = true;)
MISTAKE(mlp_gate_up_swapped_weights_exchanged, p->mlp.projections_swapped = true;)

/* ------------------------------------------------------------------ the rows */

/* clang-format off */
const gemma4_counter_model catalogue_ffn[] = {
    {"router-double-norm", "", "router", LAYERS, TAPS(GEMMA4_TAP_ROUTER_NORM),
     router_double_norm,
     "the router norms pre_feedforward_layernorm_2(r), which is already normed",
     "router.norm = unit RMSNorm(r) * router.scale * d^-0.5, of the residual r itself",
     "where that norm's weight is 1",
     "https://github.com/NVIDIA-NeMo/Automodel/issues/1852 "
     "https://github.com/NVIDIA-NeMo/Automodel/pull/1895"},
    {"router-norm-or-root-scale-missing", "d^-0.5", "router", LAYERS, TAPS(GEMMA4_TAP_ROUTER_NORM),
     router_norm_or_root_scale_missing_d,
     "no factor d^-0.5",
     "router.norm = unit RMSNorm(r) * router.scale * d^-0.5, of the residual r itself",
     "in the choice of experts: only the weights' sharpness changes",
     "https://potatodog.cc/quantumaikr/quant.cpp/commit/1037f705fc2bd2534c9c69ff61aa2022eca255b1"},
    {"router-norm-or-root-scale-missing", "norm", "router", LAYERS, TAPS(GEMMA4_TAP_ROUTER_NORM),
     router_norm_or_root_scale_missing_norm,
     "r * router.scale * d^-0.5: r is not normed",
     "router.norm = unit RMSNorm(r) * router.scale * d^-0.5, of the residual r itself",
     "in the choice of experts",
     "https://potatodog.cc/quantumaikr/quant.cpp/commit/1037f705fc2bd2534c9c69ff61aa2022eca255b1"},
    {"router-scale-tensor-skipped", "", "router", LAYERS, TAPS(GEMMA4_TAP_ROUTER_NORM),
     router_scale_tensor_skipped,
     "router.scale is not loaded: 1",
     "router.norm = unit RMSNorm(r) * router.scale * d^-0.5, of the residual r itself",
     "where router.scale is 1, as in randomly initialised checkpoints",
     "https://github.com/kekzl/imp/pull/65"},
    {"router-root-size-bf16", "", "router", LAYERS, TAPS(GEMMA4_TAP_ROUTER_NORM),
     router_root_size_bf16,
     "d^-0.5 is held in bf16: 0.018799 for 0.018844",
     "router.norm = unit RMSNorm(r) * router.scale * d^-0.5, of the residual r itself, exact in "
     "float32",
     "where the root is a bf16 number (hidden_size 64, 256)",
     "https://github.com/NVIDIA-NeMo/Automodel/pull/3456"},
    {"router-root-twice", "", "router", LAYERS, TAPS(GEMMA4_TAP_ROUTER_NORM),
     router_root_twice,
     "d^-0.5 is folded into router.scale and applied again: 1/d",
     "router.norm = unit RMSNorm(r) * router.scale * d^-0.5, of the residual r itself",
     "in the choice of experts: only the weights' sharpness changes",
     ""},
    {"router-low-precision", "", "router", LAYERS, TAPS(GEMMA4_TAP_ROUTER_LOGITS),
     router_low_precision,
     "router logits are rounded to bf16",
     "kept in float32",
     "in bf16 engines, where this is within the rounding",
     "https://github.com/kekzl/imp/pull/10 https://github.com/sgl-project/sglang/pull/26588 "
     "https://github.com/huggingface/transformers/pull/48801"},
    {"router-logits-are-probs", "", "router", LAYERS, TAPS(GEMMA4_TAP_ROUTER_LOGITS,
     GEMMA4_TAP_ROUTER_PROBS),
     router_logits_are_probs,
     "what is shown as router logits has gone through softmax already",
     "router.logits = router.proj router.norm; router.probs their softmax",
     "in the choice of experts and their weights",
     "https://github.com/huggingface/transformers/pull/46642 "
     "https://github.com/decoderesearch/interp-engine/pull/3"},
    {"router-sigmoid", "", "router", LAYERS, TAPS(GEMMA4_TAP_ROUTER_PROBS),
     router_sigmoid,
     "router.probs = sigmoid of each logit",
     "softmax over all experts",
     "in the choice of experts",
     ""},
    {"topk-not-renormalised", "", "router", LAYERS, TAPS(GEMMA4_TAP_ROUTER_TOPK_NORM),
     topk_not_renormalised,
     "the chosen experts keep their probabilities: they do not add up to 1",
     "topk_norm = P[e] / sum of P[e] over the chosen experts",
     "where the chosen experts hold nearly all probability",
     "https://github.com/sawfwair/mere-run/pull/136 "
     "https://github.com/sgl-project/sglang/pull/35160"},
    {"topk-softmax-twice", "", "router", LAYERS, TAPS(GEMMA4_TAP_ROUTER_TOPK_NORM),
     topk_softmax_twice,
     "softmax over the chosen experts' probabilities, which are softmax's output",
     "topk_norm = P[e] / sum of P[e] over the chosen experts; a softmax over their logits is the "
     "same",
     "in the choice of experts",
     ""},
    {"topk-one-fewer", "", "router", LAYERS, TAPS(GEMMA4_TAP_ROUTER_TOPK_NORM),
     topk_one_fewer,
     "top_k_experts - 1 experts get a weight",
     "top_k_experts do",
     "where the last one's weight is small",
     ""},
    {"routing-weights-uniform", "", "router", LAYERS, TAPS(GEMMA4_TAP_ROUTER_TOPK_NORM),
     routing_weights_uniform,
     "every chosen expert gets 1/K",
     "topk_norm = P[e] / sum of P[e] over the chosen experts",
     "where the chosen experts are equally likely",
     ""},
    {"topk-smallest", "", "router", LAYERS, TAPS(GEMMA4_TAP_ROUTER_TOPK_IDS),
     topk_smallest,
     "the K smallest logits are chosen",
     "the K largest",
     "never",
     ""},
    {"topk-ids-off-by-one", "", "router", LAYERS, TAPS(GEMMA4_TAP_ROUTER_TOPK_IDS,
     GEMMA4_TAP_ROUTER_TOPK_NORM),
     topk_ids_off_by_one,
     "expert ids are one too high; their weights are those of the right ones",
     "ids count from 0",
     "never",
     ""},
    {"per-expert-scale-missing", "", "router", LAYERS, TAPS(GEMMA4_TAP_ROUTER_TOPK_WEIGHTS),
     per_expert_scale_missing,
     "topk_weights = topk_norm",
     "topk_weights = topk_norm * per_expert_scale[id]",
     "where per_expert_scale is 1, as in randomly initialised checkpoints",
     "https://github.com/onnxruntime/mobius/pull/546 "
     "https://github.com/NVIDIA/TensorRT-LLM/pull/12710 "
     "https://github.com/kekzl/imp/pull/65"},
    {"per-expert-scale-twice", "", "router", LAYERS, TAPS(GEMMA4_TAP_ROUTER_TOPK_WEIGHTS),
     per_expert_scale_twice,
     "per_expert_scale is in down_proj and in the weight: squared",
     "topk_weights = topk_norm * per_expert_scale[id]",
     "where per_expert_scale is 1, as in randomly initialised checkpoints",
     "https://github.com/onnxruntime/mobius/pull/546 "
     "https://github.com/charlie12345/ROCmFPX/issues/85"},
    {"per-expert-scale-before-normalising", "", "router", LAYERS, TAPS(GEMMA4_TAP_ROUTER_TOPK_NORM,
     GEMMA4_TAP_ROUTER_TOPK_WEIGHTS),
     per_expert_scale_before_normalising,
     "weights are scaled per expert first and then divided by their sum",
     "divided by their sum first, then scaled",
     "where per_expert_scale is 1, as in randomly initialised checkpoints, or the same for all "
     "chosen experts",
     ""},
    {"per-expert-scale-by-rank", "", "router", LAYERS, TAPS(GEMMA4_TAP_ROUTER_TOPK_WEIGHTS),
     per_expert_scale_by_rank,
     "per_expert_scale[rank among the chosen]",
     "per_expert_scale[expert id]",
     "where per_expert_scale is 1, as in randomly initialised checkpoints",
     ""},
    {"branch-reads-layer-input", "router", "router", LAYERS, TAPS(GEMMA4_TAP_ROUTER_NORM),
     branch_reads_layer_input_router,
     "the router reads the layer's input",
     "it reads r, the stream after attention",
     "never",
     ""},
    {"branches-sequential", "experts read mlp.post_norm", "experts", LAYERS,
     TAPS(GEMMA4_TAP_MOE_NORM),
     branches_sequential_experts_read_mlp_post_norm,
     "the experts' norm reads the dense branch's output after its norm",
     "it reads the residual r, as the dense MLP does",
     "never",
     "https://potatodog.cc/quantumaikr/quant.cpp/commit/1037f705fc2bd2534c9c69ff61aa2022eca255b1"},
    {"branches-sequential", "experts read mlp.out", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_NORM),
     branches_sequential_experts_read_mlp_out,
     "the experts' norm reads the dense branch's output",
     "it reads the residual r, as the dense MLP does",
     "never",
     ""},
    {"branches-sequential", "router and experts read mlp.post_norm", "experts", LAYERS,
     TAPS(GEMMA4_TAP_ROUTER_NORM, GEMMA4_TAP_MOE_NORM),
     branches_sequential_router_and_experts_read_mlp_post_norm,
     "router and experts read the dense branch's output after its norm",
     "both read the residual r",
     "never",
     ""},
    {"branch-reads-layer-input", "experts", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_NORM),
     branch_reads_layer_input_experts,
     "the experts read the layer's input",
     "it reads r, the stream after attention",
     "never",
     ""},
    {"experts-silu", "", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_ACT),
     experts_silu,
     "silu(gate) * up",
     "gelu_tanh(gate) * up",
     "never",
     "https://github.com/kekzl/imp/pull/9 "
     "https://potatodog.cc/quantumaikr/quant.cpp/commit/1037f705fc2bd2534c9c69ff61aa2022eca255b1 "
     "https://github.com/vllm-project/vllm-ascend/pull/11609 "
     "https://github.com/sgl-project/sglang/pull/22928 "
     "https://github.com/onnxruntime/mobius/pull/326 "
     "https://github.com/onnxruntime/mobius/pull/546 "
     "https://github.com/vllm-project/vllm/pull/43227 https://github.com/THUDM/slime/pull/1825 "
     "https://github.com/NVIDIA/TensorRT-Model-Connect/pull/720"},
    {"experts-gelu-erf", "", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_ACT),
     experts_gelu_erf,
     "GELU by erf, times up",
     "gelu_tanh(gate) * up",
     "in bf16 almost: the two differ by 5e-4 at most",
     "https://github.com/vllm-project/vllm/pull/41574 "
     "https://github.com/tenstorrent/tt-metal/issues/48291 "
     "https://github.com/lablup/mlxcel/pull/43 "
     "https://github.com/NVIDIA-NeMo/Megatron-Bridge/pull/4927"},
    {"experts-quick-gelu", "", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_ACT),
     experts_quick_gelu,
     "gate * sigmoid(1.702 gate) * up",
     "gelu_tanh(gate) * up",
     "in bf16 hardly: the two differ by 0.02 at most",
     "https://github.com/onnxruntime/mobius/pull/546"},
    {"experts-gptoss-constants", "", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_ACT),
     experts_gptoss_constants,
     "the kernel's built-in gate * sigmoid(1.702 gate) * (up + 1), clamped at 7",
     "gelu_tanh(gate) * up",
     "never",
     "https://github.com/microsoft/onnxruntime-genai/issues/2062 "
     "https://github.com/onnxruntime/mobius/pull/326"},
    {"experts-act-missing", "", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_ACT),
     experts_act_missing,
     "gate * up",
     "gelu_tanh(gate) * up",
     "never",
     ""},
    {"gate-up-swapped", "up first", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_ACT),
     gate_up_swapped_up_first,
     "the first M rows are taken for up",
     "of gate_up_proj's 2M rows, the first M are the gate's",
     "never",
     "https://github.com/flashinfer-ai/flashinfer/pull/4130"},
    {"gate-up-swapped", "interleaved", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_ACT),
     gate_up_swapped_interleaved,
     "gate and up rows are taken to alternate",
     "of gate_up_proj's 2M rows, the first M are the gate's",
     "never",
     "https://github.com/onnxruntime/mobius/pull/326 "
     "https://github.com/microsoft/onnxruntime-genai/issues/2062"},
    {"fused-split-missing-on-host", "", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_ACT),
     fused_split_missing_on_host,
     "gate_up_proj is not split and there is no up: gelu_tanh(gate)",
     "gelu_tanh(gate) * up",
     "where every layer is resident on the device",
     "https://github.com/kekzl/imp/pull/10"},
    {"expert-transpose", "down_proj", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_OUT),
     expert_transpose_down_proj,
     "an expert's down_proj, [d, M] in memory, is read as [M, d]",
     "read as [d, M]",
     "by shape checks where the matrix is square",
     "https://github.com/NVIDIA-NeMo/Automodel/issues/1761 "
     "https://github.com/huggingface/transformers/issues/47031 "
     "https://github.com/vllm-project/tpu-inference/pull/2683 "
     "https://github.com/chrishayuk/larql/pull/24 "
     "https://github.com/chrishayuk/larql/pull/178"},
    {"expert-transpose", "gate_up_proj", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_ACT),
     expert_transpose_gate_up_proj,
     "an expert's gate_up_proj, [2M, d] in memory, is read as [d, 2M]",
     "read as [2M, d]",
     "by shape checks where the matrix is square",
     "https://github.com/NVIDIA-NeMo/Automodel/issues/1761 "
     "https://github.com/huggingface/transformers/issues/47031 "
     "https://github.com/vllm-project/tpu-inference/pull/2683 "
     "https://github.com/chrishayuk/larql/pull/24 "
     "https://github.com/chrishayuk/larql/pull/178"},
    {"expert-transpose", "both", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_ACT, GEMMA4_TAP_MOE_OUT),
     expert_transpose_both,
     "both matrices of an expert are read transposed",
     "[2M, d] and [d, M], as stored",
     "by shape checks where the matrices are square",
     "https://github.com/NVIDIA-NeMo/Automodel/issues/1761 "
     "https://github.com/huggingface/transformers/issues/47031 "
     "https://github.com/vllm-project/tpu-inference/pull/2683 "
     "https://github.com/chrishayuk/larql/pull/24 "
     "https://github.com/chrishayuk/larql/pull/178"},
    {"expert-keys-dropped", "", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_ACT, GEMMA4_TAP_MOE_OUT),
     expert_keys_dropped,
     "the loader drops the experts' tensors and they keep their initial zeros",
     "every tensor of the checkpoint is loaded or refused",
     "never",
     "https://github.com/jjang-ai/vmlx/pull/55 https://github.com/z-lab/paroquant/pull/53 "
     "https://github.com/kekzl/imp/pull/1192"},
    {"experts-off-by-one", "", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_ACT, GEMMA4_TAP_MOE_OUT),
     experts_off_by_one,
     "expert id + 1 computes what the router gave to id",
     "expert id",
     "never",
     ""},
    {"routing-weights-ignored", "", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_OUT),
     routing_weights_ignored,
     "the experts' outputs are added without weights",
     "moe.out = sum over the chosen experts of weight * down_proj act",
     "never",
     ""},
    {"routing-weight-on-input", "", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_ACT, GEMMA4_TAP_MOE_OUT),
     routing_weight_on_input,
     "the weight multiplies the expert's input, and gelu_tanh bends it",
     "moe.out = sum over the chosen experts of weight * down_proj act",
     "where the weight is 1",
     ""},
    {"routing-weight-twice", "", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_OUT),
     routing_weight_twice,
     "the weight multiplies in down_proj's kernel and again in the sum",
     "moe.out = sum over the chosen experts of weight * down_proj act",
     "where the weight is 1",
     ""},
    {"last-expert-dropped", "", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_OUT),
     last_expert_dropped,
     "the last of the K experts is missing from the sum",
     "moe.out = sum over the chosen experts of weight * down_proj act",
     "where its weight is small",
     ""},
    {"first-expert-only", "", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_OUT),
     first_expert_only,
     "only the best expert is computed",
     "moe.out = sum over the chosen experts of weight * down_proj act",
     "where the other weights are small",
     ""},
    {"router-capacity-drop", "", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_OUT),
     router_capacity_drop,
     "an expert takes positions * K / E positions of a chunk and drops the others",
     "every chosen expert is computed",
     "in decode; where the load is balanced",
     "https://github.com/tenstorrent/tt-metal/issues/48291"},
    {"expert-quant-tail", "", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_OUT),
     expert_quant_tail,
     "moe_intermediate_size is divided by a group of 128 and rounded down: the last 64 of 704 "
     "inputs of down_proj are missing",
     "all inputs are read",
     "where M is a multiple of 128",
     "https://github.com/warpfront/hipfire/pull/667 "
     "https://github.com/vllm-project/vllm/pull/43227"},
    {"ffn-moe-f16-accumulate", "", "experts", LAYERS, TAPS(GEMMA4_TAP_MOE_ACT, GEMMA4_TAP_MOE_OUT),
     ffn_moe_f16_accumulate,
     "the experts' sums are accumulated in float16",
     "in float32 at least",
     "where values are small and M is small",
     "https://github.com/ggml-org/llama.cpp/pull/21506"},
    {"branch-reads-layer-input", "dense MLP", "dense", LAYERS, TAPS(GEMMA4_TAP_MLP_NORM),
     branch_reads_layer_input_dense_mlp,
     "the dense MLP reads the layer's input: attention and MLP in parallel",
     "it reads r, the stream after attention",
     "never",
     ""},
    {"mlp-silu", "", "dense", LAYERS, TAPS(GEMMA4_TAP_MLP_ACT),
     mlp_silu,
     "silu(gate) * up",
     "gelu_tanh(gate) * up",
     "never",
     ""},
    {"mlp-gelu-erf", "", "dense", LAYERS, TAPS(GEMMA4_TAP_MLP_ACT),
     mlp_gelu_erf,
     "GELU by erf, times up",
     "gelu_tanh(gate) * up",
     "in bf16 almost: the two differ by 5e-4 at most",
     ""},
    {"mlp-quick-gelu", "", "dense", LAYERS, TAPS(GEMMA4_TAP_MLP_ACT),
     mlp_quick_gelu,
     "gate * sigmoid(1.702 gate) * up",
     "gelu_tanh(gate) * up",
     "in bf16 hardly: the two differ by 0.02 at most",
     ""},
    {"mlp-act-missing", "", "dense", LAYERS, TAPS(GEMMA4_TAP_MLP_ACT),
     mlp_act_missing,
     "gate * up",
     "gelu_tanh(gate) * up",
     "never",
     ""},
    {"mlp-gate-up-swapped", "activation of up", "dense", LAYERS, TAPS(GEMMA4_TAP_MLP_ACT),
     mlp_gate_up_swapped_activation_of_up,
     "gelu_tanh(up) * gate",
     "gelu_tanh(gate) * up",
     "never",
     ""},
    {"mlp-gate-up-swapped", "weights exchanged", "dense", LAYERS, TAPS(GEMMA4_TAP_MLP_GATE,
     GEMMA4_TAP_MLP_UP),
     mlp_gate_up_swapped_weights_exchanged,
     "gate_proj and up_proj are loaded into each other's place",
     "each into its own",
     "never",
     ""},
};
/* clang-format on */
const size_t catalogue_ffn_count = sizeof catalogue_ffn / sizeof *catalogue_ffn;
