/* Perturbations (tests/check/noise.h): as large as spec/tolerance.md says, no larger and no
 * smaller. Expected sizes are derived here from the table of roundings, which test_spec.c compares
 * with the specification's. Each is measured as an RMS over many values, and as a bound: a value
 * uniform in +-b has an RMS of b / sqrt(3) and comes close to b. */
#include "noise.h"
#include "suites.h"
#include "support.h"

#include <math.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

static const double CLOSE = 0.02; /* of an RMS over SAMPLES values: three deviations are 0.7 % */

/* Rows of 64. */
enum { WIDTH = 64, ROWS = 1024, SAMPLES = ROWS * WIDTH };

static gemma4_real *filled(size_t n, double value)
{
    gemma4_real *values = malloc(n * sizeof *values);
    ck_assert_ptr_nonnull(values);
    for (size_t i = 0; i < n; i++)
        values[i] = (gemma4_real)value;
    return values;
}

typedef struct sizes {
    double rms, largest;
} sizes;

/* Of what every n-th value differs from `from`, the first left out. */
static sizes measure(const gemma4_real *values, size_t n, size_t first, size_t step, double from)
{
    sizes s = {0};
    size_t count = 0;
    for (size_t i = first; i < n; i += step, count++) {
        double difference = (double)values[i] - from;
        s.rms += difference * difference;
        s.largest = fmax(s.largest, fabs(difference));
    }
    s.rms = sqrt(s.rms / (double)count);
    return s;
}

/* Uniform in +-bound. The most that is ever seen is a hair below it. */
static void assert_uniform(sizes found, double bound, const char *what)
{
    ck_assert_msg(fabs(found.rms / (bound / sqrt(3)) - 1) <= CLOSE, "%s: RMS %g, expected %g", what,
                  found.rms, bound / sqrt(3));
    ck_assert_msg(found.largest <= bound * 1.0001 && found.largest >= bound * 0.998,
                  "%s: largest %g, expected %g", what, found.largest, bound);
}

/* --- tiers --- */

static const struct {
    const char *name;
    double unit;
    size_t blocks;
} TIERS[] = {
    {"float32", 0x1p-24, 0}, {"float64", 0x1p-24, 0}, {"bfloat16", 0x1p-8, 0},
    {"float16", 0x1p-11, 0}, {"q8_0", 0x1p-11, 32},   {"q4_0", 0x1p-11, 32},
    {"q4_k", 0x1p-11, 256},
};

START_TEST(a_tier_has_the_unit_of_its_type)
{
    for (size_t i = 0; i < COUNT(TIERS); i++) {
        const gemma4_tier *tier = gemma4_tier_of(TIERS[i].name);
        ck_assert_ptr_eq(tier, gemma4_tier_at(i));
        ck_assert_str_eq(tier->name, TIERS[i].name);
        ck_assert_msg(tier->unit == TIERS[i].unit && tier->block_inputs == TIERS[i].blocks, "%s",
                      TIERS[i].name);
    }
    ck_assert_ptr_null(gemma4_tier_at(COUNT(TIERS)));
    ck_assert_ptr_null(gemma4_tier_of("int8"));
    ck_assert_ptr_null(gemma4_tier_of(""));
}
END_TEST

/* --- streams --- */

START_TEST(a_stream_repeats_and_differs_from_every_other)
{
    const gemma4_tier *tier = gemma4_tier_of("bfloat16");
    gemma4_real first[4] = {1, 1, 1, 1}, again[4] = {1, 1, 1, 1};
    gemma4_noise one = gemma4_noise_new(tier, 7), same = gemma4_noise_new(tier, 7);
    gemma4_noise_storage(&one, GEMMA4_TAP_EMBED, first, 4, tier->unit);
    gemma4_noise_storage(&same, GEMMA4_TAP_EMBED, again, 4, tier->unit);
    ck_assert_mem_eq(first, again, sizeof first);
    for (uint64_t draw = 0; draw < 7; draw++) {
        gemma4_real other[4] = {1, 1, 1, 1};
        gemma4_noise noise = gemma4_noise_new(tier, draw);
        gemma4_noise_storage(&noise, GEMMA4_TAP_EMBED, other, 4, tier->unit);
        ck_assert(memcmp(first, other, sizeof first) != 0);
    }
}
END_TEST

