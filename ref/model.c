#include "model.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "gguf.h"
#include "gguf_model.h"
#include "safetensors.h"

/* --- the published tensors --- */

/* A shape is a letter an axis: d hidden size, Q width of all query heads (H*D), G width of all KV
 * heads (G*D), D head dim, F dense width, E experts, M expert width, W twice that, V vocabulary, 1
 * one. */
typedef struct tensor_row {
    const char *name, *shape;
    size_t offset;
} tensor_row;

static const tensor_row FIRST = {"embed_tokens.weight", "Vd", offsetof(gemma4_model, embed_tokens)};
static const tensor_row LAST = {"norm.weight", "d", offsetof(gemma4_model, norm)};

#define LAYER_ROW(name, shape, field)                      \
    {                                                      \
        name, shape, offsetof(gemma4_layer_weights, field) \
    }
static const tensor_row LAYER[] = {
    LAYER_ROW("input_layernorm.weight", "d", input_layernorm),
    LAYER_ROW("self_attn.q_proj.weight", "Qd", q_proj),
    LAYER_ROW("self_attn.k_proj.weight", "Gd", k_proj),
    LAYER_ROW("self_attn.v_proj.weight", "Gd", v_proj),
    LAYER_ROW("self_attn.o_proj.weight", "dQ", o_proj),
    LAYER_ROW("self_attn.q_norm.weight", "D", q_norm),
    LAYER_ROW("self_attn.k_norm.weight", "D", k_norm),
    LAYER_ROW("post_attention_layernorm.weight", "d", post_attention_layernorm),
    LAYER_ROW("pre_feedforward_layernorm.weight", "d", pre_feedforward_layernorm),
    LAYER_ROW("mlp.gate_proj.weight", "Fd", gate_proj),
    LAYER_ROW("mlp.up_proj.weight", "Fd", up_proj),
    LAYER_ROW("mlp.down_proj.weight", "dF", down_proj),
    LAYER_ROW("post_feedforward_layernorm_1.weight", "d", post_feedforward_layernorm_1),
    LAYER_ROW("router.proj.weight", "Ed", router_proj),
    LAYER_ROW("router.scale", "d", router_scale),
    LAYER_ROW("router.per_expert_scale", "E", router_per_expert_scale),
    LAYER_ROW("pre_feedforward_layernorm_2.weight", "d", pre_feedforward_layernorm_2),
    LAYER_ROW("experts.gate_up_proj", "EWd", experts_gate_up_proj),
    LAYER_ROW("experts.down_proj", "EdM", experts_down_proj),
    LAYER_ROW("post_feedforward_layernorm_2.weight", "d", post_feedforward_layernorm_2),
    LAYER_ROW("post_feedforward_layernorm.weight", "d", post_feedforward_layernorm),
    LAYER_ROW("layer_scalar", "1", layer_scalar),
};
#undef LAYER_ROW
#define LAYER_ROWS (sizeof LAYER / sizeof LAYER[0])
#define V_PROJ_ROW 3

static size_t layer_tensor_count(const gemma4_layer_config *layer)
{
    return layer->v_is_k ? LAYER_ROWS - 1 : LAYER_ROWS;
}

size_t gemma4_tensor_spec_count(const gemma4_config *config)
{
    size_t count = 2;
    for (size_t i = 0; i < config->num_hidden_layers; i++)
        count += layer_tensor_count(&config->layers[i]);
    return count;
}

/* layer may be NULL for letters that no layer changes. Products fit: the config's limits see to
 * it. */
static size_t axis_length(const gemma4_config *config, const gemma4_layer_config *layer,
                          char letter)
{
    switch (letter) {
    case 'd': return config->hidden_size;
    case 'Q': return config->num_attention_heads * layer->head_dim;
    case 'G': return layer->num_key_value_heads * layer->head_dim;
    case 'D': return layer->head_dim;
    case 'F': return config->intermediate_size;
    case 'E': return config->num_experts;
    case 'M': return config->moe_intermediate_size;
    case 'W': return 2 * config->moe_intermediate_size;
    case 'V': return config->vocab_size;
    default: return 1;
    }
}

static gemma4_tensor_spec make_spec(const gemma4_config *config, const tensor_row *row, int layer)
{
    gemma4_tensor_spec spec = {
        .layer = layer, .offset = row->offset, .rank = strlen(row->shape), .rows = 1};
    if (layer < 0)
        snprintf(spec.name, sizeof spec.name, "%s", row->name);
    else
        snprintf(spec.name, sizeof spec.name, "layers.%d.%s", layer, row->name);
    for (size_t i = 0; i < spec.rank; i++)
        spec.shape[i] =
            axis_length(config, layer < 0 ? NULL : &config->layers[layer], row->shape[i]);
    for (size_t i = 0; i + 1 < spec.rank; i++)
        spec.rows *= spec.shape[i];
    spec.cols = spec.shape[spec.rank - 1];
    return spec;
}

