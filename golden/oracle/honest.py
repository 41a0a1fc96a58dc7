"""Right engines must conform: transformers in every type, attention and schedule, and the honest variants, on every case.

    python honest.py --check ../../build/gemma4-check [--case ID] [--dtype D] [--variant NAME] [--tap-set all] [--jobs 2]

Cases of many positions are run only where they are named. Every run is judged with all taps, with the layers' outputs only and
with the logits only. An alarm is a verdict other than PASS, or a cause that claims to explain something. One line per
alarm, then how close the honest runs come to their tolerances, and one summary line; exit status 0 only if every run was made
and there is no alarm. What planted.py has to know goes to worst.json
beside the dumps: {"dtype tap-set tap": error / tolerance}, each the largest of all runs.
"""

import argparse
import dataclasses
import json
import os
import sys

import manifest
import runs
import taps
import variants

DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Run:
    """One engine on one case."""

    manifest_path: str
    dtype: str
    attention: str
    schedule: str
    variant: str  # "" for transformers as it is


def planned(case_paths, dtypes, variant):
    """All runs, those of one checkpoint and type together."""
    plan = []
    for path in case_paths:
        case = manifest.read(path)
        for dtype in dtypes:
            if variant in (None, "plain"):
                plan += [Run(path, dtype, attention, schedule, "")
                         for attention in ("eager", "sdpa") for schedule in runs.schedules(case)]
            plan += [Run(path, dtype, "eager", "chunks", name) for name, v in variants.VARIANTS.items()
                     if variant in (None, name) and dtype in v.dtypes]
    return plan


def compute(run, case, schedule):
    """The taps that this engine holds."""
    m = runs.fresh_model(case, run.dtype, run.attention)
    if not run.variant:
        return taps.run(m, case["tokens"], case["first_position"], schedule)
    variant = variants.VARIANTS[run.variant]
    variant.change(m)
    return variants.held(variant, taps.run(m, case["tokens"], case["first_position"], schedule, strict=False))


def judge(run, program, tap_sets, out):
    """[(run, tap set, declared dtype, result or None, error)] of one run."""
    case = manifest.read(run.manifest_path)
    schedule = runs.schedules(case)[run.schedule]
    attributes = {"attention": run.attention}
    if run.variant:
        attributes.update(variants.VARIANTS[run.variant].attributes)
    declared = attributes.get("dtype", run.dtype)
    path = os.path.join(out, f"honest-{os.getpid()}.h5")
    rows = []
    recorded = None
    for tap_set in tap_sets:
        try:
            if recorded is None:
                recorded = compute(run, case, schedule)
            runs.write_dump(path, recorded, tap_set, case, declared, schedule, attributes)
            rows.append((run, tap_set, declared, runs.check(program, run.manifest_path, path), None))
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            rows.append((run, tap_set, declared, None, f"{type(error).__name__}: {error}"))
    return rows


def alarm(result, error):
    """What is wrong with the verdict on an honest run, or None."""
    if error:
        return error
    named = runs.names(result)
    named = f"; named {', '.join(named)}" if named else ""
    if result["status"] != 0:
        failed = [f"{row['tap']} {runs.margin(row):.2f}" for row in runs.judged(result) if row["verdict"] == "FAIL"]
        return f"{len(failed)} taps, error / tolerance: {', '.join(failed[:4])}; routing faults {result['routing']['faults']}{named}"
    return named.lstrip("; ") or None


class Worst:
    """The largest error / tolerance per declared type and tap set, and of each kind of tap."""

    def __init__(self):
        self.rows, self.taps = {}, {}

    def add(self, run, tap_set, declared, result):
        for row in runs.judged(result):
            key = f"{declared} {tap_set} {runs.kind(row['tap'])}"
            self.taps[key] = max(self.taps.get(key, 0.0), runs.margin(row))
        value, tap = runs.worst(result)
        key = (declared, tap_set)
        if value >= self.rows.get(key, (-1.0,))[0]:
            case = os.path.basename(run.manifest_path)[:-len(".yaml")]
            self.rows[key] = (value, tap, case, run.variant or f"{run.attention} {run.schedule}")

    def print(self):
        print("dtype     taps    error/tolerance  where")
        for (declared, tap_set), (value, *where) in sorted(self.rows.items()):
            print(f"{declared:9s} {tap_set:7s} {value:15.3f}  {', '.join(where)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", required=True, metavar="PATH", help="the gemma4-check program")
    parser.add_argument("--case", metavar="ID", action="append", help="only this case (may be repeated); default: all but those of many positions")
    parser.add_argument("--cases", default=manifest.CASES, help="directory of the manifests")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="only this type of the model (may be repeated)")
    parser.add_argument("--variant", choices=["plain", *variants.VARIANTS], help="only this variant; plain: transformers as it is")
    parser.add_argument("--tap-set", choices=runs.TAP_SETS, action="append", help="only this tap set (may be repeated)")
    parser.add_argument("--sample", type=int, default=1, metavar="N", help="only every Nth run")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", default=os.path.join(manifest.REPOSITORY, "build", "honest"))
    args = parser.parse_args()

    try:
        case_paths = [p for case in args.case or [None] for p in manifest.paths(args.cases, case)
                      if args.case or not manifest.has_many_positions(manifest.read(p))]
    except (OSError, ValueError) as error:
        sys.exit(f"honest: {error}")
    os.makedirs(args.out, exist_ok=True)
    plan = planned(case_paths, args.dtype or DTYPES, args.variant)[::args.sample]
    tap_sets = args.tap_set or list(runs.TAP_SETS)
    tasks = [(run, args.check, tap_sets, args.out) for run in plan]

    judgements, alarms, named, worst = 0, 0, 0, Worst()
    for rows in runs.in_parallel(judge_task, tasks, args.jobs):
        for run, tap_set, declared, result, error in rows:
            judgements += 1
            if result:
                worst.add(run, tap_set, declared, result)
                named += len(runs.names(result))
            wrong = alarm(result, error)
            if wrong:
                alarms += 1
                case = os.path.basename(run.manifest_path)[:-len(".yaml")]
                print(f"ALARM {case} {run.dtype} {run.attention} {run.schedule} {run.variant or '-'} [{tap_set}]: {wrong}", flush=True)
    worst.print()
    with open(os.path.join(args.out, "worst.json"), "w", encoding="utf-8") as f:
        json.dump(worst.taps, f, indent=1, sort_keys=True)
    print(f"honest: {len(plan)} runs of right engines, {judgements} verdicts, {alarms} alarms, {named} causes named "
          f"({len(case_paths)} cases, {len(variants.VARIANTS)} variants)")
    sys.exit(0 if plan and judgements == len(plan) * len(tap_sets) and alarms == 0 and named == 0 else 1)


def judge_task(task):
    return judge(*task)


if __name__ == "__main__":
    main()
