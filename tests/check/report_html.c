#include "report_html.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "counter_model.h"
#include "text.h"
#include "thresholds.h"

/* The page is XML as well as HTML, so that a test can hold it to be well-formed. Colours grow darker (on a dark screen: brighter) with
 * the error, and a failing cell has a cross: nothing depends on telling hues apart. */
static const char style[] =
    ":root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--muted:#59636e;--line:#d5dbe1;--panel:#f5f7f9;--link:#0a58ca;"
    "--pass:#0b5cad;--fail:#a8360a;--unsure:#6b5200;--pass-bg:#e8f1fb;--fail-bg:#fdeee6;--unsure-bg:#fbf3d9;"
    "--s0:#edf4fb;--s1:#d0e3f5;--s2:#a5cbec;--s3:#74aedd;--s4:#3f7fc1;--s5:#c8500f;--s6:#a33a0a;--s7:#7c2405;--s8:#4f0f02;"
    "--from:97%;--by:-80%;--whole:#71499f;"
    "--glyph:#fff;--hatch:#c3cad1}\n"
    "@media screen and (prefers-color-scheme:dark){:root{--bg:#0f1318;--fg:#e4e8ec;--muted:#98a3ae;--line:#2c343d;--panel:#171d24;"
    "--link:#7db4ff;--pass:#7db8f5;--fail:#ffab73;--unsure:#e9c95c;--pass-bg:#122234;--fail-bg:#33190b;--unsure-bg:#2c2507;"
    "--s0:#182431;--s1:#1d3349;--s2:#244768;--s3:#2d5c8a;--s4:#4382c2;--s5:#e0883a;--s6:#f0a55f;--s7:#f8c58e;--s8:#ffe7cc;"
    "--from:12%;--by:80%;--whole:#a48fca;"
    "--glyph:#10151a;--hatch:#46515c}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',sans-serif}\n"
    "main{max-width:76rem;margin:0 auto;padding:1.5rem 1.5rem 3rem}\n"
    "h1{font-size:1.75rem;line-height:1.2;margin:0}\n"
    "h2{font-size:1.25rem;line-height:1.3;margin:2.5rem 0 .5rem;padding-top:.75rem;border-top:1px solid var(--line)}\n"
    "h3{font-size:1.05rem;margin:0 0 .25rem}\n"
    "p{margin:.4rem 0;max-width:72ch}ul,ol{margin:.4rem 0;padding-left:1.4rem;max-width:72ch}li{margin:.2rem 0}\n"
    "code,.n{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:.9em}\n"
    "code,dd,a,p,li,summary{overflow-wrap:anywhere}a{color:var(--link)}\n"
    ".muted{color:var(--muted)}.small{font-size:.875rem}\n"
    ".banner{border-left:.5rem solid;border-radius:.4rem;padding:1rem 1.25rem;margin:0 0 1rem}.banner p{margin:.5rem 0 0;font-size:1.05rem;max-width:none}\n"
    ".banner.pass{background:var(--pass-bg);border-color:var(--pass)}.banner.pass h1{color:var(--pass)}\n"
    ".banner.fail{background:var(--fail-bg);border-color:var(--fail)}.banner.fail h1{color:var(--fail)}\n"
    ".banner.unsure{background:var(--unsure-bg);border-color:var(--unsure)}.banner.unsure h1{color:var(--unsure)}\n"
    "dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.3rem 1.25rem;margin:.5rem 0}dt{color:var(--muted)}dd{margin:0}\n"
    ".card{background:var(--panel);border:1px solid var(--line);border-radius:.5rem;padding:1rem 1.25rem;margin:.75rem 0;break-inside:avoid}\n"
    ".chip{display:inline-block;border:1px solid var(--line);border-radius:1rem;padding:0 .6rem;font-size:.8rem;font-weight:400;color:var(--muted)}\n"
    ".where{font-size:1.15rem;font-weight:600}\n"
    ".versus{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,18rem),1fr));gap:.75rem;margin:.75rem 0}\n"
    ".versus p{margin:0;padding:.6rem .8rem;border-radius:.35rem;border-left:.25rem solid}\n"
    ".versus .wrong{background:var(--fail-bg);border-color:var(--fail)}.versus .right{background:var(--pass-bg);border-color:var(--pass)}\n"
    ".versus b{display:block;font-size:.8rem}.wrong b{color:var(--fail)}.right b{color:var(--pass)}\n"
    ".bar{display:inline-block;vertical-align:middle;width:8rem;height:.6rem;border:1px solid var(--muted);border-radius:.3rem;overflow:hidden;margin-right:.6rem}\n"
    ".bar i{display:block;height:100%;background:var(--pass)}\n"
    ".scroll{overflow-x:auto;max-width:100%}\n"
    ".maps{display:flex;flex-wrap:wrap;gap:1rem 2.5rem}.map{flex:1 1 auto;min-width:0;max-width:100%}\n"
    ".heat{border-collapse:separate;border-spacing:1px;table-layout:fixed;width:100%;font-size:.72rem;line-height:1.15rem}\n"
    ".heat th{font-weight:400;color:var(--muted);text-align:center;padding:0}\n"
    ".heat th[scope=row],.heat thead th:first-child{position:sticky;left:0;z-index:1;background:var(--bg);text-align:right;padding-right:.4rem;"
    "white-space:nowrap;color:var(--fg);width:8.6rem}\n"
    ".heat td{height:1.15rem;padding:0;text-align:center;border-radius:2px;color:var(--glyph);font-weight:700;overflow:hidden}\n"
    ".heat td a{display:block;color:inherit;text-decoration:none}.heat .gap th,.heat .gap td{border-top:.4rem solid var(--bg)}\n"
    ".heat .first{outline:2px solid var(--fg);outline-offset:1px;border-radius:0}\n"
    ".none{background:repeating-linear-gradient(135deg,var(--hatch) 0 1px,transparent 1px 5px)}\n"
    ".s0{background:var(--s0)}.s1{background:var(--s1)}.s2{background:var(--s2)}.s3{background:var(--s3)}.s4{background:var(--s4)}"
    ".s5{background:var(--s5)}.s6{background:var(--s6)}.s7{background:var(--s7)}.s8{background:var(--s8)}\n"
    ".a{background:hsl(268 38% calc(var(--from) + var(--by) * var(--v)))}\n"
    ".legend{display:flex;flex-wrap:wrap;gap:.1rem .9rem;margin:.4rem 0 .6rem;max-width:none;font-size:.8rem;color:var(--muted)}\n"
    ".legend i{display:inline-block;width:1.3rem;height:.95rem;line-height:.95rem;vertical-align:middle;margin-right:.3rem;border-radius:2px;"
    "border:1px solid var(--line);text-align:center;font-style:normal;font-weight:700;font-size:.7rem;color:var(--glyph)}\n"
    "svg{display:block;width:100%;max-width:52rem;height:auto}svg text{font-size:12px;fill:var(--muted)}\n"
    ".grid{stroke:var(--line);stroke-width:1}.hit{fill:var(--fail-bg)}.whole,.step{fill:none;stroke-width:2.5;stroke-linejoin:round}\n"
    ".whole{stroke:var(--whole)}.step{stroke:var(--s5);stroke-dasharray:6 4}.dot{fill:var(--whole)}.box{fill:var(--s5)}\n"
    ".list{border-collapse:collapse;font-size:.85rem}.list th,.list td{padding:.2rem .7rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}\n"
    ".list th{color:var(--muted);font-weight:600;vertical-align:bottom}.list td:first-child,.list th:first-child,.list .l{text-align:left}\n"
    ".list .bad td{background:var(--fail-bg)}.list .wide{white-space:normal;min-width:16rem}.list :target td,tr:target td{outline:2px solid var(--fail)}\n"
    "@media screen and (min-width:601px){.list td:first-child{position:sticky;left:0;background:var(--bg)}.list .bad td:first-child{background:var(--fail-bg)}}\n"
    "details{margin:.75rem 0}summary{cursor:pointer;font-weight:600;padding:.3rem 0}.fail-text{color:var(--fail);font-weight:700}\n"
    ".counts{display:grid;grid-template-columns:max-content max-content minmax(0,1fr);gap:.35rem 1rem;margin:.6rem 0;max-width:72ch}.counts .n{text-align:right;font-weight:700}\n"
    "footer{margin-top:2.5rem;padding-top:.75rem;border-top:1px solid var(--line);color:var(--muted);font-size:.875rem}\n"
    "@media (max-width:600px){main{padding:1rem 1rem 2rem}h1{font-size:1.4rem}.card,.banner{padding:.8rem .9rem}"
    "dl:not(.facts){grid-template-columns:minmax(0,1fr);gap:0}dl:not(.facts) dd{margin-bottom:.5rem}.facts{column-gap:.8rem}.counts{grid-template-columns:max-content minmax(0,1fr)}"
    ".counts span:nth-child(3n){grid-column:2;margin-bottom:.4rem;color:var(--muted);font-size:.875rem}"
    "svg text{font-size:21px}.heat{font-size:.66rem}.heat th[scope=row],.heat thead th:first-child{width:7.2rem}}\n"
    "@media print{*{print-color-adjust:exact;-webkit-print-color-adjust:exact}body{font-size:11pt}main{max-width:none;padding:0}"
    ".scroll{overflow:visible}h2{break-after:avoid}.map,svg{break-inside:avoid}}\n";

