"""Cuts a dump of make engine down to what the unit suite engine_maps keeps of it in tests/unit/excerpts: some layers, the first positions.

    python golden/engines/excerpt.py build/engines/mlx-lm.dumps/tiny-prompt.float32.whole.h5 tests/unit/excerpts/mlx-lm.h5

What comes first reads nothing of what comes behind it, so the first positions of a dump are a dump.
"""

import argparse
import re

import h5py

LAYER = re.compile(r"(?:layers?[./_]|decoder_block_|-)(\d+)(?=[./#]|$)")
KEYS = re.compile(r"attention_weights$")  # tensors [T, heads * T]: keys are cut as positions are


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dump")
    parser.add_argument("out")
    parser.add_argument("--layers", default="0,1,5", help="the others are left out")
    parser.add_argument("--positions", type=int, default=3)
    args = parser.parse_args()
    layers, n = {int(layer) for layer in args.layers.split(",")}, args.positions
    with h5py.File(args.dump) as whole, h5py.File(args.out, "w", libver="latest") as part:
        part.attrs.update({key: value for key, value in whole.attrs.items() if key not in ("case", "schedule")})
        names = []
        whole.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        length = len(whole["tokens"])
        for name in names:
            found, value = LAYER.search(name), whole[name][()]
            if found and int(found.group(1)) not in layers or len(value) != length:
                continue
            cut = value[:n]
            if KEYS.search(name):
                cut = cut.reshape(n, -1, length)[:, :, :n].reshape(n, -1)
            part[name] = cut
    print(f"{args.out}: {n} positions, layers {args.layers}")


if __name__ == "__main__":
    main()
