/* The forward pass of Gemma 4 26B-A4B, written to be read beside spec/model.md: "4.2" in a comment
 * is the section of that page where the step is defined.
 *
 * The model itself is decoder_layer: read it first. Before it come the steps that take more than a
 * line, after it the head and the loop over the layers. The operators (3), which know nothing of
 * the model, are in ref/ops_scalar.c; what a session remembers, and the memory of every tensor here
 * with its shape, in ref/session_internal.h. After every step a tap shows the result to whoever
 * listens (ref/taps.h): the names of the taps are the index into this file.
 *
 * Shape letters, here and in all comments: T positions of the chunk at hand, d hidden size, H query
 * heads, G KV heads and D head dim of the layer, F dense width, E experts, K experts per token, M
 * expert width, V vocabulary. (T, H, D) is row-major: element (t, h, i) is at (t * H + h) * D + i.
 *
 * An activation is a float32; every sum and every transcendental function is evaluated in double
 * and rounded once, when it is stored (spec/numerics.md). */
#include "session_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------- taps */

/* Shows the chunk's rows [first_row, first_row + rows) of a tensor to the hook. A hook that fails
 * stops the forward pass at the end of the layer. */
static void tap_rows(gemma4_session *s, gemma4_tap id, size_t layer, size_t first_row, size_t rows,
                     real *values, int32_t *ids)
{
    if (!s->hook || s->failed)
        return;
    gemma4_tap_event event = {.tap = id,
                              .layer = layer,
                              .row = s->length + first_row,
                              .rows = rows,
                              .values = values,
                              .ids = ids};
    event.dims[1] = 1;
    event.rank = gemma4_tap_dims(&s->model->config, id, layer, 0, event.dims);
    s->failed = s->hook(s->hook_context, &event, s->error) != 0;
}

/* Shows all T rows: values is (T, ...). In a debugger, `break tap if layer == 5` stops after every
 * step of that layer; ref/gdb/gemma4.py has commands that know more (README.md). */
static void tap(gemma4_session *s, gemma4_tap id, size_t layer, size_t T, real *values)
{
    tap_rows(s, id, layer, 0, T, values, NULL);
}

/* Scores and probabilities are shown a query position at a time, since all of them together would
 * take T^2 H values: values is (H, keys), its first key is first_key. */
static void tap_keys(gemma4_session *s, gemma4_tap id, size_t layer, size_t t, size_t first_key,
                     size_t keys, real *values)
{
    if (!s->hook || s->failed || s->hide_probs)
        return;
    gemma4_tap_event event = {.tap = id,
                              .layer = layer,
                              .row = s->length + t,
                              .rows = 1,
                              .rank = 2,
                              .values = values,
                              .first_key = first_key,
                              .dims = {s->model->config.num_attention_heads, keys}};
    s->failed = s->hook(s->hook_context, &event, s->error) != 0;
}

/* -------------------------------------------------- steps (spec/model.md, 4) */

/* y = a + b over n values; y may be either of them. */
static void add(real *y, const real *a, const real *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = a[i] + b[i];
}

/* 4.1  h = E[token] * sqrt(d): h is (T, d), tokens is (T), E is [V, d]. The same table is the
 * LM head at the other end (4.7), where it is not scaled. */
static void embed(real *h, const int32_t *tokens, size_t T, const gemma4_weight *embed_tokens)
{
    size_t d = embed_tokens->cols;
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < d; i++) {
            size_t element = (size_t)tokens[t] * d + i;
            double value = (double)gemma4_weight_at(embed_tokens, element);
            h[t * d + i] = (real)(value * sqrt((double)d));
        }
}

/* 4.2  The mask: whatever must know which keys a query sees asks here. Five of six layers look
 * back only `sliding_window` positions, which keeps their cache and their work small; the sixth
 * sees all. */
size_t gemma4_layer_window(const gemma4_config *config, size_t layer)
{
    return config->layers[layer].kind == GEMMA4_SLIDING ? config->sliding_window : SIZE_MAX;
}

