/* A rule as YAML. */
#include <string.h>

#include "names_internal.h"

void gemma4_yaml_quoted(FILE *out, const char *text)
{
    fputc('\'', out);
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            fputc('?', out);
        else
            fputs((char[]){*text, *text == '\'' ? '\'' : '\0', '\0'}, out);
    }
    fputc('\'', out);
}

static void write_bound(FILE *out, const gemma4_map_bound *bound)
{
    if (bound->letter)
        fputc(bound->letter, out);
    else
        fprintf(out, "%lld", (long long)bound->number);
}

static void write_slices(FILE *out, const gemma4_map_rule *rule)
{
    const char *separator = ", slice: {";
    for (size_t i = 0; i < rule->axis_count; i++) {
        const gemma4_map_axis *axis = &rule->axes[i];
        if (axis->cut == GEMMA4_MAP_WHOLE)
            continue;
        fprintf(out, "%s%s: %s", separator, axis->written,
                axis->cut == GEMMA4_MAP_SLICE ? "[" : "");
        write_bound(out, &axis->begin);
        if (axis->cut == GEMMA4_MAP_SLICE) {
            fputs(", ", out);
            write_bound(out, &axis->end);
            fputc(']', out);
        }
        separator = ", ";
    }
    if (separator[2] == '\0')
        fputc('}', out);
}

static void write_layers(FILE *out, const gemma4_map_rule *rule)
{
    if (rule->kind)
        fprintf(out, ", layers: %s", gemma4_map_kind_name(rule->kind));
    for (size_t i = 0; i < rule->layer_count; i++)
        fprintf(out, "%s%zu%s", i ? ", " : ", layers: [", rule->layers[i],
                i + 1 == rule->layer_count ? "]" : "");
}

static void write_rows(FILE *out, const gemma4_map_rule *rule)
{
    if (rule->rows == GEMMA4_MAP_LAST_ROWS)
        fputs(", rows: last", out);
    for (size_t i = 0; i < rule->position_count; i++)
        fprintf(out, "%s%lld%s", i ? ", " : ", rows: [", (long long)rule->positions[i],
                i + 1 == rule->position_count ? "]" : "");
}

void gemma4_rule_yaml(FILE *out, const gemma4_map_rule *rule)
{
    fputs("{from: ", out);
    gemma4_yaml_quoted(out, rule->from);
    for (size_t i = 0; i < rule->axis_count; i++)
        fprintf(out, "%s%s%s", i ? " " : ", axes: '", rule->axes[i].written,
                i + 1 == rule->axis_count ? "'" : "");
    write_slices(out, rule);
    for (size_t i = 0; i < rule->split_count; i++)
        fprintf(out, "%s%s%s", i ? ", " : ", split: [", gemma4_tap_describe(rule->split[i])->name,
                i + 1 == rule->split_count ? "]" : "");
    write_layers(out, rule);
    write_rows(out, rule);
    if (rule->scale != 0)
        fprintf(out, ", scale: %.17g", rule->scale);
    fputs(rule->bfloat16 ? ", dtype: bfloat16}" : "}", out);
}
