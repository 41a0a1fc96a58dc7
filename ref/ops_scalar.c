/* The scalar operators, which are the reference: section 3 of spec/model.md, and the experts of
 * 4.5. They know nothing of the model; ref/forward.c puts them together, and explains the shape
 * letters.
 * Their twins stand beside this file (ref/ops_simd.h, spec/twins.md), the prototypes of both in
 * ref/ops.h.
 *
 * Every sum and every transcendental function is evaluated in double and rounded once, when it is
 * stored (spec/numerics.md). */
#include "ops.h"
#include "quantised.h"

#include <math.h>
#include <string.h>

typedef gemma4_real real;

/* ---------------------------------------------------------------- weights */

/* bf16 is the upper half of a float32: the same sign and exponent, a mantissa of 7 bits. */
static float bf16_to_float(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/* IEEE half precision: 1 sign, 5 exponent and 10 mantissa bits. */
static float f16_to_float(uint16_t bits)
{
    int exponent = (bits >> 10) & 31;
    int mantissa = bits & 1023;
    float magnitude;
    if (exponent == 31)
        magnitude = mantissa ? NAN : INFINITY;
    else if (exponent == 0)
        magnitude = ldexpf((float)mantissa, -24); /* subnormal */
    else
        magnitude = ldexpf((float)(1024 + mantissa), exponent - 25); /* 1024: the leading one */
    return bits & 0x8000 ? -magnitude : magnitude;
}

/* Weights are widened where they are read and never stored wide: a checkpoint is mapped, not
 * loaded. */
float gemma4_weight_at(const gemma4_weight *w, size_t index)
{
    switch (w->dtype) {
    case GEMMA4_BF16: return bf16_to_float(((const uint16_t *)w->data)[index]);
    case GEMMA4_F16: return f16_to_float(((const uint16_t *)w->data)[index]);
    case GEMMA4_QUANTISED: return gemma4_quantised_at(w->data, index / w->cols, index % w->cols);
    default: return ((const float *)w->data)[index];
    }
}

void gemma4_weight_row(float *out, const gemma4_weight *w, size_t row)
{
    if (w->dtype == GEMMA4_QUANTISED) {
        gemma4_quantised_row(out, w->data, row, w->cols);
        return;
    }
    const uint16_t *bits = (const uint16_t *)w->data + row * w->cols;
    /* bf16, as all weights of the published checkpoint are: without the switch in the loop. */
    if (w->dtype == GEMMA4_BF16) {
        for (size_t i = 0; i < w->cols; i++)
            out[i] = bf16_to_float(bits[i]);
        return;
    }
    for (size_t i = 0; i < w->cols; i++)
        out[i] = gemma4_weight_at(w, row * w->cols + i);
}

/* No copy: a stack of experts is one matrix, and an expert is some of its rows. */
gemma4_weight gemma4_weight_rows(const gemma4_weight *w, size_t first_row, size_t rows)
{
    size_t element = gemma4_weight_size(w->dtype);
    gemma4_weight view = *w;
    view.data = (const char *)w->data + first_row * w->cols * element;
    view.rows = rows;
    return view;
}

/* ---------------------------------------------- operators (spec/model.md, 3) */

/* sum of x[i] w[i]: x is (n) activations, w is (n) floats of one weight row. A product of two
 * float32 is exact in double. Four sums run side by side, because one alone would wait for each
 * addition; their order is fixed, so that a result does not depend on how a sequence is cut. */
double gemma4_dot(const real *x, const float *w, size_t n)
{
    double sum[4] = {0};
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (size_t lane = 0; lane < 4; lane++)
            sum[lane] += (double)x[i + lane] * (double)w[i + lane];
    for (; i < n; i++)
        sum[0] += (double)x[i] * (double)w[i];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* How many floats of scratch the operators below take: here one row of a weight, widened. */

size_t gemma4_scratch(size_t cols, size_t T, size_t K)
{
    (void)T, (void)K; /* the twins' scratch depends on them */
    return cols;
}

/* 3.1  y = W x: y is (T, rows), x is (T, cols), W is [rows, cols] as in the checkpoint, where rows
 * is the output's width. No projection of this model has a bias. The weight's row stands in the
 * outer loop, because it is the larger of the two: it is widened once for all positions. */
void gemma4_matmul(real *y, const real *x, const gemma4_weight *w, size_t T, float *w_row)
{
    for (size_t o = 0; o < w->rows; o++) {
        gemma4_weight_row(w_row, w, o);
        for (size_t t = 0; t < T; t++)
            y[t * w->rows + o] = (real)gemma4_dot(x + t * w->cols, w_row, w->cols);
    }
}

/* 3.2  y = x / sqrt(mean(x^2) + eps) * w: x and y are (T, n), w is [n] or NULL. Divides a row by
 * its size and forgets it: what a branch reads then does not grow with the residual stream, which
 * does from layer to layer. No mean is subtracted: that is LayerNorm. */
void gemma4_rmsnorm(real *y, const real *x, const gemma4_weight *w, size_t T, size_t n, double eps)
{
    for (size_t t = 0; t < T; t++) {
        const real *x_t = x + t * n;
        real *y_t = y + t * n;
        double sum_of_squares = 0;
        for (size_t i = 0; i < n; i++)
            sum_of_squares += (double)x_t[i] * (double)x_t[i];
        double scale = 1.0 / sqrt(sum_of_squares / (double)n + eps); /* eps is inside the root */
        /* The weight is used as it is: not 1 + w, as in Gemma 1 to 3. */
        for (size_t i = 0; i < n; i++)
            y_t[i] = (real)((double)x_t[i] * scale * (w ? (double)gemma4_weight_at(w, i) : 1.0));
    }
}

/* 3.5  Rotary position embedding, in place: x is (T, heads, D), row t at position first_position
 * + t. Lane j of a head and lane j + D/2 are the two coordinates of a point, which is turned by
 * an angle proportional to the position. The product of a turned query and a turned key then
 * depends on the distance between them, and on nothing else of their positions. Each pair has a
 * frequency of its own: pair 0 turns by 1 rad a position, each later one more slowly. On full
 * layers only the first quarter of the pairs turns; the slow ones stand still, and match by
 * content at any distance. */
void gemma4_rope(real *x, size_t T, size_t heads, size_t D, size_t pairs, double theta,
                 size_t first_position)
{
    for (size_t j = 0; j < pairs; j++) {
        /* The denominator is the head dim, even where only some of the pairs rotate. All three are
         * rounded to float32, as the definition does: at far positions that moves angles by more
         * than anything else in float32. */
        float exponent = (float)(2 * j) / (float)D;
        float frequency = 1.0f / (float)pow(theta, (double)exponent);
        for (size_t t = 0; t < T; t++) {
            float angle = (float)(first_position + t) * frequency; /* in rad */
            double c = cos((double)angle), s = sin((double)angle);
            for (size_t h = 0; h < heads; h++) {
                real *x_th = x + (t * heads + h) * D;
                /* (a, b) turned by the angle. The partner is half a head away, not next to it. */
                double a = (double)x_th[j], b = (double)x_th[j + D / 2];
                x_th[j] = (real)(a * c - b * s);
                x_th[j + D / 2] = (real)(b * c + a * s);
            }
        }
    }
}

/* 3.4  y = exp(x) / sum(exp(x)) over n values. The largest is subtracted first: the quotient is the
 * same, and no exponential overflows. */
void gemma4_softmax(real *y, const real *x, size_t n)
{
    double largest = (double)x[0], sum = 0;
    for (size_t i = 1; i < n; i++)
        largest = fmax(largest, (double)x[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - largest);
    for (size_t i = 0; i < n; i++)
        y[i] = (real)(exp((double)x[i] - largest) / sum);
}

/* 3.3  GELU in its tanh form, which the model was trained with. The erf form differs by up to
 * 5e-4. */
double gemma4_gelu_tanh(double x)
{
    const double sqrt_2_over_pi = 0.79788456080286535588; /* the slope of erf(x / sqrt(2)) at 0 */
    return 0.5 * x * (1.0 + tanh(sqrt_2_over_pi * (x + 0.044715 * x * x * x)));
}

/* GeGLU: y, gate and up are (n). One projection (gate), squashed, decides how much of the other
 * (up) goes on. */
void gemma4_geglu(real *y, const real *gate, const real *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = (real)(gemma4_gelu_tanh((double)gate[i]) * (double)up[i]);
}

/* ids is (k): the indices of the k largest of n values, largest first. Of equals the lower index is
 * taken; an engine may take the other one. k is 8: a sort would not be quicker to read. */
void gemma4_top_k(int32_t *ids, size_t k, const real *values, size_t n)
{
    for (size_t rank = 0; rank < k; rank++) {
        int32_t best = -1; /* none yet */
        for (size_t i = 0; i < n; i++) {
            bool taken = false;
            for (size_t r = 0; r < rank; r++)
                taken = taken || ids[r] == (int32_t)i;
            if (!taken && (best < 0 || values[i] > values[best]))
                best = (int32_t)i;
        }
        ids[rank] = best;
    }
}

/* cap * tanh(x / cap), in place on (n): about x where x is small, never beyond +-cap. Keeps the
 * order of the logits, so greedy text does not show that it is missing; probabilities do. */
void gemma4_softcap(real *x, size_t n, double cap)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (real)(cap * tanh((double)x[i] / cap));
}

/* 4.5  The first half of the chosen experts: act is (T, K, M), x is (T, d), gate_up_proj is
 * [E * 2M, d], ids is (T, K). An expert is a small gated MLP like the dense one; only the K experts
 * that ids names are touched, which is why 3.8 of 25.2 billion parameters work on a token. */
void gemma4_experts_act(real *act, const real *x, const gemma4_weight *gate_up_proj,
                        const int32_t *ids, size_t T, size_t K, size_t M, float *w_row)
{
    size_t d = gate_up_proj->cols;
    for (size_t t = 0; t < T; t++)
        for (size_t r = 0; r < K; r++) {
            size_t first_row = (size_t)ids[t * K + r] * 2 * M; /* M gate rows, then M up rows */
            for (size_t m = 0; m < M; m++) {
                gemma4_weight_row(w_row, gate_up_proj, first_row + m);
                real gate = (real)gemma4_dot(x + t * d, w_row, d);
                gemma4_weight_row(w_row, gate_up_proj, first_row + M + m);
                real up = (real)gemma4_dot(x + t * d, w_row, d);
                gemma4_geglu(act + (t * K + r) * M + m, &gate, &up, 1);
            }
        }
}

/* 4.5  The second half: y is (T, d), act is (T, K, M), down_proj is [E * d, M], ids and weights are
 * (T, K). Each chosen expert's output, times its routing weight, summed. */
void gemma4_experts_out(real *y, const real *act, const gemma4_weight *down_proj,
                        const int32_t *ids, const real *weights, size_t T, size_t K, size_t d,
                        float *w_row)
{
    size_t M = down_proj->cols;
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < d; i++) {
            double sum = 0;
            for (size_t r = 0; r < K; r++) {
                gemma4_weight_row(w_row, down_proj, (size_t)ids[t * K + r] * d + i);
                sum += (double)weights[t * K + r] * gemma4_dot(act + (t * K + r) * M, w_row, M);
            }
            y[t * d + i] = (real)sum;
        }
}

/* 4.2  scores[h, j] = q[h] . k[j] of the KV head that h reads: heads 0 and 1 read KV head 0, and so
 * on, where H / G is 2. q is (H, D), the query in row t of the chunk; scores is (H, keys) over the
 * keys that it sees. */
void gemma4_attention_scores(real *scores, const real *q, const gemma4_keys *keys, size_t t,
                             size_t H)
{
    size_t D = keys->D;
    gemma4_visible visible = gemma4_visible_through(keys->window, keys->past + t);
    size_t n = visible.end - visible.first;
    for (size_t h = 0; h < H; h++) {
        const real *q_h = q + h * D;
        size_t g = h / (H / keys->G);
        for (size_t j = 0; j < n; j++) {
            const real *k_j = gemma4_key_row(keys, visible.first + j, g, false);
            double score = 0;
            for (size_t i = 0; i < D; i++)
                score += (double)q_h[i] * (double)k_j[i];
            scores[h * n + j] = (real)score;
        }
    }
}

/* 4.2  context[h, i] = sum over j of probs[h, j] v[j, i]: context is (H, D), probs is (H, keys).
 * Values carry no position: they are what is said, not where. */
void gemma4_attention_context(real *context, const real *probs, const gemma4_keys *keys, size_t t,
                              size_t H)
{
    size_t D = keys->D;
    gemma4_visible visible = gemma4_visible_through(keys->window, keys->past + t);
    size_t n = visible.end - visible.first;
    for (size_t h = 0; h < H; h++) {
        size_t g = h / (H / keys->G);
        for (size_t i = 0; i < D; i++) {
            double sum = 0;
            for (size_t j = 0; j < n; j++)
                sum += (double)probs[h * n + j] *
                       (double)gemma4_key_row(keys, visible.first + j, g, true)[i];
            context[h * D + i] = (real)sum;
        }
    }
}
