/* README.md and spec/: do their numbers, commands, paths and links agree with what is here? Read
 * from the current directory, which must be the repository's. */
#include "counter_model.h"
#include "explain.h"
#include "manifest.h"
#include "noise.h"
#include "report.h"
#include "reports.h"
#include "suites.h"
#include "support.h"

#include <ctype.h>
#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define WORD "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

static bool exists(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0;
}

/* The name of a text, at most size - 1 bytes of which are copied. */
static const char *copy(char *name, size_t size, const char *text, size_t length)
{
    snprintf(name, size, "%.*s", (int)(length < size ? length : size - 1), text);
    return name;
}

/* --- constants --- */

/* Calls visit for each "#define NAME value" of a header but the include guard, with what stands
 * before a comment as the value. */
static size_t each_define(const char *header,
                          void (*visit)(const char *name, const char *value, void *context),
                          void *context)
{
    size_t count = 0;
    for (const char *at = test_read(header); (at = strstr(at, "#define ")) != NULL;) {
        char name[64], value[64];
        at += 8;
        size_t length = strspn(at, WORD), line = strcspn(at, "\n");
        copy(name, sizeof name, at, length);
        const char *comment = strstr(at, "/*");
        size_t end = comment && comment < at + line ? (size_t)(comment - at) : line,
               start = length + strspn(at + length, " ");
        while (end > start && at[end - 1] == ' ')
            end--;
        if (end <= start)
            continue; /* the guard */
        visit(name, copy(value, sizeof value, at + start, end - start), context);
        count++;
    }
    return count;
}

typedef struct lookup {
    const char *name;
    char value[64];
} lookup;

static void look_up(const char *name, const char *value, void *context)
{
    lookup *l = context;
    if (strcmp(name, l->name) == 0)
        copy(l->value, sizeof l->value, value, strlen(value));
}

/* The value of a constant of thresholds.h; "" where there is none. */
static void threshold(const char *name, char value[64])
{
    lookup l = {name, ""};
    each_define("tests/check/thresholds.h", look_up, &l);
    copy(value, 64, l.value, strlen(l.value));
}

/* The i-th cell (0: after the first bar) of a table's row, without spaces around it. */
static const char *cell(const char *row, size_t i, char *text, size_t size)
{
    const char *at = row + 1;
    for (; i > 0; i--) {
        at += strcspn(at, "|\n");
        ck_assert_msg(*at == '|', "spec/tolerance.md: too few cells in: %.60s", row);
        at++;
    }
    size_t length = strcspn(at, "|\n");
    while (length > 0 && at[0] == ' ')
        at++, length--;
    while (length > 0 && at[length - 1] == ' ')
        length--;
    return copy(text, size, at, length);
}

/* The row "| `NAME` | ..." of the table of constants. */
static const char *constants_row(const char *name)
{
    char start[80];
    const char *section = strstr(test_read("spec/tolerance.md"), "\n## Constants\n");
    ck_assert_msg(section != NULL, "spec/tolerance.md: no section \"Constants\"");
    snprintf(start, sizeof start, "\n| `%s` |", name);
    const char *row = strstr(section, start);
    return row ? row + 1 : NULL;
}

static void expect_row(const char *name, const char *value, void *context)
{
    char text[512];
    const char *row = constants_row(name);
    (void)context;
    ck_assert_msg(row != NULL,
                  "spec/tolerance.md, \"Constants\": no row for %s of tests/check/thresholds.h",
                  name);
    cell(row, 1, text, sizeof text);
    ck_assert_msg(strcmp(text, value) == 0,
                  "spec/tolerance.md: %s: expected %s as in thresholds.h, found %s", name, value,
                  text);
    for (size_t i = 2; i < 5; i++)
        ck_assert_msg(*cell(row, i, text, sizeof text), "spec/tolerance.md: %s: cell %zu is empty",
                      name, i + 1);
}

/* Each constant has a row with its value, unit, reason and measurement ... */
START_TEST(every_threshold_is_explained)
{
    ck_assert_uint_gt(each_define("tests/check/thresholds.h", expect_row, NULL), 10);
}
END_TEST

