/* Synthetic checkpoints: spec/synth.md is the definition, golden/oracle/synth.py the second implementation. */
#include "synth.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model.h"
#include "output.h"

typedef enum layout { MULTIMODAL, TEXT_ONLY, TEXT_ONLY_PER_LAYER } layout;

typedef struct preset {
    const char *name;
    layout layout;
    size_t layers, full_every; /* every full_every-th layer is a full one, and so is the last */
    size_t hidden, heads, sliding_kv_heads, full_kv_heads, sliding_head_dim, full_head_dim, window;
    size_t dense_width, expert_width, experts, top_k, vocab;
} preset;

static const preset presets[] = {
    {"tiny", MULTIMODAL, 12, 6, 64, 4, 2, 1, 16, 32, 16, 96, 32, 16, 4, 256},
    {"moe128", TEXT_ONLY_PER_LAYER, 4, 2, 64, 16, 8, 2, 32, 64, 16, 64, 32, 128, 8, 512},
    {"wide256", TEXT_ONLY, 4, 2, 256, 8, 4, 2, 32, 64, 32, 256, 256, 8, 2, 512},
    {"uneven96", TEXT_ONLY, 4, 2, 96, 6, 2, 1, 32, 64, 24, 160, 96, 12, 3, 384},
    {"deep128", TEXT_ONLY, 12, 6, 128, 8, 4, 2, 16, 32, 16, 192, 64, 16, 4, 512},
    {"26b-a4b", MULTIMODAL, 30, 6, 2816, 16, 8, 2, 256, 512, 1024, 2112, 704, 128, 8, 262144},
};
enum { PRESET_COUNT = sizeof presets / sizeof *presets };

const char *const *gemma4_synth_presets(void)
{
    static const char *names[PRESET_COUNT + 1];
    for (size_t i = 0; i < PRESET_COUNT; i++)
        names[i] = presets[i].name;
    return names;
}

/* ------------------------------------------------------------ config.json */

static int is_full(const preset *p, size_t layer)
{
    return (layer + 1) % p->full_every == 0 || layer + 1 == p->layers;
}

/* The keys of the text decoder, each line indented by indent. */
static void write_text_config(FILE *f, const preset *p, const char *indent)
{
    fprintf(f, "%s\"attention_bias\": false,\n", indent);
    fprintf(f, "%s\"attention_k_eq_v\": true,\n", indent);
    fprintf(f, "%s\"bos_token_id\": 2,\n", indent);
    fprintf(f, "%s\"enable_moe_block\": true,\n", indent);
    fprintf(f, "%s\"eos_token_id\": 1,\n", indent);
    fprintf(f, "%s\"final_logit_softcapping\": 30.0,\n", indent);
    if (p->layout != TEXT_ONLY_PER_LAYER)
        fprintf(f, "%s\"global_head_dim\": %zu,\n", indent, p->full_head_dim);
    fprintf(f, "%s\"head_dim\": %zu,\n", indent, p->sliding_head_dim);
    fprintf(f, "%s\"hidden_activation\": \"gelu_pytorch_tanh\",\n", indent);
    fprintf(f, "%s\"hidden_size\": %zu,\n", indent, p->hidden);
    fprintf(f, "%s\"hidden_size_per_layer_input\": 0,\n", indent);
    fprintf(f, "%s\"intermediate_size\": %zu,\n", indent, p->dense_width);
    fprintf(f, "%s\"layer_types\": [\n", indent);
    for (size_t l = 0; l < p->layers; l++)
        fprintf(f, "%s  \"%s\"%s\n", indent, is_full(p, l) ? "full_attention" : "sliding_attention", l + 1 < p->layers ? "," : "");
    fprintf(f, "%s],\n", indent);
    fprintf(f, "%s\"max_position_embeddings\": 262144,\n", indent);
    fprintf(f, "%s\"model_type\": \"gemma4_text\",\n", indent);
    fprintf(f, "%s\"moe_intermediate_size\": %zu,\n", indent, p->expert_width);
    fprintf(f, "%s\"num_attention_heads\": %zu,\n", indent, p->heads);
    fprintf(f, "%s\"num_experts\": %zu,\n", indent, p->experts);
    if (p->layout != TEXT_ONLY_PER_LAYER)
        fprintf(f, "%s\"num_global_key_value_heads\": %zu,\n", indent, p->full_kv_heads);
    fprintf(f, "%s\"num_hidden_layers\": %zu,\n", indent, p->layers);
    fprintf(f, "%s\"num_key_value_heads\": %zu,\n", indent, p->sliding_kv_heads);
    fprintf(f, "%s\"num_kv_shared_layers\": 0,\n", indent);
    fprintf(f, "%s\"pad_token_id\": 0,\n", indent);
    if (p->layout == TEXT_ONLY_PER_LAYER) {
        const char *separator = "";
        fprintf(f, "%s\"per_layer_config\": {", indent);
        for (size_t l = 0; l < p->layers; l++)
            if (is_full(p, l)) {
                fprintf(f, "%s\n%s  \"%zu\": {\"head_dim\": %zu, \"num_key_value_heads\": %zu}", separator, indent, l,
                        p->full_head_dim, p->full_kv_heads);
                separator = ",";
            }
        fprintf(f, "\n%s},\n", indent);
    }
    fprintf(f, "%s\"rms_norm_eps\": 1e-06,\n", indent);
    fprintf(f, "%s\"rope_parameters\": {\n", indent);
    fprintf(f, "%s  \"full_attention\": {\"partial_rotary_factor\": 0.25, \"rope_theta\": 1000000.0, \"rope_type\": \"proportional\"},\n",
            indent);
    fprintf(f, "%s  \"sliding_attention\": {\"rope_theta\": 10000.0, \"rope_type\": \"default\"}\n", indent);
    fprintf(f, "%s},\n", indent);
    fprintf(f, "%s\"sliding_window\": %zu,\n", indent, p->window);
    fprintf(f, "%s\"tie_word_embeddings\": true,\n", indent);
    fprintf(f, "%s\"top_k_experts\": %zu,\n", indent, p->top_k);
    fprintf(f, "%s\"use_bidirectional_attention\": %s,\n", indent, p->layout == MULTIMODAL ? "\"vision\"" : "null");
    fprintf(f, "%s\"vocab_size\": %zu\n", indent, p->vocab);
}

