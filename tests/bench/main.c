/* gemma4-bench: how fast are the operators and the forward pass on a checkpoint, beside what the
 * machine can do?
 *
 * Operators are timed where they work, inside the forward pass: every slot of the table of
 * operators is a wrapper that takes the time, counts what the operation needs (floating-point
 * operations; bytes of weights or keys, each once) and, in a run before the timed ones, checks
 * samples of the result. Where one is wrong, no number is printed. */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "forward.h"
#include "model.h"
#include "ops.h"
#include "options.h"
#include "peak.h"
#include "safetensors.h"

static const char usage[] = "usage: gemma4-bench --model DIR [--cpu auto|avx2|avx512|neon] "
                            "[--threads 1,2] [--prefill 32,128,512] [--decode N] [--repeat N]\n"
                            "                    [--reread yes|no] [--csv FILE] [--json FILE]\n"
                            "\n"
                            "--reread yes (the default) reads the checkpoint into the system's "
                            "cache anew, as large pages where it can be.\n"
                            "\n"
                            "Exit status: 0 done, 1 a twin's result is wrong (nothing is printed "
                            "then), 2 anything else, with one line on stderr.\n";

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void set_threads(int n)
{
#ifdef _OPENMP
    omp_set_num_threads(n);
#else
    (void)n;
#endif
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts values. */
static double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, compare_doubles);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* ------------------------------------------------------------ the machine */

typedef struct machine {
    double read, fma; /* bytes a second, floating-point operations a second */
} machine;

enum { READ_BYTES = 1 << 29, PROBES = 5 };

typedef struct yardsticks {
    BENCH_READ(*read);
    BENCH_FMA(*fma);
} yardsticks;

/* Those of the best instruction set of the mask. */
static yardsticks yardsticks_for(unsigned mask)
{
    yardsticks y = {NULL, NULL};
#ifdef GEMMA4_TWIN_neon
    y = (yardsticks){bench_read_neon, bench_fma_neon};
#endif
#ifdef GEMMA4_TWIN_avx2
    y = (yardsticks){bench_read_avx2, bench_fma_avx2};
#endif
#ifdef GEMMA4_TWIN_avx512
    if (mask & GEMMA4_CPU_AVX512)
        y = (yardsticks){bench_read_avx512, bench_fma_avx512};
#endif
    (void)mask;
    return y;
}

/* One probe of each, all threads at once, each on a part of its own. */
static double probe_read(const yardsticks *y, const char *memory, int threads, bool ask_early)
{
    size_t part = READ_BYTES / (size_t)threads / 65536 * 65536;
    volatile float sink = 0;
    double start = now();
#pragma omp parallel for schedule(static, 1)
    for (int i = 0; i < threads; i++)
        sink = y->read(memory + (size_t)i * part, part, ask_early);
    (void)sink;
    return (double)(part * (size_t)threads) / (now() - start);
}

static double probe_fma(const yardsticks *y, int threads)
{
    double operations = 0, start = now();
#pragma omp parallel for schedule(static, 1) reduction(+ : operations)
    for (int i = 0; i < threads; i++) {
        volatile float sink;
        float result;
        operations += y->fma(10000000, &result);
        sink = result;
        (void)sink;
    }
    return operations / (now() - start);
}

static machine measure_machine(const char *memory, unsigned mask, int threads)
{
    const yardsticks y = yardsticks_for(mask);
    double read[PROBES], fma[PROBES];
    for (size_t i = 0; i < PROBES; i++) {
        read[i] =
            fmax(probe_read(&y, memory, threads, false), probe_read(&y, memory, threads, true));
        fma[i] = probe_fma(&y, threads);
    }
    return (machine){median(read, PROBES), median(fma, PROBES)};
}

/* ----------------------------------------------------------------- memory */

/* Reads a file into the system's cache anew and in order, as large pages where system and file
 * system can (spec/twins.md, "Memory"): what is in the cache already stays as it is, and what is
 * read here and there comes in part as small ones. A failure costs speed only, which the bench then
 * shows. */
