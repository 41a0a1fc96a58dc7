/* How twins are chosen and used by a session (ref/ops.h, ref/forward.h). Whether they compute the
 * right thing is gemma4-twins' business (tests/twins). */
#include "blocks.h"
#include "forward.h"
#include "ops.h"
#include "quantised.h"
#include "suites.h"
#include "support.h"
#include "synth.h"

#include <math.h>
#include <stdlib.h>

enum { T = 24, V = 256 };

static const unsigned SETS[] = {GEMMA4_CPU_AVX2, GEMMA4_CPU_AVX512, GEMMA4_CPU_NEON};
static const char *const NAMES[] = {"avx2", "avx512", "neon"};

START_TEST(no_mask_means_scalar)
{
    gemma4_ops ops = gemma4_ops_for(GEMMA4_CPU_SCALAR);
    ck_assert_str_eq(ops.name, "scalar");
    ck_assert(ops.matmul == gemma4_matmul && ops.experts_act == gemma4_experts_act &&
              ops.experts_out == gemma4_experts_out);
    ck_assert(ops.rmsnorm == gemma4_rmsnorm && ops.rope == gemma4_rope &&
              ops.geglu == gemma4_geglu && ops.softcap == gemma4_softcap);
    ck_assert(ops.attention == NULL);
}
END_TEST

/* Each rung of the ladder, on its own and with those below it. */
START_TEST(the_best_set_of_the_mask_wins)
{
    unsigned found = gemma4_cpu_detect();
    ck_assert_uint_eq(found & ~(unsigned)GEMMA4_CPU_ALL, 0);
    if (!(found & SETS[_i]))
        return;
    gemma4_ops ops =
        gemma4_ops_for((SETS[_i] == GEMMA4_CPU_AVX512 ? GEMMA4_CPU_AVX2 : 0) | SETS[_i]);
    ck_assert_str_eq(ops.name, NAMES[_i]);
    ck_assert(ops.attention != NULL && ops.matmul != gemma4_matmul &&
              ops.softcap != gemma4_softcap);
}
END_TEST

START_TEST(names_are_understood_where_the_machine_has_them)
{
    gemma4_error error;
    unsigned mask = 99, found = gemma4_cpu_detect();
    ck_assert_int_eq(gemma4_cpu_parse("scalar", "--cpu", &mask, &error), 0);
    ck_assert_uint_eq(mask, GEMMA4_CPU_SCALAR);
    ck_assert_int_eq(gemma4_cpu_parse("auto", "--cpu", &mask, &error), 0);
    ck_assert_uint_eq(mask, found);
    for (size_t i = 0; i < 3; i++) {
        int status = gemma4_cpu_parse(NAMES[i], "--cpu", &mask, &error);
        if (found & SETS[i])
            ck_assert(status == 0 && (mask & SETS[i]));
        else
            assert_message_contains(
                &error, "--cpu: expected an instruction set of this machine and build, found ");
        ck_assert_int_eq(status, found & SETS[i] ? 0 : -1);
    }
    ck_assert_int_eq(gemma4_cpu_parse("sse9", "GEMMA4_CPU", &mask, &error), -1);
    assert_message_contains(
        &error, "GEMMA4_CPU: expected scalar, avx2, avx512, neon or auto, found 'sse9'");
}
END_TEST

/* --- in a session --- */

static gemma4_model *model;

static void open_model(void)
{
    gemma4_error error = {""};
    const gemma4_synth_options options = {.preset = "tiny", .seed = 5, .shards = 1};
    char *directory = test_fresh_dir();
    ck_assert_msg(gemma4_synth(&options, directory, &error) == 0, "%s", error.message);
    model = gemma4_model_open(directory, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
}

static void close_model(void)
{
    gemma4_model_close(model);
}

typedef struct seen {
    size_t events, probs;
} seen;

static int count_taps(void *context, gemma4_tap_event *event, gemma4_error *error)
{
    seen *s = context;
    (void)error;
    s->events++;
    s->probs += event->tap == GEMMA4_TAP_ATTN_SCORES || event->tap == GEMMA4_TAP_ATTN_PROBS;
    return 0;
}

/* Logits of all positions, by chunks of `chunk` positions. */
static void run(float *logits, const gemma4_ops *ops, size_t chunk, gemma4_tap_hook hook, seen *s,
                bool show_probs)
{
    gemma4_error error = {""};
    int32_t tokens[T];
    gemma4_session *session = gemma4_session_new(model, 0, T, &error);
    ck_assert_msg(session != NULL, "%s", error.message);
    for (size_t t = 0; t < T; t++)
        tokens[t] = (int32_t)(t * 37 % V);
    gemma4_session_set_ops(session, ops);
    gemma4_session_set_hook(session, hook, s);
    gemma4_session_show_probs(session, show_probs);
    for (size_t first = 0; first < T; first += chunk)
        ck_assert_msg(
            gemma4_forward(session, tokens + first, chunk, chunk, logits + first * V, &error) == 0,
            "%s", error.message);
    gemma4_session_free(session);
}

static double relative_rms(const float *found, const float *expected)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < (size_t)T * V; i++) {
        difference +=
            ((double)found[i] - (double)expected[i]) * ((double)found[i] - (double)expected[i]);
        size += (double)expected[i] * (double)expected[i];
    }
    return sqrt(difference / size);
}

static float scalar[T * V], found[T * V];

