/* What can be measured of an error that no known mistake explains. */
#ifndef GEMMA4_DESCRIBE_H
#define GEMMA4_DESCRIBE_H

#include "evidence.h"

/* One or two sentences on the tap's error: a constant ratio, a few positions, heads or lanes, a
 * permutation or shift of them. -1 where memory runs out. */
int gemma4_describe_error(const gemma4_evidence *evidence, gemma4_tap tap, char *text, size_t size,
                          gemma4_error *error);

#endif
