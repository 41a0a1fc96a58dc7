/* Changes that any step may have (tests/check/counter_changes.h): an order is a permutation of the
 * axis, a type rounds to its own numbers, and a step with a setting is what the same step gives on
 * inputs, weights or results that are changed by hand. */
#include "counter_changes.h"
#include "engines.h"
#include "forward.h"
#include "ops.h"
#include "point.h"
#include "rows.h"
#include "suites.h"
#include "support.h"

#include <math.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define AT(tap) GEMMA4_STEP(GEMMA4_TAP_##tap)
#define OF(parameter) GEMMA4_PARAMETER_##parameter
#define WEIGHT(field) offsetof(gemma4_layer_weights, field)

typedef gemma4_real real;

/* --- orders --- */

static const struct {
    gemma4_order order;
    gemma4_unit unit;
    double number;
    gemma4_axis axis;
    size_t read[12];
} ORDERS[] = {
    {GEMMA4_REVERSED, GEMMA4_LANES, 0, {6, 2}, {5, 4, 3, 2, 1, 0}},
    {GEMMA4_REVERSED, GEMMA4_HALVES, 0, {6, 1}, {3, 4, 5, 0, 1, 2}},
    /* what halves leave over stays */
    {GEMMA4_REVERSED, GEMMA4_HALVES, 0, {7, 1}, {3, 4, 5, 0, 1, 2, 6}},
    {GEMMA4_REVERSED, GEMMA4_GROUPS, 0, {6, 3}, {4, 5, 2, 3, 0, 1}},
    {GEMMA4_REVERSED, GEMMA4_LANES_OF_GROUP, 0, {6, 2}, {2, 1, 0, 5, 4, 3}},
    {GEMMA4_REVERSED, GEMMA4_HALVES_OF_GROUP, 0, {8, 2}, {2, 3, 0, 1, 6, 7, 4, 5}},
    {GEMMA4_ROLLED, GEMMA4_LANES, 1, {4, 1}, {1, 2, 3, 0}},
    {GEMMA4_ROLLED, GEMMA4_LANES, -1, {4, 1}, {3, 0, 1, 2}},
    {GEMMA4_ROLLED, GEMMA4_LANES, 9, {4, 1}, {1, 2, 3, 0}},
    {GEMMA4_ROLLED, GEMMA4_GROUPS, 1, {6, 3}, {2, 3, 4, 5, 0, 1}},
    {GEMMA4_ROLLED, GEMMA4_LANES_OF_GROUP, 1, {6, 2}, {1, 2, 0, 4, 5, 3}},
    {GEMMA4_EXCHANGED, GEMMA4_LANES, 0, {5, 1}, {1, 0, 3, 2, 4}}, /* the last one has no
                                                                     neighbour */
    {GEMMA4_EXCHANGED, GEMMA4_GROUPS, 0, {8, 4}, {2, 3, 0, 1, 6, 7, 4, 5}},
    {GEMMA4_INTERLEAVED, GEMMA4_HALVES, 0, {6, 1}, {0, 3, 1, 4, 2, 5}},
    {GEMMA4_DEINTERLEAVED, GEMMA4_HALVES, 0, {6, 1}, {0, 2, 4, 1, 3, 5}},
    {GEMMA4_INTERLEAVED, GEMMA4_GROUPS, 0, {6, 3}, {0, 2, 4, 1, 3, 5}},
    {GEMMA4_DEINTERLEAVED, GEMMA4_GROUPS, 0, {6, 3}, {0, 3, 1, 4, 2, 5}},
    {GEMMA4_INTERLEAVED, GEMMA4_HALVES_OF_GROUP, 0, {8, 2}, {0, 2, 1, 3, 4, 6, 5, 7}},
    {GEMMA4_WOVEN, GEMMA4_GROUPS, 0, {8, 4}, {0, 1, 4, 5, 2, 3, 6, 7}},
    {GEMMA4_WOVEN, GEMMA4_GROUPS, 0, {6, 6}, {0, 3, 1, 4, 2, 5}},
    {GEMMA4_UNWOVEN, GEMMA4_GROUPS, 0, {6, 6}, {0, 2, 4, 1, 3, 5}},
    /* an odd number has no halves */
    {GEMMA4_UNWOVEN, GEMMA4_GROUPS, 0, {6, 3}, {0, 1, 2, 3, 4, 5}},
    {GEMMA4_REPEATED, GEMMA4_GROUPS, 0, {6, 3}, {0, 1, 0, 1, 0, 1}},
    {GEMMA4_REPEATED, GEMMA4_HALVES_OF_GROUP, 0, {8, 2}, {0, 1, 0, 1, 4, 5, 4, 5}},
    {GEMMA4_PERMUTED, GEMMA4_GROUPS, 0, {8, 4}, {0, 1, 6, 7, 4, 5, 2, 3}}, /* by the list below */
};
static const double EXCHANGES[] = {1, 3, 3, 1};

START_TEST(an_order_reads_what_it_says)
{
    gemma4_setting s = {
        .word = (int)ORDERS[_i].order, .unit = ORDERS[_i].unit, .number = ORDERS[_i].number};
    if (s.word == GEMMA4_PERMUTED) {
        s.count = COUNT(EXCHANGES);
        memcpy(s.list, EXCHANGES, sizeof EXCHANGES);
    }
    for (size_t i = 0; i < ORDERS[_i].axis.values; i++)
        ck_assert_uint_eq(gemma4_order_read(&s, ORDERS[_i].axis, i), ORDERS[_i].read[i]);
}
END_TEST

/* On all small axes; only REPEATED reads anything twice. */
static void for_each_axis(void (*check)(const gemma4_setting *s, gemma4_axis axis))
{
    for (size_t groups = 1; groups <= 4; groups++)
        for (size_t inner = 1; inner <= 9; inner++)
            for (int unit = GEMMA4_LANES; unit <= GEMMA4_HALVES_OF_GROUP; unit++)
                for (int order = GEMMA4_REVERSED; order <= GEMMA4_UNWOVEN; order++)
                    for (int number = order == GEMMA4_ROLLED ? -2 : 0;
                         number <= (order == GEMMA4_ROLLED ? 2 : 0); number++)
                        check(&(gemma4_setting){.word = order,
                                                .unit = (gemma4_unit)unit,
                                                .number = number},
                              (gemma4_axis){groups * inner, groups});
}

static void check_permutation(const gemma4_setting *s, gemma4_axis axis)
{
    bool seen[64] = {false};
    for (size_t i = 0; i < axis.values; i++) {
        size_t from = gemma4_order_read(s, axis, i);
        ASSERT_EACH(from < axis.values && !seen[from],
                    "order %d of unit %d on %zu values in %zu groups: %zu is read from %zu",
                    s->word, (int)s->unit, axis.values, axis.groups, i, from);
        seen[from] = true;
    }
}

START_TEST(every_order_is_a_permutation)
{
    for_each_axis(check_permutation);
}
END_TEST

static void check_inverse(const gemma4_setting *s, gemma4_axis axis)
{
    gemma4_setting back = *s;
    back.number = -s->number;
    static const gemma4_order inverse[] = {[GEMMA4_REVERSED] = GEMMA4_REVERSED,
                                           [GEMMA4_ROLLED] = GEMMA4_ROLLED,
                                           [GEMMA4_EXCHANGED] = GEMMA4_EXCHANGED,
                                           [GEMMA4_INTERLEAVED] = GEMMA4_DEINTERLEAVED,
                                           [GEMMA4_DEINTERLEAVED] = GEMMA4_INTERLEAVED,
                                           [GEMMA4_WOVEN] = GEMMA4_UNWOVEN,
                                           [GEMMA4_UNWOVEN] = GEMMA4_WOVEN};
    back.word = inverse[s->word];
    for (size_t i = 0; i < axis.values; i++)
        ASSERT_EACH(gemma4_order_read(&back, axis, gemma4_order_read(s, axis, i)) == i,
                    "order %d of unit %d on %zu values in %zu groups: %zu does not come back",
                    s->word, (int)s->unit, axis.values, axis.groups, i);
}

START_TEST(every_order_has_its_inverse)
{
    for_each_axis(check_inverse);
}
END_TEST

