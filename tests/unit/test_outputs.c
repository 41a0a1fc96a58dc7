/* What the programs leave behind: an output is there whole or not at all, whatever ends them, and
 * no input is lost to it. */
#include "gguf.h"
#include "guard.h"
#include "isolate.h"
#include "output.h"
#include "safetensors.h"
#include "suites.h"
#include "support.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/mount.h>
#include <sys/prctl.h>
#endif

#define COUNT(table) (sizeof(table) / sizeof *(table))

enum { MOST_ARGUMENTS = 16 };

typedef struct program {
    const char *name;
    char path[PATH_MAX];
} program;

static program ref = {.name = "gemma4-ref"}, check = {.name = "gemma4-check"};
static char *work; /* where they run */

/* --- running --- */

typedef struct outcome {
    int status; /* as waitpid has it */
    char err[2048];
} outcome;

/* A child in `work` that has called prepare (which may be NULL) and then runs the program, its
 * output in the files out and err there. */
static pid_t start(const program *p, const char *const *args, void (*prepare)(void))
{
    char *argv[MOST_ARGUMENTS] = {(char *)p->path};
    for (size_t i = 0; args[i] && i + 2 < MOST_ARGUMENTS; i++)
        argv[i + 1] = (char *)args[i];
    pid_t child = fork();
    if (child == 0) {
        int out = -1, err = -1;
        if (chdir(work) == 0) {
            out = open("out", O_WRONLY | O_CREAT | O_TRUNC, 0600);
            err = open("err", O_WRONLY | O_CREAT | O_TRUNC, 0600);
        }
        if (out < 0 || err < 0 || dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0)
            _exit(126);
        signal(SIGHUP, SIG_DFL); /* nohup leaves it ignored, and that is inherited */
        if (prepare)
            prepare();
        execv(p->path, argv);
        _exit(127);
    }
    ck_assert(child > 0);
    return child;
}

static outcome wait_for(pid_t child)
{
    outcome o = {0};
    ck_assert(waitpid(child, &o.status, 0) == child);
    FILE *f = fopen(test_join(work, "err"), "r");
    ck_assert_ptr_nonnull(f);
    o.err[fread(o.err, 1, sizeof o.err - 1, f)] = '\0';
    fclose(f);
    return o;
}

static outcome run(const program *p, const char *const *args, void (*prepare)(void))
{
    return wait_for(start(p, args, prepare));
}

/* Status 2, and one line that names the program and holds the text. */
static void assert_refused(const outcome *o, const program *p, const char *text)
{
    const char *newline = strchr(o->err, '\n');
    ck_assert_msg(WIFEXITED(o->status) && WEXITSTATUS(o->status) == 2, "status %x: %s",
                  (unsigned)o->status, o->err);
    ck_assert_msg(newline && newline[1] == '\0', "expected one line: %s", o->err);
    ck_assert_msg(strncmp(o->err, p->name, strlen(p->name)) == 0, "%s", o->err);
    ck_assert_msg(strstr(o->err, text) != NULL, "\"%s\" is not in: %s", text, o->err);
}

/* How many files and folders a folder holds. */
static size_t entries(const char *directory)
{
    size_t count = 0;
    DIR *d = opendir(directory);
    ck_assert_ptr_nonnull(d);
    for (struct dirent *entry; (entry = readdir(d));)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(d);
    return count;
}

static bool has_temporary(const char *directory)
{
    bool found = false;
    DIR *d = opendir(directory);
    for (struct dirent *entry; d && (entry = readdir(d));)
        found = found || strstr(entry->d_name, ".tmp.");
    if (d)
        closedir(d);
    return found;
}

static void copy(const char *from, const char *to)
{
    static char bytes[4 << 20];
    FILE *f = fopen(from, "rb");
    ck_assert_ptr_nonnull(f);
    size_t size = fread(bytes, 1, sizeof bytes, f);
    ck_assert(fclose(f) == 0 && size < sizeof bytes);
    test_write(to, bytes, size);
}

