/* How near the points of the space come to what an engine has. */
#include "identify_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "counter_run.h"
#include "noise.h"
#include "planted.h"
#include "point.h"
#include "schedule.h"
#include "score.h"
#include "thresholds.h"

/* ---------------------------------------------------------------------- looks */

gemma4_planted identify_planted(const identification *id, const identify_candidate *c)
{
    return (gemma4_planted){.models = {&c->point->model},
                            .only_layer = {c->only_layer},
                            .count = 1,
                            .scope = id->scope};
}

int identify_predict(identification *id, const identify_candidate *c)
{
    const gemma4_planted planted = identify_planted(id, c);
    return identify_predict_planted(id, &planted);
}

int identify_predict_planted(identification *id, const gemma4_planted *planted)
{
    fit_search *s = id->s;
    if (!id->first_look)
        return gemma4_predict(s->e, s->runner, planted, s->tap, id->positions, s->prediction,
                              s->open, s->error);
    const gemma4_counter_run run = {.planted = planted,
                                    .positions = id->positions,
                                    .once = true,
                                    .stop = s->tap,
                                    .out = s->prediction,
                                    .open = s->open};
    return gemma4_run_counter(s->e, s->runner, &run, s->error);
}

gemma4_against identify_rows(const identification *id)
{
    return (gemma4_against){
        .values = id->s->prediction, .skip = id->s->open, .positions = id->positions};
}

/* How near the candidate comes, at the positions that are looked at. */
static int look_once(identification *id, identify_candidate *c)
{
    fit_search *s = id->s;
    if (identify_predict(id, c))
        return -1;
    const gemma4_against rows = identify_rows(id);
    gemma4_filter projection = gemma4_project(s->e, s->tap, s->prediction, &rows);
    gemma4_score left = gemma4_score_tap(s->e, s->tap, &rows);
    c->effect =
        left.rows ? sqrt(projection.size / (double)(left.rows * s->e->taps[s->tap].width)) : 0;
    c->has_effect = projection.size > 0 && left.rows > 0 && isfinite(left.score);
    c->left = c->has_effect ? left.score : INFINITY;
    c->coefficient = gemma4_filter_coefficient(&projection);
    c->share = gemma4_filter_share(&projection);
    return 0;
}

bool identify_is_rounding(const identification *id, const identify_candidate *c)
{
    return !c->has_effect || !(c->effect > (id->first_look ? SCREEN_EFFECT : LIMIT_SCORE / 2));
}

/* The same; at all positions where it has no effect on the first (it may act past the window, in a
 * later chunk), or where those depend on later ones. */
int identify_look(identification *id, identify_candidate *c)
{
    size_t positions = id->positions;
    const gemma4_planted planted = identify_planted(id, c);
    bool ahead = positions && fit_sees_later(&planted);
    if (!ahead && look_once(id, c))
        return -1;
    if (!ahead && (!positions || !identify_is_rounding(id, c)))
        return 0;
    id->positions = 0;
    int status = look_once(id, c);
    c->everywhere = true;
    id->positions = positions;
    return status;
}

/* --------------------------------------------------------------- candidates */

void identify_free(identification *id)
{
    for (size_t i = 0; i < id->count; i++)
        free(id->list[i].point);
    free(id->list);
    id->list = NULL;
    id->count = 0;
}

static bool same_start(const gemma4_setting *a, const gemma4_setting *b)
{
    return a->parameter == b->parameter && a->steps == b->steps && a->word == b->word &&
           identify_is_solved_for(a) && identify_is_solved_for(b);
}

/* Of heads and experts, what a config or a switch sets, before the same of lanes and of weights:
 * the plainest of those that are the same. */
static int far_fetched(const identify_candidate *c)
{
    const gemma4_setting *s = &c->point->settings[0];
    return 2 * (s->parameter < GEMMA4_PARAMETER_ROPE_THETA) + (s->unit != GEMMA4_GROUPS);
}

static int by_left(const void *a, const void *b)
{
    const identify_candidate *x = a, *y = b;
    return x->left < y->left ? -1 : x->left > y->left ? 1 : far_fetched(x) - far_fetched(y);
}

