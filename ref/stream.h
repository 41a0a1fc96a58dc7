/* A forward pass over a mapped checkpoint that is larger than the memory: the next layer's weights
 * are asked for while a layer is computed, and let go after it. */
#ifndef GEMMA4_STREAM_H
#define GEMMA4_STREAM_H

#include <pthread.h>
#include <stdbool.h>

#include "model.h"
#include "taps.h"

/* Whether all weights together are larger than the memory of the machine (four fifths of it). */
bool gemma4_stream_needed(const gemma4_model *model);
/* Reads a checkpoint ahead: model is to be set, the rest 0. */
typedef struct gemma4_stream {
    const gemma4_model *model;
    pthread_t thread; /* reading `layer`, where `reading` */
    bool reading, experts;
    size_t layer;
} gemma4_stream;

/* Reads the weights of a layer into the page cache, in a thread of its own; those of the head (the
 * embedding's matrix) where layer is num_hidden_layers. Waits for what was asked for before. Where
 * rows of x are few, most experts are not needed: they are left to be read when they are. A failure
 * costs time only. */
void gemma4_stream_ahead(gemma4_stream *stream, size_t layer, size_t rows);
/* Waits for what was asked for: before the model is closed. */
void gemma4_stream_end(gemma4_stream *stream);
/* Lets the same weights go: what needs them reads them again. */
void gemma4_stream_release(const gemma4_model *model, size_t layer);
/* A tap hook (its context is a gemma4_stream) that reads ahead at a layer's input and releases at
 * its output. Changes no tensor; wants no scores. */
int gemma4_stream_tap(void *context, gemma4_tap_event *event, gemma4_error *error);

/* Resident memory of the process in bytes: the peak of all of it (pages of the checkpoint that are
 * mapped at the time count), and what of it is not backed by a file now. 0 where the system does
 * not say. */
typedef struct gemma4_memory {
    double peak, anonymous;
} gemma4_memory;
gemma4_memory gemma4_memory_used(void);

#endif
