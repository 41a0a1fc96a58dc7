#include "describe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "thresholds.h"

/* The tap with its error, split into heads (or experts' slots) of `width` lanes. */
typedef struct error_view {
    const gemma4_evidence *evidence;
    gemma4_tap id;
    const gemma4_tap_evidence *tap;
    size_t T, heads, width;
    double total; /* sum of squares of the error */
} error_view;

static double expected_at(const error_view *v, size_t row, size_t i)
{
    return (double)v->tap->expected[row * v->tap->width + i];
}

/* What is masked may hold anything: it counts as right. */
static double engine_at(const error_view *v, size_t row, size_t i)
{
    return gemma4_evidence_masked(v->evidence, v->id, row, i)
               ? expected_at(v, row, i)
               : (double)v->tap->engine[row * v->tap->width + i];
}

static double error_at(const error_view *v, size_t row, size_t i)
{
    return engine_at(v, row, i) - expected_at(v, row, i);
}

/* Adds text to a description. */
static void say(char *text, size_t size, const char *sentence)
{
    size_t n = strlen(text);
    snprintf(text + n, size - n, "%s%s", n ? "; " : "", sentence);
}

/* The engine's tensor is the expected one times a constant. */
static void describe_ratio(const error_view *v, char *text, size_t size)
{
    double product = 0, square = 0, left = 0;
    for (size_t row = 0; row < v->T; row++)
        for (size_t i = 0; v->tap->have[row] && i < v->tap->width; i++) {
            product += engine_at(v, row, i) * expected_at(v, row, i);
            square += expected_at(v, row, i) * expected_at(v, row, i);
        }
    double ratio = square > 0 ? product / square : 1;
    for (size_t row = 0; row < v->T; row++)
        for (size_t i = 0; v->tap->have[row] && i < v->tap->width; i++) {
            double e = engine_at(v, row, i) - ratio * expected_at(v, row, i);
            left += e * e;
        }
    if (left < DESCRIBED_LEFT * v->total) {
        char sentence[96];
        snprintf(sentence, sizeof sentence, "the expected values times a constant, %.6g", ratio);
        say(text, size, sentence);
    }
}

/* Marks the items that hold nearly all of the error, the largest first; returns how many, 0 where
 * it takes more than a third of them. */
static size_t find_few(const double *energy, size_t count, double total, bool *used)
{
    size_t listed = 0;
    double covered = 0;
    while (covered < (1 - DESCRIBED_LEFT) * total && listed * DESCRIBED_FEW < count) {
        size_t largest = count;
        for (size_t i = 0; i < count; i++)
            if (!used[i] && (largest == count || energy[i] > energy[largest]))
                largest = i;
        used[largest] = true;
        covered += energy[largest];
        listed++;
    }
    return covered >= (1 - DESCRIBED_LEFT) * total && listed * DESCRIBED_FEW <= count &&
                   listed < count
               ? listed
               : 0;
}

/* Names the few items (positions, heads, lanes), counted from `first`, that hold nearly all of the
 * error; nothing where it is spread. */
static int describe_share(const double *energy, size_t count, size_t first, double total,
                          const char *what, char *text, size_t size, gemma4_error *error)
{
    char sentence[120];
    bool *used = calloc(count, sizeof *used);
    if (!used)
        return gemma4_fail(error, "description: out of memory");
    size_t listed = find_few(energy, count, total, used);
    int n = snprintf(sentence, sizeof sentence, "only in %s", what);
    for (size_t i = 0, said = 0; i < count && said < DESCRIBED_ITEMS; i++)
        if (used[i])
            n += snprintf(sentence + n, sizeof sentence - (size_t)n, "%s%zu", said++ ? ", " : " ",
                          first + i);
    if (listed > DESCRIBED_ITEMS)
        snprintf(sentence + n, sizeof sentence - (size_t)n, " ... (%zu of %zu)", listed, count);
    if (listed)
        say(text, size, sentence);
    free(used);
    return 0;
}

