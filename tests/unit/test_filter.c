/* Matched filters (tests/check/filter.h), on evidence and sums made by hand. */
#include "block_run.h"
#include "config.h"
#include "counter_model.h"
#include "evidence_maker.h"
#include "filter.h"
#include "fit.h"
#include "model.h"
#include "noise.h"
#include "ops.h"
#include "planted.h"
#include "suites.h"
#include "support.h"

#include <math.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

enum { T = 4, BLOCK = 2, LAYERS = 6 };

static const double CLOSE = 1e-12;

static size_t model_of(const char *id)
{
    for (size_t i = 0; i < gemma4_counter_model_count(); i++)
        if (!strcmp(gemma4_counter_model_at(i)->id, id))
            return i;
    ck_abort_msg("no counter-model is called %s", id);
    return 0;
}

/* --- the noise of one value --- */

/* What the six draws had there, and a hundredth of the row's. */
START_TEST(a_value_s_noise_is_its_own_and_a_part_of_its_row_s)
{
    static const double sigma[2] = {10, 100};
    test_evidence *e = test_evidence_new(NULL, 2, "bfloat16", BLOCK);
    test_tap *t = test_evidence_tap(e, GEMMA4_TAP_MLP_OUT, 2, NULL, NULL, sigma);
    for (size_t d = 0; d < GEMMA4_DRAWS; d++)
        t->draws[d][3] = d % 2 ? -4 : 2;
    const gemma4_tap_evidence *evidence = &e->evidence.taps[GEMMA4_TAP_MLP_OUT];
    ck_assert_double_eq_tol(gemma4_noise_variance(evidence, 0, 0), 1, CLOSE);
    ck_assert_double_eq_tol(gemma4_noise_variance(evidence, 1, 2), 100, CLOSE);
    ck_assert_double_eq_tol(gemma4_noise_variance(evidence, 1, 3), 110, CLOSE);
    test_evidence_free(e);
}
END_TEST

/* --- projections --- */

/* Sigma 10 and no draws: every value's variance is 1. */
static test_evidence *plain(gemma4_tap which, size_t width)
{
    static const double sigma[T] = {10, 10, 10, 10};
    test_evidence *e = test_evidence_new(NULL, T, "bfloat16", BLOCK);
    test_evidence_tap(e, which, width, NULL, NULL, sigma);
    return e;
}

START_TEST(error_and_draws_are_projected_on_the_difference)
{
    /* minus 1: 2 0 0 0 0 0 0 -2 */
    static const gemma4_real prediction[T * 2] = {3, 1, 1, 1, 1, 1, 1, -1};
    const gemma4_against all = {0};
    test_evidence *e = plain(GEMMA4_TAP_MLP_OUT, 2);
    test_tap *t = &e->taps[GEMMA4_TAP_MLP_OUT];
    t->engine[0] = 4; /* error 3 */
    t->engine[2] = 6; /* 5, where nothing is predicted */
    t->engine[7] = 0; /* -1 */
    gemma4_filter f = gemma4_project(&e->evidence, GEMMA4_TAP_MLP_OUT, prediction, &all);
    ck_assert_double_eq_tol(f.size, 8, CLOSE);
    ck_assert_double_eq_tol(f.error, 8, CLOSE);
    ck_assert_double_eq_tol(f.total, 35, CLOSE);
    t->draws[2][0] = 1; /* its variance becomes 1 + 1/6: everything there weighs 6/7 */
    f = gemma4_project(&e->evidence, GEMMA4_TAP_MLP_OUT, prediction, &all);
    ck_assert_double_eq_tol(f.draws[1], 0, CLOSE);
    ck_assert_double_eq_tol(f.draws[2], 2 * 6.0 / 7, CLOSE);
    ck_assert_double_eq_tol(f.size, 4 * 6.0 / 7 + 4, CLOSE);
    test_evidence_free(e);
}
END_TEST

START_TEST(only_rows_that_count_are_projected)
{
    static const gemma4_real prediction[T * 2] = {2, 2, 2, 2, 2, 2, 2, 2};
    bool skip[T] = {false, true, false, false};
    gemma4_against rows = {.skip = skip, .positions = 3};
    test_evidence *e = plain(GEMMA4_TAP_MLP_OUT, 2);
    ck_assert_double_eq_tol(
        gemma4_project(&e->evidence, GEMMA4_TAP_MLP_OUT, prediction, &rows).size, 4, CLOSE);
    e->taps[GEMMA4_TAP_MLP_OUT].have[0] = false;
    ck_assert_double_eq_tol(
        gemma4_project(&e->evidence, GEMMA4_TAP_MLP_OUT, prediction, &rows).size, 2, CLOSE);
    test_evidence_free(e);
}
END_TEST

