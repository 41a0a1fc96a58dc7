/* The cases of each operator: sizes at, below and above every block of ref/ops_simd.h, all types of
 * weights, unaligned pointers, aliasing as the contract allows, subnormal and huge values,
 * cancellation, infinities and NaN; and the bounds, which spec/twins.md derives. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "twins.h"

#define U 0x1p-24 /* half a unit in the last place of 1 */

static const size_t SIZES[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65};
static const size_t COLS[] = {1,  2,  3,  7,  8,  9,   15,  16,  17,  31,   32,
                              33, 63, 64, 65, 96, 130, 703, 704, 705, 1024, 1409};
static const size_t ROWS[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 129};
static const size_t POSITIONS[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 24, 29, 33};

const char *const KIND_NAMES[] = {"plain", "cancelling", "subnormal", "huge", "not finite"};

static void fill(float *x, size_t n, enum kind kind)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = random_real();
        if (kind == CANCELLING && i % 2) /* its neighbour's opposite but for the last bits */
            x[i] = -x[i - 1] * (1 + 0x1p-20f * random_real());
        if (kind == SUBNORMAL)
            x[i] *= 0x1p-130f;
        if (kind == HUGE_VALUES)
            x[i] *= 0x1p100f;
        if (kind == NOT_FINITE && random_below(29) == 0)
            x[i] = random_below(2) ? INFINITY : random_below(2) ? -INFINITY : NAN;
    }
}

gemma4_weight make_weight(size_t rows, size_t cols, enum kind kind)
{
    static const gemma4_dtype TYPES[] = {GEMMA4_BF16, GEMMA4_F16, GEMMA4_F32};
    gemma4_weight w = {TYPES[random_below(3)], NULL, rows, cols};
    size_t n = rows * cols, misalign = random_below(3);
    if (w.dtype == GEMMA4_F32) {
        float *data = guarded(n, sizeof *data, misalign);
        for (size_t i = 0; i < n; i++)
            data[i] = kind == CANCELLING ? 1 : random_real();
        w.data = data;
        return w;
    }
    uint16_t *data = guarded(n, sizeof *data, misalign);
    for (size_t i = 0; i < n; i++) {
        float value = kind == CANCELLING ? 1 : random_real();
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        /* bf16: the upper half. f16: sign, a random exponent below 1 (0 is subnormal) and a random
         * mantissa. */
        data[i] = w.dtype == GEMMA4_BF16 ? (uint16_t)(bits >> 16)
                  : kind == CANCELLING
                      ? 0x3c00
                      : (uint16_t)((random_bits() & 0x83ff) | (uint16_t)(random_below(15) << 10));
    }
    w.data = data;
    return w;
}

float *make_reals(size_t n, enum kind kind)
{
    float *x = guarded(n, sizeof *x, random_below(4));
    fill(x, n, kind);
    return x;
}

float *make_output(size_t n)
{
    float *y = guarded(n, sizeof *y, random_below(4));
    for (size_t i = 0; i < n; i++)
        y[i] = NAN;
    return y;
}

float *make_scratch(const gemma4_ops *ops, size_t cols, size_t T, size_t K)
{
    return guarded(ops->scratch(cols, T, K), sizeof(float), 0);
}

/* ----------------------------------------------------------------- matmul */

/* A dot product in double, and what its error is measured by. */
typedef struct product {
    double value;
    double size;   /* sum of the absolute values of the products */
    double energy; /* root of the sum of their squares */
} product;

static product dot_product(const float *x, const gemma4_weight *w, size_t row)
{
    product p = {0};
    for (size_t k = 0; k < w->cols; k++) {
        double term = (double)x[k] * (double)gemma4_weight_at(w, row * w->cols + k);
        p.value += term;
        p.size += fabs(term);
        p.energy += term * term;
    }
    p.energy = sqrt(p.energy);
    return p;
}

/* The longest chain of roundings that a product of `cols` columns goes through (spec/twins.md). */
static double depth(size_t cols)
{
    double n = (double)cols, blocked = 704 + ceil(n / 704), lanes = n / 4;
    return fmin(n, fmax(blocked, lanes)) + 8;
}

static double dot_bound(const product *p, size_t cols)
{
    return depth(cols) * U * p->size + (double)cols * 0x1p-149;
}

