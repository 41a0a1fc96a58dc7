/* The verdict on one tap: its error beside its limits (spec/tolerance.md, "Verdict"). */
#ifndef GEMMA4_VERDICT_H
#define GEMMA4_VERDICT_H

#include "report.h"
#include "routing.h"
#include "score.h"

/* DIVERGES where the error is not within the tolerance, NaN included; MARGINAL close to it. */
gemma4_verdict gemma4_verdict_of(double error, double tolerance);

/* Values of a tap that are NaN or infinite, though they mean something. */
typedef struct gemma4_nonfinite {
    size_t count, position, index; /* where the first one is */
} gemma4_nonfinite;
gemma4_nonfinite gemma4_find_nonfinite(const gemma4_evidence *evidence, gemma4_tap tap);

/* Fills the local measure, the verdict, what is wrong in words, and the numbers of rows, of a tap
 * that the dump holds. */
void gemma4_judge_reals(const gemma4_evidence *evidence, gemma4_tap tap, gemma4_tap_result *result);
/* The same for topk_ids. */
void gemma4_judge_ids(const gemma4_routing_verdict *routing, gemma4_tap_result *result);

/* Is the error, where it can be compared, beyond what the tap's rows may have? Then there is
 * something for a counter-model to explain. A bias is for the filters to explain, and what is not
 * finite explains itself. */
bool gemma4_rows_fail(const gemma4_evidence *evidence, gemma4_tap tap);

#endif
