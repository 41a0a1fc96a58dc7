/* The simulated engine, one judgement of it, the matrix's counts (tests/check/selftest.h), and the
 * times (tests/check/times.h). */
#include "activations.h"
#include "counter_model.h"
#include "model.h"
#include "noise.h"
#include "selftest.h"
#include "suites.h"
#include "support.h"
#include "synth.h"
#include "times.h"
#include "workers.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

static gemma4_case *one_token, *prompt;
static gemma4_model *model;

static gemma4_case *open_case(const char *id)
{
    gemma4_error error = {""};
    gemma4_case *c = gemma4_case_open(id, &error);
    ck_assert_msg(c && gemma4_case_provide_checkpoint(c, &error) == 0, "%s", error.message);
    return c;
}

static void set_up(void)
{
    gemma4_error error = {""};
    one_token = open_case("tiny-one-token");
    prompt = open_case("tiny-window-minus-one"); /* the same checkpoint */
    ck_assert_str_eq(one_token->checkpoint_name, prompt->checkpoint_name);
    model = gemma4_model_open(one_token->checkpoint_dir, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
}

static void tear_down(void)
{
    gemma4_model_close(model);
    gemma4_case_close(one_token);
    gemma4_case_close(prompt);
}

static const gemma4_counter_model *cause(const char *id)
{
    for (size_t i = 0; i < gemma4_counter_model_count(); i++)
        if (!strcmp(gemma4_counter_model_at(i)->id, id))
            return gemma4_counter_model_at(i);
    ck_abort_msg("no counter-model is called %s", id);
    return NULL;
}

static gemma4_simulation simulation(const char *id, int layer, const char *tier,
                                    gemma4_tap_set taps)
{
    return (gemma4_simulation){.the_case = one_token,
                               .model = model,
                               .tier = tier,
                               .stochastic = id == NULL,
                               .seed = 1,
                               .planted = {id ? cause(id) : NULL},
                               .only_layer = {layer, -1},
                               .taps = taps};
}

static gemma4_trial try(const gemma4_simulation *s, const double *honest, bool without_causes)
{
    gemma4_error error = {""};
    gemma4_trial trial;
    ck_assert_msg(gemma4_trial_run(s, honest, without_causes, test_fresh_dir(), &trial, &error) ==
                      0,
                  "%s", error.message);
    ck_assert(trial.judged);
    return trial;
}

/* --- the simulated engine --- */

static void assert_representable(const char *tier, float value)
{
    int exponent;
    frexpf(value, &exponent);
    float scaled = ldexpf(value, (!strcmp(tier, "bfloat16") ? 8 : 11) - exponent);
    ASSERT_EACH(scaled == rintf(scaled), "%s: %.9g", tier, (double)value);
}

static const char *const NARROW[] = {"bfloat16", "float16"};

START_TEST(every_tap_is_rounded_to_the_tier)
{
    gemma4_error error = {""};
    gemma4_simulation s = simulation(NULL, -1, NARROW[_i], GEMMA4_SET_ALL);
    char *path = test_join(test_fresh_dir(), "dump.h5");
    ck_assert_msg(gemma4_simulate(&s, path, &error) == 0, "%s", error.message);
    gemma4_activations *file = gemma4_activations_open(path, &model->config, &error);
    ck_assert_msg(file != NULL, "%s", error.message);
    ck_assert_str_eq(gemma4_activations_attribute(file, "engine"), "simulated");
    ck_assert_str_eq(gemma4_activations_attribute(file, "dtype"), NARROW[_i]);
    ck_assert_str_eq(gemma4_activations_attribute(file, "schedule"), "1");
    for (size_t i = 0; i < gemma4_activations_count(file); i++) {
        const gemma4_activation *a = gemma4_activations_at(file, i);
        static float values[4096];
        size_t width = 1;
        for (size_t k = 1; k < a->rank; k++)
            width *= a->shape[k];
        ck_assert(a->usable && width <= COUNT(values));
        if (gemma4_tap_describe(a->tap)->ids)
            continue;
        ck_assert_int_eq(gemma4_activations_read(file, a, 0, 1, values, &error), 0);
        for (size_t k = 0; k < width; k++)
            assert_representable(NARROW[_i], values[k]);
    }
    gemma4_activations_close(file);
}
END_TEST

START_TEST(an_unknown_tier_is_refused)
{
    gemma4_error error = {""};
    gemma4_simulation s = simulation(NULL, -1, "q8_0", GEMMA4_SET_LOGITS);
    char *path = test_join(test_fresh_dir(), "dump.h5");
    ck_assert_int_eq(gemma4_simulate(&s, path, &error), -1);
    assert_message_contains(&error, "expected float32, bfloat16 or float16, found 'q8_0'");
    ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

/* --- judgements --- */

static const char *const TIERS[] = {"float32", "bfloat16", "float16"};

START_TEST(an_honest_engine_raises_no_alarm)
{
    gemma4_simulation s = simulation(NULL, -1, TIERS[_i], GEMMA4_SET_ALL);
    gemma4_trial trial = try(&s, NULL, true);
    ck_assert(!trial.detected);
    ck_assert_str_eq(trial.name, "");
    ck_assert(trial.worst[GEMMA4_TAP_MLP_OUT] > 0 && trial.worst[GEMMA4_TAP_MLP_OUT] < 1);
    ck_assert(trial.worst[GEMMA4_TAP_LAYER_INPUT] == 0);
}
END_TEST

static const struct {
    const char *id;
    int layer;
    const char *tier;
    gemma4_tap_set taps;
    gemma4_tap tap;
    size_t expected_layer;
} PLANTED[] = {
    {"v-norm-missing", -1, "float32", GEMMA4_SET_ALL, GEMMA4_TAP_ATTN_V_NORM, 0},
    {"v-norm-missing", 7, "bfloat16", GEMMA4_SET_ALL, GEMMA4_TAP_ATTN_V_NORM, 7},
    {"layer-scalar-dropped", 4, "float32", GEMMA4_SET_LAYERS, GEMMA4_TAP_LAYER_OUTPUT, 4},
    {"softcap-missing", -1, "float32", GEMMA4_SET_LAYERS, GEMMA4_TAP_LOGITS, 0},
    {"embed-scale-missing", -1, "float32", GEMMA4_SET_LAYERS, GEMMA4_TAP_LAYER_OUTPUT, 0},
};

START_TEST(a_planted_mistake_is_detected_where_it_enters)
{
    gemma4_simulation s =
        simulation(PLANTED[_i].id, PLANTED[_i].layer, PLANTED[_i].tier, PLANTED[_i].taps);
    gemma4_trial trial = try(&s, NULL, true);
    ck_assert(trial.detected && trial.visible && trial.first_right);
    ck_assert_int_eq(trial.expected_tap, PLANTED[_i].tap);
    ck_assert_uint_eq(trial.expected_layer, PLANTED[_i].expected_layer);
    ck_assert(trial.effect > 1);
    ck_assert_str_eq(trial.name, ""); /* no causes were looked for */
}
END_TEST

START_TEST(a_planted_mistake_is_named)
{
    gemma4_simulation s = simulation("layer-scalar-dropped", 4, "float32", GEMMA4_SET_ALL);
    gemma4_trial trial = try(&s, NULL, false);
    ck_assert(trial.detected && trial.named && !trial.wrong_name);
    ck_assert_str_eq(trial.name, "layer-scalar-dropped");
}
END_TEST

/* Mistakes of one code path: in the only chunk of a prompt nothing is decoded. A step of rows, and
 * one of keys. */
START_TEST(a_mistake_may_be_in_one_path_only)
{
    static const char *const ids[] = {"v-norm-missing", "attn-scale-inv-sqrt-d"};
    static int32_t chunks[] = {13, 1, 1};
    gemma4_case decoded = *prompt;
    decoded.schedule = chunks;
    decoded.schedule_count = COUNT(chunks);
    gemma4_simulation s = simulation(ids[_i], -1, "float32", GEMMA4_SET_ALL);
    s.scope = GEMMA4_DECODE_ONLY;
    s.the_case = prompt;
    ck_assert(!try(&s, NULL, true).detected);
    s.the_case = &decoded;
    gemma4_trial trial = try(&s, NULL, false);
    ck_assert(trial.detected && trial.named && !trial.wrong_name && trial.causes == 1);
}
END_TEST

START_TEST(two_mistakes_are_listed_each)
{
    gemma4_simulation s = simulation("v-norm-missing", -1, "float32", GEMMA4_SET_ALL);
    gemma4_trial one = try(&s, NULL, false);
    s.planted[1] = cause("layer-scalar-dropped");
    gemma4_trial both = try(&s, NULL, false);
    ck_assert(one.listed[0] && !one.listed[1] && one.causes == 1);
    ck_assert(both.listed[0] && both.listed[1] && both.causes == 2);
    ck_assert(both.seconds > 0);
}
END_TEST

/* Below the bound, rounding is not mistaken for a second mistake: these engines' roundings are just
 * what another model predicts (attention that does not round its scores; V from a K that k_norm
 * left as it was). */
START_TEST(rounding_is_no_second_mistake)
{
    static const char *const ids[] = {"kv-grouping-modulo", "rmsnorm-weight-missing"};
    gemma4_simulation s = simulation(ids[_i], -1, "bfloat16", GEMMA4_SET_ALL);
    s.the_case = prompt;
    gemma4_trial trial = try(&s, NULL, false);
    ck_assert(trial.detected && trial.named && !trial.wrong_name);
    ck_assert_str_eq(trial.name, ids[_i]);
}
END_TEST

/* RoPE does nothing at position 0, and the honest maximum decides what is called visible. */
START_TEST(what_cannot_show_is_invisible)
{
    double honest[GEMMA4_TAP_COUNT];
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        honest[tap] = 0.4;
    gemma4_simulation s = simulation("rope-missing", -1, "float32", GEMMA4_SET_ALL);
    gemma4_trial trial = try(&s, honest, true);
    ck_assert(!trial.detected && !trial.visible);
    ck_assert(trial.effect < 0.8 && trial.visible_from == 0.8);
    s.the_case = prompt;
    trial = try(&s, honest, true);
    ck_assert(trial.detected && trial.visible && trial.first_right && trial.effect > 0.8);
}
END_TEST

START_TEST(roundings_of_a_tier_are_permitted)
{
    ck_assert(gemma4_counter_model_is_permitted(cause("rmsnorm-downcast-before-weight"),
                                                gemma4_tier_of("bfloat16")->unit));
    ck_assert(!gemma4_counter_model_is_permitted(cause("rmsnorm-downcast-before-weight"),
                                                 gemma4_tier_of("float16")->unit));
    ck_assert(!gemma4_counter_model_is_permitted(cause("softcap-missing"),
                                                 gemma4_tier_of("bfloat16")->unit));
}
END_TEST

/* --- counts --- */

START_TEST(rates_count_the_visible_ones)
{
    gemma4_matrix_row rows[4] = {
        {.done = true,
         .trials = {{.judged = true,
                     .visible = true,
                     .detected = true,
                     .first_right = true,
                     .named = true}}},
        {.done = true,
         .trials = {{.judged = true, .visible = true, .detected = true, .wrong_name = true}}},
        {.done = true, .trials = {{.judged = true}}},
        {.done = true, .permitted = {true}},
    };
    gemma4_matrix matrix = {.rows_count = 4, .rows = rows, .asked = {true}};
    gemma4_matrix_rates r = gemma4_matrix_rates_of(&matrix, 0);
    ck_assert_uint_eq(r.judged, 3);
    ck_assert_uint_eq(r.visible, 2);
    ck_assert_uint_eq(r.detected, 2);
    ck_assert_uint_eq(r.first, 1);
    ck_assert_uint_eq(r.named, 1);
    ck_assert_uint_eq(r.wrong, 1);
    ck_assert_uint_eq(r.invisible, 1);
    ck_assert_uint_eq(r.permitted, 1);
    ck_assert(!r.reached);
    matrix.rows_count = 1;
    ck_assert(gemma4_matrix_rates_of(&matrix, 0).reached);
}
END_TEST

START_TEST(the_page_lists_what_was_missed)
{
    gemma4_matrix_row rows[2] = {
        {.done = true,
         .trials = {{.judged = true,
                     .visible = true,
                     .effect = 0.7,
                     .expected_tap = GEMMA4_TAP_EMBED,
                     .first_tap = GEMMA4_TAP_COUNT}}},
        {.done = true,
         .trials = {{.judged = true, .effect = 0.2, .expected_tap = GEMMA4_TAP_EMBED}}},
    };
    gemma4_matrix matrix = {.rows_count = 2, .rows = rows, .asked = {true}};
    char *text = NULL;
    size_t size;
    FILE *page = open_memstream(&text, &size);
    ck_assert_ptr_nonnull(page);
    gemma4_matrix_markdown(page, &matrix);
    fclose(page);
    ck_assert_ptr_nonnull(strstr(
        text, "- float32, all: embed-scale-missing on tiny-prompt: enters at embed with 0.7"));
    ck_assert_ptr_nonnull(
        strstr(text, "| float32 | all | embed-scale-twice | tiny-prompt | 0.2 |"));
    ck_assert_ptr_nonnull(strstr(text, "| float32 | all | 2 | 1 | 0 (0.0 %, of 100) |"));
    free(text);
}
END_TEST

/* --- processes --- */

static void square(void *context, size_t i)
{
    size_t *squares = context;
    squares[i] = i * i;
}

static void die_at_three(void *context, size_t i)
{
    if (i == 3)
        _exit(1);
    square(context, i);
}

START_TEST(work_is_dealt_out)
{
    gemma4_error error = {""};
    size_t size = 100 * sizeof(size_t), *squares = gemma4_shared_new(size, &error);
    ck_assert_ptr_nonnull(squares);
    ck_assert_int_eq(gemma4_workers_run(100, 3, "squares", square, squares, &error), 0);
    for (size_t i = 0; i < 100; i++)
        ck_assert_uint_eq(squares[i], i * i);
    memset(squares, 0, size);
    ck_assert_int_eq(gemma4_workers_run(100, 2, "squares", die_at_three, squares, &error), -1);
    assert_message_contains(&error, "squares: 1 of 2 processes died");
    ck_assert_uint_eq(squares[99], 99 * 99); /* the other one finished */
    ck_assert_uint_eq(squares[3], 0);
    gemma4_shared_free(squares, size);
}
END_TEST

/* --- times --- */

/* A counter-model, and a combination with it. */
START_TEST(faults_are_timed)
{
    gemma4_error error = {""};
    char *text = NULL;
    size_t size;
    const gemma4_synth_options tiny = {
        .preset = "tiny", .seed = 1, .layers = 1, .vocab = 32, .shards = 1};
    gemma4_times_options options = {
        .model_dir = test_fresh_dir(), .tap_set = "logits", .cause = "router-sigmoid", .jobs = 2};
    ck_assert_int_eq(gemma4_synth(&tiny, options.model_dir, &error), 0);
    FILE *out = open_memstream(&text, &size);
    ck_assert_ptr_nonnull(out);
    ck_assert_msg(gemma4_times(&options, out, &error) == 0, "%s", error.message);
    fclose(out);
    ck_assert_msg(strstr(text, "\nfloat32  logits         2         1 ") != NULL, "%s", text);
    ck_assert_msg(strstr(text, "  router-sigmoid\n") != NULL, "%s", text);
    free(text);
}
END_TEST

Suite *selftest_suite(void)
{
    Suite *suite = suite_create("selftest");
    TCase *c = tcase_create("selftest");
    tcase_add_unchecked_fixture(c, set_up, tear_down);
    tcase_add_loop_test(c, every_tap_is_rounded_to_the_tier, 0, COUNT(NARROW));
    tcase_add_test(c, an_unknown_tier_is_refused);
    tcase_add_loop_test(c, an_honest_engine_raises_no_alarm, 0, COUNT(TIERS));
    tcase_add_loop_test(c, a_planted_mistake_is_detected_where_it_enters, 0, COUNT(PLANTED));
    tcase_add_test(c, a_planted_mistake_is_named);
    tcase_add_loop_test(c, a_mistake_may_be_in_one_path_only, 0, 2);
    tcase_add_test(c, two_mistakes_are_listed_each);
    tcase_add_loop_test(c, rounding_is_no_second_mistake, 0, 2);
    tcase_add_test(c, what_cannot_show_is_invisible);
    tcase_add_test(c, roundings_of_a_tier_are_permitted);
    tcase_add_test(c, rates_count_the_visible_ones);
    tcase_add_test(c, the_page_lists_what_was_missed);
    tcase_add_test(c, work_is_dealt_out);
    tcase_add_test(c, faults_are_timed);
    suite_add_tcase(suite, c);
    return suite;
}
