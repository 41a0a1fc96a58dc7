/* Which operators run: the scalar ones, or the twins of an instruction set that this machine has
 * (spec/twins.md). */
#include "ops.h"

#include <stdatomic.h>
#include <string.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#endif

enum { UNKNOWN = 1 << 16 };
static unsigned limit = GEMMA4_CPU_ALL;

void gemma4_cpu_limit(unsigned mask)
{
    limit = mask;
}

/* The Makefile defines GEMMA4_TWIN_... for every twin that it compiles. */
static unsigned detect(void)
{
    unsigned found = GEMMA4_CPU_SCALAR;
#if defined(GEMMA4_TWIN_avx2) || defined(GEMMA4_TWIN_avx512)
    /* __builtin_cpu_supports asks xgetbv as well whether the operating system saves these
     * registers. It does not know F16C. */
    unsigned a, b, c = 0, d;
    bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
    bool avx2 = f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#ifdef GEMMA4_TWIN_avx2
    if (avx2)
        found |= GEMMA4_CPU_AVX2;
#endif
#ifdef GEMMA4_TWIN_avx512
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        found |= GEMMA4_CPU_AVX512;
#endif
#ifdef GEMMA4_TWIN_neon
    found |= GEMMA4_CPU_NEON; /* part of every AArch64 */
#endif
    return found;
}

unsigned gemma4_cpu_detect(void)
{
    /* A virtual machine takes microseconds for the instruction that asks. */
    static atomic_uint found = UNKNOWN;
    unsigned mask = atomic_load(&found);
    if (mask == UNKNOWN)
        atomic_store(&found, mask = detect());
    return mask & limit;
}

#define SCALAR                                                                               \
    (gemma4_ops)                                                                             \
    {                                                                                        \
        "scalar", gemma4_scratch, gemma4_matmul, gemma4_rmsnorm, gemma4_rope, gemma4_geglu,  \
            gemma4_experts_act, gemma4_experts_out, gemma4_softcap, gemma4_attention_scores, \
            gemma4_attention_context, NULL                                                   \
    }

/* Every slot of one instruction set. Scores that are shown are the scalar's. */
#define OPS(set)                                                                                  \
    (gemma4_ops)                                                                                  \
    {                                                                                             \
#set, gemma4_scratch_##set, gemma4_matmul_##set, gemma4_rmsnorm_##set, gemma4_rope_##set, \
            gemma4_geglu_##set, gemma4_experts_act_##set, gemma4_experts_out_##set,               \
            gemma4_softcap_##set, gemma4_attention_scores, gemma4_attention_context,              \
            gemma4_attention_##set                                                                \
    }

/* Likewise of those that give the scalar's bits. */
#define EXACT(set)                                                             \
    (gemma4_ops)                                                               \
    {                                                                          \
        "exact_" #set, gemma4_scratch_exact_##set, gemma4_matmul_exact_##set,  \
            gemma4_rmsnorm_exact_##set, gemma4_rope, gemma4_geglu_exact_##set, \
            gemma4_experts_act_exact_##set, gemma4_experts_out_exact_##set,    \
            gemma4_softcap_exact_##set, gemma4_attention_scores_exact_##set,   \
            gemma4_attention_context_exact_##set, NULL                         \
    }

gemma4_ops gemma4_ops_for(unsigned mask)
{
    gemma4_ops ops = SCALAR;
    (void)mask;
#ifdef GEMMA4_TWIN_neon
    if (mask & GEMMA4_CPU_NEON)
        ops = OPS(neon);
#endif
#ifdef GEMMA4_TWIN_avx2
    if (!(mask & GEMMA4_CPU_AVX2))
        return ops;
    ops = OPS(avx2);
#endif
#ifdef GEMMA4_TWIN_avx512
    if (!(mask & GEMMA4_CPU_AVX512))
        return ops;
    ops = OPS(avx512);
#endif
    return ops;
}

gemma4_ops gemma4_ops_exact(void)
{
    gemma4_ops ops = SCALAR;
#ifdef GEMMA4_TWIN_neon
    if (gemma4_cpu_detect() & GEMMA4_CPU_NEON)
        ops = EXACT(neon);
#endif
#ifdef GEMMA4_TWIN_avx2
    if (gemma4_cpu_detect() & GEMMA4_CPU_AVX2)
        ops = EXACT(avx2);
#endif
    return ops;
}

int gemma4_cpu_parse(const char *text, const char *what, unsigned *mask, gemma4_error *error)
{
    static const struct {
        const char *name;
        unsigned mask;
    } sets[] = {{"scalar", GEMMA4_CPU_SCALAR},
                {"avx2", GEMMA4_CPU_AVX2},
                {"avx512", GEMMA4_CPU_AVX2 | GEMMA4_CPU_AVX512},
                {"neon", GEMMA4_CPU_NEON}};
    unsigned found = gemma4_cpu_detect();
    if (!strcmp(text, "auto")) {
        *mask = found;
        return 0;
    }
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (strcmp(text, sets[i].name))
            continue;
        *mask = sets[i].mask;
        if (!(sets[i].mask & ~found))
            return 0;
        return gemma4_fail(error,
                           "%s: expected an instruction set of this machine and build, found %s",
                           what, text);
    }
    return gemma4_fail(error, "%s: expected scalar, avx2, avx512, neon or auto, found '%.40s'",
                       what, text);
}

int gemma4_use_threads(int threads)
{
#ifdef _OPENMP
    int before = omp_get_max_threads();
    omp_set_num_threads(threads);
    return before;
#else
    (void)threads;
    return 1;
#endif
}

void gemma4_keep_memory(void)
{
#ifdef __GLIBC__
    /* The largest that it takes: bigger blocks are the system's. */
    mallopt(M_MMAP_THRESHOLD, 1 << 25);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
}
