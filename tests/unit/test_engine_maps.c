/* Shipped maps on what the engines wrote: excerpts of their dumps (golden/engines/excerpt.py), the
 * first positions of a prompt in a few layers. */
#include <stdlib.h>

#include "import.h"
#include "judge.h"
#include "manifest.h"
#include "map.h"
#include "maps.h"
#include "suites.h"
#include "support.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define EXCERPTS "tests/unit/excerpts"

static const struct {
    const char *map, *excerpt, *case_id; /* the case whose checkpoint it is */
    size_t taps;                         /* that are judged */
    const char *diverges;                /* the first tap that does; "" where the engine is right */
    const char *right, *wrong;           /* a mistake in the map ... */
    const char *misread;                 /* ... and the tap where it shows */
} ENGINES[] = {
    {"mlx-lm", "mlx-lm.h5", "tiny-prompt", 61, "", ".pre_feedforward_layernorm'",
     ".pre_feedforward_layernorm_2'", "layers.0.mlp.norm"},
    {"keras-hub", "keras-hub.h5", "tiny-prompt", 5, "", "decoder_block_{N}", "decoder_block_{N+1}",
     "layers.0.output"},
    {"llama.cpp", "llama.cpp.h5", "tiny-prompt", 86, "layers.0.mlp.act", "'ffn_norm_1-{N}'",
     "'ffn_norm_2-{N}'", "layers.0.mlp.norm"},
    {"onnxruntime", "onnxruntime.h5", "tiny-prompt", 83, "layers.0.moe.out",
     "{N}/pre_feedforward_layernorm/output_0", "{N}/pre_feedforward_layernorm/output_3",
     "layers.0.mlp.norm"},
    {"vllm-hidden-states", "vllm-hidden-states.safetensors", "heads512-prompt", 3, "",
     "slice: {l: 0}", "slice: {l: 1}", "embed"},
    {"gemma-jax", "gemma-jax.h5", "tiny-prompt", 63, "layers.0.router.logits",
     "layer_{N}.pre_ffw2_norm'", "layer_{N}.pre_ffw_norm'", "layers.0.mlp.norm"},
};

typedef struct judged {
    gemma4_case *the_case;
    gemma4_model *model;
    gemma4_map *map;
    gemma4_activations *file;
    const gemma4_import_log *log;
    gemma4_report report;
    char first[GEMMA4_TAP_NAME_SIZE]; /* the tap that diverges first; "" for none */
} judged;

/* The excerpt by a map, against the reference. */
static judged judge_by(size_t i, gemma4_map *map)
{
    gemma4_error error = {""};
    judged j = {.the_case = gemma4_case_open(ENGINES[i].case_id, &error), .map = map};
    ck_assert_msg(j.the_case != NULL, "%s", error.message);
    j.model = gemma4_model_open(j.the_case->checkpoint_dir, &error);
    ck_assert_msg(j.model != NULL, "%s", error.message);
    const char *path = test_join(EXCERPTS, ENGINES[i].excerpt);
    j.file = gemma4_import(&path, 1, map, &j.model->config, NULL, &j.log, &error);
    ck_assert_msg(j.file != NULL, "%s", error.message);
    gemma4_judgement judgement = {
        .model = j.model, .engine = j.file, .dtype = "float32", .without_causes = true};
    ck_assert_msg(gemma4_judge(&judgement, &j.report, &error) == 0, "%s", error.message);
    const gemma4_tap_result *first = j.report.first_divergence;
    if (first)
        gemma4_tap_name(first->tap, first->layer, j.first);
    return j;
}

static void free_judged(judged *j)
{
    gemma4_report_free(&j->report);
    gemma4_activations_close(j->file);
    gemma4_map_free(j->map);
    gemma4_model_close(j->model);
    gemma4_case_close(j->the_case);
}

static size_t taps_covered(const gemma4_report *report)
{
    size_t n = 0;
    for (size_t i = 0; i < report->tap_count; i++)
        n += report->taps[i].verdict != GEMMA4_NOT_COVERED;
    return n;
}

START_TEST(an_engines_own_output_is_read_whole_and_judged)
{
    gemma4_error error = {""};
    gemma4_map *map = gemma4_map_open(ENGINES[_i].map, &error);
    ck_assert_msg(map != NULL, "%s", error.message);
    judged j = judge_by((size_t)_i, map);
    ck_assert_msg(j.log->untaken_count == 0, "%s: no rule takes %s", ENGINES[_i].map,
                  j.log->untaken[0]);
    ck_assert_str_eq(j.first, ENGINES[_i].diverges);
    ck_assert_uint_eq(taps_covered(&j.report), ENGINES[_i].taps);
    free_judged(&j);
}
END_TEST

/* Otherwise the test above would let any map pass. */
START_TEST(a_rule_that_takes_another_tensor_shows_there)
{
    gemma4_error error = {""};
    const char *shipped = test_join("golden/maps", ENGINES[_i].map);
    char name[256];
    snprintf(name, sizeof name, "%s.yaml", shipped);
    const char *text = test_read(name), *at = strstr(text, ENGINES[_i].right);
    ck_assert_msg(at != NULL, "%s: no %s", name, ENGINES[_i].right);
    size_t size = strlen(text) + strlen(ENGINES[_i].wrong) + 1;
    char *changed = malloc(size);
    ck_assert_ptr_nonnull(changed);
    snprintf(changed, size, "%.*s%s%s", (int)(at - text), text, ENGINES[_i].wrong,
             at + strlen(ENGINES[_i].right));
    const char *path = test_join(test_fresh_dir(), "wrong.yaml");
    test_write_text(path, changed);
    free(changed);
    gemma4_map *map = gemma4_map_read(path, &error);
    ck_assert_msg(map != NULL, "%s", error.message);
    judged j = judge_by((size_t)_i, map);
    ck_assert_str_eq(j.first, ENGINES[_i].misread);
    free_judged(&j);
}
END_TEST

Suite *engine_maps_suite(void)
{
    Suite *suite = suite_create("engine_maps");
    TCase *all = tcase_create("engine_maps");
    tcase_set_timeout(all, 60);
    tcase_add_loop_test(all, an_engines_own_output_is_read_whole_and_judged, 0, COUNT(ENGINES));
    tcase_add_loop_test(all, a_rule_that_takes_another_tensor_shows_there, 0, COUNT(ENGINES));
    suite_add_tcase(suite, all);
    return suite;
}
