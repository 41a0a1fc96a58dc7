"""Drawn faults of attention: windows, masks, scale, cap, and which KV head a query head reads."""

import torch

import identify_steps as steps
import plant_masks
import seams
from faults import FULL, SLIDING
from identify_faults import draw_factor, draw_scope, fault
from identify_truths import part
from transformers.models.gemma4 import modeling_gemma4

FAMILY = "attention"
TAPS = ("attn.scores", "attn.probs", "attn.context")


def mask(model, scope, visible, nothing=False):
    """visible(query, key, begin, end, right, window) -> which keys a query sees; nothing: some see none, and get probabilities of 0."""
    acts = scope.acts(model)
    for layer in scope.chosen(model):
        window = model.config.sliding_window if layer.self_attn.is_sliding else float("inf")
        plant_masks.replace_masks(model, [layer], lambda query, key, begin, end, right, window=window:
                                  visible(query, key, begin, end, right, window) if acts() else right)
    if nothing:
        plant_masks.give_nothing_where_nothing_is_seen(scope.chosen(model))


def length(engine):
    return len(engine.tokens)


def draw_window(rng, engine):
    """Sliding layers with another window, or none."""
    right, n = engine.config["sliding_window"], rng.choice((-6, -3, -2, -1, 1, 2, 3, 5, 8, None, "half", "double", 1024))
    window = {None: None, "half": right // 2, "double": 2 * right, 1024: 1024}.get(n, right + n if isinstance(n, int) else 0)
    if length(engine) <= min(right, window or right):
        return None
    ids = {1: ["window-off-by-one-wide"], -1: ["window-off-by-one-other"], None: ["window-not-passed"]}.get(n, [])
    said = [part("sliding_window", "none" if window is None else float(window), *TAPS)]
    if window is None or window >= length(engine):
        said.append(part("sliding_window", "none", *TAPS))
        ids = ["window-not-passed"]

    def visible(query, key, begin, end, right, _window):
        return plant_masks.causal(query, key) if window is None else plant_masks.windowed(query, key, window)

    return fault(FAMILY, f"window {window} for {right}", draw_scope(rng, engine, SLIDING), "attn.probs",
                 lambda model, scope: mask(model, scope, visible), *said, ids=ids)


def draw_window_on_full(rng, engine):
    right = engine.config["sliding_window"]
    window = rng.choice((right, right // 2, right + 3, 2 * right))
    if length(engine) <= window:
        return None
    return fault(FAMILY, f"window {window} on full layers", draw_scope(rng, engine, FULL), "attn.probs",
                 lambda model, scope: mask(model, scope, lambda query, key, begin, end, _r, _w: plant_masks.windowed(query, key, window)),
                 part("sliding_window", float(window), *TAPS), ids=["window-on-global-too"] if window == right else [])


def draw_mask(rng, engine):
    """Causality and which keys are hidden."""
    n = rng.randint(1, 4)
    kind = rng.choice((None, FULL, SLIDING))
    forms = {
        "not causal": (lambda q, k, b, e, r, w: r | (k > q) & (k - q < w), False),
        f"offset {n}": (lambda q, k, b, e, r, w: (k <= q + n) & (r | (k > q)), False),
        f"first {n} keys hidden": (lambda q, k, b, e, r, w: r & ((k >= n) | (k == q)), False),
        f"blocks of {4 * n}": (lambda q, k, b, e, r, w: r & (k // (4 * n) == q // (4 * n)), False),
        "self hidden": (lambda q, k, b, e, r, w: r & (k != q), True),
        f"offset -{n}": (lambda q, k, b, e, r, w: r & (k <= q - n), True),
    }
    text = rng.choice(sorted(forms))
    visible, nothing = forms[text]
    said = [part("attn.mask", text, *TAPS)]
    if text == "offset -1":
        said.append(part("attn.mask", "self hidden", *TAPS))
    if text == "self hidden":
        said.append(part("attn.mask", "offset -1", *TAPS))
    ids = {"not causal": ["attention-not-causal", "chunk-not-causal"], "self hidden": ["own-position-masked"],
           "offset -1": ["own-position-masked"]}.get(text, [])
    if text.startswith("blocks") and 4 * n >= length(engine):
        return None
    return fault(FAMILY, f"{text}, {kind or 'all'} layers", draw_scope(rng, engine, kind), "attn.probs",
                 lambda model, scope: mask(model, scope, visible, nothing), *said, ids=ids)


def draw_scale(rng, engine):
    kind = rng.choice((FULL, SLIDING))
    H, _, D = engine.heads(kind)
    d = engine.config["hidden_size"]
    name, scale = rng.choice((("head_dim^-0.5", D ** -0.5), ("", draw_factor(rng)), ("", draw_factor(rng)), ("(d/H)^-0.5", (d / H) ** -0.5),
                              ("hidden_size^-0.5", d ** -0.5), ("1/D", 1 / D), ("2", 2.0)))
    scope = draw_scope(rng, engine, kind)
    ids = {"head_dim^-0.5": ["attn-scale-inv-sqrt-d"], "(d/H)^-0.5": ["attn-scale-27b-exception"]}.get(name, [])

    return fault(FAMILY, f"scores times {scale:.6g} {name}".strip(), scope, "attn.scores",
                 lambda model, scope: steps.change_result(model, scope, "attn.scores", lambda layer, s: s * scale),
                 part("attn.scale", scale, *TAPS),
                 part(("result.factor", "weight.factor"), scale, "attn.scores", "attn.q_norm", "attn.k_norm", "q_norm", "k_norm",
                      "attn.q_rope", "attn.k_rope"), ids=ids)


def draw_cap(rng, engine):
    cap = float(rng.choice((50, 30, 20, 10, 5, rng.randint(4, 40))))
    return fault(FAMILY, f"scores capped at {cap:g}", draw_scope(rng, engine), "attn.scores",
                 lambda model, scope: steps.change_result(model, scope, "attn.scores", lambda layer, s: torch.tanh(s / cap) * cap),
                 part("attn.softcap", cap, *TAPS), ids=["attn-softcap-50-inherited"] if cap == 50 else [])


def maps(rng, H, G):
    """{how: the KV head of each query head}"""
    right = [h // (H // G) for h in range(H)]
    return {"reversed": [G - 1 - g for g in right], "rolled": [(g + 1) % G for g in right], "modulo": [h % G for h in range(H)],
            "random": [rng.randrange(G) for _ in range(H)], "one other": [(g + 1) % G if h == H // 2 else g for h, g in enumerate(right)],
            "the first": [0] * H}


def regroup(model, scope, keys, values):
    """Query head h reads key head keys[h] and value head values[h]; None: the right ones."""
    acts = scope.acts(model)

    def attention(module, query, key, value, mask, scaling):
        repeated = [modeling_gemma4.repeat_kv(t, module.num_key_value_groups) for t in (key, value)]
        chosen = [t if heads is None or not acts() else own[:, heads] for t, own, heads in zip(repeated, (key, value), (keys, values))]
        return seams.attend(query, *chosen, mask, scaling)

    for layer in scope.chosen(model):
        seams.replace_attention(layer, attention)


def in_order(how, G, letter):
    text = ("heads reversed",) if how == "reversed" else tuple(f"heads rolled by {s}" for s in (1, -1, G - 1, 1 - G))
    names, places = ("weights.order", "result.order"), ("k_proj", "attn.k") if letter == "K" else ("v_proj", "attn.v")
    return part(names, {*text, *(f"rows {t}" for t in text)}, *places)


def draw_map(rng, engine):
    kind = rng.choice([k for k in (FULL, SLIDING) if engine.heads(k)[1] > 1] or [None])
    if kind is None:
        return None
    H, G, _ = engine.heads(kind)
    how, heads = rng.choice(sorted(maps(rng, H, G).items()))
    right = [h // (H // G) for h in range(H)]
    if heads == right:
        return None
    which = rng.choice(("K", "V", "K and V"))
    keys, values = heads if "K" in which else None, heads if "V" in which else None
    of_k, of_v = part("attn.k_head_of", heads, *TAPS), part("attn.v_head_of", heads, *TAPS)
    said = {"K": [of_k], "V": [of_v], "K and V": [part("attn.kv_head_of", heads, *TAPS), (of_k, of_v)]}[which]
    if kind == SLIDING and how in ("reversed", "rolled"):  # the heads of k_proj and v_proj, in that order
        said.append(tuple(in_order(how, G, letter) for letter in "KV" if letter in which))
    ids = {("modulo", "K and V"): ["kv-grouping-modulo"], ("the first", "K and V"): ["kv-grouping-first-head"],
           ("rolled", "V"): ["v-head-off-by-one"]}.get((how, which), [])
    return fault(FAMILY, f"query heads read {which} of heads {heads} ({how}) on {kind} layers", draw_scope(rng, engine, kind),
                 "attn.context" if which == "V" else "attn.scores", lambda model, scope: regroup(model, scope, keys, values), *said,
                 ids=ids)


DRAWS = [draw_window] * 4 + [draw_window_on_full] + [draw_mask] * 4 + [draw_scale] * 2 + [draw_cap] * 2 + [draw_map] * 5
