/* gemma4-ref: run the reference on a checkpoint, dump its activations, show tensors, print facts,
 * write synthetic checkpoints. */
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "activations.h"
#include "dequantise.h"
#include "facts.h"
#include "forward.h"
#include "guard.h"
#include "isolate.h"
#include "logprobs.h"
#include "ops.h"
#include "options.h"
#include "output.h"
#include "show.h"
#include "stream.h"
#include "synth.h"
#include "version.h"

static const char usage[] =
    "usage: gemma4-ref run   --model DIR --tokens 2,17,... [--decode N] [--schedule 32,1,1,...] "
    "[--first-position P]\n"
    "                        [--cpu scalar|avx2|avx512|neon|auto] [--stream auto|yes|no]\n"
    "       gemma4-ref dump  --model DIR --tokens 2,17,... --out FILE.h5 [--taps all|GLOB] "
    "[--schedule 32,1,1,...]\n"
    "                        [--first-position P] [--dtype float32|float64|float16|bfloat16] "
    "[--logprobs N] [--cpu ...]\n"
    "       gemma4-ref facts [--model DIR]\n"
    "       gemma4-ref show  CASE|FILE [TAP] [--position P] [--head H] [--json FILE]\n"
    "       gemma4-ref synth --preset "
    "tiny|moe128|wide256|uneven96|deep128|heads512|window1024|26b-a4b --seed S --out DIR\n"
    "                        [--layers N] [--vocab N] [--shards N] [--vision yes|no]\n"
    "       gemma4-ref dequantise IN.gguf OUT\n"
    "       gemma4-ref --version\n"
    "\n"
    "run     prints the best next tokens, or with --decode N the N tokens that greedy decoding "
    "appends\n"
    "dump    writes every tensor of the forward pass (spec/taps.md); --dtype is the type they are "
    "stored in; --logprobs adds the\n"
    "        N best tokens of each position with their log-probabilities (--taps 'logprobs.*': "
    "these only)\n"
    "facts   dimensions, parameters, KV cache, context; without --model those of the published "
    "26B-A4B\n"
    "show    a tensor of a case's golden, or of a dump: shape, type, statistics, values (all of "
    "them where a position or head is\n"
    "        named; positions count from the first token); without TAP the tensors that are there; "
    "--json writes all values\n"
    "        there and prints nothing (/dev/stdout: for another program)\n"
    "synth   writes a synthetic checkpoint in the published layout (spec/synth.md)\n"
    "dequantise writes what a GGUF file holds in the published layout into the folder OUT, "
    "quantised weights as float32\n"
    "--model a folder in the published layout, or a GGUF file (spec/gguf.md)\n"
    "--cpu   which operators (spec/twins.md): scalar is the reference and the default, auto the "
    "fastest twin of this machine; where the\n"
    "        option is absent, the environment variable GEMMA4_CPU says it. OMP_NUM_THREADS sets a "
    "twin's threads\n"
    "--stream  reads a checkpoint that is larger than the memory layer by layer, and prints time "
    "and memory; auto: where it is\n"
    "Exit status: 0 done, 2 anything else, with one line on stderr that says what and where.\n";

/* What run and dump share: a model, tokens, and how to feed them. */
typedef struct job {
    const char *model_dir, *tokens_text, *schedule_text, *first_position_text, *cpu;
    gemma4_model *model;
    int32_t *tokens, *schedule;
    size_t token_count, chunk_count;
    int64_t first_position;
    gemma4_session *session;
    gemma4_ops ops;
    gemma4_stream weights; /* read ahead, where they are streamed */
} job;

static void job_free(job *j)
{
    gemma4_stream_end(&j->weights);
    gemma4_session_free(j->session);
    gemma4_model_close(j->model);
    free(j->tokens);
    free(j->schedule);
}

