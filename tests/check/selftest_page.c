/* The kill matrix as a Markdown page (spec/kill-matrix.md). */
#include "counter_model.h"
#include "selftest.h"

#include <math.h>
#include <string.h>

static const char introduction[] =
    "# The kill matrix\n"
    "\n"
    "Written by `make kill-matrix` (`gemma4-check self-test --out spec/kill-matrix.md`); do not "
    "edit.\n"
    "\n"
    "Every counter-model of the catalogue ([causes.md](causes.md)) is planted, alone, into a "
    "simulated engine: the reference's forward pass\n"
    "with every tap rounded to the tier's type (in float32: moved by an ulp), the next step "
    "reading the rounded value. Its dump is judged\n"
    "with all taps, with the layers' outputs and the logits, and with the logits only. The case is "
    "the first one on which the mistake is\n"
    "visible in float32 with all taps.\n"
    "\n"
    "- effect: the step's error / tolerance where the mistake enters first, before any diagnosis.\n"
    "- visible: the effect is above twice the largest error / tolerance that an honest simulated "
    "engine (stochastic rounding) has in this\n"
    "  tier and tap set at such a tap, or the mistake was detected. The rates count the visible "
    "ones.\n"
    "- first: the divergence that is reported first is the tap at which the mistake enters (with "
    "layers' outputs: that layer's).\n"
    "- named: the first cause is the mistake, or lists it as equivalent (named first: it is the "
    "mistake itself). wrong names: some cause\n"
    "  is another mistake, whether it comes first or not.\n"
    "- permitted: a rounding that engines of this tier may make.\n"
    "\n"
    "What this page cannot show: the planted mistake and the counter-model that names it are the "
    "same code, and the engine rounds as the\n"
    "yardstick assumes. The rates are what the method reaches at best; `make planted` measures "
    "them on transformers. Where a mistake fails\n"
    "at several taps, the first of those that fail is taken for where it enters.\n";

static void print_number(FILE *out, double x)
{
    if (isinf(x))
        fputs("inf", out);
    else
        fprintf(out, x >= 100 ? "%.0f" : "%.2g", x);
}

static void print_tap(FILE *out, gemma4_tap tap, size_t layer)
{
    char name[GEMMA4_TAP_NAME_SIZE];
    fputs(tap < GEMMA4_TAP_COUNT ? gemma4_tap_name(tap, layer, name) : "nothing", out);
}

static void print_cause(FILE *out, const gemma4_counter_model *model)
{
    fprintf(out, "%s%s%s%s", model->id, model->variant[0] ? " (" : "", model->variant,
            model->variant[0] ? ")" : "");
}

static void print_share(FILE *out, size_t part, size_t of, double required)
{
    fprintf(out, " %zu (%.1f %%", part, of ? 100.0 * (double)part / (double)of : 0);
    if (required > 0)
        fprintf(out, ", of %g", 100 * required);
    fputs(") |", out);
}

/* ------------------------------------------------------------------ tables */

static void print_rates(FILE *out, const gemma4_matrix *matrix)
{
    fputs("\n## Rates\n\n| tier | tap set | judged | visible | detected | first right | named | "
          "named first | wrong names | invisible | permitted |\n"
          "|---|---|---|---|---|---|---|---|---|---|---|\n",
          out);
    for (size_t column = 0; column < GEMMA4_GRID_COLUMNS; column++) {
        const gemma4_grid_column *g = &gemma4_grid[column];
        gemma4_matrix_rates r = gemma4_matrix_rates_of(matrix, column);
        if (!matrix->asked[column])
            continue;
        fprintf(out, "| %s | %s | %zu | %zu |", g->tier, gemma4_tap_set_name(g->taps), r.judged,
                r.visible);
        print_share(out, r.detected, r.visible, g->detected);
        print_share(out, r.first, r.visible, g->first);
        print_share(out, r.named, r.visible, g->named);
        print_share(out, r.itself, r.visible, 0);
        print_share(out, r.wrong, r.visible, 0);
        print_share(out, r.invisible, r.judged, g->invisible < 1 ? g->invisible : 0);
        fprintf(out, " %zu |\n", r.permitted);
    }
    fprintf(out,
            "\n\"of\" is what is required: at least, of the visible ones; for the invisible ones, "
            "at most, of those judged; at most\n"
            "%g %% wrong names. Honest runs beside: %zu, of which %zu raised an alarm.\n",
            100 * GEMMA4_LARGEST_SHARE_OF_WRONG_NAMES, matrix->honest_runs, matrix->honest_alarms);
}

/* What became of one judgement, in a word or two. */
static void print_cell(FILE *out, const gemma4_trial *trial, bool permitted)
{
    if (!trial->judged) {
        fputs(permitted ? " permitted |" : trial->message[0] ? " unusable |" : " |", out);
        return;
    }
    fputs(!trial->visible     ? " invisible"
          : !trial->detected  ? " missed"
          : trial->wrong_name ? " wrong name"
          : trial->named      ? " named"
                              : " detected",
          out);
    if (trial->detected && !trial->first_right)
        fputs(", late", out);
    if (trial->below_bound)
        fputs(", by filter", out);
    fputs(", ", out);
    print_number(out, trial->effect);
    fputs(" |", out);
}

