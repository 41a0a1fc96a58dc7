/* Sessions: what is allocated, checked and freed around the forward pass. There is no arithmetic in
 * this file. */
#include "session_internal.h"

#include <stdlib.h>
#include <string.h>

/* ----------------------------------------------------------------- memory */

/* n * width elements of size bytes: do they fit into a size_t? */
static bool count_bytes(size_t n, size_t width, size_t size, size_t *bytes)
{
    return !__builtin_mul_overflow(n, width, bytes) && !__builtin_mul_overflow(*bytes, size, bytes);
}

void *gemma4_zeroed(size_t n, size_t width, size_t size, int *ok)
{
    size_t bytes;
    void *memory = NULL;
    if (*ok && count_bytes(n, width, size, &bytes))
        memory = calloc(bytes ? bytes : 1, 1);
    *ok = memory != NULL;
    return memory;
}

void *gemma4_array(size_t n, size_t width, size_t size, int *ok)
{
    size_t bytes;
    void *memory = NULL;
    if (*ok && count_bytes(n, width, size, &bytes))
        memory = malloc(bytes ? bytes : 1);
    *ok = memory != NULL;
    return memory;
}

float *gemma4_scratch_for(const gemma4_session *s, size_t cols, size_t T, size_t K, int *ok)
{
    size_t bytes;
    float *scratch = NULL;
    if (*ok && !__builtin_mul_overflow(s->ops.scratch(cols, T, K), sizeof *scratch, &bytes))
        scratch = malloc(bytes);
    *ok = scratch != NULL;
    return scratch;
}

static size_t max(size_t a, size_t b)
{
    return a > b ? a : b;
}

