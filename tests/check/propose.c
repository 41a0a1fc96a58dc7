#include "propose.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "counter_changes.h"
#include "ops.h"
#include "rows.h"
#include "score.h"
#include "thresholds.h"

typedef gemma4_real real;

void gemma4_propose(gemma4_proposals *p, const gemma4_setting *setting)
{
    if (p->count == p->capacity) {
        size_t capacity = p->capacity ? 2 * p->capacity : 64;
        gemma4_setting *more = realloc(p->list, capacity * sizeof *more);
        if (!more) {
            p->failed = true;
            return;
        }
        p->list = more;
        p->capacity = capacity;
    }
    p->list[p->count++] = *setting;
}

void gemma4_propose_numbers(gemma4_proposals *p, gemma4_setting *setting, const double *numbers,
                            size_t count)
{
    for (size_t i = 0; i < count; i++) {
        setting->number = numbers[i];
        gemma4_propose(p, setting);
    }
}

void gemma4_proposals_free(gemma4_proposals *p)
{
    free(p->list);
    *p = (gemma4_proposals){.brief = p->brief};
}

/* ------------------------------------------------------------------- inputs */

/* What each step reads, in dataflow order; GEMMA4_TAP_COUNT where it reads less. */
static const struct {
    gemma4_tap step, inputs[3];
} reads[] = {
#define NOTHING GEMMA4_TAP_COUNT
    {GEMMA4_TAP_ATTN_NORM, {GEMMA4_TAP_LAYER_INPUT, NOTHING, NOTHING}},
    {GEMMA4_TAP_ATTN_Q, {GEMMA4_TAP_ATTN_NORM, NOTHING, NOTHING}},
    {GEMMA4_TAP_ATTN_K, {GEMMA4_TAP_ATTN_NORM, NOTHING, NOTHING}},
    {GEMMA4_TAP_ATTN_V, {GEMMA4_TAP_ATTN_NORM, NOTHING, NOTHING}},
    {GEMMA4_TAP_ATTN_Q_NORM, {GEMMA4_TAP_ATTN_Q, NOTHING, NOTHING}},
    {GEMMA4_TAP_ATTN_K_NORM, {GEMMA4_TAP_ATTN_K, NOTHING, NOTHING}},
    {GEMMA4_TAP_ATTN_V_NORM, {GEMMA4_TAP_ATTN_V, NOTHING, NOTHING}},
    {GEMMA4_TAP_ATTN_Q_ROPE, {GEMMA4_TAP_ATTN_Q_NORM, NOTHING, NOTHING}},
    {GEMMA4_TAP_ATTN_K_ROPE, {GEMMA4_TAP_ATTN_K_NORM, NOTHING, NOTHING}},
    {GEMMA4_TAP_ATTN_SCORES, {GEMMA4_TAP_ATTN_Q_ROPE, GEMMA4_TAP_ATTN_K_ROPE, NOTHING}},
    {GEMMA4_TAP_ATTN_PROBS, {GEMMA4_TAP_ATTN_Q_ROPE, GEMMA4_TAP_ATTN_K_ROPE, NOTHING}},
    {GEMMA4_TAP_ATTN_CONTEXT,
     {GEMMA4_TAP_ATTN_Q_ROPE, GEMMA4_TAP_ATTN_K_ROPE, GEMMA4_TAP_ATTN_V_NORM}},
    {GEMMA4_TAP_ATTN_OUT, {GEMMA4_TAP_ATTN_CONTEXT, NOTHING, NOTHING}},
    {GEMMA4_TAP_ATTN_POST_NORM, {GEMMA4_TAP_ATTN_OUT, NOTHING, NOTHING}},
    {GEMMA4_TAP_ATTN_RESIDUAL, {GEMMA4_TAP_LAYER_INPUT, GEMMA4_TAP_ATTN_POST_NORM, NOTHING}},
    {GEMMA4_TAP_MLP_NORM, {GEMMA4_TAP_ATTN_RESIDUAL, NOTHING, NOTHING}},
    {GEMMA4_TAP_MLP_GATE, {GEMMA4_TAP_MLP_NORM, NOTHING, NOTHING}},
    {GEMMA4_TAP_MLP_UP, {GEMMA4_TAP_MLP_NORM, NOTHING, NOTHING}},
    {GEMMA4_TAP_MLP_ACT, {GEMMA4_TAP_MLP_GATE, GEMMA4_TAP_MLP_UP, NOTHING}},
    {GEMMA4_TAP_MLP_OUT, {GEMMA4_TAP_MLP_ACT, NOTHING, NOTHING}},
    {GEMMA4_TAP_MLP_POST_NORM, {GEMMA4_TAP_MLP_OUT, NOTHING, NOTHING}},
    {GEMMA4_TAP_ROUTER_NORM, {GEMMA4_TAP_ATTN_RESIDUAL, NOTHING, NOTHING}},
    {GEMMA4_TAP_ROUTER_LOGITS, {GEMMA4_TAP_ROUTER_NORM, NOTHING, NOTHING}},
    {GEMMA4_TAP_ROUTER_PROBS, {GEMMA4_TAP_ROUTER_LOGITS, NOTHING, NOTHING}},
    {GEMMA4_TAP_ROUTER_TOPK_IDS, {GEMMA4_TAP_ROUTER_LOGITS, NOTHING, NOTHING}},
    {GEMMA4_TAP_ROUTER_TOPK_NORM, {GEMMA4_TAP_ROUTER_PROBS, NOTHING, NOTHING}},
    {GEMMA4_TAP_ROUTER_TOPK_WEIGHTS, {GEMMA4_TAP_ROUTER_TOPK_NORM, NOTHING, NOTHING}},
    {GEMMA4_TAP_MOE_NORM, {GEMMA4_TAP_ATTN_RESIDUAL, NOTHING, NOTHING}},
    {GEMMA4_TAP_MOE_ACT, {GEMMA4_TAP_MOE_NORM, NOTHING, NOTHING}},
    {GEMMA4_TAP_MOE_OUT, {GEMMA4_TAP_ROUTER_TOPK_WEIGHTS, GEMMA4_TAP_MOE_ACT, NOTHING}},
    {GEMMA4_TAP_MOE_POST_NORM, {GEMMA4_TAP_MOE_OUT, NOTHING, NOTHING}},
    {GEMMA4_TAP_FFN_SUM, {GEMMA4_TAP_MLP_POST_NORM, GEMMA4_TAP_MOE_POST_NORM, NOTHING}},
    {GEMMA4_TAP_FFN_POST_NORM, {GEMMA4_TAP_FFN_SUM, NOTHING, NOTHING}},
    {GEMMA4_TAP_FFN_RESIDUAL, {GEMMA4_TAP_ATTN_RESIDUAL, GEMMA4_TAP_FFN_POST_NORM, NOTHING}},
    {GEMMA4_TAP_LAYER_OUTPUT, {GEMMA4_TAP_FFN_RESIDUAL, NOTHING, NOTHING}},
    {GEMMA4_TAP_FINAL_NORM, {GEMMA4_TAP_LAYER_OUTPUT, NOTHING, NOTHING}},
    {GEMMA4_TAP_LOGITS_RAW, {GEMMA4_TAP_FINAL_NORM, NOTHING, NOTHING}},
    {GEMMA4_TAP_LOGITS, {GEMMA4_TAP_LOGITS_RAW, NOTHING, NOTHING}},
#undef NOTHING
};

