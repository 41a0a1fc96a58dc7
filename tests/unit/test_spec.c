/* The tables of spec/ that say the same as the table of taps (ref/taps.h): a name, a shape or a
 * number that is changed in one of them only fails here. */
#include "suites.h"
#include "support.h"
#include "synth.h"
#include "synth_internal.h"
#include "taps.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 9, NAME_SIZE = 80 };

/* A table of a Markdown file, read row by row. */
typedef struct table {
    FILE *file;
    char line[2000];
    char *cells[COLUMNS]; /* of the row at hand, within line; "" after its last */
} table;

/* Splits the line at its bars; what surrounds a cell is cut off. */
static void split(table *t)
{
    char *cell = t->line + 1;
    for (size_t i = 0; i < COLUMNS; i++) {
        char *bar = strchr(cell, '|');
        t->cells[i] = "";
        if (!bar)
            continue;
        cell += strspn(cell, " ");
        t->cells[i] = cell;
        char *end = bar;
        while (end > cell && end[-1] == ' ')
            end--;
        *end = '\0';
        cell = bar + 1;
    }
}

/* The table under this line of headings; the next call of next_row reads its first row. */
static table open_table(const char *path, const char *headings)
{
    table t = {.file = fopen(path, "r")};
    bool found = false;
    ck_assert_msg(t.file != NULL, "%s: cannot be read", path);
    while (!found && fgets(t.line, sizeof t.line, t.file))
        found = !strncmp(t.line, headings, strlen(headings));
    ck_assert_msg(found, "%s: no table \"%s\"", path, headings);
    ck_assert_msg(fgets(t.line, sizeof t.line, t.file) && !strncmp(t.line, "|---", 4),
                  "%s: no line under the headings", path);
    return t;
}

static bool next_row(table *t)
{
    bool row = fgets(t->line, sizeof t->line, t->file) && t->line[0] == '|';
    if (row) {
        ck_assert_msg(strchr(t->line, '\n') != NULL, "a row is too long: %.60s", t->line);
        split(t);
    } else {
        fclose(t->file);
    }
    return row;
}

/* The next of the entries that ", " separates; NULL after the last. A shorthand (".k" after
 * "attn.q") is completed from the name before, which is what name holds. */
static const char *next_name(char **cell, char name[NAME_SIZE])
{
    char *entry = *cell, *comma = strstr(entry, ", ");
    if (*entry == '\0')
        return NULL;
    *cell = comma ? comma + 2 : entry + strlen(entry);
    if (comma)
        *comma = '\0';
    char *from = *entry == '.' ? strrchr(name, '.') : name;
    ck_assert_msg(from != NULL && strlen(entry) < NAME_SIZE - (size_t)(from - name),
                  "\"%s\" is no name", entry);
    strcpy(from, entry);
    return name;
}

static size_t entries(const char *cell)
{
    size_t n = 1;
    while ((cell = strstr(cell, ", ")) != NULL) {
        cell += 2;
        n++;
    }
    return n;
}

/* The next of the shapes that ", " separates; where there is one shape only, it holds for all
 * names. */
static const char *next_shape(char **cell)
{
    char *shape = *cell, *comma = strstr(shape, ", ");
    if (comma) {
        *comma = '\0';
        *cell = comma + 2;
    }
    return shape;
}

/* --- spec/taps.md --- */

/* "[T,H,D]", or "[T,K] int". */
static void shape_text(const gemma4_tap_info *info, char text[NAME_SIZE])
{
    int length = sprintf(text, "[T");
    for (const char *axis = info->shape; *axis; axis++)
        length += sprintf(text + length, ",%c", *axis);
    sprintf(text + length, "]%s", info->ids ? " int" : "");
}

/* What a tap's value must say exactly where the table of taps has a trait. */
static void check_value(const gemma4_tap_info *info, const char *value)
{
    char repeats[NAME_SIZE];
    snprintf(repeats, sizeof repeats, "%s equals attn.k and may be absent", info->name);
    const struct {
        const char *text;
        bool expected;
    } said[] = {
        {"; optional", info->optional},
        {repeats, info->unless_v_is_k},
        {", in the order of topk_ids", info->rows == GEMMA4_ROWS_BY_ID},
        {"masked entries may hold anything", info->rows == GEMMA4_ROWS_SCORES},
        {"exactly 0 where masked", info->rows == GEMMA4_ROWS_PROBS},
    };
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        ck_assert_msg((strstr(value, said[i].text) != NULL) == said[i].expected,
                      "%s: expected %s \"%s\", found \"%s\"", info->name,
                      said[i].expected ? "the words" : "nothing like", said[i].text, value);
}

