/* The forward pass of Gemma 4 26B-A4B, written to be read: top to bottom, beside spec/model.md.
 *
 * First the operators, then the steps that take more than a line, then gemma4_forward, which is the model. After every
 * step a tap shows the result to whoever listens (ref/taps.h); the names of the taps are the index into this file.
 *
 * Shape letters, here and in all comments: T positions of the chunk at hand, d hidden size, H query heads, G KV heads and
 * D head dim of the layer, F dense width, E experts, K experts per token, M expert width, V vocabulary. */
#include "forward.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops.h"

typedef gemma4_real real;

/* ---------------------------------------------------------------- weights */

static float bf16_to_float(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16; /* bf16 is the upper half of a float */
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

static float f16_to_float(uint16_t bits)
{
    int exponent = (bits >> 10) & 31;
    int mantissa = bits & 1023;
    float magnitude;
    if (exponent == 31)
        magnitude = mantissa ? NAN : INFINITY;
    else if (exponent == 0)
        magnitude = ldexpf((float)mantissa, -24); /* subnormal */
    else
        magnitude = ldexpf((float)(1024 + mantissa), exponent - 25);
    return bits & 0x8000 ? -magnitude : magnitude;
}

float gemma4_weight_at(const gemma4_weight *w, size_t index)
{
    switch (w->dtype) {
    case GEMMA4_BF16: return bf16_to_float(((const uint16_t *)w->data)[index]);
    case GEMMA4_F16: return f16_to_float(((const uint16_t *)w->data)[index]);
    default: return ((const float *)w->data)[index];
    }
}

void gemma4_weight_row(float *out, const gemma4_weight *w, size_t row)
{
    const uint16_t *bits = (const uint16_t *)w->data + row * w->cols;
    if (w->dtype == GEMMA4_BF16) { /* every weight of a published checkpoint: without the switch in the loop */
        for (size_t i = 0; i < w->cols; i++)
            out[i] = bf16_to_float(bits[i]);
        return;
    }
    for (size_t i = 0; i < w->cols; i++)
        out[i] = gemma4_weight_at(w, row * w->cols + i);
}

gemma4_weight gemma4_weight_rows(const gemma4_weight *w, size_t first_row, size_t rows)
{
    size_t element = gemma4_weight_size(w->dtype);
    gemma4_weight view = *w;
    view.data = (const char *)w->data + first_row * w->cols * element;
    view.rows = rows;
    return view;
}

/* -------------------------------------------------------------- operators */

/* Four sums side by side, because one alone would wait for each addition: the order is fixed, so results do not depend on T. */
double gemma4_dot(const real *x, const float *w, size_t n)
{
    double sum[4] = {0};
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (size_t lane = 0; lane < 4; lane++)
            sum[lane] += (double)x[i + lane] * (double)w[i + lane];
    for (; i < n; i++)
        sum[0] += (double)x[i] * (double)w[i];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

size_t gemma4_scratch(size_t cols, size_t T, size_t K)
{
    (void)T, (void)K;
    return cols; /* one row of a weight */
}

void gemma4_matmul(real *y, const real *x, const gemma4_weight *w, size_t T, float *w_row)
{
    for (size_t o = 0; o < w->rows; o++) {
        gemma4_weight_row(w_row, w, o);
        for (size_t t = 0; t < T; t++)
            y[t * w->rows + o] = (real)gemma4_dot(x + t * w->cols, w_row, w->cols);
    }
}

void gemma4_rmsnorm(real *y, const real *x, const gemma4_weight *w, size_t T, size_t n, double eps)
{
    for (size_t t = 0; t < T; t++) {
        const real *x_t = x + t * n;
        real *y_t = y + t * n;
        double sum_of_squares = 0;
        for (size_t i = 0; i < n; i++)
            sum_of_squares += (double)x_t[i] * (double)x_t[i];
        double scale = 1.0 / sqrt(sum_of_squares / (double)n + eps);
        for (size_t i = 0; i < n; i++) /* the weight is used as it is: not 1 + w, as in Gemma 1 to 3 */
            y_t[i] = (real)((double)x_t[i] * scale * (w ? (double)gemma4_weight_at(w, i) : 1.0));
    }
}

void gemma4_rope(real *x, size_t T, size_t heads, size_t D, size_t pairs, double theta, size_t first_position)
{
    for (size_t j = 0; j < pairs; j++) {
        /* The exponent's denominator is the head dim, also where only a part of the pairs rotates. */
        float exponent = (float)(2 * j) / (float)D;
        float frequency = 1.0f / (float)pow(theta, (double)exponent);
        for (size_t t = 0; t < T; t++) {
            float angle = (float)(first_position + t) * frequency;
            double c = cos((double)angle), s = sin((double)angle);
            for (size_t h = 0; h < heads; h++) {
                real *x_th = x + (t * heads + h) * D;
                double a = (double)x_th[j], b = (double)x_th[j + D / 2];
                x_th[j] = (real)(a * c - b * s);
                x_th[j + D / 2] = (real)(b * c + a * s);
            }
        }
    }
}

void gemma4_softmax(real *y, const real *x, size_t n)
{
    double largest = (double)x[0], sum = 0;
    for (size_t i = 1; i < n; i++)
        largest = fmax(largest, (double)x[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - largest);
    for (size_t i = 0; i < n; i++)
        y[i] = (real)(exp((double)x[i] - largest) / sum);
}

double gemma4_gelu_tanh(double x)
{
    const double sqrt_2_over_pi = 0.79788456080286535588;
    return 0.5 * x * (1.0 + tanh(sqrt_2_over_pi * (x + 0.044715 * x * x * x)));
}

void gemma4_geglu(real *y, const real *gate, const real *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = (real)(gemma4_gelu_tanh((double)gate[i]) * (double)up[i]);
}

void gemma4_top_k(int32_t *ids, size_t k, const real *values, size_t n)
{
    for (size_t rank = 0; rank < k; rank++) {
        int32_t best = -1;
        for (size_t i = 0; i < n; i++) {
            bool taken = false;
            for (size_t r = 0; r < rank; r++)
                taken = taken || ids[r] == (int32_t)i;
            if (!taken && (best < 0 || values[i] > values[best]))
                best = (int32_t)i;
        }
        ids[rank] = best;
    }
}

void gemma4_softcap(real *x, size_t n, double cap)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (real)(cap * tanh((double)x[i] / cap));
}

void gemma4_experts_act(real *act, const real *x, const gemma4_weight *gate_up_proj, const int32_t *ids, size_t T, size_t K, size_t M,
                        float *w_row)
{
    size_t d = gate_up_proj->cols;
    for (size_t t = 0; t < T; t++)
        for (size_t r = 0; r < K; r++) {
            size_t first_row = (size_t)ids[t * K + r] * 2 * M; /* the expert's M gate rows, then its M up rows */
            for (size_t m = 0; m < M; m++) {
                gemma4_weight_row(w_row, gate_up_proj, first_row + m);
                real gate = (real)gemma4_dot(x + t * d, w_row, d);
                gemma4_weight_row(w_row, gate_up_proj, first_row + M + m);
                real up = (real)gemma4_dot(x + t * d, w_row, d);
                gemma4_geglu(act + (t * K + r) * M + m, &gate, &up, 1);
            }
        }
}

void gemma4_experts_out(real *y, const real *act, const gemma4_weight *down_proj, const int32_t *ids, const real *weights, size_t T, size_t K,
                        size_t d, float *w_row)
{
    size_t M = down_proj->cols;
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < d; i++) {
            double sum = 0;
            for (size_t r = 0; r < K; r++) {
                gemma4_weight_row(w_row, down_proj, (size_t)ids[t * K + r] * d + i);
                sum += (double)weights[t * K + r] * gemma4_dot(act + (t * K + r) * M, w_row, M);
            }
            y[t * d + i] = (real)sum;
        }
}

static void add(real *y, const real *a, const real *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = a[i] + b[i];
}

/* ---------------------------------------------------------------- session */

/* Keys (after k_norm and RoPE) and values (after v_norm) of one layer's past. Position i of the session lies in slot
 * i % slots. A full layer has a slot for every position; a sliding layer needs the last `sliding_window` only.
 *
 * Full layers could store the raw k_proj output alone and rebuild both (210 KiB per token in bf16 at the published
 * dimensions against 220). K and V are stored apart here: rebuilding costs a norm and a rotation per key and step, and
 * would hide the one thing that ports get wrong, that V is taken before k_norm and never rotated. */
typedef struct kv_cache {
    size_t slots;
    real *k, *v; /* (slots, G, D) */
} kv_cache;

struct gemma4_session {
    const gemma4_model *model;
    size_t first_position; /* absolute position of the session's position 0 */
    size_t capacity;
    size_t length;    /* positions seen before the chunk at hand */
    kv_cache *caches; /* one a layer */
    gemma4_ops ops; /* the scalar ones, or their twins */
    gemma4_tap_hook hook;
    void *hook_context;
    bool hide_probs; /* from the hook */
    int failed; /* a tap's hook has failed */
    gemma4_error *error;
};

/* Everything that a layer needs between its steps, for one chunk of T positions. */
typedef struct activations {
    real *x;            /* (T, d) what a branch reads: the residual stream after its norm */
    real *q;            /* (T, H, D) */
    real *k, *v;        /* (T, G, D) */
    real *probs;        /* (H, session length) scores, then probabilities, of one query position */
    real *context;      /* (T, H, D) */
    real *attn;         /* (T, d) attention branch */
    real *gate, *up;    /* (T, F) */
    real *mlp;          /* (T, d) dense branch */
    real *router;       /* (T, d) what router.proj reads */
    real *logits;       /* (T, E) router logits */
    real *router_probs; /* (T, E) */
    int32_t *expert_ids;  /* (T, K) */
    real *expert_weights; /* (T, K) */
    real *expert_act;   /* (T, K, M) */
    real *moe;          /* (T, d) expert branch */
    float *scratch;     /* of the operators: one row of any weight matrix */
} activations;

/* Shows the chunk's rows [first_row, first_row + rows) of a tensor to the hook. A hook that fails stops the forward pass at
 * the end of the layer. */
static void tap_rows(gemma4_session *s, gemma4_tap id, size_t layer, size_t first_row, size_t rows, real *values, int32_t *ids)
{
    if (!s->hook || s->failed)
        return;
    gemma4_tap_event event = {.tap = id, .layer = layer, .row = s->length + first_row, .rows = rows, .values = values, .ids = ids};
    event.dims[1] = 1;
    event.rank = gemma4_tap_dims(&s->model->config, id, layer, 0, event.dims);
    s->failed = s->hook(s->hook_context, &event, s->error) != 0;
}

static void tap(gemma4_session *s, gemma4_tap id, size_t layer, size_t T, real *values)
{
    tap_rows(s, id, layer, 0, T, values, NULL);
}

/* Scores and probabilities are shown a query position at a time: values is (H, keys), its first key is first_key. */
static void tap_keys(gemma4_session *s, gemma4_tap id, size_t layer, size_t t, size_t first_key, size_t keys, real *values)
{
    if (!s->hook || s->failed || s->hide_probs)
        return;
    gemma4_tap_event event = {.tap = id, .layer = layer, .row = s->length + t, .rows = 1, .rank = 2, .values = values,
                              .dims = {s->model->config.num_attention_heads, keys}, .first_key = first_key};
    s->failed = s->hook(s->hook_context, &event, s->error) != 0;
}

/* ------------------------------------------------------------------ steps */

/* h = E[token] * sqrt(d), the input of layer 0. */
static void embed(real *h, const int32_t *tokens, size_t T, const gemma4_weight *embed_tokens)
{
    size_t d = embed_tokens->cols;
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < d; i++)
            h[t * d + i] = (real)((double)gemma4_weight_at(embed_tokens, (size_t)tokens[t] * d + i) * sqrt((double)d));
}

