/* What the values of a dump tell of how it was made. */
#include "recognise.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "isolate.h"
#include "rows.h"
#include "tap_compare.h"
#include "thresholds.h"

/* ------------------------------------------------------- one tensor, put right */

static size_t K_of(const gemma4_loaded *l)
{
    return l->config->top_k_experts;
}

/* The sizes of the tap's axes, positions first; returns how many. */
static size_t axes_of(const gemma4_loaded *l, size_t sizes[3])
{
    size_t rank = 1 + gemma4_tap_dims(l->config, l->tap, l->layer, l->T, sizes + 1);
    sizes[0] = l->T;
    return rank;
}

/* Row t as it should have been stored: the axes put back in their order. */
static void reorder_row(const gemma4_loaded *l, const gemma4_dump_mistake *m, size_t t, float *row)
{
    size_t sizes[3] = {1, 1, 1}, stride[3];
    axes_of(l, sizes);
    stride[m->order[2]] = 1;
    stride[m->order[1]] = sizes[m->order[2]];
    stride[m->order[0]] = sizes[m->order[1]] * sizes[m->order[2]];
    for (size_t a = 0; a < sizes[1]; a++)
        for (size_t b = 0; b < sizes[2]; b++)
            row[a * sizes[2] + b] = l->engine[t * stride[0] + a * stride[1] + b * stride[2]];
}

/* Row t of logits, of which a constant (and for probabilities the exponential) is missing: the
 * constant is that of the expected row. */
static void restore_logits(const gemma4_loaded *l, const gemma4_dump_mistake *m, size_t t,
                           float *row)
{
    const float *stored = l->engine + t * l->width, *expected = l->expected + t * l->width;
    double constant = 0;
    size_t counted = 0;
    for (size_t i = 0; i < l->width; i++) {
        /* too small for its type */
        bool lost = m->kind == GEMMA4_DUMP_PROBABILITIES && stored[i] == 0;
        row[i] = lost                                   ? -INFINITY
                 : m->kind == GEMMA4_DUMP_PROBABILITIES ? logf(stored[i])
                                                        : stored[i];
        constant += lost ? 0 : (double)expected[i] - (double)row[i];
        counted += !lost;
    }
    constant /= (double)(counted ? counted : 1);
    for (size_t i = 0; i < l->width; i++)
        row[i] = row[i] == -INFINITY ? expected[i] : (float)((double)row[i] + constant);
}

/* Where row t of the tensor put right is stored; -1: nowhere. */
static ptrdiff_t source_row(const gemma4_loaded *l, const gemma4_dump_mistake *m, size_t t)
{
    ptrdiff_t from = (ptrdiff_t)t - (m->kind == GEMMA4_DUMP_SHIFTED ? m->shift : 0);
    bool moved = m->kind == GEMMA4_DUMP_AXES && m->order[0] != 0; /* then all rows are there */
    return from >= 0 && (size_t)from < l->T && (moved || l->stored_row[from]) ? from : -1;
}

/* Row t put right; false where it is not there. */
static bool corrected_row(const gemma4_loaded *l, const gemma4_dump_mistake *m, size_t t,
                          float *row)
{
    ptrdiff_t from = source_row(l, m, t);
    if (from < 0)
        return false;
    if (m->kind == GEMMA4_DUMP_AXES)
        reorder_row(l, m, t, row);
    else if (m->kind == GEMMA4_DUMP_LOG_PROBABILITIES || m->kind == GEMMA4_DUMP_PROBABILITIES)
        restore_logits(l, m, t, row);
    else
        memcpy(row, l->engine + (size_t)from * l->width, l->width * sizeof *row);
    return true;
}

/* ------------------------------------------------------------------- distance */

static size_t ids_missing(const int32_t *ids, const int32_t *expected, size_t K)
{
    size_t missing = 0;
    for (size_t i = 0; i < K; i++) {
        bool found = false;
        for (size_t j = 0; j < K; j++)
            found = found || ids[i] == expected[j];
        missing += !found;
    }
    return missing;
}

/* Some of the positions: of the first to the one before end, at most so many that there are. */
typedef struct range {
    size_t first, end, most;
} range;

/* The part of the experts that are others than expected. */
static double distance_of_ids(const gemma4_loaded *l, const gemma4_dump_mistake *m, range r,
                              size_t *rows)
{
    size_t missing = 0;
    *rows = 0;
    for (size_t t = r.first; t < r.end && *rows < r.most; t++) {
        ptrdiff_t from = source_row(l, m, t);
        if (from < 0)
            continue;
        missing += ids_missing(l->engine_ids + (size_t)from * K_of(l),
                               l->expected_ids + t * K_of(l), K_of(l));
        ++*rows;
    }
    return *rows ? (double)missing / (double)(*rows * K_of(l)) : INFINITY;
}

