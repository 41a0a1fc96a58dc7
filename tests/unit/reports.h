/* What the tests of the report's forms share: a shipped dump's report, and whether markup is
 * well-formed. */
#ifndef GEMMA4_TEST_REPORTS_H
#define GEMMA4_TEST_REPORTS_H

#include "judge.h"

/* A dump of a case, judged. */
typedef struct test_judged {
    gemma4_case *the_case;
    gemma4_model *model;
    gemma4_judgement judgement;
    gemma4_report report;
} test_judged;

test_judged test_judge_dump(const char *case_id, const char *dump, const char *dtype);
void test_judged_free(test_judged *judged);

/* What a writer prints, to be freed. */
char *test_printed(void (*write)(FILE *, const gemma4_report *), const gemma4_report *report);
char *test_printed_message(void (*write)(FILE *, const char *), const char *message);

/* Where the markup of XML or of an HTML page that is XML as well goes wrong; NULL where tags are
 * balanced, attributes quoted, and & and < stand for nothing else. */
const char *test_malformed(const char *text);

/* How often what is in text. */
size_t test_occurrences(const char *text, const char *what);

#endif
