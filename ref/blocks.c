/* Every decode function computes in float32, in ggml's order, so that the bits are ggml's. Numbers
 * are little-endian; d is a block's scale. */
#include "blocks.h"

#include <math.h>
#include <string.h>

static float f32_at(const unsigned char *bytes)
{
    float value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static float bf16_at(const unsigned char *bytes)
{
    uint32_t bits = (uint32_t)bytes[0] << 16 | (uint32_t)bytes[1] << 24;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float f16_at(const unsigned char *bytes)
{
    unsigned bits = bytes[0] | (unsigned)bytes[1] << 8;
    int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    float magnitude = exponent == 31 ? (mantissa ? NAN : INFINITY)
                      : exponent     ? ldexpf((float)(1024 + mantissa), exponent - 25)
                                     : ldexpf((float)mantissa, -24);
    return bits & 0x8000 ? -magnitude : magnitude;
}

static void decode_f32(float *out, const unsigned char *block)
{
    *out = f32_at(block);
}

static void decode_f16(float *out, const unsigned char *block)
{
    *out = f16_at(block);
}

static void decode_bf16(float *out, const unsigned char *block)
{
    *out = bf16_at(block);
}

/* ------------------------------------------------------ blocks of 32 values */

/* Two values a byte: the low halves of n bytes are values 0 ... n - 1, the high halves the next
 * n. */
static int half_byte(const unsigned char *bytes, size_t n, size_t i)
{
    return i < n ? bytes[i] & 15 : bytes[i - n] >> 4;
}

/* d f16, 16 bytes of halves: d (q - 8) */
static void decode_q4_0(float *out, const unsigned char *block)
{
    float d = f16_at(block);
    for (size_t i = 0; i < 32; i++)
        out[i] = (float)(half_byte(block + 2, 16, i) - 8) * d;
}

/* d f16, m f16, 16 bytes of halves: d q + m */
static void decode_q4_1(float *out, const unsigned char *block)
{
    float d = f16_at(block), m = f16_at(block + 2);
    for (size_t i = 0; i < 32; i++)
        out[i] = (float)half_byte(block + 4, 16, i) * d + m;
}

/* The fifth bit of value i, of 32 in four bytes. */
static int fifth_bit(const unsigned char *bytes, size_t i)
{
    return (bytes[i / 8] >> i % 8 & 1) << 4;
}

/* d f16, 32 fifth bits, 16 bytes of halves: d (q - 16) */
static void decode_q5_0(float *out, const unsigned char *block)
{
    float d = f16_at(block);
    for (size_t i = 0; i < 32; i++)
        out[i] = (float)((half_byte(block + 6, 16, i) | fifth_bit(block + 2, i)) - 16) * d;
}

/* d f16, m f16, 32 fifth bits, 16 bytes of halves: d q + m */
static void decode_q5_1(float *out, const unsigned char *block)
{
    float d = f16_at(block), m = f16_at(block + 2);
    for (size_t i = 0; i < 32; i++)
        out[i] = (float)(half_byte(block + 8, 16, i) | fifth_bit(block + 4, i)) * d + m;
}

/* d f16, 32 signed bytes: d q */
static void decode_q8_0(float *out, const unsigned char *block)
{
    float d = f16_at(block);
    for (size_t i = 0; i < 32; i++)
        out[i] = (float)(int8_t)block[2 + i] * d;
}

/* The 16 values of IQ4_NL and IQ4_XS, denser around 0. */
static const int8_t uneven[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                  1,    13,   25,  38,  53,  69,  89,  113};

/* d f16, 16 bytes of halves */
static void decode_iq4_nl(float *out, const unsigned char *block)
{
    float d = f16_at(block);
    for (size_t i = 0; i < 32; i++)
        out[i] = d * (float)uneven[half_byte(block + 2, 16, i)];
}

/* The 16 values of four bits in floating point (E2M1), doubled, so that they are integers. The
 * scales below are halved for that. */
static const int8_t doubled_e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* An exponent (E8M0), 16 bytes of halves: OCP Microscaling Formats 1.0. An exponent of 255 is no
 * NaN here. */
static void decode_mxfp4(float *out, const unsigned char *block)
{
    float d = ldexpf(1, block[0] - 128);
    for (size_t i = 0; i < 32; i++)
        out[i] = d * (float)doubled_e2m1[half_byte(block + 1, 16, i)];
}

/* Half of an eight-bit scale: 4 bits of exponent, 3 of mantissa (E4M3); the sign is ignored, and
 * 0x7f is 0. */
static float half_of_e4m3(unsigned bits)
{
    int exponent = bits >> 3 & 15, mantissa = bits & 7;
    if (bits == 0x7f)
        return 0;
    return exponent ? ldexpf((float)(8 + mantissa), exponent - 11) : ldexpf((float)mantissa, -10);
}

/* Four scales of 16 values each, then 8 bytes of halves for each. */
static void decode_nvfp4(float *out, const unsigned char *block)
{
    for (size_t group = 0; group < 4; group++) {
        float d = half_of_e4m3(block[group]);
        for (size_t i = 0; i < 16; i++)
            out[16 * group + i] = d * (float)doubled_e2m1[half_byte(block + 4 + 8 * group, 8, i)];
    }
}

/* ----------------------------------------------------- blocks of 256 values */

/* d (scale q) - dmin min, with four bits each of scale and min for every 16 values: 16 bytes of
 * those, 64 of q, d f16, dmin f16. A byte of q holds two bits each of values 32 apart. */
static void decode_q2_k(float *out, const unsigned char *block)
{
    const unsigned char *scales = block, *q = block + 16;
    float d = f16_at(block + 80), dmin = f16_at(block + 82);
    for (size_t i = 0; i < 256; i++) {
        size_t group = i / 16;
        float scale = d * (float)(scales[group] & 15), min = dmin * (float)(scales[group] >> 4);
        out[i] = scale * (float)(q[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3) - min;
    }
}

/* d (scale - 32) (q - 4): 32 bytes of q's third bits (a bit each of values 32 apart), 64 of its
 * lower two, 12 of six-bit scales, d f16. Of the scales, 8 bytes hold the lower four bits in
 * halves, 4 the upper two of scales four apart. */
static void decode_q3_k(float *out, const unsigned char *block)
{
    const unsigned char *third = block, *q = block + 32, *scales = block + 96;
    float d = f16_at(block + 108);
    for (size_t i = 0; i < 256; i++) {
        size_t group = i / 16;
        int scale = half_byte(scales, 8, group) | (scales[8 + group % 4] >> group / 4 * 2 & 3) << 4;
        int low = q[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3,
            high = third[i % 32] >> i / 32 & 1;
        out[i] = d * (float)(scale - 32) * (float)(low - (high ? 0 : 4));
    }
}

/* Scale and min of group 0 ... 7 of Q4_K and Q5_K, six bits each in 12 bytes: the first four
 * groups' scales in bytes 0 ... 3, their mins in 4 ... 7; of the others the lower four bits in the
 * halves of bytes 8 ... 11, the upper two above those of the first four. */
static void scale_and_min(const unsigned char *bytes, size_t group, int *scale, int *min)
{
    if (group < 4) {
        *scale = bytes[group] & 63;
        *min = bytes[group + 4] & 63;
    } else {
        *scale = (bytes[group + 4] & 15) | bytes[group - 4] >> 6 << 4;
        *min = bytes[group + 4] >> 4 | bytes[group] >> 6 << 4;
    }
}

/* d f16, dmin f16, 12 bytes of scales and mins, high (NULL, or 32 bytes of fifth bits: a bit each
 * of values 32 apart), 128 bytes of halves (of values 32 apart): (d scale) q - dmin min for every
 * 32 values. */
static void decode_k(float *out, const unsigned char *block, const unsigned char *high,
                     const unsigned char *halves)
{
    float d = f16_at(block), dmin = f16_at(block + 2);
    for (size_t group = 0; group < 8; group++) {
        int scale, min;
        scale_and_min(block + 4, group, &scale, &min);
        float group_d = d * (float)scale, group_min = dmin * (float)min;
        const unsigned char *bytes = halves + group / 2 * 32;
        unsigned shift = group % 2 * 4;
        for (size_t i = 0; i < 32; i++) {
            int fifth = high ? (high[i] >> group & 1) << 4 : 0;
            out[group * 32 + i] = group_d * (float)((bytes[i] >> shift & 15) | fifth) - group_min;
        }
    }
}

static void decode_q4_k(float *out, const unsigned char *block)
{
    decode_k(out, block, NULL, block + 16);
}

static void decode_q5_k(float *out, const unsigned char *block)
{
    decode_k(out, block, block + 16, block + 48);
}

/* (d scale) (q - 32): 128 bytes of q's lower four bits (of values 64 apart), 64 of its upper two
 * (of values 32 apart), 16 signed bytes of scales for 16 values each, d f16. */
static void decode_q6_k(float *out, const unsigned char *block)
{
    const unsigned char *low = block, *high = block + 128, *scales = block + 192;
    float d = f16_at(block + 208);
    for (size_t group = 0; group < 16; group++) {
        /* of 128 values, of 32, of 16 */
        size_t half = group / 8, part = group % 8 / 2, first = group % 2 * 16;
        const unsigned char *low_bytes = low + half * 64 + part % 2 * 32 + first,
                            *high_bytes = high + half * 32 + first;
        unsigned low_shift = (unsigned)part / 2 * 4, high_shift = (unsigned)part * 2;
        float group_d = d * (float)(int8_t)scales[group];
        for (size_t i = 0; i < 16; i++)
            out[group * 16 + i] = group_d * (float)(((low_bytes[i] >> low_shift & 15) |
                                                     (high_bytes[i] >> high_shift & 3) << 4) -
                                                    32);
    }
}

/* d f16, two bytes of the scales' upper two bits, four of their lower four in halves side by side,
 * 128 bytes of halves: (d (scale - 32)) times one of the uneven values, for every 32 values. */
static void decode_iq4_xs(float *out, const unsigned char *block)
{
    float d = f16_at(block);
    for (size_t group = 0; group < 8; group++) {
        int low = block[4 + group / 2] >> group % 2 * 4 & 15,
            high = block[2 + group / 4] >> group % 4 * 2 & 3;
        float group_d = d * (float)((low | high << 4) - 32);
        for (size_t i = 0; i < 32; i++)
            out[group * 32 + i] = group_d * (float)uneven[half_byte(block + 8 + 16 * group, 16, i)];
    }
}

/* ------------------------------------------------------------------ the list */

static const gemma4_block_type types[] = {
    {0, "F32", 1, 4, GEMMA4_F32, decode_f32},
    {1, "F16", 1, 2, GEMMA4_F16, decode_f16},
    {30, "BF16", 1, 2, GEMMA4_BF16, decode_bf16},
    {2, "Q4_0", 32, 18, GEMMA4_QUANTISED, decode_q4_0},
    {3, "Q4_1", 32, 20, GEMMA4_QUANTISED, decode_q4_1},
    {6, "Q5_0", 32, 22, GEMMA4_QUANTISED, decode_q5_0},
    {7, "Q5_1", 32, 24, GEMMA4_QUANTISED, decode_q5_1},
    {8, "Q8_0", 32, 34, GEMMA4_QUANTISED, decode_q8_0},
    {10, "Q2_K", 256, 84, GEMMA4_QUANTISED, decode_q2_k},
    {11, "Q3_K", 256, 110, GEMMA4_QUANTISED, decode_q3_k},
    {12, "Q4_K", 256, 144, GEMMA4_QUANTISED, decode_q4_k},
    {13, "Q5_K", 256, 176, GEMMA4_QUANTISED, decode_q5_k},
    {14, "Q6_K", 256, 210, GEMMA4_QUANTISED, decode_q6_k},
    {20, "IQ4_NL", 32, 18, GEMMA4_QUANTISED, decode_iq4_nl},
    {23, "IQ4_XS", 256, 136, GEMMA4_QUANTISED, decode_iq4_xs},
    {39, "MXFP4", 32, 17, GEMMA4_QUANTISED, decode_mxfp4},
    {40, "NVFP4", 64, 36, GEMMA4_QUANTISED, decode_nvfp4},
};

const gemma4_block_type *gemma4_block_type_at(size_t index)
{
    return index < sizeof types / sizeof *types ? &types[index] : NULL;
}

const gemma4_block_type *gemma4_block_type_of(uint32_t id)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].id == id)
            return &types[i];
    return NULL;
}
