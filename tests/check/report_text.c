/* The report for a terminal. */
#include <math.h>

#include "causes.h"
#include "counter_model.h"
#include "diagnose.h"
#include "fit.h"
#include "report.h"
#include "text.h"
#include "version.h"

/* One line a kind of tap. */
static void print_tap_line(FILE *out, const gemma4_report *report, gemma4_tap tap)
{
    const gemma4_tap_info *info = gemma4_tap_describe(tap);
    gemma4_kind_summary s = gemma4_summarize(report, tap);
    char where[24] = "-";
    if (!s.worst) {
        if (!info->optional)
            fprintf(out, "  %-20s  %3zu of %-3zu  not covered\n", info->name, s.covered, s.of);
        return;
    }
    if (info->per_layer)
        snprintf(where, sizeof where, "%zu", s.worst->layer);
    fprintf(out, "  %-20s  %3zu of %-3zu  %5s  ", info->name, s.covered, s.of, where);
    if (!gemma4_has_numbers(s.worst))
        fprintf(out, "%9s  %9s  %9s  ", "-", "-", s.worst->local.error == 0 ? "right" : "-");
    else if (isnan(s.worst->inherited))
        fprintf(out, "%9.1e  %9s  %9.2g  ", s.worst->added, "-", gemma4_part_of_tolerance(s.worst));
    else
        fprintf(out, "%9.1e  %9.1e  %9.2g  ", s.worst->added, s.worst->inherited,
                gemma4_part_of_tolerance(s.worst));
    if (s.failed)
        fprintf(out, "FAIL in %zu of %zu\n", s.failed, s.covered);
    else
        fprintf(out, "%s\n",
                s.worst->verdict == GEMMA4_MARGINAL  ? "marginal"
                : s.worst->verdict == GEMMA4_EXCUSED ? "excused"
                                                     : "pass");
}

static void print_first_divergence(FILE *out, const gemma4_report *report)
{
    const gemma4_tap_result *r = report->first_divergence;
    char name[GEMMA4_TAP_NAME_SIZE];
    fprintf(out, "\nFirst divergence: %s\n", gemma4_tap_name(r->tap, r->layer, name));
    if (r->problem[0]) {
        fputs("  ", out);
        gemma4_terminal_text(out, r->problem);
        fputc('\n', out);
    }
    if (!gemma4_has_numbers(r))
        return;
    fprintf(out, "  this step      %s", gemma4_measure_sentence(r).text);
    if (r->local.kind != GEMMA4_METRIC_MATCHED_FILTER)
        fprintf(out, ",\n                 worst at position %zu", r->local.position);
    fprintf(out, "\n  all together   norm of yours / norm of the expected = %.6f, cosine = %.9f\n",
            r->metrics.norm_ratio, r->metrics.cosine);
    fprintf(out, "  worst element  position %zu, index %zu: yours %.7g, expected %.7g\n",
            r->worst_position, r->worst_index, r->worst_engine, r->worst_expected);
}

static void print_routing(FILE *out, const gemma4_routing *routing)
{
    if (routing->decisions + routing->inferred + routing->near_ties == 0)
        return;
    fprintf(out,
            "\nRouting: %zu decisions in the dump, %zu faults, %zu excused as near-ties; %zu "
            "inferred; %zu near-ties at this precision\n",
            routing->decisions, routing->faults, routing->excused, routing->inferred,
            routing->near_ties);
}

static const char *id_of(size_t model)
{
    return gemma4_counter_model_at(model)->id;
}

