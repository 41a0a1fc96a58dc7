/* What a report says of a cause, and which of them explains a failing tap. */
#include <math.h>
#include <string.h>

#include "causes.h"
#include "counter_model.h"
#include "diagnose.h"
#include "fit.h"
#include "report.h"
#include "schedule.h"
#include "thresholds.h"

static const gemma4_counter_model *model_of(const gemma4_cause *cause)
{
    return gemma4_cause_model(cause);
}

/* The words for a mistake of the dump. */
static gemma4_sentence dump_words(const gemma4_cause *cause, const char *name, const char *layers,
                                  const char *recognised)
{
    gemma4_sentence s;
    char others[48] = "";
    if (cause->taps > 1)
        snprintf(others, sizeof others, "; %zu tensors", cause->taps);
    snprintf(s.text, sizeof s.text, "a mistake of the dump, first at %s%s%s%s%s", name, layers,
             others, recognised, cause->description);
    return s;
}

gemma4_sentence gemma4_nearest_sentence(const gemma4_cause *cause)
{
    gemma4_sentence s = {""};
    if (cause->nearest[0])
        snprintf(s.text, sizeof s.text, "%s: explains %.0f %% of the error, not all of it",
                 cause->nearest, fmin(99, floor(100 * cause->nearest_share)));
    return s;
}

/* The words, with what stands before each part of them. */
static gemma4_sentence cause_words(const gemma4_cause *cause, const char *only, const char *wrong,
                                   const char *right, const char *measured, const char *nearest)
{
    gemma4_sentence s;
    char name[GEMMA4_TAP_NAME_SIZE], layers[sizeof cause->layers + 16] = "", scope[80] = "";
    gemma4_tap_name(cause->tap, cause->first_layer, name);
    if (cause->layers[0])
        snprintf(layers, sizeof layers, "; layers %s", cause->layers);
    if (cause->scope != GEMMA4_EVERYWHERE)
        snprintf(scope, sizeof scope, "%s%s", only, gemma4_scope_text(cause->scope));
    if (cause->of_dump)
        return dump_words(cause, name, layers, measured);
    if (!cause->explained) {
        snprintf(s.text, sizeof s.text, "no known mistake explains %s%s%s%s%s%.500s", name, layers,
                 measured, cause->description, cause->nearest[0] ? nearest : "",
                 gemma4_nearest_sentence(cause).text);
        return s;
    }
    const gemma4_counter_model *m = model_of(cause);
    if (cause->point) {
        snprintf(s.text, sizeof s.text, "%s, first at %s%s%s",
                 cause->said[0] ? cause->said : m->wrong, name, layers, scope);
        return s;
    }
    snprintf(s.text, sizeof s.text, "%s%s%s%s, first at %s%s%s%s%s%s%s", m->id,
             m->variant[0] ? " (" : "", m->variant, m->variant[0] ? ")" : "", name, layers, scope,
             wrong, m->wrong, right, m->right);
    return s;
}

const char *gemma4_cause_name(const gemma4_cause *cause)
{
    if (cause->of_dump)
        return "a mistake of the dump";
    return !cause->explained                ? "unknown"
           : cause->point && cause->said[0] ? cause->said
                                            : model_of(cause)->id;
}

const char *gemma4_cause_heading(const gemma4_cause *cause)
{
    return cause->explained || cause->of_dump ? "Cause" : "Cause unknown";
}

gemma4_sentence gemma4_cause_sentence(const gemma4_cause *cause)
{
    return cause_words(cause, "; only ", "; wrong: ", "; right: ", ": ", "; nearest: ");
}

gemma4_sentence gemma4_cause_lines(const gemma4_cause *cause)
{
    return cause_words(cause, "\n  only           ", "\n  wrong          ", "\n  right          ",
                       "\n  measured       ", "\n  nearest        ");
}

const gemma4_fit *gemma4_runner_up(const gemma4_cause *cause)
{
    const gemma4_fit *near = &cause->near;
    bool helps = cause->has_near && near->residual < RUNNER_UP_PART * near->error &&
                 fabs(near->coefficient - 1) <= RUNNER_UP_COEFFICIENT;
    return helps ? near : NULL;
}

static bool is_at(const gemma4_cause *cause, const gemma4_tap_result *r)
{
    return !gemma4_tap_describe(r->tap)->per_layer || cause->first_layer == r->layer ||
           gemma4_layer_is_listed(cause->layers, r->layer);
}

/* Whether a named mistake acts at the tap, whatever tap it was seen at first. */
static bool acts_at(const gemma4_cause *cause, gemma4_tap tap)
{
    if (!cause->explained)
        return false;
    for (const gemma4_tap *t = model_of(cause)->taps; *t != GEMMA4_TAP_COUNT; t++)
        if (*t == tap)
            return true;
    return false;
}

/* That of the tap itself before one that acts there as well. */
const gemma4_cause *gemma4_cause_of(const gemma4_report *report, const gemma4_tap_result *r)
{
    const gemma4_cause *other = NULL;
    for (size_t i = 0; i < gemma4_cause_count(report->diagnosis); i++) {
        const gemma4_cause *cause = gemma4_cause_at(report->diagnosis, i);
        if (!is_at(cause, r))
            continue;
        if (cause->tap == r->tap)
            return cause;
        if (!other && acts_at(cause, r->tap))
            other = cause;
    }
    return other;
}
