#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "document.h"
#include "suites.h"
#include "support.h"

static gemma4_document *parse(const char *text, gemma4_error *error)
{
    return gemma4_document_parse("doc", text, strlen(text), error);
}

static gemma4_document *parse_valid(const char *text)
{
    gemma4_error error = {""};
    gemma4_document *document = parse(text, &error);
    ck_assert_msg(document != NULL, "%s", error.message);
    return document;
}

/* --- gemma4_fail --- */

START_TEST(error_is_one_line)
{
    gemma4_error error;
    ck_assert_int_eq(gemma4_fail(&error, "%s:%d: a\nb\x1b[1m\x7f \xC2\x9B \xC3\xA9", "f", 3), -1);
    ck_assert_str_eq(error.message, "f:3: a?b?[1m? ?? \xC3\xA9");
    ck_assert_int_eq(gemma4_fail(NULL, "no one listens"), -1);
}
END_TEST

START_TEST(error_may_quote_itself)
{
    gemma4_error error;
    gemma4_fail(&error, "inner");
    gemma4_fail(&error, "outer: %s", error.message);
    ck_assert_str_eq(error.message, "outer: inner");
}
END_TEST

START_TEST(error_is_cut_to_its_size)
{
    gemma4_error error;
    char text[4096];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    gemma4_fail(&error, "%s", text);
    ck_assert_uint_eq(strlen(error.message), sizeof error.message - 1);
    ck_assert_str_eq(error.message + sizeof error.message - 5, "x...");
}
END_TEST

START_TEST(error_says_whether_memory_ran_out)
{
    static const char *const memory[] = {"f: out of memory",
                                         "f: cannot map: Cannot allocate memory"},
                             *const others[] = {"", "memory", "f: 'out of memory' is no tap"};
    gemma4_error error;
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) {
        gemma4_fail(&error, "%s", memory[i]);
        ck_assert_msg(gemma4_error_is_memory(&error), "%s", memory[i]);
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        gemma4_fail(&error, "%s", others[i]);
        ck_assert_msg(!gemma4_error_is_memory(&error), "%s", others[i]);
    }
}
END_TEST

/* --- trees --- */

START_TEST(json_tree)
{
    gemma4_document *document =
        parse_valid("{\"a\":1,\"b\":[true,null,\"x\\/\\u00e9\"],\n\t\"c\":{\"d\":-2.5e3}}");
    const gemma4_node *root = gemma4_document_root(document);
    ck_assert_str_eq(gemma4_document_name(document), "doc");
    ck_assert_int_eq(root->kind, GEMMA4_MAPPING);
    ck_assert_str_eq(root->path, "");
    ck_assert_uint_eq(root->count, 3);
    ck_assert_str_eq(root->keys[2], "c");
    ck_assert_ptr_eq(&root->items[1], gemma4_node_get(root, "b"));
    const gemma4_node *b = &root->items[1];
    ck_assert_int_eq(b->kind, GEMMA4_SEQUENCE);
    ck_assert_str_eq(b->items[2].text, "x/\xC3\xA9");
    ck_assert(b->items[2].quoted && !b->items[0].quoted);
    ck_assert_str_eq(b->items[2].path, "b[2]");
    const gemma4_node *d = gemma4_node_get(gemma4_node_get(root, "c"), "d");
    ck_assert_str_eq(d->path, "c.d");
    ck_assert_uint_eq(d->line, 2);
    ck_assert_ptr_eq(d->document, document);
    ck_assert_ptr_null(gemma4_node_get(root, "z"));
    ck_assert_ptr_null(gemma4_node_get(b, "a"));
    ck_assert_ptr_null(gemma4_node_get(NULL, "a"));
    gemma4_document_free(document);
}
END_TEST

START_TEST(yaml_tree)
{
    gemma4_document *document =
        parse_valid("# comment\nid: tiny\nempty:\nlist:\n  - 1\n  - 'two'\ntext: |\n  100\n");
    const gemma4_node *root = gemma4_document_root(document);
    ck_assert_str_eq(gemma4_node_get(root, "id")->text, "tiny");
    ck_assert(gemma4_node_is_null(gemma4_node_get(root, "empty")));
    ck_assert_uint_eq(gemma4_node_get(root, "list")->items[1].line, 6);
    ck_assert(gemma4_node_get(root, "text")->quoted);
    gemma4_document_free(document);
}
END_TEST

START_TEST(empty_containers)
{
    gemma4_document *document = parse_valid("{\"a\": {}, \"b\": []}");
    const gemma4_node *root = gemma4_document_root(document);
    ck_assert_uint_eq(root->items[0].count, 0);
    ck_assert_ptr_null(gemma4_node_get(&root->items[0], "x"));
    ck_assert_uint_eq(root->items[1].count, 0);
    gemma4_document_free(document);
}
END_TEST

