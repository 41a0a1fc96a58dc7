/* The HDF5 reader of activation files. The file is hostile until proven otherwise: HDF5 lets a file
 * name other files (external and soft links, external storage, virtual datasets) and code (filter
 * plugins). None of it is followed: every object is reached through hard links only, and a dataset
 * is looked at only after its storage has been. */
#include "activations_internal.h"
#include "config.h"
#include "reader_internal.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bounds for what a file can make the reader do; real files stay far below. */
enum {
    LINKS_MAX = 65536,
    ATTRIBUTES_MAX = 256,
    PATH_SIZE = 256, /* longer paths are cut off; no tap's name is near that */
    /* In groups that can hold no tap, where only names are looked at: */
    FOREIGN_LINKS_MAX = 4096,
    FOREIGN_DEPTH_MAX = 5,
    DEPTH_MAX = 32,    /* of groups in a file whose names are the engine's own */
    ROWS_MAX = 1 << 20 /* positions in an attribute rows there */
};
/* What ends an iteration over attributes. */
enum { TOO_MANY = 1, OUT_OF_MEMORY };
#define CHUNK_MAX_BYTES ((size_t)1 << 30)
/* Of unpacked chunks: what HDF5 keeps by itself, and the most that we let it keep. */
#define OWN_CACHE_BYTES ((size_t)1 << 20)
#define CACHE_MAX_BYTES ((size_t)256 << 20)
#define CACHE_SLOTS 12421 /* a prime, far above the chunks in it */

typedef struct root_attribute {
    char *name, *text;
} root_attribute;

typedef struct hdf5_state {
    char *path;
    hid_t file;
    root_attribute attributes[ATTRIBUTES_MAX];
    size_t attributes_count;
    /* The dataset last read, kept open so that reading it row by row finds the chunk still
     * unpacked. */
    hid_t dataset;
    char dataset_name[GEMMA4_STORED_NAME_SIZE];
    bool names_are_paths; /* "blocks/0/hook.q" is what HDF5 calls it; else "layers.5.attn.q" stands
                             for layers/5/attn/q */
} hdf5_state;

/* --- errors --- */

enum { DESCRIPTION_SIZE = 768 }; /* one may quote a long path before it comes to the reason */

static herr_t keep_description(unsigned index, const H5E_error2_t *entry, void *description)
{
    (void)index;
    bool memory = entry->maj_num == H5E_RESOURCE && entry->min_num == H5E_NOSPACE;
    snprintf(description, DESCRIPTION_SIZE, "%s",
             memory        ? "out of memory"
             : entry->desc ? entry->desc
                           : "");
    return 1; /* the first is the innermost: what went wrong, where the others tell who called */
}

int gemma4_hdf5_fail(const char *file, const char *what, gemma4_error *error)
{
    char description[DESCRIPTION_SIZE] = "";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_description, description);
    /* What the system said is quoted among addresses and times that are never the same. */
    static const char quoted[] = "error message = '";
    char *reason = strstr(description, quoted),
         *end = reason ? strchr(reason + sizeof quoted - 1, '\'') : NULL;
    if (end) {
        *end = '\0';
        memmove(description, reason + sizeof quoted - 1,
                (size_t)(end + 1 - (reason + sizeof quoted - 1)));
    }
    return gemma4_fail(error, "%s: %s: HDF5: %s", file, what,
                       description[0] ? description : "no reason given");
}

/* --- attributes --- */

/* The memory type of a string attribute: the file's own character set, which HDF5 does not
 * convert. */
static hid_t string_memory_type(hid_t type, size_t size)
{
    hid_t memory = H5Tcopy(H5T_C_S1);
    if (memory < 0 || H5Tset_size(memory, size) < 0 || H5Tset_cset(memory, H5Tget_cset(type)) < 0) {
        H5Tclose(memory);
        return H5I_INVALID_HID;
    }
    return memory;
}

/* Each of these sets *text, NULL where the attribute cannot be read or is too long, and returns -1
 * only where memory runs out: an attribute that is there must not look absent. */
static int read_variable_string(hid_t attribute, hid_t type, char **text)
{
    char *value = NULL;
    bool wanted = false;
    hid_t memory = string_memory_type(type, H5T_VARIABLE);
    if (memory >= 0 && H5Aread(attribute, memory, &value) >= 0) {
        wanted = !value || strnlen(value, GEMMA4_ATTRIBUTE_MAX_BYTES) < GEMMA4_ATTRIBUTE_MAX_BYTES;
        *text = wanted ? strdup(value ? value : "") : NULL;
        H5free_memory(value);
    }
    H5Tclose(memory);
    return wanted && !*text ? -1 : 0;
}

