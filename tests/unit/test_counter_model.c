/* Counter-models (tests/check/counter_model.h): with the right parameters every step gives the
 * reference's bits; every entry of the catalogue changes exactly the taps that it lists. */
#include "counter_model.h"
#include "explain.h"
#include "forward.h"
#include "suites.h"
#include "support.h"
#include "synth.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { T = 40, FAR = 1000 };

static const int32_t TOKENS[T] = {
    2,  197, 214, 34,  153, 23,  76,  115, 13,  151, 249, 242, 7,  8,   99, 100, 101, 33, 240, 5,
    66, 71,  18,  255, 3,   190, 191, 12,  144, 60,  61,  222, 41, 177, 88, 9,   130, 54, 203, 17};

/* --- a run of the reference, every tap of it kept --- */

typedef struct run {
    gemma4_model *model;
    size_t first_position, layers;
    int32_t tokens[T];
    gemma4_real **values; /* [layers, TAP_COUNT] of [T, dims]; taps without a layer stand at layer
                             0 */
    int32_t **ids;        /* [layers] of [T, K] */
} run;

static size_t tap_width(const run *r, gemma4_tap tap, size_t layer)
{
    size_t dims[2];
    gemma4_tap_dims(&r->model->config, tap, layer, T, dims);
    return dims[0] * dims[1];
}

static int keep(void *context, gemma4_tap_event *event, gemma4_error *error)
{
    run *r = context;
    (void)error;
    if (event->ids) {
        memcpy(r->ids[event->layer], event->ids, event->rows * event->dims[0] * sizeof *event->ids);
        return 0;
    }
    gemma4_real *to = r->values[event->layer * GEMMA4_TAP_COUNT + event->tap];
    /* [1, H, visible keys] into [T, H, T] */
    if (event->tap == GEMMA4_TAP_ATTN_SCORES || event->tap == GEMMA4_TAP_ATTN_PROBS)
        for (size_t h = 0; h < event->dims[0]; h++)
            memcpy(to + (event->row * event->dims[0] + h) * T + event->first_key,
                   event->values + h * event->dims[1], event->dims[1] * sizeof *to);
    else
        memcpy(to, event->values, event->rows * event->dims[0] * event->dims[1] * sizeof *to);
    return 0;
}

static void *zeroed(size_t n, size_t size)
{
    void *memory = calloc(n, size);
    ck_assert_ptr_nonnull(memory);
    return memory;
}

static run run_reference(gemma4_model *model, size_t first_position)
{
    gemma4_error error = {""};
    const gemma4_config *c = &model->config;
    run r = {.model = model, .first_position = first_position, .layers = c->num_hidden_layers};
    r.values = zeroed(r.layers * GEMMA4_TAP_COUNT, sizeof *r.values);
    r.ids = zeroed(r.layers, sizeof *r.ids);
    for (size_t l = 0; l < r.layers; l++) {
        r.ids[l] = zeroed(T * c->top_k_experts, sizeof **r.ids);
        for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
            if (gemma4_tap_describe((gemma4_tap)tap)->per_layer || l == 0)
                r.values[l * GEMMA4_TAP_COUNT + tap] =
                    zeroed(T * tap_width(&r, (gemma4_tap)tap, l), sizeof(gemma4_real));
    }
    gemma4_session *session = gemma4_session_new(model, first_position, T, &error);
    ck_assert_msg(session != NULL, "%s", error.message);
    gemma4_session_set_hook(session, keep, &r);
    for (size_t t = 0; t < T; t++)
        r.tokens[t] = TOKENS[t] % (int32_t)c->vocab_size;
    ck_assert_msg(gemma4_forward(session, r.tokens, T, T, NULL, &error) == 0, "%s", error.message);
    gemma4_session_free(session);
    return r;
}

static void free_run(run *r)
{
    for (size_t i = 0; i < r->layers * GEMMA4_TAP_COUNT; i++)
        free(r->values[i]);
    for (size_t l = 0; l < r->layers; l++)
        free(r->ids[l]);
    free(r->values);
    free(r->ids);
}

/* What a step reads: of the recorded tensors, those that come before the tap, so that reading a
 * later one would be noticed. */
