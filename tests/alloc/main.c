/* Memory runs out: runs the programs with every allocation, or a sample of them, failing (fail.c).
 *
 *   alloc-check BUILD [NAME [MOST]]    all commands of the table below, or those whose name
 *                                      contains NAME ("" is all), with at most MOST failures each;
 *                                      MOST `every`: each allocation fails, however many there are
 *
 * Whatever fails, the program must end by itself, with status 2 and one line on standard error,
 * without a verdict, without a file that was not finished, and without a leak. Where a library
 * copes (libc's buffers and sorts do), the run must be the same as without the failure, to the
 * byte. A command with at most ALL allocations has every one of them fail; of a longer one a sample
 * does: the first and the last of every place in our own code that allocates, told apart by its
 * three innermost calls. Behind every second one, everything fails. */
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ALL = 250, WORDS = 24, TEXT = 1 << 20, SECONDS = 120, SHOWN = 12 };

/* @ stands for the folder of what the commands before it made, % for the output's folder, which is
 * empty before each run. */
static const struct command {
    const char *name, *words;
    int status;
} commands[] = {
    {"prepare", "gemma4-ref dump --model golden/checkpoints/tiny --tokens 2 --out @/one.h5", -1},
    {"prepare",
     "gemma4-ref dump --model golden/checkpoints/tiny --tokens 2 --taps layers.*.output --out "
     "@/layers.h5",
     -1},
    {"prepare",
     "gemma4-ref dump --model golden/checkpoints/tiny --tokens 2 --taps logits --out @/logits.h5",
     -1},
    {"prepare",
     "gemma4-ref dump --model golden/checkpoints/tiny --tokens 2 --taps logits --logprobs 5 --out "
     "@/listed.h5",
     -1},
    {"prepare", "gemma4-ref synth --preset tiny --seed 2 --out @/model", -1},
    {"prepare",
     "gemma4-ref dump --model @/model --tokens 2 --taps layers.*.output --out @/wrong.h5", -1},
    {"prepare", "gemma4-check ladder --out @/ladder", -1},
    {"prepare",
     "gemma4-ref dump --model @/ladder/ladder-linear-head --tokens "
     "2,150,104,177,100,53,110,117,51,44,96,237 --taps logits --out @/rungs/linear-head.h5",
     -1},
    /* the rung `head` by a checkpoint that has no soft-cap to speak of */
    {"prepare",
     "gemma4-ref dump --model @/ladder/ladder-linear-head --tokens "
     "2,44,8,124,59,190,241,242,244,208,149,181 --taps logits --out @/rungs/head.h5",
     -1},
    {"check",
     "gemma4-check --model golden/checkpoints/tiny @/one.h5 --json %/r.json --junit %/r.xml --html "
     "%/r.html",
     0},
    {"check-layers", "gemma4-check --model golden/checkpoints/tiny @/layers.h5 --json %/r.json", 0},
    {"check-logits", "gemma4-check --model golden/checkpoints/tiny @/logits.h5 --json %/r.json", 0},
    {"check-listed", "gemma4-check --model golden/checkpoints/tiny @/listed.h5 --json %/r.json", 0},
    {"check-case", "gemma4-check tiny-one-token @/layers.h5 --search steps --junit %/r.xml", 0},
    {"check-fault", "gemma4-check --model golden/checkpoints/tiny @/wrong.h5 --html %/r.html", 1},
    {"check-map",
     "gemma4-check tiny-prompt golden/dumps/tiny-prompt-transformers-debugger.safetensors --map "
     "transformers-debugger "
     "--dtype float32 --search steps",
     0},
    {"several",
     "gemma4-check --manifest @/dumps.yaml --search steps --json %/r.json --junit %/r.xml", 1},
    {"ladder", "gemma4-check ladder @/rungs --json %/r.json --junit %/r.xml", 1},
    {"names",
     "gemma4-check names golden/dumps/tiny-prompt-transformers-debugger.safetensors --case "
     "tiny-prompt",
     0},
    {"names-many", "gemma4-check names @/many.safetensors", 0},
    {"compare", "gemma4-check compare @/one.h5 @/one.h5 --json %/r.json", 0},
    {"compare-model",
     "gemma4-check compare @/layers.h5 @/wrong.h5 --model golden/checkpoints/tiny --json %/r.json",
     1},
    {"list", "gemma4-check list", 0},
    {"list-case", "gemma4-check list tiny-prompt", 0},
    {"explain", "gemma4-check explain rope-pairing-contiguous", 0},
    {"explain-all", "gemma4-check explain --all", 0},
    {"lint", "gemma4-check lint", 0},
    {"agreement", "gemma4-check agreement", 0},
    {"self-test",
     "gemma4-check self-test --case tiny-prompt --cause v-norm-missing --tier float32 --tap-set "
     "layers --seeds 1 --jobs 2",
     0},
    {"facts", "gemma4-ref facts --model golden/checkpoints/tiny", 0},
    {"run", "gemma4-ref run --model golden/checkpoints/tiny --tokens 2,17 --decode 1", 0},
    {"dump",
     "gemma4-ref dump --model golden/checkpoints/tiny --tokens 2 --out %/dump.h5 --logprobs 3", 0},
    {"show", "gemma4-ref show @/one.h5 layers.5.attn.q_rope", 0},
    {"run-gguf", "gemma4-ref run --model tests/fuzz/corpus/gguf/blocks-of-32 --tokens 2,1", 0},
    {"dequantise", "gemma4-ref dequantise tests/fuzz/corpus/gguf/blocks-of-32 %/model", 0},
    {"ladder-write", "gemma4-check ladder --out %/ladder", 0},
    {"synth",
     "gemma4-ref synth --preset tiny --layers 2 --vocab 260 --seed 1 --shards 2 --out %/model", 0},
};

