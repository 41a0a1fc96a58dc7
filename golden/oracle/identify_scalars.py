"""Drawn faults of factors: missing, twice, inverted, another layer's, or any; of a whole step, or of each head, expert, rank or lane."""

import torch

import identify_steps as steps
from faults import FULL, SLIDING
from identify_faults import draw_factor, draw_layer, draw_scope, draw_when, everywhere, fault
from identify_truths import part

FAMILY = "scalars"
FACTOR = ("result.factor", "weight.factor")
FACTORS = ("result.factors", "weight.factors")

# Steps and weights between which a factor may be moved: what only sees the end of such a chain cannot tell them apart.
CHAINS = [
    ("embed",),
    ("attn.norm", "input_layernorm"),
    ("attn.q", "q_proj"),
    ("attn.k", "k_proj"),
    ("attn.v", "v_proj"),
    ("attn.q_norm", "q_norm", "attn.k_norm", "k_norm", "attn.q_rope", "attn.k_rope", "attn.scores"),
    ("attn.probs", "attn.v_norm", "attn.context", "attn.out", "o_proj"),
    ("attn.post_norm", "post_attention_layernorm"),
    ("attn.residual",),
    ("mlp.norm", "pre_feedforward_layernorm"),
    ("mlp.gate", "gate_proj"),
    ("mlp.up", "up_proj", "mlp.act", "mlp.out", "down_proj"),
    ("mlp.post_norm", "post_feedforward_layernorm_1"),
    ("router.norm", "router.scale", "scale", "router.logits", "router.proj", "proj"),
    ("router.topk_norm", "router.topk_weights", "router.per_expert_scale", "per_expert_scale", "moe.act", "moe.out", "experts.down_proj",
     "down_proj"),
    ("moe.norm", "pre_feedforward_layernorm_2", "experts.gate_up_proj", "gate_up_proj"),
    ("moe.post_norm", "post_feedforward_layernorm_2"),
    ("ffn.sum",),
    ("ffn.post_norm", "post_feedforward_layernorm"),
    ("ffn.residual", "output", "layer_scalar"),
    ("final_norm", "norm", "logits_raw", "embed_tokens"),
    ("logits",),
]

# A factor c before a norm is eps / c^2 in it; a factor of one operand of a sum, or of the sum, is one of the sum's coefficients.
NORM_BEHIND = {
    "attn.norm": ("attn.q_norm", "attn.k_norm", "attn.v_norm"), "attn.q": "attn.q_norm", "attn.k": "attn.k_norm",
    "attn.v": "attn.v_norm", "attn.out": "attn.post_norm", "attn.context": "attn.post_norm",
    "attn.v_norm": "attn.post_norm", "attn.probs": "attn.post_norm", "mlp.up": "mlp.post_norm", "mlp.act": "mlp.post_norm",
    "mlp.out": "mlp.post_norm", "router.topk_norm": "moe.post_norm", "router.topk_weights": "moe.post_norm", "moe.act": "moe.post_norm",
    "moe.out": "moe.post_norm", "ffn.sum": "ffn.post_norm",
}
SUM_OF = {
    "attn.post_norm": ("attn.residual", (False, True)), "attn.residual": ("attn.residual", (True, True)),
    "mlp.post_norm": ("ffn.sum", (True, False)), "moe.post_norm": ("ffn.sum", (False, True)), "ffn.sum": ("ffn.sum", (True, True)),
    "ffn.post_norm": ("ffn.residual", (False, True)), "ffn.residual": ("ffn.residual", (True, True)),
    "output": ("ffn.residual", (True, True)),
}
TEMPERATURE = ("attn.q_norm", "attn.k_norm", "attn.q_rope", "attn.k_rope", "attn.scores")


def chain(tap):
    return next(places for places in CHAINS if tap in places)


def answers_of_factor(tap, factor, eps):
    """All that says: the result of this step is `factor` times what it should be."""
    answers = [part(FACTOR, factor, *chain(tap))]
    if tap in NORM_BEHIND:
        norms = NORM_BEHIND[tap]
        answers.append(part("rms_norm_eps", eps / factor ** 2, *([norms] if isinstance(norms, str) else norms)))
    if tap in SUM_OF:
        at, operands = SUM_OF[tap]
        answers.append(part("residual.factors", tuple(factor if scaled else 1.0 for scaled in operands), at))
    if tap == "attn.residual":  # the norms take it away
        answers.append(part("residual.factors", (factor, 1.0), "ffn.residual"))
    if tap in TEMPERATURE:
        answers.append(part("attn.scale", factor))
    if tap in ("router.norm", "router.logits"):  # softmax(a x) of the chosen, divided by its sum, is p^a divided by its own
        answers.append(part("router.weights", f"p^{factor:g}", "router.topk_norm", "router.topk_weights"))
    if tap == "attn.norm":
        answers.append(part("input.factor", factor))
    return answers


