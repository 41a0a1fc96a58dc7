/* The judge (tests/check/judge.h) must pass an honest engine and catch a wrong one, at the tap
 * where it went wrong. The engines here are the reference with a hook that plants one mistake: the
 * mistake is computed on from there, as in a real engine. */
#include "activations.h"
#include "forward.h"
#include "judge.h"
#include "ops.h"
#include "suites.h"
#include "support.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

static const char CASE[] = "tiny-prompt";
enum { T = 12, H = 4, D_MODEL = 64, E = 16, K = 4, ALL = -1 };

/* Opened before the tests are forked. */
static gemma4_case *the_case;
static gemma4_model *model;
static gemma4_activations *golden;

static void set_up(void)
{
    gemma4_error error = {""};
    the_case = gemma4_case_open(CASE, &error);
    ck_assert_msg(the_case != NULL, "%s", error.message);
    ck_assert_msg(gemma4_case_provide_checkpoint(the_case, &error) == 0, "%s", error.message);
    model = gemma4_model_open(the_case->checkpoint_dir, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    golden = gemma4_activations_open(the_case->golden_path, &model->config, &error);
    ck_assert_msg(golden != NULL, "%s", error.message);
    ck_assert_uint_eq(the_case->token_count, T);
}

static void tear_down(void)
{
    gemma4_activations_close(golden);
    gemma4_model_close(model);
    gemma4_case_close(the_case);
}

/* --- engines --- */

typedef void mutation(gemma4_tap_event *event);

/* What an engine does and what it dumps of it. */
typedef struct engine {
    gemma4_tap tap; /* at this tap of this layer (ALL: of each) */
    int layer;
    mutation *mutate;
    bool in_file_only;   /* the engine computes rightly, but writes this */
    const char *taps[3]; /* globs of the taps that are dumped; none: all those of layer - 1, layer
                             and layer + 1 */
    const char *store;   /* NULL: float32 */
    size_t every;        /* dumps positions 0, every, 2 every ... only; 0: all */
} engine;

typedef struct dump {
    const engine *engine;
    gemma4_activations_writer *writer;
} dump;

static bool dumped(const engine *e, const gemma4_tap_event *event)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    bool per_layer = gemma4_tap_describe(event->tap)->per_layer;
    if (e->taps[0] == NULL)
        return !per_layer || e->layer == ALL || abs((int)event->layer - e->layer) <= 1;
    gemma4_tap_name(event->tap, event->layer, name);
    for (size_t i = 0; i < COUNT(e->taps) && e->taps[i] != NULL; i++)
        if (fnmatch(e->taps[i], name, 0) == 0)
            return true;
    return false;
}

static int write_rows(const dump *d, const gemma4_tap_event *event, gemma4_error *error)
{
    size_t width = event->dims[0] * event->dims[1];
    if (d->engine->every == 0)
        return gemma4_activations_write(d->writer, event, error);
    for (size_t i = 0; i < event->rows; i++) {
        gemma4_tap_event row = *event;
        row.row += i;
        row.rows = 1;
        row.values = event->values ? event->values + i * width : NULL;
        row.ids = event->ids ? event->ids + i * width : NULL;
        if (row.row % d->engine->every == 0 && gemma4_activations_write(d->writer, &row, error))
            return -1;
    }
    return 0;
}

static int dump_event(void *context, gemma4_tap_event *event, gemma4_error *error)
{
    const dump *d = context;
    const engine *e = d->engine;
    gemma4_tap_event shown = *event;
    size_t size = event->rows * event->dims[0] * event->dims[1] * 4;
    bool mutated = e->mutate != NULL && event->tap == e->tap &&
                   (e->layer == ALL || (size_t)e->layer == event->layer);
    void *kept = mutated && e->in_file_only ? malloc(size) : NULL;
    if (kept != NULL)
        memcpy(kept, event->ids ? (void *)event->ids : (void *)event->values, size);
    if (mutated)
        e->mutate(&shown);
    int status = dumped(e, event) ? write_rows(d, &shown, error) : 0;
    if (kept != NULL)
        memcpy(event->ids ? (void *)event->ids : (void *)event->values, kept, size);
    free(kept);
    return status;
}

