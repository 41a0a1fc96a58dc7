"""Synthetic checkpoints: an implementation of spec/synth.md in NumPy, independent of ref/synth.c.

    python synth.py --config ../checkpoints/tiny/config.json --seed 3 --out DIR      writes DIR/model.safetensors

Both programs must write the same bytes; make_golden.py --verify and `make golden-verify` compare them.
"""

import argparse
import json
import math
import os
import struct

import numpy as np

MASK64 = (1 << 64) - 1
BLOCKS_AT_ONCE = 1 << 18  # blocks of 8 elements that are generated in one go: 2 MiB of random bytes


# --- the bytes ------------------------------------------------------------------------------------------------------


def tensor_key(seed, name):
    """FNV-1a over the 8 bytes of the seed (least significant first) and the bytes of the tensor's name."""
    key = 14695981039346656037
    for byte in seed.to_bytes(8, "little") + name.encode("utf-8"):
        key = ((key ^ byte) * 1099511628211) & MASK64
    return key


def random_bytes(key, first_block, blocks):
    """Blocks first_block ... first_block + blocks - 1 of the tensor's stream: uint8 [8 * blocks]."""
    c = np.arange(first_block, first_block + blocks, dtype=np.uint64)
    z = np.uint64(key) + (c + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)  # uint64 arrays wrap modulo 2^64
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return z.astype("<u8").view(np.uint8)


def bfloat16_bits(x):
    """float64 -> float32 -> bfloat16, each to nearest with ties to even: uint16 bit patterns. x is finite."""
    bits = np.asarray(x, dtype=np.float64).astype(np.float32).view(np.uint32)
    rounding = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return ((bits + rounding) >> np.uint32(16)).astype(np.uint16)


def value_table(offset, spread):
    """The 256 values that a tensor's elements can take, by their random byte: uint16 bit patterns of bfloat16."""
    u = (2.0 * np.arange(256, dtype=np.float64) - 255.0) / 256.0
    return bfloat16_bits(offset + spread * u)


def write_tensor(file, seed, name, count, offset, spread):
    """Appends the `count` elements of one tensor to an open file."""
    key = tensor_key(seed, name)
    table = value_table(offset, spread).astype("<u2")
    blocks = (count + 7) // 8
    for first in range(0, blocks, BLOCKS_AT_ONCE):
        chunk = table[random_bytes(key, first, min(BLOCKS_AT_ONCE, blocks - first))]
        file.write(chunk[:count - 8 * first].tobytes())


# --- which tensors, with which offset and spread ----------------------------------------------------------------------


def layer_shape(text, i):
    """(head dim, number of KV heads, whether V is K) of layer i, in any of the config layouts."""
    head_dim, kv_heads = text["head_dim"], text["num_key_value_heads"]
    full = text["layer_types"][i] == "full_attention"
    if "per_layer_config" in text:
        override = text["per_layer_config"].get(str(i), {})
        head_dim = override.get("head_dim", head_dim)
        kv_heads = override.get("num_key_value_heads", kv_heads)
    elif full:
        head_dim = text["global_head_dim"]
        if text["attention_k_eq_v"]:
            kv_heads = text["num_global_key_value_heads"]
    return head_dim, kv_heads, full and text["attention_k_eq_v"]


def tensor_list(text):
    """Every tensor of the decoder in the order of the file: (name without prefix, shape, offset, spread)."""
    sqrt = math.sqrt
    d, V = text["hidden_size"], text["vocab_size"]
    H, F = text["num_attention_heads"], text["intermediate_size"]
    E, M = text["num_experts"], text["moe_intermediate_size"]

    tensors = [("embed_tokens.weight", [V, d], 0.0, sqrt(3 / d))]
    for i in range(text["num_hidden_layers"]):
        D, G, v_is_k = layer_shape(text, i)
        layer = [
            ("input_layernorm.weight", [d], 1.0, 0.5),
            ("self_attn.q_proj.weight", [H * D, d], 0.0, sqrt(3 / d)),
            ("self_attn.k_proj.weight", [G * D, d], 0.0, sqrt(3 / d)),
            ("self_attn.v_proj.weight", [G * D, d], 0.0, sqrt(3 / d)),
            ("self_attn.o_proj.weight", [d, H * D], 0.0, 0.2 * sqrt(3 / (H * D))),
            ("self_attn.q_norm.weight", [D], 2.5, 1.0),
            ("self_attn.k_norm.weight", [D], 0.9 / sqrt(D), 0.45 / sqrt(D)),
            ("post_attention_layernorm.weight", [d], 0.4, 0.2),
            ("pre_feedforward_layernorm.weight", [d], 1.0, 0.5),
            ("mlp.gate_proj.weight", [F, d], 0.0, 1.5 * sqrt(3 / d)),
            ("mlp.up_proj.weight", [F, d], 0.0, 1.5 * sqrt(3 / d)),
            ("mlp.down_proj.weight", [d, F], 0.0, 0.1 * sqrt(3 / F)),
            ("post_feedforward_layernorm_1.weight", [d], 1.0, 0.5),
            ("router.proj.weight", [E, d], 0.0, 2 * sqrt(3)),
            ("router.scale", [d], 1.0, 0.5),
            ("router.per_expert_scale", [E], 1.0, 0.5),
            ("pre_feedforward_layernorm_2.weight", [d], 1.0, 0.5),
            ("experts.gate_up_proj", [E, 2 * M, d], 0.0, 1.5 * sqrt(3 / d)),
            ("experts.down_proj", [E, d, M], 0.0, 0.2 * sqrt(3 / M)),
            ("post_feedforward_layernorm_2.weight", [d], 1.0, 0.5),
            ("post_feedforward_layernorm.weight", [d], 0.4, 0.2),
            ("layer_scalar", [1], 1.05, 0.35),
        ]
        for name, shape, offset, spread in layer:
            if not (v_is_k and name == "self_attn.v_proj.weight"):
                tensors.append((f"layers.{i}.{name}", shape, offset, spread))
    tensors.append(("norm.weight", [d], 8.0, 4.0))
    return tensors


def write_checkpoint(config, seed, directory):
    """Writes DIR/model.safetensors for a config.json given as a dict; returns the file's path."""
    text = config.get("text_config", config)
    prefix = "model.language_model." if "text_config" in config else "model."
    tensors = tensor_list(text)

    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, _, _ in tensors:
        begin, end = end, end + 2 * math.prod(shape)
        header[prefix + name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    header = json.dumps(header, separators=(",", ":")).encode("utf-8")
    header += b" " * (-(8 + len(header)) % 64)

    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, "model.safetensors")
    with open(path + ".part", "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for name, shape, offset, spread in tensors:
            write_tensor(file, seed, name, math.prod(shape), offset, spread)
    os.replace(path + ".part", path)
    return path


def main():
    parser = argparse.ArgumentParser(description="Write a synthetic Gemma 4 checkpoint (spec/synth.md).")
    parser.add_argument("--config", required=True, help="the checkpoint's config.json")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    with open(args.config, encoding="utf-8") as f:
        config = json.load(f)
    print(write_checkpoint(config, args.seed, args.out))


if __name__ == "__main__":
    main()
