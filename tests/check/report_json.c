/* The report as JSON. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "causes.h"
#include "compare.h"
#include "config.h"
#include "counter_model.h"
#include "diagnose.h"
#include "fit.h"
#include "model.h"
#include "point.h"
#include "report.h"
#include "schedule.h"
#include "text.h"
#include "version.h"

static void json_measure(FILE *out, const gemma4_measure *m)
{
    fprintf(out, "\"metric\": \"%s\", \"error\": ", gemma4_metric_name(m->kind));
    gemma4_json_number(out, m->error);
    if (!isnan(m->tolerance)) { /* else none applies */
        fputs(", \"tolerance\": ", out);
        gemma4_json_number(out, m->tolerance);
    }
    fprintf(out, ", \"position\": %zu", m->position);
}

static void json_list(FILE *out, const char *key, const char *texts, size_t count, size_t size)
{
    fprintf(out, "  \"%s\": [", key);
    for (size_t i = 0; i < count; i++) {
        fputs(i ? ", " : "", out);
        gemma4_json_string(out, texts + i * size);
    }
    fputs("],\n", out);
}

/* The tap with all earlier errors in it. It decides nothing, so it has no verdict. */
static void json_accumulated(FILE *out, const char *name, const gemma4_tap_result *r)
{
    fprintf(out, "    {\"tap\": \"%s\", \"mode\": \"accumulated\", ", name);
    json_measure(out, &r->accumulated);
    fputs(", \"relative_rms\": ", out);
    gemma4_json_number(out, r->metrics.relative_rms);
    fputs(", \"position_rms\": ", out);
    gemma4_json_number(out, r->metrics.position_rms);
    fputs(", \"cosine\": ", out);
    gemma4_json_number(out, r->metrics.cosine);
    fputs(", \"norm_ratio\": ", out);
    gemma4_json_number(out, r->metrics.norm_ratio);
    fprintf(out, ", \"worst\": [%zu, %zu, ", r->worst_position, r->worst_index);
    gemma4_json_number(out, r->worst_engine);
    fputs(", ", out);
    gemma4_json_number(out, r->worst_expected);
    fputs("]}", out);
}

/* One or two rows: the local verdict, and the accumulated comparison. */
static void json_tap(FILE *out, const gemma4_tap_result *r)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    gemma4_tap_name(r->tap, r->layer, name);
    fprintf(out, "    {\"tap\": \"%s\", \"verdict\": \"%s\"", name,
            gemma4_verdict_name(r->verdict));
    if (r->verdict != GEMMA4_NOT_COVERED) {
        fputs(", \"mode\": \"local\", ", out);
        json_measure(out, &r->local);
        fprintf(out, ", \"rows\": %zu, \"rows_left_out\": %zu", r->rows, r->rows_left_out);
    }
    if (r->verdict != GEMMA4_NOT_COVERED && r->problem[0]) {
        fputs(", ", out);
        gemma4_json_field(out, "problem", r->problem);
    }
    if (gemma4_has_numbers(r)) {
        fputs(", \"inherited\": ", out);
        gemma4_json_number(out, r->inherited);
        fputs(", \"added\": ", out);
        gemma4_json_number(out, r->added);
        fputs("},\n", out);
        json_accumulated(out, name, r);
    } else {
        fputs("}", out);
    }
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

static void json_layers(FILE *out, const gemma4_config *c, const char *layers)
{
    bool first = true;
    fputs("\"layers\": [", out);
    for (size_t l = 0; l < c->num_hidden_layers; l++)
        if (gemma4_layer_is_listed(layers, l)) {
            fprintf(out, "%s%zu", first ? "" : ", ", l);
            first = false;
        }
    fputs("]", out);
}

/* A value: a number, a list of numbers, or words. */
static void json_value(FILE *out, const char *name, const gemma4_setting *s, const char *text)
{
    gemma4_domain domain = gemma4_parameter_describe(s->parameter)->domain;
    char *end;
    strtod(text, &end);
    if (domain == GEMMA4_DOMAIN_LIST && s->count && !strcmp(name, "value")) {
        fprintf(out, "\"%s\": [", name);
        for (size_t i = 0; i < s->count; i++) {
            fputs(i ? ", " : "", out);
            gemma4_json_number(out, s->list[i]);
        }
        fputs("]", out);
        return;
    }
    bool bare = (domain == GEMMA4_DOMAIN_LIST && text[0] && !strstr(text, "...")) ||
                (domain != GEMMA4_DOMAIN_WORD && text[0] && *end == '\0');
    if (bare)
        fprintf(out, "\"%s\": %s", name, text);
    else
        gemma4_json_field(out, name, text[0] ? text : NULL);
}