/* Of 10,000 coins half are heads; the deviation is 50. */
START_TEST(a_coin_is_fair)
{
    gemma4_noise noise = gemma4_noise_new(gemma4_tier_of("float32"), 1);
    size_t heads = 0, changes = 0;
    bool last = false;
    for (size_t i = 0; i < 10000; i++) {
        bool toss = gemma4_noise_toss(&noise);
        heads += toss;
        changes += toss != last;
        last = toss;
    }
    ck_assert(heads >= 4800 && heads <= 5200);
    ck_assert(changes >= 4800 && changes <= 5200);
}
END_TEST

/* --- a step's own roundings --- */

/* Rows of ones: each value has its own error, uniform in +-u sqrt(each), and all of a row (of a
 * head) one, uniform in +-u shared. Their sum has the sum of their variances. What the row shares
 * is its mean, up to the own errors' mean. */
START_TEST(a_step_rounds_each_value_and_each_rows_factor_as_often_as_the_table_says)
{
    gemma4_tap tap = (gemma4_tap)_i;
    const gemma4_tap_info *info = gemma4_tap_describe(tap);
    const double u = 0x1p-8;
    size_t heads = info->heads == '1' ? 1 : 4, n = WIDTH / heads;
    double own = u * sqrt(info->each_roundings), shared = u * info->shared_roundings, means = 0,
           apart = 0;
    gemma4_real *values = filled(SAMPLES, 1);
    gemma4_noise noise = gemma4_noise_new(gemma4_tier_of("bfloat16"), 3);
    gemma4_noise_step(&noise, tap, values, ROWS, WIDTH, heads, 0);
    for (size_t row = 0; row < ROWS * heads; row++) {
        double mean = 0;
        for (size_t i = 0; i < n; i++)
            mean += ((double)values[row * n + i] - 1) / (double)n;
        means += mean * mean;
        for (size_t i = 0; i < n; i++)
            apart +=
                ((double)values[row * n + i] - 1 - mean) * ((double)values[row * n + i] - 1 - mean);
    }
    means = sqrt(means / (double)(ROWS * heads));
    apart = sqrt(apart / (double)SAMPLES);
    sizes all = measure(values, SAMPLES, 0, 1, 1);
    double expected_apart = own / sqrt(3) * sqrt(1 - 1 / (double)n),
           expected_means = sqrt((shared * shared + own * own / (double)n) / 3);
    ck_assert_msg(fabs(apart - expected_apart) <= CLOSE * expected_apart,
                  "%s: apart %g, expected %g", info->name, apart, expected_apart);
    /* Only as many as there are rows: three deviations are 4 %, of a normal mean's size (where
     * nothing is shared) 7 %. */
    ck_assert_msg(fabs(means - expected_means) <= 0.08 * expected_means,
                  "%s: means %g, expected %g", info->name, means, expected_means);
    ck_assert_msg(all.largest <= (own + shared) * 1.0001 && all.largest >= (own + shared) * 0.95,
                  "%s: largest %g", info->name, all.largest);
    free(values);
}
END_TEST

/* The error of a float32 sum: the first value of each row of 64 is 4096, so that the RMS is 512;
 * the others are 0, where only what is added shows: RMS 512 * 2^-24 sqrt((n + 1) / 6). In the
 * second half of the heads everything is a hundredth. */
START_TEST(a_sum_of_products_adds_the_error_of_its_length)
{
    static const size_t lengths[] = {0, 1, 2, 64, 1000000};
    for (size_t k = 0; k < COUNT(lengths); k++) {
        gemma4_real *values = filled(SAMPLES, 0);
        for (size_t row = 0; row < ROWS; row++)
            values[row * WIDTH] = row % 2 ? 40.96f : 4096;
        gemma4_noise noise = gemma4_noise_new(gemma4_tier_of("bfloat16"), 5);
        gemma4_noise_step(&noise, GEMMA4_TAP_ATTN_SCORES, values, ROWS / 2, 2 * WIDTH, 2,
                          lengths[k]);
        double bound =
            lengths[k] ? 512 * sqrt(3) * 0x1p-24 * sqrt((double)(lengths[k] + 1) / 6) : 0;
        for (size_t i = 1; i < WIDTH; i += 31) {
            sizes even = measure(values, SAMPLES, i, 2 * WIDTH, 0),
                  odd = measure(values, SAMPLES, WIDTH + i, 2 * WIDTH, 0);
            ck_assert_msg(fabs(even.rms - bound / sqrt(3)) <= 0.08 * bound &&
                              even.largest <= bound && even.largest >= 0.98 * bound,
                          "%zu", lengths[k]);
            ck_assert_msg(odd.largest <= bound / 99.99 && odd.largest >= 0.0098 * bound, "%zu",
                          lengths[k]);
        }
        free(values);
    }
}
END_TEST

