/* What a long check shows while it runs, on standard error: on a terminal a line that says how far
 * it is, and with --verbose a first verdict of each block as it is judged. */
#ifndef GEMMA4_PROGRESS_H
#define GEMMA4_PROGRESS_H

#include <time.h>

#include "report.h"

typedef struct gemma4_progress {
    bool terminal, verbose;
    size_t layers;
    struct timespec start;
} gemma4_progress;

/* Looks whether standard error is a terminal, and begins to measure time. */
gemma4_progress gemma4_progress_start(bool verbose, size_t layers);
/* Before a block (-1 the embedding, `layers` the head) is run: "layer 3 of 30, about 40 s left".
 * The time is in proportion to the layers. */
void gemma4_progress_at(const gemma4_progress *progress, int block);
/* After it: taps are the block's results in dataflow order. */
void gemma4_progress_judged(const gemma4_progress *progress, int block,
                            const gemma4_tap_result *taps, size_t count);
/* Takes the line away. */
void gemma4_progress_end(const gemma4_progress *progress);

#endif
