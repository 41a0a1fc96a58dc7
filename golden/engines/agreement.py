"""Writes spec/agreement.md: how far apart independent implementations are, tap by tap and case by case, from the goldens and the dumps that
`make engine` left in build/engines.

    python golden/engines/agreement.py

Compared are float32 dumps of whole prompts that gemma4-check found right, the golden, which is transformers', and a dump of the reference.
Difference: norm of a - b over norm of the golden.
"""

import fnmatch
import glob
import json
import os
import re
import subprocess
import sys
import tempfile

import h5py
import numpy as np
import yaml

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
GOLDEN, REFERENCE = "transformers (golden)", "gemma4-ref"
SAME_CODE = {"transformers", "onnxruntime", "openvino"}  # the goldens' model, in another runtime
LIMIT = 1e-5  # where rounding in float32 ends, far above any difference that it makes here
HEAD = """# Agreement of independent implementations

Written by `make engines` from the float32 dumps of whole prompts that `make engine ENGINE=...` left, of engines whose every case conforms
([engines.md](engines.md)), from the goldens, which are transformers', and from the reference of this repository. They share no code. In
each cell: the largest difference between any two of them over the layers, as norm of the difference over norm of the golden, and how many
of them show that tap there.

"""


def engines():
    """{name: (folder of dumps, map or None)} of the engines whose float32 dumps of whole prompts all conform."""
    found = {}
    for path in sorted(glob.glob(os.path.join(ROOT, "build", "engines", "*.json"))):
        with open(path, encoding="utf-8") as f:
            run = json.load(f)
        rows = [row for row in run["rows"] if (row["dtype"], row["schedule"]) == ("float32", "whole")]
        verdicts = {case["verdict"] for row in rows for case in row["cases"]}
        if run["engine"] not in SAME_CODE and "PASS" in verdicts and "FAIL" not in verdicts:
            with open(os.path.join(HERE, run["engine"], "recipe.yaml"), encoding="utf-8") as f:
                name = yaml.safe_load(f)["map"]
            found[run["name"]] = path[:-len(".json")] + ".dumps", name
    return found


def rules_of(name):
    """[(tap, pattern of the engine's name)] of a map's plain rules: those that change neither axes nor parts."""
    with open(os.path.join(ROOT, "golden", "maps", name + ".yaml"), encoding="utf-8") as f:
        taps = yaml.safe_load(f)["taps"]
    rules = [(tap, rule) for tap, listed in taps.items() for rule in (listed if isinstance(listed, list) else [listed])]
    return [(tap, rule["from"]) for tap, rule in rules if set(rule) <= {"from", "layers"}]


