/* What a file is, judged by its first bytes: the two forms of an activation file, or one of the
 * files that are given in place of one. The name is the user's to choose, and decides only
 * where the content says nothing. */
#include "activations_internal.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEAD_BYTES = 512, LENGTH_BYTES = 8 /* before the header of a safetensors file */ };

/* The first bytes, and a 0 after them. */
typedef struct head {
    unsigned char bytes[HEAD_BYTES + 1];
    size_t size;
} head;

/* What was found, and what to do. */
typedef struct finding {
    const char *found, *advice;
} finding;

#define WITH_MAP "a map imports it (gemma4-check names FILE proposes one, --map takes it)"
#define WITH_H5PY "copy its arrays into an HDF5 file with h5py, a dataset a tap"
#define NO_WEIGHTS "dump what the layers compute, not what they are made of"
#define UNPACK "unpack it first"
#define WITH_TORCH \
    "golden/engines/pt_to_safetensors.py turns it into safetensors, which --map reads"
#define AS_SPECIFIED "write the tensors with h5py as spec/activations.md says"

static const struct {
    size_t offset, length;
    const char *bytes;
    finding is;
} magics[] = {
    {0, 6, "\x93NUMPY", {"a NumPy array (.npy)", WITH_MAP}},
    {0, 4, "GGUF", {"a GGUF file, which holds weights", NO_WEIGHTS}},
    {0,
     14,
     "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19",
     {"a PyTorch file (.pt, pickled)", WITH_TORCH}},
    {0, 2, "\x80\x02", {"a Python pickle", WITH_H5PY}},
    {0, 2, "\x80\x03", {"a Python pickle", WITH_H5PY}},
    {0, 2, "\x80\x04", {"a Python pickle", WITH_H5PY}},
    {0, 2, "\x80\x05", {"a Python pickle", WITH_H5PY}},
    {0, 2, "\x1f\x8b", {"a gzip file", UNPACK}},
    {0, 4, "\x28\xb5\x2f\xfd", {"a Zstandard file", UNPACK}},
    {0, 6, "\xfd\x37zXZ\0", {"an xz file", UNPACK}},
    {0, 3, "BZh", {"a bzip2 file", UNPACK}},
    {257, 5, "ustar", {"a tar archive", UNPACK}},
    {0, 4, "PAR1", {"a Parquet file", AS_SPECIFIED}},
    {0, 6, "ARROW1", {"an Arrow file", AS_SPECIFIED}},
    {0,
     7,
     "\x7f"
     "ELF\x02\x01\x01",
     {"a program", "name the file that it writes"}},
    {0,
     24,
     "version https://git-lfs.",
     {"a Git LFS pointer", "fetch the file that it stands for (git lfs pull)"}},
};

static bool holds(const head *h, const char *bytes, size_t length)
{
    return memmem(h->bytes, h->size, bytes, length) != NULL;
}

/* The name of a zip archive's first member tells who wrote it: numpy.savez writes arrays,
 * torch.save begins with the pickle. */
static bool is_zip(const head *h, finding *f)
{
    if (h->size < 4 || (memcmp(h->bytes, "PK\3\4", 4) && memcmp(h->bytes, "PK\5\6", 4)))
        return false;
    size_t name = h->size > 30 ? (size_t)h->bytes[26] | (size_t)h->bytes[27] << 8 : 0;
    bool whole = name >= 4 && name <= h->size - 30;
    if (whole && !memcmp(h->bytes + 30 + name - 4, ".npy", 4))
        *f = (finding){"NumPy arrays (.npz)", WITH_MAP};
    else if (holds(h, "data.pkl", 8))
        *f = (finding){"a PyTorch file (.pt)", WITH_TORCH};
    else
        *f = (finding){"a zip archive", UNPACK};
    return true;
}

/* An ONNX model is a protobuf message that begins with the format's version (field 1) and its
 * producer's name (field 2). */
static bool is_onnx(const head *h, finding *f)
{
    if (h->size < 8 || h->bytes[0] != 0x08 || h->bytes[1] == 0 || h->bytes[1] > 31 ||
        h->bytes[2] != 0x12)
        return false;
    size_t length = h->bytes[3];
    if (length == 0 || length > 64)
        return false;
    for (size_t i = 4; i < 4 + length && i < h->size; i++)
        if (!isprint(h->bytes[i]))
            return false;
    *f = (finding){"an ONNX model",
                   "run it with the tensors of spec/taps.md as outputs, and dump those"};
    return true;
}

/* --- text --- */

static bool is_all_text(const head *h)
{
    for (size_t i = 0; i < h->size; i++)
        if (h->bytes[i] == 0x7F || (h->bytes[i] < 0x20 && !strchr("\t\n\r\f", h->bytes[i])) ||
            h->bytes[i] == 0)
            return false;
    return true;
}

/* How many of the separator a line holds. */
static size_t separators(const char *line, char separator)
{
    size_t count = 0;
    for (; *line != '\0' && *line != '\n'; line++)
        count += *line == separator;
    return count;
}

/* The first two lines have the same number of columns, more than one. */
static bool is_table(const char *text)
{
    const char *second = strchr(text, '\n');
    for (const char *separator = ",;\t"; *separator; separator++) {
        size_t columns = separators(text, *separator);
        if (columns > 0 &&
            (!second || second[1] == '\0' || separators(second + 1, *separator) == columns))
            return true;
    }
    return false;
}

/* "---", or "key: value" on the first line. */
static bool is_yaml(const char *text)
{
    size_t key = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.");
    return !strncmp(text, "---", 3) || !strncmp(text, "%YAML", 5) ||
           (key > 0 && text[key] == ':' && strchr(" \r\n", text[key + 1]));
}

