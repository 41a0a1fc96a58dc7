/* GGUF files made by hand: one that holds golden/checkpoints/tiny under llama.cpp's names, and what
 * a test changes in it. */
#ifndef GEMMA4_TEST_GGUF_MAKER_H
#define GEMMA4_TEST_GGUF_MAKER_H

#include <stdint.h>

#include "model.h"

enum { GGUF_MAKER_ITEMS = 512, GGUF_MAKER_VALUE_BYTES = 1024 };

typedef struct gguf_maker_value {
    char key[300];
    unsigned char bytes[GGUF_MAKER_VALUE_BYTES]; /* the type's number and what follows */
    size_t size;
} gguf_maker_value;

typedef struct gguf_maker_tensor {
    char name[300];
    uint32_t type, rank;
    uint64_t shape[8]; /* ggml's order: the innermost axis first */
    const void *data;  /* must stay valid until the file is written */
    size_t size;
    int64_t offset; /* -1: where it belongs */
} gguf_maker_tensor;

typedef struct gguf_maker {
    uint32_t magic, version;
    int64_t value_count, tensor_count; /* what the header says; -1: the truth */
    size_t values_used, tensors_used;
    gguf_maker_value values[GGUF_MAKER_ITEMS];
    gguf_maker_tensor tensors[GGUF_MAKER_ITEMS];
    size_t cut; /* bytes that the file lacks at its end */
} gguf_maker;

/* The tiny checkpoint in BF16 (valid until the program ends); its weights, whose order the tensors
 * follow, are model's. */
gguf_maker *gguf_maker_tiny(gemma4_model *model);
/* Empty, but for magic, version and architecture. */
gguf_maker *gguf_maker_empty(void);

gguf_maker_value *gguf_maker_find_value(gguf_maker *maker, const char *key);
gguf_maker_tensor *gguf_maker_find_tensor(gguf_maker *maker, const char *name);
/* Sets a key, a new one or one that is there. */
void gguf_maker_set_int(gguf_maker *maker, const char *key, uint32_t number);
void gguf_maker_set_float(gguf_maker *maker, const char *key, float number);
void gguf_maker_set_string(gguf_maker *maker, const char *key, const char *text);
/* items: count of item_size bytes each, of that GGUF type. */
void gguf_maker_set_array(gguf_maker *maker, const char *key, uint32_t type, const void *items,
                          size_t count, size_t item_size);
void gguf_maker_add_tensor(gguf_maker *maker, const char *name, uint32_t type, uint32_t rank,
                           const uint64_t *shape, const void *data, size_t size);
void gguf_maker_remove_tensor(gguf_maker *maker, const char *name);

/* Writes the file; a failure fails the test. */
void gguf_maker_write(const gguf_maker *maker, const char *path);

#endif
