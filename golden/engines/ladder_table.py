"""The section of spec/engines.md on what the ladder says of engines, from what ladder.py left in build/engines and from ladder.yaml.

A climb that this machine has not measured stands as spec/engines.json has it, with its date.
"""

import glob
import json
import os

from entries import entries

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
FINDING_KEYS = {"engine", "dtype", "finding", "confirmed"}
HEAD = """
## On the ladder

The same engines as if they showed their logits and nothing else: what `gemma4-check ladder` says of the rungs that `golden/engines/ladder.py ENGINE`
has them run ([ladder.md](ladder.md)).

| engine | version | date | dtype | rungs passed | failed | not judged | not run | first failure | causes named |
|---|---|---|---|---|---|---|---|---|---|
"""


def climbs():
    """One of each engine and dtype, sorted."""
    found, published = {}, os.path.join(ROOT, "spec", "engines.json")
    if os.path.exists(published):
        with open(published, encoding="utf-8") as f:
            found = {(row["engine"], row["dtype"]): row for row in json.load(f).get("ladder", [])}
    for path in glob.glob(os.path.join(ROOT, "build", "engines", "*.ladder.json")):
        with open(path, encoding="utf-8") as f:
            found.update({(row["engine"], row["dtype"]): row for row in json.load(f)})
    return [found[key] for key in sorted(found, key=lambda key: (key[0].lower(), key[1] != "float32"))]


def findings():
    """What a person found out about a climb."""
    return entries(os.path.join(HERE, "ladder.yaml"), "findings", FINDING_KEYS)


def line(row):
    causes = "; ".join(f"{cause['says']} (at {cause['rung']})" for cause in row["causes"]) or ("none" if row["fail"] else "")
    if row["unexplained"]:
        causes += f"; cause unknown: {', '.join(row['unexplained'])}"
    cells = [row["engine"], row["version"], row["date"], row["dtype"], f"{row['pass']} of {row['rungs']}", row["fail"], row["not_judged"], row["not_covered"],
             f"`{row['first_fails']}`" if row["first_fails"] else "", causes]
    return "| " + " | ".join(map(str, cells)) + " |\n"


def section(rows):
    """Empty where no engine has climbed."""
    if not rows:
        return ""
    text = HEAD + "".join(map(line, rows))
    for row in rows:
        for reason, rungs in row["left_out"].items():
            text += f"\n- {row['engine']}, {row['dtype']}: not run: {', '.join(rungs)}: {reason}"
        text += "".join(f"\n- {row['engine']}, {row['dtype']}: {f['finding'].strip()} Confirmed without the checker: {f['confirmed'].strip()}" for f in findings()
                        if (f["engine"], f["dtype"]) == (row["engine"], row["dtype"]))
        text += f"\n- {row['engine']}, {row['dtype']}: repeat by `{row['command']}`"
    return text + "\n"
