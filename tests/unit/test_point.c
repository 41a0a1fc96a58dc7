/* Points of the space of mistakes (tests/check/point.h): what they say, when two of them are one,
 * and which plain numbers are seen in what was solved for. On the checkpoint
 * golden/checkpoints/tiny: d 64, 4 query heads, 16 experts of which 4 are chosen, 12 layers; layer
 * 0 slides (2 KV heads of 16), layer 5 is full (1 of 32). */
#include "counter_changes.h"
#include "engines.h"
#include "point.h"
#include "suites.h"
#include "support.h"

#include <math.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define AT(tap) GEMMA4_STEP(GEMMA4_TAP_##tap)
#define OF(parameter) GEMMA4_PARAMETER_##parameter
#define WEIGHT(field) offsetof(gemma4_layer_weights, field)

static const gemma4_config *config(void)
{
    return &test_golden_model()->config;
}

static gemma4_point *point_of(const gemma4_setting *settings, size_t count)
{
    gemma4_point *p =
        gemma4_point_new(config(), settings, count, GEMMA4_ON_SLIDING | GEMMA4_ON_FULL);
    ck_assert_ptr_nonnull(p);
    return p;
}

/* --- words --- */

static const struct {
    gemma4_setting setting;
    size_t layer;
    const char *value, *expected;
} WORDS[] = {
    {{.parameter = OF(EPS), .steps = AT(ATTN_NORM), .number = 1e-5}, 0, "1e-05", "1e-06"},
    {{.parameter = OF(NORM_MEAN), .steps = AT(ATTN_NORM)}, 0, "removed", ""},
    {{.parameter = OF(NORM_AXIS), .steps = AT(ATTN_Q_NORM)}, 0, "all heads", ""},
    {{.parameter = OF(NORM_WEIGHT_OF), .steps = AT(ATTN_K_NORM), .weight = WEIGHT(q_norm)},
     0,
     "q_norm",
     "k_norm"},
    {{.parameter = OF(NORM_WEIGHT_OF), .steps = AT(ATTN_K_NORM), .weight = SIZE_MAX},
     0,
     "none",
     "k_norm"},
    {{.parameter = OF(NORM_WEIGHT_OF), .steps = AT(FINAL_NORM), .weight = SIZE_MAX},
     0,
     "none",
     "norm"},
    {{.parameter = OF(WEIGHT_FORM), .steps = AT(ATTN_NORM), .word = GEMMA4_FORM_ONE_PLUS},
     0,
     "1 + w",
     "w"},
    {{.parameter = OF(WEIGHT_FORM), .steps = AT(LAYER_OUTPUT), .word = GEMMA4_FORM_ROOT},
     0,
     "sqrt(w)",
     "w"},
    {{.parameter = OF(WEIGHT_LAYER), .steps = AT(ATTN_Q), .number = 1}, 0, "N+1", "N"},
    {{.parameter = OF(WEIGHT_LAYER), .steps = AT(ATTN_Q), .number = -2}, 3, "N-2", "N"},
    {{.parameter = OF(WEIGHT_LAYER), .steps = AT(ATTN_Q), .number = 5, .absolute = true},
     0,
     "5",
     "N"},
    {{.parameter = OF(WEIGHT_TENSOR), .steps = AT(MLP_GATE), .weight = WEIGHT(up_proj)},
     0,
     "up_proj",
     "gate_proj"},
    {{.parameter = OF(WEIGHTS_ORDER),
      .steps = AT(ATTN_Q),
      .word = GEMMA4_REVERSED,
      .unit = GEMMA4_GROUPS},
     0,
     "rows heads reversed",
     ""},
    {{.parameter = OF(WEIGHTS_ORDER),
      .steps = AT(ATTN_Q),
      .word = GEMMA4_INTERLEAVED,
      .unit = GEMMA4_HALVES_OF_GROUP},
     0,
     "rows lanes of each head interleaved",
     ""},
    {{.parameter = OF(WEIGHTS_ORDER),
      .steps = AT(MLP_OUT),
      .word = GEMMA4_REVERSED,
      .unit = GEMMA4_HALVES,
      .columns = true},
     0,
     "columns halves exchanged",
     ""},
    {{.parameter = OF(WEIGHTS_ORDER),
      .steps = AT(MOE_ACT),
      .word = GEMMA4_ROLLED,
      .number = 3,
      .unit = GEMMA4_GROUPS},
     0,
     "rows experts rolled by 3",
     ""},
    {{.parameter = OF(WEIGHTS_ORDER), .steps = AT(MOE_OUT), .word = GEMMA4_TRANSPOSED},
     0,
     "transposed",
     ""},
    {{.parameter = OF(WEIGHTS_ORDER),
      .steps = AT(MOE_OUT),
      .word = GEMMA4_PERMUTED,
      .unit = GEMMA4_GROUPS,
      .count = 4,
      .list = {1, 2, 2, 1}},
     0,
     "rows experts 1<-2, 2<-1",
     ""},
    {{.parameter = OF(WEIGHTS_ORDER),
      .steps = AT(ATTN_Q),
      .word = GEMMA4_WOVEN,
      .unit = GEMMA4_GROUPS},
     0,
     "rows heads interleaved",
     ""},
    {{.parameter = OF(WEIGHTS_ORDER),
      .steps = AT(MLP_NORM),
      .word = GEMMA4_REVERSED,
      .columns = true},
     0,
     "lanes reversed",
     ""}, /* a vector */
    {{.parameter = OF(WEIGHTS_ORDER),
      .steps = AT(ROUTER_TOPK_WEIGHTS),
      .word = GEMMA4_ROLLED,
      .number = -1,
      .unit = GEMMA4_GROUPS,
      .columns = true},
     0,
     "experts rolled by -1",
     ""},
    {{.parameter = OF(WEIGHT_ZERO), .steps = AT(MLP_GATE), .first = 48, .end = 96},
     0,
     "rows 48-95",
     ""},
    {{.parameter = OF(WEIGHT_ZERO), .steps = AT(MLP_OUT), .columns = true, .end = 48},
     0,
     "columns 0-47",
     ""},
    {{.parameter = OF(WEIGHT_ZERO),
      .steps = AT(ATTN_Q),
      .unit = GEMMA4_GROUPS,
      .first = 2,
      .end = 4},
     0,
     "heads 2-3",
     ""},
    {{.parameter = OF(WEIGHT_ZERO),
      .steps = AT(MOE_OUT),
      .unit = GEMMA4_GROUPS,
      .first = 14,
      .end = 16},
     0,
     "experts 14-15",
     ""},
    {{.parameter = OF(WEIGHT_ROUNDED), .steps = AT(ATTN_Q), .word = GEMMA4_TYPE_E4M3},
     0,
     "float8_e4m3",
     ""},
    {{.parameter = OF(WEIGHT_FACTOR), .steps = AT(MOE_ACT), .number = 0.82}, 0, "0.82", "1"},
    {{.parameter = OF(WEIGHT_FACTORS), .steps = AT(MOE_OUT), .count = 3, .list = {1, 0.5, 1.25}},
     0,
     "[1, 0.5, 1.25]",
     ""},
    {{.parameter = OF(WEIGHT_FACTORS), .steps = AT(MOE_OUT), .count = 3, .list = {1, NAN, 1.25}},
     0,
     "[1, ?, 1.25]",
     ""},
    {{.parameter = OF(WEIGHT_FACTORS),
      .steps = AT(MOE_OUT),
      .count = 9,
      .list = {1, 1, 0.5, 1, 1, 1, 1, 2, 1}},
     0,
     "[2: 0.5, 7: 2, others 1]",
     ""},
    {{.parameter = OF(WEIGHT_FACTORS),
      .steps = AT(MOE_OUT),
      .count = 9,
      .list = {1, 1, 0.5, 1, NAN, 1, 1, 1, 1}},
     0,
     "[2: 0.5, others 1 or never seen]",
     ""},
    {{.parameter = OF(WEIGHT_FACTORS),
      .steps = AT(MOE_OUT),
      .count = 9,
      .list = {2, 2, 2, 2, 2, 2, 2, 2, 3}},
     0,
     "[2, 2, 2, 2, 2, 2, 2, 2, 3]",
     ""},
    {{.parameter = OF(STEP_INPUT),
      .steps = AT(ROUTER_NORM),
      .input = GEMMA4_TAP_ATTN_RESIDUAL,
      .tensor = GEMMA4_TAP_MLP_NORM},
     0,
     "mlp.norm",
     "attn.residual"},
    {{.parameter = OF(INPUT_POSITIONS),
      .steps = AT(ATTN_K),
      .input = GEMMA4_TAP_ATTN_NORM,
      .number = -1},
     0,
     "t-1",
     "t"},
    {{.parameter = OF(INPUT_ORDER),
      .steps = AT(ATTN_OUT),
      .input = GEMMA4_TAP_ATTN_CONTEXT,
      .word = GEMMA4_EXCHANGED,
      .unit = GEMMA4_GROUPS},
     0,
     "heads exchanged",
     ""},
    {{.parameter = OF(INPUT_ORDER),
      .steps = AT(MOE_OUT),
      .input = GEMMA4_TAP_MOE_ACT,
      .word = GEMMA4_REVERSED,
      .unit = GEMMA4_GROUPS},
     0,
     "ranks reversed",
     ""},
    {{.parameter = OF(INPUT_ROUNDED),
      .steps = AT(ATTN_Q),
      .input = GEMMA4_TAP_ATTN_NORM,
      .word = GEMMA4_TYPE_INT8},
     0,
     "int8",
     ""},
    {{.parameter = OF(RESULT_FACTOR), .steps = AT(ATTN_OUT), .number = 0.8}, 0, "0.8", "1"},
    {{.parameter = OF(RESULT_FACTORS),
      .steps = AT(ATTN_CONTEXT),
      .count = 4,
      .list = {1, 1, -1, 0.125}},
     0,
     "[1, 1, -1, 0.125]",
     ""},
    {{.parameter = OF(RESULT_ORDER),
      .steps = AT(ATTN_CONTEXT),
      .word = GEMMA4_DEINTERLEAVED,
      .unit = GEMMA4_LANES_OF_GROUP},
     0,
     "lanes of each head deinterleaved",
     ""},
    {{.parameter = OF(RESULT_ORDER), .steps = AT(ATTN_OUT), .word = GEMMA4_REPEATED},
     0,
     "lanes repeated",
     ""},
    {{.parameter = OF(RESULT_ZERO),
      .steps = AT(ATTN_CONTEXT),
      .unit = GEMMA4_GROUPS,
      .first = 1,
      .end = 3},
     0,
     "heads 1-2",
     ""},
    {{.parameter = OF(RESULT_ZERO), .steps = AT(MLP_OUT), .first = 32, .end = 64},
     0,
     "lanes 32-63",
     ""},
    {{.parameter = OF(RESULT_ROUNDED), .steps = AT(MLP_OUT), .word = GEMMA4_TYPE_BF16_CUT},
     0,
     "bfloat16 cut off",
     ""},
    {{.parameter = OF(RESULT_CLAMPED), .steps = AT(MLP_OUT), .number = 6}, 0, "6", ""},
    {{.parameter = OF(SUM_TYPE), .steps = AT(MLP_OUT), .word = GEMMA4_TYPE_F16}, 0, "float16", ""},
    {{.parameter = OF(ROPE_THETA), .steps = AT(ATTN_Q_ROPE), .number = 5e5}, 0, "500000", "10000"},
    {{.parameter = OF(ROPE_THETA), .steps = AT(ATTN_Q_ROPE), .number = 1e4}, 5, "10000", "1000000"},
    {{.parameter = OF(ROPE_PAIRS), .steps = AT(ATTN_Q_ROPE), .number = 0.5}, 5, "0.5", "0.25"},
    {{.parameter = OF(ROPE_PAIRS), .steps = AT(ATTN_Q_ROPE), .number = 0.5}, 0, "0.5", "1"},
    {{.parameter = OF(ROPE_PAIRING), .steps = AT(ATTN_Q_ROPE), .word = GEMMA4_PAIR_INTERLEAVED},
     0,
     "interleaved",
     "half"},
    {{.parameter = OF(ROPE_DIRECTION), .steps = AT(ATTN_Q_ROPE)}, 0, "reversed", ""},
    {{.parameter = OF(ROPE_OFFSET), .steps = AT(ATTN_Q_ROPE), .number = -1}, 0, "-1", "0"},
    {{.parameter = OF(ROPE_SCALE), .steps = AT(ATTN_Q_ROPE), .number = 0.125}, 0, "0.125", "1"},
    {{.parameter = OF(ROPE_DENOMINATOR), .steps = AT(ATTN_Q_ROPE), .number = 8}, 5, "8", "32"},
    {{.parameter = OF(ROPE_TABLE), .steps = AT(ATTN_Q_ROPE)}, 0, "other kind", ""},
    {{.parameter = OF(ROPE_ROUNDED), .steps = AT(ATTN_Q_ROPE), .word = GEMMA4_TYPE_BF16},
     0,
     "bfloat16",
     ""},
    {{.parameter = OF(WINDOW), .steps = AT(ATTN_CONTEXT), .number = 8}, 0, "8", "16"},
    {{.parameter = OF(WINDOW), .steps = AT(ATTN_CONTEXT), .number = INFINITY}, 0, "none", "16"},
    {{.parameter = OF(WINDOW), .steps = AT(ATTN_CONTEXT), .number = 16}, 5, "16", "none"},
    {{.parameter = OF(MASK), .steps = AT(ATTN_CONTEXT), .word = GEMMA4_MASK_NOT_CAUSAL},
     0,
     "not causal",
     ""},
    {{.parameter = OF(MASK), .steps = AT(ATTN_CONTEXT), .word = GEMMA4_MASK_OFFSET, .number = -1},
     0,
     "offset -1",
     ""},
    {{.parameter = OF(MASK),
      .steps = AT(ATTN_CONTEXT),
      .word = GEMMA4_MASK_FIRST_HIDDEN,
      .number = 2},
     0,
     "first 2 keys hidden",
     ""},
    {{.parameter = OF(MASK), .steps = AT(ATTN_CONTEXT), .word = GEMMA4_MASK_BLOCKS, .number = 16},
     0,
     "blocks of 16",
     ""},
    {{.parameter = OF(MASK), .steps = AT(ATTN_CONTEXT), .word = GEMMA4_MASK_SELF_HIDDEN},
     0,
     "self hidden",
     ""},
    {{.parameter = OF(ATTN_SCALE), .steps = AT(ATTN_CONTEXT), .number = 0.25}, 0, "0.25", "1"},
    {{.parameter = OF(ATTN_SOFTCAP), .steps = AT(ATTN_CONTEXT), .number = 50}, 0, "50", "none"},
    {{.parameter = OF(KV_HEAD_OF), .steps = AT(ATTN_CONTEXT), .count = 4, .list = {0, 1, 0, 1}},
     0,
     "[0, 1, 0, 1]",
     "[0, 0, 1, 1]"},
    {{.parameter = OF(V_HEAD_OF), .steps = AT(ATTN_CONTEXT), .count = 4, .list = {1, 1, 0, 0}},
     0,
     "[1, 1, 0, 0]",
     "[0, 0, 1, 1]"},
    {{.parameter = OF(K_HEAD_OF), .steps = AT(ATTN_CONTEXT), .count = 4, .list = {0, 0, 0, 0}},
     5,
     "[0, 0, 0, 0]",
     "[0, 0, 0, 0]"},
    {{.parameter = OF(ACTIVATION), .steps = AT(MLP_ACT), .word = GEMMA4_FUNCTION_RELU_SQUARED},
     0,
     "relu^2",
     "gelu_tanh"},
    {{.parameter = OF(ACTIVATION),
      .steps = AT(MLP_ACT),
      .word = GEMMA4_FUNCTION_LEAKY_RELU,
      .number = 0.1},
     0,
     "leaky_relu 0.1",
     "gelu_tanh"},
    {{.parameter = OF(ACTIVATION),
      .steps = AT(MLP_ACT),
      .word = GEMMA4_FUNCTION_OF_CLAMPED,
      .number = 7},
     0,
     "gelu_tanh of input clamped at 7",
     "gelu_tanh"},
    {{.parameter = OF(GATE_AND_UP), .steps = AT(MLP_ACT), .word = GEMMA4_UP_PLUS_ONE},
     0,
     "up + 1",
     ""},
    {{.parameter = OF(TOP_K), .steps = AT(MOE_OUT), .number = 2}, 0, "2", "4"},
    {{.parameter = OF(CHOICE), .steps = AT(ROUTER_TOPK_IDS), .word = GEMMA4_CHOICE_SMALLEST},
     0,
     "smallest",
     ""},
    {{.parameter = OF(CHOICE),
      .steps = AT(ROUTER_TOPK_IDS),
      .word = GEMMA4_CHOICE_SHIFTED,
      .number = 1},
     0,
     "ids shifted by 1",
     ""},
    {{.parameter = OF(CHOICE),
      .steps = AT(ROUTER_TOPK_IDS),
      .word = GEMMA4_CHOICE_SKIPPED,
      .number = 0},
     0,
     "rank 0 skipped",
     ""},
    {{.parameter = OF(CHOICE),
      .steps = AT(ROUTER_TOPK_IDS),
      .word = GEMMA4_CHOICE_GROUPS,
      .number = 2},
     0,
     "best 2 of each group of 8",
     ""},
    {{.parameter = OF(CHOICE), .steps = AT(ROUTER_TOPK_IDS), .word = GEMMA4_CHOICE_SCALED},
     0,
     "by scaled probabilities",
     ""},
    {{.parameter = OF(CHOICE), .steps = AT(ROUTER_TOPK_IDS), .word = GEMMA4_CHOICE_ROUNDED},
     0,
     "by bfloat16 logits",
     ""},
    {{.parameter = OF(ROUTER_WEIGHTS),
      .steps = AT(ROUTER_TOPK_NORM),
      .word = GEMMA4_WEIGHTS_SIGMOID_RAW},
     0,
     "sigmoid, not normalised",
     "p / sum of p"},
    {{.parameter = OF(ROUTER_POWER), .steps = AT(ROUTER_TOPK_NORM), .number = 0.5},
     0,
     "p^0.5",
     "p / sum of p"},
    {{.parameter = OF(EXPERTS_MISSING), .steps = AT(MOE_OUT), .number = 5}, 0, "[0, 2]", ""},
    {{.parameter = OF(RESIDUAL), .steps = AT(ATTN_RESIDUAL), .count = 2, .list = {1, 0.5}},
     0,
     "[1, 0.5]",
     "[1, 1]"},
    {{.parameter = OF(FINAL_SOFTCAP), .steps = AT(LOGITS), .number = 50}, 0, "50", "30"},
    {{.parameter = OF(FINAL_SOFTCAP), .steps = AT(LOGITS), .number = INFINITY}, 0, "none", "30"},
};

