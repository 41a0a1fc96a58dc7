/* Counter-models: the RMSNorms, RoPE, and what V is made of. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "counter_changes.h"
#include "counter_internal.h"
#include "ops.h"

typedef gemma4_real real;

/* ------------------------------------------------------------------ norms */

/* A norm's own weight; NULL for the unit norms: v_norm and the router's (router.scale is a step of
 * its own). */
static const gemma4_weight *own_weight(const counter *m, gemma4_norm norm)
{
    if (norm == GEMMA4_NORM_FINAL)
        return &m->step->model->norm;
    if (!m->w)
        return NULL;
    switch (norm) {
    case GEMMA4_NORM_INPUT: return &m->w->input_layernorm;
    case GEMMA4_NORM_Q: return &m->w->q_norm;
    case GEMMA4_NORM_K: return &m->w->k_norm;
    case GEMMA4_NORM_POST_ATTENTION: return &m->w->post_attention_layernorm;
    case GEMMA4_NORM_PRE_FFN: return &m->w->pre_feedforward_layernorm;
    case GEMMA4_NORM_POST_FFN_1: return &m->w->post_feedforward_layernorm_1;
    case GEMMA4_NORM_PRE_FFN_2: return &m->w->pre_feedforward_layernorm_2;
    case GEMMA4_NORM_POST_FFN_2: return &m->w->post_feedforward_layernorm_2;
    case GEMMA4_NORM_POST_FFN: return &m->w->post_feedforward_layernorm;
    default: return NULL;
    }
}

static const gemma4_weight *weight_of(const counter *m, gemma4_norm norm, size_t n)
{
    const gemma4_norm_parameters *p = &m->p->norm[norm];
    bool other = p->weight_of >= 0 && p->weight_of < GEMMA4_NORM_COUNT;
    const gemma4_weight *w = other ? own_weight(m, (gemma4_norm)p->weight_of) : NULL;
    /* others are changed in place */
    const gemma4_setting *given =
        norm == GEMMA4_NORM_V ? counter_setting(m, GEMMA4_PARAMETER_NORM_WEIGHT_OF) : NULL;
    if (given)
        w = gemma4_weight_field(m->w, given->weight);
    if (!w || w->cols != n)
        w = own_weight(m, norm);
    return p->no_weight ? NULL : w;
}

static double sum_of_squares(const real *x, size_t count, double mean, bool bf16)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        double x_i = (double)x[i] - mean;
        sum = bf16 ? counter_bf16(sum + x_i * x_i) : sum + x_i * x_i;
    }
    return sum;
}

static double mean_of(const real *x, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (double)x[i];
    return sum / (double)count;
}

/* y = x / sqrt(mean(x^2) + eps) * w over count values that share one mean; w has n values and
 * repeats. y may be x. */
static void norm_row(real *y, const real *x, size_t count, const gemma4_weight *w, size_t n,
                     const gemma4_norm_parameters *p, double eps)
{
    double mean = p->mean_subtracted ? mean_of(x, count) : 0;
    double mean_square = sum_of_squares(x, count, mean, p->bf16_sum) / (double)count;
    double scale = p->eps_outside ? 1.0 / (sqrt(mean_square) + eps) : 1.0 / sqrt(mean_square + eps);
    for (size_t i = 0; i < count; i++) {
        double unit = ((double)x[i] - mean) * scale;
        double weight = w ? (double)gemma4_weight_at(w, i % n) : 1.0;
        y[i] = (real)((w && p->bf16_unit ? counter_bf16(unit) : unit) *
                      (w && p->one_plus ? 1 + weight : weight));
    }
}