const gemma4_tap *gemma4_step_inputs(gemma4_tap step)
{
    for (size_t i = 0; i < sizeof reads / sizeof *reads; i++)
        if (reads[i].step == step)
            return reads[i].inputs;
    return NULL;
}

/* The norms of a layer, and those of its heads. */
static const uint64_t norms_of_heads = GEMMA4_STEP(GEMMA4_TAP_ATTN_Q_NORM) |
                                       GEMMA4_STEP(GEMMA4_TAP_ATTN_K_NORM) |
                                       GEMMA4_STEP(GEMMA4_TAP_ATTN_V_NORM);
static const uint64_t norms_of_layer =
    GEMMA4_STEP(GEMMA4_TAP_ATTN_NORM) | GEMMA4_STEP(GEMMA4_TAP_ATTN_Q_NORM) |
    GEMMA4_STEP(GEMMA4_TAP_ATTN_K_NORM) | GEMMA4_STEP(GEMMA4_TAP_ATTN_V_NORM) |
    GEMMA4_STEP(GEMMA4_TAP_ATTN_POST_NORM) | GEMMA4_STEP(GEMMA4_TAP_MLP_NORM) |
    GEMMA4_STEP(GEMMA4_TAP_MLP_POST_NORM) | GEMMA4_STEP(GEMMA4_TAP_ROUTER_NORM) |
    GEMMA4_STEP(GEMMA4_TAP_MOE_NORM) | GEMMA4_STEP(GEMMA4_TAP_MOE_POST_NORM) |
    GEMMA4_STEP(GEMMA4_TAP_FFN_POST_NORM);

static bool is_norm(gemma4_tap tap)
{
    return (norms_of_layer | GEMMA4_STEP(GEMMA4_TAP_FINAL_NORM)) & GEMMA4_STEP(tap);
}

static bool reads_input(gemma4_tap step, gemma4_tap tap)
{
    const gemma4_tap *inputs = gemma4_step_inputs(step);
    for (size_t i = 0; inputs && i < 3; i++)
        if (inputs[i] == tap)
            return true;
    return false;
}

static size_t width_of(const gemma4_config *c, gemma4_tap tap, size_t layer, size_t T)
{
    return gemma4_axis_of_values(c, tap, layer, T).values;
}

