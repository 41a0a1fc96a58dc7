/* The forward pass of Gemma 4 26B-A4B, written to be read beside spec/model.md: "4.2" in a comment
 * is the section of that page where the step is defined.
 *
 * The model itself is decoder_layer, near the end: read it first. Before it come the operators (3),
 * which know nothing of the model, and the steps that take more than a line; after it, the head and
 * what keeps a session. After every step a tap shows the result to whoever listens (ref/taps.h):
 * the names of the taps are the index into this file.
 *
 * Shape letters, here and in all comments: T positions of the chunk at hand, d hidden size, H query
 * heads, G KV heads and D head dim of the layer, F dense width, E experts, K experts per token, M
 * expert width, V vocabulary. (T, H, D) is row-major: element (t, h, i) is at (t * H + h) * D + i.
 *
 * An activation is a float32; every sum and every transcendental function is evaluated in double
 * and rounded once, when it is stored (spec/numerics.md). */
#include "forward.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops.h"

typedef gemma4_real real;

/* ---------------------------------------------------------------- weights */

/* bf16 is the upper half of a float32: the same sign and exponent, a mantissa of 7 bits. */
static float bf16_to_float(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/* IEEE half precision: 1 sign, 5 exponent and 10 mantissa bits. */
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
        magnitude = ldexpf((float)(1024 + mantissa), exponent - 25); /* 1024: the leading one */
    return bits & 0x8000 ? -magnitude : magnitude;
}

/* Weights are widened where they are read and never stored wide: a checkpoint is mapped, not
 * loaded. */
float gemma4_weight_at(const gemma4_weight *w, size_t index)
{
    switch (w->dtype) {
    case GEMMA4_BF16: return bf16_to_float(((const uint16_t *)w->data)[index]);
    case GEMMA4_F16: return f16_to_float(((const uint16_t *)w->data)[index]);
    case GEMMA4_QUANTISED: return gemma4_quantised_at(w->data, index / w->cols, index % w->cols);
    default: return ((const float *)w->data)[index];
    }
}

void gemma4_weight_row(float *out, const gemma4_weight *w, size_t row)
{
    if (w->dtype == GEMMA4_QUANTISED) {
        gemma4_quantised_row(out, w->data, row, w->cols);
        return;
    }
    const uint16_t *bits = (const uint16_t *)w->data + row * w->cols;
    /* bf16, as all weights of the published checkpoint are: without the switch in the loop. */
    if (w->dtype == GEMMA4_BF16) {
        for (size_t i = 0; i < w->cols; i++)
            out[i] = bf16_to_float(bits[i]);
        return;
    }
    for (size_t i = 0; i < w->cols; i++)
        out[i] = gemma4_weight_at(w, row * w->cols + i);
}

/* No copy: a stack of experts is one matrix, and an expert is some of its rows. */
gemma4_weight gemma4_weight_rows(const gemma4_weight *w, size_t first_row, size_t rows)
{
    size_t element = gemma4_weight_size(w->dtype);
    gemma4_weight view = *w;
    view.data = (const char *)w->data + first_row * w->cols * element;
    view.rows = rows;
    return view;
}

/* ---------------------------------------------- operators (spec/model.md, 3) */

/* sum of x[i] w[i]: x is (n) activations, w is (n) floats of one weight row. A product of two
 * float32 is exact in double. Four sums run side by side, because one alone would wait for each
 * addition; their order is fixed, so that a result does not depend on how a sequence is cut. */
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

/* How many floats of scratch the operators below take: here one row of a weight, widened. */

size_t gemma4_scratch(size_t cols, size_t T, size_t K)
{
    (void)T, (void)K; /* the twins' scratch depends on them */
    return cols;
}

/* 3.1  y = W x: y is (T, rows), x is (T, cols), W is [rows, cols] as in the checkpoint, where rows
 * is the output's width. No projection of this model has a bias. The weight's row stands in the
 * outer loop, because it is the larger of the two: it is widened once for all positions. */
