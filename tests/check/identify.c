/* Which point of the space explains a failing tap that no catalogued mistake does?
 * (spec/diagnosis.md, "Points of the space")
 *
 * Settings are proposed for every step that could be at fault; a number is a starting point, from
 * which least squares goes on. What leaves least is tried as a catalogued mistake is. Where no
 * single setting fits, those that explain most are joined by a second, and a third. */
#include "identify_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "counter_model.h"
#include "noise.h"
#include "point.h"
#include "thresholds.h"

/* ------------------------------------------------------------------ one step */

/* What the prediction leaves of one query head's error, in spreads. */
static double left_of_head(const identification *id, size_t h)
{
    const fit_search *s = id->s;
    const gemma4_tap_evidence *t = &s->e->taps[s->tap];
    const gemma4_against rows = identify_rows(id);
    size_t length = t->width / s->e->subject->model->config.num_attention_heads;
    double sum = 0;
    for (size_t row = 0; row < s->e->subject->T; row++) {
        if (!gemma4_in_scope(&s->e->subject->schedule, id->scope, row) ||
            !gemma4_row_counts(s->e, s->tap, &rows, row))
            continue;
        for (size_t i = h * length; i < (h + 1) * length; i++) {
            double error = ((double)t->engine[row * t->width + i] -
                            (double)s->prediction[row * t->width + i]) /
                           t->sigma[row];
            sum += gemma4_evidence_masked(s->e, s->tap, row, i) ? 0 : error * error;
        }
    }
    return sum;
}

/* The KV head that each query head reads: that with which it leaves least, when all heads read the
 * same one. */
static int solve_map(identification *id, gemma4_setting *map)
{
    fit_search *s = id->s;
    const gemma4_config *c = &s->e->subject->model->config;
    double least[GEMMA4_LIST];
    gemma4_setting all = *map;
    for (size_t g = 0; g < c->layers[s->e->layer].num_key_value_heads; g++) {
        for (size_t h = 0; h < map->count; h++)
            all.list[h] = (double)g;
        identify_candidate every = {
            .point = gemma4_point_new(c, &all, 1, GEMMA4_ON_SLIDING | GEMMA4_ON_FULL),
            .only_layer = -1};
        int status = every.point ? identify_predict(id, &every)
                                 : gemma4_fail(s->error, "diagnosis: out of memory");
        free(every.point);
        if (status)
            return -1;
        for (size_t h = 0; h < map->count; h++) {
            double left = left_of_head(id, h);
            if (g == 0 || left < least[h]) {
                least[h] = left;
                map->list[h] = (double)g;
            }
        }
    }
    return 0;
}

/* Maps from query heads to KV heads: of keys, of values, of both. */
static int propose_maps(identification *id, gemma4_proposals *proposals)
{
    const fit_search *s = id->s;
    const gemma4_config *c = &s->e->subject->model->config;
    size_t H = c->num_attention_heads, G = c->layers[s->e->layer].num_key_value_heads;
    const uint64_t values = GEMMA4_STEP(GEMMA4_TAP_ATTN_CONTEXT),
                   keys = values | GEMMA4_STEP(GEMMA4_TAP_ATTN_SCORES) |
                          GEMMA4_STEP(GEMMA4_TAP_ATTN_PROBS);
    const gemma4_setting maps[] = {
        {.parameter = GEMMA4_PARAMETER_KV_HEAD_OF, .count = H, .steps = keys},
        {.parameter = GEMMA4_PARAMETER_K_HEAD_OF, .count = H, .steps = keys},
        {.parameter = GEMMA4_PARAMETER_V_HEAD_OF, .count = H, .steps = values},
    };
    if (s->tap < GEMMA4_TAP_ATTN_SCORES || s->tap > GEMMA4_TAP_ATTN_CONTEXT || G < 2 ||
        H > GEMMA4_LIST)
        return 0;
    for (size_t m = 0; m < (s->tap == GEMMA4_TAP_ATTN_CONTEXT ? 3 : 2); m++) {
        gemma4_setting map = maps[m];
        if (solve_map(id, &map))
            return -1;
        gemma4_propose(proposals, &map);
    }
    return 0;
}