START_TEST(a_setting_says_what_is_and_what_should_be)
{
    char text[200];
    const gemma4_setting *s = &WORDS[_i].setting;
    gemma4_setting_value(s, config(), WORDS[_i].layer, text, sizeof text);
    ck_assert_str_eq(text, WORDS[_i].value);
    gemma4_setting_expected(s, config(), WORDS[_i].layer, text, sizeof text);
    ck_assert_str_eq(text, WORDS[_i].expected);
}
END_TEST

/* The table is there to be complete. */
START_TEST(every_parameter_says_something)
{
    for (int parameter = 0; parameter < GEMMA4_PARAMETER_COUNT; parameter++) {
        bool found = false;
        for (size_t i = 0; i < COUNT(WORDS); i++)
            found = found || WORDS[i].setting.parameter == (gemma4_parameter)parameter;
        ck_assert_msg(found, "%s", gemma4_parameter_describe((gemma4_parameter)parameter)->name);
    }
}
END_TEST

/* What does not fit says so, and ends within its room. */
START_TEST(a_long_list_is_cut)
{
    char text[64];
    gemma4_setting s = {
        .parameter = OF(RESULT_FACTORS), .steps = AT(ROUTER_LOGITS), .count = GEMMA4_LIST};
    gemma4_setting_value(&s, config(), 0, text, sizeof text);
    ck_assert_uint_lt(strlen(text), sizeof text);
    ck_assert_str_eq(text + strlen(text) - strlen(", ...]"), ", ...]");
}
END_TEST

