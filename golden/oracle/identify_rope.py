"""Drawn faults of RoPE: theta, how many pairs rotate, the exponent's denominator, positions, direction, pairing, the tables' type."""

import math

import torch

import plant_rope
from faults import FULL, SLIDING
from identify_faults import draw_factor, draw_scope, fault
from identify_truths import part

FAMILY = "rope"
TAPS = ("attn.q_rope", "attn.k_rope")


def right_theta(engine, kind):
    return engine.config["rope_parameters"][kind]["rope_theta"]


def right_pairs(engine, kind):
    half = engine.heads(kind)[2] // 2
    return int(engine.config["rope_parameters"][kind].get("partial_rotary_factor", 1.0) * half)


def frequencies(half, pairs, theta, denominator):
    """[half]: theta^(-2j / denominator) for the first `pairs`, 0 behind."""
    f = torch.zeros(half)
    f[:pairs] = theta ** (-2 * torch.arange(pairs).double() / denominator)
    return f.float()


def turn(model, scope, angles, rotate=plant_rope.right_rotation, tables=lambda x: x, which="qk"):
    """angles(layer, positions [1,chunk]) -> [1,chunk,D/2], or None for the right ones; tables: what becomes of cos and sin.

    which: q, k or both are rotated so; the other one is rotated rightly."""
    acts = scope.acts(model)
    for layer in scope.chosen(model):
        held = {}

        def keep(_attention, _args, kwargs, held=held):
            held["positions"], held["dtype"] = kwargs["position_ids"], kwargs["hidden_states"].dtype

        def wrong(x, cos, sin, layer=layer, held=held):
            if not acts():
                return plant_rope.right_rotation(x, cos, sin)
            if angles:
                half = angles(layer, held["positions"]).float()
                both = torch.cat((half, half), dim=-1)
                cos, sin = both.cos().to(held["dtype"]), both.sin().to(held["dtype"])
            return rotate(x, tables(cos), tables(sin))

        layer.self_attn.register_forward_pre_hook(keep, with_kwargs=True)
        rotations = [wrong if letter in which else plant_rope.right_rotation for letter in "qk"]
        plant_rope.rotate_queries_and_keys_differently(layer, *rotations)


def of_frequencies(f):
    return lambda layer, positions: positions[..., None].float() * f


def of_positions(model, change):
    """The right frequencies at changed positions."""
    return lambda layer, positions: change(positions)[..., None].float() * plant_rope.frequencies(model, layer.self_attn.layer_type)


def drawn(rng):
    """(which of q and k, the tap where it enters)"""
    which = rng.choice(("qk", "qk", "qk", "q", "k"))
    return which, "attn.k_rope" if which == "k" else "attn.q_rope"


