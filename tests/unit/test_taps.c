/* The table of taps: names, shapes, traits, and what they mean for a model (ref/taps.c). */
#include "config.h"
#include "rows.h"
#include "suites.h"
#include "support.h"
#include "taps.h"

#include <stdio.h>
#include <string.h>

START_TEST(every_name_parses_to_its_tap)
{
    const size_t layer_numbers[] = {0, 1, 9, 10, 29, SIZE_MAX};
    for (int i = 0; i < GEMMA4_TAP_COUNT; i++)
        for (size_t j = 0; j < sizeof layer_numbers / sizeof *layer_numbers; j++) {
            char name[GEMMA4_TAP_NAME_SIZE];
            gemma4_tap tap = GEMMA4_TAP_COUNT;
            size_t layer = 77;
            const gemma4_tap_info *info = gemma4_tap_describe((gemma4_tap)i);
            ck_assert_ptr_eq(gemma4_tap_name((gemma4_tap)i, layer_numbers[j], name), name);
            ck_assert_uint_lt(strlen(name), sizeof name);
            ck_assert_int_eq(strncmp(name, "layers.", 7) == 0, info->per_layer);
            ck_assert_msg(gemma4_tap_parse(name, &tap, &layer), "%s", name);
            ck_assert_int_eq((int)tap, i);
            ck_assert_uint_eq(layer, info->per_layer ? layer_numbers[j] : 0);
        }
}
END_TEST

static const struct {
    gemma4_tap tap;
    size_t layer;
    const char *name;
    bool ids, optional;
} known[] = {
    {GEMMA4_TAP_EMBED, 4, "embed", false, false},
    {GEMMA4_TAP_LAYER_INPUT, 4, "layers.4.input", false, true},
    {GEMMA4_TAP_ATTN_Q_ROPE, 5, "layers.5.attn.q_rope", false, false},
    {GEMMA4_TAP_ATTN_SCORES, 0, "layers.0.attn.scores", false, true},
    {GEMMA4_TAP_ROUTER_TOPK_IDS, 29, "layers.29.router.topk_ids", true, false},
    {GEMMA4_TAP_LAYER_OUTPUT, 29, "layers.29.output", false, false},
    {GEMMA4_TAP_FINAL_NORM, 0, "final_norm", false, false},
    {GEMMA4_TAP_LOGITS_RAW, 0, "logits_raw", false, true},
    {GEMMA4_TAP_LOGITS, 0, "logits", false, false},
    {GEMMA4_TAP_LOGPROBS_IDS, 0, "logprobs.ids", true, true},
    {GEMMA4_TAP_LOGPROBS, 3, "logprobs.values", false, true},
};

START_TEST(names_are_the_contract_s)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    ck_assert_str_eq(gemma4_tap_name(known[_i].tap, known[_i].layer, name), known[_i].name);
    ck_assert_int_eq(gemma4_tap_describe(known[_i].tap)->ids, known[_i].ids);
    ck_assert_int_eq(gemma4_tap_describe(known[_i].tap)->optional, known[_i].optional);
}
END_TEST

static const char *const no_taps[] = {
    "",
    ".",
    "tokens",
    "positions",
    "Embed",
    "embed.",
    "embedx",
    "input",
    "output",
    "attn.q",
    "logprobs",
    "logprobs.id",
    "layers",
    "layers.",
    "layers.0",
    "layers.0.",
    "layers..attn.q",
    "layers.00.attn.q",
    "layers.05.attn.q",
    "layers.-1.attn.q",
    "layers.+1.attn.q",
    "layers. 1.attn.q",
    "layers.1a.attn.q",
    "layers.0x1.attn.q",
    "layers.0.attn.Q",
    "layers.0.attn.q ",
    "layers.0.attn",
    "layers.0.embed",
    "layers.0.logits",
    "layers.0.attn/q",
    "layers.18446744073709551616.attn.q",
    "layers.99999999999999999999999.attn.q",
    "layer.0.attn.q",
};

START_TEST(other_names_do_not_parse)
{
    gemma4_tap tap;
    size_t layer;
    ck_assert_msg(!gemma4_tap_parse(no_taps[_i], &tap, &layer), "\"%s\" parsed", no_taps[_i]);
}
END_TEST

