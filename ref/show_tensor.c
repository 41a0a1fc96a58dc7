#include "show_tensor.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROW_MOST = 1 << 28, /* values; the largest row of this family, scores over all heads and
                           positions, is far smaller */
    EDGE = 3,           /* a long axis is shown as its first 3 and its last 3 entries */
    LINE = 6,           /* values a line, where all are shown */
};

/* A stored tensor as [rows][heads][lanes]: heads is 1 for a tap without them. A list without rows
 * (tokens) is one row. */
typedef struct view {
    const char *path;
    gemma4_activation_source *source;
    const gemma4_stored_tensor *tensor;
    const gemma4_tap_info *info; /* NULL: tokens or positions */
    size_t row_axis, rows, heads, lanes;
    size_t first_row, end_row, first_head, end_head; /* what is shown */
    void *elements;                                  /* one row as it is stored, then as numbers */
    double *values;
} view;

const gemma4_stored_tensor *gemma4_stored_find(const gemma4_stored_list *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->items[i].name, name) == 0)
            return &list->items[i];
    return NULL;
}

void gemma4_show_shape(const gemma4_stored_tensor *tensor)
{
    for (size_t i = 0; i < tensor->rank; i++)
        printf("%s%zu", i ? ", " : "[", tensor->shape[i]);
    fputs(tensor->rank ? "]" : "[]", stdout);
}

/* --- shapes --- */

/* How many positions a tensor without the attribute `rows` has; 0 where the file does not say. */
static size_t count_positions(const gemma4_stored_list *list)
{
    const gemma4_stored_tensor *tokens = gemma4_stored_find(list, "tokens");
    return tokens && tokens->rank > 0 ? tokens->shape[tokens->rank - 1] : 0;
}

/* Finds the axis of positions after leading axes of length 1: that of the tap's own rank, or one
 * less where heads are merged. */
static bool find_row_axis(view *v, size_t rows, size_t rank)
{
    const gemma4_stored_tensor *t = v->tensor;
    for (size_t most = rank; most + 1 >= rank && most > 0; most--) {
        bool leads = t->rank >= most;
        size_t axis = leads ? t->rank - most : 0;
        for (size_t i = 0; leads && i < axis; i++)
            leads = t->shape[i] == 1;
        if (leads && (rows == 0 || t->shape[axis] == rows)) {
            v->row_axis = axis;
            return true;
        }
    }
    return false;
}

static int look_at(view *v, const gemma4_stored_list *list, gemma4_error *error)
{
    const gemma4_stored_tensor *t = v->tensor;
    size_t elements = 1, rank = v->info ? 1 + strlen(v->info->shape) : 1;
    size_t rows = t->has_rows ? t->row_count : count_positions(list);
    if (t->problem[0])
        return gemma4_fail(error, "%s: %s: %s", v->path, t->name, t->problem);
    if (t->has_rows && rows == 0)
        return gemma4_fail(error,
                           "%s: %s: attribute rows: expected at least one position, found none",
                           v->path, t->name);
    bool found = find_row_axis(v, rows, rank);
    if (!found && rows == 0)
        return gemma4_fail(error, "%s: %s: expected %zu axes, found %zu", v->path, t->name, rank,
                           t->rank);
    if (!found)
        return gemma4_fail(error,
                           "%s: %s: expected a first axis of %zu positions and %zu axes in all, "
                           "found a tensor of %zu axes, the first of "
                           "length %zu",
                           v->path, t->name, rows, rank, t->rank, t->rank ? t->shape[0] : 0);
    bool heads = t->rank - v->row_axis == 3;
    v->rows = v->info ? t->shape[v->row_axis] : 1;
    v->heads = heads ? t->shape[v->row_axis + 1] : 1;
    v->lanes = v->info ? 1 : t->shape[v->row_axis];
    bool fits = true;
    for (size_t i = v->row_axis + (heads ? 2 : 1); v->info && i < t->rank; i++)
        fits = fits && gemma4_size_product(v->lanes, t->shape[i], &v->lanes);
    fits = fits && gemma4_size_product(v->heads, v->lanes, &elements);
    if (!fits || elements > ROW_MOST || elements == 0 || v->rows == 0)
        return gemma4_fail(error, "%s: %s: expected 1 to %d values a position, found %s", v->path,
                           t->name, ROW_MOST, elements == 0 || v->rows == 0 ? "none" : "more");
    v->end_row = v->rows;
    v->end_head = v->heads;
    v->elements = malloc(elements * gemma4_element_describe(t->element)->size);
    v->values = malloc(elements * (sizeof *v->values + sizeof(float)));
    return v->elements && v->values ? 0
                                    : gemma4_fail(error, "%s: %s: out of memory", v->path, t->name);
}

