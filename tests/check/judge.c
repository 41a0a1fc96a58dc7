#include "judge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "forward.h"
#include "thresholds.h"
#include "routing.h"
#include "rows.h"

/* Accumulated comparisons do not decide; without a case's rows they are shown against these (spec/numerics.md). */
#define DEFAULT_RELATIVE_RMS 2e-5
#define DEFAULT_POSITION_RMS 6e-5

#define BIAS_METRIC "bias_in_spreads"

/* Everything that is known of one tap while the reference runs. */
typedef struct tap_state {
    const gemma4_activation *engine, *golden; /* NULL where the file does not hold it in a usable form */
    gemma4_comparison against_expected;       /* engine against golden or reference */
    gemma4_comparison of_reference;           /* reference against golden */
    float *unreplayed;                        /* [T, width] expected values of the block at hand, with all earlier errors of none */
} tap_state;

typedef struct judge {
    const gemma4_judgement *j;
    gemma4_report *report;
    const gemma4_config *config;
    size_t T;
    tap_state *states;                /* [report->tap_count] */
    /* [T, K] of the layer at hand: the engine's choice (-1 first where it is not known), the expected one, the reference's. */
    int32_t *engine_ids, *expected_ids, *reference_ids;
} judge;

static size_t slot_of(const judge *g, gemma4_tap tap, size_t layer)
{
    const size_t per_layer = GEMMA4_TAP_LAYER_OUTPUT - GEMMA4_TAP_LAYER_INPUT + 1;
    if (tap < GEMMA4_TAP_LAYER_INPUT)
        return tap;
    if (tap <= GEMMA4_TAP_LAYER_OUTPUT)
        return GEMMA4_TAP_LAYER_INPUT + layer * per_layer + (size_t)(tap - GEMMA4_TAP_LAYER_INPUT);
    return GEMMA4_TAP_LAYER_INPUT + g->config->num_hidden_layers * per_layer + (size_t)(tap - GEMMA4_TAP_LAYER_OUTPUT - 1);
}

/* ------------------------------------------------------------ comparisons */

/* Compares two rows [K, width] whose slots are named by ids; slots that only one of them has are left out. */
static void add_aligned(gemma4_comparison *c, size_t t, const float *engine, const int32_t *engine_ids, const float *expected,
                        const int32_t *expected_ids, size_t K, size_t width)
{
    for (size_t r = 0; r < K; r++)
        for (size_t q = 0; q < K; q++)
            if (engine_ids[r] == expected_ids[q])
                gemma4_comparison_add(c, t, r * width, engine + r * width, expected + q * width, width);
}

/* A row [H, T] of scores or probabilities: only the visible keys count, but a masked probability must be 0. */
static void add_keys(gemma4_comparison *c, const gemma4_tap_event *event, size_t T, const float *engine, const float *expected)
{
    size_t keys = event->dims[1], end = event->first_key + keys;
    for (size_t h = 0; h < event->dims[0]; h++) {
        size_t row = h * T;
        gemma4_comparison_add(c, event->row, row + event->first_key, engine + row + event->first_key, expected + row + event->first_key, keys);
        if (event->tap == GEMMA4_TAP_ATTN_PROBS) {
            gemma4_comparison_add(c, event->row, row, engine + row, expected + row, event->first_key);
            gemma4_comparison_add(c, event->row, row + end, engine + row + end, expected + row + end, T - end);
        }
    }
}

/* Adds row t of both tensors, [dims...] each, to the comparison, in the way that suits the tap. */
static void add_row(const judge *g, gemma4_comparison *c, const gemma4_tap_event *event, size_t t, size_t width, const float *engine,
                    const int32_t *engine_ids, const float *expected, const int32_t *expected_ids)
{
    size_t K = g->config->top_k_experts;
    if (gemma4_tap_in_id_order(event->tap))
        add_aligned(c, t, engine, engine_ids + t * K, expected, expected_ids + t * K, K, width / K);
    else if (gemma4_tap_is_keys(event->tap))
        add_keys(c, event, g->T, engine, expected);
    else
        gemma4_comparison_add(c, t, 0, engine, expected, width);
}

/* The event's values as floats, [rows, width]; scores and probabilities spread out to all T keys. */
static void reference_values(const gemma4_tap_event *event, size_t T, float *out)
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

