/* Synthetic checkpoints: spec/synth.md is the definition, golden/oracle/synth.py the second
 * implementation. */
#include "synth.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model.h"
#include "output.h"
#include "synth_internal.h"

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

/* The table of spec/synth.md, "Offset and spread". */
static synth_distribution distribution_of(const gemma4_config *c, const gemma4_tensor_spec *tensor)
{
    double d = (double)c->hidden_size, F = (double)c->intermediate_size,
           M = (double)c->moe_intermediate_size;
    double H = (double)c->num_attention_heads;
    double D = tensor->layer < 0 ? 0 : (double)c->layers[tensor->layer].head_dim;
    const char *name = tensor->name;

    if (tensor->layer < 0)
        return ends_with(name, "embed_tokens.weight") ? (synth_distribution){0, sqrt(3 / d)}
                                                      : (synth_distribution){8, 4};
    if (ends_with(name, ".q_proj.weight") || ends_with(name, ".k_proj.weight") ||
        ends_with(name, ".v_proj.weight"))
        return (synth_distribution){0, sqrt(3 / d)};
    if (ends_with(name, ".q_norm.weight"))
        return (synth_distribution){2.5, 1};
    if (ends_with(name, ".k_norm.weight"))
        return (synth_distribution){0.9 / sqrt(D), 0.45 / sqrt(D)};
    if (ends_with(name, ".o_proj.weight"))
        return (synth_distribution){0, 0.2 * sqrt(3 / (H * D))};
    if (ends_with(name, ".post_attention_layernorm.weight") ||
        ends_with(name, ".post_feedforward_layernorm.weight"))
        return (synth_distribution){0.4, 0.2};
    if (ends_with(name, ".gate_proj.weight") || ends_with(name, ".up_proj.weight") ||
        ends_with(name, ".experts.gate_up_proj"))
        return (synth_distribution){0, 1.5 * sqrt(3 / d)};
    if (ends_with(name, ".mlp.down_proj.weight"))
        return (synth_distribution){0, 0.1 * sqrt(3 / F)};
    if (ends_with(name, ".experts.down_proj"))
        return (synth_distribution){0, 0.2 * sqrt(3 / M)};
    if (ends_with(name, ".router.proj.weight"))
        return (synth_distribution){0, 2 * sqrt(3)};
    if (ends_with(name, ".layer_scalar"))
        return (synth_distribution){1.05, 0.35};
    return (synth_distribution){1, 0.5}; /* the other norms, router.scale,
                                            router.per_expert_scale */
}

static size_t tensor_size(const gemma4_tensor_spec *tensor)
{
    return tensor->rows * tensor->cols;
}

/* A checkpoint under construction. */
typedef struct checkpoint {
    const gemma4_synth_options *options;
    const synth_preset *preset;
    const char *directory;
    gemma4_config config;
} checkpoint;

/* A tensor to be written: its name in the file, "model.language_model." and so on included, and
 * what fills it. */
typedef struct filled_tensor {
    gemma4_tensor_spec spec;
    const char *prefix;
    synth_distribution distribution;
    size_t period; /* its elements repeat after so many; 0: never */
} filled_tensor;

static size_t tensor_count(const checkpoint *k)
{
    return gemma4_tensor_spec_count(&k->config) + (k->options->vision ? synth_vision_count() : 0);
}

/* The decoder's tensors in the published order, then the vision tower's. */
static filled_tensor tensor_at(const checkpoint *k, size_t index)
{
    size_t decoder = gemma4_tensor_spec_count(&k->config);
    filled_tensor tensor = {.prefix = k->preset->layout == MULTIMODAL && index < decoder
                                          ? "model.language_model."
                                          : "model."};
    if (index < decoder) {
        tensor.spec = gemma4_tensor_spec_at(&k->config, index);
        double factor = synth_factor_of(k->preset, &tensor.spec);
        tensor.distribution = distribution_of(&k->config, &tensor.spec);
        tensor.distribution.offset *= factor;
        tensor.distribution.spread *= factor;
        if (k->preset->equal_experts && strstr(tensor.spec.name, ".experts."))
            tensor.period = tensor_size(&tensor.spec) / k->config.num_experts;
    } else {
        tensor.spec = synth_vision_at(index - decoder, k->config.hidden_size, &tensor.distribution);
    }
    return tensor;
}

