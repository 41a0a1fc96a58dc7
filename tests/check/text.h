/* Text that may come from a dump, made safe for what it is printed into. */
#ifndef GEMMA4_TEXT_H
#define GEMMA4_TEXT_H

#include <stdio.h>

/* The length in bytes of the valid UTF-8 sequence at s, or 0 where there is none. */
int gemma4_utf8_length(const unsigned char *s);
/* Text on a terminal, which must not obey it, or in a comment of YAML: '?' for control characters
 * and for what is no UTF-8. */
void gemma4_terminal_text(FILE *out, const char *text);
/* Text as a JSON string with its quotes; invalid UTF-8 becomes U+FFFD. */
void gemma4_json_string(FILE *out, const char *text);
/* JSON has no infinity and no NaN: they become null. */
void gemma4_json_number(FILE *out, double value);
/* "key": text, which may be NULL. */
void gemma4_json_field(FILE *out, const char *key, const char *text);
/* Text inside XML or HTML, between tags or in a double-quoted attribute: escaped, '?' for invalid
 * UTF-8 and for the characters that XML 1.0 forbids. */
void gemma4_xml_text(FILE *out, const char *text);

#endif
