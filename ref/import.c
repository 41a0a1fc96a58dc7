/* Applying a map: each rule looks for its tensor in each layer and each pass; what is found is put
 * together along positions, and shown to activations.c as a source of tensors under the taps'
 * names. */
#include "config.h"
#include "import_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *gemma4_import_path(const gemma4_import_state *s)
{
    return gemma4_pass_path(s->foreign.passes[0]);
}

const gemma4_import_item *gemma4_import_find(const gemma4_import_state *s, const char *name)
{
    for (size_t i = 0; i < s->item_count; i++)
        if (!strcmp(s->items[i].name, name))
            return &s->items[i];
    return NULL;
}

static void free_item(gemma4_import_item *item)
{
    free(item->parts);
    free(item->pass_of);
    free(item->rows);
}

static void import_close(void *context)
{
    gemma4_import_state *s = context;
    for (size_t i = 0; i < s->item_count; i++)
        free_item(&s->items[i]);
    for (size_t p = 0; s->taken && p < s->foreign.count; p++)
        free(s->taken[p]);
    free(s->taken);
    free(s->items);
    free(s->lengths);
    free(s->log.uses);
    free(s->log.untaken);
    gemma4_foreign_close(&s->foreign);
    free(s);
}

/* --- finding tensors --- */

/* The tensor of the pass that a rule takes in that layer: *index, or the pass' count where there is
 * none. Two that match fail. */
static int find_tensor(const gemma4_map_rule *rule, const gemma4_config *config, size_t layer,
                       const gemma4_pass *pass, size_t *index, gemma4_error *error)
{
    size_t count = gemma4_pass_count(pass);
    *index = count;
    for (size_t i = 0; i < count; i++) {
        if (!gemma4_map_matches(rule, config, layer, gemma4_pass_at(pass, i)->name))
            continue;
        if (*index < count)
            return gemma4_fail(error,
                               "%s: rule %s: expected one tensor that matches '%.80s' in layer "
                               "%zu, found %s and %s",
                               gemma4_pass_path(pass), rule->name, rule->from, layer,
                               gemma4_pass_at(pass, *index)->name, gemma4_pass_at(pass, i)->name);
        *index = i;
    }
    return 0;
}

static int add_part(gemma4_import_item *item, const gemma4_import_state *s,
                    const gemma4_import_context *context, size_t pass_index,
                    const gemma4_stored_tensor *tensor, gemma4_error *error)
{
    gemma4_import_part *parts = realloc(item->parts, (item->part_count + 1) * sizeof *parts);
    if (parts)
        item->parts = parts;
    size_t *pass_of = realloc(item->pass_of, (item->part_count + 1) * sizeof *pass_of);
    if (pass_of)
        item->pass_of = pass_of;
    if (!parts || !pass_of)
        return gemma4_fail(error, "%s: out of memory", gemma4_import_path(s));
    item->pass_of[item->part_count] = pass_index;
    return gemma4_import_fit(context, &s->map->rules[item->rule], item->layer, item->place,
                             s->foreign.passes[pass_index], tensor, &parts[item->part_count++],
                             error);
}

/* Parts of one tap must be alike but for their rows; keys, which grow from pass to pass, may be. */
static int check_alike(const gemma4_import_state *s, const gemma4_import_item *item,
                       gemma4_error *error)
{
    const gemma4_import_part *first = &item->parts[0];
    for (size_t i = 1; i < item->part_count; i++) {
        const gemma4_import_part *part = &item->parts[i];
        bool alike = part->element == first->element && part->rank == first->rank;
        for (size_t l = 1; l < part->rank; l++)
            alike &= part->letters[l].length == first->letters[l].length ||
                     (s->map->rules[item->rule].target == GEMMA4_MAP_TAP &&
                      gemma4_tap_describe(s->map->rules[item->rule].tap)->shape[l - 1] == 'T');
        if (!alike)
            return gemma4_fail(error,
                               "%s: %s: rule %s: expected the type and lengths of %s, found others",
                               gemma4_pass_path(part->pass), part->tensor->name,
                               s->map->rules[item->rule].name, gemma4_pass_path(first->pass));
    }
    return 0;
}

