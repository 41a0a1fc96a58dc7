"""Planted mistakes must be detected, located and named: every fault of plant.py, alone, through gemma4-check.

    python planted.py --check ../../build/gemma4-check [--fault NAME] [--case ID] [--dtype D] [--tap-set S] [--sample N] [--jobs 2]

Each fault is planted into transformers on a case and in a schedule that can show it, in float32 and bfloat16, and judged with all taps,
with the layers' outputs only and (float32) with the logits only; some faults once more in a single layer. Of every judgement:

    detected   exit status 1
    first      first_divergence is the tap at which the fault enters; its layer where only outputs are dumped
    named      the best cause is the fault's, or lists it as equivalent
    wrong      the best cause claims to explain it and is neither

A judgement is invisible, and not counted, if the fault was not detected and no tap's error is above twice the largest that an
honest run has at such a tap (honest.py writes them to build/honest/worst.json). One line per miss, the invisible ones with their
sizes, the table, one summary line; exit status 0 only if every rate is reached.
"""

import argparse
import dataclasses
import json
import os
import sys

import faults
import manifest
import plant
import runs
import taps

# Cases and schedules that can show a fault; faults of the same need take turns among them.
RUNS = {
    faults.ALWAYS: [("tiny-prompt", "whole"), ("moe128-prompt", "whole"), ("wide256-prompt", "whole"), ("uneven96-prompt", "whole")],
    faults.KEYS: [("tiny-prompt", "whole"), ("moe128-prompt", "whole"), ("wide256-prompt", "whole"), ("uneven96-prompt", "whole")],
    faults.WINDOW: [("tiny-window-crossings", "whole"), ("moe128-prompt", "whole"), ("wide256-prompt", "whole")],
    faults.CHUNKS: [("tiny-chunks", "chunks"), ("moe128-decode", "chunks")],
    faults.CHUNKS_BEYOND_WINDOW: [("tiny-chunks", "chunks")],
    faults.DECODE: [("tiny-decode", "chunks"), ("moe128-decode", "chunks")],
    faults.DECODE_BEYOND_WINDOW: [("tiny-decode", "chunks")],
    faults.FAR: [("tiny-far", "whole")],
}

# Faults that are also planted in one layer of tiny-chunks alone.
SINGLE_LAYER = [
    ("layer-scalar-dropped", 3), ("per-expert-scale-missing", 4), ("rope-pairing-contiguous", 5), ("experts-silu", 7),
    ("v-norm-missing", 7), ("window-not-passed", 8), ("router-scale-tensor-skipped", 9), ("gate-up-swapped", 10),
    ("keqv-v-after-knorm-rope", 11), ("dense-branch-ignored", 2), ("chunked-prefill-no-past", 6), ("topk-not-renormalised", 1),
]

# dtype, tap set -> least rates of: detected, first, named (None: not required); and the largest share of invisible ones.
REQUIRED = {
    ("float32", "all"): (1.00, 0.98, 0.97, 0.02),
    ("float32", "layers"): (0.98, 0.98, 0.95, None),
    ("float32", "logits"): (0.98, None, 0.90, None),
    ("bfloat16", "all"): (0.98, 0.95, 0.92, 0.15),
    ("bfloat16", "layers"): (0.95, 0.90, 0.75, None),
}
LARGEST_SHARE_OF_WRONG_NAMES = 0.02
HONEST_UNKNOWN = 0.5  # error / tolerance, where honest.py has not measured that kind of tap


@dataclasses.dataclass(frozen=True)
class Planting:
    """One faulty engine on one case."""

    fault: str
    layers: tuple  # () for wherever the fault can act
    case: str
    schedule: str
    dtype: str
    fused: bool  # the engine holds neither attention scores nor probabilities

    def __str__(self):
        where = f" layer {self.layers[0]}" if self.layers else ""
        return f"{self.fault}{where} {self.case} {self.schedule} {self.dtype}{' fused' if self.fused else ''}"


