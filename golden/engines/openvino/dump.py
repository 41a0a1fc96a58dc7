"""OpenVINO: optimum-intel's export of the text model, in float32; logits of all positions, through the stateful cache."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import importlib.metadata

import numpy as np
import torch
from optimum.intel import OVModelForCausalLM


def version():
    return importlib.metadata.version("openvino") + ", optimum-intel " + importlib.metadata.version("optimum-intel")


def load(checkpoint, dtype):
    return OVModelForCausalLM.from_pretrained(checkpoint, export=True, load_in_8bit=False, device="CPU",
                                              ov_config={"INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[dtype],
                                                         "KV_CACHE_PRECISION": {"float32": "f32", "bfloat16": "bf16"}[dtype]})


def run(model, tokens, first_position, schedule):
    logits, cache, at = [], None, 0
    for length in schedule:
        positions = torch.arange(first_position + at, first_position + at + length)[None]
        out = model(input_ids=torch.tensor([tokens[at:at + length]]), attention_mask=torch.ones(1, at + length, dtype=torch.int64),
                    position_ids=positions, past_key_values=cache)
        logits.append(np.array(out.logits[0], np.float32))
        cache, at = out.past_key_values, at + length
    return {"logits": np.concatenate(logits)}
