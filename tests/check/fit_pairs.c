/* Two catalogued mistakes in one bridged block. */
#include "fit_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "counter_model.h"
#include "evidence.h"
#include "filter.h"
#include "planted.h"
#include "thresholds.h"

typedef gemma4_real real;

typedef struct pair {
    size_t a, b;
    double share;
} pair;

/* In units of each value's noise, so that a plain sum of products weighs them; rows that cannot be
 * compared are 0. */
static void weigh(const fit_search *s, float *x, size_t positions)
{
    const gemma4_tap_evidence *t = &s->e->taps[s->tap];
    for (size_t i = 0; i < positions * t->width; i++)
        x[i] = t->have[i / t->width]
                   ? (float)((double)x[i] / sqrt(gemma4_noise_variance(t, i / t->width, i)))
                   : 0;
}

static double product(const float *x, const float *y, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)y[i];
    return sum;
}

/* The error at the first positions, weighed; NULL when out of memory. */
static float *weighed_error(const fit_search *s, size_t positions)
{
    const gemma4_tap_evidence *t = &s->e->taps[s->tap];
    size_t n = positions * t->width;
    float *error = malloc((n ? n : 1) * sizeof *error);
    for (size_t i = 0; error && i < n; i++)
        error[i] = t->engine[i] - (float)t->expected[i];
    if (error)
        weigh(s, error, positions);
    return error;
}

/* The weighed effect of one model: its size, and its product with the error. */
typedef struct effect {
    size_t model;
    const float *difference;
    double size, error;
} effect;

/* The part of the error that both effects explain together, each times what suits best: for effects
 * that are small enough to add up. */
static pair pair_of(const effect *x, const effect *y, size_t n, double total)
{
    double xy = product(x->difference, y->difference, n), determinant = x->size * y->size - xy * xy;
    pair p = {x->model, y->model, 0};
    if (determinant > PAIR_ALIKE * x->size * y->size)
        p.share = (x->error * x->error * y->size - 2 * x->error * y->error * xy +
                   y->error * y->error * x->size) /
                  determinant / total;
    return p;
}

static int by_pair_share(const void *a, const void *b)
{
    const pair *x = a, *y = b;
    return x->share > y->share ? -1 : x->share < y->share;
}

/* Of the models that explain most, the effects. */
static size_t find_effects(fit_search *s, const float *error, size_t positions, effect *effects)
{
    size_t models[PAIR_MODELS], count = fit_by_share(s, models, PAIR_MODELS), found = 0,
                                n = positions * s->e->taps[s->tap].width;
    for (size_t i = 0; i < count; i++) {
        float *difference = s->differences[models[i]];
        if (!difference)
            continue;
        weigh(s, difference, positions);
        effects[found++] = (effect){models[i], difference, product(difference, difference, n),
                                    product(difference, error, n)};
    }
    return found;
}

static int try_pair(fit_search *s, const pair *p)
{
    bool a_first = s->partial[p->a].residual <= s->partial[p->b].residual;
    size_t first = a_first ? p->a : p->b, second = a_first ? p->b : p->a;
    gemma4_planted planted = {
        .models = {gemma4_counter_model_at(first), gemma4_counter_model_at(second)},
        .only_layer = {-1, -1},
        .count = 2};
    return fit_try(s, &planted, first, second);
}

/* The pairs that explain most are tried as they are. */
int fit_try_pairs(fit_search *s)
{
    effect effects[PAIR_MODELS];
    size_t positions = PREFIX_POSITIONS < s->e->subject->T ? PREFIX_POSITIONS : 0,
           n = positions * s->e->taps[s->tap].width, pairs = 0;
    float *error = weighed_error(s, positions);
    pair *ranked = calloc((size_t)PAIR_MODELS * PAIR_MODELS, sizeof *ranked);
    int status = error && ranked ? 0 : gemma4_fail(s->error, "diagnosis: out of memory");
    double total = error ? product(error, error, n) : 0;
    size_t count = !status && total > 0 ? find_effects(s, error, positions, effects) : 0;
    for (size_t a = 0; a < count; a++)
        for (size_t b = a + 1; b < count; b++)
            ranked[pairs++] = pair_of(&effects[a], &effects[b], n, total);
    if (pairs)
        qsort(ranked, pairs, sizeof *ranked, by_pair_share);
    for (size_t i = 0; i < pairs && i < PAIR_TRIES && !status; i++)
        status = try_pair(s, &ranked[i]);
    free(error);
    free(ranked);
    return status;
}
