/* The forward pass (ref/forward.h): the same bits however the tokens are cut into chunks, hooks
 * that are obeyed, causality, the window, and refusals. The numbers themselves are
 * test_golden.c's. */
#include "forward.h"
#include "ops.h"
#include "rows.h"
#include "suites.h"
#include "support.h"
#include "synth.h"

#include <math.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* tiny: layers 5 and 11 are full, the others see 16 positions. */
enum { LAYERS = 12, WINDOW = 16, T = 40, V = 256, D_MODEL = 64, HEADS = 4, EXPERTS = 16, K = 4 };

/* Both made before the tests are forked. */
static gemma4_model *model;
static struct record *whole_at_0; /* of TOKENS as one chunk from position 0 on */

static void open_model(void)
{
    gemma4_error error = {""};
    const gemma4_synth_options options = {.preset = "tiny", .seed = 3, .shards = 1};
    char *directory = test_fresh_dir();
    ck_assert_msg(gemma4_synth(&options, directory, &error) == 0, "%s", error.message);
    model = gemma4_model_open(directory, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
}

static const int32_t TOKENS[T] = {
    2,  197, 214, 34,  153, 23,  76,  115, 13,  151, 249, 242, 7,  8,   99, 100, 101, 33, 240, 5,
    66, 71,  18,  255, 3,   190, 191, 12,  144, 60,  61,  222, 41, 177, 88, 9,   130, 54, 203, 17};

static gemma4_session *new_session(size_t first_position, size_t capacity, gemma4_tap_hook hook,
                                   void *context)
{
    gemma4_error error = {""};
    gemma4_session *session = gemma4_session_new(model, first_position, capacity, &error);
    ck_assert_msg(session != NULL, "%s", error.message);
    gemma4_session_set_hook(session, hook, context);
    return session;
}

/* Feeds tokens in chunks; a length of 0 ends the schedule, the rest goes in one token at a time. */
static void feed(gemma4_session *session, const int32_t *tokens, size_t count,
                 const size_t *schedule)
{
    gemma4_error error = {""};
    for (size_t first = 0; first < count;) {
        size_t n = schedule != NULL && *schedule ? *schedule++ : 1;
        ck_assert_msg(gemma4_forward(session, tokens + first, n, n, NULL, &error) == 0, "%s",
                      error.message);
        first += n;
    }
}

static const size_t WHOLE[] = {T, 0};

static void run_whole(size_t first_position, gemma4_tap_hook hook, void *context)
{
    gemma4_session *session = new_session(first_position, T, hook, context);
    feed(session, TOKENS, T, WHOLE);
    gemma4_session_free(session);
}

/* --- the record of a run: a hash of the bits of every row of every tap --- */

typedef struct record {
    uint64_t row[GEMMA4_TAP_COUNT][LAYERS][T]; /* 0 where it was never shown */
    size_t events;
} record;

static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * 1099511628211u;
    return hash;
}

static int record_event(void *context, gemma4_tap_event *event, gemma4_error *error)
{
    record *r = context;
    size_t width = event->dims[0] * event->dims[1],
           size = event->ids ? sizeof *event->ids : sizeof *event->values;
    const char *bytes = event->ids ? (const char *)event->ids : (const char *)event->values;
    const size_t shape[] = {event->rank, event->dims[0], event->dims[1], event->first_key};
    for (size_t i = 0; i < event->rows; i++) {
        uint64_t *slot = &r->row[event->tap][event->layer][event->row + i];
        if (*slot != 0)
            return gemma4_fail(error, "tap %d, layer %zu, row %zu: shown twice", (int)event->tap,
                               event->layer, event->row + i);
        *slot = hash_bytes(hash_bytes(14695981039346656037u, shape, sizeof shape),
                           bytes + i * width * size, width * size);
    }
    r->events++;
    return 0;
}

static record *new_record(void)
{
    record *r = calloc(1, sizeof *r);
    ck_assert_ptr_nonnull(r);
    return r;
}

static void set_up(void)
{
    open_model();
    whole_at_0 = new_record();
    run_whole(0, record_event, whole_at_0);
}

static void tear_down(void)
{
    free(whole_at_0);
    gemma4_model_close(model);
}

