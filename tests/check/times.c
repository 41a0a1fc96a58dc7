#include "times.h"

#include <stdlib.h>
#include <string.h>

#include "counter_model.h"
#include "model.h"
#include "noise.h"
#include "opened_cases.h"
#include "trial.h"
#include "workers.h"

/* The sequence that every engine is fed: a prompt, a longer chunk than the window leaves room for,
 * single tokens, another chunk. */
enum { T = 24, CHUNKS = 6 };
static int32_t schedule[CHUNKS] = {10, 6, 1, 1, 1, 5};

enum { EVERY = -1, SLOW = 3 /* times the median */ };

/* What no single counter-model describes everywhere: two mistakes in one layer, one layer only,
 * decoding only. */
typedef struct combination {
    const char *ids[2];
    int layer;
    gemma4_scope scope;
} combination;

static const combination combinations[] = {
    {{"v-norm-missing", "mlp-silu"}, 3, GEMMA4_EVERYWHERE},
    {{"input-norm-missing", "experts-silu"}, 6, GEMMA4_EVERYWHERE},
    {{"rope-pairing-contiguous", "layer-scalar-dropped"}, 5, GEMMA4_EVERYWHERE},
    {{"attn-scale-inv-sqrt-d", "router-sigmoid"}, 10, GEMMA4_EVERYWHERE},
    {{"qk-norm-swapped", NULL}, 0, GEMMA4_EVERYWHERE},
    {{"post-attention-norm-missing", NULL}, 4, GEMMA4_EVERYWHERE},
    {{"per-expert-scale-missing", NULL}, 8, GEMMA4_EVERYWHERE},
    {{"keqv-unimplemented", NULL}, 11, GEMMA4_EVERYWHERE},
    {{"v-norm-missing", NULL}, EVERY, GEMMA4_DECODE_ONLY},
    {{"rope-reversed", NULL}, EVERY, GEMMA4_DECODE_ONLY},
    {{"experts-silu", NULL}, EVERY, GEMMA4_DECODE_ONLY},
    {{"branch-pre-norms-swapped", "layer-scalar-twice"}, EVERY, GEMMA4_DECODE_ONLY},
};
enum { COMBINATIONS = sizeof combinations / sizeof *combinations };

static const gemma4_tap_set sets[] = {GEMMA4_SET_LAYERS, GEMMA4_SET_LOGITS, GEMMA4_SET_ALL};
enum { SETS_BY_DEFAULT = 2, SETS = sizeof sets / sizeof *sets };

typedef struct bench {
    const char *tier;
    size_t *faults; /* [fault_count] of the catalogue, and after it of the combinations */
    size_t fault_count;
    gemma4_model *model;
    gemma4_case the_case; /* only what a simulated engine reads */
    int32_t tokens[T];
    gemma4_tap_set sets[SETS];
    size_t set_count;
    char directory[64];
    gemma4_trial *trials; /* [set_count, fault_count], shared */
} bench;

/* ---------------------------------------------------------------- planting */

static const gemma4_counter_model *find_model(const char *id)
{
    for (size_t i = 0; i < gemma4_counter_model_count(); i++)
        if (!strcmp(gemma4_counter_model_at(i)->id, id))
            return gemma4_counter_model_at(i);
    return NULL;
}

static gemma4_simulation simulation_of(const bench *b, size_t fault, gemma4_tap_set taps)
{
    gemma4_simulation s = {.the_case = &b->the_case,
                           .model = b->model,
                           .tier = b->tier,
                           .seed = 7,
                           .only_layer = {EVERY, EVERY},
                           .taps = taps};
    fault = b->faults[fault];
    if (fault < gemma4_counter_model_count()) {
        s.planted[0] = gemma4_counter_model_at(fault);
        return s;
    }
    const combination *c = &combinations[fault - gemma4_counter_model_count()];
    for (size_t i = 0; i < 2 && c->ids[i]; i++) {
        s.planted[i] = find_model(c->ids[i]);
        s.only_layer[i] = c->layer;
    }
    s.scope = c->scope;
    return s;
}

static void work(void *context, size_t i)
{
    bench *b = context;
    gemma4_error error = {""};
    gemma4_simulation s = simulation_of(b, i % b->fault_count, b->sets[i / b->fault_count]);
    gemma4_trial_run(&s, NULL, false, b->directory, &b->trials[i], &error);
}

/* ----------------------------------------------------------------- printing */

static void print_fault(FILE *out, const bench *b, size_t fault)
{
    gemma4_simulation s = simulation_of(b, fault, GEMMA4_SET_ALL);
    for (size_t i = 0; i < 2 && s.planted[i]; i++) {
        fprintf(out, "%s%s", i ? " + " : "", s.planted[i]->id);
        if (s.planted[i]->variant[0])
            fprintf(out, " (%s)", s.planted[i]->variant);
    }
    if (s.only_layer[0] != EVERY)
        fprintf(out, ", layer %d only", s.only_layer[0]);
    if (s.scope != GEMMA4_EVERYWHERE)
        fprintf(out, ", %s", gemma4_scope_text(s.scope));
}

static const gemma4_trial *sorted_by; /* of the set at hand */

static int longest_first(const void *a, const void *b)
{
    double x = sorted_by[*(const size_t *)a].seconds, y = sorted_by[*(const size_t *)b].seconds;
    return x > y ? -1 : x < y;
}

