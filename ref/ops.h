/* The operators of the forward pass, one by one (spec/model.md, "Operators"). T is a number of
 * positions; every operator works on T rows at once and gives each row the same bits whatever T is.
 * Sums and transcendental functions are evaluated in double and rounded once, when the result is
 * stored. Outputs may not overlap inputs unless the comment says so.
 *
 * The few that take the time have SIMD twins (spec/twins.md): the same prototype, a suffix that
 * names the instruction set, results within a derived bound of the scalar's. A table of function
 * pointers, gemma4_ops, says which ones a session uses. */
#ifndef GEMMA4_OPS_H
#define GEMMA4_OPS_H

#include "forward.h" /* gemma4_ops */
#include "model.h"
#include "taps.h"

/* Element index (row-major) of a weight, as a number: bf16 and f16 are exact in float. */
float gemma4_weight_at(const gemma4_weight *w, size_t index);
/* Row `row` of w as floats: out is (cols). */
void gemma4_weight_row(float *out, const gemma4_weight *w, size_t row);
/* The view of `rows` rows of w from first_row on: one expert of a stack. Not of a quantised
 * weight. */
gemma4_weight gemma4_weight_rows(const gemma4_weight *w, size_t first_row, size_t rows);

/* Sum of x[i] * w[i]. */
double gemma4_dot(const gemma4_real *x, const float *w, size_t n);
/* y = exp(x) / sum(exp(x)) over n values. y may be x. */
void gemma4_softmax(gemma4_real *y, const gemma4_real *x, size_t n);
/* The tanh approximation of GELU. */
double gemma4_gelu_tanh(double x);
/* ids is (k): the indices of the k largest of n values, largest first; of equals the lower index
 * first. */
void gemma4_top_k(int32_t *ids, size_t k, const gemma4_real *values, size_t n);

/* --- the operators that have twins: each prototype is written once, as a macro of the function's
 * name --- */

/* How many floats of scratch the operators below need, for T positions and matrices of at most cols
 * columns. */
#define GEMMA4_SCRATCH(name) size_t(name)(size_t cols, size_t T, size_t K)
/* y = W x for each row: y is (T, rows), x is (T, cols), w is [rows, cols]. */
#define GEMMA4_MATMUL(name)                                                             \
    void(name)(gemma4_real * y, const gemma4_real *x, const gemma4_weight *w, size_t T, \
               float *scratch)
/* y = x / sqrt(mean(x^2) + eps) * w for each of T rows of n; no weight where w is NULL. y may be
 * x. */
#define GEMMA4_RMSNORM(name)                                                                      \
    void(name)(gemma4_real * y, const gemma4_real *x, const gemma4_weight *w, size_t T, size_t n, \
               double eps)
/* Rotates, in place, the pairs (j, j + D/2) for j < pairs of each head: x is (T, heads, D), row t
 * at position first_position + t. The angle is rounded to float, as the published definition does
 * (spec/model.md, "RoPE"). */
#define GEMMA4_ROPE(name)                                                                     \
    void(name)(gemma4_real * x, size_t T, size_t heads, size_t D, size_t pairs, double theta, \
               size_t first_position)
/* y = gelu_tanh(gate) * up over n values. y may be gate or up. */
#define GEMMA4_GEGLU(name) \
    void(name)(gemma4_real * y, const gemma4_real *gate, const gemma4_real *up, size_t n)
/* act = gelu_tanh(gate) * up for the chosen experts of each position, with [gate; up] =
 * gate_up_proj[e] x, M gate rows first. act is (T, K, M), x is (T, d), gate_up_proj is [E*2M, d],
 * ids is (T, K). */
#define GEMMA4_EXPERTS_ACT(name)                                                           \
    void(name)(gemma4_real * act, const gemma4_real *x, const gemma4_weight *gate_up_proj, \
               const int32_t *ids, size_t T, size_t K, size_t M, float *scratch)
