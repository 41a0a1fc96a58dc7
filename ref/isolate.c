#include "isolate.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "guard.h"
#include "output.h"

enum { MESSAGE_BYTES = 1024 };

void *gemma4_shared_new(size_t size, gemma4_error *error)
{
    void *memory =
        mmap(NULL, size ? size : 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        gemma4_fail(error, "%zu bytes of shared memory: %s", size, strerror(errno));
        return NULL;
    }
    return memory;
}

void gemma4_shared_free(void *memory, size_t size)
{
    if (memory)
        munmap(memory, size ? size : 1);
}

void gemma4_limit_processor_time(unsigned seconds)
{
    struct rlimit limit;
    struct rusage used;
    if (getrlimit(RLIMIT_CPU, &limit) || getrusage(RUSAGE_SELF, &used))
        return;
    limit.rlim_cur = limit.rlim_max;
    if (seconds)
        limit.rlim_cur = (rlim_t)used.ru_utime.tv_sec + (rlim_t)used.ru_stime.tv_sec + 1 + seconds;
    setrlimit(RLIMIT_CPU, &limit); /* only the soft limit changes: it can be lifted again */
}

/* fork(). A signal that ends this process ends the child too, from the child's first moment on. */
static pid_t fork_guarded(void)
{
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    pid_t child = fork();
    int reason = errno;
#ifdef __linux__
    if (child == 0)
        prctl(PR_SET_PDEATHSIG, SIGTERM); /* this process may be killed so that it can pass on
                                             nothing */
#endif
    gemma4_guard_child(child > 0 ? child : 0);
    sigprocmask(SIG_SETMASK, &before, NULL);
    errno = reason;
    return child;
}

static int wait_for(pid_t child, const char *subject, gemma4_error *error)
{
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return gemma4_fail(error, "%s: cannot wait for the process that reads it: %s", subject,
                               strerror(errno));
    gemma4_guard_child(0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == GEMMA4_GUARD_LIBRARY)
        return gemma4_fail(
            error, "%s: not judged: a library ended the process, for the reason above", subject);
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    if (WTERMSIG(status) == SIGPIPE)
        raise(SIGPIPE); /* whoever read our output has left: that is no fault of the file */
    if (WTERMSIG(status) == SIGXCPU)
        return gemma4_fail(error,
                           "%s: expected a file that can be read, found one on which reading does "
                           "not come to an end",
                           subject);
    return gemma4_fail(error,
                       "%s: expected a file that can be read, found one on which its reader dies "
                       "of signal %d (%s)",
                       subject, WTERMSIG(status), strsignal(WTERMSIG(status)));
}

int gemma4_isolate(int (*run)(void *context), void *context, const char *subject,
                   gemma4_error *error)
{
    char *message = gemma4_shared_new(MESSAGE_BYTES, error);
    if (!message)
        return -1;
    fflush(NULL); /* or the child would print it again */
    pid_t child = fork_guarded();
    if (child == 0) {
        gemma4_guard_message(message, MESSAGE_BYTES);
        int result = run(context);
        fflush(NULL);
        _exit(result);
    }
    int status = child < 0 ? gemma4_fail(error, "%s: cannot start a process to read it: %s",
                                         subject, strerror(errno))
                           : wait_for(child, subject, error);
    if (*message)
        status = gemma4_fail(error, "%.*s", MESSAGE_BYTES - 1, message);
    gemma4_shared_free(message, MESSAGE_BYTES);
    return status;
}

/* --- a writer --- */

enum { WRITTEN = 0, FAILED = 2 };

static int wait_for_writer(pid_t child, const char *path, gemma4_error *error)
{
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return gemma4_fail(error, "%s: cannot wait for the process that writes it: %s", path,
                               strerror(errno));
    gemma4_guard_child(0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == WRITTEN)
        return 0;
    gemma4_output_remove_left(path, child);
    if (WIFSIGNALED(status))
        return gemma4_fail(error,
                           "%s: not written: the process that writes it died of signal %d (%s)",
                           path, WTERMSIG(status), strsignal(WTERMSIG(status)));
    return gemma4_fail(error, "%s: not written: the HDF5 library ended the process that writes it",
                       path);
}

int gemma4_isolate_writer(int (*write)(void *context, gemma4_error *error), void *context,
                          const char *path, gemma4_error *error)
{
    char *message = gemma4_shared_new(MESSAGE_BYTES, error);
    if (!message)
        return -1;
    fflush(NULL);
    pid_t child = fork_guarded();
    if (child == 0) {
        gemma4_error own = {""};
        gemma4_guard_message(message, MESSAGE_BYTES);
        int result = write(context, &own) ? FAILED : WRITTEN;
        if (result == FAILED)
            snprintf(message, MESSAGE_BYTES, "%s", own.message);
        _exit(result);
    }
    int status = child < 0 ? gemma4_fail(error, "%s: cannot start a process to write it: %s", path,
                                         strerror(errno))
                           : wait_for_writer(child, path, error);
    if (*message)
        status = gemma4_fail(error, "%.*s", MESSAGE_BYTES - 1, message);
    gemma4_shared_free(message, MESSAGE_BYTES);
    return status;
}