static int describe_places(const error_view *v, char *text, size_t size, gemma4_error *error)
{
    double *positions = calloc(v->T, sizeof *positions), *heads = calloc(v->heads, sizeof *heads),
           *lanes = calloc(v->width, sizeof *lanes);
    int status = positions && heads && lanes ? 0 : gemma4_fail(error, "description: out of memory");
    for (size_t row = 0; row < v->T && !status; row++)
        for (size_t i = 0; v->tap->have[row] && i < v->tap->width; i++) {
            double e = error_at(v, row, i);
            positions[row] += e * e;
            heads[i / v->width] += e * e;
            lanes[i % v->width] += e * e;
        }
    if (!status)
        status = describe_share(positions, v->T, v->evidence->subject->first_row, v->total,
                                "positions", text, size, error) ||
                         (v->heads > 1 && describe_share(heads, v->heads, 0, v->total, "heads",
                                                         text, size, error)) ||
                         describe_share(lanes, v->width, 0, v->total, "lanes", text, size, error)
                     ? -1
                     : 0;
    free(positions);
    free(heads);
    free(lanes);
    return status;
}

/* Error of the engine's head `to` against the expected head `from`, over all rows, lanes shifted by
 * `shift`. */
static double head_distance(const error_view *v, size_t to, size_t from, size_t shift)
{
    double sum = 0;
    for (size_t row = 0; row < v->T; row++)
        for (size_t i = 0; v->tap->have[row] && i < v->width; i++) {
            double e = engine_at(v, row, to * v->width + i) -
                       expected_at(v, row, from * v->width + (i + shift) % v->width);
            sum += e * e;
        }
    return sum;
}

/* The heads are there, but in another order. */
static void describe_permutation(const error_view *v, char *text, size_t size)
{
    double left = 0;
    size_t moved = 0;
    for (size_t to = 0; v->heads > 1 && to < v->heads; to++) {
        size_t best = to;
        double smallest = head_distance(v, to, to, 0);
        for (size_t from = 0; from < v->heads; from++) {
            double distance = head_distance(v, to, from, 0);
            if (distance < smallest) {
                smallest = distance;
                best = from;
            }
        }
        moved += best != to;
        left += smallest;
    }
    if (moved && left < DESCRIBED_LEFT * v->total)
        say(text, size, "the heads are in another order");
}

/* The lanes of every head are rotated by a constant number of places. */
static void describe_shift(const error_view *v, char *text, size_t size)
{
    for (size_t shift = 1; shift < v->width && v->width <= DESCRIBED_WIDEST; shift++) {
        double left = 0;
        for (size_t head = 0; head < v->heads && left < DESCRIBED_LEFT * v->total; head++)
            left += head_distance(v, head, head, shift);
        if (left < DESCRIBED_LEFT * v->total) {
            char sentence[64];
            snprintf(sentence, sizeof sentence, "the lanes are shifted by %zu", shift);
            say(text, size, sentence);
            return;
        }
    }
}

int gemma4_describe_error(const gemma4_evidence *e, gemma4_tap tap, char *text, size_t size,
                          gemma4_error *error)
{
    error_view v = {.evidence = e, .id = tap, .tap = &e->taps[tap], .T = e->subject->T};
    size_t dims[2] = {1, 1};
    double expected = 0, engine = 0;
    int status = 0;
    v.heads =
        gemma4_tap_dims(&e->subject->model->config, tap, e->layer, v.T, dims) == 2 ? dims[0] : 1;
    v.width = v.tap->width / v.heads;
    for (size_t row = 0; row < v.T; row++)
        for (size_t i = 0; v.tap->have[row] && i < v.tap->width; i++) {
            v.total += error_at(&v, row, i) * error_at(&v, row, i);
            expected += expected_at(&v, row, i) * expected_at(&v, row, i);
            engine += engine_at(&v, row, i) * engine_at(&v, row, i);
        }
    text[0] = '\0';
    if (engine == 0) {
        say(text, size, "all values are 0");
    } else if (v.total > 0) {
        describe_ratio(&v, text, size);
        status = describe_places(&v, text, size, error);
        describe_permutation(&v, text, size);
        describe_shift(&v, text, size);
    }
    if (text[0] == '\0')
        snprintf(text, size,
                 "spread over all positions and lanes; norm of yours / norm of the expected = %.6f",
                 expected > 0 ? sqrt(engine / expected) : 0);
    return status;
}
