/* The process that reads HDF5 files: what it can still do once its sandbox is closed, and what its
 * parent believes of what it says. */
#include "reader_internal.h"
#include "sandbox.h"
#include "suites.h"
#include "support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#endif

#define COUNT(table) (sizeof(table) / sizeof *(table))

enum { PATIENCE = 30 }; /* seconds */

static gemma4_config config; /* test_small_config with a vocabulary that makes wide rows */

/* --- what is tried --- */

static char *victim, *created; /* a file that is there, and one that is not */
static unsigned in_force;      /* of the sandbox, on this machine */

/* Each is true where the attempt succeeds. */
static bool reads_another_file(void)
{
    return open(victim, O_RDONLY) >= 0;
}

static bool opens_for_writing(void)
{
    return open(victim, O_WRONLY) >= 0;
}

static bool creates_a_file(void)
{
    return open(created, O_WRONLY | O_CREAT, 0600) >= 0;
}

static bool lists_a_folder(void)
{
    return open("/", O_RDONLY | O_DIRECTORY) >= 0;
}

static bool removes_a_file(void)
{
    return unlink(victim) == 0;
}

static bool renames_a_file(void)
{
    return rename(victim, created) == 0;
}

static bool makes_a_folder(void)
{
    return mkdir(created, 0700) == 0;
}

static bool cuts_a_file(void)
{
    return truncate(victim, 0) == 0;
}

static bool opens_its_own_memory(void)
{
    return open("/proc/self/mem", O_RDWR) >= 0;
}

static bool writes_to_the_terminal(void)
{
    return write(STDOUT_FILENO, "x", 1) == 1 || write(STDERR_FILENO, "x", 1) == 1;
}

static bool connects_by_tcp(void)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int s = socket(AF_INET, SOCK_STREAM, 0);
    return s >= 0 && (connect(s, (struct sockaddr *)&to, sizeof to) == 0 || errno == ECONNREFUSED);
}

static bool connects_by_a_unix_socket(void)
{
    return socket(AF_UNIX, SOCK_STREAM, 0) >= 0;
}

static bool forks(void)
{
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    return child > 0;
}

static bool executes(void)
{
    char *const args[] = {"true", NULL}, *const environment[] = {NULL};
    execve("/bin/true", args, environment);
    return false; /* where it succeeds, the program of that name ends without an answer */
}

static bool signals_its_parent(void)
{
    return kill(getppid(), 0) == 0;
}

static bool traces_its_parent(void)
{
    return ptrace(PTRACE_SEIZE, getppid(), NULL, NULL) == 0;
}

static bool reads_its_parent_s_memory(void)
{
    char here;
    struct iovec to = {&here, 1}, from = {&here, 1};
    return process_vm_readv(getppid(), &to, 1, &from, 1, 0) == 1;
}

static bool makes_code(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                0) != MAP_FAILED;
}

static bool turns_memory_into_code(void)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return page != MAP_FAILED && mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0;
}

static bool takes_much_memory(void)
{
    return mmap(NULL, (size_t)8 << 30, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) != MAP_FAILED;
}

static bool lifts_a_limit(void)
{
    struct rlimit more = {.rlim_cur = 64, .rlim_max = 64};
    return setrlimit(RLIMIT_NOFILE, &more) == 0;
}

static bool duplicates_a_descriptor(void)
{
    for (int i = 0; i < 64; i++)
        if (dup(i) >= 0)
            return true;
    return false;
}

static bool has_memory_poisoned(void)
{
    return madvise(NULL, 0, 100) == 0; /* MADV_HWPOISON of nothing, which the kernel lets pass */
}

/* `needs`: any one of these stops it. What needs seccomp alone is let through where the filter is
 * loosened for a sanitizer, unless it is among the calls that end the process. */
enum {
    SECCOMP = GEMMA4_SANDBOX_SECCOMP,
    LANDLOCK = GEMMA4_SANDBOX_LANDLOCK,
    LIMITS = GEMMA4_SANDBOX_LIMITS,
    STRICT = 64
};

