/* A cause that is in no catalogue: its parameters, wrong beside right, and a picture where one
 * looks rather than reads. */
#include <math.h>
#include <string.h>

#include "causes.h"
#include "compare.h"
#include "counter_changes.h"
#include "model.h"
#include "ops.h"
#include "point.h"
#include "report_html_internal.h"
#include "schedule.h"
#include "text.h"

/* ------------------------------------------------------------- parameters */

static void write_cell(FILE *out, const char *class, const char *text)
{
    fprintf(out, "<td class=\"l wide%s\">", class);
    gemma4_xml_text(out, text[0] ? text : "–");
    fputs("</td>", out);
}

static void write_value(FILE *out, const gemma4_point *p, size_t i, const gemma4_config *c,
                        size_t layer)
{
    char value[400], text[480];
    gemma4_setting_value(&p->settings[i], c, layer, value, sizeof value);
    snprintf(text, sizeof text, "%s%s%s", value, p->expression[i][0] ? " = " : "",
             p->expression[i]);
    write_cell(out, " wrong", text);
}

/* What the evidence leaves open; a dash where the value was tried and not solved for. */
static void write_interval(FILE *out, const gemma4_point *p, size_t i)
{
    char text[80] = "";
    if (gemma4_parameter_describe(p->settings[i].parameter)->domain == GEMMA4_DOMAIN_REAL &&
        p->high[i] > p->low[i])
        snprintf(text, sizeof text, "%.6g to %.6g", p->low[i], p->high[i]);
    write_cell(out, "", text);
}

/* The steps, or the weights that they read. */
static void write_steps(FILE *out, const gemma4_setting *s, uint64_t steps)
{
    bool first = true,
         of_weight = !strncmp(gemma4_parameter_describe(s->parameter)->name, "weight", 6);
    fputs("<td class=\"l wide\">", out);
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        if (steps & GEMMA4_STEP(tap)) {
            fprintf(out, "%s<code>%s</code>", first ? "" : ", ",
                    of_weight ? gemma4_tensor_of_step((gemma4_tap)tap)
                              : gemma4_tap_describe((gemma4_tap)tap)->name);
            first = false;
        }
    fputs("</td>", out);
}

