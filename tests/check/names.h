/* What a dump under an engine's own names holds, and a map for it. */
#ifndef GEMMA4_NAMES_H
#define GEMMA4_NAMES_H

#include <stddef.h>
#include <stdio.h>

#include "error.h"

typedef struct gemma4_names_request {
    const char *const *paths; /* [count] as gemma4_import's */
    size_t count;
    const char *case_name, *model_dir; /* whose shapes tell taps apart; NULL: names alone do */
} gemma4_names_request;

/* Writes YAML: as comments the tensors with their types and shapes, and how well each shipped map
 * fits; below them the map that fits best, cut down to the rules that match, or where none fits one
 * made of names and shapes. */
int gemma4_names(const gemma4_names_request *request, FILE *out, gemma4_error *error);

#endif
