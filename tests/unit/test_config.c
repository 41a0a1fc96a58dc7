#include <stdio.h>

#include "config.h"
#include "suites.h"
#include "support.h"

/* The keys of the published config.json of Gemma 4 26B-A4B. */
static const char PUBLISHED[] =
    "{\n"
    "  \"architectures\": [\"Gemma4ForConditionalGeneration\"],\n"
    "  \"audio_config\": null,\n"
    "  \"dtype\": \"bfloat16\",\n"
    "  \"eos_token_id\": [1, 106],\n"
    "  \"image_token_id\": 258880,\n"
    "  \"model_type\": \"gemma4\",\n"
    "  \"text_config\": {\n"
    "    \"attention_bias\": false,\n"
    "    \"attention_dropout\": 0.0,\n"
    "    \"attention_k_eq_v\": true,\n"
    "    \"bos_token_id\": 2,\n"
    "    \"dtype\": \"bfloat16\",\n"
    "    \"enable_moe_block\": true,\n"
    "    \"eos_token_id\": 1,\n"
    "    \"final_logit_softcapping\": 30.0,\n"
    "    \"global_head_dim\": 512,\n"
    "    \"head_dim\": 256,\n"
    "    \"hidden_activation\": \"gelu_pytorch_tanh\",\n"
    "    \"hidden_size\": 2816,\n"
    "    \"hidden_size_per_layer_input\": 0,\n"
    "    \"initializer_range\": 0.02,\n"
    "    \"intermediate_size\": 2112,\n"
    "    \"layer_types\": [\n"
#define FIVE_TO_ONE                                                                                \
    "\"sliding_attention\", \"sliding_attention\", \"sliding_attention\", \"sliding_attention\", " \
    "\"sliding_attention\", "                                                                      \
    "\"full_attention\""
    FIVE_TO_ONE ",\n" FIVE_TO_ONE ",\n" FIVE_TO_ONE ",\n" FIVE_TO_ONE ",\n" FIVE_TO_ONE "],\n"
    "    \"max_position_embeddings\": 262144,\n"
    "    \"model_type\": \"gemma4_text\",\n"
    "    \"moe_intermediate_size\": 704,\n"
    "    \"num_attention_heads\": 16,\n"
    "    \"num_experts\": 128,\n"
    "    \"num_global_key_value_heads\": 2,\n"
    "    \"num_hidden_layers\": 30,\n"
    "    \"num_key_value_heads\": 8,\n"
    "    \"num_kv_shared_layers\": 0,\n"
    "    \"pad_token_id\": 0,\n"
    "    \"rms_norm_eps\": 1e-06,\n"
    "    \"rope_parameters\": {\n"
    "      \"full_attention\": {\"partial_rotary_factor\": 0.25, \"rope_theta\": 1000000.0, "
    "\"rope_type\": \"proportional\"},\n"
    "      \"sliding_attention\": {\"rope_theta\": 10000.0, \"rope_type\": \"default\"}\n"
    "    },\n"
    "    \"sliding_window\": 1024,\n"
    "    \"tie_word_embeddings\": true,\n"
    "    \"top_k_experts\": 8,\n"
    "    \"use_bidirectional_attention\": \"vision\",\n"
    "    \"use_cache\": true,\n"
    "    \"use_double_wide_mlp\": false,\n"
    "    \"vocab_size\": 262144,\n"
    "    \"vocab_size_per_layer_input\": 262144\n"
    "  },\n"
    "  \"tie_word_embeddings\": true,\n"
    "  \"transformers_version\": \"5.5.0\",\n"
    "  \"vision_config\": {\"hidden_size\": 1152, \"rope_parameters\": {\"rope_theta\": 100.0, "
    "\"rope_type\": \"axial\"}}\n"
    "}\n";

static int read_text(const char *text, gemma4_config *config, gemma4_error *error)
{
    char *path = test_join(test_fresh_dir(), "config.json");
    test_write_text(path, text);
    return gemma4_config_read(path, config, error);
}

static gemma4_config read_valid(const char *text)
{
    gemma4_error error = {""};
    gemma4_config config;
    ck_assert_msg(read_text(text, &config, &error) == 0, "%s", error.message);
    return config;
}

