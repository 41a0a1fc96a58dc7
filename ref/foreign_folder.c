#include "foreign_folder.h"
#include "foreign_internal.h"
#include "safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { ENTRIES_MAX = 65536 };

/* The kinds of entries that count, by their names' endings. A folder holds one of them. */
static const char *const endings[] = {"/", ".npy", ".safetensors", ".npz", ".h5", ".hdf5", ".bin"};
enum { SUBFOLDER = 0, NPY = 1, SAFETENSORS = 2, RAW = 6, KINDS = 7, OTHER = KINDS };

static int kind_of(const char *path, const char *name)
{
    struct stat status;
    if (name[0] == '.' || stat(path, &status))
        return OTHER;
    if (S_ISDIR(status.st_mode))
        return SUBFOLDER;
    for (int kind = 1; kind < KINDS; kind++)
        if (gemma4_ends_with(name, endings[kind]))
            return kind == RAW &&
                           (gemma4_ends_with(name, "-tokens.bin") || !gemma4_is_raw_logits(path))
                       ? OTHER
                       : kind;
    return OTHER;
}

static int add_entry(gemma4_folder *folder, const char *name, int *kind, gemma4_error *error)
{
    char *path;
    if (asprintf(&path, "%s/%s", folder->path, name) < 0)
        return gemma4_fail(error, "%s: out of memory", folder->path);
    int found = kind_of(path, name);
    if (found == OTHER) {
        free(path);
        return 0;
    }
    gemma4_folder_entry *entries = NULL;
    char *stem = strndup(name, strlen(name) - (found == SUBFOLDER ? 0 : strlen(endings[found])));
    if (*kind != OTHER && *kind != found)
        gemma4_fail(
            error, "%s: expected entries of one kind, found *%s and *%s: name those that are meant",
            folder->path, endings[*kind], endings[found]);
    else if (folder->count == ENTRIES_MAX)
        gemma4_fail(error, "%s: expected at most %d files, found more", folder->path, ENTRIES_MAX);
    else if (!stem || !(entries = realloc(folder->entries, (folder->count + 1) * sizeof *entries)))
        gemma4_fail(error, "%s: out of memory", folder->path);
    if (!entries) {
        free(path);
        free(stem);
        return -1;
    }
    folder->entries = entries;
    entries[folder->count++] = (gemma4_folder_entry){path, stem};
    *kind = found;
    return 0;
}

/* Numbers by value: Pass2 before Pass10. */
static int compare_natural(const char *a, const char *b)
{
    static const char digits[] = "0123456789";
    while (*a && *b) {
        size_t m = strspn(a, digits), n = strspn(b, digits);
        if (m && n) {
            size_t zeros_a = strspn(a, "0"), zeros_b = strspn(b, "0"),
                   long_a = m - (zeros_a < m ? zeros_a : m),
                   long_b = n - (zeros_b < n ? zeros_b : n);
            int order = long_a != long_b ? (long_a < long_b ? -1 : 1)
                                         : strncmp(a + zeros_a, b + zeros_b, long_a);
            if (order)
                return order;
            a += m;
            b += n;
        } else {
            if (*a != *b)
                return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
            a++;
            b++;
        }
    }
    return (*a != '\0') - (*b != '\0');
}

static int by_name(const void *a, const void *b)
{
    const gemma4_folder_entry *x = a, *y = b;
    int order = compare_natural(x->path, y->path);
    return order ? order : strcmp(x->path, y->path);
}

/* Whether every safetensors file holds one tensor only, "data". */
static int hold_data_only(const gemma4_folder *folder, bool *all, gemma4_error *error)
{
    *all = true;
    for (size_t i = 0; i < folder->count && *all; i++) {
        gemma4_safetensors *file = gemma4_safetensors_open(folder->entries[i].path, error);
        if (!file)
            return -1;
        *all = gemma4_safetensors_count(file) == 1 &&
               !strcmp(gemma4_safetensors_at(file, 0)->name, "data");
        gemma4_safetensors_close(file);
    }
    return 0;
}

static int read_entries(gemma4_folder *folder, int *kind, gemma4_error *error)
{
    DIR *d = opendir(folder->path);
    int status = 0;
    if (!d)
        return gemma4_fail(error, "%s: cannot list: %s", folder->path, strerror(errno));
    for (struct dirent *entry; !status && (errno = 0, entry = readdir(d));)
        status = add_entry(folder, entry->d_name, kind, error);
    if (!status && errno)
        status = gemma4_fail(error, "%s: cannot list: %s", folder->path, strerror(errno));
    closedir(d);
    return status;
}

int gemma4_folder_read(const char *path, gemma4_folder *folder, gemma4_error *error)
{
    int kind = OTHER;
    bool tensors = false;
    *folder = (gemma4_folder){.path = path};
    int status = read_entries(folder, &kind, error);
    if (!status && folder->count == 0)
        status = gemma4_fail(error,
                             "%s: expected dumps in the folder (*.npy, *.safetensors, *.npz, *.h5, "
                             "or folders of them), found none",
                             path);
    if (!status && kind == SAFETENSORS)
        status = hold_data_only(folder, &tensors, error);
    if (status) {
        gemma4_folder_free(folder);
        return -1;
    }
    qsort(folder->entries, folder->count, sizeof *folder->entries, by_name);
    folder->kind = tensors || kind == NPY ? GEMMA4_FOLDER_OF_TENSORS : GEMMA4_FOLDER_OF_PASSES;
    return 0;
}

void gemma4_folder_free(gemma4_folder *folder)
{
    for (size_t i = 0; i < folder->count; i++) {
        free(folder->entries[i].path);
        free(folder->entries[i].stem);
    }
    free(folder->entries);
    *folder = (gemma4_folder){0};
}
