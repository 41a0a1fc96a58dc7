#include "gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "blocks.h"
#include "gguf_internal.h"

/* Far above any model of this family: what a header can make us allocate is bounded by them. */
enum {
    MAX_TENSORS = 1 << 17,
    MAX_VALUES = 1 << 16,
    MAX_NAME = 255,
    HEADER_BYTES = 24,
    DEFAULT_ALIGNMENT = 32
};

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the mapped data are little-endian");

/* Bytes of an item; 0 for strings and arrays. */
static const size_t item_sizes[GEMMA4_GGUF_KINDS] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/* Where in the file reading has come to, and what is being read, for messages: "metadata 3 of
 * 40". */
typedef struct cursor {
    gemma4_gguf *gguf;
    const unsigned char *at;
    const char *part;
    size_t number, of;
} cursor;

static size_t left(const cursor *c)
{
    return (size_t)(c->gguf->mapped.bytes + c->gguf->mapped.size - c->at);
}

static int fail_at(const cursor *c, gemma4_error *error, const char *text)
{
    return gemma4_fail(error, "%s: %s %zu of %zu: %s", c->gguf->mapped.path, c->part, c->number + 1,
                       c->of, text);
}

static int need(const cursor *c, uint64_t bytes, gemma4_error *error)
{
    char text[120];
    if (bytes <= left(c))
        return 0;
    snprintf(text, sizeof text, "expected %ju bytes more in the file, found %zu", (uintmax_t)bytes,
             left(c));
    return fail_at(c, error, text);
}

/* An unsigned integer of 4 or 8 bytes. */
static int take(cursor *c, size_t bytes, uint64_t *number, gemma4_error *error)
{
    *number = 0;
    if (need(c, bytes, error))
        return -1;
    memcpy(number, c->at, bytes);
    c->at += bytes;
    return 0;
}

/* A key or a tensor's name, copied. */
static int take_name(cursor *c, char **name, gemma4_error *error)
{
    uint64_t length;
    if (take(c, 8, &length, error) || need(c, length, error))
        return -1;
    if (length == 0 || length > MAX_NAME || memchr(c->at, 0, (size_t)length))
        return fail_at(c, error,
                       "expected a name of 1 to 255 bytes, none of them 0, found another one");
    *name = strndup((const char *)c->at, (size_t)length);
    if (!*name)
        return gemma4_fail(error, "%s: out of memory", c->gguf->mapped.path);
    c->at += length;
    return 0;
}

/* --- metadata --- */

static int skip_items(cursor *c, const gemma4_gguf_value *value, gemma4_error *error)
{
    uint64_t bytes, length;
    if (value->kind != GEMMA4_GGUF_STRING) {
        if (__builtin_mul_overflow((uint64_t)value->count, (uint64_t)item_sizes[value->kind],
                                   &bytes))
            bytes = UINT64_MAX;
        if (need(c, bytes, error))
            return -1;
        c->at += bytes;
        return 0;
    }
    for (size_t i = 0; i < value->count; i++) { /* each takes 8 bytes of the file at least */
        if (take(c, 8, &length, error) || need(c, length, error))
            return -1;
        c->at += length;
    }
    return 0;
}

static int take_kind(cursor *c, const gemma4_gguf_value *value, gemma4_gguf_kind *kind,
                     gemma4_error *error)
{
    uint64_t number;
    char text[MAX_NAME + 120];
    if (take(c, 4, &number, error))
        return -1;
    *kind = (gemma4_gguf_kind)number;
    if (number < GEMMA4_GGUF_KINDS && !(value->is_array && number == GEMMA4_GGUF_ARRAY))
        return 0;
    snprintf(text, sizeof text, "%s: expected a type of 0 to 12%s, found %ju", value->key,
             value->is_array ? " but 9, no arrays of arrays" : "", (uintmax_t)number);
    return fail_at(c, error, text);
}

