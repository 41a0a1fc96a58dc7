#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "blocks.h"
#include "gguf.h"
#include "gguf_model.h"
#include "text_stream.h"

#define PREFIX "gemma4."
#define LARGEST INT32_MAX /* config.json's own limits are below */

enum { MAX_LAYERS = 1024 };

/* What the metadata say, in config.json's words. */
typedef struct metadata {
    const gemma4_gguf *gguf;
    size_t num_hidden_layers, hidden_size, intermediate_size, num_attention_heads,
        max_position_embeddings, sliding_window;
    size_t num_experts, top_k_experts, moe_intermediate_size, vocab_size,
        hidden_size_per_layer_input, num_kv_shared_layers;
    size_t head_dim[2], num_key_value_heads[2]; /* of GEMMA4_SLIDING and GEMMA4_FULL layers */
    double rope_theta[2];
    size_t rope_pairs;                            /* of full layers: how many rotate */
    double rms_norm_eps, final_logit_softcapping; /* 0: none */
    bool v_is_k;
    bool is_sliding[MAX_LAYERS], has_kind[2];
} metadata;

/* ------------------------------------------------------------------- keys */

/* Keys that this library reads or checks, and those that change no result of a text decoder. Any
 * other key of the architecture could mean another model. */
static const char *const known[] = {
    "block_count",
    "embedding_length",
    "feed_forward_length",
    "context_length",
    "vocab_size",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.key_length_swa",
    "attention.value_length_swa",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.shared_kv_layers",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.dimension_count",
    "rope.dimension_count_swa",
    "rope.scaling.type",
    "expert_count",
    "expert_used_count",
    "expert_feed_forward_length",
    "final_logit_softcapping",
    "embedding_length_per_layer_input",
};
static const char *const of_other_towers[] = {PREFIX "vision.", PREFIX "audio.", PREFIX "mm."};

static const gemma4_gguf_value *get(const metadata *m, const char *key)
{
    char name[96];
    snprintf(name, sizeof name, PREFIX "%s", key);
    return gemma4_gguf_get(m->gguf, name);
}

static int fail_missing(const metadata *m, const char *key, gemma4_error *error)
{
    return gemma4_fail(error, "%s: expected the key " PREFIX "%s, found none",
                       gemma4_gguf_path(m->gguf), key);
}

static int check_architecture(const metadata *m, gemma4_error *error)
{
    const gemma4_gguf_value *architecture = gemma4_gguf_get(m->gguf, "general.architecture");
    const gemma4_gguf_value *split = gemma4_gguf_get(m->gguf, "split.count");
    int64_t files;
    if (!architecture)
        return gemma4_fail(error, "%s: expected the key general.architecture, found none",
                           gemma4_gguf_path(m->gguf));
    if (!gemma4_gguf_is_string(architecture, "gemma4"))
        return gemma4_gguf_fail(m->gguf, architecture, "\"gemma4\"", error);
    if (split && gemma4_gguf_integer(m->gguf, split, 0, 0, LARGEST, &files, error))
        return -1;
    if (split && files > 1)
        return gemma4_fail(error,
                           "%s: split.count: expected one file, found one of %jd: join them with "
                           "llama-gguf-split --merge",
                           gemma4_gguf_path(m->gguf), (intmax_t)files);
    return 0;
}

static bool is_known(const char *key)
{
    for (size_t i = 0; i < sizeof of_other_towers / sizeof *of_other_towers; i++)
        if (!strncmp(key, of_other_towers[i], strlen(of_other_towers[i])))
            return true;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(key + strlen(PREFIX), known[i]))
            return true;
    return false;
}

static int check_keys(const metadata *m, gemma4_error *error)
{
    const gemma4_gguf_value *scaling = get(m, "rope.scaling.type");
    for (size_t i = 0; i < gemma4_gguf_value_count(m->gguf); i++) {
        const gemma4_gguf_value *value = gemma4_gguf_value_at(m->gguf, i);
        if (!strncmp(value->key, PREFIX, strlen(PREFIX)) && !is_known(value->key))
            return gemma4_fail(error,
                               "%s: %s: expected only keys whose meaning this version knows "
                               "(spec/gguf.md), found this one too",
                               gemma4_gguf_path(m->gguf), value->key);
    }
    return scaling && !gemma4_gguf_is_string(scaling, "none")
               ? gemma4_gguf_fail(m->gguf, scaling, "\"none\"", error)
               : 0;
}

