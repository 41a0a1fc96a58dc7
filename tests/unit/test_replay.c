/* Runs of blocks and the evidence that they leave (tests/check/block_run.h, replay.h,
 * counter_run.h, reference_run.h). */
#include "counter_run.h"
#include "engines.h"
#include "evidence_maker.h"
#include "reference_run.h"
#include "replay.h"
#include "suites.h"
#include "support.h"

#include <math.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* The small model: layers 0 to 4 slide over a window of 4, layer 5 is full. */
enum { T = 6, D_MODEL = 16, H = 4, E = 4, K = 2, LAYERS = 6, HEAD = LAYERS };

typedef gemma4_real real;

/* --- a replay up to a block --- */

typedef struct replayed {
    gemma4_activations *dump;
    gemma4_subject subject;
    gemma4_replay *replay;
    const gemma4_evidence *e;
    gemma4_block next;
} replayed;

static void advance(replayed *r, gemma4_block block)
{
    gemma4_error error = {""};
    for (; r->next <= block; r->next++) {
        r->e = gemma4_replay_next(r->replay, &error);
        ck_assert_msg(r->e != NULL, "%s", error.message);
    }
}

static replayed *replay_to(const test_engine *engine, gemma4_block block)
{
    gemma4_error error = {""};
    replayed *r = calloc(1, sizeof *r);
    ck_assert_ptr_nonnull(r);
    r->next = -1;
    r->dump = gemma4_activations_open(test_engine_dump(engine), &engine->model->config, &error);
    ck_assert_msg(r->dump != NULL, "%s", error.message);
    ck_assert_int_eq(gemma4_subject_init(&r->subject, engine->model, r->dump,
                                         gemma4_tier_of(engine->tier), &error),
                     0);
    r->replay = gemma4_replay_new(&r->subject, r->dump, &error);
    ck_assert_msg(r->replay != NULL, "%s", error.message);
    advance(r, block);
    return r;
}

static void end_replay(replayed *r)
{
    gemma4_replay_free(r->replay);
    gemma4_subject_free(&r->subject);
    gemma4_activations_close(r->dump);
    free(r);
}

static test_engine engine_with(const char *first, const char *second, const char *third)
{
    return (test_engine){
        .model = test_small_model(), .T = T, .tier = "float32", .taps = {first, second, third}};
}

/* --- subjects --- */

static const struct {
    const char *tier, *kv;
    double unit;
} CACHES[] = {
    {"float32", "bfloat16", 0x1p-8}, {"float32", "float16", 0x1p-11}, {"float32", "float32", 0},
    {"bfloat16", "float32", 0},      {"bfloat16", "float16", 0},      {"float32", NULL, 0},
};

START_TEST(a_subject_is_what_the_dump_says_of_the_engine)
{
    gemma4_error error = {""};
    gemma4_subject s;
    test_engine engine = engine_with("logits", NULL, NULL);
    engine.first_position = 7;
    engine.attributes[0][0] = "schedule";
    engine.attributes[0][1] = "4,1,1";
    engine.attributes[1][0] = CACHES[_i].kv ? "kv_dtype" : NULL;
    engine.attributes[1][1] = CACHES[_i].kv;
    gemma4_activations *dump =
        gemma4_activations_open(test_engine_dump(&engine), &engine.model->config, &error);
    ck_assert_msg(dump != NULL, "%s", error.message);
    ck_assert_int_eq(
        gemma4_subject_init(&s, engine.model, dump, gemma4_tier_of(CACHES[_i].tier), &error), 0);
    ck_assert(s.model == engine.model && s.T == T && s.first_position == 7 &&
              s.tokens[1] == (5 + 37) % 32);
    ck_assert(s.schedule.known && s.schedule.chunks == 3);
    ck_assert(s.kv_unit == CACHES[_i].unit);
    gemma4_subject_free(&s);
    gemma4_activations_close(dump);
}
END_TEST

/* It decides how much rounding is expected: a name that nobody knows must not pass as "no further
 * rounding". */
START_TEST(an_unknown_type_of_the_cache_is_refused)
{
    gemma4_error error = {""};
    gemma4_subject s;
    test_engine engine = engine_with("logits", NULL, NULL);
    engine.attributes[0][0] = "kv_dtype";
    engine.attributes[0][1] = "unheard-of";
    gemma4_activations *dump =
        gemma4_activations_open(test_engine_dump(&engine), &engine.model->config, &error);
    ck_assert_msg(dump != NULL, "%s", error.message);
    ck_assert_int_ne(gemma4_subject_init(&s, engine.model, dump, gemma4_tier_of("float32"), &error),
                     0);
    assert_message_contains(&error, "attribute kv_dtype: expected one of float32, ");
    assert_message_contains(&error, ", found 'unheard-of'");
    gemma4_subject_free(&s);
    gemma4_activations_close(dump);
}
END_TEST

/* --- what a replay leaves --- */

static void a_third_too_large(gemma4_tap_event *event, gemma4_tap tap, size_t layer)
{
    for (size_t i = 0; event->tap == tap && event->layer == layer &&
                       i < event->rows * event->dims[0] * event->dims[1];
         i++)
        event->values[i] *= (real)(4.0 / 3);
}

static void mistake_in_layer_1(const test_engine *engine, gemma4_tap_event *event)
{
    (void)engine;
    a_third_too_large(event, GEMMA4_TAP_ATTN_OUT, 1);
}

START_TEST(a_step_is_expected_from_the_engines_inputs_and_the_next_one_reads_the_engines)
{
    test_engine engine = {
        .model = test_small_model(), .T = T, .tier = "float32", .compute = mistake_in_layer_1};
    replayed *r = replay_to(&engine, 1);
    const gemma4_tap_evidence *out = &r->e->taps[GEMMA4_TAP_ATTN_OUT],
                              *norm = &r->e->taps[GEMMA4_TAP_ATTN_POST_NORM];
    for (size_t i = 0; i < T * D_MODEL; i++) {
        ck_assert_double_eq_tol((double)out->engine[i], (double)out->expected[i] * 4 / 3,
                                1e-5 * fabs((double)out->expected[i]));
        ck_assert(out->values[i] == out->engine[i]);
        ck_assert_double_eq_tol((double)norm->engine[i], (double)norm->expected[i],
                                1e-5 * fabs((double)norm->expected[i]));
    }
    end_replay(r);
}
END_TEST