static int take_value(cursor *c, gemma4_gguf_value *value, gemma4_error *error)
{
    uint64_t count = 1;
    if (take_name(c, &value->key, error) || take_kind(c, value, &value->kind, error))
        return -1;
    if (value->kind == GEMMA4_GGUF_ARRAY) {
        value->is_array = true;
        if (take_kind(c, value, &value->kind, error) || take(c, 8, &count, error))
            return -1;
    }
    value->count = (size_t)count;
    value->data = c->at;
    return skip_items(c, value, error);
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(((const gemma4_gguf_value *)a)->key, ((const gemma4_gguf_value *)b)->key);
}

static int take_values(cursor *c, uint64_t count, gemma4_error *error)
{
    gemma4_gguf *g = c->gguf;
    if (count > MAX_VALUES)
        return gemma4_fail(error, "%s: expected at most %d keys of metadata, found a count of %ju",
                           g->mapped.path, MAX_VALUES, (uintmax_t)count);
    if (!(g->values = calloc((size_t)count + 1, sizeof *g->values)))
        return gemma4_fail(error, "%s: out of memory", g->mapped.path);
    c->part = "metadata";
    c->of = (size_t)count;
    for (c->number = 0; c->number < count; c->number++) {
        g->value_count++; /* before it is read: a key that was copied is freed, whatever follows */
        if (take_value(c, &g->values[c->number], error))
            return -1;
    }
    qsort(g->values, g->value_count, sizeof *g->values, compare_keys);
    for (size_t i = 1; i < g->value_count; i++)
        if (!strcmp(g->values[i - 1].key, g->values[i].key))
            return gemma4_fail(error, "%s: %s: expected every key once, found it twice",
                               g->mapped.path, g->values[i].key);
    return 0;
}

/* --- tensors --- */

static int take_shape(cursor *c, gemma4_gguf_tensor *tensor, gemma4_error *error)
{
    uint64_t rank, length;
    char text[MAX_NAME + 120];
    if (take(c, 4, &rank, error))
        return -1;
    snprintf(text, sizeof text, "%s: expected 1 to %d axes, none of them empty, found others",
             tensor->name, GEMMA4_GGUF_MAX_RANK);
    if (rank < 1 || rank > GEMMA4_GGUF_MAX_RANK)
        return fail_at(c, error, text);
    tensor->rank = (size_t)rank;
    for (size_t i = tensor->rank; i-- > 0;) {
        if (take(c, 8, &length, error))
            return -1;
        if (length == 0 || length > INT64_MAX)
            return fail_at(c, error, text);
        tensor->shape[i] = (size_t)length;
    }
    return 0;
}

/* Bytes of the tensor's blocks: a row is whole blocks. */
static int set_size(cursor *c, gemma4_gguf_tensor *tensor, gemma4_error *error)
{
    const gemma4_block_type *type = tensor->type;
    char text[MAX_NAME + 160];
    size_t cols = tensor->shape[tensor->rank - 1];
    bool overflow = __builtin_mul_overflow(cols / type->values, type->bytes, &tensor->size);
    for (size_t i = 0; i + 1 < tensor->rank; i++)
        overflow |= __builtin_mul_overflow(tensor->size, tensor->shape[i], &tensor->size);
    if (cols % type->values == 0 && !overflow)
        return 0;
    if (overflow)
        snprintf(text, sizeof text,
                 "%s: expected a shape that fits into memory, found one that overflows",
                 tensor->name);
    else
        snprintf(text, sizeof text,
                 "%s: expected rows of a multiple of %zu values, as %s has them, found %zu",
                 tensor->name, type->values, type->name, cols);
    return fail_at(c, error, text);
}

static int fail_type(const cursor *c, const char *name, uint64_t id, gemma4_error *error)
{
    char text[MAX_NAME + 400];
    size_t length = (size_t)snprintf(text, sizeof text, "%s: expected a type among", name);
    for (size_t i = 0; gemma4_block_type_at(i); i++)
        length += (size_t)snprintf(text + length, sizeof text - length, "%s %s", i ? "," : "",
                                   gemma4_block_type_at(i)->name);
    snprintf(text + length, sizeof text - length, "; found number %ju", (uintmax_t)id);
    return fail_at(c, error, text);
}

