/* Numbers of README.md and spec/ that follow from nothing here: measurements, facts of the world
 * outside, examples. spec/measured/numbers.txt has each a second time, with where it is from. Read
 * from the current directory, which must be the repository's. */
#include "hash.h"
#include "suites.h"
#include "support.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

static const char LIST[] = "spec/measured/numbers.txt";

/* The page's text with every white space as one space; to be freed. */
static char *in_one_line(const char *page)
{
    const char *text = test_read(page);
    char *line = malloc(strlen(text) + 1), *to = line;
    ck_assert_ptr_nonnull(line);
    for (; *text; text++)
        if (!isspace((unsigned char)*text))
            *to++ = *text;
        else if (to > line && to[-1] != ' ')
            *to++ = ' ';
    *to = '\0';
    return line;
}

/* "== PAGE: where the numbers are from", then a phrase of that page a line. */
START_TEST(every_listed_number_stands_in_its_page)
{
    char page[64] = "", *text = NULL, phrase[400];
    size_t phrases = 0;
    for (const char *at = test_read(LIST); *at; at += strcspn(at, "\n"), at += *at == '\n') {
        size_t length = strcspn(at, "\n");
        if (length == 0 || *at == '#')
            continue;
        ck_assert_msg(length < sizeof phrase, "%s: a line is too long: %.60s", LIST, at);
        memcpy(phrase, at, length);
        phrase[length] = '\0';
        if (!strncmp(phrase, "== ", 3)) {
            char *colon = strstr(phrase, ": ");
            ck_assert_msg(colon && colon - phrase - 3 < (long)sizeof page && strlen(colon) > 10,
                          "%s: expected \"== PAGE: where its numbers are from\", found \"%s\"",
                          LIST, phrase);
            *colon = '\0';
            strcpy(page, phrase + 3);
            free(text);
            text = in_one_line(page);
            continue;
        }
        ck_assert_msg(text && strpbrk(phrase, "0123456789"), "%s: no number of a page: %s", LIST,
                      phrase);
        ck_assert_msg(strstr(text, phrase) != NULL,
                      "%s: \"%s\" is not there. Is the page wrong, or %s old?", page, phrase, LIST);
        phrases++;
    }
    free(text);
    ck_assert_uint_gt(phrases, 100);
}
END_TEST

/* Pages that a program writes from what it measures: the SHA-256 that they had when it did. */
START_TEST(generated_pages_are_as_they_were_written)
{
    static const char sums[] = "spec/measured/pages.sha256";
    size_t count = 0;
    for (const char *at = test_read(sums); *at;
         at += strcspn(at, "\n"), at += *at == '\n', count++) {
        char expected[65], found[GEMMA4_SHA256_SIZE], page[64];
        gemma4_error error = {""};
        ck_assert_msg(sscanf(at, "%64[0-9a-f]  %63[^\n]", expected, page) == 2, "%s: %.70s", sums,
                      at);
        ck_assert_msg(gemma4_sha256_file(page, found, &error) == 0, "%s", error.message);
        ck_assert_msg(
            !strcmp(found, expected),
            "%s was changed by hand: a program writes it (Makefile). If it did: make sums", page);
    }
    ck_assert_uint_ge(count, 3);
}
END_TEST

/* "**1. Choose", "**2. Copy": the steps of a page count up from 1. */
START_TEST(steps_are_numbered_from_one)
{
    size_t pages = 0;
    for (size_t i = 0; i < test_pages.gl_pathc; i++) {
        long expected = 1;
        for (const char *page = test_pages.gl_pathv[i], *at = test_read(page);
             (at = strstr(at, "\n**")) != NULL;) {
            char *end;
            at += 3;
            long step = strtol(at, &end, 10);
            if (end == at || strncmp(end, ". ", 2) != 0)
                continue;
            ck_assert_msg(step == expected, "%s: expected step %ld, found %ld", page, expected,
                          step);
            expected++;
        }
        pages += expected > 1;
    }
    ck_assert_uint_gt(pages, 4);
}
END_TEST

Suite *numbers_suite(void)
{
    Suite *suite = suite_create("numbers");
    TCase *c = tcase_create("all");
    tcase_add_unchecked_fixture(c, test_find_pages, test_free_pages);
    tcase_add_test(c, every_listed_number_stands_in_its_page);
    tcase_add_test(c, generated_pages_are_as_they_were_written);
    tcase_add_test(c, steps_are_numbered_from_one);
    suite_add_tcase(suite, c);
    return suite;
}
