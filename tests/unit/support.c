#include "support.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model.h"

const char test_tiny_config[] =
    "{\"model_type\": \"gemma4_text\", \"hidden_size\": 16, \"num_hidden_layers\": 6, "
    "\"num_attention_heads\": 4,\n"
    " \"num_key_value_heads\": 2, \"head_dim\": 8, \"num_global_key_value_heads\": 1, "
    "\"global_head_dim\": 16,\n"
    " \"attention_k_eq_v\": true, \"sliding_window\": 4, \"intermediate_size\": 24, "
    "\"enable_moe_block\": true,\n"
    " \"num_experts\": 4, \"top_k_experts\": 2, \"moe_intermediate_size\": 8, \"vocab_size\": 32,\n"
    " \"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-06, \"final_logit_softcapping\": "
    "30.0,\n"
    " \"hidden_size_per_layer_input\": 0}\n";

/* --- memory and directories that live until the program ends --- */

typedef struct kept {
    struct kept *next;
    char text[];
} kept;

static kept *kept_list;
static char *directory;       /* of this process */
static pid_t directory_owner; /* the process that made it */

/* For what main.c calls too, where there is no test that an assertion could fail. */
static void die(const char *what)
{
    fprintf(stderr, "tests/unit/support.c: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

static char *keep(size_t size)
{
    kept *entry = malloc(sizeof *entry + size);
    if (entry == NULL)
        die("malloc");
    entry->next = kept_list;
    kept_list = entry;
    return entry->text;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status, (void)type, (void)walk;
    return remove(path);
}

/* Runs in every process that exits normally; only the one that made the directory removes it. */
static void remove_all(void)
{
    if (directory != NULL && directory_owner == getpid())
        nftw(directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    while (kept_list != NULL) {
        kept *next = kept_list->next;
        free(kept_list);
        kept_list = next;
    }
}

char *test_join(const char *parent, const char *name)
{
    size_t size = strlen(parent) + strlen(name) + 2;
    char *path = keep(size);
    snprintf(path, size, "%s/%s", parent, name);
    return path;
}

const char *test_dir(void)
{
    if (directory != NULL && directory_owner == getpid())
        return directory;
    const char *parent = getenv("TMPDIR");
    if (parent == NULL || parent[0] == '\0')
        parent = "/tmp";
    if (directory != NULL)
        parent = directory; /* a forked test: its own directory inside the parent's */
    else
        atexit(remove_all); /* children inherit it */
    directory = test_join(parent, "gemma4-unit-XXXXXX");
    if (mkdtemp(directory) == NULL)
        die(directory);
    directory_owner = getpid();
    return directory;
}

char *test_fresh_dir(void)
{
    char *path = test_join(test_dir(), "XXXXXX");
    if (mkdtemp(path) == NULL)
        die(path);
    return path;
}

char *test_path(const char *name)
{
    return test_join(test_dir(), name);
}

void test_write(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    ck_assert_msg(file != NULL, "%s: %s", path, strerror(errno));
    ck_assert_uint_eq(fwrite(bytes, 1, size, file), size);
    ck_assert_int_eq(fclose(file), 0);
}

void test_write_text(const char *path, const char *text)
{
    test_write(path, text, strlen(text));
}

const char *test_read(const char *path)
{
    static struct {
        char *path, *text;
    } read[64];
    size_t i = 0;
    for (; i < sizeof read / sizeof *read && read[i].path != NULL; i++)
        if (strcmp(read[i].path, path) == 0)
            return read[i].text;
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "%s: %s", path, strerror(errno));
    ck_assert(fseek(file, 0, SEEK_END) == 0 && ftell(file) >= 0);
    size_t size = (size_t)ftell(file);
    char *text = keep(size + 1);
    rewind(file);
    ck_assert_uint_eq(fread(text, 1, size, file), size);
    text[size] = '\0';
    fclose(file);
    if (i < sizeof read / sizeof *read) {
        read[i].path = strcpy(keep(strlen(path) + 1), path);
        read[i].text = text;
    }
    return text;
}

const char *test_replace(const char *text, const char *old, const char *replacement)
{
    if (old == NULL)
        return text;
    const char *at = strcmp(old, "@") == 0 ? text + strlen(text) : strstr(text, old);
    ck_assert_msg(at != NULL, "the text to edit lacks \"%s\"", old);
    const char *rest = *at == '\0' ? at : at + strlen(old);
    size_t size = strlen(text) + strlen(replacement) + 1;
    char *edited = keep(size);
    snprintf(edited, size, "%.*s%s%s", (int)(at - text), text, replacement, rest);
    return edited;
}

/* --- checkpoints --- */

test_tensor *test_tensors(const gemma4_config *config, const char *prefix, size_t room,
                          size_t *count)
{
    *count = gemma4_tensor_spec_count(config);
    test_tensor *tensors = calloc(*count + room, sizeof *tensors);
    ck_assert_ptr_nonnull(tensors);
    for (size_t i = 0; i < *count; i++) {
        gemma4_tensor_spec spec = gemma4_tensor_spec_at(config, i);
        snprintf(tensors[i].name, sizeof tensors[i].name, "%s%s", prefix, spec.name);
        tensors[i].dtype = "BF16";
        tensors[i].rank = spec.rank;
        memcpy(tensors[i].shape, spec.shape, sizeof spec.shape);
    }
    return tensors;
}

static size_t tensor_bytes(const test_tensor *tensor)
{
    size_t bytes = strcmp(tensor->dtype, "F64") == 0 || strcmp(tensor->dtype, "I64") == 0   ? 8
                   : strcmp(tensor->dtype, "F32") == 0 || strcmp(tensor->dtype, "I32") == 0 ? 4
                                                                                            : 2;
    for (size_t i = 0; i < tensor->rank; i++)
        bytes *= tensor->shape[i];
    return bytes;
}

/* Every 16-bit half is a small finite number (0x3c00 ... 0x3fff) in BF16 and in F16, and so is
 * every F32 made of two. */
static void write_values(FILE *file, const test_tensor *tensor, uint64_t seed)
{
    uint64_t state = seed * 2 + 1;
    for (const char *c = tensor->name; *c != '\0'; c++)
        state = (state ^ (unsigned char)*c) * 1099511628211u;
    for (size_t left = tensor_bytes(tensor); left > 0; left -= 2) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        unsigned half = 0x3c00u | (unsigned)(state >> 54);
        unsigned char bytes[2] = {(unsigned char)half, (unsigned char)(half >> 8)};
        ASSERT_EACH(fwrite(bytes, 1, 2, file) == 2, "%s: cannot be written", tensor->name);
    }
}

void test_write_safetensors(const char *path, const test_tensor *tensors, size_t count,
                            uint64_t seed)
{
    char *header = NULL;
    size_t size = 0, offset = 0;
    FILE *text = open_memstream(&header, &size);
    ck_assert_ptr_nonnull(text);
    fprintf(text, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < count; i++) {
        const test_tensor *tensor = &tensors[i];
        size_t end = offset + tensor_bytes(tensor);
        fprintf(text, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", tensor->name, tensor->dtype);
        for (size_t axis = 0; axis < tensor->rank; axis++)
            fprintf(text, axis == 0 ? "%zu" : ",%zu", tensor->shape[axis]);
        fprintf(text, "],\"data_offsets\":[%zu,%zu]}", offset, end);
        offset = end;
    }
    fputc('}', text);
    fflush(text);
    fprintf(text, "%*s", (int)(63 - (size + 8 + 63) % 64), ""); /* the data start at a multiple of
                                                                   64 */
    ck_assert_int_eq(fclose(text), 0);

    FILE *file = fopen(path, "wb");
    ck_assert_msg(file != NULL, "%s: %s", path, strerror(errno));
    for (int i = 0; i < 8; i++)
        fputc((int)((uint64_t)size >> (8 * i) & 255), file);
    ck_assert_uint_eq(fwrite(header, 1, size, file), size);
    for (size_t i = 0; i < count; i++)
        write_values(file, &tensors[i], seed);
    ck_assert_int_eq(fclose(file), 0);
    free(header);
}

void test_write_checkpoint(const char *parent, const char *config_json, const char *prefix,
                           uint64_t seed)
{
    gemma4_error error = {""};
    gemma4_config config;
    const char *config_path = test_join(parent, "config.json");
    test_write_text(config_path, config_json);
    ck_assert_msg(gemma4_config_read(config_path, &config, &error) == 0, "%s", error.message);
    size_t count;
    test_tensor *tensors = test_tensors(&config, prefix, 0, &count);
    test_write_safetensors(test_join(parent, "model.safetensors"), tensors, count, seed);
    free(tensors);
    gemma4_config_free(&config);
}

/* --- a config without a checkpoint --- */

static gemma4_layer_config small_layers[] = {
    {.kind = GEMMA4_SLIDING, .num_key_value_heads = 2, .head_dim = 4},
    {.kind = GEMMA4_FULL, .num_key_value_heads = 1, .head_dim = 8, .v_is_k = true},
};

const gemma4_config test_small_config = {
    .hidden_size = 12,
    .num_hidden_layers = sizeof small_layers / sizeof *small_layers,
    .num_attention_heads = 3,
    .intermediate_size = 10,
    .num_experts = 6,
    .top_k_experts = 2,
    .moe_intermediate_size = 5,
    .vocab_size = 32,
    .max_position_embeddings = 64,
    .layers = small_layers,
};

/* --- pages --- */

glob_t test_pages;

void test_find_pages(void)
{
    ck_assert_int_eq(glob("README.md", 0, NULL, &test_pages), 0);
    ck_assert_int_eq(glob("spec/*.md", GLOB_APPEND, NULL, &test_pages), 0);
    ck_assert_uint_gt(test_pages.gl_pathc, 8);
}

void test_free_pages(void)
{
    globfree(&test_pages);
}

bool test_is_generated(const char *page)
{
    return !strcmp(page, "spec/causes.md") || !strcmp(page, "spec/kill-matrix.md");
}