START_TEST(what_is_not_finite_or_masked_is_not_projected)
{
    static gemma4_real prediction[T * 4 * T];
    const gemma4_against all = {0};
    test_evidence *e = plain(GEMMA4_TAP_ATTN_SCORES, 0);
    for (size_t i = 0; i < COUNT(prediction); i++)
        prediction[i] = 1;
    prediction[0] = (gemma4_real)-INFINITY; /* position 0, key 0 */
    prediction[3 * 4 * T] = 3;              /* position 3 sees key 0 */
    prediction[1 * 4 * T + 2] = 9;          /* position 1 does not see key 2 */
    ck_assert_double_eq_tol(
        gemma4_project(&e->evidence, GEMMA4_TAP_ATTN_SCORES, prediction, &all).size, 4, CLOSE);
    test_evidence_free(e);
}
END_TEST

/* --- what follows from the sums --- */

START_TEST(sums_add_up)
{
    gemma4_filter to = {.error = 1, .size = 2, .draws = {3, 4}, .total = 5};
    const gemma4_filter more = {.error = 10, .size = 20, .draws = {30, 40}, .total = 50};
    gemma4_filter_add(&to, &more);
    ck_assert(to.error == 11 && to.size == 22 && to.draws[0] == 33 && to.draws[1] == 44 &&
              to.draws[2] == 0 && to.total == 55);
}
END_TEST

START_TEST(coefficient_spread_and_share_follow_from_the_sums)
{
    const gemma4_filter f = {
        .error = 50, .size = 100, .draws = {30, -30, 30, -30, 30, -30}, .total = 250};
    ck_assert_double_eq_tol(gemma4_filter_coefficient(&f), 0.5, CLOSE);
    ck_assert_double_eq_tol(gemma4_filter_spread(&f), 0.3, CLOSE);
    ck_assert_double_eq_tol(gemma4_filter_share(&f), 0.1, CLOSE);
}
END_TEST

/* Six draws may all be close to nothing by chance. */
START_TEST(the_spread_is_at_least_that_of_independent_errors)
{
    const gemma4_filter f = {.error = 50, .size = 100, .draws = {9, -9, 9, -9, 9, -9}};
    ck_assert_double_eq_tol(gemma4_filter_spread(&f), 0.1, CLOSE);
}
END_TEST

START_TEST(nothing_seen_is_nothing)
{
    const gemma4_filter f = {0};
    ck_assert(gemma4_filter_coefficient(&f) == 0 && gemma4_filter_share(&f) == 0 &&
              isinf(gemma4_filter_spread(&f)));
    ck_assert(!gemma4_filter_is_significant(&f, 0.001));
}
END_TEST

/* Sums with this coefficient, and a spread of 1 / sqrt(size). */
static gemma4_filter sums(double coefficient, double deviations)
{
    double size = deviations * deviations / (coefficient * coefficient);
    return (gemma4_filter){.error = coefficient * size, .size = size, .total = size};
}

static const struct {
    double coefficient, deviations, asked;
    bool significant;
} SIGNIFICANT[] = {
    {1, 8.01, 8, true},  {1, 7.99, 8, false},  {0.71, 50, 8, true},  {0.69, 50, 8, false},
    {1.29, 50, 8, true}, {1.31, 50, 8, false}, {1, 11.9, 12, false}, {1, 12.1, 12, true},
};

START_TEST(a_mistake_is_significant_near_its_full_size_and_far_from_none)
{
    gemma4_filter f = sums(SIGNIFICANT[_i].coefficient, SIGNIFICANT[_i].deviations);
    ck_assert_int_eq(gemma4_filter_is_significant(&f, SIGNIFICANT[_i].asked),
                     SIGNIFICANT[_i].significant);
}
END_TEST

/* 8 spreads over all layers, 12 in the best of them. */
static const struct {
    double all, best;
    int which; /* 0: neither, 1: all, 2: best */
} WHICH[] = {{8.01, 3, 1}, {7.99, 3, 0}, {7.99, 11.99, 0}, {7.99, 12.01, 2}, {8.01, 12.01, 1}};

