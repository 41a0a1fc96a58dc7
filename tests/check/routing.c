#include "routing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "counter_run.h"
#include "rows.h"
#include "thresholds.h"

typedef gemma4_real real;

/* The experts of a row by logit, largest first; equals by lower id. */
static void rank_experts(int32_t *ranked, const real *logits, size_t E)
{
    for (size_t i = 0; i < E; i++) {
        size_t at = i;
        for (; at > 0 && logits[ranked[at - 1]] < logits[i]; at--)
            ranked[at] = ranked[at - 1];
        ranked[at] = (int32_t)i;
    }
}

/* ---------------------------------------------------------------- right choices */

static double log_of_sum(const float *logits, size_t E)
{
    double largest = -INFINITY, sum = 0;
    for (size_t i = 0; i < E; i++)
        largest = fmax(largest, (double)logits[i]);
    for (size_t i = 0; i < E; i++)
        sum += exp((double)logits[i] - largest);
    return largest + log(sum);
}

bool gemma4_routing_may_exchange(const gemma4_tier *tier, const float *logits, const float *probs,
                                 size_t E, int32_t leaves, int32_t enters, double slack)
{
    if ((double)logits[leaves] - (double)logits[enters] <= slack)
        return true;
    if (tier->unit <= UNIT_FLOAT32)
        return false;
    if (probs)
        return gemma4_rounded((double)probs[leaves], tier->unit) <=
               gemma4_rounded((double)probs[enters], tier->unit);
    /* Before they are rounded, an engine's float32 probabilities differ from ours by some units of
     * float32. */
    double sum = log_of_sum(logits, E), upper = exp((double)logits[leaves] - sum),
           lower = exp((double)logits[enters] - sum);
    return gemma4_rounded(upper * (1 - PROBABILITY_SLACK), tier->unit) <=
           gemma4_rounded(lower * (1 + PROBABILITY_SLACK), tier->unit);
}

/* What rounding may have done to stored logits: that of a dataset narrower than the arithmetic, or
 * of float32 probabilities. */
static double slack_of_stored(const gemma4_evidence *e, const float *logits)
{
    size_t E = e->subject->model->config.num_experts;
    double largest = 0,
           storage = gemma4_storage_unit(e->subject, e->taps[GEMMA4_TAP_ROUTER_LOGITS].stored);
    for (size_t i = 0; i < E; i++)
        largest = fmax(largest, fabs((double)logits[i]));
    bool narrow = storage > e->subject->tier->unit;
    return (narrow ? TIE_ROUNDINGS_STORED * storage : TIE_ROUNDINGS_FLOAT32 * UNIT_FLOAT32) *
           largest;
}

/* May the engine have chosen `enters` instead of `leaves` at this row, as far as the dump tells? */
static bool may_exchange(const gemma4_evidence *e, size_t row, int32_t leaves, int32_t enters)
{
    size_t E = e->subject->model->config.num_experts;
    const gemma4_tap_evidence *logits = &e->taps[GEMMA4_TAP_ROUTER_LOGITS],
                              *probs = &e->taps[GEMMA4_TAP_ROUTER_PROBS];
    if (!gemma4_logits_are_stored(e, row))
        return (double)logits->values[row * E + (size_t)leaves] -
                   (double)logits->values[row * E + (size_t)enters] <=
               gemma4_near_tie(e, row);
    const float *stored = logits->engine + row * E;
    return gemma4_routing_may_exchange(e->subject->tier, stored,
                                       probs->engine && probs->have[row] ? probs->engine + row * E
                                                                         : NULL,
                                       E, leaves, enters, slack_of_stored(e, stored));
}

/* --------------------------------------------------------------------- inference */

/* The sets that an engine may have chosen at one row, without the one that the logits give. Sets
 * lists ranks: the ranks below `first` are in all of them, those from `first` up to K - 1 may leave
 * for those from K up to `end` - 1. */
