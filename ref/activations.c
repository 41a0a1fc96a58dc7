/* Activation files: the common door. A source (HDF5 or safetensors) lists its tensors; here they
 * are compared with what the config implies, put in dataflow order, and their values converted. */
#include "activations_internal.h"
#include "config.h"
#include "import.h"
#include "near_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct activation_entry {
    gemma4_activation shown; /* first, so that the caller's pointer leads back to the entry */
    gemma4_stored_tensor stored;
    size_t row_axis; /* of the stored shape; the axes before it have length 1 */
    size_t *rows;    /* what shown.row_index points to where the file has its own list */
} activation_entry;

struct gemma4_activations {
    char *path;
    gemma4_activation_source source;
    gemma4_stored_list list;
    size_t positions_count; /* T */
    int32_t *tokens, *positions;
    size_t *every_row; /* 0 ... T-1 */
    activation_entry *entries;
    size_t entries_count;
};

const gemma4_config gemma4_any_model = {.num_hidden_layers = SIZE_MAX,
                                        .num_experts = 1,
                                        .vocab_size = (size_t)1 << 31,
                                        .max_position_embeddings = 1 << 24};

/* --- the list that a source fills --- */

void gemma4_stored_add_unknown(gemma4_stored_list *list, const char *name)
{
    if (list->unknown_count++ >= GEMMA4_UNKNOWN_MAX)
        return;
    char *copy = list->unknown[list->unknown_count - 1];
    snprintf(copy, sizeof list->unknown[0], "%s", name);
    /* The name is printed to the user's terminal as part of one line. */
    for (char *c = copy; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
}

static bool name_is_known(const gemma4_config *config, const char *name)
{
    gemma4_tap tap;
    size_t layer;
    if (strcmp(name, "tokens") == 0 || strcmp(name, "positions") == 0)
        return true;
    return gemma4_tap_parse(name, &tap, &layer) && layer < config->num_hidden_layers;
}

int gemma4_stored_add(gemma4_stored_list *list, const gemma4_config *config, const char *name,
                      gemma4_stored_tensor **tensor, gemma4_error *error)
{
    *tensor = NULL;
    if (strlen(name) >= GEMMA4_STORED_NAME_SIZE && list->takes_all)
        return gemma4_fail(error,
                           "%.100s...: expected names of at most %d bytes, found a longer one",
                           name, GEMMA4_STORED_NAME_SIZE - 1);
    if (!list->takes_all && !name_is_known(config, name)) {
        gemma4_stored_add_unknown(list, name);
        return 0;
    }
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 64;
        gemma4_stored_tensor *items = realloc(list->items, capacity * sizeof *items);
        if (!items)
            return gemma4_fail(error, "out of memory");
        list->items = items;
        list->capacity = capacity;
    }
    *tensor = &list->items[list->count++];
    memset(*tensor, 0, sizeof **tensor);
    snprintf((*tensor)->name, sizeof(*tensor)->name, "%s", name);
    return 0;
}

void gemma4_stored_list_free(gemma4_stored_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i].rows);
    free(list->items);
}

/* What there is instead of what is missing: "nothing else", or "'layers.3.attn.qrope'
 * (layers.3.attn.q_rope?), 'extra' and 3 more". */
static void unknown_text(const gemma4_stored_list *list, char *text, size_t size)
{
    enum { MOST = 3 };
    size_t used = (size_t)snprintf(text, size, "%s", list->unknown_count ? "" : "nothing else");
    for (size_t i = 0; i < list->unknown_count && i < MOST && used < size; i++) {
        char near[GEMMA4_TAP_NAME_SIZE];
        bool meant = gemma4_near_name(list->unknown[i], near) != NULL;
        used += (size_t)snprintf(text + used, size - used, "%s'%.60s'%s%s%s", i ? ", " : "",
                                 list->unknown[i], meant ? " (" : "", meant ? near : "",
                                 meant ? "?)" : "");
    }
    if (list->unknown_count > MOST && used < size)
        snprintf(text + used, size - used, " and %zu more", list->unknown_count - MOST);
}

/* --- shapes --- */

void gemma4_shape_text(const size_t *shape, size_t rank, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "[");
    for (size_t i = 0; i < rank && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%zu", i ? ", " : "", shape[i]);
    if (used < size)
        snprintf(text + used, size - used, "]");
}