STEPS = [place for places in CHAINS for place in places if "." in place and not place.startswith(("experts.", "router.scale",
         "router.proj", "router.per_expert_scale"))] + ["embed", "final_norm", "logits_raw", "logits", "output"]


def expressions(engine):
    """Factors that one recognises, by name."""
    c, (_, _, D) = engine.config, engine.heads(SLIDING)
    return {"head_dim^-0.5": D ** -0.5, "hidden_size^-0.5": c["hidden_size"] ** -0.5, "hidden_size^0.5": c["hidden_size"] ** 0.5,
            "2": 2.0, "1/2": 0.5, "1/4": 0.25, "K/E": c["top_k_experts"] / c["num_experts"], "K": float(c["top_k_experts"]),
            "1/127": 1 / 127, "1/K": 1 / c["top_k_experts"]}


def draw_any(rng, engine):
    """A number times a step's result."""
    tap = rng.choice(STEPS)
    named = rng.random() < 0.35
    name, factor = rng.choice(sorted(expressions(engine).items())) if named else ("", draw_factor(rng))
    kind = SLIDING if tap == "attn.v" or name.startswith("head_dim") else None
    outside = tap in steps.OUTSIDE
    scope = everywhere(engine, draw_when(rng, engine)) if outside else draw_scope(rng, engine, kind)
    return fault(FAMILY, f"{tap} times {factor:.6g} {name}".strip(), scope, tap,
                 lambda model, scope: steps.change_result(model, scope, tap, lambda layer, x: x * factor),
                 *answers_of_factor(tap, factor, engine.config["rms_norm_eps"]))


def draw_weight(rng, engine):
    """A number times a weight."""
    field = rng.choice(sorted(steps.TENSORS))
    factor, tap = draw_factor(rng), steps.TENSORS[field][2]
    scope = draw_scope(rng, engine, SLIDING if field == "v_proj" else None)
    answers = [part("weight.factor", factor, field, tap)]
    result = "moe.norm" if field == "experts.gate_up_proj" else tap  # gate and up both: a factor of what they read
    answers += answers_of_factor(result, factor, engine.config["rms_norm_eps"])
    return fault(FAMILY, f"{field} times {factor:.6g}", scope, tap,
                 lambda model, scope: steps.change_weight(model, scope, field, lambda layer, w: w.float() * factor), *answers)


def draw_known(rng, engine):
    """One of the model's own factors: missing, twice, inverted."""
    form, power = rng.choice((("missing", 0), ("twice", 2), ("inverted", -1)))
    which = rng.choice(("embed scale", "router root", "layer_scalar"))
    d, eps = engine.config["hidden_size"], engine.config["rms_norm_eps"]
    if which == "layer_scalar":
        said = {0: "1", 2: "w^2", -1: "1 / w"}[power]
        ids = {0: ["layer-scalar-dropped"], 2: ["layer-scalar-twice"]}.get(power, [])
        scope = draw_scope(rng, engine)
        return fault(FAMILY, f"layer_scalar {form}", scope, "output",
                     lambda model, scope: steps.change_weight(model, scope, "layer_scalar", lambda layer, w: w.float() ** power),
                     part("weight.form", said, "output", "layer_scalar"),
                     *of_one_layer(scope, engine, lambda own, i: own[i] ** power), ids=ids)
    right, tap = (d ** 0.5, "embed") if which == "embed scale" else (d ** -0.5, "router.norm")
    scope = everywhere(engine, draw_when(rng, engine)) if tap == "embed" else draw_scope(rng, engine)
    factor = right ** (power - 1)
    ids = {("embed", 0): ["embed-scale-missing"], ("embed", 2): ["embed-scale-twice"],
           ("router.norm", 0): ["router-norm-or-root-scale-missing"], ("router.norm", 2): ["router-root-twice"]}.get((tap, power), [])
    return fault(FAMILY, f"{which} {form}", scope, tap,
                 lambda model, scope: steps.change_result(model, scope, tap, lambda layer, x: x.float() * factor),
                 *answers_of_factor(tap, factor, eps), ids=ids)


def of_one_layer(scope, engine, scalar):
    """In one layer, another layer_scalar is a factor: scalar(all layers' own, the layer's index) is what the engine has."""
    if len(scope.layers) > 1:
        return []
    own, i = engine.layer_scalars(), scope.layers[0]
    return answers_of_factor("output", scalar(own, i) / own[i], engine.config["rms_norm_eps"])


