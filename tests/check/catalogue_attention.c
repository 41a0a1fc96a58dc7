/* The catalogue (spec/causes.md): counter-models of attention, RoPE, masks and caches.
 * Every mistake is a change of parameters, and a row that says what it is. */
#include "catalogue.h"

/* ---------------------------------------------------------------- attention */

MISTAKE(keqv_v_after_knorm_rope_after_k_norm_and_rope, p->v = GEMMA4_V_K_ROPE;)
MISTAKE(keqv_v_after_knorm_rope_after_k_norm, p->v = GEMMA4_V_K_NORM;)
MISTAKE(keqv_unimplemented, p->v = GEMMA4_V_ZERO;)
MISTAKE(keqv_on_sliding_layers, p->v = GEMMA4_V_K_RAW;)
MISTAKE(global_kv_heads_from_local_full_layers, p->attention.grouping = GEMMA4_GROUP_OTHER_KIND;)
MISTAKE(global_kv_heads_from_local_sliding_layers, p->attention.grouping = GEMMA4_GROUP_OTHER_KIND;)
MISTAKE(kv_grouping_modulo, p->attention.grouping = GEMMA4_GROUP_MODULO;)
MISTAKE(kv_grouping_first_head, p->attention.grouping = GEMMA4_GROUP_FIRST;)
MISTAKE(v_head_off_by_one, p->attention.v_head_rolled = true;)
MISTAKE(attn_scale_inv_sqrt_d, p->attention.scale_inv_sqrt_d = true;)
MISTAKE(attn_scale_27b_exception, p->attention.scale_inv_sqrt_hidden = true;)
MISTAKE(attn_softcap_50_inherited, p->attention.softcap = 50;)
MISTAKE(softmax_off_by_one, p->attention.sink = true;)
MISTAKE(flash_hd512_zero, p->attention.context_zero = true;)
MISTAKE(o_proj_heads_interleaved, p->stream.o_heads_interleaved = true;)
MISTAKE(qk_weights_permuted, p->stream.qk_lanes_permuted = true;)

/* --------------------------------------------------------------------- rope */

MISTAKE(rope_pairing_contiguous, Q_AND_K(pairing = GEMMA4_PAIR_CONTIGUOUS))
MISTAKE(rope_pairing_interleaved, Q_AND_K(pairing = GEMMA4_PAIR_INTERLEAVED))
MISTAKE(rope_exponent_rotary_dim, Q_AND_K(denominator = 0.25))
MISTAKE(rope_full_rotation_on_global, Q_AND_K(pairs = 4))
MISTAKE(rope_dim_halved_full_layers,
        Q_AND_K(pairing = GEMMA4_PAIR_CONTIGUOUS) Q_AND_K(denominator = 0.5) Q_AND_K(pairs = 2))
MISTAKE(rope_dim_halved_sliding_layers,
        Q_AND_K(pairing = GEMMA4_PAIR_CONTIGUOUS) Q_AND_K(denominator = 0.5) Q_AND_K(pairs = 0.5))
MISTAKE(rope_freqs_fp16_full_layers, Q_AND_K(half_precision_frequencies = true))
MISTAKE(rope_freqs_fp16_every_layer, Q_AND_K(half_precision_frequencies = true))
MISTAKE(rope_angles_bf16, Q_AND_K(bf16_angles = true))
MISTAKE(rope_global_applied_to_local_sliding_layers_use_the_full_layers_table,
        Q_AND_K(other_kind = true))
MISTAKE(rope_global_applied_to_local_full_layers_use_the_sliding_layers_table,
        Q_AND_K(other_kind = true))
