/* Between the allocator that fails (fail.c, preloaded) and the program that counts on it (main.c):
 * a file that both map. */
#ifndef GEMMA4_ALLOC_STATE_H
#define GEMMA4_ALLOC_STATE_H

#include <stdatomic.h>
#include <stdint.h>

enum { ALLOC_LOGGED = 1 << 21, ALLOC_LEAKS = 64 };

typedef struct alloc_state {
    uint64_t fail_at;  /* which allocation fails, from 1; 0: none */
    uint64_t for_good; /* 1: so do all after it */
    uint64_t logs;     /* 1: `place` is filled */
    _Atomic uint64_t count, failed;
    _Atomic uint64_t leaks; /* what our own code allocated and did not free, in every process that
                               ended */
    uint64_t leaked_at[ALLOC_LEAKS]; /* the first few: where in the program */
    uint32_t place[ALLOC_LOGGED];    /* of each allocation: a hash of the innermost calls of our own
                                     code that led to it */
} alloc_state;

#endif
