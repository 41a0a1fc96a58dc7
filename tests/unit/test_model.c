#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "model.h"
#include "safetensors.h"
#include "stream.h"
#include "suites.h"
#include "support.h"

static gemma4_config read_config(const char *directory)
{
    gemma4_error error = {""};
    gemma4_config config;
    ck_assert_msg(gemma4_config_read(test_join(directory, "config.json"), &config, &error) == 0,
                  "%s", error.message);
    return config;
}

/* --- the list of tensors --- */

/* The published names of a sliding layer in order; a full layer where V is K lacks v_proj. */
static const char *const LAYER_NAMES[] = {
    "input_layernorm.weight",
    "self_attn.q_proj.weight",
    "self_attn.k_proj.weight",
    "self_attn.v_proj.weight",
    "self_attn.o_proj.weight",
    "self_attn.q_norm.weight",
    "self_attn.k_norm.weight",
    "post_attention_layernorm.weight",
    "pre_feedforward_layernorm.weight",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "mlp.down_proj.weight",
    "post_feedforward_layernorm_1.weight",
    "router.proj.weight",
    "router.scale",
    "router.per_expert_scale",
    "pre_feedforward_layernorm_2.weight",
    "experts.gate_up_proj",
    "experts.down_proj",
    "post_feedforward_layernorm_2.weight",
    "post_feedforward_layernorm.weight",
    "layer_scalar",
};
enum { LAYER_NAME_COUNT = sizeof LAYER_NAMES / sizeof LAYER_NAMES[0] };

START_TEST(spec_names_and_order)
{
    char *directory = test_fresh_dir();
    test_write_text(test_join(directory, "config.json"), test_tiny_config);
    gemma4_config config = read_config(directory);
    ck_assert_uint_eq(gemma4_tensor_spec_count(&config), 2 + 6 * LAYER_NAME_COUNT - 1);
    ck_assert_str_eq(gemma4_tensor_spec_at(&config, 0).name, "embed_tokens.weight");
    size_t index = 1;
    for (int layer = 0; layer < 6; layer++) {
        for (size_t i = 0; i < LAYER_NAME_COUNT; i++) {
            char name[96];
            if (layer == 5 && i == 3)
                continue;
            gemma4_tensor_spec spec = gemma4_tensor_spec_at(&config, index++);
            snprintf(name, sizeof name, "layers.%d.%s", layer, LAYER_NAMES[i]);
            ck_assert_str_eq(spec.name, name);
            ck_assert_int_eq(spec.layer, layer);
            /* the order of gemma4_layer_weights */
            ck_assert_uint_eq(spec.offset, i * sizeof(gemma4_weight));
        }
    }
    ck_assert_str_eq(gemma4_tensor_spec_at(&config, index).name, "norm.weight");
    ck_assert_int_eq(gemma4_tensor_spec_at(&config, index).layer, -1);
    ck_assert_uint_eq(index + 1, gemma4_tensor_spec_count(&config));
    gemma4_config_free(&config);
}
END_TEST

