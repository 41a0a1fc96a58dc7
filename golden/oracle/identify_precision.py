"""Drawn faults of precision: a weight, an input, a result, a cache or a running sum held in a coarser type than the engine's own."""

import numpy as np
import torch
from torch.nn import functional

import identify_steps as steps
import seams
from identify_faults import draw_scope, fault
from identify_projections import EXPERTS, MATRICES
from identify_truths import part

FAMILY = "precision"


def cut_off(x):
    """The upper 16 bits of a float32."""
    return (x.float().contiguous().view(torch.int32) & -0x10000).view(torch.float32)


def int8(x):
    """A step of the row's largest absolute value / 127."""
    step = x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30) / 127
    return (x / step).round() * step


TYPES = {
    "bfloat16": lambda x: x.bfloat16().float(), "float16": lambda x: x.half().float(),
    "float8_e4m3": lambda x: x.clamp(-448, 448).to(torch.float8_e4m3fn).float(),
    "float8_e5m2": lambda x: x.clamp(-57344, 57344).to(torch.float8_e5m2).float(), "int8": int8, "bfloat16 cut off": cut_off,
}
COARSE = ("float8_e4m3", "float8_e5m2", "int8")  # what changes weights that are bfloat16 already

RESULTS = [*steps.MODULES, "attn.q_rope", "attn.k_rope", "attn.scores", "attn.probs", "attn.context", "mlp.act", "router.norm", "moe.act",
           "ffn.sum", "output"]

# The steps that read a step's result: to round it is to round their inputs.
READERS = {
    "attn.norm": ("attn.q", "attn.k", "attn.v"), "attn.q": ("attn.q_norm",), "attn.k": ("attn.k_norm",), "attn.v": ("attn.v_norm",),
    "attn.q_norm": ("attn.q_rope",), "attn.k_norm": ("attn.k_rope",), "attn.v_norm": ("attn.context",), "attn.q_rope": ("attn.scores",),
    "attn.k_rope": ("attn.scores",), "attn.scores": ("attn.probs",), "attn.probs": ("attn.context",), "attn.context": ("attn.out",),
    "attn.out": ("attn.post_norm",), "attn.post_norm": ("attn.residual",), "mlp.norm": ("mlp.gate", "mlp.up"), "mlp.gate": ("mlp.act",),
    "mlp.up": ("mlp.act",), "mlp.act": ("mlp.out",), "mlp.out": ("mlp.post_norm",), "mlp.post_norm": ("ffn.sum",),
    "router.norm": ("router.logits",), "router.logits": ("router.probs",), "moe.norm": ("moe.act",), "moe.act": ("moe.out",),
    "moe.out": ("moe.post_norm",), "moe.post_norm": ("ffn.sum",), "ffn.sum": ("ffn.post_norm",), "ffn.post_norm": ("ffn.residual",),
    "output": ("input",),
}


def draw_result(rng, engine):
    tap, name = rng.choice(RESULTS), rng.choice(sorted(TYPES))
    ids = {("router.logits", "bfloat16"): ["router-low-precision"]}.get((tap, name), [])
    return fault(FAMILY, f"{tap} rounded to {name}", draw_scope(rng, engine), tap,
                 lambda model, scope: steps.change_result(model, scope, tap, lambda layer, x: TYPES[name](x.float())),
                 part("result.rounded_to", name, tap), part("input.rounded_to", name, *READERS[tap]), ids=ids)


def draw_input(rng, engine):
    tap = rng.choice([t for t in steps.READERS if t not in ("attn.q_norm", "attn.k_norm", "attn.v_norm")])
    name = rng.choice(sorted(TYPES))
    only_reader = [producer for producer, readers in READERS.items() if readers == (tap,)]
    return fault(FAMILY, f"the input of {tap} rounded to {name}", draw_scope(rng, engine), tap,
                 lambda model, scope: steps.change_input(model, scope, tap, lambda layer, x: TYPES[name](x.float())),
                 part("input.rounded_to", name, tap), *(part("result.rounded_to", name, producer) for producer in only_reader))


