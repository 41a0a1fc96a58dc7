/* A process that reads a stranger's file gives up what a reader does not need (spec/robustness.md,
 * "The reader's sandbox"). */
#ifndef GEMMA4_SANDBOX_H
#define GEMMA4_SANDBOX_H

#include <stddef.h>

/* What closes it. */
enum {
    GEMMA4_SANDBOX_SECCOMP = 1,  /* system calls: a filter of the kernel (Linux) */
    GEMMA4_SANDBOX_LANDLOCK = 2, /* files, TCP ports, signals to others (Linux 5.13 and later) */
    GEMMA4_SANDBOX_LIMITS = 4,   /* setrlimit: memory, processor time, files, processes */
};
#define GEMMA4_SANDBOX_WHOLE \
    (GEMMA4_SANDBOX_SECCOMP | GEMMA4_SANDBOX_LANDLOCK | GEMMA4_SANDBOX_LIMITS)

/* Gives up, for the calling process and for good, everything but: reading the open file, reading
 * and writing the channel, memory of its own, and ending. Every other descriptor is closed (under a
 * sanitizer standard error stays open). Returns which of the above are in force: what this machine
 * or build lacks is left out, and the rest closes all the same. Call it in a fresh child with one
 * thread. */
unsigned gemma4_sandbox_enter(int file, int channel);

/* "seccomp, landlock, limits", or what of it is in force here and why the rest is not: found out by
 * a child that tries. */
void gemma4_sandbox_describe(char *text, size_t size);

/* The filter alone, for gemma4_sandbox_enter: 0, or -1 where the kernel refuses it or there is none
 * for this machine. */
int gemma4_sandbox_filter(int file, int channel);

/* AddressSanitizer and its kin make system calls of their own, map terabytes, and write to standard
 * error. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GEMMA4_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
#define GEMMA4_SANITIZED 1
#endif
#endif
#ifndef GEMMA4_SANITIZED
#define GEMMA4_SANITIZED 0
#endif

#endif
