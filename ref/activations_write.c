/* The writer of activation files. The same calls in the same order give the same bytes: no times
 * are stored, and the HDF5 format is pinned to the one that every HDF5 since 1.8 reads. */
#include "activations.h"
#include "activations_internal.h"
#include "config.h"
#include "output.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_ROWS = 64, CHUNK_BYTES = 1 << 20, DEFLATE_LEVEL = 6 };

/* One dataset while it grows: rows are appended in the order in which they come. */
typedef struct written_tap {
    hid_t dataset; /* H5I_INVALID_HID before the first row and after the last one of the case */
    size_t rank, dims[2];
    size_t row_elements, chunk_rows;
    size_t rows_count;
    int32_t *rows; /* [T]: the position of each stored row */
    bool *written; /* [T] by position */
} written_tap;

struct gemma4_activations_writer {
    char *path;
    gemma4_output output;
    const gemma4_config *config;
    hid_t file;
    size_t positions_count; /* T */
    gemma4_element element; /* of the real datasets */
    hid_t real_type;        /* its HDF5 type in the file, little-endian */
    written_tap *taps;      /* [num_hidden_layers][GEMMA4_TAP_COUNT] */
};

/* --- HDF5 types --- */

/* bfloat16 as a float type of 1-8-7 bits: unlike uint16 with a mark, it reads as numbers
 * everywhere. */
static hid_t create_bfloat16_type(void)
{
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    if (type >= 0 && H5Tset_fields(type, 15, 7, 8, 0, 7) >= 0 && H5Tset_precision(type, 16) >= 0 &&
        H5Tset_size(type, 2) >= 0 && H5Tset_ebias(type, 127) >= 0)
        return type;
    H5Tclose(type);
    return H5I_INVALID_HID;
}

static hid_t create_float16_type(void)
{
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    if (type >= 0 && H5Tset_fields(type, 15, 10, 5, 0, 10) >= 0 &&
        H5Tset_precision(type, 16) >= 0 && H5Tset_size(type, 2) >= 0 && H5Tset_ebias(type, 15) >= 0)
        return type;
    H5Tclose(type);
    return H5I_INVALID_HID;
}

static hid_t create_real_type(gemma4_element element)
{
    switch (element) {
    case GEMMA4_ELEMENT_F16: return create_float16_type();
    case GEMMA4_ELEMENT_BF16: return create_bfloat16_type();
    case GEMMA4_ELEMENT_F32: return H5Tcopy(H5T_IEEE_F32LE);
    case GEMMA4_ELEMENT_F64: return H5Tcopy(H5T_IEEE_F64LE);
    default: return H5I_INVALID_HID;
    }
}

/* The type of the values in memory: the file's, in host byte order. */
static hid_t host_type(hid_t type)
{
    hid_t host = H5Tcopy(type);
    if (host >= 0 && H5Tset_order(host, H5Tget_order(H5T_NATIVE_INT32)) < 0) {
        H5Tclose(host);
        return H5I_INVALID_HID;
    }
    return host;
}

/* --- errors --- */

/* Must come before any further call to HDF5, a close included: that clears the reason. */
static int writer_fail(const gemma4_activations_writer *writer, const char *what,
                       gemma4_error *error)
{
    return gemma4_hdf5_fail(writer->path, what, error);
}

static int tap_fail(const gemma4_activations_writer *writer, gemma4_tap tap, size_t layer,
                    const char *what, gemma4_error *error)
{
    char name[GEMMA4_TAP_NAME_SIZE], place[GEMMA4_TAP_NAME_SIZE + 64];
    snprintf(place, sizeof place, "%s: %s", gemma4_tap_name(tap, layer, name), what);
    return writer_fail(writer, place, error);
}

/* --- attributes and the small datasets --- */

static int write_string_attribute(const gemma4_activations_writer *writer, const char *name,
                                  const char *text, gemma4_error *error)
{
    /* Of variable length, since h5py reads those as str and the others as bytes. */
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR), attribute = H5I_INVALID_HID;
    bool ready = type >= 0 && space >= 0 && H5Tset_size(type, H5T_VARIABLE) >= 0 &&
                 H5Tset_cset(type, H5T_CSET_UTF8) >= 0;
    if (ready && H5Aexists(writer->file, name) > 0)
        ready = H5Adelete(writer->file, name) >= 0;
    if (ready)
        attribute = H5Acreate2(writer->file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    int status = attribute >= 0 && H5Awrite(attribute, type, &text) >= 0
                     ? 0
                     : writer_fail(writer, name, error);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
    return status;
}

