/* What several suites need: a temporary directory, files written into it, and tiny checkpoints. */
#ifndef GEMMA4_TEST_SUPPORT_H
#define GEMMA4_TEST_SUPPORT_H

#include <check.h>
#include <glob.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "config.h"
#include "error.h"

/* Fails the test unless error's message holds the text expected and is one line. */
#define assert_message_contains(error, expected)                                                   \
    do {                                                                                           \
        ck_assert_msg(strstr((error)->message, (expected)) != NULL, "message \"%s\" lacks \"%s\"", \
                      (error)->message, (expected));                                               \
        ck_assert_msg(strchr((error)->message, '\n') == NULL, "message \"%s\" is not one line",    \
                      (error)->message);                                                           \
    } while (0)

/* ck_assert_msg for the inside of long loops: Check notes every assertion that it passes in a pipe,
 * which took a third of the suites' time. */
#define ASSERT_EACH(condition, ...)    \
    do {                               \
        if (!(condition))              \
            ck_abort_msg(__VA_ARGS__); \
    } while (0)

/* A temporary directory, removed with all it holds when the program ends. Under Check's fork mode,
 * every test has its own (main.c calls this first, and the children make theirs inside the
 * parent's: a test that fails leaves nothing). */
const char *test_dir(void);
/* A new, empty directory in test_dir(). Every path returned here stays valid until the program
 * ends. */
char *test_fresh_dir(void);
/* test_dir()/name, and directory/name. */
char *test_path(const char *name);
char *test_join(const char *directory, const char *name);
/* Writes a file; a failure fails the test. */
void test_write(const char *path, const void *bytes, size_t size);
void test_write_text(const char *path, const char *text);

/* A file's whole text, read once and valid until the program ends; the test fails where it cannot
 * be read. */
const char *test_read(const char *path);

/* README.md and spec's pages, between the two: fixtures of the suites that read them. */
extern glob_t test_pages;
void test_find_pages(void);
void test_free_pages(void);
/* Whether a program writes the page: spec/causes.md, spec/kill-matrix.md. */
bool test_is_generated(const char *page);

/* A copy of text with the first occurrence of old replaced (the test fails where there is none),
 * valid until the program ends. A '@' as old appends the replacement, and NULL as old returns text
 * as it is. */
const char *test_replace(const char *text, const char *old, const char *replacement);

/* A config.json of 6 layers (5 sliding, 1 full) in the text-only layout whose weights fill about
 * 100 KB. */
extern const char test_tiny_config[];

/* Dimensions of a model that is no checkpoint's, no two of an axis alike, for code that needs no
 * weights: a sliding layer of 2 KV heads with 4 lanes, and a full one of 1 with 8 where V is K. */
extern const gemma4_config test_small_config;

/* One tensor of a checkpoint to be written; a test may change the list before it is. */
typedef struct test_tensor {
    char name[128];
    const char *dtype; /* "BF16", "F32" ... */
    size_t rank, shape[3];
} test_tensor;

/* The BF16 tensors that config implies, their names after prefix. Sets count; the list is to be
 * freed. room more entries are allocated after them. */
test_tensor *test_tensors(const gemma4_config *config, const char *prefix, size_t room,
                          size_t *count);
/* Writes them as one safetensors file with random finite values that depend on seed and name
 * alone. */
void test_write_safetensors(const char *path, const test_tensor *tensors, size_t count,
                            uint64_t seed);
/* A complete checkpoint: config.json with the given text, and model.safetensors. */
void test_write_checkpoint(const char *directory, const char *config_json, const char *prefix,
                           uint64_t seed);

#endif
