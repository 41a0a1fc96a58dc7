"""What ladder_check.py measures, kept in a file as it is measured, so that an interrupted call can be continued."""

import dataclasses
import glob
import hashlib
import json
import os

import runs


@dataclasses.dataclass
class Climb:
    faults: tuple
    form: str
    visible: bool = True
    status: int = -1
    named: int = 0
    names: int = 0  # causes that are named
    wrong: int = 0
    seconds: float = 0
    said: str = ""


class Results:
    """Climbs that were judged, kept in a file, a line of JSON a task. The next call of the same program, and of the same scripts beside this file,
    takes them from there; of_any: those of other ones too. builds: the digests of those whose results were taken or made."""

    def __init__(self, path, program, of_any):
        self.path, self.by, self.kept, self.builds = path, digest(program), {}, set()
        lines = []
        if os.path.exists(path):
            with open(path, encoding="utf-8") as f:
                lines = f.read().splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):  # it was interrupted while it wrote
            with open(path, "w", encoding="utf-8") as f:
                f.writelines(lines[:-1])
            del lines[-1]
        for line in map(json.loads, lines):
            if of_any or line["by"] == self.by:
                self.kept[line["task"]] = line

    def take(self, line):
        self.builds.add(line["by"])
        return [Climb(**{**climb, "faults": tuple(climb["faults"])}) for climb in line["climbs"]]

    def run(self, function, tasks, jobs):
        """The climbs of function(task), for every task; those that are kept come first."""
        named = {json.dumps([function.__name__, *task[2:]]): task for task in tasks}
        for name in named:
            if name in self.kept:
                yield from self.take(self.kept[name])
        due = {name: task for name, task in named.items() if name not in self.kept}
        for name, climbs in runs.in_parallel(one, [(name, function, task) for name, task in due.items()], jobs):
            line = {"by": self.by, "task": name, "climbs": [dataclasses.asdict(climb) for climb in climbs]}
            with open(self.path, "a", encoding="utf-8") as f:
                f.write(json.dumps(line) + "\n")
            yield from self.take(line)


def digest(program):
    """Of the program and of the scripts that plant faults."""
    found = hashlib.sha256()
    for path in [program, *sorted(glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "*.py")))]:
        with open(path, "rb") as f:
            found.update(f.read())
    return found.hexdigest()


def one(task):
    name, function, of = task
    return name, function(of)
