#include "counter_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef gemma4_real real;

bool gemma4_planted_in(const gemma4_config *c, const gemma4_planted *planted, size_t i,
                       gemma4_block block)
{
    int kind = !gemma4_block_is_layer(c, block)       ? GEMMA4_ON_HEAD
               : c->layers[block].kind == GEMMA4_FULL ? GEMMA4_ON_FULL
                                                      : GEMMA4_ON_SLIDING;
    return (planted->models[i]->where & kind) &&
           (planted->only_layer[i] < 0 || planted->only_layer[i] == block);
}

gemma4_mistakes gemma4_mistakes_in(const gemma4_config *c, const gemma4_planted *planted,
                                   gemma4_block block)
{
    gemma4_mistakes mistakes = {.parameters = gemma4_right_parameters(), .scope = planted->scope};
    for (size_t i = 0; i < planted->count; i++) {
        if (!gemma4_planted_in(c, planted, i, block))
            continue;
        gemma4_counter_apply(planted->models[i], &mistakes.parameters);
        for (const gemma4_tap *t = planted->models[i]->taps; *t != GEMMA4_TAP_COUNT; t++)
            mistakes.changed[*t] = true;
    }
    return mistakes;
}

gemma4_parameters gemma4_known_parameters(const gemma4_subject *s, gemma4_block block)
{
    return s->known ? gemma4_mistakes_in(&s->model->config, s->known, block).parameters
                    : gemma4_right_parameters();
}

/* The mistakes on top of those that the engine is known to make. */
static gemma4_mistakes mistakes_beside_known(const gemma4_subject *s, const gemma4_planted *planted,
                                             gemma4_block block)
{
    gemma4_planted all = s->known ? *s->known : *planted;
    if (!s->known)
        return gemma4_mistakes_in(&s->model->config, planted, block);
    for (size_t i = 0; i < planted->count && all.count < GEMMA4_MOST_PLANTED; i++, all.count++) {
        all.models[all.count] = planted->models[i];
        all.only_layer[all.count] = planted->only_layer[i];
    }
    all.scope = planted->scope;
    return gemma4_mistakes_in(&s->model->config, &all, block);
}

/* Receives the tap at which a run is to be seen. */
typedef struct sink {
    gemma4_tap stop;
    real *out;
    size_t width, T;
} sink;

static void see_stop(void *context, const gemma4_tap_event *event)
{
    const sink *s = context;
    if (event->tap == s->stop)
        gemma4_keep_event(s->out, event, s->width, s->T);
}

/* Rounding is in proportion to what is rounded: how much larger a row's logits are with the mistake
 * than without. */
static double times_larger(const real *with, const real *without, size_t E)
{
    double a = 0, b = 0;
    for (size_t i = 0; i < E; i++) {
        a += (double)with[i] * (double)with[i];
        b += (double)without[i] * (double)without[i];
    }
    return b > 0 ? sqrt(a / b) : 1;
}

/* Marks the rows whose choice the engine may have made differently: its mistake moves logits, so
 * choices inferred for the right model do not hold. */
static void find_open(const gemma4_evidence *e, size_t positions, const real *logits,
                      const int32_t *ids, bool *open)
{
    size_t K = e->subject->model->config.top_k_experts, E = e->subject->model->config.num_experts;
    const real *right = e->taps[GEMMA4_TAP_ROUTER_LOGITS].expected;
    for (size_t t = 0; t < positions; t++)
        open[t] = !e->have_valid_ids[t] && !gemma4_logits_are_stored(e, t) &&
                  /* negative where the mistake is in the choosing */
                  fabs(gemma4_find_boundary(logits + t * E, ids + t * K, K, E).gap) <=
                      gemma4_near_tie(e, t) * times_larger(logits + t * E, right + t * E, E);
}

/* The first block in which anything differs from the replay. */
static gemma4_block first_block(const gemma4_evidence *e, const gemma4_counter_run *run)
{
    gemma4_block block = e->known_block;
    if (run->draw)
        return block;
    for (; block < e->block; block++)
        for (size_t i = 0; i < run->planted->count; i++)
            if (gemma4_planted_in(&e->subject->model->config, run->planted, i, block))
                return block;
    return block;
}

