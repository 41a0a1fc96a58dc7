#include "filter.h"

#include <math.h>
#include <stdlib.h>

#include "counter_model.h"
#include "counter_run.h"
#include "evidence.h"
#include "fit.h"
#include "noise.h"
#include "planted.h"
#include "schedule.h"
#include "taps.h"
#include "thresholds.h"

typedef gemma4_real real;

double gemma4_noise_variance(const gemma4_tap_evidence *t, size_t row, size_t i)
{
    double sum = 0;
    for (size_t draw = 0; draw < GEMMA4_DRAWS; draw++)
        sum += (double)t->draws[draw][i] * (double)t->draws[draw][i];
    return sum / GEMMA4_DRAWS + FILTER_ROW_PART * t->sigma[row] * t->sigma[row];
}

gemma4_filter gemma4_project(const gemma4_evidence *e, gemma4_tap tap, const real *prediction,
                             const gemma4_against *rows)
{
    const gemma4_tap_evidence *t = &e->taps[tap];
    gemma4_filter f = {0};
    for (size_t row = 0; row < e->subject->T; row++)
        for (size_t i = row * t->width;
             gemma4_row_counts(e, tap, rows, row) && i < (row + 1) * t->width; i++) {
            double difference = (double)prediction[i] - (double)t->expected[i],
                   error = (double)t->engine[i] - (double)t->expected[i];
            if ((difference == 0 && error == 0) || !isfinite(difference) ||
                gemma4_evidence_masked(e, tap, row, i - row * t->width))
                continue;
            double weight = 1 / gemma4_noise_variance(t, row, i), weighed = difference * weight;
            f.total += error * error * weight;
            f.size += weighed * difference;
            f.error += weighed * error;
            for (size_t draw = 0; draw < GEMMA4_DRAWS; draw++)
                f.draws[draw] += weighed * (double)t->draws[draw][i];
        }
    return f;
}

void gemma4_filter_add(gemma4_filter *to, const gemma4_filter *f)
{
    to->error += f->error;
    to->size += f->size;
    to->total += f->total;
    for (size_t draw = 0; draw < GEMMA4_DRAWS; draw++)
        to->draws[draw] += f->draws[draw];
}

double gemma4_filter_coefficient(const gemma4_filter *f)
{
    return f->size > 0 ? f->error / f->size : 0;
}

/* The draws are few, so it is never taken for less than independent errors would give. */
double gemma4_filter_spread(const gemma4_filter *f)
{
    double sum = 0;
    for (size_t draw = 0; draw < GEMMA4_DRAWS; draw++)
        sum += f->draws[draw] * f->draws[draw];
    return f->size > 0 ? fmax(sqrt(sum / GEMMA4_DRAWS) / f->size, 1 / sqrt(f->size)) : INFINITY;
}

double gemma4_filter_share(const gemma4_filter *f)
{
    return f->size > 0 && f->total > 0 ? f->error * f->error / (f->size * f->total) : 0;
}

bool gemma4_filter_is_significant(const gemma4_filter *f, double deviations)
{
    double c = gemma4_filter_coefficient(f), spread = gemma4_filter_spread(f);
    return fabs(c - 1) <= FILTER_COEFFICIENT && c / spread >= deviations;
}

bool gemma4_filter_is_named(const gemma4_filter *f)
{
    double room = FILTER_NAMED_PART + FILTER_NAMED_DEVIATIONS * gemma4_filter_spread(f);
    return fabs(gemma4_filter_coefficient(f) - 1) <= room;
}

const gemma4_filter *gemma4_significant_filter(const gemma4_filtered *f)
{
    return gemma4_filter_is_significant(&f->all, FILTER_DEVIATIONS)          ? &f->all
           : gemma4_filter_is_significant(&f->best, FILTER_LAYER_DEVIATIONS) ? &f->best
                                                                             : NULL;
}

/* ------------------------------------------------------------------ one block */

/* The taps of this block at which a model is evaluated: those of its own that the dump holds, else
 * the first one behind it. */
static size_t taps_of(const gemma4_evidence *e, const gemma4_planted *planted,
                      gemma4_tap taps[GEMMA4_TAP_COUNT])
{
    const gemma4_counter_model *m = planted->models[0];
    size_t count = 0;
    bool here = gemma4_planted_in(&e->subject->model->config, planted, 0, e->block);
    for (const gemma4_tap *t = m->taps; here && *t != GEMMA4_TAP_COUNT; t++)
        if (e->taps[*t].engine)
            taps[count++] = *t;
    for (int tap = 0; count == 0 && tap < GEMMA4_TAP_COUNT; tap++)
        if (e->taps[tap].engine && (tap > (int)m->taps[0] || e->known_block < e->block) &&
            gemma4_can_show(e, planted, (gemma4_tap)tap))
            taps[count++] = (gemma4_tap)tap;
    return count;
}

/* How much of a predicted difference, in units of noise, changes where the step's inputs are
 * perturbed: wrong and right are what the perturbed step gives. */
static bool stays(const gemma4_evidence *e, gemma4_tap tap, const real *prediction,
                  const real *wrong, const real *right)
{
    const gemma4_tap_evidence *t = &e->taps[tap];
    double moved = 0, size = 0;
    for (size_t i = 0; i < e->subject->T * t->width; i++) {
        double difference = (double)prediction[i] - (double)t->expected[i],
               again = (double)wrong[i] - (double)right[i];
        if (!t->have[i / t->width] || !isfinite(difference) || !isfinite(again))
            continue;
        double variance = gemma4_noise_variance(t, i / t->width, i);
        size += difference * difference / variance;
        moved += (again - difference) * (again - difference) / variance;
    }
    return moved <= FILTER_MOVED_PART * size;
}

