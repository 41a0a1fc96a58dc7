/* The safetensors reader of activation files: tensors under the taps' names, the root attributes as
 * __metadata__. */
#include "activations_internal.h"
#include "options.h"
#include "safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The file, and of which names in it: those of a group, "GROUP.logits", are then taken without it,
 * and of the metadata "GROUP.dtype" before "dtype". */
typedef struct source_state {
    gemma4_safetensors *files;
    char *group; /* NULL: all names */
} source_state;

/* The types of the safetensors format that are read. */
static const struct dtype_element {
    const char *dtype;
    gemma4_element element;
} dtype_elements[] = {
    {"F16", GEMMA4_ELEMENT_F16}, {"BF16", GEMMA4_ELEMENT_BF16}, {"F32", GEMMA4_ELEMENT_F32},
    {"F64", GEMMA4_ELEMENT_F64}, {"I8", GEMMA4_ELEMENT_I8},     {"U8", GEMMA4_ELEMENT_U8},
    {"I16", GEMMA4_ELEMENT_I16}, {"U16", GEMMA4_ELEMENT_U16},   {"I32", GEMMA4_ELEMENT_I32},
    {"U32", GEMMA4_ELEMENT_U32}, {"I64", GEMMA4_ELEMENT_I64},   {"U64", GEMMA4_ELEMENT_U64},
};

static gemma4_element element_of_dtype(const char *dtype)
{
    for (size_t i = 0; i < sizeof dtype_elements / sizeof *dtype_elements; i++)
        if (strcmp(dtype_elements[i].dtype, dtype) == 0)
            return dtype_elements[i].element;
    return GEMMA4_ELEMENT_NONE;
}

static const char *safetensors_attribute(const void *state, const char *name)
{
    const source_state *s = state;
    char key[2 * GEMMA4_STORED_NAME_SIZE];
    const char *text = NULL;
    if (s->group && snprintf(key, sizeof key, "%s.%s", s->group, name) < (int)sizeof key)
        text = gemma4_safetensors_metadata(s->files, key);
    return text ? text : gemma4_safetensors_metadata(s->files, name);
}

/* The tensor's name in the group; NULL where it is in another. */
static const char *name_in_group(const source_state *s, const char *name)
{
    size_t length = s->group ? strlen(s->group) : 0;
    if (!s->group)
        return name;
    return !strncmp(name, s->group, length) && name[length] == '.' ? name + length + 1 : NULL;
}

static int describe(const gemma4_tensor *tensor, gemma4_stored_tensor *stored, gemma4_error *error)
{
    stored->tensor = tensor;
    stored->element = element_of_dtype(tensor->dtype_name);
    stored->rank = tensor->rank;
    memcpy(stored->shape, tensor->shape, tensor->rank * sizeof *tensor->shape);
    if (stored->element == GEMMA4_ELEMENT_NONE) {
        snprintf(stored->problem, sizeof stored->problem,
                 "expected F16, BF16, F32, F64 or an integer type, found %s", tensor->dtype_name);
        return 0;
    }
    /* safetensors.c knows the sizes of the types that weights have; for the others this is the only
     * check. */
    size_t bytes = gemma4_element_describe(stored->element)->size;
    for (size_t i = 0; i < tensor->rank; i++)
        if (!gemma4_size_product(bytes, tensor->shape[i], &bytes))
            return gemma4_fail(error,
                               "%s: %s: expected a shape that fits the file, found one too large",
                               tensor->file, tensor->name);
    if (bytes != tensor->size)
        return gemma4_fail(error, "%s: %s: expected %zu bytes by shape and type, found %zu",
                           tensor->file, tensor->name, bytes, tensor->size);
    if (bytes == 0)
        snprintf(stored->problem, sizeof stored->problem, "expected values, found an empty tensor");
    return 0;
}

/* The rows of a tensor that does not hold all positions: the metadata entry "NAME.rows", "7,8,9".
 * Here a tensor has no attributes of its own. */