static int write_int_attribute(const gemma4_activations_writer *writer, hid_t object, hid_t space,
                               const char *name, const int32_t *values, gemma4_error *error)
{
    hid_t attribute = H5Acreate2(object, name, H5T_STD_I32LE, space, H5P_DEFAULT, H5P_DEFAULT);
    int status = attribute >= 0 && H5Awrite(attribute, H5T_NATIVE_INT32, values) >= 0
                     ? 0
                     : writer_fail(writer, name, error);
    H5Aclose(attribute);
    return status;
}

static int write_version(const gemma4_activations_writer *writer, gemma4_error *error)
{
    const int32_t version = GEMMA4_ACTIVATIONS_VERSION;
    hid_t space = H5Screate(H5S_SCALAR);
    int status =
        write_int_attribute(writer, writer->file, space, "format_version", &version, error);
    H5Sclose(space);
    return status;
}

static int write_int_list(const gemma4_activations_writer *writer, const char *name,
                          const int32_t *values, size_t count, gemma4_error *error)
{
    hsize_t length = count;
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(1, &length, NULL),
          dataset = H5I_INVALID_HID;
    if (creation >= 0 && space >= 0 && H5Pset_obj_track_times(creation, false) >= 0)
        dataset = H5Dcreate2(writer->file, name, H5T_STD_I32LE, space, H5P_DEFAULT, creation,
                             H5P_DEFAULT);
    int status = 0;
    if (dataset < 0 ||
        H5Dwrite(dataset, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0)
        status = writer_fail(writer, name, error);
    H5Dclose(dataset); /* nothing is buffered here that H5Fclose would not report */
    H5Sclose(space);
    H5Pclose(creation);
    return status;
}

int gemma4_activations_set_attribute(gemma4_activations_writer *writer, const char *name,
                                     const char *text, gemma4_error *error)
{
    if (strlen(text) >= GEMMA4_ATTRIBUTE_MAX_BYTES)
        return gemma4_fail(error, "%s: attribute %s: expected less than %zu bytes, found %zu",
                           writer->path, name, GEMMA4_ATTRIBUTE_MAX_BYTES, strlen(text));
    if (strcmp(name, "format") == 0 || strcmp(name, "format_version") == 0)
        return gemma4_fail(error,
                           "%s: attribute %s: expected another name: this one is the writer's own",
                           writer->path, name);
    return write_string_attribute(writer, name, text, error);
}

/* --- creating --- */

static int create_file(gemma4_activations_writer *writer, gemma4_error *error)
{
    hid_t creation = H5Pcreate(H5P_FILE_CREATE), access = H5Pcreate(H5P_FILE_ACCESS);
    if (creation >= 0 && access >= 0 && H5Pset_obj_track_times(creation, false) >= 0 &&
        H5Pset_fapl_sec2(access) >= 0 &&
        H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18) >= 0)
        writer->file = H5Fcreate(writer->output.temporary, H5F_ACC_TRUNC, creation, access);
    int status = writer->file < 0 ? writer_fail(writer, "cannot create", error) : 0;
    H5Pclose(access);
    H5Pclose(creation);
    return status;
}

static int write_case(const gemma4_activations_writer *writer, const int32_t *tokens,
                      size_t first_position, gemma4_error *error)
{
    const size_t T = writer->positions_count;
    int32_t *positions = malloc(T * sizeof *positions);
    if (!positions)
        return gemma4_fail(error, "%s: out of memory", writer->path);
    for (size_t t = 0; t < T; t++)
        positions[t] = (int32_t)(first_position + t);
    int status = 0;
    if (write_string_attribute(writer, "format", GEMMA4_ACTIVATIONS_FORMAT, error) ||
        write_version(writer, error) || write_int_list(writer, "tokens", tokens, T, error) ||
        write_int_list(writer, "positions", positions, T, error))
        status = -1;
    free(positions);
    return status;
}

