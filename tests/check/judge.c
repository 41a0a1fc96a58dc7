#include "judge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "block_run.h"
#include "causes.h"
#include "config.h"
#include "diagnose.h"
#include "guard.h"
#include "listed.h"
#include "noise.h"
#include "recognise.h"
#include "reference_run.h"
#include "remembered.h"
#include "replay.h"
#include "report.h"
#include "rows.h"
#include "stream.h"
#include "tap_total.h"
#include "thresholds.h"
#include "verdict.h"

typedef struct judge {
    const gemma4_judgement *j;
    gemma4_report *report;
    const gemma4_config *config;
    gemma4_subject subject;
    double worst_agreement;
    gemma4_dump_mistake whole_dump;    /* what is wrong with all of it: no counter-model is asked
                                       then */
    char grid[GEMMA4_RECOGNISED_SIZE]; /* in words, where it is the precision */
    bool compared;                     /* anything, in the blocks so far */
    bool nothing_in_common; /* with the reference, in the first block that was compared */
    gemma4_tap_total totals[GEMMA4_TAP_COUNT]; /* of the block at hand */
} judge;

/* Of the head as much is judged at a time as has about so many logits: some twenty tensors of this
 * size are kept. 64 positions of 262,144 tokens are one part. */
enum { PART_VALUES = 1 << 24 };

static size_t slot_of(const judge *g, gemma4_tap tap, size_t layer)
{
    const size_t per_layer = GEMMA4_TAP_LAYER_OUTPUT - GEMMA4_TAP_LAYER_INPUT + 1;
    if (tap < GEMMA4_TAP_LAYER_INPUT)
        return tap;
    if (tap <= GEMMA4_TAP_LAYER_OUTPUT)
        return GEMMA4_TAP_LAYER_INPUT + layer * per_layer + (size_t)(tap - GEMMA4_TAP_LAYER_INPUT);
    return GEMMA4_TAP_LAYER_INPUT + g->config->num_hidden_layers * per_layer +
           (size_t)(tap - GEMMA4_TAP_LAYER_OUTPUT - 1);
}

static const gemma4_activation *usable(const judge *g, gemma4_tap tap, size_t layer)
{
    const gemma4_activation *a = gemma4_activations_find(g->j->engine, tap, layer);
    return a && a->usable ? a : NULL;
}

static size_t layer_of(const judge *g, gemma4_block block)
{
    return gemma4_block_is_layer(g->config, block) ? (size_t)block : 0;
}

/* ---------------------------------------------------- with all earlier errors */

/* The manifest's tolerance for the accumulated comparison at this tap; NAN where it has none for
 * the engine's arithmetic. */
static double accumulated_tolerance(const judge *g, const char *name, gemma4_metric_kind metric)
{
    const gemma4_tolerance_row *row =
        g->j->the_case ? gemma4_case_tolerance(g->j->the_case, g->j->dtype, name, metric) : NULL;
    return row ? row->value : NAN;
}

/* Of both metrics the one that is worse in units of its tolerance, or where there are no
 * tolerances, the larger error. */
static gemma4_measure accumulated_measure(const judge *g, const gemma4_tap_result *r)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    gemma4_tap_name(r->tap, r->layer, name);
    gemma4_measure rms = {GEMMA4_METRIC_RELATIVE_RMS, r->metrics.relative_rms,
                          accumulated_tolerance(g, name, GEMMA4_METRIC_RELATIVE_RMS),
                          r->metrics.position};
    gemma4_measure worst = {GEMMA4_METRIC_POSITION_RMS, r->metrics.position_rms,
                            accumulated_tolerance(g, name, GEMMA4_METRIC_POSITION_RMS),
                            r->metrics.position};
    return worst.error / worst.tolerance > rms.error / rms.tolerance ? worst : rms;
}

/* ---------------------------------------------------------------- one block */

static void add_routing(gemma4_routing *to, const gemma4_routing *counts)
{
    to->decisions += counts->decisions;
    to->near_ties += counts->near_ties;
    to->swaps += counts->swaps;
    to->excused += counts->excused;
    to->inferred += counts->inferred;
    to->faults += counts->faults;
}

