/* The heat maps: kinds of tensors from top to bottom, layers from left to right. */
#include <math.h>
#include <string.h>

#include "point.h"
#include "report_html_internal.h"
#include "text.h"
#include "thresholds.h"

enum { SHADES = 9, FIRST_FAILING_SHADE = 5 };
/* Upper ends of the shades of an error as a part of its tolerance. */
static const double shade_ends[SHADES] = {0.1, 0.25, 0.5, MARGINAL_PART, 1, 10, 1e3, 1e6, INFINITY};
static const char *const shade_legend[SHADES] = {
    "≤ 0.1", "0.25", "0.5", "0.75", "1: marginal", "FAIL: up to 10", "1e3", "1e6", "more"};
/* Decades of an accumulated relative RMS, from the palest to the deepest colour. */
enum { LOWEST_DECADE = -8, HIGHEST_DECADE = 0 };

static int local_shade(const gemma4_tap_result *r)
{
    double part = gemma4_part_of_tolerance(r);
    int shade = 0;
    while (shade + 1 < SHADES && !(part <= shade_ends[shade]))
        shade++;
    bool failed = r->verdict == GEMMA4_DIVERGES;
    if (failed != (shade >= FIRST_FAILING_SHADE)) /* NaN, where the error says nothing */
        shade = failed ? SHADES - 1 : FIRST_FAILING_SHADE - 1;
    return shade;
}

/* 0 to 1 on the scale of decades; NAN has the deepest colour. */
static double depth(double relative_rms)
{
    double part = (log10(relative_rms) - LOWEST_DECADE) / (HIGHEST_DECADE - LOWEST_DECADE);
    return relative_rms == 0 || part < 0 ? 0 : part <= 1 ? part : 1;
}

/* What hovering over a cell shows. The accumulated comparison decides nothing: no verdict there. */
static void cell_title(FILE *out, const gemma4_tap_result *r, bool accumulated)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    fprintf(out, " title=\"%s: ", gemma4_tap_name(r->tap, r->layer, name));
    if (r->verdict == GEMMA4_NOT_COVERED)
        fputs("not in the dump", out);
    else if (accumulated && gemma4_has_numbers(r))
        fprintf(out, "with all earlier errors in it, relative RMS %s, cosine %s, norm ratio %s",
                html_short_number(r->metrics.relative_rms).text,
                html_full_number(r->metrics.cosine).text,
                html_full_number(r->metrics.norm_ratio).text);
    else if (accumulated)
        fputs("no number", out);
    else if (!gemma4_has_numbers(r))
        fprintf(out, "%s%s", gemma4_verdict_name(r->verdict), r->problem[0] ? ", " : "");
    else
        fprintf(out,
                "%s, %s at tolerance %s (%s, position %zu); relative RMS: added %s, inherited %s%s",
                gemma4_verdict_name(r->verdict), html_short_number(r->local.error).text,
                html_short_number(r->local.tolerance).text, html_metric_words(r->local.kind),
                r->local.position, html_known_number(r->added).text,
                html_known_number(r->inherited).text, r->problem[0] ? "; " : "");
    if (r->verdict != GEMMA4_NOT_COVERED && !accumulated)
        gemma4_xml_text(out, r->problem);
    fputc('"', out);
}

/* span: how many columns the cell takes. */
static void write_cell(FILE *out, const gemma4_report *report, const gemma4_tap_result *r,
                       bool accumulated, size_t span)
{
    bool empty = !r || r->verdict == GEMMA4_NOT_COVERED || (accumulated && !gemma4_has_numbers(r));
    if (empty)
        fputs("<td class=\"none\"", out);
    else if (accumulated)
        fprintf(out, "<td class=\"a\" style=\"--v:%.3f\"", depth(r->metrics.relative_rms));
    else
        fprintf(out, "<td class=\"s%d%s\"", local_shade(r),
                r == report->first_divergence ? " first" : "");
    if (span > 1)
        fprintf(out, " colspan=\"%zu\"", span);
    if (r)
        cell_title(out, r, accumulated);
    fputs(">", out);
    if (!empty && accumulated && !isfinite(r->metrics.relative_rms))
        fputs(html_nonfinite(r->metrics.relative_rms).text, out);
    else if (!empty && !accumulated && r->verdict == GEMMA4_DIVERGES)
        fprintf(out, "<a href=\"#t%zu\">✕</a>", (size_t)(r - report->taps));
    else if (!empty && !accumulated)
        fputs(html_verdict_glyph(r->verdict), out);
    fputs("</td>", out);
}

/* A group begins where the part of the name before the dot changes; the taps outside the layers are
 * one. */
static bool begins_group(gemma4_tap before, gemma4_tap tap)
{
    const gemma4_tap_info *a = gemma4_tap_describe(before), *b = gemma4_tap_describe(tap);
    size_t n = strcspn(b->name, ".");
    if (!a->per_layer && !b->per_layer)
        return false;
    return strcspn(a->name, ".") != n || strncmp(a->name, b->name, n);
}

/* Columns of the maps: none where the dump holds nothing of any layer. */
static size_t map_layers(const gemma4_report *report)
{
    for (size_t layer = 0; layer < report->layers; layer++)
        if (report->layer_covered[layer])
            return report->layers;
    return 0;
}

