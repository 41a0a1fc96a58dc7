/* Mistakes of the dump, not of the engine (spec/diagnosis.md, "Mistakes of the dump"): each is said
 * in one sentence, and no counter-model is asked to explain it.
 *
 * A tensor that only its values show to be dumped wrongly is put right while it is loaded, so that
 * what reads it is judged on what the engine had. It fails all the same: a dump that is wrong does
 * not conform. */
#ifndef GEMMA4_RECOGNISE_H
#define GEMMA4_RECOGNISE_H

#include "evidence.h"

enum { GEMMA4_RECOGNISED_SIZE = 300 };

/* By shape: why is the tensor not usable? T: positions of the case. False, and problem is left as
 * it is, where no mistake is recognised. */
bool gemma4_recognise_shape(const gemma4_config *config, size_t T, const gemma4_activation *stored,
                            gemma4_dump_mistake *mistake, char *problem, size_t size);

/* One tensor as it was read, and what the reference computes by itself. */
typedef struct gemma4_loaded {
    const gemma4_config *config;
    gemma4_tap tap;
    size_t layer, T, width;
    float *engine;               /* [T, width]; NULL for topk_ids */
    int32_t *engine_ids;         /* [T, K] the engine's choice of experts, put right already; NULL
                                    outside the layers */
    bool *stored_row;            /* [T] rows that were read */
    const bool *have_valid_ids;  /* [T] NULL outside the layers */
    const float *expected;       /* [T, width] */
    const int32_t *expected_ids; /* [T, K] */
} gemma4_loaded;

/* By value: axes in another order, rows shifted by a few positions, and (log-)probabilities in the
 * place of logits. kind is GEMMA4_DUMP_AS_DUE where none of these is recognised. -1 where memory
 * runs out. */
int gemma4_recognise_loaded(const gemma4_loaded *loaded, gemma4_dump_mistake *mistake,
                            gemma4_error *error);
/* Makes of the tensor, and of stored_row, what it should have been. -1, and nothing is changed,
 * where memory runs out. */
int gemma4_put_right(const gemma4_loaded *loaded, const gemma4_dump_mistake *mistake,
                     gemma4_error *error);
/* What is wrong with a tensor that was put right, and what to do. */
void gemma4_describe_loaded(gemma4_tap tap, const gemma4_dump_mistake *mistake, char *text,
                            size_t size);

/* How many of the values of the dump's float32 tensors lie on the grid of a narrower type. */
typedef struct gemma4_grid {
    const char *dtype; /* of the coarsest type, coarser than the tier, on whose grid most of them
                          lie; NULL: on none */
    bool finer;   /* most do not lie on the tier's own grid, and few tensors are stored in it */
    double share; /* of the values of an average tensor: on that grid, or on the tier's */
} gemma4_grid;
/* Reads a few rows of each tensor that is a result of arithmetic and is stored wider than the types
 * in question. */
int gemma4_recognise_grid(gemma4_activations *engine, const gemma4_config *config,
                          const gemma4_tier *tier, gemma4_grid *grid, gemma4_error *error);

/* "97 % of the values lie on the bfloat16 grid ...", or, where they are finer, "97 % of the values
 * that are stored wider than bfloat16 do not lie on its grid ...". claimed: the dtype that is
 * claimed; by: what claims it. */
void gemma4_describe_grid(const gemma4_grid *grid, const char *claimed, const char *by, char *text,
                          size_t size);

/* Does the block have nothing in common with what the reference computes by itself ([T, width] of
 * each tap, NULL where not kept)? False where there is too little in it to say so. */
bool gemma4_recognise_checkpoint(const gemma4_evidence *evidence,
                                 const float *const expected[GEMMA4_TAP_COUNT]);
extern const char gemma4_other_checkpoint[]; /* what that means */

#endif
