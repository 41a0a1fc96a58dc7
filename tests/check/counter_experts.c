/* Counter-models: the dense MLP, the router and the experts. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "counter_changes.h"
#include "counter_internal.h"
#include "ops.h"
#include "remembered.h"

typedef gemma4_real real;

/* ------------------------------------------------------- what they share */

static double quick_gelu(double x)
{
    return x / (1 + exp(-1.702 * x));
}

double gemma4_function_at(const gemma4_setting *function, double x)
{
    switch ((gemma4_function)function->word) {
    case GEMMA4_FUNCTION_RELU: return fmax(x, 0);
    case GEMMA4_FUNCTION_RELU_SQUARED: return fmax(x, 0) * fmax(x, 0);
    case GEMMA4_FUNCTION_SILU: return x / (1 + exp(-x));
    case GEMMA4_FUNCTION_GELU_ERF: return 0.5 * x * (1 + erf(x * 0.70710678118654752440));
    case GEMMA4_FUNCTION_QUICK_GELU: return quick_gelu(x);
    case GEMMA4_FUNCTION_IDENTITY: return x;
    case GEMMA4_FUNCTION_TANH: return tanh(x);
    case GEMMA4_FUNCTION_SIGMOID: return 1 / (1 + exp(-x));
    case GEMMA4_FUNCTION_SOFTPLUS: return x > 30 ? x : log1p(exp(x));
    case GEMMA4_FUNCTION_ELU: return x > 0 ? x : expm1(x);
    case GEMMA4_FUNCTION_MISH: return x * tanh(x > 30 ? x : log1p(exp(x)));
    case GEMMA4_FUNCTION_LEAKY_RELU: return x > 0 ? x : function->number * x;
    case GEMMA4_FUNCTION_SIGMOID_GELU: return x / (1 + exp(-function->number * x));
    case GEMMA4_FUNCTION_GELU_CUBIC:
        return 0.5 * x * (1 + tanh(0.79788456080286535588 * (x + function->number * x * x * x)));
    case GEMMA4_FUNCTION_CLAMPED:
        return fmax(-function->number, fmin(function->number, gemma4_gelu_tanh(x)));
    default: return gemma4_gelu_tanh(fmax(-function->number, fmin(function->number, x)));
    }
}

/* The activation of gate, times up. */
static real activated(const counter *m, gemma4_activation_function act, real gate, real up)
{
    const gemma4_setting *other = counter_setting(m, GEMMA4_PARAMETER_ACTIVATION),
                         *operands = counter_setting(m, GEMMA4_PARAMETER_GATE_AND_UP);
    double x = (double)gate, y = (double)up;
    if (operands && operands->word == GEMMA4_UP_PLUS_ONE)
        y += 1;
    if (operands && operands->word == GEMMA4_UP_MISSING)
        y = 1;
    if (operands && operands->word == GEMMA4_GATE_MISSING)
        return (real)y;
    if (other)
        return (real)(gemma4_function_at(other, x) * y);
    switch (act) {
    case GEMMA4_GELU_ERF: return (real)(0.5 * x * (1 + erf(x * 0.70710678118654752440)) * y);
    case GEMMA4_SILU: return (real)(x / (1 + exp(-x)) * y);
    case GEMMA4_QUICK_GELU: return (real)(quick_gelu(x) * y);
    case GEMMA4_IDENTITY: return (real)(x * y);
    case GEMMA4_GPT_OSS: return (real)(quick_gelu(fmin(x, 7)) * (fmax(-7, fmin(y, 7)) + 1));
    default: return (real)(gemma4_gelu_tanh(x) * y);
    }
}

/* A tensor that comes before the tap at hand; NULL with the error's message filled otherwise. */
static const real *earlier(const counter *m, gemma4_tap tap)
{
    if (tap < m->tap)
        return counter_value(m, tap);
    gemma4_fail(m->error, "%s: cannot read %s, which comes later",
                gemma4_tap_describe(m->tap)->name, gemma4_tap_describe(tap)->name);
    return NULL;
}

