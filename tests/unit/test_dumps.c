/* What the judge makes of odd but lawful dumps, and of faults in places where it is easy to look
 * past them. */
#include "counter_model.h"
#include "engines.h"
#include "evidence_maker.h"
#include "reports.h"
#include "suites.h"
#include "support.h"

#include <math.h>
#include <stdlib.h>

#include "causes.h"
#include "diagnose.h"
#include "forward.h"
#include "report.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* The small model: layers 0 to 4 slide over a window of 4, layer 5 is full. */
enum { T = 9, H = 4, LAYERS = 6 };

typedef gemma4_real real;

/* --- masked scores --- */

static real anything;
static bool visible_nan;

/* Writes all T keys of a row of scores: what the mask excludes holds anything. */
static void show_masked(const test_engine *engine, gemma4_tap_event *event)
{
    static real all[H * T];
    (void)engine;
    if (event->tap != GEMMA4_TAP_ATTN_SCORES)
        return;
    for (size_t i = 0; i < H * T; i++)
        all[i] = anything;
    for (size_t h = 0; h < H; h++)
        memcpy(all + h * T + event->first_key, event->values + h * event->dims[1],
               event->dims[1] * sizeof *all);
    if (event->layer == 3 && event->row == 7 && visible_nan)
        all[2 * T + 5] = NAN;
    event->values = all;
    event->first_key = 0;
    event->dims[1] = T;
}

/* 30 % too large. */
static void compute_wrong_scores(const test_engine *engine, gemma4_tap_event *event)
{
    (void)engine;
    for (size_t i = 0; event->tap == GEMMA4_TAP_ATTN_SCORES && event->layer == 3 &&
                       i < event->dims[0] * event->dims[1];
         i++)
        event->values[i] *= 1.3f;
}

static const double MASKED[] = {-INFINITY, NAN, 1e30, -3.4e38};

static test_engine with_scores(double masked)
{
    anything = (real)masked;
    visible_nan = false;
    return (test_engine){
        .model = test_small_model(), .T = T, .tier = "float32", .show = show_masked};
}

START_TEST(masked_scores_may_hold_anything)
{
    test_engine engine = with_scores(MASKED[_i]);
    test_judgement j = test_judge_engine(&engine, false);
    ck_assert_str_eq(test_first_divergence(&j), "");
    for (size_t layer = 0; layer < LAYERS; layer++) {
        const gemma4_tap_result *r = test_result_of(&j, GEMMA4_TAP_ATTN_SCORES, layer);
        ck_assert(r->rows == T && r->rows_left_out == 0);
        ck_assert(isfinite(r->metrics.relative_rms) && isfinite(r->inherited));
    }
    test_judgement_free(&j);
}
END_TEST

START_TEST(a_fault_in_visible_scores_is_found_there_whatever_the_masked_ones_hold)
{
    test_engine engine = with_scores(MASKED[_i]);
    engine.compute = compute_wrong_scores;
    test_judgement j = test_judge_engine(&engine, false);
    ck_assert_str_eq(test_first_divergence(&j), "layers.3.attn.scores");
    ck_assert_uint_eq(j.report.first_divergence->rows, T);
    test_judgement_free(&j);
}
END_TEST

START_TEST(nan_in_a_visible_score_is_found_there_with_its_place)
{
    test_engine engine = with_scores(MASKED[_i]);
    visible_nan = true;
    test_judgement j = test_judge_engine(&engine, true);
    const gemma4_tap_result *r = test_result_of(&j, GEMMA4_TAP_ATTN_SCORES, 3);
    char *json = test_printed(gemma4_report_json, &j.report);
    ck_assert_str_eq(test_first_divergence(&j), "layers.3.attn.scores");
    ck_assert_str_eq(r->problem, "1 value is NaN or infinite, the first at position 7, index 23");
    ck_assert(r->rows == T - 1 && r->rows_left_out == 1);
    ck_assert_ptr_nonnull(strstr(json, "\"position\": 7, \"rows\": 8, \"rows_left_out\": 1"));
    ck_assert_uint_eq(gemma4_cause_count(j.report.diagnosis), 0);
    for (size_t i = 0; i < j.report.tap_count; i++) /* the engine went on with numbers, and so does
                                                       the replay */
        ck_assert(&j.report.taps[i] == r || j.report.taps[i].verdict != GEMMA4_DIVERGES);
    free(json);
    test_judgement_free(&j);
}
END_TEST

/* --- NaN --- */

/* An engine whose attn.out of layer 2 has NaN at positions 5 and 7, and what follows from that. */
static void compute_nan(const test_engine *engine, gemma4_tap_event *event)
{
    (void)engine;
    if (event->tap == GEMMA4_TAP_ATTN_OUT && event->layer == 2)
        event->values[5 * event->dims[0] + 3] = event->values[7 * event->dims[0]] = NAN;
}

static const char *const NAN_DUMPS[][4] = {{NULL},
                                           {"layers.*.attn.out", "layers.*.output", "logits"},
                                           {"layers.*.output", "logits"},
                                           {"logits"}};
static const char *const NAN_FIRST[] = {"layers.2.attn.out", "layers.2.attn.out", "layers.2.output",
                                        "logits"};