int counter_norm(const counter *m, gemma4_norm norm, const real *x, size_t heads, size_t n,
                 real *out)
{
    gemma4_norm_parameters p = m->p->norm[norm];
    const gemma4_setting *other_eps = counter_setting(m, GEMMA4_PARAMETER_EPS);
    const gemma4_weight *w = weight_of(m, norm, n);
    p.mean_subtracted = p.mean_subtracted || counter_setting(m, GEMMA4_PARAMETER_NORM_MEAN);
    p.over_all_heads = p.over_all_heads || counter_setting(m, GEMMA4_PARAMETER_NORM_AXIS);
    size_t together = p.over_all_heads ? heads * n : n; /* values that share one mean */
    double eps = other_eps ? other_eps->number : p.eps > 0 ? p.eps : m->c->rms_norm_eps;
    if (p.dropped)
        memmove(out, x, m->T * heads * n * sizeof *out);
    for (size_t i = 0; !p.dropped && i < m->T * heads * n; i += together)
        norm_row(out + i, x + i, together, w, n, &p, eps);
    return 0;
}

/* ------------------------------------------------------------------- RoPE */

/* What one rotation needs to know, for one kind of parameters on one layer. */
typedef struct rotation {
    size_t D, pairs;
    double theta;
    float denominator; /* of the exponent */
} rotation;

static rotation rotation_of(const counter *m, const gemma4_rope_parameters *p)
{
    const gemma4_layer_config *other = counter_other_kind(m);
    const gemma4_setting *factor = counter_setting(m, GEMMA4_PARAMETER_ROPE_PAIRS),
                         *theta = counter_setting(m, GEMMA4_PARAMETER_ROPE_THETA);
    const gemma4_setting *denominator = counter_setting(m, GEMMA4_PARAMETER_ROPE_DENOMINATOR);
    const gemma4_layer_config *table =
        p->other_kind || counter_setting(m, GEMMA4_PARAMETER_ROPE_TABLE) ? other : m->lc;
    rotation r = {.D = m->lc->head_dim,
                  .theta = p->other_theta ? other->rope_theta : table->rope_theta};
    double pairs = factor ? floor(factor->number * (double)r.D / 2 + 0.5)
                          : round((double)table->rope_pairs * p->pairs);
    r.pairs = pairs >= (double)(r.D / 2) ? r.D / 2 : pairs > 0 ? (size_t)pairs : 0;
    r.denominator = (float)((double)table->head_dim * p->denominator);
    if (denominator)
        r.denominator = (float)denominator->number;
    if (p->theta > 0 || theta)
        r.theta = theta ? theta->number : p->theta;
    return r;
}

static double position_of(const counter *m, const gemma4_rope_parameters *p, size_t t)
{
    size_t position = m->step->first_position + t;
    if (p->position == GEMMA4_POSITION_IN_CHUNK)
        position = t - counter_chunk_of(m, t).start;
    else if (p->position == GEMMA4_POSITION_RING_SLOT)
        position = t % m->c->sliding_window;
    else if (p->position == GEMMA4_POSITION_RELATIVE)
        position = t;
    const gemma4_setting *offset = counter_setting(m, GEMMA4_PARAMETER_ROPE_OFFSET),
                         *scale = counter_setting(m, GEMMA4_PARAMETER_ROPE_SCALE);
    return ((double)position + (offset ? offset->number : p->offset)) *
           (scale ? scale->number : p->position_scale);
}

/* Every step rounded to float, as the definition says. */
static float angle_of(const counter *m, const gemma4_rope_parameters *p, const rotation *r,
                      size_t j, size_t t)
{
    float exponent = (float)(2 * j) / r->denominator;
    float frequency = 1.0f / (float)pow(r->theta, (double)exponent);
    double position = position_of(m, p, t);
    if (p->half_precision_frequencies)
        frequency = (float)counter_f16((double)frequency);
    if (p->bf16_angles)
        return (float)counter_bf16((double)((float)counter_bf16(position) * frequency));
    return (float)position * frequency;
}

