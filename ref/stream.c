#include "stream.h"
#include "gguf.h"
#include "model.h"
#include "quantised.h"
#include "safetensors.h"

#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    SHORT_CHUNK = 16
}; /* positions: with 8 of 128 experts each, about two thirds of the experts
                              are active */

/* Advice about the pages that lie completely within a range: its neighbours may be in use. A
 * failure costs time only. */
static void advise_range(const void *data, size_t size, int advice)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = ((uintptr_t)data + page - 1) / page * page,
              end = ((uintptr_t)data + size) / page * page;
    if (data && end > first)
        (void)madvise((void *)first, end - first, advice);
}

static void advise(const gemma4_weight *w, int advice)
{
    const gemma4_quantised *q = w->dtype == GEMMA4_QUANTISED ? w->data : NULL;
    if (!q)
        advise_range(w->data, w->rows * w->cols * gemma4_weight_size(w->dtype), advice);
    for (size_t i = 0; q && i < q->part_count; i++)
        advise_range(q->parts[i].data, w->rows / q->part_count * q->parts[i].row_bytes, advice);
}

static void advise_layer(const gemma4_layer_weights *w, int advice, bool experts)
{
    const gemma4_weight *large[] = {&w->q_proj,    &w->k_proj,  &w->v_proj,    &w->o_proj,
                                    &w->gate_proj, &w->up_proj, &w->down_proj, &w->router_proj};
    for (size_t i = 0; i < sizeof large / sizeof *large; i++)
        advise(large[i], advice);
    if (experts) {
        advise(&w->experts_gate_up_proj, advice);
        advise(&w->experts_down_proj, advice);
    }
}

int gemma4_stream_tap(void *context, gemma4_tap_event *event, gemma4_error *error)
{
    const gemma4_model *model = context;
    (void)error;
    if (event->tap == GEMMA4_TAP_LAYER_INPUT && event->layer + 1 < model->config.num_hidden_layers)
        advise_layer(&model->layers[event->layer + 1], MADV_WILLNEED, event->rows >= SHORT_CHUNK);
    if (event->tap == GEMMA4_TAP_LAYER_OUTPUT)
        advise_layer(&model->layers[event->layer], MADV_DONTNEED, true);
    if (event->tap == GEMMA4_TAP_LOGITS)
        advise(&model->embed_tokens, MADV_DONTNEED);
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
