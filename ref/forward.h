/* The forward pass (spec/model.md): tokens in, logits out, every tensor in between shown to a
 * hook. */
#ifndef GEMMA4_FORWARD_H
#define GEMMA4_FORWARD_H

#include "model.h"
#include "taps.h"

/* --- which keys a query sees (spec/model.md): at or before it, and on sliding layers the last
 * sliding_window of those --- */

/* Positions first ... end - 1, counted within the sequence; none where end <= first. */
typedef struct gemma4_visible {
    size_t first, end;
} gemma4_visible;

/* How many keys a query of the layer sees at most, its own included; SIZE_MAX on full layers. */
size_t gemma4_layer_window(const gemma4_config *config, size_t layer);
/* The keys that a query at this position sees through a window of that length. */
static inline gemma4_visible gemma4_visible_through(size_t window, size_t query)
{
    size_t end = query + 1;
    return (gemma4_visible){.first = end > window ? end - window : 0, .end = end};
}
/* The keys that a query at this position sees in the layer. */
gemma4_visible gemma4_visible_keys(const gemma4_config *config, size_t layer, size_t query);

/* --- the pass --- */

/* One sequence: its KV cache and how far it has come. */
typedef struct gemma4_session gemma4_session;

/* first_position is the absolute position of the first token (0 for a prompt; anything else starts
 * with an empty cache there). capacity is how many positions the session can hold; full layers
 * reserve their cache for all of them. first_position + capacity may not pass
 * max_position_embeddings. The model must outlive the session. NULL on failure. */
gemma4_session *gemma4_session_new(const gemma4_model *model, size_t first_position,
                                   size_t capacity, gemma4_error *error);
void gemma4_session_free(gemma4_session *session);

/* hook is called after every step of every later gemma4_forward; NULL for none. */
void gemma4_session_set_hook(gemma4_session *session, gemma4_tap_hook hook, void *context);
/* Uses these operators (a copy of the table) from now on; NULL for the scalar ones, which is what a
 * session begins with. A twin's results are within its bounds (spec/twins.md), do not depend on the
 * number of threads, and may depend in their last bits on how a sequence is cut into chunks. */
typedef struct gemma4_ops gemma4_ops;
void gemma4_session_set_ops(gemma4_session *session, const gemma4_ops *ops);
/* Whether the hook is shown attn.scores and attn.probs (it is at first). Without them a twin's
 * attention may run, which never holds them all. */
void gemma4_session_show_probs(gemma4_session *session, bool show);
/* How many positions the session has seen. */
size_t gemma4_session_length(const gemma4_session *session);

/* Runs count >= 1 further tokens through the model, as one chunk. However a sequence is cut into
 * chunks, the results are bit-identical. The head is computed for the last logits_rows positions of
 * the chunk (0 ... count) and written to logits [logits_rows, V], which may be NULL where only the
 * hook wants them. After a failure the session is no longer usable, only freeable. */
int gemma4_forward(gemma4_session *session, const int32_t *tokens, size_t count, size_t logits_rows,
                   gemma4_real *logits, gemma4_error *error);

/* The three pieces of gemma4_forward, for who wants to see or replace the residual stream between
 * layers: h is (T, d), written by the first, updated in place by the second, read by the third.
 * They show their taps as gemma4_forward does but do not advance the session: every layer sees the
 * same T positions, after those that gemma4_forward has seen. */
int gemma4_forward_embed(gemma4_session *session, const int32_t *tokens, size_t T, gemma4_real *h,
                         gemma4_error *error);
int gemma4_forward_layer(gemma4_session *session, size_t layer, size_t T, gemma4_real *h,
                         gemma4_error *error);
int gemma4_forward_head(gemma4_session *session, size_t T, size_t logits_rows, const gemma4_real *h,
                        gemma4_real *logits, gemma4_error *error);

#endif
