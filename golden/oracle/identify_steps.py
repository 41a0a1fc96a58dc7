"""Any step of transformers' Gemma 4 changed from outside: its result, its input or its weight, in some layers and some chunks.

A step is called by the tap that shows its result. What changes here is seen by taps.py, which is attached afterwards: a changed result
is in the step's own tap, a changed input is not in the tap of the step that it comes from.
"""

import dataclasses
import types

import torch
from transformers.models.gemma4 import modeling_gemma4

import plant_rope
import plant_router
import seams

ALL, LATER, DECODE = "all", "after the first chunk", "decode"

# The module whose output a tap is.
MODULES = {
    "attn.norm": "input_layernorm", "attn.q": "self_attn.q_proj", "attn.k": "self_attn.k_proj", "attn.v": "self_attn.v_proj",
    "attn.q_norm": "self_attn.q_norm", "attn.k_norm": "self_attn.k_norm", "attn.v_norm": "self_attn.v_norm",
    "attn.out": "self_attn.o_proj", "attn.post_norm": "post_attention_layernorm",
    "mlp.norm": "pre_feedforward_layernorm", "mlp.gate": "mlp.gate_proj", "mlp.up": "mlp.up_proj", "mlp.out": "mlp.down_proj",
    "mlp.post_norm": "post_feedforward_layernorm_1", "router.logits": "router.proj", "moe.norm": "pre_feedforward_layernorm_2",
    "moe.out": "experts", "moe.post_norm": "post_feedforward_layernorm_2", "ffn.post_norm": "post_feedforward_layernorm",
}
OUTSIDE = ("embed", "final_norm", "logits_raw", "logits")

# A weight's field: the module that holds it, its name there, the tap at which it acts first.
TENSORS = {
    "input_layernorm": ("input_layernorm", "weight", "attn.norm"),
    "q_proj": ("self_attn.q_proj", "weight", "attn.q"),
    "k_proj": ("self_attn.k_proj", "weight", "attn.k"),
    "v_proj": ("self_attn.v_proj", "weight", "attn.v"),
    "o_proj": ("self_attn.o_proj", "weight", "attn.out"),
    "q_norm": ("self_attn.q_norm", "weight", "attn.q_norm"),
    "k_norm": ("self_attn.k_norm", "weight", "attn.k_norm"),
    "post_attention_layernorm": ("post_attention_layernorm", "weight", "attn.post_norm"),
    "pre_feedforward_layernorm": ("pre_feedforward_layernorm", "weight", "mlp.norm"),
    "gate_proj": ("mlp.gate_proj", "weight", "mlp.gate"),
    "up_proj": ("mlp.up_proj", "weight", "mlp.up"),
    "down_proj": ("mlp.down_proj", "weight", "mlp.out"),
    "post_feedforward_layernorm_1": ("post_feedforward_layernorm_1", "weight", "mlp.post_norm"),
    "router.proj": ("router.proj", "weight", "router.logits"),
    "router.scale": ("router", "scale", "router.norm"),
    "router.per_expert_scale": ("router", "per_expert_scale", "router.topk_weights"),
    "pre_feedforward_layernorm_2": ("pre_feedforward_layernorm_2", "weight", "moe.norm"),
    "experts.gate_up_proj": ("experts", "gate_up_proj", "moe.act"),
    "experts.down_proj": ("experts", "down_proj", "moe.out"),
    "post_feedforward_layernorm_2": ("post_feedforward_layernorm_2", "weight", "moe.post_norm"),
    "post_feedforward_layernorm": ("post_feedforward_layernorm", "weight", "ffn.post_norm"),
    "layer_scalar": ("", "layer_scalar", "output"),
}


@dataclasses.dataclass(frozen=True)
class Scope:
    """Where a fault acts: in these layers, in chunks of this kind."""

    layers: tuple
    when: str = ALL

    def chosen(self, model):
        return [model.model.layers[i] for i in self.layers]

    def acts(self, model):
        """A function: does it act in the present chunk?"""
        if self.when == ALL:
            return lambda: True
        watch_chunks(model)
        if self.when == LATER:
            return lambda: model.chunk_begin > 0
        return lambda: model.chunk_begin > 0 and model.chunk_length == 1

    def __str__(self):
        return f"layers {','.join(map(str, self.layers))}" + (f", {self.when}" if self.when != ALL else "")


def watch_chunks(model):
    """The model knows where its present chunk begins and how long it is."""

    def keep(_model, _args, kwargs):
        model.chunk_begin = kwargs["past_key_values"].get_seq_length()
        model.chunk_length = kwargs["input_ids"].shape[1]

    model.register_forward_pre_hook(keep, with_kwargs=True)


def module_at(layer, path):
    for name in path.split(".") if path else ():
        layer = getattr(layer, name)
    return layer


# --- results --------------------------------------------------------------------------------------------------------------


def change_result(model, scope, tap, change):
    """change(layer, x) -> what the step gives instead of x; layer is None outside the layers."""
    acts = scope.acts(model)

    def changed(layer):
        return lambda x: change(layer, x).to(x.dtype) if acts() else x

    if tap in OUTSIDE:
        change_outside(model, tap, changed(None))
        return
    for layer in scope.chosen(model):
        if tap in MODULES:
            after(module_at(layer, MODULES[tap]), changed(layer))
        else:
            BETWEEN_MODULES[tap](layer, changed(layer))


def after(module, change):
    """The module's output goes through `change`."""
    if module is not None:
        original = module.forward
        module.forward = lambda *args, **kwargs: change(original(*args, **kwargs))


