/* HDF5 files: written with libhdf5 as the input's first bytes say, so that damage reaches deeper
 * than the superblock; then damaged as its last bytes say; then read through the sandboxed reader,
 * like any stranger's file.
 *
 * libhdf5 is not what is tested: it may die in there. This program must answer with a file or one
 * line, whatever the child does. */
#include "targets.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "activations.h"
#include "manifest.h"

/* What files are about: where in them, the tokens, and a length that the model knows. */
typedef struct subject {
    const char *group;
    const int32_t *tokens;
    hsize_t T, length;
} subject;

/* The input, byte after byte; zeros after its end. */
typedef struct source {
    const uint8_t *at, *end;
} source;

static unsigned take(source *s, unsigned below)
{
    return s->at < s->end ? *s->at++ % below : 0;
}

static const char *const names[] = {
    "embed",
    "logits",
    "final_norm",
    "layers/0/attn/q",
    "layers/0/attn/scores",
    "layers/1/output",
    "layers/0/router/topk_ids",
    "logprobs/ids",
    "logprobs/values",
    "positions",
    "layers/7/output",
    "layers/0/attn.q",
    "unknown",
    "layers/1/attn/v_norm",
};
enum { NAMES = sizeof names / sizeof *names };

static hid_t element(unsigned which)
{
    switch (which) {
    case 0: return H5Tcopy(H5T_IEEE_F32LE);
    case 1: return H5Tcopy(H5T_IEEE_F64BE);
    case 2: return H5Tcopy(H5T_STD_I32LE);
    case 3: return H5Tcopy(H5T_STD_U64BE);
    case 4: return H5Tcopy(H5T_STD_U16LE);
    case 5: return H5Tcopy(H5T_STD_I8LE);
    case 6: return H5Tcopy(H5T_C_S1);
    case 7: return H5Tvlen_create(H5T_NATIVE_FLOAT);
    case 8: return H5Tcreate(H5T_OPAQUE, 3);
    case 9: return H5Tcreate(H5T_COMPOUND, 16);
    case 10: return H5Tcopy(H5T_STD_REF_OBJ);
    default: break;
    }
    hid_t half = H5Tcopy(H5T_IEEE_F32LE); /* float16, or bfloat16 */
    if (which == 11) {
        H5Tset_fields(half, 15, 10, 5, 0, 10);
        H5Tset_size(half, 2);
        H5Tset_ebias(half, 15);
    } else {
        H5Tset_fields(half, 15, 7, 8, 0, 7);
        H5Tset_size(half, 2);
        H5Tset_ebias(half, 127);
    }
    return half;
}
enum { ELEMENTS = 13 };

static void write_text(hid_t to, const char *name, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, strlen(text) + 1);
    hid_t attribute = H5Acreate2(to, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(attribute, type, text);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
}

static void write_rows(hid_t to, source *s)
{
    const hsize_t count = take(s, 5);
    int64_t rows[4];
    for (hsize_t i = 0; i < 4; i++)
        rows[i] = (int64_t)take(s, 8) - 1;
    hid_t space = H5Screate_simple(1, &count, NULL),
          attribute = H5Acreate2(to, "rows", H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    if (count)
        H5Awrite(attribute, H5T_NATIVE_INT64, rows);
    H5Aclose(attribute);
    H5Sclose(space);
}

/* Layout and filters. */
static hid_t creation(source *s, unsigned rank, const hsize_t *shape)
{
    hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
    hsize_t chunk[4];
    unsigned layout = take(s, 8);
    if (rank == 0 || layout == 0)
        return properties;
    if (layout == 1) {
        H5Pset_layout(properties, H5D_COMPACT);
        return properties;
    }
    for (unsigned i = 0; i < rank; i++)
        chunk[i] = shape[i] ? 1 + take(s, 4) % shape[i] : 1;
    H5Pset_chunk(properties, (int)rank, chunk);
    if (layout & 1)
        H5Pset_shuffle(properties);
    if (layout & 2)
        H5Pset_deflate(properties, 1 + take(s, 9));
    if (layout & 4)
        H5Pset_fletcher32(properties);
    return properties;
}

static void write_dataset(hid_t file, const subject *about, source *s)
{
    const hsize_t lengths[] = {about->T,        2, 4, 8, 1, 0, about->length, (hsize_t)1 << 40, 16,
                               (hsize_t)1 << 62};
    static const unsigned char zeros[65536];
    const char *name = names[take(s, NAMES)];
    const unsigned kind = take(s, 16), rank = take(s, 5);
    hsize_t shape[4], count = 1;
    for (unsigned i = 0; i < 4; i++) {
        shape[i] = lengths[take(s, sizeof lengths / sizeof *lengths)];
        count *= i < rank && shape[i] < 4096 ? shape[i] : 1;
    }
    hid_t links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    if (kind == 0)
        H5Lcreate_soft("/layers/0", file, name, links, H5P_DEFAULT);
    else if (kind == 1)
        H5Lcreate_external("/etc/passwd", "/", file, name, links, H5P_DEFAULT);
    else if (kind == 2)
        H5Lcreate_hard(file, "tokens", file, name, links, H5P_DEFAULT);
    hid_t type = element(take(s, ELEMENTS)), space = H5Screate_simple((int)rank, shape, NULL),
          properties = creation(s, rank, shape);
    hid_t set = H5Dcreate2(file, name, type, space, links, properties, H5P_DEFAULT);
    if (set >= 0) {
        if (take(s, 2))
            write_rows(set, s);
        if (take(s, 4) == 3)
            write_text(set, "dtype", take(s, 2) ? "bfloat16" : "x");
        bool small = count * H5Tget_size(type) <= sizeof zeros && H5Tget_class(type) != H5T_VLEN &&
                     H5Tget_class(type) != H5T_COMPOUND;
        for (unsigned i = 0; i < rank; i++)
            small = small && shape[i] < 4096;
        if (small)
            H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, zeros);
        H5Dclose(set);
    }
    H5Pclose(properties);
    H5Pclose(links);
    H5Sclose(space);
    H5Tclose(type);
}

