/* The yardsticks in the vocabulary of a simd_*.h (peak.h). */
#include "peak.h"

/* One stream, lines in order. */
BENCH_READ(TWIN(bench_read))
{
    const float *x = memory;
    vec sum[4] = {vec_set1(0), vec_set1(0), vec_set1(0), vec_set1(0)};
    for (size_t i = 0; i < size / sizeof *x; i += 4 * LANES) {
        for (size_t j = 0; j < 4 && ask_early; j++)
            __builtin_prefetch(x + i + j * LANES + 1024, 0, 3);
        for (size_t j = 0; j < 4; j++)
            sum[j] = vec_add(sum[j], vec_load(x + i + j * LANES));
    }
    return vec_sum(vec_add(vec_add(sum[0], sum[1]), vec_add(sum[2], sum[3])));
}

/* Twelve chains: more than latency times units of any machine known here, fewer than the
 * registers. */
BENCH_FMA(TWIN(bench_fma))
{
    enum { CHAINS = 12 };
    vec sum[CHAINS], a = vec_set1(0.999f), b = vec_set1(0.001f);
    for (int c = 0; c < CHAINS; c++)
        sum[c] = vec_set1((float)c);
    for (size_t i = 0; i < rounds; i++)
        for (int c = 0; c < CHAINS; c++)
            sum[c] = vec_fma(sum[c], a, b);
    for (int c = 1; c < CHAINS; c++)
        sum[0] = vec_add(sum[0], sum[c]);
    *sink = vec_sum(sum[0]);
    return 2.0 * CHAINS * LANES * (double)rounds;
}
