/* Between finding a rule's tensors (import.c), fitting them to their tap (import_fit.c), and
 * reading them (import_read.c). */
#ifndef GEMMA4_IMPORT_INTERNAL_H
#define GEMMA4_IMPORT_INTERNAL_H

#include "foreign.h"
#include "import.h"

enum { GEMMA4_IMPORT_LETTERS = 3 }; /* the position and the tap's at most two axes */

/* How one tensor of one pass holds rows of a tap. */
typedef struct gemma4_import_part {
    gemma4_pass *pass;
    const gemma4_stored_tensor *tensor;
    gemma4_element element;
    size_t start[8], extent[8]; /* the block of it that is the tap's: [rank of the tensor] */
    struct {
        size_t axis;   /* of the tensor */
        size_t within; /* how many elements of that axis one step is */
        size_t length;
    } letters[GEMMA4_IMPORT_LETTERS]; /* the position, then the tap's axes */
    size_t rank;                      /* of what the tap becomes: letters in use */
} gemma4_import_part;

/* One tap, or tokens or positions, put together of a part a pass. */
typedef struct gemma4_import_item {
    char name[GEMMA4_TAP_NAME_SIZE];
    size_t rule; /* index into the map's */
    size_t layer, place;
    gemma4_import_part *parts; /* [part_count] in the order of passes */
    size_t *pass_of;           /* [part_count] */
    size_t part_count;
    bool has_rows;
    int64_t *rows; /* [row_count] */
    size_t row_count;
} gemma4_import_item;

typedef struct gemma4_import_state {
    const gemma4_map *map;
    const gemma4_config *config;
    gemma4_foreign foreign;
    gemma4_import_item *items;
    size_t item_count;
    size_t *lengths;  /* [passes] positions of each */
    size_t positions; /* T; 0: not known */
    bool **taken;     /* [passes][tensors] */
    char schedule[4096];
    gemma4_import_log log;
} gemma4_import_state;

/* The first pass', for messages. */
const char *gemma4_import_path(const gemma4_import_state *s);
/* What was found for "tokens" or a tap; NULL where nothing was. */
const gemma4_import_item *gemma4_import_find(const gemma4_import_state *s, const char *name);

/* --- positions (import_rows.c) --- */

/* Fills positions and lengths: from the tokens that were found, which must then be in every pass,
 * or from given (NULL: none) and, once the rules have been applied, the taps: without tokens a pass
 * is as long as the longest tensor that is not said to hold some positions only.
 * */
int gemma4_import_measure_tokens(gemma4_import_state *s, const gemma4_given_tokens *given,
                                 gemma4_error *error);
int gemma4_import_measure_taps(gemma4_import_state *s, gemma4_error *error);
/* Fills an item's rows where they are not all positions in order. */
int gemma4_import_place_rows(gemma4_import_state *s, gemma4_import_item *item, gemma4_error *error);
/* Passes are the schedule. */
void gemma4_import_write_schedule(gemma4_import_state *s);

/* --- the source (import_source.c) --- */

gemma4_activation_source gemma4_import_source(gemma4_import_state *state, void (*close)(void *));

/* --- one tensor (import_fit.c, import_read.c) --- */

/* What fitting needs to know of the model and the case. */
typedef struct gemma4_import_context {
    const gemma4_config *config;
    size_t positions; /* T; 0: not known */
} gemma4_import_context;

/* Fits a tensor to the tap of a rule in that layer. Fails with "FILE: TENSOR: ..." where it cannot
 * be. */
int gemma4_import_fit(const gemma4_import_context *context, const gemma4_map_rule *rule,
                      size_t layer, size_t place, gemma4_pass *pass,
                      const gemma4_stored_tensor *tensor, gemma4_import_part *part,
                      gemma4_error *error);
/* Reads rows of a part to elements, [count, width[0], width[1]] of the tap; a shorter last axis is
 * filled with zeros. */
int gemma4_import_read(const gemma4_import_part *part, size_t first_row, size_t count,
                       const size_t width[2], void *elements, gemma4_error *error);

#endif
