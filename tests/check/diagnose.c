#include "diagnose.h"
#include "causes.h"
#include "dump_mistake.h"
#include "evidence.h"
#include "filter.h"
#include "fit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct gemma4_diagnosis {
    const gemma4_config *config;
    gemma4_filtered *filtered; /* [catalogue] */
    gemma4_finding *findings;
    size_t count;
    gemma4_finding *of_dump; /* mistakes of the dump */
    size_t of_dump_count;
    gemma4_causes causes;
};

gemma4_diagnosis *gemma4_diagnosis_new(const gemma4_config *config, gemma4_error *error)
{
    gemma4_diagnosis *d = calloc(1, sizeof *d);
    if (!d || !(d->filtered = calloc(gemma4_counter_model_count(), sizeof *d->filtered))) {
        free(d);
        gemma4_fail(error, "diagnosis: out of memory");
        return NULL;
    }
    d->config = config;
    return d;
}

void gemma4_diagnosis_free(gemma4_diagnosis *d)
{
    if (!d)
        return;
    for (size_t i = 0; i < d->count; i++)
        gemma4_finding_free(&d->findings[i]);
    free(d->findings);
    free(d->of_dump);
    free(d->filtered);
    gemma4_causes_free(&d->causes);
    free(d);
}

/* Is there anything to explain? A tap of which no row is finite says so itself. */
static bool has_rows(const gemma4_evidence *e, gemma4_tap tap)
{
    const gemma4_tap_evidence *t = &e->taps[tap];
    for (size_t row = 0; t->engine && row < e->subject->T; row++)
        if (t->have[row])
            return true;
    return tap == GEMMA4_TAP_ROUTER_TOPK_IDS;
}

static int add_finding(gemma4_diagnosis *d, const gemma4_evidence *e, gemma4_runner *runner,
                       gemma4_tap tap, gemma4_error *error)
{
    gemma4_finding *more = realloc(d->findings, (d->count + 1) * sizeof *more);
    if (!more)
        return gemma4_fail(error, "diagnosis: out of memory");
    d->findings = more;
    int status =
        gemma4_find_fits(e, runner, tap, d->findings, d->count, &d->findings[d->count], error);
    if (status) /* what was interrupted is no finding */
        gemma4_finding_free(&d->findings[d->count]);
    else
        d->count++;
    return status;
}

int gemma4_diagnose_block(gemma4_diagnosis *d, const gemma4_evidence *e, gemma4_runner *runner,
                          const bool failed[GEMMA4_TAP_COUNT], gemma4_error *error)
{
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        if (failed[tap] && has_rows(e, (gemma4_tap)tap) &&
            add_finding(d, e, runner, (gemma4_tap)tap, error))
            return -1;
    return gemma4_filter_block(d->filtered, e, runner, failed, error);
}

static void describe_dump(gemma4_finding *finding, const gemma4_dump_mistake *mistake,
                          const char *text)
{
    finding->mistake = *mistake;
    finding->has_near = false;
    snprintf(finding->description, sizeof finding->description, "%s", text);
}

void gemma4_diagnose_unexplained(gemma4_diagnosis *d, const gemma4_dump_mistake *mistake,
                                 const char *text)
{
    for (size_t i = 0; i < d->count; i++)
        if (d->findings[i].fit_count)
            return;
    for (size_t i = 0; i < d->count; i++)
        describe_dump(&d->findings[i], mistake, text);
}

int gemma4_diagnose_dump(gemma4_diagnosis *d, gemma4_tap tap, size_t layer,
                         const gemma4_dump_mistake *mistake, const char *text, gemma4_error *error)
{
    gemma4_finding *more = realloc(d->of_dump, (d->of_dump_count + 1) * sizeof *more);
    if (!more)
        return gemma4_fail(error, "diagnosis: out of memory");
    d->of_dump = more;
    gemma4_finding *finding = &more[d->of_dump_count++];
    *finding = (gemma4_finding){.tap = tap, .layer = layer};
    describe_dump(finding, mistake, text);
    return 0;
}

/* Puts those of the dump before the others. */
static int list_those_of_dump(gemma4_diagnosis *d, gemma4_error *error)
{
    if (d->of_dump_count == 0)
        return 0;
    gemma4_finding *all = realloc(d->of_dump, (d->of_dump_count + d->count) * sizeof *all);
    if (!all)
        return gemma4_fail(error, "diagnosis: out of memory");
    if (d->count)
        memcpy(all + d->of_dump_count, d->findings, d->count * sizeof *all);
    free(d->findings);
    d->findings = all;
    d->count += d->of_dump_count;
    d->of_dump = NULL;
    d->of_dump_count = 0;
    return 0;
}

int gemma4_diagnose_conclude(gemma4_diagnosis *d, gemma4_error *error)
{
    if (list_those_of_dump(d, error))
        return -1;
    return gemma4_find_causes(d->config, d->findings, d->count, d->filtered, &d->causes, error);
}

const gemma4_config *gemma4_diagnosis_config(const gemma4_diagnosis *d)
{
    return d->config;
}

size_t gemma4_cause_count(const gemma4_diagnosis *d)
{
    return d ? d->causes.count : 0;
}

const gemma4_cause *gemma4_cause_at(const gemma4_diagnosis *d, size_t index)
{
    return &d->causes.list[index];
}

size_t gemma4_finding_count(const gemma4_diagnosis *d)
{
    return d->count;
}

const gemma4_finding *gemma4_finding_at(const gemma4_diagnosis *d, size_t index)
{
    return &d->findings[index];
}
