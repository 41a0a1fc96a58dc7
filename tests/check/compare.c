#include "compare.h"

#include <math.h>
#include <stdlib.h>

const char *gemma4_metric_name(gemma4_metric_kind kind)
{
    static const char *const names[] = {
        [GEMMA4_METRIC_NONE] = "",
        [GEMMA4_METRIC_RELATIVE_RMS] = "relative_rms",
        [GEMMA4_METRIC_POSITION_RMS] = "position_rms",
        [GEMMA4_METRIC_RMS_IN_SPREADS] = "rms_in_spreads",
        [GEMMA4_METRIC_WORST_POSITION_IN_SPREADS] = "worst_position_in_spreads",
        [GEMMA4_METRIC_BIAS_IN_SPREADS] = "bias_in_spreads",
        [GEMMA4_METRIC_MATCHED_FILTER] = "matched_filter",
        [GEMMA4_METRIC_EXPERT_SETS] = "expert_sets",
        [GEMMA4_METRIC_LISTED_TOKENS] = "listed_tokens",
        [GEMMA4_METRIC_NONFINITE_VALUES] = "nonfinite_values",
        [GEMMA4_METRIC_SHAPE] = "shape",
    };
    return names[kind];
}

int gemma4_comparison_init(gemma4_comparison *c, size_t positions, gemma4_error *error)
{
    *c = (gemma4_comparison){.positions = positions, .worst_difference = -1};
    c->seen = calloc(positions, sizeof *c->seen);
    c->diff_t = calloc(positions, sizeof *c->diff_t);
    c->expected_t = calloc(positions, sizeof *c->expected_t);
    if (c->seen && c->diff_t && c->expected_t)
        return 0;
    gemma4_comparison_free(c);
    return gemma4_fail(error, "comparison of %zu positions: out of memory", positions);
}

void gemma4_comparison_free(gemma4_comparison *c)
{
    free(c->seen);
    free(c->diff_t);
    free(c->expected_t);
    *c = (gemma4_comparison){0};
}

void gemma4_comparison_add(gemma4_comparison *c, size_t t, size_t first_index, const float *engine,
                           const float *expected, size_t n)
{
    c->seen[t] = true;
    for (size_t i = 0; i < n; i++) {
        double e = (double)engine[i], g = (double)expected[i], difference = fabs(e - g);
        if (!isfinite(engine[i])) {
            if (c->nonfinite++ == 0) {
                c->nonfinite_position = t;
                c->nonfinite_index = first_index + i;
            }
            continue;
        }
        c->values++;
        c->diff_t[t] += difference * difference;
        c->expected_t[t] += g * g;
        c->engine += e * e;
        c->product += e * g;
        if (!(difference <= c->worst_difference)) {
            c->worst_difference = difference;
            c->worst_engine = e;
            c->worst_expected = g;
            c->worst_position = t;
            c->worst_index = first_index + i;
        }
    }
}

/* sqrt(a / b), where 0 / 0 is no error at all. */
static double ratio(double a, double b)
{
    return a == 0 ? 0 : sqrt(a / b);
}

gemma4_metrics gemma4_comparison_metrics(const gemma4_comparison *c)
{
    gemma4_metrics m = {0};
    double diff = 0, expected = 0;
    size_t positions = 0;
    for (size_t t = 0; t < c->positions; t++) {
        diff += c->diff_t[t];
        expected += c->expected_t[t];
        positions += c->seen[t];
    }
    m.relative_rms = ratio(diff, expected);
    m.position_rms = -1;
    for (size_t t = 0; t < c->positions; t++) {
        /* A position much smaller than the average one is judged in units of the average one. */
        double error =
            c->seen[t] ? ratio(c->diff_t[t], fmax(c->expected_t[t], expected / (double)positions))
                       : -1;
        if (!(error <= m.position_rms)) {
            m.position_rms = error;
            m.position = t;
        }
    }
    m.cosine = expected > 0 && c->engine > 0 ? c->product / sqrt(expected) / sqrt(c->engine)
                                             : expected == c->engine;
    m.norm_ratio = expected > 0 ? sqrt(c->engine / expected) : c->engine > 0 ? INFINITY : 1;
    return m;
}
