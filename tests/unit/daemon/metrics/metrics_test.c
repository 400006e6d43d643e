/* SPDX-License-Identifier: Apache-2.0
 * The metrics page, line by line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/metrics/metrics.h"

enum { LABEL_SETS_MAX = 4096 }; /* as metrics.h promises */

static struct phx_buf page_of(const struct phx_metrics *m)
{
    struct phx_buf page;

    phx_buf_init(&page, 0);
    phx_metrics_write(m, &page);
    phx_buf_putc(&page, '\0');
    return page;
}

static void expect(const struct phx_metrics *m, const char *text)
{
    struct phx_buf page = page_of(m);

    if (strstr(page.data, text) == NULL)
        fail_msg("not on the page: %s\n%s", text, page.data);
    phx_buf_fini(&page);
}

static int count(const char *text, const char *part)
{
    int n = 0;

    for (const char *p = text; (p = strstr(p, part)) != NULL; p += strlen(part))
        n++;
    return n;
}

static void an_unused_registry_writes_nothing(void **state)
{
    struct phx_metrics *m = phx_metrics_create();
    struct phx_buf      page = page_of(m);

    (void)state;
    assert_string_equal(page.data, "");
    phx_buf_fini(&page);
    phx_metrics_destroy(m);
    phx_metrics_destroy(NULL);
}

static void counters_add_and_gauges_replace(void **state)
{
    struct phx_metrics *m = phx_metrics_create();

    (void)state;
    phx_metrics_count(m, "phalanx_tokens_total", "kind=\"output\"", 3);
    phx_metrics_count(m, "phalanx_tokens_total", "kind=\"output\"", 4);
    phx_metrics_count(m, "phalanx_tokens_total", "kind=\"prompt\"", 1);
    phx_metrics_gauge(m, "phalanx_admissions_active", "", 9);
    phx_metrics_gauge(m, "phalanx_admissions_active", "", 2);
    expect(m, "# TYPE phalanx_tokens_total counter\nphalanx_tokens_total{kind=\"output\"} 7\n"
              "phalanx_tokens_total{kind=\"prompt\"} 1\n");
    expect(m, "# TYPE phalanx_admissions_active gauge\nphalanx_admissions_active 2\n");
    phx_metrics_destroy(m);
}

static void large_counters_keep_every_unit(void **state)
{
    struct phx_metrics *m = phx_metrics_create();

    (void)state;
    phx_metrics_count(m, "phalanx_comm_bytes_total", "replica=\"r0\"", 123456789012.0);
    phx_metrics_count(m, "phalanx_comm_bytes_total", "replica=\"r0\"", 1);
    expect(m, "phalanx_comm_bytes_total{replica=\"r0\"} 123456789013\n");
    phx_metrics_destroy(m);
}

static void buckets_are_cumulative_and_include_their_bound(void **state)
{
    struct phx_metrics *m = phx_metrics_create();

    (void)state;
    phx_metrics_observe(m, "phalanx_step_seconds", "replica=\"r0\"", 0.001); /* on a bound */
    phx_metrics_observe(m, "phalanx_step_seconds", "replica=\"r0\"", 0.002);
    phx_metrics_observe(m, "phalanx_step_seconds", "replica=\"r0\"", 100); /* above the last */
    expect(m, "# TYPE phalanx_step_seconds histogram\n"
              "phalanx_step_seconds_bucket{replica=\"r0\",le=\"0.0005\"} 0\n"
              "phalanx_step_seconds_bucket{replica=\"r0\",le=\"0.001\"} 1\n"
              "phalanx_step_seconds_bucket{replica=\"r0\",le=\"0.0025\"} 2\n");
    expect(m, "phalanx_step_seconds_bucket{replica=\"r0\",le=\"60\"} 2\n"
              "phalanx_step_seconds_bucket{replica=\"r0\",le=\"+Inf\"} 3\n"
              "phalanx_step_seconds_sum{replica=\"r0\"} 100.003\n"
              "phalanx_step_seconds_count{replica=\"r0\"} 3\n");
    phx_metrics_observe(m, "phalanx_queue_seconds", "", 0.2);
    expect(m, "phalanx_queue_seconds_bucket{le=\"0.25\"} 1\n");
    expect(m, "phalanx_queue_seconds_sum 0.2\nphalanx_queue_seconds_count 1\n");
    phx_metrics_destroy(m);
}

static void help_and_type_come_once(void **state)
{
    struct phx_metrics *m = phx_metrics_create();
    struct phx_buf      page;

    (void)state;
    for (int i = 0; i < 5; i++) {
        char labels[32];

        (void)snprintf(labels, sizeof(labels), "rule=\"r%d\"", i);
        phx_metrics_count(m, "phalanx_refusals_total", labels, 1);
    }
    page = page_of(m);
    assert_int_equal(count(page.data, "# HELP phalanx_refusals_total "), 1);
    assert_int_equal(count(page.data, "# TYPE phalanx_refusals_total "), 1);
    assert_int_equal(count(page.data, "\nphalanx_refusals_total{"), 5);
    phx_buf_fini(&page);
    phx_metrics_destroy(m);
}

static void label_sets_are_bounded_and_nothing_is_lost(void **state)
{
    struct phx_metrics *m = phx_metrics_create();
    struct phx_buf      page;
    int                 n_over = 10;

    (void)state;
    for (int i = 0; i < LABEL_SETS_MAX + n_over; i++) {
        char labels[32];

        (void)snprintf(labels, sizeof(labels), "tenant=\"t%d\"", i);
        phx_metrics_count(m, "phalanx_requests_total", labels, 1);
    }
    page = page_of(m);
    assert_int_equal(count(page.data, "\nphalanx_requests_total{"), LABEL_SETS_MAX);
    assert_non_null(strstr(page.data, "\nphalanx_requests_total 10\n"));
    phx_buf_fini(&page);
    phx_metrics_count(m, "phalanx_requests_total", "tenant=\"t0\"", 1); /* known ones go on */
    expect(m, "phalanx_requests_total{tenant=\"t0\"} 2\n");
    phx_metrics_destroy(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unused_registry_writes_nothing),
        cmocka_unit_test(counters_add_and_gauges_replace),
        cmocka_unit_test(large_counters_keep_every_unit),
        cmocka_unit_test(buckets_are_cumulative_and_include_their_bound),
        cmocka_unit_test(help_and_type_come_once),
        cmocka_unit_test(label_sets_are_bounded_and_nothing_is_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