/* 1.0625 in float32, whose next values are 2 units away: one perturbation reaches 1.0625 units of
 * 2^-24, so 0.53125 steps. To nearest, most of it would be lost. Rounded up or down at random, a
 * value moves by a whole step with the chance that keeps the mean; the mean square of that is the
 * mean distance, 0.265625 steps. */
START_TEST(a_float_is_stored_up_or_down_at_random_with_its_mean_kept)
{
    const double step = 0x1p-23;
    gemma4_real *values = filled(SAMPLES, 1.0625);
    gemma4_noise noise = gemma4_noise_new(gemma4_tier_of("float32"), 9);
    gemma4_noise_step(&noise, GEMMA4_TAP_EMBED, values, ROWS, WIDTH, 1, 0);
    double mean = 0;
    for (size_t i = 0; i < SAMPLES; i++)
        mean += ((double)values[i] - 1.0625) / SAMPLES;
    sizes s = measure(values, SAMPLES, 0, 1, 1.0625);
    /* its deviation is 0.002 */
    ck_assert_msg(fabs(mean) <= 0.01 * step, "mean %g steps", mean / step);
    ck_assert_msg(fabs(s.rms / (sqrt(0.265625) * step) - 1) <= CLOSE, "RMS %g steps", s.rms / step);
    ck_assert(s.largest == step);
    free(values);
}
END_TEST

START_TEST(what_is_not_finite_or_not_perturbed_stays)
{
    gemma4_real values[4] = {INFINITY, -INFINITY, NAN, 3};
    gemma4_noise noise = gemma4_noise_new(gemma4_tier_of("float32"), 9);
    gemma4_noise_step(&noise, GEMMA4_TAP_LAYER_INPUT, values, 1, 4, 4, 0);
    ck_assert(isinf(values[0]) && values[0] > 0 && isinf(values[1]) && values[1] < 0 &&
              isnan(values[2]));
    ck_assert(values[3] == 3);
}
END_TEST

/* --- storage --- */

START_TEST(storage_is_one_rounding_of_its_unit)
{
    gemma4_real *values = filled(SAMPLES, -1);
    gemma4_noise noise = gemma4_noise_new(gemma4_tier_of("float32"), 2);
    gemma4_noise_storage(&noise, GEMMA4_TAP_ATTN_Q_ROPE, values, SAMPLES, 0x1p-8);
    assert_uniform(measure(values, SAMPLES, 0, 1, -1), 0x1p-8, "attn.q_rope");
    free(values);
}
END_TEST

/* Units 3 and 4 together are 5. */
START_TEST(what_is_cached_is_rounded_to_the_caches_type_too)
{
    static const struct {
        gemma4_tap tap;
        double units;
    } cases[] = {
        {GEMMA4_TAP_ATTN_K_ROPE, 5}, {GEMMA4_TAP_ATTN_V_NORM, 5}, {GEMMA4_TAP_ATTN_Q_ROPE, 3},
        {GEMMA4_TAP_ATTN_K_NORM, 3}, {GEMMA4_TAP_COUNT, 3},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        gemma4_real *values = filled(SAMPLES, 1);
        gemma4_noise noise = gemma4_noise_new(gemma4_tier_of("bfloat16"), 2);
        noise.kv_unit = 4 * 0x1p-10;
        gemma4_noise_storage(&noise, cases[i].tap, values, SAMPLES, 3 * 0x1p-10);
        assert_uniform(measure(values, SAMPLES, 0, 1, 1), cases[i].units * 0x1p-10, "storage");
        free(values);
    }
}
END_TEST

/* --- what quantised weights multiply --- */

/* A row of 40: a block of 32 whose largest value, its last, is 127: a step is 1. And one of 8 whose
 * first is -12.7: a step is 0.1. */
