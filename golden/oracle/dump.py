"""Dumps the taps of transformers' Gemma 4 to an activation file that gemma4-check reads: the example for your own engine.

    python dump.py --case ../cases/tiny-prompt.yaml --dtype bfloat16 --out mine.h5
    python dump.py --model DIR --tokens 2,17,5 --schedule 2,1 --attention sdpa --out mine.h5
    gemma4-check tiny-prompt mine.h5
    python dump.py --case ../cases/tiny-prompt.yaml --logprobs 20 --taps "logprobs.*" --out best.h5

What a dump script has to do, in any engine: feed the case's tokens, copy each tensor of the tap table after the engine's own
rounding, put the position first, and write the few root attributes below.
"""

import argparse
import fnmatch
import os
import sys

import torch
import transformers

import activations
import manifest
import model
import plant
import taps


def dump(directory, tokens, out, first_position=0, schedule=None, dtype="float32", attention="eager", pattern="*",
         fault=None, layers=None, case_id=None, logprobs=None):
    """Runs one model and writes one activation file; returns the number of taps written."""
    m = model.load(directory, dtype, attention)
    if fault:
        plant.plant(m, fault, layers)
    recorded = taps.run(m, tokens, first_position, schedule, strict=fault is None)
    if logprobs:
        recorded.update(best_logprobs(recorded["logits"], logprobs))
    wanted = {name: tensor for name, tensor in recorded.items()
              if name in ("tokens", "positions") or fnmatch.fnmatchcase(name, pattern)}
    if fault:
        wanted = plant.held(fault, wanted)
    if len(wanted) == 2:
        raise ValueError(f"--taps {pattern}: no tap has such a name")

    attributes = {
        "engine": "transformers",
        "engine_version": transformers.__version__,
        "dtype": dtype,
        "attention": attention,
        "schedule": ",".join(str(n) for n in schedule or [len(tokens)]),
    }
    if case_id:
        attributes["case"] = case_id
    weights = os.path.join(directory, "model.safetensors")
    if os.path.exists(weights):
        attributes["checkpoint_sha256"] = manifest.sha256(weights)
    if fault:
        attributes["planted"] = fault
    activations.write_activations(out, wanted, attributes)
    return len(wanted)


def best_logprobs(logits, count):
    """The count best tokens of each position with their natural logarithms of probabilities, as a server shows them: in float32."""
    values, ids = torch.topk(torch.log_softmax(logits.float(), dim=-1), count, dim=-1)
    return {"logprobs.ids": ids.to(torch.int32), "logprobs.values": values}


def integers(text):
    """2,17,5 -> [2, 17, 5]"""
    return [int(part) for part in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", metavar="MANIFEST", help="takes checkpoint, tokens and first position from a manifest")
    parser.add_argument("--model", metavar="DIR", help="checkpoint directory (with --case: in place of the case's own)")
    parser.add_argument("--tokens", type=integers, metavar="2,17,...")
    parser.add_argument("--first-position", type=int, metavar="P", help="absolute position of the first token (default: 0)")
    parser.add_argument("--schedule", type=integers, metavar="5,1,1", help="chunk lengths (default: all at once)")
    parser.add_argument("--dtype", choices=sorted(model.DTYPES), default="float32")
    parser.add_argument("--attention", choices=["eager", "sdpa"], default="eager")
    parser.add_argument("--taps", metavar="GLOB", default="*", help="only taps whose names match")
    parser.add_argument("--logprobs", type=int, metavar="N", help="also the N best log-probabilities of each position")
    parser.add_argument("--plant", metavar="FAULT", choices=sorted(plant.FAULTS), help="plants a known mistake")
    parser.add_argument("--layers", type=integers, metavar="0,5", help="with --plant: only in these layers")
    parser.add_argument("--out", metavar="FILE.h5", required=True)
    args = parser.parse_args()

    directory, tokens, first, case_id = args.model, args.tokens, args.first_position or 0, None
    if args.case:
        if args.tokens or args.first_position is not None:
            parser.error("--case already says --tokens and --first-position")
        case = manifest.read(args.case)
        tokens, first, case_id = case["tokens"], case["first_position"], case["id"]
        directory = args.model or manifest.checkpoint_directory(case)
    if not directory or not tokens:
        parser.error("--case, or --model and --tokens")

    try:
        count = dump(directory, tokens, args.out, first, args.schedule, args.dtype, args.attention, args.taps, args.plant,
                     args.layers, case_id, args.logprobs)
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"dump: {type(error).__name__}: {error}")
    print(f"{args.out}: {count} taps of {len(tokens)} positions")


if __name__ == "__main__":
    main()
