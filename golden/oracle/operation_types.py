"""The type of every operation of a bfloat16 run, by module: which steps stay float32 (spec/model.md, 6)?

    build/oracle/bin/python golden/oracle/operation_types.py [--checkpoint golden/checkpoints/tiny] [--layer 5]
"""
import argparse

import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

MOVES = ("view", "clone", "transpose", "permute", "expand", "unsqueeze", "slice", "select", "alias", "detach", "t.default")


class Types(TorchDispatchMode):
    """Prints a line for every operation that computes a tensor of floats."""

    def __init__(self):
        super().__init__()
        self.shown = True

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        name = str(operation).removeprefix("aten.")
        if self.shown and isinstance(result, torch.Tensor) and result.is_floating_point() and not any(m in name for m in MOVES):
            read = ", ".join(str(a.dtype).removeprefix("torch.") for a in args if isinstance(a, torch.Tensor))
            print(f"  {name:32} {read:28} -> {str(result.dtype).removeprefix('torch.')} {list(result.shape)}")
        return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", default="golden/checkpoints/tiny")
    parser.add_argument("--layer", default="5")
    args = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    model = transformers.Gemma4ForConditionalGeneration.from_pretrained(
        args.checkpoint, dtype=torch.bfloat16, attn_implementation="eager")
    types = Types()

    def enter(name):
        def hook(*_):
            layer = name.split("layers.")[1].split(".")[0] if "layers." in name else args.layer
            types.shown = layer == args.layer
            if types.shown:
                print(name or "model")
        return hook

    def leave(name):
        def hook(*_):
            if types.shown and not list(model.get_submodule(name).children()):
                print(f"after {name}")
        return hook

    for name, module in model.named_modules():
        module.register_forward_pre_hook(enter(name))
        module.register_forward_hook(leave(name))
    with torch.no_grad(), types:
        model(torch.tensor([[2, 197, 214, 34, 153]]), use_cache=False)


if __name__ == "__main__":
    main()
