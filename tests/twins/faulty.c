/* Twins that must fail: the best twin of the machine with one thing wrong. If the checker passes
 * one of them, it checks nothing. */
#include <math.h>
#include <string.h>

#include "twins.h"

static gemma4_ops right; /* the twin that the faults are planted in */

static double term(const float *x, const gemma4_weight *w, size_t t, size_t row, size_t k)
{
    return (double)x[t * w->cols + k] * (double)gemma4_weight_at(w, row * w->cols + k);
}

/* Leaves out the columns after the last multiple of 16. */
static GEMMA4_MATMUL(matmul_without_tail)
{
    right.matmul(y, x, w, T, scratch);
    for (size_t i = 0; i < T * w->rows; i++)
        for (size_t k = w->cols / 16 * 16; k < w->cols && w->cols > 16; k++)
            y[i] -= (float)term(x, w, i / w->rows, i % w->rows, k);
}

static GEMMA4_MATMUL(matmul_without_last)
{
    right.matmul(y, x, w, T, scratch);
    for (size_t i = 0; i < T * w->rows; i++)
        y[i] -= (float)term(x, w, i / w->rows, i % w->rows, w->cols - 1);
}

/* Counts the first column twice where rows of bf16 do not begin with a line of the cache: the
 * overlap of head and body. */
static GEMMA4_MATMUL(matmul_with_overlap)
{
    right.matmul(y, x, w, T, scratch);
    for (size_t i = 0;
         i < T * w->rows && w->dtype == GEMMA4_BF16 && w->cols % 64 == 0 && (uintptr_t)w->data % 64;
         i++)
        y[i] += (float)term(x, w, i / w->rows, i % w->rows, 0);
}

static GEMMA4_MATMUL(matmul_with_swapped_lanes)
{
    right.matmul(y, x, w, T, scratch);
    if (w->rows < 16)
        return;
    float lane = y[3];
    y[3] = y[4];
    y[4] = lane;
}

/* Exact sums, but rounded towards zero: never wrong by a whole unit in the last place. */
static GEMMA4_MATMUL(matmul_rounding_down)
{
    (void)scratch;
    for (size_t i = 0; i < T * w->rows; i++) {
        double sum = 0;
        for (size_t k = 0; k < w->cols; k++)
            sum += term(x, w, i / w->rows, i % w->rows, k);
        y[i] = (float)sum;
        if (fabs((double)y[i]) > fabs(sum))
            y[i] = nextafterf(y[i], 0);
    }
}

static GEMMA4_MATMUL(matmul_writing_behind)
{
    right.matmul(y, x, w, T, scratch);
    volatile float *end = y + T * w->rows;
    *end = 0;
}

static GEMMA4_MATMUL(matmul_reading_behind)
{
    right.matmul(y, x, w, T, scratch);
    volatile const char *end =
        (const char *)w->data + w->rows * w->cols * (w->dtype == GEMMA4_F32 ? 4 : 2);
    (void)*end;
}

/* A sum in bfloat16-like precision: rounded to 16 bits of mantissa. */
static GEMMA4_MATMUL(matmul_in_few_bits)
{
    right.matmul(y, x, w, T, scratch);
    for (size_t i = 0; i < T * w->rows; i++) {
        float shifted = y[i] * 257;
        y[i] = shifted - (shifted - y[i]);
    }
}

static GEMMA4_EXPERTS_ACT(experts_act_up_first)
{
    right.experts_act(act, x, gate_up_proj, ids, T, K, M, scratch);
    if (M < 2)
        return;
    for (size_t i = 0; i + 1 < T * K * M; i += M) {
        float lane = act[i];
        act[i] = act[i + 1];
        act[i + 1] = lane;
    }
}

/* Forgets the last slot of an expert. */
static GEMMA4_EXPERTS_OUT(experts_out_without_last)
{
    right.experts_out(y, act, down_proj, ids, weights, T, K, d, scratch);
    size_t slot = T * K - 1, M = down_proj->cols;
    for (size_t j = 0; j < d; j++)
        for (size_t k = 0; k < M; k++)
            y[slot / K * d + j] -= weights[slot] * act[slot * M + k] *
                                   gemma4_weight_at(down_proj, ((size_t)ids[slot] * d + j) * M + k);
}

static GEMMA4_ATTENTION(attention_one_key_too_many)
{
    gemma4_keys wider = *keys;
    wider.window = keys->window == SIZE_MAX ? SIZE_MAX : keys->window + 1;
    right.attention(context, q, &wider, T, H);
}

static GEMMA4_ATTENTION(attention_one_key_too_few)
{
    gemma4_keys narrower = *keys;
    if (keys->window > 1 && keys->window != SIZE_MAX)
        narrower.window--;
    right.attention(context, q, &narrower, T, H);
}

static GEMMA4_RMSNORM(rmsnorm_eps_outside)
{
    right.rmsnorm(y, x, w, T, n, 0);
    (void)eps;
}

static GEMMA4_ROPE(rope_neighbours)
{
    right.rope(x, T, heads, D, pairs, theta, first_position + 1);
}

