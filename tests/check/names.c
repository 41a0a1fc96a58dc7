#include <stdlib.h>
#include <string.h>

#include "maps.h"
#include "model.h"
#include "names_internal.h"
#include "text.h"

typedef struct names {
    const gemma4_names_request *request;
    FILE *out;
    gemma4_foreign foreign;
    gemma4_name_groups groups;
    gemma4_name_guess *guesses;
    gemma4_case *the_case;
    gemma4_model *model;
    gemma4_activations *golden;
    gemma4_map *best; /* of the shipped maps; NULL where none fits */
} names;

static gemma4_pass *first_pass(const names *n)
{
    return n->foreign.passes[0];
}

/* --- what is there --- */

static bool same_kind(const gemma4_stored_tensor *a, const gemma4_stored_tensor *b)
{
    return a->element == b->element && a->rank == b->rank &&
           !memcmp(a->shape, b->shape, a->rank * sizeof *a->shape) &&
           !strcmp(a->problem, b->problem);
}

/* "float32 [1, 12, 64]", and what is wrong with it. */
static void list_kind(const names *n, const gemma4_stored_tensor *tensor)
{
    fprintf(n->out, "  %s [", gemma4_element_describe(tensor->element)->name);
    for (size_t d = 0; d < tensor->rank; d++)
        fprintf(n->out, "%s%zu", d ? ", " : "", tensor->shape[d]);
    fputs(tensor->problem[0] ? "]: " : "]", n->out);
    gemma4_terminal_text(n->out, tensor->problem);
}

/* "0-4, 6-10": the layers of those members whose tensor is of that kind. */
static void list_layers(const names *n, const gemma4_name_group *group,
                        const gemma4_stored_tensor *kind)
{
    const char *separator = "  N = ";
    for (size_t i = 0, end; i < group->count; i = end) {
        end = i + 1;
        if (!same_kind(kind, gemma4_pass_at(first_pass(n), group->members[i])))
            continue;
        while (end < group->count && group->layers[end] == group->layers[end - 1] + 1 &&
               same_kind(kind, gemma4_pass_at(first_pass(n), group->members[end])))
            end++;
        fprintf(n->out, "%s%zu", separator, group->layers[i]);
        if (end > i + 1)
            fprintf(n->out, "-%zu", group->layers[end - 1]);
        separator = ", ";
    }
}

/* "#   blocks.{N}.attn.hook_z N = 0-4, 6-10 float32 [1, 12, 64]"; layers of other types and shapes
 *      have a line of their own below it. */
static void list_group(const names *n, const gemma4_name_group *group)
{
    for (size_t i = 0; i < group->count; i++) {
        const gemma4_stored_tensor *tensor = gemma4_pass_at(first_pass(n), group->members[i]);
        bool listed = false;
        for (size_t j = 0; j < i && !listed; j++)
            listed = same_kind(tensor, gemma4_pass_at(first_pass(n), group->members[j]));
        if (listed)
            continue;
        fputs("#   ", n->out);
        gemma4_terminal_text(n->out, i == 0 ? group->pattern : "    ...");
        if (group->has_layer)
            list_layers(n, group, tensor);
        list_kind(n, tensor);
        fputc('\n', n->out);
    }
}

static void list_all(const names *n)
{
    fputs("# ", n->out);
    gemma4_terminal_text(n->out, n->request->paths[0]);
    fprintf(n->out,
            ": %zu tensors in %s%zu pass%s, under %zu name%s but for the layer's number\n#\n",
            gemma4_pass_count(first_pass(n)), n->foreign.count == 1 ? "" : "the first of ",
            n->foreign.count, n->foreign.count == 1 ? "" : "es", n->groups.count,
            n->groups.count == 1 ? "" : "s");
    for (size_t i = 0; i < n->groups.count; i++)
        list_group(n, &n->groups.items[i]);
    fputs("#\n", n->out);
}

/* --- shipped maps --- */

static bool map_ignores(const gemma4_map *map, const char *name)
{
    for (size_t i = 0; i < map->ignore_count; i++)
        if (gemma4_pattern_matches(map->ignore[i], name))
            return true;
    return false;
}

/* How many of the tensors rules of a map take, of how many that it does not ignore. */
static void measure_map(const names *n, const gemma4_map *map, size_t *taken, size_t *of)
{
    *taken = *of = 0;
    for (size_t t = 0; t < gemma4_pass_count(first_pass(n)); t++) {
        const char *name = gemma4_pass_at(first_pass(n), t)->name;
        bool takes = false;
        size_t layer;
        for (size_t r = 0; r < map->rule_count && !takes; r++)
            takes = gemma4_map_matches_any(&map->rules[r], name, &layer);
        *taken += takes;
        *of += takes || !map_ignores(map, name);
    }
}

