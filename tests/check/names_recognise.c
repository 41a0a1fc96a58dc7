/* Which tap is a tensor of unknown name? One whose values are the golden's, in some order of its
 * axes; or one whose name comes near. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "import_internal.h"
#include "map.h"
#include "names_internal.h"
#include "near_names.h"

/* relative RMS: far more than rounding to 16 bits leaves in one layer, far less than two taps
 * differ by */
#define SAME_VALUES 0.05
enum { SAMPLES = 3, ORDERS = 6 };

/* A group's tensor in one layer, beside a tap. */
typedef struct trial {
    const gemma4_name_world *world;
    const gemma4_stored_tensor *tensor;
    size_t layer;
    gemma4_map_rule rule;
    float *expected; /* [T, width] of the golden; for ids as floats */
    size_t T, width;
} trial;

static void set_axis(gemma4_map_rule *rule, const char *written)
{
    gemma4_map_axis *axis = &rule->axes[rule->axis_count++];
    *axis = (gemma4_map_axis){.cut = GEMMA4_MAP_WHOLE};
    for (size_t c = 0, l = 0; written[c]; c++)
        if (written[c] != '.')
            axis->letters[l++] = written[c];
    snprintf(axis->written, sizeof axis->written, "%s", written);
}

/* The i-th order of the tap's axes; the first is the usual one, which needs no saying. False after
 * the last. */
static bool set_order(gemma4_map_rule *rule, size_t i)
{
    static const char orders[ORDERS][4] = {"tab", "atb", "bta", "bat", "abt", "tba"},
                      pairs[2][3] = {"ta", "at"};
    const char *shape = gemma4_tap_describe(rule->tap)->shape;
    bool two = strlen(shape) == 2;
    char a = shape[0] == 'T' ? 's' : (char)tolower((unsigned char)shape[0]),
         b = shape[1] == 'T' ? 's' : (char)tolower((unsigned char)shape[1]);
    rule->axis_count = 0;
    rule->has_axes = i > 0;
    if (i >= (two ? ORDERS + 1u : 2u))
        return false;
    if (i == ORDERS) {
        set_axis(rule, (char[]){a, '.', b, '\0'});
        set_axis(rule, "t");
        return true;
    }
    const char *order = two ? orders[i] : pairs[i];
    for (; i > 0 && *order; order++)
        set_axis(rule, (char[]){*order == 't' ? 't' : *order == 'a' ? a : b, '\0'});
    return true;
}

/* The values of a part as floats, [T, width]; NULL where they cannot be read. */
static float *read_part(const gemma4_import_part *part, const size_t width[2], size_t rows)
{
    size_t count = rows * width[0] * width[1], size = gemma4_element_describe(part->element)->size;
    void *elements = malloc(count * size + 1);
    float *values = malloc(count * sizeof *values + 1);
    gemma4_error ignored;
    bool fine =
        elements && values && gemma4_import_read(part, 0, rows, width, elements, &ignored) == 0;
    if (fine && gemma4_element_describe(part->element)->real)
        gemma4_element_to_float(part->element, elements, count, values);
    else if (fine)
        for (size_t i = 0; i < count; i++)
            values[i] = (float)gemma4_element_to_int(part->element, elements, i);
    free(elements);
    if (!fine) {
        free(values);
        return NULL;
    }
    return values;
}

static int compare_floats(const void *a, const void *b)
{
    return (*(const float *)a > *(const float *)b) - (*(const float *)a < *(const float *)b);
}

/* Relative RMS; of ids the part of rows that name others. */
static double difference(const trial *t, float *values)
{
    bool ids = gemma4_tap_describe(t->rule.tap)->ids;
    double error = 0, norm = 0;
    size_t other = 0;
    for (size_t row = 0; row < t->T; row++) {
        float *own = values + row * t->width, *due = t->expected + row * t->width;
        if (ids)
            qsort(own, t->width, sizeof *own, compare_floats);
        for (size_t i = 0; i < t->width; i++) {
            double d = (double)own[i] - (double)due[i];
            error += d * d;
            norm += (double)due[i] * (double)due[i];
        }
        other += ids && memcmp(own, due, t->width * sizeof *own) != 0;
    }
    return ids ? (double)other / (double)t->T : norm > 0 ? sqrt(error / norm) : INFINITY;
}