static void some_that_cannot_be_compared(const test_engine *engine, gemma4_tap_event *event)
{
    (void)engine;
    if (event->tap == GEMMA4_TAP_ATTN_Q && event->layer == 0)
        event->values[2 * event->dims[0] * event->dims[1] + 5] = NAN;
    if (event->tap == GEMMA4_TAP_ROUTER_TOPK_IDS && event->layer == 0)
        event->ids[3 * K] = event->ids[3 * K + 1];
}

START_TEST(rows_that_cannot_be_compared_are_not_injected)
{
    test_engine engine = {.model = test_small_model(),
                          .T = T,
                          .tier = "float32",
                          .show = some_that_cannot_be_compared};
    replayed *r = replay_to(&engine, 0);
    const gemma4_tap_evidence *q = &r->e->taps[GEMMA4_TAP_ATTN_Q],
                              *weights = &r->e->taps[GEMMA4_TAP_ROUTER_TOPK_WEIGHTS];
    for (size_t t = 0; t < T; t++) {
        ck_assert(q->stored_row[t] && q->have[t] == (t != 2));
        /* nobody knows whose they are */
        ck_assert(weights->stored_row[t] && weights->have[t] == (t != 3));
        ck_assert(r->e->have_ids[t] && r->e->have_valid_ids[t] == (t != 3));
    }
    ck_assert_mem_eq(q->values + 2 * q->width, q->expected + 2 * q->width,
                     q->width * sizeof *q->values);
    ck_assert(isfinite(r->e->output[2 * D_MODEL]));
    end_replay(r);
}
END_TEST

/* Outputs of layers 1 and 2 only: layers 0 and 3, 4, 5 and the head are bridged. */
START_TEST(the_stream_is_known_where_the_dump_holds_all_of_it)
{
    static const struct {
        gemma4_block block, known;
        bool before;
    } cases[] = {
        {-1, -1, false}, {0, -1, true}, {1, -1, true}, {2, 2, false},
        {3, 3, false},   {4, 3, true},  {5, 3, true},  {HEAD, 3, true},
    };
    test_engine engine = engine_with("layers.1.output", "layers.2.output", "logits");
    replayed *r = replay_to(&engine, -1);
    for (size_t i = 0; i < COUNT(cases); i++) {
        advance(r, cases[i].block);
        ck_assert_int_eq(r->e->block, cases[i].block);
        ck_assert_int_eq(r->e->known_block, cases[i].known);
        ck_assert_int_eq(r->e->before != NULL, cases[i].before);
        ck_assert(!r->e->before || r->e->before->block == cases[i].block - 1);
        ck_assert_uint_eq(r->e->layer, cases[i].block >= 0 && cases[i].block < LAYERS
                                           ? (size_t)cases[i].block
                                           : 0);
        ck_assert_int_eq(r->e->ids_fixed,
                         cases[i].block == 0 || cases[i].block == 2 || cases[i].block == 3);
        ck_assert_ptr_eq(r->e->streams[cases[i].block - cases[i].known + 1], r->e->output);
    }
    end_replay(r);
}
END_TEST

/* In the perturbed runs every stored tap differs, more or less by as much as one rounding; what is
 * not stored has no draws, but for the router's logits, whose near-ties have to be known. */
START_TEST(six_draws_are_the_yardstick_of_what_is_stored)
{
    test_engine engine = engine_with("layers.0.attn.out", "layers.0.attn.residual", NULL);
    engine.tier = "bfloat16";
    replayed *r = replay_to(&engine, 0);
    const gemma4_tap_evidence *residual = &r->e->taps[GEMMA4_TAP_ATTN_RESIDUAL];
    double sigma[T];
    gemma4_spread_of_draws(r->e, GEMMA4_TAP_ATTN_RESIDUAL, sigma);
    ck_assert_mem_eq(sigma, residual->sigma, sizeof sigma);
    for (size_t d = 0; d < GEMMA4_DRAWS; d++)
        for (size_t other = 0; other < d; other++)
            ck_assert(memcmp(residual->draws[d], residual->draws[other],
                             T * D_MODEL * sizeof *residual->draws[d]) != 0);
    for (size_t t = 0; t < T; t++) {
        double size = 0;
        for (size_t i = 0; i < D_MODEL; i++)
            size += (double)residual->expected[t * D_MODEL + i] *
                    (double)residual->expected[t * D_MODEL + i] / D_MODEL;
        double roundings = residual->sigma[t] / (0x1p-8 * sqrt(size));
        ck_assert_msg(roundings >= 0.3 && roundings <= 4, "row %zu: %g", t, roundings);
    }
    ck_assert(r->e->taps[GEMMA4_TAP_ROUTER_LOGITS].sigma != NULL &&
              r->e->taps[GEMMA4_TAP_ROUTER_LOGITS].engine == NULL);
    ck_assert(r->e->taps[GEMMA4_TAP_ATTN_Q].sigma == NULL &&
              r->e->taps[GEMMA4_TAP_ATTN_Q].expected != NULL);
    ck_assert(r->e->taps[GEMMA4_TAP_ATTN_SCORES].expected == NULL); /* large */
    end_replay(r);
}
END_TEST

/* The spread of a tap in units of 2^-8 of its size, over all rows. */
static double roundings_of(const test_engine *engine, gemma4_block block, gemma4_tap tap)
{
    replayed *r = replay_to(engine, block);
    const gemma4_tap_evidence *t = &r->e->taps[tap];
    double draws = 0, size = 0;
    for (size_t i = 0; i < T * t->width; i++)
        size += (double)t->expected[i] * (double)t->expected[i];
    for (size_t d = 0; d < GEMMA4_DRAWS; d++)
        for (size_t i = 0; i < T * t->width; i++)
            draws += (double)t->draws[d][i] * (double)t->draws[d][i] / GEMMA4_DRAWS;
    end_replay(r);
    return sqrt(draws / size) / 0x1p-8;
}

/* One rounding, uniform in +-1 units, is 0.577 units; over some hundred values of six draws within
 * a few per cent. */