static int judge_routing(judge *g, const gemma4_evidence *e, bool failed[GEMMA4_TAP_COUNT],
                         gemma4_error *error)
{
    gemma4_routing_verdict v;
    gemma4_tap_result *r = &g->report->taps[slot_of(g, GEMMA4_TAP_ROUTER_TOPK_IDS, e->layer)];
    if (gemma4_routing_judge(e, &v, error))
        return -1;
    add_routing(&g->report->routing, &v.counts);
    if (e->taps[GEMMA4_TAP_ROUTER_TOPK_IDS].stored)
        gemma4_judge_ids(&v, r);
    failed[GEMMA4_TAP_ROUTER_TOPK_IDS] = r->verdict == GEMMA4_DIVERGES;
    return 0;
}

/* Which tokens are listed. */
static int judge_lists(judge *g, const gemma4_evidence *e, gemma4_error *error)
{
    const gemma4_tap_result *values = &g->report->taps[slot_of(g, GEMMA4_TAP_LOGPROBS, 0)];
    gemma4_tap_result r = {.tap = GEMMA4_TAP_LOGPROBS_IDS};
    if (gemma4_judge_listed(e, g->j->engine, values->verdict == GEMMA4_DIVERGES, &r, error))
        return -1;
    gemma4_tap_total_join(&g->totals[r.tap], &r, &g->report->taps[slot_of(g, r.tap, 0)]);
    return 0;
}

/* Rows that are stored but cannot be compared, because nothing says which experts they are of, are
 * not covered. */
static bool has_comparable_rows(const gemma4_evidence *e, gemma4_tap tap)
{
    for (size_t row = 0; row < e->subject->T; row++)
        if (e->taps[tap].stored_row[row] &&
            !(gemma4_tap_in_id_order(tap) && !e->have_valid_ids[row]))
            return true;
    return false;
}

/* Verdicts of the block's taps, on the engine's own inputs, at the evidence's rows; failed receives
 * those that counter-models are to explain. */
static int judge_taps(judge *g, const gemma4_evidence *e, const gemma4_reference_run *reference,
                      bool failed[GEMMA4_TAP_COUNT], gemma4_error *error)
{
    memset(failed, 0, GEMMA4_TAP_COUNT * sizeof *failed);
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
        gemma4_tap_result r = {.tap = (gemma4_tap)tap, .layer = e->layer};
        if (!e->taps[tap].engine || !has_comparable_rows(e, r.tap))
            continue;
        gemma4_judge_reals(e, r.tap, &r);
        failed[tap] = !(tap == GEMMA4_TAP_LOGPROBS && gemma4_judge_placeholders(e, &r)) &&
                      gemma4_rows_fail(e, r.tap);
        if (gemma4_tap_total_add(&g->totals[tap], g->subject.T, e, reference, &r,
                                 &g->report->taps[slot_of(g, r.tap, e->layer)], error))
            return -1;
    }
    if (gemma4_block_is_layer(g->config, e->block))
        return judge_routing(g, e, failed, error);
    return e->block < 0 || !g->subject.listed ? 0 : judge_lists(g, e, error);
}

static void conclude_taps(judge *g, gemma4_block block)
{
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
        gemma4_tap_result *r = &g->report->taps[slot_of(g, (gemma4_tap)tap, layer_of(g, block))];
        bool judged = g->totals[tap].parts > 0;
        gemma4_tap_total_end(&g->totals[tap], r);
        if (judged)
            r->accumulated = accumulated_measure(g, r);
    }
}

/* ---------------------------------------------------- mistakes of the dump */

/* A tensor that is there in a form that nothing can be read from, or not as it is. */
static void fail_form(gemma4_tap_result *r)
{
    r->local = (gemma4_measure){GEMMA4_METRIC_SHAPE, INFINITY, 0, 0};
    r->verdict = GEMMA4_DIVERGES;
}

/* Tensors that were put right fail. Is what the first block holds of this checkpoint? A mistake in
 * the first layer never leaves nothing of the embedding, but in many layers it may: then the search
 * for mistakes comes first. */
static int judge_dump(judge *g, const gemma4_evidence *e, const gemma4_reference_run *reference,
                      gemma4_error *error)
{
    const float *expected[GEMMA4_TAP_COUNT];
    bool compared = g->compared;
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
        const gemma4_dump_mistake *m = &e->taps[tap].mistake;
        gemma4_tap_result *r = &g->report->taps[slot_of(g, (gemma4_tap)tap, e->layer)];
        expected[tap] = gemma4_reference_expected(reference, (gemma4_tap)tap);
        g->compared = g->compared || expected[tap];
        if (m->kind == GEMMA4_DUMP_AS_DUE || g->totals[tap].mistake_said)
            continue;
        g->totals[tap].mistake_said = true;
        gemma4_describe_loaded((gemma4_tap)tap, m, r->problem, sizeof r->problem);
        fail_form(r);
        if (gemma4_diagnose_dump(g->report->diagnosis, r->tap, r->layer, m, r->problem, error))
            return -1;
    }
    if (compared || !gemma4_recognise_checkpoint(e, expected))
        return 0;
    g->nothing_in_common = true;
    if (e->block <= 0)
        g->whole_dump = (gemma4_dump_mistake){.kind = GEMMA4_DUMP_CHECKPOINT};
    return 0;
}