/* Another tensor, that is there before the step, in the place of each input. */
static void propose_inputs(gemma4_proposals *p, const gemma4_config *c, size_t layer,
                           gemma4_tap step)
{
    const gemma4_tap *inputs = gemma4_step_inputs(step);
    for (size_t i = 0; inputs && i < 3 && inputs[i] != GEMMA4_TAP_COUNT; i++) {
        gemma4_setting s = {.steps = GEMMA4_STEP(step), .input = inputs[i]};
        size_t width = width_of(c, inputs[i], layer, 1);
        s.parameter = GEMMA4_PARAMETER_STEP_INPUT;
        for (int other = GEMMA4_TAP_LAYER_INPUT;
             gemma4_tap_describe(step)->per_layer && other < (int)step; other++) {
            s.tensor = (gemma4_tap)other;
            if (!reads_input(step, s.tensor) && !gemma4_tap_is_keys(s.tensor) &&
                other != GEMMA4_TAP_ROUTER_TOPK_IDS && gemma4_tap_exists(c, s.tensor, layer) &&
                width_of(c, s.tensor, layer, 1) == width)
                gemma4_propose(p, &s);
        }
        s.tensor = inputs[i];
        s.parameter = GEMMA4_PARAMETER_INPUT_POSITIONS;
        for (int away = p->brief ? 1 : 2; away >= 1; away--) {
            s.number = -away;
            gemma4_propose(p, &s);
            s.number = away;
            gemma4_propose(p, &s);
        }
        s.parameter = GEMMA4_PARAMETER_INPUT_ROUNDED;
        s.number = 0;
        /* much like the result of the step before */
        for (s.word = 0; !p->brief && s.word < GEMMA4_TYPE_COUNT; s.word++)
            gemma4_propose(p, &s);
    }
}

/* ------------------------------------------------------------------- orders */

/* Every order of an axis of which the first fields are filled. */
void gemma4_propose_orders(gemma4_proposals *p, gemma4_setting s, gemma4_axis axis)
{
    for (int unit = GEMMA4_LANES; unit <= GEMMA4_HALVES_OF_GROUP; unit++) {
        bool of_groups = unit >= GEMMA4_GROUPS,
             halves = unit == GEMMA4_HALVES || unit == GEMMA4_HALVES_OF_GROUP;
        size_t inner = axis.values / axis.groups;
        size_t count = halves                  ? 2
                       : unit == GEMMA4_GROUPS ? axis.groups
                       : unit == GEMMA4_LANES  ? axis.values
                                               : inner;
        if ((of_groups && axis.groups < 2) ||
            (unit == GEMMA4_LANES && axis.groups == axis.values) || count < 2 ||
            (halves && (unit == GEMMA4_HALVES ? axis.values : inner) < 4))
            continue;
        s.unit = (gemma4_unit)unit;
        s.number = 0;
        for (int order = GEMMA4_REVERSED; order < GEMMA4_PERMUTED; order++) {
            bool one_lane = !halves && unit != GEMMA4_GROUPS;
            if ((one_lane && (order == GEMMA4_INTERLEAVED || order == GEMMA4_DEINTERLEAVED)) ||
                (order == GEMMA4_EXCHANGED && halves) ||
                ((order == GEMMA4_WOVEN || order == GEMMA4_UNWOVEN) &&
                 (unit != GEMMA4_GROUPS || count < 4 || count % 2)) ||
                (one_lane && p->brief && order != GEMMA4_REVERSED && order != GEMMA4_ROLLED &&
                 order != GEMMA4_EXCHANGED) ||
                (order == GEMMA4_ROLLED && count == 2) ||
                (unit == GEMMA4_GROUPS && count == axis.values && order >= GEMMA4_INTERLEAVED))
                continue;
            s.word = order;
            s.number = 0;
            if (order != GEMMA4_ROLLED)
                gemma4_propose(p, &s);
            size_t furthest = p->brief && (one_lane || count > 32) ? 1 : count / 2;
            for (size_t n = 1; order == GEMMA4_ROLLED && n <= furthest;
                 n = n < 8 || (unit == GEMMA4_GROUPS && count <= 32) ? n + 1 : 2 * n) {
                s.number = (double)n;
                gemma4_propose(p, &s);
                s.number = -(double)n;
                if (2 * n != count)
                    gemma4_propose(p, &s);
            }
        }
    }
}

/* ------------------------------------------------------------------ results */

