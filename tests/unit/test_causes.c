/* Causes (tests/check/causes.h): findings whose fits are written by hand become causes. No
 * evidence, no run. */
#include "causes.h"
#include "engines.h"
#include "filter.h"
#include "suites.h"
#include "support.h"
#include "thresholds.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

enum { LAYERS = 12, MOST = 16 };
static gemma4_layer_config layers[LAYERS];
static const gemma4_config config = {.num_hidden_layers = LAYERS, .layers = layers};

/* Six mistakes of different ids, and two variants of one. */
static size_t A, B, C, D, E, F, V1, V2;

static size_t model_of(const char *id, const char *variant)
{
    for (size_t i = 0; i < gemma4_counter_model_count(); i++)
        if (!strcmp(gemma4_counter_model_at(i)->id, id) &&
            !strcmp(gemma4_counter_model_at(i)->variant, variant))
            return i;
    ck_abort_msg("no counter-model is called %s (%s)", id, variant);
    return 0;
}

/* What is diagnosed: findings in dataflow order, and filters. */
static gemma4_finding findings[MOST];
static size_t finding_count;
static gemma4_filtered *filtered; /* [catalogue] */
static gemma4_causes causes;

static void set_up(void)
{
    A = model_of("layer-scalar-dropped", "");
    B = model_of("layer-scalar-twice", "");
    C = model_of("experts-silu", "");
    D = model_of("mlp-silu", "");
    E = model_of("softcap-missing", "");
    F = model_of("v-norm-missing", "");
    V1 = model_of("rope-missing", "q");
    V2 = model_of("rope-missing", "k");
    filtered = calloc(gemma4_counter_model_count(), sizeof *filtered);
    ck_assert_ptr_nonnull(filtered);
    finding_count = 0;
    causes = (gemma4_causes){0};
}

static void tear_down(void)
{
    for (size_t i = 0; i < finding_count; i++)
        gemma4_finding_free(&findings[i]);
    gemma4_causes_free(&causes);
    free(filtered);
}

static gemma4_finding *found(gemma4_tap tap, size_t layer)
{
    gemma4_finding *f = &findings[finding_count++];
    *f = (gemma4_finding){
        .tap = tap, .layer = layer, .error = 100, .description = "spread over all"};
    return f;
}

static gemma4_fit *fits(gemma4_finding *f, size_t model, double residual)
{
    gemma4_fit *fit = &f->fits[f->fit_count++];
    *fit = (gemma4_fit){.model = model,
                        .second = GEMMA4_NO_MODEL,
                        .only_layer = -1,
                        .coefficient = 1,
                        .residual = residual,
                        .error = 100,
                        .share = 1};
    return fit;
}

/* What a model that does not fit holds of the error. */
static void holds(gemma4_finding *f, size_t model, double coefficient, double share)
{
    size_t count = gemma4_counter_model_count();
    if (!f->partial) {
        f->partial = malloc(count * sizeof *f->partial);
        ck_assert_ptr_nonnull(f->partial);
        for (size_t i = 0; i < count; i++)
            f->partial[i] = (gemma4_fit){.model = GEMMA4_NO_MODEL};
    }
    f->partial[model] = (gemma4_fit){.model = model,
                                     .second = GEMMA4_NO_MODEL,
                                     .only_layer = -1,
                                     .coefficient = coefficient,
                                     .share = share};
}

static void conclude(void)
{
    gemma4_error error = {""};
    ck_assert_msg(gemma4_find_causes(&config, findings, finding_count, filtered, &causes, &error) ==
                      0,
                  "%s", error.message);
}

static bool is_equivalent(const gemma4_cause *cause, size_t model)
{
    for (size_t i = 0; i < cause->equivalent_count; i++)
        if (cause->equivalent[i] == model)
            return true;
    return false;
}

/* A point with one number, between low and high, that explains a finding; the finding's own. */
static gemma4_point_fit *point_fits(gemma4_finding *f, gemma4_parameter parameter, gemma4_tap step,
                                    double number, double residual)
{
    const gemma4_setting s = {.parameter = parameter, .steps = GEMMA4_STEP(step), .number = number};
    gemma4_point_fit *fit = &f->points[f->point_count++];
    *fit = (gemma4_point_fit){.only_layer = -1, .coefficient = 1, .residual = residual};
    fit->point =
        gemma4_point_new(&test_golden_model()->config, &s, 1, GEMMA4_ON_SLIDING | GEMMA4_ON_FULL);
    ck_assert_ptr_nonnull(fit->point);
    return fit;
}

/* --- one mistake --- */

START_TEST(nothing_found_is_no_cause)
{
    conclude();
    ck_assert_uint_eq(causes.count, 0);
}
END_TEST

START_TEST(findings_that_one_mistake_explains_are_one_cause)
{
    fits(found(GEMMA4_TAP_LAYER_OUTPUT, 2), A, 3)->coefficient = 0.98;
    fits(found(GEMMA4_TAP_LAYER_OUTPUT, 3), A, 4)->coefficient = 1.04;
    conclude();
    ck_assert_uint_eq(causes.count, 1);
    const gemma4_cause *c = &causes.list[0];
    ck_assert(c->explained && !c->below_bound && !c->has_near);
    ck_assert_uint_eq(c->model, A);
    ck_assert_uint_eq(c->second, GEMMA4_NO_MODEL);
    ck_assert_int_eq(c->tap, GEMMA4_TAP_LAYER_OUTPUT);
    ck_assert_uint_eq(c->first_layer, 2);
    ck_assert_uint_eq(c->taps, 2);
    ck_assert_str_eq(c->layers, "2-3");
    ck_assert_double_eq_tol(c->coefficient, 1.01, 1e-12);    /* the mean */
    ck_assert_double_eq_tol(c->residual, sqrt(12.5), 1e-12); /* the root of the mean square */
    ck_assert_uint_eq(c->equivalent_count, 0);
}
END_TEST

