#include "engines.h"

#include <fnmatch.h>
#include <stdlib.h>

#include "forward.h"
#include "support.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))

float test_bfloat16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits = (bits + 0x7fffu + (bits >> 16 & 1)) & 0xffff0000u;
    memcpy(&value, &bits, sizeof value);
    return value;
}

const gemma4_model *test_golden_model(void)
{
    static const gemma4_model *model;
    gemma4_error error = {""};
    gemma4_case *c = model ? NULL : gemma4_case_open("tiny-prompt", &error);
    if (model)
        return model;
    ck_assert_msg(c && gemma4_case_provide_checkpoint(c, &error) == 0, "%s", error.message);
    model = gemma4_model_open(c->checkpoint_dir, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    gemma4_case_close(c);
    return model;
}

/* --- running --- */

typedef struct running {
    const test_engine *engine;
    gemma4_activations_writer *writer;
} running;

static bool matches(const char *const *globs, size_t count, const char *name)
{
    for (size_t i = 0; i < count && globs[i]; i++)
        if (fnmatch(globs[i], name, 0) == 0)
            return true;
    return false;
}

static bool is_dumped(const test_engine *e, const gemma4_tap_event *event)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    gemma4_tap_name(event->tap, event->layer, name);
    return (e->taps[0] == NULL || matches(e->taps, COUNT(e->taps), name)) &&
           !matches(e->but, COUNT(e->but), name);
}

/* Writes what the engine shows, which may be another thing than it goes on with. */
static int write_shown(const running *r, const gemma4_tap_event *event, gemma4_error *error)
{
    gemma4_tap_event shown = *event;
    size_t size = event->rows * event->dims[0] * event->dims[1] *
                  (event->ids ? sizeof *event->ids : sizeof *event->values);
    void *copy = malloc(size);
    if (copy == NULL)
        return gemma4_fail(error, "out of memory");
    memcpy(copy, event->ids ? (void *)event->ids : (void *)event->values, size);
    if (event->ids)
        shown.ids = copy;
    else
        shown.values = copy;
    if (r->engine->show)
        r->engine->show(r->engine, &shown);
    int status = gemma4_activations_write(r->writer, &shown, error);
    free(copy);
    return status;
}

static int on_event(void *context, gemma4_tap_event *event, gemma4_error *error)
{
    const running *r = context;
    if (event->values && !strcmp(r->engine->tier, "bfloat16"))
        for (size_t i = 0; i < event->rows * event->dims[0] * event->dims[1]; i++)
            event->values[i] = test_bfloat16((float)event->values[i]);
    if (r->engine->compute)
        r->engine->compute(r->engine, event);
    return is_dumped(r->engine, event) ? write_shown(r, event, error) : 0;
}

char *test_engine_dump(const test_engine *e)
{
    gemma4_error error = {""};
    char *path = test_join(test_fresh_dir(), "dump.h5");
    int32_t tokens[64];
    ck_assert(e->T <= COUNT(tokens));
    for (size_t t = 0; t < e->T; t++)
        tokens[t] = (int32_t)((5 + 37 * t) % e->model->config.vocab_size);
    running r = {e,
                 gemma4_activations_create(path, &e->model->config, tokens, e->T, e->first_position,
                                           e->store ? e->store : "float32", &error)};
    ck_assert_msg(r.writer != NULL, "%s", error.message);
    for (size_t i = 0; i < COUNT(e->attributes) && e->attributes[i][0]; i++)
        ck_assert_int_eq(gemma4_activations_set_attribute(r.writer, e->attributes[i][0],
                                                          e->attributes[i][1], &error),
                         0);
    gemma4_session *session = gemma4_session_new(e->model, e->first_position, e->T, &error);
    ck_assert_msg(session != NULL, "%s", error.message);
    gemma4_session_set_hook(session, on_event, &r);
    ck_assert_msg(gemma4_forward(session, tokens, e->T, e->T, NULL, &error) == 0, "%s",
                  error.message);
    gemma4_session_free(session);
    ck_assert_msg(gemma4_activations_commit(r.writer, &error) == 0, "%s", error.message);
    return path;
}

/* --- judging --- */

test_judgement test_judge_engine(const test_engine *e, bool with_causes)
{
    gemma4_error error = {""};
    test_judgement j = {
        .dump = gemma4_activations_open(test_engine_dump(e), &e->model->config, &error)};
    ck_assert_msg(j.dump != NULL, "%s", error.message);
    const gemma4_judgement judgement = {
        .model = e->model, .engine = j.dump, .dtype = e->tier, .without_causes = !with_causes};
    ck_assert_msg(gemma4_judge(&judgement, &j.report, &error) == 0, "%s", error.message);
    return j;
}

void test_judgement_free(test_judgement *j)
{
    gemma4_report_free(&j->report);
    gemma4_activations_close(j->dump);
}

const gemma4_tap_result *test_result_of(const test_judgement *j, gemma4_tap tap, size_t layer)
{
    for (size_t i = 0; i < j->report.tap_count; i++)
        if (j->report.taps[i].tap == tap && j->report.taps[i].layer == layer)
            return &j->report.taps[i];
    ck_abort_msg("the report has no such tap");
    return NULL;
}

const char *test_first_divergence(const test_judgement *j)
{
    static char name[GEMMA4_TAP_NAME_SIZE];
    const gemma4_tap_result *first = j->report.first_divergence;
    return first ? gemma4_tap_name(first->tap, first->layer, name) : "";
}

const gemma4_counter_model *test_mistake(const char *id)
{
    for (size_t i = 0; id && i < gemma4_counter_model_count(); i++)
        if (!strcmp(gemma4_counter_model_at(i)->id, id))
            return gemma4_counter_model_at(i);
    ck_assert_msg(id == NULL, "no counter-model is called %s", id);
    return NULL;
}
