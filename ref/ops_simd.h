/* The operators that have twins (ref/ops.h), written once in the vocabulary of a simd_*.h.
 * ops_avx2.c, ops_avx512.c and ops_neon.c each include this file after their vocabulary;
 * TWIN(name) gives a name the suffix of the instruction set. spec/twins.md explains the blocking
 * and derives the error bounds.
 *
 * Activations are float; weights are read as they lie in the file and widened in registers. Two
 * matrix products, by how often a weight is used:
 *   few rows of x   (decode, small experts): a lane takes every LANES-th column or pair of columns.
 *                   The weights stream through once, at the speed of memory.
 *   many rows of x  (prefill): a lane is a row of W. A panel of 2 * LANES rows is widened and
 *                   transposed once, into the second-level cache, and multiplied with all rows of
 *                   x, a tile of up to TILE_ROWS at a time.
 *
 * Threads take panels or blocks of rows from a queue. Each output value is computed by one thread
 * in one order, so results do not depend on how many there are. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "ops.h"
#include "ops_groups.h"

enum {
    PANEL = 2 * LANES, /* rows of W in a panel */
    K_BLOCK = 704,     /* columns whose products one register sums up; the blocks' sums are added in
                          a tile */
    FEW = 8,           /* rows of x that share one pass over weights in the product for few */
    PARTS = 8,         /* pieces of work for each thread there and in the experts: long streams, and
                          nobody waits long for the last one */
    PIECE = 64,        /* rows of W that a piece is a multiple of: whole panels */
    ACT_ROWS = 256,    /* gate rows whose up rows follow, in the experts' first product for few */
    DOT_SUMS = TWIN_DOT_SUMS, /* registers for sums in dot_tile: R * N * U at most */
    QUERY_TILE = 4,           /* attention: query rows that are multiplied with a block of keys at a
                            time */
    QUERIES = 64,             /* attention: query rows that share a block of keys */
    KEYS = PANEL,             /* attention: keys of a block */
    ELEMENTWISE = 16384,      /* values from which on threads pay in element-wise operators */
    PRODUCTS = 1 << 16,       /* multiplications from which on they pay elsewhere */
};

/* Before loops over registers: an array of vectors stays in registers only where every index is a
 * constant. */
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* What p points to is loaded anew after this, not kept in registers that are needed for sums. */
#define RELOAD(p) __asm__("" : "+r"(p))

