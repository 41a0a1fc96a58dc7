/* The programs as a user or a CI job meets them: exit status, exactly one line on stderr where
 * something is wrong, and no half-written file. They are looked for in the directory GEMMA4_BUILD,
 * or build. */
#include "activations.h"
#include "document.h"
#include "foreign_maker.h"
#include "manifest.h"
#include "model.h"
#include "reports.h"
#include "schema.h"
#include "suites.h"
#include "support.h"

#include <dirent.h>
#include <fcntl.h>
#include <hdf5.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

typedef enum program { REF, CHECK } program;
static const char *const NAMES[] = {"gemma4-ref", "gemma4-check"};

static char paths[2][PATH_MAX]; /* of the programs */
static char *work;              /* the directory that they run in; everything in the tables lies
                                   there */

/* --- running a program --- */

typedef struct outcome {
    int status; /* -1: ended by a signal */
    char out[65536], err[2048];
} outcome;

static void read_text(const char *path, char *text, size_t size)
{
    FILE *f = fopen(path, "rb");
    ck_assert_ptr_nonnull(f);
    text[fread(text, 1, size - 1, f)] = '\0';
    fclose(f);
}

static void redirect(int to, const char *path)
{
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (file < 0 || dup2(file, to) < 0)
        _exit(126);
    close(file);
}

/* args ends with NULL. */
static outcome run_in(const char *directory, program which, const char *const *args)
{
    outcome o = {0};
    char *captured = test_fresh_dir(), *out = test_join(captured, "out"),
         *err = test_join(captured, "err");
    char *argv[16] = {paths[which]};
    for (size_t i = 0; args[i] != NULL; i++) {
        ck_assert_uint_lt(i + 2, COUNT(argv));
        argv[i + 1] = (char *)args[i];
    }
    pid_t child = fork();
    if (child == 0) {
        redirect(STDOUT_FILENO, out);
        redirect(STDERR_FILENO, err);
        if (chdir(directory) == 0)
            execv(paths[which], argv);
        _exit(127);
    }
    int status;
    ck_assert(child > 0 && waitpid(child, &status, 0) == child);
    o.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    read_text(out, o.out, sizeof o.out);
    read_text(err, o.err, sizeof o.err);
    return o;
}

static outcome run(program which, const char *const *args)
{
    return run_in(work, which, args);
}

static void assert_succeeds(program which, const char *const *args)
{
    outcome o = run(which, args);
    ck_assert_msg(o.status == 0, "%s %s: status %d: %s", NAMES[which], args[0], o.status, o.err);
    ck_assert_str_eq(o.err, "");
}

/* Exit status 2 and one line that names the program and holds the text. */
static void assert_unusable(const outcome *o, program which, const char *text)
{
    const char *newline = strchr(o->err, '\n');
    size_t name = strlen(NAMES[which]);
    ck_assert_msg(o->status == 2, "status %d: %s", o->status, o->err);
    ck_assert_msg(newline != NULL && newline[1] == '\0', "expected exactly one line on stderr: %s",
                  o->err);
    ck_assert_msg(strncmp(o->err, NAMES[which], name) == 0 && strncmp(o->err + name, ": ", 2) == 0,
                  "%s", o->err);
    ck_assert_msg(strstr(o->err, text) != NULL, "\"%s\" is not in: %s", text, o->err);
}

static bool has_temporary(const char *directory)
{
    bool found = false;
    DIR *d = opendir(directory);
    ck_assert_ptr_nonnull(d);
    for (struct dirent *entry; (entry = readdir(d)) != NULL;)
        found = found || strstr(entry->d_name, ".tmp") != NULL;
    closedir(d);
    return found;
}

static bool exists(const char *name)
{
    struct stat status;
    return stat(test_join(work, name), &status) == 0;
}

/* --- the directory --- */

/* The tokens of the cases tiny-one-token, the quickest, and tiny-prompt. */
#define TOKENS "2"
#define PROMPT "2,197,214,34,153,23,76,115,13,151,249,242"

static const char *const MAKE_DUMPS[][10] = {
    {"dump", "--model", "model", "--tokens", TOKENS, "--out", "good.h5", NULL},
    {"dump", "--model", "model", "--tokens", TOKENS, "--out", "logits.h5", "--taps", "logits",
     NULL},
    {"dump", "--model", "model", "--tokens", TOKENS, "--out", "embed.h5", "--taps", "embed", NULL},
    {"dump", "--model", "model", "--tokens", "2,197", "--out", "short.h5", NULL},
    {"dump", "--model", "model", "--tokens=" TOKENS, "--out", "best.h5", "--logprobs", "20",
     "--taps=logprobs.*", NULL},
};

/* A dump of one tap that is all zeros, with one attribute beside (NULL: none). */
static void write_zeros(const gemma4_model *model, const gemma4_case *c, const char *name,
                        const char *attribute, const char *text)
{
    gemma4_error error = {""};
    gemma4_real zeros[64] = {0};
    gemma4_tap_event event = {
        .tap = GEMMA4_TAP_EMBED, .rows = 1, .rank = 1, .dims = {64, 1}, .values = zeros};
    gemma4_activations_writer *w =
        gemma4_activations_create(test_join(work, name), &model->config, c->tokens, c->token_count,
                                  c->first_position, "float32", &error);
    ck_assert_msg(w != NULL, "%s", error.message);
    if (strcmp(attribute, "dtype") != 0 && *attribute)
        ck_assert_int_eq(gemma4_activations_set_attribute(w, "dtype", "float32", &error), 0);
    if (*attribute)
        ck_assert_int_eq(gemma4_activations_set_attribute(w, attribute, text, &error), 0);
    ck_assert_int_eq(gemma4_activations_write(w, &event, &error), 0);
    ck_assert_msg(gemma4_activations_commit(w, &error) == 0, "%s", error.message);
}

/* The first bytes of another file. */
static void write_part(const char *name, const char *of, size_t size)
{
    char *bytes = malloc(size);
    FILE *f = fopen(test_join(work, of), "rb");
    ck_assert(bytes != NULL && f != NULL);
    size = fread(bytes, 1, size, f);
    fclose(f);
    test_write(test_join(work, name), bytes, size);
    free(bytes);
}

static void find_programs(void)
{
    const char *build = getenv("GEMMA4_BUILD");
    for (int i = 0; i < 2; i++) {
        char *path = test_join(build != NULL && *build ? build : "build", NAMES[i]);
        ck_assert_msg(
            realpath(path, paths[i]) != NULL,
            "%s is not there: build the programs, or name their directory in GEMMA4_BUILD", path);
    }
}

static void link_to(const char *target, const char *name)
{
    char absolute[PATH_MAX];
    ck_assert_msg(realpath(target, absolute) != NULL, "%s", target);
    ck_assert_int_eq(symlink(absolute, test_join(work, name)), 0);
}

