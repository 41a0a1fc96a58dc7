#include "replay.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "block_run.h"
#include "evidence.h"
#include "listed.h"
#include "recognise.h"
#include "report.h"
#include "routing.h"
#include "rows.h"
#include "score.h"

typedef gemma4_real real;

/* The evidence of one block while it is written; `evidence` points to the rest. */
typedef struct record {
    gemma4_evidence evidence;
    struct record *before; /* the bridged block before this one */
    real *expected[GEMMA4_TAP_COUNT], *values[GEMMA4_TAP_COUNT];
    float *engine[GEMMA4_TAP_COUNT], *draws[GEMMA4_TAP_COUNT][GEMMA4_DRAWS];
    bool *have[GEMMA4_TAP_COUNT], *stored_row[GEMMA4_TAP_COUNT];
    double *sigma[GEMMA4_TAP_COUNT];
    int32_t *engine_ids, *ids;       /* [T, K] */
    bool *have_ids, *have_valid_ids; /* [T] */
    real *output;                    /* [T, d] */
    /* Tensors that were put right, as they were stored: [T, width] of float or int32. */
    void *as_stored[GEMMA4_TAP_COUNT];
    bool *rows_as_stored[GEMMA4_TAP_COUNT]; /* [T] */
} record;

struct gemma4_replay {
    const gemma4_subject *s;
    gemma4_activations *engine;
    gemma4_runner *runner;
    const gemma4_reference_run *reference; /* NULL: mistakes of the dump are not looked for */
    record *record;                        /* of the block at hand */
    gemma4_block next;
    bool of_head;       /* of a part's head: what it reads is known, though so many blocks before */
    int bridged_before; /* were bridged */
    real *h, *h_before; /* [1 + GEMMA4_DRAWS, T, d] the exact stream and the perturbed ones, after
                           and before the block */
    real **streams; /* the exact stream before each block since the last whose input was known, and
                       after the block at hand */
    size_t stream_count;
};

/* ---------------------------------------------------------------- the record */

static void free_tap(record *r, int tap)
{
    free(r->expected[tap]);
    free(r->values[tap]);
    free(r->engine[tap]);
    free(r->have[tap]);
    free(r->stored_row[tap]);
    free(r->sigma[tap]);
    free(r->as_stored[tap]);
    free(r->rows_as_stored[tap]);
    for (size_t i = 0; i < GEMMA4_DRAWS; i++)
        free(r->draws[tap][i]);
}

static void free_record(record *r)
{
    if (!r)
        return;
    free_record(r->before);
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        free_tap(r, tap);
    free(r->engine_ids);
    free(r->ids);
    free(r->have_ids);
    free(r->have_valid_ids);
    free(r);
}

/* Memory for one tap, as far as it is needed; the evidence points to it. */
static int new_tap(record *r, gemma4_tap tap, gemma4_error *error)
{
    const gemma4_subject *s = r->evidence.subject;
    gemma4_tap_evidence *t = &r->evidence.taps[tap];
    size_t T = s->T, dims[2] = {1, 1};
    gemma4_tap_dims(&s->model->config, tap, r->evidence.layer, T, dims);
    t->width = tap == GEMMA4_TAP_LOGPROBS ? s->listed : dims[0] * dims[1];
    bool choice = tap == GEMMA4_TAP_ROUTER_LOGITS || (tap == GEMMA4_TAP_LOGITS && s->listed),
         ok = true;
    if (t->width && (!gemma4_tap_is_keys(tap) || t->stored)) { /* scores are large: kept only where
                                                                  they are compared */
        ok = (r->expected[tap] = calloc(T * t->width, sizeof **r->expected)) && ok;
        ok = (r->values[tap] = calloc(T * t->width, sizeof **r->values)) && ok;
    }
    if (t->stored || choice) { /* near-ties are judged by the spread of the logits, stored or not */
        ok = (r->sigma[tap] = calloc(T, sizeof **r->sigma)) && ok;
        for (size_t i = 0; i < GEMMA4_DRAWS; i++)
            ok = (r->draws[tap][i] = calloc(T * t->width, sizeof *r->draws[tap][i])) && ok;
    }
    if (t->stored) {
        ok = (r->engine[tap] = calloc(T * t->width, sizeof **r->engine)) && ok;
        ok = (r->have[tap] = calloc(T, sizeof **r->have)) && ok;
        ok = (r->stored_row[tap] = calloc(T, sizeof **r->stored_row)) && ok;
    }
    t->expected = r->expected[tap];
    t->values = r->values[tap];
    t->engine = r->engine[tap];
    t->have = r->have[tap];
    t->stored_row = r->stored_row[tap];
    t->sigma = r->sigma[tap];
    for (size_t i = 0; i < GEMMA4_DRAWS; i++)
        t->draws[i] = r->draws[tap][i];
    return ok ? 0 : gemma4_fail(error, "replay: out of memory");
}

