"""Is every constant of the checker held by a test? Changes one at a time, and runs the tests until one fails.

    python3 tests/mutate.py [--only NAME] [--jobs 2] [--declared] [--list] [--out FILE]

The constants are those of CONSTANTS below. Each is made twice and half as large; counts also one larger and smaller. Of every mutant the
objects that depend on the constant are compiled anew, in a copy of the tree under build/mutants; then the unit tests run, a suite at a
time, those first that name the constant, then those that have caught most, and last `gemma4-check self-test --sample --stop`. A mutant is
killed by the first that fails, or by the compiler.

A mutant that may survive is declared in the source, with its reason:

    #define PAIR_MODELS 60 /* mutants: x2, x0.5 survive: time only */
    /* mutants: attn.k each x2 survives: ... */

on the constant's line, or alone on the one above, or, with its name, anywhere in the file. Declared mutants are run with --declared only.
Exit status 0 only if every other one is killed. One line a mutant and a summary, also in FILE (spec/measured/mutants.txt, without --only;
with it, FILE keeps the lines of the other mutants).
"""

import argparse
import dataclasses
import glob
import os
import re
import shutil
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORK = os.path.join(ROOT, "build", "mutants")
CFLAGS = "-O2"  # -O1 compiles in half the time, but the tests of a survivor take twice as long

# Files, and expressions that find a constant in a line: its name (given, where there is none in the source) and its value.
DEFINE = r"#define (?P<name>[A-Z][A-Z0-9_]*) (?P<value>\S.*?)(?: /\*.*)?$"
CONSTANTS = [
    ("tests/check/thresholds.h", DEFINE, None),
    ("tests/check/thresholds.h", r"enum \{ (?P<name>[A-Z_]+) = (?P<value>[^,}]+) \}", None),
    ("tests/check/noise.h", r"enum \{ (?P<name>GEMMA4_DRAWS) = (?P<value>\d+) \}", None),
    ("tests/check/causes.h", r"enum \{ (?P<name>GEMMA4_MAX_EQUIVALENT) = (?P<value>\d+),", None),
    ("tests/check/causes.h", r" (?P<name>GEMMA4_MAX_EQUIVALENT_POINTS) = (?P<value>\d+) \}", None),
    ("tests/check/fit.h", r"enum \{ (?P<name>GEMMA4_MAX_FITS) = (?P<value>\d+),", None),
    ("tests/check/fit.h", r" (?P<name>GEMMA4_MAX_POINTS) = (?P<value>\d+) \}", None),
    ("tests/check/identify_internal.h", r"enum \{ (?P<name>IDENTIFY_SPLIT_BASES) = (?P<value>\d+) \}", None),
    ("tests/check/identify_experts.c", r"enum \{ (?P<name>MOST_RANKS) = (?P<value>\d+) \}", None),
    ("tests/check/identify_look.c", r"enum \{ (?P<name>SAME_POINTS) = (?P<value>\d+) \}", None),
    ("tests/check/names_recognise.c", DEFINE, None),
    ("tests/check/propose_turns.c", DEFINE, None),
    ("tests/check/noise.h", r"#define (?P<name>UNIT_FLOAT32) (?P<value>\S+)", None),
    ("tests/check/noise.c", r'\{"bfloat16", (?P<value>[^,]+),', "unit of bfloat16"),
    ("tests/check/noise.c", r'\{"float16", (?P<value>[^,]+),', "unit of float16"),
    ("tests/check/noise.c", r'\{"q8_0", (?P<value>[^,]+),', "unit of q8_0"),
    ("tests/check/noise.c", r'\{"q4_0", (?P<value>[^,]+),', "unit of q4_0"),
    ("tests/check/noise.c", r'\{"q4_k", (?P<value>[^,]+),', "unit of q4_k"),
    ("tests/check/noise.c", r"rms\(x, n\) \* (?P<value>sqrt\(3\)) \*", "sum of products"),
    ("tests/check/noise.c", r'\{"q8_0", [^,]+, (?P<value>\d+)\}', "block of q8_0"),
    ("tests/check/noise.c", r'\{"q4_0", [^,]+, (?P<value>\d+)\}', "block of q4_0"),
    ("tests/check/noise.c", r'\{"q4_k", [^,]+, (?P<value>\d+)\}', "block of q4_k"),
    ("tests/check/noise.c", r"largest / (?P<value>127) ", "step of quantised inputs"),
    ("tests/check/noise.c", r"\* (?P<value>sqrt\(0\.5\)) \*", "rounding of quantised inputs"),
    ("tests/check/noise.c", r"UNIT_FLOAT32 \* (?P<value>1\.5) \* uniform", "rounding of a frequency"),
    ("tests/check/noise.c", r"\(frequency_error \+ (?P<value>UNIT_FLOAT32) \*", "rounding of an angle"),
    # The columns `each` and `shared` of the table of taps, whose rows begin with an id, on the same line or on one of its own.
    ("ref/taps.h", r'(?:X\([A-Z_]+,|^) +"(?P<name>[a-z_.]+)",(?:[^,]+,){6} *(?P<value>[\d.]+),', " each"),
    ("ref/taps.h", r'(?:X\([A-Z_]+,|^) +"(?P<name>[a-z_.]+)",(?:[^,]+,){7} *(?P<value>[\d.]+),', " shared"),
]
# Where a constant shows in other files under another word than its own.
SEEN_AS = {"ref/taps.h": "GEMMA4_TAPS", "tests/check/noise.c": None}
# What the sources of the checker do not enter: these suites catch no mutant. And `spec` and `pages` compare numbers with their pages only.
NOT_RUN = {"activations", "config", "document", "forward", "model", "numbers", "ops", "options", "pages", "quotes", "safetensors",
           "spec", "synth", "taps", "twins"}
