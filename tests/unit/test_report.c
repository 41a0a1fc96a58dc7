/* The report's forms (tests/check/report.h; the contract's section 5): what a program reads must parse, whatever the dump
 * said about itself. */
#include "document.h"
#include "report.h"
#include "suites.h"
#include "support.h"

#include <math.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* A model of two layers of which four taps were looked at. */
static gemma4_tap_result results[4];
static bool covered[2];

static gemma4_report failing_report(void)
{
    memset(results, 0, sizeof results);
    results[0] = (gemma4_tap_result){.tap = GEMMA4_TAP_EMBED, .verdict = GEMMA4_PASS, .local = {GEMMA4_METRIC_RMS_IN_SPREADS, 0.5, 3, 1},
                                     .accumulated = {GEMMA4_METRIC_RELATIVE_RMS, 1e-7, 2e-5, 3}, .metrics = {1e-7, 2e-7, 3, 1, 1}};
    results[1] = (gemma4_tap_result){.tap = GEMMA4_TAP_ATTN_Q, .layer = 1, .verdict = GEMMA4_NOT_COVERED};
    results[2] = (gemma4_tap_result){.tap = GEMMA4_TAP_ATTN_Q_ROPE, .layer = 1, .verdict = GEMMA4_DIVERGES,
                                     .local = {GEMMA4_METRIC_WORST_POSITION_IN_SPREADS, INFINITY, 6, 7}, .accumulated = {GEMMA4_METRIC_POSITION_RMS, INFINITY, 6e-5, 7},
                                     .added = INFINITY, .inherited = NAN, .metrics = {NAN, INFINITY, 7, -INFINITY, 0.5},
                                     .worst_position = 7, .worst_index = 12, .worst_engine = -1.5,
                                     .worst_expected = 0.25, .problem = "3 values are NaN <&\"> or infinite"};
    results[3] = (gemma4_tap_result){.tap = GEMMA4_TAP_LOGITS, .verdict = GEMMA4_MARGINAL, .local = {GEMMA4_METRIC_RMS_IN_SPREADS, 2.5, 3, 4},
                                     .accumulated = {GEMMA4_METRIC_RELATIVE_RMS, 1.5e-5, 2e-5, 4}, .metrics = {1.5e-5, 2e-5, 4, 1, 1}};
    covered[0] = false;
    covered[1] = true;
    gemma4_report report = {.level = GEMMA4_LOGITS_LEVEL, .dtype = "float32", .case_id = "my-case", .engine = "an \"engine\"\n\xff",
                            .engine_version = "1.0", .expected_from = "golden", .layers = 2, .positions = 9, .taps_covered = 3,
                            .taps_of = 66, .layer_covered = covered, .routing = {.decisions = 18, .swaps = 2, .inferred = 1, .faults = 1}, .first_divergence = &results[2],
                            .taps = results, .tap_count = 4};
    gemma4_report_note(&report, "%d dataset is no tap: %s", 1, "x\\y");
    return report;
}

/* What a writer prints, to be freed. */
static char *printed(void (*write)(FILE *, const gemma4_report *), const gemma4_report *report)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    ck_assert_ptr_nonnull(f);
    write(f, report);
    ck_assert_int_eq(fclose(f), 0);
    return text;
}

static char *printed_message(void (*write)(FILE *, const char *), const char *message)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    ck_assert_ptr_nonnull(f);
    write(f, message);
    ck_assert_int_eq(fclose(f), 0);
    return text;
}

static gemma4_document *parse(const char *text)
{
    gemma4_error error = {""};
    gemma4_document *document = gemma4_document_parse("json", text, strlen(text), &error);
    ck_assert_msg(document != NULL, "%s in:\n%s", error.message, text);
    return document;
}

/* The node at a path of keys separated by '/'. */
static const gemma4_node *at(const gemma4_document *document, const char *path)
{
    char copy[100], *rest = copy;
    const gemma4_node *node = gemma4_document_root(document);
    snprintf(copy, sizeof copy, "%s", path);
    for (char *key; node != NULL && (key = strsep(&rest, "/")) != NULL;)
        node = gemma4_node_get(node, key);
    ck_assert_msg(node != NULL, "the JSON lacks %s", path);
    return node;
}

/* --- strings --- */