static int check_case(const char *path, const gemma4_config *config, size_t count,
                      size_t first_position, gemma4_element element, const char *store_dtype,
                      gemma4_error *error)
{
    const size_t limit = config->max_position_embeddings;
    if (!gemma4_element_describe(element)->real)
        return gemma4_fail(
            error, "%s: expected a store dtype float32, float64, float16 or bfloat16, found %s",
            path, store_dtype);
    if (count == 0 || limit > INT32_MAX || first_position > limit || count > limit - first_position)
        return gemma4_fail(error, "%s: expected 1 ... %zu positions, found %zu from %zu on", path,
                           limit, count, first_position);
    return 0;
}

static void writer_free(gemma4_activations_writer *writer)
{
    free(writer->taps);
    free(writer->path);
    free(writer);
}

/* A writer without a file yet. */
static gemma4_activations_writer *writer_new(const char *path, const gemma4_config *config,
                                             size_t count, gemma4_element element)
{
    gemma4_activations_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return NULL;
    const size_t taps_count = config->num_hidden_layers * GEMMA4_TAP_COUNT;
    writer->path = strdup(path);
    writer->taps = calloc(taps_count, sizeof *writer->taps);
    if (!writer->path || !writer->taps) {
        writer_free(writer);
        return NULL;
    }
    writer->output.guard = -1;
    writer->config = config;
    writer->positions_count = count;
    writer->element = element;
    writer->file = writer->real_type = H5I_INVALID_HID;
    for (size_t i = 0; i < taps_count; i++)
        writer->taps[i].dataset = H5I_INVALID_HID;
    return writer;
}

gemma4_activations_writer *gemma4_activations_create(const char *path, const gemma4_config *config,
                                                     const int32_t *tokens, size_t count,
                                                     size_t first_position, const char *store_dtype,
                                                     gemma4_error *error)
{
    gemma4_element element = gemma4_element_named(store_dtype);
    H5dont_atexit(); /* libhdf5 crashes there where a file could not be written to its end; what is
                        whole was closed before */
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    if (check_case(path, config, count, first_position, element, store_dtype, error))
        return NULL;
    gemma4_activations_writer *writer = writer_new(path, config, count, element);
    if (!writer) {
        gemma4_fail(error, "%s: out of memory", path);
        return NULL;
    }
    writer->real_type = create_real_type(element);
    if (writer->real_type < 0)
        writer_fail(writer, "cannot create the type of the values", error);
    if (writer->real_type < 0 || gemma4_output_name(&writer->output, path, error) ||
        create_file(writer, error) || write_case(writer, tokens, first_position, error)) {
        gemma4_activations_discard(writer);
        return NULL;
    }
    return writer;
}

/* --- one dataset --- */

static bool last_axis_is_keys(gemma4_tap tap)
{
    const char *shape = gemma4_tap_describe(tap)->shape;
    return shape[strlen(shape) - 1] == 'T';
}

static written_tap *tap_of_event(const gemma4_activations_writer *writer,
                                 const gemma4_tap_event *event)
{
    size_t layer = gemma4_tap_describe(event->tap)->per_layer ? event->layer : 0;
    return &writer->taps[layer * GEMMA4_TAP_COUNT + event->tap];
}

static size_t element_size(const gemma4_activations_writer *writer, gemma4_tap tap)
{
    return gemma4_tap_describe(tap)->ids ? sizeof(int32_t)
                                         : gemma4_element_describe(writer->element)->size;
}

/* As many rows as fit in CHUNK_BYTES, at most CHUNK_ROWS and at least one. */
static size_t choose_chunk_rows(size_t row_bytes, size_t rows)
{
    size_t chosen = CHUNK_BYTES / row_bytes;
    if (chosen > CHUNK_ROWS)
        chosen = CHUNK_ROWS;
    if (chosen > rows)
        chosen = rows;
    return chosen ? chosen : 1;
}

/* Creates the groups on the way to path, without the times that H5Pset_create_intermediate_group
 * would store in them. */
static bool create_groups(const gemma4_activations_writer *writer, const char *path)
{
    char group[GEMMA4_TAP_NAME_SIZE];
    hid_t creation = H5Pcreate(H5P_GROUP_CREATE);
    bool ok = creation >= 0 && H5Pset_obj_track_times(creation, false) >= 0;
    for (const char *slash = strchr(path, '/'); ok && slash; slash = strchr(slash + 1, '/')) {
        snprintf(group, sizeof group, "%.*s", (int)(slash - path), path);
        if (H5Lexists(writer->file, group, H5P_DEFAULT) > 0)
            continue;
        hid_t created = H5Gcreate2(writer->file, group, H5P_DEFAULT, creation, H5P_DEFAULT);
        ok = created >= 0;
        H5Gclose(created);
    }
    H5Pclose(creation);
    return ok;
}

