/* SHA-256 of a file, by libcrypto. */
#ifndef GEMMA4_HASH_H
#define GEMMA4_HASH_H

#include "error.h"

#define GEMMA4_SHA256_SIZE 65

/* hex: 64 lower-case digits and a NUL. */
int gemma4_sha256_file(const char *path, char hex[GEMMA4_SHA256_SIZE], gemma4_error *error);

#endif
