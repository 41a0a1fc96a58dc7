#include "map.h"

#include "near_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT "gemma4-map"
#define EXPECTED_LAYERS "sliding, full, 'all but last', or a list of layers"
enum { VERSION = 1, LAYERS_MAX = 100000, WRITTEN_SIZE = 64 };

/* --- the tap --- */

/* "layers.{N}.attn.q" as "layers.0.attn.q", and which layers it says. */
static bool read_place(const char *name, char plain[WRITTEN_SIZE], gemma4_map_where *where)
{
    static const struct {
        const char *text;
        gemma4_map_where where;
    } places[] = {{"layers.{N}.", GEMMA4_MAP_EACH}, {"layers.{last}.", GEMMA4_MAP_LAST}};
    *where = GEMMA4_MAP_ONE;
    if (strlen(name) >= WRITTEN_SIZE)
        return false;
    snprintf(plain, WRITTEN_SIZE, "%s", name);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        size_t length = strlen(places[i].text);
        if (strncmp(name, places[i].text, length))
            continue;
        snprintf(plain, WRITTEN_SIZE, "layers.0.%s", name + length);
        *where = places[i].where;
    }
    return true;
}

static int read_target(const gemma4_node *taps, size_t index, gemma4_map_rule *rule,
                       gemma4_error *error)
{
    char plain[WRITTEN_SIZE] = "", near[GEMMA4_TAP_NAME_SIZE]; /* a name that is too long is none */
    const char *name = taps->keys[index];
    rule->name = name;
    rule->target = !strcmp(name, "tokens")      ? GEMMA4_MAP_TOKENS
                   : !strcmp(name, "positions") ? GEMMA4_MAP_POSITIONS
                                                : GEMMA4_MAP_TAP;
    if (rule->target != GEMMA4_MAP_TAP)
        return 0;
    if (read_place(name, plain, &rule->where) && gemma4_tap_parse(plain, &rule->tap, &rule->layer))
        return 0;
    bool meant = gemma4_near_name(plain, near) != NULL;
    return gemma4_fail(error,
                       "%s:%zu: taps: expected a tap's name (spec/taps.md), layers.{N} before "
                       "those of layers, found '%.80s'%s%s%s",
                       gemma4_document_name(taps->document), taps->items[index].line, name,
                       meant ? ": did you mean " : "", meant ? near : "", meant ? "?" : "");
}

/* --- the other keys of a rule --- */

static int read_from(gemma4_map_rule *rule, gemma4_error *error)
{
    if (gemma4_get_string(rule->node, "from", &rule->from, error))
        return -1;
    const gemma4_node *node = gemma4_node_get(rule->node, "from");
    size_t length = strlen(rule->from);
    bool layer = false;
    if (length == 0 || length > 500)
        return gemma4_node_fail(node, "a tensor's name of 1 to 500 bytes", error);
    for (const char *at = rule->from; (at = strstr(at, "{N")) != NULL; at += 2) {
        bool shifted =
            (at[2] == '+' || at[2] == '-') && at[3] >= '0' && at[3] <= '9' && at[4] == '}';
        if (at[2] != '}' && !shifted)
            return gemma4_node_fail(node, "{N}, {N+1} or {N-1} for the layer", error);
        layer = true;
    }
    if (strstr(rule->from, "{n") || strstr(rule->from, "{l"))
        return gemma4_node_fail(node, "{N} for the layer, {L} for how many there are", error);
    bool axis = false;
    for (size_t i = 0; i < rule->axis_count; i++)
        axis |= rule->axes[i].letters[0] == 'n' || rule->axes[i].letters[0] == 'i';
    if (rule->where == GEMMA4_MAP_EACH && !layer && !axis)
        return gemma4_node_fail(node, "{N} for the layer, or an axis n of layers", error);
    if (rule->where != GEMMA4_MAP_EACH && layer)
        return gemma4_node_fail(node, "no {N} in a rule that is for one layer or for none", error);
    return 0;
}

const char *gemma4_map_kind_name(gemma4_map_kind kind)
{
    static const char *const names[] = {"", "sliding", "full", "all but last"};
    return names[kind];
}

static int read_layers(gemma4_map_rule *rule, gemma4_error *error)
{
    const gemma4_node *node = gemma4_node_get(rule->node, "layers");
    if (!node)
        return 0;
    if (rule->where != GEMMA4_MAP_EACH)
        return gemma4_node_fail(node, "layers only beside {N}", error);
    if (node->kind == GEMMA4_SCALAR) {
        for (int kind = GEMMA4_MAP_SLIDING; kind <= GEMMA4_MAP_BUT_LAST; kind++)
            if (!strcmp(node->text, gemma4_map_kind_name((gemma4_map_kind)kind)))
                rule->kind = (gemma4_map_kind)kind;
        return rule->kind ? 0 : gemma4_node_fail(node, EXPECTED_LAYERS, error);
    }
    if (node->kind != GEMMA4_SEQUENCE || node->count == 0)
        return gemma4_node_fail(node, EXPECTED_LAYERS, error);
    if (!(rule->layers = calloc(node->count, sizeof *rule->layers)))
        return gemma4_fail(error, "%s: out of memory", gemma4_document_name(node->document));
    for (size_t i = 0; i < node->count; i++) {
        int64_t layer;
        if (gemma4_node_int(&node->items[i], 0, LAYERS_MAX, &layer, error))
            return -1;
        for (size_t j = 0; j < i; j++)
            if (rule->layers[j] == (size_t)layer)
                return gemma4_node_fail(&node->items[i], "every layer once", error);
        rule->layers[rule->layer_count++] = (size_t)layer;
    }
    return 0;
}