static void write_config(FILE *f, const preset *p)
{
    if (p->layout == MULTIMODAL) {
        fprintf(f, "{\n  \"architectures\": [\"Gemma4ForConditionalGeneration\"],\n  \"dtype\": \"bfloat16\",\n");
        fprintf(f, "  \"model_type\": \"gemma4\",\n  \"text_config\": {\n");
        write_text_config(f, p, "    ");
        fprintf(f, "  },\n  \"tie_word_embeddings\": true\n}\n");
    } else {
        fprintf(f, "{\n  \"architectures\": [\"Gemma4ForCausalLM\"],\n  \"dtype\": \"bfloat16\",\n");
        write_text_config(f, p, "  ");
        fprintf(f, "}\n");
    }
}

/* ---------------------------------------------------------------- weights */

/* The first step of spec/synth.md, "The bytes". */
static uint64_t tensor_key(uint64_t seed, const char *name)
{
    uint64_t key = 14695981039346656037u;
    for (int i = 0; i < 8; i++)
        key = (key ^ ((seed >> (8 * i)) & 255)) * 1099511628211u;
    for (; *name; name++)
        key = (key ^ (unsigned char)*name) * 1099511628211u;
    return key;
}

static uint64_t splitmix64(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* Round to nearest, ties to even; the value is finite. */
static uint16_t bf16_of(double value)
{
    float rounded = (float)value;
    uint32_t bits;
    memcpy(&bits, &rounded, sizeof bits);
    return (uint16_t)((bits + 0x7FFFu + ((bits >> 16) & 1)) >> 16);
}

static int ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && !strcmp(name + n - m, end);
}

typedef struct distribution {
    double offset, spread;
} distribution;

/* The table of spec/synth.md, "Offset and spread". */
static distribution distribution_of(const gemma4_config *c, const gemma4_tensor_spec *tensor)
{
    double d = (double)c->hidden_size, F = (double)c->intermediate_size, M = (double)c->moe_intermediate_size;
    double H = (double)c->num_attention_heads;
    double D = tensor->layer < 0 ? 0 : (double)c->layers[tensor->layer].head_dim;
    const char *name = tensor->name;

    if (tensor->layer < 0)
        return ends_with(name, "embed_tokens.weight") ? (distribution){0, sqrt(3 / d)} : (distribution){8, 4};
    if (ends_with(name, ".q_proj.weight") || ends_with(name, ".k_proj.weight") || ends_with(name, ".v_proj.weight"))
        return (distribution){0, sqrt(3 / d)};
    if (ends_with(name, ".q_norm.weight"))
        return (distribution){2.5, 1};
    if (ends_with(name, ".k_norm.weight"))
        return (distribution){0.9 / sqrt(D), 0.45 / sqrt(D)};
    if (ends_with(name, ".o_proj.weight"))
        return (distribution){0, 0.2 * sqrt(3 / (H * D))};
    if (ends_with(name, ".post_attention_layernorm.weight") || ends_with(name, ".post_feedforward_layernorm.weight"))
        return (distribution){0.4, 0.2};
    if (ends_with(name, ".gate_proj.weight") || ends_with(name, ".up_proj.weight") || ends_with(name, ".experts.gate_up_proj"))
        return (distribution){0, 1.5 * sqrt(3 / d)};
    if (ends_with(name, ".mlp.down_proj.weight"))
        return (distribution){0, 0.1 * sqrt(3 / F)};
    if (ends_with(name, ".experts.down_proj"))
        return (distribution){0, 0.2 * sqrt(3 / M)};
    if (ends_with(name, ".router.proj.weight"))
        return (distribution){0, 2 * sqrt(3)};
    if (ends_with(name, ".layer_scalar"))
        return (distribution){1.05, 0.35};
    return (distribution){1, 0.5}; /* the other norms, router.scale, router.per_expert_scale */
}

