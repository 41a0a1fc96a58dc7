"""Climbs the ladder with right and with faulty engines, through gemma4-check ladder (spec/ladder.md).

    python ladder_check.py --check ../../build/gemma4-check [--fault NAME] [--sample N] [--combinations N] [--form FORM] [--seed N] [--jobs 2]

    honest        transformers as it is, float32 and bfloat16, logits and 20 best log-probabilities: no rung may fail
    alone         every fault of plant.py that is visible in some rung's logits, alone: is it detected, and named?
    together      2, 3, 4 and 6 faults that enter at different steps and do not undo one another, float32 logits: how many are named, how
                  many names are wrong?

A fault is visible in a rung where it moves float32 logits by VISIBLE or more (relative RMS); for bfloat16, by BFLOAT16_TIMES as much as rounding
to bfloat16 moves that rung (right engines' errors are 0.14 to 0.24 of the tolerance, so that this is about the tolerance); why others are not
stands in INVISIBLE. Named: a cause has its id, or lists it among at most three equivalent ones;
a cause that gives parameters (id "identified") names nothing, and is no wrong name. Prints a line for each miss, a table of
all faults, the rates, one summary line; exit status 0 only if every rate is reached. What is measured is kept in --results as it is measured: a
call that was interrupted is continued by the next one, of the same program and scripts.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile

import torch

import ladder
import manifest
import plant
import planted
from ladder_results import Climb, Results

VISIBLE, BFLOAT16_TIMES, MOST_EQUIVALENT = 5e-6, 6, 3
# form -> dtype, log-probabilities, least rate of detected and of named
FORMS = {"float32 logits": ("float32", None, 1.0, 0.95), "float32 top-20": ("float32", 20, 0.0, 0.90), "bfloat16 logits": ("bfloat16", None, 1.0, 0.80),
         "bfloat16 top-20": ("bfloat16", 20, None, None)}  # the last one: right engines only
TOGETHER, COMBINATIONS, SEED = (2, 3, 4, 6), 40, 20261127
LEAST_NAMED_TOGETHER, MOST_WRONG = 0.85, 0.03
LONGEST_ORDER = 30
# Why no rung's logits move but for rounding, in any arithmetic. Every other fault must be visible in float32. Near position 262,143 a float32 angle
# is rounded so coarsely that another one moves logits by 7.6e-4: an honest engine's may be another one.
TURNED_ALIKE = "q and k are turned alike, and scores know differences of positions only"
INVISIBLE = {"rope-position-off-by-one": TURNED_ALIKE,
             "hidden-pre-vs-post-final-norm": "concerns which hidden state is handed out; the logits are right",
             "branches-averaged": "post_feedforward_layernorm divides the sum by its size: a factor of it shows through eps only",
             "router-logits-are-probs": "concerns what is handed out as logits; the choice and its weights are right"}
SECONDS = 60  # of one processor: on two it is not more


def relative(a, b):
    """Relative RMS of a against b; infinite where a is not finite."""
    error = float(((a.double() - b.double()).square().sum() / b.double().square().sum()).sqrt())
    return error if error == error else float("inf")


class Engines:
    """Right engines of each dtype on all rungs, and faulty copies of them."""

    def __init__(self, directory):
        self.directory, self.models, self.right = directory, {}, {}
        self.rungs = ladder.rungs(directory)

    def on_rung(self, dtype, rung, faults=()):
        """The logits; None where the faulty engine does not run at all."""
        if dtype not in self.models:
            self.models[dtype] = ladder.load(self.directory, dtype)
        try:
            return ladder.logits_of(self.models[dtype][rung["checkpoint"]], rung, faults)
        except Exception:  # whatever a faulty engine throws
            if not faults:
                raise
            return None

    def logits(self, dtype, faults=()):
        """{rung: logits}; a rung on which the faulty engine does not run at all is left out."""
        found = {}
        for rung in self.rungs:
            logits = self.on_rung(dtype, rung, faults)
            if logits is not None:
                found[rung["rung"]] = logits
        if not faults:
            self.right[dtype] = found
        return found

    def of_right(self, dtype):
        return self.right[dtype] if dtype in self.right else self.logits(dtype)

    def is_visible(self, dtype, faulty):
        """faulty: the float32 logits. Is any rung moved enough to be seen in that dtype?"""
        right = self.of_right("float32")
        rounding = {name: relative(logits, right[name]) for name, logits in self.of_right(dtype).items()}
        return any(relative(logits, right[name]) >= max(VISIBLE, BFLOAT16_TIMES * rounding[name]) for name, logits in faulty.items())


def processor_seconds():
    """Of all programs that have been run from here."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def judge(program, engines, logits, faults, form):
    """One climb, judged."""
    dtype, logprobs = FORMS[form][:2]
    climb = Climb(tuple(faults), form)
    with tempfile.TemporaryDirectory() as folder:
        for rung in engines.rungs:
            if rung["rung"] in logits:
                ladder.write(os.path.join(folder, rung["rung"] + ".h5"), rung, logits[rung["rung"]], dtype, logprobs)
        report, before = os.path.join(folder, "report.json"), processor_seconds()
        done = subprocess.run([program, "ladder", folder, "--json", report], capture_output=True, text=True, timeout=1800)
        climb.seconds, climb.status = processor_seconds() - before, done.returncode
        if done.returncode not in (0, 1):
            climb.said = done.stderr.strip()
            return climb
        with open(report, encoding="utf-8") as f:
            result = json.load(f)
    causes = [{cause["id"], *cause["equivalent"]} for cause in result["causes"] if len(cause["equivalent"]) <= MOST_EQUIVALENT]
    wanted = {plant.FAULTS[fault].cause: planted.SAID_BY.get(plant.FAULTS[fault].cause) for fault in faults}
    climb.named = sum(any(cause in ids or said_by(result, said) for ids in causes) for cause, said in wanted.items())
    climb.names = len(causes)
    climb.wrong = sum(not any(cause in ids for cause in wanted) and "identified" not in ids for ids in causes)
    fails = [rung["rung"] for rung in result["rungs"] if rung["verdict"] == "FAIL"]
    unexplained = [rung["rung"] for rung in result["rungs"] if rung["verdict"] == "FAIL" and not rung["causes"]]
    climb.said = (f"fails {', '.join(fails) or 'nowhere'}; causes {'; '.join(said_of(cause) for cause in result['causes']) or 'none'}; "
                  f"unexplained {', '.join(unexplained) or 'none'}")
    return climb