/* Is the predicted difference more than the rounding of what the step read? A model that reads
 * another tensor, right up to rounding, in the place of the step's own, or what was not rounded in
 * between, predicts that rounding: an engine that makes it has no mistake. The difference between
 * wrong and right must be about the same where the inputs are perturbed within their storage. */
static int outlasts_rounding(const gemma4_evidence *e, const gemma4_counter_model *m,
                             gemma4_tap tap, const real *prediction, bool *outlasts,
                             gemma4_error *error)
{
    size_t n = e->subject->T * e->taps[tap].width;
    gemma4_parameters right = gemma4_known_parameters(e->subject, e->block), wrong = right;
    gemma4_step step;
    real *values = calloc(2 * n, sizeof *values);
    gemma4_counter_apply(m, &wrong);
    int status = gemma4_perturbed_step(e, &step, error);
    if (!status && !values)
        status = gemma4_fail(error, "diagnosis: out of memory");
    if (!status)
        status = gemma4_counter_step(&step, &wrong, tap, values, NULL, error) ||
                         gemma4_counter_step(&step, &right, tap, values + n, NULL, error)
                     ? -1
                     : 0;
    if (!status)
        *outlasts = stays(e, tap, prediction, values, values + n);
    gemma4_step_free(&step);
    free(values);
    return status;
}

/* The coefficient that an engine would have which stores the right values, rounded to nearest.
 * Nearly always none; but where the right value is next to one that the step read as it was stored,
 * like a soft-cap's of small logits, rounding takes all of them back to it. */
static double coefficient_of_rounding(const gemma4_evidence *e, gemma4_tap tap,
                                      const real *prediction)
{
    const gemma4_tap_evidence *t = &e->taps[tap];
    double unit = gemma4_storage_unit(e->subject, t->stored), product = 0, size = 0;
    for (size_t i = 0; i < e->subject->T * t->width; i++) {
        size_t row = i / t->width;
        double right = (double)t->expected[i], difference = (double)prediction[i] - right;
        if (!t->have[row] || !isfinite(difference) ||
            gemma4_evidence_masked(e, tap, row, i % t->width))
            continue;
        double variance = gemma4_noise_variance(t, row, i);
        product += difference * (gemma4_rounded(right, unit) - right) / variance;
        size += difference * difference / variance;
    }
    return size > 0 ? product / size : 0;
}

/* One model at one tap. */
static int filter_tap(gemma4_filter *sums, const gemma4_evidence *e, gemma4_runner *runner,
                      const gemma4_planted *planted, gemma4_tap tap, gemma4_error *error)
{
    const gemma4_against all = {0};
    real *prediction = malloc(e->subject->T * e->taps[tap].width * sizeof *prediction);
    int status = prediction ? gemma4_predict(e, runner, planted, tap, 0, prediction, NULL, error)
                            : gemma4_fail(error, "diagnosis: out of memory");
    if (!status) {
        gemma4_filter f = gemma4_project(e, tap, prediction, &all);
        /* Only what could become a cause is worth a second computation. */
        double c = gemma4_filter_coefficient(&f);
        bool outlasts = true, promising = c > FILTER_PROMISING && c >= gemma4_filter_spread(&f);
        if (promising && coefficient_of_rounding(e, tap, prediction) > FILTER_PROMISING)
            outlasts = false;
        else if (promising && gemma4_is_one_step(e, planted->models[0], tap))
            status = outlasts_rounding(e, planted->models[0], tap, prediction, &outlasts, error);
        if (!status && outlasts)
            gemma4_filter_add(sums, &f);
    }
    free(prediction);
    return status;
}

static double significance(const gemma4_filter *f)
{
    return gemma4_filter_coefficient(f) / gemma4_filter_spread(f);
}

static int filter_model(gemma4_filtered *state, const gemma4_evidence *e, gemma4_runner *runner,
                        size_t model, const bool failed[GEMMA4_TAP_COUNT], gemma4_error *error)
{
    gemma4_planted planted = {
        .models = {gemma4_counter_model_at(model)}, .only_layer = {-1}, .count = 1};
    gemma4_tap taps[GEMMA4_TAP_COUNT];
    size_t count = taps_of(e, &planted, taps);
    gemma4_tap first = GEMMA4_TAP_COUNT; /* that added anything */
    gemma4_filter block = {0};
    for (size_t i = 0; i < count; i++) {
        if (!failed[taps[i]] && gemma4_can_show(e, &planted, taps[i]) &&
            filter_tap(&block, e, runner, &planted, taps[i], error))
            return -1;
        first = block.size > 0 && first == GEMMA4_TAP_COUNT ? taps[i] : first;
    }
    if (block.size == 0)
        return 0;
    if (state->blocks++ == 0) {
        state->tap = first;
        state->first_layer = e->layer;
    }
    gemma4_filter_add(&state->all, &block);
    if (state->best.size == 0 || significance(&block) > significance(&state->best)) {
        state->best = block;
        state->best_tap = first;
        state->best_layer = e->layer;
    }
    return 0;
}

int gemma4_filter_block(gemma4_filtered *filtered, const gemma4_evidence *e, gemma4_runner *runner,
                        const bool failed[GEMMA4_TAP_COUNT], gemma4_error *error)
{
    /* A float32 engine's noise is as small as the reference's own rounding, which its error and
     * every prediction share: a filter would find that. Over several bridged layers, noise leaves
     * no room for one that would be worth its time. */
    bool worthwhile =
        e->subject->tier->unit > UNIT_FLOAT32 && e->block - e->known_block <= FILTER_BRIDGED;
    for (size_t model = 0; model < gemma4_counter_model_count() && worthwhile; model++)
        if (filter_model(&filtered[model], e, runner, model, failed, error))
            return -1;
    return 0;
}
