#include "config.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "document.h"

/* Upper limits: far above any model of this family, and low enough that every size computed from
 * them fits. */
#define MAX_LAYERS 1024
#define MAX_WIDTH (1 << 18) /* hidden, dense and expert width */
#define MAX_HEADS 1024
#define MAX_HEAD_DIM (1 << 13)
#define MAX_EXPERTS (1 << 12)
#define MAX_VOCAB (1 << 24)
#define MAX_POSITIONS (1 << 24) /* and the sliding window */

/* The largest tensor is a layer's gate_up_proj, [E, 2M, d]. All layers' ones in float64 still fit
 * in a size_t, and so does the KV cache of all positions. */
_Static_assert((uint64_t)MAX_EXPERTS * 2 * MAX_WIDTH * MAX_WIDTH <= SIZE_MAX / 8 / MAX_LAYERS,
               "weights fit");
_Static_assert((uint64_t)MAX_POSITIONS * 2 * MAX_HEADS * MAX_HEAD_DIM <= SIZE_MAX / 8 / MAX_LAYERS,
               "KV cache fits");

/* Absent keys take the defaults of Gemma4TextConfig, the class that reads the published
 * config.json: https://github.com/huggingface/transformers,
 * src/transformers/models/gemma4/configuration_gemma4.py */
#define DEFAULT_NUM_KEY_VALUE_HEADS 4
#define DEFAULT_HEAD_DIM 256
#define DEFAULT_GLOBAL_HEAD_DIM 512
#define DEFAULT_RMS_NORM_EPS 1e-6
#define DEFAULT_FULL_ATTENTION_PERIOD 6 /* layers 5, 11, ... are full */

static const char *const KIND_NAMES[] = {
    [GEMMA4_SLIDING] = "sliding_attention", [GEMMA4_FULL] = "full_attention"};

/* --- plain values --- */

/* An integer from 1 to high. Where it is absent: fallback, or an error where that is 0. */
static int read_size(const gemma4_node *mapping, const char *key, size_t fallback, size_t high,
                     size_t *value, gemma4_error *error)
{
    int64_t number = (int64_t)fallback;
    if (fallback == 0 || gemma4_node_get(mapping, key) != NULL)
        if (gemma4_get_int(mapping, key, 1, (int64_t)high, &number, error) != 0)
            return -1;
    *value = (size_t)number;
    return 0;
}

static const struct {
    const char *key;
    size_t offset, fallback, high;
} SIZES[] = {
    {"hidden_size", offsetof(gemma4_config, hidden_size), 2304, MAX_WIDTH},
    {"num_hidden_layers", offsetof(gemma4_config, num_hidden_layers), 30, MAX_LAYERS},
    {"num_attention_heads", offsetof(gemma4_config, num_attention_heads), 8, MAX_HEADS},
    {"intermediate_size", offsetof(gemma4_config, intermediate_size), 9216, MAX_WIDTH},
    {"num_experts", offsetof(gemma4_config, num_experts), 0, MAX_EXPERTS},
    {"top_k_experts", offsetof(gemma4_config, top_k_experts), 0, MAX_EXPERTS},
    {"moe_intermediate_size", offsetof(gemma4_config, moe_intermediate_size), 0, MAX_WIDTH},
    {"vocab_size", offsetof(gemma4_config, vocab_size), 262144, MAX_VOCAB},
    {"sliding_window", offsetof(gemma4_config, sliding_window), 512, MAX_POSITIONS},
    {"max_position_embeddings", offsetof(gemma4_config, max_position_embeddings), 131072,
     MAX_POSITIONS},
};

static int read_sizes(const gemma4_node *text, gemma4_config *config, gemma4_error *error)
{
    for (size_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++) {
        size_t *value = (size_t *)((char *)config + SIZES[i].offset);
        if (read_size(text, SIZES[i].key, SIZES[i].fallback, SIZES[i].high, value, error) != 0)
            return -1;
    }
    if (config->top_k_experts > config->num_experts)
        return gemma4_node_fail(gemma4_node_get(text, "top_k_experts"), "at most num_experts",
                                error);
    return 0;
}

