/* The reader's child: libhdf5 runs here, behind the sandbox. It ends when the parent closes the
 * socket, and it ends at once where anything is odd: the parent knows how to say that. */
#include "config.h"
#include "reader_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- the socket --- */

static bool receive_all(int channel, void *to, size_t size)
{
    char *at = to;
    for (ssize_t got; size > 0; at += got, size -= (size_t)got) {
        got = read(channel, at, size);
        if (got < 0 && errno == EINTR)
            got = 0;
        else if (got <= 0)
            return false;
    }
    return true;
}

static void send_all(int channel, const void *from, size_t size)
{
    const char *at = from;
    for (ssize_t put; size > 0; at += put, size -= (size_t)put) {
        put = write(channel, at, size);
        if (put < 0 && errno == EINTR)
            put = 0;
        else if (put < 0)
            _exit(1);
    }
}

static void send_piece(int channel, uint64_t tag, const void *bytes, size_t size)
{
    const gemma4_reader_head head = {tag, size};
    send_all(channel, &head, sizeof head);
    send_all(channel, bytes, size);
}

static void send_end(int channel, int status, const gemma4_error *error)
{
    if (status)
        send_piece(channel, GEMMA4_READER_FAILED, error->message, strlen(error->message));
    else
        send_piece(channel, GEMMA4_READER_DONE, "", 0);
}

/* --- opening --- */

static void send_attributes(int channel, const gemma4_activation_source *source)
{
    const char *name = "", *text = "";
    for (size_t i = 0; i < gemma4_activations_hdf5_attributes(source, i, &name, &text); i++) {
        size_t name_size = strlen(name) + 1, text_size = strlen(text) + 1;
        const gemma4_reader_head head = {GEMMA4_READER_ATTRIBUTE, name_size + text_size};
        send_all(channel, &head, sizeof head);
        send_all(channel, name, name_size);
        send_all(channel, text, text_size);
    }
}

/* --- listing --- */

static void send_tensor(int channel, const gemma4_stored_tensor *tensor)
{
    const size_t rows = tensor->rows ? tensor->row_count : 0;
    const gemma4_reader_head head = {GEMMA4_READER_TENSOR,
                                     sizeof(gemma4_reader_tensor) + rows * sizeof *tensor->rows};
    gemma4_reader_tensor t = {.element = tensor->element,
                              .rank = tensor->rank,
                              .has_rows = tensor->has_rows,
                              .row_count = rows};
    snprintf(t.name, sizeof t.name, "%s", tensor->name);
    snprintf(t.problem, sizeof t.problem, "%s", tensor->problem);
    for (size_t i = 0; i < tensor->rank; i++)
        t.shape[i] = tensor->shape[i];
    send_all(channel, &head, sizeof head);
    send_all(channel, &t, sizeof t);
    send_all(channel, tensor->rows, rows * sizeof *tensor->rows);
}

static void list(int channel, const gemma4_reader_request *request,
                 gemma4_activation_source *source, gemma4_stored_list *tensors)
{
    const gemma4_config config = {.num_hidden_layers = request->num_hidden_layers,
                                  .max_position_embeddings = request->max_position_embeddings};
    gemma4_error error = {""};
    tensors->takes_all = request->takes_all;
    if (source->list(source->state, &config, tensors, &error)) { /* the last of them is described in
                                                                    part only */
        send_end(channel, -1, &error);
        return;
    }
    for (size_t i = 0; i < tensors->count; i++)
        send_tensor(channel, &tensors->items[i]);
    size_t kept =
        tensors->unknown_count < GEMMA4_UNKNOWN_MAX ? tensors->unknown_count : GEMMA4_UNKNOWN_MAX;
    for (size_t i = 0; i < kept; i++)
        send_piece(channel, GEMMA4_READER_UNKNOWN, tensors->unknown[i],
                   strlen(tensors->unknown[i]));
    const uint64_t more = tensors->unknown_count - kept;
    if (more)
        send_piece(channel, GEMMA4_READER_UNCOUNTED, &more, sizeof more);
    send_end(channel, 0, &error);
}

/* --- reading --- */

static const gemma4_stored_tensor *find(const gemma4_stored_list *tensors, const char *name)
{
    for (size_t i = 0; i < tensors->count; i++)
        if (strcmp(tensors->items[i].name, name) == 0)
            return &tensors->items[i];
    return NULL;
}

static void read_values(int channel, char *window, const gemma4_reader_request *request,
                        gemma4_activation_source *source, const gemma4_stored_list *tensors)
{
    gemma4_error error = {""};
    const gemma4_stored_tensor *tensor = find(tensors, request->name);
    size_t start[8], extent[8];
    if (!tensor || tensor->element == GEMMA4_ELEMENT_NONE)
        _exit(1);
    size_t bytes = gemma4_element_describe(tensor->element)->size;
    for (size_t i = 0; i < tensor->rank; i++) {
        start[i] = request->start[i];
        extent[i] = request->extent[i];
        bytes *= extent[i]; /* the parent asks for no more than a slot holds */
    }
    int status = source->read(source->state, tensor, start, extent,
                              window + request->slot * GEMMA4_READER_SLOT_BYTES, &error);
    if (status == 0) {
        const gemma4_reader_head head = {GEMMA4_READER_VALUES, bytes};
        send_all(channel, &head, sizeof head);
    }
    send_end(channel, status, &error);
}

/* --- */

void gemma4_reader_serve_hdf5(int file, int channel, void *window, const char *path, void *context)
{
    gemma4_activation_source source;
    gemma4_reader_request request;
    gemma4_error error = {""};
    gemma4_stored_list *tensors = calloc(1, sizeof *tensors);
    int status = tensors ? gemma4_activations_hdf5_from(file, path, context, &source, &error)
                         : gemma4_fail(&error, "%s: out of memory", path);
    if (status == 0)
        send_attributes(channel, &source);
    send_end(channel, status, &error);
    while (status == 0 && receive_all(channel, &request, sizeof request)) {
        if (request.kind == GEMMA4_READER_LIST)
            list(channel, &request, &source, tensors);
        else
            read_values(channel, window, &request, &source, tensors);
    }
    /* Nothing is freed or closed: the process ends, and libhdf5 would unlock the file, which the
     * sandbox refuses. */
}
