#include "diagnose.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "describe.h"
#include "rows.h"
#include "thresholds.h"

typedef gemma4_real real;

#define NO_MODEL GEMMA4_NO_MODEL
#define UNIT_FLOAT32 0x1p-24

/* Running sums of a matched filter: projections of the error, and of every draw of honest noise, on a predicted difference. */
typedef struct filter {
    double error, size, draws[GEMMA4_DRAWS];
} filter;

/* Everything the filter has seen of one counter-model. */
typedef struct filter_state {
    filter all;           /* over all layers */
    size_t blocks;
    gemma4_tap tap;       /* where it was first evaluated */
    size_t first_layer;
    filter best;          /* the one layer in which it is most significant */
    gemma4_tap best_tap;
    size_t best_layer;
} filter_state;

struct gemma4_diagnosis {
    const gemma4_model *model;
    size_t models;
    filter_state *filters; /* [models] */
    gemma4_finding *findings;
    size_t finding_count;
    gemma4_cause *causes;
    size_t cause_count;
    real *prediction;      /* [T, width] scratch */
    size_t prediction_size;
};

static bool contains(const gemma4_tap *taps, gemma4_tap tap)
{
    for (; *taps != GEMMA4_TAP_COUNT; taps++)
        if (*taps == tap)
            return true;
    return false;
}

static bool is_permitted(const gemma4_replay *r, const gemma4_counter_model *m)
{
    return gemma4_counter_model_is_permitted(m, r->tier->unit) || (r->kv_unit > 0 && !strcmp(m->id, "kv-cache-f16"));
}

/* ------------------------------------------------------------- predictions */

/* Do all the steps before tap that the model computes otherwise have their results in the dump? Then what it predicts at tap follows
 * from that one step. */
static bool is_one_step(const gemma4_replay *r, const gemma4_counter_model *m, gemma4_tap tap)
{
    if (!contains(m->taps, tap) || r->known_block != r->block)
        return false;
    for (const gemma4_tap *t = m->taps; *t < tap; t++) {
        const gemma4_replayed_tap *before = &r->taps[*t];
        if (gemma4_tap_is_keys(*t))
            continue;
        if (!before->engine && *t != GEMMA4_TAP_ROUTER_TOPK_IDS)
            return false;
        for (size_t row = 0; before->engine && row < r->T; row++)
            if (!before->have[row])
                return false;
    }
    return true;
}

/* Could a mistake of this model show at tap, given what was injected before it? */
static bool can_show(const gemma4_replay *r, const gemma4_planted *planted, gemma4_tap tap)
{
    const gemma4_counter_model *m = planted->models[0];
    if (is_permitted(r, m))
        return false;
    for (gemma4_block block = r->known_block; block < r->block; block++)
        if (gemma4_planted_in(r, planted, 0, block))
            return true;
    if (!gemma4_planted_in(r, planted, 0, r->block))
        return false;
    if (contains(m->taps, tap))
        return true;
    for (const gemma4_tap *t = m->taps; *t != GEMMA4_TAP_COUNT && *t < tap; t++)
        if (!r->taps[*t].engine && !gemma4_tap_is_keys(*t))
            return true;
    return false;
}

/* What an engine with the mistake would have at tap, to d->prediction. */
static int predict(gemma4_diagnosis *d, gemma4_replay *r, const gemma4_planted *planted, gemma4_tap tap, gemma4_error *error)
{
    const gemma4_replayed_tap *t = &r->taps[tap];
    size_t n = r->T * t->width;
    if (n > d->prediction_size) {
        free(d->prediction);
        d->prediction = malloc(n * sizeof *d->prediction);
        d->prediction_size = d->prediction ? n : 0;
        if (!d->prediction)
            return gemma4_fail(error, "diagnosis: out of memory");
    }
    memcpy(d->prediction, t->expected, n * sizeof *d->prediction);
    if (planted->count == 1 && is_one_step(r, planted->models[0], tap)) {
        gemma4_parameters parameters = gemma4_right_parameters();
        gemma4_step step = gemma4_replay_step(r);
        planted->models[0]->change(&parameters);
        if (gemma4_counter_step(&step, &parameters, tap, d->prediction, NULL, error))
            return -1;
        for (size_t row = 0; row < r->T; row++)
            if (!gemma4_replay_in_scope(r, planted->scope, row))
                memcpy(d->prediction + row * t->width, t->expected + row * t->width, t->width * sizeof *d->prediction);
        return 0;
    }
    return gemma4_replay_counter_run(r, planted, tap, d->prediction, error);
}

/* ----------------------------------------------------------------- filters */

/* The variance of honest noise in one value: what the draws had there, and a part of the row's, since six draws may all be small by
 * chance. Rounding is in proportion to each value, so small values weigh much more than the row's spread would let them. */
static double noise_variance(const gemma4_replayed_tap *t, size_t row, size_t i)
{
    double sum = 0;
    for (size_t draw = 0; draw < GEMMA4_DRAWS; draw++)
        sum += (double)t->draws[draw][i] * (double)t->draws[draw][i];
    return sum / GEMMA4_DRAWS + FILTER_ROW_PART * t->sigma[row] * t->sigma[row];
}