static void set_up(void)
{
    const char *build = getenv("GEMMA4_BUILD");
    const char *const dump[] = {"dump",  "--model", "model",  "--tokens", "2",
                                "--out", "good.h5", "--taps", "logits",   NULL};
    work = test_fresh_dir();
    program *const programs[] = {&ref, &check};
    for (size_t i = 0; i < COUNT(programs); i++)
        ck_assert(realpath(test_join(build && *build ? build : "build", programs[i]->name),
                           programs[i]->path) != NULL);
    char *model = test_join(work, "model");
    ck_assert_int_eq(mkdir(model, 0777), 0);
    copy("golden/checkpoints/tiny/config.json", test_join(model, "config.json"));
    copy("golden/checkpoints/tiny/model.safetensors", test_join(model, "model.safetensors"));
    copy("tests/fuzz/corpus/gguf/blocks-of-32", test_join(work, "model.gguf"));
    outcome o = run(&ref, dump, NULL);
    ck_assert_msg(o.status == 0, "%s", o.err);
}

/* --- disks that are full --- */

/* '@' stands for the folder of the output. */
static const struct {
    program *which;
    const char *args[MOST_ARGUMENTS - 2];
} WRITERS[] = {
    {&ref, {"dump", "--model", "model", "--tokens", "2,3,4", "--out", "@/x.h5"}},
    {&ref, {"synth", "--preset", "tiny", "--seed", "1", "--out", "@"}},
    {&ref, {"dequantise", "model.gguf", "@"}},
    {&check, {"--model", "model", "good.h5", "--json", "@/x.json"}},
    {&check, {"--model", "model", "good.h5", "--junit", "@/x.xml"}},
    {&check, {"--model", "model", "good.h5", "--html", "@/x.html"}},
};

static outcome run_writer(int i, const char *folder, void (*prepare)(void))
{
    const char *args[MOST_ARGUMENTS] = {NULL};
    for (size_t k = 0; WRITERS[i].args[k]; k++) {
        const char *word = WRITERS[i].args[k];
        args[k] = *word != '@' ? word : word[1] ? test_join(folder, word + 2) : folder;
    }
    return run(WRITERS[i].which, args, prepare);
}

static void allow_small_files(void)
{
    struct rlimit limit = {512, 512};
    int null = open("/dev/null", O_WRONLY);
    dup2(null, STDOUT_FILENO); /* the text is no file that the test is about */
    setrlimit(RLIMIT_FSIZE, &limit);
}

/* Room for a line, and for no report. */
static void allow_tiny_files(void)
{
    allow_small_files();
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){256, 256});
}

/* The short report that says what went wrong still fits. */
START_TEST(a_file_that_may_not_grow_is_one_line)
{
    static const char *const reports[][2] = {{"x.json", "\"UNUSABLE\""},
                                             {"x.xml", "</testsuites>"}};
    char *folder = test_fresh_dir();
    size_t left = 0;
    outcome o = run_writer(_i, folder, allow_small_files);
    assert_refused(&o, WRITERS[_i].which, "File too large");
    for (size_t i = 0; i < COUNT(reports); i++)
        if (access(test_join(folder, reports[i][0]), F_OK) == 0) {
            ck_assert_ptr_nonnull(
                strstr(test_read(test_join(folder, reports[i][0])), reports[i][1]));
            left++;
        }
    ck_assert_uint_eq(entries(folder), left);
}
END_TEST

#ifdef __linux__

/* Needs root, or it is skipped: the test above covers the same code. */
START_TEST(a_full_disk_is_one_line)
{
    char *folder = test_fresh_dir();
    if (mount("tmpfs", folder, "tmpfs", 0, "size=4k"))
        return;
    test_write_text(test_join(folder, "full"), "");
    int fill = open(test_join(folder, "full"), O_WRONLY);
    static const char page[4096];
    while (write(fill, page, sizeof page) > 0)
        ;
    close(fill);
    outcome o = run_writer(_i, folder, NULL);
    size_t left = entries(folder);
    ck_assert_int_eq(umount2(folder, MNT_DETACH), 0);
    assert_refused(&o, WRITERS[_i].which, "No space left on device");
    ck_assert_uint_eq(left, 1);
}
END_TEST

