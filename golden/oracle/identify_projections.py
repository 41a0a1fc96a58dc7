"""Drawn faults of matrices: rows or columns in another order, transposed, a tail not read, another tensor, another layer's."""

import torch

import identify_orders as orders
import identify_steps as steps
from faults import FULL, SLIDING
from identify_faults import draw_layer, draw_scope, fault
from identify_truths import part

FAMILY = "projections"
MATRICES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "router.proj", "experts.gate_up_proj",
            "experts.down_proj"]
BY_KIND = ("q_proj", "k_proj", "v_proj", "o_proj")  # their shapes differ from kind to kind
EXPERTS = ("experts.gate_up_proj", "experts.down_proj")


def shape_of(engine, field, kind):
    """The matrix's shape; of experts with their number before it."""
    c, (H, G, D) = engine.config, engine.heads(kind)
    d, F, E, M = c["hidden_size"], c["intermediate_size"], c["num_experts"], c["moe_intermediate_size"]
    return {"q_proj": (H * D, d), "k_proj": (G * D, d), "v_proj": (G * D, d), "o_proj": (d, H * D), "gate_proj": (F, d), "up_proj": (F, d),
            "down_proj": (d, F), "router.proj": (E, d), "experts.gate_up_proj": (E, 2 * M, d), "experts.down_proj": (E, d, M)}[field]


def draw_place(rng, engine, fields=MATRICES):
    """(field, kind or None, scope, tap)"""
    field = rng.choice(list(fields))
    kind = (SLIDING if field == "v_proj" else rng.choice((FULL, SLIDING))) if field in BY_KIND else None
    return field, kind, draw_scope(rng, engine, kind), steps.TENSORS[field][2]


def head_of(engine, field, axis, kind):
    """Lanes in a head, on the axis that has heads."""
    has_heads = axis == "rows" and field in ("q_proj", "k_proj", "v_proj") or axis == "columns" and field == "o_proj"
    return engine.heads(kind)[2] if has_heads else None


def changed(field, change):
    return lambda model, scope: steps.change_weight(model, scope, field, change)


# --- order ------------------------------------------------------------------------------------------------------------------


def draw_order(rng, engine):
    field, kind, scope, tap = draw_place(rng, engine)
    shape = shape_of(engine, field, kind or SLIDING)
    axis = rng.choice(("rows", "columns", "experts") if field in EXPERTS else ("rows", "columns"))
    n, head = shape[{"rows": -2, "columns": -1, "experts": 0}[axis]], head_of(engine, field, axis, kind)
    (unit, what, where), permutation = rng.choice(sorted(orders.permutations(n, head).items(), key=lambda item: item[0]))
    dim = {"rows": -2, "columns": -1, "experts": 0}[axis]
    answers = answers_of_order(engine, field, kind, axis, permutation, head, tap)
    shown = unit if axis != "experts" else "experts"
    return fault(FAMILY, f"{field} {axis} {shown} {what} ({where})", scope, tap,
                 changed(field, lambda layer, w: w.index_select(dim, permutation)), *answers)


def answers_of_order(engine, field, kind, axis, permutation, head, tap):
    texts = orders.texts(permutation, head)
    if axis == "experts" or field == "router.proj" and axis == "rows":
        texts |= {t.replace("lanes", "experts") for t in texts}
    said = {f"{axis} {t}" for t in texts} | texts | {f"rows {t}" for t in texts if axis == "experts"}
    answers = [part("weights.order", said, field, tap), part("result.order" if axis == "rows" else "input.order", texts, tap, field)]
    if field == "experts.gate_up_proj" and axis == "rows":
        half = len(permutation) // 2
        if torch.equal(permutation, torch.arange(2 * half).roll(half)):
            answers.append(part("gate_and_up", "exchanged", tap))
        if torch.equal(permutation, torch.cat((torch.arange(0, 2 * half, 2), torch.arange(1, 2 * half, 2)))):
            answers.append(part("gate_and_up", "interleaved", tap))
    if field == "router.proj" and axis == "rows":  # every expert has another's logit, so another is chosen by it
        n = len(permutation)
        answers += [part("router.choice", {f"ids shifted by {m}" for m in (s, s - n)}, "router.topk_ids")
                    for s in range(1, n) if torch.equal(permutation, torch.arange(n).roll(s))]
    if field in ("k_proj", "v_proj") and axis == "rows":
        answers += answers_of_heads(engine, field, kind, permutation)
    return answers