static const struct {
    const char *name;
    bool (*attempt)(void);
    unsigned needs;
} ATTEMPTS[] = {
    {"reads another file", reads_another_file, STRICT | LANDLOCK | LIMITS},
    {"opens a file for writing", opens_for_writing, STRICT | LANDLOCK | LIMITS},
    {"creates a file", creates_a_file, STRICT | LANDLOCK | LIMITS},
    {"lists a folder", lists_a_folder, STRICT | LANDLOCK | LIMITS},
    {"removes a file", removes_a_file, SECCOMP | LANDLOCK},
    {"renames a file", renames_a_file, SECCOMP | LANDLOCK},
    {"makes a folder", makes_a_folder, SECCOMP | LANDLOCK},
    {"cuts a file short", cuts_a_file, STRICT},
    {"opens its own memory", opens_its_own_memory, STRICT | LANDLOCK | LIMITS},
    {"writes to the terminal", writes_to_the_terminal, STRICT},
    {"connects by TCP", connects_by_tcp, SECCOMP | LIMITS},
    {"connects by a Unix socket", connects_by_a_unix_socket, SECCOMP | LIMITS},
    {"forks", forks, SECCOMP},
    {"executes a program", executes, SECCOMP | LANDLOCK},
    {"signals its parent", signals_its_parent, STRICT},
    {"traces its parent", traces_its_parent, SECCOMP},
    {"reads its parent's memory", reads_its_parent_s_memory, SECCOMP},
    {"makes code", makes_code, STRICT},
    {"turns memory into code", turns_memory_into_code, STRICT},
    {"has memory poisoned", has_memory_poisoned, STRICT},
    {"takes 8 GiB", takes_much_memory, STRICT | (GEMMA4_SANITIZED ? 0 : LIMITS)},
    {"lifts a limit", lifts_a_limit, STRICT},
    {"duplicates a descriptor", duplicates_a_descriptor, STRICT | LIMITS},
};

/* The child: tries, and answers with a failure where it could not. */
static void try_it(int file, int channel, void *window, const char *path, void *attempt)
{
    static const char refused[] = "refused";
    (void)file;
    (void)window;
    (void)path;
    bool succeeded = (*(bool (**)(void))attempt)();
    const gemma4_reader_head head = {succeeded ? GEMMA4_READER_DONE : GEMMA4_READER_FAILED,
                                     succeeded ? 0 : sizeof refused - 1};
    if (write(channel, &head, sizeof head) == sizeof head && !succeeded &&
        write(channel, refused, sizeof refused - 1) > 0)
        _exit(0);
}

static void set_up(void)
{
    config = test_small_config;
    config.vocab_size = 300000;
    char text[128];
    victim = test_path("victim");
    created = test_path("created");
    test_write_text(victim, "kept");
    gemma4_sandbox_describe(text, sizeof text);
    char *missing = strchr(text, ';');
    if (missing)
        *missing = '\0';
    in_force = (strstr(text, "seccomp") ? SECCOMP | (GEMMA4_SANITIZED ? 0 : STRICT) : 0) |
               (strstr(text, "landlock") ? LANDLOCK : 0) | (strstr(text, "limits") ? LIMITS : 0);
}

START_TEST(the_sandbox_holds)
{
    gemma4_activation_source source;
    gemma4_error error = {""};
    if (!(ATTEMPTS[_i].needs & in_force)) {
        fprintf(stderr, "sandbox: \"%s\" cannot be stopped on this system\n", ATTEMPTS[_i].name);
        return;
    }
    bool (*attempt)(void) = ATTEMPTS[_i].attempt;
    int status = gemma4_reader_open(victim, try_it, &attempt, PATIENCE, &source, &error);
    ck_assert_msg(status == -1, "the reader %s", ATTEMPTS[_i].name);
    ck_assert_msg(strcmp(error.message, "refused") == 0 ||
                      strstr(error.message, "stopped by its sandbox") != NULL,
                  "%s: %s", ATTEMPTS[_i].name, error.message);
    ck_assert_str_eq(test_read(victim), "kept");
    ck_assert_int_ne(access(created, F_OK), 0);
}
END_TEST

/* --- what is answered --- */

