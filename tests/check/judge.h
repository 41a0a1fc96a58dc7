/* The judge: runs the reference on a dump's tokens, and compares the dump tap by tap with a golden
 * or with the reference. */
#ifndef GEMMA4_JUDGE_H
#define GEMMA4_JUDGE_H

#include "activations.h"
#include "manifest.h"
#include "model.h"
#include "progress.h"
#include "reference_run.h"
#include "report.h"

typedef struct gemma4_judgement {
    const gemma4_case *the_case; /* NULL: the reference's own values are what is expected */
    const gemma4_model *model;
    gemma4_activations *engine;
    gemma4_activations *golden;         /* NULL without a case */
    const char *dtype;                  /* of the engine's arithmetic */
    const struct gemma4_planted *known; /* mistakes that the engine is known to make, which the
                                           reference then makes too; golden is NULL then. NULL:
                                           none */
    bool search_layers;              /* as in gemma4_subject: seconds on a committed case, a minute
                                     on 12 layers of width 128 */
    bool listed_by_difference;       /* as in gemma4_subject */
    bool without_causes;             /* verdicts only: no counter-model is run */
    bool reference_only;             /* not even verdicts: only the reference is compared with the
                                     golden */
    const gemma4_progress *progress; /* NULL: nothing is shown */
    size_t part_values; /* of the head, as many positions are judged at a time as have about so
                           many logits; 0: what some gigabytes of memory hold */
} gemma4_judgement;

/* After a SIGINT that is caught (ref/guard.h) it ends with what was judged until then: the report
 * is incomplete. Fails (input that cannot be judged) where the reference disagrees with the golden,
 * where the engine's tokens or positions are not the case's, where nothing is comparable, or where
 * there is no tolerance for dtype. */
int gemma4_judge(const gemma4_judgement *judgement, gemma4_report *report, gemma4_error *error);
void gemma4_report_free(gemma4_report *report);

#endif
