/* Several runs of a block as one chunk of the session: run after run, T rows each. Each weight is
 * read and widened once for all of them, which is what most of a check's time goes into. All
 * operators but attention and RoPE treat rows one by one, to the same bits however many there are;
 * those two are given each run's rows by themselves. */
#include "block_run_internal.h"

#include <stdlib.h>
#include <string.h>

#include "remembered.h"

enum {
    MOST_BYTES = 1 << 30, /* of a batch's tensors, about; a batch is one run at least */
    THREADED = 1 << 18    /* values, or products, from which on threads pay */
};

typedef struct batch {
    gemma4_runner *runner;
    size_t count, T;
    running *runs;
    gemma4_block_run *wanted; /* [count] with memory for what a run keeps, wanted or not: */
    real *logits;             /* [count, T, E] of the router */
    int32_t *ids;             /* [count, T, K] */
    gemma4_error *error;
    bool failed; /* a hook has, within attention, which cannot say so */
} batch;

/* Operators have no context: the batch that runs on this thread. */
static _Thread_local batch *current;

/* ------------------------------------------------------------------ events */

/* The event of run i's own rows. */
static int show_to(batch *b, size_t i, const gemma4_tap_event *e, gemma4_error *error)
{
    size_t width = e->dims[0] * e->dims[1];
    gemma4_tap_event own = *e;
    own.rows = b->T;
    if (e->values)
        own.values = e->values + i * b->T * width;
    if (e->ids)
        own.ids = e->ids + i * b->T * width;
    return block_run_hook(&b->runs[i], &own, error);
}

/* The first run sees every event first: the others are compared with it. These are independent of
 * each other, but where they list log-probabilities in the runner's memory. */
static int hook(void *context, gemma4_tap_event *e, gemma4_error *error)
{
    batch *b = context;
    bool listed = e->tap == GEMMA4_TAP_LOGITS && b->runner->subject->listed;
    bool large = e->rows * e->dims[0] * e->dims[1] >= THREADED && !listed;
    int failures = 0;
    if (b->failed || show_to(b, 0, e, error))
        return -1;
    (void)large;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic) reduction(+ : failures) if (large)
#endif
    for (size_t i = 1; i < b->count; i++) {
        gemma4_error own;
        failures += show_to(b, i, e, &own) != 0;
    }
    return failures ? gemma4_fail(error, "replay: out of memory") : 0;
}

static int show_keys(batch *b, size_t i, gemma4_tap tap, size_t t, gemma4_visible visible, size_t H,
                     real *values)
{
    gemma4_error error;
    gemma4_tap_event e = {.tap = tap,
                          .layer = b->runs[i].layer,
                          .row = t,
                          .rows = 1,
                          .rank = 2,
                          .values = values,
                          .first_key = visible.first,
                          .dims = {H, visible.end - visible.first}};
    return block_run_hook(&b->runs[i], &e, &error);
}

/* --------------------------------------------------------------- operators */

static GEMMA4_ROPE(rope)
{
    size_t own = T / current->count;
    for (size_t i = 0; i < current->count; i++)
        current->runner->exact.rope(x + i * own * heads * D, own, heads, D, pairs, theta,
                                    first_position);
}

/* As ref/forward.c's, of run i: scores, probabilities and context of a position after the other,
 * shown on the way. */
static int attend(batch *b, size_t i, real *context, const real *q, const gemma4_keys *keys,
                  size_t H)
{
    const gemma4_ops *exact = &b->runner->exact;
    size_t q_width = H * keys->D;
    real *probs = malloc(b->T * H * sizeof *probs); /* (H, keys) */
    int status = probs ? 0 : -1;
    for (size_t t = 0; t < b->T && !status; t++) {
        gemma4_visible visible = gemma4_visible_through(keys->window, keys->past + t);
        size_t n = visible.end - visible.first;
        exact->scores(probs, q + t * q_width, keys, t, H);
        status = show_keys(b, i, GEMMA4_TAP_ATTN_SCORES, t, visible, H, probs);
        for (size_t h = 0; h < H; h++)
            gemma4_softmax(probs + h * n, probs + h * n, n);
        status = status || show_keys(b, i, GEMMA4_TAP_ATTN_PROBS, t, visible, H, probs) ? -1 : 0;
        exact->context(context + t * q_width, probs, keys, t, H);
    }
    free(probs);
    return status;
}

/* The first run, then the others, which are compared with it. */
static GEMMA4_ATTENTION(attention)
{
    batch *b = current;
    size_t own = T / b->count, q_size = own * H * keys->D, k_size = own * keys->G * keys->D;
    bool large = own * q_size * b->count >= THREADED;
    int failures = attend(b, 0, context, q, keys, H) != 0;
    (void)large;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic) reduction(+ : failures) if (large)
