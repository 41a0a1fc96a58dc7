/* By what rule were the experts chosen? */
#include "identify_internal.h"
#include "noise.h"
#include "point.h"

#include <math.h>
#include <stdlib.h>

typedef gemma4_real real;

/* Is every expert that the engine chose as good, by rounded logits, as any that it did not? */
static bool are_best_rounded(const gemma4_evidence *e, size_t t)
{
    size_t K = e->subject->model->config.top_k_experts, E = e->subject->model->config.num_experts;
    const real *logits = e->taps[GEMMA4_TAP_ROUTER_LOGITS].values + t * E;
    double least = INFINITY, most = -INFINITY;
    for (size_t i = 0; i < E; i++) {
        double rounded = gemma4_rounded((double)logits[i], 0x1p-8);
        bool chosen = false;
        for (size_t r = 0; r < K; r++)
            chosen = chosen || e->engine_ids[t * K + r] == (int32_t)i;
        if (chosen)
            least = fmin(least, rounded);
        else
            most = fmax(most, rounded);
    }
    return least >= most;
}

/* Does the setting choose, from the engine's own logits, what the engine chose? */
static int chooses_the_same(const fit_search *s, const gemma4_point *point, gemma4_scope scope,
                            bool *same)
{
    const gemma4_evidence *e = s->e;
    size_t T = e->subject->T, K = e->subject->model->config.top_k_experts;
    bool rounded = point->settings[0].word == GEMMA4_CHOICE_ROUNDED;
    int32_t *ids = calloc(T * K, sizeof *ids);
    *same = true;
    int status = ids ? fit_choose(s, &point->model, scope, ids)
                     : gemma4_fail(s->error, "diagnosis: out of memory");
    for (size_t t = 0; t < T && !status; t++)
        for (size_t i = 0; i < K && e->have_ids[t]; i++) {
            bool found = rounded && gemma4_in_scope(&e->subject->schedule, scope, t) &&
                         are_best_rounded(e, t);
            for (size_t j = 0; j < K; j++)
                found = found || e->engine_ids[t * K + i] == ids[t * K + j];
            *same = *same && found;
        }
    free(ids);
    return status;
}

int fit_identify_ids(fit_search *s, gemma4_scope scope)
{
    const gemma4_config *c = &s->e->subject->model->config;
    gemma4_proposals proposals = {0};
    int status = 0;
    if (s->e->taps[GEMMA4_TAP_ROUTER_LOGITS].values)
        gemma4_propose_experts(&proposals, s->e, GEMMA4_TAP_ROUTER_TOPK_IDS);
    if (proposals.failed)
        status = gemma4_fail(s->error, "diagnosis: out of memory");
    for (size_t i = 0; i < proposals.count && !status; i++) {
        identify_candidate next = {
            .point = gemma4_point_new(c, &proposals.list[i], 1, identify_where(s->e)),
            .only_layer = -1};
        const gemma4_fit fit = {.coefficient = 1};
        bool same = false;
        status = next.point ? chooses_the_same(s, next.point, scope, &same)
                            : gemma4_fail(s->error, "diagnosis: out of memory");
        if (!status && same)
            identify_keep(s->finding, scope, &next, &fit);
        else
            free(next.point);
    }
    gemma4_proposals_free(&proposals);
    return status;
}