static void assert_layer(const gemma4_layer_config *layer, gemma4_layer_kind kind, size_t heads,
                         size_t head_dim, bool v_is_k, double theta, size_t pairs)
{
    ck_assert_int_eq(layer->kind, kind);
    ck_assert_uint_eq(layer->num_key_value_heads, heads);
    ck_assert_uint_eq(layer->head_dim, head_dim);
    ck_assert_int_eq(layer->v_is_k, v_is_k);
    ck_assert_double_eq(layer->rope_theta, theta);
    ck_assert_uint_eq(layer->rope_pairs, pairs);
}

static void assert_published(const gemma4_config *config)
{
    ck_assert_uint_eq(config->hidden_size, 2816);
    ck_assert_uint_eq(config->num_hidden_layers, 30);
    ck_assert_uint_eq(config->num_attention_heads, 16);
    ck_assert_uint_eq(config->intermediate_size, 2112);
    ck_assert_uint_eq(config->num_experts, 128);
    ck_assert_uint_eq(config->top_k_experts, 8);
    ck_assert_uint_eq(config->moe_intermediate_size, 704);
    ck_assert_uint_eq(config->vocab_size, 262144);
    ck_assert_uint_eq(config->sliding_window, 1024);
    ck_assert_uint_eq(config->max_position_embeddings, 262144);
    ck_assert_double_eq(config->rms_norm_eps, 1e-6);
    ck_assert_double_eq(config->final_logit_softcapping, 30);
    for (size_t i = 0; i < 30; i++) {
        if (i % 6 == 5)
            assert_layer(&config->layers[i], GEMMA4_FULL, 2, 512, true, 1e6, 64);
        else
            assert_layer(&config->layers[i], GEMMA4_SLIDING, 8, 256, false, 1e4, 128);
    }
}

START_TEST(published_config)
{
    gemma4_config config = read_valid(PUBLISHED);
    assert_published(&config);
    gemma4_config_free(&config);
    ck_assert_ptr_null(config.layers);
}
END_TEST

/* Edits of the published config.json that describe the same model. */
static const struct {
    const char *old, *replacement;
} SAME_MODEL[] = {
    {"\"layer_types\": [", "\"layer_types\": null, \"x\": ["},
    {"\"layer_types\": [", "\"x\": ["},
    {"\"rope_parameters\": {\n      \"full", "\"rope_parameters\": null, \"x\": {\n      \"full"},
    {"\"use_bidirectional_attention\": \"vision\"", "\"use_bidirectional_attention\": null"},
    {"\"global_head_dim\": 512,", ""},
    {"    \"head_dim\": 256,", ""},
    {"\"num_kv_shared_layers\": 0,", ""},
    {"\"rms_norm_eps\": 1e-06,", ""},
    {"\"hidden_activation\": \"gelu_pytorch_tanh\",", ""},
    {"\"vocab_size\": 262144,", ""},
    {"\"model_type\": \"gemma4_text\",", ""},
    {"\"dtype\": \"bfloat16\",", "\"quantization_config\": null,"},
    {"\"rope_theta\": 10000.0, \"rope_type\": \"default\"", "\"rope_theta\": 1e4"},
    {"\"rope_type\": \"default\"",
     "\"rope_type\": \"default\", \"factor\": 1.0, \"partial_rotary_factor\": 1.0"},
    {"\"rope_type\": \"default\"", "\"rope_type\": \"proportional\""},
    /* With per_layer_config, zero-padded as transformers writes it, the global_ keys say
     * nothing. */
    {"\"global_head_dim\": 512,", "\"global_head_dim\": 64, \"per_layer_config\": {\"05\": "
                                  "{\"head_dim\": 512, \"num_key_value_heads\": 2}, "
                                  "\"11\": {\"head_dim\": 512, \"num_key_value_heads\": 2}, "
                                  "\"17\": {\"head_dim\": 512, \"num_key_value_heads\": 2}, "
                                  "\"23\": {\"head_dim\": 512, \"num_key_value_heads\": 2}, "
                                  "\"29\": {\"head_dim\": 512, \"num_key_value_heads\": 2}},"},
};

START_TEST(same_model)
{
    gemma4_config config =
        read_valid(test_replace(PUBLISHED, SAME_MODEL[_i].old, SAME_MODEL[_i].replacement));
    assert_published(&config);
    gemma4_config_free(&config);
}
END_TEST

START_TEST(text_only_layout)
{
    gemma4_config config = read_valid(test_tiny_config);
    ck_assert_uint_eq(config.num_hidden_layers, 6);
    assert_layer(&config.layers[4], GEMMA4_SLIDING, 2, 8, false, 1e4, 4);
    assert_layer(&config.layers[5], GEMMA4_FULL, 1, 16, true, 1e6, 2);
    gemma4_config_free(&config);
}
END_TEST