gemma4_visible gemma4_visible_keys(const gemma4_config *config, size_t layer, size_t query)
{
    return gemma4_visible_through(gemma4_layer_window(config, layer), query);
}

/* 4.2  context = softmax(q k^T + mask) v for every query of the chunk: a->context and a->q are
 * (T, H, D), a->k and a->v are (T, G, D). Each query head asks every key that it sees how well it
 * matches, and takes the average of their values, weighted by the answers. The attention scale is
 * 1.0: q_norm and k_norm have learned it. H / G neighbouring query heads share a KV head, which
 * divides the cache by as much. Masked keys are never visited. */
static void attention(gemma4_session *s, size_t layer, activations *a, size_t T)
{
    const gemma4_config *c = &s->model->config;
    const gemma4_layer_config *lc = &c->layers[layer];
    const kv_cache *cache = &s->caches[layer];
    size_t H = c->num_attention_heads, G = lc->num_key_value_heads, D = lc->head_dim;

    gemma4_keys all = {G,        D,        s->length, cache->slots, gemma4_layer_window(c, layer),
                       cache->k, cache->v, a->k,      a->v};

    /* A twin never holds all scores: it may run where nobody wants to see them. */
    if (s->ops.attention && (!s->hook || s->hide_probs)) {
        s->ops.attention(a->context, a->q, &all, T, H);
        return;
    }

    for (size_t t = 0; t < T; t++) {
        gemma4_visible visible = gemma4_visible_keys(c, layer, s->length + t);
        size_t first_key = visible.first, keys = visible.end - visible.first;

        s->ops.scores(a->probs /* (H, keys) */, a->q + t * H * D, &all, t, H);
        tap_keys(s, GEMMA4_TAP_ATTN_SCORES, layer, t, first_key, keys, a->probs);

        /* probs[h, :] = softmax over the visible keys only: what is masked has no share. */
        for (size_t h = 0; h < H; h++)
            gemma4_softmax(a->probs + h * keys, a->probs + h * keys, keys);
        tap_keys(s, GEMMA4_TAP_ATTN_PROBS, layer, t, first_key, keys, a->probs);

        s->ops.context(a->context + t * H * D, a->probs, &all, t, H);
    }
}

/* 5  Puts the chunk's keys and values into the layer's cache: width is G * D, the chunk's first
 * position is `first`. In order: in a ring, later positions replace the oldest. */
static void remember(kv_cache *cache, const activations *a, size_t first, size_t T, size_t width)
{
    for (size_t t = 0; t < T; t++) {
        size_t slot = (first + t) % cache->slots;
        memcpy(cache->k + slot * width, a->k + t * width, width * sizeof(real));
        memcpy(cache->v + slot * width, a->v + t * width, width * sizeof(real));
    }
}

/* 4.4  What router.proj reads: unit RMSNorm of the residual, times router.scale, times d^-0.5. y
 * and h are (T, d), scale is [d]. The factor keeps a logit, a sum over d lanes, from growing with
 * the root of d. */
static void router_norm(const gemma4_ops *ops, real *y, const real *h, const gemma4_weight *scale,
                        size_t T, size_t d, double eps)
{
    ops->rmsnorm(y, h, NULL, T, d, eps);
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < d; i++)
            y[t * d + i] =
                (real)((double)y[t * d + i] * (double)gemma4_weight_at(scale, i) / sqrt((double)d));
}

/* 4.4  The chosen experts' probabilities, divided by their sum: weights and ids are (T, K), probs
 * is (T, E). So the chosen share the whole weight, however much the others were given. */
static void normalise_top_k(real *weights, const real *probs, const int32_t *ids, size_t T,
                            size_t K, size_t E)
{
    for (size_t t = 0; t < T; t++) {
        double sum = 0;
        for (size_t r = 0; r < K; r++)
            sum += (double)probs[t * E + (size_t)ids[t * K + r]];
        for (size_t r = 0; r < K; r++)
            weights[t * K + r] = (real)((double)probs[t * E + (size_t)ids[t * K + r]] / sum);
    }
}

