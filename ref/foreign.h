/* Tensors under an engine's own names: what --map turns into taps, and `gemma4-check names` lists.
 *
 * A dump is one pass of the engine or several, each one of these: an HDF5 file with any datasets, a
 * safetensors file, an archive of NumPy arrays (.npz), what llama-debug --save-logits writes
 * (FILE.bin beside FILE-tokens.bin), or a folder with a tensor a file: .npy, or safetensors whose
 * only key is "data"; the file's name is then the tensor's. A folder of anything else holds a pass
 * a file, and a folder of folders a pass a folder, in the order of their names (numbers by
 * value). */
#ifndef GEMMA4_FOREIGN_H
#define GEMMA4_FOREIGN_H

#include "activations_internal.h"

typedef struct gemma4_pass gemma4_pass;

typedef struct gemma4_foreign {
    gemma4_pass **passes;
    size_t count;
} gemma4_foreign;

/* Opens all of them, and validates everything but the values. -1 on failure; nothing needs closing
 * then. */
int gemma4_foreign_open(const char *const *paths, size_t count, gemma4_foreign *foreign,
                        gemma4_error *error);
void gemma4_foreign_close(gemma4_foreign *foreign);

/* What to call the pass in messages. */
const char *gemma4_pass_path(const gemma4_pass *pass);
size_t gemma4_pass_count(const gemma4_pass *pass);
/* In the order of their names, which are distinct. */
const gemma4_stored_tensor *gemma4_pass_at(const gemma4_pass *pass, size_t index);
/* As gemma4_activation_source's. */
int gemma4_pass_read(gemma4_pass *pass, const gemma4_stored_tensor *tensor, const size_t *start,
                     const size_t *extent, void *elements, gemma4_error *error);
/* The text of a root attribute or metadata entry; NULL where there is none, or where the pass is of
 * several files. */
const char *gemma4_pass_attribute(const gemma4_pass *pass, const char *name);

#endif