static void cache_in_large_pages(const char *path)
{
    struct stat status;
    int fd = open(path, O_RDONLY);
    if (fd >= 0 && !fstat(fd, &status) && !posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)) {
        size_t size = (size_t)status.st_size;
        volatile const char *map = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map != MAP_FAILED) {
            (void)madvise((void *)map, size, MADV_HUGEPAGE);
            for (size_t i = 0; i < size; i += 4096)
                (void)map[i];
            munmap((void *)map, size);
        }
    }
    if (fd >= 0)
        close(fd);
}

static int cache_checkpoint(const char *directory, gemma4_error *error)
{
    const char *last = "";
    gemma4_safetensors *files = gemma4_safetensors_open_checkpoint(directory, error);
    size_t count = files ? gemma4_safetensors_count(files) : 0;
    char **paths = calloc(count + 1, sizeof *paths);
    for (size_t i = 0, n = 0; i < count && paths; i++) {
        const char *file = gemma4_safetensors_at(files, i)->file;
        if (strcmp(file, last))
            paths[n++] = strdup(file);
        last = file;
    }
    gemma4_safetensors_close(files); /* pages that are mapped would stay */
    for (size_t n = 0; n < count && paths && paths[n]; n++) {
        cache_in_large_pages(paths[n]);
        free(paths[n]);
    }
    free(paths);
    return files ? 0 : -1;
}

/* Which part of the mapped files that this process has touched lies in large pages; negative where
 * the system does not tell. */
static double part_in_large_pages(void)
{
    char text[128];
    unsigned long kilobytes;
    double all = 0, anonymous = 0, large = -1;
    FILE *f = fopen("/proc/self/smaps_rollup", "r");
    while (f && fgets(text, sizeof text, f)) {
        if (sscanf(text, "Rss: %lu kB", &kilobytes) == 1)
            all = (double)kilobytes;
        if (sscanf(text, "Anonymous: %lu kB", &kilobytes) == 1)
            anonymous = (double)kilobytes;
        if (sscanf(text, "FilePmdMapped: %lu kB", &kilobytes) == 1)
            large = (double)kilobytes;
    }
    if (f)
        fclose(f);
    return all > anonymous ? large / (all - anonymous) : -1;
}

/* -------------------------------------------------------------- operators */

/* One operator at one shape, over all its calls of a run. */
typedef struct line {
    char name[64];
    double seconds, operations, bytes;
    bool product; /* a matrix product */
} line;

enum { LINES = 64, SAMPLES = 48 };

static struct {
    gemma4_ops ops; /* what is timed */
    line lines[LINES];
    size_t count;
    line scalar[LINES]; /* what the scalar operators took, for a few positions */
    size_t scalar_count;
    bool check;
    char wrong[160]; /* the first result that is */
} bench;

static line *find_line(const char *name)
{
    for (size_t i = 0; i < bench.count; i++)
        if (!strcmp(bench.lines[i].name, name))
            return &bench.lines[i];
    if (bench.count == LINES)
        return &bench.lines[LINES - 1];
    line *l = &bench.lines[bench.count++];
    memset(l, 0, sizeof *l);
    snprintf(l->name, sizeof l->name, "%s", name);
    return l;
}

static void add_line(const char *name, double seconds, double operations, double bytes,
                     bool product)
{
    line *l = find_line(name);
    l->seconds += seconds;
    l->operations += operations;
    l->bytes += bytes;
    l->product = product;
}

static size_t sample(size_t i, size_t n)
{
    return (i * 2654435761u + 12345u) % n;
}

/* expected was summed in double, size is the sum of the products' absolute values: spec/twins.md
 * derives n * 2^-24 of it; sums of that length stay far below. */
