/* Which positions the rows of each pass are. */
#include "import_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int gemma4_import_measure_tokens(gemma4_import_state *s, const gemma4_given_tokens *given,
                                 gemma4_error *error)
{
    const gemma4_import_item *tokens = gemma4_import_find(s, "tokens");
    s->log.tokens_given = !tokens && given;
    if (!tokens) {
        s->positions = given ? given->count : 0;
        return 0;
    }
    if (tokens->part_count != s->foreign.count)
        return gemma4_fail(error,
                           "%s: tokens: expected them in each of %zu passes, found them in %zu",
                           gemma4_import_path(s), s->foreign.count, tokens->part_count);
    for (size_t p = 0; p < s->foreign.count; p++) {
        s->lengths[p] = tokens->parts[p].letters[0].length;
        s->positions += s->lengths[p];
    }
    return 0;
}

int gemma4_import_measure_taps(gemma4_import_state *s, gemma4_error *error)
{
    size_t total = 0;
    if (!s->log.tokens_given)
        return 0;
    if (s->foreign.count == 1) {
        s->lengths[0] = s->positions;
        return 0;
    }
    for (size_t i = 0; i < s->item_count; i++)
        for (size_t p = 0; p < s->items[i].part_count &&
                           s->map->rules[s->items[i].rule].rows == GEMMA4_MAP_ALL_ROWS;
             p++) {
            size_t *length = &s->lengths[s->items[i].pass_of[p]],
                   rows = s->items[i].parts[p].letters[0].length;
            *length = rows > *length ? rows : *length;
        }
    for (size_t p = 0; p < s->foreign.count; p++)
        total += s->lengths[p];
    return total == s->positions
               ? 0
               : gemma4_fail(
                     error,
                     "%s: expected passes of %zu positions together, as the case has, found %zu",
                     gemma4_import_path(s), s->positions, total);
}

/* Appends the positions of a part's rows. */
static int add_rows(const gemma4_import_state *s, gemma4_import_item *item, size_t p, size_t offset,
                    gemma4_error *error)
{
    const gemma4_map_rule *rule = &s->map->rules[item->rule];
    const gemma4_import_part *part = &item->parts[p];
    size_t rows = part->letters[0].length, length = s->lengths[item->pass_of[p]];
    const char *path = gemma4_pass_path(part->pass), *name = part->tensor->name;
    bool said = rule->rows == GEMMA4_MAP_LISTED_ROWS,
         stored = !said && rule->rows == GEMMA4_MAP_ALL_ROWS && part->tensor->has_rows;
    if ((said || stored) && s->foreign.count > 1)
        return gemma4_fail(error,
                           "%s: %s: rule %s: expected a list of rows only of a dump of one pass",
                           path, name, rule->name);
    size_t listed = said ? rule->position_count : part->tensor->row_count;
    if ((said || stored) && listed != rows)
        return gemma4_fail(error, "%s: %s: rule %s: expected %zu rows as listed, found %zu", path,
                           name, rule->name, listed, rows);
    if (!said && !stored && rows > length)
        return gemma4_fail(error,
                           "%s: %s: rule %s: expected at most the pass' %zu positions, found %zu",
                           path, name, rule->name, length, rows);
    if (!said && !stored && rows < length && rule->rows == GEMMA4_MAP_ALL_ROWS)
        return gemma4_fail(
            error, "%s: %s: rule %s: expected the pass' %zu positions (or rows: last), found %zu",
            path, name, rule->name, length, rows);
    int64_t *all = realloc(item->rows, (item->row_count + rows + 1) * sizeof *all);
    if (!all)
        return gemma4_fail(error, "%s: out of memory", path);
    item->rows = all;
    for (size_t i = 0; i < rows; i++) {
        int64_t listed_row = said ? rule->positions[i] : stored ? part->tensor->rows[i] : 0;
        all[item->row_count++] =
            said || stored ? listed_row + (said && listed_row < 0 ? (int64_t)s->positions : 0)
                           : (int64_t)(offset + length - rows + i);
    }
    return 0;
}

int gemma4_import_place_rows(gemma4_import_state *s, gemma4_import_item *item, gemma4_error *error)
{
    const gemma4_map_rule *rule = &s->map->rules[item->rule];
    bool plain = s->foreign.count == 1 && rule->rows == GEMMA4_MAP_ALL_ROWS &&
                 !item->parts[0].tensor->has_rows;
    if (plain || s->positions == 0) /* a wrong number of rows is for the judge to explain; without
                                       tokens nothing will be judged */
        return 0;
    size_t offset = 0, pass = 0;
    for (size_t p = 0; p < item->part_count; p++) {
        for (; pass < item->pass_of[p]; pass++)
            offset += s->lengths[pass];
        if (add_rows(s, item, p, offset, error))
            return -1;
    }
    item->has_rows = item->row_count != s->positions;
    for (size_t i = 0; i < item->row_count && !item->has_rows; i++)
        item->has_rows = item->rows[i] != (int64_t)i;
    return 0;
}

void gemma4_import_write_schedule(gemma4_import_state *s)
{
    size_t used = 0;
    for (size_t p = 0; p < s->foreign.count && s->foreign.count > 1 && used < sizeof s->schedule;
         p++)
        used += (size_t)snprintf(s->schedule + used, sizeof s->schedule - used, "%s%zu",
                                 p ? "," : "", s->lengths[p]);
    if (used >= sizeof s->schedule)
        s->schedule[0] = '\0'; /* unknown, which every schedule may be */
}