int identify_where(const gemma4_evidence *e)
{
    const gemma4_config *c = &e->subject->model->config;
    return !gemma4_block_is_layer(c, e->block)       ? GEMMA4_ON_HEAD
           : c->layers[e->layer].kind == GEMMA4_FULL ? GEMMA4_ON_FULL
                                                     : GEMMA4_ON_SLIDING;
}

static int identify_step(identification *id, gemma4_proposals *proposals)
{
    fit_search *s = id->s;
    proposals->scope = id->scope;
    gemma4_propose_for_step(proposals, s->e, s->e->layer, s->tap);
    gemma4_propose_from_result(proposals, s->e, s->tap);
    if (proposals->failed)
        return gemma4_fail(s->error, "diagnosis: out of memory");
    int where = identify_where(s->e);
    if (propose_maps(id, proposals) || identify_look_at_all(id, proposals, where) ||
        identify_solve_all(id, 0) || identify_try_best(id))
        return -1;
    return identify_join(id, 4);
}

/* ------------------------------------------------------------- bridged steps */

static bool is_of_kind_only(gemma4_tap tap)
{
    return tap == GEMMA4_TAP_ATTN_Q_ROPE || tap == GEMMA4_TAP_ATTN_K_ROPE ||
           tap == GEMMA4_TAP_ATTN_CONTEXT;
}

/* Can the step be at fault? Not where the dump holds what it computed, and where it fails nothing
 * by itself. */
static bool may_be_at_fault(const fit_search *s, gemma4_tap tap, size_t layer)
{
    const gemma4_config *c = &s->e->subject->model->config;
    bool in_block = gemma4_block_is_layer(c, s->e->block), bridged = fit_is_bridged(s->e);
    if (!gemma4_tap_exists(c, tap, layer) || tap == GEMMA4_TAP_ATTN_SCORES ||
        tap == GEMMA4_TAP_ATTN_PROBS)
        return false;
    return bridged || !in_block || (tap <= s->tap && (tap == s->tap || !s->e->taps[tap].engine));
}

/* Every step of a layer that may be at fault; of those that differ by kind, or of the others. */
static void propose_layer(const fit_search *s, size_t layer, bool of_kind,
                          gemma4_proposals *proposals)
{
    for (int tap = GEMMA4_TAP_ATTN_NORM; tap <= GEMMA4_TAP_LAYER_OUTPUT; tap++)
        if (may_be_at_fault(s, (gemma4_tap)tap, layer) &&
            is_of_kind_only((gemma4_tap)tap) == of_kind)
            gemma4_propose_for_step(proposals, s->e, layer, (gemma4_tap)tap);
}

/* Settings of which several steps may share one: in shared code, or in the config. */
static void propose_rope_together(const fit_search *s, size_t layer, gemma4_proposals *proposals)
{
    const uint64_t both = GEMMA4_STEP(GEMMA4_TAP_ATTN_Q_ROPE) | GEMMA4_STEP(GEMMA4_TAP_ATTN_K_ROPE);
    size_t from = proposals->count;
    if (!may_be_at_fault(s, GEMMA4_TAP_ATTN_Q_ROPE, layer) ||
        !may_be_at_fault(s, GEMMA4_TAP_ATTN_K_ROPE, layer))
        return;
    gemma4_propose_rope(proposals, s->e, layer, GEMMA4_TAP_ATTN_Q_ROPE);
    for (size_t i = from; i < proposals->count; i++)
        proposals->list[i].steps = both;
}

static void propose_together(const fit_search *s, size_t layer, gemma4_proposals *proposals)
{
    gemma4_proposals shared = {0};
    uint64_t steps = 0;
    gemma4_propose_shared(&shared, s->e);
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        if (gemma4_tap_describe((gemma4_tap)tap)->per_layer &&
            may_be_at_fault(s, (gemma4_tap)tap, layer))
            steps |= GEMMA4_STEP(tap);
    for (size_t i = 0; i < shared.count; i++) {
        shared.list[i].steps &= steps;
        if (shared.list[i].steps & (shared.list[i].steps - 1)) /* more than one */
            gemma4_propose(proposals, &shared.list[i]);
    }
    proposals->failed = proposals->failed || shared.failed;
    gemma4_proposals_free(&shared);
    if (!fit_is_bridged(s->e) && gemma4_block_is_layer(&s->e->subject->model->config, s->e->block))
        propose_rope_together(s, layer, proposals);
}