/* ----------------------------------------------------------------- numbers */

/* Item `layer` of an array with one for each layer, or the one number for all of them; NULL where
 * the key is missing. */
static int read_of_layer(const metadata *m, const char *key, size_t layer, size_t *number,
                         gemma4_error *error)
{
    const gemma4_gguf_value *value = get(m, key);
    int64_t read;
    char what[80];
    if (!value)
        return fail_missing(m, key, error);
    snprintf(what, sizeof what, "a number, or an array of %zu for the layers",
             m->num_hidden_layers);
    if (value->is_array && value->count != m->num_hidden_layers)
        return gemma4_gguf_fail(m->gguf, value, what, error);
    if (gemma4_gguf_integer(m->gguf, value, value->is_array ? layer : 0, 1, LARGEST, &read, error))
        return -1;
    *number = (size_t)read;
    return 0;
}

/* The same in all layers of a kind (GEMMA4_SLIDING, GEMMA4_FULL; -1: in all). */
static int read_of_kind(const metadata *m, const char *key, int kind, size_t *number,
                        gemma4_error *error)
{
    size_t found = 0, first = SIZE_MAX;
    for (size_t layer = 0; layer < m->num_hidden_layers; layer++) {
        if (kind >= 0 && (kind == GEMMA4_SLIDING) != m->is_sliding[layer])
            continue;
        if (read_of_layer(m, key, layer, &found, error))
            return -1;
        if (first != SIZE_MAX && found != *number)
            return gemma4_fail(error,
                               "%s: " PREFIX "%s: expected the same in all layers%s, found %zu in "
                               "layer %zu and %zu in layer %zu",
                               gemma4_gguf_path(m->gguf), key,
                               kind < 0                 ? ""
                               : kind == GEMMA4_SLIDING ? " with a window"
                                                        : " without a window",
                               *number, first, found, layer);
        *number = found;
        first = first == SIZE_MAX ? layer : first;
    }
    return 0;
}

static int read_size(const metadata *m, const char *key, size_t *number, gemma4_error *error)
{
    const gemma4_gguf_value *value = get(m, key);
    int64_t read;
    if (!value)
        return fail_missing(m, key, error);
    if (value->is_array)
        return gemma4_gguf_fail(m->gguf, value, "one number", error);
    if (gemma4_gguf_integer(m->gguf, value, 0, 0, LARGEST, &read, error))
        return -1;
    *number = (size_t)read;
    return 0;
}

/* 0 where the key is missing. */
static int read_optional_size(const metadata *m, const char *key, size_t *number,
                              gemma4_error *error)
{
    *number = 0;
    return get(m, key) ? read_size(m, key, number, error) : 0;
}

static int read_number(const metadata *m, const char *key, double *number, gemma4_error *error)
{
    const gemma4_gguf_value *value = get(m, key);
    if (!value)
        return fail_missing(m, key, error);
    return value->is_array ? gemma4_gguf_fail(m->gguf, value, "one number", error)
                           : gemma4_gguf_number(m->gguf, value, 0, number, error);
}

/* A key that may be missing, and else says what another one does. */
static int check_same(const metadata *m, const char *key, size_t expected, gemma4_error *error)
{
    size_t found;
    if (!get(m, key))
        return 0;
    if (read_size(m, key, &found, error))
        return -1;
    return found == expected ? 0
                             : gemma4_fail(error, "%s: " PREFIX "%s: expected %zu, found %zu",
                                           gemma4_gguf_path(m->gguf), key, expected, found);
}

/* ------------------------------------------------------------------ reading */