/* B fits the first one better, but A explains both. */
START_TEST(the_mistake_that_explains_most_is_the_cause)
{
    gemma4_finding *first = found(GEMMA4_TAP_LAYER_OUTPUT, 2);
    fits(first, B, 0.1);
    fits(first, A, 2);
    fits(found(GEMMA4_TAP_LAYER_OUTPUT, 3), A, 2);
    conclude();
    ck_assert_uint_eq(causes.count, 1);
    ck_assert_uint_eq(causes.list[0].model, A);
    ck_assert_uint_eq(causes.list[0].equivalent_count, 0);
}
END_TEST

START_TEST(of_mistakes_that_explain_as_much_the_closest_is_the_cause)
{
    gemma4_finding *f = found(GEMMA4_TAP_LAYER_OUTPUT, 2);
    fits(f, A, 1.01);
    fits(f, B, 1);
    conclude();
    ck_assert_uint_eq(causes.count, 1);
    ck_assert_uint_eq(causes.list[0].model, B);
}
END_TEST

START_TEST(a_cause_has_the_runner_up_and_the_scope_of_where_it_is_first_explained)
{
    gemma4_finding *first = found(GEMMA4_TAP_ATTN_CONTEXT, 2),
                   *second = found(GEMMA4_TAP_ATTN_CONTEXT, 3);
    fits(first, A, 1)->scope = GEMMA4_DECODE_ONLY;
    fits(second, A, 1);
    first->has_near = second->has_near = true;
    first->near = (gemma4_fit){.model = C, .residual = 20};
    second->near = (gemma4_fit){.model = D, .residual = 10};
    conclude();
    ck_assert_int_eq(causes.list[0].scope, GEMMA4_DECODE_ONLY);
    ck_assert(causes.list[0].has_near);
    ck_assert_uint_eq(causes.list[0].near.model, C);
}
END_TEST

/* --- what cannot be told apart --- */

/* Of 1.25 times as much and a tenth of a spread more. */
static const struct {
    double best, other;
    bool equivalent;
} RESIDUALS[] = {
    {0, 0.09, true},  {0, 0.11, false}, {0.4, 0.59, true}, {0.4, 0.61, false}, {1, 1.34, true},
    {1, 1.36, false}, {4, 5.09, true},  {4, 5.11, false},  {1, 1, true},
};

START_TEST(what_leaves_hardly_more_fits_as_well)
{
    gemma4_finding *f = found(GEMMA4_TAP_LAYER_OUTPUT, 2);
    fits(f, A, RESIDUALS[_i].best);
    fits(f, B, RESIDUALS[_i].other);
    conclude();
    ck_assert_uint_eq(causes.count, 1);
    ck_assert_uint_eq(causes.list[0].model, A);
    ck_assert_int_eq(is_equivalent(&causes.list[0], B), RESIDUALS[_i].equivalent);
}
END_TEST

START_TEST(an_equivalent_mistake_explains_the_same_findings)
{
    gemma4_finding *first = found(GEMMA4_TAP_LAYER_OUTPUT, 2),
                   *second = found(GEMMA4_TAP_LAYER_OUTPUT, 3);
    fits(first, A, 1);
    fits(second, A, 1);
    fits(first, B, 1);  /* one of them only */
    fits(second, C, 1); /* two as well, but not these two */
    fits(found(GEMMA4_TAP_LAYER_OUTPUT, 4), C, 1);
    conclude();
    ck_assert_uint_eq(causes.count, 2);
    ck_assert_uint_eq(causes.list[0].model, A);
    ck_assert_uint_eq(causes.list[0].equivalent_count, 0);
    ck_assert_uint_eq(causes.list[1].model, C);
    ck_assert_uint_eq(causes.list[1].taps, 1);
    ck_assert_str_eq(causes.list[1].layers, "4");
}
END_TEST

START_TEST(variants_of_one_mistake_are_listed_once)
{
    gemma4_finding *f = found(GEMMA4_TAP_ATTN_Q_ROPE, 2), *g = found(GEMMA4_TAP_ATTN_Q_ROPE, 3);
    fits(f, V1, 1);
    fits(f, V2, 1.1);
    fits(f, A, 1.1);
    fits(g, V1, 1);
    fits(g, V2, 1.1);
    fits(g, A, 1.1);
    conclude();
    ck_assert_uint_eq(causes.count, 1);
    ck_assert_uint_eq(causes.list[0].model, V1);
    ck_assert_uint_eq(causes.list[0].equivalent_count, 1);
    ck_assert_uint_eq(causes.list[0].equivalent[0], A);
}
END_TEST

START_TEST(equivalent_variants_are_listed_once)
{
    gemma4_finding *f = found(GEMMA4_TAP_ATTN_Q_ROPE, 2);
    fits(f, A, 1);
    fits(f, V1, 1.1);
    fits(f, V2, 1.2);
    conclude();
    ck_assert_uint_eq(causes.list[0].equivalent_count, 1);
    ck_assert_uint_eq(causes.list[0].equivalent[0], V1);
}
END_TEST

