/* The dumps of a climb: found, opened, judged one at a time. */
#include "ladder_internal.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "counter_model.h"
#include "hash.h"
#include "isolate.h"
#include "judge.h"
#include "thresholds.h"

static const char *const endings[] = {".h5", ".hdf5", ".safetensors"};
enum { ENDINGS = sizeof endings / sizeof *endings, SECONDS_TO_OPEN = 30 };

static bool exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

/* ------------------------------------------------------------------- a folder */

/* Is the name that of a dump, and of which rung? */
static bool is_dump(const gemma4_ladder *ladder, const char *name, bool *of_rung)
{
    size_t n = strlen(name);
    for (size_t e = 0; e < ENDINGS; e++) {
        size_t m = strlen(endings[e]);
        if (n <= m || strcmp(name + n - m, endings[e]))
            continue;
        *of_rung = false;
        for (size_t i = 0; i < ladder->count; i++)
            *of_rung = *of_rung || (strlen(ladder->rungs[i].name) == n - m &&
                                    !strncmp(ladder->rungs[i].name, name, n - m));
        return true;
    }
    return false;
}

/* Dumps under names that are no rung's: their user believes them judged. */
static int find_strangers(gemma4_climb *climb, const char *path, gemma4_error *error)
{
    DIR *d = opendir(path);
    if (!d)
        return gemma4_fail(error, "%s: cannot list: %s", path, strerror(errno));
    for (struct dirent *entry; (entry = readdir(d));) {
        bool of_rung;
        size_t used = strlen(climb->strangers);
        if (is_dump(climb->ladder, entry->d_name, &of_rung) && !of_rung)
            snprintf(climb->strangers + used, sizeof climb->strangers - used, "%s%s",
                     used ? ", " : "", entry->d_name);
    }
    closedir(d);
    return 0;
}

void gemma4_rung_dump(const char *folder, const gemma4_rung *rung, char *path, size_t size)
{
    for (size_t e = 0; e < ENDINGS; e++)
        if (snprintf(path, size, "%s/%s%s", folder, rung->name, endings[e]) < (int)size &&
            exists(path))
            return;
    path[0] = '\0';
}

/* -------------------------------------------------------------------- opening */

static int open_golden(const gemma4_case *c, struct gemma4_opened_rung *o, gemma4_error *error)
{
    char found[GEMMA4_SHA256_SIZE];
    if (gemma4_sha256_file(c->golden_path, found, error))
        return -1;
    if (strcmp(found, c->golden_sha256))
        return gemma4_fail(error, "%s: expected SHA-256 %s as in %s, found %s", c->golden_path,
                           c->golden_sha256, c->path, found);
    o->golden = gemma4_activations_open(c->golden_path, &o->model->config, error);
    return o->golden ? 0 : -1;
}

/* A dump that says of which rung or checkpoint it is must be of this one. */
static int check_provenance(const gemma4_case *c, gemma4_activations *engine, const char *path,
                            gemma4_error *error)
{
    const char *id = gemma4_activations_attribute(engine, "case"),
               *checkpoint = gemma4_activations_attribute(engine, "checkpoint_sha256");
    if (id && strcmp(id, c->id))
        return gemma4_fail(error, "%s: attribute case: expected '%s', found '%s'", path, c->id, id);
    if (checkpoint && strcmp(checkpoint, c->checkpoint_sha256))
        return gemma4_fail(error, "%s: attribute checkpoint_sha256: expected %s, found '%s'", path,
                           c->checkpoint_sha256, checkpoint);
    return 0;
}

static int open_dump(const gemma4_climb *climb, size_t rung, const char *path, bool grouped,
                     bool *missing, gemma4_error *error)
{
    struct gemma4_opened_rung *o = &climb->opened[rung];
    const gemma4_case *c = climb->ladder->rungs[rung].the_case;
    gemma4_limit_processor_time(SECONDS_TO_OPEN);
    o->engine = grouped
                    ? gemma4_activations_open_group(path, c->id, &o->model->config, missing, error)
                    : gemma4_activations_open(path, &o->model->config, error);
    gemma4_limit_processor_time(0);
    if (!o->engine || check_provenance(c, o->engine, path, error))
        return -1;
    o->dtype = climb->dtype_option ? climb->dtype_option
                                   : gemma4_activations_attribute(o->engine, "dtype");
    return o->dtype ? 0
                    : gemma4_fail(error,
                                  "%s: attribute dtype: expected the engine's arithmetic (or give "
                                  "--dtype), found none",
                                  path);
}