START_TEST(class_defaults)
{
    gemma4_config config =
        read_valid("{\"model_type\": \"gemma4_text\", \"hidden_size_per_layer_input\": 0, "
                   "\"enable_moe_block\": true, \"num_experts\": 4, \"top_k_experts\": 4, "
                   "\"moe_intermediate_size\": 8}");
    ck_assert_uint_eq(config.hidden_size, 2304);
    ck_assert_uint_eq(config.num_hidden_layers, 30);
    ck_assert_uint_eq(config.num_attention_heads, 8);
    ck_assert_uint_eq(config.intermediate_size, 9216);
    ck_assert_uint_eq(config.vocab_size, 262144);
    ck_assert_uint_eq(config.sliding_window, 512);
    ck_assert_uint_eq(config.max_position_embeddings, 131072);
    ck_assert_double_eq(config.rms_norm_eps, 1e-6);
    ck_assert_double_eq(config.final_logit_softcapping, 0);
    assert_layer(&config.layers[0], GEMMA4_SLIDING, 4, 256, false, 1e4, 128);
    assert_layer(&config.layers[29], GEMMA4_FULL, 4, 512, false, 1e6, 64);
    gemma4_config_free(&config);
}
END_TEST

START_TEST(default_pattern_ends_full)
{
    gemma4_config config = read_valid(
        test_replace(test_tiny_config, "\"num_hidden_layers\": 6", "\"num_hidden_layers\": 8"));
    for (size_t i = 0; i < 8; i++)
        ck_assert_int_eq(config.layers[i].kind, i == 5 || i == 7 ? GEMMA4_FULL : GEMMA4_SLIDING);
    gemma4_config_free(&config);
}
END_TEST

START_TEST(softcapping_may_be_null)
{
    gemma4_config config = read_valid(test_replace(test_tiny_config, "30.0", "null"));
    ck_assert_double_eq(config.final_logit_softcapping, 0);
    gemma4_config_free(&config);
}
END_TEST

/* num_global_key_value_heads counts only where V is K. */
START_TEST(without_k_eq_v)
{
    gemma4_config config = read_valid(test_replace(test_tiny_config, "\"attention_k_eq_v\": true",
                                                   "\"attention_k_eq_v\": false"));
    assert_layer(&config.layers[5], GEMMA4_FULL, 2, 16, false, 1e6, 2);
    gemma4_config_free(&config);
}
END_TEST

START_TEST(null_global_heads)
{
    gemma4_config config =
        read_valid(test_replace(test_tiny_config, "\"num_global_key_value_heads\": 1",
                                "\"num_global_key_value_heads\": null"));
    assert_layer(&config.layers[5], GEMMA4_FULL, 2, 16, true, 1e6, 2);
    gemma4_config_free(&config);
}
END_TEST

/* An override holds for a layer of any kind; what is not overridden is the same in every layer. */
START_TEST(per_layer_config)
{
    gemma4_config config =
        read_valid(test_replace(test_tiny_config, "\"model_type\"",
                                "\"per_layer_config\": {\"1\": {\"head_dim\": 4}, \"005\": "
                                "{\"num_key_value_heads\": 4}, \"3\": {}}, \"model_type\""));
    assert_layer(&config.layers[0], GEMMA4_SLIDING, 2, 8, false, 1e4, 4);
    assert_layer(&config.layers[1], GEMMA4_SLIDING, 2, 4, false, 1e4, 2);
    assert_layer(&config.layers[3], GEMMA4_SLIDING, 2, 8, false, 1e4, 4);
    assert_layer(&config.layers[5], GEMMA4_FULL, 4, 8, true, 1e6, 1);
    gemma4_config_free(&config);
}
END_TEST

START_TEST(null_per_layer_config)
{
    gemma4_config config = read_valid(test_replace(test_tiny_config, "\"model_type\"",
                                                   "\"per_layer_config\": null, \"model_type\""));
    assert_layer(&config.layers[5], GEMMA4_FULL, 2, 8, true, 1e6, 1);
    gemma4_config_free(&config);
}
END_TEST

#define ROPE(sliding, full)                                                   \
    "\"model_type\"", "\"rope_parameters\": {\"sliding_attention\": " sliding \
                      ", \"full_attention\": " full "}, \"model_type\""
