/* Operators that give the scalar's bits (ref/ops_exact.h): every value equal to the scalar's, on
 * sizes at, below and above each block, all types of weights, subnormal, huge and infinite values
 * and NaN. Of a NaN only that it is one: which bits it has, the scalar's compiler decides. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "twins.h"

static const size_t COLS[] = {1,  2,  3,  4,   5,   7,   8,   9,   15,   16,  17,
                              31, 64, 66, 511, 512, 513, 519, 704, 1024, 1027};
static const size_t ROWS[] = {1, 2, 3, 4, 5, 7, 31, 32, 33, 63, 65};
static const size_t POSITIONS[] = {1, 2, 3, 4, 5, 6, 7, 11, 16, 95, 96, 97, 98, 200};
static const size_t WIDTHS[] = {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 65};

/* Rows of large values and their opposites with small ones in between: what is left of the small
 * ones depends on the order in which a row is summed up, even in double. */
static float *make_ordered(size_t rows, size_t cols)
{
    float *x = make_reals(rows * cols, PLAIN);
    for (size_t row = 0; row < rows; row++)
        for (size_t i = 0; i < cols / 2; i++)
            if (i % 3 != 1) {
                float *x_row = x + row * cols;
                x_row[i] = ldexpf(x_row[i], 20 + (int)random_below(40));
                x_row[cols - 1 - i] = -x_row[i];
            }
    return x;
}

static void same_bits(verdict *v, const float *found, const float *expected, size_t n,
                      const char *where)
{
    for (size_t i = 0; i < n; i++) {
        check_value(v, (double)found[i], (double)expected[i], 0, where, i);
        /* 0 and -0 are equal, and not the same */
        if (!v->wrong[0] && signbit(found[i]) != signbit(expected[i]) && !isnan(expected[i]))
            snprintf(v->wrong, sizeof v->wrong, "%s, value %zu: expected %g, found %g", where, i,
                     (double)expected[i], (double)found[i]);
    }
}

static void matmul_case(verdict *v, const gemma4_ops *ops, size_t rows, size_t cols, size_t T)
{
    char where[80];
    enum kind kind = any_kind();
    gemma4_weight w = make_weight(rows, cols, kind);
    const float *x = kind == CANCELLING ? make_ordered(T, cols) : make_reals(T * cols, kind);
    float *y = make_output(T * rows), *scratch = make_scratch(ops, cols, T, 0),
          *expected = make_output(T * rows), *w_row = make_output(cols);
    snprintf(where, sizeof where, "[%zu, %zu] type %d, T %zu, %s", rows, cols, (int)w.dtype, T,
             KIND_NAMES[kind]);
    ops->matmul(y, x, &w, T, scratch);
    gemma4_matmul(expected, x, &w, T, w_row);
    same_bits(v, y, expected, T * rows, where);
    check_guards(v, where);
}

static void check_matmul(verdict *v, const gemma4_ops *ops)
{
    for (size_t t = 0; t < COUNT(POSITIONS); t++) {
        for (size_t i = 0; i < COUNT(COLS); i++)
            matmul_case(v, ops, ANY(ROWS), COLS[i], POSITIONS[t]);
        for (size_t i = 0; i < COUNT(ROWS); i++)
            matmul_case(v, ops, ROWS[i], 1 + random_below(70), POSITIONS[t]);
    }
    matmul_case(v, ops, 131, 1029, 37); /* by several threads */
}