/* Every key of a large mapping is found; a quadratic check would take minutes here. */
START_TEST(large_mapping)
{
    enum { COUNT = 100000 };
    char *text = malloc(COUNT * 32), *end = text;
    ck_assert_ptr_nonnull(text);
    *end++ = '{';
    for (int i = 0; i < COUNT; i++)
        end += sprintf(end, "%s\"key.%d\":%d", i == 0 ? "" : ",\n", i, i);
    strcpy(end, "}");
    gemma4_document *document = parse_valid(text);
    for (int i = 0; i < COUNT; i++) {
        char key[32];
        int64_t value = -1;
        sprintf(key, "key.%d", i);
        ASSERT_EACH(gemma4_get_int(gemma4_document_root(document), key, 0, COUNT, &value, NULL) ==
                            0 &&
                        value == i,
                    "%s: %d", key, (int)value);
    }
    gemma4_document_free(document);
    free(text);
}
END_TEST

START_TEST(long_paths_keep_their_end)
{
    char text[4000], *end = text;
    for (int depth = 0; depth < 10; depth++) {
        end += sprintf(end, "{\"");
        memset(end, 'a' + depth, 100);
        end += sprintf(end + 100, "\":") + 100;
    }
    end += sprintf(end, "1");
    memset(end, '}', 10);
    end[10] = '\0';
    gemma4_document *document = parse_valid(text);
    const gemma4_node *node = gemma4_document_root(document);
    while (node->kind == GEMMA4_MAPPING)
        node = &node->items[0];
    ck_assert_uint_eq(strlen(node->path), 160);
    ck_assert_msg(strncmp(node->path, "...i", 4) == 0, "%s", node->path);
    ck_assert_str_eq(node->path + 150, "jjjjjjjjjj");
    gemma4_document_free(document);
}
END_TEST

/* --- hostile input --- */

