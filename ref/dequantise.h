/* A GGUF file as a checkpoint in the published layout (spec/gguf.md). */
#ifndef GEMMA4_DEQUANTISE_H
#define GEMMA4_DEQUANTISE_H

#include "error.h"

/* Writes config.json and model.safetensors into directory, which is created where it is missing:
 * the published names and order. Quantised matrices become float32, the others keep their type and
 * bits. Each file appears under its own name only when it is complete, config.json last. Memory for
 * one row. */
int gemma4_dequantise(const char *gguf, const char *directory, gemma4_error *error);

/* The command `dequantise IN.gguf OUT`: argv is what follows the command's name. */
int gemma4_dequantise_command(int argc, char **argv, gemma4_error *error);

#endif
