#include "replay.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rows.h"
#include "thresholds.h"

typedef gemma4_real real;

#define UNIT_FLOAT32 0x1p-24

/* What the hook is to do in one run of a block. */
typedef enum run_kind { RUN_CLEAN, RUN_DRAW, RUN_COUNTER } run_kind;

typedef struct block_run {
    gemma4_replay *replay;
    run_kind kind;
    /* RUN_DRAW, and perturbed RUN_COUNTER */
    bool perturbed;
    size_t draw;
    gemma4_noise noise;
    /* RUN_COUNTER */
    gemma4_parameters parameters;
    bool changed[GEMMA4_TAP_COUNT]; /* the taps that the parameters compute otherwise */
    bool planted; /* anything at all */
    gemma4_scope scope;
    bool inject; /* the block at hand; bridged blocks have nothing to inject */
    gemma4_tap stop;
    real *out;
    size_t widths[GEMMA4_TAP_COUNT];
    real *values[GEMMA4_TAP_COUNT]; /* this run's own tensors, as its steps read them */
    int32_t *ids;
} block_run;

/* ------------------------------------------------------------------- hook */

static void perturb(block_run *run, gemma4_tap_event *e, size_t width)
{
    gemma4_replay *r = run->replay;
    const gemma4_config *c = &r->model->config;
    const gemma4_layer_config *lc = &c->layers[r->block_layer];
    size_t heads = gemma4_tap_heads(c, e->tap, r->block_layer);
    gemma4_noise_step(&run->noise, e->tap, e->values, e->rows, width, heads, gemma4_tap_sum_length(c, e->tap, r->block_layer, r->T));
    if (e->tap == GEMMA4_TAP_ATTN_Q_ROPE || e->tap == GEMMA4_TAP_ATTN_K_ROPE)
        gemma4_noise_angle(&run->noise, e->values, e->rows, heads, lc->head_dim, lc->rope_pairs, lc->rope_theta,
                           r->first_position + e->row, run->draw * 1000003 + r->block_layer);
    if (gemma4_tap_describe(e->tap)->rows == GEMMA4_ROWS_CACHED)
        gemma4_noise_storage(&run->noise, e->tap, e->values, e->rows * width, 0); /* the cache's own type */
}

/* The rounding that the dump's own storage adds to an injected value: the coarser of the tier's and the dataset's. */
static double storage_unit(const gemma4_replay *r, const gemma4_activation *a)
{
    const gemma4_tier *stored = gemma4_tier_of(a->stored_dtype);
    return stored && stored->unit > r->tier->unit ? stored->unit : r->tier->unit;
}

/* Puts the engine's rows in the place of the run's. A draw sees them as they would be before they were stored. */
static void inject(block_run *run, gemma4_tap_event *e, const gemma4_replayed_tap *t)
{
    gemma4_replay *r = run->replay;
    if (!t->engine)
        return;
    for (size_t i = 0; i < e->rows; i++) {
        size_t row = e->row + i;
        if (!t->have[row] || (gemma4_tap_in_id_order(e->tap) && !r->have_valid_ids[row]))
            continue;
        if (gemma4_tap_is_keys(e->tap)) {
            for (size_t h = 0; h < e->dims[0]; h++)
                for (size_t j = 0; j < e->dims[1]; j++)
                    e->values[h * e->dims[1] + j] = (real)t->engine[row * t->width + h * r->T + e->first_key + j];
            if (run->perturbed)
                gemma4_noise_storage(&run->noise, e->tap, e->values, e->dims[0] * e->dims[1], storage_unit(r, t->stored));
            continue;
        }
        real *values = e->values + i * t->width;
        for (size_t j = 0; j < t->width; j++)
            values[j] = (real)t->engine[row * t->width + j];
        if (run->perturbed)
            gemma4_noise_storage(&run->noise, e->tap, values, t->width, storage_unit(r, t->stored));
    }
}

/* Copies an event's rows to [T, width], spreading scores and probabilities out to all T keys. */
static void keep(real *to, const gemma4_tap_event *e, size_t width, size_t T)
{
    if (!gemma4_tap_is_keys(e->tap)) {
        memcpy(to + e->row * width, e->values, e->rows * width * sizeof *to);
        return;
    }
    real *row = to + e->row * width;
    memset(row, 0, width * sizeof *row);
    for (size_t h = 0; h < e->dims[0]; h++)
        memcpy(row + h * T + e->first_key, e->values + h * e->dims[1], e->dims[1] * sizeof *row);
}

