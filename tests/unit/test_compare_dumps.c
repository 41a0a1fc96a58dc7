/* `gemma4-check compare` (tests/check/compare_dumps.h): two dumps, tap by tap. */
#include "../../golden/engines/gemma4_dump.h"

#include "compare_dumps.h"
#include "engines.h"
#include "schema.h"
#include "suites.h"
#include "support.h"

#include <fcntl.h>
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

enum { T = 7, D = 12, H = 3, K = 2, M = 5, V = 32, N = 3 }; /* of test_small_config */

/* A dump that a test may change before it is written. */
typedef struct values {
    int tokens[T], first_position;
    float embed[T][D], scores[T][H][T], probs[T][H][T], weights[T][K], act[T][K][M], logits[T][V],
        logprobs[T][N];
    int topk[T][K], listed[T][N];
} values;

/* What is written of it, and which taps are left out. */
typedef struct written {
    size_t embed_width;     /* 0: D */
    const int *logits_rows; /* the positions that have logits; NULL: all */
    size_t logits_rows_count;
    const char *but; /* a tap that is left out; NULL: none */
} written;

static gemma4_config config; /* test_small_config, whose layer 0 sees three keys */

static void set_up(void)
{
    config = test_small_config;
    config.sliding_window = 3;
}

/* Numbers of both signs that float32 holds, no two alike in a row. */
static void fill(float *to, size_t n, int seed)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (float)((int)((i * 37 + (size_t)seed * 11) % 101) - 50) / 8;
}

static values usual(void)
{
    values v = {.first_position = 5};
    for (int t = 0; t < T; t++) {
        v.tokens[t] = (t * 5 + 2) % V;
        for (int k = 0; k < K; k++)
            v.topk[t][k] = (t + 3 * k) % 6;
        for (int n = 0; n < N; n++)
            v.listed[t][n] = (7 * t + 10 * n) % V;
    }
    fill(v.embed[0], T * D, 1);
    fill(v.scores[0][0], T * H * T, 2);
    fill(v.probs[0][0], T * H * T, 3);
    fill(v.weights[0], T * K, 4);
    fill(v.act[0][0], T * K * M, 5);
    fill(v.logits[0], T * V, 6);
    fill(v.logprobs[0], T * N, 7);
    return v;
}

static void add(gemma4_dump *dump, const written *w, const char *name, gemma4_dump_type type,
                size_t rows, size_t width, const void *data)
{
    if (!w->but || strcmp(w->but, name))
        ck_assert_int_eq(gemma4_dump_add(dump, name, type, rows, width, data), 0);
}

static char *write_as(const values *v, written w)
{
    char *path = test_join(test_fresh_dir(), "dump.safetensors");
    gemma4_dump *dump = gemma4_dump_new(path, "mine", "0.1", "float32");
    int positions[T];
    for (int t = 0; t < T; t++)
        positions[t] = v->first_position + t;
    ck_assert_ptr_nonnull(dump);
    add(dump, &w, "tokens", GEMMA4_DUMP_I32, T, 1, v->tokens);
    add(dump, &w, "positions", GEMMA4_DUMP_I32, T, 1, positions);
    add(dump, &w, "embed", GEMMA4_DUMP_F32, T, w.embed_width ? w.embed_width : D, v->embed);
    add(dump, &w, "layers.0.attn.scores", GEMMA4_DUMP_F32, T, H * T, v->scores);
    add(dump, &w, "layers.0.attn.probs", GEMMA4_DUMP_F32, T, H * T, v->probs);
    add(dump, &w, "layers.0.router.topk_ids", GEMMA4_DUMP_I32, T, K, v->topk);
    add(dump, &w, "layers.0.router.topk_weights", GEMMA4_DUMP_F32, T, K, v->weights);
    add(dump, &w, "layers.0.moe.act", GEMMA4_DUMP_F32, T, K * M, v->act);
    add(dump, &w, "logits", GEMMA4_DUMP_F32, w.logits_rows ? w.logits_rows_count : T, V, v->logits);
    if (w.logits_rows)
        ck_assert_int_eq(gemma4_dump_rows(dump, "logits", w.logits_rows, w.logits_rows_count), 0);
    add(dump, &w, "logprobs.ids", GEMMA4_DUMP_I32, T, N, v->listed);
    add(dump, &w, "logprobs.values", GEMMA4_DUMP_F32, T, N, v->logprobs);
    ck_assert_msg(gemma4_dump_write(dump) == 0, "%s", gemma4_dump_error(dump));
    gemma4_dump_free(dump);
    return path;
}

