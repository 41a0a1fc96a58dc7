/* Case manifests (tests/check/manifest.h; spec/cases.md). */
#include "manifest.h"
#include "places.h"
#include "suites.h"
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

#define SHA_A "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define SHA_B "11112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define SHA_C "22112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static const char VALID[] = "format: gemma4-case\n"
                            "version: 1\n"
                            "id: my-case\n"
                            "summary: A summary\n"
                            "why: >-\n"
                            "  Two lines\n"
                            "  of reason.\n"
                            "shows:\n"
                            "  - first-mistake\n"
                            "  - second-mistake\n"
                            "checkpoint:\n"
                            "  name: small\n"
                            "  preset: tiny\n"
                            "  seed: 9223372036854775807\n"
                            "  sha256: \"" SHA_A "\"\n"
                            "  config_sha256: \"" SHA_B "\"\n"
                            "tokens: [2, 17, 5, 31, 0]\n"
                            "first_position: 262100\n"
                            "schedule: [3, 1, 1]\n"
                            "oracle:\n"
                            "  name: transformers\n"
                            "  version: 5.23.0\n"
                            "  torch: 2.13.0\n"
                            "  dtype: float32\n"
                            "  attention: eager\n"
                            "golden:\n"
                            "  file: my-case.h5\n"
                            "  sha256: \"" SHA_C "\"\n"
                            "  rows: [0, 4]\n"
                            "  taps: ['*.attn.scores']\n"
                            "routing:\n"
                            "  decisions: 60\n"
                            "  smallest_gap: 0.00131\n"
                            "tolerances:\n"
                            "  - dtype: float32\n"
                            "    taps: '*'\n"
                            "    metric: relative_rms\n"
                            "    value: 2.0e-5\n"
                            "    from: a measurement\n"
                            "  - dtype: float32\n"
                            "    taps: 'layers.*.attn.*'\n"
                            "    metric: relative_rms\n"
                            "    value: 3.0e-5\n"
                            "    from: another\n"
                            "  - dtype: float32\n"
                            "    taps: '*'\n"
                            "    metric: position_rms\n"
                            "    value: 6.0e-5\n"
                            "    from: a third\n"
                            "flags:\n"
                            "  - flag: far-positions\n"
                            "    reason: few engines can\n";

/* Opens text as a manifest; NULL with error filled where it is none. */
static gemma4_case *open_text(const char *text, gemma4_error *error)
{
    char *path = test_join(test_fresh_dir(), "my-case.yaml");
    test_write_text(path, text);
    return gemma4_case_open(path, error);
}

static gemma4_case *open_valid(void)
{
    gemma4_error error = {""};
    gemma4_case *c = open_text(VALID, &error);
    ck_assert_msg(c != NULL, "%s", error.message);
    return c;
}

START_TEST(every_text_is_read)
{
    gemma4_case *c = open_valid();
    ck_assert_str_eq(c->id, "my-case");
    ck_assert_str_eq(c->summary, "A summary");
    ck_assert_str_eq(c->why, "Two lines of reason.");
    ck_assert_uint_eq(c->shows_count, 2);
    ck_assert_str_eq(c->shows[0], "first-mistake");
    ck_assert_str_eq(c->shows[1], "second-mistake");
    ck_assert_str_eq(c->checkpoint_name, "small");
    ck_assert_str_eq(c->checkpoint_preset, "tiny");
    ck_assert_str_eq(c->checkpoint_sha256, SHA_A);
    ck_assert_str_eq(c->config_sha256, SHA_B);
    ck_assert_str_eq(c->golden_sha256, SHA_C);
    ck_assert_str_eq(c->oracle_name, "transformers");
    ck_assert_str_eq(c->oracle_version, "5.23.0");
    ck_assert_str_eq(c->oracle_dtype, "float32");
    ck_assert_uint_eq(c->flag_count, 1);
    ck_assert_str_eq(c->flags[0].flag, "far-positions");
    ck_assert_str_eq(c->flags[0].reason, "few engines can");
    gemma4_case_close(c);
}
END_TEST