static bool is_text(const head *h, finding *f)
{
    const char *text = (const char *)h->bytes;
    if (!is_all_text(h))
        return false;
    text += strncmp(text, "\xEF\xBB\xBF", 3) ? 0 : 3;
    text += strspn(text, " \t\r\n");
    *f = (finding){*text == '{' || *text == '[' ? "JSON text"
                   : *text == '<'               ? "an HTML or XML page"
                   : is_yaml(text)              ? "YAML text"
                   : is_table(text)             ? "a table in text (CSV)"
                                                : "plain text",
                   AS_SPECIFIED};
    return true;
}

/* --- the decision --- */

static bool is_foreign(const head *h, finding *f)
{
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++)
        if (h->size >= magics[i].offset + magics[i].length &&
            !memcmp(h->bytes + magics[i].offset, magics[i].bytes, magics[i].length)) {
            *f = magics[i].is;
            return true;
        }
    return is_zip(h, f) || is_onnx(h, f) || is_text(h, f);
}

/* A header's length in 8 bytes, then its JSON. */
static bool is_safetensors(const head *h, const char *path)
{
    size_t length = strlen(path);
    bool named_so = length > 12 && !strcmp(path + length - 12, ".safetensors");
    return named_so || (h->size > LENGTH_BYTES && h->bytes[LENGTH_BYTES] == '{' &&
                        h->bytes[LENGTH_BYTES - 1] == 0);
}

static int refuse(const char *path, finding f, gemma4_error *error)
{
    return gemma4_fail(error, "%s: expected an activation file (HDF5 or safetensors), found %s: %s",
                       path, f.found, f.advice);
}

static int refuse_irregular(const char *path, mode_t mode, gemma4_error *error)
{
    return refuse(path,
                  S_ISDIR(mode)    ? (finding){"a folder", "name the file in it, or " WITH_MAP}
                  : S_ISFIFO(mode) ? (finding){"a pipe", "write the dump to a file"}
                                   : (finding){"a device or socket", "expected a regular file"},
                  error);
}

static int refuse_unknown(const char *path, const head *h, gemma4_error *error)
{
    char found[96];
    int used = snprintf(found, sizeof found, "a file of another kind, which begins with");
    for (size_t i = 0; i < 8 && i < h->size; i++)
        used += snprintf(found + used, sizeof found - (size_t)used, " %02x", h->bytes[i]);
    return refuse(path, (finding){found, AS_SPECIFIED}, error);
}

static int read_head(const char *path, head *h, gemma4_error *error)
{
    int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file < 0)
        return gemma4_fail(error, "%s: cannot open: %s", path, strerror(errno));
    ssize_t size = 0;
    for (h->size = 0;
         h->size < HEAD_BYTES && (size = read(file, h->bytes + h->size, HEAD_BYTES - h->size)) > 0;)
        h->size += (size_t)size;
    int status = size < 0 ? gemma4_fail(error, "%s: cannot read: %s", path, strerror(errno)) : 0;
    close(file);
    h->bytes[h->size] = 0;
    return status;
}

/* HDF5's signature, which stands at 0, 512, 1024, 2048 ...; -1 with errno on failure. libhdf5 is
 * not asked: it runs in its sandbox only. */
static int find_hdf5(const char *path, uint64_t size)
{
    static const char signature[8] = "\x89HDF\r\n\x1a\n";
    char found[sizeof signature];
    int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC), is = file < 0 ? -1 : 0;
    for (uint64_t at = 0; is == 0 && at < size && size - at >= sizeof found;
         at = at ? 2 * at : 512) {
        ssize_t got = pread(file, found, sizeof found, (off_t)at);
        is = got < 0 ? -1 : got == sizeof found && !memcmp(found, signature, sizeof found);
    }
    int reason = errno;
    if (file >= 0)
        close(file);
    errno = reason;
    return is;
}

/* The kinds that only a map can make sense of. */
static bool is_numpy(const head *h, gemma4_activations_kind *kind)
{
    finding f = {0};
    bool array = h->size > 6 && !memcmp(h->bytes, "\x93NUMPY", 6);
    *kind = array ? GEMMA4_ACTIVATIONS_NPY : GEMMA4_ACTIVATIONS_NPZ;
    return array || (is_zip(h, &f) && !strncmp(f.found, "NumPy", 5));
}

int gemma4_activations_kind_of(const char *path, bool any, gemma4_activations_kind *kind,
                               gemma4_error *error)
{
    struct stat status;
    head h;
    finding f;
    if (stat(path, &status) != 0)
        return gemma4_fail(error, "%s: cannot open: %s", path, strerror(errno));
    if (!S_ISREG(status.st_mode)) /* before it is opened, which may wait for a pipe's other end */
        return refuse_irregular(path, status.st_mode, error);
    if (read_head(path, &h, error))
        return -1;
    if (h.size == 0)
        return refuse(path,
                      (finding){"an empty file", "did the engine close it, and has it been run?"},
                      error);
    int is_hdf5 = find_hdf5(path, (uint64_t)status.st_size); /* first: other bytes may stand before
                                                                HDF5's own (its user block) */
    if (is_hdf5 < 0)
        return gemma4_fail(error, "%s: cannot read: %s", path, strerror(errno));
    if (any && !is_hdf5 && is_numpy(&h, kind))
        return 0;
    *kind = is_hdf5 ? GEMMA4_ACTIVATIONS_HDF5 : GEMMA4_ACTIVATIONS_SAFETENSORS;
    if (is_hdf5 || (!is_foreign(&h, &f) && is_safetensors(&h, path)))
        return 0;
    return is_foreign(&h, &f) ? refuse(path, f, error) : refuse_unknown(path, &h, error);
}