def said_of(cause):
    name = cause["wrong"] if cause["id"] == "identified" else cause["id"]
    return " or ".join([name, *cause["equivalent"]])


def said_by(result, said):
    """Is the mistake one value of a parameter, and does a cause say it?"""
    return said and any(cause["wrong"].startswith(f"{said[0]} = {said[1]}") for cause in result["causes"] if cause["id"] == "identified")


# --- what is measured: each returns the climbs, and the lines of its table -----------------------------------------------


def honest(task):
    """The climb of the right engine, in one form."""
    program, directory, form = task
    engines = kept(directory)
    return [judge(program, engines, engines.of_right(FORMS[form][0]), (), form)]


def alone(task):
    """The climbs of one fault, in every form."""
    program, directory, fault, forms = task
    engines = kept(directory)
    climbs, faulty = [], {"float32": engines.logits("float32", [fault])}
    for form in forms:
        dtype = FORMS[form][0]
        if fault in INVISIBLE or not engines.is_visible(dtype, faulty["float32"]):
            climbs.append(Climb((fault,), form, visible=False))
            continue
        if dtype not in faulty:
            faulty[dtype] = engines.logits(dtype, [fault])
        climbs.append(judge(program, engines, faulty[dtype], [fault], form))
    return climbs


def differs(engines, faults, fault, known):
    """Does a fault move the logits of any rung, beside the others? known: {rung: logits} of all of them, filled here."""
    others = [f for f in faults if f != fault]
    for rung in reversed(engines.rungs):  # where most is alive first
        if rung["rung"] not in known:
            known[rung["rung"]] = engines.on_rung("float32", rung, faults)
        without = engines.on_rung("float32", rung, others)
        if known[rung["rung"]] is not None and without is not None and relative(known[rung["rung"]], without) >= VISIBLE:
            return True
    return False


