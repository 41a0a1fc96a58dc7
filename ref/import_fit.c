#include "import_internal.h"

#include <stdio.h>
#include <string.h>

/* One tensor being fitted. */
typedef struct fitting {
    const gemma4_import_context *context;
    const gemma4_map_rule *rule;
    size_t layer, place;
    const gemma4_stored_tensor *tensor;
    const char *path;
    gemma4_import_part *part;
    char letters[GEMMA4_IMPORT_LETTERS + 1]; /* "thd" */
    size_t lengths[GEMMA4_IMPORT_LETTERS];   /* by the config; 0: not known, the position */
    gemma4_map_axis axes[8];                 /* of the tensor, those that the rule does not speak of
                                                among them */
    gemma4_error *error;
} fitting;

static void write_shape(const gemma4_stored_tensor *tensor, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "[");
    for (size_t i = 0; i < tensor->rank && used < size; i++)
        used +=
            (size_t)snprintf(text + used, size - used, "%s%zu", i ? ", " : "", tensor->shape[i]);
    if (used < size)
        snprintf(text + used, size - used, "]");
}

static int fail_axes(const fitting *f, const char *expected)
{
    char shape[120];
    write_shape(f->tensor, shape, sizeof shape);
    return gemma4_fail(f->error, "%s: %s: rule %s: expected %s, found %s", f->path, f->tensor->name,
                       f->rule->name, expected, shape);
}

static void know_letters(fitting *f)
{
    size_t dims[2] = {1, 1}, count = 0;
    const char *shape =
        f->rule->target == GEMMA4_MAP_TAP ? gemma4_tap_describe(f->rule->tap)->shape : "";
    if (*shape)
        count = gemma4_tap_dims(f->context->config, f->rule->tap, f->layer, f->context->positions,
                                dims);
    f->letters[0] = 't';
    f->lengths[0] = f->context->positions;
    for (size_t i = 0; i < count; i++) {
        f->letters[1 + i] = shape[i] == 'T' ? 's' : (char)(shape[i] | 0x20);
        f->lengths[1 + i] = dims[i];
    }
    f->part->rank = 1 + count;
}

static size_t which_letter(const fitting *f, char letter)
{
    return (size_t)(strchr(f->letters, letter) - f->letters);
}

/* --- the axes --- */

static void set_axis(gemma4_map_axis *axis, const char *letters)
{
    *axis = (gemma4_map_axis){.cut = GEMMA4_MAP_WHOLE};
    snprintf(axis->letters, sizeof axis->letters, "%s", letters);
    snprintf(axis->written, sizeof axis->written, "%s", letters);
}

/* Axes of length 1 may stand before those that are spoken of. */
static bool leads_with_ones(const gemma4_stored_tensor *tensor, size_t count)
{
    if (tensor->rank < count)
        return false;
    for (size_t i = 0; i < tensor->rank - count; i++)
        if (tensor->shape[i] != 1)
            return false;
    return true;
}

/* Without axes in the rule: the position first and then the tap's axes, or those in one. */
static int default_axes(fitting *f)
{
    size_t rank = f->tensor->rank, whole = f->part->rank, count = whole;
    bool merged = whole == 3 && leads_with_ones(f->tensor, 2);
    if (merged && leads_with_ones(f->tensor, 3)) { /* [1, T, H*D], or [T, H, D] of one position? */
        const size_t *last = &f->tensor->shape[rank - 1];
        merged = last[0] == f->lengths[1] * f->lengths[2] &&
                 !(last[0] == f->lengths[2] && last[-1] == f->lengths[1]);
    }
    if (f->rule->split_count)
        merged = whole == 3;
    count = merged ? 2 : whole;
    if (!leads_with_ones(f->tensor, count))
        return fail_axes(f, whole == 1   ? "one axis of positions"
                            : whole == 2 ? "the position and one axis (or axes in the rule)"
                                         : "the position and the tap's axes (or axes in the rule)");
    for (size_t i = 0; i < rank; i++)
        set_axis(&f->axes[i], "1");
    set_axis(&f->axes[rank - count], "t");
    if (merged)
        set_axis(&f->axes[rank - 1], f->letters + 1);
    for (size_t i = 1; i < whole && !merged; i++)
        set_axis(&f->axes[rank - count + i], (char[]){f->letters[i], '\0'});
    return 0;
}

