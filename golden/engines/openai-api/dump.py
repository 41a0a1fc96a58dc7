"""Any server with an OpenAI-style API that takes token ids as the prompt and returns log-probabilities.

    python golden/engines/openai-api/dump.py --url http://127.0.0.1:8000/v1 --case tiny-prompt --dtype bfloat16 --out mine.h5
    build/gemma4-check tiny-prompt mine.h5

One request a position: the tokens up to it as the prompt, one new token, its N best log-probabilities with their ids. So every position
is judged, and a server that caches prefixes is fed through its cache. Ids are read from "token_id:N" where the server can say them
(vLLM: --return-tokens-as-token-ids), else from the synthetic tokenizer, in which every token has one text.
"""

import argparse
import json
import os
import urllib.request

import h5py
import numpy as np
import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def best(url, model, tokens, n):
    """[(token text, log-probability)] of the position behind tokens."""
    body = {"model": model, "prompt": tokens, "max_tokens": 1, "temperature": 0, "logprobs": n, "return_tokens_as_token_ids": True}
    request = urllib.request.Request(url + "/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        choice = json.load(answer)["choices"][0]["logprobs"]
    if choice.get("top_logprobs"):
        return list(choice["top_logprobs"][0].items())
    return [(c.get("id", c["token"]), c["logprob"]) for c in choice["content"][0]["top_logprobs"]]  # llama-server


def id_of(token, vocabulary):
    if isinstance(token, int):
        return token
    return int(token.removeprefix("token_id:")) if token.startswith("token_id:") else vocabulary[token]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--model", default="", help="the name by which the server knows the checkpoint (default: the first that it lists)")
    parser.add_argument("--case", required=True)
    parser.add_argument("--dtype", required=True, help="the server's arithmetic")
    parser.add_argument("--best", type=int, default=20)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    with open(os.path.join(ROOT, "golden", "cases", args.case + ".yaml"), encoding="utf-8") as f:
        case = yaml.safe_load(f)
    if case["first_position"]:
        parser.error(f"{args.case}: starts at position {case['first_position']}; a server starts at 0")
    with open(os.path.join(ROOT, "build", "checkpoints", case["checkpoint"]["name"], "tokenizer.json"), encoding="utf-8") as f:
        vocabulary = {text.replace("\u2581", " "): i for text, i in json.load(f)["model"]["vocab"].items()}
    if not args.model:
        with urllib.request.urlopen(args.url + "/models", timeout=60) as answer:
            args.model = json.load(answer)["data"][0]["id"]
    ids, values, tokens = [], [], case["tokens"]
    for end in range(1, len(tokens) + 1):
        row = sorted(best(args.url, args.model, tokens[:end], args.best), key=lambda item: -item[1])[:args.best]
        ids.append([id_of(token, vocabulary) for token, _ in row])
        values.append([value for _, value in row])
    with h5py.File(args.out, "w") as f:
        f.attrs.update({"format": "gemma4-activations", "format_version": 1, "engine": "server", "engine_version": args.model,
                        "dtype": args.dtype, "case": args.case})
        f["tokens"] = np.array(tokens, np.int32)
        f["logprobs/ids"] = np.array(ids, np.int32)
        f["logprobs/values"] = np.array(values, np.float32)
    print(f"{args.out}: the {args.best} best of {len(tokens)} positions")


if __name__ == "__main__":
    main()
