#include "document.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml.h>

#define MAX_DEPTH 16
/* Every node has its path, so paths are bounded: else long keys in deep nesting would multiply the
 * document's size. */
#define MAX_PATH 160
/* What a message quotes of a scalar. */
#define MAX_QUOTE 60
/* NAME:LINE: PATH: leaves room for the rest of the message. */
#define MAX_PLACE 512

struct gemma4_document {
    char *name;
    gemma4_node root;
    size_t n_nodes;
};

/* --- the tree --- */

/* Depth is bounded by MAX_DEPTH. */
static void node_clear(gemma4_node *node)
{
    for (size_t i = 0; i < node->count; i++) {
        node_clear(&node->items[i]);
        if (node->keys != NULL)
            free((char *)node->keys[i]);
    }
    free(node->items);
    free(node->keys);
    free(node->order);
    free((char *)node->text);
    free((char *)node->path);
}

void gemma4_document_free(gemma4_document *document)
{
    if (document == NULL)
        return;
    node_clear(&document->root);
    free(document->name);
    free(document);
}

const gemma4_node *gemma4_document_root(const gemma4_document *document)
{
    return &document->root;
}

const char *gemma4_document_name(const gemma4_document *document)
{
    return document->name;
}

/* "NAME:LINE: PATH: ", the PATH left out for the root. */
static void describe_place(const gemma4_node *node, char *place, size_t size)
{
    snprintf(place, size, "%s:%zu: %s%s", gemma4_document_name(node->document), node->line,
             node->path, node->path[0] != '\0' ? ": " : "");
}

/* --- parsing: libyaml's events, one at a time --- */

typedef struct parser {
    yaml_parser_t yaml;
    yaml_event_t event; /* the event at hand */
    gemma4_document *document;
    gemma4_error *error;
} parser;

static int out_of_memory(parser *p)
{
    return gemma4_fail(p->error, "%s: out of memory", p->document->name);
}

static int fail_at_event(parser *p, const char *expected, const char *found)
{
    return gemma4_fail(p->error, "%s:%zu: expected %s, found %s", p->document->name,
                       p->event.start_mark.line + 1, expected, found);
}

/* libyaml's own words. It refuses keys beyond 1024 bytes, and says something else then. */
static int fail_in_yaml(parser *p)
{
    const char *problem = p->yaml.problem != NULL ? p->yaml.problem : "out of memory";
    const char *hint =
        p->yaml.problem_mark.column > 1024 ? " (keys must end within 1024 bytes)" : "";
    if (p->yaml.error == YAML_READER_ERROR)
        return gemma4_fail(p->error, "%s: expected UTF-8 text, found at byte %zu: %s",
                           p->document->name, p->yaml.problem_offset, problem);
    return gemma4_fail(p->error, "%s:%zu: expected YAML or JSON, found: %s%s%s%s",
                       p->document->name, p->yaml.problem_mark.line + 1, problem,
                       p->yaml.context != NULL ? " " : "",
                       p->yaml.context != NULL ? p->yaml.context : "", hint);
}

/* Replaces the event at hand by the next one. */
static int next_event(parser *p)
{
    yaml_event_delete(&p->event);
    if (!yaml_parser_parse(&p->yaml, &p->event)) {
        memset(&p->event, 0, sizeof p->event);
        return fail_in_yaml(p);
    }
    return 0;
}

/* A copy of the scalar at hand. */
static char *scalar_text(parser *p)
{
    const char *value = (const char *)p->event.data.scalar.value;
    size_t length = p->event.data.scalar.length;
    if (memchr(value, '\0', length) != NULL) {
        fail_at_event(p, "text without NUL bytes", "one");
        return NULL;
    }
    char *text = malloc(length + 1);
    if (text == NULL)
        out_of_memory(p);
    else
        memcpy(text, value, length + 1); /* libyaml terminates it */
    return text;
}