#endif
    for (size_t i = 1; i < b->count; i++) {
        gemma4_keys of_run = *keys;
        of_run.chunk_k += i * k_size;
        of_run.chunk_v += i * k_size;
        failures += attend(b, i, context + i * q_size, q + i * q_size, &of_run, H) != 0;
    }
    if (failures) {
        b->failed = true;
        gemma4_fail(b->error, "replay: out of memory");
    }
}

/* --------------------------------------------------------------------- run */

static void free_batch(batch *b)
{
    free(b->runs);
    free(b->wanted);
    free(b->logits);
    free(b->ids);
}

static int new_batch(batch *b, const gemma4_block_run *runs, const real *h, gemma4_error *error)
{
    const gemma4_config *c = &b->runner->subject->model->config;
    size_t E = c->num_experts, K = c->top_k_experts;
    b->runs = calloc(b->count, sizeof *b->runs);
    b->wanted = calloc(b->count, sizeof *b->wanted);
    b->logits = calloc(b->count * b->T * E, sizeof *b->logits);
    b->ids = calloc(b->count * b->T * K, sizeof *b->ids);
    if (!b->runs || !b->wanted || !b->logits || !b->ids)
        return gemma4_fail(error, "replay: out of memory");
    for (size_t i = 0; i < b->count; i++) {
        gemma4_block_run *w = &b->wanted[i];
        *w = runs[i];
        if (!w->values[GEMMA4_TAP_ROUTER_LOGITS])
            w->values[GEMMA4_TAP_ROUTER_LOGITS] = b->logits + i * b->T * E;
        if (!w->chosen)
            w->chosen = b->ids + i * b->T * K;
        if (block_run_begin(&b->runs[i], b->runner, w, h + i * b->T * c->hidden_size, error))
            return -1;
    }
    return 0;
}

static int run_together(gemma4_runner *runner, const gemma4_block_run *runs, size_t count, real *h,
                        gemma4_error *error)
{
    const gemma4_config *c = &runner->subject->model->config;
    batch b = {.runner = runner, .count = count, .T = runner->subject->T, .error = error};
    gemma4_ops ops = runner->exact;
    ops.rope = rope;
    ops.attention = attention;
    int status = new_batch(&b, runs, h, error);
    if (!status) {
        gemma4_session_set_hook(runner->session, hook, &b);
        gemma4_session_set_ops(runner->session, &ops);
        gemma4_session_show_probs(runner->session, false); /* attention does */
        gemma4_remembered *before = gemma4_remember_in(runner->memory);
        size_t apart = gemma4_remember_apart(b.T);
        current = &b;
        status =
            gemma4_block_is_layer(c, runs->block)
                ? gemma4_forward_layer(runner->session, (size_t)runs->block, count * b.T, h, error)
                : gemma4_forward_head(runner->session, count * b.T, count * b.T, h, NULL, error);
        current = NULL;
        gemma4_remember_apart(apart);
        gemma4_remember_in(before);
    }
    free_batch(&b);
    return status || b.failed ? -1 : 0;
}

/* How many runs fit into memory at once. */
static size_t most_together(const gemma4_config *c, gemma4_block block, size_t T)
{
    size_t row = c->vocab_size;
    if (gemma4_block_is_layer(c, block)) {
        const gemma4_layer_config *lc = &c->layers[block];
        size_t heads = c->num_attention_heads + lc->num_key_value_heads;
        row = 8 * c->hidden_size + 2 * heads * lc->head_dim + 2 * c->intermediate_size +
              2 * c->top_k_experts * c->moe_intermediate_size;
    }
    size_t most = MOST_BYTES / (row * T * sizeof(real));
    return most ? most : 1;
}

int gemma4_run_block_batch(gemma4_runner *runner, const gemma4_block_run *runs, size_t count,
                           real *h, gemma4_error *error)
{
    const gemma4_subject *s = runner->subject;
    const gemma4_config *c = &s->model->config;
    /* The embedding has no product; mistakes are made from tensors that a runner has once. */
    bool alone = runs->block < 0 || s->known;
    size_t most = alone ? 1 : most_together(c, runs->block, s->T);
    for (size_t i = 0; i < count; i += most) {
        size_t n = count - i < most ? count - i : most;
        real *own = h + i * s->T * c->hidden_size;
        if (n == 1 ? gemma4_run_block(runner, &runs[i], own, error)
                   : run_together(runner, &runs[i], n, own, error))
            return -1;
    }
    return 0;
}
