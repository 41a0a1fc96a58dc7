"""Does onnxruntime-genai's builder round the experts' down_proj to bfloat16 in an export in float32? Compares what it wrote with the product of
the checkpoint's own down_proj and per_expert_scale, rounded and not.

    cd build/engines && onnxruntime-genai/bin/python -m onnxruntime_genai.models.builder -i ../checkpoints/tiny -o tiny.onnx -p fp32 -e cpu -c cache
    onnxruntime-genai/bin/python ../../golden/engines/onnxruntime-genai/confirm.py ../checkpoints/tiny tiny.onnx
"""

import json
import os
import struct
import sys

import numpy as np
import onnx
from onnx.external_data_helper import load_external_data_for_tensor

ASKED = ("experts.down_proj", "router.per_expert_scale")


def weights_of(path):
    """{layer: [down_proj [E, d, F], per_expert_scale [E]]} of a safetensors file in bfloat16."""
    with open(path, "rb") as f:
        (size,) = struct.unpack("<Q", f.read(8))
        header, data = json.loads(f.read(size)), f.read()
    found = {}
    for name in sorted(header):  # experts before router
        if name.endswith(ASKED):
            begin, end = header[name]["data_offsets"]
            values = (np.frombuffer(data[begin:end], np.uint16).astype(np.uint32) << 16).view(np.float32)
            found.setdefault(int(name.split("layers.")[1].split(".")[0]), []).append(values.reshape(header[name]["shape"]))
    return found


def rounded(x):
    """To bfloat16, to nearest, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


checkpoint, exported = sys.argv[1:]
tensors = {t.name: t for t in onnx.load(os.path.join(exported, "model.onnx"), load_external_data=False).graph.initializer}
for layer, (down, scale) in weights_of(os.path.join(checkpoint, "model.safetensors")).items():
    tensor = tensors[f"model.layers.{layer}.moe.experts.down_proj.weight"]
    load_external_data_for_tensor(tensor, exported)
    written, product = onnx.numpy_helper.to_array(tensor), down * scale[:, None, None]
    print(f"layer {layer}, {written.dtype}: {np.mean(written == rounded(product)):.2%} of the weights are the product rounded to bfloat16, "
          f"{np.mean(written == product):.2%} the product; relative RMS {np.linalg.norm(written - product) / np.linalg.norm(product):.1e}")
