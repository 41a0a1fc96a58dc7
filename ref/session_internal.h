/* What a session keeps between chunks, and a layer between its steps: for ref/forward.c, which
 * computes, and ref/session.c, which allocates. Shape letters as in ref/forward.c. */
#ifndef GEMMA4_SESSION_INTERNAL_H
#define GEMMA4_SESSION_INTERNAL_H

#include "forward.h"
#include "ops.h"

typedef gemma4_real real;

/* 5  Keys (after k_norm and RoPE) and values (after v_norm) of one layer's past. Position i of
 * the session lies in slot i % slots. A full layer has a slot for every position; a sliding layer
 * needs the last `sliding_window` only.
 *
 * * Full layers could store the raw k_proj output alone and rebuild both (210 KiB per token in
 * bf16 at the published dimensions against 220). K and V are stored apart here: rebuilding costs
 * a norm and a rotation per key and step, and would hide the one thing that ports get wrong, that
 * V is taken before k_norm and never rotated. */
typedef struct kv_cache {
    size_t slots;
    real *k, *v; /* (slots, G, D) */
} kv_cache;

struct gemma4_session {
    const gemma4_model *model;
    size_t first_position; /* absolute position of the session's position 0 */
    size_t capacity;
    size_t length;        /* positions seen before the chunk at hand */
    kv_cache *caches;     /* one a layer */
    gemma4_ops ops;       /* the scalar ones, or their twins */
    gemma4_tap_hook hook; /* called after every step; NULL: nobody listens */
    void *hook_context;
    bool hide_probs;     /* from the hook */
    int failed;          /* a tap's hook has failed */
    gemma4_error *error; /* of the call at hand: where a failing hook leaves its message */
};

/* Everything that a layer needs between its steps, for one chunk of T positions. */
typedef struct activations {
    /* Residual stream h, (T, d), is not among them: it outlives the layer. */
    real *x;             /* (T, d) what a branch reads: the residual stream after its norm */
    real *q;             /* (T, H, D) queries: raw, then normed, then turned, all in place */
    real *k, *v;         /* (T, G, D) keys and values, likewise */
    real *probs;         /* (H, session length) scores, then probabilities, of one position */
    real *context;       /* (T, H, D) */
    real *attn;          /* (T, d) attention branch */
    real *gate, *up;     /* (T, F) the dense MLP's two projections; gate then holds their product */
    real *mlp;           /* (T, d) dense branch */
    real *router;        /* (T, d) what router.proj reads */
    real *logits;        /* (T, E) router logits */
    real *router_probs;  /* (T, E) softmax over all experts */
    int32_t *expert_ids; /* (T, K) the chosen ones, best first */
    real *expert_weights; /* (T, K) what each one's output is multiplied by, in the order of ids */
    real *expert_act;     /* (T, K, M) gelu_tanh(gate) * up of each chosen expert */
    real *moe;            /* (T, d) expert branch */
    float *scratch;       /* of the operators: one row of any weight matrix */
} activations;

/* n * width elements of a size, zeroed; *ok becomes 0 where that overflows or memory runs out. */
void *gemma4_zeroed(size_t n, size_t width, size_t size, int *ok);
/* The same, not cleared: for what is written before it is read. */
void *gemma4_array(size_t n, size_t width, size_t size, int *ok);
/* The operators' scratch memory for matrices of at most cols columns. Not cleared: a twin's is
 * megabytes. */
float *gemma4_scratch_for(const gemma4_session *s, size_t cols, size_t T, size_t K, int *ok);

/* Memory for a chunk of T positions in a layer. The widths are the layer's own: full layers have
 * other heads than sliding ones. */
int gemma4_layer_memory_new(activations *a, const gemma4_session *s, size_t layer, size_t T,
                            gemma4_error *error);
void gemma4_layer_memory_free(activations *a);

/* What a caller may get wrong, before anything is computed: tokens is (T). */
int gemma4_check_chunk(const gemma4_session *s, const int32_t *tokens, size_t T,
                       gemma4_error *error);

#endif
