/* Mistakes of the dump (tests/check/recognise.h): each is recognised and said once, in the tensors
 * where it was made and in no other; what an honest dump or a mistake of the engine looks like is
 * never called one. */
#include "activations.h"
#include "block_run.h"
#include "causes.h"
#include "diagnose.h"
#include "forward.h"
#include "judge.h"
#include "ops.h"
#include "planted_engine.h"
#include "recognise.h"
#include "report.h"
#include "report_html.h"
#include "reports.h"
#include "rows.h"
#include "suites.h"
#include "support.h"
#include "synth.h"

#include <fnmatch.h>
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

enum { T = 12, LAYERS = 12, D_MODEL = 64, K = 4, V = 256, MOST_T = 16 };

/* Opened before the tests are forked. */
static gemma4_case *the_case;
static gemma4_model *model;
static gemma4_activations *golden;

/* --- what an engine holds --- */

typedef struct tensor {
    size_t rank, dims[3], width; /* [T, dims...] */
    float *values;               /* [T, width]; NULL for ids */
    int32_t *ids;
} tensor;

typedef struct engine {
    const gemma4_model *model;
    size_t positions;
    tensor tensors[GEMMA4_TAP_COUNT][LAYERS]; /* layer 0 for taps outside the layers */
} engine;

static engine right; /* the reference on the case's tokens */

static tensor *tensor_of(engine *e, gemma4_tap tap, size_t layer)
{
    return &e->tensors[tap][gemma4_tap_describe(tap)->per_layer ? layer : 0];
}

static int collect(void *context, gemma4_tap_event *event, gemma4_error *error)
{
    engine *e = context;
    tensor *t = tensor_of(e, event->tap, event->layer);
    (void)error;
    t->rank =
        1 + gemma4_tap_dims(&e->model->config, event->tap, event->layer, e->positions, t->dims + 1);
    t->dims[0] = e->positions;
    t->width = t->dims[1] * t->dims[2];
    if (event->ids) {
        t->ids = t->ids ? t->ids : calloc(e->positions * t->width, sizeof *t->ids);
        memcpy(t->ids + event->row * t->width, event->ids, event->rows * t->width * sizeof *t->ids);
        return 0;
    }
    t->values = t->values ? t->values : calloc(e->positions * t->width, sizeof *t->values);
    gemma4_keep_event(t->values, event, t->width, e->positions);
    return 0;
}

static engine run_engine(const gemma4_model *m, size_t positions)
{
    gemma4_error error = {""};
    engine e = {.model = m, .positions = positions};
    gemma4_session *session = gemma4_session_new(m, 0, positions, &error);
    ck_assert_msg(session != NULL, "%s", error.message);
    gemma4_session_set_hook(session, collect, &e);
    ck_assert_msg(gemma4_forward(session, the_case->tokens, positions, positions, NULL, &error) ==
                      0,
                  "%s", error.message);
    gemma4_session_free(session);
    return e;
}

static void free_engine(engine *e)
{
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        for (size_t layer = 0; layer < LAYERS; layer++) {
            free(e->tensors[tap][layer].values);
            free(e->tensors[tap][layer].ids);
        }
}

/* --- a dump of it, written with the HDF5 library itself --- */

typedef struct tensor_edit {
    float *values; /* [T, width], may be changed */
    int32_t *ids;
    size_t rows, width;
    size_t rank, dims[4]; /* what is written; its product is as large as the tensor or smaller */
    hid_t type;
    const int *rows_attribute; /* [dims[0]] */
} tensor_edit;

/* How a dump differs from what the engine holds. */
typedef struct dump {
    const char *taps[4];                                       /* globs of what is dumped; none:
                                                                  everything */
    const char *edited[4];                                     /* globs of the tensors that edit is
                                                                  for; none: everything */
    void (*edit)(const tensor *from, tensor_edit *to, int by); /* NULL: dumped as it is */
    int by;
    const char *dtype; /* attribute; NULL: float32 */
} dump;

static bool matches(const char *const *globs, const char *name)
{
    for (size_t i = 0; i < 4 && globs[i]; i++)
        if (fnmatch(globs[i], name, 0) == 0)
            return true;
    return globs[0] == NULL;
}

static void put_attribute(hid_t object, const char *name, hid_t type, const void *value,
                          hsize_t count)
{
    hid_t space = count ? H5Screate_simple(1, &count, NULL) : H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    ck_assert(attribute >= 0 && H5Awrite(attribute, type, value) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
}

static void put_string(hid_t object, const char *name, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(text) + 1);
    put_attribute(object, name, type, text, 0);
    H5Tclose(type);
}

static void put(hid_t file, const char *tap, const tensor_edit *t)
{
    char path[GEMMA4_TAP_NAME_SIZE];
    hsize_t dims[4];
    for (size_t i = 0; i < t->rank; i++)
        dims[i] = t->dims[i];
    snprintf(path, sizeof path, "%s", tap);
    for (char *c = path; *c; c++)
        *c = *c == '.' ? '/' : *c;
    hid_t links = H5Pcreate(H5P_LINK_CREATE), space = H5Screate_simple((int)t->rank, dims, NULL);
    H5Pset_create_intermediate_group(links, 1);
    hid_t dataset = H5Dcreate2(file, path, t->type, space, links, H5P_DEFAULT, H5P_DEFAULT);
    ck_assert(dataset >= 0 &&
              H5Dwrite(dataset, t->ids ? H5T_NATIVE_INT32 : H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL,
                       H5P_DEFAULT, t->ids ? (const void *)t->ids : (const void *)t->values) >= 0);
    if (t->rows_attribute)
        put_attribute(dataset, "rows", H5T_NATIVE_INT, t->rows_attribute, t->dims[0]);
    H5Dclose(dataset);
    H5Sclose(space);
    H5Pclose(links);
}

/* Room for a batch of two is after the values. */
static void put_tensor(hid_t file, const char *name, const tensor *from, const dump *d)
{
    size_t n = from->dims[0] * from->width;
    tensor_edit to = {.rows = from->dims[0],
                      .width = from->width,
                      .rank = from->rank,
                      .dims = {from->dims[0], from->dims[1], from->dims[2]},
                      .type = from->ids ? H5T_STD_I32LE : H5T_IEEE_F32LE};
    to.values = from->ids ? NULL : calloc(2 * n, sizeof *to.values);
    to.ids = from->ids ? calloc(2 * n, sizeof *to.ids) : NULL;
    ck_assert(to.values || to.ids);
    memcpy(to.ids ? (void *)to.ids : (void *)to.values,
           from->ids ? (const void *)from->ids : (const void *)from->values, n * 4);
    if (d->edit && matches(d->edited, name))
        d->edit(from, &to, d->by);
    put(file, name, &to);
    free(to.values);
    free(to.ids);
}

static char *write_dump(const engine *e, const dump *d)
{
    const int version = 1;
    char *path = test_join(test_fresh_dir(), "dump.h5"), name[GEMMA4_TAP_NAME_SIZE];
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    ck_assert(file >= 0);
    put_string(file, "format", "gemma4-activations");
    put_attribute(file, "format_version", H5T_NATIVE_INT, &version, 0);
    put_string(file, "dtype", d->dtype ? d->dtype : "float32");
    tensor_edit tokens = {.ids = (int32_t *)the_case->tokens,
                          .rank = 1,
                          .dims = {e->positions},
                          .type = H5T_STD_I32LE};
    put(file, "tokens", &tokens);
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        for (size_t layer = 0; layer < LAYERS; layer++) {
            const tensor *t = &e->tensors[tap][layer];
            gemma4_tap_name((gemma4_tap)tap, layer, name);
            if ((t->values || t->ids) && matches(d->taps, name))
                put_tensor(file, name, t, d);
        }
    ck_assert(H5Fclose(file) >= 0);
    return path;
}

/* --- judging --- */

typedef struct judged {
    gemma4_activations *file;
    gemma4_report report;
} judged;

static judged judge(const char *path, const gemma4_model *m, const char *dtype, bool by_golden,
                    bool without_causes)
{
    gemma4_error error = {""};
    judged j = {.file = gemma4_activations_open(path, &m->config, &error)};
    ck_assert_msg(j.file != NULL, "%s", error.message);
    const gemma4_judgement judgement = {.the_case = by_golden ? the_case : NULL,
                                        .golden = by_golden ? golden : NULL,
                                        .model = m,
                                        .engine = j.file,
                                        .dtype = dtype,
                                        .without_causes = without_causes};
    ck_assert_msg(gemma4_judge(&judgement, &j.report, &error) == 0, "%s", error.message);
    return j;
}