typedef struct alternatives {
    size_t count;
    size_t first, end;
    uint16_t sets[ROUTING_CHOICES]; /* bit i: rank first + i is chosen; the least loss of logit
                                       first */
} alternatives;

static bool is_allowed(const gemma4_evidence *e, size_t row, const int32_t *ranked,
                       const alternatives *a, unsigned set)
{
    size_t K = e->subject->model->config.top_k_experts;
    for (size_t i = a->first; i < K; i++)
        for (size_t j = K; !(set >> (i - a->first) & 1) && j < a->end; j++)
            if ((set >> (j - a->first) & 1) && !may_exchange(e, row, ranked[i], ranked[j]))
                return false;
    return true;
}

static double loss_of(const alternatives *a, unsigned set, const real *logits,
                      const int32_t *ranked, size_t K)
{
    double loss = 0;
    for (size_t i = a->first; i < a->end; i++)
        if (((set >> (i - a->first)) & 1) != (i < K))
            loss += (i < K ? 1 : -1) * (double)logits[ranked[i]];
    return loss;
}

/* Keeps a set among those with the least loss, in order. */
static void keep_set(alternatives *a, double losses[ROUTING_CHOICES], unsigned set, double loss)
{
    size_t at = 0;
    while (at < a->count && losses[at] <= loss)
        at++;
    if (at == ROUTING_CHOICES)
        return;
    a->count += a->count < ROUTING_CHOICES;
    for (size_t i = a->count - 1; i > at; i--) {
        losses[i] = losses[i - 1];
        a->sets[i] = a->sets[i - 1];
    }
    losses[at] = loss;
    a->sets[at] = (uint16_t)set;
}

static alternatives find_alternatives(const gemma4_evidence *e, size_t row, const int32_t *ranked)
{
    size_t K = e->subject->model->config.top_k_experts, E = e->subject->model->config.num_experts;
    const real *logits = e->taps[GEMMA4_TAP_ROUTER_LOGITS].values + row * E;
    alternatives a = {.first = K, .end = K};
    double losses[ROUTING_CHOICES];
    size_t ranks = gemma4_logits_are_stored(e, row) ? ROUTING_RANKS_TIED : ROUTING_RANKS_NEAR;
    while (K < E && a.first > 0 && K - a.first < ranks &&
           may_exchange(e, row, ranked[a.first - 1], ranked[K]))
        a.first--;
    while (K < E && a.end < E && a.end - K < ranks &&
           may_exchange(e, row, ranked[K - 1], ranked[a.end]))
        a.end++;
    unsigned places = (unsigned)(K - a.first), given = (1u << places) - 1;
    for (unsigned set = 0; set < 1u << (a.end - a.first); set++)
        if (set != given && (unsigned)__builtin_popcount(set) == places &&
            is_allowed(e, row, ranked, &a, set))
            keep_set(&a, losses, set, loss_of(&a, set, logits, ranked, K));
    return a;
}

/* The first stored tap after the router that tells experts apart; GEMMA4_TAP_COUNT where there is
 * none. */
static gemma4_tap witness_of(const gemma4_evidence *e)
{
    for (int tap = GEMMA4_TAP_MOE_OUT; tap <= GEMMA4_TAP_LAYER_OUTPUT; tap++)
        if (e->taps[tap].engine)
            return (gemma4_tap)tap;
    return GEMMA4_TAP_COUNT;
}

static double row_error(const gemma4_tap_evidence *t, size_t row, const real *predicted)
{
    double sum = 0;
    for (size_t i = row * t->width; i < (row + 1) * t->width; i++) {
        double e = (double)t->engine[i] - (double)predicted[i];
        sum += e * e;
    }
    return sum;
}

