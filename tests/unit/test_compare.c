/* The metrics (tests/check/compare.h; spec/cases.md, "Metrics"), on numbers that can be checked in
 * the head. */
#include "compare.h"
#include "suites.h"
#include "support.h"

#include <math.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* Metrics of T positions of two values each. */
static gemma4_comparison compare(size_t T, const float *engine, const float *expected)
{
    gemma4_error error;
    gemma4_comparison c;
    ck_assert_int_eq(gemma4_comparison_init(&c, T, &error), 0);
    for (size_t t = 0; t < T; t++)
        gemma4_comparison_add(&c, t, 0, engine + 2 * t, expected + 2 * t, 2);
    return c;
}

/* What the judge asks of both errors: written so that NaN fails. */
static bool passes(const gemma4_comparison *c, double tolerance)
{
    gemma4_metrics m = gemma4_comparison_metrics(c);
    return c->nonfinite == 0 && m.relative_rms <= tolerance && m.position_rms <= tolerance;
}

static void assert_near(double found, double expected)
{
    ck_assert_msg(fabs(found - expected) <= 1e-15 * fabs(expected), "expected %.17g, found %.17g",
                  expected, found);
}

START_TEST(equal_tensors_have_no_error)
{
    const float values[] = {3, -4, 1e-30f, 7};
    gemma4_comparison c = compare(2, values, values);
    gemma4_metrics m = gemma4_comparison_metrics(&c);
    ck_assert_double_eq(m.relative_rms, 0);
    ck_assert_double_eq(m.position_rms, 0);
    assert_near(m.cosine, 1);
    ck_assert_double_eq(m.norm_ratio, 1);
    ck_assert(passes(&c, 0));
    gemma4_comparison_free(&c);
}
END_TEST

/* g = (3, 4 | 0, 12), e - g = (0, 0 | 5, 0): norms 5 and 13 of 25 + 144, position 1 alone is 5 /
 * 12. */
START_TEST(metrics_of_small_numbers)
{
    const float engine[] = {3, 4, 5, 12}, expected[] = {3, 4, 0, 12};
    gemma4_comparison c = compare(2, engine, expected);
    gemma4_metrics m = gemma4_comparison_metrics(&c);
    assert_near(m.relative_rms, 5.0 / 13);
    assert_near(m.position_rms, 5.0 / 12);
    ck_assert_uint_eq(m.position, 1);
    assert_near(m.cosine, 169 / sqrt(169.0 * 194));
    assert_near(m.norm_ratio, sqrt(194.0 / 169));
    ck_assert_double_eq(c.worst_difference, 5);
    ck_assert_double_eq(c.worst_engine, 5);
    ck_assert_double_eq(c.worst_expected, 0);
    ck_assert_uint_eq(c.worst_position, 1);
    ck_assert_uint_eq(c.worst_index, 0);
    ck_assert_uint_eq(c.values, 4);
    gemma4_comparison_free(&c);
}
END_TEST

/* g = (10, 0 | 0, 0.1): position 1's error of 0.1 counts in units of the average position, norm(g)
 * / sqrt(2). */
START_TEST(a_small_position_is_judged_in_units_of_the_average)
{
    const float engine[] = {10, 0, 0, 0.2f}, expected[] = {10, 0, 0, 0.1f};
    gemma4_comparison c = compare(2, engine, expected);
    gemma4_metrics m = gemma4_comparison_metrics(&c);
    double difference = (double)0.2f - (double)0.1f, g2 = 100 + (double)0.1f * (double)0.1f;
    assert_near(m.position_rms, difference / sqrt(g2 / 2));
    ck_assert_uint_eq(m.position, 1);
    gemma4_comparison_free(&c);
}
END_TEST

/* One wrong position among 100 is small in relative_rms and plain in position_rms. */
START_TEST(one_bad_position_among_many_shows)
{
    float engine[200], expected[200];
    for (int i = 0; i < 200; i++)
        engine[i] = expected[i] = 1;
    engine[2 * 41] = 1.5f;
    gemma4_comparison c = compare(100, engine, expected);
    gemma4_metrics m = gemma4_comparison_metrics(&c);
    assert_near(m.relative_rms, 0.5 / sqrt(200));
    assert_near(m.position_rms, 0.5 / sqrt(2));
    ck_assert_uint_eq(m.position, 41);
    gemma4_comparison_free(&c);
}
END_TEST