/* --------------------------------------------------------- words and numbers */

/* A number as text. */
typedef struct digits {
    char text[32];
} digits;

static digits nonfinite(double value)
{
    digits d;
    snprintf(d.text, sizeof d.text, "%s", isnan(value) ? "NaN" : value > 0 ? "∞" : "-∞");
    return d;
}

/* Three digits: 0.739, 5.74e6. */
static digits short_number(double value)
{
    digits d;
    if (!isfinite(value))
        return nonfinite(value);
    snprintf(d.text, sizeof d.text, "%.3g", value);
    char *exponent = strchr(d.text, 'e');
    if (exponent)
        snprintf(exponent, 8, "e%ld", strtol(exponent + 1, NULL, 10));
    return d;
}

/* All digits of a float. */
static digits full_number(double value)
{
    digits d;
    if (!isfinite(value))
        return nonfinite(value);
    snprintf(d.text, sizeof d.text, "%.8g", value);
    return d;
}

/* NAN stands for "not known" in inherited errors. */
static digits known_number(double value)
{
    return isnan(value) ? (digits){"–"} : short_number(value);
}

/* Text of the dump: escaped, and its writing direction does not reach beyond it. */
static void foreign_text(FILE *out, const char *text)
{
    fputs("<bdi>", out);
    gemma4_xml_text(out, text);
    fputs("</bdi>", out);
}

static void tap_code(FILE *out, gemma4_tap tap, size_t layer)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    fprintf(out, "<code>%s</code>", gemma4_tap_name(tap, layer, name));
}

static const char *plural(size_t n)
{
    return n == 1 ? "" : "s";
}

static bool has_numbers(const gemma4_tap_result *r)
{
    return r->verdict != GEMMA4_NOT_COVERED && !gemma4_tap_describe(r->tap)->ids && r->local.kind != GEMMA4_METRIC_SHAPE;
}

/* The error as a part of its tolerance; infinite where none is allowed. NAN stays NAN. */
static double part_of_tolerance(const gemma4_tap_result *r)
{
    return r->local.error == 0 ? 0 : r->local.error / r->local.tolerance;
}

static bool is_worse(const gemma4_tap_result *r, const gemma4_tap_result *than)
{
    if (!than || (r->verdict == GEMMA4_DIVERGES) != (than->verdict == GEMMA4_DIVERGES))
        return !than || r->verdict == GEMMA4_DIVERGES;
    return !(part_of_tolerance(r) <= part_of_tolerance(than));
}

static const gemma4_tap_result *result_of(const gemma4_report *report, gemma4_tap tap, size_t layer)
{
    for (size_t i = 0; i < report->tap_count; i++)
        if (report->taps[i].tap == tap && report->taps[i].layer == layer)
            return &report->taps[i];
    return NULL;
}

static const char *metric_words(gemma4_metric_kind kind)
{
    switch (kind) {
    case GEMMA4_METRIC_RMS_IN_SPREADS: return "all positions";
    case GEMMA4_METRIC_WORST_POSITION_IN_SPREADS: return "worst position";
    case GEMMA4_METRIC_BIAS_IN_SPREADS: return "all positions alike";
    case GEMMA4_METRIC_MATCHED_FILTER: return "matched filter";
    case GEMMA4_METRIC_EXPERT_SETS: return "expert sets";
    default: return gemma4_metric_name(kind);
    }
}

