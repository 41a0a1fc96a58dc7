/* A fused mixture of experts shows one tensor for what is chosen, how it is weighted and what each
 * expert computes. These come apart: the sum over the chosen experts is linear in their weights, so
 * whatever the weights are, least squares finds them, position by position, from the outputs of the
 * right experts. What leaves nothing then is right up to the weights, and the weights are looked
 * into next. */
#include "identify_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "noise.h"
#include "planted.h"
#include "point.h"
#include "thresholds.h"

typedef gemma4_real real;

enum { MOST_RANKS = IDENTIFY_MOST_RANKS };

/* Settings with all weights free. */
typedef struct split {
    gemma4_setting settings[GEMMA4_POINT_SETTINGS];
    size_t count;
    double left;                /* of the error, in spreads, whatever the weights are */
    double largest[MOST_RANKS]; /* of each rank's weights, as multiples of the right ones */
} split;

/* Does the setting change which experts are chosen, or what they compute? */
bool identify_is_of_experts(const gemma4_setting *s)
{
    const uint64_t steps = GEMMA4_STEP(GEMMA4_TAP_ROUTER_TOPK_IDS) |
                           GEMMA4_STEP(GEMMA4_TAP_MOE_NORM) | GEMMA4_STEP(GEMMA4_TAP_MOE_ACT) |
                           GEMMA4_STEP(GEMMA4_TAP_MOE_OUT);
    return (s->steps & steps) && s->parameter != GEMMA4_PARAMETER_RESULT_FACTOR &&
           s->parameter != GEMMA4_PARAMETER_RESULT_FACTORS &&
           s->parameter != GEMMA4_PARAMETER_EXPERTS_MISSING &&
           s->parameter != GEMMA4_PARAMETER_SUM_TYPE &&
           s->parameter != GEMMA4_PARAMETER_WEIGHT_FACTORS;
}

/* Least squares of one position: the weights of the K outputs at parts[r * n], to `weights`;
 * returns what they leave of the squares, in spreads. */
static double solve_row(const gemma4_tap_evidence *t, size_t row, const real *parts, size_t n,
                        size_t K, double *weights)
{
    double a[MOST_RANKS * MOST_RANKS], b[MOST_RANKS], left = 0;
    for (size_t r = 0; r < K; r++) {
        const real *x = parts + r * n + row * t->width;
        b[r] = 0;
        for (size_t i = 0; i < t->width; i++)
            b[r] += (double)x[i] * (double)t->engine[row * t->width + i];
        for (size_t q = 0; q <= r; q++) {
            const real *y = parts + q * n + row * t->width;
            double sum = 0;
            for (size_t i = 0; i < t->width; i++)
                sum += (double)x[i] * (double)y[i];
            a[r * K + q] = a[q * K + r] = sum;
        }
    }
    gemma4_solve_system(a, b, K, 0, weights);
    for (size_t i = row * t->width; i < (row + 1) * t->width; i++) {
        double error = (double)t->engine[i];
        for (size_t r = 0; r < K; r++)
            error -= weights[r] * (double)parts[r * n + i];
        left += error * error / (t->sigma[row] * t->sigma[row]);
    }
    return left;
}

/* The output of each rank, with the weight that it should have: [K][T * width]. */
static int predict_parts(identification *own, const split *s, real *parts)
{
    const gemma4_config *c = &own->s->e->subject->model->config;
    size_t K = c->top_k_experts, n = own->s->e->subject->T * own->s->e->taps[own->s->tap].width;
    int where = identify_where(own->s->e), status = 0;
    gemma4_setting rank = {.parameter = GEMMA4_PARAMETER_RESULT_FACTORS,
                           .steps = GEMMA4_STEP(GEMMA4_TAP_ROUTER_TOPK_WEIGHTS),
                           .count = K};
    gemma4_point *point = gemma4_point_new(c, s->settings, s->count, where),
                 *only = gemma4_point_new(c, &rank, 1, where);
    if (!point || !only)
        status = gemma4_fail(own->s->error, "diagnosis: out of memory");
    for (size_t r = 0; r < K && !status; r++) {
        memset(only->settings[0].list, 0, K * sizeof *only->settings[0].list);
        only->settings[0].list[r] = 1;
        const gemma4_planted planted = {.models = {&only->model, &point->model},
                                        .only_layer = {-1, -1},
                                        .count = 2,
                                        .scope = own->scope};
        status = identify_predict_planted(own, &planted);
        if (!status)
            memcpy(parts + r * n, own->s->prediction, n * sizeof *parts);
    }
    free(point);
    free(only);
    return status;
}

