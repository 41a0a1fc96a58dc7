/* Rows of a tap out of the tensor that holds them, whatever the order of its axes. */
#include "import_internal.h"

#include <stdlib.h>
#include <string.h>

/* The block that holds the rows, and how far apart its elements lie, by letter. */
static size_t plan(const gemma4_import_part *part, size_t first_row, size_t count, size_t start[8],
                   size_t extent[8], size_t strides[GEMMA4_IMPORT_LETTERS])
{
    size_t rank = part->tensor->rank, axis_stride[8], total = 1, row_axis = part->letters[0].axis,
           within = part->letters[0].within;
    memcpy(start, part->start, sizeof part->start);
    memcpy(extent, part->extent, sizeof part->extent);
    start[row_axis] += first_row * within;
    extent[row_axis] = count * within;
    for (size_t i = rank; i-- > 0;) {
        axis_stride[i] = total;
        total *= extent[i];
    }
    for (size_t l = 0; l < GEMMA4_IMPORT_LETTERS; l++)
        strides[l] =
            l < part->rank ? axis_stride[part->letters[l].axis] * part->letters[l].within : 1;
    return total;
}

/* [count, width[0], width[1]] out of the block; what it does not hold is 0. */
static void rearrange(const gemma4_import_part *part, const char *block, size_t count,
                      const size_t strides[GEMMA4_IMPORT_LETTERS], const size_t width[2],
                      size_t size, char *elements)
{
    size_t lengths[2] = {part->letters[1].length, part->rank == 3 ? part->letters[2].length : 1};
    if (part->rank == 1)
        lengths[0] = 1;
    memset(elements, 0, count * width[0] * width[1] * size);
    for (size_t t = 0; t < count; t++)
        for (size_t a = 0; a < lengths[0]; a++) {
            const char *from =
                block + (t * strides[0] + (part->rank > 1 ? a * strides[1] : 0)) * size;
            char *to = elements + (t * width[0] + a) * width[1] * size;
            if (part->rank < 3 || strides[2] == 1)
                memcpy(to, from, lengths[1] * size);
            else
                for (size_t b = 0; b < lengths[1]; b++)
                    memcpy(to + b * size, from + b * strides[2] * size, size);
        }
}

/* Whether the block is what is wanted as it lies. */
static bool is_in_order(const gemma4_import_part *part, const size_t strides[GEMMA4_IMPORT_LETTERS],
                        const size_t width[2])
{
    if (part->rank == 1)
        return strides[0] == 1;
    if (part->rank == 2)
        return strides[1] == 1 && strides[0] == width[0] && part->letters[1].length == width[0];
    return strides[2] == 1 && strides[1] == width[1] && strides[0] == width[0] * width[1] &&
           part->letters[2].length == width[1];
}

int gemma4_import_read(const gemma4_import_part *part, size_t first_row, size_t count,
                       const size_t width[2], void *elements, gemma4_error *error)
{
    size_t start[8], extent[8], strides[GEMMA4_IMPORT_LETTERS], bytes,
        size = gemma4_element_describe(part->element)->size;
    size_t total = plan(part, first_row, count, start, extent, strides);
    gemma4_stored_tensor tensor = *part->tensor;
    tensor.element = part->element;
    if (is_in_order(part, strides, width))
        return gemma4_pass_read(part->pass, &tensor, start, extent, elements, error);
    char *block = gemma4_size_product(total, size, &bytes) ? malloc(bytes) : NULL;
    if (!block)
        return gemma4_fail(error, "%s: %s: out of memory", gemma4_pass_path(part->pass),
                           tensor.name);
    int status = gemma4_pass_read(part->pass, &tensor, start, extent, block, error);
    if (!status)
        rearrange(part, block, count, strides, width, size, elements);
    free(block);
    return status;
}