static int read_fixed_string(hid_t attribute, hid_t type, char **text)
{
    size_t size = H5Tget_size(type);
    if (size == 0 || size >= GEMMA4_ATTRIBUTE_MAX_BYTES)
        return 0;
    *text = calloc(1, size + 1);
    if (!*text)
        return -1;
    hid_t memory = string_memory_type(type, size + 1); /* the conversion takes the padding off and
                                                          terminates */
    if (memory < 0 || H5Aread(attribute, memory, *text) < 0) {
        free(*text);
        *text = NULL;
    }
    H5Tclose(memory);
    return 0;
}

static int read_integer_as_text(hid_t attribute, hid_t type, char **text)
{
    char digits[32];
    if (H5Tget_sign(type) == H5T_SGN_NONE) {
        unsigned long long value;
        if (H5Aread(attribute, H5T_NATIVE_ULLONG, &value) < 0)
            return 0;
        snprintf(digits, sizeof digits, "%llu", value);
    } else {
        long long value;
        if (H5Aread(attribute, H5T_NATIVE_LLONG, &value) < 0)
            return 0;
        snprintf(digits, sizeof digits, "%lld", value);
    }
    *text = strdup(digits);
    return *text ? 0 : -1;
}

/* The text of a string or integer attribute of one element, to be freed; NULL where it is anything
 * else. */
static int read_text(hid_t attribute, char **text)
{
    hid_t space = H5Aget_space(attribute), type = H5Aget_type(attribute);
    H5T_class_t class = H5Tget_class(type);
    int status = 0;
    *text = NULL;
    if (space >= 0 && H5Sget_simple_extent_npoints(space) == 1) {
        if (class == H5T_STRING)
            status = H5Tis_variable_str(type) > 0 ? read_variable_string(attribute, type, text)
                                                  : read_fixed_string(attribute, type, text);
        else if (class == H5T_INTEGER)
            status = read_integer_as_text(attribute, type, text);
    }
    H5Tclose(type);
    H5Sclose(space);
    return status;
}

/* Called by HDF5 for each root attribute. What is no text is ignored. */
static herr_t keep_attribute(hid_t location, const char *name, const H5A_info_t *info,
                             void *context)
{
    hdf5_state *state = context;
    char *text, *copy;
    (void)info;
    if (state->attributes_count == ATTRIBUTES_MAX)
        return TOO_MANY;
    hid_t attribute = H5Aopen(location, name, H5P_DEFAULT);
    if (attribute < 0)
        return -1;
    int status = read_text(attribute, &text);
    H5Aclose(attribute);
    if (status)
        return OUT_OF_MEMORY;
    if (!text)
        return 0;
    if (!(copy = strdup(name))) {
        free(text);
        return OUT_OF_MEMORY;
    }
    state->attributes[state->attributes_count++] = (root_attribute){copy, text};
    return 0;
}

static int read_root_attributes(hdf5_state *state, gemma4_error *error)
{
    hid_t root = H5Gopen2(state->file, ".", H5P_DEFAULT);
    if (root < 0)
        return gemma4_hdf5_fail(state->path, "/: cannot open", error);
    herr_t visited = H5Aiterate2(root, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, keep_attribute, state);
    int status = 0;
    if (visited < 0)
        status = gemma4_hdf5_fail(state->path, "/: cannot read the attributes", error);
    else if (visited == OUT_OF_MEMORY)
        status = gemma4_fail(error, "%s: /: attributes: out of memory", state->path);
    else if (visited == TOO_MANY)
        status = gemma4_fail(error, "%s: /: expected at most %d attributes, found more",
                             state->path, ATTRIBUTES_MAX);
    H5Gclose(root);
    return status;
}

static const char *hdf5_attribute(const void *context, const char *name)
{
    const hdf5_state *state = context;
    for (size_t i = 0; i < state->attributes_count; i++)
        if (strcmp(state->attributes[i].name, name) == 0)
            return state->attributes[i].text;
    return NULL;
}

/* --- one dataset --- */

/* One dataset being described: where it is, for messages, and what becomes of it. */
typedef struct description {
    const hdf5_state *state;
    const char *path; /* "/layers/5/attn/q" */
    hid_t dataset;
    size_t max_rows; /* more rows than this no case has */
    gemma4_stored_tensor *tensor;
    gemma4_error *error;
} description;

static int dataset_hdf5_fail(const description *d, const char *what)
{
    char place[PATH_SIZE + 64];
    snprintf(place, sizeof place, "%s: %s", d->path, what);
    return gemma4_hdf5_fail(d->state->path, place, d->error);
}

static int check_filters(const description *d, hid_t creation)
{
    int count = H5Pget_nfilters(creation);
    if (count < 0)
        return dataset_hdf5_fail(d, "cannot read the filters");
    for (int i = 0; i < count; i++) {
        size_t parameters = 0;
        unsigned flags;
        char name[64] = "";
        H5Z_filter_t filter = H5Pget_filter2(creation, (unsigned)i, &flags, &parameters, NULL,
                                             sizeof name, name, NULL);
        if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE &&
            filter != H5Z_FILTER_FLETCHER32)
            return gemma4_fail(
                d->error,
                "%s: %s: expected filter deflate, shuffle or fletcher32, found %d (%.63s)",
                d->state->path, d->path, (int)filter, name);
    }
    return 0;
}

