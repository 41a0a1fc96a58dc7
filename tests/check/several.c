#include "several.h"

#include <errno.h>
#include <stdio_ext.h>
#include <string.h>
#include <unistd.h>

#include "text.h"
#include "version.h"

/* ------------------------------------------------------------------ one part */

int gemma4_part_open(gemma4_part *part, const gemma4_listed_dump *dump, gemma4_error *error)
{
    *part = (gemma4_part){.dump = dump, .text = tmpfile(), .json = tmpfile(), .junit = tmpfile()};
    return part->text && part->json && part->junit
               ? 0
               : gemma4_fail(error, "%s: cannot open a temporary file: %s", dump->path,
                             strerror(errno));
}

/* Has the disk all that was written to a part's files? */
static int all_written(const gemma4_part *part, gemma4_error *error)
{
    FILE *const files[] = {part->text, part->json, part->junit};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (fflush(files[i]) || ferror(files[i]))
            return gemma4_fail(error, "%s: cannot write a temporary file: %s", part->dump->path,
                               strerror(errno));
    return 0;
}

void gemma4_part_close(gemma4_part *part)
{
    FILE *files[] = {part->text, part->json, part->junit};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (files[i])
            fclose(files[i]);
    *part = (gemma4_part){0};
}

/* Where it fails first, and why. */
static void write_finding(FILE *out, const gemma4_report *report)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    const gemma4_tap_result *first = report->first_divergence;
    const gemma4_cause *cause = first ? gemma4_cause_of(report, first) : NULL;
    if (first)
        fprintf(out, "; first divergence %s", gemma4_tap_name(first->tap, first->layer, name));
    if (cause) {
        fputs("; cause ", out);
        gemma4_terminal_text(out, gemma4_cause_name(cause));
    }
    if (gemma4_falls_short(report))
        fprintf(out, "; %s", gemma4_shortfall(report).text);
}

int gemma4_part_judged(const gemma4_part *part, const gemma4_report *report, gemma4_error *error)
{
    if (!report->conforms) {
        gemma4_report_text(part->text, report);
        fputc('\n', part->text);
    }
    gemma4_terminal_text(part->text, part->dump->path);
    fprintf(part->text, ": %s, %s, level %s: %s", report->case_id ? report->case_id : "no case",
            report->dtype, gemma4_level_name(report->level), gemma4_conclusion(report).text);
    write_finding(part->text, report);
    fputc('\n', part->text);
    gemma4_report_json(part->json, report);
    gemma4_report_junit_suite(part->junit, report, part->dump->label);
    return all_written(part, error);
}

/* What is there is forgotten: a process died over it, or the disk did not take all of it. */
static void empty(FILE *f)
{
    __fpurge(f);
    rewind(f);
    if (ftruncate(fileno(f), 0)) /* then its beginning is overwritten at least */
        clearerr(f);
}

int gemma4_part_unusable(const gemma4_part *part, const char *message, gemma4_error *error)
{
    empty(part->text);
    empty(part->json);
    empty(part->junit);
    gemma4_terminal_text(part->text, part->dump->path);
    fputs(": cannot be judged: ", part->text);
    gemma4_terminal_text(part->text, message);
    fputc('\n', part->text);
    gemma4_report_json_unusable(part->json, message);
    gemma4_report_junit_suite_unusable(part->junit, message, part->dump->label);
    return all_written(part, error);
}

/* ------------------------------------------------------------------ all of them */

gemma4_several gemma4_several_of(gemma4_part *parts, size_t count)
{
    gemma4_several s = {.parts = parts, .count = count};
    for (size_t i = 0; i < count; i++)
        s.status = parts[i].status > s.status ? parts[i].status : s.status;
    return s;
}

static void copy(FILE *to, FILE *from)
{
    char bytes[4096];
    size_t n;
    rewind(from);
    while ((n = fread(bytes, 1, sizeof bytes, from)) > 0)
        fwrite(bytes, 1, n, to);
}

static size_t count_of(const gemma4_several *s, int status)
{
    size_t count = 0;
    for (size_t i = 0; i < s->count; i++)
        count += s->parts[i].status == status;
    return count;
}

size_t gemma4_several_unusable(const gemma4_several *s)
{
    return count_of(s, 2);
}

const char *gemma4_several_first_unusable(const gemma4_several *s)
{
    for (size_t i = 0; i < s->count; i++)
        if (s->parts[i].status == 2)
            return s->parts[i].dump->path;
    return "";
}

void gemma4_several_text(FILE *out, const gemma4_several *s)
{
    for (size_t i = 0; i < s->count; i++)
        copy(out, s->parts[i].text);
    fprintf(out, "\n%zu dump%s: %zu without a fault, %zu do not conform, %zu cannot be judged\n",
            s->count, s->count == 1 ? "" : "s", count_of(s, 0), count_of(s, 1), count_of(s, 2));
}

void gemma4_several_json(FILE *out, const gemma4_several *s)
{
    static const char *const verdicts[] = {"PASS", "FAIL", "UNUSABLE"};
    fputs("{\n\"format\": \"gemma4-reports\", \"format_version\": 1, \"version\": ", out);
    gemma4_json_string(out, gemma4_version());
    fprintf(out, ",\n\"verdict\": \"%s\",\n\"reports\": [\n", verdicts[s->status]);
    for (size_t i = 0; i < s->count; i++) {
        fputs("{\"dump\": ", out);
        gemma4_json_string(out, s->parts[i].dump->path);
        fprintf(out, ", \"status\": %d, \"report\": ", s->parts[i].status);
        copy(out, s->parts[i].json);
        fputs(i + 1 < s->count ? "},\n" : "}\n", out);
    }
    fputs("]\n}\n", out);
}

void gemma4_several_junit(FILE *out, const gemma4_several *s)
{
    gemma4_report_junit_begin(out);
    for (size_t i = 0; i < s->count; i++)
        copy(out, s->parts[i].junit);
    gemma4_report_junit_end(out);
}