/* What this draw differs from what was expected. */
static void keep_difference(block_run *run, const gemma4_tap_event *e, gemma4_replayed_tap *t)
{
    size_t T = run->replay->T;
    float *difference = t->draws[run->draw];
    if (!gemma4_tap_is_keys(e->tap)) {
        for (size_t i = 0; i < e->rows * t->width; i++)
            difference[e->row * t->width + i] = (float)(e->values[i] - t->expected[e->row * t->width + i]);
        return;
    }
    for (size_t h = 0; h < e->dims[0]; h++)
        for (size_t j = 0; j < e->dims[1]; j++) {
            size_t at = e->row * t->width + h * T + e->first_key + j;
            difference[at] = (float)(e->values[h * e->dims[1] + j] - t->expected[at]);
        }
}

double gemma4_replay_near_tie(const gemma4_replay *r, size_t row)
{
    return NEAR_TIE_DEVIATIONS * sqrt(2) * r->taps[GEMMA4_TAP_ROUTER_LOGITS].sigma[row];
}

/* The smallest logit among the chosen (at ids[chosen]) and the largest of the others (of expert `other`). Where all are chosen the gap is infinite. */
typedef struct boundary {
    size_t chosen;
    int32_t other;
    double gap; /* between the two */
} boundary;

static boundary find_boundary(const real *logits, const int32_t *ids, size_t K, size_t E)
{
    boundary b = {0};
    double smallest_chosen = INFINITY, largest_other = -INFINITY;
    for (size_t i = 0; i < E; i++) {
        size_t k = 0;
        while (k < K && ids[k] != (int32_t)i)
            k++;
        if (k < K && (double)logits[i] < smallest_chosen) {
            smallest_chosen = (double)logits[i];
            b.chosen = k;
        } else if (k == K && (double)logits[i] > largest_other) {
            largest_other = (double)logits[i];
            b.other = (int32_t)i;
        }
    }
    b.gap = fabs(smallest_chosen - largest_other);
    return b;
}

/* Keeps the router's logits of a clean run, and of a draw behind them. */
static void keep_router_logits(block_run *run, const gemma4_tap_event *e)
{
    gemma4_replay *r = run->replay;
    size_t E = r->model->config.num_experts;
    if (e->tap == GEMMA4_TAP_ROUTER_LOGITS)
        memcpy(r->router_logits + (run->kind == RUN_DRAW ? r->T * E : 0) + e->row * E, e->values, e->rows * E * sizeof *e->values);
}

/* A coin decides each row's last place where rounding could. */
static void toss_near_ties(block_run *run, int32_t *ids)
{
    gemma4_replay *r = run->replay;
    size_t K = r->model->config.top_k_experts, E = r->model->config.num_experts;
    for (size_t t = 0; t < r->T; t++) {
        const real *clean = r->router_logits + t * E, *draw = clean + r->T * E;
        double sum = 0;
        for (size_t i = 0; i < E; i++)
            sum += ((double)draw[i] - (double)clean[i]) * ((double)draw[i] - (double)clean[i]);
        boundary b = find_boundary(draw, ids + t * K, K, E);
        if (b.gap <= NEAR_TIE_DEVIATIONS * sqrt(2 * sum / (double)E) && gemma4_noise_toss(&run->noise))
            ids[t * K + b.chosen] = b.other;
    }
}

/* Marks the rows of a counter run whose choice the engine may have made otherwise: its mistake moves the logits, so choices inferred
 * for the right model do not hold. */
static void find_counter_ties(block_run *run)
{
    gemma4_replay *r = run->replay;
    size_t K = r->model->config.top_k_experts, E = r->model->config.num_experts;
    for (size_t t = 0; t < r->T; t++) {
        const real *logits = run->values[GEMMA4_TAP_ROUTER_LOGITS] + t * E;
        const gemma4_replayed_tap *stored = &r->taps[GEMMA4_TAP_ROUTER_LOGITS];
        r->counter_open[t] = !r->have_valid_ids[t] && !(stored->engine && stored->have[t]) &&
                             find_boundary(logits, run->ids + t * K, K, E).gap <= gemma4_replay_near_tie(r, t);
    }
}

/* The reference's choice, or the one that is forced, or the engine's. */
static void choose_ids(block_run *run, gemma4_tap_event *e)
{
    gemma4_replay *r = run->replay;
    size_t K = r->model->config.top_k_experts, n = r->T * K;
    bool own = run->kind == RUN_COUNTER && (!run->inject || run->planted);
    if (run->kind == RUN_CLEAN && !r->force_ids)
        memcpy(r->reference_ids, e->ids, n * sizeof *e->ids);
    if (r->force_ids && !own)
        memcpy(e->ids, r->ids, n * sizeof *e->ids);
    else if (run->kind == RUN_DRAW)
        toss_near_ties(run, e->ids);
    for (size_t t = 0; t < r->T; t++)
        if (r->have_valid_ids[t] && !(run->kind == RUN_COUNTER && !run->inject))
            memcpy(e->ids + t * K, r->engine_ids + t * K, K * sizeof *e->ids);
    if (run->kind == RUN_CLEAN)
        memcpy(r->ids, e->ids, n * sizeof *e->ids);
    if (run->kind == RUN_COUNTER) {
        memcpy(run->ids, e->ids, n * sizeof *e->ids);
        if (run->inject && run->planted)
            find_counter_ties(run);
    }
}