/* The path of the container's item: key in a mapping, [index] in a sequence. */
static char *item_path(const gemma4_node *container, const char *key, size_t index)
{
    const char *head = container->path;
    char number[32];
    snprintf(number, sizeof number, "[%zu]", index);
    const char *tail = key != NULL ? key : number;
    const char *dot = key != NULL && head[0] != '\0' ? "." : "";
    size_t length = strlen(head) + strlen(dot) + strlen(tail);
    char *path = malloc(length + 1);
    if (path == NULL)
        return NULL;
    snprintf(path, length + 1, "%s%s%s", head, dot, tail);
    if (length <= MAX_PATH)
        return path;
    memmove(path + 3, path + length - MAX_PATH + 3, MAX_PATH - 3 + 1);
    memcpy(path, "...", 3);
    char *shorter = realloc(path, MAX_PATH + 1);
    return shorter != NULL ? shorter : path;
}

/* The array with room for one more item: it doubles where count, the number in use, is a power of
 * two (or 0). NULL where memory runs out; the old array is then still there. */
static void *with_room(void *array, size_t count, size_t item_size)
{
    if (count != 0 && (count & (count - 1)) != 0)
        return array;
    return realloc(array, (count == 0 ? 1 : 2 * count) * item_size);
}

static int make_room(gemma4_node *container)
{
    gemma4_node *items = with_room(container->items, container->count, sizeof *items);
    if (items == NULL)
        return -1;
    container->items = items;
    if (container->kind != GEMMA4_MAPPING)
        return 0;
    const char **keys = with_room(container->keys, container->count, sizeof *keys);
    if (keys == NULL)
        return -1;
    container->keys = keys;
    return 0;
}

/* Appends an empty item, with key (which it then owns) in a mapping. From then on it hangs in the
 * tree, so that gemma4_document_free frees it whatever happens next. */
static gemma4_node *append(parser *p, gemma4_node *container, char *key)
{
    char *path = item_path(container, key, container->count);
    if (path == NULL || make_room(container) != 0) {
        out_of_memory(p);
        free(path);
        free(key);
        return NULL;
    }
    if (container->kind == GEMMA4_MAPPING)
        container->keys[container->count] = key;
    gemma4_node *item = &container->items[container->count++];
    memset(item, 0, sizeof *item);
    item->path = path;
    return item;
}

static int compare_keys(const void *a, const void *b, void *keys)
{
    const char *const *key = keys;
    return strcmp(key[*(const size_t *)a], key[*(const size_t *)b]);
}

/* Fills mapping->order, and refuses a key that stands twice. */
static int sort_keys(parser *p, gemma4_node *mapping)
{
    if (mapping->count == 0)
        return 0;
    mapping->order = malloc(mapping->count * sizeof *mapping->order);
    if (mapping->order == NULL)
        return out_of_memory(p);
    for (size_t i = 0; i < mapping->count; i++)
        mapping->order[i] = i;
    qsort_r(mapping->order, mapping->count, sizeof *mapping->order, compare_keys, mapping->keys);
    for (size_t i = 1; i < mapping->count; i++) {
        const char *key = mapping->keys[mapping->order[i]];
        if (strcmp(key, mapping->keys[mapping->order[i - 1]]) == 0) {
            char place[MAX_PLACE];
            describe_place(mapping, place, sizeof place);
            return gemma4_fail(p->error, "%sexpected every key once, found \"%.*s\" twice", place,
                               MAX_QUOTE, key);
        }
    }
    return 0;
}

static int parse_node(parser *p, gemma4_node *node, int depth);

static int parse_scalar(parser *p, gemma4_node *node)
{
    node->kind = GEMMA4_SCALAR;
    node->quoted = p->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    node->text = scalar_text(p);
    return node->text == NULL ? -1 : 0;
}

static int parse_sequence(parser *p, gemma4_node *node, int depth)
{
    node->kind = GEMMA4_SEQUENCE;
    while (true) {
        if (next_event(p) != 0)
            return -1;
        if (p->event.type == YAML_SEQUENCE_END_EVENT)
            return 0;
        gemma4_node *item = append(p, node, NULL);
        if (item == NULL || parse_node(p, item, depth + 1) != 0)
            return -1;
    }
}

