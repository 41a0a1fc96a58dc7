/* Archives of NumPy arrays (.npz): zip files
 * (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT) of stored or deflated members.
 *
 * Inflating is zlib's, which every machine with HDF5 has. Everything that the directory says is
 * compared with the members' own headers and with the file before a byte is used: places, sizes,
 * methods; the checksum when a member is first read. Archives of zip64, which begin at 4 GB, and
 * encrypted ones are refused; a local header in zip64's form, which numpy writes, says nothing that
 * the directory does not. */
#include "foreign_internal.h"
#include "mapped_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum {
    END_BYTES = 22,
    ENTRY_BYTES = 46,
    LOCAL_BYTES = 30, /* without names and extras */
    COMMENT_MAX = 65535,
    MEMBERS_MAX = 65535,
    STORED = 0,
    DEFLATED = 8,
    FLAG_ENCRYPTED = 1,
    FLAG_SIZES_BEHIND = 8,
    HEAD_BYTES = 70000 /* enough for the header of an array */
};
#define DEFLATE_RATIO 1032 /* no deflated byte stands for more */
#define UNKNOWN_SIZE 0xffffffffu

typedef struct member {
    char name[GEMMA4_STORED_NAME_SIZE]; /* without ".npy" */
    unsigned method;
    uint32_t checksum;
    const unsigned char *data; /* packed bytes, as they lie in the file */
    size_t packed, size;
    gemma4_npy npy;
    bool checked;
} member;

typedef struct npz_state {
    gemma4_mapped_file file;
    member *members;
    size_t count;
    /* The deflated member last read, whole. */
    const member *inflated;
    unsigned char *bytes;
} npz_state;

static uint32_t number(const unsigned char *bytes, int size)
{
    uint32_t value = 0;
    for (int i = 0; i < size; i++)
        value |= (uint32_t)bytes[i] << (8 * i);
    return value;
}

/* --- the directory --- */

/* The end record, which is the last thing in the file but for a comment; NULL where there is
 * none. */
static const unsigned char *find_end(const gemma4_mapped_file *file)
{
    for (size_t back = END_BYTES; back <= file->size && back <= END_BYTES + COMMENT_MAX; back++) {
        const unsigned char *end = file->bytes + file->size - back;
        if (!memcmp(end, "PK\5\6", 4) && number(end + 20, 2) == back - END_BYTES)
            return end;
    }
    return NULL;
}

/* Where a member's packed bytes begin: after its own header, which must agree with the
 * directory's. */
static int find_data(const gemma4_mapped_file *file, const unsigned char *directory,
                     const unsigned char *entry, member *m, gemma4_error *error)
{
    const char *path = file->path;
    size_t before = (size_t)(directory - file->bytes), offset = number(entry + 42, 4),
           name = number(entry + 28, 2);
    const unsigned char *local = file->bytes + offset;
    if (offset > before || before - offset < LOCAL_BYTES || memcmp(local, "PK\3\4", 4))
        return gemma4_fail(error, "%s: %s: expected the member's header at %zu, found none", path,
                           m->name, offset);
    size_t skipped = LOCAL_BYTES + number(local + 26, 2) + number(local + 28, 2);
    if (number(local + 26, 2) != name || before - offset < skipped ||
        memcmp(local + LOCAL_BYTES, entry + ENTRY_BYTES, name))
        return gemma4_fail(error,
                           "%s: %s: expected the member's header to have that name, found another",
                           path, m->name);
    uint32_t flags = number(local + 6, 2), packed = number(local + 18, 4),
             size = number(local + 22, 4);
    bool behind = (flags & FLAG_SIZES_BEHIND) && packed == 0 && size == 0,
         zip64 = packed == UNKNOWN_SIZE && size == UNKNOWN_SIZE;
    if (number(local + 8, 2) != m->method || (flags & FLAG_ENCRYPTED))
        return gemma4_fail(error,
                           "%s: %s: expected the member's header to say how it is packed as the "
                           "directory does, found another way",
                           path, m->name);
    if (!behind && !zip64 && (packed != m->packed || size != m->size))
        return gemma4_fail(error,
                           "%s: %s: expected the sizes %zu and %zu of the directory, found %u and "
                           "%u in the member's header",
                           path, m->name, m->packed, m->size, packed, size);
    if (m->packed > before - offset - skipped)
        return gemma4_fail(error, "%s: %s: expected %zu bytes inside the file, found fewer", path,
                           m->name, m->packed);
    m->data = local + skipped;
    return 0;
}

/* The sizes must be possible before memory is asked for. */
static int check_sizes(const char *path, const member *m, gemma4_error *error)
{
    if (m->method == STORED && m->packed != m->size)
        return gemma4_fail(error, "%s: %s: expected a stored member of one size, found %zu and %zu",
                           path, m->name, m->packed, m->size);
    if (m->size / DEFLATE_RATIO > m->packed)
        return gemma4_fail(
            error, "%s: %s: expected at most %zu bytes out of %zu packed ones, found a size of %zu",
            path, m->name, m->packed * DEFLATE_RATIO, m->packed, m->size);
    return 0;
}

