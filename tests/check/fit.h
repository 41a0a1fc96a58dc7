/* Which known mistakes explain the error at a failing tap? (spec/diagnosis.md)
 *
 * The counter-models that can act there predict what an engine with their mistake would have, from
 * the same inputs. One that leaves nothing but noise explains the tap. */
#ifndef GEMMA4_FIT_H
#define GEMMA4_FIT_H

#include <stdbool.h>
#include <stddef.h>

#include "dump_mistake.h"
#include "schedule.h"
#include "taps.h"

typedef struct gemma4_counter_model gemma4_counter_model; /* counter_model.h */
typedef struct gemma4_evidence gemma4_evidence;           /* evidence.h */
typedef struct gemma4_planted gemma4_planted;             /* planted.h */
typedef struct gemma4_point gemma4_point;                 /* point.h */
typedef struct gemma4_runner gemma4_runner;               /* block_run.h */

#define GEMMA4_NO_MODEL ((size_t)-1)

/* How a counter-model fits one tap. */
typedef struct gemma4_fit {
    size_t model;   /* index in the catalogue */
    size_t second;  /* of a pair: the other one; GEMMA4_NO_MODEL where one explains it alone */
    int only_layer; /* -1: planted in all layers that it concerns */
    gemma4_scope scope;
    double coefficient; /* of the error on the predicted difference: 1 is the mistake, 0 is none */
    double residual;    /* score of what is left, in spreads of honest rounding */
    double worst;       /* of what is left, at the worst position */
    double error;       /* score of the error itself, at the same positions */
    double share;       /* the part of the error's energy that the best multiple of the predicted
                            difference explains */
} gemma4_fit;

/* mutants: GEMMA4_MAX_POINTS +1, -1, x2 survive: a bound of memory; the plainer ones stay */
enum { GEMMA4_MAX_FITS = 8, GEMMA4_MAX_POINTS = 16 };

/* A point of the space that explains a tap. */
typedef struct gemma4_point_fit {
    gemma4_point *point;
    gemma4_scope scope;
    int only_layer;               /* -1: in all layers of the kinds that it concerns */
    double coefficient, residual; /* as in gemma4_fit */
} gemma4_point_fit;

/* A tap that failed, and what fits it, best first. */
typedef struct gemma4_finding {
    gemma4_tap tap;
    size_t layer;
    double error;                     /* its score, in spreads of honest rounding */
    gemma4_fit fits[GEMMA4_MAX_FITS]; /* those that explain it */
    size_t fit_count;
    gemma4_point_fit points[GEMMA4_MAX_POINTS]; /* where no catalogued mistake explains it: the
                                                   finding's own, the fewest settings first */
    size_t point_count;
    bool has_near;
    gemma4_fit near;             /* the best of those that do not */
    gemma4_fit *partial;         /* [catalogue] what each model planted everywhere leaves; model is
                            GEMMA4_NO_MODEL where it has no effect here */
    gemma4_dump_mistake mistake; /* of the dump: nothing else is to be explained */
    char description[300];       /* what can be measured of the error */
    char nearest[420];    /* of an error that nothing explains: what the point of the space says
                              that explains most of it; "" where that is not half */
    double nearest_share; /* how much: of its energy */
} gemma4_finding;

/* What an engine with the planted mistakes would have at the evidence's tap: values is [T, width].
 * open ([T]) receives the positions whose choice of experts is not settled. positions: only the
 * first so many are computed, the rest is as expected; 0: all. */
int gemma4_predict(const gemma4_evidence *evidence, gemma4_runner *runner,
                   const gemma4_planted *planted, gemma4_tap tap, size_t positions,
                   gemma4_real *values, bool *open, gemma4_error *error);

/* Could a mistake of the first planted model show at tap, given what was injected before it? False
 * for what the tier permits. */
bool gemma4_can_show(const gemma4_evidence *evidence, const gemma4_planted *planted,
                     gemma4_tap tap);
/* Do all the steps before tap that the model computes otherwise have their results in the dump?
 * Then what it predicts at tap follows from that one step. */
bool gemma4_is_one_step(const gemma4_evidence *evidence, const gemma4_counter_model *model,
                        gemma4_tap tap);

/* Fills the finding of a failing tap. earlier are the findings of the blocks before: what explained
 * the same tap there is tried first, and where nothing did, twice, the expensive part of the search
 * is not made again. -1 where a run fails. */
int gemma4_find_fits(const gemma4_evidence *evidence, gemma4_runner *runner, gemma4_tap tap,
                     const gemma4_finding *earlier, size_t earlier_count, gemma4_finding *finding,
                     gemma4_error *error);
void gemma4_finding_free(gemma4_finding *finding);

#endif
