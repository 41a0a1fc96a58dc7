#include "facts.h"

#include <stdlib.h>

#include "model.h"

gemma4_facts gemma4_facts_of(const gemma4_config *c)
{
    gemma4_facts facts = {0};
    for (size_t i = 0; i < gemma4_tensor_spec_count(c); i++) {
        gemma4_tensor_spec tensor = gemma4_tensor_spec_at(c, i);
        facts.total_parameters += (uint64_t)tensor.rows * tensor.cols;
    }
    /* An expert is 2M gate and up rows of d, and d down rows of M. */
    uint64_t expert = 3 * (uint64_t)c->moe_intermediate_size * c->hidden_size;
    facts.active_parameters = facts.total_parameters -
                              c->num_hidden_layers * (c->num_experts - c->top_k_experts) * expert;
    for (size_t l = 0; l < c->num_hidden_layers; l++) {
        const gemma4_layer_config *lc = &c->layers[l];
        uint64_t vector = (uint64_t)lc->num_key_value_heads * lc->head_dim;
        *(lc->kind == GEMMA4_FULL ? &facts.full_layers : &facts.sliding_layers) += 1;
        facts.kv_values_apart += 2 * vector;
        facts.kv_values_rebuilt += lc->v_is_k ? vector : 2 * vector;
    }
    return facts;
}

int gemma4_published_config(gemma4_config *config, gemma4_error *error)
{
    *config = (gemma4_config){.hidden_size = 2816,
                              .num_hidden_layers = 30,
                              .num_attention_heads = 16,
                              .intermediate_size = 2112,
                              .num_experts = 128,
                              .top_k_experts = 8,
                              .moe_intermediate_size = 704,
                              .vocab_size = 262144,
                              .sliding_window = 1024,
                              .max_position_embeddings = 262144,
                              .rms_norm_eps = 1e-6,
                              .final_logit_softcapping = 30};
    config->layers = calloc(config->num_hidden_layers, sizeof *config->layers);
    if (!config->layers)
        return gemma4_fail(error, "published config: out of memory");
    for (size_t l = 0; l < config->num_hidden_layers; l++)
        config->layers[l] = (l + 1) % 6 == 0
                                ? (gemma4_layer_config){GEMMA4_FULL, 2, 512, true, 1e6, 64}
                                : (gemma4_layer_config){GEMMA4_SLIDING, 8, 256, false, 1e4, 128};
    return 0;
}

/* "0, 1, 2, 3, 4, 6 ..." would be long: consecutive layers of one shape share a line. */
static void print_layers(FILE *out, const gemma4_config *c)
{
    fprintf(
        out,
        "\n  layers   kind      Q heads  KV heads  head dim  V from  RoPE theta  rotating pairs\n");
    for (size_t l = 0, end; l < c->num_hidden_layers; l = end) {
        const gemma4_layer_config *a = &c->layers[l];
        char range[48];
        for (end = l + 1; end < c->num_hidden_layers && c->layers[end].kind == a->kind &&
                          c->layers[end].head_dim == a->head_dim &&
                          c->layers[end].num_key_value_heads == a->num_key_value_heads;)
            end++;
        snprintf(range, sizeof range, end - l > 1 ? "%zu-%zu" : "%zu", l, end - 1);
        fprintf(out, "  %-8s %-9s %7zu  %8zu  %8zu  %-6s  %10.0f  %zu of %zu\n", range,
                a->kind == GEMMA4_FULL ? "full" : "sliding", c->num_attention_heads,
                a->num_key_value_heads, a->head_dim, a->v_is_k ? "k_proj" : "v_proj", a->rope_theta,
                a->rope_pairs, a->head_dim / 2);
    }
}

void gemma4_facts_print(FILE *out, const gemma4_config *c)
{
    gemma4_facts facts = gemma4_facts_of(c);
    fprintf(out, "total parameters       %.1f B (%llu)\n", (double)facts.total_parameters / 1e9,
            (unsigned long long)facts.total_parameters);
    fprintf(out, "active per token       %.1f B (%llu)\n", (double)facts.active_parameters / 1e9,
            (unsigned long long)facts.active_parameters);
    fprintf(out, "layers                 %zu = %zu sliding + %zu full\n", c->num_hidden_layers,
            facts.sliding_layers, facts.full_layers);
    fprintf(out, "sliding window         %zu positions, the query's own included\n",
            c->sliding_window);
    fprintf(out,
            "KV cache per token     %.0f KiB in bf16 where full layers rebuild K and V from one "
            "vector\n",
            (double)facts.kv_values_rebuilt * 2 / 1024);
    fprintf(out, "                       %.0f KiB in bf16 where they store both\n",
            (double)facts.kv_values_apart * 2 / 1024);
    fprintf(out, "context                %zu positions\n", c->max_position_embeddings);
    fprintf(out, "hidden size            %zu\n", c->hidden_size);
    fprintf(out, "dense MLP width        %zu\n", c->intermediate_size);
    fprintf(out, "experts                %zu, %zu per token, %zu wide\n", c->num_experts,
            c->top_k_experts, c->moe_intermediate_size);
    fprintf(out, "vocabulary             %zu (tied embedding and LM head)\n", c->vocab_size);
    fprintf(out, "RMSNorm eps            %g\n", c->rms_norm_eps);
    if (c->final_logit_softcapping > 0)
        fprintf(out, "logits soft-cap        %g\n", c->final_logit_softcapping);
    else
        fprintf(out, "logits soft-cap        none\n");
    print_layers(out, c);
}