static void propose_result(gemma4_proposals *p, const gemma4_config *c, size_t layer,
                           gemma4_tap step, size_t T)
{
    gemma4_setting s = {.steps = GEMMA4_STEP(step), .number = 1};
    if (step == GEMMA4_TAP_ROUTER_TOPK_IDS)
        return;
    static const double factors[] = {0.5, 2, -1};
    s.parameter = GEMMA4_PARAMETER_RESULT_FACTOR;
    gemma4_propose_numbers(p, &s, factors, sizeof factors / sizeof *factors);
    s.parameter = GEMMA4_PARAMETER_RESULT_FACTORS;
    gemma4_axis axis = gemma4_axis_of_values(c, step, layer, T);
    bool lanes = axis.values <= 16 || (step == GEMMA4_TAP_MOE_NORM && !p->brief);
    s.count = axis.groups > 1 ? axis.groups : lanes ? axis.values : 1;
    for (size_t k = 0; k < s.count && k < GEMMA4_LIST; k++)
        s.list[k] = k % 2 ? 0.75 : 1.25;
    if (s.count > 1 && s.count <= GEMMA4_LIST && !gemma4_tap_is_keys(step))
        gemma4_propose(p, &s);
    s.count = 0;
    s.parameter = GEMMA4_PARAMETER_RESULT_ROUNDED;
    s.number = 0;
    for (s.word = 0; s.word < GEMMA4_TYPE_COUNT; s.word++)
        gemma4_propose(p, &s);
    s.parameter = GEMMA4_PARAMETER_RESULT_ORDER;
    /* rows of a matrix in another order do the same */
    bool by_weights = gemma4_step_weight(step) != SIZE_MAX && p->brief;
    if (!gemma4_tap_is_keys(step) && step < GEMMA4_TAP_FINAL_NORM && !by_weights)
        gemma4_propose_orders(p, s, gemma4_axis_of_values(c, step, layer, T));
}

static void propose_norm(gemma4_proposals *p, const gemma4_config *c, gemma4_tap step)
{
    gemma4_setting s = {.steps = GEMMA4_STEP(step)};
    for (double eps = 1e-9; eps < 2; eps *= 10) {
        s.parameter = GEMMA4_PARAMETER_EPS;
        s.number = eps;
        if (fabs(eps / c->rms_norm_eps - 1) > 0.5)
            gemma4_propose(p, &s);
    }
    s.number = 0;
    s.parameter = GEMMA4_PARAMETER_NORM_MEAN;
    gemma4_propose(p, &s);
    s.parameter = GEMMA4_PARAMETER_NORM_AXIS;
    if (step == GEMMA4_TAP_ATTN_Q_NORM || step == GEMMA4_TAP_ATTN_K_NORM ||
        step == GEMMA4_TAP_ATTN_V_NORM)
        gemma4_propose(p, &s);
}

static void propose_softcap(gemma4_proposals *p)
{
    gemma4_setting s = {.parameter = GEMMA4_PARAMETER_FINAL_SOFTCAP,
                        .steps = GEMMA4_STEP(GEMMA4_TAP_LOGITS)};
    for (double cap = 1; cap < 300; cap *= 2) {
        s.number = cap;
        gemma4_propose(p, &s);
    }
    s.number = INFINITY;
    gemma4_propose(p, &s);
}

static void propose_residual(gemma4_proposals *p, gemma4_tap step)
{
    if (step != GEMMA4_TAP_ATTN_RESIDUAL && step != GEMMA4_TAP_FFN_SUM &&
        step != GEMMA4_TAP_FFN_RESIDUAL)
        return;
    static const double factors[][2] = {{1, 0}, {0, 1},  {0.5, 0.5}, {2, 1},
                                        {1, 2}, {1, -1}, {1, 0.5},   {0.5, 1}};
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++) {
        gemma4_setting s = {.parameter = GEMMA4_PARAMETER_RESIDUAL,
                            .steps = GEMMA4_STEP(step),
                            .count = 2,
                            .list = {factors[i][0], factors[i][1]}};
        gemma4_propose(p, &s);
    }
}

void gemma4_propose_for_step(gemma4_proposals *p, const gemma4_evidence *e, size_t layer,
                             gemma4_tap step)
{
    const gemma4_config *c = &e->subject->model->config;
    if (is_norm(step))
        propose_norm(p, c, step);
    gemma4_propose_rope(p, e, layer, step);
    gemma4_propose_attention(p, e, layer, step);
    gemma4_propose_experts(p, e, step);
    if (step == GEMMA4_TAP_LOGITS)
        propose_softcap(p);
    propose_residual(p, step);
    gemma4_propose_weights(p, e, layer, step);
    propose_inputs(p, c, layer, step);
    propose_result(p, c, layer, step, e->subject->T);
}

/* Proposals of a step for several at once, all of one parameter. */
static void propose_at(gemma4_proposals *p, const gemma4_proposals *from, gemma4_parameter first,
                       gemma4_parameter last, uint64_t steps)
{
    for (size_t i = 0; i < from->count; i++) {
        gemma4_setting s = from->list[i];
        s.steps = steps;
        if (s.parameter >= first && s.parameter <= last)
            gemma4_propose(p, &s);
    }
}

