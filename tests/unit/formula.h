/* Formulas over named tensors, as spec/walkthrough.md writes them: "attn.out[16,0:4] / sqrt(64)".
 *
 * A tensor is indexed along every axis: a number, "a:b" (b excluded) or ":" (all). What several are
 * left of is a list, in row-major order. + - * / and the functions sqrt, exp, cos, sin, tanh,
 * gelu_tanh and pow work value by value, and a single value goes with every one of a list; sum(x),
 * dot(x, y) and rms(x) = sqrt(mean(x^2) + eps) make one value of a list. */
#ifndef GEMMA4_TEST_FORMULA_H
#define GEMMA4_TEST_FORMULA_H

#include <stdbool.h>
#include <stddef.h>

/* A tensor that a formula names: row-major. */
typedef struct formula_tensor {
    size_t rank, shape[8];
    const float *values;
} formula_tensor;

/* Sets the tensor of a name; false where there is none. */
typedef bool formula_find(void *context, const char *name, formula_tensor *tensor);

enum { FORMULA_PROBLEM = 256 };

/* Evaluates the formula, and returns how many values it has: at most room, written to values. 0
 * where it is none: problem then says what is wrong, and where. */
size_t test_formula(const char *text, double eps, formula_find *find, void *context, double *values,
                    size_t room, char problem[FORMULA_PROBLEM]);

#endif
