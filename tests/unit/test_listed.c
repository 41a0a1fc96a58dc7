/* Log-probabilities of the best tokens in place of logits (tests/check/listed.h), in dumps of
 * simulated engines and in some made by hand. */
#include "causes.h"
#include "counter_model.h"
#include "diagnose.h"
#include "engines.h"
#include "forward.h"
#include "listed.h"
#include "logprobs.h"
#include "model.h"
#include "planted_engine.h"
#include "report.h"
#include "suites.h"
#include "support.h"

#include <math.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* --- ref/logprobs.h --- */

START_TEST(the_best_come_first_and_equals_by_id)
{
    static const gemma4_real logits[6] = {1, 3, NAN, 3, -2, 5};
    int32_t ids[6];
    gemma4_best_logprobs(logits, 6, 4, ids, NULL);
    ck_assert_int_eq(ids[0], 5);
    ck_assert_int_eq(ids[1], 1);
    ck_assert_int_eq(ids[2], 3);
    ck_assert_int_eq(ids[3], 0);
    gemma4_best_logprobs(logits, 6, 6, ids, NULL);
    ck_assert_int_eq(ids[4], 4);
    ck_assert_int_eq(ids[5], 2); /* the NaN */
}
END_TEST

START_TEST(log_probabilities_are_those_of_a_softmax)
{
    static const gemma4_real logits[3] = {1000, 1001, 990};
    gemma4_real values[3];
    int32_t ids[3];
    double sum = 0;
    gemma4_best_logprobs(logits, 3, 3, ids, values);
    for (size_t i = 0; i < 3; i++)
        sum += exp((double)values[i]);
    ck_assert_double_eq_tol(sum, 1, 1e-6);
    ck_assert_double_eq_tol((double)values[0], -log(1 + exp(-1) + exp(-11)), 1e-6);
    ck_assert_double_eq_tol((double)values[1] - (double)values[0], -1, 1e-6);
}
END_TEST

/* --- simulated engines --- */

typedef struct judged {
    gemma4_activations *dump;
    gemma4_report report;
} judged;

static judged judge_simulation(gemma4_simulation *s)
{
    gemma4_error error = {""};
    judged j = {0};
    char *path = test_join(test_fresh_dir(), "dump.h5");
    s->model = test_golden_model();
    s->the_case = gemma4_case_open("tiny-prompt", &error);
    ck_assert_msg(s->the_case && gemma4_simulate(s, path, &error) == 0, "%s", error.message);
    j.dump = gemma4_activations_open(path, &s->model->config, &error);
    ck_assert_msg(j.dump != NULL, "%s", error.message);
    const gemma4_judgement judgement = {.model = s->model, .engine = j.dump, .dtype = s->tier};
    ck_assert_msg(gemma4_judge(&judgement, &j.report, &error) == 0, "%s", error.message);
    gemma4_case_close((gemma4_case *)s->the_case);
    return j;
}

static void free_judged(judged *j)
{
    gemma4_report_free(&j->report);
    gemma4_activations_close(j->dump);
}

static const gemma4_tap_result *result(const gemma4_report *report, gemma4_tap tap)
{
    for (size_t i = 0; i < report->tap_count; i++)
        if (report->taps[i].tap == tap)
            return &report->taps[i];
    ck_abort_msg("the report has no such tap");
}

static const struct {
    const char *tier;
    gemma4_tap_set taps;
    size_t listed;
    gemma4_level level;
} HONEST[] = {
    {"float32", GEMMA4_SET_LOGITS, 1, GEMMA4_LOGITS_LEVEL},
    {"float32", GEMMA4_SET_LOGITS, 20, GEMMA4_LOGITS_LEVEL},
    {"float32", GEMMA4_SET_LAYERS, 5, GEMMA4_LAYERS_LEVEL},
    {"bfloat16", GEMMA4_SET_LOGITS, 5, GEMMA4_LOGITS_LEVEL},
    {"bfloat16", GEMMA4_SET_LAYERS, 20, GEMMA4_LAYERS_LEVEL},
    {"bfloat16", GEMMA4_SET_ALL, 256, GEMMA4_LAYERS_LEVEL},
    {"float16", GEMMA4_SET_LOGITS, 20, GEMMA4_LOGITS_LEVEL},
};

