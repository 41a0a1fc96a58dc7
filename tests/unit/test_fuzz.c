/* The fuzzers' targets (tests/fuzz) on files: their seeds, and every input that ever failed. Needs
 * no clang. */
#include "../fuzz/targets.h"
#include "suites.h"
#include "support.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* Runs the target on every file of tests/fuzz/WHERE/TARGET; returns how many. */
static size_t run_all(const char *where, const fuzz_target *target)
{
    char path[1024];
    size_t count = 0;
    snprintf(path, sizeof path, "tests/fuzz/%s/%s", where, target->name);
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        struct stat status;
        if (*entry->d_name == '.')
            continue;
        snprintf(path, sizeof path, "tests/fuzz/%s/%s/%s", where, target->name, entry->d_name);
        FILE *file = fopen(path, "rb");
        ck_assert_msg(file != NULL && fstat(fileno(file), &status) == 0, "%s cannot be read", path);
        size_t size = (size_t)status.st_size;
        unsigned char *bytes = malloc(size + 1); /* exactly as large, for AddressSanitizer, but
                                                    never NULL */
        ck_assert_ptr_nonnull(bytes);
        ck_assert_uint_eq(fread(bytes, 1, size, file), size);
        fclose(file);
        target->run(bytes, size);
        free(bytes);
        count++;
    }
    if (folder)
        closedir(folder);
    return count;
}

/* A promise that is broken aborts, and the process that runs the suite fails. */
START_TEST(seeds_and_regressions_pass)
{
    const fuzz_target *target = fuzz_target_at((size_t)_i);
    ck_assert_msg(run_all("corpus", target) > 0, "%s has no seeds", target->name);
    run_all("regressions", target);
}
END_TEST

START_TEST(every_folder_is_a_targets)
{
    static const char *const places[] = {"tests/fuzz/corpus", "tests/fuzz/regressions"};
    for (size_t i = 0; i < 2; i++) {
        DIR *folder = opendir(places[i]);
        ck_assert_msg(folder != NULL, "%s cannot be read", places[i]);
        for (struct dirent *entry; (entry = readdir(folder));)
            ck_assert_msg(*entry->d_name == '.' || fuzz_target_named(entry->d_name) != NULL,
                          "%s/%s: no such target", places[i], entry->d_name);
        closedir(folder);
    }
}
END_TEST

/* The list in the script that runs the fuzzers. */
START_TEST(every_target_is_run)
{
    const char *script = test_read("tests/fuzz/run.sh"), *list = strstr(script, "targets=\"");
    ck_assert_ptr_nonnull(list);
    list += strlen("targets=\"");
    for (size_t i = 0; fuzz_target_at(i); i++) {
        size_t length = strcspn(list, " \"");
        ck_assert_msg(strlen(fuzz_target_at(i)->name) == length &&
                          !strncmp(list, fuzz_target_at(i)->name, length),
                      "tests/fuzz/run.sh: expected %s, found %.*s", fuzz_target_at(i)->name,
                      (int)length, list);
        list += length + 1;
    }
    ck_assert_int_eq(list[-1], '"');
}
END_TEST

Suite *fuzz_suite(void)
{
    int count = 0;
    while (fuzz_target_at((size_t)count))
        count++;
    Suite *suite = suite_create("fuzz");
    TCase *c = tcase_create("targets");
    tcase_add_loop_test(c, seeds_and_regressions_pass, 0, count);
    tcase_add_test(c, every_folder_is_a_targets);
    tcase_add_test(c, every_target_is_run);
    suite_add_tcase(suite, c);
    return suite;
}
