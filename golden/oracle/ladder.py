"""Runs transformers up the ladder (spec/ladder.md): the example for your own engine.

    gemma4-check ladder --out build/ladder
    python ladder.py --ladder build/ladder --dtype bfloat16 --out build/mine
    gemma4-check ladder build/mine

What such a script has to do, in any engine: read ladder.json; for each rung load the folder of its checkpoint, feed its tokens, and write the
logits (or, with --logprobs 20, what an API shows of them) to RUNG.h5.
"""

import argparse
import copy
import json
import os
import sys

import torch
import transformers

import activations
import dump
import model
import plant
import taps


def rungs(ladder):
    """The list of ladder.json."""
    with open(os.path.join(ladder, "ladder.json"), encoding="utf-8") as f:
        return json.load(f)["rungs"]


def load(ladder, dtype, attention="eager"):
    """{checkpoint: model} of all rungs."""
    names = dict.fromkeys(rung["checkpoint"] for rung in rungs(ladder))
    return {name: model.load(os.path.join(ladder, name), dtype, attention) for name in names}


def logits_of(m, rung, faults=()):
    """The logits [T, V] of one rung, of a copy of the model with mistakes in it. A fault that cannot act there is left out."""
    if faults:
        m = copy.deepcopy(m)
    for fault in faults:
        if plant.chosen(m, fault):
            plant.plant(m, fault)
    return taps.forward(m, rung["tokens"], rung["first_position"], rung["schedule"])


def write(path, rung, logits, dtype, logprobs=None):
    """One rung's dump: the logits, or their best log-probabilities."""
    count, first = len(rung["tokens"]), rung["first_position"]
    held = {"tokens": torch.tensor(rung["tokens"], dtype=torch.int32), "positions": first + torch.arange(count, dtype=torch.int32)}
    held.update(dump.best_logprobs(logits, logprobs) if logprobs else {"logits": logits})
    root = {"engine": "transformers", "engine_version": transformers.__version__, "dtype": dtype, "case": rung["rung"],
            "schedule": ",".join(str(n) for n in rung["schedule"])}
    activations.write_activations(path, held, root, compress=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ladder", required=True, metavar="DIR", help="what gemma4-check ladder --out wrote")
    parser.add_argument("--dtype", choices=sorted(model.DTYPES), default="float32")
    parser.add_argument("--attention", choices=["eager", "sdpa"], default="eager")
    parser.add_argument("--logprobs", type=int, metavar="N", help="only the N best log-probabilities of each position")
    parser.add_argument("--plant", metavar="FAULT", action="append", default=[], choices=sorted(plant.FAULTS), help="plants a known mistake; several: all of them")
    parser.add_argument("--out", required=True, metavar="DIR")
    args = parser.parse_args()
    try:
        os.makedirs(args.out, exist_ok=True)
        models = load(args.ladder, args.dtype, args.attention)
        for rung in rungs(args.ladder):
            logits = logits_of(models[rung["checkpoint"]], rung, args.plant)
            write(os.path.join(args.out, rung["rung"] + ".h5"), rung, logits, args.dtype, args.logprobs)
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"ladder: {type(error).__name__}: {error}")
    print(f"{args.out}: {len(rungs(args.ladder))} rungs")


if __name__ == "__main__":
    main()
