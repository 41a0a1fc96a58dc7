/* Why: the mistakes that explain the errors. */
#include <math.h>
#include <string.h>

#include "causes.h"
#include "counter_model.h"
#include "diagnose.h"
#include "fit.h"
#include "point.h"
#include "report.h"
#include "report_html.h"
#include "report_html_internal.h"
#include "text.h"
#include "thresholds.h"

/* The catalogue's URLs, one a line; only https becomes a link. */
static void write_seen(FILE *out, const char *seen)
{
    fputs("<dt>Seen in</dt><dd>", out);
    for (const char *word = seen; *word;) {
        char url[400];
        size_t length = strcspn(word, " ");
        bool link = !strncmp(word, "https://", 8);
        snprintf(url, sizeof url, "%.*s", (int)length, word);
        fputs(word == seen ? "" : "<br/>", out);
        if (link) {
            fputs("<a rel=\"noopener noreferrer\" href=\"", out);
            gemma4_xml_text(out, url);
            fputs("\">", out);
        }
        gemma4_xml_text(out, link ? url + 8 : url);
        fputs(link ? "</a>" : "", out);
        word += length + strspn(word + length, " ");
    }
    fputs("</dd>\n", out);
}

static void write_versus(FILE *out, const gemma4_counter_model *m)
{
    fputs("<div class=\"versus\"><p class=\"wrong\"><b>✕ wrong</b>", out);
    gemma4_xml_text(out, m->wrong);
    fputs("</p><p class=\"right\"><b>✓ right</b>", out);
    gemma4_xml_text(out, m->right);
    fputs("</p></div>\n", out);
}

static void write_evidence(FILE *out, const gemma4_cause *cause)
{
    fputs("<dt>Evidence</dt><dd>", out);
    if (cause->below_bound)
        fprintf(out,
                "no tensor fails by itself; the error holds %s ± %s of this mistake (1 is all of "
                "it, 0 is none)",
                html_short_number(cause->coefficient).text,
                html_short_number(cause->residual).text);
    else
        fprintf(out,
                "explains %zu failing tensor%s; coefficient %s (1 is exactly this mistake); what "
                "it leaves is %s of honest rounding, of "
                "which up to %s is normal",
                cause->taps, html_plural(cause->taps),
                html_full_number(round(cause->coefficient * 1e4) / 1e4).text,
                html_short_number(cause->residual).text, html_short_number(LIMIT_SCORE).text);
    fputs("</dd>\n", out);
    if (cause->second != GEMMA4_NO_MODEL) {
        fputs("<dt>Together with</dt><dd>", out);
        html_model_name(out, gemma4_counter_model_at(cause->second));
        fputs(": only both at once explain the error</dd>\n", out);
    }
    if (cause->equivalent_count + cause->equivalent_point_count)
        fputs("<dt>Fits as well</dt><dd>", out);
    for (size_t i = 0; i < cause->equivalent_count; i++) {
        const gemma4_counter_model *m = gemma4_counter_model_at(cause->equivalent[i]);
        fputs(i ? "<br/>" : "", out);
        html_model_name(out, m);
        fputs(" ", out);
        gemma4_xml_text(out, m->wrong);
    }
    for (size_t i = 0; i < cause->equivalent_point_count; i++) {
        fputs(i + cause->equivalent_count ? "<br/>" : "", out);
        gemma4_xml_text(out, cause->equivalent_said[i]);
    }
    fputs(cause->equivalent_count + cause->equivalent_point_count ? "</dd>\n" : "", out);
}

static void write_runner_up(FILE *out, const gemma4_fit *near)
{
    if (!near)
        return;
    fputs("<dt>Runner-up</dt><dd>", out);
    html_model_name(out, gemma4_counter_model_at(near->model));
    fprintf(out, " does not fit: coefficient %s, leaves %s times honest rounding</dd>\n",
            html_short_number(near->coefficient).text, html_short_number(near->residual).text);
}

