/* A memory-mapped GGUF file: llama.cpp's, version 2 or 3, little-endian (spec/gguf.md).
 *
 * Magic, version, counts, metadata (key, type, value), the tensors' names, shapes, types and
 * offsets, then their data. All of it is checked before a byte of data is used. Nothing but keys
 * and names is copied: tensors point into the mapping.
 * https://github.com/ggml-org/ggml/blob/master/docs/gguf.md */
#ifndef GEMMA4_GGUF_H
#define GEMMA4_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

#define GEMMA4_GGUF_MAX_RANK 4

/* The format's own numbers. */
typedef enum gemma4_gguf_kind {
    GEMMA4_GGUF_UINT8,
    GEMMA4_GGUF_INT8,
    GEMMA4_GGUF_UINT16,
    GEMMA4_GGUF_INT16,
    GEMMA4_GGUF_UINT32,
    GEMMA4_GGUF_INT32,
    GEMMA4_GGUF_FLOAT32,
    GEMMA4_GGUF_BOOL,
    GEMMA4_GGUF_STRING,
    GEMMA4_GGUF_ARRAY,
    GEMMA4_GGUF_UINT64,
    GEMMA4_GGUF_INT64,
    GEMMA4_GGUF_FLOAT64,
    GEMMA4_GGUF_KINDS
} gemma4_gguf_kind;

typedef struct gemma4_gguf_value {
    char *key;
    gemma4_gguf_kind kind; /* an array's: its items' */
    bool is_array;
    size_t count;              /* 1 where it is no array */
    const unsigned char *data; /* the first item, not aligned; a string is its length in 8 bytes,
                                  then its bytes */
} gemma4_gguf_value;

typedef struct gemma4_block_type gemma4_block_type; /* blocks.h */

typedef struct gemma4_gguf_tensor {
    char *name;
    const gemma4_block_type *type;
    size_t rank, shape[GEMMA4_GGUF_MAX_RANK]; /* the outermost axis first, as elsewhere: the file
                                                 has them the other way round */
    const unsigned char *data;                /* size bytes; aligned as the file says, at least to 8
                                                 bytes */
    size_t size;
} gemma4_gguf_tensor;

typedef struct gemma4_gguf gemma4_gguf;

/* NULL on failure. */
gemma4_gguf *gemma4_gguf_open(const char *path, gemma4_error *error);
void gemma4_gguf_close(gemma4_gguf *gguf);
const char *gemma4_gguf_path(const gemma4_gguf *gguf);
/* Bytes of the file. */
size_t gemma4_gguf_size(const gemma4_gguf *gguf);

/* Sorted by name. */
size_t gemma4_gguf_tensor_count(const gemma4_gguf *gguf);
const gemma4_gguf_tensor *gemma4_gguf_tensor_at(const gemma4_gguf *gguf, size_t index);
/* NULL where there is none of that name. */
const gemma4_gguf_tensor *gemma4_gguf_find(const gemma4_gguf *gguf, const char *name);

/* Metadata, sorted by key. */
size_t gemma4_gguf_value_count(const gemma4_gguf *gguf);
const gemma4_gguf_value *gemma4_gguf_value_at(const gemma4_gguf *gguf, size_t index);
/* NULL where there is no such key. */
const gemma4_gguf_value *gemma4_gguf_get(const gemma4_gguf *gguf, const char *key);

/* Item `index` of a value as an integer in [low, high] (booleans are 0 and 1), or as a finite
 * number. Another kind, and one that is out of range, is an error that names the key. */
int gemma4_gguf_integer(const gemma4_gguf *gguf, const gemma4_gguf_value *value, size_t index,
                        int64_t low, int64_t high, int64_t *number, gemma4_error *error);
int gemma4_gguf_number(const gemma4_gguf *gguf, const gemma4_gguf_value *value, size_t index,
                       double *number, gemma4_error *error);
/* Whether it is this one string. */
bool gemma4_gguf_is_string(const gemma4_gguf_value *value, const char *text);
/* "FILE: KEY: expected WHAT, found ..." Returns -1. */
int gemma4_gguf_fail(const gemma4_gguf *gguf, const gemma4_gguf_value *value, const char *what,
                     gemma4_error *error);

#endif
