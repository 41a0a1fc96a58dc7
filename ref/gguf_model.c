/* llama.cpp's names: https://github.com/ggml-org/llama.cpp/blob/master/src/models/gemma4.cpp */
#include "gguf_model.h"
#include "blocks.h"
#include "gguf.h"
#include "quantised.h"

#include <stdlib.h>
#include <string.h>

enum { NAME_SIZE = 128 };

/* The layers' names stand after "layers.N." and "blk.N.". */
static const struct {
    const char *published, *gguf;
} names[] = {
    {"embed_tokens.weight", "token_embd.weight"},
    {"norm.weight", "output_norm.weight"},
    {"input_layernorm.weight", "attn_norm.weight"},
    {"self_attn.q_proj.weight", "attn_q.weight"},
    {"self_attn.k_proj.weight", "attn_k.weight"},
    {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"},
    {"self_attn.q_norm.weight", "attn_q_norm.weight"},
    {"self_attn.k_norm.weight", "attn_k_norm.weight"},
    {"post_attention_layernorm.weight", "post_attention_norm.weight"},
    {"pre_feedforward_layernorm.weight", "ffn_norm.weight"},
    {"mlp.gate_proj.weight", "ffn_gate.weight"},
    {"mlp.up_proj.weight", "ffn_up.weight"},
    {"mlp.down_proj.weight", "ffn_down.weight"},
    {"post_feedforward_layernorm_1.weight", "post_ffw_norm_1.weight"},
    {"router.proj.weight", "ffn_gate_inp.weight"},
    {"router.scale", "ffn_gate_inp.scale"},
    {"router.per_expert_scale", "ffn_down_exps.scale"},
    {"pre_feedforward_layernorm_2.weight", "pre_ffw_norm_2.weight"},
    {"experts.gate_up_proj", "ffn_gate_up_exps.weight"},
    {"experts.down_proj", "ffn_down_exps.weight"},
    {"post_feedforward_layernorm_2.weight", "post_ffw_norm_2.weight"},
    {"post_feedforward_layernorm.weight", "post_ffw_norm.weight"},
    {"layer_scalar", "layer_output_scale.weight"},
};

/* What else may stand in the file: the angles' factors, which the config has read; what only
 * changes how activations are quantised; what belongs to vision and audio. */
static const char *const passed_over[] = {"rope_freqs.weight", "v.", "mm.", "a."};
#define INPUT_SCALE ".input_scale"

/* A binding under way: used has an entry for every tensor of the file. */
typedef struct binding {
    gemma4_model *model;
    const gemma4_gguf *gguf;
    bool *used;
} binding;

/* The tensor of that name in the spec's layer, marked as used; or NULL. */
static const gemma4_gguf_tensor *find(binding *b, const gemma4_tensor_spec *spec, const char *name)
{
    char full[2 * NAME_SIZE];
    if (spec->layer < 0)
        snprintf(full, sizeof full, "%s", name);
    else
        snprintf(full, sizeof full, "blk.%d.%s", spec->layer, name);
    const gemma4_gguf_tensor *tensor = gemma4_gguf_find(b->gguf, full);
    if (tensor)
        b->used[tensor - gemma4_gguf_tensor_at(b->gguf, 0)] = true;
    return tensor;
}

static const char *gguf_name(const gemma4_tensor_spec *spec)
{
    const char *published = spec->name;
    if (spec->layer >= 0)
        published = strchr(strchr(published, '.') + 1, '.') + 1;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(published, names[i].published))
            return names[i].gguf;
    return published; /* unknown in GGUF: it will not be found, and named */
}

/* "[2, 3]" */
static void format_shape(const size_t *shape, size_t rank, char text[96])
{
    size_t length = 0;
    for (size_t i = 0; i < rank; i++)
        length += (size_t)snprintf(text + length, 96 - length, "%s%zu", i ? ", " : "[", shape[i]);
    snprintf(text + length, 96 - length, "]");
}

/* Leading axes of length 1 do not count: ggml does not keep them apart. */
static bool same_shape(const size_t *a, size_t a_rank, const size_t *b, size_t b_rank)
{
    for (; a_rank && *a == 1; a_rank--)
        a++;
    for (; b_rank && *b == 1; b_rank--)
        b++;
    return a_rank == b_rank && !memcmp(a, b, a_rank * sizeof *a);
}

static int check_shape(const binding *b, const gemma4_gguf_tensor *tensor, const size_t *shape,
                       size_t rank, gemma4_error *error)
{
    char expected[96], found[96];
    if (same_shape(tensor->shape, tensor->rank, shape, rank))
        return 0;
    format_shape(shape, rank, expected);
    format_shape(tensor->shape, tensor->rank, found);
    return gemma4_fail(error, "%s: %s: expected shape %s, found %s", gemma4_gguf_path(b->gguf),
                       tensor->name, expected, found);
}

/* The factor that stands beside a weight, as of NVFP4: X.scale for X.weight, one number or one for
 * each matrix. The names that are weights themselves are none. */
static int bind_scale(binding *b, const gemma4_tensor_spec *spec, const char *name, size_t matrices,
                      gemma4_quantised_part *part, gemma4_error *error)
{
    char scale[NAME_SIZE];
    size_t length = strlen(name) - strlen(".weight");
    snprintf(scale, sizeof scale, "%.*s.scale", (int)length, name);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(scale, names[i].gguf))
            return 0;
    const gemma4_gguf_tensor *tensor = find(b, spec, scale);
    if (!tensor)
        return 0;
    if (tensor->type->dtype != GEMMA4_F32 || tensor->rank != 1 ||
        (tensor->shape[0] != 1 && tensor->shape[0] != matrices))
        return gemma4_fail(error, "%s: %s: expected [1] or [%zu] F32, found another tensor",
                           gemma4_gguf_path(b->gguf), tensor->name, matrices);
    part->scales = (const float *)tensor->data;
    part->scale_count = tensor->shape[0];
    return 0;
}

