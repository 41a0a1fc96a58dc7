#include "selftest.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "counter_model.h"
#include "model.h"
#include "noise.h"
#include "opened_cases.h"
#include "taps.h"
#include "workers.h"

const gemma4_grid_column gemma4_grid[GEMMA4_GRID_COLUMNS] = {
    {"float32", GEMMA4_SET_ALL, 1, 0.98, 0.97, 0.02},
    {"float32", GEMMA4_SET_LAYERS, 0.98, 0.98, 0.95, 1},
    {"float32", GEMMA4_SET_LOGITS, 0.98, 0, 0.90, 1},
    {"bfloat16", GEMMA4_SET_ALL, 0.98, 0.95, 0.92, 0.15},
    {"bfloat16", GEMMA4_SET_LAYERS, 0.95, 0.90, 0.75, 1},
};

/* A mistake is planted on the first of them that shows it. */
const char *const gemma4_matrix_cases[GEMMA4_MATRIX_CASES] = {
    "tiny-prompt",    "tiny-chunks", "tiny-window-crossings", "moe128-prompt",
    "wide256-prompt", "tiny-far",    "tiny-decode",           "uneven96-prompt",
};

static const char *const honest_tiers[] = {"float32", "bfloat16", "float16"};
enum {
    HONEST_TIERS = sizeof honest_tiers / sizeof *honest_tiers,
    SEEDS_FOR_MATRIX = 5,
    SEEDS_ALONE = 20
};

/* ------------------------------------------------------------- what is run */

/* What one run of the self-test works with. */
typedef struct self_test {
    const gemma4_self_test_options *options;
    gemma4_opened_cases cases; /* opened before the processes are forked */
    /* Honest runs: */
    size_t seeds;
    bool every_tier;      /* all tiers and tap sets instead of the grid's columns */
    gemma4_trial *honest; /* shared */
    /* The matrix: */
    gemma4_matrix *matrix;
    gemma4_matrix_row *rows; /* shared */
} self_test;

static bool is_asked(const self_test *t, const char *tier, gemma4_tap_set set)
{
    return (!t->options->tier || !strcmp(t->options->tier, tier)) &&
           (!t->options->tap_set || !strcmp(t->options->tap_set, gemma4_tap_set_name(set)));
}

/* ---------------------------------------------------------- honest engines */

static size_t honest_columns(const self_test *t)
{
    return t->every_tier ? HONEST_TIERS * GEMMA4_SET_COUNT : GEMMA4_GRID_COLUMNS;
}

static gemma4_grid_column honest_column(const self_test *t, size_t column)
{
    if (!t->every_tier)
        return gemma4_grid[column];
    return (gemma4_grid_column){.tier = honest_tiers[column / GEMMA4_SET_COUNT],
                                .taps = (gemma4_tap_set)(column % GEMMA4_SET_COUNT)};
}

/* The matrix always needs the honest errors of its first column: they choose the cases. */
static bool is_run(const self_test *t, size_t column)
{
    const gemma4_grid_column c = honest_column(t, column);
    return is_asked(t, c.tier, c.taps) || (!t->every_tier && column == 0);
}

/* Are --tier and --tap-set such that there is something to run? */
static int check_asked(const self_test *t, gemma4_error *error)
{
    for (size_t column = 0; column < honest_columns(t); column++) {
        const gemma4_grid_column c = honest_column(t, column);
        if (is_asked(t, c.tier, c.taps))
            return 0;
    }
    return gemma4_fail(error,
                       "--tier %s --tap-set %s: expected tiers and tap sets that the self-test has "
                       "(spec/kill-matrix.md), found none",
                       t->options->tier ? t->options->tier : "any",
                       t->options->tap_set ? t->options->tap_set : "any");
}

/* The i-th honest run: (seed, case, column), column fastest. */
static void honest_work(void *context, size_t i)
{
    self_test *t = context;
    gemma4_error error = {""};
    size_t columns = honest_columns(t), number = i / columns % t->cases.count;
    const gemma4_grid_column column = honest_column(t, i % columns);
    const gemma4_opened_case *c = &t->cases.list[number];
    gemma4_simulation s = {.the_case = c->the_case,
                           .model = c->model,
                           .tier = column.tier,
                           .stochastic = true,
                           .seed = 1000 + i / columns / t->cases.count,
                           .only_layer = {-1, -1},
                           .taps = column.taps};
    if (is_run(t, i % columns))
        gemma4_trial_run(&s, NULL, !t->every_tier, t->cases.directory, &t->honest[i], &error);
}