static int check_chunk(const description *d, hid_t creation)
{
    hsize_t chunk[H5S_MAX_RANK];
    int rank = H5Pget_chunk(creation, H5S_MAX_RANK, chunk);
    if (rank < 0)
        return dataset_hdf5_fail(d, "cannot read the chunk shape");
    hid_t type = H5Dget_type(d->dataset);
    size_t bytes = H5Tget_size(type);
    H5Tclose(type);
    for (int i = 0; i < rank; i++)
        if (!gemma4_size_product(bytes, (size_t)chunk[i], &bytes) || bytes > CHUNK_MAX_BYTES)
            return gemma4_fail(d->error,
                               "%s: %s: expected chunks of at most %zu bytes, found larger ones",
                               d->state->path, d->path, CHUNK_MAX_BYTES);
    return 0;
}

/* Where the values lie. Comes before anything else is asked of the dataset: asking a virtual one
 * for its shape can already open other files. */
static int check_storage(const description *d)
{
    const char *file = d->state->path;
    hid_t creation = H5Dget_create_plist(d->dataset);
    if (creation < 0)
        return dataset_hdf5_fail(d, "cannot read the storage layout");
    H5D_layout_t layout = H5Pget_layout(creation);
    int status = 0;
    if (layout != H5D_COMPACT && layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED)
        status = gemma4_fail(d->error, "%s: %s: expected values in this file, found a %s dataset",
                             file, d->path, layout == H5D_VIRTUAL ? "virtual" : "strangely stored");
    else if (H5Pget_external_count(creation) != 0)
        status =
            gemma4_fail(d->error, "%s: %s: expected values in this file, found external storage",
                        file, d->path);
    else
        status = check_filters(d, creation);
    if (status == 0 && layout == H5D_CHUNKED)
        status = check_chunk(d, creation);
    H5Pclose(creation);
    return status;
}

/* The layout of the float types that are read; mantissa at bit 0, sign on top. */
static const struct float_format {
    gemma4_element element;
    size_t size, exponent_bits, mantissa_bits, bias;
} float_formats[] = {
    {GEMMA4_ELEMENT_F16, 2, 5, 10, 15},
    {GEMMA4_ELEMENT_BF16, 2, 8, 7, 127},
    {GEMMA4_ELEMENT_F32, 4, 8, 23, 127},
    {GEMMA4_ELEMENT_F64, 8, 11, 52, 1023},
};

static gemma4_element float_element(hid_t type)
{
    size_t sign, exponent, exponent_bits, mantissa, mantissa_bits;
    size_t size = H5Tget_size(type), bias = H5Tget_ebias(type);
    if (H5Tget_fields(type, &sign, &exponent, &exponent_bits, &mantissa, &mantissa_bits) < 0 ||
        H5Tget_norm(type) != H5T_NORM_IMPLIED || H5Tget_offset(type) != 0)
        return GEMMA4_ELEMENT_NONE;
    for (size_t i = 0; i < sizeof float_formats / sizeof *float_formats; i++) {
        const struct float_format *format = &float_formats[i];
        if (size == format->size && exponent_bits == format->exponent_bits &&
            mantissa_bits == format->mantissa_bits && bias == format->bias && mantissa == 0 &&
            exponent == mantissa_bits && sign == 8 * size - 1)
            return format->element;
    }
    return GEMMA4_ELEMENT_NONE;
}

static gemma4_element integer_element(hid_t type)
{
    size_t size = H5Tget_size(type);
    char name[16];
    if (size > 8 || H5Tget_precision(type) != 8 * size || H5Tget_offset(type) != 0)
        return GEMMA4_ELEMENT_NONE;
    snprintf(name, sizeof name, "%sint%zu", H5Tget_sign(type) == H5T_SGN_NONE ? "u" : "", 8 * size);
    return gemma4_element_named(name);
}

static const char *class_name(H5T_class_t class)
{
    switch (class) {
    case H5T_TIME: return "a time type";
    case H5T_STRING: return "a string type";
    case H5T_BITFIELD: return "a bit field type";
    case H5T_OPAQUE: return "an opaque type";
    case H5T_COMPOUND: return "a compound type";
    case H5T_REFERENCE: return "a reference type";
    case H5T_ENUM: return "an enumeration type";
    case H5T_VLEN: return "a variable-length type";
    case H5T_ARRAY: return "an array type";
    default: return "an unknown type";
    }
}