/* Whether the stored shape is the expected one after any number of axes of length 1, such as a
 * batch axis. */
static bool shape_matches(const gemma4_stored_tensor *tensor, const size_t *expected, size_t rank,
                          size_t *row_axis)
{
    if (tensor->rank < rank)
        return false;
    size_t extra = tensor->rank - rank;
    for (size_t i = 0; i < extra; i++)
        if (tensor->shape[i] != 1)
            return false;
    for (size_t i = 0; i < rank; i++)
        if (tensor->shape[extra + i] != expected[i])
            return false;
    *row_axis = extra;
    return true;
}

/* [rows, dims...], or for two dims [rows, dims[0] * dims[1]] too: the same bytes with the axes
 * merged. */
static bool match_tap_shape(activation_entry *entry, size_t rows, const size_t dims[2],
                            size_t dims_count)
{
    const size_t whole[3] = {rows, dims[0], dims[1]};
    const size_t merged[2] = {rows, entry->shown.width};
    return shape_matches(&entry->stored, whole, 1 + dims_count, &entry->row_axis) ||
           shape_matches(&entry->stored, merged, 2, &entry->row_axis);
}

/* --- reading elements --- */

/* The rows as a block of the tensor: all of the other axes. */
static int read_rows(const gemma4_activations *file, const gemma4_stored_tensor *tensor,
                     size_t row_axis, size_t first_row, size_t count, void *elements,
                     gemma4_error *error)
{
    size_t start[8] = {0}, extent[8];
    memcpy(extent, tensor->shape, sizeof extent);
    start[row_axis] = first_row;
    extent[row_axis] = count;
    return file->source.read(file->source.state, tensor, start, extent, elements, error);
}

/* Reads count rows as they are stored. The buffer is the caller's to free; NULL on failure. */
static void *read_elements(const gemma4_activations *file, const gemma4_stored_tensor *tensor,
                           size_t row_axis, size_t first_row, size_t count, size_t row_elements,
                           gemma4_error *error)
{
    size_t elements_count, bytes;
    if (!gemma4_size_product(count, row_elements, &elements_count) ||
        !gemma4_size_product(elements_count, gemma4_element_describe(tensor->element)->size,
                             &bytes)) {
        gemma4_fail(error, "%s: %s: %zu rows are more than this machine can address", file->path,
                    tensor->name, count);
        return NULL;
    }
    void *elements = malloc(bytes);
    if (!elements) {
        gemma4_fail(error, "%s: %s: out of memory", file->path, tensor->name);
        return NULL;
    }
    if (read_rows(file, tensor, row_axis, first_row, count, elements, error)) {
        free(elements);
        return NULL;
    }
    return elements;
}

static int check_request(const gemma4_activations *file, const activation_entry *entry,
                         size_t first_row, size_t count, bool ids, gemma4_error *error)
{
    const gemma4_activation *shown = &entry->shown;
    const char *name = entry->stored.name;
    if (!shown->usable)
        return gemma4_fail(error, "%s: %s: %s", file->path, name, shown->problem);
    if (gemma4_tap_describe(shown->tap)->ids != ids)
        return gemma4_fail(error, "%s: %s: expected %s, found %s", file->path, name,
                           ids ? "ids" : "reals", shown->stored_dtype);
    if (first_row > shown->rows || count > shown->rows - first_row)
        return gemma4_fail(error,
                           "%s: %s: expected rows within 0 ... %zu, found %zu rows from %zu on",
                           file->path, name, shown->rows - 1, count, first_row);
    return 0;
}

/* The factor of a map. */
static void apply_scale(const gemma4_stored_tensor *tensor, size_t count, float *values)
{
    for (size_t i = 0; tensor->scale != 0 && i < count; i++)
        values[i] = (float)(values[i] * tensor->scale);
}

int gemma4_activations_read(gemma4_activations *file, const gemma4_activation *activation,
                            size_t first_row, size_t count, float *values, gemma4_error *error)
{
    const activation_entry *entry = (const activation_entry *)activation;
    const gemma4_stored_tensor *tensor = &entry->stored;
    if (check_request(file, entry, first_row, count, false, error))
        return -1;
    if (count == 0)
        return 0;
    if (tensor->element == GEMMA4_ELEMENT_F32) { /* needs neither conversion nor a buffer */
        int status = read_rows(file, tensor, entry->row_axis, first_row, count, values, error);
        if (status == 0)
            apply_scale(tensor, count * entry->shown.width, values);
        return status;
    }

    void *elements =
        read_elements(file, tensor, entry->row_axis, first_row, count, entry->shown.width, error);
    if (!elements)
        return -1;
    gemma4_element_to_float(tensor->element, elements, count * entry->shown.width, values);
    apply_scale(tensor, count * entry->shown.width, values);
    free(elements);
    return 0;
}

