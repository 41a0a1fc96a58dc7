#include "causes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "filter.h"
#include "thresholds.h"

#define NO_MODEL GEMMA4_NO_MODEL

/* Findings on their way to causes. */
typedef struct sorting {
    const gemma4_config *config;
    const gemma4_finding *findings;
    size_t count;
    const gemma4_filtered *filtered;
    size_t models;
    bool *done;       /* [count] belongs to a cause */
    bool *in_layer;   /* [layers] of the cause at hand */
    bool *dealt_with; /* [models] filters that belong to a cause */
    gemma4_causes *causes;
    gemma4_error *error;
} sorting;

static const char *id_of(size_t model)
{
    return gemma4_counter_model_at(model)->id;
}

static bool same_id(size_t a, size_t b)
{
    return !strcmp(id_of(a), id_of(b));
}

static gemma4_cause *new_cause(sorting *s)
{
    gemma4_cause *more = realloc(s->causes->list, (s->causes->count + 1) * sizeof *more);
    if (!more) {
        gemma4_fail(s->error, "diagnosis: out of memory");
        return NULL;
    }
    s->causes->list = more;
    return &more[s->causes->count++];
}

/* Writes the layers whose bit is set as "0-4, 6", and "..." where there is no room for more. */
static void list_layers(char *text, size_t size, const bool *layers, size_t count)
{
    static const char more[] = ", ...";
    text[0] = '\0';
    for (size_t l = 0, end; l < count; l = end + 1) {
        char range[48];
        for (end = l; end < count && layers[end]; end++)
            ;
        if (end == l)
            continue;
        size_t n = strlen(text);
        int length = end - l == 1
                         ? snprintf(range, sizeof range, "%s%zu", n ? ", " : "", l)
                         : snprintf(range, sizeof range, "%s%zu-%zu", n ? ", " : "", l, end - 1);
        if (n + (size_t)length + sizeof more > size) {
            snprintf(text + n, size - n, "%s", more);
            return;
        }
        memcpy(text + n, range, (size_t)length + 1);
    }
}

bool gemma4_layer_is_listed(const char *layers, size_t layer)
{
    for (const char *text = layers; *text;) {
        char *end;
        size_t first = strtoul(text, &end, 10),
               last = *end == '-' ? strtoul(end + 1, &end, 10) : first;
        if (end == text)
            return false;
        if (layer >= first && layer <= last)
            return true;
        text = end + strspn(end, ", ");
    }
    return false;
}

static void mark_layer(sorting *s, const gemma4_finding *f)
{
    if (gemma4_tap_describe(f->tap)->per_layer)
        s->in_layer[f->layer] = true;
}

/* ------------------------------------------------------------------ explained */

/* The fit of a model; of a pair, that of its first. */
static const gemma4_fit *fit_of(const gemma4_finding *f, size_t model)
{
    for (size_t i = 0; i < f->fit_count; i++)
        if (f->fits[i].model == model)
            return &f->fits[i];
    return NULL;
}

/* How many of the findings that are left a model explains, and how well: of all of them, or of
 * those that another model explains as well. */
static size_t explains(const sorting *s, size_t model, size_t as_well, double *residual)
{
    size_t count = 0;
    double sum = 0;
    for (size_t i = 0; i < s->count; i++) {
        const gemma4_fit *fit = s->done[i] ? NULL : fit_of(&s->findings[i], model);
        if (fit && (as_well == NO_MODEL || fit_of(&s->findings[i], as_well))) {
            count++;
            sum += fit->residual * fit->residual;
        }
    }
    *residual = count ? sqrt(sum / (double)count) : INFINITY;
    return count;
}

static bool lists(const gemma4_cause *cause, size_t model)
{
    for (size_t i = 0; i < cause->equivalent_count; i++)
        if (same_id(cause->equivalent[i], model))
            return true;
    return false;
}