START_TEST(one_layer_needs_more_than_all_together)
{
    const gemma4_filtered f = {.all = sums(1, WHICH[_i].all), .best = sums(1, WHICH[_i].best)};
    const gemma4_filter *expected[] = {NULL, &f.all, &f.best};
    ck_assert_ptr_eq(gemma4_significant_filter(&f), expected[WHICH[_i].which]);
}
END_TEST

/* --- one block --- */

/* Of layer-scalar-dropped at layers.2.output: it predicts ffn.residual, which is 1, where s is
 * right. */
static struct {
    test_evidence *e;
    gemma4_runner *runner;
    gemma4_filtered *filtered;
    double s;
} block;

static void set_up_block(const char *tier, double sigma, double expected, double engine)
{
    gemma4_error error = {""};
    double sigmas[T] = {sigma, sigma, sigma, sigma};
    block.e = test_evidence_new(NULL, T, tier, BLOCK);
    block.s = (double)gemma4_weight_at(&test_small_model()->layers[BLOCK].layer_scalar, 0);
    for (int tap = GEMMA4_TAP_LAYER_INPUT; tap < GEMMA4_TAP_LAYER_OUTPUT; tap++)
        if (!gemma4_tap_describe((gemma4_tap)tap)->ids)
            test_evidence_unstored(block.e, (gemma4_tap)tap, 0, NULL, NULL);
    for (size_t i = 0; i < T * 16; i++)
        block.e->stream[i] = (gemma4_real)(i % 7) - 3;
    test_tap *t = test_evidence_tap(block.e, GEMMA4_TAP_LAYER_OUTPUT, 0, NULL, NULL, sigmas);
    for (size_t i = 0; i < T * t->width; i++) {
        t->expected[i] = (gemma4_real)expected;
        t->engine[i] = (float)engine;
    }
    static const int32_t ids[T * 2] = {0, 1, 0, 1, 0, 1, 0, 1};
    test_evidence_ids(block.e, NULL, ids);
    block.runner = gemma4_runner_new(&block.e->subject, &error);
    block.filtered = calloc(gemma4_counter_model_count(), sizeof *block.filtered);
    ck_assert(block.runner && block.filtered);
}

static const gemma4_filtered *filter_block(const char *id, const bool *failed)
{
    static const bool none[GEMMA4_TAP_COUNT];
    gemma4_error error = {""};
    int status = gemma4_filter_block(block.filtered, &block.e->evidence, block.runner,
                                     failed ? failed : none, &error);
    ck_assert_msg(status == 0, "%s", error.message);
    return &block.filtered[model_of(id)];
}

static void tear_down_block(void)
{
    gemma4_runner_free(block.runner);
    test_evidence_free(block.e);
    free(block.filtered);
}

/* The real difference is 1 - s, and it is expected to be `difference`. */
static const gemma4_filtered *filter_scalar(double coefficient, double difference, double sigma)
{
    double s = (double)gemma4_weight_at(&test_small_model()->layers[BLOCK].layer_scalar, 0);
    difference *= 1 - s;
    set_up_block("bfloat16", sigma, 1 - difference, 1 - difference + coefficient * difference);
    return filter_block("layer-scalar-dropped", NULL);
}

START_TEST(a_block_adds_its_sums)
{
    const gemma4_filtered *f = filter_scalar(0.9, 1, 10 * 0.01);
    ck_assert_uint_eq(f->blocks, 1);
    ck_assert_int_eq(f->tap, GEMMA4_TAP_LAYER_OUTPUT);
    ck_assert_uint_eq(f->first_layer, BLOCK);
    ck_assert_uint_eq(f->best_layer, BLOCK);
    ck_assert_int_eq(f->best_tap, GEMMA4_TAP_LAYER_OUTPUT);
    ck_assert_double_eq_tol(gemma4_filter_coefficient(&f->all), 0.9, 1e-4);
    ck_assert_double_eq_tol(f->all.size, T * 16 * pow((1 - block.s) / 0.01, 2), 1e-4 * f->all.size);
    ck_assert(f->best.size == f->all.size);
    tear_down_block();
}
END_TEST

