/* What was seen of the choices of experts, for reports. */
#ifndef GEMMA4_ROUTING_COUNTS_H
#define GEMMA4_ROUTING_COUNTS_H

#include <stddef.h>

/* Counts over all layers. */
typedef struct gemma4_routing {
    size_t decisions; /* choices that the dump holds */
    size_t near_ties; /* of all choices, those whose margin between rank K and K + 1 is below what
                         the tier's rounding may do */
    size_t swaps;     /* experts that are not among the K with the largest logits */
    size_t excused;   /* choices with such experts that rounding explains */
    size_t inferred;  /* choices that the dump does not hold and that were inferred from what
                         followed */
    size_t faults;    /* choices that nothing explains */
} gemma4_routing;

#endif
