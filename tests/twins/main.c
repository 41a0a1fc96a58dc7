/* gemma4-twins: checks the SIMD twins of this machine. Walks upward through the instruction sets,
 * so that the older twins are tested on the newest machine, too; every operator in a process of its
 * own, so that a crash is a FAILED line like any other. Then twins with planted faults, which must
 * fail.
 *
 *   gemma4-twins [--seed N] [--table FILE]        exit status 0: all passed, all faulty ones
 *                                                 failed; 1: not so */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "twins.h"

static uint64_t seed = 20260401;

static void set_threads(int n)
{
#ifdef _OPENMP
    omp_set_num_threads(n);
#else
    (void)n;
#endif
}

static void run_check(verdict *v, const operator_check *check, const gemma4_ops *ops)
{
    random_seed(seed);
    check->run(v, ops);
    check_bias(v);
    if (!v->wrong[0] && v->values == 0)
        snprintf(v->wrong, sizeof v->wrong, "no case compared anything");
}

/* Runs one operator's cases in a child and reads its verdict; quiet where it is expected to
 * crash. */
static verdict run_child(const operator_check *check, const gemma4_ops *ops, int threads,
                         bool quiet)
{
    verdict v = {0};
    int channel[2], status;
    fflush(NULL);
    pid_t child = pipe(channel) ? -1 : fork();
    if (child < 0) {
        snprintf(v.wrong, sizeof v.wrong, "cannot start a process");
        return v;
    }
    if (child == 0) {
        if (quiet && !freopen("/dev/null", "w", stderr))
            _exit(1);
        set_threads(threads);
        run_check(&v, check, ops);
        _exit(write(channel[1], &v, sizeof v) == sizeof v ? 0 : 1);
    }
    close(channel[1]);
    bool complete = read(channel[0], &v, sizeof v) == sizeof v;
    close(channel[0]);
    waitpid(child, &status, 0);
    if (!complete || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        snprintf(v.wrong, sizeof v.wrong, "the process died (%s)",
                 WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "exit status not 0");
    return v;
}

/* With one thread, and with more than there are processors: the same bits. */
static verdict judge(const operator_check *check, const gemma4_ops *ops)
{
    verdict one = run_child(check, ops, 1, false), many = run_child(check, ops, 3, false);
    if (!one.wrong[0] && many.wrong[0])
        return many;
    if (!one.wrong[0] && one.hash != many.hash)
        snprintf(one.wrong, sizeof one.wrong, "results depend on the number of threads");
    return one;
}

/* Operators that are to give the scalar's bits: there is no error to print. */
static size_t check_exact(const gemma4_ops *ops)
{
    size_t failed = 0;
    for (size_t i = 0; i < exact_check_count; i++) {
        verdict v = judge(&exact_checks[i], ops);
        if (v.wrong[0])
            printf("FAILED  %s_%s: %s\n", exact_checks[i].name, ops->name, v.wrong);
        else
            printf("passed  %s_%s: %zu cases, %zu values, the scalar's bits\n",
                   exact_checks[i].name, ops->name, v.cases, v.values);
        failed += v.wrong[0] != '\0';
    }
    return failed;
}

static size_t check_twin(const gemma4_ops *ops, FILE *table)
{
    size_t failed = 0;
    for (size_t i = 0; i < operator_check_count; i++) {
        verdict v = judge(&operator_checks[i], ops);
        if (v.wrong[0])
            printf("FAILED  %s_%s: %s\n", operator_checks[i].name, ops->name, v.wrong);
        else
            printf("passed  %s_%s: %zu cases, %zu values, at most %.3f of the bound (%s)\n",
                   operator_checks[i].name, ops->name, v.cases, v.values, v.worst, v.where);
        if (table && !v.wrong[0])
            fprintf(table, "| %s | %s | %zu | %zu | %.3f | %s |\n", operator_checks[i].name,
                    ops->name, v.cases, v.values, v.worst, v.where);
        failed += v.wrong[0] != '\0';
    }
    return failed;
}

static const operator_check *find_check(const operator_check *checks, size_t count,
                                        const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(checks[i].name, name))
            return &checks[i];
    return NULL;
}

/* How many of the faulty ones passed, or cannot be judged; planted in a copy of `sound`. */
static size_t check_faulty(const faulty_twin *faulty, size_t faulty_count,
                           const operator_check *checks, size_t count, const gemma4_ops *sound)
{
    size_t missed = 0;
    for (size_t i = 0; i < faulty_count; i++) {
        const faulty_twin *f = &faulty[i];
        const operator_check *check = find_check(checks, count, f->operator);
        gemma4_ops ops = *sound;
        f->plant(&ops);
        verdict v = {.wrong = ""};
        if (check)
            v = run_child(check, &ops, 1, true);
        if (v.wrong[0])
            printf("fails, as it must: %s_%s that %s: %s\n", f->operator, ops.name, f->name,
                   v.wrong);
        else
            printf("FAILED  %s_%s that %s passed\n", f->operator, ops.name, f->name);
        missed += !v.wrong[0];
    }
    return missed;
}

int main(int argc, char **argv)
{
    static const unsigned LADDER[] = {GEMMA4_CPU_AVX2, GEMMA4_CPU_AVX512, GEMMA4_CPU_NEON};
    FILE *table = NULL;
    size_t failed = 0, twins = 0;
    unsigned found = gemma4_cpu_detect(), mask = GEMMA4_CPU_SCALAR;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--seed") && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 10);
        } else if (!strcmp(argv[i], "--table") && i + 1 < argc) {
            table = fopen(argv[++i], "w");
        } else {
            fprintf(stderr, "usage: gemma4-twins [--seed N] [--table FILE]\n");
            return 2;
        }
    }
    if (table)
        fprintf(table,
                "# Worst errors of the twins\n\nWritten by `make twin-errors` (`gemma4-twins "
                "--table`), seed %llu. The error is in units of "
                "the derived bound of [twins.md](twins.md).\n\n| operator | twin | cases | values "
                "| worst error | where |\n"
                "|---|---|---|---|---|---|\n",
                (unsigned long long)seed);
    printf("seed %llu\n", (unsigned long long)seed);
    for (size_t i = 0; i < COUNT(LADDER); i++) {
        if (!(found & LADDER[i]))
            continue;
        mask |= LADDER[i];
        gemma4_ops ops = gemma4_ops_for(mask);
        failed += check_twin(&ops, table);
        twins++;
    }
    if (table)
        failed += fclose(table) != 0;
    const gemma4_ops best = gemma4_ops_for(mask), exact = gemma4_ops_exact();
    bool has_exact = strcmp(exact.name, "scalar") != 0;
    if (twins)
        failed += check_faulty(faulty_twins, faulty_twin_count, operator_checks,
                               operator_check_count, &best);
    if (has_exact)
        failed += check_exact(&exact) + check_faulty(faulty_exact, faulty_exact_count, exact_checks,
                                                     exact_check_count, &exact);
    printf("%zu twins on this machine, %zu faulty ones, %zu findings\n", twins,
           (twins ? faulty_twin_count : 0) + (has_exact ? faulty_exact_count : 0), failed);
    return failed ? 1 : 0;
}