static void experts_case(verdict *v, const gemma4_ops *ops, size_t T, size_t K, size_t E, size_t M,
                         size_t d, bool out)
{
    char where[80];
    enum kind kind = any_kind();
    size_t cols = out ? M : d, n = out ? T * d : T * K * M;
    gemma4_weight w = out ? make_weight(E * d, M, kind) : make_weight(E * 2 * M, d, kind);
    bool ordered = kind == CANCELLING;
    const float *weights = ordered ? make_ordered(T, K) : make_reals(T * K, PLAIN);
    float *x = ordered && !out ? make_ordered(T, d) : make_reals(out ? T * K * M : T * d, kind);
    for (size_t i = 0; ordered && out && i < T * K * M; i++)
        x[i] = 1; /* all products are M, and the weights decide */
    const int32_t *ids = make_ids(T, K, E);
    float *y = make_output(n), *scratch = make_scratch(ops, cols, T, K), *expected = make_output(n),
          *w_row = make_output(cols);
    snprintf(where, sizeof where, "T %zu, K %zu, E %zu, M %zu, d %zu, type %d, %s", T, K, E, M, d,
             (int)w.dtype, KIND_NAMES[kind]);
    if (out) {
        ops->experts_out(y, x, &w, ids, weights, T, K, d, scratch);
        gemma4_experts_out(expected, x, &w, ids, weights, T, K, d, w_row);
    } else {
        ops->experts_act(y, x, &w, ids, T, K, M, scratch);
        gemma4_experts_act(expected, x, &w, ids, T, K, M, w_row);
    }
    same_bits(v, y, expected, n, where);
    check_guards(v, where);
}

static void check_experts(verdict *v, const gemma4_ops *ops, bool out)
{
    static const size_t T[] = {1, 2, 3, 5, 8, 20, 33}, K[] = {1, 2, 4, 8};
    for (size_t t = 0; t < COUNT(T); t++)
        for (size_t i = 0; i < COUNT(WIDTHS); i++)
            experts_case(v, ops, T[t], ANY(K), 8 + random_below(3), out ? ANY(WIDTHS) : WIDTHS[i],
                         out ? WIDTHS[i] : ANY(WIDTHS), out);
    experts_case(v, ops, 40, 8, 9, 67, 260, out); /* by several threads; groups above a block */
    experts_case(v, ops, 110, 1, 1, 33, 70, out);
}

static void check_experts_act(verdict *v, const gemma4_ops *ops)
{
    check_experts(v, ops, false);
}

static void check_experts_out(verdict *v, const gemma4_ops *ops)
{
    check_experts(v, ops, true);
}

static void rmsnorm_case(verdict *v, const gemma4_ops *ops, size_t T, size_t n)
{
    char where[80];
    enum kind kind = any_kind();
    gemma4_weight w = make_weight(1, n, PLAIN);
    const gemma4_weight *weight = random_below(3) ? &w : NULL;
    bool in_place = random_below(2);
    const double eps = random_below(2) ? 1e-6 : 0;
    float *x = make_reals(T * n, kind), *y = in_place ? x : make_output(T * n),
          *expected = make_output(T * n);
    snprintf(where, sizeof where, "T %zu, n %zu, type %d, %s%s%s", T, n, (int)w.dtype,
             KIND_NAMES[kind], weight ? "" : ", no weight", in_place ? ", in place" : "");
    gemma4_rmsnorm(expected, x, weight, T, n, eps);
    ops->rmsnorm(y, x, weight, T, n, eps);
    same_bits(v, y, expected, T * n, where);
    check_guards(v, where);
}

static void check_rmsnorm(verdict *v, const gemma4_ops *ops)
{
    for (size_t t = 0; t < COUNT(POSITIONS); t++)
        for (size_t i = 0; i < COUNT(COLS); i++)
            rmsnorm_case(v, ops, POSITIONS[t], COLS[i]);
    rmsnorm_case(v, ops, 517, 1030);
}

static void elementwise_case(verdict *v, const gemma4_ops *ops, size_t n, bool cap)
{
    char where[80];
    enum kind kind = any_kind();
    float *gate = make_reals(n, kind), *y = make_output(n), *expected = make_output(n);
    const float *up = make_reals(n, any_kind());
    snprintf(where, sizeof where, "n %zu, %s", n, KIND_NAMES[kind]);
    if (cap) {
        memcpy(y, gate, n * sizeof *y);
        memcpy(expected, gate, n * sizeof *y);
        ops->softcap(y, n, 30);
        gemma4_softcap(expected, n, 30);
    } else {
        ops->geglu(y, gate, up, n);
        gemma4_geglu(expected, gate, up, n);
    }
    same_bits(v, y, expected, n, where);
    check_guards(v, where);
}

