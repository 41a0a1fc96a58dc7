/* The operators one by one (ref/ops.h), against constants that mpmath computed with 40 digits,
 * independent of libm and of this code. A result is right when it is the nearest float to the true
 * value, or its neighbour by a double rounding. */
#include "ops.h"
#include "suites.h"
#include "support.h"

#include <math.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* Half a unit in the last place of a float, and a little for the rounding of the double before
 * it. */
static void assert_rounded(gemma4_real found, double expected, const char *what, size_t index)
{
    double limit = 0x1.001p-24 * fabs(expected);
    ck_assert_msg(fabs((double)found - expected) <= limit, "%s[%zu]: expected %.9g, found %.9g",
                  what, index, expected, (double)found);
}

static void assert_all_rounded(const gemma4_real *found, const double *expected, size_t n,
                               const char *what)
{
    for (size_t i = 0; i < n; i++)
        assert_rounded(found[i], expected[i], what, i);
}

/* A well mixed value in (-1, 1) that needs all bits of a float. */
static gemma4_real noise(size_t i)
{
    return (gemma4_real)((double)((i * 2654435761u + 12345u) & 0xFFFFFFu) / 0x800000 - 1);
}

/* --- weights --- */

/* Widens an f16 by shifting its fields into place and scaling by 2^112, which corrects the
 * exponent's bias exactly, for subnormals too: another way than ldexp of the mantissa. */
static float f16_by_rescaling(unsigned half)
{
    uint32_t bits = (half & 0x7fffu) << 13;
    float magnitude;
    memcpy(&magnitude, &bits, sizeof magnitude);
    magnitude *= 0x1p112f;
    return half & 0x8000u ? -magnitude : magnitude;
}

START_TEST(every_f16_is_read_exactly)
{
    static uint16_t halves[65536];
    const gemma4_weight w = {.dtype = GEMMA4_F16, .data = halves, .rows = 1, .cols = 65536};
    for (unsigned i = 0; i < 65536; i++)
        halves[i] = (uint16_t)i;
    for (unsigned i = 0; i < 65536; i++) {
        float found = gemma4_weight_at(&w, i), expected = f16_by_rescaling(i);
        if ((i & 0x7c00u) == 0x7c00u) {
            ck_assert(i & 1023u ? isnan(found)
                                : isinf(found) && (signbit(found) != 0) == (i >= 0x8000u));
            continue;
        }
        ASSERT_EACH(memcmp(&found, &expected, sizeof found) == 0, "0x%04x: expected %a, found %a",
                    i, (double)expected, (double)found);
    }
}
END_TEST

static const struct {
    uint16_t bits;
    float value;
} F16[] = {
    {0x0000, 0},         {0x0001, 0x1p-24f}, {0x03ff, 0x1.ff8p-15f},
    {0x0400, 0x1p-14f},  {0x3c00, 1},        {0x3c01, 1.0009765625f},
    {0x7bff, 65504},     {0xc000, -2},       {0xb555, -0.333251953125f},
    {0x8001, -0x1p-24f},
};

/* Fixed points of the format, so that the test above does not lean on one formula alone. */
START_TEST(f16_landmarks)
{
    const gemma4_weight w = {.dtype = GEMMA4_F16, .data = &F16[_i].bits, .rows = 1, .cols = 1};
    ck_assert_float_eq(gemma4_weight_at(&w, 0), F16[_i].value);
}
END_TEST

START_TEST(every_bf16_is_the_upper_half_of_a_float)
{
    static uint16_t halves[65536];
    const gemma4_weight w = {.dtype = GEMMA4_BF16, .data = halves, .rows = 1, .cols = 65536};
    for (unsigned i = 0; i < 65536; i++)
        halves[i] = (uint16_t)i;
    for (unsigned i = 0; i < 65536; i++) {
        float found = gemma4_weight_at(&w, i);
        uint32_t bits;
        memcpy(&bits, &found, sizeof bits);
        /* moving a signalling NaN may quieten it */
        ASSERT_EACH(isnan(found) ? (i & 0x7fffu) > 0x7f80u : bits == (uint32_t)i << 16,
                    "0x%04x: found %a", i, (double)found);
    }
}
END_TEST

