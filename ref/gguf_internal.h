/* What the two files of the GGUF reader share. */
#ifndef GEMMA4_GGUF_INTERNAL_H
#define GEMMA4_GGUF_INTERNAL_H

#include "gguf.h"
#include "mapped_file.h"

struct gemma4_gguf {
    gemma4_mapped_file mapped;
    size_t value_count, tensor_count;
    gemma4_gguf_value *values;   /* sorted by key */
    gemma4_gguf_tensor *tensors; /* sorted by name */
};

#endif
