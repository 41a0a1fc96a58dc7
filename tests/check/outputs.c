#include "outputs.h"

#include "manifest.h"
#include "output.h"

/* A case that cannot be opened has no files that could be lost. */
static int is_none_of_case(const char *output, const gemma4_case *c, gemma4_error *error)
{
    if (!c)
        return 0;
    return gemma4_output_is_not(output, c->path, "the case's manifest", error) ||
           gemma4_output_is_not(output, c->golden_path, "the case's golden", error) ||
           gemma4_output_is_not_of(output, c->checkpoint_dir, error);
}

int gemma4_check_outputs(const char *const *outputs, size_t count, const char *case_name,
                         const char *model_dir, const char *const *inputs, size_t input_count,
                         gemma4_error *error)
{
    gemma4_error ignored;
    gemma4_case *c = NULL;
    int status = 0;
    for (size_t i = 0; i < count; i++)
        if (outputs[i] && case_name && !c)
            c = gemma4_case_open(case_name, &ignored);
    for (size_t i = 0; i < count && !status; i++) {
        if (!outputs[i])
            continue;
        for (size_t j = 0; j < input_count && !status; j++)
            status = gemma4_output_is_not(outputs[i], inputs[j], "an input", error);
        status = status || is_none_of_case(outputs[i], c, error) ||
                 gemma4_output_is_not_of(outputs[i], model_dir, error);
        for (size_t j = 0; j < i && !status; j++)
            status = gemma4_output_is_not(outputs[i], outputs[j], "another report", error);
    }
    gemma4_case_close(c);
    return status ? -1 : 0;
}