/* Models that explain the same findings about as well: the evidence does not tell them apart.
 * Returns how many found no place. */
static size_t find_equivalents(const sorting *s, gemma4_cause *cause)
{
    size_t too_many = 0;
    for (size_t model = 0; model < s->models; model++) {
        double residual;
        if (same_id(model, cause->model) ||
            explains(s, model, cause->model, &residual) < cause->taps || lists(cause, model) ||
            !(residual <= EQUIVALENT_FACTOR * cause->residual + EQUIVALENT_OFFSET))
            continue;
        if (cause->equivalent_count < GEMMA4_MAX_EQUIVALENT)
            cause->equivalent[cause->equivalent_count++] = model;
        else
            too_many++;
    }
    return too_many;
}

/* Does a point that fits say anything but that something is rounded? */
static bool says_other_than_rounding(const gemma4_finding *f)
{
    for (size_t i = 0; i < f->point_count; i++)
        if (!gemma4_point_rounds(f->points[i].point))
            return true;
    return false;
}

/* Does a mistake that explains other findings hold most of this one, which nothing else explains?
 * Flipped experts and amplified rounding may leave more than noise; and a mistake that rounds does
 * so to other bits in the next step. */
static bool holds_most(const gemma4_finding *f, size_t model)
{
    bool unexplained = f->fit_count == 0 && !says_other_than_rounding(f);
    const gemma4_fit *part = unexplained && f->partial ? &f->partial[model] : NULL;
    return part && part->model == model && fabs(part->coefficient - 1) <= FILTER_COEFFICIENT &&
           part->share >= ATTRIBUTED_SHARE;
}

/* Gives the cause everything that its model explains, or nearly explains. */
static void take_findings(sorting *s, gemma4_cause *cause)
{
    double coefficients = 0;
    size_t explained = 0;
    for (size_t i = 0; i < s->count; i++) {
        const gemma4_finding *f = &s->findings[i];
        const gemma4_fit *fit = s->done[i] ? NULL : fit_of(f, cause->model);
        if (s->done[i] || (!fit && !holds_most(f, cause->model)))
            continue;
        if (cause->tap == GEMMA4_TAP_COUNT) {
            cause->tap = f->tap;
            cause->first_layer = f->layer;
        }
        if (fit && explained++ == 0) {
            cause->has_near = f->has_near && !same_id(f->near.model, cause->model);
            cause->near = f->near;
            cause->scope = fit->scope;
        }
        if (fit && cause->second == NO_MODEL)
            cause->second = fit->second;
        coefficients += fit ? fit->coefficient : 0;
        s->done[i] = true;
        if (fit && fit->only_layer >= 0)
            s->in_layer[fit->only_layer] = true;
        else
            mark_layer(s, f);
    }
    cause->coefficient = coefficients / (double)explained;
}

/* The finding's point that says the same; NULL where none does. */
static const gemma4_point_fit *point_of(const gemma4_finding *f, const gemma4_point *point)
{
    for (size_t i = 0; i < f->point_count; i++)
        if (gemma4_points_agree(f->points[i].point, point))
            return &f->points[i];
    return NULL;
}

static void say_with_places(const sorting *s, const gemma4_point *point, size_t layer,
                            gemma4_tap seen, uint64_t *places, char *text, size_t size);

/* Points that explain all findings that the cause's model does: a number near that of the
 * catalogue. */
static void find_points_beside(const sorting *s, gemma4_cause *cause)
{
    for (size_t i = 0; i < s->count && cause->equivalent_point_count == 0; i++)
        for (size_t k = 0;
             !s->done[i] && fit_of(&s->findings[i], cause->model) && k < s->findings[i].point_count;
             k++) {
            const gemma4_point *point = s->findings[i].points[k].point;
            bool everywhere = cause->equivalent_point_count < GEMMA4_MAX_EQUIVALENT_POINTS;
            for (size_t n = 0; n < s->count; n++)
                everywhere = everywhere && (s->done[n] || !fit_of(&s->findings[n], cause->model) ||
                                            point_of(&s->findings[n], point));
            if (!everywhere)
                continue;
            uint64_t places[GEMMA4_POINT_SETTINGS];
            size_t n = cause->equivalent_point_count++;
            cause->equivalent_points[n] = point;
            say_with_places(s, point, s->findings[i].layer, GEMMA4_TAP_COUNT, places,
                            cause->equivalent_said[n], sizeof cause->equivalent_said[n]);
        }
}

