/* Writes an activation file that gemma4-check reads, in safetensors form. One file, C99 and C++, no
 * dependencies: copy it into your engine.
 *
 *     #define GEMMA4_DUMP_IMPLEMENTATION   // in one source file, before the include
 *     #include "gemma4_dump.h"
 *
 *     gemma4_dump *dump = gemma4_dump_new("mine.safetensors", "my-engine", "0.1", "float32");
 *     gemma4_dump_add(dump, "tokens", GEMMA4_DUMP_I32, T, 1, tokens);
 *     gemma4_dump_add(dump, "layers.0.output", GEMMA4_DUMP_F32, T, hidden_size, values); //
 *     position after position gemma4_dump_add(dump, "logits", GEMMA4_DUMP_F32, T, vocabulary,
 *     logits);
 *     if (gemma4_dump_write(dump))
 *         fprintf(stderr, "%s\n", gemma4_dump_error(dump));
 *     gemma4_dump_free(dump);
 *
 * Names and values: spec/taps.md. Adding to a name again appends positions, as a prefill in chunks
 * or decoding does. Everything is copied and kept in memory until it is written. After an error
 * every call does nothing, and gemma4_dump_write fails: checking that one is enough. Not for
 * several threads at once; machines that store the lowest byte first. */
#ifndef GEMMA4_DUMP_H
#define GEMMA4_DUMP_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum gemma4_dump_type {
    GEMMA4_DUMP_F32,
    GEMMA4_DUMP_F16,
    GEMMA4_DUMP_BF16,
    GEMMA4_DUMP_I32
} gemma4_dump_type;

typedef struct gemma4_dump gemma4_dump;

/* dtype is the type of your arithmetic, which decides how much rounding is expected: "float32",
 * "bfloat16", "float16", "q8_0", "q4_0". NULL when out of memory. */
gemma4_dump *gemma4_dump_new(const char *path, const char *engine, const char *engine_version,
                             const char *dtype);

/* Another attribute of spec/activations.md: "case", "schedule", "kv_dtype" ... Returns 0, or -1 on
 * failure. */
int gemma4_dump_attribute(gemma4_dump *dump, const char *name, const char *text);

/* Appends rows positions of width values each: all axes behind the position's in one, [H, D] as H *
 * D, head by head. Returns 0, or -1 on failure. */
int gemma4_dump_add(gemma4_dump *dump, const char *name, gemma4_dump_type type, size_t rows,
                    size_t width, const void *values);

/* Says which positions the rows of a tensor are, where they are not all: count indices into the
 * tokens. Returns 0, or -1 on failure. */
int gemma4_dump_rows(gemma4_dump *dump, const char *name, const int *positions, size_t count);

/* Writes the file, under a temporary name first. Returns 0, or -1 on failure: then there is no such
 * file. */
int gemma4_dump_write(gemma4_dump *dump);

/* What went wrong first; "" for nothing. */
const char *gemma4_dump_error(const gemma4_dump *dump);
void gemma4_dump_free(gemma4_dump *dump);

#ifdef __cplusplus
}
#endif

#endif /* GEMMA4_DUMP_H */

#ifdef GEMMA4_DUMP_IMPLEMENTATION

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "gemma4_dump.h: safetensors stores the lowest byte first, this machine does not"
#endif

typedef struct gemma4_dump_tensor {
    char *name;
    gemma4_dump_type type;
    size_t rows, width, bytes, capacity;
    char *data;
} gemma4_dump_tensor;

typedef struct gemma4_dump_text {
    char *name, *text;
} gemma4_dump_text;

struct gemma4_dump {
    char *path, error[200];
    gemma4_dump_tensor *tensors;
    size_t tensor_count;
    gemma4_dump_text *attributes;
    size_t attribute_count;
};

static int gemma4_dump_fail(gemma4_dump *dump, const char *name, const char *what)
{
    if (dump && !dump->error[0])
        snprintf(dump->error, sizeof dump->error, "%.80s: %s", name, what);
    return -1;
}

static char *gemma4_dump_copy(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = (char *)malloc(size);
    return copy ? (char *)memcpy(copy, text, size) : NULL;
}