static const struct {
    gemma4_tap tap;
    size_t layer, rank, dims[2];
} shapes[] = {
    {GEMMA4_TAP_EMBED, 0, 1, {12, 1}},       {GEMMA4_TAP_ATTN_Q, 0, 2, {3, 4}},
    {GEMMA4_TAP_ATTN_Q, 1, 2, {3, 8}},       {GEMMA4_TAP_ATTN_K, 0, 2, {2, 4}},
    {GEMMA4_TAP_ATTN_V_NORM, 1, 2, {1, 8}},  {GEMMA4_TAP_ATTN_SCORES, 1, 2, {3, 7}},
    {GEMMA4_TAP_ATTN_CONTEXT, 1, 2, {3, 8}}, {GEMMA4_TAP_ATTN_OUT, 1, 1, {12, 1}},
    {GEMMA4_TAP_MLP_ACT, 0, 1, {10, 1}},     {GEMMA4_TAP_ROUTER_NORM, 0, 1, {12, 1}},
    {GEMMA4_TAP_ROUTER_PROBS, 0, 1, {6, 1}}, {GEMMA4_TAP_ROUTER_TOPK_IDS, 0, 1, {2, 1}},
    {GEMMA4_TAP_MOE_ACT, 0, 2, {2, 5}},      {GEMMA4_TAP_LAYER_OUTPUT, 1, 1, {12, 1}},
    {GEMMA4_TAP_LOGITS, 0, 1, {32, 1}},      {GEMMA4_TAP_LOGPROBS, 0, 1, {0, 1}},
};

START_TEST(dims_follow_the_layer_s_config)
{
    size_t dims[2];
    ck_assert_uint_eq(
        gemma4_tap_dims(&test_small_config, shapes[_i].tap, shapes[_i].layer, 7, dims),
        shapes[_i].rank);
    ck_assert_uint_eq(dims[0], shapes[_i].dims[0]);
    ck_assert_uint_eq(dims[1], shapes[_i].dims[1]);
}
END_TEST

START_TEST(every_tap_has_dims_and_a_name_of_its_own)
{
    for (int i = 0; i < GEMMA4_TAP_COUNT; i++) {
        size_t dims[2];
        const gemma4_tap_info *info = gemma4_tap_describe((gemma4_tap)i);
        ck_assert_uint_eq(gemma4_tap_dims(&test_small_config, (gemma4_tap)i, 0, 7, dims),
                          strlen(info->shape));
        ck_assert_int_eq(dims[0] >= 1, info->shape[0] != 'N'); /* which the config does not say */
        ck_assert_uint_ge(dims[1], 1);
        for (int j = 0; j < i; j++)
            ck_assert_str_ne(info->name, gemma4_tap_describe((gemma4_tap)j)->name);
    }
}
END_TEST

static const struct {
    gemma4_tap tap;
    size_t layer, heads;
} heads[] = {
    {GEMMA4_TAP_EMBED, 0, 1},       {GEMMA4_TAP_ATTN_NORM, 1, 1},
    {GEMMA4_TAP_ATTN_Q, 0, 1},      {GEMMA4_TAP_ATTN_Q_NORM, 0, 3},
    {GEMMA4_TAP_ATTN_K_NORM, 0, 2}, {GEMMA4_TAP_ATTN_V_NORM, 1, 1},
    {GEMMA4_TAP_ATTN_Q_ROPE, 1, 3}, {GEMMA4_TAP_ATTN_K_ROPE, 0, 2},
    {GEMMA4_TAP_ATTN_K_ROPE, 1, 1}, {GEMMA4_TAP_ATTN_SCORES, 0, 3},
    {GEMMA4_TAP_ATTN_PROBS, 1, 3},  {GEMMA4_TAP_ATTN_CONTEXT, 0, 3},
    {GEMMA4_TAP_ATTN_OUT, 0, 1},    {GEMMA4_TAP_LAYER_OUTPUT, 1, 1},
    {GEMMA4_TAP_LOGITS, 0, 1},
};

START_TEST(heads_are_those_of_the_layer)
{
    ck_assert_uint_eq(gemma4_tap_heads(&test_small_config, heads[_i].tap, heads[_i].layer),
                      heads[_i].heads);
}
END_TEST