static int read_sizes(metadata *m, gemma4_error *error)
{
    const struct {
        const char *key;
        size_t *number;
    } sizes[] = {
        {"embedding_length", &m->hidden_size},
        {"context_length", &m->max_position_embeddings},
        {"attention.sliding_window", &m->sliding_window},
        {"expert_used_count", &m->top_k_experts},
        {"expert_feed_forward_length", &m->moe_intermediate_size},
        {"attention.key_length", &m->head_dim[GEMMA4_FULL]},
        {"attention.key_length_swa", &m->head_dim[GEMMA4_SLIDING]},
    };
    if (read_size(m, "block_count", &m->num_hidden_layers, error) ||
        read_optional_size(m, "expert_count", &m->num_experts, error))
        return -1;
    if (m->num_hidden_layers < 1 || m->num_hidden_layers > MAX_LAYERS)
        return gemma4_fail(error, "%s: " PREFIX "block_count: expected 1 to %d, found %zu",
                           gemma4_gguf_path(m->gguf), MAX_LAYERS, m->num_hidden_layers);
    if (m->num_experts == 0)
        return gemma4_fail(error,
                           "%s: expected a model with experts (" PREFIX
                           "expert_count), as 26B-A4B is, found one without",
                           gemma4_gguf_path(m->gguf));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (read_size(m, sizes[i].key, sizes[i].number, error))
            return -1;
    return read_optional_size(m, "embedding_length_per_layer_input",
                              &m->hidden_size_per_layer_input, error) ||
                   read_optional_size(m, "attention.shared_kv_layers", &m->num_kv_shared_layers,
                                      error) ||
                   check_same(m, "attention.value_length", m->head_dim[GEMMA4_FULL], error) ||
                   check_same(m, "attention.value_length_swa", m->head_dim[GEMMA4_SLIDING],
                              error) ||
                   check_same(m, "rope.dimension_count", m->head_dim[GEMMA4_FULL], error) ||
                   check_same(m, "rope.dimension_count_swa", m->head_dim[GEMMA4_SLIDING], error)
               ? -1
               : 0;
}

/* Which layers have a window, and whether V is K in those that have none: then they have no
 * attn_v. */
static int read_layers(metadata *m, gemma4_error *error)
{
    const gemma4_gguf_value *pattern = get(m, "attention.sliding_window_pattern");
    char what[64];
    size_t full = 0, without_v = 0;
    if (!pattern)
        return fail_missing(m, "attention.sliding_window_pattern", error);
    snprintf(what, sizeof what, "an array of %zu booleans", m->num_hidden_layers);
    if (!pattern->is_array || pattern->count != m->num_hidden_layers)
        return gemma4_gguf_fail(m->gguf, pattern, what, error);
    for (size_t layer = 0; layer < m->num_hidden_layers; layer++) {
        int64_t sliding;
        char name[64];
        if (gemma4_gguf_integer(m->gguf, pattern, layer, 0, 1, &sliding, error))
            return -1;
        m->is_sliding[layer] = sliding;
        m->has_kind[sliding ? GEMMA4_SLIDING : GEMMA4_FULL] = true;
        snprintf(name, sizeof name, "blk.%zu.attn_v.weight", layer);
        full += !sliding;
        without_v += !sliding && !gemma4_gguf_find(m->gguf, name);
    }
    m->v_is_k = without_v != 0;
    return without_v == 0 || without_v == full
               ? 0
               : gemma4_fail(
                     error,
                     "%s: expected attn_v in all %zu layers without a window or in none of them, "
                     "found it in %zu",
                     gemma4_gguf_path(m->gguf), full, full - without_v);
}

/* How many lane pairs of full layers rotate: ggml rotates all of them, by angles that are divided
 * by rope_freqs, which is 1 for those that shall rotate and 1e30 for the others. */
