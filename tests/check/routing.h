/* Which experts an engine chose: right, excused by rounding, inferred, or at fault (spec/tolerance.md, "Routing"). */
#ifndef GEMMA4_ROUTING_H
#define GEMMA4_ROUTING_H

#include "replay.h"

/* Counts over all layers. */
typedef struct gemma4_routing {
    size_t decisions; /* choices that the dump holds, or whose outcome could be judged */
    size_t near_ties; /* of all choices, those whose margin between rank K and K + 1 is below what the tier's rounding may do */
    size_t swaps;     /* experts that are not among the K with the largest logits */
    size_t excused;   /* choices with such experts that rounding explains */
    size_t inferred;  /* choices that the dump does not hold and that were inferred from what followed */
    size_t faults;    /* choices that nothing explains */
    size_t first_fault; /* position of the first fault in the layer at hand */
} gemma4_routing;

/* For the layer at hand, where its dump holds no topk_ids: tries, at each position whose choice is a near-tie, the other sets within
 * the bound, keeps what fits the next stored tap best, and replays the layer with it. */
int gemma4_routing_infer(gemma4_replay *replay, gemma4_routing *routing, gemma4_error *error);
/* Judges the stored topk_ids of the layer at hand; returns the number of faults in it. */
size_t gemma4_routing_judge(const gemma4_replay *replay, gemma4_routing *routing);

#endif