static int run_honest(self_test *t, gemma4_error *error)
{
    size_t count = honest_columns(t) * t->cases.count * t->seeds;
    t->honest = gemma4_shared_new(count * sizeof *t->honest, error);
    return t->honest ? gemma4_workers_run(count, t->options->jobs, "honest", honest_work, t, error)
                     : -1;
}

static size_t honest_count(const self_test *t)
{
    return honest_columns(t) * t->cases.count * t->seeds;
}

/* The largest error / tolerance of each column, and one line per alarm. */
static void count_honest(self_test *t, FILE *out, size_t *runs, size_t *alarms, size_t *unusable)
{
    size_t columns = honest_columns(t);
    *runs = *alarms = *unusable = 0;
    for (size_t i = 0; i < honest_count(t); i++) {
        const gemma4_trial *trial = &t->honest[i];
        const gemma4_grid_column column = honest_column(t, i % columns);
        const char *id = t->cases.list[i / columns % t->cases.count].the_case->id;
        char tap[GEMMA4_TAP_NAME_SIZE] = "nothing";
        if (!is_run(t, i % columns))
            continue;
        ++*runs;
        *unusable += !trial->judged;
        if (!trial->judged)
            fprintf(out, "unusable: %s %s %s: %s\n", id, column.tier,
                    gemma4_tap_set_name(column.taps), trial->message);
        if (!trial->judged || (!trial->detected && !trial->name[0]))
            continue;
        ++*alarms;
        if (trial->first_tap < GEMMA4_TAP_COUNT)
            gemma4_tap_name(trial->first_tap, trial->first_layer, tap);
        fprintf(out, "alarm: %s %s %s seed %zu: %s, %s\n", id, column.tier,
                gemma4_tap_set_name(column.taps), i / columns / t->cases.count, tap,
                trial->name[0] ? trial->name : "no name");
    }
}

/* The largest ratio of one column at one kind of tap; GEMMA4_TAP_COUNT: at any. */
static double honest_worst(const self_test *t, size_t column, gemma4_tap tap)
{
    size_t columns = honest_columns(t);
    double worst = 0;
    for (size_t i = column; i < honest_count(t); i += columns)
        for (int k = 0; k < GEMMA4_TAP_COUNT; k++)
            if (t->honest[i].judged && (tap == GEMMA4_TAP_COUNT || tap == (gemma4_tap)k))
                worst = fmax(worst, t->honest[i].worst[k]);
    return worst;
}

/* Puts the ids of the cases that are run into chosen, [count]: all but those of many positions, or
 * the one that is asked for. Returns how many there are, 0 on failure. */
static size_t choose_cases(const self_test *t, char **ids, size_t count, const char **chosen,
                           gemma4_error *error)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        gemma4_case *c = gemma4_case_open(ids[i], error);
        if (!c)
            return 0;
        if (t->options->case_id || !gemma4_case_has_flag(c, GEMMA4_MANY_POSITIONS))
            chosen[n++] = ids[i];
        gemma4_case_close(c);
    }
    if (!n)
        gemma4_fail(error, "self-test --honest: expected at least one case, found none");
    return n;
}

static int open_honest_cases(self_test *t, gemma4_error *error)
{
    char **ids;
    size_t count;
    if (gemma4_case_ids(&ids, &count, error))
        return -1;
    const char **chosen = calloc(count ? count : 1, sizeof *chosen);
    size_t n = chosen ? choose_cases(t, ids, count, chosen, error) : 0;
    int status = !chosen ? gemma4_fail(error, "self-test: out of memory")
                 : n     ? gemma4_open_cases(&t->cases, chosen, n, t->options->case_id, error)
                         : -1;
    free(chosen);
    gemma4_case_ids_free(ids, count);
    return status;
}

/* What could not be judged is no matter of rates. */
static int fail_unusable(size_t count, const char *what, gemma4_error *error)
{
    return gemma4_fail(error, "self-test: %zu %s could not be judged", count, what);
}

