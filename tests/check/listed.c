#include "listed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "logprobs.h"
#include "rows.h"
#include "thresholds.h"

typedef gemma4_real real;

/* What servers write where they do not know a log-probability. */
#define PLACEHOLDER (-9999.0f)

/* ------------------------------------------------------------------- reading */

static const gemma4_activation *find(gemma4_activations *engine, gemma4_tap tap)
{
    const gemma4_activation *a = gemma4_activations_find(engine, tap, 0);
    return a && a->usable ? a : NULL;
}

static size_t tokens_of(const gemma4_activation *a)
{
    return a->shape[a->rank - 1];
}

static int by_id(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return x < y ? -1 : x > y;
}

/* sorted receives the ids in order. */
static bool are_distinct_tokens(const int32_t *ids, size_t N, size_t V, int32_t *sorted)
{
    memcpy(sorted, ids, N * sizeof *sorted);
    qsort(sorted, N, sizeof *sorted, by_id);
    for (size_t i = 1; i < N; i++)
        if (sorted[i] == sorted[i - 1])
            return false;
    return sorted[0] >= 0 && (size_t)sorted[N - 1] < V;
}

int gemma4_subject_read_listed(gemma4_subject *s, gemma4_activations *engine, gemma4_error *error)
{
    const gemma4_activation *a = find(engine, GEMMA4_TAP_LOGPROBS_IDS);
    if (!a)
        return 0;
    size_t N = tokens_of(a), V = s->model->config.vocab_size;
    s->listed_ids = calloc(s->T * N, sizeof *s->listed_ids);
    s->have_listed = calloc(s->T, sizeof *s->have_listed);
    int32_t *sorted = malloc(N * sizeof *sorted);
    int status = s->listed_ids && s->have_listed && sorted
                     ? 0
                     : gemma4_fail(error, "log-probabilities: out of memory");
    if (!status)
        status = gemma4_read_positions(engine, a, 0, s->T, N, NULL, s->listed_ids, s->have_listed,
                                       error);
    for (size_t t = 0; t < s->T && !status; t++)
        s->have_listed[t] =
            s->have_listed[t] && are_distinct_tokens(s->listed_ids + t * N, N, V, sorted);
    free(sorted);
    s->listed = status ? 0 : N;
    return status;
}

bool gemma4_logprobs_are_usable(const gemma4_subject *s, const gemma4_activation *values)
{
    return values && s->listed && tokens_of(values) == s->listed;
}

void gemma4_listed_problem(gemma4_activations *engine, char *problem, size_t size)
{
    const gemma4_activation *ids = find(engine, GEMMA4_TAP_LOGPROBS_IDS),
                            *values = find(engine, GEMMA4_TAP_LOGPROBS);
    problem[0] = '\0';
    if (values && !ids)
        snprintf(problem, size,
                 "expected logprobs.ids beside it, which say whose they are, found none that can "
                 "be read");
    else if (values && tokens_of(values) != tokens_of(ids))
        snprintf(problem, size, "expected %zu a position like logprobs.ids, found %zu",
                 tokens_of(ids), tokens_of(values));
}

/* ------------------------------------------------------------------ computing */

void gemma4_listed_logprobs(const gemma4_subject *s, size_t first, size_t rows, const real *logits,
                            gemma4_noise *noise, real *out)
{
    size_t N = s->listed, V = s->model->config.vocab_size;
    for (size_t row = 0; row < rows; row++) {
        const real *l = logits + row * V;
        const int32_t *ids = s->listed_ids + (first + row) * N;
        bool have = s->have_listed[first + row];
        double subtracted = have ? gemma4_log_of_sum(l, V) : 0;
        if (noise) {
            real rounded = (real)subtracted;
            gemma4_noise_storage(noise, GEMMA4_TAP_LOGPROBS, &rounded, 1, s->tier->unit);
            subtracted = (double)rounded;
        }
        for (size_t i = 0; i < N; i++)
            out[row * N + i] = have ? (real)((double)l[ids[i]] - subtracted) : 0;
    }
}

