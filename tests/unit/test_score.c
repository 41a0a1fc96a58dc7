/* Scores, biases and verdicts (tests/check/score.h, verdict.h) of a few rows with a spread of 1, or
 * of a unit. */
#include "evidence_maker.h"
#include "suites.h"
#include "support.h"
#include "verdict.h"

#include <math.h>
#include <stdio.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define TAP GEMMA4_TAP_ATTN_OUT

static const gemma4_against ALL = {0};

/* Rows of two values, expected 1 and 1, of which the engine has 1 + e and 1 - e: an error of e
 * without a bias. */
static test_evidence *rows_with_errors(size_t T, const double errors[])
{
    test_evidence *e = test_evidence_new(NULL, T, "bfloat16", 0);
    test_tap *t = test_evidence_tap(e, TAP, 2, NULL, NULL, NULL);
    test_draws_alternate(e, TAP);
    for (size_t row = 0; row < T; row++) {
        t->engine[2 * row] += (float)errors[row];
        t->engine[2 * row + 1] -= (float)errors[row];
    }
    return e;
}

/* T rows, all of them with an error of e. */
static test_evidence *equal_errors(size_t T, double error)
{
    double errors[16];
    for (size_t row = 0; row < T; row++)
        errors[row] = error;
    return rows_with_errors(T, errors);
}

/* 16 rows, of which row 9 has an error. */
static test_evidence *one_bad_row(double error)
{
    double errors[16] = {[9] = error};
    return rows_with_errors(16, errors);
}

static gemma4_tap_result judged(test_evidence *e, gemma4_tap tap)
{
    gemma4_tap_result r = {.tap = tap};
    gemma4_judge_reals(&e->evidence, tap, &r);
    return r;
}

/* --- scores --- */

/* Errors of 1, 2, 2 and 4 in rows of spread 1, 1, 2 and 4: 1, 2, 1 and 1 spreads. */
START_TEST(a_score_is_the_rms_over_rows_of_error_over_spread)
{
    const double errors[] = {1, 2, 2, 4};
    test_evidence *e = rows_with_errors(4, errors);
    e->taps[TAP].sigma[2] = 2;
    e->taps[TAP].sigma[3] = 4;
    gemma4_score s = gemma4_score_tap(&e->evidence, TAP, &ALL);
    ck_assert_uint_eq(s.rows, 4);
    ck_assert_double_eq_tol(s.score, sqrt(7.0 / 4), 1e-12);
    ck_assert(s.worst == 2 && s.position == 1);
    /* (1 + 4 + 4 + 16) 2 over 4 rows of 2 */
    ck_assert_double_eq_tol(s.relative_rms, sqrt(25.0 / 4), 1e-12);
    test_evidence_free(e);
}
END_TEST

START_TEST(only_rows_that_can_be_compared_count)
{
    const double errors[] = {1, 5, 7, 9};
    const bool skip[] = {false, false, true, false};
    const gemma4_against but_one = {.skip = skip}, first_three = {.positions = 3},
                         both = {.skip = skip, .positions = 3};
    test_evidence *e = rows_with_errors(4, errors);
    e->taps[TAP].have[1] = false;
    ck_assert(gemma4_score_tap(&e->evidence, TAP, &ALL).worst == 9);
    ck_assert_uint_eq(gemma4_score_tap(&e->evidence, TAP, &ALL).rows, 3);
    ck_assert_uint_eq(gemma4_score_tap(&e->evidence, TAP, &but_one).rows, 2);
    ck_assert(gemma4_score_tap(&e->evidence, TAP, &first_three).worst == 7);
    ck_assert_uint_eq(gemma4_score_tap(&e->evidence, TAP, &both).rows, 1);
    ck_assert(gemma4_row_counts(&e->evidence, TAP, &both, 0) &&
              !gemma4_row_counts(&e->evidence, TAP, &both, 1));
    /* is not in the dump */
    ck_assert(!gemma4_row_counts(&e->evidence, GEMMA4_TAP_ATTN_Q, &ALL, 0));
    for (size_t row = 0; row < 4; row++)
        e->taps[TAP].have[row] = false;
    gemma4_score s = gemma4_score_tap(&e->evidence, TAP, &ALL);
    ck_assert(s.rows == 0 && s.score == 0 && s.relative_rms == 0);
    test_evidence_free(e);
}
END_TEST

