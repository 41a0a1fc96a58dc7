/* Counter-models: changes that any step may have, whatever it computes: its weights, its inputs or
 * its result in another order, of another type, from elsewhere. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "counter_changes.h"
#include "counter_internal.h"
#include "ops.h"
#include "remembered.h"

typedef gemma4_real real;

/* ------------------------------------------------------------------- orders */

gemma4_axis gemma4_axis_of_values(const gemma4_config *c, gemma4_tap tap, size_t layer, size_t T)
{
    size_t dims[2] = {1, 1}, rank = gemma4_tap_dims(c, tap, layer, T, dims);
    return rank == 2 ? (gemma4_axis){dims[0] * dims[1], dims[0]} : (gemma4_axis){dims[0], 1};
}

/* Blocks of `length` values, `count` of them in each of `outer` groups. */
typedef struct blocks {
    size_t outer, count, length;
} blocks;

static blocks blocks_of(gemma4_axis axis, gemma4_unit unit)
{
    size_t n = axis.values, groups = axis.groups, inner = n / groups;
    switch (unit) {
    case GEMMA4_HALVES: return (blocks){1, 2, n / 2};
    case GEMMA4_GROUPS: return (blocks){1, groups, inner};
    case GEMMA4_LANES_OF_GROUP: return (blocks){groups, inner, 1};
    case GEMMA4_HALVES_OF_GROUP: return (blocks){groups, 2, inner / 2};
    default: return (blocks){1, n, 1};
    }
}

static size_t block_read(const gemma4_setting *s, size_t count, size_t block)
{
    long long shifted = (long long)block + (long long)s->number;
    switch ((gemma4_order)s->word) {
    case GEMMA4_REVERSED: return count - 1 - block;
    case GEMMA4_ROLLED:
        return (size_t)(((shifted % (long long)count) + (long long)count) % (long long)count);
    case GEMMA4_EXCHANGED: return (block ^ 1) < count ? block ^ 1 : block;
    case GEMMA4_WOVEN: return count % 2 ? block : block % 2 * (count / 2) + block / 2;
    case GEMMA4_UNWOVEN:
        return count % 2 ? block : block < count / 2 ? 2 * block : 2 * (block - count / 2) + 1;
    case GEMMA4_REPEATED: return 0;
    case GEMMA4_PERMUTED:
        for (size_t i = 0; i + 1 < s->count; i += 2)
            if ((size_t)s->list[i] == block)
                return (size_t)s->list[i + 1] % count;
        return block;
    default: return block;
    }
}

size_t gemma4_order_read(const gemma4_setting *s, gemma4_axis axis, size_t i)
{
    blocks b = blocks_of(axis, s->unit);
    size_t size = b.count * b.length, group = size ? i / size : 0, at = size ? i % size : 0;
    if (size == 0 || group >= b.outer) /* what halves leave over */
        return i;
    if (s->word == GEMMA4_INTERLEAVED)
        return group * size + at % b.count * b.length + at / b.count;
    if (s->word == GEMMA4_DEINTERLEAVED)
        return group * size + at % b.length * b.count + at / b.length;
    return group * size + block_read(s, b.count, at / b.length) * b.length + at % b.length;
}

static bool is_left_out(const gemma4_setting *s, gemma4_axis axis, size_t i)
{
    blocks b = blocks_of(axis, s->unit);
    size_t block = b.length ? i / b.length % b.count : 0;
    return block >= s->first && block < s->end;
}

/* -------------------------------------------------------------------- types */

/* x in the type; largest: of the row's absolute values, which the integers are scaled by. */
static double in_type(double x, gemma4_number_type type, double largest)
{
    /* engines divide in float32, which decides ties */
    float step = (float)largest / (type == GEMMA4_TYPE_INT8 ? 127 : 7);
    float cut;
    uint32_t bits;
    switch (type) {
    case GEMMA4_TYPE_BF16: return counter_bf16(x);
    case GEMMA4_TYPE_F16: return counter_f16(x);
    case GEMMA4_TYPE_E4M3: return fmax(-448, fmin(448, counter_rounded(x, 4, -9)));
    case GEMMA4_TYPE_E5M2: return fmax(-57344, fmin(57344, counter_rounded(x, 3, -16)));
    case GEMMA4_TYPE_BF16_CUT:
        cut = (float)x;
        memcpy(&bits, &cut, sizeof bits);
        bits &= 0xffff0000u;
        memcpy(&cut, &bits, sizeof cut);
        return (double)cut;
    default: return step > 0 ? (double)(nearbyintf((float)x / step) * step) : 0;
    }
}