void gemma4_listed_differences(const gemma4_subject *s, size_t rows, real *values)
{
    size_t N = s->listed;
    for (size_t row = 0; s->listed_by_difference && N > 1 && row < rows; row++) {
        real *v = values + row * N;
        double mean = 0;
        bool known = true;
        for (size_t i = 0; i < N; i++) {
            known = known && isfinite(v[i]) && v[i] > (real)PLACEHOLDER;
            mean += (double)v[i] / (double)N;
        }
        for (size_t i = 0; known && i < N; i++)
            v[i] = (real)((double)v[i] - mean);
    }
}

int gemma4_listed_engine_differences(const gemma4_subject *s, float *values, gemma4_error *error)
{
    size_t count = s->T * s->listed;
    real *copy = s->listed_by_difference ? malloc(count * sizeof *copy) : NULL;
    if (!s->listed_by_difference)
        return 0;
    if (!copy)
        return gemma4_fail(error, "log-probabilities: out of memory");
    for (size_t i = 0; i < count; i++)
        copy[i] = (real)values[i];
    gemma4_listed_differences(s, s->T, copy);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)copy[i];
    free(copy);
    return 0;
}

/* -------------------------------------------------------------------- judging */

/* By how much an unlisted token's logit may exceed a listed one's at this row: rounding of the
 * engine's own logits where the dump holds them, else what rounding may have done to two of
 * them. */
static double slack_of(const gemma4_evidence *e, size_t row)
{
    const gemma4_tap_evidence *t = &e->taps[GEMMA4_TAP_LOGITS];
    const gemma4_activation *values = e->taps[GEMMA4_TAP_LOGPROBS].stored;
    bool has_logits = t->engine && t->have[row], by_difference = e->subject->listed_by_difference;
    /* It may choose by logarithms of probabilities, in which logits tie that differ. */
    double largest = fabs(gemma4_log_of_sum(t->values + row * t->width, t->width));
    for (size_t i = row * t->width; i < (row + 1) * t->width; i++)
        largest = fmax(largest, fabs((double)t->values[i]));
    if (has_logits)
        return TIE_ROUNDINGS_STORED * gemma4_storage_unit(e->subject, t->stored) * largest;
    /* Rungs may have logits that are nothing beside their logarithms. */
    double rounding = by_difference && values
                          ? TIE_ROUNDINGS_STORED * gemma4_storage_unit(e->subject, values) * largest
                          : 0;
    return NEAR_TIE_DEVIATIONS * sqrt(2) * t->sigma[row] + rounding;
}

/* A token that is not listed though it is clearly more likely than one that is. */
typedef struct omission {
    int32_t token, listed;
    double by; /* difference of their logits; 0: there is none */
} omission;

static omission find_omission(const gemma4_evidence *e, size_t row, bool *is_listed)
{
    const gemma4_subject *s = e->subject;
    size_t N = s->listed, V = s->model->config.vocab_size;
    const real *logits = e->taps[GEMMA4_TAP_LOGITS].values + row * V;
    const int32_t *ids = s->listed_ids + row * N;
    omission o = {.token = -1, .listed = ids[0]};
    memset(is_listed, 0, V * sizeof *is_listed);
    for (size_t i = 0; i < N; i++) {
        is_listed[ids[i]] = true;
        if (logits[ids[i]] < logits[o.listed])
            o.listed = ids[i];
    }
    for (size_t i = 0; i < V; i++)
        if (!is_listed[i] && (o.token < 0 || logits[i] > logits[o.token]))
            o.token = (int32_t)i;
    double by = o.token < 0 ? 0 : (double)logits[o.token] - (double)logits[o.listed];
    o.by = by > slack_of(e, row) ? by : 0;
    return o;
}

/* Lists that hold a token twice, or none of the vocabulary's. */
static size_t find_impossible(const gemma4_subject *s, const bool *stored, size_t *first)
{
    size_t count = 0;
    for (size_t t = 0; t < s->T; t++)
        if (stored[t] && !s->have_listed[t] && count++ == 0)
            *first = s->first_row + t;
    return count;
}

