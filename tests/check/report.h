/* What gemma4-check found, and its forms: terminal (report_text.c), JSON, JUnit, and the page for a
 * browser (report_html.h). */
#ifndef GEMMA4_REPORT_H
#define GEMMA4_REPORT_H

#include <stdio.h>

#include "compare.h"
#include "routing_counts.h"
#include "taps.h"

typedef struct gemma4_cause gemma4_cause;           /* causes.h */
typedef struct gemma4_diagnosis gemma4_diagnosis;   /* diagnose.h */
typedef struct gemma4_fit gemma4_fit;               /* fit.h */
typedef struct gemma4_import_log gemma4_import_log; /* import.h */

typedef enum gemma4_verdict {
    GEMMA4_PASS,
    GEMMA4_MARGINAL,
    GEMMA4_DIVERGES,
    GEMMA4_EXCUSED,
    GEMMA4_NOT_COVERED
} gemma4_verdict;

/* An error beside its tolerance. */
typedef struct gemma4_measure {
    gemma4_metric_kind kind;
    double error;
    double tolerance; /* NAN: none applies to the engine's arithmetic */
    size_t position;  /* where it is worst */
} gemma4_measure;

typedef struct gemma4_tap_result {
    gemma4_tap tap;
    size_t layer;
    gemma4_verdict verdict;             /* by the local measure */
    gemma4_measure local;               /* the step on the engine's own inputs, in units of the
                                           spread that honest rounding has there */
    gemma4_measure accumulated;         /* with all earlier errors in it: decides nothing */
    double added, inherited;            /* relative RMS of the step's own error, and of what its
                                           inputs brought along (NAN: not known) */
    gemma4_metrics metrics;             /* of the accumulated comparison */
    size_t worst_position, worst_index; /* the element that is furthest off, and both values of
                                           it */
    double worst_engine, worst_expected;
    size_t rows, rows_left_out; /* positions that were compared, and that are in the dump but cannot
                                   be */
    double reference_agreement; /* relative RMS of the reference against the golden; 0 without
                                   one */
    char problem[200];          /* what is wrong beside the numbers: shape, NaN, expert sets; "" for
                                   nothing */
} gemma4_tap_result;

typedef enum gemma4_level {
    GEMMA4_PARTIAL,
    GEMMA4_LOGITS_LEVEL,
    GEMMA4_LAYERS_LEVEL,
    GEMMA4_FULL_LEVEL
} gemma4_level;

enum {
    GEMMA4_MAX_NOTES = 8,
    GEMMA4_NOTE_SIZE = 200,
    GEMMA4_MAX_WARNINGS = 16,
    GEMMA4_WARNING_SIZE = 300
};

typedef struct gemma4_report {
    bool conforms;        /* no tap fails, and the dump covers what is required: exit status 0 */
    bool incomplete;      /* interrupted: no verdict, exit status 2 */
    size_t blocks_judged; /* of layers + 2: the embedding, the layers, the head */
    gemma4_level level;
    gemma4_level required; /* what --require asks for; PARTIAL: nothing */
    const char *dtype, *case_id /* NULL without a case */, *engine, *engine_version;
    const char *expected_from; /* "golden" or "reference" */
    const char *golden_sha256; /* NULL without a case */
    char expected_detail[200]; /* "transformers 5.23.0, float32; the reference agrees within
                                  1.2e-06" */
    size_t golden_taps;        /* how many taps the golden holds */
    size_t layers;             /* of the model */
    size_t positions;
    size_t taps_covered, taps_of; /* required taps that were compared, and how many there are */
    size_t full_in_part, layers_in_part; /* of the tensors that these levels ask for, how many hold
                                            too few positions to count for --require */
    bool *layer_covered;                 /* [layers] any tap of it compared */
    gemma4_routing routing;
    const gemma4_tap_result *first_divergence; /* NULL where it conforms */
    gemma4_tap_result *taps;                   /* every tap of the model, in dataflow order */
    size_t tap_count;
    gemma4_diagnosis *diagnosis;
    const gemma4_import_log *import;                /* what a map did; NULL without one */
    char notes[GEMMA4_MAX_NOTES][GEMMA4_NOTE_SIZE]; /* remarks for the user */
    size_t note_count;
    char warnings[GEMMA4_MAX_WARNINGS][GEMMA4_WARNING_SIZE]; /* what makes the verdict worth less
                                                                than it seems: shown beside it */
    size_t warning_count;
} gemma4_report;

