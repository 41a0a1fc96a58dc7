/* The reader of maps (spec/maps.md): what it takes, and what it refuses in one line. */
#include "manifest.h"
#include "map.h"
#include "maps.h"
#include "suites.h"
#include "support.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define HEAD "format: gemma4-map\nversion: 1\nengine: mine\n"

static gemma4_map *read_text(const char *text, gemma4_error *error)
{
    const char *path = test_join(test_fresh_dir(), "mine.yaml");
    test_write_text(path, text);
    return gemma4_map_read(path, error);
}

START_TEST(the_contracts_example_is_read)
{
    gemma4_error error = {""};
    gemma4_map *map = read_text("format: gemma4-map\nversion: 1\nengine: llama.cpp\ntaps:\n  "
                                "layers.{N}.attn.q: {from: 'Qcur-{N}', axes: 'd h t', "
                                "slice: {h: [0, 16]}, layers: [0, 1], scale: 1.0}\n",
                                &error);
    ck_assert_msg(map != NULL, "%s", error.message);
    ck_assert_uint_eq(map->rule_count, 1);
    const gemma4_map_rule *rule = &map->rules[0];
    ck_assert_int_eq(rule->tap, GEMMA4_TAP_ATTN_Q);
    ck_assert_int_eq(rule->where, GEMMA4_MAP_EACH);
    ck_assert_uint_eq(rule->axis_count, 3);
    ck_assert_str_eq(rule->axes[1].letters, "h");
    ck_assert_int_eq(rule->axes[1].cut, GEMMA4_MAP_SLICE);
    ck_assert_int_eq((int)rule->axes[1].end.number, 16);
    ck_assert_uint_eq(rule->layer_count, 2);
    ck_assert(rule->scale == 0); /* 1 does nothing */
    ck_assert_str_eq(gemma4_rule_text(rule).text,
                     "Qcur-{N}, axes d h t, slice h [0, 16], layers 0 1");
    gemma4_map_free(map);
}
END_TEST

START_TEST(rules_of_every_kind_are_read)
{
    gemma4_error error = {""};
    gemma4_map *map = read_text(
        HEAD "dtype: float32\nseen: mine 1.0\nignore: ['*.junk']\ntaps:\n"
             "  tokens: {from: ids, axes: '1 t'}\n"
             "  layers.{N}.output: [{from: 'h.{N+1}', layers: all but last}, {from: 'all', axes: "
             "'t n d', layers: sliding}]\n"
             "  layers.{last}.output: {from: 'norm_in'}\n"
             "  layers.3.attn.k: {from: kv, axes: 'b t g d', slice: {b: 0}, dtype: bfloat16}\n"
             "  layers.{N}.attn.q: {from: 'qkv.{N}', split: [attn.q, attn.k, attn.v]}\n"
             "  layers.{N}.attn.probs: {from: 'p{N}', axes: 'H T T', scale: 0.5}\n"
             "  logits: {from: 'logits', axes: 't v', slice: {v: [0, V]}, rows: last}\n",
        &error);
    ck_assert_msg(map != NULL, "%s", error.message);
    ck_assert_uint_eq(map->rule_count, 8);
    ck_assert_str_eq(map->rules[6].axes[2].letters, "s"); /* the second t: the keys */
    ck_assert_str_eq(gemma4_rule_text(&map->rules[7]).text,
                     "logits, axes t v, slice v [0, v], last rows");
    ck_assert_str_eq(gemma4_rule_text(&map->rules[4]).text,
                     "kv, axes b t g d, entry b 0, read as bfloat16");
    gemma4_map_free(map);
}
END_TEST