START_TEST(a_narrow_dataset_or_cache_rounds_once_more)
{
    test_engine engine =
        engine_with("layers.0.attn.k_rope", "layers.0.attn.k_norm", "layers.0.attn.q_rope");
    ck_assert(roundings_of(&engine, 0, GEMMA4_TAP_ATTN_K_ROPE) < 0.001);
    engine.attributes[0][0] = "kv_dtype";
    engine.attributes[0][1] = "bfloat16";
    ck_assert_double_eq_tol(roundings_of(&engine, 0, GEMMA4_TAP_ATTN_K_ROPE), 0.577, 0.04);
    ck_assert(roundings_of(&engine, 0, GEMMA4_TAP_ATTN_Q_ROPE) < 0.001); /* is not cached */
    engine.attributes[0][0] = NULL;
    engine.store = "bfloat16"; /* k_norm is injected, with one rounding, and compared with what was
                                  stored, another one */
    ck_assert_double_eq_tol(roundings_of(&engine, 0, GEMMA4_TAP_ATTN_K_NORM), 0.577, 0.04);
    ck_assert_double_eq_tol(roundings_of(&engine, 0, GEMMA4_TAP_ATTN_K_ROPE), 0.577 * sqrt(2),
                            0.06);
    engine.tier = "bfloat16"; /* then storage adds nothing: k_norm is 2 roundings of its own, and
                                 1.5 in common */
    ck_assert_double_eq_tol(roundings_of(&engine, 0, GEMMA4_TAP_ATTN_K_ROPE), 0.577 * sqrt(1 + 3),
                            0.12);
}
END_TEST

/* <x, y> / (|x| |y|) of n floats. */
static double cosine(const float *x, const float *y, size_t n)
{
    double xx = 0, yy = 0, xy = 0;
    for (size_t i = 0; i < n; i++) {
        xx += (double)x[i] * (double)x[i];
        yy += (double)y[i] * (double)y[i];
        xy += (double)x[i] * (double)y[i];
    }
    return xy / sqrt(xx * yy);
}

/* At position 0 there is no angle to be wrong; at 2^17 the fastest pair may be 0.02 rad off, in
 * every draw by another angle. */
START_TEST(far_positions_turn_by_a_wrong_angle_in_float32)
{
    test_engine engine = {.model = test_golden_model(),
                          .T = T,
                          .tier = "float32",
                          .taps = {"layers.0.attn.q_norm", "layers.0.attn.q_rope"}};
    double near = roundings_of(&engine, 0, GEMMA4_TAP_ATTN_Q_ROPE);
    engine.first_position = (size_t)1 << 17;
    double far = roundings_of(&engine, 0, GEMMA4_TAP_ATTN_Q_ROPE);
    ck_assert_msg(near < 1e-4 && far > 0.1 && far < 2, "%g and %g", near, far);
    replayed *r = replay_to(&engine, 0);
    const gemma4_tap_evidence *q = &r->e->taps[GEMMA4_TAP_ATTN_Q_ROPE];
    double alike = 0;
    for (size_t d = 0; d < GEMMA4_DRAWS; d++)
        for (size_t other = 0; other < d; other++)
            alike += fabs(cosine(q->draws[d], q->draws[other], T * q->width)) / 15;
    ck_assert_msg(alike < 0.9, "%g", alike);
    end_replay(r);
}
END_TEST

/* --- the choice of experts in a run --- */

START_TEST(the_boundary_is_between_the_smallest_chosen_and_the_largest_other)
{
    const real logits[] = {5, 1, 4, 2.5f, -1};
    const int32_t first[] = {2, 0, 3}, other[] = {1, 4}, all[] = {0, 1, 2, 3, 4};
    gemma4_boundary b = gemma4_find_boundary(logits, first, 3, 5);
    ck_assert(b.chosen == 2 && b.other == 1 && b.gap == 1.5);
    b = gemma4_find_boundary(logits, other, 2, 5);
    ck_assert(b.chosen == 1 && b.other == 0 && b.gap == 6);
    ck_assert(isinf(gemma4_find_boundary(logits, all, 5, 5).gap));
}
END_TEST

/* A run of layer 0 that injects these logits in every row; returns in how many of the rows and
 * draws the choice is {0, 2} instead of {0, 1}. */
static size_t tossed(const real logits[E], const real clean_logits[E], size_t draws)
{
    gemma4_error error = {""};
    test_evidence *e = test_evidence_new(NULL, T, "float32", 0);
    test_tap *t = test_evidence_tap(e, GEMMA4_TAP_ROUTER_LOGITS, 0, NULL, NULL, NULL);
    gemma4_runner *runner = gemma4_runner_new(&e->subject, &error);
    real h[T * D_MODEL], clean[T * E];
    int32_t ids[T * K];
    size_t others = 0;
    ck_assert_msg(runner != NULL, "%s", error.message);
    for (size_t i = 0; i < T * E; i++) {
        t->engine[i] = (float)logits[i % E];
        clean[i] = clean_logits[i % E];
    }
    for (size_t d = 0; d < draws; d++) {
        gemma4_noise noise = gemma4_noise_new(e->subject.tier, d);
        const gemma4_block_run run = {.block = 0,
                                      .inject = &e->evidence,
                                      .noise = &noise,
                                      .clean_logits = clean,
                                      .chosen = ids};
        for (size_t i = 0; i < T * D_MODEL; i++)
            h[i] = 1;
        ck_assert_msg(gemma4_run_block(runner, &run, h, &error) == 0, "%s", error.message);
        for (size_t row = 0; row < T; row++) {
            ck_assert(ids[row * K] == 0 && (ids[row * K + 1] == 1 || ids[row * K + 1] == 2));
            others += ids[row * K + 1] == 2;
        }
    }
    gemma4_runner_free(runner);
    test_evidence_free(e);
    return others;
}

/* The run's logits are 0.01 off from the clean ones, each: a difference of two of them has a
   deviation of 0.0141, of which five are 0.0707.
 */
START_TEST(a_coin_settles_near_ties_of_five_deviations)
{
    static const struct {
        real gap;
        bool tossed;
    } cases[] = {{0.0700f, true}, {0.0715f, false}, {0, true}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        const real logits[E] = {3, 2, 2 - cases[i].gap, 1},
                   clean[E] = {3.01f, 1.99f, 2 - cases[i].gap + 0.01f, 0.99f};
        size_t others = tossed(logits, clean, 50);
        ck_assert_msg(cases[i].tossed ? others > 50 * T / 3 && others < 50 * T * 2 / 3
                                      : others == 0,
                      "gap %g: %zu", (double)cases[i].gap, others);
    }
    const real apart[E] = {3, 2, 1.99f, 1}; /* where nothing moves, nothing flips */
    ck_assert_uint_eq(tossed(apart, apart, 5), 0);
}
END_TEST