/* What is known of one kind of tap over all its layers. */
typedef struct kind_summary {
    size_t of, covered, failed;
    const gemma4_tap_result *worst; /* NULL where nothing was compared */
} kind_summary;

static kind_summary summarize(const gemma4_report *report, gemma4_tap tap)
{
    kind_summary s = {0};
    for (size_t i = 0; i < report->tap_count; i++) {
        const gemma4_tap_result *r = &report->taps[i];
        if (r->tap != tap)
            continue;
        s.of++;
        if (r->verdict == GEMMA4_NOT_COVERED)
            continue;
        s.covered++;
        s.failed += r->verdict == GEMMA4_DIVERGES;
        if (is_worse(r, s.worst))
            s.worst = r;
    }
    return s;
}

/* ------------------------------------------------------------------ headline */

static void begin(FILE *out, const char *engine, const char *verdict)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n"
          "<meta name=\"referrer\" content=\"no-referrer\"/>\n<title>", out);
    gemma4_xml_text(out, engine);
    fprintf(out, " %s: gemma4-check</title>\n<style>\n", verdict);
    fputs(style, out);
    fputs("</style>\n</head>\n<body>\n<main>\n", out);
}

static void end(FILE *out)
{
    fputs("<footer>Written by <code>gemma4-check --html</code>. What the names of the taps mean: spec/taps.md; how verdicts are made: "
          "spec/diagnosis.md; all known mistakes: spec/causes.md, <code>gemma4-check explain</code>.</footer>\n"
          "</main>\n</body>\n</html>\n", out);
}

/* How much a pass is worth: the step that comes closest to its tolerance, and what was not judged. */
static void write_margin(FILE *out, const gemma4_report *report)
{
    const gemma4_tap_result *worst = NULL;
    for (size_t i = 0; i < report->tap_count; i++)
        if (report->taps[i].verdict != GEMMA4_NOT_COVERED && is_worse(&report->taps[i], worst))
            worst = &report->taps[i];
    fprintf(out, "<p>Every step that the dump shows is what honest rounding in %s explains.", report->dtype);
    if (worst && has_numbers(worst) && worst->local.error != 0) {
        fputs(" Closest to its tolerance: ", out);
        tap_code(out, worst->tap, worst->layer);
        fprintf(out, ", at %s of it.", short_number(part_of_tolerance(worst)).text);
    }
    if (report->level != GEMMA4_FULL_LEVEL)
        fprintf(out, " It shows %zu of %zu required tensors; the others have not passed.", report->taps_covered, report->taps_of);
    fputs("</p>\n", out);
}

/* The cause of the first divergence; NULL where none is listed. */
static const gemma4_cause *first_cause(const gemma4_report *report)
{
    const gemma4_tap_result *first = report->first_divergence;
    for (size_t i = 0; first && i < gemma4_cause_count(report->diagnosis); i++) {
        const gemma4_cause *cause = gemma4_cause_at(report->diagnosis, i);
        if (cause->tap == first->tap && (cause->first_layer == first->layer || !gemma4_tap_describe(first->tap)->per_layer))
            return cause;
    }
    return NULL;
}

/* The other causes, by name. */
static void write_other_causes(FILE *out, const gemma4_report *report)
{
    size_t named = 0;
    for (size_t i = 0; i < gemma4_cause_count(report->diagnosis); i++) {
        const gemma4_cause *cause = gemma4_cause_at(report->diagnosis, i);
        if (!cause->explained || cause == first_cause(report))
            continue;
        fputs(named++ ? ", <code>" : ". Later: <code>", out);
        gemma4_xml_text(out, gemma4_counter_model_at(cause->model)->id);
        fputs("</code>", out);
    }
}

static void write_failure(FILE *out, const gemma4_report *report)
{
    size_t failed = 0, compared = 0;
    for (size_t i = 0; i < report->tap_count; i++) {
        failed += report->taps[i].verdict == GEMMA4_DIVERGES;
        compared += report->taps[i].verdict != GEMMA4_NOT_COVERED;
    }
    if (!report->first_divergence) {
        fputs("<p>No step diverges, but the dump covers less than what was required.</p>\n", out);
        return;
    }
    fputs("<p>First at ", out);
    tap_code(out, report->first_divergence->tap, report->first_divergence->layer);
    const gemma4_cause *cause = first_cause(report);
    if (cause && cause->explained) {
        fputs(". Cause: <code>", out);
        gemma4_xml_text(out, gemma4_counter_model_at(cause->model)->id);
        fputs("</code>", out);
    } else {
        fputs(": no known mistake explains it", out);
    }
    write_other_causes(out, report);
    fprintf(out, ". %zu of %zu compared tensors fail%s on the engine’s own inputs.</p>\n", failed, compared, failed == 1 ? "s" : "");
}

static void write_coverage_fact(FILE *out, const gemma4_report *report)
{
    double part = report->taps_of ? 100.0 * (double)report->taps_covered / (double)report->taps_of : 0;
    size_t layers = 0;
    for (size_t l = 0; l < report->layers; l++)
        layers += report->layer_covered[l];
    fprintf(out, "<dt>Coverage</dt><dd><span class=\"bar\"><i style=\"width:%.1f%%\"></i></span>level <b>%s</b>: %zu of %zu required tensors, in "
                 "%zu of %zu layers</dd>\n", part, gemma4_level_name(report->level), report->taps_covered, report->taps_of, layers, report->layers);
}

static void write_headline(FILE *out, const gemma4_report *report)
{
    fprintf(out, "<header>\n<div class=\"banner %s\"><h1>%s</h1>\n", report->conforms ? "pass" : "fail",
            report->conforms ? "✓ CONFORMS" : "✕ DOES NOT CONFORM");
    if (report->conforms)
        write_margin(out, report);
    else
        write_failure(out, report);
    fputs("</div>\n<dl class=\"facts\">\n<dt>Engine</dt><dd><b>", out);
    foreign_text(out, report->engine ? report->engine : "(unnamed)");
    fputs("</b> ", out);
    foreign_text(out, report->engine_version ? report->engine_version : "");
    fputs("</dd>\n<dt>Arithmetic</dt><dd>", out);
    gemma4_xml_text(out, report->dtype);
    fputs("</dd>\n<dt>Case</dt><dd>", out);
    if (report->case_id)
        gemma4_xml_text(out, report->case_id);
    else
        fputs("none: the dump’s own tokens", out);
    fprintf(out, ", %zu position%s</dd>\n<dt>Expected</dt><dd>from the %s%s", report->positions, plural(report->positions),
            report->expected_from, report->expected_detail[0] ? ": " : "");
    gemma4_xml_text(out, report->expected_detail);
    fputs("</dd>\n", out);
    write_coverage_fact(out, report);
    if (report->note_count)
        fputs("<dt>Notes</dt><dd>", out);
    for (size_t i = 0; i < report->note_count; i++) {
        fputs(i ? "<br/>" : "", out);
        foreign_text(out, report->notes[i]);
    }
    fputs(report->note_count ? "</dd>\n</dl>\n</header>\n" : "</dl>\n</header>\n", out);
}

