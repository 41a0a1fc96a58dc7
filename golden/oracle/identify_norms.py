"""Drawn faults of the RMSNorms: eps, the weight (another one, another form of it), the mean, the axis."""

import torch

import identify_steps as steps
import plant_norms
from faults import FULL, SLIDING
from identify_faults import draw_factor, draw_layer, draw_scope, everywhere, fault
from identify_scalars import answers_of_factor
from identify_truths import part

FAMILY = "norms"

# The taps of the norms and their weights' fields; those of the hidden size may take each other's weights.
WIDE = {"attn.norm": "input_layernorm", "attn.post_norm": "post_attention_layernorm", "mlp.norm": "pre_feedforward_layernorm",
        "mlp.post_norm": "post_feedforward_layernorm_1", "router.norm": "router.scale", "moe.norm": "pre_feedforward_layernorm_2",
        "moe.post_norm": "post_feedforward_layernorm_2", "ffn.post_norm": "post_feedforward_layernorm"}
HEADS = {"attn.q_norm": "q_norm", "attn.k_norm": "k_norm"}
ALL = {**WIDE, **HEADS, "attn.v_norm": None}


def module_of(layer, tap):
    return layer.router.norm if tap == "router.norm" else steps.module_at(layer, steps.MODULES[tap])


def replace_unit(model, scope, tap, unit):
    """unit(x in float32, eps) -> x divided by what the norm divides by; the weight multiplies afterwards."""
    acts = scope.acts(model)
    for layer in scope.chosen(model):
        norm = module_of(layer, tap)
        original = norm.forward

        def forward(norm, x, original=original):
            if not acts():
                return original(x)
            y = unit(x.float(), norm.eps)
            return (y * norm.weight.float() if norm.with_scale else y).type_as(x)

        steps.replace_method(norm, forward)


def draw_eps(rng, engine):
    """Another eps in one norm, or in every norm of the layers."""
    tap = rng.choice(sorted(ALL) + ["all"] * 3 + ["final_norm"])
    eps = float(f"{10 ** rng.uniform(-5.2, -1.5):.3g}")
    if rng.random() < 0.15:
        eps = 1e-5
    ids = ["rmsnorm-eps-wrong"] if eps == 1e-5 else []
    if tap == "final_norm":
        def final(model, scope):
            model.model.norm.eps = eps

        return fault(FAMILY, f"eps {eps} in {tap}", everywhere(engine), tap, final, part("rms_norm_eps", eps, tap), ids=ids)
    taps = sorted(ALL) if tap == "all" else [tap]

    def install(model, scope):
        for each in taps:
            replace_unit(model, scope, each, lambda x, _eps: plant_norms.right_unit(x, eps))

    first = "attn.norm" if tap == "all" else tap
    return fault(FAMILY, f"eps {eps} in {tap}", draw_scope(rng, engine), first, install, part("rms_norm_eps", eps, *taps), ids=ids)


def draw_other_weight(rng, engine):
    """A norm is loaded from another norm's tensor, or two are exchanged."""
    fields = WIDE if rng.random() < 0.75 else HEADS
    a, b = rng.sample(sorted(fields), 2)
    both = rng.random() < 0.3

    def install(model, scope):
        own = {layer.layer_idx: (steps.weight_of(layer, fields[a]).clone(), steps.weight_of(layer, fields[b]).clone())
               for layer in scope.chosen(model)}
        steps.change_weight(model, scope, fields[a], lambda layer, w: own[layer.layer_idx][1])
        if both:
            steps.change_weight(model, scope, fields[b], lambda layer, w: own[layer.layer_idx][0])

    one, other = part("norm.weight_of", fields[b], a, fields[a]), part("norm.weight_of", fields[a], b, fields[b])
    first = min(a, b, key=list(ORDER).index) if both else a
    text = f"{fields[a]} and {fields[b]} exchanged" if both else f"{fields[b]} read as {fields[a]}"
    ids = ["qk-norm-swapped"] if both and {a, b} == {"attn.q_norm", "attn.k_norm"} else []
    return fault(FAMILY, text, draw_scope(rng, engine), first, install, (one, other) if both else one, ids=ids)


ORDER = ["attn.norm", "attn.q_norm", "attn.k_norm", "attn.v_norm", "attn.post_norm", "mlp.norm", "mlp.post_norm", "router.norm",
         "moe.norm", "moe.post_norm", "ffn.post_norm"]


def draw_v_weight(rng, engine):
    """v_norm has a weight: k_norm's or q_norm's."""
    field = rng.choice(("k_norm", "q_norm"))
    ids = ["v-norm-has-weight"] if field == "k_norm" else []
    return fault(FAMILY, f"v_norm has the weight of {field}", draw_scope(rng, engine), "attn.v_norm",
                 lambda model, scope: steps.change_result(
                     model, scope, "attn.v_norm", lambda layer, x: x.float() * steps.weight_of(layer, field).float()),
                 part("norm.weight_of", field, "attn.v_norm"), ids=ids)


def draw_other_layer(rng, engine):
    """A norm's weight of another layer."""
    tap = rng.choice(sorted({**WIDE, **HEADS}))
    field, scope, other = ALL[tap], draw_scope(rng, engine), draw_layer(rng, engine)

    def install(model, scope):
        own = [steps.weight_of(layer, field).clone() for layer in model.model.layers]

        def of(layer, w):
            found = own[other.of(layer.layer_idx)]
            return found if found.shape == w.shape else w

        steps.change_weight(model, scope, field, of)

    return fault(FAMILY, f"{field} of layer {other}", scope, tap, install, *other.answers(scope, tap, field),
                 partly=other.partly(scope, tap, field))


