/* What stands in a GGUF file that has been checked: tensors by number, and metadata as integers,
 * numbers and strings. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "gguf_internal.h"

const char *gemma4_gguf_path(const gemma4_gguf *g)
{
    return g->mapped.path;
}

size_t gemma4_gguf_size(const gemma4_gguf *g)
{
    return g->mapped.size;
}

size_t gemma4_gguf_tensor_count(const gemma4_gguf *g)
{
    return g->tensor_count;
}

const gemma4_gguf_tensor *gemma4_gguf_tensor_at(const gemma4_gguf *g, size_t index)
{
    return &g->tensors[index];
}

size_t gemma4_gguf_value_count(const gemma4_gguf *g)
{
    return g->value_count;
}

const gemma4_gguf_value *gemma4_gguf_value_at(const gemma4_gguf *g, size_t index)
{
    return &g->values[index];
}

/* A value as it is printed in messages. */
static void describe(const gemma4_gguf_value *value, char text[64])
{
    static const char *const names[GEMMA4_GGUF_KINDS] = {
        "uint8", "int8",   "uint16", "int16",  "uint32", "int32",  "float32",
        "bool",  "string", "array",  "uint64", "int64",  "float64"};
    if (value->is_array)
        snprintf(text, 64, "an array of %zu %s", value->count, names[value->kind]);
    else if (value->kind == GEMMA4_GGUF_STRING) {
        uint64_t length;
        memcpy(&length, value->data, sizeof length);
        snprintf(text, 64, "\"%.*s\"", length < 40 ? (int)length : 40,
                 (const char *)value->data + sizeof length);
    } else
        snprintf(text, 64, "a %s", names[value->kind]);
}

int gemma4_gguf_fail(const gemma4_gguf *g, const gemma4_gguf_value *value, const char *what,
                     gemma4_error *error)
{
    char found[64];
    describe(value, found);
    return gemma4_fail(error, "%s: %s: expected %s, found %s", g->mapped.path, value->key, what,
                       found);
}

#define ITEM(type)                                                     \
    {                                                                  \
        type item;                                                     \
        memcpy(&item, value->data + index * sizeof item, sizeof item); \
        *number = item;                                                \
        return true;                                                   \
    }

/* False where it is no integer, or one above INT64_MAX. */
static bool integer_at(const gemma4_gguf_value *value, size_t index, int64_t *number)
{
    uint64_t large;
    if (index >= value->count)
        return false;
    switch (value->kind) {
    case GEMMA4_GGUF_UINT8: ITEM(uint8_t)
    case GEMMA4_GGUF_INT8: ITEM(int8_t)
    case GEMMA4_GGUF_UINT16: ITEM(uint16_t)
    case GEMMA4_GGUF_INT16: ITEM(int16_t)
    case GEMMA4_GGUF_UINT32: ITEM(uint32_t)
    case GEMMA4_GGUF_INT32: ITEM(int32_t)
    case GEMMA4_GGUF_INT64: ITEM(int64_t)
    case GEMMA4_GGUF_BOOL: *number = value->data[index] != 0; return true;
    case GEMMA4_GGUF_UINT64:
        memcpy(&large, value->data + index * sizeof large, sizeof large);
        *number = (int64_t)large;
        return large <= INT64_MAX;
    default: return false;
    }
}

static bool float_at(const gemma4_gguf_value *value, size_t index, double *number)
{
    if (index >= value->count)
        return false;
    switch (value->kind) {
    case GEMMA4_GGUF_FLOAT32: ITEM(float)
    case GEMMA4_GGUF_FLOAT64: ITEM(double)
    default: return false;
    }
}

int gemma4_gguf_integer(const gemma4_gguf *g, const gemma4_gguf_value *value, size_t index,
                        int64_t low, int64_t high, int64_t *number, gemma4_error *error)
{
    char what[80];
    if (integer_at(value, index, number)) {
        if (*number >= low && *number <= high)
            return 0;
        return gemma4_fail(error, "%s: %s: expected an integer from %jd to %jd, found %jd",
                           g->mapped.path, value->key, (intmax_t)low, (intmax_t)high,
                           (intmax_t)*number);
    }
    snprintf(what, sizeof what, "an integer from %jd to %jd", (intmax_t)low, (intmax_t)high);
    return gemma4_gguf_fail(g, value, what, error);
}

int gemma4_gguf_number(const gemma4_gguf *g, const gemma4_gguf_value *value, size_t index,
                       double *number, gemma4_error *error)
{
    int64_t integer;
    if (float_at(value, index, number) && isfinite(*number))
        return 0;
    if (!integer_at(value, index, &integer))
        return gemma4_gguf_fail(g, value, "a finite number", error);
    *number = (double)integer;
    return 0;
}

bool gemma4_gguf_is_string(const gemma4_gguf_value *value, const char *text)
{
    uint64_t length;
    if (value->kind != GEMMA4_GGUF_STRING || value->is_array)
        return false;
    memcpy(&length, value->data, sizeof length);
    return length == strlen(text) && !memcmp(value->data + sizeof length, text, (size_t)length);
}
