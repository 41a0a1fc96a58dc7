/* From failing taps to causes: fits and filters of every block, then the causes of all of them
 * together (spec/diagnosis.md). */
#ifndef GEMMA4_DIAGNOSE_H
#define GEMMA4_DIAGNOSE_H

#include <stdbool.h>
#include <stddef.h>

#include "taps.h"

typedef struct gemma4_cause gemma4_cause;               /* causes.h */
typedef struct gemma4_dump_mistake gemma4_dump_mistake; /* dump_mistake.h */
typedef struct gemma4_evidence gemma4_evidence;         /* evidence.h */
typedef struct gemma4_finding gemma4_finding;           /* fit.h */
typedef struct gemma4_runner gemma4_runner;             /* block_run.h */

typedef struct gemma4_diagnosis gemma4_diagnosis;

/* NULL when out of memory. */
gemma4_diagnosis *gemma4_diagnosis_new(const gemma4_config *config, gemma4_error *error);
void gemma4_diagnosis_free(gemma4_diagnosis *diagnosis);
/* Looks at a block: failed says which of its taps failed. */
int gemma4_diagnose_block(gemma4_diagnosis *diagnosis, const gemma4_evidence *evidence,
                          gemma4_runner *runner, const bool failed[GEMMA4_TAP_COUNT],
                          gemma4_error *error);
/* A mistake of the dump at a tap, to be listed before what else nothing explains; the text says
 * which. */
int gemma4_diagnose_dump(gemma4_diagnosis *diagnosis, gemma4_tap tap, size_t layer,
                         const gemma4_dump_mistake *mistake, const char *text, gemma4_error *error);
/* Where no tap has an explanation: all of what is left is this mistake of the dump. */
void gemma4_diagnose_unexplained(gemma4_diagnosis *diagnosis, const gemma4_dump_mistake *mistake,
                                 const char *text);
/* After the last block: findings become causes, in the order of gemma4_causes. */
int gemma4_diagnose_conclude(gemma4_diagnosis *diagnosis, gemma4_error *error);
/* The findings behind the causes, in dataflow order: those of the dump first. */
size_t gemma4_finding_count(const gemma4_diagnosis *diagnosis);
const gemma4_finding *gemma4_finding_at(const gemma4_diagnosis *diagnosis, size_t index);
/* That of the model it was begun with. */
const gemma4_config *gemma4_diagnosis_config(const gemma4_diagnosis *diagnosis);
/* 0 where diagnosis is NULL. */
size_t gemma4_cause_count(const gemma4_diagnosis *diagnosis);
const gemma4_cause *gemma4_cause_at(const gemma4_diagnosis *diagnosis, size_t index);

#endif
