/* Proposals for the steps that have parameters of their own, and for what weights may be. */
#include <math.h>
#include <string.h>

#include "counter_changes.h"
#include "counter_model.h"
#include "propose.h"
#include "thresholds.h"

/* Windows, and blocks of the mask: up to how many positions every length is tried, and beyond, how
 * near to a likely one. Bounds of time: each is a run of the model. */
enum { EVERY_LENGTH = 256, NEAR_LENGTH = 8 };

/* ------------------------------------------------------------------ weights */

static void propose_sources(gemma4_proposals *p, const gemma4_model *model, size_t layer,
                            gemma4_tap step, size_t offset)
{
    const gemma4_layer_weights *layers = model->layers;
    const gemma4_weight *own = gemma4_weight_field(&layers[layer], offset);
    bool norm = own->rows == 1 && own->cols > 1 &&
                offset != offsetof(gemma4_layer_weights, router_per_expert_scale);
    gemma4_setting s = {.parameter =
                            norm ? GEMMA4_PARAMETER_NORM_WEIGHT_OF : GEMMA4_PARAMETER_WEIGHT_TENSOR,
                        .steps = GEMMA4_STEP(step)};
    for (size_t other = 0; other < sizeof *layers; other += sizeof(gemma4_weight)) {
        const gemma4_weight *w = gemma4_weight_field(&layers[layer], other);
        s.weight = other;
        if (other != offset && w->data && w->rows == own->rows && w->cols == own->cols)
            gemma4_propose(p, &s);
    }
    s.parameter = GEMMA4_PARAMETER_WEIGHT_LAYER;
    s.weight = 0;
    for (int away = -2; away <= 2 && p->brief; away++) { /* for every layer */
        s.number = away;
        if (away)
            gemma4_propose(p, &s);
    }
    for (size_t l = 0; l < model->config.num_hidden_layers; l++) {
        const gemma4_weight *w = gemma4_weight_field(&layers[l], offset);
        long long away = (long long)l - (long long)layer;
        if (l == layer || !w->data || w->rows != own->rows || w->cols != own->cols)
            continue;
        s.absolute = false;
        s.number = (double)away;
        if (away >= -2 && away <= 2 && !p->brief)
            gemma4_propose(p, &s);
        s.absolute = true;
        s.number = (double)l;
        if (!p->brief || l == 0 || l + 1 == model->config.num_hidden_layers)
            gemma4_propose(p, &s);
    }
}

/* The last `count` of n. */
static void propose_tail(gemma4_proposals *p, gemma4_setting s, size_t n, size_t count)
{
    s.first = n - count;
    s.end = n;
    if (count > 0 && count < n)
        gemma4_propose(p, &s);
}

/* Ranges of the axis that may not have been read: single heads or experts and the last ones, the
 * last values of each; the second half, the last quarter, the last few values. */
static void propose_zeros(gemma4_proposals *p, gemma4_setting s, gemma4_axis axis)
{
    size_t length = axis.groups > 1 ? axis.values / axis.groups : 0;
    s.parameter = GEMMA4_PARAMETER_WEIGHT_ZERO;
    s.unit = GEMMA4_GROUPS;
    for (size_t group = 0; axis.groups > 1 && group < axis.groups; group++) {
        s.first = group;
        s.end = group + 1;
        gemma4_propose(p, &s);
    }
    for (size_t count = 2; axis.groups > 2 && count <= axis.groups / 2; count *= 2)
        propose_tail(p, s, axis.groups, count);
    s.unit = GEMMA4_LANES_OF_GROUP;
    for (size_t count = 1; length && count <= length / 2; count *= 2)
        propose_tail(p, s, length, count);
    s.unit = GEMMA4_LANES;
    for (size_t count = 1; count <= (p->brief ? 2 : 8) && count < axis.values / 16; count++)
        propose_tail(p, s, axis.values, count);
    for (size_t part = 2;
         part <= (p->brief ? 4 : 16) && axis.groups == 1 && axis.values >= 2 * part; part *= 2) {
        s.first = axis.values - axis.values / part;
        s.end = axis.values;
        gemma4_propose(p, &s);
        s.end = axis.values / part;
        s.first = 0;
        gemma4_propose(p, &s);
    }
}

/* Weights of more values are not copied for every idea. */
#define LARGEST_WEIGHT ((size_t)1 << 24)