static int thread_count(void)
{
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

static int this_thread(void)
{
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

static inline size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* -------------------------------------------------------- loads and tails */

/* The first n < LANES values at p, then zeros; and its inverse. Nothing after them is touched. */
INLINE vec vec_load_n(const float *p, size_t n)
{
    float lanes[LANES] = {0};
    memcpy(lanes, p, n * sizeof *p);
    return vec_load(lanes);
}

INLINE void vec_store_n(float *p, vec a, size_t n)
{
    float lanes[LANES];
    vec_store(lanes, a);
    memcpy(p, lanes, n * sizeof *p);
}

/* LANES weights from element k on of the row at w, as floats. */
INLINE vec weights_load(const void *w, gemma4_dtype dtype, size_t k)
{
    if (dtype == GEMMA4_BF16)
        return vec_load_bf16((const uint16_t *)w + k);
    if (dtype == GEMMA4_F16)
        return vec_load_f16((const uint16_t *)w + k);
    return vec_load((const float *)w + k);
}

/* The same for the last n < LANES weights of a row: zeros follow. */
INLINE vec weights_load_n(const void *w, gemma4_dtype dtype, size_t k, size_t n)
{
    float lanes[LANES] = {0}; /* large enough for either size; zero is zero in all three types */
    memcpy(lanes, (const char *)w + k * gemma4_weight_size(dtype), n * gemma4_weight_size(dtype));
    return weights_load(lanes, dtype, 0);
}

static const char *weight_row(const gemma4_weight *w, size_t row)
{
    return (const char *)w->data + row * w->cols * gemma4_weight_size(w->dtype);
}

/* ----------------------------------------------------- elementary functions */

/* e^x, within 2 units in the last place: x = n ln 2 + r with |r| <= ln 2 / 2, e^r by a polynomial,
 * times 2^n. Beyond the range of floats 0 and infinity, as it should be. NaN stays NaN: the clamps'
 * second operand is x. */
INLINE vec vec_exp(vec x)
{
    x = vec_max(vec_set1(-105.0f), vec_min(vec_set1(89.5f), x));
    vec n = vec_round(vec_mul(x, vec_set1(1.44269504088896f)));
    vec r = vec_fma(n, vec_set1(-0.693359375f), x); /* ln 2 in two parts; the first has so few bits
                                                       that n times it is exact */
    r = vec_fma(n, vec_set1(2.12194440054691e-4f), r);
    vec p = vec_set1(1.989939244e-4f); /* (e^r - 1 - r) / r^2, fitted in Chebyshev points */
    p = vec_fma(p, r, vec_set1(1.393373322e-3f));
    p = vec_fma(p, r, vec_set1(8.333298341e-3f));
    p = vec_fma(p, r, vec_set1(4.166646417e-2f));
    p = vec_fma(p, r, vec_set1(1.666666672e-1f));
    p = vec_fma(p, r, vec_set1(0.5f));
    p = vec_fma(p, vec_mul(r, r), r);
    return vec_scale(vec_add(p, vec_set1(1.0f)), n);
}

/* tanh x: by a polynomial where |x| < 0.625, else 1 - 2 / (e^2|x| + 1) with the sign of x. */
INLINE vec vec_tanh(vec x)
{
    vec size = vec_abs(x), square = vec_mul(x, x);
    vec p = vec_set1(2.272704917e-3f); /* (tanh(x)/x - 1) / x^2 in powers of x^2 */
    p = vec_fma(p, square, vec_set1(-8.326402316e-3f));
    p = vec_fma(p, square, vec_set1(2.176363370e-2f));
    p = vec_fma(p, square, vec_set1(-5.395862422e-2f));
    p = vec_fma(p, square, vec_set1(1.333330097e-1f));
    p = vec_fma(p, square, vec_set1(-3.333333316e-1f));
    vec small = vec_fma(vec_mul(p, square), x, x);
    vec large =
        vec_sub(vec_set1(1.0f),
                vec_div(vec_set1(2.0f), vec_add(vec_exp(vec_add(size, size)), vec_set1(1.0f))));
    return vec_if_less(size, vec_set1(0.625f), small, vec_copysign(large, x));
}

/* gelu_tanh(gate) * up. As 0.5 (1 + tanh z) = 1 / (1 + e^-2z), nothing cancels: accurate in both
 * tails. */
INLINE vec vec_geglu(vec gate, vec up)
{
    /* -2 sqrt(2/pi), and times 0.044715 */
    const vec linear = vec_set1(-1.59576912160573f), cubic = vec_set1(-0.0713548162726f);
    vec exponent = vec_mul(gate, vec_fma(vec_mul(gate, gate), cubic, linear));
    return vec_mul(vec_div(gate, vec_add(vec_set1(1.0f), vec_exp(exponent))), up);
}

/* --------------------------------------------------- products of few rows */

/* One step of these products is a block: 2 * LANES columns. Weights in bf16 are loaded a block at a
 * time, which gives the even columns and the odd ones in two vectors without a shuffle, and so that
 * no load crosses a line of the cache, wherever in the file the matrix begins. Rows of x are
 * arranged for that (arrange):
 *   head   a block for the first columns, up to where a row of weights is aligned; none where it
 *          begins so
 *   body   the columns that follow, as many as fill blocks
 *   tail   a block for the last columns, if any
 * Head and tail load whole blocks within the row, which overlap the body; the columns that are
 * counted there already are masked out of the weights and are 0 in x. f16 and f32 are used as they
 * lie: no head, and the tail is padded with zeros. */
enum { BLOCK = 2 * LANES };

/* Columns of the head. 0 also where rows differ in it, and in matrices too narrow for a head and a
 * tail. */
static size_t head_cols(const gemma4_weight *w)
{
    const size_t line = BLOCK * sizeof(uint16_t), behind = (uintptr_t)w->data % line;
    if (w->dtype != GEMMA4_BF16 || w->cols < 2 * BLOCK || w->cols % BLOCK ||
        behind % sizeof(uint16_t))
        return 0;
    return behind ? (line - behind) / sizeof(uint16_t) : 0;
}

/* The weights of the block at column k of the row at w, as floats: bf16 the even columns, then the
 * odd ones; others as they lie. */
INLINE void load_block(vec two[2], const void *w, gemma4_dtype dtype, size_t k)
{
    if (dtype == GEMMA4_BF16) {
        vec pairs = vec_load_pairs((const uint16_t *)w + k);
        two[0] = vec_even_bf16(pairs);
        two[1] = vec_odd_bf16(pairs);
    } else {
        two[0] = weights_load(w, dtype, k);
        two[1] = weights_load(w, dtype, k + LANES);
    }
}

/* The same of a row in bf16, only the columns that a part of `kept` has ones for: the first n with
 * kept + 2 * BLOCK - n, the last n with kept + n. The others become 0. */
static const uint16_t kept[3 * BLOCK] = {[BLOCK... 2 * BLOCK - 1] = 0xffff};

INLINE void load_kept(vec two[2], const void *w, size_t k, const uint16_t *mask)
{
    vec pairs = vec_and(vec_load_pairs((const uint16_t *)w + k), vec_load_pairs(mask));
    two[0] = vec_even_bf16(pairs);
    two[1] = vec_odd_bf16(pairs);
}

/* The last n < BLOCK columns of any row: zeros follow. */
INLINE void load_padded(vec two[2], const void *w, gemma4_dtype dtype, size_t k, size_t n)
{
    float lanes[BLOCK] = {0}; /* large enough for any type; zero is zero in all of them */
    memcpy(lanes, (const char *)w + k * gemma4_weight_size(dtype), n * gemma4_weight_size(dtype));
    load_block(two, lanes, dtype, 0);
}

/* Floats of an arranged row, at most. */
static size_t arranged_cols(size_t cols)
{
    return cols / BLOCK * BLOCK + 2 * BLOCK;
}

/* One block: to[] becomes the values x[j], first <= j < end, evens and odds apart; the others are
 * 0. */
static void arrange_block(float *to, const float *x, size_t first, size_t end)
{
    for (size_t j = 0; j < BLOCK; j++)
        to[j % 2 * LANES + j / 2] = j >= first && j < end ? x[j] : 0;
}

/* Arranges N rows of x for a matrix: x[n] points to the row and then to its copy in `copies`, which
 * is (N, arranged_cols(cols)), or stays as it is where nothing moves. */
static void arrange(const float **x, size_t N, const gemma4_weight *w, float *copies)
{
    size_t cols = w->cols, head = head_cols(w);
    for (size_t n = 0; n < N && w->dtype == GEMMA4_BF16; n++) {
        float *copy = copies + n * arranged_cols(cols), *to = copy;
        size_t k = head;
        if (head) {
            arrange_block(to, x[n], 0, head);
            to += BLOCK;
        }
        for (; k + BLOCK <= cols; k += BLOCK, to += BLOCK) {
            vec x_0 = vec_load(x[n] + k), x_1 = vec_load(x[n] + k + LANES);
            vec_store(to, vec_evens(x_0, x_1));
            vec_store(to + LANES, vec_odds(x_0, x_1));
        }
        if (k < cols && cols >= BLOCK)
            arrange_block(to, x[n] + cols - BLOCK, BLOCK - (cols - k), BLOCK);
        else if (k < cols)
            arrange_block(to, x[n], 0, cols);
        x[n] = copy;
    }
}

/* sum[r * N + n] += a block of N rows of x times that of R rows of weights; the second half of the
 * block goes to the sum that is `apart` further on. */
INLINE void dot_block(vec *sum, size_t apart, vec w[DOT_SUMS][2], const float *const *x, size_t at,
                      size_t R, size_t N)
{
    UNROLL
    for (size_t n = 0; n < N; n++) {
        vec x_0 = vec_load(x[n] + at), x_1 = vec_load(x[n] + at + LANES);
        UNROLL
        for (size_t r = 0; r < R; r++) {
            sum[r * N + n] = vec_fma(w[r][0], x_0, sum[r * N + n]);
            sum[r * N + n + apart] = vec_fma(w[r][1], x_1, sum[r * N + n + apart]);
        }
    }
}

/* y[n][first + r] = sum over k of w_r[k] * x_n[k], for R rows of weights and N arranged rows of x.
 * Each product has U sums of LANES lanes, which take turns with the vectors of columns: more of
 * them hide the latency of the multiply-add. The loop's body takes `turns` blocks: with a single
 * row of weights many, for the prefetchers tell streams apart by the instructions that load (8
 * blocks of a line each were a tenth faster than 4). dense: the next rows of weights follow these
 * in memory, and are brought into the second-level cache meanwhile, line by line as they lie. */
INLINE void dot_tile(float *const *y, size_t first, const char *const *w, gemma4_dtype dtype,
                     bool dense, const float *const *x, size_t cols, size_t head, size_t R,
                     size_t N, size_t U)
{
    enum { LINE = 64 };
    vec sum[DOT_SUMS], w_k[DOT_SUMS][2];
    const size_t turns = U > 1 ? U : 1, apart = U > 1 ? R * N : 0,
                 bytes = BLOCK * gemma4_weight_size(dtype);
    const char *next = w[0] + R * cols * gemma4_weight_size(dtype);
    size_t k = head, at = 0; /* columns of weights, floats of an arranged row: the block is there */
    UNROLL
    for (size_t i = 0; i < R * N * U; i++)
        sum[i] = vec_set1(0);
    if (dtype == GEMMA4_BF16 && head) {
        UNROLL
        for (size_t r = 0; r < R; r++)
            load_kept(w_k[r], w[r], 0, kept + 2 * BLOCK - head);
        dot_block(sum, apart, w_k, x, 0, R, N);
        at = BLOCK;
    }
    for (; k + turns * BLOCK <= cols; k += turns * BLOCK, at += turns * BLOCK)
        UNROLL
    for (size_t u = 0; u < turns; u++) {
        UNROLL
        for (size_t r = 0; r < R; r++)
            load_block(w_k[r], w[r], dtype, k + u * BLOCK);
        for (size_t b = 0; b < R * bytes && R > 1 && dense; b += LINE)
            __builtin_prefetch(next + b, 0, 2);
        next += R * bytes;
        dot_block(sum + (2 * u) % U * (R * N), apart, w_k, x, at + u * BLOCK, R, N);
    }
    for (; k + BLOCK <= cols; k += BLOCK, at += BLOCK) {
        UNROLL
        for (size_t r = 0; r < R; r++)
            load_block(w_k[r], w[r], dtype, k);
        dot_block(sum, apart, w_k, x, at, R, N);
    }
    if (k < cols && dtype == GEMMA4_BF16) {
        UNROLL
        for (size_t r = 0; r < R; r++)
            if (cols >= BLOCK)
                load_kept(w_k[r], w[r], cols - BLOCK, kept + cols - k);
            else
                load_padded(w_k[r], w[r], dtype, 0, cols);
        dot_block(sum, apart, w_k, x, at, R, N);
    } else if (k < cols) {
        const float *x_k[FEW];
        float lanes[FEW][BLOCK] = {{0}};
        for (size_t n = 0; n < N; n++)
            x_k[n] = memcpy(lanes[n], x[n] + k, (cols - k) * sizeof **x);
        UNROLL
        for (size_t r = 0; r < R; r++)
            load_padded(w_k[r], w[r], dtype, k, cols - k);
        dot_block(sum, apart, w_k, x_k, 0, R, N);
    }
    UNROLL
    for (size_t r = 0; r < R; r++)
        UNROLL
    for (size_t n = 0; n < N; n++) {
        vec total = sum[r * N + n];
        UNROLL
        for (size_t u = 1; u < U; u++)
            total = vec_add(total, sum[(u * R + r) * N + n]);
        y[n][first + r] = vec_sum(total);
    }
}

/* The rows of weights that N rows of x are multiplied with at a time. A single x of up to LONG_ROW
 * columns stays in the first-level cache: one row of weights is one stream through memory, which
 * the hardware's prefetchers follow better than several. A longer one, or several, do not stay
 * there: each vector of x loaded is used for as many rows of weights as there are registers for
 * sums. */
enum { LONG_ROW = 3072, ROWS_FOR_LONG = 8, SUMS_FOR_1 = 8 };
#define ROWS_FOR(N) (DOT_SUMS / (N))

/* y[n][i] for the rows first_row + i of w, i < rows, and N <= FEW arranged rows of x: R rows of
 * weights at a time, and what is left one by one. A value is the same in either. */
INLINE void dot_strip(float *const *y, const gemma4_weight *w, gemma4_dtype dtype, size_t first_row,
                      size_t rows, const float *const *x, size_t R, size_t N, size_t U)
{
    const size_t cols = w->cols, head = head_cols(w), stride = cols * gemma4_weight_size(dtype);
    const char *row = weight_row(w, first_row);
    size_t i = 0;
    for (; i + R <= rows; i += R) {
        const char *w_i[DOT_SUMS];
        UNROLL
        for (size_t r = 0; r < R; r++, row += stride)
            w_i[r] = row;
        dot_tile(y, i, w_i, dtype, true, x, cols, head, R, N, U);
    }
    for (; i < rows; i++, row += stride)
        dot_tile(y, i, (const char *const[]){row}, dtype, false, x, cols, head, 1, N, U);
}

/* A function for each type and N, so that all that its loops need stays in registers. In one large
 * function the compiler keeps pointers in memory, and fetching those once a row costs a fifth of
 * the bandwidth. */
typedef void dot_function(float *const *y, const gemma4_weight *w, size_t first_row, size_t rows,
                          const float *const *x);

#define DOT(name, dtype, R, N, U)                                                            \
    static void name(float *const *y, const gemma4_weight *w, size_t first_row, size_t rows, \
                     const float *const *x)                                                  \
    {                                                                                        \
        dot_strip(y, w, dtype, first_row, rows, x, R, N, U);                                 \
    }
#define DOTS(type, dtype)                                                        \
    DOT(dot_long_##type, dtype, ROWS_FOR_LONG, 1, 1)                             \
    DOT(dot_1_##type, dtype, 1, 1, SUMS_FOR_1)                                   \
    DOT(dot_2_##type, dtype, ROWS_FOR(2), 2, 1)                                  \
    DOT(dot_3_##type, dtype, ROWS_FOR(3), 3, 1)                                  \
    DOT(dot_4_##type, dtype, ROWS_FOR(4), 4, 1)                                  \
    DOT(dot_5_##type, dtype, ROWS_FOR(5), 5, 1)                                  \
    DOT(dot_6_##type, dtype, ROWS_FOR(6), 6, 1)                                  \
    DOT(dot_7_##type, dtype, ROWS_FOR(7), 7, 1)                                  \
    DOT(dot_8_##type, dtype, ROWS_FOR(8), 8, 1)                                  \
    static dot_function *const dot_##type[FEW + 1] = {                           \
        dot_long_##type, dot_1_##type, dot_2_##type, dot_3_##type, dot_4_##type, \
        dot_5_##type,    dot_6_##type, dot_7_##type, dot_8_##type,               \
    };
DOTS(bf16, GEMMA4_BF16)
DOTS(f16, GEMMA4_F16)
DOTS(f32, GEMMA4_F32)

static void dot_rows(float *const *y, const gemma4_weight *w, size_t first_row, size_t rows,
                     const float *const *x, size_t N)
{
    dot_function *const *functions = w->dtype == GEMMA4_BF16  ? dot_bf16
                                     : w->dtype == GEMMA4_F16 ? dot_f16
                                                              : dot_f32;
    functions[N == 1 && w->cols > LONG_ROW ? 0 : N](y, w, first_row, rows, x);
}

/* -------------------------------------------------- products of many rows */

/* Half a panel: rows first_row ... first_row + rows - 1 <= LANES of w, transposed. Lanes without a
 *   row become 0. f16, f32: widened; column k of row r goes to half[k * PANEL + r].
 *   bf16: as it is, two columns in a lane, which halves the shuffles here and the bytes in the
 *   cache; columns k (even) and k + 1 of row r go to the lower and upper half of half[k / 2 * PANEL
 *   + r]. The products widen them. */
static void pack_half(float *half, const gemma4_weight *w, size_t first_row, size_t rows)
{
    size_t k = 0, cols = w->cols;
    vec v[LANES];
    if (w->dtype == GEMMA4_BF16) {
        for (; k + 2 * LANES <= cols && rows == LANES; k += 2 * LANES) {
            for (size_t r = 0; r < LANES; r++)
                v[r] = vec_load_pairs((const uint16_t *)weight_row(w, first_row + r) + k);
            vec_transpose(v);
            for (size_t j = 0; j < LANES; j++)
                vec_store(half + (k / 2 + j) * PANEL, v[j]);
        }
        for (; k < cols; k += 2)
            for (size_t r = 0; r < LANES; r++) {
                uint16_t pair[2] = {0, 0}; /* little-endian: the first is the lower half */
                if (r < rows)
                    memcpy(pair, (const uint16_t *)weight_row(w, first_row + r) + k,
                           least(2, cols - k) * sizeof *pair);
                memcpy(half + k / 2 * PANEL + r, pair, sizeof pair);
            }
        return;
    }
    for (; k + LANES <= cols && rows == LANES; k += LANES) {
        for (size_t r = 0; r < LANES; r++)
            v[r] = weights_load(weight_row(w, first_row + r), w->dtype, k);
        vec_transpose(v);
        for (size_t j = 0; j < LANES; j++)
            vec_store(half + (k + j) * PANEL, v[j]);
    }
    for (; k < cols; k++)
        for (size_t r = 0; r < LANES; r++)
            half[k * PANEL + r] = r < rows ? gemma4_weight_at(w, (first_row + r) * cols + k) : 0;
}

/* The same of rows of floats, wherever they lie. */
static void pack_floats(float *half, const float *const *row, size_t cols, size_t rows)
{
    size_t k = 0;
    vec v[LANES];
    for (; k + LANES <= cols && rows == LANES; k += LANES) {
        for (size_t r = 0; r < LANES; r++)
            v[r] = vec_load(row[r] + k);
        vec_transpose(v);
        for (size_t j = 0; j < LANES; j++)
            vec_store(half + (k + j) * PANEL, v[j]);
    }
    for (; k < cols; k++)
        for (size_t r = 0; r < LANES; r++)
            half[k * PANEL + r] = r < rows ? row[r][k] : 0;
}

/* Where the weights of the panel after this one lie: its first tile asks for them, a line or two a
 * column, so that packing finds them in the second-level cache. */
typedef struct upcoming {
    const char *half[2];
    size_t step; /* bytes a column: LANES weights */
} upcoming;

/* sum += column k of x times two vectors of weights: each weight is used N times. */
INLINE void tile_column(vec sum[TILE_ROWS][2], vec w_0, vec w_1, const float *const *x, size_t k,
                        size_t N)
{
    UNROLL
    for (size_t t = 0; t < N; t++) {
        vec x_t = vec_set1(x[t][k]);
        sum[t][0] = vec_fma(x_t, w_0, sum[t][0]);
        sum[t][1] = vec_fma(x_t, w_1, sum[t][1]);
    }
}

/* c += x panel over the columns first_k ... first_k + n - 1, for N <= TILE_ROWS rows of x: c is (N,
 * PANEL); panel begins with column first_k, which is even. Every sum stays in a register. */
INLINE void tile_block(float *c, const float *panel, bool pairs, const float *const *x,
                       upcoming next, size_t first_k, size_t n, size_t N)
{
    vec sum[TILE_ROWS][2];
    size_t end = first_k + n;
    UNROLL
    for (size_t t = 0; t < N; t++)
        sum[t][0] = sum[t][1] = vec_set1(0);
    for (size_t k = first_k; k < end; k += pairs ? 2 : 1, panel += PANEL) {
        vec w_0 = vec_load(panel), w_1 = vec_load(panel + LANES);
        __builtin_prefetch(next.half[0] + k * next.step, 0, 2);
        __builtin_prefetch(next.half[1] + k * next.step, 0, 2);
        tile_column(sum, pairs ? vec_even_bf16(w_0) : w_0, pairs ? vec_even_bf16(w_1) : w_1, x, k,
                    N);
        RELOAD(panel);
        if (pairs && k + 1 < end)
            tile_column(sum, vec_odd_bf16(vec_load(panel)), vec_odd_bf16(vec_load(panel + LANES)),
                        x, k + 1, N);
    }
    UNROLL
    for (size_t t = 0; t < N; t++) {
        vec_store(c + t * PANEL, vec_add(vec_load(c + t * PANEL), sum[t][0]));
        vec_store(c + t * PANEL + LANES, vec_add(vec_load(c + t * PANEL + LANES), sum[t][1]));
    }
}

/* c = x panel over all columns: c is (N, PANEL). */
INLINE void tile_typed(float *c, const float *panel, bool pairs, const float *const *x,
                       upcoming next, size_t cols, size_t N)
{
    memset(c, 0, N * PANEL * sizeof *c);
    for (size_t k = 0; k < cols; k += K_BLOCK) {
        const float *block = panel + (pairs ? k / 2 : k) * PANEL;
        size_t n = least(K_BLOCK, cols - k);
        switch (N) { /* one function for each, so that the compiler keeps the sums in registers */
        case 1: tile_block(c, block, pairs, x, next, k, n, 1); break;
        case 2: tile_block(c, block, pairs, x, next, k, n, 2); break;
        case 3: tile_block(c, block, pairs, x, next, k, n, 3); break;
        case 4: tile_block(c, block, pairs, x, next, k, n, 4); break;
        case 5: tile_block(c, block, pairs, x, next, k, n, 5); break;
        case 6: tile_block(c, block, pairs, x, next, k, n, 6); break;
#if TWIN_TILE_ROWS > 6
        case 7: tile_block(c, block, pairs, x, next, k, n, 7); break;
        case 8: tile_block(c, block, pairs, x, next, k, n, 8); break;
        case 9: tile_block(c, block, pairs, x, next, k, n, 9); break;
        case 10: tile_block(c, block, pairs, x, next, k, n, 10); break;
        case 11: tile_block(c, block, pairs, x, next, k, n, 11); break;
        case 12: tile_block(c, block, pairs, x, next, k, n, 12); break;
#endif
#if TWIN_TILE_ROWS > 12
        case 13: tile_block(c, block, pairs, x, next, k, n, 13); break;
        case 14: tile_block(c, block, pairs, x, next, k, n, 14); break;
#endif
        default: break;
        }
    }
}

/* How many of `left` rows the next tile takes: all tiles of a product are about equally high, for a
 * low one wastes registers. */
static size_t tile_rows(size_t left)
{
    size_t tiles = (left + TILE_ROWS - 1) / TILE_ROWS;
    return (left + tiles - 1) / tiles;
}

static void tile(float *c, const float *panel, gemma4_dtype dtype, const float *const *x,
                 upcoming next, size_t cols, size_t N)
{
    if (dtype == GEMMA4_BF16)
        tile_typed(c, panel, true, x, next, cols, N);
    else
        tile_typed(c, panel, false, x, next, cols, N);
}

/* The half panels from first_row[0] and first_row[1] on, or what costs nothing: lines that are
 * there. */
static upcoming upcoming_rows(const gemma4_weight *w, size_t row_0, size_t row_1)
{
    return (upcoming){{weight_row(w, row_0), weight_row(w, row_1)},
                      LANES * gemma4_weight_size(w->dtype)};
}

static upcoming nothing_upcoming(const float *panel)
{
    return (upcoming){{(const char *)panel, (const char *)panel}, 0};
}

/* ---------------------------------------------------------------- scratch */

/* A panel for each thread (in products of few, up to FEW <= PANEL arranged rows of x), then either
 * the experts' slots (order, and where each group begins) or a copy of x. */
enum { ALIGNMENT = 64, ROW_GAP = 16 };

static size_t panel_floats(size_t cols)
{
    return (arranged_cols(cols) * PANEL + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

GEMMA4_SCRATCH(TWIN(gemma4_scratch))
{
    return ALIGNMENT + (size_t)thread_count() * panel_floats(cols) +
           most(2 * T * K + 1, T * (cols + ROW_GAP));
}

static float *thread_panel(float *scratch, size_t cols)
{
    uintptr_t first = ((uintptr_t)scratch + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return (float *)first + (size_t)this_thread() * panel_floats(cols);
}

/* ----------------------------------------------------------------- matmul */

/* How many rows of a matrix a thread takes at a time, where `matrices` of them are multiplied. */
static size_t piece_rows(size_t rows, size_t matrices)
{
    size_t pieces = (PARTS * (size_t)thread_count() + matrices - 1) / matrices; /* of each matrix */
    return most(((rows + pieces - 1) / pieces + PIECE - 1) / PIECE, 1) * PIECE;
}

/* For T <= FEW. */
static void matmul_few(float *y, const float *x, const gemma4_weight *w, size_t T, float *scratch)
{
    size_t piece = piece_rows(w->rows, 1);
#pragma omp parallel for schedule(dynamic) if (T * w->rows * w->cols >= PRODUCTS)
    for (size_t first = 0; first < w->rows; first += piece) {
        const float *x_t[FEW];
        float *y_t[FEW];
        for (size_t t = 0; t < T; t++) {
            x_t[t] = x + t * w->cols;
            y_t[t] = y + t * w->rows + first;
        }
        arrange(x_t, T, w, thread_panel(scratch, w->cols));
        dot_rows(y_t, w, first, least(piece, w->rows - first), x_t, T);
    }
}

/* Rows of x whose distance is a multiple of 4096 bytes would all compete for the same few places of
 * the first-level cache. */
static bool rows_collide(size_t cols)
{
    return cols * sizeof(float) % 4096 == 0;
}

static void matmul_many(float *y, const float *x, const gemma4_weight *w, size_t T, float *scratch)
{
    size_t panels = (w->rows + PANEL - 1) / PANEL, stride = w->cols;
    if (rows_collide(w->cols)) {
        /* a copy with rows further apart */
        float *apart = scratch + ALIGNMENT + (size_t)thread_count() * panel_floats(w->cols);
        stride += ROW_GAP;
#pragma omp parallel for schedule(static) if (T * w->cols >= ELEMENTWISE)
        for (size_t t = 0; t < T; t++)
            memcpy(apart + t * stride, x + t * w->cols, w->cols * sizeof *x);
        x = apart;
    }
#pragma omp parallel for schedule(dynamic) if (T * w->rows * w->cols >= PRODUCTS)
    for (size_t p = 0; p < panels; p++) {
        float *panel = thread_panel(scratch, w->cols);
        float c[TILE_ROWS * PANEL];
        size_t first = p * PANEL, rows = least(PANEL, w->rows - first);
        upcoming next = upcoming_rows(w, first + PANEL, first + PANEL + LANES);
        pack_half(panel, w, first, least(LANES, rows));
        pack_half(panel + LANES, w, first + LANES, rows - least(LANES, rows));
        for (size_t t = 0, N; t < T; t += N) {
            const float *x_t[TILE_ROWS];
            N = tile_rows(T - t);
            for (size_t n = 0; n < N; n++)
                x_t[n] = x + (t + n) * stride;
            tile(c, panel, w->dtype, x_t, next, w->cols, N);
            for (size_t n = 0; n < N; n++)
                memcpy(y + (t + n) * w->rows + first, c + n * PANEL, rows * sizeof *c);
            next = nothing_upcoming(panel);
        }
    }
}

GEMMA4_MATMUL(TWIN(gemma4_matmul))
{
    if (T <= FEW)
        matmul_few(y, x, w, T, scratch);
    else
        matmul_many(y, x, w, T, scratch);
}

/* ---------------------------------------------------------------- experts */

/* The memory for the experts' slots, behind the threads' panels. */
static int32_t *slot_memory(float *scratch, size_t cols)
{
    return (int32_t *)(scratch + ALIGNMENT + (size_t)thread_count() * panel_floats(cols));
}

/* act = gelu_tanh(gate) * up for n values; gate and up are followed by readable memory up to a
 * whole vector. */
static void store_act(float *act, const float *gate, const float *up, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vec_store(act + i, vec_geglu(vec_load(gate + i), vec_load(up + i)));
    if (i < n)
        vec_store_n(act + i, vec_geglu(vec_load(gate + i), vec_load(up + i)), n - i);
}

/* A few slots: rows first ... end - 1 of gate and of up, in turns of ACT_ROWS. */
static void experts_act_few(float *act, const float *x, const gemma4_weight *w, size_t expert_row,
                            const int32_t *slots, size_t count, size_t K, size_t M, size_t first,
                            size_t end, float *copies)
{
    float gate[FEW][ACT_ROWS] = {{0}}, up[FEW][ACT_ROWS] = {{0}}, *gate_n[FEW] = {0},
          *up_n[FEW] = {0};
    const float *x_n[FEW] = {0};
    for (size_t n = 0; n < count; n++) {
        x_n[n] = x + (size_t)slots[n] / K * w->cols;
        gate_n[n] = gate[n];
        up_n[n] = up[n];
    }
    arrange(x_n, count, w, copies);
    for (size_t m = first, rows; m < end; m += rows) {
        rows = least(ACT_ROWS, end - m);
        dot_rows(gate_n, w, expert_row + m, rows, x_n, count);
        dot_rows(up_n, w, expert_row + M + m, rows, x_n, count);
        for (size_t n = 0; n < count; n++)
            store_act(act + (size_t)slots[n] * M + m, gate[n], up[n], rows);
    }
}

/* Many slots: one panel is up to LANES gate rows and the up rows that belong to them, so that act
 * is made where both products stand. */
static void experts_act_many(float *act, const float *x, const gemma4_weight *w, size_t expert_row,
                             const int32_t *slots, size_t count, size_t K, size_t M, size_t first,
                             size_t rows, float *panel)
{
    float c[TILE_ROWS * PANEL];
    upcoming next = upcoming_rows(w, expert_row + first + LANES, expert_row + M + first + LANES);
    pack_half(panel, w, expert_row + first, rows);
    pack_half(panel + LANES, w, expert_row + M + first, rows);
    for (size_t s = 0, N; s < count; s += N) {
        const float *x_n[TILE_ROWS];
        N = tile_rows(count - s);
        for (size_t n = 0; n < N; n++)
            x_n[n] = x + (size_t)slots[s + n] / K * w->cols;
        tile(c, panel, w->dtype, x_n, next, w->cols, N);
        for (size_t n = 0; n < N; n++)
            store_act(act + (size_t)slots[s + n] * M + first, c + n * PANEL, c + n * PANEL + LANES,
                      rows);
        next = nothing_upcoming(panel);
    }
}

GEMMA4_EXPERTS_ACT(TWIN(gemma4_experts_act))
{
    expert_groups g = group_by_expert(ids, T * K, slot_memory(scratch, gate_up_proj->cols));
    size_t piece = piece_rows(M, g.groups), parts = (M + piece - 1) / piece;
#pragma omp parallel for schedule(dynamic) if (T * K * M * gate_up_proj->cols >= PRODUCTS)
    for (size_t work = 0; work < g.groups * parts; work++) {
        const int32_t *slots = g.order + g.first[work / parts];
        size_t count = (size_t)(g.first[work / parts + 1] - g.first[work / parts]);
        size_t first = work % parts * piece, end = least(M, first + piece);
        float *panel = thread_panel(scratch, gate_up_proj->cols);
        size_t expert_row = (size_t)ids[slots[0]] * 2 * M;
        if (count <= FEW)
            experts_act_few(act, x, gate_up_proj, expert_row, slots, count, K, M, first, end,
                            panel);
        for (size_t m = first; m < end && count > FEW; m += LANES)
            experts_act_many(act, x, gate_up_proj, expert_row, slots, count, K, M, m,
                             least(LANES, end - m), panel);
    }
}

/* y += weight * c for n columns of y and the position of one slot. */
static void add_weighted(float *y, const float *c, float weight, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += weight * c[i];
}

/* y += weight * down_proj[e] act for the columns first ... end - 1 of y and the slots of one
 * expert: a few slots. */
static void experts_out_few(float *y, const float *act, const gemma4_weight *w, size_t expert_row,
                            const int32_t *slots, const float *weights, size_t count, size_t K,
                            size_t d, size_t first, size_t end, float *copies)
{
    float c[FEW][PIECE], *c_n[FEW] = {0};
    const float *act_n[FEW] = {0};
    for (size_t n = 0; n < count; n++) {
        act_n[n] = act + (size_t)slots[n] * w->cols;
        c_n[n] = c[n];
    }
    arrange(act_n, count, w, copies);
    for (size_t i = first, rows; i < end; i += rows) {
        rows = least(PIECE, end - i);
        dot_rows(c_n, w, expert_row + i, rows, act_n, count);
        for (size_t n = 0; n < count; n++)
            add_weighted(y + (size_t)slots[n] / K * d + i, c[n], weights[slots[n]], rows);
    }
}

/* The same for one panel of columns and many slots. */
static void experts_out_many(float *y, const float *act, const gemma4_weight *w, size_t expert_row,
                             const int32_t *slots, const float *weights, size_t count, size_t K,
                             size_t d, size_t first, size_t rows, float *panel)
{
    float c[TILE_ROWS * PANEL];
    upcoming next =
        upcoming_rows(w, expert_row + first + PANEL, expert_row + first + PANEL + LANES);
    pack_half(panel, w, expert_row + first, least(LANES, rows));
    pack_half(panel + LANES, w, expert_row + first + LANES, rows - least(LANES, rows));
    for (size_t s = 0, N; s < count; s += N) {
        const float *act_n[TILE_ROWS];
        N = tile_rows(count - s);
        for (size_t n = 0; n < N; n++)
            act_n[n] = act + (size_t)slots[s + n] * w->cols;
        tile(c, panel, w->dtype, act_n, next, w->cols, N);
        for (size_t n = 0; n < N; n++)
            add_weighted(y + (size_t)slots[s + n] / K * d + first, c + n * PANEL,
                         weights[slots[s + n]], rows);
        next = nothing_upcoming(panel);
    }
}

/* A thread owns columns of y, and adds the experts in the order in which the chunk first chose
 * them. */
GEMMA4_EXPERTS_OUT(TWIN(gemma4_experts_out))
{
    expert_groups g = group_by_expert(ids, T * K, slot_memory(scratch, down_proj->cols));
    size_t piece = piece_rows(d, 1);
#pragma omp parallel for schedule(dynamic) if (T * K * d * down_proj->cols >= PRODUCTS)
    for (size_t first = 0; first < d; first += piece) {
        size_t end = least(d, first + piece);
        float *panel = thread_panel(scratch, down_proj->cols);
        for (size_t t = 0; t < T; t++)
            memset(y + t * d + first, 0, (end - first) * sizeof *y);
        for (size_t e = 0; e < g.groups; e++) {
            const int32_t *slots = g.order + g.first[e];
            size_t count = (size_t)(g.first[e + 1] - g.first[e]),
                   expert_row = (size_t)ids[slots[0]] * d;
            if (count <= FEW)
                experts_out_few(y, act, down_proj, expert_row, slots, weights, count, K, d, first,
                                end, panel);
            for (size_t i = first; i < end && count > FEW; i += PANEL)
                experts_out_many(y, act, down_proj, expert_row, slots, weights, count, K, d, i,
                                 least(PANEL, end - i), panel);
        }
    }
}

/* ----------------------------------------------------------- element-wise */

/* The sum of squares of n values: four sums side by side. */
static float sum_of_squares(const float *x, size_t n)
{
    vec sum[4] = {vec_set1(0), vec_set1(0), vec_set1(0), vec_set1(0)};
    size_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (size_t j = 0; j < 4; j++)
            sum[j] = vec_fma(vec_load(x + i + j * LANES), vec_load(x + i + j * LANES), sum[j]);
    for (; i < n; i += LANES) {
        vec v = i + LANES <= n ? vec_load(x + i) : vec_load_n(x + i, n - i);
        sum[0] = vec_fma(v, v, sum[0]);
    }
    return vec_sum(vec_add(vec_add(sum[0], sum[1]), vec_add(sum[2], sum[3])));
}

GEMMA4_RMSNORM(TWIN(gemma4_rmsnorm))
{
#pragma omp parallel for schedule(static) if (T > 1 && T * n >= ELEMENTWISE)
    for (size_t t = 0; t < T; t++) {
        const float *x_t = x + t * n;
        float *y_t = y + t * n;
        vec scale = vec_set1((float)(1.0 / sqrt((double)sum_of_squares(x_t, n) / (double)n + eps)));
        size_t i = 0;
        for (; i + LANES <= n; i += LANES) {
            vec scaled = vec_mul(vec_load(x_t + i), scale);
            vec_store(y_t + i, w ? vec_mul(scaled, weights_load(w->data, w->dtype, i)) : scaled);
        }
        if (i < n) {
            vec scaled = vec_mul(vec_load_n(x_t + i, n - i), scale);
            vec_store_n(y_t + i,
                        w ? vec_mul(scaled, weights_load_n(w->data, w->dtype, i, n - i)) : scaled,
                        n - i);
        }
    }
}

/* Rotates n pairs of one head, (a[j], b[j]) by the angle whose cosine and sine are c[j] and
 * s[j]. */
static void rotate(float *a, float *b, const float *c, const float *s, size_t n)
{
    size_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        vec a_j = vec_load(a + j), b_j = vec_load(b + j), c_j = vec_load(c + j),
            s_j = vec_load(s + j);
        vec_store(a + j, vec_sub(vec_mul(a_j, c_j), vec_mul(b_j, s_j)));
        vec_store(b + j, vec_fma(a_j, s_j, vec_mul(b_j, c_j)));
    }
    for (; j < n; j++) {
        float a_j = a[j], b_j = b[j];
        a[j] = a_j * c[j] - b_j * s[j];
        b[j] = b_j * c[j] + a_j * s[j];
    }
}

GEMMA4_ROPE(TWIN(gemma4_rope))
{
    enum { PAIRS = 64 };
    for (size_t first = 0; first < pairs; first += PAIRS) {
        size_t n = least(PAIRS, pairs - first);
        float frequency[PAIRS]; /* as in the scalar: every step that the definition rounds is
                                   rounded */
        for (size_t j = 0; j < n; j++)
            frequency[j] = 1.0f / (float)pow(theta, (double)((float)(2 * (first + j)) / (float)D));
#pragma omp parallel for schedule(static) if (T > 1 && T * heads * n >= ELEMENTWISE)
        for (size_t t = 0; t < T; t++) {
            float c[PAIRS], s[PAIRS];
            for (size_t j = 0; j < n; j++) {
                double angle = (double)((float)(first_position + t) * frequency[j]);
                c[j] = (float)cos(angle);
                s[j] = (float)sin(angle);
            }
            for (size_t h = 0; h < heads; h++) {
                float *x_th = x + (t * heads + h) * D + first;
                rotate(x_th, x_th + D / 2, c, s, n);
            }
        }
    }
}

GEMMA4_GEGLU(TWIN(gemma4_geglu))
{
    size_t whole = n / LANES * LANES;
#pragma omp parallel for schedule(static) if (n >= ELEMENTWISE)
    for (size_t i = 0; i < whole; i += LANES)
        vec_store(y + i, vec_geglu(vec_load(gate + i), vec_load(up + i)));
    if (whole < n)
        vec_store_n(
            y + whole,
            vec_geglu(vec_load_n(gate + whole, n - whole), vec_load_n(up + whole, n - whole)),
            n - whole);
}

GEMMA4_SOFTCAP(TWIN(gemma4_softcap))
{
    size_t whole = n / LANES * LANES;
    vec c = vec_set1((float)cap);
#pragma omp parallel for schedule(static) if (n >= ELEMENTWISE)
    for (size_t i = 0; i < whole; i += LANES)
        vec_store(x + i, vec_mul(c, vec_tanh(vec_div(vec_load(x + i), c))));
    if (whole < n)
        vec_store_n(x + whole, vec_mul(c, vec_tanh(vec_div(vec_load_n(x + whole, n - whole), c))),
                    n - whole);
}

/* -------------------------------------------------------------- attention */

/* One query row on its way over the blocks of keys: the largest score so far, the sum of e^(score -
 * largest), and in its row of context the values weighted by the same. A larger score rescales all
 * of them by e^(old - new) ("running softmax"). */
typedef struct query {
    const float *q;    /* (D) */
    float *context;    /* (D) */
    size_t first, end; /* the keys that it sees */
    float largest, sum;
} query;

/* The scores of one block become weights: score[j] counts for lo <= j < hi, the other lanes become
 * 0. Returns the factor for what was summed before. */
static float soften(query *row, float *score, size_t lo, size_t hi)
{
    for (size_t j = 0; j < KEYS; j++)
        if (j < lo || j >= hi)
            score[j] = -INFINITY;
    vec s_0 = vec_load(score), s_1 = vec_load(score + LANES);
    float lanes[LANES], largest = row->largest;
    vec_store(lanes, vec_max(s_0, s_1));
    for (size_t j = 0; j < LANES; j++)
        largest = lanes[j] > largest ? lanes[j] : largest;
    vec p_0 = vec_exp(vec_sub(s_0, vec_set1(largest))),
        p_1 = vec_exp(vec_sub(s_1, vec_set1(largest)));
    vec_store(lanes, vec_exp(vec_set1(row->largest - largest)));
    float factor = row->largest == largest ? 1 : lanes[0];
    vec_store(score, p_0);
    vec_store(score + LANES, p_1);
    row->sum = row->sum * factor + vec_sum(vec_add(p_0, p_1));
    row->largest = largest;
    return factor;
}

/* context = context * factor + sum over lo <= j < hi of p[j] v_j in the lanes i ... i + n_0 + n_1 -
 * 1, for N <= QUERY_TILE query rows: n_0 lanes of one vector and n_1 of the next. */
INLINE void weigh_lanes(query *row, const float *factor, const float (*p)[KEYS],
                        const float *const *v, size_t lo, size_t hi, size_t i, size_t n_0,
                        size_t n_1, size_t N)
{
    vec sum[QUERY_TILE][2];
    UNROLL
    for (size_t n = 0; n < N; n++) {
        float *c = row[n].context + i;
        sum[n][0] = vec_mul(n_0 == LANES ? vec_load(c) : vec_load_n(c, n_0), vec_set1(factor[n]));
        sum[n][1] = vec_mul(n_1 == LANES ? vec_load(c + n_0) : vec_load_n(c + n_0, n_1),
                            vec_set1(factor[n]));
    }
    for (size_t j = lo; j < hi; j++) {
        const float *v_j = v[j] + i;
        vec v_0 = n_0 == LANES ? vec_load(v_j) : vec_load_n(v_j, n_0);
        vec v_1 = n_1 == LANES ? vec_load(v_j + n_0) : vec_load_n(v_j + n_0, n_1);
        UNROLL
        for (size_t n = 0; n < N; n++) {
            sum[n][0] = vec_fma(vec_set1(p[n][j]), v_0, sum[n][0]);
            sum[n][1] = vec_fma(vec_set1(p[n][j]), v_1, sum[n][1]);
        }
    }
    UNROLL
    for (size_t n = 0; n < N; n++) {
        vec_store_n(row[n].context + i, sum[n][0], n_0);
        vec_store_n(row[n].context + i + n_0, sum[n][1], n_1);
    }
}

/* The same for all D lanes of a head. */
INLINE void weigh_values(query *row, const float *factor, const float (*p)[KEYS],
                         const float *const *v, size_t lo, size_t hi, size_t D, size_t N)
{
    size_t i = 0;
    for (; i + 2 * LANES <= D; i += 2 * LANES)
        weigh_lanes(row, factor, p, v, lo, hi, i, LANES, LANES, N);
    if (i < D)
        weigh_lanes(row, factor, p, v, lo, hi, i, least(LANES, D - i), D - i - least(LANES, D - i),
                    N);
}

/* p[i][j] = q_i k_j for n keys and N query rows. */
INLINE void score(float *const *p, const float *const *q, const float *const *k, size_t n, size_t D,
                  size_t N)
{
    const char *rows[KEYS]; /* what dot_tile takes: weights of any type */
    size_t j = 0;
    for (size_t i = 0; i < n; i++)
        rows[i] = (const char *)k[i];
    for (; j + ROWS_FOR(N) <= n; j += ROWS_FOR(N))
        dot_tile(p, j, rows + j, GEMMA4_F32, false, q, D, 0, ROWS_FOR(N), N, 1);
    for (; j < n; j++)
        dot_tile(p, j, rows + j, GEMMA4_F32, false, q, D, 0, 1, N, 1);
}

/* One block: keys k_j, also as a panel where it is not NULL, and values v_j of the positions key
 * ... key + n - 1, for N <= QUERY_TILE query rows: all of them at a time where they are QUERY_TILE
 * or 2 (decode: as many query heads share a KV head on sliding layers), else one by one. */
static void attend_block(query *row, size_t N, const float *const *k, const float *panel,
                         const float *const *v, size_t key, size_t n, size_t D)
{
    float p[QUERY_TILE][KEYS], factor[QUERY_TILE], *p_n[QUERY_TILE];
    const float *q_n[QUERY_TILE];
    /* what a row sees; what all of them see */
    size_t lo[QUERY_TILE], hi[QUERY_TILE], all_lo = 0, all_hi = N == QUERY_TILE || N == 2 ? n : 0;
    for (size_t i = 0; i < N; i++) {
        p_n[i] = p[i];
        q_n[i] = row[i].q;
        lo[i] = most(row[i].first, key) - key;
        hi[i] = most(least(row[i].end, key + n), key + lo[i]) - key;
        all_lo = most(all_lo, lo[i]);
        all_hi = least(all_hi, hi[i]);
    }
    if (panel)
        tile(p[0], panel, GEMMA4_F32, q_n, nothing_upcoming(panel), D, N);
    else if (N == 2)
        score(p_n, q_n, k, n, D, 2);
    else
        for (size_t i = 0; i < N; i++)
            score(p_n + i, q_n + i, k, n, D, 1);
    for (size_t i = 0; i < N; i++)
        factor[i] = lo[i] < hi[i] ? soften(&row[i], p[i], lo[i], hi[i]) : 1;
    if (all_lo < all_hi) {
        if (N == 2)
            weigh_values(row, factor, (const float(*)[KEYS])p, v, all_lo, all_hi, D, 2);
        else
            weigh_values(row, factor, (const float(*)[KEYS])p, v, all_lo, all_hi, D, QUERY_TILE);
        for (size_t i = 0; i < N; i++)
            factor[i] = 1;
    } else {
        all_lo = all_hi = n; /* nothing is common: row by row */
    }
    for (size_t i = 0; i < N; i++) { /* at the edges of the mask rows see different keys */
        if (lo[i] < least(all_lo, hi[i])) {
            weigh_values(row + i, factor + i, (const float(*)[KEYS])(p + i), v, lo[i],
                         least(all_lo, hi[i]), D, 1);
            factor[i] = 1;
        }
        if (most(all_hi, lo[i]) < hi[i])
            weigh_values(row + i, factor + i, (const float(*)[KEYS])(p + i), v, most(all_hi, lo[i]),
                         hi[i], D, 1);
    }
}

/* The keys and values of n positions from `key` on, of KV head g. */
static void find_keys(const gemma4_keys *s, size_t g, size_t key, size_t n, const float **k,
                      const float **v)
{
    size_t width = s->G * s->D;
    for (size_t j = 0; j < n; j++) {
        size_t position = key + j,
               slot = position < s->past ? position % s->slots : position - s->past;
        k[j] = (position < s->past ? s->past_k : s->chunk_k) + slot * width + g * s->D;
        v[j] = (position < s->past ? s->past_v : s->chunk_v) + slot * width + g * s->D;
    }
}

/* Of a copy of a block: a whole number of lines. */
static size_t block_bytes(size_t D)
{
    size_t bytes = (PANEL + KEYS) * D * sizeof(float);
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* A copy of a block for many query rows: k as a panel (pack_half), v row after row. Where they lie,
 * one position's are a power of two of bytes from the next one's: they would compete for the same
 * lines of the first-level cache. Returns the panel. */
static const float *copy_block(float *copy, const float *const *k, const float **v, size_t n,
                               size_t D)
{
    float *values = copy + D * PANEL;
    for (size_t half = 0; half < 2; half++) {
        size_t first = least(half * LANES, n);
        pack_floats(copy + half * LANES, k + first, D, least(LANES, n - first));
    }
    for (size_t j = 0; j < n; j++)
        v[j] = memcpy(values + j * D, v[j], D * sizeof *values);
    return copy;
}

/* Query rows first ... first + count - 1 of KV head g: row i is head i % shared of position i /
 * shared, of the `shared` query heads that read this KV head. */
static void attend(float *context, const float *q, const gemma4_keys *s, size_t H, size_t g,
                   size_t first, size_t count)
{
    query rows[QUERIES] = {{0}};
    size_t D = s->D, shared = H / s->G;
    float *copy = count > 2 ? aligned_alloc(ALIGNMENT, block_bytes(D)) : NULL;
    for (size_t i = 0; i < count; i++) {
        size_t t = (first + i) / shared, at = (t * H + g * shared + (first + i) % shared) * D;
        gemma4_visible keys = gemma4_visible_through(s->window, s->past + t);
        rows[i] = (query){q + at, context + at, keys.first, keys.end, -INFINITY, 0};
        memset(context + at, 0, D * sizeof *context);
    }
    for (size_t key = rows[0].first; key < rows[count - 1].end; key += KEYS) {
        const float *k[KEYS] = {0}, *v[KEYS] = {0};
        size_t n = least(KEYS, rows[count - 1].end - key);
        find_keys(s, g, key, n, k, v);
        const float *panel = copy ? copy_block(copy, k, v, n, D) : NULL;
        for (size_t i = 0, N; i < count; i += N) {
            N = least(QUERY_TILE, count - i);
            if (rows[i].first < key + n && rows[i + N - 1].end > key)
                attend_block(rows + i, N, k, panel, v, key, n, D);
        }
    }
    free(copy);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < D; j++)
            rows[i].context[j] /= rows[i].sum;
}

GEMMA4_ATTENTION(TWIN(gemma4_attention))
{
    size_t rows = T * (H / keys->G), blocks = (rows + QUERIES - 1) / QUERIES;
#pragma omp parallel for schedule(dynamic) if (T * H * keys->D * (keys->past + T) >= PRODUCTS)
    for (size_t work = 0; work < blocks * keys->G; work++) {
        size_t first = work / keys->G * QUERIES;
        attend(context, q, keys, H, work % keys->G, first, least(QUERIES, rows - first));
    }
}