/* The first layer of a kind; SIZE_MAX where there is none. */
static size_t first_of(const gemma4_config *c, gemma4_layer_kind kind)
{
    for (size_t l = 0; l < c->num_hidden_layers; l++)
        if (c->layers[l].kind == kind)
            return l;
    return SIZE_MAX;
}

/* Looks at the proposals of a part of the model, and forgets them. */
static int look_at_part(identification *id, gemma4_proposals *proposals, int where)
{
    size_t from = id->count;
    int status = proposals->failed ? gemma4_fail(id->s->error, "diagnosis: out of memory")
                                   : identify_look_at_all(id, proposals, where);
    status = status ? status : identify_solve_all(id, from);
    gemma4_proposals_free(proposals);
    return status;
}

static bool differs_by_kind(gemma4_parameter p)
{
    return p == GEMMA4_PARAMETER_ROPE_THETA || p == GEMMA4_PARAMETER_ROPE_PAIRS ||
           p == GEMMA4_PARAMETER_ROPE_DENOMINATOR || p == GEMMA4_PARAMETER_WINDOW ||
           p == GEMMA4_PARAMETER_KV_HEAD_OF || p == GEMMA4_PARAMETER_K_HEAD_OF ||
           p == GEMMA4_PARAMETER_V_HEAD_OF;
}

/* RoPE and attention of both kinds of layers alike. */
static void propose_both_kinds(const fit_search *s, gemma4_proposals *proposals)
{
    gemma4_proposals all = {.brief = true};
    propose_rope_together(s, 0, &all);
    gemma4_propose_attention(&all, s->e, 0, GEMMA4_TAP_ATTN_CONTEXT);
    for (size_t i = 0; i < all.count; i++)
        if (!differs_by_kind(all.list[i].parameter))
            gemma4_propose(proposals, &all.list[i]);
    proposals->failed = proposals->failed || all.failed;
    gemma4_proposals_free(&all);
}

/* All layers, the layers of each kind, the embedding and the head. */
static int look_at_model(identification *id)
{
    fit_search *s = id->s;
    const gemma4_config *c = &s->e->subject->model->config;
    gemma4_proposals proposals = {.brief = true};
    propose_layer(s, 0, false, &proposals);
    propose_together(s, 0, &proposals);
    propose_both_kinds(s, &proposals);
    if (look_at_part(id, &proposals, GEMMA4_ON_SLIDING | GEMMA4_ON_FULL))
        return -1;
    for (int kind = 0; kind < 2; kind++) {
        size_t layer = first_of(c, kind ? GEMMA4_FULL : GEMMA4_SLIDING);
        if (layer == SIZE_MAX)
            continue;
        propose_layer(s, layer, true, &proposals);
        propose_rope_together(s, layer, &proposals);
        if (look_at_part(id, &proposals, kind ? GEMMA4_ON_FULL : GEMMA4_ON_SLIDING))
            return -1;
    }
    if (s->e->known_block < 0 && may_be_at_fault(s, GEMMA4_TAP_EMBED, 0)) {
        gemma4_propose_for_step(&proposals, s->e, 0, GEMMA4_TAP_EMBED);
        if (look_at_part(id, &proposals, GEMMA4_ON_HEAD))
            return -1;
    }
    if (s->e->block != (gemma4_block)c->num_hidden_layers)
        return 0;
    gemma4_propose_for_all_norms(&proposals, s->e);
    if (look_at_part(id, &proposals, GEMMA4_ON_SLIDING | GEMMA4_ON_FULL | GEMMA4_ON_HEAD))
        return -1;
    for (int tap = GEMMA4_TAP_FINAL_NORM; tap <= (int)s->tap && tap <= GEMMA4_TAP_LOGITS; tap++)
        gemma4_propose_for_step(&proposals, s->e, 0, (gemma4_tap)tap);
    return look_at_part(id, &proposals, GEMMA4_ON_HEAD);
}

/* Settings in fewer layers than those in which they were looked at. */
typedef struct elsewhere {
    const identify_candidate *all; /* in all of them */
    int where, only_layer;
    identify_candidate here; /* point is NULL where it is no better */
} elsewhere;