int gemma4_activations_read_ids(gemma4_activations *file, const gemma4_activation *activation,
                                size_t first_row, size_t count, int32_t *ids, gemma4_error *error)
{
    const activation_entry *entry = (const activation_entry *)activation;
    const gemma4_stored_tensor *tensor = &entry->stored;
    if (check_request(file, entry, first_row, count, true, error))
        return -1;
    if (count == 0)
        return 0;
    void *elements =
        read_elements(file, tensor, entry->row_axis, first_row, count, entry->shown.width, error);
    if (!elements)
        return -1;
    int status = 0;
    for (size_t i = 0; i < count * entry->shown.width && status == 0; i++) {
        int64_t id = gemma4_element_to_int(tensor->element, elements, i);
        if (id < INT32_MIN || id > INT32_MAX)
            status = gemma4_fail(error, "%s: %s: row %zu: expected ids of 32 bits, found %lld",
                                 file->path, tensor->name, first_row + i / entry->shown.width,
                                 (long long)id);
        else
            ids[i] = (int32_t)id;
    }
    free(elements);
    return status;
}

/* --- tokens and positions --- */

static const gemma4_stored_tensor *find_stored(const gemma4_activations *file, const char *name)
{
    for (size_t i = 0; i < file->list.count; i++)
        if (strcmp(file->list.items[i].name, name) == 0)
            return &file->list.items[i];
    return NULL;
}

/* Reads a list of integers, each in 0 ... limit - 1. count is how many there must be; 0 for 1 ...
 * max_count, and is then set to what was found. */
static int read_int_list(const gemma4_activations *file, const gemma4_stored_tensor *tensor,
                         size_t *count, size_t max_count, size_t limit, int32_t **list,
                         gemma4_error *error)
{
    const char *path = file->path, *name = tensor->name;
    char found[96];
    if (tensor->problem[0])
        return gemma4_fail(error, "%s: %s: %s", path, name, tensor->problem);
    if (gemma4_element_describe(tensor->element)->real)
        return gemma4_fail(error, "%s: %s: expected integers, found %s", path, name,
                           gemma4_element_describe(tensor->element)->name);
    if (tensor->has_rows)
        return gemma4_fail(error, "%s: %s: expected every position, found an attribute rows", path,
                           name);

    gemma4_shape_text(tensor->shape, tensor->rank, found, sizeof found);
    size_t length = tensor->rank ? tensor->shape[tensor->rank - 1] : 0, row_axis;
    if (!shape_matches(tensor, &length, 1, &row_axis) || length == 0)
        return gemma4_fail(error, "%s: %s: expected one axis of positions, found %s", path, name,
                           found);
    if (*count && length != *count)
        return gemma4_fail(error, "%s: %s: expected [%zu] like tokens, found %s", path, name,
                           *count, found);
    if (length > max_count)
        return gemma4_fail(error,
                           "%s: %s: expected at most max_position_embeddings = %zu, found %s", path,
                           name, max_count, found);

    void *elements = read_elements(file, tensor, row_axis, 0, length, 1, error);
    int32_t *values = elements ? malloc(length * sizeof *values) : NULL;
    int status = elements ? 0 : -1;
    if (elements && !values)
        status = gemma4_fail(error, "%s: %s: out of memory", path, name);
    for (size_t i = 0; i < length && status == 0; i++) {
        int64_t value = gemma4_element_to_int(tensor->element, elements, i);
        if (value < 0 || (uint64_t)value >= limit || value > INT32_MAX)
            status = gemma4_fail(error, "%s: %s: entry %zu: expected 0 ... %zu, found %lld", path,
                                 name, i, limit - 1, (long long)value);
        else
            values[i] = (int32_t)value;
    }
    free(elements);
    if (status) {
        free(values);
        return -1;
    }
    *count = length;
    *list = values;
    return 0;
}

