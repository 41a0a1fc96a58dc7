/* Two or three mistakes that show on no rung alone: combinations of the catalogue, each planted and
 * judged. */
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
enum { MOST_TOGETHER = 3, NEAREST_PAIRS = 8 /* beside which a third one is tried */ };

/* A mistake that other rungs permit and that this rung shows. */
typedef struct suspect {
    size_t model;
    double left; /* of the rung's error, planted alone, beside its tolerance */
} suspect;

/* Several suspects at once, by their indices. */
typedef struct combination {
    size_t members[MOST_TOGETHER], count;
    double left;
} combination;

typedef struct pair_search {
    gemma4_climb *climb;
    size_t rung;
    gemma4_planted known;
    suspect suspects[MOST_MODELS]; /* those that leave least first */
    size_t count;
    combination nearest[NEAREST_PAIRS]; /* of the pairs that do not explain the rung */
    size_t nearest_count;
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
    gemma4_error unused;
    double left;
    for (size_t i = 0; i < count; i++) {
        gemma4_ladder_candidate candidate = candidate_of(models[i]);
        ladder_plant(&planted, s->climb, s->rung, &candidate);
    }
    if (planted.count != s->known.count + count ||
        ladder_left(s->climb, s->rung, &planted, &left, &unused))
        return NAN;
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

/* Do all of them together explain the rung, and does no other one contradict them? */
static int explain_it(const pair_search *s, combination *c, bool *yes)
{
    size_t models[MOST_TOGETHER];
    gemma4_ladder_candidate candidates[MOST_TOGETHER];
    const gemma4_ladder_candidate *all[MOST_TOGETHER];
    for (size_t i = 0; i < c->count; i++) {
        models[i] = s->suspects[c->members[i]].model;
        candidates[i] = candidate_of(models[i]);
        all[i] = &candidates[i];
    }
    c->left = left_by(s, models, c->count);
    *yes = c->left < 0;
    return *yes ? ladder_agree_elsewhere(s->climb, s->rung, all, c->count, yes, s->error) : 0;
}

/* In the place of the pair that leaves most, where there is no other. */
static void keep_near(pair_search *s, const combination *pair)
{
    size_t at = s->nearest_count;
    if (!(pair->left > 0)) /* contradicted elsewhere, or not judged */
        return;
    if (at < NEAREST_PAIRS) {
        s->nearest[s->nearest_count++] = *pair;
        return;
    }
    at = 0;
    for (size_t i = 1; i < s->nearest_count; i++)
        at = s->nearest[i].left > s->nearest[at].left ? i : at;
    if (pair->left < s->nearest[at].left)
        s->nearest[at] = *pair;
}

/* One alone: where a rung barely fails, its size is too uncertain for it to have been found. */
static bool find_single(const pair_search *s, combination *single)
{
    *single = (combination){.members = {0}, .count = 1};
    return s->count && s->suspects[0].left < 0;
}

/* Those that leave least come first, in either place. Where two leave the same, to the bit, they do
 * the same here, and the second one is tried beside what was found. */
static int find_pair(pair_search *s, combination *pair, bool *found)
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
            *pair = (combination){.members = {i, k}, .count = 2};
            if (explain_it(s, pair, found))
                return -1;
            if (*found)
                return 0;
            keep_near(s, pair);
        }
    return 0;
}

/* A third one beside the pairs that leave least. In float32 only: elsewhere so many combinations of
 * three find one that comes within the tolerance by chance. */
static int find_third(const pair_search *s, combination *three, bool *found)
{
    if (gemma4_tier_of(s->climb->opened[s->rung].dtype)->unit > UNIT_FLOAT32)
        return 0;
    for (size_t n = 0; n < s->nearest_count; n++)
        for (size_t i = 0; i < s->count; i++) {
            const combination *pair = &s->nearest[n];
            if (i == pair->members[0] || i == pair->members[1])
                continue;
            if (is_too_long(s))
                return 0;
            *three = (combination){.members = {pair->members[0], pair->members[1], i}, .count = 3};
            if (explain_it(s, three, found))
                return -1;
            if (*found)
                return 0;
        }
    return 0;
}

static bool has_member(const combination *c, size_t index)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->members[i] == index)
            return true;
    return false;
}

/* Everything that explains the rung as well in the place of one of them. */
static int add_alternatives(const pair_search *s, const combination *c, size_t place,
                            gemma4_ladder_cause *cause)
{
    for (size_t i = 0; i < s->count; i++) {
        combination other = *c;
        bool as_well = false;
        if (has_member(c, i))
            continue;
        other.members[place] = i;
        if (explain_it(s, &other, &as_well))
            return -1;
        if (as_well)
            ladder_add_model(cause, s->suspects[i].model, -1);
    }
    return 0;
}

static pair_search new_search(gemma4_climb *climb, size_t rung, gemma4_error *error)
{
    return (pair_search){.climb = climb,
                         .rung = rung,
                         .known = ladder_known(climb, rung, GEMMA4_NO_MODEL, 0),
                         .judged_before = judged_so_far(climb),
                         .error = error};
}

static void end_search(const pair_search *s)
{
    s->climb->judged_for_pairs += judged_so_far(s->climb) - s->judged_before;
}

int ladder_search_pairs(gemma4_climb *climb, size_t rung, bool *found, gemma4_error *error)
{
    pair_search s = new_search(climb, rung, error);
    gemma4_ladder_cause causes[MOST_TOGETHER];
    combination c;
    if (find_suspects(&s))
        return -1;
    *found = find_single(&s, &c);
    if (!*found && (find_pair(&s, &c, found) || (!*found && find_third(&s, &c, found))))
        return -1;
    for (size_t i = 0; *found && i < c.count; i++) {
        causes[i] = (gemma4_ladder_cause){.rung = rung, .scope = GEMMA4_EVERYWHERE};
        ladder_add_model(&causes[i], s.suspects[c.members[i]].model, -1);
        if (add_alternatives(&s, &c, i, &causes[i]))
            return -1;
    }
    end_search(&s);
    for (size_t i = 0; *found && i < c.count; i++)
        ladder_add_cause(climb, rung, &causes[i]);
    if (*found)
        climb->results[rung].message[0] = '\0';
    return 0;
}

int ladder_find_alternatives(gemma4_climb *climb, size_t rung, gemma4_ladder_cause causes[2],
                             gemma4_error *error)
{
    pair_search s = new_search(climb, rung, error);
    combination c = {.count = 0};
    if (find_suspects(&s))
        return -1;
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k < s.count; k++)
            if (gemma4_counter_model_at(s.suspects[k].model) == causes[i].candidates[0].model)
                c.members[c.count++] = k;
    for (size_t i = 0; c.count == 2 && i < 2; i++)
        if (add_alternatives(&s, &c, i, &causes[i]))
            return -1;
    end_search(&s);
    return 0;
}
