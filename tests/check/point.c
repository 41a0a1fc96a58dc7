#include "point.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "counter_changes.h"
#include "thresholds.h"

void gemma4_counter_apply(const gemma4_counter_model *model, gemma4_parameters *p)
{
    const gemma4_point *point = gemma4_point_of(model);
    if (!point) {
        model->change(p);
        return;
    }
    for (size_t i = 0; i < point->count && p->setting_count < GEMMA4_SETTINGS; i++)
        p->settings[p->setting_count++] = &point->settings[i];
}

const gemma4_point *gemma4_point_of(const gemma4_counter_model *model)
{
    return model->change ? NULL : (const gemma4_point *)model;
}

gemma4_tap gemma4_setting_step(const gemma4_setting *s)
{
    int tap = 0;
    while (tap < GEMMA4_TAP_COUNT && !(s->steps & GEMMA4_STEP(tap)))
        tap++;
    return (gemma4_tap)tap;
}

/* -------------------------------------------------------------------- words */

static const char *const types[] = {
    [GEMMA4_TYPE_BF16] = "bfloat16",
    [GEMMA4_TYPE_F16] = "float16",
    [GEMMA4_TYPE_E4M3] = "float8_e4m3",
    [GEMMA4_TYPE_E5M2] = "float8_e5m2",
    [GEMMA4_TYPE_BF16_CUT] = "bfloat16 cut off",
    [GEMMA4_TYPE_INT8] = "int8",
    [GEMMA4_TYPE_INT4] = "int4",
};
static const char *const forms[] = {
    [GEMMA4_FORM_ONE_PLUS] = "1 + w", [GEMMA4_FORM_SQUARE] = "w^2", [GEMMA4_FORM_INVERSE] = "1 / w",
    [GEMMA4_FORM_ROOT] = "sqrt(w)",   [GEMMA4_FORM_ONE] = "1",
};
static const char *const functions[] = {
    [GEMMA4_FUNCTION_RELU] = "relu",
    [GEMMA4_FUNCTION_RELU_SQUARED] = "relu^2",
    [GEMMA4_FUNCTION_SILU] = "silu",
    [GEMMA4_FUNCTION_GELU_ERF] = "gelu_erf",
    [GEMMA4_FUNCTION_QUICK_GELU] = "quick_gelu",
    [GEMMA4_FUNCTION_IDENTITY] = "identity",
    [GEMMA4_FUNCTION_TANH] = "tanh",
    [GEMMA4_FUNCTION_SIGMOID] = "sigmoid",
    [GEMMA4_FUNCTION_SOFTPLUS] = "softplus",
    [GEMMA4_FUNCTION_ELU] = "elu",
    [GEMMA4_FUNCTION_MISH] = "mish",
    [GEMMA4_FUNCTION_LEAKY_RELU] = "leaky_relu",
    [GEMMA4_FUNCTION_SIGMOID_GELU] = "x sigmoid(a x)",
    [GEMMA4_FUNCTION_GELU_CUBIC] = "gelu_tanh with x^3 times",
    [GEMMA4_FUNCTION_CLAMPED] = "gelu_tanh clamped at",
    [GEMMA4_FUNCTION_OF_CLAMPED] = "gelu_tanh of input clamped at",
};
static const char *const operands[] = {
    [GEMMA4_GATE_AND_UP_EXCHANGED] = "exchanged",
    [GEMMA4_GATE_AND_UP_INTERLEAVED] = "interleaved",
    [GEMMA4_UP_MISSING] = "up missing",
    [GEMMA4_GATE_MISSING] = "gate missing",
    [GEMMA4_UP_PLUS_ONE] = "up + 1",
};
static const char *const router_weights[] = {
    [GEMMA4_WEIGHTS_P] = "p",
    [GEMMA4_WEIGHTS_SOFTMAX_P] = "softmax of p",
    [GEMMA4_WEIGHTS_SIGMOID] = "sigmoid",
    [GEMMA4_WEIGHTS_SIGMOID_RAW] = "sigmoid, not normalised",
    [GEMMA4_WEIGHTS_UNIFORM] = "1 / K",
    [GEMMA4_WEIGHTS_SCALED_FIRST] = "scaled before the division",
    [GEMMA4_WEIGHTS_SCALED_BY_RANK] = "scaled by rank",
};
static const char *const pairings[] = {
    [GEMMA4_PAIR_HALF] = "half",
    [GEMMA4_PAIR_CONTIGUOUS] = "contiguous",
    [GEMMA4_PAIR_INTERLEAVED] = "interleaved",
};

