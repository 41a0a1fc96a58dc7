/* What a folder of dumps holds (foreign.h): a tensor a file, or a pass a file or folder. */
#ifndef GEMMA4_FOREIGN_FOLDER_H
#define GEMMA4_FOREIGN_FOLDER_H

#include <stddef.h>

#include "error.h"

typedef enum gemma4_folder_kind {
    GEMMA4_FOLDER_OF_TENSORS,
    GEMMA4_FOLDER_OF_PASSES
} gemma4_folder_kind;

typedef struct gemma4_folder_entry {
    char *path;
    char *stem; /* the file's name without its ending */
} gemma4_folder_entry;

typedef struct gemma4_folder {
    const char *path; /* the caller's */
    gemma4_folder_kind kind;
    gemma4_folder_entry *entries; /* by name, numbers by value */
    size_t count;
} gemma4_folder;

/* Files of other kinds (text, JSON, hidden ones) are left out; so is one file of llama-debug's two.
 * Files of two kinds, files beside folders and a folder without any fail. */
int gemma4_folder_read(const char *path, gemma4_folder *folder, gemma4_error *error);
void gemma4_folder_free(gemma4_folder *folder);

#endif