/* V's norm has no weight of its own: it may have been given one. */
static void propose_weight_of_v_norm(gemma4_proposals *p, const gemma4_model *model, size_t layer)
{
    gemma4_setting s = {.parameter = GEMMA4_PARAMETER_NORM_WEIGHT_OF,
                        .steps = GEMMA4_STEP(GEMMA4_TAP_ATTN_V_NORM)};
    for (s.weight = 0; s.weight < sizeof *model->layers; s.weight += sizeof(gemma4_weight)) {
        const gemma4_weight *w = gemma4_weight_field(&model->layers[layer], s.weight);
        if (w->data && w->rows == 1 && w->cols == model->config.layers[layer].head_dim)
            gemma4_propose(p, &s);
    }
}

void gemma4_propose_weights(gemma4_proposals *p, const gemma4_evidence *e, size_t layer,
                            gemma4_tap step)
{
    const gemma4_model *model = e->subject->model;
    size_t offset = gemma4_step_weight(step);
    gemma4_setting s = {.steps = GEMMA4_STEP(step)};
    bool in_layer = offset != SIZE_MAX;
    if (step == GEMMA4_TAP_ATTN_V_NORM)
        propose_weight_of_v_norm(p, model, layer);
    const gemma4_weight *w = in_layer ? gemma4_weight_field(&model->layers[layer], offset)
                             : step == GEMMA4_TAP_FINAL_NORM ? &model->norm
                             : step == GEMMA4_TAP_EMBED || step == GEMMA4_TAP_LOGITS_RAW
                                 ? &model->embed_tokens
                                 : NULL;
    if (!w || !w->data || w->rows * w->cols > LARGEST_WEIGHT)
        return;
    if (in_layer)
        propose_sources(p, model, layer, step, offset);
    if (w->rows == 1) {
        s.parameter = GEMMA4_PARAMETER_WEIGHT_FORM;
        for (s.word = 0; s.word < GEMMA4_FORM_COUNT; s.word++)
            gemma4_propose(p, &s);
    }
    s.parameter = GEMMA4_PARAMETER_WEIGHT_ROUNDED;
    for (s.word = 0; s.word < GEMMA4_TYPE_COUNT; s.word++)
        gemma4_propose(p, &s);
    if (!in_layer || w->cols == 1)
        return;
    s.parameter = GEMMA4_PARAMETER_WEIGHTS_ORDER;
    gemma4_axis rows = gemma4_axis_of_weight(&model->config, layer, offset, w, false),
                columns = gemma4_axis_of_weight(&model->config, layer, offset, w, true);
    s.word = GEMMA4_TRANSPOSED;
    if (w->rows > 1)
        gemma4_propose(p, &s);
    if (w->rows > 1)
        gemma4_propose_orders(p, s, rows);
    if (w->rows > 1)
        propose_zeros(p, s, rows);
    s.columns = true;
    gemma4_propose_orders(p, s, columns);
    propose_zeros(p, s, columns);
    if (w->rows == 1)
        return;
    s.parameter = GEMMA4_PARAMETER_SUM_TYPE;
    s.columns = false;
    s.word = GEMMA4_TYPE_F16;
    gemma4_propose(p, &s);
    s.word = GEMMA4_TYPE_BF16;
    gemma4_propose(p, &s);
}

/* ------------------------------------------------------------------- RoPE */

