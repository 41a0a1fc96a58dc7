#include "space.h"

#define GEMMA4_PARAMETER_ROW(id, name, domain, steps, values, found) \
    {name, GEMMA4_DOMAIN_##domain, steps, values, found},
static const gemma4_parameter_info table[] = {GEMMA4_PARAMETERS(GEMMA4_PARAMETER_ROW)};

const gemma4_parameter_info *gemma4_parameter_describe(gemma4_parameter parameter)
{
    return &table[parameter];
}
