/* gemma4-check: does an engine's dump conform, and if not, where does it diverge first? */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agreement.h"
#include "compare_dumps.h"
#include "explain.h"
#include "guard.h"
#include "hash.h"
#include "isolate.h"
#include "judge.h"
#include "ladder.h"
#include "lint.h"
#include "maps.h"
#include "names.h"
#include "noise.h"
#include "ops.h"
#include "options.h"
#include "output.h"
#include "outputs.h"
#include "progress.h"
#include "report_html.h"
#include "sample.h"
#include "sandbox.h"
#include "selftest.h"
#include "several.h"
#include "text_stream.h"
#include "times.h"
#include "unknown_names.h"
#include "version.h"

static const char usage[] =
    "usage: gemma4-check CASE ENGINE.h5          CASE: a manifest's path, or its id under "
    "golden/cases\n"
    "       gemma4-check --model DIR ENGINE.h5   no golden: the reference computes what is "
    "expected\n"
    "           [--dtype D] [--json FILE] [--junit FILE] [--html FILE] [--require "
    "full|layers|logits]\n"
    "           [--search steps|layers] [--map MAP] [--cpu SET] [--verbose]\n"
    "       gemma4-check names FILE...           what a dump under other names holds, and a map "
    "for it\n"
    "           [--case CASE] [--model DIR]\n"
    "       gemma4-check compare A B             two dumps of the same tokens: where they differ\n"
    "           [--tolerance X] [--case CASE] [--model DIR] [--map MAP] [--json FILE]\n"
    "       gemma4-check --manifest DUMPS        several dumps: a list (spec/report.md), or a "
    "folder of them\n"
    "           [--dtype D] [--json FILE] [--junit FILE] [--require full|layers|logits] [--search "
    "steps|layers]\n"
    "       gemma4-check ladder --out DIR        the ladder's checkpoints, for engines that show "
    "nothing but logits\n"
    "       gemma4-check ladder RESULTS          a folder with a dump a rung, or an HDF5 file with "
    "a group a rung\n"
    "           [--dtype D] [--json FILE] [--junit FILE] [--require all]\n"
    "       gemma4-check list [CASE]             the cases; one case's tokens, schedule and "
    "positions\n"
    "       gemma4-check explain [CAUSE|--all]   the known mistakes, one of them, or all as "
    "Markdown\n"
    "       gemma4-check explain --space         the parameters by which other mistakes are "
    "identified, as Markdown\n"
    "       gemma4-check lint [--long]           are the cases what they say? --long: do those of "
    "many positions show what they say, too?\n"
    "       gemma4-check agreement               does this build's reference agree with every "
    "golden?\n"
    "       gemma4-check self-test [--honest]    does it find every known mistake, and none in "
    "honest engines?\n"
    "           [--case ID] [--tier T] [--tap-set all|layers|logits] [--cause ID] [--seeds N] "
    "[--jobs N] [--out FILE.md]\n"
    "       gemma4-check self-test --sample      the same of a fixed sample, in seconds [--jobs N] "
    "[--stop]\n"
    "       gemma4-check self-test --times --model DIR   how long does it take to judge each known "
    "mistake?\n"
    "           [--tier T] [--tap-set all|layers|logits] [--cause ID] [--jobs N]\n"
    "       gemma4-check --version\n"
    "\n"
    "ENGINE.h5 is an activation file (spec/activations.md), HDF5 or safetensors.\n"
    "--map      a map's path, or the name of one under golden/maps (spec/maps.md): ENGINE may then "
    "be any HDF5 or safetensors file, .npz,\n"
    "           a folder with a tensor a file, what llama-debug --save-logits wrote, or several of "
    "them, a pass each\n"
    "--dtype    the engine's arithmetic, where the dump does not say it\n"
    "--html     a page to read: heat maps, causes, error growth\n"
    "--require  fail where the dump covers less\n"
    "--search   where a dump holds layer outputs or logits only: layers, also look for mistakes "
    "that have no name (seconds for\n"
    "           a case, its default unless it has many positions; longer for a larger model); "
    "steps, do not\n"
    "--tolerance  relative RMS and position RMS (spec/cases.md) that are no difference; 0: any "
    "other value is one\n"
    "--cpu      scalar, avx2, avx512, neon or auto: which instructions compute (GEMMA4_CPU "
    "likewise); "
    "no result depends on it\n"
    "--verbose  a first verdict of each layer on stderr, as it is judged\n"
    "Exit status: 0 conforms, 1 does not, 2 cannot be judged: one line on stderr says why. "
    "compare: "
    "0 the same, 1 different, 2 cannot be compared.\n";

