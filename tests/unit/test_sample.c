/* The sample of the self-test (tests/check/sample.h): it must pass right engines, fail where
 * anything is not as its table says, and cover what it claims to cover. */
#include "counter_model.h"
#include "model.h"
#include "sample.h"
#include "suites.h"
#include "support.h"

#include <stdio.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define EVERY GEMMA4_EVERY_LAYER

static const gemma4_sample_column COLUMNS[] = {{GEMMA4_HONEST, "float32", GEMMA4_SET_ALL, 1},
                                               {GEMMA4_PLANTED, "float32", GEMMA4_SET_LAYERS, 1},
                                               {GEMMA4_PAIR, "float32", GEMMA4_SET_ALL, 1}};

typedef struct outcome {
    int status;
    bool reached;
    char *text; /* to be freed */
    gemma4_error error;
} outcome;

/* The row alone, in the column of its kind. */
static outcome run(const gemma4_sample_row *rows, size_t count, double least)
{
    outcome o = {.reached = true};
    size_t size;
    gemma4_sample_column column = COLUMNS[rows[0].kind];
    column.least = least;
    FILE *out = open_memstream(&o.text, &size);
    ck_assert_ptr_nonnull(out);
    o.status = gemma4_sample_run(&(gemma4_sample){&column, rows, 1, count}, 1, false, out,
                                 &o.reached, &o.error);
    fclose(out);
    return o;
}

static const gemma4_sample_row RIGHT[] = {
    {GEMMA4_HONEST, "tiny-one-token", 1, {{0}}, NULL, NULL},
    {GEMMA4_PLANTED,
     "tiny-one-token",
     1,
     {{"layer-scalar-dropped", "", 4}},
     "layers.4.output",
     NULL},
    {GEMMA4_PLANTED, "tiny-one-token", 1, {{"embed-scale-missing", "", EVERY}}, "embed", NULL},
    {GEMMA4_PLANTED, "tiny-one-token", 1, {{"softcap-missing", "", EVERY}}, "logits", NULL},
    {GEMMA4_PAIR,
     "tiny-one-token",
     1,
     {{"v-norm-missing", "", EVERY}, {"layer-scalar-dropped", "", EVERY}},
     "layers.0.attn.v_norm",
     NULL},
};

START_TEST(what_is_as_the_table_says_passes)
{
    outcome o = run(&RIGHT[_i], 1, 1);
    ck_assert_msg(o.status == 0 && o.reached, "%s%s", o.text, o.error.message);
    ck_assert_int_eq(strncmp(o.text, "sample: judged right are ", 25), 0); /* no other line */
    ck_assert_ptr_nonnull(strstr(o.text, ": every rate reached\n"));
    free(o.text);
}
END_TEST

/* Expectations that are wrong: RoPE does nothing at position 0, a planted mistake is no honest
 * engine, and so on. */
static const struct {
    gemma4_sample_row row;
    const char *miss;
} WRONG[] = {
    {{GEMMA4_HONEST, "tiny-one-token", 1, {{"softcap-missing", "", EVERY}}, NULL, NULL},
     "an alarm"},
    {{GEMMA4_PLANTED,
      "tiny-one-token",
      1,
      {{"rope-missing", "every layer", EVERY}},
      "layers.0.attn.q_rope",
      NULL},
     "not detected"},
    {{GEMMA4_PLANTED,
      "tiny-one-token",
      1,
      {{"layer-scalar-dropped", "", 4}},
      "layers.3.output",
      NULL},
     "reported first elsewhere"},
    {{GEMMA4_PLANTED,
      "tiny-one-token",
      1,
      {{"softcap-missing", "", EVERY}},
      "layers.0.output",
      NULL},
     "reported first elsewhere"},
    {{GEMMA4_PLANTED,
      "tiny-one-token",
      1,
      {{"layer-scalar-dropped", "", 4}, {"softcap-missing", "", EVERY}},
      "layers.4.output",
      NULL},
     "one cause too many"},
    {{GEMMA4_PAIR,
      "tiny-one-token",
      1,
      {{"softcap-missing", "", EVERY}, {"rope-missing", "every layer", EVERY}},
      "logits",
      NULL},
     "not both are named"},
};

START_TEST(what_is_not_fails)
{
    outcome o = run(&WRONG[_i].row, 1, 1);
    ck_assert_msg(o.status == 0 && !o.reached, "%s%s", o.text, o.error.message);
    ck_assert_int_eq(strncmp(o.text, "MISS  ", 6), 0);
    ck_assert_msg(strstr(o.text, WRONG[_i].miss) != NULL, "\"%s\" is not in: %s", WRONG[_i].miss,
                  o.text);
    ck_assert_ptr_nonnull(strstr(o.text, "0 of 1 judged right, expected at least 100 %"));
    ck_assert_ptr_nonnull(strstr(o.text, ": rates not reached\n"));
    free(o.text);
}
END_TEST

START_TEST(the_rate_decides)
{
    const gemma4_sample_row rows[] = {RIGHT[1], WRONG[1].row};
    for (int enough = 0; enough < 2; enough++) {
        outcome o = run(rows, 2, enough ? 0.5 : 0.51);
        ck_assert_int_eq(o.status, 0);
        ck_assert_int_eq(o.reached, enough);
        ck_assert_ptr_nonnull(strstr(o.text, "1 of 2 planted mistakes"));
        free(o.text);
    }
}
END_TEST