int gemma4_self_test_honest(const gemma4_self_test_options *options, FILE *out, bool *reached,
                            gemma4_error *error)
{
    self_test t = {.options = options,
                   .every_tier = true,
                   .seeds = options->seeds ? options->seeds : SEEDS_ALONE};
    size_t runs, alarms, unusable;
    *reached = false;
    int status =
        check_asked(&t, error) || open_honest_cases(&t, error) || run_honest(&t, error) ? -1 : 0;
    if (!status) {
        count_honest(&t, out, &runs, &alarms, &unusable);
        for (size_t column = 0; column < honest_columns(&t); column++) {
            gemma4_grid_column c = honest_column(&t, column);
            if (is_asked(&t, c.tier, c.taps))
                fprintf(out, "%-9s %-6s worst error / tolerance %.3f\n", c.tier,
                        gemma4_tap_set_name(c.taps), honest_worst(&t, column, GEMMA4_TAP_COUNT));
        }
        fprintf(out,
                "honest reference: %zu runs (%zu cases, %zu seeds a tier and tap set), %zu alarms, "
                "%zu unusable\n",
                runs, t.cases.count, t.seeds, alarms, unusable);
        *reached = runs > 0 && alarms == 0;
        if (unusable)
            status = fail_unusable(unusable, "honest engines", error);
    }
    gemma4_shared_free(t.honest, honest_count(&t) * sizeof *t.honest);
    gemma4_close_cases(&t.cases);
    return status;
}

/* ------------------------------------------------------------- the matrix */

static gemma4_simulation planted_simulation(const gemma4_opened_case *c,
                                            const gemma4_counter_model *model,
                                            const gemma4_grid_column *column)
{
    return (gemma4_simulation){.the_case = c->the_case,
                               .model = c->model,
                               .tier = column->tier,
                               .seed = 7,
                               .planted = {model},
                               .only_layer = {-1, -1},
                               .taps = column->taps};
}

/* The first case on which the mistake's effect is visible in float32 with all taps; where it is so
 * on none, the one with the largest effect. */
static size_t choose_case(const self_test *t, const gemma4_counter_model *model)
{
    size_t best = 0;
    double largest = -1;
    for (size_t i = 0; i < t->cases.count; i++) {
        gemma4_error error = {""};
        gemma4_trial trial;
        gemma4_simulation s = planted_simulation(&t->cases.list[i], model, &gemma4_grid[0]);
        if (gemma4_trial_run(&s, t->matrix->honest[0], true, t->cases.directory, &trial, &error))
            return i; /* the judgement that follows says what is wrong */
        if (trial.shows)
            return i;
        if (trial.effect > largest) {
            best = i;
            largest = trial.effect;
        }
    }
    return best;
}

/* The i-th counter-model: all its judgements. */
static void matrix_work(void *context, size_t i)
{
    self_test *t = context;
    const gemma4_counter_model *model = gemma4_counter_model_at(i);
    gemma4_matrix_row *row = &t->rows[i];
    if (t->options->cause && strcmp(t->options->cause, model->id))
        return;
    size_t number = choose_case(t, model);
    for (size_t column = 0; column < GEMMA4_GRID_COLUMNS; column++) {
        const gemma4_grid_column *g = &gemma4_grid[column];
        gemma4_error error = {""};
        row->permitted[column] =
            gemma4_counter_model_is_permitted(model, gemma4_tier_of(g->tier)->unit);
        if (!t->matrix->asked[column] || row->permitted[column])
            continue;
        gemma4_simulation s = planted_simulation(&t->cases.list[number], model, g);
        gemma4_trial_run(&s, t->matrix->honest[column], false, t->cases.directory,
                         &row->trials[column], &error);
    }
    for (int k = 0; k < GEMMA4_MATRIX_CASES; k++)
        if (!strcmp(gemma4_matrix_cases[k], t->cases.list[number].the_case->id))
            row->case_index = k;
    row->done = true;
}

static bool at_least(size_t part, size_t of, double share)
{
    return of == 0 || (double)part >= share * (double)of;
}

gemma4_matrix_rates gemma4_matrix_rates_of(const gemma4_matrix *matrix, size_t column)
{
    const gemma4_grid_column *g = &gemma4_grid[column];
    gemma4_matrix_rates r = {0};
    for (size_t i = 0; i < matrix->rows_count; i++) {
        const gemma4_trial *trial = &matrix->rows[i].trials[column];
        r.permitted += matrix->rows[i].done && matrix->rows[i].permitted[column];
        if (!trial->judged)
            continue;
        r.judged++;
        if (!trial->visible) {
            r.invisible++;
            continue;
        }
        r.visible++;
        r.detected += trial->detected;
        r.first += trial->detected && trial->first_right;
        r.named += trial->named;
        r.itself += trial->named_itself;
        r.wrong += trial->wrong_name;
    }
    r.reached = at_least(r.detected, r.visible, g->detected) &&
                at_least(r.first, r.visible, g->first) && at_least(r.named, r.visible, g->named) &&
                (double)r.wrong <= GEMMA4_LARGEST_SHARE_OF_WRONG_NAMES * (double)r.visible &&
                (double)r.invisible <= g->invisible * (double)r.judged;
    return r;
}

