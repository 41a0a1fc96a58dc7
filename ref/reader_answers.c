/* What the child answers. It may have been taken over by the file that it reads: every length, tag,
 * name, type and count is checked. */
#include "config.h"
#include "reader_parent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The most that an answer may hold; real files stay far below. */
enum {
    NAMES_MOST = 65536,        /* tensors, and unknown names */
    NAME_BYTES = 65536,        /* of an attribute: HDF5's own limit */
    ROWS_OF_FOREIGN = 1 << 20, /* in one attribute rows, where there is no config */
    ROWS_MOST = 1 << 28        /* entries of all attributes rows together: 2 GiB */
};
enum { SECONDS_TO_READ = 60 }; /* of processor time, for one block of values */

/* --- attributes --- */

static int take_attribute(gemma4_reader *r, uint64_t size, gemma4_error *error)
{
    if (r->attributes_count == GEMMA4_READER_ATTRIBUTES)
        return gemma4_reader_nonsense(r, "too many attributes", error);
    if (size < 2 || size > NAME_BYTES + GEMMA4_ATTRIBUTE_MAX_BYTES)
        return gemma4_reader_nonsense(r, "the length of an attribute", error);
    char *bytes = malloc((size_t)size);
    if (!bytes)
        return gemma4_fail(error, "%s: out of memory", r->path);
    if (gemma4_reader_receive(r, bytes, (size_t)size, error)) {
        free(bytes);
        return -1;
    }
    /* Two strings, the second of which fills the rest. */
    char *end = memchr(bytes, 0, (size_t)size);
    if (!end || end == bytes + size - 1 ||
        memchr(end + 1, 0, (size_t)size - (size_t)(end + 1 - bytes)) != bytes + size - 1) {
        free(bytes);
        return gemma4_reader_nonsense(r, "an attribute without an end", error);
    }
    r->attributes[r->attributes_count++] = (gemma4_reader_text){bytes, end + 1};
    return 0;
}

int gemma4_reader_take_attributes(gemma4_reader *r, gemma4_error *error)
{
    gemma4_reader_head head;
    int status;
    while ((status = gemma4_reader_next(r, &head, error)) == 0)
        if (head.tag != GEMMA4_READER_ATTRIBUTE
                ? gemma4_reader_nonsense(r, "a piece that is no attribute", error)
                : take_attribute(r, head.size, error))
            return -1;
    return status < 0 ? -1 : 0;
}

const char *gemma4_reader_attribute(const void *context, const char *name)
{
    const gemma4_reader *r = context;
    for (size_t i = 0; i < r->attributes_count; i++)
        if (strcmp(r->attributes[i].name, name) == 0)
            return r->attributes[i].text;
    return NULL;
}

/* --- the list --- */

typedef struct listing {
    gemma4_reader *r;
    const gemma4_config *config;
    gemma4_stored_list *list;
    size_t names, rows; /* so far, of all tensors */
    gemma4_error *error;
} listing;

/* Whether a tensor is one that our own reader could have described. NULL, or what is wrong. */
static const char *check_tensor(const listing *l, gemma4_reader_tensor *t, uint64_t size)
{
    if (!memchr(t->name, 0, sizeof t->name) || !memchr(t->problem, 0, sizeof t->problem) ||
        !*t->name)
        return "a name without an end";
    for (char *c = t->problem; *c; c++)
        if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7F)
            *c = '?';
    if (t->element >= GEMMA4_ELEMENT_COUNT || (t->element == GEMMA4_ELEMENT_NONE && !*t->problem))
        return "an unknown type";
    if (t->rank > sizeof t->shape / sizeof *t->shape)
        return "too many axes";
    for (size_t i = 0; i < sizeof t->shape / sizeof *t->shape; i++)
        if (i < t->rank ? t->shape[i] > SIZE_MAX || (t->shape[i] == 0 && !*t->problem)
                        : t->shape[i] != 0)
            return "an impossible shape";
    size_t most = l->list->takes_all ? ROWS_OF_FOREIGN : l->config->max_position_embeddings;
    if (t->has_rows > 1 || t->row_count > (t->has_rows ? most : 0) ||
        t->row_count > ROWS_MOST - l->rows)
        return "too many rows";
    return size == sizeof *t + t->row_count * sizeof(int64_t) ? NULL
                                                              : "the length of a tensor's rows";
}

