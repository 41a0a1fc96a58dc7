#include "lint.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "activations.h"
#include "counter_model.h"
#include "hash.h"
#include "manifest.h"
#include "maps.h"
#include "model.h"
#include "noise.h"
#include "shows.h"

#define SMALLEST_GAP 1e-4 /* spec/cases.md */

typedef struct lint {
    FILE *out;
    bool in_long; /* plant in cases of many positions too */
    size_t problems;
    const char *id;
    gemma4_error stopped; /* what ends it all, and is no problem of a file: memory ran out */
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

/* The first reason stays. */
static void stop(lint *l, const char *where, const gemma4_error *error)
{
    if (!l->stopped.message[0])
        gemma4_fail(&l->stopped, "%s: %s%s", l->id, where, error->message);
}

/* What a reader said of a file; where: what goes before it, "golden: ". */
static void problem_of(lint *l, const char *where, const gemma4_error *error)
{
    if (gemma4_error_is_memory(error))
        stop(l, where, error);
    else
        problem(l, "%s%s", where, error->message);
}

/* ------------------------------------------------------------ the manifest */

/* Whether a glob matches a tap of the model. */
static bool matches_a_tap(const char *glob, const gemma4_config *config)
{
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        for (size_t layer = 0;
             layer <
             (gemma4_tap_describe((gemma4_tap)tap)->per_layer ? config->num_hidden_layers : 1);
             layer++) {
            char name[GEMMA4_TAP_NAME_SIZE];
            if (!fnmatch(glob, gemma4_tap_name((gemma4_tap)tap, layer, name), 0))
                return true;
        }
    return false;
}

static void lint_tolerances(lint *l, const gemma4_case *c, const gemma4_config *config)
{
    for (size_t i = 0; i < c->tolerance_count; i++) {
        const gemma4_tolerance_row *row = &c->tolerances[i];
        if (!gemma4_tier_of(row->dtype))
            problem(
                l,
                "tolerances[%zu].dtype: expected a tier's name (float32, bfloat16 ...), found '%s'",
                i, row->dtype);
        if (!matches_a_tap(row->taps, config))
            problem(l,
                    "tolerances[%zu].taps: expected a pattern that matches a tap of the model, "
                    "found '%s'",
                    i, row->taps);
    }
}

static void lint_flags(lint *l, const gemma4_case *c)
{
    const gemma4_flag_info *info;
    for (size_t i = 0; i < c->flag_count; i++) {
        if (!gemma4_flag_named(c->flags[i].flag))
            problem(l, "flags[%zu]: expected a flag that spec/cases.md explains, found '%s'", i,
                    c->flags[i].flag);
        for (size_t j = 0; j < i; j++)
            if (!strcmp(c->flags[i].flag, c->flags[j].flag))
                problem(l, "flags[%zu]: found '%s' twice", i, c->flags[i].flag);
    }
    for (size_t i = 0; (info = gemma4_flag_at(i)); i++)
        if (gemma4_case_has_flag(c, info->flag) == gemma4_case_needs_flag(c, info))
            continue;
        else if (info->from)
            problem(l,
                    "flags: %s is for cases whose first_position is %zu or more, which is %zu here",
                    info->flag, info->from, c->first_position);
        else
            problem(l, "flags: %s is for cases of %zu tokens or more, of which there are %zu here",
                    info->flag, info->tokens, c->token_count);
}

/* Every mistake that the case names must have a counter-model, and the case must show it, where it
 * is planted. */
static void lint_shows(lint *l, const gemma4_case *c, const gemma4_model *model,
                       gemma4_activations *golden, bool planted)
{
    for (size_t i = 0; i < c->shows_count; i++) {
        gemma4_error error;
        bool shows = true;
        for (size_t j = 0; j < i; j++)
            if (!strcmp(c->shows[i], c->shows[j]))
                problem(l, "shows[%zu]: found '%s' twice", i, c->shows[i]);
        if (!gemma4_cause_exists(c->shows[i]))
            problem(
                l,
                "shows[%zu]: expected a cause of the catalogue (gemma4-check explain), found '%s'",
                i, c->shows[i]);
        else if (planted && gemma4_case_shows(c, model, golden, c->shows[i], &shows, &error))
            stop(l, "shows: ", &error);
        else if (!shows)
            problem(l, "shows[%zu]: %s changes no tap of this case by more than its tolerance", i,
                    c->shows[i]);
    }
}

/* -------------------------------------------------------------- the golden */

/* What a reader said of the golden. One that is what the manifest says it is can be read: then it
 * is the machine that cannot. */
static void golden_problem(lint *l, bool as_listed, const gemma4_error *error)
{
    if (as_listed)
        stop(l, "golden: ", error);
    else
        problem_of(l, "golden: ", error);
}

/* Every value of every tap of the golden must be finite. */
static void lint_values(lint *l, gemma4_activations *golden, const gemma4_config *config, size_t T,
                        bool as_listed)
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
        if (!values)
            gemma4_fail(&error, "%s: out of memory", name);
        if (!values || gemma4_activations_read(golden, a, 0, a->rows, values, &error))
            golden_problem(l, as_listed, &error);
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
        for (size_t layer = 0;
             layer <
             (gemma4_tap_describe((gemma4_tap)tap)->per_layer ? config->num_hidden_layers : 1);
             layer++) {
            char name[GEMMA4_TAP_NAME_SIZE];
            if (!gemma4_tap_describe((gemma4_tap)tap)->optional &&
                !gemma4_activations_find(golden, (gemma4_tap)tap, layer))
                problem(l, "golden: %s: required, not there",
                        gemma4_tap_name((gemma4_tap)tap, layer, name));
        }
}