def planned(only_faults=None, only_cases=None, dtypes=("float32", "bfloat16")):
    """All plantings, those of one case together."""
    wanted, turns = [], {}
    for name, fault in plant.FAULTS.items():
        turn = turns[fault.needs] = turns.get(fault.needs, -1) + 1
        choices = [(case, "whole") for case in fault.cases] or RUNS[fault.needs]
        wanted.append((name, (), *choices[turn % len(choices)], turn % 2 == 1))
    wanted += [(name, (layer,), "tiny-chunks", "chunks", False) for name, layer in SINGLE_LAYER]
    plan = [Planting(name, layers, case, schedule, dtype, fused)
            for name, layers, case, schedule, fused in wanted for dtype in dtypes
            if (not only_faults or name in only_faults) and (not only_cases or case in only_cases)]
    return sorted(plan, key=lambda p: (p.case, p.dtype))


def compute(case, schedule, dtype, fused, plants):
    """(taps that the faulty engine holds, the layers' types) with every (fault, layers) of `plants` planted."""
    m = runs.fresh_model(case, dtype)
    for fault, layers in plants:
        plant.plant(m, fault, layers or None)
    recorded = taps.run(m, case["tokens"], case["first_position"], runs.schedules(case)[schedule], strict=False)
    for fault, _ in plants:
        recorded = plant.held(fault, recorded)
    if fused:
        recorded = {n: t for n, t in recorded.items() if not n.endswith((".attn.scores", ".attn.probs"))}
    return recorded, m.config.layer_types


def expected_first(first, tap_set):
    """What first_divergence should say, given the first wrong tap: with outputs only, the output of that tap's layer."""
    if tap_set == "all":
        return first
    if first.startswith("layers."):
        return ".".join([*first.split(".")[:2], "output"])
    return "layers.0.output" if first == "embed" else "logits"


# Mistakes that are one value of one parameter: the value says as much as the name.
SAID_BY = {"window-not-passed": ("sliding_window", "none")}


def is_it(cause, cause_id):
    """Is this cause the planted mistake, by name or by its parameter's value, or does it list it as equivalent?"""
    said = [(p["name"], p["value"]) for p in cause.get("parameters") or []]
    return cause_id in (cause["id"], *cause.get("equivalent", [])) or said == [SAID_BY.get(cause_id)]


@dataclasses.dataclass
class Judgement:
    planting: object
    tap_set: str
    detected: bool = False
    first: bool = False
    named: bool = False
    wrong: bool = False
    visible: bool = True
    said: str = ""    # what gemma4-check found
    size: str = ""    # the largest error / tolerance and its tap


def judge(planting, tap_set, expected, result, honest):
    """Compares gemma4-check's result with what was planted."""
    causes = [cause for cause in result["causes"] if cause["explained"]]
    divergence = result["first_divergence"]
    found = divergence["tap"] if divergence else None
    cause_id = plant.FAULTS[planting.fault].cause
    j = Judgement(planting, tap_set)
    j.detected = result["status"] == 1
    j.first = found == expected
    j.named = bool(causes) and is_it(causes[0], cause_id)
    j.wrong = any(not is_it(cause, cause_id) for cause in causes)
    margin, tap = runs.worst(result)
    j.size = f"{margin:.3g} at {tap}"
    j.visible = j.detected or any(
        runs.margin(row) > 2 * honest.get(f"{planting.dtype} {tap_set} {runs.kind(row['tap'])}", HONEST_UNKNOWN)
        for row in runs.judged(result))
    named = ", ".join(cause["id"] for cause in causes[:2]) or "none"
    j.said = f"expected {expected}, found {found}; causes {named}; largest error / tolerance {j.size}"
    return j


def measure(task):
    """All judgements of one planting."""
    planting, program, tap_sets, honest, out = task
    path = os.path.join(manifest.CASES, planting.case + ".yaml")
    dump = os.path.join(out, f"planted-{os.getpid()}.h5")
    judgements = []
    try:
        case = manifest.read(path)
        recorded, layer_types = compute(case, planting.schedule, planting.dtype, planting.fused, [(planting.fault, planting.layers)])
        first = plant.first_tap(planting.fault, layer_types, planting.layers or None, planting.fused)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, IndexError) as error:
        return [Judgement(planting, "all", said=f"not planted: {type(error).__name__}: {error}")]
    for tap_set in tap_sets:
        if (planting.dtype, tap_set) not in REQUIRED:
            continue
        try:
            runs.write_dump(dump, recorded, tap_set, case, planting.dtype, runs.schedules(case)[planting.schedule])
            judgements.append(judge(planting, tap_set, expected_first(first, tap_set), runs.check(program, path, dump), honest))
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            judgements.append(Judgement(planting, tap_set, said=f"{type(error).__name__}: {error}"))
    return judgements


