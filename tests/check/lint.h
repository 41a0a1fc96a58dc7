/* gemma4-check lint: are the cases, their goldens and their checkpoints what they say, and do they
 * fit together? */
#ifndef GEMMA4_LINT_H
#define GEMMA4_LINT_H

#include <stdio.h>

#include "error.h"

/* Prints one line a problem to out and a summary; *problems counts them. Fails only where nothing
 * could be looked at. */
int gemma4_lint(FILE *out, size_t *problems, gemma4_error *error);

#endif