/* Root writes where it may not, unless it has given that up. */
static void obey_permissions(void)
{
    prctl(PR_CAPBSET_DROP, 1 /* CAP_DAC_OVERRIDE */, 0, 0, 0);
}

START_TEST(a_read_only_folder_is_one_line)
{
    char *folder = test_fresh_dir();
    ck_assert_int_eq(chmod(folder, 0555), 0);
    outcome o = run_writer(_i, folder, obey_permissions);
    chmod(folder, 0755);
    assert_refused(&o, WRITERS[_i].which, "Permission denied");
    ck_assert_uint_eq(entries(folder), 0);
}
END_TEST

#endif

/* Of several dumps each leaves what it has to say in a file without a name. */
START_TEST(what_is_noted_of_several_dumps_is_whole)
{
    const char *const words[] = {"--manifest", "several.yaml", NULL};
    copy("golden/dumps/tiny-prompt-rope-pairing-contiguous.h5", test_join(work, "wrong.h5"));
    test_write_text(
        test_join(work, "several.yaml"),
        "format: gemma4-dumps\nversion: 1\ndumps:\n  - {file: wrong.h5, model: model}\n");
    outcome o = run(&check, words, NULL);
    ck_assert(WIFEXITED(o.status) && WEXITSTATUS(o.status) == 1);
    o = run(&check, words, allow_small_files);
    assert_refused(&o, &check, "1 of 1 dumps cannot be judged");
    o = run(&check, words, allow_tiny_files);
    assert_refused(&o, &check, "cannot write a temporary file");
}
END_TEST

/* What was there before stays, to the byte. */
START_TEST(a_failure_leaves_the_older_output)
{
    char *folder = test_fresh_dir(), *older = test_join(folder, "x.h5");
    test_write_text(older, "older");
    outcome o = run_writer(0, folder, allow_small_files);
    assert_refused(&o, &ref, "x.h5: ");
    ck_assert_str_eq(test_read(older), "older");
    ck_assert_uint_eq(entries(folder), 1);
}
END_TEST

/* --- outputs that are something else --- */