/* Whole and in chunks, the scalar's bits. */
START_TEST(exact_operators_give_a_session_the_scalar_s_bits)
{
    static const size_t CHUNKS[] = {T, 8, 3, 1};
    gemma4_ops ops = gemma4_ops_exact();
    ck_assert(ops.attention == NULL);
    ck_assert((ops.matmul == gemma4_matmul) == (strcmp(ops.name, "scalar") == 0));
    run(scalar, NULL, T, NULL, NULL, true);
    for (size_t i = 0; i < sizeof CHUNKS / sizeof *CHUNKS; i++) {
        seen s = {0};
        run(found, &ops, CHUNKS[i], count_taps, &s, true);
        ck_assert_msg(memcmp(found, scalar, sizeof found) == 0, "%s, chunks of %zu", ops.name,
                      CHUNKS[i]);
        ck_assert_uint_eq(s.probs, 2 * 12 * T);
    }
}
END_TEST

/* Blocks of Q8_0, which no operator can read as they lie. */
START_TEST(exact_operators_read_quantised_weights)
{
    enum { ROWS = 7, COLS = 64, N = 5, ROW_BYTES = COLS / 32 * 34 };
    static unsigned char data[ROWS * ROW_BYTES];
    static gemma4_real x[N * COLS], expected[N * ROWS], y[N * ROWS];
    const gemma4_ops ops = gemma4_ops_exact();
    gemma4_quantised q = {.part_count = 1, .rows = ROWS};
    q.parts[0].type = gemma4_block_type_of(8);
    q.parts[0].data = data;
    q.parts[0].row_bytes = ROW_BYTES;
    const gemma4_weight w = {GEMMA4_QUANTISED, &q, ROWS, COLS};
    float *scratch = malloc(ops.scratch(COLS, N, 0) * sizeof *scratch), w_row[COLS];
    ck_assert_ptr_nonnull(scratch);
    for (size_t i = 0; i < sizeof data; i++) /* scales (bytes 0 and 1 of 34) of about 1/8 */
        data[i] = i % 34 == 1 ? 0x30 : (unsigned char)(i * 37);
    for (size_t i = 0; i < N * COLS; i++)
        x[i] = (gemma4_real)(0.37 * (double)i - (double)(i % 13) * 7);
    gemma4_matmul(expected, x, &w, N, w_row);
    ops.matmul(y, x, &w, N, scratch);
    ck_assert(memcmp(y, expected, sizeof y) == 0);
    ck_assert(expected[0] != 0 && isfinite((double)expected[0]));
    free(scratch);
}
END_TEST

START_TEST(a_limit_hides_instruction_sets)
{
    unsigned found_before = gemma4_cpu_detect();
    gemma4_cpu_limit(GEMMA4_CPU_SCALAR);
    ck_assert_uint_eq(gemma4_cpu_detect(), GEMMA4_CPU_SCALAR);
    ck_assert_str_eq(gemma4_ops_exact().name, "scalar");
    gemma4_cpu_limit(GEMMA4_CPU_ALL);
    ck_assert_uint_eq(gemma4_cpu_detect(), found_before);
}
END_TEST

/* With and without the twin's own attention, whole and in chunks: near the scalar, but not its
 * bits. */
START_TEST(a_session_runs_the_twin_that_it_is_given)
{
    static const size_t CHUNKS[] = {T, 8, 3, 1};
    if (!(gemma4_cpu_detect() & SETS[_i]))
        return;
    gemma4_ops ops = gemma4_ops_for(GEMMA4_CPU_AVX2 | SETS[_i]);
    run(scalar, NULL, T, NULL, NULL, true);
    for (size_t i = 0; i < sizeof CHUNKS / sizeof *CHUNKS; i++)
        for (int show = 0; show < 2; show++) {
            seen s = {0};
            run(found, &ops, CHUNKS[i], count_taps, &s, show);
            double rms = relative_rms(found, scalar);
            ck_assert_msg(rms > 0 && rms < 2e-5, "%s, chunks of %zu: relative RMS %g", NAMES[_i],
                          CHUNKS[i], rms);
            ck_assert_uint_eq(s.probs, show ? 2 * 12 * T : 0);
        }
}
END_TEST

/* The scalar's bits do not depend on whether scores are shown; the hook sees everything else either
 * way. */
START_TEST(hidden_scores_change_nothing_else)
{
    seen shown = {0}, hidden = {0};
    run(scalar, NULL, T, count_taps, &shown, true);
    run(found, NULL, T, count_taps, &hidden, false);
    ck_assert_mem_eq(found, scalar, sizeof scalar);
    ck_assert_uint_eq(shown.probs, 2 * 12 * T);
    ck_assert_uint_eq(hidden.probs, 0);
    ck_assert_uint_eq(shown.events - shown.probs, hidden.events);
}
END_TEST

Suite *twins_suite(void)
{
    Suite *s = suite_create("twins");
    TCase *choice = tcase_create("choice"), *session = tcase_create("session");
    tcase_add_test(choice, no_mask_means_scalar);
    tcase_add_loop_test(choice, the_best_set_of_the_mask_wins, 0, 3);
    tcase_add_test(choice, names_are_understood_where_the_machine_has_them);
    tcase_add_test(choice, a_limit_hides_instruction_sets);
    tcase_add_test(choice, exact_operators_read_quantised_weights);
    tcase_add_unchecked_fixture(session, open_model, close_model);
    tcase_add_test(session, exact_operators_give_a_session_the_scalar_s_bits);
    tcase_add_loop_test(session, a_session_runs_the_twin_that_it_is_given, 0, 3);
    tcase_add_test(session, hidden_scores_change_nothing_else);
    suite_add_tcase(s, choice);
    suite_add_tcase(s, session);
    return s;
}