static gemma4_step step_of(const run *r, size_t layer, gemma4_tap tap)
{
    /* The schedule 7, 1, 20, 3, 9. */
    static size_t chunk_start[T], chunk_end[T];
    static const size_t ends[] = {7, 8, 28, 31, T};
    gemma4_step step = {.model = r->model,
                        .layer = layer,
                        .T = T,
                        .first_position = r->first_position,
                        .tokens = r->tokens};
    for (size_t t = 0, chunk = 0; t < T; t++) {
        chunk += t == ends[chunk];
        chunk_start[t] = chunk ? ends[chunk - 1] : 0;
        chunk_end[t] = ends[chunk];
    }
    step.chunk_start = chunk_start;
    step.chunk_end = chunk_end;
    bool head = tap >= GEMMA4_TAP_FINAL_NORM;
    for (int i = 0; i < (int)tap; i++)
        if (!head || i > GEMMA4_TAP_LAYER_OUTPUT)
            step.values[i] = r->values[layer * GEMMA4_TAP_COUNT + (size_t)i];
    if (head)
        step.values[GEMMA4_TAP_LAYER_OUTPUT] =
            r->values[(r->layers - 1) * GEMMA4_TAP_COUNT + GEMMA4_TAP_LAYER_OUTPUT];
    step.topk_ids = tap > GEMMA4_TAP_ROUTER_TOPK_IDS ? r->ids[layer] : NULL;
    return step;
}

/* How far a tap computed with those parameters is from the recorded one: 0 where the bits are the
 * same, relative RMS elsewhere, at least TINY; for ids, how many differ. */
static const double TINY = 1e-30;

static double distance(const run *r, const gemma4_step *step, const gemma4_parameters *parameters,
                       gemma4_tap tap)
{
    gemma4_error error = {""};
    size_t n = T * tap_width(r, tap, step->layer);
    const gemma4_real *right = r->values[step->layer * GEMMA4_TAP_COUNT + tap];
    gemma4_real *out = zeroed(n, sizeof *out);
    int32_t *ids = zeroed(n, sizeof *ids);
    double difference = 0, size = 0;
    bool same = true;
    ck_assert_msg(gemma4_counter_step(step, parameters, tap, out, ids, &error) == 0, "%s",
                  error.message);
    if (gemma4_tap_describe(tap)->ids)
        for (size_t i = 0; i < n; i++)
            difference += ids[i] != r->ids[step->layer][i];
    else {
        same = memcmp(out, right, n * sizeof *out) == 0;
        for (size_t i = 0; i < n; i++) {
            difference += ((double)out[i] - (double)right[i]) * ((double)out[i] - (double)right[i]);
            size += (double)right[i] * (double)right[i];
        }
        difference = same ? 0 : fmax(TINY, sqrt(difference / size));
    }
    free(out);
    free(ids);
    return difference;
}

static bool computed(gemma4_tap tap, size_t layer)
{
    return tap != GEMMA4_TAP_LAYER_INPUT && !gemma4_tap_describe(tap)->derived &&
           (gemma4_tap_describe(tap)->per_layer || layer == 0);
}

/* --- fixtures, made before the tests are forked --- */

static run runs[5]; /* tiny, tiny far out, moe128, moe128 far out, odd */
static gemma4_model *tiny, *moe128, *odd;

static gemma4_model *open_model(const char *directory)
{
    gemma4_error error = {""};
    gemma4_model *model = gemma4_model_open(directory, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    return model;
}

/* A hidden size whose root is no bf16 number, as the published one's is not, and an eps large
 * enough to be seen. */
static const char *odd_config(void)
{
    const char *config =
        test_replace(test_tiny_config, "\"hidden_size\": 16", "\"hidden_size\": 24");
    config = test_replace(config, "1e-06", "1e-03");
    return test_replace(config, "\"max_position_embeddings\": 64",
                        "\"max_position_embeddings\": 2000");
}

static void set_up(void)
{
    gemma4_error error = {""};
    const gemma4_synth_options options = {
        .preset = "moe128", .seed = 5, .shards = 1, .layers = 3, .vocab = 64};
    char *directory = test_fresh_dir(), *odd_directory = test_fresh_dir();
    ck_assert_msg(gemma4_synth(&options, directory, &error) == 0, "%s", error.message);
    test_write_checkpoint(odd_directory, odd_config(), "model.", 7);
    tiny = open_model("golden/checkpoints/tiny");
    moe128 = open_model(directory);
    odd = open_model(odd_directory);
    gemma4_model *models[] = {tiny, tiny, moe128, moe128, odd};
    for (size_t i = 0; i < 5; i++)
        runs[i] = run_reference(models[i], i % 2 ? FAR : 0);
}

static void tear_down(void)
{
    for (size_t i = 0; i < 5; i++)
        free_run(&runs[i]);
    gemma4_model_close(tiny);
    gemma4_model_close(moe128);
    gemma4_model_close(odd);
}

/* --- right parameters --- */

/* Where hidden is a tap, the step is computed without it. */
static void check_reference(const run *r, size_t layer, gemma4_tap tap, gemma4_tap hidden)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    gemma4_parameters right = gemma4_right_parameters();
    gemma4_step step = step_of(r, layer, tap);
    if (hidden != GEMMA4_TAP_COUNT)
        step.values[hidden] = NULL;
    ck_assert_msg(distance(r, &step, &right, tap) == 0, "%s: other bits",
                  gemma4_tap_name(tap, layer, name));
}

