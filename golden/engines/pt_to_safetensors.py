"""Turns what torch.save wrote into safetensors, which gemma4-check --map reads:  pt_to_safetensors.py IN.pt [IN.pt ...] OUT

One input: OUT is a file. Several, or a folder of them: OUT is a folder with a file for each, in their order. Nested dicts, lists and tuples
become names joined by '.', a single tensor "data"; what is no tensor is left out. weights_only: nothing of the pickle is run.
"""
import pathlib
import sys

import torch
from safetensors.torch import save_file


def tensors(value, name=""):
    if torch.is_tensor(value):
        yield name or "data", value.detach().cpu().contiguous().clone()
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from tensors(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from tensors(item, f"{name}.{i}" if name else str(i))


def convert(source, target):
    found = dict(tensors(torch.load(source, map_location="cpu", weights_only=True)))
    if not found:
        sys.exit(f"{source}: expected tensors, found none")
    save_file(found, target)
    print(f"{target}: {len(found)} tensors")


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    *names, target = map(pathlib.Path, sys.argv[1:])
    sources = [f for n in names for f in (sorted(n.glob("*.pt")) if n.is_dir() else [n])]
    if len(names) == 1 and names[0].is_file():
        return convert(sources[0], target)
    target.mkdir(parents=True, exist_ok=True)
    for i, source in enumerate(sources):
        convert(source, target / f"{i:05}-{source.stem}.safetensors")


if __name__ == "__main__":
    main()
