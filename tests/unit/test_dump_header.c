/* golden/engines/gemma4_dump.h, the header that engines write dumps with: what it writes is read as
 * it was meant, and misuse is an error. */
#define GEMMA4_DUMP_IMPLEMENTATION
#include "../../golden/engines/gemma4_dump.h"

#include "activations.h"
#include "engines.h"
#include "suites.h"
#include "support.h"

#include <math.h>
#include <unistd.h>

static gemma4_dump *begin(const char *path)
{
    static const int tokens[3] = {2, 5, 7};
    gemma4_dump *dump = gemma4_dump_new(path, "my \"engine\"\\\n", "0.1", "bfloat16");
    ck_assert_ptr_nonnull(dump);
    ck_assert_int_eq(gemma4_dump_add(dump, "tokens", GEMMA4_DUMP_I32, 3, 1, tokens), 0);
    return dump;
}

START_TEST(what_is_written_is_read)
{
    enum { D = 64, V = 256, N = 1 };
    static float output[3 * D], logits[V];
    static const unsigned short embed[3 * D] = {[D] = 0x3f80 /* 1 */,
                                                [2 * D + 1] = 0xc000 /* -2 */};
    static const int ids[3] = {9, 8, 7}, last[1] = {2};
    gemma4_error error = {""};
    char *path = test_join(test_fresh_dir(), "mine.safetensors");
    float read[3 * D];
    int32_t read_ids[3];
    gemma4_dump *dump = begin(path);
    for (int i = 0; i < 3 * D; i++)
        output[i] = (float)i / 8;
    ck_assert_int_eq(gemma4_dump_attribute(dump, "case", "tiny-prompt"), 0);
    ck_assert_int_eq(gemma4_dump_add(dump, "layers.1.output", GEMMA4_DUMP_F32, 2, D, output), 0);
    ck_assert_int_eq(gemma4_dump_add(dump, "embed", GEMMA4_DUMP_BF16, 3, D, embed), 0);
    /* decoding goes on */
    ck_assert_int_eq(
        gemma4_dump_add(dump, "layers.1.output", GEMMA4_DUMP_F32, 1, D, output + 2 * D), 0);
    ck_assert_int_eq(gemma4_dump_add(dump, "logits", GEMMA4_DUMP_F32, 1, V, logits), 0);
    ck_assert_int_eq(gemma4_dump_rows(dump, "logits", last, 1), 0);
    ck_assert_int_eq(gemma4_dump_add(dump, "logprobs.ids", GEMMA4_DUMP_I32, 3, N, ids), 0);
    ck_assert_msg(gemma4_dump_write(dump) == 0, "%s", gemma4_dump_error(dump));
    gemma4_dump_free(dump);

    gemma4_activations *file = gemma4_activations_open(path, &test_golden_model()->config, &error);
    ck_assert_msg(file != NULL, "%s", error.message);
    ck_assert_str_eq(gemma4_activations_attribute(file, "engine"), "my \"engine\"\\\n");
    ck_assert_str_eq(gemma4_activations_attribute(file, "dtype"), "bfloat16");
    ck_assert_uint_eq(gemma4_activations_count(file), 4);
    const gemma4_activation *a = gemma4_activations_find(file, GEMMA4_TAP_LAYER_OUTPUT, 1);
    ck_assert(a && a->usable && a->rows == 3);
    ck_assert_int_eq(gemma4_activations_read(file, a, 0, 3, read, &error), 0);
    ck_assert_mem_eq(read, output, sizeof output);
    a = gemma4_activations_find(file, GEMMA4_TAP_EMBED, 0);
    ck_assert(a && a->usable && !strcmp(a->stored_dtype, "bfloat16"));
    ck_assert_int_eq(gemma4_activations_read(file, a, 0, 3, read, &error), 0);
    ck_assert(read[0] == 0 && read[D] == 1 && read[2 * D + 1] == -2);
    a = gemma4_activations_find(file, GEMMA4_TAP_LOGITS, 0);
    ck_assert(a && a->usable && a->rows == 1 && a->row_index[0] == 2);
    a = gemma4_activations_find(file, GEMMA4_TAP_LOGPROBS_IDS, 0);
    ck_assert(a && a->usable && gemma4_activations_read_ids(file, a, 0, 3, read_ids, &error) == 0);
    ck_assert(read_ids[0] == 9 && read_ids[2] == 7);
    gemma4_activations_close(file);
}
END_TEST

