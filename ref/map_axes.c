/* `axes` and `slice` of a rule. */
#include "map.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* The letters of the tap's shape, the position first: "thd". The keys of scores and probs are 's',
 * so that no letter comes twice. */
static void tap_letters(const gemma4_map_rule *rule, char letters[GEMMA4_MAP_GROUP_MAX + 1])
{
    const char *shape = rule->target == GEMMA4_MAP_TAP ? gemma4_tap_describe(rule->tap)->shape : "";
    size_t count = 1;
    letters[0] = 't';
    for (; *shape; shape++)
        letters[count++] = *shape == 'T' ? 's' : (char)tolower((unsigned char)*shape);
    letters[count] = '\0';
}

static int fail(const gemma4_map_rule *rule, const char *key, const char *what, gemma4_error *error)
{
    char letters[GEMMA4_MAP_GROUP_MAX + 1], expected[200];
    tap_letters(rule, letters);
    snprintf(expected, sizeof expected, "%s (the tap's axes are '%s')", what, letters);
    return gemma4_node_fail(gemma4_node_get(rule->node, key), expected, error);
}

/* "n", "n+1", "n-1". */
static bool read_layer_axis(gemma4_map_axis *axis, const char *word)
{
    size_t length = strlen(word);
    if (tolower((unsigned char)word[0]) != 'n')
        return false;
    if (length > 1 &&
        !((word[1] == '+' || word[1] == '-') && length == 3 && isdigit((unsigned char)word[2])))
        return false;
    axis->letters[0] = 'n';
    axis->shift = length == 3 ? (word[1] == '-' ? -1 : 1) * (word[2] - '0') : 0;
    return true;
}

/* One word of `axes`: a letter, letters joined by '.', "1", or the layers' axis. */
static bool read_axis(gemma4_map_axis *axis, const char *word)
{
    size_t count = 0;
    snprintf(axis->written, sizeof axis->written, "%s", word);
    if (!strcmp(word, "1")) {
        axis->letters[0] = '1';
        return true;
    }
    if (read_layer_axis(axis, word))
        return true;
    for (const char *c = word;; c += 2) {
        if (!isalpha((unsigned char)c[0]) || count == GEMMA4_MAP_GROUP_MAX || (c[1] && c[1] != '.'))
            return false;
        axis->letters[count++] = (char)tolower((unsigned char)c[0]);
        if (!c[1])
            return true;
    }
}

/* Two t of scores and probs, as in 'h t t': the queries' positions, then the keys'. */
static void name_keys(gemma4_map_rule *rule)
{
    bool queries = false;
    for (size_t i = 0; i < rule->axis_count; i++)
        for (char *c = rule->axes[i].letters; *c; c++) {
            if (*c == 't' && queries)
                *c = 's';
            queries |= *c == 't';
        }
}

static int read_words(gemma4_map_rule *rule, const char *text, gemma4_error *error)
{
    while (*(text += strspn(text, " \t,"))) {
        size_t length = strcspn(text, " \t,");
        char word[16];
        if (rule->axis_count == GEMMA4_MAP_AXES_MAX || length >= sizeof word)
            return fail(rule, "axes", "at most 8 axes, each a letter or letters joined by '.'",
                        error);
        snprintf(word, sizeof word, "%.*s", (int)length, text);
        if (!read_axis(&rule->axes[rule->axis_count++], word))
            return fail(rule, "axes",
                        "axes with blanks between them, each a letter, letters joined by '.', 1, "
                        "or n for the layers",
                        error);
        text += length;
    }
    return rule->axis_count ? 0 : fail(rule, "axes", "at least one axis", error);
}

/* Every letter of the tap once; the position first in its axis; the tap has no other letters but
 * those that a slice picks. */
