/* A fused mixture of experts may have several mistakes of which none explains anything by itself:
 * rows of gate_up_proj in another order and columns of down_proj in another one leave as much
 * together as either does alone. So settings of different steps are tried with each other, all of
 * them: at one position, and on some lanes of moe.out, where a combination costs microseconds.
 *
 *     y = sum over the chosen experts e of weight_e * down_proj[e] act(gate_up_proj[e] x)
 *
 * A choice says which experts, a norm setting what x is, an act setting what act is, a back setting
 * what down_proj is; the weights are whatever least squares finds. */
#include "identify_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "counter_run.h"
#include "ops.h"
#include "thresholds.h"

typedef gemma4_real real;

enum { LANES = 32 }; /* of moe.out that are looked at */
enum { MOST_RANKS = IDENTIFY_MOST_RANKS };

/* Settings of one step, after one that changes nothing. */
typedef struct settings {
    gemma4_setting *list;
    size_t count;
} settings;

/* Indices into the settings of each step. */
typedef struct combination {
    size_t choice, norm, act, back;
    double left; /* of the squares of moe.out at the row: a part of 1 */
} combination;

typedef struct product {
    const gemma4_evidence *e;
    gemma4_step step;
    size_t row, d, M, K;
    settings choices, norms, acts, backs;
    size_t *same_choice; /* [choices] the first one that chooses the same experts here */
    size_t *ranks;       /* [choices] how many experts it chooses; 0: it cannot be computed */
    int32_t (*chosen)[MOST_RANKS]; /* [choices] places in `experts`, ascending */
    int32_t *experts; /* those that any choice takes, and the first of them again: whole Ks */
    size_t *place;    /* [E] the inverse */
    size_t expert_count, slots;
    size_t lanes[LANES], lane_count;
    float y[LANES];
    double size;         /* of its squares */
    real *x;             /* [norms, d] */
    float *down;         /* [backs, experts, M, LANES] */
    bool in_three_steps; /* combinations of a norm, an act and a back setting; else all others */
    combination *kept;   /* [acts, IDENTIFY_PRODUCT_KEPT] */
    size_t *kept_count;  /* [acts] */
} product;

/* ------------------------------------------------------------------- settings */

/* Does moe.act mix what belongs to different ranks, or read other positions? One position's experts
 * are computed side by side here, in no rank. */
static bool is_within_expert(const gemma4_setting *s)
{
    bool of_ranks = s->parameter == GEMMA4_PARAMETER_RESULT_ORDER ||
                    s->parameter == GEMMA4_PARAMETER_RESULT_ZERO,
         within = s->unit == GEMMA4_LANES_OF_GROUP || s->unit == GEMMA4_HALVES_OF_GROUP;
    return s->parameter != GEMMA4_PARAMETER_INPUT_POSITIONS && (within || !of_ranks);
}

/* Is moe.out with the setting the plain sum with another down_proj? */
static bool is_of_down_proj(const gemma4_setting *s)
{
    switch (s->parameter) {
    case GEMMA4_PARAMETER_WEIGHT_LAYER:
    case GEMMA4_PARAMETER_WEIGHT_TENSOR:
    case GEMMA4_PARAMETER_WEIGHTS_ORDER:
    case GEMMA4_PARAMETER_WEIGHT_ZERO:
    case GEMMA4_PARAMETER_WEIGHT_FORM:
    case GEMMA4_PARAMETER_RESULT_ORDER: return true;
    case GEMMA4_PARAMETER_RESULT_ZERO: return s->unit == GEMMA4_LANES;
    default: return false;
    }
}

/* Does it change much, and is it one of a step's? Factors are the weights', and what rounds is
 * looked for by itself. */
