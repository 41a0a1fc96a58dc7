/* The head of a long dump with a large vocabulary is judged in parts of rows (tests/check/judge.c):
 * here parts are made small, and say what the whole says. */
#include "activations.h"
#include "causes.h"
#include "counter_model.h"
#include "diagnose.h"
#include "engines.h"
#include "forward.h"
#include "judge.h"
#include "planted_engine.h"
#include "reference_run.h"
#include "suites.h"
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

enum { ROWS = 5 }; /* 12 positions are three parts */

static gemma4_case *the_case;
static gemma4_model *model;
static gemma4_activations *golden;

static void set_up(void)
{
    gemma4_error error = {""};
    the_case = gemma4_case_open("tiny-prompt", &error);
    ck_assert_msg(the_case && gemma4_case_provide_checkpoint(the_case, &error) == 0, "%s",
                  error.message);
    model = gemma4_model_open(the_case->checkpoint_dir, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    golden = gemma4_activations_open(the_case->golden_path, &model->config, &error);
    ck_assert_msg(golden != NULL, "%s", error.message);
}

static void tear_down(void)
{
    gemma4_activations_close(golden);
    gemma4_model_close(model);
    gemma4_case_close(the_case);
}

typedef struct judged {
    gemma4_activations *engine;
    gemma4_report report;
} judged;

/* rows: of a part; 0: the whole at once. */
static judged judge(const char *path, const char *tier, bool by_golden, size_t rows)
{
    judged j = {0};
    gemma4_error error = {""};
    j.engine = gemma4_activations_open(path, &model->config, &error);
    ck_assert_msg(j.engine != NULL, "%s", error.message);
    const gemma4_judgement judgement = {.the_case = by_golden ? the_case : NULL,
                                        .model = model,
                                        .engine = j.engine,
                                        .golden = by_golden ? golden : NULL,
                                        .dtype = tier,
                                        .part_values = rows * model->config.vocab_size};
    ck_assert_msg(gemma4_judge(&judgement, &j.report, &error) == 0, "%s", error.message);
    return j;
}

static void release(judged *j)
{
    gemma4_report_free(&j->report);
    gemma4_activations_close(j->engine);
}

static char *simulate(const char *tier, const char *cause, gemma4_tap_set taps, size_t logprobs)
{
    gemma4_error error = {""};
    char *path = test_join(test_fresh_dir(), "dump.h5");
    const gemma4_simulation s = {.the_case = the_case,
                                 .model = model,
                                 .tier = tier,
                                 .stochastic = true,
                                 .seed = 5,
                                 .planted = {test_mistake(cause)},
                                 .only_layer = {-1, -1},
                                 .taps = taps,
                                 .logprobs = logprobs};
    ck_assert_msg(gemma4_simulate(&s, path, &error) == 0, "%s", error.message);
    return path;
}

/* All but the numbers in units of the spread, for which the perturbed runs are drawn anew. */
static void assert_same_tap(const gemma4_tap_result *a, const gemma4_tap_result *b)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    gemma4_tap_name(a->tap, a->layer, name);
    bool passes = a->verdict == GEMMA4_PASS || a->verdict == GEMMA4_MARGINAL;
    ck_assert_msg(a->verdict == b->verdict ||
                      (passes && (b->verdict == GEMMA4_PASS || b->verdict == GEMMA4_MARGINAL)),
                  "%s: %d and %d", name, a->verdict, b->verdict);
    ck_assert_msg(a->rows == b->rows && a->rows_left_out == b->rows_left_out, "%s", name);
    ck_assert_msg(a->metrics.relative_rms == b->metrics.relative_rms &&
                      a->metrics.position_rms == b->metrics.position_rms &&
                      a->metrics.position == b->metrics.position &&
                      a->metrics.cosine == b->metrics.cosine,
                  "%s", name);
    ck_assert_msg(a->worst_position == b->worst_position && a->worst_index == b->worst_index &&
                      a->worst_engine == b->worst_engine,
                  "%s", name);
    ck_assert_msg(a->reference_agreement == b->reference_agreement ||
                      b->reference_agreement > a->reference_agreement,
                  "%s", name);
    ck_assert_msg(fabs(a->added - b->added) <= 1e-6 * fabs(a->added), "%s: %g and %g", name,
                  a->added, b->added);
    ck_assert_msg(a->inherited == b->inherited ||
                      fabs(a->inherited - b->inherited) <= 1e-12 * a->inherited ||
                      (isnan(a->inherited) && isnan(b->inherited)),
                  "%s: %g and %g", name, a->inherited, b->inherited);
}

static void assert_same(const judged *a, const judged *b)
{
    const gemma4_tap_result *first = a->report.first_divergence;
    ck_assert_int_eq(a->report.conforms, b->report.conforms);
    ck_assert_int_eq(a->report.level, b->report.level);
    ck_assert_uint_eq(a->report.golden_taps, b->report.golden_taps);
    ck_assert(!first || (first->tap == b->report.first_divergence->tap &&
                         first->layer == b->report.first_divergence->layer));
    ck_assert_uint_eq(a->report.tap_count, b->report.tap_count);
    for (size_t i = 0; i < a->report.tap_count; i++)
        assert_same_tap(&a->report.taps[i], &b->report.taps[i]);
}

