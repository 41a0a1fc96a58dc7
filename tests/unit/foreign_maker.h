/* Files of other programs, made by hand: NumPy arrays, zip archives of them, safetensors under any
 * names. */
#ifndef GEMMA4_TEST_FOREIGN_MAKER_H
#define GEMMA4_TEST_FOREIGN_MAKER_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes under way. */
typedef struct test_bytes {
    unsigned char *bytes;
    size_t size;
} test_bytes;

void test_append(test_bytes *to, const void *bytes, size_t size);
void test_bytes_free(test_bytes *b);

/* An array: header is the literal, data its elements. */
test_bytes test_npy(const char *header, const void *data, size_t size);
/* An array of floats, row-major; shape as Python writes it: "(3, 4)". Its values are first, first +
 * 1 ... */
test_bytes test_npy_floats(const char *shape, size_t count, float first);

/* A zip archive; close it before it is used. */
typedef struct test_zip {
    test_bytes file, directory;
    size_t count;
} test_zip;

/* Adds a member; deflated where asked for. */
void test_zip_add(test_zip *zip, const char *name, const test_bytes *content, bool deflated);
/* Appends the directory; file is then the whole archive. */
void test_zip_close(test_zip *zip);
void test_zip_free(test_zip *zip);

/* A safetensors file of one float32 tensor of values first, first + 1 ...; shape as JSON writes it:
 * "[3, 4]". */
void test_write_tensor(const char *path, const char *key, const char *shape, size_t count,
                       float first);

#endif
