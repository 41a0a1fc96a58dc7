/* What the files that search for an explanation share: fit_score.c (how well a prediction fits),
 * fit.c (what is tried), fit_pairs.c (two catalogued mistakes at once) and identify.c (points of
 * the space). */
#ifndef GEMMA4_FIT_INTERNAL_H
#define GEMMA4_FIT_INTERNAL_H

#include "fit.h"
#include "score.h"

/* The search for what explains one failing tap. */
typedef struct fit_search {
    const gemma4_evidence *e;
    gemma4_runner *runner;
    gemma4_tap tap;
    gemma4_finding *finding;
    gemma4_error *error;
    gemma4_real *prediction; /* [T, width] */
    bool *open;              /* [T] positions whose choice of experts is open in the prediction */
    gemma4_fit *partial; /* [catalogue] every model planted everywhere; model is NO_MODEL where it
                            was not tried or has no effect */
    bool *missed_early;  /* [catalogue] planted everywhere, it did not fit the first positions */
    float **differences; /* [catalogue] predicted differences at the first positions; NULL where not
                            kept */
} fit_search;

typedef enum fit_trial { FIT_ERROR = -1, FIT_NO_EFFECT, FIT_MISS, FIT_FITS } fit_trial;

/* Was a block bridged into this one? */
bool fit_is_bridged(const gemma4_evidence *evidence);

/* Does the dump hold nothing of the block but what comes in and what goes out, or less? */
bool fit_is_whole_layer(const gemma4_evidence *evidence);

/* What planted mistakes leave of the error, at the first so many positions or (0) at all. */
fit_trial fit_try_positions(fit_search *s, const gemma4_planted *planted, size_t positions,
                            gemma4_fit *fit);
/* Does a query see later positions than its own, or a step another one's input? Then what it
 * computes changes where the case is cut. */
bool fit_sees_later(const gemma4_planted *planted);
/* How many positions decide at first whether a mistake can fit; 0: all of them are needed. */
size_t fit_first_positions(const fit_search *s, const gemma4_planted *planted);
/* A first look, by the machine's fastest operators, for which there are too many to try: whatever
 * passes is tried. */
fit_trial fit_screen(fit_search *s, const gemma4_planted *planted, size_t positions);

/* Can the mistake be at the positions of a scope alone? Those before the first of them must then be
 * right: keys and values go forward only. */
bool fit_may_be_in_scope(const fit_search *s, gemma4_scope scope);
/* Tries what is planted, and keeps how it fits. second: GEMMA4_NO_MODEL, or of a pair the other. */
int fit_try(fit_search *s, const gemma4_planted *planted, size_t model, size_t second);
/* What has no effect when it is planted everywhere has none in part. */
bool fit_has_effect(const fit_search *s, size_t model);
/* Models by the part of the error that they explain when planted everywhere: the `most` largest, in
 * order. Returns how many there are. */
size_t fit_by_share(const fit_search *s, size_t *models, size_t most);
int fit_try_pairs(fit_search *s);

/* Points of the space that explain the tap (identify.c); earlier are the findings of the blocks
 * before. */
int fit_identify_ids(fit_search *s, gemma4_scope scope); /* of router.topk_ids */
/* The experts (T, K) that the mistake chooses from the engine's own logits at the positions of the
 * scope; elsewhere the right ones. */
int fit_choose(const fit_search *s, const gemma4_counter_model *m, gemma4_scope scope,
               int32_t *ids);
int fit_identify(fit_search *s, const gemma4_finding *earlier, size_t earlier_count);
/* Points that fit as well as a catalogued mistake whose number has near neighbours. */
int fit_identify_beside(fit_search *s);
/* Only the points that explained the same tap in a layer before. */
int fit_identify_as_before(fit_search *s, const gemma4_finding *earlier, size_t earlier_count);

#endif
