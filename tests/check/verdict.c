#include "verdict.h"

#include <math.h>
#include <stdio.h>

#include "evidence.h"
#include "rows.h"
#include "thresholds.h"

gemma4_verdict gemma4_verdict_of(double error, double tolerance)
{
    return !(error <= tolerance)                   ? GEMMA4_DIVERGES
           : !(error <= MARGINAL_PART * tolerance) ? GEMMA4_MARGINAL
                                                   : GEMMA4_PASS;
}

gemma4_nonfinite gemma4_find_nonfinite(const gemma4_evidence *e, gemma4_tap tap)
{
    const gemma4_tap_evidence *t = &e->taps[tap];
    gemma4_nonfinite n = {0};
    for (size_t row = 0; t->engine && row < e->subject->T; row++)
        for (size_t i = 0; t->stored_row[row] && i < t->width; i++)
            if (!isfinite(t->engine[row * t->width + i]) &&
                !gemma4_evidence_masked(e, tap, row, i) && n.count++ == 0) {
                n.position = e->subject->first_row + row;
                n.index = i;
            }
    return n;
}

/* The worse of what all rows have together and what the worst one has. */
static gemma4_measure measure_rows(const gemma4_evidence *e, const gemma4_score *s)
{
    bool by_worst = s->worst / LIMIT_WORST > s->score / LIMIT_SCORE;
    size_t position = e->subject->first_row + s->position;
    return by_worst
               ? (gemma4_measure){GEMMA4_METRIC_WORST_POSITION_IN_SPREADS, s->worst, LIMIT_WORST,
                                  position}
               : (gemma4_measure){GEMMA4_METRIC_RMS_IN_SPREADS, s->score, LIMIT_SCORE, position};
}

bool gemma4_rows_fail(const gemma4_evidence *e, gemma4_tap tap)
{
    const gemma4_against all = {0};
    gemma4_score s = gemma4_score_tap(e, tap, &all);
    gemma4_measure m = measure_rows(e, &s);
    return !(m.error <= m.tolerance);
}

static void count_rows(const gemma4_evidence *e, gemma4_tap tap, gemma4_tap_result *r)
{
    const gemma4_tap_evidence *t = &e->taps[tap];
    r->rows = r->rows_left_out = 0;
    for (size_t row = 0; row < e->subject->T; row++) {
        r->rows += t->have[row];
        r->rows_left_out += t->stored_row[row] && !t->have[row];
    }
}

void gemma4_judge_reals(const gemma4_evidence *e, gemma4_tap tap, gemma4_tap_result *r)
{
    const gemma4_against all = {0};
    gemma4_score s = gemma4_score_tap(e, tap, &all);
    gemma4_bias bias = gemma4_bias_of_tap(e, tap);
    gemma4_nonfinite nonfinite = gemma4_find_nonfinite(e, tap);
    count_rows(e, tap, r);
    r->local = measure_rows(e, &s);
    r->added = s.relative_rms;
    /* Where every position is within its limit, all of them together may not be. */
    if (r->local.error <= r->local.tolerance &&
        bias.in_spreads / LIMIT_BIAS > r->local.error / r->local.tolerance)
        r->local = (gemma4_measure){GEMMA4_METRIC_BIAS_IN_SPREADS, bias.in_spreads, LIMIT_BIAS,
                                    r->local.position};
    if (nonfinite.count) {
        r->local = (gemma4_measure){GEMMA4_METRIC_NONFINITE_VALUES, (double)nonfinite.count, 0,
                                    nonfinite.position};
        snprintf(r->problem, sizeof r->problem,
                 "%zu value%s NaN or infinite, the first at position %zu, index %zu",
                 nonfinite.count, nonfinite.count == 1 ? " is" : "s are", nonfinite.position,
                 nonfinite.index);
    }
    r->verdict = gemma4_verdict_of(r->local.error, r->local.tolerance);
    if (r->verdict == GEMMA4_DIVERGES && r->local.kind == GEMMA4_METRIC_BIAS_IN_SPREADS)
        snprintf(
            r->problem, sizeof r->problem,
            "all positions together are %.2g %% too %s: rounding may do that to one, not to all",
            100 * fabs(bias.part), bias.part > 0 ? "large" : "small");
}

void gemma4_judge_ids(const gemma4_routing_verdict *v, gemma4_tap_result *r)
{
    size_t faults = v->counts.faults;
    r->local = (gemma4_measure){GEMMA4_METRIC_EXPERT_SETS, (double)faults, 0, v->first_fault};
    r->rows = v->counts.decisions;
    r->rows_left_out = v->left_out;
    r->verdict = faults                ? GEMMA4_DIVERGES
                 : v->counts.excused   ? GEMMA4_EXCUSED
                 : v->counts.decisions ? GEMMA4_PASS
                                       : GEMMA4_NOT_COVERED;
    if (faults)
        snprintf(r->problem, sizeof r->problem,
                 "at %zu position%s the experts are not those of the engine's own router logits, "
                 "first at position %zu",
                 faults, faults == 1 ? "" : "s", v->first_fault);
}
