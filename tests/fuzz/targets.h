/* What the fuzzers feed, and the unit suite `fuzz` repeats without them: every reader of this
 * program's inputs, by its public door.
 *
 * A target takes any bytes. Whatever they are, the reader must accept them or fail with one line;
 * it then reads all that the input declares. What a sanitizer finds, an endless loop, and a broken
 * promise (which calls abort) are findings. */
#ifndef GEMMA4_FUZZ_TARGETS_H
#define GEMMA4_FUZZ_TARGETS_H

#include <stddef.h>
#include <stdint.h>

typedef struct fuzz_target {
    const char *name;
    void (*run)(const uint8_t *bytes, size_t size);
} fuzz_target;

/* NULL after the last, and for an unknown name. A reader of another format is one more row of the
 * table in targets.c. */
const fuzz_target *fuzz_target_at(size_t index);
const fuzz_target *fuzz_target_named(const char *name);

/* Those of targets_files.c, targets_models.c, targets_hdf5.c and targets_ladder.c. */
void fuzz_safetensors(const uint8_t *bytes, size_t size);
void fuzz_activations(const uint8_t *bytes, size_t size);
void fuzz_foreign(const uint8_t *bytes, size_t size);
void fuzz_npy(const uint8_t *bytes, size_t size);
void fuzz_npz(const uint8_t *bytes, size_t size);
void fuzz_import(const uint8_t *bytes, size_t size);
void fuzz_folders(const uint8_t *bytes, size_t size);
void fuzz_names(const uint8_t *bytes, size_t size);
void fuzz_gguf(const uint8_t *bytes, size_t size);
void fuzz_index(const uint8_t *bytes, size_t size);
void fuzz_hdf5(const uint8_t *bytes, size_t size);
void fuzz_hdf5_foreign(const uint8_t *bytes, size_t size);
void fuzz_ladder(const uint8_t *bytes, size_t size);
void fuzz_ladder_groups(const uint8_t *bytes, size_t size);
void fuzz_hdf5_ladder(const uint8_t *bytes, size_t size);
void fuzz_judge(const uint8_t *bytes, size_t size);

/* --- what targets share --- */

struct gemma4_error;
struct gemma4_config;
struct gemma4_activations;
struct gemma4_case;

/* The path of a file with that content, in a directory of this process' own, which is removed at
 * its end. Valid until the next call. */
const char *fuzz_file(const char *name, const void *bytes, size_t size);
/* The path of a folder with the parts of the input, between lines "---- 8< ----", under those names
 * in turn; what is left over goes into the last. Where names is NULL each part's first line is its
 * name, as far as it is one. At most 8. Valid until the next call. */
const char *fuzz_folder(const uint8_t *bytes, size_t size, const char *const *names, size_t count);
/* What separates the parts; NULL where there is no further one. */
extern const char fuzz_cut[];
const uint8_t *fuzz_find_cut(const uint8_t *bytes, size_t size);
/* Aborts unless a failure (failed != 0) came with one line of text. */
void fuzz_promise(int failed, const struct gemma4_error *error);
/* The model that activations are read for: two layers, one of either kind. */
const struct gemma4_config *fuzz_config(void);
/* Reads everything that is usable in the file (NULL: nothing), and closes it. */
void fuzz_read_activations(struct gemma4_activations *file);
/* The ladder's first rung. */
const struct gemma4_case *fuzz_rung(void);
/* Opens what an engine left of the ladder at path, reads all of it, and writes a report. */
void fuzz_climb(const char *path);
/* Opens a dump under an engine's own names, and reads the first values of every tensor. */
void fuzz_read_foreign(const char *path);

#endif