static void check_sample(const char *name, double found, double expected, double size, size_t terms)
{
    double limit = ((double)terms * size + fabs(expected)) * 0x1p-24;
    if (!bench.wrong[0] && !(fabs(found - expected) <= limit))
        snprintf(bench.wrong, sizeof bench.wrong, "%s: expected %.9g within %.1e, found %.9g", name,
                 expected, limit, found);
}

static double dot_and_size(const float *x, const gemma4_weight *w, size_t row, double *size)
{
    double sum = 0;
    *size = 0;
    for (size_t k = 0; k < w->cols; k++) {
        double product = (double)x[k] * (double)gemma4_weight_at(w, row * w->cols + k);
        sum += product;
        *size += fabs(product);
    }
    return sum;
}

static GEMMA4_MATMUL(timed_matmul)
{
    char name[64];
    snprintf(name, sizeof name, "matmul %zux%zu", w->rows, w->cols);
    double start = now();
    bench.ops.matmul(y, x, w, T, scratch);
    add_line(name, now() - start, 2.0 * (double)(T * w->rows) * (double)w->cols,
             (double)(w->rows * w->cols) * (double)gemma4_weight_size(w->dtype), true);
    for (size_t i = 0; i < SAMPLES && bench.check; i++) {
        size_t t = sample(i, T), row = i == 0 ? w->rows - 1 : sample(7 * i, w->rows);
        double size, expected = dot_and_size(x + t * w->cols, w, row, &size);
        check_sample(name, (double)y[t * w->rows + row], expected, size, w->cols);
    }
}

static double distinct_experts(const int32_t *ids, size_t slots)
{
    size_t distinct = 0;
    for (size_t s = 0; s < slots; s++) {
        size_t earlier = 0;
        while (ids[earlier] != ids[s])
            earlier++;
        distinct += earlier == s;
    }
    return (double)distinct;
}

static GEMMA4_EXPERTS_ACT(timed_experts_act)
{
    size_t d = gate_up_proj->cols;
    double start = now();
    bench.ops.experts_act(act, x, gate_up_proj, ids, T, K, M, scratch);
    add_line("experts act", now() - start, 4.0 * (double)(T * K * M) * (double)d,
             distinct_experts(ids, T * K) * 2 * (double)(M * d) *
                 (double)gemma4_weight_size(gate_up_proj->dtype),
             true);
    for (size_t i = 0; i < SAMPLES && bench.check; i++) {
        size_t slot = sample(i, T * K), m = i == 0 ? M - 1 : sample(7 * i, M),
               row = (size_t)ids[slot] * 2 * M + m;
        double gate_size, up_size;
        double gate = dot_and_size(x + slot / K * d, gate_up_proj, row, &gate_size);
        double up = dot_and_size(x + slot / K * d, gate_up_proj, row + M, &up_size);
        double gelu = gemma4_gelu_tanh(gate); /* its slope is at most 1.13 */
        check_sample("experts act", (double)act[slot * M + m], gelu * up,
                     fabs(gelu) * up_size + 1.13 * gate_size * fabs(up), d + 30);
    }
}

static GEMMA4_EXPERTS_OUT(timed_experts_out)
{
    size_t M = down_proj->cols;
    double start = now();
    bench.ops.experts_out(y, act, down_proj, ids, weights, T, K, d, scratch);
    add_line("experts out", now() - start, 2.0 * (double)(T * K * M) * (double)d,
             distinct_experts(ids, T * K) * (double)(M * d) *
                 (double)gemma4_weight_size(down_proj->dtype),
             true);
    for (size_t i = 0; i < SAMPLES && bench.check; i++) {
        size_t t = sample(i, T), j = i == 0 ? d - 1 : sample(7 * i, d);
        double expected = 0, size = 0;
        for (size_t r = 0; r < K; r++) {
            double part, weight = (double)weights[t * K + r];
            expected += weight * dot_and_size(act + (t * K + r) * M, down_proj,
                                              (size_t)ids[t * K + r] * d + j, &part);
            size += fabs(weight) * part;
        }
        check_sample("experts out", (double)y[t * d + j], expected, size, M + K);
    }
}

