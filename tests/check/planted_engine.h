/* A simulated engine: the reference's forward pass in a given precision, with known mistakes
 * planted in it (spec/kill-matrix.md). */
#ifndef GEMMA4_PLANTED_ENGINE_H
#define GEMMA4_PLANTED_ENGINE_H

#include "manifest.h"
#include "model.h"
#include "schedule.h"

typedef struct gemma4_counter_model gemma4_counter_model; /* counter_model.h */

/* Which taps an engine dumps. */
typedef enum gemma4_tap_set {
    GEMMA4_SET_ALL,
    GEMMA4_SET_LAYERS, /* every layers.N.output, and logits */
    GEMMA4_SET_LOGITS,
    GEMMA4_SET_COUNT
} gemma4_tap_set;

const char *gemma4_tap_set_name(gemma4_tap_set set);

typedef struct gemma4_simulation {
    const gemma4_case *the_case; /* tokens, first position, schedule */
    const gemma4_model *model;
    const char *tier; /* float32, bfloat16 or float16: every tap is rounded to it, and
                                    the next step reads what is left */
    bool stochastic;  /* up or down at random, with the probability that makes the mean
                                    exact; else to nearest */
    uint64_t seed;    /* in float32, whose values are rounded already, a quarter of them
                                    move by one ulp either way */
    const gemma4_counter_model *planted[2]; /* NULL: none */
    int only_layer[2];                      /* -1: in every layer that it concerns */
    gemma4_scope scope;                     /* the positions at which they are made */
    gemma4_tap_set taps;
    bool fused;      /* the mixture of experts is one kernel: nothing between
                                    router.logits and moe.out is dumped */
    size_t logprobs; /* in place of its logits, the engine shows so many
                                    log-probabilities; 0: it shows its logits */
} gemma4_simulation;

/* Runs the case as one prefill (what chunks and decoding would do wrong follows from the schedule)
 * and writes the taps to path. */
int gemma4_simulate(const gemma4_simulation *simulation, const char *path, gemma4_error *error);

#endif
