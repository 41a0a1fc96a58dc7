/* gemma4-check ladder. */
#include "ladder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "isolate.h"
#include "options.h"
#include "output.h"
#include "outputs.h"

enum { CONFORMS = 0, DIVERGES = 1, UNUSABLE = 2 };

typedef struct request {
    const char *path, *out, *dtype, *json, *junit, *require;
} request;

static int say(const char *message)
{
    fprintf(stderr, "gemma4-check: %s\n", message);
    return UNUSABLE;
}

static int write_report(const char *path, void (*write)(FILE *, const gemma4_climb *),
                        const gemma4_climb *climb, gemma4_error *error)
{
    gemma4_output output;
    if (!path)
        return 0;
    if (gemma4_output_open(&output, path, error))
        return -1;
    write(output.f, climb);
    return gemma4_output_commit(&output, error);
}

/* The reports, and the exit status; the worst that one rung says, on stderr too where a dump cannot
 * be judged. */
static int tell(const request *r, const gemma4_climb *climb, gemma4_error *error)
{
    int status = gemma4_climb_status(climb);
    size_t missing = gemma4_climb_count(climb, GEMMA4_RUNG_NOT_COVERED);
    gemma4_climb_text(stdout, climb);
    if (fflush(stdout) || ferror(stdout))
        return gemma4_fail(error, "standard output: cannot write: %s", strerror(errno));
    if (write_report(r->json, gemma4_climb_json, climb, error) ||
        write_report(r->junit, gemma4_climb_junit, climb, error))
        return -1;
    for (size_t i = 0; i < climb->ladder->count; i++)
        if (climb->results[i].verdict == GEMMA4_RUNG_UNUSABLE)
            return gemma4_fail(error, "%s: %zu rungs cannot be judged, the first is %s: %.500s",
                               r->path, gemma4_climb_count(climb, GEMMA4_RUNG_UNUSABLE),
                               climb->ladder->rungs[i].name, climb->results[i].message);
    if (status == CONFORMS && r->require && missing) {
        printf("--require all: %zu rungs are not covered\n", missing);
        return DIVERGES;
    }
    return status;
}

/* No report may take the place of what is read for it. */
static int check_outputs(const request *r, const gemma4_ladder *ladder, gemma4_error *error)
{
    const char *const outputs[] = {r->json, r->junit};
    char path[4096];
    const char *const dump = path;
    for (size_t i = 0; i < ladder->count; i++) {
        gemma4_rung_dump(r->path, &ladder->rungs[i], path, sizeof path);
        if (gemma4_check_outputs(outputs, 2, ladder->rungs[i].the_case->path, NULL, &dump,
                                 path[0] ? 1 : 0, error))
            return -1;
    }
    return 0;
}

static int judge(void *context)
{
    const request *r = context;
    gemma4_error error = {""};
    gemma4_ladder ladder;
    gemma4_climb climb = {0};
    if (gemma4_ladder_open(&ladder, &error))
        return say(error.message);
    int status = check_outputs(r, &ladder, &error) ||
                         gemma4_climb_ladder(&ladder, r->path, r->dtype, &climb, &error)
                     ? -1
                     : tell(r, &climb, &error);
    gemma4_climb_free(&climb);
    gemma4_ladder_close(&ladder);
    return status < 0 ? say(error.message) : status;
}

static int write_ladder(const request *r, gemma4_error *error)
{
    gemma4_ladder ladder;
    if (gemma4_ladder_open(&ladder, error))
        return -1;
    int status = gemma4_ladder_write(&ladder, r->out, error);
    if (!status)
        printf("%s: %zu rungs; ladder.json says what to feed\n", r->out, ladder.count);
    gemma4_ladder_close(&ladder);
    return status ? -1 : CONFORMS;
}

int gemma4_ladder_command(int argc, char **argv, gemma4_error *error)
{
    request r = {0};
    size_t count;
    const gemma4_option options[] = {{"--out", &r.out},         {"--dtype", &r.dtype},
                                     {"--json", &r.json},       {"--junit", &r.junit},
                                     {"--require", &r.require}, {NULL, NULL}};
    if (gemma4_options_parse(argc, argv, options, &r.path, 1, &count, error))
        return -1;
    if ((r.out != NULL) == (r.path != NULL) ||
        (r.out && (r.dtype || r.json || r.junit || r.require)))
        return gemma4_fail(error, "ladder: expected --out DIR alone, or RESULTS with --dtype, "
                                  "--json, --junit or --require");
    if (r.require && strcmp(r.require, "all"))
        return gemma4_fail(error, "--require: expected all, found '%s'", r.require);
    if (r.out)
        return write_ladder(&r, error);
    const char *const outputs[] = {r.json, r.junit};
    if (gemma4_check_outputs(outputs, 2, NULL, NULL, &r.path, 1, error))
        return -1;
    return gemma4_isolate(judge, &r, r.path, error);
}