#define SLIDING_ROPE "{\"rope_type\": \"default\", \"rope_theta\": 10000.0}"
#define FULL_ROPE \
    "{\"rope_type\": \"proportional\", \"rope_theta\": 1e6, \"partial_rotary_factor\": 0.25}"

static const struct {
    const char *old, *replacement;
    size_t sliding_pairs, full_pairs;
} ROPES[] = {
    {ROPE(SLIDING_ROPE, FULL_ROPE), 4, 2},
    {ROPE(SLIDING_ROPE, "{\"rope_type\": \"proportional\", \"rope_theta\": 1e6}"), 4, 8},
    {ROPE(SLIDING_ROPE, "{\"rope_type\": \"default\", \"rope_theta\": 1e6}"), 4, 8},
    {ROPE(SLIDING_ROPE,
          "{\"rope_type\": \"proportional\", \"rope_theta\": 1e6, \"partial_rotary_factor\": 0}"),
     4, 0},
    {ROPE(SLIDING_ROPE, "{\"rope_type\": \"proportional\", \"rope_theta\": 1e6, "
                        "\"partial_rotary_factor\": 0.999}"),
     4, 7},
    {ROPE("{\"rope_type\": \"proportional\", \"rope_theta\": 1e4, \"partial_rotary_factor\": 0.5}",
          FULL_ROPE),
     2, 2},
};

START_TEST(rope)
{
    gemma4_config config =
        read_valid(test_replace(test_tiny_config, ROPES[_i].old, ROPES[_i].replacement));
    ck_assert_uint_eq(config.layers[0].rope_pairs, ROPES[_i].sliding_pairs);
    ck_assert_uint_eq(config.layers[5].rope_pairs, ROPES[_i].full_pairs);
    gemma4_config_free(&config);
}
END_TEST

/* A model without sliding layers needs no sliding_attention entry. */
START_TEST(rope_of_absent_kind)
{
    const char *text = test_replace(test_tiny_config, "\"model_type\"",
                                    "\"layer_types\": [\"full_attention\"], \"rope_parameters\": "
                                    "{\"full_attention\": " FULL_ROPE "}, \"model_type\"");
    gemma4_config config =
        read_valid(test_replace(text, "\"num_hidden_layers\": 6", "\"num_hidden_layers\": 1"));
    assert_layer(&config.layers[0], GEMMA4_FULL, 1, 16, true, 1e6, 2);
    gemma4_config_free(&config);
}
END_TEST

/* --- hostile and unsupported --- */

#define ADD(key_and_value) "\"model_type\"", key_and_value ", \"model_type\""

