/* The scalar operators, to the bit, in NEON. */
#include "simd_exact_neon.h"

#define EXACT(name) name##_exact_neon
#include "ops_exact.h"
