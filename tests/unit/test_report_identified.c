/* What reports say of causes that are in no catalogue, and of errors that only part of a point
 * explains. On the checkpoint golden/checkpoints/tiny: 4 query heads, layer 0 slides with 2 KV
 * heads and a window of 16. */
#include "causes.h"
#include "counter_model.h"
#include "engines.h"
#include "filter.h"
#include "fit.h"
#include "model.h"
#include "noise.h"
#include "point.h"
#include "report.h"
#include "report_html.h"
#include "reports.h"
#include "routing_counts.h"
#include "space.h"
#include "suites.h"
#include "support.h"

#include <math.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define AT(tap) GEMMA4_STEP(GEMMA4_TAP_##tap)
#define OF(parameter) GEMMA4_PARAMETER_##parameter
#define ROTATIONS (AT(ATTN_Q_ROPE) | AT(ATTN_K_ROPE))
#define ATTENTION (AT(ATTN_SCORES) | AT(ATTN_PROBS) | AT(ATTN_CONTEXT))

static gemma4_point *point; /* of the cause at hand */

static const gemma4_config *config(void)
{
    return &test_golden_model()->config;
}

static void free_point(void)
{
    free(point);
    point = NULL;
}

/* A cause of that one setting, in layers 0 to 4. */
static gemma4_cause cause_of(gemma4_setting setting, gemma4_tap seen, uint64_t places)
{
    gemma4_cause cause = {.explained = true,
                          .model = GEMMA4_NO_MODEL,
                          .second = GEMMA4_NO_MODEL,
                          .tap = seen,
                          .taps = 5,
                          .layers = "0-4",
                          .coefficient = 1,
                          .residual = 0.2};
    free_point();
    point = gemma4_point_new(config(), &setting, 1, GEMMA4_ON_SLIDING | GEMMA4_ON_FULL);
    ck_assert_ptr_nonnull(point);
    cause.point = point;
    cause.places[0] = places;
    gemma4_point_sentence(point, config(), 0, cause.places, seen, cause.said, sizeof cause.said);
    return cause;
}

static const gemma4_setting EPS = {.parameter = OF(EPS), .steps = AT(ATTN_NORM), .number = 1e-3};
static const gemma4_setting WINDOW = {.parameter = OF(WINDOW), .steps = ATTENTION, .number = 4};

/* --- sentences --- */

static const struct {
    gemma4_setting setting;
    gemma4_tap seen;
    uint64_t places;
    const char *sentence;
} SENTENCES[] = {
    {{.parameter = OF(WINDOW), .steps = ATTENTION, .number = 4},
     GEMMA4_TAP_ATTN_PROBS,
     ATTENTION,
     "sliding_window = 4 (expected 16), first at layers.0.attn.probs; layers 0-4"},
    {{.parameter = OF(EPS), .steps = AT(ATTN_NORM), .number = 1e-3},
     GEMMA4_TAP_ATTN_NORM,
     AT(ATTN_NORM),
     "rms_norm_eps = 0.001 (expected 1e-06), first at layers.0.attn.norm; layers 0-4"},
    {{.parameter = OF(EPS), .steps = AT(ATTN_NORM), .number = 1e-3},
     GEMMA4_TAP_ATTN_NORM,
     AT(ATTN_NORM) | AT(ATTN_Q_NORM) | AT(MLP_NORM),
     "rms_norm_eps = 0.001 (expected 1e-06) at attn.norm, attn.q_norm, mlp.norm, first at "
     "layers.0.attn.norm; layers 0-4"},
    {{.parameter = OF(EPS), .steps = AT(MLP_NORM), .number = 1e-3},
     GEMMA4_TAP_LAYER_OUTPUT,
     AT(MLP_NORM),
     "rms_norm_eps = 0.001 (expected 1e-06) at mlp.norm, first at layers.0.output; layers 0-4"},
    {{.parameter = OF(ROPE_THETA), .steps = ROTATIONS, .number = 3e4},
     GEMMA4_TAP_ATTN_Q_ROPE,
     ROTATIONS,
     "rope_theta = 30000 (expected 10000), first at layers.0.attn.q_rope; layers 0-4"},
    {{.parameter = OF(ROPE_THETA), .steps = AT(ATTN_K_ROPE), .number = 3e4},
     GEMMA4_TAP_ATTN_SCORES,
     AT(ATTN_K_ROPE),
     "rope_theta = 30000 (expected 10000) at attn.k_rope, first at layers.0.attn.scores; layers "
     "0-4"},
    {{.parameter = OF(WEIGHT_FORM), .steps = AT(ATTN_Q_NORM), .word = GEMMA4_FORM_ONE_PLUS},
     GEMMA4_TAP_ATTN_Q_NORM,
     AT(ATTN_Q_NORM) | AT(ATTN_K_NORM),
     "weight.form of q_norm, k_norm = 1 + w (expected w), first at layers.0.attn.q_norm; layers "
     "0-4"},
};

