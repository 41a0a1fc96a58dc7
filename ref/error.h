/* How every fallible function of this library reports failure.
 *
 * A function that can fail returns 0 on success and -1 on failure (or a pointer that is NULL on
 * failure) and takes a gemma4_error as its last argument. The message is one line for a person:
 * which file, which key, tensor or dataset, what was expected and what was found. Only the programs
 * print it. */
#ifndef GEMMA4_ERROR_H
#define GEMMA4_ERROR_H

#include <stdbool.h>

typedef struct gemma4_error {
    char message[1024];
} gemma4_error;

/* Writes the message (printf form) and returns -1, so that a caller can `return gemma4_fail(...)`.
 * Control characters, which hostile file content may carry into a message, are replaced by '?': it
 * stays one line. error may be NULL. */
int gemma4_fail(gemma4_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Does the message say that memory ran out? That tells nothing of the file that was being read.
 * Every message of that kind ends with "out of memory", or with the system's words for ENOMEM. */
bool gemma4_error_is_memory(const gemma4_error *error);

#endif
