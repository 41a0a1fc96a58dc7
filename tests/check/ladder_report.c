/* What is said of a climb: terminal, JSON, JUnit. */
#include "ladder.h"

#include <string.h>

#include "counter_model.h"
#include "text.h"
#include "version.h"

static const char *const verdicts[] = {[GEMMA4_RUNG_PASSES] = "PASS",
                                       [GEMMA4_RUNG_FAILS] = "FAIL",
                                       [GEMMA4_RUNG_NOT_JUDGED] = "NOT_JUDGED",
                                       [GEMMA4_RUNG_NOT_COVERED] = "NOT_COVERED",
                                       [GEMMA4_RUNG_UNUSABLE] = "UNUSABLE"};

/* The id, or what a point of the space says. */
static const char *name_of(const gemma4_ladder_cause *cause)
{
    const gemma4_ladder_candidate *first = &cause->candidates[0];
    return first->point ? first->model->wrong : first->model->id;
}

/* What a rung's line ends with. */
static void write_outcome(FILE *out, const gemma4_climb *climb, const gemma4_rung_result *r)
{
    switch (r->verdict) {
    case GEMMA4_RUNG_PASSES:
        fprintf(out, "ok%s",
                r->carried == 0   ? ""
                : r->carried == 1 ? ", with the cause found above"
                                  : ", with the causes found above");
        if (r->error > r->tolerance)
            fputs("; values that it rounds the other way left", out);
        break;
    case GEMMA4_RUNG_FAILS:
        fputs("FAIL: ", out);
        for (size_t i = 0; i < r->cause_count; i++) {
            fputs(i ? " and " : "", out);
            gemma4_terminal_text(out, name_of(&climb->causes[r->causes[i]]));
        }
        if (!r->cause_count) {
            fputs("cause unknown: ", out);
            gemma4_terminal_text(out, r->message);
        }
        break;
    case GEMMA4_RUNG_NOT_JUDGED:
        fprintf(out, "not judged: needs %s", climb->ladder->rungs[r->blocked_by].name);
        break;
    case GEMMA4_RUNG_NOT_COVERED: fputs("not covered: there is no dump of it", out); break;
    case GEMMA4_RUNG_UNUSABLE:
        fputs("cannot be judged: ", out);
        gemma4_terminal_text(out, r->message);
        break;
    }
    fputc('\n', out);
}

static void write_rungs(FILE *out, const gemma4_climb *climb)
{
    fprintf(out, "  %-20s %12s\n", "rung", "error/limit");
    for (size_t i = 0; i < climb->ladder->count; i++) {
        const gemma4_rung_result *r = &climb->results[i];
        fprintf(out, "  %-20s ", climb->ladder->rungs[i].name);
        if (r->tolerance > 0)
            fprintf(out, "%12.3g  ", r->error / r->tolerance);
        else
            fprintf(out, "%12s  ", "-");
        write_outcome(out, climb, r);
    }
}

static void write_cause(FILE *out, const gemma4_climb *climb, const gemma4_ladder_cause *cause)
{
    const gemma4_counter_model *m = cause->candidates[0].model;
    const char *other;
    fputs("\nCause: ", out);
    gemma4_terminal_text(out, name_of(cause));
    fprintf(out, "%s%s%s, first at rung %s (%s)\n", m->variant[0] ? " (" : "", m->variant,
            m->variant[0] ? ")" : "", climb->ladder->rungs[cause->rung].name,
            climb->ladder->rungs[cause->rung].the_case->summary);
    if (cause->candidates[0].only_layer >= 0)
        fprintf(out, "  where          in layer %d only\n", cause->candidates[0].only_layer);
    if (cause->scope != GEMMA4_EVERYWHERE)
        fprintf(out, "  where          %s\n", gemma4_scope_text(cause->scope));
    if (!cause->candidates[0].point)
        fprintf(out, "  wrong          %s\n", m->wrong);
    fprintf(out, "  right          %s\n", m->right);
    for (size_t i = 0; (other = gemma4_ladder_equivalent(cause, i)); i++)
        fprintf(out, "%s%s", i ? ", " : "  equivalent     ", other);
    if (gemma4_ladder_equivalent(cause, 0))
        fputc('\n', out);
}

