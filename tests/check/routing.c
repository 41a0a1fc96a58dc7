#include "routing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

static bool logits_are_stored(const gemma4_replay *r, size_t row)
{
    const gemma4_replayed_tap *t = &r->taps[GEMMA4_TAP_ROUTER_LOGITS];
    return t->engine && t->have[row];
}

/* --------------------------------------------------------------- inference */

/* The other sets that are tried: which ranks (counted from K) leave and enter. */
typedef struct expert_exchange {
    int leaves[2], enters[2]; /* -1, -2: the last and the one before it that were chosen; 0, 1: the first ones that were not; 9: none */
} expert_exchange;

static const expert_exchange exchanges[] = {
    {{-1, 9}, {0, 9}}, {{-1, 9}, {1, 9}}, {{-2, 9}, {0, 9}}, {{-2, 9}, {1, 9}}, {{-1, -2}, {0, 1}},
};
enum { EXCHANGES = sizeof exchanges / sizeof *exchanges, NONE = 9 };

/* Applies an exchange to a row's choice where every experts' difference is within the bound; false where it is not. */
static bool apply_exchange(const expert_exchange *x, int32_t *ids, const int32_t *ranked, const real *logits, double limit, size_t K, size_t E)
{
    for (int i = 0; i < 2; i++) {
        if (x->leaves[i] == NONE)
            continue;
        size_t leaves = (size_t)((int)K + x->leaves[i]), enters = K + (size_t)x->enters[i];
        if ((int)K + x->leaves[i] < 0 || enters >= E || !((double)logits[ranked[leaves]] - (double)logits[ranked[enters]] <= limit))
            return false;
        ids[leaves] = ranked[enters];
    }
    return true;
}

/* The first stored tap behind the router that tells experts apart; GEMMA4_TAP_COUNT where there is none. */
static gemma4_tap witness(const gemma4_replay *r)
{
    for (int tap = GEMMA4_TAP_MOE_OUT; tap <= GEMMA4_TAP_LAYER_OUTPUT; tap++)
        if (r->taps[tap].engine)
            return (gemma4_tap)tap;
    return GEMMA4_TAP_COUNT;
}

static double row_error(const gemma4_replayed_tap *t, size_t row, const real *predicted)
{
    double sum = 0;
    for (size_t i = row * t->width; i < (row + 1) * t->width; i++) {
        double e = (double)t->engine[i] - (double)predicted[i];
        sum += e * e;
    }
    return sum;
}

typedef struct inference {
    gemma4_tap witness;
    int32_t *ranked; /* [T, E] */
    int32_t *chosen, *tried; /* [T, K] in order of rank */
    bool *open;      /* [T] near-ties whose choice is not known */
    bool *fits;      /* [T] the tried set is within the bound */
    double *best;    /* [T] error of the best set */
    bool *other;     /* [T] the best set is not the reference's */
    real *predicted;
} inference;

static int inference_init(inference *x, const gemma4_replay *r, gemma4_error *error)
{
    const gemma4_config *c = &r->model->config;
    size_t T = r->T, K = c->top_k_experts, E = c->num_experts;
    bool ok = true;
    ok = (x->ranked = calloc(T * E, sizeof *x->ranked)) && ok;
    ok = (x->chosen = calloc(T * K, sizeof *x->chosen)) && ok;
    ok = (x->tried = calloc(T * K, sizeof *x->tried)) && ok;
    ok = (x->open = calloc(T, sizeof *x->open)) && ok;
    ok = (x->fits = calloc(T, sizeof *x->fits)) && ok;
    ok = (x->best = calloc(T, sizeof *x->best)) && ok;
    ok = (x->other = calloc(T, sizeof *x->other)) && ok;
    ok = (x->predicted = calloc(T * r->taps[x->witness].width, sizeof *x->predicted)) && ok;
    return ok ? 0 : gemma4_fail(error, "replay: out of memory");
}

static void inference_free(inference *x)
{
    free(x->ranked);
    free(x->chosen);
    free(x->tried);
    free(x->open);
    free(x->fits);
    free(x->best);
    free(x->other);
    free(x->predicted);
}

/* Ranks every row and finds the near-ties; returns how many are open. */
static size_t find_open(inference *x, const gemma4_replay *r)
{
    const gemma4_config *c = &r->model->config;
    const gemma4_replayed_tap *logits = &r->taps[GEMMA4_TAP_ROUTER_LOGITS];
    size_t K = c->top_k_experts, E = c->num_experts, open = 0;
    for (size_t t = 0; t < r->T; t++) {
        const real *row = logits->values + t * E;
        int32_t *ranked = x->ranked + t * E;
        rank_experts(ranked, row, E);
        memcpy(x->chosen + t * K, ranked, K * sizeof *ranked);
        bool near_tie = K < E && (double)row[ranked[K - 1]] - (double)row[ranked[K]] <= gemma4_replay_near_tie(r, t);
        x->open[t] = near_tie && !r->have_ids[t] && !logits_are_stored(r, t) && r->taps[x->witness].have[t];
        x->best[t] = row_error(&r->taps[x->witness], t, r->taps[x->witness].expected);
        open += x->open[t];
    }
    return open;
}