/* What is the same for all rungs is taken from the first. */
static void note_engine(gemma4_climb *climb, const struct gemma4_opened_rung *o)
{
    const char *engine = gemma4_activations_attribute(o->engine, "engine"),
               *version = gemma4_activations_attribute(o->engine, "engine_version");
    if (climb->dtype[0])
        return;
    snprintf(climb->engine, sizeof climb->engine, "%s", engine ? engine : "");
    snprintf(climb->version, sizeof climb->version, "%s", version ? version : "");
    snprintf(climb->dtype, sizeof climb->dtype, "%s", o->dtype);
}

static int open_rung(gemma4_climb *climb, size_t rung, const char *path, bool grouped,
                     gemma4_error *error)
{
    const gemma4_case *c = climb->ladder->rungs[rung].the_case;
    struct gemma4_opened_rung *o = &climb->opened[rung];
    gemma4_rung_result *result = &climb->results[rung];
    char found[4096];
    gemma4_error of_dump = {""};
    bool missing = false;
    if (grouped)
        snprintf(found, sizeof found, "%s", path);
    else
        gemma4_rung_dump(path, &climb->ladder->rungs[rung], found, sizeof found);
    if (!found[0])
        return 0;
    if (gemma4_case_provide_checkpoint(c, error) ||
        !(o->model = gemma4_model_open(c->checkpoint_dir, error)) || open_golden(c, o, error))
        return -1;
    if (open_dump(climb, rung, found, grouped, &missing, &of_dump)) {
        if (missing)
            return 0;
        result->verdict = GEMMA4_RUNG_UNUSABLE;
        snprintf(result->message, sizeof result->message, "%.499s", of_dump.message);
        return 0;
    }
    note_engine(climb, o);
    result->verdict = GEMMA4_RUNG_NOT_JUDGED;
    return 0;
}

int ladder_open_dumps(gemma4_climb *climb, const char *path, gemma4_error *error)
{
    struct stat st;
    if (stat(path, &st))
        return gemma4_fail(error, "%s: cannot open: %s", path, strerror(errno));
    bool grouped = !S_ISDIR(st.st_mode);
    if (!grouped && find_strangers(climb, path, error))
        return -1;
    size_t found = 0;
    for (size_t i = 0; i < climb->ladder->count; i++) {
        if (open_rung(climb, i, path, grouped, error))
            return -1;
        found += climb->results[i].verdict != GEMMA4_RUNG_NOT_COVERED;
    }
    if (found)
        return 0;
    return gemma4_fail(error, "%s: expected %s of at least one rung (%s ...), found none%s%s", path,
                       grouped ? "the group" : "a file",
                       grouped ? climb->ladder->rungs[0].name : "linear-head.h5",
                       climb->strangers[0] ? " but " : "", climb->strangers);
}

void ladder_close_dumps(gemma4_climb *climb)
{
    for (size_t i = 0; climb->opened && i < climb->ladder->count; i++) {
        gemma4_activations_close(climb->opened[i].engine);
        gemma4_activations_close(climb->opened[i].golden);
        gemma4_model_close(climb->opened[i].model);
    }
    free(climb->opened);
    climb->opened = NULL;
}

/* -------------------------------------------------------------------- judging */

int ladder_judge(const gemma4_climb *climb, size_t rung, const ladder_try *how,
                 gemma4_report *report, gemma4_error *error)
{
    struct gemma4_opened_rung *o = &climb->opened[rung];
    bool known = how->known->count > 0;
    const gemma4_judgement j = {.the_case = climb->ladder->rungs[rung].the_case,
                                .model = o->model,
                                .engine = o->engine,
                                .golden = known ? NULL : o->golden,
                                .dtype = o->dtype,
                                .known = known ? how->known : NULL,
                                .search_layers = how->points,
                                .listed_by_difference = true,
                                .without_causes = !how->causes};
    o->judged++;
    return gemma4_judge(&j, report, error);
}

