/* GGUF files that are refused: one line, nothing written, nothing read beyond the file. */
#include "dequantise.h"
#include "gguf.h"
#include "gguf_maker.h"
#include "model.h"
#include "suites.h"
#include "support.h"

#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

static gemma4_model *tiny;

static void open_tiny(void)
{
    gemma4_error error = {""};
    tiny = gemma4_model_open("golden/checkpoints/tiny", &error);
    ck_assert_msg(tiny != NULL, "%s", error.message);
}

static void close_tiny(void)
{
    gemma4_model_close(tiny);
}

static const float some_floats[64];

#define CHANGE(name) static void name(gguf_maker *m)
CHANGE(other_magic)
{
    m->magic = 0x12345678;
}
CHANGE(version_1)
{
    m->version = 1;
}
CHANGE(version_4)
{
    m->version = 4;
}
CHANGE(big_endian)
{
    m->version = 0x03000000;
}
CHANGE(too_many_values)
{
    m->value_count = INT64_MAX;
}
CHANGE(more_values)
{
    m->value_count = (int64_t)m->values_used + 40000;
}
CHANGE(too_many_tensors)
{
    m->tensor_count = INT64_MAX;
}
CHANGE(more_tensors)
{
    m->tensor_count = (int64_t)m->tensors_used + 100000;
}
CHANGE(cut_data)
{
    m->cut = 1;
}
CHANGE(long_key)
{
    gguf_maker_set_int(m, "x", 1);
    memset(gguf_maker_find_value(m, "x")->key, 'k', 280);
}
CHANGE(empty_key)
{
    gguf_maker_set_int(m, "", 1);
}
CHANGE(type_13)
{
    memcpy(gguf_maker_find_value(m, "gemma4.block_count")->bytes, &(uint32_t){13}, 4);
}
CHANGE(type_of_items)
{
    gguf_maker_set_array(m, "x", 99, "", 0, 1);
}
CHANGE(nested_array)
{
    gguf_maker_set_array(m, "x", 9, "", 0, 1);
}
CHANGE(long_array)
{
    memcpy(gguf_maker_find_value(m, "gemma4.attention.head_count_kv")->bytes + 8,
           &(uint64_t){UINT64_MAX}, 8);
}
CHANGE(long_string_array)
{
    gguf_maker_set_array(m, "x", 8, "", 0, 1);
    memcpy(gguf_maker_find_value(m, "x")->bytes + 8, &(uint64_t){UINT64_MAX / 2}, 8);
}
CHANGE(long_string)
{
    memcpy(gguf_maker_find_value(m, "general.architecture")->bytes + 4, &(uint64_t){UINT64_MAX}, 8);
}
CHANGE(key_twice)
{
    gguf_maker_set_int(m, "x", 1);
    gguf_maker_set_int(m, "y", 1);
    strcpy(gguf_maker_find_value(m, "x")->key, "y");
}
CHANGE(name_twice)
{
    strcpy(gguf_maker_find_tensor(m, "blk.0.attn_norm.weight")->name, "blk.1.attn_norm.weight");
}
CHANGE(no_axes)
{
    gguf_maker_find_tensor(m, "output_norm.weight")->rank = 0;
}
CHANGE(five_axes)
{
    gguf_maker_find_tensor(m, "output_norm.weight")->rank = 5;
}
CHANGE(huge_rank)
{
    gguf_maker_find_tensor(m, "output_norm.weight")->rank = UINT32_MAX;
}
CHANGE(empty_axis)
{
    gguf_maker_find_tensor(m, "output_norm.weight")->shape[0] = 0;
}
CHANGE(shape_overflows)
{
    gguf_maker_tensor *t = gguf_maker_find_tensor(m, "token_embd.weight");
    t->shape[0] = t->shape[1] = (uint64_t)1 << 62;
}
CHANGE(shape_wraps)
{
    /* 2^63 values of two bytes: 0 bytes */
    gguf_maker_tensor *t = gguf_maker_find_tensor(m, "token_embd.weight");
    t->shape[0] = (uint64_t)1 << 32;
    t->shape[1] = (uint64_t)1 << 31;
}
CHANGE(unknown_type)
{
    gguf_maker_find_tensor(m, "token_embd.weight")->type = 16;
}
CHANGE(huge_type)
{
    gguf_maker_find_tensor(m, "token_embd.weight")->type = UINT32_MAX;
}
CHANGE(part_of_a_block)
{
    gguf_maker_find_tensor(m, "blk.0.ffn_down_exps.weight")->type = 12;
}
CHANGE(offset_outside)
{
    gguf_maker_find_tensor(m, "output_norm.weight")->offset = INT64_MAX - 31;
}
CHANGE(offset_misaligned)
{
    gguf_maker_find_tensor(m, "output_norm.weight")->offset = 8;
}
CHANGE(overlap)
{
    gguf_maker_find_tensor(m, "output_norm.weight")->offset = 0;
}
CHANGE(alignment_3)
{
    gguf_maker_set_int(m, "general.alignment", 33);
}
CHANGE(alignment_huge)
{
    gguf_maker_set_int(m, "general.alignment", 1u << 31);
}
CHANGE(alignment_text)
{
    gguf_maker_set_string(m, "general.alignment", "32");
}
CHANGE(other_architecture)
{
    gguf_maker_set_string(m, "general.architecture", "gemma3\n");
}
CHANGE(one_of_three)
{
    gguf_maker_set_int(m, "split.count", 3);
}
CHANGE(unknown_key)
{
    gguf_maker_set_float(m, "gemma4.attention.scale", 2);
}
CHANGE(scaled_rope)
{
    gguf_maker_set_string(m, "gemma4.rope.scaling.type", "yarn");
}
CHANGE(per_layer_inputs)
{
    gguf_maker_set_int(m, "gemma4.embedding_length_per_layer_input", 256);
}
CHANGE(dense)
{
    gguf_maker_set_int(m, "gemma4.expert_count", 0);
}
CHANGE(no_layers)
{
    gguf_maker_set_int(m, "gemma4.block_count", 0);
}
CHANGE(other_layers)
{
    gguf_maker_set_int(m, "gemma4.block_count", 11);
}
CHANGE(many_layers)
{
    gguf_maker_set_int(m, "gemma4.block_count", UINT32_MAX);
}
CHANGE(text_for_a_number)
{
    gguf_maker_set_string(m, "gemma4.embedding_length", "64");
}
CHANGE(array_for_a_number)
{
    gguf_maker_set_array(m, "gemma4.embedding_length", 4, some_floats, 12, 4);
}
CHANGE(eps_nan)
{
    gguf_maker_set_float(m, "gemma4.attention.layer_norm_rms_epsilon", NAN);
}
CHANGE(uneven_heads)
{
    int32_t heads = 4;
    memcpy(gguf_maker_find_value(m, "gemma4.attention.head_count_kv")->bytes + 16, &heads,
           sizeof heads);
}
CHANGE(missing_key)
{
    strcpy(gguf_maker_find_value(m, "gemma4.rope.freq_base")->key, "x");
}
CHANGE(missing_tensor)
{
    gguf_maker_remove_tensor(m, "blk.3.ffn_gate.weight");
}
CHANGE(missing_up)
{
    gguf_maker_tensor *t = gguf_maker_find_tensor(m, "blk.3.ffn_gate_up_exps.weight");
    strcpy(t->name, "blk.3.ffn_gate_exps.weight");
    t->shape[1] /= 2;
    t->size /= 2;
}
CHANGE(missing_table)
{
    gguf_maker_remove_tensor(m, "token_embd.weight");
}
CHANGE(extra_tensor)
{
    gguf_maker_add_tensor(m, "blk.12.attn_q.weight", 0, 1, &(uint64_t){64}, some_floats,
                          sizeof some_floats);
}
CHANGE(other_head)
{
    gguf_maker_add_tensor(m, "output.weight", 0, 1, &(uint64_t){64}, some_floats,
                          sizeof some_floats);
}
CHANGE(transposed)
{
    gguf_maker_tensor *t = gguf_maker_find_tensor(m, "blk.0.attn_k.weight");
    uint64_t first = t->shape[0];
    t->shape[0] = t->shape[1];
    t->shape[1] = first;
}
CHANGE(quantised_norm)
{
    gguf_maker_tensor *t = gguf_maker_find_tensor(m, "output_norm.weight");
    t->type = 8;
    t->size = 68;
}
CHANGE(scale_of_bf16)
{
    gguf_maker_add_tensor(m, "blk.0.attn_q.scale", 30, 1, &(uint64_t){1}, some_floats, 2);
}
CHANGE(scale_too_long)
{
    gguf_maker_add_tensor(m, "blk.0.attn_q.scale", 0, 1, &(uint64_t){3}, some_floats, 12);
}
CHANGE(other_factors)
{
    gguf_maker_find_tensor(m, "rope_freqs.weight")->data = some_floats;
}
CHANGE(short_factors)
{
    gguf_maker_find_tensor(m, "rope_freqs.weight")->shape[0] = 8;
    gguf_maker_find_tensor(m, "rope_freqs.weight")->size = 32;
}
CHANGE(some_layers_with_v)
{
    gguf_maker_tensor v = *gguf_maker_find_tensor(m, "blk.5.attn_k.weight");
    gguf_maker_add_tensor(m, "blk.5.attn_v.weight", v.type, v.rank, v.shape, v.data, v.size);
}