bool identify_helps_in_fewer_layers(const identification *id, const identify_candidate *c,
                                    double left_in_all)
{
    return !identify_is_rounding(id, c) && c->left < left_in_all &&
           c->left <= SINGLE_LAYER_PART * id->nothing;
}

static bool is_number(const identify_candidate *c)
{
    return c->point->settings[0].count == 0 && identify_is_solved_for(&c->point->settings[0]);
}

/* As it is. A number, which is another one in fewer layers, is solved for where it explains as much
 * with any coefficient. */
static int look_and_solve(identification *own, identify_candidate *c, double left_in_all,
                          bool *helps)
{
    *helps = false;
    if (identify_look(own, c))
        return -1;
    bool promising =
        is_number(c) && c->has_effect && 1 - c->share <= SINGLE_LAYER_PART * SINGLE_LAYER_PART;
    if (!promising && !identify_helps_in_fewer_layers(own, c, left_in_all))
        return 0;
    if (identify_is_solved_for(&c->point->settings[0]) && identify_solve(own, c, 0))
        return -1;
    *helps = identify_helps_in_fewer_layers(own, c, left_in_all);
    return 0;
}

/* Kept where it helps. In all layers, a factor may have become anything: it is looked for on both
 * sides of 1 too. */
static int look_elsewhere(identification *own, void *context, size_t i)
{
    elsewhere *at = (elsewhere *)context + i;
    identify_candidate *c = &at->here;
    gemma4_setting s = at->all->point->settings[0];
    const double starts[] = {s.number, 1.25, 0.8};
    size_t tries = s.parameter == GEMMA4_PARAMETER_RESULT_FACTOR ? 3 : 1;
    bool helps = false;
    int status = 0;
    for (size_t k = 0; k < tries && !helps && !status; k++) {
        free(c->point);
        s.number = starts[k];
        *c = (identify_candidate){.only_layer = at->only_layer};
        c->point = gemma4_point_new(&own->s->e->subject->model->config, &s, 1, at->where);
        status = c->point ? look_and_solve(own, c, at->all->left, &helps)
                          : gemma4_fail(own->s->error, "diagnosis: out of memory");
    }
    if (!helps) {
        free(c->point);
        c->point = NULL;
    }
    return status;
}

/* Where the best of what was planted in all layers, and all numbers, may be as well: in those of
 * one kind, and in single ones. Returns how many there are. */
static size_t list_elsewhere(const identification *id, size_t most, elsewhere *list)
{
    const fit_search *s = id->s;
    const gemma4_config *c = &s->e->subject->model->config;
    int first = s->e->known_block < 0 ? 0 : s->e->known_block;
    size_t n = 0;
    for (size_t i = 0; i < id->count; i++) {
        const identify_candidate *planted = &id->list[i];
        int where = planted->point->model.where;
        if (where == GEMMA4_ON_HEAD || (i >= most && !is_number(planted)))
            continue;
        if (where == (GEMMA4_ON_SLIDING | GEMMA4_ON_FULL)) {
            list[n++] = (elsewhere){.all = planted, .where = GEMMA4_ON_SLIDING, .only_layer = -1};
            list[n++] = (elsewhere){.all = planted, .where = GEMMA4_ON_FULL, .only_layer = -1};
        }
        for (int layer = first; layer < (int)c->num_hidden_layers && layer <= s->e->block; layer++)
            list[n++] = (elsewhere){.all = planted, .where = where, .only_layer = layer};
    }
    return n;
}

static int look_at_fewer_layers(identification *id)
{
    if (id->count == 0)
        return 0;
    qsort(id->list, id->count, sizeof *id->list, identify_by_share);
    size_t most = id->count * (id->s->e->subject->model->config.num_hidden_layers + 2);
    elsewhere *list = calloc(most, sizeof *list);
    identify_candidate *kept = malloc((id->count + most) * sizeof *kept);
    size_t count = list && kept ? list_elsewhere(id, SINGLE_LAYER_MOST, list) : 0;
    int status = list && kept ? identify_each(id, count, look_elsewhere, list)
                              : gemma4_fail(id->s->error, "diagnosis: out of memory");
    if (!status)
        memcpy(kept, id->list, id->count * sizeof *kept);
    for (size_t i = 0; i < count; i++)
        if (list[i].here.point && !status)
            kept[id->count++] = list[i].here;
        else
            free(list[i].here.point);
    if (!status) {
        free(id->list);
        id->list = kept;
        kept = NULL;
    }
    free(kept);
    free(list);
    return status;
}