/* The erf form: up to 5e-4 away. */
static GEMMA4_GEGLU(geglu_erf)
{
    for (size_t i = 0; i < n; i++)
        y[i] = (float)(0.5 * (double)gate[i] * (1 + erf((double)gate[i] * 0.70710678118654752440)) *
                       (double)up[i]);
}

static GEMMA4_SOFTCAP(softcap_without_tail)
{
    right.softcap(x, n / 8 * 8, cap);
}

/* Sums in one lane: a right sum, rounded otherwise. */
static GEMMA4_MATMUL(matmul_in_one_lane)
{
    (void)scratch;
    for (size_t i = 0; i < T * w->rows; i++) {
        double sum = 0;
        for (size_t k = 0; k < w->cols; k++)
            sum += term(x, w, i / w->rows, i % w->rows, k);
        y[i] = (float)sum;
    }
}

/* The sum over a position's slots is kept in float32. */
static GEMMA4_EXPERTS_OUT(experts_out_in_float)
{
    (void)scratch;
    for (size_t i = 0; i < T * d; i++) {
        float sum = 0;
        for (size_t slot = i / d * K; slot < (i / d + 1) * K; slot++) {
            double product = 0;
            for (size_t k = 0; k < down_proj->cols; k++)
                product += term(act, down_proj, slot, (size_t)ids[slot] * d + i % d, k);
            sum = (float)((double)sum + (double)weights[slot] * product);
        }
        y[i] = sum;
    }
}

static GEMMA4_SCORES(scores_in_float)
{
    right.scores(scores, q, keys, t, H);
    gemma4_visible visible = gemma4_visible_through(keys->window, keys->past + t);
    for (size_t j = visible.first; j < visible.end; j++) {
        float sum = 0;
        for (size_t i = 0; i < keys->D; i++)
            sum += q[i] * gemma4_key_row(keys, j, 0, false)[i];
        scores[j - visible.first] = sum;
    }
}

#define PLANT(slot, function)                     \
    static void plant_##function(gemma4_ops *ops) \
    {                                             \
        right = *ops;                             \
        ops->slot = function;                     \
    }
PLANT(matmul, matmul_without_tail)
PLANT(matmul, matmul_without_last)
PLANT(matmul, matmul_with_overlap)
PLANT(matmul, matmul_with_swapped_lanes)
PLANT(matmul, matmul_rounding_down)
PLANT(matmul, matmul_writing_behind)
PLANT(matmul, matmul_reading_behind)
PLANT(matmul, matmul_in_few_bits)
PLANT(experts_act, experts_act_up_first)
PLANT(experts_out, experts_out_without_last)
PLANT(attention, attention_one_key_too_many)
PLANT(attention, attention_one_key_too_few)
PLANT(rmsnorm, rmsnorm_eps_outside)
PLANT(rope, rope_neighbours)
PLANT(geglu, geglu_erf)
PLANT(softcap, softcap_without_tail)
PLANT(matmul, matmul_in_one_lane)
PLANT(experts_out, experts_out_in_float)
PLANT(scores, scores_in_float)

const faulty_twin faulty_twins[] = {
    {"leaves out the tail", "matmul", plant_matmul_without_tail},
    {"drops the last column", "matmul", plant_matmul_without_last},
    {"counts a column twice", "matmul", plant_matmul_with_overlap},
    {"swaps two lanes", "matmul", plant_matmul_with_swapped_lanes},
    {"rounds towards zero", "matmul", plant_matmul_rounding_down},
    {"writes past the end", "matmul", plant_matmul_writing_behind},
    {"reads past the end", "matmul", plant_matmul_reading_behind},
    {"sums in 16 bits", "matmul", plant_matmul_in_few_bits},
    {"swaps two lanes", "experts_act", plant_experts_act_up_first},
    {"forgets a slot", "experts_out", plant_experts_out_without_last},
    {"sees a key too many", "attention", plant_attention_one_key_too_many},
    {"sees a key too few", "attention", plant_attention_one_key_too_few},
    {"leaves out eps", "rmsnorm", plant_rmsnorm_eps_outside},
    {"is a position ahead", "rope", plant_rope_neighbours},
    {"takes GELU's erf form", "geglu", plant_geglu_erf},
    {"leaves out the tail", "softcap", plant_softcap_without_tail},
};
const size_t faulty_twin_count = COUNT(faulty_twins);

/* Too small for a bound to see; of the first two few values differ. */
const faulty_twin faulty_exact[] = {
    {"sums in one lane", "matmul", plant_matmul_in_one_lane},
    {"leaves out the tail", "matmul", plant_matmul_without_tail},
    {"sums in float32", "experts_out", plant_experts_out_in_float},
    {"swaps two lanes", "experts_act", plant_experts_act_up_first},
    {"sums in float32", "attention_scores", plant_scores_in_float},
    {"leaves out eps", "rmsnorm", plant_rmsnorm_eps_outside},
    {"takes GELU's erf form", "geglu", plant_geglu_erf},
    {"leaves out the tail", "softcap", plant_softcap_without_tail},
};
const size_t faulty_exact_count = COUNT(faulty_exact);