/* Compares rows [first, end) of every tap. */
static void assert_same_rows(const record *a, const record *b, size_t first, size_t end)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        for (size_t layer = 0;
             layer < (gemma4_tap_describe((gemma4_tap)tap)->per_layer ? LAYERS : 1); layer++)
            for (size_t t = first;
                 t < end && gemma4_tap_exists(&model->config, (gemma4_tap)tap, layer); t++) {
                ASSERT_EACH(a->row[tap][layer][t] != 0, "%s, row %zu: never shown",
                            gemma4_tap_name((gemma4_tap)tap, layer, name), t);
                ASSERT_EACH(a->row[tap][layer][t] == b->row[tap][layer][t],
                            "%s, row %zu: other bits",
                            gemma4_tap_name((gemma4_tap)tap, layer, name), t);
            }
}

static const struct {
    const char *what;
    size_t chunks[12];
} SCHEDULES[] = {
    {"one token at a time", {0}},
    {"prefill, then decode", {12, 0}},
    {"uneven", {3, 5, 7, 1, 24, 0}},
    {"chunks of the window", {16, 16, 8, 0}},
    {"a chunk longer than the window", {17, 16, 7, 0}},
    {"a chunk longer than the window after a full ring", {16, 20, 4, 0}},
    {"two chunks longer than the window", {20, 20, 0}},
    {"two windows and a position", {33, 7, 0}},
    {"a window and its neighbours", {15, 17, 8, 0}},
    {"all but one", {39, 1, 0}},
};

static record *record_chunks(size_t first_position, size_t capacity, size_t count,
                             const size_t *schedule)
{
    record *chunked = new_record();
    gemma4_session *session = new_session(first_position, capacity, record_event, chunked);
    feed(session, TOKENS, count, schedule);
    ck_assert_uint_eq(gemma4_session_length(session), count);
    gemma4_session_free(session);
    return chunked;
}

START_TEST(chunks_give_the_bits_of_the_whole_prefill)
{
    record *chunked = record_chunks(0, T, T, SCHEDULES[_i].chunks);
    assert_same_rows(whole_at_0, chunked, 0, T);
    free(chunked);
}
END_TEST

START_TEST(chunks_give_the_same_bits_far_out_too)
{
    record *whole = record_chunks(262100, T, T, WHOLE),
           *chunked = record_chunks(262100, T, T, SCHEDULES[_i].chunks);
    assert_same_rows(whole, chunked, 0, T);
    free(whole);
    free(chunked);
}
END_TEST

/* A longer session has larger caches; a shorter one than the window has no ring. */
START_TEST(capacity_changes_nothing)
{
    static const size_t capacities[] = {10, 15, 16, 17, 1000};
    size_t count = capacities[_i] < T ? capacities[_i] : T;
    record *other = record_chunks(0, capacities[_i], count, NULL);
    assert_same_rows(whole_at_0, other, 0, count);
    free(other);
}
END_TEST

START_TEST(the_position_matters)
{
    record *far = record_chunks(1, T, T, WHOLE);
    ck_assert_uint_eq(whole_at_0->row[GEMMA4_TAP_ATTN_K_NORM][0][7],
                      far->row[GEMMA4_TAP_ATTN_K_NORM][0][7]);
    ck_assert_uint_ne(whole_at_0->row[GEMMA4_TAP_ATTN_K_ROPE][0][7],
                      far->row[GEMMA4_TAP_ATTN_K_ROPE][0][7]);
    free(far);
}
END_TEST

START_TEST(every_tap_that_exists_is_shown)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        for (size_t layer = 0; layer < LAYERS; layer++) {
            bool here = gemma4_tap_describe((gemma4_tap)tap)->per_layer || layer == 0;
            bool expected = here && gemma4_tap_exists(&model->config, (gemma4_tap)tap, layer);
            ck_assert_msg((whole_at_0->row[tap][layer][T - 1] != 0) == expected, "%s",
                          gemma4_tap_name((gemma4_tap)tap, layer, name));
        }
}
END_TEST

/* --- which keys a query sees --- */