static char *write_values(const values *v)
{
    return write_as(v, (written){0});
}

/* --- comparing --- */

typedef struct compared {
    gemma4_dumps_compared c;
    int status;
    gemma4_error error;
} compared;

typedef struct how {
    const gemma4_config *config;
    double tolerance;
    size_t slice; /* bytes; 0: as the command */
} how;

static compared compare_files(const char *a, const char *b, how h)
{
    compared r = {.c = {.path_a = a,
                        .path_b = b,
                        .config = h.config,
                        .tolerance = h.tolerance,
                        .slice_bytes = h.slice ? h.slice : GEMMA4_COMPARE_SLICE}};
    r.c.a = gemma4_activations_open(a, h.config, &r.error);
    ck_assert_msg(r.c.a != NULL, "%s", r.error.message);
    r.c.b = gemma4_activations_open(b, h.config, &r.error);
    ck_assert_msg(r.c.b != NULL, "%s", r.error.message);
    r.status = gemma4_compare_dumps(&r.c, &r.error);
    return r;
}

static compared compare_values(const values *a, const values *b, how h)
{
    compared r = compare_files(write_values(a), write_values(b), h);
    ck_assert_msg(r.status == 0, "%s", r.error.message);
    return r;
}

static void close_both(compared *r)
{
    free(r->c.taps);
    gemma4_activations_close(r->c.a);
    gemma4_activations_close(r->c.b);
}

static const gemma4_tap_difference *find(const compared *r, gemma4_tap tap)
{
    for (size_t i = 0; i < r->c.count; i++)
        if (r->c.taps[i].tap == tap)
            return &r->c.taps[i];
    ck_abort_msg("%s is not there", gemma4_tap_describe(tap)->name);
    return NULL;
}

/* That this tap differs, and no other. */
static const gemma4_tap_difference *only(const compared *r, gemma4_tap tap)
{
    ck_assert_msg(r->c.differing == 1 && r->c.first == find(r, tap), "%zu differ, the first is %s",
                  r->c.differing, r->c.first ? gemma4_tap_describe(r->c.first->tap)->name : "none");
    return r->c.first;
}

/* Rows of a slice: some of one tap, all of it, one row. */
static const size_t SLICES[] = {0, 3 * D * sizeof(float), 1};

START_TEST(dumps_of_the_same_values_are_the_same)
{
    values a = usual(), b = a;
    a.logits[3][4] = b.logits[3][4] = NAN;
    a.logits[6][31] = b.logits[6][31] = -INFINITY;
    a.embed[2][2] = 0;
    b.embed[2][2] = -0.0f;
    compared r = compare_values(&a, &b, (how){.config = &config, .slice = SLICES[_i]});
    ck_assert(r.c.count == 9 && r.c.compared == 9 && r.c.differing == 0 && !r.c.first);
    for (size_t i = 0; i < r.c.count; i++) {
        const gemma4_tap_difference *tap = &r.c.taps[i];
        ck_assert(tap->compared && !tap->differs && tap->positions == T && !*tap->note);
        ck_assert(tap->metrics.relative_rms == 0 && tap->metrics.position_rms == 0);
        ck_assert(tap->nonfinite == 0 && tap->other_sets == 0 &&
                  (gemma4_tap_describe(tap->tap)->ids || tap->worst == 0));
    }
    close_both(&r);
}
END_TEST