static const gemma4_dtype WEIGHT_TYPES[] = {GEMMA4_BF16, GEMMA4_F16, GEMMA4_F32};

/* A [rows, cols] weight of noise of that type, in memory that the caller frees. */
static gemma4_weight noise_weight(gemma4_dtype dtype, size_t rows, size_t cols)
{
    size_t n = rows * cols, size = dtype == GEMMA4_F32 ? 4 : 2;
    unsigned char *data = malloc(n * size);
    ck_assert_ptr_nonnull(data);
    for (size_t i = 0; i < n; i++) {
        float value = (float)noise(i + 77);
        uint16_t half = (uint16_t)((i * 40503u) & 0xbfffu); /* below 2 in both 16-bit types, either
                                                               sign */
        memcpy(data + i * size, size == 4 ? (void *)&value : (void *)&half, size);
    }
    return (gemma4_weight){.dtype = dtype, .data = data, .rows = rows, .cols = cols};
}

/* Expert 2 of a stack of four [3, 5] matrices. */
START_TEST(rows_of_an_expert_stack_are_a_view)
{
    gemma4_weight stack = noise_weight(WEIGHT_TYPES[_i], 4 * 3, 5);
    gemma4_weight expert = gemma4_weight_rows(&stack, 2 * 3, 3);
    float row[5];
    ck_assert_uint_eq(expert.rows, 3);
    ck_assert_uint_eq(expert.cols, 5);
    ck_assert_int_eq(expert.dtype, stack.dtype);
    for (size_t r = 0; r < 3; r++) {
        gemma4_weight_row(row, &expert, r);
        for (size_t i = 0; i < 5; i++) {
            ck_assert_float_eq(row[i], gemma4_weight_at(&stack, (6 + r) * 5 + i));
            ck_assert_float_eq(row[i], gemma4_weight_at(&expert, r * 5 + i));
        }
    }
    free((void *)stack.data);
}
END_TEST

/* --- sums of products --- */

/* In float, 1 would vanish beside 1e8. */
START_TEST(dot_sums_in_double)
{
    const gemma4_real x[] = {1e8f, 1, -1e8f};
    const float w[] = {1, 1, 1};
    ck_assert_double_eq(gemma4_dot(x, w, 3), 1);
    ck_assert_double_eq(gemma4_dot(x, w, 0), 0);
}
END_TEST

START_TEST(matmul_is_the_sum_over_in_features)
{
    enum { T = 7, ROWS = 11, COLS = 37 };
    gemma4_weight w = noise_weight(WEIGHT_TYPES[_i], ROWS, COLS);
    gemma4_real x[T * COLS], y[T * ROWS];
    float w_row[COLS];
    for (size_t i = 0; i < T * COLS; i++)
        x[i] = noise(i);
    gemma4_matmul(y, x, &w, T, w_row);
    for (size_t t = 0; t < T; t++)
        for (size_t o = 0; o < ROWS; o++) {
            long double sum = 0, magnitude = 0;
            for (size_t i = 0; i < COLS; i++) {
                long double product =
                    (long double)x[t * COLS + i] * (long double)gemma4_weight_at(&w, o * COLS + i);
                sum += product;
                magnitude += fabsl(product);
            }
            /* a float's half unit, and the roundings of COLS double additions */
            long double limit = 0x1.001p-24L * fabsl(sum) + COLS * 0x1p-53L * magnitude;
            ck_assert_msg(fabsl((long double)y[t * ROWS + o] - sum) <= limit,
                          "row %zu, feature %zu", t, o);
        }
    free((void *)w.data);
}
END_TEST

