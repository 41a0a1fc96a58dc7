"""Runs an engine's recipe: dumps every case it can, in every dtype and schedule, and has each dump judged by gemma4-check.

    python golden/engines/run.py ENGINE                              build/engines/ENGINE.json: the rows of spec/engines.md
    python golden/engines/run.py ENGINE --case tiny-prompt --dtype float32 --schedule whole --out mine.h5      one dump

A recipe is a folder here: recipe.yaml says what the engine can take, dump.py has version(), load(checkpoint, dtype) and
run(model, tokens, first_position, schedule), which returns {name: array [T, ...]}: the engine's own names, where the recipe says which
map of golden/maps reads them, else taps (spec/taps.md). A value of run may also be a pair (array, rows): the positions that it covers.
"""

import argparse
import datetime
import importlib.util
import json
import os
import subprocess
import sys

import h5py
import numpy as np
import yaml

from rows import merged

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
RECIPE_KEYS = {"engine", "model", "map", "dtypes", "schedules", "chunk", "first_position", "leaves_out", "shows", "notes", "findings"}


def recipe_of(name):
    """recipe.yaml as a dict; ValueError where a key is unknown or missing."""
    path = os.path.join(HERE, name, "recipe.yaml")
    with open(path, encoding="utf-8") as f:
        recipe = yaml.safe_load(f)
    wrong = set(recipe) ^ RECIPE_KEYS
    if wrong:
        raise ValueError(f"{path}: expected the keys {sorted(RECIPE_KEYS)}, found others or none of {sorted(wrong)}")
    return recipe