/* Relative RMS between the tensor put right and the expected one, at the positions given, as far as
 * it has them. */
static int distance(const gemma4_loaded *l, const gemma4_dump_mistake *m, range r, double *result,
                    size_t *rows, gemma4_error *error)
{
    gemma4_comparison c = {0};
    if (!l->engine) {
        *result = distance_of_ids(l, m, r, rows);
        return 0;
    }
    float *row = malloc(l->width * sizeof *row);
    if (!row || gemma4_comparison_init(&c, l->T, error)) {
        free(row);
        return gemma4_fail(error, "recognition: out of memory");
    }
    *rows = 0;
    for (size_t t = r.first; t < r.end && *rows < r.most; t++) {
        if ((gemma4_tap_in_id_order(l->tap) && !l->have_valid_ids[t]) ||
            !corrected_row(l, m, t, row))
            continue;
        gemma4_compare_row(&c, l->config, l->tap, l->layer, l->T, t, l->width, row,
                           l->engine_ids ? l->engine_ids + t * K_of(l) : NULL,
                           l->expected + t * l->width,
                           l->expected_ids ? l->expected_ids + t * K_of(l) : NULL);
        ++*rows;
    }
    /* In the order of topk_ids only the experts that both chose can be compared: where these are
     * few, they say nothing. */
    bool enough = c.nonfinite == 0 && c.values > 0 &&
                  (gemma4_tap_is_keys(l->tap) || 2 * c.values >= *rows * l->width);
    *result = enough ? gemma4_comparison_metrics(&c).relative_rms : INFINITY;
    gemma4_comparison_free(&c);
    free(row);
    return 0;
}

/* ---------------------------------------------------------------- candidates */

/* The best so far. */
typedef struct search {
    const gemma4_loaded *l;
    gemma4_dump_mistake best;
    gemma4_error *error;
} search;

/* From where on a mistake is looked for. */
static double least_error(const gemma4_loaded *l)
{
    return l->engine ? RECOGNISED_FROM : RECOGNISED_FROM_IDS;
}

/* The rows from which a tensor is put right: those that a shift does not move out. */
static range sources(const gemma4_loaded *l, const gemma4_dump_mistake *m)
{
    size_t T = l->T, moved = m->kind == GEMMA4_DUMP_SHIFTED ? (size_t)abs(m->shift) : 0;
    if (moved >= T)
        return (range){0, 0, 0};
    return m->shift > 0 ? (range){0, T - moved, T} : (range){moved, T, T};
}

/* Keeps m where it leaves less of the error than the best so far. A few rows decide whether all are
 * looked at. The error is that of the rows that are moved: a shift that only moves bad rows out
 * does not explain them. */
static int try_mistake(search *s, gemma4_dump_mistake m)
{
    const gemma4_dump_mistake none = {0};
    const gemma4_loaded *l = s->l;
    double few, all, as_stored;
    size_t rows, ignored;
    if (distance(l, &m, (range){0, l->T, RECOGNISED_FIRST_ROWS}, &few, &rows, s->error))
        return -1;
    if (!(few <= RECOGNISED_PART))
        return 0;
    if (distance(l, &m, (range){0, l->T, l->T}, &all, &rows, s->error) ||
        distance(l, &none, sources(l, &m), &as_stored, &ignored, s->error))
        return -1;
    m.left = all;
    bool enough = m.kind != GEMMA4_DUMP_SHIFTED || (rows >= SHIFT_ROWS && 2 * rows >= l->T);
    bool explained = as_stored >= least_error(l) && all <= RECOGNISED_PART * fmin(as_stored, 1);
    if (enough && explained && (s->best.kind == GEMMA4_DUMP_AS_DUE || m.left < s->best.left))
        s->best = m;
    return 0;
}

