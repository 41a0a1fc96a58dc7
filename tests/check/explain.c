/* The catalogue of counter-models as text. */
#include "explain.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "counter_model.h"
#include "near_names.h"

static const struct {
    const char *name, *title;
} sections[] = {
    {"embedding", "Embedding"},
    {"norms", "RMSNorms"},
    {"attention", "Attention"},
    {"rope", "RoPE"},
    {"masks", "Masks"},
    {"cache", "Caches"},
    {"dense", "Dense MLP"},
    {"router", "Router"},
    {"experts", "Experts"},
    {"stream", "Residual stream"},
    {"head", "Final norm and head"},
};
enum { SECTIONS = sizeof sections / sizeof *sections };

static const gemma4_counter_model *at(size_t i)
{
    return gemma4_counter_model_at(i);
}

/* Whether no entry before the i-th has its id. */
static bool is_first(size_t i)
{
    for (size_t j = 0; j < i; j++)
        if (!strcmp(at(j)->id, at(i)->id))
            return false;
    return true;
}

static const char *where_text(int where)
{
    switch (where) {
    case GEMMA4_ON_SLIDING: return "sliding layers";
    case GEMMA4_ON_FULL: return "full layers";
    case GEMMA4_ON_HEAD: return "outside the layers";
    case GEMMA4_ON_SLIDING | GEMMA4_ON_FULL: return "every layer";
    case GEMMA4_ON_FULL | GEMMA4_ON_HEAD: return "full layers and the head";
    case GEMMA4_ON_SLIDING | GEMMA4_ON_HEAD: return "sliding layers and the head";
    default: return "every layer and outside them";
    }
}

/* "attn.q_rope, attn.k_rope"; mark stands before and after each name. */
static void print_taps(FILE *out, const gemma4_counter_model *entry, const char *mark)
{
    for (size_t i = 0; entry->taps[i] != GEMMA4_TAP_COUNT; i++)
        fprintf(out, "%s%s%s%s", i ? ", " : "", mark, gemma4_tap_describe(entry->taps[i])->name,
                mark);
}

/* Each URL of `seen` between before and after; separator stands between two. */
static void print_urls(FILE *out, const char *seen, const char *before, const char *after,
                       const char *separator)
{
    for (const char *url = seen; *url != '\0';) {
        size_t length = strcspn(url, " ");
        fprintf(out, "%s%s%.*s%s", url == seen ? "" : separator, before, (int)length, url, after);
        url += length + strspn(url + length, " ");
    }
}

/* ---------------------------------------------------------------- one cause */

static void print_entry(FILE *out, const gemma4_counter_model *entry)
{
    fputc('\n', out);
    if (entry->variant[0] != '\0')
        fprintf(out, "  variant    %s\n", entry->variant);
    fprintf(out, "  section    %s\n  where      %s\n  taps       ", entry->section,
            where_text(entry->where));
    print_taps(out, entry, "");
    fprintf(out, "\n  wrong      %s\n  right      %s\n  invisible  %s\n", entry->wrong,
            entry->right, entry->invisible);
    if (entry->seen[0] != '\0') {
        fprintf(out, "  seen       ");
        print_urls(out, entry->seen, "", "", "\n             ");
        fputc('\n', out);
    }
}

/* How far an id is from what was asked for: part of each other is nearest. */
static size_t miss(const char *asked, const char *id)
{
    bool part = asked[0] != '\0' && (strstr(id, asked) || strstr(asked, id));
    return part ? 0 : gemma4_edit_distance(asked, id);
}

/* Up to five ids that are near, nearest first. */
static void suggest(FILE *out, const char *asked)
{
    enum { MOST = 5 };
    size_t named = 0, largest = strlen(asked) / 2;
    for (size_t distance = 0; distance <= largest && named < MOST; distance++)
        for (size_t i = 0; i < gemma4_counter_model_count() && named < MOST; i++)
            if (is_first(i) && miss(asked, at(i)->id) == distance)
                fprintf(out, "%s%s", named++ ? ", " : "; did you mean ", at(i)->id);
    fputs(named ? "?\n" : "; gemma4-check explain lists them\n", out);
}

int gemma4_explain(FILE *out, const char *id)
{
    size_t found = 0;
    for (size_t i = 0; i < gemma4_counter_model_count(); i++)
        if (!strcmp(at(i)->id, id)) {
            if (!found++)
                fprintf(out, "%s\n", id);
            print_entry(out, at(i));
        }
    if (found)
        return 0;
    fprintf(out, "no cause has the id %s", id);
    suggest(out, id);
    return -1;
}

