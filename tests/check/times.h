/* gemma4-check self-test --times: how long does it take to judge an engine with each known mistake?
 * (spec/diagnosis.md) */
#ifndef GEMMA4_TIMES_H
#define GEMMA4_TIMES_H

#include <stdio.h>

#include "error.h"

typedef struct gemma4_times_options {
    const char *model_dir;
    const char *tier, *tap_set; /* NULL: float32; layers and logits */
    const char *cause;          /* only faults with this one in them; NULL: all */
    size_t jobs;
} gemma4_times_options;

/* Plants every counter-model, alone and everywhere, and combinations that the catalogue does not
 * have, into simulated engines of the checkpoint, judges them, and writes a line for each tap set
 * (how many were detected, and of those the median of the processor times, the longest and its
 * fault), then every fault that takes more than three times the median. */
int gemma4_times(const gemma4_times_options *options, FILE *out, gemma4_error *error);

#endif
