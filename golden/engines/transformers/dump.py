"""Hugging Face transformers: every module's output by a forward hook."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from transformers import AutoModelForCausalLM, DynamicCache

torch.set_grad_enabled(False)


def version():
    return transformers.__version__


def load(checkpoint, dtype):
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=getattr(torch, dtype)).eval()


def run(model, tokens, first_position, schedule):
    found, length = {}, 0

    def keep(name):
        def hook(_module, _args, output):
            tensor = output[0] if isinstance(output, tuple) else output
            if isinstance(tensor, torch.Tensor):
                found.setdefault(name, []).append(tensor.reshape(length, -1).clone())

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in model.get_decoder().named_modules(prefix="model")
             if name != "model" and "rotary" not in name]
    cache, at = DynamicCache(config=model.config), 0
    for length in schedule:
        positions = torch.arange(first_position + at, first_position + at + length)[None]
        out = model(input_ids=torch.tensor([tokens[at:at + length]]), position_ids=positions, past_key_values=cache)
        found.setdefault("logits", []).append(out.logits[0])
        at += length
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(chunks).float().numpy() for name, chunks in found.items()}