FORMS = {"1 + w": lambda w: 1 + w, "w^2": lambda w: w * w, "1 / w": lambda w: 1 / w, "sqrt(w)": lambda w: w.abs().sqrt(),
         "1": torch.ones_like}


def draw_form(rng, engine):
    """Another function of the weight; or a factor of it."""
    tap = rng.choice(sorted({**WIDE, **HEADS}) * 2 + ["all", "qk"])
    form = rng.choice(sorted(FORMS))
    taps = {"all": sorted({**WIDE, **HEADS}), "qk": sorted(HEADS)}.get(tap, [tap])

    def install(model, scope):
        for each in taps:
            steps.change_weight(model, scope, ALL[each], lambda layer, w: FORMS[form](w.float()))

    ids = {"1 + w": ["rmsnorm-one-plus-w"], "1": ["rmsnorm-weight-missing"]}.get(form, [])
    ids = ["router-scale-tensor-skipped"] if (tap, form) == ("router.norm", "1") else ids
    ids += ["router-scale-tensor-skipped"] if (tap, form) == ("all", "1") else []  # the router's norm is one of them
    answers = [part("weight.form", form, *taps, *(ALL[t] for t in taps))]
    if form == "1":
        answers.append(part("norm.weight_of", "none", *taps, *(ALL[t] for t in taps)))
    first = {"all": "attn.norm", "qk": "attn.q_norm"}.get(tap, tap)
    return fault(FAMILY, f"{form} for the weight w of {tap}", draw_scope(rng, engine), first, install, *answers, ids=ids)


def draw_factor_of_weight(rng, engine):
    tap = rng.choice(sorted({**WIDE, **HEADS}))
    field, factor = ALL[tap], draw_factor(rng)
    return fault(FAMILY, f"{field} times {factor:g}", draw_scope(rng, engine), tap,
                 lambda model, scope: steps.change_weight(model, scope, field, lambda layer, w: w.float() * factor),
                 *answers_of_factor(tap, factor, engine.config["rms_norm_eps"]))


def draw_mean(rng, engine):
    """LayerNorm: the mean is subtracted, in one norm or in all."""
    tap = rng.choice(sorted(ALL) + ["all"])
    taps = sorted(ALL) if tap == "all" else [tap]

    def install(model, scope):
        for each in taps:
            replace_unit(model, scope, each, lambda x, eps: plant_norms.right_unit(x - x.mean(-1, keepdim=True), eps))

    return fault(FAMILY, f"mean removed in {tap}", draw_scope(rng, engine), "attn.norm" if tap == "all" else tap, install,
                 part("norm.mean", "removed", *taps), ids=["rmsnorm-as-layernorm"])


def draw_axis(rng, engine):
    """One root mean square of all heads."""
    taps = rng.choice((["attn.q_norm"], ["attn.k_norm"], ["attn.v_norm"], ["attn.q_norm", "attn.k_norm"]))

    def install(model, scope):
        for each in taps:
            replace_unit(model, scope, each, lambda x, eps: x * torch.rsqrt(x.pow(2).mean((-2, -1), keepdim=True) + eps))

    kind = SLIDING if engine.heads(FULL)[1] == 1 else None
    return fault(FAMILY, f"mean over all heads in {', '.join(taps)}", draw_scope(rng, engine, kind), taps[0], install,
                 part("norm.axis", "all heads", *taps), ids=["qk-norm-over-all-heads"] if len(taps) == 2 else [])


# Whoever reads a norm's result reads what the norm should have read, where the norm is not there: (that step, what it reads).
PAST = {"attn.q_norm": ("attn.q_rope", "attn.q"), "attn.k_norm": ("attn.k_rope", "attn.k"), "attn.v_norm": ("attn.context", "attn.v"),
        "attn.post_norm": ("attn.residual", "attn.out"), "mlp.post_norm": ("ffn.sum", "mlp.out"), "moe.post_norm": ("ffn.sum", "moe.out"),
        "ffn.post_norm": ("ffn.residual", "ffn.sum")}


def draw_left_out(rng, engine):
    """The norm is not there: only those that the catalogue has."""
    tap, cause = rng.choice((("attn.norm", "input-norm-missing"), ("attn.q_norm", "qk-norm-missing"), ("attn.k_norm", "qk-norm-missing"),
                             ("attn.v_norm", "v-norm-missing"), ("attn.post_norm", "post-attention-norm-missing"),
                             ("mlp.post_norm", "branch-post-norms-missing"), ("moe.post_norm", "branch-post-norms-missing"),
                             ("ffn.post_norm", "rmsnorm-base-ffn-norms-dropped")))

    def install(model, scope):
        acts = scope.acts(model)
        for layer in scope.chosen(model):
            norm = module_of(layer, tap)
            norm.forward = lambda x, original=norm.forward: x.clone() if acts() else original(x)

    return fault(FAMILY, f"no norm at {tap}", draw_scope(rng, engine), tap, install, part(("norm", "norm.missing"), "missing", tap),
                 *([part("step.input", PAST[tap][1], PAST[tap][0])] if tap in PAST else []), ids=[cause])


DRAWS = [draw_eps] * 3 + [draw_other_weight] * 4 + [draw_v_weight] + [draw_other_layer] * 3 + [draw_form] * 4 + [
    draw_factor_of_weight] * 2 + [draw_mean, draw_axis, draw_left_out]
