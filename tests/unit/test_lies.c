/* Dumps that lie: a wrong engine that would look right, or right values that prove less than they
 * seem to. Each fails, or the report says on the terminal what the verdict is worth. What cannot
 * even be opened is refused in the suites of the readers. */
#include "engines.h"
#include "reports.h"
#include "suites.h"
#include "support.h"

#include <hdf5.h>
#include <math.h>
#include <stdlib.h>

enum { T = 12 };

/* --- judging --- */

typedef struct judged {
    gemma4_activations *dump;
    gemma4_report report;
    char *text;
} judged;

static void print_text(FILE *out, const gemma4_report *report)
{
    gemma4_report_text(out, report);
}

/* As the dump's attribute says, or dtype. */
static judged judge(const char *path, const char *dtype)
{
    gemma4_error error = {""};
    judged j = {.dump = gemma4_activations_open(path, &test_golden_model()->config, &error)};
    ck_assert_msg(j.dump != NULL, "%s", error.message);
    const gemma4_judgement judgement = {
        .model = test_golden_model(), .engine = j.dump, .dtype = dtype, .without_causes = true};
    ck_assert_msg(gemma4_judge(&judgement, &j.report, &error) == 0, "%s", error.message);
    j.text = test_printed(print_text, &j.report);
    return j;
}

static void judged_free(judged *j)
{
    free(j->text);
    gemma4_report_free(&j->report);
    gemma4_activations_close(j->dump);
}

static const char *first_of(const judged *j)
{
    static char name[GEMMA4_TAP_NAME_SIZE];
    const gemma4_tap_result *first = j->report.first_divergence;
    return first ? gemma4_tap_name(first->tap, first->layer, name) : "";
}

static void assert_says(const judged *j, const char *what)
{
    ck_assert_msg(strstr(j->text, what) != NULL, "\"%s\" is not in the report:\n%s", what, j->text);
}

static size_t values_of(const gemma4_tap_event *e)
{
    return e->rows * e->dims[0] * e->dims[1];
}

static bool is(const gemma4_tap_event *e, gemma4_tap tap, size_t layer)
{
    return e->tap == tap && e->layer == layer;
}

static void scale(gemma4_tap_event *e, double factor)
{
    for (size_t i = 0; i < values_of(e); i++)
        e->values[i] = (gemma4_real)(e->values[i] * factor);
}

/* --- wrong engines that show right values --- */

/* One of every 16 numbers is 1 % off, from layer 3 on: computed on. */
static void compute_wrong_from_3(const test_engine *engine, gemma4_tap_event *e)
{
    (void)engine;
    if (e->tap == GEMMA4_TAP_MLP_OUT && e->layer >= 3)
        for (size_t i = 0; i < values_of(e); i += 16)
            e->values[i] *= 1.01f;
}

static void show_q_rope_wrong(const test_engine *engine, gemma4_tap_event *e)
{
    (void)engine;
    if (is(e, GEMMA4_TAP_ATTN_Q_ROPE, 5))
        for (size_t i = 0; i + 1 < values_of(e); i += 2)
            e->values[i] = -e->values[i];
}

static void show_logits_wrong(const test_engine *engine, gemma4_tap_event *e)
{
    (void)engine;
    if (e->tap == GEMMA4_TAP_LOGITS)
        scale(e, 1.01);
}

static void show_one_value_wrong(const test_engine *engine, gemma4_tap_event *e)
{
    (void)engine;
    if (is(e, GEMMA4_TAP_MOE_OUT, 7))
        e->values[5 * e->dims[0] + 3] += 0.1f;
}

/* The experts of another position. */
static void show_ids_of_another_row(const test_engine *engine, gemma4_tap_event *e)
{
    (void)engine;
    if (is(e, GEMMA4_TAP_ROUTER_TOPK_IDS, 2))
        memcpy(e->ids + e->dims[0], e->ids, e->dims[0] * sizeof *e->ids);
}

/* Right values under every name but one. */
static const struct {
    const char *name;
    test_change *show;
    const char *at;
} COPIED[] = {
    {"q_rope of one layer", show_q_rope_wrong, "layers.5.attn.q_rope"},
    {"logits alone", show_logits_wrong, "logits"},
    {"one value", show_one_value_wrong, "layers.7.moe.out"},
    {"one row of ids", show_ids_of_another_row, "layers.2.router.topk_ids"},
};

