"""golden/engines/rows.py: how runs of some cases, dtypes or schedules come together with what was found before. Python 3, without packages.

    python3 tests/engines_rows.py
"""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "golden", "engines"))

from rows import combined, merged

TODAY, BEFORE = "2026-11-26", "2026-10-01"
FINDINGS = [{"dtype": "float32, bfloat16", "cause": "found by a person", "notice": "", "confirmed": "", "upstream": ""}]


def passed(case, logits=1e-6):
    return {"case": case, "verdict": "PASS", "first_divergence": None, "causes": [], "logits": logits}


def failed(case, tap="logits", logits=0.5, causes=("named",)):
    return {"case": case, "verdict": "FAIL", "first_divergence": tap, "causes": list(causes), "logits": logits}


def not_judged(case, verdict="LEFT_OUT", reason="no start position"):
    return {"case": case, "verdict": verdict, "reason": reason}


def run_of(rows, version="1.0", date=TODAY):
    """What run.py writes. rows: {(dtype, schedule): cases}"""
    return {"engine": "mine", "name": "Mine", "version": version, "date": date, "shows": "logits", "command": "make engine ENGINE=mine",
            "rows": [{"dtype": dtype, "schedule": schedule, "cases": cases} for (dtype, schedule), cases in rows.items()]}


def published_of(rows, version="1.0", date=BEFORE, findings=()):
    """What is published where nothing was before."""
    return combined(run_of(rows, version, date), [], findings)


WHOLE, CACHE, BF16 = ("float32", "whole"), ("float32", "cache"), ("bfloat16", "whole")


class ARunReplacesWhatItJudged(unittest.TestCase):
    def test_all_at_once(self):
        (row,) = published_of({WHOLE: [passed("a", 1e-6), passed("b", 3e-6), not_judged("far"), not_judged("wide", "ERROR", "it threw")]})
        self.assertEqual((row["verdict"], row["cases"], row["conform"], row["left_out"], row["logits"]), ("conforms", 2, 2, 1, 3e-6))
        self.assertEqual(row["not_judged"], {"no start position": ["far"], "it threw": ["wide"]})
        self.assertEqual((row["first_divergence"], row["cause"], row["date"]), (None, None, BEFORE))

    def test_one_case_leaves_the_others_with_their_dates(self):
        (row,) = combined(run_of({WHOLE: [passed("b", 2e-6)]}), published_of({WHOLE: [passed("a", 1e-6), failed("b"), passed("c", 1e-7)]}), [])
        self.assertEqual((row["cases"], row["conform"], row["logits"], row["date"]), (3, 3, 2e-6, TODAY))
        self.assertEqual([(c["case"], c["date"]) for c in row["results"]], [("a", BEFORE), ("b", TODAY), ("c", BEFORE)])

    def test_a_new_failure_is_not_hidden_by_what_passed(self):
        (row,) = combined(run_of({WHOLE: [failed("a", "layers.0.mlp.act", 2e-4)]}), published_of({WHOLE: [passed("a"), passed("b")]}), [])
        self.assertEqual((row["verdict"], row["cases"], row["conform"]), ("does not conform", 2, 1))
        self.assertEqual((row["first_divergence"], row["cause"], row["logits"]), ("layers.0.mlp.act", "named", 2e-4))

    def test_nor_is_an_error(self):
        (row,) = combined(run_of({WHOLE: [not_judged("a", "ERROR", "it threw")]}), published_of({WHOLE: [passed("a"), passed("b")]}), [])
        self.assertEqual((row["cases"], row["conform"], row["not_judged"]), (1, 1, {"it threw": ["a"]}))

    def test_another_dtype_or_schedule_is_another_row(self):
        before = published_of({BF16: [failed("a")], CACHE: [passed("a")]})
        rows = combined(run_of({WHOLE: [passed("a")]}), before, [])
        self.assertEqual([(r["dtype"], r["schedule"], r["conform"], r["date"]) for r in rows],
                         [(*WHOLE, 1, TODAY), (*CACHE, 1, BEFORE), (*BF16, 0, BEFORE)])

    def test_another_version_replaces_the_engine(self):
        rows = combined(run_of({WHOLE: [passed("b")]}, version="2.0"), published_of({WHOLE: [failed("a")], BF16: [failed("a")]}), [])
        self.assertEqual([(r["version"], r["cases"], r["conform"]) for r in rows], [("2.0", 1, 1)])

    def test_a_row_in_which_nothing_was_judged_is_none(self):
        self.assertEqual(published_of({WHOLE: [not_judged("a")]}), [])

    def test_the_same_run_twice_is_that_run(self):
        run = run_of({WHOLE: [passed("a"), failed("b"), not_judged("c")], BF16: [failed("a")]})
        once = combined(run, [], FINDINGS)
        self.assertEqual(combined(run, once, FINDINGS), once)


class WhatAPersonFound(unittest.TestCase):
    def test_stands_for_its_dtypes_where_something_failed(self):
        rows = published_of({WHOLE: [failed("a", causes=())], ("float16", "whole"): [failed("a")], BF16: [passed("a")]}, findings=FINDINGS)
        self.assertEqual([(r["dtype"], r["cause"]) for r in rows], [("float32", "found by a person"), ("bfloat16", None), ("float16", "named")])


class AnInterruptedRun(unittest.TestCase):
    def test_keeps_what_the_one_before_found_of_other_cases_with_its_date(self):
        before = run_of({WHOLE: [passed("a"), failed("c")], BF16: [passed("a")]}, date=BEFORE)
        both = merged(before, run_of({WHOLE: [failed("b"), passed("c")]}))
        self.assertEqual({(r["dtype"], r["schedule"]): [(c["case"], c["verdict"], c.get("date", both["date"])) for c in r["cases"]] for r in both["rows"]},
                         {WHOLE: [("a", "PASS", BEFORE), ("b", "FAIL", TODAY), ("c", "PASS", TODAY)], BF16: [("a", "PASS", BEFORE)]})

    def test_of_another_version_is_all_there_is(self):
        found = run_of({WHOLE: [passed("a")]}, version="2.0")
        self.assertEqual(merged(run_of({WHOLE: [passed("b")]}), found), found)
        self.assertEqual(merged(None, found), found)


if __name__ == "__main__":
    unittest.main()