/* Masked scores may hold anything. */
static bool is_ignored(const gemma4_replay *r, gemma4_tap tap, size_t row, size_t index)
{
    return gemma4_tap_describe(tap)->rows == GEMMA4_ROWS_SCORES &&
           gemma4_key_is_masked(&r->model->config, r->block_layer, r->T, row, index);
}

/* Projects the error and the draws on the predicted difference, each value weighed by its noise; skip names rows to leave out. */
static filter project(const gemma4_diagnosis *d, const gemma4_replay *r, gemma4_tap tap, const bool *skip)
{
    const gemma4_replayed_tap *t = &r->taps[tap];
    filter f = {0};
    for (size_t row = 0; row < r->T; row++)
        for (size_t i = row * t->width; t->have[row] && !(skip && skip[row]) && i < (row + 1) * t->width; i++) {
            double difference = (double)d->prediction[i] - (double)t->expected[i];
            if (difference == 0 || !isfinite(difference) || is_ignored(r, tap, row, i - row * t->width))
                continue;
            double weighed = difference / noise_variance(t, row, i);
            f.size += weighed * difference;
            f.error += weighed * ((double)t->engine[i] - (double)t->expected[i]);
            for (size_t draw = 0; draw < GEMMA4_DRAWS; draw++)
                f.draws[draw] += weighed * (double)t->draws[draw][i];
        }
    return f;
}

static double coefficient(const filter *f)
{
    return f->size > 0 ? f->error / f->size : 0;
}

/* Spread of the coefficient under honest noise. The draws are few, so it is never taken for less than independent errors would give. */
static double coefficient_spread(const filter *f)
{
    double sum = 0;
    for (size_t draw = 0; draw < GEMMA4_DRAWS; draw++)
        sum += f->draws[draw] * f->draws[draw];
    return f->size > 0 ? fmax(sqrt(sum / GEMMA4_DRAWS) / f->size, 1 / sqrt(f->size)) : INFINITY;
}

static void add_filter(filter *to, const filter *f)
{
    to->error += f->error;
    to->size += f->size;
    for (size_t draw = 0; draw < GEMMA4_DRAWS; draw++)
        to->draws[draw] += f->draws[draw];
}

/* Is this the mistake, although no single tap failed? */
static bool is_significant(const filter *f, double deviations)
{
    double c = coefficient(f), spread = coefficient_spread(f);
    return fabs(c - 1) <= FILTER_COEFFICIENT && c / spread >= deviations;
}

/* The taps of this block at which a model is evaluated: those of its own that the dump holds, else the first one behind it. */
static size_t filter_taps(const gemma4_replay *r, const gemma4_planted *planted, gemma4_tap taps[GEMMA4_TAP_COUNT])
{
    const gemma4_counter_model *m = planted->models[0];
    size_t count = 0;
    bool here = gemma4_planted_in(r, planted, 0, r->block);
    for (const gemma4_tap *t = m->taps; here && *t != GEMMA4_TAP_COUNT; t++)
        if (r->taps[*t].engine)
            taps[count++] = *t;
    for (int tap = 0; count == 0 && tap < GEMMA4_TAP_COUNT; tap++)
        if (r->taps[tap].engine && (tap > (int)m->taps[0] || r->known_block < r->block) && can_show(r, planted, (gemma4_tap)tap))
            taps[count++] = (gemma4_tap)tap;
    return count;
}

/* Is the predicted difference more than the rounding of what the step read? A model that reads another tensor, right up to rounding, in the
 * place of the step's own, or what was not rounded in between, predicts that rounding: an engine that makes it has no mistake. The
 * difference between wrong and right must be about the same where the inputs are perturbed within their storage. */
static int outlasts_rounding(const gemma4_diagnosis *d, const gemma4_replay *r, const gemma4_counter_model *m, gemma4_tap tap, bool *outlasts,
                             gemma4_error *error)
{
    const gemma4_replayed_tap *t = &r->taps[tap];
    size_t n = r->T * t->width;
    gemma4_parameters wrong = gemma4_right_parameters(), right = gemma4_right_parameters();
    gemma4_step step;
    real *values = calloc(2 * n, sizeof *values);
    m->change(&wrong);
    int status = gemma4_replay_perturbed_step(r, &step, error);
    if (!status && !values)
        status = gemma4_fail(error, "diagnosis: out of memory");
    if (!status)
        status = gemma4_counter_step(&step, &wrong, tap, values, NULL, error) || gemma4_counter_step(&step, &right, tap, values + n, NULL, error) ? -1 : 0;
    double moved = 0, size = 0;
    for (size_t i = 0; i < n && !status; i++) {
        double difference = (double)d->prediction[i] - (double)t->expected[i], variance = noise_variance(t, i / t->width, i);
        double again = (double)values[i] - (double)values[n + i];
        if (!t->have[i / t->width] || !isfinite(difference) || !isfinite(again))
            continue;
        size += difference * difference / variance;
        moved += (again - difference) * (again - difference) / variance;
    }
    *outlasts = moved <= FILTER_MOVED_PART * size;
    gemma4_replay_step_free(&step);
    free(values);
    return status;
}