static int check_letters(const gemma4_map_rule *rule, gemma4_error *error)
{
    char letters[GEMMA4_MAP_GROUP_MAX + 1];
    tap_letters(rule, letters);
    for (const char *c = letters; *c; c++) {
        size_t found = 0;
        for (size_t i = 0; i < rule->axis_count; i++)
            for (const char *own = rule->axes[i].letters; *own; own++)
                found += *own == *c;
        if (found != 1)
            return fail(rule, "axes", "every axis of the tap once", error);
    }
    for (size_t i = 0; i < rule->axis_count; i++) {
        const gemma4_map_axis *axis = &rule->axes[i];
        bool alone = axis->letters[1] == '\0',
             foreign = alone && !strchr(letters, axis->letters[0]);
        const char *position = strchr(axis->letters, 't');
        if (position && position != axis->letters)
            return fail(rule, "axes", "the position as the first letter of its axis", error);
        for (const char *c = axis->letters; *c && !alone; c++)
            if (!strchr(letters, *c))
                return fail(rule, "axes", "axes joined of the tap's own letters", error);
        if (foreign && !strchr("1ni", axis->letters[0]) && axis->cut != GEMMA4_MAP_PICK)
            return fail(
                rule, "axes",
                "an axis that the tap does not have to be picked by slice, as {b: 0}, or to be 1",
                error);
        if (foreign && strchr("ni", axis->letters[0]) && rule->where != GEMMA4_MAP_EACH)
            return fail(rule, "axes", "a layers' axis only in a rule for each layer", error);
    }
    return 0;
}

/* --- slices --- */

static int read_bound(const gemma4_map_rule *rule, const gemma4_node *node, gemma4_map_bound *bound,
                      gemma4_error *error)
{
    char letters[GEMMA4_MAP_GROUP_MAX + 1];
    tap_letters(rule, letters);
    if (node->kind == GEMMA4_SCALAR && node->text[0] && !node->text[1] &&
        isalpha((unsigned char)node->text[0])) {
        bound->letter = (char)tolower((unsigned char)node->text[0]);
        return strchr(letters, bound->letter)
                   ? 0
                   : gemma4_node_fail(node, "a number, or a letter of the tap's axes", error);
    }
    return gemma4_node_int(node, -(INT64_C(1) << 40), INT64_C(1) << 40, &bound->number, error);
}

static int read_slice(gemma4_map_rule *rule, const char *key, const gemma4_node *value,
                      gemma4_error *error)
{
    gemma4_map_axis *axis = NULL;
    for (size_t i = 0; i < rule->axis_count; i++)
        if (!strcasecmp(rule->axes[i].written, key))
            axis = &rule->axes[i];
    if (!axis)
        return gemma4_node_fail(value, "a slice of an axis that axes names", error);
    if (value->kind == GEMMA4_SEQUENCE) {
        if (value->count != 2)
            return gemma4_node_fail(value, "two bounds, [first, one past the last]", error);
        axis->cut = GEMMA4_MAP_SLICE;
        return read_bound(rule, &value->items[0], &axis->begin, error) ||
                       read_bound(rule, &value->items[1], &axis->end, error)
                   ? -1
                   : 0;
    }
    char letters[GEMMA4_MAP_GROUP_MAX + 1];
    tap_letters(rule, letters);
    if (axis->letters[1] || strchr(letters, axis->letters[0]))
        return gemma4_node_fail(
            value, "two bounds, [first, one past the last]: the tap has this axis", error);
    axis->cut = GEMMA4_MAP_PICK;
    return read_bound(rule, value, &axis->begin, error);
}

int gemma4_map_read_axes(gemma4_map_rule *rule, gemma4_error *error)
{
    const gemma4_node *axes = gemma4_node_get(rule->node, "axes"),
                      *slice = gemma4_node_get(rule->node, "slice");
    const char *text;
    if (slice && !axes)
        return gemma4_node_fail(slice, "axes beside a slice", error);
    if (!axes)
        return 0;
    rule->has_axes = true;
    if (gemma4_node_string(axes, &text, error) || read_words(rule, text, error))
        return -1;
    name_keys(rule);
    if (slice && slice->kind != GEMMA4_MAPPING)
        return gemma4_node_fail(slice, "a mapping from axes to bounds", error);
    for (size_t i = 0; slice && i < slice->count; i++)
        if (read_slice(rule, slice->keys[i], &slice->items[i], error))
            return -1;
    return check_letters(rule, error);
}
