#include "text.h"

#include <math.h>
#include <stdbool.h>

int gemma4_utf8_length(const unsigned char *s)
{
    int length = s[0] < 0x80                   ? 1
                 : s[0] >= 0xC2 && s[0] < 0xE0 ? 2
                 : s[0] >= 0xE0 && s[0] < 0xF0 ? 3
                 : s[0] >= 0xF0 && s[0] < 0xF5 ? 4
                                               : 0;
    for (int i = 1; i < length; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    if ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F) ||
        (s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] > 0x8F))
        return 0; /* overlong, a surrogate, or beyond U+10FFFF */
    return length;
}

/* U+FFFE and U+FFFF are valid UTF-8 and neither XML nor YAML. */
static bool is_noncharacter(const unsigned char *s)
{
    return s[0] == 0xEF && s[1] == 0xBF && s[2] >= 0xBE;
}

void gemma4_terminal_text(FILE *out, const char *text)
{
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        int length = gemma4_utf8_length(s);
        bool control = *s < 0x20 || *s == 0x7F || (s[0] == 0xC2 && s[1] < 0xA0);
        if (length == 0 || control || is_noncharacter(s))
            fputc('?', out);
        else
            fwrite(s, 1, (size_t)length, out);
        s += length ? length : 1;
    }
}

void gemma4_json_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        int length = gemma4_utf8_length(s);
        if (length == 0) {
            fputs("\\ufffd", out);
            s++;
        } else if (*s == '"' || *s == '\\') {
            fprintf(out, "\\%c", *s++);
        } else if (*s < 0x20) {
            fprintf(out, "\\u%04x", *s++);
        } else {
            fwrite(s, 1, (size_t)length, out);
            s += length;
        }
    }
    fputc('"', out);
}

void gemma4_xml_text(FILE *out, const char *text)
{
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        int length = gemma4_utf8_length(s);
        if (*s == '&')
            fputs("&amp;", out);
        else if (*s == '<')
            fputs("&lt;", out);
        else if (*s == '>')
            fputs("&gt;", out);
        else if (*s == '"')
            fputs("&quot;", out);
        else if (length == 0 || (*s < 0x20 && *s != '\t' && *s != '\n') || is_noncharacter(s))
            fputc('?', out);
        else
            fwrite(s, 1, (size_t)length, out);
        s += length ? length : 1;
    }
}

void gemma4_json_number(FILE *out, double value)
{
    if (isfinite(value))
        fprintf(out, "%.9g", value);
    else
        fputs("null", out);
}

void gemma4_json_field(FILE *out, const char *key, const char *text)
{
    fprintf(out, "\"%s\": ", key);
    if (text)
        gemma4_json_string(out, text);
    else
        fputs("null", out);
}
