#include "describe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "thresholds.h"

/* The replayed tap with its error, split into heads (or experts' slots) of `width` lanes. */
typedef struct error_view {
    const gemma4_replay *replay;
    const gemma4_replayed_tap *tap;
    size_t heads, width;
    double total; /* sum of squares of the error */
} error_view;

static double expected_at(const error_view *v, size_t row, size_t i)
{
    return (double)v->tap->expected[row * v->tap->width + i];
}

static double engine_at(const error_view *v, size_t row, size_t i)
{
    return (double)v->tap->engine[row * v->tap->width + i];
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
    for (size_t row = 0; row < v->replay->T; row++)
        for (size_t i = 0; v->tap->have[row] && i < v->tap->width; i++) {
            product += engine_at(v, row, i) * expected_at(v, row, i);
            square += expected_at(v, row, i) * expected_at(v, row, i);
        }
    double ratio = square > 0 ? product / square : 1;
    for (size_t row = 0; row < v->replay->T; row++)
        for (size_t i = 0; v->tap->have[row] && i < v->tap->width; i++) {
            double e = engine_at(v, row, i) - ratio * expected_at(v, row, i);
            left += e * e;
        }
    if (left < 0.02 * v->total) {
        char sentence[96];
        snprintf(sentence, sizeof sentence, "the expected values times a constant, %.6g", ratio);
        say(text, size, sentence);
    }
}

/* Names the few items (positions, heads, lanes) that hold nearly all of the error; nothing where it is spread over more than a third. */
static void describe_share(const double *energy, size_t count, double total, const char *what, char *text, size_t size)
{
    char sentence[120];
    size_t listed = 0, n = 0;
    double covered = 0;
    bool *used = calloc(count, sizeof *used);
    snprintf(sentence, sizeof sentence, "only in %s", what);
    while (used && covered < 0.98 * total && listed * 3 < count) {
        size_t largest = 0;
        for (size_t i = 1; i < count; i++)
            if (!used[i] && (used[largest] || energy[i] > energy[largest]))
                largest = i;
        used[largest] = true;
        covered += energy[largest];
        listed++;
    }
    if (used && covered >= 0.98 * total && listed * 3 <= count && listed < count) {
        for (size_t i = 0, said = 0; i < count && said < 8; i++)
            if (used[i]) {
                n = strlen(sentence);
                snprintf(sentence + n, sizeof sentence - n, "%s%zu", said++ ? ", " : " ", i);
            }
        if (listed > 8) {
            n = strlen(sentence);
            snprintf(sentence + n, sizeof sentence - n, " ... (%zu of %zu)", listed, count);
        }
        say(text, size, sentence);
    }
    free(used);
}

static void describe_places(const error_view *v, char *text, size_t size)
{
    size_t T = v->replay->T;
    double *positions = calloc(T, sizeof *positions), *heads = calloc(v->heads, sizeof *heads), *lanes = calloc(v->width, sizeof *lanes);
    if (positions && heads && lanes) {
        for (size_t row = 0; row < T; row++)
            for (size_t i = 0; v->tap->have[row] && i < v->tap->width; i++) {
                double e = error_at(v, row, i);
                positions[row] += e * e;
                heads[i / v->width] += e * e;
                lanes[i % v->width] += e * e;
            }
        describe_share(positions, T, v->total, "positions", text, size);
        if (v->heads > 1)
            describe_share(heads, v->heads, v->total, "heads", text, size);
        describe_share(lanes, v->width, v->total, "lanes", text, size);
    }
    free(positions);
    free(heads);
    free(lanes);
}

/* Error of the engine's head `to` against the expected head `from`, over all rows, lanes shifted by `shift`. */
static double head_distance(const error_view *v, size_t to, size_t from, size_t shift)
{
    double sum = 0;
    for (size_t row = 0; row < v->replay->T; row++)
        for (size_t i = 0; v->tap->have[row] && i < v->width; i++) {
            double e = engine_at(v, row, to * v->width + i) - expected_at(v, row, from * v->width + (i + shift) % v->width);
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
    if (moved && left < 0.02 * v->total)
        say(text, size, "the heads are in another order");
}

/* The lanes of every head are rotated by a constant number of places. */
static void describe_shift(const error_view *v, char *text, size_t size)
{
    for (size_t shift = 1; shift < v->width && v->width <= 1024; shift++) {
        double left = 0;
        for (size_t head = 0; head < v->heads && left < 0.02 * v->total; head++)
            left += head_distance(v, head, head, shift);
        if (left < 0.02 * v->total) {
            char sentence[64];
            snprintf(sentence, sizeof sentence, "the lanes are shifted by %zu", shift);
            say(text, size, sentence);
            return;
        }
    }
}

void gemma4_describe_error(const gemma4_replay *r, gemma4_tap tap, char *text, size_t size)
{
    error_view v = {.replay = r, .tap = &r->taps[tap]};
    size_t dims[2] = {1, 1};
    double expected = 0, engine = 0;
    v.heads = gemma4_tap_dims(&r->model->config, tap, r->block_layer, r->T, dims) == 2 ? dims[0] : 1;
    v.width = v.tap->width / v.heads;
    for (size_t row = 0; row < r->T; row++)
        for (size_t i = 0; v.tap->have[row] && i < v.tap->width; i++) {
            v.total += error_at(&v, row, i) * error_at(&v, row, i);
            expected += expected_at(&v, row, i) * expected_at(&v, row, i);
            engine += engine_at(&v, row, i) * engine_at(&v, row, i);
        }
    text[0] = '\0';
    if (engine == 0)
        say(text, size, "all values are 0");
    else if (v.total > 0) {
        describe_ratio(&v, text, size);
        describe_places(&v, text, size);
        describe_permutation(&v, text, size);
        describe_shift(&v, text, size);
    }
    if (text[0] == '\0')
        snprintf(text, size, "spread over all positions and lanes; norm of yours / norm of the expected = %.6f", expected > 0 ? sqrt(engine / expected) : 0);
}
