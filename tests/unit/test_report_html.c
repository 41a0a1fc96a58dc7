/* The page for a browser (tests/check/report_html.h): well-formed whatever the dump said about
 * itself, and nothing in it that a browser would run or load. */
#include "causes.h"
#include "counter_model.h"
#include "fit.h"
#include "report_html.h"
#include "reports.h"
#include "suites.h"
#include "support.h"
#include "version.h"

#include <math.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* What a dump may say, and what must not come through. */
static const char HOSTILE[] =
    "<script>alert(1)</script>\"' onload=x & \x01\x1b[2J\xff\xc3 \xe2\x80\xae http://evil.example/";

/* --- reports --- */

enum { MOST_LAYERS = 30, MOST_TAPS = GEMMA4_TAP_COUNT * MOST_LAYERS };
static gemma4_tap_result results[MOST_TAPS];
static bool covered[MOST_LAYERS];

/* A model of that many layers; every tap has the verdict, and numbers unless it is not covered. */
static gemma4_report report_of(size_t layers, gemma4_verdict verdict)
{
    gemma4_report report = {.conforms = verdict != GEMMA4_DIVERGES,
                            .level = GEMMA4_FULL_LEVEL,
                            .dtype = "float32",
                            .case_id = "my-case",
                            .engine = "my engine",
                            .engine_version = "1.0",
                            .expected_from = "golden",
                            .layers = layers,
                            .positions = 9,
                            .taps = results,
                            .layer_covered = covered,
                            .taps_of = 66};
    bool anything = verdict != GEMMA4_NOT_COVERED;
    for (size_t tap = 0; tap < GEMMA4_TAP_COUNT; tap++)
        for (size_t layer = 0;
             layer < (gemma4_tap_describe((gemma4_tap)tap)->per_layer ? layers : 1); layer++)
            results[report.tap_count++] = (gemma4_tap_result){
                .tap = (gemma4_tap)tap,
                .layer = layer,
                .verdict = verdict,
                .local = {anything ? GEMMA4_METRIC_RMS_IN_SPREADS : GEMMA4_METRIC_NONE, 0.5, 3, 1},
                .accumulated = {GEMMA4_METRIC_RELATIVE_RMS, 1e-7, 2e-5, 3},
                .added = 1e-7,
                .inherited = 2e-7,
                .metrics = {1e-7, 2e-7, 3, 1, 1}};
    for (size_t layer = 0; layer < layers; layer++)
        covered[layer] = anything;
    report.taps_covered = anything ? 66 : 0;
    if (verdict == GEMMA4_DIVERGES)
        report.first_divergence = &results[3];
    return report;
}

static gemma4_report hostile_report(void)
{
    gemma4_report report = report_of(2, GEMMA4_PASS);
    report.conforms = false;
    report.engine = report.engine_version = report.case_id = report.dtype = HOSTILE;
    report.first_divergence = &results[3];
    results[3].verdict = GEMMA4_DIVERGES;
    snprintf(results[3].problem, sizeof results[3].problem, "%s", HOSTILE);
    snprintf(report.expected_detail, sizeof report.expected_detail, "%s", HOSTILE);
    gemma4_report_note(&report, "%s", HOSTILE);
    return report;
}

/* Every number is one that no format prints as such. */
static gemma4_report nonfinite_report(void)
{
    static const double odd[] = {NAN, INFINITY, -INFINITY, 1e308, 5e-324, -0.0};
    gemma4_report report = report_of(2, GEMMA4_DIVERGES);
    for (size_t i = 0; i < report.tap_count; i++) {
        double v = odd[i % COUNT(odd)], w = odd[i / 2 % COUNT(odd)];
        gemma4_tap_result *r = &results[i];
        r->local = (gemma4_measure){GEMMA4_METRIC_WORST_POSITION_IN_SPREADS, v, w, 7};
        r->added = w;
        r->inherited = v;
        r->metrics = (gemma4_metrics){v, w, 7, w, v};
        r->worst_engine = v;
        r->worst_expected = w;
    }
    return report;
}