static judged judge_dump(const dump *d)
{
    return judge(write_dump(&right, d), model, d->dtype ? d->dtype : "float32", true, false);
}

static void release(judged *j)
{
    gemma4_report_free(&j->report);
    gemma4_activations_close(j->file);
}

static bool recognises_nothing(const gemma4_report *report)
{
    for (size_t i = 0; i < gemma4_cause_count(report->diagnosis); i++)
        if (gemma4_cause_at(report->diagnosis, i)->of_dump)
            return false;
    for (size_t i = 0; i < report->warning_count; i++) /* what a dump says of itself is no
                                                          mistake */
        if (!strstr(report->warnings[i], "are stored as ") &&
            !strstr(report->warnings[i], "hold some positions only") &&
            !strstr(report->warnings[i], "one position only"))
            return false;
    return true;
}

/* One cause, with that text, at exactly the failing taps. */
static void assert_one_sentence(const judged *j, const char *text, const char *first, size_t taps)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    size_t failed = 0;
    ck_assert_uint_eq(gemma4_cause_count(j->report.diagnosis), 1);
    const gemma4_cause *cause = gemma4_cause_at(j->report.diagnosis, 0);
    ck_assert(!cause->explained && cause->of_dump && !j->report.conforms);
    ck_assert_msg(strstr(cause->description, text) != NULL, "\"%s\" is not in: %s", text,
                  cause->description);
    ck_assert_str_eq(gemma4_tap_name(cause->tap, cause->first_layer, name), first);
    for (size_t i = 0; i < j->report.tap_count; i++)
        failed += j->report.taps[i].verdict == GEMMA4_DIVERGES;
    ck_assert_uint_eq(failed, taps);
    ck_assert_uint_eq(cause->taps, taps);
}

/* --- by shape --- */

/* The shape of the table's row at hand. */
static const size_t *shape_at_hand;

static void with_shape(const tensor *from, tensor_edit *to, int rank)
{
    (void)from;
    to->rank = (size_t)rank;
    memcpy(to->dims, shape_at_hand, sizeof to->dims);
}

static const struct {
    const char *tap;
    int rank;
    size_t dims[4];
    const char *problem;
} SHAPES[] = {
    {"layers.0.attn.q",
     3,
     {12, 16, 4},
     "axes in the order D, H: expected [12, 4, 16], found [12, 16, 4]; transpose"},
    {"layers.0.attn.q",
     3,
     {4, 12, 16},
     "axes in the order H, T, D: expected [12, 4, 16], found [4, 12, 16]; transpose"},
    {"layers.0.attn.q",
     4,
     {1, 4, 12, 16},
     "axes in the order H, T, D: expected [12, 4, 16], found [1, 4, 12, 16]; transpose"},
    {"layers.0.attn.k_rope",
     3,
     {16, 2, 12},
     "axes in the order D, G, T: expected [12, 2, 16], found [16, 2, 12]; transpose"},
    {"layers.5.attn.k_norm",
     3,
     {12, 32, 1},
     "axes in the order D, G: expected [12, 1, 32], found [12, 32, 1]; transpose"},
    {"layers.0.attn.q",
     2,
     {64, 12},
     "axes in the order H*D, T: expected [12, 4, 16], found [64, 12]; transpose"},
    {"layers.3.attn.scores",
     3,
     {4, 12, 12},
     "axes in the order H, T, T: expected [12, 4, 12], found [4, 12, 12]; transpose"},
    {"layers.3.moe.act",
     3,
     {4, 12, 32},
     "axes in the order K, T, M: expected [12, 4, 32], found [4, 12, 32]; transpose"},
    {"embed", 2, {64, 12}, "axes in the order d, T: expected [12, 64], found [64, 12]; transpose"},
    {"layers.2.router.topk_ids",
     2,
     {4, 12},
     "axes in the order K, T: expected [12, 4], found [4, 12]; transpose"},
    {"embed",
     3,
     {2, 12, 64},
     "a batch of 2: expected [12, 64], found [2, 12, 64]; keep one sequence"},
    {"layers.0.attn.q",
     4,
     {2, 12, 4, 16},
     "a batch of 2: expected [12, 4, 16], found [2, 12, 4, 16]; keep one sequence"},
    {"layers.0.attn.q",
     3,
     {2, 12, 64},
     "a batch of 2: expected [12, 4, 16], found [2, 12, 64]; keep one sequence"},
    {"layers.4.output",
     3,
     {12, 1, 64},
     "an axis of length 1 after the positions: expected [12, 64], found [12, 1, 64]; drop it"},
    {"logits",
     2,
     {1, 256},
     "1 row: expected [12, 256], found [1, 256]; an engine that keeps the last position only adds "
     "the attribute rows=[11]"},
    {"logits",
     1,
     {256},
     "1 row: expected [12, 256], found [256]; an engine that keeps the last position only adds the "
     "attribute rows=[11]"},
    {"layers.11.output",
     2,
     {3, 64},
     "3 rows: expected [12, 64], found [3, 64]; an engine that keeps the last positions only adds "
     "the attribute rows=[9 ... 11]"},
    {"logits",
     2,
     {16, 256},
     "16 rows for 12 positions: expected [12, 256], found [16, 256]; leave out the padding"},
};

START_TEST(a_shape_says_what_is_wrong)
{
    const dump d = {.taps = {"layers.[0-5].*", "embed", "layers.11.output", "logits"},
                    .edited = {SHAPES[_i].tap},
                    .edit = with_shape,
                    .by = SHAPES[_i].rank};
    shape_at_hand = SHAPES[_i].dims;
    judged j = judge_dump(&d);
    assert_one_sentence(&j, SHAPES[_i].problem, SHAPES[_i].tap, 1);
    ck_assert_str_eq(j.report.first_divergence->problem, SHAPES[_i].problem);
    ck_assert_int_eq(j.report.first_divergence->local.kind, GEMMA4_METRIC_SHAPE);
    release(&j);
}
END_TEST

static const int last_row[] = {11};

static void two_rows_called_one(const tensor *from, tensor_edit *to, int by)
{
    (void)from, (void)by;
    to->dims[0] = 1;
    to->dims[1] = 2 * V;
    to->rows_attribute = last_row;
}

static void of_integers(const tensor *from, tensor_edit *to, int by)
{
    static int32_t zeros[2 * T * V];
    (void)from, (void)by;
    free(to->values);
    to->values = NULL;
    to->ids = memcpy(calloc(2 * T * V, sizeof *zeros), zeros, sizeof zeros);
    to->type = H5T_STD_I32LE;
    to->rank = 1;
    to->dims[0] = V;
}

/* Another number of experts is no mistake of the dump, nor is what the attribute rows contradicts,
 * nor another type. */
static const struct {
    const char *tap;
    int rank;
    size_t dims[4];
    void (*edit)(const tensor *, tensor_edit *, int);
    const char *problem;
} OTHER_SHAPES[] = {
    {"layers.0.router.logits", 2, {12, 15}, with_shape, "expected [12, 16], found [12, 15]"},
    {"layers.0.attn.q", 3, {12, 4, 15}, with_shape, "expected [12, 4, 16], found [12, 4, 15]"},
    {"layers.0.attn.q", 4, {2, 3, 4, 16}, with_shape, "expected [12, 4, 16], found [2, 3, 4, 16]"},
    {"logits", 0, {0}, two_rows_called_one, "expected [1, 256], found [1, 512]"},
    {"logits", 0, {0}, of_integers, "expected a float type, found int32"},
};

START_TEST(another_shape_says_what_was_expected)
{
    const dump d = {.taps = {"layers.0.*", "logits"},
                    .edited = {OTHER_SHAPES[_i].tap},
                    .edit = OTHER_SHAPES[_i].edit,
                    .by = OTHER_SHAPES[_i].rank};
    shape_at_hand = OTHER_SHAPES[_i].dims;
    judged j = judge_dump(&d);
    ck_assert_str_eq(j.report.first_divergence->problem, OTHER_SHAPES[_i].problem);
    ck_assert(recognises_nothing(&j.report));
    release(&j);
}
END_TEST

static void last_row_only(const tensor *from, tensor_edit *to, int by)
{
    (void)by;
    memcpy(to->values, from->values + (to->rows - 1) * to->width, to->width * sizeof *to->values);
    to->dims[0] = 1;
    to->rows_attribute = last_row;
}

