#include <math.h>
#include <stdio.h>
#include <string.h>

#include "twins.h"

void check_value(verdict *v, double found, double expected, double bound, const char *where,
                 size_t index)
{
    uint64_t bits;
    memcpy(&bits, &found, sizeof bits);
    v->hash = (v->hash ^ bits) * 1099511628211u;
    v->values++;
    if (isnan(expected) || isinf(expected)) {
        if (!v->wrong[0] && !(isnan(expected) ? isnan(found) : found == expected))
            snprintf(v->wrong, sizeof v->wrong, "%s, value %zu: expected %g, found %g", where,
                     index, expected, found);
        return;
    }
    double error = fabs(found - expected);
    if (!(error <= bound)) { /* NaN is wrong, too */
        if (!v->wrong[0])
            snprintf(v->wrong, sizeof v->wrong,
                     "%s, value %zu: expected %.9g within %.2e, found %.9g", where, index, expected,
                     bound, found);
    } else if (bound > 0 && error / bound > v->worst) {
        v->worst = error / bound;
        snprintf(v->where, sizeof v->where, "%s", where);
    }
}

void check_unbiased(verdict *v, double found, double expected, double bound, double spread,
                    const char *where, size_t index)
{
    check_value(v, found, expected, bound, where, index);
    double lean = (found - expected) * (expected < 0 ? -1 : 1) / spread;
    if (!isfinite(lean) || expected == 0)
        return;
    v->signed_values++;
    v->sum += lean;
    v->sum_of_squares += lean * lean;
}

void check_bias(verdict *v)
{
    double n = (double)v->signed_values;
    if (v->wrong[0] || n < 100)
        return;
    double mean = v->sum / n, deviation = sqrt(fmax(v->sum_of_squares / n - mean * mean, 0));
    if (!(fabs(mean) * sqrt(n) <= 6 * deviation))
        snprintf(
            v->wrong, sizeof v->wrong,
            "biased: errors lean %s zero, %.1f standard deviations of their mean over %.0f values",
            mean < 0 ? "towards" : "away from", fabs(mean) * sqrt(n) / deviation, n);
}

void check_guards(verdict *v, const char *where)
{
    size_t damaged = guarded_damage();
    if (damaged && !v->wrong[0])
        snprintf(v->wrong, sizeof v->wrong, "%s: wrote outside block %zu", where, damaged);
    v->cases++;
    guarded_free_all();
}
