/* Which slots of a chunk each expert works on: shared by the operators of ref/ops_simd.h and
 * ref/ops_exact.h. */
#ifndef GEMMA4_OPS_GROUPS_H
#define GEMMA4_OPS_GROUPS_H

#include <stddef.h>
#include <stdint.h>

/* The chosen (position, rank) slots t * K + r, sorted by expert: group g is order[first[g] ...
 * first[g + 1] - 1], slots of one expert in ascending order. An expert that nobody chose has no
 * group: its weights are not read. */
typedef struct expert_groups {
    int32_t *order; /* (slots) */
    int32_t *first; /* (groups + 1) */
    size_t groups;
} expert_groups;

/* memory is (2 slots + 1), and the groups' from then on. */
static inline expert_groups group_by_expert(const int32_t *ids, size_t slots, int32_t *memory)
{
    expert_groups g = {memory, memory + slots, 0};
    size_t placed = 0;
    g.first[0] = 0;
    for (size_t s = 0; s < slots; s++) {
        size_t earlier = 0;
        while (ids[earlier] != ids[s])
            earlier++;
        if (earlier < s)
            continue; /* placed with the first slot of this expert */
        for (size_t other = s; other < slots; other++)
            if (ids[other] == ids[s])
                g.order[placed++] = (int32_t)other;
        g.first[++g.groups] = (int32_t)placed;
    }
    return g;
}

#endif