/* --------------------------------------------------------------- the model */

/* 4.2 to 4.6  One decoder layer on the residual stream h, (T, d), in place.
 *
 * Gemma 4 norms a branch twice: what it reads, and again what it adds to the stream, so that no
 * branch can drown the others. There are two residual additions: one after attention, one after the
 * feed-forward block, which is a dense MLP and a mixture of experts side by side. */
static void decoder_layer(gemma4_session *s, size_t l, real *h, activations *a, size_t T)
{
    const gemma4_config *c = &s->model->config;
    const gemma4_layer_config *lc = &c->layers[l];
    const gemma4_layer_weights *w = &s->model->layers[l]; /* named as in the checkpoint (7) */
    size_t d = c->hidden_size, F = c->intermediate_size;
    size_t H = c->num_attention_heads, G = lc->num_key_value_heads, D = lc->head_dim;
    size_t E = c->num_experts, K = c->top_k_experts, M = c->moe_intermediate_size;
    size_t position = s->first_position + s->length; /* of the chunk's first row, for RoPE */
    double eps = c->rms_norm_eps;

    tap(s, GEMMA4_TAP_LAYER_INPUT, l, T, h);

    /* --- 4.2 attention: positions read from earlier ones --- */

    /* x = RMSNorm(h): the branch reads the stream at size 1; the stream itself stays as it is. */
    s->ops.rmsnorm(a->x /* (T, d) */, h /* (T, d) */, &w->input_layernorm, T, d, eps);
    tap(s, GEMMA4_TAP_ATTN_NORM, l, T, a->x);

    /* q: what each head of a position looks for. H heads one after the other in a row. */
    s->ops.matmul(a->q /* (T, H, D) */, a->x, &w->q_proj /* [H * D, d] */, T, a->scratch);
    tap(s, GEMMA4_TAP_ATTN_Q, l, T, a->q);

    /* k: what a position offers to be found by. G heads, fewer than H, each shared by H / G. */
    s->ops.matmul(a->k /* (T, G, D) */, a->x, &w->k_proj /* [G * D, d] */, T, a->scratch);
    tap(s, GEMMA4_TAP_ATTN_K, l, T, a->k);

    /* v: what it says when it is found. Full layers have no v_proj: V is the raw k_proj output,
     * taken here, before k_norm and RoPE. An engine may cache that one vector and rebuild both
     * from it. */
    if (lc->v_is_k)
        memcpy(a->v, a->k, T * G * D * sizeof(real));
    else
        s->ops.matmul(a->v /* (T, G, D) */, a->x, &w->v_proj /* [G * D, d] */, T, a->scratch);
    tap(s, GEMMA4_TAP_ATTN_V, l, T, a->v);

    /* Norms per head, over its D lanes: T * H rows of D. They bound the scores whatever the
     * projections are; the learned q_norm and k_norm, [D], are also what stands in for the usual
     * D^-0.5. */
    s->ops.rmsnorm(a->q, a->q, &w->q_norm, T * H, D, eps);
    tap(s, GEMMA4_TAP_ATTN_Q_NORM, l, T, a->q);
    s->ops.rmsnorm(a->k, a->k, &w->k_norm, T * G, D, eps);
    tap(s, GEMMA4_TAP_ATTN_K_NORM, l, T, a->k);

    /* The norm of V has no weight. */
    s->ops.rmsnorm(a->v, a->v, NULL, T * G, D, eps);
    tap(s, GEMMA4_TAP_ATTN_V_NORM, l, T, a->v);

    /* 3.5: positions enter here and nowhere else. Both sides of the product turn; V does not. */
    s->ops.rope(a->q, T, H, D, lc->rope_pairs, lc->rope_theta, position);
    tap(s, GEMMA4_TAP_ATTN_Q_ROPE, l, T, a->q);
    s->ops.rope(a->k, T, G, D, lc->rope_pairs, lc->rope_theta, position);
    tap(s, GEMMA4_TAP_ATTN_K_ROPE, l, T, a->k);

    /* context = softmax(q k^T) v; shows attn.scores and attn.probs on its way. */
    attention(s, l, a, T);
    tap(s, GEMMA4_TAP_ATTN_CONTEXT, l, T, a->context);

    /* Only now: queries of this chunk could still see what a ring's slots held (5). */
    remember(&s->caches[l], a, s->length, T, G * D);

    /* The heads' results, side by side in a row of H * D, are mixed into the stream's d lanes. */
    s->ops.matmul(a->attn /* (T, d) */, a->context, &w->o_proj /* [d, H * D] */, T, a->scratch);
    tap(s, GEMMA4_TAP_ATTN_OUT, l, T, a->attn);

    /* The branch's own norm, before the addition: its weight says how much attention may add. */
    s->ops.rmsnorm(a->attn, a->attn, &w->post_attention_layernorm, T, d, eps);
    tap(s, GEMMA4_TAP_ATTN_POST_NORM, l, T, a->attn);

    /* The first of two additions to the stream. From here on h is what the whole feed-forward block
     * reads, and what it is added to. */
    add(h, h, a->attn, T * d);
    tap(s, GEMMA4_TAP_ATTN_RESIDUAL, l, T, h);

    /* --- 4.3 dense MLP: what every token needs. It, the router and the experts all read this h,
     * each through a norm of its own; none reads what another one made --- */

    s->ops.rmsnorm(a->x /* (T, d) */, h /* (T, d) */, &w->pre_feedforward_layernorm, T, d, eps);
    tap(s, GEMMA4_TAP_MLP_NORM, l, T, a->x);
    s->ops.matmul(a->gate /* (T, F) */, a->x, &w->gate_proj /* [F, d] */, T, a->scratch);
    tap(s, GEMMA4_TAP_MLP_GATE, l, T, a->gate);
    s->ops.matmul(a->up /* (T, F) */, a->x, &w->up_proj /* [F, d] */, T, a->scratch);
    tap(s, GEMMA4_TAP_MLP_UP, l, T, a->up);

    /* gelu_tanh(gate) * up: the nonlinearity is on the gate, not on the product. */
    s->ops.geglu(a->gate, a->gate, a->up, T * F);
    tap(s, GEMMA4_TAP_MLP_ACT, l, T, a->gate);

    /* Back from F lanes to the stream's d. */
    s->ops.matmul(a->mlp /* (T, d) */, a->gate, &w->down_proj /* [d, F] */, T, a->scratch);
    tap(s, GEMMA4_TAP_MLP_OUT, l, T, a->mlp);

    /* The dense half has its own norm before the halves are added, and so has the other one. */
    s->ops.rmsnorm(a->mlp, a->mlp, &w->post_feedforward_layernorm_1, T, d, eps);
    tap(s, GEMMA4_TAP_MLP_POST_NORM, l, T, a->mlp);

    /* --- 4.4 router: which K of the E experts this token needs --- */

    /* It reads the residual itself through a norm without a learned weight, and a scale of its own:
     * not what the dense MLP reads, nor what the experts read. */
    router_norm(&s->ops, a->router /* (T, d) */, h, &w->router_scale /* [d] */, T, d, eps);
    tap(s, GEMMA4_TAP_ROUTER_NORM, l, T, a->router);

    /* One number an expert: how well this token's direction matches the expert's row. */
    s->ops.matmul(a->logits /* (T, E) */, a->router, &w->router_proj /* [E, d] */, T, a->scratch);
    tap(s, GEMMA4_TAP_ROUTER_LOGITS, l, T, a->logits);

    /* Softmax over all E first, then the K best: with the division below it is the same as a
     * softmax over the K best logits, but the probabilities are what the tap shows. */
    for (size_t t = 0; t < T; t++)
        gemma4_softmax(a->router_probs + t * E, a->logits + t * E, E);
    tap(s, GEMMA4_TAP_ROUTER_PROBS, l, T, a->router_probs);

    /* By logits, which have the order of the probabilities and tie less often. */
    for (size_t t = 0; t < T; t++)
        gemma4_top_k(a->expert_ids + t * K, K, a->logits + t * E, E);
    tap_rows(s, GEMMA4_TAP_ROUTER_TOPK_IDS, l, 0, T, NULL, a->expert_ids);

    /* The chosen ones' weights sum to 1 ... */
    normalise_top_k(a->expert_weights, a->router_probs, a->expert_ids, T, K, E);
    tap(s, GEMMA4_TAP_ROUTER_TOPK_NORM, l, T, a->expert_weights);

    /* ... and no longer do after this: each expert has a learned scale, [E]. */
    for (size_t i = 0; i < T * K; i++)
        a->expert_weights[i] *=
            (real)gemma4_weight_at(&w->router_per_expert_scale, (size_t)a->expert_ids[i]);
    tap(s, GEMMA4_TAP_ROUTER_TOPK_WEIGHTS, l, T, a->expert_weights);

    /* --- 4.5 experts: what this token needs --- */

    /* The experts' own norm of the same residual: neither the dense MLP's nor the router's. */
    s->ops.rmsnorm(a->x /* (T, d) */, h /* (T, d) */, &w->pre_feedforward_layernorm_2, T, d, eps);
    tap(s, GEMMA4_TAP_MOE_NORM, l, T, a->x);

    /* gelu_tanh(gate) * up of each chosen expert: gate and up stand in one matrix, gate first. */
    s->ops.experts_act(a->expert_act /* (T, K, M) */, a->x, &w->experts_gate_up_proj, a->expert_ids,
                       T, K, M, a->scratch);
    tap(s, GEMMA4_TAP_MOE_ACT, l, T, a->expert_act);

    /* The weights multiply the experts' outputs, not their inputs: GELU lies in between. */
    s->ops.experts_out(a->moe /* (T, d) */, a->expert_act, &w->experts_down_proj, a->expert_ids,
                       a->expert_weights, T, K, d, a->scratch);
    tap(s, GEMMA4_TAP_MOE_OUT, l, T, a->moe);

    /* The sum over experts is normed as a whole: no expert has a norm of its own. */
    s->ops.rmsnorm(a->moe, a->moe, &w->post_feedforward_layernorm_2, T, d, eps);
    tap(s, GEMMA4_TAP_MOE_POST_NORM, l, T, a->moe);

    /* --- 4.6 end of the layer --- */

    /* Both halves, (T, d) each, then a norm of their sum before it joins the stream. */
    add(a->x, a->mlp, a->moe, T * d);
    tap(s, GEMMA4_TAP_FFN_SUM, l, T, a->x);
    s->ops.rmsnorm(a->x, a->x, &w->post_feedforward_layernorm, T, d, eps);
    tap(s, GEMMA4_TAP_FFN_POST_NORM, l, T, a->x);
    /* The second addition: to attn.residual, not to the layer's input. */
    add(h, h, a->x, T * d);
    tap(s, GEMMA4_TAP_FFN_RESIDUAL, l, T, h);

    /* One learned number a layer, on the whole stream and not only on what the layer added. */
    real layer_scalar = (real)gemma4_weight_at(&w->layer_scalar, 0);
    for (size_t i = 0; i < T * d; i++)
        h[i] *= layer_scalar;
    tap(s, GEMMA4_TAP_LAYER_OUTPUT, l, T, h);
}