/* T of the average is the number of positions that were compared. */
START_TEST(positions_that_were_not_compared_do_not_count)
{
    const float engine[] = {0, 2}, expected[] = {0, 1};
    gemma4_error error;
    gemma4_comparison c;
    ck_assert_int_eq(gemma4_comparison_init(&c, 5, &error), 0);
    gemma4_comparison_add(&c, 3, 0, engine, expected, 2);
    gemma4_metrics m = gemma4_comparison_metrics(&c);
    ck_assert_double_eq(m.position_rms, 1);
    ck_assert_uint_eq(m.position, 3);
    ck_assert(c.seen[3] && !c.seen[0] && !c.seen[4]);
    gemma4_comparison_free(&c);
}
END_TEST

START_TEST(a_row_in_parts_is_the_row)
{
    const float engine[] = {1, 2, 3, 4}, expected[] = {1, 2, 3, 5};
    gemma4_error error;
    gemma4_comparison c;
    ck_assert_int_eq(gemma4_comparison_init(&c, 1, &error), 0);
    gemma4_comparison_add(&c, 0, 0, engine, expected, 3);
    gemma4_comparison_add(&c, 0, 3, engine + 3, expected + 3, 1);
    gemma4_comparison_add(&c, 0, 4, NULL, NULL, 0);
    assert_near(gemma4_comparison_metrics(&c).relative_rms, 1 / sqrt(39.0));
    ck_assert_uint_eq(c.worst_index, 3);
    ck_assert_uint_eq(c.values, 4);
    gemma4_comparison_free(&c);
}
END_TEST

/* A scale error leaves the direction alone, and the ratio names it. */
START_TEST(scale_and_direction_are_apart)
{
    const float engine[] = {6, 8, -2, 4}, expected[] = {3, 4, -1, 2};
    gemma4_comparison c = compare(2, engine, expected);
    gemma4_metrics m = gemma4_comparison_metrics(&c);
    assert_near(m.cosine, 1);
    assert_near(m.norm_ratio, 2);
    assert_near(m.relative_rms, 1);
    gemma4_comparison_free(&c);
}
END_TEST

/* --- zero --- */

START_TEST(zero_against_zero_has_no_error)
{
    const float zero[4] = {0}, minus_zero[4] = {-0.0f, 0, -0.0f, 0};
    gemma4_comparison c = compare(2, minus_zero, zero);
    gemma4_metrics m = gemma4_comparison_metrics(&c);
    ck_assert_double_eq(m.relative_rms, 0);
    ck_assert_double_eq(m.position_rms, 0);
    ck_assert_double_eq(m.cosine, 1);
    ck_assert_double_eq(m.norm_ratio, 1);
    ck_assert(passes(&c, 0));
    gemma4_comparison_free(&c);
}
END_TEST

START_TEST(anything_against_zero_is_infinitely_wrong)
{
    const float engine[4] = {0, 0, 1e-30f, 0}, zero[4] = {0};
    gemma4_comparison c = compare(2, engine, zero);
    gemma4_metrics m = gemma4_comparison_metrics(&c);
    ck_assert(isinf(m.relative_rms) && isinf(m.position_rms) && isinf(m.norm_ratio));
    ck_assert_uint_eq(m.position, 1);
    ck_assert(!passes(&c, 1e300));
    gemma4_comparison_free(&c);
}
END_TEST

START_TEST(zero_against_something_is_wholly_wrong)
{
    const float zero[4] = {0}, expected[4] = {1, 2, 3, 4};
    gemma4_comparison c = compare(2, zero, expected);
    gemma4_metrics m = gemma4_comparison_metrics(&c);
    ck_assert_double_eq(m.relative_rms, 1);
    ck_assert_double_eq(m.norm_ratio, 0);
    ck_assert_double_eq(m.cosine, 0);
    gemma4_comparison_free(&c);
}
END_TEST

/* --- what is not finite --- */

static const struct {
    float engine, expected;
    size_t nonfinite; /* of the engine */
} NONFINITE[] = {
    {NAN, 1, 1}, {INFINITY, 1, 1}, {-INFINITY, 1, 1}, {NAN, NAN, 1}, {INFINITY, INFINITY, 1},
    {1, NAN, 0}, {1, INFINITY, 0},
};

/* Whoever has it, and at whatever tolerance: there is no tensor with a NaN or an infinity that
 * passes. */
