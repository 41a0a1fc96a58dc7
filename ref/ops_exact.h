/* The scalar operators (ref/ops_scalar.c) once more, faster, to the same bits: what the checker's
 * runs use (spec/twins.md, "Exact operators"). ops_exact_avx2.c and ops_exact_neon.c each include
 * this file behind their vocabulary (simd_exact_*.h), in which a quad is 4 doubles.
 *
 * gemma4_dot sums in four lanes of double, in a fixed order. A product of two float32 is exact in
 * double, so that a fused multiply-add rounds as a product and a sum do: a quad is the four lanes.
 * What is free is which products are computed side by side: ROWS rows of weights times COLUMNS rows
 * of x are summed up in registers, and a row of weights is widened once for all positions (for all
 * slots of its expert). Transcendental functions are the scalar's own. Each value is computed by
 * one thread in the scalar's order: results do not depend on how many there are. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "ops.h"
#include "ops_groups.h"

enum {
    QUAD = 4,
    ROWS = 4,      /* rows of weights in a tile */
    COLUMNS = 3,   /* rows of x in a tile: 4 x 3 sums, 3 of x and 1 of weights are 16 registers */
    K_BLOCK = 512, /* columns of ROWS rows of weights that are widened at a time: 16 KB */
    T_BLOCK = 96,  /* rows of x that they are multiplied with: sums of 12 KB */
    PIECE = 32,    /* rows of weights that a thread takes at a time */
    THREADED = 1 << 22,    /* multiplications from which on threads pay: about a millisecond */
    ELEMENTWISE = 1 << 15, /* transcendental functions from which on they do */
    NORMED = 1 << 19,      /* values from which on they do in norms */
    ALIGNMENT = 16,        /* floats: a line of the cache */
};

/* Before loops over registers. */
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

static size_t thread_count(void)
{
#ifdef _OPENMP
    return (size_t)omp_get_max_threads();
#else
    return 1;
#endif
}