/* Proposals at work: what comes of each is in its place of the list. */
typedef struct looks {
    const gemma4_setting *settings;
    int where;
    identify_candidate *list; /* point is NULL where the setting cannot show at the tap, or has no
                                 effect */
} looks;

static int look_at_one(identification *own, void *context, size_t i)
{
    const looks *l = context;
    const gemma4_evidence *e = own->s->e;
    identify_candidate *c = &l->list[i];
    *c = (identify_candidate){
        .point = gemma4_point_new(&e->subject->model->config, &l->settings[i], 1, l->where),
        .only_layer = -1};
    if (!c->point)
        return gemma4_fail(own->s->error, "diagnosis: out of memory");
    gemma4_planted planted = identify_planted(own, c);
    if (gemma4_can_show(e, &planted, own->s->tap)) {
        if (identify_look(own, c))
            return -1;
        if (!identify_is_rounding(own, c))
            return 0;
    }
    free(c->point);
    c->point = NULL;
    return 0;
}

/* Of starting points of one number, which follow each other, the best is kept. */
static void keep_looks(identification *id, identify_candidate *list, const gemma4_setting *settings,
                       size_t count)
{
    for (size_t i = 0, start = 0; i < count; i++) {
        identify_candidate *last = id->count ? &id->list[id->count - 1] : NULL;
        bool again = i > start && last && same_start(&settings[start], &settings[i]) &&
                     same_start(&settings[i], &last->point->settings[0]);
        start = again ? start : i;
        if (!list[i].point)
            continue;
        if (!again) {
            id->list[id->count++] = list[i];
        } else if (list[i].left >= last->left) {
            free(list[i].point);
        } else {
            free(last->point);
            *last = list[i];
        }
    }
}

/* Looks at every proposal, in the layers `where`; of starting points of one number, the best is
 * solved for. */
int identify_look_at_all(identification *id, const gemma4_proposals *proposals, int where)
{
    size_t count = proposals->count;
    identify_candidate *list = realloc(id->list, (id->count + count + 1) * sizeof *list);
    looks l = {
        .settings = proposals->list, .where = where, .list = calloc(count + 1, sizeof *l.list)};
    id->list = list ? list : id->list;
    int status = list && l.list ? identify_each(id, count, look_at_one, &l)
                                : gemma4_fail(id->s->error, "diagnosis: out of memory");
    if (!status)
        keep_looks(id, l.list, l.settings, count);
    for (size_t i = 0; status && l.list && i < count; i++)
        free(l.list[i].point);
    free(l.list);
    return status;
}

static int solve_one(identification *own, void *context, size_t i)
{
    identify_candidate *c = (identify_candidate *)context + i;
    return identify_is_solved_for(&c->point->settings[0]) ? identify_solve(own, c, 0) : 0;
}

int identify_solve_all(identification *id, size_t from)
{
    return identify_each(id, id->count - from, solve_one, id->list + from);
}

/* ------------------------------------------------------------------- verdict */

/* Of points that predict the very same, so many are said. */
enum { SAME_POINTS = 8 }; /* mutants: +1, -1, x2 survive: a bound of time */

void identify_keep(gemma4_finding *f, gemma4_scope scope, const identify_candidate *c,
                   const gemma4_fit *fit)
{
    bool known = false;
    for (size_t i = 0; i < f->point_count; i++)
        known = known || (f->points[i].scope == scope && f->points[i].only_layer == c->only_layer &&
                          gemma4_points_agree(f->points[i].point, c->point));
    size_t last = f->point_count;
    if (last == GEMMA4_MAX_POINTS)
        for (size_t i = 0; i < f->point_count; i++)
            /* fewer settings are plainer */
            last = f->points[i].point->count > c->point->count ? i : last;
    if (known || last == GEMMA4_MAX_POINTS) {
        free(c->point);
        return;
    }
    if (last < f->point_count)
        free(f->points[last].point);
    else
        f->point_count++;
    f->points[last] = (gemma4_point_fit){.point = c->point,
                                         .scope = scope,
                                         .only_layer = c->only_layer,
                                         .coefficient = fit->coefficient,
                                         .residual = fit->residual};
}

