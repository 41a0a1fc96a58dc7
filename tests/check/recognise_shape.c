/* What the shape of a tensor tells of how it was dumped. */
#include <stdio.h>
#include <string.h>

#include "recognise.h"

enum { MOST_AXES = 3, NAME = 4 };

/* Axes and their names: of the tap, or of what is stored. */
typedef struct axes {
    size_t rank, sizes[MOST_AXES + 1]; /* of what is stored, one more: a batch */
    char names[MOST_AXES][NAME];
} axes;

/* The tap's axes one by one, or with its heads and lanes merged: H*D. */
static axes due_axes(const gemma4_config *config, size_t T, const gemma4_activation *a, bool merged)
{
    const char *shape = gemma4_tap_describe(a->tap)->shape;
    size_t dims[2] = {1, 1}, count = gemma4_tap_dims(config, a->tap, a->layer, T, dims);
    axes due = {.rank = merged ? 2 : 1 + count,
                .sizes = {a->rows, merged ? dims[0] * dims[1] : dims[0], dims[1]},
                .names = {"T"}};
    for (size_t i = 0; i < count; i++)
        snprintf(due.names[1 + i], NAME, "%c", shape[i]);
    if (merged && count == 2)
        snprintf(due.names[1], NAME, "%c*%c", shape[0], shape[1]);
    return due;
}

/* Without the axes of length 1: those in front of the last so many, or all. False where more axes
 * are left than due and a batch. */
static bool stored_axes(const gemma4_activation *a, size_t due_rank, bool all, axes *found)
{
    *found = (axes){0};
    for (size_t i = 0; i < a->rank; i++) {
        bool dropped = a->shape[i] == 1 && (all || (found->rank == 0 && a->rank - i > due_rank));
        if (!dropped && found->rank > MOST_AXES)
            return false;
        if (!dropped)
            found->sizes[found->rank++] = a->shape[i];
    }
    return true;
}

static bool equal_sizes(const size_t *a, const size_t *b, size_t count)
{
    return memcmp(a, b, count * sizeof *a) == 0;
}

/* The first order, in that of the alphabet, in which the due axes have the sizes found: text
 * receives it, from the first axis on that is not where it should be. */
static bool find_order(const axes *due, const axes *found, char *text, size_t size)
{
    static const unsigned char orders[][MOST_AXES] = {
        {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (size_t k = 0; k < sizeof orders / sizeof *orders && found->rank == due->rank; k++) {
        const unsigned char *o = orders[k];
        bool fits = due->rank == MOST_AXES || o[2] == 2;
        for (size_t i = 0; i < due->rank && fits; i++)
            fits = found->sizes[i] == due->sizes[o[i]];
        if (!fits)
            continue;
        text[0] = '\0';
        for (size_t i = o[0] == 0, n = 0; i < due->rank; i++, n = strlen(text))
            snprintf(text + n, size - n, "%s%s", n ? ", " : "", due->names[o[i]]);
        return true;
    }
    return false;
}

static void describe_few_rows(size_t rows, size_t T, const char *problem, char *text, size_t size)
{
    const char *plural = rows == 1 ? "" : "s";
    char from[32] = "";
    if (rows > 1)
        snprintf(from, sizeof from, "%zu ... ", T - rows);
    snprintf(text, size,
             "%zu row%s: %s; an engine that keeps the last position%s only adds the attribute "
             "rows=[%s%zu]",
             rows, plural, problem, plural, from, T - 1);
}

/* Other rows than one a position. Those that the attribute rows names are another matter. */
static bool recognise_rows(const axes *due, const axes *found, const gemma4_activation *a,
                           gemma4_dump_mistake *mistake, char *text, size_t size)
{
    size_t rest = due->rank - 1, T = due->sizes[0],
           rows = found->rank == due->rank ? found->sizes[0] : 1;
    if (found->rank == due->rank + 1 && equal_sizes(found->sizes + 1, due->sizes, due->rank)) {
        mistake->kind = GEMMA4_DUMP_BATCH;
        snprintf(text, size, "a batch of %zu: %s; keep one sequence", found->sizes[0], a->problem);
        return true;
    }
    if (found->rank < rest || found->rank > due->rank ||
        !equal_sizes(found->sizes + found->rank - rest, due->sizes + 1, rest))
        return false;
    if (a->row_index || rows == 0 || rows == T)
        return false;
    mistake->kind = rows < T ? GEMMA4_DUMP_FEW_ROWS : GEMMA4_DUMP_PADDING;
    if (rows < T)
        describe_few_rows(rows, T, a->problem, text, size);
    else
        snprintf(text, size, "%zu rows for %zu positions: %s; leave out the padding", rows, T,
                 a->problem);
    return true;
}

static bool recognise_axes(const axes *due, const gemma4_activation *a,
                           gemma4_dump_mistake *mistake, char *text, size_t size)
{
    axes found;
    char order[MOST_AXES * (NAME + 2)];
    if (stored_axes(a, due->rank, false, &found) && find_order(due, &found, order, sizeof order)) {
        mistake->kind = GEMMA4_DUMP_AXES;
        snprintf(text, size, "axes in the order %s: %s; transpose", order, a->problem);
        return true;
    }
    if (stored_axes(a, due->rank, false, &found) &&
        recognise_rows(due, &found, a, mistake, text, size))
        return true;
    if (stored_axes(a, due->rank, true, &found) && found.rank == due->rank &&
        equal_sizes(found.sizes, due->sizes, due->rank)) {
        mistake->kind = GEMMA4_DUMP_INNER_AXIS;
        snprintf(text, size, "an axis of length 1 after the positions: %s; drop it", a->problem);
        return true;
    }
    return false;
}

bool gemma4_recognise_shape(const gemma4_config *config, size_t T, const gemma4_activation *a,
                            gemma4_dump_mistake *mistake, char *problem, size_t size)
{
    char text[400];
    *mistake = (gemma4_dump_mistake){0};
    if (!a->wrong_shape)
        return false;
    for (int merged = 0; merged < 2; merged++) {
        axes due = due_axes(config, T, a, merged);
        if (recognise_axes(&due, a, mistake, text, sizeof text)) {
            snprintf(problem, size, "%s", text);
            return true;
        }
    }
    *mistake = (gemma4_dump_mistake){0};
    return false;
}
