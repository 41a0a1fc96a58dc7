#include "sample.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "counter_model.h"
#include "model.h"
#include "opened_cases.h"
#include "workers.h"

static const char *const kind_names[GEMMA4_SAMPLE_KINDS] = {"honest", "planted", "pair"};

/* One judgement: an engine in a column. */
typedef struct task {
    const gemma4_sample_column *column;
    const gemma4_sample_row *row;
    gemma4_simulation simulation;
} task;

typedef struct sample_run {
    const gemma4_sample *sample;
    gemma4_opened_cases cases; /* opened before the processes are forked */
    task *tasks;               /* column by column */
    size_t count;
    gemma4_trial *trials; /* [count], shared */
    atomic_bool *stop;    /* shared */
    bool to_first_miss;
} sample_run;

/* -------------------------------------------------------------- what is run */

static bool is_in(const gemma4_sample_column *column, const gemma4_sample_row *row)
{
    char key[64];
    snprintf(key, sizeof key, "%s %s", column->tier, gemma4_tap_set_name(column->taps));
    return row->kind == column->kind && (!row->in || strstr(row->in, key));
}

static size_t runs_of(const gemma4_sample_row *row)
{
    return row->kind == GEMMA4_HONEST ? row->seeds : 1;
}

static const gemma4_counter_model *find_model(const gemma4_sample_fault *fault)
{
    for (size_t i = 0; i < gemma4_counter_model_count(); i++) {
        const gemma4_counter_model *m = gemma4_counter_model_at(i);
        if (!strcmp(m->id, fault->id) && !strcmp(m->variant, fault->variant))
            return m;
    }
    return NULL;
}

static int make_task(const sample_run *r, const gemma4_sample_column *column,
                     const gemma4_sample_row *row, size_t seed, task *made, gemma4_error *error)
{
    const gemma4_opened_case *c = gemma4_opened_case_of(&r->cases, row->case_id);
    bool honest = row->kind == GEMMA4_HONEST;
    gemma4_simulation s = {.the_case = c->the_case,
                           .model = c->model,
                           .tier = column->tier,
                           .stochastic = honest,
                           .seed = honest ? 3000 + seed : 7,
                           .taps = column->taps};
    for (size_t i = 0; i < 2; i++) {
        const gemma4_sample_fault *fault = &row->faults[i];
        s.planted[i] = fault->id ? find_model(fault) : NULL;
        s.only_layer[i] = fault->layer;
        if (fault->id && !s.planted[i])
            return gemma4_fail(error, "sample: expected a counter-model, found '%s' (%s)",
                               fault->id, fault->variant);
    }
    *made = (task){.column = column, .row = row, .simulation = s};
    return 0;
}

static int make_tasks(sample_run *r, gemma4_error *error)
{
    const gemma4_sample *sample = r->sample;
    size_t most = 0;
    for (size_t i = 0; i < sample->row_count; i++)
        most += runs_of(&sample->rows[i]) * sample->column_count;
    r->tasks = calloc(most ? most : 1, sizeof *r->tasks);
    if (!r->tasks)
        return gemma4_fail(error, "sample: out of memory");
    for (size_t column = 0; column < sample->column_count; column++)
        for (size_t i = 0; i < sample->row_count; i++)
            for (size_t seed = 0; seed < runs_of(&sample->rows[i]) &&
                                  is_in(&sample->columns[column], &sample->rows[i]);
                 seed++)
                if (make_task(r, &sample->columns[column], &sample->rows[i], seed,
                              &r->tasks[r->count++], error))
                    return -1;
    return r->count ? 0 : gemma4_fail(error, "sample: nothing to run");
}

static int open_cases(sample_run *r, gemma4_error *error)
{
    const gemma4_sample *sample = r->sample;
    const char **ids = calloc(sample->row_count + 1, sizeof *ids);
    size_t count = 0;
    if (!ids)
        return gemma4_fail(error, "sample: out of memory");
    for (size_t i = 0; i < sample->row_count; i++) {
        bool seen = false;
        for (size_t k = 0; k < count; k++)
            seen = seen || !strcmp(ids[k], sample->rows[i].case_id);
        if (!seen)
            ids[count++] = sample->rows[i].case_id;
    }
    int status = gemma4_open_cases(&r->cases, ids, count, NULL, error);
    free(ids);
    return status;
}