/* The mask: whatever must know which keys a query sees asks here. */
size_t gemma4_layer_window(const gemma4_config *config, size_t layer)
{
    return config->layers[layer].kind == GEMMA4_SLIDING ? config->sliding_window : SIZE_MAX;
}

gemma4_visible gemma4_visible_keys(const gemma4_config *config, size_t layer, size_t query)
{
    return gemma4_visible_through(gemma4_layer_window(config, layer), query);
}

/* context = softmax(q k^T + mask) v for every query of the chunk. The attention scale is 1.0: k_norm has taken its
 * place. Query heads share KV heads in groups of H / G neighbours. Masked keys are never visited. */
static void attention(gemma4_session *s, size_t layer, activations *a, size_t T)
{
    const gemma4_config *c = &s->model->config;
    const gemma4_layer_config *lc = &c->layers[layer];
    const kv_cache *cache = &s->caches[layer];
    size_t H = c->num_attention_heads, G = lc->num_key_value_heads, D = lc->head_dim;

    if (s->ops.attention && (!s->hook || s->hide_probs)) { /* a twin, where nobody wants to see scores */
        gemma4_keys keys = {G, D, s->length, cache->slots, gemma4_layer_window(c, layer), cache->k, cache->v, a->k, a->v};
        s->ops.attention(a->context, a->q, &keys, T, H);
        return;
    }

    for (size_t t = 0; t < T; t++) {
        size_t query = s->length + t; /* position in the session */
        gemma4_visible visible = gemma4_visible_keys(c, layer, query);
        size_t first_key = visible.first, keys = visible.end - visible.first;

        for (size_t h = 0; h < H; h++) {
            const real *q_th = a->q + (t * H + h) * D;
            size_t g = h / (H / G);
            for (size_t j = 0; j < keys; j++) {
                size_t key = first_key + j;
                /* This chunk's keys stand beside the cache until all its queries are done: a ring of `sliding_window` slots
                 * would otherwise lose keys that the chunk's first queries still see. */
                const real *k = key >= s->length ? a->k + (key - s->length) * G * D : cache->k + (key % cache->slots) * G * D;
                double score = 0;
                for (size_t i = 0; i < D; i++)
                    score += (double)q_th[i] * (double)k[g * D + i];
                a->probs[h * keys + j] = (real)score;
            }
        }
        tap_keys(s, GEMMA4_TAP_ATTN_SCORES, layer, t, first_key, keys, a->probs);

        for (size_t h = 0; h < H; h++)
            gemma4_softmax(a->probs + h * keys, a->probs + h * keys, keys);
        tap_keys(s, GEMMA4_TAP_ATTN_PROBS, layer, t, first_key, keys, a->probs);

        for (size_t h = 0; h < H; h++) {
            size_t g = h / (H / G);
            for (size_t i = 0; i < D; i++) {
                double sum = 0;
                for (size_t j = 0; j < keys; j++) {
                    size_t key = first_key + j;
                    const real *v = key >= s->length ? a->v + (key - s->length) * G * D : cache->v + (key % cache->slots) * G * D;
                    sum += (double)a->probs[h * keys + j] * (double)v[g * D + i];
                }
                a->context[(t * H + h) * D + i] = (real)sum;
            }
        }
    }
}