/* A branch's norm: out is (T, d). */
static int branch_norm(const counter *m, gemma4_branch_input input, gemma4_norm norm, real *out)
{
    static const gemma4_tap taps[] = {
        [GEMMA4_FROM_RESIDUAL] = GEMMA4_TAP_ATTN_RESIDUAL,
        [GEMMA4_FROM_MLP_NORM] = GEMMA4_TAP_MLP_NORM,
        [GEMMA4_FROM_MOE_NORM] = GEMMA4_TAP_ATTN_RESIDUAL,
        [GEMMA4_FROM_MLP_OUT] = GEMMA4_TAP_MLP_OUT,
        [GEMMA4_FROM_MLP_POST_NORM] = GEMMA4_TAP_MLP_POST_NORM,
        [GEMMA4_FROM_LAYER_INPUT] = GEMMA4_TAP_LAYER_INPUT,
    };
    const real *x = earlier(m, taps[input]);
    if (!x)
        return -1;
    if (input != GEMMA4_FROM_MOE_NORM)
        return counter_norm(m, norm, x, 1, m->d, out);
    return counter_norm(m, GEMMA4_NORM_PRE_FFN_2, x, 1, m->d, out) ||
                   counter_norm(m, norm, out, 1, m->d, out)
               ? -1
               : 0;
}

/* --------------------------------------------------------------- dense MLP */

static int mlp_act(const counter *m, real *out)
{
    const gemma4_mlp_parameters *p = &m->p->mlp;
    const gemma4_setting *operands = counter_setting(m, GEMMA4_PARAMETER_GATE_AND_UP);
    bool swapped = p->swapped || (operands && operands->word == GEMMA4_GATE_AND_UP_EXCHANGED);
    const real *gate = counter_value(m, swapped ? GEMMA4_TAP_MLP_UP : GEMMA4_TAP_MLP_GATE);
    const real *up = counter_value(m, swapped ? GEMMA4_TAP_MLP_GATE : GEMMA4_TAP_MLP_UP);
    if (!gate || !up)
        return -1;
    for (size_t i = 0; i < m->T * m->c->intermediate_size; i++)
        out[i] = activated(m, p->act, gate[i], up[i]);
    return 0;
}

/* mlp.norm and mlp.act. */
int counter_mlp(const counter *m, real *out)
{
    return m->tap == GEMMA4_TAP_MLP_NORM ? branch_norm(m, m->p->mlp.input, GEMMA4_NORM_PRE_FFN, out)
                                         : mlp_act(m, out);
}

/* ------------------------------------------------------------------ router */

/* unit RMSNorm * router.scale * d^-0.5. */
static int router_norm(const counter *m, real *out)
{
    const gemma4_router_parameters *p = &m->p->router;
    double root = sqrt((double)m->d);
    double divisor = p->no_root      ? 1
                     : p->root_twice ? root * root
                     : p->root_bf16  ? 1 / counter_bf16(1 / root)
                                     : root;
    if (branch_norm(m, p->input, GEMMA4_NORM_ROUTER, out))
        return -1;
    for (size_t i = 0; i < m->T * m->d; i++) {
        double scale =
            p->no_scale_tensor ? 1 : (double)gemma4_weight_at(&m->w->router_scale, i % m->d);
        out[i] = (real)((double)out[i] * scale / divisor);
    }
    return 0;
}

static void softmax_rows(const counter *m, real *y, const real *x)
{
    for (size_t t = 0; t < m->T; t++)
        gemma4_softmax(y + t * m->c->num_experts, x + t * m->c->num_experts, m->c->num_experts);
}

/* out holds router.proj's output. */
static int router_logits(const counter *m, real *out)
{
    for (size_t i = 0; m->p->router.bf16_logits && i < m->T * m->c->num_experts; i++)
        out[i] = (real)counter_bf16((double)out[i]);
    if (m->p->router.logits_are_probs)
        softmax_rows(m, out, out);
    return 0;
}

static int router_probs(const counter *m, real *out)
{
    const real *logits = counter_value(m, GEMMA4_TAP_ROUTER_LOGITS);
    size_t n = m->T * m->c->num_experts;
    if (!logits)
        return -1;
    if (m->p->router.logits_are_probs)
        memcpy(out, logits, n * sizeof *out);
    else if (m->p->router.sigmoid)
        for (size_t i = 0; i < n; i++)
            out[i] = (real)(1 / (1 + exp(-(double)logits[i])));
    else
        softmax_rows(m, out, logits);
    return 0;
}