/* Solves for the numbers of a candidate once more, on all that there is. */
static int solve_exactly(identification *id, identify_candidate *c)
{
    size_t positions = id->positions;
    bool first_look = id->first_look, looked = false;
    int status = 0;
    id->positions = 0;
    id->first_look = false;
    for (size_t i = 0; i < c->point->count && !status; i++)
        if (identify_is_solved_for(&c->point->settings[i])) {
            status = looked ? 0 : identify_look(id, c);
            status = status ? status : identify_solve(id, c, i);
            looked = true;
        }
    id->positions = positions;
    id->first_look = first_look;
    return status;
}

/* A limit is read from the engine's largest value, as that was rounded. */
static void leave_rounding_open(const identification *id, gemma4_point *p)
{
    for (size_t i = 0; i < p->count; i++) {
        double rounding = 2 * id->s->e->subject->tier->unit * fabs(p->settings[i].number);
        if (p->settings[i].parameter != GEMMA4_PARAMETER_RESULT_CLAMPED)
            continue;
        p->low[i] = p->settings[i].number - rounding;
        p->high[i] = p->settings[i].number + rounding;
    }
}

/* Factors that sums in the tier's type bring about by themselves; and lists that weights in 8 bits
 * do. */
static bool has_factor_of_rounding(const identification *id, const gemma4_point *p)
{
    double unit = id->s->e->subject->tier->unit;
    for (size_t i = 0; i < p->count; i++) {
        const gemma4_setting *s = &p->settings[i];
        double most = 0;
        for (size_t k = 0; k < s->count; k++)
            most = fmax(most, fabs(s->list[k] - 1));
        bool factor = s->parameter == GEMMA4_PARAMETER_RESULT_FACTOR ||
                      s->parameter == GEMMA4_PARAMETER_WEIGHT_FACTOR;
        if (factor && !(fabs(s->number - 1) > FACTOR_ROUNDINGS * unit))
            return true;
        if (s->parameter == GEMMA4_PARAMETER_RESULT_FACTORS && !(most > LIST_ROUNDINGS * unit))
            return true;
    }
    return false;
}

/* Three settings, and numbers for each rank besides, fit too much; not where the other two were
 * found to be right whatever the numbers are. */
static bool is_too_free(const identification *id, const gemma4_point *p)
{
    bool list = false;
    for (size_t i = 0; i < p->count; i++)
        list = list || p->settings[i].parameter == GEMMA4_PARAMETER_RESULT_FACTORS ||
               p->settings[i].parameter == GEMMA4_PARAMETER_WEIGHT_FACTORS;
    return list && p->count == GEMMA4_POINT_SETTINGS && !id->split;
}

static bool is_list_before(const identification *id, const gemma4_setting *s)
{
    return s->parameter == GEMMA4_PARAMETER_RESULT_FACTORS && s->steps != GEMMA4_STEP(id->s->tap);
}

/* Factors before a norm: all of them times the same are the same, so their size is not known. */
static int is_undetermined(identification *id, identify_candidate *c, bool *open)
{
    fit_search *s = id->s;
    gemma4_fit fit = {.model = GEMMA4_NO_MODEL, .second = GEMMA4_NO_MODEL, .only_layer = -1};
    *open = false;
    for (size_t i = 0; i < c->point->count && !*open; i++) {
        gemma4_setting *list = &c->point->settings[i];
        if (!is_list_before(id, list))
            continue;
        gemma4_setting kept = *list;
        for (size_t k = 0; k < list->count; k++)
            list->list[k] *= 1 + 2 * AGREED_PART;
        gemma4_planted planted = identify_planted(id, c);
        fit_trial result = fit_try_positions(s, &planted, 0, &fit);
        *list = kept;
        if (result == FIT_ERROR)
            return -1;
        *open = result == FIT_FITS;
    }
    return 0;
}

/* Of factors whose size is not known, those that most entries share are taken to be 1. False where
 * none is. */