gemma4_dump *gemma4_dump_new(const char *path, const char *engine, const char *engine_version,
                             const char *dtype)
{
    gemma4_dump *dump = (gemma4_dump *)calloc(1, sizeof *dump);
    if (dump)
        dump->path = gemma4_dump_copy(path);
    if (!dump || !dump->path || gemma4_dump_attribute(dump, "format", "gemma4-activations") ||
        gemma4_dump_attribute(dump, "format_version", "1") ||
        gemma4_dump_attribute(dump, "engine", engine) ||
        gemma4_dump_attribute(dump, "engine_version", engine_version) ||
        gemma4_dump_attribute(dump, "dtype", dtype)) {
        gemma4_dump_free(dump);
        return NULL;
    }
    return dump;
}

int gemma4_dump_attribute(gemma4_dump *dump, const char *name, const char *text)
{
    gemma4_dump_text *more;
    size_t i;
    if (!dump || dump->error[0])
        return -1;
    for (i = 0; i < dump->attribute_count; i++)
        if (!strcmp(dump->attributes[i].name, name))
            return gemma4_dump_fail(dump, name, "this attribute is there already");
    more =
        (gemma4_dump_text *)realloc(dump->attributes, (dump->attribute_count + 1) * sizeof *more);
    if (!more)
        return gemma4_dump_fail(dump, name, "out of memory");
    dump->attributes = more;
    more += dump->attribute_count++;
    more->name = gemma4_dump_copy(name);
    more->text = gemma4_dump_copy(text);
    return more->name && more->text ? 0 : gemma4_dump_fail(dump, name, "out of memory");
}

static gemma4_dump_tensor *gemma4_dump_find(gemma4_dump *dump, const char *name)
{
    size_t i;
    for (i = 0; i < dump->tensor_count; i++)
        if (!strcmp(dump->tensors[i].name, name))
            return &dump->tensors[i];
    return NULL;
}

static gemma4_dump_tensor *gemma4_dump_begin(gemma4_dump *dump, const char *name,
                                             gemma4_dump_type type, size_t width)
{
    gemma4_dump_tensor *more =
        (gemma4_dump_tensor *)realloc(dump->tensors, (dump->tensor_count + 1) * sizeof *more);
    if (!more)
        return NULL;
    dump->tensors = more;
    more += dump->tensor_count;
    memset(more, 0, sizeof *more);
    more->type = type;
    more->width = width;
    more->name = gemma4_dump_copy(name);
    if (!more->name)
        return NULL;
    dump->tensor_count++;
    return more;
}

static size_t gemma4_dump_size(gemma4_dump_type type)
{
    return type == GEMMA4_DUMP_F32 || type == GEMMA4_DUMP_I32 ? 4 : 2;
}

int gemma4_dump_add(gemma4_dump *dump, const char *name, gemma4_dump_type type, size_t rows,
                    size_t width, const void *values)
{
    const size_t most = (size_t)-1 / 4;
    gemma4_dump_tensor *t;
    size_t bytes;
    if (!dump || dump->error[0])
        return -1;
    if (rows == 0 || width == 0 || width > most / rows)
        return gemma4_dump_fail(dump, name, "a shape without values, or too large");
    bytes = rows * width * gemma4_dump_size(type);
    t = gemma4_dump_find(dump, name);
    if (t && (t->type != type || t->width != width))
        return gemma4_dump_fail(dump, name, "another type or width than before");
    if (!t)
        t = gemma4_dump_begin(dump, name, type, width);
    if (!t || bytes > most - t->bytes)
        return gemma4_dump_fail(dump, name, "out of memory");
    if (t->bytes + bytes > t->capacity) {
        size_t capacity = t->bytes + bytes > 2 * t->capacity ? t->bytes + bytes : 2 * t->capacity;
        char *data = (char *)realloc(t->data, capacity);
        if (!data)
            return gemma4_dump_fail(dump, name, "out of memory");
        t->data = data;
        t->capacity = capacity;
    }
    memcpy(t->data + t->bytes, values, bytes);
    t->bytes += bytes;
    t->rows += rows;
    return 0;
}

