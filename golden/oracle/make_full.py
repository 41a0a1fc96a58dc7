"""Makes the golden at the true dimensions: two layers of the published shape, from transformers in float32.

    python make_full.py --model build/checkpoints/26b-a4b-2             writes golden/full/26b-a4b-2.h5
    python make_full.py --model build/checkpoints/26b-a4b-2 --synth     also writes the checkpoint afresh in Python: the same bytes?

The checkpoint (3.3 GB) is a function of its seed (gemma4-ref synth); only activations are stored, a few taps of a few positions. Needs
10 GB of memory and 3.3 GB of disk, twice that with --synth.
"""

import argparse
import fnmatch
import json
import os
import sys
import tempfile

import torch
import transformers

import activations
import manifest
import model
import synth
import taps

TOKENS = [2, 17, 4001, 8191, 77, 1234]
KEPT = ["tokens", "positions", "layers.*.attn.residual", "layers.*.router.topk_ids", "layers.*.output", "logits"]
SEED = 1


def same_bytes_in_python(directory):
    """Whether synth.py writes the checkpoint's bytes, too."""
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(directory))) as scratch:
        path = synth.write_checkpoint(config, SEED, scratch)
        return manifest.sha256(path) == manifest.sha256(os.path.join(directory, "model.safetensors"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", metavar="DIR", required=True)
    parser.add_argument("--synth", action="store_true", help="compare the checkpoint's bytes with synth.py's")
    parser.add_argument("--out", metavar="FILE.h5", default=os.path.join(os.path.dirname(manifest.CASES), "full", "26b-a4b-2.h5"))
    args = parser.parse_args()
    if args.synth and not same_bytes_in_python(args.model):
        sys.exit(f"make_full: {args.model}/model.safetensors: other bytes than synth.py writes")

    computed = taps.run(model.load(args.model, "float32", "eager"), TOKENS)
    gap, layer, position = taps.smallest_gap(computed, 2, 8)
    kept = {n: t for n, t in computed.items() if any(fnmatch.fnmatchcase(n, p) for p in KEPT)}
    os.makedirs(os.path.dirname(args.out), exist_ok=True)
    activations.write_activations(args.out, kept, {
        "engine": "transformers", "engine_version": transformers.__version__, "torch_version": str(torch.__version__),
        "dtype": "float32", "attention": "eager", "schedule": str(len(TOKENS)),
        "checkpoint_sha256": manifest.sha256(os.path.join(args.model, "model.safetensors")),
    })
    print(f"{args.out}: {len(kept)} taps, {os.path.getsize(args.out)} bytes, smallest gap {gap:.2e} at layer {layer}, position {position}"
          + (", checkpoint the same in Python" if args.synth else ""))


if __name__ == "__main__":
    main()