SAMPLE = "sample self-test"


# Columns of the table of roundings may survive: twice as many roundings widen the yardstick by 1.4, which no single run of an engine tells
# from the right one. What tells is many right engines and many small mistakes.
COLUMN_REASONS = {column: "many engines tell: make honest (too few roundings: alarms), make planted (too many: small mistakes pass)"
                  for column in (" each", " shared")}


@dataclasses.dataclass(frozen=True)
class Mutant:
    file: str
    line: int    # from 0
    span: tuple  # of the value in the line
    name: str
    change: str  # "x2"
    value: str   # what takes its place
    word: str    # the identifier by which other files depend on it; None: none does
    reason: str  # why it may survive; "" where that is not declared

    def __str__(self):
        return f"{self.name} {self.change}"


# --- mutants ----------------------------------------------------------------------------------------------------------


def changes(value, is_count):
    """(name of the change, new value) of each change of a constant."""
    if not is_count:
        return [("x2", f"(2 * ({value}))"), ("x0.5", f"(0.5 * ({value}))")]
    return [("+1", f"(({value}) + 1)"), ("-1", f"(({value}) - 1)"), ("x2", f"(2 * ({value}))")]


def declared(lines, number, name, change):
    """The reason that the source gives for a mutant that survives, or ''."""
    for k, line in enumerate(lines):
        for found in re.finditer(r"/\* mutants: (.*?) survives?: (.*?) \*/", line):
            what = found[1]
            named = what.startswith(name + " ")
            here = k == number or (k == number - 1 and line.lstrip().startswith("/*"))
            near = here and not re.match(r"[^,]* (x|\+|-)[\d.]", what)
            listed = re.split(r",\s*", what[len(name) + 1:] if named else what)
            if (named or near) and change in listed:
                return found[2]
    return ""


def find_mutants():
    """All mutants, in the order of the files."""
    found = []
    for path, pattern, given in CONSTANTS:
        lines = open(os.path.join(ROOT, path), encoding="utf-8").read().split("\n")
        hits = [(k, m) for k, line in enumerate(lines) for m in re.finditer(pattern, line)]
        if not hits and "enum" not in pattern:
            sys.exit(f"mutate.py: {path}: nothing matches {pattern}")
        for k, m in hits:
            name = m.groupdict().get("name", "") + (given or "")
            value, is_column = m["value"], path == "ref/taps.h"
            if is_column and float(value) == 0:
                continue
            is_count = not is_column and bool(re.fullmatch(r"\d+|\(\(size_t\).*", value)) and value != "127"
            word = SEEN_AS.get(path, m.groupdict().get("name"))
            for change, new in changes(value, is_count):
                found.append(Mutant(path, k, m.span("value"), name, change, new, word,
                                    declared(lines, k, name, change) or COLUMN_REASONS.get(given, "")))
    return found


# --- building ---------------------------------------------------------------------------------------------------------


