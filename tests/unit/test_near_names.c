/* Which tap a name that is none comes near (ref/near_names.c). */
#include "near_names.h"
#include "suites.h"
#include "support.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))

static const struct {
    const char *a, *b;
    size_t distance;
} DISTANCES[] = {
    {"", "", 0},         {"a", "", 1},           {"", "abc", 3},
    {"same", "same", 0}, {"q_rope", "qrope", 1}, {"kitten", "sitting", 3},
    {"ab", "ba", 2},     {"logit", "logits", 1},
};

START_TEST(distances_count_edits)
{
    ck_assert_uint_eq(gemma4_edit_distance(DISTANCES[_i].a, DISTANCES[_i].b),
                      DISTANCES[_i].distance);
    ck_assert_uint_eq(gemma4_edit_distance(DISTANCES[_i].b, DISTANCES[_i].a),
                      DISTANCES[_i].distance);
}
END_TEST

START_TEST(long_names_are_far_apart)
{
    char a[200], b[200];
    memset(a, 'a', sizeof a - 1);
    memset(b, 'a', sizeof b - 1);
    a[199] = b[199] = '\0';
    b[0] = 'b';
    ck_assert_uint_gt(gemma4_edit_distance(a, b), 96);
    ck_assert_uint_gt(gemma4_edit_distance("a", b), 96);
    ck_assert_uint_gt(gemma4_edit_distance(a, "b"), 96);
}
END_TEST

static const struct {
    const char *name, *near; /* NULL: nothing is near */
} NAMES[] = {
    /* spelling */
    {"layers/3/attn/q_ropes", "layers.3.attn.q_rope"},
    {"layers.3.attn.qrope", "layers.3.attn.q_rope"},
    {"layers.3.attn.qnrm", "layers.3.attn.q_norm"},
    {"layers/3/attn/q-rope", "layers.3.attn.q_rope"},
    {"Layers/3/Output", "layers.3.output"},
    {"/layers.3.output", "layers.3.output"},
    {"layer.3.output", "layers.3.output"},
    {"model.layers.3.output", "layers.3.output"},
    {"layrs.3.output", "layers.3.output"},
    {"layers.3.outputs", "layers.3.output"},
    {"layers.3.q_rope", "layers.3.attn.q_rope"},
    {"layers.3.topk_ids", "layers.3.router.topk_ids"},
    {"layers.3.self_attn.q_norm", "layers.3.attn.q_norm"},
    {"layers.03.output", "layers.3.output"},
    {"layers.000.output", "layers.0.output"},
    {"layers.99.output", "layers.99.output"},
    {"logit", "logits"},
    {"Logits", "logits"},
    {"logits_row", "logits_raw"},
    {"embeds", "embed"},
    {"token", "tokens"},
    {"position", "positions"},
    /* two taps are equally near, or none is */
    {"layers.3.attn.z", NULL},
    {"layers.3.attn.nrm_q", NULL},
    {"layers.3.attn.rope", NULL},
    {"layers.3.residual", NULL},
    {"layers.3.norm", NULL},
    {"layers.3.moe.gate", NULL},
    {"layers.3.kv_cache", NULL},
    {"layers.output", NULL},
    {"kv.3.k", NULL},
    {"hidden_states.3", NULL}, /* transformers counts the embedding as the first of them */
    {"attention_mask", NULL},
    {"x", NULL},
    {"", NULL},
    {"/", NULL},
    {"layers.", NULL},
    {"layers.3.", NULL},
    {"layers.99999999999999999999.output", NULL},
    {"-3", NULL},
    /* other engines' names */
    {"layers/3/self_attn/q_proj", "layers.3.attn.q"},
    {"model.layers.3.self_attn.o_proj", "layers.3.attn.out"},
    {"Gemma4ForCausalLM.model.layers.11.self_attn.k_proj_outputs", "layers.11.attn.k"},
    {"model.layers.3.mlp.down_proj", "layers.3.mlp.out"},
    {"model.layers.3.experts.5.down_proj", NULL},
    {"model.layers.3.post_feedforward_layernorm", "layers.3.ffn.post_norm"},
    {"model.layers.3.post_feedforward_layernorm_2", "layers.3.moe.post_norm"},
    {"model.layers.3.hidden_states", "layers.3.output"},
    {"hidden_states", "layers.N.output"},
    {"lm_head", "logits"},
    {"model.norm", "final_norm"},
    {"model.embed_tokens", "embed"},
    {"input_ids", "tokens"},
    {"l_out-3", "layers.3.output"},
    {"Qcur_normed-11", "layers.11.attn.q_norm"},
    {"ffn_moe_topk-0", "layers.0.router.topk_ids"},
    {"result_output", "logits"},
    {"blocks.3.hook_resid_post", "layers.3.output"},
    {"blocks.3.attn.hook_z", "layers.3.attn.context"},
};

START_TEST(names_come_near_taps)
{
    char near[GEMMA4_TAP_NAME_SIZE];
    const char *found = gemma4_near_name(NAMES[_i].name, near);
    ck_assert_msg((found == NULL) == (NAMES[_i].near == NULL), "%s: found %s", NAMES[_i].name,
                  found ? found : "nothing");
    if (found)
        ck_assert_str_eq(found, NAMES[_i].near);
}
END_TEST

START_TEST(a_taps_own_name_is_nearest_to_itself)
{
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
        char name[GEMMA4_TAP_NAME_SIZE], near[GEMMA4_TAP_NAME_SIZE];
        ck_assert_str_eq(gemma4_near_name(gemma4_tap_name((gemma4_tap)tap, 29, name), near), name);
    }
}
END_TEST

START_TEST(names_of_any_length_and_any_bytes_are_read)
{
    char name[1024], near[GEMMA4_TAP_NAME_SIZE];
    for (size_t length = 0; length < sizeof name; length++) {
        memset(name, length % 3 == 0 ? '.' : length % 3 == 1 ? '3' : '\xff', length);
        name[length] = '\0';
        gemma4_near_name(name, near);
    }
}
END_TEST

Suite *near_names_suite(void)
{
    Suite *suite = suite_create("near_names");
    TCase *c = tcase_create("names");
    tcase_add_loop_test(c, distances_count_edits, 0, COUNT(DISTANCES));
    tcase_add_test(c, long_names_are_far_apart);
    tcase_add_loop_test(c, names_come_near_taps, 0, COUNT(NAMES));
    tcase_add_test(c, a_taps_own_name_is_nearest_to_itself);
    tcase_add_test(c, names_of_any_length_and_any_bytes_are_read);
    suite_add_tcase(suite, c);
    return suite;
}
