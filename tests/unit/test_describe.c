/* Descriptions (tests/check/describe.h): what is said of an error, on evidence whose error is made
 * by hand. */
#include "describe.h"
#include "evidence_maker.h"
#include "suites.h"
#include "support.h"

#include <math.h>

static test_evidence *evidence;
static test_tap *tap;
static char text[300];

/* A tap of T rows and `width` lanes in one head, or of 4 heads; every expected value is another
 * one. */
static void set_tap(size_t T, gemma4_tap which, size_t width)
{
    evidence = test_evidence_new(NULL, T, "float32", 0);
    tap = test_evidence_tap(evidence, which, width, NULL, NULL, NULL);
    for (size_t i = 0; i < T * tap->width; i++) {
        tap->expected[i] = (gemma4_real)((i * 7919 + 13) % 101) + 1;
        tap->engine[i] = (float)tap->expected[i];
    }
}

static const char *describe(gemma4_tap which)
{
    gemma4_error error = {""};
    ck_assert_int_eq(gemma4_describe_error(&evidence->evidence, which, text, sizeof text, &error),
                     0);
    test_evidence_free(evidence);
    return text;
}

/* --- as a whole --- */

START_TEST(zeros_are_called_zeros)
{
    set_tap(4, GEMMA4_TAP_ATTN_NORM, 9);
    memset(tap->engine, 0, 4 * 9 * sizeof *tap->engine);
    ck_assert_str_eq(describe(GEMMA4_TAP_ATTN_NORM), "all values are 0");
}
END_TEST

/* All expected values are 1, the engine's 2 + or - x: the ratio is 2, and leaves x^2 of 1 + x^2. */
static const struct {
    double left;
    bool said;
} LEFT[] = {{0, true}, {0.019, true}, {0.021, false}};

START_TEST(a_constant_factor_leaves_next_to_nothing)
{
    double x = sqrt(LEFT[_i].left / (1 - LEFT[_i].left));
    set_tap(6, GEMMA4_TAP_ATTN_NORM, 10);
    for (size_t i = 0; i < 60; i++) {
        tap->expected[i] = 1;
        tap->engine[i] = (float)(i % 2 ? 2 + x : 2 - x);
    }
    describe(GEMMA4_TAP_ATTN_NORM);
    ck_assert_int_eq(strstr(text, "the expected values times a constant, 2") != NULL,
                     LEFT[_i].said);
}
END_TEST

START_TEST(an_error_without_a_shape_is_told_by_its_norm)
{
    set_tap(6, GEMMA4_TAP_ATTN_NORM, 12);
    for (size_t i = 0; i < 72; i++) {
        tap->expected[i] = i % 3 ? 1 : -1;
        tap->engine[i] = i % 5 ? 2 : -2;
    }
    ck_assert_str_eq(
        describe(GEMMA4_TAP_ATTN_NORM),
        "spread over all positions and lanes; norm of yours / norm of the expected = 2.000000");
}
END_TEST

START_TEST(where_nothing_was_expected_there_is_no_ratio)
{
    set_tap(6, GEMMA4_TAP_ATTN_NORM, 12);
    for (size_t i = 0; i < 72; i++) {
        tap->expected[i] = 0;
        tap->engine[i] = (float)(i % 5) - 7;
    }
    ck_assert_str_eq(
        describe(GEMMA4_TAP_ATTN_NORM),
        "spread over all positions and lanes; norm of yours / norm of the expected = 0.000000");
}
END_TEST

/* --- places --- */

/* At the rows' lane 0 and others in turn, so that no lane holds the error. */
static void spoil_row(size_t row, double energy)
{
    for (size_t i = 0; i < tap->width; i++)
        tap->engine[row * tap->width + i] += (float)sqrt(energy / (double)tap->width);
}

/* Few are a third of all. */
static const struct {
    size_t rows, wrong;
    const char *said;
} FEW[] = {
    {3, 1, "only in positions 0"},
    {4, 1, "only in positions 0"},
    {5, 2, NULL},
    {6, 2, "only in positions 0, 1"},
    {6, 3, NULL},
    {2, 1, NULL},
    {1, 1, NULL},
    {8, 3, NULL},
    {9, 3, "only in positions 0, 1, 2"},
};