static void round_row(real *x, size_t n, gemma4_number_type type)
{
    double largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)x[i]));
    for (size_t i = 0; i < n; i++)
        x[i] = (real)in_type((double)x[i], type, largest);
}

/* -------------------------------------------------- tensors of activations */

/* y is what becomes of x: both are rows of the axis, and do not overlap. */
static void change_row(const gemma4_setting *s, gemma4_axis axis, const real *x, real *y)
{
    size_t width = axis.values;
    switch (s->parameter) {
    case GEMMA4_PARAMETER_INPUT_ORDER:
    case GEMMA4_PARAMETER_RESULT_ORDER:
        for (size_t i = 0; i < width; i++)
            y[i] = x[gemma4_order_read(s, axis, i)];
        return;
    case GEMMA4_PARAMETER_INPUT_ROUNDED:
    case GEMMA4_PARAMETER_RESULT_ROUNDED:
        memcpy(y, x, width * sizeof *y);
        round_row(y, width, (gemma4_number_type)s->word);
        return;
    case GEMMA4_PARAMETER_RESULT_FACTOR:
        for (size_t i = 0; i < width; i++)
            y[i] = (real)((double)x[i] * s->number);
        return;
    case GEMMA4_PARAMETER_RESULT_FACTORS:
        for (size_t i = 0; i < width; i++) /* of a layer of the other kind there may be more factors
                                              than values */
            y[i] =
                (real)((double)x[i] *
                       (s->count && width % s->count == 0 ? s->list[i / (width / s->count)] : 1));
        return;
    case GEMMA4_PARAMETER_RESULT_CLAMPED:
        for (size_t i = 0; i < width; i++)
            y[i] = (real)fmax(-s->number, fmin(s->number, (double)x[i]));
        return;
    case GEMMA4_PARAMETER_RESULT_ZERO:
        for (size_t i = 0; i < width; i++)
            y[i] = is_left_out(s, axis, i) ? 0 : x[i];
        return;
    default: memcpy(y, x, width * sizeof *y);
    }
}

/* A new tensor, to be freed. */
static real *changed_values(const counter *m, const gemma4_setting *s, gemma4_tap tap,
                            const real *x)
{
    gemma4_axis axis = gemma4_axis_of_values(m->c, tap, m->step->layer, m->T);
    real *y = counter_memory(m, m->T, axis.values, sizeof *y);
    for (size_t t = 0; y && t < m->T; t++) {
        long long from =
            (long long)t +
            (s->parameter == GEMMA4_PARAMETER_INPUT_POSITIONS ? (long long)s->number : 0);
        size_t row = from < 0 || from >= (long long)m->T ? t : (size_t)from;
        change_row(s, axis, x + row * axis.values, y + t * axis.values);
    }
    return y;
}

/* ------------------------------------------------------------------ weights */