#define COUNT(table) (sizeof(table) / sizeof *(table))

enum {
    CONFORMS = 0,
    DIVERGES = 1,
    UNUSABLE = 2,
    INCOMPLETE = 3, /* is an exit status of 2 */
    UNWRITTEN = 4   /* so is this: one of several dumps, of which nothing could be noted */
};
enum {
    SECONDS_TO_OPEN = 30
}; /* of processor time, for looking through the dump; its values are
                                  read later */

typedef struct request {
    const char *case_name, *model_dir, *engine_path, *dtype, *json, *junit, *html, *require,
        *search, *map_name, *manifest;
    const char *const *engine_paths; /* [engine_count] passes; the first is engine_path */
    size_t engine_count;
    bool verbose;
    const gemma4_part *part; /* of several dumps, which gets the reports; NULL: there is one only */
    char case_of_dump[128];  /* where the list does not say it */
} request;

/* What a check opens. */
typedef struct opened {
    gemma4_case *c;
    gemma4_model *model;
    gemma4_map *map;
    const gemma4_import_log *log; /* NULL without a map */
} opened;

/* A report appears whole or not at all. */
static int write_file(const char *path, void (*write)(FILE *, const void *), const void *what,
                      gemma4_error *error)
{
    gemma4_output output;
    if (!path)
        return 0;
    if (gemma4_output_open(&output, path, error))
        return -1;
    write(output.f, what);
    return gemma4_output_commit(&output, error);
}

/* A report that did not reach its reader must not end in "conforms". */
static int check_output(gemma4_error *error)
{
    return fflush(stdout) || ferror(stdout)
               ? gemma4_fail(error, "standard output: cannot write: %s", strerror(errno))
               : 0;
}

/* A command's last act: its status, with the line that says why it is UNUSABLE. */
static int conclude(int status, gemma4_error *error)
{
    if (status != UNUSABLE && check_output(error))
        status = UNUSABLE;
    if (status == UNUSABLE)
        fprintf(stderr, "gemma4-check: %s\n", error->message);
    return status;
}

static void write_json(FILE *f, const void *report)
{
    gemma4_report_json(f, report);
}

static void write_junit(FILE *f, const void *report)
{
    gemma4_report_junit(f, report);
}

static void write_html(FILE *f, const void *report)
{
    gemma4_report_html(f, report);
}

static void write_json_unusable(FILE *f, const void *message)
{
    gemma4_report_json_unusable(f, message);
}

static void write_junit_unusable(FILE *f, const void *message)
{
    gemma4_report_junit_unusable(f, message);
}

static void write_html_unusable(FILE *f, const void *message)
{
    gemma4_report_html_unusable(f, message);
}

/* A dump that says which case or checkpoint it is of must be of this one. */
static int check_provenance(gemma4_activations *engine, const gemma4_case *c, gemma4_error *error)
{
    const char *id = gemma4_activations_attribute(engine, "case");
    const char *checkpoint = gemma4_activations_attribute(engine, "checkpoint_sha256");
    if (c && id && strcmp(id, c->id))
        return gemma4_fail(error, "attribute case: expected '%s', found '%s'", c->id, id);
    if (c && checkpoint && strcmp(checkpoint, c->checkpoint_sha256))
        return gemma4_fail(error,
                           "attribute checkpoint_sha256: expected %s as in case %s, found '%s'",
                           c->checkpoint_sha256, c->id, checkpoint);
    return 0;
}

static int required_level(const char *require, gemma4_level *level, gemma4_error *error)
{
    *level = GEMMA4_PARTIAL;
    if (!require)
        return 0;
    for (*level = GEMMA4_LOGITS_LEVEL; *level <= GEMMA4_FULL_LEVEL; ++*level)
        if (!strcmp(require, gemma4_level_name(*level)))
            return 0;
    return gemma4_fail(error, "--require: expected full, layers or logits, found '%s'", require);
}

/* What --search says; where it is not given, layers for a case, which is small, and steps for one
 * of many positions and for any other model. */
static int searched(const char *search, const gemma4_case *c, bool *layers, gemma4_error *error)
{
    bool is_small = c && !gemma4_case_has_flag(c, GEMMA4_MANY_POSITIONS);
    *layers = search ? !strcmp(search, "layers") : is_small;
    return !search || *layers || !strcmp(search, "steps")
               ? 0
               : gemma4_fail(error, "--search: expected steps or layers, found '%s'", search);
}

/* A case may ask for more than the model: a failure there may be no fault of the arithmetic. */
static void note_flags(const gemma4_case *c, gemma4_report *report)
{
    for (size_t i = 0; c && !report->conforms && i < c->flag_count; i++)
        gemma4_report_warn(report, "this case has the flag %s: %s", c->flags[i].flag,
                           c->flags[i].reason);
}

