/* The operators in NEON, for AArch64. Only this file is compiled for them. */
#include "simd_neon.h"

#define TWIN(name) name##_neon
#include "ops_simd.h"
