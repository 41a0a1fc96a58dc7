/* GGUF files through the doors that take them: gemma4_model_open, gemma4_dequantise. */
#include "dequantise.h"
#include "gguf_maker.h"
#include "gguf_model.h"
#include "ops.h"
#include "suites.h"
#include "support.h"
#include "synth.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static gemma4_model *tiny;

static gemma4_model *open_model(const char *path)
{
    gemma4_error error = {""};
    gemma4_model *model = gemma4_model_open(path, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    return model;
}

static void open_tiny(void)
{
    tiny = open_model("golden/checkpoints/tiny");
}

static void close_tiny(void)
{
    gemma4_model_close(tiny);
}

static const gemma4_weight *weight_of(gemma4_model *model, const char *name)
{
    for (size_t i = 0; i < gemma4_tensor_spec_count(&model->config); i++) {
        gemma4_tensor_spec spec = gemma4_tensor_spec_at(&model->config, i);
        if (!strcmp(spec.name, name))
            return gemma4_spec_weight(model, &spec);
    }
    ck_abort_msg("%s: no such weight", name);
}

/* Every weight has the values of its counterpart; those that `except` names (NULL: none) only its
 * shape. */
static void assert_same_weights(gemma4_model *a, gemma4_model *b, const char *except)
{
    static float a_row[4096], b_row[4096];
    ck_assert_uint_eq(gemma4_tensor_spec_count(&a->config), gemma4_tensor_spec_count(&b->config));
    for (size_t i = 0; i < gemma4_tensor_spec_count(&a->config); i++) {
        gemma4_tensor_spec spec = gemma4_tensor_spec_at(&a->config, i);
        const gemma4_weight *x = gemma4_spec_weight(a, &spec), *y = gemma4_spec_weight(b, &spec);
        ck_assert_uint_eq(x->rows, y->rows);
        ck_assert_uint_eq(x->cols, y->cols);
        for (size_t row = 0; row < x->rows && !(except && !strcmp(spec.name, except)); row++) {
            gemma4_weight_row(a_row, x, row);
            gemma4_weight_row(b_row, y, row);
            ASSERT_EACH(!memcmp(a_row, b_row, x->cols * sizeof *a_row), "%s, row %zu", spec.name,
                        row);
            size_t at = row * x->cols + row % x->cols;
            ASSERT_EACH(gemma4_weight_at(x, at) == a_row[row % x->cols], "%s, row %zu", spec.name,
                        row);
        }
    }
}

static void assert_same_config(const gemma4_config *a, const gemma4_config *b)
{
    gemma4_config x = *a, y = *b;
    ck_assert_uint_eq(a->num_hidden_layers, b->num_hidden_layers);
    for (size_t i = 0; i < a->num_hidden_layers; i++) {
        const gemma4_layer_config *p = &a->layers[i], *q = &b->layers[i];
        ck_assert(p->kind == q->kind && p->num_key_value_heads == q->num_key_value_heads &&
                  p->head_dim == q->head_dim && p->v_is_k == q->v_is_k &&
                  p->rope_theta == q->rope_theta && p->rope_pairs == q->rope_pairs);
    }
    x.layers = y.layers = NULL;
    ck_assert_mem_eq(&x, &y, sizeof x); /* numbers without padding between them; eps too: 1e-6, not
                                           what float32 makes of it */
}

/* --- what is read --- */

START_TEST(a_file_has_config_and_weights_of_its_folder)
{
    char *path = test_join(test_fresh_dir(), "model.gguf");
    gguf_maker *m = gguf_maker_tiny(tiny);
    gguf_maker_write(m, path);
    gemma4_model *model = open_model(path);
    assert_same_config(&model->config, &tiny->config);
    assert_same_weights(model, tiny, NULL);
    gemma4_model_close(model);
    free(m);
}
END_TEST

/* What llama.cpp's own converter wrote: every name, order and shape is its, the numbers are Q8_0's
 * of the same checkpoint. */
START_TEST(the_converters_file_is_read)
{
    gemma4_model *model = open_model("golden/gguf/tiny-2.q8_0.gguf"), *folder = NULL;
    char *directory = test_fresh_dir();
    gemma4_error error = {""};
    const gemma4_synth_options options = {.preset = "tiny", .seed = 5, .layers = 2, .shards = 1};
    static float row[4096], exact[4096];
    ck_assert_msg(!gemma4_synth(&options, directory, &error), "%s", error.message);
    folder = open_model(directory);
    assert_same_config(&model->config, &folder->config);
    for (size_t i = 0; i < gemma4_tensor_spec_count(&model->config); i++) {
        gemma4_tensor_spec spec = gemma4_tensor_spec_at(&model->config, i);
        const gemma4_weight *w = gemma4_spec_weight(model, &spec),
                            *x = gemma4_spec_weight(folder, &spec);
        for (size_t r = 0; r < w->rows; r++) {
            gemma4_weight_row(row, w, r);
            gemma4_weight_row(exact, x, r);
            float largest = 0;
            for (size_t k = 0; k < w->cols; k++)
                largest = fmaxf(largest, fabsf(exact[k]));
            /* half a step of 1/127 of a block's largest, and the rounding of the step itself */
            for (size_t k = 0; k < w->cols; k++)
                ASSERT_EACH(
                    fabsf(row[k] - exact[k]) <=
                        (w->dtype == GEMMA4_QUANTISED ? largest * (0.5f / 127 + 0x1p-11f) : 0),
                    "%s, row %zu: %g, exact %g", spec.name, r, (double)row[k], (double)exact[k]);
        }
    }
    gemma4_model_close(folder);
    gemma4_model_close(model);
}
END_TEST

/* gate and up of layer 1 in two tensors, of different types, with a factor for each expert; a
 * quantised q_proj with one factor. */
START_TEST(experts_may_lie_in_two_tensors)
{
    char *path = test_join(test_fresh_dir(), "model.gguf");
    gguf_maker *m = gguf_maker_tiny(tiny);
    size_t E = tiny->config.num_experts, M = tiny->config.moe_intermediate_size,
           d = tiny->config.hidden_size, part = E * M * d;
    float *gate = malloc(part * sizeof *gate), *wide = malloc(d * sizeof *wide);
    unsigned char *up = calloc(part / 32, 34),
                  *q = calloc(tiny->layers[1].q_proj.rows * d / 32, 34);
    static const float scales[64] = {0.5f, 2, -1, 4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3},
                       one = 0.25f;
    const uint64_t shape[3] = {d, M, E}, single = 1;
    for (size_t i = 0; i < part; i++)
        gate[i] = (float)i;
    for (size_t i = 0; i < part / 32; i++) { /* d = 1, then the block's number in every value */
        up[34 * i + 1] = 0x3c;
        memset(up + 34 * i + 2, (int)(i % 100), 32);
    }
    for (size_t i = 0; i < tiny->layers[1].q_proj.rows * d / 32; i++) {
        q[34 * i + 1] = 0x3c;
        memset(q + 34 * i + 2, (int)(i % 50), 32);
    }
    gguf_maker_remove_tensor(m, "blk.1.ffn_gate_up_exps.weight");
    gguf_maker_add_tensor(m, "blk.1.ffn_gate_exps.weight", 0, 3, shape, gate, part * sizeof *gate);
    gguf_maker_add_tensor(m, "blk.1.ffn_up_exps.weight", 8, 3, shape, up, part / 32 * 34);
    gguf_maker_add_tensor(m, "blk.1.ffn_up_exps.scale", 0, 1, &shape[2], scales,
                          E * sizeof *scales);
    gguf_maker_add_tensor(m, "blk.1.attn_q.scale", 0, 1, &single, &one, sizeof one);
    /* passed over */
    gguf_maker_add_tensor(m, "blk.1.attn_q.input_scale", 0, 1, &single, &one, sizeof one);
    /* of the vision tower */
    gguf_maker_add_tensor(m, "v.patch_embd.weight", 0, 1, &single, &one, sizeof one);
    gguf_maker_tensor *q_proj = gguf_maker_find_tensor(m, "blk.1.attn_q.weight");
    q_proj->type = 8;
    q_proj->data = q;
    q_proj->size = tiny->layers[1].q_proj.rows * d / 32 * 34;
    gguf_maker_write(m, path);
    gemma4_model *model = open_model(path);
    const gemma4_weight *gate_up = &model->layers[1].experts_gate_up_proj;
    for (size_t row = 0; row < gate_up->rows; row++) {
        size_t expert = row / (2 * M), of_part = expert * M + row % M;
        gemma4_weight_row(wide, gate_up, row);
        for (size_t k = 0; k < d; k++) {
            float expected = row / M % 2 ? scales[expert] * (float)((of_part * d + k) / 32 % 100)
                                         : (float)(of_part * d + k);
            ASSERT_EACH(wide[k] == expected, "row %zu, column %zu: expected %g, found %g", row, k,
                        (double)expected, (double)wide[k]);
        }
    }
    for (size_t row = 0; row < model->layers[1].q_proj.rows; row++)
        ASSERT_EACH(gemma4_weight_at(&model->layers[1].q_proj, row * d + 40) ==
                        0.25f * (float)((row * d + 40) / 32 % 50),
                    "row %zu", row);
    gemma4_model_close(model);
    free(gate);
    free(wide);
    free(up);
    free(q);
    free(m);
}
END_TEST

START_TEST(dequantise_writes_what_was_read)
{
    gemma4_error error = {""};
    char *directory = test_join(test_fresh_dir(), "deep/out");
    ck_assert_msg(!gemma4_dequantise("golden/gguf/tiny-2.q8_0.gguf", directory, &error), "%s",
                  error.message);
    gemma4_model *written = open_model(directory),
                 *read = open_model("golden/gguf/tiny-2.q8_0.gguf");
    assert_same_config(&written->config, &read->config);
    assert_same_weights(written, read, NULL);
    ck_assert_int_eq(weight_of(written, "layers.0.self_attn.q_proj.weight")->dtype, GEMMA4_F32);
    gemma4_model_close(written);
    gemma4_model_close(read);
    ck_assert_int_eq(gemma4_dequantise("golden/checkpoints/tiny", directory, &error), -1);
    assert_message_contains(&error,
                            "golden/checkpoints/tiny: expected a GGUF file, found a folder");
}
END_TEST

Suite *gguf_suite(void)
{
    Suite *suite = suite_create("gguf");
    TCase *all = tcase_create("all");
    tcase_add_unchecked_fixture(all, open_tiny, close_tiny);
    tcase_add_test(all, a_file_has_config_and_weights_of_its_folder);
    tcase_add_test(all, the_converters_file_is_read);
    tcase_add_test(all, experts_may_lie_in_two_tensors);
    tcase_add_test(all, dequantise_writes_what_was_read);
    suite_add_tcase(suite, all);
    return suite;
}