static int check_properties(parser *p, const yaml_char_t *anchor, const yaml_char_t *tag)
{
    if (anchor != NULL)
        return fail_at_event(p, "no anchors", "one");
    if (tag != NULL)
        return fail_at_event(p, "no tags", "one");
    return 0;
}

/* The key at hand; NULL where it is no plain scalar, with the error set. */
static char *parse_key(parser *p)
{
    if (p->event.type != YAML_SCALAR_EVENT) {
        fail_at_event(p, "a scalar as the key", "another kind of node");
        return NULL;
    }
    if (check_properties(p, p->event.data.scalar.anchor, p->event.data.scalar.tag) != 0)
        return NULL;
    return scalar_text(p);
}

static int parse_mapping(parser *p, gemma4_node *node, int depth)
{
    node->kind = GEMMA4_MAPPING;
    while (true) {
        if (next_event(p) != 0)
            return -1;
        if (p->event.type == YAML_MAPPING_END_EVENT)
            return sort_keys(p, node);
        char *key = parse_key(p);
        if (key == NULL)
            return -1;
        gemma4_node *value = append(p, node, key);
        if (value == NULL || next_event(p) != 0 || parse_node(p, value, depth + 1) != 0)
            return -1;
    }
}

/* Parses the node that the event at hand begins; the recursion ends at MAX_DEPTH. */
static int parse_node(parser *p, gemma4_node *node, int depth)
{
    const yaml_event_t *event = &p->event;
    node->document = p->document;
    node->line = event->start_mark.line + 1;
    if (depth > MAX_DEPTH)
        return fail_at_event(p, "nesting of at most 16 levels", "a deeper one");
    if (++p->document->n_nodes > GEMMA4_DOCUMENT_MAX_NODES)
        return fail_at_event(p, "at most 1048576 nodes", "more");
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return check_properties(p, event->data.scalar.anchor, event->data.scalar.tag) != 0
                   ? -1
                   : parse_scalar(p, node);
    case YAML_SEQUENCE_START_EVENT:
        return check_properties(p, event->data.sequence_start.anchor,
                                event->data.sequence_start.tag) != 0
                   ? -1
                   : parse_sequence(p, node, depth);
    case YAML_MAPPING_START_EVENT:
        return check_properties(p, event->data.mapping_start.anchor,
                                event->data.mapping_start.tag) != 0
                   ? -1
                   : parse_mapping(p, node, depth);
    default: return fail_at_event(p, "no aliases", "one");
    }
}

/* The whole stream: one document. */
static int parse_stream(parser *p)
{
    if (next_event(p) != 0 || next_event(p) != 0) /* stream start, document start */
        return -1;
    if (p->event.type == YAML_STREAM_END_EVENT)
        return gemma4_fail(p->error, "%s: expected a document, found an empty file",
                           p->document->name);
    if (next_event(p) != 0 || parse_node(p, &p->document->root, 1) != 0 ||
        next_event(p) != 0 /* document end */ || next_event(p) != 0)
        return -1;
    if (p->event.type != YAML_STREAM_END_EVENT)
        return fail_at_event(p, "one document", "a second one");
    return 0;
}

/* True where text + at begins a line, by YAML's line breaks (LF, CR, NEL, LS, PS) or after a byte
 * order mark. */
static bool begins_line(const char *text, size_t at)
{
    static const char *const breaks[] = {"\n",           "\r",           "\xC2\x85",
                                         "\xE2\x80\xA8", "\xE2\x80\xA9", "\xEF\xBB\xBF"};
    if (at == 0)
        return true;
    for (size_t i = 0; i < sizeof breaks / sizeof breaks[0]; i++) {
        size_t length = strlen(breaks[i]);
        if (at >= length && memcmp(text + at - length, breaks[i], length) == 0)
            return true;
    }
    return false;
}