/* 4.7  The final norm and the LM head of the chunk's last `rows` positions: h is (T, d), x is
 * (rows, d), logits is (rows, V). Only the last position's logits choose the next token, and a
 * prompt's others would cost V * d products each. */
static void head(gemma4_session *s, const real *h, real *x, real *logits, float *scratch, size_t T,
                 size_t rows)
{
    const gemma4_config *c = &s->model->config;
    size_t d = c->hidden_size, V = c->vocab_size, first = T - rows;

    s->ops.rmsnorm(x, h + first * d, &s->model->norm, rows, d, c->rms_norm_eps);
    tap_rows(s, GEMMA4_TAP_FINAL_NORM, 0, first, rows, x, NULL);

    /* A logit is how well x points along a token's embedding: the head is the table of 4.1, [V,
     * d]. */
    s->ops.matmul(logits, x, &s->model->embed_tokens, rows, scratch);
    tap_rows(s, GEMMA4_TAP_LOGITS_RAW, 0, first, rows, logits, NULL);

    /* 30 tanh(L / 30): no token becomes more than e^60 times as likely as another. */
    if (c->final_logit_softcapping > 0)
        s->ops.softcap(logits, rows * V, c->final_logit_softcapping);
    tap_rows(s, GEMMA4_TAP_LOGITS, 0, first, rows, logits, NULL);
}

