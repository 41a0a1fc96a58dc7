/* The catalogue's parts, a file each, and the words that their rows are written in. */
#ifndef GEMMA4_CATALOGUE_H
#define GEMMA4_CATALOGUE_H

#include "counter_model.h"

extern const gemma4_counter_model catalogue_stream[], catalogue_attention[], catalogue_ffn[];
extern const size_t catalogue_stream_count, catalogue_attention_count, catalogue_ffn_count;

enum {
    SLIDING = GEMMA4_ON_SLIDING,
    FULL = GEMMA4_ON_FULL,
    HEAD = GEMMA4_ON_HEAD,
    LAYERS = SLIDING | FULL,
    EVERYWHERE = LAYERS | HEAD
};

/* A function for the member `change` of a row. */
#define MISTAKE(name, ...)                 \
    static void name(gemma4_parameters *p) \
    {                                      \
        __VA_ARGS__                        \
    }
/* The same change of q's and k's rotation. */
#define Q_AND_K(assignment) \
    p->q_rope.assignment;   \
    p->k_rope.assignment;

#define TAPS(...)                     \
    {                                 \
        __VA_ARGS__, GEMMA4_TAP_COUNT \
    }
#define Q_ROPE_K_ROPE TAPS(GEMMA4_TAP_ATTN_Q_ROPE, GEMMA4_TAP_ATTN_K_ROPE)
#define SCORES_PROBS_CONTEXT \
    TAPS(GEMMA4_TAP_ATTN_SCORES, GEMMA4_TAP_ATTN_PROBS, GEMMA4_TAP_ATTN_CONTEXT)
#define EVERY_WEIGHTED_NORM                                                        \
    TAPS(GEMMA4_TAP_ATTN_NORM, GEMMA4_TAP_ATTN_Q_NORM, GEMMA4_TAP_ATTN_K_NORM,     \
         GEMMA4_TAP_ATTN_POST_NORM, GEMMA4_TAP_MLP_NORM, GEMMA4_TAP_MLP_POST_NORM, \
         GEMMA4_TAP_MOE_NORM, GEMMA4_TAP_MOE_POST_NORM, GEMMA4_TAP_FFN_POST_NORM,  \
         GEMMA4_TAP_FINAL_NORM)
#define EVERY_NORM                                                               \
    TAPS(GEMMA4_TAP_ATTN_NORM, GEMMA4_TAP_ATTN_Q_NORM, GEMMA4_TAP_ATTN_K_NORM,   \
         GEMMA4_TAP_ATTN_V_NORM, GEMMA4_TAP_ATTN_POST_NORM, GEMMA4_TAP_MLP_NORM, \
         GEMMA4_TAP_MLP_POST_NORM, GEMMA4_TAP_ROUTER_NORM, GEMMA4_TAP_MOE_NORM,  \
         GEMMA4_TAP_MOE_POST_NORM, GEMMA4_TAP_FFN_POST_NORM, GEMMA4_TAP_FINAL_NORM)

#endif