/* Rows of the golden take the reference's place in expected; both are compared. */
static int apply_golden(judge *g, tap_state *state, const gemma4_tap_event *event, size_t width, float *expected, float *rows, bool *have,
                        gemma4_error *error)
{
    if (!state->golden)
        return 0;
    if (gemma4_read_positions(g->j->golden, state->golden, event->row, event->rows, width, rows, NULL, have, error))
        return -1;
    for (size_t i = 0; i < event->rows; i++)
        if (have[i]) {
            add_row(g, &state->of_reference, event, event->row + i, width, expected + i * width, g->reference_ids, rows + i * width,
                    g->expected_ids);
            memcpy(expected + i * width, rows + i * width, width * sizeof *expected);
        }
    return 0;
}

static int compare_engine(judge *g, tap_state *state, const gemma4_tap_event *event, size_t width, const float *expected, float *rows,
                          bool *have, gemma4_error *error)
{
    if (!state->engine)
        return 0;
    if (gemma4_read_positions(g->j->engine, state->engine, event->row, event->rows, width, rows, NULL, have, error))
        return -1;
    for (size_t i = 0; i < event->rows; i++) {
        size_t t = event->row + i;
        /* Values in the order of ids that the dump does not hold are not covered. */
        bool comparable = have[i] && !(gemma4_tap_in_id_order(event->tap) && g->engine_ids[t * g->config->top_k_experts] < 0);
        if (comparable)
            add_row(g, &state->against_expected, event, t, width, rows + i * width, g->engine_ids, expected + i * width, g->expected_ids);
    }
    memcpy(state->unreplayed + event->row * width, expected, event->rows * width * sizeof *expected);
    return 0;
}

static int compare_reals(judge *g, tap_state *state, const gemma4_tap_event *event, size_t width, gemma4_error *error)
{
    float *expected = malloc(event->rows * width * sizeof *expected), *rows = malloc(event->rows * width * sizeof *rows);
    bool *have = malloc(event->rows * sizeof *have);
    int status;
    if (!expected || !rows || !have) {
        status = gemma4_fail(error, "comparison: out of memory");
    } else {
        reference_values(event, g->T, expected);
        status = apply_golden(g, state, event, width, expected, rows, have, error) ||
                 compare_engine(g, state, event, width, expected, rows, have, error) ? -1 : 0;
    }
    free(expected);
    free(rows);
    free(have);
    return status;
}

/* How many of a's K ids are not among b's. */
static size_t ids_missing(const int32_t *a, const int32_t *b, size_t K)
{
    size_t missing = 0;
    for (size_t r = 0; r < K; r++) {
        bool found = false;
        for (size_t q = 0; q < K; q++)
            found = found || a[r] == b[q];
        missing += !found;
    }
    return missing;
}

static bool valid_ids(const int32_t *ids, size_t K, size_t E)
{
    for (size_t r = 0; r < K; r++) {
        if (ids[r] < 0 || (size_t)ids[r] >= E)
            return false;
        for (size_t q = 0; q < r; q++)
            if (ids[q] == ids[r])
                return false;
    }
    return true;
}

/* Keeps the layer's expert choices of all three sides for the taps that follow in their order. What is expected is the golden's
 * choice, or the reference's where there is none. */
static int compare_ids(judge *g, tap_state *state, const gemma4_tap_event *event, gemma4_error *error)
{
    size_t K = g->config->top_k_experts, E = g->config->num_experts, n = g->T * K;
    bool *have = malloc(g->T * sizeof *have);
    if (!have)
        return gemma4_fail(error, "comparison: out of memory");
    memcpy(g->reference_ids, event->ids, n * sizeof *event->ids);
    memcpy(g->expected_ids, event->ids, n * sizeof *event->ids);
    int status = 0;
    if (state->golden)
        status = gemma4_read_positions(g->j->golden, state->golden, 0, g->T, K, NULL, g->expected_ids, have, error);
    for (size_t t = 0; !status && t < g->T; t++) {
        if (!valid_ids(g->expected_ids + t * K, K, E) || ids_missing(g->expected_ids + t * K, g->reference_ids + t * K, K)) {
            char name[GEMMA4_TAP_NAME_SIZE];
            status = gemma4_fail(error, "this build's reference disagrees with its golden: %s, position %zu: other experts",
                                 gemma4_tap_name(event->tap, event->layer, name), t);
        }
    }
    for (size_t i = 0; i < n; i++)
        g->engine_ids[i] = -1;
    if (!status && state->engine)
        status = gemma4_read_positions(g->j->engine, state->engine, 0, g->T, K, NULL, g->engine_ids, have, error);
    for (size_t t = 0; !status && state->engine && t < g->T; t++) {
        int32_t *ids = g->engine_ids + t * K;
        if (!have[t])
            continue;
        state->against_expected.seen[t] = true;
        if (!valid_ids(ids, K, E))
            ids[0] = -1; /* nothing in their order can be compared */
    }
    free(have);
    return status;
}