def draw_other_layers(rng, engine):
    """layer_scalar of another layer: some layers away, or always the same one's."""
    scope, other = draw_scope(rng, engine), draw_layer(rng, engine)

    def install(model, scope):
        own = [layer.layer_scalar.clone() for layer in model.model.layers]
        steps.change_weight(model, scope, "layer_scalar", lambda layer, w: own[other.of(layer.layer_idx)])

    places, next_one = ("output", "layer_scalar"), ["layer-scalar-of-next-layer"]
    answers = other.answers(scope, *places) + of_one_layer(scope, engine, lambda own, i: own[other.of(i)])
    own = engine.layer_scalars()
    factors = [(i, (part(FACTOR, own[other.of(i)] / own[i], *chain("output")),), ()) for i in scope.layers]
    return fault(FAMILY, f"layer_scalar of layer {other}", scope, "output", install, *answers,
                 ids=next_one if str(other) == "N+1" else [], partly=other.partly(scope, *places, ids=next_one) + factors)


def draw_softcap(rng, engine):
    """Another cap of the logits, or none."""
    right = engine.config["final_logit_softcapping"]
    cap = rng.choice((None, 50.0, right * draw_factor(rng), right - 1, 2 * right))

    def install(model, scope):
        model.config.final_logit_softcapping = cap

    said = part("final_logit_softcapping", "none" if cap is None else cap, "logits")
    # 50 and 51 differ by x^2 / 3 (1 / 50^2 - 1 / 51^2), which is below a rounding to bfloat16 for logits up to 17
    ids = ["softcap-missing"] if cap is None else ["softcap-50"] if abs(cap - 50) <= 1 else []
    return fault(FAMILY, f"final_logit_softcapping {cap}", everywhere(engine), "logits", install, said, ids=ids)


# --- a factor of each head, expert, rank or lane ----------------------------------------------------------------------


def some_factors(rng, n):
    """All of them drawn, or only a few that are not 1."""
    few = rng.random() < 0.3
    chosen = set(rng.sample(range(n), min(n, rng.randint(1, 2)))) if few else range(n)
    return tuple(draw_factor(rng, 0.5, 2.0) if i in chosen else 1.0 for i in range(n))


def by_head(x, factors):
    """x [...,heads,D] or [...,heads * D]"""
    shape = x.shape
    return (x.reshape(*shape[:2], len(factors), -1) * torch.tensor(factors)[:, None]).reshape(shape)


def draw_by_head(rng, engine):
    tap = rng.choice(("attn.q", "attn.k", "attn.q_norm", "attn.k_norm", "attn.v_norm", "attn.context"))
    kind = rng.choice((FULL, SLIDING))
    H, G, _ = engine.heads(kind)
    factors = some_factors(rng, H if tap in ("attn.q", "attn.q_norm", "attn.context") else G)
    one = [part(FACTOR, factors[0], *chain(tap))] if len(factors) == 1 else []
    return fault(FAMILY, f"{tap} times {factors} by head", draw_scope(rng, engine, kind), tap,
                 lambda model, scope: steps.change_result(model, scope, tap, lambda layer, x: by_head(x, factors)),
                 part(FACTORS, factors, *chain(tap)), *one)


def draw_by_lane(rng, engine):
    """Outputs of norms and projections of the hidden size; also the experts' and the ranks' own axes."""
    c = engine.config
    widths = {tap: c["hidden_size"] for tap in ("attn.norm", "attn.post_norm", "mlp.norm", "router.norm", "moe.norm", "moe.post_norm",
                                                "ffn.post_norm", "attn.out", "mlp.out")}
    widths |= {"mlp.up": c["intermediate_size"], "router.logits": c["num_experts"], "router.topk_norm": c["top_k_experts"],
               "router.topk_weights": c["top_k_experts"]}
    tap = rng.choice(sorted(widths) + ["router.topk_norm", "router.topk_weights", "router.logits"])
    factors = some_factors(rng, widths[tap])
    shown = factors if len(factors) < 10 else "(" + ", ".join(f"{f:g}" for f in factors[:4]) + ", ...)"
    return fault(FAMILY, f"{tap} times {shown} by lane, expert or rank", draw_scope(rng, engine), tap,
                 lambda model, scope: steps.change_result(model, scope, tap, lambda layer, x: x * torch.tensor(factors)),
                 part(FACTORS, factors, *chain(tap)))


def draw_by_expert(rng, engine):
    """Each expert's down_proj, or its per_expert_scale."""
    field = rng.choice(("experts.down_proj", "router.per_expert_scale"))
    factors = some_factors(rng, engine.config["num_experts"])
    tap = steps.TENSORS[field][2]
    shown = factors if len(factors) < 17 else "(...)"
    return fault(FAMILY, f"{field} times {shown} by expert", draw_scope(rng, engine), tap,
                 lambda model, scope: steps.change_weight(
                     model, scope, field, lambda layer, w: w.float() * torch.tensor(factors).reshape(-1, *[1] * (w.dim() - 1))),
                 part(FACTORS, factors, *chain(tap)))


DRAWS = [draw_any] * 6 + [draw_weight] * 4 + [draw_known] * 2 + [draw_other_layers, draw_softcap] + [draw_by_head, draw_by_lane] * 2 + [
    draw_by_expert]
