#include "reference_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "block_run.h"
#include "forward.h"
#include "listed.h"
#include "ops.h"
#include "report.h"
#include "rows.h"
#include "tap_compare.h"

typedef gemma4_real real;

static const char disagrees[] = "this build's reference disagrees with its golden";

struct gemma4_reference_run {
    const gemma4_subject *s; /* or a part of it, while its head is run */
    gemma4_activations *golden;
    gemma4_session *session;
    gemma4_runner *runner; /* in its place, where the subject has known mistakes */
    gemma4_block next;
    real *h; /* [T, d] */
    /* Of the block at hand: */
    bool keep[GEMMA4_TAP_COUNT];
    float *expected[GEMMA4_TAP_COUNT]; /* [T, width] */
    double agreement[GEMMA4_TAP_COUNT];
    int32_t *ids, *own_ids; /* [T, K] the golden's, or the reference's where it holds none; the
                               reference's */
};

static const gemma4_activation *golden_of(const gemma4_reference_run *run, gemma4_tap tap,
                                          size_t layer)
{
    return run->golden ? gemma4_activations_find(run->golden, tap, layer) : NULL;
}

/* The event's values as floats, [rows, width]; scores and probabilities spread out to all T
 * keys. */
static void as_floats(const gemma4_tap_event *event, size_t T, float *out)
{
    if (!gemma4_tap_is_keys(event->tap)) {
        for (size_t i = 0; i < event->rows * event->dims[0] * event->dims[1]; i++)
            out[i] = (float)event->values[i];
        return;
    }
    memset(out, 0, event->dims[0] * T * sizeof *out);
    for (size_t h = 0; h < event->dims[0]; h++)
        for (size_t j = 0; j < event->dims[1]; j++)
            out[h * T + event->first_key + j] = (float)event->values[h * event->dims[1] + j];
}

/* Holds the whole tensor against the golden, whose rows then take its place. */
static int apply_golden(gemma4_reference_run *run, gemma4_tap tap, size_t layer, size_t width,
                        gemma4_error *error)
{
    const gemma4_subject *s = run->s;
    const gemma4_activation *golden = golden_of(run, tap, layer);
    gemma4_comparison c = {0};
    float *rows = malloc(s->T * width * sizeof *rows), *expected = run->expected[tap];
    bool *have = malloc(s->T * sizeof *have);
    int status = rows && have ? gemma4_comparison_init(&c, s->T, error)
                              : gemma4_fail(error, "comparison: out of memory");
    if (!status)
        status = gemma4_read_positions(run->golden, golden, s->first_row, s->T, width, rows, NULL,
                                       have, error);
    for (size_t t = 0; t < s->T && !status; t++)
        if (have[t]) {
            size_t K = s->model->config.top_k_experts;
            gemma4_compare_row(&c, &s->model->config, tap, layer, s->T, t, width,
                               expected + t * width, run->own_ids + t * K, rows + t * width,
                               run->ids + t * K);
            for (size_t i = 0; i < width; i++) /* masked scores may hold anything in the golden, and
                                                  stay 0 */
                if (tap != GEMMA4_TAP_ATTN_SCORES ||
                    !gemma4_key_is_masked(&s->model->config, layer, s->T, t, i))
                    expected[t * width + i] = rows[t * width + i];
        }
    if (!status) {
        char name[GEMMA4_TAP_NAME_SIZE];
        run->agreement[tap] = gemma4_comparison_metrics(&c).relative_rms;
        if (!(run->agreement[tap] <= GEMMA4_REFERENCE_AGREEMENT) || c.nonfinite)
            status = gemma4_fail(error, "%s: %s: expected a relative RMS of at most %g, found %g",
                                 disagrees, gemma4_tap_name(tap, layer, name),
                                 GEMMA4_REFERENCE_AGREEMENT, run->agreement[tap]);
    }
    gemma4_comparison_free(&c);
    free(rows);
    free(have);
    return status;
}

static bool same_set(const int32_t *a, const int32_t *b, size_t K)
{
    for (size_t r = 0; r < K; r++) {
        bool found = false;
        for (size_t q = 0; q < K; q++)
            found = found || a[r] == b[q];
        if (!found)
            return false;
    }
    return true;
}

