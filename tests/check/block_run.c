#include "block_run_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "counter_run.h"
#include "guard.h"
#include "listed.h"
#include "remembered.h"
#include "rows.h"
#include "thresholds.h"

enum {
    SHARED = 1 << 22,    /* products of a projection from which on a quick run is shared among
                          threads */
    REMEMBERED = 1 << 29 /* bytes of products that are not computed twice */
};

/* ------------------------------------------------------------ what a hook does */

static bool is_keys_event(const gemma4_tap_event *e)
{
    return gemma4_tap_is_keys(e->tap);
}

static void perturb(running *r, gemma4_tap_event *e)
{
    const gemma4_subject *s = r->s;
    const gemma4_config *c = &s->model->config;
    const gemma4_layer_config *lc = &c->layers[r->layer];
    gemma4_noise *noise = r->run->noise;
    size_t width = is_keys_event(e) ? e->dims[0] * e->dims[1] : r->widths[e->tap];
    size_t heads = is_keys_event(e) ? e->dims[0] : gemma4_tap_heads(c, e->tap, r->layer);
    gemma4_noise_step(noise, e->tap, e->values, e->rows, width, heads,
                      gemma4_tap_sum_length(c, e->tap, r->layer, s->T));
    if (e->tap == GEMMA4_TAP_ATTN_Q_ROPE || e->tap == GEMMA4_TAP_ATTN_K_ROPE)
        gemma4_noise_angle(noise, e->values, e->rows, heads, lc->head_dim, lc->rope_pairs,
                           lc->rope_theta, s->first_position + e->row,
                           r->run->draw * 1000003 + r->layer);
    if (gemma4_tap_describe(e->tap)->rows == GEMMA4_ROWS_CACHED)
        /* the cache's own type */
        gemma4_noise_storage(noise, e->tap, e->values, e->rows * width, 0);
}

/* Puts the engine's rows in place of the run's. A perturbed run sees them as they may have been
 * before they were stored. */
static void inject(running *r, gemma4_tap_event *e)
{
    const gemma4_evidence *evidence = r->run->inject;
    const gemma4_tap_evidence *t = &evidence->taps[e->tap];
    gemma4_noise *noise = r->run->noise;
    size_t T = r->s->T;
    if (!t->engine)
        return;
    double unit = gemma4_storage_unit(r->s, t->stored);
    for (size_t i = 0; i < e->rows; i++) {
        size_t row = e->row + i;
        if (!t->have[row] || (gemma4_tap_in_id_order(e->tap) && !evidence->have_valid_ids[row]))
            continue;
        size_t heads = is_keys_event(e) ? e->dims[0] : 1,
               n = is_keys_event(e) ? e->dims[1] : t->width, stride = is_keys_event(e) ? T : 0;
        real *values = is_keys_event(e) ? e->values : e->values + i * t->width;
        for (size_t h = 0; h < heads; h++)
            for (size_t j = 0; j < n; j++)
                values[h * n + j] = (real)t->engine[row * t->width + h * stride + e->first_key + j];
        if (noise)
            gemma4_noise_storage(noise, e->tap, values, heads * n, unit);
    }
}

void gemma4_keep_event(real *to, const gemma4_tap_event *e, size_t width, size_t T)
{
    if (!is_keys_event(e)) {
        memcpy(to + e->row * width, e->values, e->rows * width * sizeof *to);
        return;
    }
    real *row = to + e->row * width;
    memset(row, 0, width * sizeof *row);
    for (size_t h = 0; h < e->dims[0]; h++)
        memcpy(row + h * T + e->first_key, e->values + h * e->dims[1], e->dims[1] * sizeof *row);
}

/* ------------------------------------------------------------------ experts */