/* Says how well each map fits that takes anything, and keeps the best: one that takes all tensors
 * but those that it leaves out by name, else one that takes most, if that is half of them. */
static int fit_maps(names *n, gemma4_error *error)
{
    char **list;
    bool best_takes_all = false;
    size_t count, most = 0, all = gemma4_pass_count(first_pass(n));
    if (gemma4_map_names(&list, &count, error))
        return -1;
    int status = 0;
    for (size_t i = 0; i < count && !status; i++) {
        size_t taken, of;
        gemma4_map *map = gemma4_map_open(list[i], error);
        if (!map) {
            status = -1;
            break;
        }
        measure_map(n, map, &taken, &of);
        if (taken)
            fprintf(n->out, "# map %s takes %zu of %zu tensors%s\n", list[i], taken, of,
                    of < all ? " (and leaves out what it knows to be no tap)" : "");
        bool takes_all = taken == of;
        bool better = takes_all == best_takes_all ? taken > most : takes_all;
        if (taken && better && 2 * taken >= of) {
            gemma4_map *worse = n->best;
            n->best = map;
            map = worse;
            most = taken;
            best_takes_all = takes_all;
        }
        gemma4_map_free(map);
    }
    gemma4_case_ids_free(list, count);
    return status;
}

static bool rule_matches(const names *n, const gemma4_map_rule *rule)
{
    size_t layer;
    for (size_t t = 0; t < gemma4_pass_count(first_pass(n)); t++)
        if (gemma4_map_matches_any(rule, gemma4_pass_at(first_pass(n), t)->name, &layer))
            return true;
    return false;
}

/* The rules of the best map that match, under one key where they share it. */
static void write_best(const names *n)
{
    const gemma4_map *map = n->best;
    fputs("# The rules of that map which match; whole, it is golden/maps/", n->out);
    const char *slash = strrchr(map->path, '/');
    fprintf(n->out, "%s.\nformat: gemma4-map\nversion: 1\nengine: ", slash ? slash + 1 : map->path);
    gemma4_yaml_quoted(n->out, map->engine);
    fputs("\ntaps:\n", n->out);
    for (size_t r = 0, end; r < map->rule_count; r = end) {
        size_t matching = 0;
        for (end = r; end < map->rule_count && !strcmp(map->rules[end].name, map->rules[r].name);
             end++)
            matching += rule_matches(n, &map->rules[end]);
        if (matching)
            fprintf(n->out, "  %s:%s", map->rules[r].name, matching > 1 ? "\n" : " ");
        for (size_t i = r; i < end; i++)
            if (rule_matches(n, &map->rules[i])) {
                fputs(matching > 1 ? "    - " : "", n->out);
                gemma4_rule_yaml(n->out, &map->rules[i]);
                fputc('\n', n->out);
            }
    }
}

/* --- a map of our own --- */

/* Of two groups that are the same tap, the one whose values say so, then the one whose values are
 * nearer, then that of the shorter name. */
static bool is_better(const names *n, size_t i, size_t j)
{
    const gemma4_name_guess *a = &n->guesses[i], *b = &n->guesses[j];
    size_t length_a = strlen(n->groups.items[i].pattern),
           length_b = strlen(n->groups.items[j].pattern);
    if (a->by_value != b->by_value)
        return a->by_value;
    if (a->by_value && a->difference != b->difference)
        return a->difference < b->difference;
    return length_a != length_b ? length_a < length_b : i < j;
}

/* All layers' outputs make that of the last one by itself superfluous: two rules for one tap are
 * refused. */
static void drop_last(names *n)
{
    for (size_t i = 0; i < n->groups.count; i++)
        for (size_t j = 0; j < n->groups.count && n->guesses[i].known &&
                           !strcmp(n->guesses[i].name, "layers.{last}.output");
             j++)
            n->guesses[i].taken |=
                n->guesses[j].known && !strcmp(n->guesses[j].name, "layers.{N}.output");
}

static int recognise_all(names *n, gemma4_error *error)
{
    const gemma4_name_world world = {first_pass(n), n->model ? &n->model->config : NULL,
                                     n->the_case, n->golden};
    n->guesses = calloc(n->groups.count, sizeof *n->guesses);
    if (!n->guesses)
        return gemma4_fail(error, "names: out of memory");
    for (size_t i = 0; i < n->groups.count; i++)
        if (gemma4_name_recognise(&world, &n->groups.items[i], &n->guesses[i], error))
            return -1;
    for (size_t i = 0; i < n->groups.count; i++)
        for (size_t j = 0; j < n->groups.count && n->guesses[i].known; j++)
            if (i != j && n->guesses[j].known && !strcmp(n->guesses[i].name, n->guesses[j].name) &&
                !n->guesses[j].taken && is_better(n, j, i))
                n->guesses[i].taken = true;
    drop_last(n);
    return 0;
}

