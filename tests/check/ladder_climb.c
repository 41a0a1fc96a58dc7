#include "ladder_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "causes.h"
#include "counter_model.h"
#include "fit.h"
#include "judge.h"
#include "ladder.h"

enum { MOST_SWAPS = 6 }; /* of one cause's candidates, each with a search for a further cause */

const gemma4_tap_result *ladder_worst(const gemma4_report *report)
{
    const gemma4_tap_result *worst = NULL;
    for (size_t i = 0; i < report->tap_count; i++)
        if (gemma4_has_numbers(&report->taps[i]) && gemma4_is_worse(&report->taps[i], worst))
            worst = &report->taps[i];
    return worst ? worst : report->first_divergence;
}

static void note_worst(gemma4_rung_result *result, const gemma4_report *report)
{
    const gemma4_tap_result *worst = ladder_worst(report);
    if (!worst)
        return;
    result->tap = worst->tap;
    result->error = worst->local.error;
    result->tolerance = worst->local.tolerance;
}

/* What is known of a failure that nothing explains. */
static void note_unexplained(gemma4_rung_result *result, const gemma4_report *report)
{
    const gemma4_tap_result *first = report->first_divergence;
    const gemma4_cause *cause = first ? gemma4_cause_of(report, first) : NULL;
    if (cause && !cause->explained)
        snprintf(result->message, sizeof result->message, "%.499s",
                 gemma4_cause_sentence(cause).text);
    else if (first && first->problem[0])
        snprintf(result->message, sizeof result->message, "%.199s", first->problem);
    else
        snprintf(result->message, sizeof result->message,
                 "what would explain this rung, others contradict");
}

/* Another candidate of a cause found before may explain the rung: it is then the one. */
static int try_other_candidates(gemma4_climb *climb, size_t rung, bool *passes, gemma4_error *error)
{
    for (size_t i = 0; i < climb->cause_count; i++)
        for (size_t k = 1;
             climb->causes[i].scope == GEMMA4_EVERYWHERE && k < climb->causes[i].count; k++) {
            gemma4_planted known = ladder_known(climb, rung, i, k);
            if (ladder_passes(climb, rung, &known, passes, error))
                return -1;
            if (*passes) {
                gemma4_ladder_candidate found = climb->causes[i].candidates[k];
                climb->causes[i].candidates[k] = climb->causes[i].candidates[0];
                climb->causes[i].candidates[0] = found;
                return 0;
            }
        }
    return 0;
}

/* Drops candidates of earlier causes with which this rung, which passes now, would not. */
static int drop_candidates(gemma4_climb *climb, size_t rung, gemma4_error *error)
{
    for (size_t i = 0; i < climb->cause_count; i++) {
        gemma4_ladder_cause *cause = &climb->causes[i];
        size_t kept = 1;
        for (size_t k = 1; k < cause->count; k++) {
            bool passes = true;
            gemma4_planted known = ladder_known(climb, rung, i, k);
            if (cause->scope == GEMMA4_EVERYWHERE &&
                ladder_passes(climb, rung, &known, &passes, error))
                return -1;
            if (passes)
                cause->candidates[kept++] = cause->candidates[k];
            else
                free(cause->candidates[k].point);
        }
        cause->count = kept;
    }
    return 0;
}

static int search(gemma4_climb *climb, size_t rung, const gemma4_planted *known, bool points,
                  bool *taken, gemma4_error *error)
{
    gemma4_report report = {0};
    const ladder_try how = {.known = known, .causes = true, .points = points};
    int status = ladder_judge(climb, rung, &how, &report, error);
    if (!status)
        status = ladder_take_causes(climb, rung, &report, known, taken, error);
    gemma4_report_free(&report);
    return status;
}

/* A further cause, beside another candidate of an earlier one. */
static int search_beside_others(gemma4_climb *climb, size_t rung, bool *taken, gemma4_error *error)
{
    size_t tries = 0;
    for (size_t i = 0; i < climb->cause_count; i++) {
        gemma4_ladder_cause *cause = &climb->causes[i];
        for (size_t k = 1;
             cause->scope == GEMMA4_EVERYWHERE && k < cause->count && tries < MOST_SWAPS;
             k++, tries++) {
            const gemma4_ladder_candidate first = cause->candidates[0];
            cause->candidates[0] = cause->candidates[k];
            cause->candidates[k] = first;
            gemma4_planted known = ladder_known(climb, rung, GEMMA4_NO_MODEL, 0);
            if (search(climb, rung, &known, false, taken, error))
                return -1;
            if (*taken)
                return 0;
            cause->candidates[k] = cause->candidates[0];
            cause->candidates[0] = first;
        }
    }
    return 0;
}

/* May a cause that was taken to hold everywhere hold in decode only? Where it was found nothing but
 * single tokens were fed, and no rung that was judged needs it among others. */