/* Are the values those of a coarser arithmetic than the dump says? Then nothing else is looked for.
 * Those of a finer one may be right: engines mix types. */
static int judge_grid(judge *g, gemma4_error *error)
{
    gemma4_grid grid;
    const char *said = gemma4_activations_attribute(g->j->engine, "dtype");
    const char *by = said && !strcmp(said, g->j->dtype) ? "the attribute dtype" : "--dtype";
    if (g->j->reference_only)
        return 0;
    if (gemma4_recognise_grid(g->j->engine, g->config, g->subject.tier, &grid, error))
        return -1;
    if (!grid.dtype && !grid.finer)
        return 0;
    if (grid.dtype)
        g->whole_dump.kind = GEMMA4_DUMP_PRECISION;
    gemma4_describe_grid(&grid, g->j->dtype, by, g->grid, sizeof g->grid);
    gemma4_report_warn(g->report, "%s", g->grid);
    return 0;
}

/* Storage, or a cache, in fewer bits than the arithmetic has widens tolerances: what the verdict is
 * then worth is said. */
static void note_storage(judge *g)
{
    const gemma4_activation *first = NULL;
    size_t coarser = 0, count = gemma4_activations_count(g->j->engine);
    for (size_t i = 0; i < count; i++) {
        const gemma4_activation *a = gemma4_activations_at(g->j->engine, i);
        if (!a->usable || gemma4_storage_unit(&g->subject, a) <= g->subject.tier->unit)
            continue;
        first = first ? first : a;
        coarser++;
    }
    if (coarser)
        gemma4_report_warn(g->report,
                           "%zu of %zu tensors are stored as %s, which is coarser than %s: an "
                           "error that is smaller than this rounding is not seen",
                           coarser, count, first->stored_dtype, g->subject.tier->name);
    if (g->subject.kv_unit > 0)
        gemma4_report_warn(g->report,
                           "the attribute kv_dtype says %s, which is coarser than %s: keys and "
                           "values may carry a rounding of it",
                           gemma4_activations_attribute(g->j->engine, "kv_dtype"),
                           g->subject.tier->name);
}

/* Positions that a tensor does not hold are not covered, whatever its name counts for. */
static void note_rows(judge *g)
{
    char name[GEMMA4_TAP_NAME_SIZE] = "";
    size_t partial = 0, compared = 0, fewest = g->report->positions;
    for (size_t i = 0; i < g->report->tap_count; i++) {
        const gemma4_tap_result *r = &g->report->taps[i];
        const gemma4_activation *a = gemma4_activations_find(g->j->engine, r->tap, r->layer);
        if (r->verdict == GEMMA4_NOT_COVERED || !a || !a->usable || r->tap == GEMMA4_TAP_LOGPROBS ||
            r->tap == GEMMA4_TAP_LOGPROBS_IDS)
            continue; /* of log-probabilities another note says it */
        compared++;
        partial += a->rows < g->report->positions;
        if (a->rows < fewest) {
            fewest = a->rows;
            gemma4_tap_name(r->tap, r->layer, name);
        }
    }
    if (partial)
        gemma4_report_warn(g->report,
                           "%zu of %zu tensors hold some positions only, %s %zu of %zu: the others "
                           "are not covered",
                           partial, compared, name, fewest, g->report->positions);
}

/* A case whose tokens are fed in chunks tests the cache only in an engine that was fed so. */
static void note_schedule(judge *g)
{
    const gemma4_schedule *fed = &g->subject.schedule;
    const gemma4_case *c = g->j->the_case;
    if (!c || c->schedule_count < 2)
        return;
    if (!fed->known) {
        gemma4_report_note(g->report,
                           "the dump does not say in which chunks the tokens were fed (attribute "
                           "schedule): whether the engine's cache was at work is not known");
        return;
    }
    bool same = fed->chunks == c->schedule_count;
    for (size_t i = 0, at = 0; same && i < c->schedule_count; i++) {
        at += (size_t)c->schedule[i];
        same = fed->chunk_end[at - 1] == at && fed->chunk_start[at - 1] + c->schedule[i] == at;
    }
    if (!same)
        gemma4_report_warn(g->report,
                           "the dump says that the tokens were fed in %zu chunk%s, the case wants "
                           "%zu: what it tests of the engine's chunks and cache was not all at "
                           "work",
                           fed->chunks, fed->chunks == 1 ? "" : "s", c->schedule_count);
}