static const struct {
    void (*change)(gguf_maker *m);
    const char *message;
} REFUSED[] = {
    {other_magic, "model.gguf: expected a folder with config.json, or a GGUF file, found a file of "
                  "another kind"},
    {version_1, "expected GGUF version 2 or 3, found 1"},
    {version_4, "expected GGUF version 2 or 3, found 4"},
    {big_endian, "expected a little-endian GGUF file, found a big-endian one"},
    {too_many_values,
     "expected at most 65536 keys of metadata, found a count of 9223372036854775807"},
    {more_values, "metadata "},
    {too_many_tensors, "expected at most 131072 tensors, found a count of 9223372036854775807"},
    {more_tensors, "tensor "},
    {cut_data, "bytes of data from offset"},
    {long_key, "expected a name of 1 to 255 bytes, none of them 0, found another one"},
    {empty_key, "expected a name of 1 to 255 bytes"},
    {type_13, "gemma4.block_count: expected a type of 0 to 12, found 13"},
    {type_of_items, "x: expected a type of 0 to 12 but 9, no arrays of arrays, found 99"},
    {nested_array, "x: expected a type of 0 to 12 but 9, no arrays of arrays, found 9"},
    {long_array, "expected 18446744073709551615 bytes more in the file"},
    {long_string_array, "bytes more in the file, found"},
    {long_string, "expected 18446744073709551615 bytes more in the file"},
    {key_twice, "y: expected every key once, found it twice"},
    {name_twice, "blk.1.attn_norm.weight: expected every tensor once, found it twice"},
    {no_axes, "output_norm.weight: expected 1 to 4 axes, none of them empty, found others"},
    {five_axes, "output_norm.weight: expected 1 to 4 axes"},
    {huge_rank, "output_norm.weight: expected 1 to 4 axes"},
    {empty_axis, "output_norm.weight: expected 1 to 4 axes"},
    {shape_overflows,
     "token_embd.weight: expected a shape that fits into memory, found one that overflows"},
    {shape_wraps,
     "token_embd.weight: expected a shape that fits into memory, found one that overflows"},
    {unknown_type, "NVFP4; found number 16"},
    {huge_type, "token_embd.weight: expected a type among F32, F16, BF16, Q4_0"},
    {part_of_a_block, "blk.0.ffn_down_exps.weight: expected rows of a multiple of 256 values, as "
                      "Q4_K has them, found 32"},
    {offset_outside,
     "output_norm.weight: expected 128 bytes of data from offset 9223372036854775776"},
    {offset_misaligned,
     "output_norm.weight: expected data at a multiple of 32 bytes, found the offset 8"},
    {overlap, "expected data of its own, found an overlap with"},
    {alignment_3, "general.alignment: expected a power of two, found a uint32"},
    {alignment_huge, "general.alignment: expected an integer from 8 to 1048576, found 2147483648"},
    {alignment_text, "general.alignment: expected an integer from 8 to 1048576, found \"32\""},
    {other_architecture, "general.architecture: expected \"gemma4\", found \"gemma3?\""},
    {one_of_three,
     "split.count: expected one file, found one of 3: join them with llama-gguf-split --merge"},
    {unknown_key, "gemma4.attention.scale: expected only keys whose meaning this version knows"},
    {scaled_rope, "gemma4.rope.scaling.type: expected \"none\", found \"yarn\""},
    {per_layer_inputs, "hidden_size_per_layer_input: expected an integer from 0 to 0, found 256"},
    {dense,
     "expected a model with experts (gemma4.expert_count), as 26B-A4B is, found one without"},
    {no_layers, "gemma4.block_count: expected 1 to 1024, found 0"},
    {other_layers, "gemma4.attention.sliding_window_pattern: expected an array of 11 booleans, "
                   "found an array of 12 bool"},
    {many_layers, "gemma4.block_count: expected an integer from 0 to 2147483647, found 4294967295"},
    {text_for_a_number,
     "gemma4.embedding_length: expected an integer from 0 to 2147483647, found \"64\""},
    {array_for_a_number,
     "gemma4.embedding_length: expected one number, found an array of 12 uint32"},
    {eps_nan, "gemma4.attention.layer_norm_rms_epsilon: expected a finite number, found a float32"},
    {uneven_heads, "gemma4.attention.head_count_kv: expected the same in all layers with a window, "
                   "found 4 in layer 0 and 2 in layer 1"},
    {missing_key, "expected the key gemma4.rope.freq_base, found none"},
    {missing_tensor, "expected the tensor ffn_gate.weight in layer 3, found none"},
    {missing_up, "expected the tensor ffn_up_exps.weight in layer 3, found none"},
    {missing_table, "token_embd.weight: expected a tensor with two axes, found none"},
    {extra_tensor,
     "blk.12.attn_q.weight: expected only the tensors that the metadata imply, found this one too"},
    {other_head,
     "output.weight: expected a copy of token_embd.weight (tied embeddings), found another tensor"},
    {transposed, "blk.0.attn_k.weight: expected shape [32, 64], found [64, 32]"},
    {quantised_norm, "output_norm.weight: expected F32, F16 or BF16, found Q8_0"},
    {scale_of_bf16, "blk.0.attn_q.scale: expected [1] or [1] F32, found another tensor"},
    {scale_too_long, "blk.0.attn_q.scale: expected [1] or [1] F32, found another tensor"},
    {other_factors,
     "rope_freqs.weight: expected 1 for the pairs that rotate, then 1e30, found 0 at 0"},
    {short_factors, "rope_freqs.weight: expected a tensor of [16] F32, found another one"},
    {some_layers_with_v,
     "expected attn_v in all 2 layers without a window or in none of them, found it in 1"},
};