static void write_catalogue_facts(FILE *out, const gemma4_counter_model *m)
{
    if (m->invisible[0]) {
        fputs("<dt>Invisible</dt><dd>", out);
        gemma4_xml_text(out, m->invisible);
        fputs("</dd>\n", out);
    }
    if (m->seen[0])
        write_seen(out, m->seen);
    fputs("<dt>More</dt><dd><code>gemma4-check explain ", out);
    gemma4_xml_text(out, m->id);
    fputs("</code></dd>\n", out);
}

static void write_layers(FILE *out, const gemma4_cause *cause)
{
    fputs("<p class=\"muted\">First seen at ", out);
    html_tap_code(out, cause->tap, cause->first_layer);
    if (cause->layers[0])
        fprintf(out, "; layer%s %s", strpbrk(cause->layers, ",-") ? "s" : "", cause->layers);
    fputs("</p>\n", out);
}

/* What nothing explains: what was measured, and what comes near. */
static void write_unexplained(FILE *out, const gemma4_cause *cause)
{
    fputs(cause->of_dump ? "<dt>Recognised</dt><dd>" : "<dt>Measured</dt><dd>", out);
    html_foreign_text(out, cause->description);
    fputs("</dd>\n", out);
    if (cause->nearest[0]) {
        fputs("<dt>Nearest</dt><dd>", out);
        gemma4_xml_text(out, gemma4_nearest_sentence(cause).text);
        fputs("</dd>\n", out);
    }
}

void gemma4_report_html_cause(FILE *out, const gemma4_config *config, size_t positions,
                              const gemma4_cause *cause)
{
    const gemma4_counter_model *m = gemma4_cause_model(cause);
    fputs("<article class=\"card\">\n<h3>", out);
    if (cause->point)
        html_identified_names(out, cause->point);
    else if (m)
        html_model_name(out, m);
    else
        fputs(cause->of_dump ? "A mistake of the dump: " : "No known mistake explains ", out);
    if (!m)
        html_tap_code(out, cause->tap, cause->first_layer);
    fputs("</h3>\n", out);
    write_layers(out, cause);
    if (cause->point)
        html_identified(out, config, positions, cause);
    else if (m)
        write_versus(out, m);
    if (m && cause->second != GEMMA4_NO_MODEL)
        write_versus(out, gemma4_counter_model_at(cause->second));
    fputs("<dl>\n", out);
    if (m)
        write_evidence(out, cause);
    else
        write_unexplained(out, cause);
    write_runner_up(out, gemma4_runner_up(cause));
    if (cause->point)
        html_identified_facts(out, cause);
    else if (m)
        write_catalogue_facts(out, m);
    else if (!gemma4_runner_up(cause) && !cause->nearest[0] && !cause->of_dump)
        fputs("<dt>Runner-up</dt><dd>none comes near</dd>\n", out);
    fputs("</dl>\n</article>\n", out);
}

/* That of the first divergence first. */
void html_causes(FILE *out, const gemma4_report *report)
{
    const gemma4_cause *first = gemma4_cause_of(report, report->first_divergence);
    size_t causes = gemma4_cause_count(report->diagnosis), known = 0;
    if (causes == 0)
        return;
    const gemma4_config *config = gemma4_diagnosis_config(report->diagnosis);
    for (size_t i = 0; i < causes; i++)
        known += gemma4_cause_at(report->diagnosis, i)->explained ||
                 gemma4_cause_at(report->diagnosis, i)->of_dump;
    fprintf(out, "<section>\n<h2>Why: %zu mistake%s", known, html_plural(known));
    if (known < causes)
        fprintf(out, ", %zu unexplained", causes - known);
    fputs("</h2>\n", out);
    if (first)
        gemma4_report_html_cause(out, config, report->positions, first);
    for (size_t i = 0; i < causes; i++)
        if (gemma4_cause_at(report->diagnosis, i) != first)
            gemma4_report_html_cause(out, config, report->positions,
                                     gemma4_cause_at(report->diagnosis, i));
    fputs("</section>\n", out);
}
