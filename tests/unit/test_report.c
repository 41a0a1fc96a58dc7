/* The report's forms (tests/check/report.h; the contract's section 5): what a program reads must
 * parse, whatever the dump said about itself. */
#include "causes.h"
#include "diagnose.h"
#include "document.h"
#include "fit.h"
#include "planted_engine.h"
#include "point.h"
#include "report.h"
#include "reports.h"
#include "suites.h"
#include "support.h"
#include "text.h"
#include "thresholds.h"
#include "version.h"

#include <math.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* A model of two layers of which four taps were looked at. */
static gemma4_tap_result results[4];
static bool covered[2];

static gemma4_report failing_report(void)
{
    memset(results, 0, sizeof results);
    results[0] = (gemma4_tap_result){.tap = GEMMA4_TAP_EMBED,
                                     .verdict = GEMMA4_PASS,
                                     .local = {GEMMA4_METRIC_RMS_IN_SPREADS, 0.5, 3, 1},
                                     .accumulated = {GEMMA4_METRIC_RELATIVE_RMS, 1e-7, 2e-5, 3},
                                     .metrics = {1e-7, 2e-7, 3, 1, 1}};
    results[1] =
        (gemma4_tap_result){.tap = GEMMA4_TAP_ATTN_Q, .layer = 1, .verdict = GEMMA4_NOT_COVERED};
    results[2] =
        (gemma4_tap_result){.tap = GEMMA4_TAP_ATTN_Q_ROPE,
                            .layer = 1,
                            .verdict = GEMMA4_DIVERGES,
                            .local = {GEMMA4_METRIC_WORST_POSITION_IN_SPREADS, INFINITY, 6, 7},
                            .accumulated = {GEMMA4_METRIC_POSITION_RMS, INFINITY, 6e-5, 7},
                            .added = INFINITY,
                            .inherited = NAN,
                            .metrics = {NAN, INFINITY, 7, -INFINITY, 0.5},
                            .worst_position = 7,
                            .worst_index = 12,
                            .worst_engine = -1.5,
                            .worst_expected = 0.25,
                            .rows = 6,
                            .rows_left_out = 3,
                            .problem = "3 values are NaN <&\"> or infinite"};
    results[3] = (gemma4_tap_result){.tap = GEMMA4_TAP_LOGITS,
                                     .verdict = GEMMA4_MARGINAL,
                                     .local = {GEMMA4_METRIC_RMS_IN_SPREADS, 2.5, 3, 4},
                                     .accumulated = {GEMMA4_METRIC_RELATIVE_RMS, 1.5e-5, 2e-5, 4},
                                     .metrics = {1.5e-5, 2e-5, 4, 1, 1}};
    covered[0] = false;
    covered[1] = true;
    gemma4_report report = {.level = GEMMA4_LOGITS_LEVEL,
                            .dtype = "float32",
                            .case_id = "my-case",
                            .golden_sha256 = "0123abcd",
                            .engine = "an \"engine\"\n\xff",
                            .engine_version = "1.0",
                            .expected_from = "golden",
                            .layers = 2,
                            .positions = 9,
                            .taps_covered = 3,
                            .taps_of = 66,
                            .layer_covered = covered,
                            .routing = {.decisions = 18, .swaps = 2, .inferred = 1, .faults = 1},
                            .first_divergence = &results[2],
                            .taps = results,
                            .tap_count = 4};
    gemma4_report_note(&report, "%d dataset is no tap: %s", 1, "x\\y");
    gemma4_report_warn(&report, "'%s' is no tap, but nearly one", "atn.q");
    return report;
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
    {"a\x80z", "\"a\\ufffdz\""}, /* a continuation byte alone */
    {"\xc3", "\"\\ufffd\""},     /* cut short by the end */
    {"\xc3(", "\"\\ufffd(\""},   /* cut short by another character */
    {"\xe2\x82", "\"\\ufffd\\ufffd\""},
    {"\xc0\xaf", "\"\\ufffd\\ufffd\""}, /* overlong */
    {"\xc1\xbf", "\"\\ufffd\\ufffd\""},
    {"\xe0\x9f\xbf", "\"\\ufffd\\ufffd\\ufffd\""},
    {"\xf0\x8f\xbf\xbf", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""},
    {"\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\""},            /* a surrogate */
    {"\xf4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""}, /* beyond U+10FFFF */
    {"\xf5\x80\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""},
    /* the last ones that are valid */
    {"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf", "\"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf\""},
};

START_TEST(strings_are_escaped)
{
    char *text = test_printed_message(gemma4_json_string, STRINGS[_i].text);
    ck_assert_str_eq(text, STRINGS[_i].json);
    free(text);
}
END_TEST

/* --- JSON --- */

static const struct {
    const char *path, *text;
} FIELDS[] = {
    {"verdict", "FAIL"},
    {"level", "logits"},
    {"dtype", "float32"},
    {"case", "my-case"},
    {"engine", "an \"engine\"\n\xef\xbf\xbd"},
    {"engine_version", "1.0"},
    {"expected_from", "golden"},
    {"coverage/taps", "3"},
    {"coverage/of", "66"},
    {"first_divergence/tap", "layers.1.attn.q_rope"},
    {"first_divergence/layer", "1"},
    {"first_divergence/position", "7"},
    {"first_divergence/metric", "worst_position_in_spreads"},
    {"first_divergence/error", "null"},
    {"first_divergence/tolerance", "6"},
    {"first_divergence/mode", "local"},
    {"routing/decisions", "18"},
    {"routing/swaps", "2"},
    {"routing/excused", "0"},
    {"routing/inferred", "1"},
    {"routing/faults", "1"},
    {"golden_sha256", "0123abcd"},
    {"conclusion", "DOES NOT CONFORM"},
};

START_TEST(json_has_the_contract_s_fields)
{
    gemma4_report report = failing_report();
    char *text = test_printed(gemma4_report_json, &report);
    gemma4_document *document = parse(text);
    ck_assert_str_eq(at(document, FIELDS[_i].path)->text, FIELDS[_i].text);
    gemma4_document_free(document);
    free(text);
}
END_TEST

START_TEST(json_has_the_contract_s_lists)
{
    gemma4_report report = failing_report();
    char *text = test_printed(gemma4_report_json, &report);
    gemma4_document *document = parse(text);
    const gemma4_node *layers = at(document, "coverage/layers"), *taps = at(document, "taps"),
                      *notes = at(document, "notes");
    ck_assert(layers->kind == GEMMA4_SEQUENCE && layers->count == 1);
    ck_assert_str_eq(layers->items[0].text, "1");
    ck_assert(at(document, "causes")->kind == GEMMA4_SEQUENCE);
    ck_assert(taps->kind == GEMMA4_SEQUENCE && taps->count == 7); /* a local and an accumulated row
                                                                     each, one for what is not
                                                                     covered */
    ck_assert_str_eq(notes->items[0].text, "1 dataset is no tap: x\\y");
    ck_assert_str_eq(at(document, "warnings")->items[0].text, "'atn.q' is no tap, but nearly one");
    gemma4_document_free(document);
    free(text);
}
END_TEST

/* The rows of the report's taps: a local one, then an accumulated one, for each that was compared.
 * What decides nothing has no verdict. */
static const struct {
    size_t result;
    const char *tap, *verdict, *mode;
} ROWS[] = {
    {0, "embed", "PASS", "local"},
    {0, "embed", NULL, "accumulated"},
    {1, "layers.1.attn.q", "NOT_COVERED", NULL},
    {2, "layers.1.attn.q_rope", "FAIL", "local"},
    {2, "layers.1.attn.q_rope", NULL, "accumulated"},
    {3, "logits", "MARGINAL", "local"},
    {3, "logits", NULL, "accumulated"},
};

START_TEST(every_tap_is_listed_with_its_verdict)
{
    gemma4_report report = failing_report();
    char *text = test_printed(gemma4_report_json, &report);
    gemma4_document *document = parse(text);
    const gemma4_node *row = &at(document, "taps")->items[_i];
    ck_assert_str_eq(gemma4_node_get(row, "tap")->text, ROWS[_i].tap);
    if (ROWS[_i].verdict)
        ck_assert_str_eq(gemma4_node_get(row, "verdict")->text, ROWS[_i].verdict);
    else
        ck_assert_ptr_null(gemma4_node_get(row, "verdict"));
    if (ROWS[_i].mode) {
        const gemma4_tap_result *r = &results[ROWS[_i].result];
        bool local = !strcmp(ROWS[_i].mode, "local");
        ck_assert_str_eq(gemma4_node_get(row, "mode")->text, ROWS[_i].mode);
        ck_assert_str_eq(gemma4_node_get(row, "metric")->text,
                         gemma4_metric_name(local ? r->local.kind : r->accumulated.kind));
        ck_assert_ptr_nonnull(gemma4_node_get(row, "error"));
        ck_assert_ptr_nonnull(gemma4_node_get(row, "tolerance"));
        ck_assert_ptr_nonnull(gemma4_node_get(row, local ? "added" : "worst"));
        if (local) {
            ck_assert_uint_eq(strtoul(gemma4_node_get(row, "rows")->text, NULL, 10), r->rows);
            ck_assert_uint_eq(strtoul(gemma4_node_get(row, "rows_left_out")->text, NULL, 10),
                              r->rows_left_out);
        }
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
    char *text = test_printed(gemma4_report_json, &report);
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

/* A case's tolerances are of float32: a bfloat16 engine is shown beside none. */
START_TEST(where_no_tolerance_applies_there_is_none)
{
    gemma4_report report = failing_report();
    results[0].accumulated.tolerance = NAN;
    char *text = test_printed(gemma4_report_json, &report);
    gemma4_document *document = parse(text);
    ck_assert_ptr_null(gemma4_node_get(&at(document, "taps")->items[1], "tolerance"));
    ck_assert_ptr_nonnull(gemma4_node_get(&at(document, "taps")->items[0], "tolerance"));
    gemma4_document_free(document);
    free(text);
}
END_TEST

START_TEST(a_conforming_bfloat16_report_says_fail_nowhere)
{
    test_judged j =
        test_judge_dump("tiny-prompt", "golden/dumps/tiny-prompt-bfloat16.h5", "bfloat16");
    char *text = test_printed(gemma4_report_json, &j.report);
    ck_assert_ptr_nonnull(strstr(text, "\"verdict\": \"PASS\""));
    ck_assert_ptr_null(strstr(text, "FAIL"));
    ck_assert_ptr_nonnull(strstr(text, "\"mode\": \"accumulated\", \"metric\": \"relative_rms\""));
    for (size_t i = 0; i < j.report.tap_count; i++)
        ck_assert(!gemma4_has_numbers(&j.report.taps[i]) ||
                  isnan(j.report.taps[i].accumulated.tolerance));
    free(text);
    test_judged_free(&j);
}
END_TEST

START_TEST(json_says_what_it_is_and_which_build_wrote_it)
{
    gemma4_report report = failing_report();
    char *texts[] = {test_printed(gemma4_report_json, &report),
                     test_printed_message(gemma4_report_json_unusable, "why")};
    for (size_t i = 0; i < COUNT(texts); i++) {
        gemma4_document *document = parse(texts[i]);
        ck_assert_str_eq(at(document, "format")->text, "gemma4-report");
        ck_assert_str_eq(at(document, "format_version")->text, "1");
        ck_assert_str_eq(at(document, "version")->text, gemma4_version());
        gemma4_document_free(document);
        free(texts[i]);
    }
}
END_TEST

/* The cause's words are the terminal's, on one line. */
START_TEST(json_says_the_cause_s_sentence)
{
    test_judged j = test_judge_dump(
        "tiny-prompt", "golden/dumps/tiny-prompt-rope-pairing-contiguous.h5", "float32");
    char *text = test_printed(gemma4_report_json, &j.report);
    gemma4_document *document = parse(text);
    const gemma4_node *cause = &at(document, "causes")->items[0];
    ck_assert_str_eq(
        gemma4_node_get(cause, "sentence")->text,
        "rope-pairing-contiguous, first at layers.5.attn.q_rope; layers 5, 11; wrong: the first 2 "
        "* pairs lanes rotate among themselves: "
        "pairs (j, j + 64); right: lane j is paired with j + head_dim/2: (j, j + 256)");
    ck_assert_ptr_null(gemma4_node_get(cause, "runner_up"));
    ck_assert_str_eq(at(document, "golden_sha256")->text, j.the_case->golden_sha256);
    gemma4_document_free(document);
    free(text);
    test_judged_free(&j);
}
END_TEST

/* Faults that are in no catalogue: what the contract's `parameters` say of each. */
static const struct {
    gemma4_setting setting;
    int where;
    const char *starts, *place; /* interval and expression are between them */
    const char *expression;
} POINTS[] = {
    {{.parameter = GEMMA4_PARAMETER_ATTN_SCALE,
      .number = 0.125,
      .steps = GEMMA4_STEP(GEMMA4_TAP_ATTN_SCORES) | GEMMA4_STEP(GEMMA4_TAP_ATTN_PROBS) |
               GEMMA4_STEP(GEMMA4_TAP_ATTN_CONTEXT)},
     GEMMA4_ON_SLIDING,
     "\"parameters\": [{\"name\": \"attn.scale\", \"value\": 0.125, \"expected\": 1, \"interval\": "
     "[",
     "\"where\": {\"tap\": \"attn.scores\", \"layers\": [0, 1, 2, 3, 4, 6, 7, 8, 9, 10], "
     "\"positions\": \"all\"}}]",
     "hidden_size^-0.5"},
    {{.parameter = GEMMA4_PARAMETER_KV_HEAD_OF,
      .count = 4,
      .list = {1, 0, 0, 1},
      .steps = GEMMA4_STEP(GEMMA4_TAP_ATTN_SCORES) | GEMMA4_STEP(GEMMA4_TAP_ATTN_PROBS) |
               GEMMA4_STEP(GEMMA4_TAP_ATTN_CONTEXT)},
     GEMMA4_ON_SLIDING,
     "\"parameters\": [{\"name\": \"attn.kv_head_of\", \"value\": [1, 0, 0, 1], \"expected\": [0, "
     "0, 1, 1], ",
     "\"where\": {\"tap\": \"attn.scores\", \"layers\": [0, 1, 2, 3, 4, 6, 7, 8, 9, 10], "
     "\"positions\": \"all\"}}]",
     NULL},
    {{.parameter = GEMMA4_PARAMETER_WEIGHT_LAYER,
      .number = -1,
      .steps = GEMMA4_STEP(GEMMA4_TAP_MLP_GATE)},
     GEMMA4_ON_SLIDING | GEMMA4_ON_FULL,
     "\"parameters\": [{\"name\": \"weight.layer\", \"value\": \"N-1\", \"expected\": \"N\", ",
     "\"where\": {\"tap\": \"mlp.gate\", \"tensor\": \"gate_proj\", "
     "\"layers\": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], \"positions\": \"all\"}}]",
     NULL},
    {{.parameter = GEMMA4_PARAMETER_WEIGHTS_ORDER,
      .word = GEMMA4_REVERSED,
      .unit = GEMMA4_GROUPS,
      .columns = true,
      .steps = GEMMA4_STEP(GEMMA4_TAP_ATTN_OUT)},
     GEMMA4_ON_FULL,
     "\"parameters\": [{\"name\": \"weights.order\", \"value\": \"columns heads reversed\", "
     "\"expected\": null, ",
     "\"where\": {\"tap\": \"attn.out\", \"tensor\": \"o_proj\", \"layers\": [5, 11], "
     "\"positions\": \"all\"}}]",
     NULL},
};

START_TEST(json_says_the_parameters_of_a_fault_in_no_catalogue)
{
    gemma4_error error = {""};
    gemma4_report report = {0};
    char *path = test_join(test_fresh_dir(), "dump.h5");
    gemma4_case *the_case = gemma4_case_open("tiny-prompt", &error);
    ck_assert_msg(the_case && gemma4_case_provide_checkpoint(the_case, &error) == 0, "%s",
                  error.message);
    gemma4_model *model = gemma4_model_open(the_case->checkpoint_dir, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    gemma4_point *point =
        gemma4_point_new(&model->config, &POINTS[_i].setting, 1, POINTS[_i].where);
    const gemma4_simulation s = {.the_case = the_case,
                                 .model = model,
                                 .tier = "float32",
                                 .planted = {&point->model},
                                 .only_layer = {-1, -1}};
    ck_assert_msg(gemma4_simulate(&s, path, &error) == 0, "%s", error.message);
    gemma4_activations *dump = gemma4_activations_open(path, &model->config, &error);
    const gemma4_judgement j = {.model = model, .engine = dump, .dtype = "float32"};
    ck_assert_msg(gemma4_judge(&j, &report, &error) == 0, "%s", error.message);
    char *text = test_printed(gemma4_report_json, &report);
    gemma4_document *document = parse(text);
    ck_assert_uint_eq(at(document, "causes")->count, 1);
    const gemma4_node *cause = &at(document, "causes")->items[0],
                      *parameter = &gemma4_node_get(cause, "parameters")->items[0];
    ck_assert_str_eq(gemma4_node_get(cause, "id")->text, "identified");
    ck_assert_int_eq(gemma4_node_get(cause, "equivalent_parameters")->kind, GEMMA4_SEQUENCE);
    ck_assert_msg(strstr(text, POINTS[_i].starts) && strstr(text, POINTS[_i].place), "%.1500s",
                  strstr(text, "\"parameters\""));
    const gemma4_node *expression = gemma4_node_get(parameter, "expression"),
                      *interval = gemma4_node_get(parameter, "interval");
    ck_assert_int_eq(expression != NULL, POINTS[_i].expression != NULL);
    ck_assert_int_eq(interval != NULL, POINTS[_i].expression != NULL);
    if (expression) {
        double number = POINTS[_i].setting.number, low, high;
        ck_assert_str_eq(expression->text, POINTS[_i].expression);
        ck_assert_uint_eq(interval->count, 2);
        ck_assert_int_eq(gemma4_node_number(&interval->items[0], 0, number, &low, &error), 0);
        ck_assert_int_eq(gemma4_node_number(&interval->items[1], number, 1, &high, &error), 0);
    }
    gemma4_document_free(document);
    free(text);
    gemma4_report_free(&report);
    gemma4_activations_close(dump);
    free(point);
    gemma4_model_close(model);
    gemma4_case_close(the_case);
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
    char *text = test_printed(gemma4_report_json, &report);
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
    char *text = test_printed(gemma4_report_json, &report);
    gemma4_document *document = parse(text);
    ck_assert_str_eq(at(document, "first_divergence/tap")->text, "logits");
    ck_assert(gemma4_node_is_null(at(document, "first_divergence/layer")));
    gemma4_document_free(document);
    free(text);
}
END_TEST

START_TEST(unusable_json_says_why)
{
    char *text = test_printed_message(gemma4_report_json_unusable, "file \"x\\y\": \xff");
    gemma4_document *document = parse(text);
    ck_assert_str_eq(at(document, "verdict")->text, "UNUSABLE");
    ck_assert_str_eq(at(document, "message")->text, "file \"x\\y\": \xef\xbf\xbd");
    gemma4_document_free(document);
    free(text);
}
END_TEST

/* --- for a person --- */

static const char *const TEXT[] = {
    "float32, 9 positions, case my-case",
    "from the golden",
    "logits: 3 of 66 required taps",
    "note       1 dataset is no tap",
    "First divergence: layers.1.attn.q_rope",
    "3 values are NaN",
    "position 7, index 12: yours -1.5, expected 0.25",
    "DOES NOT CONFORM",
    "Routing: 18 decisions in the dump, 1 faults",
    "golden     SHA-256 0123abcd\n",
    "checker    gemma4-check ",
    "\n\nwarning    'atn.q' is no tap, but nearly one\n\nDOES NOT CONFORM\n", /* at the end */
};

START_TEST(text_says)
{
    gemma4_report report = failing_report();
    char *text = test_printed(gemma4_report_text, &report);
    ck_assert_msg(strstr(text, TEXT[_i]) != NULL, "%s lacks %s", text, TEXT[_i]);
    free(text);
}
END_TEST

/* An engine's name comes from a file that somebody else wrote: it must not move the cursor or
 * colour the log. */
START_TEST(text_holds_no_control_characters_of_the_dump)
{
    gemma4_report report = failing_report();
    report.engine = "evil\x1b[2J\rengine";
    char *text = test_printed(gemma4_report_text, &report);
    ck_assert_ptr_null(strchr(text, '\x1b'));
    ck_assert_ptr_null(strchr(text, '\r'));
    free(text);
}
END_TEST

/* The verdict's line, whatever else is printed. */
static const char *last_line(char *text)
{
    text[strlen(text) - 1] = '\0';
    return strrchr(text, '\n') + 1;
}

static const struct {
    gemma4_level level, required;
    bool fails;
    size_t covered;
    const char *conclusion;
} CONCLUSIONS[] = {
    {GEMMA4_FULL_LEVEL, GEMMA4_PARTIAL, false, 2, "CONFORMS"},
    {GEMMA4_LOGITS_LEVEL, GEMMA4_PARTIAL, false, 2, "CONFORMS"},
    {GEMMA4_PARTIAL, GEMMA4_PARTIAL, false, 2,
     "NO FAULT FOUND in the 2 tensors covered (of 66): too little for a verdict; dump logits at "
     "least"},
    {GEMMA4_PARTIAL, GEMMA4_PARTIAL, false, 1,
     "NO FAULT FOUND in the 1 tensor covered (of 66) and in 1 optional one: too little for a "
     "verdict; dump logits at least"},
    {GEMMA4_PARTIAL, GEMMA4_PARTIAL, true, 2, "DOES NOT CONFORM"},
    {GEMMA4_PARTIAL, GEMMA4_LOGITS_LEVEL, true, 2, "DOES NOT CONFORM"},
};

START_TEST(the_last_line_is_the_conclusion)
{
    gemma4_report report = failing_report();
    results[2].verdict = GEMMA4_NOT_COVERED;
    report.first_divergence = NULL;
    report.conforms = !CONCLUSIONS[_i].fails;
    report.level = CONCLUSIONS[_i].level;
    report.required = CONCLUSIONS[_i].required;
    report.taps_covered = CONCLUSIONS[_i].covered;
    char *text = test_printed(gemma4_report_text, &report),
         *json = test_printed(gemma4_report_json, &report);
    gemma4_document *document = parse(json);
    ck_assert_str_eq(last_line(text), CONCLUSIONS[_i].conclusion);
    ck_assert_str_eq(at(document, "conclusion")->text, CONCLUSIONS[_i].conclusion);
    /* the contract knows no fourth */
    ck_assert_str_eq(at(document, "verdict")->text, CONCLUSIONS[_i].fails ? "FAIL" : "PASS");
    gemma4_document_free(document);
    free(json);
    free(text);
}
END_TEST

START_TEST(what_was_required_and_is_missing_is_said_at_the_end)
{
    gemma4_report report = failing_report();
    report.required = GEMMA4_FULL_LEVEL;
    char *text = test_printed(gemma4_report_text, &report);
    ck_assert_msg(strstr(text, "\n--require full: the dump covers less (logits): 3 of 66 required "
                               "tensors\n\nDOES NOT CONFORM\n") != NULL,
                  "%s", text);
    free(text);
}
END_TEST

/* A mistake that only all layers together show has no error of a step, but a significance. */
START_TEST(a_filter_s_finding_is_not_told_as_a_step_s_error)
{
    gemma4_report report = failing_report();
    results[2].local = (gemma4_measure){GEMMA4_METRIC_MATCHED_FILTER, 25, 8, 0};
    char *text = test_printed(gemma4_report_text, &report);
    ck_assert_ptr_nonnull(strstr(text, "passes by itself; all layers together hold a known "
                                       "mistake, 25 standard deviations from none, tolerance 8"));
    ck_assert_ptr_null(strstr(text, "times what rounding explains"));
    free(text);
}
END_TEST

/* --- causes --- */

START_TEST(every_known_mistake_has_a_sentence)
{
    for (size_t i = 0; i < gemma4_counter_model_count(); i++) {
        gemma4_cause cause = {.explained = true,
                              .model = i,
                              .second = GEMMA4_NO_MODEL,
                              .tap = GEMMA4_TAP_ATTN_Q,
                              .first_layer = 3,
                              .layers = "3-5"};
        gemma4_sentence sentence = gemma4_cause_sentence(&cause),
                        lines = gemma4_cause_lines(&cause);
        const char *right = gemma4_counter_model_at(i)->right;
        ck_assert(!strncmp(sentence.text, gemma4_counter_model_at(i)->id,
                           strlen(gemma4_counter_model_at(i)->id)));
        /* nothing is cut off */
        ck_assert_str_eq(sentence.text + strlen(sentence.text) - strlen(right), right);
        ck_assert_ptr_null(strchr(sentence.text, '\n'));
        ck_assert_ptr_nonnull(strstr(lines.text, "\n  wrong          "));
    }
}
END_TEST

START_TEST(an_unknown_cause_s_sentence_says_what_is_measured)
{
    gemma4_cause cause = {.second = GEMMA4_NO_MODEL,
                          .tap = GEMMA4_TAP_ATTN_Q,
                          .first_layer = 3,
                          .layers = "3-5",
                          .description = "all values are 0"};
    ck_assert_str_eq(gemma4_cause_sentence(&cause).text,
                     "no known mistake explains layers.3.attn.q; layers 3-5: all values are 0");
}
END_TEST

/* Residual and whole error in spreads of rounding. Far more than the error: a coefficient of 95 has
 * done that. */
static const struct {
    bool has_near;
    double coefficient, residual, error;
    bool shown;
} RUNNERS_UP[] = {
    {true, 0.97, 10, 1000, true},
    {true, 0.8, 499, 1000, true},
    {true, 0.8, 501, 1000, false},
    {true, 95, 999, 1000, false},
    {true, 0.01, 2000, 1000, false},
    {false, 0.97, 0, 1000, false},
    {true, 0.97, INFINITY, INFINITY, false},
    {true, 0.97, NAN, 1000, false},
    {true, 0.9, 0.1, 0, false},
    {true, 0.5, 10, 1000, true},
    {true, 0.49, 10, 1000, false},
    {true, 1.5, 10, 1000, true},
    {true, 1.51, 10, 1000, false},
    {true, 95, 10, 1000, false},
    {true, -1, 10, 1000, false},
    {true, NAN, 10, 1000, false},
};

START_TEST(a_runner_up_explains_more_than_half)
{
    gemma4_cause cause = {
        .has_near = RUNNERS_UP[_i].has_near, .second = GEMMA4_NO_MODEL, .description = "?"};
    cause.near = (gemma4_fit){.model = 3,
                              .coefficient = RUNNERS_UP[_i].coefficient,
                              .residual = RUNNERS_UP[_i].residual,
                              .error = RUNNERS_UP[_i].error};
    ck_assert_ptr_eq(gemma4_runner_up(&cause), RUNNERS_UP[_i].shown ? &cause.near : NULL);
}
END_TEST

/* The cause of q_rope in layers 5 and 11 is that of k_rope there, which the mistake changes too,
 * and of nothing else. */
static const struct {
    gemma4_tap tap;
    size_t layer;
    bool explained;
} EXPLAINED[] = {
    {GEMMA4_TAP_ATTN_Q_ROPE, 5, true},  {GEMMA4_TAP_ATTN_K_ROPE, 5, true},
    {GEMMA4_TAP_ATTN_Q_ROPE, 11, true}, {GEMMA4_TAP_ATTN_K_ROPE, 11, true},
    {GEMMA4_TAP_ATTN_Q_ROPE, 6, false}, {GEMMA4_TAP_ATTN_Q_ROPE, 1, false},
    {GEMMA4_TAP_MLP_OUT, 5, false},     {GEMMA4_TAP_LOGITS, 0, false},
};

START_TEST(a_failing_tap_has_its_cause)
{
    test_judged j = test_judge_dump(
        "tiny-prompt", "golden/dumps/tiny-prompt-rope-pairing-contiguous.h5", "float32");
    for (size_t i = 0; i < COUNT(EXPLAINED); i++) {
        gemma4_tap_result r = {.tap = EXPLAINED[i].tap, .layer = EXPLAINED[i].layer};
        ck_assert_ptr_eq(gemma4_cause_of(&j.report, &r),
                         EXPLAINED[i].explained ? gemma4_cause_at(j.report.diagnosis, 0) : NULL);
    }
    test_judged_free(&j);
}
END_TEST

START_TEST(warnings_are_bounded_and_say_so)
{
    gemma4_report report = {0};
    for (int i = 0; i < 100; i++)
        gemma4_report_warn(&report, "warning %d %0400d", i, i);
    ck_assert_uint_eq(report.warning_count, GEMMA4_MAX_WARNINGS);
    ck_assert_uint_eq(strlen(report.warnings[0]), GEMMA4_WARNING_SIZE - 1);
    ck_assert_str_eq(report.warnings[GEMMA4_MAX_WARNINGS - 1],
                     "there are more warnings than are shown here");
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
    TCase *json = tcase_create("json"), *text = tcase_create("text"),
          *causes = tcase_create("causes");
    tcase_add_loop_test(json, strings_are_escaped, 0, COUNT(STRINGS));
    tcase_add_loop_test(json, json_has_the_contract_s_fields, 0, COUNT(FIELDS));
    tcase_add_test(json, json_has_the_contract_s_lists);
    tcase_add_loop_test(json, every_tap_is_listed_with_its_verdict, 0, COUNT(ROWS));
    tcase_add_test(json, what_is_not_finite_is_null);
    tcase_add_test(json, where_no_tolerance_applies_there_is_none);
    tcase_add_test(json, a_conforming_bfloat16_report_says_fail_nowhere);
    tcase_add_test(json, json_says_what_it_is_and_which_build_wrote_it);
    tcase_add_test(json, json_says_the_cause_s_sentence);
    tcase_add_loop_test(json, json_says_the_parameters_of_a_fault_in_no_catalogue, 0,
                        COUNT(POINTS));
    tcase_add_test(json, a_passing_report_has_no_divergence);
    tcase_add_test(json, a_divergence_outside_the_layers_has_no_layer);
    tcase_add_test(json, unusable_json_says_why);
    tcase_add_loop_test(text, text_says, 0, COUNT(TEXT));
    tcase_add_test(text, text_holds_no_control_characters_of_the_dump);
    tcase_add_loop_test(text, the_last_line_is_the_conclusion, 0, COUNT(CONCLUSIONS));
    tcase_add_test(text, what_was_required_and_is_missing_is_said_at_the_end);
    tcase_add_test(text, a_filter_s_finding_is_not_told_as_a_step_s_error);
    tcase_add_test(text, notes_are_bounded);
    tcase_add_test(text, warnings_are_bounded_and_say_so);
    tcase_add_test(causes, every_known_mistake_has_a_sentence);
    tcase_add_test(causes, an_unknown_cause_s_sentence_says_what_is_measured);
    tcase_add_loop_test(causes, a_runner_up_explains_more_than_half, 0, COUNT(RUNNERS_UP));
    tcase_add_test(causes, a_failing_tap_has_its_cause);
    tcase_add_test(text, verdicts_and_levels_have_the_contract_s_names);
    suite_add_tcase(suite, json);
    suite_add_tcase(suite, text);
    suite_add_tcase(suite, causes);
    return suite;
}