/* The best K / groups of each group of neighbours, best first. */
static void top_k_of_groups(int32_t *ids, size_t K, const real *row, size_t E, size_t groups)
{
    size_t size = E / groups, each = K / groups;
    for (size_t g = 0; g < groups; g++) {
        gemma4_top_k(ids + g * each, each, row + g * size, size);
        for (size_t r = 0; r < each; r++)
            ids[g * each + r] += (int32_t)(g * size);
    }
    for (size_t i = 1; i < K; i++) /* of equal ones the first, as in the groups */
        for (size_t r = i; r > 0 && row[ids[r]] > row[ids[r - 1]]; r--) {
            int32_t id = ids[r];
            ids[r] = ids[r - 1];
            ids[r - 1] = id;
        }
}

/* What one position's experts are chosen by: row is (E). */
static void choose_by(const counter *m, const gemma4_setting *other, const real *logits, real *row)
{
    size_t E = m->c->num_experts;
    bool smallest = m->p->router.ids_smallest || (other && other->word == GEMMA4_CHOICE_SMALLEST);
    memcpy(row, logits, E * sizeof *row);
    for (size_t e = 0; smallest && e < E; e++)
        row[e] = -row[e];
    for (size_t e = 0; other && other->word == GEMMA4_CHOICE_ROUNDED && e < E; e++)
        row[e] = (real)counter_bf16((double)row[e]);
    if (!other || other->word != GEMMA4_CHOICE_SCALED)
        return;
    gemma4_softmax(row, row, E);
    for (size_t e = 0; e < E; e++)
        row[e] =
            (real)((double)row[e] * (double)gemma4_weight_at(&m->w->router_per_expert_scale, e));
}

/* One position's choice: ids is (K), more is scratch for K + 1. */
static void choose(const counter *m, const gemma4_setting *other, const real *row, int32_t *more,
                   int32_t *ids)
{
    size_t E = m->c->num_experts, K = m->c->top_k_experts,
           groups = other && other->word == GEMMA4_CHOICE_GROUPS ? (size_t)other->number : 1;
    size_t skipped = other && other->word == GEMMA4_CHOICE_SKIPPED ? (size_t)other->number : K;
    long long shift = other && other->word == GEMMA4_CHOICE_SHIFTED ? (long long)other->number
                      : m->p->router.ids_shifted                    ? 1
                                                                    : 0;
    if (groups > 1 && K % groups == 0 && E % groups == 0) {
        top_k_of_groups(ids, K, row, E, groups);
    } else {
        gemma4_top_k(more, K + 1 < E ? K + 1 : K, row, E);
        for (size_t r = 0; r < K; r++)
            ids[r] = more[r >= skipped && K + 1 < E ? r + 1 : r];
    }
    for (size_t r = 0; r < K; r++)
        ids[r] =
            (int32_t)((((long long)ids[r] + shift) % (long long)E + (long long)E) % (long long)E);
}

/* router.topk_ids: the K experts with the largest logits, largest first. */
int counter_top_k(const counter *m, int32_t *ids)
{
    const gemma4_setting *other = counter_setting(m, GEMMA4_PARAMETER_CHOICE);
    size_t E = m->c->num_experts, K = m->c->top_k_experts;
    const real *logits = counter_value(m, GEMMA4_TAP_ROUTER_LOGITS);
    real *row = logits ? counter_memory(m, E, 1, sizeof *row) : NULL;
    int32_t *more = row ? counter_memory(m, K + 1, 1, sizeof *more) : NULL;
    for (size_t t = 0; more && t < m->T; t++) {
        choose_by(m, other, logits + t * E, row);
        choose(m, other, row, more, ids + t * K);
    }
    int status = more ? 0 : -1;
    free(row);
    free(more);
    return status;
}

/* The chosen experts, (T, K), each checked to be one. */
static const int32_t *chosen(const counter *m)
{
    const int32_t *ids = m->step->topk_ids;
    if (!ids) {
        gemma4_fail(m->error, "%s: cannot be computed without router.topk_ids",
                    gemma4_tap_describe(m->tap)->name);
        return NULL;
    }
    for (size_t i = 0; i < m->T * m->c->top_k_experts; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= m->c->num_experts) {
            gemma4_fail(m->error, "router.topk_ids: expected experts below %zu, found %d",
                        m->c->num_experts, ids[i]);
            return NULL;
        }
    return ids;
}

static double expert_scale(const counter *m, size_t expert)
{
    return (double)gemma4_weight_at(&m->w->router_per_expert_scale, expert);
}