static void matmul_case(verdict *v, const gemma4_ops *ops, size_t rows, size_t cols, size_t T,
                        enum kind kind)
{
    char where[80];
    gemma4_weight w = make_weight(rows, cols, kind);
    const float *x = make_reals(T * cols, kind);
    float *y = make_output(T * rows), *scratch = make_scratch(ops, cols, T, 0);
    snprintf(where, sizeof where, "[%zu, %zu] type %d, T %zu, %s", rows, cols, (int)w.dtype, T,
             KIND_NAMES[kind]);
    ops->matmul(y, x, &w, T, scratch);
    for (size_t i = 0; i < T * rows; i++) {
        product p = dot_product(x + i / rows * cols, &w, i % rows);
        if (kind == PLAIN && cols > 8)
            check_unbiased(v, (double)y[i], p.value, dot_bound(&p, cols), U * p.energy, where, i);
        else
            check_value(v, (double)y[i], p.value, dot_bound(&p, cols), where, i);
    }
    check_guards(v, where);
}

enum kind any_kind(void)
{
    return random_below(2) ? PLAIN : (enum kind)random_below(KINDS);
}

static void check_matmul(verdict *v, const gemma4_ops *ops)
{
    for (size_t t = 0; t < COUNT(POSITIONS); t++) {
        for (size_t i = 0; i < COUNT(COLS); i++)
            matmul_case(v, ops, ANY(ROWS), COLS[i], POSITIONS[t], any_kind());
        for (size_t i = 0; i < COUNT(ROWS); i++)
            matmul_case(v, ops, ROWS[i], 1 + random_below(70), POSITIONS[t], any_kind());
    }
    for (size_t t = 0; t < COUNT(POSITIONS); t++) { /* rows of x that collide in the cache are
                                                       copied; long ones are streamed otherwise */
        matmul_case(v, ops, ANY(SIZES), 1024, POSITIONS[t], PLAIN);
        matmul_case(v, ops, 5, 8192, POSITIONS[t] % 10, PLAIN);
    }
}

/* ---------------------------------------------------------------- experts */

int32_t *make_ids(size_t T, size_t K, size_t E)
{
    int32_t *ids = guarded(T * K, sizeof *ids, 0);
    size_t spread = random_below(3) ? E : 1, first = random_below(E - spread + 1);
    for (size_t i = 0; i < T * K; i++)
        ids[i] = (int32_t)(first + random_below(spread));
    return ids;
}

/* gelu_tanh(gate) * up, what errors of gate and up do to it, and what the function's own rounding
 * adds. */
static double geglu_bound(double gate, double up, double gate_error, double up_error)
{
    double gelu = gemma4_gelu_tanh(gate), exponent = 1.6 * fabs(gate) * (1 + 0.045 * gate * gate);
    double own = (12 + 4 * fmin(exponent, 100)) * U * fabs(gelu * up) + 0x1p-52 * fabs(gate * up) +
                 0x1p-148 * (1 + fabs(up));
    return own + 1.13 * gate_error * (fabs(up) + up_error) + fabs(gelu) * up_error;
}

static void experts_act_case(verdict *v, const gemma4_ops *ops, size_t T, size_t K, size_t E,
                             size_t M, size_t d, enum kind kind)
{
    char where[80];
    gemma4_weight w = make_weight(E * 2 * M, d, kind);
    const float *x = make_reals(T * d, kind);
    const int32_t *ids = make_ids(T, K, E);
    float *act = make_output(T * K * M), *scratch = make_scratch(ops, d, T, K);
    snprintf(where, sizeof where, "T %zu, K %zu, E %zu, M %zu, d %zu, type %d, %s", T, K, E, M, d,
             (int)w.dtype, KIND_NAMES[kind]);
    ops->experts_act(act, x, &w, ids, T, K, M, scratch);
    for (size_t i = 0; i < T * K * M; i++) {
        size_t slot = i / M, row = (size_t)ids[slot] * 2 * M + i % M;
        product gate = dot_product(x + slot / K * d, &w, row),
                up = dot_product(x + slot / K * d, &w, row + M);
        double expected = gemma4_gelu_tanh(gate.value) * up.value;
        if (isinf(expected) || isnan(expected)) { /* inf * 0 against inf * tiny: only whether it is
                                                     finite is defined */
            check_value(v, isfinite(act[i]) ? 0 : NAN, NAN, 0, where, i);
            continue;
        }
        check_value(v, (double)act[i], expected,
                    geglu_bound(gate.value, up.value, dot_bound(&gate, d) + U * fabs(gate.value),
                                dot_bound(&up, d) + U * fabs(up.value)),
                    where, i);
    }
    check_guards(v, where);
}