START_TEST(a_right_engine_conforms_by_its_best_tokens)
{
    gemma4_simulation s = {.tier = HONEST[_i].tier,
                           .stochastic = true,
                           .seed = 3,
                           .only_layer = {-1, -1},
                           .taps = HONEST[_i].taps,
                           .logprobs = HONEST[_i].listed};
    judged j = judge_simulation(&s);
    const gemma4_tap_result *first = j.report.first_divergence;
    ck_assert_msg(j.report.conforms, "%s", first ? gemma4_tap_describe(first->tap)->name : "");
    ck_assert_int_eq(j.report.level, HONEST[_i].level);
    ck_assert_int_eq(result(&j.report, GEMMA4_TAP_LOGPROBS_IDS)->verdict, GEMMA4_PASS);
    ck_assert_uint_eq(result(&j.report, GEMMA4_TAP_LOGPROBS_IDS)->rows, j.report.positions);
    ck_assert_msg(strstr(j.report.notes[0], "instead of logits") != NULL, "%s", j.report.notes[0]);
    free_judged(&j);
}
END_TEST

static const struct {
    const char *tier, *cause;
    gemma4_tap_set taps;
} PLANTED[] = {
    {"float32", "softcap-missing", GEMMA4_SET_LOGITS},
    {"float32", "v-norm-missing", GEMMA4_SET_LOGITS},
    {"float32", "softcap-missing", GEMMA4_SET_LAYERS},
    {"float32", "embed-scale-on-tied-head", GEMMA4_SET_LAYERS},
    {"bfloat16", "softcap-missing", GEMMA4_SET_LAYERS},
    {"float32", "rope-pairing-contiguous", GEMMA4_SET_LOGITS},
};

START_TEST(a_mistake_is_named_from_log_probabilities)
{
    gemma4_simulation s = {.tier = PLANTED[_i].tier,
                           .planted = {test_mistake(PLANTED[_i].cause)},
                           .only_layer = {-1, -1},
                           .taps = PLANTED[_i].taps,
                           .logprobs = 20};
    judged j = judge_simulation(&s);
    ck_assert(!j.report.conforms);
    ck_assert_int_eq(j.report.first_divergence->tap, GEMMA4_TAP_LOGPROBS);
    /* which tokens are listed only follows */
    ck_assert_int_eq(result(&j.report, GEMMA4_TAP_LOGPROBS_IDS)->verdict, GEMMA4_NOT_COVERED);
    ck_assert_uint_ge(gemma4_cause_count(j.report.diagnosis), 1);
    const gemma4_cause *cause = gemma4_cause_at(j.report.diagnosis, 0);
    ck_assert_msg(cause->explained && !strcmp(gemma4_cause_model(cause)->id, PLANTED[_i].cause),
                  "%s", gemma4_cause_sentence(cause).text);
    free_judged(&j);
}
END_TEST

/* --- dumps made by hand --- */

enum { T = 8, N = 6, V = 256 };

typedef struct lists {
    size_t ids_count, values_count; /* a position; 0: not in the dump */
    size_t from, rows;              /* positions that are in it; 0 rows: all T */
    int32_t ids[T * N];
    gemma4_real values[T * N], logits[T * V];
} lists;

static int keep_logits(void *context, gemma4_tap_event *event, gemma4_error *error)
{
    lists *l = context;
    (void)error;
    if (event->tap == GEMMA4_TAP_LOGITS)
        memcpy(l->logits + event->row * V, event->values, event->rows * V * sizeof *l->logits);
    return 0;
}

static const int32_t tokens[T] = {2, 42, 79, 116, 153, 190, 227, 8};

