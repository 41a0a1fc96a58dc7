#include "formula.h"

#include <ctype.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include "support.h"

enum { MOST = 1024 }; /* values of a list */

typedef struct list {
    size_t n;
    double v[MOST];
    struct list
        *next; /* of all that the formula at hand has made: they go together, also where it is
                 refused */
} list;

static list *made;

/* Where a formula is being read. */
typedef struct reader {
    const char *text, *at;
    double eps;
    formula_find *find;
    void *context;
    char *problem; /* FORMULA_PROBLEM bytes */
    jmp_buf out;   /* where a problem leads, from any depth */
} reader;

static void refuse(reader *r, const char *expected)
{
    snprintf(r->problem, FORMULA_PROBLEM, "\"%.80s\": expected %s, found \"%.20s\"", r->text,
             expected, r->at);
    longjmp(r->out, 1);
}

static void skip_spaces(reader *r)
{
    r->at += strspn(r->at, " ");
}

static bool takes(reader *r, char c)
{
    skip_spaces(r);
    if (*r->at != c)
        return false;
    r->at++;
    return true;
}

static void expect(reader *r, char c)
{
    const char expected[] = {c, '\0'};
    if (!takes(r, c))
        refuse(r, expected);
}

/* An expression refers to itself, in brackets. */
static list *read_sum(reader *r);

static list *new_list(double value)
{
    list *l = malloc(sizeof *l);
    ck_assert_ptr_nonnull(l);
    l->n = 1;
    l->v[0] = value;
    l->next = made;
    made = l;
    return l;
}

static void free_lists(void)
{
    while (made) {
        list *l = made;
        made = l->next;
        free(l);
    }
}

/* --- operations --- */

static double plus(double a, double b)
{
    return a + b;
}

static double minus(double a, double b)
{
    return a - b;
}

static double times(double a, double b)
{
    return a * b;
}

static double divided(double a, double b)
{
    return a / b;
}

