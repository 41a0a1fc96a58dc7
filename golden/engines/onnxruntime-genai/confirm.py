"""Does onnxruntime-genai's builder round the experts' down_proj to bfloat16 in an export in float32? Compares what it wrote with the product of
the checkpoint's own down_proj and per_expert_scale, rounded and not. Every layer of the checkpoint must be in what it wrote, and no other; exit
status 1 where a weight is not the product rounded.

    cd build/engines && onnxruntime-genai/bin/python -m onnxruntime_genai.models.builder -i ../checkpoints/tiny -o tiny.onnx -p fp32 -e cpu -c cache
    onnxruntime-genai/bin/python ../../golden/engines/onnxruntime-genai/confirm.py ../checkpoints/tiny tiny.onnx
"""

import json
import os
import re
import struct
import sys

import numpy as np
import onnx
from onnx.external_data_helper import load_external_data_for_tensor

ASKED = ("experts.down_proj", "router.per_expert_scale")
LAYER = re.compile(r"layers\.(\d+)\.")


def weights_of(path):
    """{layer: {name: array}}, in the layers' order: down_proj [E, d, F] and per_expert_scale [E] of a safetensors file in bfloat16."""
    with open(path, "rb") as f:
        (size,) = struct.unpack("<Q", f.read(8))
        header, data = json.loads(f.read(size)), f.read()
    found = {}
    for name, entry in header.items():
        for asked in ASKED:
            if name.endswith(asked):
                begin, end = entry["data_offsets"]
                values = (np.frombuffer(data[begin:end], np.uint16).astype(np.uint32) << 16).view(np.float32)
                found.setdefault(int(LAYER.search(name).group(1)), {})[asked] = values.reshape(entry["shape"])
    return dict(sorted(found.items()))


def rounded(x):
    """To bfloat16, to nearest, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


checkpoint, exported = sys.argv[1:]
graph = onnx.load(os.path.join(exported, "model.onnx"), load_external_data=False).graph
written = {int(LAYER.search(t.name).group(1)): t for t in graph.initializer if t.name.endswith("moe.experts.down_proj.weight")}
with open(os.path.join(checkpoint, "config.json"), encoding="utf-8") as f:
    config = json.load(f)
layers = list(range(config.get("text_config", config)["num_hidden_layers"]))
weights = weights_of(os.path.join(checkpoint, "model.safetensors"))
if sorted(written) != layers or list(weights) != layers:
    sys.exit(f"expected down_proj of the layers {layers}, found {sorted(written)} in the graph and {list(weights)} in the checkpoint")
wrong = []
for layer, w in weights.items():
    load_external_data_for_tensor(written[layer], exported)
    made, product = onnx.numpy_helper.to_array(written[layer]), w["experts.down_proj"] * w["router.per_expert_scale"][:, None, None]
    same = made == rounded(product)
    print(f"layer {layer}, {made.dtype}: {np.mean(same):.2%} of the weights are the product rounded to bfloat16, "
          f"{np.mean(made == product):.2%} the product; relative RMS {np.linalg.norm(made - product) / np.linalg.norm(product):.1e}")
    if not same.all():
        wrong.append(layer)
print(f"{len(layers) - len(wrong)} of {len(layers)} layers: every weight is the product rounded to bfloat16")
sys.exit(1 if wrong else 0)
