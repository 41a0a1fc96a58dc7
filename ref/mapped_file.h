/* A whole regular file, mapped for reading. */
#ifndef GEMMA4_MAPPED_FILE_H
#define GEMMA4_MAPPED_FILE_H

#include <stddef.h>

#include "error.h"

typedef struct gemma4_mapped_file {
    char *path;
    const unsigned char *bytes; /* [size]; NULL where the file is empty */
    size_t size;
} gemma4_mapped_file;

/* Waits for no pipe: what is no regular file fails. On failure nothing needs closing. */
int gemma4_mapped_file_open(gemma4_mapped_file *file, const char *path, gemma4_error *error);
void gemma4_mapped_file_close(gemma4_mapped_file *file);

#endif
