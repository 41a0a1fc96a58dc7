#include "agreement.h"

#include <string.h>

#include "judge.h"

/* Tap names by their first part; what has no part of its own belongs to the stream or the head. */
static const char *const groups[] = {"embed", "attn", "mlp",    "router",
                                     "moe",   "ffn",  "output", "head"};
enum { GROUPS = sizeof groups / sizeof *groups };

static int group_of(gemma4_tap tap)
{
    if (tap >= GEMMA4_TAP_FINAL_NORM)
        return GROUPS - 1;
    const char *name = gemma4_tap_describe(tap)->name;
    for (int group = 0; group < GROUPS - 1; group++)
        if (!strncmp(name, groups[group], strlen(groups[group])))
            return group;
    return 6; /* a layer's input is another layer's output */
}

static void print_row(FILE *out, const char *id, const gemma4_report *report)
{
    double worst[GROUPS] = {0};
    for (size_t i = 0; i < report->tap_count; i++) {
        double *w = &worst[group_of(report->taps[i].tap)],
               agreement = report->taps[i].reference_agreement;
        *w = agreement > *w ? agreement : *w;
    }
    fprintf(out, "%-24s", id);
    for (int group = 0; group < GROUPS; group++)
        fprintf(out, "  %7.1e", worst[group]);
    fprintf(out, "\n");
}

/* Judges the golden as if it were an engine's dump: what matters here is what the judge finds out
 * about the reference. */
static int agree(FILE *out, const char *id, double *worst, size_t *taps, gemma4_error *error)
{
    gemma4_judgement j = {.dtype = "float32", .reference_only = true};
    gemma4_report report = {0};
    gemma4_case *c = gemma4_case_open(id, error);
    gemma4_model *model = NULL;
    int status = c && !gemma4_case_provide_checkpoint(c, error) &&
                         (model = gemma4_model_open(c->checkpoint_dir, error))
                     ? 0
                     : -1;
    if (!status) {
        j.the_case = c;
        j.model = model;
        j.golden = gemma4_activations_open(c->golden_path, &model->config, error);
        j.engine = j.golden ? gemma4_activations_open(c->golden_path, &model->config, error) : NULL;
        status = j.engine ? gemma4_judge(&j, &report, error) : -1;
    }
    if (!status) {
        print_row(out, id, &report);
        for (size_t i = 0; i < report.tap_count; i++)
            *worst = report.taps[i].reference_agreement > *worst
                         ? report.taps[i].reference_agreement
                         : *worst;
        *taps += report.golden_taps;
    }
    gemma4_report_free(&report);
    gemma4_activations_close(j.engine);
    gemma4_activations_close(j.golden);
    gemma4_model_close(model);
    gemma4_case_close(c);
    return status;
}

int gemma4_agreement(FILE *out, size_t *failures, gemma4_error *error)
{
    char **ids;
    size_t count, taps = 0;
    double worst = 0;
    *failures = 0;
    if (gemma4_case_ids(&ids, &count, error))
        return -1;
    fprintf(out, "largest relative RMS of the reference against the golden\n%-24s", "case");
    for (int group = 0; group < GROUPS; group++)
        fprintf(out, "  %7s", groups[group]);
    fprintf(out, "\n");
    for (size_t i = 0; i < count; i++) {
        gemma4_error reason = {""};
        if (agree(out, ids[i], &worst, &taps, &reason)) {
            if (!gemma4_reference_disagrees(&reason)) {
                int status = gemma4_fail(error, "%s: %s", ids[i], reason.message);
                gemma4_case_ids_free(ids, count);
                return status;
            }
            ++*failures;
            fprintf(out, "%-24s  FAIL: %s\n", ids[i], reason.message);
        }
    }
    fprintf(out,
            "agreement: %zu of %zu cases, %zu taps, largest relative RMS %.1e (limit %.0e), expert "
            "sets equal\n",
            count - *failures, count, taps, worst, GEMMA4_REFERENCE_AGREEMENT);
    gemma4_case_ids_free(ids, count);
    return count ? 0
                 : gemma4_fail(error, "golden/cases: expected at least one manifest, found none");
}
