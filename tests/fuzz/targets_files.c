/* Tensors in safetensors and NumPy's formats. */
#include "targets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "activations.h"
#include "foreign.h"
#include "import.h"
#include "names.h"
#include "safetensors.h"

void fuzz_safetensors(const uint8_t *bytes, size_t size)
{
    static volatile unsigned sum; /* reads that nothing depends on would not be made */
    gemma4_error error = {""};
    gemma4_safetensors *files =
        gemma4_safetensors_open(fuzz_file("model.safetensors", bytes, size), &error);
    fuzz_promise(!files, &error);
    for (size_t i = 0; files && i < gemma4_safetensors_count(files); i++) {
        const gemma4_tensor *tensor = gemma4_safetensors_at(files, i);
        const unsigned char *data = tensor->data;
        for (size_t at = 0; at < tensor->size; at++)
            sum += data[at];
        if (!gemma4_safetensors_find(files, tensor->name))
            abort();
    }
    if (files)
        gemma4_safetensors_metadata(files, "format");
    gemma4_safetensors_close(files);
}

void fuzz_activations(const uint8_t *bytes, size_t size)
{
    gemma4_error error = {""};
    char id[16];
    const char *path = fuzz_file("dump.safetensors", bytes, size);
    gemma4_activations *file = gemma4_activations_open(path, fuzz_config(), &error);
    fuzz_promise(!file, &error);
    fuzz_read_activations(file);
    fuzz_promise(gemma4_activations_peek(path, "case", id, sizeof id, &error), &error);
}

/* The first values of every tensor. */
static void read_pass(gemma4_pass *pass)
{
    enum { BYTES = 4096 };
    gemma4_error error = {""};
    for (size_t i = 0; i < gemma4_pass_count(pass); i++) {
        const gemma4_stored_tensor *tensor = gemma4_pass_at(pass, i);
        size_t start[8] = {0}, extent[8], room = BYTES;
        if (tensor->element == GEMMA4_ELEMENT_NONE || *tensor->problem)
            continue;
        room /= gemma4_element_describe(tensor->element)->size;
        for (size_t axis = tensor->rank; axis-- > 0; room /= extent[axis] ? extent[axis] : 1)
            extent[axis] = tensor->shape[axis] < room ? tensor->shape[axis] : room;
        unsigned char *elements = malloc(BYTES);
        if (!elements)
            abort();
        fuzz_promise(gemma4_pass_read(pass, tensor, start, extent, elements, &error), &error);
        free(elements);
    }
}

void fuzz_read_foreign(const char *path)
{
    gemma4_error error = {""};
    gemma4_foreign foreign;
    int status = gemma4_foreign_open(&path, 1, &foreign, &error);
    fuzz_promise(status, &error);
    if (status)
        return;
    for (size_t i = 0; i < foreign.count; i++)
        read_pass(foreign.passes[i]);
    gemma4_foreign_close(&foreign);
}

void fuzz_npy(const uint8_t *bytes, size_t size)
{
    fuzz_read_foreign(fuzz_file("tensor.npy", bytes, size));
}

void fuzz_npz(const uint8_t *bytes, size_t size)
{
    fuzz_read_foreign(fuzz_file("dump.npz", bytes, size));
}

/* Whatever it says that it is. HDF5 has a target of its own. */
void fuzz_foreign(const uint8_t *bytes, size_t size)
{
    if (size < 4 || memcmp(bytes, "\x89HDF", 4))
        fuzz_read_foreign(fuzz_file("dump", bytes, size));
}

static bool holds_hdf5(const uint8_t *bytes, size_t size)
{
    return memmem(bytes, size, "\x89HDF", 4) != NULL;
}

/* Files in a folder: a tensor each, a pass each, or bare logits with their tokens. */
void fuzz_folders(const uint8_t *bytes, size_t size)
{
    if (!holds_hdf5(bytes, size))
        fuzz_read_foreign(fuzz_folder(bytes, size, NULL, 0));
}

/* What `gemma4-check names` writes is a document, whatever the tensors are called. */
void fuzz_names(const uint8_t *bytes, size_t size)
{
    gemma4_error error = {""};
    char *text = NULL;
    size_t length;
    if (holds_hdf5(bytes, size))
        return;
    const char *path = fuzz_file("dump", bytes, size);
    const gemma4_names_request request = {&path, 1, NULL, NULL};
    FILE *out = open_memstream(&text, &length);
    if (!out)
        abort();
    int status = gemma4_names(&request, out, &error);
    fuzz_promise(status, &error);
    if (fclose(out))
        abort();
    gemma4_document *map = status ? NULL : gemma4_document_parse("map", text, length, &error);
    if (!status && !map)
        abort();
    gemma4_document_free(map);
    free(text);
}

/* A map, a line "---- 8< ----", and the dump that it is for. */
void fuzz_import(const uint8_t *bytes, size_t size)
{
    static const int32_t tokens[] = {2, 3, 5};
    const gemma4_given_tokens given = {tokens, 3, 0};
    gemma4_error error = {""};
    const gemma4_import_log *log;
    const uint8_t *at = fuzz_find_cut(bytes, size);
    if (!at)
        return;
    gemma4_map *map = gemma4_map_read(fuzz_file("map.yaml", bytes, (size_t)(at - bytes)), &error);
    fuzz_promise(!map, &error);
    at += strlen(fuzz_cut);
    const size_t left = size - (size_t)(at - bytes);
    if (!map || (left >= 4 && !memcmp(at, "\x89HDF", 4))) {
        gemma4_map_free(map);
        return;
    }
    const char *path = fuzz_file("dump", at, left);
    gemma4_activations *file = gemma4_import(&path, 1, map, fuzz_config(), &given, &log, &error);
    fuzz_promise(!file, &error);
    fuzz_read_activations(file);
    gemma4_map_free(map);
}
