/* Names that differ only in one number are one tensor in several layers. Which of a name's numbers
 * that is, the others tell: the one in whose place most of them have another. */
#include <stdlib.h>
#include <string.h>

#include "names_internal.h"

static const char digits[] = "0123456789";
enum { RUNS_MAX = 8, DIGITS_MAX = 5 };

/* One way to read a name: with that number in the layer's place. */
typedef struct reading {
    char pattern[GEMMA4_PATTERN_SIZE];
    size_t tensor, layer, alike;
} reading;

/* The i-th number of a name; its length, 0 where there is none. */
static size_t find_run(const char *name, size_t i, size_t *at)
{
    for (size_t c = strcspn(name, digits); name[c]; c += strcspn(name + c, digits)) {
        size_t length = strspn(name + c, digits);
        if (i-- == 0) {
            *at = c;
            return length;
        }
        c += length;
    }
    return 0;
}

static size_t read_name(const char *name, size_t tensor, reading *readings)
{
    size_t count = 0, at;
    for (size_t i = 0, length; i < RUNS_MAX && (length = find_run(name, i, &at)) > 0; i++) {
        if (length > DIGITS_MAX || (length > 1 && name[at] == '0'))
            continue;
        reading *r = &readings[count++];
        snprintf(r->pattern, sizeof r->pattern, "%.*s{N}%s", (int)at, name, name + at + length);
        r->layer = (size_t)strtoul(name + at, NULL, 10);
        r->tensor = tensor;
    }
    return count;
}

static int by_pattern(const void *a, const void *b)
{
    const reading *x = *(reading *const *)a, *y = *(reading *const *)b;
    int order = strcmp(x->pattern, y->pattern);
    return order ? order : (x->layer > y->layer) - (x->layer < y->layer);
}

/* How many tensors each reading is shared by. */
static void count_alike(reading **sorted, size_t count)
{
    for (size_t i = 0, end; i < count; i = end) {
        for (end = i; end < count && !strcmp(sorted[end]->pattern, sorted[i]->pattern);)
            end++;
        for (size_t j = i; j < end; j++)
            sorted[j]->alike = end - i;
    }
}

static int add_group(gemma4_name_groups *groups, const char *pattern, bool has_layer, size_t count,
                     gemma4_name_group **group, gemma4_error *error)
{
    gemma4_name_group *items = realloc(groups->items, (groups->count + 1) * sizeof *items);
    if (!items)
        return gemma4_fail(error, "names: out of memory");
    groups->items = items;
    *group = &items[groups->count++];
    **group = (gemma4_name_group){.has_layer = has_layer,
                                  .members = calloc(count, sizeof(size_t)),
                                  .layers = calloc(count, sizeof(size_t))};
    snprintf((*group)->pattern, sizeof(*group)->pattern, "%s", pattern);
    return (*group)->members && (*group)->layers ? 0 : gemma4_fail(error, "names: out of memory");
}

/* Each tensor's best reading; a number that only it has is no layer's. */
static int group_all(const gemma4_pass *pass, reading **best, reading **sorted, size_t sorted_count,
                     gemma4_name_groups *groups, gemma4_error *error)
{
    gemma4_name_group *group;
    for (size_t i = 0; i < sorted_count; i++) {
        reading **mine = &best[sorted[i]->tensor];
        if (sorted[i]->alike > 1 && (!*mine || sorted[i]->alike > (*mine)->alike))
            *mine = sorted[i];
    }
    for (size_t i = 0, end; i < sorted_count; i = end) {
        size_t members = 0;
        for (end = i; end < sorted_count && !strcmp(sorted[end]->pattern, sorted[i]->pattern);
             end++)
            members += best[sorted[end]->tensor] == sorted[end];
        if (members && add_group(groups, sorted[i]->pattern, true, members, &group, error))
            return -1;
        for (size_t j = i; members && j < end; j++)
            if (best[sorted[j]->tensor] == sorted[j]) {
                group->members[group->count] = sorted[j]->tensor;
                group->layers[group->count++] = sorted[j]->layer;
            }
    }
    for (size_t t = 0; t < gemma4_pass_count(pass); t++)
        if (!best[t]) {
            if (add_group(groups, gemma4_pass_at(pass, t)->name, false, 1, &group, error))
                return -1;
            group->members[0] = t;
            group->count = 1;
        }
    return 0;
}

static int by_first(const void *a, const void *b)
{
    const gemma4_name_group *x = a, *y = b;
    return (x->members[0] > y->members[0]) - (x->members[0] < y->members[0]);
}

int gemma4_name_groups_make(const gemma4_pass *pass, gemma4_name_groups *groups,
                            gemma4_error *error)
{
    size_t tensors = gemma4_pass_count(pass), count = 0;
    reading *readings = calloc(tensors * RUNS_MAX, sizeof *readings),
            **sorted = calloc(tensors * RUNS_MAX, sizeof *sorted);
    reading **best = calloc(tensors, sizeof *best);
    *groups = (gemma4_name_groups){0};
    int status = readings && sorted && best ? 0 : gemma4_fail(error, "names: out of memory");
    for (size_t t = 0; t < tensors && !status; t++)
        count += read_name(gemma4_pass_at(pass, t)->name, t, readings + count);
    for (size_t i = 0; i < count && !status; i++)
        sorted[i] = &readings[i];
    if (!status && count) {
        qsort(sorted, count, sizeof *sorted, by_pattern);
        count_alike(sorted, count);
    }
    if (!status)
        status = group_all(pass, best, sorted, count, groups, error);
    free(readings);
    free(sorted);
    free(best);
    if (status) {
        gemma4_name_groups_free(groups);
        return -1;
    }
    qsort(groups->items, groups->count, sizeof *groups->items, by_first);
    return 0;
}

void gemma4_name_groups_free(gemma4_name_groups *groups)
{
    for (size_t i = 0; i < groups->count; i++) {
        free(groups->items[i].members);
        free(groups->items[i].layers);
    }
    free(groups->items);
    *groups = (gemma4_name_groups){0};
}