static GEMMA4_ATTENTION(timed_attention)
{
    const char *name = keys->window == SIZE_MAX ? "attention, full" : "attention, sliding";
    double visible = 0, longest = 0, start = now();
    bench.ops.attention(context, q, keys, T, H);
    double seconds = now() - start;
    for (size_t t = 0; t < T; t++) {
        gemma4_visible seen = gemma4_visible_through(keys->window, keys->past + t);
        visible += (double)(seen.end - seen.first);
        longest = fmax(longest, (double)(seen.end - seen.first));
    }
    add_line(name, seconds, 4 * visible * (double)(H * keys->D),
             8 * longest * (double)(keys->G * keys->D), false);
}

#define TIMED(name, call)                           \
    do {                                            \
        double start = now();                       \
        bench.ops.call;                             \
        add_line(name, now() - start, 0, 0, false); \
    } while (0)

static GEMMA4_RMSNORM(timed_rmsnorm)
{
    TIMED("rmsnorm", rmsnorm(y, x, w, T, n, eps));
}

static GEMMA4_ROPE(timed_rope)
{
    TIMED("rope", rope(x, T, heads, D, pairs, theta, first_position));
}

static GEMMA4_GEGLU(timed_geglu)
{
    TIMED("geglu", geglu(y, gate, up, n));
}

static GEMMA4_SOFTCAP(timed_softcap)
{
    TIMED("softcap", softcap(x, n, cap));
}

static gemma4_ops timed(void)
{
    return (gemma4_ops){
        "timed",           bench.ops.scratch, timed_matmul,
        timed_rmsnorm,     timed_rope,        timed_geglu,
        timed_experts_act, timed_experts_out, timed_softcap,
        bench.ops.scores,  bench.ops.context, bench.ops.attention ? timed_attention : NULL};
}

/* ------------------------------------------------------------------- runs */

typedef struct options {
    const char *model_dir, *cpu, *threads, *prefill, *decode, *repeat, *reread, *csv, *json;
} options;

typedef struct context {
    gemma4_model *model;
    char *memory; /* READ_BYTES */
    unsigned mask;
    size_t repeat, decode;
    FILE *csv, *json;
    size_t rows; /* written to json */
} context;

/* One measured run: prefill of T tokens, or the decoding of `decode` tokens after a prompt of T, a
 * token at a time. */
typedef struct run {
    const char *kind; /* "prefill", "decode" */
    size_t T;
    int threads;
    double seconds; /* the median: of a prefill, of a token */
} run;

static int32_t token_at(size_t i, size_t V)
{
    return (int32_t)(sample(i + 1, V));
}

/* Seconds of the run, or of the median token. The logits of the last position go to last [V],
 * unless that is NULL. */
static int run_once(const context *c, const run *r, size_t seed, double *seconds, float *last,
                    gemma4_error *error)
{
    size_t V = c->model->config.vocab_size, decode = strcmp(r->kind, "decode") ? 0 : c->decode;
    int status = -1;
    int32_t *tokens = malloc(r->T * sizeof *tokens);
    float *logits = malloc(V * sizeof *logits);
    double *times = malloc((decode + 1) * sizeof *times);
    gemma4_session *s = gemma4_session_new(c->model, 0, r->T + decode, error);
    gemma4_ops ops = timed();
    if (tokens && logits && times && s) {
        gemma4_session_set_ops(s, &ops);
        for (size_t t = 0; t < r->T; t++)
            tokens[t] = token_at(seed * 1000 + t, V);
        double start = now();
        status = gemma4_forward(s, tokens, r->T, 1, logits, error);
        times[0] = now() - start;
        if (decode)
            bench.count = 0;
        for (size_t i = 0; i < decode && !status; i++) {
            int32_t token = token_at(seed * 1000 + 500 + i, V);
            start = now();
            status = gemma4_forward(s, &token, 1, 1, logits, error);
            times[i] = now() - start;
        }
        *seconds = median(times, decode ? decode : 1);
        if (last)
            memcpy(last, logits, V * sizeof *logits);
    } else if (s) {
        gemma4_fail(error, "bench: out of memory");
    }
    gemma4_session_free(s);
    free(tokens);
    free(logits);
    free(times);
    return status;
}