/* Runs the engine on these tokens and returns its dump's path. config is the one that the dump
 * claims. */
static char *run_engine(const engine *e, const gemma4_config *config, const int32_t *tokens,
                        size_t count, size_t first_position)
{
    gemma4_error error = {""};
    char *path = test_join(test_fresh_dir(), "dump.h5");
    dump d = {e, gemma4_activations_create(path, config, tokens, count, first_position,
                                           e->store ? e->store : "float32", &error)};
    ck_assert_msg(d.writer != NULL, "%s", error.message);
    gemma4_session *session = gemma4_session_new(model, first_position, count, &error);
    ck_assert_msg(session != NULL, "%s", error.message);
    gemma4_session_set_hook(session, dump_event, &d);
    ck_assert_msg(gemma4_forward(session, tokens, count, count, NULL, &error) == 0, "%s",
                  error.message);
    gemma4_session_free(session);
    ck_assert_msg(gemma4_activations_commit(d.writer, &error) == 0, "%s", error.message);
    return path;
}

static char *run(const engine *e)
{
    return run_engine(e, &model->config, the_case->tokens, T, 0);
}

/* A dump that has been judged. */
typedef struct judged {
    gemma4_activations *engine;
    gemma4_report report;
    gemma4_error error;
    int status;
} judged;

static judged judge(const char *path, bool by_golden, const char *dtype)
{
    judged j = {0};
    j.engine = gemma4_activations_open(path, &model->config, &j.error);
    ck_assert_msg(j.engine != NULL, "%s", j.error.message);
    const gemma4_judgement judgement = {.the_case = by_golden ? the_case : NULL,
                                        .model = model,
                                        .engine = j.engine,
                                        .golden = by_golden ? golden : NULL,
                                        .dtype = dtype,
                                        .without_causes = true};
    j.status = gemma4_judge(&judgement, &j.report, &j.error);
    return j;
}

static judged judge_engine(const engine *e)
{
    judged j = judge(run(e), true, "float32");
    ck_assert_msg(j.status == 0, "%s", j.error.message);
    return j;
}

static void release(judged *j)
{
    gemma4_report_free(&j->report);
    gemma4_activations_close(j->engine);
}

static const gemma4_tap_result *result_of(const judged *j, gemma4_tap tap, size_t layer)
{
    for (size_t i = 0; i < j->report.tap_count; i++)
        if (j->report.taps[i].tap == tap && j->report.taps[i].layer == layer)
            return &j->report.taps[i];
    ck_abort_msg("the report has no such tap");
    return NULL;
}

static void assert_conforms(const judged *j)
{
    char name[GEMMA4_TAP_NAME_SIZE] = "";
    const gemma4_tap_result *first = j->report.first_divergence;
    ck_assert_msg(j->report.conforms && first == NULL, "diverges at %s: %s",
                  first ? gemma4_tap_name(first->tap, first->layer, name) : "?",
                  first ? first->problem : "");
}

static void assert_diverges_at(const judged *j, gemma4_tap tap, size_t layer)
{
    char expected[GEMMA4_TAP_NAME_SIZE], found[GEMMA4_TAP_NAME_SIZE];
    const gemma4_tap_result *first = j->report.first_divergence;
    ck_assert_msg(!j->report.conforms && first != NULL, "conforms");
    ck_assert_str_eq(gemma4_tap_name(first->tap, first->layer, found),
                     gemma4_tap_name(tap, layer, expected));
    ck_assert_int_eq(first->verdict, GEMMA4_DIVERGES);
}

/* --- honest engines --- */