gemma4_boundary gemma4_find_boundary(const real *logits, const int32_t *ids, size_t K, size_t E)
{
    gemma4_boundary b = {0};
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

/* A coin decides each row's last place where rounding could. */
static void toss_near_ties(running *r, int32_t *ids)
{
    size_t K = r->s->model->config.top_k_experts, E = r->s->model->config.num_experts;
    for (size_t t = 0; t < r->positions; t++) {
        const real *clean = r->run->clean_logits + t * E, *own = r->logits + t * E;
        double sum = 0;
        for (size_t i = 0; i < E; i++)
            sum += ((double)own[i] - (double)clean[i]) * ((double)own[i] - (double)clean[i]);
        gemma4_boundary b = gemma4_find_boundary(own, ids + t * K, K, E);
        if (b.gap <= NEAR_TIE_DEVIATIONS * sqrt(2 * sum / (double)E) &&
            gemma4_noise_toss(r->run->noise))
            ids[t * K + b.chosen] = b.other;
    }
}

/* Does the choice that was given hold in this run, at row t? */
static bool takes_given(const running *r, size_t t)
{
    const gemma4_block_run *run = r->run;
    if (!run->ids)
        return false;
    return !run->mistakes || (run->inject && !run->mistakes->changed[GEMMA4_TAP_ROUTER_TOPK_IDS] &&
                              gemma4_logits_are_stored(run->inject, t));
}

/* The run's own choice, or the one that was given, or the engine's. */
static void choose(running *r, gemma4_tap_event *e)
{
    const gemma4_block_run *run = r->run;
    size_t K = r->s->model->config.top_k_experts;
    if (run->noise && run->clean_logits)
        toss_near_ties(r, e->ids);
    for (size_t t = 0; t < r->positions; t++) {
        if (takes_given(r, t))
            memcpy(e->ids + t * K, run->ids + t * K, K * sizeof *e->ids);
        if (run->inject && run->inject->have_valid_ids[t])
            memcpy(e->ids + t * K, run->inject->engine_ids + t * K, K * sizeof *e->ids);
    }
    memcpy(r->ids, e->ids, r->positions * K * sizeof *e->ids);
}

/* ----------------------------------------------------------------- mistakes */

gemma4_step gemma4_step_of(const gemma4_subject *s, gemma4_block block, size_t positions,
                           const real *const values[GEMMA4_TAP_COUNT], const int32_t *ids)
{
    gemma4_step step = {.model = s->model,
                        .layer =
                            gemma4_block_is_layer(&s->model->config, block) ? (size_t)block : 0,
                        .T = positions,
                        .first_position = s->first_position,
                        .chunk_start = s->schedule.chunk_start,
                        .chunk_end = s->schedule.chunk_end,
                        .tokens = s->tokens,
                        .topk_ids = ids};
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        step.values[tap] = values[tap];
    return step;
}

/* *memory holds at least n reals. */
static int grow(real **memory, size_t *size, size_t n, gemma4_error *error)
{
    if (n <= *size)
        return 0;
    free(*memory);
    *memory = malloc(n * sizeof **memory);
    *size = *memory ? n : 0;
    return *memory ? 0 : gemma4_fail(error, "replay: out of memory");
}

/* Computes an event's tensor with the mistakes, at the positions where they are made. */
static int mistaken_values(running *r, const gemma4_mistakes *m, gemma4_tap_event *e,
                           gemma4_error *error)
{
    size_t width = r->widths[e->tap], size = e->values ? sizeof *e->values : sizeof *e->ids;
    char *values = e->values ? (char *)e->values : (char *)e->ids, *right;
    if (grow(&r->runner->right, &r->runner->right_size, r->positions * width, error))
        return -1;
    right = (char *)r->runner->right; /* ids are no larger than reals */
    memcpy(right, values, r->positions * width * size);
    gemma4_step step =
        gemma4_step_of(r->s, r->run->block, r->positions, (const real *const *)r->values, r->ids);
    int status = gemma4_counter_step(&step, &m->parameters, e->tap, e->values, e->ids, error);
    for (size_t t = 0; t < r->positions; t++)
        if (!gemma4_in_scope(&r->s->schedule, m->scope, t))
            memcpy(values + t * width * size, right + t * width * size, width * size);
    return status;
}

/* --------------------------------------------------------------------- hook */

/* What is compared has been stored: a dataset narrower than the arithmetic has rounded once
 * more. */
static void perturb_as_stored(const running *r, gemma4_tap_event *e)
{
    const gemma4_activation *stored = r->run->inject ? r->run->inject->taps[e->tap].stored : NULL;
    const gemma4_tier *type = stored ? gemma4_tier_of(stored->stored_dtype) : NULL;
    if (type && type->unit > r->s->tier->unit)
        gemma4_noise_storage(r->run->noise, GEMMA4_TAP_COUNT, e->values,
                             e->rows * e->dims[0] * e->dims[1], type->unit);
}

/* The log-probabilities of the tokens that the dump lists, from logits as the run leaves them. */
static int show_listed(running *r, const gemma4_tap_event *logits, gemma4_error *error)
{
    const gemma4_block_run *run = r->run;
    size_t N = r->s->listed;
    gemma4_tap_event e = {.tap = GEMMA4_TAP_LOGPROBS,
                          .row = logits->row,
                          .rows = logits->rows,
                          .rank = 1,
                          .dims = {N, 1}};
    if (grow(&r->runner->listed, &r->runner->listed_size, e.rows * N, error))
        return -1;
    e.values = r->runner->listed;
    gemma4_listed_logprobs(r->s, e.row, e.rows, logits->values, run->noise, e.values);
    if (run->noise) {
        perturb(r, &e);
        perturb_as_stored(r, &e);
    }
    gemma4_listed_differences(r->s, e.rows, e.values);
    if (run->see)
        run->see(run->context, &e);
    if (r->values[e.tap])
        gemma4_keep_event(r->values[e.tap], &e, N, r->s->T);
    return 0;
}

int block_run_hook(void *context, gemma4_tap_event *e, gemma4_error *error)
{
    running *r = context;
    const gemma4_block_run *run = r->run;
    const gemma4_mistakes *made[] = {r->known, run->mistakes};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++)
        if (made[i] && made[i]->changed[e->tap] && !is_keys_event(e) &&
            mistaken_values(r, made[i], e, error))
            return -1;
    if (e->tap == GEMMA4_TAP_ROUTER_TOPK_IDS) {
        choose(r, e);
        return 0;
    }
    if (run->noise) {
        perturb(r, e);
        perturb_as_stored(r, e);
    }
    if (run->see)
        run->see(run->context, e);
    if (run->inject)
        inject(r, e);
    if (run->noise)
        gemma4_noise_blocks(run->noise, e->tap, e->values, e->rows, r->widths[e->tap]);
    if (r->values[e->tap])
        gemma4_keep_event(r->values[e->tap], e, r->widths[e->tap], r->s->T);
    return e->tap == GEMMA4_TAP_LOGITS && r->s->listed ? show_listed(r, e, error) : 0;
}