static bool belongs(const gemma4_setting *s, gemma4_tap tap)
{
    if (!(s->steps & GEMMA4_STEP(tap)))
        return false;
    switch (s->parameter) {
    case GEMMA4_PARAMETER_RESULT_FACTOR:
    case GEMMA4_PARAMETER_RESULT_FACTORS:
    case GEMMA4_PARAMETER_WEIGHT_FACTOR:
    case GEMMA4_PARAMETER_WEIGHT_FACTORS:
    case GEMMA4_PARAMETER_WEIGHT_ROUNDED:
    case GEMMA4_PARAMETER_INPUT_ROUNDED:
    case GEMMA4_PARAMETER_RESULT_ROUNDED:
    case GEMMA4_PARAMETER_SUM_TYPE: return false;
    default: break;
    }
    return tap == GEMMA4_TAP_MOE_ACT   ? is_within_expert(s)
           : tap == GEMMA4_TAP_MOE_OUT ? is_of_down_proj(s)
                                       : true;
}

/* Of moe.norm, a factor bends the activation. */
enum { FACTORS = 10 };
static void list_factors(settings *list)
{
    static const double factors[FACTORS] = {0.25, 0.35, 0.5, 0.65, 0.8, 1.25, 1.6, 2.1, 2.8, 4};
    gemma4_setting s = {.parameter = GEMMA4_PARAMETER_RESULT_FACTOR,
                        .steps = GEMMA4_STEP(GEMMA4_TAP_MOE_NORM)};
    for (size_t i = 0; i < FACTORS; i++) {
        s.number = factors[i];
        list->list[list->count++] = s;
    }
}

/* What the dump holds of a step says what it computed. */
static bool is_given(const gemma4_evidence *e, gemma4_tap tap, size_t row)
{
    return tap == GEMMA4_TAP_ROUTER_TOPK_IDS ? e->ids && e->have_valid_ids[row]
                                             : e->taps[tap].engine != NULL;
}

static int list_settings(const identification *id, gemma4_tap tap, bool given, settings *list)
{
    const gemma4_evidence *e = id->s->e;
    gemma4_proposals all = {.scope = id->scope};
    if (!given)
        gemma4_propose_for_step(&all, e, e->layer, tap);
    if (tap == GEMMA4_TAP_ROUTER_TOPK_IDS && !given) /* how many there are, that step says */
        gemma4_propose_for_step(&all, e, e->layer, GEMMA4_TAP_ROUTER_TOPK_NORM);
    list->list = calloc(all.count + 1 + FACTORS, sizeof *list->list);
    list->count = 1;
    bool failed = all.failed || !list->list;
    for (size_t i = 0; !failed && i < all.count; i++)
        if (belongs(&all.list[i], tap))
            list->list[list->count++] = all.list[i];
    if (tap == GEMMA4_TAP_MOE_NORM && !given && !failed)
        list_factors(list);
    gemma4_proposals_free(&all);
    return failed ? gemma4_fail(id->s->error, "diagnosis: out of memory") : 0;
}

/* A setting of the list; NULL for none. */
static const gemma4_setting *setting_at(const settings *list, size_t i)
{
    return i ? &list->list[i] : NULL;
}

/* What the engine is known to do, with one setting or none. */
static gemma4_parameters parameters_with(const product *p, const gemma4_setting *s)
{
    gemma4_parameters parameters = gemma4_known_parameters(p->e->subject, p->e->block);
    if (s)
        parameters.settings[parameters.setting_count++] = s;
    return parameters;
}

/* --------------------------------------------------------------------- choices */

/* The experts that a choice takes at every position, [T][MOST_RANKS]; none where it takes too many.
 */
