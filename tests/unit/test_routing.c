/* Which experts an engine chose (tests/check/routing.h): by numbers made by hand, and by dumps of
 * engines that break ties the other way. */
#include "engines.h"
#include "evidence_maker.h"
#include "replay.h"
#include "routing.h"
#include "suites.h"
#include "support.h"

#include <math.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* --- choices that the dump holds: one row of 4 experts, of which 2 are chosen --- */

static gemma4_routing_verdict judged(test_evidence *e)
{
    gemma4_error error = {""};
    gemma4_routing_verdict v;
    ck_assert_int_eq(gemma4_routing_judge(&e->evidence, &v, &error), 0);
    return v;
}

static const char RIGHT[] = "right", EXCUSED[] = "excused", FAULT[] = "fault";

/* The verdict on one choice, and how many swaps it has. */
static void assert_choice(test_evidence *e, int32_t first, int32_t second, const char *expected,
                          size_t swaps)
{
    const int32_t engine[] = {first, second}, own[] = {0, 1};
    test_evidence_ids(e, engine, own);
    gemma4_routing_verdict v = judged(e);
    const char *found = v.counts.faults ? FAULT : v.counts.excused ? EXCUSED : RIGHT;
    ck_assert_msg(!strcmp(found, expected) && v.counts.swaps == swaps && v.counts.decisions == 1,
                  "%d and %d: %s with %zu swaps, expected %s with %zu", first, second, found,
                  v.counts.swaps, expected, swaps);
}

static test_evidence *stored_logits(const char *tier, const char *stored, const float logits[4])
{
    test_evidence *e = test_evidence_new(NULL, 1, tier, 0);
    const double sigma[] = {0};
    test_tap *t = test_evidence_tap(e, GEMMA4_TAP_ROUTER_LOGITS, 0, logits, logits, sigma);
    strcpy(t->stored.stored_dtype, stored);
    return e;
}

/* A spread of 0.01 in each logit: two of them may change places within 5 sqrt(2) of that,
 * 0.0707. */
START_TEST(recomputed_logits_excuse_a_choice_within_five_deviations)
{
    static const struct {
        float gap;
        const char *verdict;
        size_t near;
    } cases[] = {{0.0700f, EXCUSED, 1}, {0.0715f, FAULT, 0}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        const gemma4_real logits[] = {3, 2, 2 - cases[i].gap, 0};
        const double sigma[] = {0.01};
        test_evidence *e = test_evidence_new(NULL, 1, "float32", 0);
        test_evidence_unstored(e, GEMMA4_TAP_ROUTER_LOGITS, 0, logits, sigma);
        ck_assert_uint_eq(judged(e).counts.decisions, 0);
        ck_assert_uint_eq(judged(e).counts.near_ties, cases[i].near);
        assert_choice(e, 0, 1, RIGHT, 0);
        assert_choice(e, 1, 0, RIGHT, 0); /* in any order */
        assert_choice(e, 2, 0, cases[i].verdict, 1);
        assert_choice(e, 0, 3, FAULT, 1);
        assert_choice(e, 2, 1, FAULT, 1); /* the first is not to be missing */
        assert_choice(e, 2, 3, FAULT, 2);
        test_evidence_free(e);
    }
}
END_TEST

START_TEST(what_is_no_set_of_experts_is_a_fault)
{
    test_evidence *e = stored_logits("float32", "float32", (const float[]){0, 0, 0, 0});
    assert_choice(e, 1, 1, FAULT, 0);
    assert_choice(e, 0, 4, FAULT, 0);
    assert_choice(e, -1, 0, FAULT, 0);
    assert_choice(e, 3, 2, RIGHT, 0); /* where all are tied, any two are right */
    test_evidence_free(e);
}
END_TEST

