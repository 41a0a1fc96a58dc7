/* Counter-models (tests/check/counter_model.h): which step computes which tap, and the steps on the
 * residual stream. Beside ref/forward.c this reads as the same model with a switch at every place
 * where a port can go wrong. */
#include "counter_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "counter_internal.h"
#include "ops.h"
#include "remembered.h"

typedef gemma4_real real;

gemma4_parameters gemma4_right_parameters(void)
{
    static const gemma4_rope_parameters rope = {.position_scale = 1, .denominator = 1, .pairs = 1};
    gemma4_parameters right;
    memset(&right, 0, sizeof right); /* every enum's right value is 0 */
    for (int norm = 0; norm < GEMMA4_NORM_COUNT; norm++)
        right.norm[norm].weight_of = -1;
    right.q_rope = right.k_rope = right.v_rope = rope;
    right.v_rope.skipped = true;
    right.attention.scale = 1;
    return right;
}

/* ------------------------------------------------------ what steps share */

const real *counter_value(const counter *m, gemma4_tap tap)
{
    char wanted[GEMMA4_TAP_NAME_SIZE], missing[GEMMA4_TAP_NAME_SIZE];
    if (!m->step->values[tap])
        gemma4_fail(m->error, "%s: cannot be computed without %s",
                    gemma4_tap_name(m->tap, m->step->layer, wanted),
                    gemma4_tap_name(tap, m->step->layer, missing));
    return m->step->values[tap];
}

void *counter_memory(const counter *m, size_t n, size_t width, size_t size)
{
    size_t count;
    void *memory = NULL;
    if (!__builtin_mul_overflow(n, width, &count))
        memory = calloc(count ? count : 1, size); /* calloc checks count * size */
    if (!memory)
        gemma4_fail(m->error, "%s: out of memory", gemma4_tap_describe(m->tap)->name);
    return memory;
}

counter_chunk counter_chunk_of(const counter *m, size_t t)
{
    counter_chunk chunk = {m->step->chunk_start ? m->step->chunk_start[t] : 0,
                           m->step->chunk_end ? m->step->chunk_end[t] : m->T};
    return chunk;
}

const gemma4_layer_config *counter_other_kind(const counter *m)
{
    for (size_t l = 0; l < m->c->num_hidden_layers; l++)
        if (m->c->layers[l].kind != m->lc->kind)
            return &m->c->layers[l];
    return m->lc;
}

double counter_rounded(double x, int bits, int smallest)
{
    int exponent;
    if (!isfinite(x) || x == 0)
        return x;
    frexp(x, &exponent);
    int unit = exponent - bits > smallest ? exponent - bits : smallest;
    return ldexp(nearbyint(ldexp(x, -unit)), unit);
}

static double rounded(double x, int bits, int smallest, double largest)
{
    double y = counter_rounded(x, bits, smallest);
    return fabs(y) > largest ? copysign(INFINITY, x) : y;
}

/* The same, fast, for what is a normal number of the type: half a unit is added to the significand,
 * then the rest is cut off. */
static inline double rounded_normal(double x, int bits)
{
    const int cut = 53 - bits;
    uint64_t significand;
    memcpy(&significand, &x, sizeof significand);
    significand += ((uint64_t)1 << (cut - 1)) - 1 + (significand >> cut & 1);
    significand = significand >> cut << cut;
    memcpy(&x, &significand, sizeof x);
    return x;
}

static inline double nearest_bf16(double x)
{
    return fabs(x) >= 0x1p-125 && fabs(x) <= 0x1.fep127 ? rounded_normal(x, 8)
                                                        : rounded(x, 8, -133, 0x1.fep127);
}

static inline double nearest_f16(double x)
{
    return fabs(x) >= 0x1p-13 && fabs(x) <= 65504 ? rounded_normal(x, 11)
                                                  : rounded(x, 11, -24, 65504);
}

double counter_bf16(double x)
{
    return nearest_bf16(x);
}

double counter_f16(double x)
{
    return nearest_f16(x);
}

/* --------------------------------------------- projections of attention */