/* A run takes the engine's choice before one that was given, and that before its own. */
START_TEST(a_run_takes_the_engines_experts_first_then_given_ones)
{
    gemma4_error error = {""};
    const real logits[E] = {3, 2, 1, 0};
    const int32_t engine[T * K] = {3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 3};
    int32_t given[T * K] = {1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2};
    test_evidence *e = test_evidence_new(NULL, T, "float32", 0);
    test_tap *t = test_evidence_tap(e, GEMMA4_TAP_ROUTER_LOGITS, 0, NULL, NULL, NULL);
    for (size_t i = 0; i < T * E; i++)
        t->engine[i] = (float)logits[i % E];
    test_evidence_ids(e, engine, given);
    for (size_t row = 0; row < 4; row++)
        e->have_ids[row] = e->have_valid_ids[row] = row == 0;
    gemma4_runner *runner = gemma4_runner_new(&e->subject, &error);
    ck_assert_msg(runner != NULL, "%s", error.message);
    gemma4_mistakes other = {.parameters = gemma4_right_parameters()}, choosing = other;
    other.changed[GEMMA4_TAP_MLP_OUT] = choosing.changed[GEMMA4_TAP_ROUTER_TOPK_IDS] = true;
    const struct {
        const gemma4_evidence *inject;
        const int32_t *ids;
        const gemma4_mistakes *mistakes;
        bool logits;
        int32_t row_1;
    } cases[] = {
        {&e->evidence, given, NULL, true, 1},      /* given */
        {&e->evidence, NULL, NULL, true, 0},       /* its own: 0 and 1 */
        {&e->evidence, given, &other, true, 1},    /* mistakes elsewhere leave the dump's logits,
                                                      which decide */
        {&e->evidence, given, &choosing, true, 0}, /* a mistake in the choosing makes its own */
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        int32_t ids[T * K];
        real h[T * D_MODEL];
        const gemma4_block_run run = {.block = 0,
                                      .inject = cases[i].inject,
                                      .ids = cases[i].ids,
                                      .mistakes = cases[i].mistakes,
                                      .chosen = ids};
        for (size_t k = 0; k < T * D_MODEL; k++)
            h[k] = 1;
        ck_assert_msg(gemma4_run_block(runner, &run, h, &error) == 0, "%s", error.message);
        ck_assert_msg(ids[0] == 3 && ids[1] == 2, "case %zu", i); /* the engine's */
        ck_assert_msg(ids[K] == cases[i].row_1 && ids[5 * K] == cases[i].row_1, "case %zu: %d, %d",
                      i, ids[K], ids[5 * K]); /* its last is no set */
    }
    /* Logits that are not in the dump: a mistake moves them, so the choice given for the right
     * model does not hold. */
    int32_t own[T * K], ids[T * K];
    real h[2 * T * D_MODEL];
    for (size_t k = 0; k < 2 * T * D_MODEL; k++)
        h[k] = 1;
    t->have[1] = false;
    const gemma4_block_run alone = {.block = 0, .inject = &e->evidence, .chosen = own};
    ck_assert_msg(gemma4_run_block(runner, &alone, h, &error) == 0, "%s", error.message);
    given[K] = own[K];
    for (given[K + 1] = 0; given[K + 1] == own[K] || given[K + 1] == own[K + 1]; given[K + 1]++)
        ;
    const gemma4_block_run open = {
        .block = 0, .inject = &e->evidence, .ids = given, .mistakes = &other, .chosen = ids};
    ck_assert_msg(gemma4_run_block(runner, &open, h + T * D_MODEL, &error) == 0, "%s",
                  error.message);
    ck_assert_mem_eq(ids + K, own + K, K * sizeof *ids);
    ck_assert_int_eq(ids[2 * K], 1); /* the next row's logits decide */
    gemma4_runner_free(runner);
    test_evidence_free(e);
}
END_TEST

/* --- several runs at once --- */

enum { RUNS = 3 };

/* Every value that a run shows, in order: of all taps but ids. */
typedef struct shown {
    float values[1 << 16];
    size_t count;
} shown;

static void keep_shown(void *context, const gemma4_tap_event *e)
{
    shown *s = context;
    size_t n = e->rows * e->dims[0] * e->dims[1];
    ck_assert_uint_le(s->count + n, COUNT(s->values));
    for (size_t i = 0; i < n; i++)
        s->values[s->count++] = (float)e->values[i];
}

/* An exact run and perturbed ones of a block, alone or as one batch: what they show, leave in the
 * stream and choose. Scores of one tap of the dump are injected, so that rows are told apart. */
static void run_several(bool together, gemma4_block block, shown seen[RUNS], real *h,
                        int32_t chosen[RUNS][T * K])
{
    gemma4_error error = {""};
    test_evidence *e = test_evidence_new(NULL, T, "bfloat16", block);
    gemma4_tap injected = block < LAYERS ? GEMMA4_TAP_ATTN_OUT : GEMMA4_TAP_FINAL_NORM;
    test_tap *t = test_evidence_tap(e, injected, 0, NULL, NULL, NULL);
    gemma4_runner *runner = gemma4_runner_new(&e->subject, &error);
    gemma4_block_run runs[RUNS];
    gemma4_noise noise[RUNS];
    ck_assert_msg(runner != NULL, "%s", error.message);
    for (size_t i = 0; i < T * D_MODEL; i++)
        t->engine[i] = (float)((double)(i * 37 % 101) / 50 - 1);
    for (size_t i = 0; i < RUNS; i++) {
        noise[i] = gemma4_noise_new(e->subject.tier, i);
        seen[i].count = 0;
        runs[i] = (gemma4_block_run){.block = block,
                                     .inject = &e->evidence,
                                     .noise = i ? &noise[i] : NULL,
                                     .draw = i,
                                     .see = keep_shown,
                                     .context = &seen[i],
                                     .chosen = chosen[i]};
        for (size_t k = 0; k < T * D_MODEL; k++)
            h[i * T * D_MODEL + k] = (real)((double)(k * 53 % 97) / 40 - 1 + 0.01 * (double)i);
    }
    if (together)
        ck_assert_msg(gemma4_run_block_batch(runner, runs, RUNS, h, &error) == 0, "%s",
                      error.message);
    for (size_t i = 0; i < RUNS && !together; i++)
        ck_assert_msg(gemma4_run_block(runner, &runs[i], h + i * T * D_MODEL, &error) == 0, "%s",
                      error.message);
    gemma4_runner_free(runner);
    test_evidence_free(e);
}

