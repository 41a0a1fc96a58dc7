/* Every ggml block type, bit for bit against the values of the Python package gguf
 * (golden/gguf). */
#include "blocks.h"
#include "quantised.h"
#include "safetensors.h"
#include "suites.h"
#include "support.h"

#include <stdio.h>
#include <stdlib.h>

static gemma4_safetensors *expected;

static void open_expected(void)
{
    gemma4_error error = {""};
    expected = gemma4_safetensors_open("golden/gguf/blocks.safetensors", &error);
    ck_assert_msg(expected != NULL, "%s", error.message);
}

static void close_expected(void)
{
    gemma4_safetensors_close(expected);
}

static const gemma4_tensor *expected_of(const char *type, const char *what)
{
    char name[32];
    snprintf(name, sizeof name, "%s.%s", type, what);
    const gemma4_tensor *tensor = gemma4_safetensors_find(expected, name);
    ck_assert_msg(tensor != NULL, "%s", name);
    return tensor;
}

static size_t type_count(void)
{
    size_t count = 0;
    while (gemma4_block_type_at(count))
        count++;
    return count;
}

START_TEST(bits_are_those_of_the_package)
{
    for (size_t i = 0; i < type_count(); i++) {
        const gemma4_block_type *type = gemma4_block_type_at(i);
        const gemma4_tensor *blocks = expected_of(type->name, "blocks"),
                            *values = expected_of(type->name, "values");
        size_t count = values->size / sizeof(float) / type->values;
        ck_assert_uint_ge(count, 4);
        ck_assert_msg(blocks->size == count * type->bytes, "%s: expected %zu bytes a block",
                      type->name, blocks->size / count);
        for (size_t block = 0; block < count; block++) {
            const float *wanted = (const float *)values->data + block * type->values;
            float found[GEMMA4_BLOCK_VALUES];
            type->decode(found, (const unsigned char *)blocks->data + block * type->bytes);
            for (size_t v = 0; v < type->values; v++)
                ck_assert_msg(!memcmp(&found[v], &wanted[v], sizeof *found),
                              "%s, block %zu, value %zu: expected %a, found %a", type->name, block,
                              v, (double)wanted[v], (double)found[v]);
        }
    }
}
END_TEST

/* A decoder that passes over a bit would show: in one block or another each of them changes a
 * value. */
START_TEST(every_bit_of_a_block_matters)
{
    for (size_t i = 0; i < type_count(); i++) {
        const gemma4_block_type *type = gemma4_block_type_at(i);
        const gemma4_tensor *blocks = expected_of(type->name, "blocks");
        size_t count = blocks->size / type->bytes, idle = 0;
        for (size_t bit = 0; bit < 8 * type->bytes; bit++) {
            bool changes = false;
            for (size_t block = 0; block < count && !changes; block++) {
                unsigned char changed[1024];
                float before[GEMMA4_BLOCK_VALUES], after[GEMMA4_BLOCK_VALUES];
                memcpy(changed, (const unsigned char *)blocks->data + block * type->bytes,
                       type->bytes);
                type->decode(before, changed);
                changed[bit / 8] ^= (unsigned char)(1 << bit % 8);
                type->decode(after, changed);
                changes = memcmp(before, after, type->values * sizeof *before) != 0;
            }
            idle += !changes;
        }
        ck_assert_msg(idle == 0, "%s: %zu bits change nothing", type->name, idle);
    }
}
END_TEST

START_TEST(numbers_and_names_are_once_each)
{
    ck_assert_uint_eq(type_count(), 17);
    for (size_t i = 0; i < type_count(); i++) {
        const gemma4_block_type *type = gemma4_block_type_at(i);
        ck_assert_ptr_eq(gemma4_block_type_of(type->id), type);
        ck_assert_uint_le(type->values, GEMMA4_BLOCK_VALUES);
        ck_assert_int_eq(type->dtype == GEMMA4_QUANTISED, type->values > 1);
    }
    ck_assert_ptr_null(gemma4_block_type_of(4)); /* Q4_2, which ggml has given up */
    ck_assert_ptr_null(gemma4_block_type_of(UINT32_MAX));
}
END_TEST

/* Two parts, of which the first has a factor for each matrix: rows 0 and 1 of a matrix are the
 * first part's, 2 and 3 the second's. */
START_TEST(rows_of_two_parts_alternate)
{
    enum { MATRICES = 2, ROWS = 2, COLS = 64 };
    const gemma4_block_type *q4 = gemma4_block_type_of(2), *q8 = gemma4_block_type_of(8);
    const unsigned char *first = expected_of("Q4_0", "blocks")->data,
                        *second = expected_of("Q8_0", "blocks")->data;
    const float *first_values = expected_of("Q4_0", "values")->data,
                *second_values = expected_of("Q8_0", "values")->data;
    const float scales[MATRICES] = {2, -0.5f};
    const gemma4_quantised weight = {.part_count = 2,
                                     .rows = ROWS,
                                     .parts = {
                                         {.type = q4,
                                          .data = first,
                                          .row_bytes = 2 * q4->bytes,
                                          .scales = scales,
                                          .scale_count = MATRICES},
                                         {.type = q8, .data = second, .row_bytes = 2 * q8->bytes},
                                     }};
    for (size_t row = 0; row < MATRICES * 2 * ROWS; row++) {
        size_t matrix = row / (2 * ROWS), of_part = matrix * ROWS + row % ROWS;
        bool is_second = row / ROWS % 2;
        float values[COLS];
        gemma4_quantised_row(values, &weight, row, COLS);
        for (size_t col = 0; col < COLS; col++) {
            float wanted = is_second ? second_values[of_part * COLS + col]
                                     : first_values[of_part * COLS + col] * scales[matrix];
            ck_assert_float_eq(values[col], wanted);
            ck_assert_float_eq(gemma4_quantised_at(&weight, row, col), wanted);
        }
    }
}
END_TEST

Suite *blocks_suite(void)
{
    Suite *suite = suite_create("blocks");
    TCase *all = tcase_create("all");
    tcase_add_unchecked_fixture(all, open_expected, close_expected);
    tcase_add_test(all, bits_are_those_of_the_package);
    tcase_add_test(all, every_bit_of_a_block_matters);
    tcase_add_test(all, numbers_and_names_are_once_each);
    tcase_add_test(all, rows_of_two_parts_alternate);
    suite_add_tcase(suite, all);
    return suite;
}