START_TEST(the_last_row_with_its_attribute_conforms)
{
    const dump d = {.taps = {"layers.11.*", "logits"}, .edited = {"logits"}, .edit = last_row_only};
    judged j = judge_dump(&d);
    ck_assert(j.report.conforms && recognises_nothing(&j.report));
    release(&j);
}
END_TEST

/* --- by value --- */

/* The axes of the values in another order, under the shape that is due; by: the order's digits. */
static void reordered(const tensor *from, tensor_edit *to, int by)
{
    const int order[3] = {by / 100, by / 10 % 10, by % 10};
    size_t n[3] = {from->dims[0], from->dims[1], from->dims[2]}, x[3], at = 0;
    for (x[order[0]] = 0; x[order[0]] < n[order[0]]; x[order[0]]++)
        for (x[order[1]] = 0; x[order[1]] < n[order[1]]; x[order[1]]++)
            for (x[order[2]] = 0; x[order[2]] < n[order[2]]; x[order[2]]++)
                to->values[at++] = from->values[(x[0] * n[1] + x[1]) * n[2] + x[2]];
}

/* Row t holds position t + by; rows for which there is none hold the one at the other end. */
static void shifted(const tensor *from, tensor_edit *to, int by)
{
    for (size_t t = 0; t < to->rows; t++) {
        size_t position = (t + to->rows + (size_t)(by + (int)to->rows)) % to->rows;
        for (size_t i = 0; i < to->width; i++)
            if (to->ids)
                to->ids[t * to->width + i] = from->ids[position * to->width + i];
            else
                to->values[t * to->width + i] = from->values[position * to->width + i];
    }
}

static double log_sum(const float *row, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)row[i]);
    return log(sum);
}

/* by: a thousandth of what is added to each logarithm. */
static void log_probabilities(const tensor *from, tensor_edit *to, int by)
{
    for (size_t t = 0; t < to->rows; t++) {
        double sum = log_sum(from->values + t * V, V);
        for (size_t i = t * V; i < (t + 1) * V; i++)
            to->values[i] = (float)((double)from->values[i] - sum + by / 1000.0);
    }
}

static void probabilities(const tensor *from, tensor_edit *to, int by)
{
    log_probabilities(from, to, by);
    for (size_t i = 0; i < to->rows * V; i++)
        to->values[i] = expf(to->values[i]);
}

#define FROM_T_M(by) "the rows are shifted: row t holds what is expected at position t " by

static const struct {
    dump dump;
    const char *text, *first;
    size_t taps;
} BY_VALUE[] = {
    {{.edited = {"layers.3.attn.q"}, .edit = reordered, .by = 21},
     "the values are in the order of axes D, H",
     "layers.3.attn.q",
     1},
    {{.edited = {"layers.*.attn.q", "layers.*.attn.q_rope", "layers.2.attn.k_norm"},
      .edit = reordered,
      .by = 21},
     "axes D, H",
     "layers.0.attn.q",
     25},
    {{.edited = {"layers.7.attn.context", "layers.1.attn.scores", "layers.1.attn.probs"},
      .edit = reordered,
      .by = 21},
     "axes T, H",
     "layers.1.attn.scores",
     3},
    {{.edited = {"layers.4.moe.act"}, .edit = reordered, .by = 21},
     "axes M, K",
     "layers.4.moe.act",
     1},
    {{.edited = {"logits"}, .edit = shifted, .by = 1}, FROM_T_M("+ 1"), "logits", 1},
    {{.edited = {"logits"}, .edit = shifted, .by = -1}, FROM_T_M("- 1"), "logits", 1},
    {{.taps = {"logits"}, .edit = shifted, .by = 1}, FROM_T_M("+ 1"), "logits", 1},
    {{.edited = {"embed"}, .edit = shifted, .by = 2}, FROM_T_M("+ 2"), "embed", 1},
    {{.taps = {"layers.*.output", "logits"},
      .edited = {"layers.*.output"},
      .edit = shifted,
      .by = -1},
     FROM_T_M("- 1"),
     "layers.0.output",
     12},
    {{.edited = {"layers.[34].attn.q", "layers.3.output"}, .edit = shifted, .by = 4},
     FROM_T_M("+ 4"),
     "layers.3.attn.q",
     3},
    {{.edited = {"layers.6.router.topk_ids"}, .edit = shifted, .by = 1},
     FROM_T_M("+ 1"),
     "layers.6.router.topk_ids",
     1},
    {{.edited = {"layers.6.router.topk_*", "layers.6.moe.act"}, .edit = shifted, .by = 1},
     FROM_T_M("+ 1"),
     "layers.6.router.topk_ids",
     4},
    {{.edited = {"logits"}, .edit = log_probabilities},
     "log-probabilities instead of logits",
     "logits",
     1},
    {{.edited = {"logits"}, .edit = log_probabilities, .by = 8},
     "log-probabilities instead of logits",
     "logits",
     1},
    {{.taps = {"logits"}, .edit = log_probabilities},
     "log-probabilities instead of logits",
     "logits",
     1},
    {{.edited = {"logits"}, .edit = probabilities}, ": their logarithms, with", "logits", 1},
    {{.taps = {"layers.*.output", "logits"}, .edited = {"logits"}, .edit = probabilities},
     ": their logarithms, with",
     "logits",
     1},
};

START_TEST(values_say_what_is_wrong)
{
    judged j = judge_dump(&BY_VALUE[_i].dump);
    assert_one_sentence(&j, BY_VALUE[_i].text, BY_VALUE[_i].first, BY_VALUE[_i].taps);
    ck_assert_ptr_nonnull(strstr(j.report.first_divergence->problem, BY_VALUE[_i].text));
    release(&j);
}
END_TEST

/* Everything shifted: as where the first token was dropped. What no row is left for is not covered,
 * and all the rest of the engine is right. */
START_TEST(a_dump_that_is_shifted_as_a_whole_is_one_sentence)
{
    const dump d = {.edit = shifted, .by = 1};
    judged j = judge_dump(&d);
    assert_one_sentence(&j, FROM_T_M("+ 1"), "embed", gemma4_activations_count(j.file));
    release(&j);
}
END_TEST

/* As many positions as heads: the shape does not tell [H, T, D]. As many as the hidden size has
 * lanes would do the same to [d, T]. */
START_TEST(axes_of_one_length_are_told_by_value)
{
    engine e = run_engine(model, 4);
    const dump d = {.edited = {"layers.3.attn.q_norm"}, .edit = reordered, .by = 102};
    judged j = judge(write_dump(&e, &d), model, "float32", false, false);
    assert_one_sentence(
        &j, "the values are in the order of axes H, T, D instead of T, H, D: transposed",
        "layers.3.attn.q_norm", 1);
    release(&j);
    free_engine(&e);
}
END_TEST

/* A mistake of the engine after a tensor that was dumped wrongly is found where it is made: what
 * reads the tensor reads it put right. */
START_TEST(a_mistake_of_the_engine_is_found_beside_one_of_the_dump)
{
    engine e = run_engine(model, T);
    tensor *out = tensor_of(&e, GEMMA4_TAP_ATTN_OUT, 0),
           *residual = tensor_of(&e, GEMMA4_TAP_ATTN_RESIDUAL, 11);
    const dump d = {.taps = {"layers.0.*", "layers.11.*", "logits"},
                    .edited = {"layers.0.attn.context"},
                    .edit = shifted,
                    .by = 1};
    for (size_t i = 0; i < T * D_MODEL; i++)
        out->values[i] *= 1.5F;
    for (size_t i = 0; i < T * D_MODEL; i++)
        residual->values[i] *= 0.5F;
    judged j = judge(write_dump(&e, &d), model, "float32", true, true);
    char name[GEMMA4_TAP_NAME_SIZE], failed[200] = "";
    for (size_t i = 0; i < j.report.tap_count; i++)
        if (j.report.taps[i].verdict == GEMMA4_DIVERGES)
            snprintf(failed + strlen(failed), sizeof failed - strlen(failed), "%s ",
                     gemma4_tap_name(j.report.taps[i].tap, j.report.taps[i].layer, name));
    /* The edited copies feed nothing that was dumped: their readers differ too. */
    ck_assert_str_eq(failed, "layers.0.attn.context layers.0.attn.out layers.0.attn.post_norm "
                             "layers.11.attn.residual layers.11.mlp.norm "
                             "layers.11.router.norm layers.11.moe.norm layers.11.ffn.residual ");
    release(&j);
    free_engine(&e);
}
END_TEST

