/* spec/walkthrough.md: each formula gives the numbers beside it, from the case's golden and the
 * committed weights, and its pictures are what their script draws. Read from the current directory,
 * which must be the repository's. */
#include "activations.h"
#include "formula.h"
#include "manifest.h"
#include "ops.h"
#include "reports.h"
#include "rows.h"
#include "safetensors.h"
#include "suites.h"
#include "support.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const char PAGE[] = "spec/walkthrough.md";
static const char CASE[] = "tiny-window-plus-one";

/* Opened before the tests are forked. */
static gemma4_case *the_case;
static gemma4_model *model;
static gemma4_activations *golden;
static gemma4_safetensors *weights;

static void set_up(void)
{
    gemma4_error error = {""};
    the_case = gemma4_case_open(CASE, &error);
    ck_assert_msg(the_case != NULL, "%s", error.message);
    model = gemma4_model_open(the_case->checkpoint_dir, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    golden = gemma4_activations_open(the_case->golden_path, &model->config, &error);
    ck_assert_msg(golden != NULL, "%s", error.message);
    weights = gemma4_safetensors_open_checkpoint(the_case->checkpoint_dir, &error);
    ck_assert_msg(weights != NULL, "%s", error.message);
}

static void tear_down(void)
{
    gemma4_safetensors_close(weights);
    gemma4_activations_close(golden);
    gemma4_model_close(model);
    gemma4_case_close(the_case);
}

/* --- the tensors that a formula may name --- */

enum { MOST_TENSORS = 200 };

/* Those that were read, which stay: a page names the same ones again and again. */
static struct {
    char name[128];
    formula_tensor tensor;
} tensors[MOST_TENSORS];
static size_t tensor_count;

static float *reals(size_t n)
{
    float *values = calloc(n, sizeof *values);
    ck_assert_ptr_nonnull(values);
    return values;
}

static bool read_tap(const char *name, formula_tensor *t)
{
    gemma4_error error = {""};
    gemma4_tap tap;
    size_t layer, T = the_case->token_count, dims[2];
    bool have[64];
    if (!gemma4_tap_parse(name, &tap, &layer))
        return false;
    const gemma4_activation *a = gemma4_activations_find(golden, tap, layer);
    ck_assert_msg(a != NULL && a->usable, "the golden of %s does not hold %s", CASE, name);
    t->rank = 1 + gemma4_tap_dims(&model->config, tap, layer, T, dims);
    t->shape[0] = T;
    t->shape[1] = dims[0];
    t->shape[2] = dims[1];
    size_t width = dims[0] * (t->rank > 2 ? dims[1] : 1);
    float *values = reals(T * width);
    int32_t *ids = calloc(T * width, sizeof *ids);
    bool is_ids = gemma4_tap_describe(tap)->ids;
    ck_assert(T <= sizeof have && ids != NULL);
    int status = gemma4_read_positions(golden, a, 0, T, width, is_ids ? NULL : values,
                                       is_ids ? ids : NULL, have, &error);
    ck_assert_msg(status == 0, "%s", error.message);
    for (size_t i = 0; is_ids && i < T * width; i++)
        values[i] = (float)ids[i];
    free(ids);
    t->values = values;
    return true;
}

static bool read_weight(const char *name, formula_tensor *t)
{
    char full[320];
    snprintf(full, sizeof full, "model.language_model.%s", name);
    const gemma4_tensor *tensor = gemma4_safetensors_find(weights, full);
    if (!tensor)
        return false;
    size_t n = 1;
    t->rank = tensor->rank;
    for (size_t i = 0; i < tensor->rank; i++)
        n *= t->shape[i] = tensor->shape[i];
    gemma4_weight w = {.dtype = tensor->dtype, .data = tensor->data, .rows = 1, .cols = n};
    float *values = reals(n);
    gemma4_weight_row(values, &w, 0);
    t->values = values;
    return true;
}

/* context is the layer whose section the formula stands in: "layers.5.", or "". */
static bool find_tensor(void *context, const char *name, formula_tensor *tensor)
{
    const char *layer = context;
    char full[2][128];
    snprintf(full[0], sizeof full[0], "%s%s", layer, name);
    snprintf(full[1], sizeof full[1], "%s", name);
    for (size_t i = 0; i < 2; i++) {
        for (size_t k = 0; k < tensor_count; k++)
            if (!strcmp(tensors[k].name, full[i])) {
                *tensor = tensors[k].tensor;
                return true;
            }
        if (!read_tap(full[i], tensor) && !read_weight(full[i], tensor))
            continue;
        ck_assert_uint_lt(tensor_count, MOST_TENSORS);
        strcpy(tensors[tensor_count].name, full[i]);
        tensors[tensor_count++].tensor = *tensor;
        return true;
    }
    return false;
}

/* --- formulas --- */

/* Half a unit of the last digit that is written: 0.00005 of "1.2345"; 0 of an integer. */
static double half_unit(const char *number)
{
    const char *point = strchr(number, '.');
    size_t length = strspn(number, "-.0123456789");
    return point && point < number + length ? 0.5 * pow(10, -(double)(number + length - 1 - point))
                                            : 0;
}

/* Whether the values are those that the text writes, one after the other. */
static bool are_written(const double *values, size_t n, const char *numbers)
{
    char *end;
    for (size_t i = 0; i < n; i++) {
        numbers += strspn(numbers, " ");
        double written = strtod(numbers, &end);
        /* The golden is float32: its last bits may lie on the other side of a half. */
        if (end == numbers ||
            !(fabs(values[i] - written) <= half_unit(numbers) + 2e-6 * fabs(values[i])))
            return false;
        numbers = end;
    }
    return numbers[strspn(numbers, " ")] == '\0';
}

/* "A = B = 1.2345 6.7890": each side gives the numbers. The text is cut into pieces. Returns how
 * many sides there are. */
static size_t check_formula(char *text, char *layer)
{
    double values[64];
    char found[1024] = "", problem[FORMULA_PROBLEM];
    size_t sides = 0;
    char *last = NULL;
    for (char *at = text; (at = strstr(at, " = ")) != NULL; at += 3)
        last = at;
    ck_assert_msg(last != NULL, "%s: a formula without numbers: %s", PAGE, text);
    *last = '\0';
    for (char *side = text, *next; side; side = next, sides++) {
        next = strstr(side, " = ");
        if (next) {
            *next = '\0';
            next += 3;
        }
        size_t n =
            test_formula(side, model->config.rms_norm_eps, find_tensor, layer, values, 64, problem);
        ck_assert_msg(n > 0, "%s: %s", PAGE, problem);
        *found = '\0';
        for (size_t i = 0; i < n; i++)
            snprintf(found + strlen(found), sizeof found - strlen(found), " %.4f", values[i]);
        ck_assert_msg(are_written(values, n, last + 3), "%s: %s: expected%s, found %s", PAGE, side,
                      found, last + 3);
    }
    return sides;
}

/* "## Layer 5, a full one" opens a layer, and any other heading of its level closes it. */
static void follow_heading(const char *line, char layer[32])
{
    size_t number;
    if (strncmp(line, "## ", 3) != 0)
        return;
    *layer = '\0';
    if (sscanf(line, "## Layer %zu", &number) == 1)
        snprintf(layer, 32, "layers.%zu.", number);
}

/* Calls check_prose for every line that is no formula; without it, check_formula for every one that
 * is. */
static size_t each_line(void (*check_prose)(const char *line))
{
    char formula[2048] = "", layer[32] = "", line[512];
    size_t count = 0;
    for (const char *at = test_read(PAGE); *at;) {
        size_t length = strcspn(at, "\n");
        ck_assert_uint_lt(length, sizeof line);
        memcpy(line, at, length);
        line[length] = '\0';
        at += length + (at[length] == '\n');
        follow_heading(line, layer);
        bool code = !strncmp(line, "    ", 4), command = !strncmp(line, "    build/", 10) ||
                                                         !strncmp(line, "    gdb ", 8) ||
                                                         !strncmp(line, "    (gdb) ", 10);
        if (!code && check_prose)
            check_prose(line);
        if (!code || command)
            continue;
        if (*formula)
            strcat(formula, " ");
        ck_assert_uint_lt(strlen(formula) + length, sizeof formula);
        strcat(formula, line + strspn(line, " "));
        if (strncmp(at, "        ", 8) == 0) /* goes on on the next line */
            continue;
        if (!check_prose)
            count += check_formula(formula, layer);
        *formula = '\0';
    }
    return count;
}

START_TEST(every_formula_gives_the_numbers_beside_it)
{
    ck_assert_uint_gt(each_line(NULL), 100);
}
END_TEST

/* What a test that compares must see: another digit, another index, and numbers too few and too
 * many. */
static const struct {
    const char *formula;
    bool right;
} FORMULAS[] = {
    {"rms(embed[16,:]) = 0.9105", true},
    {"rms(embed[16,:]) = 0.9106", false},
    {"rms(embed[15,:]) = 0.9105", false},
    {"rms(embed[16,:]) = 0.9105 0.9105", false},
    {"embed[16,0:2] = -1.4688 -0.0608", true},
    {"embed[16,0:2] = -1.4688", false},
    {"embed[16,0:2] = embed_tokens.weight[94,0:2] = -1.4688 -0.0608", false},
    {"layers.0.router.topk_ids[16,:] = 6 0 4 9", true},
    {"layers.0.router.topk_ids[16,:] = 6 0 4 8", false},
    {"layers.0.attn.probs[16,0,0] = 0", true},
    {"layers.0.attn.probs[16,0,1] = 0", false},
    {"2 * (3 - 5) / 8 - -1.5 = 1.0", true},
    {"pow(2, 3) + sqrt(16) * sum(embed[16,0:2]) = 1.8818", true},
};

START_TEST(formulas_are_told_from_wrong_ones)
{
    char text[256];
    strcpy(text, FORMULAS[_i].formula);
    char *last = strrchr(text, '=');
    char problem[FORMULA_PROBLEM];
    double values[64];
    bool right = true;
    for (char *side = text, *next; side < last; side = next) {
        next = strstr(side, " = ");
        *next = '\0';
        next += 3;
        size_t n = test_formula(side, 1e-6, find_tensor, (char[]){""}, values, 64, problem);
        ck_assert_msg(n > 0, "%s", problem);
        right = right && are_written(values, n, last + 2);
    }
    ck_assert_msg(right == FORMULAS[_i].right, "%s", FORMULAS[_i].formula);
}
END_TEST

static const struct {
    const char *text, *problem;
} NO_FORMULAS[] = {
    {"embed[17,0]", "an index within the tensor before here, found \",0]\""},
    {"embed[16]", "expected ,"},
    {"embed[16,0:65]", "an index within the tensor"},
    {"embed[16,4:4]", "an index within the tensor"},
    {"embed[,0]", "an index"},
    {"nothing[0]", "a tap or a weight before here"},
    {"sqrt(1, 2)", "a function with such arguments"},
    {"cube(1)", "a function with such arguments"},
    {"dot(embed[16,0:2], embed[16,0:3])", "a function with such arguments"},
    {"embed[16,0:2] + embed[16,0:3]", "lists of one length"},
    {"1 +", "a number, a tensor or a function, found \"\""},
    {"1 2", "the end, found \"2\""},
    {"(1", "expected )"},
    {"embed[0,:] + embed[1,:]", "fewer values"}, /* than the 60 that the test has room for */
};

START_TEST(what_is_no_formula_is_said)
{
    double values[60];
    char problem[FORMULA_PROBLEM];
    size_t n =
        test_formula(NO_FORMULAS[_i].text, 1e-6, find_tensor, (char[]){""}, values, 60, problem);
    ck_assert_uint_eq(n, 0);
    ck_assert_msg(strstr(problem, NO_FORMULAS[_i].problem) != NULL, "%s", problem);
}
END_TEST

/* In prose there are whole numbers, and sections of spec/model.md. */
static void check_decimals(const char *line)
{
    for (const char *at = line; (at = strchr(at, '.')) != NULL; at++) {
        const char *start = at;
        char heading[32];
        while (start > line && isdigit((unsigned char)start[-1]))
            start--;
        if (start == at || !isdigit((unsigned char)at[1]))
            continue;
        int length = (int)(at + 1 + strspn(at + 1, "0123456789") - start);
        snprintf(heading, sizeof heading, "\n### %.*s ", length, start);
        ck_assert_msg(strstr(test_read("spec/model.md"), heading) != NULL,
                      "%s: %.*s is neither in a formula nor a section of spec/model.md: %s", PAGE,
                      length, start, line);
    }
}

START_TEST(no_number_stands_outside_formulas)
{
    each_line(check_decimals);
}
END_TEST

/* --- pictures --- */

static const char *const PICTURES[] = {"layer.svg", "mask.svg", "rope.svg"};

START_TEST(pictures_are_what_the_script_draws)
{
    char command[4096];
    const char *folder = test_fresh_dir();
    snprintf(command, sizeof command, "sh spec/pictures.sh '%s'", folder);
    ck_assert_int_eq(system(command), 0);
    for (size_t i = 0; i < sizeof PICTURES / sizeof *PICTURES; i++) {
        const char *committed = test_read(test_join("spec/pictures", PICTURES[i]));
        ck_assert_msg(!strcmp(committed, test_read(test_join(folder, PICTURES[i]))),
                      "spec/pictures/%s is not what spec/pictures.sh draws", PICTURES[i]);
    }
}
END_TEST

/* The picture of a layer has each tap of a layer, once, and nothing that is none. */
START_TEST(the_layer_s_picture_has_its_taps)
{
    const char *picture = test_read("spec/pictures/layer.svg");
    size_t taps = 0;
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
        char text[80];
        const gemma4_tap_info *info = gemma4_tap_describe((gemma4_tap)tap);
        snprintf(text, sizeof text, "class=\"tap mid\">%s</text>", info->name);
        size_t expected = info->per_layer;
        ck_assert_msg(test_occurrences(picture, text) == expected, "layer.svg: expected %zu of %s",
                      expected, info->name);
        taps += expected;
    }
    ck_assert_uint_eq(test_occurrences(picture, "class=\"tap mid\""), taps);
}
END_TEST

Suite *walkthrough_suite(void)
{
    Suite *suite = suite_create("walkthrough");
    TCase *c = tcase_create("all");
    tcase_add_unchecked_fixture(c, set_up, tear_down);
    tcase_set_timeout(c, 60);
    tcase_add_test(c, every_formula_gives_the_numbers_beside_it);
    tcase_add_loop_test(c, formulas_are_told_from_wrong_ones, 0,
                        sizeof FORMULAS / sizeof *FORMULAS);
    tcase_add_loop_test(c, what_is_no_formula_is_said, 0, sizeof NO_FORMULAS / sizeof *NO_FORMULAS);
    tcase_add_test(c, no_number_stands_outside_formulas);
    tcase_add_test(c, pictures_are_what_the_script_draws);
    tcase_add_test(c, the_layer_s_picture_has_its_taps);
    suite_add_tcase(suite, c);
    return suite;
}
