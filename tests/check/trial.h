/* One judgement of a simulated engine: was the planted mistake detected, located, named?
 * (spec/kill-matrix.md) */
#ifndef GEMMA4_TRIAL_H
#define GEMMA4_TRIAL_H

#include "planted_engine.h"

/* What was judged. Plain data: it crosses a process boundary. */
typedef struct gemma4_trial {
    bool judged;          /* false: message says why not */
    bool detected;        /* the engine does not conform */
    bool below_bound;     /* ... by the matched filter alone */
    gemma4_tap first_tap; /* of the divergence that is reported first */
    size_t first_layer;
    bool shows;              /* somewhere the effect is above twice the largest error that an
                                 honest engine has there */
    bool visible;            /* so it is, or it was detected */
    gemma4_tap expected_tap; /* where the mistake enters and fails first, or shows first */
    size_t expected_layer;
    double effect;       /* error / tolerance there */
    double visible_from; /* twice the honest maximum there */
    bool first_right;
    bool named;        /* the first cause is the mistake, or lists it as equivalent */
    bool named_itself; /* ... is the mistake */
    bool wrong_name;   /* any cause is explained by what is neither it nor equivalent to
                                 it */
    char name[64];     /* that wrong cause, or else the first one; "" where none is
                                 explained */
    bool listed[2];    /* each planted mistake is among the causes, or equivalent to one of
                                 them */
    size_t causes;     /* how many there are, unknown ones with them */
    double seconds;    /* of processor time that the judgement took */
    double worst[GEMMA4_TAP_COUNT]; /* the largest error / tolerance of each kind of tap, over all
                                       layers */
    char message[200];
} gemma4_trial;

/* Simulates, judges and removes the file, which is written into directory. honest[tap] is the
 * largest error / tolerance of honest engines in this tier and tap set; NULL: not known, everything
 * counts as visible. without_causes leaves out what names and filters. Returns -1 only where
 * nothing could be simulated or judged; the message is then also in trial->message. */
int gemma4_trial_run(const gemma4_simulation *simulation, const double honest[GEMMA4_TAP_COUNT],
                     bool without_causes, const char *directory, gemma4_trial *trial,
                     gemma4_error *error);

#endif
