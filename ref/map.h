/* Maps (spec/maps.md): which of an engine's own tensors are which taps, and how they lie. */
#ifndef GEMMA4_MAP_H
#define GEMMA4_MAP_H

#include "document.h"
#include "taps.h"

enum { GEMMA4_MAP_AXES_MAX = 8, GEMMA4_MAP_SPLIT_MAX = 4, GEMMA4_MAP_GROUP_MAX = 4 };

/* One end of a slice: a number, negative ones counted from the axis' end; or the length that the
 * config gives to a letter of the tap. */
typedef struct gemma4_map_bound {
    char letter; /* '\0': the number */
    int64_t number;
} gemma4_map_bound;

typedef enum gemma4_map_cut { GEMMA4_MAP_WHOLE, GEMMA4_MAP_SLICE, GEMMA4_MAP_PICK } gemma4_map_cut;

/* One axis of the engine's tensor. */
typedef struct gemma4_map_axis {
    char letters[GEMMA4_MAP_GROUP_MAX + 1]; /* what it is made of, slowest first: "t", "hd"; "1": of
                                               length 1; "n", "i": the layers' axis */
    int64_t shift;                          /* of "n": which entry is layer 0 */
    gemma4_map_cut cut;
    gemma4_map_bound begin, end; /* of a slice; of a pick only begin */
    char written[16];            /* for messages: "h.d", "n+1" */
} gemma4_map_axis;

typedef enum gemma4_map_target {
    GEMMA4_MAP_TAP,
    GEMMA4_MAP_TOKENS,
    GEMMA4_MAP_POSITIONS
} gemma4_map_target;
typedef enum gemma4_map_where { GEMMA4_MAP_ONE, GEMMA4_MAP_EACH, GEMMA4_MAP_LAST } gemma4_map_where;
typedef enum gemma4_map_kind {
    GEMMA4_MAP_ANY_KIND,
    GEMMA4_MAP_SLIDING,
    GEMMA4_MAP_FULL,
    GEMMA4_MAP_BUT_LAST
} gemma4_map_kind;
typedef enum gemma4_map_rows {
    GEMMA4_MAP_ALL_ROWS,
    GEMMA4_MAP_LAST_ROWS,
    GEMMA4_MAP_LISTED_ROWS
} gemma4_map_rows;

typedef struct gemma4_map_rule {
    const gemma4_node *node; /* the rule in the document, for messages */
    const char *name;        /* the tap as it is written: "layers.{N}.attn.q" */
    gemma4_map_target target;
    gemma4_tap tap;         /* of the target TAP */
    gemma4_map_where where; /* which layers: this one, each, the model's last */
    size_t layer;
    const char *from; /* the tensor's name, with {N}, {N+1} ... for the layer, {L} for how many
                         there are, '*' for any text */
    bool has_axes;
    gemma4_map_axis axes[GEMMA4_MAP_AXES_MAX];
    size_t axis_count;
    gemma4_tap split[GEMMA4_MAP_SPLIT_MAX]; /* the taps that share an axis of the tensor, in its
                                               order; the rule's own is one of them */
    size_t split_count;
    size_t *layers; /* [layer_count] those that the rule is for; none: all of that kind */
    size_t layer_count;
    gemma4_map_kind kind;
    double scale; /* 0: none */
    gemma4_map_rows rows;
    int64_t *positions; /* [position_count] of LISTED_ROWS; negative: from the end */
    size_t position_count;
    bool bfloat16; /* its 16-bit elements are bfloat16, whatever the file calls them */
} gemma4_map_rule;

/* Strings point into the document. */
typedef struct gemma4_map {
    gemma4_document *document;
    const char *path, *engine, *dtype /* NULL */, *seen /* NULL */;
    gemma4_map_rule *rules;
    size_t rule_count;
    const char **ignore; /* [ignore_count] patterns of names that are no taps */
    size_t ignore_count;
} gemma4_map;

/* Reads and validates a map; which rules find tensors, and whether those fit, is for gemma4_import
 * to say. NULL on failure. */
gemma4_map *gemma4_map_read(const char *path, gemma4_error *error);
void gemma4_map_free(gemma4_map *map);

/* Reads `axes` and `slice` of a rule whose tap is known (map_axes.c). */
int gemma4_map_read_axes(gemma4_map_rule *rule, gemma4_error *error);

/* "sliding", "full", "all but last"; "" for any. */
const char *gemma4_map_kind_name(gemma4_map_kind kind);
/* Whether the rule is for that layer of a model (0 for taps outside the layers); *place is which of
 * its layers it is. */
bool gemma4_map_covers(const gemma4_map_rule *rule, const gemma4_config *config, size_t layer,
                       size_t *place);
/* Whether the rule's `from`, for that layer, matches the name of a tensor. */
bool gemma4_map_matches(const gemma4_map_rule *rule, const gemma4_config *config, size_t layer,
                        const char *name);
/* Whether some layer's of some model does; without a layer's number in `from`, *layer stays as it
 * was. */
bool gemma4_map_matches_any(const gemma4_map_rule *rule, const char *name, size_t *layer);
/* A pattern in which only '*' has a meaning: any text. */
bool gemma4_pattern_matches(const char *pattern, const char *name);

#endif