static void write_parameters(FILE *out, const gemma4_config *c, const gemma4_cause *cause)
{
    const gemma4_point *p = cause->point;
    static const char *const heads[] = {"parameter", "✕ yours", "✓ expected", "between", "at"};
    fputs("<div class=\"scroll\"><table class=\"list identified\">\n<thead><tr>", out);
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        fprintf(out, "<th scope=\"col\" class=\"l\">%s</th>", heads[i]);
    fputs("</tr></thead>\n<tbody>\n", out);
    for (size_t i = 0; i < p->count; i++) {
        char expected[400];
        gemma4_setting_expected(&p->settings[i], c, cause->first_layer, expected, sizeof expected);
        fprintf(out, "<tr><td><code>%s</code></td>",
                gemma4_parameter_describe(p->settings[i].parameter)->name);
        write_value(out, p, i, c, cause->first_layer);
        write_cell(out, " right", expected[0] ? expected : "as spec/model.md says");
        write_interval(out, p, i);
        write_steps(out, &p->settings[i], cause->places[i] | p->settings[i].steps);
        fputs("</tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
}

/* ------------------------------------------------------------------- masks */

enum { PICTURE = 240, MOST_CELLS = 96, MARGIN = 22 };

/* The mask seen and the mask due; of many positions every `step`th. */
typedef struct masks {
    const gemma4_config *c;
    size_t layer, cells, step;
    const gemma4_setting *seen;
    gemma4_setting due;
} masks;

static bool leaves(const masks *m, const gemma4_setting *mask, size_t query, size_t key)
{
    return gemma4_mask_leaves(m->c, m->layer, mask, SIZE_MAX, query * m->step, key * m->step);
}

/* How a cell is drawn: NULL, not at all. */
static const char *cell_class(const masks *m, bool is_seen, size_t query, size_t key)
{
    bool seen = leaves(m, m->seen, query, key), due = leaves(m, &m->due, query, key);
    if (!is_seen)
        return due ? "due" : NULL;
    return seen && due ? "due" : seen ? "more" : due ? "less" : NULL;
}

/* Runs of equal cells in a row are one rectangle. */
static void draw_mask(FILE *out, const masks *m, bool is_seen)
{
    double size = (double)PICTURE / (double)m->cells;
    fprintf(out,
            "<div class=\"picture\"><p>%s</p>\n<svg viewBox=\"0 0 %d %d\" "
            "role=\"img\"><title>%s</title>\n"
            "<rect class=\"frame\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/>\n",
            is_seen ? "✕ keys that yours sees" : "✓ keys that are due", PICTURE + MARGIN + 2,
            PICTURE + MARGIN + 2, is_seen ? "the mask of the engine" : "the mask of the model",
            MARGIN, MARGIN, PICTURE, PICTURE);
    for (size_t query = 0; query < m->cells; query++)
        for (size_t key = 0, end; key < m->cells; key = end) {
            const char *class = cell_class(m, is_seen, query, key);
            for (end = key + 1; end < m->cells && cell_class(m, is_seen, query, end) == class;
                 end++)
                ;
            if (class)
                fprintf(
                    out,
                    "<rect class=\"%s\" x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\"/>\n",
                    class, MARGIN + size * (double)key, MARGIN + size * (double)query,
                    size * (double)(end - key), size);
        }
    fprintf(out,
            "<text x=\"%d\" y=\"14\">key 0 to %zu</text><text x=\"14\" y=\"%d\" "
            "class=\"up\">query</text>\n</svg></div>\n",
            MARGIN, (m->cells - 1) * m->step, MARGIN + 40);
}

static void draw_masks(FILE *out, const gemma4_config *c, size_t layer, size_t positions,
                       const gemma4_setting *seen)
{
    masks m = {
        .c = c, .layer = layer, .step = (positions + MOST_CELLS - 1) / MOST_CELLS, .seen = seen};
    m.due = (gemma4_setting){
        .parameter = GEMMA4_PARAMETER_WINDOW,
        .number = c->layers[layer].kind == GEMMA4_SLIDING ? (double)c->sliding_window : INFINITY};
    if (positions == 0)
        return;
    m.cells = positions / m.step;
    fputs("<div class=\"pictures\">\n", out);
    draw_mask(out, &m, true);
    draw_mask(out, &m, false);
    fputs("</div>\n<p class=\"legend\"><span><i class=\"due\"></i>seen and due</span><span><i "
          "class=\"more\"></i>seen, not due</span>"
          "<span><i class=\"less\"></i>due, not seen</span></p>\n",
          out);
}

/* -------------------------------------------------------------- activation */

enum { CURVE_POINTS = 120 };

/* A curve over -range ... range, from -range / 4 up; a browser cuts off what leaves the picture. */
static void draw_curve(FILE *out, const gemma4_setting *function, double range, const char *class)
{
    fprintf(out, "<polyline class=\"%s\" points=\"", class);
    for (int i = 0; i <= CURVE_POINTS; i++) {
        double x = range * (2.0 * i / CURVE_POINTS - 1),
               y = function ? gemma4_function_at(function, x) : gemma4_gelu_tanh(x);
        double shown = fmax(-4 * range, fmin(4 * range, y));
        fprintf(out, "%s%.1f,%.1f", i ? " " : "", 400 * (x + range) / (2 * range),
                250 * (range - shown) / (1.25 * range));
    }
    fputs("\"/>\n", out);
}

static void draw_activation(FILE *out, const gemma4_setting *function)
{
    bool limited =
        function->word == GEMMA4_FUNCTION_CLAMPED || function->word == GEMMA4_FUNCTION_OF_CLAMPED;
    double range = limited ? fmax(4, 1.5 * function->number) : 4;
    fputs("<div class=\"pictures\"><div class=\"picture curve\">\n<svg viewBox=\"0 0 400 250\" "
          "role=\"img\">"
          "<title>both activation functions</title>\n"
          "<line class=\"grid\" x1=\"200\" y1=\"0\" x2=\"200\" y2=\"250\"/><line class=\"grid\" "
          "x1=\"0\" y1=\"200\" x2=\"400\" "
          "y2=\"200\"/>\n",
          out);
    draw_curve(out, NULL, range, "whole");
    draw_curve(out, function, range, "step");
    fprintf(out,
            "<text x=\"4\" y=\"216\">-%s</text><text x=\"376\" y=\"216\">%s</text><text x=\"206\" "
            "y=\"14\">%s</text>\n</svg></div></div>\n"
            "<p class=\"legend\"><span>dashed: yours</span><span>solid: gelu_tanh, as "
            "expected</span></p>\n",
            html_short_number(range).text, html_short_number(range).text,
            html_short_number(range).text);
}

/* ------------------------------------------------------------------- heads */

static void write_heads(FILE *out, const gemma4_config *c, size_t layer, const gemma4_setting *s)
{
    size_t ratio = c->num_attention_heads / c->layers[layer].num_key_value_heads;
    fputs("<div class=\"scroll\"><table class=\"list heads\">\n<tbody><tr><th scope=\"row\">query "
          "head</th>",
          out);
    for (size_t h = 0; h < s->count; h++)
        fprintf(out, "<th scope=\"col\">%zu</th>", h);
    fputs("</tr>\n<tr><th scope=\"row\">✕ yours reads KV head</th>", out);
    for (size_t h = 0; h < s->count; h++)
        fprintf(out, "<td%s>%.0f</td>", s->list[h] != (double)(h / ratio) ? " class=\"wrong\"" : "",
                s->list[h]);
    fputs("</tr>\n<tr><th scope=\"row\">✓ expected</th>", out);
    for (size_t h = 0; h < s->count; h++)
        fprintf(out, "<td>%zu</td>", h / ratio);
    fputs("</tr></tbody></table></div>\n", out);
}

/* ----------------------------------------------------------------- the card */

static void draw_setting(FILE *out, const gemma4_config *c, size_t layer, size_t positions,
                         const gemma4_setting *s)
{
    switch (s->parameter) {
    case GEMMA4_PARAMETER_WINDOW:
    case GEMMA4_PARAMETER_MASK: draw_masks(out, c, layer, positions, s); return;
    case GEMMA4_PARAMETER_ACTIVATION: draw_activation(out, s); return;
    case GEMMA4_PARAMETER_KV_HEAD_OF:
    case GEMMA4_PARAMETER_K_HEAD_OF:
    case GEMMA4_PARAMETER_V_HEAD_OF: write_heads(out, c, layer, s); return;
    default: return;
    }
}

void html_identified_names(FILE *out, const gemma4_point *point)
{
    for (size_t i = 0; i < point->count; i++)
        fprintf(out, "%s<code>%s</code>", i ? ", " : "",
                gemma4_parameter_describe(point->settings[i].parameter)->name);
}

void html_identified(FILE *out, const gemma4_config *config, size_t positions,
                     const gemma4_cause *cause)
{
    write_parameters(out, config, cause);
    for (size_t i = 0; i < cause->point->count; i++)
        draw_setting(out, config, cause->first_layer, positions, &cause->point->settings[i]);
}

void html_identified_facts(FILE *out, const gemma4_cause *cause)
{
    fprintf(out, "<dt>Positions</dt><dd>%s</dd>\n",
            cause->scope == GEMMA4_EVERYWHERE ? "all" : gemma4_scope_text(cause->scope));
    fputs("<dt>In no catalogue</dt><dd>found by its parameters; spec/space.md says what they "
          "mean</dd>\n",
          out);
}
