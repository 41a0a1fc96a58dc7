/* The presets of synthetic checkpoints, and their config.json in the three layouts in use. */
#include <stdio.h>
#include <string.h>

#include "synth.h"
#include "synth_internal.h"

static const synth_preset presets[] = {
    {"tiny", MULTIMODAL, 12, 6, 64, 4, 2, 1, 16, 32, 16, 96, 32, 16, 4, 256, NULL, 0},
    {"moe128", TEXT_ONLY_PER_LAYER, 4, 2, 64, 16, 8, 2, 32, 64, 16, 64, 32, 128, 8, 512, NULL, 0},
    {"wide256", TEXT_ONLY, 4, 2, 256, 8, 4, 2, 32, 64, 32, 256, 256, 8, 2, 512, NULL, 0},
    {"uneven96", TEXT_ONLY, 4, 2, 96, 6, 2, 1, 32, 64, 24, 160, 96, 12, 3, 384, NULL, 0},
    {"deep128", TEXT_ONLY, 12, 6, 128, 8, 4, 2, 16, 32, 16, 192, 64, 16, 4, 512, NULL, 0},
    {"heads512", MULTIMODAL, 2, 2, 256, 4, 2, 1, 256, 512, 32, 256, 256, 4, 2, 512, NULL, 0},
    {"window1024", TEXT_ONLY, 2, 2, 64, 2, 2, 1, 32, 64, 1024, 64, 32, 8, 2, 256, NULL, 0},
    {"26b-a4b", MULTIMODAL, 30, 6, 2816, 16, 8, 2, 256, 512, 1024, 2112, 704, 128, 8, 262144, NULL,
     0},
};
enum { PRESET_COUNT = sizeof presets / sizeof *presets };

const char *const *gemma4_synth_presets(void)
{
    enum { MOST_OF_LADDER = 64 };
    static const char *names[PRESET_COUNT + MOST_OF_LADDER + 1];
    for (size_t i = 0; i < PRESET_COUNT; i++)
        names[i] = presets[i].name;
    for (size_t i = 0; i < MOST_OF_LADDER && synth_ladder_at(i); i++)
        names[PRESET_COUNT + i] = synth_ladder_at(i)->name;
    return names;
}

const synth_preset *synth_preset_find(const char *name)
{
    for (size_t i = 0; i < PRESET_COUNT; i++)
        if (!strcmp(presets[i].name, name))
            return &presets[i];
    for (size_t i = 0; synth_ladder_at(i); i++)
        if (!strcmp(synth_ladder_at(i)->name, name))
            return synth_ladder_at(i);
    return NULL;
}

/* ------------------------------------------------------------ config.json */

static int is_full(const synth_preset *p, size_t layer)
{
    return (layer + 1) % p->full_every == 0 || layer + 1 == p->layers;
}