/* How many times as many operations a second as the scalar operator's; 0 where that is not
 * known. */
static double times_scalar(const char *name, double seconds, double operations)
{
    for (size_t i = 0; i < bench.scalar_count; i++) {
        const line *l = &bench.scalar[i];
        if (!strcmp(l->name, name) && l->operations > 0 && seconds > 0)
            return operations / seconds / (l->operations / l->seconds);
    }
    return 0;
}

static void write_row(context *c, const run *r, const char *name, double seconds, double operations,
                      double bytes, const machine *m)
{
    double gflops = seconds > 0 ? operations / seconds * 1e-9 : 0,
           gbs = seconds > 0 ? bytes / seconds * 1e-9 : 0;
    double ratio = times_scalar(name, seconds, operations);
    printf("  %-22s %10.3f ms", name, seconds * 1e3);
    if (operations > 0)
        printf(" %7.1f GFLOP/s = %5.1f %% of FMA peak %6.1f GB/s = %5.1f %% of read", gflops,
               100e9 * gflops / m->fma, gbs, 100e9 * gbs / m->read);
    if (ratio > 0)
        printf(" %6.1f x scalar", ratio);
    printf("\n");
    if (c->csv)
        fprintf(c->csv, "%s,%zu,%d,\"%s\",%.9f,%.0f,%.0f,%.4g,%.4g,%.4g\n", r->kind, r->T,
                r->threads, name, seconds, operations, bytes, m->fma * 1e-9, m->read * 1e-9, ratio);
    if (c->json)
        fprintf(c->json,
                "%s\n  {\"run\": \"%s\", \"positions\": %zu, \"threads\": %d, \"what\": \"%s\", "
                "\"seconds\": %.9f, \"flop\": %.0f, "
                "\"bytes\": %.0f, \"fma_peak_gflops\": %.4g, \"read_gbs\": %.4g, \"times_scalar\": "
                "%.4g}",
                c->rows++ ? "," : "", r->kind, r->T, r->threads, name, seconds, operations, bytes,
                m->fma * 1e-9, m->read * 1e-9, ratio);
}

/* The operators of the last run, their sum over matrix products, and the whole. */
static void write_rows(context *c, const run *r, const machine *m, double last)
{
    /* lines are sums over so many passes */
    double tokens = strcmp(r->kind, "decode") ? 1 : (double)c->decode;
    double positions = strcmp(r->kind, "decode") ? (double)r->T : 1;
    line products = {.name = "all matrix products"}, all = {0};
    printf("%s %zu, %d thread%s: %.1f tokens/s   (machine: read %.1f GB/s, FMA %.1f GFLOP/s)\n",
           r->kind, r->T, r->threads, r->threads > 1 ? "s" : "", positions / r->seconds,
           m->read * 1e-9, m->fma * 1e-9);
    for (size_t i = 0; i < bench.count; i++) {
        const line *l = &bench.lines[i];
        write_row(c, r, l->name, l->seconds / tokens, l->operations / tokens, l->bytes / tokens, m);
        all.seconds += l->seconds / tokens;
        all.operations += l->operations / tokens;
        all.bytes += l->bytes / tokens;
        if (l->product) {
            products.seconds += l->seconds / tokens;
            products.operations += l->operations / tokens;
            products.bytes += l->bytes / tokens;
        }
    }
    write_row(c, r, products.name, products.seconds, products.operations, products.bytes, m);
    write_row(c, r, "outside the operators", last > all.seconds ? last - all.seconds : 0, 0, 0, m);
    write_row(c, r, "whole pass, median", r->seconds, all.operations, all.bytes, m);
}