static void on_grid(const tensor *from, tensor_edit *to, int bits)
{
    for (size_t i = 0; to->values && i < to->rows * to->width; i++) {
        int exponent;
        double m = frexp((double)from->values[i], &exponent);
        to->values[i] = (float)ldexp(rint(ldexp(m, bits)), exponent - bits);
    }
}

/* What the shipped dump of a real engine holds. */
static engine load_engine(const char *path)
{
    gemma4_error error = {""};
    engine e = {.model = model, .positions = T};
    gemma4_activations *file = gemma4_activations_open(path, &model->config, &error);
    ck_assert_msg(file != NULL, "%s", error.message);
    for (size_t i = 0; i < gemma4_activations_count(file); i++) {
        const gemma4_activation *a = gemma4_activations_at(file, i);
        tensor *t = tensor_of(&e, a->tap, a->layer);
        *t = *tensor_of(&right, a->tap, a->layer);
        t->ids = t->ids ? calloc(T * t->width, sizeof *t->ids) : NULL;
        t->values = t->ids ? NULL : calloc(T * t->width, sizeof *t->values);
        ck_assert_int_eq(t->ids ? gemma4_activations_read_ids(file, a, 0, T, t->ids, &error)
                                : gemma4_activations_read(file, a, 0, T, t->values, &error),
                         0);
    }
    gemma4_activations_close(file);
    return e;
}

static void log_probabilities_on_grid(const tensor *from, tensor_edit *to, int bits)
{
    tensor copy = *from;
    log_probabilities(from, to, 0);
    copy.values = to->values;
    on_grid(&copy, to, bits);
}

/* Rounding that has gone through all layers, experts that flipped on the way. */
static const struct {
    dump dump;
    const char *text, *first;
    size_t taps;
} IN_BFLOAT16[] = {
    {{.edited = {"layers.*.attn.q"}, .edit = reordered, .by = 21},
     "axes D, H",
     "layers.0.attn.q",
     12},
    {{.edited = {"logits"}, .edit = shifted, .by = 1}, FROM_T_M("+ 1"), "logits", 1},
    {{.taps = {"layers.*.output", "logits"},
      .edited = {"layers.*.output"},
      .edit = shifted,
      .by = -1},
     FROM_T_M("- 1"),
     "layers.0.output",
     12},
    {{.edited = {"logits"}, .edit = log_probabilities_on_grid, .by = 8},
     "log-probabilities",
     "logits",
     1},
    {{.taps = {"logits"}, .edit = log_probabilities_on_grid, .by = 8},
     "log-probabilities",
     "logits",
     1},
    {{.edited = {"logits"}, .edit = probabilities}, ": their logarithms, with", "logits", 1},
};

START_TEST(values_of_a_real_engine_in_bfloat16_say_it_too)
{
    engine e = load_engine("golden/dumps/tiny-prompt-bfloat16.h5");
    dump d = IN_BFLOAT16[_i].dump;
    d.dtype = "bfloat16";
    judged j = judge(write_dump(&e, &d), model, "bfloat16", true, false);
    assert_one_sentence(&j, IN_BFLOAT16[_i].text, IN_BFLOAT16[_i].first, IN_BFLOAT16[_i].taps);
    release(&j);
    free_engine(&e);
}
END_TEST

/* And by the name of another arithmetic. */
START_TEST(a_real_engine_in_bfloat16_is_no_float32)
{
    engine e = load_engine("golden/dumps/tiny-prompt-bfloat16.h5");
    judged j = judge(write_dump(&e, &(dump){.dtype = NULL}), model, "float32", true, false);
    ck_assert_uint_eq(gemma4_cause_count(j.report.diagnosis), 1);
    ck_assert_ptr_nonnull(strstr(gemma4_cause_at(j.report.diagnosis, 0)->description,
                                 "of the values lie on the bfloat16 grid"));
    ck_assert_uint_eq(j.report.warning_count, 1);
    release(&j);
    free_engine(&e);
}
END_TEST

/* The engine itself computes heads and lanes in the other order, by weights that were loaded so:
 * what reads the tensor follows from it as it is. */
START_TEST(what_the_engine_goes_on_with_is_no_mistake_of_the_dump)
{
    engine e = run_engine(model, T), wrong = run_engine(model, T);
    static const gemma4_tap taps[] = {GEMMA4_TAP_ATTN_Q, GEMMA4_TAP_ATTN_Q_NORM};
    tensor *q = tensor_of(&wrong, GEMMA4_TAP_ATTN_Q, 3),
           *norm = tensor_of(&wrong, GEMMA4_TAP_ATTN_Q_NORM, 3);
    tensor_edit edit = {.values = q->values};
    reordered(tensor_of(&e, GEMMA4_TAP_ATTN_Q, 3), &edit, 21);
    gemma4_rmsnorm(norm->values, q->values, &model->layers[3].q_norm, T * 4, 16,
                   model->config.rms_norm_eps);
    const dump d = {.taps = {"layers.3.input", "layers.3.attn.q", "layers.3.attn.q_norm"}};
    judged j = judge(write_dump(&wrong, &d), model, "float32", true, true);
    ck_assert(!j.report.conforms && recognises_nothing(&j.report));
    ck_assert_int_eq(j.report.first_divergence->tap, taps[0]);
    for (size_t i = 0; i < j.report.tap_count; i++)
        ck_assert(j.report.taps[i].verdict != GEMMA4_DIVERGES || j.report.taps[i].tap == taps[0]);
    release(&j);
    free_engine(&e);
    free_engine(&wrong);
}
END_TEST

/* --- what is none --- */

static void noisy_shift(const tensor *from, tensor_edit *to, int percent)
{
    uint32_t state = 1;
    double sum = 0;
    shifted(from, to, 1);
    for (size_t i = 0; i < to->rows * to->width; i++)
        sum += (double)to->values[i] * (double)to->values[i];
    double rms = sqrt(sum / (double)(to->rows * to->width));
    for (size_t i = 0; i < to->rows * to->width; i++) {
        state = state * 1664525u + 1013904223u;
        to->values[i] +=
            (float)(rms * percent / 100.0 * (2.0 * (state >> 8) / 16777216.0 - 1) * sqrt(3));
    }
}

static const dump NONE[] = {
    {.edited = {"layers.3.attn.q"}, .edit = shifted, .by = 5}, /* further than is looked */
    {.taps = {"layers.3.*"}, .edited = {"layers.3.attn.q"}, .edit = noisy_shift, .by = 30},
    {.taps = {"logits"}, .edit = log_probabilities, .by = 12},
    {.taps = {"logits"}, .edit = probabilities, .by = 12},
};

START_TEST(what_is_only_near_to_a_mistake_is_none)
{
    judged j = judge(write_dump(&right, &NONE[_i]), model, "float32", true, true);
    ck_assert(!j.report.conforms && recognises_nothing(&j.report));
    release(&j);
}
END_TEST

START_TEST(a_shift_with_some_error_is_recognised)
{
    const dump d = {
        .taps = {"layers.3.*"}, .edited = {"layers.3.attn.q"}, .edit = noisy_shift, .by = 20};
    judged j = judge(write_dump(&right, &d), model, "float32", true, true);
    ck_assert(!recognises_nothing(&j.report));
    release(&j);
}
END_TEST

/* A tensor of random rows, of which part is the same at all positions, shifted by one position. */
static gemma4_dump_mistake recognise_random(size_t positions, double part_in_common)
{
    enum { WIDTH = 32 };
    gemma4_config config = model->config;
    gemma4_error error = {""};
    float expected[MOST_T * WIDTH], stored[MOST_T * WIDTH];
    bool rows[MOST_T];
    uint32_t state = 7;
    config.hidden_size = WIDTH;
    for (size_t i = 0; i < positions * WIDTH; i++) {
        state = state * 1664525u + 1013904223u;
        double own = 2.0 * (state >> 8) / 16777216.0 - 1;
        expected[i] =
            (float)(part_in_common * (double)(i % WIDTH % 5 - 2.0F) + (1 - part_in_common) * own);
    }
    for (size_t t = 0; t < positions; t++) {
        memcpy(stored + t * WIDTH, expected + (t + 1) % positions * WIDTH, WIDTH * sizeof *stored);
        rows[t] = true;
    }
    const gemma4_loaded loaded = {.config = &config,
                                  .tap = GEMMA4_TAP_EMBED,
                                  .T = positions,
                                  .width = WIDTH,
                                  .engine = stored,
                                  .stored_row = rows,
                                  .expected = expected};
    gemma4_dump_mistake mistake;
    ck_assert_int_eq(gemma4_recognise_loaded(&loaded, &mistake, &error), 0);
    return mistake;
}