static int read_constants(const gemma4_node *text, gemma4_config *config, gemma4_error *error)
{
    const gemma4_node *eps = gemma4_node_get(text, "rms_norm_eps");
    config->rms_norm_eps = DEFAULT_RMS_NORM_EPS;
    if (eps != NULL) {
        if (gemma4_node_number(eps, 0, 1, &config->rms_norm_eps, error) != 0)
            return -1;
        if (config->rms_norm_eps <= 0 || config->rms_norm_eps >= 1)
            return gemma4_node_fail(eps, "a number between 0 and 1, both excluded", error);
    }
    const gemma4_node *cap = gemma4_node_get(text, "final_logit_softcapping");
    config->final_logit_softcapping = 0;
    if (cap == NULL || gemma4_node_is_null(cap))
        return 0;
    if (gemma4_node_number(cap, 0, 1e6, &config->final_logit_softcapping, error) != 0)
        return -1;
    if (config->final_logit_softcapping <= 0)
        return gemma4_node_fail(cap, "a number above 0, or null", error);
    return 0;
}

/* --- what this implementation does not compute --- */

/* Fails for an absent key whose default is not supported. */
static int fail_absent(const gemma4_node *text, const char *key, const char *needed,
                       const char *fallback, gemma4_error *error)
{
    return gemma4_fail(error, "%s:%zu: %s: expected %s, found the key absent, which means %s",
                       gemma4_document_name(text->document), text->line, key, needed, fallback);
}

/* The key must be the boolean needed, or be absent where that is its default. */
static int need_bool(const gemma4_node *mapping, const char *key, bool fallback, bool needed,
                     gemma4_error *error)
{
    const gemma4_node *node = gemma4_node_get(mapping, key);
    const char *what = needed ? "true" : "false";
    bool value = fallback;
    if (node == NULL)
        return value == needed
                   ? 0
                   : fail_absent(mapping, key, what, fallback ? "true" : "false", error);
    if (gemma4_node_bool(node, &value, error) != 0)
        return -1;
    return value == needed ? 0 : gemma4_node_fail(node, what, error);
}

/* The key must be a scalar of the given text, or absent. */
static int need_text(const gemma4_node *mapping, const char *key, const char *needed,
                     gemma4_error *error)
{
    const gemma4_node *node = gemma4_node_get(mapping, key);
    if (node == NULL || (node->kind == GEMMA4_SCALAR && strcmp(node->text, needed) == 0))
        return 0;
    return gemma4_node_fail(node, needed, error);
}

static int refuse_unsupported(const gemma4_node *text, gemma4_error *error)
{
    int64_t zero;
    if (gemma4_node_get(text, "hidden_size_per_layer_input") == NULL)
        return fail_absent(text, "hidden_size_per_layer_input", "0 (no per-layer embeddings)",
                           "256", error);
    if (gemma4_get_int(text, "hidden_size_per_layer_input", 0, 0, &zero, error) != 0)
        return -1;
    if (gemma4_node_get(text, "num_kv_shared_layers") != NULL &&
        gemma4_get_int(text, "num_kv_shared_layers", 0, 0, &zero, error) != 0)
        return -1;
    if (need_bool(text, "enable_moe_block", false, true, error) != 0 ||
        need_bool(text, "use_double_wide_mlp", false, false, error) != 0 ||
        need_bool(text, "attention_bias", false, false, error) != 0 ||
        need_text(text, "hidden_activation", "gelu_pytorch_tanh", error) != 0)
        return -1;
    /* "vision" concerns image tokens only, which a text decoder never sees. */
    const gemma4_node *bidirectional = gemma4_node_get(text, "use_bidirectional_attention");
    if (bidirectional != NULL && !gemma4_node_is_null(bidirectional))
        return need_text(text, "use_bidirectional_attention", "vision", error);
    return 0;
}

/* These may stand at the root of the multimodal layout as well. */
static int refuse_unsupported_anywhere(const gemma4_node *mapping, gemma4_error *error)
{
    const gemma4_node *quantization = gemma4_node_get(mapping, "quantization_config");
    if (quantization != NULL && !gemma4_node_is_null(quantization))
        return gemma4_node_fail(quantization, "no quantization", error);
    return need_bool(mapping, "tie_word_embeddings", true, true, error);
}

/* --- layers: kinds --- */

static int read_layer_type(const gemma4_node *node, gemma4_layer_kind *kind, gemma4_error *error)
{
    const char *name;
    if (gemma4_node_string(node, &name, error) != 0)
        return -1;
    if (strcmp(name, KIND_NAMES[GEMMA4_SLIDING]) == 0)
        *kind = GEMMA4_SLIDING;
    else if (strcmp(name, KIND_NAMES[GEMMA4_FULL]) == 0)
        *kind = GEMMA4_FULL;
    else
        return gemma4_node_fail(node, "sliding_attention or full_attention", error);
    return 0;
}