/* A sliding layer whose window is shorter than the chunk, a full one, and the head. */
START_TEST(runs_of_a_batch_are_the_runs_alone)
{
    static const gemma4_block blocks[] = {0, 5, HEAD};
    static shown alone[RUNS], together[RUNS];
    real h_alone[RUNS * T * D_MODEL], h_together[RUNS * T * D_MODEL];
    int32_t ids_alone[RUNS][T * K] = {{0}}, ids_together[RUNS][T * K] = {{0}};
    run_several(false, blocks[_i], alone, h_alone, ids_alone);
    run_several(true, blocks[_i], together, h_together, ids_together);
    for (size_t i = 0; i < RUNS; i++) {
        ck_assert_uint_gt(alone[i].count, 0);
        ck_assert_uint_eq(together[i].count, alone[i].count);
        ck_assert_mem_eq(together[i].values, alone[i].values,
                         alone[i].count * sizeof *alone[i].values);
    }
    ck_assert_mem_eq(h_together, h_alone, sizeof h_alone);
    ck_assert_mem_eq(ids_together, ids_alone, sizeof ids_alone);
    ck_assert_mem_ne(alone[1].values, alone[0].values, T * D_MODEL * sizeof *alone[0].values);
}
END_TEST

/* --- mistakes --- */

static void double_the_layer_scalar(gemma4_parameters *p)
{
    p->stream.layer_scalar_twice = true;
}

static void nothing(gemma4_parameters *p)
{
    (void)p;
}

static const gemma4_counter_model SCALAR = {.id = "scalar",
                                            .variant = "",
                                            .where = GEMMA4_ON_SLIDING,
                                            .change = double_the_layer_scalar,
                                            .taps = {GEMMA4_TAP_LAYER_OUTPUT, GEMMA4_TAP_COUNT}};
static const gemma4_counter_model NOTHING = {.id = "nothing",
                                             .variant = "",
                                             .where = GEMMA4_ON_SLIDING | GEMMA4_ON_FULL |
                                                      GEMMA4_ON_HEAD,
                                             .change = nothing,
                                             .taps = {GEMMA4_TAP_COUNT}};

START_TEST(a_planted_model_acts_where_it_concerns_and_in_its_layer_only)
{
    const gemma4_config *c = &test_small_model()->config;
    const gemma4_planted planted = {.models = {&SCALAR, &NOTHING},
                                    .only_layer = {-1, 3},
                                    .count = 2,
                                    .scope = GEMMA4_DECODE_ONLY};
    for (gemma4_block block = -1; block <= HEAD; block++) {
        bool sliding = block >= 0 && block < 5;
        ck_assert_int_eq(gemma4_planted_in(c, &planted, 0, block), sliding);
        ck_assert_int_eq(gemma4_planted_in(c, &planted, 1, block), block == 3);
        gemma4_mistakes m = gemma4_mistakes_in(c, &planted, block);
        ck_assert_int_eq(m.parameters.stream.layer_scalar_twice, sliding);
        ck_assert_int_eq(m.scope, GEMMA4_DECODE_ONLY);
        for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
            ck_assert_int_eq(m.changed[tap], sliding && tap == GEMMA4_TAP_LAYER_OUTPUT);
    }
}
END_TEST

static real *run_counter(const replayed *r, const gemma4_planted *planted, gemma4_tap stop,
                         size_t draw)
{
    gemma4_error error = {""};
    real *out = calloc(T * r->e->taps[stop].width, sizeof *out);
    const gemma4_counter_run run = {
        .planted = planted, .ids = r->e->ids, .stop = stop, .out = out, .draw = draw};
    ck_assert_ptr_nonnull(out);
    ck_assert_msg(gemma4_run_counter(r->e, gemma4_replay_runner(r->replay), &run, &error) == 0,
                  "%s", error.message);
    return out;
}

/* The positions 4 and 5 are fed one at a time. */
START_TEST(a_mistake_is_made_at_the_positions_of_its_scope)
{
    test_engine engine = engine_with("layers.0.output", NULL, NULL);
    engine.attributes[0][0] = "schedule";
    engine.attributes[0][1] = "4,1,1";
    replayed *r = replay_to(&engine, 0);
    const gemma4_planted planted = {
        .models = {&SCALAR}, .only_layer = {-1}, .count = 1, .scope = GEMMA4_DECODE_ONLY};
    real *out = run_counter(r, &planted, GEMMA4_TAP_LAYER_OUTPUT, 0);
    const real *expected = r->e->taps[GEMMA4_TAP_LAYER_OUTPUT].expected;
    for (size_t t = 0; t < T; t++)
        ck_assert_msg((memcmp(out + t * D_MODEL, expected + t * D_MODEL, D_MODEL * sizeof *out) !=
                       0) == (t >= 4),
                      "position %zu", t);
    free(out);
    end_replay(r);
}
END_TEST

/* --- runs without mistakes --- */

/* Dumps that hold of most layers only a part, or nothing. */
static const char *const BRIDGED[][4] = {
    {"layers.*.attn.context", "logits"},
    {"layers.*.attn.probs", "logits"},
    {"layers.*.attn.scores", "layers.2.output", "logits"},
    {"layers.*.router.topk_ids", "layers.*.moe.out", "logits"},
    {"layers.*.router.logits", "logits"},
    {"layers.1.output", "layers.4.mlp.act", "layers.3.ffn.residual", "final_norm"},
    {"layers.*.output", "layers.*.moe.*", "logits"},
    {"logits"},
};

/* Whether nothing is planted, or a model that changes nothing, which makes all blocks run again
 * from where the stream was known. */