START_TEST(any_choice_among_exact_ties_of_stored_logits_is_right)
{
    static const char *const tiers[] = {"float32", "bfloat16", "float16", "q8_0"};
    for (size_t i = 0; i < COUNT(tiers); i++) {
        test_evidence *e = stored_logits(tiers[i], "float32", (const float[]){3, 2, 2, 2});
        assert_choice(e, 0, 1, RIGHT, 0);
        assert_choice(e, 0, 2, RIGHT, 0);
        assert_choice(e, 3, 0, RIGHT, 0);
        assert_choice(e, 1, 2, FAULT, 1); /* expert 0 is no part of the tie */
        test_evidence_free(e);
    }
}
END_TEST

/* The largest logit is 1: float32 probabilities that are rounded tie where logits are up to 4 *
 * 2^-24 apart. In a dataset of bfloat16 two roundings of 2^-8 may have parted what was equal. */
static const struct {
    const char *stored;
    float gap;
    const char *verdict;
} SLACK[] = {
    {"float32", 4 * 0x1p-24f, EXCUSED},   {"float32", 5 * 0x1p-24f, FAULT},
    {"float64", 4 * 0x1p-24f, EXCUSED},   {"bfloat16", 0x1p-7f, EXCUSED},
    {"bfloat16", 1.25f * 0x1p-7f, FAULT}, {"float16", 0x1p-10f, EXCUSED},
    {"float16", 1.25f * 0x1p-10f, FAULT},
};

START_TEST(stored_logits_may_differ_by_what_storing_them_did)
{
    const float logits[] = {1, 0.75f, 0.75f - SLACK[_i].gap, -0.5f};
    test_evidence *e = stored_logits("float32", SLACK[_i].stored, logits);
    assert_choice(e, 0, 2, SLACK[_i].verdict, 1);
    test_evidence_free(e);
    /* The size of the largest counts, whatever its sign. */
    const float below[] = {0.5f, 0.375f, 0.375f - SLACK[_i].gap, -1};
    e = stored_logits("float32", SLACK[_i].stored, below);
    assert_choice(e, 0, 2, SLACK[_i].verdict, 1);
    test_evidence_free(e);
}
END_TEST

/* The probabilities of experts 1 and 2 are 0.14676 and 0.14618: in bfloat16 both are 0.146484, the
 * third's is 0.144531. In float16 those of 0.953125 and of the next logit below it, 0.95263672, are
 * both 0.14795 beside 2.28125. */
START_TEST(in_a_16_bit_tier_what_ties_as_a_probability_is_a_tie)
{
    static const float logits[] = {2.296875f, 0.953125f, 0.94921875f, 0.9375f},
                       next[] = {2.28125f, 0.953125f, 0.95263672f, 0.9375f};
    static const struct {
        const char *tier;
        const float *logits;
        const char *verdict;
    } cases[] = {
        {"bfloat16", logits, EXCUSED}, {"float16", logits, FAULT}, {"float32", logits, FAULT},
        {"float16", next, EXCUSED},    {"float32", next, FAULT},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        test_evidence *e = stored_logits(cases[i].tier, cases[i].tier, cases[i].logits);
        assert_choice(e, 0, 1, RIGHT, 0);
        assert_choice(e, 0, 2, cases[i].verdict, 1);
        assert_choice(e, 0, 3, FAULT, 1); /* beyond the tie */
        test_evidence_free(e);
    }
}
END_TEST

/* Where the dump holds the probabilities, those count, as they are rounded to the tier. */
START_TEST(stored_probabilities_say_whether_they_tie)
{
    static const float logits[] = {2.296875f, 0.953125f, 0.94921875f, 0.9375f},
                       tied[] = {0.5625f, 0.1467f, 0.1463f, 0.1445f};
    static const float parted[] = {0.5625f, 0.1475f, 0.1463f, 0.1445f};
    test_evidence *e = stored_logits("bfloat16", "bfloat16", logits);
    test_tap *probs = test_evidence_tap(e, GEMMA4_TAP_ROUTER_PROBS, 0, NULL, tied, NULL);
    assert_choice(e, 0, 2, EXCUSED, 1);
    assert_choice(e, 0, 3, FAULT, 1);
    memcpy(probs->engine, parted, sizeof parted);
    assert_choice(e, 0, 2, FAULT, 1);
    probs->have[0] = false; /* a row that cannot be read says nothing */
    assert_choice(e, 0, 2, EXCUSED, 1);
    test_evidence_free(e);
}
END_TEST