/* The second block is less significant: the first stays the best one. */
START_TEST(blocks_add_up_and_the_best_is_kept)
{
    filter_scalar(1, 1, 0.1);
    double size = block.filtered[model_of("layer-scalar-dropped")].all.size;
    test_tap *t = &block.e->taps[GEMMA4_TAP_LAYER_OUTPUT];
    block.e->evidence.layer = BLOCK + 1; /* so it says */
    for (size_t i = 0; i < T; i++)
        t->sigma[i] *= 2;
    const gemma4_filtered *f = filter_block("layer-scalar-dropped", NULL);
    ck_assert_uint_eq(f->blocks, 2);
    ck_assert_double_eq_tol(f->all.size, 1.25 * size, 1e-9 * size);
    ck_assert_double_eq_tol(f->best.size, size, 1e-9 * size);
    ck_assert_uint_eq(f->first_layer, BLOCK);
    ck_assert_uint_eq(f->best_layer, BLOCK);
    block.e->evidence.layer = BLOCK + 2;
    for (size_t i = 0; i < T; i++)
        t->sigma[i] /= 4;
    f = filter_block("layer-scalar-dropped", NULL);
    ck_assert_uint_eq(f->first_layer, BLOCK);
    ck_assert_uint_eq(f->best_layer, BLOCK + 2);
    ck_assert_double_eq_tol(f->best.size, 4 * size, 1e-9 * size);
    tear_down_block();
}
END_TEST

START_TEST(a_tap_that_failed_is_left_out)
{
    bool failed[GEMMA4_TAP_COUNT] = {false};
    failed[GEMMA4_TAP_LAYER_OUTPUT] = true;
    set_up_block("bfloat16", 0.1, 0, 1);
    ck_assert_uint_eq(filter_block("layer-scalar-dropped", failed)->blocks, 0);
    ck_assert_uint_eq(filter_block("layer-scalar-dropped", NULL)->blocks, 1);
    tear_down_block();
}
END_TEST

START_TEST(float32_is_not_filtered)
{
    static const char *const tiers[] = {"float32", "float16", "bfloat16"};
    set_up_block(tiers[_i], 0.1, 0, 1);
    ck_assert_uint_eq(filter_block("mlp-silu", NULL)->blocks, _i > 0);
    tear_down_block();
}
END_TEST

START_TEST(a_mistake_is_looked_for_at_the_first_stored_tap_behind_it)
{
    set_up_block("bfloat16", 0.1, 0, 1);
    test_evidence_tap(block.e, GEMMA4_TAP_FFN_SUM, 0, NULL, NULL, NULL);
    test_evidence_tap(block.e, GEMMA4_TAP_ATTN_OUT, 0, NULL, NULL, NULL);
    ck_assert_int_eq(filter_block("mlp-silu", NULL)->tap, GEMMA4_TAP_FFN_SUM);
    ck_assert_int_eq(block.filtered[model_of("layer-scalar-dropped")].tap, GEMMA4_TAP_LAYER_OUTPUT);
    ck_assert_int_eq(block.filtered[model_of("input-norm-missing")].tap, GEMMA4_TAP_ATTN_OUT);
    ck_assert_uint_eq(block.filtered[model_of("softcap-missing")].blocks, 0); /* in the head */
    tear_down_block();
}
END_TEST

START_TEST(one_bridged_block_is_filtered_and_two_are_not)
{
    const gemma4_real *streams[4];
    set_up_block("bfloat16", 0.1, 0, 1);
    for (size_t i = 0; i < 4; i++)
        streams[i] = block.e->stream;
    block.e->evidence.streams = streams;
    block.e->evidence.known_block = BLOCK - 1 - _i;
    ck_assert_uint_eq(filter_block("mlp-silu", NULL)->blocks, _i == 0);
    tear_down_block();
}
END_TEST

/* --- what is only the rounding of what the step read --- */

/* Perturbed, the step's difference is (1 - s): by how much it moves is the square of what that is
 * above the one that was predicted. */
static const struct {
    double coefficient, difference;
    size_t blocks;
} MOVED[] = {
    {1, 1 / 1.70, 1},
    {1, 1 / 1.715, 0},
    {1, 1 / 0.31, 1},
    {1, 1 / 0.285, 0}, /* a half */
    /* less than half the mistake is not looked at again */
    {0.49, 1 / 2.0, 1},
    {0.51, 1 / 2.0, 0},
};

START_TEST(a_difference_that_moves_with_the_inputs_does_not_count)
{
    ck_assert_uint_eq(filter_scalar(MOVED[_i].coefficient, MOVED[_i].difference, 0.01)->blocks,
                      MOVED[_i].blocks);
    tear_down_block();
}
END_TEST

