/* A vision tower beside the decoder: 2 layers of width 32, with the names and shapes of the
 * published one. No decoder reads it; loaders meet it, as they do in the published checkpoint. */
#include "synth_internal.h"

#include <math.h>
#include <string.h>

enum {
    WIDTH = 32,
    MLP_WIDTH = 64,
    HEADS = 2,
    HEAD_DIM = 16,
    LAYERS = 2,
    PATCH = 4,
    POSITIONS = 64,
    HIDDEN_OF_DECODER = 0
};

/* A 0 among the sizes is the decoder's width. %zu is the layer. */
typedef struct vision_tensor {
    const char *name;
    size_t rank, shape[3];
    double offset;
} vision_tensor;

static const vision_tensor OUTER[] = {
    {"vision_tower.std_bias", 1, {WIDTH}, 0},
    {"vision_tower.std_scale", 1, {WIDTH}, 1},
    {"vision_tower.patch_embedder.position_embedding_table", 3, {2, POSITIONS, WIDTH}, 0},
    {"vision_tower.patch_embedder.input_proj.weight", 2, {WIDTH, 3 * PATCH *PATCH}, 0},
    {"embed_vision.embedding_projection.weight", 2, {HIDDEN_OF_DECODER, WIDTH}, 0},
};

static const vision_tensor LAYER[] = {
    {"vision_tower.encoder.layers.%zu.self_attn.q_proj.linear.weight",
     2,
     {HEADS * HEAD_DIM, WIDTH},
     0},
    {"vision_tower.encoder.layers.%zu.self_attn.k_proj.linear.weight",
     2,
     {HEADS * HEAD_DIM, WIDTH},
     0},
    {"vision_tower.encoder.layers.%zu.self_attn.v_proj.linear.weight",
     2,
     {HEADS * HEAD_DIM, WIDTH},
     0},
    {"vision_tower.encoder.layers.%zu.self_attn.o_proj.linear.weight",
     2,
     {WIDTH, HEADS *HEAD_DIM},
     0},
    {"vision_tower.encoder.layers.%zu.self_attn.q_norm.weight", 1, {HEAD_DIM}, 1},
    {"vision_tower.encoder.layers.%zu.self_attn.k_norm.weight", 1, {HEAD_DIM}, 1},
    {"vision_tower.encoder.layers.%zu.mlp.gate_proj.linear.weight", 2, {MLP_WIDTH, WIDTH}, 0},
    {"vision_tower.encoder.layers.%zu.mlp.up_proj.linear.weight", 2, {MLP_WIDTH, WIDTH}, 0},
    {"vision_tower.encoder.layers.%zu.mlp.down_proj.linear.weight", 2, {WIDTH, MLP_WIDTH}, 0},
    {"vision_tower.encoder.layers.%zu.input_layernorm.weight", 1, {WIDTH}, 1},
    {"vision_tower.encoder.layers.%zu.post_attention_layernorm.weight", 1, {WIDTH}, 1},
    {"vision_tower.encoder.layers.%zu.pre_feedforward_layernorm.weight", 1, {WIDTH}, 1},
    {"vision_tower.encoder.layers.%zu.post_feedforward_layernorm.weight", 1, {WIDTH}, 1},
};

enum { OUTER_COUNT = sizeof OUTER / sizeof *OUTER, LAYER_COUNT = sizeof LAYER / sizeof *LAYER };

size_t synth_vision_count(void)
{
    return OUTER_COUNT + LAYERS * LAYER_COUNT;
}

gemma4_tensor_spec synth_vision_at(size_t index, size_t hidden, synth_distribution *distribution)
{
    size_t layer = index < OUTER_COUNT ? 0 : (index - OUTER_COUNT) / LAYER_COUNT;
    const vision_tensor *tensor =
        index < OUTER_COUNT ? &OUTER[index] : &LAYER[(index - OUTER_COUNT) % LAYER_COUNT];
    gemma4_tensor_spec spec = {.layer = -1, .rank = tensor->rank, .rows = 1, .cols = 1};
    const char *number = strstr(tensor->name, "%zu");
    if (number)
        snprintf(spec.name, sizeof spec.name, "%.*s%zu%s", (int)(number - tensor->name),
                 tensor->name, layer, number + 3);
    else
        snprintf(spec.name, sizeof spec.name, "%s", tensor->name);
    for (size_t axis = 0; axis < tensor->rank; axis++) {
        spec.shape[axis] = tensor->shape[axis] ? tensor->shape[axis] : hidden;
        *(axis + 1 < tensor->rank ? &spec.rows : &spec.cols) *= spec.shape[axis];
    }
    distribution->offset = tensor->offset;
    distribution->spread = tensor->offset > 0 ? 0.5 : sqrt(3.0 / (double)spec.cols);
    return spec;
}

void synth_write_vision_config(FILE *f, size_t vocab)
{
    static const char *const ids[] = {"image_token_id", "boi_token_id",   "eoi_token_id",
                                      "video_token_id", "audio_token_id", "boa_token_id",
                                      "eoa_token_index"};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) /* the last ids: no case uses them as
                                                             images */
        fprintf(f, "  \"%s\": %zu,\n", ids[i], vocab - 1 - i);
    fprintf(f, "  \"audio_config\": null,\n");
    fprintf(f, "  \"vision_config\": {\n");
    fprintf(f, "    \"head_dim\": %d,\n    \"hidden_activation\": \"gelu_pytorch_tanh\",\n",
            HEAD_DIM);
    fprintf(f, "    \"hidden_size\": %d,\n    \"intermediate_size\": %d,\n", WIDTH, MLP_WIDTH);
    fprintf(f, "    \"model_type\": \"gemma4_vision\",\n");
    fprintf(f, "    \"num_attention_heads\": %d,\n    \"num_hidden_layers\": %d,\n", HEADS, LAYERS);
    fprintf(f, "    \"num_key_value_heads\": %d,\n    \"patch_size\": %d,\n", HEADS, PATCH);
    fprintf(f, "    \"pooling_kernel_size\": 3,\n    \"position_embedding_size\": %d,\n",
            POSITIONS);
    fprintf(f, "    \"rms_norm_eps\": 1e-06,\n    \"standardize\": true,\n    "
               "\"use_clipped_linears\": false\n  },\n");
}