static void lint_golden(lint *l, const gemma4_case *c)
{
    gemma4_error error;
    char found[GEMMA4_SHA256_SIZE] = "";
    gemma4_model *model = gemma4_model_open(c->checkpoint_dir, &error);
    if (!model) {
        problem_of(l, "", &error);
        return;
    }
    if (gemma4_sha256_file(c->golden_path, found, &error))
        problem_of(l, "", &error);
    else if (strcmp(found, c->golden_sha256))
        problem(l, "golden.sha256: expected that of %s, %s, found %s", c->golden_path, found,
                c->golden_sha256);
    gemma4_activations *golden = gemma4_activations_open(c->golden_path, &model->config, &error);
    bool as_listed = !strcmp(found, c->golden_sha256);
    if (!golden) {
        golden_problem(l, as_listed, &error);
    } else {
        const int32_t *tokens, *positions;
        size_t T = gemma4_activations_positions(golden, &tokens, &positions);
        if (T != c->token_count || memcmp(tokens, c->tokens, T * sizeof *tokens) ||
            (size_t)positions[0] != c->first_position)
            problem(l, "golden: its tokens or positions are not the manifest's");
        size_t before = l->problems;
        lint_tolerances(l, c, &model->config);
        lint_coverage(l, golden, &model->config);
        lint_values(l, golden, &model->config, T, as_listed);
        /* What is planted is held against a golden that can be read; what takes long only where
         * it is asked for. */
        lint_shows(l, c, model, golden,
                   l->problems == before &&
                       (l->in_long || !gemma4_case_has_flag(c, GEMMA4_MANY_POSITIONS)));
        if (c->routing_decisions != model->config.num_hidden_layers * T)
            problem(l, "routing.decisions: expected %zu layers times %zu positions, found %llu",
                    model->config.num_hidden_layers, T, (unsigned long long)c->routing_decisions);
        gemma4_activations_close(golden);
    }
    gemma4_model_close(model);
}

