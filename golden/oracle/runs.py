"""What the measurements share: a case's model, a dump of some of its taps, and gemma4-check's verdict on it."""

import copy
import fnmatch
import functools
import json
import multiprocessing
import os
import subprocess

import torch
import transformers

import activations
import manifest
import model

# What an engine may hold: every tap, only the layers' outputs, only its logits.
TAP_SETS = {"all": ["*"], "layers": ["layers.*.output", "logits"], "logits": ["logits"]}


@functools.lru_cache(maxsize=12)
def pristine(directory, dtype, attention):
    return model.load(directory, dtype, attention)


def fresh_model(case, dtype, attention="eager"):
    """A copy of the case's model that may be changed."""
    return copy.deepcopy(pristine(manifest.checkpoint_directory(case), dtype, attention))


def schedules(case):
    """{name: chunk lengths} of a case: whole; its own chunks (two halves if it has none); one token at a time."""
    length = len(case["tokens"])
    chunks = case.get("schedule") or [length]
    if len(chunks) == 1 and length > 1:
        chunks = [length // 2, length - length // 2]
    return {"whole": [length], "chunks": chunks, "decode": [1] * length}


def write_dump(path, recorded, tap_set, case, dtype, schedule, attributes=None):
    """Writes the taps of one tap set; recorded: {tap: tensor}, as taps.run returns them."""
    wanted = {name: tensor for name, tensor in recorded.items()
              if name in ("tokens", "positions") or any(fnmatch.fnmatchcase(name, p) for p in TAP_SETS[tap_set])}
    root = {"engine": "transformers", "engine_version": transformers.__version__, "dtype": dtype, "case": case["id"],
            "schedule": ",".join(str(n) for n in schedule), **(attributes or {})}
    activations.write_activations(path, wanted, root, compress=False)


class Unjudged(RuntimeError):
    """gemma4-check gave no verdict, or one that contradicts its exit status."""


def check(program, judged_by, dump_path):
    """gemma4-check's result on a dump, as a dict (the contract's JSON), with "status" for its exit status.

    judged_by  a manifest's path, or the list of arguments that stand before the dump
    """
    report = dump_path + ".json"
    if os.path.exists(report):
        os.remove(report)
    before = [judged_by] if isinstance(judged_by, str) else judged_by
    done = subprocess.run([program, *before, dump_path, "--json", report], capture_output=True, text=True, timeout=900)
    if done.returncode not in (0, 1) or not os.path.exists(report):
        said = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise Unjudged(f"exit status {done.returncode}: {said}")
    with open(report, encoding="utf-8") as f:
        result = json.load(f)
    if result["verdict"] != ("PASS" if done.returncode == 0 else "FAIL"):
        raise Unjudged(f"exit status {done.returncode}, verdict {result['verdict']}")
    return {**result, "status": done.returncode}


def judged(result):
    """The taps' rows that decide and have a margin: the local ones with a tolerance."""
    return [row for row in result["taps"] if row.get("mode") == "local" and row.get("tolerance")]


def margin(row):
    """A row's error in units of its tolerance; infinite where it is not a number."""
    ratio = (row["error"] if row["error"] is not None else float("inf")) / row["tolerance"]
    return ratio if ratio == ratio else float("inf")


def worst(result):
    """(error / tolerance, tap) of the row that came closest to failing, or went furthest beyond."""
    return max(((margin(row), row["tap"]) for row in judged(result)), default=(0.0, "none"))


def kind(tap):
    """A tap's name without its layer: layers.5.attn.q_rope -> attn.q_rope."""
    return tap.split(".", 2)[2] if tap.startswith("layers.") else tap


def names(result):
    """The ids of the causes that explain something, best first."""
    return [cause["id"] for cause in result["causes"] if cause["explained"]]


def in_parallel(function, tasks, jobs):
    """Yields function(task) for every task as it is done, in `jobs` processes of one thread each."""
    torch.set_num_threads(1)
    if jobs == 1:
        yield from map(function, tasks)
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap_unordered(function, tasks)
