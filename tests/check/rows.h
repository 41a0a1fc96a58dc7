/* Reading positions of a dump's taps, and the two kinds of taps whose rows need care. */
#ifndef GEMMA4_ROWS_H
#define GEMMA4_ROWS_H

#include "activations.h"

/* Scores and probabilities: rows are [H, T], shown by the forward pass a position at a time. */
bool gemma4_tap_is_keys(gemma4_tap tap);
/* Does the query at this position not see the key of element `index` of its row, [H, positions]? */
bool gemma4_key_is_masked(const gemma4_config *config, size_t layer, size_t positions, size_t query,
                          size_t index);
/* Taps whose rows are in the order of topk_ids. */
bool gemma4_tap_in_id_order(gemma4_tap tap);

/* Reads those of the positions [first, first + rows) that the file holds; have[i] says which. Runs
 * of consecutive positions are read at once. Exactly one of values and ids is given, [rows, width].
 * A file on which libhdf5 does not come to an end kills the process (tests/check/isolate.h). */
int gemma4_read_positions(gemma4_activations *file, const gemma4_activation *a, size_t first,
                          size_t rows, size_t width, float *values, int32_t *ids, bool *have,
                          gemma4_error *error);

#endif
