/* Where a check may write its reports. */
#ifndef GEMMA4_OUTPUTS_H
#define GEMMA4_OUTPUTS_H

#include <stddef.h>

#include "error.h"

/* Fails where one of the outputs (NULL: not asked for) is the file of another, or one that the
 * check reads: the case's manifest or golden, the checkpoint, an input. The others may be NULL, and
 * need not exist: that is said when they are opened. */
int gemma4_check_outputs(const char *const *outputs, size_t count, const char *case_name,
                         const char *model_dir, const char *const *inputs, size_t input_count,
                         gemma4_error *error);

#endif