/* The tokens that a dump without any was made from. */
static int take_tokens(gemma4_activations *file, const gemma4_given_tokens *given,
                       gemma4_error *error)
{
    file->positions_count = given->count;
    file->tokens = malloc(given->count * sizeof *file->tokens);
    if (!file->tokens)
        return gemma4_fail(error, "%s: out of memory", file->path);
    memcpy(file->tokens, given->tokens, given->count * sizeof *file->tokens);
    return 0;
}

/* Fills T, tokens and positions. given may be NULL. */
static int read_case(gemma4_activations *file, const gemma4_config *config,
                     const gemma4_given_tokens *given, gemma4_error *error)
{
    const size_t max_count = config->max_position_embeddings;
    const gemma4_stored_tensor *tokens = find_stored(file, "tokens"),
                               *positions = find_stored(file, "positions");
    char found[512];
    if (!tokens && !given) {
        unknown_text(&file->list, found, sizeof found);
        return gemma4_fail(error,
                           "%s: tokens: expected the input ids, found no such dataset, but %s",
                           file->path, found);
    }
    if (tokens ? read_int_list(file, tokens, &file->positions_count, max_count, config->vocab_size,
                               &file->tokens, error)
               : take_tokens(file, given, error))
        return -1;
    size_t T = file->positions_count;
    if (positions &&
        read_int_list(file, positions, &T, max_count, max_count, &file->positions, error))
        return -1;

    bool counted = positions == NULL;
    if (counted)
        file->positions = malloc(T * sizeof *file->positions);
    file->every_row = malloc(T * sizeof *file->every_row);
    if (!file->positions || !file->every_row)
        return gemma4_fail(error, "%s: out of memory", file->path);
    for (size_t t = 0; t < T; t++) {
        file->every_row[t] = t;
        if (counted)
            file->positions[t] = (int32_t)(t + (given ? given->first_position : 0));
        else if (t > 0 && file->positions[t] != file->positions[t - 1] + 1)
            return gemma4_fail(
                error,
                "%s: positions: positions must be consecutive: entry %zu: expected %d, found %d",
                file->path, t, file->positions[t - 1] + 1, file->positions[t]);
    }
    return 0;
}

/* --- taps --- */

/* Turns the attribute `rows` into indices: distinct positions of the case. seen is [T], all false,
 * and is left so. */
static int check_rows(const gemma4_activations *file, activation_entry *entry, bool *seen,
                      gemma4_error *error)
{
    const gemma4_stored_tensor *tensor = &entry->stored;
    const size_t T = file->positions_count;
    if (tensor->row_count == 0)
        return gemma4_fail(error,
                           "%s: %s: attribute rows: expected at least one position, found none",
                           file->path, tensor->name);
    if (tensor->row_count > T)
        return gemma4_fail(error,
                           "%s: %s: attribute rows: expected at most %zu positions, found %zu",
                           file->path, tensor->name, T, tensor->row_count);
    entry->rows = malloc(tensor->row_count * sizeof *entry->rows);
    if (!entry->rows)
        return gemma4_fail(error, "%s: %s: out of memory", file->path, tensor->name);

    int status = 0;
    size_t checked = 0;
    for (; checked < tensor->row_count && status == 0; checked++) {
        int64_t row = tensor->rows[checked];
        if (row < 0 || (uint64_t)row >= T)
            status = gemma4_fail(
                error, "%s: %s: attribute rows: expected positions in 0 ... %zu, found %lld",
                file->path, tensor->name, T - 1, (long long)row);
        else if (seen[row])
            status = gemma4_fail(
                error, "%s: %s: attribute rows: expected distinct positions, found %lld twice",
                file->path, tensor->name, (long long)row);
        else {
            seen[row] = true;
            entry->rows[checked] = (size_t)row;
        }
    }
    if (status == 0)
        for (size_t i = 0; i < checked; i++)
            seen[entry->rows[i]] = false;
    return status;
}

/* How many tokens a tensor of log-probabilities lists at each position, as far as that can be true:
 * 1 ... V, else 0. */
static size_t listed_tokens(const gemma4_config *config, const gemma4_stored_tensor *tensor)
{
    size_t last = tensor->rank ? tensor->shape[tensor->rank - 1] : 0;
    return last <= config->vocab_size ? last : 0;
}

/* Says in entry->shown whether the tensor has the shape that the config implies, and if not, which
 * it should have. */
