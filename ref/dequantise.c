#include "dequantise.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gguf.h"
#include "gguf_model.h"
#include "ops.h"
#include "options.h"
#include "output.h"
#include "text_stream.h"

#define PREFIX "model.language_model."

/* Errors of writing are sticky: finish looks. */
static int start(gemma4_output *out, const char *directory, const char *name, gemma4_error *error)
{
    char path[GEMMA4_OUTPUT_PATH_SIZE];
    if (snprintf(path, sizeof path, "%s/%s", directory, name) >= (int)sizeof path)
        return gemma4_fail(error, "%.200s...: path too long", directory);
    return gemma4_output_open(out, path, error);
}

static size_t stored_size(const gemma4_weight *w)
{
    return w->rows * w->cols *
           (w->dtype == GEMMA4_QUANTISED ? sizeof(float) : gemma4_weight_size(w->dtype));
}

static void write_header(FILE *f, gemma4_model *model)
{
    static const char *const names[] = {[GEMMA4_BF16] = "BF16",
                                        [GEMMA4_F16] = "F16",
                                        [GEMMA4_F32] = "F32",
                                        [GEMMA4_QUANTISED] = "F32"};
    size_t offset = 0, count = gemma4_tensor_spec_count(&model->config);
    fputs("{\"__metadata__\":{\"format\":\"pt\"}", f);
    for (size_t i = 0; i < count; i++) {
        gemma4_tensor_spec spec = gemma4_tensor_spec_at(&model->config, i);
        const gemma4_weight *w = gemma4_spec_weight(model, &spec);
        fprintf(f, ",\"" PREFIX "%s\":{\"dtype\":\"%s\",\"shape\":[", spec.name, names[w->dtype]);
        for (size_t axis = 0; axis < spec.rank; axis++)
            fprintf(f, "%s%zu", axis ? "," : "", spec.shape[axis]);
        fprintf(f, "],\"data_offsets\":[%zu,%zu]}", offset, offset + stored_size(w));
        offset += stored_size(w);
    }
    fputc('}', f);
}

/* The header's length stands before it: it is written into memory first, padded so that the data
 * begin at a multiple of 64. */
static int write_length_and_header(FILE *f, gemma4_model *model, gemma4_error *error)
{
    gemma4_text header;
    gemma4_text_open(&header);
    if (header.f)
        write_header(header.f, model);
    if (gemma4_text_close(&header)) {
        free(header.bytes);
        return gemma4_fail(error, "%s: out of memory", gemma4_gguf_path(model->gguf));
    }
    uint64_t length = (8 + header.size + 63) / 64 * 64 - 8;
    fwrite(&length, sizeof length, 1, f); /* little-endian, as this machine is (ref/gguf.c) */
    fwrite(header.bytes, 1, header.size, f);
    for (size_t i = header.size; i < length; i++)
        fputc(' ', f);
    free(header.bytes);
    return 0;
}

static int write_weight(FILE *f, const gemma4_weight *w, gemma4_error *error)
{
    if (w->dtype != GEMMA4_QUANTISED) {
        fwrite(w->data, 1, stored_size(w), f);
        return 0;
    }
    float *values = malloc(w->cols * sizeof *values);
    if (!values)
        return gemma4_fail(error, "dequantise: out of memory");
    for (size_t row = 0; row < w->rows && !ferror(f); row++) { /* a full disk is not written to for
                                                                  long */
        gemma4_weight_row(values, w, row);
        fwrite(values, sizeof *values, w->cols, f);
    }
    free(values);
    return 0;
}

static int write_weights(gemma4_model *model, const char *directory, gemma4_error *error)
{
    gemma4_output out;
    if (start(&out, directory, "model.safetensors", error))
        return -1;
    int status = write_length_and_header(out.f, model, error);
    size_t count = gemma4_tensor_spec_count(&model->config);
    for (size_t i = 0; i < count && !status; i++) {
        gemma4_tensor_spec spec = gemma4_tensor_spec_at(&model->config, i);
        status = write_weight(out.f, gemma4_spec_weight(model, &spec), error);
    }
    if (!status)
        return gemma4_output_commit(&out, error);
    gemma4_output_discard(&out);
    return -1;
}

/* An index left by an earlier checkpoint in shards would be read in place of the one file. */
static int refuse_index(const char *directory, gemma4_error *error)
{
    char path[GEMMA4_OUTPUT_PATH_SIZE];
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", directory);
    return access(path, F_OK)
               ? 0
               : gemma4_fail(error,
                             "%s: expected a folder without an index of shards, found this one",
                             path);
}

static int write_folder(gemma4_model *model, const char *directory, gemma4_error *error)
{
    gemma4_output config;
    if (gemma4_make_directories(directory, error) || refuse_index(directory, error) ||
        write_weights(model, directory, error) || start(&config, directory, "config.json", error))
        return -1;
    if (!gemma4_gguf_write_config(model->gguf, config.f, error))
        return gemma4_output_commit(&config, error);
    gemma4_output_discard(&config);
    return -1;
}

int gemma4_dequantise(const char *gguf, const char *directory, gemma4_error *error)
{
    gemma4_model *model = gemma4_model_open(gguf, error);
    if (!model)
        return -1;
    int status = model->gguf ? write_folder(model, directory, error)
                             : gemma4_fail(error, "%s: expected a GGUF file, found a folder", gguf);
    gemma4_model_close(model);
    return status;
}

int gemma4_dequantise_command(int argc, char **argv, gemma4_error *error)
{
    const gemma4_option options[] = {{NULL, NULL}};
    const char *words[2];
    size_t count;
    if (gemma4_options_parse(argc, argv, options, words, 2, &count, error))
        return -1;
    if (count != 2)
        return gemma4_fail(
            error, "command line: expected a GGUF file and a folder to write to, found %zu words",
            count);
    return gemma4_dequantise(words[0], words[1], error);
}