/* The steps of the layer, up to the tap, that the dump leaves open. */
static int identify_layer(identification *id)
{
    fit_search *s = id->s;
    gemma4_proposals proposals = {0};
    propose_layer(s, s->e->layer, true, &proposals);
    propose_layer(s, s->e->layer, false, &proposals);
    propose_together(s, s->e->layer, &proposals);
    proposals.scope = id->scope;
    if (may_be_at_fault(s, s->tap, s->e->layer))
        gemma4_propose_from_result(&proposals, s->e, s->tap);
    int status = proposals.failed ? gemma4_fail(s->error, "diagnosis: out of memory") : 0;
    status = status || identify_look_at_all(id, &proposals, identify_where(s->e)) ||
                     identify_solve_all(id, 0) || identify_try_best(id)
                 ? -1
                 : 0;
    status = status ? status : identify_join(id, 5);
    gemma4_proposals_free(&proposals);
    return status;
}

static int identify_bridged(identification *id)
{
    fit_search *s = id->s;
    if (gemma4_block_is_layer(&s->e->subject->model->config, s->e->block) &&
        !fit_is_bridged(s->e)) {
        if (identify_layer(id))
            return -1;
        if (s->finding->point_count || !id->fits_early)
            return 0;
        identify_free(id);
        id->positions = 0;
        return identify_layer(id);
    }
    return look_at_model(id) || identify_try_best(id) ||
                   (s->finding->point_count == 0 &&
                    (look_at_fewer_layers(id) || identify_try_best(id)))
               ? -1
               : 0;
}

/* ------------------------------------------------------------------- the tap */

/* Are the inputs of the tap's step in the dump, at every position? */
static bool inputs_are_known(const gemma4_evidence *e, gemma4_tap tap)
{
    const gemma4_tap *inputs = gemma4_step_inputs(tap);
    if (fit_is_bridged(e) || !inputs)
        return false;
    for (size_t i = 0; i < 3 && inputs[i] != GEMMA4_TAP_COUNT; i++) {
        /* the stream before a block is known where it is not bridged */
        if (inputs[i] == GEMMA4_TAP_LAYER_INPUT || inputs[i] == GEMMA4_TAP_LAYER_OUTPUT)
            continue;
        for (size_t row = 0; row < e->subject->T; row++)
            if (!e->taps[inputs[i]].engine || !e->taps[inputs[i]].have[row])
                return false;
    }
    return true;
}

/* What explained the same tap in a layer before is likely to do so here. */
static int identify_as_before(identification *id, const gemma4_finding *earlier, size_t count)
{
    fit_search *s = id->s;
    const gemma4_config *c = &s->e->subject->model->config;
    for (size_t i = count; i-- > 0 && s->finding->point_count == 0;) {
        const gemma4_finding *f = &earlier[i];
        id->scope = f->tap == s->tap && f->point_count ? f->points[0].scope : GEMMA4_EVERYWHERE;
        for (size_t k = 0; f->tap == s->tap && k < f->point_count; k++) {
            identify_candidate next = {.point = gemma4_point_new(c, f->points[k].point->settings,
                                                                 f->points[k].point->count,
                                                                 identify_where(s->e)),
                                       .only_layer = -1};
            identify_candidate *list = realloc(id->list, (id->count + 1) * sizeof *list);
            id->list = list ? list : id->list;
            int status = next.point && list ? identify_look(id, &next)
                                            : gemma4_fail(s->error, "diagnosis: out of memory");
            for (size_t j = 0; j < f->points[k].point->count && !status; j++)
                if (identify_is_solved_for(&next.point->settings[j]))
                    status = identify_solve(id, &next, j);
            if (status || !list) {
                free(next.point);
                return -1;
            }
            id->list[id->count++] = next;
        }
        if (f->tap == s->tap && f->point_count) {
            int status = identify_try_best(id);
            identify_free(id);
            return status;
        }
    }
    return 0;
}

