"""Branch coverage of ref/ and tests/check, file by file, from llvm-cov's export; and of what kind the branches are that no test takes.

    python3 tests/coverage.py COVERAGE.json UNCOVERED.txt

A branch is one outcome of one condition. The kinds are told by the words of the statement around a condition: what fails only where memory runs
out, where a system call or library fails, where something that was called has failed. UNCOVERED.txt lists all of them, line by line."""
import json
import os
import re
import sys

KINDS = (
    ("memory", r"out of memory|[mc]alloc\(|realloc\(|strn?dup\(|asprintf\(|_new\(|gemma4_zeroed|MAP_FAILED|open_memstream"),
    ("system", r"\bH5[A-Z]+[a-z]\w*|errno|\bf?stat\(|\b(open|close|read|write|pread|fork|pipe|kill|waitpid|poll|recv|send|mmap|fsync|fopen|fclose|fread|fwrite|fflush"
               r"|ferror|fseek|ftell|rename|unlink|mkdir|opendir|dup2|setrlimit|getrlimit|prctl|syscall|sigaction|socketpair|clock_\w+|snprintf|EVP_\w+|yaml_\w+"
               r"|inflate\w*|realpath|sysconf|madvise)\("),
    ("passed on", r"error\)|status|failed|return -1"),
)
EXPLAINED = {
    "memory": "only where memory runs out: make check-alloc has every one of these places fail",
    "system": "only where a system call or a library fails: full disks, lost processes, libhdf5's refusals (suites outputs, sandbox, cliffs take others)",
    "passed on": "a failure of what was called, passed on as it is: each callee's own refusals are tested where they arise",
    "other": "the other side of a condition that the suites' cases do not need: bounds, options and formats of rare use",
}


def statement(lines, first, last):
    """The condition's line, those that it goes on to, and the one behind, which says what a failure is."""
    return " ".join(line.strip() for line in lines[first - 1:last + 2])


def kind_of(text):
    return next((name for name, words in KINDS if re.search(words, text)), "other")


def main():
    with open(sys.argv[1]) as f:
        files = json.load(f)["data"][0]["files"]
    rows, totals, here = [], {}, os.getcwd() + "/"
    with open(sys.argv[2], "w") as listed:
        for entry in sorted(files, key=lambda e: e["filename"]):
            name = entry["filename"].replace(here, "").removeprefix("./")
            if not name.startswith(("ref/", "tests/check/")):
                continue
            with open(name) as f:
                lines = f.read().split("\n")
            taken, missing = 0, dict.fromkeys(EXPLAINED, 0)
            merged = {}
            for line, column, end, _, yes, no, *_ in entry["branches"]:
                pair = merged.setdefault((line, column), [end, 0, 0])
                pair[1] += yes
                pair[2] += no
            for (line, column), (end, yes, no) in sorted(merged.items()):
                taken += (yes > 0) + (no > 0)
                for outcome, count in (("true", yes), ("false", no)):
                    if count == 0:
                        kind = kind_of(statement(lines, line, end))
                        missing[kind] += 1
                        print(f"{name}:{line}:{column}: never {outcome}: {kind}: {lines[line - 1].strip()[:100]}", file=listed)
            total = 2 * len(merged)
            rows.append((name, total, taken, entry["summary"]["lines"]["percent"], missing))
    print("Branch coverage by the unit tests and the programs that they run. Repeated by: make coverage")
    print(f"{'file':36} {'branches':>9} {'taken':>7} {'lines':>7}   not taken:" + "".join(f" {k:>10}" for k in EXPLAINED))
    for name, total, taken, percent, missing in rows:
        print(f"{name:36} {total:9} {100 * taken / total if total else 100:6.1f}% {percent:6.1f}%             " + "".join(f" {n:10}" for n in missing.values()))
    for folder in ("ref/", "tests/check/", ""):
        some = [r for r in rows if r[0].startswith(folder)]
        total, taken = sum(r[1] for r in some), sum(r[2] for r in some)
        totals = [sum(r[4][k] for r in some) for k in EXPLAINED]
        print(f"{folder or 'both':36} {total:9} {100 * taken / max(total, 1):6.1f}%                     " + "".join(f" {n:10}" for n in totals))
    print()
    for kind, why in EXPLAINED.items():
        print(f"{kind}: {why}.")


main()