void gemma4_explain_list(FILE *out)
{
    for (size_t i = 0; i < gemma4_counter_model_count(); i++)
        if (is_first(i))
            fprintf(out, "%-36s %-22s %s\n", at(i)->id, gemma4_tap_describe(at(i)->taps[0])->name,
                    at(i)->wrong);
}

/* ------------------------------------------------------------- spec/causes.md */

static void print_introduction(FILE *out)
{
    size_t ids = 0;
    for (size_t i = 0; i < gemma4_counter_model_count(); i++)
        ids += is_first(i);
    fprintf(out,
            "# Causes\n\n"
            "<!-- Generated: `gemma4-check explain --all`. The source is "
            "tests/check/catalogue_*.c. -->\n\n"
            "A counter-model is the model with one known mistake in it: the parameters of the "
            "steps in which it differs from\n"
            "[model.md](model.md). Here are %zu of them under %zu ids. An id stands for an "
            "arithmetic, whoever's code it is in\n"
            "and however it came there; variants of an id are forms of the same mistake.\n\n",
            gemma4_counter_model_count(), ids);
    fputs("`gemma4-check` computes a step that fails once more with every counter-model that acts "
          "there, from the engine's own\n"
          "inputs. Where one gives the engine's output, the result names its id. The unit tests "
          "hold each entry to what it says:\n"
          "with the right inputs it changes the taps that it lists, on the layers that it names, "
          "and leaves every other tap as it\n"
          "is, bit for bit.\n\n"
          "*Enters at* is the first tap that is computed differently. *Invisible* says where the "
          "mistake does not show: what a case\n"
          "must not be if it is to find it. Links lead to public reports; an entry without one is "
          "a mistake that the step invites.\n"
          "Numbers in formulas are those of the published dimensions.\n\n",
          out);
    fputs("What is not here, because it is no mistake: softmax before or after the choice of "
          "experts, as long as the weights are\n"
          "renormalised; per_expert_scale on the weight or on the expert's output; any order of "
          "experts with equal logits;\n"
          "rounding to the engine's own type where model.md does not ask for more. What is not "
          "here, because it is no arithmetic\n"
          "of its own: races, uninitialised memory, stale graphs, and errors of one quantised "
          "format.\n\n",
          out);
}

static void print_table(FILE *out, const char *section)
{
    fputs("| id | variant | where | enters at | wrong |\n|---|---|---|---|---|\n", out);
    for (size_t i = 0; i < gemma4_counter_model_count(); i++)
        if (!strcmp(at(i)->section, section))
            fprintf(out, "| [%s](#%s) | %s | %s | `%s` | %s |\n", at(i)->id, at(i)->id,
                    at(i)->variant, where_text(at(i)->where),
                    gemma4_tap_describe(at(i)->taps[0])->name, at(i)->wrong);
    fputc('\n', out);
}

static void print_variant(FILE *out, const gemma4_counter_model *entry)
{
    if (entry->variant[0] != '\0')
        fprintf(out, "Variant: %s.\n\n", entry->variant);
    fprintf(out, "- where: %s; taps: ", where_text(entry->where));
    print_taps(out, entry, "`");
    fprintf(out, "\n- wrong: %s\n- right: %s\n- invisible: %s\n", entry->wrong, entry->right,
            entry->invisible);
    if (entry->seen[0] != '\0') {
        fputs("- seen: ", out);
        print_urls(out, entry->seen, "<", ">", ", ");
        fputc('\n', out);
    }
    fputc('\n', out);
}

/* Every variant of the i-th entry's id, whatever its section. */
static void print_details(FILE *out, size_t i)
{
    fprintf(out, "#### %s\n\n", at(i)->id);
    for (size_t j = i; j < gemma4_counter_model_count(); j++)
        if (!strcmp(at(j)->id, at(i)->id))
            print_variant(out, at(j));
}

void gemma4_explain_all_markdown(FILE *out)
{
    print_introduction(out);
    for (size_t s = 0; s < SECTIONS; s++) {
        fprintf(out, "## %s\n\n", sections[s].title);
        print_table(out, sections[s].name);
    }
    fputs("## Details\n\n", out);
    for (size_t s = 0; s < SECTIONS; s++) {
        fprintf(out, "### %s\n\n", sections[s].title);
        for (size_t i = 0; i < gemma4_counter_model_count(); i++)
            if (is_first(i) && !strcmp(at(i)->section, sections[s].name))
                print_details(out, i);
    }
}
