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
static bool recall(gemma4_remembered *memory, const gemma4_weight *w, size_t K, uint64_t hash,
                   const input inputs[INPUTS], void *y)
{
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
static void keep(gemma4_remembered *memory, const gemma4_weight *w, size_t K, uint64_t hash,
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
                 .hash = hash,
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
    entry **bucket = bucket_of(memory, hash);
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

/* Rows of a product that are remembered together. */
typedef struct part {
    size_t first, count;
    input inputs[INPUTS];
    uint64_t hash; /* of weight and inputs */
    bool known;
} part;

static part part_of(const product *p, size_t first, size_t count)
{
    part r = {.first = first, .count = count};
    for (size_t i = 0; i < INPUTS; i++)
        if (p->row[i].bytes)
            r.inputs[i] = (input){(const char *)p->row[i].data + first * p->row[i].bytes,
                                  count * p->row[i].bytes};
    r.hash = current ? hash_of(p->weight->data, r.inputs) : 0;
    r.known = !count || recall(current, p->weight, p->K, r.hash, r.inputs,
                               p->result + first * p->result_bytes);
    return r;
}

typedef struct range {
    size_t first, count;
} range;

/* Copies what is known of a product: of the rows that are remembered by themselves, and of the
 * others. The rows that are to be computed, none or one range. */
static range recall_parts(const product *p, part parts[2])
{
    size_t apart_here = apart && apart < p->T ? apart : 0;
    parts[0] = part_of(p, 0, apart_here);
    parts[1] = part_of(p, apart_here, p->T - apart_here);
    size_t first = parts[0].known ? apart_here : 0, end = parts[1].known ? apart_here : p->T;
    return (range){first, end - first};
}

static void keep_parts(const product *p, const part parts[2])
{
    for (const part *r = parts; r < parts + 2; r++)
        if (!r->known)
            keep(current, p->weight, p->K, r->hash, r->inputs,
                 p->result + r->first * p->result_bytes, r->count * p->result_bytes);
}

static GEMMA4_MATMUL(matmul)
{
    const product p = {.weight = w,
                       .row = {{x, w->cols * sizeof *x}},
                       .result = (char *)y,
                       .result_bytes = w->rows * sizeof *y,
                       .T = T};
    part parts[2];
    range due = recall_parts(&p, parts);
    if (!due.count)
        return;
    gemma4_ops_exact().matmul(y + due.first * w->rows, x + due.first * w->cols, w, due.count,
                              scratch);
    keep_parts(&p, parts);
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
    part parts[2];
    range due = recall_parts(&p, parts);
    if (!due.count)
        return;
    gemma4_ops_exact().experts_act(act + due.first * K * M, x + due.first * cols, gate_up_proj,
                                   ids + due.first * K, due.count, K, M, scratch);
    keep_parts(&p, parts);
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
    part parts[2];
    range due = recall_parts(&p, parts);
    if (!due.count)
        return;
    gemma4_ops_exact().experts_out(y + due.first * d, act + due.first * K * cols, down_proj,
                                   ids + due.first * K, weights + due.first * K, due.count, K, d,
                                   scratch);
    keep_parts(&p, parts);
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
    return recall(current, from, OF_WEIGHT, hash_of(from->data, inputs), inputs, values);
}

void gemma4_keep_weight(const gemma4_weight *from, const void *key, size_t key_bytes,
                        const float *values, size_t n)
{
    const input inputs[INPUTS] = {{key, key_bytes}, {&n, sizeof n}};
    keep(current, from, OF_WEIGHT, hash_of(from->data, inputs), inputs, values, n * sizeof *values);
}