/* Mutations of the tiny, text-only config. */
static const struct {
    const char *old, *replacement, *expected;
} REFUSED[] = {
    {"\"gemma4_text\"", "\"gemma3_text\"",
     "config.json:1: model_type: expected gemma4 or gemma4_text, found \"gemma3_text\""},
    {"\"model_type\": \"gemma4_text\",", "", "expected the key \"model_type\""},
    {"\"gemma4_text\"", "\"gemma4\"", "expected the key \"text_config\", found none"},
    {"\"gemma4_text\"", "[]", "model_type: expected a string, found a sequence"},
    {",\n \"hidden_size_per_layer_input\": 0", "",
     "hidden_size_per_layer_input: expected 0 (no per-layer embeddings), found the key absent, "
     "which means 256"},
    {"\"hidden_size_per_layer_input\": 0", "\"hidden_size_per_layer_input\": 256",
     "hidden_size_per_layer_input: expected an integer from 0 to 0, found 256"},
    {ADD("\"num_kv_shared_layers\": 2"),
     "num_kv_shared_layers: expected an integer from 0 to 0, found 2"},
    {"\"enable_moe_block\": true,", "",
     "enable_moe_block: expected true, found the key absent, which means false"},
    {"\"enable_moe_block\": true", "\"enable_moe_block\": false",
     "enable_moe_block: expected true, found false"},
    {"\"enable_moe_block\": true", "\"enable_moe_block\": 1",
     "enable_moe_block: expected true or false, found 1"},
    {ADD("\"use_double_wide_mlp\": true"), "use_double_wide_mlp: expected false, found true"},
    {ADD("\"hidden_activation\": \"gelu\""),
     "hidden_activation: expected gelu_pytorch_tanh, found \"gelu\""},
    {ADD("\"hidden_activation\": null"),
     "hidden_activation: expected gelu_pytorch_tanh, found null"},
    {ADD("\"hidden_activation\": {}"),
     "hidden_activation: expected gelu_pytorch_tanh, found a mapping"},
    {ADD("\"attention_bias\": true"), "attention_bias: expected false, found true"},
    {ADD("\"tie_word_embeddings\": false"), "tie_word_embeddings: expected true, found false"},
    {ADD("\"use_bidirectional_attention\": \"all\""),
     "use_bidirectional_attention: expected vision, found \"all\""},
    {ADD("\"quantization_config\": {\"bits\": 4}"),
     "quantization_config: expected no quantization, found a mapping"},
    {"\"hidden_size\": 16", "\"hidden_size\": 0",
     "hidden_size: expected an integer from 1 to 262144, found 0"},
    {"\"hidden_size\": 16", "\"hidden_size\": 262145", "hidden_size: expected an integer from 1"},
    {"\"hidden_size\": 16", "\"hidden_size\": -16", "hidden_size: expected an integer from 1"},
    {"\"hidden_size\": 16", "\"hidden_size\": 16.0", "hidden_size: expected an integer from 1"},
    {"\"hidden_size\": 16", "\"hidden_size\": null", "hidden_size: expected an integer from 1"},
    {"\"hidden_size\": 16", "\"hidden_size\": \"16\"", "hidden_size: expected an integer from 1"},
    {"\"hidden_size\": 16", "\"hidden_size\": 18446744073709551632",
     "hidden_size: expected an integer from 1"},
    {"\"num_hidden_layers\": 6", "\"num_hidden_layers\": 0",
     "num_hidden_layers: expected an integer from 1"},
    {"\"num_hidden_layers\": 6", "\"num_hidden_layers\": 1025",
     "num_hidden_layers: expected an integer from 1 to 1024"},
    {"\"num_attention_heads\": 4", "\"num_attention_heads\": 1025",
     "num_attention_heads: expected an integer"},
    {"\"vocab_size\": 32", "\"vocab_size\": 16777217", "vocab_size: expected an integer"},
    {"\"sliding_window\": 4", "\"sliding_window\": 0",
     "sliding_window: expected an integer from 1"},
    {"\"max_position_embeddings\": 64", "\"max_position_embeddings\": 0",
     "max_position_embeddings: expected an integer"},
    {"\"num_experts\": 4,", "", "expected the key \"num_experts\", found none"},
    {"\"num_experts\": 4", "\"num_experts\": null", "num_experts: expected an integer"},
    {"\"top_k_experts\": 2,", "", "expected the key \"top_k_experts\""},
    {"\"top_k_experts\": 2", "\"top_k_experts\": 5",
     "top_k_experts: expected at most num_experts, found 5"},
    {"\"moe_intermediate_size\": 8,", "", "expected the key \"moe_intermediate_size\""},
    {"1e-06", "0", "rms_norm_eps: expected a number between 0 and 1, both excluded, found 0"},
    {"1e-06", "1.0", "rms_norm_eps: expected a number between 0 and 1"},
    {"1e-06", "-1e-6", "rms_norm_eps: expected a number from 0 to 1, found -1e-6"},
    {"1e-06", "nan", "rms_norm_eps: expected a number"},
    {"30.0", "0", "final_logit_softcapping: expected a number above 0, or null, found 0"},
    {"30.0", "-30.0", "final_logit_softcapping: expected a number"},
    {"30.0", "1e999", "final_logit_softcapping: expected a number"},
    {ADD("\"layer_types\": \"full_attention\""), "layer_types: expected a sequence"},
    {ADD("\"layer_types\": [\"full_attention\"]"),
     "layer_types: expected num_hidden_layers = 6 items, found 1"},
    {ADD("\"layer_types\": [\"sliding\", 1, 1, 1, 1, 1]"),
     "layer_types[0]: expected sliding_attention or full_attention, found \"sliding\""},
    {ADD("\"layer_types\": [" FIVE_TO_ONE "]"), NULL},
    {ADD("\"layer_types\": [\"full_attention\", \"full_attention\", \"full_attention\", "
         "\"full_attention\", "
         "\"full_attention\", \"sliding_attention\"]"),
     "layer_types[5]: expected full_attention in the last layer, found \"sliding_attention\""},
    {"\"attention_k_eq_v\": true", "\"attention_k_eq_v\": null",
     "attention_k_eq_v: expected true or false, found null"},
    {"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3",
     "num_key_value_heads of layer 0: expected a divisor of num_attention_heads = 4, found 3"},
    {"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 8", "of layer 0: expected a divisor"},
    {"\"num_global_key_value_heads\": 1", "\"num_global_key_value_heads\": 3",
     "of layer 5: expected a divisor"},
    {"\"num_global_key_value_heads\": 1", "\"num_global_key_value_heads\": 0",
     "expected an integer from 1"},
    {"\"head_dim\": 8", "\"head_dim\": 7", "head_dim of layer 0: expected an even number, found 7"},
    {"\"global_head_dim\": 16", "\"global_head_dim\": 15",
     "head_dim of layer 5: expected an even number, found 15"},
    {"\"global_head_dim\": 16", "\"global_head_dim\": 8194",
     "global_head_dim: expected an integer from 1 to 8192"},
    {"\"global_head_dim\": 16", "\"global_head_dim\": null",
     "global_head_dim: expected an integer"},
    {ADD("\"per_layer_config\": []"), "per_layer_config: expected a mapping, found a sequence"},
    {ADD("\"per_layer_config\": {\"6\": {}}"),
     "per_layer_config: expected layer indices from 0 to 5 as keys, found \"6\""},
    {ADD("\"per_layer_config\": {\"-1\": {}}"),
     "expected layer indices from 0 to 5 as keys, found \"-1\""},
    {ADD("\"per_layer_config\": {\"\": {}}"), "expected layer indices"},
    {ADD("\"per_layer_config\": {\"1x\": {}}"), "expected layer indices"},
    {ADD("\"per_layer_config\": {\"99999999999999999999\": {}}"), "expected layer indices"},
    {ADD("\"per_layer_config\": {\"5\": {}, \"05\": {}}"),
     "per_layer_config.05: expected every layer once"},
    {ADD("\"per_layer_config\": {\"5\": 1}"), "per_layer_config.5: expected a mapping, found 1"},
    {ADD("\"per_layer_config\": {\"5\": {\"sliding_window\": 8}}"),
     "per_layer_config.5: expected only the keys head_dim, num_key_value_heads, found "
     "\"sliding_window\""},
    {ADD("\"per_layer_config\": {\"5\": {\"head_dim\": 0}}"),
     "per_layer_config.5.head_dim: expected an integer from 1"},
    {ADD("\"per_layer_config\": {\"5\": {\"head_dim\": 5}}"),
     "head_dim of layer 5: expected an even number, found 5"},
    {ADD("\"per_layer_config\": {\"1\": {\"num_key_value_heads\": 3}}"),
     "of layer 1: expected a divisor"},
    {ADD("\"rope_parameters\": []"), "rope_parameters: expected a mapping, found a sequence"},
    {ADD("\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 1e4}"),
     "rope_parameters: expected only the keys sliding_attention, full_attention, found \"rope_t"},
    {ADD("\"rope_parameters\": {\"full_attention\": {}}"),
     "rope_parameters: expected the key \"sliding_attention\""},
    {ROPE("null", FULL_ROPE), "rope_parameters.sliding_attention: expected a mapping, found null"},
    {ROPE(SLIDING_ROPE, "{\"rope_type\": \"yarn\", \"rope_theta\": 1e6}"),
     "rope_parameters.full_attention.rope_type: expected default or proportional, found \"yarn\""},
    {ROPE(SLIDING_ROPE, "{\"rope_type\": \"proportional\"}"),
     "full_attention: expected the key \"rope_theta\""},
    {ROPE(SLIDING_ROPE, "{\"rope_theta\": 0}"),
     "full_attention.rope_theta: expected a number from 1"},
    {ROPE(SLIDING_ROPE, "{\"rope_theta\": 1e4, \"rope_type\": \"proportional\", \"factor\": 8.0}"),
     "full_attention.factor: expected a number from 1 to 1, found 8.0"},
    {ROPE(SLIDING_ROPE,
          "{\"rope_theta\": 1e4, \"rope_type\": \"proportional\", \"partial_rotary_factor\": 1.5}"),
     "full_attention.partial_rotary_factor: expected a number from 0 to 1, found 1.5"},
    {ROPE("{\"rope_theta\": 1e4, \"partial_rotary_factor\": 0.25}", FULL_ROPE),
     "sliding_attention.partial_rotary_factor: expected a number from 1 to 1, found 0.25"},
    {ROPE(SLIDING_ROPE, "{\"rope_theta\": 1e4, \"scale\": 2}"),
     "full_attention: expected only the keys"},
    {"}", "", "config.json:"},
    {"@", "{}", "config.json:"},
};