/* Whether uint16 values are said to be the bits of bfloat16 ones. */
static int check_marked_as_bfloat16(const description *d, bool *marked)
{
    char *text;
    *marked = false;
    if (H5Aexists(d->dataset, "dtype") <= 0)
        return 0;
    hid_t attribute = H5Aopen(d->dataset, "dtype", H5P_DEFAULT);
    if (attribute < 0)
        return 0;
    int status = read_text(attribute, &text);
    H5Aclose(attribute);
    if (status)
        return gemma4_fail(d->error, "%s: %s: attribute dtype: out of memory", d->state->path,
                           d->path);
    *marked = text && strcmp(text, "bfloat16") == 0;
    free(text);
    return 0;
}

static int describe_type(const description *d)
{
    gemma4_stored_tensor *tensor = d->tensor;
    hid_t type = H5Dget_type(d->dataset);
    if (type < 0)
        return dataset_hdf5_fail(d, "cannot read the type");
    H5T_class_t class = H5Tget_class(type);
    H5T_order_t order =
        class == H5T_INTEGER || class == H5T_FLOAT ? H5Tget_order(type) : H5T_ORDER_NONE;
    int status = 0;
    if (H5Tcommitted(type) > 0)
        status =
            gemma4_fail(d->error, "%s: %s: expected the dataset's own type, found a committed one",
                        d->state->path, d->path);
    else if (class != H5T_INTEGER && class != H5T_FLOAT)
        status = gemma4_fail(d->error, "%s: %s: expected a float or integer type, found %s",
                             d->state->path, d->path, class_name(class));
    else if (order == H5T_ORDER_LE || order == H5T_ORDER_BE)
        tensor->element = class == H5T_FLOAT ? float_element(type) : integer_element(type);

    bool marked = false;
    if (status == 0 && tensor->element == GEMMA4_ELEMENT_U16)
        status = check_marked_as_bfloat16(d, &marked);
    if (marked)
        tensor->element = GEMMA4_ELEMENT_BF16;
    if (status == 0 && tensor->element == GEMMA4_ELEMENT_NONE)
        snprintf(tensor->problem, sizeof tensor->problem,
                 "expected float16, bfloat16, float32, float64 or whole-byte integers, found "
                 "another %s of %zu bytes",
                 class == H5T_FLOAT ? "float type" : "integer type", H5Tget_size(type));
    H5Tclose(type);
    return status;
}

static int describe_shape(const description *d)
{
    gemma4_stored_tensor *tensor = d->tensor;
    hid_t space = H5Dget_space(d->dataset);
    int rank = H5Sget_simple_extent_ndims(space);
    hsize_t dims[H5S_MAX_RANK];
    if (rank < 0 || rank > H5S_MAX_RANK || H5Sget_simple_extent_dims(space, dims, NULL) < 0) {
        dataset_hdf5_fail(d, "cannot read the shape"); /* before the next call to HDF5 clears the
                                                          reason */
        H5Sclose(space);
        return -1;
    }
    bool null = H5Sget_simple_extent_type(space) == H5S_NULL;
    H5Sclose(space);

    const size_t rank_max = sizeof tensor->shape / sizeof *tensor->shape;
    if ((size_t)rank > rank_max) {
        snprintf(tensor->problem, sizeof tensor->problem, "expected at most %zu axes, found %d",
                 rank_max, rank);
        return 0;
    }
    tensor->rank = (size_t)rank;
    for (int i = 0; i < rank; i++) {
        tensor->shape[i] = (size_t)dims[i];
        null = null || dims[i] == 0;
    }
    if (null)
        snprintf(tensor->problem, sizeof tensor->problem,
                 "expected values, found an empty dataset");
    return 0;
}

static int read_rows(const description *d, hid_t attribute)
{
    gemma4_stored_tensor *tensor = d->tensor;
    hid_t space = H5Aget_space(attribute), type = H5Aget_type(attribute);
    bool list = H5Sget_simple_extent_type(space) == H5S_SIMPLE &&
                H5Sget_simple_extent_ndims(space) == 1 && H5Tget_class(type) == H5T_INTEGER;
    hssize_t count = H5Sget_simple_extent_npoints(space);
    H5Tclose(type);
    H5Sclose(space);
    if (!list)
        return gemma4_fail(d->error, "%s: %s: attribute rows: expected a list of integers",
                           d->state->path, d->path);
    if (count < 0 || (size_t)count > d->max_rows)
        return gemma4_fail(d->error,
                           "%s: %s: attribute rows: expected at most %zu positions, found %lld",
                           d->state->path, d->path, d->max_rows, (long long)count);
    tensor->has_rows = true;
    tensor->row_count = (size_t)count;
    if (count == 0)
        return 0;
    tensor->rows = malloc((size_t)count * sizeof *tensor->rows);
    if (!tensor->rows)
        return gemma4_fail(d->error, "%s: %s: out of memory", d->state->path, d->path);
    if (H5Aread(attribute, H5T_NATIVE_INT64, tensor->rows) < 0)
        return dataset_hdf5_fail(d, "cannot read the attribute rows");
    return 0;
}

