/* Dumps under other names: files of every kind, and what rules make of their tensors. */
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "foreign.h"
#include "foreign_maker.h"
#include "import.h"
#include "suites.h"
#include "support.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define HEAD "format: gemma4-map\nversion: 1\nengine: mine\ntaps:\n"

/* d 16, 6 layers, H 4, G 2, D 8 (the last: G 1, D 16), F 24, E 4, K 2, V 32. */
static gemma4_config config;
static const int32_t TOKENS[] = {2, 7, 9};
static const gemma4_given_tokens GIVEN = {TOKENS, 3, 0};

static void set_up(void)
{
    gemma4_error error = {""};
    const char *path = test_join(test_fresh_dir(), "config.json");
    test_write_text(path, test_tiny_config);
    ck_assert_msg(gemma4_config_read(path, &config, &error) == 0, "%s", error.message);
}

static void tear_down(void)
{
    gemma4_config_free(&config);
}

/* A map and what it made. */
typedef struct imported {
    gemma4_map *map;
    gemma4_activations *file;
    const gemma4_import_log *log;
    gemma4_error error;
} imported;

static imported import_all(const char *const *paths, size_t count, const char *rules,
                           const gemma4_given_tokens *given)
{
    imported i = {.error = {""}};
    const char *path = test_join(test_fresh_dir(), "mine.yaml");
    char text[2048];
    snprintf(text, sizeof text, HEAD "%s\n", rules);
    test_write_text(path, text);
    i.map = gemma4_map_read(path, &i.error);
    ck_assert_msg(i.map != NULL, "%s", i.error.message);
    i.file = gemma4_import(paths, count, i.map, &config, given, &i.log, &i.error);
    return i;
}

static imported import_one(const char *path, const char *rules)
{
    return import_all(&path, 1, rules, &GIVEN);
}

static void done(imported *i)
{
    gemma4_activations_close(i->file);
    gemma4_map_free(i->map);
}

static void expect_values(imported *i, gemma4_tap tap, size_t layer, const float *expected,
                          size_t count)
{
    gemma4_error error = {""};
    float values[512];
    ck_assert_msg(i->file != NULL, "%s", i->error.message);
    const gemma4_activation *a = gemma4_activations_find(i->file, tap, layer);
    ck_assert_msg(a != NULL && a->usable, "%s", a ? a->problem : "no such tap");
    ck_assert_msg(gemma4_activations_read(i->file, a, 0, a->rows, values, &error) == 0, "%s",
                  error.message);
    for (size_t v = 0; v < count; v++)
        ck_assert_msg(values[v] == expected[v], "value %zu: expected %g, found %g", v,
                      (double)expected[v], (double)values[v]);
    for (size_t row = a->rows; row-- > 0;) { /* the last row by itself is the same */
        float one[512];
        size_t width = count / a->rows;
        ck_assert_msg(gemma4_activations_read(i->file, a, row, 1, one, &error) == 0, "%s",
                      error.message);
        ck_assert_mem_eq(one, values + row * width, width * sizeof *one);
    }
}

static void expect_refused(imported *i, const char *expected)
{
    ck_assert_msg(i->file == NULL, "%s", expected);
    assert_message_contains(&i->error, expected);
    done(i);
}

static const char *write_npy(const char *directory, const char *name, const char *shape,
                             size_t count, float first)
{
    test_bytes npy = test_npy_floats(shape, count, first);
    const char *path = test_join(directory, name);
    test_write(path, npy.bytes, npy.size);
    test_bytes_free(&npy);
    return path;
}

/* first, first + step ... */
static const float *counting(size_t count, float first)
{
    static float values[512];
    for (size_t i = 0; i < count; i++)
        values[i] = first + (float)i;
    return values;
}

/* --- kinds of files --- */

START_TEST(an_npz_of_stored_and_deflated_arrays_is_read)
{
    test_zip zip = {0};
    test_bytes embed = test_npy_floats("(1, 3, 16)", 48, 0),
               logits = test_npy_floats("(3, 32)", 96, 100);
    test_zip_add(&zip, "e.npy", &embed, false);
    test_zip_add(&zip, "note.txt", &embed, false);
    test_zip_add(&zip, "l.npy", &logits, true);
    test_zip_close(&zip);
    const char *path = test_join(test_fresh_dir(), "a.npz");
    test_write(path, zip.file.bytes, zip.file.size);
    imported i = import_one(path, "  embed: {from: e}\n  logits: {from: l}");
    expect_values(&i, GEMMA4_TAP_EMBED, 0, counting(48, 0), 48);
    expect_values(&i, GEMMA4_TAP_LOGITS, 0, counting(96, 100), 96);
    ck_assert(i.log->tokens_given);
    ck_assert_uint_eq(i.log->names, 2);
    ck_assert_uint_eq(i.log->untaken_count, 0);
    done(&i);
    test_zip_free(&zip);
    test_bytes_free(&embed);
    test_bytes_free(&logits);
}
END_TEST

