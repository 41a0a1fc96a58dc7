#include "output.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guard.h"

enum { NAMES_TRIED = 100 }; /* a process that was killed may have left some */

/* Fills output->path; *stream where it names something that cannot be replaced, only written to. */
static int find_target(gemma4_output *output, const char *path, bool *stream, gemma4_error *error)
{
    struct stat status;
    char *real = realpath(path, NULL); /* NULL where nothing is there yet */
    int length = snprintf(output->path, sizeof output->path, "%s", real ? real : path);
    free(real);
    *stream = false;
    if (*path == '\0')
        return gemma4_fail(error, "%s: cannot write: %s", path, strerror(ENOENT));
    if (length >= (int)sizeof output->path)
        return gemma4_fail(error, "%.200s...: path too long", path);
    if (stat(path, &status) || S_ISREG(status.st_mode))
        return 0;
    *stream = S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode);
    return *stream ? 0
                   : gemma4_fail(error, "%s: cannot write: expected a file's name, found %s", path,
                                 S_ISDIR(status.st_mode) ? "a folder" : "a device or socket");
}

/* Creates a file that is not there yet, and notes it: no signal comes between the two. */
static int create_guarded(gemma4_output *output)
{
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    int file = open(output->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666), reason = errno;
    if (file >= 0)
        output->guard = gemma4_guard_temporary(output->temporary);
    sigprocmask(SIG_SETMASK, &before, NULL);
    errno = reason;
    return file;
}

/* 0, or -1 where the name would be too long. */
static int temporary_name(gemma4_output *output, pid_t writer, int number)
{
    int length = snprintf(output->temporary, sizeof output->temporary, "%s.tmp.%ld.%d",
                          output->path, (long)writer, number);
    return length >= (int)sizeof output->temporary ? -1 : 0;
}

/* Creates the temporary file; its descriptor, or -1 with the error filled. */
static int create_temporary(gemma4_output *output, gemma4_error *error)
{
    for (int i = 0; i < NAMES_TRIED; i++) {
        if (temporary_name(output, getpid(), i)) {
            output->temporary[0] = '\0';
            return gemma4_fail(error, "%.200s...: path too long", output->path);
        }
        int file = create_guarded(output);
        if (file >= 0)
            return file;
        if (errno != EEXIST)
            break;
    }
    int reason = errno;
    output->temporary[0] = '\0'; /* it is not ours to remove */
    return gemma4_fail(error, "%s: cannot write: %s", output->path, strerror(reason));
}

int gemma4_output_name(gemma4_output *output, const char *path, gemma4_error *error)
{
    bool stream;
    *output = (gemma4_output){.guard = -1};
    if (find_target(output, path, &stream, error))
        return -1;
    if (stream)
        return gemma4_fail(
            error, "%s: cannot write: expected a file's name, found a pipe or device", path);
    int file = create_temporary(output, error);
    if (file < 0)
        return -1;
    close(file);
    return 0;
}

int gemma4_output_open(gemma4_output *output, const char *path, gemma4_error *error)
{
    bool stream;
    *output = (gemma4_output){.guard = -1};
    if (find_target(output, path, &stream, error))
        return -1;
    int file = stream ? open(path, O_WRONLY | O_CLOEXEC) : create_temporary(output, error);
    if (file < 0)
        return stream ? gemma4_fail(error, "%s: cannot write: %s", path, strerror(errno)) : -1;
    output->f = fdopen(file, "w");
    if (output->f)
        return 0;
    close(file);
    gemma4_output_discard(output);
    return gemma4_fail(error, "%s: out of memory", path);
}

/* Whatever fsync cannot be asked for (some network and FUSE file systems) is not a failure to
 * write. */
static int bring_to_disk(int file)
{
    return fsync(file) && errno != EINVAL && errno != EROFS && errno != ENOSYS && errno != ENOTSUP
               ? -1
               : 0;
}

static int sync_path(const char *path, int flags)
{
    int file = open(path, O_RDONLY | O_CLOEXEC | flags);
    if (file < 0)
        return -1;
    int status = bring_to_disk(file), reason = errno;
    close(file);
    errno = reason;
    return status;
}

