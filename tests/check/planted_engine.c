#include "planted_engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "activations.h"
#include "counter_model.h"
#include "forward.h"
#include "logprobs.h"
#include "rows.h"

typedef gemma4_real real;

/* A floating-point type: significant bits, and the exponents of its smallest step and of the power
 * of 2 beyond its largest value. */
typedef struct precision {
    const char *tier;
    int bits, smallest, beyond;
} precision;

static const precision precisions[] = {
    {"float32", 24, -149, 128}, {"bfloat16", 8, -133, 128}, {"float16", 11, -24, 16}};

/* The forward pass under way. */
typedef struct engine {
    const gemma4_simulation *simulation;
    const precision *precision;
    uint64_t state; /* of the random numbers */
    gemma4_activations_writer *writer;
    size_t T;
    gemma4_schedule schedule;
    real *values[GEMMA4_TAP_COUNT]; /* [T, width] of the layer at hand, as the steps read them;
                                        scores and probabilities are not kept */
    int32_t *ids;                   /* [T, K] */
} engine;

const char *gemma4_tap_set_name(gemma4_tap_set set)
{
    static const char *const names[GEMMA4_SET_COUNT] = {"all", "layers", "logits"};
    return set < GEMMA4_SET_COUNT ? names[set] : "?";
}

/* --------------------------------------------------------------- rounding */