/* The keys of the text decoder, each line indented by indent. */
static void write_text_config(FILE *f, const synth_preset *p, const char *indent)
{
    fprintf(f, "%s\"attention_bias\": false,\n", indent);
    fprintf(f, "%s\"attention_k_eq_v\": true,\n", indent);
    fprintf(f, "%s\"bos_token_id\": 2,\n", indent);
    fprintf(f, "%s\"enable_moe_block\": true,\n", indent);
    fprintf(f, "%s\"eos_token_id\": 1,\n", indent);
    fprintf(f, "%s\"final_logit_softcapping\": 30.0,\n", indent);
    fprintf(f, "%s\"global_head_dim\": %zu,\n", indent, p->full_head_dim);
    fprintf(f, "%s\"head_dim\": %zu,\n", indent, p->sliding_head_dim);
    fprintf(f, "%s\"hidden_activation\": \"gelu_pytorch_tanh\",\n", indent);
    fprintf(f, "%s\"hidden_size\": %zu,\n", indent, p->hidden);
    fprintf(f, "%s\"hidden_size_per_layer_input\": 0,\n", indent);
    fprintf(f, "%s\"intermediate_size\": %zu,\n", indent, p->dense_width);
    fprintf(f, "%s\"layer_types\": [\n", indent);
    for (size_t l = 0; l < p->layers; l++)
        fprintf(f, "%s  \"%s\"%s\n", indent, is_full(p, l) ? "full_attention" : "sliding_attention",
                l + 1 < p->layers ? "," : "");
    fprintf(f, "%s],\n", indent);
    fprintf(f, "%s\"max_position_embeddings\": 262144,\n", indent);
    fprintf(f, "%s\"model_type\": \"gemma4_text\",\n", indent);
    fprintf(f, "%s\"moe_intermediate_size\": %zu,\n", indent, p->expert_width);
    fprintf(f, "%s\"num_attention_heads\": %zu,\n", indent, p->heads);
    fprintf(f, "%s\"num_experts\": %zu,\n", indent, p->experts);
    fprintf(f, "%s\"num_global_key_value_heads\": %zu,\n", indent, p->full_kv_heads);
    fprintf(f, "%s\"num_hidden_layers\": %zu,\n", indent, p->layers);
    fprintf(f, "%s\"num_key_value_heads\": %zu,\n", indent, p->sliding_kv_heads);
    fprintf(f, "%s\"num_kv_shared_layers\": 0,\n", indent);
    fprintf(f, "%s\"pad_token_id\": 0,\n", indent);
    if (p->layout == TEXT_ONLY_PER_LAYER) { /* transformers reads this and not the global_ keys;
                                               others know only those */
        const char *separator = "";
        fprintf(f, "%s\"per_layer_config\": {", indent);
        for (size_t l = 0; l < p->layers; l++)
            if (is_full(p, l)) {
                fprintf(f, "%s\n%s  \"%zu\": {\"head_dim\": %zu, \"num_key_value_heads\": %zu}",
                        separator, indent, l, p->full_head_dim, p->full_kv_heads);
                separator = ",";
            }
        fprintf(f, "\n%s},\n", indent);
    }
    fprintf(f, "%s\"rms_norm_eps\": 1e-06,\n", indent);
    fprintf(f, "%s\"rope_parameters\": {\n", indent);
    fprintf(f,
            "%s  \"full_attention\": {\"partial_rotary_factor\": 0.25, \"rope_theta\": 1000000.0, "
            "\"rope_type\": \"proportional\"},\n",
            indent);
    fprintf(f, "%s  \"sliding_attention\": {\"rope_theta\": 10000.0, \"rope_type\": \"default\"}\n",
            indent);
    fprintf(f, "%s},\n", indent);
    fprintf(f, "%s\"sliding_window\": %zu,\n", indent, p->window);
    fprintf(f, "%s\"tie_word_embeddings\": true,\n", indent);
    fprintf(f, "%s\"top_k_experts\": %zu,\n", indent, p->top_k);
    fprintf(f, "%s\"use_bidirectional_attention\": %s,\n", indent,
            p->layout == MULTIMODAL ? "\"vision\"" : "null");
    fprintf(f, "%s\"vocab_size\": %zu\n", indent, p->vocab);
}

void synth_write_config(FILE *f, const synth_preset *p, int vision)
{
    if (p->layout == MULTIMODAL) {
        fprintf(f, "{\n  \"architectures\": [\"Gemma4ForConditionalGeneration\"],\n  \"dtype\": "
                   "\"bfloat16\",\n");
        fprintf(f, "  \"model_type\": \"gemma4\",\n  \"text_config\": {\n");
        write_text_config(f, p, "    ");
        fprintf(f, "  },\n  \"tie_word_embeddings\": true,\n");
        if (vision)
            synth_write_vision_config(f, p->vocab);
        fprintf(f, "  \"vocab_size\": %zu\n}\n", p->vocab); /* engines that have no text_config look
                                                               here */
    } else {
        fprintf(f,
                "{\n  \"architectures\": [\"Gemma4ForCausalLM\"],\n  \"dtype\": \"bfloat16\",\n");
        write_text_config(f, p, "  ");
        fprintf(f, "}\n");
    }
}