static void write_rows(FILE *out, const gemma4_report *report, bool accumulated)
{
    gemma4_tap before = GEMMA4_TAP_COUNT;
    for (int i = 0; i < GEMMA4_TAP_COUNT; i++) {
        gemma4_tap tap = (gemma4_tap)i;
        const gemma4_tap_info *info = gemma4_tap_describe(tap);
        if (gemma4_summarize(report, tap).covered == 0)
            continue;
        bool gap = before != GEMMA4_TAP_COUNT && begins_group(before, tap);
        fprintf(out, "<tr%s><th scope=\"row\">%s</th>", gap ? " class=\"gap\"" : "", info->name);
        if (info->per_layer)
            for (size_t layer = 0; layer < report->layers; layer++)
                write_cell(out, report, html_result_of(report, tap, layer), accumulated, 1);
        else
            write_cell(out, report, html_result_of(report, tap, 0), accumulated,
                       map_layers(report));
        fputs("</tr>\n", out);
        before = tap;
    }
}

static void write_legend(FILE *out, bool accumulated)
{
    fputs("<p class=\"legend\">", out);
    for (int i = 0; !accumulated && i < SHADES; i++)
        fprintf(out, "<span><i class=\"s%d\">%s</i>%s</span>", i,
                i >= FIRST_FAILING_SHADE       ? "✕"
                : i == FIRST_FAILING_SHADE - 1 ? "!"
                                               : "",
                shade_legend[i]);
    for (int decade = LOWEST_DECADE; accumulated && decade <= HIGHEST_DECADE; decade++)
        fprintf(out, "<span><i class=\"a\" style=\"--v:%.3f\"></i>%s</span>",
                depth(pow(10, decade)), html_short_number(pow(10, decade)).text);
    fprintf(out, "<span><i class=\"none\"></i>%s</span></p>\n",
            accumulated ? "not in the dump, or no number" : "not in the dump");
}

static void write_map(FILE *out, const gemma4_report *report, bool accumulated)
{
    /* Wide enough for two html_digits a layer; two maps stand side by side where there is room. */
    double layers = fmax((double)map_layers(report), 12), wide = 9 + 1.75 * layers,
           narrow = 7.3 + 1.1 * layers, widest = 9 + 2.6 * layers;
    fprintf(out,
            "<div class=\"map\" style=\"flex-basis:%.1frem;max-width:%.1frem\">\n<h3>%s</h3>\n",
            wide, widest,
            accumulated ? "With all earlier errors in it" : "Each step on the engine’s own inputs");
    fputs(accumulated ? "<p class=\"small muted\">Relative RMS from the expected values. It "
                        "decides nothing: errors spread.</p>\n"
                      : "<p class=\"small muted\">The step’s own error / its tolerance. This "
                        "decides; a cross leads to its numbers.</p>\n",
          out);
    fprintf(out,
            "<div class=\"scroll\"><table class=\"heat\" "
            "style=\"min-width:%.1frem\">\n<thead><tr><th>%s</th>",
            narrow, map_layers(report) ? "layer" : "");
    for (size_t layer = 0; layer < map_layers(report); layer++)
        fprintf(out, "<th scope=\"col\">%zu</th>", layer);
    fputs(map_layers(report) ? "</tr></thead>\n<tbody>\n" : "<th></th></tr></thead>\n<tbody>\n",
          out);
    write_rows(out, report, accumulated);
    fputs("</tbody>\n</table></div>\n", out);
    write_legend(out, accumulated);
    fputs("</div>\n", out);
}

/* The kinds of taps of which the dump holds none: by name, or by number where the list would be
 * long. */
static void write_absent(FILE *out, const gemma4_report *report)
{
    enum { MOST_NAMES = 8 };
    size_t absent = 0, named = 0;
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        absent += gemma4_summarize(report, (gemma4_tap)tap).covered == 0;
    if (absent > MOST_NAMES)
        fprintf(out,
                "<p class=\"small muted\">Of %zu kinds of tensors the dump holds none: “Coverage” "
                "below lists them.</p>\n",
                absent);
    for (int tap = 0; tap < GEMMA4_TAP_COUNT && absent <= MOST_NAMES; tap++) {
        const gemma4_tap_info *info = gemma4_tap_describe((gemma4_tap)tap);
        if (gemma4_summarize(report, (gemma4_tap)tap).covered == 0)
            fprintf(out, "%s%s%s",
                    named++ ? ", " : "<p class=\"small muted\">Not in the dump at all: ",
                    info->name, info->optional ? " (optional)" : "");
    }
    fputs(named ? ".</p>\n" : "", out);
}

void html_maps(FILE *out, const gemma4_report *report)
{
    fputs("<section>\n<h2>Where: layers and tensors</h2>\n<p>From top to bottom in the order of "
          "computation, layers from left to right. "
          "Hover over a cell for its numbers; the tables at the end have them all.</p>\n<div "
          "class=\"maps\">\n",
          out);
    write_map(out, report, false);
    write_map(out, report, true);
    fputs("</div>\n", out);
    write_absent(out, report);
    fputs("</section>\n", out);
}