static const struct {
    size_t window;
    gemma4_layer_kind kind;
    size_t query, first, end;
} VISIBLE[] = {
    /* the window is just full */
    {4, GEMMA4_SLIDING, 0, 0, 1}, {4, GEMMA4_SLIDING, 2, 0, 3},        {4, GEMMA4_SLIDING, 3, 0, 4},
    {4, GEMMA4_SLIDING, 4, 1, 5}, {4, GEMMA4_SLIDING, 99, 96, 100},    {1, GEMMA4_SLIDING, 0, 0, 1},
    {1, GEMMA4_SLIDING, 7, 7, 8}, {4, GEMMA4_FULL, 0, 0, 1},           {4, GEMMA4_FULL, 3, 0, 4},
    {4, GEMMA4_FULL, 4, 0, 5},    {4, GEMMA4_FULL, 262143, 0, 262144},
};

START_TEST(a_query_sees_itself_and_what_the_window_reaches)
{
    gemma4_layer_config layers[2] = {{.kind = GEMMA4_FULL}, {.kind = VISIBLE[_i].kind}};
    gemma4_config config = {
        .num_hidden_layers = 2, .sliding_window = VISIBLE[_i].window, .layers = layers};
    gemma4_visible keys = gemma4_visible_keys(&config, 1, VISIBLE[_i].query);
    ck_assert_uint_eq(keys.first, VISIBLE[_i].first);
    ck_assert_uint_eq(keys.end, VISIBLE[_i].end);
    ck_assert_uint_eq(gemma4_layer_window(&config, 1),
                      VISIBLE[_i].kind == GEMMA4_FULL ? SIZE_MAX : VISIBLE[_i].window);
}
END_TEST

/* Rows of two heads and 7 keys: of query 5, with a window of 4. */
START_TEST(the_other_keys_are_masked)
{
    gemma4_layer_config layers[2] = {{.kind = GEMMA4_FULL}, {.kind = GEMMA4_SLIDING}};
    gemma4_config config = {.num_hidden_layers = 2, .sliding_window = 4, .layers = layers};
    for (size_t i = 0; i < 14; i++) {
        ck_assert_int_eq(gemma4_key_is_masked(&config, 0, 7, 5, i), i % 7 == 6);
        ck_assert_int_eq(gemma4_key_is_masked(&config, 1, 7, 5, i), i % 7 < 2 || i % 7 == 6);
    }
}
END_TEST

static int check_keys(void *context, gemma4_tap_event *event, gemma4_error *error)
{
    size_t *seen = context;
    if (event->tap != GEMMA4_TAP_ATTN_SCORES && event->tap != GEMMA4_TAP_ATTN_PROBS)
        return event->first_key == 0
                   ? 0
                   : gemma4_fail(error, "first_key of another tap: %zu", event->first_key);
    bool full = event->layer == 5 || event->layer == 11;
    size_t first = full || event->row < WINDOW ? 0 : event->row + 1 - WINDOW;
    ++*seen;
    if (event->rows != 1 || event->dims[0] != HEADS || event->first_key != first ||
        event->dims[1] != event->row + 1 - first)
        return gemma4_fail(error, "layer %zu, query %zu: keys from %zu on, %zu of them",
                           event->layer, event->row, event->first_key, event->dims[1]);
    return 0;
}

START_TEST(queries_see_the_window_or_everything_before)
{
    size_t seen = 0;
    gemma4_session *session = new_session(0, T, check_keys, &seen);
    feed(session, TOKENS, T, SCHEDULES[_i].chunks);
    gemma4_session_free(session);
    ck_assert_uint_eq(seen, 2 * LAYERS * T);
}
END_TEST

static record *record_with_token(size_t position, int32_t token)
{
    int32_t tokens[T];
    record *r = new_record();
    memcpy(tokens, TOKENS, sizeof tokens);
    tokens[position] = token;
    gemma4_session *session = new_session(0, T, record_event, r);
    feed(session, tokens, T, WHOLE);
    gemma4_session_free(session);
    return r;
}

START_TEST(a_later_token_changes_no_earlier_position)
{
    static const size_t positions[] = {1, 15, 16, 25, T - 1};
    size_t changed = positions[_i];
    record *after = record_with_token(changed, TOKENS[changed] ^ 1);
    assert_same_rows(whole_at_0, after, 0, changed);
    for (size_t t = changed; t < T; t++) /* through the full layers it reaches every later one */
        ck_assert_uint_ne(whole_at_0->row[GEMMA4_TAP_LOGITS][0][t],
                          after->row[GEMMA4_TAP_LOGITS][0][t]);
    free(after);
}
END_TEST