/* What a run left behind: status, or 256 + the signal; the texts; the output folder's files in one
 * text. */
typedef struct outcome {
    int status;
    char *out, *err, *files;
} outcome;

static alloc_state *state;
static const char *build;
static char root[64], made[96], output[96];
static size_t problems, most = SIZE_MAX; /* failures a command */
static size_t whole = ALL;               /* allocations up to which each one fails */

static void die(const char *what)
{
    fprintf(stderr, "alloc-check: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* --- files --- */

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status, (void)type;
    return walk->level > 0 ? remove(path) : 0;
}

static char *read_all(const char *path, size_t *size)
{
    char *text = calloc(1, TEXT + 1);
    FILE *f = fopen(path, "rb");
    if (!text || !f)
        die(path);
    *size = fread(text, 1, TEXT, f);
    fclose(f);
    return text;
}

static char *listing; /* under way */

/* A name and a hash of the content. */
static int list_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    /* as JSON, JUnit and HTML have it */
    static const char *const unusables[] = {"UNUSABLE", "<error", "CANNOT BE JUDGED"};
    static const char empty[] = "\"report\": }"; /* of several dumps, one without a word */
    uint64_t hash = 14695981039346656037u;
    (void)status, (void)walk;
    FILE *f = type == FTW_F ? fopen(path, "rb") : NULL;
    bool unusable = false, lacking = false;
    if (f) {
        char block[65536];
        for (size_t got; (got = fread(block, 1, sizeof block, f)) > 0;) {
            lacking = lacking || memmem(block, got, empty, strlen(empty));
            for (size_t i = 0; i < sizeof unusables / sizeof *unusables; i++)
                unusable = unusable || memmem(block, got, unusables[i], strlen(unusables[i]));
            for (size_t i = 0; i < got; i++)
                hash = (hash ^ (unsigned char)block[i]) * 1099511628211u;
        }
        fclose(f);
        size_t used = strlen(listing);
        snprintf(listing + used, TEXT - used, "%s%s %016llx\n",
                 lacking    ? "LACKING "
                 : unusable ? "UNUSABLE "
                            : "",
                 path, (unsigned long long)hash);
    }
    return 0;
}

/* --- a run --- */

static void start(const char *words)
{
    char text[1024], *argv[WORDS + 1], program[256], *save;
    int count = 0;
    size_t used = 0;
    for (; *words && used + sizeof made < sizeof text; words++) {
        const char *folder = *words == '@' ? made : *words == '%' ? output : NULL;
        if (folder)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s", folder);
        else
            text[used++] = *words;
    }
    text[used] = '\0';
    for (char *word = strtok_r(text, " ", &save); word && count < WORDS;
         word = strtok_r(NULL, " ", &save))
        argv[count++] = word;
    argv[count] = NULL;
    snprintf(program, sizeof program, "%s/%s", build, argv[0]);
    alarm(SECONDS);
    execv(program, argv);
    _exit(127);
}