static const struct {
    program *which;
    const char *args[MOST_ARGUMENTS - 2];
    const char *message;
} REFUSED[] = {
    /* inputs */
    {&ref,
     {"dump", "--model", "model", "--tokens", "2", "--out", "model/model.safetensors"},
     "found a file of the checkpoint"},
    {&ref,
     {"dump", "--model", "model", "--tokens", "2", "--out", "model/../model/config.json"},
     "found a file of the checkpoint"},
    {&ref,
     {"dump", "--model", "model", "--tokens", "2", "--out", "link"},
     "link: expected a file of its own to write to, found a file of the"},
    {&check,
     {"--model", "model", "good.h5", "--json", "good.h5"},
     "good.h5: expected a file of its own to write to, found an input"},
    {&check, {"--model", "model", "good.h5", "--junit", "./good.h5"}, "found an input"},
    {&check,
     {"--model", "model", "good.h5", "--html", "model/config.json"},
     "found a file of the checkpoint"},
    {&check,
     {"--model", "model", "good.h5", "--json", "r", "--html", "r"},
     "r: expected a file of its own to write to, found another report"},
    {&check, {"./case.yaml", "good.h5", "--json", "case.yaml"}, "found the case's manifest"},
    {&check, {"./case.yaml", "good.h5", "--json", "tiny-one-token.h5"}, "found the case's golden"},
    /* what is no file */
    {&ref,
     {"dump", "--model", "model", "--tokens", "2", "--out", "/dev/null"},
     "/dev/null: cannot write: expected a file's name"},
    {&ref,
     {"dump", "--model", "model", "--tokens", "2", "--out", "pipe"},
     "pipe: cannot write: expected a file's name, found a pipe"},
    {&ref, {"dump", "--model", "model", "--tokens", "2", "--out", "."}, "found a folder"},
    {&ref,
     {"dump", "--model", "model", "--tokens", "2", "--out", ""},
     "cannot write: No such file"},
    {&check, {"--model", "model", "good.h5", "--json", "."}, "found a folder"},
    {&check,
     {"--model", "model", "good.h5", "--json", "/dev/full"},
     "/dev/full: cannot write: No space left on device"},
    /* inputs that are no files: refused, and not waited for */
    {&ref,
     {"run", "--model", "of-pipes", "--tokens", "2"},
     "of-pipes/config.json: expected a regular file"},
    {&ref,
     {"run", "--model", "of-folders", "--tokens", "2"},
     "of-folders/config.json: expected a regular file"},
    {&ref,
     {"run", "--model", "of-devices", "--tokens", "2"},
     "of-devices/config.json: expected a regular file"},
    {&ref, {"run", "--model", "of-nothing", "--tokens", "2"}, "of-nothing/config.json"},
    {&ref,
     {"run", "--model", "piped-weights", "--tokens", "2"},
     "piped-weights/model.safetensors: expected a regular file"},
    {&ref,
     {"run", "--model", "folder-weights", "--tokens", "2"},
     "folder-weights/model.safetensors: expected a regular file"},
    {&ref,
     {"run", "--model", "device-weights", "--tokens", "2"},
     "device-weights/model.safetensors: expected a regular file"},
    {&ref,
     {"run", "--model", "empty-weights", "--tokens", "2"},
     "empty-weights/model.safetensors: expected at least 8 bytes, found 0"},
    {&check, {"./pipe", "good.h5"}, "pipe: expected a regular file"},
    {&check, {"/dev/null", "good.h5"}, "/dev/null: expected a regular file"},
    {&check,
     {"--model", "model", "pipe"},
     "pipe: expected an activation file (HDF5 or safetensors), found a pipe"},
};

/* A checkpoint whose one file is what make() makes; config.json where the weights are asked for. */
static void odd_checkpoint(const char *name, const char *file, void (*make)(const char *))
{
    char *folder = test_join(work, name);
    ck_assert_int_eq(mkdir(folder, 0777), 0);
    if (strcmp(file, "config.json") != 0)
        copy("golden/checkpoints/tiny/config.json", test_join(folder, "config.json"));
    make(test_join(folder, file));
}

static void make_pipe(const char *path)
{
    ck_assert_int_eq(mkfifo(path, 0600), 0);
}

static void make_folder(const char *path)
{
    ck_assert_int_eq(mkdir(path, 0700), 0);
}

static void make_device(const char *path)
{
    ck_assert_int_eq(symlink("/dev/zero", path), 0);
}

static void make_empty(const char *path)
{
    test_write_text(path, "");
}

static void set_up_odd(void)
{
    set_up();
    make_pipe(test_join(work, "pipe"));
    ck_assert_int_eq(symlink("model/model.safetensors", test_join(work, "link")), 0);
    const char *manifest = test_read("golden/cases/tiny-one-token.yaml");
    test_write_text(test_join(work, "case.yaml"), manifest);
    copy("golden/cases/tiny-one-token.h5", test_join(work, "tiny-one-token.h5"));
    odd_checkpoint("of-pipes", "config.json", make_pipe);
    odd_checkpoint("of-folders", "config.json", make_folder);
    odd_checkpoint("of-devices", "config.json", make_device);
    odd_checkpoint("of-nothing", "config.json", make_empty);
    odd_checkpoint("piped-weights", "model.safetensors", make_pipe);
    odd_checkpoint("folder-weights", "model.safetensors", make_folder);
    odd_checkpoint("device-weights", "model.safetensors", make_device);
    odd_checkpoint("empty-weights", "model.safetensors", make_empty);
}