static const struct {
    gemma4_tap tap;
    size_t layer, length; /* with 7 positions */
} sums[] = {
    {GEMMA4_TAP_EMBED, 0, 0},           {GEMMA4_TAP_LAYER_INPUT, 0, 0},
    {GEMMA4_TAP_ATTN_NORM, 0, 0},       {GEMMA4_TAP_ATTN_Q, 1, 12},
    {GEMMA4_TAP_ATTN_V, 1, 12},         {GEMMA4_TAP_ATTN_K_ROPE, 0, 0},
    {GEMMA4_TAP_ATTN_SCORES, 0, 4},     {GEMMA4_TAP_ATTN_SCORES, 1, 8},
    {GEMMA4_TAP_ATTN_PROBS, 0, 0},      {GEMMA4_TAP_ATTN_CONTEXT, 0, 7},
    {GEMMA4_TAP_ATTN_OUT, 0, 12},       {GEMMA4_TAP_ATTN_OUT, 1, 24},
    {GEMMA4_TAP_ATTN_RESIDUAL, 0, 0},   {GEMMA4_TAP_MLP_UP, 0, 12},
    {GEMMA4_TAP_MLP_OUT, 0, 10},        {GEMMA4_TAP_ROUTER_LOGITS, 0, 12},
    {GEMMA4_TAP_ROUTER_TOPK_IDS, 0, 0}, {GEMMA4_TAP_MOE_ACT, 0, 12},
    {GEMMA4_TAP_MOE_OUT, 0, 5},         {GEMMA4_TAP_FFN_SUM, 0, 0},
    {GEMMA4_TAP_LOGITS_RAW, 0, 12},     {GEMMA4_TAP_LOGITS, 0, 0},
};

START_TEST(sums_are_as_long_as_their_axes)
{
    ck_assert_uint_eq(gemma4_tap_sum_length(&test_small_config, sums[_i].tap, sums[_i].layer, 7),
                      sums[_i].length);
}
END_TEST

static bool is_one_of(gemma4_tap tap, const gemma4_tap *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (list[i] == tap)
            return true;
    return false;
}

#define IS_ONE_OF(tap, list) is_one_of(tap, list, sizeof(list) / sizeof *(list))

static const gemma4_tap multiplied[] = {
    GEMMA4_TAP_ATTN_NORM,   GEMMA4_TAP_ATTN_CONTEXT, GEMMA4_TAP_MLP_NORM, GEMMA4_TAP_MLP_ACT,
    GEMMA4_TAP_ROUTER_NORM, GEMMA4_TAP_MOE_NORM,     GEMMA4_TAP_MOE_ACT,  GEMMA4_TAP_FINAL_NORM};
static const gemma4_tap cached[] = {GEMMA4_TAP_ATTN_V_NORM, GEMMA4_TAP_ATTN_K_ROPE};
static const gemma4_tap in_id_order[] = {GEMMA4_TAP_ROUTER_TOPK_NORM,
                                         GEMMA4_TAP_ROUTER_TOPK_WEIGHTS, GEMMA4_TAP_MOE_ACT};
static const gemma4_tap of_keys[] = {GEMMA4_TAP_ATTN_SCORES, GEMMA4_TAP_ATTN_PROBS};

START_TEST(rows_are_of_the_kind_that_they_are)
{
    for (int i = 0; i < GEMMA4_TAP_COUNT; i++) {
        gemma4_tap tap = (gemma4_tap)i;
        const gemma4_tap_info *info = gemma4_tap_describe(tap);
        ck_assert_msg(info->feeds_weights == IS_ONE_OF(tap, multiplied), "%s", info->name);
        ck_assert_msg((info->rows == GEMMA4_ROWS_CACHED) == IS_ONE_OF(tap, cached), "%s",
                      info->name);
        ck_assert_msg((info->rows == GEMMA4_ROWS_BY_ID) == IS_ONE_OF(tap, in_id_order), "%s",
                      info->name);
        ck_assert_int_eq(gemma4_tap_in_id_order(tap), IS_ONE_OF(tap, in_id_order));
        ck_assert_int_eq(gemma4_tap_is_keys(tap), IS_ONE_OF(tap, of_keys));
        ck_assert_int_eq(info->shape[strlen(info->shape) - 1] == 'T', IS_ONE_OF(tap, of_keys));
        ck_assert_int_eq(info->shape[0] == 'K' && !info->ids, IS_ONE_OF(tap, in_id_order));
    }
    ck_assert_int_eq(gemma4_tap_describe(GEMMA4_TAP_ATTN_SCORES)->rows, GEMMA4_ROWS_SCORES);
    ck_assert_int_eq(gemma4_tap_describe(GEMMA4_TAP_ATTN_PROBS)->rows, GEMMA4_ROWS_PROBS);
}
END_TEST

