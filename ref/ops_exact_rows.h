/* The rest of ref/ops_exact.h, which includes it behind its products: what is computed value by
 * value, RMSNorm, and attention that shows scores and probabilities. */
/* ------------------------------------------------- element by element, by threads */

GEMMA4_GEGLU(EXACT(gemma4_geglu))
{
#pragma omp parallel for schedule(static) if (n >= ELEMENTWISE)
    for (size_t i = 0; i < n; i++)
        y[i] = (float)(gemma4_gelu_tanh((double)gate[i]) * (double)up[i]);
}

GEMMA4_SOFTCAP(EXACT(gemma4_softcap))
{
    size_t pieces = (n + ELEMENTWISE / 8 - 1) / (ELEMENTWISE / 8);
#pragma omp parallel for schedule(dynamic) if (n >= ELEMENTWISE)
    for (size_t p = 0; p < pieces; p++) {
        size_t first = p * (ELEMENTWISE / 8);
        gemma4_softcap(x + first, least(ELEMENTWISE / 8, n - first), cap);
    }
}

/* ---------------------------------------------------------------- RMSNorm */

/* Sums of squares of 4 rows side by side: each one is a chain of additions, in order. */
static void sums_of_squares(double *sums, const float *x, size_t n, size_t rows)
{
    const float *x_0 = x, *x_1 = x + least(1, rows - 1) * n, *x_2 = x + least(2, rows - 1) * n,
                *x_3 = x + least(3, rows - 1) * n;
    double sum_0 = 0, sum_1 = 0, sum_2 = 0, sum_3 = 0;
    for (size_t i = 0; i < n; i++) {
        sum_0 += (double)x_0[i] * (double)x_0[i];
        sum_1 += (double)x_1[i] * (double)x_1[i];
        sum_2 += (double)x_2[i] * (double)x_2[i];
        sum_3 += (double)x_3[i] * (double)x_3[i];
    }
    sums[0] = sum_0;
    sums[1] = sum_1;
    sums[2] = sum_2;
    sums[3] = sum_3;
}

/* y = x * scale * w: w is in one of three types, or NULL. */
static void scale_row(float *y, const float *x, double scale, const gemma4_weight *w, size_t n)
{
    size_t i = 0;
    quad factor = quad_set1(scale);
    source from = !w                        ? WIDENED
                  : w->dtype == GEMMA4_BF16 ? AS_BF16
                  : w->dtype == GEMMA4_F16  ? AS_F16
                                            : AS_F32;
    for (; i + QUAD <= n; i += QUAD) {
        quad scaled = quad_mul(quad_load_f32(x + i), factor);
        quad_store_f32(y + i, w ? quad_mul(scaled, weights_load(w->data, from, i)) : scaled);
    }
    for (; i < n; i++)
        y[i] = (float)((double)x[i] * scale * (w ? (double)gemma4_weight_at(w, i) : 1.0));
}

GEMMA4_RMSNORM(EXACT(gemma4_rmsnorm))
{
    if (w && w->dtype == GEMMA4_QUANTISED) {
        gemma4_rmsnorm(y, x, w, T, n, eps);
        return;
    }
#pragma omp parallel for schedule(static) if (T * n >= NORMED)
    for (size_t first = 0; first < T; first += QUAD) {
        double sums[QUAD];
        size_t rows = least(QUAD, T - first);
        sums_of_squares(sums, x + first * n, n, rows);
        for (size_t t = 0; t < rows; t++)
            scale_row(y + (first + t) * n, x + (first + t) * n,
                      1.0 / sqrt(sums[t] / (double)n + eps), w, n);
    }
}

/* -------------------------------------------------------------- attention */

enum {
    KEY_QUADS = 4, /* keys and lanes of a head that are computed side by side, in quads */
    HEADS = 2,     /* query heads likewise */
};

/* 4 keys' values i ... i + 3 as quads: columns[l] holds value i + l of each. */
INLINE void load_columns(quad columns[QUAD], const float *const *k, size_t i, size_t D)
{
    double lanes[QUAD];
    if (i + QUAD <= D) {
        quad_load_columns(columns, k, i);
        return;
    }
    for (size_t l = 0; i + l < D; l++) {
        for (size_t j = 0; j < QUAD; j++)
            lanes[j] = (double)k[j][i + l];
        columns[l] = quad_load(lanes);
    }
}

/* scores[h * n + j] = q_h . k_j for KEY_QUADS quads of keys, in the order of the lanes; `count` of
 * the keys are written. */