/* y = sum over the chosen experts of weight * down_proj[e] act. y is (T, d), act is (T, K, M),
 * down_proj is [E*d, M], ids and weights are (T, K). */
#define GEMMA4_EXPERTS_OUT(name)                                                             \
    void(name)(gemma4_real * y, const gemma4_real *act, const gemma4_weight *down_proj,      \
               const int32_t *ids, const gemma4_real *weights, size_t T, size_t K, size_t d, \
               float *scratch)
/* cap * tanh(x / cap), in place, over n values. */
#define GEMMA4_SOFTCAP(name) void(name)(gemma4_real * x, size_t n, double cap)

/* The keys and values that a chunk's queries see. */
typedef struct gemma4_keys {
    size_t G, D; /* KV heads, head dim */
    size_t past; /* positions before the chunk: position i of them lies in
                                            slot i % slots of the cache */
    size_t slots;
    size_t window;                        /* gemma4_layer_window: gemma4_visible_through it says
                                            which keys a query sees */
    const gemma4_real *past_k, *past_v;   /* (slots, G, D) */
    const gemma4_real *chunk_k, *chunk_v; /* (T, G, D): of the positions past, past + 1, ... */
} gemma4_keys;
/* The key (or value) of KV head g at a position of the session: (D). */
static inline const gemma4_real *gemma4_key_row(const gemma4_keys *keys, size_t position, size_t g,
                                                bool value)
{
    /* A chunk's keys stand beside the cache until all its queries are done: a ring of
     * `sliding_window` slots would lose keys that its first queries still see. */
    const gemma4_real *past = value ? keys->past_v : keys->past_k,
                      *chunk = value ? keys->chunk_v : keys->chunk_k;
    return position >= keys->past ? chunk + ((position - keys->past) * keys->G + g) * keys->D
                                  : past + (position % keys->slots * keys->G + g) * keys->D;
}

/* scores[h, j] = q[h] . k[j] for row t of the chunk over the keys that it sees: scores is (H,
 * keys), q is (H, D). */
#define GEMMA4_SCORES(name)                                                                   \
    void(name)(gemma4_real * scores, const gemma4_real *q, const gemma4_keys *keys, size_t t, \
               size_t H)
/* context[h, i] = sum over j of probs[h, j] v[j, i] for row t of the chunk: context is (H, D),
 * probs is (H, keys). */
#define GEMMA4_CONTEXT(name)                                                                       \
    void(name)(gemma4_real * context, const gemma4_real *probs, const gemma4_keys *keys, size_t t, \
               size_t H)
/* context = softmax(q k^T) v for every query over the keys that it sees: context and q are (T, H,
 * D). No key outside a sliding layer's window is touched. */
#define GEMMA4_ATTENTION(name)                                                                 \
    void(name)(gemma4_real * context, const gemma4_real *q, const gemma4_keys *keys, size_t T, \
               size_t H)

/* Declares all of one instruction set: GEMMA4_OPS_DECLARE(_avx2) declares gemma4_matmul_avx2 and so
 * on. */