/* An HDF5 file of another program, which holds no tap. */
static void write_foreign_hdf5(const char *name)
{
    hid_t file = H5Fcreate(test_join(work, name), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    ck_assert(file >= 0);
    H5Gclose(H5Gcreate2(file, "model_weights", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    ck_assert(H5Fclose(file) >= 0);
}

static void copy_file(const char *from, const char *to)
{
    static char bytes[4 << 20];
    FILE *f = fopen(test_join(work, from), "rb");
    ck_assert_ptr_nonnull(f);
    size_t size = fread(bytes, 1, sizeof bytes, f);
    ck_assert(fclose(f) == 0 && size < sizeof bytes);
    test_write(test_join(work, to), bytes, size);
}

/* A copy of a dump in which datasets have other names. */
static void write_renamed(const char *name, const char *of, const char *const names[][2],
                          size_t count)
{
    copy_file(of, name);
    hid_t file = H5Fopen(test_join(work, name), H5F_ACC_RDWR, H5P_DEFAULT),
          links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(H5Lmove(file, names[i][0], file, names[i][1], links, H5P_DEFAULT) >= 0, "%s",
                      names[i][0]);
    H5Pclose(links);
    ck_assert(H5Fclose(file) >= 0);
}

static const char *const MISSPELT[][2] = {
    {"layers/0/attn/q_rope", "layers/0/attn/q-rope"},
    {"layers/1/attn/q_rope", "layers/1/attn/q-rope"},
    {"layers/11/attn/q_rope", "layers/11/attn/q-rope"},
    {"layers/3/output", "layer.3.output"},
    {"layers/3/attn/q", "layers/3/self_attn/q_proj"},
    {"logits", "logit"},
    {"layers/4/attn/q_norm", "layers/40/attn/q_norm"},
    {"layers/5/attn/q_norm", "my/own/tensor"},
};
static const char *const BADLY_MISSPELT[][2] = {
    {"layers/0/attn/q", "layers/0/attn/q_proj"},
    {"layers/0/attn/k", "layers/0/attn/k_proj"},
    {"layers/0/attn/q_norm", "layers/0/attn/q-norm"},
    {"layers/0/attn/k_norm", "layers/0/attn/k-norm"},
    {"layers/0/attn/q_rope", "layers/0/attn/q-rope"},
    {"layers/0/attn/k_rope", "layers/0/attn/k-rope"},
    {"layers/0/attn/context", "layers/0/attn/Context"},
    {"layers/0/attn/out", "layers/0/attn/o_proj"},
    {"layers/0/mlp/gate", "layers/0/mlp/gate_proj"},
    {"layers/0/mlp/up", "layers/0/mlp/up_proj"},
    {"layers/0/mlp/out", "layers/0/mlp/down_proj"},
};

/* A dump with a dataset of the engine's own. */
static void write_extra(const char *name)
{
    copy_file("embed.h5", name);
    hid_t file = H5Fopen(test_join(work, name), H5F_ACC_RDWR, H5P_DEFAULT);
    ck_assert(file >= 0 && H5Lcopy(file, "embed", file, "my_own", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    ck_assert(H5Fclose(file) >= 0);
}

/* For `show`: one tensor each. */
static const struct {
    const char *file, *name, *shape;
    size_t count;
    float first;
} TENSORS[] = {
    {"batch.safetensors", "embed", "[1, 2, 4]", 8, 0},
    {"nan.safetensors", "embed", "[2, 4]", 8, NAN},
    {"infinite.safetensors", "embed", "[2, 4]", 8, INFINITY},
    {"heads.safetensors", "layers.0.attn.q", "[3, 40, 4]", 480, 0},
    {"merged.safetensors", "layers.0.attn.q", "[3, 16]", 48, 0},
    {"scalar.safetensors", "embed", "[]", 1, 0},
};

static void write_hostile_files(void)
{
    static const char garbage[] =
        "\x89HDF\r\n\x1a\nthis goes on in another way than an HDF5 file would, for quite a while";
    test_write_text(test_join(work, "empty.h5"), "");
    test_write_text(test_join(work, "json.h5"), "{\"tokens\": [2, 197]}");
    test_write(test_join(work, "garbage.h5"), garbage, sizeof garbage - 1);
    write_part("half.h5", "good.h5", 50000);
    write_part("start.h5", "good.h5", 100);
    test_write_text(test_join(work, "bad.yaml"), "format: gemma4-case\nversion: 7\n");
    write_foreign_hdf5("keras.h5");
    write_renamed("misspelt.h5", "good.h5", MISSPELT, COUNT(MISSPELT));
    write_renamed("badly.h5", "good.h5", BADLY_MISSPELT, COUNT(BADLY_MISSPELT));
    write_extra("extra.h5");
    for (size_t i = 0; i < COUNT(TENSORS); i++)
        test_write_tensor(test_join(work, TENSORS[i].file), TENSORS[i].name, TENSORS[i].shape,
                          TENSORS[i].count, TENSORS[i].first);
    ck_assert_int_eq(mkfifo(test_join(work, "pipe"), 0600), 0);
    ck_assert_int_eq(mkdir(test_join(work, "folder"), 0777), 0);
    ck_assert_int_eq(mkdir(test_join(work, "folder.h5"), 0777), 0);
    ck_assert_int_eq(mkdir(test_join(work, "no-config"), 0777), 0);
}

static void set_up(void)
{
    gemma4_error error = {""};
    find_programs();
    gemma4_case *c = gemma4_case_open("tiny-one-token", &error);
    ck_assert_msg(c != NULL && gemma4_case_provide_checkpoint(c, &error) == 0, "%s", error.message);
    gemma4_model *model = gemma4_model_open(c->checkpoint_dir, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    work = test_fresh_dir();
    link_to(test_join(gemma4_cases_dir(), ".."), "golden");
    link_to("tests/unit/excerpts", "excerpts");
    link_to(c->checkpoint_dir, "model");
    for (size_t i = 0; i < COUNT(MAKE_DUMPS); i++)
        assert_succeeds(REF, MAKE_DUMPS[i]);
    write_zeros(model, c, "no-dtype.h5", "", "");
    write_zeros(model, c, "odd-dtype.h5", "dtype", "q9_9");
    write_zeros(model, c, "odd-cache.h5", "kv_dtype", "q9_9");
    write_zeros(model, c, "other-case.h5", "case", "tiny-far");
    write_zeros(model, c, "other-checkpoint.h5", "checkpoint_sha256", "00");
    write_zeros(model, c, "wrong.h5", "engine", "none");
    gemma4_case *far = gemma4_case_open("tiny-far", &error); /* on the same checkpoint */
    ck_assert_msg(far != NULL, "%s", error.message);
    write_zeros(model, far, "far.h5", "", "");
    gemma4_case_close(far);
    write_hostile_files();
    gemma4_model_close(model);
    gemma4_case_close(c);
}

/* --- what is refused --- */

#define MODEL "--model", "model"

static const struct {
    program which;
    const char *args[14];
    const char *message;
} REFUSED[] = {
    /* command lines */
    {REF, {"frobnicate"}, "unknown command 'frobnicate'"},
    {REF, {"--frobnicate"}, "unknown command '--frobnicate'"},
    {REF, {"run"}, "option '--model' is required"},
    {REF, {"run", MODEL}, "option '--tokens' is required"},
    {REF, {"run", "--model"}, "option '--model' needs a value"},
    {REF, {"run", MODEL, MODEL}, "option '--model' given twice"},
    {REF, {"run", MODEL, "--tokens", "2", "--temperature", "1"}, "unknown option '--temperature'"},
    {REF, {"run", MODEL, "--tokens", "2", "extra"}, "unexpected argument 'extra'"},
    {REF, {"run", MODEL, "--tokens", "2", "--cpu", "avx1024"}, "--cpu: expected "},
    {REF,
     {"run", MODEL, "--tokens", "2", "--stream", "maybe"},
     "--stream: expected auto, yes or no, found 'maybe'"},
    {REF, {"run", MODEL, "--tokens", ""}, "--tokens: expected an integer from 0 to 255"},
    {REF, {"run", MODEL, "--tokens", "2,,3"}, "--tokens: expected an integer from 0 to 255"},
    {REF, {"run", MODEL, "--tokens", "2,256"}, "--tokens: expected an integer from 0 to 255"},
    {REF, {"run", MODEL, "--tokens", "2,-1"}, "--tokens: expected an integer"},
    {REF, {"run", MODEL, "--tokens", "two"}, "--tokens: expected an integer"},
    {REF, {"run", MODEL, "--tokens", "2;3"}, "--tokens: expected integers separated by commas"},
    {REF,
     {"run", MODEL, "--tokens", "2,3", "--schedule", "1"},
     "--schedule: expected chunks that add up to 2 tokens, found 1"},
    {REF,
     {"run", MODEL, "--tokens", "2,3", "--schedule", "2,1"},
     "--schedule: expected chunks that add up to 2 tokens, found 3"},
    {REF,
     {"run", MODEL, "--tokens", "2,3", "--schedule", "2,0"},
     "--schedule: expected an integer from 1"},
    {REF,
     {"run", MODEL, "--tokens", "2,3", "--decode", "0"},
     "--decode: expected an integer from 1"},
    {REF,
     {"run", MODEL, "--tokens", "2,3", "--decode", "262144"},
     "positions: expected a range within 0 ... 262143"},
    {REF,
     {"run", MODEL, "--tokens", "2,3", "--first-position", "262143"},
     "positions: expected a range within 0 ... 262143"},
    {REF,
     {"run", MODEL, "--tokens", "2,3", "--first-position", "262144"},
     "--first-position: expected an integer"},
    {REF, {"dump", MODEL, "--tokens", "2"}, "option '--out' is required"},
    {REF,
     {"dump", MODEL, "--tokens", "2", "--out", "x.h5", "--dtype", "int8"},
     "expected a store dtype"},
    {REF,
     {"dump", MODEL, "--tokens", "2", "--out", "x.h5", "--dtype", "fp32"},
     "expected a store dtype"},
    {REF,
     {"dump", MODEL, "--tokens", "2", "--out", "x.h5", "--taps", "nothing.*"},
     "--taps: expected a pattern that matches a tap"},
    {REF,
     {"dump", MODEL, "--tokens", "2", "--out", "x.h5", "--logprobs", "0"},
     "--logprobs: expected an integer from 1 to 256"},
    {REF,
     {"dump", MODEL, "--tokens", "2", "--out", "x.h5", "--logprobs", "257"},
     "--logprobs: expected an integer from 1 to 256"},
    {REF, {"facts", "--model"}, "option '--model' needs a value"},
    {REF, {"show"}, "expected CASE or FILE"},
    {REF, {"show", "good.h5", "embed", "logits"}, "unexpected argument 'logits'"},
    {REF, {"show", "good.h5", "--head", "0"}, "expected a tap with --head"},
    {REF, {"show", "good.h5", "--json", "out.json"}, "expected a tap with --json"},
    {REF,
     {"show", "good.h5", "layers.5.attn.qrope"},
     "found 'layers.5.attn.qrope': is 'layers.5.attn.q_rope' meant?"},
    {REF,
     {"show", "good.h5", "something-else"},
     "expected a tap's name such as layers.0.attn.q (spec/taps.md), found 'something-else'"},
    {REF,
     {"show", "good.h5", "layers.12.output"},
     "good.h5: expected the tap layers.12.output, found a file without it"},
    {REF,
     {"show", "embed.h5", "logits"},
     "embed.h5: expected the tap logits, found a file without it"},
    {REF,
     {"show", "good.h5", "embed", "--position", "1"},
     "--position: expected one of the 1 positions of embed, 0 ... 0, found 1"},
    {REF,
     {"show", "good.h5", "embed", "--position", "first"},
     "--position: expected an integer from 0"},
    {REF,
     {"show", "good.h5", "embed", "--head", "0"},
     "--head: expected a tap with heads, such as layers.0.attn.q, found embed"},
    {REF,
     {"show", "good.h5", "layers.0.attn.k", "--head", "2"},
     "--head: expected one of the 2 heads of layers.0.attn.k, 0 ... 1, found 2"},
    {REF,
     {"show", "good.h5", "tokens", "--position", "0"},
     "tokens is shown whole: expected neither --position nor --head"},
    {REF, {"synth", "--preset", "tiny", "--seed", "1"}, "option '--out' is required"},
    {REF, {"synth", "--preset", "tiny", "--out", "x"}, "option '--seed' is required"},
    {REF, {"synth", "--seed", "1", "--out", "x"}, "option '--preset' is required"},
    {REF, {"synth", "--preset", "huge", "--seed", "1", "--out", "x"}, "expected a preset among"},
    {REF,
     {"synth", "--preset", "tiny", "--seed", "-1", "--out", "x"},
     "--seed: expected an integer"},
    {REF,
     {"synth", "--preset", "tiny", "--seed", "1", "--out", "x", "--layers", "0"},
     "--layers: expected an integer from 1"},
    {REF,
     {"synth", "--preset", "tiny", "--seed", "1", "--out", "x", "--shards", "13"},
     "expected 1 to 12 shards, found 13"},
    {CHECK, {"tiny-one-token"}, "expected CASE ENGINE.h5"},
    {CHECK, {"tiny-one-token", "good.h5", "good.h5"}, "unexpected argument 'good.h5'"},
    {CHECK, {MODEL}, "expected CASE ENGINE.h5"},
    {CHECK, {MODEL, "tiny-one-token", "good.h5"}, "expected CASE ENGINE.h5"},
    {CHECK, {"tiny-one-token", "good.h5", "--jsno", "x"}, "unknown option '--jsno'"},
    {CHECK, {"tiny-one-token", "good.h5", "--json"}, "option '--json' needs a value"},
    {CHECK,
     {"tiny-one-token", "good.h5", "--require", "everything"},
     "--require: expected full, layers or logits, found 'everything'"},
    {CHECK,
     {"tiny-one-token", "good.h5", "--require", "partial"},
     "--require: expected full, layers or logits, found 'partial'"},
    {CHECK, {"tiny-one-token", "good.h5", "--dtype", "q9_9"}, "dtype: expected one of float32"},
    {CHECK, {"--manifest", "missing.yaml"}, "missing.yaml: No such file"},
    {CHECK,
     {"--manifest", "bad.yaml"},
     "bad.yaml:1: format: expected gemma4-dumps, found gemma4-case"},
    {CHECK,
     {"--manifest", "folder"},
     "folder: expected dumps (*.h5, *.hdf5, *.safetensors), found none"},
    {CHECK,
     {"--manifest", "folder", "--html", "x"},
     "--manifest takes no CASE, no ENGINE.h5, no --model and no --html"},
    {CHECK, {"--manifest", "folder", "good.h5"}, "--manifest takes no CASE"},
    {CHECK, {"self-test", "--sample", "--seeds", "3"}, "unknown option '--seeds'"},
    {CHECK, {"self-test", "--sample", "--jobs", "0"}, "--jobs: expected an integer from 1"},
    {CHECK, {"self-test", "--times"}, "self-test --times: option '--model' is required"},
    {CHECK,
     {"self-test", "--times", MODEL, "--tap-set", "some"},
     "--tap-set: expected all, layers or logits, found 'some'"},
    {CHECK,
     {"self-test", "--times", MODEL, "--tier", "int8"},
     "--tier: expected float32, bfloat16 or float16, found 'int8'"},
    {CHECK,
     {"self-test", "--times", MODEL, "--cause", "no-such"},
     "--cause: expected an id of the catalogue"},
    {CHECK,
     {"self-test", "--honest", "--out", "x"},
     "self-test --honest: takes neither --out nor --cause"},
    /* models and outputs */
    {REF, {"run", "--model", "missing", "--tokens", "2"}, "missing/config.json: No such file"},
    {REF,
     {"run", "--model", "good.h5", "--tokens", "2"},
     "good.h5: expected a folder with config.json, or a GGUF file, found a file of another kind"},
    {REF, {"run", "--model", "no-config", "--tokens", "2"}, "no-config/config.json"},
    {REF, {"facts", "--model", "missing"}, "missing/config.json: No such file"},
    {REF, {"dump", MODEL, "--tokens", "2", "--out", "missing/x.h5"}, "missing/x.h5"},
    {REF, {"dump", MODEL, "--tokens", "2", "--out", "good.h5/x.h5"}, "good.h5/x.h5"},
    {REF, {"dump", MODEL, "--tokens", "2", "--out", "folder"}, "folder"},
    {REF, {"synth", "--preset", "tiny", "--seed", "1", "--out", "good.h5/x"}, "good.h5"},
    /* cases and dumps */
    {REF, {"show", "no-such-case", "embed"}, "case 'no-such-case': expected the id of a case"},
    {REF, {"show", "missing.h5", "embed"}, "missing.h5: "},
    {REF,
     {"show", "folder", "embed"},
     "folder: expected an activation file (HDF5 or safetensors), found a folder"},
    {REF, {"show", "half.h5", "logits"}, "half.h5: "},
    {REF, {"show", "garbage.h5", "embed"}, "garbage.h5: "},
    {REF,
     {"show", "scalar.safetensors", "embed"},
     "scalar.safetensors: embed: expected 2 axes, found 0"},
    {REF,
     {"show", "merged.safetensors", "layers.0.attn.q", "--head", "0"},
     "--head: expected heads on an axis of their own, found layers.0.attn.q with 16 values"},
    {REF,
     {"show", "good.h5", "embed", "--json", "good.h5"},
     "good.h5: expected a file of its own to write to, found the file that is shown"},
    {REF, {"show", "good.h5", "embed", "--json", "nowhere/embed.json"}, "nowhere/embed.json"},
    {REF, {"show", "good.h5", "embed", "--json", "/dev/full"}, "/dev/full: cannot write"},
    {REF,
     {"show", "keras.h5"},
     "keras.h5: expected tensors under taps' names (spec/taps.md), found none"},
    {REF,
     {"show", "model/model.safetensors", "embed"},
     "model.safetensors: expected activations, found a checkpoint's weights"},
    {CHECK, {"list", "no-such-case"}, "case 'no-such-case'"},
    {CHECK, {"list", "bad.yaml"}, "bad.yaml:2: version"},
    {CHECK, {"no-such-case", "good.h5"}, "case 'no-such-case'"},
    {CHECK, {"missing.yaml", "good.h5"}, "missing.yaml: No such file"},
    {CHECK, {"bad.yaml", "good.h5"}, "bad.yaml:2: version"},
    {CHECK, {"./good.h5", "good.h5"}, "good.h5"},
    {CHECK, {"./folder", "good.h5"}, "folder: expected a regular file"},
    {CHECK, {"--model", "missing", "good.h5"}, "missing/config.json: No such file"},
    {CHECK, {"tiny-one-token", "missing.h5"}, "missing.h5: "},
    {CHECK, {"tiny-one-token", ""}, "No such file"},
    {CHECK, {"tiny-one-token", "folder.h5"}, "folder.h5: "},
    {CHECK, {"tiny-one-token", "empty.h5"}, "empty.h5: "},
    {CHECK, {"tiny-one-token", "json.h5"}, "json.h5: "},
    {CHECK, {"tiny-one-token", "garbage.h5"}, "garbage.h5: "},
    {CHECK, {"tiny-one-token", "half.h5"}, "half.h5: "},
    {CHECK, {"tiny-one-token", "start.h5"}, "start.h5: "},
    {CHECK,
     {"tiny-one-token", "model/model.safetensors"},
     "model.safetensors: expected activations, found a checkpoint's weights (model."},
    {CHECK, {MODEL, "model/model.safetensors"}, "a checkpoint's folder goes after --model"},
    {CHECK,
     {"tiny-one-token", "/dev/null"},
     "/dev/null: expected an activation file (HDF5 or safetensors), found a device"},
    {CHECK,
     {"tiny-one-token", "pipe"},
     "pipe: expected an activation file (HDF5 or safetensors), found a pipe: write the dump to a "
     "file"},
    {CHECK,
     {"tiny-one-token", "keras.h5"},
     "keras.h5: expected tensors under taps' names (tokens, layers/0/output, logits: "
     "spec/taps.md), or --map for others"},
    {CHECK, {MODEL, "half.h5"}, "half.h5: "},
    {CHECK,
     {"tiny-one-token", "no-dtype.h5"},
     "no-dtype.h5: attribute dtype: expected the engine's arithmetic"},
    {CHECK,
     {"tiny-one-token", "odd-dtype.h5"},
     "dtype: expected one of float32, float64, bfloat16, float16, q8_0, q4_0, q4_k, found 'q9_9'"},
    {CHECK,
     {MODEL, "odd-dtype.h5"},
     "dtype: expected one of float32, float64, bfloat16, float16, q8_0, q4_0, q4_k, found 'q9_9'"},
    {CHECK,
     {"tiny-one-token", "odd-cache.h5"},
     "odd-cache.h5: attribute kv_dtype: expected one of float32, float64, bfloat16, float16, q8_0, "
     "q4_0, q4_k, found 'q9_9'"},
    {CHECK,
     {MODEL, "odd-cache.h5"},
     "odd-cache.h5: attribute kv_dtype: expected one of float32, float64, bfloat16, float16, q8_0, "
     "q4_0, q4_k, found 'q9_9'"},
    {CHECK,
     {"tiny-one-token", "other-case.h5"},
     "attribute case: expected 'tiny-one-token', found 'tiny-far'"},
    {CHECK,
     {"tiny-one-token", "other-checkpoint.h5"},
     "attribute checkpoint_sha256: expected 58fe7c7f"},
    {CHECK,
     {"tiny-one-token", "short.h5"},
     "tokens: expected the 1 of case tiny-one-token, found 2"},
    {CHECK, {"tiny-far", "good.h5"}, "tokens: expected the 24 of case tiny-far, found 1"},
    {CHECK, {"moe128-prompt", "good.h5"}, "found 1"},
    {CHECK, {"tiny-one-token", "good.h5", "--json", "missing/r.json"}, "missing/r.json"},
    {CHECK, {"tiny-one-token", "good.h5", "--junit", "folder"}, "folder: cannot write"},
};

START_TEST(one_line_says_what_is_wrong)
{
    outcome o = run(REFUSED[_i].which, REFUSED[_i].args);
    assert_unusable(&o, REFUSED[_i].which, REFUSED[_i].message);
    ck_assert(!has_temporary(work));
    ck_assert(!exists("x.h5") && !exists("x"));
}
END_TEST

/* --- maps --- */

#define DEBUGGER "golden/dumps/tiny-prompt-transformers-debugger.safetensors"

/* What transformers' model debugger wrote: by the shipped map, and by the one that is proposed. */
START_TEST(a_real_engines_own_names_lead_to_a_verdict)
{
    static const char *const shipped[] = {
        "tiny-prompt", DEBUGGER,   "--map",  "transformers-debugger",
        "--dtype",     "float32",  "--json", "map.json",
        "--html",      "map.html", NULL};
    static const char *const names[] = {"names", DEBUGGER, "--case", "tiny-prompt", NULL};
    static const char *const proposed[] = {"tiny-prompt", DEBUGGER,  "--map", "./proposed.yaml",
                                           "--dtype",     "float32", NULL};
    assert_succeeds(CHECK, shipped);
    const char *json = test_read(test_join(work, "map.json")),
               *html = test_read(test_join(work, "map.html"));
    ck_assert_ptr_nonnull(strstr(json, "\"map\": {\"file\": "));
    ck_assert_ptr_nonnull(strstr(
        json,
        "{\"tap\": \"layers.{N}.attn.q\", \"from\": \"*.layers.{N}.self_attn.q_proj_outputs\", "
        "\"does\": \"*.layers.{N}.self_attn.q_proj_outputs\", \"taps\": 2, \"first\": \"Gemma4"));
    ck_assert_ptr_nonnull(strstr(json, "\"untaken\": []"));
    ck_assert_ptr_nonnull(strstr(html, "What the map did"));
    outcome o = run(CHECK, names);
    ck_assert_msg(o.status == 0, "%s", o.err);
    ck_assert_ptr_nonnull(strstr(o.out, "# map transformers-debugger takes "));
    test_write_text(test_join(work, "proposed.yaml"), o.out);
    outcome checked = run(CHECK, proposed);
    ck_assert_msg(checked.status == 0, "%.1000s", checked.err);
    ck_assert_ptr_nonnull(strstr(checked.out, "CONFORMS"));
}
END_TEST

/* Engines have names in common, which another one's map may read as other taps: the map that takes
 * all of them is the engine's. */
START_TEST(an_engines_own_map_is_proposed)
{
    static const char *const engines[] = {"gemma-jax", "keras-hub", "llama.cpp", "mlx-lm",
                                          "onnxruntime"};
    char dump[200], map[200];
    snprintf(dump, sizeof dump, "excerpts/%s.h5", engines[_i]);
    snprintf(map, sizeof map, "it is golden/maps/%s.yaml.", engines[_i]);
    const char *const names[] = {"names", dump, NULL};
    outcome o = run(CHECK, names);
    ck_assert_msg(o.status == 0, "%s", o.err);
    ck_assert_msg(strstr(o.out, map) != NULL, "%s: %.2000s", map, o.out);
}
END_TEST

/* Names that no map knows: the values say which taps they are, whatever the order of their axes. */
START_TEST(values_say_what_names_do_not)
{
    static const char *const names[] = {"names", "nameless.h5", "--case", "tiny-prompt", NULL};
    static const char *const check[] = {"tiny-prompt", "nameless.h5", "--map", "./nameless.yaml",
                                        "--dtype",     "float32",     NULL};
    enum { LAYERS = 12, MOVED = 2 * LAYERS + 2 };
    const char *moved[MOVED][2] = {[2 * LAYERS] = {"logits", "c"}, {"tokens", "d"}};
    char texts[2 * LAYERS][2][40];
    for (size_t i = 0; i < 2 * LAYERS; i++) {
        snprintf(texts[i][0], sizeof texts[i][0], "layers/%zu/%s", i / 2,
                 i % 2 ? "attn/q_rope" : "output");
        snprintf(texts[i][1], sizeof texts[i][1], "%s/%zu", i % 2 ? "a" : "b", i / 2);
        moved[i][0] = texts[i][0];
        moved[i][1] = texts[i][1];
    }
    static const char *const dump[] = {"dump", "--model", "model",     "--tokens",
                                       PROMPT, "--out",   "prompt.h5", NULL};
    assert_succeeds(REF, dump);
    write_renamed("nameless.h5", "prompt.h5", (const char *const(*)[2])moved, COUNT(moved));
    outcome o = run(CHECK, names);
    ck_assert_msg(o.status == 0, "%s", o.err);
    static const char *const found[] = {"layers.{N}.attn.q_rope: {from: 'a/{N}'}",
                                        "layers.{N}.output: {from: 'b/{N}'}",
                                        "  logits: {from: 'c'}", "  tokens: {from: 'd'}"};
    for (size_t i = 0; i < COUNT(found); i++)
        ck_assert_msg(strstr(o.out, found[i]) != NULL, "%s is not in %.2000s", found[i],
                      o.out + strcspn(o.out, "f"));
    test_write_text(test_join(work, "nameless.yaml"), o.out);
    assert_succeeds(CHECK, check);
}
END_TEST

/* Every value times as much. */
static void multiply(const char *name, const char *dataset, double times)
{
    hid_t file = H5Fopen(test_join(work, name), H5F_ACC_RDWR, H5P_DEFAULT),
          set = H5Dopen2(file, dataset, H5P_DEFAULT), space = H5Dget_space(set);
    hssize_t n = H5Sget_simple_extent_npoints(space);
    ck_assert_int_gt(n, 0);
    float *values = malloc((size_t)n * sizeof *values);
    ck_assert(values && H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    for (hssize_t i = 0; i < n; i++)
        values[i] = (float)(times * (double)values[i]);
    ck_assert(H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    free(values);
    H5Sclose(space);
    H5Dclose(set);
    ck_assert(H5Fclose(file) >= 0);
}

/* A tensor without a name is the tap from which it differs by a twentieth at most: SAME_VALUES. */
START_TEST(values_within_a_twentieth_are_the_taps)
{
    static const char *const moved[][2] = {{"logits", "c"}};
    static const char *const names[] = {"names", "near.h5", "--case", "tiny-prompt", NULL};
    static const char *const dump[] = {"dump", "--model", "model",     "--tokens",
                                       PROMPT, "--out",   "prompt.h5", NULL};
    assert_succeeds(REF, dump);
    write_renamed("near.h5", "prompt.h5", moved, COUNT(moved));
    multiply("near.h5", "c", _i ? 1.055 : 1.045);
    outcome o = run(CHECK, names);
    ck_assert_msg(o.status == 0, "%s", o.err);
    ck_assert((strstr(o.out, "  logits: {from: 'c'}") != NULL) == (_i == 0));
}
END_TEST

static const struct {
    const char *args[8];
    const char *message;
} NO_MAPS[] = {
    {{"names"}, "names: expected a file or a folder, found none"},
    {{"names", "nothing.npz"}, "nothing.npz: cannot open"},
    {{"names", "empty.h5"}, "empty.h5: "},
    {{"names", "good.h5", "--case", "no-such-case"}, "case 'no-such-case'"},
    {{"names", "good.h5", "--case", "tiny-prompt", "--model", "model"},
     "names: expected --case or --model, found both"},
    {{"names", "good.h5", "--colour", "red"}, "unknown option '--colour'"},
    {{"tiny-one-token", "good.h5", "--map", "nothing"},
     "map 'nothing': expected a map's path, or the name of one in golden/maps"},
    {{"tiny-one-token", "good.h5", "--map", "bad.yaml"}, "bad.yaml"},
    {{"tiny-one-token", "nothing.npz", "--map", "taps"}, "nothing.npz: cannot open"},
    {{"tiny-one-token", "half.h5", "--map", "taps"}, "half.h5: "},
    {{"tiny-one-token", "garbage.h5", "--map", "taps"}, "garbage.h5: "},
    {{"tiny-one-token", "pipe", "--map", "taps"}, "pipe: "},
    {{"tiny-one-token", "folder", "--map", "taps"}, "folder: expected dumps in the folder"},
    {{"tiny-one-token", "good.h5", "--map", "llama-nothing.yaml"}, "map 'llama-nothing.yaml'"},
};

static const struct {
    const char *args[10];
    const char *message;
} NO_PAIRS[] = {
    {{"compare"}, "compare: expected two dumps, found none"},
    {{"compare", "good.h5"}, "compare: expected two dumps, found one"},
    {{"compare", "good.h5", "good.h5", "good.h5"}, "unexpected argument 'good.h5'"},
    {{"compare", "good.h5", "good.h5", "--tolerance", "-1"},
     "--tolerance: expected a number from 0 on, found '-1'"},
    {{"compare", "good.h5", "good.h5", "--tolerance", "nan"}, "--tolerance: expected a number"},
    {{"compare", "good.h5", "good.h5", "--tolerance", "1e-3x"}, "--tolerance: expected a number"},
    {{"compare", "good.h5", "good.h5", "--tolerance", ""}, "--tolerance: expected a number"},
    {{"compare", "good.h5", "good.h5", "--junit", "r.xml"}, "unknown option '--junit'"},
    {{"compare", "good.h5", "good.h5", MODEL, "--case", "tiny-one-token"},
     "compare: expected --case or --model, found both"},
    {{"compare", "good.h5", "good.h5", "--map", "taps"},
     "compare: expected --case or --model with --map, found neither"},
    {{"compare", "good.h5", "good.h5", "--case", "no-such-case"}, "case 'no-such-case'"},
    {{"compare", "good.h5", "nothing.h5"}, "nothing.h5: cannot open"},
    {{"compare", "half.h5", "good.h5"}, "half.h5: "},
    {{"compare", "garbage.h5", "good.h5"}, "garbage.h5: "},
    {{"compare", "good.h5", "pipe"}, "pipe: "},
    {{"compare", "good.h5", "short.h5"}, "short.h5: tokens: expected 1 as in good.h5, found 2"},
    {{"compare", "embed.h5", "logits.h5"},
     "logits.h5: expected a tap that embed.h5 holds too, found none"},
    {{"compare", "good.h5", "good.h5", "--json", "good.h5"}, "good.h5"},
    {{"compare", "good.h5", "good.h5", MODEL, "--json", "model/config.json"}, "config.json"},
    {{"compare", "good.h5", "good.h5", "--json", "nowhere/r.json"}, "nowhere/r.json"},
};

START_TEST(what_cannot_be_compared_is_said_in_one_line)
{
    outcome o = run(CHECK, NO_PAIRS[_i].args);
    assert_unusable(&o, CHECK, NO_PAIRS[_i].message);
    ck_assert_str_eq(o.out, "");
}
END_TEST

static const struct {
    const char *args[10];
    int status;
    const char *verdict, *out;
} PAIRS[] = {
    {{"compare", "good.h5", "good.h5", MODEL}, 0, "SAME", "THE SAME in 436 of the 436 taps"},
    {{"compare", "good.h5", "logits.h5"}, 0, "SAME", "\nonly in A   embed, layers.0.input, "},
    {{"compare", "embed.h5", "wrong.h5"}, 1, "DIFFERENT", "* embed "},
    {{"compare", "wrong.h5", "embed.h5", "--tolerance", "1e30"}, 1, "DIFFERENT", "         inf "},
    {{"compare", "embed.h5", "wrong.h5", "--tolerance", "1"}, 0, "SAME", "(tolerance 1)"},
    {{"compare", "good.h5", "half.h5"}, 2, "UNUSABLE", ""},
    {{"compare", DEBUGGER, DEBUGGER, "--map", "transformers-debugger", "--case", "tiny-prompt"},
     0,
     "SAME",
     "THE SAME in "},
};

START_TEST(two_dumps_are_the_same_or_not)
{
    char *json = test_join(test_fresh_dir(), "r.json");
    const char *args[12];
    size_t count = 0;
    gemma4_error error = {""};
    for (; PAIRS[_i].args[count]; count++)
        args[count] = PAIRS[_i].args[count];
    args[count++] = "--json";
    args[count++] = json;
    args[count] = NULL;
    outcome o = run(CHECK, args);
    ck_assert_msg(o.status == PAIRS[_i].status, "status %d: %s", o.status, o.err);
    if (o.status == 2)
        assert_unusable(&o, CHECK, "half.h5");
    else
        ck_assert_str_eq(o.err, "");
    ck_assert_msg(strstr(o.out, PAIRS[_i].out) != NULL, "%.2000s", o.out);
    gemma4_document *document = gemma4_document_read(json, &error),
                    *schema = gemma4_document_read("spec/report.schema.json", &error);
    ck_assert_msg(document && schema, "%s", error.message);
    const gemma4_node *root = gemma4_document_root(document);
    ck_assert_str_eq(test_schema_violation(gemma4_document_root(schema), root), "");
    ck_assert_str_eq(gemma4_node_get(root, "verdict")->text, PAIRS[_i].verdict);
    gemma4_document_free(document);
    gemma4_document_free(schema);
}
END_TEST

START_TEST(what_no_map_can_import_is_said_in_one_line)
{
    outcome o = run(CHECK, NO_MAPS[_i].args);
    assert_unusable(&o, CHECK, NO_MAPS[_i].message);
}
END_TEST

/* --- files that are no dump --- */

#define BYTES(text) text, sizeof(text) - 1
#define ZIP_MEMBER(name) "PK\3\4\x2d\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0" name

/* Each is given once under its usual extension and once as "dump.h5": the content decides. */
static const struct {
    const char *extension, *bytes;
    size_t size;
    const char *found, *advice;
} OTHER_FILES[] = {
    {"h5", BYTES(""), "an empty file", "did the engine close it"},
    {"npy",
     BYTES("\x93NUMPY\1\0v\0{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }   "
           "\n\0\0\0\0"),
     "a NumPy array (.npy)", "gemma4-check names"},
    {"npz", BYTES(ZIP_MEMBER("\x0a\0\x14\0logits.npy\1\0\x10\0\0\0\0\0")), "NumPy arrays (.npz)",
     "gemma4-check names"},
    {"pt", BYTES(ZIP_MEMBER("\x10\0\0\0archive/data.pkl\x80\2}q\0")), "a PyTorch file (.pt)",
     "golden/engines/pt_to_safetensors.py"},
    {"pt", BYTES("\x80\2\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19.\x80\2M"),
     "a PyTorch file (.pt, pickled)", "golden/engines/pt_to_safetensors.py"},
    {"pkl", BYTES("\x80\4\x95\x10\0\0\0\0\0\0\0}"), "a Python pickle", "with h5py"},
    {"zip", BYTES(ZIP_MEMBER("\7\0\0\0a.trace\0\0")), "a zip archive", "unpack it"},
    {"zip", BYTES("PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), "a zip archive", "unpack it"},
    {"zip", BYTES("PK\3\4"), "a zip archive", "unpack it"},
    {"gguf", BYTES("GGUF\3\0\0\0\x0a\0\0\0\0\0\0\0"), "a GGUF file, which holds weights",
     "dump what the layers compute"},
    {"gz", BYTES("\x1f\x8b\x08\0\0\0\0\0\0\3"), "a gzip file", "unpack it"},
    {"onnx", BYTES("\x08\x08\x12\7pytorch\x1a\0052.1.0"), "an ONNX model", "as outputs"},
    {"json", BYTES("{\"layers.0.output\": [1.0, 2.0]}"), "JSON text", "spec/activations.md"},
    {"json", BYTES("\xef\xbb\xbf\n [1, 2]\n"), "JSON text", "spec/activations.md"},
    {"yaml", BYTES("tokens: [2, 197]\nlayers: 3\n"), "YAML text", "spec/activations.md"},
    {"csv", BYTES("position,value\n0,1.5\n1,2.5\n"), "a table in text (CSV)",
     "spec/activations.md"},
    {"txt", BYTES("0.5 1.5 2.5\n3.5 4.5 5.5\n"), "plain text", "spec/activations.md"},
    {"txt", BYTES("x"), "plain text", "spec/activations.md"},
    {"html", BYTES("<!DOCTYPE html>\n<title>404</title>\n"), "an HTML or XML page",
     "spec/activations.md"},
    {"h5", BYTES("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"),
     "a Git LFS pointer", "git lfs pull"},
    {"bin", BYTES("\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40"),
     "a file of another kind, which begins with 00 00 80 3f 00 00 00 40", "spec/activations.md"},
    {"bin", BYTES("\0"), "a file of another kind, which begins with 00:", "spec/activations.md"},
};

START_TEST(a_file_of_another_kind_is_called_what_it_is)
{
    char usual[32], expected[128];
    snprintf(usual, sizeof usual, "other-%d.%s", _i, OTHER_FILES[_i].extension);
    snprintf(expected, sizeof expected,
             ": expected an activation file (HDF5 or safetensors), found %s",
             OTHER_FILES[_i].found);
    const char *const names[] = {usual, "dump.h5"};
    for (size_t i = 0; i < COUNT(names); i++) {
        const char *const args[] = {"tiny-one-token", names[i], NULL};
        test_write(test_join(work, names[i]), OTHER_FILES[_i].bytes, OTHER_FILES[_i].size);
        outcome o = run(CHECK, args);
        assert_unusable(&o, CHECK, expected);
        assert_unusable(&o, CHECK, names[i]);
        assert_unusable(&o, CHECK, OTHER_FILES[_i].advice);
    }
}
END_TEST

/* A file that calls itself safetensors is read as one: what is wrong with it is more than that it
 * is another kind. */
START_TEST(a_broken_safetensors_file_is_read_as_one)
{
    const char *const args[] = {"tiny-one-token", "broken.safetensors", NULL};
    test_write(test_join(work, args[1]), "\1\0\0\0", 4);
    outcome o = run(CHECK, args);
    assert_unusable(&o, CHECK, "broken.safetensors: ");
    ck_assert_ptr_null(strstr(o.err, "another kind"));
}
END_TEST

START_TEST(no_arguments_show_the_usage)
{
    static const char *const none[] = {NULL};
    for (int i = 0; i < 2; i++) {
        outcome o = run((program)i, none);
        ck_assert_int_eq(o.status, 2);
        ck_assert_str_eq(o.out, "");
        ck_assert_ptr_nonnull(strstr(o.err, "usage: gemma4-"));
    }
}
END_TEST

/* --- what is done --- */

static const struct {
    program which;
    const char *args[14];
    const char *output;
} DONE[] = {
    {REF, {"--help"}, "usage: gemma4-ref"},
    {REF, {"--version"}, "gemma4-ref "},
    {REF, {"facts"}, "26B-A4B"},
    {REF, {"facts", MODEL}, "model\n"},
    {REF, {"run", MODEL, "--tokens", TOKENS}, "next token"},
    {REF, {"run", MODEL, "--tokens", "2,3", "--decode", "3"}, ","},
    {REF,
     {"run", MODEL, "--tokens=2,3,4", "--schedule=2,1", "--first-position=262141", "--cpu=scalar"},
     "next token"},
    {REF,
     {"run", MODEL, "--tokens=2,3,4", "--cpu=auto", "--stream=yes", "--decode=2"},
     "peak resident memory: "},
    {REF,
     {"show", "tiny-prompt"},
     "\nlayers.1.output                  float32   [12, 64]\nlayers.2.input "},
    {REF, {"show", "golden/cases/tiny-prompt.yaml", "tokens"}, "\n" PROMPT "\n"},
    {REF,
     {"show", "tiny-prompt", "layers.5.attn.q_rope"},
     "\nshape   [12, 4, 32]  T, H, D\ndtype   float32\n"},
    {REF,
     {"show", "tiny-prompt", "layers.0.router.topk_ids"},
     "\nshape   [12, 4]  T, K\ndtype   int32\nmin 1  max 15\n"},
    {REF, {"show", "good.h5", "embed"}, "good.h5\nshape   [1, 64]  T, d\n"},
    {REF,
     {"show", "tiny-prompt", "layers.5.attn.q_rope", "--position=3", "--head=1",
      "--json=/dev/stdout"},
     "\"dtype\": \"float32\",\n \"shape\": [1, 1, 32],\n \"positions\": [3],\n \"heads\": "
     "[1],\n \"values\": ["},
    {REF,
     {"show", "tiny-prompt", "tokens", "--json", "/dev/stdout"},
     "\"shape\": [12],\n \"values\": [" PROMPT "]}\n"},
    {REF,
     {"show", "extra.h5"},
     "\nembed                            float32   [1, 64]\nand 1 dataset that is no tap\n"},
    {REF, {"show", "batch.safetensors", "embed"}, "\nshape   [1, 2, 4]  T, d\n"},
    {REF,
     {"show", "infinite.safetensors", "embed"},
     "\ndtype   float32\nNaN 0  Inf 8\nposition 0             inf"},
    {REF, {"show", "nan.safetensors", "embed"}, "\ndtype   float32\nNaN 8  Inf 0\nposition 0  "},
    {REF,
     {"show", "heads.safetensors", "layers.0.attn.q"},
     "\n...\nposition 0, head 37             148             149 "},
    {REF,
     {"show", "merged.safetensors", "layers.0.attn.q"},
     "\nshape   [3, 16]\ndtype   float32\n"},
    {REF,
     {"show", "no-dtype.h5", "embed", "--position", "0"},
     "\nmin 0  max 0  mean 0  RMS 0  NaN 0  Inf 0\nposition 0\n       0 "},
    {CHECK, {"--help"}, "usage: gemma4-check"},
    {CHECK, {"--version"}, "gemma4-check "},
    {CHECK, {"--version"}, "\nsandbox: "},
    {CHECK, {"list"}, "tiny-one-token"},
    {CHECK,
     {"list", "tiny-prompt"},
     "\ntokens     " PROMPT "\nschedule   12\npositions  0 ... 11\n"},
    {CHECK, {"list", "golden/cases/tiny-far.yaml"}, "\npositions  262120 ... 262143\n"},
    {CHECK, {"list"}, "The last 24 of 262,144 positions [start-position, far-positions]\n"},
    {CHECK,
     {"list"},
     " 4128 tokens  4,128 positions, the published window of 1,024 rolled over four times "
     "[many-positions]\n"},
    {CHECK, {"list"}, "\n  start-position   the first token has another position than 0"},
    {CHECK, {"lint"}, " 0 problems"},
    {CHECK, {"tiny-one-token", "good.h5"}, "\nCONFORMS\n"},
    {CHECK, {"golden/cases/tiny-one-token.yaml", "good.h5", "--require", "full"}, "\nCONFORMS\n"},
    {CHECK, {MODEL, "good.h5", "--require=full"}, "from the reference"},
    {CHECK, {MODEL, "short.h5"}, "\nCONFORMS\n"},
    {CHECK, {"tiny-one-token", "logits.h5", "--require", "logits"}, "coverage   logits: 1 of "},
    {CHECK,
     {"tiny-one-token", "best.h5", "--require", "logits"},
     "note       log-probabilities instead of logits: of 20 of 256 tokens, at 1 of 1 "
     "positions\n"},
    {CHECK,
     {"tiny-one-token", "embed.h5"},
     "\nNO FAULT FOUND in the 1 tensor covered (of 373): too little for a verdict; dump logits at "
     "least\n"},
    {CHECK,
     {"tiny-one-token", "golden/cases/tiny-one-token.h5", "--require", "full"},
     "\nCONFORMS\n"},
};

START_TEST(good_command_lines_succeed_in_silence)
{
    outcome o = run(DONE[_i].which, DONE[_i].args);
    ck_assert_msg(o.status == 0, "status %d: %s%s", o.status, o.out, o.err);
    ck_assert_str_eq(o.err, "");
    ck_assert_msg(strstr(o.out, DONE[_i].output) != NULL, "\"%s\" is not in: %s", DONE[_i].output,
                  o.out);
}
END_TEST

/* A misspelt tap would otherwise be not covered, and its user would never know. */
START_TEST(names_near_a_taps_are_warned_of)
{
    static const char *const warnings[] = {
        "warning    layers.0.attn.q-rope (and 2 like it) is no tap and was ignored: did you mean "
        "layers.0.attn.q_rope?\n",
        "warning    /layer.3.output is no tap and was ignored: did you mean layers/3/output?\n",
        "warning    layers.3.self_attn.q_proj is no tap and was ignored: did you mean "
        "layers.3.attn.q?\n",
        "warning    logit is no tap and was ignored: did you mean logits?\n",
        "warning    layers.40.attn.q_norm was ignored: the model has 12 layers, counted from 0\n",
        "1 dataset is no tap and ignored: my.own.tensor\n",
    };
    const char *const args[] = {"tiny-one-token", "misspelt.h5", NULL};
    outcome o = run(CHECK, args);
    ck_assert_msg(o.status == 0, "status %d: %s%s", o.status, o.out, o.err);
    for (size_t i = 0; i < COUNT(warnings); i++)
        ck_assert_msg(strstr(o.out, warnings[i]) != NULL, "%s is not in: %s", warnings[i], o.out);
}
END_TEST

/* Eleven misspelt taps: eight warnings, and a count of the others. */
START_TEST(many_near_names_are_counted)
{
    const char *const args[] = {"tiny-one-token", "badly.h5", NULL};
    outcome o = run(CHECK, args);
    size_t warnings = 0, more = 0;
    for (const char *at = o.out; (at = strstr(at, "warning    ")); at++)
        warnings += strncmp(at, "warning    and ", 15) != 0;
    const char *rest = strstr(o.out, "warning    and ");
    ck_assert_msg(
        rest && sscanf(rest, "warning    and %zu more names that come near a tap's", &more) == 1,
        "%s", o.out);
    ck_assert_uint_eq(warnings, 8);
    ck_assert_uint_eq(warnings + more, COUNT(BADLY_MISSPELT));
    ck_assert_ptr_null(strstr(o.out, "no tap and ignored"));
}
END_TEST

static const struct {
    const char *args[8];
    const char *output;
} DIVERGING[] = {
    {{"tiny-one-token", "wrong.h5"}, "First divergence: embed"},
    {{MODEL, "wrong.h5"}, "First divergence: embed"},
    {{"tiny-one-token", "no-dtype.h5", "--dtype", "float32"}, "First divergence: embed"},
    {{"tiny-one-token", "odd-dtype.h5", "--dtype", "float32"}, "First divergence: embed"},
    {{"tiny-one-token", "embed.h5", "--require", "logits"},
     "--require logits: the dump covers less (partial): 1 of 373 required tensors"},
    {{"tiny-far", "far.h5", "--dtype", "float32"},
     "this case has the flag start-position: some engines cannot start at a position other than "
     "0\n"},
    {{"tiny-far", "far.h5", "--dtype", "float32"}, "this case has the flag far-positions: "},
    {{"tiny-one-token", "best.h5", "--require", "layers"},
     "--require layers: the dump covers less (logits)"},
    {{"tiny-one-token", "logits.h5", "--require", "layers"},
     "--require layers: the dump covers less (logits)"},
    {{"tiny-one-token", "logits.h5", "--require", "full"},
     "--require full: the dump covers less (logits)"},
};

START_TEST(what_does_not_conform_is_status_1)
{
    outcome o = run(CHECK, DIVERGING[_i].args);
    ck_assert_msg(o.status == 1, "status %d: %s", o.status, o.err);
    ck_assert_str_eq(o.err, "");
    ck_assert_msg(strstr(o.out, DIVERGING[_i].output) != NULL, "%s", o.out);
    ck_assert_ptr_nonnull(strstr(o.out, "\nDOES NOT CONFORM\n"));
}
END_TEST

/* --- lint --- */

/* One replacement in the manifest of tiny-one-token, and the problem that lint finds. */
static const struct {
    const char *old, *replacement, *problem;
} LINT[] = {
    {"- softcap-missing", "- softcap-mising",
     "tiny-one-token: shows[9]: expected a cause of the catalogue (gemma4-check explain), found "
     "'softcap-mising'\n"},
    {"- softcap-missing", "- topk-tie-order", "found 'topk-tie-order'\n"},
    {"- softcap-missing", "- v-norm-missing", "shows[9]: found 'v-norm-missing' twice\n"},
    {"- softcap-missing", "- window-not-passed",
     "shows[9]: window-not-passed changes no tap of this case by more than its tolerance\n"},
    {"- softcap-missing", "- rope-missing", "shows[9]: rope-missing changes no tap of this case"},
    {"taps: '*'", "taps: 'layers.*.attn.rope'",
     "tolerances[0].taps: expected a pattern that matches a tap of the model, found "
     "'layers.*.attn.rope'\n"},
    {"taps: '*'", "taps: 'layers.99.*'", "tolerances[0].taps: expected a pattern"},
    {"  - dtype: float32", "  - dtype: fp32",
     "tolerances[0].dtype: expected a tier's name (float32, bfloat16 ...), found 'fp32'\n"},
    {"flags: []", "flags:\n  - flag: far\n    reason: none\n",
     "flags[0]: expected a flag that spec/cases.md explains, found 'far'\n"},
    {"flags: []", "flags:\n  - flag: start-position\n    reason: none\n",
     "flags: start-position is for cases whose first_position is 1 or more, which is 0 here\n"},
    {"flags: []",
     "flags:\n  - flag: start-position\n    reason: a\n  - flag: start-position\n    reason: b\n",
     "flags[1]: found 'start-position' twice\n"},
    {"first_position: 0", "first_position: 5",
     "flags: start-position is for cases whose first_position is 1 or more, which is 5 here\n"},
    {"flags: []", "flags:\n  - flag: many-positions\n    reason: none\n",
     "flags: many-positions is for cases of 1024 tokens or more, of which there are 1 here\n"},
    {"decisions: 12", "decisions: 13",
     "routing.decisions: expected 12 layers times 1 positions, found 13\n"},
};

START_TEST(lint_finds_what_is_wrong_with_a_manifest)
{
    const char *const args[] = {"lint", NULL};
    char *root = test_fresh_dir(), *golden = test_join(root, "golden"),
         *cases = test_join(golden, "cases"), text[8192], real[PATH_MAX];
    ck_assert(mkdir(golden, 0777) == 0 && mkdir(cases, 0777) == 0);
    ck_assert(realpath(test_join(work, "golden/checkpoints"), real) &&
              symlink(real, test_join(golden, "checkpoints")) == 0);
    ck_assert(realpath(test_join(work, "golden/cases/tiny-one-token.h5"), real) != NULL);
    ck_assert_int_eq(symlink(real, test_join(cases, "tiny-one-token.h5")), 0);
    read_text(test_join(work, "golden/cases/tiny-one-token.yaml"), text, sizeof text);
    test_write_text(test_join(cases, "tiny-one-token.yaml"), text);
    outcome o = run_in(root, CHECK, args);
    ck_assert_msg(o.status == 0, "status %d: %s%s", o.status, o.out, o.err);
    test_write_text(test_join(cases, "tiny-one-token.yaml"),
                    test_replace(text, LINT[_i].old, LINT[_i].replacement));
    o = run_in(root, CHECK, args);
    ck_assert_msg(o.status == 1, "status %d: %s%s", o.status, o.out, o.err);
    ck_assert_str_eq(o.err, "");
    ck_assert_msg(strstr(o.out, LINT[_i].problem) != NULL, "%s is not in: %s", LINT[_i].problem,
                  o.out);
}
END_TEST

/* Among cases of many positions alone, honest engines find nothing that they are run on unasked. */
START_TEST(honest_engines_leave_out_cases_of_many_positions)
{
    static const char id[] = "golden/cases/window1024-long.yaml";
    const char *const args[] = {"self-test", "--honest", NULL};
    char *root = test_fresh_dir();
    ck_assert(mkdir(test_join(root, "golden"), 0777) == 0 &&
              mkdir(test_join(root, "golden/cases"), 0777) == 0);
    test_write_text(test_join(root, id), test_read(test_join(work, id)));
    outcome o = run_in(root, CHECK, args);
    ck_assert_msg(o.status == 2, "status %d: %s%s", o.status, o.out, o.err);
    ck_assert_str_eq(o.err,
                     "gemma4-check: self-test --honest: expected at least one case, found none\n");
}
END_TEST

/* Greedy decoding goes on where the prompt ended: as if its tokens had been in the prompt. */
START_TEST(decode_continues_the_prompt)
{
    const char *const three[] = {"run", MODEL, "--tokens", "2,3", "--decode", "3", NULL};
    outcome o = run(REF, three);
    int first, second, third;
    char prompt[64], expected[32];
    ck_assert_int_eq(sscanf(o.out, "%d,%d,%d", &first, &second, &third), 3);
    snprintf(prompt, sizeof prompt, "2,3,%d,%d", first, second);
    snprintf(expected, sizeof expected, "%d\n", third);
    const char *const one[] = {"run", MODEL,        "--tokens", prompt, "--decode",
                               "1",   "--schedule", "1,1,1,1",  NULL};
    o = run(REF, one);
    ck_assert_str_eq(o.out, expected);
}
END_TEST

static void assert_same_files(const char *a, const char *b)
{
    static char first[1 << 20], second[1 << 20];
    FILE *f = fopen(test_join(work, a), "rb"), *g = fopen(test_join(work, b), "rb");
    ck_assert(f != NULL && g != NULL);
    size_t n, m;
    do {
        n = fread(first, 1, sizeof first, f);
        m = fread(second, 1, sizeof second, g);
        ck_assert_uint_eq(n, m);
        ck_assert_msg(memcmp(first, second, n) == 0, "%s and %s differ", a, b);
    } while (n > 0);
    fclose(f);
    fclose(g);
}

START_TEST(the_same_dump_has_the_same_bytes)
{
    const char *const again[] = {"dump", MODEL, "--tokens", TOKENS, "--out", "again.h5", NULL};
    assert_succeeds(REF, again);
    assert_same_files("good.h5", "again.h5");
}
END_TEST

/* Decoding a token at a time is another schedule, not another result. */
START_TEST(a_dump_by_any_schedule_conforms)
{
    const char *const dump[] = {"dump",       MODEL,        "--tokens",  PROMPT, "--out",
                                "chunked.h5", "--schedule", "5,1,1,4,1", NULL};
    const char *const check[] = {"tiny-prompt", "chunked.h5", "--require", "full", NULL};
    assert_succeeds(REF, dump);
    assert_succeeds(CHECK, check);
}
END_TEST

/* A full disk after the terminal's redirection: what was not written must not look done. */
static const struct {
    program which;
    const char *args;
} PRINTING[] = {
    {CHECK, "list"},
    {CHECK, "explain"},
    {CHECK, "explain --all"},
    {CHECK, "explain softcap-missing"},
    {CHECK, "tiny-one-token good.h5"},
    {CHECK, "compare good.h5 good.h5"},
    {REF, "facts"},
    {REF, "run --model model --tokens 2"},
    {REF, "show tiny-prompt embed"},
    {CHECK, "list tiny-prompt"},
};

START_TEST(output_that_cannot_be_written_is_status_2)
{
    char command[PATH_MAX + 256], *err = test_join(test_fresh_dir(), "err");
    outcome o = {0};
    snprintf(command, sizeof command, "cd '%s' && '%s' %s >/dev/full 2>'%s'", work,
             paths[PRINTING[_i].which], PRINTING[_i].args, err);
    int status = system(command);
    o.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    read_text(err, o.err, sizeof o.err);
    assert_unusable(&o, PRINTING[_i].which,
                    "standard output: cannot write: No space left on device");
}
END_TEST

/* --- reports --- */

/* JUnit is red where the exit status is not 0, and nowhere else. */
static const struct {
    const char *dump, *require;
    int status;
    const char *verdict, *junit;
} REPORTS[] = {
    {"good.h5", "full", 0, "PASS", "failures=\"0\" errors=\"0\""},
    {"wrong.h5", NULL, 1, "FAIL", "failures=\"1\" errors=\"0\""},
    {"logits.h5", "logits", 0, "PASS", "failures=\"0\" errors=\"0\""},
    {"logits.h5", "full", 1, "FAIL", "failures=\"1\" errors=\"0\""},
    {"embed.h5", NULL, 0, "PASS", "failures=\"0\" errors=\"0\""},
    {"half.h5", NULL, 2, "UNUSABLE", "failures=\"0\" errors=\"1\""},
    {"missing.h5", NULL, 2, "UNUSABLE", "failures=\"0\" errors=\"1\""},
    {"no-dtype.h5", NULL, 2, "UNUSABLE", "failures=\"0\" errors=\"1\""},
};

START_TEST(json_and_junit_are_written_whatever_the_verdict)
{
    char *json = test_join(test_fresh_dir(), "r.json"),
         *junit = test_join(test_fresh_dir(), "r.xml"), text[2048];
    const char *const args[] = {"tiny-one-token",
                                REPORTS[_i].dump,
                                "--json",
                                json,
                                "--junit",
                                junit,
                                REPORTS[_i].require ? "--require" : NULL,
                                REPORTS[_i].require,
                                NULL};
    gemma4_error error = {""};
    outcome o = run(CHECK, args);
    ck_assert_int_eq(o.status, REPORTS[_i].status);
    gemma4_document *document = gemma4_document_read(json, &error);
    ck_assert_msg(document != NULL, "%s", error.message);
    ck_assert_str_eq(gemma4_node_get(gemma4_document_root(document), "verdict")->text,
                     REPORTS[_i].verdict);
    gemma4_document_free(document);
    read_text(junit, text, sizeof text);
    ck_assert_msg(strstr(text, REPORTS[_i].junit) != NULL, "%s", text);
}
END_TEST

/* A report that an earlier run left must not outlive a run that could not judge. */
START_TEST(an_older_report_is_replaced)
{
    char *json = test_join(test_fresh_dir(), "r.json"), text[512];
    const char *const args[] = {"tiny-one-token", "empty.h5", "--json", json, NULL};
    test_write_text(json, "{\"verdict\": \"PASS\"}");
    ck_assert_int_eq(run(CHECK, args).status, 2);
    read_text(json, text, sizeof text);
    ck_assert_ptr_nonnull(strstr(text, "UNUSABLE"));
}
END_TEST

/* --- the manual --- */

/* The next word of text that begins with the mark: what follows the mark is copied to word. False
 * where there is none. */
static bool next_option(const char **text, const char *mark, char word[64])
{
    const char *at = strstr(*text, mark);
    if (at == NULL)
        return false;
    at += strlen(mark);
    size_t length = strspn(at, "abcdefghijklmnopqrstuvwxyz-");
    snprintf(word, 64, "%.*s", (int)length, at);
    *text = at + length;
    return true;
}

/* Is the mark followed by just this word somewhere? */
static bool has_option(const char *text, const char *mark, const char *word)
{
    char found[64];
    while (next_option(&text, mark, found))
        if (!strcmp(found, word))
            return true;
    return false;
}

/* The options of --help are those of the page, where mdoc has "Fl -json" for --json. */
START_TEST(the_manual_has_the_options_that_there_are)
{
    const char *const help[] = {"--help", NULL};
    const outcome o = run((program)_i, help);
    char page[PATH_MAX], word[64];
    size_t count = 0;
    snprintf(page, sizeof page, "man/%s.1", NAMES[_i]);
    const char *manual = test_read(page);
    for (const char *at = o.out; next_option(&at, "--", word); count++)
        ck_assert_msg(has_option(manual, "Fl -", word), "%s lacks --%s", page, word);
    ck_assert_uint_gt(count, 8);
    for (const char *at = manual; next_option(&at, "Fl -", word);)
        ck_assert_msg(!strcmp(word, "help") || has_option(o.out, "--", word),
                      "%s has --%s, which %s --help lacks", page, word, NAMES[_i]);
}
END_TEST

/* --- several dumps --- */

/* Lists, each dump with the exit status that it has alone: the worst is the whole's. */
static const struct {
    const char *dumps[4];
    int status;
    const char *verdict, *out, *junit[3];
} LISTS[] = {
    {{"{file: good.h5, case: tiny-one-token, require: full}",
      "{file: logits.h5, case: tiny-one-token}"},
     0,
     "PASS",
     "2 dumps: 2 without a fault, 0 do not conform, 0 cannot be judged\n",
     {"<testsuite name=\"tiny-one-token.good\"",
      "<testcase classname=\"gemma4.tiny-one-token.logits.head\" name=\"logits\"",
      "tensors are not in the dump: embed "}},
    {{"{file: good.h5, case: tiny-one-token}", "{file: wrong.h5, case: tiny-one-token}"},
     1,
     "FAIL",
     "DOES NOT CONFORM; first divergence embed",
     {"<testsuite name=\"tiny-one-token.good\"", "<testsuite name=\"tiny-one-token.wrong\"",
      "failures=\"1\""}},
    {{"{file: half.h5, case: tiny-one-token}", "{file: wrong.h5, case: tiny-one-token}",
      "{file: good.h5, model: model}"},
     2,
     "UNUSABLE",
     "3 dumps: 1 without a fault, 1 do not conform, 1 cannot be judged\n",
     {"<testsuite name=\"gemma4-check.half\"", "<testcase classname=\"gemma4.half\" name=\"input\"",
      "<testsuite name=\"gemma4-check.good\""}},
    {{"{file: good.h5}"},
     2,
     "UNUSABLE",
     "attribute case: expected a text, found none",
     {"<error type=\"unusable\"", "errors=\"1\"", "good.h5"}},
    {{"{file: good.h5, case: tiny-one-token, require: most}"},
     2,
     "UNUSABLE",
     "--require: expected full, layers or logits, found 'most'",
     {"<error ", "<testsuite name=\"gemma4-check.good\"", "most"}},
};

START_TEST(several_dumps_are_judged_in_one_call)
{
    char *list = test_join(work, "list.yaml"), *json = test_join(test_fresh_dir(), "r.json"),
         *junit = test_join(test_fresh_dir(), "r.xml");
    const char *const args[] = {"--manifest", "list.yaml", "--json", json, "--junit", junit, NULL};
    char text[4096] = "format: gemma4-dumps\nversion: 1\ndumps:\n";
    gemma4_error error = {""};
    size_t count = 0;
    for (; LISTS[_i].dumps[count]; count++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "  - %s\n",
                 LISTS[_i].dumps[count]);
    test_write_text(list, text);
    outcome o = run(CHECK, args);
    ck_assert_msg(o.status == LISTS[_i].status, "status %d: %.500s%.300s", o.status, o.out, o.err);
    if (o.status == 2)
        assert_unusable(&o, CHECK, "dumps cannot be judged, the first is ");
    else
        ck_assert_str_eq(o.err, "");
    ck_assert_msg(strstr(o.out, LISTS[_i].out) != NULL, "%.1000s", o.out);
    gemma4_document *document = gemma4_document_read(json, &error),
                    *schema = gemma4_document_read("spec/report.schema.json", &error);
    ck_assert_msg(document && schema, "%s", error.message);
    const gemma4_node *root = gemma4_document_root(document);
    ck_assert_str_eq(test_schema_violation(gemma4_document_root(schema), root), "");
    ck_assert_str_eq(gemma4_node_get(root, "verdict")->text, LISTS[_i].verdict);
    ck_assert_uint_eq(gemma4_node_get(root, "reports")->count, count);
    gemma4_document_free(document);
    gemma4_document_free(schema);
    const char *xml = test_read(junit), *malformed = test_malformed(xml);
    ck_assert_msg(malformed == NULL, "%.80s", malformed);
    ck_assert_uint_eq(test_occurrences(xml, "<testsuite "), count);
    for (size_t i = 0; i < COUNT(LISTS[_i].junit); i++)
        ck_assert_msg(strstr(xml, LISTS[_i].junit[i]) != NULL, "%s is not in %.500s",
                      LISTS[_i].junit[i], xml);
}
END_TEST

Suite *cli_suite(void)
{
    Suite *suite = suite_create("cli");
    TCase *c = tcase_create("programs");
    tcase_add_unchecked_fixture(c, set_up, NULL);
    tcase_set_timeout(c, 60);
    suite_add_tcase(suite, c);
    tcase_add_loop_test(c, one_line_says_what_is_wrong, 0, COUNT(REFUSED));
    tcase_add_test(c, a_real_engines_own_names_lead_to_a_verdict);
    tcase_add_loop_test(c, an_engines_own_map_is_proposed, 0, 5);
    tcase_add_test(c, values_say_what_names_do_not);
    tcase_add_loop_test(c, values_within_a_twentieth_are_the_taps, 0, 2);
    tcase_add_loop_test(c, what_no_map_can_import_is_said_in_one_line, 0, COUNT(NO_MAPS));
    tcase_add_loop_test(c, what_cannot_be_compared_is_said_in_one_line, 0, COUNT(NO_PAIRS));
    tcase_add_loop_test(c, two_dumps_are_the_same_or_not, 0, COUNT(PAIRS));
    tcase_add_loop_test(c, a_file_of_another_kind_is_called_what_it_is, 0, COUNT(OTHER_FILES));
    tcase_add_test(c, a_broken_safetensors_file_is_read_as_one);
    tcase_add_test(c, no_arguments_show_the_usage);
    tcase_add_loop_test(c, good_command_lines_succeed_in_silence, 0, COUNT(DONE));
    tcase_add_test(c, names_near_a_taps_are_warned_of);
    tcase_add_test(c, many_near_names_are_counted);
    tcase_add_loop_test(c, what_does_not_conform_is_status_1, 0, COUNT(DIVERGING));
    tcase_add_loop_test(c, lint_finds_what_is_wrong_with_a_manifest, 0, COUNT(LINT));
    tcase_add_test(c, honest_engines_leave_out_cases_of_many_positions);
    tcase_add_test(c, decode_continues_the_prompt);
    tcase_add_test(c, the_same_dump_has_the_same_bytes);
    tcase_add_test(c, a_dump_by_any_schedule_conforms);
    tcase_add_loop_test(c, output_that_cannot_be_written_is_status_2, 0,
                        access("/dev/full", W_OK) == 0 ? COUNT(PRINTING) : 0);
    tcase_add_loop_test(c, json_and_junit_are_written_whatever_the_verdict, 0, COUNT(REPORTS));
    tcase_add_test(c, an_older_report_is_replaced);
    tcase_add_loop_test(c, several_dumps_are_judged_in_one_call, 0, COUNT(LISTS));
    tcase_add_loop_test(c, the_manual_has_the_options_that_there_are, 0, 2);
    return suite;
}