/* Keeps the layer's choice of experts for the taps that follow in its order. */
static int keep_ids(gemma4_reference_run *run, const gemma4_tap_event *event, gemma4_error *error)
{
    size_t T = run->s->T, K = run->s->model->config.top_k_experts;
    const gemma4_activation *golden = golden_of(run, event->tap, event->layer);
    bool *have = malloc(T * sizeof *have);
    memcpy(run->own_ids, event->ids, T * K * sizeof *event->ids);
    memcpy(run->ids, event->ids, T * K * sizeof *event->ids);
    int status = have ? 0 : gemma4_fail(error, "comparison: out of memory");
    if (!status && golden)
        status = gemma4_read_positions(run->golden, golden, 0, T, K, NULL, run->ids, have, error);
    for (size_t t = 0; !status && t < T; t++) {
        char name[GEMMA4_TAP_NAME_SIZE];
        /* The reference's are K distinct experts: so is whatever holds all of them. */
        if (!same_set(run->own_ids + t * K, run->ids + t * K, K))
            status = gemma4_fail(error, "%s: %s, position %zu: other experts", disagrees,
                                 gemma4_tap_name(event->tap, event->layer, name), t);
    }
    free(have);
    return status;
}

static int keep_event(void *context, const gemma4_tap_event *event, gemma4_error *error)
{
    gemma4_reference_run *run = context;
    gemma4_tap tap = event->tap;
    size_t dims[2] = {1, 1};
    if (tap == GEMMA4_TAP_ROUTER_TOPK_IDS)
        return keep_ids(run, event, error);
    const gemma4_activation *golden = golden_of(run, tap, event->layer);
    /* log-probabilities follow from them */
    bool listed = tap == GEMMA4_TAP_LOGITS && run->keep[GEMMA4_TAP_LOGPROBS];
    if (!run->keep[tap] && !golden && !listed)
        return 0;
    gemma4_tap_dims(&run->s->model->config, tap, event->layer, run->s->T, dims);
    size_t width = dims[0] * dims[1];
    if (!run->expected[tap] &&
        !(run->expected[tap] = calloc(run->s->T * width, sizeof *run->expected[tap])))
        return gemma4_fail(error, "comparison: out of memory");
    as_floats(event, run->s->T, run->expected[tap] + event->row * width);
    bool complete = event->row + event->rows == run->s->T; /* scores come a position at a time */
    return golden && complete ? apply_golden(run, tap, event->layer, width, error) : 0;
}

static int hook(void *context, gemma4_tap_event *event, gemma4_error *error)
{
    return keep_event(context, event, error);
}

/* With known mistakes there is no golden. */
typedef struct mistaken_block {
    gemma4_reference_run *run;
    gemma4_error *error;
    int status;
} mistaken_block;

static void see(void *context, const gemma4_tap_event *event)
{
    mistaken_block *m = context;
    if (event->tap == GEMMA4_TAP_LOGPROBS) /* they follow from the logits, as without mistakes */
        return;
    m->status = m->status || keep_event(m->run, event, m->error) ? -1 : 0;
}

static int run_mistaken(gemma4_reference_run *run, gemma4_block block, gemma4_error *error)
{
    mistaken_block m = {run, error, 0};
    const gemma4_block_run wanted = {
        .block = block, .see = see, .context = &m, .chosen = run->own_ids};
    if (gemma4_run_block(run->runner, &wanted, run->h, error))
        return -1;
    if (gemma4_block_is_layer(&run->s->model->config, block))
        memcpy(run->ids, run->own_ids,
               run->s->T * run->s->model->config.top_k_experts * sizeof *run->ids);
    return m.status;
}

/* The log-probabilities of the tokens that the dump lists, from the golden's logits, or the
 * reference's where it holds none. */
static int follow_listed(gemma4_reference_run *run, gemma4_error *error)
{
    const gemma4_subject *s = run->s;
    size_t N = s->listed, V = s->model->config.vocab_size;
    const float *logits = run->expected[GEMMA4_TAP_LOGITS];
    if (!run->keep[GEMMA4_TAP_LOGPROBS] || !N)
        return 0;
    float *listed = run->expected[GEMMA4_TAP_LOGPROBS] = calloc(s->T * N, sizeof *listed);
    real *row = malloc((V + N) * sizeof *row);
    int status = listed && row ? 0 : gemma4_fail(error, "comparison: out of memory");
    for (size_t t = 0; t < s->T && !status; t++) {
        for (size_t i = 0; i < V; i++)
            row[i] = (real)logits[t * V + i];
        gemma4_listed_logprobs(s, t, 1, row, NULL, row + V);
        gemma4_listed_differences(s, 1, row + V);
        for (size_t i = 0; i < N; i++)
            listed[t * N + i] = (float)row[V + i];
    }
    free(row);
    return status;
}