def acting_together(engines, size, order):
    """The first `size` faults of that order that enter at different steps and of which none undoes another: a norm that is replaced is not left
    out any more."""
    faults, order = [], list(order)
    while order and len(faults) < size:
        fault = order.pop(0)
        if any(plant.FAULTS[f].first == plant.FAULTS[fault].first or plant.FAULTS[f].cause == plant.FAULTS[fault].cause for f in faults):
            continue
        faults = sorted([*faults, fault])
        known = {}
        undone = [f for f in faults if len(faults) == size and not differs(engines, faults, f, known)]
        faults = [f for f in faults if f not in undone[:1]]
    return faults


def together(task):
    program, directory, size, order = task
    engines = kept(directory)
    faults = acting_together(engines, size, order)
    return [judge(program, engines, engines.logits("float32", faults), faults, "float32 logits")]


_ENGINES = {}


def kept(directory):
    """One of each process."""
    if directory not in _ENGINES:
        _ENGINES[directory] = Engines(directory)
    return _ENGINES[directory]


def combinations(visible, count, seed):
    """(how many faults, an order in which to choose them) of so many engines, in the sizes of TOGETHER by turns."""
    draw = random.Random(seed)
    return [(TOGETHER[i % len(TOGETHER)], tuple(draw.sample(sorted(visible), min(len(visible), LONGEST_ORDER)))) for i in range(count)]


def mark(climb):
    """What a table says of one climb."""
    if not climb.visible:
        return "-"
    if climb.status != 1:
        return "missed"
    return ("named" if climb.named else "found") + (" +wrong" if climb.wrong else "")


def table(climbs, forms):
    """Every fault, and what became of it in each form."""
    by = {(c.faults[0], c.form): c for c in climbs}
    print(f"\n{'fault':44s}" + "".join(f"{form:17s}" for form in forms) + "\n(-: not visible; found: fails, but is not named)")
    for fault in dict.fromkeys(c.faults[0] for c in climbs):
        print(f"{fault:44s}" + "".join(f"{mark(by[fault, form]):17s}" for form in forms).rstrip())
    print(flush=True)


def report_invisible(climbs, forms):
    """Says why; false where a fault is invisible in float32 and no reason is known."""
    reached = True
    for form in forms:
        for fault in sorted(c.faults[0] for c in climbs if c.form == form and not c.visible):
            in_bfloat16 = FORMS[form][0] == "bfloat16" and any(c.visible for c in climbs if c.faults[0] == fault)
            reason = "moves no rung much more than bfloat16's own rounding does" if in_bfloat16 else INVISIBLE.get(fault)
            reached = reached and reason is not None
            print(f"not visible, {form}: {fault}: {reason or 'no reason is known   below what is required'}")
    return reached


def report_alone(climbs, forms):
    reached = True
    for form in forms:
        every = [c for c in climbs if c.form == form]
        seen = [c for c in every if c.visible]
        if not seen:
            continue
        detected, named = (sum(values) / len(seen) for values in zip(*((c.status == 1, c.named > 0) for c in seen)))
        wrong = sum(c.wrong > 0 for c in seen) / len(seen)
        kept_up = detected >= FORMS[form][2] and named >= FORMS[form][3]
        reached = reached and kept_up
        print(f"alone, {form:16s} {len(seen):3d} of {len(every):3d} visible; detected {detected:6.1%}, named {named:6.1%}, wrong names {wrong:6.1%}"
              f"{'' if kept_up else '   below what is required'}", flush=True)
    return reached