/* ----------------------------------------------------------------- judging */

/* The tap that must be reported first: of a dump of layer outputs, the output of the layer at hand;
 * the embedding's error is seen in layer 0's. False where the dump holds the logits only. */
static bool expected_first(const task *t, gemma4_tap *tap, size_t *layer)
{
    bool known = gemma4_tap_parse(t->row->first, tap, layer);
    if (known && t->column->taps == GEMMA4_SET_LAYERS)
        *tap = gemma4_tap_describe(*tap)->per_layer || *tap == GEMMA4_TAP_EMBED
                   ? GEMMA4_TAP_LAYER_OUTPUT
                   : GEMMA4_TAP_LOGITS;
    return known && t->column->taps != GEMMA4_SET_LOGITS;
}

static const char *name_of(const gemma4_trial *trial, char name[GEMMA4_TAP_NAME_SIZE])
{
    return trial->first_tap < GEMMA4_TAP_COUNT
               ? gemma4_tap_name(trial->first_tap, trial->first_layer, name)
               : "nothing";
}

/* What is wrong with a judgement, as words; "" for nothing. */
static const char *miss(const task *t, const gemma4_trial *trial)
{
    gemma4_tap tap;
    size_t layer;
    size_t faults = t->row->kind == GEMMA4_PAIR ? 2 : 1;
    if (!trial->judged)
        return trial->message[0] ? trial->message : "not judged";
    if (t->row->kind == GEMMA4_HONEST)
        return trial->detected || trial->causes ? "an alarm" : "";
    if (!trial->detected)
        return "not detected";
    if (expected_first(t, &tap, &layer) && (trial->first_tap != tap || trial->first_layer != layer))
        return "reported first elsewhere";
    for (size_t i = 0; i < faults; i++)
        if (!trial->listed[i])
            return faults == 1 ? "not named" : "not both are named";
    return trial->wrong_name ? "another name" : trial->causes > faults ? "one cause too many" : "";
}

static void work(void *context, size_t i)
{
    sample_run *r = context;
    gemma4_error error = {""};
    if (r->to_first_miss && atomic_load(r->stop))
        return;
    gemma4_trial_run(&r->tasks[i].simulation, NULL, false, r->cases.directory, &r->trials[i],
                     &error);
    if (miss(&r->tasks[i], &r->trials[i])[0])
        atomic_store(r->stop, true);
}

static void print_miss(FILE *out, const task *t, const gemma4_trial *trial)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    const gemma4_sample_row *row = t->row;
    fprintf(out, "MISS  %s %s %s %s", kind_names[row->kind], row->case_id, t->column->tier,
            gemma4_tap_set_name(t->column->taps));
    for (size_t i = 0; i < 2 && row->faults[i].id; i++)
        fprintf(out, "%s%s%s%s%s", i ? " + " : " ", row->faults[i].id,
                row->faults[i].variant[0] ? " (" : "", row->faults[i].variant,
                row->faults[i].variant[0] ? ")" : "");
    fprintf(out, ": %s; expected first at %s, found %s; %zu causes, %s\n", miss(t, trial),
            row->first ? row->first : "nothing", name_of(trial, name), trial->causes,
            trial->name[0] ? trial->name : "no name");
}

/* The engines of a column: how many there are, and how many are judged right. */
static void count_column(const sample_run *r, const gemma4_sample_column *column, FILE *out,
                         size_t *engines, size_t *right)
{
    *engines = *right = 0;
    for (size_t i = 0; i < r->count; i++) {
        if (r->tasks[i].column != column)
            continue;
        bool good = !miss(&r->tasks[i], &r->trials[i])[0];
        ++*engines;
        *right += good;
        if (!good)
            print_miss(out, &r->tasks[i], &r->trials[i]);
    }
}

