"""The published implementation must conform: every case x attention x schedule, in float32, through gemma4-check.

    python honest.py --check ../../build/gemma4-check [--case ID]

Schedules of a case: whole; its own chunks (two halves if it has none); one token at a time. Dumps are kept in build/honest/.
One line per failure and one summary line; exit status 0 only if every run was made and every one conforms.
"""

import argparse
import os
import subprocess
import sys

import dump
import manifest


def schedules(case):
    """{name: chunk lengths} of a case."""
    length = len(case["tokens"])
    chunks = case.get("schedule") or [length]
    if len(chunks) == 1 and length > 1:
        chunks = [length // 2, length - length // 2]
    return {"whole": [length], "chunks": chunks, "decode": [1] * length}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", required=True, metavar="PATH", help="the gemma4-check program")
    parser.add_argument("--case", metavar="ID", help="only this case")
    parser.add_argument("--cases", default=manifest.CASES, help="directory of the manifests")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", default=os.path.join(manifest.REPOSITORY, "build", "honest"))
    args = parser.parse_args()

    os.makedirs(args.out, exist_ok=True)
    expected, conforming = 0, 0
    try:
        case_paths = manifest.paths(args.cases, args.case)
    except (OSError, ValueError) as error:
        sys.exit(f"honest: {error}")
    for path in case_paths:
        case = manifest.read(path)
        directory = manifest.checkpoint_directory(case)
        for attention in "eager", "sdpa":
            for name, schedule in schedules(case).items():
                expected += 1
                file = os.path.join(args.out, f"{case['id']}-{args.dtype}-{attention}-{name}.h5")
                try:
                    dump.dump(directory, case["tokens"], file, case["first_position"], schedule, args.dtype, attention,
                              case_id=case["id"])
                    result = subprocess.run([args.check, path, file], capture_output=True, text=True)
                except (OSError, ValueError, RuntimeError) as error:
                    print(f"FAIL  {os.path.basename(file)}: {type(error).__name__}: {error}", flush=True)
                    continue
                if result.returncode == 0:
                    conforming += 1
                else:
                    said = (result.stderr.strip() or result.stdout.strip() or "no output").splitlines()[-1]
                    print(f"FAIL  {os.path.basename(file)}: exit status {result.returncode}: {said}", flush=True)
    print(f"honest: {conforming} of {expected} runs of transformers conform ({len(case_paths)} cases, {args.dtype})")
    sys.exit(0 if expected > 0 and conforming == expected else 1)


if __name__ == "__main__":
    main()
