"""Is the difference of llama.cpp's activations its float16 table of GELU? Computed from its own gate and up, nothing else.

    python golden/engines/llama.cpp/confirm.py build/engines/llama.cpp.dumps/tiny-prompt.float32.whole.h5 [...]

ggml looks GELU up in a table: the argument rounded to float16, the result stored as float16 (GGML_GELU_FP16).
"""

import sys

import h5py
import numpy as np


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi).astype(np.float32) * x * (1 + np.float32(0.044715) * x * x)))


for path in sys.argv[1:]:
    exact = table = count = 0
    with h5py.File(path) as f:
        while f"ffn_geglu-{count}" in f:
            gate, up, act = (f[f"{node}-{count}"][()].astype(np.float32) for node in ("ffn_gate", "ffn_up", "ffn_geglu"))
            rounded = gelu(gate.astype(np.float16).astype(np.float32)).astype(np.float16).astype(np.float32)
            norm = np.linalg.norm(act)
            exact = max(exact, np.linalg.norm(gelu(gate) * up - act) / norm)
            table = max(table, np.linalg.norm(rounded * up - act) / norm)
            count += 1
    print(f"{path}: mlp.act of {count} layers: off by {exact:.1e} from GELU of its own gate times up, by {table:.1e} from the table's")