/* The engine has 1 + 3 and 1 - 3. Beside other values the error is another one; beside larger ones
 * the spread grows with them, beside smaller ones it stays, unless it is asked to shrink. */
START_TEST(other_values_and_another_spread_may_take_the_place_of_what_was_expected)
{
    static const struct {
        double values[2], sigma, score;
    } cases[] = {
        {{1, 1}, 0, 3},                      /* the same values, the tap's own spread */
        {{1, 1}, 0.5, 6},                    /* another spread */
        {{4, -2}, 0, 0},                     /* what the engine has */
        {{2, 2}, 0, 1.5811388300841898},     /* errors of 2 and 4, of values twice as large:
                                                sqrt(10) / 2 */
        {{0.5, 0.5}, 0, 3.0413812651491097}, /* errors of 3.5 and 2.5: sqrt(18.5 / 2) */
        {{0, 0}, 0, 3.1622776601683795},     /* errors of 4 and 2: sqrt(10) */
    };
    const double error[] = {3};
    test_evidence *e = rows_with_errors(1, error);
    for (size_t i = 0; i < COUNT(cases); i++) {
        const gemma4_real values[] = {(gemma4_real)cases[i].values[0],
                                      (gemma4_real)cases[i].values[1]};
        const gemma4_against against = {.values = values,
                                        .sigma = cases[i].sigma != 0 ? &cases[i].sigma : NULL};
        ck_assert_double_eq_tol(gemma4_score_tap(&e->evidence, TAP, &against).score, cases[i].score,
                                1e-6);
    }
    const gemma4_real smaller[] = {0.5, 0.5, 0, 0};
    for (size_t i = 0; i < 2; i++) { /* half as large; nothing, which a rounding is left of */
        const gemma4_against against = {.values = smaller + 2 * i, .smaller = true};
        double times = i ? 1 / e->subject.tier->unit : 2;
        ck_assert_double_eq_tol(gemma4_score_tap(&e->evidence, TAP, &against).score,
                                times * (i ? 3.1622776601683795 : 3.0413812651491097),
                                1e-6 * times);
    }
    test_evidence_free(e);
}
END_TEST

/* Three positions, four heads: position 1 sees keys 0 and 1 of each head's 3. */
START_TEST(masked_scores_count_for_nothing_whatever_they_hold)
{
    static const float anything[] = {NAN, -INFINITY, 1e30f};
    for (size_t i = 0; i < COUNT(anything); i++) {
        test_evidence *e = test_evidence_new(NULL, 3, "float32", 0);
        test_tap *t = test_evidence_tap(e, GEMMA4_TAP_ATTN_SCORES, 0, NULL, NULL, NULL);
        for (size_t row = 0; row < 3; row++)
            for (size_t h = 0; h < 4; h++)
                for (size_t key = row + 1; key < 3; key++) {
                    t->expected[row * 12 + h * 3 + key] = 0; /* as a replay leaves it */
                    t->engine[row * 12 + h * 3 + key] = anything[i];
                }
        gemma4_tap_result r = judged(e, GEMMA4_TAP_ATTN_SCORES);
        ck_assert(r.verdict == GEMMA4_PASS && r.local.error == 0 && r.rows == 3);
        t->engine[12 + 2 * 3 + 1] = 1 + (float)sqrt(12) * 7; /* one visible score of position 1 */
        r = judged(e, GEMMA4_TAP_ATTN_SCORES);
        ck_assert(r.verdict == GEMMA4_DIVERGES && r.local.position == 1);
        ck_assert_double_eq_tol(r.local.error, 7 / sqrt(3), 1e-5); /* of all three rows */
        t->engine[12 + 2 * 3 + 1] = anything[i];
        t->have[1] = anything[i] == 1e30f; /* as a replay says */
        r = judged(e, GEMMA4_TAP_ATTN_SCORES);
        ck_assert(r.verdict == GEMMA4_DIVERGES && r.local.position == 1);
        ck_assert_int_eq(r.local.kind == GEMMA4_METRIC_NONFINITE_VALUES, i < 2);
        ck_assert(i == 2 || strstr(r.problem, "position 1, index 7") != NULL);
        test_evidence_free(e);
    }
}
END_TEST