START_TEST(right_parameters_give_the_reference)
{
    const run *r = &runs[_i];
    for (size_t l = 0; l < r->layers; l++) {
        for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
            if (computed((gemma4_tap)tap, l))
                check_reference(r, l, (gemma4_tap)tap, GEMMA4_TAP_COUNT);
        check_reference(r, l, GEMMA4_TAP_ATTN_PROBS, GEMMA4_TAP_ATTN_SCORES);
        check_reference(r, l, GEMMA4_TAP_ATTN_CONTEXT, GEMMA4_TAP_ATTN_PROBS);
    }
}
END_TEST

START_TEST(without_a_schedule_all_is_one_chunk)
{
    gemma4_parameters right = gemma4_right_parameters();
    gemma4_step step = step_of(&runs[2], 0, GEMMA4_TAP_ATTN_CONTEXT);
    step.chunk_start = step.chunk_end = NULL;
    step.values[GEMMA4_TAP_ATTN_SCORES] = step.values[GEMMA4_TAP_ATTN_PROBS] = NULL;
    ck_assert(distance(&runs[2], &step, &right, GEMMA4_TAP_ATTN_CONTEXT) == 0);
    right.attention.cache = GEMMA4_CACHE_NO_PAST;
    ck_assert(distance(&runs[2], &step, &right, GEMMA4_TAP_ATTN_CONTEXT) == 0);
    right.attention.cache = GEMMA4_CACHE_CHUNK_NOT_CAUSAL;
    ck_assert(distance(&runs[2], &step, &right, GEMMA4_TAP_ATTN_CONTEXT) > 0);
}
END_TEST

START_TEST(a_missing_tensor_is_refused)
{
    gemma4_parameters right = gemma4_right_parameters();
    gemma4_error error = {""};
    gemma4_real out[T * 64];
    gemma4_step step = step_of(&runs[2], 1, GEMMA4_TAP_ATTN_RESIDUAL);
    step.values[GEMMA4_TAP_ATTN_POST_NORM] = NULL;
    ck_assert_int_eq(
        gemma4_counter_step(&step, &right, GEMMA4_TAP_ATTN_RESIDUAL, out, NULL, &error), -1);
    assert_message_contains(
        &error, "layers.1.attn.residual: cannot be computed without layers.1.attn.post_norm");
    ck_assert_int_eq(gemma4_counter_step(&step, &right, GEMMA4_TAP_LAYER_INPUT, out, NULL, &error),
                     -1);
    assert_message_contains(&error, "input: no step computes it");
    step.layer = 3;
    ck_assert_int_eq(gemma4_counter_step(&step, &right, GEMMA4_TAP_ATTN_NORM, out, NULL, &error),
                     -1);
    assert_message_contains(&error, "layer 3: expected one below 3");
}
END_TEST

START_TEST(an_id_that_is_no_expert_is_refused)
{
    static gemma4_real out[T * 8];
    static int32_t ids[T * 8];
    gemma4_parameters right = gemma4_right_parameters();
    gemma4_error error = {""};
    gemma4_step step = step_of(&runs[2], 1, GEMMA4_TAP_ROUTER_TOPK_WEIGHTS);
    step.topk_ids = ids;
    ids[T * 8 - 1] = 128;
    ck_assert_int_eq(
        gemma4_counter_step(&step, &right, GEMMA4_TAP_ROUTER_TOPK_WEIGHTS, out, NULL, &error), -1);
    assert_message_contains(&error, "router.topk_ids: expected experts below 128, found 128");
}
END_TEST