/* Shuffles and deflates every chunk. What H5Pset_shuffle and H5Pset_deflate set is optional: where
 * memory runs out in a filter, libhdf5 would leave it out and store other bytes. */
static bool set_filters(hid_t creation)
{
    static const unsigned level = DEFLATE_LEVEL;
    return H5Pset_filter(creation, H5Z_FILTER_SHUFFLE, H5Z_FLAG_MANDATORY, 0, NULL) >= 0 &&
           H5Pset_filter(creation, H5Z_FILTER_DEFLATE, H5Z_FLAG_MANDATORY, 1, &level) >= 0;
}

/* Creates the dataset with no rows yet and room for T, and the groups on its way. */
static int create_dataset(const gemma4_activations_writer *writer, written_tap *tap,
                          const gemma4_tap_event *event, gemma4_error *error)
{
    const hsize_t none[3] = {0, tap->dims[0], tap->dims[1]};
    const hsize_t all[3] = {writer->positions_count, tap->dims[0], tap->dims[1]};
    const hsize_t chunk[3] = {tap->chunk_rows, tap->dims[0], tap->dims[1]};
    const int rank = 1 + (int)tap->rank;
    char path[GEMMA4_TAP_NAME_SIZE];
    gemma4_tap_name(event->tap, event->layer, path);
    for (char *c = path; *c; c++)
        if (*c == '.')
            *c = '/';

    hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    hid_t space = H5Screate_simple(rank, none, all);
    hid_t type = gemma4_tap_describe(event->tap)->ids ? H5T_STD_I32LE : writer->real_type;
    if (create_groups(writer, path) && creation >= 0 && space >= 0 &&
        H5Pset_obj_track_times(creation, false) >= 0 && H5Pset_chunk(creation, rank, chunk) >= 0 &&
        set_filters(creation))
        tap->dataset =
            H5Dcreate2(writer->file, path, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    int status =
        tap->dataset < 0 ? tap_fail(writer, event->tap, event->layer, "cannot create", error) : 0;
    H5Sclose(space);
    H5Pclose(creation);
    return status;
}

static int start_tap(const gemma4_activations_writer *writer, written_tap *tap,
                     const gemma4_tap_event *event, gemma4_error *error)
{
    size_t row_bytes;
    tap->rank = gemma4_tap_dims(writer->config, event->tap, event->layer, writer->positions_count,
                                tap->dims);
    if (tap->dims[0] == 0) /* as many tokens as the first event lists */
        tap->dims[0] = event->dims[0];
    if (!gemma4_size_product(tap->dims[0], tap->dims[1], &tap->row_elements) ||
        !gemma4_size_product(tap->row_elements, element_size(writer, event->tap), &row_bytes))
        return gemma4_fail(error, "%s: a row is more than this machine can address", writer->path);
    tap->chunk_rows = choose_chunk_rows(row_bytes, writer->positions_count);
    tap->rows = malloc(writer->positions_count * sizeof *tap->rows);
    tap->written = calloc(writer->positions_count, sizeof *tap->written);
    if (!tap->rows || !tap->written)
        return gemma4_fail(error, "%s: out of memory", writer->path);
    return create_dataset(writer, tap, event, error);
}

static void release_tap(written_tap *tap)
{
    if (tap->dataset >= 0)
        H5Dclose(tap->dataset);
    tap->dataset = H5I_INVALID_HID;
    free(tap->rows);
    tap->rows = NULL;
}

/* Closes the dataset. Where not every position came, or not in order, it says which ones its rows
 * are. */
static int finish_tap(const gemma4_activations_writer *writer, written_tap *tap, gemma4_tap which,
                      size_t layer, gemma4_error *error)
{
    bool every_row = tap->rows_count == writer->positions_count;
    for (size_t i = 0; i < tap->rows_count; i++)
        every_row = every_row && tap->rows[i] == (int32_t)i;
    int status = 0;
    if (!every_row) {
        hsize_t length = tap->rows_count;
        hid_t space = H5Screate_simple(1, &length, NULL);
        status = write_int_attribute(writer, tap->dataset, space, "rows", tap->rows, error);
        H5Sclose(space);
    }
    if (status == 0 && H5Dclose(tap->dataset) < 0)
        status = tap_fail(writer, which, layer, "cannot write", error);
    else if (status == 0)
        tap->dataset = H5I_INVALID_HID;
    release_tap(tap);
    return status;
}

/* --- rows --- */

/* An event's last axis holds the keys that the position sees; the file's holds all T, zeros
 * elsewhere. */
static void pad_keys(const gemma4_tap_event *event, size_t first, size_t rows, size_t T,
                     gemma4_real *padded)
{
    const size_t heads = event->dims[0], visible = event->dims[1];
    memset(padded, 0, rows * heads * T * sizeof *padded);
    for (size_t i = 0; i < rows * heads; i++)
        memcpy(padded + i * T + event->first_key, event->values + (first * heads + i) * visible,
               visible * sizeof *padded);
}

/* The event's rows as the dataset stores them. The buffer is the caller's to free; NULL where
 * memory ran out. */
static void *stored_rows(const gemma4_activations_writer *writer, const written_tap *tap,
                         const gemma4_tap_event *event, size_t first, size_t rows)
{
    const size_t count = rows * tap->row_elements; /* rows is at most chunk_rows: CHUNK_BYTES, or
                                                      one row */
    void *elements = malloc(count * element_size(writer, event->tap));
    if (!elements)
        return NULL;
    if (event->ids)
        memcpy(elements, event->ids + first * tap->row_elements, count * sizeof *event->ids);
    else if (!last_axis_is_keys(event->tap))
        gemma4_element_from_real(writer->element, event->values + first * tap->row_elements, count,
                                 elements);
    else {
        gemma4_real *padded = malloc(count * sizeof *padded);
        if (!padded) {
            free(elements);
            return NULL;
        }
        pad_keys(event, first, rows, writer->positions_count, padded);
        gemma4_element_from_real(writer->element, padded, count, elements);
        free(padded);
    }
    return elements;
}

/* Appends rows of stored elements to the dataset. */
static int append_elements(const gemma4_activations_writer *writer, const written_tap *tap,
                           const gemma4_tap_event *event, size_t rows, const void *elements,
                           gemma4_error *error)
{
    const int rank = 1 + (int)tap->rank;
    const hsize_t start[3] = {tap->rows_count, 0, 0};
    const hsize_t added[3] = {rows, tap->dims[0], tap->dims[1]};
    const hsize_t extent[3] = {tap->rows_count + rows, tap->dims[0], tap->dims[1]};
    hid_t type = host_type(event->ids ? H5T_STD_I32LE : writer->real_type);
    hid_t memory = H5Screate_simple(rank, added, NULL), space = H5I_INVALID_HID;
    if (type >= 0 && memory >= 0 && H5Dset_extent(tap->dataset, extent) >= 0)
        space = H5Dget_space(tap->dataset);
    int status = 0;
    if (space < 0 || H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, added, NULL) < 0 ||
        H5Dwrite(tap->dataset, type, memory, space, H5P_DEFAULT, elements) < 0)
        status = tap_fail(writer, event->tap, event->layer, "cannot write", error);
    H5Sclose(space);
    H5Sclose(memory);
    H5Tclose(type);
    return status;
}