START_TEST(what_would_be_lost_is_refused)
{
    char *weights = test_join(work, "model/model.safetensors"), *dump = test_join(work, "good.h5");
    struct stat before, after, dump_before, dump_after;
    ck_assert(stat(weights, &before) == 0 && stat(dump, &dump_before) == 0);
    outcome o = run(REFUSED[_i].which, REFUSED[_i].args, NULL);
    assert_refused(&o, REFUSED[_i].which, REFUSED[_i].message);
    ck_assert(stat(weights, &after) == 0 && stat(dump, &dump_after) == 0);
    ck_assert(before.st_ino == after.st_ino && before.st_size == after.st_size);
    ck_assert(dump_before.st_ino == dump_after.st_ino && dump_before.st_size == dump_after.st_size);
    ck_assert(!has_temporary(work) && !has_temporary(test_join(work, "model")));
}
END_TEST

/* A report may go to a pipe or device as it is, and a link leads to the file that is replaced. */
START_TEST(reports_follow_links_and_write_to_devices)
{
    const char *const args[] = {"--model",   "model",  "good.h5", "--json",
                                "/dev/null", "--html", "leads",   NULL};
    struct stat device, link;
    test_write_text(test_join(work, "led"), "older");
    ck_assert_int_eq(symlink("led", test_join(work, "leads")), 0);
    outcome o = run(&check, args, NULL);
    ck_assert_msg(o.status == 0, "status %x: %s", (unsigned)o.status, o.err);
    ck_assert(stat("/dev/null", &device) == 0 && S_ISCHR(device.st_mode));
    ck_assert(lstat(test_join(work, "leads"), &link) == 0 && S_ISLNK(link.st_mode));
    ck_assert_ptr_nonnull(strstr(test_read(test_join(work, "led")), "<html"));
}
END_TEST

/* --- signals --- */

static void wait_a_moment(void)
{
    const struct timespec moment = {.tv_nsec = 1000000};
    nanosleep(&moment, NULL);
}

/* Long runs: the signal comes as soon as the temporary file is there. */
static const struct {
    const char *args[MOST_ARGUMENTS - 2];
    int signal;
} KILLED[] = {
    {{"synth", "--preset", "26b-a4b", "--layers", "2", "--vocab", "8192", "--seed", "1", "--out",
      "@"},
     SIGINT},
    {{"synth", "--preset", "26b-a4b", "--layers", "2", "--vocab", "8192", "--seed", "1", "--out",
      "@"},
     SIGTERM},
    {{"dump", "--model", "model", "--tokens", NULL, "--out", "@/x.h5"}, SIGTERM},
    {{"dump", "--model", "model", "--tokens", NULL, "--out", "@/x.h5"}, SIGHUP},
    {{"dump", "--model", "model", "--tokens", NULL, "--out", "@/x.h5"}, SIGPIPE},
};

START_TEST(a_signal_leaves_no_temporary_file)
{
    enum { TOKENS = 1500 };
    static char tokens[2 * TOKENS];
    const char *args[MOST_ARGUMENTS] = {NULL};
    char *folder = test_fresh_dir(), *path = test_join(folder, "x.h5");
    for (size_t i = 0; i < sizeof tokens; i++)
        tokens[i] = i % 2 ? ',' : '2';
    tokens[sizeof tokens - 1] = '\0';
    for (size_t k = 0; k < COUNT(KILLED[_i].args); k++) {
        const char *word = KILLED[_i].args[k];
        args[k] = word ? strcmp(word, "@") == 0 ? folder : *word == '@' ? path : word : NULL;
    }
    if (!args[4])
        args[4] = tokens;
    pid_t child = start(&ref, args, NULL);
    int status;
    while (!has_temporary(folder)) {
        ck_assert_msg(waitpid(child, &status, WNOHANG) == 0, "it ended before it began to write");
        wait_a_moment();
    }
    ck_assert_int_eq(kill(child, KILLED[_i].signal), 0);
    outcome o = wait_for(child);
    ck_assert_msg(WIFSIGNALED(o.status) && WTERMSIG(o.status) == KILLED[_i].signal, "status %x: %s",
                  (unsigned)o.status, o.err);
    ck_assert_uint_eq(entries(folder), 0);
    ck_assert_str_eq(o.err, "");
}
END_TEST