/* One line; true where every column reaches its least part. */
static bool summarise(const sample_run *r, FILE *out)
{
    size_t total[GEMMA4_SAMPLE_KINDS] = {0}, good[GEMMA4_SAMPLE_KINDS] = {0};
    bool reached = true;
    for (size_t i = 0; i < r->sample->column_count; i++) {
        const gemma4_sample_column *c = &r->sample->columns[i];
        size_t engines, right;
        count_column(r, c, out, &engines, &right);
        total[c->kind] += engines;
        good[c->kind] += right;
        bool enough = engines > 0 && (double)right >= c->least * (double)engines;
        if (!enough)
            fprintf(out, "%s %s %s: %zu of %zu judged right, expected at least %g %%\n",
                    kind_names[c->kind], c->tier, gemma4_tap_set_name(c->taps), right, engines,
                    100 * c->least);
        reached = reached && enough;
    }
    fprintf(out,
            "sample: judged right are %zu of %zu honest engines, %zu of %zu planted mistakes, %zu "
            "of %zu pairs: %s\n",
            good[GEMMA4_HONEST], total[GEMMA4_HONEST], good[GEMMA4_PLANTED], total[GEMMA4_PLANTED],
            good[GEMMA4_PAIR], total[GEMMA4_PAIR],
            reached ? "every rate reached" : "rates not reached");
    return reached;
}

static int check_taps(const gemma4_sample *sample, gemma4_error *error)
{
    gemma4_tap tap;
    size_t layer;
    for (size_t i = 0; i < sample->row_count; i++)
        if (sample->rows[i].kind != GEMMA4_HONEST &&
            !(sample->rows[i].first && gemma4_tap_parse(sample->rows[i].first, &tap, &layer)))
            return gemma4_fail(error, "sample: %s: expected the tap where it is seen first",
                               sample->rows[i].faults[0].id);
    return 0;
}

/* The judgements that were made when the first one was wrong. */
static void print_stopped(const sample_run *r, FILE *out)
{
    for (size_t i = 0; i < r->count; i++)
        if ((r->trials[i].judged || r->trials[i].message[0]) &&
            miss(&r->tasks[i], &r->trials[i])[0])
            print_miss(out, &r->tasks[i], &r->trials[i]);
    fputs("sample: stopped at the first miss\n", out);
}

/* What could not be judged is no matter of rates. */
static int run(sample_run *r, size_t jobs, FILE *out, bool *reached, gemma4_error *error)
{
    gemma4_error died = {""};
    size_t unusable = 0;
    if (gemma4_workers_run(r->count, jobs, "sample", work, r, &died))
        fprintf(out, "%s\n", died.message);
    if (r->to_first_miss && atomic_load(r->stop)) {
        print_stopped(r, out);
        return 0;
    }
    *reached = summarise(r, out);
    for (size_t i = 0; i < r->count; i++)
        unusable += !r->trials[i].judged;
    return unusable ? gemma4_fail(error, "sample: %zu of %zu engines could not be judged", unusable,
                                  r->count)
                    : 0;
}

int gemma4_sample_run(const gemma4_sample *sample, size_t jobs, bool to_first_miss, FILE *out,
                      bool *reached, gemma4_error *error)
{
    sample_run r = {.sample = sample, .to_first_miss = to_first_miss};
    *reached = false;
    int status =
        check_taps(sample, error) || open_cases(&r, error) || make_tasks(&r, error) ? -1 : 0;
    r.trials = status ? NULL : gemma4_shared_new(r.count * sizeof *r.trials, error);
    r.stop = r.trials ? gemma4_shared_new(sizeof *r.stop, error) : NULL;
    status = r.stop ? 0 : -1;
    if (!status)
        status = run(&r, jobs, out, reached, error);
    gemma4_shared_free(r.stop, sizeof *r.stop);
    gemma4_shared_free(r.trials, r.count * sizeof *r.trials);
    free(r.tasks);
    gemma4_close_cases(&r.cases);
    return status;
}
