/* A case: what an engine is fed, what came out of the oracle, how closely to compare
 * (spec/cases.md). */
#ifndef GEMMA4_MANIFEST_H
#define GEMMA4_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

#include "compare.h"
#include "document.h"
#include "error.h"
#include "taps.h"

/* One row of a case's tolerances. The last row that matches decides. */
typedef struct gemma4_tolerance_row {
    const char *dtype;         /* of the engine's arithmetic: "float32" */
    const char *taps;          /* a glob over tap names: "*", "layers.*.attn.*" */
    gemma4_metric_kind metric; /* RELATIVE_RMS or POSITION_RMS */
    double value;
    const char *from; /* the derivation, or the measurement and its command */
} gemma4_tolerance_row;

/* What a case asks of an engine beyond the model: where it cannot, a failure there is no fault of
 * its arithmetic. */
typedef struct gemma4_flag {
    const char *flag, *reason;
} gemma4_flag;

/* What a flag means (the table in spec/cases.md). Cases whose first position is at least `from`
 * and that have at least so many tokens must have it, the others must not. */
typedef struct gemma4_flag_info {
    const char *flag;
    size_t from, tokens;
    const char *meaning;
} gemma4_flag_info;

/* The flag of cases that take many times as long as the others: what runs all cases many times
 * leaves them out unless asked. */
#define GEMMA4_MANY_POSITIONS "many-positions"

/* Strings point into the document. */
typedef struct gemma4_case {
    gemma4_document *document;
    char path[4096]; /* of the manifest */
    const char *id, *summary, *why;
    const char **shows; /* the mistakes that this case can show */
    size_t shows_count;
    const char *checkpoint_name, *checkpoint_preset, *checkpoint_sha256, *config_sha256;
    uint64_t checkpoint_seed;
    char checkpoint_dir[4096]; /* where it was found, or is to be generated */
    bool checkpoint_generated; /* not committed: written where it is missing or of an earlier
                                  version */
    int32_t *tokens;
    size_t token_count;
    size_t first_position;
    int32_t *schedule; /* chunk lengths, which add up to token_count */
    size_t schedule_count;
    const char *oracle_name, *oracle_version, *oracle_dtype;
    char golden_path[4096];
    const char *golden_sha256;
    uint64_t routing_decisions;
    double routing_smallest_gap;
    gemma4_tolerance_row *tolerances;
    size_t tolerance_count;
    gemma4_flag *flags;
    size_t flag_count;
} gemma4_case;

/* where is a manifest's path, or a case's id: then golden/cases/ID.yaml is looked for under the
 * current directory and beside the program's build directory. NULL on failure. */
gemma4_case *gemma4_case_open(const char *where, gemma4_error *error);
void gemma4_case_close(gemma4_case *c);

/* Directory of the manifests that gemma4_case_open finds by id; NULL where there is none. */
const char *gemma4_cases_dir(void);
/* The ids of all manifests in it, sorted; *ids is malloc'd, and so is each. */
int gemma4_case_ids(char ***ids, size_t *count, gemma4_error *error);
void gemma4_case_ids_free(char **ids, size_t count);

/* Makes sure that the checkpoint is there: a committed one is used as it is, another one is
 * generated under build/checkpoints from its preset and seed, and again where an earlier version of
 * this program wrote it. Both files' hashes are compared with the manifest's. */
int gemma4_case_provide_checkpoint(const gemma4_case *c, gemma4_error *error);

/* NULL after the last, and for an unknown flag. */
const gemma4_flag_info *gemma4_flag_at(size_t index);
const gemma4_flag_info *gemma4_flag_named(const char *flag);
bool gemma4_case_has_flag(const gemma4_case *c, const char *flag);
/* Whether the case must have the flag. */
bool gemma4_case_needs_flag(const gemma4_case *c, const gemma4_flag_info *info);

/* The tolerance for a tap, or NULL where no row matches. */
const gemma4_tolerance_row *gemma4_case_tolerance(const gemma4_case *c, const char *dtype,
                                                  const char *tap_name, gemma4_metric_kind metric);

#endif