/* Two values, one of them the very last, with errors that follow from spec/cases.md by hand. */
START_TEST(a_late_difference_is_measured_and_placed)
{
    values a = usual(), b = a;
    double diff[T] = {0}, expected[T] = {0}, all = 0, all_expected = 0, worst = -1;
    b.logits[2][9] += 0.25f;
    b.logits[T - 1][V - 1] -= 2;
    compared r = compare_values(&a, &b, (how){.slice = SLICES[_i]});
    const gemma4_tap_difference *tap = only(&r, GEMMA4_TAP_LOGITS);
    for (int t = 0; t < T; t++)
        for (int i = 0; i < V; i++) {
            diff[t] += pow((double)b.logits[t][i] - (double)a.logits[t][i], 2);
            expected[t] += pow((double)a.logits[t][i], 2);
        }
    for (int t = 0; t < T; t++) {
        all += diff[t];
        all_expected += expected[t];
    }
    for (int t = 0; t < T; t++)
        worst = fmax(worst, sqrt(diff[t] / fmax(expected[t], all_expected / T)));
    ck_assert_double_eq_tol(tap->metrics.relative_rms, sqrt(all / all_expected), 1e-14);
    ck_assert_double_eq_tol(tap->metrics.position_rms, worst, 1e-14);
    ck_assert_uint_eq(tap->metrics.position, T - 1);
    ck_assert(tap->worst == 2 && tap->worst_position == T - 1 && tap->worst_index == V - 1);
    ck_assert(tap->worst_a == a.logits[T - 1][V - 1] && tap->worst_b == tap->worst_a - 2);
    close_both(&r);
}
END_TEST

/* norm(a) is 5 and the difference 1.25, at one position of one value. */
START_TEST(an_error_of_the_tolerance_is_within_it)
{
    values a = usual(), b;
    memset(a.embed, 0, sizeof a.embed);
    a.embed[1][0] = 3;
    a.embed[1][1] = 4;
    b = a;
    b.embed[1][7] = 1.25f;
    static const struct {
        double tolerance;
        bool differs;
    } tried[] = {{0, true}, {0.25 - 1e-16, true}, {0.25, false}, {0.3, false}};
    for (size_t i = 0; i < COUNT(tried); i++) {
        compared r = compare_values(&a, &b, (how){.tolerance = tried[i].tolerance});
        const gemma4_tap_difference *tap = find(&r, GEMMA4_TAP_EMBED);
        ck_assert_double_eq(tap->metrics.relative_rms, 0.25);
        ck_assert_double_eq(tap->metrics.position_rms, 0.25);
        ck_assert_msg(tap->differs == tried[i].differs && (r.c.first == tap) == tap->differs, "%g",
                      tried[i].tolerance);
        close_both(&r);
    }
}
END_TEST

/* Small over the whole tensor, not at its position. */
START_TEST(one_bad_position_is_beyond_a_tolerance_that_the_whole_is_within)
{
    values a = usual(), b = a;
    for (int i = 0; i < D; i++)
        b.embed[4][i] *= 1.5f;
    compared r = compare_values(&a, &b, (how){.tolerance = 0.3});
    const gemma4_tap_difference *tap = only(&r, GEMMA4_TAP_EMBED);
    ck_assert(tap->metrics.relative_rms < 0.3 && tap->metrics.position_rms > 0.3);
    close_both(&r);
}
END_TEST

START_TEST(where_a_is_zero_any_other_value_is_infinitely_far)
{
    values a = usual(), b;
    memset(a.embed, 0, sizeof a.embed);
    b = a;
    b.embed[0][0] = 1e-30f;
    compared r = compare_values(&a, &b, (how){.tolerance = 1e6});
    ck_assert(isinf(only(&r, GEMMA4_TAP_EMBED)->metrics.relative_rms));
    close_both(&r);
}
END_TEST

/* What is NaN or infinite in one, and something else in the other. */
START_TEST(values_that_are_no_numbers_differ_whatever_the_tolerance)
{
    static const float pairs[][2] = {
        {NAN, 1}, {1, NAN}, {INFINITY, 1}, {1, -INFINITY}, {INFINITY, -INFINITY}, {NAN, INFINITY}};
    values a = usual(), b = a;
    a.logits[5][8] = pairs[_i][0];
    b.logits[5][8] = pairs[_i][1];
    b.logits[6][0] = b.logits[6][1] = NAN;
    compared r = compare_values(&a, &b, (how){.tolerance = 1e9});
    const gemma4_tap_difference *tap = only(&r, GEMMA4_TAP_LOGITS);
    ck_assert(tap->nonfinite == 3 && tap->nonfinite_position == 5 && tap->nonfinite_index == 8);
    ck_assert(tap->worst == 0 && tap->metrics.relative_rms == 0);
    close_both(&r);
}
END_TEST

