#include "guard.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TEMPORARIES = 16, MAPPINGS = 512, PATH_BYTES = 4200 };
enum { FREE, FILLING, IN_USE };

/* The handlers read these, whenever they are called: an entry counts when its state says so, which
 * is set last and taken back first. */
static struct temporary {
    atomic_int state;
    pid_t owner; /* a child that was forked meanwhile must not remove it */
    char path[PATH_BYTES];
} temporaries[TEMPORARIES];

static struct mapping {
    atomic_int state;
    const char *begin, *end, *path;
} mappings[MAPPINGS];

static const char *program_name = "gemma4";
static volatile sig_atomic_t child; /* 0: none */
static char *message;               /* NULL: standard error */
static size_t message_size;

static const int deadly[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};

/* --- the tables --- */

static int take(atomic_int *state)
{
    int expected = FREE;
    return atomic_compare_exchange_strong(state, &expected, FILLING);
}

int gemma4_guard_temporary(const char *path)
{
    if (strlen(path) >= PATH_BYTES)
        return -1;
    for (int i = 0; i < TEMPORARIES; i++)
        if (take(&temporaries[i].state)) {
            strcpy(temporaries[i].path, path);
            temporaries[i].owner = getpid();
            atomic_store(&temporaries[i].state, IN_USE);
            return i;
        }
    return -1;
}

int gemma4_guard_mapping(const void *address, size_t size, const char *path)
{
    for (int i = 0; i < MAPPINGS; i++)
        if (take(&mappings[i].state)) {
            mappings[i].begin = address;
            mappings[i].end = mappings[i].begin + size;
            mappings[i].path = path;
            atomic_store(&mappings[i].state, IN_USE);
            return i;
        }
    return -1;
}

void gemma4_guard_forget_temporary(int number)
{
    if (number >= 0)
        atomic_store(&temporaries[number].state, FREE);
}

void gemma4_guard_forget_mapping(int number)
{
    if (number >= 0)
        atomic_store(&mappings[number].state, FREE);
}

/* --- the handlers: async-signal-safe calls only --- */

static void remove_temporaries(void)
{
    for (int i = 0; i < TEMPORARIES; i++)
        if (atomic_load(&temporaries[i].state) == IN_USE && temporaries[i].owner == getpid())
            unlink(temporaries[i].path);
}

/* Appends text. A file name comes from whoever named the file: control characters must not reach
 * the terminal. */
static void say(char *line, size_t size, size_t *used, const char *text)
{
    for (; *text && *used + 1 < size; text++)
        line[(*used)++] = (unsigned char)*text < 0x20 || *text == 0x7F ? '?' : *text;
}

/* A program that ends with what it has so far catches the first SIGINT. */
static volatile sig_atomic_t catches, caught;

/* Of a check's two processes the child catches, and the parent waits for it. A terminal sends the
 * signal to both; from elsewhere it is passed on. */
static int is_caught(int number, const siginfo_t *info)
{
    if (number != SIGINT || !catches || caught)
        return 0;
    caught = 1;
    if (child > 0 && info->si_code <= 0)
        kill(child, number);
    return 1;
}

static void on_deadly(int number, siginfo_t *info, void *context)
{
    (void)context;
    if (is_caught(number, info))
        return;
    pid_t of_ours = child;
    if (of_ours > 0 && kill(of_ours, number) == 0)
        waitpid(of_ours, NULL, 0);
    remove_temporaries();
    signal(number, SIG_DFL);
    raise(number); /* delivered when this handler returns: the caller sees what it died of */
}

static void say_cut_short(const char *path)
{
    char own[PATH_BYTES + 256];
    char *line = message ? message : own;
    size_t used = 0, size = message ? message_size : sizeof own - 1;
    if (!message) {
        say(line, size, &used, program_name);
        say(line, size, &used, ": ");
    }
    say(line, size, &used, path);
    say(line, size, &used,
        ": expected a file that stays as it is, found it cut short while it was read");
    if (message)
        return;
    line[used++] = '\n';
    if (write(STDERR_FILENO, line, used) < 0)
        return; /* nobody listens */
}

static void on_bus_error(int number, siginfo_t *info, void *context)
{
    const char *address = info->si_addr;
    (void)context;
    for (int i = 0; i < MAPPINGS; i++) {
        const struct mapping *m = &mappings[i];
        if (atomic_load(&m->state) != IN_USE || address < m->begin || address >= m->end)
            continue;
        remove_temporaries();
        say_cut_short(m->path);
        _exit(2);
    }
    remove_temporaries();
    signal(number, SIG_DFL); /* the access is repeated, and kills */
}

/* --- */

void gemma4_guard_child(int pid)
{
    child = pid;
}

void gemma4_guard_catch_interrupt(void)
{
    catches = 1;
}

int gemma4_guard_interrupted(void)
{
    return caught != 0;
}

void gemma4_guard_message(char *memory, size_t size)
{
    message = memory;
    message_size = size;
}

static bool ended;

/* The library has said why, on standard error. */
static void on_exit_of_others(void)
{
    if (ended)
        return;
    remove_temporaries();
    _Exit(message ? GEMMA4_GUARD_LIBRARY : 2);
}

void gemma4_guard_exit(void)
{
    atexit(on_exit_of_others); /* POSIX has room for 32 */
}

int gemma4_guard_end(int status)
{
    ended = true;
    return status;
}

void gemma4_guard_install(const char *program)
{
    struct sigaction action = {.sa_sigaction = on_deadly, .sa_flags = SA_SIGINFO},
                     bus = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO}, old;
    program_name = program;
    sigemptyset(&action.sa_mask);
    sigemptyset(&bus.sa_mask);
    for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++)
        /* nohup, and shells' background jobs */
        if (sigaction(deadly[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(deadly[i], &action, NULL);
    sigaction(SIGBUS, &bus, NULL);
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGCHLD, SIG_DFL); /* where it was ignored, children could not be waited for */
}

void gemma4_guard_reset(void)
{
    for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++)
        signal(deadly[i], SIG_DFL);
    signal(SIGBUS, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
}