START_TEST(taps_md_is_the_table_of_taps)
{
    static const char *const inputs[] = {"tokens", "positions"}; /* of the forward pass: no taps */
    table t = open_table("spec/taps.md", "| tap | shape | value |");
    int tap = 0;
    for (size_t i = 0; i < 2; i++) {
        ck_assert(next_row(&t));
        ck_assert_str_eq(t.cells[0], inputs[i]);
        ck_assert_str_eq(t.cells[1], "[T] int");
    }
    while (next_row(&t)) {
        char name[NAME_SIZE] = "", expected[NAME_SIZE], *names = t.cells[0], *shapes = t.cells[1];
        ck_assert_msg(entries(shapes) == 1 || entries(shapes) == entries(names),
                      "%s: the shapes are %s", names, shapes);
        for (; next_name(&names, name); tap++) {
            ck_assert_msg(tap < GEMMA4_TAP_COUNT, "%s: behind the last tap", name);
            const gemma4_tap_info *info = gemma4_tap_describe((gemma4_tap)tap);
            snprintf(expected, sizeof expected, "%s%s", info->per_layer ? "layers.N." : "",
                     info->name);
            ck_assert_str_eq(name, expected);
            shape_text(info, expected);
            const char *shape = next_shape(&shapes);
            ck_assert_msg(!strcmp(shape, expected), "%s: expected the shape %s, found %s", name,
                          expected, shape);
            check_value(info, t.cells[2]);
        }
    }
    ck_assert_int_eq(tap, GEMMA4_TAP_COUNT);
}
END_TEST

/* --- spec/tolerance.md --- */

static const gemma4_tap_info *tap_named(const char *name, bool seen[GEMMA4_TAP_COUNT])
{
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        if (!strcmp(gemma4_tap_describe((gemma4_tap)tap)->name, name)) {
            ck_assert_msg(!seen[tap], "%s: twice", name);
            seen[tap] = true;
            return gemma4_tap_describe((gemma4_tap)tap);
        }
    ck_abort_msg("%s: no tap", name);
}

static double number(const char *text)
{
    char *end;
    double value = strtod(text, &end);
    ck_assert_msg(end != text && *end == '\0', "\"%s\" is no number", text);
    return value;
}

/* "H D" to "HD". */
static void join_axes(char *text)
{
    char *to = text;
    for (; *text; text++)
        if (*text != ' ')
            *to++ = *text;
    *to = '\0';
}

START_TEST(the_roundings_of_tolerance_md_are_those_of_the_table)
{
    table t = open_table(
        "spec/tolerance.md",
        "| taps | of each value | of a factor that a row (head) shares | sums over | why |");
    bool seen[GEMMA4_TAP_COUNT] = {false};
    while (next_row(&t)) {
        char name[NAME_SIZE] = "", *names = t.cells[0];
        join_axes(t.cells[3]);
        while (next_name(&names, name)) {
            const gemma4_tap_info *info = tap_named(name, seen);
            ck_assert_msg(info->each_roundings == number(t.cells[1]), "%s, of each value: %s", name,
                          t.cells[1]);
            ck_assert_msg(info->shared_roundings == number(t.cells[2]),
                          "%s, of a shared factor: %s", name, t.cells[2]);
            ck_assert_msg(!strcmp(info->sum, t.cells[3]), "%s, sums over: \"%s\"", name,
                          t.cells[3]);
        }
    }
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
        const gemma4_tap_info *info = gemma4_tap_describe((gemma4_tap)tap);
        ck_assert_msg(seen[tap] != info->ids, "%s: %s", info->name,
                      info->ids ? "ids have no roundings" : "not in the table");
    }
}
END_TEST

START_TEST(ids_are_not_rounded)
{
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
        const gemma4_tap_info *info = gemma4_tap_describe((gemma4_tap)tap);
        ck_assert(!info->ids || (info->each_roundings == 0 && info->shared_roundings == 0 &&
                                 info->sum[0] == '\0'));
    }
    ck_assert(gemma4_tap_describe(GEMMA4_TAP_ROUTER_TOPK_IDS)->ids &&
              gemma4_tap_describe(GEMMA4_TAP_LOGPROBS_IDS)->ids);
}
END_TEST

/* --- spec/synth.md --- */

static void kinds_text(const synth_preset *p, char text[NAME_SIZE])
{
    int length = sprintf(text, "%zu (", p->layers);
    if (p->full_every > 2)
        sprintf(text + length, "%zu:1)", p->full_every - 1);
    for (size_t i = 0; p->full_every == 2 && i < p->layers; i++)
        length += sprintf(text + length, "%s%s", i % 2 ? "f" : "s", i + 1 < p->layers ? " " : ")");
}

