"""Writes the shipped dumps of a real engine, ../dumps/: honest ones, and one with a planted fault for `make demo`.

    python make_dumps.py

The float32 dumps go through fused attention; what it never holds (scores, probabilities) is not in them. The bfloat16 dumps are the
runs of a perfectly right engine whose arithmetic is bfloat16.
"""

import os

import dump
import manifest

DUMPS = os.path.join(manifest.REPOSITORY, "golden", "dumps")

# (case, file, arguments of dump.dump)
SHIPPED = [
    ("tiny-prompt", "tiny-prompt-float32.h5", dict(attention="sdpa", schedule=[4, 8])),
    ("tiny-prompt", "tiny-prompt-rope-pairing-contiguous.h5", dict(attention="sdpa", fault="rope-pairing-contiguous")),
    ("tiny-prompt", "tiny-prompt-bfloat16.h5", dict(attention="sdpa", dtype="bfloat16")),
    ("tiny-chunks", "tiny-chunks-bfloat16.h5", dict(attention="sdpa", dtype="bfloat16", schedule=[7, 1, 20, 3, 13])),
    ("moe128-prompt", "moe128-prompt-bfloat16.h5", dict(attention="eager", dtype="bfloat16")),
]


def main():
    os.makedirs(DUMPS, exist_ok=True)
    for case_id, file, arguments in SHIPPED:
        case = manifest.read(os.path.join(manifest.CASES, case_id + ".yaml"))
        path = os.path.join(DUMPS, file)
        count = dump.dump(manifest.checkpoint_directory(case), case["tokens"], path, case["first_position"], case_id=case_id, **arguments)
        print(f"{file}: {count} taps, {os.path.getsize(path)} bytes")


if __name__ == "__main__":
    main()
