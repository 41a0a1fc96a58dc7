/* Evidence: what one block of the model (the embedding, a layer, the head) looks like in a dump,
 * beside what the reference makes of the engine's own inputs (spec/tolerance.md). Replay writes it
 * once (replay.h); verdicts, routing, fits, filters and descriptions read it. Nothing in it changes
 * after that: whoever wants another number of positions, another spread or another choice of
 * experts passes it as an argument. */
#ifndef GEMMA4_EVIDENCE_H
#define GEMMA4_EVIDENCE_H

#include "activations.h"
#include "dump_mistake.h"
#include "model.h"
#include "noise.h"
#include "schedule.h"

/* A block of the model: the embedding (-1), a layer, or the head (num_hidden_layers). */
typedef int gemma4_block;

/* What is the same for all blocks of a dump. */
typedef struct gemma4_subject {
    const gemma4_model *model;
    const gemma4_tier *tier; /* of the engine's arithmetic */
    double kv_unit;          /* of its KV cache's type where that is coarser; else 0 */
    size_t T, first_position;
    size_t first_row;      /* of the dump, with which the subject begins: 0 but for a part */
    const int32_t *tokens; /* [T] */
    gemma4_schedule schedule;
    const struct gemma4_planted *known; /* mistakes that every run makes, at all positions: those
                                           that the engine was found to have (ladder.h); NULL:
                                           none */
    bool search_layers; /* points of the space are looked for in whole layers too, of which the
                                dump holds outputs only */
    /* Which tokens the dump lists with their log-probabilities (listed.h): */
    size_t listed;             /* N at each position; 0: it lists none */
    int32_t *listed_ids;       /* [T, N] */
    bool *have_listed;         /* [T] they are there, and distinct tokens of the vocabulary */
    bool listed_by_difference; /* a number that is added to all that a position lists is no error */
} gemma4_subject;

/* T of the whole's positions, from `first` on, as a subject of their own: the beginning, or, for
 * the head alone, which looks at no other position, any others. It shares all memory with the
 * whole, which must outlive it, but for the schedule: its chunks end with the part, and are counted
 * from the whole's beginning. */
int gemma4_subject_part(gemma4_subject *part, const gemma4_subject *whole, size_t first, size_t T,
                        gemma4_error *error);
void gemma4_subject_part_free(gemma4_subject *part);

/* One tap of the block. Arrays are [T, width]; scores and probabilities are spread out to [T, H *
 * T]. */
typedef struct gemma4_tap_evidence {
    size_t width;
    const gemma4_activation *stored;  /* in the dump; NULL where it is not, or not usable */
    const gemma4_real *expected;      /* what the step makes of the engine's inputs; NULL for ids,
                                        and for taps of other blocks */
    const gemma4_real *values;        /* the same after injection: what the next step reads */
    const float *engine;              /* NULL where not stored */
    gemma4_dump_mistake mistake;      /* of the dump: it has been put right in engine, have and
                                        stored_row */
    const bool *have;                 /* [T] rows of engine that are stored and can be compared: all
                                        that counts in them is finite */
    const bool *stored_row;           /* [T] rows of engine that are stored at all */
    const float *draws[GEMMA4_DRAWS]; /* perturbed minus expected; NULL where not stored, but for
                                         logits that choices follow from */
    const double *sigma;              /* [T] RMS of the draws over the row: the yardstick; NULL
                                        likewise */
} gemma4_tap_evidence;

typedef struct gemma4_evidence {
    const gemma4_subject *subject;
    gemma4_block block;
    size_t layer;             /* of its taps; 0 for embedding and head */
    gemma4_block known_block; /* the last block, up to this one, whose input the dump holds at
                                   every position; -1: the tokens */
    int bridged_before;       /* blocks between the last known one and known_block, whose input is
                                 the reference's own then: of a part (gemma4_replay_of_head) */
    /* [block - known_block + 1] the replayed residual stream, [T, d] each: before known_block, ...
     * before this block. */
    const gemma4_real *const *streams;
    const gemma4_real *output;            /* [T, d] the stream after this block */
    const struct gemma4_evidence *before; /* of the bridged block before this one: what the dump
                                             holds of it; NULL: not bridged */
    gemma4_tap_evidence taps[GEMMA4_TAP_COUNT];
    /* Choices of experts, [T, K]: the engine's where the dump holds them, and those that the replay
     * used (the engine's, inferred ones, or the reference's). NULL outside the layers. */
    const int32_t *engine_ids, *ids;
    const bool *have_ids;       /* [T] */
    const bool *have_valid_ids; /* [T] and they are K distinct experts */
    bool ids_fixed;             /* perturbed runs take `ids`: a flip is judged as a flip, not as
                                   noise */
    size_t inferred;            /* positions whose choice was inferred from what followed, and is
                                   not the reference's */
} gemma4_evidence;

/* Is this block a layer? */
bool gemma4_block_is_layer(const gemma4_config *config, gemma4_block block);
/* Is the tap one of the block's? */
bool gemma4_tap_is_in(const gemma4_config *config, gemma4_tap tap, gemma4_block block);

/* An entry of attn.scores that the mask excludes: it may hold anything. index is within the row.
 * False for every other tap. */
bool gemma4_evidence_masked(const gemma4_evidence *evidence, gemma4_tap tap, size_t row,
                            size_t index);

/* Does the dump hold that row of the block's router.logits? */
bool gemma4_logits_are_stored(const gemma4_evidence *evidence, size_t row);
/* Two router logits of a row whose difference is below this may change places by rounding. */
double gemma4_near_tie(const gemma4_evidence *evidence, size_t row);

/* The yardstick of each row of a tap, [T]: the RMS of its draws. A row of few values, which may all
 * be spared by chance, borrows from the others in proportion to its own size. Reads expected and
 * draws. */
void gemma4_spread_of_draws(const gemma4_evidence *evidence, gemma4_tap tap, double *sigma);

/* The rounding that the dump's own storage adds to values: the coarser of the tier's and the
 * dataset's. */
double gemma4_storage_unit(const gemma4_subject *subject, const gemma4_activation *stored);

#endif
