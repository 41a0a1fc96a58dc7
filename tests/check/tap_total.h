/* What the rows of a tap come to together, where its block is judged in parts of rows: one part,
 * but for the head of a long dump with a large vocabulary (judge.c). */
#ifndef GEMMA4_TAP_TOTAL_H
#define GEMMA4_TAP_TOTAL_H

#include "compare.h"
#include "evidence.h"
#include "reference_run.h"
#include "report.h"

/* All zero to begin with, and after the end. */
typedef struct gemma4_tap_total {
    size_t parts;
    gemma4_comparison accumulated; /* of the engine's rows with what the reference computes by
                                      itself */
    double inherited, size;        /* sums of squares: of what the inputs brought along, and of the
                                      reference's values */
    double added, expected;        /* likewise: of the step's own error, and of what was expected */
    size_t problems;               /* parts that count something wrong */
    bool mistake_said;             /* of the dump, at this tap */
    bool agreement_said;           /* with the golden */
} gemma4_tap_total;

/* Adds a part's rows: the part's own result to the whole one, and its tensor, which the evidence
 * must hold and the reference must have kept, to the sums. T: positions of the whole. */
int gemma4_tap_total_add(gemma4_tap_total *total, size_t T, const gemma4_evidence *evidence,
                         const gemma4_reference_run *reference, const gemma4_tap_result *part,
                         gemma4_tap_result *whole, gemma4_error *error);
/* Adds a part's result alone. */
void gemma4_tap_total_join(gemma4_tap_total *total, const gemma4_tap_result *part,
                           gemma4_tap_result *whole);
/* Writes what follows from the sums into the result, and frees them. */
void gemma4_tap_total_end(gemma4_tap_total *total, gemma4_tap_result *whole);

#endif
