#include "near_names.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum {
    NAME_SIZE = 256,
    LONGEST = 96,
    NAME_PER_LETTER = 5 /* one letter in so many of a tap's name may be wrong, and one in any */
};

size_t gemma4_edit_distance(const char *a, const char *b)
{
    size_t row[LONGEST + 1], n = strlen(b), m = strlen(a);
    if (n > LONGEST || m > LONGEST)
        return n > m ? n : m;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 0; i < m; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < n; j++) {
            size_t replaced = diagonal + (a[i] != b[j]),
                   shorter = row[j] < row[j + 1] ? row[j] : row[j + 1];
            diagonal = row[j + 1];
            row[j + 1] = replaced < shorter + 1 ? replaced : shorter + 1;
        }
    }
    return row[n];
}

/* --- a name taken apart --- */

typedef struct parts {
    char whole[NAME_SIZE]; /* lower case, '.' between the parts, '_' inside them */
    const char *local;     /* what follows the layer's number, or all of it */
    bool has_layer;
    char layer[8];
} parts;

/* llama.cpp's "l_out-3": what stands before the layer's number, which is moved to p. Returns its
 * length. */
static size_t take_suffix(const char *name, parts *p)
{
    const char *dash = strrchr(name, '-');
    size_t digits = dash ? strspn(dash + 1, "0123456789") : 0;
    if (digits == 0 || digits >= sizeof p->layer || dash[1 + digits] != '\0')
        return strlen(name);
    memcpy(p->layer, dash + 1, digits);
    p->has_layer = true;
    return (size_t)(dash - name);
}

static void normalise(const char *name, parts *p)
{
    name += *name == '/';
    size_t length = take_suffix(name, p);
    if (length >= sizeof p->whole)
        length = sizeof p->whole - 1;
    for (size_t i = 0; i < length; i++)
        p->whole[i] = name[i] == '/'                     ? '.'
                      : name[i] == '-' || name[i] == ' ' ? '_'
                                                         : (char)tolower((unsigned char)name[i]);
    p->local = p->whole;
}

/* Whether the part of that length is a word for the list of layers. */
static bool is_layers(const char *part, size_t length)
{
    static const char *const words[] = {"layers", "layer", "blocks", "block", "blk", "h"};
    char word[16];
    if (length >= sizeof word)
        return false;
    snprintf(word, sizeof word, "%.*s", (int)length, part);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(words[i], word) == 0)
            return true;
    return gemma4_edit_distance(word, "layers") == 1;
}

/* Finds "layers.3." and splits after it. */
static void split(parts *p)
{
    for (const char *part = p->whole, *end; (end = strchr(part, '.')) != NULL; part = end + 1) {
        size_t digits = strspn(end + 1, "0123456789");
        if (!is_layers(part, (size_t)(end - part)) || digits == 0 || digits >= sizeof p->layer ||
            end[1 + digits] != '.')
            continue;
        memset(p->layer, 0, sizeof p->layer);
        memcpy(p->layer, end + 1, digits);
        p->has_layer = true;
        p->local = end + 1 + digits + 1;
        break;
    }
    if (p->has_layer && strncmp(p->local, "self_attn", 9) == 0)
        p->local += 5;
}

/* --- letters --- */

/* A tap's name as written for that layer. */
static const char *write_name(const parts *p, const gemma4_tap_info *tap,
                              char near[GEMMA4_TAP_NAME_SIZE])
{
    const char *digits = p->layer + strspn(p->layer, "0");
    if (tap->per_layer)
        snprintf(near, GEMMA4_TAP_NAME_SIZE, "layers.%s.%s",
                 !p->has_layer ? "N"
                 : *digits     ? digits
                               : "0",
                 tap->name);
    else
        snprintf(near, GEMMA4_TAP_NAME_SIZE, "%s", tap->name);
    return near;
}

/* The distance of what was written from a tap's name; one letter where only the first part is
 * missing ("q_rope" for "attn.q_rope"). */
static size_t distance(const char *local, const char *name)
{
    const char *last = strchr(name, '.');
    return last && strcmp(local, last + 1) == 0 ? 1 : gemma4_edit_distance(local, name);
}

typedef struct best {
    const gemma4_tap_info *tap;
    size_t distance;
    bool tie;
} best;

static void consider(const parts *p, const gemma4_tap_info *tap, best *b)
{
    size_t d = distance(p->local, tap->name), limit = strlen(tap->name) / NAME_PER_LETTER;
    if (d > (limit > 1 ? limit : 1) || (b->tap && d > b->distance))
        return;
    b->tie = b->tap && d == b->distance;
    b->distance = d;
    b->tap = tap;
}

static const gemma4_tap_info *by_letters(const parts *p)
{
    static const gemma4_tap_info inputs[] = {{.name = "tokens"}, {.name = "positions"}};
    best b = {0};
    for (int i = 0; i < GEMMA4_TAP_COUNT; i++)
        if (gemma4_tap_describe((gemma4_tap)i)->per_layer == p->has_layer)
            consider(p, gemma4_tap_describe((gemma4_tap)i), &b);
    for (size_t i = 0; i < 2 && !p->has_layer; i++)
        consider(p, &inputs[i], &b);
    return b.tie ? NULL : b.tap;
}

