/* Which tensors a rule is about. */
#include "config.h"
#include "map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool gemma4_pattern_matches(const char *pattern, const char *name)
{
    const char *star = NULL, *again = NULL; /* the last '*', and where the text after it was
                                               tried */
    while (*name) {
        if (*pattern == '*') {
            star = pattern++;
            again = name;
        } else if (*pattern == *name) {
            pattern++;
            name++;
        } else if (star) {
            pattern = star + 1;
            name = ++again;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == '\0';
}

/* "{N}", "{N+1}", "{N-1}" at text: its length, and what is added to N; 0 where there is none. */
static size_t placeholder(const char *text, int *shift)
{
    *shift = 0;
    if (strncmp(text, "{N", 2))
        return 0;
    if (text[2] == '}')
        return 3;
    if ((text[2] != '+' && text[2] != '-') || text[3] < '0' || text[3] > '9' || text[4] != '}')
        return 0;
    *shift = (text[2] == '-' ? -1 : 1) * (text[3] - '0');
    return 5;
}

/* Writes the pattern for that layer; without a config {L} may be anything. False where there is no
 * such layer, or the text is too long. */
static bool write_pattern(const char *from, const gemma4_config *config, size_t layer, char *text,
                          size_t size)
{
    size_t used = 0;
    while (*from && used + 24 < size) {
        int shift;
        size_t length = placeholder(from, &shift);
        if (length && shift < 0 && layer < (size_t)-shift)
            return false;
        if (!strncmp(from, "{L}", 3)) {
            used += config ? (size_t)snprintf(text + used, size - used, "%zu",
                                              config->num_hidden_layers)
                           : (text[used] = '*', 1u);
            length = 3;
        } else if (length)
            used += (size_t)snprintf(text + used, size - used, "%zu", layer + (size_t)shift);
        else
            text[used++] = *from;
        from += length ? length : 1;
    }
    text[used] = '\0';
    return *from == '\0';
}

bool gemma4_map_matches(const gemma4_map_rule *rule, const gemma4_config *config, size_t layer,
                        const char *name)
{
    char pattern[1024];
    return write_pattern(rule->from, config, layer, pattern, sizeof pattern) &&
           gemma4_pattern_matches(pattern, name);
}

/* Every number in the name may be the layer's. */
bool gemma4_map_matches_any(const gemma4_map_rule *rule, const char *name, size_t *layer)
{
    const char *at = strstr(rule->from, "{N");
    int shift = 0;
    if (!at)
        return gemma4_map_matches(rule, NULL, 0, name);
    placeholder(at, &shift);
    for (const char *c = name; *c; c++) {
        size_t digits = strspn(c, "0123456789");
        if (digits == 0 || digits > 6)
            continue;
        long number = strtol(c, NULL, 10) - shift;
        if (number >= 0 && gemma4_map_matches(rule, NULL, (size_t)number, name)) {
            *layer = (size_t)number;
            return true;
        }
        c += digits - 1;
    }
    return false;
}

bool gemma4_map_covers(const gemma4_map_rule *rule, const gemma4_config *config, size_t layer,
                       size_t *place)
{
    *place = layer;
    if (rule->target != GEMMA4_MAP_TAP || !gemma4_tap_describe(rule->tap)->per_layer)
        return layer == 0;
    if (layer >= config->num_hidden_layers ||
        (rule->where == GEMMA4_MAP_ONE && layer != rule->layer) ||
        (rule->where == GEMMA4_MAP_LAST && layer + 1 != config->num_hidden_layers))
        return false;
    if (rule->kind == GEMMA4_MAP_BUT_LAST && layer + 1 == config->num_hidden_layers)
        return false;
    if ((rule->kind == GEMMA4_MAP_FULL || rule->kind == GEMMA4_MAP_SLIDING) &&
        (rule->kind == GEMMA4_MAP_FULL) != (config->layers[layer].kind == GEMMA4_FULL))
        return false;
    for (size_t i = 0; i < rule->layer_count; i++)
        if (rule->layers[i] == layer) {
            *place = i;
            return true;
        }
    return rule->layer_count == 0;
}
