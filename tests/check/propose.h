/* What a step may have computed in place of the right thing: settings to be tried. */
#ifndef GEMMA4_PROPOSE_H
#define GEMMA4_PROPOSE_H

#include "counter_changes.h"
#include "evidence.h"
#include "space.h"

typedef struct gemma4_proposals {
    gemma4_setting *list;
    size_t count, capacity;
    bool failed;        /* memory ran out */
    gemma4_scope scope; /* the positions that are at fault */
    bool brief;         /* only what is likely: where every idea costs a run of the model */
} gemma4_proposals;

void gemma4_propose(gemma4_proposals *proposals, const gemma4_setting *setting);
/* The setting with each of the numbers; it keeps the last one. */
void gemma4_propose_numbers(gemma4_proposals *proposals, gemma4_setting *setting,
                            const double *numbers, size_t count);
void gemma4_proposals_free(gemma4_proposals *proposals);

/* All single settings that change the step of a tap in the layer at hand (of the evidence's block
 * where the tap is a layer's). Numbers are starting points. Adds to what is there. */
void gemma4_propose_for_step(gemma4_proposals *proposals, const gemma4_evidence *evidence,
                             size_t layer, gemma4_tap step);
/* Of factors of the experts' parts of moe.out: makes those unknown (NaN) that the rows determine
 * too loosely to be said, because few of them hold much of the expert. */
int gemma4_forget_loose_factors(const gemma4_evidence *evidence, gemma4_setting *factors,
                                gemma4_error *error);
/* Those that several steps of a layer may share: in all norms, both RoPEs, both activations, both
 * tensors of the experts. */
void gemma4_propose_shared(gemma4_proposals *proposals, const gemma4_evidence *evidence);
/* Those that all norms of the model may share, the final one with them. */
void gemma4_propose_for_all_norms(gemma4_proposals *proposals, const gemma4_evidence *evidence);
/* Those that follow from what the dump holds of a tap whose inputs it holds too: factors, limits,
 * ranges of zeros. */
void gemma4_propose_from_result(gemma4_proposals *proposals, const gemma4_evidence *evidence,
                                gemma4_tap tap);

/* Solves the symmetric system a x = b of n equations, in place; what nothing determines becomes
 * `otherwise`, which may be NaN. */
void gemma4_solve_system(double *a, double *b, size_t n, double otherwise, double *x);

/* What a step reads, three taps of which the last may be GEMMA4_TAP_COUNT; NULL where it reads no
 * tap. */
const gemma4_tap *gemma4_step_inputs(gemma4_tap step);

/* Every order of an axis; what the setting has besides is kept. */
void gemma4_propose_orders(gemma4_proposals *proposals, gemma4_setting setting, gemma4_axis axis);

/* Parts of the first. */
void gemma4_propose_weights(gemma4_proposals *proposals, const gemma4_evidence *evidence,
                            size_t layer, gemma4_tap step);
void gemma4_propose_attention(gemma4_proposals *proposals, const gemma4_evidence *evidence,
                              size_t layer, gemma4_tap step);
void gemma4_propose_turns(gemma4_proposals *proposals, const gemma4_evidence *evidence,
                          gemma4_tap tap);
void gemma4_propose_rope(gemma4_proposals *proposals, const gemma4_evidence *evidence, size_t layer,
                         gemma4_tap step);
void gemma4_propose_experts(gemma4_proposals *proposals, const gemma4_evidence *evidence,
                            gemma4_tap step);

#endif