/* ------------------------------------------------------------ what the dump holds */

static const gemma4_activation *find_usable(gemma4_activations *engine, gemma4_tap tap,
                                            size_t layer)
{
    const gemma4_activation *a = gemma4_activations_find(engine, tap, layer);
    return a && a->usable ? a : NULL;
}

/* A row counts where every value that means something in it is finite. */
static bool row_is_finite(const gemma4_evidence *e, gemma4_tap tap, size_t row)
{
    const gemma4_tap_evidence *t = &e->taps[tap];
    for (size_t i = 0; i < t->width; i++)
        if (!isfinite(t->engine[row * t->width + i]) && !gemma4_evidence_masked(e, tap, row, i))
            return false;
    return true;
}

/* Rows that can be compared. */
static void find_rows(record *r, gemma4_tap tap)
{
    for (size_t row = 0; row < r->evidence.subject->T; row++) {
        bool in_unknown_order = gemma4_tap_in_id_order(tap) && !r->have_valid_ids[row];
        r->have[tap][row] =
            r->stored_row[tap][row] && !in_unknown_order && row_is_finite(&r->evidence, tap, row);
    }
}

/* What of the dump a tap is, and which of its rows are there. */
static void *stored_values(const record *r, gemma4_tap tap)
{
    return tap == GEMMA4_TAP_ROUTER_TOPK_IDS ? (void *)r->engine_ids : (void *)r->engine[tap];
}

static bool *stored_rows(const record *r, gemma4_tap tap)
{
    return tap == GEMMA4_TAP_ROUTER_TOPK_IDS ? r->have_ids : r->stored_row[tap];
}

static size_t stored_bytes(const record *r, gemma4_tap tap)
{
    const gemma4_subject *s = r->evidence.subject;
    if (tap == GEMMA4_TAP_ROUTER_TOPK_IDS)
        return s->T * s->model->config.top_k_experts * sizeof *r->engine_ids;
    return s->T * r->evidence.taps[tap].width * sizeof **r->engine;
}

/* Puts a tensor right that was dumped wrongly, and keeps what was stored. */
static int put_right(gemma4_replay *replay, record *r, gemma4_tap tap, gemma4_error *error)
{
    gemma4_tap_evidence *t = &r->evidence.taps[tap];
    const gemma4_reference_run *reference = replay->reference;
    size_t T = replay->s->T, bytes = stored_bytes(r, tap);
    if (!reference || tap == GEMMA4_TAP_LOGPROBS ||
        !(tap == GEMMA4_TAP_ROUTER_TOPK_IDS || gemma4_reference_expected(reference, tap)))
        return 0;
    const gemma4_loaded loaded = {.config = &replay->s->model->config,
                                  .tap = tap,
                                  .layer = r->evidence.layer,
                                  .T = T,
                                  .width = t->width,
                                  .engine = r->engine[tap],
                                  .engine_ids = r->engine_ids,
                                  .stored_row = stored_rows(r, tap),
                                  .have_valid_ids = r->have_valid_ids,
                                  .expected = gemma4_reference_expected(reference, tap),
                                  .expected_ids = gemma4_reference_ids(reference)};
    if (gemma4_recognise_loaded(&loaded, &t->mistake, error))
        return -1;
    if (t->mistake.kind == GEMMA4_DUMP_AS_DUE)
        return 0;
    r->as_stored[tap] = malloc(bytes);
    r->rows_as_stored[tap] = malloc(T * sizeof **r->rows_as_stored);
    if (!r->as_stored[tap] || !r->rows_as_stored[tap])
        return gemma4_fail(error, "replay: out of memory");
    memcpy(r->as_stored[tap], stored_values(r, tap), bytes);
    memcpy(r->rows_as_stored[tap], stored_rows(r, tap), T * sizeof **r->rows_as_stored);
    return gemma4_put_right(&loaded, &t->mistake, error);
}