START_TEST(every_number_is_read)
{
    static const int32_t tokens[] = {2, 17, 5, 31, 0}, schedule[] = {3, 1, 1};
    gemma4_case *c = open_valid();
    ck_assert_uint_eq(c->checkpoint_seed, INT64_MAX);
    ck_assert_uint_eq(c->token_count, 5);
    ck_assert_mem_eq(c->tokens, tokens, sizeof tokens);
    ck_assert_uint_eq(c->first_position, 262100);
    ck_assert_uint_eq(c->schedule_count, 3);
    ck_assert_mem_eq(c->schedule, schedule, sizeof schedule);
    ck_assert_uint_eq(c->routing_decisions, 60);
    ck_assert_double_eq(c->routing_smallest_gap, 0.00131);
    ck_assert_uint_eq(c->tolerance_count, 3);
    ck_assert_double_eq(c->tolerances[1].value, 3e-5);
    ck_assert_str_eq(c->tolerances[1].taps, "layers.*.attn.*");
    ck_assert_str_eq(c->tolerances[1].from, "another");
    ck_assert_int_eq(c->tolerances[2].metric, GEMMA4_METRIC_POSITION_RMS);
    gemma4_case_close(c);
}
END_TEST

/* The golden lies beside the manifest; the checkpoint, which is nowhere yet, will be generated
 * under build/ where there is one. */
START_TEST(paths_are_relative_to_the_manifest)
{
    char *root = test_fresh_dir(), *cases = test_join(root, "golden/cases"),
         *path = test_join(cases, "my-case.yaml");
    gemma4_error error = {""};
    ck_assert(mkdir(test_join(root, "golden"), 0777) == 0 && mkdir(cases, 0777) == 0 &&
              mkdir(test_join(root, "build"), 0777) == 0);
    test_write_text(path, VALID);
    gemma4_case *c = gemma4_case_open(path, &error);
    ck_assert_msg(c != NULL, "%s", error.message);
    ck_assert_str_eq(c->path, path);
    ck_assert_str_eq(c->golden_path, test_join(cases, "my-case.h5"));
    ck_assert_str_eq(c->checkpoint_dir, test_join(cases, "../../build/checkpoints/small"));
    gemma4_case_close(c);
}
END_TEST

/* Sets a variable of the environment, or (NULL) removes it. Returns what it was: a copy, or
 * NULL. */
static char *exchange_variable(const char *name, const char *value)
{
    char *old = getenv(name) ? strdup(getenv(name)) : NULL;
    ck_assert_int_eq(value ? setenv(name, value, 1) : unsetenv(name), 0);
    return old;
}

/* Beside installed cases, which are not to be written to, there is no folder build/: then it is the
 * user's cache; without one, build/ all the same. */
START_TEST(an_installed_case_s_checkpoint_is_generated_in_the_cache)
{
    static const struct {
        const char *cache, *home, *expected;
    } places[] = {
        {"/a/cache", "/home/me", "/a/cache/gemma4/checkpoints"},
        {NULL, "/home/me", "/home/me/.cache/gemma4/checkpoints"},
        {"not/absolute", "/home/me", "/home/me/.cache/gemma4/checkpoints"},
        {NULL, NULL, "/nowhere/golden/../build/checkpoints"},
    };
    char *cache = exchange_variable("XDG_CACHE_HOME", NULL),
         *home = exchange_variable("HOME", NULL), path[100];
    for (size_t i = 0; i < COUNT(places); i++) {
        free(exchange_variable("XDG_CACHE_HOME", places[i].cache));
        free(exchange_variable("HOME", places[i].home));
        ck_assert_int_eq(gemma4_generated_dir("/nowhere/golden", path, sizeof path), 0);
        ck_assert_str_eq(path, places[i].expected);
        ck_assert_int_eq(gemma4_generated_dir("/nowhere/golden", path, 12), -1);
    }
    free(exchange_variable("XDG_CACHE_HOME", cache));
    free(exchange_variable("HOME", home));
    free(cache);
    free(home);
}
END_TEST

