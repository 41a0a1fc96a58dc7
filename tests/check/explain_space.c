/* The space of mistakes as text: its table of parameters. */
#include "explain.h"
#include "space.h"

static const char *domain_text(gemma4_domain domain)
{
    switch (domain) {
    case GEMMA4_DOMAIN_REAL: return "a number";
    case GEMMA4_DOMAIN_WHOLE: return "a whole number";
    case GEMMA4_DOMAIN_LIST: return "a list";
    default: return "words";
    }
}

void gemma4_explain_space(FILE *out)
{
    fputs("| parameter | is | at | values | how found |\n|---|---|---|---|---|\n", out);
    for (int i = 0; i < GEMMA4_PARAMETER_COUNT; i++) {
        const gemma4_parameter_info *info = gemma4_parameter_describe((gemma4_parameter)i);
        fprintf(out, "| `%s` | %s | %s | %s | %s |\n", info->name, domain_text(info->domain),
                info->steps, info->values, info->found);
    }
}
