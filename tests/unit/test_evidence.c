/* Evidence (tests/check/evidence.h): which taps a block has, which entries may hold anything, and
 * how far rounding reaches. */
#include "evidence_maker.h"
#include "suites.h"
#include "support.h"
#include "thresholds.h"

#include <math.h>

enum { LAYERS = 6 };

START_TEST(a_block_is_the_embedding_a_layer_or_the_head)
{
    const gemma4_config *c = &test_small_model()->config;
    ck_assert(!gemma4_block_is_layer(c, -1));
    ck_assert(gemma4_block_is_layer(c, 0));
    ck_assert(gemma4_block_is_layer(c, LAYERS - 1));
    ck_assert(!gemma4_block_is_layer(c, LAYERS));
}
END_TEST

START_TEST(every_tap_is_in_exactly_one_kind_of_block)
{
    const gemma4_config *c = &test_small_model()->config;
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
        bool embedding = tap == GEMMA4_TAP_EMBED, head = tap >= GEMMA4_TAP_FINAL_NORM;
        ck_assert_int_eq(gemma4_tap_is_in(c, (gemma4_tap)tap, -1), embedding);
        ck_assert_int_eq(gemma4_tap_is_in(c, (gemma4_tap)tap, 0), !embedding && !head);
        ck_assert_int_eq(gemma4_tap_is_in(c, (gemma4_tap)tap, LAYERS - 1), !embedding && !head);
        ck_assert_int_eq(gemma4_tap_is_in(c, (gemma4_tap)tap, LAYERS), head);
    }
}
END_TEST

/* Window 4: on a sliding layer position 5 sees the keys 2 ... 5, on a full one 0 ... 5. The second
 * head's row begins at index 7. */
START_TEST(scores_of_the_future_and_beyond_the_window_are_masked)
{
    static const struct {
        gemma4_block layer;
        size_t first;
    } cases[] = {{0, 2}, {5, 0}};
    for (size_t i = 0; i < 2; i++) {
        test_evidence *e = test_evidence_new(NULL, 7, "float32", cases[i].layer);
        for (size_t key = 0; key < 7; key++)
            for (size_t head = 0; head < 2; head++)
                ck_assert_int_eq(
                    gemma4_evidence_masked(&e->evidence, GEMMA4_TAP_ATTN_SCORES, 5, head * 7 + key),
                    key < cases[i].first || key > 5);
        /* a probability in the future must be 0 */
        ck_assert(!gemma4_evidence_masked(&e->evidence, GEMMA4_TAP_ATTN_PROBS, 5, 6));
        ck_assert(!gemma4_evidence_masked(&e->evidence, GEMMA4_TAP_ATTN_Q, 5, 6));
        test_evidence_free(e);
    }
}
END_TEST

START_TEST(logits_are_stored_where_the_dump_has_their_row)
{
    test_evidence *e = test_evidence_new(NULL, 2, "float32", 0);
    test_evidence_unstored(e, GEMMA4_TAP_ROUTER_LOGITS, 0, NULL, NULL);
    ck_assert(!gemma4_logits_are_stored(&e->evidence, 0));
    test_evidence_tap(e, GEMMA4_TAP_ROUTER_LOGITS, 0, NULL, NULL, NULL)->have[1] = false;
    ck_assert(gemma4_logits_are_stored(&e->evidence, 0));
    ck_assert(!gemma4_logits_are_stored(&e->evidence, 1));
    test_evidence_free(e);
}
END_TEST

/* Two logits that err by sigma each: their difference errs by sqrt(2) sigma, and five of those may
 * be rounding. */
START_TEST(two_logits_are_a_near_tie_within_five_deviations_of_their_difference)
{
    const double sigma[] = {0.25, 2};
    test_evidence *e = test_evidence_new(NULL, 2, "float32", 0);
    test_evidence_unstored(e, GEMMA4_TAP_ROUTER_LOGITS, 0, NULL, sigma);
    ck_assert_double_eq_tol(gemma4_near_tie(&e->evidence, 0), 1.767767, 1e-6);
    ck_assert_double_eq_tol(gemma4_near_tie(&e->evidence, 1), 14.142136, 1e-6);
    test_evidence_free(e);
}
END_TEST

START_TEST(storage_rounds_by_the_coarser_of_arithmetic_and_dataset)
{
    static const struct {
        const char *tier, *stored;
        double unit;
    } cases[] = {
        {"float32", "float32", 0x1p-24}, {"float32", "bfloat16", 0x1p-8},
        {"float32", "float16", 0x1p-11}, {"bfloat16", "float32", 0x1p-8},
        {"bfloat16", "float16", 0x1p-8}, {"float16", "bfloat16", 0x1p-8},
        {"float32", "float64", 0x1p-24}, {"float16", "unheard-of", 0x1p-11},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_evidence *e = test_evidence_new(NULL, 1, cases[i].tier, 0);
        test_tap *t = test_evidence_tap(e, GEMMA4_TAP_ATTN_Q, 0, NULL, NULL, NULL);
        strcpy(t->stored.stored_dtype, cases[i].stored);
        ck_assert_msg(gemma4_storage_unit(&e->subject, &t->stored) == cases[i].unit, "%s in %s",
                      cases[i].stored, cases[i].tier);
        test_evidence_free(e);
    }
}
END_TEST

/* --- the yardstick --- */