static gemma4_step step_of(const gemma4_replay *r, real *const values[], const int32_t *ids)
{
    gemma4_step step = {.model = r->model, .layer = r->block_layer, .T = r->T, .first_position = r->first_position, .chunk_start = r->chunk_start,
                        .chunk_end = r->chunk_end, .tokens = r->tokens, .topk_ids = ids};
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        step.values[tap] = values[tap];
    return step;
}

const char *gemma4_scope_text(gemma4_scope scope)
{
    static const char *const texts[] = {"", "in positions fed one at a time", "in chunks after the first", "in the first chunk"};
    return texts[scope];
}

bool gemma4_replay_in_scope(const gemma4_replay *r, gemma4_scope scope, size_t t)
{
    switch (scope) {
    case GEMMA4_DECODE_ONLY: return r->chunk_start[t] > 0 && r->chunk_end[t] - r->chunk_start[t] == 1;
    case GEMMA4_AFTER_FIRST_CHUNK: return r->chunk_start[t] > 0;
    case GEMMA4_FIRST_CHUNK_ONLY: return r->chunk_start[t] == 0;
    default: return true;
    }
}

/* Computes an event's tensor with the planted mistakes, at the positions where they are made. */
static int counter_values(block_run *run, gemma4_tap_event *e, gemma4_error *error)
{
    gemma4_replay *r = run->replay;
    size_t width = run->widths[e->tap], size = e->values ? sizeof *e->values : sizeof *e->ids;
    char *values = e->values ? (char *)e->values : (char *)e->ids;
    char *right = malloc(r->T * width * size);
    gemma4_step step = step_of(r, run->values, run->ids);
    if (!right)
        return gemma4_fail(error, "replay: out of memory");
    memcpy(right, values, r->T * width * size);
    int status = gemma4_counter_step(&step, &run->parameters, e->tap, e->values, e->ids, error);
    for (size_t t = 0; t < r->T; t++)
        if (!gemma4_replay_in_scope(r, run->scope, t))
            memcpy(values + t * width * size, right + t * width * size, width * size);
    free(right);
    return status;
}

/* A counter-model's own value for a tap takes the place of the run's. */
static int counter_event(block_run *run, gemma4_tap_event *e, gemma4_error *error)
{
    gemma4_replay *r = run->replay;
    if (run->changed[e->tap] && !gemma4_tap_is_keys(e->tap) && counter_values(run, e, error))
        return -1;
    if (run->perturbed && e->values)
        perturb(run, e, gemma4_tap_is_keys(e->tap) ? e->dims[0] * e->dims[1] : run->widths[e->tap]);
    if (e->tap == GEMMA4_TAP_ROUTER_TOPK_IDS) {
        choose_ids(run, e);
        return 0;
    }
    if (e->tap == run->stop && run->out)
        keep(run->out, e, run->widths[e->tap], r->T);
    if (run->inject)
        inject(run, e, &r->taps[e->tap]);
    if (run->perturbed && e->values)
        gemma4_noise_blocks(&run->noise, e->tap, e->values, e->rows, run->widths[e->tap]);
    if (run->values[e->tap])
        keep(run->values[e->tap], e, run->widths[e->tap], r->T);
    return 0;
}

static int replay_hook(void *context, gemma4_tap_event *e, gemma4_error *error)
{
    block_run *run = context;
    gemma4_replay *r = run->replay;
    gemma4_replayed_tap *t = &r->taps[e->tap];
    if (run->kind == RUN_COUNTER)
        return counter_event(run, e, error);
    if (e->tap == GEMMA4_TAP_ROUTER_TOPK_IDS) {
        choose_ids(run, e);
        return 0;
    }
    if (run->kind == RUN_DRAW)
        perturb(run, e, gemma4_tap_is_keys(e->tap) ? e->dims[0] * e->dims[1] : t->width);
    if (run->kind == RUN_CLEAN && t->expected)
        keep(t->expected, e, t->width, r->T);
    if (run->kind == RUN_DRAW && t->draws[run->draw]) {
        /* What is compared has been stored: a dataset narrower than the arithmetic has rounded once more. */
        const gemma4_tier *stored = t->stored ? gemma4_tier_of(t->stored->stored_dtype) : NULL;
        if (stored && stored->unit > r->tier->unit)
            gemma4_noise_storage(&run->noise, GEMMA4_TAP_COUNT, e->values, e->rows * e->dims[0] * e->dims[1], stored->unit);
        keep_difference(run, e, t);
    }
    inject(run, e, t);
    if (run->kind == RUN_DRAW)
        gemma4_noise_blocks(&run->noise, e->tap, e->values, e->rows, t->width);
    keep_router_logits(run, e);
    if (run->kind == RUN_CLEAN && t->values)
        keep(t->values, e, t->width, r->T);
    return 0;
}

