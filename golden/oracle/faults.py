"""What a planted fault is, and the table of them (the plant_*.py files fill it)."""

import dataclasses

FULL, SLIDING = "full_attention", "sliding_attention"

# Which runs can show a fault, from the least demanding to the most.
ALWAYS, KEYS, WINDOW, CHUNKS, CHUNKS_BEYOND_WINDOW, DECODE, DECODE_BEYOND_WINDOW, FAR = (
    "always", "two keys", "window", "chunks", "chunks and window", "decode", "decode and window", "first position")


@dataclasses.dataclass(frozen=True)
class Fault:
    """One mistake, planted by install(model, layers): layers are the decoder layers in which it acts."""

    name: str     # "experts-silu", or with what tells its forms apart after an @: "experts-silu@decode"
    section: str  # of the catalogue
    first: str    # the first tap that is wrong: "embed", "logits", or of a layer, "attn.q_rope"
    install: object
    kind: str = None         # FULL or SLIDING: acts in such layers only
    needs: str = ALWAYS
    leaves_out: tuple = ()   # globs of taps that such an engine does not have
    cases: tuple = ()        # the only cases that can show it; () means that `needs` decides

    @property
    def cause(self):
        """The cause's id in the catalogue."""
        return self.name.split("@")[0]


FAULTS = {}


def fault(name, section, first, **rest):
    """Decorator: enters install(model, layers) into the table."""

    def enter(install):
        assert name not in FAULTS, name
        FAULTS[name] = Fault(name, section, first, install, **rest)
        return install

    return enter