static const struct {
    const char *name;
    size_t rank, shape[3], rows, cols;
} SHAPES[] = {
    {"embed_tokens.weight", 2, {32, 16}, 32, 16},
    {"layers.0.input_layernorm.weight", 1, {16}, 1, 16},
    {"layers.0.self_attn.q_proj.weight", 2, {32, 16}, 32, 16},
    {"layers.0.self_attn.k_proj.weight", 2, {16, 16}, 16, 16},
    {"layers.0.self_attn.v_proj.weight", 2, {16, 16}, 16, 16},
    {"layers.0.self_attn.o_proj.weight", 2, {16, 32}, 16, 32},
    {"layers.0.self_attn.q_norm.weight", 1, {8}, 1, 8},
    {"layers.0.self_attn.k_norm.weight", 1, {8}, 1, 8},
    {"layers.5.self_attn.q_proj.weight", 2, {64, 16}, 64, 16},
    {"layers.5.self_attn.k_proj.weight", 2, {16, 16}, 16, 16},
    {"layers.5.self_attn.o_proj.weight", 2, {16, 64}, 16, 64},
    {"layers.5.self_attn.q_norm.weight", 1, {16}, 1, 16},
    {"layers.5.mlp.gate_proj.weight", 2, {24, 16}, 24, 16},
    {"layers.5.mlp.up_proj.weight", 2, {24, 16}, 24, 16},
    {"layers.5.mlp.down_proj.weight", 2, {16, 24}, 16, 24},
    {"layers.5.router.proj.weight", 2, {4, 16}, 4, 16},
    {"layers.5.router.scale", 1, {16}, 1, 16},
    {"layers.5.router.per_expert_scale", 1, {4}, 1, 4},
    {"layers.5.experts.gate_up_proj", 3, {4, 16, 16}, 64, 16},
    {"layers.5.experts.down_proj", 3, {4, 16, 8}, 64, 8},
    {"layers.5.layer_scalar", 1, {1}, 1, 1},
    {"norm.weight", 1, {16}, 1, 16},
};

START_TEST(spec_shapes)
{
    char *directory = test_fresh_dir();
    test_write_text(test_join(directory, "config.json"), test_tiny_config);
    gemma4_config config = read_config(directory);
    bool found = false;
    for (size_t i = 0; i < gemma4_tensor_spec_count(&config); i++) {
        gemma4_tensor_spec spec = gemma4_tensor_spec_at(&config, i);
        if (strcmp(spec.name, SHAPES[_i].name) != 0)
            continue;
        found = true;
        ck_assert_uint_eq(spec.rank, SHAPES[_i].rank);
        for (size_t axis = 0; axis < spec.rank; axis++)
            ck_assert_uint_eq(spec.shape[axis], SHAPES[_i].shape[axis]);
        ck_assert_uint_eq(spec.rows, SHAPES[_i].rows);
        ck_assert_uint_eq(spec.cols, SHAPES[_i].cols);
    }
    ck_assert(found);
    gemma4_config_free(&config);
}
END_TEST

/* --- valid checkpoints --- */

/* Every weight of the model points at the tensor of its name, and has its shape. */
static void assert_bound(const gemma4_model *model, const char *prefix)
{
    for (size_t i = 0; i < gemma4_tensor_spec_count(&model->config); i++) {
        gemma4_tensor_spec spec = gemma4_tensor_spec_at(&model->config, i);
        char name[128];
        snprintf(name, sizeof name, "%s%s", prefix, spec.name);
        const gemma4_tensor *tensor = gemma4_safetensors_find(model->files, name);
        const char *base =
            spec.layer < 0 ? (const char *)model : (const char *)&model->layers[spec.layer];
        gemma4_weight weight;
        memcpy(&weight, base + spec.offset, sizeof weight);
        ck_assert_ptr_nonnull(tensor);
        ck_assert_ptr_eq(weight.data, tensor->data);
        ck_assert_int_eq(weight.dtype, GEMMA4_BF16);
        ck_assert_uint_eq(weight.rows * weight.cols * 2, tensor->size);
    }
}

