#include "report.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "text.h"

void gemma4_report_note(gemma4_report *report, const char *format, ...)
{
    const size_t most = sizeof report->notes / sizeof *report->notes;
    if (report->note_count == most)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(report->notes[report->note_count++], sizeof *report->notes, format, arguments);
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

/* --------------------------------------------------------------- terminal */

/* Text that may come from a dump: a terminal must not obey it. */
static void print_text(FILE *out, const char *text)
{
    for (const unsigned char *s = (const unsigned char *)text; *s; s++)
        fputc(*s < 0x20 || *s == 0x7F || (*s >= 0x80 && *s < 0xA0 && s > (const unsigned char *)text && s[-1] == 0xC2) ? '?' : *s, out);
}

/* How far an error is from its tolerance, for ranking: an error where none is allowed is infinitely far. */
static double severity(const gemma4_tap_result *r)
{
    return r->local.error == 0 ? 0 : r->local.error / r->local.tolerance;
}

/* The layer that comes closest to its tolerance or is furthest beyond it; NULL where none was compared. */
static const gemma4_tap_result *worst_layer(const gemma4_report *report, gemma4_tap tap, size_t *covered, size_t *of, size_t *failed)
{
    const gemma4_tap_result *worst = NULL;
    *covered = *of = *failed = 0;
    for (size_t i = 0; i < report->tap_count; i++) {
        const gemma4_tap_result *r = &report->taps[i];
        if (r->tap != tap)
            continue;
        ++*of;
        *covered += r->verdict != GEMMA4_NOT_COVERED;
        *failed += r->verdict == GEMMA4_DIVERGES;
        if (r->verdict != GEMMA4_NOT_COVERED && (!worst || severity(r) > severity(worst)))
            worst = r;
    }
    return worst;
}

/* One line a kind of tap. */
static void print_tap_line(FILE *out, const gemma4_report *report, gemma4_tap tap)
{
    const gemma4_tap_info *info = gemma4_tap_describe(tap);
    size_t covered, of, failed;
    const gemma4_tap_result *worst = worst_layer(report, tap, &covered, &of, &failed);
    char where[24] = "-";
    if (!worst) {
        if (!info->optional)
            fprintf(out, "  %-20s  %3zu of %-3zu  not covered\n", info->name, covered, of);
        return;
    }
    if (info->per_layer)
        snprintf(where, sizeof where, "%zu", worst->layer);
    fprintf(out, "  %-20s  %3zu of %-3zu  %5s  ", info->name, covered, of, where);
    if (info->ids || worst->local.kind == GEMMA4_METRIC_SHAPE)
        fprintf(out, "%9s  %9s  %9s  ", "-", "-", worst->local.error == 0 ? "right" : "-");
    else if (isnan(worst->inherited))
        fprintf(out, "%9.1e  %9s  %9.2g  ", worst->added, "-", severity(worst));
    else
        fprintf(out, "%9.1e  %9.1e  %9.2g  ", worst->added, worst->inherited, severity(worst));
    if (failed)
        fprintf(out, "FAIL in %zu of %zu\n", failed, covered);
    else
        fprintf(out, "%s\n", worst->verdict == GEMMA4_MARGINAL ? "marginal" : worst->verdict == GEMMA4_EXCUSED ? "excused" : "pass");
}

static void print_first_divergence(FILE *out, const gemma4_report *report)
{
    const gemma4_tap_result *r = report->first_divergence;
    char name[GEMMA4_TAP_NAME_SIZE];
    fprintf(out, "\nFirst divergence: %s\n", gemma4_tap_name(r->tap, r->layer, name));
    if (r->problem[0])
        fprintf(out, "  %s\n", r->problem);
    if (gemma4_tap_describe(r->tap)->ids || r->local.kind == GEMMA4_METRIC_SHAPE)
        return;
    fprintf(out, "  this step      relative RMS %.2e from the engine's own inputs: %.3g times what rounding explains, tolerance %.3g,\n"
                 "                 worst at position %zu\n", r->added, r->local.error, r->local.tolerance, r->local.position);
    fprintf(out, "  all together   norm of yours / norm of the expected = %.6f, cosine = %.9f\n", r->metrics.norm_ratio, r->metrics.cosine);
    fprintf(out, "  worst element  position %zu, index %zu: yours %.7g, expected %.7g\n", r->worst_position, r->worst_index, r->worst_engine,
            r->worst_expected);
}

static void print_routing(FILE *out, const gemma4_routing *routing)
{
    if (routing->decisions + routing->inferred + routing->near_ties == 0)
        return;
    fprintf(out, "\nRouting: %zu decisions in the dump, %zu faults, %zu excused as near-ties; %zu inferred; %zu near-ties at this precision\n",
            routing->decisions, routing->faults, routing->excused, routing->inferred, routing->near_ties);
}

static const gemma4_counter_model *model_of(const gemma4_cause *cause)
{
    return gemma4_counter_model_at(cause->model);
}

/* What first, why, and how sure. */
static void print_cause(FILE *out, const gemma4_cause *cause)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    gemma4_tap_name(cause->tap, cause->first_layer, name);
    if (!cause->explained) {
        fprintf(out, "\nCause unknown: no known mistake explains %s%s%s\n", name, cause->layers[0] ? ", layers " : "", cause->layers);
        fprintf(out, "  measured       %s\n", cause->description);
    } else {
        const gemma4_counter_model *m = model_of(cause);
        fprintf(out, "\nCause: %s%s%s%s, first at %s%s%s\n", m->id, m->variant[0] ? " (" : "", m->variant, m->variant[0] ? ")" : "", name,
                cause->layers[0] ? "; layers " : "", cause->layers);
        if (cause->scope != GEMMA4_EVERYWHERE)
            fprintf(out, "  only           %s\n", gemma4_scope_text(cause->scope));
        fprintf(out, "  wrong          %s\n  right          %s\n", m->wrong, m->right);
        if (cause->below_bound)
            fprintf(out, "  evidence       no tap fails by itself; the error holds %.2f +- %.2g of this mistake\n", cause->coefficient, cause->residual);
        else
            fprintf(out, "  evidence       explains %zu failing tap%s; coefficient %.4f, what is left is %.2g of honest rounding\n", cause->taps,
                    cause->taps == 1 ? "" : "s", cause->coefficient, cause->residual);
        if (cause->second != GEMMA4_NO_MODEL)
            fprintf(out, "  together with  %s\n", gemma4_counter_model_at(cause->second)->id);
        for (size_t i = 0; i < cause->equivalent_count; i++)
            fprintf(out, "%s%s", i ? ", " : "  fits as well   ", gemma4_counter_model_at(cause->equivalent[i])->id);
        fprintf(out, "%s  more           gemma4-check explain %s\n", cause->equivalent_count ? "\n" : "", m->id);
    }
    if (cause->has_near)
        fprintf(out, "  runner-up      %s: coefficient %.3g, leaves %.3g times honest rounding\n", gemma4_counter_model_at(cause->near.model)->id,
                cause->near.coefficient, cause->near.residual);
}