/* --- files that are cut short while they are mapped --- */

START_TEST(a_checkpoint_cut_short_while_it_runs_is_named)
{
    const char *const args[] = {"run", "--model",  "cut",    "--tokens",
                                "2",   "--decode", "100000", NULL};
    char *model = test_join(work, "cut"), *weights = test_join(model, "model.safetensors"),
         *out = test_join(work, "out");
    struct stat printed = {0};
    ck_assert_int_eq(mkdir(model, 0777), 0);
    copy("golden/checkpoints/tiny/config.json", test_join(model, "config.json"));
    copy("golden/checkpoints/tiny/model.safetensors", weights);
    ck_assert(unlink(out) == 0);
    pid_t child = start(&ref, args, NULL);
    while (stat(out, &printed) != 0 || printed.st_size == 0)
        wait_a_moment();
    ck_assert_int_eq(truncate(weights, 4096), 0);
    outcome o = wait_for(child);
    assert_refused(&o, &ref,
                   "cut/model.safetensors: expected a file that stays as it is, found it cut short "
                   "while it was read");
}
END_TEST

/* What gemma4-check does in its child: maps a file that is then cut short, and reads on. */
static int read_cut_safetensors(void *context)
{
    gemma4_error error = {""};
    unsigned sum = 0;
    gemma4_safetensors *files = gemma4_safetensors_open(context, &error);
    if (!files || truncate(context, 4096))
        return 3;
    for (size_t i = 0; i < gemma4_safetensors_count(files); i++) {
        const gemma4_tensor *tensor = gemma4_safetensors_at(files, i);
        for (size_t k = 0; k < tensor->size; k++)
            sum += ((const volatile unsigned char *)tensor->data)[k];
    }
    return sum ? 4 : 5;
}

static int read_cut_gguf(void *context)
{
    gemma4_error error = {""};
    unsigned sum = 0;
    gemma4_gguf *file = gemma4_gguf_open(context, &error);
    if (!file || truncate(context, 4096))
        return 3;
    for (size_t i = 0; i < gemma4_gguf_tensor_count(file); i++) {
        const gemma4_gguf_tensor *tensor = gemma4_gguf_tensor_at(file, i);
        for (size_t k = 0; k < tensor->size; k++)
            sum += ((const volatile unsigned char *)tensor->data)[k];
    }
    return sum ? 4 : 5;
}

START_TEST(a_check_of_a_file_cut_short_ends_in_its_message)
{
    static const struct {
        const char *from;
        int (*read)(void *context);
    } kinds[] = {{"golden/checkpoints/tiny/model.safetensors", read_cut_safetensors},
                 {"tests/fuzz/corpus/gguf/blocks-of-32", read_cut_gguf}};
    for (size_t i = 0; i < COUNT(kinds); i++) {
        gemma4_error error = {""};
        char *path = test_join(test_fresh_dir(), "weights");
        copy(kinds[i].from, path);
        gemma4_guard_install("unit-tests");
        int status = gemma4_isolate(kinds[i].read, path, "the dump", &error);
        gemma4_guard_reset();
        ck_assert_int_eq(status, -1);
        assert_message_contains(&error, "weights: expected a file that stays as it is, "
                                        "found it cut short while it was read");
    }
}
END_TEST

/* A new file under the name of one that is mapped is another file. */
START_TEST(a_file_that_is_replaced_stays_as_it_was)
{
    gemma4_error error = {""};
    char *folder = test_fresh_dir(), *path = test_join(folder, "a"),
         *other = test_join(folder, "b");
    copy("tests/fuzz/corpus/gguf/blocks-of-32", path);
    test_write_text(other, "");
    gemma4_gguf *file = gemma4_gguf_open(path, &error);
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(rename(other, path), 0);
    const gemma4_gguf_tensor *tensor = gemma4_gguf_find(file, "blk.1.ffn_norm.weight");
    ck_assert_ptr_nonnull(tensor);
    size_t same = 0;
    for (size_t k = 0; k < tensor->size; k++)
        same += tensor->data[k] < 64; /* as the seed has them */
    ck_assert_uint_eq(same, tensor->size);
    gemma4_gguf_close(file);
}
END_TEST