static void reverse_experts(gemma4_tap_event *event)
{
    for (size_t t = 0; t < event->rows; t++)
        for (size_t r = 0; r < K / 2; r++) {
            int32_t id = event->ids[t * K + r];
            event->ids[t * K + r] = event->ids[t * K + K - 1 - r];
            event->ids[t * K + K - 1 - r] = id;
        }
}

static const struct {
    const char *what;
    engine engine;
} HONEST[] = {
    {"everything", {.layer = ALL}},
    {"the experts in another order",
     {.tap = GEMMA4_TAP_ROUTER_TOPK_IDS, .layer = ALL, .mutate = reverse_experts}},
    {"stored as bfloat16", {.layer = ALL, .store = "bfloat16"}}, /* the rounding of the storage is
                                                                    allowed for */
    {"stored as float16", {.layer = ALL, .store = "float16"}},
    {"stored as float64", {.layer = 3, .store = "float64"}},
    {"every third position", {.layer = ALL, .every = 3}},
};

START_TEST(an_honest_engine_conforms)
{
    char *path = run(&HONEST[_i].engine);
    judged j = judge(path, true, "float32");
    ck_assert_msg(j.status == 0, "%s", j.error.message);
    assert_conforms(&j);
    ck_assert_uint_gt(j.report.taps_covered, 0);
    ck_assert_uint_eq(j.report.routing.faults, 0);
    release(&j);
    j = judge(path, false, "float32"); /* and without a golden */
    ck_assert_int_eq(j.status, 0);
    assert_conforms(&j);
    ck_assert_str_eq(j.report.expected_from, "reference");
    release(&j);
}
END_TEST

START_TEST(a_full_dump_is_full_coverage)
{
    judged j = judge_engine(&HONEST[0].engine);
    ck_assert_int_eq(j.report.level, GEMMA4_FULL_LEVEL);
    ck_assert_uint_eq(j.report.taps_covered, j.report.taps_of);
    ck_assert_uint_eq(j.report.routing.decisions, 12 * T);
    ck_assert_str_eq(j.report.expected_from, "golden");
    for (size_t l = 0; l < 12; l++)
        ck_assert(j.report.layer_covered[l]);
    for (size_t i = 0; i < j.report.tap_count; i++)
        ck_assert(gemma4_tap_describe(j.report.taps[i].tap)->derived ||
                  j.report.taps[i].verdict == GEMMA4_PASS ||
                  j.report.taps[i].verdict == GEMMA4_MARGINAL);
    release(&j);
}
END_TEST

/* --- engines with one mistake --- */

static size_t width_of(const gemma4_tap_event *event)
{
    return event->dims[0] * event->dims[1];
}

static void scale(gemma4_tap_event *event, size_t first, size_t count, float factor)
{
    for (size_t i = first; i < first + count; i++)
        event->values[i] *= factor;
}

static void drop_layer_scalar(gemma4_tap_event *event)
{
    scale(event, 0, event->rows * width_of(event),
          1 / gemma4_weight_at(&model->layers[event->layer].layer_scalar, 0));
}

static void swap_kv_heads(gemma4_tap_event *event)
{
    size_t D = event->dims[1];
    for (size_t t = 0; t < event->rows; t++)
        for (size_t i = 0; i < D; i++) {
            gemma4_real *k = event->values + t * 2 * D, first = k[i];
            k[i] = k[D + i];
            k[D + i] = first;
        }
}

static void one_nan(gemma4_tap_event *event)
{
    event->values[5 * width_of(event) + 7] = NAN;
}

static void one_infinity(gemma4_tap_event *event)
{
    event->values[11 * width_of(event)] = INFINITY;
}

static void all_nan(gemma4_tap_event *event)
{
    scale(event, 0, event->rows * width_of(event), NAN);
}

static void one_bad_position(gemma4_tap_event *event)
{
    scale(event, 9 * width_of(event), width_of(event), 1.001f);
}