START_TEST(a_parameter_is_said_once_with_its_steps)
{
    gemma4_cause cause = cause_of(SENTENCES[_i].setting, SENTENCES[_i].seen, SENTENCES[_i].places);
    ck_assert_str_eq(gemma4_cause_sentence(&cause).text, SENTENCES[_i].sentence);
    ck_assert_ptr_null(strchr(gemma4_cause_lines(&cause).text, '\n'));
}
END_TEST

/* All steps that a setting can have, and all settings that a point can have: cut off, not run
 * over. */
START_TEST(a_long_sentence_is_cut_off)
{
    gemma4_setting all[GEMMA4_POINT_SETTINGS];
    char text[300];
    for (size_t i = 0; i < GEMMA4_POINT_SETTINGS; i++)
        all[i] = (gemma4_setting){
            .parameter = OF(EPS), .steps = ~(uint64_t)0 >> (64 - GEMMA4_TAP_COUNT), .number = 1e-3};
    free_point();
    point = gemma4_point_new(config(), all, GEMMA4_POINT_SETTINGS, GEMMA4_ON_SLIDING);
    ck_assert_uint_lt(strlen(point->wrong), sizeof point->wrong);
    gemma4_point_sentence(point, config(), 0, NULL, GEMMA4_TAP_COUNT, text, sizeof text);
    ck_assert_uint_lt(strlen(text), sizeof text);
    ck_assert_ptr_nonnull(strstr(point->wrong, ", ..."));
}
END_TEST

/* --- causes --- */

/* A failing tap of layer 0 that this setting explains. */
static gemma4_finding found(gemma4_tap tap, gemma4_setting setting)
{
    gemma4_finding f = {.tap = tap, .error = 100, .point_count = 1};
    setting.steps = GEMMA4_STEP(tap);
    gemma4_point *p = gemma4_point_new(config(), &setting, 1, GEMMA4_ON_SLIDING);
    ck_assert_ptr_nonnull(p);
    f.points[0] =
        (gemma4_point_fit){.point = p, .only_layer = -1, .coefficient = 1, .residual = 0.5};
    return f;
}

static gemma4_causes causes_of(const gemma4_finding *findings, size_t count)
{
    gemma4_filtered *filtered = calloc(gemma4_counter_model_count(), sizeof *filtered);
    gemma4_causes causes = {0};
    gemma4_error error = {""};
    ck_assert_ptr_nonnull(filtered);
    ck_assert_int_eq(gemma4_find_causes(config(), findings, count, filtered, &causes, &error), 0);
    free(filtered);
    return causes;
}

static void free_causes(gemma4_causes *causes, gemma4_finding *findings, size_t count)
{
    gemma4_causes_free(causes);
    for (size_t i = 0; i < count; i++)
        gemma4_finding_free(&findings[i]);
}

