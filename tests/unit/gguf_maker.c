#include "gguf_maker.h"

#include <stdio.h>
#include <stdlib.h>

#include "support.h"

enum {
    ALIGNMENT = 32,
    UINT32 = 4,
    FLOAT32 = 6,
    BOOL = 7,
    STRING = 8,
    ARRAY = 9,
    F32 = 0,
    BF16 = 30
};

/* --- items --- */

gguf_maker_value *gguf_maker_find_value(gguf_maker *m, const char *key)
{
    for (size_t i = 0; i < m->values_used; i++)
        if (!strcmp(m->values[i].key, key))
            return &m->values[i];
    return NULL;
}

gguf_maker_tensor *gguf_maker_find_tensor(gguf_maker *m, const char *name)
{
    for (size_t i = 0; i < m->tensors_used; i++)
        if (!strcmp(m->tensors[i].name, name))
            return &m->tensors[i];
    ck_abort_msg("%s: no such tensor", name);
}

static void append(gguf_maker_value *value, const void *bytes, size_t size)
{
    ck_assert_uint_le(value->size + size, sizeof value->bytes);
    memcpy(value->bytes + value->size, bytes, size);
    value->size += size;
}

/* The value of the key, emptied, with its type's number. */
static gguf_maker_value *begin(gguf_maker *m, const char *key, uint32_t type)
{
    gguf_maker_value *value = gguf_maker_find_value(m, key);
    ck_assert_uint_lt(m->values_used, GGUF_MAKER_ITEMS);
    if (!value)
        value = &m->values[m->values_used++];
    snprintf(value->key, sizeof value->key, "%s", key);
    value->size = 0;
    append(value, &type, sizeof type);
    return value;
}

void gguf_maker_set_int(gguf_maker *m, const char *key, uint32_t number)
{
    append(begin(m, key, UINT32), &number, sizeof number);
}

void gguf_maker_set_float(gguf_maker *m, const char *key, float number)
{
    append(begin(m, key, FLOAT32), &number, sizeof number);
}

void gguf_maker_set_string(gguf_maker *m, const char *key, const char *text)
{
    gguf_maker_value *value = begin(m, key, STRING);
    uint64_t length = strlen(text);
    append(value, &length, sizeof length);
    append(value, text, length);
}

void gguf_maker_set_array(gguf_maker *m, const char *key, uint32_t type, const void *items,
                          size_t count, size_t item_size)
{
    gguf_maker_value *value = begin(m, key, ARRAY);
    uint64_t n = count;
    append(value, &type, sizeof type);
    append(value, &n, sizeof n);
    append(value, items, count * item_size);
}

void gguf_maker_add_tensor(gguf_maker *m, const char *name, uint32_t type, uint32_t rank,
                           const uint64_t *shape, const void *data, size_t size)
{
    ck_assert_uint_lt(m->tensors_used, GGUF_MAKER_ITEMS);
    gguf_maker_tensor *t = &m->tensors[m->tensors_used++];
    *t = (gguf_maker_tensor){.type = type, .rank = rank, .data = data, .size = size, .offset = -1};
    snprintf(t->name, sizeof t->name, "%s", name);
    memcpy(t->shape, shape, rank * sizeof *shape);
}

void gguf_maker_remove_tensor(gguf_maker *m, const char *name)
{
    gguf_maker_tensor *t = gguf_maker_find_tensor(m, name);
    *t = m->tensors[--m->tensors_used];
}

/* --- the tiny checkpoint --- */

/* llama.cpp's names in the order of gemma4_layer_weights, written down apart from the reader's
 * list. */
static const char *const of_layer[] = {
    "attn_norm.weight",       "attn_q.weight",
    "attn_k.weight",          "attn_v.weight",
    "attn_output.weight",     "attn_q_norm.weight",
    "attn_k_norm.weight",     "post_attention_norm.weight",
    "ffn_norm.weight",        "ffn_gate.weight",
    "ffn_up.weight",          "ffn_down.weight",
    "post_ffw_norm_1.weight", "ffn_gate_inp.weight",
    "ffn_gate_inp.scale",     "ffn_down_exps.scale",
    "pre_ffw_norm_2.weight",  "ffn_gate_up_exps.weight",
    "ffn_down_exps.weight",   "post_ffw_norm_2.weight",
    "post_ffw_norm.weight",   "layer_output_scale.weight",
};

static void add_weights(gguf_maker *m, gemma4_model *model)
{
    for (size_t i = 0; i < gemma4_tensor_spec_count(&model->config); i++) {
        gemma4_tensor_spec spec = gemma4_tensor_spec_at(&model->config, i);
        const gemma4_weight *w = gemma4_spec_weight(model, &spec);
        uint64_t shape[3];
        char name[64];
        for (size_t axis = 0; axis < spec.rank; axis++)
            shape[axis] = spec.shape[spec.rank - 1 - axis];
        if (spec.layer < 0)
            snprintf(name, sizeof name, "%s", i == 0 ? "token_embd.weight" : "output_norm.weight");
        else
            snprintf(name, sizeof name, "blk.%d.%s", spec.layer,
                     of_layer[spec.offset / sizeof(gemma4_weight)]);
        ck_assert_int_eq(w->dtype, GEMMA4_BF16);
        gguf_maker_add_tensor(m, name, BF16, (uint32_t)spec.rank, shape, w->data,
                              w->rows * w->cols * 2);
    }
}

