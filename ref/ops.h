/* The operators of the forward pass, one by one (spec/model.md, "Operators"). T is a number of positions; every operator
 * works on T rows at once and gives each row the same bits whatever T is. Sums and transcendental functions are evaluated in
 * double and rounded once, when the result is stored. Outputs may not overlap inputs unless the comment says so. */
#ifndef GEMMA4_OPS_H
#define GEMMA4_OPS_H

#include "model.h"
#include "taps.h"

/* Element index (row-major) of a weight, as a number: bf16 and f16 are exact in float. */
float gemma4_weight_at(const gemma4_weight *w, size_t index);
/* Row `row` of w as floats: out is (cols). */
void gemma4_weight_row(float *out, const gemma4_weight *w, size_t row);
/* The view of `rows` rows of w from first_row on: one expert of a stack. */
gemma4_weight gemma4_weight_rows(const gemma4_weight *w, size_t first_row, size_t rows);

/* Sum of x[i] * w[i]. */
double gemma4_dot(const gemma4_real *x, const float *w, size_t n);
/* y = W x for each row: y is (T, rows), x is (T, cols), w is [rows, cols]. w_row is scratch for cols floats. */
void gemma4_matmul(gemma4_real *y, const gemma4_real *x, const gemma4_weight *w, size_t T, float *w_row);
/* y = x / sqrt(mean(x^2) + eps) * w for each of T rows of n; no weight where w is NULL. y may be x. */
void gemma4_rmsnorm(gemma4_real *y, const gemma4_real *x, const gemma4_weight *w, size_t T, size_t n, double eps);
/* Rotates, in place, the pairs (j, j + D/2) for j < pairs of each head: x is (T, heads, D), row t at position
 * first_position + t. The angle is rounded to float, as the published definition does (spec/model.md, "RoPE"). */
void gemma4_rope(gemma4_real *x, size_t T, size_t heads, size_t D, size_t pairs, double theta, size_t first_position);
/* y = exp(x) / sum(exp(x)) over n values. y may be x. */
void gemma4_softmax(gemma4_real *y, const gemma4_real *x, size_t n);
/* The tanh approximation of GELU. */
double gemma4_gelu_tanh(double x);
/* y = gelu_tanh(gate) * up over n values. y may be gate or up. */
void gemma4_geglu(gemma4_real *y, const gemma4_real *gate, const gemma4_real *up, size_t n);
/* ids is (k): the indices of the k largest of n values, largest first; of equals the lower index first. */
void gemma4_top_k(int32_t *ids, size_t k, const gemma4_real *values, size_t n);
/* cap * tanh(x / cap), in place, over n values. */
void gemma4_softcap(gemma4_real *x, size_t n, double cap);

#endif