/* What the dump holds of a block: the evidence's own, or of one that was bridged before it. */
static const gemma4_evidence *evidence_of(const gemma4_evidence *e, gemma4_block block)
{
    while (e && e->block != block)
        e = e->before;
    return e;
}

static int run_one(const gemma4_evidence *e, gemma4_runner *runner,
                   const gemma4_counter_run *wanted, gemma4_block block, real *h, real *logits,
                   int32_t *chosen, gemma4_error *error)
{
    const gemma4_subject *s = e->subject;
    gemma4_noise noise = gemma4_noise_new(s->tier, (uint64_t)(GEMMA4_DRAWS + wanted->draw) * 4096 +
                                                       (uint64_t)(block + 1));
    gemma4_mistakes mistakes = mistakes_beside_known(s, wanted->planted, block);
    bool last = block == e->block;
    sink seen = {
        .stop = wanted->stop, .out = wanted->out, .width = e->taps[wanted->stop].width, .T = s->T};
    gemma4_block_run run = {.block = block,
                            .positions = wanted->positions,
                            .quick = wanted->quick,
                            .once = wanted->once,
                            .inject = evidence_of(e, block),
                            .draw = wanted->draw,
                            .noise = wanted->draw ? &noise : NULL,
                            .mistakes = wanted->planted->count ? &mistakes : NULL};
    noise.kv_unit = s->kv_unit;
    if (last) {
        run.see = see_stop;
        run.context = &seen;
        run.ids = wanted->planted->count ? e->ids : wanted->ids;
        run.values[GEMMA4_TAP_ROUTER_LOGITS] = logits;
        run.chosen = chosen;
    }
    return gemma4_run_block(runner, &run, h, error);
}

static int run_blocks(const gemma4_evidence *e, gemma4_runner *runner,
                      const gemma4_counter_run *run, gemma4_error *error)
{
    const gemma4_config *c = &e->subject->model->config;
    size_t T = e->subject->T, positions = run->positions ? run->positions : T;
    bool ties = run->open && run->planted->count && gemma4_block_is_layer(c, e->block);
    gemma4_block block = first_block(e, run);
    real *h = malloc(positions * c->hidden_size * sizeof *h),
         *logits = ties ? malloc(T * c->num_experts * sizeof *logits) : NULL;
    int32_t *chosen = ties ? malloc(T * c->top_k_experts * sizeof *chosen) : NULL;
    int status =
        h && (!ties || (logits && chosen)) ? 0 : gemma4_fail(error, "replay: out of memory");
    if (run->open)
        memset(run->open, 0, T * sizeof *run->open);
    if (!status)
        memcpy(h, e->streams[block - e->known_block], positions * c->hidden_size * sizeof *h);
    for (; block <= e->block && !status; block++)
        status = run_one(e, runner, run, block, h, logits, chosen, error);
    if (!status && ties)
        find_open(e, positions, logits, chosen, run->open);
    free(h);
    free(logits);
    free(chosen);
    return status;
}

/* --- more experts than the config says --- */

/* Does the planted model at index i act in all layers that are run? */
static bool acts_in_all(const gemma4_evidence *e, const gemma4_planted *planted, size_t i)
{
    const gemma4_config *c = &e->subject->model->config;
    for (gemma4_block block = e->known_block; block <= e->block; block++)
        if (gemma4_block_is_layer(c, block) && !gemma4_planted_in(c, planted, i, block))
            return false;
    return planted->scope == GEMMA4_EVERYWHERE;
}