static size_t this_thread(void)
{
#ifdef _OPENMP
    return (size_t)omp_get_thread_num();
#else
    return 0;
#endif
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t aligned(size_t floats)
{
    return (floats + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* ---------------------------------------------------------------- scratch */

/* For each thread ROWS rows of a quantised weight, decoded, and PIECE products of every slot; then
 * the experts' slots (order, and where each group begins). */
static size_t decoded_floats(size_t cols)
{
    return aligned(ROWS * cols);
}

static size_t product_floats(size_t slots)
{
    return aligned(slots * PIECE * (sizeof(double) / sizeof(float)));
}

GEMMA4_SCRATCH(EXACT(gemma4_scratch))
{
    return ALIGNMENT + thread_count() * (decoded_floats(cols) + product_floats(T * K)) +
           aligned(2 * T * K + 1);
}

typedef struct memory {
    float *decoded;   /* (ROWS, cols) of this thread */
    double *products; /* (PIECE, slots) of this thread */
    int32_t *slots;   /* (2 slots + 1) of all threads */
} memory;

static memory memory_of(float *scratch, size_t cols, size_t slots)
{
    uintptr_t line = ALIGNMENT * sizeof *scratch;
    float *first = (float *)(((uintptr_t)scratch + line - 1) / line * line);
    size_t each = decoded_floats(cols) + product_floats(slots);
    float *own = first + this_thread() * each;
    return (memory){own, (double *)(void *)(own + decoded_floats(cols)),
                    (int32_t *)(void *)(first + thread_count() * each)};
}

/* ---------------------------------------------------------------- products */

/* How the weights at hand lie in memory: as in the file, or widened to double. */
typedef enum source { AS_BF16, AS_F16, AS_F32, WIDENED } source;

/* 4 weights from column k on of the row at w. */
INLINE quad weights_load(const void *w, source from, size_t k)
{
    switch (from) {
    case AS_BF16: return quad_load_bf16((const uint16_t *)w + k);
    case AS_F16: return quad_load_f16((const uint16_t *)w + k);
    case AS_F32: return quad_load_f32((const float *)w + k);
    default: return quad_load((const double *)w + k);
    }
}

/* One of them: not of a widened row. */
static double weight_widened(const void *w, source from, size_t k)
{
    static const gemma4_dtype types[] = {GEMMA4_BF16, GEMMA4_F16, GEMMA4_F32};
    gemma4_weight row = {types[from], w, 1, k + 1};
    return (double)gemma4_weight_at(&row, k);
}

/* sums[n * ROWS + r] += x_n times w_r, in four lanes, for N rows of x from column `first` on; w_r
 * is at its column 0, or at `first` where it is widened. n is a multiple of 4. */
INLINE void multiply(quad *sums, const void *const *w, source from, const float *const *x,
                     size_t first, size_t n, size_t N)
{
    quad sum[ROWS * COLUMNS], x_k[COLUMNS];
    size_t w_first = from == WIDENED ? 0 : first;
    UNROLL
    for (size_t i = 0; i < ROWS * N; i++)
        sum[i] = sums[i];
    for (size_t k = 0; k < n; k += QUAD) {
        UNROLL
        for (size_t c = 0; c < N; c++)
            x_k[c] = quad_load_f32(x[c] + first + k);
        UNROLL
        for (size_t r = 0; r < ROWS; r++) {
            quad w_k = weights_load(w[r], from, w_first + k);
            UNROLL
            for (size_t c = 0; c < N; c++)
                sum[c * ROWS + r] = quad_fma(w_k, x_k[c], sum[c * ROWS + r]);
        }
    }
    UNROLL
    for (size_t i = 0; i < ROWS * N; i++)
        sums[i] = sum[i];
}

/* A function for each, so that its sums stay in registers. */
typedef void multiplication(quad *sums, const void *const *w, const float *const *x, size_t first,
                            size_t n);
#define MULTIPLY(name, from, N)                                                             \
    static void name(quad *sums, const void *const *w, const float *const *x, size_t first, \
                     size_t n)                                                              \
    {                                                                                       \
        multiply(sums, w, from, x, first, n, N);                                            \
    }
MULTIPLY(multiply_bf16_1, AS_BF16, 1)
MULTIPLY(multiply_bf16_2, AS_BF16, 2)
MULTIPLY(multiply_bf16_3, AS_BF16, 3)
MULTIPLY(multiply_f16_1, AS_F16, 1)
MULTIPLY(multiply_f16_2, AS_F16, 2)
MULTIPLY(multiply_f16_3, AS_F16, 3)
MULTIPLY(multiply_f32_1, AS_F32, 1)
MULTIPLY(multiply_f32_2, AS_F32, 2)
MULTIPLY(multiply_f32_3, AS_F32, 3)
MULTIPLY(multiply_wide_1, WIDENED, 1)
MULTIPLY(multiply_wide_2, WIDENED, 2)
MULTIPLY(multiply_wide_3, WIDENED, 3)
static multiplication *const multiplications[][COLUMNS] = {
    [AS_BF16] = {multiply_bf16_1, multiply_bf16_2, multiply_bf16_3},
    [AS_F16] = {multiply_f16_1, multiply_f16_2, multiply_f16_3},
    [AS_F32] = {multiply_f32_1, multiply_f32_2, multiply_f32_3},
    [WIDENED] = {multiply_wide_1, multiply_wide_2, multiply_wide_3},
};

static void widen(double *wide, const void *w, source from, size_t first, size_t n)
{
    for (size_t k = 0; k < n; k += QUAD)
        quad_store(wide + k, weights_load(w, from, first + k));
}

/* Some rows of x: those at the given slots, `each` slots a row; or the first ones. */
typedef struct inputs {
    const float *x; /* (rows, cols) */
    size_t cols, count;
    const int32_t *slots; /* (count), or NULL */
    size_t each;
} inputs;

static const float *input(const inputs *in, size_t n)
{
    return in->x + (in->slots ? (size_t)in->slots[n] / in->each : n) * in->cols;
}

/* out[n * ROWS + r] = gemma4_dot of the inputs first ... first + count - 1 (count <= T_BLOCK) and
 * the rows w_r. */
static void dots(double *out, const void *const *w, source from, const inputs *in, size_t first,
                 size_t count)
{
    quad sums[T_BLOCK * ROWS];
    double wide[ROWS][K_BLOCK];
    const void *wide_rows[ROWS];
    const float *x[T_BLOCK];
    size_t cols = in->cols, whole = cols / QUAD * QUAD;
    for (size_t n = 0; n < count; n++)
        x[n] = input(in, first + n);
    for (size_t i = 0; i < count * ROWS; i++)
        sums[i] = quad_zero();
    if (count <= COLUMNS) { /* each weight is used once */
        multiplications[from][count - 1](sums, w, x, 0, whole);
    } else {
        for (size_t k = 0; k < whole; k += K_BLOCK) {
            size_t n = least(K_BLOCK, whole - k), c = 0;
            for (size_t r = 0; r < ROWS; r++) {
                widen(wide[r], w[r], from, k, n);
                wide_rows[r] = wide[r];
            }
            for (; c + COLUMNS <= count; c += COLUMNS)
                multiply_wide_3(sums + c * ROWS, wide_rows, x + c, k, n);
            if (c < count)
                multiplications[WIDENED][count - c - 1](sums + c * ROWS, wide_rows, x + c, k, n);
        }
    }
    for (size_t n = 0; n < count; n++)
        for (size_t r = 0; r < ROWS; r++) {
            double lanes[QUAD];
            quad_store(lanes, sums[n * ROWS + r]);
            for (size_t k = whole; k < cols; k++) /* the last columns go to the first lane */
                lanes[0] += (double)x[n][k] * weight_widened(w[r], from, k);
            out[n * ROWS + r] = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
        }
}

/* Rows row, row + 1 ... of w, ROWS of them; those from `end` on are the last one again. */
static source find_rows(const void **rows, const gemma4_weight *w, size_t row, size_t end,
                        float *decoded)
{
    for (size_t r = 0; r < ROWS; r++) {
        size_t at = least(row + r, end - 1);
        if (w->dtype != GEMMA4_QUANTISED) {
            rows[r] = (const char *)w->data + at * w->cols * gemma4_weight_size(w->dtype);
            continue;
        }
        rows[r] = decoded + r * w->cols;
        gemma4_weight_row(decoded + r * w->cols, w, at);
    }
    return w->dtype == GEMMA4_BF16 ? AS_BF16 : w->dtype == GEMMA4_F16 ? AS_F16 : AS_F32;
}

static void matmul_rows(float *y, const inputs *in, const gemma4_weight *w, size_t row, size_t end,
                        float *decoded)
{
    const void *rows[ROWS];
    double out[T_BLOCK * ROWS];
    for (; row < end; row += ROWS) {
        source from = find_rows(rows, w, row, end, decoded);
        for (size_t t = 0; t < in->count; t += T_BLOCK) {
            size_t count = least(T_BLOCK, in->count - t);
            dots(out, rows, from, in, t, count);
            for (size_t n = 0; n < count; n++)
                for (size_t r = 0; r < ROWS && row + r < end; r++)
                    y[(t + n) * w->rows + row + r] = (float)out[n * ROWS + r];
        }
    }
}

GEMMA4_MATMUL(EXACT(gemma4_matmul))
{
    inputs in = {x, w->cols, T, NULL, 1};
    size_t pieces = (w->rows + PIECE - 1) / PIECE;
    bool large = w->rows * w->cols * T >= THREADED;
    (void)large;
#pragma omp parallel for schedule(dynamic) if (large)
    for (size_t p = 0; p < pieces; p++)
        matmul_rows(y, &in, w, p * PIECE, least((p + 1) * PIECE, w->rows),
                    memory_of(scratch, w->cols, 0).decoded);
}

/* ---------------------------------------------------------------- experts */

/* The slots of a group, as rows of x, of which each has `each` slots. */
static inputs group_inputs(const expert_groups *g, size_t group, const float *x, size_t cols,
                           size_t each)
{
    return (inputs){x, cols, (size_t)(g->first[group + 1] - g->first[group]),
                    g->order + g->first[group], each};
}

/* act for the gate rows m, m + 1 ... below end of the expert whose rows begin at first_row. */
static void act_rows(float *act, const inputs *in, const gemma4_weight *w, size_t first_row,
                     size_t m, size_t end, size_t M, float *decoded)
{
    const void *rows[ROWS];
    double gate[T_BLOCK * ROWS], up[T_BLOCK * ROWS];
    for (; m < end; m += ROWS)
        for (size_t s = 0; s < in->count; s += T_BLOCK) {
            size_t count = least(T_BLOCK, in->count - s);
            source from = find_rows(rows, w, first_row + m, first_row + end, decoded);
            dots(gate, rows, from, in, s, count);
            from = find_rows(rows, w, first_row + M + m, first_row + M + end, decoded);
            dots(up, rows, from, in, s, count);
            for (size_t n = 0; n < count; n++)
                for (size_t r = 0; r < ROWS && m + r < end; r++) {
                    float gate_n = (float)gate[n * ROWS + r], up_n = (float)up[n * ROWS + r];
                    act[(size_t)in->slots[s + n] * M + m + r] =
                        (float)(gemma4_gelu_tanh((double)gate_n) * (double)up_n);
                }
        }
}

GEMMA4_EXPERTS_ACT(EXACT(gemma4_experts_act))
{
    size_t d = gate_up_proj->cols, pieces = (M + PIECE - 1) / PIECE;
    expert_groups g = group_by_expert(ids, T * K, memory_of(scratch, d, T * K).slots);
    bool large = 2 * M * d * T * K >= THREADED;
    (void)large;
#pragma omp parallel for schedule(dynamic) if (large)
    for (size_t work = 0; work < g.groups * pieces; work++) {
        size_t group = work / pieces, m = work % pieces * PIECE;
        inputs in = group_inputs(&g, group, x, d, K);
        act_rows(act, &in, gate_up_proj, (size_t)ids[in.slots[0]] * 2 * M, m, least(m + PIECE, M),
                 M, memory_of(scratch, d, T * K).decoded);
    }
}

/* products[i * slots + s]: row first_row + i of the slot's expert times its act, i < rows. */
static void out_rows(double *products, const inputs *in, const gemma4_weight *w, size_t first_row,
                     size_t rows, size_t slots, float *decoded)
{
    const void *at[ROWS];
    double out[T_BLOCK * ROWS];
    for (size_t i = 0; i < rows; i += ROWS)
        for (size_t s = 0; s < in->count; s += T_BLOCK) {
            size_t count = least(T_BLOCK, in->count - s);
            source from = find_rows(at, w, first_row + i, first_row + rows, decoded);
            dots(out, at, from, in, s, count);
            for (size_t n = 0; n < count; n++)
                for (size_t r = 0; r < ROWS && i + r < rows; r++)
                    products[(i + r) * slots + (size_t)in->slots[s + n]] = out[n * ROWS + r];
        }
}

GEMMA4_EXPERTS_OUT(EXACT(gemma4_experts_out))
{
    size_t M = down_proj->cols, slots = T * K, pieces = (d + PIECE - 1) / PIECE;
    expert_groups g = group_by_expert(ids, slots, memory_of(scratch, M, slots).slots);
    bool large = d * M * slots >= THREADED;
    (void)large;
#pragma omp parallel for schedule(dynamic) if (large)
    for (size_t p = 0; p < pieces; p++) {
        size_t first = p * PIECE, rows = least(PIECE, d - first);
        memory own = memory_of(scratch, M, slots);
        for (size_t group = 0; group < g.groups; group++) {
            inputs in = group_inputs(&g, group, act, M, 1);
            out_rows(own.products, &in, down_proj, (size_t)ids[in.slots[0]] * d + first, rows,
                     slots, own.decoded);
        }
        for (size_t t = 0; t < T; t++)
            for (size_t i = 0; i < rows; i++) {
                double sum = 0;
                for (size_t r = 0; r < K; r++)
                    sum += (double)weights[t * K + r] * own.products[i * slots + t * K + r];
                y[t * d + first + i] = (float)sum;
            }
    }
}

#include "ops_exact_rows.h"