static int look_at_split(identification *own, void *context, size_t i)
{
    split *s = (split *)context + i;
    const gemma4_evidence *e = own->s->e;
    const gemma4_tap_evidence *t = &e->taps[own->s->tap];
    const gemma4_against rows = {.positions = own->positions};
    size_t K = e->subject->model->config.top_k_experts, n = e->subject->T * t->width, freedom = 0;
    double weights[MOST_RANKS], sum = 0;
    memset(s->largest, 0, sizeof s->largest);
    real *parts = malloc(K * n * sizeof *parts);
    if (!parts || predict_parts(own, s, parts)) {
        free(parts);
        return parts ? -1 : gemma4_fail(own->s->error, "diagnosis: out of memory");
    }
    for (size_t row = 0; row < e->subject->T; row++) {
        if (!gemma4_row_counts(e, own->s->tap, &rows, row))
            continue;
        sum += solve_row(t, row, parts, n, K, weights);
        freedom += t->width - K;
        for (size_t r = 0; r < K; r++)
            s->largest[r] = fmax(s->largest[r], fabs(weights[r]));
    }
    s->left = freedom ? sqrt(sum / (double)freedom) : INFINITY;
    free(parts);
    return 0;
}

/* The ranks that have no weight anywhere; false where there are none. */
static bool missing_ranks(const split *s, size_t K, gemma4_setting *missing)
{
    *missing = (gemma4_setting){.parameter = GEMMA4_PARAMETER_EXPERTS_MISSING,
                                .steps = GEMMA4_STEP(GEMMA4_TAP_MOE_OUT)};
    for (size_t r = 0; r < K; r++)
        missing->number += s->largest[r] <= RANK_MISSING ? ldexp(1, (int)r) : 0;
    return missing->number > 0;
}

static int by_left(const void *a, const void *b)
{
    const split *x = a, *y = b;
    return x->left < y->left     ? -1
           : x->left > y->left   ? 1
           : x->count < y->count ? -1
                                 : x->count > y->count;
}

/* --- numbers --- */

/* Moves the number of the last setting by a part of it. */
static int look_moved(identification *own, const split *from, double by, split *to)
{
    *to = *from;
    to->settings[to->count - 1].number *= exp(by);
    return look_at_split(own, to, 0);
}

/* The number with which least is left, whatever the weights are: the squares are a parabola near
 * there. */
static int solve_split(identification *own, void *context, size_t i)
{
    split *s = (split *)context + i, less, more, next;
    double step = 0.5;
    for (int k = 0; k < 2 * SOLVE_STEPS && step > 1e-7; k++) {
        if (look_moved(own, s, -step, &less) || look_moved(own, s, step, &more))
            return -1;
        double a = less.left * less.left, b = s->left * s->left, c = more.left * more.left,
               bend = a - 2 * b + c;
        double by = bend > 0 ? step * (a - c) / (2 * bend) : a < c ? -2 * step : 2 * step;
        by = fmax(-2 * step, fmin(2 * step, by));
        if (look_moved(own, s, by, &next))
            return -1;
        const split *best = less.left < more.left ? &less : &more;
        best = next.left < best->left ? &next : best;
        if (best->left < s->left)
            *s = *best;
        /* as far as that: it may lie beyond */
        step = fabs(by) < 1.9 * step ? fmin(step / 2, fmax(fabs(by) / 4, step / 64)) : step;
    }
    return 0;
}

