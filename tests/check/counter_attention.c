/* Counter-models: scores, probabilities and context, with every mask and cache that goes wrong. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "counter_changes.h"
#include "counter_internal.h"
#include "forward.h"
#include "ops.h"

typedef gemma4_real real;
typedef gemma4_attention_parameters parameters;

static bool is_right(const parameters *a)
{
    bool numbers = a->scale == 1 && a->softcap == 0 && a->window_change == 0;
    bool kinds = a->grouping == GEMMA4_GROUP_NEIGHBOURS && a->cache == GEMMA4_CACHE_RIGHT;
    bool flags = a->scale_inv_sqrt_d || a->scale_inv_sqrt_hidden || a->no_window ||
                 a->window_on_full || a->not_causal || a->excludes_self || a->sink ||
                 a->bf16_probs_sum || a->f16_cache || a->v_head_rolled || a->context_zero;
    return numbers && kinds && !flags;
}

/* The parameters that hold for query t. */
static const parameters *attention_of(const counter *m, const parameters *right, size_t t)
{
    const parameters *a = &m->p->attention;
    counter_chunk chunk = counter_chunk_of(m, t);
    bool continued = chunk.start > 0, decoded = continued && chunk.end - chunk.start == 1;
    return (a->chunked_only && !continued) || (a->decode_only && !decoded) ? right : a;
}

/* ------------------------------------------------------------------ masks */

/* Whether the cache and its mask leave key j to query t, apart from causality and window. */
static bool cached(const counter *m, gemma4_cache_fault fault, size_t t, size_t j)
{
    counter_chunk chunk = counter_chunk_of(m, t);
    size_t W = m->c->sliding_window;
    bool sliding = m->lc->kind == GEMMA4_SLIDING, continued = chunk.start > 0;
    switch (fault) {
    case GEMMA4_CACHE_NO_PAST: return j >= chunk.start;
    case GEMMA4_CACHE_WINDOW_OF_CHUNK_END: return !sliding || j + W >= chunk.end;
    case GEMMA4_CACHE_RING_OVERFLOW: return !sliding || j >= chunk.start || j + W >= chunk.end;
    case GEMMA4_CACHE_STALE: return !continued || j < chunk.start || j == t;
    case GEMMA4_CACHE_FIRST_CHUNK_LOST: return !continued || j >= counter_chunk_of(m, 0).end;
    case GEMMA4_CACHE_SLOT_AS_POSITION: return !sliding || t < W || j % W <= t % W;
    default: return true;
    }
}

/* The layer's window, or the one that stands in its place. */
static size_t window_of(const counter *m, const parameters *a)
{
    size_t window = gemma4_layer_window(m->c, m->step->layer);
    const gemma4_setting *other = counter_setting(m, GEMMA4_PARAMETER_WINDOW);
    if (other)
        return isfinite(other->number) ? (size_t)other->number : SIZE_MAX;
    if (window == SIZE_MAX)
        return a->window_on_full ? m->c->sliding_window : window;
    if (a->no_window)
        return SIZE_MAX;
    long long changed = (long long)window + a->window_change;
    return changed > 0 ? (size_t)changed : 0;
}

/* The keys that the mask leaves to query t: those of gemma4_visible_keys where it is the right
 * one. */
static gemma4_visible unmasked(const counter *m, const parameters *a, size_t t)
{
    counter_chunk chunk = counter_chunk_of(m, t);
    size_t window = window_of(m, a),
           query = a->cache == GEMMA4_CACHE_MASK_OFFSET_ZERO ? t - chunk.start : t;
    gemma4_visible keys = gemma4_visible_through(window, query);
    if (a->not_causal) /* as far ahead as back */
        keys.end = window > SIZE_MAX - query ? SIZE_MAX : query + window;
    if (a->cache == GEMMA4_CACHE_CHUNK_NOT_CAUSAL && keys.end < chunk.end)
        keys.end = chunk.end;
    return keys;
}

/* Whether the mask that stands in place of the right one leaves key j to query t. */
static bool seen_through(const gemma4_setting *mask, gemma4_visible keys, size_t t, size_t j)
{
    long long n = (long long)mask->number, query = (long long)t, key = (long long)j;
    bool right = keys.first <= j && j < keys.end;
    switch ((gemma4_mask)mask->word) {
    case GEMMA4_MASK_NOT_CAUSAL: return keys.first <= j;
    case GEMMA4_MASK_OFFSET: return keys.first <= j && key <= query + n;
    case GEMMA4_MASK_FIRST_HIDDEN: return right && (key >= n || j == t);
    case GEMMA4_MASK_BLOCKS: return right && key / n == query / n;
    default: return right && key != query;
    }
}