static int describe_rows(const description *d)
{
    htri_t exists = H5Aexists(d->dataset, "rows");
    if (exists == 0)
        return 0;
    hid_t attribute = exists > 0 ? H5Aopen(d->dataset, "rows", H5P_DEFAULT) : H5I_INVALID_HID;
    if (attribute < 0)
        return dataset_hdf5_fail(d, "cannot open the attribute rows");
    int status = read_rows(d, attribute);
    H5Aclose(attribute);
    return status;
}

/* A dataset that was created and never written would read as zeros. */
static void check_written(const description *d)
{
    H5D_space_status_t written;
    if (!d->tensor->problem[0] && H5Dget_space_status(d->dataset, &written) >= 0 &&
        written == H5D_SPACE_STATUS_NOT_ALLOCATED)
        snprintf(d->tensor->problem, sizeof d->tensor->problem,
                 "expected values, found a dataset never written to");
}

/* HDF5 1.10 trusts an unchunked dataset's stored size and a chunk's shape to go with the dataset's,
 * and reads beyond its buffers where they do not. */
static int check_extent(const description *d)
{
    const gemma4_stored_tensor *tensor = d->tensor;
    size_t bytes = gemma4_element_describe(tensor->element)->size;
    hsize_t chunk[H5S_MAX_RANK], most[H5S_MAX_RANK];
    hid_t creation = H5Dget_create_plist(d->dataset), space = H5Dget_space(d->dataset);
    bool chunked = H5Pget_layout(creation) == H5D_CHUNKED;
    bool fits = !chunked || (H5Sget_simple_extent_dims(space, NULL, most) == (int)tensor->rank &&
                             H5Pget_chunk(creation, H5S_MAX_RANK, chunk) == (int)tensor->rank);
    for (size_t i = 0; chunked && fits && i < tensor->rank; i++)
        fits = chunk[i] <= most[i]; /* H5S_UNLIMITED is the largest hsize_t */
    H5Sclose(space);
    H5Pclose(creation);
    if (!fits)
        return gemma4_fail(d->error,
                           "%s: %s: expected chunks no larger than the dataset may become",
                           d->state->path, d->path);
    if (chunked)
        return 0;
    hsize_t stored = H5Dget_storage_size(d->dataset);
    for (size_t i = 0; i < tensor->rank; i++)
        if (!gemma4_size_product(bytes, tensor->shape[i], &bytes))
            return gemma4_fail(d->error,
                               "%s: %s: expected a shape that fits the file, found one too large",
                               d->state->path, d->path);
    if (stored != bytes)
        return gemma4_fail(d->error, "%s: %s: expected %zu bytes by shape and type, found %llu",
                           d->state->path, d->path, bytes, (unsigned long long)stored);
    return 0;
}

static int describe_dataset(const description *d)
{
    if (check_storage(d) || describe_type(d) || describe_shape(d) || describe_rows(d))
        return -1;
    check_written(d);
    return d->tensor->problem[0] ? 0 : check_extent(d);
}

/* --- the walk --- */

typedef struct walk {
    hdf5_state *state;
    const gemma4_config *config;
    gemma4_stored_list *list;
    gemma4_error *error;
    char path[PATH_SIZE]; /* of the group being walked: "", "/layers/5" */
    size_t links;         /* visited so far */
    size_t foreign_links; /* and in foreign groups */
    int foreign_depth;    /* how many of the groups on the path are foreign; see walk_foreign */
    int depth;            /* how many groups are on the path, where all names are taken */
    bool failed;          /* error is filled already */
} walk;

/* "/layers/5/attn/q" as "layers.5.attn.q". False where a '.' in a link's name makes it look like
 * another path. */
static bool dotted_name(const char *path, char name[PATH_SIZE])
{
    if (strchr(path, '.'))
        return false;
    snprintf(name, PATH_SIZE, "%s", path + 1);
    for (char *c = name; *c; c++)
        if (*c == '/')
            *c = '.';
    return true;
}

/* Whether some tap lies in the group of that name: it does if the group's name and the last part of
 * a tap's make a tap. Only such groups are entered, so hard links that lead back up end where no
 * tap's name goes on. */
static bool holds_taps(const char *group)
{
    if (strcmp(group, "layers") == 0 || strcmp(group, "logprobs") == 0)
        return true;
    for (int i = 0; i < GEMMA4_TAP_COUNT; i++) {
        const gemma4_tap_info *info = gemma4_tap_describe((gemma4_tap)i);
        const char *dot = strrchr(info->name, '.');
        char name[PATH_SIZE + GEMMA4_TAP_NAME_SIZE];
        gemma4_tap tap;
        size_t layer;
        snprintf(name, sizeof name, "%s.%s", group, dot ? dot + 1 : info->name);
        if (info->per_layer && gemma4_tap_parse(name, &tap, &layer))
            return true;
    }
    return false;
}