/* The field of each step's weight. */
static const struct {
    gemma4_tap tap;
    size_t offset;
} weights_of_steps[] = {
    {GEMMA4_TAP_ATTN_NORM, offsetof(gemma4_layer_weights, input_layernorm)},
    {GEMMA4_TAP_ATTN_Q, offsetof(gemma4_layer_weights, q_proj)},
    {GEMMA4_TAP_ATTN_K, offsetof(gemma4_layer_weights, k_proj)},
    {GEMMA4_TAP_ATTN_V, offsetof(gemma4_layer_weights, v_proj)},
    {GEMMA4_TAP_ATTN_Q_NORM, offsetof(gemma4_layer_weights, q_norm)},
    {GEMMA4_TAP_ATTN_K_NORM, offsetof(gemma4_layer_weights, k_norm)},
    {GEMMA4_TAP_ATTN_OUT, offsetof(gemma4_layer_weights, o_proj)},
    {GEMMA4_TAP_ATTN_POST_NORM, offsetof(gemma4_layer_weights, post_attention_layernorm)},
    {GEMMA4_TAP_MLP_NORM, offsetof(gemma4_layer_weights, pre_feedforward_layernorm)},
    {GEMMA4_TAP_MLP_GATE, offsetof(gemma4_layer_weights, gate_proj)},
    {GEMMA4_TAP_MLP_UP, offsetof(gemma4_layer_weights, up_proj)},
    {GEMMA4_TAP_MLP_OUT, offsetof(gemma4_layer_weights, down_proj)},
    {GEMMA4_TAP_MLP_POST_NORM, offsetof(gemma4_layer_weights, post_feedforward_layernorm_1)},
    {GEMMA4_TAP_ROUTER_NORM, offsetof(gemma4_layer_weights, router_scale)},
    {GEMMA4_TAP_ROUTER_LOGITS, offsetof(gemma4_layer_weights, router_proj)},
    {GEMMA4_TAP_ROUTER_TOPK_WEIGHTS, offsetof(gemma4_layer_weights, router_per_expert_scale)},
    {GEMMA4_TAP_MOE_NORM, offsetof(gemma4_layer_weights, pre_feedforward_layernorm_2)},
    {GEMMA4_TAP_MOE_ACT, offsetof(gemma4_layer_weights, experts_gate_up_proj)},
    {GEMMA4_TAP_MOE_OUT, offsetof(gemma4_layer_weights, experts_down_proj)},
    {GEMMA4_TAP_MOE_POST_NORM, offsetof(gemma4_layer_weights, post_feedforward_layernorm_2)},
    {GEMMA4_TAP_FFN_POST_NORM, offsetof(gemma4_layer_weights, post_feedforward_layernorm)},
    {GEMMA4_TAP_LAYER_OUTPUT, offsetof(gemma4_layer_weights, layer_scalar)},
};

size_t gemma4_step_weight(gemma4_tap tap)
{
    for (size_t i = 0; i < sizeof weights_of_steps / sizeof *weights_of_steps; i++)
        if (weights_of_steps[i].tap == tap)
            return weights_of_steps[i].offset;
    return SIZE_MAX;
}

const gemma4_weight *gemma4_weight_field(const gemma4_layer_weights *layer, size_t offset)
{
    return (const gemma4_weight *)((const char *)layer + offset);
}

gemma4_axis gemma4_axis_of_weight(const gemma4_config *c, size_t layer, size_t offset,
                                  const gemma4_weight *w, bool columns)
{
    const gemma4_layer_config *lc = &c->layers[layer];
    size_t groups = 1;
    if (!columns && offset == offsetof(gemma4_layer_weights, q_proj))
        groups = c->num_attention_heads;
    else if (!columns && (offset == offsetof(gemma4_layer_weights, k_proj) ||
                          offset == offsetof(gemma4_layer_weights, v_proj)))
        groups = lc->num_key_value_heads;
    else if (columns && offset == offsetof(gemma4_layer_weights, o_proj))
        groups = c->num_attention_heads;
    else if (!columns && (offset == offsetof(gemma4_layer_weights, experts_gate_up_proj) ||
                          offset == offsetof(gemma4_layer_weights, experts_down_proj)))
        groups = c->num_experts;
    else if (columns && offset == offsetof(gemma4_layer_weights, router_per_expert_scale))
        groups = c->num_experts;
    return (gemma4_axis){columns ? w->cols : w->rows, groups};
}

static double in_form(double w, gemma4_weight_form form)
{
    switch (form) {
    case GEMMA4_FORM_ONE_PLUS: return 1 + w;
    case GEMMA4_FORM_SQUARE: return w * w;
    case GEMMA4_FORM_INVERSE: return 1 / w;
    case GEMMA4_FORM_ROOT: return sqrt(w);
    default: return 1;
    }
}

/* The weight that is read in place of the step's own; its own where there is none of the same
 * shape. */
static gemma4_weight source_of(const counter *m, const gemma4_setting *s, size_t offset,
                               const gemma4_weight *own)
{
    const gemma4_layer_weights *layers = m->step->model->layers;
    long long layer = (long long)m->step->layer;
    if (s->parameter == GEMMA4_PARAMETER_WEIGHT_LAYER)
        layer = s->absolute ? (long long)s->number : layer + (long long)s->number;
    else if (s->parameter == GEMMA4_PARAMETER_WEIGHT_TENSOR ||
             s->parameter == GEMMA4_PARAMETER_NORM_WEIGHT_OF)
        offset = s->weight;
    if (offset == SIZE_MAX || layer < 0 || layer >= (long long)m->c->num_hidden_layers)
        return *own;
    const gemma4_weight *other = gemma4_weight_field(&layers[layer], offset);
    return other->data && other->rows == own->rows && other->cols == own->cols ? *other : *own;
}

