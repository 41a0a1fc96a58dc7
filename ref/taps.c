/* The table of taps.h as data, and what follows from it for a model. */
#include "taps.h"
#include "config.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* The words of the table's columns: a misspelt one does not compile. */
enum { VALUES_REAL, VALUES_IDS };
enum { NEED_REQUIRED, NEED_OPTIONAL, NEED_UNLESS_V_IS_K };
enum { MODELS_ANY, MODELS_EXPERTS, MODELS_NONE };
enum { READER_WEIGHTS, READER_OTHER };

#define TAP_INFO(id, name_, shape_, values_, need_, where_, heads_, sum_, each_, shared_, rows_, \
                 feeds_)                                                                         \
    [GEMMA4_TAP_##id] = {.name = name_,                                                          \
                         .shape = shape_,                                                        \
                         .ids = VALUES_##values_ == VALUES_IDS,                                  \
                         .optional = NEED_##need_ == NEED_OPTIONAL,                              \
                         .unless_v_is_k = NEED_##need_ == NEED_UNLESS_V_IS_K,                    \
                         .of_experts = MODELS_##where_ == MODELS_EXPERTS,                        \
                         .derived = MODELS_##where_ == MODELS_NONE,                              \
                         .heads = heads_,                                                        \
                         .sum = sum_,                                                            \
                         .each_roundings = each_,                                                \
                         .shared_roundings = shared_,                                            \
                         .rows = GEMMA4_ROWS_##rows_,                                            \
                         .feeds_weights = READER_##feeds_ == READER_WEIGHTS,                     \
                         .per_layer = GEMMA4_TAP_##id >= GEMMA4_TAP_LAYER_INPUT &&               \
                                      GEMMA4_TAP_##id <= GEMMA4_TAP_LAYER_OUTPUT},
static const gemma4_tap_info taps[GEMMA4_TAP_COUNT] = {GEMMA4_TAPS(TAP_INFO)};
#undef TAP_INFO

static const char layers_prefix[] = "layers.";

const gemma4_tap_info *gemma4_tap_describe(gemma4_tap tap)
{
    assert(tap < GEMMA4_TAP_COUNT);
    return &taps[tap];
}

const char *gemma4_tap_name(gemma4_tap tap, size_t layer, char name[GEMMA4_TAP_NAME_SIZE])
{
    const gemma4_tap_info *info = gemma4_tap_describe(tap);
    if (info->per_layer)
        snprintf(name, GEMMA4_TAP_NAME_SIZE, "%s%zu.%s", layers_prefix, layer, info->name);
    else
        snprintf(name, GEMMA4_TAP_NAME_SIZE, "%s", info->name);
    return name;
}

/* Reads "N." with N in decimal, without leading zeros, so that a tap has one name only. Returns
 * what follows the dot, NULL where the text is anything else or N does not fit. */
static const char *parse_layer(const char *text, size_t *layer)
{
    const char *digit = text;
    size_t value = 0;
    for (; *digit >= '0' && *digit <= '9'; digit++) {
        size_t units = (size_t)(*digit - '0');
        if (value > (SIZE_MAX - units) / 10)
            return NULL;
        value = value * 10 + units;
    }
    bool leading_zero = text[0] == '0' && digit - text > 1;
    if (digit == text || leading_zero || *digit != '.')
        return NULL;
    *layer = value;
    return digit + 1;
}

bool gemma4_tap_parse(const char *name, gemma4_tap *tap, size_t *layer)
{
    size_t index = 0;
    bool per_layer = strncmp(name, layers_prefix, sizeof layers_prefix - 1) == 0;
    if (per_layer) {
        name = parse_layer(name + sizeof layers_prefix - 1, &index);
        if (!name)
            return false;
    }
    for (int i = 0; i < GEMMA4_TAP_COUNT; i++) {
        if (taps[i].per_layer == per_layer && strcmp(taps[i].name, name) == 0) {
            *tap = (gemma4_tap)i;
            *layer = index;
            return true;
        }
    }
    return false;
}

/* The length of the axis that a letter of the table stands for. */
static size_t axis_length(const gemma4_config *config, char letter, size_t layer, size_t positions)
{
    switch (letter) {
    case '1': return 1;
    case 'd': return config->hidden_size;
    case 'H': return config->num_attention_heads;
    case 'G': return config->layers[layer].num_key_value_heads;
    case 'D': return config->layers[layer].head_dim;
    case 'T': return positions;
    case 'F': return config->intermediate_size;
    case 'E': return config->num_experts;
    case 'K': return config->top_k_experts;
    case 'M': return config->moe_intermediate_size;
    case 'V': return config->vocab_size;
    case 'N': return 0;
    }
    assert(!"a letter of the tap table that is no axis");
    return 0;
}

size_t gemma4_tap_dims(const gemma4_config *config, gemma4_tap tap, size_t layer, size_t positions,
                       size_t dims[2])
{
    const char *shape = gemma4_tap_describe(tap)->shape;
    size_t rank = strlen(shape);
    dims[0] = axis_length(config, shape[0], layer, positions);
    dims[1] = rank == 2 ? axis_length(config, shape[1], layer, positions) : 1;
    return rank;
}

size_t gemma4_tap_heads(const gemma4_config *config, gemma4_tap tap, size_t layer)
{
    return axis_length(config, gemma4_tap_describe(tap)->heads, layer, 0);
}

size_t gemma4_tap_sum_length(const gemma4_config *config, gemma4_tap tap, size_t layer,
                             size_t positions)
{
    const char *axes = gemma4_tap_describe(tap)->sum;
    size_t length = *axes ? 1 : 0;
    for (; *axes; axes++)
        length *= axis_length(config, *axes, layer, positions);
    return length;
}

bool gemma4_tap_exists(const gemma4_config *config, gemma4_tap tap, size_t layer)
{
    const gemma4_tap_info *info = gemma4_tap_describe(tap);
    return !info->derived && (!info->per_layer || layer < config->num_hidden_layers) &&
           (!info->of_experts || config->num_experts > 0);
}

bool gemma4_tap_required(const gemma4_config *config, gemma4_tap tap, size_t layer)
{
    const gemma4_tap_info *info = gemma4_tap_describe(tap);
    return gemma4_tap_exists(config, tap, layer) && !info->optional &&
           !(info->unless_v_is_k && config->layers[layer].v_is_k);
}