void gemma4_propose_for_all_norms(gemma4_proposals *p, const gemma4_evidence *e)
{
    const uint64_t all = norms_of_layer | GEMMA4_STEP(GEMMA4_TAP_FINAL_NORM);
    gemma4_proposals of_norm = {.brief = p->brief};
    propose_norm(&of_norm, &e->subject->model->config, GEMMA4_TAP_ATTN_NORM);
    gemma4_propose_weights(&of_norm, e, 0, GEMMA4_TAP_ATTN_NORM);
    propose_at(p, &of_norm, GEMMA4_PARAMETER_EPS, GEMMA4_PARAMETER_NORM_MEAN, all);
    propose_at(p, &of_norm, GEMMA4_PARAMETER_WEIGHT_FORM, GEMMA4_PARAMETER_WEIGHT_FORM,
               all & ~GEMMA4_STEP(GEMMA4_TAP_ROUTER_NORM));
    p->failed = p->failed || of_norm.failed;
    gemma4_proposals_free(&of_norm);
}

void gemma4_propose_shared(gemma4_proposals *p, const gemma4_evidence *e)
{
    const gemma4_config *c = &e->subject->model->config;
    const uint64_t q_and_k =
        GEMMA4_STEP(GEMMA4_TAP_ATTN_Q_NORM) | GEMMA4_STEP(GEMMA4_TAP_ATTN_K_NORM);
    gemma4_proposals of_norm = {0}, of_act = {0}, of_experts = {0};
    propose_norm(&of_norm, c, GEMMA4_TAP_ATTN_Q_NORM);
    gemma4_propose_weights(&of_norm, e, 0, GEMMA4_TAP_ATTN_NORM);
    propose_at(p, &of_norm, GEMMA4_PARAMETER_EPS, GEMMA4_PARAMETER_NORM_MEAN, norms_of_layer);
    propose_at(p, &of_norm, GEMMA4_PARAMETER_EPS, GEMMA4_PARAMETER_NORM_AXIS, norms_of_heads);
    propose_at(p, &of_norm, GEMMA4_PARAMETER_WEIGHT_FORM, GEMMA4_PARAMETER_WEIGHT_LAYER,
               norms_of_layer & ~GEMMA4_STEP(GEMMA4_TAP_ROUTER_NORM));
    propose_at(p, &of_norm, GEMMA4_PARAMETER_WEIGHT_FORM, GEMMA4_PARAMETER_WEIGHT_FORM, q_and_k);
    propose_at(p, &of_norm, GEMMA4_PARAMETER_NORM_AXIS, GEMMA4_PARAMETER_NORM_AXIS, q_and_k);
    gemma4_propose_experts(&of_act, e, GEMMA4_TAP_MLP_ACT);
    propose_at(p, &of_act, GEMMA4_PARAMETER_ACTIVATION, GEMMA4_PARAMETER_GATE_AND_UP,
               GEMMA4_STEP(GEMMA4_TAP_MLP_ACT) | GEMMA4_STEP(GEMMA4_TAP_MOE_ACT));
    if (c->num_experts)
        gemma4_propose_weights(&of_experts, e, 0, GEMMA4_TAP_MOE_OUT);
    for (size_t i = 0; i < of_experts.count; i++) {
        gemma4_setting s = of_experts.list[i];
        bool of_stack = s.unit == GEMMA4_GROUPS && !s.columns &&
                        (s.parameter == GEMMA4_PARAMETER_WEIGHTS_ORDER ||
                         s.parameter == GEMMA4_PARAMETER_WEIGHT_ZERO);
        s.steps = GEMMA4_STEP(GEMMA4_TAP_MOE_ACT) | GEMMA4_STEP(GEMMA4_TAP_MOE_OUT);
        if (of_stack || s.parameter == GEMMA4_PARAMETER_WEIGHT_LAYER || s.word == GEMMA4_TRANSPOSED)
            gemma4_propose(p, &s);
    }
    p->failed = p->failed || of_norm.failed || of_act.failed || of_experts.failed;
    gemma4_proposals_free(&of_norm);
    gemma4_proposals_free(&of_act);
    gemma4_proposals_free(&of_experts);
}

/* ---------------------------------------------------------- from what is there */

/* Does the row tell of the mistake? */
static bool tells(const gemma4_proposals *p, const gemma4_evidence *e, gemma4_tap tap, size_t row)
{
    const gemma4_against every = {0};
    return gemma4_in_scope(&e->subject->schedule, p->scope, row) &&
           gemma4_row_counts(e, tap, &every, row);
}

/* The best factor on each of `count` equal parts of the row. False where a part is zero. */
static bool solve_factors(const gemma4_proposals *p, const gemma4_evidence *e, gemma4_tap tap,
                          size_t count, double *list)
{
    const gemma4_tap_evidence *t = &e->taps[tap];
    size_t length = t->width / count;
    for (size_t k = 0; k < count; k++) {
        double xy = 0, xx = 0;
        for (size_t row = 0; row < e->subject->T; row++)
            for (size_t i = k * length; tells(p, e, tap, row) && i < (k + 1) * length; i++) {
                double x = (double)t->expected[row * t->width + i],
                       w = 1 / (t->sigma[row] * t->sigma[row] + 1e-300);
                xx += w * x * x;
                xy += w * x * (double)t->engine[row * t->width + i];
            }
        if (!(xx > 0))
            return false;
        list[k] = xy / xx;
    }
    return true;
}

