/* The case of many positions (spec/cases.md): its golden holds the published window to the key, and
 * an engine whose window is one off there does not conform. */
#include "activations.h"
#include "counter_model.h"
#include "forward.h"
#include "manifest.h"
#include "suites.h"
#include "support.h"
#include "trial.h"

#include <math.h>
#include <stdlib.h>

static const char ID[] = "window1024-long";
enum { WINDOW = 1024 };
#define AGREEMENT 1e-5 /* relative RMS at a position; of a key too many or too few: 5e-5 and more */

static gemma4_case *c;
static gemma4_model *model;
static gemma4_activations *golden;

static void open_case(void)
{
    gemma4_error error = {""};
    c = gemma4_case_open(ID, &error);
    ck_assert_msg(c && gemma4_case_provide_checkpoint(c, &error) == 0, "%s", error.message);
    model = gemma4_model_open(c->checkpoint_dir, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    ck_assert_uint_eq(model->config.sliding_window, WINDOW);
    golden = gemma4_activations_open(c->golden_path, &model->config, &error);
    ck_assert_msg(golden != NULL, "%s", error.message);
}

static void close_case(void)
{
    gemma4_activations_close(golden);
    gemma4_model_close(model);
    gemma4_case_close(c);
}

START_TEST(the_window_rolls_over_many_times)
{
    const gemma4_activation *context = gemma4_activations_find(golden, GEMMA4_TAP_ATTN_CONTEXT, 0);
    ck_assert_uint_gt(c->token_count, 4 * WINDOW);
    ck_assert_uint_eq(c->first_position, 0);
    ck_assert(gemma4_case_has_flag(c, GEMMA4_MANY_POSITIONS));
    /* on both sides of every crossing */
    for (size_t crossing = WINDOW; crossing < c->token_count; crossing += WINDOW) {
        bool before = false, after = false;
        for (size_t i = 0; i < context->rows; i++) {
            before = before || context->row_index[i] == crossing - 1;
            after = after || context->row_index[i] == crossing;
        }
        ck_assert_msg(before && after, "position %zu", crossing);
    }
}
END_TEST

/* --- the golden --- */

/* Errors of layer 0's context at the golden's positions. */
typedef struct errors {
    double at[64];
    size_t count;
} errors;

/* Ends the forward pass when it has compared. */
static int compare_context(void *context, gemma4_tap_event *event, gemma4_error *error)
{
    errors *e = context;
    if (event->tap != GEMMA4_TAP_ATTN_CONTEXT)
        return 0;
    const gemma4_activation *expected = gemma4_activations_find(golden, GEMMA4_TAP_ATTN_CONTEXT, 0);
    size_t width = event->dims[0] * event->dims[1];
    float *row = calloc(width, sizeof *row);
    for (size_t i = 0; i < expected->rows && row; i++) {
        double difference = 0, all = 0;
        if (gemma4_activations_read(golden, expected, i, 1, row, error))
            break;
        for (size_t k = 0; k < width; k++) {
            double d = (double)event->values[expected->row_index[i] * width + k] - (double)row[k];
            difference += d * d;
            all += (double)row[k] * (double)row[k];
        }
        e->at[e->count++] = sqrt(difference / all);
    }
    free(row);
    return gemma4_fail(error, "seen");
}

static const size_t WINDOWS[] = {WINDOW, WINDOW + 1, WINDOW - 1};

START_TEST(the_golden_holds_the_window_to_the_key)
{
    gemma4_error error = {""};
    errors e = {.count = 0};
    size_t right = WINDOWS[_i] < WINDOW ? WINDOWS[_i] : WINDOW; /* so many first positions */
    model->config.sliding_window = WINDOWS[_i];
    gemma4_session *session = gemma4_session_new(model, 0, c->token_count, &error);
    ck_assert_msg(session != NULL, "%s", error.message);
    gemma4_session_set_hook(session, compare_context, &e);
    ck_assert_int_ne(
        gemma4_forward(session, c->tokens, c->token_count, c->token_count, NULL, &error), 0);
    ck_assert_str_eq(error.message, "seen");
    gemma4_session_free(session);
    model->config.sliding_window = WINDOW;
    const gemma4_activation *context = gemma4_activations_find(golden, GEMMA4_TAP_ATTN_CONTEXT, 0);
    ck_assert_uint_eq(e.count, context->rows);
    for (size_t i = 0; i < e.count; i++) {
        size_t t = context->row_index[i];
        bool is_right = t < right || WINDOWS[_i] == WINDOW;
        ck_assert_msg(isfinite(e.at[i]) && (e.at[i] <= AGREEMENT) == is_right,
                      "window of %zu, position %zu: %.1e", WINDOWS[_i], t, e.at[i]);
    }
}
END_TEST

/* --- the judge --- */

START_TEST(a_window_of_one_key_more_does_not_conform)
{
    gemma4_error error = {""};
    gemma4_trial trial;
    gemma4_simulation s = {.the_case = c,
                           .model = model,
                           .tier = "float32",
                           .only_layer = {-1, -1},
                           .taps = GEMMA4_SET_LAYERS};
    for (size_t i = 0; i < gemma4_counter_model_count() && !s.planted[0]; i++)
        if (!strcmp(gemma4_counter_model_at(i)->id, "window-off-by-one-wide"))
            s.planted[0] = gemma4_counter_model_at(i);
    ck_assert_msg(gemma4_trial_run(&s, NULL, true, test_fresh_dir(), &trial, &error) == 0, "%s",
                  error.message);
    ck_assert(s.planted[0] && trial.detected);
    ck_assert_int_eq(trial.first_tap, GEMMA4_TAP_LAYER_OUTPUT);
    ck_assert_uint_eq(trial.first_layer, 0);
}
END_TEST

Suite *long_suite(void)
{
    Suite *suite = suite_create("long");
    TCase *tcase = tcase_create("long");
    tcase_add_unchecked_fixture(tcase, open_case, close_case);
    tcase_set_timeout(tcase, 600);
    tcase_add_test(tcase, the_window_rolls_over_many_times);
    tcase_add_loop_test(tcase, the_golden_holds_the_window_to_the_key, 0, 3);
    tcase_add_test(tcase, a_window_of_one_key_more_does_not_conform);
    suite_add_tcase(suite, tcase);
    return suite;
}
