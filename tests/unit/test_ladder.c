/* The ladder (tests/check/ladder.h): what its rungs can show, and what a climb says of engines with
 * planted mistakes. */
#include "activations.h"
#include "counter_model.h"
#include "engines.h"
#include "ladder.h"
#include "model.h"
#include "planted_engine.h"
#include "suites.h"
#include "support.h"

#include <fcntl.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

static gemma4_ladder ladder;

static void open_ladder(void)
{
    gemma4_error error = {""};
    ck_assert_msg(gemma4_ladder_open(&ladder, &error) == 0, "%s", error.message);
}

static void close_ladder(void)
{
    gemma4_ladder_close(&ladder);
}

static size_t rung_named(const char *name)
{
    size_t i = 0;
    while (i < ladder.count && strcmp(ladder.rungs[i].name, name))
        i++;
    ck_assert_msg(i < ladder.count, "no rung %s", name);
    return i;
}

static gemma4_model *model_of(size_t rung)
{
    gemma4_error error = {""};
    const gemma4_case *c = ladder.rungs[rung].the_case;
    ck_assert_msg(gemma4_case_provide_checkpoint(c, &error) == 0, "%s", error.message);
    gemma4_model *model = gemma4_model_open(c->checkpoint_dir, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    return model;
}

/* --- the rungs --- */

START_TEST(there_are_enough_rungs)
{
    ck_assert_uint_ge(ladder.count, 24);
    for (size_t i = 0; i < ladder.count; i++)
        for (size_t k = 0; k < ladder.rungs[i].need_count; k++)
            ASSERT_EACH(ladder.rungs[i].needs[k] < i, "%s needs a later rung",
                        ladder.rungs[i].name);
}
END_TEST

static bool is_zero(const gemma4_weight *w)
{
    const uint16_t *bits = w->data;
    for (size_t i = 0; i < w->rows * w->cols; i++)
        if (bits[i] & 0x7FFF)
            return false;
    return true;
}

/* a: attention, d: dense MLP, e: experts, of each layer in turn; '-' where it is silent. */
static const struct {
    const char *rung, *alive;
} ALIVE[] = {
    {"linear-head", "---"},
    {"head", "---"},
    {"small-embedding", "---"},
    {"dense", "-d-"},
    {"small-dense", "-de"},
    {"scalars", "-d--d--d-"},
    {"full", "a--"},
    {"small-full", "a--"},
    {"sliding", "a-----"},
    {"small-sliding", "a-----"},
    {"equal-experts", "--e"},
    {"router", "--e"},
    {"small-experts", "-de"},
    {"branches", "-de"},
    {"block-full", "ade"},
    {"block-sliding", "ade---"},
    {"pattern", "a--a--a--a--a--"},
    {"shallow", "adeade"},
    {"deep", "adeadeadeadeadeade"},
};

START_TEST(only_what_a_rung_is_about_is_alive)
{
    gemma4_model *model = model_of(rung_named(ALIVE[_i].rung));
    const char *alive = ALIVE[_i].alive;
    ck_assert_uint_eq(strlen(alive), 3 * model->config.num_hidden_layers);
    ck_assert_int_eq(model->config.layers[model->config.num_hidden_layers - 1].kind, GEMMA4_FULL);
    for (size_t l = 0; l < model->config.num_hidden_layers; l++) {
        const gemma4_weight *last[] = {&model->layers[l].o_proj, &model->layers[l].down_proj,
                                       &model->layers[l].experts_down_proj};
        for (size_t i = 0; i < COUNT(last); i++)
            ck_assert_msg(is_zero(last[i]) == (alive[3 * l + i] == '-'), "layer %zu, branch %zu", l,
                          i);
    }
    gemma4_model_close(model);
}
END_TEST

START_TEST(equal_experts_are_equal)
{
    gemma4_model *equal = model_of(rung_named("equal-experts")),
                 *others = model_of(rung_named("router"));
    const gemma4_weight *w = &equal->layers[0].experts_gate_up_proj,
                        *o = &others->layers[0].experts_gate_up_proj;
    size_t bytes = w->rows / equal->config.num_experts * w->cols * sizeof(uint16_t);
    for (size_t e = 1; e < equal->config.num_experts; e++)
        ck_assert_int_eq(memcmp((const char *)w->data + e * bytes, w->data, bytes), 0);
    ck_assert_int_ne(memcmp((const char *)o->data + bytes, o->data, bytes), 0);
    gemma4_model_close(equal);
    gemma4_model_close(others);
}
END_TEST

/* --- climbs --- */

/* Dumps of a simulated engine with up to two mistakes, on so many rungs. */
static void add_dumps(const char *folder, const char *const *rungs, size_t count, const char *first,
                      const char *second, size_t logprobs)
{
    for (size_t i = 0; i < count; i++) {
        gemma4_error error = {""};
        size_t rung = rung_named(rungs[i]);
        gemma4_model *model = model_of(rung);
        char name[80];
        const gemma4_simulation s = {.the_case = ladder.rungs[rung].the_case,
                                     .model = model,
                                     .tier = "float32",
                                     .planted = {test_mistake(first), test_mistake(second)},
                                     .only_layer = {-1, -1},
                                     .taps = GEMMA4_SET_LOGITS,
                                     .logprobs = logprobs};
        snprintf(name, sizeof name, "%s.h5", rungs[i]);
        ck_assert_msg(gemma4_simulate(&s, test_join(folder, name), &error) == 0, "%s",
                      error.message);
        gemma4_model_close(model);
    }
}

/* The folder with such dumps. */
static char *climb_of(const char *const *rungs, size_t count, const char *first, const char *second,
                      size_t logprobs)
{
    char *folder = test_fresh_dir();
    add_dumps(folder, rungs, count, first, second, logprobs);
    return folder;
}

static gemma4_climb climb(const char *folder)
{
    gemma4_climb c;
    gemma4_error error = {""};
    ck_assert_msg(gemma4_climb_ladder(&ladder, folder, NULL, &c, &error) == 0, "%s", error.message);
    return c;
}

static gemma4_rung_verdict verdict_of(const gemma4_climb *c, const char *rung)
{
    return c->results[rung_named(rung)].verdict;
}

static const char *const FEW[] = {"linear-head", "head", "dense", "full-one-token", "full"};

START_TEST(a_right_engine_passes)
{
    gemma4_climb c = climb(climb_of(FEW, COUNT(FEW), NULL, NULL, _i ? 20 : 0));
    for (size_t i = 0; i < COUNT(FEW); i++)
        ck_assert_int_eq(verdict_of(&c, FEW[i]), GEMMA4_RUNG_PASSES);
    ck_assert_uint_eq(gemma4_climb_count(&c, GEMMA4_RUNG_NOT_COVERED), ladder.count - COUNT(FEW));
    ck_assert_int_eq(gemma4_climb_status(&c), 0);
    ck_assert_uint_eq(c.cause_count, 0);
    ck_assert_str_eq(c.dtype, "float32");
    gemma4_climb_free(&c);
}
END_TEST

static const struct {
    const char *first, *second; /* what is planted */
    size_t logprobs;
    const char *rung, *other; /* where each is found */
} PLANTED[] = {
    {"softcap-missing", NULL, 0, "head", NULL},
    {"v-norm-missing", NULL, 0, "full-one-token", NULL},
    {"softcap-missing", "v-norm-missing", 0, "head", "full-one-token"},
    {"softcap-missing", "v-norm-missing", 20, "head", "full-one-token"},
    {"softcap-missing", "attn-scale-inv-sqrt-d", 0, "head", "full"},
};

/* What was found is planted in what later rungs are judged against: they pass, or show the next
 * mistake. */
START_TEST(what_is_found_is_carried_forward)
{
    gemma4_climb c = climb(
        climb_of(FEW, COUNT(FEW), PLANTED[_i].first, PLANTED[_i].second, PLANTED[_i].logprobs));
    const char *ids[] = {PLANTED[_i].first, PLANTED[_i].second},
               *rungs[] = {PLANTED[_i].rung, PLANTED[_i].other};
    size_t planted = PLANTED[_i].second ? 2 : 1;
    ck_assert_uint_eq(c.cause_count, planted);
    for (size_t i = 0; i < planted; i++) {
        ck_assert_str_eq(c.causes[i].candidates[0].model->id, ids[i]);
        ck_assert_uint_eq(c.causes[i].rung, rung_named(rungs[i]));
    }
    for (size_t i = 0; i < COUNT(FEW); i++) {
        bool is_found_here =
            !strcmp(FEW[i], rungs[0]) || (planted == 2 && !strcmp(FEW[i], rungs[1]));
        ck_assert_msg(verdict_of(&c, FEW[i]) ==
                          (is_found_here ? GEMMA4_RUNG_FAILS : GEMMA4_RUNG_PASSES),
                      "%s", FEW[i]);
    }
    ck_assert_int_eq(gemma4_climb_status(&c), 1);
    gemma4_climb_free(&c);
}
END_TEST

/* Two mistakes at once in the first rung that shows either: one of them shows alone further up. */
START_TEST(a_rung_is_judged_again_when_more_is_known)
{
    static const char *const rungs[] = {"linear-head", "head", "full-two-tokens",
                                        "sliding-two-tokens"};
    gemma4_climb c =
        climb(climb_of(rungs, COUNT(rungs), "rope-pairing-contiguous", "attn-scale-inv-sqrt-d", 0));
    ck_assert_uint_eq(c.cause_count, 2);
    ck_assert_str_eq(c.causes[0].candidates[0].model->id, "attn-scale-inv-sqrt-d");
    ck_assert_uint_eq(c.causes[0].rung, rung_named("sliding-two-tokens"));
    ck_assert_uint_eq(c.causes[1].rung, rung_named("full-two-tokens"));
    gemma4_climb_free(&c);
}
END_TEST

/* Two mistakes that no rung shows alone, where the engine starts at position 0: both need two
 * tokens. Neither explains anything by itself. */
START_TEST(two_mistakes_of_one_rung_are_found_as_a_pair)
{
    static const char *const rungs[] = {"full-one-token", "full-two-tokens", "full"};
    gemma4_climb c =
        climb(climb_of(rungs, COUNT(rungs), "attn-scale-inv-sqrt-d", "rope-on-v", _i ? 20 : 0));
    ck_assert_uint_eq(c.cause_count, 2);
    ck_assert_str_eq(c.causes[0].candidates[0].model->id, "attn-scale-inv-sqrt-d");
    ck_assert_str_eq(c.causes[1].candidates[0].model->id, "rope-on-v");
    ck_assert_uint_eq(c.causes[1].rung, rung_named("full-two-tokens"));
    ck_assert_int_eq(verdict_of(&c, "full"), GEMMA4_RUNG_PASSES);
    gemma4_climb_free(&c);
}
END_TEST

/* Every logit of a rung's dump becomes what change makes of it. */
static void change_logits(const char *folder, const char *rung, float (*change)(float, size_t))
{
    char name[80];
    snprintf(name, sizeof name, "%s.h5", rung);
    hid_t file = H5Fopen(test_join(folder, name), H5F_ACC_RDWR, H5P_DEFAULT),
          set = H5Dopen2(file, "logits", H5P_DEFAULT);
    hid_t space = H5Dget_space(set);
    size_t n = (size_t)H5Sget_simple_extent_npoints(space);
    float *values = malloc(n * sizeof *values);
    ck_assert(values && H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    for (size_t i = 0; i < n; i++)
        values[i] = change(values[i], i);
    ck_assert(H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    free(values);
    H5Sclose(space);
    H5Dclose(set);
    H5Fclose(file);
}

/* Capped at 50 where the model caps at 30. */
static float capped_at_50(float logit, size_t i)
{
    (void)i;
    return (float)(50 * tanh(30 * atanh((double)logit / 30) / 50));
}

/* Three mistakes of which no two explain the rung. */
START_TEST(three_mistakes_of_one_rung_are_found_together)
{
    static const char *const rungs[] = {"linear-head"}, *const ids[] = {"embed-scale-on-tied-head",
                                                                        "softcap-50",
                                                                        "rmsnorm-eps-wrong"};
    char *folder = climb_of(rungs, COUNT(rungs), ids[0], ids[2], 0);
    change_logits(folder, rungs[0], capped_at_50);
    gemma4_climb c = climb(folder);
    ck_assert_uint_eq(c.cause_count, COUNT(ids));
    for (size_t i = 0; i < COUNT(ids); i++) {
        bool found = false;
        for (size_t k = 0; k < c.cause_count; k++)
            found = found || !strcmp(c.causes[k].candidates[0].model->id, ids[i]);
        ck_assert_msg(found, "%s", ids[i]);
    }
    gemma4_climb_free(&c);
}
END_TEST

/* Of 256 logits of a position, one comes from a value that was rounded the other way. */
static float flip;
static float flipped(float logit, size_t i)
{
    return i == 5 * 256 + 17 ? logit + flip : logit;
}

static const struct {
    const char *rung;
    float flip;
    bool rounds, passes;
} FLIPS[] = {
    {"dense", 0.001f, false, false},
    {"dense", 0.8f, true, true},     /* 2715 times the tolerance, 0.45 of what it is unrounded */
    {"router", 0.955f, true, false}, /* 3294 times: more than a twentieth of 65,536 */
    {"scalars", 0.9f, true, false},  /* 2870 times, but 0.66 of what it is unrounded */
};

/* What an engine that is known to round to bfloat16 leaves of another rung is of that rounding, as
 * far as it is of that size and the rounding explains most; where it does not round, it is a
 * failure. */
START_TEST(values_rounded_the_other_way_are_allowed_for_where_the_engine_rounds)
{
    const char *const rungs[] = {"linear-head", FLIPS[_i].rung};
    char *folder = climb_of(rungs, COUNT(rungs),
                            FLIPS[_i].rounds ? "rmsnorm-low-precision-reduce" : NULL, NULL, 0);
    flip = FLIPS[_i].flip;
    change_logits(folder, rungs[1], flipped);
    gemma4_climb c = climb(folder);
    const gemma4_rung_result *r = &c.results[rung_named(rungs[1])];
    ck_assert(r->error > r->tolerance);
    ck_assert_int_eq(r->verdict, FLIPS[_i].passes ? GEMMA4_RUNG_PASSES : GEMMA4_RUNG_FAILS);
    ck_assert_uint_ge(c.cause_count, FLIPS[_i].rounds ? 1 : 0);
    gemma4_climb_free(&c);
}
END_TEST

/* A rung that barely fails: the effect is too small to be told by its size, and one mistake alone
 * explains it. */
START_TEST(a_mistake_that_barely_shows_is_found_alone)
{
    static const char *const rungs[] = {"linear-head", "head"};
    gemma4_climb c = climb(climb_of(rungs, COUNT(rungs), "embed-scale-twice", NULL, 0));
    ck_assert_uint_eq(c.cause_count, 1);
    ck_assert_str_eq(c.causes[0].candidates[0].model->id, "embed-scale-twice");
    gemma4_climb_free(&c);
}
END_TEST

/* What would do as well in the place of one of two is kept, and a later rung tells which it is. */
START_TEST(the_right_one_of_a_pair_is_told_by_a_later_rung)
{
    static const char *const rungs[] = {"linear-head", "head", "dense"};
    gemma4_climb c =
        climb(climb_of(rungs, COUNT(rungs), "final-norm-missing", "layer-scalar-on-delta", 0));
    bool found = false;
    ck_assert_uint_eq(c.cause_count, 2);
    for (size_t i = 0; i < 2; i++)
        found = found || !strcmp(c.causes[i].candidates[0].model->id, "layer-scalar-on-delta");
    ck_assert(found);
    ck_assert_int_eq(verdict_of(&c, "dense"), GEMMA4_RUNG_PASSES);
    gemma4_climb_free(&c);
}
END_TEST

/* A mistake of decode shows on the rungs of one token, which cannot say that it is one of decode:
 * those of more tokens pass without it, or show another one beside which it is not made. */
START_TEST(a_mistake_of_decode_is_not_carried_to_longer_chunks)
{
    static const char *const one[] = {"full-one-token", "sliding-one-token"},
                             *const more[] = {"full-two-tokens", "full", "sliding-two-tokens"};
    const char *other = _i ? "rope-missing" : NULL;
    char *folder = climb_of(one, COUNT(one), "v-norm-missing", other, 0);
    add_dumps(folder, more, COUNT(more), other, NULL, 0);
    gemma4_climb c = climb(folder);
    ck_assert_uint_eq(c.cause_count, other ? 2 : 1);
    ck_assert_str_eq(c.causes[0].candidates[0].model->id, "v-norm-missing");
    ck_assert_int_eq(c.causes[0].scope, GEMMA4_DECODE_ONLY);
    ck_assert_int_eq(verdict_of(&c, "sliding-one-token"), GEMMA4_RUNG_PASSES);
    if (other) {
        ck_assert_str_eq(c.causes[1].candidates[0].model->id, other);
        ck_assert_int_eq(c.causes[1].scope, GEMMA4_EVERYWHERE);
    }
    ck_assert_int_eq(verdict_of(&c, "full-two-tokens"),
                     other ? GEMMA4_RUNG_FAILS : GEMMA4_RUNG_PASSES);
    ck_assert_int_eq(verdict_of(&c, "full"), GEMMA4_RUNG_PASSES);
    gemma4_climb_free(&c);
}
END_TEST

/* Where a rung of more tokens needs it as well, it is a mistake everywhere. */
START_TEST(a_mistake_that_longer_chunks_show_is_not_one_of_decode)
{
    static const char *const bad[] = {"full-one-token", "full-two-tokens"}, *const good[] = {
                                                                                "full"};
    char *folder = climb_of(bad, COUNT(bad), "v-norm-missing", NULL, 0);
    add_dumps(folder, good, COUNT(good), NULL, NULL, 0);
    gemma4_climb c = climb(folder);
    ck_assert_int_eq(c.causes[0].scope, GEMMA4_EVERYWHERE);
    ck_assert_int_eq(verdict_of(&c, "full"), GEMMA4_RUNG_FAILS);
    gemma4_climb_free(&c);
}
END_TEST

/* Nothing explains them. */
static float spoilt(float logit, size_t i)
{
    return logit + (float)((double)(i * 7919 % 31) / 31.0 - 0.5) * 4;
}

START_TEST(only_what_needs_an_unexplained_rung_is_left_unjudged)
{
    char *folder = climb_of(FEW, COUNT(FEW), NULL, NULL, 0);
    change_logits(folder, "full-one-token", spoilt);
    gemma4_climb c = climb(folder);
    ck_assert_int_eq(verdict_of(&c, "full-one-token"), GEMMA4_RUNG_FAILS);
    ck_assert_uint_eq(c.results[rung_named("full-one-token")].cause_count, 0);
    ck_assert_str_ne(c.results[rung_named("full-one-token")].message, "");
    ck_assert_int_eq(verdict_of(&c, "dense"), GEMMA4_RUNG_PASSES);
    /* full needs full-two-tokens, of which there is no dump, and that one needs the failing
     * rung. */
    ck_assert_int_eq(verdict_of(&c, "full"), GEMMA4_RUNG_NOT_JUDGED);
    ck_assert_int_eq(gemma4_climb_status(&c), 1);
    gemma4_climb_free(&c);
}
END_TEST

START_TEST(a_dump_that_cannot_be_read_is_said)
{
    char *folder = climb_of(FEW, 2, NULL, NULL, 0);
    test_write_text(test_join(folder, "dense.h5"), "no HDF5");
    test_write_text(test_join(folder, "dnese.h5"), "");
    gemma4_climb c = climb(folder);
    ck_assert_int_eq(verdict_of(&c, "dense"), GEMMA4_RUNG_UNUSABLE);
    ck_assert(strstr(c.results[rung_named("dense")].message, "dense.h5") != NULL);
    ck_assert_str_eq(c.strangers, "dnese.h5");
    ck_assert_int_eq(verdict_of(&c, "head"), GEMMA4_RUNG_PASSES);
    ck_assert_int_eq(gemma4_climb_status(&c), 2);
    gemma4_climb_free(&c);
}
END_TEST

START_TEST(another_rung_s_dump_is_refused)
{
    char *folder = climb_of(FEW, 2, NULL, NULL, 0);
    ck_assert_int_eq(rename(test_join(folder, "linear-head.h5"), test_join(folder, "dense.h5")), 0);
    gemma4_climb c = climb(folder);
    ck_assert_int_eq(verdict_of(&c, "dense"), GEMMA4_RUNG_UNUSABLE);
    ck_assert(strstr(c.results[rung_named("dense")].message,
                     "attribute case: expected 'dense', found 'linear-head'") != NULL);
    gemma4_climb_free(&c);
}
END_TEST

START_TEST(an_empty_folder_is_refused)
{
    gemma4_error error = {""};
    gemma4_climb c;
    ck_assert_int_eq(gemma4_climb_ladder(&ladder, test_fresh_dir(), NULL, &c, &error), -1);
    assert_message_contains(&error, "expected a file of at least one rung");
    gemma4_climb_free(&c);
    ck_assert_int_eq(gemma4_climb_ladder(&ladder, test_path("nowhere"), NULL, &c, &error), -1);
    assert_message_contains(&error, "nowhere: cannot open");
    gemma4_climb_free(&c);
}
END_TEST

START_TEST(a_report_takes_no_dump_s_place)
{
    gemma4_error error = {""};
    char *folder = climb_of(FEW, 1, NULL, NULL, 0),
         *argv[] = {folder, "--json", test_join(folder, "linear-head.h5")},
         *said = test_path("said");
    /* The command says on stderr itself what is wrong: into a file here. */
    int kept = dup(STDERR_FILENO), file = open(said, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    ck_assert(kept >= 0 && file >= 0 && dup2(file, STDERR_FILENO) >= 0);
    int status = gemma4_ladder_command(3, argv, &error);
    ck_assert(dup2(kept, STDERR_FILENO) >= 0 && close(kept) == 0 && close(file) == 0);
    ck_assert_int_eq(status, 2);
    ck_assert_msg(strstr(test_read(said), "linear-head.h5: expected a file of its own to write to"),
                  "%s", test_read(said));
    gemma4_climb c = climb(folder);
    ck_assert_int_eq(verdict_of(&c, "linear-head"), GEMMA4_RUNG_PASSES);
    gemma4_climb_free(&c);
}
END_TEST

/* A safetensors file that grows by tensors of HDF5 files. */
typedef struct gather {
    const char *rung;
    char header[4096], data[1 << 18];
    size_t header_used, used;
} gather;

/* One file, a group a rung. */
static char *grouped(const char *folder, const char *const *rungs, size_t count)
{
    char *path = test_join(folder, "all.h5");
    hid_t to = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    for (size_t i = 0; i < count; i++) {
        char name[80];
        snprintf(name, sizeof name, "%s.h5", rungs[i]);
        hid_t from = H5Fopen(test_join(folder, name), H5F_ACC_RDONLY, H5P_DEFAULT);
        ck_assert(H5Ocopy(from, "/", to, rungs[i], H5P_DEFAULT, H5P_DEFAULT) >= 0);
        H5Fclose(from);
    }
    H5Fclose(to);
    return path;
}

START_TEST(groups_of_one_file_are_rungs)
{
    char *folder = climb_of(FEW, COUNT(FEW), "softcap-missing", NULL, 0);
    gemma4_climb c = climb(grouped(folder, FEW, COUNT(FEW)));
    ck_assert_uint_eq(gemma4_climb_count(&c, GEMMA4_RUNG_NOT_COVERED), ladder.count - COUNT(FEW));
    ck_assert_uint_eq(c.cause_count, 1);
    ck_assert_str_eq(c.causes[0].candidates[0].model->id, "softcap-missing");
    ck_assert_int_eq(verdict_of(&c, "dense"), GEMMA4_RUNG_PASSES);
    gemma4_climb_free(&c);
}
END_TEST

static herr_t add_tensor(hid_t file, const char *name, const H5O_info_t *info, void *context)
{
    gather *g = context;
    hsize_t dims[2] = {1, 1};
    if (info->type != H5O_TYPE_DATASET)
        return 0;
    hid_t set = H5Dopen2(file, name, H5P_DEFAULT), space = H5Dget_space(set),
          type = H5Dget_type(set);
    int rank = H5Sget_simple_extent_dims(space, dims, NULL);
    bool real = H5Tget_class(type) == H5T_FLOAT;
    size_t bytes = (size_t)(dims[0] * dims[1]) * 4;
    ck_assert(rank >= 1 && rank <= 2 && g->used + bytes <= sizeof g->data);
    ck_assert(H5Dread(set, real ? H5T_NATIVE_FLOAT : H5T_NATIVE_INT32, H5S_ALL, H5S_ALL,
                      H5P_DEFAULT, g->data + g->used) >= 0);
    char second[16] = "";
    if (rank == 2)
        snprintf(second, sizeof second, ", %d", (int)dims[1]);
    g->header_used += (size_t)snprintf(
        g->header + g->header_used, sizeof g->header - g->header_used,
        ", \"%s.%s\": {\"dtype\": \"%s\", \"shape\": [%d%s], \"data_offsets\": [%zu, %zu]}",
        g->rung, name, real ? "F32" : "I32", (int)dims[0], second, g->used, g->used + bytes);
    g->used += bytes;
    H5Tclose(type);
    H5Sclose(space);
    H5Dclose(set);
    return 0;
}

/* The same as one safetensors file: "RUNG.logits" and so on, what is said of all of them once. */
static char *grouped_safetensors(const char *folder, const char *const *rungs, size_t count)
{
    static gather g;
    char *path = test_join(folder, "all.safetensors"), name[80];
    g = (gather){.used = 0};
    g.header_used = (size_t)snprintf(
        g.header, sizeof g.header,
        "{\"__metadata__\": {\"format\": \"gemma4-activations\", \"format_version\": \"1\", "
        "\"dtype\": \"bfloat16\", \"%s.dtype\": \"float32\", \"%s.dtype\": \"float32\"}",
        rungs[0], rungs[1]);
    for (size_t i = 0; i < count; i++) {
        snprintf(name, sizeof name, "%s.h5", rungs[i]);
        hid_t from = H5Fopen(test_join(folder, name), H5F_ACC_RDONLY, H5P_DEFAULT);
        g.rung = rungs[i];
        ck_assert(H5Ovisit(from, H5_INDEX_NAME, H5_ITER_NATIVE, add_tensor, &g) >= 0);
        H5Fclose(from);
    }
    g.header_used +=
        (size_t)snprintf(g.header + g.header_used, sizeof g.header - g.header_used, "}");
    uint64_t length = g.header_used;
    FILE *f = fopen(path, "wb");
    ck_assert(f && fwrite(&length, 8, 1, f) == 1 && fwrite(g.header, length, 1, f) == 1 &&
              fwrite(g.data, g.used, 1, f) == 1);
    fclose(f);
    return path;
}

/* A group's own metadata come before the whole file's. */
START_TEST(groups_may_be_in_a_safetensors_file)
{
    char *folder = climb_of(FEW, 2, "softcap-missing", NULL, 0);
    gemma4_climb c = climb(grouped_safetensors(folder, FEW, 2));
    ck_assert_uint_eq(gemma4_climb_count(&c, GEMMA4_RUNG_NOT_COVERED), ladder.count - 2);
    ck_assert_uint_eq(c.cause_count, 1);
    ck_assert_str_eq(c.causes[0].candidates[0].model->id, "softcap-missing");
    ck_assert_str_eq(c.dtype, "float32");
    gemma4_climb_free(&c);
}
END_TEST

START_TEST(a_rung_that_a_safetensors_file_lacks_is_not_covered)
{
    gemma4_error error = {""};
    bool missing = false;
    char *path = grouped_safetensors(climb_of(FEW, 2, NULL, NULL, 0), FEW, 2);
    gemma4_model *model = model_of(rung_named("dense"));
    ck_assert(!gemma4_activations_open_group(path, "dense", &model->config, &missing, &error));
    ck_assert(missing);
    assert_message_contains(&error, "expected tensors named dense.logits");
    gemma4_model_close(model);
    gemma4_climb c = climb(path);
    ck_assert_int_eq(verdict_of(&c, "dense"), GEMMA4_RUNG_NOT_COVERED);
    ck_assert_int_eq(verdict_of(&c, "head"), GEMMA4_RUNG_PASSES);
    gemma4_climb_free(&c);
}
END_TEST

/* Adds a number to every log-probability of a position, another one at each; wrong: to one of them
 * only. */
static void add_offsets(const char *folder, const char *rung, bool wrong)
{
    char name[80];
    hsize_t dims[2];
    snprintf(name, sizeof name, "%s.h5", rung);
    hid_t file = H5Fopen(test_join(folder, name), H5F_ACC_RDWR, H5P_DEFAULT),
          set = H5Dopen2(file, "logprobs/values", H5P_DEFAULT), space = H5Dget_space(set);
    ck_assert_int_eq(H5Sget_simple_extent_dims(space, dims, NULL), 2);
    size_t n = (size_t)(dims[0] * dims[1]), N = (size_t)dims[1];
    float *values = malloc(n * sizeof *values);
    ck_assert(values && H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    for (size_t i = 0; i < n; i++)
        values[i] += wrong ? (i % N == 3 ? 0.5f : 0) : 20 - 3 * (float)(i / N);
    ck_assert(H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    free(values);
    H5Sclose(space);
    H5Dclose(set);
    H5Fclose(file);
}

START_TEST(log_probabilities_count_by_their_differences)
{
    char *folder = climb_of(FEW, COUNT(FEW), _i == 1 ? "v-norm-missing" : NULL, NULL, 20);
    for (size_t i = 0; i < COUNT(FEW); i++)
        add_offsets(folder, FEW[i], false);
    if (_i == 2)
        add_offsets(folder, "dense", true);
    gemma4_climb c = climb(folder);
    ck_assert_int_eq(gemma4_climb_status(&c), _i ? 1 : 0);
    ck_assert_int_eq(verdict_of(&c, "dense"), _i == 2 ? GEMMA4_RUNG_FAILS : GEMMA4_RUNG_PASSES);
    ck_assert_uint_eq(c.cause_count, _i == 1 ? 1 : 0);
    if (_i == 1)
        ck_assert_str_eq(c.causes[0].candidates[0].model->id, "v-norm-missing");
    gemma4_climb_free(&c);
}
END_TEST

START_TEST(a_file_without_groups_is_refused)
{
    gemma4_error error = {""};
    gemma4_climb c;
    char *folder = climb_of(FEW, 1, NULL, NULL, 0);
    ck_assert_int_eq(
        gemma4_climb_ladder(&ladder, test_join(folder, "linear-head.h5"), NULL, &c, &error), -1);
    assert_message_contains(&error, "expected the group of at least one rung");
    gemma4_climb_free(&c);
}
END_TEST

/* --- reports --- */

static const char *text_of(const gemma4_climb *c, void (*write)(FILE *, const gemma4_climb *))
{
    static char text[65536];
    FILE *f = fmemopen(text, sizeof text, "w");
    write(f, c);
    fclose(f);
    return text;
}

/* The document, to be freed. */
static gemma4_document *document_of(const gemma4_climb *c)
{
    gemma4_error error = {""};
    const char *json = text_of(c, gemma4_climb_json);
    gemma4_document *document = gemma4_document_parse("report", json, strlen(json), &error);
    ck_assert_msg(document != NULL, "%s", error.message);
    return document;
}

START_TEST(reports_say_what_was_found)
{
    gemma4_climb c = climb(climb_of(FEW, 3, "softcap-missing", NULL, 0));
    const char *text = text_of(&c, gemma4_climb_text);
    ck_assert(strstr(text, "FAIL: softcap-missing\n") &&
              strstr(text, "ok, with the cause found above\n"));
    ck_assert(strstr(text, "Cause: softcap-missing, first at rung head"));
    ck_assert(strstr(text, "DOES NOT CONFORM: 1 of 3 rungs fail, 1 cause found"));
    gemma4_error error = {""};
    const char *id;
    gemma4_document *document = document_of(&c);
    const gemma4_node *root = gemma4_document_root(document);
    ck_assert_int_eq(gemma4_get_string(root, "verdict", &id, &error), 0);
    ck_assert_str_eq(id, "FAIL");
    ck_assert_int_eq(
        gemma4_get_string(&gemma4_node_get(root, "causes")->items[0], "id", &id, &error), 0);
    ck_assert_str_eq(id, "softcap-missing");
    ck_assert_uint_eq(gemma4_node_get(root, "rungs")->count, ladder.count);
    gemma4_document_free(document);
    ck_assert(strstr(text_of(&c, gemma4_climb_junit), "failures=\"1\" errors=\"0\""));
    gemma4_climb_free(&c);
}
END_TEST

static void assert_says(const char *text, const char *const *said, size_t count)
{
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(strstr(text, said[i]) != NULL, "\"%s\" is not in: %s", said[i], text);
}

START_TEST(reports_say_what_was_not_judged)
{
    static const char *const said[] = {
        "FAIL: cause unknown: ",
        "  not judged: needs full-one-token\n",
        "  cannot be judged: ",
        "\n1 of 32 rungs cannot be judged\n",
        "\nwarning: no rung has the name of: dnese.h5\n",
        "\nDOES NOT CONFORM: 1 of 5 rungs fail, 0 causes found, 1 rungs not judged\n"};
    char *folder = climb_of(FEW, COUNT(FEW), NULL, NULL, 0);
    change_logits(folder, "full-one-token", spoilt);
    test_write_text(test_join(folder, "dense.h5"), "no HDF5");
    test_write_text(test_join(folder, "dnese.h5"), "");
    gemma4_climb c = climb(folder);
    assert_says(text_of(&c, gemma4_climb_text), said, COUNT(said));
    gemma4_error error = {""};
    gemma4_document *document = document_of(&c);
    const gemma4_node *root = gemma4_document_root(document);
    const char *verdict, *needs;
    ck_assert_int_eq(gemma4_get_string(root, "verdict", &verdict, &error), 0);
    ck_assert_str_eq(verdict, "UNUSABLE");
    const gemma4_node *full = &gemma4_node_get(root, "rungs")->items[rung_named("full")];
    ck_assert_int_eq(gemma4_get_string(full, "verdict", &verdict, &error), 0);
    ck_assert_str_eq(verdict, "NOT_JUDGED");
    ck_assert_int_eq(gemma4_get_string(full, "needs", &needs, &error), 0);
    ck_assert_str_eq(needs, "full-one-token");
    gemma4_document_free(document);
    ck_assert(strstr(text_of(&c, gemma4_climb_junit), "failures=\"1\" errors=\"1\""));
    gemma4_climb_free(&c);
}
END_TEST

START_TEST(reports_say_all_causes)
{
    static const char *const said[] = {
        "FAIL: softcap-missing\n",
        "FAIL: v-norm-missing\n",
        "ok, with the cause found above\n",
        "ok, with the causes found above\n",
        "\nCause: v-norm-missing, first at rung full-one-token",
        "\nDOES NOT CONFORM: 2 of 5 rungs fail, 2 causes found, 0 rungs not judged\n"};
    gemma4_climb c = climb(climb_of(FEW, COUNT(FEW), "softcap-missing", "v-norm-missing", 0));
    assert_says(text_of(&c, gemma4_climb_text), said, COUNT(said));
    gemma4_document *document = document_of(&c);
    ck_assert_uint_eq(gemma4_node_get(gemma4_document_root(document), "causes")->count, 2);
    gemma4_document_free(document);
    gemma4_climb_free(&c);
}
END_TEST

START_TEST(a_part_of_the_ladder_is_no_verdict)
{
    gemma4_climb c = climb(climb_of(FEW, 2, NULL, NULL, 0));
    ck_assert(strstr(text_of(&c, gemma4_climb_text), "\nNO FAULT FOUND on 2 of 32 rungs\n"));
    gemma4_climb_free(&c);
}
END_TEST

START_TEST(the_ladder_is_written)
{
    gemma4_error error = {""};
    char *folder = test_join(test_fresh_dir(), "ladder");
    ck_assert_msg(gemma4_ladder_write(&ladder, folder, &error) == 0, "%s", error.message);
    gemma4_document *document = gemma4_document_read(test_join(folder, "ladder.json"), &error);
    ck_assert_msg(document != NULL, "%s", error.message);
    const gemma4_node *rungs = gemma4_node_get(gemma4_document_root(document), "rungs");
    ck_assert_uint_eq(rungs->count, ladder.count);
    for (size_t i = 0; i < rungs->count; i++) {
        const char *checkpoint;
        ck_assert_int_eq(gemma4_get_string(&rungs->items[i], "checkpoint", &checkpoint, &error), 0);
        ASSERT_EACH(strlen(test_read(test_join(test_join(folder, checkpoint), "tokenizer.json"))) >
                        0,
                    "%s", checkpoint);
    }
    gemma4_document_free(document);
}
END_TEST

Suite *ladder_suite(void)
{
    Suite *suite = suite_create("ladder");
    TCase *rungs = tcase_create("rungs"), *climbs = tcase_create("climbs"),
          *reports = tcase_create("reports");
    TCase *cases[] = {rungs, climbs, reports};
    for (size_t i = 0; i < COUNT(cases); i++) {
        tcase_add_checked_fixture(cases[i], open_ladder, close_ladder);
        tcase_set_timeout(cases[i], 120);
        suite_add_tcase(suite, cases[i]);
    }
    tcase_add_test(rungs, there_are_enough_rungs);
    tcase_add_loop_test(rungs, only_what_a_rung_is_about_is_alive, 0, COUNT(ALIVE));
    tcase_add_test(rungs, equal_experts_are_equal);
    tcase_add_loop_test(climbs, a_right_engine_passes, 0, 2);
    tcase_add_loop_test(climbs, what_is_found_is_carried_forward, 0, COUNT(PLANTED));
    tcase_add_test(climbs, a_rung_is_judged_again_when_more_is_known);
    tcase_add_loop_test(climbs, two_mistakes_of_one_rung_are_found_as_a_pair, 0, 2);
    tcase_add_test(climbs, three_mistakes_of_one_rung_are_found_together);
    tcase_add_loop_test(climbs,
                        values_rounded_the_other_way_are_allowed_for_where_the_engine_rounds, 0,
                        COUNT(FLIPS));
    tcase_add_test(climbs, a_mistake_that_barely_shows_is_found_alone);
    tcase_add_test(climbs, the_right_one_of_a_pair_is_told_by_a_later_rung);
    tcase_add_loop_test(climbs, a_mistake_of_decode_is_not_carried_to_longer_chunks, 0, 2);
    tcase_add_test(climbs, a_mistake_that_longer_chunks_show_is_not_one_of_decode);
    tcase_add_test(climbs, only_what_needs_an_unexplained_rung_is_left_unjudged);
    tcase_add_test(climbs, a_dump_that_cannot_be_read_is_said);
    tcase_add_test(climbs, another_rung_s_dump_is_refused);
    tcase_add_test(climbs, an_empty_folder_is_refused);
    tcase_add_test(climbs, a_report_takes_no_dump_s_place);
    tcase_add_test(climbs, groups_of_one_file_are_rungs);
    tcase_add_test(climbs, groups_may_be_in_a_safetensors_file);
    tcase_add_test(climbs, a_rung_that_a_safetensors_file_lacks_is_not_covered);
    tcase_add_loop_test(climbs, log_probabilities_count_by_their_differences, 0, 3);
    tcase_add_test(climbs, a_file_without_groups_is_refused);
    tcase_add_test(reports, reports_say_what_was_found);
    tcase_add_test(reports, reports_say_what_was_not_judged);
    tcase_add_test(reports, reports_say_all_causes);
    tcase_add_test(reports, a_part_of_the_ladder_is_no_verdict);
    tcase_add_test(reports, the_ladder_is_written);
    return suite;
}