/* In layer 0 nothing but attention has mixed positions yet. */
START_TEST(the_window_ends_exactly)
{
    const size_t query = 30;
    for (size_t back = WINDOW - 2; back <= WINDOW + 1; back++) {
        record *after = record_with_token(query - back, TOKENS[query - back] ^ 1);
        bool same = whole_at_0->row[GEMMA4_TAP_ATTN_CONTEXT][0][query] ==
                    after->row[GEMMA4_TAP_ATTN_CONTEXT][0][query];
        ck_assert_msg(same == (back >= WINDOW), "%zu positions back", back);
        ck_assert_uint_ne(whole_at_0->row[GEMMA4_TAP_ATTN_CONTEXT][5][query],
                          after->row[GEMMA4_TAP_ATTN_CONTEXT][5][query]);
        free(after);
    }
}
END_TEST

/* --- hooks: the next step reads what the hook left --- */

/* Keeps up to two taps of one layer, and lets a test overwrite one. */
typedef struct watch {
    size_t layer;
    gemma4_tap taps[2];
    gemma4_real *values[2]; /* [T, width] */
    gemma4_tap replaced;    /* GEMMA4_TAP_COUNT: none */
    void (*replace)(gemma4_tap_event *event);
} watch;

static int watch_event(void *context, gemma4_tap_event *event, gemma4_error *error)
{
    watch *w = context;
    size_t width = event->dims[0] * event->dims[1];
    (void)error;
    if (gemma4_tap_describe(event->tap)->per_layer && event->layer != w->layer)
        return 0;
    if (event->tap == w->replaced)
        w->replace(event);
    for (int i = 0; i < 2; i++)
        if (w->values[i] != NULL && event->tap == w->taps[i])
            memcpy(w->values[i] + event->row * width, event->values,
                   event->rows * width * sizeof *event->values);
    return 0;
}

static void fill(gemma4_tap_event *event, gemma4_real value)
{
    for (size_t i = 0; i < event->rows * event->dims[0] * event->dims[1]; i++)
        event->values[i] = value;
}

static void replace_by_ones(gemma4_tap_event *event)
{
    fill(event, 1);
}

static void replace_by_zeros(gemma4_tap_event *event)
{
    fill(event, 0);
}

/* Another value in every position of every row. */
static gemma4_real ramp_at(size_t i)
{
    return (gemma4_real)((double)(i % 101) / 16 - 3);
}

static void replace_by_ramp(gemma4_tap_event *event)
{
    size_t width = event->dims[0] * event->dims[1];
    for (size_t i = 0; i < event->rows * width; i++)
        event->values[i] = ramp_at(event->row * width + i);
}

static void replace_by_own_key(gemma4_tap_event *event)
{
    fill(event, 0);
    for (size_t h = 0; h < event->dims[0]; h++)
        event->values[h * event->dims[1] + event->dims[1] - 1] = 1;
}

static void replace_ids(gemma4_tap_event *event)
{
    static const int32_t ids[K] = {15, 0, 7, 3};
    for (size_t i = 0; i < event->rows * K; i++)
        event->ids[i] = ids[i % K];
}

static void run_watch(watch *w, const size_t *schedule)
{
    gemma4_session *session = new_session(0, T, watch_event, w);
    feed(session, TOKENS, T, schedule);
    gemma4_session_free(session);
}

START_TEST(output_is_the_residual_times_layer_scalar)
{
    static gemma4_real output[T * D_MODEL];
    watch w = {.layer = 3,
               .taps = {GEMMA4_TAP_LAYER_OUTPUT},
               .values = {output},
               .replaced = GEMMA4_TAP_FFN_RESIDUAL,
               .replace = replace_by_ramp};
    run_watch(&w, WHOLE);
    float scalar = gemma4_weight_at(&model->layers[3].layer_scalar, 0);
    for (size_t i = 0; i < T * D_MODEL; i++)
        ck_assert(output[i] == ramp_at(i) * scalar);
}
END_TEST

