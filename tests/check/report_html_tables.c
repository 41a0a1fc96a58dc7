/* All numbers: a table of the kinds of tensors, and one of every tensor. */
#include "point.h"
#include "report_html_internal.h"

static void write_kind(FILE *out, gemma4_tap tap, const gemma4_kind_summary *s)
{
    const gemma4_tap_info *info = gemma4_tap_describe(tap);
    const gemma4_tap_result *worst = s->worst;
    fprintf(out, "<tr%s><td><code>%s</code></td><td>%zu of %zu</td>",
            s->failed ? " class=\"bad\"" : "", info->name, s->covered, s->of);
    if (!worst) {
        fprintf(
            out,
            "<td></td><td></td><td></td><td></td><td class=\"l muted\">not covered%s</td></tr>\n",
            info->optional ? " (optional)" : "");
        return;
    }
    if (info->per_layer)
        fprintf(out, "<td>%zu</td>", worst->layer);
    else
        fputs("<td>–</td>", out);
    if (gemma4_has_numbers(worst))
        fprintf(out, "<td>%s</td><td>%s</td><td>%s</td>", html_short_number(worst->added).text,
                html_known_number(worst->inherited).text,
                html_short_number(gemma4_part_of_tolerance(worst)).text);
    else
        fputs("<td>–</td><td>–</td><td>–</td>", out);
    if (s->failed)
        fprintf(out, "<td class=\"l\">✕ FAIL in %zu of %zu</td></tr>\n", s->failed, s->covered);
    else
        fprintf(out, "<td class=\"l\">%s</td></tr>\n", gemma4_verdict_name(worst->verdict));
}

void html_coverage(FILE *out, const gemma4_report *report)
{
    fprintf(out,
            "<details>\n<summary>Coverage: %zu of %zu required tensors, by kind</summary>\n<div "
            "class=\"scroll\"><table class=\"list\">\n"
            "<thead><tr><th>tensor</th><th>layers covered</th><th>worst layer</th><th>error "
            "added</th><th>inherited</th>"
            "<th>error / tolerance</th><th class=\"l\">verdict</th></tr></thead>\n<tbody>\n",
            report->taps_covered, report->taps_of);
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
        gemma4_kind_summary s = gemma4_summarize(report, (gemma4_tap)tap);
        if (s.of)
            write_kind(out, (gemma4_tap)tap, &s);
    }
    fputs("</tbody>\n</table></div>\n</details>\n", out);
}

static void write_tap(FILE *out, const gemma4_report *report, const gemma4_tap_result *r)
{
    fprintf(out, "<tr id=\"t%zu\"%s><td>", (size_t)(r - report->taps),
            r->verdict == GEMMA4_DIVERGES ? " class=\"bad\"" : "");
    html_tap_code(out, r->tap, r->layer);
    fprintf(out, "</td><td class=\"l\">%s %s</td>", html_verdict_glyph(r->verdict),
            gemma4_verdict_name(r->verdict));
    fprintf(out, "<td>%s</td><td>%s</td><td class=\"l\">%s</td><td>%zu</td>",
            html_short_number(r->local.error).text, html_short_number(r->local.tolerance).text,
            html_metric_words(r->local.kind), r->local.position);
    if (gemma4_has_numbers(r)) {
        fprintf(out, "<td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td>",
                html_short_number(r->added).text, html_known_number(r->inherited).text,
                html_short_number(r->metrics.relative_rms).text,
                html_full_number(r->metrics.cosine).text,
                html_full_number(r->metrics.norm_ratio).text);
        fprintf(out, "<td>%zu</td><td>%zu</td><td>%s</td><td>%s</td>", r->worst_position,
                r->worst_index, html_full_number(r->worst_engine).text,
                html_full_number(r->worst_expected).text);
    } else {
        fputs("<td>–</td><td>–</td><td>–</td><td>–</td><td>–</td><td>–</td><td>–</td><td>–</"
              "td><td>–</td>",
              out);
    }
    fputs("<td class=\"l wide\">", out);
    if (r->problem[0])
        html_foreign_text(out, r->problem);
    fputs("</td></tr>\n", out);
}

void html_all_taps(FILE *out, const gemma4_report *report)
{
    size_t compared = 0;
    for (size_t i = 0; i < report->tap_count; i++)
        compared += report->taps[i].verdict != GEMMA4_NOT_COVERED;
    fprintf(
        out,
        "<details>\n<summary>Every compared tensor: %zu</summary>\n<p class=\"small muted\">Error "
        "and tolerance are of the step on the "
        "engine’s own inputs, in spreads of honest rounding; added, inherited and accumulated are "
        "relative RMS.</p>\n"
        "<div class=\"scroll\"><table class=\"list\">\n<thead><tr><th>tensor</th><th "
        "class=\"l\">verdict</th><th>error</th>"
        "<th>tolerance</th><th "
        "class=\"l\">over</th><th>position</th><th>added</th><th>inherited</th><th>accumulated</th>"
        "<th>cosine</th><th>norm ratio</th><th>worst "
        "position</th><th>index</th><th>yours</th><th>expected</th><th class=\"l\">problem</th>"
        "</tr></thead>\n<tbody>\n",
        compared);
    for (size_t i = 0; i < report->tap_count; i++)
        if (report->taps[i].verdict != GEMMA4_NOT_COVERED)
            write_tap(out, report, &report->taps[i]);
    fputs("</tbody>\n</table></div>\n</details>\n", out);
}