INLINE void score_keys(float *scores, size_t n, size_t count, const float *q, const float *const *k,
                       size_t D, size_t heads)
{
    quad sum[HEADS * KEY_QUADS], columns[QUAD];
    UNROLL
    for (size_t a = 0; a < heads * KEY_QUADS; a++)
        sum[a] = quad_zero();
    for (size_t i = 0; i < D; i += QUAD) {
        size_t lanes = least(QUAD, D - i);
        UNROLL
        for (size_t b = 0; b < KEY_QUADS; b++) {
            load_columns(columns, k + b * QUAD, i, D);
            for (size_t l = 0; l < lanes; l++) {
                UNROLL
                for (size_t h = 0; h < heads; h++)
                    sum[h * KEY_QUADS + b] = quad_fma(quad_set1((double)q[h * D + i + l]),
                                                      columns[l], sum[h * KEY_QUADS + b]);
            }
        }
    }
    for (size_t h = 0; h < heads; h++) {
        double found[KEY_QUADS * QUAD];
        for (size_t b = 0; b < KEY_QUADS; b++)
            quad_store(found + b * QUAD, sum[h * KEY_QUADS + b]);
        for (size_t j = 0; j < count; j++)
            scores[h * n + j] = (float)found[j];
    }
}

GEMMA4_SCORES(EXACT(gemma4_attention_scores))
{
    enum { BLOCK = KEY_QUADS * QUAD };
    size_t D = keys->D, group = H / keys->G;
    gemma4_visible visible = gemma4_visible_through(keys->window, keys->past + t);
    size_t n = visible.end - visible.first, blocks = (n + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(static) if (H * n * D >= THREADED)
    for (size_t work = 0; work < keys->G * blocks; work++) {
        size_t g = work / blocks, first = work % blocks * BLOCK, h = g * group;
        const float *k[BLOCK];
        for (size_t j = 0; j < BLOCK; j++)
            k[j] = gemma4_key_row(keys, visible.first + least(first + j, n - 1), g, false);
        for (; h + HEADS <= (g + 1) * group; h += HEADS)
            score_keys(scores + h * n + first, n, least(BLOCK, n - first), q + h * D, k, D, HEADS);
        if (h < (g + 1) * group)
            score_keys(scores + h * n + first, n, least(BLOCK, n - first), q + h * D, k, D, 1);
    }
}

/* context[h * D + i] = sum over j of probs[h * n + j] v_j[i] for lanes i of KEY_QUADS quads. */
INLINE void mix_values(float *context, const float *probs, size_t n, const gemma4_keys *keys,
                       size_t first_key, size_t g, size_t i, size_t heads)
{
    quad sum[HEADS * KEY_QUADS], v_j[KEY_QUADS];
    UNROLL
    for (size_t a = 0; a < heads * KEY_QUADS; a++)
        sum[a] = quad_zero();
    for (size_t j = 0; j < n; j++) {
        const float *v = gemma4_key_row(keys, first_key + j, g, true) + i;
        UNROLL
        for (size_t b = 0; b < KEY_QUADS; b++)
            v_j[b] = quad_load_f32(v + b * QUAD);
        UNROLL
        for (size_t h = 0; h < heads; h++) {
            quad p = quad_set1((double)probs[h * n + j]);
            UNROLL
            for (size_t b = 0; b < KEY_QUADS; b++)
                sum[h * KEY_QUADS + b] = quad_fma(p, v_j[b], sum[h * KEY_QUADS + b]);
        }
    }
    UNROLL
    for (size_t h = 0; h < heads; h++)
        UNROLL
    for (size_t b = 0; b < KEY_QUADS; b++)
        quad_store_f32(context + h * keys->D + i + b * QUAD, sum[h * KEY_QUADS + b]);
}

GEMMA4_CONTEXT(EXACT(gemma4_attention_context))
{
    enum { LANES_AT_ONCE = KEY_QUADS * QUAD };
    size_t D = keys->D, group = H / keys->G, pairs = (group + HEADS - 1) / HEADS;
    gemma4_visible visible = gemma4_visible_through(keys->window, keys->past + t);
    size_t n = visible.end - visible.first;
#pragma omp parallel for schedule(static) if (H * n * D >= THREADED)
    for (size_t work = 0; work < keys->G * pairs; work++) {
        size_t g = work / pairs, h = g * group + work % pairs * HEADS, i = 0;
        size_t heads = least(HEADS, (g + 1) * group - h);
        float *out = context + h * D;
        const float *p = probs + h * n;
        for (; i + LANES_AT_ONCE <= D; i += LANES_AT_ONCE)
            if (heads == HEADS)
                mix_values(out, p, n, keys, visible.first, g, i, HEADS);
            else
                mix_values(out, p, n, keys, visible.first, g, i, 1);
        for (size_t a = 0; a < heads; a++)
            for (size_t l = i; l < D; l++) {
                double sum = 0;
                for (size_t j = 0; j < n; j++)
                    sum += (double)p[a * n + j] *
                           (double)gemma4_key_row(keys, visible.first + j, g, true)[l];
                out[a * D + l] = (float)sum;
            }
    }
}
