/* Between what `names` does: grouping (names_group.c), recognising (names_recognise.c), writing
 * YAML (names_yaml.c). */
#ifndef GEMMA4_NAMES_INTERNAL_H
#define GEMMA4_NAMES_INTERNAL_H

#include "foreign.h"
#include "manifest.h"
#include "map.h"
#include "names.h"

enum { GEMMA4_PATTERN_SIZE = GEMMA4_STORED_NAME_SIZE + 8 };

/* Tensors whose names differ only in the layer's number. */
typedef struct gemma4_name_group {
    char pattern[GEMMA4_PATTERN_SIZE]; /* "blocks.{N}.ln1.hook_out"; a single tensor's name as it
                                          is */
    bool has_layer;
    size_t *members; /* [count] tensors of the first pass */
    size_t *layers;  /* [count] their numbers, rising; 0 without one */
    size_t count;
} gemma4_name_group;

typedef struct gemma4_name_groups {
    gemma4_name_group *items;
    size_t count;
} gemma4_name_groups;

/* The groups of a pass, in the order of their first tensors. */
int gemma4_name_groups_make(const gemma4_pass *pass, gemma4_name_groups *groups,
                            gemma4_error *error);
void gemma4_name_groups_free(gemma4_name_groups *groups);

/* What a group may be. */
typedef struct gemma4_name_guess {
    bool known;           /* it is a tap, by one of the two: */
    bool by_value;        /* its values are the golden's */
    double difference;    /* relative RMS of that; 0 for ids that are the same */
    bool by_name;         /* its name comes near the tap's */
    bool contradicted;    /* by its name, but there is a golden, and its values are others */
    gemma4_map_rule rule; /* that takes it; name points to text, from to the group's pattern */
    char name[GEMMA4_TAP_NAME_SIZE];
    bool taken; /* by a better group: another holds the same tap */
} gemma4_name_guess;

/* What there is to compare with; config, the_case and golden are NULL where neither a case nor a
 * model was named. */
typedef struct gemma4_name_world {
    gemma4_pass *pass;
    const gemma4_config *config;
    const gemma4_case *the_case;
    gemma4_activations *golden;
} gemma4_name_world;

/* By values where there is a golden, else by name, which must fit the config's shapes where there
 * is one. */
int gemma4_name_recognise(const gemma4_name_world *world, const gemma4_name_group *group,
                          gemma4_name_guess *guess, gemma4_error *error);

/* "  layers.{N}.attn.q: {from: 'Qcur-{N}', axes: 'd h t'}\n" */
void gemma4_rule_yaml(FILE *out, const gemma4_map_rule *rule);
/* A scalar in single quotes. */
void gemma4_yaml_quoted(FILE *out, const char *text);

#endif
