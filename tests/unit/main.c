/* Runs every unit test suite. Exits with failure where a test failed, and where none ran. */
#include <stdlib.h>

#include "suites.h"
#include "support.h"

int main(void)
{
    static Suite *(*const suites[])(void) = {document_suite, config_suite, safetensors_suite, model_suite, taps_suite, activations_suite,
                                             options_suite, ops_suite, forward_suite, synth_suite, compare_suite,
                                             case_suite, report_suite, golden_suite, judge_suite, counter_model_suite, cli_suite};
    test_dir(); /* made here, so that it is removed at the end whatever the forked tests do */
    SRunner *runner = srunner_create(NULL);
    for (size_t i = 0; i < sizeof suites / sizeof *suites; i++)
        srunner_add_suite(runner, suites[i]());
    srunner_run_all(runner, CK_NORMAL);
    int run = srunner_ntests_run(runner), failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return run > 0 && failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
