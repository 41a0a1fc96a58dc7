/* ggml's tensor types, as they lie in GGUF files (spec/gguf.md): values in blocks, each a few bits
 * a value and the numbers that scale them. Definitions:
 * https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h and ggml-quants.c beside
 * it. */
#ifndef GEMMA4_BLOCKS_H
#define GEMMA4_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

#include "dtype.h"

/* The most values of a block. */
#define GEMMA4_BLOCK_VALUES 256

typedef struct gemma4_block_type {
    uint32_t id;          /* ggml's number for it */
    const char *name;     /* and name: "Q4_K" */
    size_t values, bytes; /* of one block */
    gemma4_dtype dtype;   /* of a block of one value: as which it can be read where it lies; else
                             GEMMA4_QUANTISED */
    /* out: the block's values, bit for bit what ggml computes in float32. block need not be
     * aligned. */
    void (*decode)(float *out, const unsigned char *block);
} gemma4_block_type;

/* NULL where this library does not know the type. */
const gemma4_block_type *gemma4_block_type_of(uint32_t id);
/* All types, by index from 0; NULL after the last. */
const gemma4_block_type *gemma4_block_type_at(size_t index);

#endif
