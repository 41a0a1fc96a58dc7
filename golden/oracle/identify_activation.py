"""Drawn faults of the activations: another function of gate, and what becomes of up."""

import torch
from torch.nn import functional

import identify_steps as steps
from identify_faults import draw_scope, fault
from identify_truths import part

FAMILY = "activation"


def gelu(x):
    return functional.gelu(x, approximate="tanh")


FUNCTIONS = {
    "relu": functional.relu, "relu^2": lambda x: functional.relu(x) ** 2, "silu": functional.silu, "gelu_erf": functional.gelu,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x), "identity": lambda x: x, "tanh": torch.tanh, "sigmoid": torch.sigmoid,
}
IDS = {"silu": ("mlp-silu", "experts-silu"), "gelu_erf": ("mlp-gelu-erf", "experts-gelu-erf"),
       "quick_gelu": ("mlp-quick-gelu", "experts-quick-gelu"), "identity": ("mlp-act-missing", "experts-act-missing"),
       "exchanged": ("mlp-gate-up-swapped", "gate-up-swapped"), "interleaved": (None, "gate-up-swapped"),
       "up missing": (None, "fused-split-missing-on-host")}


def combine(model, scope, experts, act):
    """act(gate, up) -> what down_proj reads, in the experts or in the dense MLP."""
    acts = scope.acts(model)
    for layer in scope.chosen(model):
        if experts:
            original = layer.experts._apply_gate
            layer.experts._apply_gate = lambda gate_up, original=original: (
                act(*gate_up.chunk(2, dim=-1)).to(gate_up.dtype) if acts() else original(gate_up))
        else:
            mlp, right = layer.mlp, layer.mlp.act_fn

            def forward(mlp, x, right=right):
                gate, up = mlp.gate_proj(x), mlp.up_proj(x)
                return mlp.down_proj(act(gate, up).to(x.dtype) if acts() else right(gate) * up)

            steps.replace_method(mlp, forward)


def chosen(rng):
    """(whether in the experts, the tap, which id)"""
    experts = rng.random() < 0.6
    return experts, "moe.act" if experts else "mlp.act", int(experts)


def draw_function(rng, engine):
    experts, tap, which = chosen(rng)
    name = rng.choice(sorted(FUNCTIONS))
    function = FUNCTIONS[name]
    said = [part("hidden_activation", name, tap)]
    if name == "sigmoid":
        said.append(part("hidden_activation", "logistic", tap))
    return fault(FAMILY, f"{name} in the {'experts' if experts else 'dense MLP'}", draw_scope(rng, engine), tap,
                 lambda model, scope: combine(model, scope, experts, lambda gate, up: function(gate) * up), *said,
                 ids=[IDS[name][which]] if name in IDS else [])


def draw_number(rng, engine):
    """leaky ReLU's slope, or a clamp of the gate."""
    experts, tap, _ = chosen(rng)
    if rng.random() < 0.5:
        slope = rng.choice((0.01, 0.05, 0.1, 0.2, round(rng.uniform(0.02, 0.4), 3)))
        text, function = f"leaky_relu {slope:g}", lambda x: functional.leaky_relu(x, slope)
        said = [part("hidden_activation", text, tap)]
    else:
        clamp = rng.choice((1.0, 1.5, 2.0, round(rng.uniform(0.6, 2.5), 2)))
        text, function = f"gelu_tanh clamped at {clamp:g}", lambda x: gelu(x.clamp(max=clamp))
        result = float(gelu(torch.tensor(clamp)))
        said = [part("hidden_activation", (text, f"gelu_tanh clamped at {result:.4g}"), tap)]
    return fault(FAMILY, f"{text} in the {'experts' if experts else 'dense MLP'}", draw_scope(rng, engine), tap,
                 lambda model, scope: combine(model, scope, experts, lambda gate, up: function(gate) * up), *said)


PARTNERS = {
    "exchanged": lambda gate, up: gelu(up) * gate, "up missing": lambda gate, up: gelu(gate), "gate missing": lambda gate, up: up,
    "up + 1": lambda gate, up: gelu(gate) * (up + 1),
}


def interleaved(gate, up):
    """Rows 2j are taken for the gate's, rows 2j + 1 for up's."""
    both = torch.cat((gate, up), dim=-1)
    return gelu(both[..., 0::2]) * both[..., 1::2]


def draw_partner(rng, engine):
    experts, tap, which = chosen(rng)
    name = rng.choice(sorted(PARTNERS) + (["interleaved"] if experts else []))
    act = PARTNERS.get(name, interleaved)
    said = [part("gate_and_up", name, tap)]
    if experts and name in ("exchanged", "interleaved"):
        order = "rows halves exchanged" if name == "exchanged" else ("rows lanes deinterleaved", "rows lanes interleaved")
        said.append(part("weights.order", order, tap, "experts.gate_up_proj"))
    if name == "gate missing" and not experts:  # the next step reads up in the place of the product: the same, without mlp.act
        said.append(part("step.input", "mlp.up", "mlp.out"))
    if not experts and name == "exchanged":
        said.append((part("weight.tensor", "up_proj", "gate_proj", "mlp.gate"), part("weight.tensor", "gate_proj", "up_proj", "mlp.up")))
    return fault(FAMILY, f"gate and up {name} in the {'experts' if experts else 'dense MLP'}", draw_scope(rng, engine), tap,
                 lambda model, scope: combine(model, scope, experts, act), *said,
                 ids=[IDS[name][which]] if IDS.get(name, (None, None))[which] else [])


DRAWS = [draw_function] * 5 + [draw_number] * 2 + [draw_partner] * 3
