/* Is every report what spec/report.schema.json says? And does a file that is not get refused by
 * it? */
#include "reports.h"
#include "schema.h"
#include "suites.h"
#include "support.h"

#include <stdio.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

static gemma4_document *schema;

static void open_schema(void)
{
    gemma4_error error = {""};
    schema = gemma4_document_read("spec/report.schema.json", &error);
    ck_assert_msg(schema != NULL, "%s", error.message);
}

static void close_schema(void)
{
    gemma4_document_free(schema);
}

static const char *violation_of(const char *text)
{
    gemma4_error error = {""};
    gemma4_document *document = gemma4_document_parse("report", text, strlen(text), &error);
    ck_assert_msg(document != NULL, "%s", error.message);
    const char *violation =
        test_schema_violation(gemma4_document_root(schema), gemma4_document_root(document));
    gemma4_document_free(document);
    return violation;
}

static const struct {
    const char *case_id, *dump, *dtype;
} DUMPS[] = {
    {"tiny-prompt", "golden/dumps/tiny-prompt-float32.h5", "float32"},
    {"tiny-prompt", "golden/dumps/tiny-prompt-rope-pairing-contiguous.h5", "float32"},
    {"tiny-chunks", "golden/dumps/tiny-chunks-bfloat16.h5", "bfloat16"},
    {"tiny-prompt", "golden/dumps/tiny-prompt-bfloat16.h5", "float32"}, /* a mistake of the dump */
    {"tiny-one-token", "golden/cases/tiny-one-token.h5", "float32"},
};

START_TEST(a_report_is_what_the_schema_says)
{
    test_judged j = test_judge_dump(DUMPS[_i].case_id, DUMPS[_i].dump, DUMPS[_i].dtype);
    char *text = test_printed(gemma4_report_json, &j.report);
    ck_assert_str_eq(violation_of(text), "");
    free(text);
    test_judged_free(&j);
}
END_TEST

/* With what it replaces in the report of a faulty engine; the schema must say where. */
static const struct {
    const char *what, *by, *message;
} CHANGES[] = {
    {"\"verdict\": \"FAIL\", \"level\"", "\"verdict\": \"WRONG\", \"level\"", "verdict"},
    {"\"level\": \"full\"", "\"level\": \"some\"", "level"},
    {"\"format_version\": 1", "\"format_version\": 2", "format_version"},
    {"\"mode\": \"local\"}", "\"mode\": \"local\", \"colour\": 3}", "colour"},
    {"\"taps\": 373", "\"taps\": -1", "coverage.taps"},
    {"\"taps\": 373", "\"taps\": \"373\"", "coverage.taps"},
    {"\"of_dump\": false", "\"of_dump\": 0", "of_dump"},
    {"\"equivalent\": []", "\"equivalent\": [1]", "equivalent"},
    {"\"near_ties\":", "\"nearties\":", "routing"},
    {"\"expected_from\": \"golden\",", "", "expected_from"},
};

START_TEST(what_is_no_report_is_refused)
{
    test_judged j = test_judge_dump(DUMPS[1].case_id, DUMPS[1].dump, DUMPS[1].dtype);
    char *text = test_printed(gemma4_report_json, &j.report), *at = strstr(text, CHANGES[_i].what);
    ck_assert_msg(at != NULL, "the report lacks %s", CHANGES[_i].what);
    char *changed = malloc(strlen(text) + strlen(CHANGES[_i].by) + 1);
    sprintf(changed, "%.*s%s%s", (int)(at - text), text, CHANGES[_i].by,
            at + strlen(CHANGES[_i].what));
    /* the root's anyOf gives the last alternative's reason: ask for a report directly */
    gemma4_error error = {""};
    gemma4_document *document = gemma4_document_parse("report", changed, strlen(changed), &error);
    ck_assert_msg(document != NULL, "%s", error.message);
    ck_assert_str_ne(violation_of(changed), "");
    const gemma4_node *whole = gemma4_document_root(schema);
    const gemma4_node *report = gemma4_node_get(gemma4_node_get(whole, "$defs"), "report");
    const char *violation = test_schema_violation_of(whole, report, gemma4_document_root(document));
    ck_assert_msg(strstr(violation, CHANGES[_i].message) != NULL, "\"%s\" is not in \"%s\"",
                  CHANGES[_i].message, violation);
    gemma4_document_free(document);
    free(changed);
    free(text);
    test_judged_free(&j);
}
END_TEST

START_TEST(what_cannot_be_judged_is_what_the_schema_says)
{
    char *text = test_printed_message(gemma4_report_json_unusable, "a \"file\": \x01 not there");
    ck_assert_str_eq(violation_of(text), "");
    free(text);
    ck_assert_str_ne(violation_of("{}"), "");
    ck_assert_str_ne(violation_of("{\"format\": \"gemma4-report\", \"format_version\": 1, "
                                  "\"version\": \"1\", \"verdict\": \"PASS\", \"message\": \"\"}"),
                     "");
}
END_TEST

Suite *schema_suite(void)
{
    Suite *suite = suite_create("schema");
    TCase *reports = tcase_create("reports");
    tcase_add_unchecked_fixture(reports, open_schema, close_schema);
    tcase_set_timeout(reports, 60);
    tcase_add_loop_test(reports, a_report_is_what_the_schema_says, 0, COUNT(DUMPS));
    tcase_add_loop_test(reports, what_is_no_report_is_refused, 0, COUNT(CHANGES));
    tcase_add_test(reports, what_cannot_be_judged_is_what_the_schema_says);
    suite_add_tcase(suite, reports);
    return suite;
}