static size_t tensor_size(const gemma4_tensor_spec *tensor)
{
    return tensor->rows * tensor->cols;
}

static void write_tensor(FILE *f, const gemma4_config *c, const gemma4_tensor_spec *tensor, uint64_t seed)
{
    enum { BLOCKS = 4096 };
    distribution dist = distribution_of(c, tensor);
    uint64_t key = tensor_key(seed, tensor->name);
    size_t count = tensor_size(tensor);
    uint16_t level[256]; /* all the values that this tensor can take */
    uint16_t buffer[BLOCKS * 8];

    for (int b = 0; b < 256; b++)
        level[b] = bf16_of(dist.offset + dist.spread * ((2.0 * b - 255.0) / 256.0));
    for (size_t first = 0; first < count; first += BLOCKS * 8) {
        size_t n = count - first < BLOCKS * 8 ? count - first : BLOCKS * 8;
        for (size_t i = 0; i < n; i += 8) {
            uint64_t block = splitmix64(key + ((first + i) / 8 + 1) * 0x9E3779B97F4A7C15u);
            for (size_t j = 0; j < 8 && i + j < n; j++)
                buffer[i + j] = level[(block >> (8 * j)) & 255];
        }
        fwrite(buffer, sizeof *buffer, n, f); /* errors are sticky: finish_file looks */
    }
}

/* ------------------------------------------------------------------ files */

/* A file under construction: written under a temporary name, renamed by finish_file. */
typedef gemma4_output output;

/* Creates a directory and the parents it lacks. */
static int make_directories(const char *directory, gemma4_error *error)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s", directory) >= (int)sizeof path)
        return gemma4_fail(error, "%.200s...: path too long", directory);
    for (char *slash = path + 1;; slash++) {
        slash += strcspn(slash, "/");
        char end = *slash;
        *slash = '\0';
        if (mkdir(path, 0777) && errno != EEXIST)
            return gemma4_fail(error, "%s: cannot create: %s", path, strerror(errno));
        if (!end)
            return 0;
        *slash = end;
    }
}

static int start_file(output *out, const char *directory, const char *name, gemma4_error *error)
{
    char path[GEMMA4_OUTPUT_PATH_SIZE];
    if (snprintf(path, sizeof path, "%s/%s", directory, name) >= (int)sizeof path)
        return gemma4_fail(error, "%.200s...: path too long", directory);
    return gemma4_output_open(out, path, error);
}

static int finish_file(output *out, gemma4_error *error)
{
    return gemma4_output_commit(out, error);
}

/* Which of the shards a tensor goes to: the layers are dealt out in order; the head and tail go to the first and last. */
static size_t shard_of(const gemma4_config *c, const gemma4_tensor_spec *tensor, size_t shards)
{
    if (tensor->layer < 0)
        return ends_with(tensor->name, "embed_tokens.weight") ? 0 : shards - 1;
    return (size_t)tensor->layer * shards / c->num_hidden_layers;
}

static void shard_name(char name[64], size_t shard, size_t shards)
{
    if (shards == 1)
        snprintf(name, 64, "model.safetensors");
    else
        snprintf(name, 64, "model-%05zu-of-%05zu.safetensors", shard + 1, shards);
}

/* The JSON header of one shard, to f; returns its length without padding. */
static long write_header(FILE *f, const gemma4_config *c, const char *prefix, size_t shard, size_t shards)
{
    size_t offset = 0;
    long length = fprintf(f, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < gemma4_tensor_spec_count(c); i++) {
        gemma4_tensor_spec tensor = gemma4_tensor_spec_at(c, i);
        if (shard_of(c, &tensor, shards) != shard)
            continue;
        length += fprintf(f, ",\"%s%s\":{\"dtype\":\"BF16\",\"shape\":[", prefix, tensor.name);
        for (size_t axis = 0; axis < tensor.rank; axis++)
            length += fprintf(f, "%s%zu", axis ? "," : "", tensor.shape[axis]);
        size_t end = offset + 2 * tensor_size(&tensor);
        length += fprintf(f, "],\"data_offsets\":[%zu,%zu]}", offset, end);
        offset = end;
    }
    return length + fprintf(f, "}");
}