/* The right engine's. */
static void compute_lists(lists *l)
{
    gemma4_error error = {""};
    gemma4_session *session = gemma4_session_new(test_golden_model(), 0, T, &error);
    ck_assert_uint_eq(test_golden_model()->config.vocab_size, V);
    ck_assert_msg(session != NULL, "%s", error.message);
    *l = (lists){.ids_count = N, .values_count = N};
    gemma4_session_set_hook(session, keep_logits, l);
    ck_assert_int_eq(gemma4_forward(session, tokens, T, T, NULL, &error), 0);
    gemma4_session_free(session);
    for (size_t t = 0; t < T; t++)
        gemma4_best_logprobs(l->logits + t * V, V, N, l->ids + t * N, l->values + t * N);
}

static void write_lists(lists *l, const char *path)
{
    gemma4_error error = {""};
    const gemma4_config *c = &test_golden_model()->config;
    gemma4_activations_writer *writer =
        gemma4_activations_create(path, c, tokens, T, 0, "float32", &error);
    gemma4_tap_event ids = {.tap = GEMMA4_TAP_LOGPROBS_IDS,
                            .rows = T,
                            .rank = 1,
                            .dims = {l->ids_count, 1},
                            .ids = l->ids},
                     values = ids;
    ck_assert_msg(writer != NULL, "%s", error.message);
    ids.row = l->from;
    ids.rows = l->rows ? l->rows : T;
    values = ids;
    values.tap = GEMMA4_TAP_LOGPROBS;
    values.dims[0] = l->values_count;
    values.ids = NULL;
    values.values = l->values + l->from * N;
    ids.ids = l->ids + l->from * N;
    ck_assert(!l->ids_count || gemma4_activations_write(writer, &ids, &error) == 0);
    ck_assert(!l->values_count || gemma4_activations_write(writer, &values, &error) == 0);
    ck_assert_msg(gemma4_activations_commit(writer, &error) == 0, "%s", error.message);
}

static judged judge_lists(lists *l)
{
    gemma4_error error = {""};
    judged j = {0};
    char *path = test_join(test_fresh_dir(), "lists.h5");
    write_lists(l, path);
    j.dump = gemma4_activations_open(path, &test_golden_model()->config, &error);
    ck_assert_msg(j.dump != NULL, "%s", error.message);
    const gemma4_judgement judgement = {
        .model = test_golden_model(), .engine = j.dump, .dtype = "float32"};
    ck_assert_msg(gemma4_judge(&judgement, &j.report, &error) == 0, "%s", error.message);
    return j;
}

static void as_computed(lists *l)
{
    (void)l;
}

static void other_order(lists *l)
{
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < N / 2; i++) {
            size_t a = t * N + i, b = t * N + N - 1 - i;
            int32_t id = l->ids[a];
            gemma4_real value = l->values[a];
            l->ids[a] = l->ids[b];
            l->values[a] = l->values[b];
            l->ids[b] = id;
            l->values[b] = value;
        }
}

static void last_position_only(lists *l)
{
    l->from = T - 1;
    l->rows = 1;
}

static void one_value_off(lists *l)
{
    l->values[3 * N + 2] += 0.01f;
}

static void to_base_10(lists *l)
{
    for (size_t i = 0; i < T * N; i++)
        l->values[i] *= 0.4342945f;
}

static void to_logits(lists *l)
{
    for (size_t i = 0; i < T * N; i++)
        l->values[i] = l->logits[i / N * V + (size_t)l->ids[i]];
}

/* The best is left out at position 5, what follows moves up; the values are those of the tokens
 * that are listed. */
static void best_left_out(lists *l)
{
    int32_t ids[N + 1];
    gemma4_real values[N + 1];
    gemma4_best_logprobs(l->logits + 5 * V, V, N + 1, ids, values);
    memcpy(l->ids + 5 * N, ids + 1, N * sizeof *ids);
    memcpy(l->values + 5 * N, values + 1, N * sizeof *values);
}

