"""Exchanges two tensors of a checkpoint in place: what an engine does that takes the one weight for the other.

    python3 exchange.py DIR NAME NAME

Names are the ends of tensors' names. A second call undoes it.
"""

import glob
import json
import os
import struct
import sys


def find(directory, end):
    """(file, first byte, bytes) of the one tensor whose name ends so."""
    found = []
    for path in sorted(glob.glob(os.path.join(directory, "*.safetensors"))):
        with open(path, "rb") as f:
            (size,) = struct.unpack("<Q", f.read(8))
            header = json.loads(f.read(size))
        for name, tensor in header.items():
            if name.endswith(end):
                first, last = tensor["data_offsets"]
                found.append((path, 8 + size + first, last - first))
    if len(found) != 1:
        sys.exit(f"{directory}: expected one tensor whose name ends with {end}, found {len(found)}")
    return found[0]


def read(place):
    path, first, size = place
    with open(path, "rb") as f:
        f.seek(first)
        return f.read(size)


def write(place, data):
    path, first, _ = place
    with open(path, "r+b") as f:
        f.seek(first)
        f.write(data)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    a, b = (find(sys.argv[1], end) for end in sys.argv[2:])
    if a[2] != b[2]:
        sys.exit(f"{sys.argv[2]} has {a[2]} bytes, {sys.argv[3]} has {b[2]}")
    of_a, of_b = read(a), read(b)
    write(a, of_b)
    write(b, of_a)


if __name__ == "__main__":
    main()