START_TEST(a_run_without_mistakes_gives_what_was_expected_bit_by_bit)
{
    const gemma4_planted none = {.count = 0},
                         empty = {.models = {&NOTHING}, .only_layer = {-1}, .count = 1};
    test_engine engine = {
        .model = test_small_model(), .T = T, .tier = "float32", .compute = mistake_in_layer_1};
    memcpy(engine.taps, BRIDGED[_i], sizeof BRIDGED[_i]);
    replayed *r = replay_to(&engine, -1);
    for (gemma4_block block = -1; block <= HEAD; block++) {
        advance(r, block);
        for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
            const gemma4_tap_evidence *t = &r->e->taps[tap];
            char name[GEMMA4_TAP_NAME_SIZE];
            if (!t->expected)
                continue;
            gemma4_tap_name((gemma4_tap)tap, r->e->layer, name);
            real *right = run_counter(r, &none, (gemma4_tap)tap, 0),
                 *replanted = run_counter(r, &empty, (gemma4_tap)tap, 0);
            ASSERT_EACH(memcmp(right, t->expected, T * t->width * sizeof *right) == 0,
                        "%s: nothing planted", name);
            ASSERT_EACH(memcmp(replanted, t->expected, T * t->width * sizeof *right) == 0,
                        "%s: planted without effect", name);
            free(right);
            free(replanted);
        }
    }
    end_replay(r);
}
END_TEST

static const struct {
    const char *taps[2];
    gemma4_block block;
    gemma4_tap tap;
} PERTURBED[] = {
    {{"layers.0.attn.*", "layers.0.output"}, 0, GEMMA4_TAP_LAYER_OUTPUT},
    {{"final_norm"}, HEAD, GEMMA4_TAP_FINAL_NORM}, /* everything is bridged, and everything is
                                                      perturbed */
};

/* A perturbed run is as far from what was expected as the replay's draws, and none of them. */
START_TEST(a_perturbed_counter_run_is_another_draw)
{
    const gemma4_planted none = {.count = 0};
    test_engine engine = engine_with(PERTURBED[_i].taps[0], PERTURBED[_i].taps[1], NULL);
    replayed *r = replay_to(&engine, PERTURBED[_i].block);
    const gemma4_tap_evidence *t = &r->e->taps[PERTURBED[_i].tap];
    size_t n = T * t->width;
    for (size_t draw = 1; draw <= 2; draw++) {
        real *out = run_counter(r, &none, PERTURBED[_i].tap, draw),
             *again = run_counter(r, &none, PERTURBED[_i].tap, draw);
        double size = 0, spread = 0;
        ck_assert_mem_eq(out, again, n * sizeof *out);
        for (size_t d = 0; d < GEMMA4_DRAWS; d++) {
            bool same = true;
            for (size_t i = 0; i < n; i++)
                same = same && (float)(out[i] - t->expected[i]) == t->draws[d][i];
            ck_assert(!same);
        }
        for (size_t i = 0; i < n; i++) {
            size += ((double)out[i] - (double)t->expected[i]) *
                    ((double)out[i] - (double)t->expected[i]);
            spread += t->sigma[i / t->width] * t->sigma[i / t->width];
        }
        ck_assert_msg(sqrt(size / spread) > 0.5 && sqrt(size / spread) < 2, "%g of the spread",
                      sqrt(size / spread));
        free(out);
        free(again);
    }
    end_replay(r);
}
END_TEST

/* Where a mistake moves logits that the dump does not hold, choices within a near-tie are open. */
START_TEST(choices_that_a_mistake_may_turn_are_open_where_the_dump_does_not_settle_them)
{
    gemma4_error error = {""};
    const gemma4_planted none = {.count = 0},
                         empty = {.models = {&NOTHING}, .only_layer = {-1}, .count = 1};
    test_engine engine = engine_with("layers.0.output", NULL, NULL);
    replayed *r = replay_to(&engine, 0);
    /* The evidence is the test's own from here on: in rows 0 to 3 two logits may differ by as much
     * as they like; row 1 has the engine's choice, row 2 its logits. */
    gemma4_evidence e = *r->e;
    double sigma[T] = {1e3, 1e3, 1e3, 1e3, 1e-9, 1e-9};
    float stored[T * E] = {0};
    bool have[T] = {false, false, true}, valid[T] = {false, true}, open[T];
    int32_t engine_ids[T * K] = {0, 1, 0, 1};
    gemma4_activation held = {.stored_dtype = "float32"};
    real *out = calloc(T * D_MODEL, sizeof *out);
    e.taps[GEMMA4_TAP_ROUTER_LOGITS].sigma = sigma;
    e.taps[GEMMA4_TAP_ROUTER_LOGITS].engine = stored;
    e.taps[GEMMA4_TAP_ROUTER_LOGITS].have = have;
    e.taps[GEMMA4_TAP_ROUTER_LOGITS].stored = &held;
    e.have_valid_ids = valid;
    e.engine_ids = engine_ids;
    gemma4_counter_run run = {
        .planted = &empty, .ids = e.ids, .stop = GEMMA4_TAP_LAYER_OUTPUT, .out = out, .open = open};
    ck_assert_msg(gemma4_run_counter(&e, gemma4_replay_runner(r->replay), &run, &error) == 0, "%s",
                  error.message);
    for (size_t t = 0; t < T; t++)
        ck_assert_msg(open[t] == (t == 0 || t == 3), "row %zu", t);
    run.planted = &none; /* the right model's choice is the one that was inferred */
    ck_assert_msg(gemma4_run_counter(&e, gemma4_replay_runner(r->replay), &run, &error) == 0, "%s",
                  error.message);
    for (size_t t = 0; t < T; t++)
        ck_assert(!open[t]);
    free(out);
    end_replay(r);
}
END_TEST

/* --- steps --- */

START_TEST(the_step_of_the_evidence_computes_what_was_expected)
{
    gemma4_error error = {""};
    const gemma4_parameters right = gemma4_right_parameters();
    test_engine engine = {
        .model = test_small_model(), .T = T, .tier = "float32", .compute = mistake_in_layer_1};
    replayed *r = replay_to(&engine, 1);
    gemma4_step step = gemma4_evidence_step(r->e);
    const gemma4_tap_evidence *t = &r->e->taps[GEMMA4_TAP_FFN_SUM];
    real *out = calloc(T * D_MODEL, sizeof *out);
    ck_assert(step.layer == 1 && step.T == T && step.topk_ids == r->e->ids &&
              step.values[GEMMA4_TAP_ATTN_OUT] == r->e->taps[GEMMA4_TAP_ATTN_OUT].values);
    ck_assert_msg(gemma4_counter_step(&step, &right, GEMMA4_TAP_FFN_SUM, out, NULL, &error) == 0,
                  "%s", error.message);
    for (size_t i = 0; i < T * D_MODEL; i++)
        ck_assert_double_eq_tol((double)out[i], (double)t->expected[i],
                                1e-5 * fabs((double)t->expected[i]));
    advance(r, HEAD);
    ck_assert_ptr_eq(gemma4_evidence_step(r->e).values[GEMMA4_TAP_LAYER_OUTPUT], r->e->output);
    free(out);
    end_replay(r);
}
END_TEST

