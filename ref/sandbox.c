/* Limits and Landlock; sandbox_seccomp.c has the filter. */
#include "sandbox.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

/* Of memory beyond what the process has: libhdf5 holds a chunk (at most 1 GiB is let in) packed,
 * unpacked and unshuffled. Of processor time in all, beyond which even an orphan ends: the parent
 * counts each request's. */
#define MEMORY_BYTES ((rlim_t)4 << 30)
enum { SECONDS = 3600 };

/* --- descriptors --- */

static void close_others(int file, int channel)
{
    struct rlimit limit;
    int most = 65536;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < (rlim_t)most)
        most = (int)limit.rlim_cur;
#ifdef SYS_close_range
    int last = file > channel ? file : channel;
    if (syscall(SYS_close_range, last + 1, ~0U, 0) == 0)
        most = last;
#endif
    for (int i = GEMMA4_SANITIZED ? STDERR_FILENO + 1 : 0; i < most; i++)
        if (i != file && i != channel)
            close(i);
}

/* --- limits --- */

/* The bytes of address space in use; 0 where the system does not say. */
static rlim_t memory_in_use(void)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f)
        return 0;
    if (fscanf(f, "%lu", &pages) != 1)
        pages = 0;
    fclose(f);
    return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

/* Never above what is in force already. */
static bool limit_to(int resource, rlim_t most)
{
    struct rlimit limit;
    if (getrlimit(resource, &limit))
        return false;
    if (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < most)
        most = limit.rlim_max;
    limit.rlim_cur = limit.rlim_max = most;
    return setrlimit(resource, &limit) == 0;
}

/* The parent may have a checkpoint mapped that is larger than any limit: what counts is what comes
 * on top. */
static bool set_limits(rlim_t in_use)
{
    bool done = true;
    if (!GEMMA4_SANITIZED && in_use)
        done = limit_to(RLIMIT_AS, in_use + MEMORY_BYTES);
    else if (!GEMMA4_SANITIZED)
        done = limit_to(RLIMIT_DATA, MEMORY_BYTES);
    done = limit_to(RLIMIT_CPU, SECONDS) && done;
    done = limit_to(RLIMIT_CORE, 0) && done;
    done = limit_to(RLIMIT_FSIZE, 0) && done;
    done = limit_to(RLIMIT_NOFILE, 0) && done; /* opens nothing more; what is open stays so */
#ifdef RLIMIT_NPROC
    done = limit_to(RLIMIT_NPROC, 0) && done; /* does not bind root */
#endif
    return done;
}

/* --- Landlock --- */

#if defined(__linux__) && defined(SYS_landlock_create_ruleset)

/* As the kernel's header has it in later versions than Debian 12's; a kernel that is older reads
 * the part that it knows. */
typedef struct landlock_rights {
    uint64_t files, network, scoped;
} landlock_rights;

enum {
    ABI_QUERY = 1,
    ABI_FILES = 1,
    ABI_REFER = 2,
    ABI_TRUNCATE = 3,
    ABI_NETWORK = 4,
    ABI_DEVICES = 5,
    ABI_SCOPED = 6
};

/* A ruleset that handles all rights and holds no rule: none is left. */
static bool restrict_files(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, ABI_QUERY);
    if (abi < ABI_FILES)
        return false;
    int kinds = 13 + (abi >= ABI_REFER) + (abi >= ABI_TRUNCATE) + (abi >= ABI_DEVICES);
    landlock_rights all = {.files = ((uint64_t)1 << kinds) - 1};
    size_t size = sizeof all.files;
    if (abi >= ABI_NETWORK) {
        all.network = 3; /* bind, connect */
        size = 2 * sizeof all.files;
    }
    if (abi >= ABI_SCOPED) {
        all.scoped = 3; /* abstract sockets, signals */
        size = sizeof all;
    }
    int rules = (int)syscall(SYS_landlock_create_ruleset, &all, size, 0);
    if (rules < 0)
        return false;
    bool done = syscall(SYS_landlock_restrict_self, rules, 0) == 0;
    close(rules);
    return done;
}

#else

static bool restrict_files(void)
{
    return false;
}

#endif

/* --- the whole --- */

unsigned gemma4_sandbox_enter(int file, int channel)
{
    unsigned in_force = 0;
    rlim_t in_use = memory_in_use();
    close_others(file, channel);
#ifdef __linux__
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); /* neither of the two works without it, for anyone but
                                               root */
#endif
    if (restrict_files())
        in_force |= GEMMA4_SANDBOX_LANDLOCK;
    if (set_limits(in_use))
        in_force |= GEMMA4_SANDBOX_LIMITS;
    if (gemma4_sandbox_filter(file, channel) == 0)
        in_force |= GEMMA4_SANDBOX_SECCOMP;
    return in_force;
}

/* --- what a machine has --- */

static unsigned try_it(void)
{
    int channel[2];
    unsigned char in_force = 0;
    if (pipe(channel))
        return 0;
    pid_t child = fork();
    if (child == 0) {
        in_force = (unsigned char)gemma4_sandbox_enter(channel[1], channel[1]);
        _exit(write(channel[1], &in_force, 1) == 1 ? 0 : 1);
    }
    close(channel[1]);
    if (child > 0) {
        if (read(channel[0], &in_force, 1) != 1)
            in_force = 0;
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    close(channel[0]);
    return in_force;
}

void gemma4_sandbox_describe(char *text, size_t size)
{
    static const struct {
        unsigned bit;
        const char *name;
    } parts[] = {{GEMMA4_SANDBOX_SECCOMP, "seccomp"},
                 {GEMMA4_SANDBOX_LANDLOCK, "landlock"},
                 {GEMMA4_SANDBOX_LIMITS, "limits"}};
    unsigned in_force = try_it();
    char there[64] = "", missing[64] = "";
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char *list = in_force & parts[i].bit ? there : missing;
        size_t used = strlen(list);
        snprintf(list + used, sizeof there - used, "%s%s", used ? ", " : "", parts[i].name);
    }
    snprintf(text, size, "%s%s%s%s", *there ? there : "none",
             *missing ? "; not on this system: " : "", missing,
             GEMMA4_SANITIZED ? "; loosened for a sanitizer" : "");
}