static void run(const char *words, outcome *o)
{
    char out[128], err[128], preload[512], shared[128];
    size_t size;
    int status;
    nftw(output, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    snprintf(out, sizeof out, "%s/out", root);
    snprintf(err, sizeof err, "%s/err", root);
    snprintf(shared, sizeof shared, "%s/state", root);
    snprintf(preload, sizeof preload, "%s/alloc-fail.so", build);
    pid_t child = fork();
    if (child == 0) {
        int o1 = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600),
            o2 = open(err, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (dup2(o1, 1) < 0 || dup2(o2, 2) < 0)
            _exit(126);
        char *real = realpath(preload, NULL);
        if (!real)
            _exit(125);
        setenv("LD_PRELOAD", real, 1);
        setenv("ALLOC_STATE", shared, 1);
        setenv("OMP_NUM_THREADS", "1", 1);
        start(words);
    }
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            die("waitpid");
    o->status = WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
    o->out = read_all(out, &size);
    o->err = read_all(err, &size);
    o->files = listing = calloc(1, TEXT + 1);
    if (!listing)
        die("memory");
    nftw(output, list_one, 16, FTW_PHYS);
}

static void outcome_free(outcome *o)
{
    free(o->out);
    free(o->err);
    free(o->files);
}

/* --- what must hold --- */

/* Each file is one of the run that succeeded, or a report that says UNUSABLE (and nothing less). */
static bool files_are_whole(const outcome *o, const outcome *good)
{
    for (const char *line = o->files; *line; line = strchr(line, '\n') + 1) {
        char one[512];
        snprintf(one, sizeof one, "%.*s", (int)strcspn(line, "\n") + 1, line);
        if (strncmp(one, "UNUSABLE ", 9) != 0 && !strstr(good->files, one))
            return false;
    }
    return true;
}

/* Whether a line of the text is a verdict, but for those that are in `but` (NULL: none). */
static bool gives_verdict(const char *text, const char *but)
{
    static char line[4096];
    for (size_t length; *text; text += length + (text[length] == '\n')) {
        length = strcspn(text, "\n");
        snprintf(line, sizeof line, "%.*s", (int)length, text);
        if ((strstr(line, "CONFORM") || strstr(line, "NO FAULT FOUND") ||
             strstr(line, "THE SAME") || strstr(line, "DIFFERENT")) &&
            !(but && strstr(but, line)))
            return true;
    }
    return false;
}

/* One line of ours. Before it may stand libgomp's own, behind an empty one: it has ended a child;
 * alone where it has ended the program itself. */
static bool is_one_line(const char *text)
{
    static const char of_libgomp[] = "\nlibgomp: Out of memory";
    bool ended = !strncmp(text, of_libgomp, sizeof of_libgomp - 1);
    const char *end = ended ? strchr(text + 1, '\n') : NULL;
    text = end ? end + 1 : text;
    if (ended && !*text)
        return true;
    end = strchr(text, '\n');
    return !strncmp(text, "gemma4-", 7) && end && !end[1];
}

static const char *wrong_with(const struct command *c, const outcome *o, const outcome *good,
                              uint64_t leaks)
{
    if (!files_are_whole(o, good))
        return "a file is left that is not whole";
    if (o->status == good->status && !strcmp(o->out, good->out) && !strcmp(o->err, good->err) &&
        !strcmp(o->files, good->files))
        return NULL; /* it coped: nothing else is looked at, what libc itself holds is not ours */
    if (o->status >= 256)
        return "it died of a signal";
    if (o->status != 2)
        return "status 2 was expected";
    if (!is_one_line(o->err))
        return "one line on standard error was expected";
    /* of several dumps, or rungs, each is judged by itself: the others' verdicts stand */
    bool many = !strcmp(c->name, "several") || !strcmp(c->name, "ladder");
    if (gives_verdict(o->out, many ? good->out : NULL))
        return "it gave a verdict";
    return leaks ? "memory leaks" : NULL;
}

static void say(const struct command *c, uint64_t n, bool for_good, const char *what,
                const outcome *o)
{
    if (++problems > SHOWN && !getenv("ALLOC_ALL"))
        return;
    printf("%s: allocation %llu%s: %s (status %d; %.200s)\n", c->name, (unsigned long long)n,
           for_good ? " and all behind it" : "", what, o->status, o->err);
    for (uint64_t i = 0; i < state->leaks && i < 4; i++)
        printf("    leaked at %#llx\n", (unsigned long long)state->leaked_at[i]);
}

static void fail_at(const struct command *c, uint64_t n, bool for_good, const outcome *good,
                    uint64_t usual)
{
    outcome o;
    state->fail_at = n;
    state->for_good = for_good;
    state->count = state->failed = state->leaks = 0;
    state->logs = 0;
    run(c->words, &o);
    const char *what = wrong_with(c, &o, good, state->leaks > usual ? state->leaks - usual : 0);
    if (what && state->failed)
        say(c, n, for_good, what, &o);
    outcome_free(&o);
}

/* --- which --- */

static int by_place(const void *a, const void *b)
{
    uint32_t x = state->place[*(const uint32_t *)a], y = state->place[*(const uint32_t *)b];
    return x < y ? -1 : x > y ? 1 : *(const uint32_t *)a < *(const uint32_t *)b ? -1 : 1;
}

/* The numbers of the allocations that shall fail, to be freed. */
static uint32_t *choose(size_t count, size_t *chosen)
{
    uint32_t *order = malloc((count + 1) * sizeof *order),
             *list = malloc((count + 1) * sizeof *list);
    if (!order || !list)
        die("memory");
    *chosen = 0;
    for (uint32_t i = 0; i < count; i++)
        order[i] = i;
    if (count <= whole) {
        memcpy(list, order, count * sizeof *list);
        *chosen = count;
        free(order);
        return list;
    }
    qsort(order, count, sizeof *order, by_place);
    for (size_t i = 0, end; i < count; i = end) {
        for (end = i + 1; end < count && state->place[order[end]] == state->place[order[i]];)
            end++;
        list[(*chosen)++] = order[i];
        if (end - i > 1)
            list[(*chosen)++] = order[end - 1];
    }
    free(order);
    return list;
}

static void check(const struct command *c)
{
    outcome good;
    state->fail_at = state->count = state->failed = state->leaks = 0;
    state->logs = 1;
    run(c->words, &good);
    size_t count = state->count < ALLOC_LOGGED ? state->count : ALLOC_LOGGED, chosen,
           before = problems;
    uint64_t usual = state->leaks;
    if (c->status < 0) { /* a preparation */
        if (good.status)
            die(c->words);
        outcome_free(&good);
        return;
    }
    if (good.status != c->status || usual)
        say(c, 0, false,
            usual ? "without any failure, memory leaks"
                  : "without any failure, another status was expected",
            &good);
    uint32_t *list = choose(count, &chosen);
    size_t tried = chosen < most ? chosen : most;
    for (size_t i = 0; i < tried; i++) /* every second one for good */
        fail_at(c, list[(size_t)((double)i * (double)chosen / (double)tried)] + 1, i & 1, &good,
                usual);
    printf("%-13s %8zu allocations, %5zu made to fail%s, %zu problems\n", c->name, count, tried,
           tried < count ? " (sample)" : "", problems - before);
    fflush(stdout);
    free(list);
    outcome_free(&good);
}

/* For --manifest: one dump that conforms, one that does not. */
static void write_list(void)
{
    char path[160];
    snprintf(path, sizeof path, "%s/dumps.yaml", made);
    FILE *f = fopen(path, "w");
    if (!f ||
        fputs("format: gemma4-dumps\nversion: 1\ndumps:\n  - {file: logits.h5, case: "
              "tiny-one-token}\n"
              "  - {file: wrong.h5, case: tiny-one-token}\n",
              f) < 0 ||
        fclose(f))
        die(path);
}

/* For names-many: a dump of so many tensors that the answer outgrows every buffer of libc's. */
static void write_many(void)
{
    enum { TENSORS = 400 };
    char path[160], header[TENSORS * 128] = "{";
    size_t size = 1;
    for (int i = 0; i < TENSORS; i++) {
        char name[64] = "logits"; /* a map needs one that is known */
        if (i)
            snprintf(name, sizeof name, "an.output.that.nobody.knows.%c%c", 'a' + i / 26,
                     'a' + i % 26);
        size += (size_t)snprintf(header + size, sizeof header - size,
                                 "\"%s\":{\"dtype\":\"F32\",\"shape\":[1],"
                                 "\"data_offsets\":[%d,%d]}%c",
                                 name, 4 * i, 4 * i + 4, i + 1 < TENSORS ? ',' : '}');
    }
    while (size % 8)
        header[size++] = ' ';
    uint64_t length = size;
    snprintf(path, sizeof path, "%s/many.safetensors", made);
    FILE *f = fopen(path, "wb");
    static const char values[4 * TENSORS];
    if (!f || fwrite(&length, sizeof length, 1, f) != 1 || fwrite(header, 1, size, f) != size ||
        fwrite(values, 1, sizeof values, f) != sizeof values || fclose(f))
        die(path);
}

int main(int argc, char **argv)
{
    char path[128];
    if (argc == 4 && !strcmp(argv[3], "every"))
        whole = SIZE_MAX;
    else if (argc < 2 || argc > 4 || (argc == 4 && !(most = strtoul(argv[3], NULL, 10))))
        return fputs("usage: alloc-check BUILD [NAME [MOST]]\n", stderr), 2;
    build = argv[1];
    snprintf(root, sizeof root, "%s/gemma4-alloc-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(root))
        die(root);
    snprintf(made, sizeof made, "%s/made", root);
    snprintf(output, sizeof output, "%s/output", root);
    snprintf(path, sizeof path, "%s/state", root);
    int file = open(path, O_RDWR | O_CREAT, 0600);
    char rungs[128];
    snprintf(rungs, sizeof rungs, "%s/rungs", made);
    if (mkdir(made, 0700) || mkdir(rungs, 0700) || mkdir(output, 0700) || file < 0 ||
        ftruncate(file, sizeof *state))
        die(root);
    write_list();
    write_many();
    state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (state == MAP_FAILED)
        die("mmap");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (argc == 2 || commands[i].status < 0 || strstr(commands[i].name, argv[2]))
            check(&commands[i]);
    nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    rmdir(root);
    printf("%zu problems\n", problems);
    return problems ? 1 : 0;
}