/* ---------------------------------------------------------------- what first */

static void write_first_numbers(FILE *out, const gemma4_tap_result *r)
{
    fputs("<dl>\n<dt>This step</dt><dd>", out);
    if (r->local.kind == GEMMA4_METRIC_MATCHED_FILTER)
        fprintf(out, "passes by itself; all layers together hold a known mistake, <b>%s</b> standard deviations from none (limit %s)",
                short_number(r->local.error).text, short_number(r->local.tolerance).text);
    else
        fprintf(out, "relative RMS %s from the engine’s own inputs: <b>%s times what honest rounding explains</b>, tolerance %s; worst at "
                     "position %zu", short_number(r->added).text, short_number(r->local.error).text, short_number(r->local.tolerance).text,
                r->local.position);
    fprintf(out, "</dd>\n<dt>Brought along</dt><dd>relative RMS %s, from errors of earlier steps</dd>\n", known_number(r->inherited).text);
    fprintf(out, "<dt>All together</dt><dd>relative RMS %s; norm of yours / norm of the expected %s; cosine %s</dd>\n",
            short_number(r->metrics.relative_rms).text, full_number(r->metrics.norm_ratio).text, full_number(r->metrics.cosine).text);
    fprintf(out, "<dt>Worst element</dt><dd>position %zu, index %zu: yours <b class=\"n\">%s</b>, expected <b class=\"n\">%s</b></dd>\n</dl>\n",
            r->worst_position, r->worst_index, full_number(r->worst_engine).text, full_number(r->worst_expected).text);
}

static void write_first(FILE *out, const gemma4_report *report)
{
    const gemma4_tap_result *r = report->first_divergence;
    if (!r)
        return;
    fputs("<section>\n<h2>What diverges first</h2>\n<div class=\"card\">\n<p class=\"where\">", out);
    tap_code(out, r->tap, r->layer);
    fputs("</p>\n", out);
    if (r->problem[0]) {
        fputs("<p>", out);
        foreign_text(out, r->problem);
        fputs("</p>\n", out);
    }
    if (has_numbers(r))
        write_first_numbers(out, r);
    fputs("</div>\n</section>\n", out);
}

/* ----------------------------------------------------------------------- why */

static void model_name(FILE *out, const gemma4_counter_model *m)
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
        fprintf(out, "no tensor fails by itself; the error holds %s ± %s of this mistake (1 is all of it, 0 is none)",
                short_number(cause->coefficient).text, short_number(cause->residual).text);
    else
        fprintf(out, "explains %zu failing tensor%s; coefficient %s (1 is exactly this mistake); what it leaves is %s of honest rounding, of "
                     "which up to %s is normal", cause->taps, plural(cause->taps), full_number(round(cause->coefficient * 1e4) / 1e4).text,
                short_number(cause->residual).text, short_number(LIMIT_SCORE).text);
    fputs("</dd>\n", out);
    if (cause->second != GEMMA4_NO_MODEL) {
        fputs("<dt>Together with</dt><dd>", out);
        model_name(out, gemma4_counter_model_at(cause->second));
        fputs(": only both at once explain the error</dd>\n", out);
    }
    if (cause->equivalent_count)
        fputs("<dt>Fits as well</dt><dd>", out);
    for (size_t i = 0; i < cause->equivalent_count; i++) {
        const gemma4_counter_model *m = gemma4_counter_model_at(cause->equivalent[i]);
        fputs(i ? "<br/>" : "", out);
        model_name(out, m);
        fputs(" ", out);
        gemma4_xml_text(out, m->wrong);
    }
    fputs(cause->equivalent_count ? "</dd>\n" : "", out);
}

static void write_runner_up(FILE *out, const gemma4_cause *cause)
{
    if (!cause->has_near)
        return;
    fputs("<dt>Runner-up</dt><dd>", out);
    model_name(out, gemma4_counter_model_at(cause->near.model));
    fprintf(out, " does not fit: coefficient %s, leaves %s times honest rounding</dd>\n", short_number(cause->near.coefficient).text,
            short_number(cause->near.residual).text);
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
    tap_code(out, cause->tap, cause->first_layer);
    if (cause->layers[0])
        fprintf(out, "; layer%s %s", strpbrk(cause->layers, ",-") ? "s" : "", cause->layers);
    fputs("</p>\n", out);
}

void gemma4_report_html_cause(FILE *out, const gemma4_cause *cause)
{
    const gemma4_counter_model *m = cause->explained ? gemma4_counter_model_at(cause->model) : NULL;
    fputs("<article class=\"card\">\n<h3>", out);
    if (m)
        model_name(out, m);
    else
        fputs("No known mistake explains ", out);
    if (!m)
        tap_code(out, cause->tap, cause->first_layer);
    fputs("</h3>\n", out);
    write_layers(out, cause);
    if (m)
        write_versus(out, m);
    if (m && cause->second != GEMMA4_NO_MODEL)
        write_versus(out, gemma4_counter_model_at(cause->second));
    fputs("<dl>\n", out);
    if (m) {
        write_evidence(out, cause);
    } else {
        fputs("<dt>Measured</dt><dd>", out);
        foreign_text(out, cause->description);
        fputs("</dd>\n", out);
    }
    write_runner_up(out, cause);
    if (m)
        write_catalogue_facts(out, m);
    else if (!cause->has_near)
        fputs("<dt>Runner-up</dt><dd>none comes near</dd>\n", out);
    fputs("</dl>\n</article>\n", out);
}