static const size_t EXPERT_T[] = {1, 2, 3, 5, 8, 9, 14, 15, 20, 33};
static const size_t EXPERT_K[] = {1, 2, 4, 8};
static const size_t EXPERT_WIDTHS[] = {1, 3, 7, 8, 9, 15, 16, 17, 32, 33, 48, 63, 64, 65, 66};
static const enum kind EXPERT_KINDS[] = {PLAIN, PLAIN, CANCELLING, SUBNORMAL, NOT_FINITE};

static void check_experts_act(verdict *v, const gemma4_ops *ops)
{
    for (size_t t = 0; t < COUNT(EXPERT_T); t++)
        for (size_t i = 0; i < COUNT(EXPERT_WIDTHS); i++)
            experts_act_case(v, ops, EXPERT_T[t], ANY(EXPERT_K), 8 + random_below(3),
                             EXPERT_WIDTHS[i], ANY(SIZES), ANY(EXPERT_KINDS));
}

static void experts_out_case(verdict *v, const gemma4_ops *ops, size_t T, size_t K, size_t E,
                             size_t M, size_t d, enum kind kind)
{
    char where[80];
    gemma4_weight w = make_weight(E * d, M, kind);
    const float *act = make_reals(T * K * M, kind), *weights = make_reals(T * K, PLAIN);
    const int32_t *ids = make_ids(T, K, E);
    float *y = make_output(T * d), *scratch = make_scratch(ops, M, T, K);
    snprintf(where, sizeof where, "T %zu, K %zu, E %zu, M %zu, d %zu, type %d, %s", T, K, E, M, d,
             (int)w.dtype, KIND_NAMES[kind]);
    ops->experts_out(y, act, &w, ids, weights, T, K, d, scratch);
    for (size_t i = 0; i < T * d; i++) {
        double expected = 0, bound = 0, energy = 0;
        for (size_t r = 0; r < K; r++) {
            size_t slot = i / d * K + r;
            product p = dot_product(act + slot * M, &w, (size_t)ids[slot] * d + i % d);
            double weight = (double)weights[slot];
            expected += weight * p.value;
            energy += weight * weight * p.energy * p.energy;
            bound += fabs(weight) * (dot_bound(&p, M) + (double)(K + 2) * U * p.size) + 0x1p-149;
        }
        if (kind == PLAIN && M > 8)
            check_unbiased(v, (double)y[i], expected, bound, U * sqrt(energy), where, i);
        else
            check_value(v, (double)y[i], expected, bound, where, i);
    }
    check_guards(v, where);
}

static void check_experts_out(verdict *v, const gemma4_ops *ops)
{
    static const size_t D[] = {1, 15, 16, 17, 32, 33, 63, 64, 65, 127, 128, 129};
    for (size_t t = 0; t < COUNT(EXPERT_T); t++)
        for (size_t i = 0; i < COUNT(D); i++)
            experts_out_case(v, ops, EXPERT_T[t], ANY(EXPERT_K), 8 + random_below(3),
                             ANY(EXPERT_WIDTHS), D[i], ANY(EXPERT_KINDS));
}

/* ----------------------------------------------------------- element-wise */