/* The type of the engine's KV cache, where the dump says it. */
static int check_kv_dtype(const char *path, const gemma4_activations *engine, gemma4_error *error)
{
    char where[512];
    const char *said = gemma4_activations_attribute(engine, "kv_dtype");
    snprintf(where, sizeof where, "%s: attribute kv_dtype", path);
    return !said || gemma4_tier_expect(where, said, error) ? 0 : -1;
}

/* Of a check that was interrupted, these two say no more than that. */
static int write_incomplete(const request *r, const gemma4_report *report, gemma4_error *error)
{
    const gemma4_sentence conclusion = gemma4_conclusion(report);
    return write_file(r->junit, write_junit_unusable, conclusion.text, error) ||
                   write_file(r->html, write_html_unusable, conclusion.text, error)
               ? -1
               : 0;
}

/* Everything from opened files to a verdict. Returns the exit status, UNUSABLE with the error's
 * message filled, INCOMPLETE where all has been said. */
static int judge_files(const request *r, const opened *o, gemma4_judgement *j,
                       gemma4_report *report, gemma4_error *error)
{
    gemma4_level require;
    if (required_level(r->require, &require, error) ||
        searched(r->search, j->the_case, &j->search_layers, error))
        return UNUSABLE;
    j->dtype = r->dtype ? r->dtype : gemma4_activations_attribute(j->engine, "dtype");
    if (!j->dtype) {
        gemma4_fail(
            error,
            "%s: attribute dtype: expected the engine's arithmetic (or give --dtype), found none",
            r->engine_path);
        return UNUSABLE;
    }
    if (check_kv_dtype(r->engine_path, j->engine, error) ||
        check_provenance(j->engine, j->the_case, error))
        return UNUSABLE;
    const gemma4_progress progress =
        gemma4_progress_start(r->verbose, j->model->config.num_hidden_layers);
    j->progress = &progress;
    if (!r->part)
        gemma4_guard_catch_interrupt();
    if (gemma4_judge(j, report, error))
        return UNUSABLE;
    gemma4_note_map(o->log, report);
    gemma4_note_unknown(j->engine, report);
    note_flags(j->the_case, report);
    report->required = require;
    report->conforms = report->conforms && !gemma4_falls_short(report);
    if (r->part) {
        if (gemma4_part_judged(r->part, report, error))
            return UNUSABLE;
        return report->conforms ? CONFORMS : DIVERGES;
    }
    if (write_file(r->json, write_json, report, error) ||
        (report->incomplete ? write_incomplete(r, report, error)
                            : write_file(r->junit, write_junit, report, error) ||
                                  write_file(r->html, write_html, report, error)))
        return UNUSABLE; /* and no verdict on the terminal, which comes last */
    gemma4_report_text(stdout, report);
    if (check_output(error))
        return UNUSABLE;
    return report->incomplete ? INCOMPLETE : report->conforms ? CONFORMS : DIVERGES;
}

static int open_golden(const gemma4_case *c, const gemma4_model *model, gemma4_judgement *j,
                       gemma4_error *error)
{
    char found[GEMMA4_SHA256_SIZE];
    if (gemma4_sha256_file(c->golden_path, found, error))
        return -1;
    if (strcmp(found, c->golden_sha256))
        return gemma4_fail(error, "%s: expected SHA-256 %s as in %s, found %s", c->golden_path,
                           c->golden_sha256, c->path, found);
    j->golden = gemma4_activations_open(c->golden_path, &model->config, error);
    return j->golden ? 0 : -1;
}

/* The dump, through a map where one is given. */
static int open_engine(const request *r, opened *o, gemma4_judgement *j, gemma4_error *error)
{
    const gemma4_config *config = &o->model->config;
    gemma4_given_tokens given = {0};
    if (o->c)
        given = (gemma4_given_tokens){o->c->tokens, o->c->token_count, o->c->first_position};
    if (r->map_name && !(o->map = gemma4_map_open(r->map_name, error)))
        return -1;
    gemma4_limit_processor_time(SECONDS_TO_OPEN);
    j->engine = o->map ? gemma4_import(r->engine_paths, r->engine_count, o->map, config,
                                       o->c ? &given : NULL, &o->log, error)
                       : gemma4_activations_open(r->engine_path, config, error);
    gemma4_limit_processor_time(0);
    return j->engine ? 0 : -1;
}

