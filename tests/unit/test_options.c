/* Command lines (ref/options.h). */
#include "options.h"
#include "suites.h"
#include "support.h"

#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* Parses up to five words with the options --model and --out and room for two positional words. */
typedef struct parsed {
    const char *model, *out, *words[2];
    size_t count;
    int status;
    gemma4_error error;
} parsed;

static parsed parse(const char *const line[])
{
    parsed p = {0};
    const gemma4_option options[] = {{"--model", &p.model}, {"--out", &p.out}, {NULL, NULL}};
    char *argv[6];
    int argc = 0;
    for (; line[argc] != NULL; argc++)
        argv[argc] = (char *)line[argc];
    p.status = gemma4_options_parse(argc, argv, options, p.words, 2, &p.count, &p.error);
    return p;
}

static const struct {
    const char *line[6];
    const char *model, *out, *words[2];
} VALID[] = {
    {{NULL}, NULL, NULL, {NULL, NULL}},
    {{"--model", "dir", NULL}, "dir", NULL, {NULL, NULL}},
    {{"--model=dir", "--out", "f.h5", NULL}, "dir", "f.h5", {NULL, NULL}},
    {{"case", "--out=f", "dump.h5", NULL}, NULL, "f", {"case", "dump.h5"}},
    {{"--model=", NULL}, "", NULL, {NULL, NULL}},
    {{"--model=a=b", NULL}, "a=b", NULL, {NULL, NULL}},
    {{"--model", "--out", NULL}, "--out", NULL, {NULL, NULL}}, /* a value may look like an option */
    {{"-", NULL}, NULL, NULL, {"-", NULL}},                    /* a lone hyphen is a word */
    {{"", "x", NULL}, NULL, NULL, {"", "x"}},
};

static void assert_same_text(const char *found, const char *expected)
{
    ck_assert((found == NULL) == (expected == NULL));
    if (expected != NULL)
        ck_assert_str_eq(found, expected);
}

START_TEST(options_and_words)
{
    parsed p = parse(VALID[_i].line);
    ck_assert_int_eq(p.status, 0);
    assert_same_text(p.model, VALID[_i].model);
    assert_same_text(p.out, VALID[_i].out);
    ck_assert_uint_eq(p.count, (size_t)(VALID[_i].words[0] != NULL) + (VALID[_i].words[1] != NULL));
    assert_same_text(p.words[0], VALID[_i].words[0]);
    assert_same_text(p.words[1], VALID[_i].words[1]);
}
END_TEST

static const struct {
    const char *line[6];
    const char *message;
} INVALID[] = {
    {{"--modle", "x", NULL}, "unknown option '--modle'"},
    {{"--mode", "x", NULL}, "unknown option '--mode'"}, /* no abbreviations */
    {{"--model2=x", NULL}, "unknown option '--model2=x'"},
    {{"-m", NULL}, "unknown option '-m'"},
    {{"--", NULL}, "unknown option '--'"},
    {{"--=x", NULL}, "unknown option '--=x'"},
    {{"--model", NULL}, "'--model' needs a value"},
    {{"--model", "a", "--model", "b", NULL}, "'--model' given twice"},
    {{"--model=a", "--model=a", NULL}, "'--model' given twice"},
    {{"a", "b", "c", NULL}, "unexpected argument 'c'"},
    {{"--new\nline", NULL}, "unknown option '--new?line'"},
};

START_TEST(other_command_lines_are_refused)
{
    parsed p = parse(INVALID[_i].line);
    ck_assert_int_eq(p.status, -1);
    assert_message_contains(&p.error, "command line: ");
    assert_message_contains(&p.error, INVALID[_i].message);
}
END_TEST

/* --- integers --- */

static const struct {
    const char *text;
    int64_t low, high, value;
} INTEGERS[] = {
    {"0", 0, 1000, 0},
    {"17", 0, 1000, 17},
    {"1000", 0, 1000, 1000},
    {"007", 0, 1000, 7},
    {"9223372036854775807", 0, INT64_MAX, INT64_MAX},
};

