/* Matched filters: mistakes that no tap shows by itself (spec/diagnosis.md, "Where nothing fails").
 *
 * The error is projected on the difference that each counter-model predicts, each value weighed by
 * its noise, over all layers together. */
#ifndef GEMMA4_FILTER_H
#define GEMMA4_FILTER_H

#include "noise.h"
#include "score.h"

typedef struct gemma4_runner gemma4_runner;             /* block_run.h */
typedef struct gemma4_tap_evidence gemma4_tap_evidence; /* evidence.h */

/* Sums of a matched filter: projections of the error, and of every draw of honest noise, on a
 * predicted difference. */
typedef struct gemma4_filter {
    double error, size, draws[GEMMA4_DRAWS];
    double total; /* of the error on itself */
} gemma4_filter;

/* The variance of honest noise in one value (index i of the whole tensor): what the draws had
 * there, and a part of the row's, since six draws may all be small by chance. Rounding is in
 * proportion to each value, so small values weigh much more than the row's spread would let
 * them. */
double gemma4_noise_variance(const gemma4_tap_evidence *tap, size_t row, size_t i);

/* Projects the error and the draws at a tap on the difference between prediction ([T, width]) and
 * what was expected. */
gemma4_filter gemma4_project(const gemma4_evidence *evidence, gemma4_tap tap,
                             const gemma4_real *prediction, const gemma4_against *rows);
void gemma4_filter_add(gemma4_filter *to, const gemma4_filter *filter);
/* Of the error on the predicted difference: 1 is the mistake, 0 is none. */
double gemma4_filter_coefficient(const gemma4_filter *filter);
/* Spread of the coefficient under honest noise; infinite where nothing was seen. */
double gemma4_filter_spread(const gemma4_filter *filter);
/* The part of the error (of its energy) that the best multiple of the predicted difference
 * explains. */
double gemma4_filter_share(const gemma4_filter *filter);
/* Is this the mistake, although no single tap failed? deviations: how many of its spreads the
 * coefficient must be away from 0. */
bool gemma4_filter_is_significant(const gemma4_filter *filter, double deviations);
/* Is a significant filter's coefficient near enough to 1 for the mistake's name? */
bool gemma4_filter_is_named(const gemma4_filter *filter);

/* Everything that the filters have seen of one counter-model. */
typedef struct gemma4_filtered {
    gemma4_filter all; /* over all layers */
    size_t blocks;
    gemma4_tap tap; /* where it was first evaluated */
    size_t first_layer;
    gemma4_filter best; /* the one layer in which it is most significant */
    gemma4_tap best_tap;
    size_t best_layer;
} gemma4_filtered;

/* Adds a block to what is known of each counter-model: filtered is [catalogue]. Taps that failed
 * are left out. Blocks for which filters are of no use (float32, several bridged layers) add
 * nothing. */
int gemma4_filter_block(gemma4_filtered *filtered, const gemma4_evidence *evidence,
                        gemma4_runner *runner, const bool failed[GEMMA4_TAP_COUNT],
                        gemma4_error *error);
/* The sums by which a model is significant; NULL where by none. */
const gemma4_filter *gemma4_significant_filter(const gemma4_filtered *filtered);

#endif