/* One entry of the directory. Folders and whatever is no array are left out: *kept tells. */
static int read_entry(const gemma4_mapped_file *file, const unsigned char *directory,
                      const unsigned char *entry, member *m, bool *kept, gemma4_error *error)
{
    const char *path = file->path;
    size_t length = number(entry + 28, 2);
    *kept = length > 4 && !memcmp(entry + ENTRY_BYTES + length - 4, ".npy", 4);
    if (!*kept)
        return 0;
    length -= 4;
    if (length >= sizeof m->name || memchr(entry + ENTRY_BYTES, 0, length))
        return gemma4_fail(error,
                           "%s: %.100s...: expected names of at most %zu bytes, found a longer one",
                           path, (const char *)entry + ENTRY_BYTES, sizeof m->name - 1);
    snprintf(m->name, sizeof m->name, "%.*s", (int)length, (const char *)entry + ENTRY_BYTES);
    m->method = number(entry + 10, 2);
    m->checksum = number(entry + 16, 4);
    m->packed = number(entry + 20, 4);
    m->size = number(entry + 24, 4);
    if (number(entry + 8, 2) & FLAG_ENCRYPTED)
        return gemma4_fail(error, "%s: %s: expected a readable member, found an encrypted one",
                           path, m->name);
    if (m->method != STORED && m->method != DEFLATED)
        return gemma4_fail(error, "%s: %s: expected a stored or deflated member, found method %u",
                           path, m->name, m->method);
    if (m->packed == UNKNOWN_SIZE || m->size == UNKNOWN_SIZE ||
        number(entry + 42, 4) == UNKNOWN_SIZE)
        return gemma4_fail(error,
                           "%s: %s: expected a member below 4 GB, found one of zip64: save it as "
                           ".npy, or in several archives",
                           path, m->name);
    return find_data(file, directory, entry, m, error) ? -1 : check_sizes(path, m, error);
}

static int read_directory(npz_state *state, gemma4_error *error)
{
    const gemma4_mapped_file *file = &state->file;
    const unsigned char *end = find_end(file);
    if (!end)
        return gemma4_fail(error,
                           "%s: expected a zip archive, found no directory at its end: it is cut "
                           "off, or of another kind",
                           file->path);
    size_t count = number(end + 10, 2), size = number(end + 12, 4), offset = number(end + 16, 4),
           before = (size_t)(end - file->bytes);
    if (count == MEMBERS_MAX || size == UNKNOWN_SIZE || offset == UNKNOWN_SIZE)
        return gemma4_fail(error,
                           "%s: expected an archive below 4 GB, found one of zip64: save the "
                           "arrays as .npy, or in several archives",
                           file->path);
    if (number(end + 4, 4) != 0 || number(end + 8, 2) != count || offset > before ||
        size != before - offset)
        return gemma4_fail(
            error,
            "%s: expected the directory of one whole archive, found one that does not fit the file",
            file->path);
    if (!(state->members = calloc(count + 1, sizeof *state->members)))
        return gemma4_fail(error, "%s: out of memory", file->path);
    const unsigned char *directory = file->bytes + offset, *entry = directory;
    for (size_t i = 0; i < count; i++) {
        size_t left = (size_t)(end - entry),
               length = left < ENTRY_BYTES ? 0
                                           : ENTRY_BYTES + number(entry + 28, 2) +
                                                 number(entry + 30, 2) + number(entry + 32, 2);
        bool kept;
        if (left < ENTRY_BYTES || memcmp(entry, "PK\1\2", 4) || length > left)
            return gemma4_fail(error, "%s: expected %zu members in the directory, found %zu",
                               file->path, count, i);
        if (read_entry(file, directory, entry, &state->members[state->count], &kept, error))
            return -1;
        state->count += kept;
        entry += length;
    }
    return entry == end
               ? 0
               : gemma4_fail(error, "%s: expected a directory of %zu members, found more in it",
                             file->path, count);
}

/* --- members --- */

/* Inflates the first size bytes. Fails where the stream is broken or holds fewer; where whole, also
 * where it holds more. */
