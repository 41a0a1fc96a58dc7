/* Products of weights that have been computed before, and weights that were made from others. A
 * diagnosis runs the same blocks again and again, each time with another mistake in them: up to the
 * step in which a run differs, its products are those of earlier runs. Whatever a product reads is
 * compared byte by byte, so that what is remembered is what would be computed. */
#ifndef GEMMA4_REMEMBERED_H
#define GEMMA4_REMEMBERED_H

#include "ops.h"

typedef struct gemma4_remembered gemma4_remembered;
/* bytes: as much as inputs and results together may take; the oldest ones make room. NULL where
 * memory runs out. */
gemma4_remembered *gemma4_remembered_new(size_t bytes);
void gemma4_remembered_free(gemma4_remembered *memory);

/* What the operators below remember in, on the calling thread, until the next call; NULL: nothing.
 * Returns what it was before. */
gemma4_remembered *gemma4_remember_in(gemma4_remembered *memory);
/* From now on, on the calling thread, the first so many rows of a product are remembered by
 * themselves, and the others by themselves: of several runs that share a product, one is asked for
 * again. 0: all rows together. Returns what it was before. */
size_t gemma4_remember_apart(size_t rows);
/* The exact operators (gemma4_ops_exact), of which matmul, experts_act and experts_out remember. */
gemma4_ops gemma4_ops_remembering(void);

/* A weight that was made from another one, n values, by what the key says: copies it to `values`
 * where it is known. */
bool gemma4_recall_weight(const gemma4_weight *from, const void *key, size_t key_bytes,
                          float *values, size_t n);
void gemma4_keep_weight(const gemma4_weight *from, const void *key, size_t key_bytes,
                        const float *values, size_t n);

#endif
