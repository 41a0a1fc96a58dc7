#include "remembered.h"

#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef gemma4_real real;

/* What a product reads beside the weight: whatever is not needed has no bytes. */
typedef struct input {
    const void *data;
    size_t bytes;
} input;
enum { INPUTS = 3, BUCKETS = 4096 };

/* One product. */
typedef struct entry {
    struct entry *next;            /* of the same bucket, latest first */
    struct entry *older, *younger; /* by when they were last used */
    const void *weight;
    uint64_t hash;               /* of weight and inputs */
    size_t rows, cols, K, bytes; /* bytes of all of it */
    size_t input_bytes[INPUTS], result_bytes;
    unsigned char data[]; /* inputs, then the result */
} entry;

struct gemma4_remembered {
    size_t most, used;
    entry *buckets[BUCKETS];
    entry *oldest, *youngest;
};

static _Thread_local gemma4_remembered *current;
static _Thread_local size_t apart;

gemma4_remembered *gemma4_remember_in(gemma4_remembered *memory)
{
    gemma4_remembered *before = current;
    current = memory;
    return before;
}

size_t gemma4_remember_apart(size_t rows)
{
    size_t before = apart;
    apart = rows;
    return before;
}

gemma4_remembered *gemma4_remembered_new(size_t bytes)
{
    gemma4_remembered *memory = calloc(1, sizeof *memory);
    if (memory)
        memory->most = bytes;
    return memory;
}

static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 32;
}

/* Equal ones are compared byte by byte. */
static uint64_t hash_of(const void *weight, const input inputs[INPUTS])
{
    uint64_t hash = mix(0, (uint64_t)(uintptr_t)weight);
    for (size_t i = 0; i < INPUTS; i++) {
        const unsigned char *data = inputs[i].data;
        size_t at = 0, n = inputs[i].bytes;
        for (uint64_t word; at + sizeof word <= n; at += sizeof word) {
            memcpy(&word, data + at, sizeof word);
            hash = mix(hash, word);
        }
        for (; at < n; at++)
            hash = mix(hash, data[at]);
        hash = mix(hash, n);
    }
    return hash;
}

static entry **bucket_of(gemma4_remembered *memory, uint64_t hash)
{
    return &memory->buckets[hash % BUCKETS];
}

/* ------------------------------------------------------- by when they were used */

static void unlink_age(gemma4_remembered *memory, entry *e)
{
    *(e->older ? &e->older->younger : &memory->oldest) = e->younger;
    *(e->younger ? &e->younger->older : &memory->youngest) = e->older;
}

static void link_youngest(gemma4_remembered *memory, entry *e)
{
    e->older = memory->youngest;
    e->younger = NULL;
    *(e->older ? &e->older->younger : &memory->oldest) = e;
    memory->youngest = e;
}

static void forget(gemma4_remembered *memory, entry *e)
{
    entry **link = bucket_of(memory, e->hash);
    while (*link != e)
        link = &(*link)->next;
    *link = e->next;
    unlink_age(memory, e);
    memory->used -= e->bytes;
    free(e);
}

void gemma4_remembered_free(gemma4_remembered *memory)
{
    while (memory && memory->oldest)
        forget(memory, memory->oldest);
    free(memory);
}

/* ---------------------------------------------------------- finding and keeping */

static bool is_of(const entry *e, uint64_t hash, const gemma4_weight *w, size_t K,
                  const input inputs[INPUTS])
{
    const unsigned char *data = e->data;
    if (e->hash != hash || e->weight != w->data || e->rows != w->rows || e->cols != w->cols ||
        e->K != K)
        return false;
    for (size_t i = 0; i < INPUTS; data += e->input_bytes[i++])
        if (e->input_bytes[i] != inputs[i].bytes ||
            (inputs[i].bytes && memcmp(data, inputs[i].data, inputs[i].bytes)))
            return false;
    return true;
}

/* Copies the result to y where it is known. */
static bool recall(gemma4_remembered *memory, const gemma4_weight *w, size_t K,
                   const input inputs[INPUTS], void *y)
{
    uint64_t hash = memory ? hash_of(w->data, inputs) : 0;
    for (entry *e = memory ? *bucket_of(memory, hash) : NULL; e; e = e->next) {
        if (!is_of(e, hash, w, K, inputs))
            continue;
        const unsigned char *result = e->data;
        for (size_t i = 0; i < INPUTS; i++)
            result += e->input_bytes[i];
        memcpy(y, result, e->result_bytes);
        unlink_age(memory, e);
        link_youngest(memory, e);
        return true;
    }
    return false;
}

/* Without memory, or where there is too little, nothing is kept. */
static void keep(gemma4_remembered *memory, const gemma4_weight *w, size_t K,
                 const input inputs[INPUTS], const void *y, size_t result_bytes)
{
    size_t bytes = sizeof(entry) + result_bytes;
    for (size_t i = 0; i < INPUTS; i++)
        bytes += inputs[i].bytes;
    if (!memory || bytes > memory->most)
        return;
    while (memory->used + bytes > memory->most)
        forget(memory, memory->oldest);
    entry *e = malloc(bytes);
    if (!e)
        return;
    *e = (entry){.weight = w->data,
                 .hash = hash_of(w->data, inputs),
                 .rows = w->rows,
                 .cols = w->cols,
                 .K = K,
                 .bytes = bytes,
                 .result_bytes = result_bytes};
    unsigned char *data = e->data;
    for (size_t i = 0; i < INPUTS; data += inputs[i++].bytes) {
        e->input_bytes[i] = inputs[i].bytes;
        if (inputs[i].bytes)
            memcpy(data, inputs[i].data, inputs[i].bytes);
    }
    memcpy(data, y, e->result_bytes);
    entry **bucket = bucket_of(memory, e->hash);
    e->next = *bucket;
    *bucket = e;
    link_youngest(memory, e);
    memory->used += bytes;
}

