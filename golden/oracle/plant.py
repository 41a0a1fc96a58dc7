"""Known porting mistakes, planted into the published implementation.

FAULTS holds every mistake; each is a few lines in a plant_*.py file that make a model compute that mistake and nothing else wrong,
by a hook, a changed parameter or a replaced operation (seams.py). Planting comes before taps.py adds its own hooks, so a dump
holds what the faulty engine holds.
"""

import fnmatch

from faults import FAULTS, FULL, SLIDING

import plant_attention  # noqa: F401  (these fill FAULTS)
import plant_experts  # noqa: F401
import plant_masks  # noqa: F401
import plant_norms  # noqa: F401
import plant_rope  # noqa: F401
import plant_router  # noqa: F401
import plant_stream  # noqa: F401


def chosen(model, fault, layers=None):
    """The decoder layers, out of those indices (None: all), in which the fault acts."""
    kind, types = FAULTS[fault].kind, model.config.layer_types
    indices = range(len(types)) if layers is None else layers
    return [model.model.layers[i] for i in indices if kind is None or types[i] == kind]


def plant(model, fault, layers=None):
    """Plants one fault; layers None: wherever it can act. ValueError for an unknown name or where it acts in none of the layers."""
    if fault not in FAULTS:
        raise ValueError(f"unknown fault {fault}; known: {', '.join(sorted(FAULTS))}")
    acts_in = chosen(model, fault, layers)
    if not acts_in:
        raise ValueError(f"{fault} acts in none of the layers {layers}")
    FAULTS[fault].install(model, acts_in)


def held(fault, recorded):
    """The taps that the faulty engine has, of those recorded."""
    return {n: t for n, t in recorded.items() if not any(fnmatch.fnmatchcase(n, p) for p in FAULTS[fault].leaves_out)}


def first_tap(fault, layer_types, layers=None, fused=False):
    """The first tap that is wrong; fused: the engine holds neither scores nor probabilities."""
    found = FAULTS[fault]
    if found.first in ("embed", "final_norm", "logits_raw", "logits"):
        return found.first
    indices = range(len(layer_types)) if layers is None else layers
    layer = next(i for i in indices if found.kind is None or layer_types[i] == found.kind)
    if found.cause == "hidden-pre-vs-post-final-norm":
        layer = len(layer_types) - 1
    hidden = fused and found.first in ("attn.scores", "attn.probs")
    return f"layers.{layer}.{'attn.context' if hidden else found.first}"


__all__ = ["FAULTS", "FULL", "SLIDING", "chosen", "first_tap", "held", "plant"]
