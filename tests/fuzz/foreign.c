/* For MemorySanitizer: libyaml and zlib are not instrumented, so it takes what they write for
 * uninitialised. Linked with --wrap, these say what has been written. Nothing else calls those
 * libraries in a way that leaves values behind. */
#include <sanitizer/msan_interface.h>
#include <string.h>
#include <yaml.h>
#include <zlib.h>

int __real_yaml_parser_initialize(yaml_parser_t *parser);
int __real_yaml_parser_parse(yaml_parser_t *parser, yaml_event_t *event);
int __real_inflate(z_stream *z, int flush);
int __wrap_yaml_parser_initialize(yaml_parser_t *parser);
int __wrap_yaml_parser_parse(yaml_parser_t *parser, yaml_event_t *event);
int __wrap_inflate(z_stream *z, int flush);

int __wrap_yaml_parser_initialize(yaml_parser_t *parser)
{
    int status = __real_yaml_parser_initialize(parser);
    __msan_unpoison(parser, sizeof *parser);
    return status;
}

static void text(const void *bytes, size_t length)
{
    if (bytes)
        __msan_unpoison(bytes, length + 1);
}

/* strlen would ask the sanitizer. */
static void string(const yaml_char_t *bytes)
{
    for (; bytes; bytes++) {
        __msan_unpoison(bytes, 1);
        if (!*bytes)
            return;
    }
}

int __wrap_yaml_parser_parse(yaml_parser_t *parser, yaml_event_t *event)
{
    int status = __real_yaml_parser_parse(parser, event);
    __msan_unpoison(parser, sizeof *parser);
    __msan_unpoison(event, sizeof *event);
    if (!status)
        return 0;
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        text(event->data.scalar.value, event->data.scalar.length);
        string(event->data.scalar.anchor);
        string(event->data.scalar.tag);
        break;
    case YAML_SEQUENCE_START_EVENT:
        string(event->data.sequence_start.anchor);
        string(event->data.sequence_start.tag);
        break;
    case YAML_MAPPING_START_EVENT:
        string(event->data.mapping_start.anchor);
        string(event->data.mapping_start.tag);
        break;
    case YAML_ALIAS_EVENT: string(event->data.alias.anchor); break;
    default: break;
    }
    return status;
}

int __wrap_inflate(z_stream *z, int flush)
{
    unsigned char *out = z->next_out;
    int status = __real_inflate(z, flush);
    __msan_unpoison(z, sizeof *z);
    __msan_unpoison(out, (size_t)(z->next_out - out));
    return status;
}