/* 0.1469 lies between two numbers of bfloat16; m is the middle between them, where rounding
 * changes. A probability a bit above it and one below: the engine's own may be off by 2^-20 before
 * they are rounded. */
START_TEST(probabilities_computed_from_logits_may_be_a_millionth_off)
{
    static const struct {
        double above, below;
        bool tie;
    } cases[] = {
        {0.8, 40, true}, {1.25, 40, false}, {40, 0.8, true}, {40, 1.25, false}, {40, 40, false},
    };
    const double m = 150.5 / 1024, slack = 0x1p-20;
    for (size_t i = 0; i < COUNT(cases); i++) {
        double upper = m * (1 + cases[i].above * slack), lower = m * (1 - cases[i].below * slack);
        /* Logits near 0, which floats hold most finely. */
        const float logits[] = {(float)log((1 - upper - lower) / m),
                                (float)log1p(cases[i].above * slack),
                                (float)log1p(-cases[i].below * slack)};
        ck_assert_msg(gemma4_routing_may_exchange(gemma4_tier_of("bfloat16"), logits, NULL, 3, 1, 2,
                                                  0) == cases[i].tie,
                      "%zu", i);
    }
}
END_TEST

/* A choice among logits that are not finite is neither right nor wrong. Where the dump's logits are
 * finite they decide, whatever comes later. */
START_TEST(a_choice_that_follows_from_nan_is_left_out)
{
    const int32_t engine[] = {3, 3, 2, 3}, own[4] = {0};
    const float logits[] = {3, 2, 1, 0, 3, 2, 1, 0};
    test_evidence *e = test_evidence_new(NULL, 2, "float32", 0);
    test_tap *stored =
        test_evidence_tap(e, GEMMA4_TAP_ROUTER_LOGITS, 0, logits, logits, (const double[]){0, 0});
    test_tap *out = test_evidence_tap(e, GEMMA4_TAP_MOE_OUT, 0, NULL, NULL, NULL),
             *weights = test_evidence_tap(e, GEMMA4_TAP_MOE_ACT, 0, NULL, NULL, NULL);
    test_evidence_ids(e, engine, own);
    out->have[0] = out->have[1] = false;
    ck_assert(judged(e).counts.faults == 2 && judged(e).left_out == 0);
    stored->have[0] = false; /* its values are not finite */
    ck_assert(judged(e).counts.faults == 1 && judged(e).counts.decisions == 1 &&
              judged(e).left_out == 1 && judged(e).first_fault == 1);
    stored->stored_row[0] = false; /* or there are none, but of another tensor */
    ck_assert(judged(e).counts.faults == 1 && judged(e).left_out == 1);
    out->have[0] = true;
    ck_assert(judged(e).counts.faults == 2 && judged(e).left_out == 0);
    weights->have[0] = false; /* because nobody knows whose they are: the ids are the reason, not
                                 the logits */
    ck_assert(judged(e).counts.faults == 2 && judged(e).left_out == 0);
    test_evidence_free(e);
}
END_TEST

START_TEST(counts_are_of_all_rows_and_the_first_fault_has_its_place)
{
    const gemma4_real logits[] = {3, 2, 1, 0, 3, 2, 2, 0, 3, 2, 1, 0, 0, 1, 2, 3, 3, 2, 1, 0};
    const int32_t engine[] = {0, 1, 0, 2, 0, 2, 0, 1, 7, 7}, own[10] = {0};
    test_evidence *e = test_evidence_new(NULL, 5, "float32", 0);
    test_evidence_tap(e, GEMMA4_TAP_ROUTER_LOGITS, 0, logits, logits,
                      (const double[]){0, 0, 0, 0, 0});
    test_evidence_ids(e, engine, own);
    e->have_ids[4] = e->have_valid_ids[4] = false; /* not in the dump */
    e->evidence.inferred = 1;
    gemma4_routing_verdict v = judged(e);
    ck_assert_uint_eq(v.counts.decisions, 4);
    ck_assert_uint_eq(v.counts.swaps, 3);
    ck_assert_uint_eq(v.counts.faults, 2);
    ck_assert_uint_eq(v.counts.excused, 0);
    ck_assert_uint_eq(v.counts.near_ties, 1);
    ck_assert_uint_eq(v.counts.inferred, 1);
    ck_assert_uint_eq(v.first_fault, 2);
    test_evidence_free(e);
}
END_TEST