/* That of the first divergence first. */
static void write_causes(FILE *out, const gemma4_report *report)
{
    const gemma4_cause *first = first_cause(report);
    size_t causes = gemma4_cause_count(report->diagnosis), known = 0;
    if (causes == 0)
        return;
    for (size_t i = 0; i < causes; i++)
        known += gemma4_cause_at(report->diagnosis, i)->explained;
    fprintf(out, "<section>\n<h2>Why: %zu known mistake%s", known, plural(known));
    if (known < causes)
        fprintf(out, ", %zu unexplained", causes - known);
    fputs("</h2>\n", out);
    if (first)
        gemma4_report_html_cause(out, first);
    for (size_t i = 0; i < causes; i++)
        if (gemma4_cause_at(report->diagnosis, i) != first)
            gemma4_report_html_cause(out, gemma4_cause_at(report->diagnosis, i));
    fputs("</section>\n", out);
}

/* ----------------------------------------------------------------- what next */

static void next_of_cause(FILE *out, const gemma4_report *report, const gemma4_cause *cause)
{
    bool full = report->level == GEMMA4_FULL_LEVEL;
    fputs("<li>Look at your code that computes ", out);
    tap_code(out, cause->tap, cause->first_layer);
    fputs(cause->explained ? ". Right is: " : ". Compare it with that step in spec/model.md", out);
    if (cause->explained)
        gemma4_xml_text(out, gemma4_counter_model_at(cause->model)->right);
    fputs(".</li>\n", out);
    if (!full && (!cause->explained || cause->equivalent_count))
        fprintf(out, "<li>Dump more tensors%s: the step inside it that goes wrong then shows%s.</li>\n",
                gemma4_tap_describe(cause->tap)->per_layer ? " of that layer" : " of the layers",
                cause->equivalent_count ? ", and which of the mistakes that fit it is" : "");
}

static void next_after_failure(FILE *out, const gemma4_report *report)
{
    size_t causes = gemma4_cause_count(report->diagnosis);
    if (!report->first_divergence) {
        fputs("<li>Dump what <code>--require</code> asks for; the coverage below lists what is missing.</li>\n", out);
        return;
    }
    if (first_cause(report))
        next_of_cause(out, report, first_cause(report));
    else
        fputs("<li>Compare your code of the step that diverges first with spec/model.md.</li>\n", out);
    if (causes > 1)
        fputs("<li>The other causes are independent of the first: every step is judged on the engine’s own inputs.</li>\n", out);
    fputs("<li>Mend it, dump again, check again.</li>\n", out);
}

static void write_next(FILE *out, const gemma4_report *report)
{
    fputs("<section>\n<h2>What next</h2>\n<ol>\n", out);
    if (!report->conforms) {
        next_after_failure(out, report);
    } else {
        if (report->level != GEMMA4_FULL_LEVEL)
            fputs("<li>Dump more tensors: what is not in the dump has not passed. The coverage below lists what is missing.</li>\n", out);
        fputs("<li>Check the other cases (<code>gemma4-check list</code>): short prompts hide mistakes in windows, caches and late positions.</li>\n", out);
    }
    fputs("</ol>\n</section>\n", out);
}

/* ----------------------------------------------------------------- heat maps */

enum { SHADES = 9, FIRST_FAILING_SHADE = 5 };
/* Upper ends of the shades of an error as a part of its tolerance. */
static const double shade_ends[SHADES] = {0.1, 0.25, 0.5, MARGINAL_PART, 1, 10, 1e3, 1e6, INFINITY};
static const char *const shade_legend[SHADES] = {"≤ 0.1", "0.25", "0.5", "0.75", "1: marginal", "FAIL: up to 10", "1e3", "1e6", "more"};
/* Decades of an accumulated relative RMS, from the palest to the deepest colour. */
enum { LOWEST_DECADE = -8, HIGHEST_DECADE = 0 };

static int local_shade(const gemma4_tap_result *r)
{
    double part = part_of_tolerance(r);
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

static const char *verdict_glyph(gemma4_verdict verdict)
{
    return verdict == GEMMA4_DIVERGES ? "✕" : verdict == GEMMA4_MARGINAL ? "!" : verdict == GEMMA4_EXCUSED ? "~" : "";
}

/* What hovering over a cell shows. */
static void cell_title(FILE *out, const gemma4_tap_result *r)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    fprintf(out, " title=\"%s: ", gemma4_tap_name(r->tap, r->layer, name));
    if (r->verdict == GEMMA4_NOT_COVERED)
        fputs("not in the dump", out);
    else if (!has_numbers(r))
        fprintf(out, "%s%s", gemma4_verdict_name(r->verdict), r->problem[0] ? ", " : "");
    else
        fprintf(out, "%s, %s at tolerance %s (%s, position %zu); relative RMS: added %s, inherited %s, accumulated %s%s",
                gemma4_verdict_name(r->verdict), short_number(r->local.error).text, short_number(r->local.tolerance).text,
                metric_words(r->local.kind), r->local.position, known_number(r->added).text, known_number(r->inherited).text,
                short_number(r->metrics.relative_rms).text, r->problem[0] ? "; " : "");
    if (r->verdict != GEMMA4_NOT_COVERED)
        gemma4_xml_text(out, r->problem);
    fputc('"', out);
}

/* span: how many columns the cell takes. */
static void write_cell(FILE *out, const gemma4_report *report, const gemma4_tap_result *r, bool accumulated, size_t span)
{
    bool empty = !r || r->verdict == GEMMA4_NOT_COVERED || (accumulated && !has_numbers(r));
    if (empty)
        fputs("<td class=\"none\"", out);
    else if (accumulated)
        fprintf(out, "<td class=\"a\" style=\"--v:%.3f\"", depth(r->metrics.relative_rms));
    else
        fprintf(out, "<td class=\"s%d%s\"", local_shade(r), r == report->first_divergence ? " first" : "");
    if (span > 1)
        fprintf(out, " colspan=\"%zu\"", span);
    if (r)
        cell_title(out, r);
    fputs(">", out);
    if (!empty && accumulated && !isfinite(r->metrics.relative_rms))
        fputs(nonfinite(r->metrics.relative_rms).text, out);
    else if (!empty && !accumulated && r->verdict == GEMMA4_DIVERGES)
        fprintf(out, "<a href=\"#t%zu\">✕</a>", (size_t)(r - report->taps));
    else if (!empty && !accumulated)
        fputs(verdict_glyph(r->verdict), out);
    fputs("</td>", out);
}