/* The best order of axes; INFINITY where the shape fits none. The rule is left with it. */
static double best_order(trial *t)
{
    double best = INFINITY;
    const gemma4_import_context context = {t->world->config, t->T};
    gemma4_map_rule order = t->rule;
    for (size_t i = 0; set_order(&order, i); i++) {
        gemma4_import_part part;
        gemma4_error ignored;
        size_t dims[2] = {1, 1},
               rank = gemma4_tap_dims(t->world->config, t->rule.tap, t->layer, t->T, dims);
        if (gemma4_import_fit(&context, &order, t->layer, 0, t->world->pass, t->tensor, &part,
                              &ignored) ||
            part.rank != rank + 1 || part.letters[0].length != t->T ||
            part.letters[1].length != dims[0] || (rank == 2 && part.letters[2].length != dims[1]) ||
            gemma4_element_describe(part.element)->real == gemma4_tap_describe(t->rule.tap)->ids)
            continue;
        float *values = read_part(&part, dims, t->T);
        double d = values ? difference(t, values) : INFINITY;
        free(values);
        if (d < best) {
            best = d;
            t->rule = order;
        }
    }
    return best;
}

/* The golden's rows of a tap in that layer: what went into a layer is what the one before it gave.
   False where it holds no such tap whole.
 */
static bool read_golden(trial *t)
{
    const gemma4_name_world *w = t->world;
    gemma4_tap tap = t->rule.tap;
    size_t layer = t->layer, dims[2] = {1, 1};
    gemma4_error ignored;
    if (tap == GEMMA4_TAP_LAYER_INPUT) {
        tap = layer ? GEMMA4_TAP_LAYER_OUTPUT : GEMMA4_TAP_EMBED;
        layer -= layer > 0;
    }
    const gemma4_activation *a = layer < w->config->num_hidden_layers
                                     ? gemma4_activations_find(w->golden, tap, layer)
                                     : NULL;
    if (!a || !a->usable || a->rows != t->T)
        return false;
    gemma4_tap_dims(w->config, tap, layer, t->T, dims);
    t->width = dims[0] * dims[1];
    t->expected = malloc(t->T * t->width * sizeof *t->expected);
    int32_t *ids = gemma4_tap_describe(tap)->ids ? malloc(t->T * t->width * sizeof *ids) : NULL;
    bool fine = t->expected &&
                (ids ? gemma4_activations_read_ids(w->golden, a, 0, t->T, ids, &ignored) == 0
                     : gemma4_activations_read(w->golden, a, 0, t->T, t->expected, &ignored) == 0);
    for (size_t i = 0; fine && ids && i < t->T * t->width; i++)
        t->expected[i] = (float)ids[i];
    for (size_t row = 0; fine && ids && row < t->T; row++)
        qsort(t->expected + row * t->width, t->width, sizeof *t->expected, compare_floats);
    free(ids);
    return fine;
}

/* --- by values --- */

static size_t elements_of(const gemma4_stored_tensor *tensor)
{
    size_t count = 1;
    for (size_t i = 0; i < tensor->rank; i++)
        if (!gemma4_size_product(count, tensor->shape[i], &count))
            return 0;
    return count;
}

/* Tries a tap in the first, middle and last layer of the group, and keeps the smallest
 * difference. */
static void try_tap(const gemma4_name_world *world, const gemma4_name_group *group, gemma4_tap tap,
                    gemma4_map_where where, gemma4_name_guess *guess)
{
    for (size_t i = 0; i < SAMPLES && i < group->count; i++) {
        size_t member = i == 0 ? 0 : i == 1 ? group->count / 2 : group->count - 1, dims[2] = {1, 1};
        size_t layer =
            where == GEMMA4_MAP_LAST ? world->config->num_hidden_layers - 1 : group->layers[member];
        trial t = {.world = world,
                   .tensor = gemma4_pass_at(world->pass, group->members[member]),
                   .layer = layer,
                   .T = world->the_case->token_count,
                   .rule = {.target = GEMMA4_MAP_TAP,
                            .tap = tap,
                            .where = where,
                            .from = group->pattern,
                            .name = ""}};
        if (layer >= world->config->num_hidden_layers)
            continue;
        gemma4_tap_dims(world->config, tap, layer, t.T, dims);
        if (elements_of(t.tensor) == t.T * dims[0] * dims[1] && read_golden(&t)) {
            double d = best_order(&t);
            if (d <= SAME_VALUES && (!guess->by_value || d < guess->difference)) {
                guess->by_value = guess->known = true;
                guess->difference = d;
                guess->rule = t.rule;
            }
        }
        free(t.expected);
    }
}

/* Integers that are the case's tokens or its positions. */
static bool try_tokens(const gemma4_name_world *world, const gemma4_name_group *group,
                       gemma4_name_guess *guess)
{
    const gemma4_case *c = world->the_case;
    const gemma4_stored_tensor *tensor = gemma4_pass_at(world->pass, group->members[0]);
    const gemma4_import_context context = {world->config, c->token_count};
    gemma4_map_rule rule = {.target = GEMMA4_MAP_TOKENS, .from = group->pattern, .name = "tokens"};
    gemma4_import_part part;
    gemma4_error ignored;
    if (group->has_layer || gemma4_element_describe(tensor->element)->real ||
        gemma4_import_fit(&context, &rule, 0, 0, world->pass, tensor, &part, &ignored) ||
        part.letters[0].length != c->token_count)
        return false;
    float *values = read_part(&part, (const size_t[]){1, 1}, c->token_count);
    bool tokens = values != NULL, positions = values != NULL;
    for (size_t i = 0; values && i < c->token_count; i++) {
        tokens &= values[i] == (float)c->tokens[i];
        positions &= values[i] == (float)(c->first_position + i);
    }
    free(values);
    rule.target = tokens ? GEMMA4_MAP_TOKENS : GEMMA4_MAP_POSITIONS;
    guess->known = guess->by_value = tokens || positions;
    guess->rule = rule;
    return guess->known;
}

