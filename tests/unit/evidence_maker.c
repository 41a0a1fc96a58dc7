#include "evidence_maker.h"

#include <stdlib.h>

#include "support.h"

typedef gemma4_real real;

gemma4_model *test_model_with(const char *old, const char *replacement)
{
    gemma4_error error = {""};
    const char *directory = test_fresh_dir();
    test_write_checkpoint(directory, test_replace(test_tiny_config, old, replacement), "model.", 1);
    gemma4_model *model = gemma4_model_open(directory, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    return model;
}

const gemma4_model *test_small_model(void)
{
    static const gemma4_model *model;
    if (model == NULL)
        model = test_model_with(NULL, NULL);
    return model;
}

/* Zeros that test_evidence_free frees. */
static void *allocate(test_evidence *e, size_t count, size_t size)
{
    void *memory = calloc(count, size);
    void **list = realloc(e->memory, (e->memory_count + 1) * sizeof *list);
    ck_assert(memory != NULL && list != NULL);
    e->memory = list;
    return e->memory[e->memory_count++] = memory;
}

test_evidence *test_evidence_new(const gemma4_model *model, size_t T, const char *tier,
                                 gemma4_block block)
{
    gemma4_error error = {""};
    test_evidence *e = calloc(1, sizeof *e);
    ck_assert_ptr_nonnull(e);
    model = model ? model : test_small_model();
    size_t d = model->config.hidden_size;
    e->tokens = allocate(e, T, sizeof *e->tokens);
    for (size_t t = 0; t < T; t++)
        e->tokens[t] = (int32_t)(t % model->config.vocab_size);
    e->have_ids = allocate(e, T, sizeof *e->have_ids);
    e->have_valid_ids = allocate(e, T, sizeof *e->have_valid_ids);
    e->streams[0] = e->stream = allocate(e, T * d, sizeof *e->stream);
    e->streams[1] = e->output = allocate(e, T * d, sizeof *e->output);
    e->subject =
        (gemma4_subject){.model = model, .tier = gemma4_tier_of(tier), .T = T, .tokens = e->tokens};
    ck_assert_msg(e->subject.tier != NULL, "%s: no such tier", tier);
    ck_assert_int_eq(gemma4_schedule_init(&e->subject.schedule, NULL, T, &error), 0);
    e->evidence = (gemma4_evidence){.subject = &e->subject,
                                    .block = block,
                                    .known_block = block,
                                    .streams = e->streams,
                                    .output = e->output,
                                    .have_ids = e->have_ids,
                                    .have_valid_ids = e->have_valid_ids};
    e->evidence.layer = gemma4_block_is_layer(&model->config, block) ? (size_t)block : 0;
    return e;
}

void test_evidence_free(test_evidence *e)
{
    gemma4_schedule_free(&e->subject.schedule);
    for (size_t i = 0; i < e->memory_count; i++)
        free(e->memory[i]);
    free(e->memory);
    free(e);
}

test_tap *test_evidence_unstored(test_evidence *e, gemma4_tap tap, size_t width,
                                 const real *expected, const double *sigma)
{
    size_t T = e->subject.T, dims[2] = {1, 1};
    test_tap *t = &e->taps[tap];
    gemma4_tap_evidence *out = &e->evidence.taps[tap];
    gemma4_tap_dims(&e->subject.model->config, tap, e->evidence.layer, T, dims);
    t->width = width ? width : dims[0] * dims[1];
    t->expected = allocate(e, T * t->width, sizeof *t->expected);
    t->values = allocate(e, T * t->width, sizeof *t->values);
    t->sigma = allocate(e, T, sizeof *t->sigma);
    for (size_t i = 0; i < T * t->width; i++)
        t->values[i] = t->expected[i] = expected ? expected[i] : 1;
    for (size_t row = 0; row < T; row++)
        t->sigma[row] = sigma ? sigma[row] : 1;
    *out = (gemma4_tap_evidence){
        .width = t->width, .expected = t->expected, .values = t->values, .sigma = t->sigma};
    for (size_t d = 0; d < GEMMA4_DRAWS; d++)
        out->draws[d] = t->draws[d] = allocate(e, T * t->width, sizeof *t->draws[d]);
    return t;
}

test_tap *test_evidence_tap(test_evidence *e, gemma4_tap tap, size_t width, const real *expected,
                            const float *engine, const double *sigma)
{
    size_t T = e->subject.T;
    test_tap *t = test_evidence_unstored(e, tap, width, expected, sigma);
    gemma4_tap_evidence *out = &e->evidence.taps[tap];
    t->stored = (gemma4_activation){.tap = tap,
                                    .layer = e->evidence.layer,
                                    .stored_dtype = "float32",
                                    .usable = true,
                                    .rows = T};
    t->engine = allocate(e, T * t->width, sizeof *t->engine);
    t->have = allocate(e, T, sizeof *t->have);
    t->stored_row = allocate(e, T, sizeof *t->stored_row);
    for (size_t i = 0; i < T * t->width; i++)
        t->engine[i] = engine ? engine[i] : (float)t->expected[i];
    for (size_t row = 0; row < T; row++)
        t->have[row] = t->stored_row[row] = true;
    out->stored = &t->stored;
    out->engine = t->engine;
    out->have = t->have;
    out->stored_row = t->stored_row;
    return t;
}

void test_draws_alternate(const test_evidence *e, gemma4_tap tap)
{
    const test_tap *t = &e->taps[tap];
    for (size_t d = 0; d < GEMMA4_DRAWS; d++)
        for (size_t row = 0; row < e->subject.T; row++)
            for (size_t i = 0; i < t->width; i++)
                t->draws[d][row * t->width + i] =
                    (float)((d + i) % 2 ? -t->sigma[row] : t->sigma[row]);
}

void test_draws_along(const test_evidence *e, gemma4_tap tap, const double part[GEMMA4_DRAWS])
{
    const test_tap *t = &e->taps[tap];
    for (size_t d = 0; d < GEMMA4_DRAWS; d++)
        for (size_t i = 0; i < e->subject.T * t->width; i++)
            t->draws[d][i] = (float)(part[d] * (double)t->expected[i]);
}

static bool are_distinct(const int32_t *ids, size_t K, size_t E)
{
    for (size_t i = 0; i < K; i++)
        for (size_t j = 0; j <= i; j++)
            if (ids[i] < 0 || (size_t)ids[i] >= E || (j < i && ids[j] == ids[i]))
                return false;
    return true;
}

void test_evidence_ids(test_evidence *e, const int32_t *engine_ids, const int32_t *ids)
{
    const gemma4_config *c = &e->subject.model->config;
    size_t T = e->subject.T, K = c->top_k_experts;
    e->engine_ids = allocate(e, T * K, sizeof *e->engine_ids);
    e->ids = allocate(e, T * K, sizeof *e->ids);
    if (engine_ids)
        memcpy(e->engine_ids, engine_ids, T * K * sizeof *engine_ids);
    memcpy(e->ids, ids, T * K * sizeof *ids);
    for (size_t t = 0; t < T; t++) {
        e->have_ids[t] = engine_ids != NULL;
        e->have_valid_ids[t] = engine_ids && are_distinct(engine_ids + t * K, K, c->num_experts);
    }
    e->evidence.engine_ids = e->engine_ids;
    e->evidence.ids = e->ids;
    test_tap *t = &e->taps[GEMMA4_TAP_ROUTER_TOPK_IDS];
    t->stored = (gemma4_activation){.tap = GEMMA4_TAP_ROUTER_TOPK_IDS,
                                    .layer = e->evidence.layer,
                                    .stored_dtype = "int32",
                                    .usable = true,
                                    .rows = T};
    e->evidence.taps[GEMMA4_TAP_ROUTER_TOPK_IDS].stored = engine_ids ? &t->stored : NULL;
}