/* The last line. */
static void write_conclusion(FILE *out, const gemma4_climb *climb)
{
    size_t all = climb->ladder->count, missing = gemma4_climb_count(climb, GEMMA4_RUNG_NOT_COVERED),
           passes = gemma4_climb_count(climb, GEMMA4_RUNG_PASSES);
    size_t fails = gemma4_climb_count(climb, GEMMA4_RUNG_FAILS),
           unusable = gemma4_climb_count(climb, GEMMA4_RUNG_UNUSABLE);
    if (unusable)
        fprintf(out, "\n%zu of %zu rungs cannot be judged\n", unusable, all);
    if (fails)
        fprintf(
            out,
            "\nDOES NOT CONFORM: %zu of %zu rungs fail, %zu cause%s found, %zu rungs not judged\n",
            fails, all - missing, climb->cause_count, climb->cause_count == 1 ? "" : "s",
            gemma4_climb_count(climb, GEMMA4_RUNG_NOT_JUDGED));
    else if (!unusable && missing)
        fprintf(out, "\nNO FAULT FOUND on %zu of %zu rungs\n", passes, all);
    else if (!unusable)
        fprintf(out, "\nCONFORMS on all %zu rungs\n", all);
}

void gemma4_climb_text(FILE *out, const gemma4_climb *climb)
{
    fputs("Ladder: ", out);
    gemma4_terminal_text(out, climb->engine[0] ? climb->engine : "an engine without a name");
    fputs(climb->version[0] ? " " : "", out);
    gemma4_terminal_text(out, climb->version);
    fputs(", ", out);
    gemma4_terminal_text(out, climb->dtype);
    fprintf(out, " (gemma4-check %s)\n\n", gemma4_version());
    write_rungs(out, climb);
    for (size_t i = 0; i < climb->cause_count; i++)
        write_cause(out, climb, &climb->causes[i]);
    if (climb->strangers[0]) {
        fputs("\nwarning: no rung has the name of: ", out);
        gemma4_terminal_text(out, climb->strangers);
        fputc('\n', out);
    }
    write_conclusion(out, climb);
}

/* ----------------------------------------------------------------------- JSON */

/* Texts that are not there are empty here. */
static void json_text(FILE *out, const char *key, const char *text)
{
    gemma4_json_field(out, key, text && text[0] ? text : NULL);
}

static void json_number(FILE *out, const char *key, double value)
{
    fprintf(out, "\"%s\": ", key);
    gemma4_json_number(out, value);
}

static void json_rung(FILE *out, const gemma4_climb *climb, size_t rung)
{
    const gemma4_rung_result *r = &climb->results[rung];
    const gemma4_rung *info = &climb->ladder->rungs[rung];
    fprintf(out, "    {\"rung\": \"%s\", ", info->name);
    json_text(out, "summary", info->the_case->summary);
    fprintf(out, ", \"verdict\": \"%s\", ", verdicts[r->verdict]);
    json_number(out, "error", r->error);
    fputs(", ", out);
    json_number(out, "tolerance", r->tolerance);
    fprintf(out, ", \"carried\": %zu, \"causes\": [", r->carried);
    for (size_t i = 0; i < r->cause_count; i++)
        fprintf(out, "%s%zu", i ? ", " : "", r->causes[i]);
    fputs("], ", out);
    json_text(out, "needs",
              r->verdict == GEMMA4_RUNG_NOT_JUDGED ? climb->ladder->rungs[r->blocked_by].name
                                                   : NULL);
    fputs(", ", out);
    json_text(out, "message", r->message);
    fputs("}", out);
}