/* What stands after the head, and what the message says. */
static const struct {
    const char *text, *expected;
} REFUSED[] = {
    {"taps: {embed: {from: e, colour: red}}", "expected only the keys from, axes, slice, split, "
                                              "layers, rows, scale, dtype, found \"colour\""},
    {"colour: red\ntaps: {embed: {from: e}}", "found \"colour\""},
    {"taps: {}", "at least one rule"},
    {"taps: {embed: {axes: 't d'}}", "expected the key \"from\", found none"},
    {"taps:\n  layers.{N}.attn.qrope: {from: 'e{N}'}",
     "expected a tap's name (spec/taps.md), layers.{N} before those of layers, found "
     "'layers.{N}.attn.qrope': did you mean layers.0.attn.q_rope?"},
    {"taps:\n  layers.{N}.output: {from: e}",
     "expected {N} for the layer, or an axis n of layers, found e"},
    {"taps:\n  embed: {from: 'e{N}'}",
     "expected no {N} in a rule that is for one layer or for none"},
    {"taps:\n  layers.{N}.output: {from: 'e{N*2}'}", "expected {N}, {N+1} or {N-1} for the layer"},
    {"taps:\n  embed: {from: e}\n  embed: {from: f}", "embed"},
    {"taps:\n  embed: [{from: e}, {from: e}]", "a tensor that no other rule of this tap takes"},
    {"taps:\n  embed: {from: e, axes: 't'}",
     "every axis of the tap once (the tap's axes are 'td')"},
    {"taps:\n  embed: {from: e, axes: 't d d'}", "every axis of the tap once"},
    {"taps:\n  embed: {from: e, axes: 't d h'}",
     "an axis that the tap does not have to be picked by slice"},
    {"taps:\n  embed: {from: e, axes: 'd.t'}", "the position as the first letter of its axis"},
    {"taps:\n  embed: {from: e, axes: 't n d'}", "a layers' axis only in a rule for each layer"},
    {"taps:\n  embed: {from: e, axes: 't-d'}", "a letter, letters joined by '.'"},
    {"taps:\n  embed: {from: e, axes: ''}", "at least one axis"},
    {"taps:\n  embed: {from: e, slice: {d: [0, 4]}}", "axes beside a slice"},
    {"taps:\n  embed: {from: e, axes: 't d', slice: {h: [0, 4]}}",
     "a slice of an axis that axes names"},
    {"taps:\n  embed: {from: e, axes: 't d', slice: {d: 4}}", "two bounds"},
    {"taps:\n  embed: {from: e, axes: 't d', slice: {d: [0, 4, 8]}}", "two bounds"},
    {"taps:\n  embed: {from: e, axes: 't d', slice: {d: [0, h]}}",
     "a number, or a letter of the tap's axes"},
    {"taps:\n  embed: {from: e, layers: [0]}", "layers only beside {N}"},
    {"taps:\n  layers.{N}.output: {from: 'e{N}', layers: even}",
     "sliding, full, 'all but last', or a list of layers"},
    {"taps:\n  layers.{N}.output: {from: 'e{N}', layers: [1, 1]}", "every layer once"},
    {"taps:\n  embed: {from: e, scale: 0}", "a factor other than 0"},
    {"taps:\n  tokens: {from: e, scale: 2}", "a factor of reals only"},
    {"taps:\n  layers.{N}.router.topk_ids: {from: 'e{N}', scale: 2}", "a factor of reals only"},
    {"taps:\n  embed: {from: e, rows: first}", "last, or a list of positions"},
    {"taps:\n  tokens: {from: e, rows: last}", "rows only for taps"},
    {"taps:\n  layers.{N}.attn.q: {from: 'e{N}', split: [attn.k, attn.v]}",
     "the rule's own tap among them"},
    {"taps:\n  layers.{N}.attn.q: {from: 'e{N}', split: [attn.q, attn.z]}",
     "the name of a layer's tap"},
    {"taps:\n  layers.{N}.attn.q: {from: 'e{N}', split: [attn.q, attn.q]}", "every tap once"},
    {"taps:\n  layers.{N}.attn.q: {from: 'e{N}', axes: 't h d', split: [attn.q, attn.k]}",
     "an axis of all that the tap has"},
    {"taps:\n  embed: {from: e, dtype: int8}",
     "bfloat16: other types say themselves what they are"},
    {"taps:\n  embed: e", "a mapping"},
    {"ignore: all\ntaps:\n  embed: {from: e}", "a list of patterns"},
};

START_TEST(a_map_with_a_mistake_is_refused)
{
    gemma4_error error = {""};
    char text[1024];
    snprintf(text, sizeof text, HEAD "%s\n", REFUSED[_i].text);
    gemma4_map *map = read_text(text, &error);
    ck_assert_msg(map == NULL, "%s", REFUSED[_i].text);
    assert_message_contains(&error, "mine.yaml");
    assert_message_contains(&error, REFUSED[_i].expected);
}
END_TEST

