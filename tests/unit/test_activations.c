/* Activation files: what is written reads back, what an engine may write is read, and what a
 * hostile file tries is refused with a message that names it. */
#include "activations.h"
#include "suites.h"
#include "support.h"

#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { T = 5 };

static const int32_t tokens[T] = {2, 17, 5, 31, 0};

/* --- making files with the HDF5 library itself --- */

static void put_string(hid_t object, const char *name, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, strlen(text) + 1);
    hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    ck_assert(attribute >= 0 && H5Awrite(attribute, type, text) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
}

/* count 0 makes a scalar. */
static void put_ints(hid_t object, const char *name, const int *values, hsize_t count)
{
    hid_t space = count ? H5Screate_simple(1, &count, NULL) : H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(object, name, H5T_STD_I32BE, space, H5P_DEFAULT, H5P_DEFAULT);
    ck_assert(attribute >= 0 && H5Awrite(attribute, H5T_NATIVE_INT, values) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
}

/* Creates a dataset and the groups on its way, and writes values of memory_type unless they are
 * NULL. */
static hid_t put(hid_t file, const char *path, hid_t type, int rank, const hsize_t *dims,
                 hid_t creation, hid_t memory_type, const void *values)
{
    hid_t links = H5Pcreate(H5P_LINK_CREATE), space = H5Screate_simple(rank, dims, NULL);
    H5Pset_create_intermediate_group(links, 1);
    hid_t dataset = H5Dcreate2(file, path, type, space, links, creation, H5P_DEFAULT);
    ck_assert_msg(dataset >= 0, "cannot create %s", path);
    if (values)
        ck_assert(H5Dwrite(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Sclose(space);
    H5Pclose(links);
    return dataset;
}

/* The value of element i of every tap that these tests write by hand: exact in all float types. */
static float value_at(size_t i)
{
    return (float)(i % 61) * 0.25F - 7.0F;
}

static hid_t put_floats(hid_t file, const char *path, hid_t type, int rank, const hsize_t *dims)
{
    size_t count = 1;
    for (int i = 0; i < rank; i++)
        count *= dims[i];
    float *values = malloc(count * sizeof *values + 1);
    for (size_t i = 0; i < count; i++)
        values[i] = value_at(i);
    hid_t dataset = put(file, path, type, rank, dims, H5P_DEFAULT, H5T_NATIVE_FLOAT, values);
    free(values);
    return dataset;
}

static void put_tokens(hid_t file, hsize_t count)
{
    H5Dclose(put(file, "tokens", H5T_STD_I64LE, 1, &count, H5P_DEFAULT, H5T_NATIVE_INT32, tokens));
}

/* A file with the root attributes only. */
static hid_t new_file(const char *path)
{
    const int version = 1;
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    ck_assert(file >= 0);
    put_string(file, "format", "gemma4-activations");
    put_ints(file, "format_version", &version, 0);
    return file;
}

static const hsize_t embed_dims[2] = {T, 12};

/* The smallest valid file, still open. */
static hid_t valid_file(const char *path)
{
    hid_t file = new_file(path);
    put_tokens(file, T);
    H5Dclose(put_floats(file, "embed", H5T_IEEE_F32LE, 2, embed_dims));
    return file;
}

static gemma4_activations *open_valid(const char *path)
{
    gemma4_error error = {""};
    gemma4_activations *file = gemma4_activations_open(path, &test_small_config, &error);
    ck_assert_msg(file != NULL, "%s", error.message);
    return file;
}

static void expect_failure(const char *path, const char *expected)
{
    gemma4_error error = {""};
    ck_assert_msg(gemma4_activations_open(path, &test_small_config, &error) == NULL,
                  "opened, but expected: %s", expected);
    assert_message_contains(&error, expected);
    assert_message_contains(&error, path);
}

/* --- round trips through the writer --- */

/* A reproducible value in (-8, 8) that needs all the bits of a double. */
static double scattered(size_t i)
{
    uint64_t x = (i + 1) * 0x9E3779B97F4A7C15U;
    x = (x ^ x >> 29) * 0xBF58476D1CE4E5B9U;
    return ((double)(x >> 11) / 9007199254740992.0 - 0.5) * 16;
}

/* The event that shows rows first ... first + rows - 1 of a tap whose whole value is all ([T,
 * dims...]); for scores and probs a position at a time with the keys it sees. The storage is the
 * caller's. */
static gemma4_tap_event event_of(gemma4_tap tap, size_t layer, size_t first, size_t rows,
                                 gemma4_real *values, int32_t *ids)
{
    gemma4_tap_event event = {.tap = tap, .layer = layer, .row = first, .rows = rows};
    event.rank = gemma4_tap_dims(&test_small_config, tap, layer, T, event.dims);
    if (event.dims[0] == 0)
        event.dims[0] = 3; /* tokens that are listed */
    size_t row = event.dims[0] * event.dims[1];
    event.values = gemma4_tap_describe(tap)->ids ? NULL : values + first * row;
    event.ids = gemma4_tap_describe(tap)->ids ? ids + first * row : NULL;
    return event;
}

static void write_event(gemma4_activations_writer *writer, const gemma4_tap_event *event)
{
    gemma4_error error = {""};
    ck_assert_msg(gemma4_activations_write(writer, event, &error) == 0, "%s", error.message);
}

/* Writes every tap of every layer, chunk rows at a time. */
static void write_all_taps(gemma4_activations_writer *writer, size_t chunk)
{
    gemma4_real values[T * 64];
    int32_t ids[T * 64];
    for (size_t i = 0; i < T * 64; i++) {
        values[i] = (gemma4_real)scattered(i);
        ids[i] = (int32_t)(i % 6);
    }
    for (size_t first = 0; first < T; first += chunk) {
        size_t rows = first + chunk > T ? T - first : chunk;
        for (size_t layer = 0; layer < 2; layer++)
            for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
                if (layer == 1 && !gemma4_tap_describe((gemma4_tap)tap)->per_layer)
                    continue;
                gemma4_tap_event event = event_of((gemma4_tap)tap, layer, first, rows, values, ids);
                write_event(writer, &event);
            }
    }
}

static gemma4_activations_writer *create(const char *path, const char *dtype)
{
    gemma4_error error = {""};
    gemma4_activations_writer *writer =
        gemma4_activations_create(path, &test_small_config, tokens, T, 3, dtype, &error);
    ck_assert_msg(writer != NULL, "%s", error.message);
    ck_assert_int_eq(gemma4_activations_set_attribute(writer, "engine", "first", &error), 0);
    ck_assert_int_eq(gemma4_activations_set_attribute(writer, "engine", "t\xc3\xa9st", &error), 0);
    return writer;
}

static void commit(gemma4_activations_writer *writer)
{
    gemma4_error error = {""};
    ck_assert_msg(gemma4_activations_commit(writer, &error) == 0, "%s", error.message);
}

static const struct {
    const char *dtype;
    double error; /* largest relative error of one rounding */
} dtypes[] = {
    {"float32", 0x1p-24}, {"float64", 0x1p-24}, {"float16", 0x1p-11}, {"bfloat16", 0x1p-8}};

/* Reads a tap whole and row by row, and compares both with the values of write_all_taps. */
static void check_tap(gemma4_activations *file, const gemma4_activation *found, double tolerance)
{
    size_t dims[2];
    gemma4_error error = {""};
    gemma4_tap_dims(&test_small_config, found->tap, found->layer, T, dims);
    dims[0] = dims[0] ? dims[0] : 3; /* tokens that are listed */
    size_t row = dims[0] * dims[1];
    float values[T * 64], one[64];
    int32_t ids[T * 64];
    ck_assert_msg(found->usable, "%s", found->problem);
    ck_assert_uint_eq(found->rows, T);
    if (gemma4_tap_describe(found->tap)->ids) {
        ck_assert_str_eq(found->stored_dtype, "int32");
        ck_assert_int_eq(gemma4_activations_read_ids(file, found, 0, T, ids, &error), 0);
        for (size_t i = 0; i < T * row; i++)
            ck_assert_int_eq(ids[i], (int)(i % 6));
        ck_assert_int_eq(gemma4_activations_read(file, found, 0, T, values, &error), -1);
        assert_message_contains(&error, "expected reals, found int32");
        return;
    }
    ck_assert_int_eq(gemma4_activations_read(file, found, 0, T, values, &error), 0);
    for (size_t i = 0; i < T * row; i++)
        ASSERT_EACH(fabs(values[i] - scattered(i)) <= fabs(scattered(i)) * tolerance * 1.01,
                    "value %zu: %g", i, (double)values[i]);
    for (size_t t = 0; t < T; t++) {
        ck_assert_uint_eq(found->row_index[t], t);
        ck_assert_int_eq(gemma4_activations_read(file, found, t, 1, one, &error), 0);
        ck_assert_mem_eq(one, values + t * row, row * sizeof *one);
    }
}

START_TEST(every_tap_round_trips_in_every_dtype)
{
    char name[64];
    snprintf(name, sizeof name, "all-%s.h5", dtypes[_i].dtype);
    const char *path = test_path(name);
    for (size_t chunk = 1; chunk <= T; chunk += 2) {
        gemma4_activations_writer *writer = create(path, dtypes[_i].dtype);
        write_all_taps(writer, chunk);
        commit(writer);
        gemma4_activations *file = open_valid(path);
        ck_assert_uint_eq(gemma4_activations_count(file),
                          6 + 2 * (GEMMA4_TAP_LAYER_OUTPUT - GEMMA4_TAP_LAYER_INPUT + 1));
        ck_assert_uint_eq(gemma4_activations_unknown_count(file), 0);
        for (size_t i = 0; i < gemma4_activations_count(file); i++) {
            const gemma4_activation *found = gemma4_activations_at(file, i);
            ck_assert_ptr_eq(gemma4_activations_find(file, found->tap, found->layer), found);
            if (!gemma4_tap_describe(found->tap)->ids)
                ck_assert_str_eq(found->stored_dtype, dtypes[_i].dtype);
            check_tap(file, found, dtypes[_i].error);
        }
        gemma4_activations_close(file);
    }
}
END_TEST

START_TEST(taps_come_in_dataflow_order)
{
    const char *path = test_path("order.h5");
    gemma4_activations_writer *writer = create(path, "float32");
    write_all_taps(writer, T);
    commit(writer);
    gemma4_activations *file = open_valid(path);
    size_t index = 0;
    ck_assert_int_eq(gemma4_activations_at(file, index++)->tap, GEMMA4_TAP_EMBED);
    for (size_t layer = 0; layer < 2; layer++)
        for (int tap = GEMMA4_TAP_LAYER_INPUT; tap <= (int)GEMMA4_TAP_LAYER_OUTPUT;
             tap++, index++) {
            ck_assert_int_eq((int)gemma4_activations_at(file, index)->tap, tap);
            ck_assert_uint_eq(gemma4_activations_at(file, index)->layer, layer);
        }
    for (int tap = GEMMA4_TAP_FINAL_NORM; tap < (int)GEMMA4_TAP_COUNT; tap++, index++)
        ck_assert_int_eq((int)gemma4_activations_at(file, index)->tap, tap);
    ck_assert_ptr_null(gemma4_activations_at(file, index));
    ck_assert_ptr_null(gemma4_activations_find(file, GEMMA4_TAP_ATTN_Q, 2));
    gemma4_activations_close(file);
}
END_TEST

START_TEST(the_case_and_the_attributes_round_trip)
{
    const char *path = test_path("case.h5");
    gemma4_activations_writer *writer = create(path, "float32");
    write_all_taps(writer, T);
    ck_assert_int_ne(access(path, F_OK), 0); /* not before the commit */
    commit(writer);
    gemma4_activations *file = open_valid(path);
    const int32_t *found_tokens, *positions;
    ck_assert_uint_eq(gemma4_activations_positions(file, &found_tokens, &positions), T);
    for (int t = 0; t < T; t++) {
        ck_assert_int_eq(found_tokens[t], tokens[t]);
        ck_assert_int_eq(positions[t], 3 + t);
    }
    ck_assert_str_eq(gemma4_activations_attribute(file, "engine"), "t\xc3\xa9st");
    ck_assert_str_eq(gemma4_activations_attribute(file, "format"), "gemma4-activations");
    ck_assert_str_eq(gemma4_activations_attribute(file, "format_version"), "1");
    ck_assert_ptr_null(gemma4_activations_attribute(file, "dtype"));
    gemma4_activations_close(file);
}
END_TEST

/* The whole file; the size is set. */
static char *slurp(const char *path, size_t *size)
{
    FILE *stream = fopen(path, "rb");
    ck_assert_ptr_nonnull(stream);
    char *bytes = malloc(1 << 20);
    *size = fread(bytes, 1, 1 << 20, stream);
    ck_assert(feof(stream));
    fclose(stream);
    return bytes;
}

START_TEST(the_same_calls_give_the_same_bytes)
{
    size_t sizes[2];
    char *bytes[2];
    for (int i = 0; i < 2; i++) {
        const char *path = test_path(i ? "same-1.h5" : "same-0.h5");
        gemma4_activations_writer *writer = create(path, "bfloat16");
        write_all_taps(writer, 2);
        if (i)
            /* until a stored time would differ */
            for (time_t before = time(NULL); time(NULL) == before;)
                nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        commit(writer);
        bytes[i] = slurp(path, &sizes[i]);
    }
    ck_assert_uint_eq(sizes[0], sizes[1]);
    ck_assert_mem_eq(bytes[0], bytes[1], sizes[0]);
    free(bytes[0]);
    free(bytes[1]);
}
END_TEST

START_TEST(a_tap_of_some_rows_says_which)
{
    const char *path = test_path("some-rows.h5");
    gemma4_error error = {""};
    gemma4_real values[T * 64];
    float row[32];
    for (size_t i = 0; i < T * 64; i++)
        values[i] = (gemma4_real)value_at(i);
    gemma4_activations_writer *writer = create(path, "float32");
    gemma4_tap_event last = event_of(GEMMA4_TAP_LOGITS, 0, 4, 1, values, NULL);
    gemma4_tap_event early = event_of(GEMMA4_TAP_LOGITS, 0, 1, 1, values, NULL);
    write_event(writer, &last);
    write_event(writer, &early);
    ck_assert_int_eq(gemma4_activations_write(writer, &last, &error), -1);
    assert_message_contains(&error, "logits: expected each position once, found 4 again");
    commit(writer);
    gemma4_activations *file = open_valid(path);
    const gemma4_activation *logits = gemma4_activations_find(file, GEMMA4_TAP_LOGITS, 0);
    ck_assert_uint_eq(logits->rows, 2);
    ck_assert_uint_eq(logits->row_index[0], 4);
    ck_assert_uint_eq(logits->row_index[1], 1);
    ck_assert_int_eq(gemma4_activations_read(file, logits, 1, 1, row, &error), 0);
    ck_assert_float_eq(row[3], value_at(1 * 32 + 3));
    ck_assert_int_eq(gemma4_activations_read(file, logits, 1, 2, row, &error), -1);
    assert_message_contains(&error, "logits: expected rows within 0 ... 1, found 2 rows from 1 on");
    ck_assert_int_eq(gemma4_activations_read(file, logits, SIZE_MAX, 2, row, &error), -1);
    gemma4_activations_close(file);
}
END_TEST

START_TEST(scores_are_padded_to_every_key)
{
    const char *path = test_path("scores.h5");
    gemma4_error error = {""};
    gemma4_real visible[3 * T];
    float scores[T * 3 * T];
    gemma4_activations_writer *writer = create(path, "float32");
    for (size_t t = 0; t < T; t++) { /* a window of two keys: t - 1 and t */
        size_t first_key = t ? t - 1 : 0, keys = t - first_key + 1;
        for (size_t i = 0; i < 3 * keys; i++)
            visible[i] = (gemma4_real)(100 * t + i + 1);
        gemma4_tap_event event = {.tap = GEMMA4_TAP_ATTN_SCORES,
                                  .row = t,
                                  .rows = 1,
                                  .rank = 2,
                                  .dims = {3, keys},
                                  .values = visible,
                                  .first_key = first_key};
        write_event(writer, &event);
    }
    commit(writer);
    gemma4_activations *file = open_valid(path);
    const gemma4_activation *found = gemma4_activations_find(file, GEMMA4_TAP_ATTN_SCORES, 0);
    ck_assert_int_eq(gemma4_activations_read(file, found, 0, T, scores, &error), 0);
    for (size_t t = 0; t < T; t++)
        for (size_t h = 0; h < 3; h++)
            for (size_t key = 0; key < T; key++) {
                size_t first_key = t ? t - 1 : 0, keys = t - first_key + 1;
                bool seen = key >= first_key && key <= t;
                float expected = seen ? (float)(100 * t + h * keys + key - first_key + 1) : 0;
                ck_assert_float_eq(scores[(t * 3 + h) * T + key], expected);
            }
    gemma4_activations_close(file);
}
END_TEST

/* value, as bits of float16 and of bfloat16: rounded to nearest, ties to even. */
static const struct {
    double value;
    uint16_t half, bfloat;
} roundings[] = {
    {0.0, 0x0000, 0x0000},
    {-0.0, 0x8000, 0x8000},
    {1.0, 0x3c00, 0x3f80},
    {1 + 0x1p-11, 0x3c00, 0x3f80}, /* half way, down to even */
    {1 + 0x1p-11 + 0x1p-20, 0x3c01, 0x3f80},
    {1 + 0x3p-11, 0x3c02, 0x3f80}, /* half way, up to even */
    {1 + 0x1p-8, 0x3c04, 0x3f80},
    {1 + 0x3p-8, 0x3c0c, 0x3f82},
    {2 - 0x1p-12, 0x4000, 0x4000}, /* carries into the exponent */
    {65504.0, 0x7bff, 0x4780},
    {65519.0, 0x7bff, 0x4780},
    {65520.0, 0x7c00, 0x4780}, /* the first float16 overflow */
    {0x1p-14, 0x0400, 0x3880},
    {0x1p-24, 0x0001, 0x3380}, /* the smallest float16 subnormal */
    {0x1p-25, 0x0000, 0x3300},
    {0x1.8p-25, 0x0001, 0x3340},
    {0x1.ffcp-15, 0x0400, 0x3880}, /* a subnormal that rounds to the smallest normal */
    {-0x1p-133, 0x8000, 0x8001},   /* the smallest bfloat16 subnormal */
    {-0x1p-126, 0x8000, 0x8080},
    {0x1.ffp127, 0x7c00, 0x7f80},
    {0x1.fep127, 0x7c00, 0x7f7f},
    {-INFINITY, 0xfc00, 0xff80},
    {NAN, 0x7e00, 0x7fc0},
};

START_TEST(narrow_floats_round_to_nearest_even)
{
    const char *path = test_path("rounding.h5");
    for (int form = 0; form < 2; form++) {
        uint16_t bits[T * 12];
        gemma4_real values[T * 12] = {0};
        values[0] = (gemma4_real)roundings[_i].value;
        gemma4_activations_writer *writer = create(path, form ? "bfloat16" : "float16");
        gemma4_tap_event event = event_of(GEMMA4_TAP_EMBED, 0, 0, T, values, NULL);
        write_event(writer, &event);
        commit(writer);
        hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT),
              dataset = H5Dopen2(file, "embed", H5P_DEFAULT);
        hid_t type = H5Dget_type(dataset);
        ck_assert(H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bits) >= 0);
        ck_assert_uint_eq(bits[0], form ? roundings[_i].bfloat : roundings[_i].half);
        H5Tclose(type);
        H5Dclose(dataset);
        H5Fclose(file);
        /* What was stored is read as the value that rounds to it again. */
        gemma4_error error = {""};
        float back[12], again[12];
        gemma4_activations *reader = open_valid(path);
        ck_assert_int_eq(
            gemma4_activations_read(reader, gemma4_activations_at(reader, 0), 0, 1, back, &error),
            0);
        gemma4_activations_close(reader);
        values[0] = (gemma4_real)back[0];
        writer = create(path, form ? "bfloat16" : "float16");
        write_event(writer, &event);
        commit(writer);
        reader = open_valid(path);
        ck_assert_int_eq(
            gemma4_activations_read(reader, gemma4_activations_at(reader, 0), 0, 1, again, &error),
            0);
        gemma4_activations_close(reader);
        ck_assert_mem_eq(back, again, sizeof back);
        if (!isnan(roundings[_i].value) && fabs(roundings[_i].value) < 65504 &&
            fabs(roundings[_i].value) > 0x1p-14)
            ck_assert_double_le(fabs(back[0] - roundings[_i].value),
                                fabs(roundings[_i].value) * (form ? 0x1p-8 : 0x1p-11));
    }
}
END_TEST