static void lint_case(lint *l)
{
    gemma4_error error;
    const char *directory = gemma4_cases_dir();
    char path[4096];
    bool fits = snprintf(path, sizeof path, "%s/%s.yaml", directory, l->id) < (int)sizeof path;
    gemma4_case *c = fits ? gemma4_case_open(path, &error) : NULL;
    if (!c) {
        if (fits)
            problem_of(l, "", &error);
        else
            problem(l, "path too long");
        return;
    }
    if (strcmp(c->id, l->id))
        problem(l, "id: expected the file's name, found '%s'", c->id);
    if (c->shows_count == 0)
        problem(l, "shows: expected at least one mistake");
    if (!(c->routing_smallest_gap > SMALLEST_GAP))
        problem(l, "routing.smallest_gap: expected more than %g, found %g", SMALLEST_GAP,
                c->routing_smallest_gap);
    for (int metric = GEMMA4_METRIC_RELATIVE_RMS; metric <= GEMMA4_METRIC_POSITION_RMS; metric++)
        if (!gemma4_case_tolerance(c, "float32", "layers.0.output", (gemma4_metric_kind)metric))
            problem(l, "tolerances: no float32 row for %s",
                    gemma4_metric_name((gemma4_metric_kind)metric));
    lint_flags(l, c);
    if (gemma4_case_provide_checkpoint(c, &error))
        problem_of(l, "", &error);
    else
        lint_golden(l, c);
    gemma4_case_close(c);
}

static bool is_golden_of_none(const char *name, char **ids, size_t count)
{
    size_t n = strlen(name);
    if (n < 4 || strcmp(name + n - 3, ".h5"))
        return false;
    for (size_t i = 0; i < count; i++)
        if (strlen(ids[i]) == n - 3 && !strncmp(ids[i], name, n - 3))
            return false;
    return true;
}

/* Every golden is named by exactly one manifest: since a manifest's golden is in its folder, it
 * must be ID.h5. */
static int lint_orphans(lint *l, char **ids, size_t count, gemma4_error *error)
{
    const char *directory = gemma4_cases_dir();
    DIR *d = opendir(directory);
    if (!d)
        return gemma4_fail(error, "%s: cannot list: %s", directory, strerror(errno));
    for (struct dirent *entry; errno = 0, (entry = readdir(d));) {
        l->id = entry->d_name;
        if (is_golden_of_none(entry->d_name, ids, count))
            problem(l, "no manifest names this golden");
    }
    int reason = errno;
    closedir(d);
    return reason ? gemma4_fail(error, "%s: cannot list: %s", directory, strerror(reason)) : 0;
}

/* Every shipped map can be read, and says where its names were seen. */
static int lint_maps(lint *l, size_t *count, gemma4_error *error)
{
    char **names;
    gemma4_error why;
    if (gemma4_map_names(&names, count, error))
        return -1;
    for (size_t i = 0; i < *count; i++) {
        l->id = names[i];
        gemma4_map *map = gemma4_map_open(names[i], &why);
        if (!map)
            problem_of(l, "map: ", &why);
        else if (!map->seen)
            problem(l, "map: seen: expected the engine's version of which the names were seen, "
                       "found none");
        gemma4_map_free(map);
    }
    gemma4_case_ids_free(names, *count);
    return 0;
}

int gemma4_lint(FILE *out, bool in_long, size_t *problems, gemma4_error *error)
{
    lint l = {.out = out, .in_long = in_long};
    char **ids;
    size_t count, maps = 0;
    if (gemma4_case_ids(&ids, &count, error))
        return -1;
    for (size_t i = 0; i < count && !l.stopped.message[0]; i++) {
        l.id = ids[i];
        lint_case(&l);
    }
    int status = lint_orphans(&l, ids, count, error) || lint_maps(&l, &maps, error) ? -1 : 0;
    gemma4_case_ids_free(ids, count);
    *problems = l.problems;
    if (status)
        return -1;
    if (l.stopped.message[0])
        return gemma4_fail(error, "%s", l.stopped.message);
    fprintf(out, "lint: %zu cases, %zu maps, %zu problems\n", count, maps, l.problems);
    return count ? 0
                 : gemma4_fail(error, "golden/cases: expected at least one manifest, found none");
}
