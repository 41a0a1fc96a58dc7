#!/usr/bin/env python3
"""make wrong-pages: do the tests notice when README.md or a page of spec/ says something wrong? Changes one number, name or command at a
time, chosen at random, runs the unit suites that read the pages, and lists what no suite noticed. Python 3, without packages.

    tests/wrong_pages.py BUILD [--sample N] [--seed S] [--page GLOB] [--kind number|name|command]

Exits 1 where one survives. Commands typed into a debugger are left out: make debug-test types them.
"""
import argparse
import fnmatch
import glob
import os
import random
import re
import subprocess
import sys
import tempfile

SUITES = ["numbers", "pages", "spec", "walkthrough", "quotes"]
OF_PAGE = {"spec/causes.md": ["counter_model"]}
KINDS = {
    # A number that stands alone: no part of a name, a path, a link, a heading's section number.
    "number": r"(?<![\w./#\[-])-?\d+(?:[.,]\d+)*(?:e[+-]?\d+)?(?![\w/\])-]|\.\d)",
    "name": r"(?<![\w/])(?:layers\.\d+\.)?(?:attn|mlp|router|moe|ffn)\.\w+|\b(?:final_norm|logits_raw|topk_ids)\b|\b(?:gemma4|GEMMA4)_\w+",
    "command": r"\b(?<!/)(?:build/)?gemma4-(?:check|ref) [a-z][\w-]+|(?<=[`\s])--[a-z][\w-]+|(?<=`)make [a-z][\w-]+",
}


def wrong(kind, text):
    """Something like it that is not it."""
    if kind != "number":
        return text[:-1] if text[-2:-1].isalnum() and len(text) > 4 else text + "x"
    i = max(i for i, c in enumerate(text) if c.isdigit() and (i == 0 or text[i - 1] not in "e-+" or not text[:i].count("e")))
    return text[:i] + str((int(text[i]) + 1) % 10 if text != "9" else 8) + text[i + 1:]


def places(pages, kinds):
    for page in pages:
        with open(page, encoding="utf-8") as f:
            text = f.read()
        for kind in kinds:
            for match in re.finditer(KINDS[kind], text):
                line = text[text.rfind("\n", 0, match.start()) + 1:match.start()]
                if not re.match(r" *(\(lldb\)|\(gdb\)|lldb) ", line):
                    yield page, kind, match.start(), match.group()


def make_tree(folder):
    """The repository as links, but for the pages, which are copies."""
    for name in os.listdir("."):
        if name not in (".git", "README.md", "spec"):
            os.symlink(os.path.abspath(name), os.path.join(folder, name))
    os.makedirs(os.path.join(folder, "spec"))
    for path in ["README.md"] + glob.glob("spec/*"):
        if path.endswith(".md"):
            with open(path, encoding="utf-8") as f, open(os.path.join(folder, path), "w", encoding="utf-8") as to:
                to.write(f.read())
        else:
            os.symlink(os.path.abspath(path), os.path.join(folder, path))


def first_that_fails(folder, build, page=None):
    """(suite, what it says); None where all pass."""
    environment = dict(os.environ, GEMMA4_BUILD=os.path.abspath(build), CK_FORK="no")
    for suite in SUITES + OF_PAGE.get(page, []):
        ran = subprocess.run([os.path.join(os.path.abspath(build), "unit-tests")], cwd=folder, env=dict(environment, CK_RUN_SUITE=suite),
                             capture_output=True, text=True, errors="replace", check=False)
        if ran.returncode:
            lines = [line for line in ran.stdout.splitlines() if ":F:" in line or ":E:" in line] or ran.stdout.splitlines()
            return suite, lines[0].split(": ", 1)[-1] if lines else "no output"
    return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--sample", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--page", default="*")
    parser.add_argument("--kind", choices=KINDS)
    a = parser.parse_args()
    pages = [page for page in ["README.md"] + sorted(glob.glob("spec/*.md")) if fnmatch.fnmatch(os.path.basename(page), a.page)]
    kinds = [a.kind] if a.kind else list(KINDS)
    draw, sample, survivors = random.Random(a.seed), [], 0
    for kind in kinds:
        found = list(places(pages, [kind]))
        sample += draw.sample(found, min(len(found), a.sample // len(kinds)))
    with tempfile.TemporaryDirectory() as folder:
        make_tree(folder)
        if first_that_fails(folder, a.build):
            sys.exit(f"wrong-pages: the suites fail before anything is changed: {first_that_fails(folder, a.build)}")
        for page, kind, start, text in sample:
            with open(page, encoding="utf-8") as f:
                whole = f.read()
            changed = wrong(kind, text)
            with open(os.path.join(folder, page), "w", encoding="utf-8") as f:
                f.write(whole[:start] + changed + whole[start + len(text):])
            fails = first_that_fails(folder, a.build, page)
            with open(os.path.join(folder, page), "w", encoding="utf-8") as f:
                f.write(whole)
            line = whole.count("\n", 0, start) + 1
            before = whole[max(0, start - 40):start].split("\n")[-1]
            after = whole[start + len(text):start + len(text) + 40].split("\n")[0]
            print(f"{'by ' + fails[0] if fails else 'SURVIVES':12} {page}:{line}: {before}[{text} -> {changed}]{after}", flush=True)
            survivors += not fails
    print(f"wrong-pages: {len(sample) - survivors} of {len(sample)} changes were noticed")
    sys.exit(1 if survivors else 0)


main()
