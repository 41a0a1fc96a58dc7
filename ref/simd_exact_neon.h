/* The vocabulary of ref/ops_exact.h in NEON (AArch64): a quad is two pairs of doubles.
 * ref/simd_exact_avx2.h says what the words mean. */
#ifndef GEMMA4_SIMD_EXACT_NEON_H
#define GEMMA4_SIMD_EXACT_NEON_H

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>

typedef struct quad {
    float64x2_t low, high;
} quad;

#define INLINE static inline __attribute__((always_inline))

INLINE quad quad_zero(void)
{
    return (quad){vdupq_n_f64(0), vdupq_n_f64(0)};
}
INLINE quad quad_load(const double *p)
{
    return (quad){vld1q_f64(p), vld1q_f64(p + 2)};
}
INLINE void quad_store(double *p, quad a)
{
    vst1q_f64(p, a.low);
    vst1q_f64(p + 2, a.high);
}
INLINE quad quad_fma(quad a, quad b, quad c)
{
    return (quad){vfmaq_f64(c.low, a.low, b.low), vfmaq_f64(c.high, a.high, b.high)};
}
INLINE quad quad_widen(float32x4_t a)
{
    return (quad){vcvt_f64_f32(vget_low_f32(a)), vcvt_high_f64_f32(a)};
}
INLINE quad quad_load_f32(const float *p)
{
    return quad_widen(vld1q_f32(p));
}
INLINE quad quad_load_bf16(const uint16_t *p)
{
    return quad_widen(vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)));
}
INLINE quad quad_load_f16(const uint16_t *p)
{
    return quad_widen(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))));
}
INLINE quad quad_mul(quad a, quad b)
{
    return (quad){vmulq_f64(a.low, b.low), vmulq_f64(a.high, b.high)};
}
INLINE void quad_store_f32(float *p, quad a)
{
    vst1q_f32(p, vcvt_high_f32_f64(vcvt_f32_f64(a.low), a.high));
}
INLINE void quad_load_columns(quad columns[4], const float *const *p, size_t i)
{
    for (size_t l = 0; l < 4; l++) {
        const float lanes[4] = {p[0][i + l], p[1][i + l], p[2][i + l], p[3][i + l]};
        columns[l] = quad_load_f32(lanes);
    }
}
INLINE quad quad_set1(double x)
{
    return (quad){vdupq_n_f64(x), vdupq_n_f64(x)};
}

#endif