void gemma4_propose_rope(gemma4_proposals *p, const gemma4_evidence *e, size_t layer,
                         gemma4_tap step)
{
    if (step != GEMMA4_TAP_ATTN_Q_ROPE && step != GEMMA4_TAP_ATTN_K_ROPE)
        return;
    const gemma4_layer_config *lc = &e->subject->model->config.layers[layer];
    static const double thetas[] = {100, 1e3, 5e3, 2e4, 5e4, 1e5, 2e5, 5e5, 2e6, 1e7, 1e8};
    static const double offsets[] = {-2, -1, -0.5, 0.5, 1, 2},
                        scales[] = {0.125, 0.25, 0.5, 0.8, 1.25, 2, 4, 8};
    gemma4_setting s = {.parameter = GEMMA4_PARAMETER_ROPE_THETA, .steps = GEMMA4_STEP(step)};
    gemma4_propose_numbers(p, &s, thetas, sizeof thetas / sizeof *thetas);
    s.number = lc->rope_theta * 1.2;
    gemma4_propose(p, &s);
    s.number = lc->rope_theta / 1.2;
    gemma4_propose(p, &s);
    s.parameter = GEMMA4_PARAMETER_ROPE_PAIRS;
    for (size_t pairs = 0; pairs <= lc->head_dim / 2; pairs++) {
        s.number = 2 * (double)pairs / (double)lc->head_dim;
        if (pairs != lc->rope_pairs)
            gemma4_propose(p, &s);
    }
    s.parameter = GEMMA4_PARAMETER_ROPE_OFFSET;
    gemma4_propose_numbers(p, &s, offsets, sizeof offsets / sizeof *offsets);
    s.parameter = GEMMA4_PARAMETER_ROPE_SCALE;
    gemma4_propose_numbers(p, &s, scales, sizeof scales / sizeof *scales);
    s.parameter = GEMMA4_PARAMETER_ROPE_DENOMINATOR;
    for (double part = 0.25; part <= 4; part *= 2) {
        s.number = part * (double)lc->head_dim;
        if (part != 1)
            gemma4_propose(p, &s);
    }
    s.number = 2 * (double)lc->rope_pairs;
    gemma4_propose(p, &s);
    s.number = 0;
    s.parameter = GEMMA4_PARAMETER_ROPE_PAIRING;
    for (s.word = GEMMA4_PAIR_CONTIGUOUS; s.word <= GEMMA4_PAIR_INTERLEAVED; s.word++)
        gemma4_propose(p, &s);
    s.word = 0;
    s.parameter = GEMMA4_PARAMETER_ROPE_DIRECTION;
    gemma4_propose(p, &s);
    s.parameter = GEMMA4_PARAMETER_ROPE_TABLE;
    gemma4_propose(p, &s);
    s.parameter = GEMMA4_PARAMETER_ROPE_ROUNDED;
    for (s.word = GEMMA4_TYPE_BF16; s.word <= GEMMA4_TYPE_F16; s.word++)
        gemma4_propose(p, &s);
}

/* --------------------------------------------------------------- attention */

/* Does the mask leave every key that has a probability in the dump, and none that has not?
 * Underflow may make one 0. */
static bool agrees_with_probs(const gemma4_proposals *p, const gemma4_evidence *e,
                              const gemma4_setting *mask)
{
    const gemma4_tap_evidence *t = &e->taps[GEMMA4_TAP_ATTN_PROBS];
    size_t T = e->subject->T, zeros = 0, seen = 0;
    if (!t->engine)
        return true;
    for (size_t row = 0; row < T; row++)
        for (size_t i = 0;
             t->have[row] && gemma4_in_scope(&e->subject->schedule, p->scope, row) && i < t->width;
             i++) {
            bool due = gemma4_mask_leaves(&e->subject->model->config, e->layer, mask,
                                          e->subject->schedule.chunk_end[row], row, i % T),
                 has = t->engine[row * t->width + i] != 0;
            if (has && !due)
                return false;
            seen += due;
            zeros += due && !has;
        }
    return zeros <= seen / 20;
}

static void propose_mask(gemma4_proposals *p, const gemma4_evidence *e, const gemma4_setting *mask)
{
    if (agrees_with_probs(p, e, mask))
        gemma4_propose(p, mask);
}

/* The first position at which anything that the block's evidence holds is wrong; T for none. */
static size_t first_wrong(const gemma4_evidence *e)
{
    size_t first = e->subject->T;
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
        const gemma4_tap_evidence *t = &e->taps[tap];
        for (size_t row = 0; t->engine && row < first; row++) {
            double error = 0;
            for (size_t i = row * t->width; t->have[row] && i < (row + 1) * t->width; i++) {
                double d = (double)t->engine[i] - (double)t->expected[i];
                error +=
                    gemma4_evidence_masked(e, (gemma4_tap)tap, row, i - row * t->width) ? 0 : d * d;
            }
            if (!(sqrt(error / (double)t->width) <= LIMIT_WORST * t->sigma[row]))
                first = row;
        }
    }
    return first;
}

/* How many positions back, itself included, the farthest key lies to which the dump gives a
 * probability; 0 where it holds none. */
static size_t farthest_seen(const gemma4_evidence *e)
{
    const gemma4_tap_evidence *t = &e->taps[GEMMA4_TAP_ATTN_PROBS];
    size_t T = e->subject->T, farthest = 0;
    for (size_t row = 0; t->engine && row < T; row++)
        for (size_t i = 0; t->have[row] && i < t->width; i++)
            if (t->engine[row * t->width + i] != 0 && i % T + farthest <= row)
                farthest = row - i % T + 1;
    return farthest;
}

