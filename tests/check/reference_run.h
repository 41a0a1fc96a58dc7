/* The reference by itself (with the subject's known mistakes), a block at a time, without anything
 * of the engine: it is held against the golden, and what it computes is what an engine's tensors
 * are compared with when all earlier errors are to show. */
#ifndef GEMMA4_REFERENCE_RUN_H
#define GEMMA4_REFERENCE_RUN_H

#include "evidence.h"

/* Largest relative RMS at which the reference counts as agreeing with a golden: three times the
 * largest that `make agreement` prints. */
#define GEMMA4_REFERENCE_AGREEMENT 1e-5

typedef struct gemma4_reference_run gemma4_reference_run;

/* golden may be NULL; it and the subject must outlive the run. NULL on failure. */
gemma4_reference_run *gemma4_reference_run_new(const gemma4_subject *subject,
                                               gemma4_activations *golden, gemma4_error *error);
void gemma4_reference_run_free(gemma4_reference_run *run);

/* Runs the next block, first the embedding. keep says which of its taps are wanted by
 * gemma4_reference_expected. Fails where the reference disagrees with the golden, and where the
 * golden is not usable. */
int gemma4_reference_run_next(gemma4_reference_run *run, const bool keep[GEMMA4_TAP_COUNT],
                              gemma4_error *error);

/* The same of the head alone, at the positions of a part of the subject: it may be run for other
 * parts after it. Not where the subject has known mistakes. */
int gemma4_reference_run_head(gemma4_reference_run *run, const gemma4_subject *part,
                              const bool keep[GEMMA4_TAP_COUNT], gemma4_error *error);

/* Of the block at hand: [T, width], the golden's rows where it holds them; NULL where not kept. */
const float *gemma4_reference_expected(const gemma4_reference_run *run, gemma4_tap tap);
/* [T, K] likewise. */
const int32_t *gemma4_reference_ids(const gemma4_reference_run *run);
/* Relative RMS between the reference and the golden at a tap of the block at hand; negative where
 * the golden does not hold it. */
double gemma4_reference_agreement(const gemma4_reference_run *run, gemma4_tap tap);
/* Is it the reason of a failure of the above that the reference disagrees with the golden? */
bool gemma4_reference_disagrees(const gemma4_error *error);

#endif
