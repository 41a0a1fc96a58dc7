/* Checkpoints: a GGUF file, and a folder of safetensors with its index. */
#include "targets.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blocks.h"
#include "forward.h"
#include "gguf.h"
#include "gguf_model.h"
#include "model.h"
#include "safetensors.h"

/* --- GGUF --- */

static void read_value(const gemma4_gguf *gguf, const gemma4_gguf_value *value)
{
    gemma4_error error = {""};
    for (size_t i = 0; i < value->count && i < 64; i++) {
        int64_t integer;
        double number;
        int status = gemma4_gguf_integer(gguf, value, i, -5, 100, &integer, &error);
        fuzz_promise(status, &error);
        if (!status && (integer < -5 || integer > 100))
            abort();
        status = gemma4_gguf_number(gguf, value, i, &number, &error);
        fuzz_promise(status, &error);
        if (!status && !isfinite(number))
            abort();
    }
    gemma4_gguf_is_string(value, "gemma4");
    if (gemma4_gguf_get(gguf, value->key) != value)
        abort();
}

/* Every block: the file is small. */
static void read_tensor(const gemma4_gguf *gguf, const gemma4_gguf_tensor *tensor)
{
    static volatile float kept; /* reads that nothing depends on would not be made */
    float values[GEMMA4_BLOCK_VALUES];
    for (size_t at = 0; at < tensor->size; at += tensor->type->bytes) {
        tensor->type->decode(values, tensor->data + at);
        kept += values[0] + values[tensor->type->values - 1];
    }
    if (gemma4_gguf_find(gguf, tensor->name) != tensor)
        abort();
}

/* Two tokens: what a pass needs is as small as the tensors, which lie in the file. */
static void run_model(const gemma4_model *model)
{
    static const int32_t tokens[] = {1, 0};
    gemma4_error error = {""};
    const gemma4_config *c = &model->config;
    float *logits = malloc(2 * c->vocab_size * sizeof *logits);
    if (!logits)
        abort();
    gemma4_session *session = gemma4_session_new(model, 0, 2, &error);
    fuzz_promise(!session, &error);
    if (session)
        fuzz_promise(gemma4_forward(session, tokens, 2, 2, logits, &error), &error);
    gemma4_session_free(session);
    free(logits);
}

void fuzz_gguf(const uint8_t *bytes, size_t size)
{
    gemma4_error error = {""};
    const char *path = fuzz_file("model.gguf", bytes, size);
    gemma4_gguf *gguf = gemma4_gguf_open(path, &error);
    fuzz_promise(!gguf, &error);
    if (!gguf)
        return;
    for (size_t i = 0; i < gemma4_gguf_value_count(gguf); i++)
        read_value(gguf, gemma4_gguf_value_at(gguf, i));
    for (size_t i = 0; i < gemma4_gguf_tensor_count(gguf); i++)
        read_tensor(gguf, gemma4_gguf_tensor_at(gguf, i));
    gemma4_gguf_close(gguf);
    gemma4_model *model = gemma4_model_open(path, &error);
    fuzz_promise(!model, &error);
    if (model)
        run_model(model);
    gemma4_model_close(model);
}

/* --- a folder: its index, a line "---- 8< ----", and so on: its shards --- */

void fuzz_index(const uint8_t *bytes, size_t size)
{
    static const char *const names[] = {"model.safetensors.index.json", "a.safetensors",
                                        "b.safetensors"};
    gemma4_error error = {""};
    const char *folder = fuzz_folder(bytes, size, names, sizeof names / sizeof *names);
    gemma4_safetensors *files = gemma4_safetensors_open_checkpoint(folder, &error);
    fuzz_promise(!files, &error);
    for (size_t i = 0; files && i < gemma4_safetensors_count(files); i++)
        if (gemma4_safetensors_find(files, gemma4_safetensors_at(files, i)->name) !=
            gemma4_safetensors_at(files, i))
            abort();
    gemma4_safetensors_close(files);
}