static bool is_number(const gemma4_setting *s)
{
    return identify_is_solved_for(s) && s->count == 0 && s->number != 0;
}

/* Those of the best that have a number to solve for, each function or parameter once. */
static int solve_numbers(identification *id, const split *splits, size_t count, split *solved,
                         size_t *solved_count)
{
    for (size_t i = 0; i < count && *solved_count < IDENTIFY_SPLIT_BASES; i++) {
        const gemma4_setting *s = &splits[i].settings[0];
        bool is_new = splits[i].count == 1 && is_number(s);
        for (size_t k = 0; k < *solved_count; k++)
            is_new = is_new && (solved[k].settings[0].parameter != s->parameter ||
                                solved[k].settings[0].word != s->word);
        if (is_new)
            solved[(*solved_count)++] = splits[i];
    }
    return identify_each(id, *solved_count, solve_split, solved);
}

/* --- bases --- */

/* Makes a candidate of what is right up to the weights; none where that is the right model. */
static int keep_base(identification *id, const split *s, identify_candidate *bases, size_t *count)
{
    const gemma4_config *c = &id->s->e->subject->model->config;
    gemma4_setting settings[GEMMA4_POINT_SETTINGS + 1];
    size_t n = s->count;
    memcpy(settings, s->settings, n * sizeof *settings);
    n += missing_ranks(s, c->top_k_experts, &settings[n]);
    if (n == 0 || n > GEMMA4_POINT_SETTINGS)
        return 0;
    identify_candidate base = {.point = gemma4_point_new(c, settings, n, identify_where(id->s->e)),
                               .only_layer = -1};
    int status = base.point ? identify_look(id, &base)
                            : gemma4_fail(id->s->error, "diagnosis: out of memory");
    if (status || identify_is_rounding(id, &base))
        free(base.point);
    else
        bases[(*count)++] = base;
    return status;
}

/* Does one before it predict the very same with fewer settings? */
static bool is_the_same(const split *splits, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (splits[k].left == splits[i].left && splits[k].count < splits[i].count)
            return true;
    return false;
}

/* The bases among splits: those that leave no more than rounding. */
static int keep_bases(identification *id, split *splits, size_t count, identify_candidate *bases,
                      size_t *found)
{
    double limit = (id->first_look ? SCREEN_FACTOR : 1) * LIMIT_SCORE;
    if (count)
        qsort(splits, count, sizeof *splits, by_left);
    for (size_t i = 0; i < count && *found < IDENTIFY_SPLIT_BASES && splits[i].left <= limit; i++)
        if (!is_the_same(splits, i) && keep_base(id, &splits[i], bases, found))
            return -1;
    return 0;
}

/* Two or three settings of different steps; a number among them is solved for where they leave too
 * much. */
static int keep_products(identification *id, bool in_three_steps, identify_candidate *bases,
                         size_t *found)
{
    identify_combination *list = calloc(IDENTIFY_PRODUCT_KEPT, sizeof *list);
    split *splits = calloc(IDENTIFY_PRODUCT_KEPT, sizeof *splits);
    size_t count = 0, numbers = 0;
    int status = list && splits ? identify_product(id, in_three_steps, list, &count)
                                : gemma4_fail(id->s->error, "diagnosis: out of memory");
    for (size_t i = 0; i < count; i++) {
        memcpy(splits[i].settings, list[i].settings, sizeof list->settings);
        splits[i].count = list[i].count;
    }
    status = status ? status : identify_each(id, count, look_at_split, splits);
    status = status ? status : keep_bases(id, splits, count, bases, found);
    for (size_t i = 0; i < count && numbers < 2 * IDENTIFY_SPLIT_BASES; i++)
        if (is_number(&splits[i].settings[splits[i].count - 1]))
            splits[numbers++] = splits[i];
    if (!status && *found == 0)
        status = identify_each(id, numbers, solve_split, splits);
    if (!status && *found == 0)
        status = keep_bases(id, splits, numbers, bases, found);
    free(list);
    free(splits);
    return status;
}