/* One answer in each stage; an honest one where there is none. The child ends when it has given
 * it. */
typedef struct script {
    void (*open)(int channel);
    void (*list)(int channel);
    void (*read)(int channel);
} script;

static void *the_window; /* the child's */

static void say(int channel, uint64_t tag, uint64_t size, const void *bytes, size_t sent)
{
    const gemma4_reader_head head = {tag, size};
    if (write(channel, &head, sizeof head) != sizeof head ||
        write(channel, bytes, sent) != (ssize_t)sent)
        _exit(1);
}

static void say_done(int channel)
{
    say(channel, GEMMA4_READER_DONE, 0, "", 0);
}

static gemma4_reader_tensor embed(void)
{
    return (gemma4_reader_tensor){
        .name = "embed", .element = GEMMA4_ELEMENT_F32, .rank = 2, .shape = {5, 12}};
}

static void say_tensor(int channel, const gemma4_reader_tensor *t, size_t rows)
{
    const int64_t row[80] = {0};
    const gemma4_reader_head head = {GEMMA4_READER_TENSOR, sizeof *t + rows * sizeof *row};
    if (write(channel, &head, sizeof head) != sizeof head ||
        write(channel, t, sizeof *t) != sizeof *t ||
        write(channel, row, rows * sizeof *row) != (ssize_t)(rows * sizeof *row))
        _exit(1);
}

static void play(int file, int channel, void *window, const char *path, void *context)
{
    const script *s = context;
    gemma4_reader_request request;
    const gemma4_reader_tensor honest = embed();
    (void)file;
    (void)path;
    the_window = window;
    if (s->open)
        s->open(channel);
    say_done(channel);
    if (read(channel, &request, sizeof request) != sizeof request)
        _exit(0);
    if (s->list)
        s->list(channel);
    else
        say_tensor(channel, &honest, 0);
    say_done(channel);
    if (read(channel, &request, sizeof request) != sizeof request)
        _exit(0);
    if (s->read)
        s->read(channel);
    say_done(channel);
}

/* opening */
static void short_attribute(int c)
{
    say(c, GEMMA4_READER_ATTRIBUTE, 1, "", 1);
}
static void huge_attribute(int c)
{
    say(c, GEMMA4_READER_ATTRIBUTE, UINT64_MAX, "a\0b", 4);
}
static void endless_attribute(int c)
{
    say(c, GEMMA4_READER_ATTRIBUTE, 3, "abc", 3);
}
static void attribute_of_one(int c)
{
    say(c, GEMMA4_READER_ATTRIBUTE, 3, "ab", 3);
}
static void attribute_of_three(int c)
{
    say(c, GEMMA4_READER_ATTRIBUTE, 6, "a\0b\0c", 6);
}
static void unknown_tag(int c)
{
    say(c, 99, 0, "", 0);
}
static void values_unasked(int c)
{
    say(c, GEMMA4_READER_VALUES, 4, "abcd", 4);
}
static void end_with_more(int c)
{
    say(c, GEMMA4_READER_DONE, 4, "abcd", 4);
}
static void empty_message(int c)
{
    say(c, GEMMA4_READER_FAILED, 0, "", 0);
}
static void huge_message(int c)
{
    say(c, GEMMA4_READER_FAILED, (uint64_t)1 << 40, "abcd", 4);
}
static void message_of_two_lines(int c)
{
    say(c, GEMMA4_READER_FAILED, 9, "one\ntwo\33[", 9);
}
static void message_with_a_format(int c)
{
    say(c, GEMMA4_READER_FAILED, 8, "%s%n%s%n", 8);
}
static void many_attributes(int c)
{
    for (int i = 0; i < 257; i++)
        say(c, GEMMA4_READER_ATTRIBUTE, 4, "a\0b", 4);
}

static void end_at_once(int c)
{
    (void)c;
    _exit(0);
}

static void crash(int c)
{
    (void)c;
    signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
}

static void live_on_in_silence(int c)
{
    close(c);
    for (;;)
        ;
}

static void never_answer(int c)
{
    (void)c;
    for (;;)
        ;
}

