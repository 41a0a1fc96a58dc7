#include "mapped_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int map(gemma4_mapped_file *file, int fd, const char *path, gemma4_error *error)
{
    struct stat status;
    if (fstat(fd, &status))
        return gemma4_fail(error, "%s: %s", path, strerror(errno));
    if (!S_ISREG(status.st_mode))
        return gemma4_fail(error, "%s: expected a regular file, found another kind", path);
    *file = (gemma4_mapped_file){.size = (size_t)status.st_size};
    if (file->size) {
        void *bytes = mmap(NULL, file->size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes == MAP_FAILED)
            return gemma4_fail(error, "%s: cannot be mapped: %s", path, strerror(errno));
        file->bytes = bytes;
    }
    if ((file->path = strdup(path)))
        return 0;
    gemma4_mapped_file_close(file);
    return gemma4_fail(error, "%s: out of memory", path);
}

int gemma4_mapped_file_open(gemma4_mapped_file *file, const char *path, gemma4_error *error)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return gemma4_fail(error, "%s: cannot open: %s", path, strerror(errno));
    int status = map(file, fd, path, error);
    close(fd);
    return status;
}

void gemma4_mapped_file_close(gemma4_mapped_file *file)
{
    if (file->bytes)
        munmap((void *)file->bytes, file->size);
    free(file->path);
    *file = (gemma4_mapped_file){0};
}