START_TEST(refused)
{
    gemma4_error error = {""};
    gemma4_config config;
    int status = read_text(test_replace(test_tiny_config, REFUSED[_i].old, REFUSED[_i].replacement),
                           &config, &error);
    if (REFUSED[_i].expected == NULL) { /* the control: the same kind of edit, and valid */
        ck_assert_msg(status == 0, "%s", error.message);
        gemma4_config_free(&config);
        return;
    }
    ck_assert_int_eq(status, -1);
    assert_message_contains(&error, REFUSED[_i].expected);
    ck_assert_ptr_null(config.layers);
}
END_TEST

/* Mutations that concern the multimodal layout alone. */
static const struct {
    const char *old, *replacement, *expected;
} REFUSED_MULTIMODAL[] = {
    {"\"gemma4_text\"", "\"gemma3_text\"",
     "text_config.model_type: expected gemma4_text, found \"gemma3_text\""},
    {"\"text_config\": {", "\"text_config\": null, \"x\": {",
     "text_config: expected a mapping, found null"},
    {"\"audio_config\": null", "\"quantization_config\": {\"quant_method\": \"gptq\"}",
     "json:3: quantization_config: expected"},
    {"\"dtype\": \"bfloat16\",\n    \"enable", "\"quantization_config\": {},\n    \"enable",
     "text_config.quantization_config:"},
    {"  \"tie_word_embeddings\": true,\n  \"tr", "  \"tie_word_embeddings\": false,\n  \"tr",
     ": tie_word_embeddings: expected true"},
    {"    \"tie_word_embeddings\": true", "    \"tie_word_embeddings\": false",
     "text_config.tie_word_embeddings: expected true"},
};