static void write_tensor(FILE *f, const filled_tensor *filled, uint64_t seed)
{
    enum { BLOCKS = 4096 };
    const gemma4_tensor_spec *tensor = &filled->spec;
    synth_distribution dist = filled->distribution;
    uint64_t key = tensor_key(seed, tensor->name);
    size_t count = tensor_size(tensor);
    uint16_t level[256]; /* all the values that this tensor can take */
    uint16_t buffer[BLOCKS * 8];

    for (int b = 0; b < 256; b++)
        level[b] = bf16_of(dist.offset + dist.spread * ((2.0 * b - 255.0) / 256.0));
    for (size_t first = 0; first < count; first += BLOCKS * 8) {
        size_t n = count - first < BLOCKS * 8 ? count - first : BLOCKS * 8;
        for (size_t i = 0; i < n; i += 8) {
            /* a multiple of 8 */
            size_t at = filled->period ? (first + i) % filled->period : first + i;
            uint64_t block = splitmix64(key + (at / 8 + 1) * 0x9E3779B97F4A7C15u);
            for (size_t j = 0; j < 8 && i + j < n; j++)
                buffer[i + j] = level[(block >> (8 * j)) & 255];
        }
        fwrite(buffer, sizeof *buffer, n, f); /* errors are sticky: finish_file looks */
    }
}

/* ------------------------------------------------------------------ files */

/* A file under construction: written under a temporary name, renamed by finish_file. */
typedef gemma4_output output;

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

/* Which of the shards a tensor goes to: the layers are dealt out in order; the head and tail go to
 * the first and last. */
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
static long write_header(FILE *f, const checkpoint *k, size_t shard)
{
    size_t offset = 0;
    long length = fprintf(f, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < tensor_count(k); i++) {
        filled_tensor tensor = tensor_at(k, i);
        if (shard_of(&k->config, &tensor.spec, k->options->shards) != shard)
            continue;
        length += fprintf(f, ",\"%s%s\":{\"dtype\":\"BF16\",\"shape\":[", tensor.prefix,
                          tensor.spec.name);
        for (size_t axis = 0; axis < tensor.spec.rank; axis++)
            length += fprintf(f, "%s%zu", axis ? "," : "", tensor.spec.shape[axis]);
        size_t end = offset + 2 * tensor_size(&tensor.spec);
        length += fprintf(f, "],\"data_offsets\":[%zu,%zu]}", offset, end);
        offset = end;
    }
    return length + fprintf(f, "}");
}

static int write_shard(const checkpoint *k, size_t shard, gemma4_error *error)
{
    char name[64];
    output out;
    shard_name(name, shard, k->options->shards);
    if (start_file(&out, k->directory, name, error))
        return -1;
    char no_length[8] = {0};
    fwrite(no_length, 1, 8, out.f);
    uint64_t length = (uint64_t)write_header(out.f, k, shard);
    for (; (8 + length) % 64; length++)
        fputc(' ', out.f);
    fseek(out.f, 0, SEEK_SET);
    for (int i = 0; i < 8; i++)
        fputc((int)(length >> (8 * i)) & 255, out.f);
    fseek(out.f, 0, SEEK_END);
    for (size_t i = 0; i < tensor_count(k); i++) {
        filled_tensor tensor = tensor_at(k, i);
        if (shard_of(&k->config, &tensor.spec, k->options->shards) == shard)
            write_tensor(out.f, &tensor, k->options->seed);
    }
    return finish_file(&out, error);
}

