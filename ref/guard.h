/* What a program does when it is killed, or when a file that it has mapped is cut short under it
 * (spec/robustness.md). */
#ifndef GEMMA4_GUARD_H
#define GEMMA4_GUARD_H

#include <stddef.h>

/* For main, first thing. From then on: SIGINT, SIGTERM, SIGHUP and SIGPIPE remove the temporary
 * files of this process before it dies of them; a mapped file that lost its pages ends the process
 * with one line on standard error and status 2; a file that may not grow further (RLIMIT_FSIZE) is
 * an error of write() and no signal. program must stay valid; it begins the line. */
void gemma4_guard_install(const char *program);
/* For main, after that: a library that calls exit() of its own, as libgomp does where threads find
 * no memory, ends the process with status 2, as its own 1 would be a verdict; a child of
 * gemma4_isolate with GEMMA4_GUARD_LIBRARY, which the parent turns into a failure. */
void gemma4_guard_exit(void);
enum { GEMMA4_GUARD_LIBRARY = 9 };
/* For main, last thing: returns the status with which the program ends by itself. */
int gemma4_guard_end(int status);
/* Back to the system's own behaviour, in a child that is no such program. */
void gemma4_guard_reset(void);

/* Until the next call, a signal that ends this process ends that child first (0: none): a child
 * that goes on alone would still write. */
void gemma4_guard_child(int child);
/* From now on the first SIGINT kills nothing: gemma4_guard_interrupted() is not 0 after it. It
 * reaches the child that is guarded, too. The second one kills, like the other signals. */
void gemma4_guard_catch_interrupt(void);
int gemma4_guard_interrupted(void);
/* Where the line about a mapped file is put in place of standard error: memory of that size,
 * zeroed, shared with the process that will print it. */
void gemma4_guard_message(char *memory, size_t size);

/* Notes a temporary file (the path is copied), or a mapping of a file (the path must stay valid);
 * returns a number for gemma4_guard_forget, or -1 where the table is full: it is then not guarded.
 * Any thread may call these. */
int gemma4_guard_temporary(const char *path);
int gemma4_guard_mapping(const void *address, size_t size, const char *path);
void gemma4_guard_forget_temporary(int number);
void gemma4_guard_forget_mapping(int number);

#endif