/* --- choices that have to be inferred --- */

enum { T = 3, MOST_EXPERTS = 16 };

/* A model whose router's rows are made of one row: expert i's is factors[i] times that. Logits are
 * then the factors times a number that is above 0, exactly. Without factors, each `tied` neighbours
 * have the same row, a copy of the first one's. */
typedef struct tied_model {
    gemma4_model *model;
    uint16_t *rows[6]; /* of each layer */
} tied_model;

static tied_model model_with_ties(const char *experts, const int *factors, size_t tied)
{
    tied_model m = {.model = test_model_with("\"num_experts\": 4, \"top_k_experts\": 2", experts)};
    for (size_t layer = 0; layer < m.model->config.num_hidden_layers; layer++) {
        gemma4_weight *w = &m.model->layers[layer].router_proj;
        const uint16_t *from = w->data;
        uint16_t *to = m.rows[layer] = malloc(w->rows * w->cols * sizeof *to);
        ck_assert_ptr_nonnull(to);
        for (size_t i = 0; i < w->rows; i++)
            for (size_t j = 0; j < w->cols; j++) /* a power of 2 more is 128 more in bfloat16 */
                to[i * w->cols + j] = factors ? (uint16_t)(from[j] + 128 * factors[i])
                                              : from[i / tied * tied * w->cols + j];
        w->data = to;
    }
    return m;
}

static void close_model(tied_model *m)
{
    for (size_t layer = 0; layer < 6; layer++)
        free(m->rows[layer]);
    gemma4_model_close(m->model);
}

/* What the engine chooses by, and what it last computed of that. */
static gemma4_tap chooses_by = GEMMA4_TAP_ROUTER_LOGITS;
static float last[T * MOST_EXPERTS];

/* The K largest; of equals the higher id first. */
static void take_higher_ids(const test_engine *e, gemma4_tap_event *event)
{
    size_t n_experts = e->model->config.num_experts, n_chosen = e->model->config.top_k_experts;
    for (size_t i = 0; event->tap == chooses_by && i < event->rows * n_experts; i++)
        last[i] = (float)event->values[i];
    for (size_t t = 0; event->tap == GEMMA4_TAP_ROUTER_TOPK_IDS && t < event->rows; t++) {
        bool taken[MOST_EXPERTS] = {false};
        for (size_t k = 0; k < n_chosen; k++) {
            size_t best = n_experts;
            for (size_t i = n_experts; i-- > 0;)
                if (!taken[i] &&
                    (best == n_experts || last[t * n_experts + i] > last[t * n_experts + best]))
                    best = i;
            taken[best] = true;
            event->ids[t * n_chosen + k] = (int32_t)best;
        }
    }
}

static const char *const OF_ROUTING[] = {"*.router.topk_ids", "*.router.topk_norm",
                                         "*.router.topk_weights", "*.moe.act"};

static test_engine engine_of(const tied_model *m, const char *tier, test_change *compute,
                             bool with_ids)
{
    test_engine e = {.model = m->model, .T = T, .tier = tier, .compute = compute};
    if (!with_ids)
        memcpy(e.but, OF_ROUTING, sizeof OF_ROUTING);
    return e;
}

/* Pairs of equal experts: of 3 places the last goes to one of a pair. Threes of equal experts: of 5
   places the last two go to two of three.
 */