/* Puts the chunk's keys and values into the layer's cache, in order: in a ring, later positions replace the oldest. */
static void remember(kv_cache *cache, const activations *a, size_t first, size_t T, size_t width)
{
    for (size_t t = 0; t < T; t++) {
        size_t slot = (first + t) % cache->slots;
        memcpy(cache->k + slot * width, a->k + t * width, width * sizeof(real));
        memcpy(cache->v + slot * width, a->v + t * width, width * sizeof(real));
    }
}

/* What router.proj reads: unit RMSNorm of the residual, times router.scale, times d^-0.5. */
static void router_norm(const gemma4_ops *ops, real *y, const real *h, const gemma4_weight *scale, size_t T, size_t d, double eps)
{
    ops->rmsnorm(y, h, NULL, T, d, eps);
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < d; i++)
            y[t * d + i] = (real)((double)y[t * d + i] * (double)gemma4_weight_at(scale, i) / sqrt((double)d));
}

/* The chosen experts' probabilities, divided by their sum. */
static void normalise_top_k(real *weights, const real *probs, const int32_t *ids, size_t T, size_t K, size_t E)
{
    for (size_t t = 0; t < T; t++) {
        double sum = 0;
        for (size_t r = 0; r < K; r++)
            sum += (double)probs[t * E + (size_t)ids[t * K + r]];
        for (size_t r = 0; r < K; r++)
            weights[t * K + r] = (real)((double)probs[t * E + (size_t)ids[t * K + r]] / sum);
    }
}

