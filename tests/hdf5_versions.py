"""How many damaged dumps kill libhdf5, whichever one h5py of this Python is linked with: the same damaged files for every version.

    python tests/hdf5_versions.py DUMP.h5 [COUNT]

Each file is read whole (every attribute, every dataset) by a child process with 4 GB of memory and 10 s of processor time. Prints how many of
them were read, refused in whole or in part, killed the child, and by which signal. Needs h5py."""
import collections
import os
import random
import re
import resource
import signal
import sys
import tempfile

import h5py

WIDTHS = (1, 1, 2, 4, 8)
SIGNATURES = re.compile(rb"\x89HDF|TREE|SNOD|HEAP|GCOL|OHDR|FRHP|BTHD|FADB|EAHD|shuffle|deflate")


def damage(original, number):
    """One to eight fields of one to eight bytes become zeros, ones, or anything; most of them within 400 bytes behind a structure's signature."""
    draw, image = random.Random(number), bytearray(original)
    structures = [m.start() for m in SIGNATURES.finditer(original)]
    for _ in range(draw.randint(1, 8)):
        width, kind = draw.choice(WIDTHS), draw.randrange(4)
        at = draw.randrange(len(image) - width)
        if structures and draw.randrange(8):
            at = min(draw.choice(structures) + draw.randrange(400), len(image) - width)
        image[at:at + width] = (bytes(width), b"\xff" * width, draw.randbytes(width), bytes(b ^ 1 << draw.randrange(8) for b in image[at:at + width]))[kind]
    return bytes(image)


def read(path):
    """Goes on behind what cannot be read, object by object; whether everything could be read."""
    failed, seen = [], set()

    def look(item):
        try:
            dict(item.attrs)
            if isinstance(item, h5py.Dataset) and item.size and item.size < 1 << 24:
                item[()]
            names = list(item) if isinstance(item, h5py.Group) and item.id not in seen else []
            seen.add(item.id)
        except Exception:
            failed.append(item.name)
            return
        for name in names:
            try:
                look(item[name])
            except Exception:
                failed.append(name)
    with h5py.File(path, "r") as f:
        look(f)
    return not failed


def outcome_of(path):
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            whole = read(path)
        except BaseException:
            whole = False
        os._exit(0 if whole else 1)
    status = os.waitpid(child, 0)[1]
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else ("read", "refused")[os.WEXITSTATUS(status) != 0]


def main():
    with open(sys.argv[1], "rb") as f:
        original = f.read()
    count, outcomes = int(sys.argv[2]) if len(sys.argv) > 2 else 1000, collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "damaged.h5")
        for number in range(count):
            with open(path, "wb") as f:
                f.write(damage(original, number))
            outcomes[outcome_of(path)] += 1
    killed = {name: n for name, n in sorted(outcomes.items()) if name.startswith("SIG")}
    print(f"HDF5 {h5py.version.hdf5_version}: {count} damaged files: {outcomes['read']} read, {outcomes['refused']} refused, {sum(killed.values())} killed the reader",
          killed or "")


main()