static bool set_most_to_one(gemma4_setting *s)
{
    size_t most = 0;
    double common = 1;
    for (size_t k = 0; k < s->count; k++) {
        size_t alike = 0;
        for (size_t j = 0; j < s->count; j++)
            alike += fabs(s->list[j] - s->list[k]) <= AGREED_PART * fabs(s->list[k]);
        if (alike > most) {
            most = alike;
            common = s->list[k];
        }
    }
    for (size_t k = 0; k < s->count; k++)
        s->list[k] = fabs(s->list[k] / common - 1) <= AGREED_PART ? 1 : s->list[k] / common;
    return 2 * most > s->count;
}

/* Before a norm: do lists fit as well of which most entries are 1? They are the plainest of those
 * that are the same. */
static int settle_size(identification *id, identify_candidate *c, gemma4_fit *fit, bool *settled)
{
    gemma4_setting kept[GEMMA4_POINT_SETTINGS];
    size_t lists = 0;
    memcpy(kept, c->point->settings, c->point->count * sizeof *kept);
    *settled = true;
    for (size_t i = 0; i < c->point->count; i++)
        if (is_list_before(id, &c->point->settings[i])) {
            *settled = *settled && set_most_to_one(&c->point->settings[i]);
            lists++;
        }
    gemma4_fit plain = *fit;
    gemma4_planted planted = identify_planted(id, c);
    fit_trial result = lists && *settled ? fit_try_positions(id->s, &planted, 0, &plain) : FIT_MISS;
    *settled = result == FIT_FITS;
    if (*settled)
        *fit = plain;
    else
        memcpy(c->point->settings, kept, c->point->count * sizeof *kept);
    return result == FIT_ERROR ? -1 : 0;
}

/* What is said of each expert must be determined by what was seen of it. */
static int forget_loose_factors(const identification *id, gemma4_point *p)
{
    const fit_search *s = id->s;
    int status = 0;
    if (s->tap != GEMMA4_TAP_MOE_OUT || fit_is_bridged(s->e) || !s->e->ids ||
        !s->e->taps[GEMMA4_TAP_MOE_ACT].values)
        return 0;
    for (size_t i = 0; i < p->count && !status; i++)
        if (p->settings[i].parameter == GEMMA4_PARAMETER_WEIGHT_FACTORS &&
            p->settings[i].steps == GEMMA4_STEP(GEMMA4_TAP_MOE_OUT))
            status = gemma4_forget_loose_factors(s->e, &p->settings[i], s->error);
    return status;
}

/* Fits the candidate as it is, on all that there is? One that is right but for the experts' weights
 * keeps its numbers where it does not. */
static int try_point(identification *id, identify_candidate *c, bool *fits)
{
    fit_search *s = id->s;
    identify_candidate before = *c;
    gemma4_setting settings[GEMMA4_POINT_SETTINGS];
    memcpy(settings, c->point->settings, sizeof settings);
    gemma4_planted planted = identify_planted(id, c);
    gemma4_fit fit = {.model = GEMMA4_NO_MODEL, .second = GEMMA4_NO_MODEL, .only_layer = -1};
    if ((id->positions || id->first_look) && solve_exactly(id, c)) /* the first positions leave the
                                                                 number open */
        return -1;
    if (has_factor_of_rounding(id, c->point) || is_too_free(id, c->point)) {
        *fits = false;
        return 0;
    }
    fit_trial result = fit_try_positions(s, &planted, 0, &fit);
    bool open = false, settled = false;
    if (result == FIT_FITS &&
        (settle_size(id, c, &fit, &settled) || (!settled && is_undetermined(id, c, &open))))
        return -1;
    *fits = result == FIT_FITS && !open;
    if (*fits) {
        leave_rounding_open(id, c->point);
        if (forget_loose_factors(id, c->point))
            return -1;
        gemma4_point_sort(c->point);
        gemma4_point_recognise(c->point, &s->e->subject->model->config, s->e->layer);
        gemma4_point_say(c->point, &s->e->subject->model->config, s->e->layer);
        identify_keep(s->finding, id->scope, c, &fit);
        c->point = NULL;
    } else if (id->split) {
        *c = before;
        memcpy(c->point->settings, settings, sizeof settings);
    }
    return result == FIT_ERROR ? -1 : 0;
}

