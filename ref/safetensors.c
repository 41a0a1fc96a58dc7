/* https://github.com/huggingface/safetensors#format */
#include "safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "document.h"
#include "guard.h"

#define LENGTH_BYTES 8
#define INDEX_NAME "model.safetensors.index.json"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the mapped data are little-endian");

/* One mapped file. Tensor names point into its header. */
typedef struct shard {
    char *path;
    unsigned char *map;
    size_t size;
    int guard;
    gemma4_document *header;
} shard;

struct gemma4_safetensors {
    size_t n_shards;
    shard *shards;
    size_t count;
    gemma4_tensor *tensors; /* of all shards, sorted by name */
};

static const struct {
    const char *name;
    gemma4_dtype dtype;
    size_t size;
} DTYPES[] = {
    {"BF16", GEMMA4_BF16, 2}, {"F16", GEMMA4_F16, 2}, {"F32", GEMMA4_F32, 4},
    {"F64", GEMMA4_F64, 8},   {"I32", GEMMA4_I32, 4}, {"I64", GEMMA4_I64, 8},
};

/* --- one entry of a header --- */

/* Sets dtype and dtype_name; element_size is 0 for a type that this library does not know. */
static int read_dtype(const gemma4_node *entry, gemma4_tensor *tensor, size_t *element_size,
                      gemma4_error *error)
{
    const char *name;
    if (gemma4_get_string(entry, "dtype", &name, error) != 0)
        return -1;
    size_t length = strlen(name);
    if (length == 0 || length >= sizeof tensor->dtype_name)
        return gemma4_node_fail(gemma4_node_get(entry, "dtype"), "a dtype's name of 1 to 15 bytes",
                                error);
    memcpy(tensor->dtype_name, name, length + 1);
    tensor->dtype = GEMMA4_OTHER;
    *element_size = 0;
    for (size_t i = 0; i < sizeof DTYPES / sizeof DTYPES[0]; i++) {
        if (strcmp(name, DTYPES[i].name) == 0) {
            tensor->dtype = DTYPES[i].dtype;
            *element_size = DTYPES[i].size;
        }
    }
    return 0;
}

static int read_shape(const gemma4_node *entry, gemma4_tensor *tensor, gemma4_error *error)
{
    const gemma4_node *shape;
    if (gemma4_get_node(entry, "shape", GEMMA4_SEQUENCE, &shape, error) != 0)
        return -1;
    if (shape->count > GEMMA4_MAX_RANK)
        return gemma4_fail(error, "%s:%zu: %s: expected at most %d axes, found %zu",
                           gemma4_document_name(shape->document), shape->line, shape->path,
                           GEMMA4_MAX_RANK, shape->count);
    tensor->rank = shape->count;
    for (size_t i = 0; i < shape->count; i++) {
        int64_t length;
        if (gemma4_node_int(&shape->items[i], 0, INT64_MAX, &length, error) != 0)
            return -1;
        tensor->shape[i] = (size_t)length;
    }
    return 0;
}

/* Sets data and size from data_offsets, which must lie in the shard's data. */
static int read_range(const gemma4_node *entry, const shard *file, const unsigned char *data,
                      gemma4_tensor *tensor, gemma4_error *error)
{
    const gemma4_node *offsets;
    int64_t begin, end, data_size = file->map + file->size - data;
    if (gemma4_get_node(entry, "data_offsets", GEMMA4_SEQUENCE, &offsets, error) != 0)
        return -1;
    if (offsets->count != 2)
        return gemma4_node_fail(offsets, "two offsets", error);
    if (gemma4_node_int(&offsets->items[0], 0, data_size, &begin, error) != 0 ||
        gemma4_node_int(&offsets->items[1], begin, data_size, &end, error) != 0)
        return -1;
    tensor->data = data + begin;
    tensor->size = (size_t)(end - begin);
    return 0;
}