static int load_tap(gemma4_replay *replay, record *r, gemma4_tap tap, gemma4_error *error)
{
    gemma4_tap_evidence *t = &r->evidence.taps[tap];
    size_t T = replay->s->T;
    t->stored = find_usable(replay->engine, tap, r->evidence.layer);
    if (tap == GEMMA4_TAP_LOGPROBS && !gemma4_logprobs_are_usable(replay->s, t->stored))
        t->stored = NULL;
    if (new_tap(r, tap, error))
        return -1;
    if (!t->stored)
        return 0;
    if (gemma4_read_positions(replay->engine, t->stored, replay->s->first_row, T, t->width,
                              r->engine[tap], NULL, r->stored_row[tap], error) ||
        put_right(replay, r, tap, error) ||
        (tap == GEMMA4_TAP_LOGPROBS &&
         gemma4_listed_engine_differences(replay->s, r->engine[tap], error)))
        return -1;
    /* nothing says whose the others are */
    for (size_t row = 0; tap == GEMMA4_TAP_LOGPROBS && row < T; row++)
        r->stored_row[tap][row] = r->stored_row[tap][row] && replay->s->have_listed[row];
    find_rows(r, tap);
    return 0;
}

static bool are_distinct_experts(const int32_t *ids, size_t K, size_t E)
{
    for (size_t i = 0; i < K; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= E)
            return false;
        for (size_t j = 0; j < i; j++)
            if (ids[j] == ids[i])
                return false;
    }
    return true;
}

static void find_valid_ids(record *r)
{
    const gemma4_config *c = &r->evidence.subject->model->config;
    size_t K = c->top_k_experts;
    for (size_t t = 0; t < r->evidence.subject->T; t++)
        r->have_valid_ids[t] =
            r->have_ids[t] && are_distinct_experts(r->engine_ids + t * K, K, c->num_experts);
}

/* The engine's expert choices, before anything in their order is loaded. */
static int load_ids(gemma4_replay *replay, record *r, gemma4_error *error)
{
    const gemma4_config *c = &replay->s->model->config;
    size_t T = replay->s->T, K = c->top_k_experts;
    const gemma4_activation *a =
        find_usable(replay->engine, GEMMA4_TAP_ROUTER_TOPK_IDS, r->evidence.layer);
    bool ok = true;
    ok = (r->engine_ids = calloc(T * K, sizeof *r->engine_ids)) && ok;
    ok = (r->ids = calloc(T * K, sizeof *r->ids)) && ok;
    ok = (r->have_ids = calloc(T, sizeof *r->have_ids)) && ok;
    ok = (r->have_valid_ids = calloc(T, sizeof *r->have_valid_ids)) && ok;
    if (!ok)
        return gemma4_fail(error, "replay: out of memory");
    gemma4_evidence *e = &r->evidence;
    e->engine_ids = r->engine_ids;
    e->ids = r->ids;
    e->have_ids = r->have_ids;
    e->have_valid_ids = r->have_valid_ids;
    e->taps[GEMMA4_TAP_ROUTER_TOPK_IDS].stored = a;
    if (a && (gemma4_read_positions(replay->engine, a, replay->s->first_row, T, K, NULL,
                                    r->engine_ids, r->have_ids, error) ||
              put_right(replay, r, GEMMA4_TAP_ROUTER_TOPK_IDS, error)))
        return -1;
    find_valid_ids(r);
    return 0;
}