static void twice(lists *l)
{
    l->ids[2 * N + 1] = l->ids[2 * N];
    l->values[2 * N + 1] = l->values[2 * N];
}

static void beyond_the_vocabulary(lists *l)
{
    l->ids[4 * N + 5] = V;
}
static void below_the_vocabulary(lists *l)
{
    l->ids[N] = -1;
}
static void placeholder(lists *l)
{
    l->values[6 * N + 5] = -9999;
}
static void infinite(lists *l)
{
    l->values[6 * N + 5] = -INFINITY;
}
static void ids_only(lists *l)
{
    l->values_count = 0;
}
static void values_only(lists *l)
{
    l->ids_count = 0;
}

static void fewer_values(lists *l)
{
    l->values_count = N - 1;
}

static const struct {
    void (*edit)(lists *l);
    bool conforms;
    gemma4_level level;
    gemma4_tap first; /* that diverges */
    const char *said; /* in its problem, or in the first cause's words */
} EDITS[] = {
    {as_computed, true, GEMMA4_LOGITS_LEVEL, GEMMA4_TAP_COUNT, ""},
    {other_order, true, GEMMA4_LOGITS_LEVEL, GEMMA4_TAP_COUNT, ""},
    {last_position_only, true, GEMMA4_LOGITS_LEVEL, GEMMA4_TAP_COUNT, ""},
    {ids_only, true, GEMMA4_PARTIAL, GEMMA4_TAP_COUNT, ""},
    {one_value_off, false, GEMMA4_LOGITS_LEVEL, GEMMA4_TAP_LOGPROBS, "only in positions 3"},
    {to_base_10, false, GEMMA4_LOGITS_LEVEL, GEMMA4_TAP_LOGPROBS, "times a constant, 0.434"},
    {to_logits, false, GEMMA4_LOGITS_LEVEL, GEMMA4_TAP_LOGPROBS, "above 0, first at position 0"},
    {placeholder, false, GEMMA4_LOGITS_LEVEL, GEMMA4_TAP_LOGPROBS,
     "1 value is a placeholder (-9999 or less), no log-probability, first at position 6"},
    {infinite, false, GEMMA4_LOGITS_LEVEL, GEMMA4_TAP_LOGPROBS,
     "NaN or infinite, the first at position 6, index 5"},
    {best_left_out, false, GEMMA4_LOGITS_LEVEL, GEMMA4_TAP_LOGPROBS_IDS,
     "a token that is clearly more likely is missing, first at position 5"},
    {twice, false, GEMMA4_LOGITS_LEVEL, GEMMA4_TAP_LOGPROBS_IDS,
     "listed twice or is none of 0 ... 255, first at position 2"},
    {beyond_the_vocabulary, false, GEMMA4_LOGITS_LEVEL, GEMMA4_TAP_LOGPROBS_IDS,
     "first at position 4"},
    {below_the_vocabulary, false, GEMMA4_LOGITS_LEVEL, GEMMA4_TAP_LOGPROBS_IDS,
     "first at position 1"},
    {values_only, false, GEMMA4_LOGITS_LEVEL, GEMMA4_TAP_LOGPROBS,
     "expected logprobs.ids beside it"},
    {fewer_values, false, GEMMA4_LOGITS_LEVEL, GEMMA4_TAP_LOGPROBS,
     "expected 6 a position like logprobs.ids, found 5"},
};

