/* Independent pieces of work, dealt out to several processes. */
#ifndef GEMMA4_WORKERS_H
#define GEMMA4_WORKERS_H

#include "isolate.h"

/* Runs work(context, i) for i = 0 ... count - 1 in `jobs` child processes. Each i writes what it
 * found to memory that the processes share (gemma4_shared_new). what names the work for the
 * progress on a terminal. -1 where a process could not be started or died; the others still
 * finish. */
int gemma4_workers_run(size_t count, size_t jobs, const char *what,
                       void (*work)(void *context, size_t i), void *context, gemma4_error *error);

#endif