static void match_shape(const gemma4_activations *file, const gemma4_config *config, size_t rows,
                        activation_entry *entry)
{
    gemma4_activation *shown = &entry->shown;
    const gemma4_stored_tensor *tensor = &entry->stored;
    size_t dims[2],
        dims_count = gemma4_tap_dims(config, shown->tap, shown->layer, file->positions_count, dims);
    char expected_text[96], found_text[96];
    if (dims[0] == 0) /* of all taps, only these have an axis that no config says */
        dims[0] = listed_tokens(config, tensor);
    const size_t expected[3] = {rows, dims[0], dims[1]};
    shown->usable = gemma4_size_product(dims[0], dims[1], &shown->width) &&
                    match_tap_shape(entry, rows, dims, dims_count) && dims[0] > 0;
    if (shown->usable)
        return;
    gemma4_shape_text(expected, 1 + dims_count, expected_text, sizeof expected_text);
    if (gemma4_tap_describe(shown->tap)->derived)
        snprintf(expected_text, sizeof expected_text, "[%zu, 1 ... %zu]", rows, config->vocab_size);
    gemma4_shape_text(tensor->shape, tensor->rank, found_text, sizeof found_text);
    snprintf(shown->problem, sizeof shown->problem, "expected %.70s, found %.70s", expected_text,
             found_text);
    shown->wrong_shape = true;
}

/* The same without a config: the positions come first, and the axes are as many as the tap's, or
 * one less where two are merged. */
static void take_shape(size_t rows, activation_entry *entry)
{
    gemma4_activation *shown = &entry->shown;
    const gemma4_stored_tensor *tensor = &entry->stored;
    size_t most = 1 + strlen(gemma4_tap_describe(shown->tap)->shape);
    char found_text[96];
    for (size_t rank = most; rank >= 2 && !shown->usable; rank--) {
        size_t extra = tensor->rank < rank ? 0 : tensor->rank - rank, expected[3] = {rows};
        for (size_t i = 1; i < rank && extra + i < tensor->rank; i++)
            expected[i] = tensor->shape[extra + i];
        shown->usable = shape_matches(tensor, expected, rank, &entry->row_axis);
        shown->width = 1;
        for (size_t i = 1; i < rank && shown->usable; i++)
            shown->usable =
                expected[i] > 0 && gemma4_size_product(shown->width, expected[i], &shown->width);
    }
    if (shown->usable)
        return;
    gemma4_shape_text(tensor->shape, tensor->rank, found_text, sizeof found_text);
    snprintf(shown->problem, sizeof shown->problem,
             "expected %zu positions first and %zu axes in all, found %.70s", rows, most,
             found_text);
    shown->wrong_shape = true;
}

/* Says in entry->shown whether the tensor is what the config implies, and if not, why. */
static void match_tap(const gemma4_activations *file, const gemma4_config *config,
                      activation_entry *entry)
{
    gemma4_activation *shown = &entry->shown;
    const gemma4_stored_tensor *tensor = &entry->stored;
    const gemma4_element_info *element = gemma4_element_describe(tensor->element);
    bool ids = gemma4_tap_describe(shown->tap)->ids;
    size_t rows = tensor->has_rows ? tensor->row_count : file->positions_count;
    if (tensor->problem[0])
        snprintf(shown->problem, sizeof shown->problem, "%s", tensor->problem);
    else if (element->real == ids)
        snprintf(shown->problem, sizeof shown->problem, "expected %s, found %s%s",
                 ids ? "integers" : "a float type", element->name,
                 tensor->element == GEMMA4_ELEMENT_U16 ? " without attribute dtype=\"bfloat16\""
                                                       : "");
    else if (config)
        match_shape(file, config, rows, entry);
    else
        take_shape(rows, entry);

    shown->rows = rows;
    shown->row_index = entry->rows || !shown->usable ? entry->rows : file->every_row;
}

/* Dataflow order: what precedes the layers, layer by layer, what follows them. */
static int compare_entries(const void *a, const void *b)
{
    const gemma4_activation *left = a, *right = b;
    bool both_in_layers =
        gemma4_tap_describe(left->tap)->per_layer && gemma4_tap_describe(right->tap)->per_layer;
    if (both_in_layers && left->layer != right->layer)
        return left->layer < right->layer ? -1 : 1;
    return left->tap == right->tap ? 0 : left->tap < right->tap ? -1 : 1;
}