START_TEST(layer_0_reads_the_embedding_that_the_hook_left)
{
    static gemma4_real input[T * D_MODEL];
    watch w = {.layer = 0,
               .replaced = GEMMA4_TAP_EMBED,
               .replace = replace_by_ramp,
               .taps = {GEMMA4_TAP_LAYER_INPUT},
               .values = {input}};
    run_watch(&w, WHOLE);
    for (size_t i = 0; i < T * D_MODEL; i++)
        ck_assert(input[i] == ramp_at(i));
}
END_TEST

/* Values of ones are ones after their norm (but for eps), and so is every average of them: also
 * through the cache. */
START_TEST(context_averages_the_values_that_the_hook_left)
{
    static gemma4_real context[T * 128];
    static const size_t layers[] = {0, 5}, widths[] = {64, 128}; /* a sliding and a full one */
    watch w = {.layer = layers[_i],
               .taps = {GEMMA4_TAP_ATTN_CONTEXT},
               .values = {context},
               .replaced = GEMMA4_TAP_ATTN_V,
               .replace = replace_by_ones};
    run_watch(&w, SCHEDULES[2].chunks);
    double expected = 1 / sqrt(1 + model->config.rms_norm_eps);
    for (size_t i = 0; i < T * widths[_i]; i++)
        ck_assert_double_eq_tol((double)context[i], expected, 1e-6);
}
END_TEST

START_TEST(zero_scores_give_equal_probabilities)
{
    static gemma4_real context[T * 64], v[T * 32];
    watch w = {.layer = 0,
               .taps = {GEMMA4_TAP_ATTN_CONTEXT, GEMMA4_TAP_ATTN_V_NORM},
               .values = {context, v},
               .replaced = GEMMA4_TAP_ATTN_SCORES,
               .replace = replace_by_zeros};
    run_watch(&w, WHOLE);
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < 64; i++) { /* four heads of 16; heads 0 and 1 share KV head 0 */
            size_t first = t < WINDOW ? 0 : t + 1 - WINDOW;
            double sum = 0;
            for (size_t key = first; key <= t; key++)
                sum += (double)v[key * 32 + i / 32 * 16 + i % 16];
            ck_assert_double_eq_tol((double)context[t * 64 + i], sum / (double)(t + 1 - first),
                                    1e-6);
        }
}
END_TEST

/* Which also shows which KV head a query head reads: h / (H / G). */
START_TEST(all_probability_on_one_key_gives_its_value)
{
    static gemma4_real context[T * 64], v[T * 32];
    watch w = {.layer = 2,
               .taps = {GEMMA4_TAP_ATTN_CONTEXT, GEMMA4_TAP_ATTN_V_NORM},
               .values = {context, v},
               .replaced = GEMMA4_TAP_ATTN_PROBS,
               .replace = replace_by_own_key};
    run_watch(&w, SCHEDULES[3].chunks);
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < 64; i++)
            ck_assert(context[t * 64 + i] == v[t * 32 + i / 32 * 16 + i % 16]);
}
END_TEST

/* On full layers V is the k_proj output as the hook left it, before k_norm. */
START_TEST(on_full_layers_v_is_the_raw_k)
{
    static gemma4_real v[T * 32];
    watch w = {.layer = 5,
               .taps = {GEMMA4_TAP_ATTN_V},
               .values = {v},
               .replaced = GEMMA4_TAP_ATTN_K,
               .replace = replace_by_ramp};
    run_watch(&w, WHOLE);
    for (size_t i = 0; i < T * 32; i++)
        ck_assert(v[i] == ramp_at(i));
}
END_TEST

START_TEST(the_experts_are_those_that_the_hook_left)
{
    static gemma4_real weights[T * K], probs[T * EXPERTS];
    static const size_t chosen[K] = {15, 0, 7, 3};
    watch w = {.layer = 1,
               .taps = {GEMMA4_TAP_ROUTER_TOPK_WEIGHTS, GEMMA4_TAP_ROUTER_PROBS},
               .values = {weights, probs},
               .replaced = GEMMA4_TAP_ROUTER_TOPK_IDS,
               .replace = replace_ids};
    run_watch(&w, WHOLE);
    for (size_t t = 0; t < T; t++) {
        double sum = 0;
        for (size_t r = 0; r < K; r++)
            sum += (double)probs[t * EXPERTS + chosen[r]];
        for (size_t r = 0; r < K; r++) {
            double scale =
                (double)gemma4_weight_at(&model->layers[1].router_per_expert_scale, chosen[r]);
            double expected = (double)probs[t * EXPERTS + chosen[r]] / sum * scale;
            ck_assert_double_eq_tol((double)weights[t * K + r], expected, 1e-6 * expected);
        }
    }
}
END_TEST