/* A case says what its tokens can show. Those of anybody's may be too few to show what positions
 * have to do with each other. */
static void note_length(judge *g)
{
    size_t T = g->report->positions, sliding = 0;
    for (size_t i = 0; i < g->config->num_hidden_layers; i++)
        sliding += g->config->layers[i].kind == GEMMA4_SLIDING;
    if (g->j->the_case)
        return;
    if (T == 1)
        gemma4_report_warn(g->report, "one position only: what attention does between positions "
                                      "(scores, angles, masks, the cache) was not at work");
    else if (sliding && T <= g->config->sliding_window)
        gemma4_report_note(g->report,
                           "%zu positions do not reach beyond the window of %zu: its edge was not "
                           "at work",
                           T, g->config->sliding_window);
}

/* What is wrong with the whole dump is said once, and covers every tap that fails. */
static int conclude_whole_dump(judge *g, gemma4_error *error)
{
    const gemma4_dump_mistake other = {.kind = GEMMA4_DUMP_CHECKPOINT};
    const char *text =
        g->whole_dump.kind == GEMMA4_DUMP_PRECISION ? g->grid : gemma4_other_checkpoint;
    for (size_t i = 0; i < g->report->tap_count && g->whole_dump.kind; i++) {
        const gemma4_tap_result *r = &g->report->taps[i];
        if (r->verdict == GEMMA4_DIVERGES && r->local.kind != GEMMA4_METRIC_SHAPE &&
            gemma4_diagnose_dump(g->report->diagnosis, r->tap, r->layer, &g->whole_dump, text,
                                 error))
            return -1;
    }
    if (g->nothing_in_common)
        gemma4_diagnose_unexplained(g->report->diagnosis, &other, gemma4_other_checkpoint);
    return 0;
}

static void note_agreement(judge *g, const gemma4_reference_run *reference, gemma4_block block)
{
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++) {
        double agreement = gemma4_tap_is_in(g->config, (gemma4_tap)tap, block)
                               ? gemma4_reference_agreement(reference, (gemma4_tap)tap)
                               : -1;
        if (agreement < 0)
            continue;
        gemma4_tap_result *r = &g->report->taps[slot_of(g, (gemma4_tap)tap, layer_of(g, block))];
        g->report->golden_taps += !g->totals[tap].agreement_said;
        g->totals[tap].agreement_said = true;
        r->reference_agreement = fmax(r->reference_agreement, agreement);
        g->worst_agreement = fmax(g->worst_agreement, agreement);
    }
}

/* The last block of which the dump holds anything: those after it need no replay. */
static gemma4_block last_block_held(const judge *g)
{
    gemma4_block last = -1;
    for (size_t i = 0; i < gemma4_activations_count(g->j->engine); i++) {
        const gemma4_activation *a = gemma4_activations_at(g->j->engine, i);
        gemma4_block block = a->tap == GEMMA4_TAP_EMBED ? -1
                             : gemma4_tap_describe(a->tap)->per_layer
                                 ? (gemma4_block)a->layer
                                 : (gemma4_block)g->config->num_hidden_layers;
        if (a->usable && block > last)
            last = block;
    }
    return last;
}

/* Which taps of the block are to be compared with the reference by itself. */
static void find_compared(const judge *g, gemma4_block block, bool keep[GEMMA4_TAP_COUNT])
{
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        keep[tap] = gemma4_tap_is_in(g->config, (gemma4_tap)tap, block) &&
                    usable(g, (gemma4_tap)tap, layer_of(g, block));
}

static int diagnose(judge *g, const gemma4_evidence *e, gemma4_replay *replay,
                    const bool failed[GEMMA4_TAP_COUNT], gemma4_error *error)
{
    gemma4_runner *runner = gemma4_replay_runner(replay);
    gemma4_remembered *before = gemma4_remember_in(gemma4_runner_memory(runner));
    int status = gemma4_diagnose_block(g->report->diagnosis, e, runner, failed, error);
    gemma4_remember_in(before);
    return status;
}

