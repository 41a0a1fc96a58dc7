/* An engine in C that dumps through gemma4_dump.h: layer outputs, the queries of every layer, and
 * logits. The engine here is this repository's own forward pass; in yours, the calls of
 * gemma4_dump_add stand where a layer is done.
 *
 * Usage: example CHECKPOINT 2,17,5 CHUNK OUT.safetensors CHUNK: how many tokens are fed at a
 * time */
#include <stdio.h>
#include <stdlib.h>

#define GEMMA4_DUMP_IMPLEMENTATION
#include "gemma4_dump.h"

#include "forward.h"
#include "options.h"

/* After each step: its rows, in the order of positions. */
static int on_step(void *context, gemma4_tap_event *step, gemma4_error *error)
{
    gemma4_dump *dump = context;
    char name[GEMMA4_TAP_NAME_SIZE];
    if (step->tap != GEMMA4_TAP_ATTN_Q_ROPE && step->tap != GEMMA4_TAP_LAYER_OUTPUT &&
        step->tap != GEMMA4_TAP_LOGITS)
        return 0;
    gemma4_tap_name(step->tap, step->layer, name); /* "layers.3.output" */
    if (gemma4_dump_add(dump, name, GEMMA4_DUMP_F32, step->rows, step->dims[0] * step->dims[1],
                        step->values))
        return gemma4_fail(error, "%s", gemma4_dump_error(dump));
    return 0;
}

static int run(const char *checkpoint, const char *token_text, const char *chunk_text,
               gemma4_dump *dump, gemma4_error *error)
{
    int32_t *tokens = NULL;
    size_t count = 0;
    int64_t chunk;
    gemma4_model *model = gemma4_model_open(checkpoint, error);
    gemma4_session *session = NULL;
    int status =
        model ? gemma4_parse_ints(token_text, "tokens", 0, (int64_t)model->config.vocab_size - 1,
                                  &tokens, &count, error)
              : -1;
    if (!status)
        status = gemma4_parse_int(chunk_text, "CHUNK", 1, (int64_t)count, &chunk, error);
    if (!status && !(session = gemma4_session_new(model, 0, count, error)))
        status = -1;
    if (!status && gemma4_dump_add(dump, "tokens", GEMMA4_DUMP_I32, count, 1, tokens))
        status = gemma4_fail(error, "%s", gemma4_dump_error(dump));
    if (!status)
        gemma4_session_set_hook(session, on_step, dump);
    for (size_t first = 0; first < count && !status; first += (size_t)chunk) {
        size_t n = count - first < (size_t)chunk ? count - first : (size_t)chunk;
        status = gemma4_forward(session, tokens + first, n, n, NULL, error);
    }
    gemma4_session_free(session);
    gemma4_model_close(model);
    free(tokens);
    return status;
}

int main(int argc, char **argv)
{
    gemma4_error error = {""};
    if (argc != 5) {
        fputs("usage: example CHECKPOINT TOKENS CHUNK OUT.safetensors\n", stderr);
        return 2;
    }
    gemma4_dump *dump = gemma4_dump_new(argv[4], "example", "1", "float32");
    int status = run(argv[1], argv[2], argv[3], dump, &error);
    if (!status && gemma4_dump_write(dump))
        status = gemma4_fail(&error, "%s", gemma4_dump_error(dump));
    if (status)
        fprintf(stderr, "example: %s\n", error.message);
    gemma4_dump_free(dump);
    return status ? 2 : 0;
}