static void weigh_second_only(gemma4_tap_event *event)
{
    for (size_t i = 0; i < event->rows * K; i++)
        event->values[i] = i % K == 1 ? 2 : 0;
}

/* Chooses experts 15, 0, 7, 3 and gives all the weight to the second. */
static int choose_and_weigh(void *context, gemma4_tap_event *event, gemma4_error *error)
{
    if (event->layer == 4 && event->tap == GEMMA4_TAP_ROUTER_TOPK_IDS)
        replace_ids(event);
    if (event->layer == 4 && event->tap == GEMMA4_TAP_ROUTER_TOPK_WEIGHTS)
        weigh_second_only(event);
    return watch_event(context, event, error);
}

START_TEST(moe_out_is_the_chosen_expert_s_output_times_its_weight)
{
    enum { M = 32 };
    static gemma4_real act[T * K * M], out[T * D_MODEL];
    watch w = {.layer = 4,
               .taps = {GEMMA4_TAP_MOE_ACT, GEMMA4_TAP_MOE_OUT},
               .values = {act, out},
               .replaced = GEMMA4_TAP_COUNT};
    run_whole(0, choose_and_weigh, &w);
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < D_MODEL; i++) {
            double sum = 0; /* expert 0's rows are the first D_MODEL of the stack */
            for (size_t m = 0; m < M; m++)
                sum += (double)act[(t * K + 1) * M + m] *
                       (double)gemma4_weight_at(&model->layers[4].experts_down_proj, i * M + m);
            ck_assert_double_eq_tol((double)out[t * D_MODEL + i], 2 * sum, 1e-6 * (1 + fabs(sum)));
        }
}
END_TEST

START_TEST(logits_are_the_soft_cap_of_what_the_hook_left)
{
    static gemma4_real logits[T * V];
    watch w = {.layer = 0,
               .taps = {GEMMA4_TAP_LOGITS},
               .values = {logits},
               .replaced = GEMMA4_TAP_LOGITS_RAW,
               .replace = replace_by_ones};
    run_watch(&w, WHOLE);
    for (size_t i = 0; i < T * V; i++)
        ck_assert_double_eq_tol((double)logits[i], 0.99962979416468592, 1e-7);
}
END_TEST

/* Without a soft-cap logits_raw exists all the same, and repeats logits. */
START_TEST(without_a_soft_cap_logits_are_the_raw_ones)
{
    static gemma4_real raw[T * V], logits[T * V];
    double cap = model->config.final_logit_softcapping;
    watch w = {.taps = {GEMMA4_TAP_LOGITS_RAW, GEMMA4_TAP_LOGITS},
               .values = {raw, logits},
               .replaced = GEMMA4_TAP_COUNT};
    model->config.final_logit_softcapping = 0;
    ck_assert(gemma4_tap_exists(&model->config, GEMMA4_TAP_LOGITS_RAW, 0));
    run_watch(&w, WHOLE);
    model->config.final_logit_softcapping = cap;
    ck_assert_mem_eq(raw, logits, sizeof raw);
    ck_assert(raw[0] != 0);
}
END_TEST

/* --- hooks that fail --- */

typedef struct failing {
    gemma4_tap tap;
    size_t layer, calls_after;
    bool failed;
} failing;

static int fail_at(void *context, gemma4_tap_event *event, gemma4_error *error)
{
    failing *f = context;
    f->calls_after += f->failed;
    if (f->failed || event->tap != f->tap || event->layer != f->layer)
        return 0;
    f->failed = true;
    return gemma4_fail(error, "the hook's own reason");
}

static const struct {
    gemma4_tap tap;
    size_t layer;
} FAIL_AT[] = {
    {GEMMA4_TAP_EMBED, 0},         {GEMMA4_TAP_ATTN_SCORES, 3}, {GEMMA4_TAP_ROUTER_TOPK_IDS, 11},
    {GEMMA4_TAP_LAYER_OUTPUT, 11}, {GEMMA4_TAP_FINAL_NORM, 0},  {GEMMA4_TAP_LOGITS, 0},
};

