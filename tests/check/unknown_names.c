#include "unknown_names.h"

#include <stdio.h>
#include <string.h>

#include "near_names.h"

/* Whether two names are one but for their numbers: the same misspelling in another layer. */
static bool same_but_numbers(const char *a, const char *b)
{
    static const char digits[] = "0123456789";
    for (; *a && *b; a++, b++) {
        size_t m = strspn(a, digits), n = strspn(b, digits);
        if ((m == 0) != (n == 0) || (m == 0 && *a != *b))
            return false;
        a += m ? m - 1 : 0;
        b += n ? n - 1 : 0;
    }
    return *a == *b;
}

/* The tap that the i-th unknown dataset comes near, unless the dump has that too; a path where the
 * dataset's name is one. */
static const char *meant_by(const gemma4_activations *engine, size_t i,
                            char near[GEMMA4_TAP_NAME_SIZE])
{
    const char *name = gemma4_activations_unknown_at(engine, i);
    gemma4_tap tap;
    size_t layer;
    if (!name || !gemma4_near_name(name, near) || !strcmp(near, "tokens") ||
        (gemma4_tap_parse(near, &tap, &layer) && gemma4_activations_find(engine, tap, layer)))
        return NULL;
    for (char *c = near; *name == '/' && *c; c++)
        *c = *c == '.' ? '/' : *c;
    return near;
}

/* How many unknown datasets are misspelt as the i-th is; 0 where an earlier one was. */
static size_t count_like(const gemma4_activations *engine, size_t i)
{
    const char *name = gemma4_activations_unknown_at(engine, i), *other;
    size_t like = 0;
    for (size_t j = 0; (other = gemma4_activations_unknown_at(engine, j)); j++) {
        bool same = same_but_numbers(name, other);
        if (same && j < i)
            return 0;
        like += same;
    }
    return like;
}

static void warn_of(gemma4_report *report, const char *name, const char *near, size_t like)
{
    char others[48] = "";
    if (like > 1)
        snprintf(others, sizeof others, " (and %zu like it)", like - 1);
    if (strcmp(name, near))
        gemma4_report_warn(report, "%.64s%s is no tap and was ignored: did you mean %s?", name,
                           others, near);
    else
        gemma4_report_warn(report, "%.64s%s was ignored: the model has %zu layers, counted from 0",
                           name, others, report->layers);
}

void gemma4_note_unknown(const gemma4_activations *engine, gemma4_report *report)
{
    enum { MOST_WARNINGS = 8 };
    size_t near_count = 0, warnings = 0, others = gemma4_activations_unknown_count(engine);
    const char *name, *other = NULL;
    for (size_t i = 0; (name = gemma4_activations_unknown_at(engine, i)); i++) {
        char near[GEMMA4_TAP_NAME_SIZE];
        if (!meant_by(engine, i, near)) {
            other = other ? other : name;
            continue;
        }
        near_count++;
        size_t like = count_like(engine, i);
        if (like && warnings++ < MOST_WARNINGS)
            warn_of(report, name, near, like);
    }
    if (warnings > MOST_WARNINGS)
        gemma4_report_warn(report, "and %zu more names that come near a tap's",
                           warnings - MOST_WARNINGS);
    others -= near_count;
    if (others)
        gemma4_report_note(report, "%zu dataset%s no tap and ignored: %.60s%s", others,
                           others == 1 ? " is" : "s are", other ? other : "...",
                           others == 1 || !other ? "" : ", ...");
}