static int describe_rows(const source_state *state, const gemma4_tensor *tensor,
                         gemma4_stored_tensor *stored, gemma4_error *error)
{
    char key[2 * GEMMA4_STORED_NAME_SIZE + 8], what[2 * GEMMA4_STORED_NAME_SIZE + 300];
    int32_t *rows;
    snprintf(key, sizeof key, "%.255s.rows", tensor->name);
    const char *text = gemma4_safetensors_metadata(state->files, key);
    if (!text)
        return 0;
    snprintf(what, sizeof what, "%.250s: metadata %s", tensor->file, key);
    if (gemma4_parse_ints(text, what, 0, INT32_MAX, &rows, &stored->row_count, error))
        return -1;
    stored->has_rows = true;
    stored->rows = malloc(stored->row_count * sizeof *stored->rows);
    for (size_t i = 0; stored->rows && i < stored->row_count; i++)
        stored->rows[i] = rows[i];
    free(rows);
    return stored->rows ? 0 : gemma4_fail(error, "%s: out of memory", what);
}

static int safetensors_list(void *state, const gemma4_config *config, gemma4_stored_list *list,
                            gemma4_error *error)
{
    const source_state *s = state;
    for (size_t i = 0; i < gemma4_safetensors_count(s->files); i++) {
        const gemma4_tensor *tensor = gemma4_safetensors_at(s->files, i);
        const char *name = name_in_group(s, tensor->name);
        gemma4_stored_tensor *stored;
        if (!name)
            continue;
        if (gemma4_stored_add(list, config, name, &stored, error))
            return -1;
        if (stored && (describe(tensor, stored, error) || describe_rows(s, tensor, stored, error)))
            return -1;
    }
    return 0;
}

static int safetensors_read(void *state, const gemma4_stored_tensor *stored, const size_t *start,
                            const size_t *extent, void *elements, gemma4_error *error)
{
    const gemma4_tensor *tensor = stored->tensor;
    (void)state;
    (void)error;
    gemma4_copy_block(tensor->data, gemma4_element_describe(stored->element)->size, stored->rank,
                      stored->shape, start, extent, elements);
    return 0;
}

static void safetensors_close(void *state)
{
    source_state *s = state;
    gemma4_safetensors_close(s->files);
    free(s->group);
    free(s);
}

/* A checkpoint has the same form, but its names end in ".weight", which no tap's does; NULL where
 * there is no such tensor. */
static const char *find_weight(const gemma4_safetensors *files)
{
    for (size_t i = 0; i < gemma4_safetensors_count(files); i++) {
        const char *name = gemma4_safetensors_at(files, i)->name;
        size_t length = strlen(name);
        if (length > 7 && strcmp(name + length - 7, ".weight") == 0)
            return name;
    }
    return NULL;
}

static int refuse_checkpoint(const char *path, const gemma4_safetensors *files, gemma4_error *error)
{
    const char *format = gemma4_safetensors_metadata(files, "format"), *weight = find_weight(files);
    if (!weight || (format && strcmp(format, GEMMA4_ACTIVATIONS_FORMAT) == 0))
        return 0;
    return gemma4_fail(error,
                       "%s: expected activations, found a checkpoint's weights (%.100s): dump what "
                       "the layers compute; "
                       "a checkpoint's folder goes after --model",
                       path, weight);
}

static bool has_group(const source_state *s)
{
    for (size_t i = 0; i < gemma4_safetensors_count(s->files); i++)
        if (name_in_group(s, gemma4_safetensors_at(s->files, i)->name))
            return true;
    return false;
}

static int open_names(const char *path, const char *group, gemma4_activation_source *source,
                      gemma4_error *error)
{
    source_state *s = calloc(1, sizeof *s);
    if (!s || (group && !(s->group = strdup(group)))) {
        free(s);
        return gemma4_fail(error, "%s: out of memory", path);
    }
    s->files = gemma4_safetensors_open(path, error);
    if (!s->files || refuse_checkpoint(path, s->files, error)) {
        safetensors_close(s);
        return -1;
    }
    *source = (gemma4_activation_source){s, safetensors_attribute, safetensors_list,
                                         safetensors_read, safetensors_close};
    return 0;
}

int gemma4_activations_safetensors_open(const char *path, gemma4_activation_source *source,
                                        gemma4_error *error)
{
    return open_names(path, NULL, source, error);
}

int gemma4_activations_safetensors_open_group(const char *path, const char *group, bool *missing,
                                              gemma4_activation_source *source, gemma4_error *error)
{
    *missing = false;
    if (open_names(path, group, source, error))
        return -1;
    *missing = !has_group(source->state);
    if (!*missing)
        return 0;
    safetensors_close(source->state);
    *source = (gemma4_activation_source){0};
    return gemma4_fail(error, "%s: expected tensors named %s.logits and so on, found none", path,
                       group);
}