/* ----------------------------------------------------------------- blocks */

static bool tap_is_in(gemma4_tap tap, gemma4_block block, size_t layers)
{
    if (block < 0)
        return tap == GEMMA4_TAP_EMBED;
    if ((size_t)block == layers)
        return tap >= GEMMA4_TAP_FINAL_NORM;
    return tap >= GEMMA4_TAP_LAYER_INPUT && tap <= GEMMA4_TAP_LAYER_OUTPUT;
}

static void free_tap(gemma4_replayed_tap *t)
{
    free(t->expected);
    free(t->values);
    free(t->engine);
    free(t->have);
    free(t->stored_row);
    free(t->sigma);
    for (size_t i = 0; i < GEMMA4_DRAWS; i++)
        free(t->draws[i]);
    memset(t, 0, sizeof *t);
}

static int load_tap(gemma4_replay *r, gemma4_tap tap, gemma4_error *error)
{
    gemma4_replayed_tap *t = &r->taps[tap];
    const gemma4_activation *a = gemma4_activations_find(r->engine, tap, r->block_layer);
    size_t dims[2] = {1, 1}, T = r->T;
    gemma4_tap_dims(&r->model->config, tap, r->block_layer, T, dims);
    t->width = dims[0] * dims[1];
    bool stored = a && a->usable;
    if (!gemma4_tap_is_keys(tap) || stored) { /* scores are large: kept only where they are compared */
        t->expected = calloc(T * t->width, sizeof *t->expected);
        t->values = calloc(T * t->width, sizeof *t->values);
        if (!t->expected || !t->values)
            return gemma4_fail(error, "replay: out of memory");
    }
    bool ok = true;
    if (stored || tap == GEMMA4_TAP_ROUTER_LOGITS) { /* near-ties are judged by the spread of the logits, stored or not */
        ok = (t->sigma = calloc(T, sizeof *t->sigma)) && ok;
        for (size_t i = 0; i < GEMMA4_DRAWS; i++)
            ok = (t->draws[i] = calloc(T * t->width, sizeof *t->draws[i])) && ok;
    }
    if (stored) {
        ok = (t->engine = calloc(T * t->width, sizeof *t->engine)) && ok;
        ok = (t->have = calloc(T, sizeof *t->have)) && ok;
        ok = (t->stored_row = calloc(T, sizeof *t->stored_row)) && ok;
    }
    if (!ok)
        return gemma4_fail(error, "replay: out of memory");
    if (!stored)
        return 0;
    t->stored = a;
    if (gemma4_read_positions(r->engine, a, 0, T, t->width, t->engine, NULL, t->stored_row, error))
        return -1;
    for (size_t row = 0; row < T; row++) {
        bool finite = t->stored_row[row] && !(gemma4_tap_in_id_order(tap) && !r->have_valid_ids[row]);
        for (size_t i = 0; finite && !gemma4_tap_is_keys(tap) && i < t->width; i++)
            finite = isfinite(t->engine[row * t->width + i]);
        /* Masked scores may hold anything: only the visible ones must be finite. */
        for (size_t i = 0; finite && gemma4_tap_is_keys(tap) && i < t->width; i++)
            finite = isfinite(t->engine[row * t->width + i]) || (tap == GEMMA4_TAP_ATTN_SCORES && i % T > row);
        t->have[row] = finite;
    }
    return 0;
}

/* The engine's expert choices, before anything in their order is loaded. */
static int load_ids(gemma4_replay *r, gemma4_error *error)
{
    const gemma4_config *c = &r->model->config;
    size_t K = c->top_k_experts;
    const gemma4_activation *a = gemma4_activations_find(r->engine, GEMMA4_TAP_ROUTER_TOPK_IDS, r->block_layer);
    memset(r->have_ids, 0, r->T * sizeof *r->have_ids);
    memset(r->have_valid_ids, 0, r->T * sizeof *r->have_valid_ids);
    r->force_ids = false;
    if (!a || !a->usable)
        return 0;
    if (gemma4_read_positions(r->engine, a, 0, r->T, K, NULL, r->engine_ids, r->have_ids, error))
        return -1;
    for (size_t t = 0; t < r->T; t++) {
        bool valid = r->have_ids[t];
        for (size_t i = 0; valid && i < K; i++) {
            int32_t id = r->engine_ids[t * K + i];
            valid = id >= 0 && (size_t)id < c->num_experts;
            for (size_t j = 0; valid && j < i; j++)
                valid = r->engine_ids[t * K + j] != id;
        }
        r->have_valid_ids[t] = valid;
    }
    return 0;
}

