#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "safetensors.h"
#include "suites.h"
#include "support.h"

/* Writes a file of the given header, padded so that the data start at a multiple of 8, and
 * data_size bytes 0, 1, 2 ... */
static const char *write_file(const char *directory, const char *name, const char *header,
                              size_t data_size)
{
    size_t length = strlen(header), padded = (length + 7) / 8 * 8;
    unsigned char *bytes = calloc(1, 8 + padded + data_size);
    ck_assert_ptr_nonnull(bytes);
    bytes[0] = (unsigned char)padded;
    bytes[1] = (unsigned char)(padded >> 8);
    memset(bytes + 8, ' ', padded);
    memcpy(bytes + 8, header, length);
    for (size_t i = 0; i < data_size; i++)
        bytes[8 + padded + i] = (unsigned char)i;
    const char *path = test_join(directory, name);
    test_write(path, bytes, 8 + padded + data_size);
    free(bytes);
    return path;
}

static gemma4_safetensors *open_header(const char *header, size_t data_size, gemma4_error *error)
{
    return gemma4_safetensors_open(write_file(test_fresh_dir(), "a.safetensors", header, data_size),
                                   error);
}

/* --- one valid file --- */

/* Tensors stand in another order than their data; 40 bytes. */
static const char HEADER[] =
    "{\"__metadata__\": {\"format\": \"pt\"},\n"
    " \"b\": {\"dtype\": \"F32\", \"shape\": [2, 3], \"data_offsets\": [8, 32]},\n"
    " \"a\": {\"dtype\": \"BF16\", \"shape\": [4], \"data_offsets\": [0, 8]},\n"
    " \"c\": {\"dtype\": \"F8_E4M3\", \"shape\": [8], \"data_offsets\": [32, 40]},\n"
    " \"scalar\": {\"dtype\": \"I64\", \"shape\": [0, 7], \"data_offsets\": [40, 40]}}";
#define DATA_SIZE 40

START_TEST(valid_file)
{
    gemma4_error error = {""};
    gemma4_safetensors *files = open_header(HEADER, DATA_SIZE, &error);
    ck_assert_msg(files != NULL, "%s", error.message);
    ck_assert_uint_eq(gemma4_safetensors_count(files), 4);
    ck_assert_str_eq(gemma4_safetensors_at(files, 0)->name, "a");
    const gemma4_tensor *b = gemma4_safetensors_find(files, "b");
    ck_assert_ptr_nonnull(b);
    ck_assert_ptr_eq(b, gemma4_safetensors_at(files, 1));
    ck_assert_int_eq(b->dtype, GEMMA4_F32);
    ck_assert_str_eq(b->dtype_name, "F32");
    ck_assert_uint_eq(b->rank, 2);
    ck_assert_uint_eq(b->shape[0], 2);
    ck_assert_uint_eq(b->shape[1], 3);
    ck_assert_uint_eq(b->size, 24);
    ck_assert_uint_eq(((const unsigned char *)b->data)[0], 8);
    ck_assert_uint_eq((uintptr_t)b->data % 4, 0);
    ck_assert_ptr_nonnull(strstr(b->file, "/a.safetensors"));
    const gemma4_tensor *c = gemma4_safetensors_find(files, "c");
    ck_assert_int_eq(c->dtype, GEMMA4_OTHER);
    ck_assert_str_eq(c->dtype_name, "F8_E4M3");
    ck_assert_ptr_null(gemma4_safetensors_find(files, "d"));
    ck_assert_ptr_null(gemma4_safetensors_find(files, "__metadata__"));
    ck_assert_str_eq(gemma4_safetensors_metadata(files, "format"), "pt");
    ck_assert_ptr_null(gemma4_safetensors_metadata(files, "none"));
    gemma4_safetensors_close(files);
    gemma4_safetensors_close(NULL);
}
END_TEST

START_TEST(dtypes)
{
    static const struct {
        const char *name;
        gemma4_dtype dtype;
        size_t size;
    } rows[] = {{"BF16", GEMMA4_BF16, 2}, {"F16", GEMMA4_F16, 2},   {"F32", GEMMA4_F32, 4},
                {"F64", GEMMA4_F64, 8},   {"I32", GEMMA4_I32, 4},   {"I64", GEMMA4_I64, 8},
                {"U8", GEMMA4_OTHER, 1},  {"bf16", GEMMA4_OTHER, 2}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char header[200];
        gemma4_error error = {""};
        snprintf(header, sizeof header,
                 "{\"x\": {\"dtype\": \"%s\", \"shape\": [3], \"data_offsets\": [0, %zu]}}",
                 rows[i].name, 3 * rows[i].size);
        gemma4_safetensors *files = open_header(header, 3 * rows[i].size, &error);
        ck_assert_msg(files != NULL, "%s", error.message);
        ck_assert_int_eq(gemma4_safetensors_at(files, 0)->dtype, rows[i].dtype);
        gemma4_safetensors_close(files);
    }
}
END_TEST

