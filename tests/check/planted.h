/* Mistakes that are planted into a run of the model. */
#ifndef GEMMA4_PLANTED_H
#define GEMMA4_PLANTED_H

#include <stddef.h>

#include "schedule.h"

typedef struct gemma4_counter_model gemma4_counter_model; /* counter_model.h */

enum { GEMMA4_MOST_PLANTED = 20 };

/* Counter-models planted into a run, each in all layers that it concerns or in one. count 0: the
 * right model. */
typedef struct gemma4_planted {
    const gemma4_counter_model *models[GEMMA4_MOST_PLANTED];
    int only_layer[GEMMA4_MOST_PLANTED]; /* -1: all */
    size_t count;
    gemma4_scope scope;
} gemma4_planted;

#endif