/* The file as bytes, to be freed; NULL where libhdf5 does not make one. */
static unsigned char *write_file(const subject *about, source *s, size_t *size)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), properties = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_fapl_core(access, 65536, 0);
    if (take(s, 2))
        H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
    hid_t whole = H5Fcreate("fuzz.h5", H5F_ACC_TRUNC, properties, access);
    hid_t file = about->group
                     ? H5Gcreate2(whole, about->group, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT)
                     : H5Gopen2(whole, "/", H5P_DEFAULT);
    hid_t space = H5Screate_simple(1, &about->T, NULL);
    hid_t set =
        H5Dcreate2(file, "tokens", H5T_STD_I32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Dwrite(set, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, about->tokens);
    H5Dclose(set);
    H5Sclose(space);
    write_text(file, "format", "gemma4-activations");
    write_text(file, "dtype", "float32");
    for (unsigned more = take(s, 6); more > 0; more--)
        write_dataset(file, about, s);
    int64_t version = take(s, 16) != 15;
    space = H5Screate(H5S_SCALAR);
    hid_t attribute =
        H5Acreate2(file, "format_version", H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(attribute, H5T_NATIVE_INT64, &version);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Gclose(file);
    H5Fflush(whole, H5F_SCOPE_GLOBAL);
    ssize_t length = H5Fget_file_image(whole, NULL, 0);
    unsigned char *image = length > 0 ? malloc((size_t)length) : NULL;
    if (image && H5Fget_file_image(whole, image, (size_t)length) != length) {
        free(image);
        image = NULL;
    }
    H5Fclose(whole);
    H5Pclose(properties);
    H5Pclose(access);
    *size = (size_t)length;
    return image;
}

/* Three bytes of the input each: where, and what is put there. */
static void damage(source *s, unsigned char *image, size_t size)
{
    for (unsigned more = take(s, 9); more > 0; more--) {
        size_t at = take(s, 256);
        at = at << 8 | take(s, 256);
        image[at % size] = (unsigned char)take(s, 256);
    }
}

/* The path of what the input describes; NULL where libhdf5 does not make it. */
static const char *make_file(const subject *about, const uint8_t *bytes, size_t size)
{
    source s = {bytes, bytes + size};
    size_t length;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    unsigned char *image = write_file(about, &s, &length);
    if (!image)
        return NULL;
    damage(&s, image, length);
    const char *path = fuzz_file("dump.h5", image, length);
    free(image);
    return path;
}

static const int32_t three_tokens[] = {2, 3, 5};
static const subject any_model = {NULL, three_tokens, 3, 3};

void fuzz_hdf5(const uint8_t *bytes, size_t size)
{
    gemma4_error error = {""};
    const char *path = make_file(&any_model, bytes, size);
    gemma4_activations *file = path ? gemma4_activations_open(path, fuzz_config(), &error) : NULL;
    fuzz_promise(path && !file, &error);
    fuzz_read_activations(file);
}

/* The same as an engine's own dump, whose names and shapes may be any. */
void fuzz_hdf5_foreign(const uint8_t *bytes, size_t size)
{
    const char *path = make_file(&any_model, bytes, size);
    if (path)
        fuzz_read_foreign(path);
}

/* The ladder's first rung as a group of one file. */
void fuzz_hdf5_ladder(const uint8_t *bytes, size_t size)
{
    enum { VOCABULARY = 256 };
    const gemma4_case *rung = fuzz_rung();
    const subject about = {rung->id, rung->tokens, rung->token_count, VOCABULARY};
    const char *path = make_file(&about, bytes, size);
    if (path)
        fuzz_climb(path);
}
