/* Which known mistake explains what replay found? (spec/diagnosis.md)
 *
 * Where a step fails, the counter-models of that step predict what an engine with their mistake would have, from the same inputs. The
 * one that leaves nothing but noise is the cause. Where nothing fails, the same predictions serve as matched filters: the error is
 * projected on the difference that each mistake would make, over all layers together. */
#ifndef GEMMA4_DIAGNOSE_H
#define GEMMA4_DIAGNOSE_H

#include "replay.h"

#define GEMMA4_NO_MODEL ((size_t)-1)

/* How a counter-model fits one tap. */
typedef struct gemma4_fit {
    size_t model;        /* index in the catalogue */
    size_t second;       /* of a pair: the other one; GEMMA4_NO_MODEL where one explains it alone */
    int only_layer;      /* -1: planted in all layers that it concerns */
    gemma4_scope scope;
    double coefficient;  /* of the error on the predicted difference: 1 is the mistake, 0 is none */
    double residual;     /* score of what is left, in spreads of honest rounding */
    double worst;        /* of what is left, at the worst position */
    double error;        /* score of the whole error, in the same units as residual; 0: not known */
} gemma4_fit;

enum { GEMMA4_MAX_FITS = 8, GEMMA4_MAX_EQUIVALENT = 3 };

/* A tap that failed, and what fits it, best first. */
typedef struct gemma4_finding {
    gemma4_tap tap;
    size_t layer;
    gemma4_fit fits[GEMMA4_MAX_FITS]; /* those that explain it */
    size_t fit_count;
    bool has_near;
    gemma4_fit near;     /* the best of those that do not */
    char description[300]; /* what can be measured of the error */
} gemma4_finding;

/* One cause and everything that it explains. */
typedef struct gemma4_cause {
    bool explained;      /* false: no counter-model fits; description says what can be measured */
    size_t model;
    size_t second;       /* the mistake that explains it together with this one; GEMMA4_NO_MODEL where it does so alone */
    gemma4_tap tap;      /* where it is seen first */
    size_t first_layer;
    size_t taps;         /* how many failing taps it explains */
    char layers[120];    /* "0-4, 6" or "5, 11" */
    double coefficient, residual;
    gemma4_scope scope;
    bool below_bound;    /* found by the matched filter: no single tap failed */
    size_t equivalent[GEMMA4_MAX_EQUIVALENT], equivalent_count; /* other ids' models that fit as well */
    bool has_near;       /* the runner-up */
    gemma4_fit near;
    char description[300];
} gemma4_cause;

typedef struct gemma4_diagnosis gemma4_diagnosis;

/* NULL when out of memory. */
gemma4_diagnosis *gemma4_diagnosis_new(const gemma4_model *model, gemma4_error *error);
void gemma4_diagnosis_free(gemma4_diagnosis *diagnosis);
/* Looks at the replayed block: failed says which of its taps failed. */
int gemma4_diagnose_block(gemma4_diagnosis *diagnosis, gemma4_replay *replay, const bool failed[GEMMA4_TAP_COUNT], gemma4_error *error);
/* After the last block: findings become causes, best first. */
int gemma4_diagnose_conclude(gemma4_diagnosis *diagnosis, gemma4_error *error);
/* 0 where diagnosis is NULL. */
size_t gemma4_cause_count(const gemma4_diagnosis *diagnosis);
const gemma4_cause *gemma4_cause_at(const gemma4_diagnosis *diagnosis, size_t index);

#endif