START_TEST(folders_with_a_tensor_a_file_are_read)
{
    const char *npy = test_fresh_dir(), *tensors = test_fresh_dir();
    write_npy(npy, "model.embed.npy", "(3, 16)", 48, 0);
    write_npy(npy, "model.logits.npy", "(3, 32)", 96, 100);
    test_write_text(test_join(npy, "readme.txt"), "left out");
    test_write_tensor(test_join(tensors, "model.embed.safetensors"), "data", "[1, 3, 16]", 48, 0);
    test_write_tensor(test_join(tensors, "model.logits.safetensors"), "data", "[3, 32]", 96, 100);
    const char *const folders[] = {npy, tensors};
    for (size_t f = 0; f < 2; f++) {
        imported i =
            import_one(folders[f], "  embed: {from: '*.embed'}\n  logits: {from: model.logits}");
        expect_values(&i, GEMMA4_TAP_EMBED, 0, counting(48, 0), 48);
        expect_values(&i, GEMMA4_TAP_LOGITS, 0, counting(96, 100), 96);
        done(&i);
    }
}
END_TEST

START_TEST(an_hdf5_file_of_any_names_is_read)
{
    const char *path = test_join(test_fresh_dir(), "keras.h5");
    hsize_t dims[] = {3, 16};
    float values[48];
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT),
          group = H5Gcreate2(file, "block.0", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    hid_t space = H5Screate_simple(2, dims, NULL),
          set = H5Dcreate2(group, "out.x", H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT,
                           H5P_DEFAULT);
    hid_t text = H5Tcopy(H5T_C_S1), scalar = H5Screate(H5S_SCALAR),
          words = H5Dcreate2(file, "note", text, scalar, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    memcpy(values, counting(48, 5), sizeof values);
    ck_assert(H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0 &&
              H5Dwrite(words, text, H5S_ALL, H5S_ALL, H5P_DEFAULT, "x") >= 0);
    H5Dclose(words), H5Sclose(scalar), H5Tclose(text), H5Dclose(set), H5Sclose(space),
        H5Gclose(group), H5Fclose(file);
    imported i = import_one(path, "  embed: {from: 'block.0/out.x'}");
    expect_values(&i, GEMMA4_TAP_EMBED, 0, counting(48, 5), 48);
    ck_assert_uint_eq(i.log->untaken_count, 1);
    ck_assert_str_eq(i.log->untaken[0], "note");
    done(&i);
    imported string = import_one(path, "  embed: {from: note}");
    expect_refused(&string, "note: rule embed: ");
}
END_TEST

START_TEST(what_llama_debug_saves_is_read)
{
    const char *directory = test_fresh_dir(), *path = test_join(directory, "llamacpp-tiny.bin");
    test_write(path, counting(32, 1), 32 * 4);
    test_write(test_join(directory, "llamacpp-tiny-tokens.bin"), TOKENS, sizeof TOKENS);
    imported i = import_all(
        &path, 1, "  tokens: {from: tokens}\n  logits: {from: logits, axes: t.v, rows: last}",
        NULL);
    expect_values(&i, GEMMA4_TAP_LOGITS, 0, counting(32, 1), 32);
    const gemma4_activation *a = gemma4_activations_find(i.file, GEMMA4_TAP_LOGITS, 0);
    ck_assert_uint_eq(a->rows, 1);
    ck_assert_uint_eq(a->row_index[0], 2);
    const int32_t *tokens;
    ck_assert_uint_eq(gemma4_activations_positions(i.file, &tokens, NULL), 3);
    ck_assert_mem_eq(tokens, TOKENS, sizeof TOKENS);
    done(&i);
    imported folder = import_one(directory, "  logits: {from: logits, axes: t.v, rows: last}");
    expect_values(&folder, GEMMA4_TAP_LOGITS, 0, counting(32, 1), 32);
    done(&folder);
}
END_TEST

/* --- what rules do --- */

static const char *write_single(const char *shape, size_t count)
{
    const char *path = test_join(test_fresh_dir(), "a.safetensors");
    test_write_tensor(path, "x.0", shape, count, 0);
    return path;
}

/* A tensor of values 0, 1 ... under the name x.0, and what element [t, a, b] of the tap in layer 0
 * must be. */
static const struct {
    const char *shape, *rules;
    size_t count;
    gemma4_tap tap;
    size_t widths[2];
    size_t base, t, a, b; /* value = base + t * row + a * head + b * lane */
    double scale;
} LAYOUTS[] = {
    {"[3, 4, 8]",
     "layers.{N}.attn.q: {from: 'x.{N}'}",
     96,
     GEMMA4_TAP_ATTN_Q,
     {4, 8},
     0,
     32,
     8,
     1,
     1},
    {"[1, 3, 32]",
     "layers.{N}.attn.q: {from: 'x.{N}'}",
     96,
     GEMMA4_TAP_ATTN_Q,
     {4, 8},
     0,
     32,
     8,
     1,
     1},
    {"[8, 4, 3]",
     "layers.{N}.attn.q: {from: 'x.{N}', axes: 'd h t'}",
     96,
     GEMMA4_TAP_ATTN_Q,
     {4, 8},
     0,
     1,
     3,
     12,
     1},
    {"[1, 4, 3, 8]",
     "layers.{N}.attn.q: {from: 'x.{N}', axes: 'h t d'}",
     96,
     GEMMA4_TAP_ATTN_Q,
     {4, 8},
     0,
     8,
     24,
     1,
     1},
    {"[3, 1, 4, 8]",
     "layers.{N}.attn.q: {from: 'x.{N}', axes: 't 1 h d'}",
     96,
     GEMMA4_TAP_ATTN_Q,
     {4, 8},
     0,
     32,
     8,
     1,
     1},
    {"[3, 32]",
     "layers.{N}.attn.q: {from: 'x.{N}', axes: 't d.h'}",
     96,
     GEMMA4_TAP_ATTN_Q,
     {4, 8},
     0,
     32,
     1,
     4,
     1},
    {"[3, 6, 8]",
     "layers.{N}.attn.q: {from: 'x.{N}', axes: 't h d', slice: {h: [2, 6]}}",
     144,
     GEMMA4_TAP_ATTN_Q,
     {4, 8},
     16,
     48,
     8,
     1,
     1},
    {"[3, 6, 8]",
     "layers.{N}.attn.q: {from: 'x.{N}', axes: 't h d', slice: {h: [-4, 6]}}",
     144,
     GEMMA4_TAP_ATTN_Q,
     {4, 8},
     16,
     48,
     8,
     1,
     1},
    {"[3, 64]",
     "layers.{N}.attn.k: {from: 'x.{N}', split: [attn.q, attn.k, attn.v]}",
     192,
     GEMMA4_TAP_ATTN_K,
     {2, 8},
     32,
     64,
     8,
     1,
     1},
    {"[1, 3, 48]",
     "layers.{N}.mlp.up: {from: 'x.{N}', split: [mlp.gate, mlp.up]}",
     144,
     GEMMA4_TAP_MLP_UP,
     {24, 1},
     24,
     48,
     1,
     0,
     1},
    {"[2, 3, 16]",
     "layers.{N}.input: {from: 'x.0', axes: 'n t d', layers: [0]}",
     96,
     GEMMA4_TAP_LAYER_INPUT,
     {16, 1},
     0,
     16,
     1,
     0,
     1},
    {"[3, 2, 16]",
     "layers.{N}.input: {from: 'x.0', axes: 't n+1 d', layers: [0]}",
     96,
     GEMMA4_TAP_LAYER_INPUT,
     {16, 1},
     16,
     32,
     1,
     0,
     1},
    {"[2, 3, 16]",
     "embed: {from: 'x.0', axes: 'b t d', slice: {b: 1}}",
     96,
     GEMMA4_TAP_EMBED,
     {16, 1},
     48,
     16,
     1,
     0,
     1},
    {"[3, 16]",
     "embed: {from: 'x.0', scale: 0.5}",
     48,
     GEMMA4_TAP_EMBED,
     {16, 1},
     0,
     16,
     1,
     0,
     0.5},
    {"[3, 40]",
     "logits: {from: 'x.0', axes: 't v', slice: {v: [0, V]}}",
     120,
     GEMMA4_TAP_LOGITS,
     {32, 1},
     0,
     40,
     1,
     0,
     1},
    {"[4, 3, 3]",
     "layers.{N}.attn.probs: {from: 'x.{N}', axes: 'h t t'}",
     36,
     GEMMA4_TAP_ATTN_PROBS,
     {4, 3},
     0,
     3,
     9,
     1,
     1},
    {"[4, 3, 3]",
     "layers.{N}.attn.probs: {from: 'x.{N}', axes: 'h s t'}",
     36,
     GEMMA4_TAP_ATTN_PROBS,
     {4, 3},
     0,
     1,
     9,
     3,
     1},
};

START_TEST(every_layout_is_put_in_order)
{
    float expected[512];
    char rules[400];
    snprintf(rules, sizeof rules, "  %s", LAYOUTS[_i].rules);
    imported i = import_one(write_single(LAYOUTS[_i].shape, LAYOUTS[_i].count), rules);
    size_t n = 0;
    for (size_t t = 0; t < 3; t++)
        for (size_t a = 0; a < LAYOUTS[_i].widths[0]; a++)
            for (size_t b = 0; b < LAYOUTS[_i].widths[1]; b++)
                expected[n++] = (float)((double)(LAYOUTS[_i].base + t * LAYOUTS[_i].t +
                                                 a * LAYOUTS[_i].a + b * LAYOUTS[_i].b) *
                                        LAYOUTS[_i].scale);
    expect_values(&i, LAYOUTS[_i].tap, 0, expected, n);
    done(&i);
}
END_TEST

START_TEST(the_next_layers_input_is_this_ones_output)
{
    const char *directory = test_fresh_dir();
    for (size_t layer = 0; layer < 6; layer++) {
        char name[32];
        snprintf(name, sizeof name, "in.%zu.npy", layer);
        write_npy(directory, name, "(3, 16)", 48, 100.f * (float)layer);
    }
    write_npy(directory, "norm_in.npy", "(3, 16)", 48, 600);
    imported i =
        import_one(directory, "  layers.{N}.output: {from: 'in.{N+1}'}\n  layers.{last}.output: "
                              "{from: norm_in}\n  embed: {from: nothing}");
    for (size_t layer = 0; layer < 6; layer++)
        expect_values(&i, GEMMA4_TAP_LAYER_OUTPUT, layer, counting(48, 100.f * (float)(layer + 1)),
                      48);
    ck_assert_uint_eq(i.log->uses[0].taps, 5);
    ck_assert_str_eq(i.log->uses[0].first, "in.1");
    ck_assert_uint_eq(i.log->uses[2].taps, 0);
    ck_assert_ptr_null(i.log->uses[2].first);
    ck_assert_uint_eq(i.log->untaken_count, 1);
    ck_assert_str_eq(i.log->untaken[0], "in.0");
    done(&i);
}
END_TEST

START_TEST(passes_are_put_behind_one_another)
{
    const char *directory = test_fresh_dir(), *first = test_join(directory, "Pass2"),
               *second = test_join(directory, "Pass10");
    ck_assert_int_eq(mkdir(first, 0777) | mkdir(second, 0777), 0);
    write_npy(first, "e.npy", "(2, 16)", 32, 0);
    write_npy(second, "e.npy", "(1, 1, 16)", 16, 32);
    write_npy(first, "l.npy", "(1, 32)", 32, 0);
    write_npy(second, "l.npy", "(1, 32)", 32, 500);
    write_npy(first, "p.0.npy", "(4, 2, 2)", 16, 1);
    write_npy(second, "p.0.npy", "(4, 1, 3)", 12, 100);
    const char *const both[] = {first, second};
    static const char rules[] = "  embed: {from: e}\n  logits: {from: l, rows: last}\n  "
                                "layers.{N}.attn.probs: {from: 'p.{N}', axes: 'h t t'}";
    for (size_t by_hand = 0; by_hand < 2; by_hand++) { /* the folder's order is by number: Pass2,
                                                          Pass10 */
        imported i = by_hand ? import_all(both, 2, rules, &GIVEN) : import_one(directory, rules);
        expect_values(&i, GEMMA4_TAP_EMBED, 0, counting(48, 0), 48);
        ck_assert_str_eq(gemma4_activations_attribute(i.file, "schedule"), "2,1");
        const gemma4_activation *a = gemma4_activations_find(i.file, GEMMA4_TAP_LOGITS, 0);
        ck_assert_uint_eq(a->rows, 2);
        ck_assert(a->row_index[0] == 1 && a->row_index[1] == 2);
        static const float probs[] = {1,   2,   0,   5,   6,   0,   9,   10,  0,   13,  14,  0,
                                      3,   4,   0,   7,   8,   0,   11,  12,  0,   15,  16,  0,
                                      100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111};
        expect_values(&i, GEMMA4_TAP_ATTN_PROBS, 0, probs, 36);
        done(&i);
    }
}
END_TEST

START_TEST(sixteen_bits_may_be_called_bfloat16)
{
    static const uint16_t bits[48] = {0x3f80, 0x4000, 0xbf80};
    const char *directory = test_fresh_dir();
    static const char *const headers[] = {
        "{'descr': '<u2', 'fortran_order': False, 'shape': (3, 16), }",
        "{'descr': '|V2', 'fortran_order': False, 'shape': (3, 16), }"};
    for (size_t h = 0; h < 2; h++) {
        test_bytes npy = test_npy(headers[h], bits, sizeof bits);
        test_write(test_join(directory, "e.npy"), npy.bytes, npy.size);
        test_bytes_free(&npy);
        imported i = import_one(directory, "  embed: {from: e, dtype: bfloat16}");
        expect_values(&i, GEMMA4_TAP_EMBED, 0, (const float[48]){1, 2, -1}, 48);
        ck_assert_str_eq(gemma4_activations_find(i.file, GEMMA4_TAP_EMBED, 0)->stored_dtype,
                         "bfloat16");
        done(&i);
    }
}
END_TEST

START_TEST(big_endian_arrays_are_turned)
{
    const char *path = test_join(test_fresh_dir(), "e.npy");
    unsigned char bytes[48 * 4] = {0x3f, 0x80, 0, 0, 0x40, 0, 0, 0};
    test_bytes npy = test_npy("{'descr': '>f4', 'fortran_order': False, 'shape': (3, 16), }", bytes,
                              sizeof bytes);
    test_write(path, npy.bytes, npy.size);
    test_bytes_free(&npy);
    imported i = import_one(path, "  embed: {from: data}");
    expect_values(&i, GEMMA4_TAP_EMBED, 0, (const float[48]){1, 2}, 48);
    done(&i);
}
END_TEST

/* --- what is refused --- */

/* Rules on a tensor x.0 of that shape. */
static const struct {
    const char *shape, *rules;
    size_t count;
    const char *expected;
} UNFIT[] = {
    {"[3, 4, 8]", "  embed: {from: 'x.0', axes: 't d'}", 96,
     "x.0: rule embed: expected 2 axes as the rule says, found [3, 4, 8]"},
    {"[3, 4, 8]", "  embed: {from: 'x.0'}", 96,
     "expected the position and one axis (or axes in the rule), found [3, 4, 8]"},
    {"[3, 16]", "  embed: {from: 'x.0', axes: 't d', slice: {d: [8, 24]}}", 48,
     "axis d: expected a slice within 0 ... 16, found [8, 24] in [3, 16]"},
    {"[3, 16]", "  embed: {from: 'x.0', axes: 't d', slice: {d: [8, 8]}}", 48,
     "expected a slice within 0 ... 16, found [8, 8]"},
    {"[3, 2, 16]", "  embed: {from: 'x.0', axes: 't b d', slice: {b: 2}}", 96,
     "axis b: expected a slice within 0 ... 2, found [2, 3]"},
    {"[3, 2, 16]", "  embed: {from: 'x.0', axes: 't 1 d'}", 96,
     "expected 1 on an axis that the rule says has that length"},
    {"[3, 2, 16]", "  layers.{N}.output: {from: 'x.0', axes: 't n d'}", 96,
     "axis n: expected a slice within 0 ... 2, found [2, 3]"},
    {"[3, 60]", "  layers.{N}.attn.k: {from: 'x.{N}', split: [attn.q, attn.k, attn.v]}", 180,
     "expected an axis of 64 = attn.q 32 + attn.k 16 + attn.v 16, found [3, 60]"},
    {"[3, 31]", "  layers.{N}.attn.q: {from: 'x.{N}', axes: 't h.d'}", 93,
     "expected axis h.d to be a multiple of 8, found [3, 31]"},
    {"[3, 16]",
     "  embed: {from: 'x.0'}\n  layers.0.input: {from: 'x.0'}\n  layers.{N}.input: {from: 'x.{N}'}",
     48,
     "layers.0.input: expected one rule that finds a tensor for it, found the one of line 6 too "
     "(x.0 and x.0)"},
    {"[3, 16]", "  embed: {from: 'x.0', dtype: bfloat16}", 48,
     "expected bfloat16 in elements of 16 bits, found float32"},
    {"[3, 16]", "  embed: {from: 'x.0', rows: [0, 1]}", 48, "expected 2 rows as listed, found 3"},
    {"[3, 16]", "  embed: {from: 'x.0', rows: [0, 1, 5]}", 48,
     "attribute rows: expected positions in 0 ... 2, found 5"},
    {"[3, 16]", "  embed: {from: 'x.0', rows: [0, 1, -2]}", 48,
     "expected distinct positions, found 1 twice"},
    {"[4, 16]", "  embed: {from: 'x.0', rows: last}", 64,
     "expected at most the pass' 3 positions, found 4"},
    {"[3, 16]", "  embed: {from: 'y'}", 48, "expected tensors that rules of "},
};

START_TEST(a_rule_that_does_not_fit_is_refused)
{
    imported i = import_one(write_single(UNFIT[_i].shape, UNFIT[_i].count), UNFIT[_i].rules);
    expect_refused(&i, UNFIT[_i].expected);
}
END_TEST

START_TEST(two_tensors_for_one_rule_are_refused)
{
    const char *directory = test_fresh_dir();
    write_npy(directory, "a.e.npy", "(3, 16)", 48, 0);
    write_npy(directory, "b.e.npy", "(3, 16)", 48, 0);
    imported i = import_one(directory, "  embed: {from: '*.e'}");
    expect_refused(
        &i, "rule embed: expected one tensor that matches '*.e' in layer 0, found a.e and b.e");
}
END_TEST

START_TEST(tokens_are_needed_from_somewhere)
{
    const char *path = write_single("[3, 16]", 48);
    imported i = import_all(&path, 1, "  embed: {from: 'x.0'}", NULL);
    expect_refused(&i, "tokens: expected a rule of ");
}
END_TEST

START_TEST(passes_that_do_not_add_up_are_refused)
{
    const char *first = test_fresh_dir(), *second = test_fresh_dir();
    const char *const both[] = {first, second};
    write_npy(first, "e.npy", "(2, 16)", 32, 0);
    write_npy(second, "e.npy", "(2, 16)", 32, 0);
    imported i = import_all(both, 2, "  embed: {from: e}", &GIVEN);
    expect_refused(&i, "expected passes of 3 positions together, as the case has, found 4");
    write_npy(second, "e.npy", "(1, 8)", 8, 0);
    imported other = import_all(both, 2, "  embed: {from: e}", &GIVEN);
    expect_refused(&other, "expected the type and lengths of ");
}
END_TEST

/* A wrong length is no mistake of the map: the judge says it of the tap. */
START_TEST(a_wrong_width_is_the_taps)
{
    imported i = import_one(write_single("[3, 2, 8]", 48),
                            "  layers.{N}.attn.q: {from: 'x.{N}', axes: 't h d'}");
    ck_assert_msg(i.file != NULL, "%s", i.error.message);
    const gemma4_activation *a = gemma4_activations_find(i.file, GEMMA4_TAP_ATTN_Q, 0);
    ck_assert(!a->usable && a->wrong_shape);
    ck_assert_str_eq(a->problem, "expected [3, 4, 8], found [3, 2, 8]");
    done(&i);
}
END_TEST

static const struct {
    const char *header;
    size_t size;
    const char *expected;
} BAD_ARRAYS[] = {
    {"{'descr': '<f4', 'fortran_order': True, 'shape': (3, 16), }", 192,
     "found Fortran order: save numpy.ascontiguousarray of it"},
    {"{'descr': '|O', 'fortran_order': False, 'shape': (3, 16), }", 40,
     "an array of Python objects, which are pickled"},
    {"{'descr': [('a', '<f4'), ('b', '<f4')], 'fortran_order': False, 'shape': (3, 16), }", 384,
     "a type of several fields"},
    {"{'descr': '<c8', 'fortran_order': False, 'shape': (3, 16), }", 384, "found the type '<c8'"},
    {"{'descr': '<U3', 'fortran_order': False, 'shape': (3, 16), }", 144, "found the type '<U3'"},
    {"{'descr': '|V2', 'fortran_order': False, 'shape': (3, 16), }", 96,
     "let the map say dtype: bfloat16"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 16), }", 0, "found an empty array"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1, 1, 1, 1, 1, 3, 16), }", 192,
     "expected at most 8 axes, found 9"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 17), }", 192,
     "expected 204 bytes by shape and type, found 192"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 15), }", 192,
     "expected 180 bytes by shape and type, found 192"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387905, 16), }", 192,
     "found one too large"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 16), }", 192,
     "expected a header with descr, fortran_order and shape"},
    {"{'descr': '<f4', 'fortran_order': False, }", 192,
     "expected a header with descr, fortran_order and shape"},
    {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (3, 16), }", 192,
     "expected a header with descr"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, -16), }", 192,
     "expected a header with descr"},
    {"{'descr': '<f4', 'fortran_order': 0, 'shape': (3, 16), }", 192,
     "expected a header with descr"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 16), 'x': 1}", 192,
     "expected a header with descr"},
    {"__import__('os').system('true')", 192, "expected a header with descr"},
    {"", 192, "expected a header with descr"},
};