/* --- by names --- */

/* Whether the tensors fit the tap's shape, as far as it is known. */
static bool shape_fits(const gemma4_name_world *world, const gemma4_name_group *group,
                       const gemma4_map_rule *rule)
{
    for (size_t i = 0; world->config && i < group->count; i++) {
        const gemma4_stored_tensor *tensor = gemma4_pass_at(world->pass, group->members[i]);
        const gemma4_import_context context = {world->config,
                                               world->the_case ? world->the_case->token_count : 0};
        gemma4_import_part part;
        gemma4_error ignored;
        size_t dims[2] = {1, 1}, layer = group->layers[i], rank = 0;
        if (group->has_layer && layer >= world->config->num_hidden_layers)
            return false;
        if (gemma4_import_fit(&context, rule, layer, 0, world->pass, tensor, &part, &ignored))
            return false;
        if (rule->target == GEMMA4_MAP_TAP) {
            rank = gemma4_tap_dims(world->config, rule->tap, layer, context.positions, dims);
            if (part.rank != rank + 1 || part.letters[1].length != dims[0] ||
                (rank == 2 && part.letters[2].length != dims[1]))
                return false;
        }
    }
    return true;
}

static void guess_by_name(const gemma4_name_world *world, const gemma4_name_group *group,
                          gemma4_name_guess *guess)
{
    char near[GEMMA4_TAP_NAME_SIZE];
    const char *sample = gemma4_pass_at(world->pass, group->members[group->count - 1])->name;
    gemma4_map_rule rule = {.from = group->pattern,
                            .name = "",
                            .where = group->has_layer ? GEMMA4_MAP_EACH : GEMMA4_MAP_ONE};
    size_t layer;
    if (!gemma4_near_name(sample, near))
        return;
    rule.target = !strcmp(near, "tokens")      ? GEMMA4_MAP_TOKENS
                  : !strcmp(near, "positions") ? GEMMA4_MAP_POSITIONS
                                               : GEMMA4_MAP_TAP;
    bool tap = rule.target == GEMMA4_MAP_TAP;
    if (tap && !gemma4_tap_parse(near, &rule.tap, &layer))
        return;
    if ((tap && gemma4_tap_describe(rule.tap)->per_layer) != group->has_layer)
        return;
    bool fits = shape_fits(world, group, &rule);
    for (size_t i = 1; tap && !fits && set_order(&rule, i); i++)
        fits = shape_fits(world, group, &rule);
    if (!fits)
        return;
    guess->known = guess->by_name = true;
    guess->contradicted =
        tap && world->golden && gemma4_activations_find(world->golden, rule.tap, group->layers[0]);
    guess->rule = rule;
}

int gemma4_name_recognise(const gemma4_name_world *world, const gemma4_name_group *group,
                          gemma4_name_guess *guess, gemma4_error *error)
{
    (void)error;
    *guess = (gemma4_name_guess){.difference = INFINITY};
    if (gemma4_pass_at(world->pass, group->members[0])->problem[0])
        return 0;
    if (world->golden && !try_tokens(world, group, guess))
        for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
            if (gemma4_tap_describe((gemma4_tap)tap)->per_layer == group->has_layer)
                try_tap(world, group, (gemma4_tap)tap,
                        group->has_layer ? GEMMA4_MAP_EACH : GEMMA4_MAP_ONE, guess);
    if (world->golden && !guess->known &&
        !group->has_layer) /* engines show what came out of the last layer as what went into the
                              last norm */
        try_tap(world, group, GEMMA4_TAP_LAYER_OUTPUT, GEMMA4_MAP_LAST, guess);
    if (!guess->known)
        guess_by_name(world, group, guess);
    if (guess->known && guess->rule.target == GEMMA4_MAP_TAP)
        snprintf(guess->name, sizeof guess->name, "%s%s",
                 group->has_layer                       ? "layers.{N}."
                 : guess->rule.where == GEMMA4_MAP_LAST ? "layers.{last}."
                                                        : "",
                 gemma4_tap_describe(guess->rule.tap)->name);
    else if (guess->known)
        snprintf(guess->name, sizeof guess->name, "%s",
                 guess->rule.target == GEMMA4_MAP_TOKENS ? "tokens" : "positions");
    return 0;
}
