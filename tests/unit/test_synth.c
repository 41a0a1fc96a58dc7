/* Synthetic checkpoints (ref/synth.h) against what the independent implementation,
 * golden/oracle/synth.py, makes of spec/synth.md. */
#include "document.h"
#include "hash.h"
#include "model.h"
#include "safetensors.h"
#include "suites.h"
#include "support.h"
#include "synth.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

static char *synthesise(const char *preset, uint64_t seed, size_t layers, size_t shards)
{
    gemma4_error error = {""};
    const gemma4_synth_options options = {
        .preset = preset, .seed = seed, .layers = layers, .shards = shards};
    char *directory = test_fresh_dir();
    ck_assert_msg(gemma4_synth(&options, directory, &error) == 0, "%s", error.message);
    return directory;
}

static size_t entries(const char *directory)
{
    size_t count = 0;
    DIR *d = opendir(directory);
    ck_assert_ptr_nonnull(d);
    while (readdir(d) != NULL)
        count++;
    closedir(d);
    return count - 2; /* . and .. */
}

/* Whether any file of an unfinished run is left. */
static bool has_temporary(const char *directory)
{
    bool found = false;
    DIR *d = opendir(directory);
    ck_assert_ptr_nonnull(d);
    for (struct dirent *entry; (entry = readdir(d)) != NULL;)
        found = found || strstr(entry->d_name, ".tmp") != NULL;
    closedir(d);
    return found;
}

static bool exists(const char *directory, const char *name)
{
    struct stat status;
    return lstat(test_join(directory, name), &status) == 0;
}

static gemma4_safetensors *open_checkpoint(const char *directory)
{
    gemma4_error error = {""};
    gemma4_safetensors *files = gemma4_safetensors_open_checkpoint(directory, &error);
    ck_assert_msg(files != NULL, "%s", error.message);
    return files;
}

/* --- the bytes --- */

/* From golden/oracle: value_table(offset, spread)[random_bytes(tensor_key(3, name), first / 8, 1)]
 * of synth.py. */
static const struct {
    const char *name;
    size_t first, count;
    uint16_t bits[8];
} BITS[] = {
    {"embed_tokens.weight", 0, 4, {0xbd90, 0x3e0d, 0x3e3f, 0x3e3a}},
    {"embed_tokens.weight", 8, 4, {0xbd9e, 0xbd6f, 0x3d9e, 0xbd23}}, /* the second block of eight */
    /* by the full layer's head dim */
    {"layers.5.self_attn.k_norm.weight", 0, 4, {0x3e34, 0x3e68, 0x3e64, 0x3dda}},
    {"layers.5.self_attn.k_norm.weight", 8, 4, {0x3da5, 0x3e11, 0x3e53, 0x3e47}},
    {"layers.11.layer_scalar", 0, 1, {0x3f6b}},
    {"norm.weight", 0, 4, {0x4112, 0x4133, 0x413c, 0x413f}},
    {"layers.0.experts.down_proj", 0, 4, {0x3bd4, 0xbd20, 0x3b85, 0x3bc4}},
    {"layers.0.experts.down_proj", 8, 4, {0x3d2a, 0x3a3c, 0x3d62, 0x3c40}},
    {"layers.0.router.per_expert_scale",
     0,
     8,
     {0x3fad, 0x3f89, 0x3f50, 0x3f4a, 0x3fc0, 0x3f7e, 0x3f7c, 0x3f9c}},
};

START_TEST(weights_have_the_bits_of_the_second_implementation)
{
    char name[128];
    gemma4_safetensors *files = open_checkpoint(synthesise("tiny", 3, 0, 1));
    snprintf(name, sizeof name, "model.language_model.%s", BITS[_i].name);
    const gemma4_tensor *tensor = gemma4_safetensors_find(files, name);
    ck_assert_ptr_nonnull(tensor);
    ck_assert_int_eq(tensor->dtype, GEMMA4_BF16);
    for (size_t i = 0; i < BITS[_i].count; i++)
        ck_assert_uint_eq(((const uint16_t *)tensor->data)[BITS[_i].first + i], BITS[_i].bits[i]);
    gemma4_safetensors_close(files);
}
END_TEST

/* cd golden/oracle && python synth.py --preset PRESET --seed 3 --out DIR && sha256sum
 * DIR/model.safetensors */
