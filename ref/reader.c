/* The parent's side of reading an HDF5 file. The child may have been taken over by the file that it reads: every length, tag, name,
 * type and count that comes from it is checked, and so is the time that it takes. */
#include "reader_internal.h"
#include "guard.h"
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

/* The most that an answer may hold; real files stay far below. */
enum {
    ATTRIBUTES_MOST = 256,
    NAMES_MOST = 65536,    /* tensors, and unknown names */
    NAME_BYTES = 65536,    /* of an attribute: HDF5's own limit */
    MESSAGE_BYTES = 1023,
    ROWS_MOST = 1 << 28    /* entries of all attributes rows together: 2 GiB */
};

/* Of processor time, for looking through the file and for one tensor's rows; and of waiting for the next byte, which slow disks need. */
enum { SECONDS_TO_OPEN = 30, SECONDS_TO_READ = 60, SECONDS_TO_WAIT = 600, POLL_MILLISECONDS = 1000 };

typedef struct attribute {
    char *name, *text; /* one allocation, which begins at name */
} attribute;

typedef struct reader {
    char *path;
    int channel;
    pid_t child, parent;
    bool dead;      /* the child is gone, or not believed any more */
    double started; /* processor time that it had used when the request at hand was sent */
    double seconds; /* that the request may take */
    double seconds_to_open;
    attribute attributes[ATTRIBUTES_MOST];
    size_t attributes_count;
} reader;

/* --- the child's end --- */

