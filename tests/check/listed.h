/* Log-probabilities in a dump: a few tokens of each position with theirs, in place of all
 * logits (spec/tolerance.md, "Log-probabilities"). Which tokens are listed is the engine's choice:
 * every run of the reference then shows the log-probabilities of just these. */
#ifndef GEMMA4_LISTED_H
#define GEMMA4_LISTED_H

#include "evidence.h"
#include "report.h"

/* Reads which tokens the dump lists. Where it lists none, or in a tensor that cannot be read, the
 * subject's `listed` stays 0. */
int gemma4_subject_read_listed(gemma4_subject *subject, gemma4_activations *engine,
                               gemma4_error *error);

/* What is wrong with the tensors together: values without ids, or not as many of them. "" for
 * nothing. */
void gemma4_listed_problem(gemma4_activations *engine, char *problem, size_t size);

/* Do the values (NULL: there are none) and the tokens that are listed belong together? */
bool gemma4_logprobs_are_usable(const gemma4_subject *subject, const gemma4_activation *values);

/* The log-probabilities of the listed tokens at positions first ... first + rows - 1: logits is
 * (rows, V), out (rows, N); rows without a list become 0. With noise, what is subtracted is rounded
 * once, as the engine's own would be. */
void gemma4_listed_logprobs(const gemma4_subject *subject, size_t first, size_t rows,
                            const gemma4_real *logits, gemma4_noise *noise, gemma4_real *out);

/* Takes the mean of each row off its values (rows, N), where the subject says that only differences
 * count and there are any: N above 1. A row that has a placeholder, or no number, stays as it
 * is. */
void gemma4_listed_differences(const gemma4_subject *subject, size_t rows, gemma4_real *values);
/* The same of the dump's own values, (T, N). */
int gemma4_listed_engine_differences(const gemma4_subject *subject, float *values,
                                     gemma4_error *error);

/* Are the listed tokens N distinct ones, and those with the largest logits? Where the values fail,
 * the second question is not asked: another choice only follows. */
int gemma4_judge_listed(const gemma4_evidence *evidence, gemma4_activations *engine,
                        bool values_fail, gemma4_tap_result *ids, gemma4_error *error);
/* Values that no log-probability has: above 0, or a placeholder for one that is not known. They
 * fail as a form; false where there are none. */
bool gemma4_judge_placeholders(const gemma4_evidence *evidence, gemma4_tap_result *values);

#endif