static const struct {
    const char *tier;
    gemma4_tap_set taps;
    size_t logprobs;
    const char *cause; /* NULL: a right engine */
} ENGINES[] = {
    {"float32", GEMMA4_SET_ALL, 0, NULL},
    {"bfloat16", GEMMA4_SET_ALL, 0, NULL},
    {"float32", GEMMA4_SET_LAYERS, 0, NULL},
    {"bfloat16", GEMMA4_SET_LOGITS, 0, NULL},
    {"float32", GEMMA4_SET_LOGITS, 20, NULL},
    {"float32", GEMMA4_SET_ALL, 0, "softcap-missing"},
    {"bfloat16", GEMMA4_SET_ALL, 0, "final-norm-missing"},
    {"float32", GEMMA4_SET_LAYERS, 0, "embed-scale-on-tied-head"},
    {"bfloat16", GEMMA4_SET_LAYERS, 0, "softcap-50"},
    {"float32", GEMMA4_SET_LOGITS, 0, "softcap-missing"},
    {"float32", GEMMA4_SET_LOGITS, 0, "rope-pairing-contiguous"}, /* of a bridged layer */
    {"float32", GEMMA4_SET_LAYERS, 0, "rope-pairing-contiguous"},
    {"float32", GEMMA4_SET_LOGITS, 20, "v-norm-missing"},
};

START_TEST(parts_say_what_the_whole_says)
{
    char *path =
        simulate(ENGINES[_i].tier, ENGINES[_i].cause, ENGINES[_i].taps, ENGINES[_i].logprobs);
    for (int by_golden = 0; by_golden < 2; by_golden++) {
        judged whole = judge(path, ENGINES[_i].tier, by_golden, 0),
               parts = judge(path, ENGINES[_i].tier, by_golden, ROWS);
        ck_assert_int_eq(whole.report.conforms, ENGINES[_i].cause == NULL);
        assert_same(&whole, &parts);
        for (size_t k = 0; k < 2 && ENGINES[_i].cause; k++) {
            const gemma4_diagnosis *d = k ? parts.report.diagnosis : whole.report.diagnosis;
            ck_assert_uint_ge(gemma4_cause_count(d), 1);
            const gemma4_cause *cause = gemma4_cause_at(d, 0);
            ck_assert_msg(cause->explained &&
                              !strcmp(gemma4_cause_model(cause)->id, ENGINES[_i].cause),
                          "%s: %s", k ? "parts" : "whole", gemma4_cause_sentence(cause).text);
        }
        release(&whole);
        release(&parts);
    }
}
END_TEST

/* Nothing of an engine: the reference's own head. */
START_TEST(the_reference_agrees_with_the_golden_in_parts)
{
    gemma4_report whole, parts;
    gemma4_error error = {""};
    gemma4_judgement j = {.the_case = the_case,
                          .model = model,
                          .engine = golden,
                          .golden = golden,
                          .dtype = "float32",
                          .reference_only = true};
    ck_assert_msg(gemma4_judge(&j, &whole, &error) == 0, "%s", error.message);
    j.part_values = ROWS * model->config.vocab_size;
    ck_assert_msg(gemma4_judge(&j, &parts, &error) == 0, "%s", error.message);
    ck_assert_uint_gt(whole.golden_taps, 0);
    ck_assert_uint_eq(whole.golden_taps, parts.golden_taps);
    for (size_t i = 0; i < whole.tap_count; i++) {
        ck_assert(parts.taps[i].reference_agreement <= GEMMA4_REFERENCE_AGREEMENT);
        ck_assert((whole.taps[i].reference_agreement > 0) ==
                  (parts.taps[i].reference_agreement > 0));
    }
    gemma4_report_free(&whole);
    gemma4_report_free(&parts);
}
END_TEST

/* --- positions are those of the dump --- */

typedef struct wrong_row {
    size_t row;
    gemma4_real factor;
    gemma4_activations_writer *writer;
    const char *only; /* of the taps; NULL: all */
} wrong_row;

static int dump_wrong_row(void *context, gemma4_tap_event *e, gemma4_error *error)
{
    const wrong_row *w = context;
    size_t V = model->config.vocab_size;
    for (size_t i = w->row * V; e->tap == GEMMA4_TAP_LOGITS && i < (w->row + 1) * V; i++)
        e->values[i] *= w->factor;
    return !w->only || !strcmp(gemma4_tap_describe(e->tap)->name, w->only)
               ? gemma4_activations_write(w->writer, e, error)
               : 0;
}

static char *dump_with_wrong_row(size_t row, gemma4_real factor, const char *only)
{
    gemma4_error error = {""};
    char *path = test_join(test_fresh_dir(), "dump.h5");
    size_t T = the_case->token_count;
    wrong_row w = {
        row, factor,
        gemma4_activations_create(path, &model->config, the_case->tokens, T, 0, "float32", &error),
        only};
    gemma4_session *session = gemma4_session_new(model, 0, T, &error);
    ck_assert_msg(w.writer && session, "%s", error.message);
    gemma4_session_set_hook(session, dump_wrong_row, &w);
    ck_assert_msg(gemma4_forward(session, the_case->tokens, T, T, NULL, &error) == 0 &&
                      gemma4_activations_commit(w.writer, &error) == 0,
                  "%s", error.message);
    gemma4_session_free(session);
    return path;
}

