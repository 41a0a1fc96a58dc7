#include "schema.h"

#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

static char violation[400];

static bool refuse(const gemma4_node *value, const char *what, const char *detail)
{
    snprintf(violation, sizeof violation, "%.200s: %s %.120s",
             value->path[0] ? value->path : "(root)", what, detail);
    return false;
}

/* ------------------------------------------------------------ kinds of values */

static bool is_number(const gemma4_node *n, double *number)
{
    char *end;
    if (n->kind != GEMMA4_SCALAR || n->quoted || n->text[0] == '\0')
        return false;
    *number = strtod(n->text, &end);
    return *end == '\0' && isfinite(*number);
}

static bool is_of_type(const gemma4_node *n, const char *type)
{
    double number;
    bool plain = n->kind == GEMMA4_SCALAR && !n->quoted;
    if (!strcmp(type, "object"))
        return n->kind == GEMMA4_MAPPING;
    if (!strcmp(type, "array"))
        return n->kind == GEMMA4_SEQUENCE;
    if (!strcmp(type, "string"))
        return n->kind == GEMMA4_SCALAR && n->quoted;
    if (!strcmp(type, "null"))
        return plain && !strcmp(n->text, "null");
    if (!strcmp(type, "boolean"))
        return plain && (!strcmp(n->text, "true") || !strcmp(n->text, "false"));
    if (!strcmp(type, "number"))
        return is_number(n, &number);
    ck_assert_msg(!strcmp(type, "integer"), "the schema has the unknown type '%s'", type);
    return is_number(n, &number) && floor(number) == number;
}

static bool equal_scalars(const gemma4_node *a, const gemma4_node *b)
{
    double x, y;
    if (is_number(a, &x) && is_number(b, &y))
        return x == y;
    return a->kind == GEMMA4_SCALAR && b->kind == GEMMA4_SCALAR && a->quoted == b->quoted &&
           !strcmp(a->text, b->text);
}

/* ------------------------------------------------------------------- keywords */

static bool conforms(const gemma4_node *root, const gemma4_node *schema, const gemma4_node *value);

static bool check_type(const gemma4_node *types, const gemma4_node *value)
{
    if (types->kind == GEMMA4_SCALAR)
        return is_of_type(value, types->text) || refuse(value, "expected the type", types->text);
    for (size_t i = 0; i < types->count; i++)
        if (is_of_type(value, types->items[i].text))
            return true;
    return refuse(value, "expected another type", "");
}

static bool check_enum(const gemma4_node *values, const gemma4_node *value)
{
    for (size_t i = 0; i < values->count; i++)
        if (equal_scalars(&values->items[i], value))
            return true;
    return refuse(value, "is none of the values of enum:",
                  value->kind == GEMMA4_SCALAR ? value->text : "(no scalar)");
}

static bool check_required(const gemma4_node *keys, const gemma4_node *value)
{
    for (size_t i = 0; value->kind == GEMMA4_MAPPING && i < keys->count; i++)
        if (!gemma4_node_get(value, keys->items[i].text))
            return refuse(value, "lacks", keys->items[i].text);
    return true;
}

static bool check_properties(const gemma4_node *root, const gemma4_node *schema,
                             const gemma4_node *properties, const gemma4_node *value)
{
    const gemma4_node *additional = gemma4_node_get(schema, "additionalProperties");
    for (size_t i = 0; value->kind == GEMMA4_MAPPING && i < value->count; i++) {
        const gemma4_node *property = gemma4_node_get(properties, value->keys[i]);
        if (!property && additional && !strcmp(additional->text, "false"))
            return refuse(value, "has the unknown key", value->keys[i]);
        if (property && !conforms(root, property, &value->items[i]))
            return false;
    }
    return true;
}

static bool check_items(const gemma4_node *root, const gemma4_node *items, const gemma4_node *value)
{
    for (size_t i = 0; value->kind == GEMMA4_SEQUENCE && i < value->count; i++)
        if (!conforms(root, items, &value->items[i]))
            return false;
    return true;
}

