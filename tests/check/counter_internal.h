/* What the files that compute a counter-model's steps share: counter_model.c (the dispatch, the
 * residual stream, the head), counter_norms.c (norms, RoPE, V), counter_attention.c and
 * counter_experts.c (dense MLP, router, experts). */
#ifndef GEMMA4_COUNTER_INTERNAL_H
#define GEMMA4_COUNTER_INTERNAL_H

#include "counter_model.h"

/* One step at work: what gemma4_counter_step was given, and what follows from it. */
typedef struct counter {
    const gemma4_step *step;
    const gemma4_parameters *p;
    const gemma4_config *c;
    const gemma4_layer_config *lc; /* NULL for the embedding and the head */
    const gemma4_layer_weights *w; /* NULL likewise */
    gemma4_tap tap;
    size_t T, d;
    gemma4_error *error;
} counter;

/* A tensor that the step reads; NULL with the error's message filled where it is missing. */
const gemma4_real *counter_value(const counter *m, gemma4_tap tap);
/* n * width zeroed elements, to be freed; NULL with the error's message filled where memory runs
 * out. */
void *counter_memory(const counter *m, size_t n, size_t width, size_t size);

/* The chunk that position t was fed in: positions [start, end) of the case. */
typedef struct counter_chunk {
    size_t start, end;
} counter_chunk;
counter_chunk counter_chunk_of(const counter *m, size_t t);

/* A layer of the other kind: the first one; m->lc itself where there is none. */
const gemma4_layer_config *counter_other_kind(const counter *m);

/* The setting of a parameter that holds at this step; NULL where it has its right value. */
const gemma4_setting *counter_setting(const counter *m, gemma4_parameter parameter);
/* Does any setting hold at this step? */
bool counter_has_changes(const counter *m);
/* The step with its weights, inputs and result changed as the settings say; and without such
 * changes. */
int counter_changed_step(counter *m, int32_t *ids, gemma4_real *out);
int counter_plain_step(const counter *m, int32_t *ids, gemma4_real *out);

/* The nearest number of `bits` significant bits that is a multiple of 2^smallest; ties to even. */
double counter_rounded(double x, int bits, int smallest);
/* The nearest bf16 and float16; beyond the largest, infinity. */
double counter_bf16(double x);
double counter_f16(double x);

/* sums[i] = sum of x_i[k] * w_i[k] over k < n, accumulated as the step's settings say, for i <
 * count: x_i begins at x + i * x_step, w_i at w + i * w_step. */
void counter_dots(const counter *m, double *sums, size_t count, const gemma4_real *x, size_t x_step,
                  const float *w, size_t w_step, size_t n);

/* y = W x of any x, (rows, cols): to the scalar's bits. */
int counter_matmul(const counter *m, gemma4_real *y, const gemma4_real *x, const gemma4_weight *w,
                   size_t rows);

/* The steps. out is the tap's tensor; each returns 0, or -1 with the error's message filled. */
/* x may be out */
int counter_norm(const counter *m, gemma4_norm norm, const gemma4_real *x, size_t heads, size_t n,
                 gemma4_real *out);
int counter_v_norm(const counter *m, gemma4_real *out);
int counter_rope(const counter *m, gemma4_real *out);
int counter_attention(const counter *m, gemma4_real *out);
int counter_mlp(const counter *m, gemma4_real *out);
int counter_router(const counter *m, gemma4_real *out);
int counter_top_k(const counter *m, int32_t *ids);
int counter_experts(const counter *m, gemma4_real *out);

#endif