/* The steps that share a setting. */
static void json_steps(FILE *out, uint64_t steps)
{
    bool first = true;
    fputs(", \"taps\": [", out);
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        if (steps & GEMMA4_STEP(tap)) {
            fprintf(out, "%s\"%s\"", first ? "" : ", ", gemma4_tap_describe((gemma4_tap)tap)->name);
            first = false;
        }
    fputs("]", out);
}

/* The settings of a point, with where they hold: the contract's `parameters`. */
static void json_parameters(FILE *out, const gemma4_config *c, const gemma4_cause *cause,
                            const gemma4_point *p)
{
    fputs("[", out);
    for (size_t i = 0; i < p->count; i++) {
        const gemma4_setting *s = &p->settings[i];
        char value[400], expected[400];
        gemma4_setting_value(s, c, cause->first_layer, value, sizeof value);
        gemma4_setting_expected(s, c, cause->first_layer, expected, sizeof expected);
        fprintf(out, "%s{\"name\": \"%s\", ", i ? ", " : "",
                gemma4_parameter_describe(s->parameter)->name);
        json_value(out, "value", s, value);
        fputs(", ", out);
        json_value(out, "expected", s, expected);
        if (gemma4_parameter_describe(s->parameter)->domain == GEMMA4_DOMAIN_REAL &&
            isfinite(s->number)) {
            fputs(", \"interval\": [", out);
            gemma4_json_number(out, p->low[i]);
            fputs(", ", out);
            gemma4_json_number(out, p->high[i]);
            fputs("]", out);
        }
        if (p->expression[i][0]) {
            fputs(", ", out);
            gemma4_json_field(out, "expression", p->expression[i]);
        }
        json_steps(out, p == cause->point ? cause->places[i] | s->steps : s->steps);
        fprintf(out, ", \"where\": {\"tap\": \"%s\"",
                gemma4_tap_describe(gemma4_setting_step(s))->name);
        if (!strncmp(gemma4_parameter_describe(s->parameter)->name, "weight", 6))
            fprintf(out, ", \"tensor\": \"%s\"", gemma4_setting_tensor(s));
        fputs(", ", out);
        json_layers(out, c, cause->layers);
        fprintf(out, ", \"positions\": \"%s\"}}",
                cause->scope == GEMMA4_EVERYWHERE ? "all" : gemma4_scope_text(cause->scope));
    }
    fputs("]", out);
}

static void json_point(FILE *out, const gemma4_config *c, const gemma4_cause *cause)
{
    if (cause->point) {
        fputs(", \"parameters\": ", out);
        json_parameters(out, c, cause, cause->point);
    }
    if (!cause->point && cause->equivalent_point_count == 0)
        return;
    fputs(", \"equivalent_parameters\": [", out);
    for (size_t i = 0; i < cause->equivalent_point_count; i++) {
        fputs(i ? ", " : "", out);
        json_parameters(out, c, cause, cause->equivalent_points[i]);
    }
    fputs("]", out);
}

static void json_cause(FILE *out, const gemma4_config *c, const gemma4_cause *cause)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    const gemma4_counter_model *m = gemma4_cause_model(cause);
    const gemma4_fit *near = gemma4_runner_up(cause);
    fputs("{", out);
    gemma4_json_field(out, "id", m ? m->id : NULL);
    fputs(", ", out);
    gemma4_json_field(out, "variant", m && m->variant[0] ? m->variant : NULL);
    fprintf(
        out,
        ", \"tap\": \"%s\", \"layers\": \"%s\", \"explained\": %s, \"of_dump\": %s, \"taps\": %zu, "
        "\"below_bound\": %s, \"coefficient\": ",
        gemma4_tap_name(cause->tap, cause->first_layer, name), cause->layers, m ? "true" : "false",
        cause->of_dump ? "true" : "false", cause->taps, cause->below_bound ? "true" : "false");
    gemma4_json_number(out, m ? cause->coefficient : NAN);
    fputs(", \"residual\": ", out);
    gemma4_json_number(out, m ? cause->residual : NAN);
    fputs(", \"equivalent\": [", out);
    for (size_t i = 0; i < cause->equivalent_count; i++)
        fprintf(out, "%s\"%s\"", i ? ", " : "", gemma4_counter_model_at(cause->equivalent[i])->id);
    fputs("], ", out);
    gemma4_json_field(out, "scope",
                      cause->scope == GEMMA4_EVERYWHERE ? NULL : gemma4_scope_text(cause->scope));
    fputs(", ", out);
    gemma4_json_field(out, "description", m ? NULL : cause->description);
    fputs(", ", out);
    gemma4_json_field(out, "sentence", gemma4_cause_sentence(cause).text);
    json_point(out, c, cause);
    if (!m && cause->nearest[0]) {
        fputs(", \"nearest\": {", out);
        gemma4_json_field(out, "sentence", cause->nearest);
        fputs(", \"share\": ", out);
        gemma4_json_number(out, cause->nearest_share);
        fputs("}", out);
    }
    if (near) {
        fprintf(out, ", \"runner_up\": {\"id\": \"%s\", \"coefficient\": ",
                gemma4_counter_model_at(near->model)->id);
        gemma4_json_number(out, near->coefficient);
        fputs(", \"residual\": ", out);
        gemma4_json_number(out, near->residual);
        fputs("}", out);
    }
    fputs("}", out);
}

