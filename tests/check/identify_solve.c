/* Numbers and lists of a point, by least squares. */
#include "identify_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "point.h"
#include "thresholds.h"

typedef gemma4_real real;

/* ------------------------------------------------------------ numbers to solve for */

static bool is_list_solved_for(const gemma4_setting *s);

/* Is the setting's number, or its list, to be solved for? */
bool identify_is_solved_for(const gemma4_setting *s)
{
    if (is_list_solved_for(s))
        return true;
    bool number_of_word =
        s->parameter == GEMMA4_PARAMETER_ACTIVATION && s->word >= GEMMA4_FUNCTION_LEAKY_RELU;
    return number_of_word ||
           (gemma4_parameter_describe(s->parameter)->domain == GEMMA4_DOMAIN_REAL &&
            isfinite(s->number) && s->parameter != GEMMA4_PARAMETER_ROPE_PAIRS &&
            s->parameter != GEMMA4_PARAMETER_RESULT_CLAMPED);
}

/* Steps in proportion to the number, which stays positive; else by themselves. */
static bool is_positive(gemma4_parameter p)
{
    return p != GEMMA4_PARAMETER_RESULT_FACTOR && p != GEMMA4_PARAMETER_ROPE_OFFSET &&
           p != GEMMA4_PARAMETER_ROUTER_POWER && p != GEMMA4_PARAMETER_ROPE_SCALE &&
           p != GEMMA4_PARAMETER_ATTN_SCALE && p != GEMMA4_PARAMETER_ACTIVATION;
}

/* The number moved by a step. */
static double moved(const gemma4_setting *s, double number, double step)
{
    if (is_positive(s->parameter))
        return number * exp(fmax(-1.5, fmin(1.5, step)));
    double most = fmax(1, fabs(number));
    return number + fmax(-most, fmin(most, step));
}

/* Products of the error that is left, of honest noise and of the prediction's change, in
 * spreads. */
typedef struct slope {
    double error_change, change, draws[GEMMA4_DRAWS];
} slope;

static slope slope_of(const identification *id, double step)
{
    const fit_search *s = id->s;
    const gemma4_tap_evidence *t = &s->e->taps[s->tap];
    const gemma4_against rows = identify_rows(id);
    slope sum = {0};
    for (size_t row = 0; row < s->e->subject->T; row++)
        for (size_t i = row * t->width;
             gemma4_row_counts(s->e, s->tap, &rows, row) && i < (row + 1) * t->width; i++) {
            double change = ((double)s->prediction[i] - (double)id->at[i]) / step,
                   error = (double)t->engine[i] - (double)id->at[i];
            double weight = 1 / (t->sigma[row] * t->sigma[row]);
            sum.error_change += weight * error * change;
            sum.change += weight * change * change;
            for (size_t d = 0; d < GEMMA4_DRAWS; d++)
                sum.draws[d] += weight * (double)t->draws[d][i] * change;
        }
    return sum;
}

/* The size of what is predicted, as a part of what was expected: of values that are much smaller,
 * honest noise is smaller too. At most 1, as values may be small because large ones cancel where
 * steps are bridged. */
static double own_size(const identification *id)
{
    const fit_search *s = id->s;
    gemma4_against rows = identify_rows(id);
    double own = 0, expected = 0;
    if (fit_is_bridged(s->e))
        return 1;
    rows.values = id->at;
    rows.smaller = true;
    for (size_t row = 0; row < s->e->subject->T; row++)
        if (gemma4_row_counts(s->e, s->tap, &rows, row)) {
            own += pow(gemma4_against_sigma(s->e, s->tap, &rows, row), 2);
            expected += pow(s->e->taps[s->tap].sigma[row], 2);
        }
    return expected > 0 ? fmin(1, sqrt(own / expected)) : 1;
}

/* How far honest noise may move the number: what it does in the draws, which share roundings, and
 * what single values leave open. */
static double width_of(const slope *sum, double spreads)
{
    double squares = 0;
    for (size_t d = 0; d < GEMMA4_DRAWS; d++)
        squares += sum->draws[d] * sum->draws[d] / GEMMA4_DRAWS;
    return SOLVED_DEVIATIONS * spreads * fmax(sqrt(squares) / sum->change, 1 / sqrt(sum->change));
}

/* How the prediction moves with the number: the step grows until that is more than rounding. */
static int find_slope(identification *id, const identify_candidate *c, gemma4_setting *s,
                      double *step, slope *sum)
{
    double number = s->number,
           values = (double)(id->s->e->subject->T * id->s->e->taps[id->s->tap].width);
    for (;; *step *= 4) {
        s->number = moved(s, number, *step);
        int status = identify_predict(id, c);
        *sum = slope_of(id, *step);
        s->number = number;
        if (status)
            return -1;
        if (*step > 0.25 || sqrt(sum->change / values) * *step > SOLVE_SPREADS)
            return 0;
    }
}

/* Least squares from the number at hand, by the slope of the prediction; the interval that noise
 * leaves. */