static const struct {
    gemma4_setting settings[2];
    size_t count;
    double slack; /* the interval is the number +- this part of it */
    const char *expression, *wrong;
} SENTENCES[] = {
    {{{.parameter = OF(EPS), .steps = AT(ATTN_NORM), .number = 1e-4}},
     1,
     1e-3,
     "",
     "rms_norm_eps = 0.0001 (expected 1e-06) at attn.norm"},
    {{{.parameter = OF(EPS), .steps = AT(ATTN_NORM), .number = 1e-4}},
     1,
     0.5,
     "",
     "rms_norm_eps = 0.0001, between 5e-05 and 0.00015 (expected 1e-06) at attn.norm"},
    {{{.parameter = OF(ATTN_SCALE), .steps = AT(ATTN_CONTEXT), .number = 0.25}},
     1,
     0,
     "head_dim^-0.5",
     "attn.scale = 0.25 = head_dim^-0.5 (expected 1)"},
    {{{.parameter = OF(WINDOW), .steps = AT(ATTN_CONTEXT), .number = 8}},
     1,
     0.5,
     "",
     "sliding_window = 8 (expected 16)"},
    {{{.parameter = OF(WEIGHT_LAYER), .steps = AT(ATTN_Q), .number = 1}},
     1,
     0,
     "",
     "weight.layer of q_proj = N+1 (expected N)"},
    {{{.parameter = OF(WEIGHT_FORM), .steps = AT(FINAL_NORM)}},
     1,
     0,
     "",
     "weight.form of norm = 1 + w (expected w)"},
    {{{.parameter = OF(WEIGHT_ROUNDED), .steps = AT(LOGITS_RAW), .word = GEMMA4_TYPE_INT4}},
     1,
     0,
     "",
     "weight.rounded_to of embed_tokens = int4"},
    {{{.parameter = OF(FINAL_SOFTCAP), .steps = AT(LOGITS), .number = INFINITY}},
     1,
     0,
     "",
     "final_logit_softcapping = none (expected 30) at logits"},
    {{{.parameter = OF(TOP_K), .steps = AT(MOE_OUT), .number = 2},
      {.parameter = OF(RESULT_FACTOR), .steps = AT(MOE_OUT), .number = 2}},
     2,
     0,
     "",
     "top_k_experts = 2 (expected 4) at moe.out; result.factor = 2 (expected 1) at moe.out"},
};