static int read_rope(metadata *m, gemma4_error *error)
{
    const gemma4_gguf_tensor *factors = gemma4_gguf_find(m->gguf, "rope_freqs.weight");
    size_t pairs = m->head_dim[GEMMA4_FULL] / 2;
    if (read_number(m, "rope.freq_base", &m->rope_theta[GEMMA4_FULL], error) ||
        read_number(m, "rope.freq_base_swa", &m->rope_theta[GEMMA4_SLIDING], error))
        return -1;
    m->rope_pairs = pairs;
    if (!m->has_kind[GEMMA4_FULL])
        return 0;
    if (!factors || factors->rank != 1 || factors->shape[0] != pairs ||
        factors->type->dtype != GEMMA4_F32)
        return gemma4_fail(error, "%s: rope_freqs.weight: expected a tensor of [%zu] F32, found %s",
                           gemma4_gguf_path(m->gguf), pairs, factors ? "another one" : "none");
    const float *factor = (const float *)factors->data;
    for (m->rope_pairs = 0; m->rope_pairs < pairs && factor[m->rope_pairs] == 1; m->rope_pairs++)
        continue;
    for (size_t i = m->rope_pairs; i < pairs; i++)
        if (!(factor[i] >= 1e30f))
            return gemma4_fail(error,
                               "%s: rope_freqs.weight: expected 1 for the pairs that rotate, then "
                               "1e30, found %g at %zu",
                               gemma4_gguf_path(m->gguf), (double)factor[i], i);
    return 0;
}

static int read_constants(metadata *m, gemma4_error *error)
{
    const gemma4_gguf_tensor *table = gemma4_gguf_find(m->gguf, "token_embd.weight");
    if (!table || table->rank != 2)
        return gemma4_fail(error,
                           "%s: token_embd.weight: expected a tensor with two axes, found %s",
                           gemma4_gguf_path(m->gguf), table ? "another one" : "none");
    m->vocab_size = table->shape[0];
    if (get(m, "final_logit_softcapping") &&
        read_number(m, "final_logit_softcapping", &m->final_logit_softcapping, error))
        return -1;
    return read_number(m, "attention.layer_norm_rms_epsilon", &m->rms_norm_eps, error) ||
                   check_same(m, "vocab_size", m->vocab_size, error)
               ? -1
               : 0;
}

static int read_metadata(metadata *m, gemma4_error *error)
{
    if (check_architecture(m, error) || read_sizes(m, error) || check_keys(m, error) ||
        read_layers(m, error))
        return -1;
    for (int kind = GEMMA4_SLIDING; kind <= GEMMA4_FULL; kind++)
        if (read_of_kind(m, "attention.head_count_kv", kind, &m->num_key_value_heads[kind], error))
            return -1;
    return read_of_kind(m, "attention.head_count", -1, &m->num_attention_heads, error) ||
                   read_of_kind(m, "feed_forward_length", -1, &m->intermediate_size, error) ||
                   read_rope(m, error) || read_constants(m, error)
               ? -1
               : 0;
}

/* ------------------------------------------------------------------ writing */

/* The shortest decimal that is this number in float32, which is what the file holds: 1e-06, not
 * 9.99999997e-07. Integers as config.json has them: 30.0. */
static void write_float(FILE *f, const char *key, double number)
{
    char text[40];
    if (number == floor(number) && fabs(number) < 1e15) {
        fprintf(f, "\"%s\": %.1f", key, number);
        return;
    }
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, number);
        if (strtof(text, NULL) == (float)number)
            break;
    }
    fprintf(f, "\"%s\": %s", key, text);
}

static void write_size(FILE *f, const char *key, size_t number)
{
    fprintf(f, "    \"%s\": %zu,\n", key, number);
}

/* The proportion of rotating pairs: config.json's reader multiplies it with half the head dim, and
 * rounds down. */
static double rotary_factor(const metadata *m)
{
    double half = (double)m->head_dim[GEMMA4_FULL] / 2,
           factor = half > 0 ? (double)m->rope_pairs / half : 0;
    return floor(factor * half) < (double)m->rope_pairs ? nextafter(factor, 2) : factor;
}

static void write_rope(FILE *f, const metadata *m)
{
    fprintf(
        f,
        "    \"rope_parameters\": {\n      \"full_attention\": {\"partial_rotary_factor\": %.17g, ",
        rotary_factor(m));
    write_float(f, "rope_theta", m->rope_theta[GEMMA4_FULL]);
    fprintf(f, ", \"rope_type\": \"proportional\"},\n      \"sliding_attention\": {");
    write_float(f, "rope_theta", m->rope_theta[GEMMA4_SLIDING]);
    fprintf(f, ", \"rope_type\": \"default\"}\n    },\n");
}