MISTAKE(rope_global_applied_to_local_theta_only_sliding_layers, Q_AND_K(other_theta = true))
MISTAKE(rope_global_applied_to_local_theta_only_full_layers, Q_AND_K(other_theta = true))
MISTAKE(rope_global_applied_to_local_thetas_exchanged, Q_AND_K(other_theta = true))
MISTAKE(rope_scaling_wrong_layer_kind_sliding_layers, Q_AND_K(position_scale = 0.125))
MISTAKE(rope_scaling_wrong_layer_kind_full_layers, Q_AND_K(position_scale = 0.125))
MISTAKE(rope_position_off_by_one_q_and_k_one_ahead, Q_AND_K(offset = 1))
MISTAKE(rope_position_off_by_one_q_and_k_one_behind, Q_AND_K(offset = -1))
MISTAKE(rope_position_off_by_one_q_one_ahead, p->q_rope.offset = 1;)
MISTAKE(rope_position_off_by_one_k_one_ahead, p->k_rope.offset = 1;)
MISTAKE(rope_position_restarts_in_chunk, Q_AND_K(position = GEMMA4_POSITION_IN_CHUNK))
MISTAKE(rope_first_position_ignored, Q_AND_K(position = GEMMA4_POSITION_RELATIVE))
MISTAKE(rope_missing_every_layer, Q_AND_K(skipped = true))
MISTAKE(rope_missing_full_layers, Q_AND_K(skipped = true))
MISTAKE(rope_missing_q, p->q_rope.skipped = true;)
MISTAKE(rope_missing_k, p->k_rope.skipped = true;)
MISTAKE(rope_on_v, p->v_rope.skipped = false;)
MISTAKE(rope_reversed, Q_AND_K(reversed = true))
MISTAKE(rope_before_qk_norm, Q_AND_K(before_norm = true))
MISTAKE(qk_norm_rope_fused_partial_lanes, Q_AND_K(first_head_only = true))

/* -------------------------------------------------------------------- masks */

MISTAKE(window_off_by_one_wide, p->attention.window_change = 1;)
MISTAKE(window_off_by_one_wide_decode_only, p->attention.window_change = 1;
        p->attention.decode_only = true;)
MISTAKE(window_off_by_one_other, p->attention.window_change = -1;)
MISTAKE(window_off_by_one_other_decode_only, p->attention.window_change = -1;
        p->attention.decode_only = true;)
MISTAKE(window_not_passed, p->attention.no_window = true;)
MISTAKE(window_not_passed_decode_only, p->attention.no_window = true;
        p->attention.decode_only = true;)
MISTAKE(window_not_passed_after_the_first_chunk, p->attention.no_window = true;
        p->attention.chunked_only = true;)
MISTAKE(window_on_global_too, p->attention.window_on_full = true;)
MISTAKE(attention_not_causal, p->attention.not_causal = true;)
MISTAKE(own_position_masked, p->attention.excludes_self = true;)
MISTAKE(prefill_mask_capped, p->attention.cache = GEMMA4_CACHE_WINDOW_OF_CHUNK_END;)

/* -------------------------------------------------------------------- cache */

MISTAKE(chunked_prefill_no_past, p->attention.cache = GEMMA4_CACHE_NO_PAST;)
MISTAKE(chunked_prefill_ring_overflow, p->attention.cache = GEMMA4_CACHE_RING_OVERFLOW;)
MISTAKE(chunked_prefill_mask_discarded_no_mask, p->attention.cache = GEMMA4_CACHE_CHUNK_NOT_CAUSAL;
        p->attention.no_window = true; p->attention.chunked_only = true;)
MISTAKE(chunked_prefill_mask_discarded_offset_0,
        p->attention.cache = GEMMA4_CACHE_MASK_OFFSET_ZERO;)
MISTAKE(chunk_not_causal, p->attention.cache = GEMMA4_CACHE_CHUNK_NOT_CAUSAL;)
MISTAKE(ring_slot_as_position_mask, p->attention.cache = GEMMA4_CACHE_SLOT_AS_POSITION;)
MISTAKE(ring_slot_as_position_rope, Q_AND_K(position = GEMMA4_POSITION_RING_SLOT))
MISTAKE(swa_mask_matcher_missed, p->attention.cache = GEMMA4_CACHE_FIRST_CHUNK_LOST;)
MISTAKE(prefill_kv_never_uploaded, p->attention.cache = GEMMA4_CACHE_FIRST_CHUNK_ZERO;)
MISTAKE(cache_written_after_read, p->attention.cache = GEMMA4_CACHE_STALE;)
MISTAKE(kv_cache_f16, p->attention.f16_cache = true;)
MISTAKE(qk_norm_per_layer_kv_geometry_decode, p->attention.grouping = GEMMA4_GROUP_OTHER_KIND;
        p->attention.decode_only = true;)

/* ------------------------------------------------------------------ the rows */

