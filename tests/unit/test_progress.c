/* What a long check shows while it runs, and what is left of one that is interrupted. */
#include "document.h"
#include "schema.h"
#include "suites.h"
#include "support.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_ARGUMENTS = 16 };

static char ref[PATH_MAX], check[PATH_MAX];

/* ---------------------------------------------------------------- running */

static char *file(const char *name)
{
    return test_path(name);
}

/* err: a file, or a terminal. */
static pid_t start(const char *program, const char *const *args, const char *err)
{
    char *argv[MOST_ARGUMENTS] = {(char *)program}, *out = file("out");
    for (size_t i = 0; args[i] && i + 2 < MOST_ARGUMENTS; i++)
        argv[i + 1] = (char *)args[i];
    pid_t child = fork();
    if (child == 0) {
        int to_out = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600),
            to_err = open(err, O_WRONLY | O_CREAT | O_TRUNC | O_NOCTTY, 0600);
        if (to_out < 0 || to_err < 0 || dup2(to_out, STDOUT_FILENO) < 0 ||
            dup2(to_err, STDERR_FILENO) < 0)
            _exit(126);
        signal(SIGINT, SIG_DFL); /* a shell's background job ignores it */
        execv(program, argv);
        _exit(127);
    }
    ck_assert(child > 0);
    return child;
}