/* A dataset that cannot be read is no reason to refuse a file of which a map takes others: what is
 * wrong is kept beside it. */
static int visit_dataset(walk *w, hid_t dataset, const char *name)
{
    gemma4_stored_tensor *tensor;
    gemma4_error problem;
    bool all = w->list->takes_all;
    if (gemma4_stored_add(w->list, w->config, name, &tensor, w->error))
        return -1;
    if (!tensor)
        return 0;
    const description d = {w->state, w->path,
                           dataset,  all ? ROWS_MAX : w->config->max_position_embeddings,
                           tensor,   all ? &problem : w->error};
    int status = describe_dataset(&d);
    if (status && all)
        snprintf(tensor->problem, sizeof tensor->problem, "%.150s", problem.message);
    return all ? 0 : status;
}

static int walk_group(walk *w, hid_t group);
static void walk_foreign(walk *w, hid_t group, const char *name);

/* Visits the object at w->path where all names are taken. */
static int visit_any(walk *w, hid_t object)
{
    H5I_type_t type = H5Iget_type(object);
    if (strlen(w->path) + 1 >= sizeof w->path)
        return gemma4_fail(w->error,
                           "%s: %.80s...: expected paths of at most %d bytes, found a longer one",
                           w->state->path, w->path, PATH_SIZE - 2);
    if (type == H5I_DATASET)
        return visit_dataset(w, object, w->path + 1);
    if (type != H5I_GROUP)
        return 0;
    if (w->depth == DEPTH_MAX)
        return gemma4_fail(w->error,
                           "%s: %.80s: expected at most %d groups in one another, found more",
                           w->state->path, w->path, DEPTH_MAX);
    w->depth++;
    int status = walk_group(w, object);
    w->depth--;
    return status;
}

/* Visits the object at w->path. */
static int visit_object(walk *w, hid_t object)
{
    char name[PATH_SIZE];
    if (w->list->takes_all)
        return visit_any(w, object);
    H5I_type_t type = H5Iget_type(object);
    bool dotted = dotted_name(w->path, name), foreign = !dotted || w->foreign_depth > 0;
    if (!foreign && type == H5I_DATASET)
        return visit_dataset(w, object, name);
    if (!foreign && type == H5I_GROUP && holds_taps(name))
        return walk_group(w, object);
    if (type == H5I_GROUP)
        walk_foreign(w, object, dotted ? name : w->path);
    else
        gemma4_stored_add_unknown(w->list, dotted ? name : w->path);
    return 0;
}

static int check_link(walk *w, const H5L_info_t *info)
{
    const char *file = w->state->path;
    if (++w->links > LINKS_MAX)
        return gemma4_fail(w->error, "%s: expected at most %d links, found more", file, LINKS_MAX);
    if (info->type == H5L_TYPE_HARD)
        return 0;
    return gemma4_fail(w->error, "%s: %s: expected a hard link, found %s link", file, w->path,
                       info->type == H5L_TYPE_SOFT       ? "a soft"
                       : info->type == H5L_TYPE_EXTERNAL ? "an external"
                                                         : "a user-defined");
}

/* A link in a group that can hold no tap: whatever it is, it is no reason to refuse the file. */
static herr_t visit_foreign_link(hid_t group, const char *name, const H5L_info_t *info,
                                 void *context)
{
    walk *w = context;
    size_t length = strlen(w->path);
    if (++w->foreign_links > FOREIGN_LINKS_MAX)
        return 1; /* ends the iteration */
    snprintf(w->path + length, sizeof w->path - length, "/%s", name);
    hid_t object =
        info->type == H5L_TYPE_HARD ? H5Oopen(group, name, H5P_DEFAULT) : H5I_INVALID_HID;
    if (object >= 0) {
        visit_object(w, object);
        H5Oclose(object);
    }
    w->path[length] = '\0';
    return 0;
}

/* Notes the names in a group that can hold no tap, since they may have been meant as taps'
 * ("layers/3/self_attn/q_proj"); the group's own where it holds none. Hard links that lead back up
 * end at the bounds. */
static void walk_foreign(walk *w, hid_t group, const char *name)
{
    size_t before = w->list->unknown_count;
    if (w->foreign_depth < FOREIGN_DEPTH_MAX) {
        w->foreign_depth++;
        H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, visit_foreign_link, w);
        w->foreign_depth--;
    }
    if (w->list->unknown_count == before)
        gemma4_stored_add_unknown(w->list, name);
}

