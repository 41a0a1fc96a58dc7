/* Evidence made by hand, for the unit tests of what reads it (tests/check/evidence.h): a small
 * model, a few rows, and numbers that follow by mental arithmetic. */
#ifndef GEMMA4_TEST_EVIDENCE_MAKER_H
#define GEMMA4_TEST_EVIDENCE_MAKER_H

#include "evidence.h"

/* What the evidence of one tap points to. A test may write into all of it. */
typedef struct test_tap {
    size_t width;
    gemma4_real *expected, *values; /* [T, width] */
    float *engine;                  /* [T, width] */
    bool *have, *stored_row;        /* [T] */
    float *draws[GEMMA4_DRAWS];     /* [T, width] */
    double *sigma;                  /* [T] */
    gemma4_activation stored;       /* says float32 */
} test_tap;

typedef struct test_evidence {
    gemma4_evidence evidence; /* what is tested reads this */
    gemma4_subject subject;   /* evidence.subject; T tokens 0, 1, ... of one chunk, from position
                                 0 */
    test_tap taps[GEMMA4_TAP_COUNT];
    int32_t *tokens;                 /* [T] */
    int32_t *engine_ids, *ids;       /* [T, K]; NULL before test_evidence_ids */
    bool *have_ids, *have_valid_ids; /* [T] */
    gemma4_real *stream, *output;    /* [T, d] before and after the block, 0 */
    const gemma4_real *streams[2];   /* evidence.streams: known_block is the block itself */
    void **memory;
    size_t memory_count;
} test_evidence;

/* The model of test_tiny_config: 6 layers (the last one is full), d 16, 4 query heads, 4 experts of
 * which 2 are chosen, window 4. Stays open. */
const gemma4_model *test_small_model(void);
/* A model of that config with `old` replaced (NULL: as it is), for who needs more experts or
 * another window. To be closed. */
gemma4_model *test_model_with(const char *old, const char *replacement);

/* Evidence of a block (-1: the embedding, a layer, num_hidden_layers: the head) in which no tap is
 * stored and nothing is expected yet. model NULL: the small one. No ids: have_ids is false
 * everywhere. */
test_evidence *test_evidence_new(const gemma4_model *model, size_t T, const char *tier,
                                 gemma4_block block);
void test_evidence_free(test_evidence *e);

/* Makes a tap a stored one, all rows of it. width 0: as the config implies; any other makes
 * arithmetic easier. What is NULL gets a default: expected all 1, engine as expected, sigma all 1
 * ([T]). values is a copy of expected, draws are 0. */
test_tap *test_evidence_tap(test_evidence *e, gemma4_tap tap, size_t width,
                            const gemma4_real *expected, const float *engine, const double *sigma);
/* The same for a tap that the dump does not hold: expected, values, sigma and draws only. */
test_tap *test_evidence_unstored(test_evidence *e, gemma4_tap tap, size_t width,
                                 const gemma4_real *expected, const double *sigma);

/* Every value of every draw becomes + or - its row's sigma, signs alternating along the row and
 * from draw to draw: the draws' RMS is sigma, and where a row of even width is constant, no draw
 * has a part along it. */
void test_draws_alternate(const test_evidence *e, gemma4_tap tap);
/* Draw d of every row becomes part[d] times what is expected there. */
void test_draws_along(const test_evidence *e, gemma4_tap tap, const double part[GEMMA4_DRAWS]);

/* The engine's choice of experts (NULL: the dump holds none) and the one that the replay used, [T,
 * K] each. have_valid_ids becomes what it would be in a replay. */
void test_evidence_ids(test_evidence *e, const int32_t *engine_ids, const int32_t *ids);

#endif