START_TEST(a_point_says_a_sentence)
{
    gemma4_point *p = point_of(SENTENCES[_i].settings, SENTENCES[_i].count);
    for (size_t i = 0; i < p->count; i++) {
        p->low[i] -= SENTENCES[_i].slack * fabs(p->settings[i].number);
        p->high[i] += SENTENCES[_i].slack * fabs(p->settings[i].number);
        strcpy(p->expression[i], SENTENCES[_i].expression);
    }
    gemma4_point_say(p, config(), 0);
    ck_assert_str_eq(p->wrong, SENTENCES[_i].wrong);
    ck_assert_ptr_eq(p->model.wrong, p->wrong);
    free(p);
}
END_TEST

/* --- a point is a counter-model --- */

START_TEST(a_point_is_a_counter_model)
{
    const gemma4_setting settings[] = {
        {.parameter = OF(EPS), .steps = AT(MLP_NORM) | AT(ATTN_NORM), .number = 1e-3},
        {.parameter = OF(RESULT_FACTOR), .steps = AT(MLP_NORM) | AT(LAYER_OUTPUT), .number = 2}};
    static const gemma4_tap taps[] = {GEMMA4_TAP_ATTN_NORM, GEMMA4_TAP_MLP_NORM,
                                      GEMMA4_TAP_LAYER_OUTPUT, GEMMA4_TAP_COUNT};
    gemma4_point *p = gemma4_point_new(config(), settings, 2, GEMMA4_ON_FULL);
    ck_assert_ptr_nonnull(p);
    ck_assert_str_eq(p->model.id, "identified");
    for (size_t i = 0; i < COUNT(taps); i++)
        ck_assert_int_eq(p->model.taps[i], taps[i]);
    ck_assert(gemma4_counter_model_acts(&p->model, config(), GEMMA4_TAP_MLP_NORM, 5) &&
              !gemma4_counter_model_acts(&p->model, config(), GEMMA4_TAP_MLP_NORM, 0));
    ck_assert_ptr_eq(gemma4_point_of(&p->model), p);
    ck_assert_ptr_null(gemma4_point_of(gemma4_counter_model_at(0)));
    gemma4_parameters parameters = gemma4_right_parameters();
    gemma4_counter_apply(&p->model, &parameters);
    ck_assert_uint_eq(parameters.setting_count, 2);
    ck_assert_ptr_eq(parameters.settings[1], &p->settings[1]);
    for (size_t i = 0; i < GEMMA4_SETTINGS; i++) /* there is room for so many */
        gemma4_counter_apply(&p->model, &parameters);
    ck_assert_uint_eq(parameters.setting_count, GEMMA4_SETTINGS);
    free(p);
}
END_TEST

