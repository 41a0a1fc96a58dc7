/* Several settings at once: a fused kernel shows one tap for many steps, and several mistakes may
 * meet there. */
#include "identify_internal.h"

#include <stdlib.h>
#include <string.h>

#include "noise.h"
#include "point.h"
#include "thresholds.h"

/* Keeps the settings that explain most by themselves, for joining. */
static int keep_singles(identification *id)
{
    identify_candidate *sorted = malloc((id->count + 1) * sizeof *sorted);
    free(id->singles);
    free(id->shares);
    id->single_count = 0;
    id->singles = malloc((id->count + 1) * sizeof *id->singles);
    id->shares = malloc((id->count + 1) * sizeof *id->shares);
    if (!sorted || !id->singles || !id->shares) {
        free(sorted);
        return gemma4_fail(id->s->error, "diagnosis: out of memory");
    }
    if (id->count)
        memcpy(sorted, id->list, id->count * sizeof *sorted);
    qsort(sorted, id->count, sizeof *sorted, identify_by_share);
    for (size_t i = 0; i < id->count; i++)
        /* slow, and small */
        if (sorted[i].only_layer < 0 &&
            sorted[i].point->settings[0].parameter != GEMMA4_PARAMETER_SUM_TYPE) {
            id->shares[id->single_count] = sorted[i].share;
            id->singles[id->single_count++] = sorted[i].point->settings[0];
        }
    free(sorted);
    return 0;
}

/* A factor of the tap's own result: what it is by itself says nothing of what it is beside another
 * fault, and any other fault is hidden by it. Not a list of them, which would fit whatever the
 * other setting makes of the lanes. */
static bool is_factor_of_tap(const identification *id, const gemma4_setting *s)
{
    return s->parameter == GEMMA4_PARAMETER_RESULT_FACTOR && s->steps == GEMMA4_STEP(id->s->tap);
}

static bool leaves_much_less(const identification *id, const identify_candidate *c,
                             const identify_candidate *base)
{
    return !identify_is_rounding(id, c) && c->left < JOINED_GAIN * base->left;
}

/* A candidate, each of the settings to be joined to it, and what comes of that. */
typedef struct joins {
    const identify_candidate *base;
    const gemma4_setting *more;
    identify_candidate *list; /* point is NULL where both together do not leave much less */
} joins;

static bool is_factor(const gemma4_setting *s)
{
    return s->parameter == GEMMA4_PARAMETER_RESULT_FACTOR ||
           s->parameter == GEMMA4_PARAMETER_RESULT_FACTORS;
}

/* The setting, or another that a list of factors at the same step holds. */
static bool has_setting(const gemma4_point *p, const gemma4_setting *s)
{
    for (size_t i = 0; i < p->count; i++) {
        const gemma4_setting *own = &p->settings[i];
        if (own->steps == s->steps &&
            (own->parameter == s->parameter || (is_factor(own) && is_factor(s))))
            return true;
    }
    return false;
}

static int join_one(identification *own, void *context, size_t i)
{
    const joins *j = context;
    const identify_candidate *base = j->base;
    const gemma4_config *config = &own->s->e->subject->model->config;
    gemma4_setting both[GEMMA4_POINT_SETTINGS];
    size_t count = base->point->count;
    if (has_setting(base->point, &j->more[i]) ||
        (own->split && identify_is_of_experts(&j->more[i])) || /* the experts are right */
        /* what rounds decides near-ties of its own: a number beside it can be turned until those
         * fall as the engine's do */
        (gemma4_point_rounds(base->point) && identify_is_solved_for(&j->more[i])))
        return 0;
    memcpy(both, base->point->settings, count * sizeof *both);
    both[count] = j->more[i];
    identify_candidate *c = &j->list[i];
    *c = (identify_candidate){
        .point = gemma4_point_new(config, both, count + 1, base->point->model.where),
        .only_layer = base->only_layer};
    int status =
        c->point ? identify_look(own, c) : gemma4_fail(own->s->error, "diagnosis: out of memory");
    bool solve =
        is_factor_of_tap(own, &j->more[i]) || (own->split && identify_is_solved_for(&j->more[i]));
    if (!status && !leaves_much_less(own, c, base) && solve)
        status = identify_solve(own, c, count);
    bool better = !status && leaves_much_less(own, c, base);
    /* what is right but for the weights has its numbers */
    for (size_t k = own->split ? count : 0; better && k <= count && !status; k++)
        if (identify_is_solved_for(&c->point->settings[k]))
            status = identify_solve(own, c, k);
    if (!better) {
        free(c->point);
        c->point = NULL;
    }
    return status;
}

