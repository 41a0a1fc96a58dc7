"""A drawn fault in its engine: which draw it is, what the engine holds, where the fault enters, which known mistake is the same."""

import dataclasses
import functools
import random

import torch

import identify_activation
import identify_attention
import identify_engines
import identify_fused
import identify_inputs
import identify_norms
import identify_precision
import identify_projections
import identify_rope
import identify_routing
import identify_scalars
import identify_steps as steps
import identify_truths as truths
import plant
import taps

FAMILIES = {module.FAMILY: module for module in (
    identify_scalars, identify_norms, identify_rope, identify_attention, identify_activation, identify_routing, identify_projections,
    identify_precision, identify_inputs, identify_fused)}
ATTEMPTS = 200
UNCHANGED = 1e-6  # of a tensor's RMS: what another order of the same sums may do in float32
SAME = 2e-5       # of a tensor's RMS: two ways to compute the same mistake


@dataclasses.dataclass(frozen=True)
class Slot:
    """One draw: the same seed gives the same fault, whatever else is drawn."""

    family: str
    index: int
    seed: int
    judgements: tuple  # (dtype, tap set)

    def draw(self, attempt):
        """(engine, faults), or None where that family has nothing to plant into that engine."""
        rng = random.Random(f"{self.seed} {self.family} {self.index} {attempt}")
        engine = rng.choice(engines())
        module = FAMILIES[self.family]
        if self.family == "fused":
            several = module.draw_several(rng, engine)
            return several and (engine, several)
        one = rng.choice(module.DRAWS)(rng, engine)
        return one and (engine, [one])


@functools.lru_cache(maxsize=1)
def engines():
    return identify_engines.engines()


def record(engine, dtype, plants):
    """The taps of a model into which each of `plants` (functions of the model) has been planted."""
    m = engine.model(dtype)
    for install in plants:
        install(m)
    return taps.run(m, list(engine.tokens), engine.first_position, list(engine.schedule), strict=not plants)


@functools.lru_cache(maxsize=4)
def right_run(engine, dtype):
    return record(engine, dtype, ())


def differs(a, b, share):
    """Do two tensors of a tap differ by more than `share` of their RMS?"""
    if a.shape != b.shape:
        return True
    if not a.is_floating_point():
        return not torch.equal(a, b)
    a, b = a.double(), b.double()
    if not torch.isfinite(b).all():
        return True
    return float((a - b).pow(2).mean().sqrt()) > share * float(a.pow(2).mean().sqrt())


def first_difference(right, faulty):
    """The first tap, in dataflow order, that the fault has changed; None if it has changed nothing."""
    return next((name for name in right if name in faulty
                 and differs(meant(right, name, right), meant(faulty, name, right), UNCHANGED)), None)


def meant(run, name, right):
    """A tap's tensor, without what means nothing: scores of keys that a query does not see."""
    if not name.endswith(".attn.scores"):
        return run[name]
    return run[name] * (right[name.replace("scores", "probs")] != 0)


def plant_slot(slot):
    """(engine, faults, taps in float32, the first tap that differs) of the first draw that has an effect."""
    for attempt in range(ATTEMPTS):
        drawn = slot.draw(attempt)
        if drawn is None:
            continue
        engine, several = drawn
        recorded = record(engine, "float32", [f.plant for f in several])
        first = first_difference(right_run(engine, "float32"), recorded)
        if first is not None and all(has_effect(engine, f) for f in several if len(several) > 1):
            return engine, several, recorded, first
    raise RuntimeError("no draw has an effect")


def has_effect(engine, fault):
    return first_difference(right_run(engine, "float32"), record(engine, "float32", [fault.plant])) is not None


def enters_where_claimed(several, first):
    """Is the first tap that differs one of those that a fault claims, in a layer in which it acts?"""
    layer = int(first.split(".")[1]) if first.startswith("layers.") else None
    return any(truths.kind(first) in f.first and (layer is None or layer in f.scope.layers) for f in several)


class Planted:
    """A slot's faults in their engine, and whether a catalogued mistake is the same."""

    def __init__(self, slot):
        self.slot = slot
        self.engine, self.faults, self.recorded, self.first = plant_slot(slot)
        self.same = {}  # (cause id, its layers, whether in all taps) -> bool

    def __str__(self):
        schedule = ",".join(map(str, self.engine.schedule))
        return f"{self.engine.name} ({schedule}): " + " AND ".join(map(str, self.faults))

    def taps_of(self, dtype, tap_set):
        recorded = self.recorded if dtype == "float32" else record(self.engine, dtype, [f.plant for f in self.faults])
        hidden = identify_fused.HIDDEN if tap_set == "fused" else ()
        return {name: t for name, t in recorded.items() if truths.kind(name) not in hidden}

    def is_catalogued(self, cause, everywhere):
        """Does that mistake of the catalogue, planted in the same layers or in those that the cause names, give the same tensors?

        What acts in some chunks only is compared where both act in all."""
        if len(self.faults) > 1:
            return False
        key = cause["id"], str(cause.get("layers")), everywhere
        if key not in self.same:
            names = [name for name, f in plant.FAULTS.items() if f.cause == cause["id"]]
            places = {self.faults[0].scope.layers, truths.layers_of(cause)} - {()}
            self.same[key] = any(self.gives_the_same(name, layers, everywhere) for name in names for layers in sorted(places))
        return self.same[key]

    def gives_the_same(self, name, layers, everywhere):
        try:
            other = record(self.engine, "float32", [lambda m: plant.plant(m, name, layers)])
            everywhen = self.in_all_chunks()
        except (ValueError, RuntimeError, KeyError, IndexError, TypeError):
            return False
        compared = [tap for tap in everywhen if tap in other and tap not in ("tokens", "positions")
                    and (everywhere or tap == "logits" or tap.endswith(".output"))]
        return not any(differs(everywhen[tap], other[tap], SAME) for tap in compared)

    def in_all_chunks(self):
        """What the fault gives that acts in all chunks."""
        fault = self.faults[0]
        if fault.scope.when == steps.ALL:
            return self.recorded
        everywhere = dataclasses.replace(fault, scope=dataclasses.replace(fault.scope, when=steps.ALL))
        return record(self.engine, "float32", [everywhere.plant])