/* Where it is set, GEMMA4_DATA alone says where the cases are. */
START_TEST(the_environment_says_where_the_cases_are)
{
    char *root = test_fresh_dir(), *data = exchange_variable("GEMMA4_DATA", root);
    ck_assert_ptr_null(gemma4_golden_dir());
    ck_assert_ptr_null(gemma4_cases_dir());
    ck_assert(mkdir(test_join(root, "golden"), 0777) == 0 &&
              mkdir(test_join(root, "golden/cases"), 0777) == 0);
    ck_assert_str_eq(gemma4_golden_dir(), test_join(root, "golden"));
    ck_assert_str_eq(gemma4_cases_dir(), test_join(root, "golden/cases"));
    free(exchange_variable("GEMMA4_DATA", data));
    free(data);
    ck_assert_str_eq(gemma4_golden_dir(), "golden");
}
END_TEST

START_TEST(a_committed_checkpoint_is_found)
{
    char *root = test_fresh_dir();
    static const char *const folders[] = {"cases", "checkpoints", "checkpoints/small"};
    gemma4_error error = {""};
    for (size_t i = 0; i < COUNT(folders); i++)
        ck_assert_int_eq(mkdir(test_join(root, folders[i]), 0777), 0);
    test_write_text(test_join(root, "checkpoints/small/model.safetensors"), "other weights");
    test_write_text(test_join(root, "checkpoints/small/config.json"), "{}");
    test_write_text(test_join(root, "cases/my-case.yaml"), VALID);
    gemma4_case *c = gemma4_case_open(test_join(root, "cases/my-case.yaml"), &error);
    ck_assert_msg(c != NULL, "%s", error.message);
    ck_assert_str_eq(c->checkpoint_dir, test_join(root, "cases/../checkpoints/small"));
    /* and what is there must be what the manifest says */
    ck_assert_int_eq(gemma4_case_provide_checkpoint(c, &error), -1);
    assert_message_contains(&error, "config.json: expected SHA-256 " SHA_B);
    gemma4_case_close(c);
}
END_TEST

/* What an earlier version generated is written anew; what is committed never is (above). */
START_TEST(a_generated_checkpoint_of_an_earlier_version_is_replaced)
{
    static const char *const folders[] = {"golden", "golden/cases", "build", "build/checkpoints",
                                          "build/checkpoints/uneven96"};
    char *root = test_fresh_dir(), *path = test_join(root, "golden/cases/uneven96-prompt.yaml");
    char *directory = test_join(root, "build/checkpoints/uneven96");
    gemma4_error error = {""};
    for (size_t i = 0; i < COUNT(folders); i++)
        ck_assert_int_eq(mkdir(test_join(root, folders[i]), 0777), 0);
    test_write_text(path, test_read("golden/cases/uneven96-prompt.yaml"));
    test_write_text(test_join(directory, "config.json"), "{}");
    test_write_text(test_join(directory, "model.safetensors"), "other weights");
    gemma4_case *c = gemma4_case_open(path, &error);
    ck_assert_msg(c && gemma4_case_provide_checkpoint(c, &error) == 0, "%s", error.message);
    ck_assert_str_eq(test_read(test_join(directory, "config.json")),
                     test_read("golden/checkpoints/uneven96/config.json"));
    /* so is one that lacks the tokenizer */
    ck_assert_int_eq(unlink(test_join(directory, "tokenizer.json")), 0);
    ck_assert_msg(gemma4_case_provide_checkpoint(c, &error) == 0, "%s", error.message);
    ck_assert_uint_gt(strlen(test_read(test_join(directory, "tokenizer.json"))), 1000);
    gemma4_case_close(c);
}
END_TEST

START_TEST(lists_of_remarks_may_be_empty)
{
    gemma4_error error = {""};
    const char *text = test_replace(
        VALID, "flags:\n  - flag: far-positions\n    reason: few engines can\n", "flags: []\n");
    gemma4_case *c =
        open_text(test_replace(text, "  rows: [0, 4]\n  taps: ['*.attn.scores']\n", ""), &error);
    ck_assert_msg(c != NULL, "%s", error.message);
    ck_assert_uint_eq(c->flag_count, 0);
    gemma4_case_close(c);
}
END_TEST

