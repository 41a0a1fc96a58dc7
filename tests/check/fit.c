#include "fit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "describe.h"
#include "filter.h"
#include "rows.h"
#include "score.h"
#include "thresholds.h"

typedef gemma4_real real;

#define NO_MODEL GEMMA4_NO_MODEL

static bool contains(const gemma4_tap *taps, gemma4_tap tap)
{
    for (; *taps != GEMMA4_TAP_COUNT; taps++)
        if (*taps == tap)
            return true;
    return false;
}

/* ---------------------------------------------------------------- predictions */

bool gemma4_is_one_step(const gemma4_evidence *e, const gemma4_counter_model *m, gemma4_tap tap)
{
    if (!contains(m->taps, tap) || e->known_block != e->block)
        return false;
    for (const gemma4_tap *t = m->taps; *t < tap; t++) {
        const gemma4_tap_evidence *before = &e->taps[*t];
        if (gemma4_tap_is_keys(*t))
            continue;
        if (!before->engine && *t != GEMMA4_TAP_ROUTER_TOPK_IDS)
            return false;
        for (size_t row = 0; before->engine && row < e->subject->T; row++)
            if (!before->have[row])
                return false;
    }
    return true;
}

static bool is_permitted(const gemma4_subject *s, const gemma4_counter_model *m)
{
    return gemma4_counter_model_is_permitted(m, s->tier->unit) || (s->kv_unit > 0 && !strcmp(m->id, "kv-cache-f16"));
}

bool gemma4_can_show(const gemma4_evidence *e, const gemma4_planted *planted, gemma4_tap tap)
{
    const gemma4_config *c = &e->subject->model->config;
    const gemma4_counter_model *m = planted->models[0];
    if (is_permitted(e->subject, m))
        return false;
    for (gemma4_block block = e->known_block; block < e->block; block++)
        if (gemma4_planted_in(c, planted, 0, block))
            return true;
    if (!gemma4_planted_in(c, planted, 0, e->block))
        return false;
    if (contains(m->taps, tap))
        return true;
    for (const gemma4_tap *t = m->taps; *t != GEMMA4_TAP_COUNT && *t < tap; t++)
        if (!e->taps[*t].engine && !gemma4_tap_is_keys(*t))
            return true;
    return false;
}

/* From the one step that is wrong. */
static int predict_step(const gemma4_evidence *e, const gemma4_planted *planted, gemma4_tap tap, real *values, gemma4_error *error)
{
    const gemma4_tap_evidence *t = &e->taps[tap];
    gemma4_parameters parameters = gemma4_right_parameters();
    gemma4_step step = gemma4_evidence_step(e);
    planted->models[0]->change(&parameters);
    if (gemma4_counter_step(&step, &parameters, tap, values, NULL, error))
        return -1;
    for (size_t row = 0; row < e->subject->T; row++)
        if (!gemma4_in_scope(&e->subject->schedule, planted->scope, row))
            memcpy(values + row * t->width, t->expected + row * t->width, t->width * sizeof *values);
    return 0;
}

int gemma4_predict(const gemma4_evidence *e, gemma4_runner *runner, const gemma4_planted *planted, gemma4_tap tap, size_t positions, real *values,
                   bool *open, gemma4_error *error)
{
    if (open)
        memset(open, 0, e->subject->T * sizeof *open);
    memcpy(values, e->taps[tap].expected, e->subject->T * e->taps[tap].width * sizeof *values);
    if (planted->count == 1 && gemma4_is_one_step(e, planted->models[0], tap))
        return predict_step(e, planted, tap, values, error);
    gemma4_counter_run run = {.planted = planted, .positions = positions, .stop = tap, .out = values, .open = open};
    return gemma4_run_counter(e, runner, &run, error);
}

/* --------------------------------------------------------------------- search */