/* One eps in two norms is one cause with two steps; another eps is another one. */
START_TEST(a_cause_has_the_steps_of_all_its_findings)
{
    gemma4_setting other = EPS;
    other.number = 0.1;
    gemma4_finding findings[] = {found(GEMMA4_TAP_ATTN_NORM, EPS),
                                 found(GEMMA4_TAP_ATTN_Q_NORM, EPS),
                                 found(GEMMA4_TAP_MLP_NORM, other)};
    gemma4_causes causes = causes_of(findings, COUNT(findings));
    ck_assert_uint_eq(causes.count, 2);
    ck_assert_uint_eq(causes.list[0].places[0], AT(ATTN_NORM) | AT(ATTN_Q_NORM));
    ck_assert_str_eq(causes.list[0].said,
                     "rms_norm_eps = 0.001 (expected 1e-06) at attn.norm, attn.q_norm");
    ck_assert_str_eq(causes.list[1].said, "rms_norm_eps = 0.1 (expected 1e-06)");
    free_causes(&causes, findings, COUNT(findings));
}
END_TEST

/* A mistake elsewhere explains as many taps, but others. */
START_TEST(what_explains_other_findings_does_not_fit_as_well)
{
    const gemma4_setting mean = {.parameter = OF(NORM_MEAN)};
    gemma4_finding findings[] = {found(GEMMA4_TAP_ATTN_NORM, mean),
                                 found(GEMMA4_TAP_MLP_NORM, EPS)};
    gemma4_causes causes = causes_of(findings, COUNT(findings));
    ck_assert_uint_eq(causes.count, 2);
    for (size_t i = 0; i < COUNT(findings); i++)
        ck_assert_uint_eq(causes.list[i].equivalent_point_count, 0);
    free_causes(&causes, findings, COUNT(findings));
}
END_TEST

/* Of 16 lanes a head in layer 0 and 32 in layer 5, one number is not both. */
START_TEST(an_expression_holds_in_all_findings_or_is_none)
{
    const gemma4_setting factor = {.parameter = OF(RESULT_FACTOR), .number = 0.03125};
    gemma4_finding findings[] = {found(GEMMA4_TAP_ATTN_Q, factor),
                                 found(GEMMA4_TAP_ATTN_Q, factor)};
    findings[1].layer = 5;
    for (size_t i = _i ? 0 : 1; i < COUNT(findings); i++)
        snprintf(findings[i].points[0].point->expression[0], 32, "head_dim^-1");
    gemma4_causes causes = causes_of(findings, COUNT(findings));
    ck_assert_uint_eq(causes.count, 1);
    ck_assert_str_eq(causes.list[0].said, _i ? "result.factor = 0.03125 = head_dim^-1 (expected 1)"
                                             : "result.factor = 0.03125 (expected 1)");
    free_causes(&causes, findings, COUNT(findings));
}
END_TEST

/* What fits as well is said with all its steps, too. */
START_TEST(what_fits_as_well_has_its_steps)
{
    const gemma4_setting mean = {.parameter = OF(NORM_MEAN)};
    gemma4_finding findings[] = {found(GEMMA4_TAP_ATTN_NORM, mean),
                                 found(GEMMA4_TAP_ATTN_Q_NORM, mean)};
    for (size_t i = 0; i < COUNT(findings); i++) {
        gemma4_finding more = found(findings[i].tap, EPS);
        findings[i].points[findings[i].point_count++] = more.points[0];
    }
    gemma4_causes causes = causes_of(findings, COUNT(findings));
    ck_assert_uint_eq(causes.count, 1);
    ck_assert_uint_eq(causes.list[0].equivalent_point_count, 1);
    ck_assert_str_eq(causes.list[0].said, "norm.mean = removed at attn.norm, attn.q_norm");
    ck_assert_str_eq(causes.list[0].equivalent_said[0],
                     "rms_norm_eps = 0.001 (expected 1e-06) at attn.norm, attn.q_norm");
    free_causes(&causes, findings, COUNT(findings));
}
END_TEST

/* --- what explains part --- */

/* 1.5 times as much, a fifth more where positive and a fifth less where negative. */
static void bend(const test_engine *e, gemma4_tap_event *event)
{
    (void)e;
    for (size_t i = 0;
         event->tap == GEMMA4_TAP_MLP_OUT && event->layer == 3 && i < event->rows * event->dims[0];
         i++)
        event->values[i] *= event->values[i] > 0 ? 1.8f : 1.2f;
}