/* extra is how many positions the session needs beyond the tokens. */
static int job_open(job *j, size_t extra, gemma4_error *error)
{
    if (!j->model_dir || !j->tokens_text)
        return gemma4_fail(error, "command line: option '%s' is required",
                           j->model_dir ? "--tokens" : "--model");
    const char *cpu = j->cpu ? j->cpu : getenv("GEMMA4_CPU");
    unsigned mask = GEMMA4_CPU_SCALAR;
    if (cpu && gemma4_cpu_parse(cpu, j->cpu ? "--cpu" : "GEMMA4_CPU", &mask, error))
        return -1;
    if (mask != GEMMA4_CPU_SCALAR)
        gemma4_keep_memory();
    j->model = gemma4_model_open(j->model_dir, error);
    if (!j->model)
        return -1;
    if (mask != GEMMA4_CPU_SCALAR && gemma4_model_is_quantised(j->model))
        return gemma4_fail(error,
                           "%s: expected scalar for a model with quantised matrices (gemma4-ref "
                           "dequantise writes plain ones), found '%s'",
                           j->cpu ? "--cpu" : "GEMMA4_CPU", cpu);
    const gemma4_config *c = &j->model->config;
    if (gemma4_parse_ints(j->tokens_text, "--tokens", 0, (int64_t)c->vocab_size - 1, &j->tokens,
                          &j->token_count, error))
        return -1;
    if (j->first_position_text &&
        gemma4_parse_int(j->first_position_text, "--first-position", 0,
                         (int64_t)c->max_position_embeddings - 1, &j->first_position, error))
        return -1;
    if (j->schedule_text) {
        size_t sum = 0;
        if (gemma4_parse_ints(j->schedule_text, "--schedule", 1,
                              (int64_t)c->max_position_embeddings, &j->schedule, &j->chunk_count,
                              error))
            return -1;
        for (size_t i = 0; i < j->chunk_count; i++)
            sum += (size_t)j->schedule[i];
        if (sum != j->token_count)
            return gemma4_fail(error,
                               "--schedule: expected chunks that add up to %zu tokens, found %zu",
                               j->token_count, sum);
    }
    j->session =
        gemma4_session_new(j->model, (size_t)j->first_position, j->token_count + extra, error);
    if (!j->session)
        return -1;
    j->ops = gemma4_ops_for(mask);
    gemma4_session_set_ops(j->session, &j->ops);
    return 0;
}

/* Feeds the tokens by the schedule. Logits of every position go to the hook where all_logits, else
 * the last position's to logits [V]. */
static int job_prefill(job *j, int all_logits, gemma4_real *logits, gemma4_error *error)
{
    int32_t whole = (int32_t)j->token_count;
    const int32_t *chunks = j->schedule ? j->schedule : &whole;
    size_t count = j->schedule ? j->chunk_count : 1, first = 0;
    for (size_t i = 0; i < count; i++) {
        size_t n = (size_t)chunks[i];
        size_t rows = all_logits ? n : (i + 1 == count);
        if (gemma4_forward(j->session, j->tokens + first, n, rows, all_logits ? NULL : logits,
                           error))
            return -1;
        first += n;
    }
    return 0;
}

static size_t argmax(const gemma4_real *values, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (values[i] > values[best])
            best = i;
    return best;
}

static void print_best(gemma4_real *logits, size_t n)
{
    printf("next token  logit\n");
    for (size_t rank = 0; rank < 5 && rank < n; rank++) {
        size_t best = argmax(logits, n);
        printf("%10zu  %9.5f\n", best, (double)logits[best]);
        logits[best] = -1e30f;
    }
}

static int decode(job *j, int64_t count, gemma4_real *logits, gemma4_error *error)
{
    for (int64_t i = 0; i < count; i++) {
        int32_t token = (int32_t)argmax(logits, j->model->config.vocab_size);
        printf("%s%d", i ? "," : "", token);
        fflush(stdout);
        if (i + 1 < count && gemma4_forward(j->session, &token, 1, 1, logits, error))
            return -1;
    }
    printf("\n");
    return 0;
}

static double seconds_since(const struct timespec *start)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) + 1e-9 * (double)(now.tv_nsec - start->tv_nsec);
}

/* Streams where the option or, with auto, the checkpoint's size says so; *streaming says
 * whether. */
static int choose_stream(job *j, const char *text, bool *streaming, gemma4_error *error)
{
    bool automatic = !text || !strcmp(text, "auto");
    if (!automatic && strcmp(text, "yes") && strcmp(text, "no"))
        return gemma4_fail(error, "--stream: expected auto, yes or no, found '%.40s'", text);
    *streaming = automatic ? gemma4_stream_needed(j->model) : !strcmp(text, "yes");
    if (*streaming) {
        j->weights.model = j->model;
        gemma4_session_set_hook(j->session, gemma4_stream_tap, &j->weights);
        gemma4_session_show_probs(j->session, false);
    }
    return 0;
}