START_TEST(another_format_and_version_are_refused)
{
    gemma4_error error = {""};
    ck_assert_ptr_null(read_text(
        "format: gemma4-case\nversion: 1\nengine: x\ntaps: {embed: {from: e}}\n", &error));
    assert_message_contains(&error, "expected gemma4-map");
    ck_assert_ptr_null(
        read_text("format: gemma4-map\nversion: 2\nengine: x\ntaps: {embed: {from: e}}\n", &error));
    assert_message_contains(&error, "version");
    ck_assert_ptr_null(
        read_text("format: gemma4-map\nversion: 1\ntaps: {embed: {from: e}}\n", &error));
    assert_message_contains(&error, "engine");
}
END_TEST

/* --- patterns --- */

static const struct {
    const char *pattern, *name;
    bool matches;
} PATTERNS[] = {
    {"a", "a", true},
    {"a", "ab", false},
    {"*", "", true},
    {"*", "anything", true},
    {"a*c", "abc", true},
    {"a*c", "ac", true},
    {"a*c", "abcd", false},
    {"*.q", "x.y.q", true},
    {"*.q", "x.q.k", false},
    {"*a*b*", "xxaxxbxx", true},
    {"*a*b*", "xxbxxaxx", false},
    {"[ab]", "a", false},
};

START_TEST(only_the_star_has_a_meaning_in_a_pattern)
{
    ck_assert_msg(gemma4_pattern_matches(PATTERNS[_i].pattern, PATTERNS[_i].name) ==
                      PATTERNS[_i].matches,
                  "%s %s", PATTERNS[_i].pattern, PATTERNS[_i].name);
}
END_TEST

START_TEST(a_layers_number_is_matched_whole)
{
    size_t layer = 99;
    gemma4_map_rule rule = {.from = "*layers.{N+1}.x"};
    ck_assert(gemma4_map_matches(&rule, NULL, 0, "model.layers.1.x"));
    ck_assert(!gemma4_map_matches(&rule, NULL, 0, "model.layers.11.x"));
    ck_assert(gemma4_map_matches_any(&rule, "2.layers.12.x", &layer));
    ck_assert_uint_eq(layer, 11);
    ck_assert(!gemma4_map_matches_any(&rule, "layers.0.x", &layer)); /* there is no layer -1 */
    rule.from = "h.{N-1}";
    ck_assert(!gemma4_map_matches(&rule, NULL, 0, "h.0"));
    ck_assert(gemma4_map_matches(&rule, NULL, 1, "h.0"));
}
END_TEST

/* --- shipped maps --- */

START_TEST(every_shipped_map_is_read)
{
    gemma4_error error = {""};
    char **names;
    size_t count;
    ck_assert_msg(gemma4_map_names(&names, &count, &error) == 0 && count >= 4, "%s", error.message);
    for (size_t i = 0; i < count; i++) {
        gemma4_map *map = gemma4_map_open(names[i], &error);
        ck_assert_msg(map != NULL, "%s", error.message);
        ck_assert_ptr_nonnull(map->seen);
        gemma4_map_free(map);
    }
    gemma4_case_ids_free(names, count);
    ck_assert_ptr_null(gemma4_map_open("no-such-map", &error));
    assert_message_contains(&error, "map 'no-such-map': expected a map's path, or the name of one "
                                    "in golden/maps, found neither");
}
END_TEST

Suite *map_suite(void)
{
    Suite *suite = suite_create("map");
    TCase *maps = tcase_create("map");
    tcase_add_test(maps, the_contracts_example_is_read);
    tcase_add_test(maps, rules_of_every_kind_are_read);
    tcase_add_loop_test(maps, a_map_with_a_mistake_is_refused, 0, COUNT(REFUSED));
    tcase_add_test(maps, another_format_and_version_are_refused);
    tcase_add_loop_test(maps, only_the_star_has_a_meaning_in_a_pattern, 0, COUNT(PATTERNS));
    tcase_add_test(maps, a_layers_number_is_matched_whole);
    tcase_add_test(maps, every_shipped_map_is_read);
    suite_add_tcase(suite, maps);
    return suite;
}
