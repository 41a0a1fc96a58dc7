/* Schedules (tests/check/schedule.h): how an engine was fed, and which positions one of its code
 * paths computed. */
#include "schedule.h"
#include "suites.h"
#include "support.h"

static gemma4_schedule schedule_of(const char *text, size_t T)
{
    gemma4_error error = {""};
    gemma4_schedule s;
    ck_assert_int_eq(gemma4_schedule_init(&s, text, T, &error), 0);
    return s;
}

START_TEST(a_chunk_begins_and_ends_where_its_length_says)
{
    static const size_t starts[] = {0, 0, 0, 3, 4, 4}, ends[] = {3, 3, 3, 4, 6, 6};
    gemma4_schedule s = schedule_of("3,1,2", 6);
    ck_assert(s.known);
    ck_assert_uint_eq(s.chunks, 3);
    for (size_t t = 0; t < 6; t++) {
        ck_assert_uint_eq(s.chunk_start[t], starts[t]);
        ck_assert_uint_eq(s.chunk_end[t], ends[t]);
    }
    gemma4_schedule_free(&s);
}
END_TEST

/* Absent; too long, too short; no numbers. */
static const char *const NONSENSE[] = {NULL,  "",    "7",     "3,4",  "5",
                                       "3,2", "0,6", "3,0,3", "-6",   "6x",
                                       "3;3", "x",   ",6",    "3,,3", "99999999999999999999"};

START_TEST(a_schedule_that_is_none_is_one_chunk_and_not_known)
{
    gemma4_schedule s = schedule_of(NONSENSE[_i], 6);
    ck_assert(!s.known);
    ck_assert_uint_eq(s.chunks, 1);
    for (size_t t = 0; t < 6; t++) {
        ck_assert_uint_eq(s.chunk_start[t], 0);
        ck_assert_uint_eq(s.chunk_end[t], 6);
    }
    gemma4_schedule_free(&s);
}
END_TEST

/* A first chunk of one token is a prompt, not decoding: nothing was in the cache. */
START_TEST(a_scope_is_the_positions_of_one_code_path)
{
    static const bool decoded[] = {false, false, true, false, false, true},
                      later[] = {false, false, true, true, true, true};
    gemma4_schedule s = schedule_of("2,1,2,1", 6), single = schedule_of("1,1", 2);
    for (size_t t = 0; t < 6; t++) {
        ck_assert(gemma4_in_scope(&s, GEMMA4_EVERYWHERE, t));
        ck_assert_int_eq(gemma4_in_scope(&s, GEMMA4_DECODE_ONLY, t), decoded[t]);
        ck_assert_int_eq(gemma4_in_scope(&s, GEMMA4_AFTER_FIRST_CHUNK, t), later[t]);
        ck_assert_int_eq(gemma4_in_scope(&s, GEMMA4_FIRST_CHUNK_ONLY, t), !later[t]);
    }
    ck_assert(!gemma4_in_scope(&single, GEMMA4_DECODE_ONLY, 0));
    ck_assert(gemma4_in_scope(&single, GEMMA4_DECODE_ONLY, 1));
    gemma4_schedule_free(&s);
    gemma4_schedule_free(&single);
}
END_TEST

START_TEST(every_scope_has_its_words)
{
    ck_assert_str_eq(gemma4_scope_text(GEMMA4_EVERYWHERE), "");
    ck_assert_str_eq(gemma4_scope_text(GEMMA4_DECODE_ONLY), "in positions fed one at a time");
    ck_assert_str_eq(gemma4_scope_text(GEMMA4_AFTER_FIRST_CHUNK), "in chunks after the first");
    ck_assert_str_eq(gemma4_scope_text(GEMMA4_FIRST_CHUNK_ONLY), "in the first chunk");
}
END_TEST

Suite *schedule_suite(void)
{
    Suite *suite = suite_create("schedule");
    TCase *c = tcase_create("schedule");
    tcase_add_test(c, a_chunk_begins_and_ends_where_its_length_says);
    tcase_add_loop_test(c, a_schedule_that_is_none_is_one_chunk_and_not_known, 0,
                        sizeof NONSENSE / sizeof *NONSENSE);
    tcase_add_test(c, a_scope_is_the_positions_of_one_code_path);
    tcase_add_test(c, every_scope_has_its_words);
    suite_add_tcase(suite, c);
    return suite;
}