/* Two settings: each of the best splits, of other parameters, with every other one. */
static int keep_pairs(identification *id, const split *splits, size_t count,
                      identify_candidate *bases, size_t *found)
{
    size_t taken[IDENTIFY_SPLIT_BASES], firsts = 0, n = 0;
    for (size_t i = 0; i < count && firsts < IDENTIFY_SPLIT_BASES; i++) {
        bool is_new = splits[i].count == 1;
        for (size_t k = 0; k < firsts; k++)
            is_new =
                is_new && splits[taken[k]].settings[0].parameter != splits[i].settings[0].parameter;
        if (is_new)
            taken[firsts++] = i;
    }
    split *pairs = calloc(firsts * count + 1, sizeof *pairs);
    if (!pairs)
        return gemma4_fail(id->s->error, "diagnosis: out of memory");
    for (size_t k = 0; k < firsts; k++)
        for (size_t i = 0; i < count; i++) {
            const gemma4_setting *a = &splits[taken[k]].settings[0], *b = &splits[i].settings[0];
            if (splits[i].count == 1 && (a->parameter != b->parameter || a->steps != b->steps)) {
                pairs[n].settings[0] = *a;
                pairs[n].settings[1] = *b;
                pairs[n++].count = 2;
            }
        }
    int status = identify_each(id, n, look_at_split, pairs);
    status = status ? status : keep_bases(id, pairs, n, bases, found);
    free(pairs);
    return status;
}

/* The experts are right with none of the settings, with one, with one whose number is solved for,
 * or with two. */
static int find_bases(identification *id, split *splits, size_t count, identify_candidate *bases,
                      size_t *found)
{
    split solved[IDENTIFY_SPLIT_BASES];
    size_t solved_count = 0;
    if (splits[0].left <= (id->first_look ? SCREEN_FACTOR : 1) * LIMIT_SCORE) /* none */
        return keep_base(id, &splits[0], bases, found);
    if (keep_bases(id, splits, count, bases, found) || *found)
        return *found ? 0 : -1;
    if (solve_numbers(id, splits, count, solved, &solved_count) ||
        keep_bases(id, solved, solved_count, bases, found) || *found)
        return *found ? 0 : -1;
    for (int three = 0; three < 2; three++)
        if (keep_products(id, three, bases, found) || *found)
            return *found ? 0 : -1;
    return keep_pairs(id, splits, count, bases, found);
}

/* Is the sum over the experts the failing tap, and are its parts open? */
bool identify_comes_apart(const fit_search *s)
{
    size_t K = s->e->subject->model->config.top_k_experts;
    return s->tap == GEMMA4_TAP_MOE_OUT && !fit_is_bridged(s->e) &&
           !s->e->taps[GEMMA4_TAP_ROUTER_TOPK_WEIGHTS].engine && K <= MOST_RANKS &&
           2 * K <= s->e->taps[s->tap].width;
}

int identify_split_experts(identification *id, identify_candidate *bases, size_t *found)
{
    *found = 0;
    if (!identify_comes_apart(id->s))
        return 0;
    split *splits = calloc(id->single_count + 1, sizeof *splits);
    size_t count = 1; /* the first has no setting */
    if (!splits)
        return gemma4_fail(id->s->error, "diagnosis: out of memory");
    for (size_t i = 0; i < id->single_count; i++)
        if (identify_is_of_experts(&id->singles[i])) {
            splits[count].settings[0] = id->singles[i];
            splits[count++].count = 1;
        }
    int status = identify_each(id, count, look_at_split, splits);
    status = status ? status : find_bases(id, splits, count, bases, found);
    free(splits);
    return status;
}
