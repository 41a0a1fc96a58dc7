/* What the files that look for points of the space share: identify.c (which steps, which
 * positions), identify_look.c (how near a point comes), identify_each.c (many looks at once),
 * identify_solve.c (numbers and lists), identify_join.c (several settings at once),
 * identify_experts.c (a fused mixture of experts), identify_refine.c (plainer points),
 * identify_nearest.c (what explains part of an error that nothing explains), identify_ids.c (the
 * choice of experts). */
#ifndef GEMMA4_IDENTIFY_INTERNAL_H
#define GEMMA4_IDENTIFY_INTERNAL_H

#include "filter.h"
#include "fit_internal.h"
#include "point.h"
#include "propose.h"

/* A proposal at work. */
typedef struct identify_candidate {
    gemma4_point *point;
    int only_layer; /* -1: in all layers of the kinds that it concerns */
    double left;    /* score of what it leaves of the error, in spreads */
    double share, coefficient;
    double effect; /* of the predicted difference, in spreads */
    bool has_effect;
    bool everywhere; /* all positions were looked at: the first ones show nothing */
} identify_candidate;

/* A thread's own memory (identify_each.c). */
typedef struct identify_worker identify_worker;

typedef struct identification {
    fit_search *s;
    gemma4_scope scope;
    size_t positions;  /* that are looked at; 0: all */
    bool first_look;   /* at the limits of SCREEN_FACTOR and SCREEN_EFFECT: of whole layers in
                          float32, whose numbers are solved for once more at all positions */
    bool split;        /* joining to what is right up to weights: no number says anything before
                            it is solved for */
    bool first_search; /* the search has not come to nothing at this tap of another layer */
    bool fits_early;   /* a candidate fits the first positions and not all: something else acts
                            later */
    double nothing;    /* score of the error itself */
    identify_candidate *list;
    size_t count;
    gemma4_setting *singles; /* those that explain most by themselves */
    double *shares;          /* of each of those */
    size_t single_count;
    gemma4_real *at;            /* [T, width] a prediction that is kept */
    identify_candidate nearest; /* the one that explains most, of those that did not fit; its point
                                   is NULL where there is none */
    identify_worker *workers;
    size_t worker_count;
} identification;

/* --- identify_each.c --- */

/* work(own, context, i) for i = 0 ... count - 1, on all threads. `own` is at the same scope and
 * positions as id, with memory of its own; work must change nothing else but what belongs to its i.
 * Returns -1 where one did. */
int identify_each(identification *id, size_t count,
                  int (*work)(identification *own, void *context, size_t i), void *context);
void identify_workers_free(identification *id);

/* --- identify_look.c --- */

gemma4_planted identify_planted(const identification *id, const identify_candidate *candidate);
/* The prediction of a candidate, or of several points at once, into the search's. */
int identify_predict(identification *id, const identify_candidate *candidate);
int identify_predict_planted(identification *id, const gemma4_planted *planted);
/* The rows that are looked at. */
gemma4_against identify_rows(const identification *id);
/* How near the candidate comes, at the positions that are looked at; at all where it has no effect
 * on those: it may act past the window, in a later chunk. */
int identify_look(identification *id, identify_candidate *candidate);
/* Is its effect no more than rounding? */
bool identify_is_rounding(const identification *id, const identify_candidate *candidate);

/* Looks at every proposal, in the layers `where`; of starting points of one number, the best is
 * kept. */
int identify_look_at_all(identification *id, const gemma4_proposals *proposals, int where);
/* Solves for the numbers of candidates from index `from` on. */
int identify_solve_all(identification *id, size_t from);
void identify_free(identification *id);
/* For qsort: those that explain most first. */
int identify_by_share(const void *a, const void *b);
/* Tries a candidate as it is; the finding keeps it where it fits, else it is freed. */
int identify_try(identification *id, identify_candidate *candidate);
/* Tries the candidates that leave least as they are; the finding keeps those that fit. */
int identify_try_best(identification *id);
/* The finding keeps a point that fits, and its memory. */
void identify_keep(gemma4_finding *finding, gemma4_scope scope, const identify_candidate *candidate,
                   const gemma4_fit *fit);

/* --- identify_nearest.c --- */

/* Remembers the candidate that explains most where it does so more plainly than the one at hand. */
int identify_remember(identification *id, const identify_candidate *candidate);
/* What the finding says of the one that is remembered: nothing where it explains too little of all
 * that there is. */
int identify_tell_nearest(identification *id);

/* --- identify_solve.c --- */

/* Is the setting's number, or its list, to be solved for? */
bool identify_is_solved_for(const gemma4_setting *setting);
/* Least squares from what is at hand, by the slope of the prediction, and the interval that noise
 * leaves. */
int identify_solve(identification *id, identify_candidate *candidate, size_t setting);

/* --- identify_experts.c --- */

enum { IDENTIFY_SPLIT_BASES = 4 }; /* mutants: +1, -1, x2 survive: a bound of time */
enum { IDENTIFY_MOST_RANKS = 16 }; /* mutants: +1, -1, x2 survive: a bound of memory */
bool identify_comes_apart(const fit_search *s);
/* Does the setting change which experts are chosen, or what they compute, and not their weights
 * only? */
bool identify_is_of_experts(const gemma4_setting *setting);
/* Where the sum over the experts fails and nothing of it is in the dump: the settings among the
 * singles with which all is right but the experts' weights, each with the ranks that are missing.
 * Up to IDENTIFY_SPLIT_BASES, whose points are the caller's then. */
int identify_split_experts(identification *id, identify_candidate *bases, size_t *found);

/* --- identify_product.c --- */

/* Combinations that are kept. */
enum { IDENTIFY_PRODUCT_KEPT = 64 }; /* mutants: +1, -1, x2 survive: a bound of time */
/* Settings of different steps of the experts; a number that is solved for comes last. */
typedef struct identify_combination {
    gemma4_setting settings[GEMMA4_POINT_SETTINGS];
    size_t count;
} identify_combination;
/* Of all combinations of settings of two and three steps (choice, norm, activation, down_proj),
 * those that leave least of moe.out at one position, whatever the experts' weights are.
 * in_three_steps: those of norm, activation and down_proj, which take longest; else all others.
 * list has room for IDENTIFY_PRODUCT_KEPT; the best comes first. */
int identify_product(identification *id, bool in_three_steps, identify_combination *list,
                     size_t *count);

/* --- identify_join.c --- */

/* The best `most` candidates joined by a second setting, then by a third. */
int identify_join(identification *id, size_t most);

/* --- identify_refine.c --- */

/* Tries, in the place of each point that fits, plainer ones, and those that cannot be told apart
 * from it. */
int identify_refine(identification *id);
/* Counts of rotating pairs that fit as well as the catalogued one that does. */
int identify_beside(identification *id);

/* --- identify.c --- */

/* The kind of the evidence's block: GEMMA4_ON_... */
int identify_where(const gemma4_evidence *evidence);
/* Does a candidate, in fewer layers, leave less than in all of them, and little enough of the error
 * to be tried? */
bool identify_helps_in_fewer_layers(const identification *id, const identify_candidate *candidate,
                                    double left_in_all);

#endif