/* One candidate with each of the settings: those that leave much less go to the list. */
static int join_base(identification *id, const identify_candidate *base, size_t count)
{
    identify_candidate *list = realloc(id->list, (id->count + count + 1) * sizeof *list);
    joins j = {.base = base, .more = id->singles, .list = calloc(count + 1, sizeof *j.list)};
    id->list = list ? list : id->list;
    int status = list && j.list ? identify_each(id, count, join_one, &j)
                                : gemma4_fail(id->s->error, "diagnosis: out of memory");
    for (size_t i = 0; j.list && i < count; i++)
        if (j.list[i].point && !status)
            id->list[id->count++] = j.list[i];
        else
            free(j.list[i].point);
    free(j.list);
    return status;
}

/* Has a better candidate the same parameters? */
static bool is_like_earlier(const identify_candidate *bases, size_t b)
{
    for (size_t i = 0; i < b; i++) {
        bool same = bases[i].point->count == bases[b].point->count;
        for (size_t k = 0; same && k < bases[b].point->count; k++)
            same = bases[i].point->settings[k].parameter == bases[b].point->settings[k].parameter;
        if (same)
            return true;
    }
    return false;
}

/* The best candidates, each with every other setting beside it. */
static int join(identification *id, size_t most)
{
    identify_candidate *bases = id->list;
    size_t count = id->count;
    int status = 0;
    id->list = NULL;
    id->count = 0;
    if (count && bases[0].left <= JOINED_FROM * LIMIT_SCORE) { /* so near, anything small makes it
                                                                  fit */
        id->list = bases;
        id->count = count;
        return 0;
    }
    for (size_t b = 0, joined = 0; b < count && joined < most && !status; b++) {
        bool lanes = bases[b].point->settings[0].steps == GEMMA4_STEP(GEMMA4_TAP_MOE_NORM) &&
                     bases[b].point->settings[0].count > LONG_LIST;
        /* a number for every lane explains part of anything */
        if (lanes || bases[b].point->count == GEMMA4_POINT_SETTINGS || is_like_earlier(bases, b))
            continue;
        status = join_base(id, &bases[b],
                           joined == 0 || id->single_count < JOINED_MOST ? id->single_count
                                                                         : JOINED_MOST);
        joined++;
    }
    for (size_t i = 0; i < count; i++)
        free(bases[i].point);
    free(bases);
    return status ? status : identify_try_best(id);
}

/* Is there a point to be content with? Of a fused mixture of experts, no list of factors for many
 * experts: two settings may do as well. */
static bool is_settled(const identification *id)
{
    const gemma4_finding *f = id->s->finding;
    for (size_t i = 0; i < f->point_count; i++) {
        const gemma4_point *p = f->points[i].point;
        bool long_list = false;
        for (size_t k = 0; k < p->count; k++)
            long_list = long_list || p->settings[k].count > LONG_LIST;
        if (!long_list)
            return true;
    }
    return f->point_count && !identify_comes_apart(id->s);
}

/* What is right up to the weights of the experts, with every other setting beside it, and with
 * two. */
static int join_split(identification *id)
{
    identify_candidate *others = id->list;
    size_t other_count = id->count;
    id->list = calloc(IDENTIFY_SPLIT_BASES, sizeof *id->list);
    id->count = 0;
    int status = id->list ? identify_split_experts(id, id->list, &id->count)
                          : gemma4_fail(id->s->error, "diagnosis: out of memory");
    id->split = true;
    if (!status && id->count)
        status = identify_try_best(id);
    for (int more = 0; more < 2 && !status && id->count && !is_settled(id); more++)
        status = join(id, IDENTIFY_SPLIT_BASES);
    id->split = false;
    identify_free(id);
    id->list = others;
    id->count = other_count;
    return status;
}

/* Two settings at once, then three. */
int identify_join(identification *id, size_t most)
{
    if (is_settled(id))
        return 0;
    if (keep_singles(id) || (id->first_search && join_split(id)))
        return -1;
    for (int more = 0; more < 2 && !is_settled(id); more++)
        if (join(id, most))
            return -1;
    return 0;
}