/* --- a run of the reference on golden/checkpoints/tiny: what the steps of two layers read, and
 * give --- */

enum { T = 24, SLIDING = 3, FULL = 5, LAYERS = 12 };

static struct {
    const gemma4_model *model;
    int32_t tokens[T];
    real *values[LAYERS][GEMMA4_TAP_COUNT];
    int32_t *ids[LAYERS];
} run;

static size_t width_of(gemma4_tap tap, size_t layer)
{
    return gemma4_axis_of_values(&run.model->config, tap, layer, T).values;
}

static int keep(void *context, gemma4_tap_event *event, gemma4_error *error)
{
    size_t n = event->rows * event->dims[0] * event->dims[1];
    (void)context, (void)error;
    if (gemma4_tap_is_keys(event->tap))
        return 0;
    if (event->ids) {
        run.ids[event->layer] = malloc(n * sizeof *event->ids);
        memcpy(run.ids[event->layer], event->ids, n * sizeof *event->ids);
    } else {
        run.values[event->layer][event->tap] = malloc(n * sizeof(real));
        memcpy(run.values[event->layer][event->tap], event->values, n * sizeof(real));
    }
    return 0;
}

static void set_up(void)
{
    gemma4_error error = {""};
    run.model = test_golden_model();
    gemma4_session *session = gemma4_session_new(run.model, 0, T, &error);
    ck_assert_msg(session != NULL, "%s", error.message);
    gemma4_session_set_hook(session, keep, NULL);
    for (size_t t = 0; t < T; t++)
        run.tokens[t] = (int32_t)((5 + 37 * t) % run.model->config.vocab_size);
    ck_assert_msg(gemma4_forward(session, run.tokens, T, T, NULL, &error) == 0, "%s",
                  error.message);
    gemma4_session_free(session);
}

static void tear_down(void)
{
    for (size_t l = 0; l < LAYERS; l++) {
        for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
            free(run.values[l][tap]);
        free(run.ids[l]);
    }
}

static gemma4_step step_of(size_t layer)
{
    gemma4_step step = {.model = run.model,
                        .layer = layer,
                        .T = T,
                        .tokens = run.tokens,
                        .topk_ids = run.ids[layer]};
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        step.values[tap] = run.values[layer][tap];
    return step;
}

/* The tap's step with one setting, or with the right parameters; to be freed. */
static real *computed(const gemma4_step *step, const gemma4_setting *setting, gemma4_tap tap)
{
    gemma4_error error = {""};
    gemma4_parameters p = gemma4_right_parameters();
    real *out = calloc(T * width_of(tap, step->layer), sizeof *out);
    ck_assert_ptr_nonnull(out);
    if (setting)
        p.settings[p.setting_count++] = setting;
    ck_assert_msg(gemma4_counter_step(step, &p, tap, out, NULL, &error) == 0, "%s", error.message);
    return out;
}

static void assert_same(const real *found, const real *expected, gemma4_tap tap, size_t layer)
{
    size_t width = width_of(tap, layer);
    for (size_t i = 0; i < T * width; i++)
        ASSERT_EACH(found[i] == expected[i], "%s: row %zu, %zu: expected %g, found %g",
                    gemma4_tap_describe(tap)->name, i / width, i % width, (double)expected[i],
                    (double)found[i]);
}

static bool differs(const real *a, const real *b, gemma4_tap tap, size_t layer)
{
    return memcmp(a, b, T * width_of(tap, layer) * sizeof *a) != 0;
}

/* --- results --- */

typedef double change(double x, size_t lane, const double *row, size_t width);

static double times_three(double x, size_t lane, const double *row, size_t width)
{
    (void)lane, (void)row, (void)width;
    return 3 * x;
}

static double by_head(double x, size_t lane, const double *row, size_t width)
{
    static const double factors[] = {1, -0.5, 2, 0};
    (void)row;
    return x * factors[lane / (width / 4)];
}

static double clamped(double x, size_t lane, const double *row, size_t width)
{
    (void)lane, (void)row, (void)width;
    return x > 0.25 ? 0.25 : x < -0.25 ? -0.25 : x;
}

static double without_second_head(double x, size_t lane, const double *row, size_t width)
{
    (void)row;
    return lane / (width / 4) == 1 ? 0 : x;
}

static double heads_reversed(double x, size_t lane, const double *row, size_t width)
{
    size_t length = width / 4;
    (void)x;
    return row[(3 - lane / length) * length + lane % length];
}

static double in_bfloat16(double x, size_t lane, const double *row, size_t width)
{
    (void)lane, (void)row, (void)width;
    return (double)test_bfloat16((float)x);
}

static const struct {
    gemma4_setting setting;
    gemma4_tap tap;
    change *by_hand;
} RESULTS[] = {
    {{.parameter = OF(RESULT_FACTOR), .number = 3}, GEMMA4_TAP_ATTN_OUT, times_three},
    {{.parameter = OF(RESULT_FACTORS), .count = 4, .list = {1, -0.5, 2, 0}},
     GEMMA4_TAP_ATTN_Q_NORM,
     by_head},
    {{.parameter = OF(RESULT_CLAMPED), .number = 0.25}, GEMMA4_TAP_MLP_ACT, clamped},
    {{.parameter = OF(RESULT_ZERO), .unit = GEMMA4_GROUPS, .first = 1, .end = 2},
     GEMMA4_TAP_ATTN_CONTEXT,
     without_second_head},
    {{.parameter = OF(RESULT_ORDER), .unit = GEMMA4_GROUPS, .word = GEMMA4_REVERSED},
     GEMMA4_TAP_ATTN_Q,
     heads_reversed},
    {{.parameter = OF(RESULT_ROUNDED), .word = GEMMA4_TYPE_BF16}, GEMMA4_TAP_FFN_SUM, in_bfloat16},
};

START_TEST(a_result_is_changed_as_by_hand)
{
    const gemma4_tap tap = RESULTS[_i].tap;
    static const size_t layers[] = {SLIDING, FULL};
    for (size_t l = 0; l < COUNT(layers); l++) {
        gemma4_step step = step_of(layers[l]);
        gemma4_setting s = RESULTS[_i].setting;
        s.steps = GEMMA4_STEP(tap);
        size_t width = width_of(tap, layers[l]);
        real *right = computed(&step, NULL, tap), *found = computed(&step, &s, tap),
             *expected = malloc(T * width * sizeof *expected);
        for (size_t t = 0; t < T; t++) {
            double row[256];
            for (size_t i = 0; i < width; i++)
                row[i] = (double)right[t * width + i];
            for (size_t i = 0; i < width; i++)
                expected[t * width + i] = (real)RESULTS[_i].by_hand(row[i], i, row, width);
        }
        assert_same(found, expected, tap, layers[l]);
        ck_assert(differs(found, right, tap, layers[l]));
        free(right);
        free(found);
        free(expected);
    }
}
END_TEST

/* Lists of another layer's shape change nothing. */
START_TEST(factors_of_more_parts_than_there_are_values_are_none)
{
    static const size_t counts[] = {128, 3, 0};
    gemma4_setting s = {
        .parameter = OF(RESULT_FACTORS), .steps = AT(ATTN_Q_NORM), .count = counts[_i]};
    for (size_t k = 0; k < s.count; k++)
        s.list[k] = 3;
    gemma4_step step = step_of(SLIDING);
    real *found = computed(&step, &s, GEMMA4_TAP_ATTN_Q_NORM);
    assert_same(found, run.values[SLIDING][GEMMA4_TAP_ATTN_Q_NORM], GEMMA4_TAP_ATTN_Q_NORM,
                SLIDING);
    free(found);
}
END_TEST

/* Probabilities that a step holds are those of the right keys: another mask is computed from q and
 * k. */
START_TEST(a_mask_does_not_read_probabilities_of_other_keys)
{
    static const gemma4_setting masks[] = {
        {.parameter = OF(MASK), .steps = AT(ATTN_CONTEXT), .word = GEMMA4_MASK_OFFSET, .number = 2},
        {.parameter = OF(WINDOW), .steps = AT(ATTN_CONTEXT), .number = 2}};
    gemma4_step without = step_of(SLIDING), with = without;
    real *probs = computed(&without, NULL, GEMMA4_TAP_ATTN_PROBS);
    with.values[GEMMA4_TAP_ATTN_PROBS] = probs;
    real *found = computed(&with, &masks[_i], GEMMA4_TAP_ATTN_CONTEXT),
         *expected = computed(&without, &masks[_i], GEMMA4_TAP_ATTN_CONTEXT);
    assert_same(found, expected, GEMMA4_TAP_ATTN_CONTEXT, SLIDING);
    free(probs);
    free(found);
    free(expected);
}
END_TEST

