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

import yaml

import ladder_table

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
FINDING_KEYS = {"dtype", "cause", "confirmed", "notice", "upstream"}
JUDGED = ("PASS", "FAIL")
DTYPES, SCHEDULES = ["float32", "bfloat16", "float16", "q8_0"], ["whole", "cache"]  # in the table's order
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
    path = os.path.join(HERE, name, "recipe.yaml")
    with open(path, encoding="utf-8") as f:
        found = yaml.safe_load(f)
    for finding in found["findings"] or []:
        if set(finding) != FINDING_KEYS:
            raise ValueError(f"{path}: findings: expected the keys {sorted(FINDING_KEYS)}, found {sorted(finding)}")
    return found


def not_run():
    """Engines without a recipe, and why: not_run.yaml."""
    path = os.path.join(HERE, "not_run.yaml")
    with open(path, encoding="utf-8") as f:
        listed = yaml.safe_load(f)["engines"]
    for entry in listed:
        if set(entry) != NOT_RUN_KEYS:
            raise ValueError(f"{path}: expected the keys {sorted(NOT_RUN_KEYS)}, found {sorted(entry)}")
    return [dict(entry, date=str(entry["date"]), version=str(entry["version"])) for entry in listed]


def row_of(run, row, findings):
    """One line of the table, for programs. results: what became of each case, from which all else is counted."""
    results = row["results"]
    judged = [c for c in results if c["verdict"] in JUDGED]
    failed = [c for c in judged if c["verdict"] == "FAIL"]
    unusable = [c for c in results if c["verdict"] in ("ERROR", "UNUSABLE")]
    left = {}  # reason: cases
    for c in results:
        if c not in judged:
            left.setdefault(c["reason"] or c["verdict"], []).append(c["case"])
    causes = [f["cause"] for f in findings if failed and row["dtype"] in f["dtype"].split(", ")] or [cause for c in failed for cause in c["causes"]]
    sizes = [c["logits"] for c in judged if c["logits"] is not None]
    return {
        "engine": run["name"], "version": run["version"], "date": max(c["date"] for c in results), "shows": run["shows"],
        "dtype": row["dtype"], "schedule": row["schedule"],
        "verdict": "does not conform" if failed else "conforms" if judged else "not judged",
        "cases": len(judged), "conform": len(judged) - len(failed), "left_out": len(results) - len(judged) - len(unusable),
        "not_judged": left,
        "first_divergence": failed[0]["first_divergence"] if failed else None, "cause": causes[0] if causes else None,
        "logits": max(sizes) if sizes else None, "command": run["command"], "results": results,
    }


def kept_of(case, date):
    """What is published of one case."""
    found = {"case": case["case"], "date": case.get("date", date), "verdict": case["verdict"]}
    if case["verdict"] in JUDGED:
        found.update({key: case[key] for key in ("first_divergence", "causes", "logits")})
    else:
        found["reason"] = case["reason"]
    return found


def combined(run, published_rows, findings):
    """The engine's rows: a run's results, and what was published of the same version and not run again. A published row without results of
    each case stands until a run judges as many."""
    found = {(row["dtype"], row["schedule"]): {c["case"]: kept_of(c, run["date"]) for c in row["cases"]} for row in run["rows"]}
    rows = {}
    for row in (row for row in published_rows if row["version"] == run["version"]):
        key = row["dtype"], row["schedule"]
        now = found.setdefault(key, {})
        now.update({c["case"]: c for c in row.get("results", []) if c["case"] not in now})
        if sum(c["verdict"] in JUDGED for c in now.values()) < row["cases"]:
            rows[key] = row
    for (dtype, schedule), results in found.items():
        if any(c["verdict"] in JUDGED for c in results.values()):
            row = {"dtype": dtype, "schedule": schedule, "results": [results[case] for case in sorted(results)]}
            rows.setdefault((dtype, schedule), row_of(run, row, findings))
    return [rows[key] for key in sorted(rows, key=lambda key: (DTYPES.index(key[0]), SCHEDULES.index(key[1])))]


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
    for finding in found["findings"] or []:
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
        found = recipe(os.path.basename(os.path.dirname(path)))
        recipes[found["engine"]] = found
        run = os.path.join(ROOT, "build", "engines", os.path.basename(os.path.dirname(path)) + ".json")
        if os.path.exists(run):  # else what another machine measured stands, with its date
            with open(run, encoding="utf-8") as f:
                run = json.load(f)
            rows[found["engine"]] = combined(run, rows.get(found["engine"], []), found["findings"] or [])
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
