"""Case manifests (golden/cases/*.yaml): reading, and rewriting single values without touching comments."""

import hashlib
import os
import re

import yaml

ORACLE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(ORACLE))
CASES = os.path.join(REPOSITORY, "golden", "cases")
COMMITTED_CHECKPOINTS = os.path.join(REPOSITORY, "golden", "checkpoints")
BUILT_CHECKPOINTS = os.path.join(REPOSITORY, "build", "checkpoints")


def read(path):
    """The manifest as a dict; ValueError where it is no manifest of version 1."""
    with open(path, encoding="utf-8") as f:
        case = yaml.safe_load(f)
    if not isinstance(case, dict) or case.get("format") != "gemma4-case" or case.get("version") != 1:
        raise ValueError(f"{path}: expected format: gemma4-case, version: 1")
    return case


def paths(cases, case_id=None):
    """The manifests in a directory, sorted; only the one of case_id if given. ValueError if there is none."""
    names = sorted(n for n in os.listdir(cases) if n.endswith(".yaml"))
    if case_id is not None:
        names = [n for n in names if n == case_id + ".yaml"]
    if not names:
        raise ValueError(f"{cases}: no manifest" + (f" {case_id}.yaml" if case_id else ""))
    return [os.path.join(cases, n) for n in names]


def has_many_positions(case):
    """Whether the case takes many times as long as the others (spec/cases.md, flags)."""
    return any(flag["flag"] == "many-positions" for flag in case["flags"])


def config_path(case):
    """The checkpoint's config.json: always committed, also where the weights are generated."""
    return os.path.join(COMMITTED_CHECKPOINTS, case["checkpoint"]["name"], "config.json")


def checkpoint_directory(case):
    """Where the case's checkpoint lies: among the committed ones, else where generated ones go (it may not exist yet)."""
    name = case["checkpoint"]["name"]
    committed = os.path.join(COMMITTED_CHECKPOINTS, name)
    has_weights = os.path.exists(os.path.join(committed, "model.safetensors"))
    return committed if has_weights else os.path.join(BUILT_CHECKPOINTS, name)


def sha256(path):
    """The hexadecimal digest of a file."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def rewrite(text, key, value):
    """Replaces the value of one "section.key" in a block-style manifest with indent 2, keeping all else.

    Strings are written in double quotes, numbers bare. ValueError unless exactly one such line exists.
    """
    section, name = key.split(".")
    pattern = re.compile(rf"(^{re.escape(section)}:[^\n]*\n(?:(?:  [^\n]*)?\n)*?  {re.escape(name)}:)[^\n#]*(#[^\n]*)?$", re.MULTILINE)
    shown = f'"{value}"' if isinstance(value, str) else f"{value}"
    replaced, count = pattern.subn(
        lambda m: f"{m[1]} {shown}" + (f"  {m[2]}" if m[2] else ""), text)
    if count != 1:
        raise ValueError(f"expected one line for {key}, found {count}")
    return replaced
