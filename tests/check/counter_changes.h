/* What a change of order, type or source needs to know of tensors: their axes, and the weights that
 * steps read. */
#ifndef GEMMA4_COUNTER_CHANGES_H
#define GEMMA4_COUNTER_CHANGES_H

#include "model.h"
#include "space.h"

typedef struct gemma4_step gemma4_step; /* counter_model.h */

/* An axis: how many values it has, in how many heads, experts or ranks; 1 where it has none. */
typedef struct gemma4_axis {
    size_t values, groups;
} gemma4_axis;
/* The name of a field of gemma4_layer_weights; "none" for SIZE_MAX. */
const char *gemma4_weight_field_name(size_t offset);

gemma4_axis gemma4_axis_of_values(const gemma4_config *config, gemma4_tap tap, size_t layer,
                                  size_t T);
gemma4_axis gemma4_axis_of_weight(const gemma4_config *config, size_t layer, size_t offset,
                                  const gemma4_weight *weight, bool columns);

/* Which element of the axis is read in place of element i. */
size_t gemma4_order_read(const gemma4_setting *setting, gemma4_axis axis, size_t i);

/* The weight that the step of a tap reads: its offset in gemma4_layer_weights; SIZE_MAX where it
 * reads none of a layer. */
size_t gemma4_step_weight(gemma4_tap tap);
const gemma4_weight *gemma4_weight_field(const gemma4_layer_weights *layer, size_t offset);

/* The weight of a layer's step as a setting of it has it (NULL: as it is). *made is memory that it
 * lies in, to be freed, or NULL. Of the experts' weights, only those of step->topk_ids are
 * there. */
int gemma4_weight_as_read(const gemma4_step *step, const gemma4_setting *setting, gemma4_tap tap,
                          gemma4_weight *weight, float **made, gemma4_error *error);

/* Whether a setting of WINDOW or MASK leaves key j to query t, in place of the layer's own
 * mask. Keys from chunk_end on are not computed yet (SIZE_MAX: all are). */
bool gemma4_mask_leaves(const gemma4_config *config, size_t layer, const gemma4_setting *mask,
                        size_t chunk_end, size_t t, size_t j);
/* The function of ACTIVATION at x. */
double gemma4_function_at(const gemma4_setting *function, double x);

#endif