/* One tensor of a weight. */
static int bind_part(binding *b, const gemma4_tensor_spec *spec, const char *name,
                     const size_t *shape, gemma4_quantised_part *part, gemma4_error *error)
{
    const gemma4_gguf_tensor *tensor = find(b, spec, name);
    if (!tensor)
        return gemma4_fail(error,
                           spec->layer < 0 ? "%s: expected the tensor %s, found none"
                                           : "%s: expected the tensor %s in layer %d, found none",
                           gemma4_gguf_path(b->gguf), name, spec->layer);
    if (check_shape(b, tensor, shape, spec->rank, error))
        return -1;
    if (spec->rank == 1 && tensor->type->dtype == GEMMA4_QUANTISED)
        return gemma4_fail(error, "%s: %s: expected F32, F16 or BF16, found %s",
                           gemma4_gguf_path(b->gguf), tensor->name, tensor->type->name);
    size_t rows = 1;
    for (size_t i = 0; i + 1 < spec->rank; i++)
        rows *= shape[i];
    *part = (gemma4_quantised_part){
        .type = tensor->type, .data = tensor->data, .row_bytes = tensor->size / rows};
    return spec->rank == 1 ? 0
                           : bind_scale(b, spec, name, spec->rank == 3 ? shape[0] : 1, part, error);
}

/* The experts' gate and up are one tensor, as published, or two. */
static int bind_parts(binding *b, const gemma4_tensor_spec *spec, gemma4_quantised *weight,
                      gemma4_error *error)
{
    const char *name = gguf_name(spec);
    bool gate_up = !strcmp(name, "ffn_gate_up_exps.weight");
    weight->rows = spec->rank == 3 ? spec->shape[1] : spec->rows;
    weight->part_count = 1;
    if (!gate_up || find(b, spec, name))
        return bind_part(b, spec, name, spec->shape, &weight->parts[0], error);
    const size_t half[3] = {spec->shape[0], spec->shape[1] / 2, spec->shape[2]};
    weight->rows = half[1];
    weight->part_count = 2;
    return bind_part(b, spec, "ffn_gate_exps.weight", half, &weight->parts[0], error) ||
                   bind_part(b, spec, "ffn_up_exps.weight", half, &weight->parts[1], error)
               ? -1
               : 0;
}

static int bind_weight(binding *b, const gemma4_tensor_spec *spec, gemma4_error *error)
{
    gemma4_quantised weight = {0};
    if (bind_parts(b, spec, &weight, error))
        return -1;
    const gemma4_quantised_part *part = &weight.parts[0];
    gemma4_weight *bound = gemma4_spec_weight(b->model, spec);
    *bound = (gemma4_weight){
        .dtype = part->type->dtype, .data = part->data, .rows = spec->rows, .cols = spec->cols};
    if (bound->dtype == GEMMA4_QUANTISED || weight.part_count > 1 || part->scales) {
        gemma4_quantised *kept = &b->model->quantised[b->model->quantised_count++];
        *kept = weight;
        bound->dtype = GEMMA4_QUANTISED;
        bound->data = kept;
    }
    return 0;
}

static bool is_passed_over(const char *name)
{
    size_t length = strlen(name), end = strlen(INPUT_SCALE);
    for (size_t i = 0; i < sizeof passed_over / sizeof *passed_over; i++)
        if (!strncmp(name, passed_over[i], strlen(passed_over[i])))
            return true;
    return length > end && !strcmp(name + length - end, INPUT_SCALE);
}

/* Some files repeat the tied table. Another LM head would be another model. */
static int check_output(const binding *b, const gemma4_gguf_tensor *output, gemma4_error *error)
{
    const gemma4_gguf_tensor *table = gemma4_gguf_find(b->gguf, "token_embd.weight");
    if (table && output->type == table->type && output->size == table->size &&
        !memcmp(output->data, table->data, table->size))
        return 0;
    return gemma4_fail(error,
                       "%s: output.weight: expected a copy of token_embd.weight (tied embeddings), "
                       "found another tensor",
                       gemma4_gguf_path(b->gguf));
}

static int check_unused(const binding *b, gemma4_error *error)
{
    for (size_t i = 0; i < gemma4_gguf_tensor_count(b->gguf); i++) {
        const gemma4_gguf_tensor *tensor = gemma4_gguf_tensor_at(b->gguf, i);
        if (b->used[i] || is_passed_over(tensor->name))
            continue;
        if (strcmp(tensor->name, "output.weight"))
            return gemma4_fail(
                error,
                "%s: %s: expected only the tensors that the metadata imply, found this one too",
                gemma4_gguf_path(b->gguf), tensor->name);
        if (check_output(b, tensor, error))
            return -1;
    }
    return 0;
}

int gemma4_gguf_bind(gemma4_model *model, gemma4_error *error)
{
    binding b = {.model = model, .gguf = model->gguf};
    size_t count = gemma4_tensor_spec_count(&model->config);
    model->quantised = calloc(count, sizeof *model->quantised);
    b.used = calloc(gemma4_gguf_tensor_count(b.gguf) + 1, sizeof *b.used);
    int status = model->quantised && b.used
                     ? 0
                     : gemma4_fail(error, "%s: out of memory", gemma4_gguf_path(b.gguf));
    for (size_t i = 0; i < count && !status; i++) {
        gemma4_tensor_spec spec = gemma4_tensor_spec_at(&model->config, i);
        status = bind_weight(&b, &spec, error);
    }
    if (!status)
        status = check_unused(&b, error);
    free(b.used);
    return status;
}