static double limit_of(const identification *id)
{
    return (id->first_look ? SCREEN_FACTOR : 1) * LIMIT_SCORE;
}

int identify_try(identification *id, identify_candidate *c)
{
    bool fits = false;
    int status = c->left <= limit_of(id) ? try_point(id, c, &fits) : 0;
    free(c->point); /* NULL where the finding keeps it */
    c->point = NULL;
    return status;
}

/* What a point leaves, for the comparison with others: numbers are fitted to the rounding too, so
 * it counts as honest rounding at least. */
static double residual_to_beat(const gemma4_point_fit *fit)
{
    bool fitted = false;
    for (size_t i = 0; i < fit->point->count; i++)
        fitted = fitted || fit->point->settings[i].count > 0 ||
                 identify_is_solved_for(&fit->point->settings[i]) ||
                 fit->point->settings[i].parameter == GEMMA4_PARAMETER_ROPE_PAIRS;
    return fitted ? fmax(1, fit->residual) : fit->residual;
}

/* Do SAME_POINTS before it, which are plainer, predict the very same? */
static bool is_same_again(const identification *id, size_t i)
{
    size_t same = 0;
    while (same < i && id->list[i - same - 1].left == id->list[i].left &&
           id->list[i - same - 1].share == id->list[i].share)
        same++;
    return same >= SAME_POINTS;
}

/* What fits must do so by the rounding of its own size: where it is much smaller than what was
 * expected, anything small would fit. */
static int measure_by_own_size(identification *id)
{
    if (fit_is_bridged(id->s->e))
        return 0;
    size_t positions = id->positions;
    int status = 0;
    for (size_t i = 0; i < id->count && !status; i++) {
        identify_candidate *c = &id->list[i];
        if (!(c->left <= limit_of(id)))
            continue;
        id->positions = c->everywhere ? 0 : positions;
        status = identify_predict(id, c);
        gemma4_against rows = identify_rows(id);
        rows.smaller = true;
        if (!status)
            c->left = fmax(c->left, gemma4_score_tap(id->s->e, id->s->tap, &rows).score);
    }
    id->positions = positions;
    return status;
}

/* Tries those that leave least. */
int identify_try_best(identification *id)
{
    fit_search *s = id->s;
    if (measure_by_own_size(id))
        return -1;
    if (id->count)
        qsort(id->list, id->count, sizeof *id->list, by_left);
    double best = INFINITY;
    for (size_t i = 0, tried = 0; i < id->count && tried < IDENTIFY_TRIES; i++) {
        identify_candidate *c = &id->list[i];
        bool fits = false;
        if (is_same_again(id, i))
            continue;
        bool promising = c->left <= limit_of(id) || (i == 0 && c->share > 1 - NEAR_PART);
        if (!promising || !(c->left <= EQUIVALENT_FACTOR * best + EQUIVALENT_OFFSET))
            break;
        tried++;
        if (try_point(id, c, &fits))
            return -1;
        id->fits_early = id->fits_early || (id->positions && !fits && c->left <= limit_of(id));
        if (fits && s->finding->point_count) /* the next ones are as near as this one was, by either
                                                measure */
            best = fmin(best, fmax(c->left, residual_to_beat(
                                                &s->finding->points[s->finding->point_count - 1])));
    }
    for (size_t i = 0; i < id->count && s->finding->point_count == 0; i++)
        if (identify_remember(id, &id->list[i]))
            return -1;
    size_t kept = 0;
    for (size_t i = 0; i < id->count; i++) /* those that were kept are the finding's now */
        if (id->list[i].point)
            id->list[kept++] = id->list[i];
    id->count = kept;
    return 0;
}

int identify_by_share(const void *a, const void *b)
{
    const identify_candidate *x = a, *y = b;
    return x->share > y->share ? -1 : x->share < y->share;
}