START_TEST(matmul_rows_have_the_same_bits_for_any_T)
{
    enum { T = 7, ROWS = 11, COLS = 37 };
    gemma4_weight w = noise_weight(WEIGHT_TYPES[_i], ROWS, COLS);
    gemma4_real x[T * COLS], all[T * ROWS], one[ROWS];
    float w_row[COLS];
    for (size_t i = 0; i < T * COLS; i++)
        x[i] = noise(i);
    gemma4_matmul(all, x, &w, T, w_row);
    for (size_t t = 0; t < T; t++) {
        gemma4_matmul(one, x + t * COLS, &w, 1, w_row);
        ck_assert_mem_eq(one, all + t * ROWS, sizeof one);
    }
    free((void *)w.data);
}
END_TEST

/* --- RMSNorm --- */

/* Row 0 is so small that eps = 1e-6 takes 12 % off it; row 1 is not. */
static const gemma4_real NORM_X[] = {
    0.0009765625f, -0.001953125f, 0.00048828125f, 0.0029296875f, 3, -4, 12, 0.5f};
static const float NORM_W[] = {1, 0.5f, -2, 3};
static const double NORM_PLAIN[] = {0.46569208842355967, -0.93138417684711935, 0.23284604421177984,
                                    1.397076265270679,   0.46119745976455664,  -0.61492994635274218,
                                    1.8447898390582265,  0.076866243294092773};
static const double NORM_WEIGHTED[] = {0.46569208842355967, -0.46569208842355967,
                                       -0.46569208842355967, 4.1912287958120371};

START_TEST(rmsnorm_without_weight)
{
    gemma4_real y[8];
    gemma4_rmsnorm(y, NORM_X, NULL, 2, 4, 1e-6);
    assert_all_rounded(y, NORM_PLAIN, 8, "y");
}
END_TEST

/* The weight multiplies as it is, not as 1 + w. */
START_TEST(rmsnorm_with_weight)
{
    const gemma4_weight w = {.dtype = GEMMA4_F32, .data = NORM_W, .rows = 1, .cols = 4};
    gemma4_real y[4];
    gemma4_rmsnorm(y, NORM_X, &w, 1, 4, 1e-6);
    assert_all_rounded(y, NORM_WEIGHTED, 4, "y");
}
END_TEST

START_TEST(rmsnorm_may_overwrite_its_input)
{
    gemma4_real x[8], y[8];
    memcpy(x, NORM_X, sizeof x);
    gemma4_rmsnorm(y, NORM_X, NULL, 2, 4, 1e-6);
    gemma4_rmsnorm(x, x, NULL, 2, 4, 1e-6);
    ck_assert_mem_eq(x, y, sizeof x);
}
END_TEST

START_TEST(rmsnorm_of_zero_is_zero)
{
    const gemma4_real x[4] = {0};
    gemma4_real y[4] = {1, 1, 1, 1};
    gemma4_rmsnorm(y, x, NULL, 1, 4, 1e-6);
    ck_assert_mem_eq(x, y, sizeof x);
}
END_TEST

/* --- RoPE --- */

/* One head of D = 8 per row: lanes 0 ... 3 are paired with lanes 4 ... 7. */
static const gemma4_real ROPE_X[] = {1, -0.5f, 0.25f, 2, -1.5f, 0.75f, 3, -0.125f};

