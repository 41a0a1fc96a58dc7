#include "schedule.h"

#include <stdlib.h>

static void one_chunk(gemma4_schedule *s, size_t T)
{
    s->chunks = 1;
    for (size_t t = 0; t < T; t++) {
        s->chunk_start[t] = 0;
        s->chunk_end[t] = T;
    }
}

/* False where text is no list of chunk lengths that add up to T. */
static bool read_chunks(gemma4_schedule *s, const char *text, size_t T)
{
    size_t at = 0;
    while (*text) {
        char *end;
        unsigned long n = strtoul(text, &end, 10);
        if (end == text || n == 0 || n > T - at || (*end != ',' && *end != '\0'))
            return false;
        for (size_t t = at; t < at + n; t++) {
            s->chunk_start[t] = at;
            s->chunk_end[t] = at + n;
        }
        at += n;
        s->chunks++;
        text = *end ? end + 1 : end;
    }
    return at == T;
}

static int new_schedule(gemma4_schedule *s, size_t T, gemma4_error *error)
{
    *s = (gemma4_schedule){.chunk_start = calloc(T, sizeof *s->chunk_start),
                           .chunk_end = calloc(T, sizeof *s->chunk_end)};
    return s->chunk_start && s->chunk_end
               ? 0
               : gemma4_fail(error, "schedule of %zu positions: out of memory", T);
}

int gemma4_schedule_init(gemma4_schedule *s, const char *text, size_t T, gemma4_error *error)
{
    if (new_schedule(s, T, error))
        return -1;
    s->known = text && read_chunks(s, text, T);
    if (!s->known)
        one_chunk(s, T);
    return 0;
}

int gemma4_schedule_part(gemma4_schedule *part, const gemma4_schedule *whole, size_t first,
                         size_t T, gemma4_error *error)
{
    if (new_schedule(part, T, error))
        return -1;
    part->chunks = whole->chunks;
    part->known = whole->known;
    for (size_t t = 0; t < T; t++) {
        size_t end = whole->chunk_end[first + t];
        part->chunk_start[t] = whole->chunk_start[first + t];
        part->chunk_end[t] = end < first + T ? end : first + T;
    }
    return 0;
}

void gemma4_schedule_free(gemma4_schedule *s)
{
    free(s->chunk_start);
    free(s->chunk_end);
    *s = (gemma4_schedule){0};
}

const char *gemma4_scope_text(gemma4_scope scope)
{
    static const char *const texts[] = {"", "in positions fed one at a time",
                                        "in chunks after the first", "in the first chunk"};
    return texts[scope];
}

bool gemma4_in_scope(const gemma4_schedule *s, gemma4_scope scope, size_t t)
{
    switch (scope) {
    case GEMMA4_DECODE_ONLY:
        return s->chunk_start[t] > 0 && s->chunk_end[t] - s->chunk_start[t] == 1;
    case GEMMA4_AFTER_FIRST_CHUNK: return s->chunk_start[t] > 0;
    case GEMMA4_FIRST_CHUNK_ONLY: return s->chunk_start[t] == 0;
    default: return true;
    }
}