/* The search for what explains one failing tap. */
typedef struct search {
    const gemma4_evidence *e;
    gemma4_runner *runner;
    gemma4_tap tap;
    gemma4_finding *finding;
    gemma4_error *error;
    real *prediction;    /* [T, width] */
    bool *open;          /* [T] positions whose choice of experts is open in the prediction */
    gemma4_fit *partial; /* [catalogue] every model planted everywhere; model is NO_MODEL where it was not tried or has no effect */
    bool *missed_early;  /* [catalogue] planted everywhere, it did not fit the first positions */
    float **differences; /* [catalogue] predicted differences at the first positions; NULL where not kept */
} search;

typedef enum trial { TRIAL_ERROR = -1, TRIAL_NO_EFFECT, TRIAL_MISS, TRIAL_FIT } trial;

static bool is_bridged(const gemma4_evidence *e)
{
    return e->known_block < e->block;
}

static int by_residual(const void *a, const void *b)
{
    const gemma4_fit *x = a, *y = b;
    return x->residual < y->residual ? -1 : x->residual > y->residual;
}

static void keep_fit(gemma4_finding *f, const gemma4_fit *fit)
{
    if (f->fit_count < GEMMA4_MAX_FITS)
        f->fits[f->fit_count++] = *fit;
    else if (fit->residual < f->fits[GEMMA4_MAX_FITS - 1].residual)
        f->fits[GEMMA4_MAX_FITS - 1] = *fit;
    qsort(f->fits, f->fit_count, sizeof *f->fits, by_residual);
}

/* The best of those that do not fit: the one that leaves the least part of the error. Where the error is within rounding, at the few
 * positions that were looked at, what is left of it says nothing; and of a pair, one alone would be named. */
static void keep_near(gemma4_finding *f, const gemma4_fit *fit)
{
    if (!(fit->error > LIMIT_SCORE) || fit->second != NO_MODEL)
        return;
    if (f->has_near && !(fit->residual / fit->error < f->near.residual / f->near.error))
        return;
    f->near = *fit;
    f->has_near = true;
}

/* ------------------------------------------------------------------- scoring */

/* Can positions differ from a prediction because rounding chose other experts? Where the dump settles neither choice nor logits, in a
 * precision in which near-ties are common. */