/* A setting of another step is none. */
START_TEST(other_steps_are_not_changed)
{
    const gemma4_setting s = {.parameter = OF(RESULT_FACTOR), .steps = AT(ATTN_OUT), .number = 3};
    gemma4_step step = step_of(SLIDING);
    real *found = computed(&step, &s, GEMMA4_TAP_ATTN_NORM);
    assert_same(found, run.values[SLIDING][GEMMA4_TAP_ATTN_NORM], GEMMA4_TAP_ATTN_NORM, SLIDING);
    free(found);
}
END_TEST

/* Settings of one step act in the order of the point: 2 * min(x, 0.25), and min(2 x, 0.25). */
START_TEST(changes_of_a_result_act_one_after_the_other)
{
    gemma4_error error = {""};
    const gemma4_tap tap = GEMMA4_TAP_MLP_GATE;
    const gemma4_setting twice = {.parameter = OF(RESULT_FACTOR),
                                  .steps = AT(MLP_GATE),
                                  .number = 2},
                         clamp = {.parameter = OF(RESULT_CLAMPED),
                                  .steps = AT(MLP_GATE),
                                  .number = 0.25};
    gemma4_step step = step_of(SLIDING);
    gemma4_parameters p = gemma4_right_parameters();
    p.settings[0] = _i ? &twice : &clamp;
    p.settings[1] = _i ? &clamp : &twice;
    p.setting_count = 2;
    size_t n = T * width_of(tap, SLIDING);
    real *found = malloc(n * sizeof *found);
    double largest = 0;
    ck_assert_msg(gemma4_counter_step(&step, &p, tap, found, NULL, &error) == 0, "%s",
                  error.message);
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)found[i]));
    ck_assert_double_eq(largest, _i ? 0.25 : 0.5);
    free(found);
}
END_TEST

/* --- types: the rows of a tensor that is the step's result --- */

static const struct {
    gemma4_number_type type;
    double x, rounded;
} TYPES[] = {
    {GEMMA4_TYPE_E4M3, 1.06, 1},   /* steps of 1/8 above 1 */
    {GEMMA4_TYPE_E4M3, 1.0625, 1}, /* half-way: to even */
    {GEMMA4_TYPE_E4M3, 1.1875, 1.25},
    {GEMMA4_TYPE_E4M3, -17.1, -18}, /* steps of 2 above 16 */
    {GEMMA4_TYPE_E4M3, 1000, 448},  /* the largest */
    {GEMMA4_TYPE_E4M3, -460, -448},
    {GEMMA4_TYPE_E4M3, 0.003, 0x1p-8}, /* 1.5 steps of 2^-9: two */
    {GEMMA4_TYPE_E4M3, 0.0009, 0},     /* less than half a step */
    {GEMMA4_TYPE_E5M2, 1.1, 1},        /* steps of 1/4 above 1 */
    {GEMMA4_TYPE_E5M2, 1.13, 1.25},
    {GEMMA4_TYPE_E5M2, -1.375, -1.5}, /* half-way between 1.25 and 1.5: to even */
    {GEMMA4_TYPE_E5M2, 1e6, 57344},
    {GEMMA4_TYPE_E5M2, 0x1.8p-16, 0x1p-15},
    {GEMMA4_TYPE_BF16, 1.00390625, 1}, /* 1 + 2^-8: half-way, to even */
    {GEMMA4_TYPE_BF16, 1.006, 1.0078125},
    {GEMMA4_TYPE_BF16_CUT, 1.0078, 1},           /* just below 1 + 2^-7 */
    {GEMMA4_TYPE_BF16_CUT, -1.0155, -1.0078125}, /* towards zero */
    {GEMMA4_TYPE_F16, 1.0003, 1},
    {GEMMA4_TYPE_F16, 2049, 2048}, /* steps of 2 above 2048 */
    {GEMMA4_TYPE_INT8, 10.2, 10},  /* the largest of the row is 127 below: steps of 1 */
    {GEMMA4_TYPE_INT8, -0.6, -1},
    {GEMMA4_TYPE_INT4, 28, 36.285714285714285}, /* steps of 127 / 7 = 18.14: 1.54 of them are two */
    {GEMMA4_TYPE_INT4, -27, -18.142857142857142},
};

/* attn.residual is the sum of two tensors: the first row's are x and 127, and 0. */
START_TEST(a_type_rounds_to_its_numbers)
{
    const gemma4_setting s = {
        .parameter = OF(RESULT_ROUNDED), .steps = AT(ATTN_RESIDUAL), .word = TYPES[_i].type};
    const size_t d = run.model->config.hidden_size;
    bool integers = TYPES[_i].type == GEMMA4_TYPE_INT8 || TYPES[_i].type == GEMMA4_TYPE_INT4;
    real *x = calloc(T * d, sizeof *x), *zero = calloc(T * d, sizeof *zero);
    gemma4_step step = step_of(SLIDING);
    x[0] = (real)TYPES[_i].x;
    x[1] = integers ? 127 : 0;
    step.values[GEMMA4_TAP_LAYER_INPUT] = x;
    step.values[GEMMA4_TAP_ATTN_POST_NORM] = zero;
    real *found = computed(&step, &s, GEMMA4_TAP_ATTN_RESIDUAL);
    ck_assert_double_eq_tol((double)found[0], TYPES[_i].rounded,
                            1e-30 + 1e-5 * fabs(TYPES[_i].rounded));
    ck_assert_double_eq((double)found[1], integers ? 127 : 0);
    for (size_t i = 2; i < T * d; i++)
        ASSERT_EACH(found[i] == 0, "%zu", i);
    free(found);
    free(x);
    free(zero);
}
END_TEST

/* --- inputs --- */

START_TEST(another_tensor_is_read)
{
    const gemma4_setting s = {.parameter = OF(STEP_INPUT),
                              .steps = AT(ROUTER_LOGITS),
                              .input = GEMMA4_TAP_ROUTER_NORM,
                              .tensor = GEMMA4_TAP_MLP_NORM};
    gemma4_step step = step_of(SLIDING);
    real *found = computed(&step, &s, GEMMA4_TAP_ROUTER_LOGITS);
    step.values[GEMMA4_TAP_ROUTER_NORM] = step.values[GEMMA4_TAP_MLP_NORM];
    real *expected = computed(&step, NULL, GEMMA4_TAP_ROUTER_LOGITS);
    assert_same(found, expected, GEMMA4_TAP_ROUTER_LOGITS, SLIDING);
    ck_assert(differs(found, run.values[SLIDING][GEMMA4_TAP_ROUTER_LOGITS],
                      GEMMA4_TAP_ROUTER_LOGITS, SLIDING));
    free(found);
    free(expected);
}
END_TEST

START_TEST(a_tensor_that_is_not_there_is_refused)
{
    gemma4_error error = {""};
    const gemma4_setting s = {.parameter = OF(STEP_INPUT),
                              .steps = AT(ROUTER_LOGITS),
                              .input = GEMMA4_TAP_ROUTER_NORM,
                              .tensor = GEMMA4_TAP_MLP_NORM};
    gemma4_step step = step_of(SLIDING);
    gemma4_parameters p = gemma4_right_parameters();
    real out[T * 16];
    p.settings[p.setting_count++] = &s;
    step.values[GEMMA4_TAP_MLP_NORM] = NULL;
    ck_assert_int_eq(gemma4_counter_step(&step, &p, GEMMA4_TAP_ROUTER_LOGITS, out, NULL, &error),
                     -1);
    assert_message_contains(&error, "router.logits: cannot read mlp.norm");
}
END_TEST

