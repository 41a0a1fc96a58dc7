"""Random blocks of every ggml type that ref/blocks.c reads, and what the Python package gguf makes of them: golden/gguf/blocks.safetensors.

    python3 -m venv build/gguf && build/gguf/bin/pip install gguf==0.19.0
    build/gguf/bin/python golden/gguf/make_blocks.py

Per type TYPE.blocks (the bytes) and TYPE.values (float32). The bytes are drawn from a seed. Only the 16-bit scales are drawn apart: finite,
of either sign, some of them subnormal, for a random one may be an infinity; so are MXFP4's exponents. The first block of every type has all bits of its values set.
"""

import json
import os
import struct

import gguf
import numpy as np

# offsets of a block's 16-bit scales
SCALES = {
    "F32": [], "F16": [], "BF16": [], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": [], "NVFP4": [],
}
PLAIN = {"F32": np.float32, "F16": np.float16, "BF16": None}
OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "blocks.safetensors")


def half(random, n):
    """Finite f16: exponents from subnormal to 2^4."""
    return (random.integers(0, 20, n, np.uint16) << 10 | random.integers(0, 1024, n, np.uint16) | random.integers(0, 2, n, np.uint16) << 15)


def blocks_of(random, name):
    kind = gguf.GGMLQuantizationType[name]
    values, size = gguf.GGML_QUANT_SIZES[kind]
    count = 64 if values == 1 else 8 if values < 256 else 4
    if name == "F32":
        return kind, random.standard_normal(count).astype(np.float32).view(np.uint8).reshape(count, size)
    if name == "F16":
        return kind, half(random, count).view(np.uint8).reshape(count, size)
    if name == "BF16":
        return kind, (random.standard_normal(count).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8).reshape(count, size)
    blocks = random.integers(0, 256, (count, size), np.uint8)
    blocks[0] = 255
    for at in SCALES[name]:
        blocks[:, at:at + 2] = half(random, count).view(np.uint8).reshape(count, 2)
    if name == "MXFP4":  # exponents: the two that ggml treats apart, and none so large that a product is infinite
        blocks[:, 0] = [250, 0, 1, 2, 100, 127, 128, 140]
    return kind, blocks


def main():
    random = np.random.default_rng(4)
    header, data = {"__metadata__": {"gguf": "0.19.0"}}, b""
    for name in SCALES:
        kind, blocks = blocks_of(random, name)
        values = gguf.quants.dequantize(blocks, kind).astype(np.float32).ravel()
        assert np.isfinite(values).all(), name
        for key, dtype, array in ((f"{name}.values", "F32", values), (f"{name}.blocks", "U8", blocks.ravel())):
            raw = array.tobytes()
            header[key] = {"dtype": dtype, "shape": [array.size], "data_offsets": [len(data), len(data) + len(raw)]}
            data += raw
            pad = -len(data) % 4
            if pad:  # floats lie at multiples of 4; the format allows no holes
                header[key + ".padding"] = {"dtype": "U8", "shape": [pad], "data_offsets": [len(data), len(data) + pad]}
                data += bytes(pad)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(OUT, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


main()
