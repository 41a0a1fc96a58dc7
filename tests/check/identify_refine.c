/* What fits, said more plainly: with fewer settings, without free lists; and what fits as well. */
#include "identify_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "noise.h"
#include "point.h"
#include "thresholds.h"

/* Tries other settings in the place of a point that fits. */
static int try_settings(identification *id, const gemma4_point_fit *fit,
                        const gemma4_setting *settings, size_t count)
{
    const gemma4_config *config = &id->s->e->subject->model->config;
    identify_candidate c = {.point =
                                gemma4_point_new(config, settings, count, fit->point->model.where),
                            .only_layer = fit->only_layer};
    int status =
        c.point ? identify_look(id, &c) : gemma4_fail(id->s->error, "diagnosis: out of memory");
    if (!status)
        return identify_try(id, &c);
    free(c.point);
    return -1;
}

/* --- fewer settings --- */

static int try_without_each(identification *id, const gemma4_point_fit *fit)
{
    gemma4_setting settings[GEMMA4_POINT_SETTINGS];
    const gemma4_point *point = fit->point;
    for (size_t k = 0; k < point->count && point->count > 1; k++) {
        size_t n = 0;
        for (size_t i = 0; i < point->count; i++)
            if (i != k)
                settings[n++] = point->settings[i];
        if (try_settings(id, fit, settings, n))
            return -1;
    }
    return 0;
}

/* Ranks that are said to be missing and that change nothing: those past the last one, where fewer
 * are chosen. */
static int try_fewer_ranks(identification *id, const gemma4_point_fit *fit)
{
    gemma4_setting settings[GEMMA4_POINT_SETTINGS];
    for (size_t k = 0; k < fit->point->count; k++) {
        uint64_t ranks = (uint64_t)fit->point->settings[k].number;
        if (fit->point->settings[k].parameter != GEMMA4_PARAMETER_EXPERTS_MISSING)
            continue;
        memcpy(settings, fit->point->settings, fit->point->count * sizeof *settings);
        for (uint64_t rank = 1; rank && rank < ranks; rank <<= 1) {
            settings[k].number = (double)(ranks & ~rank);
            if (ranks & rank && try_settings(id, fit, settings, fit->point->count))
                return -1;
        }
    }
    return 0;
}

/* --- missing ranks --- */

/* Factors of the ranks that are 0 or all the same: the ranks that are missing, and the factor of
 * the others. */
static bool as_missing(const gemma4_setting *s, size_t K, gemma4_setting *missing, double *factor)
{
    const uint64_t by_rank = GEMMA4_STEP(GEMMA4_TAP_ROUTER_TOPK_NORM) |
                             GEMMA4_STEP(GEMMA4_TAP_ROUTER_TOPK_WEIGHTS) |
                             GEMMA4_STEP(GEMMA4_TAP_MOE_ACT);
    double most = 0;
    if (s->parameter != GEMMA4_PARAMETER_RESULT_FACTORS || !(s->steps & by_rank) || s->count != K)
        return false;
    for (size_t r = 0; r < K; r++)
        most = fabs(s->list[r]) > fabs(most) ? s->list[r] : most;
    *missing = (gemma4_setting){.parameter = GEMMA4_PARAMETER_EXPERTS_MISSING,
                                .steps = GEMMA4_STEP(GEMMA4_TAP_MOE_OUT)};
    *factor = most;
    for (size_t r = 0; r < K; r++)
        if (fabs(s->list[r]) <= EQUAL_FACTORS * fabs(most))
            missing->number += ldexp(1, (int)r);
        else if (!(fabs(s->list[r] - most) <= EQUAL_FACTORS * fabs(most)))
            return false;
    return missing->number > 0;
}