def report_together(climbs):
    if not climbs:
        return True
    planted_ones, names = sum(len(c.faults) for c in climbs), sum(c.names for c in climbs)
    for size in TOGETHER:
        some = [c for c in climbs if len(c.faults) == size]
        if some:
            print(f"together, {size} faults: {sum(c.named for c in some) / (size * len(some)):6.1%} of them named, in {len(some)} engines")
    named, wrong = sum(c.named for c in climbs) / planted_ones, sum(c.wrong for c in climbs) / max(names, 1)
    kept_up = named >= LEAST_NAMED_TOGETHER and wrong <= MOST_WRONG
    print(f"together, all: {named:6.1%} named, {wrong:6.1%} of the names wrong{'' if kept_up else '   below what is required'}")
    return kept_up


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", required=True, metavar="PATH", help="the gemma4-check program")
    parser.add_argument("--fault", action="append", choices=sorted(plant.FAULTS), metavar="NAME", help="only this fault")
    parser.add_argument("--form", action="append", choices=[form for form in FORMS if FORMS[form][3]], help="only this form of dumps")
    parser.add_argument("--sample", type=int, default=1, metavar="N", help="only every Nth fault")
    parser.add_argument("--combinations", type=int, default=COMBINATIONS, metavar="N")
    parser.add_argument("--seed", type=int, default=SEED, metavar="N", help="of the combinations; while something is changed, another one")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", default=os.path.join(manifest.REPOSITORY, "build", "ladder"))
    parser.add_argument("--results", default=os.path.join(manifest.REPOSITORY, "build", "ladder-results.jsonl"), help="removed when everything has been measured")
    parser.add_argument("--keep", action="store_true", help="continue from what another build of the program has measured, too")
    return parser.parse_args()


def main():
    args = arguments()
    torch.set_num_threads(1)
    subprocess.run([args.check, "ladder", "--out", args.out], check=True, stdout=subprocess.DEVNULL)
    generated = processor_seconds()
    forms = args.form or [form for form in FORMS if FORMS[form][3]]
    results = Results(args.results, args.check, args.keep)
    right = list(results.run(honest, [(args.check, args.out, form) for form in FORMS], 1))
    for c in right:
        print(f"honest {c.form}: {'no alarm' if c.status == 0 else 'ALARM: ' + c.said}; {c.seconds:.1f} s of a processor", flush=True)
    alarms = sum(c.status != 0 for c in right)

    faults = (args.fault or list(plant.FAULTS))[::args.sample]
    climbs = []
    for c in results.run(alone, [(args.check, args.out, fault, forms) for fault in faults], args.jobs):
        climbs.append(c)
        if c.visible and (c.status != 1 or not c.named or c.wrong):
            print(f"MISS {c.faults[0]} [{c.form}] {'' if c.status == 1 else f'status {c.status}; '}{c.said}", flush=True)
    visible = {c.faults[0] for c in climbs if c.form == forms[0] and c.visible}
    sets = combinations(visible, args.combinations, args.seed) if len(visible) >= max(TOGETHER) else []
    many = []
    for c in results.run(together, [(args.check, args.out, *drawn) for drawn in sets], args.jobs):
        many.append(c)
        print(f"together {c.named} of {len(c.faults)}, {c.wrong} wrong: {', '.join(c.faults)}: {c.said}", flush=True)
    table(climbs, forms)
    seconds = [c.seconds for c in right + climbs + many if c.visible]
    in_time = generated + max(c.seconds for c in right) <= SECONDS
    reached = [alarms == 0, report_invisible(climbs, forms), report_alone(climbs, forms), report_together(many), in_time]
    print(f"seconds of one processor: {generated:.1f} to generate; to judge, a right engine {max(c.seconds for c in right):.1f} at most, of all "
          f"climbs half {sorted(seconds)[len(seconds) // 2]:.1f}, the longest {max(seconds):.1f}")
    print(f"ladder: {len(right)} honest climbs, {alarms} alarms; {len(faults)} faults alone, {len(many)} combinations (seed {args.seed}); "
          f"{'every rate reached' if all(reached) else 'rates missed'}")
    if len(results.builds) > 1:
        print(f"ladder: measured by {len(results.builds)} builds of the program or the scripts, since --keep was given")
    if not args.fault and not args.form and args.sample == 1 and os.path.exists(args.results):
        os.remove(args.results)
    sys.exit(0 if all(reached) else 1)


if __name__ == "__main__":
    main()