static int bench_run(context *c, run r, gemma4_error *error)
{
    double seconds, *times = malloc(c->repeat * sizeof *times);
    set_threads(r.threads);
    bench.check = true;
    bench.count = 0;
    int status = times ? run_once(c, &r, 0, &seconds, NULL, error)
                       : gemma4_fail(error, "bench: out of memory");
    bench.check = false;
    if (!status && bench.wrong[0]) {
        free(times);
        gemma4_fail(error, "wrong result, no numbers: %s", bench.wrong);
        return 1;
    }
    machine before = measure_machine(c->memory, c->mask, r.threads);
    for (size_t i = 0; i < c->repeat && !status; i++) {
        bench.count = 0;
        status = run_once(c, &r, 1 + i, &times[i], NULL, error);
    }
    machine after = measure_machine(c->memory, c->mask, r.threads);
    if (!status) {
        double last = times[c->repeat - 1];
        machine m = {(before.read + after.read) / 2, (before.fma + after.fma) / 2};
        r.seconds = median(times, c->repeat);
        write_rows(c, &r, &m, last);
    }
    free(times);
    return status;
}

/* The scalar operators on a few positions, for they are slow; then the twin on the same, whose
 * logits must be near: all operators together. Returns 1 where they are not. */
static int bench_scalar(const context *c, gemma4_error *error)
{
    const run few = {"prefill", 8, 1, 0};
    size_t V = c->model->config.vocab_size;
    double seconds = 0, twin_seconds, difference = 0, size = 0;
    float *expected = malloc(V * sizeof *expected), *found = malloc(V * sizeof *found);
    int status = expected && found ? 0 : gemma4_fail(error, "bench: out of memory");
    bench.ops = gemma4_ops_for(GEMMA4_CPU_SCALAR);
    if (!status)
        status = run_once(c, &few, 0, &seconds, expected, error);
    memcpy(bench.scalar, bench.lines, sizeof bench.lines);
    bench.scalar_count = bench.count;
    bench.ops = gemma4_ops_for(c->mask);
    if (!status)
        status = run_once(c, &few, 0, &twin_seconds, found, error);
    for (size_t i = 0; i < V && !status; i++) {
        difference +=
            ((double)found[i] - (double)expected[i]) * ((double)found[i] - (double)expected[i]);
        size += (double)expected[i] * (double)expected[i];
    }
    free(expected);
    free(found);
    if (!status && !(difference <= 2e-5 * 2e-5 * size)) { /* the float32 tolerance of
                                                             spec/numerics.md */
        gemma4_fail(
            error,
            "wrong result, no numbers: logits differ from the scalar's by a relative RMS of %.1e",
            sqrt(difference / size));
        return 1;
    }
    if (!status)
        printf("scalar, %zu positions: %.2f tokens/s\n", few.T, (double)few.T / seconds);
    return status;
}

static int parse_size(const char *text, const char *what, size_t standard, size_t *value,
                      gemma4_error *error)
{
    int64_t n;
    *value = standard;
    if (!text)
        return 0;
    if (gemma4_parse_int(text, what, 1, 100000, &n, error))
        return -1;
    *value = (size_t)n;
    return 0;
}

static int bench_all(context *c, const options *o, gemma4_error *error)
{
    int32_t *threads = NULL, *prefill = NULL;
    size_t threads_count, prefill_count;
    int status = -1;
    if (!gemma4_parse_ints(o->threads ? o->threads : "1,2", "--threads", 1, 256, &threads,
                           &threads_count, error) &&
        !gemma4_parse_ints(o->prefill ? o->prefill : "32,128,512", "--prefill", 1, 100000, &prefill,
                           &prefill_count, error)) {
        status = 0;
        for (size_t i = 0; i < threads_count && !status; i++) {
            status = bench_run(c, (run){"decode", 32, threads[i], 0}, error);
            for (size_t j = 0; j < prefill_count && !status; j++)
                status = bench_run(c, (run){"prefill", (size_t)prefill[j], threads[i], 0}, error);
        }
    }
    free(threads);
    free(prefill);
    return status;
}