/* ... and each row a constant. */
START_TEST(every_explained_threshold_exists)
{
    const char *at = strstr(test_read("spec/tolerance.md"), "\n## Constants\n");
    size_t rows = 0;
    for (; at && (at = strstr(at, "\n| `")) != NULL; rows++) {
        char name[64], value[64];
        at += 4;
        threshold(copy(name, sizeof name, at, strspn(at, WORD)), value);
        ck_assert_msg(value[0] != '\0',
                      "spec/tolerance.md, \"Constants\": %s is not in tests/check/thresholds.h",
                      name);
    }
    ck_assert_uint_gt(rows, 10);
}
END_TEST

/* --- numbers in prose: <!-- from: NAME -->3 --- */

static size_t count_cases(void)
{
    char **ids;
    size_t count;
    gemma4_error error = {""};
    ck_assert_msg(gemma4_case_ids(&ids, &count, &error) == 0, "%s", error.message);
    gemma4_case_ids_free(ids, count);
    return count;
}

static size_t count_causes(void)
{
    size_t count = 0;
    for (size_t i = 0, j; i < gemma4_counter_model_count(); i++) {
        for (j = 0; j < i && strcmp(gemma4_counter_model_at(i)->id, gemma4_counter_model_at(j)->id);
             j++)
            ;
        count += j == i;
    }
    return count;
}

/* The nth number (from 1) after a text in a file that a measurement left; "93.9%" is 0.939. */
static double measured_nth(const char *path, const char *before, int n)
{
    const char *at = strstr(test_read(path), before);
    ck_assert_msg(at != NULL, "%s: \"%s\" is not there", path, before);
    char *end = (char *)(uintptr_t)at + strlen(before);
    double value = 0;
    for (; n > 0; n--) {
        at = end + strcspn(end, "0123456789\n");
        ck_assert_msg(isdigit((unsigned char)*at), "%s: too few numbers after \"%s\"", path,
                      before);
        value = strtod(at, &end);
    }
    return *end == '%' ? value / 100 : value;
}

static double measured(const char *path, const char *before)
{
    return measured_nth(path, before, 1);
}

/* The value of a name in such a comment: a constant of thresholds.h, or one of these. */
static double value_of(const char *name, const char *page)
{
    char value[64];
    if (strcmp(name, "cases") == 0)
        return (double)count_cases();
    if (strcmp(name, "causes") == 0)
        return (double)count_causes();
    if (strcmp(name, "counter-models") == 0)
        return (double)gemma4_counter_model_count();
    if (strcmp(name, "honest runs") == 0)
        return measured("spec/measured/honest.txt", "\nhonest: ");
    if (strcmp(name, "planted faults") == 0)
        return measured("spec/measured/planted.txt", " faulty runs of ");
    if (strcmp(name, "planted runs") == 0)
        return measured("spec/measured/planted.txt", "\nplanted: ");
    static const char *const identified[][2] = {
        {"identified in float32", "\nfloat32   all "},
        {"identified in bfloat16", "\nbfloat16  all "},
        {"identified from layers", "\nfloat32   layers "},
        {"identified from logits", "\nfloat32   logits "},
        {"identified in fused layers", "\nfloat32   fused "},
    };
    for (size_t i = 0; i < sizeof identified / sizeof *identified; i++)
        if (strcmp(name, identified[i][0]) == 0)
            return measured_nth("spec/measured/identify.txt", identified[i][1], 2);
    if (strcmp(name, "agreement") == 0)
        return measured("tests/unit/test_golden.c", "\n#define AGREEMENT ");
    threshold(name, value);
    ck_assert_msg(
        value[0] != '\0',
        "%s: <!-- from: %s -->: expected a constant of thresholds.h or a name that this test knows",
        page, name);
    return strtod(value, NULL);
}

START_TEST(numbers_in_prose_are_those_of_the_code)
{
    static const char mark[] = "<!-- from: ";
    size_t found = 0;
    for (size_t i = 0; i < test_pages.gl_pathc; i++)
        for (const char *page = test_pages.gl_pathv[i], *at = test_read(page);
             (at = strstr(at, mark)) != NULL; found++) {
            char name[64], *end;
            at += strlen(mark);
            const char *close = strstr(at, " -->");
            ck_assert_msg(close != NULL, "%s: a comment without end: %.40s", page, at);
            double expected = value_of(copy(name, sizeof name, at, (size_t)(close - at)), page),
                   written = strtod(close + 4, &end);
            ck_assert_msg(end > close + 4,
                          "%s: <!-- from: %s -->: expected a number behind it, found %.20s", page,
                          name, close + 4);
            written /= strncmp(end, " %", 2) == 0 ? 100 : 1;
            ck_assert_msg(fabs(written - expected) <= 1e-12 * fabs(expected),
                          "%s: %s: expected %g, found %g", page, name, expected, written);
        }
    ck_assert_uint_gt(found, 10);
}
END_TEST

