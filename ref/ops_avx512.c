/* The operators in AVX-512 (F, BW, DQ, VL). Only this file is compiled for them. */
#include "simd_avx512.h"

#define TWIN(name) name##_avx512
#include "ops_simd.h"
