/* The tokenizer of a synthetic checkpoint: byte-pair encoding over the printable ASCII characters,
 * so that loaders that insist on a tokenizer have one and every id has a text (spec/synth.md, "The
 * tokenizer"). Cases are token ids: no verdict depends on it. */
#include "synth_internal.h"

#include <string.h>

/* Ids 0 to 4, as published; then the newline, the space (U+2581), and the printable characters. */
static const char *const SPECIALS[] = {"<pad>", "<eos>", "<bos>", "<unk>", "<mask>"};
static const char CHARACTERS[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!"
                                 "\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

enum {
    SPECIAL_COUNT = sizeof SPECIALS / sizeof *SPECIALS,
    ALPHABET = 1 + sizeof CHARACTERS - 1,            /* the space, and CHARACTERS */
    FIRST_CHARACTER = SPECIAL_COUNT + 1,             /* the newline's id is SPECIAL_COUNT */
    FIRST_PAIR = FIRST_CHARACTER + ALPHABET,         /* every two characters, in order */
    FIRST_UNUSED = FIRST_PAIR + ALPHABET * ALPHABET, /* <unused0> ... : in the vocabulary, in no
                                                        text */
    SPACE = 0
};

/* Character i of the alphabet, as it stands in a JSON string. */
static const char *character(size_t i, char text[4])
{
    if (i == SPACE)
        return "\xe2\x96\x81";
    char c = CHARACTERS[i - 1];
    snprintf(text, 4, c == '"' || c == '\\' ? "\\%c" : "%c", c);
    return text;
}

/* The text of an id, as it stands in a JSON string. */
static void token_text(size_t id, char text[32])
{
    char left[4], right[4];
    if (id < SPECIAL_COUNT)
        snprintf(text, 32, "%s", SPECIALS[id]);
    else if (id < FIRST_CHARACTER)
        snprintf(text, 32, "\\n");
    else if (id < FIRST_PAIR)
        snprintf(text, 32, "%s", character(id - FIRST_CHARACTER, left));
    else if (id < FIRST_UNUSED)
        snprintf(text, 32, "%s%s", character((id - FIRST_PAIR) / ALPHABET, left),
                 character((id - FIRST_PAIR) % ALPHABET, right));
    else
        snprintf(text, 32, "<unused%zu>", id - FIRST_UNUSED);
}

static void write_merges(FILE *f, size_t vocab)
{
    char left[4], right[4];
    for (size_t id = FIRST_PAIR; id < vocab && id < FIRST_UNUSED; id++)
        fprintf(f, "%s[\"%s\",\"%s\"]", id > FIRST_PAIR ? "," : "",
                character((id - FIRST_PAIR) / ALPHABET, left),
                character((id - FIRST_PAIR) % ALPHABET, right));
}

void synth_write_tokenizer(FILE *f, size_t vocab)
{
    char text[32];
    fprintf(f, "{\n\"version\": \"1.0\",\n\"truncation\": null,\n\"padding\": "
               "null,\n\"added_tokens\": [\n");
    for (size_t id = 0; id < SPECIAL_COUNT; id++)
        fprintf(f,
                "  {\"id\": %zu, \"content\": \"%s\", \"single_word\": false, \"lstrip\": false, "
                "\"rstrip\": false, "
                "\"normalized\": false, \"special\": true}%s\n",
                id, SPECIALS[id], id + 1 < SPECIAL_COUNT ? "," : "");
    fprintf(f, "],\n\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, "
               "\"content\": \"\xe2\x96\x81\"},\n");
    fprintf(f, "\"pre_tokenizer\": null,\n");
    fprintf(f, "\"post_processor\": {\"type\": \"TemplateProcessing\",\n"
               "  \"single\": [{\"SpecialToken\": {\"id\": \"<bos>\", \"type_id\": 0}}, "
               "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}],\n"
               "  \"pair\": [{\"SpecialToken\": {\"id\": \"<bos>\", \"type_id\": 0}}, "
               "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}},\n"
               "    {\"SpecialToken\": {\"id\": \"<bos>\", \"type_id\": 1}}, {\"Sequence\": "
               "{\"id\": \"B\", \"type_id\": 1}}],\n"
               "  \"special_tokens\": {\"<bos>\": {\"id\": \"<bos>\", \"ids\": [2], \"tokens\": "
               "[\"<bos>\"]}}},\n");
    fprintf(f, "\"decoder\": {\"type\": \"Sequence\", \"decoders\": [\n"
               "  {\"type\": \"Replace\", \"pattern\": {\"String\": \"\xe2\x96\x81\"}, "
               "\"content\": \" \"},\n"
               "  {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}]},\n");
    fprintf(f, "\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": \"<unk>\", "
               "\"continuing_subword_prefix\": null,\n"
               "  \"end_of_word_suffix\": null, \"fuse_unk\": true, \"byte_fallback\": true, "
               "\"ignore_merges\": false,\n  \"vocab\": {");
    for (size_t id = 0; id < vocab; id++) {
        token_text(id, text);
        fprintf(f, "%s\"%s\":%zu", id ? "," : "", text, id);
    }
    fprintf(f, "},\n  \"merges\": [");
    write_merges(f, vocab);
    fprintf(f, "]}\n}\n");
}

void synth_write_tokenizer_config(FILE *f)
{
    fprintf(f, "{\n  \"add_bos_token\": true,\n  \"bos_token\": \"<bos>\",\n");
    fprintf(f, "  \"chat_template\": \"{{ bos_token }}{%% for message in messages %%}{{ "
               "message['content'] }}{%% endfor %%}\",\n");
    fprintf(f, "  \"clean_up_tokenization_spaces\": false,\n  \"eos_token\": \"<eos>\",\n  "
               "\"mask_token\": \"<mask>\",\n");
    fprintf(f, "  \"model_max_length\": 262144,\n  \"pad_token\": \"<pad>\",\n  \"padding_side\": "
               "\"left\",\n");
    fprintf(f, "  \"tokenizer_class\": \"GemmaTokenizer\",\n  \"unk_token\": \"<unk>\"\n}\n");
}

void synth_write_generation_config(FILE *f)
{
    fprintf(f, "{\n  \"bos_token_id\": 2,\n  \"do_sample\": false,\n  \"eos_token_id\": 1,\n  "
               "\"pad_token_id\": 0\n}\n");
}