START_TEST(refused_multimodal)
{
    gemma4_error error = {""};
    gemma4_config config;
    const char *text =
        test_replace(PUBLISHED, REFUSED_MULTIMODAL[_i].old, REFUSED_MULTIMODAL[_i].replacement);
    ck_assert_int_eq(read_text(text, &config, &error), -1);
    assert_message_contains(&error, REFUSED_MULTIMODAL[_i].expected);
}
END_TEST

START_TEST(other_documents)
{
    static const char *const texts[] = {"[]", "1", "", "null", "{}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        gemma4_error error = {""};
        gemma4_config config;
        ck_assert_int_eq(read_text(texts[i], &config, &error), -1);
        assert_message_contains(&error, "config.json:");
    }
}
END_TEST

START_TEST(no_file)
{
    gemma4_error error = {""};
    gemma4_config config;
    ck_assert_int_eq(
        gemma4_config_read(test_join(test_fresh_dir(), "config.json"), &config, &error), -1);
    assert_message_contains(&error, "config.json: No such file");
}
END_TEST

Suite *config_suite(void)
{
    Suite *suite = suite_create("config");
    TCase *valid = tcase_create("valid"), *hostile = tcase_create("hostile");
    tcase_add_test(valid, published_config);
    tcase_add_loop_test(valid, same_model, 0, sizeof SAME_MODEL / sizeof SAME_MODEL[0]);
    tcase_add_test(valid, text_only_layout);
    tcase_add_test(valid, class_defaults);
    tcase_add_test(valid, default_pattern_ends_full);
    tcase_add_test(valid, softcapping_may_be_null);
    tcase_add_test(valid, without_k_eq_v);
    tcase_add_test(valid, null_global_heads);
    tcase_add_test(valid, per_layer_config);
    tcase_add_test(valid, null_per_layer_config);
    tcase_add_loop_test(valid, rope, 0, sizeof ROPES / sizeof ROPES[0]);
    tcase_add_test(valid, rope_of_absent_kind);
    tcase_add_loop_test(hostile, refused, 0, sizeof REFUSED / sizeof REFUSED[0]);
    tcase_add_loop_test(hostile, refused_multimodal, 0,
                        sizeof REFUSED_MULTIMODAL / sizeof REFUSED_MULTIMODAL[0]);
    tcase_add_test(hostile, other_documents);
    tcase_add_test(hostile, no_file);
    suite_add_tcase(suite, valid);
    suite_add_tcase(suite, hostile);
    return suite;
}