/* Does per_expert_scale multiply the probabilities before they are divided by their sum? */
static bool is_scaled_first(const counter *m)
{
    const gemma4_setting *other = counter_setting(m, GEMMA4_PARAMETER_ROUTER_WEIGHTS);
    return m->p->router.expert_scale_before_normalising ||
           (other && other->word == GEMMA4_WEIGHTS_SCALED_FIRST);
}

/* A chosen expert's probability, as the normalisation reads it: it came with the choice, before ids
 * were shifted. */
static double chosen_prob(const counter *m, const real *probs, int32_t id)
{
    const gemma4_setting *choice = counter_setting(m, GEMMA4_PARAMETER_CHOICE);
    long long E = (long long)m->c->num_experts;
    long long shift = m->p->router.ids_shifted                          ? 1
                      : choice && choice->word == GEMMA4_CHOICE_SHIFTED ? (long long)choice->number
                                                                        : 0;
    size_t came_with = (size_t)((((long long)id - shift) % E + E) % E);
    const gemma4_setting *power = counter_setting(m, GEMMA4_PARAMETER_ROUTER_POWER);
    double prob = (double)probs[came_with] * (is_scaled_first(m) ? expert_scale(m, (size_t)id) : 1);
    return power ? pow(prob, power->number) : prob;
}

/* One position's probabilities of the chosen experts, divided by their sum: n and ids are (K),
 * probs is (E). */
static void normalise(const counter *m, const real *probs, const int32_t *ids, real *n)
{
    const gemma4_router_parameters *p = &m->p->router;
    const gemma4_setting *other = counter_setting(m, GEMMA4_PARAMETER_ROUTER_WEIGHTS),
                         *fewer = counter_setting(m, GEMMA4_PARAMETER_TOP_K);
    bool softmax = p->softmax_of_probs || (other && other->word == GEMMA4_WEIGHTS_SOFTMAX_P);
    bool uniform = p->weights_uniform || (other && other->word == GEMMA4_WEIGHTS_UNIFORM);
    bool raw =
        softmax || p->topk_not_renormalised ||
        (other && (other->word == GEMMA4_WEIGHTS_P || other->word == GEMMA4_WEIGHTS_SIGMOID_RAW));
    size_t K = m->c->top_k_experts, kept = 0; /* the first `kept` get a weight */
    long long last = fewer ? (long long)fewer->number : (long long)K + p->k_change;
    double sum = 0;
    for (; kept < K && (long long)kept < last; kept++)
        sum += chosen_prob(m, probs, ids[kept]);
    for (size_t r = 0; r < K; r++) {
        double prob = chosen_prob(m, probs, ids[r]);
        n[r] = (real)(r >= kept ? 0 : uniform ? 1.0 / (double)kept : raw ? prob : prob / sum);
    }
    if (softmax)
        gemma4_softmax(n, n, K);
}

static int topk_norm(const counter *m, real *out)
{
    const int32_t *ids = chosen(m);
    const real *probs = counter_value(m, GEMMA4_TAP_ROUTER_PROBS);
    size_t E = m->c->num_experts, K = m->c->top_k_experts;
    if (!ids || !probs)
        return -1;
    const gemma4_setting *other = counter_setting(m, GEMMA4_PARAMETER_ROUTER_WEIGHTS);
    bool sigmoid = other && (other->word == GEMMA4_WEIGHTS_SIGMOID ||
                             other->word == GEMMA4_WEIGHTS_SIGMOID_RAW);
    const real *logits = sigmoid ? counter_value(m, GEMMA4_TAP_ROUTER_LOGITS) : NULL;
    real *row = counter_memory(m, E, 1, sizeof *row);
    bool ok = row && (!sigmoid || logits);
    for (size_t t = 0; ok && t < m->T; t++) {
        for (size_t e = 0; e < E; e++)
            row[e] = sigmoid ? (real)(1 / (1 + exp(-(double)logits[t * E + e]))) : probs[t * E + e];
        normalise(m, row, ids + t * K, out + t * K);
    }
    free(row);
    return ok ? 0 : -1;
}