/* Applies one rule in one layer to all passes. An item without parts is none. */
static int apply(gemma4_import_state *s, const gemma4_import_context *context,
                 gemma4_import_item *item, gemma4_error *error)
{
    const gemma4_map_rule *rule = &s->map->rules[item->rule];
    for (size_t p = 0; p < s->foreign.count; p++) {
        gemma4_pass *pass = s->foreign.passes[p];
        size_t index;
        if (find_tensor(rule, s->config, item->layer, pass, &index, error))
            return -1;
        if (index == gemma4_pass_count(pass))
            continue;
        const gemma4_stored_tensor *tensor = gemma4_pass_at(pass, index);
        if (add_part(item, s, context, p, tensor, error))
            return -1;
        s->taken[p][index] = true;
        if (!s->log.uses[item->rule].first)
            s->log.uses[item->rule].first = tensor->name;
    }
    s->log.uses[item->rule].taps += item->part_count > 0;
    return item->part_count ? check_alike(s, item, error) : 0;
}

static int refuse_two_rules(const gemma4_import_state *s, const gemma4_import_item *item,
                            gemma4_error *error)
{
    for (size_t i = 0; i < s->item_count; i++)
        if (!strcmp(s->items[i].name, item->name))
            return gemma4_fail(error,
                               "%s:%zu: %s: expected one rule that finds a tensor for it, found "
                               "the one of line %zu too (%s and %s)",
                               s->map->path, s->map->rules[item->rule].node->line, item->name,
                               s->map->rules[s->items[i].rule].node->line,
                               s->items[i].parts[0].tensor->name, item->parts[0].tensor->name);
    return 0;
}

static int apply_in_layer(gemma4_import_state *s, size_t rule_index, size_t layer,
                          gemma4_error *error)
{
    const gemma4_map_rule *rule = &s->map->rules[rule_index];
    const gemma4_import_context context = {s->config, s->positions};
    gemma4_import_item item = {.rule = rule_index, .layer = layer};
    if (!gemma4_map_covers(rule, s->config, layer, &item.place))
        return 0;
    if (rule->target == GEMMA4_MAP_TAP)
        gemma4_tap_name(rule->tap, layer, item.name);
    else
        snprintf(item.name, sizeof item.name, "%s", rule->name);
    gemma4_import_item *items = realloc(s->items, (s->item_count + 1) * sizeof *items);
    if (!items)
        return gemma4_fail(error, "%s: out of memory", gemma4_import_path(s));
    s->items = items;
    if (apply(s, &context, &item, error) ||
        (item.part_count && refuse_two_rules(s, &item, error))) {
        free_item(&item);
        return -1;
    }
    if (item.part_count)
        s->items[s->item_count++] = item;
    return 0;
}

static int apply_rules(gemma4_import_state *s, bool tokens, gemma4_error *error)
{
    for (size_t r = 0; r < s->map->rule_count; r++) {
        const gemma4_map_rule *rule = &s->map->rules[r];
        bool per_layer =
            rule->target == GEMMA4_MAP_TAP && gemma4_tap_describe(rule->tap)->per_layer;
        if ((rule->target == GEMMA4_MAP_TOKENS) != tokens)
            continue;
        for (size_t layer = 0; layer < (per_layer ? s->config->num_hidden_layers : 1); layer++)
            if (apply_in_layer(s, r, layer, error))
                return -1;
    }
    return 0;
}

/* --- what was left --- */

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool is_ignored(const gemma4_map *map, const char *name)
{
    for (size_t i = 0; i < map->ignore_count; i++)
        if (gemma4_pattern_matches(map->ignore[i], name))
            return true;
    return false;
}

/* Sorts names and leaves each once. */
static size_t make_distinct(const char **names, size_t count)
{
    size_t kept = 0;
    if (count)
        qsort(names, count, sizeof *names, compare_texts);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || strcmp(names[kept - 1], names[i]))
            names[kept++] = names[i];
    return kept;
}