/* A number for each head, expert, rank or, where there are rows to confirm them, lane. */
static void propose_factors(gemma4_proposals *p, const gemma4_evidence *e, gemma4_tap tap)
{
    gemma4_axis axis =
        gemma4_axis_of_values(&e->subject->model->config, tap, e->layer, e->subject->T);
    gemma4_setting s = {.parameter = GEMMA4_PARAMETER_RESULT_FACTORS, .steps = GEMMA4_STEP(tap)};
    size_t counts[2] = {axis.groups, e->subject->T >= 4 ? axis.values : 1};
    for (size_t i = 0; i < 2; i++) {
        s.count = counts[i];
        if (s.count > 1 && s.count <= GEMMA4_LIST && axis.values % s.count == 0 &&
            !gemma4_tap_is_keys(tap) && solve_factors(p, e, tap, s.count, s.list))
            gemma4_propose(p, &s);
    }
}

/* Two factors of a sum of two tensors. */
static void propose_two_factors(gemma4_proposals *p, const gemma4_evidence *e, gemma4_tap tap)
{
    const gemma4_tap *inputs = gemma4_step_inputs(tap);
    const gemma4_tap_evidence *t = &e->taps[tap];
    if (tap != GEMMA4_TAP_ATTN_RESIDUAL && tap != GEMMA4_TAP_FFN_SUM &&
        tap != GEMMA4_TAP_FFN_RESIDUAL)
        return;
    const real *x = e->taps[inputs[0]].values, *y = e->taps[inputs[1]].values;
    double xx = 0, xy = 0, yy = 0, xz = 0, yz = 0;
    for (size_t row = 0; x && y && row < e->subject->T; row++)
        for (size_t i = row * t->width; tells(p, e, tap, row) && i < (row + 1) * t->width; i++) {
            double a = (double)x[i], b = (double)y[i], z = (double)t->engine[i],
                   w = 1 / (t->sigma[row] * t->sigma[row] + 1e-300);
            xx += w * a * a;
            xy += w * a * b;
            yy += w * b * b;
            xz += w * a * z;
            yz += w * b * z;
        }
    double determinant = xx * yy - xy * xy;
    if (!(determinant > 1e-9 * xx * yy))
        return;
    gemma4_setting s = {
        .parameter = GEMMA4_PARAMETER_RESIDUAL, .steps = GEMMA4_STEP(tap), .count = 2};
    s.list[0] = (xz * yy - yz * xy) / determinant;
    s.list[1] = (yz * xx - xz * xy) / determinant;
    gemma4_propose(p, &s);
}

static void propose_clamp(gemma4_proposals *p, const gemma4_evidence *e, gemma4_tap tap)
{
    const gemma4_tap_evidence *t = &e->taps[tap];
    gemma4_setting s = {.parameter = GEMMA4_PARAMETER_RESULT_CLAMPED, .steps = GEMMA4_STEP(tap)};
    double due = 0;
    for (size_t row = 0; row < e->subject->T; row++)
        for (size_t i = row * t->width; tells(p, e, tap, row) && i < (row + 1) * t->width; i++) {
            s.number = fmax(s.number, fabs((double)t->engine[i]));
            due = fmax(due, fabs((double)t->expected[i]));
        }
    if (s.number > 0 && s.number < due)
        gemma4_propose(p, &s);
}

/* One range of lanes that the engine has at 0 in every row. */
static void propose_zeros(gemma4_proposals *p, const gemma4_evidence *e, gemma4_tap tap)
{
    const gemma4_tap_evidence *t = &e->taps[tap];
    gemma4_setting s = {.parameter = GEMMA4_PARAMETER_RESULT_ZERO, .steps = GEMMA4_STEP(tap)};
    for (size_t i = 0; i < t->width; i++) {
        bool zero = true;
        for (size_t row = 0; row < e->subject->T; row++)
            zero = zero && (!tells(p, e, tap, row) || t->engine[row * t->width + i] == 0);
        if (zero && s.end == 0)
            s.first = i;
        if (zero)
            s.end = i + 1;
        else if (s.end)
            break;
    }
    if (s.end)
        gemma4_propose(p, &s);
}

/* How far part `i` of what the engine has is from part `k` of what was expected, in spreads. */
static double distance(const gemma4_proposals *p, const gemma4_evidence *e, gemma4_tap tap,
                       size_t length, size_t i, size_t k)
{
    const gemma4_tap_evidence *t = &e->taps[tap];
    double sum = 0;
    for (size_t row = 0; row < e->subject->T; row++)
        for (size_t n = 0; tells(p, e, tap, row) && n < length; n++) {
            double difference = ((double)t->engine[row * t->width + i * length + n] -
                                 (double)t->expected[row * t->width + k * length + n]) /
                                t->sigma[row];
            sum += difference * difference;
        }
    return sum;
}

/* The permutation of `count` blocks as a roll, where that is what it is: of the result, and of the
 * rows that make it. */