START_TEST(a_few_positions_are_listed)
{
    set_tap(FEW[_i].rows, GEMMA4_TAP_ATTN_NORM, 12);
    for (size_t row = 0; row < FEW[_i].wrong; row++)
        spoil_row(row, 1);
    describe(GEMMA4_TAP_ATTN_NORM);
    if (FEW[_i].said)
        ck_assert_str_eq(text, FEW[_i].said);
    else
        ck_assert_ptr_null(strstr(text, "only in"));
}
END_TEST

/* Two of six may be listed: the one that holds most, and one of the five that share the rest. */
static const struct {
    double largest;
    const char *said;
} SHARES[] = {{0.982, "only in positions 4"},
              {0.979, "only in positions 0, 4"},
              {0.9755, "only in positions 0, 4"},
              {0.974, NULL}};

START_TEST(the_positions_listed_hold_nearly_all_of_the_error)
{
    set_tap(6, GEMMA4_TAP_ATTN_NORM, 12);
    for (size_t row = 0; row < 6; row++)
        spoil_row(row, 1e4 * (row == 4 ? SHARES[_i].largest
                                       : (1 - SHARES[_i].largest) / 5 + (row == 0 ? 1e-6 : 0)));
    describe(GEMMA4_TAP_ATTN_NORM);
    if (SHARES[_i].said)
        ck_assert_str_eq(text, SHARES[_i].said);
    else
        ck_assert_ptr_null(strstr(text, "only in"));
}
END_TEST

/* attn.q of the small model has 4 heads of 8 lanes. */
START_TEST(a_head_is_named)
{
    set_tap(6, GEMMA4_TAP_ATTN_Q, 0);
    ck_assert_uint_eq(tap->width, 32);
    for (size_t row = 0; row < 6; row++)
        for (size_t i = 8; i < 16; i++)
            tap->engine[row * 32 + i] += 1 + (float)(i % 3);
    ck_assert_str_eq(describe(GEMMA4_TAP_ATTN_Q), "only in heads 1");
}
END_TEST

START_TEST(lanes_are_counted_within_their_head)
{
    set_tap(6, GEMMA4_TAP_ATTN_Q, 0);
    for (size_t i = 0; i < 6 * 32; i++)
        if (i % 8 == 2 || i % 8 == 7)
            tap->engine[i] += 1;
    ck_assert_str_eq(describe(GEMMA4_TAP_ATTN_Q), "only in lanes 2, 7");
}
END_TEST

START_TEST(of_many_lanes_eight_are_listed)
{
    set_tap(6, GEMMA4_TAP_ATTN_NORM, 27);
    for (size_t i = 0; i < 6 * 27; i++)
        if (i % 27 < 8 + (size_t)_i)
            tap->engine[i] += 1;
    ck_assert_str_eq(describe(GEMMA4_TAP_ATTN_NORM),
                     _i ? "only in lanes 0, 1, 2, 3, 4, 5, 6, 7 ... (9 of 27)"
                        : "only in lanes 0, 1, 2, 3, 4, 5, 6, 7");
}
END_TEST

START_TEST(places_are_told_together)
{
    set_tap(6, GEMMA4_TAP_ATTN_Q, 0);
    tap->engine[3 * 32 + 2 * 8 + 5] += 1;
    ck_assert_str_eq(describe(GEMMA4_TAP_ATTN_Q),
                     "only in positions 3; only in heads 2; only in lanes 5");
}
END_TEST

/* --- order --- */

START_TEST(heads_in_another_order_are_recognised)
{
    set_tap(6, GEMMA4_TAP_ATTN_Q, 0);
    for (size_t row = 0; row < 6; row++)
        for (size_t i = 0; i < 32; i++)
            tap->engine[row * 32 + i] = (float)tap->expected[row * 32 + (i + 8) % 32];
    ck_assert_str_eq(describe(GEMMA4_TAP_ATTN_Q), "the heads are in another order");
}
END_TEST

START_TEST(shifted_lanes_are_recognised)
{
    set_tap(6, GEMMA4_TAP_ATTN_Q, 0);
    for (size_t row = 0; row < 6; row++)
        for (size_t i = 0; i < 32; i++)
            tap->engine[row * 32 + i] = (float)tap->expected[row * 32 + i / 8 * 8 + (i + 3) % 8];
    ck_assert_str_eq(describe(GEMMA4_TAP_ATTN_Q), "the lanes are shifted by 3");
}
END_TEST