static int choose(product *p, size_t choice, int32_t *ids, gemma4_error *error)
{
    const gemma4_setting *s = setting_at(&p->choices, choice);
    const gemma4_config *c = &p->e->subject->model->config;
    const gemma4_parameters parameters = parameters_with(p, s);
    gemma4_model model = *p->step.model;
    gemma4_step step = p->step;
    size_t K = c->top_k_experts;
    if (s && s->parameter == GEMMA4_PARAMETER_TOP_K && s->number > (double)K)
        K = (size_t)fmin(s->number, (double)c->num_experts);
    p->ranks[choice] = K <= MOST_RANKS ? K : 0;
    if (!s && is_given(p->e, GEMMA4_TAP_ROUTER_TOPK_IDS, p->row)) {
        memcpy(ids, p->e->ids, p->e->subject->T * K * sizeof *ids);
        return 0;
    }
    model.config.top_k_experts = K;
    step.model = &model;
    return p->ranks[choice] ? gemma4_counter_step(&step, &parameters, GEMMA4_TAP_ROUTER_TOPK_IDS,
                                                  NULL, ids, error)
                            : 0;
}

static int by_place(const void *a, const void *b)
{
    return *(const int32_t *)a - *(const int32_t *)b;
}

/* Its experts at the row, by their places among those of all choices. */
static void place_experts(product *p, size_t choice, const int32_t *ids)
{
    size_t E = p->e->subject->model->config.num_experts, same = 0;
    for (size_t r = 0; r < p->ranks[choice]; r++) {
        size_t *place = &p->place[ids[r]];
        if (*place == E) {
            *place = p->expert_count;
            p->experts[p->expert_count++] = ids[r];
        }
        p->chosen[choice][r] = (int32_t)*place;
    }
    qsort(p->chosen[choice], p->ranks[choice], sizeof **p->chosen, by_place);
    while (same < choice && (p->ranks[same] != p->ranks[choice] ||
                             memcmp(p->chosen[same], p->chosen[choice], sizeof *p->chosen)))
        same++;
    p->same_choice[choice] = same;
}

/* The experts of every choice, and which choices are the same. */
static int find_choices(product *p, gemma4_error *error)
{
    int32_t *ids = malloc(p->e->subject->T * MOST_RANKS * sizeof *ids);
    int status = ids ? 0 : gemma4_fail(error, "diagnosis: out of memory");
    for (size_t i = 0; i < p->choices.count && !status; i++) {
        status = choose(p, i, ids, error);
        if (!status)
            place_experts(p, i, ids + p->row * p->ranks[i]);
    }
    free(ids);
    p->slots = (p->expert_count + p->K - 1) / p->K * p->K;
    for (size_t k = p->expert_count; k < p->slots; k++)
        p->experts[k] = p->experts[k - p->expert_count];
    return status;
}

/* ----------------------------------------------------------------------- norms */

/* x with every setting of moe.norm. */
static int find_inputs(product *p, gemma4_error *error)
{
    size_t T = p->e->subject->T;
    real *out = malloc(T * p->d * sizeof *out);
    int status = out ? 0 : gemma4_fail(error, "diagnosis: out of memory");
    bool given = is_given(p->e, GEMMA4_TAP_MOE_NORM, p->row);
    if (given)
        memcpy(p->x, p->step.values[GEMMA4_TAP_MOE_NORM] + p->row * p->d, p->d * sizeof *p->x);
    for (size_t i = given; i < p->norms.count && !status; i++) {
        gemma4_parameters parameters = parameters_with(p, setting_at(&p->norms, i));
        status = gemma4_counter_step(&p->step, &parameters, GEMMA4_TAP_MOE_NORM, out, NULL, error);
        if (!status)
            memcpy(p->x + i * p->d, out + p->row * p->d, p->d * sizeof *out);
    }
    free(out);
    return status;
}

/* ------------------------------------------------------------------- down_proj */

/* The rows of down_proj for the lanes, with one setting: column after column, so that a combination
 * runs over neighbouring lanes. */