START_TEST(a_hook_that_fails_stops_the_pass)
{
    gemma4_error error = {""};
    failing f = {.tap = FAIL_AT[_i].tap, .layer = FAIL_AT[_i].layer};
    gemma4_session *session = new_session(0, T, fail_at, &f);
    ck_assert_int_eq(gemma4_forward(session, TOKENS, 20, 20, NULL, &error), -1);
    ck_assert_str_eq(error.message, "the hook's own reason");
    ck_assert(f.failed);
    ck_assert_uint_eq(f.calls_after, 0);
    /* and the session stays unusable */
    ck_assert_int_eq(gemma4_forward(session, TOKENS, 1, 1, NULL, &error), -1);
    ck_assert_uint_eq(f.calls_after, 0);
    gemma4_session_free(session);
}
END_TEST

/* --- the head --- */

START_TEST(logits_rows_are_those_of_the_chunk_s_end)
{
    static gemma4_real shown[T * V], returned[T * V];
    static const size_t rows[] = {1, 3, T};
    gemma4_error error = {""};
    watch w = {
        .layer = 0, .taps = {GEMMA4_TAP_LOGITS}, .values = {shown}, .replaced = GEMMA4_TAP_COUNT};
    run_watch(&w, WHOLE);
    gemma4_session *session = new_session(0, T, NULL, NULL);
    ck_assert_int_eq(gemma4_forward(session, TOKENS, T, rows[_i], returned, &error), 0);
    gemma4_session_free(session);
    ck_assert_mem_eq(returned, shown + (T - rows[_i]) * V, rows[_i] * V * sizeof *returned);
}
END_TEST

START_TEST(logits_are_returned_as_the_hook_left_them)
{
    static gemma4_real returned[V];
    gemma4_error error = {""};
    watch w = {.replaced = GEMMA4_TAP_LOGITS, .replace = replace_by_ones};
    gemma4_session *session = new_session(0, T, watch_event, &w);
    ck_assert_int_eq(gemma4_forward(session, TOKENS, T, 1, returned, &error), 0);
    gemma4_session_free(session);
    for (size_t i = 0; i < V; i++)
        ck_assert(returned[i] == 1);
}
END_TEST

START_TEST(no_logits_rows_means_no_head)
{
    gemma4_error error = {""};
    record *r = new_record();
    gemma4_session *session = new_session(0, T, record_event, r);
    ck_assert_int_eq(gemma4_forward(session, TOKENS, T, 0, NULL, &error), 0);
    gemma4_session_free(session);
    ck_assert_uint_ne(r->row[GEMMA4_TAP_LAYER_OUTPUT][LAYERS - 1][T - 1], 0);
    for (int tap = GEMMA4_TAP_FINAL_NORM; tap <= GEMMA4_TAP_LOGITS; tap++)
        for (size_t t = 0; t < T; t++)
            ck_assert_uint_eq(r->row[tap][0][t], 0);
    free(r);
}
END_TEST

/* --- refusals --- */

static const struct {
    int32_t token; /* in place of token 4 */
    size_t before, count, logits_rows;
    const char *message;
} CHUNKS[] = {
    {-1, 0, 8, 1, "token 4: expected an id below the vocabulary's 256, found -1"},
    {256, 0, 8, 1, "token 4: expected an id below the vocabulary's 256, found 256"},
    {INT32_MAX, 0, 8, 1, "found 2147483647"},
    {300, 5, 8, 1, "token 9: expected an id"}, /* counted from the session's first */
    {5, 0, 0, 0, "chunk: expected 1 to 20 tokens (0 of 20 positions are taken), found 0"},
    {5, 0, 21, 1, "found 21"},
    {5, 15, 6, 1, "chunk: expected 1 to 5 tokens (15 of 20 positions are taken), found 6"},
    {5, 0, SIZE_MAX, 1, "found 18446744073709551615"},
    {5, 0, 8, 9, "expected logits for at most its 8 positions, found 9"},
};

START_TEST(wrong_chunks_are_refused)
{
    gemma4_error error = {""};
    int32_t tokens[T];
    memcpy(tokens, TOKENS, sizeof tokens);
    tokens[4] = CHUNKS[_i].token;
    gemma4_session *session = new_session(0, 20, NULL, NULL);
    feed(session, TOKENS, CHUNKS[_i].before, NULL);
    ck_assert_int_eq(
        gemma4_forward(session, tokens, CHUNKS[_i].count, CHUNKS[_i].logits_rows, NULL, &error),
        -1);
    assert_message_contains(&error, CHUNKS[_i].message);
    gemma4_session_free(session);
}
END_TEST