static int solve_here(identification *id, identify_candidate *c, size_t setting)
{
    gemma4_setting *s = &c->point->settings[setting];
    size_t n = id->s->e->subject->T * id->s->e->taps[id->s->tap].width;
    double width = INFINITY, step = SOLVE_STEP;
    for (int i = 0; i < SOLVE_STEPS; i++) {
        double number = s->number;
        identify_candidate next = *c;
        if (identify_predict(id, c))
            return -1;
        memcpy(id->at, id->s->prediction, n * sizeof *id->at);
        slope sum;
        if (find_slope(id, c, s, &step, &sum))
            return -1;
        if (!(sum.change > 0))
            return 0;
        double spreads = fmax(1, c->left), by = sum.error_change / sum.change;
        width = width_of(&sum, spreads);
        for (int halved = 0; halved < 4; halved++, by /= 4) { /* a step too far is made smaller */
            s->number = moved(s, number, by);
            if (identify_look(id, &next))
                return -1;
            if (next.left < c->left)
                break;
        }
        if (!(next.left < c->left)) {
            s->number = number;
            break;
        }
        bool settled = next.left > SOLVE_SETTLED * c->left;
        *c = next;
        step = fmax(0x1p-12, fmin(SOLVE_STEP, fabs(by)));
        if (settled)
            break;
    }
    width *= own_size(id);
    bool positive = is_positive(s->parameter);
    if (s->parameter == GEMMA4_PARAMETER_RESULT_FACTOR &&
        id->s->e->subject->tier->unit > UNIT_FLOAT32)
        width += id->s->e->subject->tier->unit * fabs(s->number); /* the engine's factor was rounded
                                                                     to its type */
    c->point->low[setting] = positive ? s->number * exp(-width) : s->number - width;
    c->point->high[setting] = positive ? s->number * exp(width) : s->number + width;
    return 0;
}

/* --- lists --- */

/* Is the setting's list to be solved for? Of moe.norm, which fused experts hide, all lanes. */
static bool is_list_solved_for(const gemma4_setting *s)
{
    bool lanes = s->steps == GEMMA4_STEP(GEMMA4_TAP_MOE_NORM);
    return (lanes || s->count <= SOLVED_LIST) && (s->parameter == GEMMA4_PARAMETER_RESULT_FACTORS ||
                                                  s->parameter == GEMMA4_PARAMETER_RESIDUAL);
}

/* The normal equations of a list at hand: changes is [count][T * width], what each entry's step
 * does to the prediction. */
static void fill_equations(const identification *id, size_t count, const real *changes, double step,
                           double *a, double *b)
{
    const fit_search *s = id->s;
    const gemma4_tap_evidence *t = &s->e->taps[s->tap];
    const gemma4_against rows = identify_rows(id);
    size_t n = s->e->subject->T * t->width;
    memset(a, 0, count * count * sizeof *a);
    memset(b, 0, count * sizeof *b);
    for (size_t row = 0; row < s->e->subject->T; row++)
        for (size_t i = row * t->width;
             gemma4_row_counts(s->e, s->tap, &rows, row) && i < (row + 1) * t->width; i++)
            for (size_t k = 0; k < count; k++) {
                double change = ((double)changes[k * n + i] - (double)id->at[i]) / step,
                       weight = 1 / (t->sigma[row] * t->sigma[row]);
                b[k] += weight * change * ((double)t->engine[i] - (double)id->at[i]);
                for (size_t j = 0; j <= k; j++)
                    a[k * count + j] = a[j * count + k] +=
                        weight * change * ((double)changes[j * n + i] - (double)id->at[i]) / step;
            }
}

/* Least squares of a list, by the slopes of all its entries. */
static int solve_list(identification *id, identify_candidate *c, size_t setting)
{
    gemma4_setting *s = &c->point->settings[setting];
    size_t n = id->s->e->subject->T * id->s->e->taps[id->s->tap].width, count = s->count;
    const double step = 0x1p-5;
    real *changes = malloc((count * n + 1) * sizeof *changes);
    double *a = malloc(count * (count + 2) * sizeof *a), *b = a + count * count, *x = b + count,
           kept[GEMMA4_LIST];
    int status = changes && a ? 0 : gemma4_fail(id->s->error, "diagnosis: out of memory");
    bool first = s->list[0] == 1.25 && s->list[1] == 0.75; /* as proposed, to be seen at all: the
                                                              right ones are nearer */
    for (size_t k = 0; first && k < count; k++)
        s->list[k] = 1;
    for (int i = 0; i < SOLVE_STEPS && !status; i++) {
        identify_candidate next = *c;
        memcpy(kept, s->list, count * sizeof *kept);
        status = identify_predict(id, c);
        memcpy(id->at, id->s->prediction, n * sizeof *id->at);
        for (size_t k = 0; k < count && !status; k++) {
            s->list[k] += step;
            status = identify_predict(id, c);
            memcpy(changes + k * n, id->s->prediction, n * sizeof *changes);
            s->list[k] = kept[k];
        }
        if (status)
            break;
        fill_equations(id, count, changes, step, a, b);
        for (size_t k = 0; k < count; k++)
            a[k * count + k] *= 1 + SOLVE_RIDGE;
        gemma4_solve_system(a, b, count, 0, x);
        double part = 1;
        for (int tries = 0; tries < 4; tries++, part /= 4) {
            for (size_t k = 0; k < count; k++)
                s->list[k] = kept[k] + part * fmax(-2, fmin(2, x[k]));
            status = identify_look(id, &next);
            if (status || next.left < c->left)
                break;
        }
        if (status || !(next.left < c->left)) {
            memcpy(s->list, kept, count * sizeof *kept);
            break;
        }
        bool settled = next.left > SOLVE_SETTLED * c->left;
        *c = next;
        if (settled)
            break;
    }
    free(changes);
    free(a);
    return status;
}

int identify_solve(identification *id, identify_candidate *c, size_t setting)
{
    size_t positions = id->positions;
    id->positions = c->everywhere ? 0 : positions;
    int status = is_list_solved_for(&c->point->settings[setting]) ? solve_list(id, c, setting)
                                                                  : solve_here(id, c, setting);
    id->positions = positions;
    return status;
}