START_TEST(right_values_under_all_other_names_hide_nothing)
{
    const test_engine engine = {
        .model = test_golden_model(), .T = T, .tier = "float32", .show = COPIED[_i].show};
    judged j = judge(test_engine_dump(&engine), "float32");
    ck_assert_msg(!j.report.conforms, "%s: conforms", COPIED[_i].name);
    ck_assert_str_eq(first_of(&j), COPIED[_i].at);
    assert_says(&j, "DOES NOT CONFORM");
    judged_free(&j);
}
END_TEST

/* What the right engine computes, kept, to be shown by the wrong one. */
typedef struct kept {
    gemma4_real *values;
    int32_t *ids;
} kept;
static kept golden[GEMMA4_TAP_COUNT][12];

static kept *place_of(const gemma4_tap_event *e)
{
    return &golden[e->tap][gemma4_tap_describe(e->tap)->per_layer ? e->layer : 0];
}

static bool is_kept(const gemma4_tap_event *e)
{
    return e->tap != GEMMA4_TAP_ATTN_SCORES && e->tap != GEMMA4_TAP_ATTN_PROBS && e->row == 0 &&
           e->rows == T;
}

static void keep(const test_engine *engine, gemma4_tap_event *e)
{
    (void)engine;
    if (!is_kept(e))
        return;
    size_t size = values_of(e) * (e->ids ? sizeof *e->ids : sizeof *e->values);
    void *copy = malloc(size);
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, e->ids ? (void *)e->ids : (void *)e->values, size);
    place_of(e)->ids = e->ids ? copy : NULL;
    place_of(e)->values = e->ids ? NULL : copy;
}

static void copy_kept(gemma4_tap_event *e)
{
    const kept *k = place_of(e);
    if (k->ids)
        memcpy(e->ids, k->ids, values_of(e) * sizeof *e->ids);
    else if (k->values)
        memcpy(e->values, k->values, values_of(e) * sizeof *e->values);
}

static void show_golden_up_to_7(const test_engine *engine, gemma4_tap_event *e)
{
    (void)engine;
    if (is_kept(e) && gemma4_tap_describe(e->tap)->per_layer && e->layer <= 7)
        copy_kept(e);
}

static void show_golden_logits(const test_engine *engine, gemma4_tap_event *e)
{
    (void)engine;
    if (is_kept(e) && !gemma4_tap_describe(e->tap)->per_layer)
        copy_kept(e);
}

static const struct {
    const char *name;
    test_change *show;
    const char *taps[2], *but[2];
    const char *at;
} HALF_COPIED[] = {
    /* The seam between copied and computed shows, whichever side is copied. */
    {"the golden up to layer 7",
     show_golden_up_to_7,
     {NULL},
     {"*.attn.scores", "*.attn.probs"},
     "layers.8.input"},
    {"the golden up to layer 7, without inputs",
     show_golden_up_to_7,
     {NULL},
     {"layers.*.input", "*.attn.*"},
     "layers.8.mlp.norm"},
    {"the golden's logits",
     show_golden_logits,
     {NULL},
     {"*.attn.scores", "*.attn.probs"},
     "layers.3.mlp.out"},
    {"layer outputs, with the golden's logits",
     show_golden_logits,
     {"layers.*.output", "logits"},
     {NULL},
     "layers.3.output"},
};

