"""Does vLLM on a CPU without AVX512-BF16 cut float32 to bfloat16 instead of rounding? Its experts' output, computed from its own input and
router logits with both.

    python golden/engines/vllm/confirm.py build/engines/vllm.dumps/heads512-prompt.bfloat16.whole.h5 [...]
"""

import json
import os
import struct
import sys

import h5py
import numpy as np
import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def cut(x):
    return (np.ascontiguousarray(x, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def rounded(x):
    """To nearest, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def weights_of(path):
    """{name: array} of a safetensors file in bfloat16."""
    with open(path, "rb") as f:
        (size,) = struct.unpack("<Q", f.read(8))
        header, data = json.loads(f.read(size)), f.read()
    header.pop("__metadata__", None)
    raw = {name: np.frombuffer(data[entry["data_offsets"][0]:entry["data_offsets"][1]], np.uint16) for name, entry in header.items()}
    return {name.replace("model.language_model.", "model."): (value.astype(np.uint32) << 16).view(np.float32).reshape(header[name]["shape"])
            for name, value in raw.items()}


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def experts(x, logits, w, k, to_bfloat16):
    """moe.out [T, d] from the experts' input [T, d] and the router's logits [T, E]; both conversions to bfloat16 as asked."""
    odds = np.exp(logits - logits.max(1, keepdims=True))
    out = np.zeros(x.shape)
    for t, chosen in enumerate(np.argsort(-logits, 1)[:, :k]):
        shares = odds[t, chosen] / odds[t, chosen].sum() * w["router.per_expert_scale"][chosen]
        for share, e in zip(shares, chosen):
            gate, up = np.split(w["experts.gate_up_proj"][e] @ x[t], 2)
            out[t] += share * (w["experts.down_proj"][e] @ to_bfloat16(gelu(gate) * up))
    return to_bfloat16(out)


for path in sys.argv[1:]:
    with h5py.File(path) as f:
        case = f.attrs["case"]
        with open(os.path.join(ROOT, "golden", "cases", case + ".yaml"), encoding="utf-8") as y:
            folder = os.path.join(ROOT, "build", "checkpoints", yaml.safe_load(y)["checkpoint"]["name"])
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as j:
            config = json.load(j)
        config, weights = config.get("text_config", config), weights_of(os.path.join(folder, "model.safetensors"))
        for n in range(config["num_hidden_layers"]):
            prefix = f"model.layers.{n}."
            x, logits, got = (f[prefix + name][()] for name in ("pre_feedforward_layernorm_2", "router.proj", "experts"))
            w = {name[len(prefix):]: value for name, value in weights.items() if name.startswith(prefix)}
            for name, way in (("cut", cut), ("rounded", rounded)):
                made = experts(x, logits, w, config["top_k_experts"], way)
                print(f"{case} layer {n}: {np.mean(made == got):.2%} of the elements are those of bfloat16 that is {name}, "
                      f"relative RMS {np.linalg.norm(made - got) / np.linalg.norm(got):.1e}")