static void propose_roll(gemma4_proposals *p, gemma4_tap tap, gemma4_setting s, size_t count)
{
    size_t by = s.count == 2 * count ? ((size_t)s.list[1] + count - (size_t)s.list[0]) % count : 0;
    for (size_t i = 0; i + 1 < s.count; i += 2)
        if (((size_t)s.list[i] + by) % count != (size_t)s.list[i + 1])
            return;
    if (by == 0)
        return;
    s.word = GEMMA4_ROLLED;
    s.count = 0;
    s.number = by <= count / 2 ? (double)by : (double)by - (double)count;
    gemma4_propose(p, &s);
    s.parameter = GEMMA4_PARAMETER_WEIGHTS_ORDER;
    if (gemma4_step_weight(tap) != SIZE_MAX)
        gemma4_propose(p, &s);
}

/* Lanes, heads or ranks that hold what others should: what is read where, as pairs. */
static void propose_permutation(gemma4_proposals *p, const gemma4_evidence *e, gemma4_tap tap,
                                gemma4_unit unit, size_t count)
{
    gemma4_setting s = {.parameter = GEMMA4_PARAMETER_RESULT_ORDER,
                        .steps = GEMMA4_STEP(tap),
                        .word = GEMMA4_PERMUTED,
                        .unit = unit};
    size_t T = e->subject->T, length = e->taps[tap].width / count, wrong[GEMMA4_LIST / 2],
           wrongs = 0;
    double limit = LIMIT_WORST * LIMIT_WORST * (double)(T * length);
    if (gemma4_tap_is_keys(tap) || count < 2 || e->taps[tap].width % count || T * length < 4)
        return;
    for (size_t i = 0; i < count; i++)
        if (!(distance(p, e, tap, length, i, i) <= limit)) {
            if (wrongs == GEMMA4_LIST / 2)
                return;
            wrong[wrongs++] = i;
        }
    for (size_t i = 0; i < wrongs; i++) {
        double least = INFINITY;
        size_t from = wrong[i];
        for (size_t k = 0; k < count; k++) {
            double away = distance(p, e, tap, length, wrong[i], k);
            if (away < least) {
                least = away;
                from = k;
            }
        }
        s.list[s.count++] = (double)wrong[i];
        s.list[s.count++] = (double)from;
    }
    if (s.count)
        gemma4_propose(p, &s);
    propose_roll(p, tap, s, count);
}

/* What each of the K experts of a position adds to moe.out: (d). */
static void expert_part(const gemma4_evidence *e, size_t t, size_t r, double *part)
{
    const gemma4_config *c = &e->subject->model->config;
    size_t d = c->hidden_size, M = c->moe_intermediate_size, K = c->top_k_experts,
           id = (size_t)e->ids[t * K + r];
    const real *act = e->taps[GEMMA4_TAP_MOE_ACT].values + (t * K + r) * M;
    double weight = (double)e->taps[GEMMA4_TAP_ROUTER_TOPK_WEIGHTS].values[t * K + r];
    for (size_t i = 0; i < d; i++) {
        double sum = 0;
        for (size_t k = 0; k < M; k++)
            sum += (double)act[k] *
                   (double)gemma4_weight_at(&e->subject->model->layers[e->layer].experts_down_proj,
                                            (id * d + i) * M + k);
        part[i] = weight * sum;
    }
}

/* Solves the symmetric system a x = b of n equations in place; unknowns that nothing determines
 * become `otherwise`, which may be NaN. */
void gemma4_solve_system(double *a, double *b, size_t n, double otherwise, double *x)
{
    for (size_t k = 0; k < n; k++) {
        double pivot = a[k * n + k];
        for (size_t i = k + 1; i < n && pivot > 1e-12; i++) {
            double times = a[i * n + k] / pivot;
            for (size_t j = k; j < n; j++)
                a[i * n + j] -= times * a[k * n + j];
            b[i] -= times * b[k];
        }
    }
    for (size_t k = n; k-- > 0;) {
        double sum = b[k];
        for (size_t j = k + 1; j < n; j++)
            sum -= isnan(x[j]) ? 0 : a[k * n + j] * x[j];
        x[k] = a[k * n + k] > 1e-12 ? sum / a[k * n + k] : otherwise;
    }
}

