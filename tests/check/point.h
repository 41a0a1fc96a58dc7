/* A point of the space of mistakes: a few settings, as a counter-model. */
#ifndef GEMMA4_POINT_H
#define GEMMA4_POINT_H

#include "counter_model.h"

enum { GEMMA4_POINT_SETTINGS = 3 };

typedef struct gemma4_point {
    gemma4_counter_model model; /* the first member: a point is a counter-model */
    gemma4_setting settings[GEMMA4_POINT_SETTINGS];
    /* the evidence leaves a number between these */
    double low[GEMMA4_POINT_SETTINGS], high[GEMMA4_POINT_SETTINGS];
    char expression[GEMMA4_POINT_SETTINGS][64]; /* a number that the config's quantities make:
                                                   "head_dim^-0.5"; "" for none */
    size_t count;
    char wrong[400], right[200];
} gemma4_point;

/* The point with these settings, which holds in layers of the kinds `where`: GEMMA4_ON_... To be
 * freed with free; NULL when out of memory. */
gemma4_point *gemma4_point_new(const gemma4_config *config, const gemma4_setting *settings,
                               size_t count, int where);
/* Puts the settings in dataflow order, before expressions and sentences are written: points with
 * the same settings then compare. */
void gemma4_point_sort(gemma4_point *point);
/* --- sentences (point_say.c) --- */

/* What each setting says, once, with the steps that share it: "rms_norm_eps = 0.001 (expected
 * 1e-06) at attn.norm, attn.q_norm". places: a bit for each of those, of every setting; NULL for
 * the settings' own. seen: a step that is not repeated where it is the only one; GEMMA4_TAP_COUNT:
 * none. layer: one of those that it concerns. */
void gemma4_point_sentence(const gemma4_point *point, const gemma4_config *config, size_t layer,
                           const uint64_t *places, gemma4_tap seen, char *text, size_t size);
/* The steps of a setting that are worth telling: not those of attention and of both rotations,
 * which go together. */
uint64_t gemma4_setting_places(const gemma4_setting *setting, uint64_t places);
/* Writes the sentences anew, after a number has changed. layer: one of those that it concerns. */
void gemma4_point_say(gemma4_point *point, const gemma4_config *config, size_t layer);

/* Puts in the place of each number that was solved for the plainest that its interval holds: few
 * digits, or what the config's quantities make. */
void gemma4_point_recognise(gemma4_point *point, const gemma4_config *config, size_t layer);
/* How many decimal digits a number takes, up to 7. */
size_t gemma4_digits_of(double number);
/* A counter-model that is a point; NULL for a catalogued one. */
const gemma4_point *gemma4_point_of(const gemma4_counter_model *model);
/* Do both say the same: the same words, and numbers that each lie in the other's interval? Their
 * steps may differ. */
bool gemma4_points_agree(const gemma4_point *a, const gemma4_point *b);

/* A value as reports write it, "4", "rows heads reversed", "[3, 2, 1, 0]"; and what is right in its
 * place ("" where that is no value). */
void gemma4_setting_value(const gemma4_setting *setting, const gemma4_config *config, size_t layer,
                          char *text, size_t size);
void gemma4_setting_expected(const gemma4_setting *setting, const gemma4_config *config,
                             size_t layer, char *text, size_t size);
/* The weight that a parameter of weights is about, at its first step; and at any. */
const char *gemma4_setting_tensor(const gemma4_setting *setting);
const char *gemma4_tensor_of_step(gemma4_tap step);
/* Does a setting of it round? */
bool gemma4_point_rounds(const gemma4_point *point);
/* The first step that it changes. */
gemma4_tap gemma4_setting_step(const gemma4_setting *setting);

#endif
