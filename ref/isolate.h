/* Running what reads an engine's file in a process of its own.
 *
 * libhdf5 is not memory-safe on corrupt files: flipped bits were measured to crash or to hang it inside calls that cannot be checked
 * beforehand (H5Aread of a variable-length string). Whatever happens to the child, the parent reports it in one line. */
#ifndef GEMMA4_ISOLATE_H
#define GEMMA4_ISOLATE_H

#include "error.h"

/* Runs run(context) in a child process and returns its result (0 ... 255) as the child's exit status. Where the child dies of a
 * signal, or cannot be started, returns -1 with the message filled; subject names the file for it. */
int gemma4_isolate(int (*run)(void *context), void *context, const char *subject, gemma4_error *error);

/* Lets this process use at most so many seconds of processor time from now on; 0 lifts the limit. Beyond it the process dies of SIGXCPU,
 * which gemma4_isolate reports. */
void gemma4_limit_processor_time(unsigned seconds);

#endif