/* The fields of a layer's weights by their published names, without what stands around them. */
static const struct {
    size_t offset;
    const char *name;
} fields[] = {
#define FIELD(name)                                 \
    {                                               \
        offsetof(gemma4_layer_weights, name), #name \
    }
#define PART(of, name)                                             \
    {                                                              \
        offsetof(gemma4_layer_weights, of##_##name), #of "." #name \
    }
    FIELD(input_layernorm),
    FIELD(q_proj),
    FIELD(k_proj),
    FIELD(v_proj),
    FIELD(o_proj),
    FIELD(q_norm),
    FIELD(k_norm),
    FIELD(post_attention_layernorm),
    FIELD(pre_feedforward_layernorm),
    FIELD(gate_proj),
    FIELD(up_proj),
    FIELD(down_proj),
    FIELD(post_feedforward_layernorm_1),
    PART(router, proj),
    PART(router, scale),
    PART(router, per_expert_scale),
    FIELD(pre_feedforward_layernorm_2),
    PART(experts, gate_up_proj),
    PART(experts, down_proj),
    FIELD(post_feedforward_layernorm_2),
    FIELD(post_feedforward_layernorm),
    FIELD(layer_scalar),
#undef FIELD
#undef PART
};

const char *gemma4_weight_field_name(size_t offset)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].offset == offset)
            return fields[i].name;
    return "none";
}

/* What the groups of the axis are called. */
static const char *group_word(const gemma4_setting *s)
{
    gemma4_tap tap = gemma4_setting_step(s);
    if (s->parameter == GEMMA4_PARAMETER_WEIGHTS_ORDER ||
        s->parameter == GEMMA4_PARAMETER_WEIGHT_ZERO)
        return tap == GEMMA4_TAP_MOE_ACT || tap == GEMMA4_TAP_MOE_OUT ||
                       tap == GEMMA4_TAP_ROUTER_TOPK_WEIGHTS
                   ? "experts"
                   : "heads";
    gemma4_tap of = s->parameter == GEMMA4_PARAMETER_INPUT_ORDER ? s->input : tap;
    return gemma4_tap_describe(of)->shape[0] == 'K' ? "ranks" : "heads";
}

static void unit_words(const gemma4_setting *s, char *text, size_t size)
{
    const char *group = group_word(s);
    int one = (int)strlen(group) - 1; /* "head" */
    switch (s->unit) {
    case GEMMA4_HALVES: snprintf(text, size, "halves"); return;
    case GEMMA4_GROUPS: snprintf(text, size, "%s", group); return;
    case GEMMA4_LANES_OF_GROUP: snprintf(text, size, "lanes of each %.*s", one, group); return;
    case GEMMA4_HALVES_OF_GROUP: snprintf(text, size, "halves of each %.*s", one, group); return;
    default: snprintf(text, size, "lanes");
    }
}

/* Does a matrix multiply the step's input? Of a vector, there are no rows and columns to tell
 * apart. */
static bool is_matrix_step(gemma4_tap tap)
{
    return gemma4_tap_describe(tap)->sum[0] && tap != GEMMA4_TAP_ATTN_SCORES &&
           tap != GEMMA4_TAP_ATTN_CONTEXT;
}