START_TEST(the_readme_lists_the_tiers_and_levels)
{
    char tiers[128] = "(", levels[64] = "--require ";
    const gemma4_tier *tier;
    for (size_t i = 0; (tier = gemma4_tier_at(i)) != NULL; i++)
        if (strcmp(tier->name, "float64") != 0) /* judged as float32, for references and not for
                                                   engines */
            snprintf(tiers + strlen(tiers), sizeof tiers - strlen(tiers), "%s%s",
                     strlen(tiers) > 1 ? ", " : "", tier->name);
    for (int level = GEMMA4_FULL_LEVEL; level > GEMMA4_PARTIAL; level--)
        snprintf(levels + strlen(levels), sizeof levels - strlen(levels), "%s%s",
                 level < GEMMA4_FULL_LEVEL ? "|" : "", gemma4_level_name((gemma4_level)level));
    ck_assert_msg(strstr(test_read("README.md"), tiers) != NULL, "README.md: \"%s\" is not there",
                  tiers);
    ck_assert_msg(strstr(test_read("README.md"), levels) != NULL, "README.md: \"%s\" is not there",
                  levels);
}
END_TEST

START_TEST(every_flag_is_explained)
{
    const gemma4_flag_info *info;
    for (size_t i = 0; (info = gemma4_flag_at(i)) != NULL; i++) {
        char row[256];
        snprintf(row, sizeof row, "\n| %s | %zu | %zu | %s | ", info->flag, info->from,
                 info->tokens, info->meaning);
        ck_assert_msg(strstr(test_read("spec/cases.md"), row) != NULL, "spec/cases.md: no row%s",
                      row);
    }
}
END_TEST

/* --- the table of parameters --- */

START_TEST(the_space_s_page_holds_what_the_program_prints)
{
    char *table = NULL;
    size_t size;
    FILE *f = open_memstream(&table, &size);
    ck_assert_ptr_nonnull(f);
    gemma4_explain_space(f);
    ck_assert_int_eq(fclose(f), 0);
    ck_assert_uint_eq(test_occurrences(table, "\n"), GEMMA4_PARAMETER_COUNT + 2);
    /* no cell holds a bar */
    ck_assert_uint_eq(test_occurrences(table, "|"), 6 * (GEMMA4_PARAMETER_COUNT + 2));
    ck_assert_msg(strstr(test_read("spec/space.md"), table) != NULL,
                  "spec/space.md is out of date: gemma4-check explain --space prints its table");
    free(table);
}
END_TEST

/* --- commands and paths --- */

/* What a program prints for --help. */
static const char *help_of(const char *program)
{
    const char *build = getenv("GEMMA4_BUILD");
    char *out = test_join(test_dir(), program), command[4096];
    if (!exists(out)) {
        snprintf(command, sizeof command, "'%s/%s' --help >'%s'", build && *build ? build : "build",
                 program, out);
        ck_assert_msg(system(command) == 0, "%s", command);
    }
    return test_read(out);
}

static bool is_of_word(char c)
{
    return c != '\0' && strchr(WORD "-", c);
}

/* Whether text holds the word as a whole. */
static bool holds_word(const char *text, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = text; (at = strstr(at, word)) != NULL; at++)
        if ((at == text || !is_of_word(at[-1])) && !is_of_word(at[length]))
            return true;
    return false;
}

static bool is_target(const char *word)
{
    for (const char *line = test_read("Makefile"); *line;
         line += strcspn(line, "\n"), line += *line == '\n') {
        size_t names = strcspn(line, ":=#\n\t");
        char text[512];
        if (line[names] == ':' && line[names + 1] != '=' &&
            holds_word(copy(text, sizeof text, line, names), word) && line[0] != '.')
            return true;
    }
    return false;
}

