/* The reference against the goldens, which transformers computed: case by case, group of taps by
 * group of taps. This is where the numbers of the forward pass are proved right. */
#include "activations.h"
#include "forward.h"
#include "manifest.h"
#include "rows.h"
#include "suites.h"
#include "support.h"

#include <math.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

#define AGREEMENT 1e-5 /* relative RMS over a tap; measured: below 5e-6 */

enum { LAYERS_MAX = 12 };

/* Of the cases; read once, before any test is forked. */
static char **ids;
static size_t id_count;

/* Which taps a group holds: first ... last in dataflow order, and a layer's input beside its
 * output. */
static const struct {
    const char *name;
    gemma4_tap first, last;
} GROUPS[] = {
    {"embed", GEMMA4_TAP_EMBED, GEMMA4_TAP_LAYER_INPUT},
    {"attn", GEMMA4_TAP_ATTN_NORM, GEMMA4_TAP_ATTN_RESIDUAL},
    {"mlp", GEMMA4_TAP_MLP_NORM, GEMMA4_TAP_MLP_POST_NORM},
    {"router", GEMMA4_TAP_ROUTER_NORM, GEMMA4_TAP_ROUTER_TOPK_WEIGHTS},
    {"moe", GEMMA4_TAP_MOE_NORM, GEMMA4_TAP_MOE_POST_NORM},
    {"ffn", GEMMA4_TAP_FFN_SUM, GEMMA4_TAP_FFN_RESIDUAL},
    {"output", GEMMA4_TAP_LAYER_OUTPUT, GEMMA4_TAP_LAYER_OUTPUT},
    {"head", GEMMA4_TAP_FINAL_NORM, GEMMA4_TAP_LOGITS},
};

/* A case with everything that it names opened. */
typedef struct opened {
    gemma4_case *c;
    gemma4_model *model;
    gemma4_activations *golden;
} opened;

static opened open_case(const char *id)
{
    opened o = {0};
    gemma4_error error = {""};
    o.c = gemma4_case_open(id, &error);
    ck_assert_msg(o.c != NULL, "%s", error.message);
    o.model = gemma4_model_open(o.c->checkpoint_dir, &error);
    ck_assert_msg(o.model != NULL, "%s", error.message);
    o.golden = gemma4_activations_open(o.c->golden_path, &o.model->config, &error);
    ck_assert_msg(o.golden != NULL, "%s", error.message);
    ck_assert_uint_le(o.model->config.num_hidden_layers, LAYERS_MAX);
    return o;
}

/* Before the tests are forked: each of them would otherwise hash megabytes again. */
static void provide_checkpoints(void)
{
    for (size_t i = 0; i < id_count; i++) {
        gemma4_error error = {""};
        gemma4_case *c = gemma4_case_open(ids[i], &error);
        ck_assert_msg(c != NULL && gemma4_case_provide_checkpoint(c, &error) == 0, "%s",
                      error.message);
        gemma4_case_close(c);
    }
}

static void close_case(opened *o)
{
    gemma4_activations_close(o->golden);
    gemma4_model_close(o->model);
    gemma4_case_close(o->c);
}

/* --- agreement --- */

/* The reference's taps under comparison. */
typedef struct agreement {
    opened *o;
    size_t T, compared;
    size_t *slot; /* [T, K] of the layer at hand: where the golden has the reference's r-th
                     expert */
    /* sums of squares */
    double difference[GEMMA4_TAP_COUNT][LAYERS_MAX], expected[GEMMA4_TAP_COUNT][LAYERS_MAX];
} agreement;

/* Fills slot, and fails where a position's set of experts is another. */
static int align_experts(agreement *a, const gemma4_tap_event *event, gemma4_error *error)
{
    size_t K = event->dims[0];
    const gemma4_activation *golden =
        gemma4_activations_find(a->o->golden, event->tap, event->layer);
    if (golden == NULL)
        return gemma4_fail(error, "layer %zu: the golden has no experts", event->layer);
    int32_t *chosen = calloc(golden->rows * K, sizeof *chosen);
    int status = gemma4_activations_read_ids(a->o->golden, golden, 0, golden->rows, chosen, error);
    for (size_t i = 0; i < golden->rows && !status; i++)
        for (size_t r = 0; r < K && !status; r++) {
            size_t t = golden->row_index[i], q = 0;
            while (q < K && chosen[i * K + q] != event->ids[t * K + r])
                q++;
            a->slot[t * K + r] = q;
            if (q == K)
                status =
                    gemma4_fail(error, "layer %zu, position %zu: expert %d is not the golden's",
                                event->layer, t, event->ids[t * K + r]);
        }
    a->compared++;
    free(chosen);
    return status;
}

