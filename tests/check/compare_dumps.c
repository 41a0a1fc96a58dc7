#include "compare_dumps.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "compare_rows.h"
#include "rows.h"

/* Values of a position: the limit of a tensor's width where no config says it. */
#define ROW_MOST ((size_t)1 << 26)

/* What is read of one file at a time: positions first ... first + rows - 1 of a tap. */
typedef struct side {
    gemma4_activations *file;
    const gemma4_activation *tap;
    const gemma4_activation *ids; /* that order the tap's slots, or of a tap of ids: itself; NULL */
    float *values;                /* [rows, width] */
    int32_t *raw;                 /* [rows, K] */
    gemma4_slot *slots;           /* [rows, K], each row sorted */
    bool *have, *have_ids;        /* [rows] */
    const struct slice *slice;
    int status;
    gemma4_error error;
} side;

typedef struct slice {
    side a, b;
    gemma4_row_shape shape;
    size_t first, rows, most;           /* rows of this slice, and of the largest */
    gemma4_row_difference *differences; /* [rows] */
} slice;

/* --- tokens --- */

static int same_integers(const gemma4_dumps_compared *c, const char *name, const int32_t *a,
                         const int32_t *b, size_t count, gemma4_error *error)
{
    for (size_t t = 0; t < count; t++)
        if (a[t] != b[t])
            return gemma4_fail(error, "%s: %s: entry %zu: expected %d as in %s, found %d",
                               c->path_b, name, t, a[t], c->path_a, b[t]);
    return 0;
}

static int same_positions(const gemma4_dumps_compared *c, gemma4_error *error)
{
    const int32_t *tokens[2], *positions[2];
    size_t T = gemma4_activations_positions(c->a, &tokens[0], &positions[0]);
    size_t other = gemma4_activations_positions(c->b, &tokens[1], &positions[1]);
    if (T != other)
        return gemma4_fail(error, "%s: tokens: expected %zu as in %s, found %zu", c->path_b, T,
                           c->path_a, other);
    if (same_integers(c, "tokens", tokens[0], tokens[1], T, error))
        return -1;
    return same_integers(c, "positions", positions[0], positions[1], T, error);
}

/* --- slices --- */

/* Does both, at once where a thread is to be had. It sleeps while it waits: OpenMP's threads, which
 * spin, would take the processors from those that read the files. */
static void do_both(void *(*work)(void *), void *one, void *other)
{
    pthread_t thread;
    bool started = pthread_create(&thread, NULL, work, one) == 0;
    work(other);
    if (started)
        pthread_join(thread, NULL);
    else
        work(one);
}

static int read_rows(side *s, size_t first, size_t rows, const gemma4_row_shape *shape,
                     gemma4_error *error)
{
    if (s->ids) {
        if (gemma4_read_positions(s->file, s->ids, first, rows, shape->slots, NULL, s->raw,
                                  s->have_ids, error))
            return -1;
        for (size_t i = 0; i < rows; i++)
            if (s->have_ids[i])
                gemma4_sort_slots(s->raw + i * shape->slots, shape->slots,
                                  s->slots + i * shape->slots);
    }
    if (s->ids == s->tap) {
        memcpy(s->have, s->have_ids, rows * sizeof *s->have);
        return 0;
    }
    if (gemma4_read_positions(s->file, s->tap, first, rows, shape->width, s->values, NULL, s->have,
                              error))
        return -1;
    for (size_t i = 0; i < rows && s->ids; i++)
        s->have[i] = s->have[i] && s->have_ids[i];
    return 0;
}

static void *read_side(void *context)
{
    side *s = context;
    s->status = read_rows(s, s->slice->first, s->slice->rows, &s->slice->shape, &s->error);
    return NULL;
}

/* Each file has a process of its own that reads it. */
static int read_slice(slice *s, gemma4_error *error)
{
    s->a.slice = s->b.slice = s;
    do_both(read_side, &s->a, &s->b);
    if (s->a.status || s->b.status)
        return gemma4_fail(error, "%s", s->a.status ? s->a.error.message : s->b.error.message);
    return 0;
}

/* Rows from ... to - 1 of a slice. */
typedef struct part {
    slice *s;
    size_t from, to;
} part;

static void *compare_part(void *context)
{
    const part *p = context;
    slice *s = p->s;
    size_t width = s->shape.width, K = s->shape.slots;
    for (size_t i = p->from; i < p->to; i++)
        if (s->a.have[i] && s->b.have[i])
            s->differences[i] =
                gemma4_compare_rows(&s->shape, s->first + i, s->a.values + i * width,
                                    s->a.ids ? s->a.slots + i * K : NULL, s->b.values + i * width,
                                    s->b.ids ? s->b.slots + i * K : NULL);
    return NULL;
}

/* What a position comes to does not depend on the threads. */
static void compare_slice(slice *s)
{
    part first = {s, 0, s->rows / 2}, rest = {s, s->rows / 2, s->rows};
    do_both(compare_part, &first, &rest);
}