static gemma4_cause cause_of(size_t model)
{
    gemma4_cause cause = {.explained = true,
                          .model = model,
                          .second = GEMMA4_NO_MODEL,
                          .tap = GEMMA4_TAP_ATTN_Q_ROPE,
                          .first_layer = 5,
                          .taps = 4,
                          .layers = "5, 11",
                          .coefficient = 1.00004,
                          .residual = 0.2,
                          .equivalent = {1, 2},
                          .equivalent_count = 2,
                          .has_near = true,
                          .near = {.model = 3, .coefficient = 0.9, .residual = 1e6, .error = 3e6}};
    return cause;
}

/* --- pages --- */

/* What is between here and done is written to a string, to be freed. */
static char *page_text;
static size_t page_size;

static FILE *page(void)
{
    FILE *f = open_memstream(&page_text, &page_size);
    ck_assert_ptr_nonnull(f);
    return f;
}

static char *done(FILE *f)
{
    ck_assert_int_eq(fclose(f), 0);
    return page_text;
}

static char *report_page(gemma4_report report)
{
    FILE *f = page();
    gemma4_report_html(f, &report);
    return done(f);
}

static char *cause_page(gemma4_cause cause)
{
    FILE *f = page();
    gemma4_report_html_cause(f, NULL, 0, &cause);
    return done(f);
}

static char *unusable_page(const char *message)
{
    FILE *f = page();
    gemma4_report_html_unusable(f, message);
    return done(f);
}

static void assert_has(const char *text, const char *expected)
{
    ck_assert_msg(strstr(text, expected) != NULL, "the page lacks %s", expected);
}

static void assert_lacks(const char *text, const char *unwanted)
{
    const char *at = strstr(text, unwanted);
    ck_assert_msg(at == NULL, "the page has %s: %.80s", unwanted, at);
}

/* --- what a page may hold --- */

/* Nothing runs, nothing is loaded, and links lead to https or into the page. */
static void assert_self_contained(const char *text)
{
    static const char *const unwanted[] = {
        "<script", "<iframe",     "<img",    "<link", "<object",     "<embed",      "<base",
        " src=",   " onload=x\"", "@import", "url(",  "javascript:", "href=\"http:"};
    for (size_t i = 0; i < COUNT(unwanted); i++)
        assert_lacks(text, unwanted[i]);
    for (const char *s = text; (s = strstr(s, "href=\"")) != NULL; s++) {
        bool inside = s[6] == '#', https = !strncmp(s + 6, "https://", 8);
        ck_assert_msg(inside || https, "a link: %.80s", s);
        ck_assert_msg(inside || !strncmp(s - 26, "rel=\"noopener noreferrer\" ", 26),
                      "a link without rel: %.80s", s);
    }
}

static void assert_page(const char *text)
{
    const char *at = test_malformed(text);
    ck_assert_msg(at == NULL, "the page is malformed: %.80s", at);
    assert_self_contained(text);
}

/* --- what the checker above must find --- */

static const char *const BROKEN[] = {
    "<p>",
    "<p",
    "<p title=\"",
    "<p title",
    "</p>",
    "<p><b></p></b>",
    "a & b",
    "<p title=x></p>",
    "<p title=\"<\"></p>",
    "a < b",
    "<p>\x01</p>",
    "&nbsp;",
};

START_TEST(broken_markup_is_found)
{
    ck_assert_ptr_nonnull(test_malformed(BROKEN[_i]));
}
END_TEST

START_TEST(good_markup_is_not)
{
    ck_assert_ptr_null(test_malformed("<!DOCTYPE html>\n<p title=\"a &lt; b\">x<br/>y &amp; <b "
                                      "class=\"c\"\nid=\"d\">z</b></p>\n"));
}
END_TEST

/* --- the page --- */

START_TEST(every_verdict_gives_a_page)
{
    static const gemma4_verdict verdicts[] = {GEMMA4_PASS, GEMMA4_MARGINAL, GEMMA4_DIVERGES,
                                              GEMMA4_EXCUSED, GEMMA4_NOT_COVERED};
    char *text = report_page(report_of(2, verdicts[_i]));
    assert_page(text);
    assert_has(text, verdicts[_i] == GEMMA4_DIVERGES ? "DOES NOT CONFORM" : "✓ CONFORMS");
    assert_has(text, "<b><bdi>my engine</bdi></b> <bdi>1.0</bdi>");
    free(text);
}
END_TEST