/* Every fourth position is the same, and the last ones are not what they should be: a shift by four
 * would leave only the others. */
START_TEST(a_shift_that_only_moves_bad_rows_out_is_none)
{
    enum { POSITIONS = 9, WIDTH = 32 };
    gemma4_config config = model->config;
    gemma4_error error = {""};
    float expected[POSITIONS * WIDTH], stored[POSITIONS * WIDTH];
    bool rows[POSITIONS];
    uint32_t state = 5;
    config.hidden_size = WIDTH;
    for (size_t i = 0; i < POSITIONS * WIDTH; i++) {
        state = state * 1664525u + 1013904223u;
        expected[i] =
            i < 4 * WIDTH ? (float)(state >> 8) / 16777216.0F - 0.5F : expected[i - 4 * WIDTH];
        stored[i] = i < 5 * WIDTH ? expected[i] : -expected[i];
    }
    for (size_t t = 0; t < POSITIONS; t++)
        rows[t] = true;
    const gemma4_loaded loaded = {.config = &config,
                                  .tap = GEMMA4_TAP_EMBED,
                                  .T = POSITIONS,
                                  .width = WIDTH,
                                  .engine = stored,
                                  .stored_row = rows,
                                  .expected = expected};
    gemma4_dump_mistake mistake;
    ck_assert_int_eq(gemma4_recognise_loaded(&loaded, &mistake, &error), 0);
    ck_assert_int_eq(mistake.kind, GEMMA4_DUMP_AS_DUE);
}
END_TEST

/* As many positions as lanes: the shape does not tell [d, T]. */
START_TEST(a_square_that_is_transposed_is_told_by_value)
{
    enum { WIDTH = MOST_T };
    gemma4_config config = model->config;
    gemma4_error error = {""};
    float expected[WIDTH * WIDTH], stored[WIDTH * WIDTH];
    bool rows[WIDTH];
    uint32_t state = 3;
    config.hidden_size = WIDTH;
    for (size_t t = 0; t < WIDTH; t++) {
        rows[t] = true;
        for (size_t i = 0; i < WIDTH; i++) {
            state = state * 1664525u + 1013904223u;
            expected[t * WIDTH + i] = stored[i * WIDTH + t] = (float)(state >> 8);
        }
    }
    const gemma4_loaded loaded = {.config = &config,
                                  .tap = GEMMA4_TAP_EMBED,
                                  .T = WIDTH,
                                  .width = WIDTH,
                                  .engine = stored,
                                  .stored_row = rows,
                                  .expected = expected};
    gemma4_dump_mistake mistake;
    char text[GEMMA4_RECOGNISED_SIZE];
    ck_assert_int_eq(gemma4_recognise_loaded(&loaded, &mistake, &error), 0);
    gemma4_describe_loaded(GEMMA4_TAP_EMBED, &mistake, text, sizeof text);
    ck_assert_str_eq(text, "the values are in the order of axes d, T instead of T, d: transposed, "
                           "they agree with what was expected");
    ck_assert_int_eq(gemma4_put_right(&loaded, &mistake, &error), 0);
    ck_assert_mem_eq(stored, expected, sizeof stored);
}
END_TEST

/* Positions have much in common: the shift is a small part of the values. Where it is next to
 * nothing, it is not looked for. */
START_TEST(a_shift_is_recognised_where_rows_differ)
{
    ck_assert_int_eq(recognise_random(MOST_T, 0).kind, GEMMA4_DUMP_SHIFTED);
    ck_assert_int_eq(recognise_random(MOST_T, 0.7).kind, GEMMA4_DUMP_SHIFTED);
    ck_assert_int_eq(recognise_random(MOST_T, 0.97).kind, GEMMA4_DUMP_AS_DUE);
    ck_assert_int_eq(recognise_random(5, 0).kind, GEMMA4_DUMP_SHIFTED);
    ck_assert_int_eq(recognise_random(4, 0).kind, GEMMA4_DUMP_AS_DUE);
}
END_TEST

/* --- where each limit lies --- */

/* Rows of 32 signs of which any two differ in half (Walsh functions): against another row, a row is
 * off by the root of 2. */
static float sign_at(size_t t, size_t i)
{
    float sign = 1;
    for (size_t bits = (t + 1) & i; bits; bits &= bits - 1)
        sign = -sign;
    return sign;
}

static gemma4_dump_mistake recognise_rows(const float *expected, float *stored, size_t positions)
{
    gemma4_config config = model->config;
    gemma4_error error = {""};
    gemma4_dump_mistake mistake;
    bool rows[MOST_T];
    config.hidden_size = 32;
    memset(rows, true, sizeof rows);
    const gemma4_loaded loaded = {.config = &config,
                                  .tap = GEMMA4_TAP_EMBED,
                                  .T = positions,
                                  .width = 32,
                                  .engine = stored,
                                  .stored_row = rows,
                                  .expected = expected};
    ck_assert_int_eq(gemma4_recognise_loaded(&loaded, &mistake, &error), 0);
    return mistake;
}

/* Rows of 1 and a small part of their own, shifted by one position: relative RMS is the root of 2
 * times that part. */
START_TEST(what_is_off_by_a_twentieth_is_looked_into)
{
    static const struct {
        double relative_rms;
        gemma4_dump_mistake_kind kind;
    } table[] = {{0.049, GEMMA4_DUMP_AS_DUE}, {0.051, GEMMA4_DUMP_SHIFTED}};
    float expected[MOST_T * 32], stored[MOST_T * 32];
    for (size_t i = 0; i < MOST_T * 32; i++) {
        expected[i] = 1 + (float)(table[_i].relative_rms / sqrt(2)) * sign_at(i / 32, i % 32);
        stored[i] =
            1 + (float)(table[_i].relative_rms / sqrt(2)) * sign_at((i / 32 + 1) % MOST_T, i % 32);
    }
    ck_assert_int_eq(recognise_rows(expected, stored, MOST_T).kind, table[_i].kind);
}
END_TEST

/* One position late, and the first row that can be put right is off besides, which is half as much
 * over four rows. */
START_TEST(the_first_four_rows_decide_whether_all_are_looked_at)
{
    static const struct {
        double off;
        gemma4_dump_mistake_kind kind;
    } table[] = {
        {0.45, GEMMA4_DUMP_SHIFTED}, /* 0.26 over three rows, 0.225 over four */
        {0.53, GEMMA4_DUMP_AS_DUE},  /* 0.265 over four rows, 0.237 over five, 0.19 over eight */
    };
    float expected[MOST_T * 32], stored[MOST_T * 32];
    for (size_t i = 0; i < MOST_T * 32; i++) {
        size_t t = i / 32;
        expected[i] = sign_at(t, i % 32);
        stored[i] =
            sign_at((t + MOST_T - 1) % MOST_T, i % 32) + (t == 1 ? (float)table[_i].off : 0);
    }
    ck_assert_int_eq(recognise_rows(expected, stored, MOST_T).kind, table[_i].kind);
}
END_TEST

/* Three experts of each row are its own, the others are everywhere: so many are missing where rows
 * are shifted by one position. */
START_TEST(two_of_five_experts_missing_are_looked_into)
{
    static const struct {
        size_t K;
        gemma4_dump_mistake_kind kind;
    } table[] = {{8, GEMMA4_DUMP_AS_DUE} /* 0.375 */, {7, GEMMA4_DUMP_SHIFTED} /* 0.43 */};
    gemma4_config config = model->config;
    gemma4_error error = {""};
    gemma4_dump_mistake mistake;
    int32_t expected[MOST_T * 8], stored[MOST_T * 8];
    bool rows[MOST_T];
    size_t n = table[_i].K;
    for (size_t t = 0; t < MOST_T; t++) {
        rows[t] = true;
        for (size_t k = 0; k < n; k++) {
            expected[t * n + k] = (int32_t)(k < 3 ? 3 * t + k : 100 + k);
            stored[t * n + k] = (int32_t)(k < 3 ? 3 * ((t + 1) % MOST_T) + k : 100 + k);
        }
    }
    config.top_k_experts = n;
    config.num_experts = 128;
    const gemma4_loaded loaded = {.config = &config,
                                  .tap = GEMMA4_TAP_ROUTER_TOPK_IDS,
                                  .T = MOST_T,
                                  .width = n,
                                  .engine_ids = stored,
                                  .stored_row = rows,
                                  .have_valid_ids = rows,
                                  .expected_ids = expected};
    ck_assert_int_eq(gemma4_recognise_loaded(&loaded, &mistake, &error), 0);
    ck_assert_int_eq(mistake.kind, table[_i].kind);
}
END_TEST