START_TEST(a_discarded_file_leaves_nothing)
{
    char *directory = test_fresh_dir();
    gemma4_activations_writer *writer = create(test_join(directory, "discarded.h5"), "float32");
    write_all_taps(writer, 2);
    gemma4_activations_discard(writer);
    gemma4_activations_discard(NULL);
    ck_assert_int_eq(rmdir(directory), 0);
}
END_TEST

START_TEST(a_file_stays_as_it_was_until_the_commit)
{
    const char *path = test_path("kept.h5");
    test_write_text(path, "before");
    gemma4_activations_writer *writer = create(path, "float32");
    write_all_taps(writer, T);
    struct stat status;
    ck_assert(stat(path, &status) == 0 && status.st_size == 6);
    commit(writer);
    gemma4_activations_close(open_valid(path));
}
END_TEST

static const struct {
    size_t count, first_position;
    const char *dtype, *expected;
} bad_cases[] = {
    {5, 0, "float8", "found float8"},
    {5, 0, "int32", "expected a store dtype"},
    {0, 0, "float32", "found 0 from 0 on"},
    {65, 0, "float32", "expected 1 ... 64 positions, found 65"},
    {5, 60, "float32", "found 5 from 60 on"},
    {5, SIZE_MAX, "float32", "expected 1 ... 64 positions"},
};

