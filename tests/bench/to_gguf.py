"""Writes a checkpoint of this project as GGUF, so that llama.cpp can be timed on the same weights (tests/bench/llama.sh).

    python to_gguf.py --model build/checkpoints/26b-a4b-2 --type bf16 --out build/bench-bf16.gguf

Matrices keep their bfloat16 bits or are widened to float32 (--type f32); vectors are float32. There is no tokenizer. Needs `pip install gguf`.
"""

import argparse
import json
import os
import struct

import gguf
import numpy as np

T = gguf.MODEL_TENSOR
LAYER = {
    "input_layernorm.weight": (T.ATTN_NORM, "weight"),
    "self_attn.q_proj.weight": (T.ATTN_Q, "weight"),
    "self_attn.k_proj.weight": (T.ATTN_K, "weight"),
    "self_attn.v_proj.weight": (T.ATTN_V, "weight"),
    "self_attn.o_proj.weight": (T.ATTN_OUT, "weight"),
    "self_attn.q_norm.weight": (T.ATTN_Q_NORM, "weight"),
    "self_attn.k_norm.weight": (T.ATTN_K_NORM, "weight"),
    "post_attention_layernorm.weight": (T.ATTN_POST_NORM, "weight"),
    "pre_feedforward_layernorm.weight": (T.FFN_PRE_NORM, "weight"),
    "mlp.gate_proj.weight": (T.FFN_GATE, "weight"),
    "mlp.up_proj.weight": (T.FFN_UP, "weight"),
    "mlp.down_proj.weight": (T.FFN_DOWN, "weight"),
    "post_feedforward_layernorm_1.weight": (T.FFN_POST_NORM_1, "weight"),
    "router.proj.weight": (T.FFN_GATE_INP, "weight"),
    "router.scale": (T.FFN_GATE_INP, "scale"),
    "router.per_expert_scale": (T.FFN_DOWN_EXP, "scale"),
    "pre_feedforward_layernorm_2.weight": (T.FFN_PRE_NORM_2, "weight"),
    "experts.gate_up_proj": (T.FFN_GATE_UP_EXP, "weight"),
    "experts.down_proj": (T.FFN_DOWN_EXP, "weight"),
    "post_feedforward_layernorm_2.weight": (T.FFN_POST_NORM_2, "weight"),
    "post_feedforward_layernorm.weight": (T.FFN_POST_NORM, "weight"),
    "layer_scalar": (T.LAYER_OUT_SCALE, "weight"),
}


def gguf_name(name):
    """layers.3.self_attn.q_proj.weight -> blk.3.attn_q.weight"""
    if name == "embed_tokens.weight":
        return gguf.TENSOR_NAMES[T.TOKEN_EMBD] + ".weight"
    if name == "norm.weight":
        return gguf.TENSOR_NAMES[T.OUTPUT_NORM] + ".weight"
    _, layer, rest = name.split(".", 2)
    tensor, suffix = LAYER[rest]
    return gguf.TENSOR_NAMES[tensor].format(bid=layer) + "." + suffix


def widen(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def add_config(w, c):
    """The keys that llama.cpp's gemma4 reads."""
    full = [kind == "full_attention" for kind in c["layer_types"]]
    w.add_block_count(c["num_hidden_layers"])
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv([c["num_global_key_value_heads"] if f else c["num_key_value_heads"] for f in full])
    w.add_key_length(c["global_head_dim"])
    w.add_value_length(c["global_head_dim"])
    w.add_key_length_swa(c["head_dim"])
    w.add_value_length_swa(c["head_dim"])
    w.add_rope_dimension_count(c["global_head_dim"])
    w.add_rope_dimension_count_swa(c["head_dim"])
    w.add_rope_freq_base(1e6)
    w.add_rope_freq_base_swa(1e4)
    w.add_sliding_window(c["sliding_window"])
    w.add_sliding_window_pattern([not f for f in full])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_final_logit_softcapping(c["final_logit_softcapping"])
    w.add_shared_kv_layers(0)
    w.add_embedding_length_per_layer_input(0)
    w.add_expert_count(c["num_experts"])
    w.add_expert_used_count(c["top_k_experts"])
    w.add_expert_feed_forward_length(c["moe_intermediate_size"])
    w.add_vocab_size(c["vocab_size"])
    w.add_tokenizer_model("none")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", metavar="DIR", required=True)
    parser.add_argument("--type", choices=["bf16", "f32"], default="bf16")
    parser.add_argument("--out", metavar="FILE.gguf", required=True)
    args = parser.parse_args()
    with open(os.path.join(args.model, "config.json"), encoding="utf-8") as f:
        config = json.load(f)["text_config"]
    path = os.path.join(args.model, "model.safetensors")
    with open(path, "rb") as f:
        length = struct.unpack("<Q", f.read(8))[0]
        header = json.loads(f.read(length))
    data = np.memmap(path, np.uint8, "r", offset=8 + length)

    w = gguf.GGUFWriter(args.out, "gemma4")
    add_config(w, config)
    rotating = config["global_head_dim"] // 8  # a quarter of the pairs; the others stand still
    w.add_tensor("rope_freqs.weight", np.array([1.0] * rotating + [1e30] * (config["global_head_dim"] // 2 - rotating), np.float32))
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        begin, end = tensor["data_offsets"]
        bits = data[begin:end].view(np.uint16).reshape(tensor["shape"])
        short = name.removeprefix("model.language_model.")
        if len(tensor["shape"]) == 1 or args.type == "f32":
            w.add_tensor(gguf_name(short), widen(bits))
        else:
            w.add_tensor(gguf_name(short), bits.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    print(f"{args.out}: {os.path.getsize(args.out)} bytes")


if __name__ == "__main__":
    main()