static int try_missing(identification *id, const gemma4_point_fit *fit)
{
    const gemma4_point *point = fit->point;
    gemma4_setting settings[GEMMA4_POINT_SETTINGS], missing;
    double factor;
    for (size_t k = 0; k < point->count; k++) {
        size_t n = point->count;
        if (!as_missing(&point->settings[k], id->s->e->subject->model->config.top_k_experts,
                        &missing, &factor))
            continue;
        memcpy(settings, point->settings, n * sizeof *settings);
        settings[k] = missing;
        if (!(fabs(factor - 1) <= EQUAL_FACTORS)) {
            if (n == GEMMA4_POINT_SETTINGS)
                continue;
            settings[n++] = (gemma4_setting){.parameter = GEMMA4_PARAMETER_RESULT_FACTOR,
                                             .steps = point->settings[k].steps,
                                             .number = factor};
        }
        if (try_settings(id, fit, settings, n))
            return -1;
    }
    return 0;
}

/* --- experts that were not read --- */

/* Factors of the experts' down_proj that are 0 for neighbours, and 1 for the others. Of an expert
 * that no row shows nothing is known: after the neighbours, up to the last expert, it is one of
 * them. */
static bool as_left_out(const gemma4_setting *s, gemma4_setting *zero)
{
    size_t first = s->count, end = 0, known;
    if (s->parameter != GEMMA4_PARAMETER_WEIGHT_FACTORS ||
        s->steps != GEMMA4_STEP(GEMMA4_TAP_MOE_OUT))
        return false;
    for (size_t k = s->count; k-- > 0;)
        if (fabs(s->list[k]) <= EQUAL_FACTORS) {
            first = k;
            end = end ? end : k + 1;
        }
    for (known = end; known < s->count && isnan(s->list[known]);)
        known++;
    end = end && known == s->count ? known : end;
    for (size_t k = 0; k < s->count; k++) {
        double due = first <= k && k < end ? 0 : 1;
        if (fabs(s->list[k] - due) > EQUAL_FACTORS) /* false for an unknown one */
            return false;
    }
    *zero = (gemma4_setting){.parameter = GEMMA4_PARAMETER_WEIGHT_ZERO,
                             .steps = s->steps,
                             .unit = GEMMA4_GROUPS,
                             .first = first,
                             .end = end};
    return end > 0;
}

static int try_left_out(identification *id, const gemma4_point_fit *fit)
{
    gemma4_setting settings[GEMMA4_POINT_SETTINGS], zero;
    for (size_t k = 0; k < fit->point->count; k++) {
        if (!as_left_out(&fit->point->settings[k], &zero))
            continue;
        memcpy(settings, fit->point->settings, fit->point->count * sizeof *settings);
        settings[k] = zero;
        if (try_settings(id, fit, settings, fit->point->count))
            return -1;
    }
    return 0;
}

/* --- what fits as well --- */

static size_t single_of(const identification *id, const gemma4_setting *s)
{
    size_t i = 0;
    for (; i < id->single_count; i++) {
        const gemma4_setting *t = &id->singles[i];
        if (t->parameter == s->parameter && t->steps == s->steps && t->word == s->word &&
            t->unit == s->unit && t->columns == s->columns && t->first == s->first &&
            t->end == s->end && t->tensor == s->tensor && t->weight == s->weight &&
            t->absolute == s->absolute && (t->number == s->number || identify_is_solved_for(s)))
            break;
    }
    return i;
}

/* The columns of a matrix in another order are its input in the inverse one: what cannot be told
 * apart alone cannot be beside something else. */
static int try_twins(identification *id, const gemma4_point_fit *fit)
{
    const gemma4_finding *f = id->s->finding;
    gemma4_setting settings[GEMMA4_POINT_SETTINGS];
    for (size_t k = 0; k < fit->point->count && fit->point->count > 1; k++) {
        size_t own = single_of(id, &fit->point->settings[k]);
        memcpy(settings, fit->point->settings, fit->point->count * sizeof *settings);
        for (size_t i = 0;
             own < id->single_count && i < id->single_count && f->point_count < GEMMA4_MAX_POINTS;
             i++) {
            settings[k] = id->singles[i];
            if (i != own && fabs(id->shares[i] - id->shares[own]) <= TWIN_SHARE &&
                try_settings(id, fit, settings, fit->point->count))
                return -1;
        }
    }
    return 0;
}