/* Orders that lead to the same shape, or to one that merges all axes but the positions. */
static int try_axes(search *s)
{
    static const unsigned char orders[][3] = {
        {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    size_t sizes[3] = {1, 1, 1}, rank = axes_of(s->l, sizes);
    bool all_rows = !gemma4_tap_in_id_order(s->l->tap);
    for (size_t t = 0; t < s->l->T; t++)
        all_rows = all_rows && s->l->stored_row[t];
    for (size_t k = 0; k < sizeof orders / sizeof *orders; k++) {
        gemma4_dump_mistake m = {.kind = GEMMA4_DUMP_AXES,
                                 .order = {orders[k][0], orders[k][1], orders[k][2]}};
        bool rows_stay = m.order[0] == 0,
             possible = rows_stay || (all_rows && sizes[m.order[0]] == sizes[0]);
        /* An axis of length 1 changes nothing, wherever it is. */
        bool differs =
            rank == 3 ? sizes[1] > 1 && sizes[2] > 1 : m.order[0] == 1 && m.order[1] == 0;
        if (possible && differs && try_mistake(s, m))
            return -1;
    }
    return 0;
}

static int try_shifts(search *s)
{
    for (int shift = -SHIFT_MOST; shift <= SHIFT_MOST; shift++)
        if (shift != 0 &&
            try_mistake(s, (gemma4_dump_mistake){.kind = GEMMA4_DUMP_SHIFTED, .shift = shift}))
            return -1;
    return 0;
}

/* The sum of exponentials of every row, or of the row itself, is 1. */
static bool rows_sum_to_one(const gemma4_loaded *l, bool logarithms)
{
    bool any = false;
    for (size_t t = 0; t < l->T; t++) {
        double sum = 0;
        if (!l->stored_row[t])
            continue;
        for (size_t i = t * l->width; i < (t + 1) * l->width; i++) {
            if (!logarithms && !(l->engine[i] >= 0))
                return false;
            sum += logarithms ? exp((double)l->engine[i]) : (double)l->engine[i];
        }
        if (!(fabs(sum - 1) <= SUM_OF_PROBABILITIES))
            return false;
        any = true;
    }
    return any;
}

static int try_probabilities(search *s)
{
    if (s->l->tap != GEMMA4_TAP_LOGITS && s->l->tap != GEMMA4_TAP_LOGITS_RAW)
        return 0;
    if (rows_sum_to_one(s->l, true))
        return try_mistake(s, (gemma4_dump_mistake){.kind = GEMMA4_DUMP_LOG_PROBABILITIES});
    return rows_sum_to_one(s->l, false)
               ? try_mistake(s, (gemma4_dump_mistake){.kind = GEMMA4_DUMP_PROBABILITIES})
               : 0;
}

/* ------------------------------------------------------------------- in place */

static int put_ids_right(const gemma4_loaded *l, const gemma4_dump_mistake *m, bool *stored_row,
                         gemma4_error *error)
{
    size_t K = K_of(l);
    int32_t *ids = calloc(l->T * K, sizeof *ids);
    if (!ids)
        return gemma4_fail(error, "recognition: out of memory");
    for (size_t t = 0; t < l->T; t++) {
        ptrdiff_t from = source_row(l, m, t);
        stored_row[t] = from >= 0;
        if (stored_row[t])
            memcpy(ids + t * K, l->engine_ids + (size_t)from * K, K * sizeof *ids);
    }
    memcpy(l->engine_ids, ids, l->T * K * sizeof *ids);
    free(ids);
    return 0;
}

static int put_values_right(const gemma4_loaded *l, const gemma4_dump_mistake *m, bool *stored_row,
                            gemma4_error *error)
{
    float *values = calloc(l->T * l->width, sizeof *values);
    if (!values)
        return gemma4_fail(error, "recognition: out of memory");
    for (size_t t = 0; t < l->T; t++)
        stored_row[t] = corrected_row(l, m, t, values + t * l->width);
    memcpy(l->engine, values, l->T * l->width * sizeof *values);
    free(values);
    return 0;
}

int gemma4_put_right(const gemma4_loaded *l, const gemma4_dump_mistake *m, gemma4_error *error)
{
    bool *stored_row = calloc(l->T, sizeof *stored_row);
    if (!stored_row)
        return gemma4_fail(error, "recognition: out of memory");
    int status = l->engine ? put_values_right(l, m, stored_row, error)
                           : put_ids_right(l, m, stored_row, error);
    if (!status)
        memcpy(l->stored_row, stored_row, l->T * sizeof *stored_row);
    free(stored_row);
    return status;
}

int gemma4_recognise_loaded(const gemma4_loaded *l, gemma4_dump_mistake *mistake,
                            gemma4_error *error)
{
    search s = {.l = l, .error = error};
    double as_stored;
    size_t rows;
    *mistake = (gemma4_dump_mistake){0};
    if (distance(l, &s.best, (range){0, l->T, l->T}, &as_stored, &rows, error))
        return -1;
    if (!(as_stored >= least_error(l) && isfinite(as_stored)))
        return 0;
    if ((l->engine && (try_axes(&s) || try_probabilities(&s))) || try_shifts(&s))
        return -1;
    *mistake = s.best;
    return 0;
}

/* "D, H", or with the positions where they are not in front, "H, T, D". */
static void name_axes(const char *shape, const unsigned char order[3], bool positions, char *text,
                      size_t size)
{
    size_t rank = 1 + strlen(shape);
    text[0] = '\0';
    for (size_t i = !positions, n = 0; i < rank; i++, n = strlen(text))
        snprintf(text + n, size - n, "%s%c", n ? ", " : "",
                 order[i] == 0 ? 'T' : shape[order[i] - 1]);
}

void gemma4_describe_loaded(gemma4_tap tap, const gemma4_dump_mistake *m, char *text, size_t size)
{
    static const unsigned char as_due[3] = {0, 1, 2};
    const char *shape = gemma4_tap_describe(tap)->shape;
    char found[16], due[16];
    switch (m->kind) {
    case GEMMA4_DUMP_AXES:
        name_axes(shape, m->order, m->order[0] != 0, found, sizeof found);
        name_axes(shape, as_due, m->order[0] != 0, due, sizeof due);
        snprintf(text, size,
                 "the values are in the order of axes %s instead of %s: transposed, they agree "
                 "with what was expected",
                 found, due);
        break;
    case GEMMA4_DUMP_SHIFTED:
        snprintf(text, size,
                 "the rows are shifted: row t holds what is expected at position t %c %d",
                 m->shift < 0 ? '-' : '+', abs(m->shift));
        break;
    case GEMMA4_DUMP_LOG_PROBABILITIES:
        snprintf(text, size,
                 "log-probabilities instead of logits: with a constant added to each row they "
                 "agree; dump what log_softmax reads");
        break;
    case GEMMA4_DUMP_PROBABILITIES:
        snprintf(text, size,
                 "probabilities instead of logits: their logarithms, with a constant added to "
                 "each row, agree; dump what softmax reads");
        break;
    default: text[0] = '\0';
    }
}

/* ----------------------------------------------------------------- the whole dump */

/* A floating-point type: significant bits, and the exponent of its smallest step. */
typedef struct type {
    const char *name;
    int bits, smallest;
} type;
/* what lies on the first grid lies on the second */
static const type narrow[] = {{"bfloat16", 8, -133}, {"float16", 11, -24}};
enum { NARROW = sizeof narrow / sizeof *narrow };

static bool lies_on_grid(double x, const type *grid)
{
    int exponent;
    frexp(x, &exponent);
    int step = exponent - grid->bits > grid->smallest ? exponent - grid->bits : grid->smallest;
    double scaled = ldexp(x, -step);
    return scaled == rint(scaled);
}

/* Zero, powers of two, NaN and infinity lie on every grid, and tell nothing. */
static bool tells(double x)
{
    int exponent;
    return isfinite(x) && fabs(frexp(x, &exponent)) != 0.5 && x != 0;
}

/* The last rows of one tensor: the part of its values that lies on each grid; false where there are
 * too few to say. */
static int measure_grid(gemma4_activations *engine, const gemma4_activation *a, size_t width,
                        double shares[NARROW], bool *said, gemma4_error *error)
{
    size_t rows = a->rows < GRID_ROWS ? a->rows : GRID_ROWS, told = 0, on[NARROW] = {0};
    float *values = malloc(rows * width * sizeof *values);
    if (!values)
        return gemma4_fail(error, "recognition: out of memory");
    gemma4_limit_processor_time(GRID_SECONDS);
    int status = gemma4_activations_read(engine, a, a->rows - rows, rows, values, error);
    gemma4_limit_processor_time(0);
    for (size_t i = 0; i < rows * width && !status; i++) {
        bool counts = tells((double)values[i]);
        told += counts;
        for (size_t k = 0; k < NARROW; k++)
            on[k] += counts && lies_on_grid((double)values[i], &narrow[k]);
    }
    free(values);
    *said = told >= GRID_VALUES;
    for (size_t k = 0; k < NARROW; k++)
        shares[k] = told ? (double)on[k] / (double)told : 0;
    return status;
}

/* Results of arithmetic, in a type that would show more digits than the narrow ones have.
 * Embeddings may be exact in bfloat16; what is masked may hold anything. */
static bool shows_grid(const gemma4_activation *a)
{
    bool wide = !strcmp(a->stored_dtype, "float32") || !strcmp(a->stored_dtype, "float64");
    return a->usable && wide && a->tap > GEMMA4_TAP_LAYER_INPUT && !gemma4_tap_is_keys(a->tap) &&
           !gemma4_tap_describe(a->tap)->derived;
}

int gemma4_recognise_grid(gemma4_activations *engine, const gemma4_config *config,
                          const gemma4_tier *tier, gemma4_grid *grid, gemma4_error *error)
{
    double sums[NARROW] = {0};
    size_t tensors = 0, stored = 0; /* tensors that say something; stored in the tier's own type */
    *grid = (gemma4_grid){0};
    for (size_t i = 0; i < gemma4_activations_count(engine) && !tier->block_inputs; i++) {
        const gemma4_activation *a = gemma4_activations_at(engine, i);
        size_t dims[2] = {1, 1}, T = gemma4_activations_positions(engine, NULL, NULL);
        double shares[NARROW];
        bool said;
        stored += a->usable && !strcmp(a->stored_dtype, tier->name);
        if (!shows_grid(a))
            continue;
        gemma4_tap_dims(config, a->tap, a->layer, T, dims);
        if (measure_grid(engine, a, dims[0] * dims[1], shares, &said, error))
            return -1;
        for (size_t k = 0; k < NARROW && said; k++)
            sums[k] += shares[k];
        tensors += said;
    }
    for (size_t k = 0; k < NARROW && tensors && !grid->dtype; k++) {
        double share = sums[k] / (double)tensors;
        const gemma4_tier *other = gemma4_tier_of(narrow[k].name);
        if (other->unit > tier->unit && share >= GRID_SHARE)
            *grid = (gemma4_grid){.dtype = narrow[k].name, .share = share};
        else if (other == tier && stored < tensors && share < GRID_SHARE)
            *grid = (gemma4_grid){.finer = true, .share = share};
    }
    return 0;
}

void gemma4_describe_grid(const gemma4_grid *grid, const char *claimed, const char *by, char *text,
                          size_t size)
{
    if (grid->finer)
        snprintf(text, size,
                 "%.0f %% of the values that are stored wider than %s do not lie on its grid: the "
                 "engine keeps them in a finer type than %s says, and an error that is smaller "
                 "than %s's rounding is not seen; if it computes in float32, give --dtype float32",
                 100 * (1 - grid->share), claimed, by, claimed);
    else
        snprintf(text, size,
                 "%.0f %% of the values lie on the %s grid: the engine computes in %s, not in %s "
                 "as %s says; give --dtype %s",
                 100 * grid->share, grid->dtype, grid->dtype, claimed, by, grid->dtype);
}

/* Rows whose directions say something, each for itself: probabilities and their logarithms all
 * point the same way, and what attention averages over positions is much the same at all of
 * them. */
static bool has_direction(gemma4_tap tap)
{
    bool averaged = tap >= GEMMA4_TAP_ATTN_SCORES && tap <= GEMMA4_TAP_ATTN_POST_NORM;
    return !averaged && !gemma4_tap_in_id_order(tap) && tap != GEMMA4_TAP_ROUTER_PROBS &&
           tap != GEMMA4_TAP_LOGPROBS;
}

/* The mean over rows of the squared cosine, in units of what chance gives: 1 / width. Rows without
 * any direction are left out. */
static double directions_in_common(const gemma4_tap_evidence *t, const float *expected, size_t T,
                                   size_t *rows)
{
    double sum = 0;
    for (size_t row = *rows = 0; row < T; row++) {
        double product = 0, x = 0, y = 0;
        for (size_t i = row * t->width; i < (row + 1) * t->width && t->have[row]; i++) {
            product += (double)t->engine[i] * (double)expected[i];
            x += (double)t->engine[i] * (double)t->engine[i];
            y += (double)expected[i] * (double)expected[i];
        }
        if (!(x > 0 && y > 0))
            continue;
        sum += product * product / (x * y) * (double)t->width;
        ++*rows;
    }
    return *rows ? sum / (double)*rows : 0;
}

const char gemma4_other_checkpoint[] =
    "no more in common with what was expected than chance gives: another checkpoint, weights that "
    "were not loaded, or other tokens";

bool gemma4_recognise_checkpoint(const gemma4_evidence *e,
                                 const float *const expected[GEMMA4_TAP_COUNT])
{
    size_t most = 0;
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
        const gemma4_tap_evidence *t = &e->taps[tap];
        size_t rows;
        if (!t->engine || !expected[tap] || !has_direction((gemma4_tap)tap))
            continue;
        double common = directions_in_common(t, expected[tap], e->subject->T, &rows);
        if (rows == 0 || !(common <= CHANCE_IN_COMMON) || t->mistake.kind != GEMMA4_DUMP_AS_DUE)
            return false;
        most = rows > most ? rows : most;
    }
    return most >= CHANCE_ROWS;
}