static int read_rows(gemma4_map_rule *rule, gemma4_error *error)
{
    const gemma4_node *node = gemma4_node_get(rule->node, "rows");
    if (!node)
        return 0;
    if (rule->target != GEMMA4_MAP_TAP)
        return gemma4_node_fail(node, "rows only for taps", error);
    if (node->kind == GEMMA4_SCALAR) {
        rule->rows = !strcmp(node->text, "last") ? GEMMA4_MAP_LAST_ROWS : GEMMA4_MAP_ALL_ROWS;
        return rule->rows ? 0 : gemma4_node_fail(node, "last, or a list of positions", error);
    }
    if (node->kind != GEMMA4_SEQUENCE || node->count == 0)
        return gemma4_node_fail(node, "last, or a list of positions", error);
    rule->rows = GEMMA4_MAP_LISTED_ROWS;
    if (!(rule->positions = calloc(node->count, sizeof *rule->positions)))
        return gemma4_fail(error, "%s: out of memory", gemma4_document_name(node->document));
    for (size_t i = 0; i < node->count; i++)
        if (gemma4_node_int(&node->items[i], INT32_MIN, INT32_MAX,
                            &rule->positions[rule->position_count++], error))
            return -1;
    return 0;
}

static int read_scale(gemma4_map_rule *rule, gemma4_error *error)
{
    const gemma4_node *node = gemma4_node_get(rule->node, "scale");
    if (!node)
        return 0;
    if (gemma4_node_number(node, -1e30, 1e30, &rule->scale, error))
        return -1;
    if (rule->scale == 0)
        return gemma4_node_fail(node, "a factor other than 0", error);
    if (rule->target != GEMMA4_MAP_TAP || gemma4_tap_describe(rule->tap)->ids)
        return gemma4_node_fail(node, "a factor of reals only, not of ids", error);
    rule->scale = rule->scale == 1 ? 0 : rule->scale;
    return 0;
}

/* split: [attn.q, attn.k, attn.v]: what stands behind one another on the axis that holds all of the
 * tap's own. */
static int read_split(gemma4_map_rule *rule, gemma4_error *error)
{
    const gemma4_node *node = gemma4_node_get(rule->node, "split");
    bool own = false;
    if (!node)
        return 0;
    if (node->kind != GEMMA4_SEQUENCE || node->count < 2 || node->count > GEMMA4_MAP_SPLIT_MAX)
        return gemma4_node_fail(node, "two to four taps, as [attn.q, attn.k, attn.v]", error);
    for (size_t i = 0; i < node->count; i++) {
        char plain[WRITTEN_SIZE];
        size_t layer;
        gemma4_tap *tap = &rule->split[rule->split_count++];
        snprintf(plain, sizeof plain, "layers.0.%.40s",
                 node->items[i].kind == GEMMA4_SCALAR ? node->items[i].text : "");
        if (!gemma4_tap_parse(plain, tap, &layer) || strchr(gemma4_tap_describe(*tap)->shape, 'T'))
            return gemma4_node_fail(&node->items[i],
                                    "the name of a layer's tap without \"layers.N.\"", error);
        own |= rule->target == GEMMA4_MAP_TAP && *tap == rule->tap;
        for (size_t j = 0; j + 1 < rule->split_count; j++)
            if (rule->split[j] == *tap)
                return gemma4_node_fail(&node->items[i], "every tap once", error);
    }
    if (!own)
        return gemma4_node_fail(node, "the rule's own tap among them", error);
    for (size_t i = 0; i < rule->axis_count; i++)
        if (strlen(rule->axes[i].letters) == strlen(gemma4_tap_describe(rule->tap)->shape) &&
            rule->axes[i].letters[0] != 't' && !strchr("1ni", rule->axes[i].letters[0]) &&
            rule->axes[i].cut == GEMMA4_MAP_WHOLE)
            return 0;
    return rule->has_axes
               ? gemma4_node_fail(
                     node, "an axis of all that the tap has beside the position, as 'h.d'", error)
               : 0;
}

static int read_dtype(gemma4_map_rule *rule, gemma4_error *error)
{
    const gemma4_node *node = gemma4_node_get(rule->node, "dtype");
    const char *text;
    if (!node)
        return 0;
    if (gemma4_node_string(node, &text, error))
        return -1;
    rule->bfloat16 = !strcmp(text, "bfloat16");
    return rule->bfloat16 ? 0
                          : gemma4_node_fail(
                                node, "bfloat16: other types say themselves what they are", error);
}

