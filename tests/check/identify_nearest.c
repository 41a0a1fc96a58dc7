/* What explains part of an error that nothing explains: the settings whose share of it is largest,
 * where that helps whoever reads it. */
#include "identify_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "point.h"
#include "thresholds.h"

/* What the candidate leaves unexplained, counted twice for each further setting and for a list:
 * those explain part of any error. */
static double cost_of(const identify_candidate *c)
{
    double cost = 1 - c->share;
    for (size_t i = 0; i < c->point->count; i++)
        cost *= (i ? 2 : 1) * (c->point->settings[i].count ? 2 : 1);
    return cost;
}

/* Next to nothing of a tensor explains half of any error that has nothing in common with it, and
 * many numbers explain half of any. */
static bool says_nothing(const gemma4_setting *s)
{
    return s->count > 2 * DESCRIBED_ITEMS ||
           (s->parameter == GEMMA4_PARAMETER_RESULT_FACTOR && fabs(s->number) < 0.1);
}

static bool helps(const identify_candidate *c)
{
    for (size_t i = 0; i < c->point->count; i++)
        if (says_nothing(&c->point->settings[i]))
            return false;
    return c->has_effect && c->share >= NEAREST_SHARE &&
           fabs(c->coefficient - 1) <= RUNNER_UP_COEFFICIENT;
}

int identify_remember(identification *id, const identify_candidate *c)
{
    if (!c->point || id->scope != GEMMA4_EVERYWHERE || c->only_layer >= 0 || !helps(c))
        return 0;
    if (id->nearest.point && !(cost_of(c) < cost_of(&id->nearest)))
        return 0;
    gemma4_point *copy = malloc(sizeof *copy);
    if (!copy)
        return gemma4_fail(id->s->error, "diagnosis: out of memory");
    *copy = *c->point;
    copy->model.wrong = copy->wrong;
    copy->model.right = copy->right;
    free(id->nearest.point);
    id->nearest = *c;
    id->nearest.point = copy;
    return 0;
}

/* Numbers that do not fit are not worth more digits, and no interval. */
static void say_roughly(gemma4_point *p, const gemma4_config *c, size_t layer)
{
    for (size_t i = 0; i < p->count; i++) {
        gemma4_setting *s = &p->settings[i];
        char text[32];
        snprintf(text, sizeof text, "%.3g", s->number);
        s->number = identify_is_solved_for(s) ? strtod(text, NULL) : s->number;
        p->low[i] = p->high[i] = s->number;
        for (size_t k = 0; k < s->count && identify_is_solved_for(s); k++) {
            snprintf(text, sizeof text, "%.3g", s->list[k]);
            s->list[k] = strtod(text, NULL);
        }
    }
    gemma4_point_say(p, c, layer);
}

int identify_tell_nearest(identification *id)
{
    gemma4_finding *f = id->s->finding;
    gemma4_point *p = id->nearest.point;
    if (!p)
        return 0;
    id->scope = GEMMA4_EVERYWHERE;
    id->positions = 0;
    if (identify_look(id, &id->nearest))
        return -1;
    if (!helps(&id->nearest))
        return 0;
    say_roughly(p, &id->s->e->subject->model->config, id->s->e->layer);
    snprintf(f->nearest, sizeof f->nearest, "%s", p->wrong);
    f->nearest_share = id->nearest.share;
    return 0;
}