static int open_files(const request *r, opened *o, gemma4_judgement *j, gemma4_error *error)
{
    if (r->case_name) {
        o->c = gemma4_case_open(r->case_name, error);
        if (!o->c || gemma4_case_provide_checkpoint(o->c, error))
            return -1;
    }
    o->model = gemma4_model_open(o->c ? o->c->checkpoint_dir : r->model_dir, error);
    if (!o->model)
        return -1;
    j->the_case = o->c;
    j->model = o->model;
    if (o->c && open_golden(o->c, o->model, j, error))
        return -1;
    return open_engine(r, o, j, error);
}

/* One line on stderr, and the reports that were asked for. */
static int say_unusable(const request *r, const gemma4_error *error)
{
    gemma4_error ignored;
    if (r->part)
        return gemma4_part_unusable(r->part, error->message, &ignored) ? UNWRITTEN : UNUSABLE;
    fprintf(stderr, "gemma4-check: %s\n", error->message);
    write_file(r->json, write_json_unusable, error->message, &ignored);
    write_file(r->junit, write_junit_unusable, error->message, &ignored);
    write_file(r->html, write_html_unusable, error->message, &ignored);
    return UNUSABLE;
}

static int check(void *context)
{
    const request *r = context;
    gemma4_error error = {""};
    opened o = {0};
    gemma4_judgement j = {0};
    gemma4_report report = {0};
    int status = open_files(r, &o, &j, &error) ? UNUSABLE : judge_files(r, &o, &j, &report, &error);
    if (status == UNUSABLE)
        status = say_unusable(r, &error);
    if (status == INCOMPLETE)
        status = UNUSABLE;
    gemma4_report_free(&report);
    gemma4_activations_close(j.engine);
    gemma4_activations_close(j.golden);
    gemma4_map_free(o.map);
    gemma4_model_close(o.model);
    gemma4_case_close(o.c);
    return status;
}

/* The whole check is done by a child process. */
static int command_check(request *r)
{
    gemma4_error error;
    const char *const outputs[] = {r->json, r->junit, r->html};
    if (gemma4_check_outputs(outputs, COUNT(outputs), r->case_name, r->model_dir, r->engine_paths,
                             r->engine_count, &error) ||
        gemma4_check_outputs(outputs, COUNT(outputs), NULL, NULL, &r->map_name, 1, &error)) {
        fprintf(stderr, "gemma4-check: %s\n", error.message); /* and no report: it would be written
                                                                 over what was meant to be kept */
        return UNUSABLE;
    }
    gemma4_guard_catch_interrupt(); /* the child says how far it has come */
    int status = gemma4_isolate(check, r, r->engine_path, &error);
    return status < 0 ? say_unusable(r, &error) : status;
}

/* One of several dumps: what the list leaves open is as the command line says, or as the dump
 * itself does. */
static int check_part(void *context)
{
    request *r = context;
    gemma4_error error = {""};
    const gemma4_listed_dump *dump = r->part->dump;
    r->engine_path = dump->path;
    r->engine_paths = &r->engine_path;
    r->engine_count = 1;
    r->case_name = dump->case_name;
    r->model_dir = dump->model_dir;
    r->dtype = dump->dtype ? dump->dtype : r->dtype;
    r->require = dump->require ? dump->require : r->require;
    if (!r->case_name && !r->model_dir) {
        gemma4_limit_processor_time(SECONDS_TO_OPEN);
        if (gemma4_activations_peek(r->engine_path, "case", r->case_of_dump, sizeof r->case_of_dump,
                                    &error))
            return say_unusable(r, &error);
        gemma4_limit_processor_time(0);
        r->case_name = r->case_of_dump;
    }
    return check(r);
}

static void write_several_json(FILE *f, const void *several)
{
    gemma4_several_json(f, several);
}

static void write_several_junit(FILE *f, const void *several)
{
    gemma4_several_junit(f, several);
}

/* Every dump in a process of its own. What cannot be judged is said in one line of stderr, and the
 * others are judged all the same. */
static int check_parts(const request *r, gemma4_part *parts, const gemma4_dump_list *list,
                       gemma4_error *error)
{
    for (size_t i = 0; i < list->count; i++) {
        request one = *r;
        gemma4_error died;
        const char *const outputs[] = {r->json, r->junit}, *const dump = list->dumps[i].path;
        if (gemma4_check_outputs(outputs, COUNT(outputs), NULL, NULL, &dump, 1, error))
            return -1;
        one.part = &parts[i];
        if (gemma4_part_open(&parts[i], &list->dumps[i], error))
            return -1;
        int status = gemma4_isolate(check_part, &one, list->dumps[i].path, &died);
        parts[i].status = status < 0 ? say_unusable(&one, &died) : status;
        if (parts[i].status == UNWRITTEN)
            return gemma4_fail(error, "%s: cannot write a temporary file about it", dump);
    }
    return 0;
}