START_TEST(a_branch_cannot_read_what_comes_later)
{
    static gemma4_real out[T * 64];
    gemma4_parameters wrong = gemma4_right_parameters();
    gemma4_error error = {""};
    gemma4_step step = step_of(&runs[2], 1, GEMMA4_TAP_MLP_NORM);
    wrong.mlp.input = GEMMA4_FROM_MLP_OUT;
    ck_assert_int_eq(gemma4_counter_step(&step, &wrong, GEMMA4_TAP_MLP_NORM, out, NULL, &error),
                     -1);
    assert_message_contains(&error, "mlp.norm: cannot read mlp.out, which comes later");
}
END_TEST

/* --- the catalogue --- */

static bool listed(const gemma4_counter_model *entry, gemma4_tap tap)
{
    for (size_t i = 0; entry->taps[i] != GEMMA4_TAP_COUNT; i++)
        if (entry->taps[i] == tap)
            return true;
    return false;
}

/* The largest distance of every tap, over the layers of a kind on which the entry acts. */
typedef struct distances {
    double of[2][GEMMA4_TAP_COUNT];
} distances;

/* Whether a layer is the first of its kind: taps that should not change are looked at there only,
 * for speed. */
static bool first_of_kind(const gemma4_config *c, size_t layer)
{
    for (size_t l = 0; l < layer; l++)
        if (c->layers[l].kind == c->layers[layer].kind)
            return false;
    return true;
}

static void measure(const run *r, const gemma4_counter_model *entry, distances *d)
{
    const gemma4_config *c = &r->model->config;
    gemma4_parameters wrong = gemma4_right_parameters();
    entry->change(&wrong);
    for (size_t l = 0; l < r->layers; l++)
        for (int i = 0; i < GEMMA4_TAP_COUNT; i++) {
            gemma4_tap tap = (gemma4_tap)i;
            if (!computed(tap, l) || !gemma4_counter_model_acts(entry, c, tap, l) ||
                !(listed(entry, tap) || first_of_kind(c, l)))
                continue;
            gemma4_step step = step_of(r, l, tap);
            double *largest =
                &d->of[gemma4_tap_describe(tap)->per_layer ? c->layers[l].kind : 0][tap];
            *largest = fmax(*largest, distance(r, &step, &wrong, tap));
        }
}

/* Whether the entry says that it changes a tap on a kind of layer; a tap without a layer counts
 * with the first kind. */
static bool should_change(const gemma4_counter_model *entry, int kind, gemma4_tap tap)
{
    int bit = kind == GEMMA4_SLIDING ? GEMMA4_ON_SLIDING : GEMMA4_ON_FULL;
    return listed(entry, tap) &&
           (gemma4_tap_describe(tap)->per_layer ? (entry->where & bit) != 0 : kind == 0);
}

static const double SEEN = 1e-6;

static bool all_seen(const gemma4_counter_model *entry, const distances *d)
{
    for (int kind = 0; kind < 2; kind++)
        for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
            if (should_change(entry, kind, (gemma4_tap)tap) && !(d->of[kind][tap] > SEEN))
                return false;
    return true;
}

/* Every listed tap changes, on every kind of layer that the entry names; no other one does. */
START_TEST(an_entry_changes_the_taps_that_it_lists)
{
    const gemma4_counter_model *entry = gemma4_counter_model_at((size_t)_i);
    distances d = {0};
    measure(&runs[1], entry, &d);
    measure(&runs[4], entry, &d);
    if (!all_seen(entry, &d)) /* tiny's full layers have one KV head */
        measure(&runs[3], entry, &d);
    for (int kind = 0; kind < 2; kind++)
        for (int i = 0; i < GEMMA4_TAP_COUNT; i++) {
            const char *tap = gemma4_tap_describe((gemma4_tap)i)->name;
            if (should_change(entry, kind, (gemma4_tap)i))
                ck_assert_msg(d.of[kind][i] > SEEN, "%s (%s), %s, kind %d: differs by %g only",
                              entry->id, entry->variant, tap, kind, d.of[kind][i]);
            else
                ck_assert_msg(d.of[kind][i] == 0, "%s (%s), %s: changes but is not listed",
                              entry->id, entry->variant, tap);
        }
}
END_TEST

/* Mistakes combine: whatever changes are made one after the other, every step still computes
 * something. */