/* --- agreement --- */

static const struct {
    gemma4_setting a, b;
    double slack; /* the intervals are the numbers +- this part of them */
    bool agree;
} AGREEMENTS[] = {
    /* numbers: within each other's intervals, and 2 % */
    {{.parameter = OF(EPS), .steps = AT(ATTN_NORM), .number = 1e-4},
     {.parameter = OF(EPS), .steps = AT(ATTN_NORM), .number = 1.019e-4},
     0,
     true},
    {{.parameter = OF(EPS), .steps = AT(ATTN_NORM), .number = 1e-4},
     {.parameter = OF(EPS), .steps = AT(ATTN_NORM), .number = 1.021e-4},
     0,
     false},
    {{.parameter = OF(EPS), .steps = AT(ATTN_NORM), .number = 1e-4},
     {.parameter = OF(EPS), .steps = AT(ATTN_NORM), .number = 1.05e-4},
     0.03,
     true},
    {{.parameter = OF(EPS), .steps = AT(ATTN_NORM), .number = 1e-4},
     {.parameter = OF(EPS), .steps = AT(ATTN_NORM), .number = 1.05e-4},
     0.01,
     false},
    {{.parameter = OF(RESULT_FACTOR), .steps = AT(ATTN_OUT), .number = -1},
     {.parameter = OF(RESULT_FACTOR), .steps = AT(ATTN_OUT), .number = 1},
     0,
     false},
    {{.parameter = OF(WINDOW), .steps = AT(ATTN_CONTEXT), .number = 8},
     {.parameter = OF(WINDOW), .steps = AT(ATTN_CONTEXT), .number = 8},
     0,
     true},
    {{.parameter = OF(WINDOW), .steps = AT(ATTN_CONTEXT), .number = 100},
     {.parameter = OF(WINDOW), .steps = AT(ATTN_CONTEXT), .number = 101},
     0.5,
     false},
    {{.parameter = OF(WINDOW), .steps = AT(ATTN_CONTEXT), .number = INFINITY},
     {.parameter = OF(WINDOW), .steps = AT(ATTN_CONTEXT), .number = INFINITY},
     0,
     true},
    {{.parameter = OF(WINDOW), .steps = AT(ATTN_CONTEXT), .number = INFINITY},
     {.parameter = OF(WINDOW), .steps = AT(ATTN_CONTEXT), .number = 8},
     0,
     false},
    {{.parameter = OF(ACTIVATION),
      .steps = AT(MLP_ACT),
      .word = GEMMA4_FUNCTION_LEAKY_RELU,
      .number = 0.1},
     {.parameter = OF(ACTIVATION),
      .steps = AT(MLP_ACT),
      .word = GEMMA4_FUNCTION_LEAKY_RELU,
      .number = 0.101},
     0,
     true},
    /* lists, entry by entry */
    {{.parameter = OF(KV_HEAD_OF), .steps = AT(ATTN_CONTEXT), .count = 2, .list = {0, 1}},
     {.parameter = OF(KV_HEAD_OF), .steps = AT(ATTN_CONTEXT), .count = 2, .list = {0, 1}},
     0,
     true},
    {{.parameter = OF(KV_HEAD_OF), .steps = AT(ATTN_CONTEXT), .count = 2, .list = {0, 1}},
     {.parameter = OF(KV_HEAD_OF), .steps = AT(ATTN_CONTEXT), .count = 2, .list = {1, 1}},
     0,
     false},
    {{.parameter = OF(KV_HEAD_OF), .steps = AT(ATTN_CONTEXT), .count = 2, .list = {0, 1}},
     {.parameter = OF(KV_HEAD_OF), .steps = AT(ATTN_CONTEXT), .count = 1, .list = {0}},
     0,
     false},
    {{.parameter = OF(RESIDUAL), .steps = AT(FFN_SUM), .count = 2, .list = {1, 0.5}},
     /* 0.0196 of both together */
     {.parameter = OF(RESIDUAL), .steps = AT(FFN_SUM), .count = 2, .list = {1, 0.52}},
     0,
     true},
    {{.parameter = OF(RESIDUAL), .steps = AT(FFN_SUM), .count = 2, .list = {1, 0.5}},
     /* 0.0206 */
     {.parameter = OF(RESIDUAL), .steps = AT(FFN_SUM), .count = 2, .list = {1, 0.521}},
     0,
     false},
    /* experts: those that both have seen, on average */
    {{.parameter = OF(WEIGHT_FACTORS), .steps = AT(MOE_OUT), .count = 3, .list = {1, NAN, 0.5}},
     {.parameter = OF(WEIGHT_FACTORS), .steps = AT(MOE_OUT), .count = 3, .list = {1, 2, NAN}},
     0,
     true},
    {{.parameter = OF(WEIGHT_FACTORS), .steps = AT(MOE_OUT), .count = 3, .list = {1, NAN, 0.5}},
     {.parameter = OF(WEIGHT_FACTORS), .steps = AT(MOE_OUT), .count = 3, .list = {2, 2, NAN}},
     0,
     false},
    {{.parameter = OF(WEIGHT_FACTORS), .steps = AT(MOE_OUT), .count = 3, .list = {1, NAN, 0.5}},
     {.parameter = OF(WEIGHT_FACTORS), .steps = AT(MOE_OUT), .count = 3, .list = {NAN, 2, 0.5}},
     0,
     true},
    {{.parameter = OF(WEIGHT_FACTORS),
      .steps = AT(MOE_OUT),
      .count = 9,
      .list = {1, 1, 1, 1, 1, 1, 1, 1, 1}},
     {.parameter = OF(WEIGHT_FACTORS),
      .steps = AT(MOE_OUT),
      .count = 9,
      .list = {1, 1, 1, 1, 1, 1, 1, 1, 1.1}},
     0,
     true},
    {{.parameter = OF(WEIGHT_FACTORS), .steps = AT(MOE_OUT), .count = 2, .list = {1, 1}},
     /* 0.0277 and 0: 0.0196 */
     {.parameter = OF(WEIGHT_FACTORS), .steps = AT(MOE_OUT), .count = 2, .list = {1, 1.057}},
     0,
     true},
    {{.parameter = OF(WEIGHT_FACTORS), .steps = AT(MOE_OUT), .count = 2, .list = {1, 1}},
     /* 0.0291 and 0: 0.0206 */
     {.parameter = OF(WEIGHT_FACTORS), .steps = AT(MOE_OUT), .count = 2, .list = {1, 1.06}},
     0,
     false},
    {{.parameter = OF(RESULT_FACTORS),
      .steps = AT(ATTN_Q),
      .count = 9,
      .list = {1, 1, 1, 1, 1, 1, 1, 1, 1}},
     {.parameter = OF(RESULT_FACTORS),
      .steps = AT(ATTN_Q),
      .count = 9,
      .list = {1, 1, 1, 1, 1, 1, 1, 1, 1.1}},
     0,
     false},
    /* steps: one mistake in shared code or in the config, but not a change of one step and of
     * another */
    {{.parameter = OF(EPS), .steps = AT(ATTN_NORM), .number = 1e-4},
     {.parameter = OF(EPS), .steps = AT(MLP_NORM), .number = 1e-4},
     0,
     true},
    {{.parameter = OF(ROPE_THETA), .steps = AT(ATTN_Q_ROPE), .number = 1e5},
     {.parameter = OF(ROPE_THETA), .steps = AT(ATTN_K_ROPE), .number = 1e5},
     0,
     true},
    {{.parameter = OF(ACTIVATION), .steps = AT(MLP_ACT)},
     {.parameter = OF(ACTIVATION), .steps = AT(MOE_ACT)},
     0,
     true},
    {{.parameter = OF(RESULT_FACTOR), .steps = AT(ATTN_OUT), .number = 2},
     {.parameter = OF(RESULT_FACTOR), .steps = AT(MLP_OUT), .number = 2},
     0,
     false},
    {{.parameter = OF(WEIGHT_LAYER), .steps = AT(ATTN_Q), .number = 1},
     {.parameter = OF(WEIGHT_LAYER), .steps = AT(ATTN_K), .number = 1},
     0,
     false},
    /* words, and all that a setting says */
    {{.parameter = OF(EPS), .steps = AT(ATTN_NORM), .number = 1},
     {.parameter = OF(RESULT_FACTOR), .steps = AT(ATTN_NORM), .number = 1},
     0,
     false},
    {{.parameter = OF(ACTIVATION), .steps = AT(MLP_ACT)},
     {.parameter = OF(ACTIVATION), .steps = AT(MLP_ACT), .word = GEMMA4_FUNCTION_SILU},
     0,
     false},
    {{.parameter = OF(RESULT_ORDER), .steps = AT(ATTN_Q)},
     {.parameter = OF(RESULT_ORDER), .steps = AT(ATTN_Q), .unit = GEMMA4_GROUPS},
     0,
     false},
    {{.parameter = OF(WEIGHTS_ORDER), .steps = AT(ATTN_Q)},
     {.parameter = OF(WEIGHTS_ORDER), .steps = AT(ATTN_Q), .columns = true},
     0,
     false},
    {{.parameter = OF(WEIGHT_ZERO), .steps = AT(ATTN_Q), .end = 8},
     {.parameter = OF(WEIGHT_ZERO), .steps = AT(ATTN_Q), .end = 16},
     0,
     false},
    {{.parameter = OF(WEIGHT_ZERO), .steps = AT(ATTN_Q), .end = 8},
     {.parameter = OF(WEIGHT_ZERO), .steps = AT(ATTN_Q), .first = 4, .end = 8},
     0,
     false},
    {{.parameter = OF(WEIGHT_TENSOR), .steps = AT(ATTN_Q), .weight = WEIGHT(k_proj)},
     {.parameter = OF(WEIGHT_TENSOR), .steps = AT(ATTN_Q), .weight = WEIGHT(v_proj)},
     0,
     false},
    {{.parameter = OF(WEIGHT_LAYER), .steps = AT(ATTN_Q), .number = 1},
     {.parameter = OF(WEIGHT_LAYER), .steps = AT(ATTN_Q), .number = 1, .absolute = true},
     0,
     false},
    {{.parameter = OF(STEP_INPUT), .steps = AT(ATTN_Q), .input = GEMMA4_TAP_ATTN_NORM},
     {.parameter = OF(STEP_INPUT),
      .steps = AT(ATTN_Q),
      .input = GEMMA4_TAP_ATTN_NORM,
      .tensor = GEMMA4_TAP_LAYER_INPUT},
     0,
     false},
    {{.parameter = OF(INPUT_ROUNDED), .steps = AT(FFN_SUM), .input = GEMMA4_TAP_MLP_POST_NORM},
     {.parameter = OF(INPUT_ROUNDED), .steps = AT(FFN_SUM), .input = GEMMA4_TAP_MOE_POST_NORM},
     0,
     false},
};