static int filter_model(gemma4_diagnosis *d, gemma4_replay *r, size_t model, const bool failed[GEMMA4_TAP_COUNT], gemma4_error *error)
{
    gemma4_planted planted = {.models = {gemma4_counter_model_at(model)}, .only_layer = {-1}, .count = 1};
    filter_state *state = &d->filters[model];
    gemma4_tap taps[GEMMA4_TAP_COUNT];
    size_t count = filter_taps(r, &planted, taps);
    filter block = {0};
    for (size_t i = 0; i < count; i++) {
        if (failed[taps[i]] || !can_show(r, &planted, taps[i]))
            continue;
        if (predict(d, r, &planted, taps[i], error))
            return -1;
        filter f = project(d, r, taps[i], NULL);
        /* Only what could become a cause is worth a second computation. */
        bool outlasts = true, promising = f.size > 0 && coefficient(&f) > 0.5 && coefficient(&f) >= coefficient_spread(&f);
        if (promising && is_one_step(r, planted.models[0], taps[i]) && outlasts_rounding(d, r, planted.models[0], taps[i], &outlasts, error))
            return -1;
        if (outlasts)
            add_filter(&block, &f);
    }
    if (block.size == 0)
        return 0;
    if (state->blocks++ == 0) {
        state->tap = taps[0];
        state->first_layer = r->block_layer;
    }
    add_filter(&state->all, &block);
    if (state->best.size == 0 || coefficient(&block) / coefficient_spread(&block) > coefficient(&state->best) / coefficient_spread(&state->best)) {
        state->best = block;
        state->best_tap = taps[0];
        state->best_layer = r->block_layer;
    }
    return 0;
}

/* ---------------------------------------------------------------- findings */

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

/* The best of those that do not fit. */
static void keep_near(gemma4_finding *f, const gemma4_fit *fit)
{
    if (!f->has_near || fit->residual < f->near.residual)
        f->near = *fit;
    f->has_near = true;
}

typedef enum trial { TRIAL_ERROR = -1, TRIAL_NO_EFFECT, TRIAL_MISS, TRIAL_FIT } trial;

/* Can positions differ from a prediction because rounding chose other experts? Where the dump settles neither choice nor logits, in a
 * precision in which near-ties are common. */
