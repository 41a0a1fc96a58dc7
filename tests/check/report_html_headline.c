/* The verdict, and what was judged by what. */
#include "causes.h"
#include "diagnose.h"
#include "point.h"
#include "report.h"
#include "report_html_internal.h"
#include "text.h"

/* How much a pass is worth: the step that comes closest to its tolerance, and what was not
 * judged. */
static void write_margin(FILE *out, const gemma4_report *report)
{
    const gemma4_tap_result *worst = NULL;
    for (size_t i = 0; i < report->tap_count; i++)
        if (report->taps[i].verdict != GEMMA4_NOT_COVERED &&
            gemma4_is_worse(&report->taps[i], worst))
            worst = &report->taps[i];
    fputs("<p>Every step that the dump shows is what honest rounding in ", out);
    gemma4_xml_text(out, report->dtype);
    fputs(" explains.", out);
    if (worst && gemma4_has_numbers(worst) && worst->local.error != 0) {
        fputs(" Closest to its tolerance: ", out);
        html_tap_code(out, worst->tap, worst->layer);
        fprintf(out, ", at %s of it.", html_short_number(gemma4_part_of_tolerance(worst)).text);
    }
    if (report->level != GEMMA4_FULL_LEVEL && report->level != GEMMA4_PARTIAL)
        fprintf(out, " It shows %zu of %zu required tensors; the others have not passed.",
                report->taps_covered, report->taps_of);
    fputs("</p>\n", out);
}

/* The causes by name and place, that of the first divergence first. */
static void write_cause_sentences(FILE *out, const gemma4_report *report, const gemma4_cause *first)
{
    if (first) {
        fprintf(out, "<p>%s: ", gemma4_cause_heading(first));
        html_foreign_text(out, gemma4_cause_sentence(first).text);
        fputs("</p>\n", out);
    } else {
        fputs("<p>Cause unknown: no known mistake explains it.</p>\n", out);
    }
    for (size_t i = 0; i < gemma4_cause_count(report->diagnosis); i++) {
        const gemma4_cause *cause = gemma4_cause_at(report->diagnosis, i);
        if (!(cause->explained || cause->of_dump) || cause == first)
            continue;
        fputs("<p>And: ", out);
        html_foreign_text(out, gemma4_cause_sentence(cause).text);
        fputs("</p>\n", out);
    }
}

static void write_failure(FILE *out, const gemma4_report *report)
{
    const gemma4_tap_result *first = report->first_divergence;
    size_t failed = 0, compared = 0;
    for (size_t i = 0; i < report->tap_count; i++) {
        failed += report->taps[i].verdict == GEMMA4_DIVERGES;
        compared += report->taps[i].verdict != GEMMA4_NOT_COVERED;
    }
    if (first) {
        fputs("<p>First at ", out);
        html_tap_code(out, first->tap, first->layer);
        fprintf(out, ". %zu of %zu compared tensors fail%s on the engine’s own inputs.</p>\n",
                failed, compared, failed == 1 ? "s" : "");
        write_cause_sentences(out, report, gemma4_cause_of(report, first));
    } else {
        fputs("<p>No step diverges, but the dump covers less than what was required.</p>\n", out);
    }
}

/* The verdict in colour: unsure where too little was covered for one. */
static void write_banner(FILE *out, const gemma4_report *report)
{
    bool unsure = gemma4_is_inconclusive(report);
    fprintf(out, "<div class=\"banner %s\"><h1>%s</h1>\n",
            unsure             ? "unsure"
            : report->conforms ? "pass"
                               : "fail",
            unsure             ? "? NO VERDICT"
            : report->conforms ? "✓ CONFORMS"
                               : "✕ DOES NOT CONFORM");
    if (unsure)
        fprintf(out, "<p><b>%s.</b></p>\n", gemma4_conclusion(report).text);
    if (report->conforms)
        write_margin(out, report);
    else
        write_failure(out, report);
    if (gemma4_falls_short(report))
        fprintf(out, "<p>%s.</p>\n", gemma4_shortfall(report).text);
    for (size_t i = 0; i < report->warning_count; i++) {
        fputs("<p class=\"warning\"><b>Warning:</b> ", out);
        html_foreign_text(out, report->warnings[i]);
        fputs("</p>\n", out);
    }
    fputs("</div>\n", out);
}

/* A fact from the dump or the case. */
static void write_fact(FILE *out, const char *name, const char *text)
{
    fprintf(out, "<dt>%s</dt><dd>", name);
    gemma4_xml_text(out, text);
    fputs("</dd>\n", out);
}

static void write_coverage_fact(FILE *out, const gemma4_report *report)
{
    double part =
        report->taps_of ? 100.0 * (double)report->taps_covered / (double)report->taps_of : 0;
    size_t layers = 0;
    for (size_t l = 0; l < report->layers; l++)
        layers += report->layer_covered[l];
    fprintf(out,
            "<dt>Coverage</dt><dd><span class=\"bar\"><i style=\"width:%.1f%%\"></i></span>level "
            "<b>%s</b>: %zu of %zu required tensors, in "
            "%zu of %zu layers</dd>\n",
            part, gemma4_level_name(report->level), report->taps_covered, report->taps_of, layers,
            report->layers);
}

static void write_notes(FILE *out, const gemma4_report *report)
{
    if (report->note_count)
        fputs("<dt>Notes</dt><dd>", out);
    for (size_t i = 0; i < report->note_count; i++) {
        fputs(i ? "<br/>" : "", out);
        html_foreign_text(out, report->notes[i]);
    }
    fputs(report->note_count ? "</dd>\n" : "", out);
}

void html_headline(FILE *out, const gemma4_report *report)
{
    fputs("<header>\n", out);
    write_banner(out, report);
    fputs("<dl class=\"facts\">\n<dt>Engine</dt><dd><b>", out);
    html_foreign_text(out, report->engine ? report->engine : "(unnamed)");
    fputs("</b> ", out);
    html_foreign_text(out, report->engine_version ? report->engine_version : "");
    fputs("</dd>\n", out);
    write_fact(out, "Arithmetic", report->dtype);
    fputs("<dt>Case</dt><dd>", out);
    gemma4_xml_text(out, report->case_id ? report->case_id : "none: the dump’s own tokens");
    fprintf(out, ", %zu position%s</dd>\n<dt>Expected</dt><dd>from the %s%s", report->positions,
            html_plural(report->positions), report->expected_from,
            report->expected_detail[0] ? ": " : "");
    gemma4_xml_text(out, report->expected_detail);
    fputs("</dd>\n", out);
    if (report->golden_sha256)
        write_fact(out, "Golden’s SHA-256", report->golden_sha256);
    write_coverage_fact(out, report);
    write_notes(out, report);
    fputs("</dl>\n</header>\n", out);
}