static const struct {
    const char *experts;
    size_t tied;
    const char *tier;
} TIES[] = {
    {"\"num_experts\": 16, \"top_k_experts\": 3", 2, "float32"},
    {"\"num_experts\": 16, \"top_k_experts\": 3", 2, "bfloat16"},
    {"\"num_experts\": 15, \"top_k_experts\": 5", 3, "float32"},
    {"\"num_experts\": 15, \"top_k_experts\": 5", 3, "bfloat16"},
};

START_TEST(an_engine_that_breaks_ties_the_other_way_conforms)
{
    tied_model m = model_with_ties(TIES[_i].experts, NULL, TIES[_i].tied);
    for (int with_ids = 0; with_ids < 2; with_ids++) {
        test_engine e = engine_of(&m, TIES[_i].tier, take_higher_ids, with_ids);
        test_judgement j = test_judge_engine(&e, false);
        ck_assert_str_eq(test_first_divergence(&j), "");
        ck_assert_uint_eq(j.report.routing.decisions, with_ids ? 6 * T : 0);
        ck_assert_uint_eq(j.report.routing.swaps, 0);
        /* each time the reference's is the other one */
        ck_assert_uint_eq(j.report.routing.inferred, with_ids ? 0 : 6 * T);
        test_judgement_free(&j);
    }
    close_model(&m);
}
END_TEST

/* The second of each pair has a third of its router's row a bit lower, so that its logit is one
 * step of bfloat16 or two below the first's: the probabilities of some pairs tie, those of others
 * do not. The engine chooses by rounded probabilities. */
static const struct {
    bool ids, logits, probs;
} BY_PROBABILITY[] = {
    {true, true, true},   {true, true, false},  {false, true, true},
    {false, true, false}, {true, false, false}, {false, false, false},
};

START_TEST(a_bfloat16_engine_that_chooses_by_probabilities_conforms)
{
    tied_model m = model_with_ties("\"num_experts\": 16, \"top_k_experts\": 3", NULL, 2);
    for (size_t layer = 0; layer < 6; layer++)
        for (size_t i = 0; i < MOST_EXPERTS * 16; i++)
            m.rows[layer][i] = (uint16_t)(m.rows[layer][i] - (i / 16 % 2 && i % 3 == 0));
    test_engine e = engine_of(&m, "bfloat16", take_higher_ids, BY_PROBABILITY[_i].ids);
    const char **but = e.but + (BY_PROBABILITY[_i].ids ? 0 : 4);
    if (!BY_PROBABILITY[_i].logits)
        *but++ = "*.router.logits";
    if (!BY_PROBABILITY[_i].probs)
        *but++ = "*.router.probs";
    chooses_by = GEMMA4_TAP_ROUTER_PROBS;
    test_judgement j = test_judge_engine(&e, false);
    chooses_by = GEMMA4_TAP_ROUTER_LOGITS;
    ck_assert_str_eq(test_first_divergence(&j), "");
    ck_assert_uint_eq(j.report.routing.faults, 0);
    /* Else this test tests nothing: some tie, and some do not. */
    size_t others = BY_PROBABILITY[_i].ids ? j.report.routing.excused : j.report.routing.inferred;
    ck_assert_msg(others > 0 &&
                      (others < 6 * T || !BY_PROBABILITY[_i].ids || !BY_PROBABILITY[_i].logits),
                  "%zu", others);
    test_judgement_free(&j);
    close_model(&m);
}
END_TEST

/* The second of each pair has a logit a few per cent lower: more than the noise of two logits from
 * one input makes of their difference, less than five deviations of a logit. Which of the two an
 * engine takes cannot be inferred over bridged layers: half of the draws take the other. */
