/* How an engine was fed: the chunks of its schedule, and the positions that one of its code paths
 * computed. */
#ifndef GEMMA4_SCHEDULE_H
#define GEMMA4_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>

#include "error.h"

typedef struct gemma4_schedule {
    size_t *chunk_start, *chunk_end; /* [T] index of the first position of the chunk that each
                                        position was fed in; index after its last */
    size_t chunks;
    bool known; /* false: the dump does not say, or says nonsense; then all positions are one
                   chunk */
} gemma4_schedule;

/* text is a list of chunk lengths that add up to T ("10,1,1"), or NULL. */
int gemma4_schedule_init(gemma4_schedule *schedule, const char *text, size_t T,
                         gemma4_error *error);
/* Of T positions from `first` on: indices stay those of the whole, but chunks end with the part. */
int gemma4_schedule_part(gemma4_schedule *part, const gemma4_schedule *whole, size_t first,
                         size_t T, gemma4_error *error);
void gemma4_schedule_free(gemma4_schedule *schedule);

/* The positions at which a mistake is made: engines have other code for a prompt, for its later
 * chunks, and for single tokens. */
typedef enum gemma4_scope {
    GEMMA4_EVERYWHERE,
    GEMMA4_DECODE_ONLY,
    GEMMA4_AFTER_FIRST_CHUNK,
    GEMMA4_FIRST_CHUNK_ONLY,
    GEMMA4_SCOPES
} gemma4_scope;

/* "in positions fed one at a time"; "" for everywhere. */
const char *gemma4_scope_text(gemma4_scope scope);
/* Is position t (an index into the case) in that scope of the schedule? */
bool gemma4_in_scope(const gemma4_schedule *schedule, gemma4_scope scope, size_t t);

#endif