START_TEST(mistakes_combine)
{
    const run *r = &runs[4];
    gemma4_parameters wrong = gemma4_right_parameters();
    size_t count = gemma4_counter_model_count(), entry = (size_t)_i * 13;
    for (int i = 0; i < 6; i++, entry += 31)
        gemma4_counter_model_at(entry % count)->change(&wrong);
    for (size_t l = 0; l < r->layers; l++)
        for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
            if (computed((gemma4_tap)tap, l)) {
                gemma4_step step = step_of(r, l, (gemma4_tap)tap);
                distance(r, &step, &wrong, (gemma4_tap)tap);
            }
}
END_TEST

/* Numbers that no catalogue holds. */
START_TEST(senseless_numbers_do_no_harm)
{
    static const double numbers[] = {NAN, INFINITY, -1, 1e300, 0};
    const run *r = &runs[4];
    gemma4_parameters wrong = gemma4_right_parameters();
    double x = numbers[_i];
    for (int norm = 0; norm < GEMMA4_NORM_COUNT; norm++) {
        wrong.norm[norm].eps = x;
        wrong.norm[norm].weight_of = (norm + _i) % (GEMMA4_NORM_COUNT + 3);
    }
    wrong.q_rope.offset = wrong.q_rope.position_scale = wrong.q_rope.theta =
        wrong.q_rope.denominator = wrong.q_rope.pairs = x;
    wrong.k_rope = wrong.v_rope = wrong.q_rope;
    wrong.attention.scale = wrong.attention.softcap = wrong.stream.softcap =
        wrong.expert.capacity_factor = x;
    wrong.attention.window_change = _i % 2 ? -1000 : 1000;
    wrong.router.k_change = _i % 2 ? -1000 : 1000;
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        if (computed((gemma4_tap)tap, 0)) {
            gemma4_step step = step_of(r, 0, (gemma4_tap)tap);
            distance(r, &step, &wrong, (gemma4_tap)tap);
        }
}
END_TEST

static void check_text(const char *id, const char *text, bool may_be_empty)
{
    ck_assert_msg(may_be_empty || text[0] != '\0', "%s: an empty text", id);
    for (const char *c = text; *c != '\0'; c++)
        ASSERT_EACH(*c >= ' ' && *c <= '~' && !strchr("|<`", *c), "%s: \"%s\" is not plain ASCII",
                    id, text);
}

static void check_urls(const gemma4_counter_model *entry)
{
    for (const char *url = entry->seen; *url != '\0';) {
        size_t length = strcspn(url, " ");
        ck_assert_msg(strncmp(url, "https://", 8) == 0 && length > 12, "%s: \"%s\" is no URL",
                      entry->id, url);
        url += length;
        url += *url == ' ';
        ck_assert_msg(url[-1] != ' ' || *url != '\0', "%s: the URLs end with a space", entry->id);
    }
}

static void check_taps(const gemma4_counter_model *entry)
{
    bool head = false, layer = false;
    for (size_t i = 0; entry->taps[i] != GEMMA4_TAP_COUNT; i++) {
        ck_assert_msg(i == 0 || entry->taps[i] > entry->taps[i - 1],
                      "%s: taps are not in dataflow order", entry->id);
        head = head || !gemma4_tap_describe(entry->taps[i])->per_layer;
        layer = layer || gemma4_tap_describe(entry->taps[i])->per_layer;
    }
    ck_assert_msg(head || layer, "%s: no taps", entry->id);
    ck_assert_msg(head == ((entry->where & GEMMA4_ON_HEAD) != 0),
                  "%s: where and taps disagree on the head", entry->id);
    ck_assert_msg(layer == ((entry->where & (GEMMA4_ON_SLIDING | GEMMA4_ON_FULL)) != 0),
                  "%s: where and taps disagree on layers", entry->id);
}

static void check_entry(size_t index)
{
    static const char sections[] =
        "embedding norms attention rope masks cache router experts dense stream head";
    const gemma4_counter_model *entry = gemma4_counter_model_at(index);
    const char *texts[] = {entry->id, entry->section, entry->wrong, entry->right, entry->invisible};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        check_text(entry->id, texts[i], false);
    check_text(entry->id, entry->variant, true);
    check_text(entry->id, entry->seen, true);
    check_urls(entry);
    check_taps(entry);
    ck_assert_msg(strstr(sections, entry->section) != NULL, "%s: section %s", entry->id,
                  entry->section);
    for (const char *c = entry->id; *c != '\0'; c++)
        ck_assert_msg(islower((unsigned char)*c) || isdigit((unsigned char)*c) || *c == '-',
                      "%s: an id is lower case and dashes", entry->id);
    for (size_t i = 0; i < index; i++) {
        const gemma4_counter_model *other = gemma4_counter_model_at(i);
        ASSERT_EACH(strcmp(entry->id, other->id) || strcmp(entry->variant, other->variant),
                    "%s (%s): twice", entry->id, entry->variant);
    }
}