static int read_down_proj(const product *p, size_t back, gemma4_error *error)
{
    const gemma4_setting *s = setting_at(&p->backs, back);
    const gemma4_axis axis = {p->d, 1};
    gemma4_step step = p->step;
    gemma4_weight w;
    float *made = NULL, *row = malloc(p->M * sizeof *row);
    step.topk_ids = p->experts;
    step.T = p->slots / p->K;
    if (!row || gemma4_weight_as_read(&step, s, GEMMA4_TAP_MOE_OUT, &w, &made, error)) {
        free(row);
        return row ? -1 : gemma4_fail(error, "diagnosis: out of memory");
    }
    for (size_t k = 0; k < p->expert_count; k++)
        for (size_t l = 0; l < p->lane_count; l++) {
            float *to = p->down + ((back * p->expert_count + k) * p->M) * LANES + l;
            size_t lane = p->lanes[l];
            bool zero = s && s->parameter == GEMMA4_PARAMETER_RESULT_ZERO && lane >= s->first &&
                        lane < s->end;
            if (s && s->parameter == GEMMA4_PARAMETER_RESULT_ORDER)
                lane = gemma4_order_read(s, axis, lane);
            gemma4_weight_row(row, &w, (size_t)p->experts[k] * p->d + lane);
            for (size_t j = 0; j < p->M; j++)
                to[j * LANES] = zero ? 0 : row[j];
        }
    free(row);
    free(made);
    return 0;
}

/* ---------------------------------------------------------------- combinations */

static float dot(const float *a, const float *b)
{
    float part[8] = {0}, sum = 0;
    for (size_t i = 0; i < LANES; i += 8)
        for (size_t k = 0; k < 8; k++)
            part[k] += a[i + k] * b[i + k];
    for (size_t k = 0; k < 8; k++)
        sum += part[k];
    return sum;
}

static void subtract(float *a, float factor, const float *b)
{
    for (size_t i = 0; i < LANES; i++)
        a[i] -= factor * b[i];
}

/* What y has besides the outputs of the chosen experts, whatever their weights are (Gram-Schmidt):
 * a part of its squares. */
static double left_beside(const product *p, const float *outputs, size_t choice)
{
    float q[MOST_RANKS][LANES], y[LANES];
    size_t count = 0;
    memcpy(y, p->y, sizeof y);
    for (size_t r = 0; r < p->ranks[choice]; r++) {
        float *v = q[count];
        memcpy(v, outputs + (size_t)p->chosen[choice][r] * LANES, sizeof *q);
        float size = dot(v, v);
        for (size_t k = 0; k < count; k++)
            subtract(v, dot(v, q[k]), q[k]);
        float rest = dot(v, v), scale = 1 / sqrtf(rest);
        if (!(rest > 1e-6f * size)) /* none, or a sum of the others */
            continue;
        for (size_t i = 0; i < LANES; i++)
            v[i] *= scale;
        subtract(y, dot(y, v), v);
        count++;
    }
    return (double)dot(y, y) / p->size;
}

static size_t settings_in(const combination *c)
{
    return (c->choice > 0) + (c->norm > 0) + (c->act > 0) + (c->back > 0);
}

/* A further setting must leave much less; of those that leave nothing, the fewest come first. */
static double cost_of(const combination *c)
{
    return ldexp(fmax(c->left, PRODUCT_NOTHING), 2 * (int)settings_in(c));
}

static int by_cost(const void *a, const void *b)
{
    double x = cost_of(a), y = cost_of(b);
    return x < y ? -1 : x > y;
}

/* The best of an act setting, the best first. */
static void keep(product *p, size_t act, const combination *found)
{
    combination *list = p->kept + act * IDENTIFY_PRODUCT_KEPT;
    size_t *count = &p->kept_count[act], i;
    if (*count == IDENTIFY_PRODUCT_KEPT && by_cost(found, &list[*count - 1]) >= 0)
        return;
    i = *count < IDENTIFY_PRODUCT_KEPT ? (*count)++ : *count - 1;
    for (; i > 0 && by_cost(found, &list[i - 1]) < 0; i--)
        list[i] = list[i - 1];
    list[i] = *found;
}

/* In three steps, those that are rightly chosen: the first ones. */
static size_t experts_looked_at(const product *p)
{
    return p->in_three_steps ? p->ranks[0] : p->expert_count;
}