static void print_matrix(FILE *out, const gemma4_matrix *matrix)
{
    fputs("\n## Matrix\n\nEach cell: what became of it, and the effect. \"late\": reported first "
          "at another tap; \"by filter\": no single tap failed, the\n"
          "matched filter found it.\n\n| cause | case |",
          out);
    for (size_t column = 0; column < GEMMA4_GRID_COLUMNS; column++)
        fprintf(out, " %s %s |", gemma4_grid[column].tier,
                gemma4_tap_set_name(gemma4_grid[column].taps));
    fputs("\n|---|---|---|---|---|---|---|\n", out);
    for (size_t i = 0; i < matrix->rows_count; i++) {
        const gemma4_matrix_row *row = &matrix->rows[i];
        if (!row->done)
            continue;
        fputs("| ", out);
        print_cause(out, gemma4_counter_model_at(i));
        fprintf(out, " | %s |", gemma4_matrix_cases[row->case_index]);
        for (size_t column = 0; column < GEMMA4_GRID_COLUMNS; column++)
            print_cell(out, &row->trials[column], row->permitted[column]);
        fputc('\n', out);
    }
}

/* ------------------------------------------------------------------- lists */

static bool is_missed(const gemma4_grid_column *g, const gemma4_trial *trial)
{
    bool late = g->first > 0 && !trial->first_right;
    return trial->judged && trial->visible &&
           (!trial->detected || late || !trial->named || trial->wrong_name);
}

static void print_missed(FILE *out, const gemma4_matrix *matrix, size_t column, size_t i)
{
    const gemma4_trial *trial = &matrix->rows[i].trials[column];
    const gemma4_counter_model *model = gemma4_counter_model_at(i);
    fprintf(out, "- %s, %s: ", gemma4_grid[column].tier,
            gemma4_tap_set_name(gemma4_grid[column].taps));
    print_cause(out, model);
    fprintf(out, " on %s: enters at ", gemma4_matrix_cases[matrix->rows[i].case_index]);
    print_tap(out, trial->expected_tap, trial->expected_layer);
    fputs(" with ", out);
    print_number(out, trial->effect);
    fputs(" (visible from ", out);
    print_number(out, trial->visible_from);
    if (!trial->detected) {
        fprintf(out, "), not detected. Invisible %s.\n", model->invisible);
        return;
    }
    fputs("), reported at ", out);
    print_tap(out, trial->first_tap, trial->first_layer);
    fprintf(out, "%s; %s%s%s\n", trial->below_bound ? " by the filter" : "",
            trial->named        ? "named"
            : trial->wrong_name ? ""
                                : "no name",
            trial->wrong_name ? (trial->named ? ", but also " : "named ") : "",
            trial->wrong_name ? trial->name : "");
}

static void print_survivors(FILE *out, const gemma4_matrix *matrix)
{
    size_t count = 0;
    fputs("\n## Not detected, reported elsewhere, or not named\n\n", out);
    for (size_t column = 0; column < GEMMA4_GRID_COLUMNS; column++)
        for (size_t i = 0; i < matrix->rows_count; i++)
            if (is_missed(&gemma4_grid[column], &matrix->rows[i].trials[column])) {
                print_missed(out, matrix, column, i);
                count++;
            }
    if (!count)
        fputs("None.\n", out);
}

static void print_invisible(FILE *out, const gemma4_matrix *matrix)
{
    fputs("\n## Invisible\n\n| tier | tap set | cause | case | effect | visible from | invisible "
          "|\n|---|---|---|---|---|---|---|\n",
          out);
    for (size_t column = 0; column < GEMMA4_GRID_COLUMNS; column++)
        for (size_t i = 0; i < matrix->rows_count; i++) {
            const gemma4_trial *trial = &matrix->rows[i].trials[column];
            if (!trial->judged || trial->visible)
                continue;
            fprintf(out, "| %s | %s | ", gemma4_grid[column].tier,
                    gemma4_tap_set_name(gemma4_grid[column].taps));
            print_cause(out, gemma4_counter_model_at(i));
            fprintf(out, " | %s | ", gemma4_matrix_cases[matrix->rows[i].case_index]);
            print_number(out, trial->effect);
            fputs(" | ", out);
            print_number(out, trial->visible_from);
            fprintf(out, " | %s |\n", gemma4_counter_model_at(i)->invisible);
        }
}

void gemma4_matrix_markdown(FILE *out, const gemma4_matrix *matrix)
{
    fputs(introduction, out);
    print_rates(out, matrix);
    print_survivors(out, matrix);
    print_invisible(out, matrix);
    print_matrix(out, matrix);
}
