/* What explains a rung: candidates from its report, held against every rung before it. */
#include "causes.h"
#include "counter_model.h"
#include "counter_run.h"
#include "diagnose.h"
#include "document.h"
#include "evidence.h"
#include "fit.h"
#include "ladder.h"
#include "ladder_internal.h"
#include "manifest.h"
#include "point.h"
#include "report.h"

#include <stdlib.h>
#include <string.h>

void ladder_free_cause(gemma4_ladder_cause *cause)
{
    for (size_t i = 0; i < cause->count; i++)
        free(cause->candidates[i].point);
    *cause = (gemma4_ladder_cause){0};
}

static bool has_candidate(const gemma4_ladder_cause *cause, const gemma4_counter_model *model)
{
    for (size_t i = 0; i < cause->count; i++)
        if (cause->candidates[i].model == model)
            return true;
    return false;
}

void ladder_add_model(gemma4_ladder_cause *cause, size_t model, int only_layer)
{
    const gemma4_counter_model *m = gemma4_counter_model_at(model);
    if (cause->count < GEMMA4_LADDER_CANDIDATES && !has_candidate(cause, m))
        cause->candidates[cause->count++] =
            (gemma4_ladder_candidate){.model = m, .only_layer = only_layer};
}

/* A point of its own, since the report's is freed. */
static int add_point(gemma4_ladder_cause *cause, const gemma4_climb *climb, size_t rung,
                     const gemma4_point *point, gemma4_error *error)
{
    const gemma4_config *config = &climb->opened[rung].model->config;
    if (cause->count == GEMMA4_LADDER_CANDIDATES)
        return 0;
    gemma4_point *own = gemma4_point_new(config, point->settings, point->count, point->model.where);
    if (!own)
        return gemma4_fail(error, "ladder: out of memory");
    memcpy(own->low, point->low, sizeof own->low);
    memcpy(own->high, point->high, sizeof own->high);
    memcpy(own->expression, point->expression, sizeof own->expression);
    cause->candidates[cause->count++] =
        (gemma4_ladder_candidate){.model = &own->model, .point = own, .only_layer = -1};
    return 0;
}

/* The layer that a mistake was planted in; -1: all. */
static int layer_of_fit(const gemma4_report *report, const gemma4_cause *cause, size_t model)
{
    for (size_t i = 0; i < gemma4_finding_count(report->diagnosis); i++) {
        const gemma4_finding *f = gemma4_finding_at(report->diagnosis, i);
        for (size_t k = 0; f->tap == cause->tap && k < f->fit_count; k++)
            if (f->fits[k].model == model && f->fits[k].scope == cause->scope)
                return f->fits[k].only_layer;
    }
    return -1;
}

/* Everything in the report that fits as well as the cause does. */
static int find_candidates(const gemma4_climb *climb, size_t rung, const gemma4_report *report,
                           const gemma4_cause *c, gemma4_ladder_cause *cause, gemma4_error *error)
{
    *cause = (gemma4_ladder_cause){.rung = rung, .scope = c->scope};
    if (c->point && add_point(cause, climb, rung, c->point, error))
        return -1;
    for (size_t i = 0; c->point && i < c->equivalent_point_count; i++)
        if (add_point(cause, climb, rung, c->equivalent_points[i], error))
            return -1;
    if (c->point)
        return 0;
    ladder_add_model(cause, c->model, layer_of_fit(report, c, c->model));
    for (size_t i = 0; i < c->equivalent_count && c->second == GEMMA4_NO_MODEL; i++)
        ladder_add_model(cause, c->equivalent[i], layer_of_fit(report, c, c->equivalent[i]));
    for (size_t i = 0; i < gemma4_finding_count(report->diagnosis) && c->second == GEMMA4_NO_MODEL;
         i++) {
        const gemma4_finding *f = gemma4_finding_at(report->diagnosis, i);
        for (size_t k = 0; f->tap == c->tap && f->layer == c->first_layer && k < f->fit_count; k++)
            if (f->fits[k].second == GEMMA4_NO_MODEL && f->fits[k].scope == c->scope)
                ladder_add_model(cause, f->fits[k].model, f->fits[k].only_layer);
    }
    return 0;
}

