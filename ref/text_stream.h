/* Text that is written into memory before it goes anywhere: whole, or not at all. A stream of
 * open_memstream forgets a write for which memory ran out, and goes on with the next one. */
#ifndef GEMMA4_TEXT_STREAM_H
#define GEMMA4_TEXT_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct gemma4_text {
    char *bytes; /* ends with a NUL; to be freed whatever gemma4_text_close returns */
    size_t size; /* without the NUL */
    size_t room;
    bool cut; /* something that was written is missing */
    FILE *f;  /* to write to; NULL where it could not be opened */
} gemma4_text;

/* Opens text->f; where memory runs out that is NULL, and gemma4_text_close fails. */
void gemma4_text_open(gemma4_text *text);
/* Closes text->f. Fails where bytes does not hold all that was written. */
int gemma4_text_close(gemma4_text *text);

#endif
