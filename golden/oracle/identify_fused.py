"""One to three faults at once between router.logits and moe.out, of an engine that holds nothing in between."""

import identify_activation
import identify_projections
import identify_routing
import identify_scalars
import identify_steps as steps

FAMILY = "fused"
HIDDEN = ("router.probs", "router.topk_ids", "router.topk_norm", "router.topk_weights", "moe.norm", "moe.act")
INSIDE = (*HIDDEN, "moe.out")
FAMILIES = (identify_scalars, identify_activation, identify_routing, identify_projections)

# Faults of one group replace the same thing, or cannot be told apart: at most one of each.
def group(fault):
    """Routing is replaced as a whole; a factor behind it is one number, wherever it was made."""
    tap = fault.first[0]
    if tap.startswith("router."):
        return {"routing", "weights"}
    return {tap, "weights"} if fault.family == "scalars" and tap != "moe.norm" else {tap}


def draw_several(rng, engine):
    """A list of faults in all layers."""
    wanted, drawn, taken = rng.choice((1, 1, 2, 2, 3)), [], set()
    for _ in range(400):
        one = rng.choice(rng.choice(FAMILIES).DRAWS)(rng, engine)
        if one is None or one.first[0] not in INSIDE or one.scope.layers != engine.layers_of() or one.scope.when != steps.ALL:
            continue
        if taken & group(one):
            continue
        drawn.append(one)
        taken |= group(one)
        if len(drawn) == wanted:
            return drawn
    return None
