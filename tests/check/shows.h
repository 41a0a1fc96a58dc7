/* Does a case show a mistake? */
#ifndef GEMMA4_SHOWS_H
#define GEMMA4_SHOWS_H

#include "activations.h"
#include "manifest.h"
#include "model.h"

/* Plants each variant of a cause into a simulated float32 engine (planted_engine.h) that runs the
 * case. *shows: with one of them at least a tap differs from the golden's by more than the case's
 * tolerance. */
int gemma4_case_shows(const gemma4_case *c, const gemma4_model *model, gemma4_activations *golden,
                      const char *cause, bool *shows, gemma4_error *error);

#endif
