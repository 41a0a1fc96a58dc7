/* Looks do not depend on each other, so threads share them. Each has its own prediction and its own
 * runner; what comes of a look is kept by its index: the number of threads changes nothing. */
#include "block_run.h"
#include "config.h"
#include "identify_internal.h"
#include "noise.h"

#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

struct identify_worker {
    fit_search search;
    identification own;
    gemma4_error error;
    bool failed;
};

static size_t threads(void)
{
#ifdef _OPENMP
    return (size_t)omp_get_max_threads();
#else
    return 1;
#endif
}

static int open_worker(const identification *id, identify_worker *w)
{
    const fit_search *s = id->s;
    size_t T = s->e->subject->T, n = T * s->e->taps[s->tap].width;
    w->search = *s;
    w->search.error = &w->error;
    w->search.prediction = malloc((n ? n : 1) * sizeof *w->search.prediction);
    w->search.open = calloc(T, sizeof *w->search.open);
    w->own = (identification){.s = &w->search, .at = malloc((n ? n : 1) * sizeof *w->own.at)};
    w->search.runner = gemma4_runner_new(s->e->subject, s->error);
    if (!w->search.runner)
        return -1;
    return w->search.prediction && w->search.open && w->own.at
               ? 0
               : gemma4_fail(s->error, "diagnosis: out of memory");
}

void identify_workers_free(identification *id)
{
    for (size_t i = 0; i < id->worker_count; i++) {
        identify_worker *w = &id->workers[i];
        gemma4_runner_free(w->search.runner);
        free(w->search.prediction);
        free(w->search.open);
        free(w->own.at);
    }
    free(id->workers);
    id->workers = NULL;
    id->worker_count = 0;
}

static int open_workers(identification *id)
{
    size_t count = threads();
    if (id->workers)
        return 0;
    id->workers = calloc(count, sizeof *id->workers);
    if (!id->workers)
        return gemma4_fail(id->s->error, "diagnosis: out of memory");
    id->worker_count = count;
    for (size_t i = 0; i < count; i++)
        if (open_worker(id, &id->workers[i]))
            return -1;
    return 0;
}

/* What the search is at, in the worker's memory. */
static void prepare(identify_worker *w, const identification *id)
{
    w->own.scope = id->scope;
    w->own.positions = id->positions;
    w->own.first_look = id->first_look;
    w->own.nothing = id->nothing;
    w->own.split = id->split;
    w->failed = false;
}

int identify_each(identification *id, size_t count,
                  int (*work)(identification *own, void *context, size_t i), void *context)
{
    if (open_workers(id))
        return -1;
    for (size_t k = 0; k < id->worker_count; k++)
        prepare(&id->workers[k], id);
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic) num_threads((int)id->worker_count)
#endif
    for (size_t i = 0; i < count; i++) {
#ifdef _OPENMP
        identify_worker *w = &id->workers[omp_get_thread_num()];
#else
        identify_worker *w = &id->workers[0];
#endif
        if (!w->failed)
            w->failed = work(&w->own, context, i) != 0;
    }
    for (size_t k = 0; k < id->worker_count; k++)
        if (id->workers[k].failed)
            return gemma4_fail(id->s->error, "%s", id->workers[k].error.message);
    return 0;
}
