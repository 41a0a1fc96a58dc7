#include "trial.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "causes.h"
#include "counter_model.h"
#include "diagnose.h"
#include "judge.h"
#include "report.h"

/* --------------------------------------------------------------- judging */

static double processor_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Simulates into path and judges it, in *seconds. The report is to be freed whatever happens; the
 * strings that it points to are gone. */
static int judge(const gemma4_simulation *s, bool without_causes, const char *path,
                 gemma4_report *report, double *seconds, gemma4_error *error)
{
    *report = (gemma4_report){0};
    if (gemma4_simulate(s, path, error))
        return -1;
    double start = processor_seconds();
    gemma4_activations *file = gemma4_activations_open(path, &s->model->config, error);
    gemma4_judgement j = {
        .model = s->model, .engine = file, .dtype = s->tier, .without_causes = without_causes};
    int status = file ? gemma4_judge(&j, report, error) : -1;
    gemma4_activations_close(file);
    *seconds = processor_seconds() - start;
    unlink(path);
    return status;
}

/* Error / tolerance; ids have no tolerance. */
static double ratio_of(const gemma4_tap_result *r)
{
    if (r->verdict == GEMMA4_NOT_COVERED)
        return 0;
    if (!(r->local.error <= 1e300)) /* not finite either */
        return INFINITY;
    if (r->verdict == GEMMA4_DIVERGES && r->problem[0])
        return INFINITY;
    return r->local.tolerance > 0 ? r->local.error / r->local.tolerance
           : r->local.error > 0   ? INFINITY
                                  : 0;
}

/* The ratios of all taps, [report->tap_count]. The matched filter has replaced one of them by its
 * own measure: judge once more. */
static int find_ratios(const gemma4_simulation *s, const gemma4_report *report, const char *path,
                       double *ratios, gemma4_error *error)
{
    gemma4_report plain = {0};
    const gemma4_report *from = report;
    const gemma4_tap_result *first = report->first_divergence;
    double ignored;
    bool filtered = first && first->local.kind == GEMMA4_METRIC_MATCHED_FILTER;
    int status = filtered ? judge(s, true, path, &plain, &ignored, error) : 0;
    if (filtered)
        from = &plain;
    for (size_t i = 0; i < from->tap_count && !status; i++)
        ratios[i] = ratio_of(&from->taps[i]);
    gemma4_report_free(&plain);
    return status;
}

/* -------------------------------------------------------------- expectations */

/* Whether the planted mistake acts on that tap of that layer. */
static bool acts_at(const gemma4_simulation *s, gemma4_tap tap, size_t layer)
{
    const gemma4_counter_model *m = s->planted[0];
    bool listed = false;
    for (const gemma4_tap *t = m->taps; *t != GEMMA4_TAP_COUNT; t++)
        listed = listed || *t == tap;
    bool here = s->only_layer[0] < 0 ||
                (gemma4_tap_describe(tap)->per_layer && (size_t)s->only_layer[0] == layer);
    return listed && here && gemma4_counter_model_acts(m, &s->model->config, tap, layer);
}

/* Whether it acts between the stored tap before this one and this one, where only some taps are
 * dumped. */
static bool acts_behind(const gemma4_simulation *s, const gemma4_tap_result *r)
{
    bool acts =
        r->tap == GEMMA4_TAP_LAYER_OUTPUT && r->layer == 0 && acts_at(s, GEMMA4_TAP_EMBED, 0);
    for (int tap = 0; tap < GEMMA4_TAP_COUNT && !acts; tap++) {
        bool head = tap > GEMMA4_TAP_LAYER_OUTPUT,
             layer = gemma4_tap_describe((gemma4_tap)tap)->per_layer;
        acts =
            (r->tap == GEMMA4_TAP_LOGITS ? head : layer) && acts_at(s, (gemma4_tap)tap, r->layer);
    }
    return acts;
}

/* Whether the mistake enters the stream at this tap, as far as the dump shows. */
static bool enters_at(const gemma4_simulation *s, const gemma4_tap_result *r)
{
    switch (s->taps) {
    case GEMMA4_SET_ALL: return acts_at(s, r->tap, r->layer);
    case GEMMA4_SET_LAYERS: return acts_behind(s, r);
    default: return true;
    }
}

/* The first tap at which it enters and fails; where it fails nowhere, at which its effect is
 * visible; else the first at all. */
