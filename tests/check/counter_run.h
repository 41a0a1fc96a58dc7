/* What an engine with given mistakes would hold at a tap: runs of the blocks at hand with
 * counter-models planted in them. They take evidence and return a tensor. */
#ifndef GEMMA4_COUNTER_RUN_H
#define GEMMA4_COUNTER_RUN_H

#include "block_run.h"
#include "planted.h"

/* Does the planted model at index i act in this block? */
bool gemma4_planted_in(const gemma4_config *config, const gemma4_planted *planted, size_t i,
                       gemma4_block block);
/* The parameters of a run without further mistakes: the right ones, with the subject's known
 * mistakes. */
gemma4_parameters gemma4_known_parameters(const gemma4_subject *subject, gemma4_block block);
/* The parameters that are in force in a block, and the taps that they change. */
gemma4_mistakes gemma4_mistakes_in(const gemma4_config *config, const gemma4_planted *planted,
                                   gemma4_block block);

typedef struct gemma4_counter_run {
    const gemma4_planted *planted;
    const int32_t *ids; /* [T, K] the choice of experts in the last block, where the dump holds none
                           and nothing is planted; NULL: the run's own */
    size_t positions;   /* only the first so many; 0: all */
    bool quick, once;   /* as in gemma4_block_run */
    size_t draw;        /* 0: exact; else every step is perturbed besides, by this stream of
                           perturbations */
    gemma4_tap stop;
    gemma4_real *out; /* [T, width of stop] receives what the run makes of the tap stop, before
                           the engine's takes its place */
    bool *open;       /* [T] receives the positions at which the run's choice of experts is a
                           near-tie that the dump does not settle; may be NULL */
} gemma4_counter_run;

/* Runs the blocks from where the stream was last known up to the evidence's, injecting what the
 * dump holds as the replay did. */
int gemma4_run_counter(const gemma4_evidence *evidence, gemma4_runner *runner,
                       const gemma4_counter_run *run, gemma4_error *error);

/* The step of the evidence's block, for gemma4_counter_step. */
gemma4_step gemma4_evidence_step(const gemma4_evidence *evidence);
/* The same where every injected tensor is perturbed within the rounding of its storage, as it may
 * have been before. step->values are then copies, to be freed by gemma4_step_free whatever is
 * returned. */
int gemma4_perturbed_step(const gemma4_evidence *evidence, gemma4_step *step, gemma4_error *error);
void gemma4_step_free(gemma4_step *step);

#endif
