/* The vocabulary of ref/ops_simd.h in NEON (AArch64): a vec is 4 floats. ref/simd_avx512.h says
 * what each word means. */
#ifndef GEMMA4_SIMD_NEON_H
#define GEMMA4_SIMD_NEON_H

#include <arm_neon.h>
#include <stdint.h>

#define TWIN_DOT_SUMS 16  /* sums of a product of few rows; the rest is for loads */
#define TWIN_TILE_ROWS 12 /* 12 x 2 sums, 2 weights and 1 activation are 27 of the 32 registers */
typedef float32x4_t vec;
enum { LANES = 4, TILE_ROWS = TWIN_TILE_ROWS };

#define INLINE static inline __attribute__((always_inline))

INLINE vec vec_set1(float x)
{
    return vdupq_n_f32(x);
}
INLINE vec vec_load(const float *p)
{
    return vld1q_f32(p);
}
INLINE void vec_store(float *p, vec a)
{
    vst1q_f32(p, a);
}
INLINE vec vec_add(vec a, vec b)
{
    return vaddq_f32(a, b);
}
INLINE vec vec_sub(vec a, vec b)
{
    return vsubq_f32(a, b);
}
INLINE vec vec_mul(vec a, vec b)
{
    return vmulq_f32(a, b);
}
INLINE vec vec_div(vec a, vec b)
{
    return vdivq_f32(a, b);
}
INLINE vec vec_fma(vec a, vec b, vec c)
{
    return vfmaq_f32(c, a, b);
}
/* NEON's own maximum is NaN where either is; the callers rely only on b's NaN. */
INLINE vec vec_max(vec a, vec b)
{
    return vmaxq_f32(a, b);
}
INLINE vec vec_min(vec a, vec b)
{
    return vminq_f32(a, b);
}
INLINE vec vec_abs(vec a)
{
    return vabsq_f32(a);
}
INLINE vec vec_copysign(vec a, vec b)
{
    return vbslq_f32(vdupq_n_u32(0x80000000u), b, a);
}
INLINE vec vec_if_less(vec a, vec b, vec x, vec y)
{
    return vbslq_f32(vcltq_f32(a, b), x, y);
}
INLINE vec vec_round(vec a)
{
    return vrndnq_f32(a);
}
INLINE vec vec_scale(vec a, vec n)
{
    int32x4_t whole = vcvtnq_s32_f32(n), half = vshrq_n_s32(whole, 1), bias = vdupq_n_s32(127);
    int32x4_t first = vshlq_n_s32(vaddq_s32(half, bias), 23);
    int32x4_t second = vshlq_n_s32(vaddq_s32(vsubq_s32(whole, half), bias), 23);
    return vmulq_f32(vmulq_f32(a, vreinterpretq_f32_s32(first)), vreinterpretq_f32_s32(second));
}
INLINE float vec_sum(vec a)
{
    float32x2_t half = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(half, 0) + vget_lane_f32(half, 1);
}

INLINE vec vec_load_bf16(const uint16_t *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
INLINE vec vec_load_f16(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

INLINE vec vec_and(vec a, vec b)
{
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)));
}
INLINE vec vec_load_pairs(const uint16_t *p)
{
    return vreinterpretq_f32_u16(vld1q_u16(p));
}
INLINE vec vec_even_bf16(vec pairs)
{
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(pairs), 16));
}
INLINE vec vec_odd_bf16(vec pairs)
{
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(pairs), vdupq_n_u32(0xffff0000u)));
}

INLINE vec vec_evens(vec a, vec b)
{
    return vuzp1q_f32(a, b);
}
INLINE vec vec_odds(vec a, vec b)
{
    return vuzp2q_f32(a, b);
}

INLINE void vec_transpose(vec v[LANES])
{
    float32x4x2_t low = vtrnq_f32(v[0], v[1]), high = vtrnq_f32(v[2], v[3]);
    v[0] = vcombine_f32(vget_low_f32(low.val[0]), vget_low_f32(high.val[0]));
    v[1] = vcombine_f32(vget_low_f32(low.val[1]), vget_low_f32(high.val[1]));
    v[2] = vcombine_f32(vget_high_f32(low.val[0]), vget_high_f32(high.val[0]));
    v[3] = vcombine_f32(vget_high_f32(low.val[1]), vget_high_f32(high.val[1]));
}

#endif