def script_of(name):
    spec = importlib.util.spec_from_file_location("dump", os.path.join(HERE, name, "dump.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cases(wanted):
    """The manifests, in order of checkpoint, so that a model is loaded once. Those of many positions only where they are named: the recipes
    are set up for prompts of some hundred tokens."""
    folder = os.path.join(ROOT, "golden", "cases")
    found = []
    for file in sorted(os.listdir(folder)):
        if file.endswith(".yaml") and (not wanted or file[:-5] in wanted.split(",")):
            with open(os.path.join(folder, file), encoding="utf-8") as f:
                case = yaml.safe_load(f)
            if wanted or all(flag["flag"] != "many-positions" for flag in case["flags"]):
                found.append(case)
    if not found:
        raise ValueError(f"{folder}: no case {wanted}")
    return sorted(found, key=lambda case: (case["checkpoint"]["name"], case["id"]))


def checkpoint_of(case, recipe, dtype):
    """The folder, or the GGUF file, that `make checkpoints` wrote."""
    built, name = os.path.join(ROOT, "build", "checkpoints"), case["checkpoint"]["name"]
    gguf_types = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "q8_0": "q8_0"}
    folder = recipe["model"] == "folder"
    path = os.path.join(built, name) if folder else os.path.join(built, "gguf", f"{name}.{gguf_types[dtype]}.gguf")
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: not there: make checkpoints")
    return path


def chunks_of(case, schedule, chunk):
    """whole: all at once. cache: in the recipe's chunks where it can take no others; else as the case says, or where that is all at
    once, two thirds and then a token at a time."""
    n = len(case["tokens"])
    if schedule == "whole" or n == 1:
        return [n]
    if chunk:
        return [min(chunk, n - begin) for begin in range(0, n, chunk)]
    if len(case["schedule"]) > 1:
        return case["schedule"]
    return [2 * n // 3] + [1] * (n - 2 * n // 3)


def write(path, tensors, case, recipe, name, version, dtype, chunks):
    """Writes one activation file (spec/activations.md), or the same under the engine's names."""
    with h5py.File(path, "w") as f:
        f.attrs.update({"format": "gemma4-activations", "format_version": 1, "engine": name, "engine_version": version, "dtype": dtype,
                        "case": case["id"], "schedule": ",".join(map(str, chunks))})
        f["tokens"] = np.array(case["tokens"], np.int32)
        f["positions"] = case["first_position"] + np.arange(len(case["tokens"]), dtype=np.int32)
        for tensor, value in tensors.items():
            array, rows = value if isinstance(value, tuple) else (value, None)
            key = tensor if recipe["map"] else tensor.replace(".", "/")
            f[key] = array
            if rows is not None:
                f[key].attrs["rows"] = np.array(rows, np.int32)


def judge(check, case, recipe, path):
    """gemma4-check's report as a dict; where it cannot judge, {"verdict": "UNUSABLE", "reason": its line}."""
    report = path + ".json"
    by_map = ["--map", recipe["map"]] if recipe["map"] else []
    done = subprocess.run([check, case["id"], path, "--json", report] + by_map, capture_output=True, text=True)
    if done.returncode > 1:
        return {"verdict": "UNUSABLE", "reason": done.stderr.strip().replace(ROOT + "/", "")}
    with open(report, encoding="utf-8") as f:
        return json.load(f)


def summary(case, report):
    """What a row keeps of one report."""
    first, causes = report.get("first_divergence"), report.get("causes") or []
    shown = ("logits", "logprobs.values")
    logits = [t["relative_rms"] for t in report.get("taps", []) if t["tap"] in shown and t.get("mode") == "accumulated"]
    return {
        "case": case["id"], "verdict": report["verdict"], "conclusion": report.get("conclusion"), "reason": report.get("reason"),
        "taps": report.get("coverage", {}).get("taps"), "first_divergence": first and first["tap"],
        "causes": [c.get("sentence") or c["id"] for c in causes if c.get("explained")], "logits": logits[0] if logits else None,
    }


def one_dump(script, recipe, name, model, case, dtype, schedule, path):
    chunks = chunks_of(case, schedule, recipe["chunk"])
    tensors = script.run(model, case["tokens"], case["first_position"], chunks)
    write(path, tensors, case, recipe, name, script.version(), dtype, chunks)


def left_out(recipe, case):
    """Why the engine cannot be fed this case, or None."""
    if case["first_position"] and not recipe["first_position"]:
        return "no start position"
    return (recipe["leaves_out"] or {}).get(case["checkpoint"]["name"])


def in_short(error):
    """An exception's class and the first line of what it says."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:320]}"


def judged_before(name, recipe, case, path):
    """The result of an interrupted run, where its report is newer than the recipe's script and map; else None."""
    sources = [os.path.join(HERE, name, "dump.py")]
    if recipe["map"]:
        sources.append(os.path.join(ROOT, "golden", "maps", recipe["map"] + ".yaml"))
    report = path + ".json"
    if not os.path.exists(report) or os.path.getmtime(report) < max(os.path.getmtime(source) for source in sources + [path]):
        return None
    with open(report, encoding="utf-8") as f:
        return summary(case, json.load(f))


def results(name, recipe, script, check, wanted, scratch, resume):
    """(dtype, schedule, result) of each dump, or of what prevented it."""
    for dtype in recipe["dtypes"]:
        model, loaded = None, None
        for case in cases(wanted):
            paths = {schedule: os.path.join(scratch, f"{case['id']}.{dtype}.{schedule}.h5") for schedule in recipe["schedules"]}
            done = {schedule: judged_before(name, recipe, case, path) for schedule, path in paths.items() if resume}
            if done and all(done.values()):
                yield from ((dtype, schedule, result) for schedule, result in done.items())
                continue
            reason, threw = left_out(recipe, case), False
            try:
                checkpoint = checkpoint_of(case, recipe, dtype)
                if not reason and loaded != checkpoint:
                    model = None  # the old one goes first
                    model, loaded = script.load(checkpoint, dtype), checkpoint
            except Exception as error:  # whatever the engine throws is a result
                reason, threw = in_short(error), True
            for schedule, path in paths.items():
                result = {"case": case["id"], "verdict": "ERROR" if threw else "LEFT_OUT", "reason": reason}
                if not reason:
                    try:
                        one_dump(script, recipe, name, model, case, dtype, schedule, path)
                        result = summary(case, judge(check, case, recipe, path))
                    except Exception as error:
                        result.update(verdict="ERROR", reason=in_short(error))
                remark = result.get("first_divergence") or result.get("reason") or ""
                print(f"{name} {dtype} {schedule} {case['id']}: {result['verdict']} {remark}", flush=True)
                yield dtype, schedule, result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", help="a folder beside this file")
    parser.add_argument("--check", default=os.path.join(ROOT, "build", "gemma4-check"))
    parser.add_argument("--case", metavar="ID[,ID...]", help="only these cases")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--schedule", choices=["whole", "cache"], default="whole")
    parser.add_argument("--out", metavar="FILE.h5", help="writes this one dump, and judges nothing")
    parser.add_argument("--resume", action="store_true", help="keeps what an interrupted run has judged")
    args, begun = parser.parse_args(), os.times().elapsed
    recipe, script = recipe_of(args.engine), script_of(args.engine)
    if args.out:
        case = cases(args.case)[0]
        model = script.load(checkpoint_of(case, recipe, args.dtype), args.dtype)
        one_dump(script, recipe, args.engine, model, case, args.dtype, args.schedule, args.out)
        return
    scratch = os.path.join(ROOT, "build", "engines", args.engine + ".dumps")
    os.makedirs(scratch, exist_ok=True)
    found = {"engine": args.engine, "name": recipe["engine"], "version": script.version(), "date": datetime.date.today().isoformat(),
             "shows": recipe["shows"], "command": f"make engine ENGINE={args.engine}",
             "rows": [{"dtype": d, "schedule": s, "cases": []} for d in recipe["dtypes"] for s in recipe["schedules"]]}
    out = os.path.join(ROOT, "build", "engines", args.engine + ".json")
    before = None
    if args.case and os.path.exists(out):
        with open(out, encoding="utf-8") as f:
            before = json.load(f)
    for dtype, schedule, result in results(args.engine, recipe, script, args.check, args.case, scratch,
                                           args.resume):
        next(row for row in found["rows"] if (row["dtype"], row["schedule"]) == (dtype, schedule))["cases"].append(result)
        with open(out, "w", encoding="utf-8") as f:
            json.dump(merged(before, found), f, indent=1)
    spent = os.times()
    print(f"{out}: {len(found['rows'])} rows; loading, dumping and judging took {spent.elapsed - begun:.0f} s, and {sum(spent[:4]):.0f} s of a processor")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"run.py: {error}")