/* ---------------------------------------------------------------------- run */

/* Where the run's tensors are kept: as the caller wants it; with mistakes, all that a later step
 * may read. */
static int find_memory(running *r, const real *h, gemma4_error *error)
{
    const gemma4_block_run *run = r->run;
    const gemma4_config *c = &r->s->model->config;
    gemma4_runner *runner = r->runner;
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
        size_t dims[2] = {1, 1};
        r->values[tap] = run->values[tap];
        if (!gemma4_tap_is_in(c, (gemma4_tap)tap, run->block))
            continue;
        gemma4_tap_dims(c, (gemma4_tap)tap, r->layer, r->s->T, dims);
        r->widths[tap] = tap == GEMMA4_TAP_LOGPROBS ? r->s->listed : dims[0] * dims[1];
        bool needed = run->mistakes || r->known ? tap != GEMMA4_TAP_ROUTER_TOPK_IDS &&
                                                      !gemma4_tap_is_keys((gemma4_tap)tap)
                                                : tap == GEMMA4_TAP_ROUTER_LOGITS;
        if (needed && !r->values[tap]) {
            if (grow(&runner->scratch[tap], &runner->scratch_size[tap], r->s->T * r->widths[tap],
                     error))
                return -1;
            r->values[tap] = runner->scratch[tap];
        }
    }
    r->logits = r->values[GEMMA4_TAP_ROUTER_LOGITS];
    r->ids = run->chosen ? run->chosen : runner->ids;
    /* The head reads the last layer's output. */
    if ((run->mistakes || r->known) && run->block == (gemma4_block)c->num_hidden_layers) {
        size_t n = r->positions * c->hidden_size;
        if (grow(&runner->scratch[GEMMA4_TAP_LAYER_OUTPUT],
                 &runner->scratch_size[GEMMA4_TAP_LAYER_OUTPUT], n, error))
            return -1;
        r->values[GEMMA4_TAP_LAYER_OUTPUT] =
            memcpy(runner->scratch[GEMMA4_TAP_LAYER_OUTPUT], h, n * sizeof *h);
    }
    return 0;
}