/* One rounding to float32 at most; what the dump does not hold stays. */
START_TEST(a_perturbed_step_moves_injected_tensors_by_one_storage_rounding)
{
    gemma4_error error = {""};
    test_engine engine = engine_with("layers.0.attn.q", "layers.0.output", NULL);
    engine.store = "bfloat16";
    replayed *r = replay_to(&engine, 0);
    gemma4_step step;
    ck_assert_msg(gemma4_perturbed_step(r->e, &step, &error) == 0, "%s", error.message);
    const gemma4_tap_evidence *q = &r->e->taps[GEMMA4_TAP_ATTN_Q],
                              *k = &r->e->taps[GEMMA4_TAP_ATTN_K];
    double largest = 0;
    for (size_t i = 0; i < T * q->width; i++)
        largest = fmax(largest,
                       fabs((double)step.values[GEMMA4_TAP_ATTN_Q][i] / (double)q->values[i] - 1));
    ck_assert_msg(largest <= 0x1p-8 && largest > 0.9 * 0x1p-8, "%g", largest);
    ck_assert_mem_eq(step.values[GEMMA4_TAP_ATTN_K], k->values, T * k->width * sizeof *k->values);
    ck_assert(step.values[GEMMA4_TAP_ATTN_K] != k->values);
    ck_assert_ptr_null(step.values[GEMMA4_TAP_ATTN_SCORES]);
    gemma4_step_free(&step);
    end_replay(r);
}
END_TEST

/* --- the reference by itself --- */

static double golden_factor;

static void scale_out_of_layer_1(const test_engine *engine, gemma4_tap_event *event)
{
    (void)engine;
    for (size_t i = 0;
         event->tap == GEMMA4_TAP_ATTN_OUT && event->layer == 1 && i < event->rows * event->dims[0];
         i++)
        event->values[i] = (real)((double)event->values[i] * golden_factor);
}

/* The golden is the reference's own dump, of which one tensor is off by a part. */
static const struct {
    double part;
    bool agrees;
} GOLDENS[] = {{0, true}, {0.9e-5, true}, {-0.9e-5, true}, {1.1e-5, false}, {-1.1e-5, false}};

START_TEST(the_reference_agrees_with_a_golden_within_1e_5_and_takes_its_rows)
{
    gemma4_error error = {""};
    const bool keep[GEMMA4_TAP_COUNT] = {[GEMMA4_TAP_ATTN_OUT] = true, [GEMMA4_TAP_ATTN_Q] = true};
    test_engine of_golden = engine_with("layers.*.attn.out", "layers.*.topk_ids", NULL),
                engine = engine_with("logits", NULL, NULL);
    golden_factor = 1 + GOLDENS[_i].part;
    of_golden.show = scale_out_of_layer_1;
    gemma4_activations *golden =
        gemma4_activations_open(test_engine_dump(&of_golden), &engine.model->config, &error);
    replayed *r = replay_to(&engine, -1);
    gemma4_reference_run *with = gemma4_reference_run_new(&r->subject, golden, &error),
                         *without = gemma4_reference_run_new(&r->subject, NULL, &error);
    ck_assert_msg(with && without, "%s", error.message);
    for (gemma4_block block = -1; block <= 1; block++) {
        ck_assert_int_eq(gemma4_reference_run_next(without, keep, &error), 0);
        int status = gemma4_reference_run_next(with, keep, &error);
        ck_assert_msg((status == 0) == (block < 1 || GOLDENS[_i].agrees), "block %d: %s", block,
                      error.message);
    }
    if (GOLDENS[_i].agrees) {
        const float *expected = gemma4_reference_expected(with, GEMMA4_TAP_ATTN_OUT),
                    *own = gemma4_reference_expected(without, GEMMA4_TAP_ATTN_OUT);
        for (size_t i = 0; i < T * D_MODEL; i++)
            ck_assert(expected[i] == (float)((double)own[i] * golden_factor));
        ck_assert_double_eq_tol(gemma4_reference_agreement(with, GEMMA4_TAP_ATTN_OUT),
                                fabs(GOLDENS[_i].part), 1e-7);
        ck_assert(gemma4_reference_agreement(with, GEMMA4_TAP_ATTN_Q) < 0 &&
                  gemma4_reference_agreement(without, GEMMA4_TAP_ATTN_OUT) < 0);
        /* the reference's own */
        ck_assert_ptr_nonnull(gemma4_reference_expected(with, GEMMA4_TAP_ATTN_Q));
        ck_assert_ptr_null(gemma4_reference_expected(with, GEMMA4_TAP_ATTN_K)); /* not wanted */
        ck_assert_mem_eq(gemma4_reference_ids(with), gemma4_reference_ids(without),
                         T * K * sizeof(int32_t));
    } else {
        assert_message_contains(
            &error, "this build's reference disagrees with its golden: layers.1.attn.out");
    }
    gemma4_reference_run_free(with);
    gemma4_reference_run_free(without);
    gemma4_activations_close(golden);
    end_replay(r);
}
END_TEST

/* Writes all keys of a row of scores: what the mask excludes is minus infinity. */
static void mask_by_infinity(const test_engine *engine, gemma4_tap_event *event)
{
    static real all[H * T];
    (void)engine;
    if (event->tap != GEMMA4_TAP_ATTN_SCORES)
        return;
    for (size_t i = 0; i < H * T; i++)
        all[i] = -INFINITY;
    for (size_t h = 0; h < H; h++)
        memcpy(all + h * T + event->first_key, event->values + h * event->dims[1],
               event->dims[1] * sizeof *all);
    event->values = all;
    event->first_key = 0;
    event->dims[1] = T;
}