/* All that can be tried at the positions of a scope. */
static int identify_in_scope(identification *id, bool step, gemma4_scope scope)
{
    fit_search *s = id->s;
    const gemma4_schedule *schedule = &s->e->subject->schedule;
    size_t T = s->e->subject->T, first = 0;
    gemma4_proposals proposals = {0};
    id->scope = scope;
    while (first < T && !gemma4_in_scope(schedule, scope, first))
        first++;
    id->positions = !step && first + PREFIX_POSITIONS < T ? first + PREFIX_POSITIONS : 0;
    id->fits_early = false;
    int status = step ? identify_step(id, &proposals) : identify_bridged(id);
    status = status ? status : identify_refine(id);
    identify_free(id);
    gemma4_proposals_free(&proposals);
    return status;
}

static int open_identification(fit_search *s, identification *id, bool step)
{
    const gemma4_against every = {0};
    size_t n = s->e->subject->T * s->e->taps[s->tap].width;
    *id = (identification){.s = s,
                           .at = malloc((n ? n : 1) * sizeof *id->at),
                           .nothing = gemma4_score_tap(s->e, s->tap, &every).score,
                           .first_search = true};
    id->first_look = !step && s->e->subject->tier->unit <= UNIT_FLOAT32;
    id->positions = !step && PREFIX_POSITIONS < s->e->subject->T ? PREFIX_POSITIONS : 0;
    return id->at ? 0 : gemma4_fail(s->error, "diagnosis: out of memory");
}

static void close_identification(identification *id)
{
    identify_free(id);
    identify_workers_free(id);
    free(id->nearest.point);
    free(id->singles);
    free(id->shares);
    free(id->at);
}

int fit_identify_beside(fit_search *s)
{
    identification id;
    if (open_identification(s, &id, true))
        return -1;
    id.scope = s->finding->fits[0].scope;
    int status = identify_beside(&id);
    close_identification(&id);
    return status;
}

/* Are the inputs of the failing tap's step all that it is computed from? */
static bool is_step(const fit_search *s)
{
    return s->tap == GEMMA4_TAP_EMBED || inputs_are_known(s->e, s->tap);
}

int fit_identify_as_before(fit_search *s, const gemma4_finding *earlier, size_t earlier_count)
{
    identification id;
    if (open_identification(s, &id, is_step(s)))
        return -1;
    int status = identify_as_before(&id, earlier, earlier_count);
    close_identification(&id);
    return status;
}

/* What the best point leaves, in spreads. More than honest rounding may be another mistake, in a
 * narrower scope, which the point comes near to. */
static double least_left(const gemma4_finding *f)
{
    double least = INFINITY;
    for (size_t i = 0; i < f->point_count; i++)
        least = fmin(least, f->points[i].residual);
    return least;
}

/* Leaves out points that explain the error much worse than the best one does. */
static void drop_worse(gemma4_finding *f)
{
    double least = fmax(1, least_left(f));
    size_t kept = 0;
    for (size_t i = 0; i < f->point_count; i++)
        if (f->points[i].residual <= EQUIVALENT_FACTOR * least + EQUIVALENT_OFFSET)
            f->points[kept++] = f->points[i];
        else
            free(f->points[i].point);
    f->point_count = kept;
}

int fit_identify(fit_search *s, const gemma4_finding *earlier, size_t earlier_count)
{
    bool step = is_step(s);
    identification id;
    if (open_identification(s, &id, step))
        return -1;
    for (size_t i = 0; i < earlier_count; i++)
        id.first_search = id.first_search && (earlier[i].tap != s->tap || earlier[i].point_count ||
                                              earlier[i].fit_count);
    int status = identify_as_before(&id, earlier, earlier_count);
    for (int scope = GEMMA4_EVERYWHERE;
         scope < GEMMA4_SCOPES && !status && !(least_left(s->finding) <= 1); scope++)
        if (scope == GEMMA4_EVERYWHERE || fit_may_be_in_scope(s, (gemma4_scope)scope))
            status = identify_in_scope(&id, step, (gemma4_scope)scope);
    drop_worse(s->finding);
    if (!status && s->finding->point_count == 0)
        status = identify_tell_nearest(&id);
    close_identification(&id);
    return status;
}