/* --- whoever reads leaves, and names that are no text --- */

static void close_the_reading_end(void)
{
    int ends[2];
    if (pipe(ends) || dup2(ends[1], STDOUT_FILENO) < 0)
        _exit(126);
    close(ends[0]);
    close(ends[1]);
}

START_TEST(a_reader_that_leaves_ends_the_program)
{
    static const struct {
        program *which;
        const char *args[MOST_ARGUMENTS - 2];
    } readers[] = {{&ref, {"run", "--model", "model", "--tokens", "2", "--decode", "1000"}},
                   {&ref, {"facts"}},
                   {&check, {"--model", "model", "good.h5"}}};
    for (size_t i = 0; i < COUNT(readers); i++) {
        outcome o = run(readers[i].which, readers[i].args, close_the_reading_end);
        ck_assert_msg(WIFSIGNALED(o.status) && WTERMSIG(o.status) == SIGPIPE, "status %x: %s",
                      (unsigned)o.status, o.err);
        ck_assert(!has_temporary(work));
    }
}
END_TEST

/* Not UTF-8, with what moves a terminal's cursor. */
START_TEST(a_name_need_not_be_text)
{
    static const char name[] = "n\xff\x1b[2J\xc3.h5", json[] = "r\xff.json", xml[] = "r\xfe.xml";
    const char *const dump[] = {"dump",  "--model", "model",  "--tokens", "2",
                                "--out", name,      "--taps", "logits",   NULL};
    const char *const good[] = {"--model", "model", name, "--json", json, "--junit", xml, NULL};
    const char *const bad[] = {"--model", "model", "no\xff\x1b[2J.h5", "--json", json, NULL};
    outcome o = run(&ref, dump, NULL);
    ck_assert_msg(o.status == 0, "%s", o.err);
    o = run(&check, good, NULL);
    ck_assert_msg(o.status == 0, "%s", o.err);
    const char *const written[] = {test_read(test_join(work, json)),
                                   test_read(test_join(work, xml)),
                                   test_read(test_join(work, "out"))};
    for (size_t i = 0; i < COUNT(written); i++)
        ck_assert_msg(*written[i] && !strchr(written[i], '\xff') && !strchr(written[i], '\x1b'),
                      "%s", written[i]);
    o = run(&check, bad, NULL);
    assert_refused(&o, &check, "no");
    ck_assert_msg(!strchr(o.err, '\x1b'), "%s", o.err);
}
END_TEST

/* --- a writer that dies --- */

static int begin_and_fall(void *context, gemma4_error *error)
{
    gemma4_output output;
    if (gemma4_output_name(&output, context, error))
        return -1;
    signal(SIGSEGV, SIG_DFL); /* under a sanitizer, which would say more */
    raise(SIGSEGV);
    return 0;
}

/* As libhdf5 does. */
static int begin_and_leave(void *context, gemma4_error *error)
{
    gemma4_output output;
    if (gemma4_output_name(&output, context, error))
        return -1;
    _exit(255);
}

static int begin_and_fail(void *context, gemma4_error *error)
{
    gemma4_output output;
    if (gemma4_output_name(&output, context, error))
        return -1;
    gemma4_output_discard(&output);
    return gemma4_fail(error, "%s: a reason", (const char *)context);
}

START_TEST(a_writer_that_dies_is_one_line_and_leaves_nothing)
{
    static const struct {
        int (*write)(void *context, gemma4_error *error);
        const char *said;
    } writers[] = {
        {begin_and_fall, "x.h5: not written: the process that writes it died of signal 11"},
        {begin_and_leave, "x.h5: not written: the HDF5 library ended the process that writes it"},
        {begin_and_fail, "x.h5: a reason"},
    };
    for (size_t i = 0; i < COUNT(writers); i++) {
        gemma4_error error = {""};
        char *folder = test_fresh_dir(), *path = test_join(folder, "x.h5");
        ck_assert_int_eq(gemma4_isolate_writer(writers[i].write, path, path, &error), -1);
        assert_message_contains(&error, writers[i].said);
        ck_assert_uint_eq(entries(folder), 0);
    }
}
END_TEST