/* The model that explains most of what is left: how many findings, and how well; NO_MODEL where
 * none explains anything. */
static size_t best_model(const sorting *s, size_t *most, double *best_residual)
{
    size_t best = NO_MODEL;
    *most = 0;
    *best_residual = INFINITY;
    for (size_t model = 0; model < s->models; model++) {
        double residual;
        size_t count = explains(s, model, NO_MODEL, &residual);
        if (count > *most || (count == *most && count && residual < *best_residual)) {
            best = model;
            *most = count;
            *best_residual = residual;
        }
    }
    return best;
}

/* The model that explains most of what is left becomes a cause; *taken is false where none explains
 * anything. */
static int take_cause(sorting *s, bool *taken)
{
    size_t most;
    double best_residual;
    size_t best = best_model(s, &most, &best_residual);
    *taken = false;
    if (most == 0)
        return 0;
    gemma4_cause *cause = new_cause(s);
    if (!cause)
        return -1;
    *cause = (gemma4_cause){.explained = true,
                            .model = best,
                            .second = NO_MODEL,
                            .tap = GEMMA4_TAP_COUNT,
                            .taps = most,
                            .residual = best_residual};
    size_t too_many = find_equivalents(s, cause);
    find_points_beside(s, cause);
    memset(s->in_layer, 0, s->config->num_hidden_layers * sizeof *s->in_layer);
    take_findings(s, cause);
    list_layers(cause->layers, sizeof cause->layers, s->in_layer, s->config->num_hidden_layers);
    if (too_many) { /* more names than a person can check are no name */
        cause->explained = cause->has_near = false;
        cause->second = NO_MODEL;
        snprintf(cause->description, sizeof cause->description,
                 "more than %d known mistakes fit this evidence, %s among them; dump more taps",
                 GEMMA4_MAX_EQUIVALENT, id_of(best));
    }
    *taken = true;
    if (cause->second != NO_MODEL) { /* two mistakes together: each is a cause */
        gemma4_cause other = *cause;
        other.model = cause->second;
        other.second = cause->model;
        cause = new_cause(s);
        if (!cause)
            return -1;
        *cause = other;
    }
    return 0;
}

/* ----------------------------------------------------------------- identified */

const gemma4_counter_model *gemma4_cause_model(const gemma4_cause *cause)
{
    return !cause->explained ? NULL
           : cause->point    ? &cause->point->model
                             : gemma4_counter_model_at(cause->model);
}

/* How many of the findings that are left the point explains, and how well. */
static size_t point_explains(const sorting *s, const gemma4_point *point, double *residual)
{
    size_t count = 0;
    double sum = 0;
    for (size_t i = 0; i < s->count; i++) {
        const gemma4_point_fit *fit = s->done[i] ? NULL : point_of(&s->findings[i], point);
        count += fit != NULL;
        sum += fit ? fit->residual * fit->residual : 0;
    }
    *residual = count ? sqrt(sum / (double)count) : INFINITY;
    return count;
}

/* How far-fetched a parameter is, beside others that fit as well: those that a config or a switch
 * sets, those of weights, of inputs, of results. */