static void swap_slots(values *v, int t)
{
    values old = *v;
    for (int k = 0; k < K; k++) {
        v->topk[t][k] = old.topk[t][K - 1 - k];
        v->weights[t][k] = old.weights[t][K - 1 - k];
        memcpy(v->act[t][k], old.act[t][K - 1 - k], sizeof v->act[t][k]);
    }
    for (int n = 0; n < N; n++) {
        v->listed[t][n] = old.listed[t][N - 1 - n];
        v->logprobs[t][n] = old.logprobs[t][N - 1 - n];
    }
}

START_TEST(slots_are_compared_with_those_of_the_same_expert)
{
    values a = usual(), b = a;
    swap_slots(&b, 2);
    swap_slots(&b, T - 1);
    compared r = compare_values(&a, &b, (how){.slice = SLICES[_i]});
    ck_assert(r.c.differing == 0 && find(&r, GEMMA4_TAP_LOGPROBS)->compared);
    close_both(&r);
    b.act[T - 1][1][2] += 1; /* a's slot 0 */
    r = compare_values(&a, &b, (how){.slice = SLICES[_i]});
    const gemma4_tap_difference *act = only(&r, GEMMA4_TAP_MOE_ACT);
    ck_assert(act->worst == 1 && act->worst_position == T - 1 && act->worst_index == 2);
    ck_assert(act->worst_a == a.act[T - 1][0][2]);
    close_both(&r);
}
END_TEST

/* One of the two experts is another one at two positions: its slot is compared with nothing. At a
 * third both are: that position is compared with nothing at all. */
START_TEST(positions_with_other_sets_are_counted)
{
    values a = usual(), b = a;
    b.topk[3][1] = (a.topk[3][1] + 1) % 6;
    b.topk[4][0] = (a.topk[4][0] + 1) % 6;
    b.weights[3][1] = b.act[3][1][0] = b.weights[4][0] = b.act[4][0][4] = 99;
    b.topk[5][0] = (a.topk[5][0] + 1) % 6;
    b.topk[5][1] = (a.topk[5][1] + 1) % 6;
    b.weights[5][0] = b.act[5][1][4] = 99;
    compared r = compare_values(&a, &b, (how){.tolerance = 1, .slice = SLICES[_i]});
    const gemma4_tap_difference *ids = only(&r, GEMMA4_TAP_ROUTER_TOPK_IDS);
    ck_assert(ids->other_sets == 3 && ids->other_sets_position == 3 && ids->positions == T);
    ck_assert(find(&r, GEMMA4_TAP_MOE_ACT)->positions == T - 1);
    ck_assert(find(&r, GEMMA4_TAP_ROUTER_TOPK_WEIGHTS)->metrics.relative_rms == 0);
    close_both(&r);
}
END_TEST

START_TEST(slots_without_ids_of_both_are_not_compared)
{
    values a = usual(), b = a;
    b.weights[0][0] += 1;
    compared r = compare_files(
        write_values(&a), write_as(&b, (written){.but = "layers.0.router.topk_ids"}), (how){0});
    const gemma4_tap_difference *weights = find(&r, GEMMA4_TAP_ROUTER_TOPK_WEIGHTS);
    ck_assert(r.status == 0 && !r.c.first && !weights->compared && !weights->differs);
    ck_assert_str_eq(weights->note, "not compared: its order is that of layers.0.router.topk_ids, "
                                    "as both hold it");
    close_both(&r);
}
END_TEST

