/* Command lines: --name value options, each known to the program or refused. */
#ifndef GEMMA4_OPTIONS_H
#define GEMMA4_OPTIONS_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

/* One option that a command takes: "--model". value points to the text given, or stays as it
 * was. */
typedef struct gemma4_option {
    const char *name;
    const char **value;
} gemma4_option;

/* Reads argv[0 ... argc-1]: options and their values (as two words or as --name=value) go to the
 * table that ends with a NULL name, other words to positional (up to max_positional;
 * *positional_count says how many). An unknown or repeated option, a missing value and a word too
 * many are errors. */
int gemma4_options_parse(int argc, char **argv, const gemma4_option *options,
                         const char **positional, size_t max_positional, size_t *positional_count,
                         gemma4_error *error);

/* "2,17,5" to integers in [low, high]: at least one. *values is malloc'd. what names the option in
 * the message. */
int gemma4_parse_ints(const char *text, const char *what, int64_t low, int64_t high,
                      int32_t **values, size_t *count, gemma4_error *error);
/* One integer in [low, high]. */
int gemma4_parse_int(const char *text, const char *what, int64_t low, int64_t high, int64_t *value,
                     gemma4_error *error);

#endif