/* How sure a named mistake is. */
static void print_evidence(FILE *out, const gemma4_cause *cause)
{
    if (cause->below_bound)
        fprintf(out,
                "  evidence       no tap fails by itself; the error holds %.2f +- %.2g of this "
                "mistake\n",
                cause->coefficient, cause->residual);
    else
        fprintf(out,
                "  evidence       explains %zu failing tap%s; coefficient %.4f, what is left is "
                "%.2g of honest rounding\n",
                cause->taps, cause->taps == 1 ? "" : "s", cause->coefficient, cause->residual);
    if (cause->second != GEMMA4_NO_MODEL)
        fprintf(out, "  together with  %s\n", id_of(cause->second));
    for (size_t i = 0; i < cause->equivalent_count; i++)
        fprintf(out, "%s%s", i ? ", " : "  fits as well   ", id_of(cause->equivalent[i]));
    for (size_t i = 0; i < cause->equivalent_point_count; i++)
        fprintf(out, "  fits as well   %s\n", cause->equivalent_said[i]);
    if (!cause->point)
        fprintf(out, "%s  more           gemma4-check explain %s\n",
                cause->equivalent_count ? "\n" : "", id_of(cause->model));
}

/* What first, why, and how sure. */
static void print_cause(FILE *out, const gemma4_cause *cause)
{
    const gemma4_fit *near = gemma4_runner_up(cause);
    fprintf(out, "\n%s: %s\n", gemma4_cause_heading(cause), gemma4_cause_lines(cause).text);
    if (cause->explained)
        print_evidence(out, cause);
    if (near)
        fprintf(out, "  runner-up      %s: coefficient %.3g, leaves %.3g times honest rounding\n",
                id_of(near->model), near->coefficient, near->residual);
}

/* A word and a line of text that may come from the dump. */
static void print_remark(FILE *out, const char *word, const char *text)
{
    fprintf(out, "%-11s", word);
    gemma4_terminal_text(out, text);
    fputc('\n', out);
}

/* Which build judged which engine by what. */
static void print_head(FILE *out, const gemma4_report *report)
{
    fprintf(out, "checker    gemma4-check %s\nengine     ", gemma4_version());
    gemma4_terminal_text(out, report->engine ? report->engine : "(unnamed)");
    fputc(' ', out);
    gemma4_terminal_text(out, report->engine_version ? report->engine_version : "");
    fprintf(out, ", %s, %zu positions%s%s\n", report->dtype, report->positions,
            report->case_id ? ", case " : "", report->case_id ? report->case_id : "");
    fprintf(out, "expected   from the %s%s%s\n", report->expected_from,
            report->expected_detail[0] ? ": " : "", report->expected_detail);
    if (report->golden_sha256)
        fprintf(out, "golden     SHA-256 %s\n", report->golden_sha256);
    fprintf(out, "coverage   %s: %zu of %zu required taps\n", gemma4_level_name(report->level),
            report->taps_covered, report->taps_of);
    for (size_t i = 0; i < report->note_count; i++)
        print_remark(out, "note", report->notes[i]);
}

/* At the end, where a person looks. */
static void print_conclusion(FILE *out, const gemma4_report *report)
{
    fputc('\n', out);
    for (size_t i = 0; i < report->warning_count; i++)
        print_remark(out, "warning", report->warnings[i]);
    if (gemma4_falls_short(report))
        fprintf(out, "%s\n", gemma4_shortfall(report).text);
    fprintf(out, "%s%s\n", report->warning_count || gemma4_falls_short(report) ? "\n" : "",
            gemma4_conclusion(report).text);
}

void gemma4_report_text(FILE *out, const gemma4_report *report)
{
    print_head(out, report);
    gemma4_report_map_text(out, report);
    fprintf(out, "\n  %-20s  %-10s  %5s  %9s  %9s  %9s\n", "tap", "layers", "worst", "error",
            "error", "added /");
    fprintf(out, "  %-20s  %-10s  %5s  %9s  %9s  %9s\n", "", "covered", "layer", "added",
            "inherited", "tolerance");
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        print_tap_line(out, report, (gemma4_tap)tap);
    print_routing(out, &report->routing);
    if (report->first_divergence)
        print_first_divergence(out, report);
    for (size_t i = 0; i < gemma4_cause_count(report->diagnosis); i++)
        print_cause(out, gemma4_cause_at(report->diagnosis, i));
    print_conclusion(out, report);
}