static bool is_near(size_t a, size_t b)
{
    return a < b + NEAR_LENGTH && b < a + NEAR_LENGTH;
}

static bool is_power_of_two(size_t n)
{
    return n > 0 && (n & (n - 1)) == 0;
}

/* What a dump of many positions says of the window. */
typedef struct window_signs {
    bool many;    /* positions: else every length is tried */
    size_t right; /* the config's */
    size_t wrong; /* the first position that is wrong: there a window that is too small begins to
                     tell */
    size_t seen;  /* as far back as keys have probabilities */
} window_signs;

static window_signs find_signs(const gemma4_evidence *e)
{
    if (e->subject->T <= EVERY_LENGTH)
        return (window_signs){0};
    return (window_signs){true, e->subject->model->config.sliding_window, first_wrong(e),
                          farthest_seen(e)};
}

/* Is a window, or a block of the mask, of n positions worth a try? Powers of two, with one more or
 * less, are without any sign. */
static bool is_likely_length(const window_signs *s, size_t n)
{
    return !s->many || is_near(n, s->right) || n == s->right / 2 || n == 2 * s->right ||
           is_near(n, s->wrong) || n == s->seen || is_power_of_two(n - 1) || is_power_of_two(n) ||
           is_power_of_two(n + 1);
}

static void propose_masks(gemma4_proposals *p, const gemma4_evidence *e, gemma4_setting s,
                          bool sliding)
{
    size_t T = e->subject->T, right = e->subject->model->config.sliding_window;
    const window_signs signs = find_signs(e);
    s.parameter = GEMMA4_PARAMETER_WINDOW;
    for (size_t window = 1; window < T; window++) {
        s.number = (double)window;
        if ((!sliding || window != right) && is_likely_length(&signs, window))
            propose_mask(p, e, &s);
    }
    s.number = INFINITY;
    if (sliding)
        propose_mask(p, e, &s);
    s.parameter = GEMMA4_PARAMETER_MASK;
    s.word = GEMMA4_MASK_NOT_CAUSAL;
    s.number = 0;
    propose_mask(p, e, &s);
    s.word = GEMMA4_MASK_SELF_HIDDEN;
    propose_mask(p, e, &s);
    s.word = GEMMA4_MASK_OFFSET;
    for (int n = -8; n <= 8; n++) {
        s.number = n;
        if (n)
            propose_mask(p, e, &s);
    }
    s.word = GEMMA4_MASK_FIRST_HIDDEN;
    for (size_t n = 1; n < T && n <= 8; n++) {
        s.number = (double)n;
        propose_mask(p, e, &s);
    }
    s.word = GEMMA4_MASK_BLOCKS;
    for (size_t n = 1; n < T; n++) {
        s.number = (double)n;
        if (is_likely_length(&signs, n))
            propose_mask(p, e, &s);
    }
}

/* The maps that code makes: reversed, rolled, modulo, one for all. Others are solved for
 * (identify.c). */
static void propose_maps(gemma4_proposals *p, gemma4_setting s, size_t H, size_t G)
{
    s.count = H;
    for (int map = 0; map < 4 && G > 1 && H <= GEMMA4_LIST; map++) {
        for (size_t h = 0; h < H; h++) {
            size_t g = h / (H / G);
            s.list[h] = (double)(map == 0   ? G - 1 - g
                                 : map == 1 ? (g + 1) % G
                                 : map == 2 ? h % G
                                            : 0);
        }
        gemma4_propose(p, &s);
    }
}

