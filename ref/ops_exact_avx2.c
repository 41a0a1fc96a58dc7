/* The scalar operators, to the bit, in AVX2, FMA and F16C. Only this file is compiled for them. */
#include "simd_exact_avx2.h"

#define EXACT(name) name##_exact_avx2
#include "ops_exact.h"