static const struct {
    size_t pairs, position;
    double theta, expected[8];
} ROPE[] = {
    {4,
     3,
     1e4,
     {-0.77831248451064462, -0.69930840633874376, 0.15990100984553987, 2.0003659994473534,
      1.6261087529605354, 0.56874225517712894, 3.0061489761903645, -0.11899944644825422}},
    {4,
     4,
     1e4,
     {-1.7888473638255043, -0.7525942566898368, 0.12983202679434385, 2.0004839987102297,
      0.22366293598748962, 0.49608656986202724, 3.0075976534135135, -0.11699902095457803}},
    /* Far out the angle's rounding to float is what decides: lane 1 would be -0.89355874 with an
     * exact angle. */
    {4,
     262143,
     1e4,
     {0.5804078123370706, -0.89365108335285502, -2.8648033183969921, -0.4810030436699677,
      1.7067884377913086, 0.11784626096006852, 0.92487942289878119, -1.9453177303413001}},
    /* Proportional: fewer pairs rotate, and the exponent's denominator stays the head dim. */
    {1, 3, 1e6, {-0.77831248451064462, -0.5, 0.25, 2, 1.6261087529605354, 0.75, 3, -0.125}},
    {2,
     262143,
     1e6,
     {0.5804078123370706, -0.33817397611619311, 0.25, 2, 1.7067884377913086, -0.83554674428051268,
      3, -0.125}},
};

START_TEST(rope_rotates_lane_j_with_lane_j_plus_half)
{
    gemma4_real x[8];
    memcpy(x, ROPE_X, sizeof x);
    gemma4_rope(x, 1, 1, 8, ROPE[_i].pairs, ROPE[_i].theta, ROPE[_i].position);
    assert_all_rounded(x, ROPE[_i].expected, 8, "x");
}
END_TEST

START_TEST(rope_takes_the_position_of_each_row_and_all_heads_alike)
{
    gemma4_real x[2][3][8]; /* positions 3 and 4, three heads */
    for (size_t t = 0; t < 2; t++)
        for (size_t h = 0; h < 3; h++)
            memcpy(x[t][h], ROPE_X, sizeof x[t][h]);
    gemma4_rope(&x[0][0][0], 2, 3, 8, 4, 1e4, 3);
    for (size_t t = 0; t < 2; t++)
        for (size_t h = 0; h < 3; h++)
            assert_all_rounded(x[t][h], ROPE[t].expected, 8, "x");
}
END_TEST

/* Bit for bit: -0, the smallest subnormal and a NaN's payload would not survive an arithmetic
 * no-op. */
START_TEST(rope_leaves_other_lanes_alone)
{
    const uint32_t odd[6] = {0x80000000u, 1u, 0x7fc12345u, 0x80000001u, 0x7f800000u, 0xffc00001u};
    float values[6];
    gemma4_real x[8] = {1, 0, 0, 0, 1, 0, 0, 0}, before[8];
    memcpy(values, odd, sizeof values);
    for (size_t i = 0; i < 3; i++) {
        x[1 + i] = values[i];
        x[5 + i] = values[3 + i];
    }
    memcpy(before, x, sizeof x);
    gemma4_rope(x, 1, 1, 8, 1, 1e6, 1000);
    ck_assert_mem_eq(x + 1, before + 1, 3 * sizeof *x);
    ck_assert_mem_eq(x + 5, before + 5, 3 * sizeof *x);
    ck_assert(x[0] != before[0] && x[4] != before[4]);
}
END_TEST

START_TEST(rope_at_position_0_changes_nothing)
{
    gemma4_real x[8];
    memcpy(x, ROPE_X, sizeof x);
    gemma4_rope(x, 1, 1, 8, 4, 1e4, 0);
    ck_assert_mem_eq(x, ROPE_X, sizeof x);
}
END_TEST

/* --- softmax --- */

static const struct {
    size_t n;
    gemma4_real x[4];
    double expected[4];
} SOFTMAX[] = {
    {3, {1, 2, 3}, {0.090030573170380458, 0.24472847105479765, 0.66524095577482189}},
    {4, {1000, 999, 998, 0}, {0.66524095577482189, 0.24472847105479765, 0.090030573170380458, 0}},
    {3, {-1000, -1001, -1000}, {0.4223187982515182, 0.15536240349696361, 0.4223187982515182}},
    {2, {88.75f, 88.5f}, {0.5621765008857981, 0.4378234991142019}},
    {3, {3.0e38f, -3.0e38f, 3.0e38f}, {0.5, 0, 0.5}},
    {2, {0, -INFINITY}, {1, 0}},
    {1, {5}, {1}},
};