static void add_slice(const slice *s, gemma4_tap_difference *r, gemma4_comparison *sums)
{
    for (size_t i = 0; i < s->rows; i++) {
        const gemma4_row_difference *d = &s->differences[i];
        size_t t = s->first + i;
        if (!s->a.have[i] || !s->b.have[i] || d->values == 0)
            continue;
        r->positions++;
        sums->seen[t] = true;
        sums->diff_t[t] = d->difference;
        sums->expected_t[t] = d->reference;
        if (d->nonfinite && r->nonfinite == 0) {
            r->nonfinite_position = t;
            r->nonfinite_index = d->nonfinite_index;
        }
        r->nonfinite += d->nonfinite;
        if (d->worst > r->worst) {
            r->worst = d->worst;
            r->worst_position = t;
            r->worst_index = d->worst_index;
            r->worst_a = d->worst_a;
            r->worst_b = d->worst_b;
        }
    }
}

static void add_id_slice(const slice *s, gemma4_tap_difference *r)
{
    size_t K = s->shape.slots;
    for (size_t i = 0; i < s->rows; i++) {
        if (!s->a.have[i] || !s->b.have[i])
            continue;
        r->positions++;
        if (gemma4_same_ids(s->a.slots + i * K, s->b.slots + i * K, K))
            continue;
        if (r->other_sets++ == 0)
            r->other_sets_position = s->first + i;
    }
}

static void free_side(side *s)
{
    free(s->values);
    free(s->raw);
    free(s->slots);
    free(s->have);
    free(s->have_ids);
}

static bool allocate_side(side *s, size_t rows, const gemma4_row_shape *shape)
{
    s->have = malloc(rows * sizeof *s->have);
    if (s->ids != s->tap)
        s->values = malloc(rows * shape->width * sizeof *s->values);
    if (s->ids) {
        s->raw = malloc(rows * shape->slots * sizeof *s->raw);
        s->slots = malloc(rows * shape->slots * sizeof *s->slots);
        s->have_ids = malloc(rows * sizeof *s->have_ids);
    }
    return s->have && (s->ids == s->tap || s->values) &&
           (!s->ids || (s->raw && s->slots && s->have_ids));
}

/* --- one tap --- */

/* Whether the values are compared slot by slot; *of is the tap that names the slots. */
static bool has_slots(gemma4_tap tap, gemma4_tap *of)
{
    bool listed = tap == GEMMA4_TAP_LOGPROBS;
    *of = listed ? GEMMA4_TAP_LOGPROBS_IDS : GEMMA4_TAP_ROUTER_TOPK_IDS;
    return listed || gemma4_tap_in_id_order(tap);
}

/* Different forms are a difference; a form that cannot be read in both is none. */
static bool have_one_form(const slice *s, gemma4_tap_difference *r)
{
    const gemma4_activation *a = s->a.tap, *b = s->b.tap;
    char text_a[96], text_b[96];
    if (a->usable && b->usable && a->width == b->width)
        return true;
    if (!a->usable && !b->usable && !strcmp(a->problem, b->problem)) {
        snprintf(r->note, sizeof r->note, "not compared: %s", a->problem);
        return false;
    }
    gemma4_shape_text(a->shape, a->rank, text_a, sizeof text_a);
    gemma4_shape_text(b->shape, b->rank, text_b, sizeof text_b);
    r->differs = true;
    snprintf(r->note, sizeof r->note, "A is %s %s, B is %s %s%s%s", a->stored_dtype, text_a,
             b->stored_dtype, text_b, a->usable && b->usable ? "" : ": ",
             !a->usable   ? a->problem
             : !b->usable ? b->problem
                          : "");
    return false;
}

/* The taps that order the slots; false where they are not there. */
static bool find_ids(slice *s, gemma4_tap_difference *r)
{
    gemma4_tap of;
    char name[GEMMA4_TAP_NAME_SIZE];
    bool is_ids = gemma4_tap_describe(r->tap)->ids;
    if (is_ids) {
        s->a.ids = s->a.tap;
        s->b.ids = s->b.tap;
    } else if (has_slots(r->tap, &of)) {
        s->a.ids = gemma4_activations_find(s->a.file, of, r->layer);
        s->b.ids = gemma4_activations_find(s->b.file, of, r->layer);
        size_t width = s->a.tap->width;
        if (!s->a.ids || !s->b.ids || !s->a.ids->usable || !s->b.ids->usable ||
            s->a.ids->width != s->b.ids->width || width % s->a.ids->width) {
            snprintf(r->note, sizeof r->note,
                     "not compared: its order is that of %s, as both hold it",
                     gemma4_tap_name(of, r->layer, name));
            return false;
        }
        s->shape.kind = GEMMA4_ROW_SLOTS;
    }
    s->shape.slots = s->a.ids ? s->a.ids->width : 0;
    return true;
}