static inline double add_narrowed(double sum, real x, float w, bool f16)
{
    sum += (double)x * (double)w;
    return f16 ? nearest_f16(sum) : nearest_bf16(sum);
}

/* Each step of a sum that is rounded waits for the last one: four sums go on side by side. Where
 * there are fewer than four left, the last one is computed again. */
enum { SIDE_BY_SIDE = 4 };

static void narrow_dots(double *sums, size_t count, bool f16, const real *x, size_t x_step,
                        const float *w, size_t w_step, size_t n)
{
    size_t last = count - 1, i_1 = last < 1 ? last : 1, i_2 = last < 2 ? last : 2,
           i_3 = last < 3 ? last : 3;
    const real *x_1 = x + i_1 * x_step, *x_2 = x + i_2 * x_step, *x_3 = x + i_3 * x_step;
    const float *w_1 = w + i_1 * w_step, *w_2 = w + i_2 * w_step, *w_3 = w + i_3 * w_step;
    double sum = 0, sum_1 = 0, sum_2 = 0, sum_3 = 0;
    for (size_t k = 0; k < n; k++) {
        sum = add_narrowed(sum, x[k], w[k], f16);
        sum_1 = add_narrowed(sum_1, x_1[k], w_1[k], f16);
        sum_2 = add_narrowed(sum_2, x_2[k], w_2[k], f16);
        sum_3 = add_narrowed(sum_3, x_3[k], w_3[k], f16);
    }
    sums[0] = sum;
    sums[i_1] = sum_1;
    sums[i_2] = sum_2;
    sums[i_3] = sum_3;
}

void counter_dots(const counter *m, double *sums, size_t count, const real *x, size_t x_step,
                  const float *w, size_t w_step, size_t n)
{
    const gemma4_setting *type = counter_setting(m, GEMMA4_PARAMETER_SUM_TYPE);
    bool f16 = type ? type->word == GEMMA4_TYPE_F16 : m->p->expert.f16_accumulate;
    for (size_t i = 0; !type && !f16 && i < count; i++)
        sums[i] = gemma4_dot(x + i * x_step, w + i * w_step, n);
    for (size_t i = 0; (type || f16) && i < count; i += SIDE_BY_SIDE)
        narrow_dots(sums + i, count - i < SIDE_BY_SIDE ? count - i : SIDE_BY_SIDE, f16,
                    x + i * x_step, x_step, w + i * w_step, w_step, n);
}

int counter_matmul(const counter *m, real *y, const real *x, const gemma4_weight *w, size_t rows)
{
    const gemma4_ops ops = gemma4_ops_remembering();
    float *scratch = counter_memory(m, ops.scratch(w->cols, rows, 0), 1, sizeof *scratch);
    if (scratch)
        ops.matmul(y, x, w, rows, scratch);
    free(scratch);
    return scratch ? 0 : -1;
}

/* y = W x of the tensor x that the step reads: y is (T, rows). */
static int project(const counter *m, gemma4_tap x, const gemma4_weight *w, real *y)
{
    const real *input = counter_value(m, x);
    if (input && !counter_setting(m, GEMMA4_PARAMETER_SUM_TYPE))
        return counter_matmul(m, y, input, w, m->T);
    float *w_row = input ? counter_memory(m, w->cols, 1, sizeof *w_row) : NULL;
    double *sums = w_row ? counter_memory(m, m->T, 1, sizeof *sums) : NULL;
    for (size_t o = 0; o < w->rows && sums; o++) {
        gemma4_weight_row(w_row, w, o);
        counter_dots(m, sums, m->T, input, w->cols, w_row, 0, w->cols);
        for (size_t t = 0; t < m->T; t++)
            y[t * w->rows + o] = (real)sums[t];
    }
    free(w_row);
    free(sums);
    return sums ? 0 : -1;
}