static int topk_weights(const counter *m, real *out)
{
    const gemma4_router_parameters *p = &m->p->router;
    const int32_t *ids = chosen(m);
    const real *norm = counter_value(m, GEMMA4_TAP_ROUTER_TOPK_NORM);
    const gemma4_setting *other = counter_setting(m, GEMMA4_PARAMETER_ROUTER_WEIGHTS);
    bool by_rank =
        p->expert_scale_by_rank || (other && other->word == GEMMA4_WEIGHTS_SCALED_BY_RANK);
    size_t K = m->c->top_k_experts;
    if (!ids || !norm)
        return -1;
    for (size_t i = 0; i < m->T * K; i++) {
        real scale = (real)expert_scale(m, by_rank ? i % K : (size_t)ids[i]);
        bool none = p->no_expert_scale || is_scaled_first(m);
        out[i] = none ? norm[i] : p->expert_scale_twice ? norm[i] * scale * scale : norm[i] * scale;
    }
    return 0;
}

/* router.norm, router.logits (out then holds router.proj's output), router.probs, router.topk_norm
 * and router.topk_weights. */
int counter_router(const counter *m, real *out)
{
    switch (m->tap) {
    case GEMMA4_TAP_ROUTER_NORM: return router_norm(m, out);
    case GEMMA4_TAP_ROUTER_LOGITS: return router_logits(m, out);
    case GEMMA4_TAP_ROUTER_PROBS: return router_probs(m, out);
    case GEMMA4_TAP_ROUTER_TOPK_NORM: return topk_norm(m, out);
    default: return topk_weights(m, out);
    }
}

/* ----------------------------------------------------------------- experts */

/* Row `row` of one expert's matrix, as floats. Transposed: the expert's block, which lies in memory
 * as [rows, cols], is read as [cols, rows]. */
static void expert_row(float *out, const gemma4_weight *stack, size_t expert, size_t rows,
                       size_t row, bool transposed)
{
    if (!transposed) {
        gemma4_weight_row(out, stack, expert * rows + row);
        return;
    }
    for (size_t i = 0; i < stack->cols; i++)
        out[i] = gemma4_weight_at(stack, expert * rows * stack->cols + i * rows + row);
}

/* The weights that expert `id` of the router gets. */
static size_t expert_of(const counter *m, int32_t id)
{
    return ((size_t)id + (m->p->expert.ids_shifted ? 1 : 0)) % m->c->num_experts;
}

/* The expert's activation of one position: act is (M), gate_up is (2M). */
static void act_row(const counter *m, const real *gate_up, real *act)
{
    const gemma4_expert_parameters *p = &m->p->expert;
    const gemma4_setting *operands = counter_setting(m, GEMMA4_PARAMETER_GATE_AND_UP);
    bool swapped = p->swapped || (operands && operands->word == GEMMA4_GATE_AND_UP_EXCHANGED);
    bool interleaved =
        p->interleaved || (operands && operands->word == GEMMA4_GATE_AND_UP_INTERLEAVED);
    size_t M = m->c->moe_intermediate_size;
    for (size_t i = 0; i < M; i++) {
        real first = gate_up[interleaved ? 2 * i : i],
             second = gate_up[interleaved ? 2 * i + 1 : M + i];
        real gate = swapped ? second : first, up = swapped ? first : second;
        act[i] = p->all_zero ? 0 : activated(m, p->act, gate, p->up_missing ? 1 : up);
    }
}

/* One expert on `rows` rows of x, (rows, d): gate_up is (rows, 2M), copy is scratch for the
 * expert's matrix, where it cannot be read as it lies. */
static int gate_and_up(const counter *m, size_t expert, const real *x, size_t rows, float *copy,
                       real *gate_up)
{
    const gemma4_weight *stack = &m->w->experts_gate_up_proj;
    size_t M2 = 2 * m->c->moe_intermediate_size, d = m->d;
    bool transposed = m->p->expert.gate_up_transposed,
         in_order = !m->p->expert.f16_accumulate && !counter_setting(m, GEMMA4_PARAMETER_SUM_TYPE);
    if (in_order && !transposed && stack->dtype != GEMMA4_QUANTISED) {
        const gemma4_weight view = gemma4_weight_rows(stack, expert * M2, M2);
        return counter_matmul(m, gate_up, x, &view, rows);
    }
    double *sums = counter_memory(m, rows, 1, sizeof *sums);
    for (size_t o = 0; o < M2 && sums; o++) {
        expert_row(copy, stack, expert, M2, o, transposed);
        counter_dots(m, sums, rows, x, d, copy, 0, d);
        for (size_t i = 0; i < rows; i++)
            gate_up[i * M2 + o] = (real)sums[i];
    }
    free(sums);
    return sums ? 0 : -1;
}