static void print_set(FILE *out, const bench *b, size_t set, size_t *order)
{
    const gemma4_trial *trials = b->trials + set * b->fault_count;
    size_t detected = 0;
    for (size_t i = 0; i < b->fault_count; i++)
        if (trials[i].judged && trials[i].detected)
            order[detected++] = i;
    sorted_by = trials;
    qsort(order, detected, sizeof *order, longest_first);
    fprintf(out, "%-8s %-7s %8zu %9zu", b->tier, gemma4_tap_set_name(b->sets[set]), b->fault_count,
            detected);
    if (!detected) {
        fputc('\n', out);
        return;
    }
    double median = trials[order[detected / 2]].seconds, longest = trials[order[0]].seconds;
    fprintf(out, " %8.2f %8.2f %6.1f  ", median, longest, longest / median);
    print_fault(out, b, order[0]);
    fputc('\n', out);
    for (size_t i = 0; i < detected && trials[order[i]].seconds > SLOW * median; i++) {
        fprintf(out, "%43.2f %6.1f  ", trials[order[i]].seconds, trials[order[i]].seconds / median);
        print_fault(out, b, order[i]);
        fprintf(out, ": %s\n", trials[order[i]].named ? "named" : "not named");
    }
}

static int print(FILE *out, const bench *b, gemma4_error *error)
{
    size_t *order = calloc(b->fault_count, sizeof *order);
    if (!order)
        return gemma4_fail(error, "self-test: out of memory");
    fprintf(out,
            "Seconds of processor time to judge %d positions; after each tap set, what takes more "
            "than %d times the median.\n\n",
            (int)T, (int)SLOW);
    fprintf(out, "tier     tap set   faults  detected   median  longest  ratio  fault\n");
    for (size_t set = 0; set < b->set_count; set++)
        print_set(out, b, set, order);
    free(order);
    for (size_t i = 0; i < b->set_count * b->fault_count; i++)
        if (!b->trials[i].judged)
            return gemma4_fail(error, "self-test --times: fault %zu: %.180s", i % b->fault_count,
                               b->trials[i].message[0] ? b->trials[i].message : "not judged");
    return 0;
}

/* ------------------------------------------------------------------- set-up */

static int read_options(bench *b, const gemma4_times_options *o, gemma4_error *error)
{
    b->tier = o->tier ? o->tier : "float32";
    for (size_t i = 0; i < (o->tap_set ? SETS : SETS_BY_DEFAULT); i++)
        if (!o->tap_set || !strcmp(o->tap_set, gemma4_tap_set_name(sets[i])))
            b->sets[b->set_count++] = sets[i];
    if (!o->model_dir)
        return gemma4_fail(error, "self-test --times: option '--model' is required");
    if (!b->set_count)
        return gemma4_fail(error, "--tap-set: expected all, layers or logits, found '%s'",
                           o->tap_set);
    return gemma4_tier_of(b->tier)
               ? 0
               : gemma4_fail(error, "--tier: expected float32, bfloat16 or float16, found '%s'",
                             b->tier);
}

/* The faults that are asked for. */
static int choose_faults(bench *b, const char *cause, gemma4_error *error)
{
    size_t count = gemma4_counter_model_count();
    b->faults = calloc(count + COMBINATIONS, sizeof *b->faults);
    if (!b->faults)
        return gemma4_fail(error, "self-test: out of memory");
    for (size_t i = 0; i < count + COMBINATIONS; i++) {
        const char *const *ids =
            i < count ? &gemma4_counter_model_at(i)->id : combinations[i - count].ids;
        if (!cause || !strcmp(ids[0], cause) || (i >= count && ids[1] && !strcmp(ids[1], cause)))
            b->faults[b->fault_count++] = i;
    }
    return b->fault_count
               ? 0
               : gemma4_fail(
                     error,
                     "--cause: expected an id of the catalogue (gemma4-check explain), found '%s'",
                     cause);
}

static int set_up(bench *b, const gemma4_times_options *o, gemma4_error *error)
{
    b->model = gemma4_model_open(o->model_dir, error);
    if (!b->model || choose_faults(b, o->cause, error))
        return -1;
    b->tokens[0] = 2;
    for (size_t i = 1; i < T; i++)
        b->tokens[i] = (int32_t)((i * 7919 + 13) % b->model->embed_tokens.rows);
    b->the_case = (gemma4_case){.id = "times",
                                .tokens = b->tokens,
                                .token_count = T,
                                .schedule = schedule,
                                .schedule_count = CHUNKS};
    b->trials = gemma4_shared_new(b->set_count * b->fault_count * sizeof *b->trials, error);
    return b->trials ? gemma4_make_directory(b->directory, error) : -1;
}

int gemma4_times(const gemma4_times_options *options, FILE *out, gemma4_error *error)
{
    bench b = {0};
    int status = read_options(&b, options, error) || set_up(&b, options, error) ||
                         gemma4_workers_run(b.set_count * b.fault_count, options->jobs, "times",
                                            work, &b, error) ||
                         print(out, &b, error)
                     ? -1
                     : 0;
    if (b.trials)
        gemma4_shared_free(b.trials, b.set_count * b.fault_count * sizeof *b.trials);
    if (b.directory[0])
        gemma4_remove_directory(b.directory);
    gemma4_model_close(b.model);
    free(b.faults);
    return status;
}