START_TEST(valid_prefixes)
{
    static const char *const prefixes[] = {"model.language_model.", "model."};
    gemma4_error error = {""};
    char *directory = test_fresh_dir();
    test_write_checkpoint(directory, test_tiny_config, prefixes[_i], 1);
    gemma4_model *model = gemma4_model_open(directory, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    assert_bound(model, prefixes[_i]);
    ck_assert_ptr_nonnull(model->layers[0].v_proj.data);
    ck_assert_ptr_null(model->layers[5].v_proj.data);
    ck_assert_uint_eq(model->layers[0].experts_gate_up_proj.rows, 4 * 2 * 8);
    gemma4_model_close(model);
    gemma4_model_close(NULL);
}
END_TEST

/* --- mutated checkpoints --- */

#define PREFIX "model.language_model."

/* What a row does to the tensors' list before it is written. */
typedef struct mutation {
    const char *name;      /* the tensor to change, without prefix; NULL: append extra
                                      alone */
    const char *new_name;  /* its whole new name; "" removes it; NULL keeps it */
    const char *dtype;     /* NULL keeps it */
    size_t rank, shape[3]; /* rank 0 keeps the shape */
    test_tensor extra;     /* appended where it has a name */
    const char *expected;  /* NULL: the checkpoint is valid */
} mutation;

static const mutation MUTATIONS[] = {
    {.name = "norm.weight",
     .new_name = "",
     .expected = "expected the tensor " PREFIX "norm.weight, found none"},
    {.name = "layers.3.self_attn.v_proj.weight",
     .new_name = "",
     .expected = "expected the tensor " PREFIX "layers.3.self_attn.v_proj.weight"},
    {.name = "layers.5.layer_scalar",
     .new_name = PREFIX "layers.6.layer_scalar",
     .expected = "expected the tensor " PREFIX "layers.5.layer_scalar"},
    {.name = "norm.weight",
     .new_name = "model.norm.weight",
     .expected = "expected the tensor " PREFIX "norm.weight"},
    {.name = "embed_tokens.weight",
     .new_name = "",
     .expected = "expected the tensor " PREFIX
                 "embed_tokens.weight or model.embed_tokens.weight, found neither"},
    {.name = "layers.0.self_attn.k_proj.weight",
     .rank = 2,
     .shape = {16, 17},
     .expected = "model.safetensors: " PREFIX
                 "layers.0.self_attn.k_proj.weight: expected shape [16, 16], found [16, 17]"},
    {.name = "layers.0.self_attn.o_proj.weight",
     .rank = 2,
     .shape = {32, 16},
     .expected = "expected shape [16, 32], found [32, 16]"},
    {.name = "layers.0.layer_scalar",
     .rank = 2,
     .shape = {1, 1},
     .expected = "expected shape [1], found [1, 1]"},
    {.name = "layers.1.experts.gate_up_proj",
     .rank = 2,
     .shape = {64, 16},
     .expected = "expected shape [4, 16, 16], found [64, 16]"},
    {.name = "layers.0.router.scale",
     .dtype = "F64",
     .expected = "layers.0.router.scale: expected dtype BF16, F16 or F32, found F64"},
    {.name = "layers.0.router.scale",
     .dtype = "U16",
     .expected = "expected dtype BF16, F16 or F32, found U16"},
    {.extra = {PREFIX "layers.5.self_attn.v_proj.weight", "BF16", 2, {16, 16}},
     .expected = "layers.5.self_attn.v_proj.weight: expected only the tensors that config.json "
                 "implies, found this one too"},
    {.extra = {PREFIX "layers.6.layer_scalar", "BF16", 1, {1}},
     .expected = "layers.6.layer_scalar: expected only the tensors"},
    {.extra = {"model.norm.weight", "BF16", 1, {16}},
     .expected = "model.norm.weight: expected only the tensors"},
    {.extra = {"other", "BF16", 1, {1}}, .expected = "other: expected only the tensors"},
    {.extra = {"model.vision_towers.x", "BF16", 1, {1}},
     .expected = "model.vision_towers.x: expected only the tensors"},
    {.extra = {"lm_head.weight", "BF16", 2, {32, 16}},
     .expected = "lm_head.weight: expected a copy of " PREFIX "embed_tokens.weight"},
    {.extra = {"lm_head.weight", "BF16", 1, {512}},
     .expected = "lm_head.weight: expected a copy of"},
    {.extra = {"lm_head.weight", "F16", 2, {32, 16}},
     .expected = "lm_head.weight: expected a copy of"},
    {.extra = {"model.vision_tower.encoder.x", "I32", 1, {3}}, .expected = NULL},
    {.extra = {"model.embed_vision.x", "F8", 1, {2}}, .expected = NULL},
    {.extra = {"model.audio_tower.x", "BF16", 1, {3}}, .expected = NULL},
    {.extra = {"model.embed_audio.x", "BF16", 1, {3}}, .expected = NULL},
    {.name = "layers.0.router.scale", .dtype = "F16", .expected = NULL},
    {.name = "norm.weight", .dtype = "F32", .expected = NULL},
};

static void mutate(const mutation *change, test_tensor *tensors, size_t *count)
{
    size_t i = 0;
    while (change->name != NULL && strcmp(tensors[i].name + strlen(PREFIX), change->name) != 0)
        ck_assert_uint_lt(++i, *count);
    if (change->dtype != NULL)
        tensors[i].dtype = change->dtype;
    if (change->rank != 0) {
        tensors[i].rank = change->rank;
        memcpy(tensors[i].shape, change->shape, sizeof change->shape);
    }
    if (change->new_name != NULL && change->new_name[0] != '\0')
        strcpy(tensors[i].name, change->new_name);
    else if (change->new_name != NULL)
        memmove(&tensors[i], &tensors[i + 1], (--*count - i) * sizeof *tensors);
    if (change->extra.name[0] != '\0')
        tensors[(*count)++] = change->extra;
}

START_TEST(mutated)
{
    gemma4_error error = {""};
    char *directory = test_fresh_dir();
    test_write_text(test_join(directory, "config.json"), test_tiny_config);
    gemma4_config config = read_config(directory);
    size_t count;
    test_tensor *tensors = test_tensors(&config, PREFIX, 1, &count);
    mutate(&MUTATIONS[_i], tensors, &count);
    test_write_safetensors(test_join(directory, "model.safetensors"), tensors, count, 1);
    free(tensors);
    gemma4_config_free(&config);

    gemma4_model *model = gemma4_model_open(directory, &error);
    if (MUTATIONS[_i].expected == NULL) {
        ck_assert_msg(model != NULL, "%s", error.message);
        gemma4_model_close(model);
        return;
    }
    ck_assert_ptr_null(model);
    assert_message_contains(&error, MUTATIONS[_i].expected);
    assert_message_contains(&error, directory);
}
END_TEST

/* An lm_head that repeats the table is accepted: its bytes are copied over those of the random
 * one. */
START_TEST(repeated_lm_head)
{
    gemma4_error error = {""};
    char *directory = test_fresh_dir(), *path = test_join(directory, "model.safetensors");
    test_write_text(test_join(directory, "config.json"), test_tiny_config);
    gemma4_config config = read_config(directory);
    size_t count, table = 32 * 16 * 2;
    test_tensor *tensors = test_tensors(&config, "model.", 1, &count);
    tensors[count++] = (test_tensor){"lm_head.weight", "BF16", 2, {32, 16}};
    test_write_safetensors(path, tensors, count, 1);
    free(tensors);
    gemma4_config_free(&config);

    gemma4_safetensors *files = gemma4_safetensors_open(path, &error);
    ck_assert_msg(files != NULL, "%s", error.message);
    unsigned char *embed = malloc(table);
    ck_assert_ptr_nonnull(embed);
    memcpy(embed, gemma4_safetensors_find(files, "model.embed_tokens.weight")->data, table);
    gemma4_safetensors_close(files);
    FILE *file = fopen(path, "r+b");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fseek(file, -(long)table, SEEK_END), 0); /* lm_head is the last one */
    ck_assert_uint_eq(fwrite(embed, 1, table, file), table);
    ck_assert_int_eq(fclose(file), 0);
    free(embed);

    gemma4_model *model = gemma4_model_open(directory, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    gemma4_model_close(model);
}
END_TEST

START_TEST(missing_files)
{
    gemma4_error error = {""};
    char *directory = test_fresh_dir();
    ck_assert_ptr_null(gemma4_model_open(directory, &error));
    assert_message_contains(&error, "config.json: No such file");
    test_write_text(test_join(directory, "config.json"), test_tiny_config);
    ck_assert_ptr_null(gemma4_model_open(directory, &error));
    assert_message_contains(&error, "model.safetensors: No such file");
    test_write_text(test_join(directory, "model.safetensors"), "no tensors");
    ck_assert_ptr_null(gemma4_model_open(directory, &error));
    assert_message_contains(&error, "model.safetensors: expected a header");
}
END_TEST

/* --- reading ahead --- */

/* How many of a matrix's whole pages are mapped, in parts of all. */
static double mapped_part(const gemma4_weight *w)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE),
              first = ((uintptr_t)w->data + page - 1) / page,
              end = ((uintptr_t)w->data + w->rows * w->cols * gemma4_weight_size(w->dtype)) / page;
    size_t mapped = 0;
    int fd = open("/proc/self/pagemap", O_RDONLY);
    ck_assert_int_ge(fd, 0);
    for (uintptr_t i = first; i < end; i++) {
        uint64_t entry;
        ck_assert_int_eq(pread(fd, &entry, sizeof entry, (off_t)(i * sizeof entry)), sizeof entry);
        mapped += entry >> 63; /* present */
    }
    close(fd);
    ck_assert_uint_gt(end, first);
    return (double)mapped / (double)(end - first);
}

