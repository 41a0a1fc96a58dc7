#include "targets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "activations.h"
#include "facts.h"
#include "manifest.h"
#include "map.h"
#include "options.h"
#include "schedule.h"
#include "several.h"

/* --- what targets share --- */

static char directory[64], last_path[128];
static pid_t owner;

static void remove_directory(void)
{
    char command[96];
    if (getpid() != owner)
        return;
    snprintf(command, sizeof command, "rm -rf '%s'", directory); /* mkdtemp's name: no quote in
                                                                    it */
    if (system(command))
        fprintf(stderr, "fuzz: %s is left\n", directory);
}

static void make_directory(void)
{
    snprintf(directory, sizeof directory, "%s/gemma4-fuzz-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(directory))
        abort();
    owner = getpid();
    atexit(remove_directory);
}

const char *fuzz_file(const char *name, const void *bytes, size_t size)
{
    if (getpid() != owner)
        make_directory();
    snprintf(last_path, sizeof last_path, "%s/%s", directory, name);
    int file = open(last_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (file < 0 || write(file, bytes, size) != (ssize_t)size || close(file))
        abort();
    return last_path;
}

const char fuzz_cut[] = "---- 8< ----\n";

const uint8_t *fuzz_find_cut(const uint8_t *bytes, size_t size)
{
    return memmem(bytes, size, fuzz_cut, strlen(fuzz_cut));
}

/* A part's first line, as a plain file name. */
static void take_name(const uint8_t **at, const uint8_t *end, char *name, size_t size)
{
    size_t length = 0;
    while (*at < end) {
        const uint8_t c = *(*at)++;
        if (c == '\n')
            break;
        if (c && c != '/' && length + 1 < size)
            name[length++] = (char)c;
    }
    name[length] = '\0';
}

const char *fuzz_folder(const uint8_t *bytes, size_t size, const char *const *names, size_t count)
{
    enum { PARTS = 8, NAME = 40 };
    static char folder[96], written[PARTS][sizeof folder + NAME + 2];
    const uint8_t *at = bytes, *const end = bytes + size;
    for (size_t i = 0; i < PARTS && *written[i]; i++)
        unlink(written[i]);
    memset(written, 0, sizeof written);
    if (getpid() != owner)
        make_directory();
    snprintf(folder, sizeof folder, "%s/folder", directory);
    if (mkdir(folder, 0700) && errno != EEXIST)
        abort();
    for (size_t i = 0; i < PARTS && (!names || i < count) && (i == 0 || at < end); i++) {
        char name[NAME];
        const uint8_t *cut = names && i + 1 == count ? NULL : fuzz_find_cut(at, (size_t)(end - at)),
                      *part_end = cut ? cut : end;
        if (names)
            snprintf(name, sizeof name, "%s", names[i]);
        else
            take_name(&at, part_end, name, sizeof name);
        snprintf(written[i], sizeof written[i], "%s/%s%s", folder, *name == '.' ? "_" : "",
                 *name ? name : "_");
        int file = open(written[i], O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (file < 0 || write(file, at, (size_t)(part_end - at)) != part_end - at || close(file))
            abort();
        at = cut ? cut + strlen(fuzz_cut) : end;
    }
    return folder;
}

void fuzz_promise(int failed, const gemma4_error *error)
{
    if (!failed)
        return;
    size_t length = strnlen(error->message, sizeof error->message);
    if (length == 0 || length == sizeof error->message)
        abort();
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)error->message[i] < 0x20)
            abort();
}

const gemma4_config *fuzz_config(void)
{
    static gemma4_layer_config layers[2] = {
        {.kind = GEMMA4_SLIDING,
         .num_key_value_heads = 2,
         .head_dim = 4,
         .rope_theta = 1e4,
         .rope_pairs = 2},
        {.kind = GEMMA4_FULL,
         .num_key_value_heads = 1,
         .head_dim = 8,
         .v_is_k = true,
         .rope_theta = 1e6,
         .rope_pairs = 2},
    };
    static const gemma4_config config = {
        .hidden_size = 4,
        .num_hidden_layers = 2,
        .num_attention_heads = 2,
        .intermediate_size = 3,
        .num_experts = 4,
        .top_k_experts = 2,
        .moe_intermediate_size = 3,
        .vocab_size = 8,
        .sliding_window = 4,
        .max_position_embeddings = 64,
        .rms_norm_eps = 1e-6,
        .final_logit_softcapping = 30,
        .layers = layers,
    };
    return &config;
}

/* One row at a time: what is allocated does not grow with what the file declares. */
static void read_activation(gemma4_activations *file, const gemma4_activation *a, void *row)
{
    gemma4_error error = {""};
    bool ids = gemma4_tap_describe(a->tap)->ids;
    for (size_t i = 0; i < a->rows && i < 64; i++) {
        int status = ids ? gemma4_activations_read_ids(file, a, i, 1, row, &error)
                         : gemma4_activations_read(file, a, i, 1, row, &error);
        fuzz_promise(status, &error);
    }
}

void fuzz_read_activations(gemma4_activations *file)
{
    enum { ROW = 1 << 20 };
    const int32_t *tokens, *positions;
    if (!file)
        return;
    size_t T = gemma4_activations_positions(file, &tokens, &positions);
    void *row = malloc(ROW * sizeof(float));
    if (T == 0 || !row)
        abort();
    for (size_t i = 0; i < gemma4_activations_count(file); i++) {
        const gemma4_activation *a = gemma4_activations_at(file, i);
        size_t length = 1;
        for (size_t axis = 1; axis < a->rank && length <= ROW; axis++)
            length *= a->shape[axis] < ROW ? a->shape[axis] : ROW + 1;
        if (a->usable && length <= ROW)
            read_activation(file, a, row);
        if (!a->usable && !*a->problem)
            abort();
    }
    free(row);
    gemma4_activations_close(file);
}

/* --- documents --- */

static void walk(const gemma4_node *node)
{
    gemma4_error error = {""};
    int64_t integer;
    double number;
    bool truth;
    const char *text;
    fuzz_promise(gemma4_node_int(node, -5, 100, &integer, &error), &error);
    fuzz_promise(gemma4_node_number(node, -1e300, 1e300, &number, &error), &error);
    fuzz_promise(gemma4_node_bool(node, &truth, &error), &error);
    fuzz_promise(gemma4_node_string(node, &text, &error), &error);
    for (size_t i = 0; i < node->count; i++) {
        if (node->kind == GEMMA4_MAPPING && gemma4_node_get(node, node->keys[i]) != &node->items[i])
            abort();
        walk(&node->items[i]);
    }
}

static void document(const uint8_t *bytes, size_t size)
{
    gemma4_error error = {""};
    gemma4_document *d = gemma4_document_parse("input", bytes, size, &error);
    fuzz_promise(!d, &error);
    if (d)
        walk(gemma4_document_root(d));
    gemma4_document_free(d);
}

static void config_json(const uint8_t *bytes, size_t size)
{
    static FILE *nowhere;
    gemma4_error error = {""};
    gemma4_config config;
    if (!nowhere && !(nowhere = fopen("/dev/null", "w")))
        abort();
    int status = gemma4_config_read(fuzz_file("config.json", bytes, size), &config, &error);
    fuzz_promise(status, &error);
    if (status)
        return;
    gemma4_facts_print(nowhere, &config);
    gemma4_config_free(&config);
}

static void manifest(const uint8_t *bytes, size_t size)
{
    gemma4_error error = {""};
    gemma4_case *c = gemma4_case_open(fuzz_file("case.yaml", bytes, size), &error);
    fuzz_promise(!c, &error);
    gemma4_case_close(c);
}

static void map(const uint8_t *bytes, size_t size)
{
    static const char *const names[] = {"layers.0.attn.q", "Qcur-1", "",
                                        "model.layers.1.self_attn.q_proj.output",
                                        "l_out-12345678901234567890"};
    gemma4_error error = {""};
    gemma4_map *m = gemma4_map_read(fuzz_file("map.yaml", bytes, size), &error);
    fuzz_promise(!m, &error);
    for (size_t i = 0; m && i < m->rule_count; i++)
        for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
            size_t layer, place;
            gemma4_map_matches_any(&m->rules[i], names[n], &layer);
            for (layer = 0; layer < 2; layer++)
                if (gemma4_map_covers(&m->rules[i], fuzz_config(), layer, &place))
                    gemma4_map_matches(&m->rules[i], fuzz_config(), layer, names[n]);
        }
    gemma4_map_free(m);
}

