/* GGUF files as llama.cpp's converter writes them for Gemma 4 (spec/gguf.md): metadata as a
 * config.json, tensors as a model's weights. */
#ifndef GEMMA4_GGUF_MODEL_H
#define GEMMA4_GGUF_MODEL_H

#include <stdio.h>

#include "model.h"

/* Writes the config.json that the metadata say, in the published layout. A key that is missing or
 * means another model than this library computes is an error that names it. Errors of f are sticky:
 * the caller looks. */
int gemma4_gguf_write_config(const gemma4_gguf *gguf, FILE *f, gemma4_error *error);
/* The same, read: on failure nothing needs freeing. */
int gemma4_gguf_read_config(const gemma4_gguf *gguf, gemma4_config *config, gemma4_error *error);

/* Binds every weight that model->config implies to the tensors of model->gguf, and fills
 * model->quantised; model->layers are there. */
int gemma4_gguf_bind(gemma4_model *model, gemma4_error *error);

#endif
