/* What README.md and spec/ quote: names of taps, weights and parameters, names in the code, what a
 * program prints, numbers that follow from a config. Each is looked up where it comes from. Read
 * from the current directory, which must be the repository's. */
#include "counter_model.h"
#include "facts.h"
#include "map.h"
#include "model.h"
#include "report.h"
#include "reports.h"
#include "space.h"
#include "suites.h"
#include "support.h"

#include <ctype.h>
#include <fnmatch.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>

static bool is_of_name(char c)
{
    return c != '\0' && (isalnum((unsigned char)c) || strchr("_.*{}\\", c));
}

/* Calls check for every word of the page that begins with one of these, and returns how many it
 * was. A word is what a name may be made of, without a full stop after it. */
static size_t each_word(const char *page, const char *const starts[],
                        void (*check)(const char *page, const char *word))
{
    size_t count = 0;
    for (const char *at = test_read(page); *at;) {
        char word[128];
        size_t length = 0;
        while (is_of_name(at[length]))
            length++;
        size_t end = length;
        if (end > 3 && !strncmp(at + end - 2, "**", 2)) /* of bold type */
            end -= 2;
        while (end > 0 && at[end - 1] == '.')
            end--;
        for (size_t i = 0; starts[i] && end > 0 && end < sizeof word; i++)
            if (!strncmp(at, starts[i], strlen(starts[i]))) {
                size_t n = 0;
                for (size_t k = 0; k < end; k++) /* "router.\*" */
                    if (at[k] != '\\')
                        word[n++] = at[k];
                word[n] = '\0';
                check(page, word);
                count++;
                break;
            }
        at += length ? length : 1;
    }
    return count;
}

/* --- taps, weights, parameters --- */

/* "layers.5.attn.q" without its layer; "*" of "layers.*". */
static const char *without_layer(const char *word)
{
    if (strncmp(word, "layers.", 7) != 0)
        return word;
    const char *point = strchr(word + 7, '.');
    return point ? point + 1 : word + 7;
}

static bool is_tap(const char *name)
{
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        if (fnmatch(name, gemma4_tap_describe((gemma4_tap)tap)->name, 0) == 0)
            return true;
    return false;
}

