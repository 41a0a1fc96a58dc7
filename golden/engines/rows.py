"""The rows of spec/engines.md: how runs of some cases, dtypes or schedules come together with what was found before. Needs no package.

A run (build/engines/ENGINE.json, which run.py writes) has a row per dtype and schedule, and in it what became of each case. A published row
(spec/engines.json) has the same in results, with a date of each case, and what is counted from it.
"""

JUDGED = ("PASS", "FAIL")
DTYPES, SCHEDULES = ["float32", "bfloat16", "float16", "q8_0"], ["whole", "cache"]  # in the table's order


def merged(before, found):
    """What was found now, and what an earlier run of the same version found of other cases, dtypes and schedules, with its date."""
    if not before or before["version"] != found["version"]:
        return found
    kept = {}
    for row in before["rows"]:
        kept[row["dtype"], row["schedule"]] = dict(row, cases=[{"date": before["date"], **case} for case in row["cases"]])
    for row in found["rows"]:
        now, old = {case["case"] for case in row["cases"]}, kept.get((row["dtype"], row["schedule"]), {"cases": []})
        both = row["cases"] + [case for case in old["cases"] if case["case"] not in now]
        kept[row["dtype"], row["schedule"]] = dict(row, cases=sorted(both, key=lambda case: case["case"]))
    return dict(found, rows=list(kept.values()))


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
    each case stands until a run judges as many; of a case that is run again what is found now counts, be it an error."""
    found = {(row["dtype"], row["schedule"]): {c["case"]: kept_of(c, run["date"]) for c in row["cases"]} for row in run["rows"]}
    rows = {}
    for row in (row for row in published_rows if row["version"] == run["version"]):
        key = row["dtype"], row["schedule"]
        now = found.setdefault(key, {})
        now.update({c["case"]: c for c in row.get("results", []) if c["case"] not in now})
        if "results" not in row and sum(c["verdict"] in JUDGED for c in now.values()) < row["cases"]:
            rows[key] = row
    for (dtype, schedule), results in found.items():
        if any(c["verdict"] in JUDGED for c in results.values()):
            row = {"dtype": dtype, "schedule": schedule, "results": [results[case] for case in sorted(results)]}
            rows.setdefault((dtype, schedule), row_of(run, row, findings))
    return [rows[key] for key in sorted(rows, key=lambda key: (DTYPES.index(key[0]), SCHEDULES.index(key[1])))]