START_TEST(one_integer)
{
    gemma4_error error;
    int64_t value = -1;
    ck_assert_int_eq(gemma4_parse_int(INTEGERS[_i].text, "--n", INTEGERS[_i].low, INTEGERS[_i].high,
                                      &value, &error),
                     0);
    ck_assert_int_eq(value, INTEGERS[_i].value);
}
END_TEST

static const char *const NO_INTEGERS[] = {
    "",
    " ",
    " 1",
    "1 ",
    "-1",
    "+1",
    "1001",
    "1.0",
    "1e2",
    "0x10",
    "one",
    "9223372036854775808",
    "99999999999999999999999999999",
    "1,2",
    "1\n",
};

START_TEST(no_integer)
{
    gemma4_error error;
    int64_t value;
    ck_assert_int_eq(gemma4_parse_int(NO_INTEGERS[_i], "--n", 0, 1000, &value, &error), -1);
    assert_message_contains(&error, "--n: expected an integer");
}
END_TEST

START_TEST(one_integer_has_a_lower_bound)
{
    gemma4_error error;
    int64_t value;
    ck_assert_int_eq(gemma4_parse_int("0", "--n", 1, 9, &value, &error), -1);
    assert_message_contains(&error, "--n: expected an integer from 1 to 9, found '0'");
}
END_TEST

START_TEST(a_list_of_integers)
{
    gemma4_error error;
    int32_t *values;
    size_t count;
    ck_assert_int_eq(gemma4_parse_ints("2,17,0,1000", "--n", 0, 1000, &values, &count, &error), 0);
    ck_assert_uint_eq(count, 4);
    ck_assert(values[0] == 2 && values[1] == 17 && values[2] == 0 && values[3] == 1000);
    free(values);
    ck_assert_int_eq(gemma4_parse_ints("5", "--n", 0, 1000, &values, &count, &error), 0);
    ck_assert(count == 1 && values[0] == 5);
    free(values);
}
END_TEST

static const char *const NO_LISTS[] = {"",    ",",    "1,",   ",1",     "1,,2", "1, 2",
                                       "1;2", "1,2,", "1,-2", "1,1001", "1,2x", "1 2"};

START_TEST(no_list_of_integers)
{
    gemma4_error error;
    int32_t *values, other;
    size_t count;
    values = &other;
    ck_assert_int_eq(gemma4_parse_ints(NO_LISTS[_i], "--n", 0, 1000, &values, &count, &error), -1);
    ck_assert_ptr_null(values);
    assert_message_contains(&error, "--n: expected ");
}
END_TEST

/* A list as long as a command line may be is cut in the message. */
START_TEST(long_text_is_cut_in_the_message)
{
    char text[2000];
    gemma4_error error;
    int64_t value;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    ck_assert_int_eq(gemma4_parse_int(text, "--n", 0, 9, &value, &error), -1);
    ck_assert_uint_lt(strlen(error.message), 120);
}
END_TEST

Suite *options_suite(void)
{
    Suite *suite = suite_create("options");
    TCase *words = tcase_create("words"), *numbers = tcase_create("numbers");
    tcase_add_loop_test(words, options_and_words, 0, COUNT(VALID));
    tcase_add_loop_test(words, other_command_lines_are_refused, 0, COUNT(INVALID));
    tcase_add_loop_test(numbers, one_integer, 0, COUNT(INTEGERS));
    tcase_add_loop_test(numbers, no_integer, 0, COUNT(NO_INTEGERS));
    tcase_add_test(numbers, one_integer_has_a_lower_bound);
    tcase_add_test(numbers, a_list_of_integers);
    tcase_add_loop_test(numbers, no_list_of_integers, 0, COUNT(NO_LISTS));
    tcase_add_test(numbers, long_text_is_cut_in_the_message);
    suite_add_tcase(suite, words);
    suite_add_tcase(suite, numbers);
    return suite;
}
