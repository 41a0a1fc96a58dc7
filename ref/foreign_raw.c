/* What llama-debug --save-logits writes: the logits of the last position as bare float32, in
 * FILE.bin, and the prompt's tokens as bare int32 in FILE-tokens.bin. Nothing in them says what
 * they are, so both must be there. */
#include "foreign_internal.h"
#include "mapped_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOGITS, TOKENS, FILES };

static const struct {
    const char *name, *end;
    gemma4_element element;
} parts[FILES] = {{"logits", ".bin", GEMMA4_ELEMENT_F32},
                  {"tokens", "-tokens.bin", GEMMA4_ELEMENT_I32}};

typedef struct raw_state {
    gemma4_mapped_file files[FILES];
} raw_state;

bool gemma4_ends_with(const char *path, const char *end)
{
    size_t length = strlen(path), n = strlen(end);
    return length > n && strcmp(path + length - n, end) == 0;
}

static const char *raw_attribute(const void *state, const char *name)
{
    (void)state;
    (void)name;
    return NULL;
}

static int raw_list(void *context, const gemma4_config *config, gemma4_stored_list *list,
                    gemma4_error *error)
{
    raw_state *state = context;
    for (int i = 0; i < FILES; i++) {
        const gemma4_mapped_file *file = &state->files[i];
        gemma4_stored_tensor *stored;
        if (gemma4_stored_add(list, config, parts[i].name, &stored, error))
            return -1;
        if (!stored)
            continue;
        stored->element = parts[i].element;
        stored->rank = 1;
        stored->shape[0] = file->size / 4;
        stored->tensor = file;
    }
    return 0;
}

static int raw_read(void *context, const gemma4_stored_tensor *stored, const size_t *start,
                    const size_t *extent, void *elements, gemma4_error *error)
{
    const gemma4_mapped_file *file = stored->tensor;
    (void)context;
    (void)error;
    gemma4_copy_block(file->bytes, 4, stored->rank, stored->shape, start, extent, elements);
    return 0;
}

static void raw_close(void *context)
{
    raw_state *state = context;
    for (int i = 0; i < FILES; i++)
        gemma4_mapped_file_close(&state->files[i]);
    free(state);
}

static int open_part(raw_state *state, int part, const char *path, int stem, gemma4_error *error)
{
    char name[4096];
    if (snprintf(name, sizeof name, "%.*s%s", stem, path, parts[part].end) >= (int)sizeof name)
        return gemma4_fail(error, "%.200s...: path too long", path);
    if (gemma4_mapped_file_open(&state->files[part], name, error))
        return -1;
    size_t size = state->files[part].size;
    if (size == 0 || size % 4)
        return gemma4_fail(error, "%s: expected %s of 4 bytes each, found %zu bytes", name,
                           parts[part].name, size);
    return 0;
}

/* The length of FILE. */
static int stem_length(const char *path)
{
    return (int)strlen(path) -
           (int)strlen(parts[gemma4_ends_with(path, parts[TOKENS].end) ? TOKENS : LOGITS].end);
}

bool gemma4_is_raw_logits(const char *path)
{
    char other[4096];
    int missing = gemma4_ends_with(path, parts[TOKENS].end) ? LOGITS : TOKENS;
    return gemma4_ends_with(path, parts[LOGITS].end) &&
           snprintf(other, sizeof other, "%.*s%s", stem_length(path), path, parts[missing].end) <
               (int)sizeof other &&
           access(other, F_OK) == 0;
}

int gemma4_raw_logits_open(const char *path, gemma4_activation_source *source, gemma4_error *error)
{
    raw_state *state = calloc(1, sizeof *state);
    if (!state)
        return gemma4_fail(error, "%s: out of memory", path);
    for (int i = 0; i < FILES; i++)
        if (open_part(state, i, path, stem_length(path), error)) {
            raw_close(state);
            return -1;
        }
    *source = (gemma4_activation_source){state, raw_attribute, raw_list, raw_read, raw_close};
    return 0;
}
