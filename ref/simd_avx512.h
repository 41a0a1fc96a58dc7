/* The vocabulary of ref/ops_simd.h in AVX-512: a vec is 16 floats. */
#ifndef GEMMA4_SIMD_AVX512_H
#define GEMMA4_SIMD_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#define TWIN_DOT_SUMS 16 /* sums of a product of few rows; the rest is for loads */
/* rows of x in a tile: 14 x 2 sums, 2 weights and 1 activation are 31 of the 32 registers */
#define TWIN_TILE_ROWS 14
typedef __m512 vec;
enum { LANES = 16, TILE_ROWS = TWIN_TILE_ROWS };

#define INLINE static inline __attribute__((always_inline))

INLINE vec vec_set1(float x)
{
    return _mm512_set1_ps(x);
}
INLINE vec vec_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
INLINE void vec_store(float *p, vec a)
{
    _mm512_storeu_ps(p, a);
}
INLINE vec vec_add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}
INLINE vec vec_sub(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}
INLINE vec vec_mul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}
INLINE vec vec_div(vec a, vec b)
{
    return _mm512_div_ps(a, b);
}
/* a * b + c, rounded once */
INLINE vec vec_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}
/* The larger, the smaller; b where either is NaN. */
INLINE vec vec_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}
INLINE vec vec_min(vec a, vec b)
{
    return _mm512_min_ps(a, b);
}
INLINE vec vec_abs(vec a)
{
    return _mm512_abs_ps(a);
}
/* The magnitude of a with the sign of b. */
INLINE vec vec_copysign(vec a, vec b)
{
    const __m512 sign = _mm512_set1_ps(-0.0f);
    return _mm512_or_ps(_mm512_andnot_ps(sign, a), _mm512_and_ps(sign, b));
}
/* Lane by lane: a < b ? x : y. */
INLINE vec vec_if_less(vec a, vec b, vec x, vec y)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
/* To the nearest integer, ties to even. */
INLINE vec vec_round(vec a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* a * 2^n for integral n, rounded once where the result is subnormal. */
INLINE vec vec_scale(vec a, vec n)
{
    return _mm512_scalef_ps(a, n);
}
/* The sum of the lanes, always in the same order: halves, quarters, eighths. */
INLINE float vec_sum(vec a)
{
    return _mm512_reduce_add_ps(a);
}

/* 16 weights, widened: bf16 is the upper half of a float. */
INLINE vec vec_load_bf16(const uint16_t *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
INLINE vec vec_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

/* Bit by bit. */
INLINE vec vec_and(vec a, vec b)
{
    return _mm512_and_ps(a, b);
}
/* A lane of pairs holds two neighbouring bf16 of one row: the even one in its lower half, the odd
 * one in its upper half. */
INLINE vec vec_load_pairs(const uint16_t *p)
{
    return _mm512_loadu_ps(p);
}
INLINE vec vec_even_bf16(vec pairs)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pairs), 16));
}
INLINE vec vec_odd_bf16(vec pairs)
{
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_castps_si512(pairs), _mm512_set1_epi32((int)0xffff0000u)));
}

/* The lanes of a and b, one after the other, that have an even place, an odd one. */
INLINE vec vec_evens(vec a, vec b)
{
    return _mm512_permutex2var_ps(
        a, _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30), b);
}
INLINE vec vec_odds(vec a, vec b)
{
    return _mm512_permutex2var_ps(
        a, _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31), b);
}

/* v becomes its transpose: lane j of v[i] moves to lane i of v[j]. */
INLINE void vec_transpose(vec v[LANES])
{
    vec a[LANES];
    /* Within each 128-bit quarter: 4 x 4 blocks, by pairs of lanes, then by pairs of pairs. */
    for (int i = 0; i < LANES; i += 2) {
        a[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
        a[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4) {
        v[i] = _mm512_castpd_ps(
            _mm512_unpacklo_pd(_mm512_castps_pd(a[i]), _mm512_castps_pd(a[i + 2])));
        v[i + 1] = _mm512_castpd_ps(
            _mm512_unpackhi_pd(_mm512_castps_pd(a[i]), _mm512_castps_pd(a[i + 2])));
        v[i + 2] = _mm512_castpd_ps(
            _mm512_unpacklo_pd(_mm512_castps_pd(a[i + 1]), _mm512_castps_pd(a[i + 3])));
        v[i + 3] = _mm512_castpd_ps(
            _mm512_unpackhi_pd(_mm512_castps_pd(a[i + 1]), _mm512_castps_pd(a[i + 3])));
    }
    /* Then the quarters among themselves: v[4*g + c] holds column 4*q + c of rows 4*g ... 4*g + 3
     * in quarter q. */
    for (int c = 0; c < 4; c++) {
        vec low01 = _mm512_shuffle_f32x4(v[c], v[4 + c], 0x44),
            high01 = _mm512_shuffle_f32x4(v[c], v[4 + c], 0xee);
        vec low23 = _mm512_shuffle_f32x4(v[8 + c], v[12 + c], 0x44),
            high23 = _mm512_shuffle_f32x4(v[8 + c], v[12 + c], 0xee);
        a[c] = _mm512_shuffle_f32x4(low01, low23, 0x88);
        a[4 + c] = _mm512_shuffle_f32x4(low01, low23, 0xdd);
        a[8 + c] = _mm512_shuffle_f32x4(high01, high23, 0x88);
        a[12 + c] = _mm512_shuffle_f32x4(high01, high23, 0xdd);
    }
    for (int i = 0; i < LANES; i++)
        v[i] = a[i];
}

#endif
