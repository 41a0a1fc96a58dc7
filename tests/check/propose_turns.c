/* RoPE's theta and position from the angles by which the engine turned its pairs. An angle goes
 * round many times, so that least squares finds either from near it only. */
#include <math.h>
#include <stdlib.h>

#include "propose.h"
#include "score.h"

/* Thetas are looked for between these; the angles of no pair change by more than about half a
 * radian from one to the next. */
/* mutants: LEAST_THETA x2, x0.5 survive: a bound of time; no model has such a theta */
#define LEAST_THETA 10.0
/* mutants: MOST_THETA x2, x0.5 survive: the same */
#define MOST_THETA 1e9
#define STEP_OF_LOGARITHM(position) fmin(0.05, 10 / (1.0 + (double)(position)))
#define MOST_STEPS 20000 /* mutants: +1, -1, x2 survive: a bound of time */
/* Positions may be off by so many, either way; the fastest pair turns by a radian a position. */
#define MOST_OFFSET 512 /* mutants: +1, -1, x2 survive: a bound of time */
/* mutants: x2, x0.5 survive: least squares goes on from the nearest; fewer steps save time */
#define STEP_OF_OFFSET 0.5
/* mutants: PART_EXPLAINED x0.5 survives: time only, what is proposed is solved for and judged */
#define PART_EXPLAINED 0.5

/* The rotation of pair j at position t, over all heads: parallel cos and parallel sin of its angle,
 * by the size of what is turned. */
typedef struct turns {
    size_t rows, pairs, head_dim;
    const size_t *positions; /* [rows] */
    double *cosines, *sines; /* [rows, pairs] */
    double total;
} turns;

static void measure_turns(turns *r, const gemma4_evidence *e, gemma4_tap tap, size_t t, size_t row)
{
    const gemma4_tap_evidence *out = &e->taps[tap];
    const gemma4_real *x = e->taps[gemma4_step_inputs(tap)[0]].values + t * out->width,
                      *y = out->engine + t * out->width;
    size_t half = r->head_dim / 2;
    for (size_t head = 0; head < out->width / r->head_dim;
         head++, x += r->head_dim, y += r->head_dim)
        for (size_t j = 0; j < r->pairs; j++) {
            double a = (double)x[j], b = (double)x[j + half], c = (double)y[j],
                   d = (double)y[j + half];
            r->cosines[row * r->pairs + j] += a * c + b * d;
            r->sines[row * r->pairs + j] += a * d - b * c;
        }
    for (size_t j = 0; j < r->pairs; j++)
        r->total += hypot(r->cosines[row * r->pairs + j], r->sines[row * r->pairs + j]);
}

/* How much of the turning is that of a theta, with an offset of the positions, 1 at most. */
static double part_explained(const turns *r, double log_theta, double offset)
{
    double sum = 0;
    for (size_t j = 0; j < r->pairs; j++) {
        double frequency = exp(-log_theta * 2 * (double)j / (double)r->head_dim);
        for (size_t row = 0; row < r->rows; row++) {
            double angle = ((double)r->positions[row] + offset) * frequency;
            sum += r->cosines[row * r->pairs + j] * cos(angle) +
                   r->sines[row * r->pairs + j] * sin(angle);
        }
    }
    return sum / r->total;
}

/* The logarithm of theta (from least to most, in steps), or the offset where theta is given, that
 * explains most; *part is how much. */
static double best_of(const turns *r, const double *log_theta, double least, double most,
                      double step, double *part)
{
    double best = least;
    *part = -1;
    for (double at = least; at <= most; at += step) {
        double here = log_theta ? part_explained(r, *log_theta, at) : part_explained(r, at, 0);
        if (here > *part) {
            *part = here;
            best = at;
        }
    }
    for (; step > 1e-7; step /= 2) /* towards the better side */
        for (int side = -1; side <= 1; side += 2) {
            double at = best + side * step / 2,
                   here = log_theta ? part_explained(r, *log_theta, at) : part_explained(r, at, 0);
            if (here > *part) {
                *part = here;
                best = at;
            }
        }
    return best;
}

static void propose_best(gemma4_proposals *p, const turns *r, gemma4_tap tap, double right_theta,
                         double step)
{
    const double log_theta = log(right_theta);
    double part;
    gemma4_setting s = {.steps = GEMMA4_STEP(tap), .parameter = GEMMA4_PARAMETER_ROPE_THETA};
    s.number = exp(best_of(r, NULL, log(LEAST_THETA), log(MOST_THETA), step, &part));
    if (part > PART_EXPLAINED)
        gemma4_propose(p, &s);
    s.parameter = GEMMA4_PARAMETER_ROPE_OFFSET;
    s.number = best_of(r, &log_theta, -MOST_OFFSET, MOST_OFFSET, STEP_OF_OFFSET, &part);
    if (part > PART_EXPLAINED)
        gemma4_propose(p, &s);
}

void gemma4_propose_turns(gemma4_proposals *p, const gemma4_evidence *e, gemma4_tap tap)
{
    const gemma4_layer_config *lc = &e->subject->model->config.layers[e->layer];
    const gemma4_against every = {0};
    size_t T = e->subject->T, last = e->subject->first_position + T;
    double step = STEP_OF_LOGARITHM(last);
    if ((tap != GEMMA4_TAP_ATTN_Q_ROPE && tap != GEMMA4_TAP_ATTN_K_ROPE) ||
        log(MOST_THETA / LEAST_THETA) / step > MOST_STEPS || !e->taps[tap].engine ||
        !e->taps[gemma4_step_inputs(tap)[0]].values)
        return;
    size_t *positions = calloc(T, sizeof *positions);
    turns r = {.pairs = lc->rope_pairs, .head_dim = lc->head_dim, .positions = positions};
    r.cosines = calloc(T * lc->rope_pairs, sizeof *r.cosines);
    r.sines = calloc(T * lc->rope_pairs, sizeof *r.sines);
    p->failed = p->failed || !positions || !r.cosines || !r.sines;
    for (size_t t = 0; t < T && !p->failed; t++)
        if (gemma4_in_scope(&e->subject->schedule, p->scope, t) &&
            gemma4_row_counts(e, tap, &every, t)) {
            positions[r.rows] = e->subject->first_position + t;
            measure_turns(&r, e, tap, t, r.rows++);
        }
    if (r.total > 0)
        propose_best(p, &r, tap, lc->rope_theta, step);
    free(positions);
    free(r.cosines);
    free(r.sines);
}
