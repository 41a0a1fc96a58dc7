#include "foreign.h"
#include "foreign_folder.h"
#include "foreign_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PASSES_MAX = 65536 };

struct gemma4_pass {
    char *path;
    gemma4_activation_source *sources;
    size_t source_count;
    gemma4_stored_list list;
    struct {
        size_t item, source;
    } * order; /* [list.count] by name */
};

/* --- one pass --- */

static void pass_close(gemma4_pass *pass)
{
    if (!pass)
        return;
    for (size_t i = 0; i < pass->source_count; i++)
        if (pass->sources[i].close)
            pass->sources[i].close(pass->sources[i].state);
    gemma4_stored_list_free(&pass->list);
    free(pass->sources);
    free(pass->order);
    free(pass->path);
    free(pass);
}

static gemma4_pass *pass_new(const char *path, size_t files, gemma4_error *error)
{
    gemma4_pass *pass = calloc(1, sizeof *pass);
    if (pass) {
        pass->list.takes_all = true;
        pass->path = strdup(path);
        pass->sources = calloc(files, sizeof *pass->sources);
    }
    if (pass && pass->path && pass->sources)
        return pass;
    pass_close(pass);
    gemma4_fail(error, "%s: out of memory", path);
    return NULL;
}

/* Whichever kind of file it is. Of a folder with a tensor a file, name is the tensor's; else
 * NULL. */
static int open_file(const char *path, const char *name, gemma4_activation_source *source,
                     gemma4_error *error)
{
    gemma4_activations_kind kind;
    if (gemma4_ends_with(path, ".bin") && gemma4_is_raw_logits(path))
        return gemma4_raw_logits_open(path, source, error);
    if (gemma4_activations_kind_of(path, true, &kind, error))
        return -1;
    switch (kind) {
    case GEMMA4_ACTIVATIONS_HDF5: return gemma4_activations_hdf5_open(path, source, error);
    case GEMMA4_ACTIVATIONS_SAFETENSORS:
        return gemma4_activations_safetensors_open(path, source, error);
    case GEMMA4_ACTIVATIONS_NPZ: return gemma4_npz_open(path, source, error);
    default: break;
    }
    return gemma4_npy_open(path, name ? name : "data", source, error);
}

/* Adds a file's tensors to the pass. name: as in open_file. */
static int add_file(gemma4_pass *pass, const char *path, const char *name, gemma4_error *error)
{
    gemma4_activation_source *source = &pass->sources[pass->source_count];
    size_t before = pass->list.count;
    if (open_file(path, name, source, error))
        return -1;
    pass->source_count++;
    if (source->list(source->state, NULL, &pass->list, error))
        return -1;
    void *order = realloc(pass->order, (pass->list.count + 1) * sizeof *pass->order);
    if (!order)
        return gemma4_fail(error, "%s: out of memory", path);
    pass->order = order;
    for (size_t i = before; i < pass->list.count; i++) {
        pass->order[i].item = i;
        pass->order[i].source = pass->source_count - 1;
    }
    if (!name)
        return 0;
    if (pass->list.count != before + 1)
        return gemma4_fail(
            error, "%s: expected one tensor, since each other file of the folder is one, found %zu",
            path, pass->list.count - before);
    gemma4_stored_tensor *only = &pass->list.items[before];
    if (strlen(name) >= sizeof only->name)
        return gemma4_fail(error, "%s: expected names of at most %zu bytes, found a longer one",
                           path, sizeof only->name - 1);
    snprintf(only->name, sizeof only->name, "%s", name);
    return 0;
}

static int by_name(const void *a, const void *b, void *context)
{
    const gemma4_pass *pass = context;
    return strcmp(pass->list.items[*(const size_t *)a].name,
                  pass->list.items[*(const size_t *)b].name);
}

static int sort_pass(gemma4_pass *pass, gemma4_error *error)
{
    if (pass->list.count == 0)
        return gemma4_fail(error, "%s: expected tensors, found none", pass->path);
    qsort_r(pass->order, pass->list.count, sizeof *pass->order, by_name, pass);
    for (size_t i = 1; i < pass->list.count; i++)
        if (!strcmp(gemma4_pass_at(pass, i - 1)->name, gemma4_pass_at(pass, i)->name))
            return gemma4_fail(error, "%s: %s: expected every tensor once, found it twice",
                               pass->path, gemma4_pass_at(pass, i)->name);
    return 0;
}

const char *gemma4_pass_path(const gemma4_pass *pass)
{
    return pass->path;
}