/* Called by HDF5 for each link of a group. */
static herr_t visit_link(hid_t group, const char *name, const H5L_info_t *info, void *context)
{
    walk *w = context;
    size_t length = strlen(w->path);
    snprintf(w->path + length, sizeof w->path - length, "/%s", name);
    int status = check_link(w, info);
    if (status == 0) {
        hid_t object = H5Oopen(group, name, H5P_DEFAULT);
        if (object < 0) {
            char place[PATH_SIZE + 32];
            snprintf(place, sizeof place, "%s: cannot open", w->path);
            status = gemma4_hdf5_fail(w->state->path, place, w->error);
        } else {
            status = visit_object(w, object);
            H5Oclose(object);
        }
    }
    if (status) {
        w->failed = true;
        return -1;
    }
    w->path[length] = '\0';
    return 0;
}

static int walk_group(walk *w, hid_t group)
{
    if (H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, visit_link, w) >= 0)
        return 0;
    if (!w->failed) {
        char place[PATH_SIZE + 32];
        snprintf(place, sizeof place, "%s/: cannot list", w->path);
        gemma4_hdf5_fail(w->state->path, place, w->error);
        w->failed = true;
    }
    return -1;
}

static int hdf5_list(void *context, const gemma4_config *config, gemma4_stored_list *list,
                     gemma4_error *error)
{
    hdf5_state *state = context;
    walk w = {.state = state, .config = config, .list = list, .error = error};
    state->names_are_paths = list->takes_all;
    hid_t root = H5Gopen2(state->file, ".", H5P_DEFAULT);
    if (root < 0)
        return gemma4_hdf5_fail(state->path, "/: cannot open", error);
    int status = walk_group(&w, root);
    H5Gclose(root);
    return status;
}

/* --- values --- */

/* The bytes of the chunks that hold one index of the first axis that is longer than 1, with those
 * that lie beside it in them; 0 where the dataset has no chunks, or the number does not fit. */
static size_t band_bytes(hid_t dataset)
{
    hsize_t chunk[H5S_MAX_RANK], shape[H5S_MAX_RANK];
    hid_t creation = H5Dget_create_plist(dataset), space = H5Dget_space(dataset),
          type = H5Dget_type(dataset);
    int rank =
        H5Pget_layout(creation) == H5D_CHUNKED ? H5Pget_chunk(creation, H5S_MAX_RANK, chunk) : 0;
    size_t bytes =
        rank > 0 && H5Sget_simple_extent_dims(space, shape, NULL) == rank ? H5Tget_size(type) : 0;
    bool cut = false; /* the axis is behind us */
    for (int i = 0; i < rank && bytes; i++) {
        hsize_t chunks = chunk[i] && cut ? (shape[i] - 1) / chunk[i] + 1 : 1;
        cut = cut || shape[i] > 1;
        if (!gemma4_size_product(bytes, (size_t)chunk[i], &bytes) ||
            !gemma4_size_product(bytes, (size_t)chunks, &bytes))
            bytes = 0;
    }
    H5Tclose(type);
    H5Sclose(space);
    H5Pclose(creation);
    return bytes;
}

/* Opens the dataset so that chunks larger than HDF5's own cache are kept: where one holds more
 * positions than are read at once, it would be unpacked for each of them again. */
static hid_t open_with_cache(hid_t file, const char *path)
{
    hid_t dataset = H5Dopen2(file, path, H5P_DEFAULT);
    size_t bytes = dataset < 0 ? 0 : band_bytes(dataset);
    if (bytes <= OWN_CACHE_BYTES || bytes > CACHE_MAX_BYTES)
        return dataset;
    H5Dclose(dataset);
    hid_t access = H5Pcreate(H5P_DATASET_ACCESS);
    dataset = H5Pset_chunk_cache(access, CACHE_SLOTS, bytes, 1) < 0 ? H5I_INVALID_HID
                                                                    : H5Dopen2(file, path, access);
    H5Pclose(access);
    return dataset;
}

static int open_for_reading(hdf5_state *state, const char *name, gemma4_error *error)
{
    if (state->dataset >= 0 && strcmp(state->dataset_name, name) == 0)
        return 0;
    if (state->dataset >= 0)
        H5Dclose(state->dataset);
    char path[GEMMA4_STORED_NAME_SIZE];
    snprintf(path, sizeof path, "%s", name);
    for (char *c = path; *c && !state->names_are_paths; c++)
        if (*c == '.')
            *c = '/';
    state->dataset = open_with_cache(state->file, path);
    if (state->dataset < 0) {
        char place[GEMMA4_STORED_NAME_SIZE + 32];
        snprintf(place, sizeof place, "%s: cannot open", name);
        return gemma4_hdf5_fail(state->path, place, error);
    }
    snprintf(state->dataset_name, sizeof state->dataset_name, "%s", name);
    return 0;
}

/* The dataset's own type in host byte order: HDF5 then swaps bytes and converts nothing. */
static hid_t host_type(hid_t dataset)
{
    hid_t type = H5Dget_type(dataset);
    hid_t host = H5Tcopy(type);
    H5Tclose(type);
    if (host >= 0 && H5Tset_order(host, H5Tget_order(H5T_NATIVE_INT32)) < 0) {
        H5Tclose(host);
        return H5I_INVALID_HID;
    }
    return host;
}