typedef struct inference {
    const gemma4_evidence *e;
    gemma4_tap witness;
    int32_t *ranked;    /* [T, E] */
    int32_t *tried;     /* [T, K] in order of rank */
    alternatives *open; /* [T] count 0: the choice is known */
    double *best;       /* [T] error of the best set */
    bool *other;        /* [T] the best set is not the one that the evidence used */
    real *predicted;
} inference;

static int inference_init(inference *x, gemma4_error *error)
{
    const gemma4_config *c = &x->e->subject->model->config;
    size_t T = x->e->subject->T;
    bool ok = true;
    ok = (x->ranked = calloc(T * c->num_experts, sizeof *x->ranked)) && ok;
    ok = (x->tried = calloc(T * c->top_k_experts, sizeof *x->tried)) && ok;
    ok = (x->open = calloc(T, sizeof *x->open)) && ok;
    ok = (x->best = calloc(T, sizeof *x->best)) && ok;
    ok = (x->other = calloc(T, sizeof *x->other)) && ok;
    ok = (x->predicted = calloc(T * x->e->taps[x->witness].width, sizeof *x->predicted)) && ok;
    return ok ? 0 : gemma4_fail(error, "replay: out of memory");
}

static void inference_free(inference *x)
{
    free(x->ranked);
    free(x->tried);
    free(x->open);
    free(x->best);
    free(x->other);
    free(x->predicted);
}

/* Ranks every row, and finds the choices that are open; returns the largest number of other sets at
 * any of them. */
static size_t find_open(inference *x, int32_t *chosen)
{
    const gemma4_config *c = &x->e->subject->model->config;
    const gemma4_tap_evidence *witness = &x->e->taps[x->witness];
    size_t K = c->top_k_experts, E = c->num_experts, most = 0;
    for (size_t t = 0; t < x->e->subject->T; t++) {
        int32_t *ranked = x->ranked + t * E;
        rank_experts(ranked, x->e->taps[GEMMA4_TAP_ROUTER_LOGITS].values + t * E, E);
        memcpy(chosen + t * K, ranked, K * sizeof *ranked);
        if (x->e->have_ids[t] || !witness->have[t])
            continue;
        x->open[t] = find_alternatives(x->e, t, ranked);
        x->best[t] = row_error(witness, t, witness->expected);
        most = x->open[t].count > most ? x->open[t].count : most;
    }
    return most;
}

/* The row's i-th other set, as ids. */
static void write_set(const inference *x, size_t t, size_t i, int32_t *ids)
{
    const alternatives *a = &x->open[t];
    size_t n = 0;
    for (size_t rank = 0; rank < a->end; rank++)
        if (rank < a->first || (a->sets[i] >> (rank - a->first) & 1))
            ids[n++] = x->ranked[t * x->e->subject->model->config.num_experts + rank];
}

/* Runs the layer with the i-th other set of every open row, and keeps it in the rows that it fits
 * better. */
static int try_sets(inference *x, gemma4_runner *runner, size_t i, int32_t *chosen,
                    gemma4_error *error)
{
    size_t T = x->e->subject->T, K = x->e->subject->model->config.top_k_experts;
    const gemma4_planted nothing = {0};
    gemma4_counter_run run = {
        .planted = &nothing, .ids = x->tried, .stop = x->witness, .out = x->predicted};
    memcpy(x->tried, chosen, T * K * sizeof *chosen);
    for (size_t t = 0; t < T; t++)
        if (i < x->open[t].count)
            write_set(x, t, i, x->tried + t * K);
    if (gemma4_run_counter(x->e, runner, &run, error))
        return -1;
    for (size_t t = 0; t < T; t++) {
        double error_t =
            i < x->open[t].count ? row_error(&x->e->taps[x->witness], t, x->predicted) : INFINITY;
        if (error_t < x->best[t]) {
            x->best[t] = error_t;
            x->other[t] = true;
            memcpy(chosen + t * K, x->tried + t * K, K * sizeof *chosen);
        }
    }
    return 0;
}

