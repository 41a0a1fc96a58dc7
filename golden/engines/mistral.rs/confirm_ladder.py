"""How far are the log-probabilities that mistral.rs shows on the ladder from those of transformers' logits (golden/ladder)?

    build/engines/mistral.rs/bin/python golden/engines/mistral.rs/confirm_ladder.py build/engines/mistral.rs.ladder/float32
"""

import glob
import os
import sys

import h5py
import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
for path in sorted(glob.glob(os.path.join(sys.argv[1], "*.h5"))):
    with h5py.File(path) as f, h5py.File(os.path.join(ROOT, "golden", "ladder", os.path.basename(path))) as golden:
        logits = golden["logits"][()].astype(np.float64)
        expected = np.take_along_axis(logits - np.log(np.exp(logits).sum(-1, keepdims=True)), f["logprobs/ids"][()].astype(int), -1)
        print(f"{os.path.basename(path)[:-3]:20s} {np.abs(f['logprobs/values'][()] - expected).max():.1e}")
