/* A dump under an engine's own names, made into taps by a map (spec/maps.md). What comes out is an
 * activation file like any other. */
#ifndef GEMMA4_IMPORT_H
#define GEMMA4_IMPORT_H

#include "activations.h"
#include "map.h"

/* The tokens that a dump without any was made from, and their first position: a case's. */
typedef struct gemma4_given_tokens {
    const int32_t *tokens; /* [count], at least one */
    size_t count, first_position;
} gemma4_given_tokens;

/* What a rule did. */
typedef struct gemma4_rule_use {
    const gemma4_map_rule *rule;
    size_t taps;       /* how many it made: one a layer */
    const char *first; /* the first of the tensors that it took; NULL: it matched nothing */
} gemma4_rule_use;

typedef struct gemma4_import_log {
    const gemma4_map *map;
    gemma4_rule_use *uses; /* [map->rule_count] in the map's order */
    size_t passes, names;  /* of the dump; names: distinct ones */
    const char **untaken;  /* [untaken_count] names that no rule took and the map does not ignore,
                              sorted */
    size_t untaken_count;
    bool tokens_given, positions_given; /* the dump holds none: they are the caller's */
} gemma4_import_log;

/* Opens the passes of a dump (foreign.h), in their order, and applies the map. Fails where two
 * rules or two tensors claim one tap, where axes, slices, split widths or types do not fit a
 * tensor, or where passes do not add up. A tensor whose lengths contradict the config is listed as
 * not usable, as in gemma4_activations_open. given may be NULL; the tokens of a dump that has some
 * are the dump's. map and config must outlive the result, which gemma4_activations_close closes;
 * *log is valid until then. NULL on failure. */
gemma4_activations *gemma4_import(const char *const *paths, size_t count, const gemma4_map *map,
                                  const gemma4_config *config, const gemma4_given_tokens *given,
                                  const gemma4_import_log **log, gemma4_error *error);

#endif
