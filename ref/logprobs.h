/* Log-probabilities of tokens, as engines show them that keep their logits to themselves: natural
 * logarithms of the softmax over the whole vocabulary, of the few best tokens (spec/taps.md,
 * logprobs). */
#ifndef GEMMA4_LOGPROBS_H
#define GEMMA4_LOGPROBS_H

#include "taps.h"

/* log(sum of exp(logits)), the number that is subtracted from a logit; logits is (n), n at least
 * 1. */
double gemma4_log_of_sum(const gemma4_real *logits, size_t n);

/* The count largest of logits (n), largest first, equals by lower id, to ids (count), with their
 * log-probabilities to values (count; NULL: not wanted). count is at most n. NaN is smaller than
 * anything. */
void gemma4_best_logprobs(const gemma4_real *logits, size_t n, size_t count, int32_t *ids,
                          gemma4_real *values);

#endif
