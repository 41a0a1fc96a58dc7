/* What honest arithmetic of a given precision may do to each tap (spec/tolerance.md).
 *
 * The tolerance of a step is measured, not typed: the reference itself is run several times with
 * every tap perturbed as the tier's rounding would perturb it, and the spread of the results is the
 * yardstick for the engine's error. The table of taps (ref/taps.h) says which roundings honest
 * engines make inside each step. */
#ifndef GEMMA4_NOISE_H
#define GEMMA4_NOISE_H

#include "error.h"
#include "taps.h"

#define UNIT_FLOAT32 0x1p-24 /* largest relative error of one rounding of a float */

/* How many perturbed runs the yardstick is measured by. */
enum { GEMMA4_DRAWS = 6 };

/* A precision. */
typedef struct gemma4_tier {
    const char *name;
    double unit;         /* largest relative error of one rounding to nearest */
    size_t block_inputs; /* beyond that, what a weight matrix multiplies is quantised to 8 bits in
                            blocks of this length; 0: it is not */
} gemma4_tier;

/* NULL for an unknown name. */
const gemma4_tier *gemma4_tier_of(const char *dtype);
/* The same, with a message that says where the unknown name was found ("attribute kv_dtype") and
 * which ones are known. */
const gemma4_tier *gemma4_tier_expect(const char *where, const char *dtype, gemma4_error *error);
const gemma4_tier *gemma4_tier_at(size_t index); /* NULL after the last */

/* One deterministic stream of perturbations. */
typedef struct gemma4_noise {
    const gemma4_tier *tier;
    double kv_unit; /* of the KV cache's type; 0: as the tier */
    uint64_t state;
} gemma4_noise;

/* draw selects one of many independent streams. */
gemma4_noise gemma4_noise_new(const gemma4_tier *tier, uint64_t draw);

/* x rounded to nearest in a type whose largest relative rounding error is unit, 2^-n: to n
 * significant bits. */
double gemma4_rounded(double x, double unit);

/* A coin. */
bool gemma4_noise_toss(gemma4_noise *noise);

/* Perturbs rows x width values of a tap, just computed from exact inputs, as the step's own
 * roundings would. heads and length are gemma4_tap_heads and gemma4_tap_sum_length. */
void gemma4_noise_step(gemma4_noise *noise, gemma4_tap tap, gemma4_real *values, size_t rows,
                       size_t width, size_t heads, size_t length);
/* Perturbs values that were injected from a dump: one storage rounding of unit, and of the cache's
 * type where the tap is cached. GEMMA4_TAP_COUNT as the tap leaves the cache out: what a dataset's
 * own type does to any tap. */
void gemma4_noise_storage(gemma4_noise *noise, gemma4_tap tap, gemma4_real *values, size_t n,
                          double unit);
/* In tiers whose engines quantise what a weight matrix multiplies: perturbs rows x width values of
 * such a tap as its next reader would see them. Elsewhere, does nothing. */
void gemma4_noise_blocks(gemma4_noise *noise, gemma4_tap tap, gemma4_real *values, size_t rows,
                         size_t width);
/* Perturbs the angle of each rotating pair as an engine that rounds it elsewhere would: x is (rows,
 * heads, D) after rotation. */
void gemma4_noise_angle(gemma4_noise *noise, gemma4_real *values, size_t rows, size_t heads,
                        size_t D, size_t pairs, double theta, size_t first_position, uint64_t key);

#endif