/* The kinds of an absent layer_types: 5 sliding to 1 full, and the last one full whatever the
 * number of layers. */
static void set_default_kinds(gemma4_config *config)
{
    size_t n_layers = config->num_hidden_layers;
    for (size_t i = 0; i < n_layers; i++)
        config->layers[i].kind = (i + 1) % DEFAULT_FULL_ATTENTION_PERIOD == 0 || i == n_layers - 1
                                     ? GEMMA4_FULL
                                     : GEMMA4_SLIDING;
}

static int read_kinds(const gemma4_node *text, gemma4_config *config, gemma4_error *error)
{
    const gemma4_node *types = gemma4_node_get(text, "layer_types");
    if (types == NULL || gemma4_node_is_null(types)) {
        set_default_kinds(config);
        return 0;
    }
    if (types->kind != GEMMA4_SEQUENCE)
        return gemma4_node_fail(types, "a sequence", error);
    if (types->count != config->num_hidden_layers)
        return gemma4_fail(error, "%s:%zu: %s: expected num_hidden_layers = %zu items, found %zu",
                           gemma4_document_name(types->document), types->line, types->path,
                           config->num_hidden_layers, types->count);
    for (size_t i = 0; i < types->count; i++)
        if (read_layer_type(&types->items[i], &config->layers[i].kind, error) != 0)
            return -1;
    /* transformers makes it full, with a warning; an engine that does not would compute another
     * model. */
    if (config->layers[types->count - 1].kind != GEMMA4_FULL)
        return gemma4_node_fail(&types->items[types->count - 1], "full_attention in the last layer",
                                error);
    return 0;
}

/* --- layers: KV heads and head dims --- */

/* The layout of the published config.json: num_key_value_heads and head_dim for sliding layers,
 * keys of their own for full ones. */
static int read_global_heads(const gemma4_node *text, gemma4_config *config, bool k_eq_v,
                             gemma4_error *error)
{
    size_t head_dim, heads = 0;
    if (read_size(text, "global_head_dim", DEFAULT_GLOBAL_HEAD_DIM, MAX_HEAD_DIM, &head_dim,
                  error) != 0)
        return -1;
    const gemma4_node *node = gemma4_node_get(text, "num_global_key_value_heads");
    if (k_eq_v && node != NULL && !gemma4_node_is_null(node))
        if (read_size(text, "num_global_key_value_heads", 0, MAX_HEADS, &heads, error) != 0)
            return -1;
    for (size_t i = 0; i < config->num_hidden_layers; i++) {
        gemma4_layer_config *layer = &config->layers[i];
        if (layer->kind != GEMMA4_FULL)
            continue;
        layer->head_dim = head_dim;
        if (heads != 0)
            layer->num_key_value_heads = heads;
    }
    return 0;
}

/* A layer's index as transformers writes it: decimal, padded with zeros to the widest one. */
static int parse_layer_index(const gemma4_node *per_layer, size_t item, size_t n_layers,
                             size_t *index, gemma4_error *error)
{
    const char *key = per_layer->keys[item];
    size_t length = strlen(key);
    if (length >= 1 && length <= 8 && strspn(key, "0123456789") == length) {
        *index = strtoul(key, NULL, 10);
        if (*index < n_layers)
            return 0;
    }
    return gemma4_fail(error,
                       "%s:%zu: %s: expected layer indices from 0 to %zu as keys, found \"%.40s\"",
                       gemma4_document_name(per_layer->document), per_layer->items[item].line,
                       per_layer->path, n_layers - 1, key);
}

/* What one entry of per_layer_config overrides. */
static int read_override(const gemma4_node *override, gemma4_layer_config *layer,
                         gemma4_error *error)
{
    static const char *const allowed[] = {"head_dim", "num_key_value_heads", NULL};
    if (gemma4_node_only_keys(override, allowed, error) != 0)
        return -1;
    if (read_size(override, "head_dim", layer->head_dim, MAX_HEAD_DIM, &layer->head_dim, error) !=
        0)
        return -1;
    return read_size(override, "num_key_value_heads", layer->num_key_value_heads, MAX_HEADS,
                     &layer->num_key_value_heads, error);
}