/* Neighbouring counts of rotating pairs, of which the slowest hardly turn, are one number with an
 * interval; one that the dump leaves open by more than a factor of WIDEST_INTERVAL is not said. */
static void merge_pairs(gemma4_finding *f)
{
    gemma4_point *first = NULL;
    size_t kept = 0;
    for (size_t i = 0; i < f->point_count; i++) {
        gemma4_point *p = f->points[i].point;
        bool pairs = p->count == 1 && p->settings[0].parameter == GEMMA4_PARAMETER_ROPE_PAIRS;
        if (pairs && first && first->settings[0].steps == p->settings[0].steps) {
            first->low[0] = fmin(first->low[0], p->low[0]);
            first->high[0] = fmax(first->high[0], p->high[0]);
            free(p);
            continue;
        }
        first = pairs && !first ? p : first;
        f->points[kept++] = f->points[i];
    }
    f->point_count = kept;
    for (size_t i = kept = 0; i < f->point_count; i++)
        if (f->points[i].point == first && !(first->high[0] <= WIDEST_INTERVAL * first->low[0]))
            free(first);
        else
            f->points[kept++] = f->points[i];
    f->point_count = kept;
}

/* May the setting be what a catalogued mistake at the same step is taken for? */
static bool is_neighbour(const gemma4_setting *s)
{
    return s->parameter == GEMMA4_PARAMETER_ROPE_PAIRS || s->parameter == GEMMA4_PARAMETER_MASK ||
           s->parameter == GEMMA4_PARAMETER_WINDOW || s->parameter == GEMMA4_PARAMETER_EPS ||
           s->parameter == GEMMA4_PARAMETER_WEIGHT_FORM ||
           ((s->parameter == GEMMA4_PARAMETER_ACTIVATION ||
             s->parameter == GEMMA4_PARAMETER_GATE_AND_UP) &&
            !identify_is_solved_for(s));
}

int identify_beside(identification *id)
{
    fit_search *s = id->s;
    gemma4_proposals all = {.scope = id->scope}, some = {0};
    gemma4_propose_for_step(&all, s->e, s->e->layer, s->tap);
    for (size_t i = 0; i < all.count; i++)
        if (is_neighbour(&all.list[i]))
            gemma4_propose(&some, &all.list[i]);
    int status = all.failed || some.failed ? gemma4_fail(s->error, "diagnosis: out of memory")
                                           : identify_look_at_all(id, &some, identify_where(s->e));
    status = status || identify_solve_all(id, 0) || identify_try_best(id) ? -1 : 0;
    merge_pairs(s->finding);
    for (size_t i = 0; i < s->finding->point_count; i++)
        gemma4_point_say(s->finding->points[i].point, &s->e->subject->model->config, s->e->layer);
    gemma4_proposals_free(&all);
    gemma4_proposals_free(&some);
    return status;
}

int identify_refine(identification *id)
{
    const gemma4_finding *f = id->s->finding;
    for (size_t i = 0; i < f->point_count; i++) {  /* the plainer ones too */
        gemma4_point *kept = malloc(sizeof *kept); /* the finding may give its place to a plainer
                                                      one */
        if (!kept)
            return gemma4_fail(id->s->error, "diagnosis: out of memory");
        *kept = *f->points[i].point;
        gemma4_point_fit fit = f->points[i];
        fit.point = kept;
        int status = try_missing(id, &fit) || try_left_out(id, &fit) ||
                             try_without_each(id, &fit) || try_fewer_ranks(id, &fit) ||
                             try_twins(id, &fit)
                         ? -1
                         : 0;
        free(kept);
        if (status)
            return -1;
    }
    merge_pairs(id->s->finding);
    return 0;
}
