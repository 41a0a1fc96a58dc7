"""Hugging Face transformers: every module's output by a forward hook."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from transformers import AutoModelForCausalLM, DynamicCache

torch.set_grad_enabled(False)

# module below model.layers.N -> tap
MODULES = {
    "input_layernorm": "attn.norm", "self_attn.q_proj": "attn.q", "self_attn.k_proj": "attn.k", "self_attn.v_proj": "attn.v",
    "self_attn.q_norm": "attn.q_norm", "self_attn.k_norm": "attn.k_norm", "self_attn.v_norm": "attn.v_norm",
    "self_attn.o_proj": "attn.out", "post_attention_layernorm": "attn.post_norm", "pre_feedforward_layernorm": "mlp.norm",
    "mlp.gate_proj": "mlp.gate", "mlp.up_proj": "mlp.up", "mlp": "mlp.out", "post_feedforward_layernorm_1": "mlp.post_norm",
    "router.proj": "router.logits", "pre_feedforward_layernorm_2": "moe.norm", "experts": "moe.out",
    "post_feedforward_layernorm_2": "moe.post_norm", "post_feedforward_layernorm": "ffn.post_norm", "": "output",
}


def version():
    return transformers.__version__


def load(checkpoint, dtype):
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=getattr(torch, dtype)).eval()


def run(model, tokens, first_position, schedule):
    taps = {}

    def keep(tap):
        def hook(_module, _args, output):
            tensor = output[0] if isinstance(output, tuple) else output
            taps.setdefault(tap, []).append(tensor.reshape(length, -1).clone())
        return hook


    decoder = model.get_decoder()
    hooks = [decoder.embed_tokens.register_forward_hook(keep("embed")), decoder.norm.register_forward_hook(keep("final_norm"))]
    for n, layer in enumerate(decoder.layers):
        for name, module in layer.named_modules():
            if name in MODULES:
                hooks.append(module.register_forward_hook(keep(f"layers.{n}.{MODULES[name]}")))
    cache, at = DynamicCache(config=model.config), 0
    for length in schedule:
        positions = torch.arange(first_position + at, first_position + at + length)[None]
        out = model(input_ids=torch.tensor([tokens[at:at + length]]), position_ids=positions, past_key_values=cache)
        taps.setdefault("logits", []).append(out.logits[0])
        at += length
    for hook in hooks:
        hook.remove()
    return {tap: torch.cat(chunks).float().numpy() for tap, chunks in taps.items()}