bool gemma4_mask_leaves(const gemma4_config *c, size_t layer, const gemma4_setting *mask,
                        size_t chunk_end, size_t t, size_t j)
{
    size_t window = gemma4_layer_window(c, layer);
    if (mask->parameter == GEMMA4_PARAMETER_WINDOW)
        window = isfinite(mask->number) ? (size_t)mask->number : SIZE_MAX;
    gemma4_visible keys = gemma4_visible_through(window, t);
    bool seen = mask->parameter == GEMMA4_PARAMETER_WINDOW ? keys.first <= j && j < keys.end
                                                           : seen_through(mask, keys, t, j);
    return seen && j < chunk_end;
}

/* Whether query t sees key j. */
static bool visible(const counter *m, const parameters *a, size_t t, size_t j)
{
    gemma4_visible keys = unmasked(m, a, t);
    const gemma4_setting *mask = counter_setting(m, GEMMA4_PARAMETER_MASK);
    if (mask)
        /* later keys are not computed yet */
        return j < counter_chunk_of(m, t).end && seen_through(mask, keys, t, j);
    return keys.first <= j && j < keys.end && !(a->excludes_self && j == t) &&
           cached(m, a->cache, t, j);
}

/* ------------------------------------------------------- one query, one head */

/* The KV head that query head h reads. */
static size_t kv_head(const counter *m, gemma4_grouping grouping, size_t h,
                      gemma4_parameter of_tensor)
{
    size_t H = m->c->num_attention_heads, G = m->lc->num_key_value_heads;
    const gemma4_setting *both = counter_setting(m, GEMMA4_PARAMETER_KV_HEAD_OF),
                         *one = counter_setting(m, of_tensor);
    const gemma4_setting *map = one ? one : both;
    if (map && h < map->count)
        return (size_t)map->list[h] % G;
    switch (grouping) {
    case GEMMA4_GROUP_MODULO: return h % G;
    case GEMMA4_GROUP_FIRST: return 0;
    case GEMMA4_GROUP_OTHER_KIND: return h / (H / counter_other_kind(m)->num_key_value_heads) % G;
    default: return h / (H / G);
    }
}

/* Whether key j reads as 0 for query t. */
static bool is_zero(const counter *m, const parameters *a, size_t t, size_t j)
{
    return a->cache == GEMMA4_CACHE_FIRST_CHUNK_ZERO && counter_chunk_of(m, t).start > 0 &&
           j < counter_chunk_of(m, 0).end;
}

/* q . k, scaled and soft-capped as the parameters say: q and k are (D). */
static real score_of(const counter *m, const parameters *a, const real *q, const real *k)
{
    size_t D = m->lc->head_dim;
    const gemma4_setting *other_scale = counter_setting(m, GEMMA4_PARAMETER_ATTN_SCALE),
                         *cap = counter_setting(m, GEMMA4_PARAMETER_ATTN_SOFTCAP);
    double score = 0, scale = other_scale ? other_scale->number : a->scale,
           softcap = cap ? cap->number : a->softcap;
    for (size_t i = 0; i < D; i++)
        score += (double)q[i] * (a->f16_cache ? counter_f16((double)k[i]) : (double)k[i]);
    if (a->scale_inv_sqrt_d)
        scale /= sqrt((double)D);
    if (a->scale_inv_sqrt_hidden)
        scale /= sqrt((double)m->d / (double)m->c->num_attention_heads);
    score *= scale;
    return (real)(softcap > 0 ? softcap * tanh(score / softcap) : score);
}

/* row is (T): the score of every visible key, 0 elsewhere. */
static void score_row(const counter *m, const parameters *a, const real *q, const real *k, size_t t,
                      size_t h, real *row)
{
    size_t H = m->c->num_attention_heads, G = m->lc->num_key_value_heads, D = m->lc->head_dim,
           g = kv_head(m, a->grouping, h, GEMMA4_PARAMETER_K_HEAD_OF);
    for (size_t j = 0; j < m->T; j++) {
        bool read = visible(m, a, t, j) && !is_zero(m, a, t, j);
        row[j] = read ? score_of(m, a, q + (t * H + h) * D, k + (j * G + g) * D) : 0;
    }
}

/* y = exp(x) / sum(exp(x)) over n values, in place. */
static void softmax(real *x, size_t n, const parameters *a)
{
    double largest = a->sink ? 0 : -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, (double)x[i]);
    for (size_t i = 0; i < n; i++)
        sum = a->bf16_probs_sum ? counter_bf16(sum + exp((double)x[i] - largest))
                                : sum + exp((double)x[i] - largest);
    if (a->sink)
        sum += exp(-largest);
    for (size_t i = 0; i < n; i++)
        x[i] = (real)(exp((double)x[i] - largest) / sum);
}