/* The exit status; 256 and more: the signal. */
static int wait_for(pid_t child)
{
    int status;
    ck_assert(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

static size_t read_whole(const char *path, char *text, size_t size)
{
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, size - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = '\0';
    return n;
}

/* A dump of `tokens` tokens by the reference. */
static void dump(const char *path, size_t tokens, const char *taps)
{
    char list[4096] = "2";
    for (size_t i = 1; i < tokens; i++)
        sprintf(list + strlen(list), ",%zu", i % 100 + 3);
    const char *const args[] = {
        "dump", "--model", "golden/checkpoints/tiny", "--tokens", list, "--taps", taps, "--out",
        path,   NULL};
    ck_assert_int_eq(wait_for(start(ref, args, file("err"))), 0);
}

static void set_up(void)
{
    const char *build = getenv("GEMMA4_BUILD");
    build = build && *build ? build : "build";
    ck_assert(realpath(test_join(build, "gemma4-ref"), ref) &&
              realpath(test_join(build, "gemma4-check"), check));
}

/* -------------------------------------------------------------- what is shown */

START_TEST(a_check_is_silent_where_there_is_no_terminal)
{
    char err[4096];
    const char *const args[] = {"tiny-prompt", "golden/dumps/tiny-prompt-bfloat16.h5", NULL};
    ck_assert_int_eq(wait_for(start(check, args, file("err"))), 0);
    ck_assert_uint_eq(read_whole(file("err"), err, sizeof err), 0);
}
END_TEST

START_TEST(verbose_gives_a_first_verdict_of_each_layer)
{
    char err[4096];
    const char *const args[] = {
        "tiny-prompt", "golden/dumps/tiny-prompt-rope-pairing-contiguous.h5", "--verbose", NULL};
    ck_assert_int_eq(wait_for(start(check, args, file("err"))), 1);
    read_whole(file("err"), err, sizeof err);
    const char *right = strstr(err, "layer 4: 34 tensors compared, none diverges\n"),
               *wrong =
                   strstr(err, "layer 5: 34 tensors compared, layers.5.attn.q_rope diverges\n");
    ck_assert_msg(right && wrong && right < wrong, "%s", err);
    ck_assert_msg(strncmp(err, "embedding: 1 tensor", 19) == 0, "%s", err);
    ck_assert_msg(strstr(err, "head: ") > wrong && !strchr(err, '\r'), "%s", err);
}
END_TEST

START_TEST(a_terminal_gets_a_line_that_says_how_far_it_is)
{
    const char *const args[] = {"tiny-prompt", "golden/dumps/tiny-prompt-bfloat16.h5", NULL};
    char seen[8192];
    size_t n = 0;
    int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    ck_assert(terminal >= 0 && !grantpt(terminal) && !unlockpt(terminal));
    pid_t child = start(check, args, ptsname(terminal));
    for (ssize_t got;
         n + 1 < sizeof seen && (got = read(terminal, seen + n, sizeof seen - 1 - n)) > 0;)
        n += (size_t)got; /* an error once the other side is closed */
    seen[n] = '\0';
    ck_assert_int_eq(wait_for(child), 0);
    close(terminal);
    ck_assert_msg(strstr(seen, "\r\033[Klayer 1 of 12"), "%s", seen);
    ck_assert_msg(strstr(seen, "layer 7 of 12, about ") && strstr(seen, " left"), "%s", seen);
    ck_assert_msg(n >= 4 && strcmp(seen + n - 4, "\r\033[K") == 0, "the line is left: %s", seen);
}
END_TEST

/* -------------------------------------------------------------- interruption */

/* Until the text is in the file, or the process has ended. */
static void wait_until(const char *path, const char *text, pid_t child)
{
    static char found[65536];
    const struct timespec moment = {.tv_nsec = 1000000};
    do {
        ck_assert_msg(waitpid(child, NULL, WNOHANG) == 0, "it ended before it said '%s'", text);
        nanosleep(&moment, NULL);
        read_whole(path, found, sizeof found);
    } while (!strstr(found, text));
}

static void assert_report_is(const char *path, const char *verdict)
{
    gemma4_error error = {""};
    gemma4_document *schema = gemma4_document_read("spec/report.schema.json", &error),
                    *report = gemma4_document_read(path, &error);
    ck_assert_msg(schema && report, "%s", error.message);
    ck_assert_str_eq(
        test_schema_violation(gemma4_document_root(schema), gemma4_document_root(report)), "");
    const char *found = NULL;
    ck_assert_int_eq(gemma4_get_string(gemma4_document_root(report), "verdict", &found, &error), 0);
    ck_assert_str_eq(found, verdict);
    gemma4_document_free(report);
    gemma4_document_free(schema);
}

/* The signal reaches one process, as from kill, or both, as from a terminal. */
START_TEST(an_interrupted_check_ends_with_what_was_judged)
{
    static char out[65536];
    dump(file("long.h5"), 300, "all");
    const char *const args[] = {"--model",
                                "golden/checkpoints/tiny",
                                file("long.h5"),
                                "--verbose",
                                "--json",
                                file("long.json"),
                                "--junit",
                                file("long.xml"),
                                "--html",
                                file("long.html"),
                                NULL};
    pid_t child = start(check, args, file("err"));
    wait_until(file("err"), "layer 0: ", child);
    ck_assert_int_eq(kill(child, SIGINT), 0);
    ck_assert_int_eq(wait_for(child), 2);
    read_whole(file("out"), out, sizeof out);
    ck_assert_msg(strstr(out, "\nINCOMPLETE: interrupted when ") && strstr(out, " of 12 layers"),
                  "%s", out);
    ck_assert_msg(!strstr(out, "CONFORMS"), "%s", out);
    assert_report_is(file("long.json"), "INCOMPLETE");
    ck_assert_ptr_nonnull(strstr(test_read(file("long.xml")), "INCOMPLETE"));
    ck_assert_ptr_nonnull(strstr(test_read(file("long.html")), "INCOMPLETE"));
    read_whole(file("err"), out, sizeof out);
    ck_assert_msg(!strstr(out, "gemma4-check: "), "%s", out);
}
END_TEST

START_TEST(a_second_interrupt_kills)
{
    dump(file("long.h5"), 300, "logits");
    const char *const args[] = {"--model",
                                "golden/checkpoints/tiny",
                                file("long.h5"),
                                "--verbose",
                                "--json",
                                file("never.json"),
                                NULL};
    pid_t child = start(check, args, file("err"));
    wait_until(file("err"), "embedding: ", child);
    ck_assert_int_eq(kill(child, SIGINT), 0);
    ck_assert_int_eq(kill(child, SIGINT), 0);
    int status = wait_for(child);
    /* both may have come as one, or the check may have been done with the first */
    ck_assert_msg(status == 256 + SIGINT || status == 2, "%d", status);
    ck_assert(status == 2 || access(file("never.json"), F_OK) != 0);
}
END_TEST

Suite *progress_suite(void)
{
    Suite *suite = suite_create("progress");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 300);
    tcase_add_unchecked_fixture(all, set_up, NULL);
    tcase_add_test(all, a_check_is_silent_where_there_is_no_terminal);
    tcase_add_test(all, verbose_gives_a_first_verdict_of_each_layer);
    tcase_add_test(all, a_terminal_gets_a_line_that_says_how_far_it_is);
    tcase_add_test(all, an_interrupted_check_ends_with_what_was_judged);
    tcase_add_test(all, a_second_interrupt_kills);
    suite_add_tcase(suite, all);
    return suite;
}