static void end_in_the_middle(int c)
{
    say(c, GEMMA4_READER_ATTRIBUTE, 1000, "abc", 3);
    _exit(0);
}

/* listing */
#define CHANGED(name, change)             \
    static void name(int c)               \
    {                                     \
        gemma4_reader_tensor t = embed(); \
        size_t rows = 0;                  \
        change;                           \
        say_tensor(c, &t, rows);          \
    }
CHANGED(unended_name, memset(t.name, 'a', sizeof t.name))
CHANGED(unended_problem, memset(t.problem, 'a', sizeof t.problem))
CHANGED(no_name, t.name[0] = '\0')
CHANGED(no_tap, strcpy(t.name, "attic"))
CHANGED(layer_too_many, strcpy(t.name, "layers.2.output"))
CHANGED(element_unknown, t.element = GEMMA4_ELEMENT_COUNT)
CHANGED(element_none, t.element = GEMMA4_ELEMENT_NONE)
CHANGED(nine_axes, t.rank = 9)
CHANGED(axes_beyond_all, t.rank = UINT64_MAX)
CHANGED(empty_axis, t.shape[1] = 0)
CHANGED(axis_beyond_rank, t.shape[2] = 7)
CHANGED(rows_unasked, t.row_count = rows = 5)
CHANGED(rows_too_many, t.has_rows = 1; t.row_count = rows = 65)
CHANGED(rows_beyond_all, t.has_rows = 1; t.row_count = UINT64_MAX / 8 + 1)
CHANGED(rows_missing, t.has_rows = 1; t.row_count = 5)
CHANGED(rows_uncounted, t.has_rows = 1; t.row_count = 5; rows = 6)
CHANGED(rows_maybe, t.has_rows = 2; t.row_count = rows = 5)
static void tensor_twice(int c)
{
    const gemma4_reader_tensor t = embed();
    say_tensor(c, &t, 0);
    say_tensor(c, &t, 0);
}
static void half_a_tensor(int c)
{
    say(c, GEMMA4_READER_TENSOR, 8, "embed\0\0", 8);
}
static void long_name(int c)
{
    char name[256];
    memset(name, 'a', sizeof name);
    say(c, GEMMA4_READER_UNKNOWN, sizeof name, name, sizeof name);
}
static void names_uncounted(int c)
{
    const uint64_t more = 7;
    say(c, GEMMA4_READER_UNCOUNTED, sizeof more, &more, sizeof more);
}
static void many_names(int c)
{
    for (int i = 0; i < 513; i++)
        say(c, GEMMA4_READER_UNKNOWN, 1, "a", 1);
}
static void uncountable_names(int c)
{
    const uint64_t more = UINT64_MAX;
    for (int i = 0; i < 512; i++)
        say(c, GEMMA4_READER_UNKNOWN, 1, "a", 1);
    say(c, GEMMA4_READER_UNCOUNTED, sizeof more, &more, sizeof more);
}

/* reading 5 rows of 12 floats */
static void too_many_values(int c)
{
    say(c, GEMMA4_READER_VALUES, 244, "", 0);
}
static void values_beyond_all(int c)
{
    say(c, GEMMA4_READER_VALUES, UINT64_MAX, "", 0);
}
static void too_few_values(int c)
{
    say(c, GEMMA4_READER_VALUES, 236, "", 0);
}
static void no_values(int c)
{
    say(c, GEMMA4_READER_VALUES, 0, "", 0);
}
static void values_in_the_socket(int c)
{
    static const char zeros[240];
    say(c, GEMMA4_READER_VALUES, 240, zeros, 240);
}
static void values_and_more(int c)
{
    say(c, GEMMA4_READER_VALUES, 240, "", 0);
    say(c, GEMMA4_READER_VALUES, 4, "", 0);
}
static void nothing(int c)
{
    (void)c;
}

