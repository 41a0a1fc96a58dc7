/* The benchmark's yardsticks in AVX-512. */
#include "simd_avx512.h"

#define TWIN(name) name##_avx512
#include "peak_simd.h"
