/* How well what mistakes predict fits what an engine has. */
#include "fit_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "counter_model.h"
#include "counter_run.h"
#include "evidence.h"
#include "filter.h"
#include "fit.h"
#include "noise.h"
#include "planted.h"
#include "rows.h"
#include "score.h"
#include "space.h"
#include "thresholds.h"

typedef gemma4_real real;

static bool contains(const gemma4_tap *taps, gemma4_tap tap)
{
    for (; *taps != GEMMA4_TAP_COUNT; taps++)
        if (*taps == tap)
            return true;
    return false;
}

/* ---------------------------------------------------------------- predictions */

static bool ids_are_stored(const gemma4_evidence *e)
{
    for (size_t row = 0; row < e->subject->T; row++)
        if (!e->have_valid_ids[row])
            return false;
    return true;
}

bool gemma4_is_one_step(const gemma4_evidence *e, const gemma4_counter_model *m, gemma4_tap tap)
{
    if (!contains(m->taps, tap) || e->known_block != e->block)
        return false;
    for (const gemma4_tap *t = m->taps; *t < tap; t++) {
        const gemma4_tap_evidence *before = &e->taps[*t];
        if (gemma4_tap_is_keys(*t))
            continue;
        if (*t == GEMMA4_TAP_ROUTER_TOPK_IDS ? !ids_are_stored(e) : !before->engine)
            return false;
        for (size_t row = 0; before->engine && row < e->subject->T; row++)
            if (!before->have[row])
                return false;
    }
    return true;
}