static void widen(gemma4_point *p, double slack)
{
    p->low[0] -= slack * fabs(p->settings[0].number);
    p->high[0] += slack * fabs(p->settings[0].number);
}

START_TEST(points_agree_where_they_say_the_same)
{
    gemma4_point *a = point_of(&AGREEMENTS[_i].a, 1), *b = point_of(&AGREEMENTS[_i].b, 1);
    widen(a, AGREEMENTS[_i].slack);
    widen(b, AGREEMENTS[_i].slack);
    ck_assert_int_eq(gemma4_points_agree(a, b), AGREEMENTS[_i].agree);
    ck_assert_int_eq(gemma4_points_agree(b, a), AGREEMENTS[_i].agree);
    ck_assert(gemma4_points_agree(a, a) && gemma4_points_agree(b, b));
    free(a);
    free(b);
}
END_TEST

START_TEST(points_of_more_settings_are_others)
{
    const gemma4_setting settings[] = {
        AGREEMENTS[0].a,
        {.parameter = OF(RESULT_FACTOR), .steps = AT(MLP_OUT), .number = 2},
        {.parameter = OF(RESULT_FACTOR), .steps = AT(MLP_OUT), .number = 3}};
    const gemma4_setting other[] = {settings[0], settings[2]};
    gemma4_point *one = point_of(settings, 1), *two = point_of(settings, 2),
                 *otherwise = point_of(other, 2);
    ck_assert(!gemma4_points_agree(one, two) && !gemma4_points_agree(two, one));
    ck_assert(gemma4_points_agree(two, two));
    ck_assert(!gemma4_points_agree(two, otherwise));
    free(one);
    free(two);
    free(otherwise);
}
END_TEST