/* moe.act of all slots whose expert is `expert`: input is scratch for T * K rows of d, gate_up for
 * as many of 2M; slots for their numbers. */
static int expert_act(const counter *m, size_t expert, const int32_t *ids, const real *x,
                      const real *weights, size_t *slots, real *input, real *gate_up, float *copy,
                      real *out)
{
    size_t K = m->c->top_k_experts, M = m->c->moe_intermediate_size, d = m->d, count = 0;
    for (size_t i = 0; i < m->T * K; i++) {
        if (expert_of(m, ids[i]) != expert)
            continue;
        real *row = input + count * d;
        for (size_t j = 0; j < d; j++)
            row[j] = weights ? weights[i] * x[i / K * d + j] : x[i / K * d + j];
        slots[count++] = i;
    }
    if (count && gate_and_up(m, expert, input, count, copy, gate_up))
        return -1;
    for (size_t i = 0; i < count; i++)
        act_row(m, gate_up + i * 2 * M, out + slots[i] * M);
    return 0;
}

/* moe.act: gelu_tanh(gate) * up of each chosen expert, an expert after the other. */
static int moe_act(const counter *m, real *out)
{
    size_t K = m->c->top_k_experts, M = m->c->moe_intermediate_size, d = m->d;
    bool weighted = m->p->expert.weight_on_input;
    const int32_t *ids = chosen(m);
    const real *x = counter_value(m, GEMMA4_TAP_MOE_NORM);
    const real *weights = weighted ? counter_value(m, GEMMA4_TAP_ROUTER_TOPK_WEIGHTS) : NULL;
    if (!ids || !x || (weighted && !weights))
        return -1;
    size_t *slots = counter_memory(m, m->T, K, sizeof *slots);
    real *input = counter_memory(m, m->T * K, d, sizeof *input),
         *gate_up = counter_memory(m, m->T * K, 2 * M, sizeof *gate_up);
    float *copy = counter_memory(m, d, 1, sizeof *copy);
    int status = slots && input && gate_up && copy ? 0 : -1;
    for (size_t expert = 0; expert < m->c->num_experts && !status; expert++)
        status = expert_act(m, expert, ids, x, weights, slots, input, gate_up, copy, out);
    free(slots);
    free(input);
    free(gate_up);
    free(copy);
    return status;
}

/* What multiplies the output of the r-th of K experts. */
static double expert_weight(const gemma4_expert_parameters *p, double weight, size_t r, size_t K)
{
    if (p->all_zero || (p->last_dropped && r + 1 == K) || (p->first_only && r > 0))
        return 0;
    if (p->weights_ignored || p->weight_on_input)
        return 1;
    return p->weight_squared ? weight * weight : weight;
}

/* How many of M inputs down_proj reads. */
static size_t inputs_read(const gemma4_expert_parameters *p, size_t M)
{
    const size_t group = 128;
    return !p->tail_dropped ? M : M < group ? M - M / 4 : M - M % group;
}

/* weights, (T, K), after all that drops an expert: capacity counts the positions that an expert has
 * taken in a chunk. */
static void weigh(const counter *m, const int32_t *ids, size_t *taken, double *weights)
{
    const gemma4_expert_parameters *p = &m->p->expert;
    size_t E = m->c->num_experts, K = m->c->top_k_experts;
    for (size_t i = 0; i < m->T * K; i++) {
        counter_chunk chunk = counter_chunk_of(m, i / K);
        double capacity =
            ceil(p->capacity_factor * (double)(chunk.end - chunk.start) * (double)K / (double)E);
        if (i / K == chunk.start && i % K == 0)
            memset(taken, 0, E * sizeof *taken);
        bool full = p->capacity_factor > 0 && (double)taken[ids[i]]++ >= capacity;
        weights[i] = full ? 0 : expert_weight(p, weights[i], i % K, K);
    }
}

/* One position's moe.out: sum over the chosen experts of weight * down_proj[e] act. w_rows is
 * scratch for a row of each of them, (K, M), dots for as many products. */