START_TEST(nonfinite_values_never_pass)
{
    float engine[4] = {1, 1, 1, 1}, expected[4] = {1, 1, 1, 1};
    engine[3] = NONFINITE[_i].engine;
    expected[3] = NONFINITE[_i].expected;
    gemma4_comparison c = compare(2, engine, expected);
    ck_assert_uint_eq(c.nonfinite, NONFINITE[_i].nonfinite);
    ck_assert(!passes(&c, 1e300));
    gemma4_comparison_free(&c);
}
END_TEST

START_TEST(the_first_nonfinite_value_is_named_and_kept_out_of_the_sums)
{
    const float engine[] = {1, 1, 1, NAN, INFINITY, 1}, expected[] = {1, 1, 1, 1, 1, 1};
    gemma4_comparison c = compare(3, engine, expected);
    ck_assert_uint_eq(c.nonfinite, 2);
    ck_assert_uint_eq(c.nonfinite_position, 1);
    ck_assert_uint_eq(c.nonfinite_index, 1);
    ck_assert_uint_eq(c.values, 4);
    ck_assert_double_eq(gemma4_comparison_metrics(&c).relative_rms, 0);
    gemma4_comparison_free(&c);
}
END_TEST

/* The largest floats do not overflow the sums. */
START_TEST(large_values_do_not_overflow)
{
    const float engine[] = {3e38f, 3e38f}, expected[] = {-3e38f, -3e38f};
    gemma4_comparison c = compare(1, engine, expected);
    assert_near(gemma4_comparison_metrics(&c).relative_rms, 2);
    assert_near(gemma4_comparison_metrics(&c).cosine, -1);
    gemma4_comparison_free(&c);
}
END_TEST

/* The names are in every manifest and in every report's JSON. */
static const char *const METRICS[] = {
    [GEMMA4_METRIC_NONE] = "",
    [GEMMA4_METRIC_RELATIVE_RMS] = "relative_rms",
    [GEMMA4_METRIC_POSITION_RMS] = "position_rms",
    [GEMMA4_METRIC_RMS_IN_SPREADS] = "rms_in_spreads",
    [GEMMA4_METRIC_WORST_POSITION_IN_SPREADS] = "worst_position_in_spreads",
    [GEMMA4_METRIC_BIAS_IN_SPREADS] = "bias_in_spreads",
    [GEMMA4_METRIC_MATCHED_FILTER] = "matched_filter",
    [GEMMA4_METRIC_EXPERT_SETS] = "expert_sets",
    [GEMMA4_METRIC_LISTED_TOKENS] = "listed_tokens",
    [GEMMA4_METRIC_NONFINITE_VALUES] = "nonfinite_values",
    [GEMMA4_METRIC_SHAPE] = "shape",
};

START_TEST(metrics_have_names)
{
    ck_assert_str_eq(gemma4_metric_name((gemma4_metric_kind)_i), METRICS[_i]);
}
END_TEST

Suite *compare_suite(void)
{
    Suite *suite = suite_create("compare");
    TCase *metrics = tcase_create("metrics"), *edges = tcase_create("edges");
    tcase_add_test(metrics, equal_tensors_have_no_error);
    tcase_add_test(metrics, metrics_of_small_numbers);
    tcase_add_test(metrics, a_small_position_is_judged_in_units_of_the_average);
    tcase_add_test(metrics, one_bad_position_among_many_shows);
    tcase_add_test(metrics, positions_that_were_not_compared_do_not_count);
    tcase_add_test(metrics, a_row_in_parts_is_the_row);
    tcase_add_test(metrics, scale_and_direction_are_apart);
    tcase_add_loop_test(metrics, metrics_have_names, 0, COUNT(METRICS));
    tcase_add_test(edges, zero_against_zero_has_no_error);
    tcase_add_test(edges, anything_against_zero_is_infinitely_wrong);
    tcase_add_test(edges, zero_against_something_is_wholly_wrong);
    tcase_add_loop_test(edges, nonfinite_values_never_pass, 0, COUNT(NONFINITE));
    tcase_add_test(edges, the_first_nonfinite_value_is_named_and_kept_out_of_the_sums);
    tcase_add_test(edges, large_values_do_not_overflow);
    suite_add_tcase(suite, metrics);
    suite_add_tcase(suite, edges);
    return suite;
}