/* Opens what the options name and runs. */
static int bench_with(context *c, const options *o, gemma4_error *error)
{
    if (!o->model_dir)
        return gemma4_fail(error, "command line: option '--model' is required");
    if (gemma4_cpu_parse(o->cpu ? o->cpu : "auto", "--cpu", &c->mask, error) ||
        parse_size(o->repeat, "--repeat", 5, &c->repeat, error) ||
        parse_size(o->decode, "--decode", 32, &c->decode, error))
        return -1;
    if (c->mask == GEMMA4_CPU_SCALAR && gemma4_cpu_detect() == GEMMA4_CPU_SCALAR)
        return gemma4_fail(error, "--cpu: this machine has no twin to measure");
    gemma4_keep_memory();
    if (o->reread && strcmp(o->reread, "yes") && strcmp(o->reread, "no"))
        return gemma4_fail(error, "--reread: expected yes or no, found '%.40s'", o->reread);
    if ((!o->reread || !strcmp(o->reread, "yes")) && cache_checkpoint(o->model_dir, error))
        return -1;
    c->model = gemma4_model_open(o->model_dir, error);
    if (c->model && gemma4_model_is_quantised(c->model))
        return gemma4_fail(error,
                           "%s: expected plain weights, found quantised ones (gemma4-ref "
                           "dequantise writes plain ones)",
                           o->model_dir);
    c->memory = c->model ? aligned_alloc(1 << 21, READ_BYTES) : NULL;
    if (!c->memory)
        return c->model ? gemma4_fail(error, "bench: out of memory") : -1;
    (void)madvise(c->memory, READ_BYTES, MADV_HUGEPAGE); /* so that the yardstick has what the
                                                            weights have, or better */
    memset(c->memory, 0, READ_BYTES);
    if (o->csv && !(c->csv = fopen(o->csv, "w")))
        return gemma4_fail(error, "%s: cannot be written", o->csv);
    if (o->json && !(c->json = fopen(o->json, "w")))
        return gemma4_fail(error, "%s: cannot be written", o->json);
    if (c->csv)
        fprintf(c->csv, "run,positions,threads,what,seconds,flop,bytes,fma_peak_gflops,read_gbs,"
                        "times_scalar\n");
    if (c->json)
        fprintf(c->json, "[");
    int status = bench_scalar(c, error);
    if (!status)
        status = bench_all(c, o, error);
    double large = part_in_large_pages();
    if (!status && large >= 0)
        printf("%.0f %% of the weights in large pages\n", 100 * large);
    if (c->json)
        fprintf(c->json, "\n]\n");
    return status;
}

int main(int argc, char **argv)
{
    gemma4_error error;
    options o = {0};
    context c = {0};
    const gemma4_option table[] = {{"--model", &o.model_dir}, {"--cpu", &o.cpu},
                                   {"--threads", &o.threads}, {"--prefill", &o.prefill},
                                   {"--decode", &o.decode},   {"--repeat", &o.repeat},
                                   {"--reread", &o.reread},   {"--csv", &o.csv},
                                   {"--json", &o.json},       {NULL, NULL}};
    size_t words;
    if (argc == 2 && !strcmp(argv[1], "--help"))
        return fputs(usage, stdout) < 0 ? 2 : 0;
    int status = gemma4_options_parse(argc - 1, argv + 1, table, NULL, 0, &words, &error);
    if (!status)
        status = bench_with(&c, &o, &error);
    if (status)
        fprintf(stderr, "gemma4-bench: %s\n", error.message);
    gemma4_model_close(c.model);
    free(c.memory);
    if (c.csv)
        fclose(c.csv);
    if (c.json)
        fclose(c.json);
    return status < 0 ? 2 : status;
}