static int append_rows(const gemma4_activations_writer *writer, written_tap *tap,
                       const gemma4_tap_event *event, size_t first, size_t rows,
                       gemma4_error *error)
{
    void *elements = stored_rows(writer, tap, event, first, rows);
    if (!elements)
        return gemma4_fail(error, "%s: out of memory", writer->path);
    int status = append_elements(writer, tap, event, rows, elements, error);
    free(elements);
    if (status)
        return -1;
    for (size_t i = 0; i < rows; i++) {
        size_t position = event->row + first + i;
        tap->rows[tap->rows_count++] = (int32_t)position;
        tap->written[position] = true;
    }
    return 0;
}

/* --- one event --- */

/* Whether the event's values have the shape that the config implies. */
static bool event_shape_is_right(const gemma4_activations_writer *writer,
                                 const gemma4_tap_event *event)
{
    const size_t T = writer->positions_count;
    size_t dims[2], rank = gemma4_tap_dims(writer->config, event->tap, event->layer, T, dims);
    const written_tap *tap = tap_of_event(writer, event);
    if (dims[0] == 0)
        dims[0] = tap->written                                   ? tap->row_elements
                  : event->dims[0] <= writer->config->vocab_size ? event->dims[0]
                                                                 : 0;
    if (event->rank != rank || event->dims[0] != dims[0] || dims[0] == 0)
        return false;
    if (last_axis_is_keys(event->tap))
        return event->first_key <= T && event->dims[1] <= T - event->first_key;
    return event->dims[1] == dims[1] && event->first_key == 0;
}

