#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Replaces the control characters of ASCII and of Unicode's C1 block (0xC2 0x80 ... 0xC2 0x9F in
 * UTF-8), either of which a terminal may obey. */
static void replace_controls(char *text)
{
    for (unsigned char *c = (unsigned char *)text; *c != '\0'; c++) {
        if (c[0] == 0xC2 && c[1] >= 0x80 && c[1] <= 0x9F)
            c[0] = c[1] = '?';
        else if (*c < 0x20 || *c == 0x7F)
            *c = '?';
    }
}

int gemma4_fail(gemma4_error *error, const char *format, ...)
{
    if (error == NULL)
        return -1;
    /* Formatted apart first: the arguments may include error->message itself. */
    gemma4_error formatted;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(formatted.message, sizeof formatted.message, format, arguments);
    va_end(arguments);
    if (length < 0)
        strcpy(formatted.message, "error message could not be formatted");
    if (length >= (int)sizeof formatted.message)
        strcpy(formatted.message + sizeof formatted.message - 4, "...");
    replace_controls(formatted.message);
    strcpy(error->message, formatted.message);
    return -1;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), due = strlen(end);
    return length >= due && !strcmp(text + length - due, end);
}

bool gemma4_error_is_memory(const gemma4_error *error)
{
    return ends_with(error->message, "out of memory") ||
           ends_with(error->message, strerror(ENOMEM));
}