/* One line; true where everything is reached. */
static bool summarise(FILE *out, const gemma4_matrix *matrix, size_t unusable)
{
    size_t judged = 0, visible = 0, detected = 0, named = 0, wrong = 0;
    bool reached = matrix->honest_alarms == 0;
    for (size_t column = 0; column < GEMMA4_GRID_COLUMNS; column++) {
        gemma4_matrix_rates r = gemma4_matrix_rates_of(matrix, column);
        judged += r.judged;
        visible += r.visible;
        detected += r.detected;
        named += r.named;
        wrong += r.wrong;
        reached = reached && (!matrix->asked[column] || r.reached);
    }
    fprintf(out,
            "kill matrix: %zu judgements, %zu visible, %zu detected, %zu named, %zu wrong names; "
            "%zu honest runs, %zu alarms; %zu unusable: %s\n",
            judged, visible, detected, named, wrong, matrix->honest_runs, matrix->honest_alarms,
            unusable,
            unusable            ? "not everything is judged"
            : reached && judged ? "all rates reached"
                                : "rates not reached");
    return reached && judged > 0;
}

static size_t count_unusable(FILE *out, const gemma4_matrix *matrix,
                             const gemma4_self_test_options *options)
{
    size_t unusable = 0;
    for (size_t i = 0; i < matrix->rows_count; i++) {
        const gemma4_counter_model *model = gemma4_counter_model_at(i);
        if (options->cause && strcmp(options->cause, model->id))
            continue;
        if (!matrix->rows[i].done) {
            unusable++;
            fprintf(out, "unusable: %s: the process that judged it died\n", model->id);
        }
        for (size_t column = 0; column < GEMMA4_GRID_COLUMNS; column++) {
            const gemma4_trial *trial = &matrix->rows[i].trials[column];
            unusable += trial->message[0] != '\0';
            if (trial->message[0])
                fprintf(out, "unusable: %s: %s\n", model->id, trial->message);
        }
    }
    return unusable;
}

static int prepare(self_test *t, FILE *out, gemma4_error *error)
{
    gemma4_matrix *matrix = t->matrix;
    size_t unusable;
    if (t->options->cause && !gemma4_cause_exists(t->options->cause))
        return gemma4_fail(
            error, "--cause: expected an id of the catalogue (gemma4-check explain), found '%s'",
            t->options->cause);
    if (check_asked(t, error))
        return -1;
    for (size_t column = 0; column < GEMMA4_GRID_COLUMNS; column++)
        matrix->asked[column] = is_asked(t, gemma4_grid[column].tier, gemma4_grid[column].taps);
    if (gemma4_open_cases(&t->cases, gemma4_matrix_cases, GEMMA4_MATRIX_CASES, t->options->case_id,
                          error) ||
        run_honest(t, error))
        return -1;
    count_honest(t, out, &matrix->honest_runs, &matrix->honest_alarms, &unusable);
    if (unusable)
        return fail_unusable(unusable, "honest engines", error);
    for (size_t column = 0; column < GEMMA4_GRID_COLUMNS; column++)
        for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
            matrix->honest[column][tap] = honest_worst(t, column, (gemma4_tap)tap);
    return 0;
}

int gemma4_self_test(const gemma4_self_test_options *options, FILE *out, FILE *page, bool *reached,
                     gemma4_error *error)
{
    gemma4_matrix matrix = {.rows_count = gemma4_counter_model_count()};
    self_test t = {.options = options,
                   .matrix = &matrix,
                   .seeds = options->seeds ? options->seeds : SEEDS_FOR_MATRIX};
    *reached = false;
    int status = prepare(&t, out, error);
    t.rows = status ? NULL : gemma4_shared_new(matrix.rows_count * sizeof *t.rows, error);
    matrix.rows = t.rows;
    if (t.rows) {
        gemma4_error died = {""};
        if (gemma4_workers_run(matrix.rows_count, options->jobs, "planted", matrix_work, &t, &died))
            fprintf(out, "%s\n", died.message);
        size_t unusable = count_unusable(out, &matrix, options);
        if (page)
            gemma4_matrix_markdown(page, &matrix);
        *reached = summarise(out, &matrix, unusable);
        status = unusable ? fail_unusable(unusable, "mistakes", error) : 0;
    }
    status = t.rows ? status : -1;
    gemma4_shared_free(t.rows, matrix.rows_count * sizeof *t.rows);
    gemma4_shared_free(t.honest, honest_count(&t) * sizeof *t.honest);
    gemma4_close_cases(&t.cases);
    return status;
}
