/* HDF5 files are read by a child process in a sandbox (spec/robustness.md): libhdf5 is not
 * memory-safe on corrupt files. reader.c and reader_answers.c are the parent's side, which believes
 * nothing that the child says; reader_child.c is the child's.
 *
 * A process that was forked while such a file is open shares the child with its parent: the two
 * must not read at the same time. */
#ifndef GEMMA4_READER_INTERNAL_H
#define GEMMA4_READER_INTERNAL_H

#include <hdf5.h>

#include "activations_internal.h"

#define GEMMA4_READER_NAME_SIZE sizeof(((gemma4_stored_tensor *)0)->name)

/* --- what goes over the socket, in the layout of this machine --- */

/* Values do not go over it: the child leaves them in a slot of memory that both processes have
 * mapped, and the parent copies them out before it looks at them. There are two slots, so that a
 * block is read while the one before it is copied. */
enum { GEMMA4_READER_SLOTS = 2, GEMMA4_READER_SLOT_BYTES = 2 << 20 };
#define GEMMA4_READER_WINDOW_BYTES ((size_t)GEMMA4_READER_SLOTS * GEMMA4_READER_SLOT_BYTES)

/* From the parent. There is none for opening: the child begins with that. */
enum { GEMMA4_READER_LIST = 1, GEMMA4_READER_READ };

typedef struct gemma4_reader_request {
    uint64_t kind;
    uint64_t takes_all;                                  /* LIST: gemma4_stored_list's; */
    uint64_t num_hidden_layers, max_position_embeddings; /* else what it needs of the config */
    uint64_t start[8], extent[8];                        /* READ: the block, of rank axes of the
                                                            tensor; it fits a slot */
    uint64_t slot;                                       /* READ: where the values go */
    char name[GEMMA4_READER_NAME_SIZE];                  /* READ: which of the tensors listed */
} gemma4_reader_request;

/* From the child: any number of pieces, each after its head; DONE or FAILED ends the answer. */
enum {
    GEMMA4_READER_DONE = 1,  /* nothing */
    GEMMA4_READER_FAILED,    /* the message, without a 0 */
    GEMMA4_READER_ATTRIBUTE, /* name, 0, text, 0 */
    GEMMA4_READER_TENSOR,    /* gemma4_reader_tensor, then its rows */
    GEMMA4_READER_UNKNOWN,   /* a name, without a 0 */
    GEMMA4_READER_UNCOUNTED, /* uint64_t: how many more names are unknown */
    GEMMA4_READER_VALUES,    /* nothing: size is how many bytes are in the slot, all asked for */
};

typedef struct gemma4_reader_head {
    uint64_t tag, size; /* bytes that follow */
} gemma4_reader_head;

typedef struct gemma4_reader_tensor {
    char name[GEMMA4_READER_NAME_SIZE], problem[sizeof(((gemma4_stored_tensor *)0)->problem)];
    uint64_t element, rank, shape[8], has_rows, row_count;
} gemma4_reader_tensor;

/* --- the child --- */

/* Everything in the sandbox: serves requests on channel until it is closed. window is the memory
 * of the slots. */
typedef void (*gemma4_reader_serve)(int file, int channel, void *window, const char *path,
                                    void *context);
void gemma4_reader_serve_hdf5(int file, int channel, void *window, const char *path, void *context);

/* --- the parent --- */

/* Starts a child that enters the sandbox and calls serve, and takes the file's attributes from it;
 * seconds of processor time is the most that this may take, and the list as much again.
 * gemma4_activations_hdf5_open is this with gemma4_reader_serve_hdf5; tests come with worse
 * ones. */
int gemma4_reader_open(const char *path, gemma4_reader_serve serve, void *context, double seconds,
                       gemma4_activation_source *source, gemma4_error *error);

/* --- libhdf5, called in the child only --- */

/* Starts libhdf5 and the driver for one open file. Before the sandbox closes. */
int gemma4_hdf5_descriptor_prepare(int file);
/* A file access list for it, to be closed; negative on failure. */
hid_t gemma4_hdf5_descriptor_access(int file);
/* path is for messages. */
int gemma4_activations_hdf5_from(int file, const char *path, const char *group,
                                 gemma4_activation_source *source, gemma4_error *error);
/* The whole message where the file has no such group. */
#define GEMMA4_READER_NO_GROUP "no such group"

/* How many root attributes there are; sets name and text where index is one of them. */
size_t gemma4_activations_hdf5_attributes(const gemma4_activation_source *source, size_t index,
                                          const char **name, const char **text);

#endif