START_TEST(over_bridged_layers_a_coin_is_tossed_for_near_ties)
{
    gemma4_error error = {""};
    tied_model m = model_with_ties("\"num_experts\": 16, \"top_k_experts\": 3", NULL, 2);
    for (size_t layer = 0; layer < 6; layer++)
        for (size_t i = 0; i < MOST_EXPERTS * 16; i++)
            m.rows[layer][i] = (uint16_t)(m.rows[layer][i] - (i / 16 % 2 ? 4 : 0));
    const test_engine e = {
        .model = m.model, .T = T, .tier = "bfloat16", .taps = {"layers.1.moe.out"}};
    gemma4_subject subject;
    gemma4_activations *dump =
        gemma4_activations_open(test_engine_dump(&e), &m.model->config, &error);
    ck_assert_int_eq(
        gemma4_subject_init(&subject, m.model, dump, gemma4_tier_of("bfloat16"), &error), 0);
    gemma4_replay *replay = gemma4_replay_new(&subject, dump, &error);
    const gemma4_evidence *evidence = NULL;
    for (gemma4_block block = -1; block <= 1; block++)
        ck_assert_ptr_nonnull(evidence = gemma4_replay_next(replay, &error));
    const gemma4_tap_evidence *t = &evidence->taps[GEMMA4_TAP_MOE_OUT];
    size_t flips = 0;
    for (size_t d = 0; d < GEMMA4_DRAWS; d++)
        for (size_t row = 0; row < T; row++) {
            double moved = 0, size = 0;
            for (size_t i = row * t->width; i < (row + 1) * t->width; i++) {
                moved += (double)t->draws[d][i] * (double)t->draws[d][i];
                size += (double)t->expected[i] * (double)t->expected[i];
            }
            flips += moved > 0.1 * 0.1 * size;
        }
    ck_assert_msg(flips >= GEMMA4_DRAWS * T / 4 && flips <= GEMMA4_DRAWS * T * 3 / 4, "%zu", flips);
    gemma4_replay_free(replay);
    gemma4_subject_free(&subject);
    gemma4_activations_close(dump);
    close_model(&m);
}
END_TEST

/* The choices of experts that an engine makes, at every position: its K ids. */
static const int32_t *chosen;

static void choose(const test_engine *e, gemma4_tap_event *event)
{
    size_t K = e->model->config.top_k_experts;
    for (size_t t = 0; event->tap == GEMMA4_TAP_ROUTER_TOPK_IDS && t < event->rows; t++)
        memcpy(event->ids + t * K, chosen, K * sizeof *chosen);
}

/* 16 experts in the order of their logits, 8 of them chosen. A + is 2 higher than a =, and that
 * than a -. Without logits in the dump, two ranks to either side of the eighth may change places;
 * with them six, and 24 of the sets that result are tried: those of 3 of 7 in the order of their
 * binary numbers, of which 1001010 (the second, fourth and seventh of the seven) is the 24th and
 * 1001100 the 25th. */
static const struct {
    const char *ranks;
    int32_t ids[8];
    bool with_logits, found;
} LIMITS[] = {
    {"+++++++===------", {0, 1, 2, 3, 4, 5, 6, 9}, false, true},
    {"+++++++====-----", {0, 1, 2, 3, 4, 5, 6, 10}, false, false},
    {"++++++===-------", {0, 1, 2, 3, 4, 5, 7, 8}, false, true},
    {"+++++====-------", {0, 1, 2, 3, 4, 6, 7, 8}, false, false},
    {"+++++++=======--", {0, 1, 2, 3, 4, 5, 6, 13}, true, true},
    {"+++++++========-", {0, 1, 2, 3, 4, 5, 6, 14}, true, false},
    {"++=======-------", {0, 1, 3, 4, 5, 6, 7, 8}, true, true},
    {"+========-------", {0, 2, 3, 4, 5, 6, 7, 8}, true, false},
    {"+++++=======----", {0, 1, 2, 3, 4, 6, 8, 11}, true, true},
    {"+++++=======----", {0, 1, 2, 3, 4, 7, 8, 11}, true, false},
    {"+++++++===------", {0, 1, 2, 3, 4, 5, 6, 11}, true, false}, /* beyond the tie */
};

