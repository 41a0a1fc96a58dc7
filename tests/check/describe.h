/* What can be measured of an error that no known mistake explains. */
#ifndef GEMMA4_DESCRIBE_H
#define GEMMA4_DESCRIBE_H

#include "replay.h"

/* One or two sentences on the replayed tap's error: a constant ratio, a few positions, heads or lanes, a permutation or shift of
 * them. */
void gemma4_describe_error(const gemma4_replay *replay, gemma4_tap tap, char *text, size_t size);

#endif
