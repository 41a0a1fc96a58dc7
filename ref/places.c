#include "places.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef GEMMA4_DATA_DIR /* PREFIX/share/gemma4 */
#define GEMMA4_DATA_DIR "/usr/local/share/gemma4"
#endif

enum { PATH_SIZE = 4096 };

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Is there a folder cases/ in directory/rest? path receives directory/rest. */
static bool holds_cases(const char *directory, const char *rest, char path[PATH_SIZE])
{
    char cases[PATH_SIZE + 8];
    if (snprintf(path, PATH_SIZE, "%s%s", directory, rest) >= PATH_SIZE)
        return false;
    snprintf(cases, sizeof cases, "%s/cases", path);
    return is_folder(cases);
}

/* The folder that holds this program. */
static bool program_folder(char path[PATH_SIZE])
{
    ssize_t n = readlink("/proc/self/exe", path, PATH_SIZE - 1);
    if (n <= 0)
        return false;
    path[n] = '\0';
    char *slash = strrchr(path, '/');
    if (slash)
        *slash = '\0';
    return slash != NULL;
}

const char *gemma4_golden_dir(void)
{
    static char path[PATH_SIZE];
    char program[PATH_SIZE];
    const char *data = getenv("GEMMA4_DATA");
    if (data && *data)
        return holds_cases(data, "/golden", path) ? path : NULL;
    if (holds_cases("", "golden", path))
        return path;
    bool known = program_folder(program);
    if (known && (holds_cases(program, "/../golden", path) ||
                  holds_cases(program, "/../share/gemma4/golden", path)))
        return path;
    return holds_cases(GEMMA4_DATA_DIR, "/golden", path) ? path : NULL;
}

int gemma4_generated_dir(const char *golden, char *path, size_t size)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = snprintf(path, size, "%s/../build", golden);
    if (n >= (int)size)
        return -1;
    if (is_folder(path) || !((cache && *cache == '/') || (home && *home == '/')))
        n = snprintf(path, size, "%s/../build/checkpoints", golden);
    else if (cache && *cache == '/')
        n = snprintf(path, size, "%s/gemma4/checkpoints", cache);
    else
        n = snprintf(path, size, "%s/.cache/gemma4/checkpoints", home);
    return n < (int)size ? 0 : -1;
}
