#include "tap_compare.h"

#include "forward.h"
#include "rows.h"

/* Rows [K, width] whose slots are named by ids. */
static void compare_aligned(gemma4_comparison *c, size_t t, const float *engine,
                            const int32_t *engine_ids, const float *expected,
                            const int32_t *expected_ids, size_t K, size_t width)
{
    for (size_t r = 0; r < K; r++)
        for (size_t q = 0; q < K; q++)
            if (engine_ids[r] == expected_ids[q])
                gemma4_comparison_add(c, t, r * width, engine + r * width, expected + q * width,
                                      width);
}

/* A row [H, T] of scores or probabilities. */
static void compare_keys(gemma4_comparison *c, gemma4_visible seen, bool masked_too, size_t t,
                         size_t H, size_t T, const float *engine, const float *expected)
{
    size_t first = masked_too ? 0 : seen.first, end = masked_too ? T : seen.end;
    for (size_t h = 0; h < H; h++)
        gemma4_comparison_add(c, t, h * T + first, engine + h * T + first, expected + h * T + first,
                              end - first);
}

void gemma4_compare_row(gemma4_comparison *c, const gemma4_config *config, gemma4_tap tap,
                        size_t layer, size_t T, size_t t, size_t width, const float *engine,
                        const int32_t *engine_ids, const float *expected,
                        const int32_t *expected_ids)
{
    size_t K = config->top_k_experts;
    if (gemma4_tap_in_id_order(tap))
        compare_aligned(c, t, engine, engine_ids, expected, expected_ids, K, width / K);
    else if (gemma4_tap_is_keys(tap))
        compare_keys(c, gemma4_visible_keys(config, layer, t), tap == GEMMA4_TAP_ATTN_PROBS, t,
                     width / T, T, engine, expected);
    else
        gemma4_comparison_add(c, t, 0, engine, expected, width);
}