/* --- the whole dump --- */

/* Four rows of 32 lanes, of which the expected ones point along the first lane: the squared cosine
 * is so many times that of chance, 1 / 32. */
START_TEST(three_times_what_chance_has_in_common_is_not_another_checkpoint)
{
    static const double common[] = {2.9, 3.1};
    const gemma4_subject subject = {.model = model, .T = 4};
    const float *expected[GEMMA4_TAP_COUNT] = {0};
    float due[4 * 32] = {0}, stored[4 * 32] = {0};
    const bool have[4] = {true, true, true, true};
    gemma4_evidence evidence = {.subject = &subject};
    for (size_t t = 0; t < 4; t++) {
        due[t * 32] = 5;
        stored[t * 32] = (float)sqrt(common[_i] / 32);
        stored[t * 32 + 1 + t] = (float)sqrt(1 - common[_i] / 32);
    }
    expected[GEMMA4_TAP_EMBED] = due;
    evidence.taps[GEMMA4_TAP_EMBED] =
        (gemma4_tap_evidence){.width = 32, .engine = stored, .have = have};
    ck_assert_int_eq(gemma4_recognise_checkpoint(&evidence, expected), _i == 0);
}
END_TEST

static gemma4_grid grid_of(const engine *e, const dump *d)
{
    gemma4_error error = {""};
    gemma4_grid grid;
    gemma4_activations *file = gemma4_activations_open(write_dump(e, d), &model->config, &error);
    ck_assert_msg(file != NULL, "%s", error.message);
    ck_assert_int_eq(
        gemma4_recognise_grid(file, &model->config, gemma4_tier_of("float32"), &grid, &error), 0);
    gemma4_activations_close(file);
    return grid;
}

/* The last row holds numbers of bfloat16, half of the one before does, and those before do not. */
static void last_rows_on_grid(const tensor *from, tensor_edit *to, int by)
{
    (void)from, (void)by;
    for (size_t i = 0; i < to->rows * to->width; i++) {
        size_t before = to->rows - 1 - i / to->width;
        to->values[i] = before == 0 || (before == 1 && i % 2) ? 1.25F : 1 + 0x1p-20F;
    }
}

START_TEST(the_last_two_rows_of_a_tensor_tell_its_grid)
{
    gemma4_grid grid =
        grid_of(&right, &(dump){.taps = {"layers.3.output"}, .edit = last_rows_on_grid});
    ck_assert_ptr_nonnull(grid.dtype);
    ck_assert_str_eq(grid.dtype, "bfloat16");
    ck_assert_double_eq_tol(grid.share, 0.75, 1e-12); /* of one row 1, of three a half */
}
END_TEST

/* Powers of two lie on every grid, and do not count. */
static void values_that_tell(const tensor *from, tensor_edit *to, int count)
{
    (void)from;
    for (size_t i = 0; i < to->rows * to->width; i++)
        to->values[i] = i < (size_t)count ? 0.375F : 0.25F;
}

START_TEST(eight_values_tell_the_grid_of_a_tensor)
{
    engine e = run_engine(model, 3); /* the last two rows hold four weights each */
    for (int count = 11; count <= 12; count++) {
        const dump d = {.taps = {"layers.0.router.topk_weights", "layers.0.router.topk_ids"},
                        .edited = {"*.topk_weights"},
                        .edit = values_that_tell,
                        .by = count};
        gemma4_grid grid = grid_of(&e, &d);
        ck_assert_int_eq(grid.dtype != NULL, count - 4 == 8);
    }
    free_engine(&e);
}
END_TEST

static gemma4_model *other_model;

static void open_other_checkpoint(void)
{
    gemma4_error error = {""};
    char *directory = test_fresh_dir();
    const gemma4_synth_options options = {.preset = "tiny", .seed = 4, .shards = 1};
    ck_assert_msg(gemma4_synth(&options, directory, &error) == 0, "%s", error.message);
    other_model = gemma4_model_open(directory, &error);
    ck_assert_msg(other_model != NULL, "%s", error.message);
}

static const dump OF_ANOTHER[] = {
    {.taps = {NULL}},     {.taps = {"layers.*.output", "logits"}},
    {.taps = {"embed"}},  {.taps = {"layers.0.attn.*"}},
    {.taps = {"logits"}},
};

START_TEST(another_checkpoint_is_one_sentence)
{
    engine e = run_engine(other_model, T);
    judged j = judge(write_dump(&e, &OF_ANOTHER[_i]), model, "float32", true, false);
    ck_assert_uint_eq(gemma4_cause_count(j.report.diagnosis), 1);
    const gemma4_cause *cause = gemma4_cause_at(j.report.diagnosis, 0);
    ck_assert(!j.report.conforms && cause->of_dump && !cause->explained);
    ck_assert_str_eq(cause->description, gemma4_other_checkpoint);
    ck_assert(cause->tap == j.report.first_divergence->tap &&
              cause->first_layer == j.report.first_divergence->layer);
    release(&j);
    free_engine(&e);
}
END_TEST

/* Chance gives a few rows any direction. */
START_TEST(a_few_rows_say_nothing_of_the_checkpoint)
{
    for (size_t positions = 3; positions <= 4; positions++) {
        engine e = run_engine(other_model, positions);
        const dump d = {.taps = {"embed"}};
        judged j = judge(write_dump(&e, &d), model, "float32", false, false);
        ck_assert(recognises_nothing(&j.report) == (positions == 3));
        release(&j);
        free_engine(&e);
    }
}
END_TEST

static const struct {
    dump dump;
    const char *judged_as, *text; /* NULL: nothing is recognised */
} GRIDS[] = {
    {{.edit = on_grid, .by = 8},
     "float32",
     "100 % of the values lie on the bfloat16 grid: the engine computes in bfloat16, not in "
     "float32 as the attribute dtype says; give "
     "--dtype bfloat16"},
    {{.edit = on_grid, .by = 11},
     "float32",
     "100 % of the values lie on the float16 grid: the engine computes in float16, not in float32"},
    {{.edit = on_grid, .by = 8, .dtype = "bfloat16"},
     "float32",
     "not in float32 as --dtype says; give --dtype bfloat16"},
    {{.edit = on_grid, .by = 8, .dtype = "float16"},
     "float16",
     "not in float16 as the attribute dtype says; give --dtype bfloat16"},
    {{.edit = on_grid, .by = 8, .dtype = "bfloat16"}, "bfloat16", NULL},
    {{.edit = on_grid, .by = 11, .dtype = "float16"}, "float16", NULL},
    {{.edit = on_grid, .by = 13}, "float32", NULL}, /* a quarter of these lies on the float16
                                                       grid */
    {{.edited = {"layers.*.output", "layers.*.attn.*", "layers.*.mlp.*"}, .edit = on_grid, .by = 8},
     "float32",
     " lie on the bfloat16 grid"},
    {{.taps = {"layers.*.output", "logits"},
      .edited = {"layers.[0-5].output"},
      .edit = on_grid,
      .by = 8},
     "float32",
     NULL},
    {{.taps = {"layers.*.output", "logits"},
      .edited = {"layers.[0-6].output"},
      .edit = on_grid,
      .by = 8},
     "float32",
     "54 % of the values lie on the bfloat16 grid"},
    /* the weights' own */
    {{.taps = {"embed", "layers.0.input"}, .edit = on_grid, .by = 8}, "float32", NULL},
};

START_TEST(values_on_a_coarser_grid_are_one_sentence)
{
    judged j = judge(write_dump(&right, &GRIDS[_i].dump), model, GRIDS[_i].judged_as, true,
                     GRIDS[_i].text == NULL);
    if (GRIDS[_i].text) {
        ck_assert_uint_eq(gemma4_cause_count(j.report.diagnosis), 1);
        const gemma4_cause *cause = gemma4_cause_at(j.report.diagnosis, 0);
        ck_assert(!j.report.conforms && cause->of_dump && !cause->explained);
        ck_assert_msg(strstr(cause->description, GRIDS[_i].text) != NULL, "%s", cause->description);
        ck_assert_uint_eq(j.report.warning_count, 1);
        ck_assert_str_eq(j.report.warnings[0], cause->description);
    } else {
        ck_assert(recognises_nothing(&j.report));
    }
    release(&j);
}
END_TEST