static int judge_tap(void *context, gemma4_tap_event *event, gemma4_error *error)
{
    judge *g = context;
    size_t slot = slot_of(g, event->tap, event->layer), dims[2] = {1, 1};
    tap_state *state = &g->states[slot];
    if (event->tap == GEMMA4_TAP_ROUTER_TOPK_IDS)
        return compare_ids(g, state, event, error);
    if (!state->engine && !state->golden)
        return 0;
    gemma4_tap_dims(g->config, event->tap, event->layer, g->T, dims);
    if (state->engine && !state->unreplayed && !(state->unreplayed = calloc(g->T * dims[0] * dims[1], sizeof *state->unreplayed)))
        return gemma4_fail(error, "comparison: out of memory");
    return compare_reals(g, state, event, dims[0] * dims[1], error);
}

/* ---------------------------------------------------------------- verdicts */

static gemma4_verdict verdict_of(double error, double tolerance)
{
    return !(error <= tolerance) ? GEMMA4_DIVERGES : !(error <= MARGINAL_PART * tolerance) ? GEMMA4_MARGINAL : GEMMA4_PASS;
}

static size_t positions_seen(const gemma4_comparison *c)
{
    size_t seen = 0;
    for (size_t t = 0; t < c->positions; t++)
        seen += c->seen[t];
    return seen;
}

static double accumulated_tolerance(const judge *g, const char *name, gemma4_metric metric)
{
    const gemma4_tolerance_row *row = g->j->the_case ? gemma4_case_tolerance(g->j->the_case, g->j->dtype, name, metric) : NULL;
    return row ? row->value : metric == GEMMA4_RELATIVE_RMS ? DEFAULT_RELATIVE_RMS : DEFAULT_POSITION_RMS;
}

/* The accumulated comparison of a tap: shown, not decisive. */
static void conclude_accumulated(const judge *g, const tap_state *state, gemma4_tap_result *r)
{
    const gemma4_comparison *c = &state->against_expected;
    char name[GEMMA4_TAP_NAME_SIZE];
    gemma4_tap_name(r->tap, r->layer, name);
    r->metrics = gemma4_comparison_metrics(c);
    double rms_tolerance = accumulated_tolerance(g, name, GEMMA4_RELATIVE_RMS);
    double position_tolerance = accumulated_tolerance(g, name, GEMMA4_POSITION_RMS);
    bool by_position = r->metrics.position_rms / position_tolerance > r->metrics.relative_rms / rms_tolerance;
    r->accumulated.metric = gemma4_metric_name(by_position ? GEMMA4_POSITION_RMS : GEMMA4_RELATIVE_RMS);
    r->accumulated.error = by_position ? r->metrics.position_rms : r->metrics.relative_rms;
    r->accumulated.tolerance = by_position ? position_tolerance : rms_tolerance;
    r->accumulated.position = r->metrics.position;
    r->worst_position = c->worst_position;
    r->worst_index = c->worst_index;
    r->worst_engine = c->worst_engine;
    r->worst_expected = c->worst_expected;
}

/* How far the step's expected values, from the engine's inputs, are from those without any of the engine's errors. */
static double inherited_error(const judge *g, const tap_state *state, const gemma4_replayed_tap *t)
{
    double difference = 0, size = 0;
    for (size_t row = 0; row < g->T; row++)
        for (size_t i = row * t->width; t->have[row] && i < (row + 1) * t->width; i++) {
            double expected = (double)state->unreplayed[i], e = (double)t->expected[i] - expected;
            difference += e * e;
            size += expected * expected;
        }
    return difference == 0 ? 0 : sqrt(difference / size);
}