START_TEST(hostile_files_are_refused)
{
    char *path = test_join(test_fresh_dir(), "model.gguf");
    gguf_maker *m = gguf_maker_tiny(tiny);
    gemma4_error error = {""};
    REFUSED[_i].change(m);
    gguf_maker_write(m, path);
    gemma4_model *model = gemma4_model_open(path, &error);
    ck_assert_msg(model == NULL, "it was read; expected: %s", REFUSED[_i].message);
    assert_message_contains(&error, REFUSED[_i].message);
    assert_message_contains(&error, "model.gguf");
    char *out = test_join(test_fresh_dir(), "out");
    struct stat status;
    ck_assert_int_eq(gemma4_dequantise(path, out, &error), -1);
    ck_assert_int_ne(stat(out, &status), 0);
    free(m);
}
END_TEST

/* A header that is cut anywhere, and one with any byte changed, is refused or read, and nothing
 * else. */
START_TEST(cut_and_changed_headers_do_no_harm)
{
    char *path = test_join(test_fresh_dir(), "model.gguf");
    gguf_maker *m = gguf_maker_empty();
    gemma4_error error;
    gguf_maker_set_int(m, "general.alignment", 32);
    gguf_maker_set_array(m, "x", 4, some_floats, 2, 4);
    gguf_maker_add_tensor(m, "t", 8, 2, (const uint64_t[]){32, 2}, some_floats, 68);
    gguf_maker_write(m, path);
    struct stat status;
    ck_assert_int_eq(stat(path, &status), 0);
    size_t size = (size_t)status.st_size, opened = 0;
    unsigned char bytes[1024];
    memcpy(bytes, test_read(path), size);
    for (size_t length = 0; length <= size; length++) {
        test_write(path, bytes, length);
        gemma4_gguf *gguf = gemma4_gguf_open(path, &error);
        ck_assert_int_eq(gguf != NULL, length == size);
        gemma4_gguf_close(gguf);
    }
    for (size_t i = 0; i < size; i++)
        for (unsigned flip = 1; flip <= 255; flip = flip * 2 + 1) {
            bytes[i] ^= (unsigned char)flip;
            test_write(path, bytes, size);
            gemma4_gguf *gguf = gemma4_gguf_open(path, &error);
            opened += gguf != NULL;
            gemma4_gguf_close(gguf);
            bytes[i] ^= (unsigned char)flip;
        }
    ck_assert_uint_gt(opened, 100); /* names, data, padding */
    free(m);
}
END_TEST

Suite *gguf_hostile_suite(void)
{
    Suite *suite = suite_create("gguf_hostile");
    TCase *all = tcase_create("all");
    tcase_add_unchecked_fixture(all, open_tiny, close_tiny);
    tcase_add_loop_test(all, hostile_files_are_refused, 0, (int)COUNT(REFUSED));
    tcase_add_test(all, cut_and_changed_headers_do_no_harm);
    suite_add_tcase(suite, all);
    return suite;
}
