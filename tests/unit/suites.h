/* The unit test suites; main.c runs them all. One file a subject. */
#ifndef GEMMA4_TEST_SUITES_H
#define GEMMA4_TEST_SUITES_H

#include <check.h>

Suite *document_suite(void);
Suite *config_suite(void);
Suite *safetensors_suite(void);
Suite *model_suite(void);
Suite *taps_suite(void);
Suite *spec_suite(void);
Suite *near_names_suite(void);
Suite *pages_suite(void);
Suite *activations_suite(void);
Suite *map_suite(void);
Suite *import_suite(void);
Suite *options_suite(void);
Suite *ops_suite(void);
Suite *forward_suite(void);
Suite *synth_suite(void);
Suite *compare_suite(void);
Suite *case_suite(void);
Suite *report_suite(void);
Suite *report_html_suite(void);
Suite *report_junit_suite(void);
Suite *golden_suite(void);
Suite *evidence_suite(void);
Suite *dumps_suite(void);
Suite *replay_suite(void);
Suite *routing_suite(void);
Suite *score_suite(void);
Suite *tap_compare_suite(void);
Suite *schedule_suite(void);
Suite *noise_suite(void);
Suite *judge_suite(void);
Suite *listed_suite(void);
Suite *several_suite(void);
Suite *schema_suite(void);
Suite *dump_header_suite(void);
Suite *recognise_suite(void);
Suite *counter_model_suite(void);
Suite *cli_suite(void);
Suite *causes_suite(void);
Suite *describe_suite(void);
Suite *diagnose_suite(void);
Suite *filter_suite(void);
Suite *fit_suite(void);
Suite *point_suite(void);
Suite *changes_suite(void);
Suite *identify_suite(void);
Suite *selftest_suite(void);
Suite *sample_suite(void);
Suite *twins_suite(void);
Suite *report_identified_suite(void);

#endif