START_TEST(what_the_dump_says_is_escaped)
{
    char *text = report_page(hostile_report());
    assert_page(text);
    assert_lacks(text, "\xff");
    assert_lacks(text, "\x1b");
    assert_has(text, "&lt;script&gt;alert(1)&lt;/script&gt;&quot;' onload=x &amp; ??[2J??");
    free(text);
}
END_TEST

START_TEST(numbers_that_are_none_are_said_so)
{
    gemma4_report report = nonfinite_report();
    char *text = report_page(report);
    assert_page(text);
    assert_lacks(text, "nan");
    assert_lacks(text, ">inf");
    assert_lacks(text, " inf");
    assert_has(text, "NaN");
    assert_has(text, "∞");
    free(text);
}
END_TEST

/* One failing cell has a cross that leads to its row; its neighbours have none. */
/* What the accumulated comparison shows is no verdict. */
START_TEST(accumulated_cells_have_no_verdict)
{
    gemma4_report report = report_of(2, GEMMA4_DIVERGES);
    char *text = report_page(report);
    size_t cells = 0;
    assert_has(text, "title=\"layers.0.attn.norm: FAIL, 0.5 at tolerance 3");
    assert_has(text,
               "title=\"layers.0.attn.norm: with all earlier errors in it, relative RMS 1e-7");
    for (const char *s = text; (s = strstr(s, "<td class=\"a\"")) != NULL; s++, cells++) {
        const char *fail = strstr(s, "FAIL");
        ck_assert_msg(fail == NULL || fail > strchr(s, '>'), "%.200s", s);
    }
    ck_assert_uint_eq(cells, report.tap_count - 3); /* two layers' expert ids, and those of
                                                       log-probabilities, are no numbers */
    free(text);
}
END_TEST

START_TEST(too_little_for_a_verdict_is_none)
{
    gemma4_report report = report_of(2, GEMMA4_PASS);
    report.level = GEMMA4_PARTIAL;
    report.tap_count = report.taps_covered = 2;
    char *text = report_page(report);
    assert_page(text);
    assert_has(text, "<title>my engine no fault found: gemma4-check</title>");
    assert_has(text, "<div class=\"banner unsure\"><h1>? NO VERDICT</h1>\n<p><b>NO FAULT FOUND in "
                     "the 2 tensors covered (of 66): too little for a "
                     "verdict; dump logits at least.</b></p>");
    assert_lacks(text, "CONFORMS");
    free(text);
}
END_TEST

START_TEST(the_banner_warns)
{
    gemma4_report report = report_of(2, GEMMA4_PASS);
    gemma4_report_warn(&report, "%s", HOSTILE);
    report.required = GEMMA4_FULL_LEVEL;
    report.level = GEMMA4_LOGITS_LEVEL;
    report.conforms = false;
    char *text = report_page(report), *end = strstr(text, "<dl class=\"facts\">");
    assert_page(text);
    ck_assert_ptr_nonnull(end);
    *end = '\0';
    assert_has(text, "<p class=\"warning\"><b>Warning:</b> <bdi>&lt;script&gt;");
    assert_has(text,
               "<p>--require full: the dump covers less (logits): 66 of 66 required tensors.</p>");
    free(text);
}
END_TEST

START_TEST(every_page_says_which_build_wrote_it)
{
    gemma4_report report = report_of(2, GEMMA4_PASS);
    report.golden_sha256 = "0123abcd";
    char *texts[] = {report_page(report), unusable_page("why")};
    for (size_t i = 0; i < COUNT(texts); i++) {
        ck_assert_ptr_nonnull(strstr(texts[i], "Written by <code>gemma4-check "));
        ck_assert_ptr_nonnull(strstr(texts[i], gemma4_version()));
    }
    assert_has(texts[0], "<dd>0123abcd</dd>");
    free(texts[0]);
    free(texts[1]);
}
END_TEST

