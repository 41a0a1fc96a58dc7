/* What diverges first, and what to do next. */
#include "causes.h"
#include "diagnose.h"
#include "point.h"
#include "report.h"
#include "report_html_internal.h"
#include "text.h"

static void write_first_numbers(FILE *out, const gemma4_tap_result *r)
{
    fputs("<dl>\n<dt>This step</dt><dd>", out);
    if (r->local.kind == GEMMA4_METRIC_MATCHED_FILTER)
        fprintf(out,
                "passes by itself; all layers together hold a known mistake, <b>%s</b> standard "
                "deviations from none (limit %s)",
                html_short_number(r->local.error).text, html_short_number(r->local.tolerance).text);
    else
        fprintf(out,
                "relative RMS %s from the engine’s own inputs: %s<b>%s times what honest rounding "
                "explains</b>, tolerance %s; worst at "
                "position %zu",
                html_short_number(r->added).text,
                r->local.kind == GEMMA4_METRIC_BIAS_IN_SPREADS
                    ? "the mean of all positions is off by "
                    : "",
                html_short_number(r->local.error).text, html_short_number(r->local.tolerance).text,
                r->local.position);
    fprintf(out,
            "</dd>\n<dt>Brought along</dt><dd>relative RMS %s, from errors of earlier steps</dd>\n",
            html_known_number(r->inherited).text);
    fprintf(out,
            "<dt>All together</dt><dd>relative RMS %s; norm of yours / norm of the expected %s; "
            "cosine %s</dd>\n",
            html_short_number(r->metrics.relative_rms).text,
            html_full_number(r->metrics.norm_ratio).text, html_full_number(r->metrics.cosine).text);
    fprintf(out,
            "<dt>Worst element</dt><dd>position %zu, index %zu: yours <b class=\"n\">%s</b>, "
            "expected <b class=\"n\">%s</b></dd>\n</dl>\n",
            r->worst_position, r->worst_index, html_full_number(r->worst_engine).text,
            html_full_number(r->worst_expected).text);
}

void html_first(FILE *out, const gemma4_report *report)
{
    const gemma4_tap_result *r = report->first_divergence;
    if (!r)
        return;
    fputs("<section>\n<h2>What diverges first</h2>\n<div class=\"card\">\n<p class=\"where\">",
          out);
    html_tap_code(out, r->tap, r->layer);
    fputs("</p>\n", out);
    if (r->problem[0]) {
        fputs("<p>", out);
        html_foreign_text(out, r->problem);
        fputs("</p>\n", out);
    }
    if (gemma4_has_numbers(r))
        write_first_numbers(out, r);
    fputs("</div>\n</section>\n", out);
}

static void next_of_cause(FILE *out, const gemma4_report *report, const gemma4_cause *cause)
{
    bool full = report->level == GEMMA4_FULL_LEVEL;
    if (cause->of_dump) {
        fputs("<li>What is wrong is how the tensor was dumped, not how it is computed.</li>\n",
              out);
        return;
    }
    fputs("<li>Look at your code that computes ", out);
    html_tap_code(out, cause->tap, cause->first_layer);
    bool catalogued = cause->explained && !cause->point;
    fputs(catalogued ? ". Right is: " : ". Compare it with that step in spec/model.md", out);
    if (catalogued)
        gemma4_xml_text(out, gemma4_cause_model(cause)->right);
    fputs(".</li>\n", out);
    if (!full && (!cause->explained || cause->equivalent_count))
        fprintf(out,
                "<li>Dump more tensors%s: the step inside it that goes wrong then shows%s.</li>\n",
                gemma4_tap_describe(cause->tap)->per_layer ? " of that layer" : " of the layers",
                cause->equivalent_count ? ", and which of the mistakes that fit it is" : "");
}

static void next_after_failure(FILE *out, const gemma4_report *report)
{
    size_t causes = gemma4_cause_count(report->diagnosis);
    if (!report->first_divergence) {
        fputs("<li>Dump what <code>--require</code> asks for; the coverage below lists what is "
              "missing.</li>\n",
              out);
        return;
    }
    if (gemma4_cause_of(report, report->first_divergence))
        next_of_cause(out, report, gemma4_cause_of(report, report->first_divergence));
    else
        fputs("<li>Compare your code of the step that diverges first with spec/model.md.</li>\n",
              out);
    if (causes > 1)
        fputs("<li>The other causes are independent of the first: every step is judged on the "
              "engine’s own inputs.</li>\n",
              out);
    fputs("<li>Mend it, dump again, check again.</li>\n", out);
}

void html_next(FILE *out, const gemma4_report *report)
{
    fputs("<section>\n<h2>What next</h2>\n<ol>\n", out);
    if (!report->conforms) {
        next_after_failure(out, report);
    } else {
        if (report->level != GEMMA4_FULL_LEVEL)
            fputs("<li>Dump more tensors: what is not in the dump has not passed. The coverage "
                  "below lists what is missing.</li>\n",
                  out);
        fputs("<li>Check the other cases (<code>gemma4-check list</code>): short prompts hide "
              "mistakes in windows, caches and late "
              "positions.</li>\n",
              out);
    }
    fputs("</ol>\n</section>\n", out);
}
