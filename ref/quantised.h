/* A quantised weight: its values are decoded a row at a time, when they are read, from where they
 * lie in the mapped file. So a model of any size needs no memory but the page cache, and a view of
 * some rows is as cheap as any other. */
#ifndef GEMMA4_QUANTISED_H
#define GEMMA4_QUANTISED_H

#include <stddef.h>

typedef struct gemma4_block_type gemma4_block_type; /* blocks.h */

/* One tensor of the file: [matrices * rows, cols]. */
typedef struct gemma4_quantised_part {
    const gemma4_block_type *type;
    const unsigned char *data;
    size_t row_bytes;
    const float *scales; /* a further factor of all values, or one for each matrix; or NULL */
    size_t scale_count;  /* 1 or the number of matrices */
} gemma4_quantised_part;

/* A weight may lie in two tensors of the file: the experts' gate and up, of which each has `rows`
 * rows an expert. Its rows are then, expert by expert, those of the first part and those of the
 * second. */
typedef struct gemma4_quantised {
    size_t part_count; /* 1 or 2 */
    size_t rows;       /* of a part in one matrix */
    gemma4_quantised_part parts[2];
} gemma4_quantised;

/* out: the cols values of a row. */
void gemma4_quantised_row(float *out, const gemma4_quantised *weight, size_t row, size_t cols);
/* One value. It decodes a whole block. */
float gemma4_quantised_at(const gemma4_quantised *weight, size_t row, size_t col);

#endif