void gemma4_layer_memory_free(activations *a)
{
    void *all[] = {a->x,
                   a->q,
                   a->k,
                   a->v,
                   a->probs,
                   a->context,
                   a->attn,
                   a->gate,
                   a->up,
                   a->mlp,
                   a->router,
                   a->logits,
                   a->router_probs,
                   a->expert_ids,
                   a->expert_weights,
                   a->expert_act,
                   a->moe,
                   a->scratch};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

int gemma4_layer_memory_new(activations *a, const gemma4_session *s, size_t layer, size_t T,
                            gemma4_error *error)
{
    const gemma4_config *c = &s->model->config;
    size_t d = c->hidden_size, F = c->intermediate_size;
    size_t E = c->num_experts, K = c->top_k_experts, M = c->moe_intermediate_size;
    size_t q_width = c->num_attention_heads * c->layers[layer].head_dim;
    size_t kv_width = c->layers[layer].num_key_value_heads * c->layers[layer].head_dim;
    int ok = 1;
    memset(a, 0, sizeof *a);
    a->x = gemma4_array(T, d, sizeof(real), &ok);
    a->q = gemma4_array(T, q_width, sizeof(real), &ok);
    a->k = gemma4_array(T, kv_width, sizeof(real), &ok);
    a->v = gemma4_array(T, kv_width, sizeof(real), &ok);
    a->probs = gemma4_array(s->length + T, c->num_attention_heads, sizeof(real), &ok);
    a->context = gemma4_array(T, q_width, sizeof(real), &ok);
    a->attn = gemma4_array(T, d, sizeof(real), &ok);
    a->gate = gemma4_array(T, F, sizeof(real), &ok);
    a->up = gemma4_array(T, F, sizeof(real), &ok);
    a->mlp = gemma4_array(T, d, sizeof(real), &ok);
    a->router = gemma4_array(T, d, sizeof(real), &ok);
    a->logits = gemma4_array(T, E, sizeof(real), &ok);
    a->router_probs = gemma4_array(T, E, sizeof(real), &ok);
    a->expert_ids = gemma4_array(T, K, sizeof(int32_t), &ok);
    a->expert_weights = gemma4_array(T, K, sizeof(real), &ok);
    a->expert_act = gemma4_array(T, K * M, sizeof(real), &ok);
    a->moe = gemma4_array(T, d, sizeof(real), &ok);
    a->scratch = gemma4_scratch_for(s, max(max(d, q_width), max(F, M)), T, K, &ok);
    if (!ok) {
        gemma4_layer_memory_free(a);
        return gemma4_fail(error, "chunk of %zu positions: out of memory", T);
    }
    return 0;
}

int gemma4_check_chunk(const gemma4_session *s, const int32_t *tokens, size_t T,
                       gemma4_error *error)
{
    size_t V = s->model->config.vocab_size;
    /* A hook that failed has left half a layer in the cache. */
    if (s->failed)
        return gemma4_fail(error, "session: not usable after an earlier failure");
    if (T == 0 || T > s->capacity - s->length)
        return gemma4_fail(error,
                           "chunk: expected 1 to %zu tokens (%zu of %zu positions are taken), "
                           "found %zu",
                           s->capacity - s->length, s->length, s->capacity, T);
    for (size_t t = 0; t < T; t++)
        if (tokens[t] < 0 || (size_t)tokens[t] >= V)
            return gemma4_fail(error,
                               "token %zu: expected an id below the vocabulary's %zu, found %d",
                               s->length + t, V, tokens[t]);
    return 0;
}

/* --------------------------------------------------------------- sessions */

gemma4_session *gemma4_session_new(const gemma4_model *model, size_t first_position,
                                   size_t capacity, gemma4_error *error)
{
    const gemma4_config *c = &model->config;
    if (capacity == 0 || capacity > c->max_position_embeddings ||
        first_position > c->max_position_embeddings - capacity) {
        gemma4_fail(error,
                    "positions: expected a range within 0 ... %zu, found %zu positions from %zu on",
                    c->max_position_embeddings - 1, capacity, first_position);
        return NULL;
    }
    int ok = 1;
    gemma4_session *s = gemma4_zeroed(1, 1, sizeof *s, &ok);
    kv_cache *caches = gemma4_zeroed(c->num_hidden_layers, 1, sizeof *caches, &ok);
    for (size_t l = 0; l < c->num_hidden_layers && ok; l++) {
        const gemma4_layer_config *lc = &c->layers[l];
        size_t window = gemma4_layer_window(c, l);
        /* 5: a sliding layer never needs more than its window. */
        caches[l].slots = window < capacity ? window : capacity;
        size_t width = lc->num_key_value_heads * lc->head_dim;
        caches[l].k = gemma4_zeroed(caches[l].slots, width, sizeof(real), &ok);
        caches[l].v = gemma4_zeroed(caches[l].slots, width, sizeof(real), &ok);
    }
    /* A session begins with the scalar operators: they are the reference. */
    if (s) {
        s->model = model;
        s->first_position = first_position;
        s->capacity = capacity;
        s->caches = caches;
        s->ops = gemma4_ops_for(GEMMA4_CPU_SCALAR);
    }
    if (!ok) {
        gemma4_session_free(s);
        gemma4_fail(error, "KV cache for %zu positions: out of memory", capacity);
        return NULL;
    }
    return s;
}

void gemma4_session_free(gemma4_session *session)
{
    if (!session)
        return;
    for (size_t l = 0; session->caches && l < session->model->config.num_hidden_layers; l++) {
        free(session->caches[l].k);
        free(session->caches[l].v);
    }
    free(session->caches);
    free(session);
}

void gemma4_session_set_hook(gemma4_session *session, gemma4_tap_hook hook, void *context)
{
    session->hook = hook;
    session->hook_context = context;
}

void gemma4_session_set_ops(gemma4_session *session, const gemma4_ops *ops)
{
    session->ops = ops ? *ops : gemma4_ops_for(GEMMA4_CPU_SCALAR);
}

void gemma4_session_show_probs(gemma4_session *session, bool show)
{
    session->hide_probs = !show;
}

size_t gemma4_session_length(const gemma4_session *session)
{
    return session->length;
}