static int write_index(const checkpoint *k, gemma4_error *error)
{
    output out;
    size_t total = 0, count = tensor_count(k);
    if (start_file(&out, k->directory, "model.safetensors.index.json", error))
        return -1;
    for (size_t i = 0; i < count; i++) {
        filled_tensor tensor = tensor_at(k, i);
        total += 2 * tensor_size(&tensor.spec);
    }
    fprintf(out.f, "{\n  \"metadata\": {\"total_size\": %zu},\n  \"weight_map\": {\n", total);
    for (size_t i = 0; i < count; i++) {
        filled_tensor tensor = tensor_at(k, i);
        char name[64];
        shard_name(name, shard_of(&k->config, &tensor.spec, k->options->shards),
                   k->options->shards);
        fprintf(out.f, "    \"%s%s\": \"%s\"%s\n", tensor.prefix, tensor.spec.name, name,
                i + 1 < count ? "," : "");
    }
    fprintf(out.f, "  }\n}\n");
    return finish_file(&out, error);
}

/* What loaders look for beside config and weights. */
static int write_tokenizer_files(const checkpoint *k, gemma4_error *error)
{
    output out;
    if (start_file(&out, k->directory, "tokenizer.json", error))
        return -1;
    synth_write_tokenizer(out.f, k->config.vocab_size);
    if (finish_file(&out, error) || start_file(&out, k->directory, "tokenizer_config.json", error))
        return -1;
    synth_write_tokenizer_config(out.f);
    if (finish_file(&out, error) || start_file(&out, k->directory, "generation_config.json", error))
        return -1;
    synth_write_generation_config(out.f);
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

static int find_preset(const gemma4_synth_options *o, synth_preset *p, gemma4_error *error)
{
    const synth_preset *found = synth_preset_find(o->preset);
    if (!found)
        return gemma4_fail(error,
                           "synth: expected a preset among tiny, moe128, wide256, uneven96, "
                           "deep128, heads512, window1024, 26b-a4b (or one of the "
                           "ladder's: spec/ladder.md), found '%s'",
                           o->preset);
    *p = *found;
    p->layers = o->layers ? o->layers : p->layers;
    p->vocab = o->vocab ? o->vocab : p->vocab;
    if (p->layers > 1000 || p->vocab > 262144)
        return gemma4_fail(error,
                           "synth: expected at most 1000 layers and a vocabulary of at most "
                           "262144, found %zu and %zu",
                           p->layers, p->vocab);
    if (o->shards < 1 || o->shards > p->layers)
        return gemma4_fail(error, "synth: expected 1 to %zu shards, found %zu", p->layers,
                           o->shards);
    if (o->vision && p->layout != MULTIMODAL)
        return gemma4_fail(error,
                           "synth: a vision tower: expected a preset of the multimodal layout "
                           "(tiny, heads512, 26b-a4b), found '%s'",
                           o->preset);
    return 0;
}

int gemma4_synth(const gemma4_synth_options *options, const char *directory, gemma4_error *error)
{
    synth_preset p;
    output config_file;
    checkpoint k = {.options = options, .preset = &p, .directory = directory};
    if (find_preset(options, &p, error))
        return -1;
    if (gemma4_make_directories(directory, error) ||
        start_file(&config_file, directory, "config.json", error))
        return -1;
    synth_write_config(config_file.f, &p, options->vision);
    int status = fflush(config_file.f)
                     ? gemma4_fail(error, "%s: cannot write: %s", config_file.path, strerror(errno))
                     : 0;
    if (!status && !(status = gemma4_config_read(config_file.temporary, &k.config, error))) {
        for (size_t shard = 0; shard < options->shards && !status; shard++)
            status = write_shard(&k, shard, error);
        if (!status)
            status = options->shards > 1 ? write_index(&k, error) : remove_index(directory, error);
        if (!status)
            status = write_tokenizer_files(&k, error);
        gemma4_config_free(&k.config);
    }
    if (status) {
        gemma4_output_discard(&config_file);
        return -1;
    }
    return finish_file(&config_file, error);
}
