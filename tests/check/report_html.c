#include "report_html.h"
void gemma4_report_html(FILE *out, const gemma4_report *report) { (void)out; (void)report; }
void gemma4_report_html_cause(FILE *out, const gemma4_cause *cause) { (void)out; (void)cause; }
void gemma4_report_html_unusable(FILE *out, const char *message) { (void)out; (void)message; }