static int match_taps(gemma4_activations *file, const gemma4_config *config, gemma4_error *error)
{
    file->entries = calloc(file->list.count, sizeof *file->entries);
    bool *seen = calloc(file->positions_count, sizeof *seen);
    int status = file->entries && seen ? 0 : gemma4_fail(error, "%s: out of memory", file->path);
    for (size_t i = 0; i < file->list.count && status == 0; i++) {
        activation_entry *entry = &file->entries[file->entries_count];
        entry->stored = file->list.items[i];
        if (!gemma4_tap_parse(entry->stored.name, &entry->shown.tap, &entry->shown.layer))
            continue; /* tokens, positions */
        file->entries_count++;
        gemma4_activation *shown = &entry->shown;
        snprintf(shown->stored_dtype, sizeof shown->stored_dtype, "%s",
                 gemma4_element_describe(entry->stored.element)->name);
        shown->rank = entry->stored.rank;
        memcpy(shown->shape, entry->stored.shape, sizeof shown->shape);
        if (entry->stored.has_rows)
            status = check_rows(file, entry, seen, error);
        if (status == 0)
            match_tap(file, config, entry);
    }
    free(seen);
    if (status)
        return -1;
    if (file->entries_count == 0) {
        char found[512];
        unknown_text(&file->list, found, sizeof found);
        return gemma4_fail(error,
                           "%s: expected at least one tap beside tokens (spec/taps.md), found %s",
                           file->path, found);
    }
    qsort(file->entries, file->entries_count, sizeof *file->entries, compare_entries);
    return 0;
}

/* --- opening --- */

static int check_attribute(const gemma4_activations *file, const char *name, const char *expected,
                           gemma4_error *error)
{
    const char *found = gemma4_activations_attribute(file, name);
    if (!found)
        return gemma4_fail(error, "%s: attribute %s: expected %s, found none", file->path, name,
                           expected);
    if (strcmp(found, expected) != 0)
        return gemma4_fail(error, "%s: attribute %s: expected %s, found %.64s", file->path, name,
                           expected, found);
    return 0;
}

/* Opens whichever kind of file it is. */
static int open_source(const char *path, gemma4_activation_source *source, gemma4_error *error)
{
    gemma4_activations_kind kind;
    if (gemma4_activations_kind_of(path, false, &kind, error))
        return -1;
    return kind == GEMMA4_ACTIVATIONS_HDF5
               ? gemma4_activations_hdf5_open(path, source, error)
               : gemma4_activations_safetensors_open(path, source, error);
}

int gemma4_activations_peek(const char *path, const char *name, char *text, size_t size,
                            gemma4_error *error)
{
    gemma4_activation_source source = {0};
    if (open_source(path, &source, error))
        return -1;
    const char *found = source.attribute(source.state, name);
    int status = 0;
    if (!found)
        status = gemma4_fail(error, "%s: attribute %s: expected a text, found none", path, name);
    else if (strlen(found) >= size)
        status = gemma4_fail(error, "%s: attribute %s: expected at most %zu bytes, found %zu", path,
                             name, size - 1, strlen(found));
    else
        snprintf(text, size, "%s", found);
    source.close(source.state);
    return status;
}

static int refuse_without_taps(const gemma4_activations *file, gemma4_error *error)
{
    char found[512];
    unknown_text(&file->list, found, sizeof found);
    return gemma4_fail(error,
                       "%s: expected tensors under taps' names (tokens, layers/0/output, logits: "
                       "spec/taps.md), or --map for others (gemma4-check "
                       "names proposes a map), found %s",
                       file->path, found);
}

/* Lists the tensors and checks that the file says what it is. One that says something else and
 * holds no tap is no dump at all: its user is helped more by what is in it than by the attribute
 * that it lacks. */
static int list_tensors(gemma4_activations *file, const gemma4_config *config, gemma4_error *error)
{
    char version[16];
    gemma4_error ignored;
    const char *format = gemma4_activations_attribute(file, "format");
    bool ours = format && strcmp(format, GEMMA4_ACTIVATIONS_FORMAT) == 0;
    snprintf(version, sizeof version, "%d", GEMMA4_ACTIVATIONS_VERSION);
    if (ours && check_attribute(file, "format_version", version, error))
        return -1;
    int status =
        file->source.list(file->source.state, config, &file->list, ours ? error : &ignored);
    if (status == 0 && !ours && file->list.count == 0 && file->list.unknown_count > 0)
        return refuse_without_taps(file, error);
    return ours ? status : check_attribute(file, "format", GEMMA4_ACTIVATIONS_FORMAT, error);
}