/* The row `shift` positions away; its own where there is none. */
START_TEST(other_positions_are_read)
{
    static const int shifts[] = {-1, 1, -3};
    const gemma4_tap read = GEMMA4_TAP_ATTN_NORM, tap = GEMMA4_TAP_ATTN_K;
    const gemma4_setting s = {
        .parameter = OF(INPUT_POSITIONS), .steps = AT(ATTN_K), .input = read, .number = shifts[_i]};
    size_t width = width_of(read, SLIDING);
    real *shifted = malloc(T * width * sizeof *shifted);
    gemma4_step step = step_of(SLIDING);
    real *found = computed(&step, &s, tap);
    for (int t = 0; t < T; t++) {
        int from = t + shifts[_i] < 0 || t + shifts[_i] >= T ? t : t + shifts[_i];
        memcpy(shifted + (size_t)t * width, step.values[read] + (size_t)from * width,
               width * sizeof *shifted);
    }
    step.values[read] = shifted;
    real *expected = computed(&step, NULL, tap);
    assert_same(found, expected, tap, SLIDING);
    free(found);
    free(expected);
    free(shifted);
}
END_TEST

START_TEST(an_input_is_read_in_another_order_or_type)
{
    const gemma4_tap read = GEMMA4_TAP_ATTN_CONTEXT, tap = GEMMA4_TAP_ATTN_OUT;
    gemma4_setting s = {.parameter = OF(INPUT_ORDER),
                        .steps = AT(ATTN_OUT),
                        .input = read,
                        .word = GEMMA4_REVERSED,
                        .unit = GEMMA4_GROUPS};
    if (_i)
        s = (gemma4_setting){.parameter = OF(INPUT_ROUNDED),
                             .steps = AT(ATTN_OUT),
                             .input = read,
                             .word = GEMMA4_TYPE_BF16};
    size_t width = width_of(read, FULL), length = width / 4;
    real *other = malloc(T * width * sizeof *other);
    gemma4_step step = step_of(FULL);
    real *found = computed(&step, &s, tap);
    for (size_t i = 0; i < T * width; i++) {
        size_t lane = i % width, from = i - lane + (3 - lane / length) * length + lane % length;
        other[i] = _i ? (real)test_bfloat16((float)step.values[read][i]) : step.values[read][from];
    }
    step.values[read] = other;
    real *expected = computed(&step, NULL, tap);
    assert_same(found, expected, tap, FULL);
    ck_assert(differs(found, run.values[FULL][tap], tap, FULL));
    free(found);
    free(expected);
    free(other);
}
END_TEST

/* --- weights: the same step, of a model whose weight is another --- */

typedef struct other_model {
    gemma4_model model;
    float *data;
} other_model;

/* The reference's model, but for one weight of the layer, which becomes a copy in float32 to be
 * changed. */
static other_model copy_weight(size_t layer, size_t offset)
{
    other_model o = {.model = *run.model};
    const gemma4_weight *w = gemma4_weight_field(&run.model->layers[layer], offset);
    o.data = malloc(w->rows * w->cols * sizeof *o.data);
    o.model.layers = malloc(LAYERS * sizeof *o.model.layers);
    ck_assert(o.data && o.model.layers);
    memcpy(o.model.layers, run.model->layers, LAYERS * sizeof *o.model.layers);
    for (size_t row = 0; row < w->rows; row++)
        gemma4_weight_row(o.data + row * w->cols, w, row);
    gemma4_weight *changed = (gemma4_weight *)((char *)&o.model.layers[layer] + offset);
    *changed = (gemma4_weight){GEMMA4_F32, o.data, w->rows, w->cols};
    return o;
}

static void free_other(other_model *o)
{
    free(o->data);
    free(o->model.layers);
}

/* The step of the other model is the reference's with the setting. */
static void assert_is_that_model(const other_model *o, const gemma4_setting *s, gemma4_tap tap,
                                 size_t layer, bool same_as_right)
{
    gemma4_step step = step_of(layer), other = step;
    other.model = &o->model;
    real *found = computed(&step, s, tap), *expected = computed(&other, NULL, tap);
    assert_same(found, expected, tap, layer);
    ck_assert_int_eq(differs(found, run.values[layer][tap], tap, layer), !same_as_right);
    free(found);
    free(expected);
}

/* Weights of another layer, absolute or not, or of another tensor: w' is that weight; own where the
 * shape is another. */
static const struct {
    gemma4_setting setting;
    gemma4_tap tap;
    size_t layer, from_layer, from; /* from SIZE_MAX: its own */
} SOURCES[] = {
    {{.parameter = OF(WEIGHT_LAYER), .number = 1}, GEMMA4_TAP_ATTN_Q, 3, 4, WEIGHT(q_proj)},
    {{.parameter = OF(WEIGHT_LAYER), .number = -3},
     GEMMA4_TAP_MOE_ACT,
     3,
     0,
     WEIGHT(experts_gate_up_proj)},
    {{.parameter = OF(WEIGHT_LAYER), .number = 11, .absolute = true},
     GEMMA4_TAP_MLP_NORM,
     5,
     11,
     WEIGHT(pre_feedforward_layernorm)},
    /* before the first */
    {{.parameter = OF(WEIGHT_LAYER), .number = -4}, GEMMA4_TAP_ATTN_Q, 3, 0, SIZE_MAX},
    /* after the last */
    {{.parameter = OF(WEIGHT_LAYER), .number = 12, .absolute = true},
     GEMMA4_TAP_ATTN_Q,
     3,
     0,
     SIZE_MAX},
    /* a full layer's is larger */
    {{.parameter = OF(WEIGHT_LAYER), .number = 1}, GEMMA4_TAP_ATTN_Q, 4, 0, SIZE_MAX},
    {{.parameter = OF(WEIGHT_TENSOR), .weight = WEIGHT(up_proj)},
     GEMMA4_TAP_MLP_GATE,
     3,
     3,
     WEIGHT(up_proj)},
    {{.parameter = OF(WEIGHT_TENSOR), .weight = WEIGHT(v_proj)},
     GEMMA4_TAP_ATTN_K,
     3,
     3,
     WEIGHT(v_proj)},
    /* a full layer has none */
    {{.parameter = OF(WEIGHT_TENSOR), .weight = WEIGHT(v_proj)}, GEMMA4_TAP_ATTN_K, 5, 0, SIZE_MAX},
    /* of another shape */
    {{.parameter = OF(WEIGHT_TENSOR), .weight = WEIGHT(down_proj)},
     GEMMA4_TAP_MLP_GATE,
     3,
     0,
     SIZE_MAX},
    {{.parameter = OF(NORM_WEIGHT_OF), .weight = WEIGHT(q_norm)},
     GEMMA4_TAP_ATTN_K_NORM,
     3,
     3,
     WEIGHT(q_norm)},
    {{.parameter = OF(NORM_WEIGHT_OF), .weight = WEIGHT(q_norm)},
     GEMMA4_TAP_ATTN_NORM,
     3,
     0,
     SIZE_MAX},
};

START_TEST(a_weight_is_read_from_elsewhere)
{
    gemma4_setting s = SOURCES[_i].setting;
    size_t layer = SOURCES[_i].layer, offset = gemma4_step_weight(SOURCES[_i].tap);
    s.steps = GEMMA4_STEP(SOURCES[_i].tap);
    other_model o = copy_weight(layer, offset);
    if (SOURCES[_i].from != SIZE_MAX)
        *(gemma4_weight *)((char *)&o.model.layers[layer] + offset) =
            *gemma4_weight_field(&run.model->layers[SOURCES[_i].from_layer], SOURCES[_i].from);
    assert_is_that_model(&o, &s, SOURCES[_i].tap, layer, SOURCES[_i].from == SIZE_MAX);
    free_other(&o);
}
END_TEST

/* What becomes of the weight [rows, cols]: out is what is read in place of w. */
typedef void reading(const float *w, size_t rows, size_t cols, float *out);

static void last_rows_zero(const float *w, size_t rows, size_t cols, float *out)
{
    for (size_t i = 0; i < rows * cols; i++)
        out[i] = i / cols >= 48 ? 0 : w[i];
}

static void first_columns_zero(const float *w, size_t rows, size_t cols, float *out)
{
    for (size_t i = 0; i < rows * cols; i++)
        out[i] = i % cols < 10 ? 0 : w[i];
}