START_TEST(the_writer_refuses_a_wrong_case)
{
    gemma4_error error = {""};
    int32_t many[65] = {0};
    ck_assert_ptr_null(gemma4_activations_create(test_path("bad.h5"), &test_small_config, many,
                                                 bad_cases[_i].count, bad_cases[_i].first_position,
                                                 bad_cases[_i].dtype, &error));
    assert_message_contains(&error, bad_cases[_i].expected);
}
END_TEST

START_TEST(the_writer_names_a_directory_that_is_not_there)
{
    gemma4_error error = {""};
    ck_assert_ptr_null(gemma4_activations_create(test_path("nowhere/x.h5"), &test_small_config,
                                                 tokens, T, 0, "float32", &error));
    assert_message_contains(&error, "nowhere/x.h5");
    assert_message_contains(&error, "cannot write: No such file or directory");
    assert_message_contains(&error, "No such file");
}
END_TEST

static gemma4_real some_values[T * 64];
static int32_t some_ids[T * 64];

static const struct {
    gemma4_tap_event event;
    const char *expected;
} bad_events[] = {
    {{GEMMA4_TAP_ATTN_Q, 2, 0, 1, 2, {3, 4}, some_values, NULL, 0},
     "layers.2.attn.q: expected one of 2 layers"},
    {{GEMMA4_TAP_ATTN_Q, 0, 0, 1, 2, {3, 8}, some_values, NULL, 0}, "found [3, 8]"},
    {{GEMMA4_TAP_ATTN_Q, 0, 0, 1, 1, {12, 1}, some_values, NULL, 0}, "expected the config's shape"},
    {{GEMMA4_TAP_ATTN_Q, 0, 0, 1, 2, {3, 4}, some_values, NULL, 1}, "from key 1 on"},
    {{GEMMA4_TAP_ATTN_Q, 0, 4, 2, 2, {3, 4}, some_values, NULL, 0},
     "case's 5 positions, found 2 from 4 on"},
    {{GEMMA4_TAP_ATTN_Q, 0, SIZE_MAX, 1, 2, {3, 4}, some_values, NULL, 0}, "case's 5 positions"},
    {{GEMMA4_TAP_ATTN_Q, 0, 0, 1, 2, {3, 4}, NULL, some_ids, 0}, "expected reals"},
    {{GEMMA4_TAP_ROUTER_TOPK_IDS, 0, 0, 1, 1, {2, 1}, some_values, NULL, 0},
     "topk_ids: expected ids"},
    {{GEMMA4_TAP_ATTN_PROBS, 0, 0, 1, 2, {3, 4}, some_values, NULL, 2},
     "expected the config's shape"},
    {{GEMMA4_TAP_ATTN_PROBS, 0, 0, 1, 2, {3, 1}, some_values, NULL, 6},
     "expected the config's shape"},
};

START_TEST(the_writer_refuses_a_wrong_event)
{
    gemma4_error error = {""};
    gemma4_activations_writer *writer = create(test_path("bad-event.h5"), "float32");
    ck_assert_int_eq(gemma4_activations_write(writer, &bad_events[_i].event, &error), -1);
    assert_message_contains(&error, bad_events[_i].expected);
    gemma4_activations_discard(writer);
}
END_TEST

START_TEST(the_writer_keeps_its_own_attributes)
{
    gemma4_error error = {""};
    gemma4_activations_writer *writer = create(test_path("own.h5"), "float32");
    char *text = malloc(70000);
    memset(text, 'x', 69999);
    text[69999] = '\0';
    ck_assert_int_eq(gemma4_activations_set_attribute(writer, "format", "x", &error), -1);
    assert_message_contains(&error, "attribute format");
    ck_assert_int_eq(gemma4_activations_set_attribute(writer, "note", text, &error), -1);
    assert_message_contains(&error, "attribute note: expected less than 65536 bytes, found 69999");
    free(text);
    gemma4_activations_discard(writer);
}
END_TEST

/* --- what an engine may write --- */

static hid_t sixteen_bit_float(size_t exponent_bits, bool big_endian)
{
    size_t mantissa_bits = 15 - exponent_bits;
    hid_t type = H5Tcopy(big_endian ? H5T_IEEE_F32BE : H5T_IEEE_F32LE);
    ck_assert(H5Tset_fields(type, 15, mantissa_bits, exponent_bits, 0, mantissa_bits) >= 0);
    ck_assert(H5Tset_precision(type, 16) >= 0 && H5Tset_size(type, 2) >= 0);
    ck_assert(H5Tset_ebias(type, ((size_t)1 << (exponent_bits - 1)) - 1) >= 0);
    return type;
}

enum real_type { F32LE, F32BE, F64LE, F64BE, F16LE, F16BE, BF16LE, BF16BE };

static hid_t real_type(enum real_type type)
{
    switch (type) {
    case F32LE: return H5Tcopy(H5T_IEEE_F32LE);
    case F32BE: return H5Tcopy(H5T_IEEE_F32BE);
    case F64LE: return H5Tcopy(H5T_IEEE_F64LE);
    case F64BE: return H5Tcopy(H5T_IEEE_F64BE);
    case F16LE: return sixteen_bit_float(5, false);
    case F16BE: return sixteen_bit_float(5, true);
    case BF16LE: return sixteen_bit_float(8, false);
    case BF16BE: return sixteen_bit_float(8, true);
    }
    return H5I_INVALID_HID;
}

static const struct {
    enum real_type type;
    int rank;
    hsize_t dims[8];
    const char *dtype;
} accepted[] = {
    {F32LE, 3, {T, 3, 4}, "float32"},
    {F32BE, 3, {T, 3, 4}, "float32"},
    {F64LE, 3, {T, 3, 4}, "float64"},
    {F64BE, 3, {T, 3, 4}, "float64"},
    {F16LE, 3, {T, 3, 4}, "float16"},
    {F16BE, 3, {T, 3, 4}, "float16"},
    {BF16LE, 3, {T, 3, 4}, "bfloat16"},
    {BF16BE, 3, {T, 3, 4}, "bfloat16"},
    {F32LE, 2, {T, 12}, "float32"},
    {F32LE, 3, {1, T, 12}, "float32"},
    {F32LE, 4, {1, T, 3, 4}, "float32"},
    {F32LE, 8, {1, 1, 1, 1, 1, T, 3, 4}, "float32"},
    {F16BE, 8, {1, 1, 1, 1, 1, 1, T, 12}, "float16"},
};

START_TEST(every_form_of_a_tap_reads_the_same)
{
    const char *path = test_path("forms.h5");
    gemma4_error error = {""};
    float values[3 * 12];
    hid_t file = valid_file(path), type = real_type(accepted[_i].type);
    H5Dclose(put_floats(file, "layers/0/attn/q", type, accepted[_i].rank, accepted[_i].dims));
    H5Tclose(type);
    H5Fclose(file);
    gemma4_activations *reader = open_valid(path);
    const gemma4_activation *q = gemma4_activations_find(reader, GEMMA4_TAP_ATTN_Q, 0);
    ck_assert_msg(q->usable, "%s", q->problem);
    ck_assert_str_eq(q->stored_dtype, accepted[_i].dtype);
    ck_assert_uint_eq(q->rank, (size_t)accepted[_i].rank);
    ck_assert_int_eq(gemma4_activations_read(reader, q, 2, 3, values, &error), 0);
    for (size_t i = 0; i < 3 * 12; i++)
        ck_assert_float_eq(values[i], value_at(2 * 12 + i));
    gemma4_activations_close(reader);
}
END_TEST

START_TEST(bfloat16_as_marked_uint16)
{
    const char *path = test_path("marked.h5");
    gemma4_error error = {""};
    uint16_t bits[T * 12];
    float values[T * 12];
    for (size_t i = 0; i < T * 12; i++) {
        float value = value_at(i);
        uint32_t word;
        memcpy(&word, &value, sizeof word);
        bits[i] = (uint16_t)(word >> 16);
    }
    bits[0] = 0x7fc0;
    bits[1] = 0xff80;
    bits[2] = 0x0001;
    hid_t file = new_file(path);
    put_tokens(file, T);
    hid_t dataset = put(file, "embed", _i ? H5T_STD_U16BE : H5T_STD_U16LE, 2, embed_dims,
                        H5P_DEFAULT, H5T_NATIVE_UINT16, bits);
    put_string(dataset, "dtype", "bfloat16");
    H5Dclose(dataset);
    H5Fclose(file);
    gemma4_activations *reader = open_valid(path);
    const gemma4_activation *embed = gemma4_activations_at(reader, 0);
    ck_assert_str_eq(embed->stored_dtype, "bfloat16");
    ck_assert_int_eq(gemma4_activations_read(reader, embed, 0, T, values, &error), 0);
    ck_assert(isnan(values[0]));
    ck_assert(values[1] == -INFINITY && values[2] == 0x1p-133F);
    for (size_t i = 3; i < T * 12; i++)
        ck_assert_float_eq(values[i], value_at(i));
    gemma4_activations_close(reader);
}
END_TEST

