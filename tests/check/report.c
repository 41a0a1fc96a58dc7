#include "report.h"

#include <stdarg.h>

void gemma4_report_note(gemma4_report *report, const char *format, ...)
{
    if (report->note_count == GEMMA4_MAX_NOTES)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(report->notes[report->note_count++], GEMMA4_NOTE_SIZE, format, arguments);
    va_end(arguments);
}

void gemma4_report_warn(gemma4_report *report, const char *format, ...)
{
    if (report->warning_count == GEMMA4_MAX_WARNINGS) {
        snprintf(report->warnings[GEMMA4_MAX_WARNINGS - 1], GEMMA4_WARNING_SIZE,
                 "there are more warnings than are shown here");
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(report->warnings[report->warning_count++], GEMMA4_WARNING_SIZE, format, arguments);
    va_end(arguments);
}

const char *gemma4_verdict_name(gemma4_verdict verdict)
{
    static const char *const names[] = {"PASS", "MARGINAL", "FAIL", "EXCUSED", "NOT_COVERED"};
    return names[verdict];
}

const char *gemma4_level_name(gemma4_level level)
{
    static const char *const names[] = {"partial", "logits", "layers", "full"};
    return names[level];
}

bool gemma4_has_numbers(const gemma4_tap_result *r)
{
    return r->verdict != GEMMA4_NOT_COVERED && !gemma4_tap_describe(r->tap)->ids &&
           r->local.kind != GEMMA4_METRIC_SHAPE;
}

double gemma4_part_of_tolerance(const gemma4_tap_result *r)
{
    return r->local.error == 0 ? 0 : r->local.error / r->local.tolerance;
}

bool gemma4_is_worse(const gemma4_tap_result *r, const gemma4_tap_result *than)
{
    if (!than || (r->verdict == GEMMA4_DIVERGES) != (than->verdict == GEMMA4_DIVERGES))
        return !than || r->verdict == GEMMA4_DIVERGES;
    return !(gemma4_part_of_tolerance(r) <= gemma4_part_of_tolerance(than));
}

gemma4_kind_summary gemma4_summarize(const gemma4_report *report, gemma4_tap tap)
{
    gemma4_kind_summary s = {0};
    for (size_t i = 0; i < report->tap_count; i++) {
        const gemma4_tap_result *r = &report->taps[i];
        if (r->tap != tap)
            continue;
        s.of++;
        if (r->verdict == GEMMA4_NOT_COVERED)
            continue;
        s.covered++;
        s.failed += r->verdict == GEMMA4_DIVERGES;
        if (gemma4_is_worse(r, s.worst))
            s.worst = r;
    }
    return s;
}

/* Below level logits no path through the model was seen to its end. */
bool gemma4_is_inconclusive(const gemma4_report *report)
{
    return report->conforms && report->level == GEMMA4_PARTIAL;
}

/* How many of the tensors that are required hold too few positions. */
static size_t required_in_part(const gemma4_report *report)
{
    return report->required == GEMMA4_FULL_LEVEL     ? report->full_in_part
           : report->required == GEMMA4_LAYERS_LEVEL ? report->layers_in_part
                                                     : 0;
}

bool gemma4_falls_short(const gemma4_report *report)
{
    return report->level < report->required || required_in_part(report);
}

gemma4_sentence gemma4_conclusion(const gemma4_report *report)
{
    gemma4_sentence s;
    size_t compared = 0;
    if (report->incomplete) {
        size_t layers = report->blocks_judged ? report->blocks_judged - 1 : 0;
        snprintf(s.text, sizeof s.text,
                 "INCOMPLETE: interrupted when %zu of %zu layers were judged; what is said is of "
                 "these",
                 layers < report->layers ? layers : report->layers, report->layers);
        return s;
    }
    if (!gemma4_is_inconclusive(report))
        return report->conforms ? (gemma4_sentence){"CONFORMS"}
                                : (gemma4_sentence){"DOES NOT CONFORM"};
    for (size_t i = 0; i < report->tap_count; i++)
        compared += report->taps[i].verdict != GEMMA4_NOT_COVERED;
    size_t optional = compared > report->taps_covered ? compared - report->taps_covered : 0;
    int n = snprintf(s.text, sizeof s.text, "NO FAULT FOUND in the %zu tensor%s covered (of %zu)",
                     report->taps_covered, report->taps_covered == 1 ? "" : "s", report->taps_of);
    if (optional)
        n += snprintf(s.text + n, sizeof s.text - (size_t)n, " and in %zu optional one%s", optional,
                      optional == 1 ? "" : "s");
    snprintf(s.text + n, sizeof s.text - (size_t)n,
             ": too little for a verdict; dump logits at least");
    return s;
}

gemma4_sentence gemma4_shortfall(const gemma4_report *report)
{
    gemma4_sentence s = {""};
    if (report->level >= report->required && gemma4_falls_short(report))
        snprintf(s.text, sizeof s.text,
                 "--require %s: %zu of the required tensors hold some positions only (the last "
                 "layer and what follows it may hold the last position alone)",
                 gemma4_level_name(report->required), required_in_part(report));
    else if (gemma4_falls_short(report))
        snprintf(s.text, sizeof s.text,
                 "--require %s: the dump covers less (%s): %zu of %zu required tensors",
                 gemma4_level_name(report->required), gemma4_level_name(report->level),
                 report->taps_covered, report->taps_of);
    return s;
}

gemma4_sentence gemma4_measure_sentence(const gemma4_tap_result *r)
{
    gemma4_sentence s;
    const char *of_what = r->local.kind == GEMMA4_METRIC_BIAS_IN_SPREADS
                              ? "the mean of all positions is off by "
                              : "";
    if (r->local.kind == GEMMA4_METRIC_MATCHED_FILTER) {
        snprintf(s.text, sizeof s.text,
                 "passes by itself; all layers together hold a known mistake, %.3g standard "
                 "deviations from none, tolerance %.3g",
                 r->local.error, r->local.tolerance);
        return s;
    }
    snprintf(s.text, sizeof s.text,
             "relative RMS %.2e from the engine's own inputs: %s%.3g times what rounding explains, "
             "tolerance %.3g",
             r->added, of_what, r->local.error, r->local.tolerance);
    return s;
}