/* Nor is one that is within its spread: 64 values of this difference and variance 0.01 sigma^2. */
START_TEST(a_coefficient_within_its_spread_is_not_looked_at_again)
{
    double s = (double)gemma4_weight_at(&test_small_model()->layers[BLOCK].layer_scalar, 0),
           difference = (1 - s) / 2, coefficient = 0.8;
    double spread = coefficient * (_i ? 1.02 : 0.98);
    ck_assert_uint_eq(filter_scalar(coefficient, 0.5, 10 * spread * 8 * fabs(difference))->blocks,
                      _i == 1);
    tear_down_block();
}
END_TEST

/* An honest engine stores right values that were rounded to nearest. Here they are made so that
 * this alone looks like so much of the mistake. */
START_TEST(what_rounding_to_nearest_gives_is_no_mistake)
{
    static gemma4_real prediction[T * 16];
    gemma4_error error = {""};
    size_t model = model_of("mlp-silu");
    gemma4_planted planted = {
        .models = {gemma4_counter_model_at(model)}, .only_layer = {-1}, .count = 1};
    double rounding = _i ? 0.52 : 0.48;
    set_up_block("bfloat16", 1e-3, 0, 0);
    ck_assert_int_eq(gemma4_predict(&block.e->evidence, block.runner, &planted,
                                    GEMMA4_TAP_LAYER_OUTPUT, 0, prediction, NULL, &error),
                     0);
    for (size_t i = 0; i < T * 16; i++) {
        double p = (double)prediction[i], ulp = ldexp(0x1p-8, ilogb(p) + 1),
               gap = nearbyint(p / ulp) * ulp - p;
        bool near = fabs(gap) < 0.3 * ulp; /* else nothing is predicted there */
        block.e->taps[GEMMA4_TAP_LAYER_OUTPUT].expected[i] =
            (gemma4_real)(near ? p - gap / (rounding - 1) : p);
        block.e->taps[GEMMA4_TAP_LAYER_OUTPUT].engine[i] = (float)p;
    }
    ck_assert_uint_eq(filter_block("mlp-silu", NULL)->blocks, _i == 0);
    tear_down_block();
}
END_TEST

Suite *filter_suite(void)
{
    Suite *suite = suite_create("filter");
    TCase *c = tcase_create("sums"), *blocks = tcase_create("blocks");
    tcase_add_test(c, a_value_s_noise_is_its_own_and_a_part_of_its_row_s);
    tcase_add_test(c, error_and_draws_are_projected_on_the_difference);
    tcase_add_test(c, only_rows_that_count_are_projected);
    tcase_add_test(c, what_is_not_finite_or_masked_is_not_projected);
    tcase_add_test(c, sums_add_up);
    tcase_add_test(c, coefficient_spread_and_share_follow_from_the_sums);
    tcase_add_test(c, the_spread_is_at_least_that_of_independent_errors);
    tcase_add_test(c, nothing_seen_is_nothing);
    tcase_add_loop_test(c, a_mistake_is_significant_near_its_full_size_and_far_from_none, 0,
                        COUNT(SIGNIFICANT));
    tcase_add_loop_test(c, one_layer_needs_more_than_all_together, 0, COUNT(WHICH));
    tcase_add_test(blocks, a_block_adds_its_sums);
    tcase_add_test(blocks, blocks_add_up_and_the_best_is_kept);
    tcase_add_test(blocks, a_tap_that_failed_is_left_out);
    tcase_add_loop_test(blocks, float32_is_not_filtered, 0, 3);
    tcase_add_test(blocks, a_mistake_is_looked_for_at_the_first_stored_tap_behind_it);
    tcase_add_loop_test(blocks, one_bridged_block_is_filtered_and_two_are_not, 0, 2);
    tcase_add_loop_test(blocks, a_difference_that_moves_with_the_inputs_does_not_count, 0,
                        COUNT(MOVED));
    tcase_add_loop_test(blocks, a_coefficient_within_its_spread_is_not_looked_at_again, 0, 2);
    tcase_add_loop_test(blocks, what_rounding_to_nearest_gives_is_no_mistake, 0, 2);
    suite_add_tcase(suite, c);
    suite_add_tcase(suite, blocks);
    return suite;
}
