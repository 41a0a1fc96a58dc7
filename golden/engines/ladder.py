"""Has an engine's recipe climb the ladder (spec/ladder.md), as if it showed its logits and nothing else.

    python golden/engines/ladder.py ENGINE [--dtype float32]      build/engines/ENGINE.ladder.json: what gemma4-check ladder says of it

Beside build/gemma4-check it needs the engine's environment, as run.py does. The logits, or best log-probabilities, of each rung are left in
build/engines/ENGINE.ladder/DTYPE. A rung that the engine throws at is left out, with the reason; so are positions that it cannot start at. Rungs are
fed in their chunks where the engine has a cache that takes them, else whole.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys

import yaml

import run

LADDER = os.path.join(run.ROOT, "build", "ladder")
SHOWN = ("logits", "logprobs.ids", "logprobs.values")


def rungs(check):
    """The list of ladder.json, by checkpoint, so that a model is loaded once."""
    subprocess.run([check, "ladder", "--out", LADDER], check=True, stdout=subprocess.DEVNULL)
    with open(os.path.join(LADDER, "ladder.json"), encoding="utf-8") as f:
        return sorted(json.load(f)["rungs"], key=lambda rung: rung["checkpoint"])


def checkpoint_of(rung, recipe, dtype):
    """The folder, or the GGUF file that to_gguf.py makes of it, with the engine's own Python."""
    if recipe["model"] == "folder":
        return os.path.join(LADDER, rung["checkpoint"])
    path = os.path.join(LADDER, "gguf", f"{rung['checkpoint']}.{ {'float32': 'f32', 'bfloat16': 'bf16'}[dtype]}.gguf")
    if not os.path.exists(path):
        subprocess.run([sys.executable, os.path.join(run.HERE, "to_gguf.py"), LADDER], check=True, stdout=subprocess.DEVNULL)
    return path


def logits_name(recipe):
    """How the engine calls its logits: as the map says that reads it."""
    if not recipe["map"]:
        return "logits"
    with open(os.path.join(run.ROOT, "golden", "maps", recipe["map"] + ".yaml"), encoding="utf-8") as f:
        return yaml.safe_load(f)["taps"]["logits"]["from"]


def chunks_of(rung, recipe):
    takes_any = "cache" in recipe["schedules"] and not recipe["chunk"]
    return rung["schedule"] if takes_any else [len(rung["tokens"])]


def dump(engine, recipe, script, all_rungs, dtype, folder):
    """Writes what there is; returns {reason: rungs that were left out}."""
    loaded, model, left, name = None, None, {}, logits_name(recipe)
    os.makedirs(folder, exist_ok=True)
    for rung in all_rungs:
        path, chunks = os.path.join(folder, rung["rung"] + ".h5"), chunks_of(rung, recipe)
        if os.path.exists(path):
            os.remove(path)
        try:
            if rung["first_position"] and not recipe["first_position"]:
                raise ValueError("no start position")
            checkpoint = checkpoint_of(rung, recipe, dtype)
            if checkpoint != loaded:
                model = None  # the old one goes first
                model, loaded = script.load(checkpoint, dtype), checkpoint
            found = script.run(model, rung["tokens"], rung["first_position"], chunks)
            shown = {("logits" if key == name else key): value for key, value in found.items() if key in (name, *SHOWN)}
            run.write(path, shown, dict(rung, id=rung["rung"]), dict(recipe, map=None), engine, script.version(), dtype, chunks)
        except Exception as error:  # whatever the engine throws is a result
            reason = str(error) if str(error) == "no start position" else run.in_short(error)
            left.setdefault(reason, []).append(rung["rung"])
        print(f"{engine} {dtype} {rung['rung']}", flush=True)
    return left


def judge(check, folder):
    report = os.path.join(folder, "report.json")
    done = subprocess.run([check, "ladder", folder, "--json", report], capture_output=True, text=True)
    if done.returncode > 1:
        raise ValueError(done.stderr.strip())
    print(done.stdout, end="")
    with open(report, encoding="utf-8") as f:
        return json.load(f)


def named(cause):
    """As in a report, with what is equivalent."""
    first = cause["wrong"] if cause["id"] == "identified" else cause["id"]
    return " or ".join([first, *cause["equivalent"][:3]])


def summary(engine, recipe, script, dtype, report, left):
    count = {verdict: sum(rung["verdict"] == verdict for rung in report["rungs"]) for verdict in ("PASS", "FAIL", "NOT_JUDGED", "NOT_COVERED")}
    fails = [rung for rung in report["rungs"] if rung["verdict"] == "FAIL"]
    return {"engine": recipe["engine"], "version": script.version(), "date": datetime.date.today().isoformat(), "dtype": dtype,
            "rungs": len(report["rungs"]), "pass": count["PASS"], "fail": count["FAIL"], "not_judged": count["NOT_JUDGED"],
            "not_covered": count["NOT_COVERED"], "left_out": left, "first_fails": fails[0]["rung"] if fails else None,
            "causes": [{"says": named(cause), "rung": cause["rung"]} for cause in report["causes"]],
            "unexplained": [rung["rung"] for rung in fails if not rung["causes"]],
            "command": f"build/engines/{engine}/bin/python golden/engines/ladder.py {engine} --dtype {dtype}"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", help="a folder beside this file")
    parser.add_argument("--check", default=os.path.join(run.ROOT, "build", "gemma4-check"))
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    recipe, script = run.recipe_of(args.engine), run.script_of(args.engine)
    folder = os.path.join(run.ROOT, "build", "engines", args.engine + ".ladder", args.dtype)
    left = dump(args.engine, recipe, script, rungs(args.check), args.dtype, folder)
    found = summary(args.engine, recipe, script, args.dtype, judge(args.check, folder), left)
    out, rows = os.path.join(run.ROOT, "build", "engines", args.engine + ".ladder.json"), []
    if os.path.exists(out):
        with open(out, encoding="utf-8") as f:
            rows = [row for row in json.load(f) if row["dtype"] != args.dtype]
    with open(out, "w", encoding="utf-8") as f:
        json.dump(rows + [found], f, indent=1)
    print(f"{out}: {len(rows) + 1} climbs")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"ladder.py: {error}")