START_TEST(empty_file_of_tensors)
{
    gemma4_error error = {""};
    gemma4_safetensors *files = open_header("{}", 0, &error);
    ck_assert_msg(files != NULL, "%s", error.message);
    ck_assert_uint_eq(gemma4_safetensors_count(files), 0);
    ck_assert_ptr_null(gemma4_safetensors_find(files, "a"));
    ck_assert_ptr_null(gemma4_safetensors_metadata(files, "format"));
    gemma4_safetensors_close(files);
}
END_TEST

START_TEST(rank_0_and_8)
{
    gemma4_error error = {""};
    gemma4_safetensors *files = open_header(
        "{\"x\": {\"dtype\": \"F32\", \"shape\": [], \"data_offsets\": [0, 4]},"
        "\"y\": {\"dtype\": \"F32\", \"shape\": [1,1,1,1,1,1,1,1], \"data_offsets\": [4, 8]}}",
        8, &error);
    ck_assert_msg(files != NULL, "%s", error.message);
    ck_assert_uint_eq(gemma4_safetensors_find(files, "x")->rank, 0);
    ck_assert_uint_eq(gemma4_safetensors_find(files, "y")->rank, 8);
    gemma4_safetensors_close(files);
}
END_TEST

/* --- hostile headers: mutations of HEADER --- */

#define B "\"b\": {\"dtype\": \"F32\", \"shape\": [2, 3], \"data_offsets\": [8, 32]}"

static const struct {
    const char *old, *replacement;
    size_t data_size;
    const char *expected;
} HOSTILE[] = {
    {NULL, "", 39, "c.data_offsets[1]: expected an integer from 32 to 39, found 40"},
    {NULL, "", 41, "expected 40 bytes of data, found 41"},
    {NULL, "", 0, "data_offsets[0]: expected an integer from 0 to 0, found 8"},
    {"{", "[{", 40, "begins with '{'"},
    {"{", " {", 40, "begins with '{'"},
    {"}}", "}", 40, "expected YAML or JSON"},
    {"@", "}", 40, "a.safetensors:"},
    {"\"a\":", "\"b\":", 40, "expected every key once, found \"b\" twice"},
    {B, "\"b\": 1", 40, "b: expected a mapping, found 1"},
    {B, "\"b\": {\"shape\": [2, 3], \"data_offsets\": [8, 32]}", 40,
     "b: expected the key \"dtype\""},
    {B, "\"b\": {\"dtype\": \"F32\", \"data_offsets\": [8, 32]}", 40,
     "b: expected the key \"shape\""},
    {B, "\"b\": {\"dtype\": \"F32\", \"shape\": [2, 3]}", 40,
     "b: expected the key \"data_offsets\""},
    {"\"F32\",", "\"F32\", \"strides\": [1],", 40,
     "b: expected only the keys dtype, shape, data_offsets, found \"strides\""},
    {"\"F32\"", "\"\"", 40, "b.dtype: expected a dtype's name of 1 to 15 bytes, found \"\""},
    {"\"F32\"", "\"F32_and_then_more\"", 40, "b.dtype: expected a dtype's name of 1 to 15 bytes"},
    {"\"F32\"", "null", 40, "b.dtype: expected a string, found null"},
    {"\"F32\"", "\"F64\"", 40, "b: expected 48 bytes of data for its shape, found 24"},
    {"[2, 3]", "[2, 4]", 40, "b: expected 32 bytes of data for its shape, found 24"},
    {"[2, 3]", "[]", 40, "b: expected 4 bytes of data for its shape, found 24"},
    {"[2, 3]", "[2, 0]", 40, "b: expected 0 bytes of data for its shape, found 24"},
    {"[2, 3]", "[2, -3]", 40, "b.shape[1]: expected an integer from 0"},
    {"[2, 3]", "[2, 3.0]", 40, "b.shape[1]: expected an integer from 0"},
    {"[2, 3]", "[2, \"3\"]", 40, "b.shape[1]: expected an integer from 0"},
    {"[2, 3]", "[[2, 3]]", 40, "b.shape[0]: expected an integer from 0"},
    {"[2, 3]", "6", 40, "b.shape: expected a sequence, found 6"},
    {"[2, 3]", "[1,1,1,1,1,1,1,2,3]", 40, "b.shape: expected at most 8 axes, found 9"},
    {"[2, 3]", "[4611686018427387904, 4611686018427387904]", 40,
     "b: expected a shape that fits into memory"},
    /* 24 modulo 2^64 */
    {"[2, 3]", "[4611686018427387910]", 40, "b: expected a shape that fits into memory"},
    {"[2, 3]", "[9223372036854775807, 0]", 40,
     "b: expected 0 bytes of data for its shape, found 24"},
    {"[2, 3]", "[9223372036854775808]", 40, "b.shape[0]: expected an integer from 0"},
    {"[8, 32]", "[8]", 40, "b.data_offsets: expected two offsets"},
    {"[8, 32]", "[8, 20, 32]", 40, "b.data_offsets: expected two offsets"},
    {"[8, 32]", "[32, 8]", 40, "b.data_offsets[1]: expected an integer from 32 to 40, found 8"},
    {"[8, 32]", "[-8, 16]", 40, "b.data_offsets[0]: expected an integer from 0 to 40, found -8"},
    {"[8, 32]", "[18446744073709551608, 32]", 40, "b.data_offsets[0]: expected an integer"},
    {"[8, 32]", "{}", 40, "b.data_offsets: expected a sequence"},
    {"[8, 32]", "[4, 28]", 40, "b: expected data from offset 8, found 4, which makes an overlap"},
    {"[8, 32]", "[0, 24]", 40, "which makes an overlap"},
    {"[8, 32]", "[12, 36]", 40, "b: expected data from offset 8, found 12, which makes a hole"},
    {"[40, 40]", "[20, 20]", 40,
     "scalar: expected data at a multiple of 8 bytes in the file, found them misaligned at"},
    {"[40, 40]", "[16, 16]", 40, "which makes an overlap"},
    {"{\"format\": \"pt\"}", "[]", 40, "__metadata__: expected a mapping, found a sequence"},
    {"\"pt\"", "{}", 40, "__metadata__.format: expected a string, found a mapping"},
    {"\"pt\"", "null", 40, "__metadata__.format: expected a string, found null"},
};

