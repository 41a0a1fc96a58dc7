/* Preloaded into a program (LD_PRELOAD): its Nth allocation fails. Counted are all of a run's
 * processes, in the order of their calls: malloc and its kin, whoever calls it (our code, libhdf5,
 * libyaml, libcrypto, libc), and mmap and madvise where our code calls them.
 *
 * It also counts leaks: what our own code, not a library, has asked for and not freed when a
 * process ends. The reader's child frees nothing on purpose, and is not asked. glibc only. */
#include "state.h"

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *address);

static alloc_state *state;
static uintptr_t program_begin, program_end;
static bool is_reader;       /* this process is a sandboxed reader */
static __thread bool inside; /* backtrace() may allocate */

/* --- what our own code holds: open addressing, 0 empty, 1 removed --- */

enum { SLOTS = 1 << 17 };
static struct slot {
    uintptr_t address, caller;
} slots[SLOTS];
static atomic_flag busy = ATOMIC_FLAG_INIT;

static size_t slot_of(uintptr_t address)
{
    return (size_t)((address >> 4) * 0x9E3779B97F4A7C15u >> 47);
}

static bool is_ours(uintptr_t caller)
{
    return caller >= program_begin && caller < program_end;
}

static void note(void *address, uintptr_t caller)
{
    if (!address || !state || !is_ours(caller))
        return;
    while (atomic_flag_test_and_set(&busy))
        ;
    size_t i = slot_of((uintptr_t)address), steps = 0;
    for (; slots[i].address > 1 && steps < SLOTS; i = (i + 1) % SLOTS)
        steps++;
    if (steps < SLOTS) /* else it is not counted */
        slots[i] = (struct slot){(uintptr_t)address, caller};
    atomic_flag_clear(&busy);
}

static void forget(const void *address)
{
    if (!address || !state)
        return;
    while (atomic_flag_test_and_set(&busy))
        ;
    size_t i = slot_of((uintptr_t)address);
    for (size_t steps = 0; slots[i].address && steps < SLOTS; i = (i + 1) % SLOTS, steps++)
        if (slots[i].address == (uintptr_t)address) {
            slots[i].address = 1;
            break;
        }
    atomic_flag_clear(&busy);
}

static void count_leaks(void)
{
    if (!state || is_reader)
        return;
    for (size_t i = 0; i < SLOTS; i++)
        if (slots[i].address > 1) {
            uint64_t n = atomic_fetch_add(&state->leaks, 1);
            if (n < ALLOC_LEAKS)
                state->leaked_at[n] = slots[i].caller - program_begin;
        }
}

/* --- failing --- */

/* A hash of the three innermost frames of our own code. */
static uint32_t place(void)
{
    void *frames[40];
    uint32_t hash = 2166136261u;
    int count = backtrace(frames, 40), ours = 0;
    for (int i = 0; i < count && ours < 3; i++)
        if (is_ours((uintptr_t)frames[i])) {
            hash = (hash ^ (uint32_t)((uintptr_t)frames[i] - program_begin)) * 16777619u;
            ours++;
        }
    return hash;
}

static bool fails(void)
{
    if (!state || inside)
        return false;
    uint64_t n = atomic_fetch_add(&state->count, 1) + 1;
    if (state->logs && n <= ALLOC_LOGGED) {
        inside = true;
        state->place[n - 1] = place();
        inside = false;
    }
    if (!state->fail_at || n < state->fail_at || (n > state->fail_at && !state->for_good))
        return false;
    atomic_fetch_add(&state->failed, 1);
    errno = ENOMEM;
    return true;
}

#define CALLER ((uintptr_t)__builtin_return_address(0))

void *malloc(size_t size)
{
    void *address = fails() ? NULL : __libc_malloc(size);
    note(address, CALLER);
    return address;
}

void *calloc(size_t count, size_t size)
{
    void *address = fails() ? NULL : __libc_calloc(count, size);
    note(address, CALLER);
    return address;
}

void *realloc(void *old, size_t size)
{
    if (fails())
        return NULL;
    forget(old);
    void *address = __libc_realloc(old, size);
    note(address ? address : old, CALLER);
    return address;
}

void *aligned_alloc(size_t alignment, size_t size)
{
    void *address = fails() ? NULL : __libc_memalign(alignment, size);
    note(address, CALLER);
    return address;
}

int posix_memalign(void **address, size_t alignment, size_t size)
{
    if (fails() || !(*address = __libc_memalign(alignment, size)))
        return ENOMEM;
    note(*address, CALLER);
    return 0;
}

void free(void *address)
{
    forget(address);
    __libc_free(address);
}

static char *copy(const char *text, size_t length, uintptr_t caller)
{
    char *address = fails() ? NULL : __libc_malloc(length + 1);
    if (address) {
        memcpy(address, text, length);
        address[length] = '\0';
    }
    note(address, caller);
    return address;
}

char *strdup(const char *text)
{
    return copy(text, strlen(text), CALLER);
}

char *strndup(const char *text, size_t size)
{
    return copy(text, strnlen(text, size), CALLER);
}

void *mmap(void *address, size_t size, int protection, int flags, int file, off_t offset)
{
    if (is_ours(CALLER) && fails())
        return MAP_FAILED;
    return (void *)syscall(SYS_mmap, address, size, protection, flags, file, offset);
}

/* Advice may be refused. */
int madvise(void *address, size_t size, int advice)
{
    if (is_ours(CALLER) && fails())
        return -1;
    return (int)syscall(SYS_madvise, address, size, advice);
}

/* --- beginnings and ends --- */

/* What was allocated before is the parent's, which frees its own. */
pid_t fork(void)
{
    static pid_t (*real)(void);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "fork");
    pid_t child = real();
    if (child == 0 && state)
        memset(slots, 0, sizeof slots);
    return child;
}

/* The reader's child says that it wants no more rights before it reads; nobody else does. */
int prctl(int option, ...)
{
    va_list list;
    va_start(list, option);
    unsigned long a = va_arg(list, unsigned long), b = va_arg(list, unsigned long),
                  c = va_arg(list, unsigned long), d = va_arg(list, unsigned long);
    va_end(list);
    is_reader = is_reader || option == PR_SET_NO_NEW_PRIVS;
    return (int)syscall(SYS_prctl, option, a, b, c, d);
}

void _exit(int status)
{
    count_leaks();
    syscall(SYS_exit_group, status);
    __builtin_unreachable();
}

/* 0 to 2 is what our programs end with. Where a library has ended the process, nobody could free
 * anything. */
static void end(int status, void *context)
{
    (void)context;
    if (status >= 0 && status <= 2)
        count_leaks();
}

static int first_object(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size;
    (void)context;
    program_begin = info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD)
            program_end = program_begin + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
    return 1; /* the first is the program itself */
}

__attribute__((constructor)) static void begin(void)
{
    void *frame;
    const char *path = getenv("ALLOC_STATE");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    backtrace(&frame, 1);
    dl_iterate_phdr(first_object, NULL);
    void *mapped =
        (void *)syscall(SYS_mmap, NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped == MAP_FAILED || on_exit(end, NULL))
        return;
    state = mapped;
}
