/* Where cases and checkpoints are looked for (README.md, "Install"). */
#ifndef GEMMA4_PLACES_H
#define GEMMA4_PLACES_H

#include <stddef.h>

/* The folder golden/ with the cases: under $GEMMA4_DATA where that is set; else under the current
 * directory, beside the folder that holds this program (build/, or bin/ of an archive), in
 * ../share/gemma4 seen from there, or where `make install` put it. NULL where none has a folder
 * cases/. */
const char *gemma4_golden_dir(void);

/* Where checkpoints that are not committed are generated, for a manifest in `golden`/cases: in
 * build/checkpoints beside golden/ where there is a folder build/, else in the user's cache
 * ($XDG_CACHE_HOME or ~/.cache, gemma4/checkpoints). Returns 0, or -1 where path is too short. */
int gemma4_generated_dir(const char *golden, char *path, size_t size);

#endif