static void order_words(const gemma4_setting *s, bool matrix, char *text, size_t size)
{
    static const char *const orders[] = {
        [GEMMA4_REVERSED] = "reversed",       [GEMMA4_EXCHANGED] = "exchanged",
        [GEMMA4_INTERLEAVED] = "interleaved", [GEMMA4_DEINTERLEAVED] = "deinterleaved",
        [GEMMA4_WOVEN] = "interleaved",       [GEMMA4_UNWOVEN] = "deinterleaved",
        [GEMMA4_REPEATED] = "repeated",       [GEMMA4_TRANSPOSED] = "transposed",
    };
    char unit[40], rolled[32];
    const char *axis = !matrix || !is_matrix_step(gemma4_setting_step(s)) ? ""
                       : s->columns                                       ? "columns "
                                                                          : "rows ";
    if (s->word == GEMMA4_TRANSPOSED) {
        snprintf(text, size, "transposed");
        return;
    }
    gemma4_setting said = *s;
    bool halves = s->unit == GEMMA4_HALVES || s->unit == GEMMA4_HALVES_OF_GROUP;
    /* two halves, lane by lane */
    if (halves && s->word != GEMMA4_REVERSED && s->word != GEMMA4_REPEATED)
        said.unit = s->unit == GEMMA4_HALVES ? GEMMA4_LANES : GEMMA4_LANES_OF_GROUP;
    unit_words(&said, unit, sizeof unit);
    if (halves && s->word == GEMMA4_REVERSED) {
        snprintf(text, size, "%s%s exchanged", axis, unit);
        return;
    }
    if (s->word == GEMMA4_PERMUTED) {
        size_t n = (size_t)snprintf(text, size, "%s%s ", axis, unit);
        for (size_t i = 0; i + 1 < s->count && n + 24 < size; i += 2)
            n += (size_t)snprintf(text + n, size - n, "%s%.0f<-%.0f", i ? ", " : "", s->list[i],
                                  s->list[i + 1]);
        return;
    }
    snprintf(rolled, sizeof rolled, "rolled by %.0f", s->number);
    snprintf(text, size, "%s%s %s", axis, unit,
             s->word == GEMMA4_ROLLED ? rolled : orders[s->word]);
}

static void mask_words(const gemma4_setting *s, char *text, size_t size)
{
    switch ((gemma4_mask)s->word) {
    case GEMMA4_MASK_NOT_CAUSAL: snprintf(text, size, "not causal"); return;
    case GEMMA4_MASK_OFFSET: snprintf(text, size, "offset %.0f", s->number); return;
    case GEMMA4_MASK_FIRST_HIDDEN:
        snprintf(text, size, "first %.0f keys hidden", s->number);
        return;
    case GEMMA4_MASK_BLOCKS: snprintf(text, size, "blocks of %.0f", s->number); return;
    default: snprintf(text, size, "self hidden");
    }
}

static void choice_words(const gemma4_setting *s, const gemma4_config *c, char *text, size_t size)
{
    switch ((gemma4_choice)s->word) {
    case GEMMA4_CHOICE_SMALLEST: snprintf(text, size, "smallest"); return;
    case GEMMA4_CHOICE_SHIFTED: snprintf(text, size, "ids shifted by %.0f", s->number); return;
    case GEMMA4_CHOICE_SKIPPED: snprintf(text, size, "rank %.0f skipped", s->number); return;
    case GEMMA4_CHOICE_GROUPS:
        snprintf(text, size, "best %.0f of each group of %.0f",
                 (double)c->top_k_experts / s->number, (double)c->num_experts / s->number);
        return;
    case GEMMA4_CHOICE_SCALED: snprintf(text, size, "by scaled probabilities"); return;
    default: snprintf(text, size, "by bfloat16 logits");
    }
}