/* Directives (%YAML, %TAG) are of no use without tags, and libyaml's time is quadratic in their
 * number: refused unseen. */
static int refuse_directives(const parser *p, const char *text, size_t size)
{
    for (const char *c = text; (c = memchr(c, '%', size - (size_t)(c - text))) != NULL; c++)
        if (begins_line(text, (size_t)(c - text)))
            return gemma4_fail(
                p->error,
                "%s: expected no directives, found a line that begins with '%%' at byte %zu",
                p->document->name, (size_t)(c - text));
    return 0;
}

static int parse_bytes(parser *p, const void *bytes, size_t size)
{
    if (size > GEMMA4_DOCUMENT_MAX_BYTES)
        return gemma4_fail(p->error, "%s: expected at most %zu bytes, found %zu", p->document->name,
                           GEMMA4_DOCUMENT_MAX_BYTES, size);
    if (refuse_directives(p, bytes, size) != 0)
        return -1;
    if (!yaml_parser_initialize(&p->yaml))
        return out_of_memory(p);
    yaml_parser_set_encoding(&p->yaml, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&p->yaml, bytes, size);
    int status = parse_stream(p);
    yaml_event_delete(&p->event);
    yaml_parser_delete(&p->yaml);
    return status;
}

gemma4_document *gemma4_document_parse(const char *name, const void *bytes, size_t size,
                                       gemma4_error *error)
{
    gemma4_document *document = calloc(1, sizeof *document);
    if (document == NULL || (document->name = strdup(name)) == NULL ||
        (document->root.path = strdup("")) == NULL) {
        gemma4_fail(error, "%s: out of memory", name);
        gemma4_document_free(document);
        return NULL;
    }
    parser p = {.document = document, .error = error};
    if (parse_bytes(&p, size == 0 ? "" : bytes, size) != 0) {
        gemma4_document_free(document);
        return NULL;
    }
    return document;
}