/* --- what is refused: one replacement in VALID ('@' appends), and what the message says --- */

static const struct {
    const char *old, *replacement, *message;
} HOSTILE[] = {
    {"format: gemma4-case\n", "", "format"},
    {"gemma4-case", "gemma4-map", "format: expected gemma4-case, found gemma4-map"},
    {"version: 1", "version: 2", "version"},
    {"version: 1", "version: 0", "version"},
    {"version: 1", "version: \"1\"", "version"},
    {"version: 1\n", "", "version"},
    {"@", "extra: 1\n", "found \"extra\""},
    {"@", "summary: again\n", "summary"}, /* twice */
    {"id: my-case\n", "", "expected the key \"id\""},
    {"id: my-case", "id: My-Case", "id: expected lower-case letters, digits and hyphens"},
    {"id: my-case", "id: ../my-case", "id: expected lower-case"},
    {"id: my-case", "id: \"\"", "id: expected lower-case"},
    {"id: my-case", "id: [my-case]", "id: expected a string, found a sequence"},
    {"summary: A summary\n", "", "\"summary\""},
    {"summary: A summary", "summary:", "summary: expected a string, found null"},
    {"why: >-\n  Two lines\n  of reason.\n", "", "\"why\""},
    {"shows:\n  - first-mistake\n  - second-mistake\n", "", "\"shows\""},
    {"shows:\n  - first-mistake\n  - second-mistake\n", "shows: all\n",
     "shows: expected a sequence"},
    {"  - second-mistake", "  - {a: b}", "shows[1]: expected a string, found a mapping"},
    {"  name: small\n", "", "checkpoint: expected the key \"name\""},
    {"name: small", "name: ../../etc", "checkpoint.name: expected a name of lower-case letters"},
    {"name: small", "name: a/b", "checkpoint.name: expected a name"},
    {"  preset: tiny\n", "", "\"preset\""},
    {"  seed: 9223372036854775807", "  seed: -1", "checkpoint.seed: expected an integer"},
    {"  seed: 9223372036854775807", "  seed: 9223372036854775808",
     "checkpoint.seed: expected an integer"},
    {"  seed: 9223372036854775807", "  seed: 1.5", "checkpoint.seed: expected an integer"},
    {"  sha256: \"" SHA_A, "  sha256: \"" SHA_A "0",
     "checkpoint.sha256: expected a SHA-256 in hexadecimal"},
    {SHA_A, "", "checkpoint.sha256: expected a SHA-256"},
    {"  config_sha256: \"1", "  config_sha256: \"A",
     "checkpoint.config_sha256: expected a SHA-256"},
    {"  config_sha256: \"1", "  config_sha256: \"g",
     "checkpoint.config_sha256: expected a SHA-256"},
    {"  preset: tiny\n", "  preset: tiny\n  layers: 3\n", "found \"layers\""},
    {"tokens: [2, 17", "tokens: [-1, 17", "tokens[0]: expected an integer from 0"},
    {"tokens: [2, 17", "tokens: [2147483648, 17", "tokens[0]: expected an integer"},
    {"tokens: [2, 17", "tokens: [99999999999999999999999, 17", "tokens[0]: expected an integer"},
    {"tokens: [2, 17", "tokens: [2.0, 17", "tokens[0]: expected an integer"},
    {"tokens: [2, 17", "tokens: [two, 17", "tokens[0]: expected an integer"},
    {"tokens: [2, 17, 5, 31, 0]", "tokens: []", "tokens: expected at least one integer"},
    {"tokens: [2, 17, 5, 31, 0]", "tokens: 2", "tokens: expected a sequence"},
    {"tokens: [2, 17, 5, 31, 0]", "tokens: [[2, 17, 5, 31, 0]]", "tokens[0]: expected an integer"},
    {"tokens: [2, 17, 5, 31, 0]", "tokens: [2, 17, 5, 31]",
     "schedule: expected chunk lengths that add up to the number of tokens"},
    {"first_position: 262100", "first_position: -1", "first_position: expected an integer"},
    {"first_position: 262100", "first_position: 2147483648", "first_position: expected an integer"},
    {"schedule: [3, 1, 1]", "schedule: [3, 1]", "schedule: expected chunk lengths that add up"},
    {"schedule: [3, 1, 1]", "schedule: [3, 1, 1, 1]",
     "schedule: expected chunk lengths that add up"},
    {"schedule: [3, 1, 1]", "schedule: [5, 0]", "schedule[1]: expected an integer from 1"},
    {"schedule: [3, 1, 1]", "schedule: [7, -2]", "schedule[1]: expected an integer from 1"},
    {"schedule: [3, 1, 1]", "schedule: []", "schedule: expected at least one integer"},
    {"file: my-case.h5", "file: ../my-case.h5", "golden.file: expected the case's id and .h5"},
    {"file: my-case.h5", "file: my-case.h5/../../x.h5",
     "golden.file: expected the case's id and .h5"},
    {"file: my-case.h5", "file: /etc/passwd", "golden.file: expected the case's id and .h5"},
    {"file: my-case.h5", "file: other.h5", "golden.file: expected the case's id and .h5"},
    {"file: my-case.h5", "file: my-case", "golden.file: expected the case's id and .h5"},
    {"file: my-case.h5", "file: my", "golden.file: expected the case's id and .h5"},
    {"  sha256: \"22", "  sha256: \"zz", "golden.sha256: expected a SHA-256"},
    {"  rows: [0, 4]", "  columns: [0]", "found \"columns\""},
    {"  attention: eager", "  attention: eager\n  device: cpu", "found \"device\""},
    {"  name: transformers\n", "", "oracle: expected the key \"name\""},
    {"  version: 5.23.0", "  version: [5]", "oracle.version: expected a string"},
    {"decisions: 60", "decisions: 0", "routing.decisions: expected an integer from 1"},
    {"decisions: 60", "decisions: many", "routing.decisions: expected an integer"},
    {"smallest_gap: 0.00131", "smallest_gap: .nan", "routing.smallest_gap: expected a number"},
    {"smallest_gap: 0.00131", "smallest_gap: -0.1", "routing.smallest_gap: expected a number"},
    {"  smallest_gap: 0.00131\n", "", "\"smallest_gap\""},
    {"value: 3.0e-5", "value: .nan", "tolerances[1].value: expected a number"},
    {"value: 3.0e-5", "value: nan", "tolerances[1].value: expected a number"},
    {"value: 3.0e-5", "value: .inf", "tolerances[1].value: expected a number"},
    {"value: 3.0e-5", "value: -1e-5", "tolerances[1].value: expected a number from 0 to 1"},
    {"value: 3.0e-5", "value: 1.5", "tolerances[1].value: expected a number from 0 to 1"},
    {"value: 3.0e-5", "value: \"3.0e-5\"", "tolerances[1].value: expected a number"},
    {"    from: another\n", "", "tolerances[1]: expected the key \"from\""},
    {"    from: another", "    from: another\n    unit: none", "found \"unit\""},
    {"metric: position_rms", "metric: cosine",
     "tolerances[2].metric: expected relative_rms or position_rms"},
    {"metric: position_rms", "metric: relative_rm",
     "tolerances[2].metric: expected relative_rms or position_rms"},
    {"  - flag: far-positions\n    reason: few engines can\n", "  - far-positions\n", "flags[0]"},
    {"    reason: few engines can\n", "", "flags[0]: expected the key \"reason\""},
    {"    reason: few engines can", "    reason: few engines can\n    until: 2027",
     "found \"until\""},
    {"tokens: [2, 17", "tokens: [&a 2, *a", ""},            /* anchors and aliases */
    {"summary: A summary", "summary: !!str A summary", ""}, /* tags */
    {"@", "---\nformat: gemma4-case\n", ""},                /* a second document */
    {"tokens: [2, 17", "tokens: [2, 17]]", ""},
    {"tokens: [2", "tokens: [{a: [{b: [[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]}]}", ""},
    {"summary: A summary", "summary: \"A \\0 summary\"", ""},
    {"version: 1", "\tversion: 1", ""},
};

