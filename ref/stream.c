#include "stream.h"
#include "gguf.h"
#include "model.h"
#include "quantised.h"
#include "safetensors.h"

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    SHORT_CHUNK = 16, /* positions: with 8 of 128 experts each, about two thirds of the experts are
                         active */
    POPULATED = 32 << 20, /* bytes at a time: long enough for one stream of reading */
    ASKED_FOR = 128 << 10 /* bytes at a time: the readahead that Linux has by default */
};

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* What is to be done about the pages that lie completely within a range: its neighbours may be in
 * use. A failure costs time only. */
typedef void range_action(unsigned char *first, size_t size);

static void release_pages(unsigned char *first, size_t size)
{
    (void)madvise(first, size, MADV_DONTNEED);
}

/* The kernel takes MADV_WILLNEED for no more than its largest readahead, and forgets the rest. */
static void read_pages(unsigned char *first, size_t size)
{
    size_t done = 0;
#ifdef MADV_POPULATE_READ /* Linux 5.14 */
    while (done < size && !madvise(first + done, least(size - done, POPULATED), MADV_POPULATE_READ))
        done += least(size - done, POPULATED);
#endif
    for (; done < size; done += least(size - done, ASKED_FOR))
        (void)madvise(first + done, least(size - done, ASKED_FOR), MADV_WILLNEED);
}

static void within_pages(const void *data, size_t size, range_action *action)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = ((uintptr_t)data + page - 1) / page * page,
              end = ((uintptr_t)data + size) / page * page;
    if (data && end > first)
        action((unsigned char *)first, end - first);
}

static void of_weight(const gemma4_weight *w, range_action *action)
{
    const gemma4_quantised *q = w->dtype == GEMMA4_QUANTISED ? w->data : NULL;
    if (!q)
        within_pages(w->data, w->rows * w->cols * gemma4_weight_size(w->dtype), action);
    for (size_t i = 0; q && i < q->part_count; i++)
        within_pages(q->parts[i].data, w->rows / q->part_count * q->parts[i].row_bytes, action);
}

/* Of a layer, or of the head where layer is num_hidden_layers. */
static void of_layer(const gemma4_model *model, size_t layer, range_action *action, bool experts)
{
    if (layer == model->config.num_hidden_layers) {
        of_weight(&model->embed_tokens, action);
        return;
    }
    const gemma4_layer_weights *w = &model->layers[layer];
    const gemma4_weight *large[] = {&w->q_proj,    &w->k_proj,  &w->v_proj,    &w->o_proj,
                                    &w->gate_proj, &w->up_proj, &w->down_proj, &w->router_proj};
    for (size_t i = 0; i < sizeof large / sizeof *large; i++)
        of_weight(large[i], action);
    if (experts) {
        of_weight(&w->experts_gate_up_proj, action);
        of_weight(&w->experts_down_proj, action);
    }
}

static void *read_layer(void *context)
{
    const gemma4_stream *s = context;
    of_layer(s->model, s->layer, read_pages, s->experts);
    return NULL;
}

void gemma4_stream_ahead(gemma4_stream *s, size_t layer, size_t rows)
{
    sigset_t all, before;
    gemma4_stream_end(s);
    s->layer = layer;
    s->experts = rows >= SHORT_CHUNK;
    sigfillset(&all); /* signals are for the other threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    s->reading = !pthread_create(&s->thread, NULL, read_layer, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void gemma4_stream_end(gemma4_stream *s)
{
    if (s->reading)
        pthread_join(s->thread, NULL);
    s->reading = false;
}

void gemma4_stream_release(const gemma4_model *model, size_t layer)
{
    of_layer(model, layer, release_pages, true);
}

int gemma4_stream_tap(void *context, gemma4_tap_event *event, gemma4_error *error)
{
    gemma4_stream *s = context;
    (void)error;
    if (event->tap == GEMMA4_TAP_LAYER_INPUT)
        gemma4_stream_ahead(s, event->layer + 1, event->rows);
    if (event->tap == GEMMA4_TAP_LAYER_OUTPUT)
        gemma4_stream_release(s->model, event->layer);
    if (event->tap == GEMMA4_TAP_LOGITS)
        gemma4_stream_release(s->model, s->model->config.num_hidden_layers);
    return 0;
}

bool gemma4_stream_needed(const gemma4_model *model)
{
    double bytes = 0, available = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    if (model->gguf)
        bytes = (double)gemma4_gguf_size(model->gguf);
    for (size_t i = 0; model->files && i < gemma4_safetensors_count(model->files); i++)
        bytes += (double)gemma4_safetensors_at(model->files, i)->size;
    return bytes > 0.8 * available;
}

gemma4_memory gemma4_memory_used(void)
{
    gemma4_memory used = {0};
    struct rusage usage;
    char line[128];
    unsigned long kilobytes;
    if (!getrusage(RUSAGE_SELF, &usage))
        used.peak = (double)usage.ru_maxrss * 1024;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "RssAnon: %lu kB", &kilobytes) == 1)
            used.anonymous = (double)kilobytes * 1024;
    if (status)
        fclose(status);
    return used;
}