void gemma4_report_text(FILE *out, const gemma4_report *report)
{
    fprintf(out, "engine     ");
    print_text(out, report->engine ? report->engine : "(unnamed)");
    fputc(' ', out);
    print_text(out, report->engine_version ? report->engine_version : "");
    fprintf(out, ", %s, %zu positions%s%s\n", report->dtype, report->positions, report->case_id ? ", case " : "",
            report->case_id ? report->case_id : "");
    fprintf(out, "expected   from the %s%s%s\n", report->expected_from, report->expected_detail[0] ? ": " : "", report->expected_detail);
    fprintf(out, "coverage   %s: %zu of %zu required taps\n", gemma4_level_name(report->level), report->taps_covered, report->taps_of);
    for (size_t i = 0; i < report->note_count; i++) {
        fprintf(out, "note       ");
        print_text(out, report->notes[i]);
        fputc('\n', out);
    }
    fprintf(out, "\n  %-20s  %-10s  %5s  %9s  %9s  %9s\n", "tap", "layers", "worst", "error", "error", "added /");
    fprintf(out, "  %-20s  %-10s  %5s  %9s  %9s  %9s\n", "", "covered", "layer", "added", "inherited", "tolerance");
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        print_tap_line(out, report, (gemma4_tap)tap);
    print_routing(out, &report->routing);
    if (report->first_divergence)
        print_first_divergence(out, report);
    for (size_t i = 0; i < gemma4_cause_count(report->diagnosis); i++)
        print_cause(out, gemma4_cause_at(report->diagnosis, i));
    fprintf(out, "\n%s\n", report->conforms ? "CONFORMS" : "DOES NOT CONFORM");
}

/* ------------------------------------------------------------------- JSON */

void gemma4_json_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        int length = gemma4_utf8_length(s);
        if (length == 0) {
            fputs("\\ufffd", out);
            s++;
        } else if (*s == '"' || *s == '\\') {
            fprintf(out, "\\%c", *s++);
        } else if (*s < 0x20) {
            fprintf(out, "\\u%04x", *s++);
        } else {
            fwrite(s, 1, (size_t)length, out);
            s += length;
        }
    }
    fputc('"', out);
}

/* JSON has no infinity and no NaN: they become null. */
static void json_number(FILE *out, double value)
{
    if (isfinite(value))
        fprintf(out, "%.9g", value);
    else
        fputs("null", out);
}

