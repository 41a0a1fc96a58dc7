"""Two mistakes at once, in different steps: both steps must be listed, and both mistakes named.

    python pairs.py --check ../../build/gemma4-check [--dtype D] [--sample N] [--jobs 2]

Every pair is planted into transformers and judged with all taps, in float32 and in bfloat16. Judging each step on the engine's own inputs
keeps the second mistake visible behind the first: the tap at which each enters must fail locally, and both ids must be among the
causes (or equivalent to one). One line per miss and one summary line; exit status 0 only if every pair has both steps, and at
least NAMED of them both names.
"""

import argparse
import os
import sys

import manifest
import plant
import planted
import runs

PROMPT = [
    ("embed-scale-missing", "experts-silu"), ("embed-scale-twice", "layer-scalar-dropped"), ("input-norm-missing", "softcap-missing"),
    ("rmsnorm-one-plus-w@qk", "router-double-norm"), ("v-norm-missing", "mlp-silu"), ("qk-norm-swapped", "gate-up-swapped"),
    ("v-norm-has-weight", "per-expert-scale-missing"), ("post-attention-norm-missing", "experts-gptoss-constants"),
    ("rmsnorm-base-ffn-norms-dropped", "keqv-v-after-knorm-rope"), ("pre-ffn-norm-is-post-attn-norm", "rope-pairing-contiguous"),
    ("branch-pre-norms-swapped", "layer-scalar-on-delta"), ("branch-post-norms-swapped", "attn-scale-inv-sqrt-d"),
    ("keqv-unimplemented", "topk-not-renormalised"), ("keqv-on-sliding-layers", "routing-weight-twice"),
    ("softmax-off-by-one", "router-scale-tensor-skipped"), ("o-proj-heads-interleaved", "experts-quick-gelu"),
    ("rope-full-rotation-on-global", "router-norm-or-root-scale-missing"), ("rope-exponent-rotary-dim", "per-expert-scale-twice"),
    ("rope-global-applied-to-local", "dense-branch-ignored"), ("rope-reversed", "mlp-gate-up-swapped"),
    ("rope-missing@k", "softcap-twice"), ("rope-pairing-interleaved", "expert-transpose"), ("rope-on-v", "layer-scalar-twice"),
    ("rope-scaling-wrong-layer-kind", "final-norm-missing"), ("router-sigmoid", "attn-residual-missing"),
    ("residual-inplace-alias", "experts-act-missing"),
]
CROSSINGS = [
    ("window-off-by-one-wide", "experts-gelu-erf"), ("window-not-passed", "rope-pairing-contiguous"),
    ("window-on-global-too", "per-expert-scale-by-rank"), ("window-off-by-one-other", "layer-scalar-dropped"),
]
CHUNKS = [
    ("chunked-prefill-no-past", "gate-up-swapped"), ("rope-position-restarts-in-chunk", "topk-not-renormalised"),
    ("prefill-kv-never-uploaded", "mlp-gelu-erf"), ("ring-slot-as-position", "softcap-missing"),
]
SINGLE_LAYERS = [("experts-silu", 3, "experts-silu", 9), ("v-norm-missing", 2, "layer-scalar-dropped", 8)]

PAIRS = ([(a, (), b, (), "tiny-prompt", "whole") for a, b in PROMPT]
         + [(a, (), b, (), "tiny-window-crossings", "whole") for a, b in CROSSINGS]
         + [(a, (), b, (), "tiny-chunks", "chunks") for a, b in CHUNKS]
         + [(a, (i,), b, (j,), "tiny-prompt", "whole") for a, i, b, j in SINGLE_LAYERS])
NAMED = {"float32": 0.97, "bfloat16": 0.90}  # of the mistakes


def judge(pair, result, layer_types):
    """([taps that should fail and do not], [ids that should be named and are not])"""
    a, a_layers, b, b_layers, _, _ = pair
    failed = {row["tap"] for row in runs.judged(result) if row["verdict"] == "FAIL"}
    listed = {name for cause in result["causes"] if cause["explained"] for name in (cause["id"], *cause.get("equivalent", []))}
    unlisted, unnamed = [], []
    for fault, layers in (a, a_layers), (b, b_layers):
        tap = plant.first_tap(fault, layer_types, layers or None)
        at_cause = {cause["tap"] for cause in result["causes"] if cause["explained"]}  # found by its effect in all positions
        unlisted += [] if tap in failed | at_cause else [tap]
        unnamed += [] if plant.FAULTS[fault].cause in listed else [fault]
    return unlisted, unnamed


def measure(task):
    """(pair, dtype, taps not listed, ids not named, error)"""
    pair, dtype, program, out = task
    a, a_layers, b, b_layers, case_id, schedule = pair
    path, dump = os.path.join(manifest.CASES, case_id + ".yaml"), os.path.join(out, f"pair-{os.getpid()}.h5")
    try:
        case = manifest.read(path)
        recorded, layer_types = planted.compute(case, schedule, dtype, False, [(a, a_layers), (b, b_layers)])
        runs.write_dump(dump, recorded, "all", case, dtype, runs.schedules(case)[schedule])
        return (pair, dtype, *judge(pair, runs.check(program, path, dump), layer_types), None)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        return pair, dtype, [a, b], [a, b], f"{type(error).__name__}: {error}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", required=True, metavar="PATH", help="the gemma4-check program")
    parser.add_argument("--dtype", action="append", choices=sorted(NAMED))
    parser.add_argument("--sample", type=int, default=1, metavar="N", help="only every Nth pair")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", default=os.path.join(manifest.REPOSITORY, "build", "planted"))
    args = parser.parse_args()

    os.makedirs(args.out, exist_ok=True)
    dtypes = args.dtype or list(NAMED)
    tasks = [(pair, dtype, args.check, args.out) for dtype in dtypes for pair in PAIRS[::args.sample]]
    counts = {dtype: [0, 0, 0] for dtype in dtypes}  # pairs; pairs with both steps; mistakes named
    for pair, dtype, unlisted, unnamed, error in runs.in_parallel(measure, tasks, args.jobs):
        counts[dtype][0] += 1
        counts[dtype][1] += not unlisted
        counts[dtype][2] += 2 - len(unnamed)
        if unlisted or unnamed:
            print(f"MISS  {pair[0]} + {pair[2]} {dtype}: {error or f'not listed {unlisted}, not named {unnamed}'}", flush=True)
    reached = all(pairs and both == pairs and named >= NAMED[dtype] * 2 * pairs for dtype, (pairs, both, named) in counts.items())
    print("pairs: " + "; ".join(f"{dtype}: {both} of {pairs} with both steps listed, {named} of {2 * pairs} mistakes named"
                                for dtype, (pairs, both, named) in counts.items()))
    sys.exit(0 if reached else 1)


if __name__ == "__main__":
    main()
