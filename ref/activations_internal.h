/* Between the common door to activation files (activations.c) and what differs with the kind of
 * file: an HDF5 or safetensors source tells which tensors it holds and delivers their bytes;
 * everything else happens behind the door. */
#ifndef GEMMA4_ACTIVATIONS_INTERNAL_H
#define GEMMA4_ACTIVATIONS_INTERNAL_H

#include "activations.h"

#define GEMMA4_ACTIVATIONS_FORMAT "gemma4-activations"
#define GEMMA4_ACTIVATIONS_VERSION 1
/* What is expected where no model is at hand: any layer may be there, and as many tokens and
 * positions as a model of this family can have. It says nothing of shapes. */
extern const gemma4_config gemma4_any_model;
/* The longest root attribute that is read or written. */
#define GEMMA4_ATTRIBUTE_MAX_BYTES ((size_t)64 << 10)

/* X(id, name, size in bytes, real) */
#define GEMMA4_ELEMENTS(X)       \
    X(F16, "float16", 2, true)   \
    X(BF16, "bfloat16", 2, true) \
    X(F32, "float32", 4, true)   \
    X(F64, "float64", 8, true)   \
    X(I8, "int8", 1, false)      \
    X(U8, "uint8", 1, false)     \
    X(I16, "int16", 2, false)    \
    X(U16, "uint16", 2, false)   \
    X(I32, "int32", 4, false)    \
    X(U32, "uint32", 4, false)   \
    X(I64, "int64", 8, false)    \
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
/* count reals as float; float64 is rounded to nearest. elements are in host byte order and must not
 * overlap values. */
void gemma4_element_to_float(gemma4_element element, const void *elements, size_t count,
                             float *values);
/* One integer; a uint64 beyond int64 gives INT64_MAX, which no id may be. */
int64_t gemma4_element_to_int(gemma4_element element, const void *elements, size_t index);
/* The inverse of gemma4_element_to_float: each value rounded once, to nearest, ties to even;
 * overflow gives infinity. */
void gemma4_element_from_real(gemma4_element element, const gemma4_real *values, size_t count,
                              void *elements);

/* Copies such a block out of a whole row-major tensor of elements of that size. */
void gemma4_copy_block(const void *tensor, size_t size, size_t rank, const size_t *shape,
                       const size_t *start, const size_t *extent, void *elements);

/* a * b, or false where the product does not fit. */
bool gemma4_size_product(size_t a, size_t b, size_t *product);

#define GEMMA4_STORED_NAME_SIZE 256

/* One tensor as the file declares it: a tap of the model, tokens or positions; any tensor where a
 * map is to say what it is. Nothing here has been compared with the config yet, so nothing may be
 * allocated from shape. */
typedef struct gemma4_stored_tensor {
    char name[GEMMA4_STORED_NAME_SIZE]; /* "layers.5.attn.q_rope" in either kind of file; where a
                                           map is to say what it is, as the file has it */
    gemma4_element element;
    bool bits_16;          /* element NONE: two bytes each, which a map may call bfloat16 */
    double scale;          /* what a map multiplies the values with, once they are floats; 0:
                               nothing */
    char problem[160];     /* why the values cannot be read; "" where they can */
    size_t rank, shape[8]; /* rank 0 where the file's is above 8, which problem then says */
    bool has_rows;         /* the attribute `rows`: */
    size_t row_count;
    int64_t *rows;      /* [row_count], unchecked */
    const void *tensor; /* the source's own: safetensors: its gemma4_tensor */
} gemma4_stored_tensor;

#define GEMMA4_UNKNOWN_MAX 512

typedef struct gemma4_stored_list {
    gemma4_stored_tensor *items;
    size_t count, capacity;
    bool takes_all; /* every name is taken, none is unknown: what it means is for a map to say. The
                       sources' config may be NULL then */
    char unknown[GEMMA4_UNKNOWN_MAX][256];
    size_t unknown_count; /* of all; only the first GEMMA4_UNKNOWN_MAX names are kept */
} gemma4_stored_list;

/* Makes room for the tensor of that name; *tensor is valid until the next call, and NULL where the
 * name means nothing for this model: it is then among the unknown ones. A name too long for its
 * place fails. */
int gemma4_stored_add(gemma4_stored_list *list, const gemma4_config *config, const char *name,
                      gemma4_stored_tensor **tensor, gemma4_error *error);
void gemma4_stored_list_free(gemma4_stored_list *list);
void gemma4_stored_add_unknown(gemma4_stored_list *list, const char *name);

/* What a kind of file does. */
typedef struct gemma4_activation_source {
    void *state;
    /* The text of a root attribute or metadata entry, NULL where there is none. */
    const char *(*attribute)(const void *state, const char *name);
    int (*list)(void *state, const gemma4_config *config, gemma4_stored_list *list,
                gemma4_error *error);
    /* Copies the block that begins at start[rank] and is extent[rank] long, row-major and in host
     * byte order, to elements. The caller has checked that it lies inside the shape, and that
     * elements has room. */
    int (*read)(void *state, const gemma4_stored_tensor *tensor, const size_t *start,
                const size_t *extent, void *elements, gemma4_error *error);
    void (*close)(void *state);
} gemma4_activation_source;

typedef enum gemma4_activations_kind {
    GEMMA4_ACTIVATIONS_HDF5,
    GEMMA4_ACTIVATIONS_SAFETENSORS,
    GEMMA4_ACTIVATIONS_NPZ, /* these two only where a map is to say what is in them */
    GEMMA4_ACTIVATIONS_NPY
} gemma4_activations_kind;

/* Which of them the file is, by its first bytes: at most 512 of them are looked at, and a pipe is
 * not opened. Fails where it is none, or of the last two and any is false: the message then says
 * what it is (a NumPy array, a checkpoint in GGUF, a folder ...) and what to do. */
int gemma4_activations_kind_of(const char *path, bool any, gemma4_activations_kind *kind,
                               gemma4_error *error);

int gemma4_activations_hdf5_open(const char *path, gemma4_activation_source *source,
                                 gemma4_error *error);
/* The same of a group, as if it were the root; attributes that it lacks are the root's. */
int gemma4_activations_hdf5_open_group(const char *path, const char *group, bool *missing,
                                       gemma4_activation_source *source, gemma4_error *error);
int gemma4_activations_safetensors_open(const char *path, gemma4_activation_source *source,
                                        gemma4_error *error);
/* The same of the tensors whose names begin with "GROUP.", as if that were not there. */
int gemma4_activations_safetensors_open_group(const char *path, const char *group, bool *missing,
                                              gemma4_activation_source *source,
                                              gemma4_error *error);

/* Opens what a source lists, by the taps' names, whether or not it says that it is an activation
 * file; and takes the source over: it is closed on failure too. Of a source without tokens or
 * positions given's are taken, where it is not NULL. path is for messages. */
struct gemma4_given_tokens;
gemma4_activations *gemma4_activations_open_source(const char *path,
                                                   const gemma4_activation_source *source,
                                                   const gemma4_config *config,
                                                   const struct gemma4_given_tokens *given,
                                                   gemma4_error *error);

/* Fills error with "FILE: WHAT: " and the cause that HDF5 gives for the last failed call; returns
 * -1. */
int gemma4_hdf5_fail(const char *file, const char *what, gemma4_error *error);

#endif
