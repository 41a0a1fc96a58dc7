/* gemma4-check lint: are the cases, their goldens and their checkpoints what they say, and do they
 * fit together? */
#ifndef GEMMA4_LINT_H
#define GEMMA4_LINT_H

#include <stdbool.h>
#include <stdio.h>

#include "error.h"

/* Prints one line a problem to out and a summary; *problems counts them. in_long: mistakes are
 * planted in the cases of many positions too, which takes seconds each. Fails only where nothing
 * could be looked at. */
int gemma4_lint(FILE *out, bool in_long, size_t *problems, gemma4_error *error);

#endif