START_TEST(an_array_that_is_no_plain_one_is_refused)
{
    static const unsigned char zeros[512];
    const char *path = test_join(test_fresh_dir(), "e.npy");
    test_bytes npy = test_npy(BAD_ARRAYS[_i].header, zeros, BAD_ARRAYS[_i].size);
    test_write(path, npy.bytes, npy.size);
    imported i = import_one(path, "  embed: {from: data}");
    expect_refused(&i, BAD_ARRAYS[_i].expected);
    for (size_t cut = 7; cut < npy.size; cut += 13) { /* and cut off anywhere */
        test_write(path, npy.bytes, cut);
        imported part = import_one(path, "  embed: {from: data}");
        expect_refused(&part, "e.npy: ");
    }
    test_bytes_free(&npy);
}
END_TEST

/* --- archives --- */

/* The archive of one array, a byte of which is changed: in the member's header, or (from_end)
 * before the end of the file. */
static const struct {
    bool deflated, from_end;
    size_t at;
    unsigned char value;
    const char *expected;
} LIES[] = {
    {false, false, 6, 1, "found another way"},                      /* encrypted, says the member */
    {false, false, 8, 8, "how it is packed as the directory does"}, /* deflated, says the member */
    {false, false, 18, 9, "expected the sizes"},
    {false, false, 22, 9, "expected the sizes"},
    {false, false, 26, 200, "found a zip archive"},
    {false, false, 30, 'x', "expected the member's header to have that name"},
    {false, false, 0, 'X', "expected the member's header at 0"},
    {false, false, 150, 0x77, "expected the checksum of the directory"},
    {false, true, 22 + 51 - 8, 1, "found an encrypted one"},
    {false, true, 22 + 51 - 10, 99, "expected a stored or deflated member, found method 99"},
    {false, true, 22 + 51 - 20, 1, "expected the sizes"},
    {true, true, 22 + 51 - 27, 0x7f, "expected the sizes"},
    {true, true, 22 + 51 - 24, 1, "expected the sizes"},
    {false, true, 22 + 51 - 42, 1, "expected the member's header at 1"},
    {false, true, 12, 9, "one whole archive"},
    {false, true, 10, 1, "one whole archive"},
    {false, true, 6, 0xff, "one whole archive"},
};