/* Four values may lie on any grid. */
START_TEST(a_few_values_say_nothing_of_the_grid)
{
    engine e = run_engine(model, 1);
    const dump d = {.taps = {"layers.0.router.topk_weights", "layers.0.router.topk_ids"},
                    .edited = {"*.topk_weights"},
                    .edit = on_grid,
                    .by = 8};
    judged j = judge(write_dump(&e, &d), model, "float32", false, true);
    ck_assert(recognises_nothing(&j.report));
    release(&j);
    free_engine(&e);
}
END_TEST

/* --- honest dumps, and mistakes of the engine --- */

static const struct {
    const char *case_id, *path, *dtype;
} SHIPPED[] = {
    {"moe128-prompt", "golden/dumps/moe128-prompt-bfloat16.h5", "bfloat16"},
    {"tiny-chunks", "golden/dumps/tiny-chunks-bfloat16.h5", "bfloat16"},
    {"tiny-prompt", "golden/dumps/tiny-prompt-bfloat16.h5", "bfloat16"},
    {"tiny-prompt", "golden/dumps/tiny-prompt-float32.h5", "float32"},
    {"tiny-prompt", "golden/dumps/tiny-prompt-rope-pairing-contiguous.h5", "float32"},
};

START_TEST(nothing_is_recognised_in_the_shipped_dumps)
{
    test_judged j = test_judge_dump(SHIPPED[_i].case_id, SHIPPED[_i].path, SHIPPED[_i].dtype);
    ck_assert(recognises_nothing(&j.report));
    test_judged_free(&j);
}
END_TEST

/* By the project's own writer. */
static char *write_stored(const char *store)
{
    gemma4_error error = {""};
    char *path = test_join(test_fresh_dir(), "stored.h5");
    gemma4_activations_writer *w =
        gemma4_activations_create(path, &model->config, the_case->tokens, T, 0, store, &error);
    ck_assert_msg(w != NULL, "%s", error.message);
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        for (size_t layer = 0; layer < LAYERS; layer++) {
            const tensor *t = &right.tensors[tap][layer];
            const gemma4_tap_event event = {.tap = (gemma4_tap)tap,
                                            .layer = layer,
                                            .rows = T,
                                            .rank = t->rank - 1,
                                            .dims = {t->dims[1], t->dims[2]},
                                            .values = t->values,
                                            .ids = t->ids};
            if (t->values || t->ids)
                ck_assert_int_eq(gemma4_activations_write(w, &event, &error), 0);
        }
    ck_assert_int_eq(gemma4_activations_commit(w, &error), 0);
    return path;
}

static const char *const STORES[] = {"float32", "float64", "float16", "bfloat16"};

START_TEST(nothing_is_recognised_in_honest_dumps)
{
    judged j = judge(write_stored(STORES[_i]), model, "float32", true, true);
    ck_assert(j.report.conforms && recognises_nothing(&j.report));
    release(&j);
}
END_TEST

static const gemma4_counter_model *counter_model(const char *id)
{
    for (size_t i = 0; i < gemma4_counter_model_count(); i++)
        if (!strcmp(gemma4_counter_model_at(i)->id, id))
            return gemma4_counter_model_at(i);
    ck_abort_msg("no counter-model is called %s", id);
    return NULL;
}

/* A counter-model's forward pass, in memory: all of them by way of files would take a minute. */
typedef struct planted_run {
    engine engine;
    const gemma4_counter_model *mistake;
    const gemma4_real *values[GEMMA4_TAP_COUNT]; /* as the steps at hand read them */
    const int32_t *ids;
} planted_run;

static bool is_wrong_at(const planted_run *p, gemma4_tap tap, size_t layer)
{
    for (const gemma4_tap *t = p->mistake->taps; *t != GEMMA4_TAP_COUNT; t++)
        if (*t == tap)
            return gemma4_counter_model_acts(p->mistake, &model->config, tap, layer);
    return false;
}

static void plant(const planted_run *p, gemma4_tap tap, size_t layer, gemma4_real *values,
                  int32_t *ids)
{
    static const size_t start[T], end[T] = {T, T, T, T, T, T, T, T, T, T, T, T};
    gemma4_error error = {""};
    gemma4_parameters parameters = gemma4_right_parameters();
    gemma4_step step = {.model = model,
                        .layer = layer,
                        .T = T,
                        .chunk_start = start,
                        .chunk_end = end,
                        .tokens = the_case->tokens,
                        .topk_ids = p->ids};
    memcpy(step.values, p->values, sizeof p->values);
    p->mistake->change(&parameters);
    ASSERT_EACH(gemma4_counter_step(&step, &parameters, tap, values, ids, &error) == 0, "%s",
                error.message);
}

static int run_planted(void *context, gemma4_tap_event *event, gemma4_error *error)
{
    planted_run *p = context;
    bool keys = gemma4_tap_is_keys(event->tap), wrong = is_wrong_at(p, event->tap, event->layer);
    if (wrong && !keys)
        plant(p, event->tap, event->layer, event->values, event->ids);
    collect(&p->engine, event, error);
    const tensor *t = tensor_of(&p->engine, event->tap, event->layer);
    if (wrong && keys && event->row == T - 1)
        plant(p, event->tap, event->layer, t->values, NULL);
    p->values[event->tap] = t->values;
    p->ids = t->ids ? t->ids : p->ids;
    return 0;
}

static engine run_counter_model(const gemma4_counter_model *mistake)
{
    gemma4_error error = {""};
    planted_run p = {.engine = {.model = model, .positions = T}, .mistake = mistake};
    gemma4_session *session = gemma4_session_new(model, 0, T, &error);
    ck_assert_msg(session != NULL, "%s", error.message);
    gemma4_session_set_hook(session, run_planted, &p);
    ck_assert_msg(gemma4_forward(session, the_case->tokens, T, T, NULL, &error) == 0, "%s",
                  error.message);
    gemma4_session_free(session);
    return p.engine;
}

static void assert_no_tensor_is_recognised(engine *e, const char *id)
{
    gemma4_error error = {""};
    gemma4_dump_mistake mistake;
    bool have[T];
    for (size_t t = 0; t < T; t++)
        have[t] = true;
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        for (size_t layer = 0; layer < LAYERS; layer++) {
            tensor *t = &e->tensors[tap][layer], *expected = &right.tensors[tap][layer];
            if (!t->values && !t->ids)
                continue;
            const gemma4_loaded loaded = {
                .config = &model->config,
                .tap = (gemma4_tap)tap,
                .layer = layer,
                .T = T,
                .width = t->width,
                .engine = t->values,
                .engine_ids = e->tensors[GEMMA4_TAP_ROUTER_TOPK_IDS][layer].ids,
                .stored_row = have,
                .have_valid_ids = have,
                .expected = expected->values,
                .expected_ids = right.tensors[GEMMA4_TAP_ROUTER_TOPK_IDS][layer].ids};
            ASSERT_EACH(gemma4_recognise_loaded(&loaded, &mistake, &error) == 0, "%s",
                        error.message);
            ASSERT_EACH(mistake.kind == GEMMA4_DUMP_AS_DUE, "%s: %s of layer %zu: %d", id,
                        gemma4_tap_describe((gemma4_tap)tap)->name, layer, mistake.kind);
        }
}

/* Where a block holds this tap only. */
static bool is_other_checkpoint(engine *e, gemma4_tap tap)
{
    const gemma4_subject subject = {.model = model, .T = T};
    const float *expected[GEMMA4_TAP_COUNT] = {0};
    bool have[T];
    for (size_t t = 0; t < T; t++)
        have[t] = true;
    gemma4_evidence evidence = {.subject = &subject};
    expected[tap] = right.tensors[tap][0].values;
    evidence.taps[tap] = (gemma4_tap_evidence){
        .width = right.tensors[tap][0].width, .engine = e->tensors[tap][0].values, .have = have};
    return gemma4_recognise_checkpoint(&evidence, expected);
}

