/* gemma4-check agreement: how closely this build's reference agrees with every golden. */
#ifndef GEMMA4_AGREEMENT_H
#define GEMMA4_AGREEMENT_H

#include <stdio.h>

#include "error.h"

/* Prints a row a case and a column a group of taps (the largest relative RMS), and a summary line.
 * *failures counts the cases that disagree. Fails only where nothing could be compared. */
int gemma4_agreement(FILE *out, size_t *failures, gemma4_error *error);

#endif
