/* What the rules found, as the source of an activation file. */
#include "import_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The dump's own attributes; what it does not say, the map may. */
static const char *import_attribute(const void *context, const char *name)
{
    const gemma4_import_state *s = context;
    const char *text = gemma4_pass_attribute(s->foreign.passes[0], name);
    if (text)
        return text;
    if (!strcmp(name, "engine"))
        return s->map->engine;
    if (!strcmp(name, "dtype"))
        return s->map->dtype;
    return !strcmp(name, "schedule") && s->schedule[0] ? s->schedule : NULL;
}

static int list_item(const gemma4_import_item *item, const gemma4_map_rule *rule, size_t positions,
                     gemma4_stored_tensor *stored, gemma4_error *error)
{
    const gemma4_import_part *first = &item->parts[0];
    stored->element = first->element;
    stored->tensor = item;
    stored->scale = rule->scale;
    stored->rank = first->rank;
    for (size_t p = 0; p < item->part_count; p++)
        stored->shape[0] += item->parts[p].letters[0].length;
    for (size_t l = 1; l < first->rank; l++) {
        bool keys = gemma4_tap_describe(rule->tap)->shape[l - 1] == 'T' && item->part_count > 1;
        stored->shape[l] = keys ? positions : first->letters[l].length;
        for (size_t p = 0; keys && p < item->part_count; p++)
            if (item->parts[p].letters[l].length > positions)
                return gemma4_fail(error, "%s: %s: rule %s: expected at most %zu keys, found %zu",
                                   gemma4_pass_path(item->parts[p].pass),
                                   item->parts[p].tensor->name, rule->name, positions,
                                   item->parts[p].letters[l].length);
    }
    stored->has_rows = item->has_rows;
    if (!item->has_rows)
        return 0;
    stored->row_count = item->row_count;
    stored->rows = malloc((item->row_count + 1) * sizeof *stored->rows);
    if (!stored->rows)
        return gemma4_fail(error, "%s: out of memory", item->name);
    memcpy(stored->rows, item->rows, item->row_count * sizeof *stored->rows);
    return 0;
}

static int import_list(void *context, const gemma4_config *config, gemma4_stored_list *list,
                       gemma4_error *error)
{
    gemma4_import_state *s = context;
    for (size_t i = 0; i < s->item_count; i++) {
        gemma4_stored_tensor *stored;
        if (gemma4_stored_add(list, config, s->items[i].name, &stored, error))
            return -1;
        if (stored &&
            list_item(&s->items[i], &s->map->rules[s->items[i].rule], s->positions, stored, error))
            return -1;
    }
    return 0;
}

static int import_read(void *context, const gemma4_stored_tensor *stored, const size_t *start,
                       const size_t *extent, void *elements, gemma4_error *error)
{
    const gemma4_import_item *item = stored->tensor;
    const size_t width[2] = {stored->rank > 1 ? stored->shape[1] : 1,
                             stored->rank > 2 ? stored->shape[2] : 1};
    size_t row_bytes = width[0] * width[1] * gemma4_element_describe(stored->element)->size,
           first = start[0], left = extent[0];
    char *to = elements;
    (void)context;
    for (size_t p = 0; p < item->part_count && left; p++) {
        size_t rows = item->parts[p].letters[0].length;
        if (first >= rows) {
            first -= rows;
            continue;
        }
        size_t count = rows - first < left ? rows - first : left;
        if (gemma4_import_read(&item->parts[p], first, count, width, to, error))
            return -1;
        to += count * row_bytes;
        left -= count;
        first = 0;
    }
    return 0;
}

gemma4_activation_source gemma4_import_source(gemma4_import_state *state, void (*close)(void *))
{
    return (gemma4_activation_source){state, import_attribute, import_list, import_read, close};
}
