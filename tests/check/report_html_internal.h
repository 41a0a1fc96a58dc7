/* What the files of the page for a browser share: report_html.c (head, foot, order of the
 * sections), _style.c, _words.c (numbers and names), and a file a section. */
#ifndef GEMMA4_REPORT_HTML_INTERNAL_H
#define GEMMA4_REPORT_HTML_INTERNAL_H

#include "report_html.h"

typedef struct gemma4_counter_model gemma4_counter_model; /* counter_model.h */

extern const char html_style[];

/* --- words and numbers --- */

/* A number as text. */
typedef struct html_digits {
    char text[32];
} html_digits;

/* Three digits: 0.739, 5.74e6. */
html_digits html_short_number(double value);
/* All digits of a float. */
html_digits html_full_number(double value);
/* NAN stands for "not known" in inherited errors. */
html_digits html_known_number(double value);
/* NaN, or an infinity. */
html_digits html_nonfinite(double value);
const char *html_plural(size_t n);
const char *html_metric_words(gemma4_metric_kind kind);
/* A mark beside or instead of a colour; "" for a pass. */
const char *html_verdict_glyph(gemma4_verdict verdict);
/* Text of the dump: escaped, and its writing direction does not reach beyond it. */
void html_foreign_text(FILE *out, const char *text);
void html_tap_code(FILE *out, gemma4_tap tap, size_t layer);
/* A known mistake's id, and its variant. */
void html_model_name(FILE *out, const gemma4_counter_model *model);
const gemma4_tap_result *html_result_of(const gemma4_report *report, gemma4_tap tap, size_t layer);

/* --- causes that are in no catalogue (report_html_identified.c) --- */

/* The names of its parameters; their values beside the right ones, with pictures; what else there
 * is to say. */
void html_identified_names(FILE *out, const gemma4_point *point);
void html_identified(FILE *out, const gemma4_config *config, size_t positions,
                     const gemma4_cause *cause);
void html_identified_facts(FILE *out, const gemma4_cause *cause);

/* --- sections --- */

void html_headline(FILE *out, const gemma4_report *report);
void html_first(FILE *out, const gemma4_report *report);
void html_causes(FILE *out, const gemma4_report *report);
void html_next(FILE *out, const gemma4_report *report);
void html_maps(FILE *out, const gemma4_report *report);
void html_growth(FILE *out, const gemma4_report *report);
void html_routing(FILE *out, const gemma4_report *report);
void html_import(FILE *out, const gemma4_report *report);
void html_coverage(FILE *out, const gemma4_report *report);
void html_all_taps(FILE *out, const gemma4_report *report);

#endif