/* Of a long list of factors that are 1 but for a few: those. */
static bool few_words(const gemma4_setting *s, char *text, size_t size)
{
    size_t few = 0, n = (size_t)snprintf(text, size, "[");
    bool unknown = false, factors = s->parameter == GEMMA4_PARAMETER_RESULT_FACTORS ||
                                    s->parameter == GEMMA4_PARAMETER_WEIGHT_FACTORS;
    for (size_t i = 0; i < s->count; i++)
        few += fabs(s->list[i] - 1) > EQUAL_FACTORS;
    for (size_t i = 0; i < s->count; i++)
        unknown = unknown || isnan(s->list[i]);
    if (!factors || s->count <= DESCRIBED_ITEMS || few == 0 || few > DESCRIBED_ITEMS)
        return false;
    for (size_t i = 0; i < s->count && n + 32 < size; i++)
        if (fabs(s->list[i] - 1) > EQUAL_FACTORS)
            n += (size_t)snprintf(text + n, size - n, "%zu: %.6g, ", i, s->list[i]);
    snprintf(text + n, size - n, "others 1%s]", unknown ? " or never seen" : "");
    return true;
}

static void list_words(const double *list, size_t count, char *text, size_t size)
{
    size_t n = (size_t)snprintf(text, size, "[");
    for (size_t i = 0; i < count && n + 24 < size; i++)
        n += isnan(list[i])
                 ? (size_t)snprintf(text + n, size - n, "%s?", i ? ", " : "")
                 : (size_t)snprintf(text + n, size - n, "%s%.6g", i ? ", " : "", list[i]);
    snprintf(text + n, size - n, n + 24 < size ? "]" : ", ...]");
}

/* The ranks of a mask. */
static void rank_words(double mask, char *text, size_t size)
{
    size_t n = (size_t)snprintf(text, size, "[");
    for (unsigned r = 0; r < 52; r++)
        if ((uint64_t)mask >> r & 1 && n + 8 < size)
            n += (size_t)snprintf(text + n, size - n, "%s%u", n > 1 ? ", " : "", r);
    snprintf(text + n, size - n, "]");
}

static void word_value(const gemma4_setting *s, const gemma4_config *c, char *text, size_t size)
{
    char unit[40];
    switch (s->parameter) {
    case GEMMA4_PARAMETER_NORM_MEAN: snprintf(text, size, "removed"); return;
    case GEMMA4_PARAMETER_NORM_AXIS: snprintf(text, size, "all heads"); return;
    case GEMMA4_PARAMETER_NORM_WEIGHT_OF:
    case GEMMA4_PARAMETER_WEIGHT_TENSOR:
        snprintf(text, size, "%s", gemma4_weight_field_name(s->weight));
        return;
    case GEMMA4_PARAMETER_WEIGHT_FORM: snprintf(text, size, "%s", forms[s->word]); return;
    case GEMMA4_PARAMETER_WEIGHT_LAYER:
        snprintf(text, size, s->absolute ? "%.0f" : "N%+.0f", s->number);
        return;
    case GEMMA4_PARAMETER_WEIGHTS_ORDER: order_words(s, true, text, size); return;
    case GEMMA4_PARAMETER_INPUT_ORDER:
    case GEMMA4_PARAMETER_RESULT_ORDER: order_words(s, false, text, size); return;
    case GEMMA4_PARAMETER_WEIGHT_ZERO:
    case GEMMA4_PARAMETER_RESULT_ZERO:
        unit_words(s, unit, sizeof unit);
        if (s->unit == GEMMA4_LANES && s->parameter == GEMMA4_PARAMETER_WEIGHT_ZERO)
            snprintf(unit, sizeof unit, "%s", s->columns ? "columns" : "rows");
        snprintf(text, size, "%s %zu-%zu", unit, s->first, s->end - 1);
        return;
    case GEMMA4_PARAMETER_WEIGHT_ROUNDED:
    case GEMMA4_PARAMETER_INPUT_ROUNDED:
    case GEMMA4_PARAMETER_RESULT_ROUNDED:
    case GEMMA4_PARAMETER_ROPE_ROUNDED:
    case GEMMA4_PARAMETER_SUM_TYPE: snprintf(text, size, "%s", types[s->word]); return;
    case GEMMA4_PARAMETER_STEP_INPUT:
        snprintf(text, size, "%s", gemma4_tap_describe(s->tensor)->name);
        return;
    case GEMMA4_PARAMETER_INPUT_POSITIONS: snprintf(text, size, "t%+.0f", s->number); return;
    case GEMMA4_PARAMETER_ROPE_PAIRING: snprintf(text, size, "%s", pairings[s->word]); return;
    case GEMMA4_PARAMETER_ROPE_DIRECTION: snprintf(text, size, "reversed"); return;
    case GEMMA4_PARAMETER_ROPE_TABLE: snprintf(text, size, "other kind"); return;
    case GEMMA4_PARAMETER_MASK: mask_words(s, text, size); return;
    case GEMMA4_PARAMETER_ACTIVATION:
        if (s->word >= GEMMA4_FUNCTION_LEAKY_RELU)
            snprintf(text, size, "%s %.4g", functions[s->word], s->number);
        else
            snprintf(text, size, "%s", functions[s->word]);
        return;
    case GEMMA4_PARAMETER_GATE_AND_UP: snprintf(text, size, "%s", operands[s->word]); return;
    case GEMMA4_PARAMETER_CHOICE: choice_words(s, c, text, size); return;
    case GEMMA4_PARAMETER_ROUTER_WEIGHTS:
        snprintf(text, size, "%s", router_weights[s->word]);
        return;
    default: snprintf(text, size, "%.7g", s->number);
    }
}

