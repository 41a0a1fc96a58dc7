/* The ladder (spec/ladder.md): small checkpoints in each of which only a few features can move the
 * logits. An engine that shows nothing else runs all of them; which rungs fail, and what explains
 * them, says what is wrong with it. */
#ifndef GEMMA4_LADDER_H
#define GEMMA4_LADDER_H

#include "manifest.h"
#include "schedule.h"

typedef struct gemma4_counter_model gemma4_counter_model; /* counter_model.h */
typedef struct gemma4_point gemma4_point;                 /* point.h */

#include <stdio.h>

enum { GEMMA4_RUNG_NEEDS = 8 };

/* A rung is a case of its own, and needs what the rungs show that it stands on. */
typedef struct gemma4_rung {
    const char *name; /* the case's id */
    gemma4_case *the_case;
    size_t needs[GEMMA4_RUNG_NEEDS]; /* earlier rungs */
    size_t need_count;
} gemma4_rung;

typedef struct gemma4_ladder {
    gemma4_document *document;
    gemma4_rung *rungs; /* in the order in which they are judged */
    size_t count;
} gemma4_ladder;

/* Reads golden/ladder/ladder.yaml and the manifests of its rungs. */
int gemma4_ladder_open(gemma4_ladder *ladder, gemma4_error *error);
void gemma4_ladder_close(gemma4_ladder *ladder);
/* Writes every checkpoint of the ladder to directory/CHECKPOINT, and last directory/ladder.json,
 * which says what to feed to which of them. */
int gemma4_ladder_write(const gemma4_ladder *ladder, const char *directory, gemma4_error *error);

/* --- climbing --- */

typedef enum gemma4_rung_verdict {
    GEMMA4_RUNG_PASSES, /* with the causes found so far planted in what is expected */
    GEMMA4_RUNG_FAILS,
    GEMMA4_RUNG_NOT_JUDGED,  /* a rung that it needs fails, and nothing explains that */
    GEMMA4_RUNG_NOT_COVERED, /* there is no dump of it */
    GEMMA4_RUNG_UNUSABLE
} gemma4_rung_verdict;

enum { GEMMA4_RUNG_CAUSES = 4, GEMMA4_LADDER_CAUSES = 16, GEMMA4_LADDER_CANDIDATES = 16 };

typedef struct gemma4_rung_result {
    gemma4_rung_verdict verdict;
    double error, tolerance;           /* of the worst tensor, before new causes; NAN where it was
                                          not judged */
    gemma4_tap tap;                    /* which one that is */
    size_t carried;                    /* how many causes were known before */
    size_t found_before;               /* how many had been found when it was judged */
    bool searched;                     /* points of the space have been looked for */
    bool searched_pairs;               /* and pairs of the catalogue */
    size_t causes[GEMMA4_RUNG_CAUSES]; /* those that were found here */
    size_t cause_count;
    bool in_scope_only; /* a cause of it holds at some positions only: it is not
                                          planted, and the rung says nothing of other causes */
    size_t blocked_by;  /* NOT_JUDGED: the rung that fails unexplained */
    char message[500];  /* UNUSABLE: why; FAILS without a cause: what was measured */
} gemma4_rung_result;

/* One mistake that explains a cause. */
typedef struct gemma4_ladder_candidate {
    const gemma4_counter_model *model; /* of the catalogue, or point's */
    gemma4_point *point;               /* the candidate's own; NULL: catalogued */
    int only_layer;
} gemma4_ladder_candidate;

/* What explains a rung's failure. Candidates that an other rung contradicts are dropped. */
typedef struct gemma4_ladder_cause {
    gemma4_ladder_candidate candidates[GEMMA4_LADDER_CANDIDATES]; /* the best one first: that one is
                                                                     planted */
    size_t count;
    size_t rung;        /* where it was found */
    gemma4_scope scope; /* where not everywhere, it is not carried to other rungs */
} gemma4_ladder_cause;

typedef struct gemma4_climb {
    const gemma4_ladder *ladder;
    const char *dtype_option;                /* what --dtype says; NULL: as the dumps say */
    char engine[80], version[80], dtype[16]; /* of the first dump that could be read */
    gemma4_rung_result *results;             /* [ladder->count] */
    gemma4_ladder_cause causes[GEMMA4_LADDER_CAUSES];
    size_t cause_count;
    size_t judged_for_pairs;           /* how many rungs have been judged in search of pairs */
    char strangers[400];               /* names in the folder that are no rung's; "" for none */
    struct gemma4_opened_rung *opened; /* [ladder->count] */
} gemma4_climb;

/* The dump of a rung in a folder; path is "" where there is none. */
void gemma4_rung_dump(const char *folder, const gemma4_rung *rung, char *path, size_t size);
/* Judges the dumps at path: a folder with a file a rung, named as the rung is, or an HDF5 or
 * safetensors file with a group a rung. dtype: NULL, or the engine's arithmetic. Fails where
 * nothing can be judged at all; a single dump that cannot be is UNUSABLE in its result. */
int gemma4_climb_ladder(const gemma4_ladder *ladder, const char *path, const char *dtype,
                        gemma4_climb *climb, gemma4_error *error);
void gemma4_climb_free(gemma4_climb *climb);

/* How many rungs have that verdict. */
size_t gemma4_climb_count(const gemma4_climb *climb, gemma4_rung_verdict verdict);
/* 0: every rung that was judged passes; 1: one does not, or passes only with mistakes that were
 * found; 2: one cannot be judged. */
int gemma4_climb_status(const gemma4_climb *climb);
/* Other ids than the first candidate's that explain a cause as well: index 0 ...; NULL after the
 * last. */
const char *gemma4_ladder_equivalent(const gemma4_ladder_cause *cause, size_t index);

void gemma4_climb_text(FILE *out, const gemma4_climb *climb);
void gemma4_climb_json(FILE *out, const gemma4_climb *climb);
void gemma4_climb_junit(FILE *out, const gemma4_climb *climb);

/* gemma4-check ladder ...: argv after the word. The exit status. */
int gemma4_ladder_command(int argc, char **argv, gemma4_error *error);

#endif