/* Did the tap fail as a whole, although no position does? */
static bool is_bias(const gemma4_tap_result *r)
{
    return !strcmp(r->local.metric, BIAS_METRIC);
}

static void conclude_local_reals(const judge *g, const gemma4_replay *replay, const tap_state *state, gemma4_tap_result *r)
{
    const gemma4_comparison *c = &state->against_expected;
    gemma4_score s = gemma4_replay_score(replay, r->tap, NULL, NULL);
    gemma4_bias bias = gemma4_replay_bias(replay, r->tap);
    bool by_worst = s.worst / LIMIT_WORST > s.score / LIMIT_SCORE;
    r->local = by_worst ? (gemma4_measure){"worst_position_in_spreads", s.worst, LIMIT_WORST, s.position}
                        : (gemma4_measure){"rms_in_spreads", s.score, LIMIT_SCORE, s.position};
    /* Where every position is within its limit, all of them together may not be. */
    if (r->local.error <= r->local.tolerance && bias.in_spreads / LIMIT_BIAS > r->local.error / r->local.tolerance)
        r->local = (gemma4_measure){BIAS_METRIC, bias.in_spreads, LIMIT_BIAS, s.position};
    r->added = s.relative_rms;
    r->inherited = gemma4_tap_in_id_order(r->tap) ? NAN : inherited_error(g, state, &replay->taps[r->tap]);
    r->verdict = verdict_of(r->local.error, r->local.tolerance);
    if (r->verdict == GEMMA4_DIVERGES && is_bias(r))
        snprintf(r->problem, sizeof r->problem, "all positions together are %.2g %% too %s: rounding may do that to one, not to all", 100 * fabs(bias.part),
                 bias.part > 0 ? "large" : "small");
    if (c->nonfinite) {
        r->local.position = c->nonfinite_position;
        snprintf(r->problem, sizeof r->problem, "%zu values are NaN or infinite, the first at position %zu, index %zu", c->nonfinite,
                 c->nonfinite_position, c->nonfinite_index);
        r->verdict = GEMMA4_DIVERGES;
    }
}

static void conclude_local_ids(const gemma4_replay *replay, size_t excused, gemma4_routing *routing, gemma4_tap_result *r)
{
    size_t faults = gemma4_routing_judge(replay, routing);
    r->local.metric = "expert_sets";
    r->local.error = (double)faults;
    r->local.position = routing->first_fault;
    r->verdict = faults ? GEMMA4_DIVERGES : routing->excused > excused ? GEMMA4_EXCUSED : GEMMA4_PASS;
    if (faults)
        snprintf(r->problem, sizeof r->problem, "at %zu position%s the experts are not those of the engine's own router logits, first at position %zu",
                 faults, faults == 1 ? "" : "s", routing->first_fault);
}

/* Verdicts of the block's taps, on the engine's own inputs. */
static void conclude_block(judge *g, const gemma4_replay *replay, gemma4_routing *routing, bool failed[GEMMA4_TAP_COUNT])
{
    memset(failed, 0, GEMMA4_TAP_COUNT * sizeof *failed);
    for (size_t i = 0; i < g->report->tap_count; i++) {
        gemma4_tap_result *r = &g->report->taps[i];
        tap_state *state = &g->states[i];
        const gemma4_replayed_tap *t = &replay->taps[r->tap];
        bool layer_tap = gemma4_tap_describe(r->tap)->per_layer;
        if (layer_tap ? replay->block != (gemma4_block)r->layer : t->expected == NULL)
            continue;
        if (r->tap == GEMMA4_TAP_ROUTER_TOPK_IDS) {
            size_t excused = routing->excused;
            conclude_local_ids(replay, excused, routing, r);
            if (!state->engine)
                r->verdict = GEMMA4_NOT_COVERED;
        } else if (state->engine && positions_seen(&state->against_expected)) {
            conclude_local_reals(g, replay, state, r);
            conclude_accumulated(g, state, r);
        }
        failed[r->tap] = r->verdict == GEMMA4_DIVERGES && !is_bias(r); /* a bias is for the filters to explain */
        free(state->unreplayed);
        state->unreplayed = NULL;
    }
}