/* A shift with noise on top: what it leaves, as a part of the whole error. */
START_TEST(a_shift_leaves_next_to_nothing)
{
    double total = 0;
    set_tap(6, GEMMA4_TAP_ATTN_NORM, 30);
    for (size_t row = 0; row < 6; row++)
        for (size_t i = 0; i < 30; i++)
            total += pow((double)tap->expected[row * 30 + (i + 1) % 30] -
                             (double)tap->expected[row * 30 + i],
                         2);
    for (size_t row = 0; row < 6; row++)
        for (size_t i = 0; i < 30; i++)
            tap->engine[row * 30 + i] =
                (float)((double)tap->expected[row * 30 + (i + 1) % 30] +
                        (i % 2 ? 1 : -1) * sqrt((_i ? 0.025 : 0.016) * total / 180));
    ck_assert_int_eq(strstr(describe(GEMMA4_TAP_ATTN_NORM), "the lanes are shifted by 1") != NULL,
                     _i == 0);
}
END_TEST

/* The search takes the square of the width. */
START_TEST(shifts_of_wide_tensors_are_not_looked_for)
{
    size_t width = 1024 + (size_t)_i;
    set_tap(3, GEMMA4_TAP_ATTN_NORM, width);
    for (size_t row = 0; row < 3; row++)
        for (size_t i = 0; i < width; i++)
            tap->engine[row * width + i] = (float)tap->expected[row * width + (i + 1) % width];
    ck_assert_int_eq(strstr(describe(GEMMA4_TAP_ATTN_NORM), "the lanes are shifted by 1") != NULL,
                     _i == 0);
}
END_TEST

/* --- what does not count --- */

START_TEST(rows_that_cannot_be_compared_say_nothing)
{
    set_tap(6, GEMMA4_TAP_ATTN_NORM, 12);
    spoil_row(1, 1);
    spoil_row(2, 1e6);
    tap->have[2] = false;
    ck_assert_str_eq(describe(GEMMA4_TAP_ATTN_NORM), "only in positions 1");
}
END_TEST

/* Layer 0 sees 4 keys: at position 5 not the keys 0, 1. */
START_TEST(scores_that_are_masked_may_hold_anything)
{
    set_tap(6, GEMMA4_TAP_ATTN_SCORES, 0);
    ck_assert_uint_eq(tap->width, 4 * 6);
    tap->engine[5 * 24 + 1] = -1e30f;
    tap->engine[4 * 24 + 6 + 3] += 1;
    ck_assert_str_eq(describe(GEMMA4_TAP_ATTN_SCORES),
                     "only in positions 4; only in heads 1; only in lanes 3");
}
END_TEST

Suite *describe_suite(void)
{
    Suite *suite = suite_create("describe");
    TCase *c = tcase_create("describe");
    tcase_add_test(c, zeros_are_called_zeros);
    tcase_add_loop_test(c, a_constant_factor_leaves_next_to_nothing, 0, sizeof LEFT / sizeof *LEFT);
    tcase_add_test(c, an_error_without_a_shape_is_told_by_its_norm);
    tcase_add_test(c, where_nothing_was_expected_there_is_no_ratio);
    tcase_add_loop_test(c, a_few_positions_are_listed, 0, sizeof FEW / sizeof *FEW);
    tcase_add_loop_test(c, the_positions_listed_hold_nearly_all_of_the_error, 0,
                        sizeof SHARES / sizeof *SHARES);
    tcase_add_test(c, a_head_is_named);
    tcase_add_test(c, lanes_are_counted_within_their_head);
    tcase_add_loop_test(c, of_many_lanes_eight_are_listed, 0, 2);
    tcase_add_test(c, places_are_told_together);
    tcase_add_test(c, heads_in_another_order_are_recognised);
    tcase_add_test(c, shifted_lanes_are_recognised);
    tcase_add_loop_test(c, a_shift_leaves_next_to_nothing, 0, 2);
    tcase_add_loop_test(c, shifts_of_wide_tensors_are_not_looked_for, 0, 2);
    tcase_add_test(c, rows_that_cannot_be_compared_say_nothing);
    tcase_add_test(c, scores_that_are_masked_may_hold_anything);
    suite_add_tcase(suite, c);
    return suite;
}
