/* gemma4-check self-test: every counter-model planted into a simulated engine and judged (the kill
 * matrix), and honest simulated engines, which must all conform (spec/kill-matrix.md). */
#ifndef GEMMA4_SELFTEST_H
#define GEMMA4_SELFTEST_H

#include <stdio.h>

#include "trial.h"

typedef struct gemma4_self_test_options {
    const char *case_id, *tier, *tap_set, *cause; /* NULL: all */
    size_t jobs;                                  /* processes */
    size_t seeds; /* honest runs of each kind; 0: 5 before the matrix, 20 where they are all that is
                     asked for */
} gemma4_self_test_options;

/* What is judged of each counter-model, and the least rates that it must reach over the visible
 * ones. */
typedef struct gemma4_grid_column {
    const char *tier;
    gemma4_tap_set taps;
    double detected, first, named; /* 0: not required */
    double invisible;              /* largest share; 1: not required */
} gemma4_grid_column;

enum { GEMMA4_GRID_COLUMNS = 5, GEMMA4_MATRIX_CASES = 8 };
extern const gemma4_grid_column gemma4_grid[GEMMA4_GRID_COLUMNS];
extern const char *const gemma4_matrix_cases[GEMMA4_MATRIX_CASES];
#define GEMMA4_LARGEST_SHARE_OF_WRONG_NAMES 0.02

/* A row of the matrix. */
typedef struct gemma4_matrix_row {
    bool done;
    int case_index; /* of gemma4_matrix_cases: the first one on which the mistake is visible in
                       float32, or the last one that was tried */
    gemma4_trial trials[GEMMA4_GRID_COLUMNS]; /* judged: false and message "" where the column is
                                                 not asked for, or permitted */
    bool permitted[GEMMA4_GRID_COLUMNS];
} gemma4_matrix_row;

typedef struct gemma4_matrix {
    size_t rows_count;
    const gemma4_matrix_row *rows; /* [gemma4_counter_model_count()]; rows not asked for are not
                                      done */
    bool asked[GEMMA4_GRID_COLUMNS];
    double honest[GEMMA4_GRID_COLUMNS][GEMMA4_TAP_COUNT]; /* the largest error / tolerance of honest
                                                             engines */
    size_t honest_runs, honest_alarms;
} gemma4_matrix;

/* The counts of a column. */
typedef struct gemma4_matrix_rates {
    size_t judged, visible, detected, first, named, itself, wrong, invisible, permitted;
    bool reached; /* all that the grid asks for */
} gemma4_matrix_rates;

gemma4_matrix_rates gemma4_matrix_rates_of(const gemma4_matrix *matrix, size_t column);
/* The page. */
void gemma4_matrix_markdown(FILE *out, const gemma4_matrix *matrix);

/* Writes one summary line to out and the page to page (may be NULL). *reached: all rates, and no
 * honest alarm. -1: nothing was judged. */
int gemma4_self_test(const gemma4_self_test_options *options, FILE *out, FILE *page, bool *reached,
                     gemma4_error *error);
/* Honest engines alone, in all tiers and tap sets, on every case but those of many positions, or on
 * the one that is asked for. */
int gemma4_self_test_honest(const gemma4_self_test_options *options, FILE *out, bool *reached,
                            gemma4_error *error);

#endif