/* Runs the layer with one exchange in every open row, and keeps it in the rows that it fits better. */
static int try_exchange(inference *x, gemma4_replay *r, const expert_exchange *exchange, gemma4_error *error)
{
    const gemma4_config *c = &r->model->config;
    size_t K = c->top_k_experts, E = c->num_experts;
    for (size_t t = 0; t < r->T; t++) {
        memcpy(x->tried + t * K, x->ranked + t * E, K * sizeof *x->tried);
        x->fits[t] = x->open[t] && apply_exchange(exchange, x->tried + t * K, x->ranked + t * E,
                                                  r->taps[GEMMA4_TAP_ROUTER_LOGITS].values + t * E, gemma4_replay_near_tie(r, t), K, E);
        if (!x->fits[t])
            memcpy(x->tried + t * K, x->ranked + t * E, K * sizeof *x->tried);
    }
    memcpy(r->ids, x->tried, r->T * K * sizeof *r->ids);
    r->force_ids = true;
    if (gemma4_replay_counter_run(r, &(gemma4_planted){0}, x->witness, x->predicted, error))
        return -1;
    for (size_t t = 0; t < r->T; t++) {
        double error_t = x->fits[t] ? row_error(&r->taps[x->witness], t, x->predicted) : INFINITY;
        if (error_t < x->best[t]) {
            x->best[t] = error_t;
            x->other[t] = true;
            memcpy(x->chosen + t * K, x->tried + t * K, K * sizeof *x->chosen);
        }
    }
    return 0;
}

int gemma4_routing_infer(gemma4_replay *r, gemma4_routing *routing, gemma4_error *error)
{
    inference x = {.witness = witness(r)};
    size_t open = 0, others = 0;
    int status = 0;
    if (x.witness == GEMMA4_TAP_COUNT || (!r->input_known && r->block > 0))
        return 0;
    if (inference_init(&x, r, error))
        status = -1;
    else
        open = find_open(&x, r);
    for (size_t i = 0; i < EXCHANGES && open && !status; i++)
        status = try_exchange(&x, r, &exchanges[i], error);
    for (size_t t = 0; t < r->T && open && !status; t++)
        others += x.other[t];
    if (open && !status) {
        memcpy(r->ids, x.chosen, r->T * r->model->config.top_k_experts * sizeof *r->ids);
        r->force_ids = true;
        routing->inferred += others;
        status = others ? gemma4_replay_again(r, error) : 0;
    }
    inference_free(&x);
    return status;
}

/* ----------------------------------------------------------------- verdicts */

/* How far the smallest chosen logit may lie below the largest that was not chosen. */
static double allowance(const gemma4_replay *r, size_t row, const real *logits, size_t E)
{
    double largest = 0;
    if (!logits_are_stored(r, row))
        return gemma4_replay_near_tie(r, row);
    for (size_t i = 0; i < E; i++)
        largest = fmax(largest, fabs((double)logits[i]));
    /* Stored logits decide, but for ties that rounding makes: of the dataset, or of float32 probabilities. */
    const gemma4_tier *stored = gemma4_tier_of(r->taps[GEMMA4_TAP_ROUTER_LOGITS].stored->stored_dtype);
    double unit = stored && stored->unit > r->tier->unit ? stored->unit : 0x1p-23;
    return 2 * unit * largest;
}

/* How many of the chosen experts are not among the K largest logits, and by how much the worst of them falls short. */
static size_t swaps_of(const int32_t *ids, const int32_t *ranked, const real *logits, size_t K, size_t E, double *shortfall)
{
    size_t swaps = 0;
    double smallest_chosen = INFINITY, largest_other = -INFINITY;
    for (size_t rank = 0; rank < E; rank++) {
        bool chosen = false;
        for (size_t i = 0; i < K; i++)
            chosen = chosen || ids[i] == ranked[rank];
        double value = (double)logits[ranked[rank]];
        if (chosen)
            smallest_chosen = value;
        else if (largest_other == -INFINITY)
            largest_other = value;
        swaps += chosen && rank >= K;
    }
    *shortfall = fmax(0, largest_other - smallest_chosen);
    return *shortfall > 0 ? swaps : 0;
}

size_t gemma4_routing_judge(const gemma4_replay *r, gemma4_routing *routing)
{
    const gemma4_config *c = &r->model->config;
    size_t K = c->top_k_experts, E = c->num_experts, faults = 0;
    int32_t *ranked = malloc(E * sizeof *ranked);
    for (size_t t = 0; ranked && t < r->T; t++) {
        const real *logits = r->taps[GEMMA4_TAP_ROUTER_LOGITS].values + t * E;
        double shortfall;
        rank_experts(ranked, logits, E);
        routing->near_ties += K < E && (double)logits[ranked[K - 1]] - (double)logits[ranked[K]] <= gemma4_replay_near_tie(r, t);
        if (!r->have_ids[t])
            continue;
        routing->decisions++;
        bool fault = !r->have_valid_ids[t];
        if (!fault) {
            size_t swaps = swaps_of(r->engine_ids + t * K, ranked, logits, K, E, &shortfall);
            routing->swaps += swaps;
            fault = swaps && !(shortfall <= allowance(r, t, logits, E));
            routing->excused += swaps && !fault;
        }
        if (fault && faults++ == 0)
            routing->first_fault = t;
    }
    routing->faults += faults;
    free(ranked);
    return faults;
}