/* --- plain numbers --- */

static const struct {
    double number, low, high;
    size_t layer;
    double plain;
    const char *expression;
} PLAIN[] = {
    {0.0312500001, 0.03124, 0.03126, 0, 0.03125, ""},            /* digits */
    {0.0312500001, 0.03124, 0.03126, 5, 0.03125, "head_dim^-1"}, /* where the layer's heads have
                                                                    32 */
    {0.1767767, 0.17677, 0.17678, 5, 0.17677669529663687, "head_dim^-0.5"},
    {0.1767767, 0.17676, 0.176785, 0, 0.17678, ""}, /* where they have 16 */
    {0.24993, 0.2497, 0.2502, 0, 0.25, ""},         /* two digits are plain enough */
    {0.12499, 0.1249, 0.1251, 0, 0.125, "hidden_size^-0.5"},
    {3.4641, 3.4638, 3.4644, 0, 3.4641016151377544, "num_hidden_layers^0.5"},
    {1.4142, 1.4141, 1.4143, 0, 1.4142135623730951,
     "(num_attention_heads / num_key_value_heads)^0.5"},
    {1.4142, 1.4141, 1.4143, 5, 1.4142135623730951, "2^0.5"},
    {0.98765432, 0.98764, 0.98767, 0, 0.98765, ""},
    {0.98765432, 0.987654315, 0.987654325, 0, 0.98765432, ""}, /* more digits than noise leaves
                                                                  open */
    {1.00004, 0.9, 1.1, 0, 1, ""},
    {-0.5003, -0.51, -0.49, 0, -0.5, ""},
    {0.31, 0.31, 0.31, 0, 0.31, ""}, /* not solved for */
    {0.0312500001, 0.0312500001, 0.0312500001, 0, 0.0312500001, ""},
};