static void slightly_too_large(gemma4_tap_event *event)
{
    scale(event, 0, event->rows * width_of(event), 1.0001f);
}

static void quarter(gemma4_tap_event *event)
{
    scale(event, 0, event->rows * width_of(event), 0.25f);
}

static void zero(gemma4_tap_event *event)
{
    scale(event, 0, event->rows * width_of(event), 0);
}

static void cap_again(gemma4_tap_event *event)
{
    gemma4_softcap(event->values, event->rows * width_of(event), 30);
}

static void round_to_bfloat16(gemma4_tap_event *event)
{
    for (size_t i = 0; i < event->rows * width_of(event); i++) {
        float value = (float)event->values[i];
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        bits = (bits + 0x7fffu + (bits >> 16 & 1)) & 0xffff0000u;
        memcpy(&value, &bits, sizeof bits);
        event->values[i] = value;
    }
}

/* The first expert of position 3 becomes one that was not chosen. */
static void another_expert(gemma4_tap_event *event)
{
    int32_t *ids = event->ids + 3 * K, other = 0;
    while (ids[0] == other || ids[1] == other || ids[2] == other || ids[3] == other)
        other++;
    ids[0] = other;
}

static void the_same_expert_twice(gemma4_tap_event *event)
{
    event->ids[6 * K + 1] = event->ids[6 * K];
}

static void an_expert_too_many(gemma4_tap_event *event)
{
    event->ids[2 * K + 3] = E;
}

static void a_negative_expert(gemma4_tap_event *event)
{
    event->ids[2 * K] = -1;
}

static void exchange_weights(gemma4_tap_event *event)
{
    for (size_t t = 0; t < event->rows; t++) {
        gemma4_real first = event->values[t * K];
        event->values[t * K] = event->values[t * K + 1];
        event->values[t * K + 1] = first;
    }
}

/* Position 4's probabilities with a little weight on the last key, which lies in its future. */
static void look_ahead(gemma4_tap_event *event)
{
    static gemma4_real all_keys[H * T];
    if (event->row != 4)
        return;
    memset(all_keys, 0, sizeof all_keys);
    for (size_t h = 0; h < H; h++)
        memcpy(all_keys + h * T, event->values + h * event->dims[1],
               event->dims[1] * sizeof *all_keys);
    all_keys[T - 1] = 1e-3f;
    event->values = all_keys;
    event->dims[1] = T;
}

static void uniform(gemma4_tap_event *event)
{
    for (size_t i = 0; i < width_of(event); i++)
        event->values[i] = 1 / (gemma4_real)event->dims[1];
}

#define AT(id, l, mutation)                                    \
    {                                                          \
        .tap = GEMMA4_TAP_##id, .layer = l, .mutate = mutation \
    }
#define IN_FILE(id, l, mutation)                                                     \
    {                                                                                \
        .tap = GEMMA4_TAP_##id, .layer = l, .mutate = mutation, .in_file_only = true \
    }