static bool flips_are_possible(const gemma4_replay *r, gemma4_tap tap)
{
    return r->tier->unit > UNIT_FLOAT32 && tap >= GEMMA4_TAP_MOE_OUT && !r->taps[GEMMA4_TAP_ROUTER_LOGITS].engine && !r->have_valid_ids[0];
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Marks the rows that a prediction fits worst, all but FLIP_ROWS of them. */
static int skip_flips(const gemma4_diagnosis *d, const gemma4_replay *r, gemma4_tap tap, bool *skip)
{
    const gemma4_replayed_tap *t = &r->taps[tap];
    double *errors = calloc(2 * r->T, sizeof *errors);
    size_t rows = 0;
    for (size_t row = 0; errors && row < r->T; row++) {
        for (size_t i = row * t->width; t->have[row] && i < (row + 1) * t->width; i++) {
            double e = (double)t->engine[i] - (double)d->prediction[i];
            errors[row] += e * e;
        }
        errors[row] /= t->sigma[row] * t->sigma[row];
        if (t->have[row])
            errors[r->T + rows++] = errors[row];
    }
    if (!errors)
        return -1;
    qsort(errors + r->T, rows, sizeof *errors, by_value);
    double limit = rows ? errors[r->T + (size_t)(FLIP_ROWS * (double)(rows - 1))] : 0;
    for (size_t row = 0; row < r->T; row++)
        skip[row] = errors[row] > limit;
    free(errors);
    return 0;
}

/* What the prediction leaves of the error, but for rows in skip. */
static trial score_rows(gemma4_diagnosis *d, gemma4_replay *r, gemma4_tap tap, const bool *skip, double limit_part, gemma4_fit *fit)
{
    filter projection = project(d, r, tap, skip);
    if (projection.size == 0)
        return TRIAL_NO_EFFECT;
    gemma4_score left = gemma4_replay_score(r, tap, d->prediction, skip);
    gemma4_score all = gemma4_replay_score(r, tap, NULL, skip);
    /* Positions whose choice of experts is open were left out: half of them must have been judged. */
    bool judged = left.rows > 0 && 2 * left.rows >= gemma4_replay_score(r, tap, NULL, NULL).rows;
    fit->coefficient = coefficient(&projection);
    fit->residual = judged ? left.score : INFINITY;
    fit->worst = left.worst;
    bool fits = judged && left.score <= limit_part * LIMIT_SCORE && left.worst <= limit_part * LIMIT_WORST &&
                fabs(fit->coefficient - 1) <= FIT_COEFFICIENT;
    /* Of rows that were chosen because they fit, more is asked: without the mistake they must not fit. */
    if (limit_part < 1)
        fits = fits && all.score >= FLIP_IMPROVEMENT * left.score;
    return fits ? TRIAL_FIT : TRIAL_MISS;
}

/* What the prediction leaves of the error at a failing tap. */
static trial score_prediction(gemma4_diagnosis *d, gemma4_replay *r, gemma4_tap tap, gemma4_fit *fit)
{
    trial result = score_rows(d, r, tap, r->counter_open, 1, fit);
    if (result != TRIAL_MISS || !flips_are_possible(r, tap))
        return result;
    bool *skip = calloc(r->T, sizeof *skip);
    gemma4_fit part = *fit;
    if (!skip || skip_flips(d, r, tap, skip)) {
        free(skip);
        return TRIAL_ERROR;
    }
    if (score_rows(d, r, tap, skip, FLIP_LIMIT_PART, &part) == TRIAL_FIT) {
        *fit = part;
        result = TRIAL_FIT;
    }
    free(skip);
    return result;
}

/* The spread that honest rounding has in the model with the mistake: a wrong model may amplify noise more than the right one. The wider
 * of both, for each row. NULL when out of memory or where a run fails. */
static double *planted_spread(gemma4_diagnosis *d, gemma4_replay *r, gemma4_tap tap, const gemma4_planted *planted, gemma4_error *error)
{
    const gemma4_replayed_tap *t = &r->taps[tap];
    size_t n = r->T * t->width;
    double *sigma = calloc(r->T, sizeof *sigma);
    real *perturbed = malloc(n * sizeof *perturbed);
    gemma4_planted with_noise = *planted;
    int status = sigma && perturbed ? 0 : gemma4_fail(error, "diagnosis: out of memory");
    for (with_noise.draw = 1; with_noise.draw <= PLANTED_DRAWS && !status; with_noise.draw++) {
        status = gemma4_replay_counter_run(r, &with_noise, tap, perturbed, error);
        for (size_t i = 0; i < n && !status; i++) {
            double e = (double)perturbed[i] - (double)d->prediction[i];
            sigma[i / t->width] += e * e / (double)(t->width * PLANTED_DRAWS);
        }
    }
    for (size_t row = 0; row < r->T && !status; row++)
        sigma[row] = fmax(sqrt(sigma[row]), t->sigma[row]);
    free(perturbed);
    if (status) {
        free(sigma);
        return NULL;
    }
    return sigma;
}

/* A prediction that leaves next to nothing of the error, but more than the right model's noise, is measured against its own noise. */
static trial retry_with_spread(gemma4_diagnosis *d, gemma4_replay *r, gemma4_tap tap, const gemma4_planted *planted, gemma4_fit *fit, gemma4_error *error)
{
    double effect = gemma4_replay_score(r, tap, NULL, NULL).score;
    if (!(fabs(fit->coefficient - 1) <= FIT_COEFFICIENT && fit->residual <= NEAR_PART * effect))
        return TRIAL_MISS;
    double *own = r->taps[tap].sigma, *wider = planted_spread(d, r, tap, planted, error);
    if (!wider)
        return TRIAL_ERROR;
    r->taps[tap].sigma = wider;
    trial result = score_rows(d, r, tap, r->counter_open, 1, fit);
    r->taps[tap].sigma = own;
    free(wider);
    return result;
}

/* What planted mistakes leave of the error at a failing tap. */
static trial try_planted(gemma4_diagnosis *d, gemma4_replay *r, gemma4_tap tap, const gemma4_planted *planted, gemma4_fit *fit, gemma4_error *error)
{
    if (predict(d, r, planted, tap, error))
        return TRIAL_ERROR;
    trial result = score_prediction(d, r, tap, fit);
    if (result == TRIAL_ERROR)
        gemma4_fail(error, "diagnosis: out of memory");
    return result == TRIAL_MISS ? retry_with_spread(d, r, tap, planted, fit, error) : result;
}

/* The same on the first few positions only, where whole layers have to be run again: a model that does not fit there does not fit. */
static trial try_prefix(gemma4_diagnosis *d, gemma4_replay *r, gemma4_tap tap, const gemma4_planted *planted, gemma4_fit *fit, gemma4_error *error)
{
    size_t T = r->T;
    /* A wrong mask may let the first positions see later ones. */
    bool sees_later = false;
    for (size_t i = 0; i < planted->count; i++)
        sees_later = sees_later || !strcmp(planted->models[i]->section, "masks") || !strcmp(planted->models[i]->section, "cache");
    if (r->known_block == r->block || T <= PREFIX_POSITIONS || sees_later)
        return TRIAL_FIT;
    r->T = PREFIX_POSITIONS;
    trial result = try_planted(d, r, tap, planted, fit, error);
    r->T = T;
    return result == TRIAL_NO_EFFECT ? TRIAL_FIT : result; /* it may act later: past the window, in a later chunk */
}

/* Fits one planted mistake to a failing tap. */
static int fit_planted(gemma4_diagnosis *d, gemma4_replay *r, gemma4_finding *f, const gemma4_planted *planted, size_t model, gemma4_error *error)
{
    gemma4_fit fit = {.model = model, .second = NO_MODEL, .only_layer = planted->only_layer[0], .scope = planted->scope};
    if (!can_show(r, planted, f->tap))
        return 0;
    trial result = try_prefix(d, r, f->tap, planted, &fit, error);
    if (result == TRIAL_FIT)
        result = try_planted(d, r, f->tap, planted, &fit, error);
    if (result == TRIAL_FIT)
        keep_fit(f, &fit);
    else if (result == TRIAL_MISS)
        keep_near(f, &fit);
    return result == TRIAL_ERROR ? -1 : 0;
}

/* --- two mistakes in one bridged block --- */

typedef struct candidate {
    size_t model;
    double residual;
} candidate;

static int by_candidate_residual(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    return x->residual < y->residual ? -1 : x->residual > y->residual;
}

/* The models that explain something of the error, best first; *count of them. */
static int find_candidates(gemma4_diagnosis *d, gemma4_replay *r, gemma4_tap tap, candidate *candidates, size_t *count, gemma4_error *error)
{
    double all = gemma4_replay_score(r, tap, NULL, NULL).score;
    *count = 0;
    for (size_t model = 0; model < d->models; model++) {
        gemma4_planted planted = {.models = {gemma4_counter_model_at(model)}, .only_layer = {-1}, .count = 1};
        gemma4_fit fit;
        trial result = can_show(r, &planted, tap) ? try_planted(d, r, tap, &planted, &fit, error) : TRIAL_NO_EFFECT;
        if (result == TRIAL_ERROR)
            return -1;
        if (result == TRIAL_MISS && fit.residual < PAIR_IMPROVEMENT * all)
            candidates[(*count)++] = (candidate){model, fit.residual};
    }
    qsort(candidates, *count, sizeof *candidates, by_candidate_residual);
    return 0;
}

/* Pairs of a good candidate and any other. */
static int explain_by_pairs(gemma4_diagnosis *d, gemma4_replay *r, gemma4_finding *f, gemma4_error *error)
{
    candidate *candidates = calloc(d->models, sizeof *candidates);
    size_t count = 0;
    int status = candidates ? find_candidates(d, r, f->tap, candidates, &count, error) : gemma4_fail(error, "diagnosis: out of memory");
    for (size_t a = 0; a < count && a < PAIR_FIRST && !status; a++)
        for (size_t b = a + 1; b < count && b < PAIR_SECOND && !status; b++) {
            gemma4_planted planted = {.models = {gemma4_counter_model_at(candidates[a].model), gemma4_counter_model_at(candidates[b].model)},
                                      .only_layer = {-1, -1}, .count = 2};
            gemma4_fit fit = {.model = candidates[a].model, .second = candidates[b].model, .only_layer = -1};
            trial result = try_prefix(d, r, f->tap, &planted, &fit, error);
            if (result == TRIAL_FIT)
                result = try_planted(d, r, f->tap, &planted, &fit, error);
            status = result == TRIAL_ERROR ? -1 : 0;
            if (result == TRIAL_FIT)
                keep_fit(f, &fit);
        }
    free(candidates);
    return status;
}

/* Expert ids are explained where the model chooses the same sets from the engine's own logits. */
static int fit_ids(gemma4_diagnosis *d, gemma4_replay *r, gemma4_finding *f, size_t model, gemma4_error *error)
{
    const gemma4_counter_model *m = gemma4_counter_model_at(model);
    gemma4_planted planted = {.models = {m}, .only_layer = {-1}, .count = 1};
    size_t K = d->model->config.top_k_experts, decisions = 0, others = 0;
    if (!contains(m->taps, GEMMA4_TAP_ROUTER_TOPK_IDS) || !gemma4_planted_in(r, &planted, 0, r->block))
        return 0;
    int32_t *ids = calloc(r->T * K, sizeof *ids);
    if (!ids)
        return gemma4_fail(error, "diagnosis: out of memory");
    gemma4_parameters parameters = gemma4_right_parameters();
    gemma4_step step = gemma4_replay_step(r);
    m->change(&parameters);
    int status = gemma4_counter_step(&step, &parameters, GEMMA4_TAP_ROUTER_TOPK_IDS, NULL, ids, error);
    for (size_t t = 0; t < r->T && !status; t++)
        for (size_t i = 0; i < K && r->have_ids[t]; i++) {
            bool found = false;
            for (size_t j = 0; j < K; j++)
                found = found || r->engine_ids[t * K + i] == ids[t * K + j];
            decisions++;
            others += !found;
        }
    free(ids);
    gemma4_fit fit = {.model = model, .second = NO_MODEL, .only_layer = -1, .coefficient = decisions ? 1 - (double)others / (double)decisions : 0};
    fit.residual = 1 - fit.coefficient;
    if (!status && decisions && others == 0)
        keep_fit(f, &fit);
    else if (!status)
        keep_near(f, &fit);
    return status;
}

static int explain_ids(gemma4_diagnosis *d, gemma4_replay *r, gemma4_finding *f, gemma4_error *error)
{
    for (size_t model = 0; model < d->models; model++)
        if (fit_ids(d, r, f, model, error))
            return -1;
    snprintf(f->description, sizeof f->description, "the chosen experts are not those with the largest router logits");
    return 0;
}

/* Where several layers were bridged, the mistake may be in one of them only. */
static int explain_by_one_layer(gemma4_diagnosis *d, gemma4_replay *r, gemma4_finding *f, gemma4_error *error)
{
    gemma4_block last = (gemma4_block)d->model->config.num_hidden_layers - 1;
    for (size_t model = 0; model < d->models; model++)
        for (gemma4_block layer = r->known_block < 0 ? 0 : r->known_block; layer <= last && layer <= r->block; layer++) {
            gemma4_planted planted = {.models = {gemma4_counter_model_at(model)}, .only_layer = {layer}, .count = 1};
            if (fit_planted(d, r, f, &planted, model, error))
                return -1;
        }
    return 0;
}

static int explain_tap(gemma4_diagnosis *d, gemma4_replay *r, gemma4_finding *f, gemma4_error *error)
{
    if (f->tap == GEMMA4_TAP_ROUTER_TOPK_IDS)
        return explain_ids(d, r, f, error);
    /* A mistake that is made at some positions only is looked for where none fits all. */
    size_t scopes = r->chunks > 1 ? GEMMA4_SCOPES : 1;
    for (size_t scope = GEMMA4_EVERYWHERE; scope < scopes && f->fit_count == 0; scope++)
        for (size_t model = 0; model < d->models; model++) {
            gemma4_planted planted = {.models = {gemma4_counter_model_at(model)}, .only_layer = {-1}, .count = 1, .scope = (gemma4_scope)scope};
            if (fit_planted(d, r, f, &planted, model, error))
                return -1;
        }
    if (r->known_block < r->block && f->fit_count == 0 && explain_by_one_layer(d, r, f, error))
        return -1;
    if (r->known_block < r->block && f->fit_count == 0 && explain_by_pairs(d, r, f, error))
        return -1;
    if (f->fit_count == 0)
        gemma4_describe_error(r, f->tap, f->description, sizeof f->description);
    return 0;
}

static int add_finding(gemma4_diagnosis *d, gemma4_replay *r, gemma4_tap tap, gemma4_error *error)
{
    gemma4_finding *more = realloc(d->findings, (d->finding_count + 1) * sizeof *more);
    if (!more)
        return gemma4_fail(error, "diagnosis: out of memory");
    d->findings = more;
    gemma4_finding *f = &d->findings[d->finding_count++];
    *f = (gemma4_finding){.tap = tap, .layer = r->block_layer};
    return explain_tap(d, r, f, error);
}

/* Is there anything to explain? A tap of which no row is finite says so itself. */
static bool has_rows(const gemma4_replay *r, gemma4_tap tap)
{
    const gemma4_replayed_tap *t = &r->taps[tap];
    for (size_t row = 0; t->engine && row < r->T; row++)
        if (t->have[row])
            return true;
    return tap == GEMMA4_TAP_ROUTER_TOPK_IDS;
}

int gemma4_diagnose_block(gemma4_diagnosis *d, gemma4_replay *r, const bool failed[GEMMA4_TAP_COUNT], gemma4_error *error)
{
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        if (failed[tap] && has_rows(r, (gemma4_tap)tap) && add_finding(d, r, (gemma4_tap)tap, error))
            return -1;
    /* A float32 engine's noise is as small as the reference's own rounding, which its error and every prediction share: a filter would find
     * that. Over several bridged layers, noise leaves no room for one that would be worth its time. */
    bool worthwhile = r->tier->unit > UNIT_FLOAT32 && r->block - r->known_block <= 1;
    for (size_t model = 0; model < d->models && worthwhile; model++)
        if (filter_model(d, r, model, failed, error))
            return -1;
    return 0;
}

/* ------------------------------------------------------------------ causes */

/* The fit of a model; of a pair, that of its first. */
static const gemma4_fit *fit_of(const gemma4_finding *f, size_t model)
{
    for (size_t i = 0; i < f->fit_count; i++)
        if (f->fits[i].model == model)
            return &f->fits[i];
    return NULL;
}

/* How many of the findings that are left a model explains, and how well. */
static size_t explains(const gemma4_diagnosis *d, const bool *done, size_t model, double *residual)
{
    size_t count = 0;
    double sum = 0;
    for (size_t i = 0; i < d->finding_count; i++) {
        const gemma4_fit *fit = done[i] ? NULL : fit_of(&d->findings[i], model);
        if (fit) {
            count++;
            sum += fit->residual * fit->residual;
        }
    }
    *residual = count ? sqrt(sum / (double)count) : INFINITY;
    return count;
}

static gemma4_cause *new_cause(gemma4_diagnosis *d)
{
    gemma4_cause *more = realloc(d->causes, (d->cause_count + 1) * sizeof *more);
    if (!more)
        return NULL;
    d->causes = more;
    d->causes[d->cause_count] = (gemma4_cause){0};
    return &d->causes[d->cause_count++];
}

static const char *id_of(size_t model)
{
    return gemma4_counter_model_at(model)->id;
}

/* Writes the layers whose bit is set as "0-4, 6". */
static void list_layers(char *text, size_t size, const bool *layers, size_t count)
{
    text[0] = '\0';
    for (size_t l = 0, end; l < count; l = end + 1) {
        for (end = l; end < count && layers[end]; end++)
            ;
        if (end == l)
            continue;
        size_t n = strlen(text);
        if (end - l == 1)
            snprintf(text + n, size - n, "%s%zu", n ? ", " : "", l);
        else
            snprintf(text + n, size - n, "%s%zu-%zu", n ? ", " : "", l, end - 1);
    }
}

/* Models that explain the same findings about as well: the evidence does not tell them apart. */
static void find_equivalents(const gemma4_diagnosis *d, const bool *done, gemma4_cause *cause, size_t *too_many)
{
    *too_many = 0;
    for (size_t model = 0; model < d->models; model++) {
        double residual;
        if (model == cause->model || !strcmp(id_of(model), id_of(cause->model)) || explains(d, done, model, &residual) < cause->taps)
            continue;
        bool listed = false;
        for (size_t i = 0; i < cause->equivalent_count; i++)
            listed = listed || !strcmp(id_of(cause->equivalent[i]), id_of(model));
        if (listed || !(residual <= EQUIVALENT_FACTOR * cause->residual + EQUIVALENT_OFFSET))
            continue;
        if (cause->equivalent_count < GEMMA4_MAX_EQUIVALENT)
            cause->equivalent[cause->equivalent_count++] = model;
        else
            ++*too_many;
    }
}

/* The model that explains most of what is left becomes a cause; false where none explains anything. */
static int take_cause(gemma4_diagnosis *d, bool *done, bool *taken, gemma4_error *error)
{
    size_t best = 0, most = 0, too_many;
    double best_residual = INFINITY;
    *taken = false;
    for (size_t model = 0; model < d->models; model++) {
        double residual;
        size_t count = explains(d, done, model, &residual);
        if (count > most || (count == most && count && residual < best_residual)) {
            best = model;
            most = count;
            best_residual = residual;
        }
    }
    if (most == 0)
        return 0;
    size_t layers = d->model->config.num_hidden_layers;
    bool *in_layer = calloc(layers + 1, sizeof *in_layer);
    gemma4_cause *cause = in_layer ? new_cause(d) : NULL;
    if (!cause) {
        free(in_layer);
        return gemma4_fail(error, "diagnosis: out of memory");
    }
    *cause = (gemma4_cause){.explained = true, .model = best, .second = NO_MODEL, .tap = GEMMA4_TAP_COUNT, .taps = most, .residual = best_residual};
    find_equivalents(d, done, cause, &too_many);
    double coefficients = 0;
    for (size_t i = 0; i < d->finding_count; i++) {
        const gemma4_finding *f = &d->findings[i];
        const gemma4_fit *fit = done[i] ? NULL : fit_of(f, best);
        if (!fit)
            continue;
        if (cause->tap == GEMMA4_TAP_COUNT) {
            cause->tap = f->tap;
            cause->first_layer = f->layer;
            cause->has_near = f->has_near;
            cause->near = f->near;
            cause->second = fit->second;
            cause->scope = fit->scope;
        }
        coefficients += fit->coefficient;
        done[i] = true;
        if (fit->only_layer >= 0)
            in_layer[fit->only_layer] = true;
        else if (gemma4_tap_describe(f->tap)->per_layer)
            in_layer[f->layer] = true;
    }
    cause->coefficient = coefficients / (double)most;
    if (too_many) { /* more names than a person can check are no name */
        cause->explained = false;
        snprintf(cause->description, sizeof cause->description, "more than %d known mistakes fit this evidence, %s among them; dump more taps",
                 GEMMA4_MAX_EQUIVALENT, id_of(best));
    }
    list_layers(cause->layers, sizeof cause->layers, in_layer, layers);
    free(in_layer);
    *taken = true;
    if (cause->second != NO_MODEL) { /* two mistakes together: each is a cause */
        gemma4_cause other = *cause;
        other.model = cause->second;
        other.second = cause->model;
        cause = new_cause(d);
        if (!cause)
            return gemma4_fail(error, "diagnosis: out of memory");
        *cause = other;
    }
    return 0;
}

/* What nothing explains: one entry a kind of tap. */
static int take_unexplained(gemma4_diagnosis *d, bool *done, gemma4_error *error)
{
    size_t layers = d->model->config.num_hidden_layers;
    bool *in_layer = calloc(layers + 1, sizeof *in_layer);
    for (size_t i = 0; in_layer && i < d->finding_count; i++) {
        const gemma4_finding *first = &d->findings[i];
        if (done[i])
            continue;
        gemma4_cause *cause = new_cause(d);
        if (!cause)
            break;
        *cause = (gemma4_cause){.second = NO_MODEL, .tap = first->tap, .first_layer = first->layer, .has_near = first->has_near, .near = first->near};
        snprintf(cause->description, sizeof cause->description, "%s", first->description);
        memset(in_layer, 0, (layers + 1) * sizeof *in_layer);
        for (size_t k = i; k < d->finding_count; k++)
            if (!done[k] && d->findings[k].tap == first->tap) {
                done[k] = true;
                cause->taps++;
                in_layer[d->findings[k].layer] = gemma4_tap_describe(first->tap)->per_layer;
            }
        list_layers(cause->layers, sizeof cause->layers, in_layer, layers);
    }
    bool all = in_layer != NULL;
    for (size_t i = 0; i < d->finding_count; i++)
        all = all && done[i];
    free(in_layer);
    return all ? 0 : gemma4_fail(error, "diagnosis: out of memory");
}

/* The filter by which a model is significant, NULL where by none. */
static const filter *significant_filter(const filter_state *state)
{
    return is_significant(&state->all, FILTER_DEVIATIONS)          ? &state->all
           : is_significant(&state->best, FILTER_LAYER_DEVIATIONS) ? &state->best
                                                                   : NULL;
}

static double significance(const filter *f)
{
    return coefficient(f) / coefficient_spread(f);
}

static bool is_named(const gemma4_diagnosis *d, size_t model)
{
    for (size_t i = 0; i < d->cause_count; i++)
        if (d->causes[i].explained && !strcmp(id_of(d->causes[i].model), id_of(model)))
            return true;
    return false;
}

/* A mistake that no tap shows but all layers together do, or one layer by itself. Of those that enter at one tap the most significant
 * one is the cause, the others are equivalent to it. done holds the models that are dealt with. */
static int take_below_bound(gemma4_diagnosis *d, bool *done, bool *taken, gemma4_error *error)
{
    const filter_state *best = NULL;
    *taken = false;
    for (size_t model = 0; model < d->models; model++) {
        const filter_state *state = &d->filters[model];
        const filter *f = done[model] || is_named(d, model) ? NULL : significant_filter(state);
        if (f && (!best || significance(f) > significance(significant_filter(best))))
            best = state;
    }
    if (!best)
        return 0;
    const filter *f = significant_filter(best);
    bool everywhere = f == &best->all;
    gemma4_cause *cause = new_cause(d);
    if (!cause)
        return gemma4_fail(error, "diagnosis: out of memory");
    *cause = (gemma4_cause){.explained = true, .model = (size_t)(best - d->filters), .second = NO_MODEL, .below_bound = true,
                            .tap = everywhere ? best->tap : best->best_tap, .first_layer = everywhere ? best->first_layer : best->best_layer,
                            .coefficient = coefficient(f), .residual = coefficient_spread(f)};
    if (!everywhere)
        snprintf(cause->layers, sizeof cause->layers, "%zu", best->best_layer);
    for (size_t model = 0; model < d->models; model++) {
        const filter_state *state = &d->filters[model];
        if (done[model] || !significant_filter(state) || state->tap != best->tap)
            continue;
        done[model] = true;
        if (strcmp(id_of(model), id_of(cause->model)) && cause->equivalent_count < GEMMA4_MAX_EQUIVALENT)
            cause->equivalent[cause->equivalent_count++] = model;
    }
    *taken = true;
    return 0;
}

static int conclude_below_bound(gemma4_diagnosis *d, gemma4_error *error)
{
    bool *done = calloc(d->models, sizeof *done), taken = true;
    int status = done ? 0 : gemma4_fail(error, "diagnosis: out of memory");
    while (!status && taken)
        status = take_below_bound(d, done, &taken, error);
    free(done);
    return status;
}

int gemma4_diagnose_conclude(gemma4_diagnosis *d, gemma4_error *error)
{
    bool *done = calloc(d->finding_count + 1, sizeof *done), taken = true;
    int status = done ? 0 : gemma4_fail(error, "diagnosis: out of memory");
    while (!status && taken)
        status = take_cause(d, done, &taken, error);
    if (!status)
        status = take_unexplained(d, done, error);
    if (!status)
        status = conclude_below_bound(d, error);
    free(done);
    return status;
}

size_t gemma4_cause_count(const gemma4_diagnosis *d)
{
    return d ? d->cause_count : 0;
}

const gemma4_cause *gemma4_cause_at(const gemma4_diagnosis *d, size_t index)
{
    return &d->causes[index];
}

gemma4_diagnosis *gemma4_diagnosis_new(const gemma4_model *model, gemma4_error *error)
{
    gemma4_diagnosis *d = calloc(1, sizeof *d);
    size_t models = gemma4_counter_model_count();
    if (!d || !(d->filters = calloc(models, sizeof *d->filters))) {
        free(d);
        gemma4_fail(error, "diagnosis: out of memory");
        return NULL;
    }
    d->model = model;
    d->models = models;
    return d;
}

void gemma4_diagnosis_free(gemma4_diagnosis *d)
{
    if (!d)
        return;
    free(d->filters);
    free(d->findings);
    free(d->causes);
    free(d->prediction);
    free(d);
}