/* The position (an index into the case's tokens) that a stored row is. */
static int64_t position_of(const view *v, size_t row)
{
    return v->tensor->has_rows ? v->tensor->rows[row] : (int64_t)row;
}

/* Narrows the view to what the command line asks for. */
static int narrow(view *v, const gemma4_shown *r, gemma4_error *error)
{
    const char *name = v->tensor->name;
    if ((r->position >= 0 || r->head >= 0) && !v->info)
        return gemma4_fail(
            error, "command line: %s is shown whole: expected neither --position nor --head", name);
    if (r->position >= 0) {
        for (v->first_row = 0;
             v->first_row < v->rows && position_of(v, v->first_row) != r->position;)
            v->first_row++;
        if (v->first_row == v->rows)
            return gemma4_fail(
                error,
                "--position: expected one of the %zu positions of %s, %lld ... %lld, found %lld",
                v->rows, name, (long long)position_of(v, 0), (long long)position_of(v, v->rows - 1),
                (long long)r->position);
        v->end_row = v->first_row + 1;
    }
    if (r->head < 0)
        return 0;
    if (v->info->shape[0] != 'H' && v->info->shape[0] != 'G')
        return gemma4_fail(
            error, "--head: expected a tap with heads, such as layers.0.attn.q, found %s", name);
    if (v->tensor->rank - v->row_axis != 3)
        return gemma4_fail(
            error,
            "--head: expected heads on an axis of their own, found %s with %zu values a position",
            name, v->lanes);
    if ((size_t)r->head >= v->heads)
        return gemma4_fail(error,
                           "--head: expected one of the %zu heads of %s, 0 ... %zu, found %lld",
                           v->heads, name, v->heads - 1, (long long)r->head);
    v->first_head = (size_t)r->head;
    v->end_head = v->first_head + 1;
    return 0;
}

/* --- values --- */

/* Fills v->values [heads, lanes] with a stored row. */
static int read_row(view *v, size_t row, gemma4_error *error)
{
    size_t n = v->heads * v->lanes, start[8] = {0}, extent[8];
    memcpy(extent, v->tensor->shape, sizeof extent);
    if (v->info) { /* else all of the list */
        start[v->row_axis] = row;
        extent[v->row_axis] = 1;
    }
    if (v->source->read(v->source->state, v->tensor, start, extent, v->elements, error))
        return -1;
    float *narrow_values = (float *)(v->values + n);
    bool real = gemma4_element_describe(v->tensor->element)->real;
    if (real)
        gemma4_element_to_float(v->tensor->element, v->elements, n, narrow_values);
    for (size_t i = 0; i < n; i++)
        v->values[i] = real ? (double)narrow_values[i]
                            : (double)gemma4_element_to_int(v->tensor->element, v->elements, i);
    return 0;
}

static int print_statistics(view *v, gemma4_error *error)
{
    double min = INFINITY, max = -INFINITY, sum = 0, squares = 0;
    size_t finite = 0, nan = 0, infinite = 0;
    for (size_t row = v->first_row; row < v->end_row; row++) {
        if (read_row(v, row, error))
            return -1;
        for (size_t i = v->first_head * v->lanes; i < v->end_head * v->lanes; i++) {
            double x = v->values[i];
            nan += isnan(x);
            infinite += isinf(x) != 0;
            if (!isfinite(x))
                continue;
            finite++;
            min = fmin(min, x);
            max = fmax(max, x);
            sum += x;
            squares += x * x;
        }
    }
    if (finite)
        printf("min %.9g  max %.9g", min, max);
    if (!gemma4_element_describe(v->tensor->element)->real) {
        putchar('\n'); /* the mean of ids says nothing */
        return 0;
    }
    if (finite)
        printf("  mean %.9g  RMS %.9g  ", sum / (double)finite, sqrt(squares / (double)finite));
    printf("NaN %zu  Inf %zu\n", nan, infinite);
    return 0;
}

/* The entry that follows i on an axis that ends at end: where the axis is shortened, the middle is
 * left out. */
static size_t next_shown(size_t i, size_t first, size_t end, bool all)
{
    if (all || end - first <= 2 * EDGE || i + 1 != first + EDGE)
        return i + 1;
    return end - EDGE;
}

static void print_lanes(const double *values, size_t n, bool all)
{
    for (size_t i = 0, next; i < n; i = next) {
        next = next_shown(i, 0, n, all);
        if (all && n > LINE && i % LINE == 0)
            printf("\n  %6zu", i);
        printf("  %14.9g%s", values[i], next > i + 1 ? "  ..." : "");
    }
    putchar('\n');
}