static void check_geglu(verdict *v, const gemma4_ops *ops)
{
    for (size_t i = 0; i < COUNT(WIDTHS); i++)
        elementwise_case(v, ops, WIDTHS[i], false);
    elementwise_case(v, ops, 40001, false);
}

static void check_softcap(verdict *v, const gemma4_ops *ops)
{
    for (size_t i = 0; i < COUNT(WIDTHS); i++)
        elementwise_case(v, ops, WIDTHS[i], true);
    elementwise_case(v, ops, 40001, true);
}

/* Scores, or the context, of row t of a chunk of T behind `past` positions. */
static void attention_case(verdict *v, const gemma4_ops *ops, const gemma4_keys *sizes, size_t T,
                           size_t H, bool context)
{
    char where[80];
    enum kind kind = any_kind();
    gemma4_keys keys = *sizes;
    size_t width = keys.G * keys.D, t = random_below(T);
    keys.past_k = make_reals(keys.slots * width, kind);
    keys.past_v = make_reals(keys.slots * width, kind);
    keys.chunk_k = make_reals(T * width, kind);
    keys.chunk_v = make_reals(T * width, kind);
    gemma4_visible visible = gemma4_visible_through(keys.window, keys.past + t);
    size_t seen = visible.end - visible.first, n = H * (context ? keys.D : seen);
    size_t length = context ? seen : keys.D;
    const float *x = kind == CANCELLING ? make_ordered(H, length) : make_reals(H * length, kind);
    float *y = make_output(n), *expected = make_output(n);
    snprintf(where, sizeof where, "H %zu, G %zu, D %zu, past %zu, keys %zu, %s", H, keys.G, keys.D,
             keys.past, seen, KIND_NAMES[kind]);
    (context ? ops->context : ops->scores)(y, x, &keys, t, H);
    (context ? gemma4_attention_context : gemma4_attention_scores)(expected, x, &keys, t, H);
    same_bits(v, y, expected, n, where);
    check_guards(v, where);
}

static void check_attention(verdict *v, const gemma4_ops *ops, bool context)
{
    static const size_t T[] = {1, 2, 3, 5, 16, 17, 18, 40},
                        HEADS[][2] = {{1, 1}, {4, 2}, {3, 1}, {8, 2}, {20, 4}},
                        D[] = {2, 4, 6, 8, 10, 16, 18, 32, 34, 64}, PAST[] = {0, 1, 31, 70},
                        WINDOW[] = {1, 2, 15, 16, 33, SIZE_MAX};
    for (size_t t = 0; t < COUNT(T); t++)
        for (size_t w = 0; w < COUNT(WINDOW); w++) {
            const size_t *heads = HEADS[random_below(COUNT(HEADS))];
            gemma4_keys keys = {.G = heads[1], .D = ANY(D), .past = ANY(PAST), .window = WINDOW[w]};
            /* all, or a ring */
            keys.slots =
                keys.window == SIZE_MAX || random_below(2) ? keys.past + T[t] : keys.window;
            attention_case(v, ops, &keys, T[t], heads[0], context);
        }
    gemma4_keys many = {.G = 2, .D = 66, .past = 4000, .window = SIZE_MAX, .slots = 4001};
    attention_case(v, ops, &many, 1, 16, context); /* by several threads */
}

static void check_scores(verdict *v, const gemma4_ops *ops)
{
    check_attention(v, ops, false);
}

static void check_context(verdict *v, const gemma4_ops *ops)
{
    check_attention(v, ops, true);
}

const operator_check exact_checks[] = {
    {"matmul", check_matmul},
    {"experts_act", check_experts_act},
    {"experts_out", check_experts_out},
    {"attention_scores", check_scores},
    {"attention_context", check_context},
    {"rmsnorm", check_rmsnorm},
    {"geglu", check_geglu},
    {"softcap", check_softcap},
};
const size_t exact_check_count = COUNT(exact_checks);
