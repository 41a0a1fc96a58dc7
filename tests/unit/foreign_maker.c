#include "foreign_maker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "support.h"

void test_append(test_bytes *to, const void *bytes, size_t size)
{
    to->bytes = realloc(to->bytes, to->size + size + 1);
    ck_assert_ptr_nonnull(to->bytes);
    if (size)
        memcpy(to->bytes + to->size, bytes, size);
    to->size += size;
}

void test_bytes_free(test_bytes *b)
{
    free(b->bytes);
    *b = (test_bytes){0};
}

/* Little-endian, with zeros where it is longer than the number. */
static void append_number(test_bytes *to, unsigned long value, int size)
{
    for (int i = 0; i < size; i++, value >>= 8)
        test_append(to, &(unsigned char){(unsigned char)value}, 1);
}

test_bytes test_npy(const char *header, const void *data, size_t size)
{
    test_bytes npy = {0};
    test_append(&npy, "\x93NUMPY\1\0", 8);
    append_number(&npy, strlen(header), 2);
    test_append(&npy, header, strlen(header));
    test_append(&npy, data, size);
    return npy;
}

test_bytes test_npy_floats(const char *shape, size_t count, float first)
{
    char header[200];
    float *values = malloc(count * sizeof *values + 1);
    ck_assert_ptr_nonnull(values);
    for (size_t i = 0; i < count; i++)
        values[i] = first + (float)i;
    snprintf(header, sizeof header, "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }\n",
             shape);
    test_bytes npy = test_npy(header, values, count * sizeof *values);
    free(values);
    return npy;
}

/* --- zip --- */

static test_bytes deflated_bytes(const test_bytes *content)
{
    test_bytes packed = {malloc(content->size + 1000), 0};
    z_stream z = {.next_in = content->bytes,
                  .avail_in = (uInt)content->size,
                  .next_out = packed.bytes,
                  .avail_out = (uInt)content->size + 1000};
    ck_assert(packed.bytes &&
              deflateInit2(&z, 6, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK &&
              deflate(&z, Z_FINISH) == Z_STREAM_END);
    packed.size = z.total_out;
    deflateEnd(&z);
    return packed;
}

/* What a member's header and its entry in the directory share, from the version on. */
static void append_facts(test_bytes *to, const test_bytes *content, size_t packed, bool deflated)
{
    append_number(to, 20, 2);
    append_number(to, 0, 2); /* flags */
    append_number(to, deflated ? 8 : 0, 2);
    append_number(to, 0, 4); /* time */
    append_number(to, crc32(0, content->bytes, (uInt)content->size), 4);
    append_number(to, packed, 4);
    append_number(to, content->size, 4);
}

void test_zip_add(test_zip *zip, const char *name, const test_bytes *content, bool deflated)
{
    test_bytes packed = deflated ? deflated_bytes(content) : (test_bytes){0};
    const test_bytes *stored = deflated ? &packed : content;
    size_t offset = zip->file.size;
    test_append(&zip->file, "PK\3\4", 4);
    append_facts(&zip->file, content, stored->size, deflated);
    append_number(&zip->file, strlen(name), 2);
    append_number(&zip->file, 0, 2);
    test_append(&zip->file, name, strlen(name));
    test_append(&zip->file, stored->bytes, stored->size);
    test_append(&zip->directory, "PK\1\2\x14\0", 6);
    append_facts(&zip->directory, content, stored->size, deflated);
    append_number(&zip->directory, strlen(name), 2);
    append_number(&zip->directory, 0, 12); /* extra, comment, disk, attributes */
    append_number(&zip->directory, offset, 4);
    test_append(&zip->directory, name, strlen(name));
    zip->count++;
    test_bytes_free(&packed);
}

void test_zip_close(test_zip *zip)
{
    size_t offset = zip->file.size;
    if (zip->directory.size)
        test_append(&zip->file, zip->directory.bytes, zip->directory.size);
    test_append(&zip->file, "PK\5\6\0\0\0\0", 8);
    append_number(&zip->file, zip->count, 2);
    append_number(&zip->file, zip->count, 2);
    append_number(&zip->file, zip->directory.size, 4);
    append_number(&zip->file, offset, 4);
    append_number(&zip->file, 0, 2);
}

void test_zip_free(test_zip *zip)
{
    test_bytes_free(&zip->file);
    test_bytes_free(&zip->directory);
}

void test_write_tensor(const char *path, const char *key, const char *shape, size_t count,
                       float first)
{
    char header[400];
    test_bytes file = {0};
    snprintf(header, sizeof header,
             "{\"%s\": {\"dtype\": \"F32\", \"shape\": %s, \"data_offsets\": [0, %zu]}}", key,
             shape, 4 * count);
    while (strlen(header) % 8)
        strcat(header, " ");
    append_number(&file, strlen(header), 8);
    test_append(&file, header, strlen(header));
    for (size_t i = 0; i < count; i++)
        test_append(&file, &(float){first + (float)i}, sizeof(float));
    test_write(path, file.bytes, file.size);
    test_bytes_free(&file);
}