bool ladder_acts_in(const gemma4_climb *climb, size_t rung,
                    const gemma4_ladder_candidate *candidate)
{
    const gemma4_config *config = &climb->opened[rung].model->config;
    gemma4_planted planted = {.scope = GEMMA4_EVERYWHERE};
    ladder_plant(&planted, climb, rung, candidate);
    for (gemma4_block block = -1; planted.count && block <= (gemma4_block)config->num_hidden_layers;
         block++)
        if (gemma4_planted_in(config, &planted, 0, block))
            return true;
    return false;
}

/* Does a rung pass with these mistakes beside what is known? */
static int agrees(const gemma4_climb *climb, size_t rung, const gemma4_planted *known,
                  const gemma4_ladder_candidate *const *new_ones, size_t count, bool *passes,
                  gemma4_error *error)
{
    gemma4_planted planted = *known;
    for (size_t i = 0; i < count; i++)
        ladder_plant(&planted, climb, rung, new_ones[i]);
    return ladder_passes(climb, rung, &planted, passes, error);
}

int ladder_agree_elsewhere(const gemma4_climb *climb, size_t rung,
                           const gemma4_ladder_candidate *const *new_ones, size_t count,
                           bool *agree, gemma4_error *error)
{
    *agree = true;
    for (size_t i = 0; i < climb->ladder->count && *agree; i++) {
        const gemma4_rung_result *r = &climb->results[i];
        bool acts = false;
        for (size_t k = 0; k < count; k++)
            acts = acts || (ladder_stands(r) && ladder_acts_in(climb, i, new_ones[k]));
        if (!acts || i == rung)
            continue;
        gemma4_planted known = ladder_known(climb, i, GEMMA4_NO_MODEL, 0);
        if (agrees(climb, i, &known, new_ones, count, agree, error))
            return -1;
    }
    return 0;
}

/* Drops the candidates that another rung contradicts, and those with which this one does not
 * pass. */
static int drop_contradicted(const gemma4_climb *climb, const gemma4_planted *known,
                             gemma4_ladder_cause *cause, gemma4_error *error)
{
    size_t kept = 0;
    int status = 0;
    for (size_t i = 0; i < cause->count; i++) {
        const gemma4_ladder_candidate *candidate = &cause->candidates[i];
        bool agree = true;
        if (!status && cause->scope == GEMMA4_EVERYWHERE &&
            (agrees(climb, cause->rung, known, &candidate, 1, &agree, error) ||
             (agree && ladder_agree_elsewhere(climb, cause->rung, &candidate, 1, &agree, error))))
            status = -1;
        if (agree || status) /* what was not looked at stays, to be freed with the cause */
            cause->candidates[kept++] = *candidate;
        else
            free(candidate->point);
    }
    cause->count = kept;
    return status;
}

/* Are these the same positions, as the case is fed? Those of a chunk are in a scope together. */
static bool same_positions(const gemma4_case *c, gemma4_scope a, gemma4_scope b)
{
    bool same = c->schedule_count > 0;
    for (size_t i = 0, start = 0, end; i < c->schedule_count; i++, start = end) {
        end = start + (size_t)c->schedule[i];
        const gemma4_schedule chunk = {.chunk_start = &start, .chunk_end = &end};
        same = same && gemma4_in_scope(&chunk, a, 0) == gemma4_in_scope(&chunk, b, 0);
    }
    return a == b || same;
}

/* The same mistake at the same positions, found before: it is not planted, and shows again. */
static bool is_found(const gemma4_climb *climb, size_t rung, const gemma4_ladder_cause *cause,
                     size_t *which)
{
    const gemma4_case *of_rung = climb->ladder->rungs[rung].the_case;
    for (*which = 0; *which < climb->cause_count; ++*which) {
        const gemma4_ladder_cause *c = &climb->causes[*which];
        for (size_t i = 0; i < cause->count && c->scope != GEMMA4_EVERYWHERE; i++)
            if (same_positions(of_rung, c->scope, cause->scope) &&
                !strcmp(c->candidates[0].model->id, cause->candidates[i].model->id))
                return true;
    }
    return false;
}

