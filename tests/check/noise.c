#include "noise.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* float16's range is no part of the error model: an engine that overflows shows infinities. q8_0
 * and q4_0 engines compute in float16 or better and quantise the inputs of their weights' products
 * to 8 bits in blocks: ggml's Q8_0, or for the K types Q8_K. */
static const gemma4_tier tiers[] = {
    {"float32", UNIT_FLOAT32, 0}, {"float64", UNIT_FLOAT32, 0}, /* dumps are read as float32 */
    {"bfloat16", 0x1p-8, 0},      {"float16", 0x1p-11, 0},      {"q8_0", 0x1p-11, 32},
    {"q4_0", 0x1p-11, 32},        {"q4_k", 0x1p-11, 256},
};

const gemma4_tier *gemma4_tier_at(size_t index)
{
    return index < sizeof tiers / sizeof *tiers ? &tiers[index] : NULL;
}

const gemma4_tier *gemma4_tier_of(const char *dtype)
{
    for (size_t i = 0; i < sizeof tiers / sizeof *tiers; i++)
        if (!strcmp(tiers[i].name, dtype))
            return &tiers[i];
    return NULL;
}

const gemma4_tier *gemma4_tier_expect(const char *where, const char *dtype, gemma4_error *error)
{
    char names[120] = "";
    const gemma4_tier *tier = gemma4_tier_of(dtype);
    for (size_t i = 0; gemma4_tier_at(i); i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? ", " : "",
                 gemma4_tier_at(i)->name);
    if (!tier)
        gemma4_fail(error, "%s: expected one of %s, found '%.40s'", where, names, dtype);
    return tier;
}

static uint64_t next(gemma4_noise *noise)
{
    uint64_t z = (noise->state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* Uniform in (-1, 1). The half keeps the ends out; it is 2^-53, which no test can see. */
static double uniform(gemma4_noise *noise)
{
    return ((double)(next(noise) >> 11) + 0.5) * 0x1p-52 - 1.0;
}

/* Stores a perturbed value: rounded up or down at random, with the chances that keep its mean. To
 * nearest, most perturbations of a float32 value below one unit in the last place would be lost. A
 * double has 29 bits of significand more than a float: a random number is added to them, then they
 * are cut off. */
static gemma4_real stored(gemma4_noise *noise, double value)
{
    const uint64_t beyond_float = ((uint64_t)1 << 29) - 1;
    uint64_t bits;
    if (sizeof(gemma4_real) != sizeof(float) || !isfinite(value))
        return (gemma4_real)value;
    memcpy(&bits, &value, sizeof bits);
    bits = (bits + (next(noise) & beyond_float)) & ~beyond_float;
    memcpy(&value, &bits, sizeof value);
    return (gemma4_real)value;
}

gemma4_noise gemma4_noise_new(const gemma4_tier *tier, uint64_t draw)
{
    gemma4_noise noise = {.tier = tier, .state = draw * 0xD1342543DE82EF95u + 0x2545F4914F6CDD1Du};
    next(&noise);
    return noise;
}

double gemma4_rounded(double x, double unit)
{
    int exponent;
    frexp(x, &exponent);
    double step = ldexp(unit, exponent);
    return x == 0 ? 0 : nearbyint(x / step) * step;
}

bool gemma4_noise_toss(gemma4_noise *noise)
{
    return next(noise) >> 63;
}

static double rms(const gemma4_real *values, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)values[i] * (double)values[i];
    return sqrt(sum / (double)n);
}

void gemma4_noise_step(gemma4_noise *noise, gemma4_tap tap, gemma4_real *values, size_t rows,
                       size_t width, size_t heads, size_t length)
{
    const gemma4_tap_info *info = gemma4_tap_describe(tap);
    double unit = noise->tier->unit, element = unit * sqrt(info->each_roundings);
    size_t n = width / heads;
    for (size_t row = 0; row < rows * heads; row++) {
        gemma4_real *x = values + row * n;
        double common = info->shared_roundings * unit * uniform(noise);
        /* Errors of a float32 sum of `length` products: each partial sum is rounded; for random
         * terms that adds up to the result's size times sqrt(length / 6). */
        double additive =
            length ? rms(x, n) * sqrt(3) * UNIT_FLOAT32 * sqrt((double)(length + 1) / 6) : 0;
        for (size_t i = 0; i < n; i++)
            x[i] = stored(noise, (double)x[i] * (1 + common + element * uniform(noise)) +
                                     additive * uniform(noise));
    }
}

void gemma4_noise_storage(gemma4_noise *noise, gemma4_tap tap, gemma4_real *values, size_t n,
                          double unit)
{
    if (tap != GEMMA4_TAP_COUNT && gemma4_tap_describe(tap)->rows == GEMMA4_ROWS_CACHED)
        unit = hypot(unit, noise->kv_unit);
    for (size_t i = 0; i < n; i++)
        values[i] = stored(noise, (double)values[i] * (1 + unit * uniform(noise)));
}

void gemma4_noise_blocks(gemma4_noise *noise, gemma4_tap tap, gemma4_real *values, size_t rows,
                         size_t width)
{
    const size_t block = noise->tier->block_inputs;
    if (!block || !gemma4_tap_describe(tap)->feeds_weights)
        return;
    for (size_t row = 0; row < rows; row++)
        for (size_t first = 0; first < width; first += block) {
            gemma4_real *x = values + row * width + first;
            size_t n = width - first < block ? width - first : block;
            double largest = 0;
            for (size_t i = 0; i < n; i++)
                largest = fmax(largest, fabs((double)x[i]));
            /* 8 bits: the step is largest / 127, and an honest rounding's error has an RMS of 0.29
             * steps. As elsewhere, 1.4 times that. */
            for (size_t i = 0; i < n; i++)
                x[i] = stored(noise, (double)x[i] + largest / 127 * sqrt(0.5) * uniform(noise));
        }
}

void gemma4_noise_angle(gemma4_noise *noise, gemma4_real *values, size_t rows, size_t heads,
                        size_t D, size_t pairs, double theta, size_t first_position, uint64_t key)
{
    /* q and k of a layer must be turned by the same wrong angle: their own stream, started from
     * key. */
    gemma4_noise angles = gemma4_noise_new(noise->tier, key);
    for (size_t j = 0; j < pairs; j++) {
        double frequency = pow(theta, -2.0 * (double)j / (double)D);
        /* One rounding of the frequency, the same at all positions, and one of each angle. */
        double frequency_error = UNIT_FLOAT32 * 1.5 * uniform(&angles);
        for (size_t row = 0; row < rows; row++) {
            double angle = (double)(first_position + row) * frequency;
            double error = angle * (frequency_error + UNIT_FLOAT32 * uniform(&angles));
            double c = cos(error), s = sin(error);
            for (size_t h = 0; h < heads; h++) {
                gemma4_real *x = values + (row * heads + h) * D;
                double a = (double)x[j], b = (double)x[j + D / 2];
                x[j] = stored(noise, a * c - b * s);
                x[j + D / 2] = stored(noise, b * c + a * s);
            }
        }
    }
}