/* --- the module --- */

START_TEST(an_output_appears_when_it_is_committed)
{
    gemma4_error error = {""};
    gemma4_output output;
    char *folder = test_fresh_dir(), *path = test_join(folder, "x");
    ck_assert_int_eq(gemma4_output_open(&output, path, &error), 0);
    fputs("whole", output.f);
    ck_assert_int_ne(access(path, F_OK), 0);
    ck_assert_uint_eq(entries(folder), 1);
    ck_assert_msg(gemma4_output_commit(&output, &error) == 0, "%s", error.message);
    ck_assert_str_eq(test_read(path), "whole");
    ck_assert_uint_eq(entries(folder), 1);
    gemma4_output_discard(&output); /* nothing any more */
    ck_assert_str_eq(test_read(path), "whole");
}
END_TEST

START_TEST(a_discarded_output_leaves_nothing)
{
    gemma4_error error = {""};
    gemma4_output first, second;
    char *folder = test_fresh_dir(), *path = test_join(folder, "x");
    ck_assert_int_eq(gemma4_output_open(&first, path, &error), 0);
    /* two writers of one file do not share a temporary one */
    ck_assert_int_eq(gemma4_output_open(&second, path, &error), 0);
    ck_assert_str_ne(first.temporary, second.temporary);
    gemma4_output_discard(&first);
    gemma4_output_discard(&second);
    ck_assert_uint_eq(entries(folder), 0);
}
END_TEST

Suite *outputs_suite(void)
{
    Suite *suite = suite_create("outputs");
    TCase *disks = tcase_create("disks"), *odd = tcase_create("odd"),
          *signals = tcase_create("signals");
    tcase_add_unchecked_fixture(disks, set_up, NULL);
    tcase_add_loop_test(disks, a_file_that_may_not_grow_is_one_line, 0, COUNT(WRITERS));
#ifdef __linux__
    tcase_add_loop_test(disks, a_full_disk_is_one_line, 0, COUNT(WRITERS));
    tcase_add_loop_test(disks, a_read_only_folder_is_one_line, 0, COUNT(WRITERS));
#endif
    tcase_add_test(disks, what_is_noted_of_several_dumps_is_whole);
    tcase_add_test(disks, a_failure_leaves_the_older_output);
    tcase_add_test(disks, a_writer_that_dies_is_one_line_and_leaves_nothing);
    tcase_add_test(disks, an_output_appears_when_it_is_committed);
    tcase_add_test(disks, a_discarded_output_leaves_nothing);
    tcase_add_unchecked_fixture(odd, set_up_odd, NULL);
    tcase_add_loop_test(odd, what_would_be_lost_is_refused, 0, COUNT(REFUSED));
    tcase_add_test(odd, reports_follow_links_and_write_to_devices);
    tcase_add_unchecked_fixture(signals, set_up, NULL);
    tcase_add_loop_test(signals, a_signal_leaves_no_temporary_file, 0, COUNT(KILLED));
    tcase_add_test(signals, a_checkpoint_cut_short_while_it_runs_is_named);
    tcase_add_test(signals, a_check_of_a_file_cut_short_ends_in_its_message);
    tcase_add_test(signals, a_file_that_is_replaced_stays_as_it_was);
    tcase_add_test(signals, a_reader_that_leaves_ends_the_program);
    tcase_add_test(signals, a_name_need_not_be_text);
    TCase *const cases[] = {disks, odd, signals};
    for (size_t i = 0; i < COUNT(cases); i++) {
        tcase_set_timeout(cases[i], 120);
        suite_add_tcase(suite, cases[i]);
    }
    return suite;
}