static void json_cause(FILE *out, const gemma4_climb *climb, const gemma4_ladder_cause *cause)
{
    const gemma4_ladder_candidate *first = &cause->candidates[0];
    const char *other;
    fputs("    {", out);
    json_text(out, "id", first->model->id);
    fputs(", ", out);
    json_text(out, "variant", first->model->variant);
    fputs(", ", out);
    json_text(out, "rung", climb->ladder->rungs[cause->rung].name);
    fputs(", ", out);
    json_text(out, "scope",
              cause->scope == GEMMA4_EVERYWHERE ? NULL : gemma4_scope_text(cause->scope));
    if (first->only_layer >= 0)
        fprintf(out, ", \"layer\": %d", first->only_layer);
    fputs(", \"equivalent\": [", out);
    for (size_t i = 0; (other = gemma4_ladder_equivalent(cause, i)); i++) {
        fputs(i ? ", " : "", out);
        gemma4_json_string(out, other);
    }
    fputs("], ", out);
    json_text(out, "wrong", first->model->wrong);
    fputs(", ", out);
    json_text(out, "right", first->model->right);
    fputs("}", out);
}

void gemma4_climb_json(FILE *out, const gemma4_climb *climb)
{
    static const char *const names[] = {"PASS", "FAIL", "UNUSABLE"};
    fputs("{\n  \"format\": \"gemma4-ladder-report\", \"format_version\": 1, ", out);
    json_text(out, "version", gemma4_version());
    fprintf(out, ",\n  \"verdict\": \"%s\", ", names[gemma4_climb_status(climb)]);
    json_text(out, "dtype", climb->dtype);
    fputs(", ", out);
    json_text(out, "engine", climb->engine);
    fputs(", ", out);
    json_text(out, "engine_version", climb->version);
    fputs(",\n  ", out);
    json_text(out, "unknown_files", climb->strangers);
    fputs(",\n  \"causes\": [\n", out);
    for (size_t i = 0; i < climb->cause_count; i++) {
        json_cause(out, climb, &climb->causes[i]);
        fputs(i + 1 < climb->cause_count ? ",\n" : "\n", out);
    }
    fputs("  ],\n  \"rungs\": [\n", out);
    for (size_t i = 0; i < climb->ladder->count; i++) {
        json_rung(out, climb, i);
        fputs(i + 1 < climb->ladder->count ? ",\n" : "\n", out);
    }
    fputs("  ]\n}\n", out);
}

/* ---------------------------------------------------------------------- JUnit */

static void junit_rung(FILE *out, const gemma4_climb *climb, size_t rung)
{
    const gemma4_rung_result *r = &climb->results[rung];
    static const char *const elements[] = {[GEMMA4_RUNG_FAILS] = "failure",
                                           [GEMMA4_RUNG_NOT_JUDGED] = "skipped",
                                           [GEMMA4_RUNG_NOT_COVERED] = "skipped",
                                           [GEMMA4_RUNG_UNUSABLE] = "error"};
    fprintf(out, "    <testcase classname=\"gemma4.ladder\" name=\"%s\" time=\"0\"",
            climb->ladder->rungs[rung].name);
    if (r->verdict == GEMMA4_RUNG_PASSES) {
        fputs("/>\n", out);
        return;
    }
    fprintf(out, ">\n      <%s message=\"", elements[r->verdict]);
    for (size_t i = 0; i < r->cause_count; i++) {
        fputs(i ? " and " : "", out);
        gemma4_xml_text(out, name_of(&climb->causes[r->causes[i]]));
    }
    if (r->verdict == GEMMA4_RUNG_NOT_JUDGED)
        fprintf(out, "needs %s", climb->ladder->rungs[r->blocked_by].name);
    else if (!r->cause_count)
        gemma4_xml_text(out, r->message[0] ? r->message : "there is no dump of it");
    fputs("\"/>\n    </testcase>\n", out);
}

void gemma4_climb_junit(FILE *out, const gemma4_climb *climb)
{
    fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n", out);
    fprintf(out,
            "  <testsuite name=\"ladder\" tests=\"%zu\" failures=\"%zu\" errors=\"%zu\" "
            "skipped=\"%zu\">\n",
            climb->ladder->count, gemma4_climb_count(climb, GEMMA4_RUNG_FAILS),
            gemma4_climb_count(climb, GEMMA4_RUNG_UNUSABLE),
            gemma4_climb_count(climb, GEMMA4_RUNG_NOT_JUDGED) +
                gemma4_climb_count(climb, GEMMA4_RUNG_NOT_COVERED));
    for (size_t i = 0; i < climb->ladder->count; i++)
        junit_rung(out, climb, i);
    fputs("  </testsuite>\n</testsuites>\n", out);
}
