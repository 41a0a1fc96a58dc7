/* The benchmark's yardsticks in AVX2 and FMA. */
#include "simd_avx2.h"

#define TWIN(name) name##_avx2
#include "peak_simd.h"
