#include "fit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "counter_model.h"
#include "counter_run.h"
#include "describe.h"
#include "evidence.h"
#include "fit_internal.h"
#include "model.h"
#include "noise.h"
#include "planted.h"
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

/* --------------------------------------------------------------------- search */

static int by_residual(const void *a, const void *b)
{
    const gemma4_fit *x = a, *y = b;
    return x->residual < y->residual ? -1 : x->residual > y->residual;
}

static void fit_keep(gemma4_finding *f, const gemma4_fit *fit)
{
    if (f->fit_count < GEMMA4_MAX_FITS)
        f->fits[f->fit_count++] = *fit;
    else if (fit->residual < f->fits[GEMMA4_MAX_FITS - 1].residual)
        f->fits[GEMMA4_MAX_FITS - 1] = *fit;
    qsort(f->fits, f->fit_count, sizeof *f->fits, by_residual);
}

/* The best of those that do not fit: the one that leaves the least part of the error. Where the
 * error is within rounding, at the few positions that were looked at, what is left of it says
 * nothing; and of a pair, one alone would be named. */
static void keep_near(gemma4_finding *f, const gemma4_fit *fit)
{
    if (!(fit->error > LIMIT_SCORE) || fit->second != NO_MODEL)
        return;
    if (f->has_near && !(fit->residual / fit->error < f->near.residual / f->near.error))
        return;
    f->near = *fit;
    f->has_near = true;
}

static void keep_difference(fit_search *s, size_t model, size_t positions)
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
int fit_try(fit_search *s, const gemma4_planted *planted, size_t model, size_t second)
{
    gemma4_fit fit = {.model = model,
                      .second = second,
                      .only_layer = planted->only_layer[0],
                      .scope = planted->scope};
    if (planted->count == 1 && !gemma4_can_show(s->e, planted, s->tap))
        return 0;
    bool everywhere =
        planted->count == 1 && planted->only_layer[0] < 0 && planted->scope == GEMMA4_EVERYWHERE;
    size_t positions = fit_first_positions(s, planted);
    /* Of these there are many. Within a layer of a 16-bit engine, where experts flip, a first look
     * says little. */
    bool whole_layers = !gemma4_is_one_step(s->e, planted->models[0], s->tap) &&
                        (fit_is_bridged(s->e) || s->e->subject->tier->unit <= UNIT_FLOAT32);
    bool many = whole_layers && (planted->only_layer[0] >= 0 ||
                                 planted->scope != GEMMA4_EVERYWHERE || planted->count > 1);
    fit_trial result = many ? fit_screen(s, planted, positions) : FIT_FITS;
    if (positions && result == FIT_FITS)
        result = fit_try_positions(s, planted, positions, &fit);
    if (everywhere && positions && result > FIT_NO_EFFECT) {
        keep_difference(s, model, positions);
        s->missed_early[model] = result == FIT_MISS;
    }
    /* Without effect there, it may act later: past the window, in a later chunk. */
    if (result == FIT_FITS || (positions && !many && result == FIT_NO_EFFECT))
        result = fit_try_positions(s, planted, 0, &fit);
    if (result == FIT_FITS)
        fit_keep(s->finding, &fit);
    else if (result == FIT_MISS && fit.error > 0)
        keep_near(s->finding, &fit);
    if (everywhere && result > FIT_NO_EFFECT)
        s->partial[model] = fit;
    return result == FIT_ERROR ? -1 : 0;
}

/* ------------------------------------------------------------------ what is tried */

/* What has no effect when it is planted everywhere has none in part. */
bool fit_has_effect(const fit_search *s, size_t model)
{
    return s->partial[model].model != NO_MODEL;
}

/* The first position of the scope; T where it has none, all, or those of the next wider scope. */
static size_t first_in_scope(const fit_search *s, gemma4_scope scope)
{
    const gemma4_schedule *schedule = &s->e->subject->schedule;
    size_t T = s->e->subject->T, first = T;
    bool other = scope == GEMMA4_AFTER_FIRST_CHUNK, all = true;
    for (size_t t = T; t-- > 0;) {
        bool inside = gemma4_in_scope(schedule, scope, t);
        first = inside ? t : first;
        all = all && inside;
        other = other || inside != gemma4_in_scope(schedule, GEMMA4_AFTER_FIRST_CHUNK, t);
    }
    return other && !all ? first : T;
}

/* Would the error be seen at any position where its mistake acts? */
static bool is_large(const fit_search *s)
{
    return s->finding->error >= LATE_ERROR * LIMIT_SCORE;
}

