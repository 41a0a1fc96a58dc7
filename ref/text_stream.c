#include "text_stream.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Room for that many bytes more, and a NUL. */
static bool grow(gemma4_text *text, size_t more)
{
    enum { FIRST = 1024 };
    if (more >= SIZE_MAX / 2 - text->size)
        return false;
    size_t room = text->room ? text->room : FIRST;
    while (room <= text->size + more)
        room *= 2;
    char *bytes = room == text->room ? text->bytes : realloc(text->bytes, room);
    if (!bytes)
        return false;
    text->bytes = bytes;
    text->room = room;
    return true;
}

/* Behind a gap nothing more is taken: what is there is the text's beginning. */
static ssize_t append(void *context, const char *bytes, size_t count)
{
    gemma4_text *text = context;
    text->cut = text->cut || !grow(text, count);
    if (text->cut)
        return 0;
    memcpy(text->bytes + text->size, bytes, count);
    text->size += count;
    text->bytes[text->size] = '\0';
    return (ssize_t)count;
}

void gemma4_text_open(gemma4_text *text)
{
    *text = (gemma4_text){0};
    text->cut = !grow(text, 0);
    if (text->cut)
        return;
    text->bytes[0] = '\0';
    text->f = fopencookie(text, "w", (cookie_io_functions_t){.write = append});
}

int gemma4_text_close(gemma4_text *text)
{
    if (!text->f)
        return -1;
    bool failed = fclose(text->f);
    text->f = NULL;
    return failed || text->cut ? -1 : 0;
}
