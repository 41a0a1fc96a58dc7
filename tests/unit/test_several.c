/* Several dumps in one call (tests/check/several.h): which ones, and what is wrong with a list. */
#include "several.h"
#include "suites.h"
#include "support.h"

#include <stdio.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

static char *write_list(const char *text)
{
    char *path = test_join(test_fresh_dir(), "dumps.yaml");
    FILE *f = fopen(path, "w");
    ck_assert(f && fputs(text, f) >= 0 && fclose(f) == 0);
    return path;
}

START_TEST(a_list_says_what_is_to_be_judged)
{
    gemma4_error error = {""};
    gemma4_dump_list list;
    char *path =
        write_list("format: gemma4-dumps\nversion: 1\ndumps:\n"
                   "  - {file: a/prompt.f32.h5, case: tiny-prompt, dtype: float32, require: full}\n"
                   "  - {file: b/prompt.f32.safetensors}\n"
                   "  - {file: /abs/x.h5, model: my/model}\n");
    ck_assert_msg(gemma4_dump_list_open(path, &list, &error) == 0, "%s", error.message);
    ck_assert_uint_eq(list.count, 3);
    size_t folder = strlen(path) - strlen("dumps.yaml");
    ck_assert(strncmp(list.dumps[0].path, path, folder) == 0 &&
              strcmp(list.dumps[0].path + folder, "a/prompt.f32.h5") == 0);
    ck_assert_str_eq(list.dumps[0].case_name, "tiny-prompt");
    ck_assert_str_eq(list.dumps[0].dtype, "float32");
    ck_assert_str_eq(list.dumps[0].require, "full");
    ck_assert_str_eq(list.dumps[0].label, "prompt-f32");
    ck_assert_str_eq(list.dumps[1].label, "prompt-f32-2");
    ck_assert(list.dumps[1].case_name == NULL && list.dumps[1].model_dir == NULL &&
              list.dumps[1].dtype == NULL);
    ck_assert_str_eq(list.dumps[2].path, "/abs/x.h5");
    ck_assert(strncmp(list.dumps[2].model_dir, path, folder) == 0 &&
              strcmp(list.dumps[2].model_dir + folder, "my/model") == 0);
    gemma4_dump_list_free(&list);
}
END_TEST

START_TEST(a_folder_s_dumps_come_in_order)
{
    static const char *const names[] = {"b.safetensors", "notes.txt", "a.h5",
                                        ".hidden.h5",    "c.hdf5",    "h5"};
    gemma4_error error = {""};
    gemma4_dump_list list;
    char *folder = test_fresh_dir();
    for (size_t i = 0; i < COUNT(names); i++)
        fclose(fopen(test_join(folder, names[i]), "w"));
    ck_assert_msg(gemma4_dump_list_open(folder, &list, &error) == 0, "%s", error.message);
    ck_assert_uint_eq(list.count, 3);
    ck_assert_str_eq(list.dumps[0].label, "a");
    ck_assert_str_eq(list.dumps[1].label, "b");
    ck_assert_str_eq(list.dumps[2].label, "c");
    ck_assert_str_eq(list.dumps[2].path, test_join(folder, "c.hdf5"));
    gemma4_dump_list_free(&list);
    ck_assert_int_eq(gemma4_dump_list_open(test_fresh_dir(), &list, &error), -1);
    assert_message_contains(&error, "expected dumps (*.h5, *.hdf5, *.safetensors), found none");
}
END_TEST

#define HEAD "format: gemma4-dumps\nversion: 1\n"

static const struct {
    const char *text, *message;
} BAD[] = {
    {"", "dumps.yaml"},
    {"[1]", "dumps.yaml:1: "},
    {"format: gemma4-case\nversion: 1\ndumps: [{file: a.h5}]\n",
     ":1: format: expected gemma4-dumps, found "},
    {"format: gemma4-dumps\nversion: 2\ndumps: [{file: a.h5}]\n", ":2: version: expected "},
    {HEAD, "dumps"},
    {HEAD "dumps: []\n", ":3: dumps: expected at least one dump"},
    {HEAD "dumps: [{case: tiny-prompt}]\n", "file"},
    {HEAD "dumps: [{file: a.h5, dtpye: float32}]\n", "dtpye"},
    {HEAD "dumps: [{file: a.h5, case: [1]}]\n", "case"},
    {HEAD "dumps: [{file: a.h5, case: x, model: y}]\n", "expected a case or a model, not both"},
    {HEAD "dumps: [a.h5]\n", "dumps"},
    {HEAD "engine: x\ndumps: [{file: a.h5}]\n", "engine"},
};

START_TEST(a_bad_list_is_refused)
{
    gemma4_error error = {""};
    gemma4_dump_list list;
    ck_assert_int_eq(gemma4_dump_list_open(write_list(BAD[_i].text), &list, &error), -1);
    assert_message_contains(&error, BAD[_i].message);
    ck_assert(list.count == 0 && list.dumps == NULL);
}
END_TEST

Suite *several_suite(void)
{
    Suite *suite = suite_create("several");
    TCase *lists = tcase_create("lists");
    tcase_add_test(lists, a_list_says_what_is_to_be_judged);
    tcase_add_test(lists, a_folder_s_dumps_come_in_order);
    tcase_add_loop_test(lists, a_bad_list_is_refused, 0, COUNT(BAD));
    suite_add_tcase(suite, lists);
    return suite;
}