/* What the row of the table says of a preset; "" where it says it in words. */
static void preset_text(size_t row, const synth_preset *p, char text[NAME_SIZE])
{
    text[0] = '\0';
    switch (row) {
    case 1: kinds_text(p, text); break;
    case 2: sprintf(text, "%zu", p->hidden); break;
    case 3: sprintf(text, "%zu; %zu / %zu", p->heads, p->sliding_kv_heads, p->full_kv_heads); break;
    case 4: sprintf(text, "%zu / %zu", p->sliding_head_dim, p->full_head_dim); break;
    case 5: sprintf(text, "%zu", p->window); break;
    case 6: sprintf(text, "%zu, %zu", p->dense_width, p->expert_width); break;
    case 7: sprintf(text, "%zu, %zu", p->experts, p->top_k); break;
    case 8: sprintf(text, "%zu", p->vocab); break;
    }
}

START_TEST(synth_md_has_the_presets)
{
    static const char *const names[] = {"tiny",    "moe128",   "wide256",    "uneven96",
                                        "deep128", "heads512", "window1024", "26b-a4b"};
    enum { PRESETS = sizeof names / sizeof *names };
    char heading[200] = "| | ";
    for (size_t i = 0; i < PRESETS; i++)
        sprintf(heading + strlen(heading), "%s |%s", names[i], i + 1 < PRESETS ? " " : "");
    for (size_t i = 0; gemma4_synth_presets()[i]; i++)
        ck_assert_msg(strstr(heading, gemma4_synth_presets()[i]) ||
                          !strncmp(gemma4_synth_presets()[i], "ladder-", 7),
                      "spec/synth.md: no column for %s", gemma4_synth_presets()[i]);
    table t = open_table("spec/synth.md", heading);
    size_t rows = 0;
    for (; next_row(&t); rows++)
        for (size_t i = 0; i < PRESETS; i++) {
            char expected[NAME_SIZE];
            const char *found = t.cells[i + 1];
            preset_text(rows, synth_preset_find(names[i]), expected);
            if (rows < 9)
                ck_assert_msg(!strncmp(found, expected, strlen(expected)) &&
                                  !isdigit((unsigned char)found[strlen(expected)]),
                              "spec/synth.md: %s, row \"%s\": expected %s, found %s", names[i],
                              t.cells[0], expected, found);
            if (rows == 9) /* RoPE theta */
                ck_assert_str_eq(found, i == 0 ? "10,000 / 1,000,000" : "same");
            if (rows == 10)
                ck_assert_str_eq(found, "0.25");
        }
    ck_assert_uint_eq(rows, 11);
}
END_TEST

/* --- spec/ladder.md --- */

/* How many tokens a rung feeds. */
static size_t tokens_of(const char *rung)
{
    char path[2 * NAME_SIZE];
    snprintf(path, sizeof path, "golden/ladder/%s.yaml", rung);
    const char *at = strstr(test_read(path), "\ntokens: [");
    ck_assert_msg(at != NULL, "%s: no tokens", path);
    size_t count = 1;
    for (; *at != ']'; at++)
        count += *at == ',';
    return count;
}

START_TEST(ladder_md_has_the_rungs)
{
    table t = open_table("spec/ladder.md", "| rung | alive | tokens | what it shows |");
    const char *order = strstr(test_read("golden/ladder/ladder.yaml"), "\nrungs:");
    size_t rungs = 0, listed = 0;
    ck_assert_ptr_nonnull(order);
    for (const char *at = order; (at = strstr(at, "- rung: ")) != NULL; at++)
        listed++;
    while (next_row(&t)) {
        char name[NAME_SIZE] = "", *names = t.cells[0], *counts = t.cells[2];
        while (next_name(&names, name)) {
            const char *count = next_shape(&counts);
            char expected[NAME_SIZE];
            snprintf(expected, sizeof expected, "%zu", tokens_of(name));
            ck_assert_msg(!strcmp(count, expected),
                          "spec/ladder.md: %s: expected %s tokens, found %s", name, expected,
                          count);
            rungs++;
        }
    }
    ck_assert_msg(rungs == listed, "spec/ladder.md: %zu rungs, golden/ladder/ladder.yaml has %zu",
                  rungs, listed);
}
END_TEST

Suite *spec_suite(void)
{
    Suite *suite = suite_create("spec");
    TCase *tables = tcase_create("tables");
    tcase_add_test(tables, taps_md_is_the_table_of_taps);
    tcase_add_test(tables, the_roundings_of_tolerance_md_are_those_of_the_table);
    tcase_add_test(tables, ids_are_not_rounded);
    tcase_add_test(tables, synth_md_has_the_presets);
    tcase_add_test(tables, ladder_md_has_the_rungs);
    suite_add_tcase(suite, tables);
    return suite;
}