static void json_field(FILE *out, const char *key, const char *text)
{
    fprintf(out, "\"%s\": ", key);
    if (text)
        gemma4_json_string(out, text);
    else
        fputs("null", out);
}

static void json_measure(FILE *out, const gemma4_measure *m)
{
    fprintf(out, "\"metric\": \"%s\", \"error\": ", gemma4_metric_name(m->kind));
    json_number(out, m->error);
    fputs(", \"tolerance\": ", out);
    json_number(out, m->tolerance);
    fprintf(out, ", \"position\": %zu", m->position);
}

/* One or two rows: the local verdict, and the accumulated comparison. */
static void json_tap(FILE *out, const gemma4_tap_result *r)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    gemma4_tap_name(r->tap, r->layer, name);
    fprintf(out, "    {\"tap\": \"%s\", \"verdict\": \"%s\"", name, gemma4_verdict_name(r->verdict));
    if (r->verdict == GEMMA4_NOT_COVERED) {
        fputs("}", out);
        return;
    }
    fputs(", \"mode\": \"local\", ", out);
    json_measure(out, &r->local);
    if (r->problem[0]) {
        fputs(", ", out);
        json_field(out, "problem", r->problem);
    }
    if (gemma4_tap_describe(r->tap)->ids || r->local.kind == GEMMA4_METRIC_SHAPE) {
        fputs("}", out);
        return;
    }
    fputs(", \"inherited\": ", out);
    json_number(out, r->inherited);
    fputs(", \"added\": ", out);
    json_number(out, r->added);
    fprintf(out, "},\n    {\"tap\": \"%s\", \"verdict\": \"%s\", \"mode\": \"accumulated\", ", name,
            r->accumulated.error <= r->accumulated.tolerance ? "PASS" : "FAIL");
    json_measure(out, &r->accumulated);
    fputs(", \"relative_rms\": ", out);
    json_number(out, r->metrics.relative_rms);
    fputs(", \"position_rms\": ", out);
    json_number(out, r->metrics.position_rms);
    fputs(", \"cosine\": ", out);
    json_number(out, r->metrics.cosine);
    fputs(", \"norm_ratio\": ", out);
    json_number(out, r->metrics.norm_ratio);
    fprintf(out, ", \"worst\": [%zu, %zu, ", r->worst_position, r->worst_index);
    json_number(out, r->worst_engine);
    fputs(", ", out);
    json_number(out, r->worst_expected);
    fputs("]}", out);
}

static void json_first_divergence(FILE *out, const gemma4_tap_result *r)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    if (!r) {
        fputs("null", out);
        return;
    }
    fprintf(out, "{\"tap\": \"%s\", \"layer\": ", gemma4_tap_name(r->tap, r->layer, name));
    if (gemma4_tap_describe(r->tap)->per_layer)
        fprintf(out, "%zu", r->layer);
    else
        fputs("null", out);
    fputs(", ", out);
    json_measure(out, &r->local);
    fputs(", \"mode\": \"local\"}", out);
}

static void json_cause(FILE *out, const gemma4_cause *cause)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    const gemma4_counter_model *m = cause->explained ? model_of(cause) : NULL;
    fputs("{", out);
    json_field(out, "id", m ? m->id : NULL);
    fputs(", ", out);
    json_field(out, "variant", m && m->variant[0] ? m->variant : NULL);
    fprintf(out, ", \"tap\": \"%s\", \"layers\": \"%s\", \"explained\": %s, \"taps\": %zu, \"below_bound\": %s, \"coefficient\": ",
            gemma4_tap_name(cause->tap, cause->first_layer, name), cause->layers, m ? "true" : "false", cause->taps,
            cause->below_bound ? "true" : "false");
    json_number(out, m ? cause->coefficient : NAN);
    fputs(", \"residual\": ", out);
    json_number(out, m ? cause->residual : NAN);
    fputs(", \"equivalent\": [", out);
    for (size_t i = 0; i < cause->equivalent_count; i++)
        fprintf(out, "%s\"%s\"", i ? ", " : "", gemma4_counter_model_at(cause->equivalent[i])->id);
    fputs("], ", out);
    json_field(out, "scope", cause->scope == GEMMA4_EVERYWHERE ? NULL : gemma4_scope_text(cause->scope));
    fputs(", ", out);
    json_field(out, "description", m ? NULL : cause->description);
    if (cause->has_near) {
        fprintf(out, ", \"runner_up\": {\"id\": \"%s\", \"coefficient\": ", gemma4_counter_model_at(cause->near.model)->id);
        json_number(out, cause->near.coefficient);
        fputs(", \"residual\": ", out);
        json_number(out, cause->near.residual);
        fputs("}", out);
    }
    fputs("}", out);
}

