/* Between the common door to activation files (activations.c) and what differs with the kind of file: an HDF5 or
 * safetensors source tells which tensors it holds and delivers their bytes; everything else happens behind the door. */
#ifndef GEMMA4_ACTIVATIONS_INTERNAL_H
#define GEMMA4_ACTIVATIONS_INTERNAL_H

#include "activations.h"

#define GEMMA4_ACTIVATIONS_FORMAT "gemma4-activations"
#define GEMMA4_ACTIVATIONS_VERSION 1
/* The longest root attribute that is read or written. */
#define GEMMA4_ATTRIBUTE_MAX_BYTES ((size_t)64 << 10)

/* X(id, name, size in bytes, real) */
#define GEMMA4_ELEMENTS(X)          \
    X(F16, "float16", 2, true)      \
    X(BF16, "bfloat16", 2, true)    \
    X(F32, "float32", 4, true)      \
    X(F64, "float64", 8, true)      \
    X(I8, "int8", 1, false)         \
    X(U8, "uint8", 1, false)        \
    X(I16, "int16", 2, false)       \
    X(U16, "uint16", 2, false)      \
    X(I32, "int32", 4, false)       \
    X(U32, "uint32", 4, false)      \
    X(I64, "int64", 8, false)       \
    X(U64, "uint64", 8, false)

/* The types of the elements that a file may hold; NONE where it holds something else. */
#define GEMMA4_ELEMENT_ENUM(id, name, size, real) GEMMA4_ELEMENT_##id,
typedef enum gemma4_element {
    GEMMA4_ELEMENT_NONE,
    GEMMA4_ELEMENTS(GEMMA4_ELEMENT_ENUM) GEMMA4_ELEMENT_COUNT
} gemma4_element;
#undef GEMMA4_ELEMENT_ENUM

typedef struct gemma4_element_info {
    const char *name;
    size_t size;
    bool real;
} gemma4_element_info;

const gemma4_element_info *gemma4_element_describe(gemma4_element element);
/* GEMMA4_ELEMENT_NONE where no element has that name. */
gemma4_element gemma4_element_named(const char *name);
/* count reals as float; float64 is rounded to nearest. elements are in host byte order and must not overlap values. */
void gemma4_element_to_float(gemma4_element element, const void *elements, size_t count, float *values);
/* One integer; a uint64 beyond int64 gives INT64_MAX, which no id may be. */
int64_t gemma4_element_to_int(gemma4_element element, const void *elements, size_t index);
/* The inverse of gemma4_element_to_float: each value rounded once, to nearest, ties to even; overflow gives infinity. */
void gemma4_element_from_real(gemma4_element element, const gemma4_real *values, size_t count, void *elements);

/* a * b, or false where the product does not fit. */
bool gemma4_size_product(size_t a, size_t b, size_t *product);

/* One tensor as the file declares it: a tap of the model, tokens or positions. Nothing here has been compared with the
 * config yet, so nothing may be allocated from shape. */
typedef struct gemma4_stored_tensor {
    char name[GEMMA4_TAP_NAME_SIZE]; /* "layers.5.attn.q_rope" in either kind of file */
    gemma4_element element;
    char problem[160];      /* why the values cannot be read; "" where they can */
    size_t rank, shape[8];  /* rank 0 where the file's is above 8, which problem then says */
    bool has_rows;          /* the attribute `rows`: */
    size_t row_count;
    int64_t *rows;          /* [row_count], unchecked */
    const void *tensor;     /* safetensors: its gemma4_tensor */
} gemma4_stored_tensor;

#define GEMMA4_UNKNOWN_MAX 512

typedef struct gemma4_stored_list {
    gemma4_stored_tensor *items;
    size_t count, capacity;
    char unknown[GEMMA4_UNKNOWN_MAX][256];
    size_t unknown_count; /* of all; only the first GEMMA4_UNKNOWN_MAX names are kept */
} gemma4_stored_list;

/* Makes room for the tensor of that name; *tensor is valid until the next call, and NULL where the name means nothing
 * for this model: it is then among the unknown ones. */
int gemma4_stored_add(gemma4_stored_list *list, const gemma4_config *config, const char *name,
                      gemma4_stored_tensor **tensor, gemma4_error *error);
void gemma4_stored_add_unknown(gemma4_stored_list *list, const char *name);

/* What a kind of file does. */
typedef struct gemma4_activation_source {
    void *state;
    /* The text of a root attribute or metadata entry, NULL where there is none. */
    const char *(*attribute)(const void *state, const char *name);
    int (*list)(void *state, const gemma4_config *config, gemma4_stored_list *list, gemma4_error *error);
    /* Copies rows first_row ... first_row + count - 1 to elements, in host byte order. The axes before row_axis have
     * length 1. The caller has checked the shape, the rows, and that elements has room. */
    int (*read)(void *state, const gemma4_stored_tensor *tensor, size_t row_axis, size_t first_row, size_t count,
                void *elements, gemma4_error *error);
    void (*close)(void *state);
} gemma4_activation_source;

typedef enum gemma4_activations_kind { GEMMA4_ACTIVATIONS_HDF5, GEMMA4_ACTIVATIONS_SAFETENSORS } gemma4_activations_kind;

/* Which of the two the file is, by its first bytes: at most 512 of them are looked at, and a pipe is not opened. Fails where it is neither:
 * the message then says what it is (a NumPy array, a checkpoint in GGUF, a folder ...) and what to do. */
int gemma4_activations_kind_of(const char *path, gemma4_activations_kind *kind, gemma4_error *error);

int gemma4_activations_hdf5_open(const char *path, gemma4_activation_source *source, gemma4_error *error);
int gemma4_activations_safetensors_open(const char *path, gemma4_activation_source *source, gemma4_error *error);

/* Fills error with "FILE: WHAT: " and the cause that HDF5 gives for the last failed call; returns -1. */
int gemma4_hdf5_fail(const char *file, const char *what, gemma4_error *error);

#endif
