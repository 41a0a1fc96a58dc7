/* Activation files (spec/activations.md): goldens and engines' dumps. HDF5, or safetensors with the
 * same names.
 *
 * Opening validates everything but the values: links, types, filters, shapes. A file can neither
 * make the reader open another file nor load code. Values are read in slices of positions, so a
 * file may be larger than memory. */
#ifndef GEMMA4_ACTIVATIONS_H
#define GEMMA4_ACTIVATIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "taps.h"

typedef struct gemma4_activations gemma4_activations;

/* One tap that the file holds. */
typedef struct gemma4_activation {
    gemma4_tap tap;
    size_t layer;
    char stored_dtype[16]; /* "float32", "float64", "float16", "bfloat16", "int32" ... : the
                              dataset's own type */
    size_t rank, shape[8]; /* as stored */
    bool usable;           /* the shape and type are those that the model implies; else problem says
                              what is wrong */
    char problem[160];     /* "expected [24, 16, 32], found [24, 2, 256]" */
    bool wrong_shape;      /* it is the shape that the problem is about: the type is right */
    size_t rows;           /* rows stored; of a wrong shape: rows due */
    size_t width;          /* values of a row; where it is usable */
    const size_t *row_index; /* [rows]: which position (index into the case, 0 ... T-1) each row is;
                                distinct, in the file's order. Not usable: NULL where the file does
                                not say it */
} gemma4_activation;

/* "[24, 16, 32]"; what does not fit is cut off. */
void gemma4_shape_text(const size_t *shape, size_t rank, char *text, size_t size);

/* Opens the file and validates it against the model's config. NULL on failure. A tap of a wrong
 * trailing shape or type does not fail here: it is listed with usable == false. Where config is
 * NULL, any layer, token and position may be there, and every shape that begins with the positions
 * and has as many axes as the tap (or one less, where two are merged). */
gemma4_activations *gemma4_activations_open(const char *path, const gemma4_config *config,
                                            gemma4_error *error);
/* The same of a group of an HDF5 file, as if it were the root, or of the tensors of a safetensors
 * file whose names begin with "GROUP."; attributes that it lacks are the file's. NULL with *missing
 * where there is no such group. */
gemma4_activations *gemma4_activations_open_group(const char *path, const char *group,
                                                  const gemma4_config *config, bool *missing,
                                                  gemma4_error *error);
void gemma4_activations_close(gemma4_activations *file);

/* T, and the file's tokens and absolute positions, [T] each (positions 0 ... T-1 where the file has
 * none). */
size_t gemma4_activations_positions(const gemma4_activations *file, const int32_t **tokens,
                                    const int32_t **positions);
/* A root attribute's (or metadata entry's) text, NULL where it is absent. Integer attributes read
 * as their decimals. */
const char *gemma4_activations_attribute(const gemma4_activations *file, const char *name);

/* Copies the text of a root attribute of a file that is not opened yet, for whose model's config
 * that attribute may be needed: fails where the file has none, or a longer one. */
int gemma4_activations_peek(const char *path, const char *name, char *text, size_t size,
                            gemma4_error *error);

size_t gemma4_activations_count(const gemma4_activations *file);
/* in dataflow order */
const gemma4_activation *gemma4_activations_at(const gemma4_activations *file, size_t index);
/* NULL where the file does not hold that tap. */
const gemma4_activation *gemma4_activations_find(const gemma4_activations *file, gemma4_tap tap,
                                                 size_t layer);
/* Datasets that are no taps, ignored by everything else; for a note to the user. A '.' in a link's
 * name makes no tap: the name is then the path, with a '/' before it. unknown_at: NULL after the
 * last name that is kept (512 are). */
size_t gemma4_activations_unknown_count(const gemma4_activations *file);
const char *gemma4_activations_unknown_at(const gemma4_activations *file, size_t index);

/* Reads count stored rows from the first_row-th on of a usable activation as float, or as int32 for
 * ids:
 * values is [count, dims...] of the tap. */
int gemma4_activations_read(gemma4_activations *file, const gemma4_activation *activation,
                            size_t first_row, size_t count, float *values, gemma4_error *error);
int gemma4_activations_read_ids(gemma4_activations *file, const gemma4_activation *activation,
                                size_t first_row, size_t count, int32_t *ids, gemma4_error *error);

/* --- writing --- */

typedef struct gemma4_activations_writer gemma4_activations_writer;

/* Creates an HDF5 activation file for positions first_position ... first_position + count - 1. It
 * is written under a temporary name beside path and appears under path only when
 * gemma4_activations_commit succeeds. store_dtype is "float32" (or "float64", "float16",
 * "bfloat16"): the type of the real datasets. Chunked by rows, shuffled and deflated; the same
 * calls give the same bytes. config must outlive the writer. NULL on failure. */
gemma4_activations_writer *gemma4_activations_create(const char *path, const gemma4_config *config,
                                                     const int32_t *tokens, size_t count,
                                                     size_t first_position, const char *store_dtype,
                                                     gemma4_error *error);
int gemma4_activations_set_attribute(gemma4_activations_writer *writer, const char *name,
                                     const char *text, gemma4_error *error);
/* Writes the rows of one event; scores and probs are padded with zeros to T keys. Each position of
 * a tap may come once, in any order; a tap that did not get all T, or not in order, is stored with
 * the attribute `rows`. */
int gemma4_activations_write(gemma4_activations_writer *writer, const gemma4_tap_event *event,
                             gemma4_error *error);
/* frees the writer */
int gemma4_activations_commit(gemma4_activations_writer *writer, gemma4_error *error);
/* removes the temporary file */
void gemma4_activations_discard(gemma4_activations_writer *writer);

#endif