/* data is for now the offset in the tensors' data. */
static int take_tensor(cursor *c, gemma4_gguf_tensor *tensor, uint64_t *offset, gemma4_error *error)
{
    uint64_t id;
    if (take_name(c, &tensor->name, error) || take_shape(c, tensor, error) ||
        take(c, 4, &id, error) || take(c, 8, offset, error))
        return -1;
    tensor->type = gemma4_block_type_of((uint32_t)id);
    return tensor->type ? set_size(c, tensor, error) : fail_type(c, tensor->name, id, error);
}

/* general.alignment: a power of two. Below 8 an element could lie across its own alignment. */
static int read_alignment(const gemma4_gguf *g, size_t *alignment, gemma4_error *error)
{
    const gemma4_gguf_value *value = gemma4_gguf_get(g, "general.alignment");
    int64_t number = DEFAULT_ALIGNMENT;
    if (value && gemma4_gguf_integer(g, value, 0, 8, 1 << 20, &number, error))
        return -1;
    if (number & (number - 1))
        return gemma4_gguf_fail(g, value, "a power of two", error);
    *alignment = (size_t)number;
    return 0;
}

static int compare_places(const void *a, const void *b)
{
    const gemma4_gguf_tensor *x = a, *y = b;
    return x->data < y->data ? -1 : x->data > y->data;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const gemma4_gguf_tensor *)a)->name, ((const gemma4_gguf_tensor *)b)->name);
}

/* No two tensors share a byte, or a name. Leaves them sorted by name. */
static int check_tensors(gemma4_gguf *g, gemma4_error *error)
{
    qsort(g->tensors, g->tensor_count, sizeof *g->tensors, compare_places);
    for (size_t i = 1; i < g->tensor_count; i++)
        if (g->tensors[i - 1].data + g->tensors[i - 1].size > g->tensors[i].data)
            return gemma4_fail(error, "%s: %s: expected data of its own, found an overlap with %s",
                               g->mapped.path, g->tensors[i].name, g->tensors[i - 1].name);
    qsort(g->tensors, g->tensor_count, sizeof *g->tensors, compare_names);
    for (size_t i = 1; i < g->tensor_count; i++)
        if (!strcmp(g->tensors[i - 1].name, g->tensors[i].name))
            return gemma4_fail(error, "%s: %s: expected every tensor once, found it twice",
                               g->mapped.path, g->tensors[i].name);
    return 0;
}

/* Turns offsets into places: the data begin at the next multiple of the alignment after the
 * header. */
static int place_tensors(cursor *c, const uint64_t *offsets, size_t alignment, gemma4_error *error)
{
    gemma4_gguf *g = c->gguf;
    size_t header = (size_t)(c->at - g->mapped.bytes),
           begin = (header + alignment - 1) / alignment * alignment;
    size_t size = begin < g->mapped.size ? g->mapped.size - begin : 0;
    for (size_t i = 0; i < g->tensor_count; i++) {
        gemma4_gguf_tensor *tensor = &g->tensors[i];
        if (offsets[i] % alignment)
            return gemma4_fail(
                error, "%s: %s: expected data at a multiple of %zu bytes, found the offset %ju",
                g->mapped.path, tensor->name, alignment, (uintmax_t)offsets[i]);
        if (offsets[i] > size || tensor->size > size - offsets[i])
            return gemma4_fail(error,
                               "%s: %s: expected %zu bytes of data from offset %ju, found a file "
                               "with %zu bytes of data",
                               g->mapped.path, tensor->name, tensor->size, (uintmax_t)offsets[i],
                               size);
        tensor->data = g->mapped.bytes + begin + offsets[i];
    }
    return check_tensors(g, error);
}