static void sum_experts(const counter *m, const int32_t *ids, const double *weights,
                        const real *act, float *w_rows, double *dots, real *out)
{
    const gemma4_expert_parameters *p = &m->p->expert;
    const gemma4_setting *missing = counter_setting(m, GEMMA4_PARAMETER_EXPERTS_MISSING);
    size_t d = m->d, K = m->c->top_k_experts, M = m->c->moe_intermediate_size,
           n = inputs_read(p, M);
    for (size_t i = 0; i < d; i++) {
        double sum = 0;
        for (size_t r = 0; r < K; r++)
            expert_row(w_rows + r * M, &m->w->experts_down_proj, expert_of(m, ids[r]), d, i,
                       p->down_transposed);
        counter_dots(m, dots, K, act, M, w_rows, M, n);
        for (size_t r = 0; r < K; r++) {
            if (missing && ((uint64_t)missing->number >> r & 1))
                continue;
            sum += weights[r] * dots[r];
            sum = p->f16_accumulate ? counter_f16(sum) : sum;
        }
        out[i] = (real)sum;
    }
}

/* Is it the operator's sum, with other experts or weights that floats can hold? */
static bool is_plain_sum(const counter *m, const double *weights)
{
    const gemma4_expert_parameters *p = &m->p->expert;
    for (size_t i = 0; i < m->T * m->c->top_k_experts; i++)
        if ((double)(real)weights[i] != weights[i])
            return false;
    return !p->down_transposed && !p->tail_dropped && !p->f16_accumulate &&
           !counter_setting(m, GEMMA4_PARAMETER_SUM_TYPE) &&
           !counter_setting(m, GEMMA4_PARAMETER_EXPERTS_MISSING);
}

static int sum_plainly(const counter *m, const int32_t *ids, const double *weights, const real *act,
                       real *out)
{
    const gemma4_ops ops = gemma4_ops_remembering();
    size_t K = m->c->top_k_experts, slots = m->T * K, M = m->c->moe_intermediate_size;
    int32_t *experts = counter_memory(m, slots, 1, sizeof *experts);
    real *rounded = counter_memory(m, slots, 1, sizeof *rounded);
    float *scratch = counter_memory(m, ops.scratch(M, m->T, K), 1, sizeof *scratch);
    bool ok = experts && rounded && scratch;
    for (size_t i = 0; ok && i < slots; i++) {
        experts[i] = (int32_t)expert_of(m, ids[i]);
        rounded[i] = (real)weights[i];
    }
    if (ok)
        ops.experts_out(out, act, &m->w->experts_down_proj, experts, rounded, m->T, K, m->d,
                        scratch);
    free(experts);
    free(rounded);
    free(scratch);
    return ok ? 0 : -1;
}

static int moe_out(const counter *m, real *out)
{
    size_t K = m->c->top_k_experts, M = m->c->moe_intermediate_size;
    const int32_t *ids = chosen(m);
    const real *act = counter_value(m, GEMMA4_TAP_MOE_ACT),
               *given = counter_value(m, GEMMA4_TAP_ROUTER_TOPK_WEIGHTS);
    if (!ids || !act || !given)
        return -1;
    double *weights = counter_memory(m, m->T, K, sizeof *weights);
    size_t *taken = counter_memory(m, m->c->num_experts, 1, sizeof *taken);
    float *w_rows = counter_memory(m, K, M, sizeof *w_rows);
    double *dots = counter_memory(m, K, 1, sizeof *dots);
    bool ok = weights && taken && w_rows && dots;
    for (size_t i = 0; ok && i < m->T * K; i++)
        weights[i] = (double)given[i];
    if (ok)
        weigh(m, ids, taken, weights);
    bool quickly = ok && is_plain_sum(m, weights);
    if (quickly)
        ok = !sum_plainly(m, ids, weights, act, out);
    for (size_t t = 0; ok && !quickly && t < m->T; t++)
        sum_experts(m, ids + t * K, weights + t * K, act + t * K * M, w_rows, dots, out + t * m->d);
    free(weights);
    free(taken);
    free(w_rows);
    free(dots);
    return ok ? 0 : -1;
}

/* moe.norm, moe.act and moe.out. */
int counter_experts(const counter *m, real *out)
{
    switch (m->tap) {
    case GEMMA4_TAP_MOE_NORM: return branch_norm(m, m->p->expert.input, GEMMA4_NORM_PRE_FFN_2, out);
    case GEMMA4_TAP_MOE_ACT: return moe_act(m, out);
    default: return moe_out(m, out);
    }
}
