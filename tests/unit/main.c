/* Runs every unit test suite, in as many processes as there are processors. Exits with failure
 * where a test failed, where a process died, and where none ran. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "suites.h"
#include "support.h"

/* The slowest first: a process takes the next one when it is done with one. */
static Suite *(*const suites[])(void) = {
    identify_suite,      judge_suite,
    dumps_suite,         cli_suite,
    counter_model_suite, activations_suite,
    forward_suite,       golden_suite,
    long_suite,          listed_suite,
    selftest_suite,      diagnose_suite,
    recognise_suite,     document_suite,
    progress_suite,      head_parts_suite,
    remembered_suite,    synth_suite,
    safetensors_suite,   report_html_suite,
    case_suite,          config_suite,
    model_suite,         causes_suite,
    describe_suite,      filter_suite,
    fit_suite,           changes_suite,
    point_suite,         ops_suite,
    report_suite,        taps_suite,
    options_suite,       compare_suite,
    twins_suite,         report_junit_suite,
    spec_suite,          near_names_suite,
    pages_suite,         evidence_suite,
    schedule_suite,      noise_suite,
    score_suite,         tap_compare_suite,
    routing_suite,       replay_suite,
    sample_suite,        report_identified_suite,
    map_suite,           engine_maps_suite,
    import_suite,        several_suite,
    ladder_suite,        schema_suite,
    dump_header_suite,   sandbox_suite,
    outputs_suite,       identify_rooms_suite,
    walkthrough_suite,   quotes_suite,
    numbers_suite,       fuzz_suite,
    lies_suite,          cliffs_suite,
    blocks_suite,        gguf_suite,
    gguf_hostile_suite,  compare_dumps_suite,
};
enum { SUITES = sizeof suites / sizeof *suites, MOST_PROCESSES = 8, SECONDS_AT_MOST = 1800 };

/* Runs one suite, without forks: this process is the isolation, and a fork for every test would
 * cost more than the tests (CK_FORK=yes forks all the same). Returns whether all passed, and one at
 * least ran. */
static bool passes(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, getenv("CK_FORK") ? CK_FORK_GETENV : CK_NOFORK);
    srunner_run_all(runner, CK_NORMAL);
    int run = srunner_ntests_run(runner), failed = srunner_ntests_failed(runner);
    /* then there may be none of them in this suite */
    bool chosen = getenv("CK_RUN_SUITE") || getenv("CK_RUN_CASE");
    srunner_free(runner);
    return failed == 0 && (run > 0 || chosen);
}

/* One process: runs the suites whose numbers it takes from the queue, until that is empty. */
static int run_queue(int queue)
{
    bool good = true;
    unsigned char next;
    test_dir(); /* made here, so that it is removed at the end whatever the forked tests do */
    alarm(SECONDS_AT_MOST);
    while (read(queue, &next, 1) == 1)
        good = passes(suites[next]()) && good;
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(void)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    size_t parts = processors < 1                ? 1
                   : processors > MOST_PROCESSES ? MOST_PROCESSES
                                                 : (size_t)processors;
    size_t bad = 0, started = 0;
    unsigned char numbers[SUITES];
    int queue[2];
    for (size_t i = 0; i < SUITES; i++)
        numbers[i] = (unsigned char)i;
    if (pipe(queue) || write(queue[1], numbers, SUITES) != SUITES)
        return EXIT_FAILURE;
    close(queue[1]);
    for (; started < parts; started++) {
        pid_t child = fork();
        if (child == 0)
            return run_queue(queue[0]);
        if (child < 0)
            break;
    }
    for (size_t i = 0; i < started; i++) {
        int status;
        bad += wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != EXIT_SUCCESS;
    }
    return started == parts && bad == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