/* How many experts the planted models choose, where that is more than the config says; else 0. */
static size_t more_experts(const gemma4_evidence *e, const gemma4_planted *planted)
{
    const gemma4_config *c = &e->subject->model->config;
    for (size_t i = 0; i < planted->count; i++) {
        gemma4_parameters p = gemma4_right_parameters();
        gemma4_counter_apply(planted->models[i], &p);
        for (size_t k = 0; k < p.setting_count; k++) {
            double number =
                p.settings[k]->parameter == GEMMA4_PARAMETER_TOP_K ? p.settings[k]->number : 0;
            if (number > (double)c->top_k_experts && number <= (double)c->num_experts &&
                acts_in_all(e, planted, i))
                return (size_t)number;
        }
    }
    return 0;
}

/* Does the dump hold a tensor of the blocks at hand that has a column for each chosen expert? */
static bool holds_chosen(const gemma4_evidence *e)
{
    static const gemma4_tap BY_RANK[] = {GEMMA4_TAP_ROUTER_TOPK_NORM,
                                         GEMMA4_TAP_ROUTER_TOPK_WEIGHTS, GEMMA4_TAP_MOE_ACT};
    for (; e; e = e->before) {
        for (size_t i = 0; i < sizeof BY_RANK / sizeof *BY_RANK; i++)
            if (e->taps[BY_RANK[i]].engine)
                return true;
        for (size_t t = 0; e->have_ids && t < e->subject->T; t++)
            if (e->have_ids[t])
                return true;
    }
    return false;
}

/* All arrays are as wide as the config says: the run is one of a model with another config. */
static int run_with_more_experts(const gemma4_evidence *e, size_t K, const gemma4_counter_run *run,
                                 gemma4_error *error)
{
    gemma4_model model = *e->subject->model;
    gemma4_subject subject = *e->subject;
    gemma4_evidence evidence = *e;
    model.config.top_k_experts = K;
    subject.model = &model;
    evidence.subject = &subject;
    evidence.ids = NULL; /* as many as the config said */
    gemma4_runner *runner = gemma4_runner_new(&subject, error);
    int status = runner ? run_blocks(&evidence, runner, run, error) : -1;
    gemma4_runner_free(runner);
    return status;
}

int gemma4_run_counter(const gemma4_evidence *e, gemma4_runner *runner,
                       const gemma4_counter_run *run, gemma4_error *error)
{
    size_t K = more_experts(e, run->planted);
    return K && !holds_chosen(e) ? run_with_more_experts(e, K, run, error)
                                 : run_blocks(e, runner, run, error);
}

/* -------------------------------------------------------------------- steps */

gemma4_step gemma4_evidence_step(const gemma4_evidence *e)
{
    const real *values[GEMMA4_TAP_COUNT];
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        values[tap] = e->taps[tap].values;
    if ((size_t)e->block == e->subject->model->config.num_hidden_layers)
        values[GEMMA4_TAP_LAYER_OUTPUT] = e->output;
    return gemma4_step_of(e->subject, e->block, e->subject->T, values, e->ids);
}

int gemma4_perturbed_step(const gemma4_evidence *e, gemma4_step *step, gemma4_error *error)
{
    gemma4_noise noise = gemma4_noise_new(e->subject->tier, (uint64_t)(e->block + 1));
    *step = gemma4_evidence_step(e);
    const real *stored[GEMMA4_TAP_COUNT];
    memcpy(stored, step->values, sizeof stored);
    memset(step->values, 0, sizeof step->values);
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
        const gemma4_tap_evidence *t = &e->taps[tap];
        size_t n =
            e->subject->T *
            (tap == GEMMA4_TAP_LAYER_OUTPUT ? e->subject->model->config.hidden_size : t->width);
        real *copy = stored[tap] ? malloc(n * sizeof *copy) : NULL;
        if (stored[tap] && !copy)
            return gemma4_fail(error, "replay: out of memory");
        if (!copy)
            continue;
        memcpy(copy, stored[tap], n * sizeof *copy);
        if (t->engine)
            gemma4_noise_storage(&noise, (gemma4_tap)tap, copy, n,
                                 gemma4_storage_unit(e->subject, t->stored));
        step->values[tap] = copy;
    }
    return 0;
}

void gemma4_step_free(gemma4_step *step)
{
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        free((void *)step->values[tap]);
}
