/* The operators in AVX2, FMA and F16C. Only this file is compiled for them. */
#include "simd_avx2.h"

#define TWIN(name) name##_avx2
#include "ops_simd.h"
