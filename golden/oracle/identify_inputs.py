"""Drawn faults of what a step reads: another tensor of the same shape, another position's row; sums of other operands."""

import torch

import identify_steps as steps
from identify_faults import draw_factor, draw_scope, fault
from identify_truths import part

FAMILY = "inputs"

# What a step may read instead of what it should: tensors of the hidden size that exist by then.
SOURCES = {
    "attn.norm": ("embed",),
    "attn.q": ("input",), "attn.k": ("input",), "attn.v": ("input",),
    "attn.post_norm": ("input", "attn.norm"),
    "mlp.norm": ("input", "attn.norm", "attn.out", "attn.post_norm"),
    "mlp.gate": ("attn.residual", "input", "attn.norm", "attn.post_norm"),
    "mlp.up": ("attn.residual", "input", "attn.norm", "attn.post_norm"),
    "mlp.post_norm": ("mlp.norm", "attn.residual", "attn.out"),
    "router.norm": ("input", "mlp.norm", "attn.post_norm", "attn.norm", "mlp.post_norm", "mlp.out"),
    "router.logits": ("attn.residual", "mlp.norm", "attn.norm", "mlp.post_norm"),
    "moe.norm": ("input", "mlp.norm", "attn.post_norm", "mlp.post_norm", "mlp.out", "attn.norm"),
    "moe.act": ("mlp.norm", "attn.residual", "router.norm", "attn.norm", "mlp.post_norm"),
    "moe.post_norm": ("mlp.out", "moe.norm", "mlp.post_norm", "attn.residual"),
    "ffn.post_norm": ("mlp.out", "moe.out", "attn.residual", "mlp.post_norm", "moe.post_norm"),
}
IDS = {("moe.norm", "input"): "branch-reads-layer-input", ("mlp.norm", "input"): "branch-reads-layer-input",
       ("router.norm", "input"): "branch-reads-layer-input", ("moe.norm", "mlp.post_norm"): "branches-sequential",
       ("moe.norm", "mlp.out"): "branches-sequential", ("ffn.post_norm", "mlp.post_norm"): "experts-ignored",
       ("ffn.post_norm", "moe.post_norm"): "dense-branch-ignored"}

# Taps that are the input of a module.
BEFORE = {"input": "", "attn.residual": "pre_feedforward_layernorm", "router.norm": "router.proj", "ffn.sum": "post_feedforward_layernorm"}


def keep(model, layer, tap):
    """A function that gives the tap's tensor of the present chunk."""
    held = {}
    if tap in BEFORE:
        steps.module_at(layer, BEFORE[tap]).register_forward_pre_hook(lambda _m, args: held.update(x=args[0].clone()))
    else:
        module = model.model.embed_tokens if tap == "embed" else steps.module_at(layer, steps.MODULES[tap])
        module.register_forward_hook(lambda _m, _args, out: held.update(x=out.clone()))
    return lambda: held["x"]


def draw_input(rng, engine):
    tap = rng.choice(sorted(SOURCES))
    source = rng.choice(SOURCES[tap])

    def install(model, scope):
        held = {layer.layer_idx: keep(model, layer, source) for layer in scope.chosen(model)}
        steps.change_input(model, scope, tap, lambda layer, x: held[layer.layer_idx]().reshape(x.shape))

    answers = [part("step.input", source, tap)]
    if tap == "ffn.post_norm" and source.endswith("post_norm"):
        answers.append(part("residual.factors", (1.0, 0.0) if source.startswith("mlp") else (0.0, 1.0), "ffn.sum"))
    return fault(FAMILY, f"{tap} reads {source}", draw_scope(rng, engine), tap, install, *answers,
                 ids=[IDS[tap, source]] if (tap, source) in IDS else [])


def draw_position(rng, engine):
    """Row t reads row t - n; the first rows read themselves."""
    if len(engine.schedule) > 1:
        return None
    tap, n = rng.choice(sorted(steps.READERS)), rng.choice((1, 1, 2))

    def shifted(layer, x):
        dim = 0 if tap in ("router.norm", "router.logits", "moe.norm", "moe.act", ) else 1
        rows = torch.arange(x.shape[dim])
        return x.index_select(dim, torch.where(rows < n, rows, rows - n))

    return fault(FAMILY, f"{tap} reads row t-{n}", draw_scope(rng, engine), tap,
                 lambda model, scope: steps.change_input(model, scope, tap, shifted), part("input.positions", f"t-{n}", tap))