/* Is the weight a stack of the experts' matrices? */
static bool is_of_experts(const counter *m)
{
    return m->tap == GEMMA4_TAP_MOE_ACT || m->tap == GEMMA4_TAP_MOE_OUT;
}

/* Does any position read the expert? */
static bool is_read(const counter *m, size_t expert)
{
    for (size_t i = 0; m->step->topk_ids && i < m->T * m->c->top_k_experts; i++)
        if ((size_t)m->step->topk_ids[i] == expert)
            return true;
    return !m->step->topk_ids;
}

/* Row `row` as it lies in memory where each of `groups` blocks is read as [columns, rows]. */
static void transposed_row(float *out, const gemma4_weight *w, size_t groups, size_t row)
{
    size_t rows = w->rows / groups, block = row / rows;
    for (size_t i = 0; i < w->cols; i++)
        out[i] = gemma4_weight_at(w, block * rows * w->cols + i * rows + row % rows);
}

/* Of an expert that the dump never shows, the factor is not known (NaN), and makes no difference
 * there. */
static double known_factor(double factor)
{
    return isnan(factor) ? 1 : factor;
}

/* Row `row` of the weight as it is read; matrices: how many lie in it, one an expert; from: where
 * each column is read from, NULL for its own; scratch holds a row. */
static void changed_row(const gemma4_setting *s, const gemma4_weight *w, gemma4_axis axis,
                        size_t matrices, size_t row, const size_t *from, float *scratch, float *out)
{
    bool ordered = s->parameter == GEMMA4_PARAMETER_WEIGHTS_ORDER;
    if (ordered && s->word == GEMMA4_TRANSPOSED) {
        transposed_row(out, w, matrices, row);
        return;
    }
    gemma4_weight_row(from ? scratch : out, w,
                      ordered && !s->columns ? gemma4_order_read(s, axis, row) : row);
    for (size_t i = 0; from && i < w->cols; i++)
        out[i] = scratch[from[i]];
    for (size_t i = 0; s->parameter == GEMMA4_PARAMETER_WEIGHT_ZERO && i < w->cols; i++)
        if (is_left_out(s, axis, s->columns ? i : row))
            out[i] = 0;
    for (size_t i = 0; s->parameter == GEMMA4_PARAMETER_WEIGHT_FORM && i < w->cols; i++)
        out[i] = (float)in_form((double)out[i], (gemma4_weight_form)s->word);
    for (size_t i = 0; s->parameter == GEMMA4_PARAMETER_WEIGHT_FACTORS && i < w->cols; i++)
        out[i] = (float)((double)out[i] *
                         known_factor(s->list[w->rows == 1 ? i * s->count / w->cols
                                                           : row / (w->rows / s->count)]));
    for (size_t i = 0; s->parameter == GEMMA4_PARAMETER_WEIGHT_FACTOR && i < w->cols; i++)
        out[i] = (float)((double)out[i] * s->number);
    if (s->parameter != GEMMA4_PARAMETER_WEIGHT_ROUNDED)
        return;
    double largest = 0;
    for (size_t i = 0; i < w->cols; i++)
        largest = fmax(largest, fabs((double)out[i]));
    for (size_t i = 0; i < w->cols; i++)
        out[i] = (float)in_type((double)out[i], (gemma4_number_type)s->word, largest);
}

/* The weight is read as it lies elsewhere; nothing is copied. */
static bool is_elsewhere(const gemma4_setting *s)
{
    return s->parameter == GEMMA4_PARAMETER_WEIGHT_LAYER ||
           s->parameter == GEMMA4_PARAMETER_WEIGHT_TENSOR ||
           (s->parameter == GEMMA4_PARAMETER_NORM_WEIGHT_OF && s->weight != SIZE_MAX);
}