def names_of(file):
    names = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def taps_of(path, map_name, wanted):
    """{tap: array [T, values of one position]} of the taps that are wanted; NaN where rows are left out."""
    with h5py.File(path) as f:
        names = names_of(f)
        if not map_name:
            keys = {name.replace("/", "."): name for name in names}
        else:
            keys = {}
            for tap, pattern in rules_of(map_name):
                for n in range(64) if "{N}" in tap else [0]:
                    number = {"{N}": str(n), "{N+1}": str(n + 1)}
                    exact = re.sub(r"\{N(\+1)?\}", lambda m: number[m.group()], pattern.replace("{L}", "*"))
                    for name in fnmatch.filter(names, exact):
                        keys[tap.replace("{N}", str(n))] = name
        found, length = {}, len(f["tokens"])
        for tap in (tap for tap in wanted if tap in keys):
            data = f[keys[tap]]
            found[tap] = np.full((length, data.size // len(data)), np.nan)
            found[tap][data.attrs["rows"] if "rows" in data.attrs else slice(None)] = data[()].reshape(len(data), -1)
    return found


def tap_names(path):
    """The golden's taps, but for ids and what is in their order, which is free, and scores, which mean nothing where they are masked."""
    with h5py.File(path) as f:
        names = [name.replace("/", ".") for name in names_of(f)]
    return [name for name in names if not re.search(r"tokens|positions|topk_\w+|moe\.act|attn\.scores", name)]


def reference(case, wanted):
    """The taps of gemma4-ref, fed as the case is."""
    with open(os.path.join(ROOT, "golden", "cases", case + ".yaml"), encoding="utf-8") as f:
        manifest = yaml.safe_load(f)
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "reference.h5")
        subprocess.run([os.path.join(ROOT, "build", "gemma4-ref"), "dump", "--model",
                        os.path.join(ROOT, "build", "checkpoints", manifest["checkpoint"]["name"]), "--first-position",
                        str(manifest["first_position"]), "--tokens", ",".join(map(str, manifest["tokens"])), "--out", out],
                       check=True, stdout=subprocess.DEVNULL)
        return taps_of(out, None, wanted)


def differences(case, folders, took_part):
    """{tap's kind: (largest difference of any two, which two, how many show it)} of one case."""
    golden = os.path.join(ROOT, "golden", "cases", case + ".h5")
    wanted, found = tap_names(golden), {}
    held = {GOLDEN: taps_of(golden, None, wanted), REFERENCE: reference(case, wanted)}
    for name, (folder, map_name) in folders.items():
        path = os.path.join(folder, case + ".float32.whole.h5")
        if os.path.exists(path):
            held[name] = taps_of(path, map_name, wanted)
    for tap in wanted:
        of = {name: taps[tap] for name, taps in held.items() if tap in taps and taps[tap].shape == held[GOLDEN][tap].shape}
        shown = ~np.isnan(sum(of.values()))  # by all of them
        kind, scale = re.sub(r"^layers\.\d+\.", "", tap), np.linalg.norm(held[GOLDEN][tap][shown])
        pairs = [(float(np.linalg.norm((of[a] - of[b])[shown]) / scale), f"{a} and {b}") for a in of for b in of if a < b and scale]
        if pairs:
            found[kind] = max(found.get(kind, (0.0, "", 0)), max(pairs) + (len(of),))
        took_part.update(of)
    return found


def order_of_taps():
    """Kinds of taps as in the golden of a case with every tap: by spec/taps.md."""
    with open(os.path.join(ROOT, "golden", "maps", "taps.yaml"), encoding="utf-8") as f:
        return [tap.replace("layers.{N}.", "") for tap in yaml.safe_load(f)["taps"]]


def main():
    folders, took_part = engines(), set()
    cases = sorted(os.path.basename(path)[:-len(".h5")] for path in glob.glob(os.path.join(ROOT, "golden", "cases", "*.h5")))
    by_case = {case: differences(case, folders, took_part) for case in cases}
    by_case = {case: found for case, found in by_case.items() if found}
    kinds = [kind for kind in order_of_taps() if any(kind in found for found in by_case.values())]
    text = HEAD + "Implementations: " + ", ".join(sorted(took_part)) + ".\n\n"
    text += "| tap | " + " | ".join(by_case) + " |\n|---|" + "---|" * len(by_case) + "\n"
    for kind in kinds:
        cells = [f"{found[kind][0]:.1e} ({found[kind][2]})" if kind in found else "" for found in by_case.values()]
        text += f"| {kind} | " + " | ".join(cells) + " |\n"
    worst = max((found[kind] + (kind, case) for case, found in by_case.items() for kind in found), key=lambda w: w[0])
    beyond = sorted({f"{kind} of {case}" for case, found in by_case.items() for kind in found if found[kind][0] > LIMIT})
    text += f"\nThe largest of all: {worst[0]:.1e}, {worst[3]} of {worst[4]}, between {worst[1]}. "
    text += f"Above {LIMIT:.0e}: " + (", ".join(beyond) if beyond else "none, so no golden rests on one implementation alone") + ".\n"
    with open(os.path.join(ROOT, "spec", "agreement.md"), "w", encoding="utf-8") as f:
        f.write(text)
    print(f"spec/agreement.md: {len(kinds)} taps of {len(by_case)} cases, {len(took_part)} implementations")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, KeyError, subprocess.CalledProcessError) as error:
        sys.exit(f"agreement.py: {type(error).__name__}: {error}")
