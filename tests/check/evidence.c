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
    return gemma4_tap_describe(tap)->rows == GEMMA4_ROWS_SCORES && gemma4_key_is_masked(&e->subject->model->config, e->layer, e->subject->T, row, index);
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

double gemma4_storage_unit(const gemma4_subject *s, const gemma4_activation *stored)
{
    const gemma4_tier *type = gemma4_tier_of(stored->stored_dtype);
    return type && type->unit > s->tier->unit ? type->unit : s->tier->unit;
}
