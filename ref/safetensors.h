/* Memory-mapped safetensors files: one model.safetensors, or shards named by
 * model.safetensors.index.json.
 *
 * The file is an 8-byte little-endian header length, a JSON header {name: {dtype, shape,
 * data_offsets}}, then the data. All of it is checked before a byte of data is used. Nothing is
 * copied: tensors point into the mapping. */
#ifndef GEMMA4_SAFETENSORS_H
#define GEMMA4_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "dtype.h"
#include "error.h"

#define GEMMA4_MAX_RANK 8

typedef struct gemma4_tensor {
    const char *name;
    const char *file; /* the path of the file that holds it, for messages */
    gemma4_dtype dtype;
    char dtype_name[16];
    size_t rank, shape[GEMMA4_MAX_RANK];
    const void *data; /* size bytes inside the mapping, aligned to the element size;
                         little-endian */
    size_t size;
} gemma4_tensor;

typedef struct gemma4_safetensors gemma4_safetensors;

/* One file. */
gemma4_safetensors *gemma4_safetensors_open(const char *path, gemma4_error *error);
/* The checkpoint in a directory: model.safetensors.index.json and its shards where that exists,
 * else model.safetensors. A tensor that the index places elsewhere than where it is, one that it
 * does not name, and one that stands in two shards are errors. */
gemma4_safetensors *gemma4_safetensors_open_checkpoint(const char *directory, gemma4_error *error);
void gemma4_safetensors_close(gemma4_safetensors *files);

size_t gemma4_safetensors_count(const gemma4_safetensors *files);
const gemma4_tensor *gemma4_safetensors_at(const gemma4_safetensors *files, size_t index);
/* NULL where there is none of that name. */
const gemma4_tensor *gemma4_safetensors_find(const gemma4_safetensors *files, const char *name);
/* A value of the header's __metadata__, or NULL (one file only). */
const char *gemma4_safetensors_metadata(const gemma4_safetensors *files, const char *key);

#endif