/* Values that have nothing in common with those that are due. */
static void replace(const test_engine *e, gemma4_tap_event *event)
{
    (void)e;
    for (size_t i = 0;
         event->tap == GEMMA4_TAP_MLP_OUT && event->layer == 3 && i < event->rows * event->dims[0];
         i++)
        event->values[i] = (gemma4_real)cos(1.0 + 7.0 * (double)i * (double)i);
}

static const struct {
    test_change *compute;
    const char *nearest;
} PARTLY[] = {{bend, "result.factor = 1.5 (expected 1) at mlp.out"}, {replace, ""}};

START_TEST(what_comes_near_is_found)
{
    const test_engine engine = {
        .model = test_golden_model(), .T = 12, .tier = "float32", .compute = PARTLY[_i].compute};
    test_judgement j = test_judge_engine(&engine, true);
    ck_assert_str_eq(test_first_divergence(&j), "layers.3.mlp.out");
    const gemma4_cause *cause = gemma4_cause_of(&j.report, j.report.first_divergence);
    ck_assert(cause && !cause->explained);
    ck_assert_str_eq(cause->nearest, PARTLY[_i].nearest);
    ck_assert(!cause->nearest[0] || (cause->nearest_share > 0.5 && cause->nearest_share < 0.95));
    test_judgement_free(&j);
}
END_TEST

static gemma4_cause unexplained(const char *nearest, double share)
{
    gemma4_cause cause = {.second = GEMMA4_NO_MODEL,
                          .tap = GEMMA4_TAP_MLP_OUT,
                          .layers = "0",
                          .description = "spread",
                          .nearest_share = share};
    snprintf(cause.nearest, sizeof cause.nearest, "%s", nearest);
    return cause;
}

START_TEST(what_explains_part_is_said_with_its_share)
{
    gemma4_cause cause = unexplained("result.factor = 1.5 (expected 1) at mlp.out", 0.736),
                 none = unexplained("", 0), all = unexplained("x", 0.9999);
    ck_assert_str_eq(gemma4_cause_sentence(&cause).text,
                     "no known mistake explains layers.0.mlp.out; layers 0: spread; nearest: "
                     "result.factor = 1.5 (expected 1) at mlp.out: "
                     "explains 73 % of the error, not all of it");
    ck_assert_ptr_nonnull(
        strstr(gemma4_cause_lines(&cause).text, "\n  nearest        result.factor"));
    ck_assert_str_eq(gemma4_cause_sentence(&none).text,
                     "no known mistake explains layers.0.mlp.out; layers 0: spread");
    ck_assert_str_eq(gemma4_nearest_sentence(&all).text,
                     "x: explains 99 % of the error, not all of it");
}
END_TEST

/* --- the whole way, from a dump --- */

static void halve(const test_engine *e, gemma4_tap_event *event)
{
    (void)e;
    for (size_t i = 0; event->tap == GEMMA4_TAP_MLP_OUT && i < event->rows * event->dims[0]; i++)
        event->values[i] *= 0.5f;
}

static const struct {
    test_change *compute;
    void (*write)(FILE *, const gemma4_report *);
    const char *text;
} FORMS[] = {
    {halve, gemma4_report_text,
     "\nCause: result.factor = 0.5 (expected 1), first at layers.0.mlp.out; layers 0-11\n"},
    {halve, gemma4_report_json,
     "\"parameters\": [{\"name\": \"result.factor\", \"value\": 0.5, \"expected\": 1, "
     "\"interval\": [0."},
    {halve, gemma4_report_json,
     "\"taps\": [\"mlp.out\"], \"where\": {\"tap\": \"mlp.out\", \"layers\": [0, 1, 2, 3, 4, 5, 6, "
     "7, 8, 9, 10, 11], \"positions\": "
     "\"all\"}}]"},
    {halve, gemma4_report_junit, "; cause: result.factor = 0.5 (expected 1)"},
    {halve, gemma4_report_html, "<h3><code>result.factor</code></h3>"},
    {bend, gemma4_report_text,
     "\n  nearest        result.factor = 1.5 (expected 1) at mlp.out: explains "},
    {bend, gemma4_report_json,
     "\"nearest\": {\"sentence\": \"result.factor = 1.5 (expected 1) at mlp.out\", \"share\": 0."},
};