static void find_expected(const gemma4_simulation *s, const gemma4_report *report,
                          const double *ratios, const double *honest, gemma4_trial *trial)
{
    enum { NOTHING, ENTERS, SHOWS, FAILS } best = NOTHING;
    for (size_t i = 0; i < report->tap_count; i++) {
        const gemma4_tap_result *r = &report->taps[i];
        if (r->verdict == GEMMA4_NOT_COVERED || !enters_at(s, r))
            continue;
        double from = honest ? 2 * honest[r->tap] : 0;
        int rank = ratios[i] > 1 ? FAILS : ratios[i] > from ? SHOWS : ENTERS;
        trial->shows = trial->shows || ratios[i] > from;
        if (rank <= (int)best)
            continue;
        best = rank;
        trial->expected_tap = r->tap;
        trial->expected_layer = r->layer;
        trial->effect = ratios[i];
        trial->visible_from = from;
    }
    trial->visible = trial->shows || trial->detected;
}

/* ------------------------------------------------------------------ names */

static bool has_id(const gemma4_counter_model *model, const char *id)
{
    return !strcmp(model->id, id);
}

/* Whether a cause is one that was planted, or lists one as equivalent; listed[i]: whether it is, or
 * lists, the i-th. */
static bool is_planted(const gemma4_simulation *s, const gemma4_cause *cause, bool *itself,
                       bool listed[2])
{
    *itself = listed[0] = listed[1] = false;
    for (size_t i = 0; i < 2 && s->planted[i]; i++) {
        listed[i] = has_id(gemma4_cause_model(cause), s->planted[i]->id);
        *itself = *itself || listed[i];
        for (size_t k = 0; k < cause->equivalent_count; k++)
            listed[i] = listed[i] ||
                        has_id(gemma4_counter_model_at(cause->equivalent[k]), s->planted[i]->id);
    }
    return listed[0] || listed[1];
}

/* The first cause is the name; any other one that was not planted is wrong all the same. */
static void find_name(const gemma4_simulation *s, const gemma4_report *report, gemma4_trial *trial)
{
    trial->causes = gemma4_cause_count(report->diagnosis);
    for (size_t i = 0; i < trial->causes; i++) {
        const gemma4_cause *cause = gemma4_cause_at(report->diagnosis, i);
        trial->wrong_name = trial->wrong_name || cause->of_dump;
        if (!cause->explained)
            continue;
        bool itself, listed[2], planted = is_planted(s, cause, &itself, listed);
        trial->listed[0] = trial->listed[0] || listed[0];
        trial->listed[1] = trial->listed[1] || listed[1];
        if (i == 0) {
            trial->below_bound = cause->below_bound;
            trial->named = planted;
            trial->named_itself = itself;
        }
        if (i == 0 || (!planted && !trial->wrong_name))
            snprintf(trial->name, sizeof trial->name, "%s", gemma4_cause_model(cause)->id);
        trial->wrong_name = trial->wrong_name || !planted;
    }
}

static void conclude(const gemma4_simulation *s, const gemma4_report *report, const double *ratios,
                     const double *honest, gemma4_trial *trial)
{
    const gemma4_tap_result *first = report->first_divergence;
    trial->judged = true;
    trial->detected = !report->conforms;
    for (size_t i = 0; i < report->tap_count; i++)
        trial->worst[report->taps[i].tap] = fmax(trial->worst[report->taps[i].tap], ratios[i]);
    if (first) {
        trial->first_tap = first->tap;
        trial->first_layer = first->layer;
    }
    find_name(s, report, trial);
    if (!s->planted[0])
        return;
    find_expected(s, report, ratios, honest, trial);
    bool per_layer = trial->expected_tap < GEMMA4_TAP_COUNT &&
                     gemma4_tap_describe(trial->expected_tap)->per_layer;
    trial->first_right = first && first->tap == trial->expected_tap &&
                         (!per_layer || first->layer == trial->expected_layer);
}

int gemma4_trial_run(const gemma4_simulation *s, const double honest[GEMMA4_TAP_COUNT],
                     bool without_causes, const char *directory, gemma4_trial *trial,
                     gemma4_error *error)
{
    char path[4096];
    gemma4_report report = {0};
    *trial = (gemma4_trial){.first_tap = GEMMA4_TAP_COUNT, .expected_tap = GEMMA4_TAP_COUNT};
    bool fits =
        snprintf(path, sizeof path, "%s/%ld.h5", directory, (long)getpid()) < (int)sizeof path;
    int status = fits ? judge(s, without_causes, path, &report, &trial->seconds, error)
                      : gemma4_fail(error, "%.200s...: path too long", directory);
    double *ratios = calloc(report.tap_count + 1, sizeof *ratios);
    if (!status && !ratios)
        status = gemma4_fail(error, "self-test: out of memory");
    if (!status)
        status = find_ratios(s, &report, path, ratios, error);
    if (!status)
        conclude(s, &report, ratios, honest, trial);
    else
        snprintf(trial->message, sizeof trial->message, "%.199s", error->message);
    free(ratios);
    gemma4_report_free(&report);
    return status;
}