START_TEST(softmax_of_small_and_large_values)
{
    gemma4_real y[4], x[4];
    memcpy(x, SOFTMAX[_i].x, sizeof x);
    gemma4_softmax(y, x, SOFTMAX[_i].n);
    assert_all_rounded(y, SOFTMAX[_i].expected, SOFTMAX[_i].n, "y");
    gemma4_softmax(x, x, SOFTMAX[_i].n); /* y may be x */
    ck_assert_mem_eq(x, y, SOFTMAX[_i].n * sizeof *x);
}
END_TEST

/* --- GELU and soft-cap --- */

static const struct {
    double x, expected;
} GELU[] = {
    {-100, 0},
    {-10, -1.2041929433716598e-37},
    {-5, -2.291796196629506e-7},
    {-3, -0.0036373920817730188},
    {-1, -0.1588080093917233},
    {-0.5, -0.15428599017485608},
    {-0.001, -0.00049960105778641803},
    {0, 0},
    {0.001, 0.00050039894221358197},
    {0.5, 0.34571400982514392},
    {1, 0.8411919906082767},
    {2, 1.954597694087775},
    {3, 2.996362607918227},
    {10, 10},
    {100, 100},
};

START_TEST(gelu_is_the_tanh_approximation)
{
    double found = gemma4_gelu_tanh(GELU[_i].x);
    /* 1 + tanh cancels for negative x: the error is that of a double near 1, times x. */
    ck_assert_msg(fabs(found - GELU[_i].expected) <= 0x1p-51 * fabs(GELU[_i].x),
                  "gelu(%g): expected %.17g, found %.17g", GELU[_i].x, GELU[_i].expected, found);
}
END_TEST

START_TEST(geglu_multiplies_the_gate_s_gelu_with_up)
{
    const gemma4_real gate[] = {-1, 0.5f, 2}, up[] = {2, -3, 0.25f};
    const double expected[] = {-0.3176160187834466, -1.0371420294754317, 0.48864942352194375};
    gemma4_real y[3], over_gate[3], over_up[3];
    gemma4_geglu(y, gate, up, 3);
    assert_all_rounded(y, expected, 3, "y");
    memcpy(over_gate, gate, sizeof gate);
    memcpy(over_up, up, sizeof up);
    gemma4_geglu(over_gate, over_gate, up, 3);
    gemma4_geglu(over_up, gate, over_up, 3);
    ck_assert_mem_eq(over_gate, y, sizeof y);
    ck_assert_mem_eq(over_up, y, sizeof y);
}
END_TEST

static const struct {
    gemma4_real x;
    double expected;
} SOFTCAP[] = {
    {0, 0},
    {0.5f, 0.49995370884715833},
    {1, 0.99962979416468592},
    {-15, -13.863514717800293},
    {30, 22.847824678672947},
    {-45, -27.154447609345993},
    {100, 29.923739024215118},
    {300, 29.999999876330783},
    {-1e30f, -30},
    {INFINITY, 30},
};

START_TEST(softcap_is_cap_times_tanh)
{
    gemma4_real x = SOFTCAP[_i].x;
    gemma4_softcap(&x, 1, 30);
    assert_rounded(x, SOFTCAP[_i].expected, "x", 0);
}
END_TEST

/* --- top-k --- */

static const struct {
    size_t n, k;
    gemma4_real values[6];
    int32_t expected[6];
} TOP_K[] = {
    {5, 2, {1, 5, 3, 4, 2}, {1, 3}},
    {5, 1, {-5, -1, -3, -4, -2}, {1}},
    {6, 3, {2, 7, 2, 7, 7, 1}, {1, 3, 4}}, /* of equals the lower index first */
    {6, 4, {0, 0, 0, 0, 0, 0}, {0, 1, 2, 3}},
    {4, 3, {1, 3, 1, 2}, {1, 3, 0}}, /* a tie at rank K: the lower index is in */
    {3, 3, {1, 2, 3}, {2, 1, 0}},
    {3, 2, {-INFINITY, 0, INFINITY}, {2, 1}},
    {2, 2, {-0.0f, 0.0f}, {0, 1}}, /* -0 equals 0 */
};

