#include "maps.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "manifest.h"

const char *gemma4_maps_dir(void)
{
    static char path[4096 + 32];
    const char *cases = gemma4_cases_dir();
    if (!cases)
        return NULL;
    snprintf(path, sizeof path, "%.*smaps", (int)(strlen(cases) - strlen("cases")), cases);
    return path;
}

/* "./mine.yaml" and "mine.yaml" are paths; "llama.cpp" is the name of a map. */
gemma4_map *gemma4_map_open(const char *where, gemma4_error *error)
{
    char path[4096];
    const char *directory = gemma4_maps_dir();
    bool named = directory && !strchr(where, '/') &&
                 snprintf(path, sizeof path, "%s/%s.yaml", directory, where) < (int)sizeof path &&
                 access(path, F_OK) == 0;
    if (named)
        return gemma4_map_read(path, error);
    if (strchr(where, '/') || access(where, F_OK) == 0)
        return gemma4_map_read(where, error);
    gemma4_fail(
        error,
        "map '%.200s': expected a map's path, or the name of one in golden/maps, found neither",
        where);
    return NULL;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int gemma4_map_names(char ***names, size_t *count, gemma4_error *error)
{
    const char *directory = gemma4_maps_dir();
    DIR *d = directory ? opendir(directory) : NULL;
    *names = NULL;
    *count = 0;
    if (!d)
        return directory && errno != ENOENT
                   ? gemma4_fail(error, "%s: cannot list: %s", directory, strerror(errno))
                   : 0;
    for (struct dirent *entry; (entry = readdir(d));) {
        size_t n = strlen(entry->d_name);
        if (n < 6 || strcmp(entry->d_name + n - 5, ".yaml"))
            continue;
        char **more = realloc(*names, (*count + 1) * sizeof **names);
        if (more)
            *names = more;
        if (!more || !((*names)[*count] = strndup(entry->d_name, n - 5))) {
            closedir(d);
            gemma4_case_ids_free(*names, *count);
            return gemma4_fail(error, "golden/maps: out of memory");
        }
        ++*count;
    }
    closedir(d);
    if (*count)
        qsort(*names, *count, sizeof **names, compare_names);
    return 0;
}

/* --- one rule --- */

static int add(gemma4_sentence *s, int used, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static int add(gemma4_sentence *s, int used, const char *format, ...)
{
    if (used < 0 || used >= (int)sizeof s->text)
        return used;
    va_list arguments;
    va_start(arguments, format);
    used += vsnprintf(s->text + used, sizeof s->text - (size_t)used, format, arguments);
    va_end(arguments);
    return used;
}

static int add_bound(gemma4_sentence *s, int used, const gemma4_map_bound *bound)
{
    return bound->letter ? add(s, used, "%c", bound->letter)
                         : add(s, used, "%lld", (long long)bound->number);
}

static int add_slices(gemma4_sentence *s, int used, const gemma4_map_rule *rule)
{
    for (size_t i = 0; i < rule->axis_count; i++) {
        const gemma4_map_axis *axis = &rule->axes[i];
        if (axis->cut == GEMMA4_MAP_WHOLE)
            continue;
        used =
            add_bound(s,
                      add(s, used, ", %s %s %s", axis->cut == GEMMA4_MAP_PICK ? "entry" : "slice",
                          axis->written, axis->cut == GEMMA4_MAP_PICK ? "" : "["),
                      &axis->begin);
        if (axis->cut == GEMMA4_MAP_SLICE)
            used = add(s, add_bound(s, add(s, used, ", "), &axis->end), "]");
    }
    return used;
}

gemma4_sentence gemma4_rule_text(const gemma4_map_rule *rule)
{
    gemma4_sentence s;
    int used = add(&s, 0, "%.300s", rule->from);
    for (size_t i = 0; i < rule->axis_count; i++)
        used = add(&s, used, "%s%s", i ? " " : ", axes ", rule->axes[i].written);
    used = add_slices(&s, used, rule);
    for (size_t i = 0; i < rule->split_count; i++)
        used = add(&s, used, "%s%s", i ? " " : ", part of ",
                   gemma4_tap_describe(rule->split[i])->name);
    if (rule->kind)
        used = add(&s, used, ", %s layers", gemma4_map_kind_name(rule->kind));
    for (size_t i = 0; i < rule->layer_count; i++)
        used = add(&s, used, "%s%zu", i ? " " : ", layers ", rule->layers[i]);
    if (rule->rows)
        used =
            add(&s, used, ", %s", rule->rows == GEMMA4_MAP_LAST_ROWS ? "last rows" : "listed rows");
    if (rule->scale != 0)
        used = add(&s, used, ", times %g", rule->scale);
    add(&s, used, "%s", rule->bfloat16 ? ", read as bfloat16" : "");
    return s;
}

/* --- notes and warnings --- */

bool gemma4_rule_is_idle(const gemma4_import_log *log, size_t rule)
{
    if (log->uses[rule].taps || log->map->rules[rule].target == GEMMA4_MAP_POSITIONS ||
        (log->map->rules[rule].target == GEMMA4_MAP_TOKENS && log->tokens_given))
        return false;
    for (size_t i = 0; i < log->map->rule_count; i++)
        if (log->uses[i].taps && !strcmp(log->uses[i].rule->name, log->uses[rule].rule->name))
            return false;
    return true;
}

static void warn_idle(const gemma4_import_log *log, gemma4_report *report)
{
    enum { MOST = 3 };
    char text[240] = "";
    size_t idle = 0, used = 0;
    for (size_t i = 0; i < log->map->rule_count; i++) {
        if (!gemma4_rule_is_idle(log, i))
            continue;
        if (idle++ < MOST && used < sizeof text)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%s (%.40s)",
                                     idle > 1 ? ", " : "", log->uses[i].rule->name,
                                     log->uses[i].rule->from);
    }
    if (idle)
        gemma4_report_warn(report, "%zu rule%s of the map matched nothing: %s%s", idle,
                           idle == 1 ? "" : "s", text, idle > MOST ? ", ..." : "");
}

static void warn_untaken(const gemma4_import_log *log, gemma4_report *report)
{
    if (log->untaken_count)
        gemma4_report_warn(
            report, "%zu tensor%s of the dump no rule of the map took: %.80s%s%.80s%s",
            log->untaken_count, log->untaken_count == 1 ? "" : "s", log->untaken[0],
            log->untaken_count > 1 ? ", " : "", log->untaken_count > 1 ? log->untaken[1] : "",
            log->untaken_count > 2 ? ", ..." : "");
}

void gemma4_note_map(const gemma4_import_log *log, gemma4_report *report)
{
    if (!log)
        return;
    report->import = log;
    if (log->tokens_given)
        gemma4_report_note(report, "the dump holds no tokens: those of the case are taken");
    warn_idle(log, report);
    warn_untaken(log, report);
}
