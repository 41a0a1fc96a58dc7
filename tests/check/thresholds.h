/* Where verdicts begin. Every number here was measured; spec/tolerance.md says with which command. */
#ifndef GEMMA4_THRESHOLDS_H
#define GEMMA4_THRESHOLDS_H

/* How many times the spread of honest rounding a step's error may be: over all positions, and at the worst one. */
#define LIMIT_SCORE 3.0
#define LIMIT_WORST 6.0
/* How many times the spread of honest rounding the mean over at least so many rows may be too large or too small, and the least spread: a part of
 * the tier's unit, for roundings that all rows share, and more where the root of the hidden size, rounded once, is a factor. */
#define LIMIT_BIAS 4.0
#define BIAS_ROWS 4
#define BIAS_SHARED 0.1
#define BIAS_ROOT 0.5
/* Beyond this part of a limit a passing tap is called marginal. */
#define MARGINAL_PART 0.75

/* A counter-model explains a failing tap where what it leaves is within the limits above, and the error's coefficient on its predicted
 * difference is this close to 1. */
#define FIT_COEFFICIENT 0.1
/* A model that leaves at most this part of the error is measured against the spread that rounding has in it, over so many perturbed runs. */
#define NEAR_PART 0.05
#define PLANTED_DRAWS 3
/* Of the mistakes that do not fit, one is worth a mention where it leaves less than this part of the error. */
#define RUNNER_UP_PART 0.5
/* Models whose residual is within this factor (and offset, in spreads) of the best one's fit the evidence equally well. */
#define EQUIVALENT_FACTOR 1.25
#define EQUIVALENT_OFFSET 0.1

/* The matched filter: how close to 1 the coefficient must be, and how many of its spreads away from 0, over all layers or in one. */
#define FILTER_COEFFICIENT 0.3
#define FILTER_DEVIATIONS 8.0
#define FILTER_LAYER_DEVIATIONS 12.0
/* The part of the row's variance that is added to each value's own. Measured on a bfloat16 erf GELU in case tiny-prompt: 1 gives 3 spreads, 0.1
 * gives 10, 0.01 gives 25. */
#define FILTER_ROW_PART 0.01
/* A predicted difference of which perturbed inputs change more than this part (of its squared size) is rounding. */
#define FILTER_MOVED_PART 0.5

/* Where layers have to be run again for every model, the first so many positions decide whether a model can fit at all. */
#define PREFIX_POSITIONS 4
/* Where rounding may have flipped experts that the dump does not show, a model may fit this part of the positions only; within this part of
 * the limits, and leaving at most 1 / FLIP_IMPROVEMENT of what the right model leaves there. */
#define FLIP_ROWS 0.6
#define FLIP_LIMIT_PART 0.5
#define FLIP_IMPROVEMENT 2.0
/* Pairs: both must leave less than this part of the error by themselves; so many first ones, so many second ones are tried. */
#define PAIR_IMPROVEMENT 0.99
#define PAIR_FIRST 6
#define PAIR_SECOND 60

/* Two router logits whose difference is below so many of its standard deviations may change places. Over several bridged layers, the perturbed
 * runs settle such a tie by a coin: left to their own noise, six runs may all miss a flip that an engine makes (with 3: 2 alarms in 720 honest
 * runs of logits alone, 13 without). */
#define NEAR_TIE_DEVIATIONS 5

#endif