START_TEST(hostile_manifests_are_refused)
{
    gemma4_error error = {""};
    gemma4_case *c =
        open_text(test_replace(VALID, HOSTILE[_i].old, HOSTILE[_i].replacement), &error);
    ck_assert_msg(c == NULL, "row %d was accepted: %s", _i, HOSTILE[_i].replacement);
    assert_message_contains(&error, "my-case.yaml");
    assert_message_contains(&error, HOSTILE[_i].message);
}
END_TEST

static const char *const NO_MANIFESTS[] = {
    "",     "\n",    "# nothing\n",       "just text\n",    "[1, 2]\n",
    "{}\n", "---\n", "\x89HDF\r\n\x1a\n", "{\"format\": 1}"};

START_TEST(other_files_are_refused)
{
    gemma4_error error = {""};
    ck_assert_ptr_null(open_text(NO_MANIFESTS[_i], &error));
    assert_message_contains(&error, "my-case.yaml");
}
END_TEST

START_TEST(deep_nesting_is_refused)
{
    gemma4_error error = {""};
    char nested[2200] = "summary: ";
    memset(nested + 9, '[', 1000);
    memset(nested + 1009, ']', 1000);
    nested[2009] = '\0';
    ck_assert_ptr_null(open_text(test_replace(VALID, "summary: A summary", nested), &error));
    assert_message_contains(&error, "expected nesting of at most 16 levels");
}
END_TEST