/* Adds position t of the event (its row t - event->row) and the golden's row of it. */
static void add_row(agreement *a, const gemma4_tap_event *event, size_t t, const float *golden)
{
    size_t K = a->o->model->config.top_k_experts, width = event->dims[0] * event->dims[1];
    const gemma4_real *values = event->values + (t - event->row) * width;
    for (size_t i = 0; i < width; i++) {
        size_t at = i; /* of the same value in the golden */
        if (gemma4_tap_in_id_order(event->tap))
            at = a->slot[t * K + i / (width / K)] * (width / K) + i % (width / K);
        else if (gemma4_tap_is_keys(event->tap))
            at = i / event->dims[1] * a->T + event->first_key + i % event->dims[1];
        double difference = (double)values[i] - (double)golden[at];
        a->difference[event->tap][event->layer] += difference * difference;
        a->expected[event->tap][event->layer] += (double)golden[at] * (double)golden[at];
    }
}

static int compare_event(void *context, gemma4_tap_event *event, gemma4_error *error)
{
    agreement *a = context;
    if (event->tap == GEMMA4_TAP_ROUTER_TOPK_IDS)
        return align_experts(a, event, error);
    const gemma4_activation *golden =
        gemma4_activations_find(a->o->golden, event->tap, event->layer);
    if (golden == NULL)
        return 0;
    size_t dims[2] = {1, 1};
    gemma4_tap_dims(&a->o->model->config, event->tap, event->layer, a->T, dims);
    float *row = calloc(dims[0] * dims[1], sizeof *row);
    int status = 0;
    for (size_t i = 0; i < golden->rows && !status; i++) {
        size_t t = golden->row_index[i];
        if (t < event->row || t >= event->row + event->rows)
            continue;
        status = gemma4_activations_read(a->o->golden, golden, i, 1, row, error);
        add_row(a, event, t, row);
    }
    a->compared++;
    free(row);
    return status;
}

static void run_case(const opened *o, const int32_t *schedule, size_t chunks, gemma4_tap_hook hook,
                     void *context)
{
    gemma4_error error = {""};
    gemma4_session *session =
        gemma4_session_new(o->model, o->c->first_position, o->c->token_count, &error);
    ck_assert_msg(session != NULL, "%s", error.message);
    gemma4_session_set_hook(session, hook, context);
    const int32_t *tokens = o->c->tokens;
    for (size_t i = 0; i < chunks; tokens += schedule[i++])
        ck_assert_msg(gemma4_forward(session, tokens, (size_t)schedule[i], (size_t)schedule[i],
                                     NULL, &error) == 0,
                      "%s: %s", o->c->id, error.message);
    ck_assert_uint_eq(gemma4_session_length(session), o->c->token_count);
    gemma4_session_free(session);
}

/* Every tap that full coverage needs must have been in the golden, and every one that was must
 * agree. */
static void assert_agreement(const agreement *a, size_t group)
{
    const gemma4_config *config = &a->o->model->config;
    for (int i = (int)GROUPS[group].first; i <= (int)GROUPS[group].last; i++)
        for (size_t layer = 0;
             layer <
             (gemma4_tap_describe((gemma4_tap)i)->per_layer ? config->num_hidden_layers : 1);
             layer++) {
            char name[GEMMA4_TAP_NAME_SIZE];
            const gemma4_tap_info *info = gemma4_tap_describe((gemma4_tap)i);
            bool there = gemma4_activations_find(a->o->golden, (gemma4_tap)i, layer) != NULL;
            gemma4_tap_name((gemma4_tap)i, layer, name);
            ck_assert_msg(there || info->optional, "%s: the golden lacks %s", a->o->c->id, name);
            if (!there || info->ids)
                continue;
            double error = sqrt(a->difference[i][layer] / a->expected[i][layer]);
            /* NaN fails */
            ck_assert_msg(error <= AGREEMENT, "%s: %s: relative RMS %.2e", a->o->c->id, name,
                          error);
        }
}

/* The comparison of one case, made once: the tests of its groups follow each other. */
static const agreement *agreement_of(size_t index)
{
    static opened o;
    static agreement *a;
    static size_t kept = (size_t)-1;
    if (a != NULL && kept == index)
        return a;
    if (a != NULL) {
        free(a->slot);
        free(a);
        close_case(&o);
    }
    kept = index;
    o = open_case(ids[index]);
    a = calloc(1, sizeof *a);
    a->o = &o;
    a->T = o.c->token_count;
    a->slot = calloc(a->T * o.model->config.top_k_experts, sizeof *a->slot);
    int32_t whole = (int32_t)a->T;
    run_case(&o, &whole, 1, compare_event, a);
    return a;
}

