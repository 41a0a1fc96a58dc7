/* The catalogue as one list: its parts, one after the other. */
#include "catalogue.h"

#include <assert.h>
#include <string.h>

static const struct {
    const gemma4_counter_model *rows;
    const size_t *count;
} parts[] = {
    {catalogue_stream, &catalogue_stream_count},
    {catalogue_attention, &catalogue_attention_count},
    {catalogue_ffn, &catalogue_ffn_count},
};
enum { PARTS = sizeof parts / sizeof *parts };

size_t gemma4_counter_model_count(void)
{
    size_t count = 0;
    for (size_t i = 0; i < PARTS; i++)
        count += *parts[i].count;
    return count;
}

const gemma4_counter_model *gemma4_counter_model_at(size_t index)
{
    for (size_t i = 0; i < PARTS; index -= *parts[i].count, i++)
        if (index < *parts[i].count)
            return &parts[i].rows[index];
    assert(!"an index within the catalogue");
    return NULL;
}

bool gemma4_cause_exists(const char *id)
{
    for (size_t i = 0; i < gemma4_counter_model_count(); i++)
        if (!strcmp(gemma4_counter_model_at(i)->id, id))
            return true;
    return false;
}

/* The unit from which on each of these is an honest rounding. */
static const struct {
    const char *id;
    double unit;
} permitted[] = {
    {"embed-scale-bf16-in-fp32-reference", 0x1p-11},
    {"kv-cache-f16", 0x1p-11},
    {"ffn-moe-f16-accumulate", 0x1p-11},
    {"router-low-precision", 0x1p-8},
    {"rmsnorm-low-precision-reduce", 0x1p-8},
    {"rmsnorm-downcast-before-weight", 0x1p-8},
};

double gemma4_counter_model_rounds(const gemma4_counter_model *counter_model)
{
    for (size_t i = 0; i < sizeof permitted / sizeof *permitted; i++)
        if (!strcmp(counter_model->id, permitted[i].id))
            return permitted[i].unit;
    return 0;
}

bool gemma4_counter_model_is_permitted(const gemma4_counter_model *counter_model, double unit)
{
    double rounds = gemma4_counter_model_rounds(counter_model);
    return rounds > 0 && unit >= rounds;
}

bool gemma4_counter_model_acts(const gemma4_counter_model *counter_model,
                               const gemma4_config *config, gemma4_tap tap, size_t layer)
{
    int kind = !gemma4_tap_describe(tap)->per_layer           ? GEMMA4_ON_HEAD
               : config->layers[layer].kind == GEMMA4_SLIDING ? GEMMA4_ON_SLIDING
                                                              : GEMMA4_ON_FULL;
    return (counter_model->where & kind) != 0;
}