SUMS = {"attn.residual": ("input", "attn.post_norm"), "ffn.sum": ("mlp.post_norm", "moe.post_norm"),
        "ffn.residual": ("attn.residual", "ffn.post_norm")}
OTHER_OPERANDS = {"attn.residual": {0: ("attn.norm", "embed"), 1: ("attn.out", "attn.norm")},
                  "ffn.sum": {0: ("mlp.out", "attn.residual", "mlp.norm"), 1: ("moe.out", "moe.norm", "attn.residual")},
                  "ffn.residual": {0: ("input", "mlp.norm", "attn.post_norm"), 1: ("ffn.sum", "moe.post_norm", "mlp.post_norm")}}
ALIASES = {("attn.residual", "attn.norm", 0): "residual-inplace-alias", ("ffn.residual", "mlp.norm", 0): "residual-inplace-alias",
           ("ffn.residual", "input", 0): "ffn-residual-from-layer-input", ("ffn.residual", "ffn.sum", 1): "rmsnorm-base-ffn-norms-dropped",
           ("ffn.sum", "mlp.out", 0): "branch-post-norms-missing",
           ("ffn.sum", "moe.out", 1): "branch-post-norms-missing"}
PARTS = {("attn.residual", 0, 1): "attn-residual-missing", ("ffn.residual", 0, 1): "ffn-residual-missing",
         ("ffn.sum", 1, 0): "experts-ignored", ("ffn.sum", 0, 1): "dense-branch-ignored", ("ffn.sum", 0.5, 0.5): "branches-averaged"}


def change_sum(model, scope, tap, operands, combine):
    """combine(x, y) is the sum; operands: the taps of x and y."""
    held = {}
    for layer in scope.chosen(model):
        held[layer.layer_idx] = [keep(model, layer, operand) for operand in operands]

    def change(layer, right):
        x, y = (get().reshape(right.shape) for get in held[layer.layer_idx])
        return combine(x.float(), y.float())

    steps.change_result(model, scope, tap, change)


def draw_coefficients(rng, engine):
    tap = rng.choice(sorted(SUMS))
    a, b = rng.choice(((0.0, 1.0), (1.0, 0.0), (0.5, 0.5), (1.0, -1.0), (1.0, 2.0), (1.0, draw_factor(rng)), (draw_factor(rng), 1.0),
                       (draw_factor(rng), draw_factor(rng)), (1.0, draw_factor(rng))))
    answers = [part("residual.factors", (a, b), tap)]
    names = ("result.factor", "weight.factor")
    operands = SUMS[tap]
    if b == 1 and a and tap == "ffn.sum":
        answers.append(part(names, a, operands[0], "post_feedforward_layernorm_1"))
    if a == 1 and b:
        weight = {"attn.residual": "post_attention_layernorm", "ffn.sum": "post_feedforward_layernorm_2",
                  "ffn.residual": "post_feedforward_layernorm"}[tap]
        answers.append(part(names, b, operands[1], weight))
    if a == b:
        answers.append(part(names, a, tap, *(["output", "layer_scalar"] if tap == "ffn.residual" else [])))
    if tap == "ffn.sum" and a:  # the norm behind takes a common factor away
        answers.append(part(names, b / a, operands[1], "post_feedforward_layernorm_2"))
    return fault(FAMILY, f"{tap} = {a:g} {operands[0]} + {b:g} {operands[1]}", draw_scope(rng, engine), tap,
                 lambda model, scope: change_sum(model, scope, tap, operands, lambda x, y: a * x + b * y), *answers,
                 ids=[PARTS[tap, a, b]] if (tap, a, b) in PARTS else [])


def draw_operand(rng, engine):
    tap = rng.choice(sorted(SUMS))
    which = rng.choice((0, 1))
    other = rng.choice(OTHER_OPERANDS[tap][which])
    operands = list(SUMS[tap])
    operands[which] = other
    return fault(FAMILY, f"{tap} = {operands[0]} + {operands[1]}", draw_scope(rng, engine), tap,
                 lambda model, scope: change_sum(model, scope, tap, operands, lambda x, y: x + y),
                 part("step.input", other, tap), ids=[ALIASES[tap, other, which]] if (tap, other, which) in ALIASES else [])


DRAWS = [draw_input] * 6 + [draw_position] * 2 + [draw_coefficients] * 3 + [draw_operand] * 2