static const struct {
    gemma4_tap tap;
    size_t layer, experts;
    bool exists, required;
} existing[] = {
    {GEMMA4_TAP_EMBED, 0, 6, true, true},
    {GEMMA4_TAP_EMBED, 99, 6, true, true}, /* no tap of a layer: the layer is ignored */
    {GEMMA4_TAP_LOGITS, 99, 0, true, true},
    {GEMMA4_TAP_LOGITS_RAW, 0, 6, true, false},    /* this model has no soft-cap */
    {GEMMA4_TAP_LOGPROBS_IDS, 0, 6, false, false}, /* the forward pass shows none */
    {GEMMA4_TAP_LOGPROBS, 0, 0, false, false},
    {GEMMA4_TAP_LAYER_INPUT, 1, 6, true, false},
    {GEMMA4_TAP_LAYER_OUTPUT, 1, 6, true, true},
    {GEMMA4_TAP_LAYER_OUTPUT, 2, 6, false, false}, /* the layer after the last */
    {GEMMA4_TAP_ATTN_NORM, SIZE_MAX, 6, false, false},
    {GEMMA4_TAP_ATTN_K, 1, 6, true, true},
    {GEMMA4_TAP_ATTN_V, 0, 6, true, true},
    {GEMMA4_TAP_ATTN_V, 1, 6, true, false}, /* V is K */
    {GEMMA4_TAP_ATTN_V, 2, 6, false, false},
    {GEMMA4_TAP_ATTN_V_NORM, 1, 6, true, true},
    {GEMMA4_TAP_ATTN_SCORES, 0, 6, true, false},
    {GEMMA4_TAP_MLP_OUT, 0, 0, true, true},
    {GEMMA4_TAP_MLP_POST_NORM, 0, 6, true, true},
    {GEMMA4_TAP_MLP_POST_NORM, 0, 0, false, false},
    {GEMMA4_TAP_ROUTER_TOPK_IDS, 0, 6, true, true},
    {GEMMA4_TAP_ROUTER_TOPK_IDS, 0, 0, false, false},
    {GEMMA4_TAP_ROUTER_TOPK_NORM, 0, 6, true, false},
    {GEMMA4_TAP_ROUTER_NORM, 0, 0, false, false},
    {GEMMA4_TAP_MOE_OUT, 0, 0, false, false},
    {GEMMA4_TAP_FFN_SUM, 0, 6, true, true},
    {GEMMA4_TAP_FFN_SUM, 0, 0, false, false},
    {GEMMA4_TAP_FFN_POST_NORM, 0, 0, true, true},
};

START_TEST(what_exists_and_is_required_follows_from_the_config)
{
    gemma4_config model = test_small_config;
    model.num_experts = existing[_i].experts;
    ck_assert_int_eq(gemma4_tap_exists(&model, existing[_i].tap, existing[_i].layer),
                     existing[_i].exists);
    ck_assert_int_eq(gemma4_tap_required(&model, existing[_i].tap, existing[_i].layer),
                     existing[_i].required);
}
END_TEST

Suite *taps_suite(void);

Suite *taps_suite(void)
{
    Suite *suite = suite_create("taps");
    TCase *names = tcase_create("names");
    tcase_add_test(names, every_name_parses_to_its_tap);
    tcase_add_loop_test(names, names_are_the_contract_s, 0, sizeof known / sizeof *known);
    tcase_add_loop_test(names, other_names_do_not_parse, 0, sizeof no_taps / sizeof *no_taps);
    suite_add_tcase(suite, names);
    TCase *dims = tcase_create("dims");
    tcase_add_loop_test(dims, dims_follow_the_layer_s_config, 0, sizeof shapes / sizeof *shapes);
    tcase_add_test(dims, every_tap_has_dims_and_a_name_of_its_own);
    suite_add_tcase(suite, dims);
    TCase *traits = tcase_create("traits");
    tcase_add_loop_test(traits, heads_are_those_of_the_layer, 0, sizeof heads / sizeof *heads);
    tcase_add_loop_test(traits, sums_are_as_long_as_their_axes, 0, sizeof sums / sizeof *sums);
    tcase_add_test(traits, rows_are_of_the_kind_that_they_are);
    tcase_add_loop_test(traits, what_exists_and_is_required_follows_from_the_config, 0,
                        sizeof existing / sizeof *existing);
    suite_add_tcase(suite, traits);
    return suite;
}
