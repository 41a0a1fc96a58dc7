/* The filter of system calls (seccomp-bpf): x86-64 and AArch64. What a reader needs is let through,
 * for its two descriptors only; what only an attack would try ends the process; everything else
 * fails with EPERM, which libc and libhdf5 survive. */
#include "sandbox.h"

#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__)) && \
    __has_include(<linux/seccomp.h>)

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef __x86_64__
#define MACHINE AUDIT_ARCH_X86_64
#else
#define MACHINE AUDIT_ARCH_AARCH64
#endif
#define X32_BIT 0x40000000u /* system calls of x86-64's 32-bit twin */

enum { MOST = 192 };

typedef struct program {
    struct sock_filter code[MOST];
    unsigned short length;
} program;

static void add(program *p, uint16_t code, uint32_t k, uint8_t if_true, uint8_t if_false)
{
    if (p->length < MOST)
        p->code[p->length++] = (struct sock_filter){code, if_true, if_false, k};
}

static void load(program *p, size_t offset)
{
    add(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

/* The low half of an argument: both machines are little-endian, and all that are looked at are
 * ints. */
static void load_argument(program *p, int index)
{
    load(p, offsetof(struct seccomp_data, args) + 8 * (size_t)index);
}

static void end_with(program *p, uint32_t action)
{
    add(p, BPF_RET | BPF_K, action, 0, 0);
}

#define ALLOW SECCOMP_RET_ALLOW
#define REFUSE (SECCOMP_RET_ERRNO | EPERM)
#define KILL SECCOMP_RET_KILL_PROCESS

/* With the number loaded: that call ends so. */
static void decide(program *p, long call, uint32_t action)
{
    add(p, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 1);
    end_with(p, action);
}

/* That call is allowed where its first argument is one of two values. */
static void allow_for(program *p, long call, int one, int other)
{
    add(p, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 5);
    load_argument(p, 0);
    add(p, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)one, 1, 0);
    add(p, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)other, 0, 1);
    end_with(p, ALLOW);
    end_with(p, REFUSE);
}

/* Advice about memory, but not to poison it (MADV_HWPOISON and MADV_SOFT_OFFLINE, from 100 on,
 * which root may give): the parent shares some of it. */
static void allow_advice(program *p)
{
    add(p, BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 4);
    load_argument(p, 2);
    add(p, BPF_JMP | BPF_JGE | BPF_K, 100, 1, 0);
    end_with(p, ALLOW);
    end_with(p, REFUSE);
}

/* Memory that no file is behind and that never becomes code. */
static void allow_memory(program *p)
{
    add(p, BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 6);
    load_argument(p, 2);
    add(p, BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 3, 0);
    load_argument(p, 3);
    add(p, BPF_JMP | BPF_JSET | BPF_K, MAP_ANONYMOUS, 0, 1);
    end_with(p, ALLOW);
    end_with(p, REFUSE);
    add(p, BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 0, 4);
    load_argument(p, 2);
    add(p, BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0);
    end_with(p, ALLOW);
    end_with(p, REFUSE);
}

/* No reader comes near these, whatever libc it stands on. */
static const long attacks[] = {
    SYS_execve,
    SYS_execveat,
    SYS_clone,
    SYS_socket,
    SYS_socketpair,
    SYS_connect,
    SYS_bind,
    SYS_listen,
    SYS_accept4,
    SYS_sendto,
    SYS_sendmsg,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_mount,
    SYS_setuid,
    SYS_setresuid,
    SYS_unlinkat,
    SYS_mkdirat,
    SYS_linkat,
    SYS_symlinkat,
    SYS_fchmodat,
    SYS_fchownat,
    SYS_kexec_load,
    SYS_init_module,
    SYS_finit_module,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_keyctl,
    SYS_add_key,
#ifdef SYS_clone3
    SYS_clone3,
#endif
#ifdef SYS_io_uring_setup
    SYS_io_uring_setup,
#endif
#ifdef SYS_fork /* not on AArch64 */
    SYS_fork,
    SYS_vfork,
    SYS_unlink,
    SYS_rename,
    SYS_mkdir,
    SYS_chmod,
    SYS_link,
    SYS_symlink,
#endif
};

static const long harmless[] = {
    SYS_brk,          SYS_munmap,       SYS_mremap,         SYS_futex,       SYS_exit,
    SYS_exit_group,   SYS_close,        SYS_getpid,         SYS_gettid,      SYS_clock_gettime,
    SYS_gettimeofday, SYS_rt_sigreturn, SYS_rt_sigprocmask, SYS_sched_yield, SYS_restart_syscall,
};

static void write_program(program *p, int file, int channel)
{
    load(p, offsetof(struct seccomp_data, arch));
    add(p, BPF_JMP | BPF_JEQ | BPF_K, MACHINE, 1, 0);
    end_with(p, KILL);
    load(p, offsetof(struct seccomp_data, nr));
#ifdef __x86_64__
    add(p, BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
    end_with(p, KILL);
#endif
    for (size_t i = 0; i < sizeof attacks / sizeof *attacks; i++)
        decide(p, attacks[i], KILL);
    if (GEMMA4_SANITIZED) { /* the sanitizer's own calls are many, and change with its version */
        end_with(p, ALLOW);
        return;
    }
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
        decide(p, harmless[i], ALLOW);
    allow_for(p, SYS_read, channel, channel);
    allow_for(p, SYS_pread64, file, file);
    allow_for(p, SYS_write, channel, channel);
    allow_for(p, SYS_tgkill, getpid(), getpid()); /* abort() */
    allow_memory(p);
    allow_advice(p);
    end_with(p, REFUSE);
}

int gemma4_sandbox_filter(int file, int channel)
{
    program p = {.length = 0};
    write_program(&p, file, channel);
    if (p.length == MOST) /* cut off */
        return -1;
    struct sock_fprog filter = {p.length, p.code};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) ? -1 : 0;
}

#else

int gemma4_sandbox_filter(int file, int channel)
{
    (void)file;
    (void)channel;
    return -1;
}

#endif