static void print_stream(size_t prefilled, double prefill, int64_t decoded, double whole)
{
    gemma4_memory used = gemma4_memory_used();
    printf("prefill of %zu tokens: %.2f s (%.2f tokens/s)\n", prefilled, prefill,
           (double)prefilled / prefill);
    if (decoded > 1)
        printf("decode: %.2f s a token\n", (whole - prefill) / (double)(decoded - 1));
    printf("peak resident memory: %.0f MiB, mapped pages of the checkpoint included; not backed by "
           "it: %.0f MiB\n",
           used.peak / 0x1p20, used.anonymous / 0x1p20);
}

static int command_run(int argc, char **argv, gemma4_error *error)
{
    job j = {0};
    const char *decode_text = NULL, *stream_text = NULL;
    bool streaming = false;
    double prefill = 0;
    struct timespec start;
    const gemma4_option options[] = {{"--model", &j.model_dir},
                                     {"--tokens", &j.tokens_text},
                                     {"--schedule", &j.schedule_text},
                                     {"--first-position", &j.first_position_text},
                                     {"--cpu", &j.cpu},
                                     {"--decode", &decode_text},
                                     {"--stream", &stream_text},
                                     {NULL, NULL}};
    size_t words;
    int64_t decode_count = 0;
    gemma4_real *logits = NULL;
    int status = gemma4_options_parse(argc, argv, options, NULL, 0, &words, error);
    if (!status && decode_text)
        status = gemma4_parse_int(decode_text, "--decode", 1, 262144, &decode_count, error);
    if (!status)
        status = job_open(&j, (size_t)decode_count, error);
    if (!status && !(logits = malloc(j.model->config.vocab_size * sizeof *logits)))
        status = gemma4_fail(error, "logits: out of memory");
    if (!status)
        status = choose_stream(&j, stream_text, &streaming, error);
    clock_gettime(CLOCK_MONOTONIC, &start);
    if (!status)
        status = job_prefill(&j, 0, logits, error);
    prefill = seconds_since(&start);
    if (!status && decode_count)
        status = decode(&j, decode_count, logits, error);
    else if (!status)
        print_best(logits, j.model->config.vocab_size);
    if (!status && streaming)
        print_stream(j.token_count, prefill, decode_count, seconds_since(&start));
    free(logits);
    job_free(&j);
    return status;
}

typedef struct dump {
    gemma4_activations_writer *writer;
    const char *glob; /* NULL: all */
    size_t logprobs;  /* how many log-probabilities of each position; 0: none */
    size_t written;
} dump;

static bool wants(const dump *d, gemma4_tap tap, size_t layer)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    return !d->glob || !fnmatch(d->glob, gemma4_tap_name(tap, layer, name), 0);
}

static int write_wanted(dump *d, const gemma4_tap_event *event, gemma4_error *error)
{
    if (!wants(d, event->tap, event->layer))
        return 0;
    d->written++;
    return gemma4_activations_write(d->writer, event, error);
}

/* The best tokens of these rows of logits, and their log-probabilities. */
static int dump_logprobs(dump *d, const gemma4_tap_event *logits, gemma4_error *error)
{
    size_t N = d->logprobs, V = logits->dims[0];
    gemma4_tap_event ids = *logits, values;
    ids.tap = GEMMA4_TAP_LOGPROBS_IDS;
    ids.dims[0] = N;
    values = ids;
    values.tap = GEMMA4_TAP_LOGPROBS;
    values.ids = NULL;
    values.values = malloc(logits->rows * N * sizeof *values.values);
    ids.values = NULL;
    ids.ids = malloc(logits->rows * N * sizeof *ids.ids);
    int status =
        values.values && ids.ids ? 0 : gemma4_fail(error, "log-probabilities: out of memory");
    for (size_t row = 0; row < logits->rows && !status; row++)
        gemma4_best_logprobs(logits->values + row * V, V, N, ids.ids + row * N,
                             values.values + row * N);
    status = status || write_wanted(d, &ids, error) || write_wanted(d, &values, error) ? -1 : 0;
    free(values.values);
    free(ids.ids);
    return status;
}