/* The data's size must be the shape's, and its start a multiple of the element's size (the mapping
 * starts at a page). */
static int check_size(const gemma4_tensor *tensor, const shard *file, size_t element_size,
                      gemma4_error *error)
{
    size_t size = element_size;
    bool overflow = false, empty = false;
    for (size_t i = 0; i < tensor->rank; i++) {
        empty |= tensor->shape[i] == 0;
        overflow |= __builtin_mul_overflow(size, tensor->shape[i], &size);
    }
    if (empty) /* whatever the other axes are */
        size = 0;
    else if (overflow)
        return gemma4_fail(
            error, "%s: %s: expected a shape that fits into memory, found one that overflows",
            file->path, tensor->name);
    if (size != tensor->size)
        return gemma4_fail(error, "%s: %s: expected %zu bytes of data for its shape, found %zu",
                           file->path, tensor->name, size, tensor->size);
    size_t offset = (size_t)((const unsigned char *)tensor->data - file->map);
    if (offset % element_size != 0)
        return gemma4_fail(
            error,
            "%s: %s: expected data at a multiple of %zu bytes in the file, found them misaligned "
            "at %zu",
            file->path, tensor->name, element_size, offset);
    return 0;
}

static int read_tensor(const gemma4_node *entry, const char *name, const shard *file,
                       const unsigned char *data, gemma4_tensor *tensor, gemma4_error *error)
{
    static const char *const allowed[] = {"dtype", "shape", "data_offsets", NULL};
    size_t element_size = 0;
    tensor->name = name;
    tensor->file = file->path;
    if (gemma4_node_only_keys(entry, allowed, error) != 0 ||
        read_dtype(entry, tensor, &element_size, error) != 0 ||
        read_shape(entry, tensor, error) != 0 || read_range(entry, file, data, tensor, error) != 0)
        return -1;
    return element_size == 0 ? 0 : check_size(tensor, file, element_size, error);
}

static int check_metadata(const gemma4_node *metadata, gemma4_error *error)
{
    if (metadata->kind != GEMMA4_MAPPING)
        return gemma4_node_fail(metadata, "a mapping", error);
    for (size_t i = 0; i < metadata->count; i++) {
        const char *value;
        if (gemma4_node_string(&metadata->items[i], &value, error) != 0)
            return -1;
    }
    return 0;
}

/* --- one file --- */

static int map_file(int fd, shard *file, gemma4_error *error)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return gemma4_fail(error, "%s: %s", file->path, strerror(errno));
    if (!S_ISREG(status.st_mode))
        return gemma4_fail(error, "%s: expected a regular file, found another kind", file->path);
    if (status.st_size < LENGTH_BYTES)
        return gemma4_fail(error, "%s: expected at least %d bytes, found %jd", file->path,
                           LENGTH_BYTES, (intmax_t)status.st_size);
    void *map = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        return gemma4_fail(error, "%s: cannot be mapped: %s", file->path, strerror(errno));
#ifdef MADV_HUGEPAGE
    (void)madvise(map, (size_t)status.st_size, MADV_HUGEPAGE); /* a wish: weights are read faster
                                                                  then (spec/twins.md, "Memory") */
#endif
    file->map = map;
    file->size = (size_t)status.st_size;
    file->guard = gemma4_guard_mapping(map, file->size, file->path);
    return 0;
}

static int parse_header(shard *file, size_t *header_size, gemma4_error *error)
{
    uint64_t length = 0;
    for (int i = 0; i < LENGTH_BYTES; i++)
        length |= (uint64_t)file->map[i] << (8 * i);
    if (length > file->size - LENGTH_BYTES)
        return gemma4_fail(error,
                           "%s: expected a header of at most %zu bytes, found a length of %ju",
                           file->path, file->size - LENGTH_BYTES, (uintmax_t)length);
    *header_size = (size_t)length;
    if (length == 0 || file->map[LENGTH_BYTES] != '{')
        return gemma4_fail(error, "%s: expected a header that begins with '{', found another one",
                           file->path);
    file->header = gemma4_document_parse(file->path, file->map + LENGTH_BYTES, *header_size, error);
    return file->header == NULL ? -1 : 0;
}