static int take_tensor(listing *l, uint64_t size)
{
    gemma4_reader_tensor t;
    gemma4_stored_tensor *tensor;
    if (size < sizeof t)
        return gemma4_reader_nonsense(l->r, "the length of a tensor", l->error);
    if (gemma4_reader_receive(l->r, &t, sizeof t, l->error))
        return -1;
    const char *wrong = check_tensor(l, &t, size);
    if (wrong)
        return gemma4_reader_nonsense(l->r, wrong, l->error);
    if (gemma4_stored_add(l->list, l->config, t.name, &tensor, l->error))
        return -1;
    if (!tensor)
        return gemma4_reader_nonsense(l->r, "a tensor that is no tap", l->error);
    tensor->element = (gemma4_element)t.element;
    memcpy(tensor->problem, t.problem, sizeof t.problem);
    tensor->rank = (size_t)t.rank;
    for (size_t i = 0; i < tensor->rank; i++)
        tensor->shape[i] = (size_t)t.shape[i];
    tensor->has_rows = t.has_rows;
    if (t.row_count == 0)
        return 0;
    tensor->rows = malloc((size_t)t.row_count * sizeof *tensor->rows);
    if (!tensor->rows)
        return gemma4_fail(l->error, "%s: %s: out of memory", l->r->path, t.name);
    tensor->row_count = (size_t)t.row_count;
    l->rows += tensor->row_count;
    return gemma4_reader_receive(l->r, tensor->rows, tensor->row_count * sizeof *tensor->rows,
                                 l->error);
}

static int take_unknown(listing *l, uint64_t size)
{
    char name[sizeof l->list->unknown[0]];
    if (size >= sizeof name || l->list->unknown_count >= GEMMA4_UNKNOWN_MAX)
        return gemma4_reader_nonsense(l->r, "the length of a name", l->error);
    if (gemma4_reader_receive(l->r, name, (size_t)size, l->error))
        return -1;
    name[size] = '\0';
    gemma4_stored_add_unknown(l->list, name);
    return 0;
}

static int take_uncounted(listing *l, uint64_t size)
{
    uint64_t more;
    if (size != sizeof more)
        return gemma4_reader_nonsense(l->r, "the length of a number", l->error);
    if (gemma4_reader_receive(l->r, &more, sizeof more, l->error))
        return -1;
    if (more > 2 * NAMES_MOST || l->list->unknown_count != GEMMA4_UNKNOWN_MAX)
        return gemma4_reader_nonsense(l->r, "a number of names", l->error);
    l->list->unknown_count += (size_t)more;
    return 0;
}