static int command_several(const request *r, gemma4_error *error)
{
    gemma4_dump_list list;
    const char *const outputs[] = {r->json, r->junit};
    if (gemma4_check_outputs(outputs, COUNT(outputs), NULL, NULL, &r->manifest, 1, error))
        return UNUSABLE;
    if (gemma4_dump_list_open(r->manifest, &list, error))
        return UNUSABLE;
    gemma4_part *parts = calloc(list.count, sizeof *parts);
    int status = parts ? check_parts(r, parts, &list, error)
                       : gemma4_fail(error, "%s: out of memory", r->manifest);
    if (!status) {
        gemma4_several several = gemma4_several_of(parts, list.count);
        status = several.status;
        if (write_file(r->json, write_several_json, &several, error) ||
            write_file(r->junit, write_several_junit, &several, error))
            status = -1;
        else
            gemma4_several_text(stdout, &several);
        if (status >= 0 && check_output(error))
            status = -1;
        else if (status == UNUSABLE)
            gemma4_fail(error, "%s: %zu of %zu dumps cannot be judged, the first is %s",
                        r->manifest, gemma4_several_unusable(&several), list.count,
                        gemma4_several_first_unusable(&several));
    }
    for (size_t i = 0; parts && i < list.count; i++)
        gemma4_part_close(&parts[i]);
    free(parts);
    gemma4_dump_list_free(&list);
    return status < 0 ? UNUSABLE : status;
}

/* "ID  12 tokens  summary [start-position]"; the flag's bit in *flags is set. */
static int list_case(const char *id, unsigned *flags, gemma4_error *error)
{
    char path[4096];
    const gemma4_flag_info *info;
    if (snprintf(path, sizeof path, "%s/%s.yaml", gemma4_cases_dir(), id) >= (int)sizeof path)
        return gemma4_fail(error, "%s: path too long", id);
    gemma4_case *c = gemma4_case_open(path, error);
    if (!c)
        return -1;
    printf("%-24s %3zu tokens  %s", c->id, c->token_count, c->summary);
    for (size_t i = 0; i < c->flag_count; i++)
        printf("%s%s", i ? ", " : " [", c->flags[i].flag);
    puts(c->flag_count ? "]" : "");
    for (size_t i = 0; (info = gemma4_flag_at(i)); i++)
        *flags |= (unsigned)gemma4_case_has_flag(c, info->flag) << i;
    gemma4_case_close(c);
    return 0;
}

static int command_list(gemma4_error *error)
{
    char **ids;
    size_t count;
    int status = 0;
    unsigned flags = 0;
    const gemma4_flag_info *info;
    if (gemma4_case_ids(&ids, &count, error))
        return UNUSABLE;
    for (size_t i = 0; i < count && !status; i++)
        status = list_case(ids[i], &flags, error);
    gemma4_case_ids_free(ids, count);
    if (flags && !status)
        puts("\nWhat not every engine can:");
    for (size_t i = 0; (info = gemma4_flag_at(i)) && !status; i++)
        if (flags >> i & 1)
            printf("  %-16s %s\n", info->flag, info->meaning);
    return status ? UNUSABLE : CONFORMS;
}

static void print_integers(const char *what, const int32_t *values, size_t count)
{
    printf("%-10s ", what);
    for (size_t i = 0; i < count; i++)
        printf("%s%d", i ? "," : "", values[i]);
    putchar('\n');
}

/* What an engine is fed in a case, as the options of gemma4-ref take it. */
static int command_list_case(const char *name, gemma4_error *error)
{
    gemma4_case *c = gemma4_case_open(name, error);
    if (!c)
        return UNUSABLE;
    printf("%-10s %s\n%-10s %s\n", "summary", c->summary, "checkpoint", c->checkpoint_name);
    print_integers("tokens", c->tokens, c->token_count);
    print_integers("schedule", c->schedule, c->schedule_count);
    printf("%-10s %zu ... %zu\n", "positions", c->first_position,
           c->first_position + c->token_count - 1);
    gemma4_case_close(c);
    return CONFORMS;
}

static int command_lint(int argc, char **argv, gemma4_error *error)
{
    size_t problems;
    (void)argv;
    if (gemma4_lint(stdout, argc == 2, &problems, error))
        return UNUSABLE;
    return problems ? DIVERGES : CONFORMS;
}

static int command_agreement(int argc, char **argv, gemma4_error *error)
{
    size_t failures;
    (void)argc, (void)argv;
    if (gemma4_agreement(stdout, &failures, error))
        return UNUSABLE;
    return failures ? DIVERGES : CONFORMS;
}

