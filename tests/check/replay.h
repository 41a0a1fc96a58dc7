/* Replay: every step of an engine judged on the engine's own inputs (spec/tolerance.md).
 *
 * The reference runs the dump's tokens a block at a time: the embedding, each layer, the head. At every tap that the dump holds, the
 * reference's value is kept as what was expected, then replaced by the engine's, so that the next step starts from what the engine
 * had. The same block runs again a few times with every step perturbed as the tier's rounding would: the spread of those runs is the
 * yardstick. A block whose taps are missing is bridged, and its yardstick covers the bridge. */
#ifndef GEMMA4_REPLAY_H
#define GEMMA4_REPLAY_H

#include "activations.h"
#include "counter_model.h"
#include "forward.h"
#include "noise.h"

enum { GEMMA4_DRAWS = 6 };

/* A block of the model: the embedding (-1), a layer, or the head (num_hidden_layers). */
typedef int gemma4_block;

/* One tap of the block at hand. Arrays are [T, width]. */
typedef struct gemma4_replayed_tap {
    size_t width;
    const gemma4_activation *stored; /* in the dump; NULL where it is not, or not usable */
    gemma4_real *expected; /* what the step made of the engine's inputs; NULL for ids, and for taps that were not reached */
    gemma4_real *values;   /* the same after injection: what the next step read */
    float *engine;         /* NULL where not stored */
    bool *have;            /* [T] rows of engine that are stored, finite and comparable */
    bool *stored_row;      /* [T] rows of engine that are stored at all */
    float *draws[GEMMA4_DRAWS]; /* perturbed minus expected; NULL where not stored */
    double *sigma;         /* [T] RMS of the draws over the row: the yardstick; NULL where not stored */
} gemma4_replayed_tap;

typedef struct gemma4_replay {
    const gemma4_model *model;
    gemma4_activations *engine;
    const gemma4_tier *tier;
    double kv_unit;
    size_t T, first_position;
    const int32_t *tokens;
    size_t *chunk_start, *chunk_end; /* [T] of the schedule that the engine was fed; whole prefill where it does not say */
    bool schedule_known;
    size_t chunks;

    gemma4_session *session;
    gemma4_block block;
    size_t block_layer; /* of its taps; 0 for embedding and head */
    gemma4_real *h;          /* [T, d] the replayed stream, as the block starts from it / after it */
    gemma4_real *h_before;   /* the same before the block */
    gemma4_real *h_known;    /* the same before known_block, the last block whose input was wholly injected (-1: the tokens) */
    gemma4_block known_block;
    gemma4_real *h_draws[GEMMA4_DRAWS], *h_draws_before[GEMMA4_DRAWS];
    gemma4_replayed_tap taps[GEMMA4_TAP_COUNT]; /* of the block at hand */
    /* Expert choices of the layer at hand, [T, K]: the reference's from the engine's inputs, what was used, and the engine's. */
    int32_t *reference_ids, *ids, *engine_ids;
    bool *have_ids;          /* [T] */
    bool *have_valid_ids;    /* [T] and they are K distinct experts */
    bool *counter_open;      /* [T] positions at which the last counter run's choice of experts was a near-tie that the dump does not settle */
    bool force_ids;          /* runs take `ids` instead of choosing */
    gemma4_real *router_logits; /* [2, T, E] of the clean run, and of the draw at hand */
    bool input_known;        /* the block's input was injected at every position: nothing is bridged into it */
} gemma4_replay;

int gemma4_replay_init(gemma4_replay *replay, const gemma4_model *model, gemma4_activations *engine, const gemma4_tier *tier, gemma4_error *error);
void gemma4_replay_free(gemma4_replay *replay);

/* Runs the next block: first -1, then 0, 1 ... num_hidden_layers. Afterwards replay->taps describes it until the next call. */
int gemma4_replay_block(gemma4_replay *replay, gemma4_block block, gemma4_error *error);

/* Runs the block at hand again from where it started, with the choices in `ids` where force_ids is set. */
int gemma4_replay_again(gemma4_replay *replay, gemma4_error *error);

/* The positions at which a mistake is made: engines have other code for a prompt, for its later chunks, and for single tokens. */
typedef enum gemma4_scope { GEMMA4_EVERYWHERE, GEMMA4_DECODE_ONLY, GEMMA4_AFTER_FIRST_CHUNK, GEMMA4_FIRST_CHUNK_ONLY, GEMMA4_SCOPES } gemma4_scope;

/* "in positions fed one at a time"; "" for everywhere. */
const char *gemma4_scope_text(gemma4_scope scope);
/* Is position t (an index into the case) in that scope of the schedule that the engine was fed? */
bool gemma4_replay_in_scope(const gemma4_replay *replay, gemma4_scope scope, size_t t);

/* Counter-models planted into a run: up to two, each in all layers that it concerns or in one. count 0: the right model. */
typedef struct gemma4_planted {
    const gemma4_counter_model *models[2];
    int only_layer[2]; /* -1: all */
    size_t count;
    gemma4_scope scope;
    size_t draw; /* 0: exact; else every step is perturbed besides, by this stream of perturbations */
} gemma4_planted;

/* Does the planted model at index i act in this block? */
bool gemma4_planted_in(const gemma4_replay *replay, const gemma4_planted *planted, size_t i, gemma4_block block);

/* Runs the blocks from where the stream was last known up to the block at hand once more, with what is planted, and injecting in the
 * block at hand as the replay did. out [T, width of stop] receives what the run makes of the tap stop before injection. */
int gemma4_replay_counter_run(gemma4_replay *replay, const gemma4_planted *planted, gemma4_tap stop, gemma4_real *out, gemma4_error *error);

/* The step of the block at hand, for gemma4_counter_step. */
gemma4_step gemma4_replay_step(const gemma4_replay *replay);
/* The same where every injected tensor is perturbed within the rounding of its storage, as it may have been before. step->values are then
 * copies, to be freed by gemma4_replay_step_free whatever is returned. */
int gemma4_replay_perturbed_step(const gemma4_replay *replay, gemma4_step *step, gemma4_error *error);
void gemma4_replay_step_free(gemma4_step *step);

/* The error of values against the yardstick, over the rows that can be compared: sqrt(mean over rows of (rms(row error) / sigma)^2), and
 * the largest row. instead ([T, width]) takes the place of what was expected; skip ([T]) names rows to leave out. Both may be NULL. */
typedef struct gemma4_score {
    size_t rows;
    double score, worst; /* in units of the yardstick */
    size_t position;     /* of the worst */
    double relative_rms; /* norm(error) / norm(expected) */
} gemma4_score;
gemma4_score gemma4_replay_score(const gemma4_replay *replay, gemma4_tap tap, const gemma4_real *instead, const bool *skip);

/* How much too large the rows are on average, as a part of what was expected: rounding scales a row up or down, but not all rows alike. */
typedef struct gemma4_bias {
    double part;       /* -0.002: 0.2 % too small */
    double in_spreads; /* its size in units of what it is in the perturbed runs; 0 where there are too few rows to say */
} gemma4_bias;
gemma4_bias gemma4_replay_bias(const gemma4_replay *replay, gemma4_tap tap);

/* Two router logits of a row whose difference is below this may change places by rounding. */
double gemma4_replay_near_tie(const gemma4_replay *replay, size_t row);

#endif