START_TEST(nan_is_found_where_it_enters_and_no_cause_is_made_up_for_it)
{
    test_engine engine = {.model = test_small_model(),
                          .T = T,
                          .tier = _i % 2 ? "bfloat16" : "float32",
                          .compute = compute_nan};
    memcpy(engine.taps, NAN_DUMPS[_i / 2], sizeof NAN_DUMPS[0]);
    test_judgement j = test_judge_engine(&engine, true);
    const gemma4_tap_result *first = j.report.first_divergence;
    ck_assert_str_eq(test_first_divergence(&j), NAN_FIRST[_i / 2]);
    ck_assert_int_eq(first->local.kind, GEMMA4_METRIC_NONFINITE_VALUES);
    ck_assert_uint_eq(first->local.position, 5);
    ck_assert_ptr_nonnull(strstr(first->problem, "the first at position 5, index "));
    if (_i < 4)
        ck_assert_str_eq(first->problem,
                         "2 values are NaN or infinite, the first at position 5, index 3");
    ck_assert_uint_ge(first->rows, 5);
    ck_assert_uint_eq(first->rows + first->rows_left_out, T);
    ck_assert_uint_eq(gemma4_cause_count(j.report.diagnosis), 0);
    test_judgement_free(&j);
}
END_TEST

/* The rows without NaN are too large by 30 % in another tap. */
static void compute_nan_and_a_fault(const test_engine *engine, gemma4_tap_event *event)
{
    compute_nan(engine, event);
    for (size_t i = 0;
         event->tap == GEMMA4_TAP_MLP_OUT && event->layer == 2 && i < event->rows * event->dims[0];
         i++)
        event->values[i] *= 1.3f;
}

START_TEST(rows_beside_nan_are_still_judged)
{
    test_engine engine = {
        .model = test_small_model(), .T = T, .tier = "float32", .compute = compute_nan_and_a_fault};
    test_judgement j = test_judge_engine(&engine, true);
    const gemma4_tap_result *r = test_result_of(&j, GEMMA4_TAP_MLP_OUT, 2);
    ck_assert_str_eq(test_first_divergence(&j), "layers.2.attn.out");
    ck_assert_int_eq(r->verdict, GEMMA4_DIVERGES);
    ck_assert(r->rows == T - 2 && r->rows_left_out == 2);
    ck_assert_double_eq_tol(r->added, 0.3, 1e-3); /* of the rows that are numbers */
    ck_assert_uint_eq(gemma4_cause_count(j.report.diagnosis), 1);
    ck_assert_int_eq(gemma4_cause_at(j.report.diagnosis, 0)->tap, GEMMA4_TAP_MLP_OUT);
    test_judgement_free(&j);
}
END_TEST

/* --- a mistake between taps of bridged layers --- */

enum { LONGER = 12 };
static real raw_v[LONGER * 2 * 32];

/* v-norm-missing: what v_norm shows is v itself. */
static void compute_without_v_norm(const test_engine *engine, gemma4_tap_event *event)
{
    size_t n = event->rows * event->dims[0] * event->dims[1];
    (void)engine;
    if (event->tap == GEMMA4_TAP_ATTN_V)
        memcpy(raw_v, event->values, n * sizeof *raw_v);
    if (event->tap == GEMMA4_TAP_ATTN_V_NORM)
        memcpy(event->values, raw_v, n * sizeof *raw_v);
}

/* Probabilities or scores and outputs, of some layers without the output of the one before. */
static const struct {
    const char *taps[4], *but[4], *tier;
} BRIDGED[] = {
    {{"layers.*.attn.probs", "layers.*.output", "logits"}, {NULL}, "float32"},
    {{"layers.*.attn.scores", "layers.*.output", "logits"}, {NULL}, "float32"},
    {{"layers.*.attn.probs", "layers.*.output", "logits"},
     {"layers.0.output", "layers.3.output", "layers.6.output"},
     "float32"},
    {{"layers.*.attn.scores", "layers.*.output", "logits"},
     {"layers.0.output", "layers.3.output", "layers.6.output"},
     "float32"},
    {{"layers.*.attn.probs", "layers.*.output", "logits"},
     {"layers.0.output", "layers.3.output", "layers.6.output"},
     "bfloat16"},
};

START_TEST(v_norm_missing_is_named_from_probabilities_and_outputs_of_some_layers)
{
    test_engine engine = {.model = test_golden_model(),
                          .T = LONGER,
                          .tier = BRIDGED[_i].tier,
                          .compute = compute_without_v_norm};
    memcpy(engine.taps, BRIDGED[_i].taps, sizeof BRIDGED[_i].taps);
    memcpy(engine.but, BRIDGED[_i].but, sizeof BRIDGED[_i].but);
    test_judgement j = test_judge_engine(&engine, true);
    ck_assert(!j.report.conforms);
    ck_assert_uint_ge(gemma4_cause_count(j.report.diagnosis), 1);
    const gemma4_cause *cause = gemma4_cause_at(j.report.diagnosis, 0);
    ck_assert_msg(cause->explained, "not explained: %s", cause->description);
    ck_assert_str_eq(gemma4_counter_model_at(cause->model)->id, "v-norm-missing");
    test_judgement_free(&j);
}
END_TEST

Suite *dumps_suite(void)
{
    Suite *suite = suite_create("dumps");
    TCase *c = tcase_create("dumps");
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, masked_scores_may_hold_anything, 0, COUNT(MASKED));
    tcase_add_loop_test(c, a_fault_in_visible_scores_is_found_there_whatever_the_masked_ones_hold,
                        0, COUNT(MASKED));
    tcase_add_loop_test(c, nan_in_a_visible_score_is_found_there_with_its_place, 0, COUNT(MASKED));
    tcase_add_loop_test(c, nan_is_found_where_it_enters_and_no_cause_is_made_up_for_it, 0,
                        2 * COUNT(NAN_DUMPS));
    tcase_add_test(c, rows_beside_nan_are_still_judged);
    tcase_add_loop_test(c, v_norm_missing_is_named_from_probabilities_and_outputs_of_some_layers, 0,
                        COUNT(BRIDGED));
    suite_add_tcase(suite, c);
    return suite;
}