static size_t rank_of(gemma4_parameter p)
{
    if (p == GEMMA4_PARAMETER_WEIGHT_FACTOR) /* of gate and up together: what they read may have
                                                it */
        return 4;
    return p >= GEMMA4_PARAMETER_ROPE_THETA || p <= GEMMA4_PARAMETER_NORM_WEIGHT_OF ? 0
           : p <= GEMMA4_PARAMETER_WEIGHT_FACTORS                                   ? 1
           : p <= GEMMA4_PARAMETER_INPUT_ROUNDED                                    ? 2
                                                                                    : 3;
}

/* What a setting leaves free beyond its words: the digits of a number, the numbers of a list that
 * was solved for, the ranks that are missing. */
static size_t freedom_of_setting(const gemma4_setting *s, bool is_expression)
{
    size_t ranks = 0;
    switch (s->parameter) {
    case GEMMA4_PARAMETER_RESULT_FACTORS:
    case GEMMA4_PARAMETER_WEIGHT_FACTORS:
    case GEMMA4_PARAMETER_RESIDUAL: return 10 + 100 * s->count;
    case GEMMA4_PARAMETER_EXPERTS_MISSING:
        for (uint64_t left = (uint64_t)s->number; left; left &= left - 1)
            ranks++;
        return ranks;
    case GEMMA4_PARAMETER_KV_HEAD_OF: return 1; /* K's or V's alone where that does */
    case GEMMA4_PARAMETER_WEIGHTS_ORDER:
    case GEMMA4_PARAMETER_RESULT_ORDER: /* the same is plainer of heads, experts and halves than of
                                           lanes, and where no number is in it */
        return (s->unit != GEMMA4_GROUPS && s->unit != GEMMA4_HALVES) + (s->word == GEMMA4_ROLLED);
    default:
        return gemma4_parameter_describe(s->parameter)->domain == GEMMA4_DOMAIN_REAL &&
                       !is_expression
                   ? 10 * gemma4_digits_of(s->number)
                   : 0;
    }
}

/* What a point leaves free: ten numbers of a list are worth a setting. */
static size_t freedom_of(const gemma4_point *p)
{
    size_t freedom = 1000 * p->count;
    for (size_t i = 0; i < p->count; i++)
        freedom += rank_of(p->settings[i].parameter) +
                   freedom_of_setting(&p->settings[i], p->expression[i][0] != '\0');
    return freedom;
}

/* A point on its way to being a cause. */
typedef struct contender {
    const gemma4_point *point;
    size_t explains, freedom;
    double residual;
} contender;

/* Explains it more; else as much with less freedom; else it leaves less. */
static bool is_better(const contender *a, const contender *b)
{
    if (a->explains != b->explains)
        return a->explains > b->explains;
    return a->freedom != b->freedom ? a->freedom < b->freedom : a->residual < b->residual;
}

static contender best_point(const sorting *s)
{
    contender best = {0};
    for (size_t i = 0; i < s->count; i++)
        for (size_t k = 0; !s->done[i] && k < s->findings[i].point_count; k++) {
            contender c = {.point = s->findings[i].points[k].point};
            c.explains = point_explains(s, c.point, &c.residual);
            c.freedom = freedom_of(c.point);
            if (!best.point || is_better(&c, &best))
                best = c;
        }
    return best;
}

/* What a point says, with the steps of all findings that are left and that it explains. */
static void say_with_places(const sorting *s, const gemma4_point *point, size_t layer,
                            gemma4_tap seen, uint64_t *places, char *text, size_t size)
{
    memset(places, 0, GEMMA4_POINT_SETTINGS * sizeof *places);
    for (size_t i = 0; i < s->count; i++) {
        const gemma4_point_fit *fit = s->done[i] ? NULL : point_of(&s->findings[i], point);
        for (size_t k = 0; fit && k < point->count; k++)
            places[k] |= fit->point->settings[k].steps;
    }
    gemma4_point_sentence(point, s->config, layer, places, seen, text, size);
}

