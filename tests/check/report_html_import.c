/* What a map did. */
#include "maps.h"
#include "point.h"
#include "report_html_internal.h"
#include "text.h"

static void write_use(FILE *out, const gemma4_rule_use *use)
{
    fputs("<tr><td><code>", out);
    html_foreign_text(out, use->rule->name);
    fprintf(out, "</code></td><td>%zu</td><td class=\"l\">", use->taps);
    html_foreign_text(out, gemma4_rule_text(use->rule).text);
    fputs("</td><td class=\"l\">", out);
    html_foreign_text(out, use->first ? use->first : "matched nothing");
    fputs("</td></tr>\n", out);
}

void html_import(FILE *out, const gemma4_report *report)
{
    enum { MOST = 200 };
    const gemma4_import_log *log = report->import;
    if (!log)
        return;
    fputs("<section>\n<h2>What the map did</h2>\n<p><code>", out);
    html_foreign_text(out, log->map->path);
    fprintf(out, "</code>, %zu tensor%s in %zu pass%s; the tokens are the %s’s.</p>\n", log->names,
            html_plural(log->names), log->passes, log->passes == 1 ? "" : "es",
            log->tokens_given ? "case" : "dump");
    fputs("<div class=\"scroll\"><table class=\"list\">\n<thead><tr><th>tap</th><th>made</th><th "
          "class=\"l\">from</th><th "
          "class=\"l\">first tensor taken</th></tr></thead>\n<tbody>\n",
          out);
    for (size_t i = 0; i < log->map->rule_count; i++)
        write_use(out, &log->uses[i]);
    fputs("</tbody></table></div>\n", out);
    if (log->untaken_count)
        fputs("<details><summary>Tensors that no rule took</summary><p>", out);
    for (size_t i = 0; i < log->untaken_count && i < MOST; i++) {
        fputs(i ? ", " : "", out);
        html_foreign_text(out, log->untaken[i]);
    }
    if (log->untaken_count > MOST)
        fprintf(out, " and %zu more", log->untaken_count - MOST);
    fputs(log->untaken_count ? "</p></details>\n</section>\n" : "</section>\n", out);
}
