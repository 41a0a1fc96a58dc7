/* What the kinds of foreign files share (foreign.h): each is a gemma4_activation_source that takes
 * every name. */
#ifndef GEMMA4_FOREIGN_INTERNAL_H
#define GEMMA4_FOREIGN_INTERNAL_H

#include "activations_internal.h"

/* --- the header of a NumPy array (foreign_npy.c) --- */

typedef struct gemma4_npy {
    gemma4_element element; /* NONE where problem says why */
    size_t rank, shape[8];
    bool bits_16;      /* two bytes each, of no type; NONE */
    bool swapped;      /* the elements are in the other byte order */
    size_t data;       /* where they begin, in bytes from the array's */
    size_t size;       /* of them in bytes; 0 where problem says why they cannot be read */
    char problem[160]; /* objects, Fortran order ...: what may stand beside arrays that are
                          wanted */
} gemma4_npy;

/* Reads the header from the first bytes of an array; total is the size of all of it, by what
 * contains it. place names it in messages ("FILE" or "FILE: MEMBER"). Fails where it is no array,
 * or where the data's size is not what the header says. */
int gemma4_npy_header(const unsigned char *bytes, size_t size, size_t total, const char *place,
                      gemma4_npy *npy, gemma4_error *error);
/* The fields that are the array's own. */
void gemma4_npy_describe(const gemma4_npy *npy, gemma4_stored_tensor *stored);
/* The block of a whole array, bytes of which begin with its header. */
void gemma4_npy_copy(const gemma4_npy *npy, const unsigned char *bytes,
                     const gemma4_stored_tensor *stored, const size_t *start, const size_t *extent,
                     void *elements);

/* --- the kinds --- */

/* One array, listed as name. */
int gemma4_npy_open(const char *path, const char *name, gemma4_activation_source *source,
                    gemma4_error *error);
/* An archive of them, each listed as its member's name without ".npy". */
int gemma4_npz_open(const char *path, gemma4_activation_source *source, gemma4_error *error);
/* What llama-debug --save-logits writes: FILE.bin, float32, as "logits" [n], and FILE-tokens.bin,
 * int32, as "tokens" [n]. */
int gemma4_raw_logits_open(const char *path, gemma4_activation_source *source, gemma4_error *error);
/* Whether path is FILE.bin and FILE-tokens.bin is there, or the other way round. */
bool gemma4_is_raw_logits(const char *path);
/* Whether path ends so. */
bool gemma4_ends_with(const char *path, const char *end);

#endif
