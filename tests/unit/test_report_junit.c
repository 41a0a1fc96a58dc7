/* The report as JUnit XML (tests/check/report_junit.c): well-formed, counts that are the
 * testcases', red where the exit status is 1, and every failure says why. */
#include "counter_model.h"
#include "report.h"
#include "reports.h"
#include "suites.h"
#include "support.h"
#include "version.h"

#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

static gemma4_tap_result results[4];
static bool covered[2];

/* Of four taps one fails, one is not covered, and one is marginal. */
static gemma4_report failing_report(void)
{
    results[0] = (gemma4_tap_result){.tap = GEMMA4_TAP_EMBED,
                                     .verdict = GEMMA4_PASS,
                                     .local = {GEMMA4_METRIC_RMS_IN_SPREADS, 0.5, 3, 1}};
    results[1] =
        (gemma4_tap_result){.tap = GEMMA4_TAP_ATTN_Q, .layer = 1, .verdict = GEMMA4_NOT_COVERED};
    results[2] = (gemma4_tap_result){.tap = GEMMA4_TAP_ATTN_Q_ROPE,
                                     .layer = 1,
                                     .verdict = GEMMA4_DIVERGES,
                                     .local = {GEMMA4_METRIC_WORST_POSITION_IN_SPREADS, 12.5, 6, 7},
                                     .added = 0.25,
                                     .worst_position = 7,
                                     .worst_index = 12,
                                     .worst_engine = -1.5,
                                     .worst_expected = 0.25,
                                     .problem = "3 values are NaN <&\">\nor infinite"};
    results[3] = (gemma4_tap_result){.tap = GEMMA4_TAP_LOGITS,
                                     .verdict = GEMMA4_MARGINAL,
                                     .local = {GEMMA4_METRIC_RMS_IN_SPREADS, 2.5, 3, 4}};
    gemma4_report report = {.level = GEMMA4_LOGITS_LEVEL,
                            .dtype = "float32",
                            .case_id = "my-case",
                            .engine = "an \"engine\"\n\xff",
                            .golden_sha256 = "0123abcd",
                            .expected_from = "golden",
                            .layers = 2,
                            .positions = 9,
                            .taps_covered = 3,
                            .taps_of = 66,
                            .layer_covered = covered,
                            .first_divergence = &results[2],
                            .taps = results,
                            .tap_count = COUNT(results)};
    gemma4_report_warn(&report, "'%s' is no tap", "<atn>");
    return report;
}

static gemma4_report passing_report(void)
{
    gemma4_report report = failing_report();
    results[2].verdict = GEMMA4_PASS;
    report.first_divergence = NULL;
    report.conforms = true;
    return report;
}

static void assert_has(const char *text, const char *expected)
{
    ck_assert_msg(strstr(text, expected) != NULL, "%s lacks %s", text, expected);
}

/* The suite's counts are those of its testcases, no two of which have the same name, and the
 * failures are as many as expected. */
static void assert_counts(const char *text, size_t failures)
{
    const char *at = test_malformed(text);
    size_t tests, failed, errors, skipped;
    ck_assert_msg(at == NULL, "malformed: %.80s", at);
    const char *counts = strstr(text, "tests=\"");
    ck_assert_ptr_nonnull(counts);
    ck_assert_int_eq(sscanf(counts, "tests=\"%zu\" failures=\"%zu\" errors=\"%zu\" skipped=\"%zu\"",
                            &tests, &failed, &errors, &skipped),
                     4);
    ck_assert_uint_eq(tests, test_occurrences(text, "<testcase "));
    ck_assert_uint_eq(failed, test_occurrences(text, "<failure "));
    ck_assert_uint_eq(errors, test_occurrences(text, "<error "));
    ck_assert_uint_eq(skipped, test_occurrences(text, "<skipped "));
    ck_assert_uint_eq(failed, failures);
    for (const char *s = text; (s = strstr(s, " name=\"")) != NULL; s++) {
        char name[80];
        snprintf(name, sizeof name, "%.*s", (int)(strcspn(s + 7, "\"") + 8), s);
        ck_assert_msg(test_occurrences(text, name) == 1, "twice: %s", name);
    }
}

static const char *const HOLDS[] = {
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n",
    "<testsuite name=\"my-case\" tests=\"5\" failures=\"1\" errors=\"0\" skipped=\"1\" time=\"0\">",
    "<testcase classname=\"gemma4.my-case.embedding\" name=\"embed\" time=\"0\"/>",
    /* one for all that is missing, not one each */
    "<testcase classname=\"gemma4.my-case\" name=\"not covered\" time=\"0\"><skipped message=\"1 "
    "tensor is not in the dump: "
    "attn.q\"/></testcase>",
    /* one line for the list of failures ... */
    ("<failure type=\"divergence\" message=\"3 values are NaN &lt;&amp;&quot;&gt; or infinite; "
     "relative RMS 2.50e-01 from the engine's own "
     "inputs: 12.5 times what rounding explains, tolerance 6\">"),
    /* ... and the numbers after it */
    "\nworst_position_in_spreads 12.5, tolerance 6; worst at position 7\nworst element: position "
    "7, index 12: yours -1.5, expected 0.25\n",
    "<testcase classname=\"gemma4.my-case.head\" name=\"logits\" time=\"0\"/>",
    "<testcase classname=\"gemma4.my-case\" name=\"coverage\" time=\"0\"/>",
    "<property name=\"golden_sha256\" value=\"0123abcd\"/>",
    "<property name=\"engine\" value=\"an &quot;engine&quot; ?\"/>",
    "<system-out>warning: '&lt;atn&gt;' is no tap\nDOES NOT CONFORM\n</system-out>\n  "
    "</testsuite>\n</testsuites>\n",
};