static const struct {
    engine engine;
    const char *problem; /* what the report says beside the numbers */
} WRONG[] = {
    {AT(EMBED, 0, one_infinity), "1 value is NaN or infinite, the first at position 11, index 0"},
    {AT(EMBED, 0, slightly_too_large), ""},
    {AT(LAYER_INPUT, 2, one_bad_position), ""},
    {AT(ATTN_V, 5, quarter), ""}, /* invisible after its norm but for eps, visible here */
    {AT(ATTN_V_NORM, 1, round_to_bfloat16), ""},
    {AT(ATTN_K_ROPE, 2, swap_kv_heads), ""},
    {AT(ATTN_SCORES, 3, quarter), ""},
    {AT(ATTN_PROBS, 0, uniform), ""},
    {IN_FILE(ATTN_PROBS, 0, look_ahead), ""},
    {IN_FILE(ATTN_PROBS, 5, look_ahead), ""},
    {AT(ATTN_OUT, 6, one_bad_position), ""},
    {AT(MLP_ACT, 3, one_nan), "1 value is NaN or infinite, the first at position 5, index 7"},
    {AT(MLP_OUT, 11, all_nan), "768 values are NaN or infinite, the first at position 0, index 0"},
    {AT(ROUTER_LOGITS, 4, slightly_too_large), ""},
    {AT(ROUTER_TOPK_IDS, 1, another_expert), "at 1 position the experts are not those of the "
                                             "engine's own router logits, first at position 3"},
    {IN_FILE(ROUTER_TOPK_IDS, 1, the_same_expert_twice),
     "at 1 position the experts are not those of the engine's own router logits, first at position "
     "6"},
    {IN_FILE(ROUTER_TOPK_IDS, 7, an_expert_too_many),
     "at 1 position the experts are not those of the engine's own router logits, first at position "
     "2"},
    {IN_FILE(ROUTER_TOPK_IDS, 0, a_negative_expert),
     "at 1 position the experts are not those of the engine's own router logits, first at position "
     "2"},
    {AT(ROUTER_TOPK_NORM, 0, quarter), ""},
    {AT(ROUTER_TOPK_WEIGHTS, 8, exchange_weights), ""},
    {AT(MOE_ACT, 8, one_bad_position), ""},
    {AT(MOE_OUT, 9, zero), ""},
    {AT(FFN_SUM, 9, one_bad_position), ""},
    {AT(LAYER_OUTPUT, 4, drop_layer_scalar), ""},
    {AT(FINAL_NORM, 0, slightly_too_large), ""},
    {AT(LOGITS_RAW, 0, one_bad_position), ""},
    {AT(LOGITS, 0, cap_again), ""},
};

START_TEST(a_mistake_is_found_where_it_was_made)
{
    const engine *e = &WRONG[_i].engine;
    judged j = judge_engine(e);
    assert_diverges_at(&j, e->tap, (size_t)e->layer);
    ck_assert_str_eq(j.report.first_divergence->problem, WRONG[_i].problem);
    if (e->mutate == one_bad_position)
        ck_assert_uint_eq(j.report.first_divergence->local.position, 9);
    if (e->tap == GEMMA4_TAP_ROUTER_TOPK_IDS)
        ck_assert_uint_ge(j.report.routing.faults, 1);
    release(&j);
}
END_TEST

/* The reference as the source of what is expected sees the same: every third mistake is enough to
 * show it. */
START_TEST(a_mistake_is_found_without_a_golden_too)
{
    const engine *e = &WRONG[3 * _i].engine;
    judged j = judge(run(e), false, "float32");
    ck_assert_msg(j.status == 0, "%s", j.error.message);
    assert_diverges_at(&j, e->tap, (size_t)e->layer);
    release(&j);
}
END_TEST

/* --- what rounding may do to one position, but not to all --- */

static void a_third_of_a_percent_too_large(gemma4_tap_event *event)
{
    scale(event, 0, event->rows * width_of(event), 1.0033f);
}

/* Every other position is as much too small: no position differs from those of the biased engine in
 * size of its error. */
static void a_third_of_a_percent_either_way(gemma4_tap_event *event)
{
    for (size_t t = 0; t < event->rows; t++)
        scale(event, t * width_of(event), width_of(event), t % 2 ? 1.0033f : 1 / 1.0033f);
}

START_TEST(a_bias_of_all_positions_is_a_divergence)
{
    const engine biased = {.tap = GEMMA4_TAP_ATTN_OUT,
                           .layer = 3,
                           .mutate = a_third_of_a_percent_too_large,
                           .store = "bfloat16"};
    judged j = judge(run(&biased), true, "bfloat16");
    ck_assert_int_eq(j.status, 0);
    assert_diverges_at(&j, GEMMA4_TAP_ATTN_OUT, 3);
    ck_assert_int_eq(j.report.first_divergence->local.kind, GEMMA4_METRIC_BIAS_IN_SPREADS);
    ck_assert_msg(strstr(j.report.first_divergence->problem, "all positions together are 0.3") !=
                      NULL,
                  "%s", j.report.first_divergence->problem);
    release(&j);

    engine honest = biased;
    honest.mutate = a_third_of_a_percent_either_way;
    j = judge(run(&honest), true, "bfloat16");
    ck_assert_int_eq(j.status, 0);
    assert_conforms(&j);
    release(&j);
}
END_TEST