static int list_untaken(gemma4_import_state *s, gemma4_error *error)
{
    size_t total = 0, count = 0;
    for (size_t p = 0; p < s->foreign.count; p++)
        total += gemma4_pass_count(s->foreign.passes[p]);
    const char **all = malloc((total + 1) * sizeof *all);
    s->log.untaken = malloc((total + 1) * sizeof *s->log.untaken);
    if (!all || !s->log.untaken) {
        free(all);
        return gemma4_fail(error, "%s: out of memory", gemma4_import_path(s));
    }
    for (size_t p = 0; p < s->foreign.count; p++)
        for (size_t i = 0; i < gemma4_pass_count(s->foreign.passes[p]); i++) {
            const char *name = gemma4_pass_at(s->foreign.passes[p], i)->name;
            all[count++] = name;
            if (!s->taken[p][i] && !is_ignored(s->map, name))
                s->log.untaken[s->log.untaken_count++] = name;
        }
    s->log.names = make_distinct(all, count);
    s->log.untaken_count = make_distinct(s->log.untaken, s->log.untaken_count);
    free(all);
    return 0;
}

/* --- opening --- */

static int begin(gemma4_import_state *s, gemma4_error *error)
{
    s->lengths = calloc(s->foreign.count + 1, sizeof *s->lengths);
    s->taken = calloc(s->foreign.count + 1, sizeof *s->taken);
    s->log = (gemma4_import_log){.map = s->map,
                                 .passes = s->foreign.count,
                                 .uses = calloc(s->map->rule_count, sizeof *s->log.uses)};
    bool memory = s->lengths && s->taken && s->log.uses;
    for (size_t p = 0; memory && p < s->foreign.count; p++)
        memory = (s->taken[p] = calloc(gemma4_pass_count(s->foreign.passes[p]) + 1,
                                       sizeof **s->taken)) != NULL;
    for (size_t r = 0; memory && r < s->map->rule_count; r++)
        s->log.uses[r].rule = &s->map->rules[r];
    return memory ? 0 : gemma4_fail(error, "%s: out of memory", gemma4_import_path(s));
}

static int import_all(gemma4_import_state *s, const gemma4_given_tokens *given, gemma4_error *error)
{
    if (begin(s, error) || apply_rules(s, true, error) ||
        gemma4_import_measure_tokens(s, given, error) || apply_rules(s, false, error) ||
        gemma4_import_measure_taps(s, error))
        return -1;
    for (size_t i = 0; i < s->item_count; i++)
        if (s->map->rules[s->items[i].rule].target == GEMMA4_MAP_TAP &&
            gemma4_import_place_rows(s, &s->items[i], error))
            return -1;
    s->log.positions_given = given && !gemma4_import_find(s, "positions");
    gemma4_import_write_schedule(s);
    return list_untaken(s, error);
}

/* Said here, by the engine's own names, where activations.c would speak of taps. */
static int refuse_nothing(const gemma4_import_state *s, gemma4_error *error)
{
    bool tokens = s->log.tokens_given || gemma4_import_find(s, "tokens");
    if (s->item_count == 0)
        return gemma4_fail(
            error, "%s: expected tensors that rules of %s take, found none: %zu others (%s%s)",
            gemma4_import_path(s), s->map->path, s->log.names,
            s->log.untaken_count ? s->log.untaken[0] : "...",
            s->log.untaken_count > 1 ? ", ..." : "");
    return tokens ? 0
                  : gemma4_fail(error,
                                "%s: tokens: expected a rule of %s to find the input ids (or a "
                                "case, which says them), found none",
                                gemma4_import_path(s), s->map->path);
}

gemma4_activations *gemma4_import(const char *const *paths, size_t count, const gemma4_map *map,
                                  const gemma4_config *config, const gemma4_given_tokens *given,
                                  const gemma4_import_log **log, gemma4_error *error)
{
    gemma4_import_state *s = calloc(1, sizeof *s);
    if (!s) {
        gemma4_fail(error, "%s: out of memory", paths[0]);
        return NULL;
    }
    s->map = map;
    s->config = config;
    if (gemma4_foreign_open(paths, count, &s->foreign, error)) {
        free(s);
        return NULL;
    }
    if (import_all(s, given, error) || refuse_nothing(s, error)) {
        import_close(s);
        return NULL;
    }
    const gemma4_activation_source source = gemma4_import_source(s, import_close);
    *log = &s->log;
    return gemma4_activations_open_source(paths[0], &source, config, given, error);
}