START_TEST(every_entry_is_complete)
{
    for (size_t i = 0; i < gemma4_counter_model_count(); i++)
        check_entry(i);
}
END_TEST

START_TEST(there_are_at_least_eighty)
{
    ck_assert_uint_ge(gemma4_counter_model_count(), 80);
}
END_TEST

/* --- the catalogue as text --- */

/* What a function prints: malloc'd. */
static char *printed(int (*print)(FILE *, const char *), const char *id, int expected)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    ck_assert_ptr_nonnull(out);
    ck_assert_int_eq(print(out, id), expected);
    ck_assert_int_eq(fclose(out), 0);
    return text;
}

static int all_markdown(FILE *out, const char *id)
{
    (void)id;
    gemma4_explain_all_markdown(out);
    return 0;
}

static void check_page(const gemma4_counter_model *entry)
{
    const char *texts[] = {entry->id,    entry->variant, entry->section,
                           entry->wrong, entry->right,   entry->invisible};
    char *page = printed(gemma4_explain, entry->id, 0);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        ck_assert_msg(strstr(page, texts[i]) != NULL, "%s: its page lacks \"%s\"", entry->id,
                      texts[i]);
    free(page);
}

START_TEST(every_entry_is_explained)
{
    for (size_t i = 0; i < gemma4_counter_model_count(); i++)
        check_page(gemma4_counter_model_at(i));
}
END_TEST

START_TEST(an_unknown_id_gets_suggestions)
{
    static const struct {
        const char *asked, *answer;
    } cases[] = {
        {"layer-scalr-droped", "did you mean layer-scalar-dropped"},
        {"rope-pairing", "did you mean rope-pairing-contiguous, rope-pairing-interleaved"},
        {"xyzzy", "no cause has the id xyzzy; gemma4-check explain lists them\n"},
        {"", "gemma4-check explain lists them"},
    };
    char *page = printed(gemma4_explain, cases[_i].asked, -1);
    ck_assert_msg(strstr(page, cases[_i].answer) != NULL, "\"%s\" lacks \"%s\"", page,
                  cases[_i].answer);
    free(page);
}
END_TEST

START_TEST(spec_causes_is_what_the_catalogue_says)
{
    char *expected = printed(all_markdown, NULL, 0), *found = zeroed(strlen(expected) + 2, 1);
    FILE *file = fopen("spec/causes.md", "r");
    ck_assert_msg(file != NULL, "spec/causes.md: cannot be read");
    found[fread(found, 1, strlen(expected) + 1, file)] = '\0';
    fclose(file);
    ck_assert_msg(!strcmp(expected, found),
                  "spec/causes.md is out of date: gemma4-check explain --all writes it");
    free(expected);
    free(found);
}
END_TEST

Suite *counter_model_suite(void)
{
    Suite *suite = suite_create("counter_model");
    TCase *steps = tcase_create("steps"), *catalogue = tcase_create("catalogue");
    int entries = (int)gemma4_counter_model_count();
    tcase_add_unchecked_fixture(steps, set_up, tear_down);
    tcase_add_loop_test(steps, right_parameters_give_the_reference, 0, 5);
    tcase_add_test(steps, without_a_schedule_all_is_one_chunk);
    tcase_add_test(steps, a_missing_tensor_is_refused);
    tcase_add_test(steps, an_id_that_is_no_expert_is_refused);
    tcase_add_test(steps, a_branch_cannot_read_what_comes_later);
    tcase_add_loop_test(steps, an_entry_changes_the_taps_that_it_lists, 0, entries);
    tcase_add_loop_test(steps, mistakes_combine, 0, 15);
    tcase_add_loop_test(steps, senseless_numbers_do_no_harm, 0, 5);
    tcase_set_timeout(steps, 60);
    suite_add_tcase(suite, steps);
    tcase_add_test(catalogue, every_entry_is_complete);
    tcase_add_test(catalogue, there_are_at_least_eighty);
    tcase_add_test(catalogue, every_entry_is_explained);
    tcase_add_loop_test(catalogue, an_unknown_id_gets_suggestions, 0, 4);
    tcase_add_test(catalogue, spec_causes_is_what_the_catalogue_says);
    suite_add_tcase(suite, catalogue);
    return suite;
}
