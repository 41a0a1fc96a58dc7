"""The ladder (spec/ladder.md) for any server with an OpenAI-style API that takes token ids and returns log-probabilities.

    gemma4-check ladder --out build/ladder
    # serve build/ladder/ladder-full, then:
    python golden/engines/openai-api/ladder.py --ladder build/ladder --checkpoint ladder-full --url http://127.0.0.1:8000/v1 --dtype bfloat16 --out build/mine
    # and so on for each checkpoint that ladder.json names
    gemma4-check ladder build/mine

A server serves one checkpoint: this asks it for the rungs of that one. One request a position, as in dump.py beside this file. Rungs that start behind
position 0 cannot be asked for, and are left out.
"""

import argparse
import json
import os

import h5py
import numpy as np

from dump import BEST, best_of_each, first_model, vocabulary_of


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ladder", required=True, metavar="DIR", help="what gemma4-check ladder --out wrote")
    parser.add_argument("--checkpoint", required=True, help="the one that is served")
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--model", default="", help="the name by which the server knows the checkpoint (default: the first that it lists)")
    parser.add_argument("--dtype", required=True, help="the server's arithmetic")
    parser.add_argument("--best", type=int, default=BEST)
    parser.add_argument("--out", required=True, metavar="DIR")
    args = parser.parse_args()
    with open(os.path.join(args.ladder, "ladder.json"), encoding="utf-8") as f:
        rungs = [r for r in json.load(f)["rungs"] if r["checkpoint"] == args.checkpoint and r["first_position"] == 0]
    if not rungs:
        parser.error(f"--checkpoint: {args.ladder}/ladder.json has no rung of '{args.checkpoint}' that starts at position 0")
    vocabulary, model = vocabulary_of(os.path.join(args.ladder, args.checkpoint)), args.model or first_model(args.url)
    os.makedirs(args.out, exist_ok=True)
    for rung in rungs:
        tokens = rung["tokens"]
        ids, values = best_of_each(args.url, model, vocabulary, tokens, args.best)
        with h5py.File(os.path.join(args.out, rung["rung"] + ".h5"), "w") as f:
            f.attrs.update({"format": "gemma4-activations", "format_version": 1, "engine": "server", "engine_version": model, "dtype": args.dtype,
                            "case": rung["rung"]})
            f["tokens"] = np.array(tokens, np.int32)
            f["logprobs/ids"] = ids
            f["logprobs/values"] = values
        print(f"{rung['rung']}: the {args.best} best of {len(tokens)} positions")


if __name__ == "__main__":
    main()
