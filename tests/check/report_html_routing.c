/* What became of the choices of experts. */
#include "point.h"
#include "report_html_internal.h"

static void write_count(FILE *out, size_t count, const char *name, const char *meaning)
{
    fprintf(out, "<span class=\"n\">%zu</span><span>%s</span><span>%s</span>\n", count, name,
            meaning);
}

void html_routing(FILE *out, const gemma4_report *report)
{
    const gemma4_routing *r = &report->routing;
    fputs("<section>\n<h2>Routing</h2>\n", out);
    if (r->decisions + r->inferred + r->near_ties == 0) {
        fputs("<p class=\"muted\">The dump shows no choice of experts.</p>\n</section>\n", out);
        return;
    }
    if (r->faults)
        fprintf(out,
                "<p><span class=\"fail-text\">✕ %zu choice%s of experts cannot be explained by "
                "rounding.</span> The router is at fault "
                "there, or "
                "the way the experts are picked.</p>\n",
                r->faults, html_plural(r->faults));
    else if (r->excused + r->inferred)
        fprintf(out,
                "<p>%zu choice%s of experts differ%s from the exact one, and rounding explains %s. "
                "No fault.</p>\n",
                r->excused + r->inferred, html_plural(r->excused + r->inferred),
                r->excused + r->inferred == 1 ? "s" : "",
                r->excused + r->inferred == 1 ? "it" : "them");
    else
        fputs("<p>Every choice of experts is the exact one.</p>\n", out);
    fputs("<div class=\"counts\">\n", out);
    write_count(out, r->decisions, "decisions",
                "choices of experts in the dump: one a position and layer");
    write_count(out, r->faults, "faults",
                "experts that are not those of the engine’s own router logits, and rounding does "
                "not explain it");
    write_count(out, r->excused, "excused",
                "other experts, but so close that rounding decides: either choice is right");
    write_count(out, r->inferred, "inferred",
                "choices that the dump does not show; what follows fits another close choice "
                "better than the exact one");
    write_count(out, r->near_ties, "near-ties",
                "choices so close that rounding at this precision may turn them: what an honest "
                "engine may differ in");
    write_count(out, r->swaps, "swapped experts",
                "chosen experts that are not among those with the largest logits, in excused and "
                "faulty choices together");
    fputs("</div>\n</section>\n", out);
}