START_TEST(an_archive_that_lies_is_refused)
{
    test_zip zip = {0};
    test_bytes embed = test_npy_floats("(3, 16)", 48, 0);
    test_zip_add(&zip, "e.npy", &embed, LIES[_i].deflated);
    size_t directory = zip.file.size;
    test_zip_close(&zip);
    size_t at = LIES[_i].from_end ? LIES[_i].at > 22 ? directory + (22 + 51 - LIES[_i].at)
                                                     : zip.file.size - 22 + (22 - LIES[_i].at)
                                  : LIES[_i].at;
    const char *path = test_join(test_fresh_dir(), "a.npz");
    ck_assert_uint_lt(at, zip.file.size);
    zip.file.bytes[at] = LIES[_i].value;
    test_write(path, zip.file.bytes, zip.file.size);
    imported i = import_one(path, "  embed: {from: e}");
    if (i.file) { /* what only reading shows */
        float values[48];
        ck_assert_int_eq(
            gemma4_activations_read(i.file, gemma4_activations_find(i.file, GEMMA4_TAP_EMBED, 0), 0,
                                    3, values, &i.error),
            -1);
        gemma4_activations_close(i.file);
        i.file = NULL;
    }
    ck_assert_msg(strstr(i.error.message, LIES[_i].expected) || LIES[_i].at == 0, "%s lacks %s",
                  i.error.message, LIES[_i].expected);
    done(&i);
    test_zip_free(&zip);
    test_bytes_free(&embed);
}
END_TEST