def misses(j):
    """What a judgement lacks of what its tap set requires, as words."""
    detected, first, named, _ = REQUIRED[j.planting.dtype, j.tap_set]
    words = [] if j.detected else ["not detected"]
    words += ["first"] if first and not j.first else []
    words += ["wrong name"] if j.wrong else ["name"] if named and not j.named else []
    return words


def table(judgements):
    """Prints the rates; returns whether all are reached."""
    reached = True
    print("dtype     taps     visible  detected  first  named  wrong   invisible")
    for (dtype, tap_set), (detected, first, named, invisible) in REQUIRED.items():
        every = [j for j in judgements if (j.planting.dtype, j.tap_set) == (dtype, tap_set)]
        counted = [j for j in every if j.visible]
        if not counted:
            continue
        rates = [sum(values) / len(counted) for values in zip(*((j.detected, j.first, j.named, j.wrong) for j in counted))]
        hidden = 1 - len(counted) / len(every)
        kept = [rate >= least for rate, least in zip(rates, (detected, first, named)) if least is not None]
        kept += [rates[3] <= LARGEST_SHARE_OF_WRONG_NAMES, invisible is None or hidden <= invisible]
        reached = reached and all(kept)
        print(f"{dtype:9s} {tap_set:8s} {len(counted):7d}  {rates[0]:8.1%} {rates[1]:6.1%} {rates[2]:6.1%} {rates[3]:6.1%}   "
              f"{len(every) - len(counted)} ({hidden:.1%}){'' if all(kept) else '   below what is required'}")
    return reached


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", required=True, metavar="PATH", help="the gemma4-check program")
    parser.add_argument("--fault", action="append", choices=sorted(plant.FAULTS), metavar="NAME", help="only this fault")
    parser.add_argument("--case", action="append", metavar="ID", help="only on this case")
    parser.add_argument("--dtype", action="append", choices=["float32", "bfloat16"])
    parser.add_argument("--tap-set", action="append", choices=runs.TAP_SETS)
    parser.add_argument("--sample", type=int, default=1, metavar="N", help="only every Nth planting")
    parser.add_argument("--honest", default=os.path.join(manifest.REPOSITORY, "build", "honest", "worst.json"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", default=os.path.join(manifest.REPOSITORY, "build", "planted"))
    return parser.parse_args()


def main():
    args = arguments()
    os.makedirs(args.out, exist_ok=True)
    honest = {}
    if os.path.exists(args.honest):
        with open(args.honest, encoding="utf-8") as f:
            honest = json.load(f)
    plan = planned(args.fault, args.case, args.dtype or ("float32", "bfloat16"))[::args.sample]
    tasks = [(planting, args.check, args.tap_set or list(runs.TAP_SETS), honest, args.out) for planting in plan]

    judgements = []
    for some in runs.in_parallel(measure, tasks, args.jobs):
        for j in some:
            judgements.append(j)
            lacks = misses(j)
            if lacks:
                print(f"{'MISS ' if j.visible else 'UNSEEN'} {j.planting} [{j.tap_set}] {', '.join(lacks)}: {j.said}", flush=True)
    hidden = [j for j in judgements if not j.visible]
    if hidden:
        print("invisible (largest error / tolerance): " + "; ".join(f"{j.planting} [{j.tap_set}] {j.size}" for j in hidden))
    reached = table(judgements)
    missed = sum(bool(misses(j)) for j in judgements if j.visible)
    print(f"planted: {len(plan)} faulty runs of {len({p.fault for p in plan})} faults, {len(judgements)} judgements, "
          f"{len(hidden)} invisible, {missed} with a miss; {'every rate reached' if reached else 'rates missed'}")
    sys.exit(0 if plan and reached else 1)


if __name__ == "__main__":
    main()
