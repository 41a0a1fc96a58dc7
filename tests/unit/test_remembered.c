/* Products that are remembered are those that would be computed. */
#include "ops.h"
#include "remembered.h"
#include "suites.h"
#include "support.h"

#include <stdlib.h>

enum { T = 2, ROWS = 5, COLS = 7 };

static gemma4_real x[T * COLS], y[T * ROWS];
static float data[ROWS * COLS], *scratch;
static const gemma4_weight w = {GEMMA4_F32, data, ROWS, COLS};
static gemma4_remembered *memory;

static void set_up(void)
{
    const gemma4_ops ops = gemma4_ops_remembering();
    scratch = malloc(ops.scratch(COLS, T, 1) * sizeof *scratch);
    memory = gemma4_remembered_new(1 << 16);
    ck_assert(scratch && memory);
    for (size_t i = 0; i < ROWS * COLS; i++)
        data[i] = (float)(i % 11) - 4;
    for (size_t i = 0; i < T * COLS; i++)
        x[i] = (gemma4_real)(i % 5) - 1;
    ck_assert_ptr_null(gemma4_remember_in(memory));
}

static void tear_down(void)
{
    ck_assert_ptr_eq(gemma4_remember_in(NULL), memory);
    gemma4_remembered_free(memory);
    free(scratch);
}

static void multiply(void)
{
    gemma4_ops_remembering().matmul(y, x, &w, T, scratch);
}

/* The weight changes behind the memory's back, which a model's never do: what comes is what was
 * kept. */
START_TEST(the_same_product_is_not_computed_again)
{
    multiply();
    gemma4_real first = y[0];
    data[0] += 1;
    y[0] = 99;
    multiply();
    ck_assert_double_eq((double)y[0], (double)first);
    gemma4_remember_in(NULL);
    multiply();
    ck_assert_double_eq((double)y[0], (double)first + (double)x[0]);
    gemma4_remember_in(memory);
}
END_TEST

START_TEST(another_input_is_another_product)
{
    multiply();
    gemma4_real first = y[ROWS];
    x[T * COLS - 1] += 1; /* the last value of all */
    multiply();
    ck_assert_double_eq((double)y[ROWS], (double)first + (double)data[COLS - 1]);
    x[T * COLS - 1] -= 1;
    multiply();
    ck_assert_double_eq((double)y[ROWS], (double)first);
}
END_TEST

/* Of rows that are remembered apart, each part is known where it comes again: alone, or beside
 * others. */
START_TEST(parts_of_a_product_are_remembered_apart)
{
    ck_assert_uint_eq(gemma4_remember_apart(1), 0);
    multiply();
    gemma4_real row_0 = y[0], row_1 = y[ROWS];
    data[0] += 1; /* so that what is computed from now on is another result */
    gemma4_remember_apart(0);
    gemma4_ops_remembering().matmul(y, x, &w, 1, scratch);
    ck_assert_double_eq((double)y[0], (double)row_0); /* the first row alone */
    multiply();
    ck_assert_double_eq((double)y[0], (double)row_0 + (double)x[0]); /* not both together */
    gemma4_remember_apart(1);
    x[0] += 1; /* one part is new, and the other one is known */
    multiply();
    ck_assert_double_eq((double)y[0], (double)row_0 + (double)x[0] + (double)data[0] - 1);
    ck_assert_double_eq((double)y[ROWS], (double)row_1);
    x[0] -= 1;
    x[COLS] += 1;
    multiply();
    ck_assert_double_eq((double)y[0], (double)row_0);
    ck_assert_double_eq((double)y[ROWS], (double)row_1 + (double)x[COLS] + (double)data[0] - 1);
    ck_assert_uint_eq(gemma4_remember_apart(0), 1);
}
END_TEST

START_TEST(other_experts_and_weights_are_other_products)
{
    static const float down[4] = {1, 2, 3, 4}; /* two experts of [2, 1] */
    const gemma4_weight stack = {GEMMA4_F32, down, 4, 1};
    const gemma4_ops ops = gemma4_ops_remembering();
    gemma4_real act[1] = {1}, weights[1] = {1}, out[2];
    int32_t ids[1] = {0};
    ops.experts_out(out, act, &stack, ids, weights, 1, 1, 2, scratch);
    ck_assert(out[0] == 1 && out[1] == 2);
    ids[0] = 1;
    ops.experts_out(out, act, &stack, ids, weights, 1, 1, 2, scratch);
    ck_assert(out[0] == 3 && out[1] == 4);
    weights[0] = 2;
    ops.experts_out(out, act, &stack, ids, weights, 1, 1, 2, scratch);
    ck_assert(out[0] == 6 && out[1] == 8);
}
END_TEST

START_TEST(the_oldest_make_room)
{
    gemma4_remembered *small = gemma4_remembered_new(400);
    ck_assert_ptr_nonnull(small);
    gemma4_remember_in(small);
    x[0] = 0;
    multiply();
    gemma4_real oldest = y[0];
    for (int i = 1; i < 20; i++) {
        x[0] = (gemma4_real)i;
        multiply();
        ck_assert_double_eq((double)y[0], (double)oldest + (double)data[0] * i);
    }
    gemma4_real latest = y[0];
    data[1] += 1;
    multiply(); /* is still there */
    ck_assert_double_eq((double)y[0], (double)latest);
    x[0] = 0;
    multiply(); /* is not */
    ck_assert_double_eq((double)y[0], (double)oldest + (double)x[1]);
    gemma4_remember_in(memory);
    gemma4_remembered_free(small);
}
END_TEST

Suite *remembered_suite(void)
{
    Suite *suite = suite_create("remembered");
    TCase *all = tcase_create("all");
    tcase_add_checked_fixture(all, set_up, tear_down);
    tcase_add_test(all, the_same_product_is_not_computed_again);
    tcase_add_test(all, another_input_is_another_product);
    tcase_add_test(all, parts_of_a_product_are_remembered_apart);
    tcase_add_test(all, other_experts_and_weights_are_other_products);
    tcase_add_test(all, the_oldest_make_room);
    suite_add_tcase(suite, all);
    return suite;
}