/* The lanes of pair j: a rotates towards b. */
static void lanes_of(gemma4_pairing pairing, const rotation *r, size_t j, size_t *a, size_t *b)
{
    *a = pairing == GEMMA4_PAIR_INTERLEAVED ? 2 * j : j;
    *b = pairing == GEMMA4_PAIR_INTERLEAVED
             ? 2 * j + 1
             : j + (pairing == GEMMA4_PAIR_CONTIGUOUS ? r->pairs : r->D / 2);
}

/* Rotates x, (T, heads, D), in place. */
static void rotate(const counter *m, const gemma4_rope_parameters *p, real *x, size_t heads)
{
    rotation r = rotation_of(m, p);
    const gemma4_setting *pairing = counter_setting(m, GEMMA4_PARAMETER_ROPE_PAIRING),
                         *type = counter_setting(m, GEMMA4_PARAMETER_ROPE_ROUNDED);
    bool reversed = p->reversed || counter_setting(m, GEMMA4_PARAMETER_ROPE_DIRECTION);
    for (size_t j = 0; !p->skipped && j < r.pairs; j++) {
        size_t a, b;
        lanes_of(pairing ? (gemma4_pairing)pairing->word : p->pairing, &r, j, &a, &b);
        for (size_t t = 0; t < m->T; t++) {
            double angle = (double)angle_of(m, p, &r, j, t);
            double c = cos(angle), s = reversed ? -sin(angle) : sin(angle);
            if (type) {
                c = type->word == GEMMA4_TYPE_F16 ? counter_f16(c) : counter_bf16(c);
                s = type->word == GEMMA4_TYPE_F16 ? counter_f16(s) : counter_bf16(s);
            }
            for (size_t h = 0; h < (p->first_head_only ? 1 : heads); h++) {
                real *x_th = x + (t * heads + h) * r.D;
                double x_a = (double)x_th[a], x_b = (double)x_th[b];
                x_th[a] = (real)(x_a * c - x_b * s);
                x_th[b] = (real)(x_b * c + x_a * s);
            }
        }
    }
}

/* attn.q_rope and attn.k_rope. */
int counter_rope(const counter *m, real *out)
{
    bool q = m->tap == GEMMA4_TAP_ATTN_Q_ROPE;
    const gemma4_rope_parameters *p = q ? &m->p->q_rope : &m->p->k_rope;
    gemma4_tap input = q ? p->before_norm ? GEMMA4_TAP_ATTN_Q : GEMMA4_TAP_ATTN_Q_NORM
                       : p->before_norm ? GEMMA4_TAP_ATTN_K
                                        : GEMMA4_TAP_ATTN_K_NORM;
    size_t heads = q ? m->c->num_attention_heads : m->lc->num_key_value_heads, D = m->lc->head_dim;
    const real *x = counter_value(m, input);
    if (!x)
        return -1;
    memcpy(out, x, m->T * heads * D * sizeof *out);
    rotate(m, p, out, heads);
    return p->before_norm ? counter_norm(m, q ? GEMMA4_NORM_Q : GEMMA4_NORM_K, out, heads, D, out)
                          : 0;
}

/* attn.v_norm: the unit norm of V, never rotated. */
int counter_v_norm(const counter *m, real *out)
{
    bool from_key = m->p->v == GEMMA4_V_K_NORM || m->p->v == GEMMA4_V_K_ROPE;
    const real *v = counter_value(m, from_key ? GEMMA4_TAP_ATTN_K_NORM : GEMMA4_TAP_ATTN_V);
    size_t G = m->lc->num_key_value_heads, D = m->lc->head_dim;
    if (!v)
        return -1;
    memcpy(out, v, m->T * G * D * sizeof *out);
    if (m->p->v == GEMMA4_V_K_ROPE)
        rotate(m, &m->p->k_rope, out, G);
    if (counter_norm(m, GEMMA4_NORM_V, out, G, D, out))
        return -1;
    rotate(m, &m->p->v_rope, out, G);
    return 0;
}