void gemma4_propose_attention(gemma4_proposals *p, const gemma4_evidence *e, size_t layer,
                              gemma4_tap step)
{
    const gemma4_config *c = &e->subject->model->config;
    if (step != GEMMA4_TAP_ATTN_SCORES && step != GEMMA4_TAP_ATTN_PROBS &&
        step != GEMMA4_TAP_ATTN_CONTEXT)
        return;
    static const double scales[] = {0.03, 0.0625, 0.125, 0.25, 0.5, 0.8, 1.25, 2, 4},
                        caps[] = {1, 3, 10, 30, 100};
    size_t H = c->num_attention_heads, G = c->layers[layer].num_key_value_heads;
    gemma4_setting s = {.steps = GEMMA4_STEP(GEMMA4_TAP_ATTN_SCORES) |
                                 GEMMA4_STEP(GEMMA4_TAP_ATTN_PROBS) |
                                 GEMMA4_STEP(GEMMA4_TAP_ATTN_CONTEXT)};
    propose_masks(p, e, s, c->layers[layer].kind == GEMMA4_SLIDING);
    s.parameter = GEMMA4_PARAMETER_ATTN_SCALE;
    gemma4_propose_numbers(p, &s, scales, sizeof scales / sizeof *scales);
    s.parameter = GEMMA4_PARAMETER_ATTN_SOFTCAP;
    gemma4_propose_numbers(p, &s, caps, sizeof caps / sizeof *caps);
    s.number = 0;
    s.parameter = GEMMA4_PARAMETER_KV_HEAD_OF;
    propose_maps(p, s, H, G);
    s.parameter = GEMMA4_PARAMETER_K_HEAD_OF;
    propose_maps(p, s, H, G);
    s.steps = GEMMA4_STEP(GEMMA4_TAP_ATTN_CONTEXT);
    s.parameter = GEMMA4_PARAMETER_V_HEAD_OF;
    if (step == GEMMA4_TAP_ATTN_CONTEXT)
        propose_maps(p, s, H, G);
}

/* ----------------------------------------------------- activation and router */

static void propose_activation(gemma4_proposals *p, gemma4_tap step)
{
    gemma4_setting s = {.parameter = GEMMA4_PARAMETER_ACTIVATION, .steps = GEMMA4_STEP(step)};
    static const double slopes[] = {0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.3},
                        rates[] = {1.5, 1.6, 1.7, 1.75, 1.8, 2},
                        limits[] = {0.5, 0.6, 0.7, 0.85, 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10};
    for (s.word = 0; s.word < GEMMA4_FUNCTION_LEAKY_RELU; s.word++)
        gemma4_propose(p, &s);
    s.word = GEMMA4_FUNCTION_LEAKY_RELU;
    gemma4_propose_numbers(p, &s, slopes, sizeof slopes / sizeof *slopes);
    s.word = GEMMA4_FUNCTION_SIGMOID_GELU;
    gemma4_propose_numbers(p, &s, rates, sizeof rates / sizeof *rates);
    s.word = GEMMA4_FUNCTION_GELU_CUBIC;
    s.number = 0.04;
    gemma4_propose(p, &s);
    for (s.word = GEMMA4_FUNCTION_CLAMPED; s.word <= GEMMA4_FUNCTION_OF_CLAMPED; s.word++)
        gemma4_propose_numbers(p, &s, limits, sizeof limits / sizeof *limits);
    s.number = 0;
    s.parameter = GEMMA4_PARAMETER_GATE_AND_UP;
    for (s.word = 0; s.word < GEMMA4_GATE_AND_UP_COUNT; s.word++)
        if (step == GEMMA4_TAP_MOE_ACT || s.word != GEMMA4_GATE_AND_UP_INTERLEAVED)
            gemma4_propose(p, &s);
}

/* Ids shifted after the choice: the probabilities are still those of the right ids. */
static void propose_shifted(gemma4_proposals *p, size_t E)
{
    gemma4_setting s = {.parameter = GEMMA4_PARAMETER_CHOICE, .word = GEMMA4_CHOICE_SHIFTED};
    s.steps = GEMMA4_STEP(GEMMA4_TAP_ROUTER_TOPK_IDS) | GEMMA4_STEP(GEMMA4_TAP_ROUTER_TOPK_NORM);
    for (size_t n = 1; n < E; n = n < 16 ? n + 1 : 2 * n) {
        s.number = (double)n;
        gemma4_propose(p, &s);
        s.number = -(double)n;
        if (n <= 8 && 2 * n < E)
            gemma4_propose(p, &s);
    }
}

static void propose_choice(gemma4_proposals *p, const gemma4_config *c)
{
    gemma4_setting s = {.parameter = GEMMA4_PARAMETER_CHOICE,
                        .steps = GEMMA4_STEP(GEMMA4_TAP_ROUTER_TOPK_IDS)};
    size_t E = c->num_experts, K = c->top_k_experts;
    s.word = GEMMA4_CHOICE_SMALLEST;
    gemma4_propose(p, &s);
    s.word = GEMMA4_CHOICE_SCALED;
    gemma4_propose(p, &s);
    s.word = GEMMA4_CHOICE_ROUNDED;
    gemma4_propose(p, &s);
    propose_shifted(p, E);
    s.word = GEMMA4_CHOICE_SKIPPED;
    for (size_t r = 0; r < K; r++) {
        s.number = (double)r;
        gemma4_propose(p, &s);
    }
    s.word = GEMMA4_CHOICE_GROUPS;
    for (size_t groups = 2; groups <= K; groups++) {
        s.number = (double)groups;
        if (K % groups == 0 && E % groups == 0)
            gemma4_propose(p, &s);
    }
}

