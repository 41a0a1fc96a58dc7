/* The report as JUnit XML, in what GitLab, Jenkins and GitHub's actions all read: a time
 * everywhere, no two testcases of one name, and a failure's text with its message in it as well,
 * since GitLab shows the text alone and others the message. A page is red where the exit status is
 * 1. */
#include <string.h>

#include "causes.h"
#include "report.h"
#include "text.h"
#include "version.h"

/* What became of the testcases. The counts stand before them, so everything is gone through twice:
 * first with out NULL. */
typedef struct junit {
    FILE *out;
    const gemma4_report *report;
    const char *label; /* what else than the case the classnames say; NULL: nothing */
    size_t tests, failures, skipped;
} junit;

/* Text in an attribute, on one line. */
static void one_line(FILE *out, const char *text)
{
    char line[GEMMA4_SENTENCE_SIZE];
    snprintf(line, sizeof line, "%s", text);
    for (char *s = line; *s; s++)
        if (*s == '\n' || *s == '\t')
            *s = ' ';
    gemma4_xml_text(out, line);
}

/* A part of a classname, NULL for none. */
static void write_part(FILE *out, const char *part)
{
    if (!part)
        return;
    fputc('.', out);
    gemma4_xml_text(out, part);
}

/* A dump that is called as its case needs no label. */
static bool names_the_case(const gemma4_report *report, const char *label)
{
    return report->case_id && label && !strcmp(report->case_id, label);
}

/* group is what follows the case in the classname. */
static void begin_case(junit *j, const char *group, const char *name)
{
    j->tests++;
    if (!j->out)
        return;
    fputs("    <testcase classname=\"gemma4", j->out);
    write_part(j->out, j->report->case_id);
    if (!names_the_case(j->report, j->label))
        write_part(j->out, j->label);
    fprintf(j->out, "%s%s\" name=\"%s\" time=\"0\"", *group ? "." : "", group, name);
}

static void pass_case(junit *j)
{
    if (j->out)
        fputs("/>\n", j->out);
}

static void skip_case(junit *j, const char *why)
{
    j->skipped++;
    if (!j->out)
        return;
    fputs("><skipped message=\"", j->out);
    one_line(j->out, why);
    fputs("\"/></testcase>\n", j->out);
}

/* body follows the message in the failure's text. */
static void fail_case(junit *j, const char *type, const char *message, const char *body)
{
    j->failures++;
    if (!j->out)
        return;
    fprintf(j->out, ">\n      <failure type=\"%s\" message=\"", type);
    one_line(j->out, message);
    fputs("\">", j->out);
    gemma4_xml_text(j->out, message);
    fputc('\n', j->out);
    gemma4_xml_text(j->out, body);
    fputs("\n</failure>\n    </testcase>\n", j->out);
}

/* What is wrong with a tap: the problem, the measure, the mistake's name. */
static gemma4_sentence tap_message(const gemma4_tap_result *r, const gemma4_cause *cause)
{
    gemma4_sentence s, measure = {""};
    if (gemma4_has_numbers(r))
        measure = gemma4_measure_sentence(r);
    snprintf(s.text, sizeof s.text, "%s%s%.300s%s%s", r->problem,
             r->problem[0] && measure.text[0] ? "; " : "", measure.text, cause ? "; cause: " : "",
             cause ? gemma4_cause_name(cause) : "");
    return s;
}

/* The numbers behind the message, and what the report says of the cause. */
static gemma4_sentence tap_body(const gemma4_tap_result *r, const gemma4_cause *cause)
{
    gemma4_sentence s = {""};
    int n = 0;
    if (gemma4_has_numbers(r))
        n = snprintf(s.text, sizeof s.text,
                     "%s %.3g, tolerance %.3g; worst at position %zu\n"
                     "worst element: position %zu, index %zu: yours %.7g, expected %.7g\n",
                     gemma4_metric_name(r->local.kind), r->local.error, r->local.tolerance,
                     r->local.position, r->worst_position, r->worst_index, r->worst_engine,
                     r->worst_expected);
    bool catalogued = cause && cause->explained && !cause->point;
    if (cause)
        snprintf(s.text + n, sizeof s.text - (size_t)n, "cause: %.1100s\n%s%s",
                 gemma4_cause_lines(cause).text,
                 catalogued ? "  more           gemma4-check explain " : "",
                 catalogued ? gemma4_cause_model(cause)->id : "");
    return s;
}

static void write_tap(junit *j, const gemma4_tap_result *r)
{
    char name[GEMMA4_TAP_NAME_SIZE], group[32] = "head";
    if (gemma4_tap_describe(r->tap)->per_layer)
        snprintf(group, sizeof group, "layers.%zu", r->layer);
    else if (r->tap == GEMMA4_TAP_EMBED)
        snprintf(group, sizeof group, "embedding");
    if (r->verdict == GEMMA4_NOT_COVERED)
        return;
    begin_case(j, group, gemma4_tap_name(r->tap, r->layer, name));
    if (r->verdict != GEMMA4_DIVERGES)
        pass_case(j);
    else {
        const gemma4_cause *cause = gemma4_cause_of(j->report, r);
        fail_case(j, "divergence", tap_message(r, cause).text, tap_body(r, cause).text);
    }
}

static bool is_missing(const gemma4_tap_result *r)
{
    return r->verdict == GEMMA4_NOT_COVERED && !gemma4_tap_describe(r->tap)->derived;
}

/* One testcase for all that the dump lacks: hundreds of skipped ones would hide what is there.
 * Log-probabilities, which follow from logits, are no loss. */