def draw_weight(rng, engine):
    field = rng.choice(MATRICES * 2 + [f for f in steps.TENSORS if f not in MATRICES and f != "layer_scalar"])
    name, tap = rng.choice(COARSE), steps.TENSORS[field][2]
    return fault(FAMILY, f"{field} rounded to {name}", draw_scope(rng, engine), tap,
                 lambda model, scope: steps.change_weight(model, scope, field, lambda layer, w: TYPES[name](w.float())),
                 part("weight.rounded_to", name, field, tap))


def draw_cache(rng, engine):
    """Keys and values as the cache holds them."""
    name = rng.choice(("bfloat16", "float16", "float8_e4m3", "float8_e5m2", "int8"))
    keys, values = rng.choice(((True, True), (True, False), (False, True)))
    scope = draw_scope(rng, engine, when=False)

    def install(model, scope):
        def update(layer, k, v, begin):
            acts = layer in scope.layers
            rounded = [TYPES[name](t.float()).to(t.dtype) if acts and wanted else t for t, wanted in ((k, keys), (v, values))]
            return tuple(rounded)

        seams.keep_all_keys(model)
        seams.replace_cache_update(model, update)

    at_k = part(("input.rounded_to", "result.rounded_to"), name, "attn.scores", "attn.k_rope")
    at_v = part(("input.rounded_to", "result.rounded_to"), name, "attn.context", "attn.v_norm")
    answers = [tuple(p for p, wanted in ((at_k, keys), (at_v, values)) if wanted)]
    what = "keys and values" if keys and values else "keys" if keys else "values"
    return fault(FAMILY, f"cached {what} rounded to {name}", scope, "attn.scores" if keys else "attn.context", install, *answers,
                 ids=["kv-cache-f16"] if keys and values and name == "float16" else [])


def dot(x, weight, name):
    """x [n,k] times weight [m,k] or [n,m,k], transposed: each fused multiply-add is rounded once."""
    x, w = x.double().numpy(), weight.double().numpy()
    total = np.zeros((x.shape[0], w.shape[-2]))
    for i in range(x.shape[1]):
        total = total + x[:, i:i + 1] * w[..., i]
        if name == "float16":
            total = total.astype(np.float16).astype(np.float64)
        else:
            total = torch.from_numpy(total).float().bfloat16().double().numpy()
    return torch.from_numpy(total)


def draw_accumulated(rng, engine):
    field, name = rng.choice(MATRICES), rng.choice(("float16", "bfloat16"))
    tap = steps.TENSORS[field][2]

    def install(model, scope):
        acts = scope.acts(model)
        for layer in scope.chosen(model):
            if field in EXPERTS:
                accumulate_experts(layer, field, name, acts)
                continue
            linear = steps.module_at(layer, steps.TENSORS[field][0])
            if linear is not None:
                linear.forward = lambda x, linear=linear: (
                    dot(x.flatten(0, -2), linear.weight, name).reshape(*x.shape[:-1], -1).to(x.dtype)
                    if acts() else functional.linear(x, linear.weight))

    return fault(FAMILY, f"{tap} accumulated in {name}", draw_scope(rng, engine), tap, install,
                 part("sum.accumulated_in", name, tap), ids=["ffn-moe-f16-accumulate"] if field in EXPERTS and name == "float16" else [])


def accumulate_experts(layer, field, name, acts):
    weights = getattr(layer.experts, field.split(".")[1])

    def project(experts, rows, ids):
        if acts():
            return dot(rows, weights[ids], name).to(rows.dtype)
        return torch.matmul(rows[:, None, :], weights[ids].transpose(1, 2))[:, 0]

    seams.replace_experts(layer, **{"gate_up" if field == EXPERTS[0] else "down": project})


DRAWS = [draw_result] * 4 + [draw_input] * 3 + [draw_weight] * 4 + [draw_cache] + [draw_accumulated] * 3
