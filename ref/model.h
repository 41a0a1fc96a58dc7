/* A checkpoint bound to its config: every weight of the text decoder by its field name, checked for
 * shape. */
#ifndef GEMMA4_MODEL_H
#define GEMMA4_MODEL_H

#include <stddef.h>

#include "config.h"
#include "dtype.h"
#include "error.h"

/* Where weights may lie: safetensors.h, gguf.h, quantised.h. */
typedef struct gemma4_safetensors gemma4_safetensors;
typedef struct gemma4_gguf gemma4_gguf;
typedef struct gemma4_quantised gemma4_quantised;

/* A weight as it lies in the mapped file. A matrix is [rows, cols] = [out features, in features],
 * row-major: y = W x. A vector has rows = 1. The experts' matrices are stacked: rows counts the
 * rows of all experts. */
typedef struct gemma4_weight {
    gemma4_dtype dtype; /* GEMMA4_BF16, GEMMA4_F16 or GEMMA4_F32; matrices from GGUF files also
                           GEMMA4_QUANTISED */
    const void *data;   /* NULL where the layer has no such weight (v_proj on layers where V is K);
                           where it is quantised, a gemma4_quantised */
    size_t rows, cols;
} gemma4_weight;

/* Bytes of one element of a weight; 0 where it is quantised. */
static inline size_t gemma4_weight_size(gemma4_dtype dtype)
{
    return dtype == GEMMA4_QUANTISED ? 0 : dtype == GEMMA4_F32 ? 4 : 2;
}

typedef struct gemma4_layer_weights {
    gemma4_weight input_layernorm;              /* [d] */
    gemma4_weight q_proj;                       /* [H*D, d] */
    gemma4_weight k_proj;                       /* [G*D, d] */
    gemma4_weight v_proj;                       /* [G*D, d], absent where V is K */
    gemma4_weight o_proj;                       /* [d, H*D] */
    gemma4_weight q_norm;                       /* [D] */
    gemma4_weight k_norm;                       /* [D] */
    gemma4_weight post_attention_layernorm;     /* [d] */
    gemma4_weight pre_feedforward_layernorm;    /* [d], before the dense MLP */
    gemma4_weight gate_proj;                    /* [F, d] */
    gemma4_weight up_proj;                      /* [F, d] */
    gemma4_weight down_proj;                    /* [d, F] */
    gemma4_weight post_feedforward_layernorm_1; /* [d], after the dense MLP */
    gemma4_weight router_proj;                  /* [E, d] */
    gemma4_weight router_scale;                 /* [d] */
    gemma4_weight router_per_expert_scale;      /* [E] */
    gemma4_weight pre_feedforward_layernorm_2;  /* [d], before the experts */
    gemma4_weight experts_gate_up_proj;         /* [E*2M, d]: per expert M gate rows, then M up
                                                   rows */
    gemma4_weight experts_down_proj;            /* [E*d, M] */
    gemma4_weight post_feedforward_layernorm_2; /* [d], after the experts */
    gemma4_weight post_feedforward_layernorm;   /* [d], after the sum of both branches */
    gemma4_weight layer_scalar;                 /* [1] */
} gemma4_layer_weights;

typedef struct gemma4_model {
    gemma4_config config;
    gemma4_weight embed_tokens; /* [V, d], also the LM head */
    gemma4_weight norm;         /* [d], the final RMSNorm */
    gemma4_layer_weights *layers;
    gemma4_safetensors *files;   /* where the weights are: these, */
    gemma4_gguf *gguf;           /* or this; the other is NULL */
    gemma4_quantised *quantised; /* of those weights that are, quantised_count of them */
    size_t quantised_count;
} gemma4_model;

/* Opens a checkpoint: a folder, config.json and the safetensors beside it, or a GGUF file
 * (spec/gguf.md). Text-decoder tensors may carry the prefix "model.language_model." (multimodal
 * layout) or "model." (text-only); tensors of the vision and audio towers are skipped. A missing,
 * extra or wrongly shaped text-decoder tensor is an error that names file, tensor, expected and
 * found. NULL on failure. */
gemma4_model *gemma4_model_open(const char *path, gemma4_error *error);
void gemma4_model_close(gemma4_model *model);
/* Whether a matrix of it is GEMMA4_QUANTISED: then only the scalar operators can read it. */
bool gemma4_model_is_quantised(const gemma4_model *model);
/* Only the config of such a checkpoint; its weights need not be there. On failure nothing needs
 * freeing. */
int gemma4_model_config(const char *path, gemma4_config *config, gemma4_error *error);

/* Every text-decoder tensor that a config implies, in the published order: the one list that the
 * loader checks against, that synth writes, and that facts counts. name has no prefix
 * ("layers.0.self_attn.q_proj.weight"). offset is where the gemma4_weight lies: in gemma4_model for
 * layer == -1, else in gemma4_layer_weights. rows and cols describe the gemma4_weight; shape is as
 * stored in the file. */
typedef struct gemma4_tensor_spec {
    char name[96];
    int layer;
    size_t offset;
    size_t rank, shape[3];
    size_t rows, cols;
} gemma4_tensor_spec;

size_t gemma4_tensor_spec_count(const gemma4_config *config);
/* index < count. */
gemma4_tensor_spec gemma4_tensor_spec_at(const gemma4_config *config, size_t index);
/* The weight that the spec describes. */
static inline gemma4_weight *gemma4_spec_weight(gemma4_model *model, const gemma4_tensor_spec *spec)
{
    char *base = spec->layer < 0 ? (char *)model : (char *)&model->layers[spec->layer];
    return (gemma4_weight *)(base + spec->offset);
}

#endif