static bool are_right(const fit_search *s, size_t positions)
{
    const gemma4_against first = {.positions = positions};
    gemma4_score score = gemma4_score_tap(s->e, s->tap, &first);
    return score.score <= LIMIT_SCORE && score.worst <= LIMIT_WORST;
}

bool fit_may_be_in_scope(const fit_search *s, gemma4_scope scope)
{
    size_t first = first_in_scope(s, scope);
    if (first == s->e->subject->T || first == 0)
        return first == 0;
    return are_right(s, first);
}

static int try_scope(fit_search *s, gemma4_scope scope, bool single_steps_only)
{
    size_t first = first_in_scope(s, scope);
    /* What acts at every position would be wrong at the scope's first one too. */
    bool late = first > 0 && first < s->e->subject->T && is_large(s) && are_right(s, first + 1);
    for (size_t model = 0; model < gemma4_counter_model_count(); model++) {
        gemma4_planted planted = {.models = {gemma4_counter_model_at(model)},
                                  .only_layer = {-1},
                                  .count = 1,
                                  .scope = scope};
        if (scope != GEMMA4_EVERYWHERE &&
            (!fit_has_effect(s, model) || (late && s->missed_early[model])))
            continue;
        /* The first positions are the same as everywhere, where the first chunk holds them. */
        if (scope == GEMMA4_FIRST_CHUNK_ONLY && s->missed_early[model] &&
            s->e->subject->schedule.chunk_end[0] >= PREFIX_POSITIONS)
            continue;
        if ((!single_steps_only || gemma4_is_one_step(s->e, planted.models[0], s->tap)) &&
            fit_try(s, &planted, model, NO_MODEL))
            return -1;
    }
    return 0;
}

/* Engines have other code for a prompt, for its later chunks and for single tokens. A mistake that
 * is made at some positions only is looked for where none fits all. */
static int try_scopes(fit_search *s)
{
    for (int scope = GEMMA4_EVERYWHERE + 1; scope < GEMMA4_SCOPES && s->finding->fit_count == 0;
         scope++)
        if (fit_may_be_in_scope(s, (gemma4_scope)scope) && try_scope(s, (gemma4_scope)scope, false))
            return -1;
    return 0;
}

/* Models by the part of the error that they explain when planted everywhere: the `most` largest, in
 * order. Returns how many there are. */