def run(command, directory, timeout=None, environment=None):
    """(exit status, output); the status is None after timeout seconds. The whole process group ends with it."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    process = subprocess.Popen(command, shell=isinstance(command, str), cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env={**inherited, **(environment or {})}, start_new_session=True)
    try:
        out, _ = process.communicate(timeout=timeout)
        return process.returncode, out.decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return None, ""


def make_tree(number):
    """A copy of the sources, and of all that tests read, in which one mutant at a time is made. All start from the build of the first."""
    tree = os.path.join(WORK, str(number))
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(ROOT, tree, symlinks=True, ignore=lambda folder, _: {"build", ".git"} if folder == ROOT else set())
    os.makedirs(os.path.join(tree, "build"))
    checkpoints = os.path.join(WORK, "checkpoints")
    os.makedirs(checkpoints, exist_ok=True)
    os.symlink(checkpoints, os.path.join(tree, "build", "checkpoints"))
    if number:
        for name in ("ref", "tests", "gemma4-ref", "gemma4-check", "unit-tests", "version"):
            copy = shutil.copytree if os.path.isdir(os.path.join(WORK, "0", "build", name)) else shutil.copy2
            copy(os.path.join(WORK, "0", "build", name), os.path.join(tree, "build", name))
    return tree


class Tree:
    """A built copy of the tree."""

    def __init__(self, number, jobs):
        self.path = make_tree(number)
        make = f"make -j{jobs} BUILD=build CFLAGS={CFLAGS} all build/unit-tests"
        if number == 0:
            status, out = run(make, self.path)
            if status != 0:
                sys.exit(f"mutate.py: the tree does not build:\n{out[-2000:]}")
        _, commands = run(make.replace("make", "make -n -B"), self.path)
        lines = commands.split("\n")
        self.compile = {m[1]: line for line in lines if (m := re.search(r" -c -o \S+ (\S+\.c)$", line))}
        self.link = {m[1]: line for line in lines if (m := re.search(r" -o (build/[\w-]+) build/", line))}
        if not self.compile or len(self.link) != 3:
            sys.exit("mutate.py: no compile and link commands in the output of make -n -B")
        self.reads = {source: self.dependencies(source) for source in self.compile}

    def dependencies(self, source):
        """The files of the tree that a source file includes, itself among them."""
        text = open(os.path.join(self.path, "build", source[:-2] + ".d"), encoding="utf-8").read().replace("\\\n", " ")
        return {word for word in text.split(":")[1].split() if not word.startswith("/")}

    def text(self, path):
        return open(os.path.join(self.path, path), encoding="utf-8").read()

    def affected(self, mutant):
        """The source files to be compiled anew: those that mention the constant, or include another header that does."""
        if mutant.word is None or mutant.file.endswith(".c"):
            return [mutant.file]
        words = {mutant.word}
        if mutant.file != "ref/taps.h": # constants that are made of it
            words |= {m[1] for m in re.finditer(rf"#define (\w+) .*\b{mutant.word}\b", self.text(mutant.file))}
        mention = re.compile(r"\b(" + "|".join(map(re.escape, words)) + r")\b")
        mentioning = {path for reads in self.reads.values() for path in reads if path != mutant.file and mention.search(self.text(path))}
        return [source for source, reads in self.reads.items() if mutant.file in reads and reads & mentioning]

    def objects(self, sources):
        """The object files, and what is in them."""
        paths = [os.path.join(self.path, "build", source[:-2] + ".o") for source in sources]
        return {path: open(path, "rb").read() for path in paths}

    def build(self, sources):
        """True where it compiles and links."""
        for source in sources:
            if run(self.compile[source], self.path)[0] != 0:
                return False
        of_ref = any(source.startswith("ref/") for source in sources)
        return all(run(line, self.path)[0] == 0 for program, line in self.link.items() if of_ref or program != "build/gemma4-ref")


# --- running ----------------------------------------------------------------------------------------------------------


class Tests:
    """The suites, how long each takes unmutated, and how many mutants it has killed."""

    def __init__(self, tree):
        self.seconds, self.kills, self.sources, self.lock = {}, {}, {}, threading.Lock()
        for path in sorted(glob.glob(os.path.join(ROOT, "tests", "unit", "*.[ch]"))):
            text = open(path, encoding="utf-8").read()
            for suite in re.findall(r'suite_create\("(\w+)"\)', text):
                if suite not in NOT_RUN:
                    self.sources[suite] = text
        for test in [*self.sources, SAMPLE]:
            start = time.time()
            status, out = self.run(tree, test, None)
            if status != 0:
                sys.exit(f"mutate.py: without a mutant, {test} fails:\n{out[-2000:]}")
            self.seconds[test], self.kills[test] = time.time() - start, 0
            print(f"unmutated: {test} passes, {self.seconds[test]:.1f} s", flush=True)

    def run(self, tree, test, timeout):
        if test == SAMPLE:
            return run(["build/gemma4-check", "self-test", "--sample", "--jobs", "1", "--stop"], tree.path, timeout)
        return run(["build/unit-tests"], tree.path, timeout, {"CK_RUN_SUITE": test, "GEMMA4_BUILD": "build"})

    def order(self, mutant, sources):
        """The likeliest killer first: suites that name the constant or are of the file that uses it, then the most kills a second."""
        rooms = {os.path.basename(source)[:-2] for source in sources}

        def key(suite):
            names = bool(mutant.word) and mutant.word in self.sources[suite]
            return not names, suite not in rooms, -self.kills[suite] / (self.seconds[suite] + 1), self.seconds[suite]
        with self.lock:
            return [*sorted(self.sources, key=key), SAMPLE]

    def killer(self, tree, mutant, sources):
        """The test that fails, or None."""
        for test in self.order(mutant, sources):
            status, _ = self.run(tree, test, 10 * self.seconds[test] + 60)
            if status != 0:
                with self.lock:
                    self.kills[test] += 1
                return test if status is not None else f"{test} (does not end)"
        return None


def try_mutant(tree, tests, mutant):
    """(the test that killed it or None, seconds)"""
    start = time.time()
    path = os.path.join(tree.path, mutant.file)
    original = tree.text(mutant.file)
    sources = tree.affected(mutant)
    objects = tree.objects(sources)
    lines = original.split("\n")
    a, b = mutant.span
    lines[mutant.line] = lines[mutant.line][:a] + mutant.value + lines[mutant.line][b:]
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(lines))
        killer = tests.killer(tree, mutant, sources) if tree.build(sources) else "compiler"
    finally:
        with open(path, "w", encoding="utf-8") as file:
            file.write(original)
        for path, content in objects.items():
            with open(path, "wb") as file:
                file.write(content)
    return killer, time.time() - start


def describe(mutant, killer, seconds):
    """(line, whether it counts against the tests)"""
    if killer:
        stale = f"; declared to survive: {mutant.reason}" if mutant.reason else ""
        return f"killed    {mutant!s:44} by {killer}{stale} ({seconds:.0f} s)", False
    if mutant.reason:
        return f"declared  {mutant!s:44} {mutant.reason}", False
    return f"SURVIVED  {mutant!s:44} {mutant.file} ({seconds:.0f} s)", True


def summary_of(page):
    """page: of each mutant its line."""
    killed, declared_count, survived = (sum(line.startswith(word) for line in page.values()) for word in ("killed", "declared", "SURVIVED"))
    return f"mutants: {len(page)}, {killed} killed, {declared_count} declared to survive, {survived} survived"


def lines_of(path):
    """Of each mutant the line that an earlier run left, which mentions it in columns 10 to 54."""
    with open(path, encoding="utf-8") as file:
        return {line[10:54].strip(): line.rstrip("\n") for line in file if not line.startswith("mutants:")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", metavar="NAME", help="only this constant; may be repeated")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--declared", action="store_true", help="run those that are declared to survive as well")
    parser.add_argument("--list", action="store_true", help="print the mutants, and run none")
    parser.add_argument("--out", help="where the lines are kept; spec/measured/mutants.txt, and nowhere with --only unless FILE is given")
    args = parser.parse_args()

    mutants = [m for m in find_mutants() if not args.only or m.name in args.only]
    if not mutants:
        sys.exit("mutate.py: --only names no constant; --list prints them")
    if args.list:
        print("\n".join(f"{m!s:44} {m.file}:{m.line + 1} {m.value}" + (f"  declared: {m.reason}" if m.reason else "") for m in mutants))
        return
    start = time.time()
    trees = [Tree(number, args.jobs) for number in range(args.jobs)]
    tests = Tests(trees[0])
    queue, lines, survivors, lock = list(enumerate(mutants)), {}, [], threading.Lock()

    def work(tree):
        while True:
            with lock:
                if not queue:
                    return
                number, mutant = queue.pop(0)
            skip = mutant.reason and not args.declared
            killer, seconds = (None, 0) if skip else try_mutant(tree, tests, mutant)
            with lock:
                lines[number], bad = describe(mutant, killer, seconds)
                survivors.extend([str(mutant)] * bad)
                print(lines[number], flush=True)
    threads = [threading.Thread(target=work, args=(tree,)) for tree in trees]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(lines) != len(mutants):
        sys.exit("mutate.py: not every mutant was run")
    page = {str(mutant): re.sub(r" \(\d+ s\)$", "", lines[number]) for number, mutant in enumerate(mutants)} # times differ from run to run
    print(f"{summary_of(page)}; {time.time() - start:.0f} s")
    out = args.out or (None if args.only else os.path.join(ROOT, "spec", "measured", "mutants.txt"))
    if out:
        if args.only and os.path.exists(out):
            page = {**lines_of(out), **page}
        page = {str(mutant): page[str(mutant)] for mutant in find_mutants() if str(mutant) in page}
        os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
        with open(out, "w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in [*page.values(), summary_of(page)])
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