/* The rows of the weight as they are read, to data. Of experts, those that are. */
static int make_weight(const counter *m, const gemma4_setting *s, size_t offset,
                       const gemma4_weight *w, const gemma4_weight *source, float *data)
{
    gemma4_axis axis = gemma4_axis_of_weight(m->c, m->step->layer, offset, w, s->columns);
    bool ones = s->parameter == GEMMA4_PARAMETER_NORM_WEIGHT_OF,
         by_column = s->parameter == GEMMA4_PARAMETER_WEIGHTS_ORDER && s->columns;
    size_t *from = counter_memory(m, w->cols, 1, sizeof *from);
    float *scratch = counter_memory(m, w->cols, 1, sizeof *scratch);
    bool ok = from && scratch;
    size_t per_expert = is_of_experts(m) ? w->rows / m->c->num_experts : w->rows;
    for (size_t i = 0; ok && by_column && i < w->cols; i++)
        from[i] = gemma4_order_read(s, axis, i);
    for (size_t row = 0; ok && row < w->rows; row++) {
        float *out = data + row * w->cols;
        if (is_of_experts(m) && row % per_expert == 0 && !is_read(m, row / per_expert)) {
            row += per_expert - 1;
            continue;
        }
        for (size_t i = 0; ones && i < w->cols; i++)
            out[i] = 1;
        if (!ones)
            changed_row(s, source, axis, w->rows / per_expert, row, by_column ? from : NULL,
                        scratch, out);
    }
    free(from);
    free(scratch);
    return ok ? 0 : -1;
}

/* What a changed weight is made of, besides the one that it is made from. */
typedef struct weight_key {
    gemma4_setting setting;
    gemma4_tap tap;
    size_t layer;
    bool read[]; /* [E] experts */
} weight_key;

static weight_key *key_of(const counter *m, const gemma4_setting *s, size_t *bytes)
{
    size_t experts = is_of_experts(m) ? m->c->num_experts : 0;
    *bytes = sizeof(weight_key) + experts * sizeof(bool);
    weight_key *key = counter_memory(m, *bytes, 1, 1);
    if (key) {
        key->setting = *s;
        key->tap = m->tap;
        key->layer = m->step->layer;
    }
    for (size_t e = 0; key && e < experts; e++)
        key->read[e] = is_read(m, e);
    return key;
}

/* *w becomes what the step reads; *data is its memory, to be freed. */
static int change_weight(const counter *m, const gemma4_setting *s, size_t offset, gemma4_weight *w,
                         float **data)
{
    const gemma4_weight source = source_of(m, s, offset, w);
    size_t n = w->rows * w->cols, bytes;
    if (is_elsewhere(s)) {
        *w = source;
        return 0;
    }
    weight_key *key = key_of(m, s, &bytes);
    *data = malloc(n * sizeof **data);
    int status = key && *data ? 0
                              : gemma4_fail(m->error, "%s: out of memory",
                                            gemma4_tap_describe(m->tap)->name);
    if (!status && !gemma4_recall_weight(&source, key, bytes, *data, n)) {
        status = make_weight(m, s, offset, w, &source, *data);
        if (!status)
            gemma4_keep_weight(&source, key, bytes, *data, n);
    }
    free(key);
    if (!status)
        *w = (gemma4_weight){GEMMA4_F32, *data, w->rows, w->cols};
    return status;
}

/* ----------------------------------------------------------------- the step */

static bool changes_weight(gemma4_parameter p)
{
    return p == GEMMA4_PARAMETER_NORM_WEIGHT_OF ||
           (p >= GEMMA4_PARAMETER_WEIGHT_FORM && p <= GEMMA4_PARAMETER_WEIGHT_FACTORS);
}

static bool changes_input(gemma4_parameter p)
{
    return p >= GEMMA4_PARAMETER_STEP_INPUT && p <= GEMMA4_PARAMETER_INPUT_ROUNDED;
}

static bool changes_result(gemma4_parameter p)
{
    return p >= GEMMA4_PARAMETER_RESULT_FACTOR && p <= GEMMA4_PARAMETER_RESULT_CLAMPED;
}

bool counter_has_changes(const counter *m)
{
    for (size_t i = 0; i < m->p->setting_count; i++)
        if (m->p->settings[i]->steps & GEMMA4_STEP(m->tap))
            return true;
    return false;
}

const gemma4_setting *counter_setting(const counter *m, gemma4_parameter parameter)
{
    for (size_t i = 0; i < m->p->setting_count; i++)
        if (m->p->settings[i]->parameter == parameter &&
            m->p->settings[i]->steps & GEMMA4_STEP(m->tap))
            return m->p->settings[i];
    return NULL;
}