static bool flips_are_possible(const gemma4_evidence *e, gemma4_tap tap)
{
    return e->subject->tier->unit > UNIT_FLOAT32 && tap >= GEMMA4_TAP_MOE_OUT && !e->taps[GEMMA4_TAP_ROUTER_LOGITS].engine &&
           !(e->have_valid_ids && e->have_valid_ids[0]);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Marks the rows that the prediction fits worst, all but FLIP_ROWS of them. */
static int skip_flips(const search *s, size_t positions, bool *skip)
{
    const gemma4_tap_evidence *t = &s->e->taps[s->tap];
    const gemma4_against all = {.positions = positions};
    size_t T = s->e->subject->T, rows = 0;
    double *errors = calloc(2 * T, sizeof *errors);
    if (!errors)
        return gemma4_fail(s->error, "diagnosis: out of memory");
    for (size_t row = 0; row < T; row++) {
        if (!gemma4_row_counts(s->e, s->tap, &all, row))
            continue;
        for (size_t i = row * t->width; i < (row + 1) * t->width; i++) {
            double e = (double)t->engine[i] - (double)s->prediction[i];
            errors[row] += e * e;
        }
        errors[row] /= t->sigma[row] * t->sigma[row];
        errors[T + rows++] = errors[row];
    }
    qsort(errors + T, rows, sizeof *errors, by_value);
    double limit = rows ? errors[T + (size_t)(FLIP_ROWS * (double)(rows - 1))] : 0;
    for (size_t row = 0; row < T; row++)
        skip[row] = errors[row] > limit;
    free(errors);
    return 0;
}

/* What the prediction leaves of the error at the rows given. */
static trial score_rows(const search *s, const gemma4_against *rows, double limit_part, gemma4_fit *fit)
{
    gemma4_against expected = *rows, every = {.positions = rows->positions};
    expected.values = NULL;
    gemma4_filter projection = gemma4_project(s->e, s->tap, rows->values, rows);
    if (projection.size == 0)
        return TRIAL_NO_EFFECT;
    gemma4_score left = gemma4_score_tap(s->e, s->tap, rows), all = gemma4_score_tap(s->e, s->tap, &expected);
    /* Positions whose choice of experts is open were left out: enough of them must have been judged. */
    bool judged = left.rows > 0 && (double)left.rows >= JUDGED_PART * (double)gemma4_score_tap(s->e, s->tap, &every).rows;
    fit->coefficient = gemma4_filter_coefficient(&projection);
    fit->share = gemma4_filter_share(&projection);
    fit->residual = judged ? left.score : INFINITY;
    fit->worst = left.worst;
    fit->error = all.score;
    double limit = left.rows == 1 ? LIMIT_WORST : LIMIT_SCORE; /* one row is no average */
    bool fits = judged && left.score <= limit_part * limit && left.worst <= limit_part * LIMIT_WORST &&
                fabs(fit->coefficient - 1) <= FIT_COEFFICIENT;
    /* Of rows that were chosen because they fit, more is asked: without the mistake they must not fit. */
    if (limit_part < 1)
        fits = fits && all.score >= FLIP_IMPROVEMENT * left.score;
    return fits ? TRIAL_FIT : TRIAL_MISS;
}

static trial score_prediction(const search *s, size_t positions, gemma4_fit *fit)
{
    gemma4_against rows = {.values = s->prediction, .skip = s->open, .positions = positions};
    trial result = score_rows(s, &rows, 1, fit);
    if (result == TRIAL_NO_EFFECT && positions == 0) { /* but where the choice is open: it may have been this one */
        rows.skip = NULL;
        result = score_rows(s, &rows, 1, fit);
    }
    if (result != TRIAL_MISS || !flips_are_possible(s->e, s->tap))
        return result;
    bool *skip = calloc(s->e->subject->T, sizeof *skip);
    gemma4_fit part = *fit;
    if (!skip)
        gemma4_fail(s->error, "diagnosis: out of memory");
    if (!skip || skip_flips(s, positions, skip)) {
        free(skip);
        return TRIAL_ERROR;
    }
    rows.skip = skip;
    if (score_rows(s, &rows, FLIP_LIMIT_PART, &part) == TRIAL_FIT) {
        *fit = part;
        result = TRIAL_FIT;
    }
    free(skip);
    return result;
}

/* The spread that honest rounding has in the model with the mistake: a wrong model may amplify noise more than the right one. The wider
 * of both, for each row. NULL when out of memory or where a run fails. */
static double *planted_spread(const search *s, const gemma4_planted *planted, size_t positions)
{
    const gemma4_tap_evidence *t = &s->e->taps[s->tap];
    size_t T = s->e->subject->T, rows = positions ? positions : T;
    double *sigma = calloc(T, sizeof *sigma);
    real *perturbed = malloc(T * t->width * sizeof *perturbed);
    gemma4_counter_run run = {.planted = planted, .positions = positions, .stop = s->tap, .out = perturbed};
    int status = sigma && perturbed ? 0 : gemma4_fail(s->error, "diagnosis: out of memory");
    for (run.draw = 1; run.draw <= PLANTED_DRAWS && !status; run.draw++) {
        status = gemma4_run_counter(s->e, s->runner, &run, s->error);
        for (size_t i = 0; i < rows * t->width && !status; i++) {
            double e = (double)perturbed[i] - (double)s->prediction[i];
            sigma[i / t->width] += e * e / (double)(t->width * PLANTED_DRAWS);
        }
    }
    for (size_t row = 0; row < T && !status; row++)
        sigma[row] = fmax(sqrt(sigma[row]), t->sigma[row]);
    free(perturbed);
    if (status) {
        free(sigma);
        return NULL;
    }
    return sigma;
}

/* A prediction that leaves next to nothing of the error, but more than the right model's noise, is measured against its own noise. */
static trial retry_with_spread(const search *s, const gemma4_planted *planted, size_t positions, gemma4_fit *fit)
{
    const gemma4_against every = {.positions = positions};
    double effect = gemma4_score_tap(s->e, s->tap, &every).score;
    if (!(fabs(fit->coefficient - 1) <= FIT_COEFFICIENT && fit->residual <= NEAR_PART * effect))
        return TRIAL_MISS;
    double *wider = planted_spread(s, planted, positions);
    if (!wider)
        return TRIAL_ERROR;
    const gemma4_against rows = {.values = s->prediction, .sigma = wider, .skip = s->open, .positions = positions};
    trial result = score_rows(s, &rows, 1, fit);
    free(wider);
    return result;
}

/* What planted mistakes leave of the error, at the first so many positions or (0) at all. */
static trial try_positions(search *s, const gemma4_planted *planted, size_t positions, gemma4_fit *fit)
{
    if (gemma4_predict(s->e, s->runner, planted, s->tap, positions, s->prediction, s->open, s->error))
        return TRIAL_ERROR;
    trial result = score_prediction(s, positions, fit);
    return result == TRIAL_MISS ? retry_with_spread(s, planted, positions, fit) : result;
}

/* Does a query see later positions than its own? Then what it computes changes where the case is cut. */
static bool sees_later(const gemma4_planted *planted)
{
    gemma4_parameters p = gemma4_right_parameters();
    for (size_t i = 0; i < planted->count; i++)
        planted->models[i]->change(&p);
    return p.attention.not_causal || p.attention.cache == GEMMA4_CACHE_CHUNK_NOT_CAUSAL || p.attention.cache == GEMMA4_CACHE_WINDOW_OF_CHUNK_END;
}

/* How many positions decide at first whether a mistake can fit; 0: all of them are needed. A wrong mask may let the first positions see later
 * ones; a single step is computed faster than it could be cut; and where experts flip, few rows say little. */
static size_t first_positions(const search *s, const gemma4_planted *planted)
{
    const gemma4_subject *subject = s->e->subject;
    size_t first = 0; /* position at which the mistake is made */
    if (sees_later(planted))
        return 0;
    if (!is_bridged(s->e) && (subject->tier->unit > UNIT_FLOAT32 || gemma4_is_one_step(s->e, planted->models[0], s->tap)))
        return 0;
    while (first < subject->T && !gemma4_in_scope(&subject->schedule, planted->scope, first))
        first++;
    return first + PREFIX_POSITIONS < subject->T ? first + PREFIX_POSITIONS : 0;
}

/* A first look at so many positions (0: all), by the machine's fastest operators: may it be the one? What rounding they add is allowed for, and
 * whatever passes is computed again. A predicted difference that their rounding may be is no effect. */
static trial screen_positions(search *s, const gemma4_planted *planted, size_t positions)
{
    const gemma4_against rows = {.values = s->prediction, .skip = s->open, .positions = positions};
    const gemma4_counter_run run = {.planted = planted, .positions = positions, .quick = true, .stop = s->tap, .out = s->prediction, .open = s->open};
    if (gemma4_run_counter(s->e, s->runner, &run, s->error))
        return TRIAL_ERROR;
    gemma4_filter projection = gemma4_project(s->e, s->tap, s->prediction, &rows);
    gemma4_score left = gemma4_score_tap(s->e, s->tap, &rows);
    double effect = left.rows ? sqrt(projection.size / (double)(left.rows * s->e->taps[s->tap].width)) : 0;
    if (!(effect > (positions ? SCREEN_EFFECT : LIMIT_SCORE / 2)))
        return TRIAL_NO_EFFECT;
    bool near = fabs(gemma4_filter_coefficient(&projection) - 1) <= SCREEN_FACTOR * FIT_COEFFICIENT && left.worst <= SCREEN_FACTOR * LIMIT_WORST;
    return near ? TRIAL_FIT : TRIAL_MISS;
}

/* At the position where the mistake is first made, at some, at all, until it has an effect. */
static trial screen(search *s, const gemma4_planted *planted, size_t positions)
{
    trial result = positions ? screen_positions(s, planted, positions - PREFIX_POSITIONS + 1) : TRIAL_NO_EFFECT;
    if (result == TRIAL_NO_EFFECT && positions)
        result = screen_positions(s, planted, positions);
    return result == TRIAL_NO_EFFECT ? screen_positions(s, planted, 0) : result;
}

static void keep_difference(search *s, size_t model, size_t positions)
{
    const gemma4_tap_evidence *t = &s->e->taps[s->tap];
    size_t n = positions * t->width;
    if (!s->differences || n > PAIR_VALUES)
        return;
    s->differences[model] = malloc(n * sizeof **s->differences);
    for (size_t i = 0; s->differences[model] && i < n; i++)
        s->differences[model][i] = s->prediction[i] - t->expected[i];
}

/* Tries what is planted, and keeps how it fits. */
static int try_planted(search *s, const gemma4_planted *planted, size_t model, size_t second)
{
    gemma4_fit fit = {.model = model, .second = second, .only_layer = planted->only_layer[0], .scope = planted->scope};
    if (planted->count == 1 && !gemma4_can_show(s->e, planted, s->tap))
        return 0;
    bool everywhere = planted->count == 1 && planted->only_layer[0] < 0 && planted->scope == GEMMA4_EVERYWHERE;
    size_t positions = first_positions(s, planted);
    /* Of these there are many. Within a layer of a 16-bit engine, where experts flip, a first look says little. */
    bool whole_layers = !gemma4_is_one_step(s->e, planted->models[0], s->tap) && (is_bridged(s->e) || s->e->subject->tier->unit <= UNIT_FLOAT32);
    bool many = whole_layers && (planted->only_layer[0] >= 0 || planted->scope != GEMMA4_EVERYWHERE || planted->count > 1);
    trial result = many ? screen(s, planted, positions) : TRIAL_FIT;
    if (positions && result == TRIAL_FIT)
        result = try_positions(s, planted, positions, &fit);
    if (everywhere && positions && result > TRIAL_NO_EFFECT) {
        keep_difference(s, model, positions);
        s->missed_early[model] = result == TRIAL_MISS;
    }
    /* Without effect there, it may act later: past the window, in a later chunk. */
    if (result == TRIAL_FIT || (positions && !many && result == TRIAL_NO_EFFECT))
        result = try_positions(s, planted, 0, &fit);
    if (result == TRIAL_FIT)
        keep_fit(s->finding, &fit);
    else if (result == TRIAL_MISS && fit.error > 0)
        keep_near(s->finding, &fit);
    if (everywhere && result > TRIAL_NO_EFFECT)
        s->partial[model] = fit;
    return result == TRIAL_ERROR ? -1 : 0;
}

/* ------------------------------------------------------------------ what is tried */

/* What has no effect when it is planted everywhere has none in part. */
static bool has_effect(const search *s, size_t model)
{
    return s->partial[model].model != NO_MODEL;
}

static int try_scope(search *s, gemma4_scope scope, bool single_steps_only)
{
    for (size_t model = 0; model < gemma4_counter_model_count(); model++) {
        gemma4_planted planted = {.models = {gemma4_counter_model_at(model)}, .only_layer = {-1}, .count = 1, .scope = scope};
        if (scope != GEMMA4_EVERYWHERE && !has_effect(s, model))
            continue;
        /* The first positions are the same as everywhere, where the first chunk holds them. */
        if (scope == GEMMA4_FIRST_CHUNK_ONLY && s->missed_early[model] && s->e->subject->schedule.chunk_end[0] >= PREFIX_POSITIONS)
            continue;
        if ((!single_steps_only || gemma4_is_one_step(s->e, planted.models[0], s->tap)) && try_planted(s, &planted, model, NO_MODEL))
            return -1;
    }
    return 0;
}

/* Can the mistake be at these positions alone? Those before the first of them must then be right: keys and values go forward only. */
static bool may_be_in_scope(const search *s, gemma4_scope scope)
{
    const gemma4_schedule *schedule = &s->e->subject->schedule;
    size_t T = s->e->subject->T, first = 0;
    bool other = false, all = true; /* are these other positions than those of the next wider scope? are they all? */
    while (first < T && !gemma4_in_scope(schedule, scope, first))
        first++;
    for (size_t t = 0; t < T; t++) {
        bool inside = gemma4_in_scope(schedule, scope, t);
        all = all && inside;
        other = other || inside != gemma4_in_scope(schedule, GEMMA4_AFTER_FIRST_CHUNK, t);
    }
    bool may = first < T && !all && (scope == GEMMA4_AFTER_FIRST_CHUNK || other);
    if (!may || first == 0)
        return may;
    const gemma4_against before = {.positions = first};
    gemma4_score score = gemma4_score_tap(s->e, s->tap, &before);
    return score.score <= LIMIT_SCORE && score.worst <= LIMIT_WORST;
}

/* Engines have other code for a prompt, for its later chunks and for single tokens. A mistake that is made at some positions only is looked for
 * where none fits all. */
static int try_scopes(search *s)
{
    for (int scope = GEMMA4_EVERYWHERE + 1; scope < GEMMA4_SCOPES && s->finding->fit_count == 0; scope++)
        if (may_be_in_scope(s, (gemma4_scope)scope) && try_scope(s, (gemma4_scope)scope, false))
            return -1;
    return 0;
}

/* Models by the part of the error that they explain when planted everywhere: the `most` largest, in order. Returns how many there are. */
static size_t by_share(const search *s, size_t *models, size_t most)
{
    size_t count = 0;
    for (size_t model = 0; model < gemma4_counter_model_count(); model++) {
        size_t at = count;
        if (!has_effect(s, model))
            continue;
        for (; at > 0 && s->partial[models[at - 1]].share < s->partial[model].share; at--)
            if (at < most)
                models[at] = models[at - 1];
        if (at < most)
            models[at] = model;
        count += count < most;
    }
    return count;
}

/* Where several layers were bridged, the mistake may be in one of them only. */
static int try_one_layer(search *s)
{
    gemma4_block last = (gemma4_block)s->e->subject->model->config.num_hidden_layers - 1;
    for (size_t model = 0; model < gemma4_counter_model_count(); model++)
        for (gemma4_block layer = s->e->known_block < 0 ? 0 : s->e->known_block; has_effect(s, model) && layer <= last && layer <= s->e->block; layer++) {
            gemma4_planted planted = {.models = {gemma4_counter_model_at(model)}, .only_layer = {layer}, .count = 1};
            if (try_planted(s, &planted, model, NO_MODEL))
                return -1;
        }
    return 0;
}

/* --- two mistakes in one bridged block --- */

typedef struct pair {
    size_t a, b;
    double share;
} pair;

/* In units of each value's noise, so that a plain sum of products weighs them; rows that cannot be compared are 0. */
static void weigh(const search *s, float *x, size_t positions)
{
    const gemma4_tap_evidence *t = &s->e->taps[s->tap];
    for (size_t i = 0; i < positions * t->width; i++)
        x[i] = t->have[i / t->width] ? (float)((double)x[i] / sqrt(gemma4_noise_variance(t, i / t->width, i))) : 0;
}

static double product(const float *x, const float *y, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)y[i];
    return sum;
}