/* A group begins where the part of the name before the dot changes; the taps outside the layers are one. */
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
        if (summarize(report, tap).covered == 0)
            continue;
        bool gap = before != GEMMA4_TAP_COUNT && begins_group(before, tap);
        fprintf(out, "<tr%s><th scope=\"row\">%s</th>", gap ? " class=\"gap\"" : "", info->name);
        if (info->per_layer)
            for (size_t layer = 0; layer < report->layers; layer++)
                write_cell(out, report, result_of(report, tap, layer), accumulated, 1);
        else
            write_cell(out, report, result_of(report, tap, 0), accumulated, map_layers(report));
        fputs("</tr>\n", out);
        before = tap;
    }
}

static void write_legend(FILE *out, bool accumulated)
{
    fputs("<p class=\"legend\">", out);
    for (int i = 0; !accumulated && i < SHADES; i++)
        fprintf(out, "<span><i class=\"s%d\">%s</i>%s</span>", i, i >= FIRST_FAILING_SHADE ? "✕" : i == FIRST_FAILING_SHADE - 1 ? "!" : "",
                shade_legend[i]);
    for (int decade = LOWEST_DECADE; accumulated && decade <= HIGHEST_DECADE; decade++)
        fprintf(out, "<span><i class=\"a\" style=\"--v:%.3f\"></i>%s</span>", depth(pow(10, decade)), short_number(pow(10, decade)).text);
    fprintf(out, "<span><i class=\"none\"></i>%s</span></p>\n", accumulated ? "not in the dump, or no number" : "not in the dump");
}

static void write_map(FILE *out, const gemma4_report *report, bool accumulated)
{
    /* Wide enough for two digits a layer; two maps stand side by side where there is room. */
    double layers = fmax((double)map_layers(report), 12), wide = 9 + 1.75 * layers, narrow = 7.3 + 1.1 * layers, widest = 9 + 2.6 * layers;
    fprintf(out, "<div class=\"map\" style=\"flex-basis:%.1frem;max-width:%.1frem\">\n<h3>%s</h3>\n", wide, widest,
            accumulated ? "With all earlier errors in it" : "Each step on the engine’s own inputs");
    fputs(accumulated ? "<p class=\"small muted\">Relative RMS from the expected values. It decides nothing: errors spread.</p>\n"
                      : "<p class=\"small muted\">The step’s own error / its tolerance. This decides; a cross leads to its numbers.</p>\n", out);
    fprintf(out, "<div class=\"scroll\"><table class=\"heat\" style=\"min-width:%.1frem\">\n<thead><tr><th>%s</th>", narrow, map_layers(report) ? "layer" : "");
    for (size_t layer = 0; layer < map_layers(report); layer++)
        fprintf(out, "<th scope=\"col\">%zu</th>", layer);
    fputs(map_layers(report) ? "</tr></thead>\n<tbody>\n" : "<th></th></tr></thead>\n<tbody>\n", out);
    write_rows(out, report, accumulated);
    fputs("</tbody>\n</table></div>\n", out);
    write_legend(out, accumulated);
    fputs("</div>\n", out);
}

/* The kinds of taps of which the dump holds none: by name, or by number where the list would be long. */
static void write_absent(FILE *out, const gemma4_report *report)
{
    enum { MOST_NAMES = 8 };
    size_t absent = 0, named = 0;
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        absent += summarize(report, (gemma4_tap)tap).covered == 0;
    if (absent > MOST_NAMES)
        fprintf(out, "<p class=\"small muted\">Of %zu kinds of tensors the dump holds none: “Coverage” below lists them.</p>\n", absent);
    for (int tap = 0; tap < GEMMA4_TAP_COUNT && absent <= MOST_NAMES; tap++) {
        const gemma4_tap_info *info = gemma4_tap_describe((gemma4_tap)tap);
        if (summarize(report, (gemma4_tap)tap).covered == 0)
            fprintf(out, "%s%s%s", named++ ? ", " : "<p class=\"small muted\">Not in the dump at all: ", info->name, info->optional ? " (optional)" : "");
    }
    fputs(named ? ".</p>\n" : "", out);
}

static void write_maps(FILE *out, const gemma4_report *report)
{
    fputs("<section>\n<h2>Where: layers and tensors</h2>\n<p>From top to bottom in the order of computation, layers from left to right. "
          "Hover over a cell for its numbers; the tables at the end have them all.</p>\n<div class=\"maps\">\n", out);
    write_map(out, report, false);
    write_map(out, report, true);
    fputs("</div>\n", out);
    write_absent(out, report);
    fputs("</section>\n", out);
}

/* -------------------------------------------------------------- error growth */

enum { CHART_WIDTH = 700, CHART_HEIGHT = 380, CHART_LEFT = 64, CHART_RIGHT = 16, CHART_TOP = 16, CHART_BOTTOM = 56 };

typedef struct chart {
    const gemma4_report *report;
    double lowest, highest; /* decades */
} chart;

/* What a layer's line shows: the error of its output with everything in it, or the largest that a single step of it adds. NAN: none. */
static double growth(const gemma4_report *report, size_t layer, bool accumulated)
{
    double largest = NAN;
    if (accumulated) {
        const gemma4_tap_result *r = result_of(report, GEMMA4_TAP_LAYER_OUTPUT, layer);
        return r && has_numbers(r) ? r->metrics.relative_rms : NAN;
    }
    for (size_t i = 0; i < report->tap_count; i++) {
        const gemma4_tap_result *r = &report->taps[i];
        if (gemma4_tap_describe(r->tap)->per_layer && r->layer == layer && has_numbers(r))
            largest = fmax(largest, r->added);
    }
    return largest;
}

/* Fits the axis; returns how many outputs there are to draw. */
static size_t chart_range(chart *c)
{
    size_t outputs = 0;
    c->lowest = INFINITY;
    c->highest = -INFINITY;
    for (size_t i = 0; i < 2 * c->report->layers; i++) {
        double value = growth(c->report, i / 2, i % 2 == 0);
        outputs += i % 2 == 0 && !isnan(value);
        if (!isfinite(value) || value <= 0)
            continue;
        c->lowest = fmin(c->lowest, floor(log10(value)));
        c->highest = fmax(c->highest, ceil(log10(value)));
    }
    if (!(c->lowest < INFINITY)) {
        c->lowest = -8;
        c->highest = 0;
    }
    if (c->highest <= c->lowest)
        c->highest = c->lowest + 1;
    return outputs;
}

