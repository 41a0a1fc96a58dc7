/* What a report says of datasets that are no taps. */
#ifndef GEMMA4_UNKNOWN_NAMES_H
#define GEMMA4_UNKNOWN_NAMES_H

#include "activations.h"
#include "report.h"

/* A warning for each dataset whose name comes near a tap's (ref/near_names.h), unless the dump
 * holds that tap too: its user believes it covered. The same misspelling in many layers is one
 * warning; beyond eight, the others are counted. A note counts all other datasets. */
void gemma4_note_unknown(const gemma4_activations *engine, gemma4_report *report);

#endif