/* Turns a row of scores, (T), into probabilities: softmax over the visible keys, 0 elsewhere. */
static void prob_row(const counter *m, const parameters *a, size_t t, real *row)
{
    size_t n = 0;
    for (size_t j = 0; j < m->T; j++)
        if (visible(m, a, t, j))
            row[n++] = row[j];
    softmax(row, n, a);
    for (size_t j = m->T; j-- > 0;) /* back to where they came from, from behind: n <= j + 1 */
        row[j] = visible(m, a, t, j) ? row[--n] : 0;
}

/* context is (D): the sum over keys of probability times value; sums is scratch for D doubles. */
static void context_row(const counter *m, const parameters *a, const real *v, size_t t, size_t h,
                        const real *probs, double *sums, real *context)
{
    size_t G = m->lc->num_key_value_heads, D = m->lc->head_dim;
    size_t g =
        (kv_head(m, a->grouping, h, GEMMA4_PARAMETER_V_HEAD_OF) + (a->v_head_rolled ? 1 : 0)) % G;
    memset(sums, 0, D * sizeof *sums);
    for (size_t j = 0; j < m->T; j++) {
        bool read = (visible(m, a, t, j) || probs[j] != 0) && !is_zero(m, a, t, j);
        const real *v_j = v + (j * G + g) * D;
        for (size_t i = 0; read && i < D; i++)
            sums[i] +=
                (double)probs[j] * (a->f16_cache ? counter_f16((double)v_j[i]) : (double)v_j[i]);
    }
    for (size_t i = 0; i < D; i++)
        context[i] = a->context_zero ? 0 : (real)sums[i];
}

/* ------------------------------------------------------------------- steps */

/* What attention reads. Scores and probabilities that the step holds are used where the parameters
 * are the right ones. */
typedef struct inputs {
    const real *q, *k, *v;      /* (T, H, D), (T, G, D), (T, G, D); NULL where not needed */
    const real *scores, *probs; /* (T, H, T) or NULL */
} inputs;

static int find_inputs(const counter *m, inputs *in)
{
    bool right = is_right(&m->p->attention), changed = counter_has_changes(m);
    memset(in, 0, sizeof *in);
    if (right && !changed && m->tap > GEMMA4_TAP_ATTN_SCORES)
        in->scores = m->step->values[GEMMA4_TAP_ATTN_SCORES];
    /* what is held has the right keys only */
    bool masked =
        counter_setting(m, GEMMA4_PARAMETER_MASK) || counter_setting(m, GEMMA4_PARAMETER_WINDOW);
    if (right && !masked && m->tap > GEMMA4_TAP_ATTN_PROBS)
        in->probs = m->step->values[GEMMA4_TAP_ATTN_PROBS];
    bool context = m->tap == GEMMA4_TAP_ATTN_CONTEXT, from_q = !in->scores && !in->probs;
    in->q = from_q ? counter_value(m, GEMMA4_TAP_ATTN_Q_ROPE) : NULL;
    in->k = from_q ? counter_value(m, GEMMA4_TAP_ATTN_K_ROPE) : NULL;
    in->v = context ? counter_value(m, GEMMA4_TAP_ATTN_V_NORM) : NULL;
    return (from_q && (!in->q || !in->k)) || (context && !in->v) ? -1 : 0;
}

/* The tap's row of one query and one head; keys is scratch for T reals. */
static void attention_row(const counter *m, const parameters *a, const inputs *in, size_t t,
                          size_t h, real *keys, double *sums, real *out)
{
    size_t T = m->T, H = m->c->num_attention_heads, D = m->lc->head_dim, row = t * H + h;
    const real *given = in->probs ? in->probs : in->scores;
    if (given)
        memcpy(keys, given + row * T, T * sizeof *keys);
    else
        score_row(m, a, in->q, in->k, t, h, keys);
    if (m->tap != GEMMA4_TAP_ATTN_SCORES && !in->probs)
        prob_row(m, a, t, keys);
    if (m->tap == GEMMA4_TAP_ATTN_CONTEXT)
        context_row(m, a, in->v, t, h, keys, sums, out + row * D);
    else
        memcpy(out + row * T, keys, T * sizeof *out);
}

/* attn.scores, attn.probs and attn.context. */
int counter_attention(const counter *m, real *out)
{
    gemma4_parameters right = gemma4_right_parameters();
    inputs in;
    if (find_inputs(m, &in))
        return -1;
    real *keys = counter_memory(m, m->T, 1, sizeof *keys);
    double *sums = keys ? counter_memory(m, m->lc->head_dim, 1, sizeof *sums) : NULL;
    for (size_t t = 0; sums && t < m->T; t++)
        for (size_t h = 0; h < m->c->num_attention_heads; h++)
            attention_row(m, attention_of(m, &right.attention, t), &in, t, h, keys, sums, out);
    int status = sums ? 0 : -1;
    free(keys);
    free(sums);
    return status;
}