static int check_event(const gemma4_activations_writer *writer, const gemma4_tap_event *event,
                       gemma4_error *error)
{
    const size_t T = writer->positions_count;
    char name[GEMMA4_TAP_NAME_SIZE];
    gemma4_tap_name(event->tap, event->layer, name);
    const gemma4_tap_info *info = gemma4_tap_describe(event->tap);
    if (info->per_layer && event->layer >= writer->config->num_hidden_layers)
        return gemma4_fail(error, "%s: %s: expected one of %zu layers", writer->path, name,
                           writer->config->num_hidden_layers);
    if (info->ids ? !event->ids || event->values : !event->values || event->ids)
        return gemma4_fail(error, "%s: %s: expected %s", writer->path, name,
                           info->ids ? "ids" : "reals");
    if (event->row > T || event->rows > T - event->row)
        return gemma4_fail(
            error, "%s: %s: expected rows within the case's %zu positions, found %zu from %zu on",
            writer->path, name, T, event->rows, event->row);
    if (!event_shape_is_right(writer, event))
        return gemma4_fail(error,
                           "%s: %s: expected the config's shape, found [%zu, %zu] from key %zu on",
                           writer->path, name, event->dims[0], event->dims[1], event->first_key);
    const written_tap *tap = tap_of_event(writer, event);
    for (size_t i = 0; tap->written && i < event->rows; i++)
        if (tap->written[event->row + i])
            return gemma4_fail(error, "%s: %s: expected each position once, found %zu again",
                               writer->path, name, event->row + i);
    return 0;
}

int gemma4_activations_write(gemma4_activations_writer *writer, const gemma4_tap_event *event,
                             gemma4_error *error)
{
    if (check_event(writer, event, error))
        return -1;
    if (event->rows == 0)
        return 0;
    written_tap *tap = tap_of_event(writer, event);
    if (!tap->written && start_tap(writer, tap, event, error))
        return -1;
    for (size_t first = 0; first < event->rows; first += tap->chunk_rows) {
        size_t left = event->rows - first;
        if (append_rows(writer, tap, event, first, left < tap->chunk_rows ? left : tap->chunk_rows,
                        error))
            return -1;
    }
    /* An open dataset keeps a chunk in memory; there may be a thousand of them. */
    return tap->rows_count == writer->positions_count
               ? finish_tap(writer, tap, event->tap, event->layer, error)
               : 0;
}

/* --- the end --- */

static int finish_all(gemma4_activations_writer *writer, gemma4_error *error)
{
    for (size_t layer = 0; layer < writer->config->num_hidden_layers; layer++)
        for (int i = 0; i < GEMMA4_TAP_COUNT; i++) {
            written_tap *tap = &writer->taps[layer * GEMMA4_TAP_COUNT + (size_t)i];
            if (tap->dataset >= 0 && finish_tap(writer, tap, (gemma4_tap)i, layer, error))
                return -1;
        }
    return 0;
}

int gemma4_activations_commit(gemma4_activations_writer *writer, gemma4_error *error)
{
    int status = finish_all(writer, error);
    if (status == 0) {
        status = H5Fclose(writer->file) < 0 ? writer_fail(writer, "cannot write", error) : 0;
        writer->file = H5I_INVALID_HID;
    }
    if (status == 0)
        status = gemma4_output_commit(&writer->output, error);
    gemma4_activations_discard(writer); /* after the rename there is no temporary file left to
                                           remove */
    return status;
}

void gemma4_activations_discard(gemma4_activations_writer *writer)
{
    if (!writer)
        return;
    const size_t taps_count = writer->config->num_hidden_layers * GEMMA4_TAP_COUNT;
    for (size_t i = 0; i < taps_count; i++) {
        release_tap(&writer->taps[i]);
        free(writer->taps[i].written);
    }
    if (writer->real_type >= 0)
        H5Tclose(writer->real_type);
    if (writer->file >= 0)
        H5Fclose(writer->file);
    gemma4_output_discard(&writer->output);
    writer_free(writer);
}