/* The first error stays, and nothing is written. */
START_TEST(misuse_is_an_error)
{
    static const float values[8] = {0};
    static const struct {
        const char *name;
        gemma4_dump_type type;
        size_t rows, width;
        const char *message;
    } bad[] = {
        {"logits", GEMMA4_DUMP_F32, 1, 4, "logits: another type or width than before"},
        {"logits", GEMMA4_DUMP_BF16, 1, 8, "logits: another type or width than before"},
        {"embed", GEMMA4_DUMP_F32, 0, 8, "embed: a shape without values, or too large"},
        {"embed", GEMMA4_DUMP_F32, 8, 0, "embed: a shape without values, or too large"},
        {"embed", GEMMA4_DUMP_F32, (size_t)-1 / 2, 8,
         "embed: a shape without values, or too large"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *path = test_join(test_fresh_dir(), "none.safetensors");
        gemma4_dump *dump = begin(path);
        ck_assert_int_eq(gemma4_dump_add(dump, "logits", GEMMA4_DUMP_F32, 1, 8, values), 0);
        ck_assert_int_eq(
            gemma4_dump_add(dump, bad[i].name, bad[i].type, bad[i].rows, bad[i].width, values), -1);
        ck_assert_int_eq(gemma4_dump_add(dump, "embed", GEMMA4_DUMP_F32, 1, 8, values), -1);
        ck_assert_int_eq(gemma4_dump_write(dump), -1);
        ck_assert_str_eq(gemma4_dump_error(dump), bad[i].message);
        ck_assert_int_ne(access(path, F_OK), 0);
        gemma4_dump_free(dump);
    }
}
END_TEST

START_TEST(an_attribute_comes_once_and_a_path_must_be_writable)
{
    gemma4_dump *dump = begin(test_join(test_fresh_dir(), "a.safetensors"));
    ck_assert_int_eq(gemma4_dump_attribute(dump, "dtype", "float32"), -1);
    ck_assert_str_eq(gemma4_dump_error(dump), "dtype: this attribute is there already");
    gemma4_dump_free(dump);
    dump = begin(test_join(test_fresh_dir(), "missing/a.safetensors"));
    ck_assert_int_eq(gemma4_dump_write(dump), -1);
    ck_assert_ptr_nonnull(strstr(gemma4_dump_error(dump), "cannot be written"));
    gemma4_dump_free(dump);
    ck_assert_int_eq(gemma4_dump_write(NULL), -1);
    ck_assert_str_eq(gemma4_dump_error(NULL), "out of memory");
    gemma4_dump_free(NULL);
}
END_TEST

/* The metadata entry that says which rows a tensor has is as hostile as any. */
START_TEST(bad_rows_are_refused)
{
    static const struct {
        const char *rows, *message;
    } bad[] = {
        {"", "logits.rows: expected an integer from 0"},
        {"1,x", "logits.rows: expected an integer from 0"},
        {"1;2", "logits.rows: expected integers separated by commas"},
        {"-1", "logits.rows: expected an integer from 0"},
        {"3", "attribute rows: expected positions in 0 ... 2, found 3"},
        {"1,1", "attribute rows: expected distinct positions, found 1 twice"},
        {"0,1,2,3", "attribute rows: expected at most 3 positions, found 4"},
    };
    static const float logits[2 * 256] = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        gemma4_error error = {""};
        char *path = test_join(test_fresh_dir(), "rows.safetensors");
        gemma4_dump *dump = begin(path);
        ck_assert_int_eq(gemma4_dump_add(dump, "logits", GEMMA4_DUMP_F32, 2, 256, logits), 0);
        ck_assert_int_eq(gemma4_dump_attribute(dump, "logits.rows", bad[i].rows), 0);
        ck_assert_int_eq(gemma4_dump_write(dump), 0);
        gemma4_dump_free(dump);
        ck_assert_msg(gemma4_activations_open(path, &test_golden_model()->config, &error) == NULL,
                      "rows '%s' were read", bad[i].rows);
        assert_message_contains(&error, bad[i].message);
        assert_message_contains(&error, path);
    }
}
END_TEST

Suite *dump_header_suite(void)
{
    Suite *suite = suite_create("dump_header");
    TCase *c = tcase_create("dumps");
    tcase_add_test(c, what_is_written_is_read);
    tcase_add_test(c, misuse_is_an_error);
    tcase_add_test(c, an_attribute_comes_once_and_a_path_must_be_writable);
    tcase_add_test(c, bad_rows_are_refused);
    suite_add_tcase(suite, c);
    return suite;
}