static void propose_weighting(gemma4_proposals *p, const gemma4_config *c)
{
    gemma4_setting s = {.parameter = GEMMA4_PARAMETER_ROUTER_WEIGHTS,
                        .steps = GEMMA4_STEP(GEMMA4_TAP_ROUTER_TOPK_NORM)};
    if (!p->brief)
        propose_shifted(p, c->num_experts);
    for (s.word = GEMMA4_WEIGHTS_P; s.word <= GEMMA4_WEIGHTS_UNIFORM; s.word++)
        gemma4_propose(p, &s);
    s.steps |= GEMMA4_STEP(GEMMA4_TAP_ROUTER_TOPK_WEIGHTS);
    gemma4_propose(p, &s); /* scaled first */
    s.steps = GEMMA4_STEP(GEMMA4_TAP_ROUTER_TOPK_WEIGHTS);
    s.word = GEMMA4_WEIGHTS_SCALED_BY_RANK;
    gemma4_propose(p, &s);
    s.steps = GEMMA4_STEP(GEMMA4_TAP_ROUTER_TOPK_NORM);
    s.word = 0;
    s.parameter = GEMMA4_PARAMETER_ROUTER_POWER;
    static const double powers[] = {0.25, 0.5, 0.7, 1.5, 2, 3};
    gemma4_propose_numbers(p, &s, powers, sizeof powers / sizeof *powers);
    s.parameter = GEMMA4_PARAMETER_TOP_K;
    s.steps |= GEMMA4_STEP(GEMMA4_TAP_ROUTER_TOPK_IDS);
    for (size_t k = 1; k <= 2 * c->top_k_experts && k <= c->num_experts; k++) {
        s.number = (double)k;
        if (k != c->top_k_experts)
            gemma4_propose(p, &s);
    }
}

/* Sets of ranks that are left out: any, where they are few or that is one step; else one, all but
 * one, the first or the last few. */
static void propose_missing(gemma4_proposals *p, size_t K, bool one_step)
{
    gemma4_setting s = {.parameter = GEMMA4_PARAMETER_EXPERTS_MISSING,
                        .steps = GEMMA4_STEP(GEMMA4_TAP_MOE_OUT)};
    double all = ldexp(1, (int)K) - 1;
    if (K <= (one_step ? 8 : 4)) {
        for (s.number = 1; s.number < all; s.number++)
            gemma4_propose(p, &s);
        return;
    }
    for (size_t r = 0; r < K && K < 52; r++) {
        s.number = ldexp(1, (int)r);
        gemma4_propose(p, &s);
        s.number = all - ldexp(1, (int)r);
        if (K > 2)
            gemma4_propose(p, &s);
        s.number = all - (ldexp(1, (int)r) - 1);
        if (r > 0 && r + 1 < K)
            gemma4_propose(p, &s);
    }
}

/* gate and up, both times a number: of all steps whose matrix is not seen by itself, the one that
 * is not linear in it. */
static void propose_factor_of_experts(gemma4_proposals *p)
{
    static const double factors[] = {0.5, 2};
    gemma4_setting s = {.parameter = GEMMA4_PARAMETER_WEIGHT_FACTOR,
                        .steps = GEMMA4_STEP(GEMMA4_TAP_MOE_ACT)};
    gemma4_propose_numbers(p, &s, factors, sizeof factors / sizeof *factors);
}

void gemma4_propose_experts(gemma4_proposals *p, const gemma4_evidence *e, gemma4_tap step)
{
    const gemma4_config *c = &e->subject->model->config;
    if (step == GEMMA4_TAP_MLP_ACT || step == GEMMA4_TAP_MOE_ACT)
        propose_activation(p, step);
    if (step == GEMMA4_TAP_MOE_ACT)
        propose_factor_of_experts(p);
    if (step == GEMMA4_TAP_ROUTER_TOPK_IDS)
        propose_choice(p, c);
    else if (step == GEMMA4_TAP_ROUTER_TOPK_NORM)
        propose_weighting(p, c);
    else if (step == GEMMA4_TAP_MOE_OUT)
        propose_missing(p, c->top_k_experts, e->taps[GEMMA4_TAP_MOE_ACT].engine != NULL);
}