int gemma4_dump_rows(gemma4_dump *dump, const char *name, const int *positions, size_t count)
{
    size_t i, used = 0, size = 12 * count + 1;
    char *text, key[256];
    int status;
    if (!dump || dump->error[0])
        return -1;
    if (strlen(name) + 6 > sizeof key)
        return gemma4_dump_fail(dump, name, "a name that is too long");
    text = (char *)malloc(size);
    if (!text)
        return gemma4_dump_fail(dump, name, "out of memory");
    text[0] = '\0';
    for (i = 0; i < count; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%d", i ? "," : "", positions[i]);
    snprintf(key, sizeof key, "%s.rows", name);
    status = gemma4_dump_attribute(dump, key, text);
    free(text);
    return status;
}

/* A JSON string. */
static void gemma4_dump_string(FILE *f, const char *text)
{
    const unsigned char *c;
    fputc('"', f);
    for (c = (const unsigned char *)text; *c; c++)
        if (*c < 0x20)
            fprintf(f, "\\u%04x", *c);
        else
            fprintf(f, *c == '"' || *c == '\\' ? "\\%c" : "%c", *c);
    fputc('"', f);
}

static void gemma4_dump_header(FILE *f, const gemma4_dump *dump)
{
    static const char *const types[] = {"F32", "F16", "BF16", "I32"};
    size_t i, offset = 0;
    fputs("{\"__metadata__\":{", f);
    for (i = 0; i < dump->attribute_count; i++) {
        fputs(i ? "," : "", f);
        gemma4_dump_string(f, dump->attributes[i].name);
        fputc(':', f);
        gemma4_dump_string(f, dump->attributes[i].text);
    }
    fputc('}', f);
    for (i = 0; i < dump->tensor_count; i++) {
        const gemma4_dump_tensor *t = &dump->tensors[i];
        fputc(',', f);
        gemma4_dump_string(f, t->name);
        fprintf(f, ":{\"dtype\":\"%s\",\"shape\":[%lu", types[t->type], (unsigned long)t->rows);
        /* these have no second axis */
        if (strcmp(t->name, "tokens") && strcmp(t->name, "positions"))
            fprintf(f, ",%lu", (unsigned long)t->width);
        fprintf(f, "],\"data_offsets\":[%lu,%lu]}", (unsigned long)offset,
                (unsigned long)(offset + t->bytes));
        offset += t->bytes;
    }
    fputc('}', f);
}

/* The header's length, which is only known when it is written, goes in front of it. */
static int gemma4_dump_file(FILE *f, const gemma4_dump *dump)
{
    unsigned char length[8] = {0};
    size_t i, size;
    long end;
    fwrite(length, 1, sizeof length, f);
    gemma4_dump_header(f, dump);
    while ((end = ftell(f)) > 0 && end % 8)
        fputc(' ', f);
    size = (size_t)end - sizeof length;
    for (i = 0; i < dump->tensor_count; i++)
        fwrite(dump->tensors[i].data, 1, dump->tensors[i].bytes, f);
    for (i = 0; i < sizeof length; i++)
        length[i] = (unsigned char)((unsigned long long)size >> (8 * i));
    if (end <= 0 || fseek(f, 0, SEEK_SET))
        return -1;
    fwrite(length, 1, sizeof length, f);
    return ferror(f) ? -1 : 0;
}

int gemma4_dump_write(gemma4_dump *dump)
{
    char *temporary;
    FILE *f;
    int bad;
    if (!dump || dump->error[0])
        return -1;
    temporary = (char *)malloc(strlen(dump->path) + 5);
    if (!temporary)
        return gemma4_dump_fail(dump, dump->path, "out of memory");
    strcpy(temporary, dump->path);
    strcat(temporary, ".tmp");
    f = fopen(temporary, "wb");
    bad = f ? gemma4_dump_file(f, dump) : -1;
    if (f && fclose(f))
        bad = -1;
    if (!bad && rename(temporary, dump->path))
        bad = -1;
    if (bad && f)
        remove(temporary);
    free(temporary);
    return bad ? gemma4_dump_fail(dump, dump->path, "cannot be written") : 0;
}

const char *gemma4_dump_error(const gemma4_dump *dump)
{
    return dump ? dump->error : "out of memory";
}

void gemma4_dump_free(gemma4_dump *dump)
{
    size_t i;
    if (!dump)
        return;
    for (i = 0; i < dump->tensor_count; i++) {
        free(dump->tensors[i].name);
        free(dump->tensors[i].data);
    }
    for (i = 0; i < dump->attribute_count; i++) {
        free(dump->attributes[i].name);
        free(dump->attributes[i].text);
    }
    free(dump->tensors);
    free(dump->attributes);
    free(dump->path);
    free(dump);
}

#endif /* GEMMA4_DUMP_IMPLEMENTATION */