static int load(gemma4_replay *replay, record *r, gemma4_error *error)
{
    const gemma4_config *c = &replay->s->model->config;
    gemma4_block block = r->evidence.block;
    if (gemma4_block_is_layer(c, block) && load_ids(replay, r, error))
        return -1;
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        if (gemma4_tap_is_in(c, (gemma4_tap)tap, block) &&
            !gemma4_tap_describe((gemma4_tap)tap)->ids &&
            load_tap(replay, r, (gemma4_tap)tap, error))
            return -1;
    return 0;
}

/* Does the dump hold the tensor at every position? */
static bool is_whole(const gemma4_subject *s, const gemma4_activation *a)
{
    size_t held = 0;
    for (size_t i = 0; a && i < a->rows; i++)
        held += a->row_index[i] >= s->first_row && a->row_index[i] < s->first_row + s->T;
    return a && held == s->T;
}

/* Does the dump hold the whole stream as this block reads it? */
static bool input_is_known(const gemma4_replay *replay, gemma4_block block)
{
    gemma4_tap before = block == 0 ? GEMMA4_TAP_EMBED : GEMMA4_TAP_LAYER_OUTPUT;
    const gemma4_activation *a =
        block >= 0 ? find_usable(replay->engine, before, block > 0 ? (size_t)block - 1 : 0) : NULL;
    const gemma4_activation *input =
        gemma4_block_is_layer(&replay->s->model->config, block)
            ? find_usable(replay->engine, GEMMA4_TAP_LAYER_INPUT, (size_t)block)
            : NULL;
    const record *r = replay->record;
    /* a row is lost */
    bool moved = block >= 0 && r && r->evidence.taps[before].mistake.kind == GEMMA4_DUMP_SHIFTED;
    return block < 0 || replay->of_head || (is_whole(replay->s, a) && !moved) ||
           is_whole(replay->s, input);
}

/* --------------------------------------------------------------------- runs */

static void see_expected(void *context, const gemma4_tap_event *event)
{
    record *r = context;
    if (r->expected[event->tap])
        gemma4_keep_event(r->expected[event->tap], event, r->evidence.taps[event->tap].width,
                          r->evidence.subject->T);
}

/* A perturbed run, and the record that it is for. */
typedef struct drawing {
    record *record;
    size_t draw;
} drawing;

/* What this draw differs from what was expected. */
static void see_difference(void *context, const gemma4_tap_event *e)
{
    const drawing *d = context;
    const gemma4_tap_evidence *t = &d->record->evidence.taps[e->tap];
    float *difference = d->record->draws[e->tap][d->draw];
    size_t T = d->record->evidence.subject->T;
    if (!difference)
        return;
    bool keys = gemma4_tap_is_keys(e->tap);
    size_t heads = keys ? e->dims[0] : 1, n = keys ? e->dims[1] : e->rows * t->width;
    for (size_t h = 0; h < heads; h++)
        for (size_t j = 0; j < n; j++) {
            size_t at = e->row * t->width + (keys ? h * T : 0) + e->first_key + j;
            difference[at] = (float)(e->values[h * n + j] - t->expected[at]);
        }
}

static gemma4_block_run exact_run(record *r, const int32_t *ids)
{
    gemma4_block_run run = {.block = r->evidence.block,
                            .inject = &r->evidence,
                            .ids = ids,
                            .see = see_expected,
                            .context = r,
                            .chosen = r->ids};
    memcpy(run.values, r->values, sizeof run.values);
    return run;
}

static gemma4_block_run perturbed_run(const gemma4_replay *replay, drawing *drawn,
                                      gemma4_noise *noise)
{
    const gemma4_evidence *e = &drawn->record->evidence;
    *noise =
        gemma4_noise_new(replay->s->tier, (uint64_t)drawn->draw * 4096 + (uint64_t)(e->block + 1));
    noise->kv_unit = replay->s->kv_unit;
    return (gemma4_block_run){.block = e->block,
                              .inject = e,
                              .noise = noise,
                              .draw = drawn->draw,
                              .see = see_difference,
                              .context = drawn,
                              .ids = e->ids_fixed ? e->ids : NULL,
                              .clean_logits =
                                  e->ids_fixed ? NULL : e->taps[GEMMA4_TAP_ROUTER_LOGITS].values};
}

