"""Makes the goldens from the published implementation, or verifies that they are what it computes.

    python make_golden.py                  every golden/cases/*.yaml: checkpoint if missing, golden, digests in the manifest
    python make_golden.py --case ID        one of them
    python make_golden.py --verify         changes nothing: makes everything afresh elsewhere and compares

A golden is float32, eager attention, whole prefill. --verify requires the same checkpoint bytes, the same manifest facts,
the same topk_ids, and every other tap within VERIFY_RELATIVE_RMS.
"""

import argparse
import fnmatch
import json
import os
import shutil
import sys
import tempfile

import numpy as np
import torch
import transformers

import activations
import manifest
import model
import synth
import taps

# The same machine gives the same bits. Measured with torch's other CPU kernels (ATEN_CPU_CAPABILITY=avx2, default): up to 2.4e-6.
VERIFY_RELATIVE_RMS = 5e-6
LARGE_TAPS = ["layers.*.attn.scores", "layers.*.attn.probs"]  # only in goldens that ask for them: golden.taps


class Mismatch(Exception):
    """What is stored is not what the oracle computes."""


def make_checkpoint(case, directory):
    """Writes the checkpoint's config.json and the weights that follow from it and the seed."""
    os.makedirs(directory, exist_ok=True)
    shutil.copyfile(manifest.config_path(case), os.path.join(directory, "config.json"))
    with open(manifest.config_path(case), encoding="utf-8") as f:
        synth.write_checkpoint(json.load(f), case["checkpoint"]["seed"], directory)


def compute(case, checkpoint):
    """({tap: tensor}, {manifest key: value}) of a case: what its golden and its manifest should say."""
    m = model.load(checkpoint, dtype="float32", attention="eager")
    computed = taps.run(m, case["tokens"], case["first_position"])
    layers, top_k = m.config.num_hidden_layers, m.config.top_k_experts
    gap, layer, position = taps.smallest_gap(computed, layers, top_k)
    facts = {
        "checkpoint.sha256": manifest.sha256(os.path.join(checkpoint, "model.safetensors")),
        "checkpoint.config_sha256": manifest.sha256(os.path.join(checkpoint, "config.json")),
        "routing.decisions": layers * len(case["tokens"]),
        "routing.smallest_gap": float(f"{gap:.3g}"),
    }
    extra = (case.get("golden") or {}).get("taps") or []
    kept = {n: t for n, t in computed.items()
            if any(fnmatch.fnmatchcase(n, p) for p in extra) or not any(fnmatch.fnmatchcase(n, p) for p in LARGE_TAPS)}
    return kept, facts, f"smallest gap {gap:.2e} at layer {layer}, position {position}"


def write_golden(case, computed, facts, path):
    """Writes the case's HDF5 file."""
    attributes = {
        "engine": "transformers", "engine_version": transformers.__version__, "torch_version": str(torch.__version__),
        "dtype": "float32", "attention": "eager", "schedule": str(len(case["tokens"])), "case": case["id"],
        "checkpoint_sha256": facts["checkpoint.sha256"],
    }
    activations.write_activations(path, computed, attributes, case["golden"].get("rows"))


def make(path):
    """Makes one case's golden and brings its manifest up to date."""
    case = manifest.read(path)
    checkpoint = manifest.checkpoint_directory(case)
    if not os.path.exists(os.path.join(checkpoint, "model.safetensors")):
        make_checkpoint(case, checkpoint)
    computed, facts, note = compute(case, checkpoint)
    golden = os.path.join(os.path.dirname(path), case["golden"]["file"])
    write_golden(case, computed, facts, golden)
    facts["golden.sha256"] = manifest.sha256(golden)

    with open(path, encoding="utf-8") as f:
        text = f.read()
    for key, value in facts.items():
        text = manifest.rewrite(text, key, value)
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.write(text)
    return f"made {len(computed)} taps, {os.path.getsize(golden)} bytes, {note}"


