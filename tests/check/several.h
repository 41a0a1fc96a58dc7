/* Several dumps in one call (spec/report.md, "Several dumps"): which ones, and their reports in
 * one. */
#ifndef GEMMA4_SEVERAL_H
#define GEMMA4_SEVERAL_H

#include <stdio.h>

#include "document.h"
#include "report.h"

/* One dump of the list. Strings are the list's. */
typedef struct gemma4_listed_dump {
    char *path;
    char *label;           /* the file's name without its ending, unlike that of any other in the
                                list */
    const char *case_name; /* NULL: what the dump's attribute says */
    const char *model_dir; /* with it, the reference computes what is expected; else NULL */
    const char *dtype, *require; /* NULL: as the command line says */
} gemma4_listed_dump;

typedef struct gemma4_dump_list {
    gemma4_listed_dump *dumps;
    size_t count;
    gemma4_document *document; /* NULL of a folder */
    char **paths;              /* what else the dumps point to */
    size_t path_count;
} gemma4_dump_list;

/* Reads a list of dumps (spec/report.md), or takes all dumps of a folder by their names' endings,
 * in alphabetical order. Fails where there is none. Nothing of the dumps is read yet. */
int gemma4_dump_list_open(const char *path, gemma4_dump_list *list, gemma4_error *error);
void gemma4_dump_list_free(gemma4_dump_list *list);

/* What became of one dump. The process that judges it writes to the files, which have no name; the
 * one that started it reads them. */
typedef struct gemma4_part {
    const gemma4_listed_dump *dump;
    int status; /* the exit status that it alone would have had */
    FILE *text, *json, *junit;
} gemma4_part;

/* Opens the files. */
int gemma4_part_open(gemma4_part *part, const gemma4_listed_dump *dump, gemma4_error *error);
void gemma4_part_close(gemma4_part *part);
/* Write what is known of the dump to the files; the second also after the first, whose words it
 * replaces. The text is the terminal's where it does not conform, then one line; for a dump that
 * conforms one line only. They fail where the disk does not take all of it. */
int gemma4_part_judged(const gemma4_part *part, const gemma4_report *report, gemma4_error *error);
int gemma4_part_unusable(const gemma4_part *part, const char *message, gemma4_error *error);

/* The parts in one. */
typedef struct gemma4_several {
    gemma4_part *parts;
    size_t count;
    int status; /* the worst */
} gemma4_several;

/* parts are count. */
gemma4_several gemma4_several_of(gemma4_part *parts, size_t count);
/* How many cannot be judged, and the path of the first; "" for none. */
size_t gemma4_several_unusable(const gemma4_several *several);
const char *gemma4_several_first_unusable(const gemma4_several *several);
void gemma4_several_text(FILE *out, const gemma4_several *several);
void gemma4_several_json(FILE *out, const gemma4_several *several);
void gemma4_several_junit(FILE *out, const gemma4_several *several);

#endif