/* --- dumps that contradict the config --- */

/* router.logits of a model of 15 experts: the last of the 16 is missing in every row. */
static void lose_an_expert(gemma4_tap_event *event)
{
    static gemma4_real fewer[T * 15];
    for (size_t t = 0; t < event->rows; t++)
        memcpy(fewer + t * 15, event->values + t * 16, 15 * sizeof *fewer);
    event->values = fewer;
    event->dims[0] = 15;
}

START_TEST(a_wrong_shape_is_a_failure_at_its_tap)
{
    const engine e = {.tap = GEMMA4_TAP_ROUTER_LOGITS,
                      .layer = 0,
                      .mutate = lose_an_expert,
                      .in_file_only = true,
                      .taps = {"layers.0.router.logits", "layers.*.attn.*", "logits"}};
    gemma4_config claimed = model->config;
    claimed.num_experts = 15;
    judged j = judge(run_engine(&e, &claimed, the_case->tokens, T, 0), true, "float32");
    ck_assert_msg(j.status == 0, "%s", j.error.message);
    assert_diverges_at(&j, GEMMA4_TAP_ROUTER_LOGITS, 0);
    ck_assert_int_eq(j.report.first_divergence->local.kind, GEMMA4_METRIC_SHAPE);
    ck_assert_ptr_nonnull(strstr(j.report.first_divergence->problem, "15"));
    /* judging went on without it */
    ck_assert_int_eq(result_of(&j, GEMMA4_TAP_LOGITS, 0)->verdict, GEMMA4_PASS);
    release(&j);
}
END_TEST

/* --- partial dumps --- */

static const struct {
    const char *taps[3];
    gemma4_level level;
    size_t covered;
} PARTIAL[] = {
    {{"logits"}, GEMMA4_LOGITS_LEVEL, 1},
    {{"layers.*.output", "logits"}, GEMMA4_LAYERS_LEVEL, 13},
    {{"layers.*.output"}, GEMMA4_PARTIAL, 12},
    {{"layers.1?.output", "logits"}, GEMMA4_LOGITS_LEVEL, 3}, /* layers 10 and 11 are not all */
    {{"layers.3.*"}, GEMMA4_PARTIAL, 31},
    {{"embed"}, GEMMA4_PARTIAL, 1},
};

START_TEST(a_partial_dump_covers_what_it_holds)
{
    engine e = {.layer = ALL};
    memcpy(e.taps, PARTIAL[_i].taps, sizeof e.taps);
    judged j = judge_engine(&e);
    assert_conforms(&j);
    ck_assert_int_eq(j.report.level, PARTIAL[_i].level);
    ck_assert_uint_eq(j.report.taps_covered, PARTIAL[_i].covered);
    for (size_t i = 0, found = 0; i < j.report.tap_count; i++) {
        found += j.report.taps[i].verdict != GEMMA4_NOT_COVERED &&
                 !gemma4_tap_describe(j.report.taps[i].tap)->optional;
        ck_assert_uint_le(found, PARTIAL[_i].covered);
    }
    release(&j);
}
END_TEST

START_TEST(a_partial_dump_can_diverge)
{
    const engine e = {.tap = GEMMA4_TAP_ATTN_K_ROPE,
                      .layer = 2,
                      .mutate = swap_kv_heads,
                      .taps = {"layers.*.output", "logits"}};
    judged j = judge_engine(&e);
    assert_diverges_at(&j, GEMMA4_TAP_LAYER_OUTPUT, 2); /* the first thing that the dump shows of
                                                           it */
    release(&j);
}
END_TEST