static int hdf5_read(void *context, const gemma4_stored_tensor *tensor, const size_t *start,
                     const size_t *extent, void *elements, gemma4_error *error)
{
    hdf5_state *state = context;
    if (open_for_reading(state, tensor->name, error))
        return -1;
    hsize_t first[8] = {0}, length[8] = {0};
    size_t axis = 0; /* the first that is cut: the axis of positions, in a file of ours */
    for (size_t i = tensor->rank; i-- > 0;) {
        first[i] = start[i];
        length[i] = extent[i];
        axis = extent[i] < tensor->shape[i] ? i : axis;
    }

    hid_t type = host_type(state->dataset);
    hid_t file_space = H5Dget_space(state->dataset);
    hid_t memory_space = H5Screate_simple((int)tensor->rank, length, NULL);
    int status = 0;
    if (type < 0 || memory_space < 0 ||
        (tensor->rank > 0 &&
         H5Sselect_hyperslab(file_space, H5S_SELECT_SET, first, NULL, length, NULL) < 0) ||
        H5Dread(state->dataset, type, memory_space, file_space, H5P_DEFAULT, elements) < 0) {
        char place[GEMMA4_STORED_NAME_SIZE + 96];
        snprintf(place, sizeof place, "%s: cannot read rows %zu ... %zu", tensor->name, start[axis],
                 start[axis] + extent[axis] - 1);
        status = gemma4_hdf5_fail(state->path, place, error);
    }
    H5Sclose(memory_space);
    H5Sclose(file_space);
    H5Tclose(type);
    return status;
}

/* --- opening --- */

static void hdf5_close(void *context)
{
    hdf5_state *state = context;
    if (state->dataset >= 0)
        H5Dclose(state->dataset);
    if (state->file >= 0)
        H5Idec_ref(state->file); /* a file, or a group */
    for (size_t i = 0; i < state->attributes_count; i++) {
        free(state->attributes[i].name);
        free(state->attributes[i].text);
    }
    free(state->path);
    free(state);
}

/* From now on the group is what the file was; its attributes come before the root's. Only a hard
 * link leads to it. */
static int enter_group(hdf5_state *state, const char *group, gemma4_error *error)
{
    H5L_info_t link;
    htri_t exists = strpbrk(group, "./") ? 0 : H5Lexists(state->file, group, H5P_DEFAULT);
    if (exists <= 0 || H5Lget_info(state->file, group, &link, H5P_DEFAULT) < 0 ||
        link.type != H5L_TYPE_HARD)
        return gemma4_fail(error, "%s", GEMMA4_READER_NO_GROUP);
    hid_t root = state->file, entered = H5Gopen2(root, group, H5P_DEFAULT);
    if (entered < 0)
        return gemma4_fail(error, "%s", GEMMA4_READER_NO_GROUP);
    state->file = entered;
    int status = read_root_attributes(state, error);
    state->file = root;
    if (!status)
        status = read_root_attributes(state, error);
    state->file = entered; /* the root stays open beside it: the reader ends and closes nothing */
    return status;
}

static int open_file(hdf5_state *state, int file, gemma4_error *error)
{
    /* No filter plugin is ever loaded, whatever the file or the environment asks for. The driver
     * reads the one descriptor and can open nothing. */
    hid_t access = gemma4_hdf5_descriptor_access(file);
    if (H5PLset_loading_state(0) >= 0 && access >= 0)
        state->file = H5Fopen(state->path, H5F_ACC_RDONLY, access);
    int status = state->file < 0 ? gemma4_hdf5_fail(state->path, "cannot open", error) : 0;
    H5Pclose(access);
    return status;
}

int gemma4_activations_hdf5_from(int file, const char *path, const char *group,
                                 gemma4_activation_source *source, gemma4_error *error)
{
    hdf5_state *state = calloc(1, sizeof *state);
    if (!state || !(state->path = strdup(path))) {
        free(state);
        return gemma4_fail(error, "%s: out of memory", path);
    }
    state->file = state->dataset = H5I_INVALID_HID;
    if (open_file(state, file, error) ||
        (group ? enter_group(state, group, error) : read_root_attributes(state, error))) {
        hdf5_close(state);
        return -1;
    }
    *source = (gemma4_activation_source){state, hdf5_attribute, hdf5_list, hdf5_read, hdf5_close};
    return 0;
}

size_t gemma4_activations_hdf5_attributes(const gemma4_activation_source *source, size_t index,
                                          const char **name, const char **text)
{
    const hdf5_state *state = source->state;
    if (index < state->attributes_count) {
        *name = state->attributes[index].name;
        *text = state->attributes[index].text;
    }
    return state->attributes_count;
}