static void rmsnorm_case(verdict *v, const gemma4_ops *ops, size_t T, size_t n, enum kind kind)
{
    char where[80];
    gemma4_weight w = make_weight(1, n, PLAIN);
    bool weighted = random_below(3), in_place = random_below(2);
    float *x = make_reals(T * n, kind), *y = in_place ? x : make_output(T * n);
    float *copy = guarded(T * n, sizeof *copy, 0);
    memcpy(copy, x, T * n * sizeof *x);
    snprintf(where, sizeof where, "T %zu, n %zu, %s%s, %s", T, n, weighted ? "weight" : "no weight",
             in_place ? ", in place" : "", KIND_NAMES[kind]);
    ops->rmsnorm(y, x, weighted ? &w : NULL, T, n, 1e-6);
    for (size_t i = 0; i < T * n; i++) {
        double squares = 0;
        for (size_t j = 0; j < n; j++)
            squares += (double)copy[i / n * n + j] * (double)copy[i / n * n + j];
        double expected = (double)copy[i] / sqrt(squares / (double)n + 1e-6) *
                          (weighted ? (double)gemma4_weight_at(&w, i % n) : 1);
        /* the sum's relative error counts half in its root; then the root, the two products, and
         * what is subnormal */
        check_value(v, (double)y[i], expected,
                    (((double)n / 16 + 12) / 2 + 4) * U * fabs(expected) + 0x1p-149, where, i);
    }
    check_guards(v, where);
}

static void check_rmsnorm(verdict *v, const gemma4_ops *ops)
{
    static const enum kind FINITE[] = {PLAIN, PLAIN, CANCELLING, SUBNORMAL, NOT_FINITE};
    static const size_t T[] = {1, 3, 40};
    for (size_t i = 0; i < COUNT(COLS); i++)
        for (size_t t = 0; t < COUNT(T); t++)
            rmsnorm_case(v, ops, COLS[i] > 200 ? 1 : T[t], COLS[i], ANY(FINITE));
}

static void rope_case(verdict *v, const gemma4_ops *ops, size_t T, size_t heads, size_t D,
                      size_t pairs, size_t position)
{
    char where[80];
    float *x = make_reals(T * heads * D, PLAIN), *copy = guarded(T * heads * D, sizeof *copy, 0);
    memcpy(copy, x, T * heads * D * sizeof *x);
    snprintf(where, sizeof where, "T %zu, heads %zu, D %zu, pairs %zu, position %zu", T, heads, D,
             pairs, position);
    ops->rope(x, T, heads, D, pairs, 10000, position);
    for (size_t i = 0; i < T * heads * D; i++) {
        size_t lane = i % D, j = lane % (D / 2);
        if (j >= pairs) {
            check_value(v, (double)x[i], (double)copy[i], 0, where, i);
            continue;
        }
        float frequency = 1.0f / (float)pow(10000, (double)((float)(2 * j) / (float)D));
        double angle = (double)((float)(position + i / D / heads) * frequency);
        double a = (double)copy[i - lane + j], b = (double)copy[i - lane + j + D / 2];
        double expected =
            lane < D / 2 ? a * cos(angle) - b * sin(angle) : b * cos(angle) + a * sin(angle);
        /* cosine, product, sum */
        check_unbiased(v, (double)x[i], expected, 3 * U * (fabs(a) + fabs(b)), U, where, i);
    }
    check_guards(v, where);
}

static void check_rope(verdict *v, const gemma4_ops *ops)
{
    static const size_t D[] = {2, 6, 16, 30, 32, 34, 64, 66, 256, 512};
    for (size_t i = 0; i < COUNT(D); i++)
        for (size_t part = 1; part <= 3; part++) {
            size_t pairs = D[i] / 2 * part / 3;
            rope_case(v, ops, 1 + random_below(9), 1 + random_below(4), D[i], pairs,
                      random_below(2) ? 0 : random_below(262000));
        }
}

/* y may be either input. */
static void geglu_case(verdict *v, const gemma4_ops *ops, size_t n, double reach)
{
    char where[80];
    float *gate = make_reals(n, PLAIN), *up = make_reals(n, PLAIN), *inputs[] = {gate, up, NULL};
    size_t over = random_below(3);
    float *y = over < 2 ? inputs[over] : make_output(n), *gates = guarded(n, sizeof *gates, 0),
          *ups = guarded(n, sizeof *ups, 0);
    for (size_t i = 0; i < n; i++)
        gate[i] *= (float)reach;
    if (reach > 1000) { /* landmarks */
        static const float LANDMARKS[] = {0,        -0.0f,     INFINITY, -INFINITY, NAN, FLT_MIN,
                                          -FLT_MIN, 0x1p-149f, FLT_MAX,  -FLT_MAX,  11,  -11};
        for (size_t i = 0; i < n && i < COUNT(LANDMARKS); i++)
            gate[i] = LANDMARKS[i];
    }
    memcpy(gates, gate, n * sizeof *gate);
    memcpy(ups, up, n * sizeof *up);
    snprintf(where, sizeof where, "n %zu, gates up to %g, over %s", n, reach,
             over == 0   ? "gate"
             : over == 1 ? "up"
                         : "neither");
    ops->geglu(y, gate, up, n);
    for (size_t i = 0; i < n; i++) {
        double g = (double)gates[i], u = (double)ups[i];
        check_value(v, (double)y[i], gemma4_gelu_tanh(g) * u, geglu_bound(g, u, 0, 0), where, i);
    }
    check_guards(v, where);
}