static int dump_tap(void *context, gemma4_tap_event *event, gemma4_error *error)
{
    dump *d = context;
    if (write_wanted(d, event, error))
        return -1;
    return d->logprobs && event->tap == GEMMA4_TAP_LOGITS ? dump_logprobs(d, event, error) : 0;
}

/* A dump without scores and probabilities lets a twin's attention run. */
static bool wants_probs(const dump *d, const gemma4_config *c)
{
    bool wanted = false;
    for (size_t l = 0; l < c->num_hidden_layers && !wanted; l++)
        wanted = wants(d, GEMMA4_TAP_ATTN_SCORES, l) || wants(d, GEMMA4_TAP_ATTN_PROBS, l);
    return wanted;
}

/* Says where the activations come from; the dtype is that of the arithmetic, not of the storage. */
static int describe_dump(dump *d, const job *j, gemma4_error *error)
{
    const char *dtype = sizeof(gemma4_real) == 8 ? "float64" : "float32";
    if (gemma4_activations_set_attribute(d->writer, "engine", "gemma4-ref", error) ||
        gemma4_activations_set_attribute(d->writer, "engine_version", gemma4_version(), error) ||
        gemma4_activations_set_attribute(d->writer, "dtype", dtype, error))
        return -1;
    if (strcmp(j->ops.name, "scalar") &&
        gemma4_activations_set_attribute(d->writer, "cpu", j->ops.name, error))
        return -1;
    if (j->schedule_text)
        return gemma4_activations_set_attribute(d->writer, "schedule", j->schedule_text, error);
    char whole[24];
    snprintf(whole, sizeof whole, "%zu", j->token_count);
    return gemma4_activations_set_attribute(d->writer, "schedule", whole, error);
}

/* What is dumped, as the command line says. */
typedef struct dump_order {
    job j;
    dump d;
    const char *out, *dtype, *logprobs;
} dump_order;

static int write_dump(void *context, gemma4_error *error)
{
    dump_order *o = context;
    int64_t listed = 0;
    int status = job_open(&o->j, 0, error);
    if (!status && o->logprobs)
        status = gemma4_parse_int(o->logprobs, "--logprobs", 1,
                                  (int64_t)o->j.model->config.vocab_size, &listed, error);
    o->d.logprobs = (size_t)listed;
    if (!status) {
        const char *store = o->dtype ? o->dtype : sizeof(gemma4_real) == 8 ? "float64" : "float32";
        o->d.writer =
            gemma4_activations_create(o->out, &o->j.model->config, o->j.tokens, o->j.token_count,
                                      (size_t)o->j.first_position, store, error);
        status = o->d.writer ? describe_dump(&o->d, &o->j, error) : -1;
    }
    if (!status) {
        gemma4_session_set_hook(o->j.session, dump_tap, &o->d);
        gemma4_session_show_probs(o->j.session, wants_probs(&o->d, &o->j.model->config));
        status = job_prefill(&o->j, 1, NULL, error);
    }
    if (!status && o->d.written == 0)
        status = gemma4_fail(error, "--taps: expected a pattern that matches a tap, found '%s'",
                             o->d.glob);
    if (!status) {
        status = gemma4_activations_commit(o->d.writer, error);
        o->d.writer = NULL;
    }
    gemma4_activations_discard(o->d.writer);
    job_free(&o->j);
    return status;
}

static int command_dump(int argc, char **argv, gemma4_error *error)
{
    dump_order o = {.out = NULL};
    const gemma4_option options[] = {{"--model", &o.j.model_dir},
                                     {"--tokens", &o.j.tokens_text},
                                     {"--schedule", &o.j.schedule_text},
                                     {"--first-position", &o.j.first_position_text},
                                     {"--cpu", &o.j.cpu},
                                     {"--out", &o.out},
                                     {"--taps", &o.d.glob},
                                     {"--dtype", &o.dtype},
                                     {"--logprobs", &o.logprobs},
                                     {NULL, NULL}};
    size_t words;
    if (gemma4_options_parse(argc, argv, options, NULL, 0, &words, error))
        return -1;
    if (!o.out)
        return gemma4_fail(error, "command line: option '--out' is required");
    if (gemma4_output_is_not_of(o.out, o.j.model_dir, error))
        return -1;
    if (o.d.glob && !strcmp(o.d.glob, "all"))
        o.d.glob = NULL;
    return gemma4_isolate_writer(write_dump, &o, o.out, error);
}