/* Ends it, if it has not ended; what waitpid says of it, or -1 in a process that is not its parent. */
static int end_child(reader *r)
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
static int status_of_dead(reader *r)
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
static int fail_dead(reader *r, gemma4_error *error)
{
    int status = status_of_dead(r);
    if (status >= 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU)
        return gemma4_fail(error, "%s: expected a file that can be read, found one on which the HDF5 library does not come to an end",
                           r->path);
    if (status >= 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
        return gemma4_fail(error, "%s: expected a file that can be read, found one on which its reader tries what no reader needs, and "
                           "was stopped by its sandbox", r->path);
    if (status >= 0 && WIFSIGNALED(status))
        return gemma4_fail(error, "%s: expected a file that can be read, found one on which its reader dies of signal %d (%s)", r->path,
                           WTERMSIG(status), strsignal(WTERMSIG(status)));
    return gemma4_fail(error, "%s: expected a file that can be read, found one on which its reader ends before it has answered", r->path);
}

/* What no reader of ours would say. */
static int fail_nonsense(reader *r, const char *what, gemma4_error *error)
{
    end_child(r);
    return gemma4_fail(error, "%s: expected a file that can be read, found one on which its reader talks nonsense (%s)", r->path, what);
}

static int fail_endless(reader *r, gemma4_error *error)
{
    end_child(r);
    return gemma4_fail(error, "%s: expected a file that can be read, found one on which the HDF5 library does not come to an end", r->path);
}

/* --- time --- */

static double seconds_of(clockid_t clock)
{
    struct timespec now;
    return clock_gettime(clock, &now) ? 0 : (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The processor time that the child has used. */
static double used_by(const reader *r)
{
    clockid_t clock;
    return r->child > 0 && clock_getcpuclockid(r->child, &clock) == 0 ? seconds_of(clock) : 0;
}

static void start_clock(reader *r, double seconds)
{
    r->started = used_by(r);
    r->seconds = seconds;
}

/* --- the socket --- */

static int receive(reader *r, void *to, size_t size, gemma4_error *error)
{
    char *at = to;
    double last = seconds_of(CLOCK_MONOTONIC);
    while (size > 0) {
        struct pollfd ready = {.fd = r->channel, .events = POLLIN};
        int some = poll(&ready, 1, POLL_MILLISECONDS);
        if (used_by(r) - r->started > r->seconds || (some == 0 && seconds_of(CLOCK_MONOTONIC) - last > SECONDS_TO_WAIT))
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

static int request(reader *r, const gemma4_reader_request *what, double seconds, gemma4_error *error)
{
    const char *at = (const char *)what;
    size_t size = sizeof *what;
    if (r->dead)
        return gemma4_fail(error, "%s: cannot be read any more: its reader has ended", r->path);
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
static int take_failure(reader *r, uint64_t size, gemma4_error *error)
{
    char message[MESSAGE_BYTES + 1];
    if (size == 0 || size > MESSAGE_BYTES)
        return fail_nonsense(r, "the length of a message", error);
    if (receive(r, message, (size_t)size, error))
        return -1;
    message[size] = '\0';
    return gemma4_fail(error, "%s", message);
}

/* The head of the next piece. 1 where the answer is whole, -1 on failure. */
static int next_piece(reader *r, gemma4_reader_head *head, gemma4_error *error)
{
    if (receive(r, head, sizeof *head, error))
        return -1;
    if (head->tag == GEMMA4_READER_FAILED)
        return take_failure(r, head->size, error);
    if (head->tag == GEMMA4_READER_DONE)
        return head->size == 0 ? 1 : fail_nonsense(r, "an end that goes on", error);
    return 0;
}

/* --- attributes --- */

static int take_attribute(reader *r, uint64_t size, gemma4_error *error)
{
    if (r->attributes_count == ATTRIBUTES_MOST)
        return fail_nonsense(r, "too many attributes", error);
    if (size < 2 || size > NAME_BYTES + GEMMA4_ATTRIBUTE_MAX_BYTES)
        return fail_nonsense(r, "the length of an attribute", error);
    char *bytes = malloc((size_t)size);
    if (!bytes)
        return gemma4_fail(error, "%s: out of memory", r->path);
    if (receive(r, bytes, (size_t)size, error)) {
        free(bytes);
        return -1;
    }
    /* Two strings, the second of which fills the rest. */
    char *end = memchr(bytes, 0, (size_t)size);
    if (!end || end == bytes + size - 1 || memchr(end + 1, 0, (size_t)size - (size_t)(end + 1 - bytes)) != bytes + size - 1) {
        free(bytes);
        return fail_nonsense(r, "an attribute without an end", error);
    }
    r->attributes[r->attributes_count++] = (attribute){bytes, end + 1};
    return 0;
}

static int take_attributes(reader *r, gemma4_error *error)
{
    gemma4_reader_head head;
    int status;
    while ((status = next_piece(r, &head, error)) == 0)
        if (head.tag != GEMMA4_READER_ATTRIBUTE ? fail_nonsense(r, "a piece that is no attribute", error)
                                                : take_attribute(r, head.size, error))
            return -1;
    return status < 0 ? -1 : 0;
}

static const char *reader_attribute(const void *context, const char *name)
{
    const reader *r = context;
    for (size_t i = 0; i < r->attributes_count; i++)
        if (strcmp(r->attributes[i].name, name) == 0)
            return r->attributes[i].text;
    return NULL;
}

/* --- the list --- */

typedef struct listing {
    reader *r;
    const gemma4_config *config;
    gemma4_stored_list *list;
    size_t names, rows; /* so far, of all tensors */
    gemma4_error *error;
} listing;

/* Whether a tensor is one that our own reader could have described. NULL, or what is wrong. */
static const char *check_tensor(const listing *l, gemma4_reader_tensor *t, uint64_t size)
{
    if (!memchr(t->name, 0, sizeof t->name) || !memchr(t->problem, 0, sizeof t->problem) || !*t->name)
        return "a name without an end";
    for (char *c = t->problem; *c; c++)
        if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7F)
            *c = '?';
    if (t->element >= GEMMA4_ELEMENT_COUNT || (t->element == GEMMA4_ELEMENT_NONE && !*t->problem))
        return "an unknown type";
    if (t->rank > sizeof t->shape / sizeof *t->shape)
        return "too many axes";
    for (size_t i = 0; i < sizeof t->shape / sizeof *t->shape; i++)
        if (i < t->rank ? t->shape[i] > SIZE_MAX || (t->shape[i] == 0 && !*t->problem) : t->shape[i] != 0)
            return "an impossible shape";
    if (t->has_rows > 1 || t->row_count > (t->has_rows ? l->config->max_position_embeddings : 0) || t->row_count > ROWS_MOST - l->rows)
        return "too many rows";
    return size == sizeof *t + t->row_count * sizeof(int64_t) ? NULL : "the length of a tensor's rows";
}

static int take_tensor(listing *l, uint64_t size)
{
    gemma4_reader_tensor t;
    gemma4_stored_tensor *tensor;
    if (size < sizeof t)
        return fail_nonsense(l->r, "the length of a tensor", l->error);
    if (receive(l->r, &t, sizeof t, l->error))
        return -1;
    const char *wrong = check_tensor(l, &t, size);
    if (wrong)
        return fail_nonsense(l->r, wrong, l->error);
    if (gemma4_stored_add(l->list, l->config, t.name, &tensor, l->error))
        return -1;
    if (!tensor)
        return fail_nonsense(l->r, "a tensor that is no tap", l->error);
    tensor->element = (gemma4_element)t.element;
    memcpy(tensor->problem, t.problem, sizeof t.problem);
    tensor->rank = (size_t)t.rank;
    for (size_t i = 0; i < tensor->rank; i++)
        tensor->shape[i] = (size_t)t.shape[i];
    tensor->has_rows = t.has_rows;
    if (t.row_count == 0)
        return 0;
    tensor->rows = malloc((size_t)t.row_count * sizeof *tensor->rows);
    if (!tensor->rows)
        return gemma4_fail(l->error, "%s: %s: out of memory", l->r->path, t.name);
    tensor->row_count = (size_t)t.row_count;
    l->rows += tensor->row_count;
    return receive(l->r, tensor->rows, tensor->row_count * sizeof *tensor->rows, l->error);
}

static int take_unknown(listing *l, uint64_t size)
{
    char name[sizeof l->list->unknown[0]];
    if (size >= sizeof name || l->list->unknown_count >= GEMMA4_UNKNOWN_MAX)
        return fail_nonsense(l->r, "the length of a name", l->error);
    if (receive(l->r, name, (size_t)size, l->error))
        return -1;
    name[size] = '\0';
    gemma4_stored_add_unknown(l->list, name);
    return 0;
}

static int take_uncounted(listing *l, uint64_t size)
{
    uint64_t more;
    if (size != sizeof more)
        return fail_nonsense(l->r, "the length of a number", l->error);
    if (receive(l->r, &more, sizeof more, l->error))
        return -1;
    if (more > 2 * NAMES_MOST || l->list->unknown_count != GEMMA4_UNKNOWN_MAX)
        return fail_nonsense(l->r, "a number of names", l->error);
    l->list->unknown_count += (size_t)more;
    return 0;
}

static int take_listed(listing *l, const gemma4_reader_head *head)
{
    if (++l->names > NAMES_MOST + GEMMA4_UNKNOWN_MAX + 1)
        return fail_nonsense(l->r, "too many names", l->error);
    switch (head->tag) {
    case GEMMA4_READER_TENSOR: return take_tensor(l, head->size);
    case GEMMA4_READER_UNKNOWN: return take_unknown(l, head->size);
    case GEMMA4_READER_UNCOUNTED: return take_uncounted(l, head->size);
    default: return fail_nonsense(l->r, "a piece that is no tensor", l->error);
    }
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A file cannot hold two tensors of one path. */
static int check_distinct(const listing *l)
{
    const gemma4_stored_list *list = l->list;
    const char **names = malloc((list->count + 1) * sizeof *names);
    bool twice = false;
    if (!names)
        return gemma4_fail(l->error, "%s: out of memory", l->r->path);
    for (size_t i = 0; i < list->count; i++)
        names[i] = list->items[i].name;
    qsort(names, list->count, sizeof *names, compare_names);
    for (size_t i = 1; i < list->count; i++)
        twice = twice || strcmp(names[i - 1], names[i]) == 0;
    free(names);
    return twice ? fail_nonsense(l->r, "a tensor twice", l->error) : 0;
}

static int reader_list(void *context, const gemma4_config *config, gemma4_stored_list *list, gemma4_error *error)
{
    reader *r = context;
    listing l = {.r = r, .config = config, .list = list, .error = error};
    const gemma4_reader_request what = {.kind = GEMMA4_READER_LIST,
                                        .num_hidden_layers = config->num_hidden_layers,
                                        .max_position_embeddings = config->max_position_embeddings};
    gemma4_reader_head head;
    int status;
    if (request(r, &what, r->seconds_to_open, error))
        return -1;
    while ((status = next_piece(r, &head, error)) == 0)
        if (take_listed(&l, &head))
            return -1;
    return status < 0 ? -1 : check_distinct(&l);
}

/* --- values --- */

static int reader_read(void *context, const gemma4_stored_tensor *tensor, size_t row_axis, size_t first_row, size_t count,
                       void *elements, gemma4_error *error)
{
    reader *r = context;
    gemma4_reader_request what = {.kind = GEMMA4_READER_READ, .row_axis = row_axis, .first_row = first_row, .count = count};
    gemma4_reader_head head;
    size_t left = count * gemma4_element_describe(tensor->element)->size; /* fits: the caller has room for it */
    int status;
    for (size_t i = row_axis + 1; i < tensor->rank; i++)
        left *= tensor->shape[i];
    snprintf(what.name, sizeof what.name, "%s", tensor->name);
    if (request(r, &what, SECONDS_TO_READ, error))
        return -1;
    for (char *to = elements; (status = next_piece(r, &head, error)) == 0; to += head.size, left -= (size_t)head.size) {
        if (head.tag != GEMMA4_READER_VALUES || head.size == 0 || head.size > left)
            return fail_nonsense(r, "other values than asked for", error);
        if (receive(r, to, (size_t)head.size, error))
            return -1;
    }
    if (status < 0)
        return -1;
    return left ? fail_nonsense(r, "fewer values than asked for", error) : 0;
}

/* --- opening and closing --- */

static void reader_close(void *context)
{
    reader *r = context;
    if (r->channel >= 0)
        close(r->channel);
    end_child(r);
    for (size_t i = 0; i < r->attributes_count; i++)
        free(r->attributes[i].name);
    free(r->path);
    free(r);
}

/* Never returns. */
static void be_the_child(int file, int channel, const char *path, gemma4_reader_serve serve, void *context)
{
    gemma4_guard_reset();
    if (gemma4_hdf5_descriptor_prepare(file))
        _exit(1);
    gemma4_sandbox_enter(file, channel); /* where something is missing, --version says it */
    serve(file, channel, path, context);
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

static int start_child(reader *r, gemma4_reader_serve serve, void *context, gemma4_error *error)
{
    int channel[2], file = open_regular(r->path, error);
    if (file < 0)
        return -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel)) {
        close(file);
        return gemma4_fail(error, "%s: cannot start a process to read it: %s", r->path, strerror(errno));
    }
    r->parent = getpid();
    r->child = fork();
    if (r->child == 0)
        be_the_child(file, channel[1], r->path, serve, context);
    int reason = errno;
    close(file);
    close(channel[1]);
    r->channel = channel[0];
    return r->child < 0 ? gemma4_fail(error, "%s: cannot start a process to read it: %s", r->path, strerror(reason)) : 0;
}

int gemma4_reader_open(const char *path, gemma4_reader_serve serve, void *context, double seconds, gemma4_activation_source *source,
                       gemma4_error *error)
{
    reader *r = calloc(1, sizeof *r);
    if (!r || !(r->path = strdup(path))) {
        free(r);
        return gemma4_fail(error, "%s: out of memory", path);
    }
    r->channel = -1;
    r->seconds = r->seconds_to_open = seconds;
    if (start_child(r, serve, context, error) || take_attributes(r, error)) {
        reader_close(r);
        return -1;
    }
    *source = (gemma4_activation_source){r, reader_attribute, reader_list, reader_read, reader_close};
    return 0;
}

int gemma4_activations_hdf5_open(const char *path, gemma4_activation_source *source, gemma4_error *error)
{
    return gemma4_reader_open(path, gemma4_reader_serve_hdf5, NULL, SECONDS_TO_OPEN, source, error);
}
