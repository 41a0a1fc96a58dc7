/* What a comparison of two dumps found, for a terminal and as JSON. */
#include <math.h>

#include "compare_dumps.h"
#include "text.h"
#include "version.h"

/* --- taps that one dump holds --- */

/* The index-th and the following that the other dump lacks; NULL after the last. */
static const gemma4_activation *next_missing(const gemma4_activations *file,
                                             const gemma4_activations *other, size_t *index)
{
    const gemma4_activation *a;
    while ((a = gemma4_activations_at(file, (*index)++)))
        if (!gemma4_activations_find(other, a->tap, a->layer))
            return a;
    return NULL;
}

static void text_missing(FILE *out, const char *which, const gemma4_activations *file,
                         const gemma4_activations *other)
{
    const gemma4_activation *a;
    char name[GEMMA4_TAP_NAME_SIZE];
    const char *separator = "";
    for (size_t i = 0; (a = next_missing(file, other, &i)); separator = ", ") {
        if (!*separator)
            fprintf(out, "only in %s   ", which);
        fprintf(out, "%s%s", separator, gemma4_tap_name(a->tap, a->layer, name));
    }
    if (*separator)
        fputc('\n', out);
}

static void json_missing(FILE *out, const char *key, const gemma4_activations *file,
                         const gemma4_activations *other)
{
    const gemma4_activation *a;
    char name[GEMMA4_TAP_NAME_SIZE];
    const char *separator = "";
    fprintf(out, "  \"%s\": [", key);
    for (size_t i = 0; (a = next_missing(file, other, &i)); separator = ", ")
        fprintf(out, "%s\"%s\"", separator, gemma4_tap_name(a->tap, a->layer, name));
    fputs("],\n", out);
}

/* --- the terminal --- */

static void text_dump(FILE *out, const char *which, const char *path,
                      const gemma4_activations *file)
{
    static const char *const said[] = {"engine", "engine_version", "dtype"};
    size_t unknown = gemma4_activations_unknown_count(file);
    const char *separator = ": ";
    fprintf(out, "%-10s ", which);
    gemma4_terminal_text(out, path);
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        const char *text = gemma4_activations_attribute(file, said[i]);
        if (!text)
            continue;
        fputs(separator, out);
        gemma4_terminal_text(out, text);
        separator = i == 0 ? " " : ", ";
    }
    if (unknown)
        fprintf(out, " (%zu dataset%s no tap)", unknown, unknown == 1 ? " is" : "s are");
    fputc('\n', out);
}

static void text_difference(FILE *out, const gemma4_tap_difference *r)
{
    const gemma4_metrics *m = &r->metrics;
    if (gemma4_tap_describe(r->tap)->ids) {
        if (r->other_sets)
            fprintf(out, "other sets at %zu of %zu positions, the first at %zu", r->other_sets,
                    r->positions, r->other_sets_position);
        else
            fputs("equal sets", out);
        return;
    }
    if (r->nonfinite)
        fprintf(out, "%zu NaN or infinite in one only, the first at position %zu, index %zu; ",
                r->nonfinite, r->nonfinite_position, r->nonfinite_index);
    if (r->worst > 0)
        fprintf(out, "%-13.3e %9.3e at %-6zu %.3e at %zu, %zu: %.9g, %.9g", m->relative_rms,
                m->position_rms, m->position, r->worst, r->worst_position, r->worst_index,
                (double)r->worst_a, (double)r->worst_b);
    else
        fputs(r->nonfinite ? "the others equal" : "equal", out);
}

static void text_tap(FILE *out, const gemma4_tap_difference *r, size_t T)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    fprintf(out, "%c %-30s ", r->differs ? '*' : ' ', gemma4_tap_name(r->tap, r->layer, name));
    gemma4_terminal_text(out, r->note);
    if (r->compared)
        text_difference(out, r);
    if (r->compared && r->positions < T)
        fprintf(out, "  (%zu of %zu positions)", r->positions, T);
    fputc('\n', out);
}