/* --- other engines' names --- */

#define TOKENS_NAME GEMMA4_TAP_COUNT

/* Module paths of transformers, the graph's names in llama.cpp, hooks of TransformerLens. Names
 * that mean other tensors in other models, or one before and after a step (Qcur, attn_out), are
 * left out. */
static const struct {
    const char *name;
    gemma4_tap tap;
} synonyms[] = {
    {"embed_tokens", GEMMA4_TAP_EMBED},
    {"input_layernorm", GEMMA4_TAP_ATTN_NORM},
    {"q_proj", GEMMA4_TAP_ATTN_Q},
    {"k_proj", GEMMA4_TAP_ATTN_K},
    {"v_proj", GEMMA4_TAP_ATTN_V},
    {"o_proj", GEMMA4_TAP_ATTN_OUT},
    {"post_attention_layernorm", GEMMA4_TAP_ATTN_POST_NORM},
    {"pre_feedforward_layernorm", GEMMA4_TAP_MLP_NORM},
    {"mlp.gate_proj", GEMMA4_TAP_MLP_GATE},
    {"mlp.up_proj", GEMMA4_TAP_MLP_UP},
    {"mlp.down_proj", GEMMA4_TAP_MLP_OUT},
    {"post_feedforward_layernorm_1", GEMMA4_TAP_MLP_POST_NORM},
    {"router.proj", GEMMA4_TAP_ROUTER_LOGITS},
    {"pre_feedforward_layernorm_2", GEMMA4_TAP_MOE_NORM},
    {"post_feedforward_layernorm_2", GEMMA4_TAP_MOE_POST_NORM},
    {"post_feedforward_layernorm", GEMMA4_TAP_FFN_POST_NORM},
    {"hidden_states", GEMMA4_TAP_LAYER_OUTPUT},
    {"model.norm", GEMMA4_TAP_FINAL_NORM},
    {"lm_head", GEMMA4_TAP_LOGITS},
    {"input_ids", TOKENS_NAME},
    {"token_ids", TOKENS_NAME},
    {"qcur_normed", GEMMA4_TAP_ATTN_Q_NORM},
    {"kcur_normed", GEMMA4_TAP_ATTN_K_NORM},
    {"vcur_normed", GEMMA4_TAP_ATTN_V_NORM},
    {"qcur_pos", GEMMA4_TAP_ATTN_Q_ROPE},
    {"kcur_pos", GEMMA4_TAP_ATTN_K_ROPE},
    {"kqv_out", GEMMA4_TAP_ATTN_CONTEXT},
    {"ffn_moe_logits", GEMMA4_TAP_ROUTER_LOGITS},
    {"ffn_moe_topk", GEMMA4_TAP_ROUTER_TOPK_IDS},
    {"ffn_moe_out", GEMMA4_TAP_MOE_OUT},
    {"l_out", GEMMA4_TAP_LAYER_OUTPUT},
    {"result_norm", GEMMA4_TAP_FINAL_NORM},
    {"result_output", GEMMA4_TAP_LOGITS},
    {"hook_resid_pre", GEMMA4_TAP_LAYER_INPUT},
    {"hook_resid_mid", GEMMA4_TAP_ATTN_RESIDUAL},
    {"hook_resid_post", GEMMA4_TAP_LAYER_OUTPUT},
    {"hook_pattern", GEMMA4_TAP_ATTN_PROBS},
    {"hook_z", GEMMA4_TAP_ATTN_CONTEXT},
};

/* Whether name is the synonym, or ends with it after a '.', whatever a hook appends. */
static bool ends_with(const char *name, const char *synonym)
{
    static const char *const appended[] = {"", "_outputs", ".output", ".hook_out"};
    size_t n = strlen(name), s = strlen(synonym);
    for (size_t i = 0; i < sizeof appended / sizeof *appended; i++) {
        size_t a = strlen(appended[i]), rest = s + a;
        if (n >= rest && strcmp(name + n - a, appended[i]) == 0 &&
            strncmp(name + n - rest, synonym, s) == 0 && (n == rest || name[n - rest - 1] == '.'))
            return true;
    }
    return false;
}

static const gemma4_tap_info *by_synonym(const parts *p)
{
    static const gemma4_tap_info tokens = {.name = "tokens"};
    for (size_t i = 0; i < sizeof synonyms / sizeof *synonyms; i++) {
        const gemma4_tap_info *tap =
            synonyms[i].tap == TOKENS_NAME ? &tokens : gemma4_tap_describe(synonyms[i].tap);
        if ((tap->per_layer || !p->has_layer) && ends_with(p->local, synonyms[i].name))
            return tap;
    }
    return NULL;
}

const char *gemma4_near_name(const char *name, char near[GEMMA4_TAP_NAME_SIZE])
{
    parts p = {0};
    normalise(name, &p);
    split(&p);
    const gemma4_tap_info *tap = by_letters(&p);
    if (!tap)
        tap = by_synonym(&p);
    return tap ? write_name(&p, tap, near) : NULL;
}
