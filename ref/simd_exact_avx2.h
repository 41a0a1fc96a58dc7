/* The vocabulary of ref/ops_exact.h in AVX2, FMA and F16C: a quad is 4 doubles. */
#ifndef GEMMA4_SIMD_EXACT_AVX2_H
#define GEMMA4_SIMD_EXACT_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

typedef __m256d quad;

#define INLINE static inline __attribute__((always_inline))

INLINE quad quad_zero(void)
{
    return _mm256_setzero_pd();
}
INLINE quad quad_load(const double *p)
{
    return _mm256_loadu_pd(p);
}
INLINE void quad_store(double *p, quad a)
{
    _mm256_storeu_pd(p, a);
}
/* a * b + c, rounded once. */
INLINE quad quad_fma(quad a, quad b, quad c)
{
    return _mm256_fmadd_pd(a, b, c);
}
/* 4 numbers of a narrower type, which are exact in double. */
INLINE quad quad_load_f32(const float *p)
{
    return _mm256_cvtps_pd(_mm_loadu_ps(p));
}
INLINE quad quad_load_bf16(const uint16_t *p)
{
    __m128i wide = _mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)p));
    return _mm256_cvtps_pd(_mm_castsi128_ps(_mm_slli_epi32(wide, 16)));
}
INLINE quad quad_load_f16(const uint16_t *p)
{
    return _mm256_cvtps_pd(_mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)p)));
}
INLINE quad quad_mul(quad a, quad b)
{
    return _mm256_mul_pd(a, b);
}
INLINE void quad_store_f32(float *p, quad a)
{
    _mm_storeu_ps(p, _mm256_cvtpd_ps(a));
}
/* columns[l] becomes p[0][i + l], p[1][i + l], p[2][i + l], p[3][i + l]. */
INLINE void quad_load_columns(quad columns[4], const float *const *p, size_t i)
{
    __m128 a = _mm_loadu_ps(p[0] + i), b = _mm_loadu_ps(p[1] + i), c = _mm_loadu_ps(p[2] + i),
           d = _mm_loadu_ps(p[3] + i);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    columns[0] = _mm256_cvtps_pd(a);
    columns[1] = _mm256_cvtps_pd(b);
    columns[2] = _mm256_cvtps_pd(c);
    columns[3] = _mm256_cvtps_pd(d);
}
INLINE quad quad_set1(double x)
{
    return _mm256_set1_pd(x);
}

#endif