void gemma4_compare_text(FILE *out, const gemma4_dumps_compared *c)
{
    const int32_t *positions;
    size_t T = gemma4_activations_positions(c->a, NULL, &positions);
    char name[GEMMA4_TAP_NAME_SIZE];
    text_dump(out, "A", c->path_a, c->a);
    text_dump(out, "B", c->path_b, c->b);
    fprintf(out, "%-10s %zu, the first at %d\n", "tokens", T, positions[0]);
    fprintf(out, "\n  %-30s %-13s %-19s %s\n", "tap", "relative RMS", "worst position",
            "largest difference: where, A, B");
    for (size_t i = 0; i < c->count; i++)
        text_tap(out, &c->taps[i], T);
    fputc('\n', out);
    text_missing(out, "A", c->a, c->b);
    text_missing(out, "B", c->b, c->a);
    if (c->first)
        fprintf(out, "DIFFERENT: %zu of the %zu taps that both hold, the first is %s", c->differing,
                c->count, gemma4_tap_name(c->first->tap, c->first->layer, name));
    else
        fprintf(out, "THE SAME in %zu of the %zu taps that both hold", c->compared, c->count);
    if (c->tolerance > 0)
        fprintf(out, " (tolerance %g)", c->tolerance);
    fputc('\n', out);
}

/* --- JSON --- */

static void json_begin(FILE *out, const char *verdict)
{
    fputs("{\n  \"format\": \"gemma4-comparison\",\n  \"format_version\": 1,\n  ", out);
    gemma4_json_field(out, "version", gemma4_version());
    fprintf(out, ",\n  \"verdict\": \"%s\",\n  ", verdict);
}

static void json_dump(FILE *out, const char *key, const char *path, const gemma4_activations *file)
{
    fprintf(out, "  \"%s\": {", key);
    gemma4_json_field(out, "file", path);
    fputs(", ", out);
    gemma4_json_field(out, "engine", gemma4_activations_attribute(file, "engine"));
    fputs(", ", out);
    gemma4_json_field(out, "engine_version", gemma4_activations_attribute(file, "engine_version"));
    fputs(", ", out);
    gemma4_json_field(out, "dtype", gemma4_activations_attribute(file, "dtype"));
    fputs("},\n", out);
}

static void json_reals(FILE *out, const gemma4_tap_difference *r)
{
    fputs(", \"relative_rms\": ", out);
    gemma4_json_number(out, r->metrics.relative_rms);
    fputs(", \"position_rms\": ", out);
    gemma4_json_number(out, r->metrics.position_rms);
    fprintf(out, ", \"position\": %zu, \"nonfinite\": %zu, \"worst\": ", r->metrics.position,
            r->nonfinite);
    if (r->worst < 0) { /* no value is finite in both */
        fputs("null", out);
        return;
    }
    fprintf(out, "[%zu, %zu, ", r->worst_position, r->worst_index);
    gemma4_json_number(out, (double)r->worst_a);
    fputs(", ", out);
    gemma4_json_number(out, (double)r->worst_b);
    fputs("]", out);
}

static void json_tap(FILE *out, const gemma4_tap_difference *r)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    fprintf(out, "    {\"tap\": \"%s\", \"differs\": %s, \"positions\": %zu",
            gemma4_tap_name(r->tap, r->layer, name), r->differs ? "true" : "false", r->positions);
    if (*r->note) {
        fputs(", ", out);
        gemma4_json_field(out, "note", r->note);
    }
    if (r->compared && gemma4_tap_describe(r->tap)->ids)
        fprintf(out, ", \"other_sets\": %zu", r->other_sets);
    else if (r->compared)
        json_reals(out, r);
    fputs("}", out);
}

void gemma4_compare_json(FILE *out, const gemma4_dumps_compared *c)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    json_begin(out, c->first ? "DIFFERENT" : "SAME");
    fputs("\"tolerance\": ", out);
    gemma4_json_number(out, c->tolerance);
    fputs(",\n", out);
    json_dump(out, "a", c->path_a, c->a);
    json_dump(out, "b", c->path_b, c->b);
    fprintf(out, "  \"positions\": %zu,\n  ", gemma4_activations_positions(c->a, NULL, NULL));
    gemma4_json_field(out, "first_difference",
                      c->first ? gemma4_tap_name(c->first->tap, c->first->layer, name) : NULL);
    fputs(",\n", out);
    json_missing(out, "only_in_a", c->a, c->b);
    json_missing(out, "only_in_b", c->b, c->a);
    fputs("  \"taps\": [", out);
    for (size_t i = 0; i < c->count; i++) {
        fputs(i ? ",\n" : "\n", out);
        json_tap(out, &c->taps[i]);
    }
    fputs("\n  ]\n}\n", out);
}

void gemma4_compare_json_unusable(FILE *out, const char *message)
{
    json_begin(out, "UNUSABLE");
    gemma4_json_field(out, "message", message);
    fputs("\n}\n", out);
}
