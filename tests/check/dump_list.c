/* Which dumps are to be judged in one call. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "several.h"

enum { MOST_DUMPS = 1000, LABEL_SIZE = 256 };

/* The name's ending, from the dot on; "" where it has none. */
static const char *ending(const char *name)
{
    const char *dot = strrchr(name, '.'), *slash = strrchr(name, '/');
    return dot && dot != name && !(slash && dot < slash) ? dot : name + strlen(name);
}

static bool is_dump_name(const char *name)
{
    static const char *const endings[] = {".h5", ".hdf5", ".safetensors"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (name[0] != '.' && !strcmp(ending(name), endings[i]))
            return true;
    return false;
}

static int grow(gemma4_dump_list *list, gemma4_listed_dump **dump, const char *path,
                gemma4_error *error)
{
    gemma4_listed_dump *dumps =
        list->count < MOST_DUMPS ? realloc(list->dumps, (list->count + 1) * sizeof *dumps) : NULL;
    if (list->count == MOST_DUMPS)
        return gemma4_fail(error, "%s: expected at most %d dumps", path, MOST_DUMPS);
    list->dumps = dumps ? dumps : list->dumps;
    if (!dumps)
        return gemma4_fail(error, "%s: out of memory", path);
    *dump = &dumps[list->count];
    **dump = (gemma4_listed_dump){0};
    list->count++;
    return 0;
}

/* A path in the list is relative to where the list lies. The result is malloc'd; NULL when out of
 * memory. */
static char *beside(const char *list, const char *path)
{
    const char *slash = strrchr(list, '/');
    size_t directory = path[0] == '/' || !slash ? 0 : (size_t)(slash + 1 - list),
           length = directory + strlen(path) + 1;
    char *joined = malloc(length);
    if (joined)
        snprintf(joined, length, "%.*s%s", (int)directory, list, path);
    return joined;
}

/* ------------------------------------------------------------------- labels */

static bool is_taken(const gemma4_dump_list *list, size_t count, const char *label)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(list->dumps[i].label, label))
            return true;
    return false;
}

/* The file's name without folders and ending; dots would nest in a classname. Of two alike the
 * second gets a number. */
static int label_dumps(gemma4_dump_list *list, gemma4_error *error)
{
    for (size_t i = 0; i < list->count; i++) {
        const char *path = list->dumps[i].path, *slash = strrchr(path, '/'),
                   *name = slash ? slash + 1 : path;
        char stem[LABEL_SIZE], label[LABEL_SIZE + 24];
        snprintf(stem, sizeof stem, "%.*s", (int)(ending(name) - name), name);
        for (char *c = stem; *c; c++)
            if (*c == '.' || (unsigned char)*c < 0x20)
                *c = '-';
        snprintf(label, sizeof label, "%s", stem);
        for (size_t k = 2; is_taken(list, i, label); k++)
            snprintf(label, sizeof label, "%s-%zu", stem, k);
        if (!(list->dumps[i].label = strdup(label)))
            return gemma4_fail(error, "%s: out of memory", path);
    }
    return 0;
}

/* -------------------------------------------------------------------- folder */

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_dump(const struct dirent *entry)
{
    return is_dump_name(entry->d_name);
}

static int read_folder(const char *folder, gemma4_dump_list *list, gemma4_error *error)
{
    struct dirent **entries;
    int count = scandir(folder, &entries, is_dump, by_name), status = 0;
    if (count < 0)
        return gemma4_fail(error, "%s: %s", folder, strerror(errno));
    for (int i = 0; i < count; i++) {
        gemma4_listed_dump *dump = NULL;
        size_t length = strlen(folder) + strlen(entries[i]->d_name) + 2;
        status = status || grow(list, &dump, folder, error) ? -1 : 0;
        if (!status && !(dump->path = malloc(length)))
            status = gemma4_fail(error, "%s: out of memory", folder);
        if (!status)
            snprintf(dump->path, length, "%s%s%s", folder,
                     folder[strlen(folder) - 1] == '/' ? "" : "/", entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    if (!status && count == 0)
        return gemma4_fail(error, "%s: expected dumps (*.h5, *.hdf5, *.safetensors), found none",
                           folder);
    return status;
}

/* ---------------------------------------------------------------------- list */

static int get_optional(const gemma4_node *dump, const char *key, const char **value,
                        gemma4_error *error)
{
    const gemma4_node *node = gemma4_node_get(dump, key);
    *value = NULL;
    return node ? gemma4_node_string(node, value, error) : 0;
}

static int read_dump(const gemma4_node *node, const char *path, gemma4_dump_list *list,
                     gemma4_error *error)
{
    static const char *const keys[] = {"file", "case", "model", "dtype", "require", NULL};
    gemma4_listed_dump *dump = NULL;
    const char *file, *model;
    if (gemma4_node_only_keys(node, keys, error) || gemma4_get_string(node, "file", &file, error) ||
        grow(list, &dump, path, error) || get_optional(node, "case", &dump->case_name, error) ||
        get_optional(node, "model", &model, error) ||
        get_optional(node, "dtype", &dump->dtype, error) ||
        get_optional(node, "require", &dump->require, error))
        return -1;
    if (dump->case_name && model)
        return gemma4_node_fail(node, "a case or a model, not both", error);
    dump->path = beside(path, file);
    if (model) {
        char **paths = realloc(list->paths, (list->path_count + 1) * sizeof *paths);
        list->paths = paths ? paths : list->paths;
        if (!paths || !(paths[list->path_count] = beside(path, model)))
            return gemma4_fail(error, "%s: out of memory", path);
        dump->model_dir = paths[list->path_count++];
    }
    return dump->path ? 0 : gemma4_fail(error, "%s: out of memory", path);
}

static int read_list(const char *path, gemma4_dump_list *list, gemma4_error *error)
{
    static const char *const keys[] = {"format", "version", "dumps", NULL};
    const gemma4_node *root, *format, *dumps;
    const char *name;
    int64_t version;
    list->document = gemma4_document_read(path, error);
    if (!list->document)
        return -1;
    root = gemma4_document_root(list->document);
    format = gemma4_node_get(root, "format");
    if (gemma4_node_only_keys(root, keys, error) || gemma4_get_string(root, "format", &name, error))
        return -1;
    if (strcmp(name, "gemma4-dumps"))
        return gemma4_node_fail(format, "gemma4-dumps", error);
    if (gemma4_get_int(root, "version", 1, 1, &version, error) ||
        gemma4_get_node(root, "dumps", GEMMA4_SEQUENCE, &dumps, error))
        return -1;
    if (dumps->count == 0)
        return gemma4_node_fail(dumps, "at least one dump", error);
    for (size_t i = 0; i < dumps->count; i++)
        if (read_dump(&dumps->items[i], path, list, error))
            return -1;
    return 0;
}

int gemma4_dump_list_open(const char *path, gemma4_dump_list *list, gemma4_error *error)
{
    struct stat s;
    *list = (gemma4_dump_list){0};
    bool folder = stat(path, &s) == 0 && S_ISDIR(s.st_mode);
    if ((folder ? read_folder(path, list, error) : read_list(path, list, error)) ||
        label_dumps(list, error)) {
        gemma4_dump_list_free(list);
        return -1;
    }
    return 0;
}

void gemma4_dump_list_free(gemma4_dump_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->dumps[i].path);
        free(list->dumps[i].label);
    }
    for (size_t i = 0; i < list->path_count; i++)
        free(list->paths[i]);
    free(list->dumps);
    free(list->paths);
    gemma4_document_free(list->document);
    *list = (gemma4_dump_list){0};
}
