#include "logprobs.h"

#include <math.h>
#include <stdbool.h>

double gemma4_log_of_sum(const gemma4_real *logits, size_t n)
{
    double largest = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, (double)logits[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - largest);
    return largest + log(sum);
}

void gemma4_best_logprobs(const gemma4_real *logits, size_t n, size_t count, int32_t *ids,
                          gemma4_real *values)
{
    double subtracted = values ? gemma4_log_of_sum(logits, n) : 0;
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        size_t at = kept;
        for (; at > 0 && (logits[ids[at - 1]] < logits[i] || isnan(logits[ids[at - 1]])); at--)
            if (at < count)
                ids[at] = ids[at - 1];
        if (at < count)
            ids[at] = (int32_t)i;
        kept += kept < count;
    }
    for (size_t k = 0; values && k < count; k++)
        values[k] = (gemma4_real)((double)logits[ids[k]] - subtracted);
}