static const struct {
    const char *text, *json;
} STRINGS[] = {
    {"", "\"\""},
    {"plain", "\"plain\""},
    {"a\"b\\c/d", "\"a\\\"b\\\\c/d\""},
    {"line\nfeed\ttab\x01\x1f", "\"line\\u000afeed\\u0009tab\\u0001\\u001f\""},
    {"\x7f", "\"\x7f\""},
    {"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\""},
    {"\xff", "\"\\ufffd\""},
    {"a\x80z", "\"a\\ufffdz\""},                                 /* a continuation byte alone */
    {"\xc3", "\"\\ufffd\""},                                     /* cut short by the end */
    {"\xc3(", "\"\\ufffd(\""},                                   /* cut short by another character */
    {"\xe2\x82", "\"\\ufffd\\ufffd\""},
    {"\xc0\xaf", "\"\\ufffd\\ufffd\""},                          /* overlong */
    {"\xc1\xbf", "\"\\ufffd\\ufffd\""},
    {"\xe0\x9f\xbf", "\"\\ufffd\\ufffd\\ufffd\""},
    {"\xf0\x8f\xbf\xbf", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""},
    {"\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\""},               /* a surrogate */
    {"\xf4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""},    /* beyond U+10FFFF */
    {"\xf5\x80\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""},
    {"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf", "\"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf\""}, /* the last ones that are valid */
};

START_TEST(strings_are_escaped)
{
    char *text = printed_message(gemma4_json_string, STRINGS[_i].text);
    ck_assert_str_eq(text, STRINGS[_i].json);
    free(text);
}
END_TEST

/* --- JSON --- */

static const struct {
    const char *path, *text;
} FIELDS[] = {
    {"verdict", "FAIL"}, {"level", "logits"}, {"dtype", "float32"}, {"case", "my-case"}, {"engine", "an \"engine\"\n\xef\xbf\xbd"},
    {"engine_version", "1.0"}, {"expected_from", "golden"}, {"coverage/taps", "3"}, {"coverage/of", "66"},
    {"first_divergence/tap", "layers.1.attn.q_rope"}, {"first_divergence/layer", "1"}, {"first_divergence/position", "7"},
    {"first_divergence/metric", "worst_position_in_spreads"}, {"first_divergence/error", "null"}, {"first_divergence/tolerance", "6"},
    {"first_divergence/mode", "local"}, {"routing/decisions", "18"}, {"routing/swaps", "2"}, {"routing/excused", "0"},
    {"routing/inferred", "1"}, {"routing/faults", "1"},
};

START_TEST(json_has_the_contract_s_fields)
{
    gemma4_report report = failing_report();
    char *text = printed(gemma4_report_json, &report);
    gemma4_document *document = parse(text);
    ck_assert_str_eq(at(document, FIELDS[_i].path)->text, FIELDS[_i].text);
    gemma4_document_free(document);
    free(text);
}
END_TEST

START_TEST(json_has_the_contract_s_lists)
{
    gemma4_report report = failing_report();
    char *text = printed(gemma4_report_json, &report);
    gemma4_document *document = parse(text);
    const gemma4_node *layers = at(document, "coverage/layers"), *taps = at(document, "taps"), *notes = at(document, "notes");
    ck_assert(layers->kind == GEMMA4_SEQUENCE && layers->count == 1);
    ck_assert_str_eq(layers->items[0].text, "1");
    ck_assert(at(document, "causes")->kind == GEMMA4_SEQUENCE);
    ck_assert(taps->kind == GEMMA4_SEQUENCE && taps->count == 7); /* a local and an accumulated row each, one for what is not covered */
    ck_assert_str_eq(notes->items[0].text, "1 dataset is no tap: x\\y");
    gemma4_document_free(document);
    free(text);
}
END_TEST

/* The rows of the report's taps: a local one, then an accumulated one, for each that was compared. */
static const struct {
    size_t result;
    const char *tap, *verdict, *mode;
} ROWS[] = {
    {0, "embed", "PASS", "local"}, {0, "embed", "PASS", "accumulated"}, {1, "layers.1.attn.q", "NOT_COVERED", NULL},
    {2, "layers.1.attn.q_rope", "FAIL", "local"}, {2, "layers.1.attn.q_rope", "FAIL", "accumulated"},
    {3, "logits", "MARGINAL", "local"}, {3, "logits", "PASS", "accumulated"},
};

START_TEST(every_tap_is_listed_with_its_verdict)
{
    gemma4_report report = failing_report();
    char *text = printed(gemma4_report_json, &report);
    gemma4_document *document = parse(text);
    const gemma4_node *row = &at(document, "taps")->items[_i];
    ck_assert_str_eq(gemma4_node_get(row, "tap")->text, ROWS[_i].tap);
    ck_assert_str_eq(gemma4_node_get(row, "verdict")->text, ROWS[_i].verdict);
    if (ROWS[_i].mode) {
        const gemma4_tap_result *r = &results[ROWS[_i].result];
        bool local = !strcmp(ROWS[_i].mode, "local");
        ck_assert_str_eq(gemma4_node_get(row, "mode")->text, ROWS[_i].mode);
        ck_assert_str_eq(gemma4_node_get(row, "metric")->text, gemma4_metric_name(local ? r->local.kind : r->accumulated.kind));
        ck_assert_ptr_nonnull(gemma4_node_get(row, "error"));
        ck_assert_ptr_nonnull(gemma4_node_get(row, "tolerance"));
        ck_assert_ptr_nonnull(gemma4_node_get(row, local ? "added" : "worst"));
    }
    gemma4_document_free(document);
    free(text);
}
END_TEST

/* JSON has neither NaN nor infinity; a parser that meets them gives up on the whole report. */
START_TEST(what_is_not_finite_is_null)
{
    static const char *const keys[] = {"error", "relative_rms", "position_rms", "cosine"};
    gemma4_report report = failing_report();
    char *text = printed(gemma4_report_json, &report);
    gemma4_document *document = parse(text);
    for (size_t i = 0; i < COUNT(keys); i++)
        ck_assert(gemma4_node_is_null(gemma4_node_get(&at(document, "taps")->items[4], keys[i])));
    ck_assert_ptr_null(strstr(text, ": inf"));
    ck_assert_ptr_null(strstr(text, ": nan"));
    ck_assert_ptr_null(strstr(text, ": -inf"));
    gemma4_document_free(document);
    free(text);
}
END_TEST

START_TEST(a_passing_report_has_no_divergence)
{
    gemma4_report report = failing_report();
    results[2].verdict = GEMMA4_NOT_COVERED;
    report.first_divergence = NULL;
    report.conforms = true;
    report.case_id = NULL;
    report.engine = report.engine_version = NULL;
    char *text = printed(gemma4_report_json, &report);
    gemma4_document *document = parse(text);
    ck_assert_str_eq(at(document, "verdict")->text, "PASS");
    ck_assert(gemma4_node_is_null(at(document, "first_divergence")));
    ck_assert(gemma4_node_is_null(at(document, "case")));
    ck_assert(gemma4_node_is_null(at(document, "engine")));
    gemma4_document_free(document);
    free(text);
}
END_TEST

/* A tap outside the layers has no layer number. */
START_TEST(a_divergence_outside_the_layers_has_no_layer)
{
    gemma4_report report = failing_report();
    report.first_divergence = &results[3];
    char *text = printed(gemma4_report_json, &report);
    gemma4_document *document = parse(text);
    ck_assert_str_eq(at(document, "first_divergence/tap")->text, "logits");
    ck_assert(gemma4_node_is_null(at(document, "first_divergence/layer")));
    gemma4_document_free(document);
    free(text);
}
END_TEST

START_TEST(unusable_json_says_why)
{
    char *text = printed_message(gemma4_report_json_unusable, "file \"x\\y\": \xff");
    gemma4_document *document = parse(text);
    ck_assert_str_eq(at(document, "verdict")->text, "UNUSABLE");
    ck_assert_str_eq(at(document, "message")->text, "file \"x\\y\": \xef\xbf\xbd");
    gemma4_document_free(document);
    free(text);
}
END_TEST

/* --- JUnit --- */

static const char *const JUNIT[] = {
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n",
    "<testsuite name=\"my-case\" tests=\"4\" failures=\"1\" errors=\"0\" skipped=\"1\">",
    "name=\"embed\"/>",
    "name=\"layers.1.attn.q\"><skipped message=",
    ("name=\"layers.1.attn.q_rope\"><failure type=\"divergence\" message=\"worst_position_in_spreads inf, tolerance 6; 3 values are NaN "
    "&lt;&amp;&quot;&gt; or infinite\"/></testcase>"),
    "name=\"logits\"/>",
    "  </testsuite>\n</testsuites>\n",
};

START_TEST(junit_holds)
{
    gemma4_report report = failing_report();
    char *text = printed(gemma4_report_junit, &report);
    ck_assert_msg(strstr(text, JUNIT[_i]) != NULL, "%s lacks %s", text, JUNIT[_i]);
    free(text);
}
END_TEST

START_TEST(unusable_junit_is_an_error_and_escaped)
{
    char *text = printed_message(gemma4_report_junit_unusable, "<a> & \"b\" \x01\xff\xc3\xa9");
    ck_assert_ptr_nonnull(strstr(text, "errors=\"1\""));
    ck_assert_ptr_nonnull(strstr(text, "message=\"&lt;a&gt; &amp; &quot;b&quot; ??\xc3\xa9\""));
    free(text);
}
END_TEST

/* --- for a person --- */

static const char *const TEXT[] = {
    "float32, 9 positions, case my-case", "from the golden", "logits: 3 of 66 required taps", "note       1 dataset is no tap",
    "First divergence: layers.1.attn.q_rope", "3 values are NaN", "position 7, index 12: yours -1.5, expected 0.25", "DOES NOT CONFORM",
    "Routing: 18 decisions in the dump, 1 faults",
};

START_TEST(text_says)
{
    gemma4_report report = failing_report();
    char *text = printed(gemma4_report_text, &report);
    ck_assert_msg(strstr(text, TEXT[_i]) != NULL, "%s lacks %s", text, TEXT[_i]);
    free(text);
}
END_TEST

/* An engine's name comes from a file that somebody else wrote: it must not move the cursor or colour the log. */
START_TEST(text_holds_no_control_characters_of_the_dump)
{
    gemma4_report report = failing_report();
    report.engine = "evil\x1b[2J\rengine";
    char *text = printed(gemma4_report_text, &report);
    ck_assert_ptr_null(strchr(text, '\x1b'));
    ck_assert_ptr_null(strchr(text, '\r'));
    free(text);
}
END_TEST

START_TEST(notes_are_bounded)
{
    gemma4_report report = {0};
    for (int i = 0; i < 100; i++)
        gemma4_report_note(&report, "note %d %0300d", i, i);
    ck_assert_uint_eq(report.note_count, COUNT(report.notes));
    ck_assert_uint_eq(strlen(report.notes[0]), sizeof report.notes[0] - 1);
}
END_TEST

START_TEST(verdicts_and_levels_have_the_contract_s_names)
{
    ck_assert_str_eq(gemma4_verdict_name(GEMMA4_PASS), "PASS");
    ck_assert_str_eq(gemma4_verdict_name(GEMMA4_MARGINAL), "MARGINAL");
    ck_assert_str_eq(gemma4_verdict_name(GEMMA4_DIVERGES), "FAIL");
    ck_assert_str_eq(gemma4_verdict_name(GEMMA4_EXCUSED), "EXCUSED");
    ck_assert_str_eq(gemma4_verdict_name(GEMMA4_NOT_COVERED), "NOT_COVERED");
    ck_assert_str_eq(gemma4_level_name(GEMMA4_PARTIAL), "partial");
    ck_assert_str_eq(gemma4_level_name(GEMMA4_LOGITS_LEVEL), "logits");
    ck_assert_str_eq(gemma4_level_name(GEMMA4_LAYERS_LEVEL), "layers");
    ck_assert_str_eq(gemma4_level_name(GEMMA4_FULL_LEVEL), "full");
}
END_TEST

Suite *report_suite(void)
{
    Suite *suite = suite_create("report");
    TCase *json = tcase_create("json"), *junit = tcase_create("junit"), *text = tcase_create("text");
    tcase_add_loop_test(json, strings_are_escaped, 0, COUNT(STRINGS));
    tcase_add_loop_test(json, json_has_the_contract_s_fields, 0, COUNT(FIELDS));
    tcase_add_test(json, json_has_the_contract_s_lists);
    tcase_add_loop_test(json, every_tap_is_listed_with_its_verdict, 0, COUNT(ROWS));
    tcase_add_test(json, what_is_not_finite_is_null);
    tcase_add_test(json, a_passing_report_has_no_divergence);
    tcase_add_test(json, a_divergence_outside_the_layers_has_no_layer);
    tcase_add_test(json, unusable_json_says_why);
    tcase_add_loop_test(junit, junit_holds, 0, COUNT(JUNIT));
    tcase_add_test(junit, unusable_junit_is_an_error_and_escaped);
    tcase_add_loop_test(text, text_says, 0, COUNT(TEXT));
    tcase_add_test(text, text_holds_no_control_characters_of_the_dump);
    tcase_add_test(text, notes_are_bounded);
    tcase_add_test(text, verdicts_and_levels_have_the_contract_s_names);
    suite_add_tcase(suite, json);
    suite_add_tcase(suite, junit);
    suite_add_tcase(suite, text);
    return suite;
}