size_t fit_by_share(const fit_search *s, size_t *models, size_t most)
{
    size_t count = 0;
    for (size_t model = 0; model < gemma4_counter_model_count(); model++) {
        size_t at = count;
        if (!fit_has_effect(s, model))
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

/* Are the first positions right, and is there a scope that would be why? */
static bool begins_late(const fit_search *s)
{
    if (!is_large(s))
        return false;
    for (int scope = GEMMA4_EVERYWHERE + 1; scope < GEMMA4_SCOPES; scope++) {
        size_t first = first_in_scope(s, (gemma4_scope)scope);
        if (first >= PREFIX_POSITIONS && first < s->e->subject->T && are_right(s, first))
            return true;
    }
    return false;
}

/* Where several layers were bridged, the mistake may be in one of them only: not one that acts at
 * positions which are right. */
static int try_one_layer(fit_search *s)
{
    gemma4_block last = (gemma4_block)s->e->subject->model->config.num_hidden_layers - 1;
    bool late = begins_late(s);
    for (size_t model = 0; model < gemma4_counter_model_count(); model++) {
        if (late && s->missed_early[model])
            continue;
        for (gemma4_block layer = s->e->known_block < 0 ? 0 : s->e->known_block;
             fit_has_effect(s, model) && layer <= last && layer <= s->e->block; layer++) {
            gemma4_planted planted = {
                .models = {gemma4_counter_model_at(model)}, .only_layer = {layer}, .count = 1};
            if (fit_try(s, &planted, model, NO_MODEL))
                return -1;
        }
    }
    return 0;
}

/* --- the choice of experts --- */

int fit_choose(const fit_search *s, const gemma4_counter_model *m, gemma4_scope scope, int32_t *ids)
{
    const gemma4_evidence *e = s->e;
    size_t T = e->subject->T, K = e->subject->model->config.top_k_experts;
    gemma4_parameters right = gemma4_known_parameters(e->subject, e->block), parameters = right;
    gemma4_step step = gemma4_evidence_step(e);
    int32_t *otherwise = calloc(T * K, sizeof *otherwise);
    if (!otherwise)
        return gemma4_fail(s->error, "diagnosis: out of memory");
    gemma4_counter_apply(m, &parameters);
    int status =
        gemma4_counter_step(&step, &parameters, GEMMA4_TAP_ROUTER_TOPK_IDS, NULL, ids, s->error);
    if (!status && scope != GEMMA4_EVERYWHERE)
        status = gemma4_counter_step(&step, &right, GEMMA4_TAP_ROUTER_TOPK_IDS, NULL, otherwise,
                                     s->error);
    for (size_t t = 0; t < T && !status; t++)
        if (!gemma4_in_scope(&e->subject->schedule, scope, t))
            memcpy(ids + t * K, otherwise + t * K, K * sizeof *ids);
    free(otherwise);
    return status;
}

/* Expert ids are explained where the model chooses the same sets from the engine's own logits. */
static int fit_ids(fit_search *s, size_t model, gemma4_scope scope)
{
    const gemma4_evidence *e = s->e;
    const gemma4_counter_model *m = gemma4_counter_model_at(model);
    gemma4_planted planted = {.models = {m}, .only_layer = {-1}, .count = 1};
    size_t T = e->subject->T, K = e->subject->model->config.top_k_experts, decisions = 0,
           others = 0;
    if (!contains(m->taps, GEMMA4_TAP_ROUTER_TOPK_IDS) ||
        !gemma4_planted_in(&e->subject->model->config, &planted, 0, e->block))
        return 0;
    int32_t *ids = calloc(T * K, sizeof *ids);
    int status =
        ids ? fit_choose(s, m, scope, ids) : gemma4_fail(s->error, "diagnosis: out of memory");
    for (size_t t = 0; t < T && !status; t++)
        for (size_t i = 0; i < K && e->have_ids[t]; i++) {
            bool found = false;
            for (size_t j = 0; j < K; j++)
                found = found || e->engine_ids[t * K + i] == ids[t * K + j];
            decisions++;
            others += !found;
        }
    free(ids);
    gemma4_fit fit = {.model = model, .second = NO_MODEL, .only_layer = -1, .scope = scope};
    fit.coefficient = fit.share = decisions ? 1 - (double)others / (double)decisions : 0;
    fit.residual = 1 - fit.coefficient;
    if (!status && decisions && others == 0)
        fit_keep(s->finding, &fit);
    return status;
}

static int find_fits_of_ids(fit_search *s)
{
    const gemma4_finding *f = s->finding;
    for (int scope = GEMMA4_EVERYWHERE;
         scope < GEMMA4_SCOPES && f->fit_count == 0 && f->point_count == 0; scope++) {
        if (scope != GEMMA4_EVERYWHERE &&
            first_in_scope(s, (gemma4_scope)scope) == s->e->subject->T)
            continue;
        for (size_t model = 0; model < gemma4_counter_model_count(); model++)
            if (fit_ids(s, model, (gemma4_scope)scope))
                return -1;
        if (f->fit_count == 0 && fit_identify_ids(s, (gemma4_scope)scope))
            return -1;
    }
    snprintf(s->finding->description, sizeof s->finding->description,
             "the chosen experts are not those with the largest router logits");
    return 0;
}

/* --- what earlier findings tell --- */

static bool same_kind(const gemma4_config *c, const gemma4_finding *f, const gemma4_evidence *e)
{
    return !gemma4_tap_describe(f->tap)->per_layer ||
           c->layers[f->layer].kind == c->layers[e->layer].kind;
}

/* What explained the same tap in the last layers is likely to do so here. */
static int try_earlier(fit_search *s, const gemma4_finding *earlier, size_t count)
{
    size_t tried = 0;
    for (size_t i = count; i-- > 0 && tried < EARLIER_FINDINGS && s->finding->fit_count == 0;) {
        if (earlier[i].tap != s->tap || earlier[i].fit_count == 0)
            continue;
        tried++;
        for (size_t k = 0; k < earlier[i].fit_count; k++) {
            const gemma4_fit *fit = &earlier[i].fits[k];
            gemma4_planted planted = {.models = {gemma4_counter_model_at(fit->model)},
                                      .only_layer = {-1},
                                      .count = 1,
                                      .scope = fit->scope};
            if (fit->second == NO_MODEL && fit_try(s, &planted, fit->model, NO_MODEL))
                return -1;
        }
    }
    return 0;
}

/* In how many layers of the kind has the search come to nothing at this tap? */
static size_t searches_in_vain(const fit_search *s, const gemma4_finding *earlier, size_t count)
{
    size_t unexplained = 0;
    for (size_t i = 0; i < count; i++)
        unexplained += earlier[i].tap == s->tap && earlier[i].fit_count == 0 &&
                       earlier[i].point_count == 0 &&
                       same_kind(&s->e->subject->model->config, &earlier[i], s->e);
    return unexplained;
}

/* Does the model predict a failure, at another tap of the same block, that the dump does not
 * have? */
static int contradicts(fit_search *s, const gemma4_counter_model *m, gemma4_scope scope,
                       bool *contradiction)
{
    const gemma4_evidence *e = s->e;
    const gemma4_planted planted = {.models = {m}, .only_layer = {-1}, .count = 1, .scope = scope};
    *contradiction = false;
    for (const gemma4_tap *t = m->taps; *t != GEMMA4_TAP_COUNT && !*contradiction; t++) {
        if (*t == s->tap || *t == GEMMA4_TAP_ROUTER_TOPK_IDS ||
            *t == GEMMA4_TAP_ATTN_SCORES /* what is masked may hold anything */ ||
            !gemma4_tap_is_in(&e->subject->model->config, *t, e->block) || !e->taps[*t].engine ||
            !gemma4_is_one_step(e, m, *t) || !gemma4_within_limits(e, *t))
            continue;
        real *predicted = malloc(e->subject->T * e->taps[*t].width * sizeof *predicted);
        if (!predicted)
            return gemma4_fail(s->error, "diagnosis: out of memory");
        const gemma4_against rows = {.values = predicted};
        int status = gemma4_predict(e, s->runner, &planted, *t, 0, predicted, NULL, s->error);
        gemma4_score score = gemma4_score_tap(e, *t, &rows);
        free(predicted);
        if (status)
            return -1;
        *contradiction = !(score.score <= CONTRADICTION * LIMIT_SCORE);
    }
    return 0;
}

/* Leaves out what predicts failures that are not there: of two exchanged weights one was exchanged
 * only, for instance. */
static int drop_contradictions(fit_search *s)
{
    gemma4_finding *f = s->finding;
    size_t kept = 0;
    for (size_t i = 0; i < f->fit_count; i++) {
        bool contradiction = false;
        bool whole =
            f->fits[i].only_layer < 0 && f->fits[i].second == NO_MODEL && !fit_is_bridged(s->e);
        if (whole && contradicts(s, gemma4_counter_model_at(f->fits[i].model), f->fits[i].scope,
                                 &contradiction))
            return -1;
        if (!contradiction)
            f->fits[kept++] = f->fits[i];
    }
    f->fit_count = kept;
    return 0;
}

/* One of several numbers of rotating pairs, at a rotation by itself. */
static bool is_of_pairs(gemma4_tap tap, const gemma4_parameters *p)
{
    return (tap == GEMMA4_TAP_ATTN_Q_ROPE && p->q_rope.pairs != 1) ||
           (tap == GEMMA4_TAP_ATTN_K_ROPE && p->k_rope.pairs != 1);
}

/* A norm that is missing, where what it reads may be of size 1 already: then its weight may be what
 * is missing. */
static bool is_missing_norm(const gemma4_parameters *p)
{
    for (size_t norm = 0; norm < GEMMA4_NORM_COUNT; norm++)
        if (p->norm[norm].dropped)
            return true;
    return false;
}

/* An eps that the catalogue does not have, but has one near to. */
static bool is_near_eps(const gemma4_fit *fit, const gemma4_parameters *p)
{
    for (size_t norm = 0; norm < GEMMA4_NORM_COUNT; norm++)
        if (p->norm[norm].eps > 0 && !(fabs(fit->coefficient - 1) <= AGREED_PART))
            return true;
    return false;
}

/* Does a mistake fit that a point may be taken for? */
static bool has_neighbours(const fit_search *s)
{
    for (size_t i = 0; i < s->finding->fit_count; i++) {
        const gemma4_fit *fit = &s->finding->fits[i];
        gemma4_parameters p = gemma4_right_parameters();
        gemma4_counter_apply(gemma4_counter_model_at(fit->model), &p);
        if (is_of_pairs(s->tap, &p) || is_missing_norm(&p) || is_near_eps(fit, &p))
            return !fit_is_bridged(s->e);
    }
    return false;
}

/* An activation, in a tier in which two that are near to each other are one. */
static bool is_coarse_activation(const fit_search *s)
{
    bool activation = s->tap == GEMMA4_TAP_MLP_ACT || s->tap == GEMMA4_TAP_MOE_ACT;
    return activation && s->e->subject->tier->unit > UNIT_FLOAT32 && !fit_is_bridged(s->e);
}

/* A mask at some positions only: there are few, at which many masks are one. */
static bool is_mask_somewhere(const fit_search *s)
{
    bool of_mask = s->tap == GEMMA4_TAP_ATTN_SCORES || s->tap == GEMMA4_TAP_ATTN_PROBS ||
                   s->tap == GEMMA4_TAP_ATTN_CONTEXT;
    return of_mask && s->finding->fit_count && s->finding->fits[0].scope != GEMMA4_EVERYWHERE &&
           !fit_is_bridged(s->e);
}

/* Leaves out the mistakes that explain the error much worse than a point does. */
static void drop_worse_than_points(gemma4_finding *f)
{
    double best = INFINITY;
    size_t kept = 0;
    for (size_t i = 0; i < f->point_count; i++)
        best = fmin(best, f->points[i].residual);
    for (size_t i = 0; i < f->fit_count; i++)
        if (f->fits[i].residual <= 1 || f->fits[i].residual <= POINT_IMPROVEMENT * best)
            f->fits[kept++] = f->fits[i];
    f->fit_count = kept;
}

/* Points that fit beside a catalogued mistake: neighbours of its number, or functions near its own;
 * and what explained the tap in a layer before, where the mistake may fit this one by chance. */
static int look_beside(fit_search *s, const gemma4_finding *earlier, size_t count)
{
    bool points = false;
    for (size_t i = 0; i < count; i++)
        points = points ||
                 (earlier[i].tap == s->tap && earlier[i].fit_count == 0 && earlier[i].point_count);
    if (points && fit_identify_as_before(s, earlier, count))
        return -1;
    if ((has_neighbours(s) || is_coarse_activation(s) || is_mask_somewhere(s)) &&
        fit_identify_beside(s))
        return -1;
    drop_worse_than_points(s->finding);
    return 0;
}

static int find_fits(fit_search *s, const gemma4_finding *earlier, size_t count)
{
    gemma4_finding *f = s->finding;
    if (s->tap == GEMMA4_TAP_ROUTER_TOPK_IDS)
        return find_fits_of_ids(s);
    if (try_earlier(s, earlier, count) || drop_contradictions(s))
        return -1;
    if (f->fit_count)
        return look_beside(s, earlier, count);
    size_t in_vain = searches_in_vain(s, earlier, count);
    bool hopeless = in_vain >= SEARCHES_IN_VAIN;
    if (try_scope(s, GEMMA4_EVERYWHERE, hopeless) || drop_contradictions(s) ||
        (f->fit_count == 0 && in_vain == 0 && (try_scopes(s) || drop_contradictions(s))))
        return -1;
    if (fit_is_bridged(s->e) && !hopeless &&
        ((f->fit_count == 0 && try_one_layer(s)) || (f->fit_count == 0 && fit_try_pairs(s))))
        return -1;
    if (f->fit_count == 0 && (s->e->subject->search_layers || !fit_is_whole_layer(s->e)) &&
        (hopeless ? fit_identify_as_before(s, earlier, count) : fit_identify(s, earlier, count)))
        return -1;
    if (f->fit_count && look_beside(s, earlier, count))
        return -1;
    return f->fit_count || f->point_count ? 0
                                          : gemma4_describe_error(s->e, s->tap, f->description,
                                                                  sizeof f->description, s->error);
}

int gemma4_find_fits(const gemma4_evidence *e, gemma4_runner *runner, gemma4_tap tap,
                     const gemma4_finding *earlier, size_t earlier_count, gemma4_finding *finding,
                     gemma4_error *error)
{
    const gemma4_against every = {0};
    size_t models = gemma4_counter_model_count(), n = e->subject->T * e->taps[tap].width;
    *finding = (gemma4_finding){
        .tap = tap, .layer = e->layer, .error = gemma4_score_tap(e, tap, &every).score};
    fit_search s = {.e = e, .runner = runner, .tap = tap, .finding = finding, .error = error};
    s.prediction = malloc((n ? n : 1) * sizeof *s.prediction);
    s.open = calloc(e->subject->T, sizeof *s.open);
    s.partial = finding->partial = malloc(models * sizeof *s.partial);
    s.missed_early = calloc(models, sizeof *s.missed_early);
    s.differences = calloc(models, sizeof *s.differences);
    int status = s.prediction && s.open && s.partial && s.missed_early && s.differences
                     ? 0
                     : gemma4_fail(error, "diagnosis: out of memory");
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
    for (size_t i = 0; i < finding->point_count; i++)
        free(finding->points[i].point);
    finding->point_count = 0;
}