/* Behind a row that misses, one with another fault. */
START_TEST(it_can_stop_at_the_first_miss)
{
    const gemma4_sample_row rows[] = {RIGHT[1], WRONG[1].row, WRONG[2].row};
    const gemma4_sample sample = {&COLUMNS[GEMMA4_PLANTED], rows, 1, COUNT(rows)};
    gemma4_error error = {""};
    char *text = NULL;
    size_t size;
    bool reached = true;
    FILE *out = open_memstream(&text, &size);
    ck_assert_ptr_nonnull(out);
    ck_assert_int_eq(gemma4_sample_run(&sample, 1, true, out, &reached, &error), 0);
    fclose(out);
    ck_assert(!reached);
    ck_assert_ptr_nonnull(strstr(text, "rope-missing (every layer): not detected"));
    ck_assert_ptr_null(strstr(text, "layer-scalar-dropped"));
    ck_assert_ptr_nonnull(strstr(text, "sample: stopped at the first miss\n"));
    free(text);
}
END_TEST

/* An engine that cannot be judged is no matter of rates. */
static const struct {
    gemma4_sample_row row;
    const char *message;
} REFUSED[] = {
    {{GEMMA4_PLANTED,
      "tiny-one-token",
      1,
      {{"rope-missing", "", EVERY}},
      "layers.0.attn.q_rope",
      NULL},
     "found 'rope-missing' ()"},
    {{GEMMA4_PLANTED, "tiny-one-token", 1, {{"softcap-missing", "", EVERY}}, "logit", NULL},
     "expected the tap where it is seen first"},
    {{GEMMA4_PLANTED, "tiny-one-token", 1, {{"softcap-missing", "", EVERY}}, NULL, NULL},
     "expected the tap where it is seen first"},
    {{GEMMA4_PLANTED, "no-such-case", 1, {{"softcap-missing", "", EVERY}}, "logits", NULL},
     "case 'no-such-case'"},
    {{GEMMA4_PLANTED,
      "tiny-one-token",
      1,
      {{"softcap-missing", "", EVERY}},
      "logits",
      "float32 all"},
     "nothing to run"},
};

START_TEST(a_table_with_mistakes_is_refused)
{
    outcome o = run(&REFUSED[_i].row, 1, 0);
    ck_assert(o.status == -1 && !o.reached);
    assert_message_contains(&o.error, REFUSED[_i].message);
    ck_assert_str_eq(o.text, "");
    free(o.text);
}
END_TEST

/* --- the table --- */

static const gemma4_counter_model *model_of(const gemma4_sample_fault *fault)
{
    for (size_t i = 0; i < gemma4_counter_model_count(); i++) {
        const gemma4_counter_model *m = gemma4_counter_model_at(i);
        if (!strcmp(m->id, fault->id) && !strcmp(m->variant, fault->variant))
            return m;
    }
    ck_abort_msg("no counter-model is called %s (%s)", fault->id, fault->variant);
    return NULL;
}

static bool plants_one_of(const char *section)
{
    for (size_t i = 0; i < gemma4_the_sample.row_count; i++) {
        const gemma4_sample_row *row = &gemma4_the_sample.rows[i];
        if (row->kind == GEMMA4_PLANTED && !strcmp(model_of(&row->faults[0])->section, section))
            return true;
    }
    return false;
}

START_TEST(every_section_of_the_catalogue_is_there)
{
    size_t kinds[GEMMA4_SAMPLE_KINDS] = {0};
    for (size_t i = 0; i < gemma4_the_sample.row_count; i++)
        kinds[gemma4_the_sample.rows[i].kind]++;
    ck_assert_uint_ge(kinds[GEMMA4_HONEST], 3);
    ck_assert_uint_ge(kinds[GEMMA4_PLANTED], 24);
    ck_assert_uint_ge(kinds[GEMMA4_PAIR], 8);
    for (size_t i = 0; i < gemma4_counter_model_count(); i++)
        ck_assert_msg(plants_one_of(gemma4_counter_model_at(i)->section), "%s",
                      gemma4_counter_model_at(i)->section);
}
END_TEST

/* A pair is two mistakes in different steps, or there would be no telling which of them was
 * found. */
START_TEST(pairs_are_in_different_steps)
{
    for (size_t i = 0; i < gemma4_the_sample.row_count; i++) {
        const gemma4_sample_row *row = &gemma4_the_sample.rows[i];
        if (row->kind == GEMMA4_PAIR)
            ck_assert_int_ne(model_of(&row->faults[0])->taps[0],
                             model_of(&row->faults[1])->taps[0]);
    }
}
END_TEST

START_TEST(every_rate_asks_for_nearly_all)
{
    for (size_t i = 0; i < gemma4_the_sample.column_count; i++)
        ck_assert(gemma4_the_sample.columns[i].least >= 0.9 &&
                  gemma4_the_sample.columns[i].least <= 1);
}
END_TEST

Suite *sample_suite(void)
{
    Suite *suite = suite_create("sample");
    TCase *runs = tcase_create("runs");
    tcase_add_loop_test(runs, what_is_as_the_table_says_passes, 0, COUNT(RIGHT));
    tcase_add_loop_test(runs, what_is_not_fails, 0, COUNT(WRONG));
    tcase_add_test(runs, the_rate_decides);
    tcase_add_test(runs, it_can_stop_at_the_first_miss);
    tcase_add_loop_test(runs, a_table_with_mistakes_is_refused, 0, COUNT(REFUSED));
    suite_add_tcase(suite, runs);
    TCase *table = tcase_create("table");
    tcase_add_test(table, every_section_of_the_catalogue_is_there);
    tcase_add_test(table, pairs_are_in_different_steps);
    tcase_add_test(table, every_rate_asks_for_nearly_all);
    suite_add_tcase(suite, table);
    return suite;
}