static int run_block(gemma4_replay *r, block_run *run, real *h, gemma4_error *error)
{
    gemma4_session_set_hook(r->session, replay_hook, run);
    if (r->block < 0)
        return gemma4_forward_embed(r->session, r->tokens, r->T, h, error);
    if ((size_t)r->block < r->model->config.num_hidden_layers)
        return gemma4_forward_layer(r->session, (size_t)r->block, r->T, h, error);
    /* The head leaves the stream as it is. */
    return gemma4_forward_head(r->session, r->T, r->T, h, NULL, error);
}

/* The yardstick of each row: RMS of the draws. A row of few values borrows from the others, relative to its own size. */
static void measure_sigma(const gemma4_replay *r, gemma4_replayed_tap *t)
{
    double draws = 0, sizes = 0;
    for (size_t row = 0; row < r->T; row++) {
        double sum = 0, size = 0;
        for (size_t d = 0; d < GEMMA4_DRAWS; d++)
            for (size_t i = row * t->width; i < (row + 1) * t->width; i++)
                sum += (double)t->draws[d][i] * (double)t->draws[d][i];
        for (size_t i = row * t->width; i < (row + 1) * t->width; i++)
            size += (double)t->expected[i] * (double)t->expected[i];
        t->sigma[row] = sqrt(sum / (double)(t->width * GEMMA4_DRAWS));
        draws += sum / GEMMA4_DRAWS;
        sizes += size;
    }
    double relative = sizes > 0 ? sqrt(draws / sizes) : 0;
    for (size_t row = 0; row < r->T; row++) {
        double size = 0;
        for (size_t i = row * t->width; i < (row + 1) * t->width; i++)
            size += (double)t->expected[i] * (double)t->expected[i];
        double typical = relative * sqrt(size / (double)t->width);
        /* At least half of the typical row's, and a good part of one rounding: the few values of a router's row may all be spared by chance. Over
         * several bridged layers all of it: an engine's flips need not be in the rows where those of the draws are. */
        double rounding = 0.3 * r->tier->unit * sqrt(size / (double)t->width);
        double least = r->known_block < r->block - 1 ? typical : typical / 2;
        t->sigma[row] = fmax(fmax(t->sigma[row], least), fmax(rounding, 1e-30));
    }
}

static int run_draws(gemma4_replay *r, gemma4_error *error)
{
    for (size_t d = 0; d < GEMMA4_DRAWS; d++) {
        block_run run = {.replay = r, .kind = RUN_DRAW, .perturbed = true, .draw = d,
                   .noise = gemma4_noise_new(r->tier, (uint64_t)d * 4096 + (uint64_t)(r->block + 1))};
        run.noise.kv_unit = r->kv_unit;
        if (run_block(r, &run, r->h_draws[d], error))
            return -1;
    }
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        if (r->taps[tap].sigma)
            measure_sigma(r, &r->taps[tap]);
    return 0;
}

/* Did the dump hold the whole stream as this block reads it? */
static bool input_is_known(const gemma4_replay *r, gemma4_block block)
{
    gemma4_tap before = block == 0 ? GEMMA4_TAP_EMBED : GEMMA4_TAP_LAYER_OUTPUT;
    size_t layer = block > 0 ? (size_t)block - 1 : 0;
    const gemma4_activation *a = block >= 0 ? gemma4_activations_find(r->engine, before, layer) : NULL;
    const gemma4_activation *input = block >= 0 && (size_t)block < r->model->config.num_hidden_layers
                                         ? gemma4_activations_find(r->engine, GEMMA4_TAP_LAYER_INPUT, (size_t)block) : NULL;
    return block < 0 || (a && a->usable && a->rows == r->T) || (input && input->usable && input->rows == r->T);
}

int gemma4_replay_block(gemma4_replay *r, gemma4_block block, gemma4_error *error)
{
    const gemma4_config *c = &r->model->config;
    size_t layers = c->num_hidden_layers;
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        free_tap(&r->taps[tap]);
    r->block = block;
    r->block_layer = block >= 0 && (size_t)block < layers ? (size_t)block : 0;
    r->input_known = input_is_known(r, block);
    memcpy(r->h_before, r->h, r->T * c->hidden_size * sizeof *r->h);
    if (r->input_known) {
        r->known_block = block;
        memcpy(r->h_known, r->h, r->T * c->hidden_size * sizeof *r->h);
    }
    for (size_t d = 0; d < GEMMA4_DRAWS; d++)
        memcpy(r->h_draws_before[d], r->h_draws[d], r->T * c->hidden_size * sizeof *r->h);
    if (tap_is_in(GEMMA4_TAP_ROUTER_TOPK_IDS, block, layers) && load_ids(r, error))
        return -1;
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        if (tap_is_in((gemma4_tap)tap, block, layers) && tap != GEMMA4_TAP_ROUTER_TOPK_IDS && load_tap(r, (gemma4_tap)tap, error))
            return -1;
    block_run clean = {.replay = r, .kind = RUN_CLEAN};
    if (run_block(r, &clean, r->h, error))
        return -1;
    /* Where no layer is bridged into the block, experts are those of the clean run: a flip is judged as a flip, not as noise. */
    r->force_ids = (r->input_known || block == 0) && tap_is_in(GEMMA4_TAP_ROUTER_TOPK_IDS, block, layers);
    return run_draws(r, error);
}