START_TEST(top_k_is_largest_first)
{
    int32_t ids[6];
    gemma4_top_k(ids, TOP_K[_i].k, TOP_K[_i].values, TOP_K[_i].n);
    for (size_t r = 0; r < TOP_K[_i].k; r++)
        ck_assert_int_eq(ids[r], TOP_K[_i].expected[r]);
}
END_TEST

/* A NaN among the router's logits may lead to any choice, but never to an index outside the
 * experts. */
START_TEST(top_k_of_nan_stays_in_range)
{
    for (unsigned nans = 1; nans < 64; nans++) {
        gemma4_real values[6];
        int32_t ids[4];
        unsigned seen = 0;
        for (unsigned i = 0; i < 6; i++)
            values[i] = nans >> i & 1 ? (gemma4_real)NAN : (gemma4_real)i;
        gemma4_top_k(ids, 4, values, 6);
        for (int r = 0; r < 4; r++) {
            ck_assert(ids[r] >= 0 && ids[r] < 6 && !(seen >> ids[r] & 1));
            seen |= 1u << ids[r];
        }
    }
}
END_TEST

static TCase *weights_case(void)
{
    TCase *c = tcase_create("weights");
    tcase_add_test(c, every_f16_is_read_exactly);
    tcase_add_loop_test(c, f16_landmarks, 0, COUNT(F16));
    tcase_add_test(c, every_bf16_is_the_upper_half_of_a_float);
    tcase_add_loop_test(c, rows_of_an_expert_stack_are_a_view, 0, COUNT(WEIGHT_TYPES));
    tcase_add_test(c, dot_sums_in_double);
    tcase_add_loop_test(c, matmul_is_the_sum_over_in_features, 0, COUNT(WEIGHT_TYPES));
    tcase_add_loop_test(c, matmul_rows_have_the_same_bits_for_any_T, 0, COUNT(WEIGHT_TYPES));
    return c;
}

static TCase *norms_case(void)
{
    TCase *c = tcase_create("norms");
    tcase_add_test(c, rmsnorm_without_weight);
    tcase_add_test(c, rmsnorm_with_weight);
    tcase_add_test(c, rmsnorm_may_overwrite_its_input);
    tcase_add_test(c, rmsnorm_of_zero_is_zero);
    tcase_add_loop_test(c, rope_rotates_lane_j_with_lane_j_plus_half, 0, COUNT(ROPE));
    tcase_add_test(c, rope_takes_the_position_of_each_row_and_all_heads_alike);
    tcase_add_test(c, rope_leaves_other_lanes_alone);
    tcase_add_test(c, rope_at_position_0_changes_nothing);
    return c;
}

static TCase *functions_case(void)
{
    TCase *c = tcase_create("functions");
    tcase_add_loop_test(c, softmax_of_small_and_large_values, 0, COUNT(SOFTMAX));
    tcase_add_loop_test(c, gelu_is_the_tanh_approximation, 0, COUNT(GELU));
    tcase_add_test(c, geglu_multiplies_the_gate_s_gelu_with_up);
    tcase_add_loop_test(c, softcap_is_cap_times_tanh, 0, COUNT(SOFTCAP));
    tcase_add_loop_test(c, top_k_is_largest_first, 0, COUNT(TOP_K));
    tcase_add_test(c, top_k_of_nan_stays_in_range);
    return c;
}

Suite *ops_suite(void)
{
    Suite *suite = suite_create("ops");
    suite_add_tcase(suite, weights_case());
    suite_add_tcase(suite, norms_case());
    suite_add_tcase(suite, functions_case());
    return suite;
}