void gemma4_setting_value(const gemma4_setting *s, const gemma4_config *c, size_t layer, char *text,
                          size_t size)
{
    (void)layer;
    switch (gemma4_parameter_describe(s->parameter)->domain) {
    case GEMMA4_DOMAIN_LIST:
        if (s->parameter == GEMMA4_PARAMETER_EXPERTS_MISSING)
            rank_words(s->number, text, size);
        else if (!few_words(s, text, size))
            list_words(s->list, s->count, text, size);
        return;
    case GEMMA4_DOMAIN_WORD: word_value(s, c, text, size); return;
    default:
        if (s->parameter == GEMMA4_PARAMETER_ROUTER_POWER)
            snprintf(text, size, "p^%.5g", s->number);
        else if (isfinite(s->number))
            snprintf(text, size, "%.7g", s->number);
        else
            snprintf(text, size, "none");
    }
}

/* ------------------------------------------------------------------ what is right */

void gemma4_setting_expected(const gemma4_setting *s, const gemma4_config *c, size_t layer,
                             char *text, size_t size)
{
    const gemma4_layer_config *lc = &c->layers[layer < c->num_hidden_layers ? layer : 0];
    gemma4_tap tap = gemma4_setting_step(s);
    size_t H = c->num_attention_heads, G = lc->num_key_value_heads,
           offset = gemma4_step_weight(tap);
    double map[GEMMA4_LIST];
    text[0] = '\0';
    switch (s->parameter) {
    case GEMMA4_PARAMETER_EPS: snprintf(text, size, "%.7g", c->rms_norm_eps); return;
    case GEMMA4_PARAMETER_NORM_WEIGHT_OF:
    case GEMMA4_PARAMETER_WEIGHT_TENSOR:
        snprintf(text, size, "%s", offset == SIZE_MAX ? "norm" : gemma4_weight_field_name(offset));
        return;
    case GEMMA4_PARAMETER_WEIGHT_FORM: snprintf(text, size, "w"); return;
    case GEMMA4_PARAMETER_WEIGHT_LAYER: snprintf(text, size, "N"); return;
    case GEMMA4_PARAMETER_STEP_INPUT:
        snprintf(text, size, "%s", gemma4_tap_describe(s->input)->name);
        return;
    case GEMMA4_PARAMETER_INPUT_POSITIONS: snprintf(text, size, "t"); return;
    case GEMMA4_PARAMETER_RESULT_FACTOR:
    case GEMMA4_PARAMETER_WEIGHT_FACTOR:
    case GEMMA4_PARAMETER_ATTN_SCALE:
    case GEMMA4_PARAMETER_ROPE_SCALE: snprintf(text, size, "1"); return;
    case GEMMA4_PARAMETER_ROPE_OFFSET: snprintf(text, size, "0"); return;
    case GEMMA4_PARAMETER_ROPE_THETA: snprintf(text, size, "%.7g", lc->rope_theta); return;
    case GEMMA4_PARAMETER_ROPE_PAIRS:
        snprintf(text, size, "%.7g", 2 * (double)lc->rope_pairs / (double)lc->head_dim);
        return;
    case GEMMA4_PARAMETER_ROPE_PAIRING: snprintf(text, size, "half"); return;
    case GEMMA4_PARAMETER_ROPE_DENOMINATOR: snprintf(text, size, "%zu", lc->head_dim); return;
    case GEMMA4_PARAMETER_WINDOW:
        if (lc->kind == GEMMA4_SLIDING)
            snprintf(text, size, "%zu", c->sliding_window);
        else
            snprintf(text, size, "none");
        return;
    case GEMMA4_PARAMETER_ATTN_SOFTCAP: snprintf(text, size, "none"); return;
    case GEMMA4_PARAMETER_KV_HEAD_OF:
    case GEMMA4_PARAMETER_K_HEAD_OF:
    case GEMMA4_PARAMETER_V_HEAD_OF:
        for (size_t h = 0; h < s->count; h++)
            map[h] = (double)(h / (H / G));
        list_words(map, s->count, text, size);
        return;
    case GEMMA4_PARAMETER_ACTIVATION: snprintf(text, size, "gelu_tanh"); return;
    case GEMMA4_PARAMETER_TOP_K: snprintf(text, size, "%zu", c->top_k_experts); return;
    case GEMMA4_PARAMETER_ROUTER_POWER:
    case GEMMA4_PARAMETER_ROUTER_WEIGHTS: snprintf(text, size, "p / sum of p"); return;
    case GEMMA4_PARAMETER_RESIDUAL: snprintf(text, size, "[1, 1]"); return;
    case GEMMA4_PARAMETER_FINAL_SOFTCAP:
        snprintf(text, size, "%.7g", c->final_logit_softcapping);
        return;
    default: return;
    }
}