int gemma4_replay_again(gemma4_replay *r, gemma4_error *error)
{
    block_run clean = {.replay = r, .kind = RUN_CLEAN};
    size_t n = r->T * r->model->config.hidden_size;
    memcpy(r->h, r->h_before, n * sizeof *r->h);
    for (size_t d = 0; d < GEMMA4_DRAWS; d++)
        memcpy(r->h_draws[d], r->h_draws_before[d], n * sizeof *r->h);
    return run_block(r, &clean, r->h, error) || run_draws(r, error) ? -1 : 0;
}

/* ------------------------------------------------------------ counter runs */

gemma4_step gemma4_replay_step(const gemma4_replay *r)
{
    real *values[GEMMA4_TAP_COUNT];
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        values[tap] = r->taps[tap].values;
    if ((size_t)r->block == r->model->config.num_hidden_layers)
        values[GEMMA4_TAP_LAYER_OUTPUT] = r->h;
    return step_of(r, values, r->ids);
}

int gemma4_replay_perturbed_step(const gemma4_replay *r, gemma4_step *step, gemma4_error *error)
{
    gemma4_noise noise = gemma4_noise_new(r->tier, (uint64_t)(r->block + 1));
    *step = gemma4_replay_step(r);
    const real *stored[GEMMA4_TAP_COUNT];
    memcpy(stored, step->values, sizeof stored);
    memset(step->values, 0, sizeof step->values);
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
        const gemma4_replayed_tap *t = &r->taps[tap];
        size_t n = r->T * (tap == GEMMA4_TAP_LAYER_OUTPUT ? r->model->config.hidden_size : t->width);
        real *copy = stored[tap] ? malloc(n * sizeof *copy) : NULL;
        if (stored[tap] && !copy)
            return gemma4_fail(error, "replay: out of memory");
        if (!copy)
            continue;
        memcpy(copy, stored[tap], n * sizeof *copy);
        if (t->engine)
            gemma4_noise_storage(&noise, (gemma4_tap)tap, copy, n, storage_unit(r, t->stored));
        step->values[tap] = copy;
    }
    return 0;
}

void gemma4_replay_step_free(gemma4_step *step)
{
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        free((void *)step->values[tap]);
}

bool gemma4_planted_in(const gemma4_replay *r, const gemma4_planted *planted, size_t i, gemma4_block block)
{
    const gemma4_config *c = &r->model->config;
    bool layer = block >= 0 && (size_t)block < c->num_hidden_layers;
    int kind = !layer ? GEMMA4_ON_HEAD : c->layers[block].kind == GEMMA4_FULL ? GEMMA4_ON_FULL : GEMMA4_ON_SLIDING;
    return (planted->models[i]->where & kind) && (planted->only_layer[i] < 0 || planted->only_layer[i] == block);
}

/* The parameters in force in this block, and the taps that they change. */
static void plant(block_run *run, const gemma4_planted *planted, gemma4_block block)
{
    run->parameters = gemma4_right_parameters();
    memset(run->changed, 0, sizeof run->changed);
    for (size_t i = 0; i < planted->count; i++) {
        if (!gemma4_planted_in(run->replay, planted, i, block))
            continue;
        planted->models[i]->change(&run->parameters);
        for (const gemma4_tap *t = planted->models[i]->taps; *t != GEMMA4_TAP_COUNT; t++)
            run->changed[*t] = true;
    }
}

static int counter_block(block_run *run, gemma4_block block, real *h, gemma4_error *error)
{
    gemma4_replay *r = run->replay;
    const gemma4_config *c = &r->model->config;
    size_t layers = c->num_hidden_layers;
    r->block = block;
    r->block_layer = block >= 0 && (size_t)block < layers ? (size_t)block : 0;
    int status = (run->ids = calloc(r->T * c->top_k_experts, sizeof *run->ids)) ? 0 : -1;
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
        size_t dims[2] = {1, 1};
        run->values[tap] = NULL;
        if (!tap_is_in((gemma4_tap)tap, block, layers))
            continue;
        gemma4_tap_dims(c, (gemma4_tap)tap, r->block_layer, r->T, dims);
        run->widths[tap] = dims[0] * dims[1];
        if (tap != GEMMA4_TAP_ROUTER_TOPK_IDS && !gemma4_tap_is_keys((gemma4_tap)tap) && !(run->values[tap] = calloc(r->T * run->widths[tap], sizeof(real))))
            status = -1;
    }
    if ((size_t)block == layers && (run->values[GEMMA4_TAP_LAYER_OUTPUT] = malloc(r->T * c->hidden_size * sizeof(real))))
        memcpy(run->values[GEMMA4_TAP_LAYER_OUTPUT], h, r->T * c->hidden_size * sizeof(real));
    status = status ? gemma4_fail(error, "replay: out of memory") : run_block(r, run, h, error);
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        free(run->values[tap]);
    free(run->ids);
    return status;
}