/* Exactly size bytes; a file that shrinks meanwhile is an error. */
static int read_all(int file, const char *path, char *bytes, size_t size, gemma4_error *error)
{
    for (size_t done = 0; done < size;) {
        ssize_t got = read(file, bytes + done, size - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return gemma4_fail(error, "%s: %s", path, strerror(errno));
        if (got == 0)
            return gemma4_fail(error, "%s: expected %zu bytes, found %zu", path, size, done);
        done += (size_t)got;
    }
    return 0;
}

static gemma4_document *read_file(int file, const char *path, gemma4_error *error)
{
    struct stat status;
    if (fstat(file, &status) != 0) {
        gemma4_fail(error, "%s: %s", path, strerror(errno));
        return NULL;
    }
    if (!S_ISREG(status.st_mode)) {
        gemma4_fail(error, "%s: expected a regular file, found another kind", path);
        return NULL;
    }
    if ((uintmax_t)status.st_size > GEMMA4_DOCUMENT_MAX_BYTES) {
        gemma4_fail(error, "%s: expected at most %zu bytes, found %jd", path,
                    GEMMA4_DOCUMENT_MAX_BYTES, (intmax_t)status.st_size);
        return NULL;
    }
    size_t size = (size_t)status.st_size;
    char *bytes = malloc(size + 1);
    gemma4_document *document = NULL;
    if (bytes == NULL)
        gemma4_fail(error, "%s: out of memory", path);
    else if (read_all(file, path, bytes, size, error) == 0)
        document = gemma4_document_parse(path, bytes, size, error);
    free(bytes);
    return document;
}

gemma4_document *gemma4_document_read(const char *path, gemma4_error *error)
{
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* non-blocking: a FIFO is refused,
                                                                 not waited for */
    if (file < 0) {
        gemma4_fail(error, "%s: %s", path, strerror(errno));
        return NULL;
    }
    gemma4_document *document = read_file(file, path, error);
    close(file);
    return document;
}

/* --- access --- */

const gemma4_node *gemma4_node_get(const gemma4_node *mapping, const char *key)
{
    if (mapping == NULL || mapping->kind != GEMMA4_MAPPING)
        return NULL;
    size_t low = 0, high = mapping->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2, index = mapping->order[middle];
        int order = strcmp(key, mapping->keys[index]);
        if (order == 0)
            return &mapping->items[index];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

bool gemma4_node_is_null(const gemma4_node *node)
{
    return node->kind == GEMMA4_SCALAR && !node->quoted &&
           (node->text[0] == '\0' || strcmp(node->text, "~") == 0 ||
            strcmp(node->text, "null") == 0);
}

/* A scalar as it is written, cut to MAX_QUOTE bytes at the boundary of a character. */
static void describe_found(const gemma4_node *node, char *found, size_t size)
{
    if (node->kind != GEMMA4_SCALAR || gemma4_node_is_null(node)) {
        snprintf(found, size, "%s",
                 node->kind == GEMMA4_MAPPING    ? "a mapping"
                 : node->kind == GEMMA4_SEQUENCE ? "a sequence"
                                                 : "null");
        return;
    }
    const char *quote = node->quoted ? "\"" : "";
    size_t length = strnlen(node->text, MAX_QUOTE + 1);
    const char *dots = length > MAX_QUOTE ? "..." : "";
    if (length > MAX_QUOTE)
        for (length = MAX_QUOTE; length > 0 && ((unsigned char)node->text[length] & 0xC0) == 0x80;)
            length--;
    snprintf(found, size, "%s%.*s%s%s", quote, (int)length, node->text, dots, quote);
}

int gemma4_node_fail(const gemma4_node *node, const char *what, gemma4_error *error)
{
    char place[MAX_PLACE], found[MAX_QUOTE + 16];
    describe_place(node, place, sizeof place);
    describe_found(node, found, sizeof found);
    return gemma4_fail(error, "%sexpected %s, found %s", place, what, found);
}

static bool is_among(const char *key, const char *const *allowed)
{
    for (; *allowed != NULL; allowed++)
        if (strcmp(key, *allowed) == 0)
            return true;
    return false;
}

static int fail_unknown_key(const gemma4_node *mapping, size_t index, const char *const *allowed,
                            gemma4_error *error)
{
    char place[MAX_PLACE], list[sizeof error->message / 3];
    size_t length = 0;
    list[0] = '\0';
    for (size_t i = 0; allowed[i] != NULL && length < sizeof list; i++)
        length += (size_t)snprintf(list + length, sizeof list - length, "%s%s", i == 0 ? "" : ", ",
                                   allowed[i]);
    describe_place(mapping, place, sizeof place);
    return gemma4_fail(error, "%sexpected only the keys %s, found \"%.*s\" in line %zu", place,
                       list, MAX_QUOTE, mapping->keys[index], mapping->items[index].line);
}

int gemma4_node_only_keys(const gemma4_node *mapping, const char *const *allowed,
                          gemma4_error *error)
{
    if (mapping->kind != GEMMA4_MAPPING)
        return gemma4_node_fail(mapping, "a mapping", error);
    for (size_t i = 0; i < mapping->count; i++)
        if (!is_among(mapping->keys[i], allowed))
            return fail_unknown_key(mapping, i, allowed, error);
    return 0;
}

/* --- scalars --- */

/* The end of a JSON integer at text (its sign, then 0 or digits without a leading 0); NULL where
 * there is none. */
static const char *skip_integer(const char *text)
{
    if (*text == '-')
        text++;
    if (*text == '0')
        return text + 1;
    size_t digits = strspn(text, "0123456789");
    return digits > 0 ? text + digits : NULL;
}

static bool is_integer(const char *text)
{
    const char *end = skip_integer(text);
    return end != NULL && *end == '\0';
}

/* https://www.rfc-editor.org/rfc/rfc8259#section-6 */
static bool is_number(const char *text)
{
    text = skip_integer(text);
    if (text == NULL)
        return false;
    if (*text == '.') {
        size_t digits = strspn(++text, "0123456789");
        if (digits == 0)
            return false;
        text += digits;
    }
    if (*text == 'e' || *text == 'E') {
        text++;
        text += *text == '+' || *text == '-';
        size_t digits = strspn(text, "0123456789");
        if (digits == 0)
            return false;
        text += digits;
    }
    return *text == '\0';
}

int gemma4_node_int(const gemma4_node *node, int64_t low, int64_t high, int64_t *value,
                    gemma4_error *error)
{
    if (node->kind == GEMMA4_SCALAR && !node->quoted && is_integer(node->text)) {
        errno = 0;
        long long number = strtoll(node->text, NULL, 10);
        if (errno == 0 && number >= low && number <= high) {
            *value = number;
            return 0;
        }
    }
    char what[80];
    snprintf(what, sizeof what, "an integer from %lld to %lld", (long long)low, (long long)high);
    return gemma4_node_fail(node, what, error);
}

int gemma4_node_number(const gemma4_node *node, double low, double high, double *value,
                       gemma4_error *error)
{
    if (node->kind == GEMMA4_SCALAR && !node->quoted && is_number(node->text)) {
        double number = strtod(node->text, NULL);
        if (isfinite(number) && number >= low && number <= high) {
            *value = number;
            return 0;
        }
    }
    char what[80];
    snprintf(what, sizeof what, "a number from %.17g to %.17g", low, high);
    return gemma4_node_fail(node, what, error);
}

int gemma4_node_bool(const gemma4_node *node, bool *value, gemma4_error *error)
{
    bool is_scalar = node->kind == GEMMA4_SCALAR && !node->quoted;
    if (!is_scalar || (strcmp(node->text, "true") != 0 && strcmp(node->text, "false") != 0))
        return gemma4_node_fail(node, "true or false", error);
    *value = node->text[0] == 't';
    return 0;
}

int gemma4_node_string(const gemma4_node *node, const char **value, gemma4_error *error)
{
    if (node->kind != GEMMA4_SCALAR || gemma4_node_is_null(node))
        return gemma4_node_fail(node, "a string", error);
    *value = node->text;
    return 0;
}

/* --- required keys --- */

static int get_required(const gemma4_node *mapping, const char *key, const gemma4_node **value,
                        gemma4_error *error)
{
    if (mapping->kind != GEMMA4_MAPPING)
        return gemma4_node_fail(mapping, "a mapping", error);
    *value = gemma4_node_get(mapping, key);
    if (*value != NULL)
        return 0;
    char place[MAX_PLACE];
    describe_place(mapping, place, sizeof place);
    return gemma4_fail(error, "%sexpected the key \"%s\", found none", place, key);
}

int gemma4_get_node(const gemma4_node *mapping, const char *key, gemma4_node_kind kind,
                    const gemma4_node **value, gemma4_error *error)
{
    const gemma4_node *node;
    if (get_required(mapping, key, &node, error) != 0)
        return -1;
    if (node->kind != kind)
        return gemma4_node_fail(node,
                                kind == GEMMA4_MAPPING    ? "a mapping"
                                : kind == GEMMA4_SEQUENCE ? "a sequence"
                                                          : "a scalar",
                                error);
    *value = node;
    return 0;
}

int gemma4_get_int(const gemma4_node *mapping, const char *key, int64_t low, int64_t high,
                   int64_t *value, gemma4_error *error)
{
    const gemma4_node *node;
    return get_required(mapping, key, &node, error) != 0
               ? -1
               : gemma4_node_int(node, low, high, value, error);
}

int gemma4_get_number(const gemma4_node *mapping, const char *key, double low, double high,
                      double *value, gemma4_error *error)
{
    const gemma4_node *node;
    return get_required(mapping, key, &node, error) != 0
               ? -1
               : gemma4_node_number(node, low, high, value, error);
}

int gemma4_get_string(const gemma4_node *mapping, const char *key, const char **value,
                      gemma4_error *error)
{
    const gemma4_node *node;
    return get_required(mapping, key, &node, error) != 0 ? -1
                                                         : gemma4_node_string(node, value, error);
}
