/* Between block_run.c, one run at a time, and block_batch.c, several at once. */
#ifndef GEMMA4_BLOCK_RUN_INTERNAL_H
#define GEMMA4_BLOCK_RUN_INTERNAL_H

#include "block_run.h"
#include "ops.h"

typedef gemma4_real real;

struct gemma4_runner {
    const gemma4_subject *subject;
    gemma4_session *session;
    gemma4_ops exact, once, quick;    /* this machine's fast operators: those that give the
                                        scalar's bits, with and without memory, and a twin's */
    struct gemma4_remembered *memory; /* of products */
    real *scratch[GEMMA4_TAP_COUNT]; /* tensors of a run with mistakes that the caller does not want
                                        to keep */
    size_t scratch_size[GEMMA4_TAP_COUNT];
    real *right; /* a tensor without its mistakes */
    size_t right_size;
    real *listed; /* [rows, N] log-probabilities */
    size_t listed_size;
    int32_t *ids; /* [T, K] */
};

/* A run under way. */
typedef struct running {
    gemma4_runner *runner;
    const gemma4_subject *s;
    const gemma4_block_run *run;
    gemma4_mistakes known_here;   /* what the engine is known to get wrong in the block */
    const gemma4_mistakes *known; /* that; NULL: nothing */
    size_t layer, positions;
    size_t widths[GEMMA4_TAP_COUNT]; /* 0 for taps of other blocks */
    real *values[GEMMA4_TAP_COUNT];
    int32_t *ids;
    const real *logits; /* [T, E] of this run */
} running;

/* Begins a run on the stream h. The run and h must outlive it. */
int block_run_begin(running *r, gemma4_runner *runner, const gemma4_block_run *run, const real *h,
                    gemma4_error *error);
/* What a run does at every tap; context is the running. The event's rows are the run's own. */
int block_run_hook(void *context, gemma4_tap_event *e, gemma4_error *error);

#endif
