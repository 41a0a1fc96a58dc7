#include "score.h"

#include <math.h>

#include "evidence.h"
#include "noise.h"
#include "thresholds.h"

bool gemma4_row_counts(const gemma4_evidence *e, gemma4_tap tap, const gemma4_against *against,
                       size_t row)
{
    const gemma4_tap_evidence *t = &e->taps[tap];
    return t->engine && t->have[row] && !(against->skip && against->skip[row]) &&
           !(against->positions && row >= against->positions);
}

/* The same of a row whose squares sum to size, where those of what was expected sum to expected. */
static double sigma_of_size(const gemma4_evidence *e, gemma4_tap tap, const gemma4_against *against,
                            size_t row, double size, double expected)
{
    double sigma = against->sigma ? against->sigma[row] : e->taps[tap].sigma[row],
           least = against->smaller ? e->subject->tier->unit : 1;
    return against->values && expected > 0 ? sigma * fmax(least, sqrt(size / expected)) : sigma;
}

double gemma4_against_sigma(const gemma4_evidence *e, gemma4_tap tap, const gemma4_against *against,
                            size_t row)
{
    const gemma4_tap_evidence *t = &e->taps[tap];
    double size = 0, expected = 0;
    for (size_t i = row * t->width; against->values && i < (row + 1) * t->width; i++) {
        if (gemma4_evidence_masked(e, tap, row, i - row * t->width))
            continue;
        size += (double)against->values[i] * (double)against->values[i];
        expected += (double)t->expected[i] * (double)t->expected[i];
    }
    return sigma_of_size(e, tap, against, row, size, expected);
}

gemma4_score gemma4_score_tap(const gemma4_evidence *e, gemma4_tap tap,
                              const gemma4_against *against)
{
    const gemma4_tap_evidence *t = &e->taps[tap];
    const gemma4_real *expected = against->values ? against->values : t->expected;
    gemma4_score s = {.worst = -1};
    double sum = 0, errors = 0, sizes = 0;
    for (size_t row = 0; row < e->subject->T; row++) {
        double error = 0, size = 0, expected_size = 0;
        if (!gemma4_row_counts(e, tap, against, row))
            continue;
        for (size_t i = row * t->width; i < (row + 1) * t->width; i++) {
            if (gemma4_evidence_masked(e, tap, row, i - row * t->width))
                continue;
            double difference = (double)t->engine[i] - (double)expected[i];
            error += difference * difference;
            size += (double)expected[i] * (double)expected[i];
            expected_size += (double)t->expected[i] * (double)t->expected[i];
        }
        double relative = sqrt(error / (double)t->width) /
                          sigma_of_size(e, tap, against, row, size, expected_size);
        s.rows++;
        sum += relative * relative;
        errors += error;
        sizes += size;
        if (!(relative <= s.worst)) {
            s.worst = relative;
            s.position = row;
        }
    }
    s.score = s.rows ? sqrt(sum / (double)s.rows) : 0;
    s.relative_rms = errors == 0 ? 0 : sqrt(errors / sizes);
    return s;
}

bool gemma4_within_limits(const gemma4_evidence *e, gemma4_tap tap)
{
    const gemma4_against all = {0};
    gemma4_score s = gemma4_score_tap(e, tap, &all);
    return s.score <= LIMIT_SCORE && s.worst <= LIMIT_WORST;
}

/* <x, expected> / <expected, expected> of one row, where x is the engine's error or a draw. */
static double projection(const gemma4_tap_evidence *t, size_t row, const float *x, bool is_engine,
                         double size)
{
    double sum = 0;
    for (size_t i = row * t->width; i < (row + 1) * t->width; i++)
        if (t->expected[i] != 0) /* what is masked may hold anything */
            sum +=
                (double)t->expected[i] * ((double)x[i] - (is_engine ? (double)t->expected[i] : 0));
    return sum / size;
}

static double size_of_row(const gemma4_tap_evidence *t, size_t row)
{
    double size = 0;
    for (size_t i = row * t->width; i < (row + 1) * t->width; i++)
        size += (double)t->expected[i] * (double)t->expected[i];
    return size;
}

gemma4_bias gemma4_bias_of_tap(const gemma4_evidence *e, gemma4_tap tap)
{
    const gemma4_tap_evidence *t = &e->taps[tap];
    gemma4_bias bias = {0};
    double variance = 0, means[GEMMA4_DRAWS] = {0}, of_means = 0;
    size_t rows = 0;
    for (size_t row = 0; t->engine && row < e->subject->T; row++) {
        double size = t->have[row] ? size_of_row(t, row) : 0;
        if (size == 0)
            continue;
        rows++;
        bias.part += projection(t, row, t->engine, true, size);
        for (size_t d = 0; d < GEMMA4_DRAWS; d++) {
            double part = projection(t, row, t->draws[d], false, size);
            variance += part * part / GEMMA4_DRAWS;
            means[d] += part;
        }
    }
    if (rows < BIAS_ROWS)
        return (gemma4_bias){0};
    bias.part /= (double)rows;
    /* Rows share errors (of a cached value that all of them read), and six draws may be close by
     * chance: the larger of both estimates. */
    for (size_t d = 0; d < GEMMA4_DRAWS; d++)
        of_means += means[d] * means[d] / GEMMA4_DRAWS;
    /* At least what a rounding that all rows share may do: of the root of the hidden size; of other
     * constants; in float32, of a root or an exponential. */
    double shared =
        tap == GEMMA4_TAP_EMBED || tap == GEMMA4_TAP_ROUTER_NORM ? BIAS_ROOT : BIAS_SHARED;
    double spread = fmax(sqrt(fmax(variance, of_means)) / (double)rows,
                         fmax(shared * e->subject->tier->unit, UNIT_FLOAT32));
    bias.in_spreads = fabs(bias.part) / spread;
    return bias;
}