/* Both headers may agree on a lie. */
START_TEST(sizes_that_cannot_be_are_refused)
{
    static const struct {
        bool deflated;
        unsigned char size[4];
        const char *expected;
    } sizes[] = {{true, {0xff, 0xff, 0xff, 0x7f}, "packed ones, found a size of 2147483647"},
                 {true, {8, 1, 0, 0}, "expected 264 bytes out of 175 packed ones, found fewer"},
                 {false, {8, 1, 0, 0}, "expected a stored member of one size, found 263 and 264"}};
    for (size_t s = 0; s < COUNT(sizes); s++) {
        test_zip zip = {0};
        test_bytes embed = test_npy_floats("(3, 16)", 48, 0);
        test_zip_add(&zip, "e.npy", &embed, sizes[s].deflated);
        size_t directory = zip.file.size;
        test_zip_close(&zip);
        memcpy(zip.file.bytes + 22, sizes[s].size, 4);
        memcpy(zip.file.bytes + directory + 24, sizes[s].size, 4);
        const char *path = test_join(test_fresh_dir(), "a.npz");
        test_write(path, zip.file.bytes, zip.file.size);
        imported i = import_one(path, "  embed: {from: e}");
        expect_refused(&i, sizes[s].expected);
        test_zip_free(&zip);
        test_bytes_free(&embed);
    }
}
END_TEST

