/* Between the parts of the ladder: what is open of a rung, and judging it. */
#ifndef GEMMA4_LADDER_INTERNAL_H
#define GEMMA4_LADDER_INTERNAL_H

#include "activations.h"
#include "ladder.h"
#include "model.h"
#include "planted.h"
#include "report.h"

struct gemma4_opened_rung {
    gemma4_model *model;
    gemma4_activations *engine, *golden;
    const char *dtype;
    size_t judged; /* how often it has been */
};

/* Opens what there is of every rung; results say where that is nothing, or unusable. */
int ladder_open_dumps(gemma4_climb *climb, const char *path, gemma4_error *error);
void ladder_close_dumps(gemma4_climb *climb);

/* How a rung is judged. */
typedef struct ladder_try {
    const gemma4_planted *known; /* planted in what is expected */
    bool causes;                 /* what fails is to be explained */
    bool points;                 /* by points of the space too */
} ladder_try;

/* The report is to be freed whatever is returned. */
int ladder_judge(const gemma4_climb *climb, size_t rung, const ladder_try *how,
                 gemma4_report *report, gemma4_error *error);
/* The tensor that is worst beside its tolerance; NULL where none was compared. */
const gemma4_tap_result *ladder_worst(const gemma4_report *report);
/* What a report says of a rung with these mistakes planted: what is left of its error, beside its
 * tolerance; below 0 where it passes. */
int ladder_left_of(const gemma4_climb *climb, size_t rung, const gemma4_planted *planted,
                   const gemma4_report *report, double *left, gemma4_error *error);
/* What is left of a rung's error with these mistakes planted, beside its tolerance; below 0 where
 * the rung passes: it conforms, or what is left is what roundings that are planted leave. */
int ladder_left(const gemma4_climb *climb, size_t rung, const gemma4_planted *planted, double *left,
                gemma4_error *error);
/* Does the rung pass with these mistakes planted? A rung that cannot be judged fails, with error
 * filled. */
int ladder_passes(const gemma4_climb *climb, size_t rung, const gemma4_planted *known, bool *passes,
                  gemma4_error *error);

/* Are all tokens of the rung fed one at a time? */
bool ladder_is_decoded(const gemma4_climb *climb, size_t rung);
/* The causes found so far, those that hold in all of a rung, as they are planted in it: the first
 * candidate of each; of cause `other` (GEMMA4_NO_MODEL: of none) that candidate, or none where it
 * has fewer. */
gemma4_planted ladder_known(const gemma4_climb *climb, size_t rung, size_t other, size_t candidate);
/* One more. */
void ladder_plant(gemma4_planted *planted, const gemma4_climb *climb, size_t rung,
                  const gemma4_ladder_candidate *candidate);

/* Makes causes of what a report explains, where no other rung contradicts it and the rung passes
 * with them; *taken says whether it does. known is what was planted. */
int ladder_take_causes(gemma4_climb *climb, size_t rung, const gemma4_report *report,
                       const gemma4_planted *known, bool *taken, gemma4_error *error);
void ladder_free_cause(gemma4_ladder_cause *cause);

/* One more candidate, where there is room and the cause has not got it. */
void ladder_add_model(gemma4_ladder_cause *cause, size_t model, int only_layer);
/* The cause is the climb's from now on, and the rung's, or freed where it was found before. */
void ladder_add_cause(gemma4_climb *climb, size_t rung, gemma4_ladder_cause *cause);
/* Does the mistake act in any block of the rung? */
bool ladder_acts_in(const gemma4_climb *climb, size_t rung,
                    const gemma4_ladder_candidate *candidate);
/* Is it settled what the rung shows: does it pass, or fail of causes that are planted? */
static inline bool ladder_stands(const gemma4_rung_result *r)
{
    return r->verdict == GEMMA4_RUNG_PASSES ||
           (r->verdict == GEMMA4_RUNG_FAILS && r->cause_count && !r->in_scope_only);
}
/* Does no other rung that was judged contradict these? */
int ladder_agree_elsewhere(const gemma4_climb *climb, size_t rung,
                           const gemma4_ladder_candidate *const *new_ones, size_t count,
                           bool *agree, gemma4_error *error);
/* Adds to each of two causes, which explain a rung together, what would do as well in its place. */
int ladder_find_alternatives(gemma4_climb *climb, size_t rung, gemma4_ladder_cause causes[2],
                             gemma4_error *error);
/* Looks for catalogued mistakes that explain a rung together, where no single one was found: of all
 * that no other rung contradicts. */
int ladder_search_pairs(gemma4_climb *climb, size_t rung, bool *found, gemma4_error *error);

#endif