/* --- verdicts of rows --- */

static const struct {
    double error;
    gemma4_verdict verdict;
    bool fails;
} OF_ALL_ROWS[] = {
    {0, GEMMA4_PASS, false},       {2.2, GEMMA4_PASS, false},     {2.25, GEMMA4_PASS, false},
    {2.3, GEMMA4_MARGINAL, false}, {2.9, GEMMA4_MARGINAL, false}, {3, GEMMA4_MARGINAL, false},
    {3.1, GEMMA4_DIVERGES, true},  {5, GEMMA4_DIVERGES, true},
};

START_TEST(all_rows_together_may_be_three_spreads_off)
{
    test_evidence *e = equal_errors(4, OF_ALL_ROWS[_i].error);
    gemma4_tap_result r = judged(e, TAP);
    ck_assert_int_eq(r.verdict, OF_ALL_ROWS[_i].verdict);
    ck_assert_int_eq(gemma4_rows_fail(&e->evidence, TAP), OF_ALL_ROWS[_i].fails);
    ck_assert_int_eq(r.local.kind, GEMMA4_METRIC_RMS_IN_SPREADS);
    ck_assert_double_eq_tol(r.local.error, OF_ALL_ROWS[_i].error, 1e-6);
    ck_assert(r.local.tolerance == 3);
    ck_assert_double_eq_tol(r.added, OF_ALL_ROWS[_i].error, 1e-6);
    ck_assert_str_eq(r.problem, "");
    test_evidence_free(e);
}
END_TEST

/* Together 16 rows are a quarter of that off: 1.5 spreads. */
static const struct {
    double error;
    gemma4_verdict verdict;
    bool fails;
} OF_ONE_ROW[] = {
    {4.4, GEMMA4_PASS, false},
    {4.6, GEMMA4_MARGINAL, false},
    {5.9, GEMMA4_MARGINAL, false},
    {6.1, GEMMA4_DIVERGES, true},
};

START_TEST(one_row_may_be_six_spreads_off)
{
    test_evidence *e = one_bad_row(OF_ONE_ROW[_i].error);
    gemma4_tap_result r = judged(e, TAP);
    ck_assert_int_eq(r.verdict, OF_ONE_ROW[_i].verdict);
    ck_assert_int_eq(gemma4_rows_fail(&e->evidence, TAP), OF_ONE_ROW[_i].fails);
    ck_assert_int_eq(r.local.kind, GEMMA4_METRIC_WORST_POSITION_IN_SPREADS);
    ck_assert_double_eq_tol(r.local.error, OF_ONE_ROW[_i].error, 1e-6);
    ck_assert(r.local.tolerance == 6 && r.local.position == 9);
    test_evidence_free(e);
}
END_TEST

START_TEST(nothing_that_is_no_number_passes)
{
    ck_assert_int_eq(gemma4_verdict_of((double)NAN, 3), GEMMA4_DIVERGES);
    ck_assert_int_eq(gemma4_verdict_of(INFINITY, 3), GEMMA4_DIVERGES);
    ck_assert_int_eq(gemma4_verdict_of(1, (double)NAN), GEMMA4_DIVERGES);
    ck_assert_int_eq(gemma4_verdict_of(0, 0), GEMMA4_PASS);
    ck_assert_int_eq(gemma4_verdict_of(1, 0), GEMMA4_DIVERGES);
    test_evidence *e = equal_errors(4, 0);
    e->taps[TAP].expected[4] = NAN; /* of the reference: then nothing is known to be right */
    ck_assert(gemma4_rows_fail(&e->evidence, TAP));
    ck_assert_int_eq(judged(e, TAP).verdict, GEMMA4_DIVERGES);
    test_evidence_free(e);
}
END_TEST