/* The order that conversions for interleaved RoPE give a head's lanes: 0, D/2, 1, D/2 + 1 ... */
static int permute_lanes(const counter *m, real *x, size_t heads)
{
    size_t D = m->lc->head_dim;
    real *head = counter_memory(m, D, 1, sizeof *head);
    if (!head)
        return -1;
    for (real *x_th = x; x_th < x + m->T * heads * D; x_th += D) {
        memcpy(head, x_th, D * sizeof *head);
        for (size_t j = 0; j < D / 2; j++) {
            x_th[2 * j] = head[j];
            x_th[2 * j + 1] = head[j + D / 2];
        }
    }
    free(head);
    return 0;
}

static int project_q_or_k(const counter *m, const gemma4_weight *w, size_t heads, real *out)
{
    int status = project(m, GEMMA4_TAP_ATTN_NORM, w, out);
    return !status && m->p->stream.qk_lanes_permuted ? permute_lanes(m, out, heads) : status;
}

/* V: v_proj's output, or on full layers k_proj's, before k_norm and RoPE. */
static int project_v(const counter *m, real *out)
{
    size_t values = m->T * m->lc->num_key_value_heads * m->lc->head_dim;
    if (m->p->v == GEMMA4_V_ZERO) {
        memset(out, 0, values * sizeof *out);
        return 0;
    }
    if (!m->lc->v_is_k && m->p->v != GEMMA4_V_K_RAW)
        return project(m, GEMMA4_TAP_ATTN_NORM, &m->w->v_proj, out);
    const real *k = counter_value(m, GEMMA4_TAP_ATTN_K);
    if (!k)
        return -1;
    memcpy(out, k, values * sizeof *out);
    return 0;
}

/* o_proj reads the context as [H, D]. */
static int project_o(const counter *m, real *out)
{
    size_t H = m->c->num_attention_heads, D = m->lc->head_dim;
    if (!m->p->stream.o_heads_interleaved)
        return project(m, GEMMA4_TAP_ATTN_CONTEXT, &m->w->o_proj, out);
    const real *context = counter_value(m, GEMMA4_TAP_ATTN_CONTEXT);
    real *turned = context ? counter_memory(m, m->T, H * D, sizeof *turned) : NULL;
    int status = -1;
    if (turned) {
        for (size_t t = 0; t < m->T; t++)
            for (size_t h = 0; h < H; h++)
                for (size_t i = 0; i < D; i++)
                    turned[t * H * D + i * H + h] = context[(t * H + h) * D + i];
        status = counter_matmul(m, out, turned, &m->w->o_proj, m->T);
    }
    free(turned);
    return status;
}

/* --------------------------------------------------- the residual stream */

/* E[token] * sqrt(d). */
static int embed(const counter *m, real *out)
{
    const gemma4_stream_parameters *p = &m->p->stream;
    size_t d = m->d;
    double scale = p->no_embed_scale ? 1 : sqrt((double)d);
    if (p->embed_scale_bf16)
        scale = counter_bf16(scale);
    if (p->embed_scale_twice)
        scale *= scale;
    if (!m->step->tokens)
        return gemma4_fail(m->error, "embed: cannot be computed without tokens");
    for (size_t t = 0; t < m->T; t++) {
        int32_t token = m->step->tokens[t];
        if (token < 0 || (size_t)token >= m->c->vocab_size)
            return gemma4_fail(m->error,
                               "token %zu: expected an id below the vocabulary's %zu, found %d", t,
                               m->c->vocab_size, token);
        for (size_t i = 0; i < d; i++)
            out[t * d + i] = (real)((double)gemma4_weight_at(&m->step->model->embed_tokens,
                                                             (size_t)token * d + i) *
                                    scale);
    }
    return 0;
}

/* out = a + b, where a or b may be left out. */
static int add(const counter *m, bool with_a, gemma4_tap a, bool with_b, gemma4_tap b, real *out)
{
    const real *x = with_a ? counter_value(m, a) : NULL;
    const real *y = with_b ? counter_value(m, b) : NULL;
    const gemma4_setting *factors = counter_setting(m, GEMMA4_PARAMETER_RESIDUAL);
    if ((with_a && !x) || (with_b && !y))
        return -1;
    for (size_t i = 0; i < m->T * m->d; i++)
        out[i] = factors && x && y
                     ? (real)(factors->list[0] * (double)x[i] + factors->list[1] * (double)y[i])
                 : x && y ? x[i] + y[i]
                 : x      ? x[i]
                 : y      ? y[i]
                          : 0;
    return 0;
}