size_t gemma4_pass_count(const gemma4_pass *pass)
{
    return pass->list.count;
}

const gemma4_stored_tensor *gemma4_pass_at(const gemma4_pass *pass, size_t index)
{
    return &pass->list.items[pass->order[index].item];
}

int gemma4_pass_read(gemma4_pass *pass, const gemma4_stored_tensor *tensor, const size_t *start,
                     const size_t *extent, void *elements, gemma4_error *error)
{
    size_t low = 0, high = pass->list.count;
    while (low + 1 < high) { /* the order says which source it is of */
        size_t middle = low + (high - low) / 2;
        if (strcmp(gemma4_pass_at(pass, middle)->name, tensor->name) <= 0)
            low = middle;
        else
            high = middle;
    }
    gemma4_activation_source *source = &pass->sources[pass->order[low].source];
    const gemma4_stored_tensor *own = gemma4_pass_at(pass, low);
    gemma4_stored_tensor as_stored = *own;
    as_stored.element = tensor->element;
    if (source->close == NULL)
        return gemma4_fail(error, "%s: %s: no such tensor", pass->path, tensor->name);
    return source->read(source->state, &as_stored, start, extent, elements, error);
}

const char *gemma4_pass_attribute(const gemma4_pass *pass, const char *name)
{
    return pass->source_count == 1 ? pass->sources[0].attribute(pass->sources[0].state, name)
                                   : NULL;
}

/* --- passes --- */

static int add_pass(gemma4_foreign *foreign, gemma4_pass *pass, gemma4_error *error)
{
    gemma4_pass **passes = foreign->count < PASSES_MAX
                               ? realloc(foreign->passes, (foreign->count + 1) * sizeof *passes)
                               : NULL;
    if (!passes || sort_pass(pass, error)) {
        if (!passes)
            gemma4_fail(error, "%s: expected at most %d passes that fit into memory, found more",
                        pass->path, PASSES_MAX);
        pass_close(pass);
        return -1;
    }
    foreign->passes = passes;
    foreign->passes[foreign->count++] = pass;
    return 0;
}

static int open_single(gemma4_foreign *foreign, const char *path, gemma4_error *error)
{
    gemma4_pass *pass = pass_new(path, 1, error);
    if (!pass)
        return -1;
    if (add_file(pass, path, NULL, error)) {
        pass_close(pass);
        return -1;
    }
    return add_pass(foreign, pass, error);
}

/* A folder with a tensor a file. */
static int open_tensors(gemma4_foreign *foreign, const gemma4_folder *folder, gemma4_error *error)
{
    gemma4_pass *pass = pass_new(folder->path, folder->count, error);
    for (size_t i = 0; pass && i < folder->count; i++)
        if (add_file(pass, folder->entries[i].path, folder->entries[i].stem, error)) {
            pass_close(pass);
            return -1;
        }
    return pass ? add_pass(foreign, pass, error) : -1;
}

static int open_path(gemma4_foreign *foreign, const char *path, int depth, gemma4_error *error)
{
    struct stat status;
    gemma4_folder folder;
    if (stat(path, &status))
        return gemma4_fail(error, "%s: cannot open: %s", path, strerror(errno));
    if (!S_ISDIR(status.st_mode))
        return open_single(foreign, path, error);
    if (depth == 2)
        return gemma4_fail(
            error, "%s: expected files, found a folder: dumps lie at most two folders deep", path);
    if (gemma4_folder_read(path, &folder, error))
        return -1;
    int result = 0;
    if (folder.kind == GEMMA4_FOLDER_OF_TENSORS)
        result = open_tensors(foreign, &folder, error);
    else
        for (size_t i = 0; i < folder.count && !result; i++)
            result = open_path(foreign, folder.entries[i].path, depth + 1, error);
    gemma4_folder_free(&folder);
    return result;
}

int gemma4_foreign_open(const char *const *paths, size_t count, gemma4_foreign *foreign,
                        gemma4_error *error)
{
    *foreign = (gemma4_foreign){0};
    for (size_t i = 0; i < count; i++)
        if (open_path(foreign, paths[i], 0, error)) {
            gemma4_foreign_close(foreign);
            return -1;
        }
    return 0;
}

void gemma4_foreign_close(gemma4_foreign *foreign)
{
    for (size_t i = 0; i < foreign->count; i++)
        pass_close(foreign->passes[i]);
    free(foreign->passes);
    *foreign = (gemma4_foreign){0};
}