START_TEST(a_seam_between_copied_and_computed_values_shows)
{
    const test_engine right = {.model = test_golden_model(),
                               .T = T,
                               .tier = "float32",
                               .compute = keep,
                               .taps = {"embed"}};
    test_engine_dump(&right);
    test_engine wrong = {.model = test_golden_model(),
                         .T = T,
                         .tier = "float32",
                         .compute = compute_wrong_from_3,
                         .show = HALF_COPIED[_i].show};
    for (size_t i = 0; i < 2; i++) {
        wrong.taps[i] = HALF_COPIED[_i].taps[i];
        wrong.but[i] = HALF_COPIED[_i].but[i];
    }
    judged j = judge(test_engine_dump(&wrong), "float32");
    ck_assert_msg(!j.report.conforms, "%s: conforms\n%s", HALF_COPIED[_i].name, j.text);
    ck_assert_str_eq(first_of(&j), HALF_COPIED[_i].at);
    judged_free(&j);
    for (size_t tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        for (size_t l = 0; l < 12; l++) {
            free(golden[tap][l].values);
            free(golden[tap][l].ids);
            golden[tap][l] = (kept){0};
        }
}
END_TEST

/* --- what is left out --- */

START_TEST(leaving_out_what_is_wrong_is_said)
{
    /* Wrong from layer 3 on; dumped is what comes before. */
    const test_engine engine = {.model = test_golden_model(),
                                .T = T,
                                .tier = "float32",
                                .compute = compute_wrong_from_3,
                                .taps = {"embed", "layers.[0-2].*"},
                                .but = {"*.attn.scores", "*.attn.probs"}};
    judged j = judge(test_engine_dump(&engine), "float32");
    ck_assert_int_eq(j.report.level, GEMMA4_PARTIAL);
    ck_assert_ptr_null(strstr(j.text, "\nCONFORMS"));
    assert_says(&j, "NO FAULT FOUND");
    judged_free(&j);
}
END_TEST

/* Of a tensor that is wrong at position 9, the rows after the sixth are not dumped; everything
 * else is, and right. */
static void show_few_rows(const test_engine *engine, gemma4_tap_event *e)
{
    (void)engine;
    if (is(e, GEMMA4_TAP_LAYER_OUTPUT, 11) && e->rows > 6)
        e->rows = 6;
}

START_TEST(rows_that_are_left_out_are_said)
{
    const test_engine engine = {.model = test_golden_model(),
                                .T = T,
                                .tier = "float32",
                                .show = show_few_rows,
                                .but = {"*.attn.scores", "*.attn.probs"}};
    judged j = judge(test_engine_dump(&engine), "float32");
    assert_says(&j, "1 of 412 tensors hold some positions only, layers.11.output 6 of 12: the "
                    "others are not covered");
    judged_free(&j);
}
END_TEST

/* Of every tensor, or of what engines trim, only one position. */
static size_t shown_position;
static bool only_where_engines_trim;

static void show_one_row(const test_engine *engine, gemma4_tap_event *e)
{
    bool at_end = gemma4_tap_describe(e->tap)->per_layer
                      ? e->layer + 1 == engine->model->config.num_hidden_layers
                      : e->tap != GEMMA4_TAP_EMBED;
    if (e->rows != T || (only_where_engines_trim && !at_end))
        return;
    e->row = shown_position;
    e->rows = 1;
    if (e->ids)
        e->ids += shown_position * e->dims[0] * e->dims[1];
    else
        e->values += shown_position * e->dims[0] * e->dims[1];
}

/* All names are there, and all values are right: at one position, or at the last one where engines
 * trim what they compute. */
static const struct {
    size_t position;
    bool only_at_end;
    gemma4_level required;
    const char *shortfall;
} IN_PART[] = {
    {0, false, GEMMA4_FULL_LEVEL, "--require full: 373 of the required tensors hold some"},
    {0, false, GEMMA4_LAYERS_LEVEL, "--require layers: 13 of the required tensors hold some"},
    {T - 1, false, GEMMA4_LAYERS_LEVEL, "--require layers: 11 of the required tensors hold some"},
    {0, true, GEMMA4_LAYERS_LEVEL, "--require layers: 2 of the required tensors hold some"},
    {T - 1, true, GEMMA4_FULL_LEVEL, ""},
    {T - 1, true, GEMMA4_LAYERS_LEVEL, ""},
    {0, false, GEMMA4_LOGITS_LEVEL, ""},
};

START_TEST(a_level_that_is_required_is_of_all_positions)
{
    const test_engine engine = {.model = test_golden_model(),
                                .T = T,
                                .tier = "float32",
                                .show = show_one_row,
                                .but = {"*.attn.scores", "*.attn.probs"}};
    shown_position = IN_PART[_i].position;
    only_where_engines_trim = IN_PART[_i].only_at_end;
    judged j = judge(test_engine_dump(&engine), "float32");
    ck_assert_int_eq(j.report.level, GEMMA4_FULL_LEVEL);
    ck_assert_msg(j.report.conforms, "%s", j.text);
    j.report.required = IN_PART[_i].required;
    ck_assert_int_eq(gemma4_falls_short(&j.report), *IN_PART[_i].shortfall != '\0');
    ck_assert_msg(!strncmp(gemma4_shortfall(&j.report).text, IN_PART[_i].shortfall,
                           strlen(IN_PART[_i].shortfall)),
                  "%s", gemma4_shortfall(&j.report).text);
    judged_free(&j);
}
END_TEST

/* So few tokens that a wrong engine is right on them. */
START_TEST(tokens_that_show_little_are_said)
{
    static const struct {
        size_t T;
        const char *said;
    } few[] = {{1, "warning    one position only: what attention does between positions"},
               {T, "note       12 positions do not reach beyond the window of 16"}};
    const test_engine engine = {.model = test_golden_model(),
                                .T = few[_i].T,
                                .tier = "float32",
                                .but = {"*.attn.scores", "*.attn.probs"}};
    judged j = judge(test_engine_dump(&engine), "float32");
    assert_says(&j, few[_i].said);
    judged_free(&j);
}
END_TEST

START_TEST(tokens_beyond_the_window_need_no_words)
{
    const test_engine engine = {
        .model = test_golden_model(), .T = 17, .tier = "float32", .taps = {"embed", "logits"}};
    judged j = judge(test_engine_dump(&engine), "float32");
    ck_assert_ptr_null(strstr(j.text, "the window"));
    judged_free(&j);
}
END_TEST

/* --- what the dump says of itself --- */

/* A case of chunks, of which the dump was fed otherwise, or does not say. */
static const struct {
    const char *schedule, *said;
} FED[] = {
    {"44", "warning    the dump says that the tokens were fed in 1 chunk, the case wants 5"},
    {"7,1,20,13,3", "warning    the dump says that the tokens were fed in 5 chunks"},
    {"7,1,20,3,12,1", "warning    the dump says that the tokens were fed in 6 chunks"},
    {"12", "note       the dump does not say in which chunks the tokens were fed"},
    {NULL, "note       the dump does not say in which chunks the tokens were fed"},
    {"7,1,20,3,13", NULL},
};

/* The path of a copy of the case's golden that says so of itself; NULL: nothing. */
static char *golden_with_schedule(const gemma4_case *c, const char *schedule)
{
    char *path = test_join(test_fresh_dir(), "dump.h5");
    hid_t file = H5Fopen(c->golden_path, H5F_ACC_RDONLY, H5P_DEFAULT);
    ssize_t length = H5Fget_file_image(file, NULL, 0);
    ck_assert(file >= 0 && length > 0);
    void *image = malloc((size_t)length);
    ck_assert(image && H5Fget_file_image(file, image, (size_t)length) == length);
    test_write(path, image, (size_t)length);
    H5Fclose(file);
    free(image);
    file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    ck_assert(file >= 0 && H5Adelete(file, "schedule") >= 0);
    if (schedule) {
        hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
        H5Tset_size(type, strlen(schedule) + 1);
        hid_t said = H5Acreate2(file, "schedule", type, space, H5P_DEFAULT, H5P_DEFAULT);
        ck_assert(said >= 0 && H5Awrite(said, type, schedule) >= 0);
        H5Aclose(said);
        H5Sclose(space);
        H5Tclose(type);
    }
    ck_assert(H5Fclose(file) >= 0);
    return path;
}

START_TEST(a_schedule_other_than_the_cases_is_said)
{
    gemma4_error error = {""};
    gemma4_case *c = gemma4_case_open("tiny-chunks", &error);
    ck_assert_msg(c && gemma4_case_provide_checkpoint(c, &error) == 0, "%s", error.message);
    gemma4_model *model = gemma4_model_open(c->checkpoint_dir, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    const char *path = golden_with_schedule(c, FED[_i].schedule);
    judged j = {.dump = gemma4_activations_open(path, &model->config, &error)};
    ck_assert_msg(j.dump != NULL, "%s", error.message);
    const gemma4_judgement judgement = {.the_case = c,
                                        .model = model,
                                        .engine = j.dump,
                                        .dtype = "float32",
                                        .without_causes = true};
    ck_assert_msg(gemma4_judge(&judgement, &j.report, &error) == 0, "%s", error.message);
    j.text = test_printed(print_text, &j.report);
    if (FED[_i].said)
        assert_says(&j, FED[_i].said);
    else
        ck_assert_ptr_null(strstr(j.text, "were fed"));
    judged_free(&j);
    gemma4_model_close(model);
    gemma4_case_close(c);
}
END_TEST

/* The values are bfloat16's, the label says float32. */
START_TEST(a_dtype_finer_than_the_values_fails)
{
    const test_engine engine = {.model = test_golden_model(),
                                .T = T,
                                .tier = "bfloat16",
                                .attributes = {{"dtype", "float32"}},
                                .but = {"*.attn.scores", "*.attn.probs"}};
    judged j = judge(test_engine_dump(&engine), "float32");
    ck_assert(!j.report.conforms);
    assert_says(&j, "bfloat16");
    judged_free(&j);
}
END_TEST

/* The values are float32's, the label says a type with a wider tolerance. An engine may keep its
 * residual stream in float32 honestly, so that this is no failure. */
START_TEST(a_dtype_coarser_than_the_values_is_said)
{
    static const char *const dtypes[] = {"bfloat16", "float16"};
    const test_engine engine = {.model = test_golden_model(),
                                .T = T,
                                .tier = "float32",
                                .attributes = {{"dtype", dtypes[_i]}},
                                .but = {"*.attn.scores", "*.attn.probs"}};
    judged j = judge(test_engine_dump(&engine), dtypes[_i]);
    char expected[80];
    snprintf(expected, sizeof expected, "100 %% of the values that are stored wider than %s do not",
             dtypes[_i]);
    assert_says(&j, expected);
    ck_assert_msg(j.report.conforms, "%s", j.text);
    judged_free(&j);
}
END_TEST

START_TEST(values_of_their_own_dtype_need_no_words)
{
    static const char *const dtypes[] = {"float32", "bfloat16"};
    const test_engine engine = {.model = test_golden_model(),
                                .T = T,
                                .tier = dtypes[_i],
                                .store = "float32",
                                .attributes = {{"dtype", dtypes[_i]}},
                                .but = {"*.attn.scores", "*.attn.probs"}};
    judged j = judge(test_engine_dump(&engine), dtypes[_i]);
    ck_assert_ptr_null(strstr(j.text, "grid"));
    judged_free(&j);
}
END_TEST

/* A tolerance is widened by storing the values in fewer bits: it holds, but what it is worth is
 * said. */
START_TEST(storage_coarser_than_the_dtype_is_said)
{
    static const char *const stores[] = {"bfloat16", "float16"};
    const test_engine engine = {.model = test_golden_model(),
                                .T = T,
                                .tier = "float32",
                                .store = stores[_i],
                                .but = {"*.attn.scores", "*.attn.probs"}};
    judged j = judge(test_engine_dump(&engine), "float32");
    char expected[80];
    snprintf(expected, sizeof expected, "stored as %s, which is coarser than float32", stores[_i]);
    assert_says(&j, expected);
    judged_free(&j);
}
END_TEST

START_TEST(storage_as_fine_as_the_dtype_needs_no_words)
{
    static const char *const stores[] = {"bfloat16", "float32"};
    const test_engine engine = {.model = test_golden_model(),
                                .T = T,
                                .tier = "bfloat16",
                                .store = stores[_i],
                                .but = {"*.attn.scores", "*.attn.probs"}};
    judged j = judge(test_engine_dump(&engine), "bfloat16");
    ck_assert_ptr_null(strstr(j.text, "coarser than"));
    ck_assert_msg(j.report.conforms, "%s", j.text);
    judged_free(&j);
}
END_TEST

/* Every attribute that widens tolerances stands in the report beside the verdict. */
static const struct {
    const char *attribute, *value, *dtype, *said;
} WIDER[] = {
    {"engine", "x", "q4_0", "q4_0"},
    {"engine", "x", "bfloat16", "bfloat16"},
    {"kv_dtype", "q4_0", "float32", "kv_dtype says q4_0, which is coarser than float32"},
};

START_TEST(what_widens_a_tolerance_is_said)
{
    const test_engine engine = {.model = test_golden_model(),
                                .T = T,
                                .tier = "float32",
                                .attributes = {{WIDER[_i].attribute, WIDER[_i].value}},
                                .but = {"*.attn.scores", "*.attn.probs"}};
    judged j = judge(test_engine_dump(&engine), WIDER[_i].dtype);
    assert_says(&j, WIDER[_i].said);
    judged_free(&j);
}
END_TEST

/* --- one dataset, several names --- */

static const struct {
    const char *dataset, *also, *at;
} LINKED[] = {
    {"/layers/5/attn/q_norm", "/layers/5/attn/q_rope", "layers.5.attn.q_rope"},
    {"/layers/5/attn/q", "/layers/5/attn/q_norm", "layers.5.attn.q_norm"},
    {"/layers/3/output", "/layers/4/output", "layers.4.output"},
    {"/layers/3/mlp/norm", "/layers/3/moe/norm", "layers.3.moe.norm"},
    {"/layers/4/router/topk_ids", "/layers/6/router/topk_ids", "layers.6.router.topk_ids"},
};

START_TEST(one_dataset_under_two_names_is_not_two)
{
    const test_engine engine = {.model = test_golden_model(),
                                .T = T,
                                .tier = "float32",
                                .but = {"*.attn.scores", "*.attn.probs", "layers.*.input"}};
    char *path = test_engine_dump(&engine);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    ck_assert(file >= 0 && H5Ldelete(file, LINKED[_i].also, H5P_DEFAULT) >= 0);
    ck_assert(H5Lcreate_hard(file, LINKED[_i].dataset, file, LINKED[_i].also, H5P_DEFAULT,
                             H5P_DEFAULT) >= 0);
    ck_assert(H5Fclose(file) >= 0);
    judged j = judge(path, "float32");
    ck_assert_msg(!j.report.conforms, "%s as %s: conforms", LINKED[_i].dataset, LINKED[_i].also);
    ck_assert_str_eq(first_of(&j), LINKED[_i].at);
    judged_free(&j);
}
END_TEST

/* --- errors just below each bound, that add up --- */

/* The residual stream is a little too large after every block: by how much is the test's number, in
 * units of float32's rounding. */
static double too_large;

static void grow(const test_engine *engine, gemma4_tap_event *e)
{
    (void)engine;
    if (e->tap == GEMMA4_TAP_ATTN_RESIDUAL || e->tap == GEMMA4_TAP_FFN_RESIDUAL ||
        e->tap == GEMMA4_TAP_LAYER_OUTPUT)
        scale(e, 1 + too_large * 5.96e-8);
}

/* The growth doubles until it fails: before that, the worst that passes is still beside honest
 * engines' spread at the end. */
START_TEST(small_biases_in_one_direction_do_not_add_up_to_much)
{
    const test_engine engine = {.model = test_golden_model(),
                                .T = T,
                                .tier = "float32",
                                .compute = grow,
                                .but = {"*.attn.scores", "*.attn.probs"}};
    double passed = 0;
    bool failed = false;
    for (too_large = 0.5; too_large < 200 && !failed; too_large *= 2) {
        judged j = judge(test_engine_dump(&engine), "float32");
        const gemma4_tap_result *last = NULL;
        for (size_t i = 0; i < j.report.tap_count; i++)
            if (j.report.taps[i].tap == GEMMA4_TAP_LOGITS)
                last = &j.report.taps[i];
        ck_assert_ptr_nonnull(last);
        failed = !j.report.conforms;
        if (!failed && too_large > passed)
            passed = last->accumulated.error;
        judged_free(&j);
    }
    ck_assert_msg(failed, "nothing fails");
    /* what honest float32 engines differ by */
    ck_assert_msg(passed < 1e-5, "logits may be off by %g", passed);
}
END_TEST

Suite *lies_suite(void)
{
    Suite *suite = suite_create("lies");
    TCase *c = tcase_create("lies");
    tcase_add_loop_test(c, right_values_under_all_other_names_hide_nothing, 0,
                        sizeof COPIED / sizeof *COPIED);
    tcase_add_loop_test(c, a_seam_between_copied_and_computed_values_shows, 0,
                        sizeof HALF_COPIED / sizeof *HALF_COPIED);
    tcase_add_test(c, leaving_out_what_is_wrong_is_said);
    tcase_add_test(c, rows_that_are_left_out_are_said);
    tcase_add_loop_test(c, a_level_that_is_required_is_of_all_positions, 0,
                        sizeof IN_PART / sizeof *IN_PART);
    tcase_add_loop_test(c, tokens_that_show_little_are_said, 0, 2);
    tcase_add_test(c, tokens_beyond_the_window_need_no_words);
    tcase_add_loop_test(c, a_schedule_other_than_the_cases_is_said, 0, sizeof FED / sizeof *FED);
    tcase_add_test(c, a_dtype_finer_than_the_values_fails);
    tcase_add_loop_test(c, a_dtype_coarser_than_the_values_is_said, 0, 2);
    tcase_add_loop_test(c, values_of_their_own_dtype_need_no_words, 0, 2);
    tcase_add_loop_test(c, storage_coarser_than_the_dtype_is_said, 0, 2);
    tcase_add_loop_test(c, storage_as_fine_as_the_dtype_needs_no_words, 0, 2);
    tcase_add_loop_test(c, what_widens_a_tolerance_is_said, 0, sizeof WIDER / sizeof *WIDER);
    tcase_add_loop_test(c, one_dataset_under_two_names_is_not_two, 0,
                        sizeof LINKED / sizeof *LINKED);
    tcase_add_test(c, small_biases_in_one_direction_do_not_add_up_to_much);
    suite_add_tcase(suite, c);
    return suite;
}