/* The replay's next block, at all positions of its subject. *fails: something in it does. */
static int judge_evidence(judge *g, const gemma4_reference_run *reference, gemma4_replay *replay,
                          bool with_causes, bool *fails, gemma4_error *error)
{
    bool failed[GEMMA4_TAP_COUNT];
    const gemma4_evidence *e = gemma4_replay_next(replay, error);
    if (!e || judge_taps(g, e, reference, failed, error) || judge_dump(g, e, reference, error))
        return -1;
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        *fails = *fails || failed[tap];
    return with_causes && !g->j->without_causes && !g->whole_dump.kind
               ? diagnose(g, e, replay, failed, error)
               : 0;
}

static int judge_block(judge *g, gemma4_reference_run *reference, gemma4_replay *replay,
                       gemma4_block block, bool replayed, gemma4_error *error)
{
    bool keep[GEMMA4_TAP_COUNT] = {false}, fails = false;
    if (replayed)
        find_compared(g, block, keep);
    if (gemma4_reference_run_next(reference, keep, error))
        return -1;
    note_agreement(g, reference, block);
    return replayed ? judge_evidence(g, reference, replay, true, &fails, error) : 0;
}

/* --- a head that is too large to be judged at once --- */

/* How many positions of the head are judged at a time. */
static size_t rows_of_part(const judge *g)
{
    size_t values = g->j->part_values ? g->j->part_values : PART_VALUES,
           rows = values / g->config->vocab_size, T = g->subject.T;
    bool whole = rows >= T || g->j->known; /* whose reference runs whole blocks */
    return whole ? T : rows ? rows : 1;
}

/* replay: as it is after the last layer; NULL: the dump holds nothing of the head. */
static int judge_part(judge *g, gemma4_reference_run *reference, const gemma4_replay *replay,
                      const gemma4_subject *part, bool with_causes, bool *fails,
                      gemma4_error *error)
{
    bool keep[GEMMA4_TAP_COUNT] = {false};
    gemma4_block head = (gemma4_block)g->config->num_hidden_layers;
    if (replay)
        find_compared(g, head, keep);
    if (gemma4_reference_run_head(reference, part, keep, error))
        return -1;
    note_agreement(g, reference, head);
    if (!replay)
        return 0;
    gemma4_replay *of_part = gemma4_replay_of_head(replay, part, error);
    int status = of_part ? judge_evidence(g, reference, of_part, with_causes, fails, error) : -1;
    gemma4_replay_free(of_part);
    return status;
}

/* A mistake of bridged layers is looked for with all of them: in the case's beginning, which is a
 * case of its own. */
static int diagnose_beginning(judge *g, const gemma4_subject *beginning, gemma4_error *error)
{
    bool failed[GEMMA4_TAP_COUNT] = {false}, fails = false;
    gemma4_replay *replay = gemma4_replay_new(beginning, g->j->engine, error);
    const gemma4_evidence *e = NULL;
    int status = replay ? 0 : -1;
    for (gemma4_block block = -1; block <= (gemma4_block)g->config->num_hidden_layers && !status;
         block++)
        status = (e = gemma4_replay_next(replay, error)) ? 0 : -1;
    for (int tap = 0; tap < GEMMA4_TAP_COUNT && !status; tap++) {
        failed[tap] = e->taps[tap].engine && !g->totals[tap].mistake_said &&
                      gemma4_rows_fail(e, (gemma4_tap)tap);
        fails = fails || failed[tap];
    }
    if (!status && !fails)
        gemma4_report_warn(g->report,
                           "what fails after the last layer was looked into at the first %zu "
                           "positions only, where nothing fails: no cause is given for it",
                           beginning->T);
    if (!status)
        status = diagnose(g, e, replay, failed, error);
    gemma4_replay_free(replay);
    return status;
}

/* Causes are looked for in the first part that fails. */
static int judge_head_in_parts(judge *g, gemma4_reference_run *reference, gemma4_replay *replay,
                               size_t rows, gemma4_error *error)
{
    gemma4_subject part;
    bool bridged = replay && gemma4_replay_bridged(replay) > 0, fails = false;
    int status = 0;
    if (replay)
        gemma4_replay_end_layers(replay);
    for (size_t first = 0, T = g->subject.T; first < T && !status; first += rows) {
        size_t count = first + rows < T ? rows : T - first;
        status = gemma4_subject_part(&part, &g->subject, first, count, error) ||
                         judge_part(g, reference, replay, &part, !bridged && !fails, &fails, error)
                     ? -1
                     : 0;
        gemma4_subject_part_free(&part);
    }
    if (status || !fails || !bridged || g->j->without_causes || g->whole_dump.kind)
        return status;
    status = gemma4_subject_part(&part, &g->subject, 0, rows, error) ||
                     diagnose_beginning(g, &part, error)
                 ? -1
                 : 0;
    gemma4_subject_part_free(&part);
    return status;
}