gguf_maker *gguf_maker_empty(void)
{
    gguf_maker *m = calloc(1, sizeof *m);
    ck_assert_ptr_nonnull(m);
    m->magic = 0x46554747;
    m->version = 3;
    m->value_count = m->tensor_count = -1;
    gguf_maker_set_string(m, "general.architecture", "gemma4");
    return m;
}

gguf_maker *gguf_maker_tiny(gemma4_model *model)
{
    static float factors[1024];
    const gemma4_config *c = &model->config;
    const gemma4_layer_config *sliding = &c->layers[0],
                              *full = &c->layers[c->num_hidden_layers - 1];
    gguf_maker *m = gguf_maker_empty();
    unsigned char pattern[64];
    int32_t heads[64];
    uint64_t pairs = full->head_dim / 2;
    for (size_t i = 0; i < c->num_hidden_layers; i++) {
        pattern[i] = c->layers[i].kind == GEMMA4_SLIDING;
        heads[i] = (int32_t)c->layers[i].num_key_value_heads;
    }
    for (size_t i = 0; i < pairs; i++)
        factors[i] = i < full->rope_pairs ? 1 : 1e30f;
    gguf_maker_set_int(m, "gemma4.block_count", (uint32_t)c->num_hidden_layers);
    gguf_maker_set_int(m, "gemma4.embedding_length", (uint32_t)c->hidden_size);
    gguf_maker_set_int(m, "gemma4.feed_forward_length", (uint32_t)c->intermediate_size);
    gguf_maker_set_int(m, "gemma4.context_length", (uint32_t)c->max_position_embeddings);
    gguf_maker_set_int(m, "gemma4.attention.head_count", (uint32_t)c->num_attention_heads);
    gguf_maker_set_array(m, "gemma4.attention.head_count_kv", 5, heads, c->num_hidden_layers,
                         sizeof *heads);
    gguf_maker_set_int(m, "gemma4.attention.key_length", (uint32_t)full->head_dim);
    gguf_maker_set_int(m, "gemma4.attention.key_length_swa", (uint32_t)sliding->head_dim);
    gguf_maker_set_float(m, "gemma4.attention.layer_norm_rms_epsilon", (float)c->rms_norm_eps);
    gguf_maker_set_int(m, "gemma4.attention.sliding_window", (uint32_t)c->sliding_window);
    gguf_maker_set_array(m, "gemma4.attention.sliding_window_pattern", BOOL, pattern,
                         c->num_hidden_layers, 1);
    gguf_maker_set_float(m, "gemma4.rope.freq_base", (float)full->rope_theta);
    gguf_maker_set_float(m, "gemma4.rope.freq_base_swa", (float)sliding->rope_theta);
    gguf_maker_set_int(m, "gemma4.expert_count", (uint32_t)c->num_experts);
    gguf_maker_set_int(m, "gemma4.expert_used_count", (uint32_t)c->top_k_experts);
    gguf_maker_set_int(m, "gemma4.expert_feed_forward_length", (uint32_t)c->moe_intermediate_size);
    gguf_maker_set_float(m, "gemma4.final_logit_softcapping", (float)c->final_logit_softcapping);
    gguf_maker_add_tensor(m, "rope_freqs.weight", F32, 1, &pairs, factors, pairs * sizeof *factors);
    add_weights(m, model);
    return m;
}

/* --- the file --- */

static void put(FILE *f, const void *bytes, size_t size)
{
    ck_assert_uint_eq(fwrite(bytes, 1, size, f), size);
}

static void put_string(FILE *f, const char *text)
{
    uint64_t length = strlen(text);
    put(f, &length, sizeof length);
    put(f, text, length);
}

static void pad(FILE *f)
{
    while (ftell(f) % ALIGNMENT)
        fputc(0, f);
}

void gguf_maker_write(const gguf_maker *m, const char *path)
{
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    uint64_t tensors = m->tensor_count < 0 ? m->tensors_used : (uint64_t)m->tensor_count, next = 0;
    uint64_t values = m->value_count < 0 ? m->values_used : (uint64_t)m->value_count;
    put(f, &m->magic, 4);
    put(f, &m->version, 4);
    put(f, &tensors, 8);
    put(f, &values, 8);
    for (size_t i = 0; i < m->values_used; i++) {
        put_string(f, m->values[i].key);
        put(f, m->values[i].bytes, m->values[i].size);
    }
    for (size_t i = 0; i < m->tensors_used; i++) {
        const gguf_maker_tensor *t = &m->tensors[i];
        uint64_t offset = t->offset < 0 ? next : (uint64_t)t->offset;
        put_string(f, t->name);
        put(f, &t->rank, 4);
        put(f, t->shape, (t->rank < 8 ? t->rank : 8) * sizeof *t->shape);
        put(f, &t->type, 4);
        put(f, &offset, 8);
        next = (next + t->size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    for (size_t i = 0; i < m->tensors_used; i++) {
        pad(f);
        put(f, m->tensors[i].data, m->tensors[i].size);
    }
    long size = ftell(f);
    ck_assert_int_eq(fclose(f), 0);
    if (m->cut) {
        unsigned char *bytes = malloc((size_t)size);
        f = fopen(path, "rb");
        ck_assert(bytes && f && fread(bytes, 1, (size_t)size, f) == (size_t)size);
        fclose(f);
        test_write(path, bytes, (size_t)size - m->cut);
        free(bytes);
    }
}
