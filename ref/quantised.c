#include "quantised.h"
#include "blocks.h"

/* A row: its blocks, and the factor that its values have beside. */
typedef struct row_place {
    const gemma4_block_type *type;
    const unsigned char *blocks;
    const float *scale;
} row_place;

static row_place find_row(const gemma4_quantised *weight, size_t row)
{
    size_t matrix = row / (weight->part_count * weight->rows);
    const gemma4_quantised_part *part = &weight->parts[row / weight->rows % weight->part_count];
    size_t row_of_part = matrix * weight->rows + row % weight->rows;
    return (row_place){part->type, part->data + row_of_part * part->row_bytes,
                       part->scales ? part->scales + (part->scale_count > 1 ? matrix : 0) : NULL};
}

void gemma4_quantised_row(float *out, const gemma4_quantised *weight, size_t row, size_t cols)
{
    row_place place = find_row(weight, row);
    for (size_t i = 0; i < cols; i += place.type->values, place.blocks += place.type->bytes)
        place.type->decode(out + i, place.blocks);
    for (size_t i = 0; i < cols && place.scale; i++)
        out[i] *= *place.scale;
}

float gemma4_quantised_at(const gemma4_quantised *weight, size_t row, size_t col)
{
    row_place place = find_row(weight, row);
    float values[GEMMA4_BLOCK_VALUES];
    place.type->decode(values, place.blocks + col / place.type->values * place.type->bytes);
    float value = values[col % place.type->values];
    return place.scale ? value * *place.scale : value;
}