static void dump_list(const uint8_t *bytes, size_t size)
{
    gemma4_error error = {""};
    gemma4_dump_list list;
    int status = gemma4_dump_list_open(fuzz_file("dumps.yaml", bytes, size), &list, &error);
    fuzz_promise(status, &error);
    if (!status)
        gemma4_dump_list_free(&list);
}

/* --- command lines --- */

static void tokens(const uint8_t *bytes, size_t size)
{
    gemma4_error error = {""};
    int32_t *values = NULL;
    size_t count = 0;
    int64_t one;
    gemma4_schedule schedule;
    char *text = malloc(size + 1);
    if (!text)
        abort();
    memcpy(text, bytes, size);
    text[size] = '\0';
    int status = gemma4_parse_ints(text, "--tokens", 0, 262143, &values, &count, &error);
    fuzz_promise(status, &error);
    for (size_t i = 0; i < count && !status; i++)
        if (values[i] < 0 || values[i] > 262143)
            abort();
    if (!status)
        free(values);
    fuzz_promise(gemma4_parse_int(text, "--seed", 0, INT64_MAX, &one, &error), &error);
    status = gemma4_schedule_init(&schedule, text, 12, &error);
    fuzz_promise(status, &error);
    if (!status)
        gemma4_schedule_free(&schedule);
    free(text);
}

