/* Runs every unit test suite, in as many processes as there are processors. Exits with failure where a test failed, where a process
 * died, and where none ran. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "suites.h"
#include "support.h"

/* The slowest first, so that dealing them out in turn balances. */
static Suite *(*const suites[])(void) = {
    cli_suite,     judge_suite,  golden_suite,      counter_model_suite, activations_suite, forward_suite, model_suite,   document_suite,
    config_suite,  safetensors_suite, synth_suite, ops_suite,       case_suite,    report_suite, report_html_suite, taps_suite,  options_suite, compare_suite,
    selftest_suite,
};
enum { SUITES = sizeof suites / sizeof *suites, MOST_PROCESSES = 8, SECONDS_AT_MOST = 1800 };

/* Process `part` of `parts`: every parts-th suite. */
static int run_part(size_t part, size_t parts)
{
    test_dir(); /* made here, so that it is removed at the end whatever the forked tests do */
    SRunner *runner = NULL;
    for (size_t i = part; i < SUITES; i += parts) {
        if (runner)
            srunner_add_suite(runner, suites[i]());
        else
            runner = srunner_create(suites[i]());
    }
    /* This process is the isolation: a fork for every test would cost more than the tests (CK_FORK=yes forks all the same). */
    srunner_set_fork_status(runner, getenv("CK_FORK") ? CK_FORK_GETENV : CK_NOFORK);
    alarm(SECONDS_AT_MOST);
    srunner_run_all(runner, CK_NORMAL);
    int run = srunner_ntests_run(runner), failed = srunner_ntests_failed(runner);
    bool chosen = getenv("CK_RUN_SUITE") || getenv("CK_RUN_CASE"); /* then another process may have them all */
    srunner_free(runner);
    return failed == 0 && (run > 0 || chosen) ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(void)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    size_t parts = processors < 1 ? 1 : processors > MOST_PROCESSES ? MOST_PROCESSES : (size_t)processors;
    size_t bad = 0, started = 0;
    for (; started < parts; started++) {
        pid_t child = fork();
        if (child == 0)
            return run_part(started, parts);
        if (child < 0)
            break;
    }
    for (size_t i = 0; i < started; i++) {
        int status;
        bad += wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != EXIT_SUCCESS;
    }
    return started == parts && bad == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