/* The error at the first positions, weighed; NULL when out of memory. */
static float *weighed_error(const search *s, size_t positions)
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

/* The part of the error that both effects explain together, each times what suits best: for effects that are small enough to add up. */
static pair pair_of(const effect *x, const effect *y, size_t n, double total)
{
    double xy = product(x->difference, y->difference, n), determinant = x->size * y->size - xy * xy;
    pair p = {x->model, y->model, 0};
    if (determinant > PAIR_ALIKE * x->size * y->size)
        p.share = (x->error * x->error * y->size - 2 * x->error * y->error * xy + y->error * y->error * x->size) / determinant / total;
    return p;
}

static int by_pair_share(const void *a, const void *b)
{
    const pair *x = a, *y = b;
    return x->share > y->share ? -1 : x->share < y->share;
}

/* Of the models that explain most, the effects. */
static size_t find_effects(search *s, const float *error, size_t positions, effect *effects)
{
    size_t models[PAIR_MODELS], count = by_share(s, models, PAIR_MODELS), found = 0, n = positions * s->e->taps[s->tap].width;
    for (size_t i = 0; i < count; i++) {
        float *difference = s->differences[models[i]];
        if (!difference)
            continue;
        weigh(s, difference, positions);
        effects[found++] = (effect){models[i], difference, product(difference, difference, n), product(difference, error, n)};
    }
    return found;
}