def answers_of_heads(engine, field, kind, permutation):
    """Whole KV heads in another order: what their query heads read."""
    H, G, D = engine.heads(kind)
    heads = permutation.view(G, D)
    if not torch.equal(heads, (heads[:, :1] // D) * D + torch.arange(D)):
        return []
    of_query = [int(heads[h // (H // G), 0]) // D for h in range(H)]
    names = ["attn.v_head_of"] if field == "v_proj" else ["attn.k_head_of"] if kind == SLIDING else ["attn.kv_head_of"]
    return [part(names, of_query)]


def draw_both_experts(rng, engine):
    """Both of the experts' tensors in the same other order of experts."""
    E = engine.config["num_experts"]
    (_, what, _), permutation = rng.choice(sorted(orders.permutations(E, None).items(), key=lambda item: item[0]))

    def install(model, scope):
        for field in EXPERTS:
            steps.change_weight(model, scope, field, lambda layer, w: w[permutation])

    answers = [answers_of_order(engine, field, None, "experts", permutation, None, tap)[0]
               for field, tap in (("experts.gate_up_proj", "moe.act"), ("experts.down_proj", "moe.out"))]
    first = torch.equal(permutation, torch.arange(E).roll(-1))
    return fault(FAMILY, f"experts {what}", draw_scope(rng, engine), "moe.act", install, tuple(answers), (answers[0],),
                 ids=["experts-off-by-one"] if first else [])


def draw_repeated(rng, engine):
    """The first head's rows stand in for every head's, or the first expert for every expert."""
    field, kind, scope, tap = draw_place(rng, engine, ("q_proj", "k_proj", "v_proj", *EXPERTS))
    H, G, D = engine.heads(kind or SLIDING)
    if field in EXPERTS:
        unit, change = "experts", lambda layer, w: w[:1].expand_as(w)
    else:
        unit, change = "rows heads", lambda layer, w: w[:D].repeat(w.shape[0] // D, 1)
    answers = [part("weights.order", (f"{unit} repeated", f"rows {unit.split()[-1]} repeated", f"{unit.split()[-1]} repeated"), field, tap)]
    if field in ("k_proj", "v_proj"):
        names = "attn.v_head_of" if field == "v_proj" else "attn.k_head_of" if kind == SLIDING else "attn.kv_head_of"
        answers.append(part(names, [0.0] * H))
    return None if field == "k_proj" and G == 1 else fault(
        FAMILY, f"{field}: the first of the {unit} for all", scope, tap, changed(field, change), *answers)


def draw_transposed(rng, engine):
    """Square ones, and every expert's block of memory read the other way round."""
    field, kind, scope, tap = draw_place(rng, engine, MATRICES + list(EXPERTS) * 2)
    shape = shape_of(engine, field, kind or SLIDING)
    if field not in EXPERTS and shape[0] != shape[1]:
        return None
    rows, columns = shape[-2:]
    return fault(FAMILY, f"{field} transposed", scope, tap,
                 changed(field, lambda layer, w: w.reshape(*w.shape[:-2], columns, rows).transpose(-1, -2)),
                 part("weights.order", "transposed", field, tap), ids=["expert-transpose"] if field in EXPERTS else [])


# --- what is not read, or read from elsewhere -------------------------------------------------------------------------------


def draw_zero(rng, engine):
    """A tail of rows, columns, heads or experts is 0."""
    field, kind, scope, tap = draw_place(rng, engine)
    shape = shape_of(engine, field, kind or SLIDING)
    axis = rng.choice(("rows", "columns", "experts") if field in EXPERTS else ("rows", "columns"))
    dim = {"rows": -2, "columns": -1, "experts": 0}[axis]
    n, head = shape[dim], head_of(engine, field, axis, kind)
    unit = head if head and rng.random() < 0.5 else 1
    count = rng.choice([k for k in (1, 2, n // unit // 8, n // unit // 4, n // unit // 2) if 0 < k < n // unit] or [0])
    if count == 0:
        return None
    first = n - count * unit

    def change(layer, w):
        w.narrow(dim, first, n - first).zero_()
        return w

    said = ranges(first, n, "rows lanes".split() if axis == "rows" else "columns lanes".split() if axis == "columns" else ["experts"])
    if field == "router.proj" and axis == "rows":
        said |= ranges(first, n, ["experts"])
    if head and first % head == 0:
        said |= ranges(first // head, n // head, ["heads"])
    ids = {("experts.down_proj", "columns", M // 4): ["expert-quant-tail"] for M in [shape[-1]]}.get((field, axis, n - first), [])
    return fault(FAMILY, f"{field} {axis} from {first} of {n} on are 0", scope, tap, changed(field, change),
                 part(("weight.zero", "result.zero", "input.zero"), said, field, tap), *same_tails(field, axis, first, n), ids=ids)


def same_tails(field, axis, first, n):
    """Without the product of gate and up, lanes of it that are 0 are rows of up or columns of down that are: the same. n is their end."""
    rows, columns, zero = ("rows", "lanes"), ("columns", "lanes"), "weight.zero"
    if (field, axis) == ("down_proj", "columns"):
        return [part(zero, ranges(first, n, rows), up) for up in ("up_proj", "gate_proj")]
    if (field, axis) in (("up_proj", "rows"), ("gate_proj", "rows")):
        return [part(zero, ranges(first, n, columns), "down_proj")]
    if (field, axis) == ("experts.down_proj", "columns"):
        return [part(zero, ranges(n + first, 2 * n, rows), "experts.gate_up_proj", "gate_up_proj")]
    if (field, axis) == ("experts.gate_up_proj", "rows") and 2 * first >= n:
        return [part(zero, ranges(first - n // 2, n // 2, columns), "experts.down_proj", "down_proj")]
    return []


def ranges(first, end, units):
    """The end may be meant with or without itself; a single one may be said alone."""
    found = {f"{unit} {first}-{last}" for unit in units for last in (end - 1, end)}
    return found | ({f"{unit} {first}" for unit in units} if end == first + 1 else set())


def draw_tensor(rng, engine):
    """Another matrix of the same shape."""
    field, kind, scope, tap = draw_place(rng, engine, [f for f in MATRICES if f not in EXPERTS])
    shape = shape_of(engine, field, kind or SLIDING)
    others = [f for f in MATRICES if f != field and f not in EXPERTS and shape_of(engine, f, kind or SLIDING) == shape]
    if kind is None:
        others = [f for f in others if f not in BY_KIND]
    if kind == FULL:
        others = [f for f in others if f != "v_proj"]
    if not others:
        return None
    other = rng.choice(others)
    ids = {("v_proj", "k_proj"): ["keqv-on-sliding-layers"]}.get((field, other), [])

    def install(model, scope):
        own = {layer.layer_idx: steps.weight_of(layer, other).clone() for layer in scope.chosen(model)}
        steps.change_weight(model, scope, field, lambda layer, w: own[layer.layer_idx])

    return fault(FAMILY, f"{other} read as {field}", scope, tap, install, part("weight.tensor", other, field, tap), ids=ids)


def draw_other_layer(rng, engine):
    field, kind, scope, tap = draw_place(rng, engine)
    other = draw_layer(rng, engine)

    def install(model, scope):
        own = [steps.weight_of(layer, field) for layer in model.model.layers]
        own = [None if w is None else w.clone() for w in own]

        def of(layer, w):
            found = own[other.of(layer.layer_idx)]
            return found if found is not None and found.shape == w.shape else w

        steps.change_weight(model, scope, field, of)

    return fault(FAMILY, f"{field} of layer {other}", scope, tap, install, *other.answers(scope, field, tap),
                 partly=other.partly(scope, field, tap))


DRAWS = [draw_order] * 8 + [draw_both_experts, draw_repeated] + [draw_transposed] * 3 + [draw_zero] * 3 + [draw_tensor] * 3 + [
    draw_other_layer] * 3
