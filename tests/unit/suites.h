/* The unit test suites; main.c runs them all. One file a subject. */
#ifndef GEMMA4_TEST_SUITES_H
#define GEMMA4_TEST_SUITES_H

#include <check.h>

Suite *document_suite(void);
Suite *config_suite(void);
Suite *safetensors_suite(void);
Suite *model_suite(void);
Suite *activations_suite(void);

#endif