START_TEST(the_plainest_number_of_the_interval_is_said)
{
    const gemma4_setting s = {
        .parameter = OF(ATTN_SCALE), .steps = AT(ATTN_CONTEXT), .number = PLAIN[_i].number};
    gemma4_point *p = point_of(&s, 1);
    p->low[0] = PLAIN[_i].low;
    p->high[0] = PLAIN[_i].high;
    gemma4_point_recognise(p, config(), PLAIN[_i].layer);
    ck_assert_double_eq_tol(p->settings[0].number, PLAIN[_i].plain, 1e-15);
    ck_assert_str_eq(p->expression[0], PLAIN[_i].expression);
    ck_assert(p->low[0] == PLAIN[_i].low && p->high[0] == PLAIN[_i].high);
    free(p);
}
END_TEST

static const struct {
    gemma4_parameter parameter;
    double list[4];
    bool one;
    double number;
} FACTORS[] = {
    {OF(RESULT_FACTORS), {0.5, 0.5002, 0.4999, 0.5}, true, 0.5},
    {OF(RESULT_FACTORS), {-2, -2.001, -2, -2}, true, -2},
    {OF(RESULT_FACTORS), {0.5, 0.5, 0.5, 0.50048}, true, 0.5}, /* 0.00096 of the largest apart */
    {OF(RESULT_FACTORS), {0.5, 0.5, 0.5, 0.50052}, false, 0},  /* 0.00104 */
    {OF(RESULT_FACTORS), {1, 1, -1, 1}, false, 0},
    {OF(RESIDUAL), {0.5, 0.5, 0.5, 0.5}, false, 0},
};

START_TEST(factors_that_are_all_equal_are_one)
{
    gemma4_setting s = {.parameter = FACTORS[_i].parameter, .steps = AT(ATTN_CONTEXT), .count = 4};
    memcpy(s.list, FACTORS[_i].list, sizeof FACTORS[_i].list);
    gemma4_point *p = point_of(&s, 1);
    gemma4_point_recognise(p, config(), 0);
    ck_assert_int_eq(p->settings[0].parameter,
                     FACTORS[_i].one ? OF(RESULT_FACTOR) : FACTORS[_i].parameter);
    ck_assert_uint_eq(p->settings[0].count, FACTORS[_i].one ? 0 : 4);
    ck_assert_double_eq(p->settings[0].number, FACTORS[_i].number);
    free(p);
}
END_TEST

static const struct {
    double number;
    size_t digits;
} DIGITS[] = {{0, 1},       {1e-6, 1},   {2, 1},     {0.25, 2},   {16, 2},
              {0.03125, 4}, {-0.125, 3}, {10000, 1}, {123456, 6}, {1.0 / 3, 7}};

START_TEST(digits_are_counted)
{
    ck_assert_uint_eq(gemma4_digits_of(DIGITS[_i].number), DIGITS[_i].digits);
}
END_TEST

Suite *point_suite(void)
{
    Suite *suite = suite_create("point");
    TCase *words = tcase_create("words"), *agreement = tcase_create("agreement"),
          *plain = tcase_create("plain numbers");
    tcase_add_loop_test(words, a_setting_says_what_is_and_what_should_be, 0, COUNT(WORDS));
    tcase_add_test(words, every_parameter_says_something);
    tcase_add_test(words, a_long_list_is_cut);
    tcase_add_loop_test(words, a_point_says_a_sentence, 0, COUNT(SENTENCES));
    tcase_add_test(words, a_point_is_a_counter_model);
    tcase_add_loop_test(agreement, points_agree_where_they_say_the_same, 0, COUNT(AGREEMENTS));
    tcase_add_test(agreement, points_of_more_settings_are_others);
    tcase_add_loop_test(plain, the_plainest_number_of_the_interval_is_said, 0, COUNT(PLAIN));
    tcase_add_loop_test(plain, factors_that_are_all_equal_are_one, 0, COUNT(FACTORS));
    tcase_add_loop_test(plain, digits_are_counted, 0, COUNT(DIGITS));
    suite_add_tcase(suite, words);
    suite_add_tcase(suite, agreement);
    suite_add_tcase(suite, plain);
    return suite;
}