static int may_be_of_decode(const gemma4_climb *climb, size_t cause, size_t rung, bool *may,
                            gemma4_error *error)
{
    const gemma4_ladder_cause *c = &climb->causes[cause];
    *may = c->scope == GEMMA4_EVERYWHERE && ladder_is_decoded(climb, c->rung) &&
           !ladder_is_decoded(climb, rung);
    for (size_t i = 0; i < climb->ladder->count && *may; i++) {
        gemma4_planted without = ladder_known(climb, i, cause, c->count);
        if (ladder_stands(&climb->results[i]) && i != rung && !ladder_is_decoded(climb, i) &&
            ladder_acts_in(climb, i, &c->candidates[0]) &&
            ladder_passes(climb, i, &without, may, error))
            return -1;
    }
    return 0;
}

/* A mistake that is made in decode only: the rung passes without it, or shows another one then. */
static int try_decode_only(gemma4_climb *climb, size_t rung, bool *passes, bool *taken,
                           gemma4_error *error)
{
    for (size_t i = 0; i < climb->cause_count; i++) {
        gemma4_ladder_cause *cause = &climb->causes[i];
        bool may = false;
        if (may_be_of_decode(climb, i, rung, &may, error))
            return -1;
        if (!may)
            continue;
        cause->scope = GEMMA4_DECODE_ONLY;
        gemma4_planted known = ladder_known(climb, rung, GEMMA4_NO_MODEL, 0);
        if (ladder_passes(climb, rung, &known, passes, error) ||
            (!*passes && search(climb, rung, &known, false, taken, error)))
            return -1;
        if (*passes || *taken)
            return 0;
        cause->scope = GEMMA4_EVERYWHERE;
    }
    return 0;
}

/* The error is then what is left beside the causes as they are now. */
static int note_swapped(gemma4_climb *climb, size_t rung, gemma4_error *error)
{
    gemma4_report report = {0};
    const gemma4_planted known = ladder_known(climb, rung, GEMMA4_NO_MODEL, 0);
    const ladder_try how = {.known = &known};
    int status = ladder_judge(climb, rung, &how, &report, error);
    if (!status)
        note_worst(&climb->results[rung], &report);
    gemma4_report_free(&report);
    climb->results[rung].verdict = GEMMA4_RUNG_PASSES;
    return status;
}

/* What explains a rung that fails: an earlier cause by another candidate or in decode only, a new
 * cause, both, or, where points are looked for, one of the space. */
static int explain(gemma4_climb *climb, size_t rung, const gemma4_report *report,
                   const gemma4_planted *known, bool points, gemma4_error *error)
{
    gemma4_rung_result *result = &climb->results[rung];
    bool passes = false, taken = false;
    if (try_other_candidates(climb, rung, &passes, error) ||
        (!passes && try_decode_only(climb, rung, &passes, &taken, error)))
        return -1;
    if (passes)
        return note_swapped(climb, rung, error);
    if (taken)
        return 0;
    if (ladder_take_causes(climb, rung, report, known, &taken, error) ||
        (!taken && search_beside_others(climb, rung, &taken, error)) ||
        (!taken && points && search(climb, rung, known, true, &taken, error)))
        return -1;
    if (!taken)
        note_unexplained(result, report);
    return 0;
}

/* The rung that this one needs, and that fails unexplained, or was itself not judged for such a
 * one; false: there is none. A rung in between of which there is no dump changes nothing. */
static bool is_blocked(const gemma4_climb *climb, size_t rung, size_t *by)
{
    const gemma4_rung *r = &climb->ladder->rungs[rung];
    for (size_t i = 0; i < r->need_count; i++) {
        const gemma4_rung_result *needed = &climb->results[r->needs[i]];
        bool judged = needed->verdict == GEMMA4_RUNG_PASSES || needed->verdict == GEMMA4_RUNG_FAILS;
        if (!judged && is_blocked(climb, r->needs[i], by))
            return true;
        *by = r->needs[i];
        if (needed->verdict == GEMMA4_RUNG_FAILS && needed->cause_count == 0)
            return true;
    }
    return false;
}

static int judge_rung(gemma4_climb *climb, size_t rung, bool points, gemma4_error *error)
{
    gemma4_rung_result *result = &climb->results[rung];
    gemma4_planted known = ladder_known(climb, rung, GEMMA4_NO_MODEL, 0);
    const ladder_try how = {.known = &known, .causes = true};
    gemma4_report report = {0};
    result->carried = known.count;
    result->found_before = climb->cause_count;
    result->searched = result->searched || points;
    result->message[0] = '\0';
    int status = ladder_judge(climb, rung, &how, &report, error);
    if (status) { /* of this dump: its tokens, its shapes */
        result->verdict = GEMMA4_RUNG_UNUSABLE;
        snprintf(result->message, sizeof result->message, "%.499s", error->message);
        gemma4_report_free(&report);
        return 0;
    }
    note_worst(result, &report);
    double left = NAN;
    status = ladder_left_of(climb, rung, &known, &report, &left, error);
    result->verdict = left < 0 ? GEMMA4_RUNG_PASSES : GEMMA4_RUNG_FAILS;
    if (!status && !(left < 0))
        status = explain(climb, rung, &report, &known, points, error);
    gemma4_report_free(&report);
    return status || (ladder_stands(result) && drop_candidates(climb, rung, error)) ? -1 : 0;
}

