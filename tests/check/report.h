/* What gemma4-check found, and its forms: terminal, JSON, JUnit. */
#ifndef GEMMA4_REPORT_H
#define GEMMA4_REPORT_H

#include <stdio.h>

#include "compare.h"
#include "diagnose.h"
#include "routing.h"
#include "taps.h"

typedef enum gemma4_verdict { GEMMA4_PASS, GEMMA4_MARGINAL, GEMMA4_DIVERGES, GEMMA4_EXCUSED, GEMMA4_NOT_COVERED } gemma4_verdict;

/* An error beside its tolerance. */
typedef struct gemma4_measure {
    gemma4_metric_kind kind;
    double error, tolerance;
    size_t position; /* where it is worst */
} gemma4_measure;

typedef struct gemma4_tap_result {
    gemma4_tap tap;
    size_t layer;
    gemma4_verdict verdict;    /* by the local measure */
    gemma4_measure local;      /* the step on the engine's own inputs, in units of the spread that honest rounding has there */
    gemma4_measure accumulated; /* with all earlier errors in it */
    double added, inherited;   /* relative RMS of the step's own error, and of what its inputs brought along (NAN: not known) */
    gemma4_metrics metrics;    /* of the accumulated comparison */
    size_t worst_position, worst_index; /* the element that is furthest off, and both values of it */
    double worst_engine, worst_expected;
    double reference_agreement; /* relative RMS of the reference against the golden; 0 without one */
    char problem[200];         /* what is wrong beside the numbers: shape, NaN, expert sets; "" for nothing */
} gemma4_tap_result;

typedef enum gemma4_level { GEMMA4_PARTIAL, GEMMA4_LOGITS_LEVEL, GEMMA4_LAYERS_LEVEL, GEMMA4_FULL_LEVEL } gemma4_level;

typedef struct gemma4_report {
    bool conforms;
    gemma4_level level;
    const char *dtype, *case_id /* NULL without a case */, *engine, *engine_version;
    const char *expected_from; /* "golden" or "reference" */
    char expected_detail[200]; /* "transformers 5.23.0, float32; the reference agrees within 1.2e-06" */
    size_t golden_taps;        /* how many taps the golden holds */
    size_t layers;             /* of the model */
    size_t positions;
    size_t taps_covered, taps_of; /* required taps that were compared, and how many there are */
    bool *layer_covered;       /* [layers] any tap of it compared */
    gemma4_routing routing;
    const gemma4_tap_result *first_divergence; /* NULL where it conforms */
    gemma4_tap_result *taps;   /* every tap of the model, in dataflow order */
    size_t tap_count;
    gemma4_diagnosis *diagnosis;
    char notes[8][200];        /* remarks for the user */
    size_t note_count;
} gemma4_report;

void gemma4_report_note(gemma4_report *report, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *gemma4_verdict_name(gemma4_verdict verdict);
const char *gemma4_level_name(gemma4_level level);

void gemma4_report_text(FILE *out, const gemma4_report *report);
void gemma4_report_json(FILE *out, const gemma4_report *report);
void gemma4_report_junit(FILE *out, const gemma4_report *report);
/* The JSON of an input that could not be judged. */
void gemma4_report_json_unusable(FILE *out, const char *message);
void gemma4_report_junit_unusable(FILE *out, const char *message);
/* Text as a JSON string with its quotes; invalid UTF-8 becomes U+FFFD. */
void gemma4_json_string(FILE *out, const char *text);

#endif
