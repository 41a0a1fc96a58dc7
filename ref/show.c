#include "show.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "config.h"
#include "near_names.h"
#include "options.h"
#include "output.h"
#include "places.h"
#include "show_tensor.h"

/* What the command line asks for. */
typedef struct request {
    const char *file; /* CASE or FILE, as it was typed */
    char path[4096];
    const char *tap;        /* NULL: list the tensors */
    int64_t position, head; /* -1: all */
    const char *json;       /* the file that gets them instead of stdout; NULL: none */
} request;

/* --- which file, which tensor --- */

/* A case's id, the path of its manifest, or the path of an activation file. */
static int find_file(request *r, gemma4_error *error)
{
    size_t length = strlen(r->file);
    struct stat st;
    bool id = length > 0 && strspn(r->file, "abcdefghijklmnopqrstuvwxyz0123456789-") == length,
         manifest;
    const char *golden = id ? gemma4_golden_dir() : NULL;
    manifest = length > 5 && strcmp(r->file + length - 5, ".yaml") == 0;
    if (golden &&
        snprintf(r->path, sizeof r->path, "%s/cases/%s.h5", golden, r->file) <
            (int)sizeof r->path &&
        stat(r->path, &st) == 0)
        return 0;
    if (id && stat(r->file, &st) != 0)
        return gemma4_fail(error,
                           "case '%s': expected the id of a case (gemma4-check list), or an "
                           "activation file's path",
                           r->file);
    if (snprintf(r->path, sizeof r->path, "%.*s%s", (int)(manifest ? length - 5 : length), r->file,
                 manifest ? ".h5" : "") >= (int)sizeof r->path)
        return gemma4_fail(error, "%.200s...: path too long", r->file);
    return 0;
}

static bool is_name(const char *text)
{
    gemma4_tap tap;
    size_t layer;
    return strcmp(text, "tokens") == 0 || strcmp(text, "positions") == 0 ||
           gemma4_tap_parse(text, &tap, &layer);
}

static int check_name(const char *text, gemma4_error *error)
{
    char near[GEMMA4_TAP_NAME_SIZE];
    if (is_name(text))
        return 0;
    if (gemma4_near_name(text, near))
        return gemma4_fail(
            error,
            "command line: expected a tap's name (spec/taps.md), found '%.60s': is '%s' meant?",
            text, near);
    return gemma4_fail(
        error,
        "command line: expected a tap's name such as layers.0.attn.q (spec/taps.md), found '%.60s'",
        text);
}

/* Where a tensor belongs in dataflow order: tokens and positions first. */
static void place(const gemma4_stored_tensor *tensor, int *stage, size_t *layer, int *tap)
{
    gemma4_tap id;
    if (gemma4_tap_parse(tensor->name, &id, layer)) {
        bool per_layer = gemma4_tap_describe(id)->per_layer;
        *stage = per_layer ? 2 : id < GEMMA4_TAP_LAYER_INPUT ? 1 : 3;
        *tap = (int)id;
    } else {
        *stage = 0;
        *layer = 0;
        *tap = strcmp(tensor->name, "tokens") != 0;
    }
}

static int by_dataflow(const void *a, const void *b)
{
    int stage[2], tap[2];
    size_t layer[2];
    place(a, &stage[0], &layer[0], &tap[0]);
    place(b, &stage[1], &layer[1], &tap[1]);
    if (stage[0] != stage[1])
        return stage[0] < stage[1] ? -1 : 1;
    if (layer[0] != layer[1])
        return layer[0] < layer[1] ? -1 : 1;
    return (tap[0] > tap[1]) - (tap[0] < tap[1]);
}

static void print_list(const gemma4_stored_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        const gemma4_stored_tensor *t = &list->items[i];
        printf("%-32s %-9s ", t->name, gemma4_element_describe(t->element)->name);
        gemma4_show_shape(t);
        if (t->has_rows)
            printf("  of %zu positions", t->row_count);
        printf("%s%s\n", t->problem[0] ? "  unreadable: " : "", t->problem);
    }
    if (list->unknown_count)
        printf("and %zu dataset%s that %s no tap\n", list->unknown_count,
               list->unknown_count == 1 ? "" : "s", list->unknown_count == 1 ? "is" : "are");
}

/* --- the command --- */

static int show_listed(const request *r, gemma4_activation_source *source, gemma4_stored_list *list,
                       gemma4_error *error)
{
    if (list->count == 0)
        return gemma4_fail(
            error, "%s: expected tensors under taps' names (spec/taps.md), found none", r->path);
    qsort(list->items, list->count, sizeof *list->items, by_dataflow);
    if (!r->tap) {
        print_list(list);
        return 0;
    }
    const gemma4_stored_tensor *tensor = gemma4_stored_find(list, r->tap);
    if (!tensor)
        return gemma4_fail(error,
                           "%s: expected the tap %s, found a file without it (gemma4-ref show %s "
                           "lists what it holds)",
                           r->path, r->tap, r->file);
    gemma4_output output = {0};
    if (r->json && (gemma4_output_is_not(r->json, r->path, "the file that is shown", error) ||
                    gemma4_output_open(&output, r->json, error)))
        return -1;
    const gemma4_shown shown = {r->path, r->position, r->head, output.f};
    int status = gemma4_show_tensor(&shown, source, list, tensor, error);
    if (!status && r->json)
        return gemma4_output_commit(&output, error);
    gemma4_output_discard(&output);
    return status;
}

static int show_file(const request *r, gemma4_error *error)
{
    gemma4_activation_source source = {0};
    gemma4_activations_kind kind;
    if (gemma4_activations_kind_of(r->path, false, &kind, error) ||
        (kind == GEMMA4_ACTIVATIONS_HDF5
             ? gemma4_activations_hdf5_open(r->path, &source, error)
             : gemma4_activations_safetensors_open(r->path, &source, error)))
        return -1;
    gemma4_stored_list *list = calloc(1, sizeof *list); /* holds many names: too much for the
                                                           stack */
    int status = list ? source.list(source.state, &gemma4_any_model, list, error)
                      : gemma4_fail(error, "%s: out of memory", r->path);
    if (!status)
        status = show_listed(r, &source, list, error);
    if (list)
        gemma4_stored_list_free(list);
    free(list);
    source.close(source.state);
    return status;
}

int gemma4_show_command(int argc, char **argv, gemma4_error *error)
{
    request r = {.position = -1, .head = -1};
    const char *words[2], *position = NULL, *head = NULL;
    const gemma4_option options[] = {
        {"--position", &position}, {"--head", &head}, {"--json", &r.json}, {NULL, NULL}};
    size_t count;
    if (gemma4_options_parse(argc, argv, options, words, 2, &count, error))
        return -1;
    if (count == 0)
        return gemma4_fail(error,
                           "command line: expected CASE or FILE, and a tap (--help says more)");
    r.file = words[0];
    r.tap = count > 1 ? words[1] : NULL;
    if (!r.tap && (position || head || r.json))
        return gemma4_fail(error, "command line: expected a tap with %s",
                           position ? "--position"
                           : head   ? "--head"
                                    : "--json");
    if ((r.tap && check_name(r.tap, error)) ||
        (position && gemma4_parse_int(position, "--position", 0, INT32_MAX, &r.position, error)) ||
        (head && gemma4_parse_int(head, "--head", 0, INT32_MAX, &r.head, error)) ||
        find_file(&r, error))
        return -1;
    int status = show_file(&r, error);
    if (!status && (fflush(stdout) || ferror(stdout)))
        status = gemma4_fail(error, "standard output: cannot write: %s", strerror(errno));
    return status;
}