/* The three pieces of gemma4_forward below: each checks, allocates, calls what stands above, and
 * frees. */
int gemma4_forward_embed(gemma4_session *session, const int32_t *tokens, size_t T, real *h,
                         gemma4_error *error)
{
    if (gemma4_check_chunk(session, tokens, T, error))
        return -1;
    session->error = error;
    embed(h, tokens, T, &session->model->embed_tokens);
    tap(session, GEMMA4_TAP_EMBED, 0, T, h);
    return session->failed ? -1 : 0;
}

int gemma4_forward_layer(gemma4_session *session, size_t layer, size_t T, real *h,
                         gemma4_error *error)
{
    activations a;
    if (gemma4_layer_memory_new(&a, session, layer, T, error))
        return -1;
    session->error = error;
    decoder_layer(session, layer, h, &a, T);
    gemma4_layer_memory_free(&a);
    return session->failed ? -1 : 0;
}

int gemma4_forward_head(gemma4_session *session, size_t T, size_t rows, const real *h, real *logits,
                        gemma4_error *error)
{
    const gemma4_config *c = &session->model->config;
    int ok = 1;
    if (rows > T)
        return gemma4_fail(error, "chunk: expected logits for at most its %zu positions, found %zu",
                           T, rows);
    if (rows == 0)
        return 0;
    real *x = gemma4_array(rows, c->hidden_size, sizeof(real), &ok);
    float *scratch = gemma4_scratch_for(session, c->hidden_size, rows, 0, &ok);
    /* Without the caller's memory, the taps need some all the same. */
    real *own = logits ? NULL : gemma4_array(rows, c->vocab_size, sizeof(real), &ok);
    session->error = error;
    if (ok)
        head(session, h, x, logits ? logits : own, scratch, T, rows);
    else
        gemma4_fail(error, "logits of %zu positions: out of memory", rows);
    free(x);
    free(scratch);
    free(own);
    return !ok || session->failed ? -1 : 0;
}

/* 4  The whole model: tokens (T) in, logits (logits_rows, V) out. A layer changes the residual
 * stream and knows no other state but its own cache. */
int gemma4_forward(gemma4_session *session, const int32_t *tokens, size_t T, size_t logits_rows,
                   real *logits, gemma4_error *error)
{
    const gemma4_config *c = &session->model->config;
    int ok = 1;
    if (gemma4_check_chunk(session, tokens, T, error))
        return -1;
    real *h = gemma4_array(T, c->hidden_size, sizeof(real), &ok); /* (T, d) the residual stream */
    int status = ok ? gemma4_forward_embed(session, tokens, T, h, error)
                    : gemma4_fail(error, "chunk of %zu positions: out of memory", T);
    for (size_t l = 0; l < c->num_hidden_layers && !status; l++)
        status = gemma4_forward_layer(session, l, T, h, error);
    if (!status)
        status = gemma4_forward_head(session, T, logits_rows, h, logits, error);
    if (!status)
        session->length += T; /* all layers' caches hold the chunk now */
    free(h);
    return status;
}