static const struct {
    const char *text, *expected;
} HOSTILE[] = {
    {"", "doc: expected a document, found an empty file"},
    {"# only a comment\n", "empty file"},
    {"{\"a\": 1", "doc:2: expected YAML or JSON, found: did not find expected ',' or '}'"},
    {"{\"a\": 1}}", "doc:1: "},
    {"{\"a\": 1,\n\"b\": 2,\n \"a\": 3}", "doc:1: expected every key once, found \"a\" twice"},
    {"x:\n  {\"a\": 1, \"a\": 3}", "doc:2: x: expected every key once"},
    {"a: &x 1", "doc:1: expected no anchors"},
    {"a: [&x {}]", "expected no anchors"},
    {"&x [1]", "expected no anchors"},
    {"&k a: 1", "expected no anchors"},
    {"a: *x", "doc:1: expected no aliases, found one"},
    {"*x : 1", "expected a scalar as the key"},
    {"a: !!int 1", "doc:1: expected no tags"},
    {"a: ! 1", "doc:1: expected no tags"},
    {"!!map {a: 1}", "expected no tags"},
    {"!!seq [1]", "expected no tags"},
    {"!!str a: 1", "expected no tags"},
    {"--- 1\n--- 2\n", "doc:2: expected one document, found a second one"},
    {"a: 1\n...\nb: 1\n", "doc:3: expected YAML or JSON"},
    {"%YAML 1.1\n--- 1\n",
     "doc: expected no directives, found a line that begins with '%' at byte 0"},
    {"--- 1\n...\n%TAG ! x\n--- 2", "expected no directives"},
    {"\xEF\xBB\xBF%TAG ! x\n--- 2", "expected no directives"},
    {"? [1]\n: 2", "expected a scalar as the key, found another kind of node"},
    {"{[1]: 2}", "expected a scalar as the key"},
    {"[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]", "doc:1: expected nesting of at most 16 levels"},
    {"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "expected nesting of at most 16 levels"},
    {"\"a\\0b\"", "doc:1: expected text without NUL bytes"},
    {"{\"a\\u0000b\": 1}", "doc:1: expected text without NUL bytes"},
    {"\"\\ud83d\\ude00\"", "invalid Unicode character escape code"},
    {"a: \xff", "doc: expected UTF-8 text, found at byte 3"},
    {"a: \x01", "doc: expected UTF-8 text, found at byte 3: control characters are not allowed"},
    {"\xff\xfe"
     "a\x01",
     "expected UTF-8 text"},
};

START_TEST(hostile_text)
{
    gemma4_error error = {""};
    ck_assert_ptr_null(parse(HOSTILE[_i].text, &error));
    assert_message_contains(&error, HOSTILE[_i].expected);
    ck_assert_ptr_null(parse(HOSTILE[_i].text, NULL));
}
END_TEST

START_TEST(nul_byte)
{
    gemma4_error error = {""};
    ck_assert_ptr_null(gemma4_document_parse("doc", "a: b\0c", 6, &error));
    assert_message_contains(&error, "expected UTF-8 text, found at byte 4");
}
END_TEST

START_TEST(percent_within_a_line_is_no_directive)
{
    gemma4_document *document = parse_valid("a: 5 %\nb: \"\xD1\x85%\"\n");
    ck_assert_str_eq(gemma4_document_root(document)->items[1].text, "\xD1\x85%");
    gemma4_document_free(document);
}
END_TEST

/* Every prefix of a valid text either parses or fails with a message. */
START_TEST(truncated)
{
    static const char text[] = "{\"a\": [1, {\"b\": \"c\\u00e9\"}, null],\n \"d\": {\"e\": [[]]}}";
    for (size_t size = 0; size < sizeof text - 1; size++) {
        gemma4_error error = {""};
        ck_assert_ptr_null(gemma4_document_parse("doc", text, size, &error));
        assert_message_contains(&error, "doc:");
    }
}
END_TEST

START_TEST(key_beyond_libyaml_limit)
{
    gemma4_error error = {""};
    char text[1200];
    memset(text, 'k', sizeof text);
    memcpy(text, "{\"", 2);
    strcpy(text + 1100, "\": 1}");
    ck_assert_ptr_null(parse(text, &error));
    assert_message_contains(&error, "doc:1: expected YAML or JSON");
    assert_message_contains(&error, "within 1024 bytes");
}
END_TEST

START_TEST(too_many_nodes)
{
    size_t count = GEMMA4_DOCUMENT_MAX_NODES, size = 2 * count + 2;
    char *text = malloc(size);
    gemma4_error error = {""};
    ck_assert_ptr_nonnull(text);
    text[0] = '[';
    for (size_t i = 0; i < count; i++)
        memcpy(text + 1 + 2 * i, "1,", 2);
    text[size - 1] = ']';
    ck_assert_ptr_null(gemma4_document_parse("doc", text, size, &error));
    assert_message_contains(&error, "expected at most 1048576 nodes");
    free(text);
}
END_TEST

START_TEST(too_large)
{
    gemma4_error error = {""};
    ck_assert_ptr_null(gemma4_document_parse("doc", "", GEMMA4_DOCUMENT_MAX_BYTES + 1, &error));
    assert_message_contains(&error, "doc: expected at most 67108864 bytes, found 67108865");
}
END_TEST

/* --- files --- */

START_TEST(read_a_file)
{
    gemma4_error error = {""};
    char *path = test_join(test_fresh_dir(), "a.yaml");
    test_write_text(path, "a: 1\nb: [");
    ck_assert_ptr_null(gemma4_document_read(path, &error));
    assert_message_contains(&error, path);
    test_write_text(path, "a: 1\n");
    gemma4_document *document = gemma4_document_read(path, &error);
    ck_assert_ptr_nonnull(document);
    ck_assert_str_eq(gemma4_document_name(document), path);
    gemma4_document_free(document);
}
END_TEST

START_TEST(read_no_file)
{
    gemma4_error error = {""};
    char *directory = test_fresh_dir(), *fifo = test_join(directory, "fifo");
    ck_assert_ptr_null(gemma4_document_read(test_join(directory, "none"), &error));
    assert_message_contains(&error, "none: No such file");
    ck_assert_ptr_null(gemma4_document_read(directory, &error));
    assert_message_contains(&error, "expected a regular file");
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    ck_assert_ptr_null(gemma4_document_read(fifo, &error));
    assert_message_contains(&error, "expected a regular file");
}
END_TEST

/* --- scalars --- */

static const struct {
    const char *text;
    int64_t value;
    bool valid;
} INTS[] = {
    {"0", 0, true},
    {"-0", 0, true},
    {"7", 7, true},
    {"-12", -12, true},
    {"9223372036854775807", INT64_MAX, true},
    {"-9223372036854775808", INT64_MIN, true},
    {"9223372036854775808", 0, false},
    {"99999999999999999999999", 0, false},
    {"01", 0, false},
    {"+1", 0, false},
    {"1.0", 0, false},
    {"1e3", 0, false},
    {"0x10", 0, false},
    {"1_000", 0, false},
    {"-", 0, false},
    {"--1", 0, false},
    {"1 2", 0, false},
    {"\"1\"", 0, false},
    {"true", 0, false},
    {"null", 0, false},
    {"[]", 0, false},
    {"{}", 0, false},
};

START_TEST(ints)
{
    int64_t value = 0;
    gemma4_error error = {""};
    gemma4_document *document = parse_valid(INTS[_i].text);
    int status =
        gemma4_node_int(gemma4_document_root(document), INT64_MIN, INT64_MAX, &value, &error);
    ck_assert_int_eq(status, INTS[_i].valid ? 0 : -1);
    ck_assert_int_eq(value, INTS[_i].value);
    if (!INTS[_i].valid)
        assert_message_contains(&error, "doc:1: expected an integer from");
    gemma4_document_free(document);
}
END_TEST

static const struct {
    const char *text;
    double value;
    bool valid;
} NUMBERS[] = {
    {"0", 0, true},           {"-2.5", -2.5, true}, {"1e-06", 1e-6, true}, {"1E+2", 100, true},
    {"1000000.0", 1e6, true}, {"1e999", 0, false},  {"-1e999", 0, false},  {"nan", 0, false},
    {".nan", 0, false},       {".inf", 0, false},   {"inf", 0, false},     {"Infinity", 0, false},
    {"0x1p3", 0, false},      {".5", 0, false},     {"5.", 0, false},      {"1e", 0, false},
    {"1e+", 0, false},        {"01.5", 0, false},   {"+1.5", 0, false},    {"1.5x", 0, false},
    {"\"1.5\"", 0, false},    {"null", 0, false},   {"[1]", 0, false},     {"1,5", 0, false},
};

START_TEST(numbers)
{
    double value = 0;
    gemma4_error error = {""};
    gemma4_document *document = parse_valid(NUMBERS[_i].text);
    int status =
        gemma4_node_number(gemma4_document_root(document), -INFINITY, INFINITY, &value, &error);
    ck_assert_int_eq(status, NUMBERS[_i].valid ? 0 : -1);
    ck_assert_double_eq(value, NUMBERS[_i].value);
    if (!NUMBERS[_i].valid)
        assert_message_contains(&error, "expected a number from");
    gemma4_document_free(document);
}
END_TEST

START_TEST(ranges)
{
    gemma4_error error = {""};
    int64_t integer;
    double number;
    gemma4_document *document = parse_valid("{\"n\": 5, \"x\": 2.5}");
    const gemma4_node *root = gemma4_document_root(document);
    ck_assert_int_eq(gemma4_get_int(root, "n", 5, 5, &integer, &error), 0);
    ck_assert_int_eq(gemma4_get_int(root, "n", 6, 9, &integer, &error), -1);
    ck_assert_str_eq(error.message, "doc:1: n: expected an integer from 6 to 9, found 5");
    ck_assert_int_eq(gemma4_get_int(root, "n", 1, 4, &integer, &error), -1);
    ck_assert_int_eq(gemma4_get_number(root, "x", 2.5, 2.5, &number, &error), 0);
    ck_assert_int_eq(gemma4_get_number(root, "x", 0, 1, &number, &error), -1);
    ck_assert_str_eq(error.message, "doc:1: x: expected a number from 0 to 1, found 2.5");
    gemma4_document_free(document);
}
END_TEST

START_TEST(bools_and_strings)
{
    gemma4_error error = {""};
    bool flag = false;
    const char *text;
    gemma4_document *document = parse_valid("[true, false, yes, \"true\", null, ~, \"null\", []]");
    const gemma4_node *items = gemma4_document_root(document)->items;
    ck_assert(gemma4_node_bool(&items[0], &flag, &error) == 0 && flag);
    ck_assert(gemma4_node_bool(&items[1], &flag, &error) == 0 && !flag);
    for (int i = 2; i < 8; i++)
        ck_assert_int_eq(gemma4_node_bool(&items[i], &flag, &error), -1);
    ck_assert_str_eq(error.message, "doc:1: [7]: expected true or false, found a sequence");
    ck_assert_int_eq(gemma4_node_string(&items[3], &text, &error), 0);
    ck_assert_str_eq(text, "true");
    ck_assert_int_eq(gemma4_node_string(&items[6], &text, &error), 0);
    ck_assert_int_eq(gemma4_node_string(&items[4], &text, &error), -1);
    ck_assert_str_eq(error.message, "doc:1: [4]: expected a string, found null");
    ck_assert_int_eq(gemma4_node_string(&items[5], &text, &error), -1);
    ck_assert_int_eq(gemma4_node_string(&items[7], &text, &error), -1);
    gemma4_document_free(document);
}
END_TEST

START_TEST(required_keys)
{
    gemma4_error error = {""};
    const gemma4_node *node;
    const char *text;
    gemma4_document *document = parse_valid("{\"a\": {\"b\": 1}}");
    const gemma4_node *root = gemma4_document_root(document);
    ck_assert_int_eq(gemma4_get_node(root, "a", GEMMA4_MAPPING, &node, &error), 0);
    ck_assert_int_eq(gemma4_get_string(node, "c", &text, &error), -1);
    ck_assert_str_eq(error.message, "doc:1: a: expected the key \"c\", found none");
    ck_assert_int_eq(gemma4_get_node(root, "a", GEMMA4_SEQUENCE, &node, &error), -1);
    ck_assert_str_eq(error.message, "doc:1: a: expected a sequence, found a mapping");
    ck_assert_int_eq(gemma4_get_node(root, "a", GEMMA4_SCALAR, &node, &error), -1);
    ck_assert_int_eq(gemma4_get_string(gemma4_node_get(node, "b"), "c", &text, &error), -1);
    ck_assert_str_eq(error.message, "doc:1: a.b: expected a mapping, found 1");
    gemma4_document_free(document);
}
END_TEST

START_TEST(only_keys)
{
    static const char *const one[] = {"a", NULL}, *const both[] = {"b", "a", NULL};
    gemma4_error error = {""};
    gemma4_document *document = parse_valid("{\"a\": 1,\n\"b\": 2}");
    const gemma4_node *root = gemma4_document_root(document);
    ck_assert_int_eq(gemma4_node_only_keys(root, both, &error), 0);
    ck_assert_int_eq(gemma4_node_only_keys(root, one, &error), -1);
    ck_assert_str_eq(error.message, "doc:1: expected only the keys a, found \"b\" in line 2");
    ck_assert_int_eq(gemma4_node_only_keys(&root->items[0], one, &error), -1);
    gemma4_document_free(document);
}
END_TEST

/* Found text is cut between characters, never within one. */
START_TEST(long_found_text)
{
    gemma4_error error = {""};
    char text[300] = "\"x", *end = text + 2;
    for (int i = 0; i < 100; i++)
        end = stpcpy(end, "\xC3\xA9");
    strcpy(end, "\"");
    gemma4_document *document = parse_valid(text);
    gemma4_node_fail(gemma4_document_root(document), "less", &error);
    assert_message_contains(&error, "\xC3\xA9...\"");
    gemma4_document_free(document);
}
END_TEST

Suite *document_suite(void)
{
    Suite *suite = suite_create("document");
    TCase *errors = tcase_create("errors"), *trees = tcase_create("trees"),
          *hostile = tcase_create("hostile"), *scalars = tcase_create("scalars");
    tcase_add_test(errors, error_is_one_line);
    tcase_add_test(errors, error_may_quote_itself);
    tcase_add_test(errors, error_is_cut_to_its_size);
    tcase_add_test(errors, error_says_whether_memory_ran_out);
    tcase_add_test(trees, json_tree);
    tcase_add_test(trees, yaml_tree);
    tcase_add_test(trees, empty_containers);
    tcase_add_test(trees, large_mapping);
    tcase_add_test(trees, long_paths_keep_their_end);
    tcase_add_test(trees, read_a_file);
    tcase_add_loop_test(hostile, hostile_text, 0, sizeof HOSTILE / sizeof HOSTILE[0]);
    tcase_add_test(hostile, nul_byte);
    tcase_add_test(hostile, percent_within_a_line_is_no_directive);
    tcase_add_test(hostile, truncated);
    tcase_add_test(hostile, key_beyond_libyaml_limit);
    tcase_add_test(hostile, too_many_nodes);
    tcase_add_test(hostile, too_large);
    tcase_add_test(hostile, read_no_file);
    tcase_add_loop_test(scalars, ints, 0, sizeof INTS / sizeof INTS[0]);
    tcase_add_loop_test(scalars, numbers, 0, sizeof NUMBERS / sizeof NUMBERS[0]);
    tcase_add_test(scalars, ranges);
    tcase_add_test(scalars, bools_and_strings);
    tcase_add_test(scalars, required_keys);
    tcase_add_test(scalars, only_keys);
    tcase_add_test(scalars, long_found_text);
    tcase_set_timeout(trees, 60);
    tcase_set_timeout(hostile, 60);
    suite_add_tcase(suite, errors);
    suite_add_tcase(suite, trees);
    suite_add_tcase(suite, hostile);
    suite_add_tcase(suite, scalars);
    return suite;
}
