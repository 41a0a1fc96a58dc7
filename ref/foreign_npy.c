/* NumPy arrays: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
 *
 * A magic, two bytes of version, the header's length (2 bytes; 4 from version 2 on), and the
 * header: a Python literal {'descr': '<f4', 'fortran_order': False, 'shape': (12, 64), }. Then the
 * elements, row-major. Nothing but these three keys is read, and an array of Python objects, which
 * are pickled, never. */
#include "foreign_internal.h"
#include "mapped_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC "\x93NUMPY"
enum { MAGIC_BYTES = 6, HEADER_MAX = 65536, RANK_MAX = 8, WORD_SIZE = 64 };

/* --- the literal --- */

typedef struct reader {
    const char *at, *end;
} reader;

static void skip_spaces(reader *r)
{
    while (r->at < r->end && strchr(" \t\r\n", *r->at) && *r->at)
        r->at++;
}

/* Takes that character, after any spaces. */
static bool take(reader *r, char c)
{
    skip_spaces(r);
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

/* 'text', which may hold no escapes. */
static bool take_string(reader *r, char text[WORD_SIZE])
{
    skip_spaces(r);
    if (r->at == r->end || (*r->at != '\'' && *r->at != '"'))
        return false;
    char quote = *r->at++;
    size_t length = 0;
    for (; r->at < r->end && *r->at != quote && *r->at != '\\' && *r->at; r->at++)
        if (length + 1 < WORD_SIZE)
            text[length++] = *r->at;
    text[length] = '\0';
    return take(r, quote);
}

static bool take_word(reader *r, const char *word)
{
    size_t length = strlen(word);
    skip_spaces(r);
    if ((size_t)(r->end - r->at) < length || memcmp(r->at, word, length))
        return false;
    r->at += length;
    return true;
}

/* (), (12,) or (12, 64); rank is how many, of which RANK_MAX are kept. */
static bool take_shape(reader *r, size_t *rank, size_t shape[RANK_MAX])
{
    *rank = 0;
    if (!take(r, '('))
        return false;
    while (!take(r, ')')) {
        size_t value = 0, digits = 0;
        skip_spaces(r);
        for (; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++, digits++)
            if (!gemma4_size_product(value, 10, &value) ||
                __builtin_add_overflow(value, (size_t)(*r->at - '0'), &value))
                return false;
        if (!digits)
            return false;
        if (*rank < RANK_MAX)
            shape[*rank] = value;
        ++*rank;
        if (!take(r, ',')) {
            if (!take(r, ')'))
                return false;
            break;
        }
    }
    return true;
}

/* Types of fields ([('x', '<f4')]): what they are does not matter, only where they end. */
static bool skip_list(reader *r)
{
    char text[WORD_SIZE];
    int depth = 0;
    do {
        skip_spaces(r);
        if (r->at == r->end)
            return false;
        if (*r->at == '\'' || *r->at == '"') {
            if (!take_string(r, text))
                return false;
            continue;
        }
        depth += (*r->at == '[') + (*r->at == '(') - (*r->at == ']') - (*r->at == ')');
        r->at++;
    } while (depth > 0);
    return true;
}

typedef struct header {
    char descr[WORD_SIZE]; /* "" for a type of fields */
    bool fortran_order;
    size_t rank, shape[RANK_MAX];
} header;

static bool read_pair(reader *r, header *h, unsigned *seen)
{
    char key[WORD_SIZE];
    unsigned which;
    if (!take_string(r, key) || !take(r, ':'))
        return false;
    skip_spaces(r);
    if (!strcmp(key, "descr")) {
        which = 1;
        if (!(r->at < r->end && *r->at == '[' ? skip_list(r) : take_string(r, h->descr)))
            return false;
    } else if (!strcmp(key, "fortran_order")) {
        which = 2;
        h->fortran_order = take_word(r, "True");
        if (!h->fortran_order && !take_word(r, "False"))
            return false;
    } else {
        which = 4;
        if (strcmp(key, "shape") || !take_shape(r, &h->rank, h->shape))
            return false;
    }
    bool twice = *seen & which;
    *seen |= which;
    return !twice;
}

static bool read_literal(reader *r, header *h)
{
    unsigned seen = 0;
    if (!take(r, '{'))
        return false;
    while (!take(r, '}')) {
        if (!read_pair(r, h, &seen))
            return false;
        if (!take(r, ',')) {
            if (!take(r, '}'))
                return false;
            break;
        }
    }
    skip_spaces(r);
    return seen == 7 && r->at == r->end;
}

/* --- what it means --- */

/* "<f4": byte order, kind, size in bytes. size 0 where it has none. */
static gemma4_element element_of(const char *descr, size_t *size, bool *swapped)
{
    static const char kinds[] = "fiu";
    static const char *const names[] = {"float", "int", "uint"};
    const char *kind = descr[0] && strchr("<>|=", descr[0]) ? descr + 1 : descr,
               *known = *kind ? strchr(kinds, *kind) : NULL;
    char *end = NULL, name[WORD_SIZE];
    unsigned long bytes = *kind ? strtoul(kind + 1, &end, 10) : 0;
    *size = end && *end == '\0' && bytes <= 4096 ? bytes : 0;
    *swapped = descr[0] == '>' && bytes > 1;
    if (!known || *size == 0)
        return GEMMA4_ELEMENT_NONE;
    snprintf(name, sizeof name, "%s%zu", names[known - kinds], *size * 8);
    return gemma4_element_named(name);
}

static void say_problem(const header *h, gemma4_npy *npy)
{
    const char *kind = h->descr[0] && strchr("<>|=", h->descr[0]) ? h->descr + 1 : h->descr;
    char *problem = npy->problem;
    if (npy->rank > RANK_MAX)
        snprintf(problem, sizeof npy->problem, "expected at most %d axes, found %zu", RANK_MAX,
                 npy->rank);
    else if (*kind == 'O')
        snprintf(problem, sizeof npy->problem,
                 "expected numbers, found an array of Python objects, which are pickled: save it "
                 "with numbers as dtype");
    else if (!h->descr[0])
        snprintf(problem, sizeof npy->problem, "expected numbers, found a type of several fields");
    else if (npy->element == GEMMA4_ELEMENT_NONE)
        snprintf(problem, sizeof npy->problem,
                 "expected float16, float32, float64 or integers, found the type '%.20s'%s",
                 h->descr,
                 !strcmp(kind, "V2") ? ": where these are bfloat16, let the map say dtype: bfloat16"
                                     : "");
    else if (h->fortran_order && npy->rank > 1)
        snprintf(
            problem, sizeof npy->problem,
            "expected row-major data, found Fortran order: save numpy.ascontiguousarray of it");
    else if (npy->size == 0)
        snprintf(problem, sizeof npy->problem, "expected values, found an empty array");
}

/* The data's size by shape and type must be what there is. */
static int check_size(const header *h, size_t element_size, size_t total, const char *place,
                      gemma4_npy *npy, gemma4_error *error)
{
    size_t size = element_size, found = total - npy->data;
    bool empty = false;
    for (size_t i = 0; i < npy->rank && i < RANK_MAX; i++)
        empty |= h->shape[i] == 0;
    for (size_t i = 0; i < npy->rank && i < RANK_MAX && !empty; i++)
        if (!gemma4_size_product(size, h->shape[i], &size))
            return gemma4_fail(
                error, "%s: expected a shape that fits the file, found one too large", place);
    npy->size = empty ? 0 : size;
    return npy->size == found
               ? 0
               : gemma4_fail(error, "%s: expected %zu bytes by shape and type, found %zu", place,
                             npy->size, found);
}

int gemma4_npy_header(const unsigned char *bytes, size_t size, size_t total, const char *place,
                      gemma4_npy *npy, gemma4_error *error)
{
    header h = {.rank = 0};
    size_t element_size;
    *npy = (gemma4_npy){0};
    if (size < MAGIC_BYTES + 4 || memcmp(bytes, MAGIC, MAGIC_BYTES))
        return gemma4_fail(
            error, "%s: expected a NumPy array, which begins with \\x93NUMPY, found other bytes",
            place);
    if (bytes[6] < 1 || bytes[6] > 3)
        return gemma4_fail(error, "%s: expected version 1 to 3 of the format, found %d", place,
                           bytes[6]);
    size_t width = bytes[6] == 1 ? 2 : 4, length = 0;
    for (size_t i = 0; i < width && MAGIC_BYTES + 2 + i < size; i++)
        length |= (size_t)bytes[MAGIC_BYTES + 2 + i] << (8 * i);
    npy->data = MAGIC_BYTES + 2 + width + length;
    if (length > HEADER_MAX || npy->data > size || npy->data > total)
        return gemma4_fail(
            error,
            "%s: expected a header of at most %d bytes inside the array, found a length of %zu",
            place, HEADER_MAX, length);
    reader r = {(const char *)bytes + MAGIC_BYTES + 2 + width, (const char *)bytes + npy->data};
    if (!read_literal(&r, &h))
        return gemma4_fail(
            error, "%s: expected a header with descr, fortran_order and shape, found another: %.*s",
            place, (int)(length < 120 ? length : 120),
            (const char *)bytes + MAGIC_BYTES + 2 + width);
    npy->element = element_of(h.descr, &element_size, &npy->swapped);
    /* what numpy makes of ml_dtypes' bfloat16 */
    npy->bits_16 = !strcmp(h.descr, "|V2") || !strcmp(h.descr, "<V2");
    npy->rank = h.rank;
    memcpy(npy->shape, h.shape, sizeof npy->shape);
    bool checkable = element_size && h.rank <= RANK_MAX && !strchr(h.descr, 'O') && h.descr[0];
    if (checkable && check_size(&h, element_size, total, place, npy, error))
        return -1;
    say_problem(&h, npy);
    return 0;
}

void gemma4_npy_describe(const gemma4_npy *npy, gemma4_stored_tensor *stored)
{
    stored->element = npy->element;
    stored->bits_16 = npy->bits_16;
    stored->rank = npy->rank <= RANK_MAX ? npy->rank : 0;
    memcpy(stored->shape, npy->shape, sizeof stored->shape);
    snprintf(stored->problem, sizeof stored->problem, "%s", npy->problem);
}

static void swap_bytes(unsigned char *elements, size_t size, size_t count)
{
    for (size_t i = 0; i < count; i++, elements += size)
        for (size_t b = 0; b < size / 2; b++) {
            unsigned char byte = elements[b];
            elements[b] = elements[size - 1 - b];
            elements[size - 1 - b] = byte;
        }
}

void gemma4_npy_copy(const gemma4_npy *npy, const unsigned char *bytes,
                     const gemma4_stored_tensor *stored, const size_t *start, const size_t *extent,
                     void *elements)
{
    size_t size = gemma4_element_describe(stored->element)->size, count = 1;
    gemma4_copy_block(bytes + npy->data, size, npy->rank, npy->shape, start, extent, elements);
    for (size_t i = 0; i < npy->rank; i++)
        count *= extent[i];
    if (npy->swapped)
        swap_bytes(elements, size, count);
}

/* --- one array in a file --- */

typedef struct npy_state {
    gemma4_mapped_file file;
    gemma4_npy npy;
    char name[GEMMA4_STORED_NAME_SIZE];
} npy_state;

static const char *npy_attribute(const void *state, const char *name)
{
    (void)state;
    (void)name;
    return NULL;
}

static int npy_list(void *context, const gemma4_config *config, gemma4_stored_list *list,
                    gemma4_error *error)
{
    npy_state *state = context;
    gemma4_stored_tensor *stored;
    if (gemma4_stored_add(list, config, state->name, &stored, error))
        return -1;
    if (stored)
        gemma4_npy_describe(&state->npy, stored);
    return 0;
}

static int npy_read(void *context, const gemma4_stored_tensor *stored, const size_t *start,
                    const size_t *extent, void *elements, gemma4_error *error)
{
    npy_state *state = context;
    (void)error;
    gemma4_npy_copy(&state->npy, state->file.bytes, stored, start, extent, elements);
    return 0;
}

static void npy_close(void *context)
{
    npy_state *state = context;
    gemma4_mapped_file_close(&state->file);
    free(state);
}

int gemma4_npy_open(const char *path, const char *name, gemma4_activation_source *source,
                    gemma4_error *error)
{
    npy_state *state = calloc(1, sizeof *state);
    if (!state || gemma4_mapped_file_open(&state->file, path, error)) {
        bool memory = !state;
        free(state);
        return memory ? gemma4_fail(error, "%s: out of memory", path) : -1;
    }
    *source = (gemma4_activation_source){state, npy_attribute, npy_list, npy_read, npy_close};
    if (snprintf(state->name, sizeof state->name, "%s", name) >= (int)sizeof state->name)
        gemma4_fail(error, "%s: expected names of at most %zu bytes, found a longer one", path,
                    sizeof state->name - 1);
    else if (gemma4_npy_header(state->file.bytes, state->file.size, state->file.size, path,
                               &state->npy, error) == 0)
        return 0;
    npy_close(state);
    *source = (gemma4_activation_source){0};
    return -1;
}
