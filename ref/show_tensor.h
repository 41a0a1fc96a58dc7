/* One tensor of an activation file as text: for `gemma4-ref show` (show.h). */
#ifndef GEMMA4_SHOW_TENSOR_H
#define GEMMA4_SHOW_TENSOR_H

#include <stdio.h>

#include "activations_internal.h"

/* What is to be printed of it. */
typedef struct gemma4_shown {
    const char *path;       /* of the file, for messages */
    int64_t position, head; /* -1: all; then long axes are shortened */
    FILE *json;             /* not NULL: all values go there, and nothing is printed */
} gemma4_shown;

/* NULL where the list holds no tensor of that name. */
const gemma4_stored_tensor *gemma4_stored_find(const gemma4_stored_list *list, const char *name);
/* Prints "[12, 4, 32]" to stdout. */
void gemma4_show_shape(const gemma4_stored_tensor *tensor);
/* Prints name, shape, type, statistics and values of a tensor of the list to stdout, or writes them
 * as JSON: {"format": "gemma4-tensor", "format_version": 1, "tap": its name, "dtype": as stored,
 * "shape": of the values, leading axes of length 1 dropped, "positions": of the rows (absent for
 * tokens and positions), "heads": of the second axis where the tap has heads, "values": one list,
 * row-major, null where a value is no finite number}. A shape that
 * has no axis of positions, and a position or head that is not there, are errors; nothing is
 * printed before they are found. */
int gemma4_show_tensor(const gemma4_shown *shown, gemma4_activation_source *source,
                       const gemma4_stored_list *list, const gemma4_stored_tensor *tensor,
                       gemma4_error *error);

#endif
