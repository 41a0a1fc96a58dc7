/* Replay: every step of an engine judged on the engine's own inputs (spec/tolerance.md).
 *
 * The reference runs the dump's tokens a block at a time: the embedding, each layer, the head. At
 * every tap that the dump holds, the reference's value is kept as what was expected, then replaced
 * by the engine's, so that the next step starts from what the engine had. The same block runs again
 * a few times with every step perturbed as the tier's rounding would: the spread of those runs is
 * the yardstick. A block whose taps are missing is bridged, and its yardstick covers the bridge.
 * What comes out is evidence (evidence.h). */
#ifndef GEMMA4_REPLAY_H
#define GEMMA4_REPLAY_H

#include "reference_run.h"

typedef struct gemma4_runner gemma4_runner; /* block_run.h */

/* Fills what is known before the first block: tokens, schedule, precision. engine and model must
 * outlive the subject. */
int gemma4_subject_init(gemma4_subject *subject, const gemma4_model *model,
                        const gemma4_activations *engine, const gemma4_tier *tier,
                        gemma4_error *error);
void gemma4_subject_free(gemma4_subject *subject);

typedef struct gemma4_replay gemma4_replay;

/* NULL on failure. The subject must outlive the replay. */
gemma4_replay *gemma4_replay_new(const gemma4_subject *subject, gemma4_activations *engine,
                                 gemma4_error *error);
void gemma4_replay_free(gemma4_replay *replay);

/* From now on, tensors are held against the reference by itself, which must be at the block that is
 * replayed next: mistakes of the dump are recognised, and put right (recognise.h). */
void gemma4_replay_recognise(gemma4_replay *replay, const gemma4_reference_run *reference);

/* Replays the next block: first -1, then 0, 1 ... num_hidden_layers. Every tensor that the dump
 * holds of it is read here, once. The evidence is the replay's, and stays until the next call. NULL
 * on failure. */
const gemma4_evidence *gemma4_replay_next(gemma4_replay *replay, gemma4_error *error);

/* After the last layer, where the head is replayed in parts: frees the layer's evidence, and what
 * only further runs of it need. */
void gemma4_replay_end_layers(gemma4_replay *replay);

/* The head of a part of the subject, after the last layer, as a replay that stands before it: its
 * gemma4_replay_next gives the head's evidence at the part's positions. For it, what the head reads
 * is known; spreads still cover what was bridged. `whole` and the part must outlive it; NULL on
 * failure. */
gemma4_replay *gemma4_replay_of_head(const gemma4_replay *whole, const gemma4_subject *part,
                                     gemma4_error *error);

/* How many blocks before the next one were bridged into it: 0 where the dump holds the stream that
 * it reads, at every position. */
int gemma4_replay_bridged(const gemma4_replay *replay);

/* For further runs of the blocks at hand. */
gemma4_runner *gemma4_replay_runner(gemma4_replay *replay);

#endif
