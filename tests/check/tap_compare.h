/* Comparing rows of two tensors of the same tap, in the way that suits the tap. */
#ifndef GEMMA4_TAP_COMPARE_H
#define GEMMA4_TAP_COMPARE_H

#include "compare.h"
#include "taps.h"

/* Adds row t of both tensors, [width] each, to the comparison. Slots in the order of topk_ids ([K]
 * of each side) are compared with those of the same expert, and left out where the other side has
 * none; masked scores are left out, and masked probabilities must be 0. T: positions of the
 * case. */
void gemma4_compare_row(gemma4_comparison *comparison, const gemma4_config *config, gemma4_tap tap,
                        size_t layer, size_t T, size_t t, size_t width, const float *engine,
                        const int32_t *engine_ids, const float *expected,
                        const int32_t *expected_ids);

#endif