/* Whatever byte is changed, nothing but one line or the values comes out. */
START_TEST(a_damaged_archive_never_gives_other_values)
{
    test_zip zip = {0};
    test_bytes embed = test_npy_floats("(3, 16)", 48, 0);
    test_zip_add(&zip, "e.npy", &embed, true);
    test_zip_close(&zip);
    const char *path = test_join(test_fresh_dir(), "a.npz");
    for (size_t at = 0; at < zip.file.size; at++)
        for (int bit = 0; bit < 8; bit += 3) {
            zip.file.bytes[at] ^= (unsigned char)(1 << bit);
            test_write(path, zip.file.bytes, zip.file.size);
            imported i = import_one(path, "  embed: {from: e}");
            float values[48];
            const gemma4_activation *a =
                i.file ? gemma4_activations_find(i.file, GEMMA4_TAP_EMBED, 0) : NULL;
            if (a && a->usable && gemma4_activations_read(i.file, a, 0, 3, values, &i.error) == 0)
                ASSERT_EACH(!memcmp(values, counting(48, 0), sizeof values),
                            "byte %zu, bit %d gives other values", at, bit);
            else if (!i.file)
                ASSERT_EACH(i.error.message[0] && !strchr(i.error.message, '\n'),
                            "byte %zu, bit %d: no message", at, bit);
            done(&i);
            zip.file.bytes[at] ^= (unsigned char)(1 << bit);
        }
    for (size_t size = 1; size < zip.file.size; size += 7) {
        test_write(path, zip.file.bytes, size);
        imported i = import_one(path, "  embed: {from: e}");
        ck_assert_ptr_null(i.file);
        done(&i);
    }
    test_zip_free(&zip);
    test_bytes_free(&embed);
}
END_TEST