static int inflate_member(const npz_state *state, const member *m, unsigned char *bytes,
                          size_t size, bool whole, gemma4_error *error)
{
    const char *path = state->file.path;
    z_stream z = {.next_in = (unsigned char *)m->data,
                  .avail_in = (uInt)m->packed,
                  .next_out = bytes,
                  .avail_out = (uInt)size};
    if (inflateInit2(&z, -MAX_WBITS) != Z_OK)
        return gemma4_fail(error, "%s: %s: out of memory", path, m->name);
    int status = inflate(&z, whole ? Z_FINISH : Z_SYNC_FLUSH);
    size_t made = size - z.avail_out;
    bool ended = status == Z_STREAM_END, unused = z.avail_in != 0;
    inflateEnd(&z);
    if (whole && (!ended || made != size || unused))
        return gemma4_fail(error, "%s: %s: expected %zu bytes out of %zu packed ones, found %s",
                           path, m->name, size, m->packed,
                           status == Z_DATA_ERROR ? "a broken stream"
                           : made < size          ? "fewer"
                                                  : "more");
    if (!whole && made != size)
        return gemma4_fail(error, "%s: %s: expected %zu bytes out of %zu packed ones, found %s",
                           path, m->name, m->size, m->packed,
                           status == Z_DATA_ERROR ? "a broken stream" : "fewer");
    return 0;
}

static int read_header(const npz_state *state, member *m, gemma4_error *error)
{
    char place[4096];
    snprintf(place, sizeof place, "%.3000s: %s", state->file.path, m->name);
    if (m->method == STORED)
        return gemma4_npy_header(m->data, m->size, m->size, place, &m->npy, error);
    size_t head = m->size < HEAD_BYTES ? m->size : HEAD_BYTES;
    unsigned char *bytes = malloc(head + 1);
    if (!bytes)
        return gemma4_fail(error, "%s: out of memory", place);
    int status = inflate_member(state, m, bytes, head, false, error);
    if (!status)
        status = gemma4_npy_header(bytes, head, m->size, place, &m->npy, error);
    free(bytes);
    return status;
}

static int check_checksum(const npz_state *state, member *m, const unsigned char *bytes,
                          gemma4_error *error)
{
    if (!m->checked && crc32_z(crc32_z(0, NULL, 0), bytes, m->size) != m->checksum)
        return gemma4_fail(
            error,
            "%s: %s: expected the checksum of the directory, found another: the file is damaged",
            state->file.path, m->name);
    m->checked = true;
    return 0;
}

/* The whole member's bytes; valid until another one is asked for. */
static const unsigned char *member_bytes(npz_state *state, member *m, gemma4_error *error)
{
    if (m->method == STORED)
        return check_checksum(state, m, m->data, error) ? NULL : m->data;
    if (state->inflated == m)
        return state->bytes;
    state->inflated = NULL;
    free(state->bytes);
    if (!(state->bytes = malloc(m->size + 1))) {
        gemma4_fail(error, "%s: %s: out of memory", state->file.path, m->name);
        return NULL;
    }
    if (inflate_member(state, m, state->bytes, m->size, true, error) ||
        check_checksum(state, m, state->bytes, error))
        return NULL;
    state->inflated = m;
    return state->bytes;
}

/* --- the source --- */

static const char *npz_attribute(const void *state, const char *name)
{
    (void)state;
    (void)name;
    return NULL;
}

static int npz_list(void *context, const gemma4_config *config, gemma4_stored_list *list,
                    gemma4_error *error)
{
    npz_state *state = context;
    for (size_t i = 0; i < state->count; i++) {
        gemma4_stored_tensor *stored;
        if (gemma4_stored_add(list, config, state->members[i].name, &stored, error))
            return -1;
        if (!stored)
            continue;
        gemma4_npy_describe(&state->members[i].npy, stored);
        stored->tensor = &state->members[i];
    }
    return 0;
}

static int npz_read(void *context, const gemma4_stored_tensor *stored, const size_t *start,
                    const size_t *extent, void *elements, gemma4_error *error)
{
    member *m = (member *)stored->tensor;
    const unsigned char *bytes = member_bytes(context, m, error);
    if (!bytes)
        return -1;
    gemma4_npy_copy(&m->npy, bytes, stored, start, extent, elements);
    return 0;
}

static void npz_close(void *context)
{
    npz_state *state = context;
    free(state->bytes);
    free(state->members);
    gemma4_mapped_file_close(&state->file);
    free(state);
}

int gemma4_npz_open(const char *path, gemma4_activation_source *source, gemma4_error *error)
{
    npz_state *state = calloc(1, sizeof *state);
    if (!state || gemma4_mapped_file_open(&state->file, path, error)) {
        bool memory = !state;
        free(state);
        return memory ? gemma4_fail(error, "%s: out of memory", path) : -1;
    }
    int status = read_directory(state, error);
    for (size_t i = 0; i < state->count && !status; i++)
        status = read_header(state, &state->members[i], error);
    if (!status && state->count == 0)
        status =
            gemma4_fail(error, "%s: expected NumPy arrays, found an archive without any", path);
    if (status) {
        npz_close(state);
        return -1;
    }
    *source = (gemma4_activation_source){state, npz_attribute, npz_list, npz_read, npz_close};
    return 0;
}