static const struct {
    script script;
    const char *message;
    double seconds;
} LIES[] = {
    {{.open = short_attribute}, "talks nonsense (the length of an attribute)", PATIENCE},
    {{.open = huge_attribute}, "talks nonsense (the length of an attribute)", PATIENCE},
    {{.open = endless_attribute}, "talks nonsense (an attribute without an end)", PATIENCE},
    {{.open = attribute_of_one}, "talks nonsense (an attribute without an end)", PATIENCE},
    {{.open = attribute_of_three}, "talks nonsense (an attribute without an end)", PATIENCE},
    {{.open = many_attributes}, "talks nonsense (too many attributes)", PATIENCE},
    {{.open = unknown_tag}, "talks nonsense (a piece that is no attribute)", PATIENCE},
    {{.open = values_unasked}, "talks nonsense (a piece that is no attribute)", PATIENCE},
    {{.open = tensor_twice}, "talks nonsense (a piece that is no attribute)", PATIENCE},
    {{.open = end_with_more}, "talks nonsense (an end that goes on)", PATIENCE},
    {{.open = empty_message}, "talks nonsense (the length of a message)", PATIENCE},
    {{.open = huge_message}, "talks nonsense (the length of a message)", PATIENCE},
    {{.open = message_of_two_lines}, "one?two?[", PATIENCE},
    {{.open = message_with_a_format}, "%s%n%s%n", PATIENCE},
    {{.open = end_at_once}, "its reader ends before it has answered", PATIENCE},
    {{.open = end_in_the_middle}, "its reader ends before it has answered", PATIENCE},
    {{.open = crash}, "its reader dies of signal ", PATIENCE},
    {{.open = live_on_in_silence}, "its reader dies of signal 9", PATIENCE},
    {{.open = never_answer}, "does not come to an end", 0.2},
    {{.list = never_answer}, "does not come to an end", 0.2},
    {{.list = end_at_once}, "its reader ends before it has answered", PATIENCE},
    {{.list = unended_name}, "talks nonsense (a name without an end)", PATIENCE},
    {{.list = unended_problem}, "talks nonsense (a name without an end)", PATIENCE},
    {{.list = no_name}, "talks nonsense (a name without an end)", PATIENCE},
    {{.list = no_tap}, "talks nonsense (a tensor that is no tap)", PATIENCE},
    {{.list = layer_too_many}, "talks nonsense (a tensor that is no tap)", PATIENCE},
    {{.list = element_unknown}, "talks nonsense (an unknown type)", PATIENCE},
    {{.list = element_none}, "talks nonsense (an unknown type)", PATIENCE},
    {{.list = nine_axes}, "talks nonsense (too many axes)", PATIENCE},
    {{.list = axes_beyond_all}, "talks nonsense (too many axes)", PATIENCE},
    {{.list = empty_axis}, "talks nonsense (an impossible shape)", PATIENCE},
    {{.list = axis_beyond_rank}, "talks nonsense (an impossible shape)", PATIENCE},
    {{.list = rows_unasked}, "talks nonsense (too many rows)", PATIENCE},
    {{.list = rows_too_many}, "talks nonsense (too many rows)", PATIENCE},
    {{.list = rows_beyond_all}, "talks nonsense (too many rows)", PATIENCE},
    {{.list = rows_maybe}, "talks nonsense (too many rows)", PATIENCE},
    {{.list = rows_missing}, "talks nonsense (the length of a tensor's rows)", PATIENCE},
    {{.list = rows_uncounted}, "talks nonsense (the length of a tensor's rows)", PATIENCE},
    {{.list = tensor_twice}, "talks nonsense (a tensor twice)", PATIENCE},
    {{.list = half_a_tensor}, "talks nonsense (the length of a tensor)", PATIENCE},
    {{.list = long_name}, "talks nonsense (the length of a name)", PATIENCE},
    {{.list = many_names}, "talks nonsense (the length of a name)", PATIENCE},
    {{.list = names_uncounted}, "talks nonsense (a number of names)", PATIENCE},
    {{.list = uncountable_names}, "talks nonsense (a number of names)", PATIENCE},
    {{.list = values_unasked}, "talks nonsense (a piece that is no tensor)", PATIENCE},
    {{.read = too_many_values}, "talks nonsense (other values than asked for)", PATIENCE},
    {{.read = values_beyond_all}, "talks nonsense (other values than asked for)", PATIENCE},
    {{.read = no_values}, "talks nonsense (other values than asked for)", PATIENCE},
    {{.read = values_and_more}, "talks nonsense (other values than asked for)", PATIENCE},
    {{.read = unknown_tag}, "talks nonsense (other values than asked for)", PATIENCE},
    {{.read = too_few_values}, "talks nonsense (other values than asked for)", PATIENCE},
    {{.read = values_in_the_socket}, "talks nonsense (other values than asked for)", PATIENCE},
    {{.read = nothing}, "talks nonsense (fewer values than asked for)", PATIENCE},
    {{.read = end_at_once}, "its reader ends before it has answered", PATIENCE},
};