/* A first verdict of the block's taps, for who watches. */
static void show_judged(const judge *g, gemma4_block block)
{
    bool layer = gemma4_block_is_layer(g->config, block);
    size_t first = block < 0 ? 0
                   : layer   ? slot_of(g, GEMMA4_TAP_LAYER_INPUT, (size_t)block)
                             : slot_of(g, GEMMA4_TAP_LAYER_OUTPUT + 1, 0),
           end = block < 0 ? slot_of(g, GEMMA4_TAP_LAYER_INPUT, 0)
                 : layer   ? slot_of(g, GEMMA4_TAP_LAYER_OUTPUT, (size_t)block) + 1
                           : g->report->tap_count;
    if (g->j->progress)
        gemma4_progress_judged(g->j->progress, block, g->report->taps + first, end - first);
}

/* The reference and the replay side by side. */
static int judge_blocks(judge *g, gemma4_error *error)
{
    gemma4_block head = (gemma4_block)g->config->num_hidden_layers,
                 last_held = g->j->reference_only ? -2 : last_block_held(g),
                 last = g->j->golden ? head : last_held; /* all of a golden is compared */
    gemma4_reference_run *reference = gemma4_reference_run_new(&g->subject, g->j->golden, error);
    gemma4_stream weights = {.model = g->j->model};
    gemma4_replay *replay = reference ? gemma4_replay_new(&g->subject, g->j->engine, error) : NULL;
    int status = replay && (g->report->diagnosis = gemma4_diagnosis_new(g->config, error))
                     ? judge_grid(g, error)
                     : -1;
    if (replay)
        gemma4_replay_recognise(replay, reference);
    for (gemma4_block block = -1; block <= last && !status; block++) {
        if (g->j->progress)
            gemma4_progress_at(g->j->progress, block);
        if (block < last) /* the next one is read while this one is run */
            gemma4_stream_ahead(&weights, (size_t)(block + 1), g->subject.T);
        status = block == head && rows_of_part(g) < g->subject.T
                     ? judge_head_in_parts(g, reference, block <= last_held ? replay : NULL,
                                           rows_of_part(g), error)
                     : judge_block(g, reference, replay, block, block <= last_held, error);
        conclude_taps(g, block);
        if (status && gemma4_guard_interrupted()) {
            status = 0;
            g->report->incomplete = true;
            break;
        }
        g->report->blocks_judged++;
        if (!status)
            show_judged(g, block);
    }
    if (g->j->progress)
        gemma4_progress_end(g->j->progress);
    gemma4_stream_end(&weights);
    gemma4_replay_free(replay);
    gemma4_reference_run_free(reference);
    return status;
}

/* ---------------------------------------------------------------- conclusions */

/* Taps that are there with a shape or a type that the config contradicts. */
static int conclude_shape(judge *g, gemma4_tap_result *r, gemma4_error *error)
{
    const gemma4_activation *a = gemma4_activations_find(g->j->engine, r->tap, r->layer);
    gemma4_dump_mistake mistake;
    fail_form(r);
    if (!gemma4_recognise_shape(g->config, g->subject.T, a, &mistake, r->problem,
                                sizeof r->problem))
        return 0;
    return gemma4_diagnose_dump(g->report->diagnosis, r->tap, r->layer, &mistake, r->problem,
                                error);
}

/* Does a tensor hold fewer positions than --require asks for? Engines trim their last layer, and
 * what follows it, to the last position: that will do there. */
static bool holds_too_few(const judge *g, const gemma4_tap_result *r)
{
    const gemma4_activation *a = gemma4_activations_find(g->j->engine, r->tap, r->layer);
    size_t T = g->report->positions;
    bool last = false, at_end = gemma4_tap_describe(r->tap)->per_layer
                                    ? r->layer + 1 == g->config->num_hidden_layers
                                    : r->tap > GEMMA4_TAP_LAYER_OUTPUT;
    if (r->verdict == GEMMA4_NOT_COVERED || !a || !a->usable || a->rows >= T)
        return false;
    for (size_t i = 0; at_end && i < a->rows; i++)
        last = last || a->row_index[i] + 1 == T;
    return !last;
}

