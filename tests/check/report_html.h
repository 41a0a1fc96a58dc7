/* What gemma4-check found, as one self-contained page for a browser: no script, nothing loaded from
 * elsewhere. */
#ifndef GEMMA4_REPORT_HTML_H
#define GEMMA4_REPORT_HTML_H

#include "report.h"

void gemma4_report_html(FILE *out, const gemma4_report *report);
/* One cause of it, as a fragment: what first, wrong against right, evidence, where else it was
 * seen. The model's config and the number of positions are for the pictures of causes that are in
 * no catalogue. */
void gemma4_report_html_cause(FILE *out, const gemma4_config *config, size_t positions,
                              const gemma4_cause *cause);
/* The page of an input that could not be judged. */
void gemma4_report_html_unusable(FILE *out, const char *message);

#endif
