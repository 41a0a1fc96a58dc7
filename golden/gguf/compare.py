"""Does `gemma4-ref dequantise` write what the Python package gguf reads? Bit for bit, every tensor of a GGUF file.

    build/gemma4-ref dequantise FILE.gguf OUT && build/gguf/bin/python golden/gguf/compare.py FILE.gguf OUT/model.safetensors

Names are not compared: what is written must be there, as often, in the file. gate and up of the experts may be two tensors in the file.
"""

import collections
import hashlib
import json
import sys

import gguf
import numpy as np

reader = gguf.GGUFReader(sys.argv[1])
tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32).reshape(t.shape[::-1].tolist()) for t in reader.tensors
           if t.name != "rope_freqs.weight"}
for name in [n for n in tensors if ".ffn_gate_exps.weight" in n]:
    tensors[name.replace("gate", "gate_up")] = np.concatenate([tensors.pop(name), tensors.pop(name.replace("gate", "up"))], axis=1)
expected = collections.Counter(hashlib.sha256(np.ascontiguousarray(t).tobytes()).hexdigest() for t in tensors.values())

found = collections.Counter()
with open(sys.argv[2], "rb") as f:
    length = int.from_bytes(f.read(8), "little")
    header = json.loads(f.read(length))
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        f.seek(8 + length + begin)
        data = f.read(end - begin)
        if entry["dtype"] == "F16":
            data = np.frombuffer(data, np.float16).astype(np.float32).tobytes()
        elif entry["dtype"] == "BF16":
            data = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).tobytes()
        found[hashlib.sha256(data).hexdigest()] += 1
types = collections.Counter(t.tensor_type.name for t in reader.tensors)
print(f"{sum((expected & found).values())} of {sum(expected.values())} tensors are the same bits; types {dict(types)}")
sys.exit(expected != found)
