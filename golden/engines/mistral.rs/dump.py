"""mistral.rs: the best tokens of each position with their log-probabilities. It takes text, so its tokenizer is one in which the id 17 is
the word t17; one request a position, the tokens up to it as the prompt, which passes whole or, with its cache of prefixes, token by token.
"""

import os

os.environ.setdefault("MISTRALRS_CPU_KV_F32", "1")  # the default on a CPU is a float16 cache
os.environ.setdefault("RUST_LOG", "error")

import importlib.metadata
import json
import shutil
import tempfile

import numpy as np
from mistralrs import ChatCompletionRequest, ModelDType, MultimodalArchitecture, Runner, Which

BEST = 20


def version():
    return importlib.metadata.version("mistralrs")


def words(checkpoint):
    """The checkpoint with that tokenizer, in a folder of its own."""
    folder = tempfile.mkdtemp()
    for name in os.listdir(checkpoint):
        if not name.startswith("tokenizer"):
            shutil.copy(os.path.join(checkpoint, name), folder)
    with open(os.path.join(checkpoint, "config.json"), encoding="utf-8") as f:
        vocabulary = json.load(f)["text_config"]["vocab_size"]
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
                 "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None,
                 "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
                 "model": {"type": "WordLevel", "vocab": {f"t{i}": i for i in range(vocabulary)}, "unk_token": "t3"}}
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(tokenizer, f)
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump({"bos_token": None, "eos_token": "t1", "chat_template": "{{ messages[0]['content'] }}"}, f)
    return folder


def load(checkpoint, dtype):
    kind = {"float32": ModelDType.F32, "bfloat16": ModelDType.BF16}[dtype]
    which = Which.MultimodalPlain(model_id=words(checkpoint), arch=MultimodalArchitecture.Gemma4, dtype=kind)
    return {prefixes: Runner(which, token_source="none", prefix_cache_n=prefixes) for prefixes in (0, 16)}


def best(runner, tokens):
    request = ChatCompletionRequest(model="default", messages=" ".join(f"t{i}" for i in tokens), max_tokens=1, temperature=0.0,
                                    logprobs=True, top_logprobs=BEST, ignore_eos=True)
    answer = runner.send_chat_completion_request(request)
    if answer.usage.prompt_tokens != len(tokens):
        raise RuntimeError(f"{len(tokens)} tokens became {answer.usage.prompt_tokens}")
    return sorted(answer.choices[0].logprobs.content[0].top_logprobs, key=lambda item: -item.logprob)


def run(runners, tokens, first_position, schedule):
    runner = runners[0 if len(schedule) == 1 else 16]
    rows = [best(runner, tokens[:end]) for end in range(1, len(tokens) + 1)]
    return {"logprobs.ids": np.array([[item.token for item in row] for row in rows], np.int32),
            "logprobs.values": np.array([[item.logprob for item in row] for row in rows], np.float32)}