/* The finding's own memory of the point. */
static gemma4_point *own_point(const sorting *s, const gemma4_point *point)
{
    for (size_t i = 0; i < s->count; i++)
        for (size_t k = 0; k < s->findings[i].point_count; k++)
            if (s->findings[i].points[k].point == point)
                return s->findings[i].points[k].point;
    return NULL;
}

/* An expression that is not the same in all findings is chance: head_dim is another number in full
 * layers. */
static void drop_chance_expressions(const sorting *s, gemma4_point *point)
{
    bool chance[GEMMA4_POINT_SETTINGS] = {false};
    for (size_t i = 0; i < s->count; i++) {
        const gemma4_point_fit *fit = s->done[i] ? NULL : point_of(&s->findings[i], point);
        for (size_t k = 0; fit && k < point->count; k++)
            chance[k] = chance[k] || strcmp(fit->point->expression[k], point->expression[k]);
    }
    for (size_t k = 0; k < point->count; k++)
        if (chance[k])
            point->expression[k][0] = '\0';
}

/* What one layer does not show of a list, since an expert was never chosen there, others may. */
static void fill_lists(const sorting *s, gemma4_point *point)
{
    for (size_t i = 0; i < s->count; i++) {
        const gemma4_point_fit *fit = s->done[i] ? NULL : point_of(&s->findings[i], point);
        for (size_t k = 0; fit && k < point->count; k++)
            for (size_t n = 0; n < point->settings[k].count; n++)
                if (isnan(point->settings[k].list[n]))
                    point->settings[k].list[n] = fit->point->settings[k].list[n];
    }
}

/* Where the point is seen first, among the findings that are left. */
static const gemma4_finding *first_of(const sorting *s, const gemma4_point *point)
{
    size_t i = 0;
    while (i + 1 < s->count && (s->done[i] || !point_of(&s->findings[i], point)))
        i++;
    return &s->findings[i];
}

/* Does the point explain all that the other one does, of the findings that are left? */
static bool explains_all_of(const sorting *s, const gemma4_point *point, const gemma4_point *other)
{
    for (size_t i = 0; i < s->count; i++)
        if (!s->done[i] && point_of(&s->findings[i], other) && !point_of(&s->findings[i], point))
            return false;
    return true;
}

/* Other points that explain the same findings. */
static void find_equivalent_points(const sorting *s, const contender *best, gemma4_cause *cause)
{
    for (size_t i = 0; i < s->count; i++)
        for (size_t k = 0; !s->done[i] && k < s->findings[i].point_count; k++) {
            contender c = {.point = s->findings[i].points[k].point};
            bool listed = gemma4_points_agree(c.point, best->point);
            for (size_t n = 0; n < cause->equivalent_point_count; n++)
                listed = listed || gemma4_points_agree(c.point, cause->equivalent_points[n]);
            if (listed || c.point->count > best->point->count ||
                !explains_all_of(s, c.point, best->point) ||
                cause->equivalent_point_count == GEMMA4_MAX_EQUIVALENT_POINTS)
                continue;
            uint64_t places[GEMMA4_POINT_SETTINGS];
            size_t n = cause->equivalent_point_count++;
            cause->equivalent_points[n] = c.point;
            say_with_places(s, c.point, s->findings[i].layer, GEMMA4_TAP_COUNT, places,
                            cause->equivalent_said[n], sizeof cause->equivalent_said[n]);
        }
}

/* The layers in which the point was planted to explain the finding. */
static void mark_point(sorting *s, const gemma4_finding *f, const gemma4_point_fit *fit)
{
    if (fit->only_layer >= 0)
        s->in_layer[fit->only_layer] = true;
    else
        mark_layer(s, f);
    for (size_t l = 0; fit->only_layer < 0 && !gemma4_tap_describe(f->tap)->per_layer &&
                       l < s->config->num_hidden_layers;
         l++)
        if (fit->point->model.where &
            (s->config->layers[l].kind == GEMMA4_FULL ? GEMMA4_ON_FULL : GEMMA4_ON_SLIDING))
            s->in_layer[l] = true;
}