/* Does the dump hold scores or probabilities of the block? Else a twin's attention, which never
 * shows them, will do for a quick run. */
static bool holds_keys(const gemma4_evidence *e)
{
    return e && (e->taps[GEMMA4_TAP_ATTN_SCORES].engine || e->taps[GEMMA4_TAP_ATTN_PROBS].engine);
}

static int run_session(running *r, real *h, gemma4_error *error)
{
    gemma4_session *session = r->runner->session;
    if (r->run->block < 0)
        return gemma4_forward_embed(session, r->s->tokens, r->positions, h, error);
    if (gemma4_block_is_layer(&r->s->model->config, r->run->block))
        return gemma4_forward_layer(session, r->layer, r->positions, h, error);
    /* The head leaves the stream as it is. */
    return gemma4_forward_head(session, r->positions, r->positions, h, NULL, error);
}

int block_run_begin(running *r, gemma4_runner *runner, const gemma4_block_run *run, const real *h,
                    gemma4_error *error)
{
    const gemma4_config *c = &runner->subject->model->config;
    bool layer = gemma4_block_is_layer(c, run->block);
    *r = (running){.runner = runner,
                   .s = runner->subject,
                   .run = run,
                   .layer = layer ? (size_t)run->block : 0,
                   .positions = run->positions ? run->positions : runner->subject->T};
    if (gemma4_guard_interrupted())
        return gemma4_fail(error, "interrupted");
    if (r->s->known) {
        r->known_here = gemma4_mistakes_in(c, r->s->known, run->block);
        r->known = &r->known_here;
    }
    return find_memory(r, h, error);
}

int gemma4_run_block(gemma4_runner *runner, const gemma4_block_run *run, real *h,
                     gemma4_error *error)
{
    const gemma4_config *c = &runner->subject->model->config;
    running r;
    if (block_run_begin(&r, runner, run, h, error))
        return -1;
    gemma4_session_set_hook(runner->session, block_run_hook, &r);
    gemma4_session_set_ops(runner->session, run->quick  ? &runner->quick
                                            : run->once ? &runner->once
                                                        : &runner->exact);
    bool one_of_many = run->quick || run->once;
    gemma4_session_show_probs(runner->session, !one_of_many || holds_keys(run->inject));
    bool small = r.positions * c->hidden_size * c->hidden_size < SHARED;
    int threads = one_of_many && small ? gemma4_use_threads(1) : 0;
    gemma4_remembered *before = gemma4_remember_in(runner->memory);
    int status = run_session(&r, h, error);
    gemma4_remember_in(before);
    if (threads)
        gemma4_use_threads(threads);
    return status;
}

gemma4_remembered *gemma4_runner_memory(gemma4_runner *runner)
{
    return runner->memory;
}

gemma4_runner *gemma4_runner_new(const gemma4_subject *subject, gemma4_error *error)
{
    gemma4_runner *runner = calloc(1, sizeof *runner);
    if (runner) {
        runner->subject = subject;
        runner->exact = gemma4_ops_remembering();
        runner->once = gemma4_ops_exact();
        runner->memory = gemma4_remembered_new(REMEMBERED);
        /* Twins cannot read quantised weights. AVX2's stands in for AVX-512's, so that a first look
         * rejects the same on both. */
        runner->quick = gemma4_model_is_quantised(subject->model)
                            ? runner->exact
                            : gemma4_ops_for(gemma4_cpu_detect() & ~(unsigned)GEMMA4_CPU_AVX512);
        runner->ids =
            calloc(subject->T * subject->model->config.top_k_experts, sizeof *runner->ids);
    }
    if (!runner || !runner->ids || !runner->memory) {
        gemma4_runner_free(runner);
        gemma4_fail(error, "replay of %zu positions: out of memory", subject->T);
        return NULL;
    }
    runner->session =
        gemma4_session_new(subject->model, subject->first_position, subject->T, error);
    if (!runner->session) {
        gemma4_runner_free(runner);
        return NULL;
    }
    return runner;
}

void gemma4_runner_free(gemma4_runner *runner)
{
    if (!runner)
        return;
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        free(runner->scratch[tap]);
    free(runner->right);
    free(runner->listed);
    free(runner->ids);
    gemma4_remembered_free(runner->memory);
    gemma4_session_free(runner->session);
    free(runner);
}
