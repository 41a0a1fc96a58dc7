#include "ladder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"
#include "places.h"
#include "synth.h"
#include "text.h"

/* ------------------------------------------------------------------- reading */

static int find_need(const gemma4_ladder *ladder, const gemma4_node *node, size_t before,
                     size_t *need, gemma4_error *error)
{
    const char *name;
    if (gemma4_node_string(node, &name, error))
        return -1;
    for (*need = 0; *need < before; ++*need)
        if (!strcmp(ladder->rungs[*need].name, name))
            return 0;
    return gemma4_node_fail(node, "the name of an earlier rung", error);
}

static int read_rung(gemma4_ladder *ladder, const gemma4_node *node, const char *directory,
                     size_t index, gemma4_error *error)
{
    static const char *const keys[] = {"rung", "needs", NULL};
    gemma4_rung *rung = &ladder->rungs[index];
    const gemma4_node *needs;
    char path[4096];
    if (gemma4_node_only_keys(node, keys, error) ||
        gemma4_get_string(node, "rung", &rung->name, error) ||
        gemma4_get_node(node, "needs", GEMMA4_SEQUENCE, &needs, error))
        return -1;
    if (needs->count > GEMMA4_RUNG_NEEDS)
        return gemma4_node_fail(needs, "at most 8 rungs", error);
    for (size_t i = 0; i < needs->count; i++)
        if (find_need(ladder, &needs->items[i], index, &rung->needs[i], error))
            return -1;
    rung->need_count = needs->count;
    if (snprintf(path, sizeof path, "%s/%s.yaml", directory, rung->name) >= (int)sizeof path)
        return gemma4_fail(error, "%.200s...: path too long", directory);
    rung->the_case = gemma4_case_open(path, error);
    if (!rung->the_case)
        return -1;
    return strcmp(rung->the_case->id, rung->name)
               ? gemma4_fail(error, "%s: id: expected '%s', found '%s'", path, rung->name,
                             rung->the_case->id)
               : 0;
}

static int read_ladder(gemma4_ladder *ladder, const char *directory, gemma4_error *error)
{
    static const char *const keys[] = {"format", "version", "rungs", NULL};
    const gemma4_node *root = gemma4_document_root(ladder->document), *rungs;
    const char *format;
    int64_t version;
    if (gemma4_node_only_keys(root, keys, error) ||
        gemma4_get_string(root, "format", &format, error))
        return -1;
    if (strcmp(format, "gemma4-ladder"))
        return gemma4_node_fail(gemma4_node_get(root, "format"), "gemma4-ladder", error);
    if (gemma4_get_int(root, "version", 1, 1, &version, error) ||
        gemma4_get_node(root, "rungs", GEMMA4_SEQUENCE, &rungs, error))
        return -1;
    ladder->rungs = calloc(rungs->count + 1, sizeof *ladder->rungs);
    if (!ladder->rungs)
        return gemma4_fail(error, "ladder: out of memory");
    for (; ladder->count < rungs->count; ladder->count++)
        if (read_rung(ladder, &rungs->items[ladder->count], directory, ladder->count, error))
            return -1;
    return ladder->count ? 0 : gemma4_node_fail(rungs, "at least one rung", error);
}

int gemma4_ladder_open(gemma4_ladder *ladder, gemma4_error *error)
{
    const char *golden = gemma4_golden_dir();
    char directory[4096], path[4096 + 16];
    *ladder = (gemma4_ladder){0};
    if (!golden ||
        snprintf(directory, sizeof directory, "%s/ladder", golden) >= (int)sizeof directory)
        return gemma4_fail(error, "golden/ladder: not found under the current directory, beside "
                                  "the program or where it was installed (or in GEMMA4_DATA)");
    snprintf(path, sizeof path, "%s/ladder.yaml", directory);
    ladder->document = gemma4_document_read(path, error);
    if (ladder->document && !read_ladder(ladder, directory, error))
        return 0;
    gemma4_ladder_close(ladder);
    return -1;
}

void gemma4_ladder_close(gemma4_ladder *ladder)
{
    for (size_t i = 0; ladder->rungs && i <= ladder->count; i++)
        gemma4_case_close(ladder->rungs[i].the_case);
    free(ladder->rungs);
    gemma4_document_free(ladder->document);
    *ladder = (gemma4_ladder){0};
}

/* ------------------------------------------------------------------- writing */

static void write_ints(FILE *f, const char *key, const int32_t *values, size_t count)
{
    fprintf(f, ", \"%s\": [", key);
    for (size_t i = 0; i < count; i++)
        fprintf(f, "%s%d", i ? ", " : "", values[i]);
    fputs("]", f);
}

static void write_rung(FILE *f, const gemma4_case *c)
{
    fprintf(f, "    {\"rung\": \"%s\", \"checkpoint\": \"%s\"", c->id, c->checkpoint_name);
    write_ints(f, "tokens", c->tokens, c->token_count);
    fprintf(f, ", \"first_position\": %zu", c->first_position);
    write_ints(f, "schedule", c->schedule, c->schedule_count);
    fputs(", \"summary\": ", f);
    gemma4_json_string(f, c->summary);
    fputs("}", f);
}

static bool is_first_of_checkpoint(const gemma4_ladder *ladder, size_t rung)
{
    for (size_t i = 0; i < rung; i++)
        if (!strcmp(ladder->rungs[i].the_case->checkpoint_name,
                    ladder->rungs[rung].the_case->checkpoint_name))
            return false;
    return true;
}

/* The files that appear in a checkpoint's folder are those of gemma4-ref synth. */
static int write_checkpoint(const gemma4_case *c, const char *directory, gemma4_error *error)
{
    const gemma4_synth_options options = {
        .preset = c->checkpoint_preset, .seed = c->checkpoint_seed, .shards = 1};
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s", directory, c->checkpoint_name) >= (int)sizeof path)
        return gemma4_fail(error, "%.200s...: path too long", directory);
    return gemma4_synth(&options, path, error);
}

int gemma4_ladder_write(const gemma4_ladder *ladder, const char *directory, gemma4_error *error)
{
    gemma4_output output;
    char path[4096];
    for (size_t i = 0; i < ladder->count; i++)
        if (is_first_of_checkpoint(ladder, i) &&
            write_checkpoint(ladder->rungs[i].the_case, directory, error))
            return -1;
    if (snprintf(path, sizeof path, "%s/ladder.json", directory) >= (int)sizeof path)
        return gemma4_fail(error, "%.200s...: path too long", directory);
    if (gemma4_output_open(&output, path, error))
        return -1;
    fputs("{\n  \"format\": \"gemma4-ladder\", \"format_version\": 1,\n  \"rungs\": [\n", output.f);
    for (size_t i = 0; i < ladder->count; i++) {
        write_rung(output.f, ladder->rungs[i].the_case);
        fputs(i + 1 < ladder->count ? ",\n" : "\n", output.f);
    }
    fputs("  ]\n}\n", output.f);
    return gemma4_output_commit(&output, error);
}