START_TEST(hostile_header)
{
    gemma4_error error = {""};
    ck_assert_ptr_null(open_header(test_replace(HEADER, HOSTILE[_i].old, HOSTILE[_i].replacement),
                                   HOSTILE[_i].data_size, &error));
    assert_message_contains(&error, HOSTILE[_i].expected);
    assert_message_contains(&error, "a.safetensors");
}
END_TEST

/* A BF16 tensor of odd length, so that the next one is misaligned though the layout is right. */
START_TEST(misaligned)
{
    gemma4_error error = {""};
    ck_assert_ptr_null(
        open_header("{\"a\": {\"dtype\": \"BF16\", \"shape\": [1], \"data_offsets\": [0, 2]},"
                    "\"b\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [2, 6]}}",
                    6, &error));
    assert_message_contains(
        &error, "b: expected data at a multiple of 4 bytes in the file, found them misaligned");
}
END_TEST

/* The header's own length decides too. */
START_TEST(misaligned_header)
{
    static const char header[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
    unsigned char bytes[8 + sizeof header + 16] = {sizeof header - 1};
    gemma4_error error = {""};
    memcpy(bytes + 8, header, sizeof header - 1);
    const char *path = test_join(test_fresh_dir(), "a.safetensors");
    test_write(path, bytes, 8 + sizeof header - 1 + 4);
    ck_assert_uint_ne((sizeof header - 1) % 4, 0);
    ck_assert_ptr_null(gemma4_safetensors_open(path, &error));
    assert_message_contains(
        &error, "a: expected data at a multiple of 4 bytes in the file, found them misaligned");
}
END_TEST

/* Every proper prefix of a valid file is an error. */
START_TEST(truncated)
{
    char *directory = test_fresh_dir(), *cut = test_join(directory, "cut");
    const char *path = write_file(directory, "a.safetensors", HEADER, DATA_SIZE);
    FILE *file = fopen(path, "rb");
    ck_assert_ptr_nonnull(file);
    char bytes[1024];
    size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    ck_assert(size > DATA_SIZE && size < sizeof bytes);
    for (size_t i = 0; i < size; i++) {
        gemma4_error error = {""};
        test_write(cut, bytes, i);
        ck_assert_ptr_null(gemma4_safetensors_open(cut, &error));
        assert_message_contains(&error, cut);
    }
}
END_TEST

static const struct {
    const char bytes[16];
    size_t size;
    const char *expected;
} LENGTHS[] = {
    {"", 0, "expected at least 8 bytes, found 0"},
    {"\2\0\0\0\0\0\0", 7, "expected at least 8 bytes, found 7"},
    {"\0\0\0\0\0\0\0\0", 8, "begins with '{'"},
    {"\2\0\0\0\0\0\0\0{", 9, "expected a header of at most 1 bytes, found a length of 2"},
    {"\3\0\0\0\0\0\0\0{}", 10, "expected a header of at most 2 bytes, found a length of 3"},
    {"\377\377\377\377\377\377\377\377{}", 10, "found a length of 18446744073709551615"},
    {"\370\377\377\377\377\377\377\377{}", 10, "found a length of 18446744073709551608"},
    {"\1\0\0\0\0\0\0\0{}", 10, "expected YAML or JSON"},
};

START_TEST(header_lengths)
{
    gemma4_error error = {""};
    const char *path = test_join(test_fresh_dir(), "a.safetensors");
    test_write(path, LENGTHS[_i].bytes, LENGTHS[_i].size);
    ck_assert_ptr_null(gemma4_safetensors_open(path, &error));
    assert_message_contains(&error, LENGTHS[_i].expected);
}
END_TEST

START_TEST(no_file)
{
    gemma4_error error = {""};
    char *directory = test_fresh_dir();
    ck_assert_ptr_null(gemma4_safetensors_open(test_join(directory, "none"), &error));
    assert_message_contains(&error, "none: No such file");
    ck_assert_ptr_null(gemma4_safetensors_open(directory, &error));
    assert_message_contains(&error, "expected a regular file");
    ck_assert_ptr_null(gemma4_safetensors_open_checkpoint(directory, &error));
    assert_message_contains(&error, "model.safetensors: No such file");
}
END_TEST

/* --- shards --- */

#define SHARD(name) "{\"" name "\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]}}"
#define INDEX                                                                                \
    "{\"metadata\": {\"total_size\": 8}, \"weight_map\": {\"x\": \"1.safetensors\", \"y\": " \
    "\"2.safetensors\"}}"

static char *write_shards(const char *index)
{
    char *directory = test_fresh_dir();
    write_file(directory, "1.safetensors", SHARD("x"), 4);
    write_file(directory, "2.safetensors", SHARD("y"), 4);
    write_file(directory, "3.safetensors", SHARD("x"), 4);
    test_write_text(test_join(directory, "model.safetensors.index.json"), index);
    return directory;
}

START_TEST(valid_shards)
{
    gemma4_error error = {""};
    gemma4_safetensors *files = gemma4_safetensors_open_checkpoint(write_shards(INDEX), &error);
    ck_assert_msg(files != NULL, "%s", error.message);
    ck_assert_uint_eq(gemma4_safetensors_count(files), 2);
    ck_assert_ptr_nonnull(strstr(gemma4_safetensors_find(files, "y")->file, "/2.safetensors"));
    ck_assert_ptr_null(gemma4_safetensors_metadata(files, "format"));
    gemma4_safetensors_close(files);
}
END_TEST

START_TEST(single_file_checkpoint)
{
    gemma4_error error = {""};
    char *directory = test_fresh_dir();
    write_file(directory, "model.safetensors", HEADER, DATA_SIZE);
    gemma4_safetensors *files = gemma4_safetensors_open_checkpoint(directory, &error);
    ck_assert_msg(files != NULL, "%s", error.message);
    ck_assert_uint_eq(gemma4_safetensors_count(files), 4);
    gemma4_safetensors_close(files);
}
END_TEST

static const struct {
    const char *old, *replacement, *expected;
} BAD_INDEX[] = {
    {"\"weight_map\"", "\"weights\"", "index.json:1: expected the key \"weight_map\", found none"},
    {"}}", "}", "index.json:"},
    {"\"2.safetensors\"", "null", "weight_map.y: expected a string, found null"},
    {"\"2.safetensors\"", "[]", "weight_map.y: expected a string, found a sequence"},
    {"\"2.safetensors\"", "\"\"",
     "weight_map.y: expected a file name without '/' and '..', found \"\""},
    {"\"2.safetensors\"", "\"sub/2.safetensors\"",
     "weight_map.y: expected a file name without '/' and '..'"},
    {"\"2.safetensors\"", "\"/2.safetensors\"",
     "weight_map.y: expected a file name without '/' and '..'"},
    {"\"2.safetensors\"", "\"..\"", "weight_map.y: expected a file name without '/' and '..'"},
    {"\"2.safetensors\"", "\".\"", "expected a regular file"},
    {"\"2.safetensors\"", "\"4.safetensors\"", "4.safetensors: No such file"},
    {"\"2.safetensors\"", "\"model.safetensors.index.json\"", "expected a header of at most"},
    {"\"2.safetensors\"", "\"1.safetensors\"",
     "y: expected the tensor in 1.safetensors, found none"},
    {"\"1.safetensors\"", "\"3.safetensors\", \"z\": \"3.safetensors\"",
     "z: expected the tensor in 3.safetensors, found none"},
    {"\"x\": \"1.safetensors\"", "\"x\": \"2.safetensors\"",
     "x: expected the tensor in 2.safetensors, found none"},
    {"{\"x\"", "{\"z\": \"3.safetensors\", \"x\"", "x: expected every tensor once, found it in "},
    {"\"x\": \"1.safetensors\"", "\"z\": \"1.safetensors\"",
     "z: expected the tensor in 1.safetensors, found none"},
    {"\"x\": \"1.safetensors\", \"y\": \"2", "\"x\": \"2.safetensors\", \"y\": \"1",
     "x: expected the tensor in 2.safetensors, found it in "},
};

START_TEST(bad_index)
{
    gemma4_error error = {""};
    char *directory =
        write_shards(test_replace(INDEX, BAD_INDEX[_i].old, BAD_INDEX[_i].replacement));
    ck_assert_ptr_null(gemma4_safetensors_open_checkpoint(directory, &error));
    assert_message_contains(&error, BAD_INDEX[_i].expected);
    assert_message_contains(&error, directory);
}
END_TEST

START_TEST(tensor_not_in_index)
{
    gemma4_error error = {""};
    char *directory = write_shards(INDEX);
    write_file(directory, "2.safetensors",
               "{\"y\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]},"
               "\"z\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [4, 8]}}",
               8);
    ck_assert_ptr_null(gemma4_safetensors_open_checkpoint(directory, &error));
    assert_message_contains(
        &error,
        "2.safetensors: z: expected the tensor in model.safetensors.index.json, found none");
}
END_TEST

/* An index that cannot be read is an error, not a reason to take the single file. */
START_TEST(unreadable_index)
{
    gemma4_error error = {""};
    char *directory = test_fresh_dir();
    write_file(directory, "model.safetensors", HEADER, DATA_SIZE);
    ck_assert_int_eq(mkdir(test_join(directory, "model.safetensors.index.json"), 0700), 0);
    ck_assert_ptr_null(gemma4_safetensors_open_checkpoint(directory, &error));
    assert_message_contains(&error, "model.safetensors.index.json: expected a regular file");
}
END_TEST

Suite *safetensors_suite(void)
{
    Suite *suite = suite_create("safetensors");
    TCase *valid = tcase_create("valid"), *hostile = tcase_create("hostile"),
          *shards = tcase_create("shards");
    tcase_add_test(valid, valid_file);
    tcase_add_test(valid, dtypes);
    tcase_add_test(valid, empty_file_of_tensors);
    tcase_add_test(valid, rank_0_and_8);
    tcase_add_loop_test(hostile, hostile_header, 0, sizeof HOSTILE / sizeof HOSTILE[0]);
    tcase_add_test(hostile, misaligned);
    tcase_add_test(hostile, misaligned_header);
    tcase_add_test(hostile, truncated);
    tcase_add_loop_test(hostile, header_lengths, 0, sizeof LENGTHS / sizeof LENGTHS[0]);
    tcase_add_test(hostile, no_file);
    tcase_add_test(shards, valid_shards);
    tcase_add_test(shards, single_file_checkpoint);
    tcase_add_loop_test(shards, bad_index, 0, sizeof BAD_INDEX / sizeof BAD_INDEX[0]);
    tcase_add_test(shards, tensor_not_in_index);
    tcase_add_test(shards, unreadable_index);
    suite_add_tcase(suite, valid);
    suite_add_tcase(suite, hostile);
    suite_add_tcase(suite, shards);
    return suite;
}