/* One x and one activation with every down_proj and every choice: a is (experts, M). */
static void try_front(product *p, const float *a, combination front, float *outputs)
{
    bool two = front.norm > 0 && front.act > 0;
    if (p->in_three_steps && !two)
        return;
    size_t from = p->in_three_steps ? 1 : 0, end = two && !p->in_three_steps ? 1 : p->backs.count,
           choices = p->in_three_steps ? 1 : p->choices.count, experts = experts_looked_at(p);
    for (front.back = from; front.back < end; front.back++) {
        const float *down = p->down + front.back * p->expert_count * p->M * LANES;
        memset(outputs, 0, experts * LANES * sizeof *outputs);
        for (size_t k = 0; k < experts; k++)
            for (size_t j = 0; j < p->M; j++)
                subtract(outputs + k * LANES, -a[k * p->M + j], down + (k * p->M + j) * LANES);
        for (front.choice = 0; front.choice < choices; front.choice++) {
            if (p->same_choice[front.choice] != front.choice || !p->ranks[front.choice])
                continue;
            front.left = left_beside(p, outputs, front.choice);
            if (front.left <= PRODUCT_LEFT)
                keep(p, front.act, &front);
        }
    }
}

/* One position's row of a tensor, T times. */
static void repeat(real *out, const real *row, size_t width, size_t T)
{
    for (size_t t = 0; t < T; t++)
        memcpy(out + t * width, row, width * sizeof *out);
}

/* The activations of all experts with every norm setting, [norms, experts, M]; none where the step
 * reads what is not there. */
static int find_acts(const product *p, size_t act, float *a, bool *found, gemma4_error *error)
{
    const gemma4_setting *s = setting_at(&p->acts, act);
    const gemma4_parameters parameters = parameters_with(p, s);
    size_t norms = p->norms.count, each = p->slots / p->K, T = norms * each, d = p->d;
    gemma4_step step = p->step;
    bool elsewhere = s && s->parameter == GEMMA4_PARAMETER_STEP_INPUT;
    *found = !elsewhere || p->step.values[s->tensor];
    if (!*found)
        return 0;
    int32_t *ids = malloc(T * p->K * sizeof *ids);
    real *x = malloc(T * d * sizeof *x), *out = malloc(T * p->K * p->M * sizeof *out);
    int status = ids && x && out ? 0 : gemma4_fail(error, "diagnosis: out of memory");
    for (size_t n = 0; n < norms && !status; n++) {
        memcpy(ids + n * p->slots, p->experts, p->slots * sizeof *ids);
        repeat(x + n * each * d, elsewhere ? p->step.values[s->tensor] + p->row * d : p->x + n * d,
               d, each);
    }
    memset(step.values, 0, sizeof step.values);
    step.values[elsewhere ? s->tensor : GEMMA4_TAP_MOE_NORM] = x;
    step.topk_ids = ids;
    step.T = T;
    if (!status)
        status = gemma4_counter_step(&step, &parameters, GEMMA4_TAP_MOE_ACT, out, NULL, error);
    for (size_t n = 0; n < norms && !status; n++)
        for (size_t i = 0; i < p->expert_count * p->M; i++)
            a[n * p->expert_count * p->M + i] = (float)out[n * p->slots * p->M + i];
    free(ids);
    free(x);
    free(out);
    return status;
}

static int try_act(identification *own, void *context, size_t act)
{
    product *p = context;
    size_t norms = p->norms.count, n = p->expert_count * p->M;
    bool found = false;
    float *a = malloc(norms * n * sizeof *a),
          *outputs = malloc(p->expert_count * LANES * sizeof *outputs);
    int status = a && outputs ? find_acts(p, act, a, &found, own->s->error)
                              : gemma4_fail(own->s->error, "diagnosis: out of memory");
    for (size_t norm = 0; norm < norms && found && !status; norm++)
        try_front(p, a + norm * n, (combination){.norm = norm, .act = act}, outputs);
    free(a);
    free(outputs);
    return status;
}