static const struct {
    const char *preset, *sha256;
} FILES[] = {
    {"tiny", "58fe7c7f76cfd65668dd05e148ede15852c996c1c5168e5f9610f339b76b9867"},
    {"moe128", "1c101ae805ded4236c8198869c875fa0ea88cbfa0e17168244b8bf493f28a0bf"},
    {"uneven96", "089cf3fcebdbe234be2459fbfca8185095ef2ad00e756747203b1303cdfc9745"},
    {"deep128", "9f959239ed451d4e1eca5ee264029202798752e80500da02a8593944a8e6e1e5"},
    {"heads512", "969238fab636a3f3e9158c7f71d2920686bd7f91c8f83512206347a2fcb76cc3"},
    {"window1024", "aeedee3ed9e40a687c2952851211fc55bd127238d73ac478d50b4a7478d66edd"},
    {"wide256", "4ea0cfd0d937d6a90732f9fc0285c1bc6673004a301a0eff776072b46ef6187e"},
};

START_TEST(the_file_has_the_bytes_of_the_second_implementation)
{
    gemma4_error error;
    char hex[GEMMA4_SHA256_SIZE];
    const char *directory = synthesise(FILES[_i].preset, 3, 0, 1);
    ck_assert_int_eq(gemma4_sha256_file(test_join(directory, "model.safetensors"), hex, &error), 0);
    ck_assert_str_eq(hex, FILES[_i].sha256);
    ck_assert_uint_eq(entries(directory), 5); /* config, tokenizer and its config, generation config
                                                 beside it */
}
END_TEST

/* The seed's eight bytes all count. */
START_TEST(another_seed_gives_other_weights)
{
    static const uint64_t seeds[] = {4, 3 + ((uint64_t)1 << 56), 0};
    char hex[GEMMA4_SHA256_SIZE];
    gemma4_error error;
    const char *directory = synthesise("tiny", seeds[_i], 1, 1),
               *again = synthesise("tiny", 3, 1, 1);
    char other[GEMMA4_SHA256_SIZE];
    ck_assert_int_eq(gemma4_sha256_file(test_join(directory, "model.safetensors"), hex, &error), 0);
    ck_assert_int_eq(gemma4_sha256_file(test_join(again, "model.safetensors"), other, &error), 0);
    ck_assert_str_ne(hex, other);
}
END_TEST

/* --- layouts --- */