def verify(path):
    """Raises Mismatch if anything stored for this case differs from what is computed afresh."""
    case = manifest.read(path)
    checkpoint = manifest.checkpoint_directory(case)  # as ref/synth.c or an earlier run wrote it
    golden = os.path.join(os.path.dirname(path), case["golden"]["file"])
    if manifest.sha256(golden) != case["golden"]["sha256"]:
        raise Mismatch(f"{golden}: not the file whose golden.sha256 is in the manifest")
    with tempfile.TemporaryDirectory() as scratch:
        make_checkpoint(case, scratch)
        computed, facts, _ = compute(case, scratch)
        for file in "model.safetensors", "config.json":
            stored = os.path.join(checkpoint, file)
            if os.path.exists(stored) and manifest.sha256(stored) != manifest.sha256(os.path.join(scratch, file)):
                raise Mismatch(f"{stored}: other bytes than synth.py writes")
        for key, value in facts.items():
            section, name = key.split(".")
            stated = case[section][name]
            if key == "routing.smallest_gap":
                agree = abs(stated - value) <= 0.05 * value
            else:
                agree = stated == value
            if not agree:
                raise Mismatch(f"{key}: the manifest says {stated}, computed {value}")
        fresh = os.path.join(scratch, "golden.h5")
        write_golden(case, computed, facts, fresh)
        worst, worst_tap = compare(golden, fresh)
    return f"{len(computed)} taps agree, worst relative RMS {worst:.1e} at {worst_tap}"


def compare(stored_path, fresh_path):
    """(worst relative RMS, its tap) of two activation files; Mismatch beyond the limit or if they hold different taps."""
    stored, stored_rows, _ = activations.read_activations(stored_path)
    fresh, fresh_rows, _ = activations.read_activations(fresh_path)
    if set(stored) != set(fresh):
        raise Mismatch(f"taps in one file only: {sorted(set(stored) ^ set(fresh))[:3]} ...")
    worst, worst_tap = 0.0, "none"
    for name, old in stored.items():
        new = fresh[name]
        if old.shape != new.shape or not np.array_equal(stored_rows[name], fresh_rows[name]):
            raise Mismatch(f"{name}: stored {old.shape}, computed {new.shape}, or other rows")
        if old.dtype == np.int32:
            if not np.array_equal(old, new):
                raise Mismatch(f"{name}: other ids")
            continue
        difference = np.sqrt(np.sum((old.astype(np.float64) - new) ** 2))
        error = difference / max(np.sqrt(np.sum(new.astype(np.float64) ** 2)), 1e-30)
        if not error <= VERIFY_RELATIVE_RMS:  # NaN fails
            raise Mismatch(f"{name}: relative RMS {error:.2e} > {VERIFY_RELATIVE_RMS:.0e}")
        if error >= worst:
            worst, worst_tap = float(error), name
    return worst, worst_tap


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--verify", action="store_true", help="compare instead of writing")
    parser.add_argument("--case", metavar="ID", help="only this case")
    parser.add_argument("--cases", default=manifest.CASES, help="directory of the manifests")
    args = parser.parse_args()

    done, failed = 0, 0
    try:
        case_paths = manifest.paths(args.cases, args.case)
    except (OSError, ValueError) as error:
        sys.exit(f"make_golden: {error}")
    for path in case_paths:
        case_id = os.path.basename(path)[:-len(".yaml")]
        try:
            note = verify(path) if args.verify else make(path)
            done += 1
            print(f"ok    {case_id}: {note}", flush=True)
        except (Mismatch, ValueError, KeyError, OSError, RuntimeError) as error:
            failed += 1
            print(f"FAIL  {case_id}: {type(error).__name__}: {error}", flush=True)
    what = "verified" if args.verify else "made"
    print(f"{what} {done} of {len(case_paths)} cases, {failed} failed")
    sys.exit(0 if failed == 0 and done == len(case_paths) else 1)


if __name__ == "__main__":
    main()
