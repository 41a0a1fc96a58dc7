/* `gemma4-check compare`: two dumps of the same tokens, tap by tap (spec/report.md, "Two dumps
 * compared"). */
#ifndef GEMMA4_COMPARE_DUMPS_H
#define GEMMA4_COMPARE_DUMPS_H

#include <stdio.h>

#include "activations.h"
#include "compare.h"

/* One tap that both dumps hold. */
typedef struct gemma4_tap_difference {
    gemma4_tap tap;
    size_t layer;
    bool compared, differs;
    char note[400];   /* why it was not compared, or why it differs without having been; else "" */
    size_t positions; /* that were compared */
    /* Of reals: */
    gemma4_metrics metrics; /* a is the expected one; no cosine and no norm_ratio */
    double worst;           /* the largest difference of finite values, and where it is */
    size_t worst_position, worst_index;
    float worst_a, worst_b;
    size_t nonfinite; /* values that are NaN or infinite in one and not the same in the other */
    size_t nonfinite_position, nonfinite_index; /* the first of them */
    /* Of ids: positions that have another set, and the first of them. */
    size_t other_sets, other_sets_position;
} gemma4_tap_difference;

typedef struct gemma4_dumps_compared {
    const char *path_a, *path_b;
    gemma4_activations *a, *b;
    const gemma4_config *config; /* the model's, for shapes and masks; NULL: the files' own shapes,
                                    and no scores */
    double tolerance;            /* of relative RMS and position RMS; 0: any difference counts */
    size_t slice_bytes;          /* of each file's values in memory, but one position at least */
    /* The result: */
    gemma4_tap_difference *taps; /* [count] those that both hold, in dataflow order */
    size_t count;
    size_t compared, differing;         /* how many of them */
    const gemma4_tap_difference *first; /* that differs; NULL: none */
} gemma4_dumps_compared;

/* The slices of the command. */
enum { GEMMA4_COMPARE_SLICE = 8 << 20 };

/* Fills the result, of zeros before; free(taps) afterwards, whatever is returned. Fails where
 * tokens or positions differ, where nothing is there to be compared, and where a file cannot be
 * read. */
int gemma4_compare_dumps(gemma4_dumps_compared *dumps, gemma4_error *error);

void gemma4_compare_text(FILE *out, const gemma4_dumps_compared *dumps);
void gemma4_compare_json(FILE *out, const gemma4_dumps_compared *dumps);
void gemma4_compare_json_unusable(FILE *out, const char *message);

/* argv[0 ... argc-1] are the words after the command. The exit status, or -1 where nothing has been
 * said yet. */
int gemma4_compare_command(int argc, char **argv, gemma4_error *error);

#endif