/* Nine lists of nine aliases each of the one before would be 9^9 nodes. */
START_TEST(an_alias_bomb_is_refused)
{
    gemma4_error error = {""};
    char bomb[2000] = "a0: &a0 [x]\n";
    for (int i = 1; i < 10; i++) {
        char line[120];
        snprintf(line, sizeof line,
                 "a%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d]\n", i, i, i - 1,
                 i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1);
        strcat(bomb, line);
    }
    ck_assert_ptr_null(open_text(bomb, &error));
    assert_message_contains(&error, "anchor");
}
END_TEST

/* --- finding cases --- */

static const struct {
    const char *where, *message;
} NOWHERE[] = {
    {"no-such-case", "case 'no-such-case': expected a manifest's path, or the id of one"},
    {"", "case '': expected a manifest's path"},
    {"UPPER", "case 'UPPER': expected a manifest's path"},
    {"a\nb", "case 'a?b'"},
    {"./none.yaml", "./none.yaml: "},
    {"/", "/: "},
    {"/dev/null", "/dev/null: expected a regular file"},
};

START_TEST(what_is_not_there_is_refused)
{
    gemma4_error error = {""};
    ck_assert_ptr_null(gemma4_case_open(NOWHERE[_i].where, &error));
    assert_message_contains(&error, NOWHERE[_i].message);
}
END_TEST

START_TEST(ids_are_sorted_and_open)
{
    gemma4_error error = {""};
    char **ids;
    size_t count;
    ck_assert_msg(gemma4_case_ids(&ids, &count, &error) == 0, "%s", error.message);
    ck_assert_msg(count > 0, "there is no case in %s", gemma4_cases_dir());
    for (size_t i = 0; i < count; i++) {
        gemma4_case *c = gemma4_case_open(ids[i], &error);
        ck_assert_msg(c != NULL, "%s", error.message);
        ck_assert_str_eq(c->id, ids[i]);
        ck_assert(i == 0 || strcmp(ids[i - 1], ids[i]) < 0);
        gemma4_case_close(c);
    }
    gemma4_case_ids_free(ids, count);
}
END_TEST

/* --- tolerances --- */