/* ------------------------------------------------------------------ points */

const char *gemma4_tensor_of_step(gemma4_tap step)
{
    size_t offset = gemma4_step_weight(step);
    return offset != SIZE_MAX              ? gemma4_weight_field_name(offset)
           : step == GEMMA4_TAP_FINAL_NORM ? "norm"
                                           : "embed_tokens";
}

const char *gemma4_setting_tensor(const gemma4_setting *s)
{
    return gemma4_tensor_of_step(gemma4_setting_step(s));
}

bool gemma4_point_rounds(const gemma4_point *p)
{
    for (size_t i = 0; i < p->count; i++) {
        gemma4_parameter q = p->settings[i].parameter;
        if (q == GEMMA4_PARAMETER_SUM_TYPE || q == GEMMA4_PARAMETER_WEIGHT_ROUNDED ||
            q == GEMMA4_PARAMETER_INPUT_ROUNDED || q == GEMMA4_PARAMETER_RESULT_ROUNDED ||
            q == GEMMA4_PARAMETER_ROPE_ROUNDED)
            return true;
    }
    return false;
}

gemma4_point *gemma4_point_new(const gemma4_config *c, const gemma4_setting *settings, size_t count,
                               int where)
{
    gemma4_point *p = calloc(1, sizeof *p);
    size_t taps = 0;
    if (!p)
        return NULL;
    p->model = (gemma4_counter_model){.id = "identified",
                                      .variant = "",
                                      .section = "space",
                                      .where = where,
                                      .invisible = "",
                                      .seen = ""};
    p->model.wrong = p->wrong;
    p->model.right = p->right;
    p->count = count;
    for (size_t i = 0; i < count; i++) {
        p->settings[i] = settings[i];
        p->low[i] = p->high[i] = settings[i].number;
    }
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        for (size_t i = 0; i < count; i++)
            if (settings[i].steps & GEMMA4_STEP(tap) &&
                taps + 1 < sizeof p->model.taps / sizeof *p->model.taps) {
                p->model.taps[taps++] = (gemma4_tap)tap;
                break;
            }
    p->model.taps[taps] = GEMMA4_TAP_COUNT;
    gemma4_point_say(p, c, 0);
    return p;
}