START_TEST(every_form_says_it)
{
    const test_engine engine = {
        .model = test_golden_model(), .T = 12, .tier = "float32", .compute = FORMS[_i].compute};
    test_judgement j = test_judge_engine(&engine, true);
    char *text = test_printed(FORMS[_i].write, &j.report);
    ck_assert_msg(strstr(text, FORMS[_i].text) != NULL, "%s lacks %s", text, FORMS[_i].text);
    ck_assert_ptr_null(strstr(text, "explain identified"));
    free(text);
    test_judgement_free(&j);
}
END_TEST

/* --- the page for a browser --- */

/* The card of a cause, to be freed. */
static char *card(const gemma4_cause *cause, size_t positions)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    ck_assert_ptr_nonnull(f);
    gemma4_report_html_cause(f, config(), positions, cause);
    ck_assert_int_eq(fclose(f), 0);
    const char *at = test_malformed(text);
    ck_assert_msg(at == NULL, "the card is malformed: %.80s", at);
    ck_assert_ptr_null(strstr(text, "explain identified"));
    return text;
}

static void assert_has(const char *text, const char *expected)
{
    ck_assert_msg(strstr(text, expected) != NULL, "the card lacks %s:\n%s", expected, text);
}

START_TEST(a_card_has_values_side_by_side)
{
    gemma4_cause cause = cause_of(EPS, GEMMA4_TAP_ATTN_NORM, AT(ATTN_NORM) | AT(MLP_NORM));
    point->low[0] = 0.9e-3;
    point->high[0] = 1.1e-3;
    cause.equivalent_points[cause.equivalent_point_count++] = point;
    snprintf(cause.equivalent_said[0], sizeof cause.equivalent_said[0], "%s",
             "norm.mean = removed & more");
    char *text = card(&cause, 12);
    assert_has(text, "<h3><code>rms_norm_eps</code></h3>");
    assert_has(text, "<td class=\"l wide wrong\">0.001</td><td class=\"l wide "
                     "right\">1e-06</td><td class=\"l wide\">0.0009 to 0.0011</td>");
    assert_has(text, "<code>attn.norm</code>, <code>mlp.norm</code></td>");
    assert_has(text, "<dt>Positions</dt><dd>all</dd>");
    assert_has(text, "<dt>Fits as well</dt><dd>norm.mean = removed &amp; more");
    ck_assert_ptr_null(strstr(text, "<svg"));
    free(text);
}
END_TEST

/* Of 12 positions, window 4 hides 8 rows' first keys from query 4 on; each row is one run of each
 * kind. */
START_TEST(a_mask_is_drawn)
{
    gemma4_cause cause = cause_of(WINDOW, GEMMA4_TAP_ATTN_PROBS, ATTENTION);
    char *text = card(&cause, 12);
    ck_assert_uint_eq(test_occurrences(text, "<rect class=\"due\""), 24);
    ck_assert_uint_eq(test_occurrences(text, "<rect class=\"less\""), 8);
    ck_assert_uint_eq(test_occurrences(text, "<rect class=\"more\""), 0);
    free(text);
    cause = cause_of(
        (gemma4_setting){.parameter = OF(MASK), .steps = ATTENTION, .word = GEMMA4_MASK_NOT_CAUSAL},
        GEMMA4_TAP_ATTN_PROBS, ATTENTION);
    text = card(&cause, 12);
    /* the last query sees everything anyhow */
    ck_assert_uint_eq(test_occurrences(text, "<rect class=\"more\""), 11);
    free(text);
}
END_TEST