START_TEST(values_that_are_not_finite_fail_with_their_place_and_the_other_rows_are_judged)
{
    test_evidence *e = one_bad_row(1);
    test_tap *t = e->taps + TAP;
    t->engine[2 * 3 + 1] = NAN;
    t->have[3] = false; /* as a replay says */
    gemma4_tap_result r = judged(e, TAP);
    ck_assert_int_eq(r.verdict, GEMMA4_DIVERGES);
    ck_assert_int_eq(r.local.kind, GEMMA4_METRIC_NONFINITE_VALUES);
    ck_assert(r.local.error == 1 && r.local.tolerance == 0 && r.local.position == 3);
    ck_assert_str_eq(r.problem, "1 value is NaN or infinite, the first at position 3, index 1");
    ck_assert(r.rows == 15 && r.rows_left_out == 1);
    ck_assert(!gemma4_rows_fail(&e->evidence, TAP)); /* there is nothing for a cause to explain */
    t->engine[2 * 9] = 1e6f;
    ck_assert(gemma4_rows_fail(&e->evidence, TAP)); /* in another row there is */
    t->engine[2 * 5] = INFINITY;
    t->have[5] = t->stored_row[4] = t->have[4] = false;
    t->engine[2 * 4] = NAN; /* in a row that the dump does not hold */
    r = judged(e, TAP);
    ck_assert_str_eq(r.problem, "2 values are NaN or infinite, the first at position 3, index 1");
    ck_assert(r.rows == 13 && r.rows_left_out == 2);
    test_evidence_free(e);
}
END_TEST

/* --- bias --- */

/* Rows of expected 1 of which the engine has 1 + part, with a spread so large that no row fails,
 * and draws that have a part along them. */
static test_evidence *biased(size_t T, const char *tier, gemma4_tap tap, double part,
                             const double draws[GEMMA4_DRAWS])
{
    test_evidence *e = test_evidence_new(NULL, T, tier, tap == GEMMA4_TAP_EMBED ? -1 : 0);
    test_tap *t = test_evidence_tap(e, tap, 2, NULL, NULL, NULL);
    for (size_t i = 0; i < 2 * T; i++)
        t->engine[i] = (float)(1 + part);
    test_draws_along(e, tap, draws);
    return e;
}

static const double NO_DRAWS[GEMMA4_DRAWS] = {0},
                    EITHER_WAY[GEMMA4_DRAWS] = {0.25, -0.25, 0.25, -0.25, 0.25, -0.25};

/* In all draws all rows are 0.25 too large or too small: so is their mean. */
START_TEST(the_spread_of_a_bias_is_that_of_the_draws_means)
{
    for (size_t T = 4; T <= 16; T += 6) {
        test_evidence *e = biased(T, "bfloat16", TAP, -0.5, EITHER_WAY);
        gemma4_bias bias = gemma4_bias_of_tap(&e->evidence, TAP);
        ck_assert_double_eq_tol(bias.part, -0.5, 1e-6);
        ck_assert_double_eq_tol(bias.in_spreads, 2, 1e-6);
        test_evidence_free(e);
    }
}
END_TEST

/* Rows that err by 0.25 each, one up and the next down, have a mean of 0 in every draw, by chance:
 * 16 independent ones have one of 0.25 / 4. */
START_TEST(the_spread_of_a_bias_is_at_least_that_of_independent_rows)
{
    test_evidence *e = biased(16, "bfloat16", TAP, 0.5, EITHER_WAY);
    for (size_t d = 0; d < GEMMA4_DRAWS; d++)
        for (size_t i = 0; i < 32; i++)
            e->taps[TAP].draws[d][i] *= i / 2 % 2 ? 1 : -1;
    ck_assert_double_eq_tol(gemma4_bias_of_tap(&e->evidence, TAP).in_spreads, 8, 1e-6);
    test_evidence_free(e);
}
END_TEST

/* Where the draws show nothing: a tenth of the tier's unit; half of it where the rounded root of
 * the hidden size is a factor; one unit of float32, and no less. A part of 2^-8 or of 2^-20 is
 * ... */