int gemma4_routing_infer(const gemma4_evidence *e, gemma4_runner *runner, int32_t *chosen,
                         size_t *others, gemma4_error *error)
{
    inference x = {.e = e, .witness = witness_of(e)};
    *others = 0;
    if (x.witness == GEMMA4_TAP_COUNT)
        return 0;
    int status = inference_init(&x, error);
    size_t most = status ? 0 : find_open(&x, chosen);
    for (size_t i = 0; i < most && !status; i++)
        status = try_sets(&x, runner, i, chosen, error);
    for (size_t t = 0; t < e->subject->T && !status; t++)
        *others += x.other[t];
    inference_free(&x);
    return status;
}

/* ----------------------------------------------------------------- verdicts */

/* How many of the chosen experts are not among the K largest logits, and whether the engine may
 * have chosen so. Each expert that should have been chosen must be one that could leave for the
 * worst of those that were. */
static size_t swaps_of(const gemma4_evidence *e, size_t row, const int32_t *ids,
                       const int32_t *ranked, bool *allowed)
{
    size_t K = e->subject->model->config.top_k_experts, E = e->subject->model->config.num_experts,
           swaps = 0;
    const real *logits = e->taps[GEMMA4_TAP_ROUTER_LOGITS].values + row * E;
    int32_t best_other = -1, worst_chosen = -1;
    for (size_t rank = 0; rank < E; rank++) {
        bool chosen = false;
        for (size_t i = 0; i < K; i++)
            chosen = chosen || ids[i] == ranked[rank];
        if (chosen)
            worst_chosen = ranked[rank];
        else if (best_other < 0)
            best_other = ranked[rank];
        swaps += chosen && rank >= K;
    }
    bool short_of = swaps && logits[best_other] > logits[worst_chosen];
    *allowed = !short_of || may_exchange(e, row, best_other, worst_chosen);
    return short_of ? swaps : 0;
}

/* Does the choice at this row follow from values that are not finite? As far as the dump shows:
 * where it does not hold the row's logits, or they are not finite, and a tensor of the layer is not
 * finite there. */
static bool choice_is_lost(const gemma4_evidence *e, size_t row)
{
    for (int tap = 0; tap < GEMMA4_TAP_COUNT && !gemma4_logits_are_stored(e, row); tap++) {
        const gemma4_tap_evidence *t = &e->taps[tap];
        if (t->engine && t->stored_row[row] && !t->have[row] &&
            !gemma4_tap_in_id_order((gemma4_tap)tap))
            return true;
    }
    return false;
}

int gemma4_routing_judge(const gemma4_evidence *e, gemma4_routing_verdict *v, gemma4_error *error)
{
    const gemma4_config *c = &e->subject->model->config;
    size_t K = c->top_k_experts, E = c->num_experts;
    int32_t *ranked = malloc(E * sizeof *ranked);
    *v = (gemma4_routing_verdict){.counts.inferred = e->inferred};
    if (!ranked)
        return gemma4_fail(error, "routing: out of memory");
    for (size_t t = 0; t < e->subject->T; t++) {
        const real *logits = e->taps[GEMMA4_TAP_ROUTER_LOGITS].values + t * E;
        rank_experts(ranked, logits, E);
        v->counts.near_ties += K < E && (double)logits[ranked[K - 1]] - (double)logits[ranked[K]] <=
                                            gemma4_near_tie(e, t);
        if (!e->have_ids[t])
            continue;
        if (choice_is_lost(e, t)) {
            v->left_out++;
            continue;
        }
        v->counts.decisions++;
        bool allowed = e->have_valid_ids[t];
        if (allowed) {
            size_t swaps = swaps_of(e, t, e->engine_ids + t * K, ranked, &allowed);
            v->counts.swaps += swaps;
            v->counts.excused += swaps && allowed;
        }
        if (!allowed && v->counts.faults++ == 0)
            v->first_fault = t;
    }
    free(ranked);
    return 0;
}