/* The exact run and the perturbed ones. ids: the choice of experts; NULL: as it comes. */
static int run_once(gemma4_replay *replay, record *r, const int32_t *ids, gemma4_error *error)
{
    const gemma4_evidence *e = &r->evidence;
    size_t n = replay->s->T * replay->s->model->config.hidden_size;
    gemma4_block_run runs[1 + GEMMA4_DRAWS];
    gemma4_noise noise[GEMMA4_DRAWS];
    drawing drawn[GEMMA4_DRAWS];
    memcpy(replay->h, e->streams[e->block - e->known_block], n * sizeof *replay->h);
    runs[0] = exact_run(r, ids);
    for (size_t d = 0; d < GEMMA4_DRAWS; d++) {
        drawn[d] = (drawing){r, d};
        runs[1 + d] = perturbed_run(replay, &drawn[d], &noise[d]);
        memcpy(replay->h + (1 + d) * n, replay->h_before + (1 + d) * n, n * sizeof *replay->h);
    }
    if (gemma4_run_block_batch(replay->runner, runs, 1 + GEMMA4_DRAWS, replay->h, error))
        return -1;
    memcpy(r->output, replay->h, n * sizeof *r->output);
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        if (r->sigma[tap])
            gemma4_spread_of_draws(e, (gemma4_tap)tap, r->sigma[tap]);
    return 0;
}

/* ------------------------------------------------------------------- blocks */

/* What further runs through a bridged block need: the engine's tensors and choices. */
static void keep_injection(record *r)
{
    r->evidence.streams = NULL;
    r->evidence.output = NULL;
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
        gemma4_tap_evidence *t = &r->evidence.taps[tap];
        free(r->expected[tap]);
        free(r->values[tap]);
        free(r->sigma[tap]);
        r->expected[tap] = r->values[tap] = NULL;
        r->sigma[tap] = NULL;
        t->expected = t->values = NULL;
        t->sigma = NULL;
        for (size_t i = 0; i < GEMMA4_DRAWS; i++) {
            free(r->draws[tap][i]);
            r->draws[tap][i] = NULL;
            t->draws[i] = NULL;
        }
    }
}

/* The record of the next block, and the stream that it starts from. */
static record *new_record(gemma4_replay *replay, gemma4_error *error)
{
    const gemma4_subject *s = replay->s;
    gemma4_block block = replay->next;
    record *r = calloc(1, sizeof *r);
    real **streams = realloc(replay->streams, (replay->stream_count + 2) * sizeof *streams);
    replay->streams = streams ? streams : replay->streams;
    real *output = calloc(s->T * s->model->config.hidden_size, sizeof *output);
    /* the embedding reads no stream */
    real *none = block < 0 ? calloc(s->T * s->model->config.hidden_size, sizeof *none) : NULL;
    if (!r || !streams || !output || (block < 0 && !none)) {
        free(r);
        free(output);
        free(none);
        gemma4_fail(error, "replay: out of memory");
        return NULL;
    }
    if (none)
        replay->streams[replay->stream_count++] = none;
    bool known = input_is_known(replay, block);
    gemma4_block known_block = known ? block : replay->record->evidence.known_block;
    /* those before the known one have served */
    for (; known && replay->stream_count > 1; replay->stream_count--) {
        free(replay->streams[0]);
        memmove(replay->streams, replay->streams + 1,
                (replay->stream_count - 1) * sizeof *replay->streams);
    }
    if (known || !replay->record) {
        free_record(replay->record);
    } else {
        keep_injection(replay->record);
        r->before = replay->record;
    }
    replay->record = r;
    replay->streams[replay->stream_count++] = output;
    r->output = output;
    bool layer = gemma4_block_is_layer(&s->model->config, block);
    r->evidence = (gemma4_evidence){.subject = s,
                                    .block = block,
                                    .layer = layer ? (size_t)block : 0,
                                    .known_block = known_block,
                                    .bridged_before = replay->bridged_before,
                                    .before = r->before ? &r->before->evidence : NULL,
                                    .streams = (const real *const *)replay->streams,
                                    .output = output};
    return r;
}

