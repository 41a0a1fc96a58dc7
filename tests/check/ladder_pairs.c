/* Two mistakes that show on no rung alone: pairs of the catalogue, each planted and judged. */
#include "ladder_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "counter_model.h"
#include "evidence.h"
#include "fit.h"
#include "judge.h"
#include "ladder.h"

/* A rung is judged in some 10 ms: of one search so often at most, and of all searches of a
 * climb. */
enum { MOST_MODELS = 80, MOST_JUDGED = 1500, MOST_JUDGED_OF_ALL = 4000 };

/* A mistake that other rungs permit and that this rung shows. */
typedef struct suspect {
    size_t model;
    double left; /* of the rung's error, planted alone, beside its tolerance */
} suspect;

typedef struct pair_search {
    gemma4_climb *climb;
    size_t rung;
    gemma4_planted known;
    suspect suspects[MOST_MODELS]; /* those that leave least first */
    size_t count;
    size_t judged_before; /* rungs, when the search began */
    gemma4_error *error;
} pair_search;

static size_t judged_so_far(const gemma4_climb *climb)
{
    size_t sum = 0;
    for (size_t i = 0; i < climb->ladder->count; i++)
        sum += climb->opened[i].judged;
    return sum;
}

static bool is_too_long(const pair_search *s)
{
    size_t judged = judged_so_far(s->climb) - s->judged_before;
    return judged > MOST_JUDGED || s->climb->judged_for_pairs + judged > MOST_JUDGED_OF_ALL;
}

static gemma4_ladder_candidate candidate_of(size_t model)
{
    return (gemma4_ladder_candidate){.model = gemma4_counter_model_at(model), .only_layer = -1};
}

/* What is left of the error with so many mistakes planted beside the known ones; below 0: the rung
 * passes. NAN where the dump cannot be judged against them. */
static double left_by(const pair_search *s, const size_t *models, size_t count)
{
    gemma4_planted planted = s->known;
    gemma4_report report = {0};
    gemma4_error unused;
    double left = NAN;
    for (size_t i = 0; i < count; i++) {
        gemma4_ladder_candidate candidate = candidate_of(models[i]);
        ladder_plant(&planted, s->climb, s->rung, &candidate);
    }
    const ladder_try how = {.known = &planted};
    if (planted.count == s->known.count + count &&
        !ladder_judge(s->climb, s->rung, &how, &report, &unused)) {
        const gemma4_tap_result *worst = ladder_worst(&report);
        left = report.conforms ? -1 : worst ? worst->local.error / worst->local.tolerance : NAN;
    }
    gemma4_report_free(&report);
    return left;
}

static bool is_known(const pair_search *s, const gemma4_counter_model *model)
{
    for (size_t i = 0; i < s->known.count; i++)
        if (!strcmp(s->known.models[i]->id, model->id))
            return true;
    return false;
}

static int by_left(const void *a, const void *b)
{
    const suspect *x = a, *y = b;
    if (x->left != y->left)
        return x->left < y->left ? -1 : 1;
    return x->model < y->model ? -1 : 1;
}

/* In the place of the one that leaves most, where there is no other. */
static void keep_suspect(pair_search *s, size_t model, double left)
{
    size_t at = s->count;
    if (at == MOST_MODELS) {
        at = 0;
        for (size_t i = 1; i < s->count; i++)
            at = s->suspects[i].left > s->suspects[at].left ? i : at;
        if (s->suspects[at].left <= left)
            return;
    } else
        s->count++;
    s->suspects[at] = (suspect){model, left};
}

/* Those that change the rung, and that no rung contradicts which passes. */
static int find_suspects(pair_search *s)
{
    double unit = gemma4_tier_of(s->climb->opened[s->rung].dtype)->unit,
           right = left_by(s, NULL, 0);
    for (size_t model = 0; model < gemma4_counter_model_count() && !is_too_long(s); model++) {
        const gemma4_ladder_candidate candidate = candidate_of(model), *const one = &candidate;
        bool agrees = false;
        if (is_known(s, candidate.model) || !ladder_acts_in(s->climb, s->rung, one) ||
            gemma4_counter_model_is_permitted(candidate.model, unit))
            continue;
        double left = left_by(s, &model, 1);
        if (isnan(left) || left == right)
            continue;
        if (ladder_agree_elsewhere(s->climb, s->rung, &one, 1, &agrees, s->error))
            return -1;
        if (agrees)
            keep_suspect(s, model, left);
    }
    qsort(s->suspects, s->count, sizeof *s->suspects, by_left);
    return 0;
}

/* Do both together explain the rung, and does no other one contradict them? */
static int explain_it(const pair_search *s, size_t a, size_t b, bool *yes)
{
    const size_t models[2] = {s->suspects[a].model, s->suspects[b].model};
    const gemma4_ladder_candidate first = candidate_of(models[0]), second = candidate_of(models[1]),
                                  *const both[2] = {&first, &second};
    *yes = left_by(s, models, 2) < 0;
    return *yes ? ladder_agree_elsewhere(s->climb, s->rung, both, 2, yes, s->error) : 0;
}

/* Those that leave least come first, in either place. Where two leave the same, to the bit, they do
 * the same here, and the second one is tried beside what was found. */
static int find_pair(const pair_search *s, size_t *a, size_t *b, bool *found)
{
    *found = false;
    for (size_t sum = 1; sum + 2 <= 2 * s->count; sum++)
        for (size_t i = sum < s->count ? 0 : sum - s->count + 1; 2 * i < sum; i++) {
            size_t k = sum - i;
            bool same = (i && s->suspects[i].left == s->suspects[i - 1].left) ||
                        (k > i + 1 && s->suspects[k].left == s->suspects[k - 1].left);
            if (same)
                continue;
            if (is_too_long(s))
                return 0;
            if (explain_it(s, i, k, found))
                return -1;
            *a = i;
            *b = k;
            if (*found)
                return 0;
        }
    return 0;
}

/* Everything that explains the rung as well in the place of one of both. */
static int add_alternatives(const pair_search *s, size_t of, size_t beside,
                            gemma4_ladder_cause *cause)
{
    ladder_add_model(cause, s->suspects[of].model, -1);
    for (size_t i = 0; i < s->count; i++) {
        bool as_well = false;
        if (i == of || i == beside)
            continue;
        if (explain_it(s, i, beside, &as_well))
            return -1;
        if (as_well)
            ladder_add_model(cause, s->suspects[i].model, -1);
    }
    return 0;
}

int ladder_search_pairs(gemma4_climb *climb, size_t rung, bool *found, gemma4_error *error)
{
    pair_search s = {.climb = climb,
                     .rung = rung,
                     .known = ladder_known(climb, rung, GEMMA4_NO_MODEL, 0),
                     .judged_before = judged_so_far(climb),
                     .error = error};
    gemma4_ladder_cause causes[2] = {{.rung = rung, .scope = GEMMA4_EVERYWHERE},
                                     {.rung = rung, .scope = GEMMA4_EVERYWHERE}};
    size_t a = 0, b = 0;
    if (find_suspects(&s) || find_pair(&s, &a, &b, found))
        return -1;
    climb->judged_for_pairs += judged_so_far(climb) - s.judged_before;
    if (!*found)
        return 0;
    if (add_alternatives(&s, a, b, &causes[0]) || add_alternatives(&s, b, a, &causes[1]))
        return -1;
    ladder_add_cause(climb, rung, &causes[0]);
    ladder_add_cause(climb, rung, &causes[1]);
    climb->results[rung].message[0] = '\0';
    return 0;
}
