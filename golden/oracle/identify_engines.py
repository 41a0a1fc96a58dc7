"""What identify.py plants faults into: checkpoints of many geometries, what they are fed, and how gemma4-check judges each.

The committed cases, and checkpoints of other shapes that are synthesised into build/identify: those have no case, and gemma4-check judges
them by --model.
"""

import copy
import dataclasses
import functools
import json
import os
import random

import manifest
import runs
import synth

CHECKPOINTS = os.path.join(manifest.REPOSITORY, "build", "identify", "checkpoints")

# Cases and schedules.
CASES = [("tiny-prompt", "whole"), ("tiny-window-crossings", "whole"), ("tiny-chunks", "chunks"), ("tiny-decode", "chunks"),
         ("moe128-prompt", "whole"), ("moe128-decode", "chunks"), ("wide256-prompt", "whole"), ("uneven96-prompt", "whole")]

# Further checkpoints: what differs from uneven96's config, the seed, how many tokens, in which chunks.
SHAPES = {
    "square64": (dict(hidden_size=64, num_attention_heads=4, num_key_value_heads=2, head_dim=16, global_head_dim=16,
                      num_global_key_value_heads=2, intermediate_size=64, moe_intermediate_size=64, num_experts=24, top_k_experts=3,
                      sliding_window=10, vocab_size=256), 15, (31,)),
    "narrow48": (dict(hidden_size=48, num_attention_heads=4, num_key_value_heads=4, head_dim=16, global_head_dim=32,
                      num_global_key_value_heads=2, intermediate_size=80, moe_intermediate_size=24, num_experts=10, top_k_experts=2,
                      sliding_window=8, vocab_size=256), 25, (9, 11, 1, 1, 1, 1, 1, 1)),
    "heads12": (dict(hidden_size=120, num_attention_heads=12, num_key_value_heads=6, head_dim=16, global_head_dim=32,
                     num_global_key_value_heads=3, intermediate_size=144, moe_intermediate_size=40, num_experts=20, top_k_experts=5,
                     sliding_window=12, vocab_size=320), 34, (33,)),
    "few32": (dict(hidden_size=160, num_attention_heads=8, num_key_value_heads=2, head_dim=32, global_head_dim=32,
                   num_global_key_value_heads=2, intermediate_size=96, moe_intermediate_size=48, num_experts=32, top_k_experts=4,
                   sliding_window=14, vocab_size=384, final_logit_softcapping=20.0), 42, (15, 14)),
}


@dataclasses.dataclass(frozen=True)
class Engine:
    """A checkpoint, its input and its schedule."""

    name: str
    directory: str
    manifest: str  # the case's path; "" for none
    tokens: tuple
    first_position: int
    schedule: tuple

    @property
    def config(self):
        """The text decoder's config, as a dict."""
        return config_of(self.directory)

    @property
    def case(self):
        """What runs.py wants of a case."""
        return {"id": self.name, "tokens": list(self.tokens), "first_position": self.first_position}

    @property
    def kinds(self):
        return self.config["layer_types"]

    @property
    def decodes(self):
        return len(self.schedule) > 1 and 1 in self.schedule[1:]

    def heads(self, kind):
        """(query heads, KV heads, head dim) of a kind of layer."""
        head_dim, kv_heads, _ = synth.layer_shape(self.config, self.kinds.index(kind))
        return self.config["num_attention_heads"], kv_heads, head_dim

    def layers_of(self, kind=None):
        return tuple(i for i, k in enumerate(self.kinds) if kind in (None, k))

    def layer_scalars(self):
        return [float(layer.layer_scalar) for layer in runs.pristine(self.directory, "float32", "eager").model.layers]

    def judged_by(self):
        """gemma4-check's arguments before the dump."""
        return [self.manifest] if self.manifest else ["--model", self.directory]

    def model(self, dtype):
        """A copy of the model that may be changed."""
        return copy.deepcopy(runs.pristine(self.directory, dtype, "eager"))


@functools.lru_cache(maxsize=32)
def config_of(directory):
    name = os.path.basename(directory)
    committed = os.path.join(manifest.COMMITTED_CHECKPOINTS, name, "config.json")
    path = committed if os.path.exists(committed) else os.path.join(directory, "config.json")
    with open(path, encoding="utf-8") as f:
        config = json.load(f)
    return config.get("text_config", config)


def of_case(case_id, schedule):
    path = os.path.join(manifest.CASES, case_id + ".yaml")
    case = manifest.read(path)
    return Engine(case_id, manifest.checkpoint_directory(case), path, tuple(case["tokens"]), case["first_position"],
                  tuple(runs.schedules(case)[schedule]))


def synthesised(name):
    """Writes the checkpoint, where it is not there yet."""
    changes, seed, schedule = SHAPES[name]
    directory = os.path.join(CHECKPOINTS, f"{name}-{seed}")
    if not os.path.exists(os.path.join(directory, "model.safetensors")):
        with open(os.path.join(manifest.COMMITTED_CHECKPOINTS, "uneven96", "config.json"), encoding="utf-8") as f:
            config = {**json.load(f), **changes}
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, "config.json"), "w", encoding="utf-8") as f:
            json.dump(config, f, indent=2)
        synth.write_checkpoint(config, seed, directory)
    draw = random.Random(seed)
    tokens = (2, *(draw.randrange(3, changes["vocab_size"]) for _ in range(sum(schedule) - 1)))
    return Engine(name, directory, "", tokens, 0, schedule)


def engines():
    """All of them."""
    return [of_case(*each) for each in CASES] + [synthesised(name) for name in SHAPES]