static bool is_permitted(const gemma4_subject *s, const gemma4_counter_model *m)
{
    return gemma4_counter_model_is_permitted(m, s->tier->unit) ||
           (s->kv_unit > 0 && !strcmp(m->id, "kv-cache-f16"));
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
static int predict_step(const gemma4_evidence *e, const gemma4_planted *planted, gemma4_tap tap,
                        real *values, gemma4_error *error)
{
    const gemma4_tap_evidence *t = &e->taps[tap];
    gemma4_parameters parameters = gemma4_known_parameters(e->subject, e->block);
    gemma4_step step = gemma4_evidence_step(e);
    for (size_t i = 0; i < planted->count; i++)
        gemma4_counter_apply(planted->models[i], &parameters);
    if (gemma4_counter_step(&step, &parameters, tap, values, NULL, error))
        return -1;
    for (size_t row = 0; row < e->subject->T; row++)
        if (!gemma4_in_scope(&e->subject->schedule, planted->scope, row))
            memcpy(values + row * t->width, t->expected + row * t->width,
                   t->width * sizeof *values);
    return 0;
}

static bool are_one_step(const gemma4_evidence *e, const gemma4_planted *planted, gemma4_tap tap)
{
    for (size_t i = 0; i < planted->count; i++)
        if (!gemma4_is_one_step(e, planted->models[i], tap))
            return false;
    return planted->count > 0;
}

int gemma4_predict(const gemma4_evidence *e, gemma4_runner *runner, const gemma4_planted *planted,
                   gemma4_tap tap, size_t positions, real *values, bool *open, gemma4_error *error)
{
    if (open)
        memset(open, 0, e->subject->T * sizeof *open);
    memcpy(values, e->taps[tap].expected, e->subject->T * e->taps[tap].width * sizeof *values);
    if (are_one_step(e, planted, tap))
        return predict_step(e, planted, tap, values, error);
    gemma4_counter_run run = {
        .planted = planted, .positions = positions, .stop = tap, .out = values, .open = open};
    return gemma4_run_counter(e, runner, &run, error);
}

/* ------------------------------------------------------------------- scoring */

bool fit_is_bridged(const gemma4_evidence *e)
{
    return e->known_block < e->block;
}

/* Can positions differ from a prediction because rounding chose other experts? Where the dump
 * settles neither choice nor logits, in a precision in which near-ties are common. */
static bool flips_are_possible(const gemma4_evidence *e, gemma4_tap tap)
{
    return e->subject->tier->unit > UNIT_FLOAT32 && tap >= GEMMA4_TAP_MOE_OUT &&
           !e->taps[GEMMA4_TAP_ROUTER_LOGITS].engine &&
           !(e->have_valid_ids && e->have_valid_ids[0]);
}

bool fit_is_whole_layer(const gemma4_evidence *e)
{
    if (fit_is_bridged(e))
        return true;
    for (int tap = GEMMA4_TAP_ATTN_NORM; tap < GEMMA4_TAP_LAYER_OUTPUT; tap++)
        if (e->taps[tap].engine)
            return false;
    return gemma4_block_is_layer(&e->subject->model->config, e->block);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Marks the rows that the prediction fits worst, all but FLIP_ROWS of them. */
static int skip_flips(const fit_search *s, size_t positions, bool *skip)
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
static fit_trial score_rows(const fit_search *s, const gemma4_against *rows, double limit_part,
                            gemma4_fit *fit)
{
    gemma4_against expected = *rows, every = {.positions = rows->positions};
    expected.values = NULL;
    gemma4_filter projection = gemma4_project(s->e, s->tap, rows->values, rows);
    if (projection.size == 0)
        return FIT_NO_EFFECT;
    gemma4_score left = gemma4_score_tap(s->e, s->tap, rows),
                 all = gemma4_score_tap(s->e, s->tap, &expected);
    /* Positions whose choice of experts is open were left out: enough of them must have been
     * judged. */
    bool judged =
        left.rows > 0 &&
        (double)left.rows >= JUDGED_PART * (double)gemma4_score_tap(s->e, s->tap, &every).rows;
    fit->coefficient = gemma4_filter_coefficient(&projection);
    fit->share = gemma4_filter_share(&projection);
    fit->residual = judged ? left.score : INFINITY;
    fit->worst = left.worst;
    fit->error = all.score;
    double limit = left.rows == 1 ? LIMIT_WORST : LIMIT_SCORE; /* one row is no average */
    bool fits = judged && left.score <= limit_part * limit &&
                left.worst <= limit_part * LIMIT_WORST &&
                fabs(fit->coefficient - 1) <= FIT_COEFFICIENT;
    /* Of rows that were chosen because they fit, more is asked: without the mistake they must not
     * fit. */
    if (limit_part < 1)
        fits = fits && all.score >= FLIP_IMPROVEMENT * left.score;
    return fits ? FIT_FITS : FIT_MISS;
}

static fit_trial score_prediction(const fit_search *s, size_t positions, gemma4_fit *fit)
{
    gemma4_against rows = {.values = s->prediction, .skip = s->open, .positions = positions};
    fit_trial result = score_rows(s, &rows, 1, fit);
    if (result == FIT_NO_EFFECT && positions == 0) { /* but where the choice is open: it may have
                                                        been this one */
        rows.skip = NULL;
        result = score_rows(s, &rows, 1, fit);
    }
    if (result != FIT_MISS || !flips_are_possible(s->e, s->tap))
        return result;
    bool *skip = calloc(s->e->subject->T, sizeof *skip);
    gemma4_fit part = *fit;
    if (!skip)
        gemma4_fail(s->error, "diagnosis: out of memory");
    if (!skip || skip_flips(s, positions, skip)) {
        free(skip);
        return FIT_ERROR;
    }
    rows.skip = skip;
    if (score_rows(s, &rows, FLIP_LIMIT_PART, &part) == FIT_FITS) {
        *fit = part;
        result = FIT_FITS;
    }
    free(skip);
    return result;
}

/* The spread that honest rounding has in the model with the mistake: a wrong model may amplify
 * noise more than the right one. The wider of both, for each row. NULL when out of memory or where
 * a run fails. */
static double *planted_spread(const fit_search *s, const gemma4_planted *planted, size_t positions)
{
    const gemma4_tap_evidence *t = &s->e->taps[s->tap];
    size_t T = s->e->subject->T, rows = positions ? positions : T;
    double *sigma = calloc(T, sizeof *sigma);
    real *perturbed = malloc(T * t->width * sizeof *perturbed);
    gemma4_counter_run run = {
        .planted = planted, .positions = positions, .stop = s->tap, .out = perturbed};
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

/* A prediction that leaves next to nothing of the error, but more than the right model's noise, is
 * measured against its own noise. */
static fit_trial retry_with_spread(const fit_search *s, const gemma4_planted *planted,
                                   size_t positions, gemma4_fit *fit)
{
    const gemma4_against every = {.positions = positions};
    double effect = gemma4_score_tap(s->e, s->tap, &every).score;
    if (!(fabs(fit->coefficient - 1) <= FIT_COEFFICIENT && fit->residual <= NEAR_PART * effect))
        return FIT_MISS;
    double *wider = planted_spread(s, planted, positions);
    if (!wider)
        return FIT_ERROR;
    const gemma4_against rows = {
        .values = s->prediction, .sigma = wider, .skip = s->open, .positions = positions};
    fit_trial result = score_rows(s, &rows, 1, fit);
    free(wider);
    return result;
}

/* What planted mistakes leave of the error, at the first so many positions or (0) at all. */
fit_trial fit_try_positions(fit_search *s, const gemma4_planted *planted, size_t positions,
                            gemma4_fit *fit)
{
    if (gemma4_predict(s->e, s->runner, planted, s->tap, positions, s->prediction, s->open,
                       s->error))
        return FIT_ERROR;
    fit_trial result = score_prediction(s, positions, fit);
    return result == FIT_MISS ? retry_with_spread(s, planted, positions, fit) : result;
}

/* Does the setting make a position see later ones? */
static bool looks_ahead(const gemma4_setting *s)
{
    bool mask =
        s->parameter == GEMMA4_PARAMETER_MASK &&
        (s->word == GEMMA4_MASK_NOT_CAUSAL || (s->word == GEMMA4_MASK_OFFSET && s->number > 0));
    return mask || (s->parameter == GEMMA4_PARAMETER_INPUT_POSITIONS && s->number > 0);
}

bool fit_sees_later(const gemma4_planted *planted)
{
    gemma4_parameters p = gemma4_right_parameters();
    bool later = false;
    for (size_t i = 0; i < planted->count; i++)
        gemma4_counter_apply(planted->models[i], &p);
    for (size_t i = 0; i < p.setting_count; i++)
        later = later || looks_ahead(p.settings[i]);
    return later || p.attention.not_causal || p.attention.cache == GEMMA4_CACHE_CHUNK_NOT_CAUSAL ||
           p.attention.cache == GEMMA4_CACHE_WINDOW_OF_CHUNK_END;
}

/* How many positions decide at first whether a mistake can fit; 0: all of them are needed. A wrong
 * mask may let the first positions see later ones; a single step is computed faster than it could
 * be cut; and where experts flip, few rows say little. */
size_t fit_first_positions(const fit_search *s, const gemma4_planted *planted)
{
    const gemma4_subject *subject = s->e->subject;
    size_t first = 0; /* position at which the mistake is made */
    if (fit_sees_later(planted) || (subject->known && fit_sees_later(subject->known)))
        return 0;
    if (!fit_is_bridged(s->e) && (subject->tier->unit > UNIT_FLOAT32 ||
                                  gemma4_is_one_step(s->e, planted->models[0], s->tap)))
        return 0;
    while (first < subject->T && !gemma4_in_scope(&subject->schedule, planted->scope, first))
        first++;
    return first + PREFIX_POSITIONS < subject->T ? first + PREFIX_POSITIONS : 0;
}

/* A first look at so many positions (0: all), by the machine's fastest operators: may it be the
 * one? What rounding they add is allowed for, and whatever passes is computed again. A predicted
 * difference that their rounding may be is no effect. */
static fit_trial screen_positions(fit_search *s, const gemma4_planted *planted, size_t positions)
{
    const gemma4_against rows = {.values = s->prediction, .skip = s->open, .positions = positions};
    const gemma4_counter_run run = {.planted = planted,
                                    .positions = positions,
                                    .quick = true,
                                    .stop = s->tap,
                                    .out = s->prediction,
                                    .open = s->open};
    if (gemma4_run_counter(s->e, s->runner, &run, s->error))
        return FIT_ERROR;
    gemma4_filter projection = gemma4_project(s->e, s->tap, s->prediction, &rows);
    gemma4_score left = gemma4_score_tap(s->e, s->tap, &rows);
    double effect =
        left.rows ? sqrt(projection.size / (double)(left.rows * s->e->taps[s->tap].width)) : 0;
    if (!(effect > (positions ? SCREEN_EFFECT : LIMIT_SCORE / 2)))
        return FIT_NO_EFFECT;
    bool near =
        fabs(gemma4_filter_coefficient(&projection) - 1) <= SCREEN_FACTOR * FIT_COEFFICIENT &&
        left.worst <= SCREEN_FACTOR * LIMIT_WORST;
    return near ? FIT_FITS : FIT_MISS;
}

/* At the position where the mistake is first made, at some, at all, until it has an effect. */
fit_trial fit_screen(fit_search *s, const gemma4_planted *planted, size_t positions)
{
    fit_trial result =
        positions ? screen_positions(s, planted, positions - PREFIX_POSITIONS + 1) : FIT_NO_EFFECT;
    if (result == FIT_NO_EFFECT && positions)
        result = screen_positions(s, planted, positions);
    return result == FIT_NO_EFFECT ? screen_positions(s, planted, 0) : result;
}