static int change_one_weight(const counter *m, const gemma4_setting *s, gemma4_model *model,
                             gemma4_layer_weights *weights, float **data)
{
    size_t offset = gemma4_step_weight(m->tap);
    gemma4_weight *w = offset != SIZE_MAX ? (gemma4_weight *)((char *)weights + offset)
                       : m->tap == GEMMA4_TAP_FINAL_NORM ? &model->norm
                       : m->tap == GEMMA4_TAP_EMBED || m->tap == GEMMA4_TAP_LOGITS_RAW
                           ? &model->embed_tokens
                           : NULL;
    if (!w || !w->data ||
        (offset == SIZE_MAX && s->parameter != GEMMA4_PARAMETER_WEIGHT_FORM &&
         s->parameter != GEMMA4_PARAMETER_WEIGHT_ROUNDED &&
         s->parameter != GEMMA4_PARAMETER_NORM_WEIGHT_OF))
        return 0;
    return change_weight(m, s, offset, w, data);
}

int gemma4_weight_as_read(const gemma4_step *step, const gemma4_setting *s, gemma4_tap tap,
                          gemma4_weight *w, float **made, gemma4_error *error)
{
    const gemma4_config *c = &step->model->config;
    const counter m = {.step = step,
                       .c = c,
                       .lc = &c->layers[step->layer],
                       .w = &step->model->layers[step->layer],
                       .tap = tap,
                       .T = step->T,
                       .d = c->hidden_size,
                       .error = error};
    size_t offset = gemma4_step_weight(tap);
    *made = NULL;
    *w = *gemma4_weight_field(m.w, offset);
    return s && changes_weight(s->parameter) ? change_weight(&m, s, offset, w, made) : 0;
}

static int change_one_input(const counter *m, const gemma4_setting *s, gemma4_step *step,
                            real **made)
{
    gemma4_tap read = s->parameter == GEMMA4_PARAMETER_STEP_INPUT ? s->tensor : s->input;
    const real *x = step->values[read];
    if (!x)
        return gemma4_fail(m->error, "%s: cannot read %s", gemma4_tap_describe(m->tap)->name,
                           gemma4_tap_describe(read)->name);
    if (s->parameter != GEMMA4_PARAMETER_STEP_INPUT && !(*made = changed_values(m, s, read, x)))
        return -1;
    step->values[s->input] = *made ? *made : x;
    return 0;
}

int counter_changed_step(counter *m, int32_t *ids, real *out)
{
    gemma4_step step = *m->step;
    gemma4_model model = *step.model;
    gemma4_layer_weights weights = {0};
    void *made[2 * GEMMA4_SETTINGS] = {0};
    size_t count = 0, width = gemma4_axis_of_values(m->c, m->tap, step.layer, m->T).values;
    int status = 0;
    if (m->w)
        weights = *m->w;
    /* weights that are made here are at an address of this step only: nothing that is made of them
     * is remembered */
    gemma4_remembered *before = gemma4_remember_in(NULL);
    gemma4_remember_in(before);
    for (size_t i = 0; i < m->p->setting_count && !status; i++) {
        const gemma4_setting *s = m->p->settings[i];
        if (!(s->steps & GEMMA4_STEP(m->tap)))
            continue;
        if (changes_weight(s->parameter)) {
            status = change_one_weight(m, s, &model, &weights, (float **)&made[count]);
            if (made[count++])
                gemma4_remember_in(NULL);
        } else if (changes_input(s->parameter))
            status = change_one_input(m, s, &step, (real **)&made[count++]);
    }
    step.model = &model;
    counter changed = *m;
    changed.step = &step;
    changed.w = m->w ? &weights : NULL;
    gemma4_remember_in(NULL);
    status = status ? status : counter_plain_step(&changed, ids, out);
    gemma4_remember_in(before);
    for (size_t i = 0; i < m->p->setting_count && !status && out; i++) {
        const gemma4_setting *s = m->p->settings[i];
        if (!(s->steps & GEMMA4_STEP(m->tap)) || !changes_result(s->parameter))
            continue;
        real *result = changed_values(m, s, m->tap, out);
        status = result ? 0 : -1;
        if (result)
            memcpy(out, result, m->T * width * sizeof *out);
        free(result);
    }
    for (size_t i = 0; i < count; i++)
        free(made[i]);
    return status;
}