static int try_back(identification *own, void *context, size_t back)
{
    return read_down_proj(context, back, own->s->error);
}

/* ------------------------------------------------------------------- the search */

/* The lanes of moe.out at the row, spread over all of them. */
static void look_at_row(product *p, const gemma4_tap_evidence *t)
{
    p->lane_count = p->d < LANES ? p->d : LANES;
    for (size_t l = 0; l < p->lane_count; l++) {
        p->lanes[l] = l * p->d / p->lane_count;
        p->y[l] = t->engine[p->row * p->d + p->lanes[l]];
        p->size += (double)p->y[l] * (double)p->y[l];
    }
}

/* The last row that is looked at: it has seen most. False where there is none. */
static bool find_row(const identification *id, size_t *row)
{
    const fit_search *s = id->s;
    const gemma4_against rows = {.positions = id->positions};
    for (size_t t = s->e->subject->T; t-- > 0;)
        if (gemma4_in_scope(&s->e->subject->schedule, id->scope, t) &&
            gemma4_row_counts(s->e, s->tap, &rows, t)) {
            *row = t;
            return true;
        }
    return false;
}

static int open_product(identification *id, product *p)
{
    const gemma4_config *c = &id->s->e->subject->model->config;
    size_t E = c->num_experts, n = 0;
    if (list_settings(id, GEMMA4_TAP_ROUTER_TOPK_IDS,
                      is_given(p->e, GEMMA4_TAP_ROUTER_TOPK_IDS, p->row), &p->choices) ||
        list_settings(id, GEMMA4_TAP_MOE_NORM, is_given(p->e, GEMMA4_TAP_MOE_NORM, p->row),
                      &p->norms) ||
        list_settings(id, GEMMA4_TAP_MOE_ACT, false, &p->acts) ||
        list_settings(id, GEMMA4_TAP_MOE_OUT, false, &p->backs))
        return -1;
    n = p->choices.count;
    p->same_choice = calloc(n, sizeof *p->same_choice);
    p->ranks = calloc(n, sizeof *p->ranks);
    p->chosen = calloc(n, sizeof *p->chosen);
    p->experts = malloc((E + p->K) * sizeof *p->experts);
    p->place = malloc(E * sizeof *p->place);
    p->x = malloc(p->norms.count * p->d * sizeof *p->x);
    p->kept = malloc(p->acts.count * IDENTIFY_PRODUCT_KEPT * sizeof *p->kept);
    p->kept_count = calloc(p->acts.count, sizeof *p->kept_count);
    for (size_t e = 0; p->place && e < E; e++)
        p->place[e] = E;
    return p->same_choice && p->ranks && p->chosen && p->experts && p->place && p->x && p->kept &&
                   p->kept_count
               ? 0
               : gemma4_fail(id->s->error, "diagnosis: out of memory");
}

static void close_product(product *p)
{
    free(p->choices.list);
    free(p->norms.list);
    free(p->acts.list);
    free(p->backs.list);
    free(p->same_choice);
    free(p->ranks);
    free(p->chosen);
    free(p->experts);
    free(p->place);
    free(p->x);
    free(p->down);
    free(p->kept);
    free(p->kept_count);
}

/* Products of two numbers, and what down_proj takes: values. */
static bool is_quick_enough(const product *p, size_t values)
{
    double each = (double)(experts_looked_at(p) * p->M * LANES),
           fronts = (double)p->acts.count * (p->in_three_steps ? (double)p->norms.count : 1);
    return fronts * (double)p->backs.count * each <= PRODUCT_MOST &&
           (double)values * sizeof *p->down <= PRODUCT_BYTES;
}