gemma4_tensor_spec gemma4_tensor_spec_at(const gemma4_config *config, size_t index)
{
    if (index == 0)
        return make_spec(config, &FIRST, -1);
    index--;
    for (size_t layer = 0; layer < config->num_hidden_layers; layer++) {
        size_t count = layer_tensor_count(&config->layers[layer]);
        if (index >= count) {
            index -= count;
            continue;
        }
        if (config->layers[layer].v_is_k && index >= V_PROJ_ROW)
            index++;
        return make_spec(config, &LAYER[index], (int)layer);
    }
    return make_spec(config, &LAST, -1);
}

/* --- binding them to a checkpoint --- */

#define NAME_SIZE 160 /* prefix and gemma4_tensor_spec.name */

static const char *const PREFIXES[] = {"model.language_model.", "model."};

/* What a multimodal checkpoint holds besides the text decoder. */
static const char *const SKIPPED[] = {"model.vision_tower.", "model.embed_vision.",
                                      "model.audio_tower.", "model.embed_audio."};

/* The prefix of every text-decoder tensor, told by embed_tokens. */
static const char *find_prefix(const gemma4_safetensors *files, const char *directory,
                               gemma4_error *error)
{
    for (size_t i = 0; i < sizeof PREFIXES / sizeof PREFIXES[0]; i++) {
        char name[NAME_SIZE];
        snprintf(name, sizeof name, "%s%s", PREFIXES[i], FIRST.name);
        if (gemma4_safetensors_find(files, name) != NULL)
            return PREFIXES[i];
    }
    gemma4_fail(error, "%s: expected the tensor %s%s or %s%s, found neither", directory,
                PREFIXES[0], FIRST.name, PREFIXES[1], FIRST.name);
    return NULL;
}

/* "[2, 3]" */
static void format_shape(const size_t *shape, size_t rank, char text[GEMMA4_MAX_RANK * 22 + 3])
{
    text += sprintf(text, "[");
    for (size_t i = 0; i < rank; i++)
        text += sprintf(text, i == 0 ? "%zu" : ", %zu", shape[i]);
    sprintf(text, "]");
}

static int check_tensor(const gemma4_tensor *tensor, const gemma4_tensor_spec *spec,
                        gemma4_error *error)
{
    if (tensor->dtype != GEMMA4_BF16 && tensor->dtype != GEMMA4_F16 && tensor->dtype != GEMMA4_F32)
        return gemma4_fail(error, "%s: %s: expected dtype BF16, F16 or F32, found %s", tensor->file,
                           tensor->name, tensor->dtype_name);
    if (tensor->rank == spec->rank &&
        memcmp(tensor->shape, spec->shape, spec->rank * sizeof spec->shape[0]) == 0)
        return 0;
    char expected[GEMMA4_MAX_RANK * 22 + 3], found[GEMMA4_MAX_RANK * 22 + 3];
    format_shape(spec->shape, spec->rank, expected);
    format_shape(tensor->shape, tensor->rank, found);
    return gemma4_fail(error, "%s: %s: expected shape %s, found %s", tensor->file, tensor->name,
                       expected, found);
}

/* Binds one weight, and marks its tensor as used: used has an entry for every tensor of the
 * files. */
static int bind_weight(gemma4_model *model, const gemma4_tensor_spec *spec, const char *prefix,
                       const char *directory, bool *used, gemma4_error *error)
{
    char name[NAME_SIZE];
    snprintf(name, sizeof name, "%s%s", prefix, spec->name);
    const gemma4_tensor *tensor = gemma4_safetensors_find(model->files, name);
    if (tensor == NULL)
        return gemma4_fail(error, "%s: expected the tensor %s, found none", directory, name);
    if (check_tensor(tensor, spec, error) != 0)
        return -1;
    *gemma4_spec_weight(model, spec) = (gemma4_weight){
        .dtype = tensor->dtype, .data = tensor->data, .rows = spec->rows, .cols = spec->cols};
    used[tensor - gemma4_safetensors_at(model->files, 0)] = true;
    return 0;
}

static bool is_skipped(const char *name)
{
    for (size_t i = 0; i < sizeof SKIPPED / sizeof SKIPPED[0]; i++)
        if (strncmp(name, SKIPPED[i], strlen(SKIPPED[i])) == 0)
            return true;
    return false;
}

