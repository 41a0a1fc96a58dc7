/* Which experts an engine chose: right, excused by rounding, inferred, or at fault
 * (spec/tolerance.md, "Routing"). */
#ifndef GEMMA4_ROUTING_H
#define GEMMA4_ROUTING_H

#include "noise.h"
#include "routing_counts.h"

typedef struct gemma4_evidence gemma4_evidence; /* evidence.h */
typedef struct gemma4_runner gemma4_runner;     /* block_run.h */

/* For a layer whose dump holds no topk_ids: tries, at each position whose choice is open, the other
 * sets that the engine may rightly have chosen, and keeps what fits the next stored tap best. A
 * choice is open where the logits are a near-tie and the dump does not hold them, and where the
 * dump's own logits (or, in a 16-bit tier, probabilities) are an exact tie. chosen is [T, K];
 * *others counts the positions at which it is not the set that the evidence used; where there are
 * none, chosen is not to be read. */
int gemma4_routing_infer(const gemma4_evidence *evidence, gemma4_runner *runner, int32_t *chosen,
                         size_t *others, gemma4_error *error);

/* The verdict on a layer's stored topk_ids. */
typedef struct gemma4_routing_verdict {
    gemma4_routing counts; /* of this layer */
    size_t first_fault;    /* position */
    size_t left_out;       /* choices that the dump holds but that follow from values that are not
                              finite */
} gemma4_routing_verdict;
int gemma4_routing_judge(const gemma4_evidence *evidence, gemma4_routing_verdict *verdict,
                         gemma4_error *error);

/* May an engine that computes in this tier have chosen expert `enters` instead of expert `leaves`,
 * from the logits and the probabilities that its dump holds? Rule 8 of replay: exact ties of the
 * logits; in a 16-bit tier also of the probabilities rounded to it, stored ([E]) or, where probs is
 * NULL, computed from the logits ([E]). slack is what rounding may have done to stored logits. */
bool gemma4_routing_may_exchange(const gemma4_tier *tier, const float *logits, const float *probs,
                                 size_t E, int32_t leaves, int32_t enters, double slack);

#endif
