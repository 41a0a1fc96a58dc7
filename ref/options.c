#include "options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int gemma4_options_parse(int argc, char **argv, const gemma4_option *options,
                         const char **positional, size_t max_positional, size_t *positional_count,
                         gemma4_error *error)
{
    *positional_count = 0;
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (word[0] != '-' || word[1] == '\0') {
            if (*positional_count == max_positional)
                return gemma4_fail(error, "command line: unexpected argument '%s'", word);
            positional[(*positional_count)++] = word;
            continue;
        }
        size_t length = strcspn(word, "=");
        const gemma4_option *option = options;
        while (option->name &&
               (strlen(option->name) != length || strncmp(option->name, word, length)))
            option++;
        if (!option->name)
            return gemma4_fail(error, "command line: unknown option '%s'", word);
        if (*option->value)
            return gemma4_fail(error, "command line: option '%s' given twice", option->name);
        if (word[length] == '=')
            *option->value = word + length + 1;
        else if (i + 1 < argc)
            *option->value = argv[++i];
        else
            return gemma4_fail(error, "command line: option '%s' needs a value", word);
    }
    return 0;
}

/* Reads one decimal integer at *text and moves *text after it. */
static int read_int(const char **text, const char *what, int64_t low, int64_t high, int64_t *value,
                    gemma4_error *error)
{
    char *end;
    errno = 0;
    long long n = (**text >= '0' && **text <= '9') ? strtoll(*text, &end, 10) : (end = NULL, 0);
    if (!end || errno || n < low || n > high)
        return gemma4_fail(error, "%s: expected an integer from %lld to %lld, found '%.40s'", what,
                           (long long)low, (long long)high, *text);
    *value = n;
    *text = end;
    return 0;
}

int gemma4_parse_int(const char *text, const char *what, int64_t low, int64_t high, int64_t *value,
                     gemma4_error *error)
{
    const char *rest = text;
    if (read_int(&rest, what, low, high, value, error))
        return -1;
    return *rest ? gemma4_fail(error, "%s: expected an integer, found '%.40s'", what, text) : 0;
}

int gemma4_parse_ints(const char *text, const char *what, int64_t low, int64_t high,
                      int32_t **values, size_t *count, gemma4_error *error)
{
    size_t commas = 0;
    for (const char *p = text; *p; p++)
        commas += *p == ',';
    *count = 0;
    *values = malloc((commas + 1) * sizeof **values);
    if (!*values)
        return gemma4_fail(error, "%s: out of memory", what);
    for (const char *rest = text;; rest++) {
        int64_t n = 0;
        if (read_int(&rest, what, low, high, &n, error))
            break;
        (*values)[(*count)++] = (int32_t)n;
        if (*rest == '\0')
            return 0;
        if (*rest != ',') {
            gemma4_fail(error, "%s: expected integers separated by commas, found '%.40s'", what,
                        rest);
            break;
        }
    }
    free(*values);
    *values = NULL;
    return -1;
}