/* Taps that are there with a shape or a type that the config contradicts. */
static void conclude_shape(gemma4_tap_result *r)
{
    r->local.metric = "shape";
    r->local.error = INFINITY;
    r->verdict = GEMMA4_DIVERGES;
}

static void conclude_coverage(judge *g)
{
    gemma4_report *report = g->report;
    bool layer_outputs = true, logits = false;
    for (size_t i = 0; i < report->tap_count; i++) {
        const gemma4_tap_result *r = &report->taps[i];
        bool covered = r->verdict != GEMMA4_NOT_COVERED;
        if (gemma4_tap_required(g->config, r->tap, r->layer)) {
            report->taps_of++;
            report->taps_covered += covered;
        }
        if (gemma4_tap_describe(r->tap)->per_layer && covered)
            report->layer_covered[r->layer] = true;
        if (r->tap == GEMMA4_TAP_LAYER_OUTPUT)
            layer_outputs = layer_outputs && covered;
        if (r->tap == GEMMA4_TAP_LOGITS)
            logits = covered;
    }
    report->level = report->taps_covered == report->taps_of ? GEMMA4_FULL_LEVEL
                    : layer_outputs && logits               ? GEMMA4_LAYERS_LEVEL
                    : logits                                ? GEMMA4_LOGITS_LEVEL
                                                            : GEMMA4_PARTIAL;
}

/* The golden is only worth something while the reference, which shares no code with its oracle, agrees with it. */
static int conclude_reference(judge *g, gemma4_error *error)
{
    const gemma4_case *c = g->j->the_case;
    double worst = 0;
    for (size_t i = 0; i < g->report->tap_count; i++) {
        const tap_state *state = &g->states[i];
        gemma4_tap_result *r = &g->report->taps[i];
        if (!state->golden || r->tap == GEMMA4_TAP_ROUTER_TOPK_IDS)
            continue;
        char name[GEMMA4_TAP_NAME_SIZE];
        double agreement = gemma4_comparison_metrics(&state->of_reference).relative_rms;
        if (!(agreement <= GEMMA4_REFERENCE_AGREEMENT) || state->of_reference.nonfinite)
            return gemma4_fail(error, "this build's reference disagrees with its golden: %s: expected a relative RMS of at most %g, found %g",
                               gemma4_tap_name(r->tap, r->layer, name), GEMMA4_REFERENCE_AGREEMENT, agreement);
        r->reference_agreement = agreement;
        worst = fmax(worst, agreement);
        g->report->golden_taps++;
    }
    snprintf(g->report->expected_detail, sizeof g->report->expected_detail, "%s %s in %s; the reference agrees on %zu taps within %.1e",
             c->oracle_name, c->oracle_version, c->oracle_dtype, g->report->golden_taps, worst);
    return 0;
}

/* A mistake that only the matched filter sees fails the tap where it enters. */
static void conclude_below_bound(judge *g)
{
    for (size_t i = 0; i < gemma4_cause_count(g->report->diagnosis); i++) {
        const gemma4_cause *cause = gemma4_cause_at(g->report->diagnosis, i);
        if (!cause->below_bound)
            continue;
        gemma4_tap_result *r = &g->report->taps[slot_of(g, cause->tap, cause->first_layer)];
        r->verdict = GEMMA4_DIVERGES;
        r->local = (gemma4_measure){"matched_filter", cause->coefficient / cause->residual, FILTER_DEVIATIONS, r->local.position};
        if (!g->report->first_divergence)
            g->report->first_divergence = r;
    }
}

static int conclude(judge *g, gemma4_error *error)
{
    gemma4_report *report = g->report;
    size_t compared = 0;
    if (g->j->golden && conclude_reference(g, error))
        return -1;
    for (size_t i = 0; i < report->tap_count; i++) {
        gemma4_tap_result *r = &report->taps[i];
        if (!g->states[i].engine && r->problem[0])
            conclude_shape(r);
        compared += r->verdict != GEMMA4_NOT_COVERED;
        if (r->verdict == GEMMA4_DIVERGES && !report->first_divergence)
            report->first_divergence = r;
    }
    if (compared == 0 && !g->j->reference_only)
        return gemma4_fail(error, "nothing in the dump can be compared");
    if (gemma4_diagnose_conclude(report->diagnosis, error))
        return -1;
    conclude_below_bound(g);
    report->conforms = report->first_divergence == NULL;
    conclude_coverage(g);
    return 0;
}