static int attn_residual(const counter *m, real *out)
{
    const gemma4_stream_parameters *p = &m->p->stream;
    gemma4_tap stream = p->attn_residual_from_norm ? GEMMA4_TAP_ATTN_NORM : GEMMA4_TAP_LAYER_INPUT;
    return add(m, !p->no_attn_residual, stream, true, GEMMA4_TAP_ATTN_POST_NORM, out);
}

static int ffn_sum(const counter *m, real *out)
{
    const gemma4_stream_parameters *p = &m->p->stream;
    gemma4_tap dense = p->norm_after_sum_only ? GEMMA4_TAP_MLP_OUT : GEMMA4_TAP_MLP_POST_NORM;
    gemma4_tap experts = p->norm_after_sum_only ? GEMMA4_TAP_MOE_OUT : GEMMA4_TAP_MOE_POST_NORM;
    if (add(m, !p->dense_ignored, dense, !p->experts_ignored, experts, out))
        return -1;
    for (size_t i = 0; p->sum_averaged && i < m->T * m->d; i++)
        out[i] /= 2;
    return 0;
}

static int ffn_residual(const counter *m, real *out)
{
    const gemma4_stream_parameters *p = &m->p->stream;
    gemma4_tap stream = p->ffn_residual_from_input  ? GEMMA4_TAP_LAYER_INPUT
                        : p->ffn_residual_from_norm ? GEMMA4_TAP_MLP_NORM
                                                    : GEMMA4_TAP_ATTN_RESIDUAL;
    return add(m, !p->no_ffn_residual, stream, true, GEMMA4_TAP_FFN_POST_NORM, out);
}

static real layer_scalar(const counter *m)
{
    const gemma4_stream_parameters *p = &m->p->stream;
    bool next = p->layer_scalar_of_next && m->step->layer + 1 < m->c->num_hidden_layers;
    const gemma4_layer_weights *w = next ? &m->step->model->layers[m->step->layer + 1] : m->w;
    real scalar = (real)gemma4_weight_at(&w->layer_scalar, 0);
    return p->no_layer_scalar ? 1 : p->layer_scalar_twice ? scalar * scalar : scalar;
}

/* h * layer_scalar: the whole stream, not only what the layer added. */
static int layer_output(const counter *m, real *out)
{
    const gemma4_stream_parameters *p = &m->p->stream;
    real scalar = layer_scalar(m);
    bool partly = p->layer_scalar_on_delta || p->layer_scalar_on_branch;
    const real *h = counter_value(m, p->layer_scalar_on_branch ? GEMMA4_TAP_FFN_POST_NORM
                                                               : GEMMA4_TAP_FFN_RESIDUAL);
    const real *base = !partly
                           ? h
                           : counter_value(m, p->layer_scalar_on_branch ? GEMMA4_TAP_ATTN_RESIDUAL
                                                                        : GEMMA4_TAP_LAYER_INPUT);
    if (!h || !base)
        return -1;
    for (size_t i = 0; i < m->T * m->d; i++)
        out[i] = p->layer_scalar_on_branch  ? base[i] + scalar * h[i]
                 : p->layer_scalar_on_delta ? base[i] + scalar * (h[i] - base[i])
                                            : h[i] * scalar;
    bool normed = p->output_is_final_norm && m->step->layer + 1 == m->c->num_hidden_layers;
    return normed ? counter_norm(m, GEMMA4_NORM_FINAL, out, 1, m->d, out) : 0;
}

/* ---------------------------------------------------------------- the head */

static int final_norm(const counter *m, real *out)
{
    const real *h = counter_value(m, GEMMA4_TAP_LAYER_OUTPUT);
    if (!h)
        return -1;
    if (!m->p->stream.output_is_final_norm)
        return counter_norm(m, GEMMA4_NORM_FINAL, h, 1, m->d, out);
    memcpy(out, h, m->T * m->d * sizeof *out);
    return 0;
}