START_TEST(no_mistake_of_an_engine_is_called_one_of_the_dump)
{
    for (size_t i = 0; i < gemma4_counter_model_count(); i++) {
        const gemma4_counter_model *m = gemma4_counter_model_at(i);
        engine e = run_counter_model(m);
        assert_no_tensor_is_recognised(&e, m->id);
        ASSERT_EACH(!is_other_checkpoint(&e, GEMMA4_TAP_EMBED), "%s: embed", m->id);
        ASSERT_EACH(!is_other_checkpoint(&e, GEMMA4_TAP_LAYER_OUTPUT), "%s: layers.0.output",
                    m->id);
        free_engine(&e);
    }
}
END_TEST

/* The engines of which most values lie on a grid by a mistake. */
START_TEST(a_mistake_in_rounding_is_not_another_arithmetic)
{
    static const char *const ids[] = {"router-low-precision", "rmsnorm-downcast-before-weight",
                                      "ffn-moe-f16-accumulate", "kv-cache-f16"};
    gemma4_error error = {""};
    char *path = test_join(test_fresh_dir(), "planted.h5");
    for (int set = 0; set < GEMMA4_SET_COUNT; set++) {
        gemma4_simulation s = {.the_case = the_case,
                               .model = model,
                               .tier = "float32",
                               .planted = {counter_model(ids[_i])},
                               .only_layer = {-1, -1},
                               .taps = (gemma4_tap_set)set};
        gemma4_grid grid;
        ck_assert_int_eq(gemma4_simulate(&s, path, &error), 0);
        gemma4_activations *file = gemma4_activations_open(path, &model->config, &error);
        ck_assert_int_eq(
            gemma4_recognise_grid(file, &model->config, gemma4_tier_of("float32"), &grid, &error),
            0);
        ck_assert_msg(grid.dtype == NULL, "%.2f on the grid of %s", grid.share, grid.dtype);
        gemma4_activations_close(file);
    }
}
END_TEST

/* Of the mistakes that leave least of the embedding, and of logits: the whole judgement. */
START_TEST(a_mistake_that_leaves_little_is_named)
{
    static const struct {
        const char *id;
        gemma4_tap_set taps;
    } table[] = {{"attn-residual-missing", GEMMA4_SET_LAYERS},
                 {"softcap-wrong-formula", GEMMA4_SET_LOGITS}};
    gemma4_error error = {""};
    char *path = test_join(test_fresh_dir(), "planted.h5");
    gemma4_simulation s = {.the_case = the_case,
                           .model = model,
                           .tier = "float32",
                           .planted = {counter_model(table[_i].id)},
                           .only_layer = {-1, -1},
                           .taps = table[_i].taps};
    ck_assert_int_eq(gemma4_simulate(&s, path, &error), 0);
    judged j = judge(path, model, "float32", false, false);
    ck_assert(recognises_nothing(&j.report) && gemma4_cause_at(j.report.diagnosis, 0)->explained);
    ck_assert_str_eq(gemma4_counter_model_at(gemma4_cause_at(j.report.diagnosis, 0)->model)->id,
                     table[_i].id);
    release(&j);
}
END_TEST

/* --- reports --- */

START_TEST(a_report_says_it_once)
{
    const dump d = {
        .taps = {"layers.[0-2].*"}, .edited = {"layers.*.attn.q"}, .edit = reordered, .by = 21};
    judged j = judge_dump(&d);
    void (*const forms[])(FILE *, const gemma4_report *) = {
        gemma4_report_text, gemma4_report_json, gemma4_report_junit, gemma4_report_html};
    static const char *const what[] = {
        "\nCause: a mistake of the dump, first at layers.0.attn.q; layers 0-2; 3 tensors\n",
        "\"explained\": false", "a mistake of the dump, first at layers.0.attn.q",
        "A mistake of the dump: "};
    for (size_t i = 0; i < COUNT(forms); i++) {
        char *text = test_printed(forms[i], &j.report);
        ck_assert_msg(strstr(text, what[i]) != NULL, "\"%s\" is not in: %s", what[i], text);
        ck_assert_msg(strstr(text, "o known mistake explains") == NULL &&
                          strstr(text, "Cause unknown") == NULL,
                      "%s", text);
        free(text);
    }
    release(&j);
}
END_TEST

/* --- suite --- */

static void set_up(void)
{
    gemma4_error error = {""};
    the_case = gemma4_case_open("tiny-prompt", &error);
    ck_assert_msg(the_case && gemma4_case_provide_checkpoint(the_case, &error) == 0, "%s",
                  error.message);
    model = gemma4_model_open(the_case->checkpoint_dir, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    golden = gemma4_activations_open(the_case->golden_path, &model->config, &error);
    ck_assert_msg(golden != NULL, "%s", error.message);
    right = run_engine(model, T);
    open_other_checkpoint();
}

static void tear_down(void)
{
    free_engine(&right);
    gemma4_activations_close(golden);
    gemma4_model_close(model);
    gemma4_model_close(other_model);
    gemma4_case_close(the_case);
}

static TCase *with_engine(Suite *suite, const char *name)
{
    TCase *c = tcase_create(name);
    tcase_add_unchecked_fixture(c, set_up, tear_down);
    tcase_set_timeout(c, 120);
    suite_add_tcase(suite, c);
    return c;
}

Suite *recognise_suite(void)
{
    Suite *suite = suite_create("recognise");
    TCase *tensors = with_engine(suite, "recognise tensors"),
          *whole = with_engine(suite, "recognise dumps"),
          *none = with_engine(suite, "recognise nothing"),
          *limits = with_engine(suite, "recognise limits");
    tcase_add_loop_test(tensors, a_shape_says_what_is_wrong, 0, COUNT(SHAPES));
    tcase_add_loop_test(tensors, another_shape_says_what_was_expected, 0, COUNT(OTHER_SHAPES));
    tcase_add_test(tensors, the_last_row_with_its_attribute_conforms);
    tcase_add_loop_test(tensors, values_say_what_is_wrong, 0, COUNT(BY_VALUE));
    tcase_add_test(tensors, a_dump_that_is_shifted_as_a_whole_is_one_sentence);
    tcase_add_test(tensors, axes_of_one_length_are_told_by_value);
    tcase_add_test(tensors, a_mistake_of_the_engine_is_found_beside_one_of_the_dump);
    tcase_add_loop_test(tensors, values_of_a_real_engine_in_bfloat16_say_it_too, 0,
                        COUNT(IN_BFLOAT16));
    tcase_add_test(whole, a_real_engine_in_bfloat16_is_no_float32);
    tcase_add_test(tensors, what_the_engine_goes_on_with_is_no_mistake_of_the_dump);
    tcase_add_test(tensors, a_shift_with_some_error_is_recognised);
    tcase_add_test(tensors, a_shift_is_recognised_where_rows_differ);
    tcase_add_test(tensors, a_shift_that_only_moves_bad_rows_out_is_none);
    tcase_add_loop_test(limits, what_is_off_by_a_twentieth_is_looked_into, 0, 2);
    tcase_add_loop_test(limits, the_first_four_rows_decide_whether_all_are_looked_at, 0, 2);
    tcase_add_loop_test(limits, two_of_five_experts_missing_are_looked_into, 0, 2);
    tcase_add_test(tensors, a_square_that_is_transposed_is_told_by_value);
    tcase_add_loop_test(whole, another_checkpoint_is_one_sentence, 0, COUNT(OF_ANOTHER));
    tcase_add_test(whole, a_few_rows_say_nothing_of_the_checkpoint);
    tcase_add_loop_test(whole, values_on_a_coarser_grid_are_one_sentence, 0, COUNT(GRIDS));
    tcase_add_test(whole, a_few_values_say_nothing_of_the_grid);
    tcase_add_loop_test(limits, three_times_what_chance_has_in_common_is_not_another_checkpoint, 0,
                        2);
    tcase_add_test(limits, the_last_two_rows_of_a_tensor_tell_its_grid);
    tcase_add_test(limits, eight_values_tell_the_grid_of_a_tensor);
    tcase_add_test(whole, a_report_says_it_once);
    tcase_add_loop_test(none, what_is_only_near_to_a_mistake_is_none, 0, COUNT(NONE));
    tcase_add_loop_test(none, nothing_is_recognised_in_the_shipped_dumps, 0, COUNT(SHIPPED));
    tcase_add_loop_test(none, nothing_is_recognised_in_honest_dumps, 0, COUNT(STORES));
    tcase_add_test(none, no_mistake_of_an_engine_is_called_one_of_the_dump);
    tcase_add_loop_test(none, a_mistake_in_rounding_is_not_another_arithmetic, 0, 4);
    tcase_add_loop_test(none, a_mistake_that_leaves_little_is_named, 0, 2);
    return suite;
}
