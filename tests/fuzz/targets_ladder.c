/* What an engine leaves of the ladder: a folder with a dump a rung, or one file with a group a rung
 * (HDF5: targets_hdf5.c). Of the ladder its first rungs: the others are read in the same way. And a
 * dump that is judged. */
#include "targets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "judge.h"
#include "ladder_internal.h"

enum { RUNGS = 3 };

static gemma4_ladder *ladder(void)
{
    static gemma4_ladder opened;
    gemma4_error error = {""};
    if (opened.rungs)
        return &opened;
    if (gemma4_ladder_open(&opened, &error)) {
        fprintf(stderr, "fuzz: %s\n", error.message);
        exit(2);
    }
    while (opened.count > RUNGS)
        gemma4_case_close(opened.rungs[--opened.count].the_case);
    return &opened;
}

const gemma4_case *fuzz_rung(void)
{
    return ladder()->rungs[0].the_case;
}

/* Every rung that could be opened, judged; what explains a failure would take seconds. */
static void judge_rungs(gemma4_climb *climb)
{
    const gemma4_planted nothing = {.scope = GEMMA4_EVERYWHERE};
    const ladder_try how = {.known = &nothing};
    for (size_t i = 0; i < climb->ladder->count; i++) {
        gemma4_rung_result *result = &climb->results[i];
        gemma4_error error = {""};
        gemma4_report report = {0};
        if (result->verdict != GEMMA4_RUNG_NOT_JUDGED)
            continue;
        int status = ladder_judge(climb, i, &how, &report, &error);
        fuzz_promise(status, &error);
        result->verdict = status            ? GEMMA4_RUNG_UNUSABLE
                          : report.conforms ? GEMMA4_RUNG_PASSES
                                            : GEMMA4_RUNG_FAILS;
        snprintf(result->message, sizeof result->message, "%.499s", error.message);
        gemma4_report_free(&report);
    }
}

/* The climb's report in JSON is a document, whatever the dumps say of themselves. */
static void report_climb(const gemma4_climb *climb)
{
    gemma4_error error = {""};
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        abort();
    gemma4_climb_json(out, climb);
    if (fclose(out))
        abort();
    gemma4_document *document = gemma4_document_parse("report", text, length, &error);
    if (!document) {
        fprintf(stderr, "fuzz: %s\n%s", error.message, text);
        abort();
    }
    gemma4_document_free(document);
    free(text);
}

/* All values of every rung that could be opened. */
static void read_rungs(gemma4_climb *climb)
{
    for (size_t i = 0; i < RUNGS; i++) {
        fuzz_read_activations(climb->opened[i].engine);
        climb->opened[i].engine = NULL;
    }
}

/* Opens what an engine left of the ladder, and does that with the rungs. */
static void climb(const char *path, void (*look)(gemma4_climb *))
{
    gemma4_error error = {""};
    gemma4_climb c = {.ladder = ladder()};
    c.results = calloc(RUNGS, sizeof *c.results);
    c.opened = calloc(RUNGS, sizeof *c.opened);
    if (!c.results || !c.opened)
        abort();
    for (size_t i = 0; i < RUNGS; i++)
        c.results[i].verdict = GEMMA4_RUNG_NOT_COVERED;
    int status = ladder_open_dumps(&c, path, &error);
    fuzz_promise(status, &error);
    if (!status) {
        look(&c);
        report_climb(&c);
    }
    ladder_close_dumps(&c);
    gemma4_climb_free(&c);
}

void fuzz_climb(const char *path)
{
    climb(path, read_rungs);
}

void fuzz_ladder(const uint8_t *bytes, size_t size)
{
    if (!memmem(bytes, size, "\x89HDF", 4))
        climb(fuzz_folder(bytes, size, NULL, 0), read_rungs);
}

void fuzz_ladder_groups(const uint8_t *bytes, size_t size)
{
    if (size < 4 || memcmp(bytes, "\x89HDF", 4))
        climb(fuzz_file("dumps.safetensors", bytes, size), read_rungs);
}

/* Slow: every input is a forward pass, or several. */
void fuzz_judge(const uint8_t *bytes, size_t size)
{
    static const char *const names[] = {"linear-head.safetensors"};
    climb(fuzz_folder(bytes, size, names, 1), judge_rungs);
}
