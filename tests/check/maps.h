/* The maps in golden/maps, and what a report says of the one that was used (spec/maps.md). */
#ifndef GEMMA4_MAPS_H
#define GEMMA4_MAPS_H

#include <stdio.h>

#include "import.h"
#include "report.h"

/* where is a map's path, or the name of one in golden/maps, which is looked for where cases are.
 * NULL on failure. */
gemma4_map *gemma4_map_open(const char *where, gemma4_error *error);
/* Directory of the shipped maps; NULL where there is none. */
const char *gemma4_maps_dir(void);
/* Their names, sorted, none where there is no such directory; *names is malloc'd, and so is each
 * (gemma4_case_ids_free). */
int gemma4_map_names(char ***names, size_t *count, gemma4_error *error);

/* Notes what the map did, and warns of rules that matched nothing, unless another rule of the same
   tap did, and of tensors that none took.
 */
void gemma4_note_map(const gemma4_import_log *log, gemma4_report *report);
/* Whether the rule found nothing and no other rule of its tap did: a tap that is not covered. Never
 * of positions, nor of tokens that the case gives. */
bool gemma4_rule_is_idle(const gemma4_import_log *log, size_t rule);
/* "Qcur-{N}: axes d h t, slice h [0, 16]": a rule in one line, without its tap. */
gemma4_sentence gemma4_rule_text(const gemma4_map_rule *rule);

#endif
