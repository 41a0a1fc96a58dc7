"""Makes the goldens of the ladder's rungs from the published implementation, or verifies them.

    python ladder_golden.py --ladder build/ladder            golden/ladder/RUNG.h5, and the digests in RUNG.yaml
    python ladder_golden.py --ladder build/ladder --verify   computes the logits afresh and compares

build/ladder is what gemma4-check ladder --out writes. A golden is the logits in float32, eager attention, whole prefill.
"""

import argparse
import os
import sys

import numpy as np
import torch
import transformers

import activations
import ladder
import make_golden
import manifest
import taps

RUNGS = os.path.join(manifest.REPOSITORY, "golden", "ladder")


def compute(m, rung):
    """{tap: tensor} of a rung's golden."""
    count, first = len(rung["tokens"]), rung["first_position"]
    logits = taps.forward(m, rung["tokens"], first, [count])
    return {"tokens": torch.tensor(rung["tokens"], dtype=torch.int32), "positions": first + torch.arange(count, dtype=torch.int32), "logits": logits}


def facts_of(directory):
    return {f"checkpoint.{key}": manifest.sha256(os.path.join(directory, file))
            for key, file in (("sha256", "model.safetensors"), ("config_sha256", "config.json"))}


def make(rung, computed, facts):
    path, golden = (os.path.join(RUNGS, rung["rung"] + ending) for ending in (".yaml", ".h5"))
    root = {"engine": "transformers", "engine_version": transformers.__version__, "torch_version": str(torch.__version__), "dtype": "float32",
            "attention": "eager", "schedule": str(len(rung["tokens"])), "case": rung["rung"], "checkpoint_sha256": facts["checkpoint.sha256"]}
    activations.write_activations(golden, computed, root)
    with open(path, encoding="utf-8") as f:
        text = f.read()
    for key, value in {**facts, "golden.sha256": manifest.sha256(golden)}.items():
        text = manifest.rewrite(text, key, value)
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.write(text)


def verify(rung, computed, facts):
    """Raises Mismatch where what is stored is not what is computed; returns the relative RMS between both."""
    path = os.path.join(RUNGS, rung["rung"])
    case = manifest.read(path + ".yaml")
    for key, value in {**facts, "golden.sha256": manifest.sha256(path + ".h5")}.items():
        section, name = key.split(".")
        if case[section][name] != value:
            raise make_golden.Mismatch(f"{key}: the manifest says {case[section][name]}, computed {value}")
    stored = activations.read_activations(path + ".h5")[0]["logits"].astype(np.float64)
    fresh = computed["logits"].numpy().astype(np.float64)
    error = np.sqrt(np.sum((stored - fresh) ** 2) / np.sum(fresh ** 2))
    if not error <= make_golden.VERIFY_RELATIVE_RMS:  # NaN fails
        raise make_golden.Mismatch(f"logits: relative RMS {error:.2e} > {make_golden.VERIFY_RELATIVE_RMS:.0e}")
    return error


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ladder", required=True, metavar="DIR")
    parser.add_argument("--verify", action="store_true", help="compare instead of writing")
    args = parser.parse_args()
    models, failed, worst = ladder.load(args.ladder, "float32"), 0, 0.0
    for rung in ladder.rungs(args.ladder):
        try:
            computed = compute(models[rung["checkpoint"]], rung)
            facts = facts_of(os.path.join(args.ladder, rung["checkpoint"]))
            if args.verify:
                worst = max(worst, verify(rung, computed, facts))
            else:
                make(rung, computed, facts)
        except (make_golden.Mismatch, OSError, ValueError, KeyError, RuntimeError) as error:
            failed += 1
            print(f"FAIL  {rung['rung']}: {type(error).__name__}: {error}", flush=True)
    done = f"verified, worst relative RMS {worst:.1e}" if args.verify else "made"
    print(f"{done}: {len(ladder.rungs(args.ladder)) - failed} rungs, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