#define GEMMA4_OPS_DECLARE(suffix)                  \
    GEMMA4_SCRATCH(gemma4_scratch##suffix);         \
    GEMMA4_MATMUL(gemma4_matmul##suffix);           \
    GEMMA4_RMSNORM(gemma4_rmsnorm##suffix);         \
    GEMMA4_ROPE(gemma4_rope##suffix);               \
    GEMMA4_GEGLU(gemma4_geglu##suffix);             \
    GEMMA4_EXPERTS_ACT(gemma4_experts_act##suffix); \
    GEMMA4_EXPERTS_OUT(gemma4_experts_out##suffix); \
    GEMMA4_SOFTCAP(gemma4_softcap##suffix)
GEMMA4_OPS_DECLARE(); /* the scalar ones have no suffix: they are the reference */
GEMMA4_OPS_DECLARE(_avx2);
GEMMA4_OPS_DECLARE(_avx512);
GEMMA4_OPS_DECLARE(_neon);
GEMMA4_SCORES(gemma4_attention_scores);
GEMMA4_CONTEXT(gemma4_attention_context);
GEMMA4_ATTENTION(gemma4_attention_avx2);
GEMMA4_ATTENTION(gemma4_attention_avx512);
GEMMA4_ATTENTION(gemma4_attention_neon);

/* Those that give the scalar's bits: rope is the scalar's own. */
#define GEMMA4_EXACT_DECLARE(suffix)                \
    GEMMA4_SCRATCH(gemma4_scratch##suffix);         \
    GEMMA4_MATMUL(gemma4_matmul##suffix);           \
    GEMMA4_RMSNORM(gemma4_rmsnorm##suffix);         \
    GEMMA4_GEGLU(gemma4_geglu##suffix);             \
    GEMMA4_EXPERTS_ACT(gemma4_experts_act##suffix); \
    GEMMA4_EXPERTS_OUT(gemma4_experts_out##suffix); \
    GEMMA4_SOFTCAP(gemma4_softcap##suffix);         \
    GEMMA4_SCORES(gemma4_attention_scores##suffix); \
    GEMMA4_CONTEXT(gemma4_attention_context##suffix)
GEMMA4_EXACT_DECLARE(_exact_avx2);
GEMMA4_EXACT_DECLARE(_exact_neon);

struct gemma4_ops {
    const char *name; /* "scalar", "avx2", "avx512", "neon"; "exact_avx2", "exact_neon" */
    GEMMA4_SCRATCH(*scratch);
    GEMMA4_MATMUL(*matmul);
    GEMMA4_RMSNORM(*rmsnorm);
    GEMMA4_ROPE(*rope);
    GEMMA4_GEGLU(*geglu);
    GEMMA4_EXPERTS_ACT(*experts_act);
    GEMMA4_EXPERTS_OUT(*experts_out);
    GEMMA4_SOFTCAP(*softcap);
    GEMMA4_SCORES(*scores);       /* of the attention that shows scores and probabilities */
    GEMMA4_CONTEXT(*context);     /* (ref/forward.c) */
    GEMMA4_ATTENTION(*attention); /* one that does not; NULL in the scalar and the exact tables */
};

/* --- which instruction sets --- */

enum {
    GEMMA4_CPU_SCALAR = 0,
    GEMMA4_CPU_AVX2 = 1,
    GEMMA4_CPU_AVX512 = 2,
    GEMMA4_CPU_NEON = 4,
    GEMMA4_CPU_ALL = 7
};

/* What this build has a twin for, and processor and operating system allow. */
unsigned gemma4_cpu_detect(void);
/* From now on gemma4_cpu_detect finds nothing outside of the mask. Not while other threads run. */
void gemma4_cpu_limit(unsigned mask);
/* The operators for a mask of instruction sets, all of them detected: the best one of the mask
 * wins, slot by slot. */
gemma4_ops gemma4_ops_for(unsigned mask);
/* The operators that give the scalar's bits, whatever the machine: the fastest such ones for what
 * gemma4_cpu_detect finds, in the end the scalar ones themselves (spec/twins.md, "Exact
 * operators"). */
gemma4_ops gemma4_ops_exact(void);
/* "scalar", "avx2", "avx512", "neon" (each with those below it) or "auto" (all that was detected).
 * what names the option in the message. An unknown name, and an instruction set that this machine
 * lacks, are errors. */
int gemma4_cpu_parse(const char *text, const char *what, unsigned *mask, gemma4_error *error);
/* How many threads the twins of the calling thread use from now on; at first, as many as OpenMP
 * says. Without OpenMP there is one. Returns how many it were before. */
int gemma4_use_threads(int threads);
/* For programs that run twins: memory that the forward pass frees after a layer stays in the
 * process for the next one. Fresh pages from the system cost 5 % of a prefill. */
void gemma4_keep_memory(void);

#endif
