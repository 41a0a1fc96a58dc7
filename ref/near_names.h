/* Which tap is meant by a dataset whose name is none? A misspelt tap is otherwise ignored like any
 * dataset of the engine's own, and its user believes it covered. */
#ifndef GEMMA4_NEAR_NAMES_H
#define GEMMA4_NEAR_NAMES_H

#include "taps.h"

/* How many characters have to be inserted, removed or replaced to make a out of b. Of names longer
 * than 96 characters it says only that they are far apart. */
size_t gemma4_edit_distance(const char *a, const char *b);

/* The tap, "tokens" or "positions" that comes near name: the same but for case and for '/', '.',
 * '-' and '_'; few letters apart; or the name that transformers, llama.cpp or TransformerLens give
 * to that tensor. "layers.N.output", with the letter, where only the layer is missing. Fills near
 * and returns it, NULL where nothing is near, or two taps are equally so. For a tap's own name it
 * is that name. */
const char *gemma4_near_name(const char *name, char near[GEMMA4_TAP_NAME_SIZE]);

#endif