/* Maps file->path and parses its header. Whatever is acquired is released by shard_close, on
 * failure as well. */
static int shard_open(shard *file, size_t *header_size, gemma4_error *error)
{
    int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* non-blocking: a FIFO is
                                                                     refused, not waited for */
    if (fd < 0)
        return gemma4_fail(error, "%s: %s", file->path, strerror(errno));
    int status = map_file(fd, file, error);
    close(fd);
    return status != 0 ? -1 : parse_header(file, header_size, error);
}

static void shard_close(shard *file)
{
    gemma4_document_free(file->header);
    if (file->map != NULL) {
        gemma4_guard_forget_mapping(file->guard);
        munmap(file->map, file->size);
    }
    free(file->path);
}

static int compare_data(const void *a, const void *b)
{
    const gemma4_tensor *x = a, *y = b;
    uintptr_t x_begin = (uintptr_t)x->data, y_begin = (uintptr_t)y->data;
    if (x_begin != y_begin)
        return x_begin < y_begin ? -1 : 1;
    return x->size < y->size ? -1 : x->size > y->size; /* empty tensors first */
}

/* The format demands that the tensors fill the data without holes and without overlap. Sorts them
 * by place. */
static int check_layout(const shard *file, const unsigned char *data, gemma4_tensor *tensors,
                        size_t count, gemma4_error *error)
{
    if (count != 0)
        qsort(tensors, count, sizeof *tensors, compare_data);
    const unsigned char *next = data, *end = file->map + file->size;
    for (size_t i = 0; i < count; i++) {
        const unsigned char *begin = tensors[i].data;
        if (begin != next)
            return gemma4_fail(error,
                               "%s: %s: expected data from offset %td, found %td, which makes %s",
                               file->path, tensors[i].name, next - data, begin - data,
                               begin < next ? "an overlap" : "a hole");
        next = begin + tensors[i].size;
    }
    if (next != end)
        return gemma4_fail(error, "%s: expected %td bytes of data, found %td", file->path,
                           next - data, end - data);
    return 0;
}

/* Appends the shard's tensors. */
static int add_tensors(gemma4_safetensors *files, const shard *file, size_t header_size,
                       gemma4_error *error)
{
    const gemma4_node *root = gemma4_document_root(file->header);
    const unsigned char *data = file->map + LENGTH_BYTES + header_size;
    if (root->kind != GEMMA4_MAPPING)
        return gemma4_node_fail(root, "a mapping", error);
    gemma4_tensor *tensors =
        realloc(files->tensors, (files->count + root->count + 1) * sizeof *tensors);
    if (tensors == NULL)
        return gemma4_fail(error, "%s: out of memory", file->path);
    files->tensors = tensors;
    gemma4_tensor *added = tensors + files->count;
    size_t count = 0;
    for (size_t i = 0; i < root->count; i++) {
        if (strcmp(root->keys[i], "__metadata__") == 0) {
            if (check_metadata(&root->items[i], error) != 0)
                return -1;
            continue;
        }
        memset(&added[count], 0, sizeof *added);
        if (read_tensor(&root->items[i], root->keys[i], file, data, &added[count], error) != 0)
            return -1;
        count++;
    }
    files->count += count;
    return check_layout(file, data, added, count, error);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const gemma4_tensor *)a)->name, ((const gemma4_tensor *)b)->name);
}

