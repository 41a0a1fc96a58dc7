/* Files that appear whole or not at all: written under a temporary name beside, brought to the
 * disk, renamed (spec/robustness.md). */
#ifndef GEMMA4_OUTPUT_H
#define GEMMA4_OUTPUT_H

#include <stdbool.h>
#include <stdio.h>

#include "error.h"

#define GEMMA4_OUTPUT_PATH_SIZE 4096

typedef struct gemma4_output {
    char path[GEMMA4_OUTPUT_PATH_SIZE];      /* where it shall appear: what a symbolic link leads
                                                to, not the link */
    char temporary[GEMMA4_OUTPUT_PATH_SIZE]; /* "" where there is none, for a pipe or device */
    FILE *f;                                 /* NULL where only a name was asked for */
    int guard;
} gemma4_output;

/* Chooses a temporary name beside path, creates the file under it, empty, and sees to it that a
 * signal removes it (gemma4_guard_install). What path names may be a regular file, which is
 * replaced, or nothing yet. */
int gemma4_output_name(gemma4_output *output, const char *path, gemma4_error *error);
/* The same, opened as output->f. A pipe or character device (/dev/stdout) is written to as it
 * is. */
int gemma4_output_open(gemma4_output *output, const char *path, gemma4_error *error);
/* Closes the file, brings what is in it to the disk and gives it its name. On failure nothing is
 * left of it. */
int gemma4_output_commit(gemma4_output *output, gemma4_error *error);
/* Closes and removes it. What is zeroed, committed or failed may be given too. */
void gemma4_output_discard(gemma4_output *output);

/* Removes what a child process of that number, which is dead, had under way for path. */
void gemma4_output_remove_left(const char *path, int child);

/* Fails where both name the same file: writing the one would destroy the other. what says what
 * input is ("the dump"). Either may be NULL, and need not exist. */
int gemma4_output_is_not(const char *output, const char *input, const char *what,
                         gemma4_error *error);
/* The same for the files of a checkpoint: config.json, the index, and everything in safetensors; or
 * the GGUF file. */
int gemma4_output_is_not_of(const char *output, const char *checkpoint, gemma4_error *error);

/* Creates a directory and the parents it lacks. */
int gemma4_make_directories(const char *directory, gemma4_error *error);

#endif
