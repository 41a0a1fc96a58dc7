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
import urllib.request

import h5py
import numpy as np

from dump import best, id_of


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ladder", required=True, metavar="DIR", help="what gemma4-check ladder --out wrote")
    parser.add_argument("--checkpoint", required=True, help="the one that is served")
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--model", default="", help="the name by which the server knows the checkpoint (default: the first that it lists)")
    parser.add_argument("--dtype", required=True, help="the server's arithmetic")
    parser.add_argument("--best", type=int, default=20)
    parser.add_argument("--out", required=True, metavar="DIR")
    args = parser.parse_args()
    with open(os.path.join(args.ladder, "ladder.json"), encoding="utf-8") as f:
        rungs = [r for r in json.load(f)["rungs"] if r["checkpoint"] == args.checkpoint and r["first_position"] == 0]
    if not rungs:
        parser.error(f"--checkpoint: {args.ladder}/ladder.json has no rung of '{args.checkpoint}' that starts at position 0")
    with open(os.path.join(args.ladder, args.checkpoint, "tokenizer.json"), encoding="utf-8") as f:
        vocabulary = {text.replace("\u2581", " "): i for text, i in json.load(f)["model"]["vocab"].items()}
    if not args.model:
        with urllib.request.urlopen(args.url + "/models", timeout=60) as answer:
            args.model = json.load(answer)["data"][0]["id"]
    os.makedirs(args.out, exist_ok=True)
    for rung in rungs:
        ids, values, tokens = [], [], rung["tokens"]
        for end in range(1, len(tokens) + 1):
            row = sorted(best(args.url, args.model, tokens[:end], args.best), key=lambda item: -item[1])[:args.best]
            ids.append([id_of(token, vocabulary) for token, _ in row])
            values.append([value for _, value in row])
        with h5py.File(os.path.join(args.out, rung["rung"] + ".h5"), "w") as f:
            f.attrs.update({"format": "gemma4-activations", "format_version": 1, "engine": "server", "engine_version": args.model, "dtype": args.dtype,
                            "case": rung["rung"]})
            f["tokens"] = np.array(tokens, np.int32)
            f["logprobs/ids"] = np.array(ids, np.int32)
            f["logprobs/values"] = np.array(values, np.float32)
        print(f"{rung['rung']}: the {args.best} best of {len(tokens)} positions")


if __name__ == "__main__":
    main()