/* The page of one cause, or one line on stderr that says which ids come near. */
static int explain_cause(const char *id, gemma4_error *error)
{
    gemma4_text page;
    gemma4_text_open(&page);
    int unknown = page.f ? gemma4_explain(page.f, id) : -1;
    if (gemma4_text_close(&page)) {
        free(page.bytes);
        gemma4_fail(error, "explain: out of memory");
        return UNUSABLE;
    }
    if (unknown)
        gemma4_fail(error, "explain: %.*s", (int)strcspn(page.bytes, "\n"), page.bytes);
    else
        fputs(page.bytes, stdout);
    free(page.bytes);
    return unknown ? UNUSABLE : CONFORMS;
}

/* Nothing: the list. An id: its page. --all: spec/causes.md. --space: the table of
 * spec/space.md. */
static int command_explain(const char *what, gemma4_error *error)
{
    bool all = what && !strcmp(what, "--all"), space = what && !strcmp(what, "--space");
    if (what && !all && !space)
        return explain_cause(what, error);
    if (space)
        gemma4_explain_space(stdout);
    else if (all)
        gemma4_explain_all_markdown(stdout);
    else
        gemma4_explain_list(stdout);
    return CONFORMS;
}

/* NULL: as it was. */
static int parse_jobs(const char *text, size_t *jobs, gemma4_error *error)
{
    int64_t count;
    if (text && gemma4_parse_int(text, "--jobs", 1, 64, &count, error))
        return -1;
    *jobs = text ? (size_t)count : *jobs;
    return 0;
}

static int parse_self_test(int argc, char **argv, gemma4_self_test_options *o, const char **page,
                           gemma4_error *error)
{
    const char *seeds = NULL, *jobs = NULL;
    int64_t seed_count = 0;
    size_t count;
    const gemma4_option options[] = {
        {"--case", &o->case_id}, {"--tier", &o->tier}, {"--tap-set", &o->tap_set},
        {"--cause", &o->cause},  {"--seeds", &seeds},  {"--jobs", &jobs},
        {"--out", page},         {NULL, NULL}};
    if (gemma4_options_parse(argc, argv, options, NULL, 0, &count, error) ||
        (seeds && gemma4_parse_int(seeds, "--seeds", 1, 1000, &seed_count, error)) ||
        parse_jobs(jobs, &o->jobs, error))
        return -1;
    o->seeds = (size_t)seed_count;
    return 0;
}

static void write_bytes(FILE *f, const void *text)
{
    fputs(text, f);
}

/* --stop: at the first engine that is judged wrong. */
static int self_test_sample(int argc, char **argv, bool *reached, gemma4_error *error)
{
    bool stop = argc > 0 && !strcmp(argv[argc - 1], "--stop");
    const char *jobs = NULL;
    size_t count, job_count = 2;
    const gemma4_option options[] = {{"--jobs", &jobs}, {NULL, NULL}};
    if (gemma4_options_parse(argc - stop, argv, options, NULL, 0, &count, error) ||
        parse_jobs(jobs, &job_count, error))
        return -1;
    return gemma4_sample_run(&gemma4_the_sample, job_count, stop, stdout, reached, error);
}

static int self_test_times(int argc, char **argv, bool *reached, gemma4_error *error)
{
    gemma4_times_options o = {.jobs = 2};
    const char *jobs = NULL;
    size_t count;
    const gemma4_option options[] = {{"--model", &o.model_dir}, {"--tier", &o.tier},
                                     {"--tap-set", &o.tap_set}, {"--cause", &o.cause},
                                     {"--jobs", &jobs},         {NULL, NULL}};
    if (gemma4_options_parse(argc, argv, options, NULL, 0, &count, error) ||
        parse_jobs(jobs, &o.jobs, error))
        return -1;
    *reached = true;
    return gemma4_times(&o, stdout, error);
}

static int self_test_honest(int argc, char **argv, bool *reached, gemma4_error *error)
{
    gemma4_self_test_options options = {.jobs = 2};
    const char *page = NULL;
    if (parse_self_test(argc, argv, &options, &page, error))
        return -1;
    if (page || options.cause)
        return gemma4_fail(error, "self-test --honest: takes neither --out nor --cause");
    return gemma4_self_test_honest(&options, stdout, reached, error);
}

