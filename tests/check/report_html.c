/* The page: its head, its sections in order, its foot. */
#include "point.h"
#include "report_html_internal.h"
#include "text.h"
#include "version.h"

static void begin(FILE *out, const char *engine, const char *verdict)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
          "'unsafe-inline'\"/>\n"
          "<meta name=\"referrer\" content=\"no-referrer\"/>\n<title>",
          out);
    gemma4_xml_text(out, engine);
    fprintf(out, " %s: gemma4-check</title>\n<style>\n", verdict);
    fputs(html_style, out);
    fputs("</style>\n</head>\n<body>\n<main>\n", out);
}

static void end(FILE *out)
{
    fputs("<footer>Written by <code>gemma4-check ", out);
    gemma4_xml_text(out, gemma4_version());
    fputs("</code>. What the names of the taps mean: spec/taps.md; how verdicts are made: "
          "spec/diagnosis.md; all known mistakes: spec/causes.md, <code>gemma4-check "
          "explain</code>.</footer>\n"
          "</main>\n</body>\n</html>\n",
          out);
}

void gemma4_report_html(FILE *out, const gemma4_report *report)
{
    bool unsure = gemma4_is_inconclusive(report);
    begin(out, report->engine ? report->engine : "(unnamed)",
          unsure             ? "no fault found"
          : report->conforms ? "conforms"
                             : "does not conform");
    html_headline(out, report);
    html_first(out, report);
    html_causes(out, report);
    html_next(out, report);
    html_maps(out, report);
    html_growth(out, report);
    html_routing(out, report);
    html_import(out, report);
    fputs("<section>\n<h2>All numbers</h2>\n", out);
    html_coverage(out, report);
    html_all_taps(out, report);
    fputs("</section>\n", out);
    end(out);
}

void gemma4_report_html_unusable(FILE *out, const char *message)
{
    begin(out, "input", "cannot be judged");
    fputs("<header>\n<div class=\"banner unsure\"><h1>? CANNOT BE JUDGED</h1>\n<p>", out);
    html_foreign_text(out, message);
    fputs("</p></div>\n<p>Nothing was compared: this is neither a pass nor a failure of the "
          "engine.</p>\n</header>\n",
          out);
    end(out);
}
