#include "lint.h"

#include <dirent.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "activations.h"
#include "hash.h"
#include "manifest.h"
#include "model.h"

#define SMALLEST_GAP 1e-4 /* spec/cases.md */

typedef struct lint {
    FILE *out;
    size_t problems;
    const char *id;
} lint;

static void problem(lint *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void problem(lint *l, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(l->out, "%s: ", l->id);
    vfprintf(l->out, format, arguments);
    fputc('\n', l->out);
    va_end(arguments);
    l->problems++;
}

/* Every value of every tap of the golden must be finite. */
static void lint_values(lint *l, gemma4_activations *golden, const gemma4_config *config, size_t T)
{
    gemma4_error error;
    for (size_t i = 0; i < gemma4_activations_count(golden); i++) {
        const gemma4_activation *a = gemma4_activations_at(golden, i);
        char name[GEMMA4_TAP_NAME_SIZE];
        size_t dims[2] = {1, 1};
        gemma4_tap_name(a->tap, a->layer, name);
        if (!a->usable) {
            problem(l, "golden: %s: %s", name, a->problem);
            continue;
        }
        gemma4_tap_dims(config, a->tap, a->layer, T, dims);
        if (gemma4_tap_describe(a->tap)->ids)
            continue;
        size_t n = a->rows * dims[0] * dims[1];
        float *values = malloc(n * sizeof *values);
        if (!values || gemma4_activations_read(golden, a, 0, a->rows, values, &error))
            problem(l, "golden: %s: %s", name, values ? error.message : "out of memory");
        for (size_t v = 0; values && v < n; v++)
            if (!isfinite(values[v])) {
                problem(l, "golden: %s: value %zu is not finite", name, v);
                break;
            }
        free(values);
    }
}

static void lint_coverage(lint *l, gemma4_activations *golden, const gemma4_config *config)
{
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        for (size_t layer = 0; layer < (gemma4_tap_describe((gemma4_tap)tap)->per_layer ? config->num_hidden_layers : 1); layer++) {
            char name[GEMMA4_TAP_NAME_SIZE];
            if (!gemma4_tap_describe((gemma4_tap)tap)->optional && !gemma4_activations_find(golden, (gemma4_tap)tap, layer))
                problem(l, "golden: %s: required, not there", gemma4_tap_name((gemma4_tap)tap, layer, name));
        }
}

static void lint_golden(lint *l, const gemma4_case *c)
{
    gemma4_error error;
    char found[GEMMA4_SHA256_SIZE];
    gemma4_model *model = gemma4_model_open(c->checkpoint_dir, &error);
    if (!model) {
        problem(l, "%s", error.message);
        return;
    }
    if (gemma4_sha256_file(c->golden_path, found, &error))
        problem(l, "%s", error.message);
    else if (strcmp(found, c->golden_sha256))
        problem(l, "golden.sha256: expected that of %s, %s, found %s", c->golden_path, found, c->golden_sha256);
    gemma4_activations *golden = gemma4_activations_open(c->golden_path, &model->config, &error);
    if (!golden) {
        problem(l, "%s", error.message);
    } else {
        const int32_t *tokens, *positions;
        size_t T = gemma4_activations_positions(golden, &tokens, &positions);
        if (T != c->token_count || memcmp(tokens, c->tokens, T * sizeof *tokens) || (size_t)positions[0] != c->first_position)
            problem(l, "golden: its tokens or positions are not the manifest's");
        lint_coverage(l, golden, &model->config);
        lint_values(l, golden, &model->config, T);
        if (c->routing_decisions != model->config.num_hidden_layers * T)
            problem(l, "routing.decisions: expected %zu layers times %zu positions, found %llu", model->config.num_hidden_layers, T,
                    (unsigned long long)c->routing_decisions);
        gemma4_activations_close(golden);
    }
    gemma4_model_close(model);
}

static void lint_case(lint *l)
{
    gemma4_error error;
    const char *directory = gemma4_cases_dir();
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.yaml", directory, l->id);
    gemma4_case *c = gemma4_case_open(path, &error);
    if (!c) {
        problem(l, "%s", error.message);
        return;
    }
    if (strcmp(c->id, l->id))
        problem(l, "id: expected the file's name, found '%s'", c->id);
    if (c->shows_count == 0)
        problem(l, "shows: expected at least one mistake");
    if (!(c->routing_smallest_gap > SMALLEST_GAP))
        problem(l, "routing.smallest_gap: expected more than %g, found %g", SMALLEST_GAP, c->routing_smallest_gap);
    for (int metric = GEMMA4_METRIC_RELATIVE_RMS; metric <= GEMMA4_METRIC_POSITION_RMS; metric++)
        if (!gemma4_case_tolerance(c, "float32", "layers.0.output", (gemma4_metric_kind)metric))
            problem(l, "tolerances: no float32 row for %s", gemma4_metric_name((gemma4_metric_kind)metric));
    if (gemma4_case_provide_checkpoint(c, &error))
        problem(l, "%s", error.message);
    else
        lint_golden(l, c);
    gemma4_case_close(c);
}

/* Every golden is named by exactly one manifest: since a manifest's golden is in its folder, it must be ID.h5. */
static void lint_orphans(lint *l, char **ids, size_t count)
{
    DIR *d = opendir(gemma4_cases_dir());
    for (struct dirent *entry; d && (entry = readdir(d));) {
        size_t n = strlen(entry->d_name), i = 0;
        if (n < 4 || strcmp(entry->d_name + n - 3, ".h5"))
            continue;
        while (i < count && (strlen(ids[i]) != n - 3 || strncmp(ids[i], entry->d_name, n - 3)))
            i++;
        l->id = entry->d_name;
        if (i == count)
            problem(l, "no manifest names this golden");
    }
    if (d)
        closedir(d);
}

int gemma4_lint(FILE *out, size_t *problems, gemma4_error *error)
{
    lint l = {.out = out};
    char **ids;
    size_t count;
    if (gemma4_case_ids(&ids, &count, error))
        return -1;
    for (size_t i = 0; i < count; i++) {
        l.id = ids[i];
        lint_case(&l);
    }
    lint_orphans(&l, ids, count);
    fprintf(out, "lint: %zu cases, %zu problems\n", count, l.problems);
    gemma4_case_ids_free(ids, count);
    *problems = l.problems;
    return count ? 0 : gemma4_fail(error, "golden/cases: expected at least one manifest, found none");
}
