/* Causes: findings that one mistake explains are one cause; what cannot be told apart is listed as
 * equivalent (spec/diagnosis.md). */
#ifndef GEMMA4_CAUSES_H
#define GEMMA4_CAUSES_H

#include "fit.h"
#include "point.h"

typedef struct gemma4_filtered gemma4_filtered; /* filter.h */

/* mutants: GEMMA4_MAX_EQUIVALENT_POINTS +1, -1, x2 survive: how many are listed */
enum { GEMMA4_MAX_EQUIVALENT = 3, GEMMA4_MAX_EQUIVALENT_POINTS = 8 };

/* One cause and everything that it explains. */
typedef struct gemma4_cause {
    bool explained; /* false: no counter-model fits; description says what can be measured */
    bool of_dump;   /* a mistake of the dump, not of the engine: description says which; not
                            explained */
    size_t model;   /* of the catalogue; GEMMA4_NO_MODEL where a point of the space explains
                            it */
    const gemma4_point *point; /* that point, of one of the findings; else NULL */
    /* other points that fit as well */
    const gemma4_point *equivalent_points[GEMMA4_MAX_EQUIVALENT_POINTS];
    size_t equivalent_point_count;
    char equivalent_said[GEMMA4_MAX_EQUIVALENT_POINTS][500]; /* what those say */
    uint64_t places[GEMMA4_POINT_SETTINGS]; /* of a point: a bit for each step that has the setting,
                                               in any of the findings */
    char said[800]; /* of a point: what its settings say, with those steps; else "" */
    size_t second;  /* the mistake that explains it together with this one; GEMMA4_NO_MODEL
                            where it does so alone */
    gemma4_tap tap; /* where it is seen first */
    size_t first_layer;
    size_t taps;      /* how many failing taps it explains */
    char layers[120]; /* "0-4, 6" or "5, 11" */
    double coefficient, residual;
    gemma4_scope scope;
    bool below_bound; /* found by the matched filter: no single tap failed */
    size_t equivalent[GEMMA4_MAX_EQUIVALENT], equivalent_count; /* other ids' models that fit as
                                                                   well */
    bool has_near;                                              /* the runner-up */
    gemma4_fit near;
    char description[300];
    char nearest[420]; /* unexplained: what a point says that explains part of it, and how much of
                            the error's energy; "" for none */
    double nearest_share;
} gemma4_cause;

/* What explains it, catalogued or not; NULL where nothing does. */
const gemma4_counter_model *gemma4_cause_model(const gemma4_cause *cause);

typedef struct gemma4_causes {
    gemma4_cause *list; /* the one that explains most first, those that explain nothing last */
    size_t count;
} gemma4_causes;

/* Findings, in dataflow order, and filters ([catalogue]) become causes. */
int gemma4_find_causes(const gemma4_config *config, const gemma4_finding *findings, size_t count,
                       const gemma4_filtered *filtered, gemma4_causes *causes, gemma4_error *error);
void gemma4_causes_free(gemma4_causes *causes);
/* Is a layer in a list as causes have them, "0-4, 6"? */
bool gemma4_layer_is_listed(const char *layers, size_t layer);

#endif