static void write_guess(const names *n, size_t i)
{
    const gemma4_name_guess *guess = &n->guesses[i];
    if (!guess->known || guess->taken)
        return;
    fprintf(n->out, "  %s%s: ", guess->contradicted ? "# " : "", guess->name);
    gemma4_rule_yaml(n->out, &guess->rule);
    if (guess->by_value && guess->rule.target == GEMMA4_MAP_TAP)
        fprintf(n->out, "  # by its values, relative RMS %.1e", guess->difference);
    fputs(guess->contradicted
              ? "  by its name, but its values are not the golden's: another tensor, or a fault\n"
              : "\n",
          n->out);
}

/* What went into a layer came out of the one before it: where a dump shows only the one, the other
 * is written too. */
static void write_outputs(const names *n)
{
    const gemma4_name_group *input = NULL;
    for (size_t i = 0; i < n->groups.count; i++) {
        if (n->guesses[i].known && !strcmp(n->guesses[i].name, "layers.{N}.output"))
            return;
        if (n->guesses[i].known && !n->guesses[i].taken && !n->guesses[i].contradicted &&
            !strcmp(n->guesses[i].name, "layers.{N}.input"))
            input = &n->groups.items[i];
    }
    if (!input)
        return;
    char from[GEMMA4_PATTERN_SIZE + 8];
    const char *at = strstr(input->pattern, "{N}");
    snprintf(from, sizeof from, "%.*s{N+1}%s", (int)(at - input->pattern), input->pattern, at + 3);
    const gemma4_map_rule rule = {.from = from};
    fputs("  layers.{N}.output: ", n->out);
    gemma4_rule_yaml(n->out, &rule);
    fputs("  # the next layer's input\n", n->out);
}

static int write_guesses(names *n, gemma4_error *error)
{
    size_t known = 0, usable = 0;
    if (recognise_all(n, error))
        return -1;
    for (size_t i = 0; i < n->groups.count; i++) {
        known += n->guesses[i].known;
        usable += n->guesses[i].known && !n->guesses[i].contradicted;
    }
    fprintf(n->out, "# %s: %zu of %zu names are known by %s\n",
            n->best ? "beside the map" : "no shipped map fits", known, n->groups.count,
            n->golden  ? "their values and names"
            : n->model ? "name and shape"
                       : "name only (--case CASE compares values)");
    if (usable == 0)
        return gemma4_fail(error,
                           "%s: expected names or values that come near a tap's, found none%s",
                           n->request->paths[0], n->golden ? "" : " (--case CASE compares values)");
    fputs("format: gemma4-map\nversion: 1\nengine: 'unnamed'\ntaps:\n", n->out);
    for (size_t i = 0; i < n->groups.count; i++)
        write_guess(n, i);
    write_outputs(n);
    for (size_t i = 0; i < n->groups.count; i++)
        if (!n->guesses[i].known || n->guesses[i].taken) {
            fputs("  # ", n->out);
            gemma4_terminal_text(n->out, n->groups.items[i].pattern);
            fprintf(n->out, ": %s%s\n", n->guesses[i].known ? "also " : "no tap comes near",
                    n->guesses[i].known ? n->guesses[i].name : "");
        }
    return 0;
}

/* --- all of it --- */

static int open_world(names *n, gemma4_error *error)
{
    const gemma4_names_request *r = n->request;
    if (r->case_name) {
        n->the_case = gemma4_case_open(r->case_name, error);
        if (!n->the_case || gemma4_case_provide_checkpoint(n->the_case, error))
            return -1;
    }
    if (!r->case_name && !r->model_dir)
        return 0;
    n->model = gemma4_model_open(n->the_case ? n->the_case->checkpoint_dir : r->model_dir, error);
    if (!n->model)
        return -1;
    if (n->the_case)
        n->golden = gemma4_activations_open(n->the_case->golden_path, &n->model->config, error);
    return !n->the_case || n->golden ? 0 : -1;
}

int gemma4_names(const gemma4_names_request *request, FILE *out, gemma4_error *error)
{
    names n = {.request = request, .out = out};
    int status = open_world(&n, error) ||
                         gemma4_foreign_open(request->paths, request->count, &n.foreign, error) ||
                         gemma4_name_groups_make(first_pass(&n), &n.groups, error)
                     ? -1
                     : 0;
    if (!status) {
        list_all(&n);
        status = fit_maps(&n, error);
    }
    if (!status && n.best)
        write_best(&n);
    else if (!status)
        status = write_guesses(&n, error);
    free(n.guesses);
    gemma4_map_free(n.best);
    gemma4_name_groups_free(&n.groups);
    gemma4_foreign_close(&n.foreign);
    gemma4_activations_close(n.golden);
    gemma4_model_close(n.model);
    gemma4_case_close(n.the_case);
    return status;
}