/* Does a point explain all that the best catalogued mistake does, and more? Then that fits by
 * chance: a factor is one layer's scalar. */
static bool point_explains_more(const sorting *s)
{
    size_t most;
    double residual;
    size_t model = best_model(s, &most, &residual);
    contender best = best_point(s);
    if (most == 0 || !best.point || best.explains <= most)
        return false;
    for (size_t i = 0; i < s->count; i++)
        if (!s->done[i] && fit_of(&s->findings[i], model) && !point_of(&s->findings[i], best.point))
            return false;
    return true;
}

/* The point that explains most of what is left becomes a cause. */
static int take_identified(sorting *s, bool *taken)
{
    contender best = best_point(s);
    gemma4_point *own = own_point(s, best.point);
    *taken = own != NULL;
    if (!own)
        return 0;
    fill_lists(s, own);
    best.explains = point_explains(s, own, &best.residual);
    gemma4_cause *cause = new_cause(s);
    if (!cause)
        return -1;
    *cause = (gemma4_cause){.explained = true,
                            .model = NO_MODEL,
                            .second = NO_MODEL,
                            .point = best.point,
                            .tap = GEMMA4_TAP_COUNT,
                            .taps = best.explains,
                            .residual = best.residual};
    find_equivalent_points(s, &best, cause);
    const gemma4_finding *first = first_of(s, best.point);
    drop_chance_expressions(s, own);
    say_with_places(s, best.point, first->layer, first->tap, cause->places, cause->said,
                    sizeof cause->said);
    memset(s->in_layer, 0, s->config->num_hidden_layers * sizeof *s->in_layer);
    for (size_t i = 0; i < s->count; i++) {
        const gemma4_finding *f = &s->findings[i];
        const gemma4_point_fit *fit = s->done[i] ? NULL : point_of(f, best.point);
        if (!fit)
            continue;
        if (cause->tap == GEMMA4_TAP_COUNT) {
            cause->tap = f->tap;
            cause->first_layer = f->layer;
            cause->scope = fit->scope;
        }
        cause->coefficient += fit->coefficient / (double)best.explains;
        s->done[i] = true;
        mark_point(s, f, fit);
    }
    list_layers(cause->layers, sizeof cause->layers, s->in_layer, s->config->num_hidden_layers);
    return 0;
}

/* ---------------------------------------------------------------- unexplained */

/* Do both belong to one entry? A mistake of the dump is one, wherever it was made. */
static bool belong_together(const gemma4_finding *a, const gemma4_finding *b)
{
    bool of_dump = a->mistake.kind || b->mistake.kind;
    return of_dump ? a->mistake.kind == b->mistake.kind && a->mistake.shift == b->mistake.shift
                   : a->tap == b->tap;
}

/* What nothing explains: one entry a kind of tap. */
static int take_unexplained(sorting *s)
{
    for (size_t i = 0; i < s->count; i++) {
        const gemma4_finding *first = &s->findings[i];
        if (s->done[i])
            continue;
        gemma4_cause *cause = new_cause(s);
        if (!cause)
            return -1;
        *cause = (gemma4_cause){.second = NO_MODEL,
                                .tap = first->tap,
                                .first_layer = first->layer,
                                .has_near = first->has_near,
                                .near = first->near};
        cause->of_dump = first->mistake.kind != GEMMA4_DUMP_AS_DUE;
        snprintf(cause->description, sizeof cause->description, "%s", first->description);
        snprintf(cause->nearest, sizeof cause->nearest, "%s", first->nearest);
        cause->nearest_share = first->nearest_share;
        memset(s->in_layer, 0, s->config->num_hidden_layers * sizeof *s->in_layer);
        for (size_t k = i; k < s->count; k++)
            if (!s->done[k] && belong_together(first, &s->findings[k])) {
                s->done[k] = true;
                cause->taps++;
                mark_layer(s, &s->findings[k]);
            }
        list_layers(cause->layers, sizeof cause->layers, s->in_layer, s->config->num_hidden_layers);
    }
    return 0;
}