START_TEST(a_choice_is_inferred_within_a_number_of_ranks_and_of_sets)
{
    int factors[MOST_EXPERTS];
    for (size_t i = 0; i < MOST_EXPERTS; i++)
        factors[i] = LIMITS[_i].ranks[i] == '+' ? 2 : LIMITS[_i].ranks[i] == '=' ? 1 : 0;
    tied_model m = model_with_ties("\"num_experts\": 16, \"top_k_experts\": 8", factors, 0);
    test_engine e = engine_of(&m, "float32", choose, false);
    const char *const few[] = {"layers.0.moe.out", "layers.0.attn.residual", "layers.0.router.norm",
                               "layers.0.router.logits"};
    memcpy(e.taps, few, (LIMITS[_i].with_logits ? 4 : 3) * sizeof *few);
    chosen = LIMITS[_i].ids;
    test_judgement j = test_judge_engine(&e, false);
    ck_assert_str_eq(test_first_divergence(&j), LIMITS[_i].found ? "" : "layers.0.moe.out");
    if (LIMITS[_i].found)
        ck_assert_uint_eq(j.report.routing.inferred, T);
    test_judgement_free(&j);
    close_model(&m);
}
END_TEST

/* Where the dump holds the ids as well, nothing is inferred, and a choice beyond the tie is a fault
 * there. */
START_TEST(a_choice_beyond_the_tie_is_a_fault_in_every_tier)
{
    static const char *const tiers[] = {"float32", "bfloat16"};
    static const int32_t beyond[] = {0, 1, 2, 3, 4, 5, 6, 11}, within[] = {0, 1, 2, 3, 4, 5, 6, 9};
    const int factors[MOST_EXPERTS] = {2, 2, 2, 2, 2, 2, 2, 1, 1, 1};
    tied_model m = model_with_ties("\"num_experts\": 16, \"top_k_experts\": 8", factors, 0);
    for (size_t i = 0; i < COUNT(tiers); i++) {
        test_engine e = engine_of(&m, tiers[i], choose, true);
        chosen = beyond;
        test_judgement j = test_judge_engine(&e, false);
        ck_assert_str_eq(test_first_divergence(&j), "layers.0.router.topk_ids");
        ck_assert_uint_eq(j.report.routing.faults, 6 * T);
        test_judgement_free(&j);
        chosen = within;
        j = test_judge_engine(&e, false);
        ck_assert_str_eq(test_first_divergence(&j), "");
        test_judgement_free(&j);
    }
    close_model(&m);
}
END_TEST

Suite *routing_suite(void)
{
    Suite *suite = suite_create("routing");
    TCase *held = tcase_create("held"), *inferred = tcase_create("inferred");
    tcase_add_test(held, recomputed_logits_excuse_a_choice_within_five_deviations);
    tcase_add_test(held, what_is_no_set_of_experts_is_a_fault);
    tcase_add_test(held, any_choice_among_exact_ties_of_stored_logits_is_right);
    tcase_add_loop_test(held, stored_logits_may_differ_by_what_storing_them_did, 0, COUNT(SLACK));
    tcase_add_test(held, in_a_16_bit_tier_what_ties_as_a_probability_is_a_tie);
    tcase_add_test(held, stored_probabilities_say_whether_they_tie);
    tcase_add_test(held, probabilities_computed_from_logits_may_be_a_millionth_off);
    tcase_add_test(held, a_choice_that_follows_from_nan_is_left_out);
    tcase_add_test(held, counts_are_of_all_rows_and_the_first_fault_has_its_place);
    suite_add_tcase(suite, held);
    tcase_add_loop_test(inferred, an_engine_that_breaks_ties_the_other_way_conforms, 0,
                        COUNT(TIES));
    tcase_add_loop_test(inferred, a_bfloat16_engine_that_chooses_by_probabilities_conforms, 0,
                        COUNT(BY_PROBABILITY));
    tcase_add_test(inferred, over_bridged_layers_a_coin_is_tossed_for_near_ties);
    tcase_add_loop_test(inferred, a_choice_is_inferred_within_a_number_of_ranks_and_of_sets, 0,
                        COUNT(LIMITS));
    tcase_add_test(inferred, a_choice_beyond_the_tie_is_a_fault_in_every_tier);
    suite_add_tcase(suite, inferred);
    return suite;
}
