/* The catalogue of counter-models as text: one entry for `gemma4-check explain ID`, all of them as
 * spec/causes.md; and the space of mistakes. */
#ifndef GEMMA4_EXPLAIN_H
#define GEMMA4_EXPLAIN_H

#include <stdio.h>

/* Prints the page of a cause: every variant of it. Where no cause has that id, prints one line that
 * says so and names those that it may have meant, and returns -1. */
int gemma4_explain(FILE *out, const char *id);
/* The ids, one a line with where each enters and what it computes. */
void gemma4_explain_list(FILE *out);
/* spec/causes.md. */
void gemma4_explain_all_markdown(FILE *out);
/* The table of parameters of spec/space.md. */
void gemma4_explain_space(FILE *out);

#endif