static double chart_x(const chart *c, size_t layer)
{
    double step = (double)(CHART_WIDTH - CHART_LEFT - CHART_RIGHT) / (double)c->report->layers;
    return CHART_LEFT + step * ((double)layer + 0.5);
}

/* Zero lies on the lower edge, infinity on the upper one. */
static double chart_y(const chart *c, double value)
{
    double decade = value <= 0 ? c->lowest : isfinite(value) ? log10(value) : c->highest;
    return CHART_TOP + (c->highest - decade) / (c->highest - c->lowest) * (CHART_HEIGHT - CHART_TOP - CHART_BOTTOM);
}

static void write_axes(FILE *out, const chart *c)
{
    double every = ceil((c->highest - c->lowest) / 7);
    size_t layers = c->report->layers, label = layers > 16 ? 5 : 1;
    const gemma4_tap_result *first = c->report->first_divergence;
    if (first && gemma4_tap_describe(first->tap)->per_layer)
        fprintf(out, "<rect class=\"hit\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\"><title>the first divergence is in layer %zu</title></rect>\n",
                chart_x(c, first->layer) - 11, CHART_TOP, 22.0, CHART_HEIGHT - CHART_TOP - CHART_BOTTOM, first->layer);
    for (double decade = c->highest; decade >= c->lowest; decade -= every) {
        double y = chart_y(c, pow(10, decade));
        fprintf(out, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s%.0f</text>\n",
                CHART_LEFT, CHART_WIDTH - CHART_RIGHT, y, y, CHART_LEFT - 6, y + 5, decade == 0 ? "" : "1e", decade == 0 ? 1 : decade);
    }
    for (size_t layer = 0; layer < layers; layer += label)
        fprintf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%zu</text>\n", chart_x(c, layer), CHART_HEIGHT - CHART_BOTTOM + 24, layer);
}

/* A line, broken where a layer has no value, and a mark at each value. */
static void write_line(FILE *out, const chart *c, bool accumulated)
{
    bool on = false;
    fprintf(out, "<path class=\"%s\" d=\"", accumulated ? "whole" : "step");
    for (size_t layer = 0; layer < c->report->layers; layer++) {
        double value = growth(c->report, layer, accumulated);
        if (!isnan(value))
            fprintf(out, "%c%.1f %.1f", on ? 'L' : 'M', chart_x(c, layer), chart_y(c, value));
        on = !isnan(value);
    }
    fputs("\"/>\n", out);
    for (size_t layer = 0; layer < c->report->layers; layer++) {
        double value = growth(c->report, layer, accumulated), x = chart_x(c, layer);
        if (isnan(value))
            continue;
        if (accumulated)
            fprintf(out, "<circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"4.5\">", x, chart_y(c, value));
        else
            fprintf(out, "<rect class=\"box\" x=\"%.1f\" y=\"%.1f\" width=\"8\" height=\"8\">", x - 4, chart_y(c, value) - 4);
        fprintf(out, "<title>layer %zu: %s</title></%s>\n", layer, short_number(value).text, accumulated ? "circle" : "rect");
    }
}

static void write_growth(FILE *out, const gemma4_report *report)
{
    chart c = {.report = report};
    fputs("<section>\n<h2>How the error grows</h2>\n", out);
    if (chart_range(&c) == 0) {
        fputs("<p class=\"muted\">The dump holds no layer outputs: nothing to draw.</p>\n</section>\n", out);
        return;
    }
    fprintf(out, "<p>Relative RMS per layer. A steady rise is rounding; a jump in both lines is a step that goes wrong there; a jump in the "
                 "first line alone came from elsewhere, such as another choice of experts.</p>\n"
                 "<p class=\"legend\"><span><svg viewBox=\"0 0 34 10\" style=\"display:inline;width:34px\"><path class=\"whole\" d=\"M0 5L34 5\"/>"
                 "<circle class=\"dot\" cx=\"17\" cy=\"5\" r=\"4.5\"/></svg> the layer’s output, with all earlier errors in it</span>"
                 "<span><svg viewBox=\"0 0 34 10\" style=\"display:inline;width:34px\"><path class=\"step\" d=\"M0 5L34 5\"/>"
                 "<rect class=\"box\" x=\"13\" y=\"1\" width=\"8\" height=\"8\"/></svg> the largest error that a single step of the layer adds</span></p>\n"
                 "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"Relative RMS of the layers’ outputs, by layer\">\n", CHART_WIDTH, CHART_HEIGHT);
    write_axes(out, &c);
    write_line(out, &c, false);
    write_line(out, &c, true);
    fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">layer</text>\n</svg>\n</section>\n", (CHART_LEFT + CHART_WIDTH - CHART_RIGHT) / 2,
            CHART_HEIGHT - 6);
}

/* ------------------------------------------------------------------- routing */

static void write_count(FILE *out, size_t count, const char *name, const char *meaning)
{
    fprintf(out, "<span class=\"n\">%zu</span><span>%s</span><span>%s</span>\n", count, name, meaning);
}

static void write_routing(FILE *out, const gemma4_report *report)
{
    const gemma4_routing *r = &report->routing;
    fputs("<section>\n<h2>Routing</h2>\n", out);
    if (r->decisions + r->inferred + r->near_ties == 0) {
        fputs("<p class=\"muted\">The dump shows no choice of experts.</p>\n</section>\n", out);
        return;
    }
    if (r->faults)
        fprintf(out, "<p><span class=\"fail-text\">✕ %zu choice%s of experts cannot be explained by rounding.</span> The router is at fault there, or "
                     "the way the experts are picked.</p>\n", r->faults, plural(r->faults));
    else if (r->excused + r->inferred)
        fprintf(out, "<p>%zu choice%s of experts differ%s from the exact one, and rounding explains %s. No fault.</p>\n", r->excused + r->inferred,
                plural(r->excused + r->inferred), r->excused + r->inferred == 1 ? "s" : "", r->excused + r->inferred == 1 ? "it" : "them");
    else
        fputs("<p>Every choice of experts is the exact one.</p>\n", out);
    fputs("<div class=\"counts\">\n", out);
    write_count(out, r->decisions, "decisions", "choices of experts in the dump: one a position and layer");
    write_count(out, r->faults, "faults", "experts that are not those of the engine’s own router logits, and rounding does not explain it");
    write_count(out, r->excused, "excused", "other experts, but so close that rounding decides: either choice is right");
    write_count(out, r->inferred, "inferred", "choices that the dump does not show; what follows fits another close choice better than the exact one");
    write_count(out, r->near_ties, "near-ties", "choices so close that rounding at this precision may turn them: what an honest engine may differ in");
    write_count(out, r->swaps, "swapped experts", "chosen experts that are not among those with the largest logits, in excused and faulty choices together");
    fputs("</div>\n</section>\n", out);
}