/* Position 4 of layer 0 sees keys 2 ... 4. */
START_TEST(masked_scores_count_for_nothing)
{
    values a = usual(), b = a;
    b.scores[4][1][1] = NAN;
    b.scores[4][1][5] = 1e30f;
    compared r = compare_values(&a, &b, (how){.config = &config, .slice = SLICES[_i]});
    ck_assert(find(&r, GEMMA4_TAP_ATTN_SCORES)->compared && !r.c.first);
    close_both(&r);
    b.scores[4][2][2] += 1;
    r = compare_values(&a, &b, (how){.config = &config, .slice = SLICES[_i]});
    const gemma4_tap_difference *scores = only(&r, GEMMA4_TAP_ATTN_SCORES);
    ck_assert(scores->worst_position == 4 && scores->worst_index == 2 * T + 2);
    close_both(&r);
    r = compare_values(&a, &b, (how){.config = NULL});
    scores = find(&r, GEMMA4_TAP_ATTN_SCORES);
    ck_assert(!scores->compared && !scores->differs && !r.c.first);
    ck_assert_ptr_nonnull(strstr(scores->note, "--model"));
    close_both(&r);
    a = usual(); /* a masked probability is 0 and counts */
    b = a;
    b.probs[0][0][T - 1] += 1;
    r = compare_values(&a, &b, (how){.config = &config});
    only(&r, GEMMA4_TAP_ATTN_PROBS);
    close_both(&r);
}
END_TEST

START_TEST(only_positions_of_both_are_compared)
{
    static const int rows[] = {6, 2, 4};
    values a = usual(), b = a;
    for (size_t i = 0; i < COUNT(rows); i++)
        memcpy(b.logits[i], a.logits[rows[i]], sizeof b.logits[i]);
    b.logits[2][5] += 1; /* position 4 */
    char *whole = write_values(&a),
         *some = write_as(&b, (written){.logits_rows = rows, .logits_rows_count = COUNT(rows)});
    compared r = compare_files(whole, some, (how){.slice = SLICES[_i]});
    const gemma4_tap_difference *logits = only(&r, GEMMA4_TAP_LOGITS);
    ck_assert(logits->positions == 3 && logits->worst_position == 4 && logits->worst_index == 5);
    close_both(&r);
}
END_TEST

START_TEST(a_tap_of_another_form_differs)
{
    values a = usual();
    compared r =
        compare_files(write_values(&a), write_as(&a, (written){.embed_width = D - 2}), (how){0});
    ck_assert_int_eq(r.status, 0);
    const gemma4_tap_difference *embed = only(&r, GEMMA4_TAP_EMBED);
    ck_assert_str_eq(embed->note, "A is float32 [7, 12], B is float32 [7, 10]");
    close_both(&r);
    r = compare_files(write_values(&a), write_as(&a, (written){.embed_width = D - 2}),
                      (how){.config = &config});
    embed = only(&r, GEMMA4_TAP_EMBED);
    ck_assert_str_eq(embed->note, "A is float32 [7, 12], B is float32 [7, 10]: expected [7, 12], "
                                  "found [7, 10]");
    close_both(&r);
}
END_TEST

/* --- what cannot be compared --- */

static void other_token(values *v)
{
    v->tokens[6]++;
}
static void other_positions(values *v)
{
    v->first_position++;
}
static void as_it_is(values *v)
{
    (void)v;
}

static const struct {
    void (*change)(values *v);
    written written;
    const char *message;
} INCOMPARABLE[] = {
    {other_token, {0}, ": tokens: entry 6: expected 0 as in "},
    {other_positions, {0}, ": positions: entry 0: expected 5 as in "},
    {as_it_is, {.but = "positions"}, ": positions: entry 0: expected 5 as in "},
};

START_TEST(other_tokens_are_not_compared)
{
    values a = usual(), b = a;
    INCOMPARABLE[_i].change(&b);
    compared r = compare_files(write_values(&a), write_as(&b, INCOMPARABLE[_i].written), (how){0});
    ck_assert_int_eq(r.status, -1);
    assert_message_contains(&r.error, INCOMPARABLE[_i].message);
    close_both(&r);
}
END_TEST