/* What says which kind of file this is, and which build wrote it. */
static void json_begin(FILE *out)
{
    fputs("{\n  \"format\": \"gemma4-report\", \"format_version\": 1, ", out);
    gemma4_json_field(out, "version", gemma4_version());
    fputs(",\n  ", out);
}

static void json_head(FILE *out, const gemma4_report *report)
{
    fprintf(out, "\"verdict\": \"%s\", \"level\": \"%s\", ",
            report->incomplete ? "INCOMPLETE"
            : report->conforms ? "PASS"
                               : "FAIL",
            gemma4_level_name(report->level));
    gemma4_json_field(out, "dtype", report->dtype);
    fputs(",\n  ", out);
    gemma4_json_field(out, "conclusion", gemma4_conclusion(report).text);
    fputs(",\n  ", out);
    gemma4_json_field(out, "case", report->case_id);
    fputs(", ", out);
    gemma4_json_field(out, "golden_sha256", report->golden_sha256);
    fputs(",\n  ", out);
    gemma4_json_field(out, "engine", report->engine);
    fputs(", ", out);
    gemma4_json_field(out, "engine_version", report->engine_version);
    fprintf(out, ", \"expected_from\": \"%s\",\n  ", report->expected_from);
    gemma4_json_field(out, "required",
                      report->required == GEMMA4_PARTIAL ? NULL
                                                         : gemma4_level_name(report->required));
    fputs(", ", out);
}

static void json_coverage(FILE *out, const gemma4_report *report)
{
    const char *separator = "";
    fprintf(out, "\"coverage\": {\"taps\": %zu, \"of\": %zu, \"layers\": [", report->taps_covered,
            report->taps_of);
    for (size_t l = 0; l < report->layers; l++)
        if (report->layer_covered[l]) {
            fprintf(out, "%s%zu", separator, l);
            separator = ", ";
        }
    fputs("]},\n", out);
}

void gemma4_report_json(FILE *out, const gemma4_report *report)
{
    json_begin(out);
    json_head(out, report);
    json_coverage(out, report);
    fputs("  \"first_divergence\": ", out);
    json_first_divergence(out, report->first_divergence);
    fputs(",\n  \"causes\": [", out);
    for (size_t i = 0; i < gemma4_cause_count(report->diagnosis); i++) {
        fputs(i ? ",\n    " : "\n    ", out);
        json_cause(out, gemma4_diagnosis_config(report->diagnosis),
                   gemma4_cause_at(report->diagnosis, i));
    }
    fprintf(out,
            "],\n  \"routing\": {\"decisions\": %zu, \"swaps\": %zu, \"excused\": %zu, "
            "\"inferred\": %zu, \"faults\": %zu, \"near_ties\": "
            "%zu},\n",
            report->routing.decisions, report->routing.swaps, report->routing.excused,
            report->routing.inferred, report->routing.faults, report->routing.near_ties);
    json_list(out, "notes", report->notes[0], report->note_count, GEMMA4_NOTE_SIZE);
    json_list(out, "warnings", report->warnings[0], report->warning_count, GEMMA4_WARNING_SIZE);
    gemma4_report_map_json(out, report);
    fputs("  \"taps\": [\n", out);
    for (size_t i = 0; i < report->tap_count; i++) {
        json_tap(out, &report->taps[i]);
        fputs(i + 1 < report->tap_count ? ",\n" : "\n", out);
    }
    fputs("  ]\n}\n", out);
}

void gemma4_report_json_unusable(FILE *out, const char *message)
{
    json_begin(out);
    fputs("\"verdict\": \"UNUSABLE\", ", out);
    gemma4_json_field(out, "message", message);
    fputs("\n}\n", out);
}