/* Once more with the choices of experts that explain what the dump holds. */
static int infer_ids(gemma4_replay *replay, record *r, gemma4_error *error)
{
    size_t n = replay->s->T * replay->s->model->config.top_k_experts;
    int32_t *chosen = calloc(n, sizeof *chosen);
    size_t inferred;
    int status = chosen
                     ? gemma4_routing_infer(&r->evidence, replay->runner, chosen, &inferred, error)
                     : gemma4_fail(error, "replay: out of memory");
    if (!status && inferred) {
        r->evidence.inferred = inferred;
        r->evidence.ids_fixed = true;
        status = run_once(replay, r, chosen, error);
    }
    free(chosen);
    return status;
}

/* All runs of the block. */
static int run_all(gemma4_replay *replay, record *r, gemma4_error *error)
{
    bool layer = gemma4_block_is_layer(&replay->s->model->config, replay->next);
    bool bridged = r->evidence.known_block != r->evidence.block && r->evidence.block > 0;
    r->evidence.inferred = 0;
    /* Where no layer is bridged into the block, experts are those of the exact run: a flip is
     * judged as a flip, not as noise. */
    r->evidence.ids_fixed = layer && !bridged;
    return run_once(replay, r, NULL, error) || (layer && !bridged && infer_ids(replay, r, error))
               ? -1
               : 0;
}

/* --- tensors that were put right --- */

static bool has_mistakes(const record *r)
{
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        if (r->as_stored[tap])
            return true;
    return false;
}

static void exchange_bytes(void *a, void *b, size_t size)
{
    for (unsigned char *x = a, *y = b; size-- > 0; x++, y++) {
        unsigned char kept = *x;
        *x = *y;
        *y = kept;
    }
}

/* Exchanges the tensors that were put right for what was stored, and back. */
static void exchange(record *r)
{
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
        if (!r->as_stored[tap])
            continue;
        exchange_bytes(stored_values(r, (gemma4_tap)tap), r->as_stored[tap],
                       stored_bytes(r, (gemma4_tap)tap));
        exchange_bytes(stored_rows(r, (gemma4_tap)tap), r->rows_as_stored[tap],
                       r->evidence.subject->T * sizeof(bool));
    }
    if (r->have_ids)
        find_valid_ids(r);
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        if (r->engine[tap])
            find_rows(r, (gemma4_tap)tap);
}

/* The taps beside those that were put right that fail. */
static size_t failing_beside(const record *r)
{
    size_t failing = 0;
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        failing += r->engine[tap] && !r->as_stored[tap] &&
                   !gemma4_within_limits(&r->evidence, (gemma4_tap)tap);
    return failing;
}

/* Was it the engine that computed what was put right? Then what reads it follows from what was
 * stored. */
static int run_with_mistakes(gemma4_replay *replay, record *r, gemma4_error *error)
{
    exchange(r);
    if (run_all(replay, r, error))
        return -1;
    size_t as_stored = failing_beside(r);
    exchange(r);
    if (run_all(replay, r, error))
        return -1;
    if (failing_beside(r) <= as_stored)
        return 0;
    exchange(r);
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        r->evidence.taps[tap].mistake = (gemma4_dump_mistake){0};
    return run_all(replay, r, error);
}

const gemma4_evidence *gemma4_replay_next(gemma4_replay *replay, gemma4_error *error)
{
    const gemma4_subject *s = replay->s;
    size_t n = (1 + GEMMA4_DRAWS) * s->T * s->model->config.hidden_size;
    record *r = new_record(replay, error);
    if (!r || load(replay, r, error))
        return NULL;
    memcpy(replay->h_before, replay->h, n * sizeof *replay->h);
    if (has_mistakes(r) ? run_with_mistakes(replay, r, error) : run_all(replay, r, error))
        return NULL;
    replay->next++;
    return &r->evidence;
}

int gemma4_replay_bridged(const gemma4_replay *replay)
{
    return input_is_known(replay, replay->next)
               ? 0
               : replay->next - replay->record->evidence.known_block;
}