static int take_tensors(cursor *c, uint64_t count, uint64_t *offsets, gemma4_error *error)
{
    gemma4_gguf *g = c->gguf;
    size_t alignment = 0;
    c->part = "tensor";
    c->of = (size_t)count;
    for (c->number = 0; c->number < count; c->number++) {
        g->tensor_count++;
        if (take_tensor(c, &g->tensors[c->number], &offsets[c->number], error))
            return -1;
    }
    return read_alignment(g, &alignment, error) || place_tensors(c, offsets, alignment, error) ? -1
                                                                                               : 0;
}

/* --- the file --- */

static int check_magic(const cursor *c, uint64_t magic, uint64_t version, gemma4_error *error)
{
    const char *path = c->gguf->mapped.path;
    if (magic != 0x46554747) /* "GGUF" */
        return gemma4_fail(
            error,
            "%s: expected a folder with config.json, or a GGUF file, found a file of another kind",
            path);
    if ((version & 0xffff) == 0)
        return gemma4_fail(error, "%s: expected a little-endian GGUF file, found a big-endian one",
                           path);
    if (version != 2 && version != 3)
        return gemma4_fail(error, "%s: expected GGUF version 2 or 3, found %ju", path,
                           (uintmax_t)version);
    return 0;
}

static int read_file(gemma4_gguf *g, const char *path, gemma4_error *error)
{
    uint64_t magic, version, tensors, values, *offsets;
    if (gemma4_mapped_file_open(&g->mapped, path, error))
        return -1;
    if (g->mapped.size < HEADER_BYTES)
        return gemma4_fail(error,
                           "%s: expected a folder with config.json, or a GGUF file of at least %d "
                           "bytes, found %zu bytes",
                           g->mapped.path, HEADER_BYTES, g->mapped.size);
#ifdef MADV_HUGEPAGE
    /* a wish, as for safetensors */
    (void)madvise((void *)g->mapped.bytes, g->mapped.size, MADV_HUGEPAGE);
#endif
    cursor c = {.gguf = g, .at = g->mapped.bytes, .part = "header", .of = 1};
    if (take(&c, 4, &magic, error) || take(&c, 4, &version, error) ||
        check_magic(&c, magic, version, error) || take(&c, 8, &tensors, error) ||
        take(&c, 8, &values, error) || take_values(&c, values, error))
        return -1;
    if (tensors > MAX_TENSORS)
        return gemma4_fail(error, "%s: expected at most %d tensors, found a count of %ju",
                           g->mapped.path, MAX_TENSORS, (uintmax_t)tensors);
    g->tensors = calloc((size_t)tensors + 1, sizeof *g->tensors);
    offsets = calloc((size_t)tensors + 1, sizeof *offsets);
    int status = g->tensors && offsets ? take_tensors(&c, tensors, offsets, error)
                                       : gemma4_fail(error, "%s: out of memory", g->mapped.path);
    free(offsets);
    return status;
}

gemma4_gguf *gemma4_gguf_open(const char *path, gemma4_error *error)
{
    gemma4_gguf *g = calloc(1, sizeof *g);
    if (!g) {
        gemma4_fail(error, "%s: out of memory", path);
        return NULL;
    }
    if (read_file(g, path, error)) {
        gemma4_gguf_close(g);
        return NULL;
    }
    return g;
}

void gemma4_gguf_close(gemma4_gguf *g)
{
    if (!g)
        return;
    for (size_t i = 0; i < g->value_count; i++)
        free(g->values[i].key);
    for (size_t i = 0; i < g->tensor_count; i++)
        free(g->tensors[i].name);
    free(g->values);
    free(g->tensors);
    gemma4_mapped_file_close(&g->mapped);
    free(g);
}

const gemma4_gguf_tensor *gemma4_gguf_find(const gemma4_gguf *g, const char *name)
{
    gemma4_gguf_tensor key = {.name = (char *)name};
    return bsearch(&key, g->tensors, g->tensor_count, sizeof *g->tensors, compare_names);
}

const gemma4_gguf_value *gemma4_gguf_get(const gemma4_gguf *g, const char *name)
{
    gemma4_gguf_value key = {.key = (char *)name};
    return bsearch(&key, g->values, g->value_count, sizeof *g->values, compare_keys);
}
