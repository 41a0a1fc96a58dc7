#include "progress.h"

#include <stdio.h>
#include <unistd.h>

#define CLEAR_LINE "\r\033[K"

gemma4_progress gemma4_progress_start(bool verbose, size_t layers)
{
    gemma4_progress p = {
        .terminal = isatty(STDERR_FILENO) == 1, .verbose = verbose, .layers = layers};
    clock_gettime(CLOCK_MONOTONIC, &p.start);
    return p;
}

static double seconds_since(const struct timespec *start)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) + (double)(now.tv_nsec - start->tv_nsec) * 1e-9;
}

static void print_time_left(double seconds)
{
    if (seconds < 90)
        fprintf(stderr, ", about %.0f s left", seconds);
    else if (seconds < 5400)
        fprintf(stderr, ", about %.0f min left", seconds / 60);
    else
        fprintf(stderr, ", about %.1f h left", seconds / 3600);
}

/* Embedding and head by their names; true for a layer, which is the caller's to print. */
static bool print_block(const gemma4_progress *p, int block)
{
    bool head = block >= 0 && (size_t)block == p->layers;
    if (block < 0 || head)
        fputs(head ? "head" : "embedding", stderr);
    return block >= 0 && !head;
}

void gemma4_progress_at(const gemma4_progress *p, int block)
{
    if (!p->terminal)
        return;
    fputs(CLEAR_LINE, stderr);
    if (print_block(p, block))
        fprintf(stderr, "layer %d of %zu", block + 1, p->layers);
    if (block > 0 && (size_t)block < p->layers)
        print_time_left(seconds_since(&p->start) * (double)(p->layers - (size_t)block) /
                        (double)block);
    fflush(stderr);
}

void gemma4_progress_judged(const gemma4_progress *p, int block, const gemma4_tap_result *taps,
                            size_t count)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    const gemma4_tap_result *first = NULL;
    size_t compared = 0;
    if (!p->verbose)
        return;
    for (size_t i = 0; i < count; i++) {
        compared += taps[i].verdict != GEMMA4_NOT_COVERED;
        if (!first && taps[i].verdict == GEMMA4_DIVERGES)
            first = &taps[i];
    }
    if (p->terminal)
        fputs(CLEAR_LINE, stderr);
    if (print_block(p, block))
        fprintf(stderr, "layer %d", block);
    fprintf(stderr, ": %zu tensor%s compared, ", compared, compared == 1 ? "" : "s");
    if (first)
        fprintf(stderr, "%s diverges\n", gemma4_tap_name(first->tap, first->layer, name));
    else
        fputs("none diverges\n", stderr);
    fflush(stderr);
}

void gemma4_progress_end(const gemma4_progress *p)
{
    if (p->terminal)
        fputs(CLEAR_LINE, stderr);
}