static void last_expert_zero(const float *w, size_t rows, size_t cols, float *out)
{
    for (size_t i = 0; i < rows * cols; i++)
        out[i] = i / cols >= rows / 16 * 15 ? 0 : w[i];
}

static void one_plus(const float *w, size_t rows, size_t cols, float *out)
{
    for (size_t i = 0; i < rows * cols; i++)
        out[i] = (float)(1 + (double)w[i]);
}

static void squared(const float *w, size_t rows, size_t cols, float *out)
{
    for (size_t i = 0; i < rows * cols; i++)
        out[i] = (float)((double)w[i] * (double)w[i]);
}

static void ones(const float *w, size_t rows, size_t cols, float *out)
{
    (void)w;
    for (size_t i = 0; i < rows * cols; i++)
        out[i] = 1;
}

static void second_expert_halved(const float *w, size_t rows, size_t cols, float *out)
{
    for (size_t i = 0; i < rows * cols; i++)
        out[i] = i / cols / (rows / 16) == 1 ? w[i] / 2 : w[i];
}

static void as_columns(const float *w, size_t rows, size_t cols, float *out)
{
    for (size_t i = 0; i < rows * cols; i++)
        out[i] = w[i % cols * rows + i / cols];
}

static void as_columns_of_each_expert(const float *w, size_t rows, size_t cols, float *out)
{
    for (size_t e = 0; e < 16; e++)
        as_columns(w + e * (rows / 16) * cols, rows / 16, cols, out + e * (rows / 16) * cols);
}

static void heads_exchanged(const float *w, size_t rows, size_t cols, float *out)
{
    size_t length = rows / 4; /* 4 heads */
    for (size_t row = 0; row < rows; row++)
        memcpy(out + row * cols, w + ((row / length ^ 1) * length + row % length) * cols,
               cols * sizeof *out);
}

static void columns_of_heads_rolled(const float *w, size_t rows, size_t cols, float *out)
{
    for (size_t row = 0; row < rows; row++)
        for (size_t i = 0; i < cols; i++)
            out[row * cols + i] = w[row * cols + (i + cols / 4) % cols];
}

static void experts_reversed(const float *w, size_t rows, size_t cols, float *out)
{
    size_t length = rows / 16;
    for (size_t row = 0; row < rows; row++)
        memcpy(out + row * cols, w + ((15 - row / length) * length + row % length) * cols,
               cols * sizeof *out);
}

static void int4_by_row(const float *w, size_t rows, size_t cols, float *out)
{
    for (size_t row = 0; row < rows; row++) {
        float largest = 0;
        for (size_t i = 0; i < cols; i++)
            largest = fmaxf(largest, fabsf(w[row * cols + i]));
        float step = largest / 7;
        for (size_t i = 0; i < cols; i++)
            out[row * cols + i] = nearbyintf(w[row * cols + i] / step) * step;
    }
}

