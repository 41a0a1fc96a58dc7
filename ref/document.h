/* YAML and JSON documents (JSON is read as the subset of YAML that it is), parsed by libyaml into a
 * tree.
 *
 * Everything read here comes from outside, so: no aliases or anchors, no tags, one document a file,
 * no duplicate keys, depth at most 16, size at most GEMMA4_DOCUMENT_MAX_BYTES, at most
 * GEMMA4_DOCUMENT_MAX_NODES nodes. Every node remembers its line. */
#ifndef GEMMA4_DOCUMENT_H
#define GEMMA4_DOCUMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

#define GEMMA4_DOCUMENT_MAX_BYTES ((size_t)64 << 20)
#define GEMMA4_DOCUMENT_MAX_NODES ((size_t)1 << 20)

typedef struct gemma4_document gemma4_document;

typedef enum gemma4_node_kind { GEMMA4_SCALAR, GEMMA4_SEQUENCE, GEMMA4_MAPPING } gemma4_node_kind;

typedef struct gemma4_node {
    gemma4_node_kind kind;
    size_t line;                     /* 1-based */
    const gemma4_document *document; /* for messages */
    const char *path;                /* where the node is: "text_config.rope_parameters", "" for
                                         the root; a long one keeps its end, after "..." */
    const char *text;                /* scalar: its text, NUL-terminated (a NUL inside is
                                         refused) */
    bool quoted;                     /* scalar: written in quotes, so never a number, bool or
                                         null */
    size_t count;                    /* sequence: items; mapping: pairs */
    const char **keys;               /* mapping: count keys */
    struct gemma4_node *items;       /* sequence: count items; mapping: count values, in file
                                         order */
    size_t *order;                   /* mapping: the indices of keys in strcmp order, which
                                         gemma4_node_get bisects */
} gemma4_node;

/* Reads the file at path, or the bytes given (name is used in messages). NULL on failure. */
gemma4_document *gemma4_document_read(const char *path, gemma4_error *error);
gemma4_document *gemma4_document_parse(const char *name, const void *bytes, size_t size,
                                       gemma4_error *error);
void gemma4_document_free(gemma4_document *document);
const gemma4_node *gemma4_document_root(const gemma4_document *document);
const char *gemma4_document_name(const gemma4_document *document);

/* The value of key in a mapping; NULL where it is absent or where mapping is not a mapping. */
const gemma4_node *gemma4_node_get(const gemma4_node *mapping, const char *key);
/* True for an unquoted null, ~ or empty scalar. */
bool gemma4_node_is_null(const gemma4_node *node);

/* "NAME:LINE: PATH: expected WHAT, found ..." Returns -1. */
int gemma4_node_fail(const gemma4_node *node, const char *what, gemma4_error *error);
/* Fails on the first key of mapping that is not among the NULL-terminated allowed ones, and where
 * it is no mapping. */
int gemma4_node_only_keys(const gemma4_node *mapping, const char *const *allowed,
                          gemma4_error *error);

/* A scalar's value; each fails where the node is of another kind, malformed, or outside [low,
 * high].
 * Integers are decimal digits with an optional '-'; numbers are JSON numbers (no hex, no inf, no
 * nan). */
int gemma4_node_int(const gemma4_node *node, int64_t low, int64_t high, int64_t *value,
                    gemma4_error *error);
int gemma4_node_number(const gemma4_node *node, double low, double high, double *value,
                       gemma4_error *error);
int gemma4_node_bool(const gemma4_node *node, bool *value, gemma4_error *error);
int gemma4_node_string(const gemma4_node *node, const char **value, gemma4_error *error);

/* The same, for the required key of a mapping: an absent key is an error that names it. */
int gemma4_get_node(const gemma4_node *mapping, const char *key, gemma4_node_kind kind,
                    const gemma4_node **value, gemma4_error *error);
int gemma4_get_int(const gemma4_node *mapping, const char *key, int64_t low, int64_t high,
                   int64_t *value, gemma4_error *error);
int gemma4_get_number(const gemma4_node *mapping, const char *key, double low, double high,
                      double *value, gemma4_error *error);
int gemma4_get_string(const gemma4_node *mapping, const char *key, const char **value,
                      gemma4_error *error);

#endif