static int rule_axes(fitting *f)
{
    size_t rank = f->tensor->rank, count = f->rule->axis_count;
    if (!f->rule->has_axes)
        return default_axes(f);
    if (!leads_with_ones(f->tensor, count)) {
        char expected[64];
        snprintf(expected, sizeof expected, "%zu axes as the rule says", count);
        return fail_axes(f, expected);
    }
    for (size_t i = 0; i < rank; i++) {
        set_axis(&f->axes[i], "1");
        if (i >= rank - count)
            f->axes[i] = f->rule->axes[i - (rank - count)];
    }
    return 0;
}

/* --- one axis --- */

static int resolve_bound(const fitting *f, const gemma4_map_bound *bound, size_t length,
                         int64_t *value)
{
    *value = bound->number;
    if (bound->letter) {
        *value = (int64_t)f->lengths[which_letter(f, bound->letter)];
        if (*value == 0)
            return gemma4_fail(f->error,
                               "%s: %s: rule %s: slice: the number of positions is not known here",
                               f->path, f->tensor->name, f->rule->name);
    } else if (bound->number < 0) {
        *value += (int64_t)length;
    }
    return 0;
}

static int cut_axis(const fitting *f, const gemma4_map_axis *axis, size_t i)
{
    size_t length = f->tensor->shape[i];
    int64_t begin = 0, end = (int64_t)length;
    if (axis->cut != GEMMA4_MAP_WHOLE && resolve_bound(f, &axis->begin, length, &begin))
        return -1;
    if (axis->cut == GEMMA4_MAP_PICK)
        end = begin + 1;
    if (axis->cut == GEMMA4_MAP_SLICE && resolve_bound(f, &axis->end, length, &end))
        return -1;
    if (axis->letters[0] == 'n' || axis->letters[0] == 'i') {
        begin = (int64_t)(axis->letters[0] == 'n' ? f->layer : f->place) + axis->shift;
        end = begin + 1;
    }
    if (axis->letters[0] == '1' && length != 1)
        return fail_axes(f, "1 on an axis that the rule says has that length");
    if (begin < 0 || begin >= end || end > (int64_t)length) {
        char shape[120];
        write_shape(f->tensor, shape, sizeof shape);
        return gemma4_fail(
            f->error,
            "%s: %s: rule %s: axis %s: expected a slice within 0 ... %zu, found [%lld, %lld] in %s",
            f->path, f->tensor->name, f->rule->name, axis->written, length, (long long)begin,
            (long long)end, shape);
    }
    f->part->start[i] = (size_t)begin;
    f->part->extent[i] = (size_t)(end - begin);
    return 0;
}

/* The rule's own tap among those that share an axis. */
static int split_axis(const fitting *f, size_t i)
{
    size_t total = 0, before = 0, own = 0;
    char widths[160] = "";
    for (size_t s = 0, used = 0; s < f->rule->split_count; s++) {
        size_t dims[2];
        gemma4_tap tap = f->rule->split[s];
        gemma4_tap_dims(f->context->config, tap, f->layer, f->context->positions, dims);
        if (tap == f->rule->tap) {
            before = total;
            own = dims[0] * dims[1];
        }
        total += dims[0] * dims[1];
        if (used < sizeof widths)
            used +=
                (size_t)snprintf(widths + used, sizeof widths - used, "%s%s %zu", s ? " + " : "",
                                 gemma4_tap_describe(tap)->name, dims[0] * dims[1]);
    }
    if (f->tensor->shape[i] != total) {
        char expected[240];
        snprintf(expected, sizeof expected, "an axis of %zu = %s", total, widths);
        return fail_axes(f, expected);
    }
    f->part->start[i] = before;
    f->part->extent[i] = own;
    return 0;
}