START_TEST(a_block_of_32_moves_by_a_part_of_its_largest_value)
{
    enum { LONG = 40 };
    gemma4_real *values = filled(ROWS * LONG, 0);
    for (size_t row = 0; row < ROWS; row++) {
        values[row * LONG + 31] = 127;
        values[row * LONG + 32] = -12.7f;
    }
    gemma4_noise noise = gemma4_noise_new(gemma4_tier_of("q8_0"), 4);
    gemma4_noise_blocks(&noise, GEMMA4_TAP_MLP_ACT, values, ROWS, LONG);
    sizes first = {0}, second = {0};
    for (size_t i = 0; i < LONG; i++) {
        sizes s = measure(values, ROWS * LONG, i, LONG,
                          i == 31   ? 127
                          : i == 32 ? (double)-12.7f
                                    : 0);
        sizes *block = i < 32 ? &first : &second;
        block->rms += s.rms * s.rms / (i < 32 ? 32 : 8);
        block->largest = fmax(block->largest, s.largest);
    }
    first.rms = sqrt(first.rms);
    second.rms = sqrt(second.rms);
    assert_uniform(first, sqrt(0.5), "a step of 1"); /* RMS 0.41 steps, where one rounding's is
                                                        0.29 */
    assert_uniform(second, sqrt(0.5) / 10, "a step of 0.1");
    free(values);
}
END_TEST

/* A row of 300: a block of 256 whose last value is 127, and one of 44 whose first is -12.7. */
START_TEST(a_block_of_q4_k_is_256_long)
{
    enum { LONG = 300 };
    gemma4_real *values = filled(ROWS * LONG, 0);
    for (size_t row = 0; row < ROWS; row++) {
        values[row * LONG + 255] = 127;
        values[row * LONG + 256] = -12.7f;
    }
    gemma4_noise noise = gemma4_noise_new(gemma4_tier_of("q4_k"), 4);
    gemma4_noise_blocks(&noise, GEMMA4_TAP_MLP_ACT, values, ROWS, LONG);
    sizes first = {0}, second = {0};
    for (size_t i = 0; i < LONG; i++) {
        sizes m = measure(values, ROWS * LONG, i, LONG,
                          i == 255   ? 127
                          : i == 256 ? (double)-12.7f
                                     : 0);
        sizes *block = i < 256 ? &first : &second;
        block->rms += m.rms * m.rms / (i < 256 ? 256 : 44);
        block->largest = fmax(block->largest, m.largest);
    }
    first.rms = sqrt(first.rms);
    second.rms = sqrt(second.rms);
    assert_uniform(first, sqrt(0.5), "a step of 1");
    assert_uniform(second, sqrt(0.5) / 10, "a step of 0.1");
    free(values);
}
END_TEST

START_TEST(only_inputs_of_quantised_weights_move_in_blocks)
{
    for (size_t k = 0; k < COUNT(TIERS); k++)
        for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
            gemma4_real values[32] = {[7] = 127};
            gemma4_noise noise = gemma4_noise_new(gemma4_tier_of(TIERS[k].name), 4);
            gemma4_noise_blocks(&noise, (gemma4_tap)tap, values, 1, 32);
            ck_assert_int_eq(values[0] != 0,
                             TIERS[k].blocks != 0 &&
                                 gemma4_tap_describe((gemma4_tap)tap)->feeds_weights);
        }
}
END_TEST

/* --- angles --- */

enum { D = 8, PAIRS = 3, POSITION = 1000 };

/* Two positions, two heads of D, all of whose first lanes are `first` and whose second ones are
 * `second`, turned by the errors of a key. */
static void turn(gemma4_real values[2 * 2 * D], double first, double second, uint64_t key,
                 uint64_t draw)
{
    for (size_t i = 0; i < 2 * 2 * D; i++)
        values[i] = (gemma4_real)(i % D < D / 2 ? first : second);
    gemma4_noise noise = gemma4_noise_new(gemma4_tier_of("float32"), draw);
    gemma4_noise_angle(&noise, values, 2, 2, D, PAIRS, 10000, POSITION, key);
}

/* The unit vector along the first lane becomes (cos, sin) of the error. Error over angle is a + b,
 * with a, uniform in +-1.5 * 2^-24, the same at both positions, and b, uniform in +-2^-24. Pair j
 * turns with a frequency of 10000^(-j/4): 1, 0.1, 0.01. */
