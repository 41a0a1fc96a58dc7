"""Drawn faults of routing: how many experts and which, their weights, what becomes of per_expert_scale."""

import types

import torch

import plant_experts
from identify_faults import draw_scope, fault
from identify_truths import part

FAMILY = "routing"
IDS, NORM, WEIGHTS = "router.topk_ids", "router.topk_norm", "router.topk_weights"


def best_of(values, k):
    return values.topk(k, dim=-1).indices


def right_weights(logits, probs, ids, scale):
    chosen = probs.gather(-1, ids)
    return chosen / chosen.sum(dim=-1, keepdim=True)


def route(model, scope, choose=None, weigh=right_weights, scaled=lambda weights, scale, ids: weights * scale[ids]):
    """choose(logits, probs, scale, k) -> ids; weigh(logits, probs, ids, scale) -> topk_norm; scaled(topk_norm, scale, ids) -> weights."""
    acts = scope.acts(model)

    def forward(router, x):
        logits = router.proj(router.norm(x) * router.scale * router.scalar_root_size)
        probs = torch.softmax(logits, dim=-1, dtype=torch.float32)
        k, scale = router.config.top_k_experts, router.per_expert_scale
        ids = best_of(probs, k)
        if not acts():
            router.topk_norm = right_weights(logits, probs, ids, scale)
            return probs, router.topk_norm * scale[ids], ids
        ids = choose(logits, probs, scale, k) if choose else ids
        router.topk_norm = weigh(logits.float(), probs, ids, scale)
        return probs, scaled(router.topk_norm, scale, ids), ids

    for layer in scope.chosen(model):
        layer.router.forward = types.MethodType(forward, layer.router)


# --- which experts --------------------------------------------------------------------------------------------------------


def draw_count(rng, engine):
    K, E = engine.config["top_k_experts"], engine.config["num_experts"]
    k = rng.choice([n for n in (1, K - 2, K - 1, K + 1, K + 2, 2 * K) if 0 < n < E and n != K])
    answers = [part("top_k_experts", float(k), IDS)]
    if k < K:
        answers.append(part("experts.missing", list(map(float, range(k, K))), "moe.out", NORM))
    return fault(FAMILY, f"{k} experts for {K}", draw_scope(rng, engine, when=False), IDS,
                 lambda model, scope: route(model, scope, lambda logits, probs, scale, _k: best_of(probs, k)), *answers,
                 ids=["topk-one-fewer"] if k == K - 1 else [])