/* "mlp.gate_proj", or with ".weight" after it: does a layer of the small checkpoint have it? */
static bool is_weight(const char *name)
{
    static gemma4_model *model;
    gemma4_error error = {""};
    size_t count;
    bool found = false;
    if (!model)
        model = gemma4_model_open("golden/checkpoints/tiny", &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    test_tensor *tensors = test_tensors(&model->config, "", 0, &count);
    for (size_t i = 0; i < count && !found; i++) {
        const char *own = without_layer(tensors[i].name);
        size_t length = strlen(name);
        found = !strncmp(own, name, length) &&
                (own[length] == '\0' || !strcmp(own + length, ".weight"));
    }
    free(tensors);
    return found;
}

static bool is_parameter(const char *name)
{
    for (int i = 0; i < GEMMA4_PARAMETER_COUNT; i++)
        if (!strcmp(gemma4_parameter_describe((gemma4_parameter)i)->name, name))
            return true;
    return false;
}

static void check_tensor(const char *page, const char *word)
{
    const char *name = without_layer(word);
    /* "the router. It": no name; "layers.{N}": of no tensor. */
    if (!strchr(word, '.') || !strcmp(name, "N") || !strcmp(name, "{N}") || !strcmp(name, "{last}"))
        return;
    ck_assert_msg(is_tap(name) || is_weight(name) || is_parameter(name),
                  "%s: %s is neither a tap, nor a weight, nor a parameter of spec/space.md", page,
                  word);
}

START_TEST(every_tensor_that_a_page_names_exists)
{
    static const char *const starts[] = {"attn.", "mlp.",    "router.", "moe.",
                                         "ffn.",  "layers.", NULL};
    size_t count = 0;
    for (size_t i = 0; i < test_pages.gl_pathc; i++)
        if (!test_is_generated(test_pages.gl_pathv[i]))
            count += each_word(test_pages.gl_pathv[i], starts, check_tensor);
    ck_assert_uint_gt(count, 300);
}
END_TEST

/* What the test above must see. */
START_TEST(names_are_told_from_wrong_ones)
{
    static const char *const right[] = {"attn.q_rope", "router.topk_ids", "attn.*", "ffn.sum"};
    static const char *const wrong[] = {"attn.q_rotated", "router.topk", "attn", "ffn.total", ""};
    for (size_t i = 0; i < sizeof right / sizeof *right; i++)
        ck_assert_msg(is_tap(right[i]), "%s", right[i]);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        ck_assert_msg(!is_tap(wrong[i]) && !is_weight(wrong[i]) && !is_parameter(wrong[i]), "%s",
                      wrong[i]);
    ck_assert(is_weight("mlp.down_proj") && is_weight("router.scale") && !is_weight("mlp.down"));
    ck_assert(is_parameter("attn.scale") && !is_parameter("attn.scales"));
}
END_TEST

/* --- names in the code --- */

static glob_t sources;

static bool in_sources(const char *word)
{
    size_t length = strlen(word);
    for (size_t i = 0; i < sources.gl_pathc; i++)
        for (const char *text = test_read(sources.gl_pathv[i]), *at = text;
             (at = strstr(at, word)) != NULL; at++)
            if ((at == text || !(isalnum((unsigned char)at[-1]) || at[-1] == '_')) &&
                !(isalnum((unsigned char)at[length]) || at[length] == '_'))
                return true;
    return false;
}

static void check_identifier(const char *page, const char *word)
{
    char path[160];
    snprintf(path, sizeof path, "golden/engines/%s", word);
    FILE *file = fopen(path, "r"); /* gemma4_dump.h */
    if (file)
        fclose(file);
    ck_assert_msg(file || in_sources(word), "%s: %s is not in the sources", page, word);
}

START_TEST(every_name_of_the_code_that_a_page_has_exists)
{
    static const char *const starts[] = {"gemma4_", "GEMMA4_", NULL};
    size_t count = 0;
    ck_assert_int_eq(glob("ref/*.[ch]", 0, NULL, &sources), 0);
    ck_assert_int_eq(glob("tests/check/*.[ch]", GLOB_APPEND, NULL, &sources), 0);
    ck_assert_int_eq(glob("golden/engines/*.h", GLOB_APPEND, NULL, &sources), 0);
    ck_assert_int_eq(glob("Makefile", GLOB_APPEND, NULL, &sources), 0);
    for (size_t i = 0; i < test_pages.gl_pathc; i++)
        if (!test_is_generated(test_pages.gl_pathv[i]))
            count += each_word(test_pages.gl_pathv[i], starts, check_identifier);
    ck_assert(!in_sources("gemma4_forwar") && !in_sources("gemma4_forwards"));
    globfree(&sources);
    ck_assert_uint_gt(count, 10);
}
END_TEST

/* --- what programs print --- */

/* The indented lines after a line of a page, as one text without their indent. */
static char *block_behind(const char *page, const char *line)
{
    const char *at = strstr(test_read(page), line);
    ck_assert_msg(at != NULL, "%s: no line \"%s\"", page, line);
    at = strstr(at, "\n    ");
    ck_assert_ptr_nonnull(at);
    char *text = calloc(strlen(at) + 1, 1);
    ck_assert_ptr_nonnull(text);
    for (at++; !strncmp(at, "    ", 4) || *at == '\n'; at += *at == '\n') {
        at += *at == '\n' ? 0 : 4;
        size_t length = strcspn(at, "\n");
        strncat(text, at, length);
        strcat(text, "\n");
        at += length;
    }
    for (size_t n = strlen(text); n > 1 && text[n - 2] == '\n'; n--)
        text[n - 1] = '\0';
    return text;
}

START_TEST(the_readme_s_report_is_what_is_printed)
{
    static const char dump[] = "golden/dumps/tiny-prompt-rope-pairing-contiguous.h5";
    test_judged j = test_judge_dump("tiny-prompt", dump, "float32");
    char *printed = test_printed(gemma4_report_text, &j.report);
    char *quoted = block_behind("README.md", "\nA port with a fault reads:\n");
    ck_assert_uint_gt(strlen(quoted), 500);
    const char *from = strstr(printed, "First divergence: ");
    ck_assert_ptr_nonnull(from);
    ck_assert_msg(!strcmp(from, quoted), "README.md: expected\n%s\nfound\n%s", from, quoted);
    free(quoted);
    free(printed);
    test_judged_free(&j);
}
END_TEST

/* What README's Python writes are tensors of an activation file (make golden-verify runs it). */
START_TEST(the_readme_s_python_writes_taps)
{
    const char *at = strstr(test_read("README.md"), "```python\n"), *end;
    size_t count = 0;
    ck_assert_ptr_nonnull(at);
    end = strstr(at + 3, "\n```");
    ck_assert_ptr_nonnull(end);
    for (; (at = strstr(at, "    f[")) != NULL && at < end; count++) {
        char path[80];
        gemma4_tap tap;
        size_t layer, n = 0;
        at += strcspn(at, "\"") + 1;
        for (const char *c = at; *c != '"' && *c != '\n' && n + 1 < sizeof path; c++)
            if (*c == '{') { /* a layer's number */
                path[n++] = '0';
                c += strcspn(c, "}\n");
            } else {
                path[n++] = *c == '/' ? '.' : *c;
            }
        path[n] = '\0';
        ck_assert_msg(strcmp(path, "tokens") == 0 || gemma4_tap_parse(path, &tap, &layer),
                      "README.md: the Python writes %s, which is no tap", path);
    }
    ck_assert_uint_eq(count, 3);
}
END_TEST

/* spec/maps.md's example of a map is one. */
START_TEST(the_page_s_map_is_read)
{
    gemma4_error error = {""};
    const char *at = strstr(test_read("spec/maps.md"), "```yaml\n");
    ck_assert_ptr_nonnull(at);
    at += strlen("```yaml\n");
    const char *end = strstr(at, "```");
    ck_assert_ptr_nonnull(end);
    char *path = test_path("page.yaml");
    test_write(path, at, (size_t)(end - at));
    gemma4_map *map = gemma4_map_read(path, &error);
    ck_assert_msg(map != NULL, "spec/maps.md: %s", error.message);
    gemma4_map_free(map);
}
END_TEST

/* --- numbers that follow from a config --- */

static void expect_text(const char *page, const char *text)
{
    ck_assert_msg(strstr(test_read(page), text) != NULL, "%s: expected \"%s\"", page, text);
}

/* "25,233,141,790" */
static const char *with_commas(uint64_t n, char text[40])
{
    char digits[32];
    size_t length = (size_t)snprintf(digits, sizeof digits, "%llu", (unsigned long long)n), k = 0;
    for (size_t i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            text[k++] = ',';
        text[k++] = digits[i];
    }
    text[k] = '\0';
    return text;
}

START_TEST(the_model_s_dimensions_are_computed)
{
    gemma4_config c;
    gemma4_error error = {""};
    char text[512], total[40], active[40];
    ck_assert_msg(gemma4_published_config(&c, &error) == 0, "%s", error.message);
    gemma4_facts facts = gemma4_facts_of(&c);
    const gemma4_layer_config *sliding = &c.layers[0], *full = &c.layers[5];
    const struct {
        const char *key;
        size_t value;
    } rows[] = {{"hidden_size", c.hidden_size},
                {"num_hidden_layers", c.num_hidden_layers},
                {"num_attention_heads", c.num_attention_heads},
                {"sliding_window", c.sliding_window},
                {"intermediate_size", c.intermediate_size},
                {"vocab_size", c.vocab_size},
                {"max_position_embeddings", c.max_position_embeddings},
                {"final_logit_softcapping", (size_t)c.final_logit_softcapping}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(text, sizeof text, "\n| %s | %zu", rows[i].key, rows[i].value);
        expect_text("spec/model.md", text);
    }
    snprintf(text, sizeof text, "\n| num_key_value_heads, head_dim | %zu, %zu on sliding layers |",
             sliding->num_key_value_heads, sliding->head_dim);
    expect_text("spec/model.md", text);
    snprintf(text, sizeof text,
             "\n| num_global_key_value_heads, global_head_dim | %zu, %zu on full layers |",
             full->num_key_value_heads, full->head_dim);
    expect_text("spec/model.md", text);
    snprintf(text, sizeof text, "moe_intermediate_size | %zu, %zu, %zu |", c.num_experts,
             c.top_k_experts, c.moe_intermediate_size);
    expect_text("spec/model.md", text);
    snprintf(text, sizeof text,
             "\n%s parameters, of which %s work on one token. %zu sliding and %zu full layers. A "
             "token takes %zu KiB",
             with_commas(facts.total_parameters, total),
             with_commas(facts.active_parameters, active), facts.sliding_layers, facts.full_layers,
             (size_t)(facts.kv_values_rebuilt * 2 / 1024));
    expect_text("spec/model.md", text);
    snprintf(text, sizeof text, " %zu KiB if they keep both.",
             (size_t)(facts.kv_values_apart * 2 / 1024));
    expect_text("spec/model.md", text);
    snprintf(text, sizeof text, "(%zu of %zu), theta = 1,000,000;", full->rope_pairs,
             full->head_dim / 2);
    expect_text("spec/model.md", text);
    ck_assert(full->rope_theta == 1e6 && sliding->rope_theta == 1e4);
    snprintf(text, sizeof text, "lanes are 0 ... %zu and %zu ...", full->rope_pairs - 1,
             full->head_dim / 2);
    expect_text("spec/model.md", text);
    gemma4_config_free(&c);
}
END_TEST

/* The last column of the table: what a config.json without the keys is read as. */
START_TEST(the_defaults_of_absent_keys_are_those_of_the_table)
{
    static const char least[] =
        "{\"model_type\": \"gemma4_text\", \"enable_moe_block\": true, "
        "\"hidden_size_per_layer_input\": 0,"
        " \"num_experts\": 16, \"top_k_experts\": 4, \"moe_intermediate_size\": 32}";
    gemma4_config c;
    gemma4_error error = {""};
    char *path = test_path("config.json"), text[512];
    test_write_text(path, least);
    ck_assert_msg(gemma4_config_read(path, &c, &error) == 0, "%s", error.message);
    const gemma4_layer_config *sliding = &c.layers[0], *full = &c.layers[5];
    ck_assert(sliding->kind == GEMMA4_SLIDING && full->kind == GEMMA4_FULL && !full->v_is_k);
    ck_assert(c.final_logit_softcapping == 0 && c.rms_norm_eps == 1e-6);
    ck_assert_uint_eq(full->num_key_value_heads, sliding->num_key_value_heads);
    const struct {
        const char *key;
        size_t value;
    } rows[] = {{"hidden_size | 2816 | d |", c.hidden_size},
                {"num_hidden_layers | 30 | |", c.num_hidden_layers},
                {"num_attention_heads | 16, in every layer | H |", c.num_attention_heads},
                {"sliding_window | 1024 positions, the query's own included | |", c.sliding_window},
                {"intermediate_size | 2112 | F |", c.intermediate_size},
                {"vocab_size | 262144; the embedding is also the LM head | V |", c.vocab_size},
                {"max_position_embeddings | 262144 | |", c.max_position_embeddings}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(text, sizeof text, "\n| %s %zu |", rows[i].key, rows[i].value);
        expect_text("spec/model.md", text);
    }
    snprintf(text, sizeof text, " on sliding layers | G, D | %zu, %zu |",
             sliding->num_key_value_heads, sliding->head_dim);
    expect_text("spec/model.md", text);
    snprintf(text, sizeof text, " on full layers | G, D | num_key_value_heads, %zu |",
             full->head_dim);
    expect_text("spec/model.md", text);
    gemma4_config_free(&c);
    for (int i = 0; i < 3; i++) { /* which the table says are refused */
        static const char *const needed[] = {"num_experts", "top_k_experts",
                                             "moe_intermediate_size"};
        test_write_text(path, test_replace(least, needed[i], "_"));
        ck_assert_msg(gemma4_config_read(path, &c, &error) != 0, "%s", needed[i]);
        assert_message_contains(&error, needed[i]);
    }
}
END_TEST

START_TEST(the_small_checkpoint_is_as_described)
{
    char text[256];
    gemma4_error error = {""};
    gemma4_model *model = gemma4_model_open("golden/checkpoints/tiny", &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    const gemma4_config *c = &model->config;
    const gemma4_layer_config *sliding = &c->layers[0], *full = &c->layers[5];
    snprintf(text, sizeof text, "has %zu layers, %zu experts and\na window of %zu,",
             c->num_hidden_layers, c->num_experts, c->sliding_window);
    expect_text("README.md", text);
    snprintf(text, sizeof text, "d = %zu, H = %zu query heads;", c->hidden_size,
             c->num_attention_heads);
    expect_text("spec/walkthrough.md", text);
    snprintf(text, sizeof text,
             "G = %zu KV heads with D = %zu lanes, on full layers G = %zu with D = %zu;",
             sliding->num_key_value_heads, sliding->head_dim, full->num_key_value_heads,
             full->head_dim);
    expect_text("spec/walkthrough.md", text);
    snprintf(text, sizeof text,
             "\nF = %zu, E = %zu experts of which K = %zu are chosen, M = %zu, V = %zu.",
             c->intermediate_size, c->num_experts, c->top_k_experts, c->moe_intermediate_size,
             c->vocab_size);
    expect_text("spec/walkthrough.md", text);
    gemma4_model_close(model);
}
END_TEST

Suite *quotes_suite(void)
{
    Suite *suite = suite_create("quotes");
    TCase *c = tcase_create("all");
    tcase_add_unchecked_fixture(c, test_find_pages, test_free_pages);
    tcase_set_timeout(c, 60);
    tcase_add_test(c, every_tensor_that_a_page_names_exists);
    tcase_add_test(c, names_are_told_from_wrong_ones);
    tcase_add_test(c, every_name_of_the_code_that_a_page_has_exists);
    tcase_add_test(c, the_readme_s_python_writes_taps);
    tcase_add_test(c, the_page_s_map_is_read);
    tcase_add_test(c, the_model_s_dimensions_are_computed);
    tcase_add_test(c, the_defaults_of_absent_keys_are_those_of_the_table);
    tcase_add_test(c, the_small_checkpoint_is_as_described);
    suite_add_tcase(suite, c);
    TCase *report = tcase_create("report");
    tcase_set_timeout(report, 60);
    tcase_add_test(report, the_readme_s_report_is_what_is_printed);
    suite_add_tcase(suite, report);
    return suite;
}
