/* JSON Schema (draft 2020-12), as much of it as spec/report.schema.json uses; a keyword beyond that
 * is an error, not ignored. */
#ifndef GEMMA4_TEST_SCHEMA_H
#define GEMMA4_TEST_SCHEMA_H

#include <stddef.h>

#include "document.h"

/* Whether the value is what the schema says: "" or where it is not, and why, in one line. schema is
 * the whole schema's root. The text stays valid until the next call. */
const char *test_schema_violation(const gemma4_node *schema, const gemma4_node *value);
/* The same of one of its parts: where alternatives are left out, the reason is the one that
 * counts. */
const char *test_schema_violation_of(const gemma4_node *schema, const gemma4_node *part,
                                     const gemma4_node *value);

#endif