static int command_facts(int argc, char **argv, gemma4_error *error)
{
    const char *model_dir = NULL;
    const gemma4_option options[] = {{"--model", &model_dir}, {NULL, NULL}};
    size_t words;
    gemma4_config config;
    if (gemma4_options_parse(argc, argv, options, NULL, 0, &words, error))
        return -1;
    if (model_dir ? gemma4_model_config(model_dir, &config, error)
                  : gemma4_published_config(&config, error))
        return -1;
    printf("model                  %s\n", model_dir ? model_dir : "Gemma 4 26B-A4B, as published");
    gemma4_facts_print(stdout, &config);
    gemma4_config_free(&config);
    return 0;
}

static int command_synth(int argc, char **argv, gemma4_error *error)
{
    gemma4_synth_options o = {.shards = 1};
    const char *seed = NULL, *out = NULL, *layers = NULL, *vocab = NULL, *shards = NULL,
               *vision = NULL;
    const gemma4_option options[] = {{"--preset", &o.preset}, {"--seed", &seed},
                                     {"--out", &out},         {"--layers", &layers},
                                     {"--vocab", &vocab},     {"--shards", &shards},
                                     {"--vision", &vision},   {NULL, NULL}};
    size_t words;
    int64_t n;
    if (gemma4_options_parse(argc, argv, options, NULL, 0, &words, error))
        return -1;
    if (!o.preset || !seed || !out)
        return gemma4_fail(error, "command line: option '%s' is required",
                           !o.preset ? "--preset"
                           : !seed   ? "--seed"
                                     : "--out");
    if (gemma4_parse_int(seed, "--seed", 0, INT64_MAX, &n, error))
        return -1;
    o.seed = (uint64_t)n;
    if (layers && gemma4_parse_int(layers, "--layers", 1, 1000, &n, error))
        return -1;
    o.layers = layers ? (size_t)n : 0;
    if (vocab && gemma4_parse_int(vocab, "--vocab", 8, 262144, &n, error))
        return -1;
    o.vocab = vocab ? (size_t)n : 0;
    if (shards && gemma4_parse_int(shards, "--shards", 1, 1000, &n, error))
        return -1;
    o.shards = shards ? (size_t)n : 1;
    if (vision && strcmp(vision, "yes") && strcmp(vision, "no"))
        return gemma4_fail(error, "--vision: expected yes or no, found '%s'", vision);
    o.vision = vision && !strcmp(vision, "yes");
    return gemma4_synth(&o, out, error);
}

static int run_program(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv, gemma4_error *error);
    } commands[] = {{"run", command_run},     {"dump", command_dump},
                    {"facts", command_facts}, {"show", gemma4_show_command},
                    {"synth", command_synth}, {"dequantise", gemma4_dequantise_command}};
    gemma4_error error;
    if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")))
        return fputs(usage, stdout) < 0 ? 2 : 0;
    if (argc == 2 && !strcmp(argv[1], "--version"))
        return printf("gemma4-ref %s\n", gemma4_version()) < 0 ? 2 : 0;
    for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof *commands; i++)
        if (!strcmp(argv[1], commands[i].name)) {
            int status = commands[i].run(argc - 2, argv + 2, &error);
            if (!status && (fflush(stdout) || ferror(stdout))) /* what did not reach its reader is
                                                                  not done */
                status = gemma4_fail(&error, "standard output: cannot write: %s", strerror(errno));
            if (!status)
                return 0;
            fprintf(stderr, "gemma4-ref: %s\n", error.message);
            return 2;
        }
    if (argc > 1)
        fprintf(stderr, "gemma4-ref: unknown command '%s' (--help lists them)\n", argv[1]);
    else
        fputs(usage, stderr);
    return 2;
}

int main(int argc, char **argv)
{
    gemma4_guard_install("gemma4-ref");
    gemma4_guard_exit();
    return gemma4_guard_end(run_program(argc, argv));
}