/* Sorts by name and refuses a tensor that stands in two shards. */
static int sort_tensors(gemma4_safetensors *files, gemma4_error *error)
{
    if (files->count != 0)
        qsort(files->tensors, files->count, sizeof *files->tensors, compare_names);
    for (size_t i = 1; i < files->count; i++) {
        const gemma4_tensor *a = &files->tensors[i - 1], *b = &files->tensors[i];
        if (strcmp(a->name, b->name) == 0)
            return gemma4_fail(error, "%s: %s: expected every tensor once, found it in %s too",
                               a->file, a->name, b->file);
    }
    return 0;
}

static int open_shards(gemma4_safetensors *files, gemma4_error *error)
{
    for (size_t i = 0; i < files->n_shards; i++) {
        size_t header_size = 0;
        if (shard_open(&files->shards[i], &header_size, error) != 0 ||
            add_tensors(files, &files->shards[i], header_size, error) != 0)
            return -1;
    }
    return sort_tensors(files, error);
}

/* --- the public functions --- */

/* For n_shards shards, whose paths are still to be set. */
static gemma4_safetensors *files_new(size_t n_shards, const char *place, gemma4_error *error)
{
    gemma4_safetensors *files = calloc(1, sizeof *files);
    if (files != NULL && (files->shards = calloc(n_shards + 1, sizeof *files->shards)) != NULL) {
        files->n_shards = n_shards;
        return files;
    }
    free(files);
    gemma4_fail(error, "%s: out of memory", place);
    return NULL;
}

void gemma4_safetensors_close(gemma4_safetensors *files)
{
    if (files == NULL)
        return;
    for (size_t i = 0; i < files->n_shards; i++)
        shard_close(&files->shards[i]);
    free(files->shards);
    free(files->tensors);
    free(files);
}

gemma4_safetensors *gemma4_safetensors_open(const char *path, gemma4_error *error)
{
    gemma4_safetensors *files = files_new(1, path, error);
    if (files == NULL)
        return NULL;
    files->shards[0].path = strdup(path);
    if (files->shards[0].path == NULL)
        gemma4_fail(error, "%s: out of memory", path);
    else if (open_shards(files, error) == 0)
        return files;
    gemma4_safetensors_close(files);
    return NULL;
}

/* directory/name, to be freed; NULL with the error set where memory runs out. */
static char *join(const char *directory, const char *name, gemma4_error *error)
{
    char *path;
    if (asprintf(&path, "%s/%s", directory, name) >= 0)
        return path;
    gemma4_fail(error, "%s: out of memory", directory);
    return NULL;
}