/* ------------------------------------------------------------- below the bound */

static double significance(const gemma4_filter *f)
{
    return gemma4_filter_coefficient(f) / gemma4_filter_spread(f);
}

/* Is the model a cause already, or one that a cause cannot be told apart from? */
static bool is_named(const sorting *s, size_t model)
{
    for (size_t i = 0; i < s->causes->count; i++) {
        const gemma4_cause *cause = &s->causes->list[i];
        if (cause->explained && !cause->point &&
            (same_id(cause->model, model) || lists(cause, model)))
            return true;
    }
    return false;
}

/* Is one of the significant filters that enter at a tap that of a cause? */
static bool is_named_at(const sorting *s, gemma4_tap tap)
{
    for (size_t model = 0; model < s->models; model++)
        if (s->filtered[model].tap == tap && gemma4_significant_filter(&s->filtered[model]) &&
            is_named(s, model))
            return true;
    return false;
}

/* The significant filters that enter at a tap belong to one cause, whose equivalents they are.
 * NULL: it has been named. */
static void deal_with(sorting *s, gemma4_tap tap, gemma4_cause *cause)
{
    for (size_t model = 0; model < s->models; model++) {
        if (s->dealt_with[model] || s->filtered[model].tap != tap ||
            !gemma4_significant_filter(&s->filtered[model]))
            continue;
        s->dealt_with[model] = true;
        if (cause && !same_id(model, cause->model) && !lists(cause, model) &&
            cause->equivalent_count < GEMMA4_MAX_EQUIVALENT)
            cause->equivalent[cause->equivalent_count++] = model;
    }
}

/* A mistake that no tap shows but all layers together do, or one layer by itself. Of those that
 * enter at one tap the most significant one is the cause, the others are equivalent to it. */
static int take_below_bound(sorting *s, bool *taken)
{
    const gemma4_filtered *best = NULL;
    *taken = false;
    for (size_t model = 0; model < s->models; model++) {
        const gemma4_filtered *state = &s->filtered[model];
        const gemma4_filter *f =
            s->dealt_with[model] || is_named(s, model) ? NULL : gemma4_significant_filter(state);
        if (f && (!best || significance(f) > significance(gemma4_significant_filter(best))))
            best = state;
    }
    if (!best)
        return 0;
    if (is_named_at(s, best->tap)) { /* the same mistake, where it is too small to fail a tap */
        deal_with(s, best->tap, NULL);
        *taken = true;
        return 0;
    }
    const gemma4_filter *f = gemma4_significant_filter(best);
    bool everywhere = f == &best->all, named = gemma4_filter_is_named(f);
    size_t model = (size_t)(best - s->filtered);
    gemma4_cause *cause = new_cause(s);
    if (!cause)
        return -1;
    *cause = (gemma4_cause){.explained = named,
                            .model = named ? model : NO_MODEL,
                            .second = NO_MODEL,
                            .below_bound = true,
                            .tap = everywhere ? best->tap : best->best_tap,
                            .first_layer = everywhere ? best->first_layer : best->best_layer,
                            .coefficient = gemma4_filter_coefficient(f),
                            .residual = gemma4_filter_spread(f)};
    if (!everywhere)
        snprintf(cause->layers, sizeof cause->layers, "%zu", best->best_layer);
    if (!named)
        snprintf(cause->description, sizeof cause->description,
                 "no tap fails by itself; the error holds %.2f +- %.2g of what %s changes, which "
                 "would be 1",
                 cause->coefficient, cause->residual, gemma4_counter_model_at(model)->id);
    deal_with(s, best->tap, named ? cause : NULL);
    *taken = true;
    return 0;
}

/* -------------------------------------------------------------------- merging */