/* Positions that a dump leaves out are neither passed nor failed: position 9 counts only where it
 * is there. */
START_TEST(rows_that_are_missing_are_not_judged)
{
    static const size_t every[] = {2, 3};
    const engine e = {.tap = GEMMA4_TAP_ATTN_OUT,
                      .layer = 6,
                      .mutate = one_bad_position,
                      .in_file_only = true,
                      .every = every[_i]};
    judged j = judge_engine(&e);
    if (9 % every[_i] == 0)
        assert_diverges_at(&j, GEMMA4_TAP_ATTN_OUT, 6);
    else
        assert_conforms(&j);
    release(&j);
}
END_TEST

/* Their rows are in the order of ids that nobody knows. */
START_TEST(values_in_the_order_of_missing_ids_are_not_covered)
{
    const engine e = {.layer = ALL, .taps = {"*.router.topk_weights", "*.moe.act", "logits"}};
    judged j = judge_engine(&e);
    assert_conforms(&j);
    for (size_t layer = 0; layer < 12; layer++) {
        ck_assert_int_eq(result_of(&j, GEMMA4_TAP_ROUTER_TOPK_WEIGHTS, layer)->verdict,
                         GEMMA4_NOT_COVERED);
        ck_assert_int_eq(result_of(&j, GEMMA4_TAP_MOE_ACT, layer)->verdict, GEMMA4_NOT_COVERED);
    }
    ck_assert_int_eq(j.report.level, GEMMA4_LOGITS_LEVEL);
    release(&j);
}
END_TEST

/* --- what cannot be judged --- */

static void assert_unusable(const char *path, bool by_golden, const char *dtype,
                            const char *message)
{
    judged j = judge(path, by_golden, dtype);
    ck_assert_int_eq(j.status, -1);
    assert_message_contains(&j.error, message);
    ck_assert(!j.report.conforms);
    release(&j);
}

START_TEST(nothing_comparable_is_no_pass)
{
    const engine e = {.layer = ALL, .taps = {"*.router.topk_weights"}};
    assert_unusable(run(&e), true, "float32", "nothing in the dump can be compared");
}
END_TEST

static const engine LOGITS_ONLY = {.layer = ALL, .taps = {"logits"}};

START_TEST(other_tokens_cannot_be_judged)
{
    int32_t tokens[T];
    memcpy(tokens, the_case->tokens, sizeof tokens);
    tokens[7] = 99;
    assert_unusable(run_engine(&LOGITS_ONLY, &model->config, tokens, T, 0), true, "float32",
                    "tokens: expected case tiny-prompt's 115 at position 7, found 99");
}
END_TEST

START_TEST(fewer_or_more_tokens_cannot_be_judged)
{
    static const size_t counts[] = {1, T - 1, T + 1};
    char message[80];
    int32_t tokens[T + 1] = {0};
    memcpy(tokens, the_case->tokens, T * sizeof *tokens);
    snprintf(message, sizeof message, "tokens: expected the 12 of case tiny-prompt, found %zu",
             counts[_i]);
    assert_unusable(run_engine(&LOGITS_ONLY, &model->config, tokens, counts[_i], 0), true,
                    "float32", message);
}
END_TEST

START_TEST(another_first_position_cannot_be_judged)
{
    assert_unusable(run_engine(&LOGITS_ONLY, &model->config, the_case->tokens, T, 1), true,
                    "float32", "positions: expected case tiny-prompt's 0 ..., found 1 ...");
}
END_TEST

static const char *const UNKNOWN_DTYPES[] = {"", "Float32", "float", "q9_9", "f32"};