static const struct {
    const char *tier;
    gemma4_tap tap;
    double part, in_spreads;
} LEAST[] = {
    {"bfloat16", TAP, 0x1p-8, 10},
    {"bfloat16", GEMMA4_TAP_EMBED, 0x1p-8, 2},
    {"bfloat16", GEMMA4_TAP_ROUTER_NORM, 0x1p-8, 2},
    {"float16", TAP, 0x1p-11, 10},
    {"float16", GEMMA4_TAP_EMBED, 0x1p-11, 2},
    {"float16", GEMMA4_TAP_ATTN_NORM, 0x1p-11, 10},
    {"float32", TAP, 0x1p-20, 16},
    {"float32", GEMMA4_TAP_EMBED, 0x1p-20, 16},
    {"float32", GEMMA4_TAP_ROUTER_NORM, 0x1p-20, 16},
};

START_TEST(a_bias_is_never_held_against_less_than_a_part_of_a_unit)
{
    test_evidence *e = biased(4, LEAST[_i].tier, LEAST[_i].tap, LEAST[_i].part, NO_DRAWS);
    ck_assert_double_eq_tol(gemma4_bias_of_tap(&e->evidence, LEAST[_i].tap).in_spreads,
                            LEAST[_i].in_spreads, 1e-3);
    test_evidence_free(e);
}
END_TEST

/* Of five positions all visible scores are half as large again. */
START_TEST(masked_scores_are_no_part_of_a_bias)
{
    test_evidence *e = test_evidence_new(NULL, 5, "bfloat16", 5);
    test_tap *t = test_evidence_tap(e, GEMMA4_TAP_ATTN_SCORES, 0, NULL, NULL, NULL);
    for (size_t row = 0; row < 5; row++)
        for (size_t i = 0; i < 4 * 5; i++) {
            t->expected[row * 20 + i] = i % 5 <= row;
            t->engine[row * 20 + i] = i % 5 <= row ? 1.5f : NAN;
        }
    test_draws_along(e, GEMMA4_TAP_ATTN_SCORES, EITHER_WAY);
    gemma4_bias bias = gemma4_bias_of_tap(&e->evidence, GEMMA4_TAP_ATTN_SCORES);
    ck_assert_double_eq_tol(bias.part, 0.5, 1e-6);
    ck_assert_double_eq_tol(bias.in_spreads, 2, 1e-6);
    test_evidence_free(e);
}
END_TEST

START_TEST(three_rows_are_too_few_for_a_bias)
{
    test_evidence *three = biased(3, "bfloat16", TAP, 0.5, NO_DRAWS),
                  *four = biased(4, "bfloat16", TAP, 0.5, NO_DRAWS);
    gemma4_bias bias = gemma4_bias_of_tap(&three->evidence, TAP);
    ck_assert(bias.part == 0 && bias.in_spreads == 0);
    ck_assert(gemma4_bias_of_tap(&four->evidence, TAP).in_spreads > 0);
    four->taps[TAP].have[2] = false; /* of four only three that can be compared */
    ck_assert(gemma4_bias_of_tap(&four->evidence, TAP).in_spreads == 0);
    four->taps[TAP].have[2] = true;
    four->taps[TAP].expected[4] = four->taps[TAP].expected[5] = 0; /* or one that has no size */
    ck_assert(gemma4_bias_of_tap(&four->evidence, TAP).in_spreads == 0);
    /* is not in the dump */
    ck_assert(gemma4_bias_of_tap(&four->evidence, GEMMA4_TAP_ATTN_Q).in_spreads == 0);
    test_evidence_free(three);
    test_evidence_free(four);
}
END_TEST

/* The spread is 0.25: four of them are 1. */
static const struct {
    double part;
    gemma4_verdict verdict;
    const char *problem;
} OF_BIAS[] = {
    {0.7, GEMMA4_PASS, ""}, /* 2.8, and 0.7 of a row's own spread */
    {0.8, GEMMA4_MARGINAL, ""},
    {0.97, GEMMA4_MARGINAL, ""},
    {1.03, GEMMA4_DIVERGES,
     "all positions together are 1e+02 % too large: rounding may do that to one, not to all"},
    {-1.03, GEMMA4_DIVERGES,
     "all positions together are 1e+02 % too small: rounding may do that to one, not to all"},
};

