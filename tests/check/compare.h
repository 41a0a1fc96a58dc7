/* Comparing an engine's tensor with the expected one, a row at a time (spec/cases.md,
 * "Metrics"). */
#ifndef GEMMA4_COMPARE_H
#define GEMMA4_COMPARE_H

#include <stdbool.h>
#include <stddef.h>

#include "error.h"

/* What an error is measured by. RELATIVE_RMS and POSITION_RMS compare tensors as they are, and a
 * case's manifest has tolerances for them; the others judge a step on the engine's own inputs
 * (spec/tolerance.md). */
typedef enum gemma4_metric_kind {
    GEMMA4_METRIC_NONE, /* nothing was compared */
    GEMMA4_METRIC_RELATIVE_RMS,
    GEMMA4_METRIC_POSITION_RMS,
    GEMMA4_METRIC_RMS_IN_SPREADS,
    GEMMA4_METRIC_WORST_POSITION_IN_SPREADS,
    GEMMA4_METRIC_BIAS_IN_SPREADS,
    GEMMA4_METRIC_MATCHED_FILTER,
    GEMMA4_METRIC_EXPERT_SETS,
    GEMMA4_METRIC_LISTED_TOKENS,
    GEMMA4_METRIC_NONFINITE_VALUES,
    GEMMA4_METRIC_SHAPE,
} gemma4_metric_kind;

/* Its name in manifests and in the JSON; "" for NONE. */
const char *gemma4_metric_name(gemma4_metric_kind kind);

/* A comparison under way. Values that are not finite in the engine but are in the expected tensor
 * are counted, kept out of the sums, and make every verdict a failure. */
typedef struct gemma4_comparison {
    size_t positions;            /* T */
    bool *seen;                  /* [T] which positions were compared */
    double *diff_t, *expected_t; /* [T] sums of squares of each position */
    double engine, product;      /* sums of engine^2 and of engine * expected */
    size_t values;
    size_t nonfinite, nonfinite_position, nonfinite_index; /* how many, and where the first one
                                                              is */
    double worst_difference, worst_engine, worst_expected; /* the element that is furthest off */
    size_t worst_position, worst_index;
} gemma4_comparison;

typedef struct gemma4_metrics {
    double relative_rms;
    double position_rms; /* and the position that has it: */
    size_t position;
    double cosine;     /* direction: engine . expected / (norms) */
    double norm_ratio; /* scale: norm(engine) / norm(expected) */
} gemma4_metrics;

int gemma4_comparison_init(gemma4_comparison *comparison, size_t positions, gemma4_error *error);
void gemma4_comparison_free(gemma4_comparison *comparison);
/* Adds n values of one position; a position may come in several parts. first_index is the first
 * value's index in the row. */
void gemma4_comparison_add(gemma4_comparison *comparison, size_t position, size_t first_index,
                           const float *engine, const float *expected, size_t n);
/* Metrics of what was added. Where expected is all zero, an engine that is too has error 0, any
 * other infinity. */
gemma4_metrics gemma4_comparison_metrics(const gemma4_comparison *comparison);

#endif