/* "position 3, head 0", and the values. */
static void print_row(const view *v, size_t row, bool all)
{
    for (size_t h = v->first_head, next; h < v->end_head; h = next) {
        next = next_shown(h, v->first_head, v->end_head, all);
        printf("position %lld", (long long)position_of(v, row));
        if (v->heads > 1 || v->tensor->rank - v->row_axis == 3)
            printf(", %s %zu", v->info->shape[0] == 'K' ? "choice" : "head", h);
        print_lanes(v->values + h * v->lanes, v->lanes, all);
        if (next > h + 1)
            puts("...");
    }
}

/* Tokens and positions, as --tokens takes them. */
static void print_integers(const view *v)
{
    for (size_t i = 0; i < v->lanes; i++)
        printf("%s%.0f", i ? "," : "", v->values[i]);
    putchar('\n');
}

static int print_tensor(view *v, bool all, gemma4_error *error)
{
    const gemma4_stored_tensor *t = v->tensor;
    printf("%s in %s\nshape   ", t->name, v->path);
    gemma4_show_shape(t);
    if (v->info && t->rank - v->row_axis == 1 + strlen(v->info->shape))
        printf("  T, %c%s%.1s", v->info->shape[0], v->info->shape[1] ? ", " : "",
               v->info->shape + 1);
    printf("\ndtype   %s\n", gemma4_element_describe(t->element)->name);
    if (print_statistics(v, error))
        return -1;
    for (size_t row = v->first_row, next; row < v->end_row; row = next) {
        next = next_shown(row, v->first_row, v->end_row, all);
        if (read_row(v, row, error))
            return -1;
        if (v->info)
            print_row(v, row, all);
        else
            print_integers(v);
        if (next > row + 1)
            puts("...");
    }
    return 0;
}

/* "key": [at(first), at(first + 1), ...], n of them. */
static void write_list(FILE *out, const char *key, size_t n, int64_t (*at)(const view *, size_t),
                       const view *v, size_t first)
{
    fprintf(out, ",\n \"%s\": [", key);
    for (size_t i = 0; i < n; i++)
        fprintf(out, "%s%lld", i ? ", " : "", (long long)at(v, first + i));
    fputc(']', out);
}

static int64_t index_of(const view *v, size_t i)
{
    (void)v;
    return (int64_t)i;
}

/* The values of one row; first says whether no value stands before them. */
static void write_values(FILE *out, const view *v, bool first)
{
    bool real = gemma4_element_describe(v->tensor->element)->real;
    for (size_t i = v->first_head * v->lanes; i < v->end_head * v->lanes; i++, first = false) {
        fputs(first ? "" : ",", out);
        if (isfinite(v->values[i])) /* 10 digits: an id may have as many */
            fprintf(out, real ? "%.9g" : "%.10g", v->values[i]);
        else
            fputs("null", out);
    }
}

static int write_json(view *v, FILE *out, gemma4_error *error)
{
    const gemma4_stored_tensor *t = v->tensor;
    bool heads = v->info && t->rank - v->row_axis == 3;
    size_t rows = v->end_row - v->first_row, shown_heads = v->end_head - v->first_head;
    fprintf(out, "{\"format\": \"gemma4-tensor\", \"format_version\": 1, \"tap\": \"%s\", ",
            t->name);
    fprintf(out, "\"dtype\": \"%s\",\n \"shape\": [", gemma4_element_describe(t->element)->name);
    if (v->info)
        fprintf(out, "%zu, ", rows);
    if (heads)
        fprintf(out, "%zu, ", shown_heads);
    fprintf(out, "%zu]", v->lanes);
    if (v->info)
        write_list(out, "positions", rows, position_of, v, v->first_row);
    if (heads)
        write_list(out, v->info->shape[0] == 'K' ? "choices" : "heads", shown_heads, index_of, v,
                   v->first_head);
    fputs(",\n \"values\": [", out);
    for (size_t row = v->first_row; row < v->end_row; row++) {
        if (read_row(v, row, error))
            return -1;
        write_values(out, v, row == v->first_row);
    }
    fputs("]}\n", out);
    return 0;
}

int gemma4_show_tensor(const gemma4_shown *shown, gemma4_activation_source *source,
                       const gemma4_stored_list *list, const gemma4_stored_tensor *tensor,
                       gemma4_error *error)
{
    gemma4_tap tap;
    size_t layer;
    view v = {.path = shown->path, .source = source, .tensor = tensor};
    v.info = gemma4_tap_parse(tensor->name, &tap, &layer) ? gemma4_tap_describe(tap) : NULL;
    int status = look_at(&v, list, error);
    if (!status)
        status = narrow(&v, shown, error);
    if (!status)
        status = shown->json ? write_json(&v, shown->json, error)
                             : print_tensor(&v, shown->position >= 0 || shown->head >= 0, error);
    free(v.elements);
    free(v.values);
    return status;
}
