/* A forward pass over a mapped checkpoint that is larger than the memory: the next layer's weights
 * are asked for while a layer is computed, and let go after it. */
#ifndef GEMMA4_STREAM_H
#define GEMMA4_STREAM_H

#include <stdbool.h>

#include "model.h"
#include "taps.h"

/* Whether all weights together are larger than the memory of the machine (four fifths of it). */
bool gemma4_stream_needed(const gemma4_model *model);
/* A tap hook (its context is the gemma4_model) that reads ahead at a layer's input and releases at
 * its output. Changes no tensor; wants no scores. Where a chunk is short, most experts are not
 * needed: they are left to be read when they are. */
int gemma4_stream_tap(void *context, gemma4_tap_event *event, gemma4_error *error);

/* Resident memory of the process in bytes: the peak of all of it (pages of the checkpoint that are
 * mapped at the time count), and what of it is not backed by a file now. 0 where the system does
 * not say. */
typedef struct gemma4_memory {
    double peak, anonymous;
} gemma4_memory;
gemma4_memory gemma4_memory_used(void);

#endif