static int write_shard(const gemma4_synth_options *o, const gemma4_config *c, const char *prefix, size_t shard,
                       const char *directory, gemma4_error *error)
{
    char name[64];
    output out;
    shard_name(name, shard, o->shards);
    if (start_file(&out, directory, name, error))
        return -1;
    char no_length[8] = {0};
    fwrite(no_length, 1, 8, out.f);
    uint64_t length = (uint64_t)write_header(out.f, c, prefix, shard, o->shards);
    for (; (8 + length) % 64; length++)
        fputc(' ', out.f);
    fseek(out.f, 0, SEEK_SET);
    for (int i = 0; i < 8; i++)
        fputc((int)(length >> (8 * i)) & 255, out.f);
    fseek(out.f, 0, SEEK_END);
    for (size_t i = 0; i < gemma4_tensor_spec_count(c); i++) {
        gemma4_tensor_spec tensor = gemma4_tensor_spec_at(c, i);
        if (shard_of(c, &tensor, o->shards) == shard)
            write_tensor(out.f, c, &tensor, o->seed);
    }
    return finish_file(&out, error);
}

static int write_index(const gemma4_config *c, const char *prefix, size_t shards, const char *directory, gemma4_error *error)
{
    output out;
    size_t total = 0, count = gemma4_tensor_spec_count(c);
    if (start_file(&out, directory, "model.safetensors.index.json", error))
        return -1;
    for (size_t i = 0; i < count; i++) {
        gemma4_tensor_spec tensor = gemma4_tensor_spec_at(c, i);
        total += 2 * tensor_size(&tensor);
    }
    fprintf(out.f, "{\n  \"metadata\": {\"total_size\": %zu},\n  \"weight_map\": {\n", total);
    for (size_t i = 0; i < count; i++) {
        gemma4_tensor_spec tensor = gemma4_tensor_spec_at(c, i);
        char name[64];
        shard_name(name, shard_of(c, &tensor, shards), shards);
        fprintf(out.f, "    \"%s%s\": \"%s\"%s\n", prefix, tensor.name, name, i + 1 < count ? "," : "");
    }
    fprintf(out.f, "  }\n}\n");
    return finish_file(&out, error);
}

/* An index left by an earlier run in shards would be read in place of the one file. */
static int remove_index(const char *directory, gemma4_error *error)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", directory);
    if (unlink(path) && errno != ENOENT)
        return gemma4_fail(error, "%s: cannot remove: %s", path, strerror(errno));
    return 0;
}

static int find_preset(const gemma4_synth_options *o, preset *p, gemma4_error *error)
{
    for (size_t i = 0; i < PRESET_COUNT; i++)
        if (!strcmp(presets[i].name, o->preset)) {
            *p = presets[i];
            p->layers = o->layers ? o->layers : p->layers;
            p->vocab = o->vocab ? o->vocab : p->vocab;
            if (p->layers > 1000 || p->vocab > 262144)
                return gemma4_fail(error, "synth: expected at most 1000 layers and a vocabulary of at most 262144, found %zu and %zu",
                                   p->layers, p->vocab);
            if (o->shards < 1 || o->shards > p->layers)
                return gemma4_fail(error, "synth: expected 1 to %zu shards, found %zu", p->layers, o->shards);
            return 0;
        }
    return gemma4_fail(error, "synth: expected a preset among tiny, moe128, wide256, uneven96, deep128, 26b-a4b, found '%s'", o->preset);
}

int gemma4_synth(const gemma4_synth_options *options, const char *directory, gemma4_error *error)
{
    preset p;
    output config_file;
    gemma4_config c;
    if (find_preset(options, &p, error))
        return -1;
    if (make_directories(directory, error) || start_file(&config_file, directory, "config.json", error))
        return -1;
    write_config(config_file.f, &p);
    int status = fflush(config_file.f) ? gemma4_fail(error, "%s: cannot write: %s", config_file.temporary, strerror(errno)) : 0;
    if (!status && !(status = gemma4_config_read(config_file.temporary, &c, error))) {
        const char *prefix = p.layout == MULTIMODAL ? "model.language_model." : "model.";
        for (size_t shard = 0; shard < options->shards && !status; shard++)
            status = write_shard(options, &c, prefix, shard, directory, error);
        if (!status)
            status = options->shards > 1 ? write_index(&c, prefix, options->shards, directory, error) : remove_index(directory, error);
        gemma4_config_free(&c);
    }
    if (status) {
        gemma4_output_discard(&config_file);
        return -1;
    }
    return finish_file(&config_file, error);
}