def change_outside(model, tap, change):
    if tap == "logits":
        def cap(_model, _args, output):
            output.logits = change(output.logits)
            return output

        model.register_forward_hook(cap)
    else:
        after({"embed": model.model.embed_tokens, "final_norm": model.model.norm, "logits_raw": model.lm_head}[tap], change)


def before(module, change):
    """The module's first argument goes through `change`, where a tap sees it."""
    module.register_forward_pre_hook(lambda _m, args: (change(args[0]), *args[1:]))


def change_q_rope(layer, change):
    plant_rope.rotate_queries_and_keys_differently(
        layer, lambda x, cos, sin: change(plant_rope.right_rotation(x, cos, sin)), plant_rope.right_rotation)


def change_k_rope(layer, change):
    plant_rope.rotate_queries_and_keys_differently(
        layer, plant_rope.right_rotation, lambda x, cos, sin: change(plant_rope.right_rotation(x, cos, sin)))


def attend(layer, scores=None, probs=None, context=None):
    """Eager attention with any step changed: scores [1,H,chunk,n] before the mask, probs, context [1,chunk,H,D]."""

    def attention(module, query, key, value, mask, scaling):
        key, value = (modeling_gemma4.repeat_kv(t, module.num_key_value_groups) for t in (key, value))
        s = torch.matmul(query, key.transpose(2, 3)) * scaling
        s = scores(s) if scores else s
        p = torch.softmax(s if mask is None else s + mask, dim=-1, dtype=torch.float32).to(query.dtype)
        p = probs(p) if probs else p
        c = torch.matmul(p, value).transpose(1, 2).contiguous()
        return context(c) if context else c, p, s

    seams.replace_attention(layer, attention)


def change_attn_residual(layer, change):
    """In place: the stream that the norm and the router read, and to which the layer adds at its end."""

    def overwrite(_norm, args):
        args[0].copy_(change(args[0]))

    layer.pre_feedforward_layernorm.register_forward_pre_hook(overwrite)


def change_ffn_residual(layer, change):
    """change(r + y), by what r must be beforehand."""
    held = {}
    layer.pre_feedforward_layernorm.register_forward_pre_hook(lambda _m, args: held.update(r=args[0]))

    def prepare(_m, _args, y):
        held["r"].copy_(change(held["r"] + y) - y)

    layer.post_feedforward_layernorm.register_forward_hook(prepare)


def change_mlp_act(layer, change):
    before(layer.mlp.down_proj, change)


def change_moe_act(layer, change):
    original = layer.experts._apply_gate
    layer.experts._apply_gate = lambda gate_up: change(original(gate_up))


def change_output(layer, change):
    layer.register_forward_hook(lambda _m, _args, h: change(h))


def change_topk_norm(layer, change):
    def route(router, probs, best, ids):
        weights = change(plant_router.normalised(best))
        return weights, weights * router.per_expert_scale[ids], ids

    plant_router.replace_routing([layer], route)


def change_topk_weights(layer, change):
    def route(router, probs, best, ids):
        weights = plant_router.normalised(best)
        return weights, change(weights * router.per_expert_scale[ids]), ids

    plant_router.replace_routing([layer], route)


BETWEEN_MODULES = {
    "attn.q_rope": change_q_rope, "attn.k_rope": change_k_rope,
    "attn.scores": lambda layer, change: attend(layer, scores=change),
    "attn.probs": lambda layer, change: attend(layer, probs=change),
    "attn.context": lambda layer, change: attend(layer, context=change),
    "attn.residual": change_attn_residual, "mlp.act": change_mlp_act,
    "router.norm": lambda layer, change: before(layer.router.proj, change),
    "router.topk_norm": change_topk_norm, "router.topk_weights": change_topk_weights,
    "moe.act": change_moe_act,
    "ffn.sum": lambda layer, change: before(layer.post_feedforward_layernorm, change),
    "ffn.residual": change_ffn_residual, "output": change_output,
}


# --- inputs ---------------------------------------------------------------------------------------------------------------

# Steps whose module reads one tensor, beside those of MODULES.
READERS = {**MODULES, "router.norm": "router.norm", "moe.act": "experts"}
READERS.pop("moe.out")


def change_input(model, scope, tap, change):
    """change(layer, x) -> what the step reads instead of x."""
    acts = scope.acts(model)
    for layer in scope.chosen(model):
        module = module_at(layer, READERS[tap])
        if module is None:
            continue
        original = module.forward
        module.forward = lambda x, *rest, original=original, layer=layer: original(
            change(layer, x).to(x.dtype) if acts() else x, *rest)


# --- weights --------------------------------------------------------------------------------------------------------------


def weight_of(layer, field):
    """The tensor, or None where the layer has none."""
    path, name, _ = TENSORS[field]
    module = module_at(layer, path)
    return None if module is None else getattr(module, name)


def change_weight(model, scope, field, change):
    """change(layer, weight) -> the weight that the engine uses; all are computed before any is replaced."""
    acts = scope.acts(model)
    holders = [(layer, weight_of(layer, field)) for layer in scope.chosen(model)]
    changed = [(layer, weight, change(layer, weight.clone()).to(weight.dtype).reshape(weight.shape).contiguous())
               for layer, weight in holders if weight is not None]
    for layer, weight, other in changed:
        if scope.when == ALL:
            weight.data.copy_(other)
        else:
            use_by_turns(module_at(layer, TENSORS[field][0]), weight, other, acts)


def use_by_turns(module, weight, other, acts):
    own = weight.data.clone()

    def load(_module, _args):
        weight.data.copy_(other if acts() else own)

    module.register_forward_pre_hook(load)


def replace_method(module, forward):
    """forward(module, x) in place of the module's own."""
    module.forward = types.MethodType(forward, module)