/* A dump of T tokens with one tap of that many values a position, a hole in the file. */
static char *write_hole(const char *tap, size_t tokens, size_t width)
{
    char *path = test_join(test_fresh_dir(), "hole.safetensors"), json[512];
    size_t end = 4 * tokens, bytes = end + 4 * tokens * width;
    int length =
        snprintf(json, sizeof json,
                 "{\"__metadata__\":{\"format\":\"gemma4-activations\",\"format_version\":\"1\"},"
                 "\"tokens\":{\"dtype\":\"I32\",\"shape\":[%zu],\"data_offsets\":[0,%zu]},"
                 "\"%s\":{\"dtype\":\"F32\",\"shape\":[%zu,%zu],\"data_offsets\":[%zu,%zu]}}",
                 tokens, end, tap, tokens, width, end, bytes);
    for (; length % 8; length++) /* spaces, as the format has it */
        strcpy(json + length, " ");
    const uint64_t size = (uint64_t)length;
    int file = open(path, O_WRONLY | O_CREAT, 0600);
    ck_assert(file >= 0 && write(file, &size, 8) == 8 && write(file, json, size) == length);
    ck_assert(ftruncate(file, 8 + length + (off_t)bytes) == 0 && close(file) == 0);
    return path;
}

static const struct {
    const char *tap_a, *tap_b;
    size_t tokens_b, width;
    const char *message;
} HOLES[] = {
    {"embed", "final_norm", 2, 4, "expected a tap that "},
    {"embed", "embed", 3, 4, "tokens: expected 2 as in "},
    {"layers.3.attn.scores", "layers.3.attn.scores", 2, 4, "expected a tap that can be compared"},
    {"layers.3.moe.act", "layers.3.moe.act", 2, 4, "its order is that of layers.3.router.topk_ids"},
    {"embed", "embed", 2, ((size_t)1 << 26) + 1,
     "embed: expected at most 67108864 values a position, found 67108865"},
};

START_TEST(where_there_is_nothing_to_compare_one_line_says_it)
{
    compared r =
        compare_files(write_hole(HOLES[_i].tap_a, 2, HOLES[_i].width),
                      write_hole(HOLES[_i].tap_b, HOLES[_i].tokens_b, HOLES[_i].width), (how){0});
    ck_assert_int_eq(r.status, -1);
    assert_message_contains(&r.error, HOLES[_i].message);
    close_both(&r);
}
END_TEST

/* A wide position, in slices that are smaller than it. */
START_TEST(a_position_may_be_larger_than_a_slice)
{
    char *hole = write_hole("logits", 2, 1 << 20);
    compared r = compare_files(hole, hole, (how){.slice = 1 << 16});
    ck_assert(r.status == 0 && !r.c.first && find(&r, GEMMA4_TAP_LOGITS)->positions == 2);
    close_both(&r);
}
END_TEST

/* --- HDF5 --- */

/* What the HDF5 dump holds, in safetensors form. */
static char *rewrite(const char *path)
{
    gemma4_error error = {""};
    gemma4_activations *file = gemma4_activations_open(path, NULL, &error);
    ck_assert_msg(file != NULL, "%s", error.message);
    char *to = test_join(test_fresh_dir(), "again.safetensors"), name[GEMMA4_TAP_NAME_SIZE];
    gemma4_dump *dump = gemma4_dump_new(to, "mine", "0.1", "float32");
    const int32_t *tokens, *positions;
    size_t count = gemma4_activations_positions(file, &tokens, &positions);
    gemma4_dump_add(dump, "tokens", GEMMA4_DUMP_I32, count, 1, tokens);
    gemma4_dump_add(dump, "positions", GEMMA4_DUMP_I32, count, 1, positions);
    for (size_t i = 0; i < gemma4_activations_count(file); i++) {
        const gemma4_activation *a = gemma4_activations_at(file, i);
        float *data = malloc(a->rows * a->width * sizeof *data);
        bool ids = gemma4_tap_describe(a->tap)->ids;
        ck_assert(data &&
                  (ids ? gemma4_activations_read_ids(file, a, 0, a->rows, (int32_t *)data, &error)
                       : gemma4_activations_read(file, a, 0, a->rows, data, &error)) == 0);
        gemma4_dump_add(dump, gemma4_tap_name(a->tap, a->layer, name),
                        ids ? GEMMA4_DUMP_I32 : GEMMA4_DUMP_F32, a->rows, a->width, data);
        free(data);
    }
    ck_assert_msg(gemma4_dump_write(dump) == 0, "%s", gemma4_dump_error(dump));
    gemma4_dump_free(dump);
    gemma4_activations_close(file);
    return to;
}

