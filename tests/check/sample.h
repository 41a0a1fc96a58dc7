/* gemma4-check self-test --sample: a fixed sample of what `make honest`, `make planted` and `make
 * pairs` measure on transformers, here on simulated engines, in seconds and without Python
 * (spec/diagnosis.md). */
#ifndef GEMMA4_SAMPLE_H
#define GEMMA4_SAMPLE_H

#include <stdio.h>

#include "trial.h"

/* What becomes of an engine that is judged right:
 *   HONEST    no alarm, and no name
 *   PLANTED   detected, first at the right tap, named, no other name, and one cause only
 *   PAIR      two mistakes: detected, first at the right tap, both named, and no other cause */
typedef enum gemma4_sample_kind {
    GEMMA4_HONEST,
    GEMMA4_PLANTED,
    GEMMA4_PAIR,
    GEMMA4_SAMPLE_KINDS
} gemma4_sample_kind;

/* Engines of one kind, tier and tap set, and the least part of them that must be judged right. */
typedef struct gemma4_sample_column {
    gemma4_sample_kind kind;
    const char *tier;
    gemma4_tap_set taps;
    double least;
} gemma4_sample_column;

typedef struct gemma4_sample_fault {
    const char *id, *variant; /* NULL: no fault; variant is "" where the id has one form only */
    int layer;                /* it is in this layer only; GEMMA4_EVERY_LAYER: in each that it
                                 concerns */
} gemma4_sample_fault;

enum { GEMMA4_EVERY_LAYER = -1 };

/* One engine, or several honest ones that differ in their seed. It is judged in the columns of its
 * kind that `in` lists. */
typedef struct gemma4_sample_row {
    gemma4_sample_kind kind;
    const char *case_id;
    size_t seeds; /* of honest engines; else 1 */
    gemma4_sample_fault faults[2];
    const char *first; /* the tap at which a dump of all taps must diverge first; NULL
                                     for honest engines */
    const char *in;    /* tiers and tap sets: "float32 all, bfloat16 layers"; NULL for
                                     all */
} gemma4_sample_row;

typedef struct gemma4_sample {
    const gemma4_sample_column *columns;
    const gemma4_sample_row *rows;
    size_t column_count, row_count;
} gemma4_sample;

/* The sample that the command runs. */
extern const gemma4_sample gemma4_the_sample;

/* Writes one line for every engine that was judged wrong, and a summary line. *reached: every
 * column reaches its least part, and every engine could be judged. to_first_miss: none is judged
 * any more when one was judged wrong; then *reached is false. -1: an unknown case, id or tap, or
 * nothing to run. */
int gemma4_sample_run(const gemma4_sample *sample, size_t jobs, bool to_first_miss, FILE *out,
                      bool *reached, gemma4_error *error);

#endif