static const struct {
    gemma4_setting setting;
    gemma4_tap tap;
    reading *by_hand;
} WEIGHTS[] = {
    {{.parameter = OF(WEIGHT_ZERO), .first = 48, .end = 96}, GEMMA4_TAP_MLP_GATE, last_rows_zero},
    {{.parameter = OF(WEIGHT_ZERO), .columns = true, .end = 10},
     GEMMA4_TAP_MLP_OUT,
     first_columns_zero},
    {{.parameter = OF(WEIGHT_ZERO), .unit = GEMMA4_GROUPS, .first = 15, .end = 16},
     GEMMA4_TAP_MOE_OUT,
     last_expert_zero},
    {{.parameter = OF(WEIGHT_FORM), .word = GEMMA4_FORM_ONE_PLUS}, GEMMA4_TAP_ATTN_NORM, one_plus},
    {{.parameter = OF(WEIGHT_FORM), .word = GEMMA4_FORM_SQUARE}, GEMMA4_TAP_LAYER_OUTPUT, squared},
    {{.parameter = OF(WEIGHT_FORM), .word = GEMMA4_FORM_ONE}, GEMMA4_TAP_ROUTER_NORM, ones},
    {{.parameter = OF(NORM_WEIGHT_OF), .weight = SIZE_MAX}, GEMMA4_TAP_MOE_NORM, ones},
    {{.parameter = OF(WEIGHT_FACTORS),
      .count = 16,
      .list = {1, 0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
     GEMMA4_TAP_MOE_OUT,
     second_expert_halved},
    {{.parameter = OF(WEIGHTS_ORDER), .word = GEMMA4_TRANSPOSED}, GEMMA4_TAP_MLP_UP, as_columns},
    {{.parameter = OF(WEIGHTS_ORDER), .word = GEMMA4_TRANSPOSED},
     GEMMA4_TAP_MOE_ACT,
     as_columns_of_each_expert},
    {{.parameter = OF(WEIGHTS_ORDER), .word = GEMMA4_EXCHANGED, .unit = GEMMA4_GROUPS},
     GEMMA4_TAP_ATTN_Q,
     heads_exchanged},
    {{.parameter = OF(WEIGHTS_ORDER),
      .word = GEMMA4_ROLLED,
      .number = 1,
      .unit = GEMMA4_GROUPS,
      .columns = true},
     GEMMA4_TAP_ATTN_OUT,
     columns_of_heads_rolled},
    {{.parameter = OF(WEIGHTS_ORDER), .word = GEMMA4_REVERSED, .unit = GEMMA4_GROUPS},
     GEMMA4_TAP_MOE_ACT,
     experts_reversed},
    {{.parameter = OF(WEIGHT_ROUNDED), .word = GEMMA4_TYPE_INT4},
     GEMMA4_TAP_ROUTER_LOGITS,
     int4_by_row},
};

START_TEST(a_weight_is_changed_as_by_hand)
{
    static const size_t layers[] = {SLIDING, FULL};
    for (size_t l = 0; l < COUNT(layers); l++) {
        gemma4_setting s = WEIGHTS[_i].setting;
        size_t layer = layers[l], offset = gemma4_step_weight(WEIGHTS[_i].tap);
        s.steps = GEMMA4_STEP(WEIGHTS[_i].tap);
        other_model o = copy_weight(layer, offset);
        const gemma4_weight *w = gemma4_weight_field(&run.model->layers[layer], offset);
        float *own = malloc(w->rows * w->cols * sizeof *own);
        memcpy(own, o.data, w->rows * w->cols * sizeof *own);
        WEIGHTS[_i].by_hand(own, w->rows, w->cols, o.data);
        assert_is_that_model(&o, &s, WEIGHTS[_i].tap, layer, false);
        free(own);
        free_other(&o);
    }
}
END_TEST

/* V's norm has no weight of its own: it may have been given one. */
START_TEST(the_norm_of_v_may_have_a_weight)
{
    const gemma4_setting s = {
        .parameter = OF(NORM_WEIGHT_OF), .steps = AT(ATTN_V_NORM), .weight = WEIGHT(k_norm)};
    gemma4_step step = step_of(SLIDING);
    real *right = computed(&step, NULL, GEMMA4_TAP_ATTN_V_NORM),
         *found = computed(&step, &s, GEMMA4_TAP_ATTN_V_NORM);
    size_t width = width_of(GEMMA4_TAP_ATTN_V_NORM, SLIDING);
    const gemma4_weight *w = &run.model->layers[SLIDING].k_norm;
    for (size_t i = 0; i < T * width; i++)
        ASSERT_EACH(
            fabs((double)found[i] - (double)right[i] * (double)gemma4_weight_at(w, i % w->cols)) <=
                1e-6 * fabs((double)found[i]),
            "%zu", i);
    free(right);
    free(found);
}
END_TEST

/* The head's weights can be in another form or type, and are left alone by what is about layers. */
START_TEST(the_head_has_weights_too)
{
    gemma4_step step = {.model = run.model, .T = T, .tokens = run.tokens};
    step.values[GEMMA4_TAP_LAYER_OUTPUT] = run.values[LAYERS - 1][GEMMA4_TAP_LAYER_OUTPUT];
    const gemma4_setting form = {.parameter = OF(WEIGHT_FORM),
                                 .steps = AT(FINAL_NORM),
                                 .word = GEMMA4_FORM_ONE},
                         layer = {
                             .parameter = OF(WEIGHT_LAYER), .steps = AT(FINAL_NORM), .number = 1};
    real *unit = computed(&step, &form, GEMMA4_TAP_FINAL_NORM),
         *same = computed(&step, &layer, GEMMA4_TAP_FINAL_NORM),
         *right = run.values[0][GEMMA4_TAP_FINAL_NORM];
    assert_same(same, right, GEMMA4_TAP_FINAL_NORM, 0);
    for (size_t i = 0; i < T * run.model->config.hidden_size; i++)
        ASSERT_EACH(
            fabs((double)unit[i] *
                     (double)gemma4_weight_at(&run.model->norm, i % run.model->config.hidden_size) -
                 (double)right[i]) <= 1e-6 * fabs((double)right[i]),
            "%zu", i);
    free(unit);
    free(same);
}
END_TEST

/* The steps' weights and their names. */
START_TEST(every_weight_of_a_layer_belongs_to_a_step)
{
    for (size_t offset = 0; offset < sizeof(gemma4_layer_weights);
         offset += sizeof(gemma4_weight)) {
        size_t steps = 0;
        for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
            steps += gemma4_step_weight((gemma4_tap)tap) == offset;
        ck_assert_msg(steps == 1, "%s: %zu steps", gemma4_weight_field_name(offset), steps);
        ck_assert_str_ne(gemma4_weight_field_name(offset), "none");
    }
    ck_assert_str_eq(gemma4_weight_field_name(SIZE_MAX), "none");
    ck_assert_uint_eq(gemma4_step_weight(GEMMA4_TAP_ATTN_CONTEXT), SIZE_MAX);
}
END_TEST

/* --- parameters of single steps --- */

/* Which keys a setting of WINDOW or MASK leaves to a query, on a sliding layer (window 16) and on a
 * full one. */
static bool window_of_five(size_t layer, size_t t, size_t j)
{
    (void)layer;
    return j <= t && t - j < 5;
}

static bool no_window(size_t layer, size_t t, size_t j)
{
    (void)layer;
    return j <= t;
}

static bool right_mask(size_t layer, size_t t, size_t j)
{
    return j <= t && (layer == FULL || t - j < 16);
}

static bool all_ahead(size_t layer, size_t t, size_t j)
{
    return j > t || right_mask(layer, t, j);
}

static bool one_ahead(size_t layer, size_t t, size_t j)
{
    return j == t + 1 || right_mask(layer, t, j);
}

static bool two_behind(size_t layer, size_t t, size_t j)
{
    return right_mask(layer, t, j) && j + 2 <= t; /* nothing at first */
}

static bool without_first_three(size_t layer, size_t t, size_t j)
{
    return right_mask(layer, t, j) && (j >= 3 || j == t);
}

static bool block_of_six(size_t layer, size_t t, size_t j)
{
    return right_mask(layer, t, j) && j / 6 == t / 6;
}

static bool without_self(size_t layer, size_t t, size_t j)
{
    return right_mask(layer, t, j) && j != t;
}

static const struct {
    gemma4_setting setting;
    bool (*leaves)(size_t layer, size_t t, size_t j);
} MASKS[] = {
    {{.parameter = OF(WINDOW), .number = 5}, window_of_five},
    {{.parameter = OF(WINDOW), .number = INFINITY}, no_window},
    {{.parameter = OF(MASK), .word = GEMMA4_MASK_NOT_CAUSAL}, all_ahead},
    {{.parameter = OF(MASK), .word = GEMMA4_MASK_OFFSET, .number = 1}, one_ahead},
    {{.parameter = OF(MASK), .word = GEMMA4_MASK_OFFSET, .number = -2}, two_behind},
    {{.parameter = OF(MASK), .word = GEMMA4_MASK_FIRST_HIDDEN, .number = 3}, without_first_three},
    {{.parameter = OF(MASK), .word = GEMMA4_MASK_BLOCKS, .number = 6}, block_of_six},
    {{.parameter = OF(MASK), .word = GEMMA4_MASK_SELF_HIDDEN}, without_self},
};

START_TEST(attention_reads_the_keys_that_the_mask_leaves)
{
    static const size_t layers[] = {SLIDING, FULL};
    const size_t H = run.model->config.num_attention_heads;
    gemma4_setting s = MASKS[_i].setting;
    s.steps = AT(ATTN_PROBS);
    for (size_t l = 0; l < COUNT(layers); l++) {
        gemma4_step step = step_of(layers[l]);
        real *probs = computed(&step, &s, GEMMA4_TAP_ATTN_PROBS);
        for (size_t i = 0; i < T * H * T; i++) {
            size_t t = i / (H * T), j = i % T;
            bool leaves = MASKS[_i].leaves(layers[l], t, j);
            ASSERT_EACH((probs[i] > 0) == leaves, "layer %zu, query %zu, key %zu: %g", layers[l], t,
                        j, (double)probs[i]);
            ASSERT_EACH(gemma4_mask_leaves(&run.model->config, layers[l], &s, SIZE_MAX, t, j) ==
                            leaves,
                        "layer %zu, query %zu, key %zu", layers[l], t, j);
        }
        free(probs);
    }
}
END_TEST

/* Where all query heads read KV head 1, head 0 may hold anything; of K and V, or of one of them. */
START_TEST(query_heads_read_the_kv_heads_of_the_map)
{
    static const gemma4_parameter maps[] = {OF(KV_HEAD_OF), OF(K_HEAD_OF), OF(V_HEAD_OF)};
    const gemma4_setting right = {.parameter = maps[_i],
                                  .steps = AT(ATTN_CONTEXT),
                                  .count = 4,
                                  .list = {0, 0, 1, 1}},
                         second = {.parameter = maps[_i],
                                   .steps = AT(ATTN_CONTEXT),
                                   .count = 4,
                                   .list = {1, 1, 1, 1}};
    const gemma4_tap tap = GEMMA4_TAP_ATTN_CONTEXT;
    size_t n = T * width_of(GEMMA4_TAP_ATTN_K_ROPE, SLIDING);
    gemma4_step step = step_of(SLIDING);
    real *as_is = computed(&step, &right, tap), *found = computed(&step, &second, tap),
         *k = malloc(n * sizeof *k), *v = malloc(n * sizeof *v);
    assert_same(as_is, run.values[SLIDING][tap], tap, SLIDING);
    for (size_t i = 0; i < n; i++) {
        bool first = i % 32 < 16; /* 2 heads of 16 */
        k[i] = first && maps[_i] != OF(V_HEAD_OF) ? step.values[GEMMA4_TAP_ATTN_K_ROPE][i + 16]
                                                  : step.values[GEMMA4_TAP_ATTN_K_ROPE][i];
        v[i] = first && maps[_i] != OF(K_HEAD_OF) ? step.values[GEMMA4_TAP_ATTN_V_NORM][i + 16]
                                                  : step.values[GEMMA4_TAP_ATTN_V_NORM][i];
    }
    step.values[GEMMA4_TAP_ATTN_K_ROPE] = k;
    step.values[GEMMA4_TAP_ATTN_V_NORM] = v;
    real *expected = computed(&step, NULL, tap);
    assert_same(found, expected, tap, SLIDING);
    ck_assert(differs(found, as_is, tap, SLIDING));
    free(as_is);
    free(found);
    free(expected);
    free(k);
    free(v);
}
END_TEST

START_TEST(scores_are_scaled_and_capped)
{
    const gemma4_setting s = {.parameter = _i ? OF(ATTN_SOFTCAP) : OF(ATTN_SCALE),
                              .steps = AT(ATTN_SCORES),
                              .number = _i ? 2 : 0.3};
    gemma4_step step = step_of(SLIDING);
    real *right = computed(&step, NULL, GEMMA4_TAP_ATTN_SCORES),
         *found = computed(&step, &s, GEMMA4_TAP_ATTN_SCORES);
    for (size_t i = 0; i < T * 4 * T; i++) {
        double x = (double)right[i], y = _i ? 2 * tanh(x / 2) : 0.3 * x;
        ASSERT_EACH(fabs((double)found[i] - y) <= 1e-6 * (1e-3 + fabs(x)),
                    "%zu: expected %g, found %g", i, y, (double)found[i]);
    }
    free(right);
    free(found);
}
END_TEST

START_TEST(a_sum_takes_its_parts_times_factors)
{
    const gemma4_setting s = {
        .parameter = OF(RESIDUAL), .steps = AT(FFN_SUM), .count = 2, .list = {0.5, -2}};
    gemma4_step step = step_of(FULL);
    real *found = computed(&step, &s, GEMMA4_TAP_FFN_SUM);
    const real *a = step.values[GEMMA4_TAP_MLP_POST_NORM],
               *b = step.values[GEMMA4_TAP_MOE_POST_NORM];
    for (size_t i = 0; i < T * run.model->config.hidden_size; i++)
        ASSERT_EACH(found[i] == (real)(0.5 * (double)a[i] - 2 * (double)b[i]), "%zu", i);
    free(found);
}
END_TEST

/* 0: another cap; 1: none. */
START_TEST(logits_have_another_cap_or_none)
{
    const gemma4_setting s = {
        .parameter = OF(FINAL_SOFTCAP), .steps = AT(LOGITS), .number = _i ? INFINITY : 20};
    gemma4_step step = {.model = run.model, .T = T, .tokens = run.tokens};
    step.values[GEMMA4_TAP_LOGITS_RAW] = run.values[0][GEMMA4_TAP_LOGITS_RAW];
    real *found = computed(&step, &s, GEMMA4_TAP_LOGITS);
    for (size_t i = 0; i < T * run.model->config.vocab_size; i++) {
        double x = (double)step.values[GEMMA4_TAP_LOGITS_RAW][i], y = _i ? x : 20 * tanh(x / 20);
        ASSERT_EACH(fabs((double)found[i] - y) <= 1e-6 * fabs(y), "%zu: expected %g, found %g", i,
                    y, (double)found[i]);
    }
    free(found);
}
END_TEST

/* y = x / sqrt(mean((x - m)^2) + eps) * w, m the mean where it is removed. */
START_TEST(a_norm_has_another_eps_or_no_mean)
{
    const gemma4_setting s =
        _i ? (gemma4_setting){.parameter = OF(NORM_MEAN), .steps = AT(MLP_NORM)}
           : (gemma4_setting){.parameter = OF(EPS), .steps = AT(MLP_NORM), .number = 0.5};
    size_t d = run.model->config.hidden_size;
    gemma4_step step = step_of(SLIDING);
    real *found = computed(&step, &s, GEMMA4_TAP_MLP_NORM);
    for (size_t t = 0; t < T; t++) {
        const real *x = step.values[GEMMA4_TAP_ATTN_RESIDUAL] + t * d;
        double mean = 0, squares = 0, eps = _i ? 1e-6 : 0.5;
        for (size_t i = 0; _i && i < d; i++)
            mean += (double)x[i] / (double)d;
        for (size_t i = 0; i < d; i++)
            squares += ((double)x[i] - mean) * ((double)x[i] - mean) / (double)d;
        for (size_t i = 0; i < d; i++) {
            double y =
                ((double)x[i] - mean) / sqrt(squares + eps) *
                (double)gemma4_weight_at(&run.model->layers[SLIDING].pre_feedforward_layernorm, i);
            ASSERT_EACH(fabs((double)found[t * d + i] - y) <= 1e-6 * (1e-3 + fabs(y)),
                        "row %zu, %zu: expected %g, found %g", t, i, y, (double)found[t * d + i]);
        }
    }
    free(found);
}
END_TEST

/* What the K experts' weights are before per_expert_scale: p^0.5 / sum, p, sigmoid of the logits /
 * sum, 1 / K, the first two only. */
static const struct {
    gemma4_setting setting;
    bool normalised;
} ROUTERS[] = {
    {{.parameter = OF(ROUTER_POWER), .number = 0.5}, true},
    {{.parameter = OF(ROUTER_WEIGHTS), .word = GEMMA4_WEIGHTS_P}, false},
    {{.parameter = OF(ROUTER_WEIGHTS), .word = GEMMA4_WEIGHTS_SIGMOID}, true},
    {{.parameter = OF(ROUTER_WEIGHTS), .word = GEMMA4_WEIGHTS_SIGMOID_RAW}, false},
    {{.parameter = OF(ROUTER_WEIGHTS), .word = GEMMA4_WEIGHTS_UNIFORM}, true},
    {{.parameter = OF(TOP_K), .number = 2}, true},
};

static double weight_of_rank(const gemma4_setting *s, double p, double logit, size_t rank)
{
    if (s->parameter == OF(ROUTER_POWER))
        return sqrt(p);
    if (s->parameter == OF(TOP_K))
        return rank < 2 ? p : 0;
    return s->word == GEMMA4_WEIGHTS_P         ? p
           : s->word == GEMMA4_WEIGHTS_UNIFORM ? 1
                                               : 1 / (1 + exp(-logit));
}

START_TEST(the_router_weighs_otherwise)
{
    enum { K = 4, E = 16 };
    gemma4_setting s = ROUTERS[_i].setting;
    s.steps = AT(ROUTER_TOPK_NORM);
    gemma4_step step = step_of(SLIDING);
    real *found = computed(&step, &s, GEMMA4_TAP_ROUTER_TOPK_NORM);
    for (size_t t = 0; t < T; t++) {
        double weights[K], sum = 0;
        for (size_t r = 0; r < K; r++) {
            size_t at = t * E + (size_t)step.topk_ids[t * K + r];
            weights[r] = weight_of_rank(&s, (double)step.values[GEMMA4_TAP_ROUTER_PROBS][at],
                                        (double)step.values[GEMMA4_TAP_ROUTER_LOGITS][at], r);
            sum += weights[r];
        }
        for (size_t r = 0; r < K; r++) {
            double y = ROUTERS[_i].normalised ? weights[r] / sum : weights[r];
            ASSERT_EACH(fabs((double)found[t * K + r] - y) <= 1e-6,
                        "row %zu, rank %zu: expected %g, found %g", t, r, y,
                        (double)found[t * K + r]);
        }
    }
    free(found);
}
END_TEST

/* Without ranks 0 and 2: their weights might be 0 as well. */
START_TEST(experts_may_be_missing)
{
    const gemma4_setting s = {.parameter = OF(EXPERTS_MISSING), .steps = AT(MOE_OUT), .number = 5};
    gemma4_step step = step_of(SLIDING);
    real weights[T * 4];
    real *found = computed(&step, &s, GEMMA4_TAP_MOE_OUT);
    for (size_t i = 0; i < T * 4; i++)
        weights[i] = i % 2 ? step.values[GEMMA4_TAP_ROUTER_TOPK_WEIGHTS][i] : 0;
    step.values[GEMMA4_TAP_ROUTER_TOPK_WEIGHTS] = weights;
    real *expected = computed(&step, NULL, GEMMA4_TAP_MOE_OUT);
    assert_same(found, expected, GEMMA4_TAP_MOE_OUT, SLIDING);
    free(found);
    free(expected);
}
END_TEST

/* Which of the 16 experts, by their places in the order of the logits. */
static const struct {
    gemma4_setting setting;
    size_t ranks[4], shift;
} CHOICES[] = {
    {{.parameter = OF(CHOICE), .word = GEMMA4_CHOICE_SMALLEST}, {15, 14, 13, 12}, 0},
    {{.parameter = OF(CHOICE), .word = GEMMA4_CHOICE_SHIFTED, .number = 1}, {0, 1, 2, 3}, 1},
    {{.parameter = OF(CHOICE), .word = GEMMA4_CHOICE_SHIFTED, .number = -1}, {0, 1, 2, 3}, 15},
    {{.parameter = OF(CHOICE), .word = GEMMA4_CHOICE_SKIPPED, .number = 0}, {1, 2, 3, 4}, 0},
    {{.parameter = OF(CHOICE), .word = GEMMA4_CHOICE_SKIPPED, .number = 2}, {0, 1, 3, 4}, 0},
};

START_TEST(experts_are_chosen_otherwise)
{
    enum { K = 4, E = 16 };
    gemma4_error error = {""};
    gemma4_setting s = CHOICES[_i].setting;
    gemma4_parameters p = gemma4_right_parameters();
    gemma4_step step = step_of(SLIDING);
    int32_t ids[T * K];
    s.steps = AT(ROUTER_TOPK_IDS);
    p.settings[p.setting_count++] = &s;
    ck_assert_msg(gemma4_counter_step(&step, &p, GEMMA4_TAP_ROUTER_TOPK_IDS, NULL, ids, &error) ==
                      0,
                  "%s", error.message);
    for (size_t t = 0; t < T; t++)
        for (size_t r = 0; r < K; r++) {
            const real *logits = step.values[GEMMA4_TAP_ROUTER_LOGITS] + t * E;
            size_t chosen = ((size_t)ids[t * K + r] + E - CHOICES[_i].shift) % E, place = 0;
            for (size_t e = 0; e < E; e++)
                place += logits[e] > logits[chosen];
            ASSERT_EACH(place == CHOICES[_i].ranks[r], "row %zu, rank %zu: expert %d is the %zuth",
                        t, r, ids[t * K + r], place);
        }
}
END_TEST

/* Two of each of two groups of 8 neighbours, the best of them first. */
START_TEST(experts_are_chosen_by_groups)
{
    enum { K = 4, E = 16 };
    gemma4_error error = {""};
    const gemma4_setting s = {.parameter = OF(CHOICE),
                              .steps = AT(ROUTER_TOPK_IDS),
                              .word = GEMMA4_CHOICE_GROUPS,
                              .number = 2};
    gemma4_parameters p = gemma4_right_parameters();
    gemma4_step step = step_of(SLIDING);
    int32_t ids[T * K];
    p.settings[p.setting_count++] = &s;
    ck_assert_msg(gemma4_counter_step(&step, &p, GEMMA4_TAP_ROUTER_TOPK_IDS, NULL, ids, &error) ==
                      0,
                  "%s", error.message);
    for (size_t i = 0; i < T * K; i++) {
        const real *logits = step.values[GEMMA4_TAP_ROUTER_LOGITS] + i / K * E;
        size_t group = (size_t)ids[i] / 8, place = 0, others = 0;
        for (size_t e = 8 * group; e < 8 * group + 8; e++)
            place += logits[e] > logits[ids[i]];
        ASSERT_EACH(place < 2, "row %zu: expert %d", i / K, ids[i]);
        for (size_t r = i / K * K; r < i / K * K + K; r++)
            others += (size_t)ids[r] / 8 == group && r != i;
        ASSERT_EACH(others == 1, "row %zu: expert %d", i / K, ids[i]);
        ASSERT_EACH(i % K == 0 || logits[ids[i]] <= logits[ids[i - 1]], "row %zu: expert %d", i / K,
                    ids[i]);
    }
}
END_TEST

/* --- functions --- */

static const struct {
    gemma4_function function;
    double number, x, y;
} FUNCTIONS[] = {
    {GEMMA4_FUNCTION_RELU, 0, -2, 0},
    {GEMMA4_FUNCTION_RELU, 0, 3, 3},
    {GEMMA4_FUNCTION_RELU_SQUARED, 0, 3, 9},
    {GEMMA4_FUNCTION_RELU_SQUARED, 0, -3, 0},
    {GEMMA4_FUNCTION_SILU, 0, 1, 0.7310585786300049},
    {GEMMA4_FUNCTION_GELU_ERF, 0, 1, 0.8413447460685429},
    {GEMMA4_FUNCTION_QUICK_GELU, 0, 1, 0.8457957659328212},
    {GEMMA4_FUNCTION_IDENTITY, 0, -1.5, -1.5},
    {GEMMA4_FUNCTION_TANH, 0, 1, 0.7615941559557649},
    {GEMMA4_FUNCTION_SIGMOID, 0, 0, 0.5},
    {GEMMA4_FUNCTION_SOFTPLUS, 0, 0, 0.6931471805599453},
    {GEMMA4_FUNCTION_SOFTPLUS, 0, 800, 800},
    {GEMMA4_FUNCTION_ELU, 0, -1, -0.6321205588285577},
    {GEMMA4_FUNCTION_ELU, 0, 2, 2},
    {GEMMA4_FUNCTION_MISH, 0, 1, 0.8650983882673103},
    {GEMMA4_FUNCTION_LEAKY_RELU, 0.1, -2, -0.2},
    {GEMMA4_FUNCTION_LEAKY_RELU, 0.1, 2, 2},
    {GEMMA4_FUNCTION_SIGMOID_GELU, 1, 1, 0.7310585786300049},
    {GEMMA4_FUNCTION_GELU_CUBIC, 0.044715, 1, 0.8411919906082768},
    {GEMMA4_FUNCTION_CLAMPED, 0.5, 3, 0.5},
    {GEMMA4_FUNCTION_OF_CLAMPED, 1, 3, 0.8411919906082768},
};

START_TEST(a_function_is_what_its_name_says)
{
    const gemma4_setting s = {.parameter = OF(ACTIVATION),
                              .word = FUNCTIONS[_i].function,
                              .number = FUNCTIONS[_i].number};
    ck_assert_double_eq_tol(gemma4_function_at(&s, FUNCTIONS[_i].x), FUNCTIONS[_i].y, 1e-6);
}
END_TEST

Suite *changes_suite(void)
{
    Suite *suite = suite_create("changes");
    TCase *orders = tcase_create("orders"), *steps = tcase_create("steps"),
          *functions = tcase_create("functions");
    tcase_add_loop_test(orders, an_order_reads_what_it_says, 0, COUNT(ORDERS));
    tcase_add_test(orders, every_order_is_a_permutation);
    tcase_add_test(orders, every_order_has_its_inverse);
    tcase_add_unchecked_fixture(steps, set_up, tear_down);
    tcase_add_loop_test(steps, a_result_is_changed_as_by_hand, 0, COUNT(RESULTS));
    tcase_add_loop_test(steps, factors_of_more_parts_than_there_are_values_are_none, 0, 3);
    tcase_add_loop_test(steps, a_mask_does_not_read_probabilities_of_other_keys, 0, 2);
    tcase_add_test(steps, other_steps_are_not_changed);
    tcase_add_loop_test(steps, changes_of_a_result_act_one_after_the_other, 0, 2);
    tcase_add_loop_test(steps, a_type_rounds_to_its_numbers, 0, COUNT(TYPES));
    tcase_add_test(steps, another_tensor_is_read);
    tcase_add_test(steps, a_tensor_that_is_not_there_is_refused);
    tcase_add_loop_test(steps, other_positions_are_read, 0, 3);
    tcase_add_loop_test(steps, an_input_is_read_in_another_order_or_type, 0, 2);
    tcase_add_loop_test(steps, a_weight_is_read_from_elsewhere, 0, COUNT(SOURCES));
    tcase_add_loop_test(steps, a_weight_is_changed_as_by_hand, 0, COUNT(WEIGHTS));
    tcase_add_test(steps, the_norm_of_v_may_have_a_weight);
    tcase_add_test(steps, the_head_has_weights_too);
    tcase_add_test(steps, every_weight_of_a_layer_belongs_to_a_step);
    tcase_add_loop_test(steps, attention_reads_the_keys_that_the_mask_leaves, 0, COUNT(MASKS));
    tcase_add_loop_test(steps, query_heads_read_the_kv_heads_of_the_map, 0, 3);
    tcase_add_loop_test(steps, scores_are_scaled_and_capped, 0, 2);
    tcase_add_test(steps, a_sum_takes_its_parts_times_factors);
    tcase_add_loop_test(steps, logits_have_another_cap_or_none, 0, 2);
    tcase_add_loop_test(steps, a_norm_has_another_eps_or_no_mean, 0, 2);
    tcase_add_loop_test(steps, the_router_weighs_otherwise, 0, COUNT(ROUTERS));
    tcase_add_test(steps, experts_may_be_missing);
    tcase_add_loop_test(steps, experts_are_chosen_otherwise, 0, COUNT(CHOICES));
    tcase_add_test(steps, experts_are_chosen_by_groups);
    tcase_add_loop_test(functions, a_function_is_what_its_name_says, 0, COUNT(FUNCTIONS));
    suite_add_tcase(suite, orders);
    suite_add_tcase(suite, steps);
    suite_add_tcase(suite, functions);
    return suite;
}