static int check_golden(const gemma4_reference_run *run, gemma4_error *error)
{
    for (size_t i = 0; i < gemma4_activations_count(run->golden); i++) {
        const gemma4_activation *a = gemma4_activations_at(run->golden, i);
        char name[GEMMA4_TAP_NAME_SIZE];
        if (!a->usable)
            return gemma4_fail(error, "golden: %s: %s", gemma4_tap_name(a->tap, a->layer, name),
                               a->problem);
    }
    return 0;
}

/* Forgets the block before. */
static void begin_block(gemma4_reference_run *run, const bool keep[GEMMA4_TAP_COUNT])
{
    memcpy(run->keep, keep, sizeof run->keep);
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
        free(run->expected[tap]);
        run->expected[tap] = NULL;
        run->agreement[tap] = -1;
    }
}

static int run_head(gemma4_reference_run *run, gemma4_error *error)
{
    const gemma4_subject *s = run->s;
    const real *h = run->h + s->first_row * s->model->config.hidden_size;
    return gemma4_forward_head(run->session, s->T, s->T, h, NULL, error) ||
                   follow_listed(run, error)
               ? -1
               : 0;
}

int gemma4_reference_run_head(gemma4_reference_run *run, const gemma4_subject *part,
                              const bool keep[GEMMA4_TAP_COUNT], gemma4_error *error)
{
    const gemma4_subject *whole = run->s;
    begin_block(run, keep);
    run->s = part;
    int status = run_head(run, error);
    run->s = whole;
    return status;
}

int gemma4_reference_run_next(gemma4_reference_run *run, const bool keep[GEMMA4_TAP_COUNT],
                              gemma4_error *error)
{
    gemma4_block block = run->next++;
    begin_block(run, keep);
    if (run->runner)
        return run_mistaken(run, block, error) ||
                       (block == (gemma4_block)run->s->model->config.num_hidden_layers &&
                        follow_listed(run, error))
                   ? -1
                   : 0;
    if (block < 0)
        return gemma4_forward_embed(run->session, run->s->tokens, run->s->T, run->h, error);
    if (gemma4_block_is_layer(&run->s->model->config, block))
        return gemma4_forward_layer(run->session, (size_t)block, run->s->T, run->h, error);
    return run_head(run, error);
}

const float *gemma4_reference_expected(const gemma4_reference_run *run, gemma4_tap tap)
{
    return run->keep[tap] ? run->expected[tap] : NULL;
}

const int32_t *gemma4_reference_ids(const gemma4_reference_run *run)
{
    return run->ids;
}

double gemma4_reference_agreement(const gemma4_reference_run *run, gemma4_tap tap)
{
    return run->agreement[tap];
}

gemma4_reference_run *gemma4_reference_run_new(const gemma4_subject *s, gemma4_activations *golden,
                                               gemma4_error *error)
{
    gemma4_reference_run *run = calloc(1, sizeof *run);
    const gemma4_config *c = &s->model->config;
    bool ok = run != NULL;
    if (ok) {
        *run = (gemma4_reference_run){.s = s, .golden = golden, .next = -1};
        ok = (run->h = calloc(s->T * c->hidden_size, sizeof *run->h)) &&
             (run->ids = calloc(s->T * c->top_k_experts, sizeof *run->ids)) &&
             (run->own_ids = calloc(s->T * c->top_k_experts, sizeof *run->own_ids));
    }
    if (!ok)
        gemma4_fail(error, "comparison: out of memory");
    if (ok && s->known)
        ok = (run->runner = gemma4_runner_new(s, error)) != NULL;
    else if (ok && !((!golden || !check_golden(run, error)) &&
                     (run->session = gemma4_session_new(s->model, s->first_position, s->T, error))))
        ok = false;
    if (!ok) {
        gemma4_reference_run_free(run);
        return NULL;
    }
    if (run->session) {
        const gemma4_ops exact = gemma4_ops_exact();
        gemma4_session_set_hook(run->session, hook, run);
        gemma4_session_set_ops(run->session, &exact);
    }
    return run;
}

void gemma4_reference_run_free(gemma4_reference_run *run)
{
    if (!run)
        return;
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        free(run->expected[tap]);
    free(run->h);
    free(run->ids);
    free(run->own_ids);
    gemma4_session_free(run->session);
    gemma4_runner_free(run->runner);
    free(run);
}

bool gemma4_reference_disagrees(const gemma4_error *error)
{
    return !strncmp(error->message, disagrees, strlen(disagrees));
}