static int self_test_matrix(int argc, char **argv, bool *reached, gemma4_error *error)
{
    gemma4_self_test_options options = {.jobs = 2};
    const char *page = NULL;
    gemma4_text text;
    if (parse_self_test(argc, argv, &options, &page, error))
        return -1;
    gemma4_text_open(&text);
    int status = text.f ? gemma4_self_test(&options, stdout, text.f, reached, error)
                        : gemma4_fail(error, "self-test: out of memory");
    if (gemma4_text_close(&text) && !status)
        status = gemma4_fail(error, "self-test: out of memory");
    if (!status)
        status = write_file(page, write_bytes, text.bytes, error);
    free(text.bytes);
    return status;
}

/* The matrix; or what the first option says: the honest engines, the sample, or the times. */
static int command_self_test(int argc, char **argv, gemma4_error *error)
{
    bool reached = false;
    int status;
    if (argc > 1 && !strcmp(argv[1], "--honest"))
        status = self_test_honest(argc - 2, argv + 2, &reached, error);
    else if (argc > 1 && !strcmp(argv[1], "--sample"))
        status = self_test_sample(argc - 2, argv + 2, &reached, error);
    else if (argc > 1 && !strcmp(argv[1], "--times"))
        status = self_test_times(argc - 2, argv + 2, &reached, error);
    else
        status = self_test_matrix(argc - 1, argv + 1, &reached, error);
    return status ? UNUSABLE : reached ? CONFORMS : DIVERGES;
}

/* What opens many files, in a child process: where a library dies of what it finds, or of memory
 * that runs out, that is one line. argv begins with the command's name. */
typedef struct command {
    int (*run)(int argc, char **argv, gemma4_error *error);
    int argc;
    char **argv;
} command;

static int run_command(void *context)
{
    const command *c = context;
    gemma4_error error = {""};
    return conclude(c->run(c->argc, c->argv, &error), &error);
}

static int run_apart(int (*run)(int argc, char **argv, gemma4_error *error), int argc, char **argv,
                     gemma4_error *error)
{
    command c = {run, argc, argv};
    return gemma4_isolate(run_command, &c, argv[0], error);
}

/* Removes the word from argv where it is there; returns how many are left. */
static int take_flag(int argc, char **argv, const char *name, bool *found)
{
    int kept = 0;
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], name))
            argv[kept++] = argv[i];
        else
            *found = true;
    return kept;
}

/* Which instruction sets may be used: no verdict depends on it. NULL: all. */
static int limit_cpu(const char *cpu, const char *what, gemma4_error *error)
{
    unsigned mask;
    if (!cpu)
        return 0;
    if (gemma4_cpu_parse(cpu, what, &mask, error))
        return -1;
    gemma4_cpu_limit(mask);
    return 0;
}

/* words has room for argc of them. */
static int parse_check(int argc, char **argv, request *r, const char **words, gemma4_error *error)
{
    size_t count;
    const char *cpu = NULL;
    const gemma4_option options[] = {{"--model", &r->model_dir},
                                     {"--dtype", &r->dtype},
                                     {"--json", &r->json},
                                     {"--junit", &r->junit},
                                     {"--html", &r->html},
                                     {"--require", &r->require},
                                     {"--search", &r->search},
                                     {"--map", &r->map_name},
                                     {"--manifest", &r->manifest},
                                     {"--cpu", &cpu},
                                     {NULL, NULL}};
    argc = take_flag(argc, argv, "--verbose", &r->verbose);
    if (gemma4_options_parse(argc, argv, options, words, (size_t)argc, &count, error) ||
        limit_cpu(cpu, "--cpu", error))
        return -1;
    if (r->manifest && (count || r->model_dir || r->html))
        return gemma4_fail(
            error,
            "command line: --manifest takes no CASE, no ENGINE.h5, no --model and no --html");
    if (r->manifest)
        return 0;
    size_t before = r->model_dir ? 0 : 1;
    if (count > before + 1 && !r->map_name)
        return gemma4_fail(error,
                           "command line: expected CASE ENGINE.h5, or --model DIR ENGINE.h5, found "
                           "the unexpected argument '%s' (several files, a "
                           "pass each, are for --map)",
                           words[before + 1]);
    if (count <= before)
        return gemma4_fail(
            error,
            "command line: expected CASE ENGINE.h5, or --model DIR ENGINE.h5 (--help says more)");
    r->case_name = r->model_dir ? NULL : words[0];
    r->engine_paths = words + before;
    r->engine_count = count - before;
    r->engine_path = words[before];
    return 0;
}

static int check_words(int argc, char **argv, gemma4_error *error)
{
    request r = {0};
    const char **words = calloc((size_t)argc + 1, sizeof *words);
    int status = words ? parse_check(argc, argv, &r, words, error)
                       : gemma4_fail(error, "command line: out of memory");
    if (!status && r.manifest) {
        status = command_several(&r, error);
        status = status == UNUSABLE || check_output(error) ? -1 : status;
    } else if (!status) {
        status = command_check(&r);
    }
    free(words);
    return status;
}

