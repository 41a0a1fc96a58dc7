#include "shows.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compare.h"
#include "counter_model.h"
#include "guard.h"
#include "isolate.h"
#include "model.h"
#include "planted_engine.h"
#include "rows.h"

/* What is compared. */
typedef struct comparands {
    const gemma4_simulation *simulation;
    gemma4_activations *golden, *planted;
} comparands;

/* The tap's relative RMS between both files, over the positions that the golden holds. */
static int compare_tap(const comparands *c, const gemma4_activation *expected,
                       const gemma4_activation *found, double *difference, gemma4_error *error)
{
    size_t dims[2], T = gemma4_activations_positions(c->golden, NULL, NULL);
    gemma4_tap_dims(&c->simulation->model->config, expected->tap, expected->layer, T, dims);
    size_t width = dims[0] * dims[1];
    gemma4_comparison comparison = {0};
    float *rows = malloc(2 * width * sizeof *rows);
    int status =
        rows ? gemma4_comparison_init(&comparison, T, error) : gemma4_fail(error, "out of memory");
    for (size_t i = 0; i < expected->rows && !status; i++) {
        size_t t = expected->row_index[i];
        if (gemma4_activations_read(c->golden, expected, i, 1, rows, error) ||
            gemma4_activations_read(c->planted, found, t, 1, rows + width, error))
            status = -1;
        else
            gemma4_comparison_add(&comparison, t, 0, rows + width, rows, width);
    }
    if (!status)
        *difference =
            comparison.nonfinite ? HUGE_VAL : gemma4_comparison_metrics(&comparison).relative_rms;
    gemma4_comparison_free(&comparison);
    free(rows);
    return status;
}

/* Whether a tap differs by more than the case's tolerance. Taps in the order of topk_ids are passed
 * over, which has no order of its own; what they change shows at moe.out. */
static int differ(const comparands *c, bool *shows, gemma4_error *error)
{
    for (size_t i = 0; i < gemma4_activations_count(c->planted) && !*shows; i++) {
        const gemma4_activation *found = gemma4_activations_at(c->planted, i);
        const gemma4_activation *expected =
            gemma4_activations_find(c->golden, found->tap, found->layer);
        char name[GEMMA4_TAP_NAME_SIZE];
        gemma4_tap_name(found->tap, found->layer, name);
        const gemma4_tolerance_row *tolerance = gemma4_case_tolerance(
            c->simulation->the_case, "float32", name, GEMMA4_METRIC_RELATIVE_RMS);
        double difference;
        if (!expected || !expected->usable || !tolerance || gemma4_tap_describe(found->tap)->ids ||
            gemma4_tap_in_id_order(found->tap))
            continue;
        if (compare_tap(c, expected, found, &difference, error))
            return -1;
        *shows = !(difference <= tolerance->value);
    }
    return 0;
}

typedef struct writing {
    const gemma4_simulation *simulation;
    const char *path;
} writing;

static int write_planted(void *context, gemma4_error *error)
{
    const writing *w = context;
    return gemma4_simulate(w->simulation, w->path, error);
}

static int plant(const gemma4_simulation *s, gemma4_activations *golden, const char *path,
                 bool *shows, gemma4_error *error)
{
    writing w = {s, path};
    if (gemma4_isolate_writer(write_planted, &w, path, error))
        return -1;
    const comparands c = {s, golden, gemma4_activations_open(path, &s->model->config, error)};
    int status = c.planted ? differ(&c, shows, error) : -1;
    gemma4_activations_close(c.planted);
    return status;
}

/* An empty file of its own, to be removed. */
static int make_file(char *path, size_t size, gemma4_error *error)
{
    const char *directory = getenv("TMPDIR");
    if (snprintf(path, size, "%s/gemma4-lint-XXXXXX",
                 directory && *directory ? directory : P_tmpdir) >= (int)size)
        return gemma4_fail(error, "%.200s...: path too long", directory);
    int file = mkstemp(path);
    if (file < 0)
        return gemma4_fail(error, "%s: cannot make a temporary file: %s", path, strerror(errno));
    close(file);
    return 0;
}

/* Every variant of the cause, until one shows. */
static int plant_each(gemma4_simulation *s, gemma4_activations *golden, const char *cause,
                      const char *path, bool *shows, gemma4_error *error)
{
    int status = 0;
    for (size_t i = 0; i < gemma4_counter_model_count() && !*shows && !status; i++) {
        s->planted[0] = gemma4_counter_model_at(i);
        if (!strcmp(s->planted[0]->id, cause))
            status = plant(s, golden, path, shows, error);
    }
    return status;
}

int gemma4_case_shows(const gemma4_case *c, const gemma4_model *model, gemma4_activations *golden,
                      const char *cause, bool *shows, gemma4_error *error)
{
    char path[4096];
    gemma4_simulation s = {.the_case = c,
                           .model = model,
                           .tier = "float32",
                           .only_layer = {-1, -1},
                           .taps = GEMMA4_SET_LOGITS};
    *shows = false;
    if (make_file(path, sizeof path, error))
        return -1;
    int guarded = gemma4_guard_temporary(path);
    /* Nearly all mistakes reach the logits, which are quickly written and read. */
    int status = plant_each(&s, golden, cause, path, shows, error);
    s.taps = GEMMA4_SET_ALL;
    if (!status && !*shows)
        status = plant_each(&s, golden, cause, path, shows, error);
    unlink(path);
    gemma4_guard_forget_temporary(guarded);
    return status;
}