void gemma4_matmul(real *y, const real *x, const gemma4_weight *w, size_t T, float *w_row)
{
    for (size_t o = 0; o < w->rows; o++) {
        gemma4_weight_row(w_row, w, o);
        for (size_t t = 0; t < T; t++)
            y[t * w->rows + o] = (real)gemma4_dot(x + t * w->cols, w_row, w->cols);
    }
}

/* 3.2  y = x / sqrt(mean(x^2) + eps) * w: x and y are (T, n), w is [n] or NULL. Divides a row by
 * its size and forgets it: what a branch reads then does not grow with the residual stream, which
 * does from layer to layer. No mean is subtracted: that is LayerNorm. */
void gemma4_rmsnorm(real *y, const real *x, const gemma4_weight *w, size_t T, size_t n, double eps)
{
    for (size_t t = 0; t < T; t++) {
        const real *x_t = x + t * n;
        real *y_t = y + t * n;
        double sum_of_squares = 0;
        for (size_t i = 0; i < n; i++)
            sum_of_squares += (double)x_t[i] * (double)x_t[i];
        double scale = 1.0 / sqrt(sum_of_squares / (double)n + eps); /* eps is inside the root */
        /* The weight is used as it is: not 1 + w, as in Gemma 1 to 3. */
        for (size_t i = 0; i < n; i++)
            y_t[i] = (real)((double)x_t[i] * scale * (w ? (double)gemma4_weight_at(w, i) : 1.0));
    }
}

/* 3.5  Rotary position embedding, in place: x is (T, heads, D), row t at position first_position
 * + t. Lane j of a head and lane j + D/2 are the two coordinates of a point, which is turned by
 * an angle proportional to the position. The product of a turned query and a turned key then
 * depends on the distance between them, and on nothing else of their positions. Each pair has a
 * frequency of its own: pair 0 turns by 1 rad a position, each later one more slowly. On full
 * layers only the first quarter of the pairs turns; the slow ones stand still, and match by
 * content at any distance. */
void gemma4_rope(real *x, size_t T, size_t heads, size_t D, size_t pairs, double theta,
                 size_t first_position)
{
    for (size_t j = 0; j < pairs; j++) {
        /* The denominator is the head dim, even where only some of the pairs rotate. All three are
         * rounded to float32, as the definition does: at far positions that moves angles by more
         * than anything else in float32. */
        float exponent = (float)(2 * j) / (float)D;
        float frequency = 1.0f / (float)pow(theta, (double)exponent);
        for (size_t t = 0; t < T; t++) {
            float angle = (float)(first_position + t) * frequency; /* in rad */
            double c = cos((double)angle), s = sin((double)angle);
            for (size_t h = 0; h < heads; h++) {
                real *x_th = x + (t * heads + h) * D;
                /* (a, b) turned by the angle. The partner is half a head away, not next to it. */
                double a = (double)x_th[j], b = (double)x_th[j + D / 2];
                x_th[j] = (real)(a * c - b * s);
                x_th[j + D / 2] = (real)(b * c + a * s);
            }
        }
    }
}

/* 3.4  y = exp(x) / sum(exp(x)) over n values. The largest is subtracted first: the quotient is the
 * same, and no exponential overflows. */
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

/* 3.3  GELU in its tanh form, which the model was trained with. The erf form differs by up to
 * 5e-4. */
double gemma4_gelu_tanh(double x)
{
    const double sqrt_2_over_pi = 0.79788456080286535588; /* the slope of erf(x / sqrt(2)) at 0 */
    return 0.5 * x * (1.0 + tanh(sqrt_2_over_pi * (x + 0.044715 * x * x * x)));
}

/* GeGLU: y, gate and up are (n). One projection (gate), squashed, decides how much of the other
 * (up) goes on. */
void gemma4_geglu(real *y, const real *gate, const real *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = (real)(gemma4_gelu_tanh((double)gate[i]) * (double)up[i]);
}

