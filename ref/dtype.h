/* The types of values that weights are stored in. */
#ifndef GEMMA4_DTYPE_H
#define GEMMA4_DTYPE_H

/* GEMMA4_QUANTISED: of weights from GGUF files (ref/quantised.h). */
typedef enum gemma4_dtype {
    GEMMA4_BF16,
    GEMMA4_F16,
    GEMMA4_F32,
    GEMMA4_F64,
    GEMMA4_I32,
    GEMMA4_I64,
    GEMMA4_OTHER,
    GEMMA4_QUANTISED
} gemma4_dtype;

#endif