int gemma4_replay_counter_run(gemma4_replay *r, const gemma4_planted *planted, gemma4_tap stop, real *out, gemma4_error *error)
{
    gemma4_block last = r->block;
    size_t last_layer = r->block_layer, n = r->T * r->model->config.hidden_size;
    block_run run = {.replay = r, .kind = RUN_COUNTER, .stop = GEMMA4_TAP_COUNT, .planted = planted->count > 0, .scope = planted->scope,
                     .perturbed = planted->draw > 0, .draw = planted->draw};
    real *h = malloc(n * sizeof *h);
    memset(r->counter_open, 0, r->T * sizeof *r->counter_open);
    int status = h ? 0 : gemma4_fail(error, "replay: out of memory");
    if (h)
        memcpy(h, r->h_known, n * sizeof *h);
    for (gemma4_block block = r->known_block; block <= last && !status; block++) {
        plant(&run, planted, block);
        run.noise = gemma4_noise_new(r->tier, (uint64_t)(GEMMA4_DRAWS + planted->draw) * 4096 + (uint64_t)(block + 1));
        run.noise.kv_unit = r->kv_unit;
        if (block == last) {
            run.stop = stop;
            run.out = out;
            run.inject = true;
        }
        status = counter_block(&run, block, h, error);
    }
    r->block = last;
    r->block_layer = last_layer;
    free(h);
    return status;
}

/* ------------------------------------------------------------------ scores */

gemma4_score gemma4_replay_score(const gemma4_replay *r, gemma4_tap tap, const real *instead, const bool *skip)
{
    const gemma4_replayed_tap *t = &r->taps[tap];
    const real *expected = instead ? instead : t->expected;
    gemma4_score s = {.worst = -1};
    double sum = 0, errors = 0, sizes = 0;
    for (size_t row = 0; t->engine && row < r->T; row++) {
        double error = 0, size = 0, expected_size = 0;
        if (!t->have[row] || (skip && skip[row]))
            continue;
        for (size_t i = row * t->width; i < (row + 1) * t->width; i++) {
            if (tap == GEMMA4_TAP_ATTN_SCORES && t->expected[i] == 0 && t->draws[0][i] == 0)
                continue; /* masked */
            double e = (double)t->engine[i] - (double)expected[i];
            error += e * e;
            size += (double)expected[i] * (double)expected[i];
            expected_size += (double)t->expected[i] * (double)t->expected[i];
        }
        /* What takes the place of the expected values has the rounding of its own size. */
        double larger = instead && size > expected_size && expected_size > 0 ? sqrt(size / expected_size) : 1;
        double relative = sqrt(error / (double)t->width) / (t->sigma[row] * larger);
        s.rows++;
        sum += relative * relative;
        errors += error;
        sizes += size;
        if (!(relative <= s.worst)) {
            s.worst = relative;
            s.position = row;
        }
    }
    s.score = s.rows ? sqrt(sum / (double)s.rows) : 0;
    s.relative_rms = errors == 0 ? 0 : sqrt(errors / sizes);
    return s;
}

gemma4_bias gemma4_replay_bias(const gemma4_replay *r, gemma4_tap tap)
{
    const gemma4_replayed_tap *t = &r->taps[tap];
    gemma4_bias bias = {0};
    double variance = 0, means[GEMMA4_DRAWS] = {0}, of_means = 0;
    size_t rows = 0;
    for (size_t row = 0; t->engine && row < r->T; row++) {
        double size = 0, engine = 0, draws[GEMMA4_DRAWS] = {0};
        for (size_t i = row * t->width; t->have[row] && i < (row + 1) * t->width; i++) {
            double expected = (double)t->expected[i];
            size += expected * expected;
            engine += expected * ((double)t->engine[i] - expected);
            for (size_t d = 0; d < GEMMA4_DRAWS; d++)
                draws[d] += expected * (double)t->draws[d][i];
        }
        if (size == 0)
            continue;
        rows++;
        bias.part += engine / size;
        for (size_t d = 0; d < GEMMA4_DRAWS; d++) {
            variance += draws[d] / size * (draws[d] / size) / GEMMA4_DRAWS;
            means[d] += draws[d] / size;
        }
    }
    if (rows < BIAS_ROWS)
        return (gemma4_bias){0};
    bias.part /= (double)rows;
    /* Rows share errors (of a cached value that all of them read), and six draws may be close by chance: the larger of both estimates. */
    for (size_t d = 0; d < GEMMA4_DRAWS; d++)
        of_means += means[d] * means[d] / GEMMA4_DRAWS;
    /* At least what a rounding that all rows share may do: of the root of the hidden size; of other constants; in float32, of a root or an
     * exponential. */
    double shared = tap == GEMMA4_TAP_EMBED || tap == GEMMA4_TAP_ROUTER_NORM ? BIAS_ROOT : BIAS_SHARED;
    double spread = fmax(sqrt(fmax(variance, of_means)) / (double)rows, fmax(shared * r->tier->unit, UNIT_FLOAT32));
    bias.in_spreads = fabs(bias.part) / spread;
    return bias;
}

