#include "opened_cases.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int gemma4_make_directory(char directory[64], gemma4_error *error)
{
    const char *parent = getenv("TMPDIR") ? getenv("TMPDIR") : P_tmpdir;
    if (snprintf(directory, 64, "%s/gemma4-check-XXXXXX", parent) < 64 && mkdtemp(directory))
        return 0;
    directory[0] = '\0';
    return gemma4_fail(error, "%.200s: cannot make a temporary directory: %s", parent,
                       strerror(errno));
}

void gemma4_remove_directory(const char *directory)
{
    DIR *d = opendir(directory);
    for (struct dirent *entry; d && (entry = readdir(d));)
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(d), entry->d_name, 0);
    if (d)
        closedir(d);
    rmdir(directory);
}

static int open_case(gemma4_opened_case *c, const char *id, gemma4_error *error)
{
    c->the_case = gemma4_case_open(id, error);
    if (!c->the_case || gemma4_case_provide_checkpoint(c->the_case, error))
        return -1;
    c->model = gemma4_model_open(c->the_case->checkpoint_dir, error);
    return c->model ? 0 : -1;
}

int gemma4_open_cases(gemma4_opened_cases *cases, const char *const *ids, size_t count,
                      const char *only, gemma4_error *error)
{
    *cases = (gemma4_opened_cases){.list = calloc(count ? count : 1, sizeof *cases->list)};
    if (!cases->list)
        return gemma4_fail(error, "cases: out of memory");
    for (size_t i = 0; i < count; i++)
        if (!only || !strcmp(only, ids[i])) {
            cases->count++;
            if (open_case(&cases->list[cases->count - 1], ids[i], error))
                return -1;
        }
    if (!cases->count)
        return gemma4_fail(
            error, "--case: found '%s', which is none of the cases that this command works on",
            only);
    return gemma4_make_directory(cases->directory, error);
}

void gemma4_close_cases(gemma4_opened_cases *cases)
{
    for (size_t i = 0; i < cases->count; i++) {
        gemma4_model_close(cases->list[i].model);
        gemma4_case_close(cases->list[i].the_case);
    }
    free(cases->list);
    if (cases->directory[0])
        gemma4_remove_directory(cases->directory);
    *cases = (gemma4_opened_cases){0};
}

const gemma4_opened_case *gemma4_opened_case_of(const gemma4_opened_cases *cases, const char *id)
{
    for (size_t i = 0; i < cases->count; i++)
        if (!strcmp(cases->list[i].the_case->id, id))
            return &cases->list[i];
    return NULL;
}