/* ----------------------------------------------------------------- memory */

/* n * width reals, or *ok = false where that overflows or memory runs out. */
static void *reals(size_t n, size_t width, size_t size, int *ok)
{
    size_t count;
    void *memory = NULL;
    if (*ok && !__builtin_mul_overflow(n, width, &count))
        memory = calloc(count ? count : 1, size); /* calloc checks count * size */
    *ok = memory != NULL;
    return memory;
}

/* The operators' scratch memory for matrices of at most cols columns. Not cleared: a twin's is megabytes. */
static float *scratch_for(const gemma4_session *s, size_t cols, size_t T, size_t K, int *ok)
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

static void activations_free(activations *a)
{
    void *all[] = {a->x,     a->q,      a->k,           a->v,          a->probs,          a->context,        a->attn,       a->gate, a->up, a->mlp,
                   a->router, a->logits, a->router_probs, a->expert_ids, a->expert_weights, a->expert_act, a->moe, a->scratch};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static int activations_new(activations *a, const gemma4_session *s, size_t layer, size_t T, gemma4_error *error)
{
    const gemma4_config *c = &s->model->config;
    size_t d = c->hidden_size, F = c->intermediate_size, E = c->num_experts, K = c->top_k_experts, M = c->moe_intermediate_size;
    size_t q_width = c->num_attention_heads * c->layers[layer].head_dim;
    size_t kv_width = c->layers[layer].num_key_value_heads * c->layers[layer].head_dim;
    int ok = 1;
    memset(a, 0, sizeof *a);
    a->x = reals(T, d, sizeof(real), &ok);
    a->q = reals(T, q_width, sizeof(real), &ok);
    a->k = reals(T, kv_width, sizeof(real), &ok);
    a->v = reals(T, kv_width, sizeof(real), &ok);
    a->probs = reals(s->length + T, c->num_attention_heads, sizeof(real), &ok);
    a->context = reals(T, q_width, sizeof(real), &ok);
    a->attn = reals(T, d, sizeof(real), &ok);
    a->gate = reals(T, F, sizeof(real), &ok);
    a->up = reals(T, F, sizeof(real), &ok);
    a->mlp = reals(T, d, sizeof(real), &ok);
    a->router = reals(T, d, sizeof(real), &ok);
    a->logits = reals(T, E, sizeof(real), &ok);
    a->router_probs = reals(T, E, sizeof(real), &ok);
    a->expert_ids = reals(T, K, sizeof(int32_t), &ok);
    a->expert_weights = reals(T, K, sizeof(real), &ok);
    a->expert_act = reals(T, K * M, sizeof(real), &ok);
    a->moe = reals(T, d, sizeof(real), &ok);
    a->scratch = scratch_for(s, max(max(d, q_width), max(F, M)), T, K, &ok);
    if (!ok) {
        activations_free(a);
        return gemma4_fail(error, "chunk of %zu positions: out of memory", T);
    }
    return 0;
}

/* --------------------------------------------------------------- the model */

/* One decoder layer on the residual stream h, (T, d). */
static void decoder_layer(gemma4_session *s, size_t l, real *h, activations *a, size_t T)
{
    const gemma4_config *c = &s->model->config;
    const gemma4_layer_config *lc = &c->layers[l];
    const gemma4_layer_weights *w = &s->model->layers[l];
    size_t d = c->hidden_size, H = c->num_attention_heads, G = lc->num_key_value_heads, D = lc->head_dim;
    size_t F = c->intermediate_size, E = c->num_experts, K = c->top_k_experts, M = c->moe_intermediate_size;
    size_t position = s->first_position + s->length;
    double eps = c->rms_norm_eps;

    tap(s, GEMMA4_TAP_LAYER_INPUT, l, T, h);

    /* Attention: projections, per-head norms, RoPE on q and k. V is never rotated, and its norm has no weight. */
    s->ops.rmsnorm(a->x, h, &w->input_layernorm, T, d, eps);
    tap(s, GEMMA4_TAP_ATTN_NORM, l, T, a->x);
    s->ops.matmul(a->q, a->x, &w->q_proj, T, a->scratch);
    tap(s, GEMMA4_TAP_ATTN_Q, l, T, a->q);
    s->ops.matmul(a->k, a->x, &w->k_proj, T, a->scratch);
    tap(s, GEMMA4_TAP_ATTN_K, l, T, a->k);
    if (lc->v_is_k) /* V is the raw k_proj output: taken here, before k_norm and RoPE */
        memcpy(a->v, a->k, T * G * D * sizeof(real));
    else
        s->ops.matmul(a->v, a->x, &w->v_proj, T, a->scratch);
    tap(s, GEMMA4_TAP_ATTN_V, l, T, a->v);
    s->ops.rmsnorm(a->q, a->q, &w->q_norm, T * H, D, eps);
    tap(s, GEMMA4_TAP_ATTN_Q_NORM, l, T, a->q);
    s->ops.rmsnorm(a->k, a->k, &w->k_norm, T * G, D, eps);
    tap(s, GEMMA4_TAP_ATTN_K_NORM, l, T, a->k);
    s->ops.rmsnorm(a->v, a->v, NULL, T * G, D, eps);
    tap(s, GEMMA4_TAP_ATTN_V_NORM, l, T, a->v);
    s->ops.rope(a->q, T, H, D, lc->rope_pairs, lc->rope_theta, position);
    tap(s, GEMMA4_TAP_ATTN_Q_ROPE, l, T, a->q);
    s->ops.rope(a->k, T, G, D, lc->rope_pairs, lc->rope_theta, position);
    tap(s, GEMMA4_TAP_ATTN_K_ROPE, l, T, a->k);
    attention(s, l, a, T);
    tap(s, GEMMA4_TAP_ATTN_CONTEXT, l, T, a->context);
    remember(&s->caches[l], a, s->length, T, G * D);
    s->ops.matmul(a->attn, a->context, &w->o_proj, T, a->scratch);
    tap(s, GEMMA4_TAP_ATTN_OUT, l, T, a->attn);
    s->ops.rmsnorm(a->attn, a->attn, &w->post_attention_layernorm, T, d, eps);
    tap(s, GEMMA4_TAP_ATTN_POST_NORM, l, T, a->attn);
    add(h, h, a->attn, T * d);
    tap(s, GEMMA4_TAP_ATTN_RESIDUAL, l, T, h);

    /* Dense MLP. It, the router and the experts all read the same residual h. */
    s->ops.rmsnorm(a->x, h, &w->pre_feedforward_layernorm, T, d, eps);
    tap(s, GEMMA4_TAP_MLP_NORM, l, T, a->x);
    s->ops.matmul(a->gate, a->x, &w->gate_proj, T, a->scratch);
    tap(s, GEMMA4_TAP_MLP_GATE, l, T, a->gate);
    s->ops.matmul(a->up, a->x, &w->up_proj, T, a->scratch);
    tap(s, GEMMA4_TAP_MLP_UP, l, T, a->up);
    s->ops.geglu(a->gate, a->gate, a->up, T * F);
    tap(s, GEMMA4_TAP_MLP_ACT, l, T, a->gate);
    s->ops.matmul(a->mlp, a->gate, &w->down_proj, T, a->scratch);
    tap(s, GEMMA4_TAP_MLP_OUT, l, T, a->mlp);
    s->ops.rmsnorm(a->mlp, a->mlp, &w->post_feedforward_layernorm_1, T, d, eps);
    tap(s, GEMMA4_TAP_MLP_POST_NORM, l, T, a->mlp);

    /* Router: its own norm of the raw residual, softmax over all experts, the best K, renormalised, scaled per expert. */
    router_norm(&s->ops, a->router, h, &w->router_scale, T, d, eps);
    tap(s, GEMMA4_TAP_ROUTER_NORM, l, T, a->router);
    s->ops.matmul(a->logits, a->router, &w->router_proj, T, a->scratch);
    tap(s, GEMMA4_TAP_ROUTER_LOGITS, l, T, a->logits);
    for (size_t t = 0; t < T; t++)
        gemma4_softmax(a->router_probs + t * E, a->logits + t * E, E);
    tap(s, GEMMA4_TAP_ROUTER_PROBS, l, T, a->router_probs);
    for (size_t t = 0; t < T; t++)
        gemma4_top_k(a->expert_ids + t * K, K, a->logits + t * E, E);
    tap_rows(s, GEMMA4_TAP_ROUTER_TOPK_IDS, l, 0, T, NULL, a->expert_ids);
    normalise_top_k(a->expert_weights, a->router_probs, a->expert_ids, T, K, E);
    tap(s, GEMMA4_TAP_ROUTER_TOPK_NORM, l, T, a->expert_weights);
    for (size_t i = 0; i < T * K; i++)
        a->expert_weights[i] *= (real)gemma4_weight_at(&w->router_per_expert_scale, (size_t)a->expert_ids[i]);
    tap(s, GEMMA4_TAP_ROUTER_TOPK_WEIGHTS, l, T, a->expert_weights);

    /* Experts. */
    s->ops.rmsnorm(a->x, h, &w->pre_feedforward_layernorm_2, T, d, eps);
    tap(s, GEMMA4_TAP_MOE_NORM, l, T, a->x);
    s->ops.experts_act(a->expert_act, a->x, &w->experts_gate_up_proj, a->expert_ids, T, K, M, a->scratch);
    tap(s, GEMMA4_TAP_MOE_ACT, l, T, a->expert_act);
    s->ops.experts_out(a->moe, a->expert_act, &w->experts_down_proj, a->expert_ids, a->expert_weights, T, K, d, a->scratch);
    tap(s, GEMMA4_TAP_MOE_OUT, l, T, a->moe);
    s->ops.rmsnorm(a->moe, a->moe, &w->post_feedforward_layernorm_2, T, d, eps);
    tap(s, GEMMA4_TAP_MOE_POST_NORM, l, T, a->moe);

    /* Both branches, their common norm, the residual, and the layer's scalar on the whole stream. */
    add(a->x, a->mlp, a->moe, T * d);
    tap(s, GEMMA4_TAP_FFN_SUM, l, T, a->x);
    s->ops.rmsnorm(a->x, a->x, &w->post_feedforward_layernorm, T, d, eps);
    tap(s, GEMMA4_TAP_FFN_POST_NORM, l, T, a->x);
    add(h, h, a->x, T * d);
    tap(s, GEMMA4_TAP_FFN_RESIDUAL, l, T, h);
    for (size_t i = 0; i < T * d; i++)
        h[i] *= (real)gemma4_weight_at(&w->layer_scalar, 0);
    tap(s, GEMMA4_TAP_LAYER_OUTPUT, l, T, h);
}

/* The final norm and the tied LM head of the chunk's last `rows` positions: x is (rows, d), logits is (rows, V). */
static void head(gemma4_session *s, const real *h, real *x, real *logits, float *scratch, size_t T, size_t rows)
{
    const gemma4_config *c = &s->model->config;
    size_t d = c->hidden_size, V = c->vocab_size, first = T - rows;

    s->ops.rmsnorm(x, h + first * d, &s->model->norm, rows, d, c->rms_norm_eps);
    tap_rows(s, GEMMA4_TAP_FINAL_NORM, 0, first, rows, x, NULL);
    s->ops.matmul(logits, x, &s->model->embed_tokens, rows, scratch);
    tap_rows(s, GEMMA4_TAP_LOGITS_RAW, 0, first, rows, logits, NULL);
    if (c->final_logit_softcapping > 0)
        s->ops.softcap(logits, rows * V, c->final_logit_softcapping);
    tap_rows(s, GEMMA4_TAP_LOGITS, 0, first, rows, logits, NULL);
}

static int check_chunk(const gemma4_session *s, const int32_t *tokens, size_t T, gemma4_error *error)
{
    size_t V = s->model->config.vocab_size;
    if (s->failed)
        return gemma4_fail(error, "session: not usable after an earlier failure");
    if (T == 0 || T > s->capacity - s->length)
        return gemma4_fail(error, "chunk: expected 1 to %zu tokens (%zu of %zu positions are taken), found %zu", s->capacity - s->length,
                           s->length, s->capacity, T);
    for (size_t t = 0; t < T; t++)
        if (tokens[t] < 0 || (size_t)tokens[t] >= V)
            return gemma4_fail(error, "token %zu: expected an id below the vocabulary's %zu, found %d", s->length + t, V, tokens[t]);
    return 0;
}

int gemma4_forward_embed(gemma4_session *session, const int32_t *tokens, size_t T, real *h, gemma4_error *error)
{
    if (check_chunk(session, tokens, T, error))
        return -1;
    session->error = error;
    embed(h, tokens, T, &session->model->embed_tokens);
    tap(session, GEMMA4_TAP_EMBED, 0, T, h);
    return session->failed ? -1 : 0;
}

int gemma4_forward_layer(gemma4_session *session, size_t layer, size_t T, real *h, gemma4_error *error)
{
    activations a;
    if (activations_new(&a, session, layer, T, error))
        return -1;
    session->error = error;
    decoder_layer(session, layer, h, &a, T);
    activations_free(&a);
    return session->failed ? -1 : 0;
}

int gemma4_forward_head(gemma4_session *session, size_t T, size_t rows, const real *h, real *logits, gemma4_error *error)
{
    const gemma4_config *c = &session->model->config;
    int ok = 1;
    if (rows > T)
        return gemma4_fail(error, "chunk: expected logits for at most its %zu positions, found %zu", T, rows);
    if (rows == 0)
        return 0;
    real *x = reals(rows, c->hidden_size, sizeof(real), &ok);
    float *scratch = scratch_for(session, c->hidden_size, rows, 0, &ok);
    real *own = logits ? NULL : reals(rows, c->vocab_size, sizeof(real), &ok);
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

int gemma4_forward(gemma4_session *session, const int32_t *tokens, size_t T, size_t logits_rows, real *logits, gemma4_error *error)
{
    const gemma4_config *c = &session->model->config;
    int ok = 1;
    if (check_chunk(session, tokens, T, error))
        return -1;
    real *h = reals(T, c->hidden_size, sizeof(real), &ok); /* (T, d) the residual stream */
    int status = ok ? gemma4_forward_embed(session, tokens, T, h, error) : gemma4_fail(error, "chunk of %zu positions: out of memory", T);
    for (size_t l = 0; l < c->num_hidden_layers && !status; l++)
        status = gemma4_forward_layer(session, l, T, h, error);
    if (!status)
        status = gemma4_forward_head(session, T, logits_rows, h, logits, error);
    if (!status)
        session->length += T;
    free(h);
    return status;
}

/* --------------------------------------------------------------- sessions */

gemma4_session *gemma4_session_new(const gemma4_model *model, size_t first_position, size_t capacity, gemma4_error *error)
{
    const gemma4_config *c = &model->config;
    if (capacity == 0 || capacity > c->max_position_embeddings || first_position > c->max_position_embeddings - capacity) {
        gemma4_fail(error, "positions: expected a range within 0 ... %zu, found %zu positions from %zu on",
                    c->max_position_embeddings - 1, capacity, first_position);
        return NULL;
    }
    int ok = 1;
    gemma4_session *s = reals(1, 1, sizeof *s, &ok);
    kv_cache *caches = reals(c->num_hidden_layers, 1, sizeof *caches, &ok);
    for (size_t l = 0; l < c->num_hidden_layers && ok; l++) {
        const gemma4_layer_config *lc = &c->layers[l];
        size_t window = gemma4_layer_window(c, l);
        caches[l].slots = window < capacity ? window : capacity;
        caches[l].k = reals(caches[l].slots, lc->num_key_value_heads * lc->head_dim, sizeof(real), &ok);
        caches[l].v = reals(caches[l].slots, lc->num_key_value_heads * lc->head_dim, sizeof(real), &ok);
    }
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
