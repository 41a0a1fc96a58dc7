/* The parent's side of reading an HDF5 file: the child, its socket, and the time that it takes. */
#include "guard.h"
#include "isolate.h"
#include "reader_parent.h"
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Of processor time, for looking through the file, and as much again for the list; and of waiting
 * for the next byte, which slow disks need. */
enum { SECONDS_TO_OPEN = 30, SECONDS_TO_WAIT = 600, POLL_MILLISECONDS = 1000 };
enum { MESSAGE_BYTES = 1023 };

/* --- the child's end --- */

/* Ends it, if it has not ended; what waitpid says of it, or -1 in a process that is not its
 * parent. */
static int end_child(gemma4_reader *r)
{
    int status = -1;
    r->dead = true;
    if (r->child <= 0 || getpid() != r->parent)
        return -1;
    kill(r->child, SIGKILL);
    while (waitpid(r->child, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    r->child = -1;
    return status;
}

/* What it died of. One that has closed the socket and lives on is not waited for long. */
static int status_of_dead(gemma4_reader *r)
{
    const struct timespec moment = {.tv_nsec = 10000000};
    int status = -1;
    r->dead = true;
    if (r->child <= 0 || getpid() != r->parent)
        return -1;
    for (int i = 0; i < 200; i++) {
        pid_t ended = waitpid(r->child, &status, WNOHANG);
        if (ended == r->child) {
            r->child = -1;
            return status;
        }
        if (ended < 0 && errno != EINTR)
            return -1;
        nanosleep(&moment, NULL);
    }
    return end_child(r);
}

/* Fails, with the reason for which it died by itself. */
static int fail_dead(gemma4_reader *r, gemma4_error *error)
{
    int status = status_of_dead(r);
    if (status >= 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU)
        return gemma4_fail(error,
                           "%s: expected a file that can be read, found one on which the HDF5 "
                           "library does not come to an end",
                           r->path);
    if (status >= 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
        return gemma4_fail(error,
                           "%s: expected a file that can be read, found one on which its reader "
                           "tries what no reader needs, and "
                           "was stopped by its sandbox",
                           r->path);
    if (status >= 0 && WIFSIGNALED(status))
        return gemma4_fail(error,
                           "%s: expected a file that can be read, found one on which its reader "
                           "dies of signal %d (%s)",
                           r->path, WTERMSIG(status), strsignal(WTERMSIG(status)));
    return gemma4_fail(error,
                       "%s: expected a file that can be read, found one on which its reader ends "
                       "before it has answered",
                       r->path);
}

int gemma4_reader_nonsense(gemma4_reader *r, const char *what, gemma4_error *error)
{
    end_child(r);
    return gemma4_fail(
        error,
        "%s: expected a file that can be read, found one on which its reader talks nonsense (%s)",
        r->path, what);
}

static int fail_endless(gemma4_reader *r, gemma4_error *error)
{
    end_child(r);
    return gemma4_fail(error,
                       "%s: expected a file that can be read, found one on which the HDF5 library "
                       "does not come to an end",
                       r->path);
}

/* --- time --- */

static double seconds_of(clockid_t clock)
{
    struct timespec now;
    return clock_gettime(clock, &now) ? 0 : (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The processor time that the child has used. */
static double used_by(const gemma4_reader *r)
{
    clockid_t clock;
    return r->child > 0 && clock_getcpuclockid(r->child, &clock) == 0 ? seconds_of(clock) : 0;
}

static void start_clock(gemma4_reader *r, double seconds)
{
    r->started = used_by(r);
    r->seconds = seconds;
}

/* --- the socket --- */

int gemma4_reader_receive(gemma4_reader *r, void *to, size_t size, gemma4_error *error)
{
    char *at = to;
    double last = seconds_of(CLOCK_MONOTONIC);
    while (size > 0) {
        struct pollfd ready = {.fd = r->channel, .events = POLLIN};
        int some = poll(&ready, 1, POLL_MILLISECONDS);
        if (used_by(r) - r->started > r->seconds ||
            (some == 0 && seconds_of(CLOCK_MONOTONIC) - last > SECONDS_TO_WAIT))
            return fail_endless(r, error);
        if (some == 0 || (some < 0 && errno == EINTR))
            continue;
        ssize_t got = recv(r->channel, at, size, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return fail_dead(r, error);
        at += got;
        size -= (size_t)got;
        last = seconds_of(CLOCK_MONOTONIC);
    }
    return 0;
}

int gemma4_reader_ask(gemma4_reader *r, const gemma4_reader_request *what, double seconds,
                      gemma4_error *error)
{
    const char *at = (const char *)what;
    size_t size = sizeof *what;
    if (r->dead)
        return gemma4_fail(error, "%s: cannot be read any more: its reader has ended", r->path);
    if (seconds > 0)
        start_clock(r, seconds);
    for (ssize_t put; size > 0; at += put, size -= (size_t)put) {
        put = send(r->channel, at, size, MSG_NOSIGNAL);
        if (put < 0 && errno == EINTR)
            put = 0;
        else if (put < 0)
            return fail_dead(r, error);
    }
    return 0;
}

/* The child's own message: it has opened the file, and says why it cannot go on. */
static int take_failure(gemma4_reader *r, uint64_t size, gemma4_error *error)
{
    char message[MESSAGE_BYTES + 1];
    if (size == 0 || size > MESSAGE_BYTES)
        return gemma4_reader_nonsense(r, "the length of a message", error);
    if (gemma4_reader_receive(r, message, (size_t)size, error))
        return -1;
    message[size] = '\0';
    return gemma4_fail(error, "%s", message);
}

int gemma4_reader_next(gemma4_reader *r, gemma4_reader_head *head, gemma4_error *error)
{
    if (gemma4_reader_receive(r, head, sizeof *head, error))
        return -1;
    if (head->tag == GEMMA4_READER_FAILED)
        return take_failure(r, head->size, error);
    if (head->tag == GEMMA4_READER_DONE)
        return head->size == 0 ? 1 : gemma4_reader_nonsense(r, "an end that goes on", error);
    return 0;
}

/* --- opening and closing --- */

static void close_reader(void *context)
{
    gemma4_reader *r = context;
    if (r->channel >= 0)
        close(r->channel);
    end_child(r);
    gemma4_shared_free((void *)r->window, GEMMA4_READER_WINDOW_BYTES);
    for (size_t i = 0; i < r->attributes_count; i++)
        free(r->attributes[i].name);
    free(r->path);
    free(r);
}

/* libhdf5 writes to standard error, whatever it is told, where it cannot be initialised: the parent
 * says in its line what is wrong. Later the sandbox closes it. */
static void silence(void)
{
    int nothing = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (nothing < 0 || dup2(nothing, STDERR_FILENO) < 0)
        close(STDERR_FILENO);
}

/* Never returns. */
static void be_the_child(int file, int channel, void *window, const char *path,
                         gemma4_reader_serve serve, void *context)
{
    gemma4_guard_reset();
    if (!GEMMA4_SANITIZED)
        silence();
    if (gemma4_hdf5_descriptor_prepare(file))
        _exit(1);
    gemma4_sandbox_enter(file, channel); /* where something is missing, --version says it */
    serve(file, channel, window, path, context);
    _exit(0);
}

/* A regular file: the caller has seen to it, but names can be given to other files meanwhile. */
static int open_regular(const char *path, gemma4_error *error)
{
    struct stat status;
    int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file < 0)
        return gemma4_fail(error, "%s: cannot open: %s", path, strerror(errno));
    if (fstat(file, &status) == 0 && S_ISREG(status.st_mode))
        return file;
    close(file);
    return gemma4_fail(error, "%s: expected a regular file, found another kind", path);
}

static int start_child(gemma4_reader *r, gemma4_reader_serve serve, void *context,
                       gemma4_error *error)
{
    void *window = gemma4_shared_new(GEMMA4_READER_WINDOW_BYTES, error);
    int channel[2], file = window ? open_regular(r->path, error) : -1;
    r->window = window;
    if (file < 0)
        return -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel)) {
        close(file);
        return gemma4_fail(error, "%s: cannot start a process to read it: %s", r->path,
                           strerror(errno));
    }
    r->parent = getpid();
    r->child = fork();
    if (r->child == 0)
        be_the_child(file, channel[1], window, r->path, serve, context);
    int reason = errno;
    close(file);
    close(channel[1]);
    r->channel = channel[0];
    return r->child < 0 ? gemma4_fail(error, "%s: cannot start a process to read it: %s", r->path,
                                      strerror(reason))
                        : 0;
}

int gemma4_reader_open(const char *path, gemma4_reader_serve serve, void *context, double seconds,
                       gemma4_activation_source *source, gemma4_error *error)
{
    gemma4_reader *r = calloc(1, sizeof *r);
    if (!r || !(r->path = strdup(path))) {
        free(r);
        return gemma4_fail(error, "%s: out of memory", path);
    }
    r->channel = -1;
    r->seconds = r->seconds_to_open = seconds;
    if (start_child(r, serve, context, error) || gemma4_reader_take_attributes(r, error)) {
        close_reader(r);
        return -1;
    }
    *source = (gemma4_activation_source){r, gemma4_reader_attribute, gemma4_reader_list,
                                         gemma4_reader_read, close_reader};
    return 0;
}

int gemma4_activations_hdf5_open(const char *path, gemma4_activation_source *source,
                                 gemma4_error *error)
{
    return gemma4_reader_open(path, gemma4_reader_serve_hdf5, NULL, SECONDS_TO_OPEN, source, error);
}

int gemma4_activations_hdf5_open_group(const char *path, const char *group, bool *missing,
                                       gemma4_activation_source *source, gemma4_error *error)
{
    char name[GEMMA4_STORED_NAME_SIZE];
    snprintf(name, sizeof name, "%s", group);
    int status =
        gemma4_reader_open(path, gemma4_reader_serve_hdf5, name, SECONDS_TO_OPEN, source, error);
    *missing = status && !strcmp(error->message, GEMMA4_READER_NO_GROUP);
    return status;
}