START_TEST(the_reference_agrees_with_the_golden)
{
    const agreement *a = agreement_of((size_t)_i / COUNT(GROUPS));
    /* the experts of each layer, and a tap */
    ck_assert_uint_gt(a->compared, a->o->model->config.num_hidden_layers);
    assert_agreement(a, (size_t)_i % COUNT(GROUPS));
}
END_TEST

/* --- schedules --- */

/* A sum over positions of hashes of bits, for each tap: independent of the order in which the rows
 * come. */
static int hash_event(void *context, gemma4_tap_event *event, gemma4_error *error)
{
    uint64_t *sums = context;
    size_t row_bytes =
        event->dims[0] * event->dims[1] * (event->ids ? sizeof *event->ids : sizeof *event->values);
    const unsigned char *bytes =
        event->ids ? (const void *)event->ids : (const void *)event->values;
    (void)error;
    for (size_t t = 0; t < event->rows; t++) {
        uint64_t hash =
            ((14695981039346656037u ^ event->layer) * 1099511628211u ^ (event->row + t)) *
                1099511628211u ^
            event->first_key;
        for (size_t i = 0; i < row_bytes; i++)
            hash = (hash ^ bytes[t * row_bytes + i]) * 1099511628211u;
        sums[event->tap] += hash;
    }
    return 0;
}

/* So that one golden serves whatever schedule an engine was fed. */
START_TEST(the_case_s_schedule_gives_the_bits_of_the_whole_prefill)
{
    uint64_t whole[GEMMA4_TAP_COUNT] = {0}, chunked[GEMMA4_TAP_COUNT] = {0};
    opened o = open_case(ids[_i]);
    int32_t all = (int32_t)o.c->token_count;
    run_case(&o, &all, 1, hash_event, whole);
    run_case(&o, o.c->schedule, o.c->schedule_count, hash_event, chunked);
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        ck_assert_msg((whole[tap] != 0) != gemma4_tap_describe((gemma4_tap)tap)->derived &&
                          whole[tap] == chunked[tap],
                      "%s: %s differs", o.c->id, gemma4_tap_describe((gemma4_tap)tap)->name);
    close_case(&o);
}
END_TEST

/* --- the set of cases --- */

START_TEST(there_are_cases)
{
    ck_assert_msg(id_count > 0, "there is no manifest in golden/cases");
}
END_TEST

/* Without one of them, that part of the model would go unproved. */
START_TEST(the_cases_cover)
{
    static const char *const what[] = {"a start far out", "a schedule of several chunks",
                                       "more positions than the window", "golden scores",
                                       "per-layer config: 128 experts"};
    bool found = false;
    for (size_t i = 0; i < id_count && !found; i++) {
        opened o = open_case(ids[i]);
        const gemma4_config *config = &o.model->config;
        const bool has[] = {o.c->first_position > 200000, o.c->schedule_count > 1,
                            o.c->token_count > config->sliding_window,
                            gemma4_activations_find(o.golden, GEMMA4_TAP_ATTN_SCORES, 0) != NULL,
                            config->num_experts == 128};
        found = has[_i];
        close_case(&o);
    }
    ck_assert_msg(found, "no case has %s", what[_i]);
}
END_TEST

Suite *golden_suite(void)
{
    gemma4_error error;
    Suite *suite = suite_create("golden");
    TCase *cases = tcase_create("cases"), *agree = tcase_create("agreement"),
          *schedules = tcase_create("schedules");
    if (ids == NULL && gemma4_case_ids(&ids, &id_count, &error))
        id_count = 0;
    tcase_add_test(cases, there_are_cases);
    tcase_add_loop_test(cases, the_cases_cover, 0, 5);
    tcase_add_loop_test(agree, the_reference_agrees_with_the_golden, 0,
                        (int)(id_count * COUNT(GROUPS)));
    tcase_add_loop_test(schedules, the_case_s_schedule_gives_the_bits_of_the_whole_prefill, 0,
                        (int)id_count);
    TCase *const all[] = {cases, agree, schedules};
    for (size_t i = 0; i < COUNT(all); i++) {
        tcase_add_unchecked_fixture(all[i], provide_checkpoints, NULL);
        tcase_set_timeout(all[i], 60);
        suite_add_tcase(suite, all[i]);
    }
    return suite;
}