START_TEST(a_dtype_without_tolerances_cannot_be_judged)
{
    assert_unusable(run(&LOGITS_ONLY), true, UNKNOWN_DTYPES[_i], "dtype: expected one of float32");
    assert_unusable(run(&LOGITS_ONLY), false, UNKNOWN_DTYPES[_i], "dtype: expected one of float32");
}
END_TEST

/* A golden that the reference does not reproduce proves nothing about an engine. */
static const struct {
    engine golden;
    const char *message;
} BAD_GOLDENS[] = {
    {IN_FILE(MLP_OUT, 3, quarter),
     "layers.3.mlp.out: expected a relative RMS of at most 1e-05, found 3"},
    {IN_FILE(MLP_OUT, 3, one_nan), "layers.3.mlp.out"},
    {IN_FILE(LOGITS, 0, slightly_too_large), "logits: expected a relative RMS"},
    {IN_FILE(ROUTER_TOPK_IDS, 2, another_expert),
     "layers.2.router.topk_ids, position 3: other experts"},
    {IN_FILE(ROUTER_TOPK_IDS, 2, the_same_expert_twice),
     "layers.2.router.topk_ids, position 6: other experts"},
};

START_TEST(a_golden_that_the_reference_contradicts_is_named)
{
    gemma4_activations *genuine = golden;
    gemma4_error error = {""};
    golden = gemma4_activations_open(run(&BAD_GOLDENS[_i].golden), &model->config, &error);
    ck_assert_msg(golden != NULL, "%s", error.message);
    char *path = run(&LOGITS_ONLY);
    assert_unusable(path, true, "float32", "this build's reference disagrees with its golden: ");
    assert_unusable(path, true, "float32", BAD_GOLDENS[_i].message);
    gemma4_activations_close(golden);
    golden = genuine;
}
END_TEST

static TCase *with_case(Suite *suite, const char *name)
{
    TCase *c = tcase_create(name);
    tcase_add_unchecked_fixture(c, set_up, tear_down);
    tcase_set_timeout(c, 60);
    suite_add_tcase(suite, c);
    return c;
}

Suite *judge_suite(void)
{
    Suite *suite = suite_create("judge");
    TCase *honest = with_case(suite, "honest"), *wrong = with_case(suite, "wrong"),
          *partial = with_case(suite, "partial");
    TCase *unusable = with_case(suite, "unusable");
    tcase_add_loop_test(honest, an_honest_engine_conforms, 0, COUNT(HONEST));
    tcase_add_test(honest, a_full_dump_is_full_coverage);
    tcase_add_loop_test(wrong, a_mistake_is_found_where_it_was_made, 0, COUNT(WRONG));
    tcase_add_loop_test(wrong, a_mistake_is_found_without_a_golden_too, 0, COUNT(WRONG) / 3);
    tcase_add_test(wrong, a_bias_of_all_positions_is_a_divergence);
    tcase_add_test(wrong, a_wrong_shape_is_a_failure_at_its_tap);
    tcase_add_loop_test(partial, a_partial_dump_covers_what_it_holds, 0, COUNT(PARTIAL));
    tcase_add_test(partial, a_partial_dump_can_diverge);
    tcase_add_loop_test(partial, rows_that_are_missing_are_not_judged, 0, 2);
    tcase_add_test(partial, values_in_the_order_of_missing_ids_are_not_covered);
    tcase_add_test(unusable, nothing_comparable_is_no_pass);
    tcase_add_test(unusable, other_tokens_cannot_be_judged);
    tcase_add_loop_test(unusable, fewer_or_more_tokens_cannot_be_judged, 0, 3);
    tcase_add_test(unusable, another_first_position_cannot_be_judged);
    tcase_add_loop_test(unusable, a_dtype_without_tolerances_cannot_be_judged, 0,
                        COUNT(UNKNOWN_DTYPES));
    tcase_add_loop_test(unusable, a_golden_that_the_reference_contradicts_is_named, 0,
                        COUNT(BAD_GOLDENS));
    return suite;
}