/* Uniform in [0, 1). */
static double uniform(engine *e)
{
    uint64_t z = (e->state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

static double rounded(engine *e, double x)
{
    const precision *p = e->precision;
    int exponent;
    if (!isfinite(x) || x == 0)
        return x;
    frexp(x, &exponent);
    int step = exponent - p->bits > p->smallest ? exponent - p->bits : p->smallest;
    double scaled = ldexp(x, -step), u;
    if (p->bits == 24) { /* a float already: as if the exact value had been rounded up or down at
                            random */
        u = uniform(e);
        scaled += u < 0.125 ? -1 : u < 0.25 ? 1 : 0;
    } else {
        scaled = e->simulation->stochastic ? floor(scaled + uniform(e)) : nearbyint(scaled);
    }
    double y = ldexp(scaled, step);
    return fabs(y) >= ldexp(1, p->beyond) ? copysign(INFINITY, x) : y;
}

/* Nothing is computed at these taps: they repeat what another one holds. */
static bool is_copy(const engine *e, const gemma4_tap_event *event)
{
    const gemma4_layer_config *layers = e->simulation->model->config.layers;
    return event->tap == GEMMA4_TAP_LAYER_INPUT ||
           (event->tap == GEMMA4_TAP_ATTN_V && layers[event->layer].v_is_k);
}

static void round_event(engine *e, gemma4_tap_event *event)
{
    size_t n = event->rows * event->dims[0] * event->dims[1];
    for (size_t i = 0; event->values && !is_copy(e, event) && i < n; i++)
        event->values[i] = (real)rounded(e, (double)event->values[i]);
}

/* --------------------------------------------------------------- planting */

static bool changes(const gemma4_counter_model *m, gemma4_tap tap)
{
    for (const gemma4_tap *t = m->taps; *t != GEMMA4_TAP_COUNT; t++)
        if (*t == tap)
            return true;
    return false;
}

static bool acts(const engine *e, size_t i, gemma4_tap tap, size_t layer)
{
    const gemma4_simulation *s = e->simulation;
    bool here = s->only_layer[i] < 0 ||
                (gemma4_tap_describe(tap)->per_layer && (size_t)s->only_layer[i] == layer);
    return s->planted[i] && here &&
           gemma4_counter_model_acts(s->planted[i], &s->model->config, tap, layer);
}

static bool is_changed(const engine *e, gemma4_tap tap, size_t layer)
{
    for (size_t i = 0; i < 2; i++)
        if (acts(e, i, tap, layer) && changes(e->simulation->planted[i], tap))
            return true;
    return false;
}

static bool in_scope(const engine *e, size_t t)
{
    return gemma4_in_scope(&e->schedule, e->simulation->scope, t);
}

/* The tap as the planted mistakes compute it, at every position. */
static int compute(engine *e, gemma4_tap tap, size_t layer, real *out, int32_t *ids,
                   gemma4_error *error)
{
    const gemma4_simulation *s = e->simulation;
    gemma4_parameters parameters = gemma4_right_parameters();
    gemma4_step step = {.model = s->model,
                        .layer = layer,
                        .T = e->T,
                        .first_position = s->the_case->first_position,
                        .chunk_start = e->schedule.chunk_start,
                        .chunk_end = e->schedule.chunk_end,
                        .tokens = s->the_case->tokens,
                        .topk_ids = e->ids};
    for (int t = 0; t < GEMMA4_TAP_COUNT; t++)
        step.values[t] = e->values[t];
    for (size_t i = 0; i < 2; i++)
        if (acts(e, i, tap, layer))
            gemma4_counter_apply(s->planted[i], &parameters);
    return gemma4_counter_step(&step, &parameters, tap, out, ids, error);
}

/* The same in place of what is there, at the positions in scope. */
static int plant(engine *e, const gemma4_tap_event *event, gemma4_error *error)
{
    size_t width = event->dims[0] * event->dims[1],
           size = event->ids ? sizeof *event->ids : sizeof *event->values;
    char *to = event->ids ? (char *)event->ids : (char *)event->values;
    char *computed = malloc(e->T * width * size);
    if (!computed)
        return gemma4_fail(error, "simulated engine: out of memory");
    int status = compute(e, event->tap, event->layer, event->ids ? NULL : (real *)computed,
                         event->ids ? (int32_t *)computed : NULL, error);
    for (size_t t = 0; t < e->T && !status; t++)
        if (in_scope(e, t))
            memcpy(to + t * width * size, computed + t * width * size, width * size);
    free(computed);
    return status;
}

/* ------------------------------------------------------------------- taps */

static bool is_dumped(const gemma4_simulation *s, gemma4_tap tap)
{
    gemma4_tap_set set = s->taps;
    if (s->fused && tap > GEMMA4_TAP_ROUTER_LOGITS && tap < GEMMA4_TAP_MOE_OUT)
        return false;
    return set == GEMMA4_SET_ALL || tap == GEMMA4_TAP_LOGITS ||
           (set == GEMMA4_SET_LAYERS && tap == GEMMA4_TAP_LAYER_OUTPUT);
}

/* The best tokens' log-probabilities, rounded as everything else is. */
static int dump_logprobs(engine *e, const gemma4_tap_event *logits, gemma4_error *error)
{
    size_t N = e->simulation->logprobs, V = logits->dims[0];
    gemma4_tap_event ids = {.tap = GEMMA4_TAP_LOGPROBS_IDS,
                            .row = logits->row,
                            .rows = logits->rows,
                            .rank = 1,
                            .dims = {N, 1}},
                     values = ids;
    values.tap = GEMMA4_TAP_LOGPROBS;
    ids.ids = malloc(logits->rows * N * sizeof *ids.ids);
    values.values = malloc(logits->rows * N * sizeof *values.values);
    int status =
        ids.ids && values.values ? 0 : gemma4_fail(error, "simulated engine: out of memory");
    for (size_t row = 0; row < logits->rows && !status; row++)
        gemma4_best_logprobs(logits->values + row * V, V, N, ids.ids + row * N,
                             values.values + row * N);
    if (!status) {
        round_event(e, &values);
        status = gemma4_activations_write(e->writer, &ids, error) ||
                         gemma4_activations_write(e->writer, &values, error)
                     ? -1
                     : 0;
    }
    free(ids.ids);
    free(values.values);
    return status;
}

static int dump(engine *e, const gemma4_tap_event *event, gemma4_error *error)
{
    if (e->simulation->logprobs && event->tap == GEMMA4_TAP_LOGITS)
        return dump_logprobs(e, event, error);
    return is_dumped(e->simulation, event->tap) ? gemma4_activations_write(e->writer, event, error)
                                                : 0;
}

/* Keeps the values for the steps after this one. */
static int keep(engine *e, const gemma4_tap_event *event, gemma4_error *error)
{
    size_t n = e->T * event->dims[0] * event->dims[1],
           size = event->ids ? sizeof *event->ids : sizeof *event->values;
    void *kept = realloc(event->ids ? (void *)e->ids : (void *)e->values[event->tap], n * size);
    if (!kept)
        return gemma4_fail(error, "simulated engine: out of memory");
    memcpy(kept, event->ids ? (const void *)event->ids : (const void *)event->values, n * size);
    if (event->ids)
        e->ids = kept;
    else
        e->values[event->tap] = kept;
    return 0;
}

/* Scores or probabilities of all positions at once, where a mistake changes them: they are dumped
 * when the context is computed. */
static int dump_keys(engine *e, gemma4_tap tap, size_t layer, gemma4_error *error)
{
    size_t T = e->T, H = e->simulation->model->config.num_attention_heads;
    if (!is_changed(e, tap, layer) || !is_dumped(e->simulation, tap))
        return 0;
    real *all = calloc(T * H * T, sizeof *all);
    int status = all ? compute(e, tap, layer, all, NULL, error)
                     : gemma4_fail(error, "simulated engine: out of memory");
    for (size_t t = 0; t < T && !status; t++) {
        if (!in_scope(e, t))
            continue;
        gemma4_tap_event row = {.tap = tap,
                                .layer = layer,
                                .row = t,
                                .rows = 1,
                                .rank = 2,
                                .dims = {H, T},
                                .values = all + t * H * T};
        round_event(e, &row);
        status = dump(e, &row, error);
    }
    free(all);
    return status;
}

static int show(void *context, gemma4_tap_event *event, gemma4_error *error)
{
    engine *e = context;
    bool changed = is_changed(e, event->tap, event->layer);
    if (gemma4_tap_is_keys(event->tap)) {
        if (changed && in_scope(e, event->row))
            return 0;
        round_event(e, event);
        return dump(e, event, error);
    }
    if (event->rows != e->T)
        return gemma4_fail(error, "simulated engine: expected %zu rows at once, found %zu", e->T,
                           event->rows);
    if (event->tap == GEMMA4_TAP_ATTN_CONTEXT &&
        (dump_keys(e, GEMMA4_TAP_ATTN_SCORES, event->layer, error) ||
         dump_keys(e, GEMMA4_TAP_ATTN_PROBS, event->layer, error)))
        return -1;
    if (changed && plant(e, event, error))
        return -1;
    round_event(e, event);
    return keep(e, event, error) || dump(e, event, error) ? -1 : 0;
}

/* ----------------------------------------------------------------- set-up */

/* The schedule, as an attribute's text as well. */
static int read_schedule(engine *e, char *text, size_t size, gemma4_error *error)
{
    const gemma4_case *c = e->simulation->the_case;
    size_t length = 0;
    for (size_t i = 0; i < c->schedule_count; i++) {
        length +=
            (size_t)snprintf(text + length, size - length, "%s%d", i ? "," : "", c->schedule[i]);
        if (length >= size)
            return gemma4_fail(error, "simulated engine: schedule of %zu chunks: too long",
                               c->schedule_count);
    }
    return gemma4_schedule_init(&e->schedule, text, e->T, error);
}

static int start_file(engine *e, const char *path, const char *schedule, gemma4_error *error)
{
    const gemma4_simulation *s = e->simulation;
    const gemma4_case *c = s->the_case;
    const struct {
        const char *name, *text;
    } attributes[] = {
        {"engine", "simulated"}, {"dtype", s->tier}, {"schedule", schedule}, {"case", c->id}};
    e->writer = gemma4_activations_create(path, &s->model->config, c->tokens, c->token_count,
                                          c->first_position, "float32", error);
    for (size_t i = 0; e->writer && i < sizeof attributes / sizeof *attributes; i++)
        if (gemma4_activations_set_attribute(e->writer, attributes[i].name, attributes[i].text,
                                             error))
            return -1;
    return e->writer ? 0 : -1;
}

static int run(engine *e, gemma4_error *error)
{
    const gemma4_case *c = e->simulation->the_case;
    gemma4_session *session =
        gemma4_session_new(e->simulation->model, c->first_position, c->token_count, error);
    if (!session)
        return -1;
    gemma4_session_set_hook(session, show, e);
    int status = gemma4_forward(session, c->tokens, c->token_count, c->token_count, NULL, error);
    gemma4_session_free(session);
    return status;
}

int gemma4_simulate(const gemma4_simulation *simulation, const char *path, gemma4_error *error)
{
    char schedule[4096] = "";
    engine e = {.simulation = simulation,
                .T = simulation->the_case->token_count,
                .state = (simulation->seed + 1) * 0xD1342543DE82EF95u};
    for (size_t i = 0; i < sizeof precisions / sizeof *precisions; i++)
        if (!strcmp(precisions[i].tier, simulation->tier))
            e.precision = &precisions[i];
    if (!e.precision)
        return gemma4_fail(error,
                           "simulated engine: expected float32, bfloat16 or float16, found '%s'",
                           simulation->tier);
    int status = read_schedule(&e, schedule, sizeof schedule, error) ||
                         start_file(&e, path, schedule, error) || run(&e, error)
                     ? -1
                     : 0;
    if (status && e.writer)
        gemma4_activations_discard(e.writer);
    else if (!status)
        status = gemma4_activations_commit(e.writer, error);
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        free(e.values[tap]);
    free(e.ids);
    gemma4_schedule_free(&e.schedule);
    return status;
}