/* Is there anything to judge: a rung that has not been, or that failed unexplained before the last
 * causes were found? */
static bool is_due(const gemma4_climb *climb, size_t rung)
{
    const gemma4_rung_result *r = &climb->results[rung];
    return r->verdict == GEMMA4_RUNG_NOT_JUDGED ||
           (r->verdict == GEMMA4_RUNG_FAILS && r->cause_count == 0 &&
            r->found_before < climb->cause_count);
}

/* In order, and again as long as that leads on: a later rung may show alone what an earlier one
 * shows beside something else. */
static int judge_rungs(gemma4_climb *climb, gemma4_error *error)
{
    for (bool leads_on = true; leads_on;) {
        leads_on = false;
        for (size_t i = 0; i < climb->ladder->count; i++) {
            if (!is_due(climb, i) || is_blocked(climb, i, &climb->results[i].blocked_by))
                continue;
            if (judge_rung(climb, i, false, error))
                return -1;
            leads_on = true;
        }
    }
    return 0;
}

/* Two mistakes at once, of the first rung that fails unexplained. *found: they are named. */
static int search_pairs(gemma4_climb *climb, bool *found, gemma4_error *error)
{
    *found = false;
    for (size_t i = 0; i < climb->ladder->count && !*found; i++) {
        gemma4_rung_result *r = &climb->results[i];
        if (r->verdict != GEMMA4_RUNG_FAILS || r->cause_count || r->searched_pairs)
            continue;
        r->searched_pairs = true;
        if (ladder_search_pairs(climb, i, found, error))
            return -1;
    }
    return 0;
}

/* The first rung that fails and to which no catalogued mistake leads: then one that has no name is
 * looked for. A point of a few numbers explains two tokens easily, so everything else comes first.
 * *found: another cause. */
static int search_points(gemma4_climb *climb, bool *found, gemma4_error *error)
{
    *found = false;
    for (size_t i = 0; i < climb->ladder->count && !*found; i++) {
        gemma4_rung_result *r = &climb->results[i];
        if (r->verdict != GEMMA4_RUNG_FAILS || r->cause_count || r->searched)
            continue;
        if (judge_rung(climb, i, true, error))
            return -1;
        *found = r->verdict == GEMMA4_RUNG_PASSES || r->cause_count;
    }
    return 0;
}

static int judge_all(gemma4_climb *climb, gemma4_error *error)
{
    for (bool found = true; found;)
        if (judge_rungs(climb, error) || search_pairs(climb, &found, error) ||
            (!found && search_points(climb, &found, error)))
            return -1;
    return 0;
}

int gemma4_climb_ladder(const gemma4_ladder *ladder, const char *path, const char *dtype,
                        gemma4_climb *climb, gemma4_error *error)
{
    *climb = (gemma4_climb){.ladder = ladder, .dtype_option = dtype};
    climb->results = calloc(ladder->count, sizeof *climb->results);
    climb->opened = calloc(ladder->count, sizeof *climb->opened);
    if (!climb->results || !climb->opened)
        return gemma4_fail(error, "ladder: out of memory");
    for (size_t i = 0; i < ladder->count; i++)
        climb->results[i] = (gemma4_rung_result){
            .verdict = GEMMA4_RUNG_NOT_COVERED, .error = NAN, .tolerance = NAN};
    int status = ladder_open_dumps(climb, path, error);
    if (!status)
        status = judge_all(climb, error);
    ladder_close_dumps(climb);
    return status;
}

void gemma4_climb_free(gemma4_climb *climb)
{
    for (size_t i = 0; i < climb->cause_count; i++)
        ladder_free_cause(&climb->causes[i]);
    free(climb->results);
    *climb = (gemma4_climb){0};
}

/* ----------------------------------------------------------------- conclusions */

size_t gemma4_climb_count(const gemma4_climb *climb, gemma4_rung_verdict verdict)
{
    size_t count = 0;
    for (size_t i = 0; i < climb->ladder->count; i++)
        count += climb->results[i].verdict == verdict;
    return count;
}

int gemma4_climb_status(const gemma4_climb *climb)
{
    if (gemma4_climb_count(climb, GEMMA4_RUNG_UNUSABLE))
        return 2;
    return gemma4_climb_count(climb, GEMMA4_RUNG_FAILS) ? 1 : 0;
}

const char *gemma4_ladder_equivalent(const gemma4_ladder_cause *cause, size_t index)
{
    for (size_t i = 1, found = 0; i < cause->count; i++) {
        const char *id = cause->candidates[i].model->id;
        bool listed = false;
        for (size_t k = 0; k < i; k++)
            listed = listed || (!cause->candidates[k].point && !cause->candidates[i].point &&
                                !strcmp(cause->candidates[k].model->id, id));
        if (!listed && found++ == index)
            return cause->candidates[i].point ? cause->candidates[i].model->wrong : id;
    }
    return NULL;
}