static const gemma4_tap_result *logits_of(const judged *j)
{
    size_t i = 0;
    while (j->report.taps[i].tap != GEMMA4_TAP_LOGITS)
        i++;
    return &j->report.taps[i];
}

START_TEST(one_wrong_position_is_said_wherever_it_is)
{
    const size_t row = (size_t)_i;
    judged j = judge(dump_with_wrong_row(row, 1.01f, NULL), "float32", false, ROWS);
    const gemma4_tap_result *r = logits_of(&j);
    ck_assert_int_eq(r->verdict, GEMMA4_DIVERGES);
    ck_assert_uint_eq(r->local.position, row);
    ck_assert_uint_eq(r->worst_position, row);
    ck_assert_uint_eq(r->rows, the_case->token_count);
    ck_assert_uint_ge(gemma4_finding_count(j.report.diagnosis), 1);
    release(&j);
}
END_TEST

START_TEST(what_is_not_finite_is_counted_in_all_parts)
{
    gemma4_error error = {""};
    char *path = dump_with_wrong_row(7, NAN, NULL), text[80];
    judged j = judge(path, "float32", false, ROWS);
    ck_assert_uint_eq(logits_of(&j)->local.position, 7);
    ck_assert_double_eq(logits_of(&j)->local.error, (double)model->config.vocab_size);
    ck_assert_uint_eq(logits_of(&j)->rows_left_out, 1);
    release(&j);
    /* in two parts */
    gemma4_real *logits = malloc(the_case->token_count * model->config.vocab_size * sizeof *logits);
    gemma4_session *session = gemma4_session_new(model, 0, the_case->token_count, &error);
    size_t T = the_case->token_count, V = model->config.vocab_size;
    ck_assert(logits && session &&
              gemma4_forward(session, the_case->tokens, T, T, logits, &error) == 0);
    logits[1 * V + 4] = logits[2 * V + 9] = logits[11 * V] = INFINITY;
    path = test_join(test_fresh_dir(), "dump.h5");
    gemma4_activations_writer *writer =
        gemma4_activations_create(path, &model->config, the_case->tokens, T, 0, "float32", &error);
    gemma4_tap_event event = {
        .tap = GEMMA4_TAP_LOGITS, .rows = T, .rank = 1, .values = logits, .dims = {V, 1}};
    ck_assert_msg(writer && gemma4_activations_write(writer, &event, &error) == 0 &&
                      gemma4_activations_commit(writer, &error) == 0,
                  "%s", error.message);
    j = judge(path, "float32", false, ROWS);
    ck_assert_double_eq(logits_of(&j)->local.error, 3);
    snprintf(text, sizeof text, "%s",
             "2 values are NaN or infinite, the first at position 1, index 4; 3 in all");
    ck_assert_str_eq(logits_of(&j)->problem, text);
    ck_assert_uint_eq(logits_of(&j)->rows, T - 3);
    release(&j);
    gemma4_session_free(session);
    free(logits);
}
END_TEST

/* From logits alone causes are looked for in the beginning, and it is said where nothing fails
 * there. */
START_TEST(a_failure_behind_the_beginning_is_said_to_be_without_a_cause)
{
    judged j = judge(dump_with_wrong_row(8, 1.01f, "logits"), "float32", false, ROWS);
    ck_assert_int_eq(logits_of(&j)->verdict, GEMMA4_DIVERGES);
    ck_assert_uint_eq(gemma4_cause_count(j.report.diagnosis), 0);
    ck_assert_uint_eq(j.report.warning_count, 1);
    ck_assert_msg(strstr(j.report.warnings[0], "first 5 positions only") != NULL, "%s",
                  j.report.warnings[0]);
    release(&j);
    j = judge(dump_with_wrong_row(4, 1.01f, "logits"), "float32", false, ROWS);
    ck_assert_uint_eq(gemma4_cause_count(j.report.diagnosis), 1);
    ck_assert_uint_eq(j.report.warning_count, 0);
    release(&j);
}
END_TEST

Suite *head_parts_suite(void)
{
    Suite *s = suite_create("head_parts");
    TCase *c = tcase_create("head_parts");
    tcase_add_unchecked_fixture(c, set_up, tear_down);
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, parts_say_what_the_whole_says, 0, COUNT(ENGINES));
    tcase_add_test(c, the_reference_agrees_with_the_golden_in_parts);
    tcase_add_loop_test(c, one_wrong_position_is_said_wherever_it_is, 3, 12);
    tcase_add_test(c, what_is_not_finite_is_counted_in_all_parts);
    tcase_add_test(c, a_failure_behind_the_beginning_is_said_to_be_without_a_cause);
    suite_add_tcase(s, c);
    return s;
}
