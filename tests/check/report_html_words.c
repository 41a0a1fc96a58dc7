/* Numbers and names as the page prints them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "counter_model.h"
#include "point.h"
#include "report_html_internal.h"
#include "text.h"

html_digits html_nonfinite(double value)
{
    html_digits d;
    snprintf(d.text, sizeof d.text, "%s", isnan(value) ? "NaN" : value > 0 ? "∞" : "-∞");
    return d;
}

html_digits html_short_number(double value)
{
    html_digits d;
    if (!isfinite(value))
        return html_nonfinite(value);
    snprintf(d.text, sizeof d.text, "%.3g", value);
    char *exponent = strchr(d.text, 'e');
    if (exponent)
        snprintf(exponent, 8, "e%ld", strtol(exponent + 1, NULL, 10));
    return d;
}

html_digits html_full_number(double value)
{
    html_digits d;
    if (!isfinite(value))
        return html_nonfinite(value);
    snprintf(d.text, sizeof d.text, "%.8g", value);
    return d;
}

html_digits html_known_number(double value)
{
    return isnan(value) ? (html_digits){"–"} : html_short_number(value);
}

void html_foreign_text(FILE *out, const char *text)
{
    fputs("<bdi>", out);
    gemma4_xml_text(out, text);
    fputs("</bdi>", out);
}

void html_tap_code(FILE *out, gemma4_tap tap, size_t layer)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    fprintf(out, "<code>%s</code>", gemma4_tap_name(tap, layer, name));
}

void html_model_name(FILE *out, const gemma4_counter_model *m)
{
    fputs("<code>", out);
    gemma4_xml_text(out, m->id);
    fputs("</code>", out);
    if (m->variant[0]) {
        fputs(" <span class=\"chip\">", out);
        gemma4_xml_text(out, m->variant);
        fputs("</span>", out);
    }
}

const char *html_plural(size_t n)
{
    return n == 1 ? "" : "s";
}

const gemma4_tap_result *html_result_of(const gemma4_report *report, gemma4_tap tap, size_t layer)
{
    for (size_t i = 0; i < report->tap_count; i++)
        if (report->taps[i].tap == tap && report->taps[i].layer == layer)
            return &report->taps[i];
    return NULL;
}

const char *html_metric_words(gemma4_metric_kind kind)
{
    switch (kind) {
    case GEMMA4_METRIC_RMS_IN_SPREADS: return "all positions";
    case GEMMA4_METRIC_WORST_POSITION_IN_SPREADS: return "worst position";
    case GEMMA4_METRIC_BIAS_IN_SPREADS: return "all positions alike";
    case GEMMA4_METRIC_MATCHED_FILTER: return "matched filter";
    case GEMMA4_METRIC_EXPERT_SETS: return "expert sets";
    case GEMMA4_METRIC_LISTED_TOKENS: return "listed tokens";
    default: return gemma4_metric_name(kind);
    }
}

const char *html_verdict_glyph(gemma4_verdict verdict)
{
    return verdict == GEMMA4_DIVERGES   ? "✕"
           : verdict == GEMMA4_MARGINAL ? "!"
           : verdict == GEMMA4_EXCUSED  ? "~"
                                        : "";
}