static void conclude_coverage(judge *g)
{
    gemma4_report *report = g->report;
    bool layer_outputs = true, logits = false;
    for (size_t i = 0; i < report->tap_count; i++) {
        const gemma4_tap_result *r = &report->taps[i];
        bool covered = r->verdict != GEMMA4_NOT_COVERED, too_few = holds_too_few(g, r);
        if (gemma4_tap_required(g->config, r->tap, r->layer)) {
            report->taps_of++;
            report->taps_covered += covered;
            report->full_in_part += too_few;
        }
        if (gemma4_tap_describe(r->tap)->per_layer && covered)
            report->layer_covered[r->layer] = true;
        if (r->tap == GEMMA4_TAP_LAYER_OUTPUT)
            layer_outputs = layer_outputs && covered;
        if (r->tap == GEMMA4_TAP_LOGITS || r->tap == GEMMA4_TAP_LOGPROBS)
            logits = logits || covered;
        if (r->tap == GEMMA4_TAP_LAYER_OUTPUT || r->tap == GEMMA4_TAP_LOGITS ||
            r->tap == GEMMA4_TAP_LOGPROBS)
            report->layers_in_part += too_few;
    }
    report->level = report->taps_covered == report->taps_of ? GEMMA4_FULL_LEVEL
                    : layer_outputs && logits               ? GEMMA4_LAYERS_LEVEL
                    : logits                                ? GEMMA4_LOGITS_LEVEL
                                                            : GEMMA4_PARTIAL;
}

/* A mistake that only the matched filter sees fails the tap where it enters. */
static void conclude_below_bound(judge *g)
{
    for (size_t i = 0; i < gemma4_cause_count(g->report->diagnosis); i++) {
        const gemma4_cause *cause = gemma4_cause_at(g->report->diagnosis, i);
        gemma4_tap_result *r = &g->report->taps[slot_of(g, cause->tap, cause->first_layer)];
        if (!cause->below_bound || r->verdict == GEMMA4_DIVERGES)
            continue;
        r->verdict = GEMMA4_DIVERGES;
        r->local =
            (gemma4_measure){GEMMA4_METRIC_MATCHED_FILTER, cause->coefficient / cause->residual,
                             FILTER_DEVIATIONS, r->local.position};
    }
}

/* In dataflow order, after everything that can fail a tap has. */
static void find_first_divergence(gemma4_report *report)
{
    for (size_t i = 0; i < report->tap_count && !report->first_divergence; i++)
        if (report->taps[i].verdict == GEMMA4_DIVERGES)
            report->first_divergence = &report->taps[i];
    report->conforms = report->first_divergence == NULL && !report->incomplete;
}

/* How much stands behind a verdict on log-probabilities. */
static void note_listed(judge *g)
{
    const gemma4_tap_result *r = &g->report->taps[slot_of(g, GEMMA4_TAP_LOGPROBS, 0)];
    if (r->rows && g->report->taps[slot_of(g, GEMMA4_TAP_LOGITS, 0)].verdict == GEMMA4_NOT_COVERED)
        gemma4_report_note(g->report,
                           "log-probabilities instead of logits: of %zu of %zu tokens, at %zu "
                           "of %zu positions",
                           g->subject.listed, g->config->vocab_size, r->rows, g->report->positions);
}

static void describe_golden(judge *g)
{
    const gemma4_case *c = g->j->the_case;
    if (g->j->golden)
        snprintf(g->report->expected_detail, sizeof g->report->expected_detail,
                 "%s %s in %s; the reference agrees on %zu taps within %.1e", c->oracle_name,
                 c->oracle_version, c->oracle_dtype, g->report->golden_taps, g->worst_agreement);
}

static int conclude(judge *g, gemma4_error *error)
{
    gemma4_report *report = g->report;
    size_t compared = 0;
    describe_golden(g);
    for (size_t i = 0; i < report->tap_count; i++) {
        gemma4_tap_result *r = &report->taps[i];
        if (r->verdict == GEMMA4_NOT_COVERED && r->problem[0] && conclude_shape(g, r, error))
            return -1;
        compared += r->verdict != GEMMA4_NOT_COVERED;
    }
    if (compared == 0 && report->incomplete)
        return gemma4_fail(error, "interrupted before anything was judged");
    if (compared == 0 && !g->j->reference_only)
        return gemma4_fail(error, "nothing in the dump can be compared");
    if (conclude_whole_dump(g, error) || gemma4_diagnose_conclude(report->diagnosis, error))
        return -1;
    conclude_below_bound(g);
    find_first_divergence(report);
    conclude_coverage(g);
    note_listed(g);
    if (!g->j->reference_only) {
        note_storage(g);
        note_rows(g);
        note_schedule(g);
        note_length(g);
    }
    return 0;
}