/* Does setting i belong behind setting k? In dataflow order, then in that of the table. */
static bool is_after(const gemma4_point *p, size_t i, size_t k)
{
    gemma4_tap a = gemma4_setting_step(&p->settings[i]), b = gemma4_setting_step(&p->settings[k]);
    return a != b ? a > b : p->settings[i].parameter > p->settings[k].parameter;
}

void gemma4_point_sort(gemma4_point *p)
{
    for (size_t i = 1; i < p->count; i++)
        for (size_t k = i; k > 0 && is_after(p, k - 1, k); k--) {
            gemma4_setting setting = p->settings[k];
            double low = p->low[k], high = p->high[k];
            p->settings[k] = p->settings[k - 1];
            p->low[k] = p->low[k - 1];
            p->high[k] = p->high[k - 1];
            p->settings[k - 1] = setting;
            p->low[k - 1] = low;
            p->high[k - 1] = high;
        }
}

/* ------------------------------------------------------------ plain numbers */

/* The nearest number of so many decimal digits. */
static double to_digits(double x, size_t digits)
{
    char text[40];
    snprintf(text, sizeof text, "%.*e", (int)digits - 1, x);
    return strtod(text, NULL);
}

size_t gemma4_digits_of(double number)
{
    size_t digits = 1;
    while (digits < 7 && fabs(to_digits(number, digits) - number) > 1e-9 * fabs(number))
        digits++;
    return digits;
}

/* What is made of the config's quantities: coefficient * quantity^power. */
static bool expression_within(const gemma4_config *c, size_t layer, double low, double high,
                              double *number, char *text, size_t size)
{
    const gemma4_layer_config *lc = &c->layers[layer < c->num_hidden_layers ? layer : 0];
    double H = (double)c->num_attention_heads, G = (double)lc->num_key_value_heads,
           K = (double)c->top_k_experts, E = (double)c->num_experts;
    const struct {
        const char *name;
        double value;
    } known[] = {
        {"hidden_size", (double)c->hidden_size},
        {"head_dim", (double)lc->head_dim},
        {"num_hidden_layers", (double)c->num_hidden_layers},
        {"top_k_experts", K},
        {"num_experts", E},
        {"(top_k_experts / num_experts)", E > 0 ? K / E : 0},
        {"num_attention_heads", H},
        {"(num_attention_heads / num_key_value_heads)", H / G},
        {"2", 2},
        {"3", 3},
        {"127", 127},
        {"128", 128},
        {"255", 255},
        {"256", 256},
    };
    static const double powers[] = {1, -1, 0.5, -0.5};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        for (size_t k = 0; k < sizeof powers / sizeof *powers; k++) {
            double value = pow(known[i].value, powers[k]);
            if (value >= low && value <= high && value != 1) {
                *number = value;
                snprintf(text, size, powers[k] == 1 ? "%s" : "%s^%g", known[i].name, powers[k]);
                return true;
            }
        }
    return false;
}

/* Factors that are all the same are one. */
static void merge_factors(gemma4_setting *s, double *low, double *high)
{
    double least = INFINITY, most = -INFINITY;
    for (size_t k = 0; k < s->count; k++) {
        least = fmin(least, s->list[k]);
        most = fmax(most, s->list[k]);
    }
    if (s->parameter != GEMMA4_PARAMETER_RESULT_FACTORS ||
        !(fabs(most - least) <= EQUAL_FACTORS * fabs(most)))
        return;
    s->parameter = GEMMA4_PARAMETER_RESULT_FACTOR;
    s->number = (least + most) / 2;
    s->count = 0;
    *low = least;
    *high = most;
}