def draw_choice(rng, engine):
    K, E = engine.config["top_k_experts"], engine.config["num_experts"]
    r, n = rng.randrange(K), rng.choice((1, 2, 3, -1, -2, E // 2))
    forms = {
        "smallest": (lambda logits, probs, scale, k: best_of(-logits, k), ["topk-smallest"]),
        f"rank {r} skipped": (lambda logits, probs, scale, k: drop_rank(best_of(probs, k + 1), r), []),
        "by scaled probabilities": (lambda logits, probs, scale, k: best_of(probs * scale.float(), k), []),
        "by bfloat16 logits": (lambda logits, probs, scale, k: best_of(logits.bfloat16().float(), k), []),
    }
    forms |= {f"best {m} of each group of {E * m // K}": (of_groups(m, E * m // K), []) for m in (1, 2, 4) if E * m % K == 0 and m < K
              and E % (E * m // K) == 0}
    text = rng.choice(sorted(forms) + [f"ids shifted by {n}"] * 2 + ["by scaled probabilities"])
    if text.startswith("ids"):
        return draw_shift(rng, engine, n, E)
    choose, ids = forms[text]
    answers = [part("router.choice", text, IDS)]
    if text.startswith("rank"):  # counted from 1 by some
        answers += [part("router.choice", f"rank {r + 1} skipped", IDS)]
    return fault(FAMILY, f"experts chosen: {text}", draw_scope(rng, engine), IDS, lambda model, scope: route(model, scope, choose),
                 *answers, ids=ids)


def drop_rank(ids, r):
    return torch.cat((ids[:, :r], ids[:, r + 1:]), dim=-1)


def of_groups(m, size):
    """The best m of each group of neighbouring experts, best first."""

    def choose(logits, probs, scale, k):
        groups = probs.unflatten(-1, (-1, size))
        ids = groups.topk(m, dim=-1).indices + torch.arange(groups.shape[-2])[:, None] * size
        ids = ids.flatten(-2)
        return ids.gather(-1, probs.gather(-1, ids).argsort(dim=-1, descending=True))

    return choose


def draw_shift(rng, engine, n, E):
    """Other experts with the weights of the right ones."""

    def shifted(model, scope):
        route(model, scope, lambda logits, probs, scale, k: (best_of(probs, k) + n) % E,
              lambda logits, probs, ids, scale: right_weights(logits, probs, (ids - n) % E, scale))

    texts = {f"ids shifted by {m}" for m in (n, n % E, n % E - E)}
    return fault(FAMILY, f"ids shifted by {n}", draw_scope(rng, engine), IDS, shifted, part("router.choice", texts, IDS),
                 ids=["topk-ids-off-by-one"] if n == 1 else [])


# --- with which weights ---------------------------------------------------------------------------------------------------


def normalised(w):
    return w / w.sum(dim=-1, keepdim=True)


def draw_weights(rng, engine):
    a = round(rng.choice((0.5, 2.0, 3.0, rng.uniform(0.3, 0.85), rng.uniform(1.2, 2.5))), 3)
    forms = {
        "p": (lambda logits, probs, ids, scale: probs.gather(-1, ids), ["topk-not-renormalised"]),
        f"p^{a:g}": (lambda logits, probs, ids, scale: normalised(probs.gather(-1, ids) ** a), []),
        "softmax of p": (lambda logits, probs, ids, scale: torch.softmax(probs.gather(-1, ids), dim=-1), ["topk-softmax-twice"]),
        "sigmoid": (lambda logits, probs, ids, scale: normalised(torch.sigmoid(logits.gather(-1, ids))), ["router-sigmoid"]),
        "1 / K": (lambda logits, probs, ids, scale: torch.full(ids.shape, 1 / ids.shape[-1]), ["routing-weights-uniform"]),
    }
    text = rng.choice(sorted(forms) + [f"p^{a:g}"] * 3)
    weigh, ids = forms[text]
    answers = [part("router.weights", text, NORM, WEIGHTS)]
    if text.startswith("p^"):
        answers.append(part(("result.factor", "weight.factor"), a, "router.logits", "router.norm", "router.proj", "router.scale"))
    if text == "p":
        answers.append(part("router.weights", "softmax of logits over all", NORM, WEIGHTS))
    return fault(FAMILY, f"weights {text}", draw_scope(rng, engine), NORM, lambda model, scope: route(model, scope, weigh=weigh), *answers,
                 ids=ids)


def draw_missing(rng, engine):
    """Ranks whose experts are not in the sum."""
    K = engine.config["top_k_experts"]
    ranks = sorted(rng.sample(range(K), rng.randint(1, max(1, K // 2))))
    ids = (["last-expert-dropped"] if ranks == [K - 1] else []) + (["first-expert-only"] if ranks == list(range(1, K)) else [])

    def install(model, scope):
        acts = scope.acts(model)

        def weigh(_ids, weights):
            kept = torch.tensor([r not in ranks for r in range(weights.shape[-1])])
            return weights * kept if acts() else weights

        for layer in scope.chosen(model):
            plant_experts.reweigh(layer, weigh)

    factors = [0.0 if r in ranks else 1.0 for r in range(K)]
    return fault(FAMILY, f"ranks {ranks} missing from the sum", draw_scope(rng, engine), "moe.out", install,
                 part("experts.missing", list(map(float, ranks)), "moe.out"), part("experts.missing", [r + 1.0 for r in ranks], "moe.out"),
                 part(("result.factors", "weight.factors"), factors, "moe.out", "moe.act", WEIGHTS), ids=ids)


def draw_scale(rng, engine):
    """Forms of per_expert_scale."""
    E, n = engine.config["num_experts"], rng.choice((1, 2, -1, 5))
    rolled = {f"experts rolled by {m}" for m in (n % E, -n % E, n % E - E, -n % E - E)}
    forms = {
        "1": lambda w, scale, ids: w, "w^2": lambda w, scale, ids: w * scale[ids].float() ** 2,
        "1 / w": lambda w, scale, ids: w / scale[ids].float(), "sqrt(w)": lambda w, scale, ids: w * scale[ids].float().sqrt(),
        "1 + w": lambda w, scale, ids: w * (1 + scale[ids].float()), "by rank": lambda w, scale, ids: w * scale[:ids.shape[-1]],
        "rolled": lambda w, scale, ids: w * scale.roll(n)[ids],
    }
    text = rng.choice(sorted(forms))
    names = {"by rank": part("router.weights", "scaled by rank", WEIGHTS),
             "rolled": part(("weights.order", "result.order"), rolled | {f"rows {t}" for t in rolled}, WEIGHTS, "per_expert_scale")}
    said = names.get(text, part("weight.form", text, WEIGHTS, "per_expert_scale"))
    ids = {"1": ["per-expert-scale-missing"], "w^2": ["per-expert-scale-twice"], "by rank": ["per-expert-scale-by-rank"]}.get(text, [])
    return fault(FAMILY, f"per_expert_scale {text}{f' by {n}' if text == 'rolled' else ''}", draw_scope(rng, engine), WEIGHTS,
                 lambda model, scope: route(model, scope, scaled=forms[text]), said, ids=ids)


def draw_scaled_first(rng, engine):
    """Scaled first, then divided by their sum."""
    return fault(FAMILY, "per_expert_scale before the division", draw_scope(rng, engine), NORM,
                 lambda model, scope: route(model, scope, weigh=lambda logits, probs, ids, scale: normalised(
                     probs.gather(-1, ids) * scale[ids]), scaled=lambda w, scale, ids: w),
                 part("router.weights", "scaled before the division", NORM), ids=["per-expert-scale-before-normalising"])


DRAWS = [draw_count] * 2 + [draw_choice] * 4 + [draw_weights] * 4 + [draw_missing] * 2 + [draw_scale] * 4 + [draw_scaled_first]