/* --- folders --- */

START_TEST(a_folder_of_mixed_files_is_refused)
{
    const char *directory = test_fresh_dir();
    imported empty = import_one(directory, "  embed: {from: e}");
    expect_refused(&empty, "expected dumps in the folder");
    write_npy(directory, "e.npy", "(3, 16)", 48, 0);
    test_write_tensor(test_join(directory, "f.safetensors"), "data", "[3, 16]", 48, 0);
    imported mixed = import_one(directory, "  embed: {from: e}");
    expect_refused(&mixed, "expected entries of one kind");
    imported none = import_one(test_join(directory, "nothing"), "  embed: {from: e}");
    expect_refused(&none, "No such file");
    const char *single = test_join(test_fresh_dir(), "alone.bin");
    test_write(single, "\0\0\0\0", 4);
    imported alone = import_one(single, "  logits: {from: logits}");
    expect_refused(&alone, "a file of another kind");
}
END_TEST

Suite *import_suite(void)
{
    Suite *suite = suite_create("import");
    TCase *all = tcase_create("import");
    tcase_add_unchecked_fixture(all, set_up, tear_down);
    tcase_set_timeout(all, 60);
    tcase_add_test(all, an_npz_of_stored_and_deflated_arrays_is_read);
    tcase_add_test(all, folders_with_a_tensor_a_file_are_read);
    tcase_add_test(all, an_hdf5_file_of_any_names_is_read);
    tcase_add_test(all, what_llama_debug_saves_is_read);
    tcase_add_loop_test(all, every_layout_is_put_in_order, 0, COUNT(LAYOUTS));
    tcase_add_test(all, the_next_layers_input_is_this_ones_output);
    tcase_add_test(all, passes_are_put_behind_one_another);
    tcase_add_test(all, sixteen_bits_may_be_called_bfloat16);
    tcase_add_test(all, big_endian_arrays_are_turned);
    tcase_add_loop_test(all, a_rule_that_does_not_fit_is_refused, 0, COUNT(UNFIT));
    tcase_add_test(all, two_tensors_for_one_rule_are_refused);
    tcase_add_test(all, tokens_are_needed_from_somewhere);
    tcase_add_test(all, passes_that_do_not_add_up_are_refused);
    tcase_add_test(all, a_wrong_width_is_the_taps);
    tcase_add_loop_test(all, an_array_that_is_no_plain_one_is_refused, 0, COUNT(BAD_ARRAYS));
    tcase_add_loop_test(all, an_archive_that_lies_is_refused, 0, COUNT(LIES));
    tcase_add_test(all, sizes_that_cannot_be_are_refused);
    tcase_add_test(all, a_damaged_archive_never_gives_other_values);
    tcase_add_test(all, a_folder_of_mixed_files_is_refused);
    suite_add_tcase(suite, all);
    return suite;
}