START_TEST(an_angle_errs_by_its_frequency_and_by_one_rounding)
{
    enum { KEYS = 10000 };
    const double u = 0x1p-24;
    for (size_t j = 0; j < PAIRS; j++) {
        double sum = 0, difference = 0, largest = 0, apart = 0;
        for (uint64_t key = 0; key < KEYS; key++) {
            gemma4_real x[2 * 2 * D];
            turn(x, 1, 0, key, 1);
            double angle = POSITION * pow(10, -(double)j),
                   next = (POSITION + 1) * pow(10, -(double)j);
            double at = (double)x[D / 2 + j] / angle, then = (double)x[2 * D + D / 2 + j] / next;
            sum += at * at / KEYS;
            difference += (at - then) * (at - then) / KEYS;
            largest = fmax(largest, fabs(at));
            apart = fmax(apart, fabs(at - then));
        }
        /* Each within 3 %: more than three deviations of 10,000. */
        ck_assert_msg(fabs(sqrt(sum) / (u * sqrt((1.5 * 1.5 + 1) / 3)) - 1) <= 0.03,
                      "pair %zu: RMS %g", j, sqrt(sum) / u);
        ck_assert_msg(fabs(sqrt(difference) / (u * sqrt(2.0 / 3)) - 1) <= 0.03,
                      "pair %zu: apart %g", j, sqrt(difference) / u);
        ck_assert(largest <= 2.5001 * u && largest >= 2.4 * u);
        ck_assert(apart <= 2.0001 * u && apart >= 1.95 * u);
    }
}
END_TEST

START_TEST(q_and_k_of_a_layer_turn_by_the_same_angles)
{
    gemma4_real q[2 * 2 * D], k[2 * 2 * D], other[2 * 2 * D];
    turn(q, 1, 0, 5, 1);
    turn(k, 1, 0, 5, 2); /* the same key, another stream */
    turn(other, 1, 0, 6, 1);
    for (size_t t = 0; t < 2; t++)
        for (size_t j = 0; j < D / 2; j++) {
            const gemma4_real *a = q + t * 2 * D + D / 2, *b = k + t * 2 * D + D / 2;
            ck_assert_double_eq_tol((double)a[j], (double)b[j], 1e-6 * fabs((double)a[j]) + 1e-15);
            /* and so do all heads */
            ck_assert_double_eq_tol((double)a[j], (double)a[D + j],
                                    1e-6 * fabs((double)a[j]) + 1e-15);
            /* the last pair stands still */
            ck_assert_int_eq(a[j] == 0, j >= PAIRS);
        }
    ck_assert(other[D / 2] != q[D / 2]);
}
END_TEST

/* At position 2^26 the errors are some radians: (1, 0) becomes (c, s) and (0, 1) becomes (-s,
 * c). */
START_TEST(a_wrong_angle_is_a_rotation)
{
    gemma4_real x[D] = {1}, y[D] = {[D / 2] = 1};
    gemma4_noise noise = gemma4_noise_new(gemma4_tier_of("float32"), 1);
    gemma4_noise_angle(&noise, x, 1, 1, D, 1, 10000, (size_t)1 << 26, 2);
    gemma4_noise_angle(&noise, y, 1, 1, D, 1, 10000, (size_t)1 << 26, 2);
    ck_assert(fabs((double)x[D / 2]) > 0.1);
    ck_assert_double_eq_tol((double)x[0], (double)y[D / 2], 1e-6);
    ck_assert_double_eq_tol((double)x[D / 2], -(double)y[0], 1e-6);
    ck_assert_double_eq_tol((double)x[0] * (double)x[0] + (double)x[D / 2] * (double)x[D / 2], 1,
                            1e-6);
}
END_TEST

Suite *noise_suite(void)
{
    Suite *suite = suite_create("noise");
    TCase *c = tcase_create("noise");
    tcase_add_test(c, a_tier_has_the_unit_of_its_type);
    tcase_add_test(c, a_stream_repeats_and_differs_from_every_other);
    tcase_add_test(c, a_coin_is_fair);
    tcase_add_loop_test(c, a_step_rounds_each_value_and_each_rows_factor_as_often_as_the_table_says,
                        0, GEMMA4_TAP_COUNT);
    tcase_add_test(c, a_sum_of_products_adds_the_error_of_its_length);
    tcase_add_test(c, a_float_is_stored_up_or_down_at_random_with_its_mean_kept);
    tcase_add_test(c, what_is_not_finite_or_not_perturbed_stays);
    tcase_add_test(c, storage_is_one_rounding_of_its_unit);
    tcase_add_test(c, what_is_cached_is_rounded_to_the_caches_type_too);
    tcase_add_test(c, a_block_of_32_moves_by_a_part_of_its_largest_value);
    tcase_add_test(c, a_block_of_q4_k_is_256_long);
    tcase_add_test(c, only_inputs_of_quantised_weights_move_in_blocks);
    tcase_add_test(c, an_angle_errs_by_its_frequency_and_by_one_rounding);
    tcase_add_test(c, q_and_k_of_a_layer_turn_by_the_same_angles);
    tcase_add_test(c, a_wrong_angle_is_a_rotation);
    suite_add_tcase(suite, c);
    return suite;
}