/* Of the formula in spec/model.md, 3.3: not the reference's function. */
static double gelu_tanh(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

/* Value by value, into a. */
static list *with(reader *r, list *a, list *b, double (*operation)(double, double))
{
    size_t n = a->n > b->n ? a->n : b->n;
    if ((a->n != n && a->n != 1) || (b->n != n && b->n != 1))
        refuse(r, "lists of one length before here");
    for (size_t i = n; i-- > 0;)
        a->v[i] = operation(a->v[a->n == 1 ? 0 : i], b->v[b->n == 1 ? 0 : i]);
    a->n = n;
    return a;
}

static double sum_of(const list *l)
{
    double sum = 0;
    for (size_t i = 0; i < l->n; i++)
        sum += l->v[i];
    return sum;
}

static list *reduced(list *l, double value)
{
    l->n = 1;
    l->v[0] = value;
    return l;
}

/* name( ... ): the bracket has been read. */
static list *read_call(reader *r, const char *name)
{
    static const struct {
        const char *name;
        double (*of)(double);
    } each[] = {{"sqrt", sqrt}, {"exp", exp},   {"cos", cos},
                {"sin", sin},   {"tanh", tanh}, {"gelu_tanh", gelu_tanh}};
    list *a = read_sum(r), *b = takes(r, ',') ? read_sum(r) : NULL;
    expect(r, ')');
    if (b && !strcmp(name, "pow"))
        return with(r, a, b, pow);
    if (b && !strcmp(name, "dot") && a->n == b->n) {
        a = with(r, a, b, times);
        return reduced(a, sum_of(a));
    }
    if (!b && !strcmp(name, "sum"))
        return reduced(a, sum_of(a));
    if (!b && !strcmp(name, "rms")) {
        double n = (double)a->n;
        for (size_t i = 0; i < a->n; i++)
            a->v[i] *= a->v[i];
        return reduced(a, sqrt(sum_of(a) / n + r->eps));
    }
    for (size_t f = 0; !b && f < sizeof each / sizeof *each; f++)
        if (!strcmp(name, each[f].name)) {
            for (size_t i = 0; i < a->n; i++)
                a->v[i] = each[f].of(a->v[i]);
            return a;
        }
    refuse(r, "a function with such arguments before here");
    return a;
}

/* --- tensors --- */

static size_t read_index(reader *r, size_t otherwise)
{
    char *end;
    skip_spaces(r);
    if (!isdigit((unsigned char)*r->at))
        return otherwise;
    size_t index = strtoul(r->at, &end, 10);
    r->at = end;
    return index;
}

/* name[ ... ]: the bracket has been read. */
static list *read_element(reader *r, const char *name)
{
    formula_tensor t;
    size_t first[8], end[8], at[8], axis;
    if (!r->find(r->context, name, &t))
        refuse(r, "a tap or a weight before here");
    for (axis = 0; axis < t.rank; axis++) {
        skip_spaces(r);
        bool all = *r->at == ':';
        if (!all && !isdigit((unsigned char)*r->at))
            refuse(r, "an index");
        first[axis] = read_index(r, 0);
        end[axis] = takes(r, ':') ? read_index(r, t.shape[axis]) : first[axis] + !all;
        at[axis] = first[axis];
        if (first[axis] >= end[axis] || end[axis] > t.shape[axis])
            refuse(r, "an index within the tensor before here");
        if (axis + 1 < t.rank)
            expect(r, ',');
    }
    expect(r, ']');
    list *l = new_list(0);
    for (l->n = 0; at[0] < end[0];) {
        size_t element = 0;
        for (axis = 0; axis < t.rank; axis++)
            element = element * t.shape[axis] + at[axis];
        if (l->n == MOST)
            refuse(r, "fewer values before here");
        l->v[l->n++] = (double)t.values[element];
        for (axis = t.rank; axis-- > 0 && ++at[axis] == end[axis] && axis > 0;)
            at[axis] = first[axis];
    }
    return l;
}

/* --- expressions --- */

static list *read_value(reader *r)
{
    char name[128], *end;
    if (takes(r, '-')) {
        list *l = read_value(r);
        return with(r, new_list(-1), l, times);
    }
    if (takes(r, '(')) {
        list *l = read_sum(r);
        expect(r, ')');
        return l;
    }
    if (isdigit((unsigned char)*r->at)) {
        double value = strtod(r->at, &end);
        r->at = end;
        return new_list(value);
    }
    size_t length = strspn(r->at, "abcdefghijklmnopqrstuvwxyz0123456789_.");
    if (length == 0 || length >= sizeof name)
        refuse(r, "a number, a tensor or a function");
    memcpy(name, r->at, length);
    name[length] = '\0';
    r->at += length;
    if (takes(r, '('))
        return read_call(r, name);
    expect(r, '[');
    return read_element(r, name);
}

static list *read_product(reader *r)
{
    list *l = read_value(r);
    for (;;)
        if (takes(r, '*'))
            l = with(r, l, read_value(r), times);
        else if (takes(r, '/'))
            l = with(r, l, read_value(r), divided);
        else
            return l;
}

static list *read_sum(reader *r)
{
    list *l = read_product(r);
    for (;;)
        if (takes(r, '+'))
            l = with(r, l, read_product(r), plus);
        else if (takes(r, '-'))
            l = with(r, l, read_product(r), minus);
        else
            return l;
}

size_t test_formula(const char *text, double eps, formula_find *find, void *context, double *values,
                    size_t room, char problem[FORMULA_PROBLEM])
{
    reader r = {.text = text, .at = text, .eps = eps, .find = find, .context = context};
    r.problem = problem;
    if (setjmp(r.out)) {
        free_lists();
        return 0;
    }
    list *l = read_sum(&r);
    skip_spaces(&r);
    if (*r.at != '\0')
        refuse(&r, "the end");
    if (l->n > room)
        refuse(&r, "fewer values");
    size_t n = l->n;
    memcpy(values, l->v, n * sizeof *values);
    free_lists();
    return n;
}
