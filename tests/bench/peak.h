/* What the machine can do: the yardsticks of the benchmark. peak_avx2.c, peak_avx512.c and
 * peak_neon.c each include a vocabulary (ref/simd_*.h) and then peak_simd.h. */
#ifndef GEMMA4_BENCH_PEAK_H
#define GEMMA4_BENCH_PEAK_H

#include <stdbool.h>
#include <stddef.h>

/* Reads size bytes (a multiple of 4096) once, with or without asking for the lines of the next page
 * early; returns something that depends on all of them. */
#define BENCH_READ(name) float(name)(const void *memory, size_t size, bool ask_early)
/* Does `rounds` rounds of independent multiply-adds on registers and returns how many
 * floating-point operations that was. */
#define BENCH_FMA(name) double(name)(size_t rounds, float *sink)

BENCH_READ(bench_read_avx2);
BENCH_READ(bench_read_avx512);
BENCH_READ(bench_read_neon);
BENCH_FMA(bench_fma_avx2);
BENCH_FMA(bench_fma_avx512);
BENCH_FMA(bench_fma_neon);

#endif