def draw_theta(rng, engine):
    kind = rng.choice((FULL, SLIDING))
    D, right = engine.heads(kind)[2], right_theta(engine, kind)
    theta = float(f"{rng.choice((right * draw_factor(rng, 0.05, 20), 5e5, 1e5, 2e4, 1e6, 1e4)):.4g}")
    if abs(theta / right - 1) < 0.05:
        return None
    which, first = drawn(rng)
    f = frequencies(D // 2, right_pairs(engine, kind), theta, D)
    ids = ["rope-global-applied-to-local"] if theta == right_theta(engine, SLIDING if kind == FULL else FULL) else []
    return fault(FAMILY, f"theta {theta:g} on {kind} layers ({which})", draw_scope(rng, engine, kind), first,
                 lambda model, scope: turn(model, scope, of_frequencies(f), which=which),
                 part("rope_theta", theta, *TAPS), part("rope.denominator", D * math.log(right) / math.log(theta), *TAPS), ids=ids)


def draw_pairs(rng, engine):
    kind = rng.choice((FULL, SLIDING))
    D, right = engine.heads(kind)[2], right_pairs(engine, kind)
    pairs = rng.choice((D // 8, D // 4, 3 * D // 8, D // 2, right - 1, right + 1))
    if pairs == right or not 0 < pairs <= D // 2:
        return None
    which, first = drawn(rng)
    f = frequencies(D // 2, pairs, right_theta(engine, kind), D)
    ids = ["rope-full-rotation-on-global"] if kind == FULL and pairs == D // 2 else []
    return fault(FAMILY, f"{pairs} of {D // 2} pairs rotate on {kind} layers ({which})", draw_scope(rng, engine, kind), first,
                 lambda model, scope: turn(model, scope, of_frequencies(f), which=which),
                 part("partial_rotary_factor", pairs / (D // 2), *TAPS), ids=ids)


def draw_denominator(rng, engine):
    kind = rng.choice((FULL, SLIDING))
    D, right, pairs = engine.heads(kind)[2], right_theta(engine, kind), right_pairs(engine, kind)
    denominator = rng.choice((2 * pairs, D // 2, 2 * D, 3 * D // 4, D + 2, D - 2))
    if denominator == D:
        return None
    which, first = drawn(rng)
    f = frequencies(D // 2, pairs, right, denominator)
    ids = ["rope-exponent-rotary-dim"] if kind == FULL and denominator == 2 * pairs else []
    return fault(FAMILY, f"exponent over {denominator} of {D} lanes on {kind} layers ({which})", draw_scope(rng, engine, kind), first,
                 lambda model, scope: turn(model, scope, of_frequencies(f), which=which),
                 part("rope.denominator", denominator, *TAPS), part("rope_theta", right ** (D / denominator), *TAPS), ids=ids)


def answers_of_offset(offset, which):
    """Of q and k only the difference of their positions counts."""
    if which == "qk":
        return [part("rope.position_offset", offset, *TAPS)]
    own, other = TAPS if which == "q" else TAPS[::-1]
    return [part("rope.position_offset", offset, own), part("rope.position_offset", -offset, other)]


def draw_offset(rng, engine):
    offset = rng.choice((-3, -2, -1, 1, 2, 3, 7, 0.5))
    which, first = drawn(rng)
    ids = ["rope-position-off-by-one"] if abs(offset) == 1 else []
    return fault(FAMILY, f"positions {offset:+g} ({which})", draw_scope(rng, engine), first,
                 lambda model, scope: turn(model, scope, of_positions(model, lambda p: p + offset), which=which),
                 *answers_of_offset(offset, which), ids=ids)


def draw_scale(rng, engine):
    scale = rng.choice((0.125, 0.25, 0.5, 2.0, draw_factor(rng, 0.5, 1.8), draw_factor(rng, 0.5, 1.8)))
    kind = rng.choice((FULL, SLIDING, None))
    which, first = drawn(rng)
    return fault(FAMILY, f"positions times {scale:g} ({which})", draw_scope(rng, engine, kind), first,
                 lambda model, scope: turn(model, scope, of_positions(model, lambda p: p * scale), which=which),
                 part("rope.position_scale", scale, *TAPS), ids=["rope-scaling-wrong-layer-kind"] if scale == 0.125 else [])


def draw_direction(rng, engine):
    which, first = drawn(rng)
    return fault(FAMILY, f"rotated backwards ({which})", draw_scope(rng, engine), first,
                 lambda model, scope: turn(model, scope, None, lambda x, cos, sin: plant_rope.right_rotation(x, cos, -sin), which=which),
                 part("rope.direction", "reversed", *TAPS), part("rope.position_scale", -1.0, *TAPS), ids=["rope-reversed"])


def draw_pairing(rng, engine):
    which, first = drawn(rng)
    if rng.random() < 0.5:
        def neighbours(x, cos, sin):
            lanes = torch.arange(0, x.shape[-1], 2)
            return plant_rope.rotate_pairs(x, cos, sin, lanes, lanes + 1)

        return fault(FAMILY, f"neighbours paired ({which})", draw_scope(rng, engine), first,
                     lambda model, scope: turn(model, scope, None, neighbours, which=which),
                     part("rope.pairing", "interleaved", *TAPS), ids=["rope-pairing-interleaved"])
    pairs = right_pairs(engine, FULL)

    def contiguous(x, cos, sin):
        return plant_rope.rotate_pairs(x, cos, sin, torch.arange(pairs), torch.arange(pairs, 2 * pairs))

    return fault(FAMILY, f"the first {2 * pairs} lanes paired among themselves on full layers ({which})", draw_scope(rng, engine, FULL),
                 first, lambda model, scope: turn(model, scope, None, contiguous, which=which),
                 part("rope.pairing", "contiguous", *TAPS), ids=["rope-pairing-contiguous"])


def draw_table(rng, engine):
    """The other kind's frequencies, as many as fit; lanes without one stand still."""
    kind, other = rng.choice(((FULL, SLIDING), (SLIDING, FULL)))
    half = engine.heads(kind)[2] // 2
    of_other = frequencies(engine.heads(other)[2] // 2, right_pairs(engine, other), right_theta(engine, other), engine.heads(other)[2])
    f = torch.zeros(half)
    f[:len(of_other)] = of_other[:half]
    which, first = drawn(rng)
    pairs = int((f != 0).sum())
    theta = part("rope_theta", right_theta(engine, other) ** (engine.heads(kind)[2] / engine.heads(other)[2]), *TAPS)
    as_numbers = (theta, *([part("partial_rotary_factor", pairs / half, *TAPS)] if pairs != right_pairs(engine, kind) else []))
    return fault(FAMILY, f"{kind} layers use the other kind's table ({which})", draw_scope(rng, engine, kind), first,
                 lambda model, scope: turn(model, scope, of_frequencies(f), which=which),
                 part("rope.table", "other kind", *TAPS), as_numbers, ids=["rope-global-applied-to-local"])


def draw_rounded(rng, engine):
    name, dtype = rng.choice((("bfloat16", torch.bfloat16), ("float16", torch.float16)))
    which, first = drawn(rng)
    return fault(FAMILY, f"cos and sin in {name} ({which})", draw_scope(rng, engine), first,
                 lambda model, scope: turn(model, scope, None, tables=lambda t: t.to(dtype).to(t.dtype), which=which),
                 part("rope.rounded_to", name, *TAPS))


def draw_missing(rng, engine):
    which, first = drawn(rng)
    return fault(FAMILY, f"not rotated ({which})", draw_scope(rng, engine), first,
                 lambda model, scope: turn(model, scope, None, lambda x, cos, sin: x, which=which),
                 part("partial_rotary_factor", 0.0, *TAPS), part("rope.position_scale", 0.0, *TAPS), ids=["rope-missing"])


DRAWS = [draw_theta, draw_pairs, draw_denominator] * 3 + [draw_offset, draw_scale] * 2 + [
    draw_direction, draw_pairing, draw_table, draw_rounded, draw_missing]

