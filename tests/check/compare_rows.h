/* One position of a tap in two dumps, value by value (spec/report.md, "Two
 * dumps compared"). */
#ifndef GEMMA4_COMPARE_ROWS_H
#define GEMMA4_COMPARE_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "forward.h"

/* What a position has come to. Values that are NaN in both, or the same infinity, are equal and in
 * no sum. */
typedef struct gemma4_row_difference {
    double difference, reference;      /* sums of (b - a)^2 and of a^2 */
    size_t values;                     /* that were compared, equal ones included */
    size_t nonfinite, nonfinite_index; /* values that are not finite in one of the two, and not the
                                          same in the other; the first of them */
    double worst;                      /* the largest |b - a|, -1 where there is none */
    size_t worst_index;
    float worst_a, worst_b;
} gemma4_row_difference;

/* A slot of a row whose order topk_ids or logprobs.ids say. */
typedef struct gemma4_slot {
    int32_t id;
    uint32_t slot;
} gemma4_slot;

/* How the values of two rows of a tap go together. */
typedef enum gemma4_row_kind {
    GEMMA4_ROW_PLAIN, /* in their order */
    GEMMA4_ROW_KEYS,  /* [H, T], of which the visible keys count */
    GEMMA4_ROW_SLOTS, /* [K, ...]: with those of the same id */
} gemma4_row_kind;

typedef struct gemma4_row_shape {
    gemma4_row_kind kind;
    size_t width;     /* values of a row */
    size_t positions; /* T; KEYS */
    size_t window;    /* KEYS: how many keys a query sees at most */
    size_t slots;     /* K, which divides width; SLOTS */
} gemma4_row_shape;

/* Sorts slots 0 ... K-1 by their ids, ids [K], into slots [K]. */
void gemma4_sort_slots(const int32_t *ids, size_t K, gemma4_slot *slots);
/* Whether two sorted lists have the same ids, each as often. */
bool gemma4_same_ids(const gemma4_slot *a, const gemma4_slot *b, size_t K);

/* Position t of two tensors, [width] each; their slots sorted, [slots] each, where the shape has
 * them. Slots whose id the other row lacks are left out. An index is the one in row a. */
gemma4_row_difference gemma4_compare_rows(const gemma4_row_shape *shape, size_t t, const float *a,
                                          const gemma4_slot *slots_a, const float *b,
                                          const gemma4_slot *slots_b);

#endif