/* The layout that recent versions of transformers write: overrides by layer, whatever its kind. */
static int read_per_layer_config(const gemma4_node *per_layer, gemma4_config *config,
                                 gemma4_error *error)
{
    bool seen[MAX_LAYERS] = {false}; /* "5" and "05" are two keys, but one layer */
    if (gemma4_node_is_null(per_layer))
        return 0;
    if (per_layer->kind != GEMMA4_MAPPING)
        return gemma4_node_fail(per_layer, "a mapping", error);
    for (size_t i = 0; i < per_layer->count; i++) {
        size_t index = 0;
        if (parse_layer_index(per_layer, i, config->num_hidden_layers, &index, error) != 0)
            return -1;
        if (seen[index])
            return gemma4_node_fail(&per_layer->items[i], "every layer once", error);
        seen[index] = true;
        if (read_override(&per_layer->items[i], &config->layers[index], error) != 0)
            return -1;
    }
    return 0;
}

static int check_heads(const gemma4_node *text, const gemma4_config *config, gemma4_error *error)
{
    const char *name = gemma4_document_name(text->document);
    for (size_t i = 0; i < config->num_hidden_layers; i++) {
        const gemma4_layer_config *layer = &config->layers[i];
        if (layer->head_dim % 2 != 0)
            return gemma4_fail(error,
                               "%s: head_dim of layer %zu: expected an even number, found %zu",
                               name, i, layer->head_dim);
        if (config->num_attention_heads % layer->num_key_value_heads != 0)
            return gemma4_fail(error,
                               "%s: num_key_value_heads of layer %zu: expected a divisor of "
                               "num_attention_heads = %zu, found %zu",
                               name, i, config->num_attention_heads, layer->num_key_value_heads);
    }
    return 0;
}

static int read_heads(const gemma4_node *text, gemma4_config *config, gemma4_error *error)
{
    size_t heads, head_dim;
    bool k_eq_v = false;
    const gemma4_node *node = gemma4_node_get(text, "attention_k_eq_v");
    if (node != NULL && gemma4_node_bool(node, &k_eq_v, error) != 0)
        return -1;
    if (read_size(text, "num_key_value_heads", DEFAULT_NUM_KEY_VALUE_HEADS, MAX_HEADS, &heads,
                  error) != 0 ||
        read_size(text, "head_dim", DEFAULT_HEAD_DIM, MAX_HEAD_DIM, &head_dim, error) != 0)
        return -1;
    for (size_t i = 0; i < config->num_hidden_layers; i++) {
        config->layers[i].num_key_value_heads = heads;
        config->layers[i].head_dim = head_dim;
        config->layers[i].v_is_k = k_eq_v && config->layers[i].kind == GEMMA4_FULL;
    }
    /* Where per_layer_config stands, even null, transformers reads none of the global_ keys. */
    const gemma4_node *per_layer = gemma4_node_get(text, "per_layer_config");
    int status = per_layer != NULL ? read_per_layer_config(per_layer, config, error)
                                   : read_global_heads(text, config, k_eq_v, error);
    return status != 0 ? -1 : check_heads(text, config, error);
}

/* --- layers: RoPE --- */

typedef struct rope_config {
    double theta;
    double rotated; /* the proportion of the lane pairs that rotate */
} rope_config;

static int read_rope_kind(const gemma4_node *node, rope_config *rope, gemma4_error *error)
{
    static const char *const allowed[] = {"rope_type", "rope_theta", "partial_rotary_factor",
                                          "factor", NULL};
    const char *type = "default";
    double factor;
    rope->rotated = 1;
    if (gemma4_node_only_keys(node, allowed, error) != 0 ||
        gemma4_get_number(node, "rope_theta", 1, 1e15, &rope->theta, error) != 0)
        return -1;
    if (gemma4_node_get(node, "rope_type") != NULL &&
        gemma4_get_string(node, "rope_type", &type, error) != 0)
        return -1;
    if (strcmp(type, "default") != 0 && strcmp(type, "proportional") != 0)
        return gemma4_node_fail(gemma4_node_get(node, "rope_type"), "default or proportional",
                                error);
    if (gemma4_node_get(node, "factor") != NULL &&
        gemma4_get_number(node, "factor", 1, 1, &factor, error) != 0)
        return -1;
    /* The default type rotates every pair; transformers would ignore a factor here, other engines
     * might not. */
    double low = strcmp(type, "default") == 0 ? 1 : 0;
    if (gemma4_node_get(node, "partial_rotary_factor") != NULL)
        return gemma4_get_number(node, "partial_rotary_factor", low, 1, &rope->rotated, error);
    return 0;
}