/* Opens, lists and reads `embed` into values, [5 * 12 + 1], in the order of a real run; the status
 * of the first that fails. */
static int converse(const script *s, double seconds, float *values, gemma4_error *error)
{
    gemma4_activation_source source;
    gemma4_stored_list *list = calloc(1, sizeof *list);
    values[5 * 12] = 42;
    int status = gemma4_reader_open(victim, play, (void *)s, seconds, &source, error);
    if (status == 0) {
        status = source.list(source.state, &config, list, error);
        if (status == 0)
            status = source.read(source.state, &list->items[0], (const size_t[]){0, 0},
                                 (const size_t[]){5, 12}, values, error);
        gemma4_error again = {""};
        if (status != 0) /* a reader that lied once is asked no more */
            ck_assert(source.list(source.state, &config, list, &again) == -1 &&
                      strstr(again.message, "cannot be read any more"));
        source.close(source.state);
    }
    ck_assert_float_eq(values[5 * 12], 42);
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i].rows);
    free(list->items);
    free(list);
    return status;
}

START_TEST(what_a_reader_says_is_checked)
{
    gemma4_error error = {""};
    float values[5 * 12 + 1];
    script s = LIES[_i].script;
    ck_assert_int_eq(converse(&s, LIES[_i].seconds, values, &error), -1);
    assert_message_contains(&error, LIES[_i].message);
}
END_TEST

static void right_values(int c)
{
    for (int i = 0; i < 5 * 12; i++)
        ((float *)the_window)[i] = (float)i;
    say(c, GEMMA4_READER_VALUES, 240, "", 0);
}

/* The same conversation without a lie: what fails above does not fail for another reason. */
START_TEST(an_honest_reader_is_believed)
{
    gemma4_error error = {""};
    float values[5 * 12 + 1];
    script s = {.read = right_values};
    ck_assert_msg(converse(&s, PATIENCE, values, &error) == 0, "%s", error.message);
    for (int i = 0; i < 5 * 12; i++)
        ck_assert_float_eq(values[i], (float)i);
}
END_TEST

/* --- libhdf5 in the sandbox --- */

enum { ROWS = 20 };