START_TEST(non_finite_values_are_read_as_they_are)
{
    const char *path = test_path("nan.h5");
    gemma4_error error = {""};
    double stored[T * 12] = {NAN, INFINITY, -INFINITY, 1e300, -1e-300};
    float values[12];
    hid_t file = new_file(path);
    put_tokens(file, T);
    H5Dclose(
        put(file, "embed", H5T_IEEE_F64LE, 2, embed_dims, H5P_DEFAULT, H5T_NATIVE_DOUBLE, stored));
    H5Fclose(file);
    gemma4_activations *reader = open_valid(path);
    ck_assert_int_eq(
        gemma4_activations_read(reader, gemma4_activations_at(reader, 0), 0, 1, values, &error), 0);
    ck_assert(isnan(values[0]) && values[1] == INFINITY && values[2] == -INFINITY &&
              values[3] == INFINITY);
    ck_assert(values[4] == 0);
    gemma4_activations_close(reader);
}
END_TEST

START_TEST(ids_of_every_integer_type)
{
    const hid_t types[] = {H5T_STD_I8LE,  H5T_STD_U8BE,  H5T_STD_I16BE, H5T_STD_U16LE,
                           H5T_STD_I32BE, H5T_STD_U32LE, H5T_STD_I64BE, H5T_STD_U64LE};
    const char *const names[] = {"int8",  "uint8",  "int16", "uint16",
                                 "int32", "uint32", "int64", "uint64"};
    const char *path = test_path("ids.h5");
    const hsize_t dims[3] = {1, T, 2};
    gemma4_error error = {""};
    for (size_t i = 0; i < 8; i++) {
        int32_t stored[T * 2], ids[T * 2];
        for (int k = 0; k < T * 2; k++)
            stored[k] = k % 6;
        hid_t file = valid_file(path);
        H5Dclose(put(file, "layers/1/router/topk_ids", types[i], 3, dims, H5P_DEFAULT,
                     H5T_NATIVE_INT32, stored));
        H5Fclose(file);
        gemma4_activations *reader = open_valid(path);
        const gemma4_activation *found =
            gemma4_activations_find(reader, GEMMA4_TAP_ROUTER_TOPK_IDS, 1);
        ck_assert_msg(found->usable, "%s", found->problem);
        ck_assert_str_eq(found->stored_dtype, names[i]);
        ck_assert_int_eq(gemma4_activations_read_ids(reader, found, 0, T, ids, &error), 0);
        ck_assert_mem_eq(ids, stored, sizeof ids);
        gemma4_activations_close(reader);
    }
}
END_TEST

START_TEST(ids_beyond_32_bits_fail)
{
    const int64_t wide[3] = {(int64_t)1 << 31, -((int64_t)1 << 31) - 1, -1};
    const char *path = test_path("wide-ids.h5");
    const hsize_t dims[2] = {T, 2};
    gemma4_error error = {""};
    int64_t stored[T * 2] = {0};
    int32_t ids[T * 2];
    stored[5] = wide[_i];
    hid_t file = valid_file(path);
    H5Dclose(put(file, "layers/0/router/topk_ids", _i == 2 ? H5T_STD_U64LE : H5T_STD_I64LE, 2, dims,
                 H5P_DEFAULT, _i == 2 ? H5T_NATIVE_UINT64 : H5T_NATIVE_INT64, stored));
    H5Fclose(file);
    gemma4_activations *reader = open_valid(path);
    const gemma4_activation *found = gemma4_activations_find(reader, GEMMA4_TAP_ROUTER_TOPK_IDS, 0);
    ck_assert_int_eq(gemma4_activations_read_ids(reader, found, 0, T, ids, &error), -1);
    assert_message_contains(&error, "layers.0.router.topk_ids: row 2: expected ids of 32 bits");
    gemma4_activations_close(reader);
}
END_TEST

START_TEST(rows_name_positions_in_any_order)
{
    const char *path = test_path("rows.h5");
    const int rows[3] = {4, 0, 2};
    const hsize_t dims[3] = {1, 3, 32};
    gemma4_error error = {""};
    float values[32];
    hid_t file = valid_file(path), dataset = put_floats(file, "logits", H5T_IEEE_F32LE, 3, dims);
    put_ints(dataset, "rows", rows, 3);
    H5Dclose(dataset);
    H5Fclose(file);
    gemma4_activations *reader = open_valid(path);
    const gemma4_activation *logits = gemma4_activations_find(reader, GEMMA4_TAP_LOGITS, 0);
    ck_assert_uint_eq(logits->rows, 3);
    for (size_t i = 0; i < 3; i++)
        ck_assert_uint_eq(logits->row_index[i], (size_t)rows[i]);
    ck_assert_int_eq(gemma4_activations_read(reader, logits, 2, 1, values, &error), 0);
    ck_assert_float_eq(values[7], value_at(2 * 32 + 7));
    gemma4_activations_close(reader);
}
END_TEST