START_TEST(many_positions_are_drawn_in_steps)
{
    gemma4_cause cause = cause_of(WINDOW, GEMMA4_TAP_ATTN_PROBS, ATTENTION);
    char *text = card(&cause, 5000);
    ck_assert_uint_lt(test_occurrences(text, "<rect "), 500);
    assert_has(text, "key 0 to 4929");
    free(text);
    text = card(&cause, 0);
    ck_assert_ptr_null(strstr(text, "<svg"));
    free(text);
}
END_TEST

START_TEST(both_activation_functions_are_drawn)
{
    static const gemma4_setting functions[] = {
        {.parameter = OF(ACTIVATION), .steps = AT(MLP_ACT), .word = GEMMA4_FUNCTION_RELU_SQUARED},
        {.parameter = OF(ACTIVATION),
         .steps = AT(MLP_ACT),
         .word = GEMMA4_FUNCTION_CLAMPED,
         .number = 10},
    };
    gemma4_cause cause = cause_of(functions[_i], GEMMA4_TAP_MLP_ACT, AT(MLP_ACT));
    char *text = card(&cause, 12);
    ck_assert_uint_eq(test_occurrences(text, "<polyline"), 2);
    ck_assert_uint_eq(test_occurrences(text, "nan") + test_occurrences(text, "inf"), 0);
    assert_has(text, _i ? ">-15<" : ">-4<");
    free(text);
}
END_TEST

START_TEST(a_map_of_heads_is_a_table)
{
    const gemma4_setting map = {
        .parameter = OF(KV_HEAD_OF), .steps = ATTENTION, .count = 4, .list = {0, 1, 1, 0}};
    gemma4_cause cause = cause_of(map, GEMMA4_TAP_ATTN_CONTEXT, ATTENTION);
    char *text = card(&cause, 12);
    assert_has(text, "<td>0</td><td class=\"wrong\">1</td><td>1</td><td class=\"wrong\">0</td>");
    assert_has(text, "<td>0</td><td>0</td><td>1</td><td>1</td>");
    free(text);
}
END_TEST

START_TEST(a_card_says_what_comes_near)
{
    gemma4_cause cause = unexplained("result.factor = 1.5 (expected 1) at mlp.out", 0.736);
    char *text = card(&cause, 12);
    assert_has(text,
               "<dt>Nearest</dt><dd>result.factor = 1.5 (expected 1) at mlp.out: explains 73 %");
    ck_assert_ptr_null(strstr(text, "none comes near"));
    free(text);
}
END_TEST

Suite *report_identified_suite(void)
{
    Suite *suite = suite_create("report_identified");
    TCase *sentences = tcase_create("sentences"), *cards = tcase_create("cards");
    tcase_add_checked_fixture(sentences, NULL, free_point);
    tcase_add_checked_fixture(cards, NULL, free_point);
    tcase_add_loop_test(sentences, a_parameter_is_said_once_with_its_steps, 0, COUNT(SENTENCES));
    tcase_add_test(sentences, a_long_sentence_is_cut_off);
    tcase_add_test(sentences, a_cause_has_the_steps_of_all_its_findings);
    tcase_add_loop_test(sentences, an_expression_holds_in_all_findings_or_is_none, 0, 2);
    tcase_add_test(sentences, what_explains_other_findings_does_not_fit_as_well);
    tcase_add_test(sentences, what_fits_as_well_has_its_steps);
    tcase_add_loop_test(sentences, what_comes_near_is_found, 0, COUNT(PARTLY));
    tcase_add_test(sentences, what_explains_part_is_said_with_its_share);
    tcase_add_loop_test(cards, every_form_says_it, 0, COUNT(FORMS));
    tcase_add_test(cards, a_card_has_values_side_by_side);
    tcase_add_test(cards, a_mask_is_drawn);
    tcase_add_test(cards, many_positions_are_drawn_in_steps);
    tcase_add_loop_test(cards, both_activation_functions_are_drawn, 0, 2);
    tcase_add_test(cards, a_map_of_heads_is_a_table);
    tcase_add_test(cards, a_card_says_what_comes_near);
    suite_add_tcase(suite, sentences);
    suite_add_tcase(suite, cards);
    return suite;
}
