/* What a map did, in the report for a terminal and in JSON. */
#include <string.h>

#include "maps.h"
#include "report.h"
#include "text.h"

/* A rule that acted, on a line. */
static void print_use(FILE *out, const gemma4_rule_use *use)
{
    char layers[24] = "";
    if (use->rule->target == GEMMA4_MAP_TAP && gemma4_tap_describe(use->rule->tap)->per_layer)
        snprintf(layers, sizeof layers, "%zu layer%s", use->taps, use->taps == 1 ? "" : "s");
    fprintf(out, "  %-28s  %9s  ", use->rule->name, layers);
    gemma4_terminal_text(out, gemma4_rule_text(use->rule).text);
    fputc('\n', out);
}

void gemma4_report_map_text(FILE *out, const gemma4_report *report)
{
    const gemma4_import_log *log = report->import;
    size_t acted = 0;
    if (!log)
        return;
    for (size_t i = 0; i < log->map->rule_count; i++)
        acted += log->uses[i].taps > 0;
    fprintf(out, "map        ");
    gemma4_terminal_text(out, log->map->path);
    fprintf(out, ": %zu of %zu rules applied to %zu tensors in %zu pass%s\n\n", acted,
            log->map->rule_count, log->names, log->passes, log->passes == 1 ? "" : "es");
    for (size_t i = 0; i < log->map->rule_count; i++)
        if (log->uses[i].taps)
            print_use(out, &log->uses[i]);
}

static void json_rule(FILE *out, const gemma4_rule_use *use)
{
    fputs("{\"tap\": ", out);
    gemma4_json_string(out, use->rule->name);
    fputs(", \"from\": ", out);
    gemma4_json_string(out, use->rule->from);
    fputs(", \"does\": ", out);
    gemma4_json_string(out, gemma4_rule_text(use->rule).text);
    fprintf(out, ", \"taps\": %zu, \"first\": ", use->taps);
    if (use->first)
        gemma4_json_string(out, use->first);
    else
        fputs("null", out);
    fputs("}", out);
}

void gemma4_report_map_json(FILE *out, const gemma4_report *report)
{
    const gemma4_import_log *log = report->import;
    if (!log) {
        fputs("  \"map\": null,\n", out);
        return;
    }
    fputs("  \"map\": {\"file\": ", out);
    gemma4_json_string(out, log->map->path);
    fputs(", \"engine\": ", out);
    gemma4_json_string(out, log->map->engine);
    fprintf(out, ", \"passes\": %zu, \"tensors\": %zu, \"tokens_from\": \"%s\",\n    \"rules\": [",
            log->passes, log->names, log->tokens_given ? "case" : "dump");
    for (size_t i = 0; i < log->map->rule_count; i++) {
        fputs(i ? ",\n      " : "\n      ", out);
        json_rule(out, &log->uses[i]);
    }
    fputs("],\n    \"idle\": [", out);
    const char *separator = "";
    for (size_t i = 0; i < log->map->rule_count; i++)
        if (gemma4_rule_is_idle(log, i)) {
            fputs(separator, out);
            gemma4_json_string(out, log->uses[i].rule->name);
            separator = ", ";
        }
    fputs("],\n    \"untaken\": [", out);
    for (size_t i = 0; i < log->untaken_count; i++) {
        fputs(i ? ", " : "", out);
        gemma4_json_string(out, log->untaken[i]);
    }
    fputs("]},\n", out);
}
