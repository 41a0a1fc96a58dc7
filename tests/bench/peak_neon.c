/* The benchmark's yardsticks in NEON. */
#include "simd_neon.h"

#define TWIN(name) name##_neon
#include "peak_simd.h"
