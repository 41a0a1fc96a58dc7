/* `gemma4-ref show`: a tensor of a golden or of a dump, to be read by a person. */
#ifndef GEMMA4_SHOW_H
#define GEMMA4_SHOW_H

#include "error.h"

/* argv[0 ... argc-1] are the words after the command: CASE|FILE, TAP or nothing, --position P,
 * --head H, --json FILE. Prints to stdout the tensor's shape, type, statistics and values
 * (shortened; all of them where a position or a head is named), or without TAP a line for each
 * tensor of the file. With --json all values go to FILE instead (show_tensor.h).
 * Needs no model: shapes are shown as they are stored. */
int gemma4_show_command(int argc, char **argv, gemma4_error *error);

#endif