void ladder_add_cause(gemma4_climb *climb, size_t rung, gemma4_ladder_cause *cause)
{
    gemma4_rung_result *result = &climb->results[rung];
    size_t which;
    if (is_found(climb, rung, cause, &which))
        ladder_free_cause(cause);
    else if (climb->cause_count < GEMMA4_LADDER_CAUSES)
        climb->causes[which = climb->cause_count++] = *cause;
    else {
        ladder_free_cause(cause);
        return;
    }
    result->in_scope_only =
        result->in_scope_only || climb->causes[which].scope != GEMMA4_EVERYWHERE;
    if (result->cause_count < GEMMA4_RUNG_CAUSES)
        result->causes[result->cause_count++] = which;
}

/* Two mistakes that explain the rung together. */
static int take_pair(gemma4_climb *climb, size_t rung, const gemma4_cause *c,
                     const gemma4_planted *known, bool *taken, gemma4_error *error)
{
    gemma4_ladder_cause both[2] = {{.rung = rung}, {.rung = rung}};
    ladder_add_model(&both[0], c->model, -1);
    ladder_add_model(&both[1], c->second, -1);
    const gemma4_ladder_candidate *pair[2] = {&both[0].candidates[0], &both[1].candidates[0]};
    if (agrees(climb, rung, known, pair, 2, taken, error) ||
        (*taken && ladder_agree_elsewhere(climb, rung, pair, 2, taken, error)) ||
        (*taken && ladder_find_alternatives(climb, rung, both, error)))
        return -1;
    for (size_t i = 0; i < 2 && *taken; i++)
        ladder_add_cause(climb, rung, &both[i]);
    return 0;
}

/* Where more than one tensor is dumped, several causes may explain the rung together, each another
 * tensor. */
static int take_together(gemma4_climb *climb, size_t rung, const gemma4_report *report,
                         const gemma4_planted *known, bool *taken, gemma4_error *error)
{
    gemma4_ladder_cause found[GEMMA4_RUNG_CAUSES];
    const gemma4_ladder_candidate *first[GEMMA4_RUNG_CAUSES];
    size_t count = 0;
    int status = 0;
    memset(found, 0, sizeof found);
    for (size_t i = 0;
         i < gemma4_cause_count(report->diagnosis) && count < GEMMA4_RUNG_CAUSES && !status; i++) {
        const gemma4_cause *c = gemma4_cause_at(report->diagnosis, i);
        if (!c->explained || c->of_dump || c->scope != GEMMA4_EVERYWHERE)
            continue;
        status = find_candidates(climb, rung, report, c, &found[count], error);
        first[count] = &found[count].candidates[0];
        count++;
    }
    if (!status && count > 1)
        status = agrees(climb, rung, known, first, count, taken, error) ||
                         (*taken && ladder_agree_elsewhere(climb, rung, first, count, taken, error))
                     ? -1
                     : 0;
    for (size_t i = 0; i < count; i++)
        if (*taken && !status)
            ladder_add_cause(climb, rung, &found[i]);
        else
            ladder_free_cause(&found[i]);
    return status;
}

int ladder_take_causes(gemma4_climb *climb, size_t rung, const gemma4_report *report,
                       const gemma4_planted *known, bool *taken, gemma4_error *error)
{
    *taken = false;
    for (size_t i = 0; i < gemma4_cause_count(report->diagnosis) && !*taken; i++) {
        const gemma4_cause *c = gemma4_cause_at(report->diagnosis, i);
        gemma4_ladder_cause cause;
        if (!c->explained || c->of_dump)
            continue;
        if (c->second != GEMMA4_NO_MODEL && !c->point) {
            if (take_pair(climb, rung, c, known, taken, error))
                return -1;
            continue;
        }
        if (find_candidates(climb, rung, report, c, &cause, error) ||
            drop_contradicted(climb, known, &cause, error)) {
            ladder_free_cause(&cause);
            return -1;
        }
        *taken = cause.count > 0;
        if (*taken)
            ladder_add_cause(climb, rung, &cause);
    }
    return *taken ? 0 : take_together(climb, rung, report, known, taken, error);
}