/* ------------------------------------------------------------------ operators */

/* A product's rows of inputs and result, so many bytes a row. */
typedef struct product {
    const gemma4_weight *weight;
    size_t K;
    input row[INPUTS]; /* bytes of one row each */
    char *result;
    size_t result_bytes; /* of one row */
    size_t T;
} product;

typedef struct rows {
    size_t first, count;
} rows;

static void inputs_of(const product *p, rows of, input inputs[INPUTS])
{
    for (size_t i = 0; i < INPUTS; i++)
        inputs[i] = p->row[i].bytes
                        ? (input){(const char *)p->row[i].data + of.first * p->row[i].bytes,
                                  of.count * p->row[i].bytes}
                        : (input){NULL, 0};
}

static bool recall_rows(const product *p, rows of)
{
    input inputs[INPUTS];
    inputs_of(p, of, inputs);
    return !of.count ||
           recall(current, p->weight, p->K, inputs, p->result + of.first * p->result_bytes);
}

static void keep_rows(const product *p, rows of)
{
    input inputs[INPUTS];
    inputs_of(p, of, inputs);
    if (of.count)
        keep(current, p->weight, p->K, inputs, p->result + of.first * p->result_bytes,
             of.count * p->result_bytes);
}

/* The rows that are remembered by themselves, and the others. */
static void parts_of(const product *p, rows parts[2])
{
    size_t first = apart && apart < p->T ? apart : 0;
    parts[0] = (rows){0, first};
    parts[1] = (rows){first, p->T - first};
}

/* Copies what is known of a product; the rows that are to be computed, none or one range. */
static rows unknown_rows(const product *p)
{
    rows parts[2];
    parts_of(p, parts);
    bool known[2] = {recall_rows(p, parts[0]), recall_rows(p, parts[1])};
    size_t first = known[0] ? parts[1].first : 0, end = known[1] ? parts[1].first : p->T;
    return (rows){first, end > first ? end - first : 0};
}

/* Both parts were computed, or one of them. */
static void keep_computed(const product *p, rows computed)
{
    rows parts[2];
    parts_of(p, parts);
    for (size_t i = 0; i < 2; i++)
        if (parts[i].first >= computed.first &&
            parts[i].first + parts[i].count <= computed.first + computed.count)
            keep_rows(p, parts[i]);
}

static GEMMA4_MATMUL(matmul)
{
    const product p = {.weight = w,
                       .row = {{x, w->cols * sizeof *x}},
                       .result = (char *)y,
                       .result_bytes = w->rows * sizeof *y,
                       .T = T};
    rows due = unknown_rows(&p);
    if (!due.count)
        return;
    gemma4_ops_exact().matmul(y + due.first * w->rows, x + due.first * w->cols, w, due.count,
                              scratch);
    keep_computed(&p, due);
}

static GEMMA4_EXPERTS_ACT(experts_act)
{
    size_t cols = gate_up_proj->cols;
    const product p = {.weight = gate_up_proj,
                       .K = K,
                       .row = {{x, cols * sizeof *x}, {ids, K * sizeof *ids}},
                       .result = (char *)act,
                       .result_bytes = K * M * sizeof *act,
                       .T = T};
    rows due = unknown_rows(&p);
    if (!due.count)
        return;
    gemma4_ops_exact().experts_act(act + due.first * K * M, x + due.first * cols, gate_up_proj,
                                   ids + due.first * K, due.count, K, M, scratch);
    keep_computed(&p, due);
}

static GEMMA4_EXPERTS_OUT(experts_out)
{
    size_t cols = down_proj->cols;
    const product p = {.weight = down_proj,
                       .K = K,
                       .row = {{act, K * cols * sizeof *act},
                               {ids, K * sizeof *ids},
                               {weights, K * sizeof *weights}},
                       .result = (char *)y,
                       .result_bytes = d * sizeof *y,
                       .T = T};
    rows due = unknown_rows(&p);
    if (!due.count)
        return;
    gemma4_ops_exact().experts_out(y + due.first * d, act + due.first * K * cols, down_proj,
                                   ids + due.first * K, weights + due.first * K, due.count, K, d,
                                   scratch);
    keep_computed(&p, due);
}

gemma4_ops gemma4_ops_remembering(void)
{
    gemma4_ops ops = gemma4_ops_exact();
    ops.matmul = matmul;
    ops.experts_act = experts_act;
    ops.experts_out = experts_out;
    return ops;
}

/* -------------------------------------------------------------------- weights */

/* No product has so many experts. */
enum { OF_WEIGHT = INT_MAX };

bool gemma4_recall_weight(const gemma4_weight *from, const void *key, size_t key_bytes,
                          float *values, size_t n)
{
    const input inputs[INPUTS] = {{key, key_bytes}, {&n, sizeof n}};
    return recall(current, from, OF_WEIGHT, inputs, values);
}

void gemma4_keep_weight(const gemma4_weight *from, const void *key, size_t key_bytes,
                        const float *values, size_t n)
{
    const input inputs[INPUTS] = {{key, key_bytes}, {&n, sizeof n}};
    keep(current, from, OF_WEIGHT, inputs, values, n * sizeof *values);
}