static void check_geglu(verdict *v, const gemma4_ops *ops)
{
    static const double REACH[] = {1e-30, 1e-3, 1, 5, 12, 100, 1e30};
    for (size_t i = 0; i < COUNT(SIZES); i++)
        for (size_t r = 0; r < COUNT(REACH); r++)
            geglu_case(v, ops, SIZES[i], REACH[r]);
    geglu_case(v, ops, 40000, 8); /* enough for threads */
}

static void softcap_case(verdict *v, const gemma4_ops *ops, size_t n, double reach)
{
    char where[80];
    float *x = make_reals(n, PLAIN), *copy = guarded(n, sizeof *copy, 0);
    for (size_t i = 0; i < n; i++)
        x[i] *= (float)reach;
    if (reach > 1000) {
        static const float LANDMARKS[] = {0,         -0.0f,   INFINITY, -INFINITY, NAN,
                                          0x1p-149f, FLT_MAX, -FLT_MAX, 18.75f,    -18.75f};
        for (size_t i = 0; i < n && i < COUNT(LANDMARKS); i++)
            x[i] = LANDMARKS[i];
    }
    memcpy(copy, x, n * sizeof *x);
    snprintf(where, sizeof where, "n %zu, values up to %g", n, reach);
    ops->softcap(x, n, 30);
    for (size_t i = 0; i < n; i++) {
        double expected = 30 * tanh((double)copy[i] / 30);
        check_value(v, (double)x[i], expected, 8 * U * fabs(expected) + 30 * 0x1p-149, where, i);
    }
    check_guards(v, where);
}

static void check_softcap(verdict *v, const gemma4_ops *ops)
{
    static const double REACH[] = {1e-30, 1e-2, 1, 18, 19, 30, 300, 1e30};
    for (size_t i = 0; i < COUNT(SIZES); i++)
        for (size_t r = 0; r < COUNT(REACH); r++)
            softcap_case(v, ops, SIZES[i], REACH[r]);
    softcap_case(v, ops, 40000, 100);
}

/* -------------------------------------------------------------- attention */

typedef struct attention_case {
    size_t T, H, G, D, past, window, slots;
} attention_case;

static const float *key_row(const gemma4_keys *s, size_t position, size_t g, bool value)
{
    const float *past = value ? s->past_v : s->past_k, *chunk = value ? s->chunk_v : s->chunk_k;
    return (position < s->past ? past + position % s->slots * s->G * s->D
                               : chunk + (position - s->past) * s->G * s->D) +
           g * s->D;
}

/* One query row by the definition, in double. */
static void judge_attention(verdict *v, const float *found, const float *q, const gemma4_keys *s,
                            size_t t, size_t g, const char *where)
{
    gemma4_visible keys = gemma4_visible_through(s->window, s->past + t);
    size_t first = keys.first, n = keys.end - keys.first;
    double *p = malloc(n * sizeof *p), largest = -INFINITY, sum = 0, score_error = 0;
    for (size_t j = 0; j < n; j++) {
        const float *k = key_row(s, first + j, g, false);
        double size = 0;
        p[j] = 0;
        for (size_t i = 0; i < s->D; i++) {
            p[j] += (double)q[i] * (double)k[i];
            size += fabs((double)q[i] * (double)k[i]);
        }
        largest = fmax(largest, p[j]);
        /* the product; the difference from the largest */
        score_error = fmax(score_error, (depth(s->D) * size + 2 * fabs(p[j])) * U);
    }
    for (size_t j = 0; j < n; j++)
        sum += p[j] = exp(p[j] - largest);
    for (size_t i = 0; i < s->D; i++) {
        double expected = 0, size = 0;
        for (size_t j = 0; j < n; j++) {
            expected += p[j] / sum * (double)key_row(s, first + j, g, true)[i];
            size += p[j] / sum * fabs((double)key_row(s, first + j, g, true)[i]);
        }
        /* weights: 4 score errors (this one, the largest's; above and below the line), 4
         * exponentials; sums over n keys twice, a rescaling a block; the division */
        double relative = 4 * score_error + (16 + 2 * (double)n + (double)n / 4) * U;
        if (i == 0) /* the lanes of a row share the errors of its weights: one of them stands for
                       all */
            check_unbiased(v, (double)found[i], expected, relative * size + 0x1p-140, U * size,
                           where, i);
        else
            check_value(v, (double)found[i], expected, relative * size + 0x1p-140, where, i);
    }
    free(p);
}