static const struct {
    size_t first_position, capacity;
    bool allowed;
} RANGES[] = {
    {0, 1, true},         {262143, 1, true},    {262100, 44, true},          {0, 0, false},
    {262144, 1, false},   {262100, 45, false},  {0, 262145, false},          {1, 262144, false},
    {SIZE_MAX, 1, false}, {1, SIZE_MAX, false}, {SIZE_MAX, SIZE_MAX, false},
};

START_TEST(positions_end_at_the_model_s_last)
{
    gemma4_error error = {""};
    gemma4_session *session =
        gemma4_session_new(model, RANGES[_i].first_position, RANGES[_i].capacity, &error);
    ck_assert_msg((session != NULL) == RANGES[_i].allowed, "%s", error.message);
    if (session == NULL)
        assert_message_contains(&error, "positions: expected a range within 0 ... 262143");
    gemma4_session_free(session);
}
END_TEST

static TCase *with_model(Suite *suite, const char *name)
{
    TCase *c = tcase_create(name);
    tcase_add_unchecked_fixture(c, set_up, tear_down);
    tcase_set_timeout(c, 60);
    suite_add_tcase(suite, c);
    return c;
}

static void add_hook_tests(TCase *c)
{
    tcase_add_test(c, output_is_the_residual_times_layer_scalar);
    tcase_add_test(c, layer_0_reads_the_embedding_that_the_hook_left);
    tcase_add_loop_test(c, context_averages_the_values_that_the_hook_left, 0, 2);
    tcase_add_test(c, zero_scores_give_equal_probabilities);
    tcase_add_test(c, all_probability_on_one_key_gives_its_value);
    tcase_add_test(c, on_full_layers_v_is_the_raw_k);
    tcase_add_test(c, the_experts_are_those_that_the_hook_left);
    tcase_add_test(c, moe_out_is_the_chosen_expert_s_output_times_its_weight);
    tcase_add_test(c, logits_are_the_soft_cap_of_what_the_hook_left);
    tcase_add_test(c, without_a_soft_cap_logits_are_the_raw_ones);
    tcase_add_loop_test(c, a_hook_that_fails_stops_the_pass, 0, COUNT(FAIL_AT));
}

Suite *forward_suite(void)
{
    Suite *suite = suite_create("forward");
    TCase *chunks = with_model(suite, "chunks"), *keys = with_model(suite, "keys");
    tcase_add_loop_test(chunks, chunks_give_the_bits_of_the_whole_prefill, 0, COUNT(SCHEDULES));
    tcase_add_loop_test(chunks, chunks_give_the_same_bits_far_out_too, 0, 5);
    tcase_add_loop_test(chunks, capacity_changes_nothing, 0, 5);
    tcase_add_test(chunks, the_position_matters);
    tcase_add_test(chunks, every_tap_that_exists_is_shown);
    tcase_add_loop_test(keys, a_query_sees_itself_and_what_the_window_reaches, 0, COUNT(VISIBLE));
    tcase_add_test(keys, the_other_keys_are_masked);
    tcase_add_loop_test(keys, queries_see_the_window_or_everything_before, 0, COUNT(SCHEDULES));
    tcase_add_loop_test(keys, a_later_token_changes_no_earlier_position, 0, 5);
    tcase_add_test(keys, the_window_ends_exactly);
    add_hook_tests(with_model(suite, "hooks"));
    TCase *head = with_model(suite, "head"), *refusals = with_model(suite, "refusals");
    tcase_add_loop_test(head, logits_rows_are_those_of_the_chunk_s_end, 0, 3);
    tcase_add_test(head, logits_are_returned_as_the_hook_left_them);
    tcase_add_test(head, no_logits_rows_means_no_head);
    tcase_add_loop_test(refusals, wrong_chunks_are_refused, 0, COUNT(CHUNKS));
    tcase_add_loop_test(refusals, positions_end_at_the_model_s_last, 0, COUNT(RANGES));
    return suite;
}
