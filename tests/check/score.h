/* An engine's tensor in units of what honest rounding does to it (spec/tolerance.md, "Verdict"). */
#ifndef GEMMA4_SCORE_H
#define GEMMA4_SCORE_H

#include <stdbool.h>
#include <stddef.h>

#include "taps.h"

typedef struct gemma4_evidence gemma4_evidence; /* evidence.h */

/* What the engine's tensor is compared with. All zero: what was expected, with its own spread, at
 * all rows that can be compared. */
typedef struct gemma4_against {
    const gemma4_real *values; /* [T, width] in place of what was expected */
    const double *sigma;       /* [T] in place of the tap's spread */
    const bool *skip;          /* [T] rows to leave out */
    size_t positions;          /* only the first so many; 0: all */
    bool smaller;              /* values smaller than what was expected have less of a spread */
} gemma4_against;

/* sqrt(mean over rows of (rms(row error) / sigma)^2), and the largest row. */
typedef struct gemma4_score {
    size_t rows;
    double score, worst; /* in units of the yardstick */
    size_t position;     /* of the worst */
    double relative_rms; /* norm(error) / norm(expected) */
} gemma4_score;
gemma4_score gemma4_score_tap(const gemma4_evidence *evidence, gemma4_tap tap,
                              const gemma4_against *against);

/* Is the tap's error, at the rows that can be compared, within the limits? */
bool gemma4_within_limits(const gemma4_evidence *evidence, gemma4_tap tap);

/* How much too large the rows are on average, as a part of what was expected: rounding scales a row
 * up or down, but not all rows alike. */
typedef struct gemma4_bias {
    double part;       /* -0.002: 0.2 % too small */
    double in_spreads; /* its size in units of what it is in the perturbed runs; 0 where there are
                          too few rows to say */
} gemma4_bias;
gemma4_bias gemma4_bias_of_tap(const gemma4_evidence *evidence, gemma4_tap tap);

/* The spread of honest rounding in a row of what is compared with: values that take the place of
 * the expected ones have the rounding of their own size. Not less than the expected ones have,
 * unless that is asked for: values may be small because large ones cancel. */
double gemma4_against_sigma(const gemma4_evidence *evidence, gemma4_tap tap,
                            const gemma4_against *against, size_t row);

/* The rows that a comparison takes: stored, finite, not skipped. */
bool gemma4_row_counts(const gemma4_evidence *evidence, gemma4_tap tap,
                       const gemma4_against *against, size_t row);

#endif
