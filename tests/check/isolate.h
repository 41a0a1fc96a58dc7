/* Running a check in a process of its own.
 *
 * What an HDF5 file does to libhdf5 ends in the reader's sandbox (ref/reader_internal.h). This is
 * the second wall: whatever else happens on a stranger's files (memory runs out, a mapped file is
 * cut short, a fault of ours), the parent reports it in one line, and writes the reports that were
 * asked for. */
#ifndef GEMMA4_ISOLATE_H
#define GEMMA4_ISOLATE_H

#include "error.h"

/* Runs run(context) in a child process and returns its result (0 ... 255) as the child's exit
 * status. Where the child dies of a signal, or cannot be started, returns -1 with the message
 * filled; subject names the file for it. */
int gemma4_isolate(int (*run)(void *context), void *context, const char *subject,
                   gemma4_error *error);

/* Lets this process use at most so many seconds of processor time from now on; 0 lifts the limit.
 * Beyond it the process dies of SIGXCPU, which gemma4_isolate reports. */
void gemma4_limit_processor_time(unsigned seconds);

#endif
