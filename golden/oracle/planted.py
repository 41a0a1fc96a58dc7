"""Planted mistakes must be found where they are: dumps of a faulty transformers through gemma4-check.

    python planted.py --check ../../build/gemma4-check [--case ID] [--fault ID]

For every fault of plant.py on every case that can show it: gemma4-check must exit with status 1 and its JSON must name the
tap at which the fault enters. Dumps are kept in build/planted/. One line per failure and one summary line.
"""

import argparse
import json
import os
import subprocess
import sys

from transformers import AutoConfig

import dump
import manifest
import plant

# Where each fault enters first. {full}: the first full layer. Scores that the mask excludes are not judged, so a
# window that is too wide shows at the probabilities. Fused attention holds neither scores nor probabilities, and such dumps are the
# rule among engines: there, what goes wrong inside attention shows at the context.
FIRST_TAP = {
    "embed-scale-missing": "embed",
    "rmsnorm-one-plus-w": "layers.0.attn.norm",
    "layer-scalar-dropped": "layers.0.output",
    "layer-scalar-on-delta": "layers.0.output",
    "softcap-missing": "logits",
    "softcap-twice": "logits",
    "attn-scale-inv-sqrt-d": "layers.0.attn.context",
    "attn-softcap-50-inherited": "layers.0.attn.probs",
    "v-norm-missing": "layers.0.attn.v_norm",
    "keqv-v-after-knorm-rope": "layers.{full}.attn.v_norm",
    "window-off-by-one-wide": "layers.0.attn.context",
    "window-not-passed": "layers.0.attn.context",
    "rope-pairing-contiguous": "layers.{full}.attn.q_rope",
    "rope-exponent-rotary-dim": "layers.{full}.attn.q_rope",
    "rope-full-rotation-on-global": "layers.{full}.attn.q_rope",
    "router-double-norm": "layers.0.router.norm",
    "router-norm-or-root-scale-missing": "layers.0.router.norm",
    "per-expert-scale-missing": "layers.0.router.topk_weights",
    "per-expert-scale-twice": "layers.0.router.topk_weights",
    "topk-not-renormalised": "layers.0.router.topk_weights",
    "experts-gelu-erf": "layers.0.moe.act",
    "experts-silu": "layers.0.moe.act",
    "gate-up-swapped": "layers.0.moe.act",
    "branches-sequential": "layers.0.moe.norm",
    "dense-branch-ignored": "layers.0.ffn.sum",
}
NEEDS_FULL_WINDOW = {"window-off-by-one-wide", "window-not-passed"}  # more positions than the window is wide
# With one key softmax is 1 whatever the score, and at position 0 nothing rotates.
NEEDS_TWO_KEYS = {"attn-scale-inv-sqrt-d", "attn-softcap-50-inherited", "rope-pairing-contiguous", "rope-exponent-rotary-dim",
                  "rope-full-rotation-on-global"}
NEEDS_EAGER = {"attn-softcap-50-inherited"}  # fused attention has no soft-cap


def first_tap(fault, case, config):
    """The tap at which a fault enters on this case, or None where the case cannot show it."""
    length, window = len(case["tokens"]), config.sliding_window
    if (fault in NEEDS_FULL_WINDOW and length <= window) or (fault in NEEDS_TWO_KEYS and length == 1):
        return None
    return FIRST_TAP[fault].format(full=config.layer_types.index(plant.FULL))


def check(program, manifest_path, dump_path, expected):
    """None if gemma4-check rejects the dump and names the tap, else what went wrong in one line."""
    report = dump_path + ".json"
    if os.path.exists(report):
        os.remove(report)
    result = subprocess.run([program, manifest_path, dump_path, "--json", report], capture_output=True, text=True)
    if result.returncode != 1:
        said = (result.stderr.strip() or result.stdout.strip() or "no output").splitlines()[-1]
        return f"expected exit status 1, found {result.returncode}: {said}"
    with open(report, encoding="utf-8") as f:
        divergence = json.load(f)["first_divergence"]
    found = divergence["tap"] if divergence else None
    return None if found == expected else f"expected first divergence {expected}, found {found}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", required=True, metavar="PATH", help="the gemma4-check program")
    parser.add_argument("--case", metavar="ID", help="only this case")
    parser.add_argument("--fault", choices=sorted(plant.FAULTS), help="only this fault")
    parser.add_argument("--cases", default=manifest.CASES, help="directory of the manifests")
    parser.add_argument("--out", default=os.path.join(manifest.REPOSITORY, "build", "planted"))
    args = parser.parse_args()
    assert set(FIRST_TAP) == set(plant.FAULTS)

    os.makedirs(args.out, exist_ok=True)
    expected_runs, found, shown = 0, 0, set()
    try:
        case_paths = manifest.paths(args.cases, args.case)
    except (OSError, ValueError) as error:
        sys.exit(f"planted: {error}")
    faults = [args.fault] if args.fault else list(FIRST_TAP)
    for path in case_paths:
        case = manifest.read(path)
        directory = manifest.checkpoint_directory(case)
        config = AutoConfig.from_pretrained(directory).get_text_config()
        for fault in faults:
            tap = first_tap(fault, case, config)
            if tap is None:
                continue
            expected_runs += 1
            shown.add(fault)
            file = os.path.join(args.out, f"{case['id']}-{fault}.h5")
            try:
                dump.dump(directory, case["tokens"], file, case["first_position"],
                          attention="eager" if fault in NEEDS_EAGER else "sdpa", fault=fault, case_id=case["id"])
                wrong = check(args.check, path, file, tap)
            except (OSError, ValueError, RuntimeError, KeyError) as error:
                wrong = f"{type(error).__name__}: {error}"
            if wrong is None:
                found += 1
            else:
                print(f"FAIL  {os.path.basename(file)}: {wrong}", flush=True)
    unshown = sorted(set(faults) - shown)
    for fault in unshown:
        print(f"FAIL  {fault}: no case can show it")
    print(f"planted: {found} of {expected_runs} faulty runs found at the right tap "
          f"({len(shown)} of {len(faults)} faults, {len(case_paths)} cases)")
    sys.exit(0 if expected_runs > 0 and found == expected_runs and not unshown else 1)


if __name__ == "__main__":
    main()