static void attention_run(verdict *v, const gemma4_ops *ops, const attention_case *c)
{
    char where[80];
    size_t width = c->G * c->D;
    const float *q = make_reals(c->T * c->H * c->D, PLAIN);
    /* NaN where no query may look */
    float *past_k = make_output(c->slots * width), *past_v = make_output(c->slots * width);
    float *chunk_k = make_reals(c->T * width, PLAIN), *chunk_v = make_reals(c->T * width, PLAIN);
    float *context = make_output(c->T * c->H * c->D);
    gemma4_keys s = {c->G, c->D, c->past, c->slots, c->window, past_k, past_v, chunk_k, chunk_v};
    for (size_t position = gemma4_visible_through(c->window, c->past).first; position < c->past;
         position++) {
        fill(past_k + position % c->slots * width, width, PLAIN);
        fill(past_v + position % c->slots * width, width, PLAIN);
    }
    for (size_t i = 0; i < c->T * width; i++)
        chunk_k[i] *= 3;                  /* scores that differ */
    if (c->T > 1 && random_below(4) == 0) /* what only the last query sees must not reach the
                                             others */
        chunk_v[c->T * width - 1] = chunk_k[c->T * width - 1] = NAN;
    snprintf(where, sizeof where, "T %zu, H %zu, G %zu, D %zu, past %zu, window %zu", c->T, c->H,
             c->G, c->D, c->past, c->window == SIZE_MAX ? 0 : c->window);
    ops->attention(context, q, &s, c->T, c->H);
    for (size_t t = 0; t < c->T; t++)
        for (size_t h = 0; h < c->H; h++)
            judge_attention(v, context + (t * c->H + h) * c->D, q + (t * c->H + h) * c->D, &s, t,
                            h / (c->H / c->G), where);
    check_guards(v, where);
}

static void check_attention(verdict *v, const gemma4_ops *ops)
{
    static const size_t T[] = {1, 2, 3, 5, 8, 9, 17, 33, 40, 65},
                        HEADS[][2] = {{1, 1}, {4, 2}, {3, 1}, {8, 2}, {20, 1}};
    static const size_t D[] = {2, 4, 8, 10, 16, 18, 32, 34, 48, 64}, PAST[] = {0, 1, 31, 32, 70},
                        WINDOW[] = {1, 2, 15, 16, 33, SIZE_MAX};
    if (!ops->attention)
        return;
    for (size_t t = 0; t < COUNT(T); t++)
        for (size_t w = 0; w < COUNT(WINDOW); w++) {
            const size_t *heads = HEADS[random_below(COUNT(HEADS))];
            attention_case c = {.T = T[t],
                                .H = heads[0],
                                .G = heads[1],
                                .D = ANY(D),
                                .past = ANY(PAST),
                                .window = WINDOW[w]};
            /* all, or a ring */
            c.slots = c.window == SIZE_MAX || random_below(2) ? c.past + c.T : c.window;
            attention_run(v, ops, &c);
        }
}

/* -------------------------------------------------------------------- all */

const operator_check operator_checks[] = {
    {"matmul", check_matmul},
    {"experts_act", check_experts_act},
    {"experts_out", check_experts_out},
    {"attention", check_attention},
    {"rmsnorm", check_rmsnorm},
    {"rope", check_rope},
    {"geglu", check_geglu},
    {"softcap", check_softcap},
};
const size_t operator_check_count = COUNT(operator_checks);