/* The tied LM head. */
static int logits_raw(const counter *m, real *out)
{
    const gemma4_stream_parameters *p = &m->p->stream;
    gemma4_tap input = p->logits_without_norm ? GEMMA4_TAP_LAYER_OUTPUT : GEMMA4_TAP_FINAL_NORM;
    if (project(m, input, &m->step->model->embed_tokens, out))
        return -1;
    for (size_t i = 0; p->head_scaled && i < m->T * m->c->vocab_size; i++)
        out[i] = (real)((double)out[i] * sqrt((double)m->d));
    return 0;
}

/* cap * tanh(x / cap). */
static int logits(const counter *m, real *out)
{
    const gemma4_stream_parameters *p = &m->p->stream;
    const gemma4_setting *other = counter_setting(m, GEMMA4_PARAMETER_FINAL_SOFTCAP);
    double cap = other            ? other->number
                 : p->softcap > 0 ? p->softcap
                                  : m->c->final_logit_softcapping;
    size_t n = m->T * m->c->vocab_size;
    const real *raw = counter_value(m, GEMMA4_TAP_LOGITS_RAW);
    if (!raw)
        return -1;
    memcpy(out, raw, n * sizeof *out);
    if (!(cap > 0) || isinf(cap) || p->no_softcap)
        return 0;
    gemma4_softcap(out, n, cap);
    if (p->softcap_twice)
        gemma4_softcap(out, n, cap);
    for (size_t i = 0; p->softcap_formula && i < n; i++)
        out[i] = (real)((double)raw[i] * tanh((double)raw[i] / cap));
    return 0;
}

/* ------------------------------------------------------------- which step */

/* A norm of T rows of heads * n values. */
static int norm_of(const counter *m, gemma4_norm norm, gemma4_tap input, size_t heads, size_t n,
                   real *out)
{
    const real *x = counter_value(m, input);
    return x ? counter_norm(m, norm, x, heads, n, out) : -1;
}

/* The head's taps, the embedding, and the residual stream. */
static int stream_step(const counter *m, real *out)
{
    switch (m->tap) {
    case GEMMA4_TAP_EMBED: return embed(m, out);
    case GEMMA4_TAP_ATTN_RESIDUAL: return attn_residual(m, out);
    case GEMMA4_TAP_FFN_SUM: return ffn_sum(m, out);
    case GEMMA4_TAP_FFN_RESIDUAL: return ffn_residual(m, out);
    case GEMMA4_TAP_LAYER_OUTPUT: return layer_output(m, out);
    case GEMMA4_TAP_FINAL_NORM: return final_norm(m, out);
    case GEMMA4_TAP_LOGITS_RAW: return logits_raw(m, out);
    case GEMMA4_TAP_LOGITS: return logits(m, out);
    default:
        return gemma4_fail(m->error, "%s: no step computes it", gemma4_tap_describe(m->tap)->name);
    }
}

