/* Running a check, or the writing of a dump, in a process of its own.
 *
 * What an HDF5 file does to libhdf5 ends in the reader's sandbox (ref/reader_internal.h). This is
 * the second wall: whatever else happens on a stranger's files (memory runs out, a mapped file is
 * cut short, a fault of ours), the parent reports it in one line, and writes the reports that were
 * asked for. A writer is apart because libhdf5 ends its process, or crashes, where memory runs out
 * while it writes. */
#ifndef GEMMA4_ISOLATE_H
#define GEMMA4_ISOLATE_H

#include <stddef.h>

#include "error.h"

/* Runs run(context) in a child process and returns its result (0 ... 255) as the child's exit
 * status. Where the child dies of a signal, a library ends it, or it cannot be started, returns -1
 * with the message filled; subject names the file for it. */
int gemma4_isolate(int (*run)(void *context), void *context, const char *subject,
                   gemma4_error *error);

/* Runs write(context, error) in a child process; its failure and message are the result. path is
 * what it writes, by a gemma4_output: where the child dies, whatever of, what it had not finished
 * is removed, and the message says so. */
int gemma4_isolate_writer(int (*write)(void *context, gemma4_error *error), void *context,
                          const char *path, gemma4_error *error);

/* Zeroed memory that child processes share with this one. NULL on failure. */
void *gemma4_shared_new(size_t size, gemma4_error *error);
void gemma4_shared_free(void *memory, size_t size);

/* Lets this process use at most so many seconds of processor time from now on; 0 lifts the limit.
 * Beyond it the process dies of SIGXCPU, which gemma4_isolate reports. */
void gemma4_limit_processor_time(unsigned seconds);

#endif