START_TEST(what_is_listed_is_judged)
{
    static lists l;
    compute_lists(&l);
    EDITS[_i].edit(&l);
    judged j = judge_lists(&l);
    const gemma4_tap_result *first = j.report.first_divergence;
    const gemma4_cause *cause =
        gemma4_cause_count(j.report.diagnosis) ? gemma4_cause_at(j.report.diagnosis, 0) : NULL;
    ck_assert_msg(j.report.conforms == EDITS[_i].conforms, "%d: %s", _i,
                  first ? first->problem : "conforms");
    ck_assert_int_eq(first ? first->tap : GEMMA4_TAP_COUNT, EDITS[_i].first);
    ck_assert_int_eq(j.report.level, EDITS[_i].level);
    ck_assert_msg(!first || strstr(first->problem, EDITS[_i].said) ||
                      (cause && strstr(gemma4_cause_sentence(cause).text, EDITS[_i].said)),
                  "%d: \"%s\" is neither in \"%s\" nor in \"%s\"", _i, EDITS[_i].said,
                  first->problem, cause ? gemma4_cause_sentence(cause).text : "");
    free_judged(&j);
}
END_TEST

/* With the engine's own logits in the dump, its lists must follow from these. */
START_TEST(lists_follow_from_the_engine_s_own_logits)
{
    static lists l;
    gemma4_error error = {""};
    char *path = test_join(test_fresh_dir(), "both.h5");
    compute_lists(&l);
    const gemma4_config *c = &test_golden_model()->config;
    gemma4_activations_writer *writer =
        gemma4_activations_create(path, c, tokens, T, 0, "float32", &error);
    for (size_t i = 0; i < T * V; i++)
        l.logits[i] *= 1.5f;
    for (size_t t = 0; t < T; t++)
        gemma4_best_logprobs(l.logits + t * V, V, N, l.ids + t * N, l.values + t * N);
    const gemma4_tap_event events[] = {
        {.tap = GEMMA4_TAP_LOGITS, .rows = T, .rank = 1, .dims = {V, 1}, .values = l.logits},
        {.tap = GEMMA4_TAP_LOGPROBS_IDS, .rows = T, .rank = 1, .dims = {N, 1}, .ids = l.ids},
        {.tap = GEMMA4_TAP_LOGPROBS, .rows = T, .rank = 1, .dims = {N, 1}, .values = l.values}};
    for (size_t i = 0; i < COUNT(events); i++)
        ck_assert_msg(gemma4_activations_write(writer, &events[i], &error) == 0, "%s",
                      error.message);
    ck_assert_int_eq(gemma4_activations_commit(writer, &error), 0);
    judged j = {.dump = gemma4_activations_open(path, c, &error)};
    const gemma4_judgement judgement = {
        .model = test_golden_model(), .engine = j.dump, .dtype = "float32", .without_causes = true};
    ck_assert_int_eq(gemma4_judge(&judgement, &j.report, &error), 0);
    ck_assert_int_eq(result(&j.report, GEMMA4_TAP_LOGITS)->verdict, GEMMA4_DIVERGES);
    ck_assert_int_eq(result(&j.report, GEMMA4_TAP_LOGPROBS_IDS)->verdict, GEMMA4_PASS);
    ck_assert_int_eq(result(&j.report, GEMMA4_TAP_LOGPROBS)->verdict, GEMMA4_PASS);
    free_judged(&j);
}
END_TEST

Suite *listed_suite(void)
{
    Suite *suite = suite_create("listed");
    TCase *functions = tcase_create("functions");
    tcase_add_test(functions, the_best_come_first_and_equals_by_id);
    tcase_add_test(functions, log_probabilities_are_those_of_a_softmax);
    suite_add_tcase(suite, functions);
    TCase *engines = tcase_create("engines");
    tcase_set_timeout(engines, 120);
    tcase_add_loop_test(engines, a_right_engine_conforms_by_its_best_tokens, 0, COUNT(HONEST));
    tcase_add_loop_test(engines, a_mistake_is_named_from_log_probabilities, 0, COUNT(PLANTED));
    suite_add_tcase(suite, engines);
    TCase *hand = tcase_create("by hand");
    tcase_set_timeout(hand, 120);
    tcase_add_loop_test(hand, what_is_listed_is_judged, 0, COUNT(EDITS));
    tcase_add_test(hand, lists_follow_from_the_engine_s_own_logits);
    suite_add_tcase(suite, hand);
    return suite;
}