static void write_config(FILE *f, const metadata *m)
{
    fprintf(f,
            "{\n  \"architectures\": [\"Gemma4ForConditionalGeneration\"],\n  \"dtype\": "
            "\"float32\",\n  \"model_type\": \"gemma4\",\n"
            "  \"text_config\": {\n    \"attention_bias\": false,\n    \"attention_k_eq_v\": %s,\n "
            "   \"enable_moe_block\": true,\n",
            m->v_is_k ? "true" : "false");
    fprintf(f, "    ");
    if (m->final_logit_softcapping != 0)
        write_float(f, "final_logit_softcapping", m->final_logit_softcapping);
    else
        fprintf(f, "\"final_logit_softcapping\": null");
    fprintf(f, ",\n");
    write_size(f, "global_head_dim", m->head_dim[GEMMA4_FULL]);
    write_size(f, "head_dim", m->head_dim[GEMMA4_SLIDING]);
    fprintf(f, "    \"hidden_activation\": \"gelu_pytorch_tanh\",\n");
    write_size(f, "hidden_size", m->hidden_size);
    write_size(f, "hidden_size_per_layer_input", m->hidden_size_per_layer_input);
    write_size(f, "intermediate_size", m->intermediate_size);
    fprintf(f, "    \"layer_types\": [");
    for (size_t i = 0; i < m->num_hidden_layers; i++)
        fprintf(f, "%s\n      \"%s\"", i ? "," : "",
                m->is_sliding[i] ? "sliding_attention" : "full_attention");
    fprintf(f, "\n    ],\n");
    write_size(f, "max_position_embeddings", m->max_position_embeddings);
    fprintf(f, "    \"model_type\": \"gemma4_text\",\n");
    write_size(f, "moe_intermediate_size", m->moe_intermediate_size);
    write_size(f, "num_attention_heads", m->num_attention_heads);
    write_size(f, "num_experts", m->num_experts);
    write_size(f, "num_global_key_value_heads",
               m->num_key_value_heads[m->has_kind[GEMMA4_FULL] ? GEMMA4_FULL : GEMMA4_SLIDING]);
    write_size(f, "num_hidden_layers", m->num_hidden_layers);
    write_size(f, "num_key_value_heads",
               m->num_key_value_heads[m->has_kind[GEMMA4_SLIDING] ? GEMMA4_SLIDING : GEMMA4_FULL]);
    write_size(f, "num_kv_shared_layers", m->num_kv_shared_layers);
    fprintf(f, "    ");
    write_float(f, "rms_norm_eps", m->rms_norm_eps);
    fprintf(f, ",\n");
    write_rope(f, m);
    write_size(f, "sliding_window", m->sliding_window);
    fprintf(f, "    \"tie_word_embeddings\": true,\n");
    write_size(f, "top_k_experts", m->top_k_experts);
    fprintf(f,
            "    \"use_bidirectional_attention\": \"vision\",\n    \"vocab_size\": %zu\n  },\n  "
            "\"tie_word_embeddings\": true,\n"
            "  \"vocab_size\": %zu\n}\n",
            m->vocab_size, m->vocab_size);
}

int gemma4_gguf_write_config(const gemma4_gguf *gguf, FILE *f, gemma4_error *error)
{
    metadata m = {.gguf = gguf};
    if (read_metadata(&m, error))
        return -1;
    write_config(f, &m);
    return 0;
}

int gemma4_gguf_read_config(const gemma4_gguf *gguf, gemma4_config *config, gemma4_error *error)
{
    gemma4_text text;
    char *name = NULL;
    gemma4_text_open(&text);
    int status = text.f && asprintf(&name, "%s, as config.json", gemma4_gguf_path(gguf)) >= 0
                     ? gemma4_gguf_write_config(gguf, text.f, error)
                     : gemma4_fail(error, "%s: out of memory", gemma4_gguf_path(gguf));
    if (gemma4_text_close(&text) && !status)
        status = gemma4_fail(error, "%s: out of memory", gemma4_gguf_path(gguf));
    if (!status)
        status = gemma4_config_parse(name, text.bytes, text.size, config, error);
    free(text.bytes);
    free(name);
    return status;
}