START_TEST(junit_holds)
{
    gemma4_report report = failing_report();
    char *text = test_printed(gemma4_report_junit, &report);
    assert_has(text, HOLDS[_i]);
    assert_counts(text, 1);
    free(text);
}
END_TEST

START_TEST(junit_says_which_build_wrote_it)
{
    gemma4_report report = failing_report();
    char version[100], *texts[] = {test_printed(gemma4_report_junit, &report),
                                   test_printed_message(gemma4_report_junit_unusable, "why")};
    snprintf(version, sizeof version, "<property name=\"checker_version\" value=\"%s\"/>",
             gemma4_version());
    for (size_t i = 0; i < COUNT(texts); i++) {
        assert_has(texts[i], version);
        free(texts[i]);
    }
}
END_TEST

START_TEST(a_pass_is_green)
{
    gemma4_report report = passing_report();
    report.case_id = NULL;
    char *text = test_printed(gemma4_report_junit, &report);
    assert_counts(text, 0);
    assert_has(text, "classname=\"gemma4.layers.1\"");
    free(text);
}
END_TEST

START_TEST(what_was_required_and_is_missing_is_red)
{
    gemma4_report report = passing_report();
    report.required = GEMMA4_FULL_LEVEL;
    report.conforms = false;
    char *text = test_printed(gemma4_report_junit, &report);
    assert_counts(text, 1);
    assert_has(text, "name=\"coverage\" time=\"0\">\n      <failure type=\"coverage\" "
                     "message=\"--require full: the dump covers less (logits): 3 of 66 "
                     "required tensors\">--require full: ");
    free(text);
}
END_TEST

/* Whatever the reason may be. */
START_TEST(what_does_not_conform_is_never_green)
{
    gemma4_report report = passing_report();
    report.conforms = false;
    char *text = test_printed(gemma4_report_junit, &report);
    assert_counts(text, 1);
    free(text);
}
END_TEST

START_TEST(too_little_for_a_verdict_is_skipped)
{
    gemma4_report report = passing_report();
    report.level = GEMMA4_PARTIAL;
    char *text = test_printed(gemma4_report_junit, &report);
    assert_counts(text, 0);
    assert_has(text, "name=\"coverage\" time=\"0\"><skipped message=\"NO FAULT FOUND in the 3 "
                     "tensors covered (of 66): too little for a verdict; ");
    free(text);
}
END_TEST

/* A mistake that only all layers together show fails the tap where it enters. */
START_TEST(a_filter_s_finding_is_red)
{
    gemma4_report report = failing_report();
    results[2].local = (gemma4_measure){GEMMA4_METRIC_MATCHED_FILTER, 25, 8, 0};
    char *text = test_printed(gemma4_report_junit, &report);
    assert_counts(text, 1);
    assert_has(text, "; passes by itself; all layers together hold a known mistake, 25 standard "
                     "deviations from none, tolerance 8\">");
    free(text);
}
END_TEST

/* Every tap that the mistake makes fail has its name and words, not only the first. */
START_TEST(a_wrong_engine_s_failures_name_the_mistake)
{
    test_judged j = test_judge_dump(
        "tiny-prompt", "golden/dumps/tiny-prompt-rope-pairing-contiguous.h5", "float32");
    char *text = test_printed(gemma4_report_junit, &j.report);
    assert_counts(text, 4);
    ck_assert_uint_eq(test_occurrences(text, "tolerance 3; cause: rope-pairing-contiguous\">") +
                          test_occurrences(text, "tolerance 6; cause: rope-pairing-contiguous\">"),
                      4);
    ck_assert_uint_eq(
        test_occurrences(text, "\ncause: rope-pairing-contiguous, first at layers.5.attn.q_rope; "
                               "layers 5, 11\n  wrong          "),
        4);
    ck_assert_uint_eq(
        test_occurrences(
            text, "\n  more           gemma4-check explain rope-pairing-contiguous\n</failure>"),
        4);
    free(text);
    test_judged_free(&j);
}
END_TEST

START_TEST(unusable_junit_is_an_error_and_escaped)
{
    char *text = test_printed_message(gemma4_report_junit_unusable, "<a> & \"b\" \x01\xff\xc3\xa9");
    ck_assert_ptr_null(test_malformed(text));
    assert_has(text, "tests=\"1\" failures=\"0\" errors=\"1\" skipped=\"0\"");
    assert_has(text, "message=\"&lt;a&gt; &amp; &quot;b&quot; ??\xc3\xa9\">&lt;a&gt; &amp; "
                     "&quot;b&quot; ??\xc3\xa9</error>");
    free(text);
}
END_TEST

Suite *report_junit_suite(void)
{
    Suite *suite = suite_create("report_junit");
    TCase *forms = tcase_create("forms"), *verdicts = tcase_create("verdicts");
    tcase_add_loop_test(forms, junit_holds, 0, COUNT(HOLDS));
    tcase_add_test(forms, junit_says_which_build_wrote_it);
    tcase_add_test(forms, unusable_junit_is_an_error_and_escaped);
    tcase_add_test(verdicts, a_pass_is_green);
    tcase_add_test(verdicts, what_was_required_and_is_missing_is_red);
    tcase_add_test(verdicts, what_does_not_conform_is_never_green);
    tcase_add_test(verdicts, too_little_for_a_verdict_is_skipped);
    tcase_add_test(verdicts, a_filter_s_finding_is_red);
    tcase_add_test(verdicts, a_wrong_engine_s_failures_name_the_mistake);
    suite_add_tcase(suite, forms);
    suite_add_tcase(suite, verdicts);
    return suite;
}