static int try_pair(search *s, const pair *p)
{
    bool a_first = s->partial[p->a].residual <= s->partial[p->b].residual;
    size_t first = a_first ? p->a : p->b, second = a_first ? p->b : p->a;
    gemma4_planted planted = {.models = {gemma4_counter_model_at(first), gemma4_counter_model_at(second)}, .only_layer = {-1, -1}, .count = 2};
    return try_planted(s, &planted, first, second);
}

/* The pairs that explain most are tried as they are. */
static int try_pairs(search *s)
{
    effect effects[PAIR_MODELS];
    size_t positions = PREFIX_POSITIONS < s->e->subject->T ? PREFIX_POSITIONS : 0, n = positions * s->e->taps[s->tap].width, pairs = 0;
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

/* --- the choice of experts --- */

/* Expert ids are explained where the model chooses the same sets from the engine's own logits. */
static int fit_ids(search *s, size_t model)
{
    const gemma4_evidence *e = s->e;
    const gemma4_counter_model *m = gemma4_counter_model_at(model);
    gemma4_planted planted = {.models = {m}, .only_layer = {-1}, .count = 1};
    size_t T = e->subject->T, K = e->subject->model->config.top_k_experts, decisions = 0, others = 0;
    if (!contains(m->taps, GEMMA4_TAP_ROUTER_TOPK_IDS) || !gemma4_planted_in(&e->subject->model->config, &planted, 0, e->block))
        return 0;
    int32_t *ids = calloc(T * K, sizeof *ids);
    if (!ids)
        return gemma4_fail(s->error, "diagnosis: out of memory");
    gemma4_parameters parameters = gemma4_right_parameters();
    gemma4_step step = gemma4_evidence_step(e);
    m->change(&parameters);
    int status = gemma4_counter_step(&step, &parameters, GEMMA4_TAP_ROUTER_TOPK_IDS, NULL, ids, s->error);
    for (size_t t = 0; t < T && !status; t++)
        for (size_t i = 0; i < K && e->have_ids[t]; i++) {
            bool found = false;
            for (size_t j = 0; j < K; j++)
                found = found || e->engine_ids[t * K + i] == ids[t * K + j];
            decisions++;
            others += !found;
        }
    free(ids);
    gemma4_fit fit = {.model = model, .second = NO_MODEL, .only_layer = -1, .coefficient = decisions ? 1 - (double)others / (double)decisions : 0};
    fit.residual = 1 - fit.coefficient;
    fit.share = fit.coefficient;
    if (!status && decisions && others == 0)
        keep_fit(s->finding, &fit);
    return status;
}

static int find_fits_of_ids(search *s)
{
    for (size_t model = 0; model < gemma4_counter_model_count(); model++)
        if (fit_ids(s, model))
            return -1;
    snprintf(s->finding->description, sizeof s->finding->description, "the chosen experts are not those with the largest router logits");
    return 0;
}

/* --- what earlier findings tell --- */

static bool same_kind(const gemma4_config *c, const gemma4_finding *f, const gemma4_evidence *e)
{
    return !gemma4_tap_describe(f->tap)->per_layer || c->layers[f->layer].kind == c->layers[e->layer].kind;
}

/* What explained the same tap in the last layers is likely to do so here. */
static int try_earlier(search *s, const gemma4_finding *earlier, size_t count)
{
    size_t tried = 0;
    for (size_t i = count; i-- > 0 && tried < EARLIER_FINDINGS && s->finding->fit_count == 0;) {
        if (earlier[i].tap != s->tap || earlier[i].fit_count == 0)
            continue;
        tried++;
        for (size_t k = 0; k < earlier[i].fit_count; k++) {
            const gemma4_fit *fit = &earlier[i].fits[k];
            gemma4_planted planted = {.models = {gemma4_counter_model_at(fit->model)}, .only_layer = {-1}, .count = 1, .scope = fit->scope};
            if (fit->second == NO_MODEL && try_planted(s, &planted, fit->model, NO_MODEL))
                return -1;
        }
    }
    return 0;
}

/* In how many layers of the kind has the search come to nothing at this tap? */
static size_t searches_in_vain(const search *s, const gemma4_finding *earlier, size_t count)
{
    size_t unexplained = 0;
    for (size_t i = 0; i < count; i++)
        unexplained += earlier[i].tap == s->tap && earlier[i].fit_count == 0 && same_kind(&s->e->subject->model->config, &earlier[i], s->e);
    return unexplained;
}

static int find_fits(search *s, const gemma4_finding *earlier, size_t count)
{
    gemma4_finding *f = s->finding;
    if (s->tap == GEMMA4_TAP_ROUTER_TOPK_IDS)
        return find_fits_of_ids(s);
    if (try_earlier(s, earlier, count))
        return -1;
    if (f->fit_count)
        return 0;
    size_t in_vain = searches_in_vain(s, earlier, count);
    bool hopeless = in_vain >= SEARCHES_IN_VAIN;
    if (try_scope(s, GEMMA4_EVERYWHERE, hopeless) || (f->fit_count == 0 && in_vain == 0 && try_scopes(s)))
        return -1;
    if (is_bridged(s->e) && !hopeless && ((f->fit_count == 0 && try_one_layer(s)) || (f->fit_count == 0 && try_pairs(s))))
        return -1;
    return f->fit_count ? 0 : gemma4_describe_error(s->e, s->tap, f->description, sizeof f->description, s->error);
}

int gemma4_find_fits(const gemma4_evidence *e, gemma4_runner *runner, gemma4_tap tap, const gemma4_finding *earlier, size_t earlier_count,
                     gemma4_finding *finding, gemma4_error *error)
{
    const gemma4_against every = {0};
    size_t models = gemma4_counter_model_count(), n = e->subject->T * e->taps[tap].width;
    *finding = (gemma4_finding){.tap = tap, .layer = e->layer, .error = gemma4_score_tap(e, tap, &every).score};
    search s = {.e = e, .runner = runner, .tap = tap, .finding = finding, .error = error};
    s.prediction = malloc((n ? n : 1) * sizeof *s.prediction);
    s.open = calloc(e->subject->T, sizeof *s.open);
    s.partial = finding->partial = malloc(models * sizeof *s.partial);
    s.missed_early = calloc(models, sizeof *s.missed_early);
    s.differences = calloc(models, sizeof *s.differences);
    int status = s.prediction && s.open && s.partial && s.missed_early && s.differences ? 0 : gemma4_fail(error, "diagnosis: out of memory");
    for (size_t model = 0; s.partial && model < models; model++)
        s.partial[model] = (gemma4_fit){.model = NO_MODEL};
    if (!status)
        status = find_fits(&s, earlier, earlier_count);
    for (size_t model = 0; s.differences && model < models; model++)
        free(s.differences[model]);
    free(s.differences);
    free(s.missed_early);
    free(s.prediction);
    free(s.open);
    return status;
}

void gemma4_finding_free(gemma4_finding *finding)
{
    free(finding->partial);
    finding->partial = NULL;
}