static void write_not_covered(junit *j)
{
    size_t missing = 0;
    gemma4_sentence s = {""};
    for (size_t i = 0; i < j->report->tap_count; i++)
        missing += is_missing(&j->report->taps[i]);
    if (missing == 0)
        return;
    int n = snprintf(s.text, sizeof s.text, "%zu tensor%s not in the dump:", missing,
                     missing == 1 ? " is" : "s are");
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
        gemma4_kind_summary kind = gemma4_summarize(j->report, (gemma4_tap)tap);
        if (kind.covered == kind.of || gemma4_tap_describe((gemma4_tap)tap)->derived)
            continue;
        n += snprintf(s.text + n, sizeof s.text - (size_t)n, " %s",
                      gemma4_tap_describe((gemma4_tap)tap)->name);
        if (kind.covered)
            n += snprintf(s.text + n, sizeof s.text - (size_t)n, " (%zu of %zu)",
                          kind.of - kind.covered, kind.of);
    }
    begin_case(j, "", "not covered");
    skip_case(j, s.text);
}

/* What the dump covers, against what is required. It fails too where nothing else does and yet the
 * dump does not conform. */
static void write_coverage(junit *j)
{
    const gemma4_report *report = j->report;
    char body[200];
    snprintf(body, sizeof body, "level %s: %zu of %zu required tensors",
             gemma4_level_name(report->level), report->taps_covered, report->taps_of);
    begin_case(j, "", "coverage");
    if (gemma4_falls_short(report))
        fail_case(j, "coverage", gemma4_shortfall(report).text, body);
    else if (!report->conforms && j->failures == 0)
        fail_case(j, "verdict", gemma4_conclusion(report).text, body);
    else if (report->level == GEMMA4_PARTIAL)
        skip_case(j, gemma4_is_inconclusive(report) ? gemma4_conclusion(report).text : body);
    else
        pass_case(j);
}

static void write_cases(junit *j)
{
    j->tests = j->failures = j->skipped = 0;
    for (size_t i = 0; i < j->report->tap_count; i++)
        write_tap(j, &j->report->taps[i]);
    write_not_covered(j);
    write_coverage(j);
}

static void write_property(FILE *out, const char *name, const char *value)
{
    if (!value)
        return;
    fprintf(out, "      <property name=\"%s\" value=\"", name);
    one_line(out, value);
    fputs("\"/>\n", out);
}

/* Which build judged which engine by what. */
static void write_properties(FILE *out, const gemma4_report *report)
{
    fputs("    <properties>\n", out);
    write_property(out, "checker_version", gemma4_version());
    write_property(out, "golden_sha256", report->golden_sha256);
    write_property(out, "engine", report->engine);
    write_property(out, "engine_version", report->engine_version);
    write_property(out, "dtype", report->dtype);
    write_property(out, "level", gemma4_level_name(report->level));
    fputs("    </properties>\n", out);
}

static void write_lines(FILE *out, const char *word, const char *texts, size_t count, size_t size)
{
    for (size_t i = 0; i < count; i++) {
        fprintf(out, "%s: ", word);
        gemma4_xml_text(out, texts + i * size);
        fputc('\n', out);
    }
}

static void begin_suite(FILE *out, const char *name, const char *label, size_t tests,
                        size_t failures, size_t errors, size_t skipped)
{
    fputs("  <testsuite name=\"", out);
    gemma4_xml_text(out, name);
    write_part(out, label);
    fprintf(out, "\" tests=\"%zu\" failures=\"%zu\" errors=\"%zu\" skipped=\"%zu\" time=\"0\">\n",
            tests, failures, errors, skipped);
}

void gemma4_report_junit_begin(FILE *out)
{
    fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n", out);
}

void gemma4_report_junit_end(FILE *out)
{
    fputs("</testsuites>\n", out);
}

void gemma4_report_junit_suite(FILE *out, const gemma4_report *report, const char *label)
{
    junit j = {.report = report, .label = label};
    write_cases(&j);
    begin_suite(out, report->case_id ? report->case_id : "gemma4-check",
                names_the_case(report, label) ? NULL : label, j.tests, j.failures, 0, j.skipped);
    write_properties(out, report);
    j.out = out;
    write_cases(&j);
    fputs("    <system-out>", out);
    write_lines(out, "note", report->notes[0], report->note_count, GEMMA4_NOTE_SIZE);
    write_lines(out, "warning", report->warnings[0], report->warning_count, GEMMA4_WARNING_SIZE);
    gemma4_xml_text(out, gemma4_conclusion(report).text);
    fputs("\n</system-out>\n  </testsuite>\n", out);
}

void gemma4_report_junit(FILE *out, const gemma4_report *report)
{
    gemma4_report_junit_begin(out);
    gemma4_report_junit_suite(out, report, NULL);
    gemma4_report_junit_end(out);
}

void gemma4_report_junit_suite_unusable(FILE *out, const char *message, const char *label)
{
    begin_suite(out, "gemma4-check", label, 1, 0, 1, 0);
    fputs("    <properties>\n", out);
    write_property(out, "checker_version", gemma4_version());
    fputs("    </properties>\n    <testcase classname=\"gemma4", out);
    write_part(out, label);
    fputs("\" name=\"input\" time=\"0\">\n      <error type=\"unusable\" message=\"", out);
    one_line(out, message);
    fputs("\">", out);
    gemma4_xml_text(out, message);
    fputs("</error>\n    </testcase>\n  </testsuite>\n", out);
}

void gemma4_report_junit_unusable(FILE *out, const char *message)
{
    gemma4_report_junit_begin(out);
    gemma4_report_junit_suite_unusable(out, message, NULL);
    gemma4_report_junit_end(out);
}