START_TEST(names_that_are_no_taps_are_listed)
{
    static const char *const expected[] = {
        "prompt",           "logprobs.id",      "layers.2.attn.q", "layers.0.attn.extra",
        "/layers/0/attn.k", "layers.00.attn.q", "kv_cache.k",      "Layers.0.Attn.Q",
        "nothing.here"};
    const char *path = test_path("unknown.h5");
    const hsize_t dims[2] = {T, 12};
    hid_t file = valid_file(path), string = H5Tcopy(H5T_C_S1);
    const hsize_t one = 1;
    H5Tset_size(string, 8);
    H5Dclose(put(file, "prompt", string, 1, &one, H5P_DEFAULT, string, "hello\0\0"));
    H5Tclose(string);
    H5Dclose(put_floats(file, "logprobs/id", H5T_STD_I32LE, 2, dims));
    H5Dclose(put_floats(file, "layers/2/attn/q", H5T_IEEE_F32LE, 2, dims));
    H5Dclose(put_floats(file, "layers/0/attn/extra", H5T_IEEE_F32LE, 2, dims));
    H5Dclose(put_floats(file, "layers/0/attn.k", H5T_IEEE_F32LE, 2, dims));
    H5Dclose(put_floats(file, "layers/00/attn/q", H5T_IEEE_F32LE, 2, dims));
    H5Dclose(put_floats(file, "kv_cache/k", H5T_IEEE_F32LE, 2, dims));
    H5Dclose(put_floats(file, "Layers/0/Attn/Q", H5T_IEEE_F32LE, 2, dims));
    H5Gclose(H5Gcreate2(file, "nothing", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Gclose(H5Gcreate2(file, "nothing/here", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    /* what a group that is no tap's links to is nobody's business */
    ck_assert(H5Lcreate_soft("/tokens", file, "kv_cache/soft", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    H5Fclose(file);
    gemma4_activations *reader = open_valid(path);
    const size_t count = sizeof expected / sizeof *expected;
    ck_assert_uint_eq(gemma4_activations_count(reader), 1);
    ck_assert_uint_eq(gemma4_activations_unknown_count(reader), count);
    for (size_t i = 0; i < count; i++) {
        bool found = false;
        for (size_t j = 0; j < count; j++)
            found = found || strcmp(gemma4_activations_unknown_at(reader, j), expected[i]) == 0;
        ck_assert_msg(found, "%s is not listed", expected[i]);
    }
    ck_assert_ptr_null(gemma4_activations_unknown_at(reader, count));
    gemma4_activations_close(reader);
}
END_TEST

START_TEST(the_list_of_unknown_names_is_bounded)
{
    const char *path = test_path("many-unknown.h5");
    hid_t file = valid_file(path);
    for (int i = 0; i < 600; i++) {
        char name[400];
        memset(name, 'n', sizeof name);
        snprintf(name + 300, 100, "\x1b[31m-%d", i);
        H5Gclose(H5Gcreate2(file, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    }
    H5Fclose(file);
    gemma4_activations *reader = open_valid(path);
    ck_assert_uint_eq(gemma4_activations_unknown_count(reader), 600);
    ck_assert_ptr_nonnull(gemma4_activations_unknown_at(reader, 511));
    ck_assert_ptr_null(gemma4_activations_unknown_at(reader, 512));
    gemma4_activations_close(reader);
}
END_TEST

/* Groups that can hold no tap are looked into for their names, but hard links in them may lead back
 * up in as many ways as they like. */
START_TEST(cyclic_hard_links_in_foreign_groups_end)
{
    const char *path = test_path("foreign-cycle.h5");
    hid_t file = valid_file(path);
    H5Gclose(H5Gcreate2(file, "cache", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    for (int i = 0; i < 64; i++) {
        char name[32];
        snprintf(name, sizeof name, "cache/up%d", i);
        ck_assert(H5Lcreate_hard(file, "/", file, name, H5P_DEFAULT, H5P_DEFAULT) >= 0);
    }
    H5Fclose(file);
    gemma4_activations *reader = open_valid(path);
    ck_assert_uint_eq(gemma4_activations_count(reader), 1);
    ck_assert_uint_le(gemma4_activations_unknown_count(reader), 2 * 4096);
    gemma4_activations_close(reader);
}
END_TEST

/* Hard links may lead back up; the walk ends where no tap's name goes on. */
START_TEST(cyclic_hard_links_end)
{
    const char *path = test_path("cycle.h5");
    const hsize_t dims[2] = {T, 12};
    hid_t file = valid_file(path);
    H5Dclose(put_floats(file, "layers/0/attn/norm", H5T_IEEE_F32LE, 2, dims));
    ck_assert(H5Lcreate_hard(file, "layers/0", file, "layers/0/attn/layers", H5P_DEFAULT,
                             H5P_DEFAULT) >= 0);
    ck_assert(H5Lcreate_hard(file, "layers/0", file, "layers/0/mlp", H5P_DEFAULT, H5P_DEFAULT) >=
              0);
    ck_assert(H5Lcreate_hard(file, "layers", file, "layers/1", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    ck_assert(H5Lcreate_hard(file, "/", file, "logprobs", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    H5Fclose(file);
    gemma4_activations *reader = open_valid(path);
    ck_assert_uint_eq(gemma4_activations_count(reader), 2); /* embed and layers.0.attn.norm */
    gemma4_activations_close(reader);
}
END_TEST

START_TEST(attributes_of_every_kind)
{
    const char *path = test_path("attributes.h5");
    hid_t file = valid_file(path);
    const int seven = -7;
    const hsize_t one = 1;
    char *long_text = malloc(70000);
    memset(long_text, 'x', 69999);
    long_text[69999] = '\0';
    put_string(file, "fixed", "text");
    put_ints(file, "number", &seven, 0);
    put_ints(file, "list-of-one", &seven, one);
    put_ints(file, "list", (const int[]){1, 2}, 2);
    const struct {
        const char *name, *text;
        H5T_cset_t cset;
        H5T_str_t pad;
    } strings[] = {
        {"ascii", "abc", H5T_CSET_ASCII, H5T_STR_NULLTERM},
        {"utf8", "\xc3\xa9", H5T_CSET_UTF8, H5T_STR_NULLTERM},
        {"long", long_text, H5T_CSET_UTF8, H5T_STR_NULLTERM},
        {"empty", "", H5T_CSET_UTF8, H5T_STR_NULLTERM},
    };
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++) {
        hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
        H5Tset_size(type, H5T_VARIABLE);
        H5Tset_cset(type, strings[i].cset);
        hid_t attribute = H5Acreate2(file, strings[i].name, type, space, H5P_DEFAULT, H5P_DEFAULT);
        ck_assert(H5Awrite(attribute, type, &strings[i].text) >= 0);
        H5Aclose(attribute);
        H5Sclose(space);
        H5Tclose(type);
    }
    hid_t padded = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(padded, 6);
    H5Tset_strpad(padded, H5T_STR_SPACEPAD);
    hid_t attribute = H5Acreate2(file, "padded", padded, space, H5P_DEFAULT, H5P_DEFAULT);
    ck_assert(H5Awrite(attribute, padded, "abc   ") >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(padded);
    H5Fclose(file);
    free(long_text);

    gemma4_activations *reader = open_valid(path);
    ck_assert_str_eq(gemma4_activations_attribute(reader, "fixed"), "text");
    ck_assert_str_eq(gemma4_activations_attribute(reader, "number"), "-7");
    ck_assert_str_eq(gemma4_activations_attribute(reader, "list-of-one"), "-7");
    ck_assert_str_eq(gemma4_activations_attribute(reader, "ascii"), "abc");
    ck_assert_str_eq(gemma4_activations_attribute(reader, "utf8"), "\xc3\xa9");
    ck_assert_str_eq(gemma4_activations_attribute(reader, "empty"), "");
    ck_assert_str_eq(gemma4_activations_attribute(reader, "padded"), "abc");
    ck_assert_ptr_null(gemma4_activations_attribute(reader, "list"));
    ck_assert_ptr_null(gemma4_activations_attribute(reader, "long"));
    gemma4_activations_close(reader);
}
END_TEST

/* --- taps that cannot be used --- */

static void unusable_scalar(hid_t file)
{
    hid_t space = H5Screate(H5S_SCALAR);
    const float one = 1;
    hid_t dataset =
        H5Dcreate2(file, "logits", H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Dwrite(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, &one);
    H5Dclose(dataset);
    H5Sclose(space);
}

static void unusable_null(hid_t file)
{
    hid_t space = H5Screate(H5S_NULL);
    H5Dclose(
        H5Dcreate2(file, "logits", H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Sclose(space);
}

static void unusable_integers(hid_t file)
{
    H5Dclose(put_floats(file, "logits", H5T_STD_I32LE, 2, (const hsize_t[]){T, 32}));
}

static void unusable_unmarked_bits(hid_t file)
{
    H5Dclose(put_floats(file, "logits", H5T_STD_U16LE, 2, (const hsize_t[]){T, 32}));
}

static void unusable_width(hid_t file)
{
    H5Dclose(put_floats(file, "logits", H5T_IEEE_F32LE, 2, (const hsize_t[]){T, 33}));
}

static void unusable_rows(hid_t file)
{
    H5Dclose(put_floats(file, "logits", H5T_IEEE_F32LE, 2, (const hsize_t[]){T - 1, 32}));
}

static void unusable_batch(hid_t file)
{
    H5Dclose(put_floats(file, "logits", H5T_IEEE_F32LE, 3, (const hsize_t[]){2, T, 32}));
}

static void unusable_single_row(hid_t file)
{
    H5Dclose(put_floats(file, "logits", H5T_IEEE_F32LE, 1, (const hsize_t[]){32}));
}

static void unusable_empty(hid_t file)
{
    H5Dclose(put_floats(file, "logits", H5T_IEEE_F32LE, 2, (const hsize_t[]){T, 0}));
}

static void unusable_rank(hid_t file)
{
    H5Dclose(put_floats(file, "logits", H5T_IEEE_F32LE, 9,
                        (const hsize_t[]){1, 1, 1, 1, 1, 1, 1, T, 32}));
}

static void unusable_unwritten(hid_t file)
{
    H5Dclose(
        put(file, "logits", H5T_IEEE_F32LE, 2, (const hsize_t[]){T, 32}, H5P_DEFAULT, 0, NULL));
}

/* 2^60 rows, all of them in chunks that do not exist. */
static void unusable_huge(hid_t file)
{
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(creation, 2, (const hsize_t[]){16, 32});
    H5Dclose(put(file, "logits", H5T_IEEE_F32LE, 2, (const hsize_t[]){(hsize_t)1 << 50, 32},
                 creation, 0, NULL));
    H5Pclose(creation);
}

static void unusable_rows_count(hid_t file)
{
    hid_t dataset = put_floats(file, "logits", H5T_IEEE_F32LE, 2, (const hsize_t[]){3, 32});
    put_ints(dataset, "rows", (const int[]){0, 1}, 2);
    H5Dclose(dataset);
}

static void unusable_float(hid_t file)
{
    hid_t type = sixteen_bit_float(4, false);
    H5Dclose(put_floats(file, "logits", type, 2, (const hsize_t[]){T, 32}));
    H5Tclose(type);
}

static void unusable_vax(hid_t file)
{
    H5Dclose(put(file, "logits", H5T_VAX_F32, 2, (const hsize_t[]){T, 32}, H5P_DEFAULT, 0, NULL));
}

static void unusable_precision(hid_t file)
{
    hid_t type = H5Tcopy(H5T_STD_I32LE);
    H5Tset_precision(type, 20);
    H5Dclose(put_floats(file, "logits", type, 2, (const hsize_t[]){T, 32}));
    H5Tclose(type);
}

static const struct {
    void (*make)(hid_t file);
    const char *problem;
} unusable[] = {
    {unusable_scalar, "expected [5, 32], found []"},
    {unusable_null, "found an empty dataset"},
    {unusable_integers, "expected a float type, found int32"},
    {unusable_unmarked_bits, "found uint16 without attribute dtype=\"bfloat16\""},
    {unusable_width, "expected [5, 32], found [5, 33]"},
    {unusable_rows, "expected [5, 32], found [4, 32]"},
    {unusable_batch, "expected [5, 32], found [2, 5, 32]"},
    {unusable_single_row, "expected [5, 32], found [32]"},
    {unusable_empty, "found an empty dataset"},
    {unusable_rank, "expected at most 8 axes, found 9"},
    {unusable_unwritten, "never written"},
    {unusable_huge, "never written"},
    {unusable_rows_count, "expected [2, 32], found [3, 32]"},
    {unusable_float, "found another float type of 2 bytes"},
    {unusable_vax, "found another float type of 4 bytes"},
    {unusable_precision, "found another integer type of 4 bytes"},
};

START_TEST(a_tap_that_contradicts_the_config_is_listed_as_unusable)
{
    const char *path = test_path("unusable.h5");
    gemma4_error error = {""};
    float values[32];
    hid_t file = valid_file(path);
    unusable[_i].make(file);
    H5Fclose(file);
    gemma4_activations *reader = open_valid(path);
    const gemma4_activation *logits = gemma4_activations_find(reader, GEMMA4_TAP_LOGITS, 0);
    ck_assert_ptr_nonnull(logits);
    ck_assert(!logits->usable);
    ck_assert_msg(strstr(logits->problem, unusable[_i].problem) != NULL, "%s", logits->problem);
    ck_assert_int_eq(gemma4_activations_read(reader, logits, 0, 1, values, &error), -1);
    assert_message_contains(&error, unusable[_i].problem);
    ck_assert(gemma4_activations_find(reader, GEMMA4_TAP_EMBED, 0)->usable);
    gemma4_activations_close(reader);
}
END_TEST

START_TEST(reals_where_ids_belong_are_unusable)
{
    const char *path = test_path("real-ids.h5");
    hid_t file = valid_file(path);
    H5Dclose(
        put_floats(file, "layers/0/router/topk_ids", H5T_IEEE_F32LE, 2, (const hsize_t[]){T, 2}));
    H5Fclose(file);
    gemma4_activations *reader = open_valid(path);
    const gemma4_activation *ids = gemma4_activations_find(reader, GEMMA4_TAP_ROUTER_TOPK_IDS, 0);
    ck_assert_str_eq(ids->problem, "expected integers, found float32");
    gemma4_activations_close(reader);
}
END_TEST

/* --- hostile files: each starts as a file with the root attributes and lacks or adds what its name
 * says --- */

static void complete(hid_t file)
{
    put_tokens(file, T);
    H5Dclose(put_floats(file, "embed", H5T_IEEE_F32LE, 2, embed_dims));
}

static void external_link(hid_t file)
{
    complete(file);
    H5Lcreate_external("/etc/passwd", "/x", file, "logits", H5P_DEFAULT, H5P_DEFAULT);
}

static void soft_link(hid_t file)
{
    complete(file);
    H5Lcreate_soft("/embed", file, "final_norm", H5P_DEFAULT, H5P_DEFAULT);
}

static void dangling_link(hid_t file)
{
    complete(file);
    H5Lcreate_soft("/nowhere", file, "final_norm", H5P_DEFAULT, H5P_DEFAULT);
}

static void link_on_the_way(hid_t file)
{
    complete(file);
    H5Gclose(H5Gcreate2(file, "layers", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Lcreate_external("other.h5", "/layers/0", file, "layers/0", H5P_DEFAULT, H5P_DEFAULT);
}

static void link_to_layers(hid_t file)
{
    complete(file);
    H5Lcreate_soft("/", file, "layers", H5P_DEFAULT, H5P_DEFAULT);
}

static void tokens_link(hid_t file)
{
    complete(file);
    H5Lmove(file, "tokens", file, "ids", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_soft("/ids", file, "tokens", H5P_DEFAULT, H5P_DEFAULT);
}

static void user_defined_link(hid_t file)
{
    static const H5L_class_t link_class = {
        .version = H5L_LINK_CLASS_T_VERS, .id = (H5L_type_t)80, .comment = "test"};
    complete(file);
    H5L_class_t class = link_class;
    /* HDF5 wants a traversal function; the reader must never come to it. */
    class.trav_func = (H5L_traverse_func_t)abort;
    ck_assert(H5Lregister(&class) >= 0);
    ck_assert(H5Lcreate_ud(file, "logits", (H5L_type_t)80, "", 0, H5P_DEFAULT, H5P_DEFAULT) >= 0);
    H5Lunregister((H5L_type_t)80);
}

static void external_storage(hid_t file)
{
    complete(file);
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(creation, "/etc/passwd", 0, H5F_UNLIMITED);
    H5Dclose(put(file, "logits", H5T_IEEE_F32LE, 2, (const hsize_t[]){T, 32}, creation, 0, NULL));
    H5Pclose(creation);
}

static void virtual_dataset(hid_t file)
{
    complete(file);
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE),
          space = H5Screate_simple(2, (const hsize_t[]){T, 32}, NULL);
    ck_assert(H5Pset_virtual(creation, space, "/etc/passwd", "x", space) >= 0);
    H5Dclose(put(file, "logits", H5T_IEEE_F32LE, 2, (const hsize_t[]){T, 32}, creation, 0, NULL));
    H5Sclose(space);
    H5Pclose(creation);
}

static void virtual_tokens(hid_t file)
{
    const hsize_t dims[1] = {T};
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(1, dims, NULL);
    ck_assert(H5Pset_virtual(creation, space, "other.h5", "x", space) >= 0);
    H5Dclose(put(file, "tokens", H5T_STD_I32LE, 1, dims, creation, 0, NULL));
    H5Sclose(space);
    H5Pclose(creation);
}

static size_t same_bytes(unsigned flags, size_t count, const unsigned values[], size_t bytes,
                         size_t *size, void **data)
{
    (void)flags, (void)count, (void)values, (void)size, (void)data;
    return bytes;
}

static void unknown_filter(hid_t file)
{
    static const H5Z_class2_t filter = {
        .version = H5Z_CLASS_T_VERS,
        .id = 31999,
        .encoder_present = 1,
        .decoder_present = 1,
        .name = "test",
        .filter = same_bytes,
    };
    complete(file);
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    ck_assert(H5Zregister(&filter) >= 0);
    H5Pset_chunk(creation, 2, (const hsize_t[]){T, 32});
    ck_assert(H5Pset_filter(creation, 31999, H5Z_FLAG_OPTIONAL, 0, NULL) >= 0);
    float values[T * 32] = {0};
    H5Dclose(put(file, "logits", H5T_IEEE_F32LE, 2, (const hsize_t[]){T, 32}, creation,
                 H5T_NATIVE_FLOAT, values));
    H5Pclose(creation);
}

static void nbit_filter(hid_t file)
{
    complete(file);
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(creation, 2, (const hsize_t[]){T, 32});
    H5Pset_nbit(creation);
    H5Dclose(put(file, "logits", H5T_IEEE_F32LE, 2, (const hsize_t[]){T, 32}, creation, 0, NULL));
    H5Pclose(creation);
}

static void scaleoffset_filter(hid_t file)
{
    complete(file);
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(creation, 2, (const hsize_t[]){T, 32});
    H5Pset_scaleoffset(creation, H5Z_SO_FLOAT_DSCALE, 2);
    H5Dclose(put(file, "logits", H5T_IEEE_F32LE, 2, (const hsize_t[]){T, 32}, creation, 0, NULL));
    H5Pclose(creation);
}

static void huge_chunk(hid_t file)
{
    const hsize_t none[2] = {0, 32}, all[2] = {H5S_UNLIMITED, 32};
    complete(file);
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(2, none, all);
    H5Pset_chunk(creation, 2, (const hsize_t[]){(1 << 23) + 1, 32});
    hid_t dataset =
        H5Dcreate2(file, "logits", H5T_IEEE_F32LE, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    ck_assert(dataset >= 0);
    H5Dclose(dataset);
    H5Sclose(space);
    H5Pclose(creation);
}

static void compound_type(hid_t file)
{
    complete(file);
    hid_t type = H5Tcreate(H5T_COMPOUND, 4);
    H5Tinsert(type, "x", 0, H5T_IEEE_F32LE);
    H5Dclose(put(file, "logits", type, 2, (const hsize_t[]){T, 32}, H5P_DEFAULT, 0, NULL));
    H5Tclose(type);
}

static void opaque_type(hid_t file)
{
    complete(file);
    hid_t type = H5Tcreate(H5T_OPAQUE, 4);
    H5Dclose(put(file, "logits", type, 2, (const hsize_t[]){T, 32}, H5P_DEFAULT, 0, NULL));
    H5Tclose(type);
}

static void string_type(hid_t file)
{
    complete(file);
    H5Dclose(put(file, "logits", H5T_C_S1, 2, (const hsize_t[]){T, 32}, H5P_DEFAULT, 0, NULL));
}

static void enumeration_type(hid_t file)
{
    complete(file);
    hid_t type = H5Tenum_create(H5T_STD_I8LE);
    H5Tenum_insert(type, "A", &(signed char){0});
    H5Dclose(put(file, "logits", type, 2, (const hsize_t[]){T, 32}, H5P_DEFAULT, 0, NULL));
    H5Tclose(type);
}

static void array_type(hid_t file)
{
    complete(file);
    hid_t type = H5Tarray_create2(H5T_IEEE_F32LE, 1, (const hsize_t[]){32});
    H5Dclose(put(file, "logits", type, 1, (const hsize_t[]){T}, H5P_DEFAULT, 0, NULL));
    H5Tclose(type);
}

static void variable_length_type(hid_t file)
{
    complete(file);
    hid_t type = H5Tvlen_create(H5T_IEEE_F32LE);
    H5Dclose(put(file, "logits", type, 1, (const hsize_t[]){T}, H5P_DEFAULT, 0, NULL));
    H5Tclose(type);
}

static void committed_type(hid_t file)
{
    complete(file);
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    H5Tcommit2(file, "type", type, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Dclose(put(file, "logits", type, 2, (const hsize_t[]){T, 32}, H5P_DEFAULT, 0, NULL));
    H5Tclose(type);
}

static void with_rows(hid_t file, const int *rows, hsize_t count)
{
    complete(file);
    hid_t dataset =
        put_floats(file, "logits", H5T_IEEE_F32LE, 2, (const hsize_t[]){count ? count : 1, 32});
    put_ints(dataset, "rows", rows, count);
    H5Dclose(dataset);
}

static void negative_rows(hid_t file)
{
    with_rows(file, (const int[]){0, -1}, 2);
}

static void rows_beyond_the_case(hid_t file)
{
    with_rows(file, (const int[]){0, T}, 2);
}

static void duplicate_rows(hid_t file)
{
    with_rows(file, (const int[]){3, 1, 3}, 3);
}

static void more_rows_than_positions(hid_t file)
{
    with_rows(file, (const int[]){0, 1, 2, 3, 4, 5}, 6);
}

static void scalar_rows(hid_t file)
{
    with_rows(file, (const int[]){4}, 0);
}

static void too_many_rows(hid_t file)
{
    int rows[65] = {0};
    with_rows(file, rows, 65);
}

static void text_rows(hid_t file)
{
    complete(file);
    hid_t dataset = put_floats(file, "logits", H5T_IEEE_F32LE, 2, (const hsize_t[]){1, 32});
    put_string(dataset, "rows", "4");
    H5Dclose(dataset);
}

static void empty_rows(hid_t file)
{
    const hsize_t zero = 0;
    complete(file);
    hid_t dataset = put_floats(file, "logits", H5T_IEEE_F32LE, 2, (const hsize_t[]){1, 32});
    hid_t space = H5Screate_simple(1, &zero, NULL);
    H5Aclose(H5Acreate2(dataset, "rows", H5T_STD_I32LE, space, H5P_DEFAULT, H5P_DEFAULT));
    H5Sclose(space);
    H5Dclose(dataset);
}

static void tokens_with_rows(hid_t file)
{
    complete(file);
    hid_t dataset = H5Dopen2(file, "tokens", H5P_DEFAULT);
    put_ints(dataset, "rows", (const int[]){0, 1, 2, 3, 4}, 5);
    H5Dclose(dataset);
}

static void with_tokens(hid_t file, hid_t type, int rank, const hsize_t *dims, const int *values)
{
    H5Dclose(put_floats(file, "embed", H5T_IEEE_F32LE, 2, embed_dims));
    H5Dclose(put(file, "tokens", type, rank, dims, H5P_DEFAULT, H5T_NATIVE_INT, values));
}

static void no_tokens(hid_t file)
{
    H5Dclose(put_floats(file, "embed", H5T_IEEE_F32LE, 2, embed_dims));
}

static void only_tokens(hid_t file)
{
    put_tokens(file, T);
}

static void token_too_large(hid_t file)
{
    with_tokens(file, H5T_STD_I32LE, 1, (const hsize_t[]){3}, (const int[]){2, 32, 5});
}

static void token_negative(hid_t file)
{
    with_tokens(file, H5T_STD_I64BE, 1, (const hsize_t[]){3}, (const int[]){2, 5, -1});
}

static void float_tokens(hid_t file)
{
    H5Dclose(put_floats(file, "tokens", H5T_IEEE_F32LE, 1, (const hsize_t[]){T}));
}

static void tokens_of_two_sequences(hid_t file)
{
    with_tokens(file, H5T_STD_I32LE, 2, (const hsize_t[]){2, 2}, (const int[]){1, 2, 3, 4});
}

static void tokens_in_a_column(hid_t file)
{
    with_tokens(file, H5T_STD_I32LE, 2, (const hsize_t[]){2, 1}, (const int[]){1, 2});
}

static void too_many_tokens(hid_t file)
{
    const int many[65] = {0};
    with_tokens(file, H5T_STD_I32LE, 1, (const hsize_t[]){65}, many);
}

static void huge_tokens(hid_t file)
{
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t dims[1] = {(hsize_t)1 << 60}, start = 0, one = 1;
    H5Pset_chunk(creation, 1, (const hsize_t[]){16});
    hid_t dataset = put(file, "tokens", H5T_STD_I32LE, 1, dims, creation, 0, NULL);
    hid_t space = H5Dget_space(dataset), memory = H5Screate_simple(1, &one, NULL);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, NULL, &one, NULL);
    ck_assert(H5Dwrite(dataset, H5T_NATIVE_INT, memory, space, H5P_DEFAULT, &(int){1}) >= 0);
    H5Sclose(memory);
    H5Sclose(space);
    H5Dclose(dataset);
    H5Pclose(creation);
}

static void unwritten_tokens(hid_t file)
{
    H5Dclose(put(file, "tokens", H5T_STD_I32LE, 1, (const hsize_t[]){T}, H5P_DEFAULT, 0, NULL));
}

static void tokens_as_a_group(hid_t file)
{
    H5Gclose(H5Gcreate2(file, "tokens", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
}

static void with_positions(hid_t file, hsize_t count, const int *values)
{
    complete(file);
    H5Dclose(put(file, "positions", H5T_STD_I32LE, 1, &count, H5P_DEFAULT, H5T_NATIVE_INT, values));
}

static void positions_with_a_gap(hid_t file)
{
    with_positions(file, T, (const int[]){0, 1, 3, 4, 5});
}

static void positions_descending(hid_t file)
{
    with_positions(file, T, (const int[]){4, 3, 2, 1, 0});
}

static void positions_out_of_range(hid_t file)
{
    with_positions(file, T, (const int[]){60, 61, 62, 63, 64});
}

static void positions_of_another_length(hid_t file)
{
    with_positions(file, 4, (const int[]){0, 1, 2, 3});
}

static void too_many_links(hid_t file)
{
    complete(file);
    hid_t group = H5Gcreate2(file, "layers", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    for (int i = 0; i < 300; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        H5Lcreate_hard(file, "layers", group, name, H5P_DEFAULT, H5P_DEFAULT);
    }
    /* layers/N/attn is the group of 300 links again: 300 x 300 links in a small file */
    H5Lcreate_hard(file, "layers", group, "attn", H5P_DEFAULT, H5P_DEFAULT);
    H5Gclose(group);
}

static void too_many_attributes(hid_t file)
{
    complete(file);
    for (int i = 0; i < 300; i++) {
        char name[16];
        snprintf(name, sizeof name, "a%d", i);
        put_ints(file, name, &i, 0);
    }
}

static void control_characters(hid_t file)
{
    complete(file);
    H5Lcreate_soft("x", file, "two\nlines\x1b[31m", H5P_DEFAULT, H5P_DEFAULT);
}

static void wrong_format(hid_t file)
{
    H5Adelete(file, "format");
    put_string(file, "format", "something-else");
}

static void no_format(hid_t file)
{
    H5Adelete(file, "format");
}

static void wrong_version(hid_t file)
{
    H5Adelete(file, "format_version");
    put_ints(file, "format_version", (const int[]){2}, 0);
}

static void no_version(hid_t file)
{
    H5Adelete(file, "format_version");
}

static const struct {
    void (*make)(hid_t file);
    const char *expected;
} hostile[] = {
    {external_link, "/logits: expected a hard link, found an external link"},
    {soft_link, "/final_norm: expected a hard link, found a soft link"},
    {dangling_link, "/final_norm: expected a hard link, found a soft link"},
    {link_on_the_way, "/layers/0: expected a hard link, found an external link"},
    {link_to_layers, "/layers: expected a hard link, found a soft link"},
    {tokens_link, "/tokens: expected a hard link, found a soft link"},
    {user_defined_link, "/logits: expected a hard link, found a user-defined link"},
    {external_storage, "/logits: expected values in this file, found external storage"},
    {virtual_dataset, "/logits: expected values in this file, found a virtual dataset"},
    {virtual_tokens, "/tokens: expected values in this file, found a virtual dataset"},
    {unknown_filter, "/logits: expected filter deflate, shuffle or fletcher32, found 31999 (test)"},
    {nbit_filter, "/logits: expected filter deflate, shuffle or fletcher32, found 5"},
    {scaleoffset_filter, "/logits: expected filter deflate, shuffle or fletcher32, found 6"},
    {huge_chunk, "/logits: expected chunks of at most 1073741824 bytes"},
    {compound_type, "/logits: expected a float or integer type, found a compound type"},
    {opaque_type, "found an opaque type"},
    {string_type, "found a string type"},
    {enumeration_type, "found an enumeration type"},
    {array_type, "found an array type"},
    {variable_length_type, "found a variable-length type"},
    {committed_type, "/logits: expected the dataset's own type, found a committed one"},
    {negative_rows, "logits: attribute rows: expected positions in 0 ... 4, found -1"},
    {rows_beyond_the_case, "logits: attribute rows: expected positions in 0 ... 4, found 5"},
    {duplicate_rows, "logits: attribute rows: expected distinct positions, found 3 twice"},
    {more_rows_than_positions, "logits: attribute rows: expected at most 5 positions, found 6"},
    {scalar_rows, "/logits: attribute rows: expected a list of integers"},
    {too_many_rows, "/logits: attribute rows: expected at most 64 positions, found 65"},
    {text_rows, "/logits: attribute rows: expected a list of integers"},
    {empty_rows, "logits: attribute rows: expected at least one position, found none"},
    {tokens_with_rows, "tokens: expected every position, found an attribute rows"},
    {no_tokens, "tokens: expected the input ids, found no such dataset"},
    {only_tokens, "expected at least one tap beside tokens (spec/taps.md), found nothing else"},
    {token_too_large, "tokens: entry 1: expected 0 ... 31, found 32"},
    {token_negative, "tokens: entry 2: expected 0 ... 31, found -1"},
    {float_tokens, "tokens: expected integers, found float32"},
    {tokens_of_two_sequences, "tokens: expected one axis of positions, found [2, 2]"},
    {tokens_in_a_column, "tokens: expected one axis of positions, found [2, 1]"},
    {too_many_tokens, "tokens: expected at most max_position_embeddings = 64, found [65]"},
    {huge_tokens,
     "tokens: expected at most max_position_embeddings = 64, found [1152921504606846976]"},
    {unwritten_tokens, "tokens: expected values, found a dataset never written to"},
    {tokens_as_a_group, "tokens: expected the input ids, found no such dataset"},
    {positions_with_a_gap, "positions must be consecutive: entry 2: expected 2, found 3"},
    {positions_descending, "positions must be consecutive"},
    {positions_out_of_range, "positions: entry 4: expected 0 ... 63, found 64"},
    {positions_of_another_length, "positions: expected [5] like tokens, found [4]"},
    {too_many_links, "expected at most 65536 links, found more"},
    {too_many_attributes, "expected at most 256 attributes, found more"},
    {control_characters, "/two?lines?[31m: expected a hard link"},
    {wrong_format, "attribute format: expected gemma4-activations, found something-else"},
    {no_format, "attribute format: expected gemma4-activations, found none"},
    {wrong_version, "attribute format_version: expected 1, found 2"},
    {no_version, "attribute format_version: expected 1, found none"},
};

START_TEST(a_hostile_file_is_refused)
{
    const char *path = test_path("hostile.h5");
    hid_t file = new_file(path);
    hostile[_i].make(file);
    H5Fclose(file);
    expect_failure(path, hostile[_i].expected);
}
END_TEST

START_TEST(what_is_no_file_is_refused)
{
    expect_failure(test_path("not-there.h5"), "No such file");
    expect_failure(test_dir(), "found a folder");
}
END_TEST

START_TEST(garbage_is_refused)
{
    const char *path = test_path("garbage");
    unsigned char bytes[4096];
    gemma4_error error = {""};
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(int)(scattered(i) * 1e6);
    for (size_t size = 0; size <= sizeof bytes; size += 512) {
        test_write(path, bytes, size);
        ck_assert_ptr_null(gemma4_activations_open(path, &test_small_config, &error));
        assert_message_contains(&error, path);
    }
}
END_TEST

START_TEST(a_truncated_file_is_refused)
{
    const char *path = test_path("truncated.h5");
    gemma4_activations_writer *writer = create(path, "float32");
    write_all_taps(writer, T);
    commit(writer);
    size_t size;
    char *bytes = slurp(path, &size);
    for (size_t cut = 1; cut < size; cut += size / 40) {
        gemma4_error error = {""};
        test_write(path, bytes, cut);
        ck_assert_ptr_null(gemma4_activations_open(path, &test_small_config, &error));
        assert_message_contains(&error, path);
    }
    test_write(path, bytes, size - 1);
    expect_failure(path, "truncated file");
    free(bytes);
}
END_TEST

/* Replaces the one place in the file that holds old by bytes of the same size. */
static void patch(const char *path, const void *old, const void *new, size_t size)
{
    size_t file_size, changed = 0;
    char *bytes = slurp(path, &file_size);
    for (size_t i = 0; i + size <= file_size; i++)
        if (memcmp(bytes + i, old, size) == 0) {
            memcpy(bytes + i, new, size);
            changed++;
        }
    ck_assert_uint_eq(changed, 1);
    test_write(path, bytes, file_size);
    free(bytes);
}

/* The stored size of an unchunked dataset, which HDF5 trusts, made smaller than its shape
 * implies. */
START_TEST(a_dataset_stored_too_short_is_refused)
{
    const char *path = test_path("short.h5");
    const uint64_t stored = T * 12 * sizeof(float), shorter = 16;
    H5Fclose(valid_file(path));
    patch(path, &stored, &shorter, sizeof stored);
    expect_failure(path, "/embed: expected 240 bytes by shape and type, found 16");
}
END_TEST

/* A chunk that is said to be larger than what was packed into it. */
START_TEST(a_chunk_larger_than_its_dataset_is_refused)
{
    const char *path = test_path("chunk.h5");
    const uint32_t stored[3] = {2, 32, sizeof(float)}, larger[3] = {2, 3200, sizeof(float)};
    const float values[T * 32] = {0};
    hid_t file = valid_file(path), creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(creation, 2, (const hsize_t[]){2, 32});
    H5Dclose(put(file, "logits", H5T_IEEE_F32LE, 2, (const hsize_t[]){T, 32}, creation,
                 H5T_NATIVE_FLOAT, values));
    H5Pclose(creation);
    H5Fclose(file);
    patch(path, stored, larger, sizeof stored);
    expect_failure(path, "/logits: expected chunks no larger than the dataset may become");
}
END_TEST

/* --- the safetensors form --- */

/* Writes a safetensors file of that header and 400 bytes of data: int32 0, 1, 2 ... */
static const char *write_safetensors(const char *header)
{
    unsigned char bytes[2048 + 8 + 400];
    const char *path = test_path("dump.safetensors");
    uint64_t text = strlen(header), length = (text + 7) / 8 * 8; /* padded, so that the data are
                                                                    aligned */
    memcpy(bytes, &length, 8);
    memset(bytes + 8, ' ', length);
    memcpy(bytes + 8, header, text);
    for (int32_t i = 0; i < 100; i++)
        memcpy(bytes + 8 + length + 4 * i, &i, 4);
    test_write(path, bytes, 8 + length + 400);
    return path;
}

#define METADATA                                                                              \
    "\"__metadata__\":{\"format\":\"gemma4-activations\",\"format_version\":\"1\",\"dtype\":" \
    "\"float32\"},"
#define TOKENS "\"tokens\":{\"dtype\":\"I32\",\"shape\":[1,5],\"data_offsets\":[0,20]},"
#define REST(n) ",\"rest\":{\"dtype\":\"I8\",\"shape\":[" n "],"

START_TEST(safetensors_read_like_hdf5)
{
    const char *path = write_safetensors(
        "{" METADATA TOKENS
        "\"layers.0.attn.norm\":{\"dtype\":\"F16\",\"shape\":[1,5,12],\"data_offsets\":[20,140]},"
        "\"logits\":{\"dtype\":\"F32\",\"shape\":[1,33],\"data_offsets\":[140,272]},"
        "\"layers.1.router.topk_ids\":{\"dtype\":\"I64\",\"shape\":[5,2],\"data_offsets\":[272,352]"
        "}" REST("48") "\"data_offsets\":[352,400]}}");
    gemma4_error error = {""};
    float values[T * 12];
    int32_t ids[T * 2];
    const int32_t *found_tokens;
    gemma4_activations *file = open_valid(path);
    ck_assert_str_eq(gemma4_activations_attribute(file, "dtype"), "float32");
    ck_assert_uint_eq(gemma4_activations_positions(file, &found_tokens, NULL), T);
    ck_assert_int_eq(found_tokens[4], 4);
    ck_assert_uint_eq(gemma4_activations_count(file), 3);
    ck_assert_uint_eq(gemma4_activations_unknown_count(file), 1);
    ck_assert_str_eq(gemma4_activations_unknown_at(file, 0), "rest");
    const gemma4_activation *norm = gemma4_activations_find(file, GEMMA4_TAP_ATTN_NORM, 0);
    ck_assert_str_eq(norm->stored_dtype, "float16");
    ck_assert_int_eq(gemma4_activations_read(file, norm, 3, 2, values, &error), 0);
    /* Row 3 starts 20 + 72 bytes in: at the int 23, whose low half is a float16 subnormal. */
    ck_assert_float_eq(values[0], 23 * 0x1p-24F);
    ck_assert_float_eq(values[1], 0);
    ck_assert_float_eq(values[2], 24 * 0x1p-24F);
    const gemma4_activation *topk = gemma4_activations_find(file, GEMMA4_TAP_ROUTER_TOPK_IDS, 1);
    ck_assert_int_eq(gemma4_activations_read_ids(file, topk, 0, 1, ids, &error), -1);
    assert_message_contains(&error, "row 0: expected ids of 32 bits");
    const gemma4_activation *logits = gemma4_activations_find(file, GEMMA4_TAP_LOGITS, 0);
    ck_assert_str_eq(logits->problem, "expected [5, 32], found [1, 33]");
    gemma4_activations_close(file);
}
END_TEST

static const struct {
    const char *header, *expected;
} bad_safetensors[] = {
    {"{" TOKENS "\"embed\":{\"dtype\":\"I8\",\"shape\":[380],\"data_offsets\":[20,400]}}",
     "attribute format: expected gemma4-activations, found none"},
    {"{\"__metadata__\":{\"format\":\"gemma4-activations\",\"format_version\":\"3\"}," TOKENS
     "\"embed\":{\"dtype\":\"I8\",\"shape\":[380],\"data_offsets\":[20,400]}}",
     "attribute format_version: expected 1, found 3"},
    {"{" METADATA "\"embed\":{\"dtype\":\"F32\",\"shape\":[100],\"data_offsets\":[0,400]}}",
     "tokens: expected the input ids"},
    {"{" METADATA TOKENS "\"rest\":{\"dtype\":\"I8\",\"shape\":[380],\"data_offsets\":[20,400]}}",
     "expected at least one tap beside tokens (spec/taps.md), found 'rest'"},
    {"{" METADATA TOKENS
     "\"layers.0.outputs\":{\"dtype\":\"I8\",\"shape\":[380],\"data_offsets\":[20,400]}}",
     "found 'layers.0.outputs' (layers.0.output?)"},
    {"{" METADATA "\"input_ids\":{\"dtype\":\"I8\",\"shape\":[400],\"data_offsets\":[0,400]}}",
     "'input_ids' (tokens?)"},
    {"{\"data\":{\"dtype\":\"I8\",\"shape\":[400],\"data_offsets\":[0,400]}}",
     "expected tensors under taps' names"},
    {"{" METADATA "\"tokens\":{\"dtype\":\"I32\",\"shape\":[100],\"data_offsets\":[0,400]}}",
     "tokens: expected at most max_position_embeddings = 64, found [100]"},
    {"{" METADATA "\"tokens\":{\"dtype\":\"I32\",\"shape\":[5],\"data_offsets\":[0,400]}}",
     "dump.safetensors"},
};

START_TEST(bad_safetensors_are_refused)
{
    expect_failure(write_safetensors(bad_safetensors[_i].header), bad_safetensors[_i].expected);
}
END_TEST

static void close_hdf5(void)
{
    H5close();
}

#define LOOP(tcase, test, table) \
    tcase_add_loop_test(tcase, test, 0, sizeof(table) / sizeof *(table))

Suite *activations_suite(void)
{
    Suite *suite = suite_create("activations");
    TCase *writer = tcase_create("writer");
    LOOP(writer, every_tap_round_trips_in_every_dtype, dtypes);
    tcase_add_test(writer, taps_come_in_dataflow_order);
    tcase_add_test(writer, the_case_and_the_attributes_round_trip);
    tcase_add_test(writer, the_same_calls_give_the_same_bytes);
    tcase_add_test(writer, a_tap_of_some_rows_says_which);
    tcase_add_test(writer, scores_are_padded_to_every_key);
    LOOP(writer, narrow_floats_round_to_nearest_even, roundings);
    tcase_add_test(writer, a_discarded_file_leaves_nothing);
    tcase_add_test(writer, a_file_stays_as_it_was_until_the_commit);
    LOOP(writer, the_writer_refuses_a_wrong_case, bad_cases);
    tcase_add_test(writer, the_writer_names_a_directory_that_is_not_there);
    LOOP(writer, the_writer_refuses_a_wrong_event, bad_events);
    tcase_add_test(writer, the_writer_keeps_its_own_attributes);

    TCase *reader = tcase_create("reader");
    LOOP(reader, every_form_of_a_tap_reads_the_same, accepted);
    tcase_add_loop_test(reader, bfloat16_as_marked_uint16, 0, 2);
    tcase_add_test(reader, non_finite_values_are_read_as_they_are);
    tcase_add_test(reader, ids_of_every_integer_type);
    tcase_add_loop_test(reader, ids_beyond_32_bits_fail, 0, 3);
    tcase_add_test(reader, rows_name_positions_in_any_order);
    tcase_add_test(reader, names_that_are_no_taps_are_listed);
    tcase_add_test(reader, the_list_of_unknown_names_is_bounded);
    tcase_add_test(reader, cyclic_hard_links_end);
    tcase_add_test(reader, cyclic_hard_links_in_foreign_groups_end);
    tcase_add_test(reader, attributes_of_every_kind);
    LOOP(reader, a_tap_that_contradicts_the_config_is_listed_as_unusable, unusable);
    tcase_add_test(reader, reals_where_ids_belong_are_unusable);

    TCase *refused = tcase_create("hostile");
    tcase_set_timeout(refused, 60);
    LOOP(refused, a_hostile_file_is_refused, hostile);
    tcase_add_test(refused, what_is_no_file_is_refused);
    tcase_add_test(refused, garbage_is_refused);
    tcase_add_test(refused, a_truncated_file_is_refused);
    tcase_add_test(refused, a_dataset_stored_too_short_is_refused);
    tcase_add_test(refused, a_chunk_larger_than_its_dataset_is_refused);

    TCase *safetensors = tcase_create("safetensors");
    tcase_add_test(safetensors, safetensors_read_like_hdf5);
    LOOP(safetensors, bad_safetensors_are_refused, bad_safetensors);

    TCase *const cases[] = {writer, reader, refused, safetensors};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tcase_add_unchecked_fixture(cases[i], NULL, close_hdf5);
        suite_add_tcase(suite, cases[i]);
    }
    return suite;
}
