/* Mistakes that are not the engine's, but of what was written of it (spec/diagnosis.md, "Mistakes
 * of the dump"). */
#ifndef GEMMA4_DUMP_MISTAKE_H
#define GEMMA4_DUMP_MISTAKE_H

/* A mistake of the dump, not of the engine (recognise.h). */
typedef enum gemma4_dump_mistake_kind {
    GEMMA4_DUMP_AS_DUE,
    GEMMA4_DUMP_AXES,              /* in another order */
    GEMMA4_DUMP_BATCH,             /* a batch axis longer than 1 */
    GEMMA4_DUMP_FEW_ROWS,          /* fewer than positions, without the attribute rows */
    GEMMA4_DUMP_PADDING,           /* more rows than positions */
    GEMMA4_DUMP_INNER_AXIS,        /* an axis of length 1 that is not in front */
    GEMMA4_DUMP_SHIFTED,           /* row t holds another position's values */
    GEMMA4_DUMP_LOG_PROBABILITIES, /* in place of logits */
    GEMMA4_DUMP_PROBABILITIES,
    GEMMA4_DUMP_PRECISION, /* the whole dump: of another arithmetic than it says */
    GEMMA4_DUMP_CHECKPOINT /* the whole dump: of another checkpoint */
} gemma4_dump_mistake_kind;

typedef struct gemma4_dump_mistake {
    gemma4_dump_mistake_kind kind;
    unsigned char order[3]; /* AXES, by value: axis i of what is stored is this axis of the tap; 0
                               is the position */
    int shift;              /* SHIFTED: row t holds position t + shift */
    double left;            /* by value: relative RMS against the reference by itself once it is put
                               right */
} gemma4_dump_mistake;

#endif