/* clang-format off */
const gemma4_counter_model catalogue_attention[] = {
    {"keqv-v-after-knorm-rope", "after k_norm and RoPE", "attention", FULL,
     TAPS(GEMMA4_TAP_ATTN_V_NORM),
     keqv_v_after_knorm_rope_after_k_norm_and_rope,
     "V = unit RMSNorm of K after k_norm and RoPE",
     "V = unit RMSNorm of the k_proj output, before k_norm and RoPE",
     "never",
     "https://github.com/ml-explore/mlx-swift-lm/issues/231 "
     "https://github.com/ml-explore/mlx-swift-lm/pull/250 "
     "https://github.com/ml-explore/mlx-swift-lm/pull/245 "
     "https://github.com/pegainfer-project/pegainfer/pull/877"},
    {"keqv-v-after-knorm-rope", "after k_norm", "attention", FULL, TAPS(GEMMA4_TAP_ATTN_V_NORM),
     keqv_v_after_knorm_rope_after_k_norm,
     "V = unit RMSNorm of K after k_norm",
     "V = unit RMSNorm of the k_proj output, before k_norm and RoPE",
     "where k_norm's weight is 1",
     ""},
    {"keqv-unimplemented", "", "attention", FULL, TAPS(GEMMA4_TAP_ATTN_V),
     keqv_unimplemented,
     "full layers have no v_proj, and V stays 0",
     "V is the k_proj output",
     "never",
     "https://github.com/kekzl/imp/issues/516 https://github.com/kekzl/imp/issues/552"},
    {"keqv-on-sliding-layers", "", "attention", SLIDING, TAPS(GEMMA4_TAP_ATTN_V),
     keqv_on_sliding_layers,
     "sliding layers take V from k_proj too",
     "sliding layers have a v_proj",
     "never",
     ""},
    {"global-kv-heads-from-local", "full layers", "attention", FULL, SCORES_PROBS_CONTEXT,
     global_kv_heads_from_local_full_layers,
     "query heads of full layers are grouped by num_key_value_heads",
     "query head h reads KV head h div (H/G), with the layer's own G",
     "where full layers have one KV head",
     "https://github.com/onnxruntime/mobius/pull/234 https://github.com/chrishayuk/larql/pull/178 "
     "https://github.com/huggingface/transformers/pull/46467"},
    {"global-kv-heads-from-local", "sliding layers", "attention", SLIDING, SCORES_PROBS_CONTEXT,
     global_kv_heads_from_local_sliding_layers,
     "query heads of sliding layers are grouped by num_global_key_value_heads",
     "query head h reads KV head h div (H/G), with the layer's own G",
     "where both kinds have as many KV heads",
     ""},
    {"kv-grouping-modulo", "", "attention", LAYERS, SCORES_PROBS_CONTEXT,
     kv_grouping_modulo,
     "query head h reads KV head h mod G",
     "query head h reads KV head h div (H/G), with the layer's own G",
     "where there is one KV head, or as many as query heads",
     ""},
    {"kv-grouping-first-head", "", "attention", LAYERS, SCORES_PROBS_CONTEXT,
     kv_grouping_first_head,
     "all query heads read KV head 0",
     "query head h reads KV head h div (H/G), with the layer's own G",
     "where there is one KV head",
     ""},
    {"v-head-off-by-one", "", "attention", LAYERS, TAPS(GEMMA4_TAP_ATTN_CONTEXT),
     v_head_off_by_one,
     "K is read from KV head g, V from g + 1",
     "both from g",
     "where there is one KV head",
     ""},
    {"attn-scale-inv-sqrt-d", "", "attention", LAYERS, SCORES_PROBS_CONTEXT,
     attn_scale_inv_sqrt_d,
     "scores = q . k / sqrt(head_dim)",
     "scores = q . k: the scale is 1",
     "never",
     "https://potatodog.cc/quantumaikr/quant.cpp/commit/1037f705fc2bd2534c9c69ff61aa2022eca255b1 "
     "https://github.com/zzhhjjj/gemma-triton-flash-attn/issues/6 "
     "https://github.com/mlc-ai/mlc-llm/pull/3485"},
    {"attn-scale-27b-exception", "", "attention", LAYERS, SCORES_PROBS_CONTEXT,
     attn_scale_27b_exception,
     "scores = q . k / sqrt(hidden_size / H), as in the 27B models of Gemma 2 and 3",
     "scores = q . k: the scale is 1",
     "never; it cannot be told from attn-scale-inv-sqrt-d where head_dim is hidden_size / H",
     "https://github.com/ggml-org/llama.cpp/pull/13951 "
     "https://github.com/antonellof/ferrox/pull/65"},
    {"attn-softcap-50-inherited", "", "attention", LAYERS, SCORES_PROBS_CONTEXT,
     attn_softcap_50_inherited,
     "scores are soft-capped at 50, as in Gemma 2",
     "no soft-cap on scores",
     "where scores are far below 50: the cap takes s^3 / 7500 away",
     "https://github.com/ggml-org/llama.cpp/pull/21613 "
     "https://potatodog.cc/quantumaikr/quant.cpp/commit/1037f705fc2bd2534c9c69ff61aa2022eca255b1"},
    {"softmax-off-by-one", "", "attention", LAYERS, TAPS(GEMMA4_TAP_ATTN_PROBS,
     GEMMA4_TAP_ATTN_CONTEXT),
     softmax_off_by_one,
     "exp(s) / (1 + sum of exp(s)): a sink of score 0 beside the keys",
     "exp(s) / sum of exp(s)",
     "where some score is far above 0",
     ""},
    {"flash-hd512-zero", "", "attention", FULL, TAPS(GEMMA4_TAP_ATTN_CONTEXT),
     flash_hd512_zero,
     "the fused kernel does not serve head_dim 512 and leaves zeros",
     "context = sum of p v",
     "where head_dim is one that the kernel serves",
     "https://r.arson.gg/r/LocalLLaMA/comments/1sebwz2/"
     "got_gemma_4_running_locally_on_cuda_both_float"},
    {"o-proj-heads-interleaved", "", "attention", LAYERS, TAPS(GEMMA4_TAP_ATTN_OUT),
     o_proj_heads_interleaved,
     "the context is not transposed back: o_proj reads it as [D, H]",
     "o_proj reads [H, D]",
     "never",
     ""},
    {"qk-weights-permuted", "", "attention", LAYERS, TAPS(GEMMA4_TAP_ATTN_Q, GEMMA4_TAP_ATTN_K),
     qk_weights_permuted,
     "the converter reorders the rows of q_proj and k_proj, per head, for RoPE on neighbouring "
     "lanes",
     "rows stay as stored: RoPE pairs lanes j and j + D/2",
     "where q_norm's and k_norm's weights are permuted too and RoPE is interleaved: then all is "
     "right again at the scores",
     ""},
    {"rope-pairing-contiguous", "", "rope", FULL, Q_ROPE_K_ROPE,
     rope_pairing_contiguous,
     "the first 2 * pairs lanes rotate among themselves: pairs (j, j + 64)",
     "lane j is paired with j + head_dim/2: (j, j + 256)",
     "at position 0",
     "https://github.com/NVIDIA-NeMo/Megatron-Bridge/issues/4195 "
     "https://github.com/NVIDIA-NeMo/Megatron-Bridge/pull/4196 "
     "https://github.com/NVIDIA-NeMo/Megatron-Bridge/pull/4916 "
     "https://github.com/apple/coreai-models/issues/66 "
     "https://github.com/zml/zml/pull/660 https://github.com/pegainfer-project/pegainfer/pull/877"},
    {"rope-pairing-interleaved", "", "rope", LAYERS, Q_ROPE_K_ROPE,
     rope_pairing_interleaved,
     "lane 2j is paired with its neighbour 2j + 1",
     "lane j is paired with j + head_dim/2",
     "at position 0",
     ""},
    {"rope-exponent-rotary-dim", "", "rope", FULL, Q_ROPE_K_ROPE,
     rope_exponent_rotary_dim,
     "frequency j is theta^(-2j / 128): the rotating width",
     "theta^(-2j / 512): the head dim",
     "at position 0",
     "https://github.com/pegainfer-project/pegainfer/issues/820"},
    {"rope-full-rotation-on-global", "", "rope", FULL, Q_ROPE_K_ROPE,
     rope_full_rotation_on_global,
     "all head_dim/2 pairs rotate on full layers",
     "only the first partial_rotary_factor of them",
     "at position 0",
     "https://github.com/jagmarques/nexusquant/pull/12 https://github.com/kekzl/imp/pull/20"},
    {"rope-dim-halved", "full layers", "rope", FULL, Q_ROPE_K_ROPE,
     rope_dim_halved_full_layers,
     "rotary width head_dim/2 on full layers: pairs (j, j + 128), exponent over 256",
     "width head_dim: 64 pairs (j, j + 256), exponent over 512",
     "at position 0",
     "https://potatodog.cc/quantumaikr/quant.cpp/commit/1037f705fc2bd2534c9c69ff61aa2022eca255b1 "
     "https://github.com/kekzl/imp/pull/9 https://github.com/kekzl/imp/pull/10 "
     "https://github.com/kekzl/imp/pull/20"},
    {"rope-dim-halved", "sliding layers", "rope", SLIDING, Q_ROPE_K_ROPE,
     rope_dim_halved_sliding_layers,
     "rotary width head_dim/2 on sliding layers: pairs (j, j + 64), exponent over 128",
     "width head_dim: 128 pairs (j, j + 128), exponent over 256",
     "at position 0",
     "https://potatodog.cc/quantumaikr/quant.cpp/commit/1037f705fc2bd2534c9c69ff61aa2022eca255b1"},
    {"rope-freqs-fp16", "full layers", "rope", FULL, Q_ROPE_K_ROPE,
     rope_freqs_fp16_full_layers,
     "the frequencies of full layers are stored as float16",
     "float32",
     "at small positions: the angle's error is 2^-12 of the angle or less",
     "https://github.com/kekzl/imp/pull/9"},
    {"rope-freqs-fp16", "every layer", "rope", LAYERS, Q_ROPE_K_ROPE,
     rope_freqs_fp16_every_layer,
     "all frequencies are stored as float16",
     "float32",
     "at small positions: the angle's error is 2^-12 of the angle or less",
     ""},
    {"rope-angles-bf16", "", "rope", LAYERS, Q_ROPE_K_ROPE,
     rope_angles_bf16,
     "positions and angles are rounded to bf16",
     "float32",
     "at position 0; small below position 257, where positions are exact in bf16",
     ""},
    {"rope-global-applied-to-local", "sliding layers use the full layers' table", "rope", SLIDING,
     Q_ROPE_K_ROPE,
     rope_global_applied_to_local_sliding_layers_use_the_full_layers_table,
     "sliding layers rotate with the full layers' theta, pairs and exponent",
     "theta 10,000 and all pairs on sliding layers; theta 1,000,000 and a quarter of the pairs on "
     "full layers",
     "at position 0",
     "https://github.com/NVIDIA/kvpress/issues/274 "
     "https://github.com/quic/efficient-transformers/pull/1296"},
    {"rope-global-applied-to-local", "full layers use the sliding layers' table", "rope", FULL,
     Q_ROPE_K_ROPE,
     rope_global_applied_to_local_full_layers_use_the_sliding_layers_table,
     "full layers rotate with the sliding layers' theta, pairs and exponent",
     "theta 10,000 and all pairs on sliding layers; theta 1,000,000 and a quarter of the pairs on "
     "full layers",
     "at position 0",
     "https://github.com/NVIDIA/kvpress/issues/274 "
     "https://github.com/quic/efficient-transformers/pull/1296"},
    {"rope-global-applied-to-local", "theta only, sliding layers", "rope", SLIDING, Q_ROPE_K_ROPE,
     rope_global_applied_to_local_theta_only_sliding_layers,
     "sliding layers rotate with theta 1,000,000",
     "theta 10,000 and all pairs on sliding layers; theta 1,000,000 and a quarter of the pairs on "
     "full layers",
     "at position 0",
     ""},
    {"rope-global-applied-to-local", "theta only, full layers", "rope", FULL, Q_ROPE_K_ROPE,
     rope_global_applied_to_local_theta_only_full_layers,
     "full layers rotate with theta 10,000",
     "theta 10,000 and all pairs on sliding layers; theta 1,000,000 and a quarter of the pairs on "
     "full layers",
     "at position 0",
     ""},
    {"rope-global-applied-to-local", "thetas exchanged", "rope", LAYERS, Q_ROPE_K_ROPE,
     rope_global_applied_to_local_thetas_exchanged,
     "the thetas of both kinds of layers are exchanged",
     "theta 10,000 and all pairs on sliding layers; theta 1,000,000 and a quarter of the pairs on "
     "full layers",
     "at position 0",
     ""},
    {"rope-scaling-wrong-layer-kind", "sliding layers", "rope", SLIDING, Q_ROPE_K_ROPE,
     rope_scaling_wrong_layer_kind_sliding_layers,
     "positions are divided by 8 on sliding layers: Gemma 3's linear scaling, of the wrong kind "
     "of layer",
     "positions as they are: Gemma 4 has no linear scaling",
     "at position 0",
     "https://github.com/ggml-org/llama.cpp/issues/14367 "
     "https://github.com/antonellof/ferrox/issues/39 "
     "https://github.com/lablup/mlxcel/issues/1340 https://github.com/Blaizzy/mlx-vlm/pull/1709"},
    {"rope-scaling-wrong-layer-kind", "full layers", "rope", FULL, Q_ROPE_K_ROPE,
     rope_scaling_wrong_layer_kind_full_layers,
     "positions are divided by 8 on full layers: Gemma 3's linear scaling",
     "positions as they are: Gemma 4 has no linear scaling",
     "at position 0",
     ""},
    {"rope-position-off-by-one", "q and k, one ahead", "rope", LAYERS, Q_ROPE_K_ROPE,
     rope_position_off_by_one_q_and_k_one_ahead,
     "positions count from 1",
     "the token at absolute position p rotates by p",
     "at the scores and in everything after them: they depend on differences of positions only",
     ""},
    {"rope-position-off-by-one", "q and k, one behind", "rope", LAYERS, Q_ROPE_K_ROPE,
     rope_position_off_by_one_q_and_k_one_behind,
     "positions count from -1",
     "the token at absolute position p rotates by p",
     "at the scores and in everything after them: they depend on differences of positions only",
     ""},
    {"rope-position-off-by-one", "q one ahead", "rope", LAYERS, TAPS(GEMMA4_TAP_ATTN_Q_ROPE),
     rope_position_off_by_one_q_one_ahead,
     "q rotates by the number of cached keys after its own was stored: p + 1",
     "the token at absolute position p rotates by p",
     "never",
     ""},
    {"rope-position-off-by-one", "k one ahead", "rope", LAYERS, TAPS(GEMMA4_TAP_ATTN_K_ROPE),
     rope_position_off_by_one_k_one_ahead,
     "k rotates by p + 1",
     "the token at absolute position p rotates by p",
     "never",
     ""},
    {"rope-position-restarts-in-chunk", "", "rope", LAYERS, Q_ROPE_K_ROPE,
     rope_position_restarts_in_chunk,
     "positions start at 0 in every chunk",
     "the token at absolute position p rotates by p",
     "in a whole prefill from position 0",
     ""},
    {"rope-first-position-ignored", "", "rope", LAYERS, Q_ROPE_K_ROPE,
     rope_first_position_ignored,
     "positions start at 0 whatever position the first token has",
     "the token at absolute position p rotates by p",
     "where the first token is at position 0; at the scores: they depend on differences of "
     "positions only",
     ""},
    {"rope-missing", "every layer", "rope", LAYERS, Q_ROPE_K_ROPE,
     rope_missing_every_layer,
     "q and k are not rotated",
     "q and k are rotated on every layer",
     "at position 0",
     ""},
    {"rope-missing", "full layers", "rope", FULL, Q_ROPE_K_ROPE,
     rope_missing_full_layers,
     "q and k of full layers are not rotated",
     "q and k are rotated on every layer",
     "at position 0",
     ""},
    {"rope-missing", "q", "rope", LAYERS, TAPS(GEMMA4_TAP_ATTN_Q_ROPE),
     rope_missing_q,
     "q is not rotated",
     "q and k are rotated",
     "at position 0",
     ""},
    {"rope-missing", "k", "rope", LAYERS, TAPS(GEMMA4_TAP_ATTN_K_ROPE),
     rope_missing_k,
     "k is not rotated",
     "q and k are rotated",
     "at position 0",
     ""},
    {"rope-on-v", "", "rope", LAYERS, TAPS(GEMMA4_TAP_ATTN_V_NORM),
     rope_on_v,
     "v is rotated as k is",
     "v is never rotated",
     "at position 0",
     ""},
    {"rope-reversed", "", "rope", LAYERS, Q_ROPE_K_ROPE,
     rope_reversed,
     "pairs rotate by -angle: the signs of the sines are exchanged",
     "x[j] cos - x[j + D/2] sin, x[j + D/2] cos + x[j] sin",
     "at position 0",
     ""},
    {"rope-before-qk-norm", "", "rope", LAYERS, Q_ROPE_K_ROPE,
     rope_before_qk_norm,
     "q and k are rotated first and normed afterwards",
     "normed first, then rotated",
     "at position 0; where the weights of q_norm and k_norm are the same in all lanes",
     ""},
    {"qk-norm-rope-fused-partial-lanes", "", "rope", FULL, Q_ROPE_K_ROPE,
     qk_norm_rope_fused_partial_lanes,
     "a fused kernel of norm and partial RoPE serves the first head; here the others stand still",
     "every head is rotated",
     "at position 0; in K where there is one KV head",
     "https://github.com/vllm-project/vllm/issues/51049 "
     "https://github.com/vllm-project/vllm/pull/50903"},
    {"window-off-by-one-wide", "", "masks", SLIDING, SCORES_PROBS_CONTEXT,
     window_off_by_one_wide,
     "a query sees one key more than the window",
     "a query of a sliding layer sees sliding_window keys, its own included",
     "where the prompt is not longer than the window",
     "https://github.com/sgl-project/sglang/pull/26147 "
     "https://github.com/pegainfer-project/pegainfer/issues/818 "
     "https://github.com/microsoft/onnxruntime/pull/25927"},
    {"window-off-by-one-wide", "decode only", "masks", SLIDING, SCORES_PROBS_CONTEXT,
     window_off_by_one_wide_decode_only,
     "in decode, a query sees one key more than the window",
     "a query of a sliding layer sees sliding_window keys, its own included",
     "where the prompt is not longer than the window, and in prefill",
     ""},
    {"window-off-by-one-other", "", "masks", SLIDING, SCORES_PROBS_CONTEXT,
     window_off_by_one_other,
     "a query sees one key less than the window",
     "a query of a sliding layer sees sliding_window keys, its own included",
     "where the prompt is not longer than the window",
     "https://github.com/quic/efficient-transformers/pull/1250 "
     "https://github.com/NVIDIA-NeMo/Megatron-Bridge/pull/4683"},
    {"window-off-by-one-other", "decode only", "masks", SLIDING, SCORES_PROBS_CONTEXT,
     window_off_by_one_other_decode_only,
     "in decode, a query sees one key less than the window",
     "a query of a sliding layer sees sliding_window keys, its own included",
     "where the prompt is not longer than the window, and in prefill",
     ""},
    {"window-not-passed", "", "masks", SLIDING, SCORES_PROBS_CONTEXT,
     window_not_passed,
     "sliding layers see every position before the query",
     "a query of a sliding layer sees sliding_window keys, its own included",
     "where the prompt is not longer than the window",
     "https://github.com/EricLBuehler/mistral.rs/issues/2094 "
     "https://github.com/labscommunity/cascadia/pull/151 "
     "https://github.com/NVIDIA-NeMo/Megatron-Bridge/pull/4668 "
     "https://github.com/sgl-project/sglang/pull/4823 "
     "https://github.com/quic/efficient-transformers/pull/1176 "
     "https://github.com/tenstorrent/tt-metal/issues/51080"},
    {"window-not-passed", "decode only", "masks", SLIDING, SCORES_PROBS_CONTEXT,
     window_not_passed_decode_only,
     "in decode, sliding layers see every position before the query",
     "a query of a sliding layer sees sliding_window keys, its own included",
     "where the prompt is not longer than the window, and in prefill",
     "https://github.com/EricLBuehler/mistral.rs/issues/2094"},
    {"window-not-passed", "after the first chunk", "masks", SLIDING, SCORES_PROBS_CONTEXT,
     window_not_passed_after_the_first_chunk,
     "in chunks after the first, sliding layers see every position before the query",
     "a query of a sliding layer sees sliding_window keys, its own included",
     "where the prompt is not longer than the window, and in a whole prefill",
     ""},
    {"window-on-global-too", "", "masks", FULL, SCORES_PROBS_CONTEXT,
     window_on_global_too,
     "full layers see the last sliding_window keys only",
     "full layers see every position up to the query's",
     "where the prompt is not longer than the window",
     "https://github.com/cactus-compute/cactus/issues/320"},
    {"attention-not-causal", "", "masks", LAYERS, SCORES_PROBS_CONTEXT,
     attention_not_causal,
     "queries see later positions too",
     "a query sees positions up to its own",
     "at the last position; in decode",
     ""},
    {"own-position-masked", "", "masks", LAYERS, SCORES_PROBS_CONTEXT,
     own_position_masked,
     "a query does not see its own position",
     "it does",
     "never",
     ""},
    {"prefill-mask-capped", "", "masks", SLIDING, SCORES_PROBS_CONTEXT,
     prefill_mask_capped,
     "every query of a chunk sees only the last sliding_window keys before the chunk's end; early "
     "ones see none",
     "a query of a sliding layer sees sliding_window keys, its own included",
     "where the prompt is not longer than the window; in decode",
     "https://github.com/lablup/mlxcel/issues/401 https://github.com/lablup/mlxcel/pull/405"},
    {"chunked-prefill-no-past", "", "cache", LAYERS, SCORES_PROBS_CONTEXT,
     chunked_prefill_no_past,
     "a chunk attends to itself only",
     "a chunk attends to all earlier positions too",
     "in a whole prefill",
     "https://github.com/kekzl/imp/pull/117"},
    {"chunked-prefill-ring-overflow", "", "cache", SLIDING, SCORES_PROBS_CONTEXT,
     chunked_prefill_ring_overflow,
     "a chunk is written into the ring of sliding_window slots before its queries read the past "
     "from it",
     "overwritten keys are still visible to the chunk's first queries and must be kept until the "
     "chunk is done",
     "in a whole prefill; where the prompt is not longer than the window",
     "https://github.com/pytorch/executorch/pull/20346"},
    {"chunked-prefill-mask-discarded", "no mask", "cache", LAYERS, SCORES_PROBS_CONTEXT,
     chunked_prefill_mask_discarded_no_mask,
     "in chunks after the first the mask is dropped: no causality inside the chunk, no window",
     "mask by absolute positions",
     "in a whole prefill; in decode within the window",
     "https://github.com/lablup/mlxcel/issues/678 https://github.com/lablup/mlxcel/issues/885 "
     "https://github.com/lablup/mlxcel/pull/891"},
    {"chunked-prefill-mask-discarded", "offset 0", "cache", LAYERS, SCORES_PROBS_CONTEXT,
     chunked_prefill_mask_discarded_offset_0,
     "the mask of a later chunk is built as if the chunk began at position 0: its query t sees "
     "the first t + 1 keys",
     "mask by absolute positions",
     "in a whole prefill",
     "https://github.com/lablup/mlxcel/issues/678 https://github.com/lablup/mlxcel/issues/885 "
     "https://github.com/lablup/mlxcel/pull/891"},
    {"chunk-not-causal", "", "cache", LAYERS, SCORES_PROBS_CONTEXT,
     chunk_not_causal,
     "every query sees its whole chunk",
     "a query sees positions up to its own",
     "in decode",
     ""},
    {"ring-slot-as-position", "mask", "cache", SLIDING, SCORES_PROBS_CONTEXT,
     ring_slot_as_position_mask,
     "causality is judged by ring slots: after rollover, keys in slots above the query's own are "
     "hidden",
     "by absolute positions",
     "where the prompt is not longer than the window",
     "https://github.com/ROCm/hip-ep/pull/852 https://github.com/warpfront/hipfire/pull/667 "
     "https://github.com/Blaizzy/mlx-vlm/issues/1715"},
    {"ring-slot-as-position", "RoPE", "cache", SLIDING, Q_ROPE_K_ROPE,
     ring_slot_as_position_rope,
     "q and k rotate by the slot in the ring",
     "by the absolute position",
     "where the prompt is not longer than the window",
     ""},
    {"swa-mask-matcher-missed", "", "cache", SLIDING, SCORES_PROBS_CONTEXT,
     swa_mask_matcher_missed,
     "sliding layers do not see the first chunk from later ones",
     "they see what their window holds of it",
     "in a whole prefill",
     "https://github.com/openvinotoolkit/openvino/pull/37347"},
    {"prefill-kv-never-uploaded", "", "cache", LAYERS, SCORES_PROBS_CONTEXT,
     prefill_kv_never_uploaded,
     "later chunks read a cache that the first chunk never wrote: keys and values 0",
     "the first chunk's keys and values are in the cache",
     "in a whole prefill",
     "https://jeffasante.github.io/cellm/gemma4-metal-bug.md"},
    {"cache-written-after-read", "", "cache", LAYERS, SCORES_PROBS_CONTEXT,
     cache_written_after_read,
     "later chunks read the cache before their own keys are in it: a query sees the past and "
     "itself",
     "a query sees its chunk up to itself, too",
     "in a whole prefill; in decode",
     ""},
    {"kv-cache-f16", "", "cache", LAYERS, SCORES_PROBS_CONTEXT,
     kv_cache_f16,
     "keys and values are rounded to float16 when they are cached",
     "kept as computed: bf16 or float32",
     "in f16 engines",
     "https://r.arson.gg/r/LocalLLaMA/comments/1sebwz2/"
     "got_gemma_4_running_locally_on_cuda_both_float"},
    {"qk-norm-per-layer-kv-geometry-decode", "", "cache", LAYERS, SCORES_PROBS_CONTEXT,
     qk_norm_per_layer_kv_geometry_decode,
     "cached decode groups the heads of all layers by the other kind's number of KV heads",
     "query head h reads KV head h div (H/G), with the layer's own G",
     "in prefill",
     "https://github.com/chrishayuk/larql/issues/177"},
};
/* clang-format on */
const size_t catalogue_attention_count = sizeof catalogue_attention / sizeof *catalogue_attention;