/* Some exports repeat the tied table. Another LM head would be another model. */
static int check_lm_head(const gemma4_tensor *head, const gemma4_tensor *embed, gemma4_error *error)
{
    if (head->dtype == embed->dtype && head->rank == embed->rank &&
        memcmp(head->shape, embed->shape, sizeof head->shape) == 0 &&
        memcmp(head->data, embed->data, head->size) == 0)
        return 0;
    return gemma4_fail(error,
                       "%s: %s: expected a copy of %s (tied embeddings), found another tensor",
                       head->file, head->name, embed->name);
}

static int check_unused(const gemma4_model *model, const char *prefix, const bool *used,
                        gemma4_error *error)
{
    char embed[NAME_SIZE];
    snprintf(embed, sizeof embed, "%s%s", prefix, FIRST.name);
    for (size_t i = 0; i < gemma4_safetensors_count(model->files); i++) {
        const gemma4_tensor *tensor = gemma4_safetensors_at(model->files, i);
        if (used[i] || is_skipped(tensor->name))
            continue;
        if (strcmp(tensor->name, "lm_head.weight") != 0)
            return gemma4_fail(
                error,
                "%s: %s: expected only the tensors that config.json implies, found this one too",
                tensor->file, tensor->name);
        if (check_lm_head(tensor, gemma4_safetensors_find(model->files, embed), error) != 0)
            return -1;
    }
    return 0;
}

static int bind_weights(gemma4_model *model, const char *directory, bool *used, gemma4_error *error)
{
    const char *prefix = find_prefix(model->files, directory, error);
    if (prefix == NULL)
        return -1;
    size_t count = gemma4_tensor_spec_count(&model->config);
    for (size_t i = 0; i < count; i++) {
        gemma4_tensor_spec spec = gemma4_tensor_spec_at(&model->config, i);
        if (bind_weight(model, &spec, prefix, directory, used, error) != 0)
            return -1;
    }
    return check_unused(model, prefix, used, error);
}

static int read_config(const char *directory, gemma4_config *config, gemma4_error *error)
{
    char *path;
    if (asprintf(&path, "%s/config.json", directory) < 0)
        return gemma4_fail(error, "%s: out of memory", directory);
    int status = gemma4_config_read(path, config, error);
    free(path);
    return status;
}

/* Room for the weights that the config implies, all of them absent. */
static int make_layers(gemma4_model *model, const char *path, gemma4_error *error)
{
    model->layers = calloc(model->config.num_hidden_layers, sizeof *model->layers);
    return model->layers == NULL ? gemma4_fail(error, "%s: out of memory", path) : 0;
}

static int open_folder(gemma4_model *model, const char *directory, gemma4_error *error)
{
    if (read_config(directory, &model->config, error) != 0 ||
        make_layers(model, directory, error) != 0)
        return -1;
    model->files = gemma4_safetensors_open_checkpoint(directory, error);
    if (model->files == NULL)
        return -1;
    bool *used = calloc(gemma4_safetensors_count(model->files) + 1, sizeof *used);
    int status = used == NULL ? gemma4_fail(error, "%s: out of memory", directory)
                              : bind_weights(model, directory, used, error);
    free(used);
    return status;
}

static int open_gguf(gemma4_model *model, const char *path, gemma4_error *error)
{
    model->gguf = gemma4_gguf_open(path, error);
    if (model->gguf == NULL || gemma4_gguf_read_config(model->gguf, &model->config, error) != 0 ||
        make_layers(model, path, error) != 0)
        return -1;
    return gemma4_gguf_bind(model, error);
}

/* What is there and no folder is a GGUF file. */
static bool is_gguf(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && !S_ISDIR(status.st_mode);
}

int gemma4_model_config(const char *path, gemma4_config *config, gemma4_error *error)
{
    if (!is_gguf(path))
        return read_config(path, config, error);
    gemma4_gguf *gguf = gemma4_gguf_open(path, error);
    int status = gguf == NULL ? -1 : gemma4_gguf_read_config(gguf, config, error);
    gemma4_gguf_close(gguf);
    return status;
}

gemma4_model *gemma4_model_open(const char *path, gemma4_error *error)
{
    gemma4_model *model = calloc(1, sizeof *model);
    if (model == NULL) {
        gemma4_fail(error, "%s: out of memory", path);
        return NULL;
    }
    if ((is_gguf(path) ? open_gguf : open_folder)(model, path, error) != 0) {
        gemma4_model_close(model);
        return NULL;
    }
    return model;
}

bool gemma4_model_is_quantised(const gemma4_model *model)
{
    return model->quantised_count != 0;
}

void gemma4_model_close(gemma4_model *model)
{
    if (model == NULL)
        return;
    gemma4_safetensors_close(model->files);
    gemma4_gguf_close(model->gguf);
    free(model->quantised);
    gemma4_config_free(&model->config);
    free(model->layers);
    free(model);
}
