#include "rows.h"

#include <string.h>

#include "forward.h"
#include "isolate.h"

enum { SECONDS_TO_READ = 60 }; /* of processor time, for one tensor's rows */

bool gemma4_tap_is_keys(gemma4_tap tap)
{
    gemma4_tap_rows rows = gemma4_tap_describe(tap)->rows;
    return rows == GEMMA4_ROWS_SCORES || rows == GEMMA4_ROWS_PROBS;
}

bool gemma4_key_is_masked(const gemma4_config *config, size_t layer, size_t positions, size_t query,
                          size_t index)
{
    gemma4_visible keys = gemma4_visible_keys(config, layer, query);
    size_t key = index % positions;
    return key < keys.first || key >= keys.end;
}

bool gemma4_tap_in_id_order(gemma4_tap tap)
{
    return gemma4_tap_describe(tap)->rows == GEMMA4_ROWS_BY_ID;
}

int gemma4_read_positions(gemma4_activations *file, const gemma4_activation *a, size_t first,
                          size_t rows, size_t width, float *values, int32_t *ids, bool *have,
                          gemma4_error *error)
{
    memset(have, 0, rows * sizeof *have);
    for (size_t i = 0, run; i < a->rows; i += run) {
        size_t position = a->row_index[i];
        for (run = 1; i + run < a->rows && a->row_index[i + run] == position + run; run++)
            ;
        size_t from = position > first ? position : first;
        size_t to = position + run < first + rows ? position + run : first + rows;
        if (from >= to)
            continue;
        size_t stored = i + (from - position), at = (from - first) * width;
        gemma4_limit_processor_time(SECONDS_TO_READ);
        int status = values
                         ? gemma4_activations_read(file, a, stored, to - from, values + at, error)
                         : gemma4_activations_read_ids(file, a, stored, to - from, ids + at, error);
        gemma4_limit_processor_time(0);
        if (status)
            return -1;
        for (size_t p = from; p < to; p++)
            have[p - first] = true;
    }
    return 0;
}