/* ------------------------------------------------------------------ set-up */

/* "10,1,1": where each position's chunk begins and ends. Without a (valid) schedule, one chunk. */
static void read_schedule(gemma4_replay *r, const char *text)
{
    size_t at = 0;
    bool valid = text != NULL;
    while (valid && *text) {
        char *end;
        unsigned long n = strtoul(text, &end, 10);
        valid = end != text && n > 0 && n <= r->T - at && (*end == ',' || *end == '\0');
        for (size_t t = at; valid && t < at + n; t++) {
            r->chunk_start[t] = at;
            r->chunk_end[t] = at + n;
        }
        at += valid ? n : 0;
        r->chunks++;
        text = *end ? end + 1 : end;
    }
    r->schedule_known = valid && at == r->T;
    for (size_t t = 0; !r->schedule_known && t < r->T; t++) {
        r->chunk_start[t] = 0;
        r->chunk_end[t] = r->T;
        r->chunks = 1;
    }
}

int gemma4_replay_init(gemma4_replay *r, const gemma4_model *model, gemma4_activations *engine, const gemma4_tier *tier, gemma4_error *error)
{
    const int32_t *positions;
    const gemma4_config *c = &model->config;
    *r = (gemma4_replay){.model = model, .engine = engine, .tier = tier};
    r->T = gemma4_activations_positions(engine, &r->tokens, &positions);
    r->first_position = (size_t)positions[0];
    const gemma4_tier *kv = gemma4_activations_attribute(engine, "kv_dtype") ? gemma4_tier_of(gemma4_activations_attribute(engine, "kv_dtype")) : NULL;
    r->kv_unit = kv && kv->unit > tier->unit ? kv->unit : 0;
    size_t n = r->T * c->hidden_size, k = r->T * c->top_k_experts;
    bool ok = true;
    ok = (r->chunk_start = calloc(r->T, sizeof *r->chunk_start)) && ok;
    ok = (r->chunk_end = calloc(r->T, sizeof *r->chunk_end)) && ok;
    ok = (r->h = calloc(n, sizeof *r->h)) && ok;
    ok = (r->h_before = calloc(n, sizeof *r->h_before)) && ok;
    ok = (r->h_known = calloc(n, sizeof *r->h_known)) && ok;
    for (size_t d = 0; d < GEMMA4_DRAWS; d++)
        ok = (r->h_draws[d] = calloc(n, sizeof *r->h)) && (r->h_draws_before[d] = calloc(n, sizeof *r->h)) && ok;
    ok = (r->reference_ids = calloc(k, sizeof *r->ids)) && ok;
    ok = (r->ids = calloc(k, sizeof *r->ids)) && ok;
    ok = (r->engine_ids = calloc(k, sizeof *r->ids)) && ok;
    ok = (r->router_logits = calloc(2 * r->T * c->num_experts, sizeof *r->router_logits)) && ok;
    ok = (r->counter_open = calloc(r->T, sizeof *r->counter_open)) && ok;
    ok = (r->have_ids = calloc(r->T, sizeof *r->have_ids)) && ok;
    ok = (r->have_valid_ids = calloc(r->T, sizeof *r->have_valid_ids)) && ok;
    if (!ok)
        return gemma4_fail(error, "replay of %zu positions: out of memory", r->T);
    read_schedule(r, gemma4_activations_attribute(engine, "schedule"));
    r->session = gemma4_session_new(model, r->first_position, r->T, error);
    return r->session ? 0 : -1;
}

void gemma4_replay_free(gemma4_replay *r)
{
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        free_tap(&r->taps[tap]);
    for (size_t d = 0; d < GEMMA4_DRAWS; d++) {
        free(r->h_draws[d]);
        free(r->h_draws_before[d]);
    }
    free(r->chunk_start);
    free(r->chunk_end);
    free(r->h);
    free(r->h_before);
    free(r->h_known);
    free(r->reference_ids);
    free(r->ids);
    free(r->engine_ids);
    free(r->have_ids);
    free(r->counter_open);
    free(r->have_valid_ids);
    free(r->router_logits);
    gemma4_session_free(r->session);
    *r = (gemma4_replay){0};
}