/* ------------------------------------------------------------------- set-up */

static int check_input(const gemma4_judgement *j, size_t T, const int32_t *tokens,
                       const int32_t *positions, gemma4_error *error)
{
    const gemma4_case *c = j->the_case;
    if (!c)
        return 0;
    if (T != c->token_count)
        return gemma4_fail(error, "tokens: expected the %zu of case %s, found %zu", c->token_count,
                           c->id, T);
    for (size_t t = 0; t < T; t++)
        if (tokens[t] != c->tokens[t])
            return gemma4_fail(error, "tokens: expected case %s's %d at position %zu, found %d",
                               c->id, c->tokens[t], t, tokens[t]);
    if ((size_t)positions[0] != c->first_position)
        return gemma4_fail(error, "positions: expected case %s's %zu ..., found %d ...", c->id,
                           c->first_position, positions[0]);
    return 0;
}

/* A result for every tap of the model: not covered, as long as nothing is known of it. */
static int list_taps(judge *g, gemma4_error *error)
{
    gemma4_report *report = g->report;
    size_t layers = g->config->num_hidden_layers;
    report->tap_count = slot_of(g, GEMMA4_TAP_COUNT, 0);
    report->taps = calloc(report->tap_count, sizeof *report->taps);
    report->layer_covered = calloc(layers, sizeof *report->layer_covered);
    if (!report->taps || !report->layer_covered)
        return gemma4_fail(error, "comparison: out of memory");
    for (int tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        for (size_t layer = 0;
             layer < (gemma4_tap_describe((gemma4_tap)tap)->per_layer ? layers : 1); layer++) {
            gemma4_tap_result *r = &report->taps[slot_of(g, (gemma4_tap)tap, layer)];
            const gemma4_activation *a =
                gemma4_activations_find(g->j->engine, (gemma4_tap)tap, layer);
            *r = (gemma4_tap_result){
                .tap = (gemma4_tap)tap, .layer = layer, .verdict = GEMMA4_NOT_COVERED};
            if (a && !a->usable)
                snprintf(r->problem, sizeof r->problem, "%s", a->problem);
            else if (tap == GEMMA4_TAP_LOGPROBS)
                gemma4_listed_problem(g->j->engine, r->problem, sizeof r->problem);
        }
    return 0;
}

int gemma4_judge(const gemma4_judgement *j, gemma4_report *report, gemma4_error *error)
{
    const int32_t *tokens, *positions;
    judge g = {.j = j, .report = report, .config = &j->model->config};
    size_t T = gemma4_activations_positions(j->engine, &tokens, &positions);

    *report =
        (gemma4_report){.dtype = j->dtype,
                        .case_id = j->the_case ? j->the_case->id : NULL,
                        .engine = gemma4_activations_attribute(j->engine, "engine"),
                        .engine_version = gemma4_activations_attribute(j->engine, "engine_version"),
                        .expected_from = j->the_case ? "golden" : "reference",
                        .golden_sha256 = j->the_case ? j->the_case->golden_sha256 : NULL,
                        .layers = g.config->num_hidden_layers,
                        .positions = T};
    if (check_input(j, T, tokens, positions, error) ||
        !gemma4_tier_expect("dtype", j->dtype, error))
        return -1;
    int status = list_taps(&g, error) ||
                         gemma4_subject_init(&g.subject, j->model, j->engine,
                                             gemma4_tier_of(j->dtype), error) ||
                         gemma4_subject_read_listed(&g.subject, j->engine, error)
                     ? -1
                     : 0;
    g.subject.search_layers = j->search_layers;
    g.subject.known = j->known;
    g.subject.listed_by_difference = j->listed_by_difference;
    status = status || judge_blocks(&g, error) || conclude(&g, error) ? -1 : 0;
    gemma4_subject_free(&g.subject);
    return status;
}

void gemma4_report_free(gemma4_report *report)
{
    free(report->taps);
    free(report->layer_covered);
    gemma4_diagnosis_free(report->diagnosis);
    *report = (gemma4_report){0};
}