/* Where a cause is seen first, as a place in the order of all taps of the model. */
static size_t place_of(const sorting *s, const gemma4_cause *cause)
{
    size_t outside = cause->tap == GEMMA4_TAP_EMBED ? 0 : s->config->num_hidden_layers + 1;
    size_t layer = gemma4_tap_describe(cause->tap)->per_layer ? cause->first_layer + 1 : outside;
    return layer * GEMMA4_TAP_COUNT + cause->tap;
}

/* The same mistake, here by itself and there beside another one; or two that the evidence does not
 * tell apart where either is seen. */
static bool are_one(const gemma4_cause *a, const gemma4_cause *b)
{
    bool alone = a->second == NO_MODEL && b->second == NO_MODEL;
    return a->explained && b->explained && !a->point && !b->point &&
           a->below_bound == b->below_bound &&
           (a->model == b->model || (alone && lists(a, b->model) && lists(b, a->model)));
}

/* Gives what b explains to a, which is then seen where the first of them is. */
static void merge(sorting *s, gemma4_cause *a, const gemma4_cause *b)
{
    double taps = (double)(a->taps + b->taps);
    if (place_of(s, b) < place_of(s, a)) {
        a->tap = b->tap;
        a->first_layer = b->first_layer;
    }
    if (a->below_bound) /* of all layers, by the filter that says most */
        return;
    for (size_t l = 0; l < s->config->num_hidden_layers; l++)
        s->in_layer[l] =
            gemma4_layer_is_listed(a->layers, l) || gemma4_layer_is_listed(b->layers, l);
    list_layers(a->layers, sizeof a->layers, s->in_layer, s->config->num_hidden_layers);
    a->coefficient = ((double)a->taps * a->coefficient + (double)b->taps * b->coefficient) / taps;
    a->residual = sqrt(((double)a->taps * a->residual * a->residual +
                        (double)b->taps * b->residual * b->residual) /
                       taps);
    a->taps += b->taps;
    if (a->second == NO_MODEL)
        a->second = b->second;
}

static void merge_causes(sorting *s)
{
    gemma4_cause *list = s->causes->list;
    for (size_t i = 0; i < s->causes->count; i++)
        for (size_t k = i + 1; k < s->causes->count;) {
            if (!are_one(&list[i], &list[k])) {
                k++;
                continue;
            }
            merge(s, &list[i], &list[k]);
            memmove(&list[k], &list[k + 1], (--s->causes->count - k) * sizeof *list);
        }
}

/* ------------------------------------------------------------------------ all */

int gemma4_find_causes(const gemma4_config *config, const gemma4_finding *findings, size_t count,
                       const gemma4_filtered *filtered, gemma4_causes *causes, gemma4_error *error)
{
    sorting s = {.config = config,
                 .findings = findings,
                 .count = count,
                 .filtered = filtered,
                 .models = gemma4_counter_model_count(),
                 .causes = causes,
                 .error = error};
    s.done = calloc(count + 1, sizeof *s.done);
    s.in_layer = calloc(config->num_hidden_layers + 1, sizeof *s.in_layer);
    s.dealt_with = calloc(s.models, sizeof *s.dealt_with);
    int status =
        s.done && s.in_layer && s.dealt_with ? 0 : gemma4_fail(error, "diagnosis: out of memory");
    bool taken = true;
    while (!status && taken)
        status = point_explains_more(&s) ? take_identified(&s, &taken) : take_cause(&s, &taken);
    for (taken = true; !status && taken;)
        status = take_identified(&s, &taken);
    for (taken = true; !status && taken;)
        status = take_below_bound(&s, &taken);
    if (!status)
        status = take_unexplained(&s);
    if (!status)
        merge_causes(&s);
    free(s.done);
    free(s.in_layer);
    free(s.dealt_with);
    return status;
}

void gemma4_causes_free(gemma4_causes *causes)
{
    free(causes->list);
    *causes = (gemma4_causes){0};
}