static gemma4_activations *new_file(const char *path, gemma4_error *error)
{
    gemma4_activations *file = calloc(1, sizeof *file);
    if (file && (file->path = strdup(path)))
        return file;
    free(file);
    gemma4_fail(error, "%s: out of memory", path);
    return NULL;
}

gemma4_activations *gemma4_activations_open_source(const char *path,
                                                   const gemma4_activation_source *source,
                                                   const gemma4_config *config,
                                                   const gemma4_given_tokens *given,
                                                   gemma4_error *error)
{
    gemma4_activations *file = new_file(path, error);
    if (!file) {
        source->close(source->state);
        return NULL;
    }
    file->source = *source;
    if (source->list(source->state, config, &file->list, error) ||
        read_case(file, config, given, error) || match_taps(file, config, error)) {
        gemma4_activations_close(file);
        return NULL;
    }
    return file;
}

gemma4_activations *gemma4_activations_open(const char *path, const gemma4_config *config,
                                            gemma4_error *error)
{
    gemma4_activations *file = new_file(path, error);
    if (!file)
        return NULL;
    const gemma4_config *model = config ? config : &gemma4_any_model;
    if (open_source(path, &file->source, error) || list_tensors(file, model, error) ||
        read_case(file, model, NULL, error) || match_taps(file, config, error)) {
        gemma4_activations_close(file);
        return NULL;
    }
    return file;
}

gemma4_activations *gemma4_activations_open_group(const char *path, const char *group,
                                                  const gemma4_config *config, bool *missing,
                                                  gemma4_error *error)
{
    gemma4_activations_kind kind;
    gemma4_activation_source source;
    *missing = false;
    if (gemma4_activations_kind_of(path, false, &kind, error))
        return NULL;
    gemma4_activations *file = new_file(path, error);
    if (!file ||
        (kind == GEMMA4_ACTIVATIONS_HDF5
             ? gemma4_activations_hdf5_open_group(path, group, missing, &source, error)
             : gemma4_activations_safetensors_open_group(path, group, missing, &source, error))) {
        gemma4_activations_close(file);
        return NULL;
    }
    file->source = source;
    if (list_tensors(file, config, error) || read_case(file, config, NULL, error) ||
        match_taps(file, config, error)) {
        gemma4_activations_close(file);
        return NULL;
    }
    return file;
}

void gemma4_activations_close(gemma4_activations *file)
{
    if (!file)
        return;
    for (size_t i = 0; i < file->entries_count; i++)
        free(file->entries[i].rows);
    free(file->entries);
    gemma4_stored_list_free(&file->list);
    if (file->source.close)
        file->source.close(file->source.state);
    free(file->every_row);
    free(file->tokens);
    free(file->positions);
    free(file->path);
    free(file);
}

size_t gemma4_activations_positions(const gemma4_activations *file, const int32_t **tokens,
                                    const int32_t **positions)
{
    if (tokens)
        *tokens = file->tokens;
    if (positions)
        *positions = file->positions;
    return file->positions_count;
}

const char *gemma4_activations_attribute(const gemma4_activations *file, const char *name)
{
    return file->source.attribute(file->source.state, name);
}

size_t gemma4_activations_count(const gemma4_activations *file)
{
    return file->entries_count;
}

const gemma4_activation *gemma4_activations_at(const gemma4_activations *file, size_t index)
{
    return index < file->entries_count ? &file->entries[index].shown : NULL;
}

const gemma4_activation *gemma4_activations_find(const gemma4_activations *file, gemma4_tap tap,
                                                 size_t layer)
{
    const activation_entry key = {.shown = {.tap = tap, .layer = layer}};
    const activation_entry *entry =
        bsearch(&key, file->entries, file->entries_count, sizeof *file->entries, compare_entries);
    return entry ? &entry->shown : NULL;
}

size_t gemma4_activations_unknown_count(const gemma4_activations *file)
{
    return file->list.unknown_count;
}

const char *gemma4_activations_unknown_at(const gemma4_activations *file, size_t index)
{
    return index < file->list.unknown_count && index < GEMMA4_UNKNOWN_MAX
               ? file->list.unknown[index]
               : NULL;
}