/* Four rows of two values, whose draws are + and - 1. */
static test_evidence *with_draws(gemma4_block block)
{
    test_evidence *e = test_evidence_new(NULL, 4, "bfloat16", block);
    test_evidence_tap(e, GEMMA4_TAP_ATTN_OUT, 2, NULL, NULL, NULL);
    test_draws_alternate(e, GEMMA4_TAP_ATTN_OUT);
    return e;
}

static void clear_draws(test_evidence *e, size_t row)
{
    for (size_t d = 0; d < GEMMA4_DRAWS; d++)
        e->taps[GEMMA4_TAP_ATTN_OUT].draws[d][2 * row] =
            e->taps[GEMMA4_TAP_ATTN_OUT].draws[d][2 * row + 1] = 0;
}

static void spread(const test_evidence *e, double sigma[4])
{
    gemma4_spread_of_draws(&e->evidence, GEMMA4_TAP_ATTN_OUT, sigma);
}

START_TEST(the_spread_of_a_row_is_the_rms_of_its_draws)
{
    double sigma[4];
    test_evidence *e = with_draws(1);
    e->taps[GEMMA4_TAP_ATTN_OUT].draws[2][0] = 5; /* of 12 values one is 5 */
    e->taps[GEMMA4_TAP_ATTN_OUT].draws[3][6] = -7;
    spread(e, sigma);
    ck_assert_double_eq_tol(sigma[0], sqrt(36.0 / 12), 1e-12);
    ck_assert_double_eq_tol(sigma[1], 1, 1e-12);
    ck_assert_double_eq_tol(sigma[2], 1, 1e-12);
    ck_assert_double_eq_tol(sigma[3], sqrt(60.0 / 12), 1e-12);
    test_evidence_free(e);
}
END_TEST

/* The last row's draws are 0, by chance. Typical is the root of 3 / 4 of a row's size; where the
 * row itself is twice as large, of 3 / 7. */
START_TEST(a_row_that_the_draws_spared_has_half_of_a_typical_spread)
{
    double sigma[4];
    test_evidence *e = with_draws(3);
    clear_draws(e, 3);
    spread(e, sigma);
    ck_assert_double_eq_tol(sigma[3], 0.5 * sqrt(0.75), 1e-12);
    ck_assert_double_eq_tol(sigma[0], 1, 1e-12);
    e->taps[GEMMA4_TAP_ATTN_OUT].expected[6] = e->taps[GEMMA4_TAP_ATTN_OUT].expected[7] = -2;
    spread(e, sigma);
    ck_assert_double_eq_tol(sigma[3], 0.5 * sqrt(3.0 / 7) * 2, 1e-12);
    e->evidence.known_block = 2; /* one bridged block is this one: nothing came before it */
    spread(e, sigma);
    ck_assert_double_eq_tol(sigma[3], 0.5 * sqrt(3.0 / 7) * 2, 1e-12);
    e->evidence.known_block = 1; /* over several, all of it */
    spread(e, sigma);
    ck_assert_double_eq_tol(sigma[3], sqrt(3.0 / 7) * 2, 1e-12);
    test_evidence_free(e);
}
END_TEST

START_TEST(a_spread_is_at_least_three_tenths_of_a_rounding)
{
    double sigma[4];
    test_evidence *e = with_draws(1);
    for (size_t row = 0; row < 4; row++)
        clear_draws(e, row);
    e->taps[GEMMA4_TAP_ATTN_OUT].expected[2] = 7; /* an RMS of 5 */
    e->taps[GEMMA4_TAP_ATTN_OUT].expected[4] = e->taps[GEMMA4_TAP_ATTN_OUT].expected[5] = 0;
    spread(e, sigma);
    ck_assert_double_eq_tol(sigma[0], 0.3 * 0x1p-8, 1e-12);
    ck_assert_double_eq_tol(sigma[1], 0.3 * 0x1p-8 * 5, 1e-12);
    ck_assert(sigma[2] == 1e-30); /* zeros have to be zeros, but nothing is divided by 0 */
    for (size_t i = 0; i < 8; i++)
        e->taps[GEMMA4_TAP_ATTN_OUT].expected[i] = 0;
    spread(e, sigma);
    ck_assert(sigma[0] == 1e-30);
    test_evidence_free(e);
}
END_TEST

Suite *evidence_suite(void)
{
    Suite *suite = suite_create("evidence");
    TCase *c = tcase_create("evidence");
    tcase_add_test(c, a_block_is_the_embedding_a_layer_or_the_head);
    tcase_add_test(c, every_tap_is_in_exactly_one_kind_of_block);
    tcase_add_test(c, scores_of_the_future_and_beyond_the_window_are_masked);
    tcase_add_test(c, logits_are_stored_where_the_dump_has_their_row);
    tcase_add_test(c, two_logits_are_a_near_tie_within_five_deviations_of_their_difference);
    tcase_add_test(c, storage_rounds_by_the_coarser_of_arithmetic_and_dataset);
    tcase_add_test(c, the_spread_of_a_row_is_the_rms_of_its_draws);
    tcase_add_test(c, a_row_that_the_draws_spared_has_half_of_a_typical_spread);
    tcase_add_test(c, a_spread_is_at_least_three_tenths_of_a_rounding);
    suite_add_tcase(suite, c);
    return suite;
}