START_TEST(masked_scores_of_a_golden_are_not_expected_of_an_engine)
{
    gemma4_error error = {""};
    const bool keep[GEMMA4_TAP_COUNT] = {[GEMMA4_TAP_ATTN_SCORES] = true};
    test_engine of_golden = engine_with("layers.*.attn.scores", NULL, NULL),
                engine = engine_with("logits", NULL, NULL);
    of_golden.show = mask_by_infinity;
    gemma4_activations *golden =
        gemma4_activations_open(test_engine_dump(&of_golden), &engine.model->config, &error);
    replayed *r = replay_to(&engine, -1);
    gemma4_reference_run *with = gemma4_reference_run_new(&r->subject, golden, &error);
    gemma4_reference_run *without = gemma4_reference_run_new(&r->subject, NULL, &error);
    ck_assert_msg(with && without, "%s", error.message);
    for (gemma4_block block = -1; block <= 0; block++) {
        ck_assert_msg(gemma4_reference_run_next(with, keep, &error) == 0, "%s", error.message);
        ck_assert_int_eq(gemma4_reference_run_next(without, keep, &error), 0);
    }
    ck_assert_mem_eq(gemma4_reference_expected(with, GEMMA4_TAP_ATTN_SCORES),
                     gemma4_reference_expected(without, GEMMA4_TAP_ATTN_SCORES),
                     T * H * T * sizeof(float));
    gemma4_reference_run_free(with);
    gemma4_reference_run_free(without);
    gemma4_activations_close(golden);
    end_replay(r);
}
END_TEST

/* The same experts in another order are the same; the golden's order is taken. */
static void reverse_ids(const test_engine *engine, gemma4_tap_event *event)
{
    (void)engine;
    for (size_t t = 0; event->ids && t < event->rows; t++) {
        int32_t first = event->ids[t * K];
        event->ids[t * K] = event->ids[t * K + 1];
        event->ids[t * K + 1] = first;
    }
}

static void other_ids(const test_engine *engine, gemma4_tap_event *event)
{
    (void)engine;
    if (event->ids && event->layer == 0) {
        int32_t *ids = event->ids + 2 * K, other = 0;
        while (other == ids[0] || other == ids[1])
            other++;
        ids[0] = other;
    }
}

START_TEST(the_goldens_experts_must_be_the_references_in_any_order)
{
    const bool keep[GEMMA4_TAP_COUNT] = {false};
    test_engine engine = engine_with("logits", NULL, NULL),
                of_golden = engine_with("layers.*.topk_ids", NULL, NULL);
    test_change *const changes[] = {reverse_ids, other_ids};
    replayed *r = replay_to(&engine, -1);
    for (size_t i = 0; i < COUNT(changes); i++) {
        gemma4_error error = {""};
        of_golden.show = changes[i];
        gemma4_activations *golden =
            gemma4_activations_open(test_engine_dump(&of_golden), &engine.model->config, &error);
        gemma4_reference_run *with = gemma4_reference_run_new(&r->subject, golden, &error),
                             *without = gemma4_reference_run_new(&r->subject, NULL, &error);
        ck_assert_msg(with && without, "%s", error.message);
        ck_assert_int_eq(gemma4_reference_run_next(with, keep, &error) |
                             gemma4_reference_run_next(without, keep, &error),
                         0);
        ck_assert_int_eq(gemma4_reference_run_next(without, keep, &error), 0);
        int status = gemma4_reference_run_next(with, keep, &error);
        if (i == 0) {
            ck_assert_int_eq(status, 0);
            ck_assert_int_eq(gemma4_reference_ids(with)[0], gemma4_reference_ids(without)[1]);
        } else {
            ck_assert_int_eq(status, -1);
            assert_message_contains(&error, "layers.0.router.topk_ids, position 2: other experts");
        }
        gemma4_reference_run_free(with);
        gemma4_reference_run_free(without);
        gemma4_activations_close(golden);
    }
    end_replay(r);
}
END_TEST

Suite *replay_suite(void)
{
    Suite *suite = suite_create("replay");
    TCase *replay = tcase_create("replay"), *runs = tcase_create("runs"),
          *reference = tcase_create("reference");
    tcase_add_loop_test(replay, a_subject_is_what_the_dump_says_of_the_engine, 0, COUNT(CACHES));
    tcase_add_test(replay, an_unknown_type_of_the_cache_is_refused);
    tcase_add_test(replay,
                   a_step_is_expected_from_the_engines_inputs_and_the_next_one_reads_the_engines);
    tcase_add_test(replay, rows_that_cannot_be_compared_are_not_injected);
    tcase_add_test(replay, the_stream_is_known_where_the_dump_holds_all_of_it);
    tcase_add_test(replay, six_draws_are_the_yardstick_of_what_is_stored);
    tcase_add_test(replay, a_narrow_dataset_or_cache_rounds_once_more);
    tcase_add_test(replay, far_positions_turn_by_a_wrong_angle_in_float32);
    suite_add_tcase(suite, replay);
    tcase_add_test(runs, the_boundary_is_between_the_smallest_chosen_and_the_largest_other);
    tcase_add_test(runs, a_coin_settles_near_ties_of_five_deviations);
    tcase_add_test(runs, a_run_takes_the_engines_experts_first_then_given_ones);
    tcase_add_loop_test(runs, runs_of_a_batch_are_the_runs_alone, 0, 3);
    tcase_add_test(runs, a_planted_model_acts_where_it_concerns_and_in_its_layer_only);
    tcase_add_test(runs, a_mistake_is_made_at_the_positions_of_its_scope);
    tcase_add_loop_test(runs, a_run_without_mistakes_gives_what_was_expected_bit_by_bit, 0,
                        COUNT(BRIDGED));
    tcase_add_loop_test(runs, a_perturbed_counter_run_is_another_draw, 0, COUNT(PERTURBED));
    tcase_add_test(runs,
                   choices_that_a_mistake_may_turn_are_open_where_the_dump_does_not_settle_them);
    tcase_add_test(runs, the_step_of_the_evidence_computes_what_was_expected);
    tcase_add_test(runs, a_perturbed_step_moves_injected_tensors_by_one_storage_rounding);
    suite_add_tcase(suite, runs);
    tcase_add_loop_test(reference,
                        the_reference_agrees_with_a_golden_within_1e_5_and_takes_its_rows, 0,
                        COUNT(GOLDENS));
    tcase_add_test(reference, masked_scores_of_a_golden_are_not_expected_of_an_engine);
    tcase_add_test(reference, the_goldens_experts_must_be_the_references_in_any_order);
    suite_add_tcase(suite, reference);
    return suite;
}
