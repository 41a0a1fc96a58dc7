#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "twins.h"

/* ----------------------------------------------------------------- memory */

enum { BLOCKS = 32, PATTERN = 0xa5 };

static struct block {
    unsigned char *pages; /* all of them, the last one closed */
    size_t length;        /* of all pages */
    size_t first, size;   /* of the block within them */
} blocks[BLOCKS];
static size_t block_count;

void *guarded(size_t n, size_t size, size_t misalign)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = n * size, behind = misalign * size;
    /* a page of pattern before it */
    size_t open = (bytes + behind + page - 1) / page * page + page;
    unsigned char *pages =
        mmap(NULL, open + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || block_count == BLOCKS || mprotect(pages + open, page, PROT_NONE)) {
        fprintf(stderr, "gemma4-twins: out of memory\n");
        exit(2);
    }
    memset(pages, PATTERN, open);
    blocks[block_count++] = (struct block){pages, open + page, open - behind - bytes, bytes};
    return pages + open - behind - bytes;
}

size_t guarded_damage(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < block_count; i++)
        for (size_t j = 0; j < blocks[i].length - page; j++) {
            if (j == blocks[i].first)
                j += blocks[i].size;
            if (j < blocks[i].length - page && blocks[i].pages[j] != PATTERN)
                return i + 1;
        }
    return 0;
}

void guarded_free_all(void)
{
    while (block_count)
        block_count--, munmap(blocks[block_count].pages, blocks[block_count].length);
}

/* ---------------------------------------------------------------- numbers */

static uint64_t state;

void random_seed(uint64_t seed)
{
    state = seed;
}

/* splitmix64 (spec/synth.md has its constants too) */
uint64_t random_bits(void)
{
    uint64_t z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

size_t random_below(size_t n)
{
    return (size_t)(random_bits() % n);
}

float random_real(void)
{
    return (float)((double)(random_bits() >> 40) / 0x1p23 - 1 + 0x1p-25);
}
