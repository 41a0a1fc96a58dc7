/* Between reader.c and reader_answers.c. */
#ifndef GEMMA4_READER_PARENT_H
#define GEMMA4_READER_PARENT_H

#include <sys/types.h>

#include "reader_internal.h"

enum { GEMMA4_READER_ATTRIBUTES = 256 };

typedef struct gemma4_reader_text {
    char *name, *text; /* one allocation, which begins at name */
} gemma4_reader_text;

typedef struct gemma4_reader {
    char *path;
    int channel;
    const char *window; /* [GEMMA4_READER_WINDOW_BYTES] shared with the child, which may write there
                           at any time */
    pid_t child, parent;
    bool dead;      /* the child is gone, or not believed any more */
    double started; /* processor time that it had used when the request at hand was sent */
    double seconds; /* that the request may take */
    double seconds_to_open;
    gemma4_reader_text attributes[GEMMA4_READER_ATTRIBUTES];
    size_t attributes_count;
} gemma4_reader;

/* Exactly so many bytes from the child. -1 where it has died or takes too long. */
int gemma4_reader_receive(gemma4_reader *r, void *to, size_t size, gemma4_error *error);
/* Sends a request, which may take so many seconds of processor time; 0: of those of the request
 * before it, which goes on. */
int gemma4_reader_ask(gemma4_reader *r, const gemma4_reader_request *what, double seconds,
                      gemma4_error *error);
/* The head of the next piece of the answer. 1 where the answer is whole, -1 on failure, which may
 * be the child's own message. */
int gemma4_reader_next(gemma4_reader *r, gemma4_reader_head *head, gemma4_error *error);
/* Ends the child, which said what no reader of ours would; returns -1. */
int gemma4_reader_nonsense(gemma4_reader *r, const char *what, gemma4_error *error);

/* The answers: those of a gemma4_activation_source, but for the first, which is what the child
 * begins with. */
int gemma4_reader_take_attributes(gemma4_reader *r, gemma4_error *error);
const char *gemma4_reader_attribute(const void *context, const char *name);
int gemma4_reader_list(void *context, const gemma4_config *config, gemma4_stored_list *list,
                       gemma4_error *error);
int gemma4_reader_read(void *context, const gemma4_stored_tensor *tensor, const size_t *start,
                       const size_t *extent, void *elements, gemma4_error *error);

#endif