static const struct {
    const char *dtype, *tap;
    gemma4_metric_kind metric;
    double value; /* 0: no row */
} TOLERANCES[] = {
    {"float32", "embed", GEMMA4_METRIC_RELATIVE_RMS, 2e-5},
    /* the last row that matches */
    {"float32", "layers.5.attn.q_rope", GEMMA4_METRIC_RELATIVE_RMS, 3e-5},
    {"float32", "layers.11.mlp.act", GEMMA4_METRIC_RELATIVE_RMS, 2e-5},
    {"float32", "layers.5.attn.q_rope", GEMMA4_METRIC_POSITION_RMS, 6e-5},
    {"bfloat16", "embed", GEMMA4_METRIC_RELATIVE_RMS, 0},
    {"Float32", "embed", GEMMA4_METRIC_RELATIVE_RMS, 0},
    {"float", "embed", GEMMA4_METRIC_RELATIVE_RMS, 0},
    {"", "embed", GEMMA4_METRIC_POSITION_RMS, 0},
    {"*", "embed", GEMMA4_METRIC_POSITION_RMS, 0},
};

START_TEST(the_last_matching_tolerance_decides)
{
    gemma4_case *c = open_valid();
    const gemma4_tolerance_row *row =
        gemma4_case_tolerance(c, TOLERANCES[_i].dtype, TOLERANCES[_i].tap, TOLERANCES[_i].metric);
    ck_assert_int_eq(row != NULL, TOLERANCES[_i].value != 0);
    if (row != NULL)
        ck_assert_double_eq(row->value, TOLERANCES[_i].value);
    gemma4_case_close(c);
}
END_TEST

/* A general row after a special one hides it. */
START_TEST(order_matters_not_precision)
{
    gemma4_error error = {""};
    gemma4_case *c =
        open_text(test_replace(VALID, "metric: position_rms", "metric: relative_rms"), &error);
    ck_assert_msg(c != NULL, "%s", error.message);
    ck_assert_double_eq(
        gemma4_case_tolerance(c, "float32", "layers.0.attn.q", GEMMA4_METRIC_RELATIVE_RMS)->value,
        6e-5);
    ck_assert_ptr_null(
        gemma4_case_tolerance(c, "float32", "layers.0.attn.q", GEMMA4_METRIC_POSITION_RMS));
    gemma4_case_close(c);
}
END_TEST

Suite *case_suite(void)
{
    Suite *suite = suite_create("case");
    TCase *valid = tcase_create("valid"), *hostile = tcase_create("hostile"),
          *tolerances = tcase_create("tolerances");
    tcase_add_test(valid, every_text_is_read);
    tcase_add_test(valid, every_number_is_read);
    tcase_add_test(valid, paths_are_relative_to_the_manifest);
    tcase_add_test(valid, a_committed_checkpoint_is_found);
    tcase_add_test(valid, an_installed_case_s_checkpoint_is_generated_in_the_cache);
    tcase_add_test(valid, the_environment_says_where_the_cases_are);
    tcase_add_test(valid, a_generated_checkpoint_of_an_earlier_version_is_replaced);
    tcase_add_test(valid, lists_of_remarks_may_be_empty);
    tcase_add_test(valid, ids_are_sorted_and_open);
    tcase_add_loop_test(hostile, hostile_manifests_are_refused, 0, COUNT(HOSTILE));
    tcase_add_loop_test(hostile, other_files_are_refused, 0, COUNT(NO_MANIFESTS));
    tcase_add_test(hostile, deep_nesting_is_refused);
    tcase_add_test(hostile, an_alias_bomb_is_refused);
    tcase_add_loop_test(hostile, what_is_not_there_is_refused, 0, COUNT(NOWHERE));
    tcase_add_loop_test(tolerances, the_last_matching_tolerance_decides, 0, COUNT(TOLERANCES));
    tcase_add_test(tolerances, order_matters_not_precision);
    suite_add_tcase(suite, valid);
    suite_add_tcase(suite, hostile);
    suite_add_tcase(suite, tolerances);
    return suite;
}
