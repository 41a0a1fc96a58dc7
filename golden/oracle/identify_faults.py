"""What a drawn fault is, and the parts that all families draw alike: the layers and chunks in which it acts, and factors."""

import dataclasses
import math

import identify_steps as steps
from faults import FULL, SLIDING
from identify_truths import part


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault, drawn: install(model, scope) plants it."""

    family: str
    text: str
    scope: steps.Scope
    first: tuple      # kinds of taps: at one of these it enters
    install: object
    answers: tuple = ()  # of tuples of identify_truths.Part
    ids: frozenset = frozenset()  # ids of the catalogue that say the same
    partly: tuple = ()  # of (layer, parts, ids): true there, and not all that is to be said

    def plant(self, model):
        self.install(model, self.scope)

    def __str__(self):
        return f"{self.text} [{self.scope}]"


def fault(family, text, scope, first, install, *answers, ids=(), partly=()):
    """first may be one kind; an answer may be one part."""
    first = (first,) if isinstance(first, str) else tuple(first)
    answers = tuple(answer if isinstance(answer, tuple) else (answer,) for answer in answers)
    return Fault(family, text, scope, first, install, answers, frozenset(ids), tuple(partly))


def draw_scope(rng, engine, kind=None, when=True):
    """Mostly all layers (of the kind), sometimes one kind, one layer, or from one layer on; sometimes only later chunks, or only decode."""
    layers, where = engine.layers_of(kind), rng.random()
    if kind is None and where < 0.12:
        layers = engine.layers_of(rng.choice((FULL, SLIDING)))
    elif where < 0.28:
        layers = (rng.choice(layers),)
    elif where < 0.38:
        layers = layers[rng.randrange(len(layers)):]
    return steps.Scope(layers, draw_when(rng, engine) if when else steps.ALL)


def draw_when(rng, engine):
    choice = rng.random()
    if len(engine.schedule) > 1 and choice < 0.15:
        return steps.LATER
    return steps.DECODE if engine.decodes and choice < 0.3 else steps.ALL


def everywhere(engine, when=steps.ALL):
    return steps.Scope(engine.layers_of(), when)


def draw_factor(rng, low=0.3, high=3.0):
    """Not within a tenth of 1; four digits."""
    while True:
        factor = math.exp(rng.uniform(math.log(low), math.log(high)))
        if abs(factor - 1) > 0.1:
            return float(f"{factor:.4g}")


@dataclasses.dataclass(frozen=True)
class OtherLayer:
    """Whose weight a layer uses: that of the layer `away` from it, or always the same one's; its own where there is none."""

    away: int
    fixed: int  # None: by `away`
    count: int

    def of(self, i):
        other = i + self.away if self.fixed is None else self.fixed
        return other if 0 <= other < self.count else i

    def __str__(self):
        return f"N{self.away:+d}" if self.fixed is None else str(self.fixed)

    def answers(self, scope, *places):
        answers = [part("weight.layer", str(self), *places)]
        if self.fixed is not None:
            answers.append(part("weight.layer", float(self.fixed), *places))
        if len(scope.layers) == 1:
            only, other = scope.layers[0], self.of(scope.layers[0])
            answers += [part("weight.layer", (str(other), f"N{other - only:+d}"), *places), part("weight.layer", float(other), *places)]
        return answers

    def partly(self, scope, *places, ids=()):
        """What is true of each layer by itself; ids: those that say "of the next layer"."""
        return [(i, (part("weight.layer", (str(self.of(i)), f"N{self.of(i) - i:+d}"), *places),), ids if self.of(i) == i + 1 else ())
                for i in scope.layers]


def draw_layer(rng, engine):
    return OtherLayer(rng.choice((-2, -1, 1, 2)), rng.randrange(len(engine.kinds)) if rng.random() < 0.3 else None, len(engine.kinds))