/* A dump of one dataset of floats that count up from 0, big-endian; shape[0] is the positions. */
static const char *write_counting(const char *name, int rank, const hsize_t *shape)
{
    const char *path = test_path("counting.h5");
    const int32_t tokens[ROWS] = {0}, version = 1;
    size_t count = 1;
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT),
          scalar = H5Screate(H5S_SCALAR), text = H5Tcopy(H5T_C_S1),
          links = H5Pcreate(H5P_LINK_CREATE);
    H5Tset_size(text, 19);
    H5Pset_create_intermediate_group(links, 1);
    hid_t format = H5Acreate2(file, "format", text, scalar, H5P_DEFAULT, H5P_DEFAULT);
    hid_t number =
        H5Acreate2(file, "format_version", H5T_STD_I32LE, scalar, H5P_DEFAULT, H5P_DEFAULT);
    hid_t row = H5Screate_simple(1, shape, NULL), block = H5Screate_simple(rank, shape, NULL);
    hid_t ids =
        H5Dcreate2(file, "tokens", H5T_STD_I32LE, row, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    hid_t floats = H5Dcreate2(file, name, H5T_IEEE_F32BE, block, links, H5P_DEFAULT, H5P_DEFAULT);
    for (int i = 0; i < rank; i++)
        count *= shape[i];
    float *values = malloc(count * sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)i;
    ck_assert(H5Awrite(format, text, "gemma4-activations") >= 0 &&
              H5Awrite(number, H5T_NATIVE_INT32, &version) >= 0);
    ck_assert(H5Dwrite(ids, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, tokens) >= 0);
    ck_assert(H5Dwrite(floats, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    free(values);
    H5Dclose(floats);
    H5Dclose(ids);
    H5Sclose(block);
    H5Sclose(row);
    H5Aclose(number);
    H5Aclose(format);
    H5Pclose(links);
    H5Tclose(text);
    H5Sclose(scalar);
    ck_assert(H5Fclose(file) >= 0);
    return path;
}

/* Many rows a slot; a row a slot and a bit; heads that fit one where a row does not; a head that
 * does not fit. No model is needed for any shape. */
static const struct {
    const char *path;
    gemma4_tap tap;
    int rank;
    hsize_t shape[3];
} COUNTING[] = {
    {"logits", GEMMA4_TAP_LOGITS, 2, {ROWS, 300000}},
    {"logits", GEMMA4_TAP_LOGITS, 2, {6, GEMMA4_READER_SLOT_BYTES / 4 + 1}},
    {"layers/0/attn/q", GEMMA4_TAP_ATTN_Q, 3, {3, 4, 200000}},
    {"layers/0/attn/q", GEMMA4_TAP_ATTN_Q, 3, {3, 4, GEMMA4_READER_SLOT_BYTES / 4 + 1}},
};

START_TEST(values_come_in_pieces)
{
    gemma4_error error = {""};
    const hsize_t *shape = COUNTING[_i].shape;
    gemma4_activations *file = gemma4_activations_open(
        write_counting(COUNTING[_i].path, COUNTING[_i].rank, shape), NULL, &error);
    ck_assert_msg(file != NULL, "%s", error.message);
    const gemma4_activation *tap = gemma4_activations_find(file, COUNTING[_i].tap, 0);
    size_t width = shape[1] * (COUNTING[_i].rank == 3 ? shape[2] : 1), count = shape[0] - 1;
    ck_assert(tap->usable && tap->width == width);
    float *values = malloc(count * width * sizeof *values);
    ck_assert_msg(gemma4_activations_read(file, tap, 1, count, values, &error) == 0, "%s",
                  error.message);
    for (size_t i = 0; i < count * width; i++)
        ASSERT_EACH(values[i] == (float)(i + width), "element %zu: %g", i, (double)values[i]);
    free(values);
    gemma4_activations_close(file);
}
END_TEST

/* Logits of one deflated chunk, far larger than a slot. */
static const char *write_one_chunk(void)
{
    const char *path = test_path("chunk.h5");
    const hsize_t shape[2] = {ROWS, GEMMA4_READER_SLOT_BYTES / 4};
    hid_t file = H5Fopen(write_counting("embed", 2, (const hsize_t[]){ROWS, 4}), H5F_ACC_RDWR,
                         H5P_DEFAULT),
          creation = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(2, shape, NULL);
    float *values = calloc(shape[0] * shape[1], sizeof *values);
    ck_assert(values && H5Pset_chunk(creation, 2, shape) >= 0 && H5Pset_deflate(creation, 1) >= 0);
    hid_t logits =
        H5Dcreate2(file, "logits", H5T_IEEE_F32LE, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    ck_assert(H5Dwrite(logits, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    free(values);
    H5Dclose(logits);
    H5Sclose(space);
    H5Pclose(creation);
    ck_assert(H5Fclose(file) >= 0 && rename(test_path("counting.h5"), path) == 0);
    return path;
}

/* Seconds of the reader's processor time for the first rows of the logits. */
static double seconds_to_read(const char *path, size_t rows)
{
    gemma4_error error = {""};
    struct rusage before, after;
    float *values = malloc(rows * GEMMA4_READER_SLOT_BYTES);
    getrusage(RUSAGE_CHILDREN, &before);
    gemma4_activations *file = gemma4_activations_open(path, NULL, &error);
    ck_assert_msg(file != NULL, "%s", error.message);
    const gemma4_activation *logits = gemma4_activations_find(file, GEMMA4_TAP_LOGITS, 0);
    ck_assert(gemma4_activations_read(file, logits, 0, rows, values, &error) == 0);
    gemma4_activations_close(file);
    getrusage(RUSAGE_CHILDREN, &after);
    free(values);
    return (double)(after.ru_utime.tv_sec - before.ru_utime.tv_sec) +
           1e-6 * (double)(after.ru_utime.tv_usec - before.ru_utime.tv_usec);
}

/* Unpacked for every slot, 20 of them would take 20 times as long as one. */
START_TEST(a_large_chunk_is_unpacked_once)
{
    const char *path = write_one_chunk();
    double one = seconds_to_read(path, 1), all = seconds_to_read(path, ROWS);
    ck_assert_msg(all < 6 * one, "%g s for one row, %g for all", one, all);
}
END_TEST

/* --- where the kernel refuses --- */

#if defined(__linux__) && defined(SYS_landlock_create_ruleset)

/* From now on this process can close no sandbox but by limits, as in a container that forbids
 * it. */
static bool forbid_sandboxes(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_landlock_create_ruleset, 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PR_SET_SECCOMP, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {COUNT(code), code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

/* The program says it too. */
START_TEST(the_version_says_what_is_missing)
{
    const char *build = getenv("GEMMA4_BUILD");
    char program[4096];
    int status;
    if (!(in_force & SECCOMP))
        return; /* it is such a system already */
    snprintf(program, sizeof program, "%s/gemma4-check", build && *build ? build : "build");
    for (int forbidden = 0; forbidden < 2; forbidden++) {
        char *said = test_join(test_fresh_dir(), "said");
        pid_t child = fork();
        if (child == 0) {
            if (!freopen(said, "w", stdout) || (forbidden && !forbid_sandboxes()))
                _exit(3);
            execl(program, program, "--version", (char *)NULL);
            _exit(4);
        }
        ck_assert(child > 0 && waitpid(child, &status, 0) == child);
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
        bool missing = strstr(test_read(said), "limits; not on this system: seccomp, landlock");
        ck_assert_msg(missing == (forbidden != 0), "%d: %s", forbidden, test_read(said));
    }
}
END_TEST

START_TEST(without_the_kernel_s_help_files_are_read_and_the_lack_is_said)
{
    int status;
    const char *path = write_counting("logits", 2, (const hsize_t[]){ROWS, 300000});
    if (!(in_force & SECCOMP))
        return; /* it is such a system already */
    pid_t child = fork();
    if (child == 0) {
        char text[128];
        gemma4_error error = {""};
        if (!forbid_sandboxes())
            _exit(3);
        gemma4_sandbox_describe(text, sizeof text);
        if (strncmp(text, "limits; not on this system: seccomp, landlock", 45) != 0)
            _exit(4);
        _exit(gemma4_activations_open(path, &config, &error) ? 0 : 5);
    }
    ck_assert(child > 0 && waitpid(child, &status, 0) == child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
}
END_TEST

#endif

static void close_hdf5(void)
{
    H5close();
}

Suite *sandbox_suite(void)
{
    Suite *suite = suite_create("sandbox");
    TCase *c = tcase_create("sandbox");
    tcase_add_unchecked_fixture(c, set_up, close_hdf5);
    tcase_set_timeout(c, 120);
    suite_add_tcase(suite, c);
    tcase_add_loop_test(c, the_sandbox_holds, 0, COUNT(ATTEMPTS));
    tcase_add_loop_test(c, what_a_reader_says_is_checked, 0, COUNT(LIES));
    tcase_add_test(c, an_honest_reader_is_believed);
    tcase_add_loop_test(c, values_come_in_pieces, 0, COUNT(COUNTING));
    tcase_add_test(c, a_large_chunk_is_unpacked_once);
#if defined(__linux__) && defined(SYS_landlock_create_ruleset)
    tcase_add_test(c, without_the_kernel_s_help_files_are_read_and_the_lack_is_said);
    tcase_add_test(c, the_version_says_what_is_missing);
#endif
    return suite;
}
