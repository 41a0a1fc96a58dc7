/* gemma4-check compare. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compare_dumps.h"
#include "isolate.h"
#include "manifest.h"
#include "maps.h"
#include "model.h"
#include "options.h"
#include "output.h"
#include "outputs.h"

enum { SAME = 0, DIFFERENT = 1, UNUSABLE = 2 };
enum { SECONDS_TO_OPEN = 30 }; /* of processor time, for looking through both dumps */

typedef struct request {
    const char *paths[2], *case_name, *model_dir, *map_name, *tolerance_text, *json;
    double tolerance;
} request;

/* What is opened besides the dumps. */
typedef struct opened {
    gemma4_case *the_case;
    gemma4_model *model;
    gemma4_map *map;
} opened;

static int write_json(const request *r, const gemma4_dumps_compared *c, const char *message,
                      gemma4_error *error)
{
    gemma4_output output;
    if (!r->json)
        return 0;
    if (gemma4_output_open(&output, r->json, error))
        return -1;
    if (c)
        gemma4_compare_json(output.f, c);
    else
        gemma4_compare_json_unusable(output.f, message);
    return gemma4_output_commit(&output, error);
}

static int say_unusable(const request *r, const char *message)
{
    gemma4_error ignored;
    fprintf(stderr, "gemma4-check: %s\n", message);
    write_json(r, NULL, message, &ignored);
    return UNUSABLE;
}

/* The case or model that says what shapes are due; none, where none was asked for. */
static int open_model(const request *r, opened *o, gemma4_error *error)
{
    if (r->case_name && (!(o->the_case = gemma4_case_open(r->case_name, error)) ||
                         gemma4_case_provide_checkpoint(o->the_case, error)))
        return -1;
    if (!o->the_case && !r->model_dir)
        return 0;
    o->model = gemma4_model_open(o->the_case ? o->the_case->checkpoint_dir : r->model_dir, error);
    if (!o->model || (r->map_name && !(o->map = gemma4_map_open(r->map_name, error))))
        return -1;
    return 0;
}

static gemma4_activations *open_dump(const opened *o, const char *const *path, gemma4_error *error)
{
    const gemma4_config *config = o->model ? &o->model->config : NULL;
    const gemma4_import_log *log;
    gemma4_given_tokens given = {0};
    if (o->the_case)
        given = (gemma4_given_tokens){o->the_case->tokens, o->the_case->token_count,
                                      o->the_case->first_position};
    return o->map ? gemma4_import(path, 1, o->map, config, o->the_case ? &given : NULL, &log, error)
                  : gemma4_activations_open(*path, config, error);
}

static int open_all(const request *r, opened *o, gemma4_dumps_compared *c, gemma4_error *error)
{
    if (open_model(r, o, error))
        return -1;
    c->config = o->model ? &o->model->config : NULL;
    gemma4_limit_processor_time(SECONDS_TO_OPEN);
    if ((c->a = open_dump(o, &r->paths[0], error)))
        c->b = open_dump(o, &r->paths[1], error);
    gemma4_limit_processor_time(0);
    return c->b ? 0 : -1;
}

/* The terminal comes last: no verdict is printed of which the report cannot be written. */
static int tell(const request *r, const gemma4_dumps_compared *c, gemma4_error *error)
{
    if (write_json(r, c, NULL, error))
        return -1;
    gemma4_compare_text(stdout, c);
    if (fflush(stdout) || ferror(stdout))
        return gemma4_fail(error, "standard output: cannot write: %s", strerror(errno));
    return c->first ? DIFFERENT : SAME;
}

static int compare(void *context)
{
    const request *r = context;
    gemma4_error error = {""};
    opened o = {0};
    gemma4_dumps_compared c = {.path_a = r->paths[0],
                               .path_b = r->paths[1],
                               .tolerance = r->tolerance,
                               .slice_bytes = GEMMA4_COMPARE_SLICE};
    int status =
        open_all(r, &o, &c, &error) || gemma4_compare_dumps(&c, &error) ? -1 : tell(r, &c, &error);
    if (status < 0)
        status = say_unusable(r, error.message);
    free(c.taps);
    gemma4_activations_close(c.a);
    gemma4_activations_close(c.b);
    gemma4_map_free(o.map);
    gemma4_model_close(o.model);
    gemma4_case_close(o.the_case);
    return status;
}

static int parse_tolerance(request *r, gemma4_error *error)
{
    char *end;
    if (!r->tolerance_text)
        return 0;
    r->tolerance = strtod(r->tolerance_text, &end);
    if (end == r->tolerance_text || *end || !isfinite(r->tolerance) || r->tolerance < 0)
        return gemma4_fail(error, "--tolerance: expected a number from 0 on, found '%s'",
                           r->tolerance_text);
    return 0;
}

static int parse(int argc, char **argv, request *r, gemma4_error *error)
{
    size_t count;
    const gemma4_option options[] = {{"--case", &r->case_name}, {"--model", &r->model_dir},
                                     {"--map", &r->map_name},   {"--tolerance", &r->tolerance_text},
                                     {"--json", &r->json},      {NULL, NULL}};
    if (gemma4_options_parse(argc, argv, options, r->paths, 2, &count, error) ||
        parse_tolerance(r, error))
        return -1;
    if (count < 2)
        return gemma4_fail(error, "compare: expected two dumps, found %s", count ? "one" : "none");
    if (r->case_name && r->model_dir)
        return gemma4_fail(error, "compare: expected --case or --model, found both");
    if (r->map_name && !r->case_name && !r->model_dir)
        return gemma4_fail(error, "compare: expected --case or --model with --map, found neither");
    return gemma4_check_outputs((const char *const[]){r->json}, 1, r->case_name, r->model_dir,
                                r->paths, 2, error) ||
                   gemma4_check_outputs((const char *const[]){r->json}, 1, NULL, NULL, &r->map_name,
                                        1, error)
               ? -1
               : 0;
}

/* The files are read by a child process only, as in a check. */
int gemma4_compare_command(int argc, char **argv, gemma4_error *error)
{
    request r = {.tolerance = 0};
    gemma4_error died;
    char subject[512];
    if (parse(argc, argv, &r, error))
        return -1;
    snprintf(subject, sizeof subject, "%.250s, %.250s", r.paths[0], r.paths[1]);
    int status = gemma4_isolate(compare, &r, subject, &died);
    return status < 0 ? say_unusable(&r, died.message) : status;
}