/* Kernels before Linux 5.14 read without mapping: there is nothing to see then. */
static bool can_map_ahead(void)
{
#ifdef MADV_POPULATE_READ
    long page = sysconf(_SC_PAGESIZE);
    void *memory = mmap(NULL, (size_t)page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool can = memory != MAP_FAILED && !madvise(memory, (size_t)page, MADV_POPULATE_READ);
    if (memory != MAP_FAILED)
        munmap(memory, (size_t)page);
    return can;
#else
    return false;
#endif
}

/* A layer, or the head, is read ahead and let go; its experts only where rows are many. */
START_TEST(reads_ahead)
{
    const struct {
        size_t layer, rows;
        double experts;
    } asked[] = {{3, 16, 1}, {7, 15, 0}, {12, 1, 0}};
    gemma4_error error = {""};
    gemma4_model *model = gemma4_model_open("golden/checkpoints/tiny", &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    gemma4_stream stream = {.model = model};
    size_t layer = asked[_i].layer, layers = model->config.num_hidden_layers;
    const gemma4_layer_weights *w = &model->layers[layer < layers ? layer : 0];
    const gemma4_weight *matrix = layer < layers ? &w->q_proj : &model->embed_tokens;
    gemma4_stream_end(&stream); /* of nothing */
    gemma4_stream_release(model, layer);
    ck_assert_double_eq(mapped_part(matrix), 0);
    ck_assert_double_eq(mapped_part(&w->experts_gate_up_proj), 0);
    gemma4_stream_ahead(&stream, layer, asked[_i].rows);
    gemma4_stream_end(&stream);
    if (can_map_ahead()) {
        ck_assert_double_eq(mapped_part(matrix), 1);
        ck_assert_double_eq(mapped_part(&w->experts_gate_up_proj), asked[_i].experts);
    }
    gemma4_stream_release(model, layer);
    ck_assert_double_eq(mapped_part(matrix), 0);
    ck_assert_double_eq(mapped_part(&w->experts_gate_up_proj), 0);
    gemma4_model_close(model);
}
END_TEST

Suite *model_suite(void)
{
    Suite *suite = suite_create("model");
    TCase *specs = tcase_create("specs"), *checkpoints = tcase_create("checkpoints");
    tcase_add_test(specs, spec_names_and_order);
    tcase_add_loop_test(specs, spec_shapes, 0, sizeof SHAPES / sizeof SHAPES[0]);
    tcase_add_loop_test(checkpoints, valid_prefixes, 0, 2);
    tcase_add_loop_test(checkpoints, mutated, 0, sizeof MUTATIONS / sizeof MUTATIONS[0]);
    tcase_add_test(checkpoints, repeated_lm_head);
    tcase_add_test(checkpoints, missing_files);
    tcase_add_loop_test(checkpoints, reads_ahead, 0, 3);
    suite_add_tcase(suite, specs);
    suite_add_tcase(suite, checkpoints);
    return suite;
}
