/* Several settings at once: a fused kernel shows one tap for many steps, and several mistakes may meet there. */
#include "identify_internal.h"

#include <stdlib.h>
#include <string.h>

#include "thresholds.h"

/* Keeps the settings that explain most by themselves, for joining. */
static int keep_singles(identification *id)
{
    identify_candidate *sorted = malloc((id->count + 1) * sizeof *sorted);
    id->singles = malloc((id->count + 1) * sizeof *id->singles);
    if (!sorted || !id->singles) {
        free(sorted);
        return gemma4_fail(id->s->error, "diagnosis: out of memory");
    }
    if (id->count)
        memcpy(sorted, id->list, id->count * sizeof *sorted);
    qsort(sorted, id->count, sizeof *sorted, identify_by_share);
    for (size_t i = 0; i < id->count; i++)
        if (sorted[i].only_layer < 0 && sorted[i].point->settings[0].parameter != GEMMA4_PARAMETER_SUM_TYPE) /* slow, and small */
            id->singles[id->single_count++] = sorted[i].point->settings[0];
    free(sorted);
    return 0;
}

/* A factor of the tap's own result: what it is by itself says nothing of what it is beside another fault, and any other fault is hidden by it. Not
 * a list of them, which would fit whatever the other setting makes of the lanes. */
static bool is_factor_of_tap(const identification *id, const gemma4_setting *s)
{
    return s->parameter == GEMMA4_PARAMETER_RESULT_FACTOR && s->steps == GEMMA4_STEP(id->s->tap);
}

static bool leaves_much_less(const identification *id, const identify_candidate *c, const identify_candidate *base)
{
    return !identify_is_rounding(id, c) && c->left < JOINED_GAIN * base->left;
}

/* One candidate with one more setting; kept where it leaves much less. */
static int join_one(identification *id, const identify_candidate *base, const gemma4_setting *more)
{
    fit_search *s = id->s;
    gemma4_setting both[GEMMA4_POINT_SETTINGS];
    size_t count = base->point->count;
    memcpy(both, base->point->settings, count * sizeof *both);
    both[count] = *more;
    for (size_t k = 0; k < count; k++)
        if (both[k].parameter == more->parameter && both[k].steps == more->steps)
            return 0;
    identify_candidate next = {.point = gemma4_point_new(&s->e->subject->model->config, both, count + 1, base->point->model.where), .only_layer = base->only_layer};
    identify_candidate *list = realloc(id->list, (id->count + 1) * sizeof *list);
    id->list = list ? list : id->list;
    int status = next.point && list ? identify_look(id, &next) : gemma4_fail(s->error, "diagnosis: out of memory");
    if (!status && !leaves_much_less(id, &next, base) && is_factor_of_tap(id, more))
        status = identify_solve(id, &next, count);
    bool better = !status && leaves_much_less(id, &next, base);
    for (size_t k = 0; better && k <= count && !status; k++)
        if (identify_is_solved_for(&next.point->settings[k]))
            status = identify_solve(id, &next, k);
    if (better && !status)
        id->list[id->count++] = next;
    else
        free(next.point);
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
    for (size_t b = 0, joined = 0; b < count && joined < most && !status; b++) {
        if (bases[b].point->count == GEMMA4_POINT_SETTINGS || is_like_earlier(bases, b))
            continue;
        for (size_t i = 0; i < id->single_count && (joined == 0 || i < JOINED_MOST) && !status; i++)
            status = join_one(id, &bases[b], &id->singles[i]);
        joined++;
    }
    for (size_t i = 0; i < count; i++)
        free(bases[i].point);
    free(bases);
    return status ? status : identify_try_best(id);
}

/* Two settings at once, then three. */
int identify_join(identification *id, size_t most)
{
    if (id->s->finding->point_count == 0 && keep_singles(id))
        return -1;
    for (int more = 0; more < 2 && id->s->finding->point_count == 0; more++)
        if (join(id, most))
            return -1;
    return 0;
}