void gemma4_replay_recognise(gemma4_replay *replay, const gemma4_reference_run *reference)
{
    replay->reference = reference;
}

gemma4_runner *gemma4_replay_runner(gemma4_replay *replay)
{
    return replay->runner;
}

/* ------------------------------------------------------------------- set-up */

int gemma4_subject_init(gemma4_subject *s, const gemma4_model *model,
                        const gemma4_activations *engine, const gemma4_tier *tier,
                        gemma4_error *error)
{
    const int32_t *positions;
    const char *kv_dtype = gemma4_activations_attribute(engine, "kv_dtype");
    const gemma4_tier *kv =
        kv_dtype ? gemma4_tier_expect("attribute kv_dtype", kv_dtype, error) : tier;
    *s = (gemma4_subject){.model = model, .tier = tier};
    if (!kv)
        return -1;
    s->kv_unit = kv->unit > tier->unit ? kv->unit : 0;
    s->T = gemma4_activations_positions(engine, &s->tokens, &positions);
    s->first_position = (size_t)positions[0];
    return gemma4_schedule_init(&s->schedule, gemma4_activations_attribute(engine, "schedule"),
                                s->T, error);
}

void gemma4_subject_free(gemma4_subject *s)
{
    gemma4_schedule_free(&s->schedule);
    free(s->listed_ids);
    free(s->have_listed);
}

gemma4_replay *gemma4_replay_new(const gemma4_subject *subject, gemma4_activations *engine,
                                 gemma4_error *error)
{
    gemma4_replay *replay = calloc(1, sizeof *replay);
    size_t n = (1 + GEMMA4_DRAWS) * subject->T * subject->model->config.hidden_size;
    bool ok = replay && (replay->h = calloc(n, sizeof(real))) &&
              (replay->h_before = calloc(n, sizeof(real)));
    if (!ok) {
        gemma4_replay_free(replay);
        gemma4_fail(error, "replay of %zu positions: out of memory", subject->T);
        return NULL;
    }
    replay->s = subject;
    replay->engine = engine;
    replay->next = -1;
    replay->runner = gemma4_runner_new(subject, error);
    if (!replay->runner) {
        gemma4_replay_free(replay);
        return NULL;
    }
    return replay;
}

void gemma4_replay_end_layers(gemma4_replay *replay)
{
    record *r = replay->record;
    keep_injection(r);
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
        free(r->engine[tap]);
        r->engine[tap] = NULL;
        r->evidence.taps[tap].engine = NULL;
    }
    gemma4_runner_free(replay->runner);
    replay->runner = NULL;
}

gemma4_replay *gemma4_replay_of_head(const gemma4_replay *whole, const gemma4_subject *part,
                                     gemma4_error *error)
{
    size_t d = part->model->config.hidden_size, n = part->T * d, at = part->first_row * d;
    gemma4_replay *replay = gemma4_replay_new(part, whole->engine, error);
    real *stream = malloc(n * sizeof *stream);
    if (!replay || !stream || !(replay->streams = malloc(sizeof *replay->streams))) {
        free(stream);
        gemma4_replay_free(replay);
        gemma4_fail(error, "replay of %zu positions: out of memory", part->T);
        return NULL;
    }
    replay->next = whole->next;
    replay->of_head = true;
    replay->bridged_before = gemma4_replay_bridged(whole);
    replay->reference = whole->reference;
    replay->streams[replay->stream_count++] =
        memcpy(stream, whole->streams[whole->stream_count - 1] + at, n * sizeof *stream);
    for (size_t i = 0; i < 1 + GEMMA4_DRAWS; i++)
        memcpy(replay->h + i * n, whole->h + i * whole->s->T * d + at, n * sizeof *replay->h);
    return replay;
}

void gemma4_replay_free(gemma4_replay *replay)
{
    if (!replay)
        return;
    free(replay->h);
    free(replay->h_before);
    free_record(replay->record);
    for (size_t i = 0; i < replay->stream_count; i++)
        free(replay->streams[i]);
    free(replay->streams);
    gemma4_runner_free(replay->runner);
    free(replay);
}
