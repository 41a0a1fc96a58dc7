/* Cases with their models, opened before work is dealt out to processes, and a directory for the
 * dumps that these write. */
#ifndef GEMMA4_OPENED_CASES_H
#define GEMMA4_OPENED_CASES_H

#include "manifest.h"
#include "model.h"

typedef struct gemma4_opened_case {
    gemma4_case *the_case;
    gemma4_model *model;
} gemma4_opened_case;

typedef struct gemma4_opened_cases {
    gemma4_opened_case *list;
    size_t count;
    char directory[64]; /* of temporary files; "" where there is none */
} gemma4_opened_cases;

/* Opens the cases of these ids (only one of them where only is not NULL), generates checkpoints
 * that are missing, and makes the directory. Whatever it returns, gemma4_close_cases frees it. */
int gemma4_open_cases(gemma4_opened_cases *cases, const char *const *ids, size_t count,
                      const char *only, gemma4_error *error);
/* Removes the directory with all that is in it: a process that died may have left its file. */
void gemma4_close_cases(gemma4_opened_cases *cases);
/* NULL where none of them has that id. */
const gemma4_opened_case *gemma4_opened_case_of(const gemma4_opened_cases *cases, const char *id);

/* Makes a temporary directory; removes one. */
int gemma4_make_directory(char directory[64], gemma4_error *error);
void gemma4_remove_directory(const char *directory);

#endif