/* ids is (k): the indices of the k largest of n values, largest first. Of equals the lower index is
 * taken; an engine may take the other one. k is 8: a sort would not be quicker to read. */
void gemma4_top_k(int32_t *ids, size_t k, const real *values, size_t n)
{
    for (size_t rank = 0; rank < k; rank++) {
        int32_t best = -1; /* none yet */
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

/* cap * tanh(x / cap), in place on (n): about x where x is small, never beyond +-cap. Keeps the
 * order of the logits, so greedy text does not show that it is missing; probabilities do. */
void gemma4_softcap(real *x, size_t n, double cap)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (real)(cap * tanh((double)x[i] / cap));
}

/* 4.5  The first half of the chosen experts: act is (T, K, M), x is (T, d), gate_up_proj is
 * [E * 2M, d], ids is (T, K). An expert is a small gated MLP like the dense one; only the K experts
 * that ids names are touched, which is why 3.8 of 25.2 billion parameters work on a token. */
void gemma4_experts_act(real *act, const real *x, const gemma4_weight *gate_up_proj,
                        const int32_t *ids, size_t T, size_t K, size_t M, float *w_row)
{
    size_t d = gate_up_proj->cols;
    for (size_t t = 0; t < T; t++)
        for (size_t r = 0; r < K; r++) {
            size_t first_row = (size_t)ids[t * K + r] * 2 * M; /* M gate rows, then M up rows */
            for (size_t m = 0; m < M; m++) {
                gemma4_weight_row(w_row, gate_up_proj, first_row + m);
                real gate = (real)gemma4_dot(x + t * d, w_row, d);
                gemma4_weight_row(w_row, gate_up_proj, first_row + M + m);
                real up = (real)gemma4_dot(x + t * d, w_row, d);
                gemma4_geglu(act + (t * K + r) * M + m, &gate, &up, 1);
            }
        }
}

/* 4.5  The second half: y is (T, d), act is (T, K, M), down_proj is [E * d, M], ids and weights are
 * (T, K). Each chosen expert's output, times its routing weight, summed. */
void gemma4_experts_out(real *y, const real *act, const gemma4_weight *down_proj,
                        const int32_t *ids, const real *weights, size_t T, size_t K, size_t d,
                        float *w_row)
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

/* y = a + b over n values; y may be either of them. */
static void add(real *y, const real *a, const real *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = a[i] + b[i];
}

/* ---------------------------------------------------------------- session */

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
    size_t length;    /* positions seen before the chunk at hand */
    kv_cache *caches; /* one a layer */
    gemma4_ops ops;   /* the scalar ones, or their twins */
    gemma4_tap_hook hook; /* called after every step; NULL: nobody listens */
    void *hook_context;
    bool hide_probs; /* from the hook */
    int failed;      /* a tap's hook has failed */
    gemma4_error *error; /* of the call at hand: where a failing hook leaves its message */
};

/* Everything that a layer needs between its steps, for one chunk of T positions. */
typedef struct activations {
    /* Residual stream h, (T, d), is not among them: it outlives the layer. */
    real *x;            /* (T, d) what a branch reads: the residual stream after its norm */
    real *q;            /* (T, H, D) queries: raw, then normed, then turned, all in place */
    real *k, *v;        /* (T, G, D) keys and values, likewise */
    real *probs;        /* (H, session length) scores, then probabilities, of one position */
    real *context;      /* (T, H, D) */
    real *attn;         /* (T, d) attention branch */
    real *gate, *up;    /* (T, F) the dense MLP's two projections; gate then holds their product */
    real *mlp;          /* (T, d) dense branch */
    real *router;       /* (T, d) what router.proj reads */
    real *logits;       /* (T, E) router logits */
    real *router_probs; /* (T, E) softmax over all experts */
    int32_t *expert_ids;  /* (T, K) the chosen ones, best first */
    real *expert_weights; /* (T, K) what each one's output is multiplied by, in the order of ids */
    real *expert_act;   /* (T, K, M) gelu_tanh(gate) * up of each chosen expert */
    real *moe;          /* (T, d) expert branch */
    float *scratch;     /* of the operators: one row of any weight matrix */
} activations;

