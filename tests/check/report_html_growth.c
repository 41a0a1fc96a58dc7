/* The chart of how the error grows from layer to layer. */
#include <math.h>

#include "point.h"
#include "report_html_internal.h"

enum {
    CHART_WIDTH = 700,
    CHART_HEIGHT = 380,
    CHART_LEFT = 64,
    CHART_RIGHT = 16,
    CHART_TOP = 16,
    CHART_BOTTOM = 56
};

typedef struct chart {
    const gemma4_report *report;
    double lowest, highest; /* decades */
} chart;

/* What a layer's line shows: the error of its output with everything in it, or the largest that a
 * single step of it adds. NAN: none. */
static double growth(const gemma4_report *report, size_t layer, bool accumulated)
{
    double largest = NAN;
    if (accumulated) {
        const gemma4_tap_result *r = html_result_of(report, GEMMA4_TAP_LAYER_OUTPUT, layer);
        return r && gemma4_has_numbers(r) ? r->metrics.relative_rms : NAN;
    }
    for (size_t i = 0; i < report->tap_count; i++) {
        const gemma4_tap_result *r = &report->taps[i];
        if (gemma4_tap_describe(r->tap)->per_layer && r->layer == layer && gemma4_has_numbers(r))
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
    return CHART_TOP + (c->highest - decade) / (c->highest - c->lowest) *
                           (CHART_HEIGHT - CHART_TOP - CHART_BOTTOM);
}

static void write_axes(FILE *out, const chart *c)
{
    double every = ceil((c->highest - c->lowest) / 7);
    size_t layers = c->report->layers, label = layers > 16 ? 5 : 1;
    const gemma4_tap_result *first = c->report->first_divergence;
    if (first && gemma4_tap_describe(first->tap)->per_layer)
        fprintf(out,
                "<rect class=\"hit\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\"><title>the "
                "first divergence is in layer "
                "%zu</title></rect>\n",
                chart_x(c, first->layer) - 11, CHART_TOP, 22.0,
                CHART_HEIGHT - CHART_TOP - CHART_BOTTOM, first->layer);
    for (double decade = c->highest; decade >= c->lowest; decade -= every) {
        double y = chart_y(c, pow(10, decade));
        fprintf(out,
                "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%d\" "
                "y=\"%.1f\" "
                "text-anchor=\"end\">%s%.0f</text>\n",
                CHART_LEFT, CHART_WIDTH - CHART_RIGHT, y, y, CHART_LEFT - 6, y + 5,
                decade == 0 ? "" : "1e", decade == 0 ? 1 : decade);
    }
    for (size_t layer = 0; layer < layers; layer += label)
        fprintf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%zu</text>\n",
                chart_x(c, layer), CHART_HEIGHT - CHART_BOTTOM + 24, layer);
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
            fprintf(out, "<circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"4.5\">", x,
                    chart_y(c, value));
        else
            fprintf(out, "<rect class=\"box\" x=\"%.1f\" y=\"%.1f\" width=\"8\" height=\"8\">",
                    x - 4, chart_y(c, value) - 4);
        fprintf(out, "<title>layer %zu: %s</title></%s>\n", layer, html_short_number(value).text,
                accumulated ? "circle" : "rect");
    }
}

void html_growth(FILE *out, const gemma4_report *report)
{
    chart c = {.report = report};
    fputs("<section>\n<h2>How the error grows</h2>\n", out);
    if (chart_range(&c) == 0) {
        fputs("<p class=\"muted\">The dump holds no layer outputs: nothing to "
              "draw.</p>\n</section>\n",
              out);
        return;
    }
    fprintf(out,
            "<p>Relative RMS per layer. A steady rise is rounding; a jump in both lines is a step "
            "that goes wrong there; a jump in the "
            "first line alone came from elsewhere, such as another choice of experts.</p>\n"
            "<p class=\"legend\"><span><svg viewBox=\"0 0 34 10\" "
            "style=\"display:inline;width:34px\"><path class=\"whole\" d=\"M0 5L34 5\"/>"
            "<circle class=\"dot\" cx=\"17\" cy=\"5\" r=\"4.5\"/></svg> the layer’s output, with "
            "all earlier errors in it</span>"
            "<span><svg viewBox=\"0 0 34 10\" style=\"display:inline;width:34px\"><path "
            "class=\"step\" d=\"M0 5L34 5\"/>"
            "<rect class=\"box\" x=\"13\" y=\"1\" width=\"8\" height=\"8\"/></svg> the largest "
            "error that a single step of the layer "
            "adds</span></p>\n"
            "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"Relative RMS of the layers’ "
            "outputs, by layer\">\n",
            CHART_WIDTH, CHART_HEIGHT);
    write_axes(out, &c);
    write_line(out, &c, false);
    write_line(out, &c, true);
    fprintf(out,
            "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">layer</text>\n</svg>\n</section>\n",
            (CHART_LEFT + CHART_WIDTH - CHART_RIGHT) / 2, CHART_HEIGHT - 6);
}