/* A note too many is left out; of a warning too many the last one says that there are more. */
void gemma4_report_note(gemma4_report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void gemma4_report_warn(gemma4_report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* --- what all forms say alike --- */

const char *gemma4_verdict_name(gemma4_verdict verdict);
const char *gemma4_level_name(gemma4_level level);
/* Whether the tap was compared as numbers: not where it is absent, holds ids, or has a wrong
 * shape. */
bool gemma4_has_numbers(const gemma4_tap_result *result);
/* The step's error as a part of its tolerance; infinite where none is allowed. NAN stays NAN. */
double gemma4_part_of_tolerance(const gemma4_tap_result *result);
/* Whether a result is nearer to its tolerance, or further beyond; what fails is always worse than
 * what does not. Anything is than NULL. */
bool gemma4_is_worse(const gemma4_tap_result *result, const gemma4_tap_result *than);

/* What is known of one kind of tap over all its layers. */
typedef struct gemma4_kind_summary {
    size_t of, covered, failed;
    const gemma4_tap_result *worst; /* NULL where nothing was compared */
} gemma4_kind_summary;

gemma4_kind_summary gemma4_summarize(const gemma4_report *report, gemma4_tap tap);
/* Whether no fault was found, but in too little for a verdict. */
bool gemma4_is_inconclusive(const gemma4_report *report);
/* Whether --require asks for more than the dump covers. */
bool gemma4_falls_short(const gemma4_report *report);

enum { GEMMA4_SENTENCE_SIZE = 1600 };
typedef struct gemma4_sentence {
    char text[GEMMA4_SENTENCE_SIZE];
} gemma4_sentence;

/* "CONFORMS", "DOES NOT CONFORM", or that no fault was found in the few tensors that were
 * covered. */
gemma4_sentence gemma4_conclusion(const gemma4_report *report);
/* What --require asked for and did not get; "" where it does not fall short. */
gemma4_sentence gemma4_shortfall(const gemma4_report *report);
/* How far a step that has numbers is off, and what was allowed. */
gemma4_sentence gemma4_measure_sentence(const gemma4_tap_result *result);

/* --- causes (report_cause.c) --- */

/* The mistake's id; of one that is in no catalogue, its parameters; "a mistake of the dump", or
 * "unknown". */
const char *gemma4_cause_name(const gemma4_cause *cause);
/* "Cause", or where nothing explains it, "Cause unknown". */
const char *gemma4_cause_heading(const gemma4_cause *cause);
/* The mistake, where it is seen first, what is wrong and what is right; or what was measured of an
 * error that nothing explains. */
gemma4_sentence gemma4_cause_sentence(const gemma4_cause *cause);
/* The same words, a line each for the terminal. */
gemma4_sentence gemma4_cause_lines(const gemma4_cause *cause);
/* Of a cause that nothing explains: the settings that explain part of it, and how much; "" for
 * none. */
gemma4_sentence gemma4_nearest_sentence(const gemma4_cause *cause);
/* The best of the mistakes that do not fit, where naming it helps: where it leaves less than half
 * of the error by a coefficient near 1. Else NULL. */
const gemma4_fit *gemma4_runner_up(const gemma4_cause *cause);
/* The cause that explains why a tap fails; NULL where none was found for it. */
const gemma4_cause *gemma4_cause_of(const gemma4_report *report, const gemma4_tap_result *result);

/* --- the forms --- */

void gemma4_report_text(FILE *out, const gemma4_report *report);
void gemma4_report_json(FILE *out, const gemma4_report *report);
void gemma4_report_junit(FILE *out, const gemma4_report *report);
/* The part of each that tells what a map did (report_map.c); of the text nothing where there was
 * none. */
void gemma4_report_map_text(FILE *out, const gemma4_report *report);
void gemma4_report_map_json(FILE *out, const gemma4_report *report);
/* The same in parts, for reports of several dumps in one file: label tells those of one case apart
 * in the classnames. */
void gemma4_report_junit_begin(FILE *out);
void gemma4_report_junit_suite(FILE *out, const gemma4_report *report, const char *label);
void gemma4_report_junit_suite_unusable(FILE *out, const char *message, const char *label);
void gemma4_report_junit_end(FILE *out);
/* Of an input that could not be judged. */
void gemma4_report_json_unusable(FILE *out, const char *message);
void gemma4_report_junit_unusable(FILE *out, const char *message);

#endif