START_TEST(hdf5_and_safetensors_of_the_same_values_are_the_same)
{
    const test_engine engine = {.model = test_golden_model(), .T = 40, .tier = "float32"};
    char *dump = test_engine_dump(&engine), *again = rewrite(dump);
    const gemma4_config *const configs[] = {NULL, &test_golden_model()->config};
    for (size_t i = 0; i < COUNT(configs); i++) {
        compared r = compare_files(dump, again, (how){.config = configs[i], .slice = 1 << 14});
        ck_assert_msg(r.status == 0 && !r.c.first, "%s", r.error.message);
        ck_assert(r.c.count > 300 && (r.c.compared == r.c.count) == (i == 1));
        close_both(&r);
    }
}
END_TEST

/* A chunk that does not unpack, in the one file or the other. */
START_TEST(a_damaged_chunk_is_one_line)
{
    const test_engine engine = {.model = test_golden_model(), .T = 4, .tier = "float32"};
    char *good = test_engine_dump(&engine), *bad = test_engine_dump(&engine);
    const hsize_t offset[2] = {0};
    hid_t file = H5Fopen(bad, H5F_ACC_RDWR, H5P_DEFAULT),
          dataset = H5Dopen2(file, "layers/3/mlp/norm", H5P_DEFAULT);
    ck_assert(H5Dwrite_chunk(dataset, H5P_DEFAULT, 0, offset, 8, "no chunk") >= 0);
    H5Dclose(dataset);
    ck_assert(H5Fclose(file) >= 0);
    compared r = _i ? compare_files(good, bad, (how){0}) : compare_files(bad, good, (how){0});
    ck_assert_int_eq(r.status, -1);
    assert_message_contains(&r.error, "layers.3.mlp.norm: cannot read rows 0 ... 3");
    ck_assert(!strncmp(r.error.message, bad, strlen(bad)));
    close_both(&r);
}
END_TEST

/* --- what is said --- */

static char *printed(void (*write)(FILE *, const gemma4_dumps_compared *),
                     const gemma4_dumps_compared *c)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    ck_assert_ptr_nonnull(f);
    write(f, c);
    ck_assert_int_eq(fclose(f), 0);
    return text;
}

static const char *violation_of(const char *text)
{
    gemma4_error error = {""};
    gemma4_document *report = gemma4_document_parse("report", text, strlen(text), &error),
                    *schema = gemma4_document_read("spec/report.schema.json", &error);
    ck_assert_msg(report && schema, "%s: %s", error.message, text);
    const char *violation =
        test_schema_violation(gemma4_document_root(schema), gemma4_document_root(report));
    gemma4_document_free(report);
    gemma4_document_free(schema);
    return violation;
}