/* x sigmoid(a x) has a name for two numbers. */
static void name_function(gemma4_setting *s, double *low, double *high)
{
    if (s->parameter != GEMMA4_PARAMETER_ACTIVATION || s->word != GEMMA4_FUNCTION_SIGMOID_GELU)
        return;
    if (*low <= 1 && *high >= 1)
        s->word = GEMMA4_FUNCTION_SILU;
    else if (*low <= 1.702 && *high >= 1.702)
        s->word = GEMMA4_FUNCTION_QUICK_GELU;
    else
        return;
    s->number = *low = *high = 0;
}

void gemma4_point_recognise(gemma4_point *p, const gemma4_config *c, size_t layer)
{
    for (size_t i = 0; i < p->count; i++) {
        gemma4_setting *s = &p->settings[i];
        name_function(s, &p->low[i], &p->high[i]);
        merge_factors(s, &p->low[i], &p->high[i]);
        double low = p->low[i], high = p->high[i], plain = s->number;
        size_t digits = 1;
        if (!(high > low))
            continue;
        for (; digits < 7; digits++) {
            plain = to_digits(s->number, digits);
            if (plain >= low && plain <= high)
                break;
        }
        if (digits > 2 && expression_within(c, layer, low, high, &plain, p->expression[i],
                                            sizeof p->expression[i]))
            s->number = plain;
        else if (digits < 7)
            s->number = plain;
    }
}

/* ---------------------------------------------------------------- agreement */

/* The same mistake at several steps is one: in shared code or in the config. Of the others, each
 * belongs to its step. */
static bool may_be_anywhere(gemma4_parameter p)
{
    return p == GEMMA4_PARAMETER_EPS || p == GEMMA4_PARAMETER_NORM_MEAN ||
           p == GEMMA4_PARAMETER_NORM_AXIS || p == GEMMA4_PARAMETER_WEIGHT_FORM ||
           (p >= GEMMA4_PARAMETER_ROPE_THETA && p <= GEMMA4_PARAMETER_GATE_AND_UP);
}

/* Entry by entry; of experts, those that both layers show, on average: one that was chosen once is
 * not known well. */
static bool lists_agree(const gemma4_setting *x, const gemma4_setting *y)
{
    bool of_experts = x->parameter == GEMMA4_PARAMETER_WEIGHT_FACTORS;
    double sum = 0;
    size_t common = 0;
    for (size_t k = 0; k < x->count; k++) {
        double away = fabs(x->list[k] - y->list[k]) / (fabs(x->list[k]) + fabs(y->list[k]) + 1e-12);
        if (of_experts && isnan(away))
            continue;
        if (!of_experts && !(away <= AGREED_PART))
            return false;
        sum += away * away;
        common++;
    }
    return !of_experts || (common && sqrt(sum / (double)common) <= AGREED_PART);
}

static bool settings_agree(const gemma4_point *a, const gemma4_point *b, size_t i)
{
    const gemma4_setting *x = &a->settings[i], *y = &b->settings[i];
    if (x->parameter != y->parameter || x->word != y->word || x->unit != y->unit ||
        x->columns != y->columns || x->first != y->first || x->end != y->end ||
        x->weight != y->weight || x->absolute != y->absolute || x->count != y->count ||
        x->input != y->input || x->tensor != y->tensor ||
        (x->steps != y->steps && !may_be_anywhere(x->parameter)))
        return false;
    if (!lists_agree(x, y))
        return false;
    bool solved =
        x->parameter == GEMMA4_PARAMETER_ACTIVATION && x->word >= GEMMA4_FUNCTION_LEAKY_RELU;
    if (gemma4_parameter_describe(x->parameter)->domain != GEMMA4_DOMAIN_REAL && !solved)
        return x->number == y->number || (isinf(x->number) && isinf(y->number));
    double slack = AGREED_PART * fmax(fabs(x->number), fabs(y->number));
    return a->low[i] <= b->high[i] + slack && b->low[i] <= a->high[i] + slack;
}

bool gemma4_points_agree(const gemma4_point *a, const gemma4_point *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (!settings_agree(a, b, i))
            return false;
    return true;
}