/* Each lists the other's id: here q's rotation and one mask, there another mask and k's. */
START_TEST(two_causes_that_the_evidence_takes_for_each_other_are_one)
{
    size_t wide = model_of("window-off-by-one-wide", ""),
           wide_in_decode = model_of("window-off-by-one-wide", "decode only");
    gemma4_finding *f = found(GEMMA4_TAP_LAYER_OUTPUT, 1), *g = found(GEMMA4_TAP_LAYER_OUTPUT, 2),
                   *h = found(GEMMA4_TAP_LAYER_OUTPUT, 4);
    fits(f, wide_in_decode, 1)->coefficient = 0.98;
    fits(f, V1, _i == 1 ? 9 : 1.1);
    fits(g, V2, 3);
    fits(g, wide, 3.1);
    fits(h, V2, 3);
    fits(h, wide, 3.1);
    conclude();
    ck_assert_uint_eq(causes.count, 1 + (_i == 1));
    if (_i == 1) /* the first one does not list the second */
        return;
    const gemma4_cause *c = &causes.list[0];
    ck_assert_uint_eq(c->model, V2); /* explains most */
    ck_assert_uint_eq(c->first_layer, 1);
    ck_assert_uint_eq(c->taps, 3);
    ck_assert_str_eq(c->layers, "1-2, 4");
    ck_assert_double_eq_tol(c->coefficient, (0.98 + 1 + 1) / 3, 1e-12);
    ck_assert_double_eq_tol(c->residual, sqrt(19.0 / 3), 1e-12);
}
END_TEST

/* From layer outputs: in layer 0 beside a wrong embedding, in the others by itself. */
START_TEST(a_mistake_beside_another_one_and_by_itself_is_one_cause)
{
    fits(found(GEMMA4_TAP_LAYER_OUTPUT, 0), B, 1)->second = A;
    fits(found(GEMMA4_TAP_LAYER_OUTPUT, 1), A, 1);
    fits(found(GEMMA4_TAP_LAYER_OUTPUT, 2), A, 1);
    conclude();
    ck_assert_uint_eq(causes.count, 2);
    const gemma4_cause *a = &causes.list[causes.list[0].model == A ? 0 : 1],
                       *b = &causes.list[causes.list[0].model == A ? 1 : 0];
    ck_assert_uint_eq(a->model, A);
    ck_assert_uint_eq(a->second, B);
    ck_assert_uint_eq(a->taps, 3);
    ck_assert_uint_eq(a->first_layer, 0);
    ck_assert_str_eq(a->layers, "0-2");
    ck_assert_uint_eq(b->model, B);
    ck_assert_uint_eq(b->second, A);
    ck_assert_str_eq(b->layers, "0");
}
END_TEST