START_TEST(all_rows_may_be_four_spreads_of_their_mean_too_large)
{
    test_evidence *e = biased(4, "bfloat16", TAP, OF_BIAS[_i].part, EITHER_WAY);
    gemma4_tap_result r = judged(e, TAP);
    ck_assert_int_eq(r.local.kind, GEMMA4_METRIC_BIAS_IN_SPREADS);
    ck_assert_double_eq_tol(r.local.error, 4 * fabs(OF_BIAS[_i].part), 1e-5);
    ck_assert(r.local.tolerance == 4);
    ck_assert_int_eq(r.verdict, OF_BIAS[_i].verdict);
    ck_assert_str_eq(r.problem, OF_BIAS[_i].problem);
    ck_assert(!gemma4_rows_fail(&e->evidence, TAP)); /* that is for the filters to explain */
    test_evidence_free(e);
}
END_TEST

/* --- verdicts of ids --- */

START_TEST(ids_fail_by_their_faults_alone)
{
    static const struct {
        size_t decisions, excused, faults;
        gemma4_verdict verdict;
        const char *problem;
    } cases[] = {
        {12, 0, 0, GEMMA4_PASS, ""},
        {12, 2, 0, GEMMA4_EXCUSED, ""},
        {0, 0, 0, GEMMA4_NOT_COVERED, ""}, /* all of them follow from NaN */
        {12, 0, 1, GEMMA4_DIVERGES,
         "at 1 position the experts are not those of the engine's own router logits, first at "
         "position 3"},
        {12, 2, 5, GEMMA4_DIVERGES,
         "at 5 positions the experts are not those of the engine's own router logits, first at "
         "position 3"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        const gemma4_routing counts = {.decisions = cases[i].decisions,
                                       .excused = cases[i].excused,
                                       .faults = cases[i].faults};
        const gemma4_routing_verdict v = {.counts = counts, .first_fault = 3, .left_out = 2};
        gemma4_tap_result r = {0};
        gemma4_judge_ids(&v, &r);
        ck_assert_int_eq(r.verdict, cases[i].verdict);
        ck_assert_str_eq(r.problem, cases[i].problem);
        ck_assert(r.rows == cases[i].decisions && r.rows_left_out == 2);
        ck_assert(r.local.kind == GEMMA4_METRIC_EXPERT_SETS &&
                  r.local.error == (double)cases[i].faults && r.local.tolerance == 0);
    }
}
END_TEST

Suite *score_suite(void)
{
    Suite *suite = suite_create("score");
    TCase *c = tcase_create("score");
    tcase_add_test(c, a_score_is_the_rms_over_rows_of_error_over_spread);
    tcase_add_test(c, only_rows_that_can_be_compared_count);
    tcase_add_test(c, other_values_and_another_spread_may_take_the_place_of_what_was_expected);
    tcase_add_test(c, masked_scores_count_for_nothing_whatever_they_hold);
    tcase_add_loop_test(c, all_rows_together_may_be_three_spreads_off, 0, COUNT(OF_ALL_ROWS));
    tcase_add_loop_test(c, one_row_may_be_six_spreads_off, 0, COUNT(OF_ONE_ROW));
    tcase_add_test(c, nothing_that_is_no_number_passes);
    tcase_add_test(c,
                   values_that_are_not_finite_fail_with_their_place_and_the_other_rows_are_judged);
    tcase_add_test(c, the_spread_of_a_bias_is_that_of_the_draws_means);
    tcase_add_test(c, the_spread_of_a_bias_is_at_least_that_of_independent_rows);
    tcase_add_loop_test(c, a_bias_is_never_held_against_less_than_a_part_of_a_unit, 0,
                        COUNT(LEAST));
    tcase_add_test(c, masked_scores_are_no_part_of_a_bias);
    tcase_add_test(c, three_rows_are_too_few_for_a_bias);
    tcase_add_loop_test(c, all_rows_may_be_four_spreads_of_their_mean_too_large, 0, COUNT(OF_BIAS));
    tcase_add_test(c, ids_fail_by_their_faults_alone);
    suite_add_tcase(suite, c);
    return suite;
}
