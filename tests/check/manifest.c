#include "manifest.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "hash.h"
#include "places.h"
#include "synth.h"

static int is_id(const char *text)
{
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-");
    return n > 0 && n < 64 && text[n] == '\0';
}

static int is_sha256(const char *text)
{
    return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

static int get_matching(const gemma4_node *map, const char *key, int (*matches)(const char *),
                        const char *what, const char **value, gemma4_error *error)
{
    if (gemma4_get_string(map, key, value, error))
        return -1;
    return matches(*value) ? 0 : gemma4_node_fail(gemma4_node_get(map, key), what, error);
}

/* A sequence of integers in [low, high], at least one. */
static int get_ints(const gemma4_node *map, const char *key, int64_t low, int64_t high,
                    int32_t **values, size_t *count, gemma4_error *error)
{
    const gemma4_node *list;
    if (gemma4_get_node(map, key, GEMMA4_SEQUENCE, &list, error))
        return -1;
    if (list->count == 0)
        return gemma4_node_fail(list, "at least one integer", error);
    *values = calloc(list->count, sizeof **values);
    if (!*values)
        return gemma4_fail(error, "%s: out of memory", key);
    *count = list->count;
    for (size_t i = 0; i < list->count; i++) {
        int64_t n;
        if (gemma4_node_int(&list->items[i], low, high, &n, error))
            return -1;
        (*values)[i] = (int32_t)n;
    }
    return 0;
}

static int read_checkpoint(gemma4_case *c, const gemma4_node *root, gemma4_error *error)
{
    static const char *const keys[] = {"name", "preset", "seed", "sha256", "config_sha256", NULL};
    const gemma4_node *map;
    int64_t seed;
    if (gemma4_get_node(root, "checkpoint", GEMMA4_MAPPING, &map, error) ||
        gemma4_node_only_keys(map, keys, error) ||
        get_matching(map, "name", is_id, "a name of lower-case letters, digits and hyphens",
                     &c->checkpoint_name, error) ||
        gemma4_get_string(map, "preset", &c->checkpoint_preset, error) ||
        gemma4_get_int(map, "seed", 0, INT64_MAX, &seed, error) ||
        get_matching(map, "sha256", is_sha256, "a SHA-256 in hexadecimal", &c->checkpoint_sha256,
                     error) ||
        get_matching(map, "config_sha256", is_sha256, "a SHA-256 in hexadecimal", &c->config_sha256,
                     error))
        return -1;
    c->checkpoint_seed = (uint64_t)seed;
    return 0;
}

static int read_input(gemma4_case *c, const gemma4_node *root, gemma4_error *error)
{
    int64_t first;
    size_t sum = 0;
    if (get_ints(root, "tokens", 0, INT32_MAX, &c->tokens, &c->token_count, error) ||
        gemma4_get_int(root, "first_position", 0, INT32_MAX, &first, error) ||
        get_ints(root, "schedule", 1, INT32_MAX, &c->schedule, &c->schedule_count, error))
        return -1;
    c->first_position = (size_t)first;
    for (size_t i = 0; i < c->schedule_count; i++)
        sum += (size_t)c->schedule[i];
    if (sum != c->token_count)
        return gemma4_node_fail(gemma4_node_get(root, "schedule"),
                                "chunk lengths that add up to the number of tokens", error);
    return 0;
}

static int read_golden(gemma4_case *c, const gemma4_node *root, gemma4_error *error)
{
    static const char *const golden_keys[] = {"file", "sha256", "rows", "taps", NULL};
    static const char *const oracle_keys[] = {"name",  "version",   "torch",
                                              "dtype", "attention", NULL};
    static const char *const routing_keys[] = {"decisions", "smallest_gap", NULL};
    const gemma4_node *golden, *oracle, *routing;
    const char *file, *slash = strrchr(c->path, '/');
    int64_t decisions;
    if (gemma4_get_node(root, "golden", GEMMA4_MAPPING, &golden, error) ||
        gemma4_node_only_keys(golden, golden_keys, error) ||
        gemma4_get_string(golden, "file", &file, error) ||
        get_matching(golden, "sha256", is_sha256, "a SHA-256 in hexadecimal", &c->golden_sha256,
                     error))
        return -1;
    if (strncmp(file, c->id, strlen(c->id)) || strcmp(file + strlen(c->id), ".h5"))
        return gemma4_node_fail(gemma4_node_get(golden, "file"), "the case's id and .h5", error);
    int directory = slash ? (int)(slash - c->path) + 1 : 0;
    if (snprintf(c->golden_path, sizeof c->golden_path, "%.*s%s", directory, c->path, file) >=
        (int)sizeof c->golden_path)
        return gemma4_fail(error, "%.200s...: path too long", c->path);
    if (gemma4_get_node(root, "oracle", GEMMA4_MAPPING, &oracle, error) ||
        gemma4_node_only_keys(oracle, oracle_keys, error) ||
        gemma4_get_string(oracle, "name", &c->oracle_name, error) ||
        gemma4_get_string(oracle, "version", &c->oracle_version, error) ||
        gemma4_get_string(oracle, "dtype", &c->oracle_dtype, error))
        return -1;
    if (gemma4_get_node(root, "routing", GEMMA4_MAPPING, &routing, error) ||
        gemma4_node_only_keys(routing, routing_keys, error) ||
        gemma4_get_int(routing, "decisions", 1, INT64_MAX, &decisions, error) ||
        gemma4_get_number(routing, "smallest_gap", 0, 1e9, &c->routing_smallest_gap, error))
        return -1;
    c->routing_decisions = (uint64_t)decisions;
    return 0;
}

static int read_tolerance(gemma4_tolerance_row *row, const gemma4_node *map, gemma4_error *error)
{
    static const char *const keys[] = {"dtype", "taps", "metric", "value", "from", NULL};
    const char *metric;
    if (gemma4_node_only_keys(map, keys, error) ||
        gemma4_get_string(map, "dtype", &row->dtype, error) ||
        gemma4_get_string(map, "taps", &row->taps, error) ||
        gemma4_get_string(map, "metric", &metric, error) ||
        gemma4_get_number(map, "value", 0, 1, &row->value, error) ||
        gemma4_get_string(map, "from", &row->from, error))
        return -1;
    for (row->metric = GEMMA4_METRIC_RELATIVE_RMS; row->metric <= GEMMA4_METRIC_POSITION_RMS;
         row->metric++)
        if (!strcmp(metric, gemma4_metric_name(row->metric)))
            return 0;
    return gemma4_node_fail(gemma4_node_get(map, "metric"), "relative_rms or position_rms", error);
}

static int read_lists(gemma4_case *c, const gemma4_node *root, gemma4_error *error)
{
    static const char *const flag_keys[] = {"flag", "reason", NULL};
    const gemma4_node *shows, *tolerances, *flags;
    if (gemma4_get_node(root, "shows", GEMMA4_SEQUENCE, &shows, error) ||
        gemma4_get_node(root, "tolerances", GEMMA4_SEQUENCE, &tolerances, error) ||
        gemma4_get_node(root, "flags", GEMMA4_SEQUENCE, &flags, error))
        return -1;
    c->shows = calloc(shows->count + 1, sizeof *c->shows);
    c->tolerances = calloc(tolerances->count + 1, sizeof *c->tolerances);
    c->flags = calloc(flags->count + 1, sizeof *c->flags);
    if (!c->shows || !c->tolerances || !c->flags)
        return gemma4_fail(error, "%s: out of memory", c->path);
    for (size_t i = 0; i < shows->count; i++, c->shows_count++)
        if (gemma4_node_string(&shows->items[i], &c->shows[i], error))
            return -1;
    for (size_t i = 0; i < tolerances->count; i++, c->tolerance_count++)
        if (read_tolerance(&c->tolerances[i], &tolerances->items[i], error))
            return -1;
    for (size_t i = 0; i < flags->count; i++, c->flag_count++)
        if (gemma4_node_only_keys(&flags->items[i], flag_keys, error) ||
            gemma4_get_string(&flags->items[i], "flag", &c->flags[i].flag, error) ||
            gemma4_get_string(&flags->items[i], "reason", &c->flags[i].reason, error))
            return -1;
    return 0;
}

static int read_case(gemma4_case *c, gemma4_error *error)
{
    static const char *const keys[] = {
        "format", "version",    "id",      "summary",        "why",
        "shows",  "checkpoint", "tokens",  "first_position", "schedule",
        "oracle", "golden",     "routing", "tolerances",     "flags",
        NULL};
    const gemma4_node *root = gemma4_document_root(c->document);
    const char *format;
    int64_t version;
    if (gemma4_get_string(root, "format", &format, error))
        return -1;
    if (strcmp(format, "gemma4-case"))
        return gemma4_node_fail(gemma4_node_get(root, "format"), "gemma4-case", error);
    if (gemma4_get_int(root, "version", 1, 1, &version, error) ||
        gemma4_node_only_keys(root, keys, error) ||
        get_matching(root, "id", is_id, "lower-case letters, digits and hyphens", &c->id, error) ||
        gemma4_get_string(root, "summary", &c->summary, error) ||
        gemma4_get_string(root, "why", &c->why, error))
        return -1;
    return read_checkpoint(c, root, error) || read_input(c, root, error) ||
                   read_golden(c, root, error) || read_lists(c, root, error)
               ? -1
               : 0;
}

/* ------------------------------------------------------------------ paths */

static int exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

const char *gemma4_cases_dir(void)
{
    static char path[4096 + 8];
    const char *golden = gemma4_golden_dir();
    if (!golden)
        return NULL;
    snprintf(path, sizeof path, "%s/cases", golden);
    return path;
}

static int manifest_path(char path[4096], const char *where, gemma4_error *error)
{
    if (strchr(where, '/') || strchr(where, '.'))
        return snprintf(path, 4096, "%s", where) < 4096 ? 0
                                                        : gemma4_fail(error, "case: path too long");
    const char *directory = gemma4_cases_dir();
    if (!is_id(where) || !directory ||
        snprintf(path, 4096, "%s/%s.yaml", directory, where) >= 4096 || !exists(path))
        return gemma4_fail(error,
                           "case '%s': expected a manifest's path, or the id of one in "
                           "golden/cases (gemma4-check list)",
                           where);
    return 0;
}

/* The checkpoint lies in ../checkpoints/NAME seen from the manifest, or is generated (places.h). */
static int find_checkpoint(gemma4_case *c, gemma4_error *error)
{
    const char *slash = strrchr(c->path, '/');
    int n = slash ? (int)(slash - c->path) + 1 : 0;
    char weights[4096 + 32];
    if (snprintf(c->checkpoint_dir, sizeof c->checkpoint_dir, "%.*s../checkpoints/%s", n, c->path,
                 c->checkpoint_name) >= 4096)
        return gemma4_fail(error, "%.200s...: path too long", c->path);
    snprintf(weights, sizeof weights, "%s/model.safetensors", c->checkpoint_dir);
    c->checkpoint_generated = !exists(weights);
    if (!c->checkpoint_generated)
        return 0;
    char golden[4096 + 4], generated[4096];
    snprintf(golden, sizeof golden, "%.*s..", n, c->path);
    if (gemma4_generated_dir(golden, generated, sizeof generated) ||
        snprintf(c->checkpoint_dir, sizeof c->checkpoint_dir, "%s/%s", generated,
                 c->checkpoint_name) >= 4096)
        return gemma4_fail(error, "%.200s...: path too long", c->path);
    return 0;
}

gemma4_case *gemma4_case_open(const char *where, gemma4_error *error)
{
    gemma4_case *c = calloc(1, sizeof *c);
    if (!c) {
        gemma4_fail(error, "case '%s': out of memory", where);
        return NULL;
    }
    if (manifest_path(c->path, where, error) ||
        !(c->document = gemma4_document_read(c->path, error)) || read_case(c, error) ||
        find_checkpoint(c, error)) {
        gemma4_case_close(c);
        return NULL;
    }
    return c;
}

void gemma4_case_close(gemma4_case *c)
{
    if (!c)
        return;
    gemma4_document_free(c->document);
    free(c->shows);
    free(c->tokens);
    free(c->schedule);
    free(c->tolerances);
    free(c->flags);
    free(c);
}

static int check_hash(const gemma4_case *c, const char *file, const char *expected,
                      gemma4_error *error)
{
    char path[4096 + 32], found[GEMMA4_SHA256_SIZE];
    snprintf(path, sizeof path, "%s/%s", c->checkpoint_dir, file);
    if (gemma4_sha256_file(path, found, error))
        return -1;
    if (strcmp(found, expected))
        return gemma4_fail(error, "%s: expected SHA-256 %s as in %s, found %s", path, expected,
                           c->path, found);
    return 0;
}

/* A generated checkpoint lacks a file, or was written by a version whose config.json was
 * another. */
static int is_stale(const gemma4_case *c)
{
    gemma4_error ignored;
    char tokenizer[4096 + 32];
    snprintf(tokenizer, sizeof tokenizer, "%s/tokenizer.json", c->checkpoint_dir);
    return !exists(tokenizer) || check_hash(c, "config.json", c->config_sha256, &ignored);
}

int gemma4_case_provide_checkpoint(const gemma4_case *c, gemma4_error *error)
{
    if (c->checkpoint_generated && is_stale(c)) {
        gemma4_synth_options options = {
            .preset = c->checkpoint_preset, .seed = c->checkpoint_seed, .shards = 1};
        if (gemma4_synth(&options, c->checkpoint_dir, error))
            return -1;
    }
    return check_hash(c, "config.json", c->config_sha256, error) ||
                   check_hash(c, "model.safetensors", c->checkpoint_sha256, error)
               ? -1
               : 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int gemma4_case_ids(char ***ids, size_t *count, gemma4_error *error)
{
    const char *directory = gemma4_cases_dir();
    DIR *d = directory ? opendir(directory) : NULL;
    *ids = NULL;
    *count = 0;
    if (!d)
        return gemma4_fail(error, "golden/cases: not found under the current directory, beside the "
                                  "program or where it was installed (or in GEMMA4_DATA)");
    for (struct dirent *entry; errno = 0, (entry = readdir(d));) {
        size_t n = strlen(entry->d_name);
        if (n < 6 || strcmp(entry->d_name + n - 5, ".yaml"))
            continue;
        char **more = realloc(*ids, (*count + 1) * sizeof **ids);
        if (more)
            *ids = more;
        if (!more || !((*ids)[*count] = strndup(entry->d_name, n - 5))) {
            closedir(d);
            gemma4_case_ids_free(*ids, *count);
            return gemma4_fail(error, "golden/cases: out of memory");
        }
        ++*count;
    }
    int reason = errno;
    closedir(d);
    if (reason) {
        gemma4_case_ids_free(*ids, *count);
        return gemma4_fail(error, "%s: cannot list: %s", directory, strerror(reason));
    }
    if (*count)
        qsort(*ids, *count, sizeof **ids, by_name);
    return 0;
}

void gemma4_case_ids_free(char **ids, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(ids[i]);
    free(ids);
}

/* ------------------------------------------------------------------ flags */

static const gemma4_flag_info flags[] = {
    {"start-position", 1, 1,
     "the first token has another position than 0, and the cache before it is empty"},
    {"far-positions", 131072, 1, "positions are in the upper half of the model's 262,144"},
    {GEMMA4_MANY_POSITIONS, 0, 1024, "the context is longer than the published window of 1,024"},
};

const gemma4_flag_info *gemma4_flag_at(size_t index)
{
    return index < sizeof flags / sizeof *flags ? &flags[index] : NULL;
}

const gemma4_flag_info *gemma4_flag_named(const char *flag)
{
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (!strcmp(flags[i].flag, flag))
            return &flags[i];
    return NULL;
}

bool gemma4_case_has_flag(const gemma4_case *c, const char *flag)
{
    for (size_t i = 0; i < c->flag_count; i++)
        if (!strcmp(c->flags[i].flag, flag))
            return true;
    return false;
}

bool gemma4_case_needs_flag(const gemma4_case *c, const gemma4_flag_info *info)
{
    return c->first_position >= info->from && c->token_count >= info->tokens;
}

/* ------------------------------------------------------------- tolerances */

const gemma4_tolerance_row *gemma4_case_tolerance(const gemma4_case *c, const char *dtype,
                                                  const char *tap_name, gemma4_metric_kind metric)
{
    for (size_t i = c->tolerance_count; i-- > 0;) {
        const gemma4_tolerance_row *row = &c->tolerances[i];
        if (row->metric == metric && !strcmp(row->dtype, dtype) && !fnmatch(row->taps, tap_name, 0))
            return row;
    }
    return NULL;
}