/* A factor of each expert's part of moe.out; NaN of those that were never chosen. */
static void propose_expert_factors(gemma4_proposals *p, const gemma4_evidence *e)
{
    const gemma4_config *c = &e->subject->model->config;
    const gemma4_tap tap = GEMMA4_TAP_MOE_OUT;
    const gemma4_tap_evidence *t = &e->taps[tap];
    size_t E = c->num_experts, K = c->top_k_experts, d = c->hidden_size;
    gemma4_setting s = {
        .parameter = GEMMA4_PARAMETER_WEIGHT_FACTORS, .steps = GEMMA4_STEP(tap), .count = E};
    if (E > GEMMA4_LIST || !e->ids || !e->taps[GEMMA4_TAP_MOE_ACT].values)
        return;
    double *a = calloc(E * E, sizeof *a), *b = calloc(E, sizeof *b),
           *parts = malloc(K * d * sizeof *parts);
    p->failed = p->failed || !a || !b || !parts;
    for (size_t row = 0; !p->failed && row < e->subject->T; row++) {
        double weight = 1 / (t->sigma[row] * t->sigma[row] + 1e-300) / (double)d;
        if (!tells(p, e, tap, row))
            continue;
        for (size_t r = 0; r < K; r++)
            expert_part(e, row, r, parts + r * d);
        for (size_t r = 0; r < K; r++)
            for (size_t i = 0; i < d; i++) {
                size_t id = (size_t)e->ids[row * K + r];
                b[id] += weight * parts[r * d + i] * (double)t->engine[row * d + i];
                for (size_t q = 0; q < K; q++)
                    a[id * E + (size_t)e->ids[row * K + q]] +=
                        weight * parts[r * d + i] * parts[q * d + i];
            }
    }
    if (!p->failed) {
        gemma4_solve_system(a, b, E, NAN, s.list);
        gemma4_propose(p, &s);
    }
    free(a);
    free(b);
    free(parts);
}

int gemma4_forget_loose_factors(const gemma4_evidence *e, gemma4_setting *s, gemma4_error *error)
{
    const gemma4_config *c = &e->subject->model->config;
    const gemma4_tap_evidence *t = &e->taps[GEMMA4_TAP_MOE_OUT];
    size_t K = c->top_k_experts, d = c->hidden_size;
    double known[GEMMA4_LIST] = {0}; /* squares of each expert's parts, in spreads */
    double *part = malloc(d * sizeof *part);
    if (!part)
        return gemma4_fail(error, "diagnosis: out of memory");
    for (size_t row = 0; row < e->subject->T; row++)
        for (size_t r = 0; t->have[row] && r < K; r++) {
            expert_part(e, row, r, part);
            for (size_t i = 0; i < d; i++)
                known[e->ids[row * K + r]] +=
                    part[i] * part[i] / (t->sigma[row] * t->sigma[row] + 1e-300);
        }
    for (size_t k = 0; k < s->count; k++) {
        double size =
            fabs(s->list[k]) <= EQUAL_FACTORS ? 1 : fabs(s->list[k]); /* 0 is a size too */
        if (!(LOOSE_DEVIATIONS / sqrt(known[k]) <= LOOSE_PART * size))
            s->list[k] = NAN;
    }
    free(part);
    return 0;
}

/* The same of each expert's weight, by its own scale. */
static void propose_scale_factors(gemma4_proposals *p, const gemma4_evidence *e)
{
    const gemma4_config *c = &e->subject->model->config;
    const gemma4_tap_evidence *t = &e->taps[GEMMA4_TAP_ROUTER_TOPK_WEIGHTS];
    size_t E = c->num_experts, K = c->top_k_experts;
    double xx[GEMMA4_LIST] = {0}, xy[GEMMA4_LIST] = {0};
    gemma4_setting s = {.parameter = GEMMA4_PARAMETER_WEIGHT_FACTORS,
                        .steps = GEMMA4_STEP(GEMMA4_TAP_ROUTER_TOPK_WEIGHTS),
                        .count = E};
    if (E > GEMMA4_LIST || !e->ids)
        return;
    for (size_t row = 0; row < e->subject->T; row++)
        for (size_t i = row * K;
             tells(p, e, GEMMA4_TAP_ROUTER_TOPK_WEIGHTS, row) && i < (row + 1) * K; i++) {
            double x = (double)t->expected[i], w = 1 / (t->sigma[row] * t->sigma[row] + 1e-300);
            xx[e->ids[i]] += w * x * x;
            xy[e->ids[i]] += w * x * (double)t->engine[i];
        }
    for (size_t i = 0; i < E; i++)
        s.list[i] = xx[i] > 0 ? xy[i] / xx[i] : NAN;
    gemma4_propose(p, &s);
}

void gemma4_propose_from_result(gemma4_proposals *p, const gemma4_evidence *e, gemma4_tap tap)
{
    if (tap == GEMMA4_TAP_ROUTER_TOPK_IDS)
        return;
    propose_factors(p, e, tap);
    propose_two_factors(p, e, tap);
    if (tap == GEMMA4_TAP_MOE_OUT)
        propose_expert_factors(p, e);
    if (tap == GEMMA4_TAP_ROUTER_TOPK_WEIGHTS)
        propose_scale_factors(p, e);
    gemma4_propose_turns(p, e, tap);
    propose_clamp(p, e, tap);
    propose_zeros(p, e, tap);
    gemma4_axis axis =
        gemma4_axis_of_values(&e->subject->model->config, tap, e->layer, e->subject->T);
    propose_permutation(p, e, tap, GEMMA4_GROUPS, axis.groups);
    propose_permutation(p, e, tap, GEMMA4_LANES, axis.values);
}