START_TEST(every_small_preset_opens_as_a_model)
{
    gemma4_error error = {""};
    gemma4_model *model = gemma4_model_open(synthesise(FILES[_i].preset, 1, 0, 1), &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    gemma4_model_close(model);
}
END_TEST

START_TEST(every_preset_is_listed)
{
    const char *const *names = gemma4_synth_presets();
    static const char *const expected[] = {"tiny",    "moe128",   "wide256",    "uneven96",
                                           "deep128", "heads512", "window1024", "26b-a4b"};
    for (size_t i = 0; i < COUNT(expected); i++)
        ck_assert_str_eq(names[i], expected[i]);
    for (names += COUNT(expected); *names; names++)
        ck_assert_msg(!strncmp(*names, "ladder-", 7), "%s", *names);
}
END_TEST

/* Cut and extended stacks keep the rhythm of five to one, and end with a full layer as the
 * published one does. */
static const struct {
    size_t layers;
    const char *kinds;
} STACKS[] = {{1, "f"}, {2, "sf"}, {7, "sssssff"}, {14, "sssssfsssssfsf"}};

START_TEST(layers_can_be_cut_and_extended)
{
    gemma4_error error = {""};
    gemma4_model *model = gemma4_model_open(synthesise("tiny", 1, STACKS[_i].layers, 1), &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    ck_assert_uint_eq(model->config.num_hidden_layers, STACKS[_i].layers);
    for (size_t l = 0; l < STACKS[_i].layers; l++)
        ck_assert_int_eq(model->config.layers[l].kind,
                         STACKS[_i].kinds[l] == 'f' ? GEMMA4_FULL : GEMMA4_SLIDING);
    gemma4_model_close(model);
}
END_TEST

START_TEST(the_vocabulary_can_be_cut)
{
    gemma4_error error = {""};
    const gemma4_synth_options options = {
        .preset = "tiny", .seed = 1, .layers = 1, .vocab = 32, .shards = 1};
    char *directory = test_fresh_dir();
    ck_assert_int_eq(gemma4_synth(&options, directory, &error), 0);
    gemma4_model *model = gemma4_model_open(directory, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    ck_assert_uint_eq(model->embed_tokens.rows, 32);
    gemma4_model_close(model);
}
END_TEST

static void assert_same_tensors(const gemma4_safetensors *a, const gemma4_safetensors *b)
{
    ck_assert_uint_eq(gemma4_safetensors_count(a), gemma4_safetensors_count(b));
    for (size_t i = 0; i < gemma4_safetensors_count(a); i++) {
        const gemma4_tensor *one = gemma4_safetensors_at(a, i),
                            *other = gemma4_safetensors_find(b, one->name);
        ck_assert_msg(other != NULL, "%s is missing", one->name);
        ck_assert_uint_eq(one->size, other->size);
        ck_assert_msg(memcmp(one->data, other->data, one->size) == 0, "%s differs", one->name);
    }
}

static const size_t SHARDS[] = {2, 5, 12};

START_TEST(shards_hold_the_tensors_of_the_one_file)
{
    char *directory = synthesise("tiny", 3, 0, SHARDS[_i]);
    gemma4_safetensors *whole = open_checkpoint(synthesise("tiny", 3, 0, 1)),
                       *parts = open_checkpoint(directory);
    ck_assert_uint_eq(entries(directory), SHARDS[_i] + 5); /* the index beside what the one file
                                                              has */
    assert_same_tensors(whole, parts);
    gemma4_safetensors_close(whole);
    gemma4_safetensors_close(parts);
}
END_TEST

START_TEST(a_checkpoint_in_shards_opens_as_a_model)
{
    gemma4_error error = {""};
    gemma4_model *model = gemma4_model_open(synthesise("moe128", 1, 0, 3), &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    gemma4_model_close(model);
}
END_TEST

/* The index of an earlier run would otherwise be read in place of the new file. */
START_TEST(one_file_replaces_shards)
{
    gemma4_error error = {""};
    const gemma4_synth_options options = {.preset = "tiny", .seed = 4, .shards = 1};
    char *directory = synthesise("tiny", 3, 0, 2);
    ck_assert_int_eq(gemma4_synth(&options, directory, &error), 0);
    ck_assert(!exists(directory, "model.safetensors.index.json"));
    gemma4_safetensors *found = open_checkpoint(directory),
                       *expected = open_checkpoint(synthesise("tiny", 4, 0, 1));
    assert_same_tensors(expected, found);
    gemma4_safetensors_close(found);
    gemma4_safetensors_close(expected);
}
END_TEST

/* --- what loaders look for beside the weights --- */

static const char *const BESIDE[] = {"config.json", "tokenizer.json", "tokenizer_config.json",
                                     "generation_config.json"};

START_TEST(the_committed_checkpoint_has_what_this_program_writes)
{
    const char *directory = synthesise("tiny", 3, 0, 1);
    char committed[256];
    snprintf(committed, sizeof committed, "golden/checkpoints/tiny/%s", BESIDE[_i]);
    ck_assert_str_eq(test_read(test_join(directory, BESIDE[_i])), test_read(committed));
}
END_TEST

static gemma4_document *read_document(const char *path)
{
    gemma4_error error = {""};
    gemma4_document *document = gemma4_document_read(path, &error);
    ck_assert_msg(document != NULL, "%s", error.message);
    return document;
}

static const gemma4_node *member(const gemma4_node *mapping, const char *key)
{
    const gemma4_node *node = gemma4_node_get(mapping, key);
    ck_assert_msg(node != NULL, "%s is missing", key);
    return node;
}

/* By the size of the vocabulary: fewer ids than characters; pairs of characters; more ids than
 * pairs. */
static const size_t VOCABULARIES[] = {8, 256, 512, 9200};

/* Every id has one text, and each merge joins two ids to a third, in the order of the thirds: so a
 * text of one id is encoded as that id. */
START_TEST(every_id_has_a_text_and_every_pair_a_merge)
{
    gemma4_error error = {""};
    const gemma4_synth_options options = {
        .preset = "tiny", .seed = 1, .layers = 1, .vocab = VOCABULARIES[_i], .shards = 1};
    char *directory = test_fresh_dir(), joined[64];
    ck_assert_int_eq(gemma4_synth(&options, directory, &error), 0);
    gemma4_document *document = read_document(test_join(directory, "tokenizer.json"));
    const gemma4_node *model = member(gemma4_document_root(document), "model");
    const gemma4_node *vocab = member(model, "vocab"), *merges = member(model, "merges");
    ck_assert_uint_eq(vocab->count, VOCABULARIES[_i]);
    size_t first_pair = 6 + 95;
    for (size_t i = 0; i < vocab->count; i++) {
        int64_t id;
        /* fails for a text that is there twice */
        ck_assert_int_eq(gemma4_get_int(vocab, vocab->keys[i], 0, INT64_MAX, &id, &error), 0);
        ck_assert_uint_eq((size_t)id, i);
    }
    size_t expected = vocab->count > first_pair ? vocab->count - first_pair : 0;
    ck_assert_uint_eq(merges->count, expected < 95 * 95 ? expected : 95 * 95);
    for (size_t i = 0; i < merges->count; i++) {
        snprintf(joined, sizeof joined, "%s%s", merges->items[i].items[0].text,
                 merges->items[i].items[1].text);
        ck_assert_str_eq(joined, vocab->keys[first_pair + i]);
    }
    gemma4_document_free(document);
}
END_TEST

/* As published: the decoder's tensors, and a tower's beside them that the loader skips. */
START_TEST(a_vision_tower_lies_beside_the_same_decoder)
{
    gemma4_error error = {""};
    const gemma4_synth_options options = {.preset = "tiny", .seed = 3, .shards = 3, .vision = 1};
    char *directory = test_fresh_dir();
    ck_assert_msg(gemma4_synth(&options, directory, &error) == 0, "%s", error.message);
    gemma4_safetensors *plain = open_checkpoint(synthesise("tiny", 3, 0, 1)),
                       *published = open_checkpoint(directory);
    size_t towers = 0;
    for (size_t i = 0; i < gemma4_safetensors_count(published); i++) {
        const gemma4_tensor *tensor = gemma4_safetensors_at(published, i),
                            *same = gemma4_safetensors_find(plain, tensor->name);
        if (same)
            ck_assert(same->size == tensor->size &&
                      memcmp(same->data, tensor->data, same->size) == 0);
        else
            ck_assert_msg(strncmp(tensor->name, "model.vision_tower.", 19) == 0 ||
                              strncmp(tensor->name, "model.embed_vision.", 19) == 0,
                          "%s", tensor->name);
        towers += !same;
    }
    ck_assert_uint_eq(towers, 31);
    ck_assert_uint_eq(gemma4_safetensors_count(published),
                      gemma4_safetensors_count(plain) + towers);
    gemma4_model *model = gemma4_model_open(directory, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    gemma4_model_close(model);
    gemma4_safetensors_close(plain);
    gemma4_safetensors_close(published);
    gemma4_document *config = read_document(test_join(directory, "config.json"));
    ck_assert_str_eq(
        member(member(gemma4_document_root(config), "vision_config"), "model_type")->text,
        "gemma4_vision");
    gemma4_document_free(config);
}
END_TEST

/* --- refusals --- */

static const struct {
    gemma4_synth_options options;
    const char *message;
} REFUSED[] = {
    {{.preset = "tinny", .shards = 1},
     "expected a preset among tiny, moe128, wide256, uneven96, deep128, heads512, window1024, "
     "26b-a4b (or one of the ladder's: spec/ladder.md), found 'tinny'"},
    {{.preset = "", .shards = 1}, "found ''"},
    {{.preset = "tiny", .layers = 1001, .shards = 1}, "expected at most 1000 layers"},
    {{.preset = "tiny", .layers = SIZE_MAX, .shards = 1}, "expected at most 1000 layers"},
    {{.preset = "tiny", .vocab = 262145, .shards = 1}, "a vocabulary of at most 262144"},
    {{.preset = "tiny", .shards = 0}, "expected 1 to 12 shards, found 0"},
    {{.preset = "tiny", .shards = 13}, "expected 1 to 12 shards, found 13"},
    {{.preset = "tiny", .layers = 2, .shards = 3}, "expected 1 to 2 shards, found 3"},
    {{.preset = "wide256", .shards = 1, .vision = 1},
     "multimodal layout (tiny, heads512, 26b-a4b), found 'wide256'"},
};

START_TEST(refused_options_write_nothing)
{
    gemma4_error error = {""};
    char *parent = test_fresh_dir();
    ck_assert_int_eq(gemma4_synth(&REFUSED[_i].options, test_join(parent, "out"), &error), -1);
    assert_message_contains(&error, REFUSED[_i].message);
    ck_assert_uint_eq(entries(parent), 0);
}
END_TEST

static const gemma4_synth_options TINY = {.preset = "tiny", .seed = 3, .layers = 1, .shards = 1};

START_TEST(a_directory_under_a_file_cannot_be_made)
{
    gemma4_error error = {""};
    char *parent = test_fresh_dir(), *file = test_join(parent, "file");
    test_write_text(file, "kept");
    ck_assert_int_eq(gemma4_synth(&TINY, test_join(file, "out"), &error), -1);
    assert_message_contains(&error, "Not a directory");
    ck_assert_int_eq(gemma4_synth(&TINY, file, &error), -1);
    assert_message_contains(&error, file);
    ck_assert_uint_eq(entries(parent), 1);
}
END_TEST

START_TEST(parents_are_made)
{
    gemma4_error error = {""};
    char *directory = test_join(test_fresh_dir(), "a/b/c");
    ck_assert_msg(gemma4_synth(&TINY, directory, &error) == 0, "%s", error.message);
    ck_assert(exists(directory, "config.json") && exists(directory, "model.safetensors"));
}
END_TEST

/* A directory stands where one of the files is to appear. config.json is begun first, though it
 * appears last. */
static const struct {
    const char *obstacle;
    size_t appear; /* files that are written before */
} OBSTACLES[] = {{"model.safetensors", 0},
                 {"model.safetensors.index.json", 1},
                 {"tokenizer.json", 1},
                 {"generation_config.json", 3},
                 {"config.json", 0}};

START_TEST(a_failure_leaves_no_temporary_file_and_no_config)
{
    gemma4_error error = {""};
    char *directory = test_fresh_dir(), *obstacle = test_join(directory, OBSTACLES[_i].obstacle);
    ck_assert_int_eq(mkdir(obstacle, 0777), 0);
    test_write_text(test_join(obstacle, "x"), "");
    ck_assert_int_eq(gemma4_synth(&TINY, directory, &error), -1);
    assert_message_contains(&error, OBSTACLES[_i].obstacle);
    ck_assert(!has_temporary(directory));
    ck_assert_uint_eq(entries(directory), 1 + OBSTACLES[_i].appear);
}
END_TEST

START_TEST(a_path_that_is_too_long_is_refused)
{
    gemma4_error error = {""};
    char path[5000];
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    ck_assert_int_eq(gemma4_synth(&TINY, path, &error), -1);
    assert_message_contains(&error, "xxx");
}
END_TEST

Suite *synth_suite(void)
{
    Suite *suite = suite_create("synth");
    TCase *bytes = tcase_create("bytes"), *layouts = tcase_create("layouts"),
          *refusals = tcase_create("refusals");
    tcase_add_loop_test(bytes, weights_have_the_bits_of_the_second_implementation, 0, COUNT(BITS));
    tcase_add_loop_test(bytes, the_file_has_the_bytes_of_the_second_implementation, 0,
                        COUNT(FILES));
    tcase_add_loop_test(bytes, another_seed_gives_other_weights, 0, 3);
    tcase_add_loop_test(layouts, every_small_preset_opens_as_a_model, 0, COUNT(FILES));
    tcase_add_test(layouts, every_preset_is_listed);
    tcase_add_loop_test(layouts, layers_can_be_cut_and_extended, 0, COUNT(STACKS));
    tcase_add_test(layouts, the_vocabulary_can_be_cut);
    tcase_add_loop_test(layouts, shards_hold_the_tensors_of_the_one_file, 0, COUNT(SHARDS));
    tcase_add_test(layouts, a_checkpoint_in_shards_opens_as_a_model);
    tcase_add_test(layouts, one_file_replaces_shards);
    tcase_add_loop_test(layouts, the_committed_checkpoint_has_what_this_program_writes, 0,
                        COUNT(BESIDE));
    tcase_add_loop_test(layouts, every_id_has_a_text_and_every_pair_a_merge, 0,
                        COUNT(VOCABULARIES));
    tcase_add_test(layouts, a_vision_tower_lies_beside_the_same_decoder);
    tcase_add_loop_test(refusals, refused_options_write_nothing, 0, COUNT(REFUSED));
    tcase_add_test(refusals, a_directory_under_a_file_cannot_be_made);
    tcase_add_test(refusals, parents_are_made);
    tcase_add_loop_test(refusals, a_failure_leaves_no_temporary_file_and_no_config, 0,
                        COUNT(OBSTACLES));
    tcase_add_test(refusals, a_path_that_is_too_long_is_refused);
    suite_add_tcase(suite, bytes);
    suite_add_tcase(suite, layouts);
    suite_add_tcase(suite, refusals);
    return suite;
}