static bool has_kind(const gemma4_config *config, gemma4_layer_kind kind)
{
    for (size_t i = 0; i < config->num_hidden_layers; i++)
        if (config->layers[i].kind == kind)
            return true;
    return false;
}

/* rope_parameters holds a mapping for every kind of layer that there is. */
static int read_rope_kinds(const gemma4_node *parameters, const gemma4_config *config,
                           rope_config ropes[2], gemma4_error *error)
{
    static const char *const allowed[] = {"sliding_attention", "full_attention", NULL};
    if (gemma4_node_only_keys(parameters, allowed, error) != 0)
        return -1;
    for (int kind = GEMMA4_SLIDING; kind <= GEMMA4_FULL; kind++) {
        const gemma4_node *node;
        if (!has_kind(config, (gemma4_layer_kind)kind))
            continue;
        if (gemma4_get_node(parameters, KIND_NAMES[kind], GEMMA4_MAPPING, &node, error) != 0 ||
            read_rope_kind(node, &ropes[kind], error) != 0)
            return -1;
    }
    return 0;
}

static int read_rope(const gemma4_node *text, gemma4_config *config, gemma4_error *error)
{
    rope_config ropes[] = {[GEMMA4_SLIDING] = {1e4, 1}, [GEMMA4_FULL] = {1e6, 0.25}};
    const gemma4_node *parameters = gemma4_node_get(text, "rope_parameters");
    if (parameters != NULL && !gemma4_node_is_null(parameters))
        if (read_rope_kinds(parameters, config, ropes, error) != 0)
            return -1;
    for (size_t i = 0; i < config->num_hidden_layers; i++) {
        gemma4_layer_config *layer = &config->layers[i];
        const rope_config *rope = &ropes[layer->kind];
        layer->rope_theta = rope->theta;
        layer->rope_pairs = (size_t)floor(rope->rotated * (double)layer->head_dim / 2);
    }
    return 0;
}

/* --- the file --- */

/* Finds the text decoder's mapping by the root's model_type. */
static int find_text_config(const gemma4_node *root, const gemma4_node **text, gemma4_error *error)
{
    const char *type;
    if (gemma4_get_string(root, "model_type", &type, error) != 0)
        return -1;
    if (strcmp(type, "gemma4_text") == 0) {
        *text = root;
        return 0;
    }
    if (strcmp(type, "gemma4") != 0)
        return gemma4_node_fail(gemma4_node_get(root, "model_type"), "gemma4 or gemma4_text",
                                error);
    if (gemma4_get_node(root, "text_config", GEMMA4_MAPPING, text, error) != 0 ||
        refuse_unsupported_anywhere(root, error) != 0)
        return -1;
    return need_text(*text, "model_type", "gemma4_text", error);
}

static int read_layers(const gemma4_node *text, gemma4_config *config, gemma4_error *error)
{
    config->layers = calloc(config->num_hidden_layers, sizeof *config->layers);
    if (config->layers == NULL)
        return gemma4_fail(error, "%s: out of memory", gemma4_document_name(text->document));
    if (read_kinds(text, config, error) != 0 || read_heads(text, config, error) != 0)
        return -1;
    return read_rope(text, config, error);
}

static int read_root(const gemma4_node *root, gemma4_config *config, gemma4_error *error)
{
    const gemma4_node *text;
    if (find_text_config(root, &text, error) != 0 ||
        refuse_unsupported_anywhere(text, error) != 0 || refuse_unsupported(text, error) != 0)
        return -1;
    if (read_sizes(text, config, error) != 0 || read_constants(text, config, error) != 0)
        return -1;
    return read_layers(text, config, error);
}

/* Frees the document, which may be NULL. */
static int read_document(gemma4_document *document, gemma4_config *config, gemma4_error *error)
{
    memset(config, 0, sizeof *config);
    if (document == NULL)
        return -1;
    int status = read_root(gemma4_document_root(document), config, error);
    gemma4_document_free(document);
    if (status != 0)
        gemma4_config_free(config);
    return status;
}

int gemma4_config_read(const char *path, gemma4_config *config, gemma4_error *error)
{
    return read_document(gemma4_document_read(path, error), config, error);
}

int gemma4_config_parse(const char *name, const char *text, size_t size, gemma4_config *config,
                        gemma4_error *error)
{
    return read_document(gemma4_document_parse(name, text, size, error), config, error);
}

void gemma4_config_free(gemma4_config *config)
{
    free(config->layers);
    memset(config, 0, sizeof *config);
}