static bool check_any(const gemma4_node *root, const gemma4_node *schemas, const gemma4_node *value)
{
    for (size_t i = 0; i < schemas->count; i++)
        if (conforms(root, &schemas->items[i], value)) {
            violation[0] = '\0';
            return true;
        }
    return false; /* the last one's reason */
}

static bool check_pattern(const gemma4_node *pattern, const gemma4_node *value)
{
    regex_t compiled;
    ck_assert_int_eq(regcomp(&compiled, pattern->text, REG_EXTENDED | REG_NOSUB), 0);
    bool matches = value->kind != GEMMA4_SCALAR || regexec(&compiled, value->text, 0, NULL, 0) == 0;
    regfree(&compiled);
    return matches || refuse(value, "does not match", pattern->text);
}

/* A bound on a number, or on how many items there are. */
static bool check_bound(const char *keyword, const gemma4_node *bound, const gemma4_node *value)
{
    double limit, number;
    ck_assert(is_number(bound, &limit));
    if (!strcmp(keyword, "minimum"))
        return !is_number(value, &number) || number >= limit ||
               refuse(value, "is below", bound->text);
    if (value->kind != GEMMA4_SEQUENCE)
        return true;
    bool right = !strcmp(keyword, "minItems") ? (double)value->count >= limit
                                              : (double)value->count <= limit;
    return right || refuse(value, "has another number of items than", bound->text);
}

static bool check_reference(const gemma4_node *root, const gemma4_node *reference,
                            const gemma4_node *value)
{
    static const char prefix[] = "#/$defs/";
    ck_assert(strncmp(reference->text, prefix, strlen(prefix)) == 0);
    const gemma4_node *definition =
        gemma4_node_get(gemma4_node_get(root, "$defs"), reference->text + strlen(prefix));
    ck_assert_msg(definition != NULL, "the schema has no %s", reference->text);
    return conforms(root, definition, value);
}

static bool check_keyword(const gemma4_node *root, const gemma4_node *schema, const char *keyword,
                          const gemma4_node *argument, const gemma4_node *value)
{
    static const char *const says_nothing[] = {"$schema", "$id",         "$defs",
                                               "title",   "description", "additionalProperties"};
    for (size_t i = 0; i < sizeof says_nothing / sizeof *says_nothing; i++)
        if (!strcmp(keyword, says_nothing[i]))
            return true;
    if (!strcmp(keyword, "$ref"))
        return check_reference(root, argument, value);
    if (!strcmp(keyword, "type"))
        return check_type(argument, value);
    if (!strcmp(keyword, "const"))
        return equal_scalars(argument, value) || refuse(value, "expected", argument->text);
    if (!strcmp(keyword, "enum"))
        return check_enum(argument, value);
    if (!strcmp(keyword, "required"))
        return check_required(argument, value);
    if (!strcmp(keyword, "properties"))
        return check_properties(root, schema, argument, value);
    if (!strcmp(keyword, "items"))
        return check_items(root, argument, value);
    if (!strcmp(keyword, "anyOf"))
        return check_any(root, argument, value);
    if (!strcmp(keyword, "pattern"))
        return check_pattern(argument, value);
    ck_assert_msg(!strcmp(keyword, "minimum") || !strcmp(keyword, "minItems") ||
                      !strcmp(keyword, "maxItems"),
                  "the schema has the unknown keyword '%s'", keyword);
    return check_bound(keyword, argument, value);
}

static bool conforms(const gemma4_node *root, const gemma4_node *schema, const gemma4_node *value)
{
    for (size_t i = 0; i < schema->count; i++)
        if (!check_keyword(root, schema, schema->keys[i], &schema->items[i], value))
            return false;
    return true;
}

const char *test_schema_violation(const gemma4_node *schema, const gemma4_node *value)
{
    return test_schema_violation_of(schema, schema, value);
}

const char *test_schema_violation_of(const gemma4_node *schema, const gemma4_node *part,
                                     const gemma4_node *value)
{
    violation[0] = '\0';
    return conforms(schema, part, value) ? "" : violation;
}
