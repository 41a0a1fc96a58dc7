/* Comparing rows in the way that suits the tap (tests/check/tap_compare.h). */
#include "evidence_maker.h"
#include "suites.h"
#include "support.h"
#include "tap_compare.h"

#include <math.h>

/* Row t of one tap of the small model: 4 experts of which 2 are chosen, 4 query heads, window 4 on
 * layer 0; a case of 6 positions. */
static gemma4_comparison compare(gemma4_tap tap, size_t layer, size_t t, size_t width,
                                 const float *engine, const int32_t *engine_ids,
                                 const float *expected, const int32_t *expected_ids)
{
    gemma4_error error = {""};
    gemma4_comparison c;
    ck_assert_int_eq(gemma4_comparison_init(&c, 6, &error), 0);
    gemma4_compare_row(&c, &test_small_model()->config, tap, layer, 6, t, width, engine, engine_ids,
                       expected, expected_ids);
    return c;
}

START_TEST(a_plain_row_is_compared_value_by_value)
{
    const float engine[] = {1, 2, 4}, expected[] = {1, 2, 3};
    gemma4_comparison c = compare(GEMMA4_TAP_ATTN_OUT, 0, 4, 3, engine, NULL, expected, NULL);
    ck_assert_uint_eq(c.values, 3);
    ck_assert(c.diff_t[4] == 1 && c.expected_t[4] == 14 && c.seen[4] && !c.seen[3]);
    ck_assert(c.worst_position == 4 && c.worst_index == 2 && c.worst_engine == 4 &&
              c.worst_expected == 3);
    gemma4_comparison_free(&c);
}
END_TEST

/* Slots of three values. The engine lists expert 3 first, the reference last; expert 1 is the
 * engine's alone. */
START_TEST(slots_are_compared_with_those_of_the_same_expert)
{
    const float engine[] = {1, 2, 3, 100, 100, 100}, expected[] = {50, 50, 50, 1, 2, 5};
    const int32_t engine_ids[] = {3, 1}, expected_ids[] = {2, 3}, others[] = {0, 2};
    gemma4_comparison c =
        compare(GEMMA4_TAP_MOE_ACT, 0, 0, 6, engine, engine_ids, expected, expected_ids);
    ck_assert_uint_eq(c.values, 3);
    ck_assert(c.diff_t[0] == 4 && c.expected_t[0] == 30);
    ck_assert_uint_eq(c.worst_index, 2); /* the index is the engine's */
    gemma4_comparison_free(&c);
    c = compare(GEMMA4_TAP_ROUTER_TOPK_WEIGHTS, 0, 0, 2, engine, engine_ids, expected, others);
    ck_assert(c.values == 0 && !c.seen[0]);
    gemma4_comparison_free(&c);
}
END_TEST

/* Position 4 of a sliding layer sees keys 1 ... 4 of 6; of a full one 0 ... 4. */
START_TEST(masked_scores_are_left_out_and_masked_probabilities_must_be_zero)
{
    float engine[24], expected[24];
    for (size_t i = 0; i < 24; i++) {
        engine[i] = i % 6 == 5 ? 7 : i % 6 == 0 ? NAN : 1;
        expected[i] = i % 6 == 5 || i % 6 == 0 ? 0 : 1;
    }
    gemma4_comparison c = compare(GEMMA4_TAP_ATTN_SCORES, 0, 4, 24, engine, NULL, expected, NULL);
    ck_assert(c.values == 16 && c.diff_t[4] == 0 && c.nonfinite == 0 && c.expected_t[4] == 16);
    gemma4_comparison_free(&c);
    c = compare(GEMMA4_TAP_ATTN_SCORES, 5, 4, 24, engine, NULL, expected, NULL);
    ck_assert(c.diff_t[4] == 0 && c.nonfinite == 4 && c.nonfinite_position == 4 &&
              c.nonfinite_index == 0);
    gemma4_comparison_free(&c);
    c = compare(GEMMA4_TAP_ATTN_PROBS, 0, 4, 24, engine, NULL, expected, NULL);
    ck_assert(c.diff_t[4] == 4 * 49 && c.nonfinite == 4 && c.worst_index == 5);
    gemma4_comparison_free(&c);
}
END_TEST

Suite *tap_compare_suite(void)
{
    Suite *suite = suite_create("tap_compare");
    TCase *c = tcase_create("tap_compare");
    tcase_add_test(c, a_plain_row_is_compared_value_by_value);
    tcase_add_test(c, slots_are_compared_with_those_of_the_same_expert);
    tcase_add_test(c, masked_scores_are_left_out_and_masked_probabilities_must_be_zero);
    suite_add_tcase(suite, c);
    return suite;
}