/* -------------------------------------------------------------------- tables */

static void write_kind(FILE *out, gemma4_tap tap, const kind_summary *s)
{
    const gemma4_tap_info *info = gemma4_tap_describe(tap);
    const gemma4_tap_result *worst = s->worst;
    fprintf(out, "<tr%s><td><code>%s</code></td><td>%zu of %zu</td>", s->failed ? " class=\"bad\"" : "", info->name, s->covered, s->of);
    if (!worst) {
        fprintf(out, "<td></td><td></td><td></td><td></td><td class=\"l muted\">not covered%s</td></tr>\n", info->optional ? " (optional)" : "");
        return;
    }
    if (info->per_layer)
        fprintf(out, "<td>%zu</td>", worst->layer);
    else
        fputs("<td>–</td>", out);
    if (has_numbers(worst))
        fprintf(out, "<td>%s</td><td>%s</td><td>%s</td>", short_number(worst->added).text, known_number(worst->inherited).text,
                short_number(part_of_tolerance(worst)).text);
    else
        fputs("<td>–</td><td>–</td><td>–</td>", out);
    if (s->failed)
        fprintf(out, "<td class=\"l\">✕ FAIL in %zu of %zu</td></tr>\n", s->failed, s->covered);
    else
        fprintf(out, "<td class=\"l\">%s</td></tr>\n", gemma4_verdict_name(worst->verdict));
}

static void write_coverage(FILE *out, const gemma4_report *report)
{
    fprintf(out, "<details>\n<summary>Coverage: %zu of %zu required tensors, by kind</summary>\n<div class=\"scroll\"><table class=\"list\">\n"
                 "<thead><tr><th>tensor</th><th>layers covered</th><th>worst layer</th><th>error added</th><th>inherited</th>"
                 "<th>error / tolerance</th><th class=\"l\">verdict</th></tr></thead>\n<tbody>\n", report->taps_covered, report->taps_of);
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
        kind_summary s = summarize(report, (gemma4_tap)tap);
        if (s.of)
            write_kind(out, (gemma4_tap)tap, &s);
    }
    fputs("</tbody>\n</table></div>\n</details>\n", out);
}

static void write_tap(FILE *out, const gemma4_report *report, const gemma4_tap_result *r)
{
    fprintf(out, "<tr id=\"t%zu\"%s><td>", (size_t)(r - report->taps), r->verdict == GEMMA4_DIVERGES ? " class=\"bad\"" : "");
    tap_code(out, r->tap, r->layer);
    fprintf(out, "</td><td class=\"l\">%s %s</td>", verdict_glyph(r->verdict), gemma4_verdict_name(r->verdict));
    fprintf(out, "<td>%s</td><td>%s</td><td class=\"l\">%s</td><td>%zu</td>", short_number(r->local.error).text,
            short_number(r->local.tolerance).text, metric_words(r->local.kind), r->local.position);
    if (has_numbers(r)) {
        fprintf(out, "<td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td>", short_number(r->added).text, known_number(r->inherited).text,
                short_number(r->metrics.relative_rms).text, full_number(r->metrics.cosine).text, full_number(r->metrics.norm_ratio).text);
        fprintf(out, "<td>%zu</td><td>%zu</td><td>%s</td><td>%s</td>", r->worst_position, r->worst_index, full_number(r->worst_engine).text,
                full_number(r->worst_expected).text);
    } else {
        fputs("<td>–</td><td>–</td><td>–</td><td>–</td><td>–</td><td>–</td><td>–</td><td>–</td><td>–</td>", out);
    }
    fputs("<td class=\"l wide\">", out);
    if (r->problem[0])
        foreign_text(out, r->problem);
    fputs("</td></tr>\n", out);
}

static void write_all_taps(FILE *out, const gemma4_report *report)
{
    size_t compared = 0;
    for (size_t i = 0; i < report->tap_count; i++)
        compared += report->taps[i].verdict != GEMMA4_NOT_COVERED;
    fprintf(out, "<details>\n<summary>Every compared tensor: %zu</summary>\n<p class=\"small muted\">Error and tolerance are of the step on the "
                 "engine’s own inputs, in spreads of honest rounding; added, inherited and accumulated are relative RMS.</p>\n"
                 "<div class=\"scroll\"><table class=\"list\">\n<thead><tr><th>tensor</th><th class=\"l\">verdict</th><th>error</th>"
                 "<th>tolerance</th><th class=\"l\">over</th><th>position</th><th>added</th><th>inherited</th><th>accumulated</th>"
                 "<th>cosine</th><th>norm ratio</th><th>worst position</th><th>index</th><th>yours</th><th>expected</th><th class=\"l\">problem</th>"
                 "</tr></thead>\n<tbody>\n", compared);
    for (size_t i = 0; i < report->tap_count; i++)
        if (report->taps[i].verdict != GEMMA4_NOT_COVERED)
            write_tap(out, report, &report->taps[i]);
    fputs("</tbody>\n</table></div>\n</details>\n", out);
}

void gemma4_report_html(FILE *out, const gemma4_report *report)
{
    begin(out, report->engine ? report->engine : "(unnamed)", report->conforms ? "conforms" : "does not conform");
    write_headline(out, report);
    write_first(out, report);
    write_causes(out, report);
    write_next(out, report);
    write_maps(out, report);
    write_growth(out, report);
    write_routing(out, report);
    fputs("<section>\n<h2>All numbers</h2>\n", out);
    write_coverage(out, report);
    write_all_taps(out, report);
    fputs("</section>\n", out);
    end(out);
}

void gemma4_report_html_unusable(FILE *out, const char *message)
{
    begin(out, "input", "cannot be judged");
    fputs("<header>\n<div class=\"banner unsure\"><h1>? CANNOT BE JUDGED</h1>\n<p>", out);
    foreign_text(out, message);
    fputs("</p></div>\n<p>Nothing was compared: this is neither a pass nor a failure of the engine.</p>\n</header>\n", out);
    end(out);
}