static int read_rule(gemma4_map_rule *rule, gemma4_error *error)
{
    static const char *const keys[] = {"from", "axes",  "slice", "split", "layers",
                                       "rows", "scale", "dtype", NULL};
    if (gemma4_node_only_keys(rule->node, keys, error) || gemma4_map_read_axes(rule, error) ||
        read_from(rule, error) || read_layers(rule, error) || read_rows(rule, error) ||
        read_scale(rule, error) || read_split(rule, error))
        return -1;
    return read_dtype(rule, error);
}

/* --- the map --- */

/* A tap's value is one rule, or a list of them. */
static int read_tap(gemma4_map *map, const gemma4_node *taps, size_t index, gemma4_error *error)
{
    const gemma4_node *value = &taps->items[index];
    bool list = value->kind == GEMMA4_SEQUENCE;
    size_t count = list ? value->count : 1;
    if (count == 0)
        return gemma4_node_fail(value, "a rule, or a list of rules", error);
    gemma4_map_rule *rules = realloc(map->rules, (map->rule_count + count) * sizeof *rules);
    if (!rules)
        return gemma4_fail(error, "%s: out of memory", map->path);
    map->rules = rules;
    for (size_t i = 0; i < count; i++) {
        gemma4_map_rule *rule = &rules[map->rule_count++];
        memset(rule, 0, sizeof *rule);
        rule->node = list ? &value->items[i] : value;
        if (read_target(taps, index, rule, error) || read_rule(rule, error))
            return -1;
        for (size_t j = 0; j < i; j++)
            if (!strcmp(rule[-(ptrdiff_t)j - 1].from, rule->from) && !rule->layer_count &&
                !rule->kind)
                return gemma4_node_fail(gemma4_node_get(rule->node, "from"),
                                        "a tensor that no other rule of this tap takes", error);
    }
    return 0;
}

static int read_ignore(gemma4_map *map, const gemma4_node *node, gemma4_error *error)
{
    if (!node)
        return 0;
    if (node->kind != GEMMA4_SEQUENCE)
        return gemma4_node_fail(node, "a list of patterns", error);
    if (!(map->ignore = calloc(node->count + 1, sizeof *map->ignore)))
        return gemma4_fail(error, "%s: out of memory", map->path);
    for (size_t i = 0; i < node->count; i++)
        if (gemma4_node_string(&node->items[i], &map->ignore[map->ignore_count++], error))
            return -1;
    return 0;
}

static int read_optional(const gemma4_node *root, const char *key, const char **text,
                         gemma4_error *error)
{
    const gemma4_node *node = gemma4_node_get(root, key);
    return node ? gemma4_node_string(node, text, error) : 0;
}

static int read_map(gemma4_map *map, gemma4_error *error)
{
    static const char *const keys[] = {"format", "version", "engine", "dtype",
                                       "seen",   "ignore",  "taps",   NULL};
    const gemma4_node *root = gemma4_document_root(map->document), *taps;
    const char *format;
    int64_t version;
    if (gemma4_node_only_keys(root, keys, error) ||
        gemma4_get_string(root, "format", &format, error))
        return -1;
    if (strcmp(format, FORMAT))
        return gemma4_node_fail(gemma4_node_get(root, "format"), FORMAT, error);
    if (gemma4_get_int(root, "version", VERSION, VERSION, &version, error) ||
        gemma4_get_string(root, "engine", &map->engine, error) ||
        read_optional(root, "dtype", &map->dtype, error) ||
        read_optional(root, "seen", &map->seen, error) ||
        read_ignore(map, gemma4_node_get(root, "ignore"), error) ||
        gemma4_get_node(root, "taps", GEMMA4_MAPPING, &taps, error))
        return -1;
    for (size_t i = 0; i < taps->count; i++)
        if (read_tap(map, taps, i, error))
            return -1;
    return map->rule_count ? 0 : gemma4_node_fail(taps, "at least one rule", error);
}

gemma4_map *gemma4_map_read(const char *path, gemma4_error *error)
{
    gemma4_map *map = calloc(1, sizeof *map);
    if (!map) {
        gemma4_fail(error, "%s: out of memory", path);
        return NULL;
    }
    if (!(map->document = gemma4_document_read(path, error))) {
        gemma4_map_free(map);
        return NULL;
    }
    map->path = gemma4_document_name(map->document);
    if (read_map(map, error) == 0)
        return map;
    gemma4_map_free(map);
    return NULL;
}

void gemma4_map_free(gemma4_map *map)
{
    if (!map)
        return;
    for (size_t i = 0; i < map->rule_count; i++) {
        free(map->rules[i].layers);
        free(map->rules[i].positions);
    }
    free(map->rules);
    free(map->ignore);
    gemma4_document_free(map->document);
    free(map);
}
