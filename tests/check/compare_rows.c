#include "compare_rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Values are taken by blocks, and a block by lanes whose sums are independent, which lets a
 * compiler use vectors without a change of the result. */
enum { BLOCK = 512, LANES = 8 };

/* A value at a time: for blocks in which something is not finite. */
static void add_values(gemma4_row_difference *d, size_t first_index, const float *a, const float *b,
                       size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double difference = fabs((double)b[i] - (double)a[i]);
        if (a[i] == b[i] || (isnan(a[i]) && isnan(b[i])))
            difference = 0;
        if (!isfinite(difference)) {
            if (d->nonfinite++ == 0)
                d->nonfinite_index = first_index + i;
            continue;
        }
        d->difference += difference * difference;
        d->reference += isfinite(a[i]) ? (double)a[i] * (double)a[i] : 0;
        if (isfinite(a[i]) && difference > d->worst) {
            d->worst = difference;
            d->worst_index = first_index + i;
            d->worst_a = a[i];
            d->worst_b = b[i];
        }
    }
}

typedef struct lanes {
    double difference[LANES], reference[LANES], worst[LANES];
} lanes;

static void add_lanes(lanes *sums, const float *a, const float *b)
{
    for (int i = 0; i < LANES; i++) {
        double g = (double)a[i], difference = fabs((double)b[i] - g);
        sums->difference[i] += difference * difference;
        sums->reference[i] += g * g;
        sums->worst[i] = difference > sums->worst[i] ? difference : sums->worst[i];
    }
}

/* Up to BLOCK values. Where one is not finite, a sum is not either: no square of a float is too
 * large for a double. */
static void add_block(gemma4_row_difference *d, size_t first_index, const float *a, const float *b,
                      size_t n)
{
    lanes sums = {0};
    size_t whole = n - n % LANES;
    for (size_t i = 0; i < whole; i += LANES)
        add_lanes(&sums, a + i, b + i);
    if (whole < n) {
        float last_a[LANES] = {0}, last_b[LANES] = {0};
        memcpy(last_a, a + whole, (n - whole) * sizeof *a);
        memcpy(last_b, b + whole, (n - whole) * sizeof *b);
        add_lanes(&sums, last_a, last_b);
    }
    double difference = 0, reference = 0, worst = 0;
    for (int i = 0; i < LANES; i++) {
        difference += sums.difference[i];
        reference += sums.reference[i];
        worst = fmax(worst, sums.worst[i]);
    }
    if (!isfinite(difference) || !isfinite(reference)) {
        add_values(d, first_index, a, b, n);
        return;
    }
    d->difference += difference;
    d->reference += reference;
    for (size_t i = 0; worst > d->worst && i < n; i++)
        if (fabs((double)b[i] - (double)a[i]) == worst) {
            d->worst = worst;
            d->worst_index = first_index + i;
            d->worst_a = a[i];
            d->worst_b = b[i];
        }
}

static void add(gemma4_row_difference *d, size_t first_index, const float *a, const float *b,
                size_t n)
{
    for (size_t i = 0; i < n; i += BLOCK)
        add_block(d, first_index + i, a + i, b + i, n - i < BLOCK ? n - i : BLOCK);
    d->values += n;
}

static int by_id(const void *a, const void *b)
{
    const gemma4_slot *x = a, *y = b;
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    return (x->slot > y->slot) - (x->slot < y->slot);
}

void gemma4_sort_slots(const int32_t *ids, size_t K, gemma4_slot *slots)
{
    for (size_t i = 0; i < K; i++)
        slots[i] = (gemma4_slot){ids[i], (uint32_t)i};
    qsort(slots, K, sizeof *slots, by_id);
}

bool gemma4_same_ids(const gemma4_slot *a, const gemma4_slot *b, size_t K)
{
    size_t i = 0;
    while (i < K && a[i].id == b[i].id)
        i++;
    return i == K;
}

/* Both lists are sorted. */
static void add_slots(gemma4_row_difference *d, const gemma4_row_shape *shape, const float *a,
                      const gemma4_slot *slots_a, const float *b, const gemma4_slot *slots_b)
{
    size_t n = shape->width / shape->slots;
    for (size_t i = 0, j = 0; i < shape->slots && j < shape->slots;)
        if (slots_a[i].id < slots_b[j].id) {
            i++;
        } else if (slots_a[i].id > slots_b[j].id) {
            j++;
        } else {
            size_t at = slots_a[i++].slot * n;
            add(d, at, a + at, b + slots_b[j++].slot * n, n);
        }
}

gemma4_row_difference gemma4_compare_rows(const gemma4_row_shape *shape, size_t t, const float *a,
                                          const gemma4_slot *slots_a, const float *b,
                                          const gemma4_slot *slots_b)
{
    gemma4_row_difference d = {.worst = -1};
    gemma4_visible seen = gemma4_visible_through(shape->window, t);
    switch (shape->kind) {
    case GEMMA4_ROW_PLAIN: add(&d, 0, a, b, shape->width); break;
    case GEMMA4_ROW_KEYS:
        for (size_t at = seen.first; at < shape->width; at += shape->positions)
            add(&d, at, a + at, b + at, seen.end - seen.first);
        break;
    case GEMMA4_ROW_SLOTS: add_slots(&d, shape, a, slots_a, b, slots_b); break;
    }
    return d;
}
