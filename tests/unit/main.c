/* Runs every unit test suite. Exits with failure where a test failed, and where none ran. */
#include <stdlib.h>

#include "suites.h"
#include "support.h"

int main(void)
{
    test_dir(); /* made here, so that it is removed at the end whatever the forked tests do */
    SRunner *runner = srunner_create(document_suite());
    srunner_add_suite(runner, config_suite());
    srunner_add_suite(runner, safetensors_suite());
    srunner_add_suite(runner, model_suite());
    srunner_add_suite(runner, activations_suite());
    srunner_run_all(runner, CK_NORMAL);
    int run = srunner_ntests_run(runner), failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return run > 0 && failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