/* How the values go together; false, and a note, where they do not. */
static bool find_shape(const gemma4_dumps_compared *c, slice *s, gemma4_tap_difference *r)
{
    s->shape = (gemma4_row_shape){.positions = gemma4_activations_positions(c->a, NULL, NULL)};
    if (!have_one_form(s, r) || !find_ids(s, r))
        return false;
    s->shape.width = s->a.tap->width;
    if (r->tap != GEMMA4_TAP_ATTN_SCORES)
        return true;
    if (!c->config) {
        snprintf(r->note, sizeof r->note,
                 "not compared: which of them are masked is the model's to say (--model, --case)");
        return false;
    }
    s->shape.kind = GEMMA4_ROW_KEYS;
    s->shape.window = gemma4_layer_window(c->config, r->layer);
    return true;
}

/* !(error <= tolerance), so that NaN differs. */
static bool differs(const gemma4_dumps_compared *c, const gemma4_tap_difference *r)
{
    return r->nonfinite > 0 || r->other_sets > 0 || !(r->metrics.relative_rms <= c->tolerance) ||
           !(r->metrics.position_rms <= c->tolerance);
}

static int compare_slices(const gemma4_dumps_compared *c, slice *s, gemma4_tap_difference *r,
                          gemma4_comparison *sums, gemma4_error *error)
{
    size_t T = s->shape.positions;
    for (s->first = 0; s->first < T; s->first += s->rows) {
        s->rows = T - s->first < s->most ? T - s->first : s->most;
        if (read_slice(s, error))
            return -1;
        if (s->a.ids == s->a.tap) {
            add_id_slice(s, r);
        } else {
            compare_slice(s);
            add_slice(s, r, sums);
        }
    }
    if (r->positions == 0) {
        snprintf(r->note, sizeof r->note, "not compared: there is nothing that both hold");
        return 0;
    }
    r->compared = true;
    if (s->a.ids != s->a.tap)
        r->metrics = gemma4_comparison_metrics(sums);
    r->differs = differs(c, r);
    return 0;
}

static int compare_tap(const gemma4_dumps_compared *c, const gemma4_activation *a,
                       const gemma4_activation *b, gemma4_tap_difference *r, gemma4_error *error)
{
    slice s = {.a = {.file = c->a, .tap = a}, .b = {.file = c->b, .tap = b}};
    gemma4_comparison sums = {0};
    char name[GEMMA4_TAP_NAME_SIZE];
    *r = (gemma4_tap_difference){.tap = a->tap, .layer = a->layer, .worst = -1};
    gemma4_tap_name(a->tap, a->layer, name);
    if (!find_shape(c, &s, r))
        return 0;
    size_t width = s.shape.width, T = s.shape.positions;
    if (width > ROW_MOST)
        return gemma4_fail(error, "%s: %s: expected at most %zu values a position, found %zu",
                           c->path_a, name, ROW_MOST, width);
    s.most = c->slice_bytes / sizeof(float) / width;
    s.most = s.most < 1 ? 1 : s.most > T ? T : s.most;
    s.differences = malloc(s.most * sizeof *s.differences);
    int status = 0;
    if (!s.differences || !allocate_side(&s.a, s.most, &s.shape) ||
        !allocate_side(&s.b, s.most, &s.shape))
        status = gemma4_fail(error, "%s: %s: out of memory", c->path_a, name);
    if (!status)
        status = gemma4_comparison_init(&sums, T, error);
    if (!status)
        status = compare_slices(c, &s, r, &sums, error);
    gemma4_comparison_free(&sums);
    free_side(&s.a);
    free_side(&s.b);
    free(s.differences);
    return status;
}

/* --- all --- */

static int allocate_taps(gemma4_dumps_compared *c, gemma4_error *error)
{
    size_t most = gemma4_activations_count(c->a);
    c->taps = calloc(most, sizeof *c->taps); /* a dump has one tap at least */
    return c->taps ? 0 : gemma4_fail(error, "%s: out of memory", c->path_a);
}

int gemma4_compare_dumps(gemma4_dumps_compared *c, gemma4_error *error)
{
    if (same_positions(c, error) || allocate_taps(c, error))
        return -1;
    for (size_t i = 0; i < gemma4_activations_count(c->a); i++) {
        const gemma4_activation *a = gemma4_activations_at(c->a, i),
                                *b = gemma4_activations_find(c->b, a->tap, a->layer);
        gemma4_tap_difference *r = &c->taps[c->count];
        if (!b)
            continue;
        if (compare_tap(c, a, b, r, error))
            return -1;
        c->count++;
        c->compared += r->compared;
        c->differing += r->differs;
        if (r->differs && !c->first)
            c->first = r;
    }
    if (c->count == 0)
        return gemma4_fail(error, "%s: expected a tap that %s holds too, found none", c->path_b,
                           c->path_a);
    if (c->compared == 0 && !c->first)
        return gemma4_fail(error, "%s: expected a tap that can be compared with %s, found %s",
                           c->path_b, c->path_a, c->taps[0].note);
    return 0;
}
