#include "isolate.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

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

int gemma4_isolate(int (*run)(void *context), void *context, const char *subject, gemma4_error *error)
{
    int status;
    fflush(NULL); /* or the child would print it again */
    pid_t child = fork();
    if (child < 0)
        return gemma4_fail(error, "%s: cannot start a process to read it: %s", subject, strerror(errno));
    if (child == 0) {
        int result = run(context);
        fflush(NULL);
        _exit(result);
    }
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return gemma4_fail(error, "%s: cannot wait for the process that reads it: %s", subject, strerror(errno));
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    if (WTERMSIG(status) == SIGXCPU)
        return gemma4_fail(error, "%s: expected a file that can be read, found one on which the HDF5 library does not come to an end", subject);
    return gemma4_fail(error, "%s: expected a file that can be read, found one on which its reader dies of signal %d (%s)", subject,
                       WTERMSIG(status), strsignal(WTERMSIG(status)));
}