/* The error beside the tolerance; below 0 where the rung conforms. */
static double plain_left(const gemma4_report *report)
{
    const gemma4_tap_result *worst = ladder_worst(report);
    return report->conforms ? -1 : worst ? worst->local.error / worst->local.tolerance : INFINITY;
}

/* What is planted but for roundings; the coarsest unit of those. */
static double without_roundings(const gemma4_planted *planted, gemma4_planted *others)
{
    double coarsest = 0;
    *others = (gemma4_planted){.scope = planted->scope};
    for (size_t i = 0; i < planted->count; i++) {
        double unit = gemma4_counter_model_rounds(planted->models[i]);
        coarsest = fmax(coarsest, unit);
        if (unit > 0)
            continue;
        others->models[others->count] = planted->models[i];
        others->only_layer[others->count++] = planted->only_layer[i];
    }
    return coarsest;
}

/* An engine that rounds coarsely on its way, as it is known to, rounds some values the other way
 * than the reference does: their inputs differ in the last place. Is what is left of that size, and
 * much less than without the roundings? */
static int is_of_roundings(const gemma4_climb *climb, size_t rung, const gemma4_planted *planted,
                           double left, bool *yes, gemma4_error *error)
{
    gemma4_planted others;
    double unit = gemma4_tier_of(climb->opened[rung].dtype)->unit, without = 0,
           coarsest = without_roundings(planted, &others);
    *yes = coarsest > unit && left <= LADDER_FLIPS * coarsest / unit;
    if (!*yes)
        return 0;
    gemma4_report report = {0};
    const ladder_try how = {.known = &others};
    int status = ladder_judge(climb, rung, &how, &report, error);
    without = status ? 0 : plain_left(&report);
    gemma4_report_free(&report);
    *yes = left <= LADDER_FLIPS_IMPROVE * without;
    return status;
}

int ladder_left_of(const gemma4_climb *climb, size_t rung, const gemma4_planted *planted,
                   const gemma4_report *report, double *left, gemma4_error *error)
{
    bool of_roundings = false;
    *left = plain_left(report);
    if (*left > 0 && is_of_roundings(climb, rung, planted, *left, &of_roundings, error))
        return -1;
    *left = of_roundings ? -1 : *left;
    return 0;
}

int ladder_left(const gemma4_climb *climb, size_t rung, const gemma4_planted *planted, double *left,
                gemma4_error *error)
{
    gemma4_report report = {0};
    const ladder_try how = {.known = planted};
    int status = ladder_judge(climb, rung, &how, &report, error) ||
                         ladder_left_of(climb, rung, planted, &report, left, error)
                     ? -1
                     : 0;
    gemma4_report_free(&report);
    return status;
}

int ladder_passes(const gemma4_climb *climb, size_t rung, const gemma4_planted *known, bool *passes,
                  gemma4_error *error)
{
    double left = NAN;
    int status = ladder_left(climb, rung, known, &left, error);
    *passes = !status && left < 0;
    return status;
}

void ladder_plant(gemma4_planted *planted, const gemma4_climb *climb, size_t rung,
                  const gemma4_ladder_candidate *candidate)
{
    bool has_layer =
        candidate->only_layer < (int)climb->opened[rung].model->config.num_hidden_layers;
    if (planted->count == GEMMA4_MOST_PLANTED || !has_layer)
        return;
    planted->models[planted->count] = candidate->model;
    planted->only_layer[planted->count++] = candidate->only_layer;
}

bool ladder_is_decoded(const gemma4_climb *climb, size_t rung)
{
    const gemma4_case *c = climb->ladder->rungs[rung].the_case;
    return c->token_count == 1 || (c->schedule_count && c->schedule_count == c->token_count);
}

gemma4_planted ladder_known(const gemma4_climb *climb, size_t rung, size_t other, size_t candidate)
{
    gemma4_planted known = {.scope = GEMMA4_EVERYWHERE};
    for (size_t i = 0; i < climb->cause_count; i++) {
        const gemma4_ladder_cause *cause = &climb->causes[i];
        size_t k = i == other ? candidate : 0;
        bool holds = cause->scope == GEMMA4_EVERYWHERE ||
                     (cause->scope == GEMMA4_DECODE_ONLY && ladder_is_decoded(climb, rung));
        if (holds && k < cause->count)
            ladder_plant(&known, climb, rung, &cause->candidates[k]);
    }
    return known;
}