static int take_listed(listing *l, const gemma4_reader_head *head)
{
    if (++l->names > NAMES_MOST + GEMMA4_UNKNOWN_MAX + 1)
        return gemma4_reader_nonsense(l->r, "too many names", l->error);
    switch (head->tag) {
    case GEMMA4_READER_TENSOR: return take_tensor(l, head->size);
    case GEMMA4_READER_UNKNOWN: return take_unknown(l, head->size);
    case GEMMA4_READER_UNCOUNTED: return take_uncounted(l, head->size);
    default: return gemma4_reader_nonsense(l->r, "a piece that is no tensor", l->error);
    }
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A file cannot hold two tensors of one path. */
static int check_distinct(const listing *l)
{
    const gemma4_stored_list *list = l->list;
    const char **names = malloc((list->count + 1) * sizeof *names);
    bool twice = false;
    if (!names)
        return gemma4_fail(l->error, "%s: out of memory", l->r->path);
    for (size_t i = 0; i < list->count; i++)
        names[i] = list->items[i].name;
    qsort(names, list->count, sizeof *names, compare_names);
    for (size_t i = 1; i < list->count; i++)
        twice = twice || strcmp(names[i - 1], names[i]) == 0;
    free(names);
    return twice ? gemma4_reader_nonsense(l->r, "a tensor twice", l->error) : 0;
}

int gemma4_reader_list(void *context, const gemma4_config *config, gemma4_stored_list *list,
                       gemma4_error *error)
{
    gemma4_reader *r = context;
    listing l = {.r = r, .config = config, .list = list, .error = error};
    const gemma4_reader_request what = {.kind = GEMMA4_READER_LIST,
                                        .takes_all = list->takes_all,
                                        .num_hidden_layers = config ? config->num_hidden_layers : 0,
                                        .max_position_embeddings =
                                            config ? config->max_position_embeddings : 0};
    gemma4_reader_head head;
    int status;
    if (gemma4_reader_ask(r, &what, r->seconds_to_open, error))
        return -1;
    while ((status = gemma4_reader_next(r, &head, error)) == 0)
        if (take_listed(&l, &head))
            return -1;
    return status < 0 ? -1 : check_distinct(&l);
}

/* --- values --- */

/* A block of a tensor, cut into pieces that fit a slot and follow one another in it: of the axes
 * before cut one index each, of cut itself up to most, and all of those behind it. */
typedef struct pieces {
    const gemma4_stored_tensor *tensor;
    const size_t *start, *extent;
    size_t cut, most;   /* the whole block in one piece: cut is 0, and most its extent */
    size_t inner;       /* bytes of one index of cut */
    size_t outer, from; /* the next piece: which of the indices before cut, and where on cut */
} pieces;

static pieces cut_block(const gemma4_stored_tensor *tensor, const size_t *start,
                        const size_t *extent)
{
    pieces p = {.tensor = tensor, .start = start, .extent = extent};
    size_t size = gemma4_element_describe(tensor->element)->size;
    p.cut = tensor->rank ? tensor->rank - 1 : 0;
    for (p.inner = size; p.cut > 0 && extent[p.cut] <= GEMMA4_READER_SLOT_BYTES / p.inner; p.cut--)
        p.inner *= extent[p.cut];
    p.most = GEMMA4_READER_SLOT_BYTES / p.inner;
    return p;
}

/* The next piece, as a request; its bytes, or 0 after the last one. */
static size_t next_piece(pieces *p, gemma4_reader_request *what)
{
    size_t rank = p->tensor->rank, length = rank ? p->extent[p->cut] : 1, outer = p->outer;
    *what = (gemma4_reader_request){.kind = GEMMA4_READER_READ};
    snprintf(what->name, sizeof what->name, "%s", p->tensor->name);
    for (size_t i = 0; i < rank; i++) {
        what->start[i] = p->start[i];
        what->extent[i] = p->extent[i];
    }
    for (size_t i = p->cut; i-- > 0; outer /= p->extent[i]) {
        what->start[i] += outer % p->extent[i];
        what->extent[i] = 1;
    }
    if (outer > 0) /* past the last one */
        return 0;
    size_t left = length - p->from, count = left < p->most ? left : p->most;
    if (rank) {
        what->start[p->cut] += p->from;
        what->extent[p->cut] = count;
    }
    p->from += count;
    if (p->from == length) {
        p->outer++;
        p->from = 0;
    }
    return count * p->inner;
}

/* The answer to the oldest request that is not answered yet: size bytes of its slot. */
static int take_values(gemma4_reader *r, size_t slot, void *to, size_t size, gemma4_error *error)
{
    gemma4_reader_head head;
    int status = gemma4_reader_next(r, &head, error);
    if (status < 0)
        return -1;
    if (status > 0)
        return gemma4_reader_nonsense(r, "fewer values than asked for", error);
    if (head.tag != GEMMA4_READER_VALUES || head.size != size)
        return gemma4_reader_nonsense(r, "other values than asked for", error);
    memcpy(to, r->window + slot * GEMMA4_READER_SLOT_BYTES, size);
    status = gemma4_reader_next(r, &head, error);
    if (status == 0)
        return gemma4_reader_nonsense(r, "other values than asked for", error);
    return status < 0 ? -1 : 0;
}

/* Asks for the next piece; *size is 0, and nothing is asked for, after the last one. */
static int ask_next(gemma4_reader *r, pieces *p, size_t slot, size_t *size, gemma4_error *error)
{
    gemma4_reader_request what;
    bool first = p->outer == 0 && p->from == 0;
    *size = next_piece(p, &what);
    what.slot = slot;
    return *size ? gemma4_reader_ask(r, &what, first ? SECONDS_TO_READ : 0, error) : 0;
}

/* A piece is asked for before the one before it is taken. */
int gemma4_reader_read(void *context, const gemma4_stored_tensor *tensor, const size_t *start,
                       const size_t *extent, void *elements, gemma4_error *error)
{
    gemma4_reader *r = context;
    gemma4_error ignored;
    pieces p = cut_block(tensor, start, extent);
    char *to = elements;
    size_t size, next, slot = 0;
    if (ask_next(r, &p, slot, &size, error))
        return -1;
    for (; size > 0; to += size, size = next, slot = !slot) {
        if (ask_next(r, &p, !slot, &next, error))
            return -1;
        if (take_values(r, slot, to, size, error)) {
            if (next && !r->dead) /* or its answer would be taken for that to a later request */
                take_values(r, !slot, to, next, &ignored);
            return -1;
        }
    }
    return 0;
}