/* --- sharded checkpoints --- */

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Fills names (weight_map's count of them) with the distinct shard names and sets n_names. A name
 * must stay in the checkpoint's directory. */
static int shard_names(const gemma4_node *weight_map, const char **names, size_t *n_names,
                       gemma4_error *error)
{
    for (size_t i = 0; i < weight_map->count; i++) {
        if (gemma4_node_string(&weight_map->items[i], &names[i], error) != 0)
            return -1;
        if (names[i][0] == '\0' || strchr(names[i], '/') != NULL || strstr(names[i], "..") != NULL)
            return gemma4_node_fail(&weight_map->items[i], "a file name without '/' and '..'",
                                    error);
    }
    if (weight_map->count != 0)
        qsort(names, weight_map->count, sizeof *names, compare_strings);
    *n_names = 0;
    for (size_t i = 0; i < weight_map->count; i++)
        if (i == 0 || strcmp(names[i], names[*n_names - 1]) != 0)
            names[(*n_names)++] = names[i];
    return 0;
}

/* The index must name every tensor of the shards, in the shard that holds it, and no other. */
static int check_index(const gemma4_safetensors *files, const gemma4_node *weight_map,
                       gemma4_error *error)
{
    for (size_t i = 0; i < weight_map->count; i++) {
        const char *name = weight_map->keys[i];
        const gemma4_tensor *tensor = gemma4_safetensors_find(files, name);
        if (tensor == NULL)
            return gemma4_fail(error, "%s:%zu: %s: expected the tensor in %s, found none",
                               gemma4_document_name(weight_map->document),
                               weight_map->items[i].line, name, weight_map->items[i].text);
        if (strcmp(strrchr(tensor->file, '/') + 1, weight_map->items[i].text) != 0)
            return gemma4_fail(error, "%s:%zu: %s: expected the tensor in %s, found it in %s",
                               gemma4_document_name(weight_map->document),
                               weight_map->items[i].line, name, weight_map->items[i].text,
                               tensor->file);
    }
    for (size_t i = 0; i < files->count; i++)
        if (gemma4_node_get(weight_map, files->tensors[i].name) == NULL)
            return gemma4_fail(error, "%s: %s: expected the tensor in " INDEX_NAME ", found none",
                               files->tensors[i].file, files->tensors[i].name);
    return 0;
}

static int set_shard_paths(gemma4_safetensors *files, const char *directory, const char **names,
                           gemma4_error *error)
{
    for (size_t i = 0; i < files->n_shards; i++)
        if ((files->shards[i].path = join(directory, names[i], error)) == NULL)
            return -1;
    return 0;
}

static gemma4_safetensors *open_weight_map(const gemma4_node *weight_map, const char *directory,
                                           gemma4_error *error)
{
    size_t n_names = 0;
    gemma4_safetensors *files = NULL;
    const char **names = malloc((weight_map->count + 1) * sizeof *names);
    if (names == NULL)
        gemma4_fail(error, "%s: out of memory", directory);
    else if (shard_names(weight_map, names, &n_names, error) == 0)
        files = files_new(n_names, directory, error);
    if (files != NULL &&
        (set_shard_paths(files, directory, names, error) != 0 || open_shards(files, error) != 0 ||
         check_index(files, weight_map, error) != 0)) {
        gemma4_safetensors_close(files);
        files = NULL;
    }
    free(names);
    return files;
}

static gemma4_safetensors *open_index(const char *path, const char *directory, gemma4_error *error)
{
    const gemma4_node *weight_map;
    gemma4_safetensors *files = NULL;
    gemma4_document *index = gemma4_document_read(path, error);
    if (index == NULL)
        return NULL;
    if (gemma4_get_node(gemma4_document_root(index), "weight_map", GEMMA4_MAPPING, &weight_map,
                        error) == 0)
        files = open_weight_map(weight_map, directory, error);
    gemma4_document_free(index);
    return files;
}

gemma4_safetensors *gemma4_safetensors_open_checkpoint(const char *directory, gemma4_error *error)
{
    gemma4_safetensors *files = NULL;
    char *index = join(directory, INDEX_NAME, error);
    char *single = index == NULL ? NULL : join(directory, "model.safetensors", error);
    /* Only an index that is absent leads to the single file: one that cannot be read is an
     * error. */
    if (single != NULL && access(index, F_OK) != 0 && errno == ENOENT)
        files = gemma4_safetensors_open(single, error);
    else if (single != NULL)
        files = open_index(index, directory, error);
    free(index);
    free(single);
    return files;
}

/* --- access --- */

size_t gemma4_safetensors_count(const gemma4_safetensors *files)
{
    return files->count;
}

const gemma4_tensor *gemma4_safetensors_at(const gemma4_safetensors *files, size_t index)
{
    return &files->tensors[index];
}

const gemma4_tensor *gemma4_safetensors_find(const gemma4_safetensors *files, const char *name)
{
    gemma4_tensor key = {.name = name};
    return files->count == 0
               ? NULL
               : bsearch(&key, files->tensors, files->count, sizeof *files->tensors, compare_names);
}

const char *gemma4_safetensors_metadata(const gemma4_safetensors *files, const char *key)
{
    if (files->n_shards != 1)
        return NULL;
    const gemma4_node *metadata =
        gemma4_node_get(gemma4_document_root(files->shards[0].header), "__metadata__");
    const gemma4_node *value = gemma4_node_get(metadata, key);
    return value != NULL ? value->text : NULL;
}
