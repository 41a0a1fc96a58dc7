#include "tap_total.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "rows.h"
#include "tap_compare.h"

/* Metrics that count what must not be have no tolerance. */
static bool counts(const gemma4_measure *m)
{
    return m->tolerance == 0;
}

/* In units of the tolerance. */
static double part_of_tolerance(const gemma4_measure *m)
{
    double part = counts(m) && m->error > 0 ? INFINITY : counts(m) ? 0 : m->error / m->tolerance;
    return isnan(part) ? INFINITY : part;
}

void gemma4_tap_total_join(gemma4_tap_total *total, const gemma4_tap_result *part,
                           gemma4_tap_result *whole)
{
    total->problems += counts(&part->local) && part->local.error > 0;
    if (whole->verdict == GEMMA4_NOT_COVERED) {
        size_t left_out = whole->rows_left_out + part->rows_left_out;
        double agreement = whole->reference_agreement;
        *whole = *part;
        whole->rows_left_out = left_out;
        whole->reference_agreement = agreement;
        return;
    }
    whole->rows += part->rows;
    whole->rows_left_out += part->rows_left_out;
    if (part->verdict == GEMMA4_NOT_COVERED)
        return;
    if (counts(&whole->local) && whole->local.error > 0 && part->local.kind == whole->local.kind) {
        whole->local.error += part->local.error;
    } else if (part_of_tolerance(&part->local) > part_of_tolerance(&whole->local)) {
        whole->local = part->local;
        memcpy(whole->problem, part->problem, sizeof whole->problem);
    }
    if (part->verdict > whole->verdict) /* passes, marginal, diverges */
        whole->verdict = part->verdict;
}

/* The engine's rows beside what the reference computes by itself: shown, not decisive. */
static void add_accumulated(gemma4_tap_total *total, size_t T, const gemma4_evidence *e,
                            gemma4_tap tap, const gemma4_reference_run *reference)
{
    const gemma4_tap_evidence *t = &e->taps[tap];
    const gemma4_config *c = &e->subject->model->config;
    const float *expected = gemma4_reference_expected(reference, tap);
    const int32_t *ids = gemma4_reference_ids(reference);
    size_t K = c->top_k_experts;
    for (size_t row = 0; row < e->subject->T; row++)
        if (t->stored_row[row] && !(gemma4_tap_in_id_order(tap) && !e->have_valid_ids[row]))
            gemma4_compare_row(&total->accumulated, c, tap, e->layer, T,
                               e->subject->first_row + row, t->width, t->engine + row * t->width,
                               e->engine_ids ? e->engine_ids + row * K : NULL,
                               expected + row * t->width, ids + row * K);
}

/* The step's own error, relative to what was expected; and how far that, from the engine's inputs,
 * is from the values without any of the engine's errors. */
static void add_errors(gemma4_tap_total *total, const gemma4_evidence *e, gemma4_tap tap,
                       double added, const float *unreplayed)
{
    const gemma4_tap_evidence *t = &e->taps[tap];
    double of_step = 0;
    for (size_t row = 0; row < e->subject->T; row++)
        for (size_t i = row * t->width; t->have[row] && i < (row + 1) * t->width; i++) {
            double expected = (double)unreplayed[i], d = (double)t->expected[i] - expected;
            total->inherited += d * d;
            total->size += expected * expected;
            of_step += (double)t->expected[i] * (double)t->expected[i];
        }
    total->added += added * added * of_step;
    total->expected += of_step;
}

int gemma4_tap_total_add(gemma4_tap_total *total, size_t T, const gemma4_evidence *e,
                         const gemma4_reference_run *reference, const gemma4_tap_result *part,
                         gemma4_tap_result *whole, gemma4_error *error)
{
    if (total->parts == 0 && gemma4_comparison_init(&total->accumulated, T, error))
        return -1;
    total->parts++;
    add_accumulated(total, T, e, part->tap, reference);
    add_errors(total, e, part->tap, part->added, gemma4_reference_expected(reference, part->tap));
    gemma4_tap_total_join(total, part, whole);
    return 0;
}

void gemma4_tap_total_end(gemma4_tap_total *total, gemma4_tap_result *whole)
{
    const gemma4_comparison *c = &total->accumulated;
    size_t n = strlen(whole->problem);
    if (total->problems > 1 && counts(&whole->local) && isfinite(whole->local.error))
        snprintf(whole->problem + n, sizeof whole->problem - n, "; %.0f in all",
                 whole->local.error);
    if (total->parts) {
        whole->metrics = gemma4_comparison_metrics(c);
        whole->worst_position = c->worst_position;
        whole->worst_index = c->worst_index;
        whole->worst_engine = c->worst_engine;
        whole->worst_expected = c->worst_expected;
        /* NAN where slots of other experts would be compared. */
        whole->inherited = gemma4_tap_in_id_order(whole->tap) ? (double)NAN
                           : total->inherited == 0            ? 0
                                                   : sqrt(total->inherited / total->size);
    }
    if (total->parts > 1)
        whole->added = total->added == 0 ? 0 : sqrt(total->added / total->expected);
    if (total->parts)
        gemma4_comparison_free(&total->accumulated);
    *total = (gemma4_tap_total){0};
}
