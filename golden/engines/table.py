"""Writes spec/engines.md and spec/engines.json from what `make engine` left in build/engines, and from the recipes' findings.

    python golden/engines/table.py

Every number and verdict comes from the runs. A run of some cases, dtypes or schedules replaces these and leaves what else was published of
the same version; a run of another version replaces the engine. What a person found out about a verdict (its cause where the checker names
none, how it was confirmed without the checker, what a user would notice, whether it is mended upstream) stands in the recipe.
"""

import glob
import json
import os
import sys

import ladder_table
import run
from entries import entries
from rows import combined

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
FINDING_KEYS = {"dtype", "cause", "confirmed", "notice", "upstream"}
NOT_RUN_KEYS = {"engine", "version", "date", "reason", "evidence"}
HEAD = """# Engines

Which engine computes the published model, as far as it shows. Written by `make engines` from what `make engine ENGINE=...` measured on the
date given; the same rows for programs: [engines.json](engines.json). Each recipe is a folder of [golden/engines](../golden/engines): pinned
requirements, a dump script, what the engine can take.

*whole*: the tokens at once. *cache*: in chunks or one by one, through the engine's own cache. *conform*: how many of the cases that it was
fed. *logits*: the largest relative RMS of the logits (or of the log-probabilities, where it shows no more) against the golden's, over these
cases, rounding included. *first divergence* is gemma4-check's, and so is *cause*, unless a finding below says more.

| engine | version | date | dtype | schedule | conform | first divergence | cause | logits |
|---|---|---|---|---|---|---|---|---|
"""


def recipe(name):
    return dict(run.recipe_of(name), findings=entries(os.path.join(HERE, name, "recipe.yaml"), "findings", FINDING_KEYS))


def not_run():
    """Engines without a recipe, and why: not_run.yaml."""
    listed = entries(os.path.join(HERE, "not_run.yaml"), "engines", NOT_RUN_KEYS)
    return [dict(entry, date=str(entry["date"]), version=str(entry["version"])) for entry in listed]


def line(row):
    conform = f"{row['conform']} of {row['cases']}" if row["cases"] else "none judged"
    size = f"{row['logits']:.1e}" if row["logits"] is not None else ""
    cells = [row["engine"], row["version"], row["date"], row["dtype"], row["schedule"], conform,
             f"`{row['first_divergence']}`" if row["first_divergence"] else "", row["cause"] or "", size]
    return "| " + " | ".join(cells) + " |\n"


def section(rows, found):
    """What the table has no room for."""
    text = f"\n## {rows[0]['engine']}\n\nShows {found['shows']}. Repeat: `{rows[0]['command']}`.\n"
    left = {}
    for row in rows:
        for reason, cases in row.get("not_judged", {}).items():
            left.setdefault(reason, set()).update(cases)
    for reason, cases in sorted(left.items()):
        text += f"\n- Not judged: {', '.join(sorted(cases))}: {reason}"
    for note in found["notes"] or []:
        text += f"\n- {note}"
    text += "\n" if left or found["notes"] else ""
    for finding in found["findings"]:
        text += (f"\n**{finding['dtype']}: {finding['cause']}.** {finding['notice'].strip()}\n\n- Confirmed without the checker: "
                 f"{finding['confirmed'].strip()}\n- Upstream: {finding['upstream'].strip()}\n")
    return text


def published():
    """The rows of spec/engines.json, by engine."""
    path, found = os.path.join(ROOT, "spec", "engines.json"), {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            for row in json.load(f)["rows"]:
                found.setdefault(row["engine"], []).append(row)
    return found


def main():
    rows, recipes = published(), {}
    for path in sorted(glob.glob(os.path.join(HERE, "*", "recipe.yaml"))):
        name = os.path.basename(os.path.dirname(path))
        found = recipe(name)
        recipes[found["engine"]] = found
        measured = os.path.join(ROOT, "build", "engines", name + ".json")
        if os.path.exists(measured):  # else what another machine measured stands, with its date
            with open(measured, encoding="utf-8") as f:
                rows[found["engine"]] = combined(json.load(f), rows.get(found["engine"], []), found["findings"])
    kept = {engine: rows[engine] for engine in sorted(rows, key=str.lower) if engine in recipes and rows[engine]}
    table = HEAD + "".join(line(row) for of in kept.values() for row in of)
    table += "".join(section(of, recipes[engine]) for engine, of in kept.items())
    climbs = ladder_table.climbs()
    table += ladder_table.section(climbs)
    without = [entry for entry in not_run() if entry["engine"] not in kept]
    if without:
        table += "\n## Not run\n\n| engine | version | date | why | evidence |\n|---|---|---|---|---|\n"
        table += "".join(f"| {e['engine']} | {e['version']} | {e['date']} | {e['reason']} | {e['evidence'].strip()} |\n" for e in without)
    with open(os.path.join(ROOT, "spec", "engines.md"), "w", encoding="utf-8") as f:
        f.write(table)
    with open(os.path.join(ROOT, "spec", "engines.json"), "w", encoding="utf-8") as f:
        json.dump({"format": "gemma4-engines", "format_version": 2, "rows": sum(kept.values(), []), "ladder": climbs, "not_run": without}, f, indent=1)
        f.write("\n")
    print(f"spec/engines.md: {sum(map(len, kept.values()))} rows of {len(kept)} engines")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"table.py: {type(error).__name__}: {error}")