/* Shows the chunk's rows [first_row, first_row + rows) of a tensor to the hook. A hook that fails
 * stops the forward pass at the end of the layer. */
static void tap_rows(gemma4_session *s, gemma4_tap id, size_t layer, size_t first_row, size_t rows,
                     real *values, int32_t *ids)
{
    if (!s->hook || s->failed)
        return;
    gemma4_tap_event event = {.tap = id, .layer = layer, .row = s->length + first_row,
                              .rows = rows, .values = values, .ids = ids};
    event.dims[1] = 1;
    event.rank = gemma4_tap_dims(&s->model->config, id, layer, 0, event.dims);
    s->failed = s->hook(s->hook_context, &event, s->error) != 0;
}

/* Shows all T rows: values is (T, ...). In a debugger, `break tap if layer == 5` stops after every
 * step of that layer (README.md). */
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
    gemma4_tap_event event = {.tap = id, .layer = layer, .row = s->length + t, .rows = 1,
                              .rank = 2, .values = values, .first_key = first_key,
                              .dims = {s->model->config.num_attention_heads, keys}};
    s->failed = s->hook(s->hook_context, &event, s->error) != 0;
}

/* -------------------------------------------------- steps (spec/model.md, 4) */

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

    /* A twin never holds all scores: it may run where nobody wants to see them. */
    if (s->ops.attention && (!s->hook || s->hide_probs)) {
        size_t window = gemma4_layer_window(c, layer);
        gemma4_keys keys = {G, D, s->length, cache->slots, window, cache->k, cache->v, a->k, a->v};
        s->ops.attention(a->context, a->q, &keys, T, H);
        return;
    }

    for (size_t t = 0; t < T; t++) {
        size_t query = s->length + t; /* position in the session */
        gemma4_visible visible = gemma4_visible_keys(c, layer, query);
        size_t first_key = visible.first, keys = visible.end - visible.first;

        /* scores[h, j] = q[h] . k[j] of the KV head that h reads: heads 0 and 1 read KV head 0, and
         * so on, where H / G is 2. */
        for (size_t h = 0; h < H; h++) {
            const real *q_th = a->q + (t * H + h) * D;
            size_t g = h / (H / G);
            for (size_t j = 0; j < keys; j++) {
                size_t key = first_key + j;
                /* This chunk's keys stand beside the cache until all its queries are done: a ring
                 * of `sliding_window` slots would lose keys that its first queries still see. */
                const real *k = key >= s->length ? a->k + (key - s->length) * G * D
                                                 : cache->k + (key % cache->slots) * G * D;
                double score = 0;
                for (size_t i = 0; i < D; i++)
                    score += (double)q_th[i] * (double)k[g * D + i];
                a->probs[h * keys + j] = (real)score;
            }
        }
        tap_keys(s, GEMMA4_TAP_ATTN_SCORES, layer, t, first_key, keys, a->probs);

        /* probs[h, :] = softmax over the visible keys only: what is masked has no share. */
        for (size_t h = 0; h < H; h++)
            gemma4_softmax(a->probs + h * keys, a->probs + h * keys, keys);
        tap_keys(s, GEMMA4_TAP_ATTN_PROBS, layer, t, first_key, keys, a->probs);

        /* context[h, i] = sum over j of probs[h, j] v[j, i]. Values carry no position: they are
         * what is said, not where. */
        for (size_t h = 0; h < H; h++) {
            size_t g = h / (H / G);
            for (size_t i = 0; i < D; i++) {
                double sum = 0;
                for (size_t j = 0; j < keys; j++) {
                    size_t key = first_key + j;
                    const real *v = key >= s->length ? a->v + (key - s->length) * G * D
                                                     : cache->v + (key % cache->slots) * G * D;
                    sum += (double)a->probs[h * keys + j] * (double)v[g * D + i];
                }
                a->context[(t * H + h) * D + i] = (real)sum;
            }
        }
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
            y[t * d + i] = (real)((double)y[t * d + i] * (double)gemma4_weight_at(scale, i) /
                                  sqrt((double)d));
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

/* ----------------------------------------------------------------- memory */

/* n * width elements of a size, zeroed; *ok becomes 0 where that overflows or memory runs out. */
static void *reals(size_t n, size_t width, size_t size, int *ok)
{
    size_t count;
    void *memory = NULL;
    if (*ok && !__builtin_mul_overflow(n, width, &count))
        memory = calloc(count ? count : 1, size); /* calloc checks count * size */
    *ok = memory != NULL;
    return memory;
}

/* The operators' scratch memory for matrices of at most cols columns. Not cleared: a twin's is
 * megabytes. */
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
    void *all[] = {a->x,    a->q,  a->k,   a->v,      a->probs,  a->context,      a->attn,
                   a->gate, a->up, a->mlp, a->router, a->logits, a->router_probs, a->expert_ids,
                   a->expert_weights, a->expert_act, a->moe, a->scratch};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

/* The widths are the layer's own: full layers have other heads than sliding ones. */
static int activations_new(activations *a, const gemma4_session *s, size_t layer, size_t T,
                           gemma4_error *error)
{
    const gemma4_config *c = &s->model->config;
    size_t d = c->hidden_size, F = c->intermediate_size;
    size_t E = c->num_experts, K = c->top_k_experts, M = c->moe_intermediate_size;
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
    for (size_t i = 0; i < T * d; i++)
        h[i] *= (real)gemma4_weight_at(&w->layer_scalar, 0);
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

/* What a caller may get wrong, before anything is computed: tokens is (T). */
static int check_chunk(const gemma4_session *s, const int32_t *tokens, size_t T,
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

/* The three pieces of gemma4_forward below. Everything after this line checks, allocates and frees:
 * there is no arithmetic in it. */
int gemma4_forward_embed(gemma4_session *session, const int32_t *tokens, size_t T, real *h,
                         gemma4_error *error)
{
    if (check_chunk(session, tokens, T, error))
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
    if (activations_new(&a, session, layer, T, error))
        return -1;
    session->error = error;
    decoder_layer(session, layer, h, &a, T);
    activations_free(&a);
    return session->failed ? -1 : 0;
}

int gemma4_forward_head(gemma4_session *session, size_t T, size_t rows, const real *h, real *logits,
                        gemma4_error *error)
{
    const gemma4_config *c = &session->model->config;
    int ok = 1;
    if (rows > T)
        return gemma4_fail(error,
                           "chunk: expected logits for at most its %zu positions, found %zu", T,
                           rows);
    if (rows == 0)
        return 0;
    real *x = reals(rows, c->hidden_size, sizeof(real), &ok);
    float *scratch = scratch_for(session, c->hidden_size, rows, 0, &ok);
    real *own = logits ? NULL : reals(rows, c->vocab_size, sizeof(real), &ok); /* for the taps */
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
    if (check_chunk(session, tokens, T, error))
        return -1;
    real *h = reals(T, c->hidden_size, sizeof(real), &ok); /* (T, d) the residual stream */
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
    gemma4_session *s = reals(1, 1, sizeof *s, &ok);
    kv_cache *caches = reals(c->num_hidden_layers, 1, sizeof *caches, &ok);
    for (size_t l = 0; l < c->num_hidden_layers && ok; l++) {
        const gemma4_layer_config *lc = &c->layers[l];
        size_t window = gemma4_layer_window(c, l);
        /* 5: a sliding layer never needs more than its window. */
        caches[l].slots = window < capacity ? window : capacity;
        size_t width = lc->num_key_value_heads * lc->head_dim;
        caches[l].k = reals(caches[l].slots, width, sizeof(real), &ok);
        caches[l].v = reals(caches[l].slots, width, sizeof(real), &ok);
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