START_TEST(a_failing_cell_leads_to_its_numbers)
{
    gemma4_report report = report_of(12, GEMMA4_PASS);
    results[40].verdict = GEMMA4_DIVERGES;
    results[40].local.error = NAN;
    report.conforms = false;
    report.first_divergence = &results[40];
    char *text = report_page(report);
    assert_page(text);
    assert_has(text, "<td class=\"s8 first\"");
    ck_assert_uint_eq(test_occurrences(text, "<a href=\"#t40\">✕</a>"), 1);
    ck_assert_uint_eq(test_occurrences(text, "<tr id=\"t40\""), 1);
    ck_assert_uint_eq(test_occurrences(text, "<a href=\"#t"), 1);
    free(text);
}
END_TEST

START_TEST(what_is_not_covered_looks_like_it)
{
    gemma4_report report = report_of(2, GEMMA4_PASS);
    results[3].verdict = GEMMA4_NOT_COVERED; /* one of attn.norm's two layers */
    char *text = report_page(report);
    assert_page(text);
    assert_has(text, "<td class=\"none\" title=\"layers.0.attn.norm: not in the dump\">");
    free(text);
}
END_TEST

START_TEST(a_dump_that_covers_nothing_gives_a_page)
{
    gemma4_report report = report_of(12, GEMMA4_NOT_COVERED);
    report.level = GEMMA4_PARTIAL;
    report.conforms = false;
    report.engine = report.engine_version = report.case_id = NULL;
    char *text = report_page(report);
    assert_page(text);
    assert_has(text, "0 of 66 required tensors, in 0 of 12 layers");
    assert_has(text, "no layer outputs");
    assert_has(text, "no choice of experts");
    assert_lacks(text, "class=\"first\"");
    free(text);
}
END_TEST

START_TEST(thirty_layers_have_a_cell_each)
{
    gemma4_report report = report_of(30, GEMMA4_PASS);
    char *text = report_page(report);
    assert_page(text);
    ck_assert_uint_eq(test_occurrences(text, "<td class=\"s"), report.tap_count);
    ck_assert_uint_eq(test_occurrences(text, "<th scope=\"col\">29</th>"), 2);
    /* and the legend's */
    ck_assert_uint_eq(test_occurrences(text, "<circle class=\"dot\""), 30 + 1);
    free(text);
}
END_TEST

START_TEST(routing_is_said_in_words)
{
    gemma4_report report = report_of(2, GEMMA4_PASS);
    report.routing = (gemma4_routing){.decisions = 18, .swaps = 3, .faults = 2, .near_ties = 4};
    char *text = report_page(report);
    assert_page(text);
    assert_has(text, "2 choices of experts cannot be explained by rounding");
    assert_has(text, "<span class=\"n\">4</span><span>near-ties</span>");
    free(text);
}
END_TEST

START_TEST(an_input_that_cannot_be_judged_is_no_verdict)
{
    char *text = unusable_page(HOSTILE);
    assert_page(text);
    assert_has(text, "CANNOT BE JUDGED");
    assert_has(text, "&lt;script&gt;");
    assert_lacks(text, "CONFORM<");
    free(text);
}
END_TEST

/* --- causes --- */

START_TEST(every_cause_of_the_catalogue_is_well_formed)
{
    for (size_t i = 0; i < gemma4_counter_model_count(); i++) {
        char *text = cause_page(cause_of(i));
        assert_page(text);
        assert_has(text, gemma4_counter_model_at(i)->id);
        ck_assert_uint_eq(test_occurrences(text, "<a rel="),
                          test_occurrences(gemma4_counter_model_at(i)->seen, "https://"));
        free(text);
    }
}
END_TEST

static const char *const EVIDENCE[] = {
    "layers.5.attn.q_rope</code>; layers 5, 11",
    "wrong</b>",
    "right</b>",
    "explains 4 failing tensors; coefficient 1 ",
    "Fits as well",
    "coefficient 0.9, leaves 1e6 times",
    "gemma4-check explain ",
};

START_TEST(a_cause_says)
{
    char *text = cause_page(cause_of(0));
    assert_has(text, EVIDENCE[_i]);
    free(text);
}
END_TEST

START_TEST(a_cause_below_the_bound_says_how_sure_it_is)
{
    gemma4_cause cause = cause_of(0);
    cause.below_bound = true;
    char *text = cause_page(cause);
    assert_page(text);
    assert_has(text, "no tensor fails by itself; the error holds 1 ± 0.2 of this mistake");
    free(text);
}
END_TEST