/* The next word of a command line; "" where the command ends. */
static const char *next_word(const char **at, char *word, size_t size)
{
    *at += strspn(*at, " ");
    size_t length = strcspn(*at, " \n;|&)");
    copy(word, size, *at, length);
    *at += length;
    return word;
}

static void check_make(const char *page, const char *at)
{
    char word[256];
    while (*next_word(&at, word, sizeof word))
        if (islower((unsigned char)word[0]) && !strchr(word, '=') &&
            strspn(word, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(word))
            ck_assert_msg(is_target(word), "%s: make %s: the Makefile has no such target", page,
                          word);
}

static void check_program(const char *page, const char *program, const char *at)
{
    const char *help = help_of(program);
    char word[256], sub_command[300], manifest[300];
    next_word(&at, word, sizeof word);
    if (islower((unsigned char)word[0]) &&
        strspn(word, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(word)) {
        snprintf(sub_command, sizeof sub_command, "%s %s", program, word);
        snprintf(manifest, sizeof manifest, "golden/cases/%s.yaml", word);
        ck_assert_msg(holds_word(help, sub_command) || exists(manifest),
                      "%s: %s: neither a command nor a case", page, sub_command);
    }
    for (; *word; next_word(&at, word, sizeof word))
        if (strncmp(word, "--", 2) == 0) {
            word[strcspn(word, "=")] = '\0';
            ck_assert_msg(holds_word(help, word), "%s: %s has no option %s", page, program, word);
        }
}

static void check_path(const char *page, const char *path)
{
    glob_t found;
    bool placeholder = strcspn(path, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") < strlen(path) && !exists(path);
    if (placeholder)
        return;
    ck_assert_msg(glob(path, GLOB_BRACE, NULL, &found) == 0, "%s: %s is not there", page, path);
    globfree(&found);
}

static glob_t scripts; /* whatever takes options, besides the two programs */

/* An option by itself, or of another program than the two: some program must know it. */
static void check_option(const char *page, const char *option)
{
    bool known =
        holds_word(help_of("gemma4-check"), option) || holds_word(help_of("gemma4-ref"), option);
    for (size_t i = 0; !known && i < scripts.gl_pathc; i++)
        known = holds_word(test_read(scripts.gl_pathv[i]), option);
    ck_assert_msg(known, "%s: no program has the option %s", page, option);
}

/* One span or line of code. What is typed into a debugger is checked by make debug-test. */
static void check_code(const char *page, const char *code)
{
    static const char *const folders[] = {"ref/", "tests/", "golden/", "spec/"};
    char word[256];
    if (strstr(code, "(gdb) ") || strstr(code, "(lldb) "))
        return;
    for (const char *at = code; *(at += strspn(at, " \n;|&()"));) {
        next_word(&at, word, sizeof word);
        if (strncmp(word, "--", 2) == 0 && islower((unsigned char)word[2])) {
            word[2 + strspn(word + 2, "abcdefghijklmnopqrstuvwxyz0123456789-")] = '\0';
            check_option(page, word);
        }
        if (strcmp(word, "make") == 0)
            check_make(page, at);
        else if (strcmp(word, "gemma4-check") == 0 || strcmp(word, "build/gemma4-check") == 0)
            check_program(page, "gemma4-check", at);
        else if (strcmp(word, "gemma4-ref") == 0 || strcmp(word, "build/gemma4-ref") == 0)
            check_program(page, "gemma4-ref", at);
        for (size_t i = 0; i < COUNT(folders); i++)
            if (strncmp(word, folders[i], strlen(folders[i])) == 0)
                check_path(page, word);
    }
}

/* Calls check_code for every `span`, every indented line and every line between fences. */
static size_t check_page(const char *page)
{
    char code[1024];
    size_t count = 0;
    bool fenced = false, blank = true;
    for (const char *line = test_read(page), *next; *line; line = next) {
        size_t length = strcspn(line, "\n");
        next = line + length + (line[length] == '\n');
        if (strncmp(line, "```", 3) == 0) {
            fenced = !fenced;
        } else if (fenced || (blank && strncmp(line, "    ", 4) == 0)) {
            check_code(page, copy(code, sizeof code, line, length));
            count++;
            continue; /* blank stays: the next indented line belongs to it */
        } else {
            const char *at = line, *end;
            for (; (at = strchr(at, '`')) && at < line + length && (end = strchr(at + 1, '`'));
                 at = end + 1, count++) {
                check_code(page, copy(code, sizeof code, at + 1, (size_t)(end - at - 1)));
                next = end > line + length ? end + 1 : next; /* a span may go on on the next line,
                                                                and others after it */
            }
        }
        blank = length == 0;
    }
    return count;
}

START_TEST(every_command_and_path_exists)
{
    static const char *const with_options[] = {"golden/engines/*.py", "golden/engines/*/*.py",
                                               "golden/oracle/*.py",  "tests/*.py",
                                               "tests/bench/*.c",     "tests/twins/*.c"};
    size_t count = 0;
    for (size_t i = 0; i < COUNT(with_options); i++)
        ck_assert_int_eq(glob(with_options[i], i ? GLOB_APPEND : 0, NULL, &scripts), 0);
    for (size_t i = 0; i < test_pages.gl_pathc; i++)
        if (!test_is_generated(test_pages.gl_pathv[i]))
            count += check_page(test_pages.gl_pathv[i]);
    globfree(&scripts);
    ck_assert_uint_gt(count, 100);
}
END_TEST

/* The Makefile's own list, at its head. */
START_TEST(every_target_is_listed)
{
    char word[64], line[80];
    const char *makefile = test_read("Makefile"), *at = strstr(makefile, "\n.PHONY:");
    ck_assert_ptr_nonnull(at);
    for (at += 8; *next_word(&at, word, sizeof word);) {
        snprintf(line, sizeof line, "\n#   make %s ", word);
        bool plain =
            strcmp(word, "all") == 0 || strcmp(word, "always") == 0 || strcmp(word, "clean") == 0;
        bool listed = plain || strstr(makefile, line) != NULL;
        ck_assert_msg(listed, "Makefile: make %s is not listed", word);
    }
}
END_TEST

START_TEST(exit_statuses_are_those_of_the_program)
{
    static const char sentence[] = "Exit status 0 conforms, 1 does not, 2 cannot be judged";
    const char *const texts[] = {test_read("README.md"), help_of("gemma4-check")};
    for (size_t i = 0; i < COUNT(texts); i++) {
        const char *at = strstr(texts[i], "Exit status");
        ck_assert_ptr_nonnull(at);
        for (const char *expected = sentence; *expected; at++)
            if (*at != ':') {
                ck_assert_msg(*at == *expected, "expected \"%s\", found \"%.60s\"", sentence,
                              strstr(texts[i], "Exit status"));
                expected++;
            }
    }
}
END_TEST

/* --- links --- */

/* A heading's anchor as GitHub makes it. */
static bool has_heading(const char *path, const char *anchor)
{
    for (const char *line = test_read(path); (line = strstr(line, "\n#")) != NULL;) {
        char slug[256];
        size_t n = 0;
        line += 1;
        const char *c = line + strspn(line, "#");
        for (c += strspn(c, " "); *c && *c != '\n' && n + 1 < sizeof slug; c++)
            if (isalnum((unsigned char)*c) || strchr("-_ ", *c))
                slug[n++] = *c == ' ' ? '-' : (char)tolower((unsigned char)*c);
        slug[n] = '\0';
        if (strcmp(slug, anchor) == 0)
            return true;
    }
    return false;
}

static void check_link(const char *page, const char *target)
{
    char path[512];
    const char *slash = strrchr(page, '/'), *anchor = strchr(target, '#');
    size_t folder = slash ? (size_t)(slash + 1 - page) : 0,
           length = anchor ? (size_t)(anchor - target) : strlen(target);
    if (strstr(target, "://"))
        return;
    if (length == 0)
        snprintf(path, sizeof path, "%s", page);
    else
        snprintf(path, sizeof path, "%.*s%.*s", (int)folder, page, (int)length, target);
    ck_assert_msg(exists(path), "%s: link to %s: %s is not there", page, target, path);
    if (anchor)
        ck_assert_msg(has_heading(path, anchor + 1), "%s: link to %s: no such heading", page,
                      target);
}

START_TEST(every_link_leads_somewhere)
{
    size_t count = 0;
    for (size_t i = 0; i < test_pages.gl_pathc; i++)
        for (const char *at = test_read(test_pages.gl_pathv[i]); (at = strstr(at, "](")) != NULL;
             count++) {
            char target[512];
            at += 2;
            check_link(test_pages.gl_pathv[i], copy(target, sizeof target, at, strcspn(at, ")\n")));
        }
    ck_assert_uint_gt(count, 50);
}
END_TEST

/* --- the reference beside its page --- */

/* Whether spec/model.md has that section: "4.2" of "### 4.2 Attention", "5" of "## 5. The
 * cache". */
static bool has_section(const char *number)
{
    char heading[2][32];
    snprintf(heading[0], sizeof heading[0], "\n### %s ", number);
    snprintf(heading[1], sizeof heading[1], "\n## %s. ", number);
    return strstr(test_read("spec/model.md"), heading[0]) ||
           strstr(test_read("spec/model.md"), heading[1]);
}

/* A comment that explains a step begins with its section ("4.2 The mask", "--- 4.2 attention");
 * others cite one in brackets ("(4.7)"). In Python a docstring does. */
static size_t count_sections(const char *path)
{
    const char *code = test_read(path);
    size_t count = 0;
    for (const char *at = code; (at = strpbrk(at, "123456789")) != NULL;
         at += strspn(at, "0123456789.")) {
        char number[16];
        size_t length = strspn(at, "0123456789.");
        bool begins =
            at - code > 3 && ((!strncmp(at - 3, "/* ", 3) && !strncmp(at + length, "  ", 2)) ||
                              !strncmp(at - 3, "\"\"\"", 3));
        bool headed = at - code > 4 && !strncmp(at - 4, "--- ", 4);
        bool within = at - code > 3 && at[-1] == '(' && at[length] == ')' && at[-2] == ' ';
        if (!begins && !headed && !within)
            continue;
        ck_assert_msg(has_section(copy(number, sizeof number, at, length)),
                      "%s: spec/model.md has no section %s: %.60s", path, number, at - 3);
        count++;
    }
    return count;
}

START_TEST(the_reference_cites_sections_that_exist)
{
    ck_assert_uint_ge(count_sections("ref/forward.c"), 15);
    ck_assert_uint_ge(count_sections("ref/ops_scalar.c"), 7);
    ck_assert_uint_ge(count_sections("spec/forward.py"), 8);
}
END_TEST

START_TEST(the_forward_pass_in_numpy_is_short)
{
    ck_assert_uint_lt(test_occurrences(test_read("spec/forward.py"), "\n"), 250);
}
END_TEST

START_TEST(the_reference_fits_beside_its_page)
{
    enum { COLUMNS = 100 };
    static const char *const files[] = {"ref/forward.c", "ref/ops_scalar.c",
                                        "ref/session_internal.h", "ref/session.c", "ref/ops.c"};
    for (size_t i = 0; i < COUNT(files); i++)
        for (const char *line = test_read(files[i]); *line;
             line += strcspn(line, "\n"), line += *line == '\n')
            ck_assert_msg(strcspn(line, "\n") <= COLUMNS,
                          "%s: a line of more than %d columns: %.110s", files[i], COLUMNS, line);
}
END_TEST

Suite *pages_suite(void)
{
    Suite *suite = suite_create("pages");
    TCase *c = tcase_create("all");
    tcase_add_unchecked_fixture(c, test_find_pages, test_free_pages);
    tcase_set_timeout(c, 60);
    tcase_add_test(c, every_threshold_is_explained);
    tcase_add_test(c, every_explained_threshold_exists);
    tcase_add_test(c, numbers_in_prose_are_those_of_the_code);
    tcase_add_test(c, the_readme_lists_the_tiers_and_levels);
    tcase_add_test(c, every_flag_is_explained);
    tcase_add_test(c, the_space_s_page_holds_what_the_program_prints);
    tcase_add_test(c, every_command_and_path_exists);
    tcase_add_test(c, every_target_is_listed);
    tcase_add_test(c, exit_statuses_are_those_of_the_program);
    tcase_add_test(c, every_link_leads_somewhere);
    tcase_add_test(c, the_reference_cites_sections_that_exist);
    tcase_add_test(c, the_forward_pass_in_numpy_is_short);
    tcase_add_test(c, the_reference_fits_beside_its_page);
    suite_add_tcase(suite, c);
    return suite;
}
