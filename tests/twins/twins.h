/* The twin checker: every operator of a twin against the scalar in double, within a derived bound
 * (spec/twins.md). */
#ifndef GEMMA4_TWINS_H
#define GEMMA4_TWINS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ops.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* What one operator of one twin has shown so far. */
typedef struct verdict {
    char wrong[200]; /* the first thing that is, or "" */
    size_t cases, values;
    double worst;               /* the largest error in units of its bound */
    char where[80];             /* the case that shows it */
    double sum, sum_of_squares; /* of errors towards (-) and away from (+) zero, in units of their
                                   spread */
    size_t signed_values;
    uint64_t hash; /* of the bits of all values found: the same for every number of threads */
} verdict;

/* --- memory with guards (memory.c): an access past the end stops the process, a write before the
 * beginning is noticed --- */

/* n values of `size` bytes whose last byte is the last one of a page; the next page cannot be
 * touched. misalign (in values) moves the block forward in memory by so much; what then lies after
 * it, and a page before it, is filled with a pattern. Freed all at once by guarded_free_all. */
void *guarded(size_t n, size_t size, size_t misalign);
/* The first block whose surroundings were written to, or 0 (1 = the first block allocated). */
size_t guarded_damage(void);
void guarded_free_all(void);

/* --- numbers (memory.c) --- */

void random_seed(uint64_t seed);
uint64_t random_bits(void);
size_t random_below(size_t n);
float random_real(void); /* in (-1, 1) */

/* --- comparing (compare.c) --- */

/* One value. expected is exact to double, bound is absolute. Where expected is infinite or NaN,
 * found must be the same. */
void check_value(verdict *v, double found, double expected, double bound, const char *where,
                 size_t index);
/* The same, and the value counts for the test of biased rounding: spread is the size of an honest
 * error. */
void check_unbiased(verdict *v, double found, double expected, double bound, double spread,
                    const char *where, size_t index);
/* After all cases: errors that lean to one side by more than chance (6 standard deviations of their
 * mean) are a fault. */
void check_bias(verdict *v);
/* After each case: nothing around the blocks was written to. */
void check_guards(verdict *v, const char *where);

/* --- operators (operators.c) --- */

typedef struct operator_check {
    const char *name;
    void (*run)(verdict *v, const gemma4_ops *ops);
} operator_check;

extern const operator_check operator_checks[];
extern const size_t operator_check_count;

/* --- what their cases are made of (operators.c) --- */

/* Kinds of data. */
enum kind { PLAIN, CANCELLING, SUBNORMAL, HUGE_VALUES, NOT_FINITE, KINDS };
extern const char *const KIND_NAMES[];
enum kind any_kind(void);
#define ANY(table) table[random_below(COUNT(table))]

/* A weight [rows, cols] of noise, flush against a closed page. */
gemma4_weight make_weight(size_t rows, size_t cols, enum kind kind);
float *make_reals(size_t n, enum kind kind);
/* Output: filled with NaN, so that what is not written is noticed. */
float *make_output(size_t n);
float *make_scratch(const gemma4_ops *ops, size_t cols, size_t T, size_t K);
/* Slots of T positions: any, or all the same expert, so that every size of group occurs; an expert
 * may occur twice in a position (a hook can write that). */
int32_t *make_ids(size_t T, size_t K, size_t E);

/* --- operators that give the scalar's bits (exact.c) --- */

extern const operator_check exact_checks[];
extern const size_t exact_check_count;

/* --- twins that must fail (faulty.c) --- */

typedef struct faulty_twin {
    const char *name;
    const char *operator; /* of operator_checks: the one that must notice */
    void (*plant)(gemma4_ops *ops);
} faulty_twin;

extern const faulty_twin faulty_twins[];
extern const size_t faulty_twin_count;
/* The same of operators that are to give the scalar's bits; operator is one of exact_checks. */
extern const faulty_twin faulty_exact[];
extern const size_t faulty_exact_count;

#endif