/* --- names --- */

/* Written only when all of it is there: what is saved is a whole map, or none. */
static int list_names(void *context)
{
    gemma4_error error = {""};
    gemma4_text text;
    gemma4_text_open(&text);
    gemma4_limit_processor_time(SECONDS_TO_OPEN);
    int status = text.f ? gemma4_names(context, text.f, &error)
                        : gemma4_fail(&error, "names: out of memory");
    if (gemma4_text_close(&text) && !status)
        status = gemma4_fail(&error, "names: out of memory");
    if (!status && (fwrite(text.bytes, 1, text.size, stdout) != text.size || check_output(&error)))
        status = -1;
    free(text.bytes);
    if (status)
        fprintf(stderr, "gemma4-check: %s\n", error.message);
    return status ? UNUSABLE : CONFORMS;
}

/* The file is read by a child process only, as in a check. */
static int command_names(int argc, char **argv, gemma4_error *error)
{
    gemma4_names_request r = {0};
    const char **words = calloc((size_t)argc + 1, sizeof *words);
    const gemma4_option options[] = {
        {"--case", &r.case_name}, {"--model", &r.model_dir}, {NULL, NULL}};
    int status =
        words ? gemma4_options_parse(argc, argv, options, words, (size_t)argc, &r.count, error)
              : gemma4_fail(error, "names: out of memory");
    r.paths = words;
    if (!status && r.count == 0)
        status = gemma4_fail(error, "names: expected a file or a folder, found none");
    if (!status && r.case_name && r.model_dir)
        status = gemma4_fail(error, "names: expected --case or --model, found both");
    status = status ? -1 : gemma4_isolate(list_names, &r, words[0], error);
    free(words);
    return status;
}

static int show_version(void)
{
    char sandbox[128];
    gemma4_sandbox_describe(sandbox, sizeof sandbox);
    return printf("gemma4-check %s\nsandbox: %s\n", gemma4_version(), sandbox) < 0 || fflush(stdout)
               ? UNUSABLE
               : 0;
}

static int run_program(int argc, char **argv)
{
    gemma4_error error = {""};
    int status;
    bool said = false; /* what is wrong was printed already */
    if (limit_cpu(getenv("GEMMA4_CPU"), "GEMMA4_CPU", &error)) {
        fprintf(stderr, "gemma4-check: %s\n", error.message);
        return UNUSABLE;
    }
    if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")))
        return fputs(usage, stdout) < 0 || fflush(stdout) ? UNUSABLE : 0;
    if (argc == 2 && !strcmp(argv[1], "--version"))
        return show_version();
    if (argc < 2) {
        fputs(usage, stderr);
        return UNUSABLE;
    }
    if (argc == 2 && !strcmp(argv[1], "list"))
        status = command_list(&error);
    else if (argc == 3 && !strcmp(argv[1], "list"))
        status = command_list_case(argv[2], &error);
    else if (!strcmp(argv[1], "lint") && (argc == 2 || (argc == 3 && !strcmp(argv[2], "--long"))))
        said = (status = run_apart(command_lint, argc - 1, argv + 1, &error)) >= 0;
    else if ((argc == 2 || argc == 3) && !strcmp(argv[1], "explain"))
        status = command_explain(argv[2], &error);
    else if (argc == 2 && !strcmp(argv[1], "agreement"))
        said = (status = run_apart(command_agreement, argc - 1, argv + 1, &error)) >= 0;
    else if (!strcmp(argv[1], "self-test"))
        said = (status = run_apart(command_self_test, argc - 1, argv + 1, &error)) >= 0;
    else if (!strcmp(argv[1], "ladder"))
        said = (status = gemma4_ladder_command(argc - 2, argv + 2, &error)) >= 0;
    else if (!strcmp(argv[1], "compare"))
        said = (status = gemma4_compare_command(argc - 2, argv + 2, &error)) >= 0;
    else if (!strcmp(argv[1], "names"))
        said = (status = command_names(argc - 2, argv + 2, &error)) >= 0;
    else
        said = (status = check_words(argc - 1, argv + 1, &error)) >= 0;
    if (said)
        return status;
    return conclude(status < 0 ? UNUSABLE : status, &error);
}

int main(int argc, char **argv)
{
    gemma4_guard_install("gemma4-check");
    gemma4_guard_exit();
    gemma4_keep_memory();
    return gemma4_guard_end(run_program(argc, argv));
}