static void judge_lists(const gemma4_evidence *e, const bool *stored, bool values_fail,
                        bool *is_listed, gemma4_tap_result *r)
{
    const gemma4_subject *s = e->subject;
    size_t impossible, first = 0, omissions = 0, first_omission = 0;
    omission shown = {0};
    r->rows = r->rows_left_out = 0;
    impossible = find_impossible(s, stored, &first);
    for (size_t t = 0; t < s->T; t++) {
        bool judged = s->have_listed[t] && !values_fail;
        omission o = judged ? find_omission(e, t, is_listed) : (omission){0};
        r->rows += judged;
        r->rows_left_out += stored[t] && !judged;
        if (o.by > 0 && omissions++ == 0) {
            first_omission = s->first_row + t;
            shown = o;
        }
    }
    r->local = (gemma4_measure){GEMMA4_METRIC_LISTED_TOKENS, (double)(impossible + omissions), 0,
                                impossible ? first : first_omission};
    r->verdict = impossible + omissions ? GEMMA4_DIVERGES
                 : r->rows              ? GEMMA4_PASS
                                        : GEMMA4_NOT_COVERED;
    if (impossible)
        snprintf(r->problem, sizeof r->problem,
                 "at %zu position%s a token is listed twice or is none of 0 ... %zu, first at "
                 "position %zu",
                 impossible, impossible == 1 ? "" : "s", s->model->config.vocab_size - 1, first);
    else if (omissions)
        snprintf(r->problem, sizeof r->problem,
                 "at %zu position%s a token that is clearly more likely is missing, first at "
                 "position %zu: %d, whose logit is "
                 "%.3g above that of %d",
                 omissions, omissions == 1 ? "" : "s", first_omission, shown.token, shown.by,
                 shown.listed);
}

int gemma4_judge_listed(const gemma4_evidence *e, gemma4_activations *engine, bool values_fail,
                        gemma4_tap_result *r, gemma4_error *error)
{
    const gemma4_subject *s = e->subject;
    const gemma4_activation *a = find(engine, GEMMA4_TAP_LOGPROBS_IDS);
    bool *is_listed = malloc(s->model->config.vocab_size * sizeof *is_listed),
         *stored = calloc(s->T, sizeof *stored);
    int status = is_listed && stored ? 0 : gemma4_fail(error, "log-probabilities: out of memory");
    for (size_t i = 0; i < a->rows && !status; i++)
        if (a->row_index[i] - s->first_row < s->T) /* unsigned: those before are beyond, too */
            stored[a->row_index[i] - s->first_row] = true;
    if (!status)
        judge_lists(e, stored, values_fail, is_listed, r);
    free(is_listed);
    free(stored);
    return status;
}

bool gemma4_judge_placeholders(const gemma4_evidence *e, gemma4_tap_result *r)
{
    const gemma4_tap_evidence *t = &e->taps[GEMMA4_TAP_LOGPROBS];
    size_t above = 0, unknown = 0, first = 0;
    for (size_t row = 0; row < e->subject->T; row++)
        for (size_t i = row * t->width; t->stored_row[row] && i < (row + 1) * t->width; i++) {
            bool is_above = !e->subject->listed_by_difference &&
                            (double)t->engine[i] > LIMIT_WORST * t->sigma[row],
                 is_unknown = t->engine[i] <= PLACEHOLDER && isfinite(t->engine[i]);
            if ((is_above || is_unknown) && above + unknown == 0)
                first = e->subject->first_row + row;
            above += is_above;
            unknown += is_unknown;
        }
    if (above + unknown == 0)
        return false;
    if (above)
        snprintf(r->problem, sizeof r->problem,
                 "%zu value%s above 0, first at position %zu: natural logarithms of probabilities "
                 "are not (are these logits, or "
                 "probabilities?)",
                 above, above == 1 ? " is" : "s are", first);
    else
        snprintf(r->problem, sizeof r->problem,
                 "%zu value%s a placeholder (%g or less), no log-probability, first at position "
                 "%zu: leave such tokens out",
                 unknown, unknown == 1 ? " is" : "s are", (double)PLACEHOLDER, first);
    r->local = (gemma4_measure){GEMMA4_METRIC_SHAPE, INFINITY, 0, first};
    r->verdict = GEMMA4_DIVERGES;
    return true;
}
