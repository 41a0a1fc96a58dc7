/* The element types of activation files, to float and back. Done by hand and not by HDF5, so that
 * safetensors and HDF5 agree and every conversion rounds once, to nearest, ties to even. */
#include "activations_internal.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define ELEMENT_INFO(id, name, size, real) [GEMMA4_ELEMENT_##id] = {name, size, real},
static const gemma4_element_info elements_table[GEMMA4_ELEMENT_COUNT] = {
    [GEMMA4_ELEMENT_NONE] = {"unknown", 0, false}, GEMMA4_ELEMENTS(ELEMENT_INFO)};
#undef ELEMENT_INFO

const gemma4_element_info *gemma4_element_describe(gemma4_element element)
{
    assert(element < GEMMA4_ELEMENT_COUNT);
    return &elements_table[element];
}

gemma4_element gemma4_element_named(const char *name)
{
    for (int i = GEMMA4_ELEMENT_NONE + 1; i < GEMMA4_ELEMENT_COUNT; i++)
        if (strcmp(elements_table[i].name, name) == 0)
            return (gemma4_element)i;
    return GEMMA4_ELEMENT_NONE;
}

bool gemma4_size_product(size_t a, size_t b, size_t *product)
{
    if (b != 0 && a > SIZE_MAX / b)
        return false;
    *product = a * b;
    return true;
}

/* The axes after the last one that is cut lie together: they are copied at once. */
void gemma4_copy_block(const void *tensor, size_t size, size_t rank, const size_t *shape,
                       const size_t *start, const size_t *extent, void *elements)
{
    size_t inner = size, axis = rank;
    while (axis > 0 && extent[axis - 1] == shape[axis - 1])
        inner *= shape[--axis];
    if (axis == 0) {
        memcpy(elements, tensor, inner);
        return;
    }
    size_t copied = inner * extent[axis - 1], skipped = inner * shape[axis - 1], blocks = 1,
           from = 0;
    for (size_t i = 0; i + 1 < axis; i++)
        blocks *= extent[i];
    for (size_t block = 0; block < blocks; block++) {
        size_t rest = block, stride = skipped;
        from = start[axis - 1] * inner;
        for (size_t i = axis - 1; i-- > 0;) {
            from += (start[i] + rest % extent[i]) * stride;
            rest /= extent[i];
            stride *= shape[i];
        }
        memcpy((char *)elements + block * copied, (const char *)tensor + from, copied);
    }
}

static float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Every float16 is a float: 1-5-10 bits with bias 15 become 1-8-23 bits with bias 127. */
static float float_of_f16(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = (half >> 10) & 31, mantissa = half & 0x3ff;
    if (exponent == 31)
        return float_of_bits(sign | 0x7f800000 | mantissa << 13);
    if (exponent == 0) {
        float magnitude = ldexpf((float)mantissa, -24);
        return sign ? -magnitude : magnitude;
    }
    return float_of_bits(sign | (exponent + 127 - 15) << 23 | mantissa << 13);
}

void gemma4_element_to_float(gemma4_element element, const void *elements, size_t count,
                             float *values)
{
    const uint16_t *halves = elements;
    switch (element) {
    case GEMMA4_ELEMENT_F16:
        for (size_t i = 0; i < count; i++)
            values[i] = float_of_f16(halves[i]);
        break;
    case GEMMA4_ELEMENT_BF16:
        for (size_t i = 0; i < count; i++)
            values[i] = float_of_bits((uint32_t)halves[i] << 16);
        break;
    case GEMMA4_ELEMENT_F32: memcpy(values, elements, count * sizeof *values); break;
    case GEMMA4_ELEMENT_F64:
        for (size_t i = 0; i < count; i++)
            values[i] = (float)((const double *)elements)[i];
        break;
    default: assert(!"a real element");
    }
}

int64_t gemma4_element_to_int(gemma4_element element, const void *elements, size_t index)
{
    switch (element) {
    case GEMMA4_ELEMENT_I8: return ((const int8_t *)elements)[index];
    case GEMMA4_ELEMENT_U8: return ((const uint8_t *)elements)[index];
    case GEMMA4_ELEMENT_I16: return ((const int16_t *)elements)[index];
    case GEMMA4_ELEMENT_U16: return ((const uint16_t *)elements)[index];
    case GEMMA4_ELEMENT_I32: return ((const int32_t *)elements)[index];
    case GEMMA4_ELEMENT_U32: return ((const uint32_t *)elements)[index];
    case GEMMA4_ELEMENT_I64: return ((const int64_t *)elements)[index];
    case GEMMA4_ELEMENT_U64: {
        uint64_t value = ((const uint64_t *)elements)[index];
        return value > INT64_MAX ? INT64_MAX : (int64_t)value;
    }
    default: assert(!"an integer element"); return INT64_MAX;
    }
}

/* value as sign, exponent and mantissa_bits in 16 bits. It is counted in steps of the format's
 * spacing at its magnitude, and the step count rounded: subnormals, the carry into the next
 * exponent and the overflow to infinity all come out of the same addition. */
static uint16_t round_to_16_bits(double value, int mantissa_bits, int bias)
{
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    uint32_t infinity = 0x7fffu >> mantissa_bits << mantissa_bits;
    if (isnan(value))
        return (uint16_t)(sign | infinity | 1u << (mantissa_bits - 1));
    if (isinf(value))
        return (uint16_t)(sign | infinity);

    int exponent; /* |value| is in [2^(exponent-1), 2^exponent) */
    double magnitude = fabs(value);
    frexp(magnitude, &exponent);
    int smallest_normal = 1 - bias;
    int floor_log2 =
        magnitude == 0 || exponent - 1 < smallest_normal ? smallest_normal : exponent - 1;
    uint32_t steps = (uint32_t)nearbyint(ldexp(magnitude, mantissa_bits - floor_log2));
    uint32_t bits = ((uint32_t)(floor_log2 - smallest_normal) << mantissa_bits) + steps;
    return (uint16_t)(sign | (bits < infinity ? bits : infinity));
}

void gemma4_element_from_real(gemma4_element element, const gemma4_real *values, size_t count,
                              void *elements)
{
    uint16_t *halves = elements;
    switch (element) {
    case GEMMA4_ELEMENT_F16:
        for (size_t i = 0; i < count; i++)
            halves[i] = round_to_16_bits((double)values[i], 10, 15);
        break;
    case GEMMA4_ELEMENT_BF16:
        for (size_t i = 0; i < count; i++)
            halves[i] = round_to_16_bits((double)values[i], 7, 127);
        break;
    case GEMMA4_ELEMENT_F32:
        for (size_t i = 0; i < count; i++)
            ((float *)elements)[i] = (float)values[i];
        break;
    case GEMMA4_ELEMENT_F64:
        for (size_t i = 0; i < count; i++)
            ((double *)elements)[i] = (double)values[i];
        break;
    default: assert(!"a real element");
    }
}