START_TEST(a_pair_shows_both)
{
    gemma4_cause cause = cause_of(0);
    cause.second = gemma4_counter_model_count() - 1;
    char *text = cause_page(cause);
    assert_page(text);
    ck_assert_uint_eq(test_occurrences(text, "<b>✕ wrong</b>"), 2);
    assert_has(text, "Together with");
    free(text);
}
END_TEST

START_TEST(an_unknown_cause_says_what_is_measured)
{
    gemma4_cause cause = cause_of(0);
    cause.explained = false;
    snprintf(cause.description, sizeof cause.description, "%s", HOSTILE);
    char *text = cause_page(cause);
    assert_page(text);
    assert_has(text, "No known mistake explains <code>layers.5.attn.q_rope</code>");
    assert_has(text, "&lt;script&gt;");
    assert_has(text, "Runner-up");
    assert_lacks(text, "wrong</b>");
    free(text);
}
END_TEST

/* --- the whole way, from a dump --- */

START_TEST(a_wrong_engine_s_page_names_its_mistake)
{
    test_judged j = test_judge_dump(
        "tiny-prompt", "golden/dumps/tiny-prompt-rope-pairing-contiguous.h5", "float32");
    char *text = report_page(j.report);
    assert_page(text);
    assert_has(text, "<p class=\"where\"><code>layers.5.attn.q_rope</code></p>");
    assert_has(text, "<h3><code>rope-pairing-contiguous</code>");
    assert_has(text,
               "<p>First at <code>layers.5.attn.q_rope</code>. 4 of 412 compared tensors fail");
    assert_has(text, "<p>Cause: <bdi>rope-pairing-contiguous, first at layers.5.attn.q_rope; "
                     "layers 5, 11; wrong: the first 2 * pairs lanes");
    assert_has(text, j.the_case->golden_sha256);
    assert_lacks(text, "Runner-up"); /* no other mistake comes near */
    ck_assert_uint_eq(test_occurrences(text, "<article"), 1);
    free(text);
    test_judged_free(&j);
}
END_TEST

Suite *report_html_suite(void)
{
    Suite *suite = suite_create("report_html");
    TCase *checker = tcase_create("checker"), *whole = tcase_create("page"),
          *causes = tcase_create("causes");
    tcase_add_loop_test(checker, broken_markup_is_found, 0, COUNT(BROKEN));
    tcase_add_test(checker, good_markup_is_not);
    tcase_add_loop_test(whole, every_verdict_gives_a_page, 0, 5);
    tcase_add_test(whole, what_the_dump_says_is_escaped);
    tcase_add_test(whole, numbers_that_are_none_are_said_so);
    tcase_add_test(whole, accumulated_cells_have_no_verdict);
    tcase_add_test(whole, too_little_for_a_verdict_is_none);
    tcase_add_test(whole, the_banner_warns);
    tcase_add_test(whole, every_page_says_which_build_wrote_it);
    tcase_add_test(whole, a_failing_cell_leads_to_its_numbers);
    tcase_add_test(whole, what_is_not_covered_looks_like_it);
    tcase_add_test(whole, a_dump_that_covers_nothing_gives_a_page);
    tcase_add_test(whole, thirty_layers_have_a_cell_each);
    tcase_add_test(whole, routing_is_said_in_words);
    tcase_add_test(whole, an_input_that_cannot_be_judged_is_no_verdict);
    tcase_add_test(whole, a_wrong_engine_s_page_names_its_mistake);
    tcase_add_test(causes, every_cause_of_the_catalogue_is_well_formed);
    tcase_add_loop_test(causes, a_cause_says, 0, COUNT(EVIDENCE));
    tcase_add_test(causes, a_cause_below_the_bound_says_how_sure_it_is);
    tcase_add_test(causes, a_pair_shows_both);
    tcase_add_test(causes, an_unknown_cause_says_what_is_measured);
    suite_add_tcase(suite, checker);
    suite_add_tcase(suite, whole);
    suite_add_tcase(suite, causes);
    return suite;
}