/* The name itself lies in the folder. That it is there already cannot be undone: a failure is not
 * looked at. */
static void sync_folder(const char *path)
{
    char folder[GEMMA4_OUTPUT_PATH_SIZE];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    (void)sync_path(*folder ? folder : "/", O_DIRECTORY);
}

/* Closes output->f; whether everything in it has reached the disk, else -1 with errno. */
static int finish_stream(gemma4_output *output)
{
    int bad = fflush(output->f) || ferror(output->f) ? -1 : 0, reason = errno;
    if (!bad && output->temporary[0]) {
        bad = bring_to_disk(fileno(output->f));
        reason = errno;
    }
    if (fclose(output->f) && !bad) {
        bad = -1;
        reason = errno;
    }
    output->f = NULL;
    errno = reason;
    return bad;
}

int gemma4_output_commit(gemma4_output *output, gemma4_error *error)
{
    int bad = output->f ? finish_stream(output) : sync_path(output->temporary, 0);
    if (!bad && output->temporary[0])
        bad = rename(output->temporary, output->path);
    int status =
        bad ? gemma4_fail(error, "%s: cannot write: %s", output->path, strerror(errno)) : 0;
    if (!bad && output->temporary[0]) {
        output->temporary[0] = '\0';
        sync_folder(output->path);
    }
    gemma4_output_discard(output);
    return status;
}

void gemma4_output_discard(gemma4_output *output)
{
    if (output->f)
        fclose(output->f);
    if (output->temporary[0])
        unlink(output->temporary);
    if (output->path[0])
        gemma4_guard_forget_temporary(output->guard);
    *output = (gemma4_output){.guard = -1};
}

void gemma4_output_remove_left(const char *path, int child)
{
    gemma4_output left = {.guard = -1};
    bool stream;
    if (find_target(&left, path, &stream, NULL) || stream)
        return;
    for (int i = 0; i < NAMES_TRIED && !temporary_name(&left, child, i); i++)
        unlink(left.temporary);
}

int gemma4_output_is_not(const char *output, const char *input, const char *what,
                         gemma4_error *error)
{
    struct stat a, b;
    if (!output || !input)
        return 0;
    bool both = stat(output, &a) == 0 && stat(input, &b) == 0;
    if (both && (S_ISFIFO(a.st_mode) || S_ISCHR(a.st_mode)))
        return 0; /* two reports into one terminal */
    if (both ? a.st_dev != b.st_dev || a.st_ino != b.st_ino : strcmp(output, input) != 0)
        return 0;
    return gemma4_fail(error, "%s: expected a file of its own to write to, found %s", output, what);
}

static bool is_of_checkpoint(const char *name)
{
    size_t length = strlen(name);
    return !strcmp(name, "config.json") || !strcmp(name, "model.safetensors.index.json") ||
           (length > 12 && !strcmp(name + length - 12, ".safetensors"));
}

int gemma4_output_is_not_of(const char *output, const char *checkpoint, gemma4_error *error)
{
    char path[2 * GEMMA4_OUTPUT_PATH_SIZE];
    DIR *directory = output && checkpoint ? opendir(checkpoint) : NULL;
    int status = 0;
    if (!directory)
        return gemma4_output_is_not(output, checkpoint, "the model", error);
    for (struct dirent *entry; !status && (entry = readdir(directory));) {
        snprintf(path, sizeof path, "%s/%s", checkpoint, entry->d_name);
        if (is_of_checkpoint(entry->d_name))
            status = gemma4_output_is_not(output, path, "a file of the checkpoint", error);
    }
    closedir(directory);
    return status;
}

int gemma4_make_directories(const char *directory, gemma4_error *error)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s", directory) >= (int)sizeof path)
        return gemma4_fail(error, "%.200s...: path too long", directory);
    for (char *slash = path + 1;; slash++) {
        slash += strcspn(slash, "/");
        char end = *slash;
        *slash = '\0';
        if (mkdir(path, 0777) && errno != EEXIST)
            return gemma4_fail(error, "%s: cannot create: %s", path, strerror(errno));
        if (!end)
            return 0;
        *slash = end;
    }
}
