#include "reports.h"

#include <stdlib.h>

#include "support.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))
static const char XML_DECLARATION[] = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";

/* --- reports --- */

test_judged test_judge_dump(const char *case_id, const char *dump, const char *dtype)
{
    gemma4_error error = {""};
    test_judged t = {.the_case = gemma4_case_open(case_id, &error)};
    ck_assert_msg(t.the_case != NULL, "%s", error.message);
    t.model = gemma4_model_open(t.the_case->checkpoint_dir, &error);
    ck_assert_msg(t.model != NULL, "%s", error.message);
    t.judgement = (gemma4_judgement){
        .the_case = t.the_case,
        .model = t.model,
        .dtype = dtype,
        .engine = gemma4_activations_open(dump, &t.model->config, &error),
        .golden = gemma4_activations_open(t.the_case->golden_path, &t.model->config, &error)};
    ck_assert_msg(t.judgement.engine && t.judgement.golden, "%s", error.message);
    ck_assert_msg(gemma4_judge(&t.judgement, &t.report, &error) == 0, "%s", error.message);
    return t;
}

void test_judged_free(test_judged *t)
{
    gemma4_report_free(&t->report);
    gemma4_activations_close(t->judgement.engine);
    gemma4_activations_close(t->judgement.golden);
    gemma4_model_close(t->model);
    gemma4_case_close(t->the_case);
}

char *test_printed(void (*write)(FILE *, const gemma4_report *), const gemma4_report *report)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    ck_assert_ptr_nonnull(f);
    write(f, report);
    ck_assert_int_eq(fclose(f), 0);
    return text;
}

char *test_printed_message(void (*write)(FILE *, const char *), const char *message)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    ck_assert_ptr_nonnull(f);
    write(f, message);
    ck_assert_int_eq(fclose(f), 0);
    return text;
}

size_t test_occurrences(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *s = text; (s = strstr(s, what)) != NULL; s++)
        n++;
    return n;
}

/* --- markup --- */

/* Behind the attributes that begin at s: the tag's '>' or '/'. NULL where one is malformed. */
static const char *skip_attributes(const char *s)
{
    for (s += strspn(s, " \n"); *s != '>' && *s != '/'; s += strspn(s, " \n")) {
        size_t name = strspn(s, "abcdefghijklmnopqrstuvwxyzB-0123456789"); /* viewBox */
        if (name == 0 || s[name] != '=' || s[name + 1] != '"')
            return NULL;
        s += name + 2;
        s += strcspn(s, "\"<");
        if (*s++ != '"')
            return NULL;
    }
    return s;
}

static bool is_entity(const char *s)
{
    static const char *const known[] = {"&amp;", "&lt;", "&gt;", "&quot;"};
    for (size_t i = 0; i < COUNT(known); i++)
        if (!strncmp(s, known[i], strlen(known[i])))
            return true;
    return false;
}

const char *test_malformed(const char *text)
{
    enum { DEEPEST = 40, NAME = 24 };
    char open[DEEPEST][NAME], name[NAME];
    size_t depth = 0;
    for (const char *s = text; *s; s++) {
        const char *at = s;
        if (((unsigned char)*s < 0x20 && *s != '\n') || (*s == '&' && !is_entity(s)))
            return at;
        if (*s != '<' || !strncmp(s, "<!DOCTYPE html>", 15) ||
            (s == text && !strncmp(s, XML_DECLARATION, sizeof XML_DECLARATION - 1)))
            continue;
        bool closes = s[1] == '/';
        size_t n = strspn(s + 1 + closes, "abcdefghijklmnopqrstuvwxyz-0123456789");
        if (n == 0 || n >= NAME)
            return at;
        snprintf(name, sizeof name, "%.*s", (int)n, s + 1 + closes);
        s = skip_attributes(s + 1 + closes + n);
        if (!s || (closes && (depth == 0 || strcmp(open[depth - 1], name))) ||
            (*s == '/' && *++s != '>'))
            return at;
        if (closes)
            depth--;
        else if (s[-1] != '/' && depth < DEEPEST)
            memcpy(open[depth++], name, NAME);
        else if (s[-1] != '/')
            return at;
    }
    return depth ? text : NULL;
}