static int layer_step(const counter *m, real *out)
{
    size_t H = m->c->num_attention_heads, G = m->lc->num_key_value_heads, D = m->lc->head_dim;
    switch (m->tap) {
    case GEMMA4_TAP_ATTN_NORM:
        return norm_of(m, GEMMA4_NORM_INPUT, GEMMA4_TAP_LAYER_INPUT, 1, m->d, out);
    case GEMMA4_TAP_ATTN_Q: return project_q_or_k(m, &m->w->q_proj, H, out);
    case GEMMA4_TAP_ATTN_K: return project_q_or_k(m, &m->w->k_proj, G, out);
    case GEMMA4_TAP_ATTN_V: return project_v(m, out);
    case GEMMA4_TAP_ATTN_Q_NORM: return norm_of(m, GEMMA4_NORM_Q, GEMMA4_TAP_ATTN_Q, H, D, out);
    case GEMMA4_TAP_ATTN_K_NORM: return norm_of(m, GEMMA4_NORM_K, GEMMA4_TAP_ATTN_K, G, D, out);
    case GEMMA4_TAP_ATTN_V_NORM: return counter_v_norm(m, out);
    case GEMMA4_TAP_ATTN_Q_ROPE:
    case GEMMA4_TAP_ATTN_K_ROPE: return counter_rope(m, out);
    case GEMMA4_TAP_ATTN_SCORES:
    case GEMMA4_TAP_ATTN_PROBS:
    case GEMMA4_TAP_ATTN_CONTEXT: return counter_attention(m, out);
    case GEMMA4_TAP_ATTN_OUT: return project_o(m, out);
    case GEMMA4_TAP_ATTN_POST_NORM:
        return norm_of(m, GEMMA4_NORM_POST_ATTENTION, GEMMA4_TAP_ATTN_OUT, 1, m->d, out);
    case GEMMA4_TAP_MLP_NORM:
    case GEMMA4_TAP_MLP_ACT: return counter_mlp(m, out);
    case GEMMA4_TAP_MLP_GATE:
        return project(m, GEMMA4_TAP_MLP_NORM,
                       m->p->mlp.projections_swapped ? &m->w->up_proj : &m->w->gate_proj, out);
    case GEMMA4_TAP_MLP_UP:
        return project(m, GEMMA4_TAP_MLP_NORM,
                       m->p->mlp.projections_swapped ? &m->w->gate_proj : &m->w->up_proj, out);
    case GEMMA4_TAP_MLP_OUT: return project(m, GEMMA4_TAP_MLP_ACT, &m->w->down_proj, out);
    case GEMMA4_TAP_MLP_POST_NORM:
        return norm_of(m, GEMMA4_NORM_POST_FFN_1, GEMMA4_TAP_MLP_OUT, 1, m->d, out);
    case GEMMA4_TAP_ROUTER_LOGITS:
        return project(m, GEMMA4_TAP_ROUTER_NORM, &m->w->router_proj, out) ? -1
                                                                           : counter_router(m, out);
    case GEMMA4_TAP_ROUTER_NORM:
    case GEMMA4_TAP_ROUTER_PROBS:
    case GEMMA4_TAP_ROUTER_TOPK_NORM:
    case GEMMA4_TAP_ROUTER_TOPK_WEIGHTS: return counter_router(m, out);
    case GEMMA4_TAP_MOE_NORM:
    case GEMMA4_TAP_MOE_ACT:
    case GEMMA4_TAP_MOE_OUT: return counter_experts(m, out);
    case GEMMA4_TAP_MOE_POST_NORM:
        return norm_of(m, GEMMA4_NORM_POST_FFN_2, GEMMA4_TAP_MOE_OUT, 1, m->d, out);
    case GEMMA4_TAP_FFN_POST_NORM:
        return norm_of(m, GEMMA4_NORM_POST_FFN, GEMMA4_TAP_FFN_SUM, 1, m->d, out);
    default: return stream_step(m, out);
    }
}

int counter_plain_step(const counter *m, int32_t *ids, real *out)
{
    if (!m->lc)
        return stream_step(m, out);
    return m->tap == GEMMA4_TAP_ROUTER_TOPK_IDS ? counter_top_k(m, ids) : layer_step(m, out);
}

int gemma4_counter_step(const gemma4_step *step, const gemma4_parameters *parameters,
                        gemma4_tap tap, real *out, int32_t *ids, gemma4_error *error)
{
    const gemma4_config *c = &step->model->config;
    counter m = {.step = step,
                 .p = parameters,
                 .c = c,
                 .tap = tap,
                 .T = step->T,
                 .d = c->hidden_size,
                 .error = error};
    if (gemma4_tap_describe(tap)->per_layer) {
        if (step->layer >= c->num_hidden_layers)
            return gemma4_fail(error, "layer %zu: expected one below %zu", step->layer,
                               c->num_hidden_layers);
        m.lc = &c->layers[step->layer];
        m.w = &step->model->layers[step->layer];
    }
    return counter_has_changes(&m) ? counter_changed_step(&m, ids, out)
                                   : counter_plain_step(&m, ids, out);
}
