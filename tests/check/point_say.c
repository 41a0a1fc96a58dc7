/* Sentences of points: each parameter once, with the steps that share its value. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "point.h"

static bool is_of_attention(gemma4_parameter p)
{
    return p >= GEMMA4_PARAMETER_WINDOW && p <= GEMMA4_PARAMETER_K_HEAD_OF;
}

static bool is_about_weight(const gemma4_setting *s)
{
    return !strncmp(gemma4_parameter_describe(s->parameter)->name, "weight", 6);
}

uint64_t gemma4_setting_places(const gemma4_setting *s, uint64_t places)
{
    const uint64_t rotations =
        GEMMA4_STEP(GEMMA4_TAP_ATTN_Q_ROPE) | GEMMA4_STEP(GEMMA4_TAP_ATTN_K_ROPE);
    bool of_rope = s->parameter >= GEMMA4_PARAMETER_ROPE_THETA &&
                   s->parameter <= GEMMA4_PARAMETER_ROPE_ROUNDED;
    return is_of_attention(s->parameter) || (of_rope && places == rotations) ? 0 : places;
}

static const char *place_name(gemma4_tap tap, bool tensor)
{
    return tensor ? gemma4_tensor_of_step(tap) : gemma4_tap_describe(tap)->name;
}

/* "attn.norm, attn.q_norm", or the weights that these steps read; "..." where there is no room for
 * more. */
static void list_places(uint64_t places, bool tensors, char *text, size_t size)
{
    size_t n = 0;
    text[0] = '\0';
    for (int tap = 0; tap < GEMMA4_TAP_COUNT && n + 48 < size; tap++)
        if (places & GEMMA4_STEP(tap))
            n += (size_t)snprintf(text + n, size - n, "%s%s", n ? ", " : "",
                                  n + 96 > size ? "..." : place_name((gemma4_tap)tap, tensors));
}

static void say_setting(const gemma4_point *p, size_t i, const gemma4_config *c, size_t layer,
                        uint64_t places, char *text, size_t size)
{
    const gemma4_setting *s = &p->settings[i];
    const gemma4_parameter_info *info = gemma4_parameter_describe(s->parameter);
    char value[200], expected[200], where[320], interval[80] = "", right[240] = "";
    bool of_weight = is_about_weight(s);
    gemma4_setting_value(s, c, layer, value, sizeof value);
    gemma4_setting_expected(s, c, layer, expected, sizeof expected);
    list_places(of_weight ? s->steps | places : places, of_weight, where, sizeof where);
    if (info->domain == GEMMA4_DOMAIN_REAL && isfinite(s->number) &&
        p->high[i] - p->low[i] > 0.01 * fabs(s->number))
        snprintf(interval, sizeof interval, ", between %.5g and %.5g", p->low[i], p->high[i]);
    if (expected[0])
        snprintf(right, sizeof right, " (expected %s)", expected);
    size_t n =
        (size_t)snprintf(text, size, "%s%s%s = %s%s%s%s%s", info->name, of_weight ? " of " : "",
                         of_weight ? where : "", value, p->expression[i][0] ? " = " : "",
                         p->expression[i], interval, right);
    if (!of_weight && where[0] && n < size)
        snprintf(text + n, size - n, " at %s", where);
}

void gemma4_point_sentence(const gemma4_point *p, const gemma4_config *c, size_t layer,
                           const uint64_t *places, gemma4_tap seen, char *text, size_t size)
{
    text[0] = '\0';
    for (size_t i = 0; i < p->count; i++) {
        size_t n = strlen(text);
        uint64_t steps =
            gemma4_setting_places(&p->settings[i], places ? places[i] : p->settings[i].steps);
        if (seen != GEMMA4_TAP_COUNT && steps == GEMMA4_STEP(seen))
            steps = 0;
        if (n + 4 < size && i)
            n += (size_t)snprintf(text + n, size - n, "; ");
        say_setting(p, i, c, layer, steps, text + n, size - n);
    }
}

void gemma4_point_say(gemma4_point *p, const gemma4_config *c, size_t layer)
{
    gemma4_point_sentence(p, c, layer, NULL, GEMMA4_TAP_COUNT, p->wrong, sizeof p->wrong);
    snprintf(p->right, sizeof p->right, "as spec/model.md says");
}