START_TEST(the_text_and_the_json_say_all_of_it)
{
    static const int rows[] = {0, 3, 6};
    values a = usual(), b = a;
    b.embed[2][1] += 0.5f;
    b.topk[1][0] = (a.topk[1][0] + 1) % 6;
    for (size_t i = 0; i < COUNT(rows); i++)
        memcpy(b.logits[i], a.logits[rows[i]], sizeof b.logits[i]);
    b.logits[1][2] = NAN;
    compared r = compare_files(write_as(&a, (written){.but = "layers.0.attn.probs"}),
                               write_as(&b, (written){.but = "layers.0.moe.act",
                                                      .logits_rows = rows,
                                                      .logits_rows_count = COUNT(rows)}),
                               (how){.tolerance = 1e-6});
    ck_assert_msg(r.status == 0, "%s", r.error.message);
    static const char *const in_text[] = {
        "A          /",
        "mine 0.1, float32\n",
        "tokens     7, the first at 5\n",
        "\n* embed ",
        " 5.000e-01 at 2, 1: ",
        "\n  layers.0.attn.scores           not compared: ",
        "\n* layers.0.router.topk_ids       other sets at 1 of 7 positions, the first at 1\n",
        "\n* logits                         1 NaN or infinite in one only, the first at position "
        "3, index 2; the others equal  (3 of 7 positions)\n",
        "\n  logprobs.ids                   equal sets\n",
        "\n  logprobs.values                equal\n",
        "\nonly in A   layers.0.moe.act\n",
        "\nonly in B   layers.0.attn.probs\n",
        "\nDIFFERENT: 3 of the 7 taps that both hold, the first is embed (tolerance 1e-06)\n"};
    char *text = printed(gemma4_compare_text, &r.c), *json = printed(gemma4_compare_json, &r.c);
    for (size_t i = 0; i < COUNT(in_text); i++)
        ck_assert_msg(strstr(text, in_text[i]) != NULL, "\"%s\" is not in:\n%s", in_text[i], text);
    static const char *const in_json[] = {
        "\"verdict\": \"DIFFERENT\"",
        "\"tolerance\": 1e-06",
        "\"first_difference\": \"embed\"",
        "\"only_in_a\": [\"layers.0.moe.act\"]",
        "\"only_in_b\": [\"layers.0.attn.probs\"]",
        "{\"tap\": \"embed\", \"differs\": true, \"positions\": 7, \"relative_rms\": ",
        "\"position\": 2, \"nonfinite\": 0, \"worst\": [2, 1, ",
        "{\"tap\": \"layers.0.router.topk_ids\", \"differs\": true, \"positions\": 7, "
        "\"other_sets\": 1}",
        "{\"tap\": \"layers.0.attn.scores\", \"differs\": false, \"positions\": 0, \"note\": "};
    for (size_t i = 0; i < COUNT(in_json); i++)
        ck_assert_msg(strstr(json, in_json[i]) != NULL, "\"%s\" is not in:\n%s", in_json[i], json);
    ck_assert_str_eq(violation_of(json), "");
    free(text);
    free(json);
    close_both(&r);
}
END_TEST

Suite *compare_dumps_suite(void)
{
    Suite *suite = suite_create("compare_dumps");
    TCase *c = tcase_create("dumps");
    tcase_add_unchecked_fixture(c, set_up, NULL);
    tcase_set_timeout(c, 60);
    suite_add_tcase(suite, c);
    tcase_add_loop_test(c, dumps_of_the_same_values_are_the_same, 0, COUNT(SLICES));
    tcase_add_loop_test(c, a_late_difference_is_measured_and_placed, 0, COUNT(SLICES));
    tcase_add_test(c, an_error_of_the_tolerance_is_within_it);
    tcase_add_test(c, one_bad_position_is_beyond_a_tolerance_that_the_whole_is_within);
    tcase_add_test(c, where_a_is_zero_any_other_value_is_infinitely_far);
    tcase_add_loop_test(c, values_that_are_no_numbers_differ_whatever_the_tolerance, 0, 6);
    tcase_add_loop_test(c, slots_are_compared_with_those_of_the_same_expert, 0, COUNT(SLICES));
    tcase_add_loop_test(c, positions_with_other_sets_are_counted, 0, COUNT(SLICES));
    tcase_add_test(c, slots_without_ids_of_both_are_not_compared);
    tcase_add_loop_test(c, masked_scores_count_for_nothing, 0, COUNT(SLICES));
    tcase_add_loop_test(c, only_positions_of_both_are_compared, 0, COUNT(SLICES));
    tcase_add_test(c, a_tap_of_another_form_differs);
    tcase_add_loop_test(c, other_tokens_are_not_compared, 0, COUNT(INCOMPARABLE));
    tcase_add_loop_test(c, where_there_is_nothing_to_compare_one_line_says_it, 0, COUNT(HOLES));
    tcase_add_test(c, a_position_may_be_larger_than_a_slice);
    tcase_add_test(c, hdf5_and_safetensors_of_the_same_values_are_the_same);
    tcase_add_loop_test(c, a_damaged_chunk_is_one_line, 0, 2);
    tcase_add_test(c, the_text_and_the_json_say_all_of_it);
    return suite;
}