void gemma4_report_json(FILE *out, const gemma4_report *report)
{
    const char *separator = "";
    fprintf(out, "{\n  \"verdict\": \"%s\", \"level\": \"%s\", ", report->conforms ? "PASS" : "FAIL", gemma4_level_name(report->level));
    json_field(out, "dtype", report->dtype);
    fputs(",\n  ", out);
    json_field(out, "case", report->case_id);
    fputs(", ", out);
    json_field(out, "engine", report->engine);
    fputs(", ", out);
    json_field(out, "engine_version", report->engine_version);
    fprintf(out, ", \"expected_from\": \"%s\",\n  \"coverage\": {\"taps\": %zu, \"of\": %zu, \"layers\": [", report->expected_from,
            report->taps_covered, report->taps_of);
    for (size_t l = 0; l < report->layers; l++)
        if (report->layer_covered[l]) {
            fprintf(out, "%s%zu", separator, l);
            separator = ", ";
        }
    fputs("]},\n  \"first_divergence\": ", out);
    json_first_divergence(out, report->first_divergence);
    fputs(",\n  \"causes\": [", out);
    for (size_t i = 0; i < gemma4_cause_count(report->diagnosis); i++) {
        fputs(i ? ",\n    " : "\n    ", out);
        json_cause(out, gemma4_cause_at(report->diagnosis, i));
    }
    fprintf(out, "],\n  \"routing\": {\"decisions\": %zu, \"swaps\": %zu, \"excused\": %zu, \"inferred\": %zu, \"faults\": %zu, \"near_ties\": %zu},\n",
            report->routing.decisions, report->routing.swaps, report->routing.excused, report->routing.inferred, report->routing.faults,
            report->routing.near_ties);
    fputs("  \"notes\": [", out);
    for (size_t i = 0; i < report->note_count; i++) {
        fputs(i ? ", " : "", out);
        gemma4_json_string(out, report->notes[i]);
    }
    fputs("],\n  \"taps\": [\n", out);
    for (size_t i = 0; i < report->tap_count; i++) {
        json_tap(out, &report->taps[i]);
        fputs(i + 1 < report->tap_count ? ",\n" : "\n", out);
    }
    fputs("  ]\n}\n", out);
}

void gemma4_report_json_unusable(FILE *out, const char *message)
{
    fputs("{\"verdict\": \"UNUSABLE\", ", out);
    json_field(out, "message", message);
    fputs("}\n", out);
}

/* ------------------------------------------------------------------ JUnit */

static void junit_tap(FILE *out, const gemma4_tap_result *r)
{
    char name[GEMMA4_TAP_NAME_SIZE], text[400];
    gemma4_tap_name(r->tap, r->layer, name);
    fprintf(out, "    <testcase classname=\"gemma4\" name=\"%s\"", name);
    if (r->verdict == GEMMA4_NOT_COVERED) {
        fputs("><skipped message=\"not covered by the dump\"/></testcase>\n", out);
    } else if (r->verdict == GEMMA4_DIVERGES) {
        snprintf(text, sizeof text, "%s %.3g, tolerance %.3g%s%s", gemma4_metric_name(r->local.kind), r->local.error, r->local.tolerance, r->problem[0] ? "; " : "", r->problem);
        fputs("><failure type=\"divergence\" message=\"", out);
        gemma4_xml_text(out, text);
        fputs("\"/></testcase>\n", out);
    } else {
        fputs("/>\n", out);
    }
}

void gemma4_report_junit(FILE *out, const gemma4_report *report)
{
    size_t failures = 0, skipped = 0;
    for (size_t i = 0; i < report->tap_count; i++) {
        failures += report->taps[i].verdict == GEMMA4_DIVERGES;
        skipped += report->taps[i].verdict == GEMMA4_NOT_COVERED;
    }
    fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"", out);
    gemma4_xml_text(out, report->case_id ? report->case_id : "gemma4-check");
    fprintf(out, "\" tests=\"%zu\" failures=\"%zu\" errors=\"0\" skipped=\"%zu\">\n", report->tap_count, failures, skipped);
    for (size_t i = 0; i < report->tap_count; i++)
        junit_tap(out, &report->taps[i]);
    fputs("  </testsuite>\n</testsuites>\n", out);
}

void gemma4_report_junit_unusable(FILE *out, const char *message)
{
    fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"gemma4-check\" tests=\"1\" failures=\"0\" errors=\"1\" skipped=\"0\">\n"
          "    <testcase classname=\"gemma4\" name=\"input\"><error type=\"unusable\" message=\"", out);
    gemma4_xml_text(out, message);
    fputs("\"/></testcase>\n  </testsuite>\n</testsuites>\n", out);
}