/* A line of the input is a word of the command line. */
static void options(const uint8_t *bytes, size_t size)
{
    enum { WORDS = 64, PLACES = 3 };
    gemma4_error error = {""};
    const char *model = NULL, *out = NULL, *positional[PLACES];
    const gemma4_option known[] = {{"--model", &model}, {"--out", &out}, {NULL, NULL}};
    char *text = malloc(size + 1), *words[WORDS];
    size_t places;
    int count = 0;
    if (!text)
        abort();
    memcpy(text, bytes, size);
    text[size] = '\0';
    for (char *rest = text, *word; count < WORDS && (word = strsep(&rest, "\n"));)
        words[count++] = word;
    int status = gemma4_options_parse(count, words, known, positional, PLACES, &places, &error);
    fuzz_promise(status, &error);
    if (places > PLACES || (!status && (int)places > count))
        abort();
    free(text);
}

/* --- all --- */

static const fuzz_target targets[] = {
    {"document", document},
    {"config", config_json},
    {"manifest", manifest},
    {"map", map},
    {"dump-list", dump_list},
    {"tokens", tokens},
    {"options", options},
    {"safetensors", fuzz_safetensors},
    {"activations", fuzz_activations},
    {"npy", fuzz_npy},
    {"npz", fuzz_npz},
    {"foreign", fuzz_foreign},
    {"import", fuzz_import},
    {"folders", fuzz_folders},
    {"names", fuzz_names},
    {"gguf", fuzz_gguf},
    {"index", fuzz_index},
    {"hdf5", fuzz_hdf5},
    {"hdf5-foreign", fuzz_hdf5_foreign},
    {"ladder", fuzz_ladder},
    {"ladder-groups", fuzz_ladder_groups},
    {"hdf5-ladder", fuzz_hdf5_ladder},
    {"judge", fuzz_judge},
};

const fuzz_target *fuzz_target_at(size_t index)
{
    return index < sizeof targets / sizeof *targets ? &targets[index] : NULL;
}

const fuzz_target *fuzz_target_named(const char *name)
{
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
        if (!strcmp(targets[i].name, name))
            return &targets[i];
    return NULL;
}