START_TEST(layers_in_a_list_are_found)
{
    static const struct {
        const char *list;
        size_t layer;
        bool listed;
    } cases[] = {
        {"0-4, 6", 0, true},  {"0-4, 6", 4, true},  {"0-4, 6", 5, false}, {"0-4, 6", 6, true},
        {"0-4, 6", 7, false}, {"5, 11", 1, false},  {"5, 11", 11, true},  {"", 0, false},
        {"3, ...", 3, true},  {"3, ...", 4, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        ck_assert_msg(gemma4_layer_is_listed(cases[i].list, cases[i].layer) == cases[i].listed,
                      "%zu in %s", cases[i].layer, cases[i].list);
}
END_TEST

START_TEST(three_others_that_fit_as_well_are_a_name_and_four_are_none)
{
    size_t others[] = {B, C, D, E};
    gemma4_finding *f = found(GEMMA4_TAP_LAYER_OUTPUT, 2);
    fits(f, A, 1);
    for (int i = 0; i < 3 + _i; i++)
        fits(f, others[i], 1.1);
    f->has_near = true;
    f->near = (gemma4_fit){.model = F, .residual = 1, .error = 100};
    conclude();
    ck_assert_uint_eq(causes.count, 1);
    const gemma4_cause *c = &causes.list[0];
    ck_assert_int_eq(c->explained, _i == 0);
    ck_assert_uint_eq(c->equivalent_count, 3);
    if (_i == 0) {
        ck_assert_str_eq(c->description, "");
        ck_assert(c->has_near);
    } else {
        ck_assert_str_eq(c->description, "more than 3 known mistakes fit this evidence, "
                                         "layer-scalar-dropped among them; dump more taps");
        ck_assert(!c->has_near); /* many fit: what does not fit says nothing */
    }
}
END_TEST

/* --- layers --- */

static const struct {
    const char *found; /* a digit a layer of 12 */
    const char *layers;
} LISTS[] = {
    {"100000000000", "0"},      {"000000000001", "11"},    {"110000000000", "0-1"},
    {"111110100000", "0-4, 6"}, {"000001000001", "5, 11"}, {"101010000011", "0, 2, 4, 10-11"},
    {"111111111111", "0-11"},
};

START_TEST(layers_are_listed_as_ranges)
{
    for (size_t l = 0; l < LAYERS; l++)
        if (LISTS[_i].found[l] == '1')
            fits(found(GEMMA4_TAP_LAYER_OUTPUT, l), A, 1);
    conclude();
    ck_assert_str_eq(causes.list[0].layers, LISTS[_i].layers);
}
END_TEST

START_TEST(a_list_of_layers_without_end_stops_at_a_whole_number)
{
    enum { MANY = 200 };
    const gemma4_config deep = {.num_hidden_layers = MANY};
    gemma4_finding *many = calloc(MANY / 2, sizeof *many);
    gemma4_error error = {""};
    ck_assert_ptr_nonnull(many);
    for (size_t i = 0; i < MANY / 2; i++) {
        many[i] = (gemma4_finding){.tap = GEMMA4_TAP_LAYER_OUTPUT, .layer = 2 * i};
        fits(&many[i], A, 1);
    }
    ck_assert_int_eq(gemma4_find_causes(&deep, many, MANY / 2, filtered, &causes, &error), 0);
    const char *end = strstr(causes.list[0].layers, ", ...");
    ck_assert(end && end[5] == '\0' && end[-1] != ',');
    ck_assert_int_eq(atoi(end - 2) % 2, 0);
    free(many);
}
END_TEST

START_TEST(outside_the_layers_there_are_none)
{
    fits(found(GEMMA4_TAP_LOGITS, 0), E, 1);
    conclude();
    ck_assert_str_eq(causes.list[0].layers, "");
}
END_TEST

START_TEST(a_mistake_in_one_layer_is_listed_there_and_not_where_it_was_seen)
{
    fits(found(GEMMA4_TAP_LOGITS, 0), A, 1)->only_layer = 7;
    conclude();
    ck_assert_str_eq(causes.list[0].layers, "7");
    ck_assert_int_eq(causes.list[0].tap, GEMMA4_TAP_LOGITS);
}
END_TEST

/* --- several mistakes --- */

START_TEST(findings_of_two_mistakes_are_two_causes)
{
    fits(found(GEMMA4_TAP_MLP_ACT, 1), D, 1);
    fits(found(GEMMA4_TAP_LAYER_OUTPUT, 1), A, 1);
    fits(found(GEMMA4_TAP_MLP_ACT, 2), D, 1);
    fits(found(GEMMA4_TAP_LAYER_OUTPUT, 3), A, 1);
    conclude();
    ck_assert_uint_eq(causes.count, 2);
    const gemma4_cause *a = causes.list[0].model == A ? &causes.list[0] : &causes.list[1],
                       *d = a == causes.list ? a + 1 : causes.list;
    ck_assert_uint_eq(d->model, D);
    ck_assert_str_eq(d->layers, "1-2");
    ck_assert_uint_eq(a->model, A);
    ck_assert_str_eq(a->layers, "1, 3");
}
END_TEST

START_TEST(the_cause_that_explains_most_comes_first)
{
    fits(found(GEMMA4_TAP_EMBED, 0), C, 1);
    fits(found(GEMMA4_TAP_MLP_ACT, 2), D, 1);
    fits(found(GEMMA4_TAP_MLP_ACT, 3), D, 1);
    fits(found(GEMMA4_TAP_LOGITS, 0), E, 2);
    conclude();
    const size_t expected[] = {D, C, E}; /* of those that explain as much, the one that leaves
                                            less */
    ck_assert_uint_eq(causes.count, COUNT(expected));
    for (size_t i = 0; i < COUNT(expected); i++)
        ck_assert_uint_eq(causes.list[i].model, expected[i]);
}
END_TEST

START_TEST(what_is_explained_comes_before_what_is_not)
{
    found(GEMMA4_TAP_ATTN_Q, 0);
    fits(found(GEMMA4_TAP_LOGITS, 0), E, 1);
    conclude();
    ck_assert_uint_eq(causes.count, 2);
    ck_assert(causes.list[0].explained && !causes.list[1].explained);
}
END_TEST

/* --- pairs --- */

START_TEST(of_a_pair_each_mistake_is_a_cause)
{
    fits(found(GEMMA4_TAP_LOGITS, 0), A, 1)->second = C;
    conclude();
    ck_assert_uint_eq(causes.count, 2);
    ck_assert(causes.list[0].explained && causes.list[1].explained);
    ck_assert_uint_eq(causes.list[0].model, A);
    ck_assert_uint_eq(causes.list[0].second, C);
    ck_assert_uint_eq(causes.list[1].model, C);
    ck_assert_uint_eq(causes.list[1].second, A);
    ck_assert_int_eq(causes.list[1].tap, GEMMA4_TAP_LOGITS);
}
END_TEST

START_TEST(the_second_mistake_of_a_pair_is_not_lost_where_the_first_explains_more)
{
    fits(found(GEMMA4_TAP_LAYER_OUTPUT, 3), A, 1);
    fits(found(GEMMA4_TAP_LOGITS, 0), A, 1)->second = C;
    conclude();
    ck_assert_uint_eq(causes.count, 2);
    ck_assert_uint_eq(causes.list[0].model, A);
    ck_assert_uint_eq(causes.list[0].taps, 2);
    ck_assert_uint_eq(causes.list[1].model, C);
}
END_TEST

START_TEST(a_pair_beside_too_many_others_is_one_unknown_cause)
{
    size_t others[] = {B, D, E, F};
    gemma4_finding *f = found(GEMMA4_TAP_LOGITS, 0);
    fits(f, A, 1)->second = C;
    for (int i = 0; i < 4; i++)
        fits(f, others[i], 1.1);
    conclude();
    ck_assert_uint_eq(causes.count, 1);
    ck_assert(!causes.list[0].explained);
}
END_TEST

/* --- attribution: what a known mistake nearly explains is its own --- */

static const struct {
    double coefficient, share;
    bool attributed;
} PARTS[] = {
    {1, 0.51, true},    {1, 0.49, false},  {1, 1, true},       {0.71, 0.9, true},
    {0.69, 0.9, false}, {1.29, 0.9, true}, {1.31, 0.9, false},
};

START_TEST(a_mistake_that_holds_most_of_an_unexplained_error_takes_it)
{
    holds(found(GEMMA4_TAP_LAYER_OUTPUT, 1), A, PARTS[_i].coefficient, PARTS[_i].share);
    fits(found(GEMMA4_TAP_LAYER_OUTPUT, 3), A, 2)->coefficient = 0.97;
    conclude();
    ck_assert_uint_eq(causes.count, PARTS[_i].attributed ? 1 : 2);
    const gemma4_cause *c = &causes.list[0];
    ck_assert(c->explained);
    ck_assert_uint_eq(c->taps, 1); /* that are explained */
    ck_assert_double_eq_tol(c->coefficient, 0.97, 1e-12);
    ck_assert_double_eq_tol(c->residual, 2, 1e-12);
    ck_assert_uint_eq(c->first_layer, PARTS[_i].attributed ? 1 : 3);
    ck_assert_str_eq(c->layers, PARTS[_i].attributed ? "1, 3" : "3");
}
END_TEST

START_TEST(what_another_mistake_explains_is_not_taken)
{
    gemma4_finding *f = found(GEMMA4_TAP_LAYER_OUTPUT, 1);
    fits(f, B, 1);
    holds(f, A, 1, 0.9);
    fits(found(GEMMA4_TAP_LAYER_OUTPUT, 3), A, 2);
    conclude();
    ck_assert_uint_eq(causes.count, 2);
    ck_assert_uint_eq(causes.list[0].model, B);
    ck_assert_uint_eq(causes.list[1].model, A);
}
END_TEST

START_TEST(what_no_explained_mistake_holds_stays_unknown)
{
    holds(found(GEMMA4_TAP_LAYER_OUTPUT, 1), A, 1, 0.9);
    conclude();
    ck_assert_uint_eq(causes.count, 1);
    ck_assert(!causes.list[0].explained);
}
END_TEST

/* --- nothing fits --- */

START_TEST(what_nothing_explains_is_one_entry_a_kind_of_tap)
{
    gemma4_finding *first = found(GEMMA4_TAP_ATTN_Q, 1);
    first->has_near = true;
    first->near = (gemma4_fit){.model = C, .residual = 20};
    found(GEMMA4_TAP_LAYER_OUTPUT, 1);
    found(GEMMA4_TAP_ATTN_Q, 2)->description[0] = '\0';
    conclude();
    ck_assert_uint_eq(causes.count, 2);
    ck_assert(!causes.list[0].explained && !causes.list[1].explained);
    ck_assert_int_eq(causes.list[0].tap, GEMMA4_TAP_ATTN_Q);
    ck_assert_uint_eq(causes.list[0].first_layer, 1);
    ck_assert_uint_eq(causes.list[0].taps, 2);
    ck_assert_uint_eq(causes.list[0].second, GEMMA4_NO_MODEL);
    ck_assert_str_eq(causes.list[0].layers, "1-2");
    ck_assert_str_eq(causes.list[0].description, "spread over all");
    ck_assert(causes.list[0].has_near);
    ck_assert_uint_eq(causes.list[0].near.model, C);
    ck_assert_int_eq(causes.list[1].tap, GEMMA4_TAP_LAYER_OUTPUT);
    ck_assert(!causes.list[1].has_near);
}
END_TEST

/* --- below the bound --- */

/* Sums of a filter whose coefficient is 1 and whose spread is 1 / deviations. */
static gemma4_filter filter(double deviations)
{
    double size = deviations * deviations;
    return (gemma4_filter){.error = size, .size = size, .total = size};
}

static void filters(size_t model, double deviations, gemma4_tap tap, size_t layer)
{
    filtered[model] = (gemma4_filtered){.all = filter(deviations),
                                        .blocks = 2,
                                        .tap = tap,
                                        .first_layer = layer,
                                        .best = filter(deviations / 2),
                                        .best_tap = tap,
                                        .best_layer = layer + 1};
}

START_TEST(a_significant_filter_is_a_cause_below_the_bound)
{
    filters(C, 10, GEMMA4_TAP_MOE_ACT, 0);
    filtered[C].all.error *= 0.9;
    conclude();
    ck_assert_uint_eq(causes.count, 1);
    const gemma4_cause *c = &causes.list[0];
    ck_assert(c->explained && c->below_bound);
    ck_assert_uint_eq(c->model, C);
    ck_assert_uint_eq(c->second, GEMMA4_NO_MODEL);
    ck_assert_int_eq(c->tap, GEMMA4_TAP_MOE_ACT);
    ck_assert_uint_eq(c->first_layer, 0);
    ck_assert_uint_eq(c->taps, 0);
    ck_assert_str_eq(c->layers, ""); /* all together */
    ck_assert_double_eq_tol(c->coefficient, 0.9, 1e-12);
    ck_assert_double_eq_tol(c->residual, 0.1, 1e-12);
}
END_TEST

/* Spread 1/40: 0.1625 is as far from 1 as the coefficient may be. */
START_TEST(a_significant_filter_with_another_coefficient_names_nothing)
{
    for (int near = 0; near < 2; near++) {
        causes.count = 0;
        filters(C, 40, GEMMA4_TAP_MOE_ACT, 0);
        filters(B, 20, GEMMA4_TAP_MOE_ACT, 0);
        filtered[C].all.error *= near ? 0.84 : 0.83;
        conclude();
        ck_assert_uint_eq(causes.count, 1);
        const gemma4_cause *c = &causes.list[0];
        ck_assert(c->below_bound);
        ck_assert_int_eq(c->tap, GEMMA4_TAP_MOE_ACT);
        ck_assert(c->explained == near);
        ck_assert_uint_eq(c->model, near ? C : GEMMA4_NO_MODEL);
        ck_assert_uint_eq(c->equivalent_count, near);
        ck_assert(near || strstr(c->description, "holds 0.83 +- 0.025 of what "));
    }
}
END_TEST

START_TEST(a_filter_that_only_one_layer_shows_is_a_cause_there)
{
    filtered[C] = (gemma4_filtered){.all = filter(7),
                                    .blocks = 9,
                                    .tap = GEMMA4_TAP_MOE_ACT,
                                    .best = filter(13),
                                    .best_tap = GEMMA4_TAP_MOE_OUT,
                                    .best_layer = 4};
    conclude();
    ck_assert_uint_eq(causes.count, 1);
    ck_assert_int_eq(causes.list[0].tap, GEMMA4_TAP_MOE_OUT);
    ck_assert_uint_eq(causes.list[0].first_layer, 4);
    ck_assert_str_eq(causes.list[0].layers, "4");
    ck_assert_double_eq_tol(causes.list[0].residual, 1.0 / 13, 1e-12);
}
END_TEST

START_TEST(an_insignificant_filter_is_no_cause)
{
    filters(C, 7.9, GEMMA4_TAP_MOE_ACT, 0);
    conclude();
    ck_assert_uint_eq(causes.count, 0);
}
END_TEST

START_TEST(of_filters_that_enter_at_one_tap_the_most_significant_is_the_cause)
{
    filters(C, 10, GEMMA4_TAP_MOE_ACT, 0);
    filters(B, 20, GEMMA4_TAP_MOE_ACT, 0);
    filters(D, 9, GEMMA4_TAP_MLP_ACT, 0);
    conclude();
    ck_assert_uint_eq(causes.count, 2);
    ck_assert_uint_eq(causes.list[0].model, B);
    ck_assert_uint_eq(causes.list[0].equivalent_count, 1);
    ck_assert(is_equivalent(&causes.list[0], C));
    ck_assert_uint_eq(causes.list[1].model, D);
    ck_assert_uint_eq(causes.list[1].equivalent_count, 0);
}
END_TEST

START_TEST(of_filters_at_one_tap_three_others_are_listed_at_most)
{
    size_t all[] = {A, B, C, D, E, F};
    for (size_t i = 0; i < COUNT(all); i++)
        filters(all[i], 10 + (double)i, GEMMA4_TAP_MOE_ACT, 0);
    conclude();
    ck_assert_uint_eq(causes.count, 1);
    ck_assert_uint_eq(causes.list[0].model, F);
    ck_assert_uint_eq(causes.list[0].equivalent_count, 3);
}
END_TEST

START_TEST(what_failing_taps_have_named_is_not_named_again_below_the_bound)
{
    gemma4_finding *f = found(GEMMA4_TAP_ATTN_Q_ROPE, 2);
    fits(f, V1, 1);
    fits(f, A, 1.1);
    filters(V2, 20, GEMMA4_TAP_ATTN_K_ROPE, 0); /* another variant */
    filters(A, 20, GEMMA4_TAP_LAYER_OUTPUT, 0); /* equivalent */
    filters(D, 20, GEMMA4_TAP_MLP_ACT, 0);
    conclude();
    ck_assert_uint_eq(causes.count, 2);
    ck_assert(!causes.list[0].below_bound && causes.list[0].model == V1);
    ck_assert(causes.list[1].below_bound && causes.list[1].model == D);
}
END_TEST

/* --- points of the space --- */

#define EPS GEMMA4_PARAMETER_EPS
#define FACTOR GEMMA4_PARAMETER_RESULT_FACTOR

START_TEST(findings_that_one_point_explains_are_one_cause)
{
    point_fits(found(GEMMA4_TAP_ATTN_NORM, 2), EPS, GEMMA4_TAP_ATTN_NORM, 1e-4, 3)->coefficient =
        0.9;
    point_fits(found(GEMMA4_TAP_MLP_NORM, 2), EPS, GEMMA4_TAP_MLP_NORM, 1.01e-4, 4);
    point_fits(found(GEMMA4_TAP_ATTN_NORM, 4), EPS, GEMMA4_TAP_ATTN_NORM, 1e-4, 3)->coefficient =
        1.1;
    conclude();
    ck_assert_uint_eq(causes.count, 1);
    const gemma4_cause *c = &causes.list[0];
    ck_assert(c->explained && !c->below_bound && c->point != NULL);
    ck_assert_uint_eq(c->model, GEMMA4_NO_MODEL);
    ck_assert_uint_eq(c->second, GEMMA4_NO_MODEL);
    ck_assert_ptr_eq(gemma4_cause_model(c), &c->point->model);
    ck_assert_int_eq(c->tap, GEMMA4_TAP_ATTN_NORM);
    ck_assert_uint_eq(c->first_layer, 2);
    ck_assert_uint_eq(c->taps, 3);
    ck_assert_str_eq(c->layers, "2, 4");
    ck_assert(c->places[0] ==
              (GEMMA4_STEP(GEMMA4_TAP_ATTN_NORM) | GEMMA4_STEP(GEMMA4_TAP_MLP_NORM)));
    ck_assert_double_eq_tol(c->coefficient, 1, 1e-12);
    ck_assert_double_eq_tol(c->residual, sqrt(34.0 / 3), 1e-12);
    ck_assert_uint_eq(c->equivalent_point_count, 0);
}
END_TEST

/* Experts that no token chose in one layer are known from another. */
START_TEST(what_one_layer_does_not_show_of_a_list_others_do)
{
    const double seen[2][3] = {{1, NAN, 0.5}, {NAN, 2, 0.5}};
    for (size_t layer = 0; layer < 2; layer++) {
        gemma4_point_fit *fit =
            point_fits(found(GEMMA4_TAP_MOE_OUT, layer), GEMMA4_PARAMETER_WEIGHT_FACTORS,
                       GEMMA4_TAP_MOE_OUT, 0, 3);
        fit->point->settings[0].count = 3;
        memcpy(fit->point->settings[0].list, seen[layer], sizeof seen[layer]);
    }
    conclude();
    ck_assert_uint_eq(causes.count, 1);
    ck_assert_str_eq(causes.list[0].layers, "0-1");
    const double *list = causes.list[0].point->settings[0].list;
    ck_assert(list[0] == 1 && list[1] == 2 && list[2] == 0.5);
    ck_assert_ptr_nonnull(strstr(causes.list[0].said, "[1, 2, 0.5]"));
}
END_TEST

START_TEST(other_numbers_are_other_causes)
{
    point_fits(found(GEMMA4_TAP_ATTN_NORM, 2), EPS, GEMMA4_TAP_ATTN_NORM, 1e-4, 3);
    point_fits(found(GEMMA4_TAP_ATTN_NORM, 4), EPS, GEMMA4_TAP_ATTN_NORM, 1e-3, 3);
    conclude();
    ck_assert_uint_eq(causes.count, 2);
    ck_assert_str_eq(causes.list[0].layers, "2");
    ck_assert_str_eq(causes.list[1].layers, "4");
}
END_TEST

/* Of points that explain as much: what a config sets goes before what a result is multiplied with,
 * and few digits before many. */
static const struct {
    gemma4_parameter parameter;
    double number, residual;
} PLAINER[][2] = {
    {{EPS, 1e-4, 3}, {FACTOR, 2, 1}},
    {{FACTOR, 2, 3}, {FACTOR, 2.345, 1}},
    {{FACTOR, 2, 1}, {FACTOR, 3, 2}},
};

START_TEST(the_plainest_of_the_points_is_the_cause)
{
    for (int turn = 0; turn < 2; turn++) { /* whichever was found first */
        gemma4_finding *f = found(GEMMA4_TAP_ATTN_NORM, 2);
        for (int i = 0; i < 2; i++)
            point_fits(f, PLAINER[_i][i ^ turn].parameter, GEMMA4_TAP_ATTN_NORM,
                       PLAINER[_i][i ^ turn].number, PLAINER[_i][i ^ turn].residual);
        conclude();
        ck_assert_uint_eq(causes.count, 1);
        ck_assert_ptr_eq(causes.list[0].point, f->points[turn].point);
        ck_assert_uint_eq(causes.list[0].equivalent_point_count, 1);
        ck_assert_ptr_eq(causes.list[0].equivalent_points[0], f->points[1 - turn].point);
        tear_down();
        set_up();
    }
}
END_TEST

/* The factor explains both, and is the cause of both, though eps is plainer. */
START_TEST(the_point_that_explains_most_goes_first)
{
    gemma4_finding *first = found(GEMMA4_TAP_ATTN_NORM, 2);
    point_fits(first, EPS, GEMMA4_TAP_ATTN_NORM, 1e-4, 1);
    point_fits(first, FACTOR, GEMMA4_TAP_ATTN_NORM, 2.345, 2);
    point_fits(found(GEMMA4_TAP_ATTN_NORM, 3), FACTOR, GEMMA4_TAP_ATTN_NORM, 2.345, 2);
    conclude();
    ck_assert_uint_eq(causes.count, 1);
    ck_assert_int_eq(causes.list[0].point->settings[0].parameter, FACTOR);
    ck_assert_str_eq(causes.list[0].layers, "2-3");
    ck_assert_uint_eq(causes.list[0].equivalent_point_count, 0); /* eps explains less */
}
END_TEST

START_TEST(a_catalogued_mistake_goes_before_points)
{
    gemma4_finding *f = found(GEMMA4_TAP_LAYER_OUTPUT, 2);
    fits(f, A, 3);
    point_fits(f, FACTOR, GEMMA4_TAP_LAYER_OUTPUT, 2, 1);
    point_fits(found(GEMMA4_TAP_MLP_NORM, 3), EPS, GEMMA4_TAP_MLP_NORM, 1e-4, 1);
    conclude();
    ck_assert_uint_eq(causes.count, 2);
    ck_assert_ptr_null(causes.list[0].point);
    ck_assert_uint_eq(causes.list[0].model, A);
    ck_assert_int_eq(causes.list[1].point->settings[0].parameter, EPS);
}
END_TEST

/* What a point explains is not a mistake's that holds most of it; what rounds in one step rounds
 * other bits in the next. */
START_TEST(a_point_keeps_what_it_explains_but_for_a_rounding)
{
    gemma4_finding *f = found(GEMMA4_TAP_MOE_OUT, 2);
    point_fits(f, _i ? GEMMA4_PARAMETER_SUM_TYPE : FACTOR, GEMMA4_TAP_MOE_OUT, 2, 1);
    holds(f, A, 0.85, 0.85);
    fits(found(GEMMA4_TAP_MOE_ACT, 2), A, 2);
    conclude();
    ck_assert_uint_eq(causes.count, _i ? 1 : 2);
    ck_assert(causes.list[0].explained && causes.list[causes.count - 1].explained);
}
END_TEST

/* Planted in one layer, seen in another: bridged layers. */
START_TEST(a_point_of_one_layer_is_said_of_that)
{
    point_fits(found(GEMMA4_TAP_LAYER_OUTPUT, 6), FACTOR, GEMMA4_TAP_ATTN_OUT, 2, 1)->only_layer =
        4;
    conclude();
    ck_assert_uint_eq(causes.count, 1);
    ck_assert_str_eq(causes.list[0].layers, "4");
    ck_assert_uint_eq(causes.list[0].first_layer, 6);
}
END_TEST

START_TEST(a_point_keeps_its_scope)
{
    point_fits(found(GEMMA4_TAP_ATTN_OUT, 6), FACTOR, GEMMA4_TAP_ATTN_OUT, 2, 1)->scope =
        GEMMA4_DECODE_ONLY;
    conclude();
    ck_assert_uint_eq(causes.count, 1);
    ck_assert_int_eq(causes.list[0].scope, GEMMA4_DECODE_ONLY);
}
END_TEST

Suite *causes_suite(void)
{
    Suite *suite = suite_create("causes");
    TCase *c = tcase_create("causes");
    tcase_add_checked_fixture(c, set_up, tear_down);
    tcase_add_test(c, nothing_found_is_no_cause);
    tcase_add_test(c, findings_that_one_mistake_explains_are_one_cause);
    tcase_add_test(c, the_mistake_that_explains_most_is_the_cause);
    tcase_add_test(c, of_mistakes_that_explain_as_much_the_closest_is_the_cause);
    tcase_add_test(c, a_cause_has_the_runner_up_and_the_scope_of_where_it_is_first_explained);
    tcase_add_loop_test(c, what_leaves_hardly_more_fits_as_well, 0, COUNT(RESIDUALS));
    tcase_add_test(c, an_equivalent_mistake_explains_the_same_findings);
    tcase_add_test(c, variants_of_one_mistake_are_listed_once);
    tcase_add_test(c, equivalent_variants_are_listed_once);
    tcase_add_loop_test(c, two_causes_that_the_evidence_takes_for_each_other_are_one, 0, 2);
    tcase_add_test(c, a_mistake_beside_another_one_and_by_itself_is_one_cause);
    tcase_add_test(c, layers_in_a_list_are_found);
    tcase_add_loop_test(c, three_others_that_fit_as_well_are_a_name_and_four_are_none, 0, 2);
    tcase_add_loop_test(c, layers_are_listed_as_ranges, 0, COUNT(LISTS));
    tcase_add_test(c, a_list_of_layers_without_end_stops_at_a_whole_number);
    tcase_add_test(c, outside_the_layers_there_are_none);
    tcase_add_test(c, a_mistake_in_one_layer_is_listed_there_and_not_where_it_was_seen);
    tcase_add_test(c, findings_of_two_mistakes_are_two_causes);
    tcase_add_test(c, the_cause_that_explains_most_comes_first);
    tcase_add_test(c, what_is_explained_comes_before_what_is_not);
    tcase_add_test(c, of_a_pair_each_mistake_is_a_cause);
    tcase_add_test(c, the_second_mistake_of_a_pair_is_not_lost_where_the_first_explains_more);
    tcase_add_test(c, a_pair_beside_too_many_others_is_one_unknown_cause);
    tcase_add_loop_test(c, a_mistake_that_holds_most_of_an_unexplained_error_takes_it, 0,
                        COUNT(PARTS));
    tcase_add_test(c, what_another_mistake_explains_is_not_taken);
    tcase_add_test(c, what_no_explained_mistake_holds_stays_unknown);
    tcase_add_test(c, what_nothing_explains_is_one_entry_a_kind_of_tap);
    tcase_add_test(c, a_significant_filter_is_a_cause_below_the_bound);
    tcase_add_test(c, a_significant_filter_with_another_coefficient_names_nothing);
    tcase_add_test(c, a_filter_that_only_one_layer_shows_is_a_cause_there);
    tcase_add_test(c, an_insignificant_filter_is_no_cause);
    tcase_add_test(c, of_filters_that_enter_at_one_tap_the_most_significant_is_the_cause);
    tcase_add_test(c, of_filters_at_one_tap_three_others_are_listed_at_most);
    tcase_add_test(c, what_failing_taps_have_named_is_not_named_again_below_the_bound);
    suite_add_tcase(suite, c);
    TCase *points = tcase_create("points");
    tcase_add_checked_fixture(points, set_up, tear_down);
    tcase_add_test(points, findings_that_one_point_explains_are_one_cause);
    tcase_add_test(points, what_one_layer_does_not_show_of_a_list_others_do);
    tcase_add_test(points, what_one_layer_does_not_show_of_a_list_others_do);
    tcase_add_test(points, other_numbers_are_other_causes);
    tcase_add_loop_test(points, the_plainest_of_the_points_is_the_cause, 0, COUNT(PLAINER));
    tcase_add_test(points, the_point_that_explains_most_goes_first);
    tcase_add_test(points, a_catalogued_mistake_goes_before_points);
    tcase_add_loop_test(points, a_point_keeps_what_it_explains_but_for_a_rounding, 0, 2);
    tcase_add_test(points, a_point_of_one_layer_is_said_of_that);
    tcase_add_test(points, a_point_keeps_its_scope);
    suite_add_tcase(suite, points);
    return suite;
}
