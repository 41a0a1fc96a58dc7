#include "evidence.h"

#include <math.h>

#include "rows.h"
#include "thresholds.h"

bool gemma4_block_is_layer(const gemma4_config *config, gemma4_block block)
{
    return block >= 0 && (size_t)block < config->num_hidden_layers;
}

bool gemma4_tap_is_in(const gemma4_config *config, gemma4_tap tap, gemma4_block block)
{
    if (gemma4_block_is_layer(config, block))
        return gemma4_tap_describe(tap)->per_layer;
    return block < 0 ? tap == GEMMA4_TAP_EMBED : tap > GEMMA4_TAP_LAYER_OUTPUT;
}

bool gemma4_evidence_masked(const gemma4_evidence *e, gemma4_tap tap, size_t row, size_t index)
{
    return gemma4_tap_describe(tap)->rows == GEMMA4_ROWS_SCORES &&
           gemma4_key_is_masked(&e->subject->model->config, e->layer, e->subject->T, row, index);
}

bool gemma4_logits_are_stored(const gemma4_evidence *e, size_t row)
{
    const gemma4_tap_evidence *t = &e->taps[GEMMA4_TAP_ROUTER_LOGITS];
    return t->engine && t->have[row];
}

double gemma4_near_tie(const gemma4_evidence *e, size_t row)
{
    return NEAR_TIE_DEVIATIONS * sqrt(2) * e->taps[GEMMA4_TAP_ROUTER_LOGITS].sigma[row];
}

static double sum_of_squares(const gemma4_real *values, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)values[i] * (double)values[i];
    return sum;
}

/* The mean over the draws of a row's sum of squares. */
static double energy_of_draws(const gemma4_tap_evidence *t, size_t row)
{
    double sum = 0;
    for (size_t d = 0; d < GEMMA4_DRAWS; d++)
        for (size_t i = row * t->width; i < (row + 1) * t->width; i++)
            sum += (double)t->draws[d][i] * (double)t->draws[d][i];
    return sum / GEMMA4_DRAWS;
}

void gemma4_spread_of_draws(const gemma4_evidence *e, gemma4_tap tap, double *sigma)
{
    const gemma4_tap_evidence *t = &e->taps[tap];
    size_t T = e->subject->T;
    double draws = 0, size = sum_of_squares(t->expected, T * t->width);
    for (size_t row = 0; row < T; row++)
        draws += energy_of_draws(t, row);
    double relative = size > 0 ? sqrt(draws / size) : 0;
    /* Over several bridged layers all of the typical row's: an engine's flips need not be in the
     * rows where those of the draws are. */
    bool bridged = e->block - e->known_block + e->bridged_before > 1;
    double least = bridged ? 1 : LEAST_OF_TYPICAL;
    for (size_t row = 0; row < T; row++) {
        double own = sqrt(energy_of_draws(t, row) / (double)t->width);
        double rms =
            sqrt(sum_of_squares(t->expected + row * t->width, t->width) / (double)t->width);
        sigma[row] = fmax(fmax(own, least * relative * rms),
                          fmax(LEAST_OF_ROUNDING * e->subject->tier->unit * rms, LEAST_SPREAD));
    }
}

int gemma4_subject_part(gemma4_subject *part, const gemma4_subject *whole, size_t first, size_t T,
                        gemma4_error *error)
{
    *part = *whole;
    part->T = T;
    part->first_row = first;
    part->first_position += first;
    part->tokens += first;
    if (whole->listed) {
        part->listed_ids += first * whole->listed;
        part->have_listed += first;
    }
    return gemma4_schedule_part(&part->schedule, &whole->schedule, first, T, error);
}

void gemma4_subject_part_free(gemma4_subject *part)
{
    gemma4_schedule_free(&part->schedule);
}

double gemma4_storage_unit(const gemma4_subject *s, const gemma4_activation *stored)
{
    const gemma4_tier *type = gemma4_tier_of(stored->stored_dtype);
    return type && type->unit > s->tier->unit ? type->unit : s->tier->unit;
}
