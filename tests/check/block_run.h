/* One run of one block of the reference: exact or perturbed, right or with mistakes in it, with the
 * engine's tensors in place of its own or without. Everything that the checker computes is made
 * of these runs. */
#ifndef GEMMA4_BLOCK_RUN_H
#define GEMMA4_BLOCK_RUN_H

#include "counter_model.h"
#include "evidence.h"

/* A session of the reference, and memory that runs share. One thread at a time. */
typedef struct gemma4_runner gemma4_runner;
/* The subject must outlive the runner. NULL on failure. */
gemma4_runner *gemma4_runner_new(const gemma4_subject *subject, gemma4_error *error);
void gemma4_runner_free(gemma4_runner *runner);
/* What its runs remember in (remembered.h), for steps that are computed beside them. */
struct gemma4_remembered *gemma4_runner_memory(gemma4_runner *runner);

/* Mistakes to be made. */
typedef struct gemma4_mistakes {
    gemma4_parameters parameters;
    bool changed[GEMMA4_TAP_COUNT]; /* the taps that the parameters compute differently */
    gemma4_scope scope;             /* the positions at which they are made */
} gemma4_mistakes;

typedef struct gemma4_block_run {
    gemma4_block block;
    size_t positions;              /* only the first so many of the case; 0: all */
    bool quick;                    /* by the AVX2 or NEON twin's operators, within their bounds of
                                      the scalar ones (spec/twins.md): for what a scalar run
                                      confirms */
    bool once;                     /* exact, and remembers no products (remembered.h): where steps
                                      hardly come again, that takes longer than they do */
    const gemma4_evidence *inject; /* what the dump holds of this block takes the place of the run's
                                      own tensors; NULL: nothing does */
    gemma4_noise *noise;           /* perturbs every step; NULL: exact */
    size_t draw;                   /* which of the perturbed runs this is: q and k of a layer are
                                      turned by the same wrong angles */
    const gemma4_mistakes *mistakes; /* NULL: the right model */
    /* The choice of experts, [T, K], where the dump holds none; NULL: the run's own. A run with
     * mistakes makes its own, but where the dump's router logits decide and the mistakes are not in
     * the choosing. */
    const int32_t *ids;
    const gemma4_real *clean_logits; /* [T, E] router logits of the exact run: near-ties are settled
                                        by a coin; NULL: by the logits */
    /* Called with every tap but topk_ids before injection; may be NULL. */
    void (*see)(void *context, const gemma4_tap_event *event);
    void *context;
    gemma4_real *values[GEMMA4_TAP_COUNT]; /* [T, width] receives what the next step reads; NULL:
                                              not wanted */
    int32_t *chosen; /* [T, K] receives the choice of experts; NULL: not wanted */
} gemma4_block_run;

/* h is the residual stream, [T, d], before the block, and after it when this returns. */
int gemma4_run_block(gemma4_runner *runner, const gemma4_block_run *run, gemma4_real *h,
                     gemma4_error *error);

/* Runs of one block, one after the other in h, [count, T, d]: as gemma4_run_block does each, to the
 * same bits, but with products of all rows at once where memory allows. The first run sees each
 * event before the others do. Without mistakes of their own, not quick, of all positions. */
int gemma4_run_block_batch(gemma4_runner *runner, const gemma4_block_run *runs, size_t count,
                           gemma4_real *h, gemma4_error *error);

/* Copies an event's rows to [T, width], spreading scores and probabilities out to all T keys. */
void gemma4_keep_event(gemma4_real *to, const gemma4_tap_event *event, size_t width, size_t T);

/* The smallest router logit among the chosen (at ids[chosen]) and the largest of the others (of
 * expert `other`): how far they are apart. logits is (E), ids is (K). Where all experts are chosen
 * the gap is infinite. */
typedef struct gemma4_boundary {
    size_t chosen;
    int32_t other;
    double gap;
} gemma4_boundary;
gemma4_boundary gemma4_find_boundary(const gemma4_real *logits, const int32_t *ids, size_t K,
                                     size_t E);

/* What there is to compute a step of the block from: values are the tensors of a run, or of the
 * evidence. */
gemma4_step gemma4_step_of(const gemma4_subject *subject, gemma4_block block, size_t positions,
                           const gemma4_real *const values[GEMMA4_TAP_COUNT], const int32_t *ids);

#endif