static int search(identification *id, product *p)
{
    gemma4_error *error = id->s->error;
    look_at_row(p, &p->e->taps[GEMMA4_TAP_MOE_OUT]);
    if (!(p->size > 0))
        return 0;
    if (find_choices(p, error) || find_inputs(p, error))
        return -1;
    size_t values = p->backs.count * p->expert_count * p->M * LANES;
    if (!is_quick_enough(p, values))
        return 0;
    p->down = calloc(values, sizeof *p->down);
    if (!p->down)
        return gemma4_fail(error, "diagnosis: out of memory");
    return identify_each(id, p->backs.count, try_back, p) ||
                   identify_each(id, p->acts.count, try_act, p)
               ? -1
               : 0;
}

/* The settings of a combination. A number comes last. */
static void settings_of(const product *p, const combination *c, gemma4_setting *out)
{
    const gemma4_setting *all[] = {setting_at(&p->choices, c->choice),
                                   setting_at(&p->norms, c->norm), setting_at(&p->acts, c->act),
                                   setting_at(&p->backs, c->back)};
    size_t count = 0;
    for (int number = 0; number < 2; number++)
        for (size_t i = 0; i < 4; i++)
            if (all[i] && identify_is_solved_for(all[i]) == number)
                out[count++] = *all[i];
}

/* The same settings, but for where a number starts. */
static bool are_alike(const settings *list, size_t i, size_t k)
{
    const gemma4_setting *a = &list->list[i], *b = &list->list[k];
    return i == k || (i && k && a->parameter == b->parameter && a->word == b->word &&
                      identify_is_solved_for(a) && identify_is_solved_for(b));
}

static bool is_listed(const product *p, size_t i)
{
    const combination *c = &p->kept[i];
    for (size_t k = 0; k < i; k++) {
        const combination *d = &p->kept[k];
        if (c->choice == d->choice && are_alike(&p->norms, c->norm, d->norm) &&
            are_alike(&p->acts, c->act, d->act) && are_alike(&p->backs, c->back, d->back))
            return true;
    }
    return false;
}

/* Adds a combination with every choice that takes the same experts, the first ones first. */
static size_t list_choices(const product *p, const combination *found, identify_combination *list,
                           size_t count)
{
    combination c = *found;
    for (c.choice = 0; c.choice < p->choices.count && count < IDENTIFY_PRODUCT_KEPT; c.choice++) {
        size_t n = settings_in(&c);
        if (p->same_choice[c.choice] != found->choice || n < 2 || n > GEMMA4_POINT_SETTINGS)
            continue;
        list[count].count = n;
        settings_of(p, &c, list[count++].settings);
    }
    return count;
}

/* The best of all; returns how many. */
static size_t list_best(product *p, identify_combination *list)
{
    size_t total = 0, count = 0;
    for (size_t act = 0; act < p->acts.count; act++) /* they move together */
        for (size_t i = 0; i < p->kept_count[act]; i++)
            p->kept[total++] = p->kept[act * IDENTIFY_PRODUCT_KEPT + i];
    qsort(p->kept, total, sizeof *p->kept, by_cost);
    for (size_t i = 0; i < total && count < IDENTIFY_PRODUCT_KEPT; i++)
        if (!is_listed(p, i))
            count = list_choices(p, &p->kept[i], list, count);
    return count;
}

int identify_product(identification *id, bool in_three_steps, identify_combination *list,
                     size_t *count)
{
    const gemma4_evidence *e = id->s->e;
    const gemma4_config *c = &e->subject->model->config;
    product p = {.e = e,
                 .in_three_steps = in_three_steps,
                 .step = gemma4_evidence_step(e),
                 .d = c->hidden_size,
                 .M = c->moe_intermediate_size,
                 .K = c->top_k_experts};
    *count = 0;
    if (!p.step.values[GEMMA4_TAP_ROUTER_LOGITS] || e->taps[GEMMA4_TAP_MOE_ACT].engine ||
        !find_row(id, &p.row))
        return 0;
    int status = open_product(id, &p) || search(id, &p) ? -1 : 0;
    if (!status)
        *count = list_best(&p, list);
    close_product(&p);
    return status;
}