/* ------------------------------------------------------------------ set-up */

static int check_input(const gemma4_judgement *j, size_t T, const int32_t *tokens, const int32_t *positions, gemma4_error *error)
{
    const gemma4_case *c = j->the_case;
    if (!c)
        return 0;
    if (T != c->token_count)
        return gemma4_fail(error, "tokens: expected the %zu of case %s, found %zu", c->token_count, c->id, T);
    for (size_t t = 0; t < T; t++)
        if (tokens[t] != c->tokens[t])
            return gemma4_fail(error, "tokens: expected case %s's %d at position %zu, found %d", c->id, c->tokens[t], t, tokens[t]);
    if ((size_t)positions[0] != c->first_position)
        return gemma4_fail(error, "positions: expected case %s's %zu ..., found %d ...", c->id, c->first_position, positions[0]);
    return 0;
}

static int check_dtype(const gemma4_judgement *j, gemma4_error *error)
{
    char names[120] = "";
    if (gemma4_tier_of(j->dtype))
        return 0;
    for (size_t i = 0; gemma4_tier_at(i); i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? ", " : "", gemma4_tier_at(i)->name);
    return gemma4_fail(error, "dtype: expected one of %s, found '%s'", names, j->dtype);
}

static int judge_init(judge *g, gemma4_error *error)
{
    gemma4_report *report = g->report;
    size_t layers = g->config->num_hidden_layers, K = g->config->top_k_experts;
    report->tap_count = slot_of(g, GEMMA4_TAP_COUNT, 0);
    report->taps = calloc(report->tap_count, sizeof *report->taps);
    report->layer_covered = calloc(layers, sizeof *report->layer_covered);
    g->states = calloc(report->tap_count, sizeof *g->states);
    g->engine_ids = calloc(g->T * K, sizeof *g->engine_ids);
    g->expected_ids = calloc(g->T * K, sizeof *g->expected_ids);
    g->reference_ids = calloc(g->T * K, sizeof *g->reference_ids);
    if (!report->taps || !report->layer_covered || !g->states || !g->engine_ids || !g->expected_ids || !g->reference_ids)
        return gemma4_fail(error, "comparison: out of memory");
    for (size_t tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        for (size_t layer = 0; layer < (gemma4_tap_describe((gemma4_tap)tap)->per_layer ? layers : 1); layer++) {
            size_t slot = slot_of(g, (gemma4_tap)tap, layer);
            tap_state *state = &g->states[slot];
            report->taps[slot].tap = (gemma4_tap)tap;
            report->taps[slot].layer = layer;
            report->taps[slot].verdict = GEMMA4_NOT_COVERED;
            report->taps[slot].local.metric = "";
            state->engine = gemma4_activations_find(g->j->engine, (gemma4_tap)tap, layer);
            if (state->engine && !state->engine->usable) {
                snprintf(report->taps[slot].problem, sizeof report->taps[slot].problem, "%s", state->engine->problem);
                state->engine = NULL;
            }
            state->golden = g->j->golden ? gemma4_activations_find(g->j->golden, (gemma4_tap)tap, layer) : NULL;
            if (state->golden && !state->golden->usable)
                return gemma4_fail(error, "%s: %s", g->j->the_case->golden_path, state->golden->problem);
            if (gemma4_comparison_init(&state->against_expected, g->T, error) || gemma4_comparison_init(&state->of_reference, g->T, error))
                return -1;
        }
    return 0;
}

static void judge_free(judge *g)
{
    for (size_t i = 0; g->states && i < g->report->tap_count; i++) {
        gemma4_comparison_free(&g->states[i].against_expected);
        gemma4_comparison_free(&g->states[i].of_reference);
        free(g->states[i].unreplayed);
    }
    free(g->states);
    free(g->engine_ids);
    free(g->expected_ids);
    free(g->reference_ids);
}

/* One block of the reference by itself: the golden is compared, and so is the engine with all its earlier errors. */
static int run_reference(judge *g, gemma4_session *session, gemma4_block block, const int32_t *tokens, gemma4_real *h, gemma4_error *error)
{
    gemma4_session_set_hook(session, judge_tap, g);
    if (block < 0)
        return gemma4_forward_embed(session, tokens, g->T, h, error);
    if ((size_t)block < g->config->num_hidden_layers)
        return gemma4_forward_layer(session, (size_t)block, g->T, h, error);
    return gemma4_forward_head(session, g->T, g->T, h, NULL, error);
}

/* Replays one block, gives its taps their verdicts, and looks for the causes of those that fail. */
static int judge_block(judge *g, gemma4_replay *replay, gemma4_block block, gemma4_routing *routing, gemma4_error *error)
{
    bool failed[GEMMA4_TAP_COUNT];
    bool layer = block >= 0 && block < (gemma4_block)g->config->num_hidden_layers;
    if (gemma4_replay_block(replay, block, error) || (layer && gemma4_routing_infer(replay, routing, error)))
        return -1;
    conclude_block(g, replay, routing, failed);
    return g->j->without_causes ? 0 : gemma4_diagnose_block(g->report->diagnosis, replay, failed, error);
}

/* The last block of which the dump holds anything: those behind it need no replay. */
static gemma4_block last_block_held(const judge *g)
{
    gemma4_block last = -1, layers = (gemma4_block)g->config->num_hidden_layers;
    for (size_t i = 0; i < g->report->tap_count; i++) {
        const gemma4_tap_result *r = &g->report->taps[i];
        gemma4_block block = r->tap == GEMMA4_TAP_EMBED ? -1 : gemma4_tap_describe(r->tap)->per_layer ? (gemma4_block)r->layer : layers;
        if (g->states[i].engine && block > last)
            last = block;
    }
    return last;
}

/* The reference and the replay side by side, a block at a time. */
static int run_blocks(judge *g, gemma4_error *error)
{
    const gemma4_judgement *j = g->j;
    gemma4_replay replay;
    gemma4_routing routing = {0};
    gemma4_block last = (gemma4_block)g->config->num_hidden_layers, last_held = last_block_held(g);
    g->report->diagnosis = gemma4_diagnosis_new(j->model, error);
    if (!g->report->diagnosis)
        return -1;
    int status = gemma4_replay_init(&replay, j->model, j->engine, gemma4_tier_of(j->dtype), error);
    gemma4_session *session = status ? NULL : gemma4_session_new(j->model, replay.first_position, g->T, error);
    gemma4_real *h = calloc(g->T * g->config->hidden_size, sizeof *h);
    if (!status && !h)
        status = gemma4_fail(error, "comparison: out of memory");
    if (!session)
        status = -1;
    for (gemma4_block block = -1; block <= last && !status; block++) {
        status = run_reference(g, session, block, replay.tokens, h, error);
        if (!status && !j->reference_only && block <= last_held)
            status = judge_block(g, &replay, block, &routing, error);
    }
    g->report->routing = routing;
    free(h);
    gemma4_session_free(session);
    gemma4_replay_free(&replay);
    return status ? -1 : 0;
}

int gemma4_judge(const gemma4_judgement *j, gemma4_report *report, gemma4_error *error)
{
    const int32_t *tokens, *positions;
    judge g = {.j = j, .report = report, .config = &j->model->config};
    g.T = gemma4_activations_positions(j->engine, &tokens, &positions);

    *report = (gemma4_report){.dtype = j->dtype, .case_id = j->the_case ? j->the_case->id : NULL,
                              .engine = gemma4_activations_attribute(j->engine, "engine"),
                              .engine_version = gemma4_activations_attribute(j->engine, "engine_version"),
                              .expected_from = j->the_case ? "golden" : "reference", .layers = g.config->num_hidden_layers,
                              .positions = g.T};
    if (check_input(j, g.T, tokens, positions, error) || check_dtype(j, error))
        return -1;
    int status = judge_init(&g, error) ? -1 : run_blocks(&g, error);
    if (!status)
        status = conclude(&g, error);
    judge_free(&g);
    return status;
}

void gemma4_report_free(gemma4_report *report)
{
    free(report->taps);
    free(report->layer_covered);
    gemma4_diagnosis_free(report->diagnosis);
    *report = (gemma4_report){0};
}
