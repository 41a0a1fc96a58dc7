#include "workers.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ops.h"

/* One process: takes the next piece until none is left, or nobody waits for it any more. */
static void work_on(size_t count, const char *what, void (*work)(void *, size_t), void *context,
                    pid_t parent, atomic_size_t *next)
{
    for (size_t i; (i = atomic_fetch_add(next, 1)) < count && getppid() == parent;) {
        if (isatty(STDERR_FILENO))
            fprintf(stderr, "\r%s %zu/%zu ", what, i + 1, count);
        work(context, i);
    }
}

/* Waits for `started` children; how many of them did not end well. */
static size_t wait_for(const pid_t *children, size_t started)
{
    size_t bad = 0;
    for (size_t i = 0; i < started; i++) {
        int status = 0;
        pid_t ended;
        while ((ended = waitpid(children[i], &status, 0)) < 0 && errno == EINTR)
            ;
        bad += ended < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    }
    return bad;
}

int gemma4_workers_run(size_t count, size_t jobs, const char *what,
                       void (*work)(void *context, size_t i), void *context, gemma4_error *error)
{
    enum { MOST_JOBS = 64 };
    pid_t children[MOST_JOBS];
    pid_t parent = getpid();
    size_t started = 0;
    int reason = 0;
    atomic_size_t *next = gemma4_shared_new(sizeof *next, error);
    if (!next)
        return -1;
    jobs = jobs < 1 ? 1 : jobs > MOST_JOBS ? MOST_JOBS : jobs;
    fflush(NULL); /* or the children would print it again */
    for (; started < jobs; started++) {
        children[started] = fork();
        if (children[started] == 0) {
            /* The processors are shared by the processes; and threads of before a fork are waited
             * for in vain after it. */
            gemma4_use_threads(1);
            work_on(count, what, work, context, parent, next);
            fflush(NULL);
            _exit(0);
        }
        if (children[started] < 0) {
            reason = errno;
            break;
        }
    }
    size_t bad = wait_for(children, started);
    if (isatty(STDERR_FILENO))
        fputc('\n', stderr);
    gemma4_shared_free(next, sizeof *next);
    if (started == 0)
        return gemma4_fail(error, "%s: cannot start a process: %s", what, strerror(reason));
    return bad ? gemma4_fail(error, "%s: %zu of %zu processes died", what, bad, started) : 0;
}
