/* Engines to be judged: the reference's forward pass with a hook that does something otherwise, and
 * the dump that it leaves. */
#ifndef GEMMA4_TEST_ENGINES_H
#define GEMMA4_TEST_ENGINES_H

#include "counter_model.h"
#include "judge.h"

typedef struct test_engine test_engine;
typedef void test_change(const test_engine *engine, gemma4_tap_event *event);

struct test_engine {
    const gemma4_model *model;
    size_t T;                     /* of the tokens 5, 42, 79 ... modulo the vocabulary */
    const char *tier;             /* of its arithmetic. bfloat16: every tap is rounded to it, to
                                     nearest, before anything is changed */
    test_change *compute;         /* what it computes differently: the next step reads what this
                                     leaves; may be NULL */
    test_change *show;            /* what it writes otherwise than it computes; may be NULL. May set
                                     event->values to memory of its own */
    const char *attributes[3][2]; /* names and texts that its dump has */
    const char *store;            /* the type of its dump's datasets; NULL: float32 */
    size_t first_position;
    const char *taps[8]; /* globs of the taps that it dumps; none: all */
    const char *but[6];  /* globs of those that it does not dump all the same */
};

/* Runs the engine; returns its dump's path. */
char *test_engine_dump(const test_engine *engine);

/* A dump that has been judged, without a golden. */
typedef struct test_judgement {
    gemma4_activations *dump;
    gemma4_report report;
} test_judgement;

test_judgement test_judge_engine(const test_engine *engine, bool with_causes);
void test_judgement_free(test_judgement *j);

const gemma4_tap_result *test_result_of(const test_judgement *j, gemma4_tap tap, size_t layer);
/* The name of the first tap that diverges; "" where it conforms. Valid until the next call. */
const char *test_first_divergence(const test_judgement *j);

/* Rounded to nearest, ties to even. */
float test_bfloat16(float value);

/* The first of the catalogue that has the id, which must be there; NULL for NULL. */
const gemma4_counter_model *test_mistake(const char *id);

/* The checkpoint golden/checkpoints/tiny: 12 layers of which 5 and 11 are full, window 16, 16
 * experts of which 4 are chosen. Stays open. */
const gemma4_model *test_golden_model(void);

#endif