/* Whether the axis holds all that the tap has beside the position. */
static bool is_split(const fitting *f, const gemma4_map_axis *axis)
{
    return f->rule->split_count && axis->letters[0] != 't' &&
           strchr(f->letters, axis->letters[0]) && strlen(axis->letters) == f->part->rank - 1;
}

/* The letters of an axis: all but the slowest are as long as the config says. */
static int place_letters(const fitting *f, const gemma4_map_axis *axis, size_t i)
{
    size_t within = 1;
    for (size_t c = strlen(axis->letters); c-- > 0;) {
        if (!strchr(f->letters, axis->letters[c]))
            return 0; /* "1", a layers' axis, one that is picked: of length 1 by now */
        size_t letter = which_letter(f, axis->letters[c]), length = f->lengths[letter];
        if (c == 0) {
            if (within == 0 || f->part->extent[i] % within) {
                char expected[80];
                snprintf(expected, sizeof expected, "axis %s to be a multiple of %zu",
                         axis->written, within);
                return fail_axes(f, expected);
            }
            length = f->part->extent[i] / within;
        }
        f->part->letters[letter].axis = i;
        f->part->letters[letter].within = within;
        f->part->letters[letter].length = length;
        within *= length;
    }
    return 0;
}

/* The tap's two axes in one, and that one not what the config says: shown as it is, for the judge
 * to say what is wrong. */
static bool stays_merged(const fitting *f, const gemma4_map_axis *axis, size_t i)
{
    return !f->rule->has_axes && strlen(axis->letters) == 2 &&
           f->part->extent[i] != f->lengths[1] * f->lengths[2];
}

static int fit_axis(fitting *f, size_t i)
{
    const gemma4_map_axis *axis = &f->axes[i];
    if (is_split(f, axis) ? split_axis(f, i) : cut_axis(f, axis, i))
        return -1;
    if (!stays_merged(f, axis, i))
        return place_letters(f, axis, i);
    f->part->letters[1].axis = i;
    f->part->letters[1].within = 1;
    f->part->letters[1].length = f->part->extent[i];
    f->part->rank = 2;
    return 0;
}

static int fit_type(const fitting *f)
{
    const gemma4_stored_tensor *tensor = f->tensor;
    f->part->element = tensor->element;
    if (f->rule->bfloat16) {
        bool bits = tensor->element == GEMMA4_ELEMENT_U16 ||
                    tensor->element == GEMMA4_ELEMENT_I16 || tensor->bits_16;
        if (!bits && tensor->element != GEMMA4_ELEMENT_BF16)
            return gemma4_fail(
                f->error, "%s: %s: rule %s: expected bfloat16 in elements of 16 bits, found %s",
                f->path, tensor->name, f->rule->name,
                gemma4_element_describe(tensor->element)->name);
        f->part->element = GEMMA4_ELEMENT_BF16;
        return 0;
    }
    if (tensor->problem[0])
        return gemma4_fail(f->error, "%s: %s: rule %s: %s", f->path, tensor->name, f->rule->name,
                           tensor->problem);
    return 0;
}

int gemma4_import_fit(const gemma4_import_context *context, const gemma4_map_rule *rule,
                      size_t layer, size_t place, gemma4_pass *pass,
                      const gemma4_stored_tensor *tensor, gemma4_import_part *part,
                      gemma4_error *error)
{
    fitting f = {.context = context,
                 .rule = rule,
                 .layer = layer,
                 .place = place,
                 .tensor = tensor,
                 .path = gemma4_pass_path(pass),
                 .part = part,
                 .error = error};
    *part = (gemma4_import_part){.pass = pass, .tensor = tensor};
    know_letters(&f);
    if (fit_type(&f) || rule_axes(&f))
        return -1;
    for (size_t i = 0; i < tensor->rank; i++)
        if (fit_axis(&f, i))
            return -1;
    return 0;
}
