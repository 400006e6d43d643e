/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/seat/seat.h"
#include "rpc/base/buf.h"
#include "world.h"

static struct world w;
static struct forge forge;

static void fails(int rc, int want, const char *text)
{
    assert_int_equal(rc, want);
    if (strstr(w.err.text, text) == NULL)
        fail_msg("\"%s\" does not contain \"%s\"", w.err.text, text);
}

struct sitting {
    int         n;
    const char *tenant;
    bool        is_indirect;
};

static int write_seats(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct sitting *s = ctx;
    struct phx_seat       seat = {.tenant = s->tenant, .first_ns = w.now_ns, .is_indirect = s->is_indirect};
    int                   rc = 0;

    phx_period_format(w.now_ns, seat.period);
    for (int i = 0; rc == 0 && i < s->n; i++) {
        memset(seat.seat_id, 0, sizeof(seat.seat_id));
        (void)snprintf((char *)seat.seat_id, sizeof(seat.seat_id), "%s%d", s->tenant, i);
        rc = phx_seat_add(tx, &seat, err);
    }
    return rc;
}

static void sit(int n, const char *tenant, bool is_indirect)
{
    struct sitting s = {n, tenant, is_indirect};

    world_write(&w, write_seats, &s);
}

static const struct phx_rpc_license *get(struct phx_rpc_answer *a)
{
    struct phx_rpc_request q = {.method = PHX_RPC_LICENSE_GET};

    if (world_ask(&w, WORLD_OPERATOR, &q, a) != 0)
        fail_msg("%s", w.err.text);
    return &a->u.license.facts;
}

static void without_a_licence_the_facts_say_so(void **state)
{
    const struct phx_rpc_license *f;
    struct phx_rpc_answer         a;

    (void)state;
    world_open(&w, &forge, false);
    sit(3, "acme", false);
    world_start(&w);
    f = get(&a);
    assert_true(f->state == PHX_RPC_LICENSE_NONE || f->state == PHX_RPC_LICENSE_INVALID);
    assert_int_equal(f->seats, -1);
    assert_int_equal(f->seats_used, 3);
    assert_string_equal(f->license_id, "");
    assert_string_equal(f->clock_state, "ok");
    world_close(&w);
}

static void the_facts_are_those_of_the_licence(void **state)
{
    const struct phx_rpc_license *f;
    struct phx_rpc_answer         a;
    char                          period[8];

    (void)state;
    world_open(&w, &forge, true);
    sit(501, "acme", false);
    sit(2, "robots", true);
    world_start(&w);
    f = get(&a);
    assert_int_equal(f->serial, 7);
    assert_int_equal(f->seats, 500);
    assert_int_equal(f->seats_used, 501);
    assert_int_equal(f->indirect_used, 2);
    assert_int_equal(f->state, PHX_RPC_LICENSE_OVERDRAFT);
    assert_int_equal(f->key_set_version, 3);
    assert_true(f->n_models > 0 && f->models[0].manifest_root[0] != '\0');
    assert_in_range(f->not_after_unix_s - f->not_before_unix_s, 301 * 86400 - 1, 301 * 86400 + 1);
    phx_period_format(w.now_ns, period);
    assert_string_equal(f->period, period);
    assert_non_null(strstr(f->state_reason, "serial 7"));
    world_close(&w);
}

/* The licence in force with the serial that follows. */
static char *next_license(int serial)
{
    json_t *payload = forge_payload(&forge);
    char   *text, date[32];

    phx_assert(json_object_set_new(payload, "serial", json_integer(serial)) == 0);
    phx_assert(json_object_set_new(payload, "supersedes", json_integer(7)) == 0);
    (void)snprintf(date, sizeof(date), "%s", "2026-01-01T00:00:00Z");
    phx_assert(json_object_set_new(payload, "not_before", json_string(date)) == 0);
    phx_assert(json_object_set_new(payload, "not_after", json_string("2099-01-01T00:00:00Z")) == 0);
    text = forge_sign(payload, &forge.issuers[0]);
    json_decref(payload);
    return text;
}

static int count_notes(void *ctx, const struct phx_value *c, int n)
{
    (void)n;
    *(int64_t *)ctx = c[0].number;
    return 0;
}

static int read_notes(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    return phx_tx_exec(tx, "SELECT COUNT(*) FROM audit WHERE record LIKE '%licence.note%'"
                           " AND record LIKE '%new contract%' AND record LIKE '%acme/ada%'", NULL, 0,
                       count_notes, ctx, err);
}

static void a_licence_is_tried_and_installed(void **state)
{
    struct phx_rpc_request q = {.method = PHX_RPC_LICENSE_INSTALL};
    struct phx_rpc_answer  a;
    char                  *text;
    int64_t                n = 0;

    (void)state;
    world_open(&w, &forge, true);
    world_start(&w);
    text = next_license(8);
    q.u.license_install = (struct phx_rpc_license_install){.envelope = {text, strlen(text)},
                                                           .note = "new contract", .is_dry_run = true};
    fails(world_ask(&w, WORLD_AUDITOR, &q, &a), PHX_E_DENIED, "(admin)");
    if (world_ask(&w, WORLD_ADMIN, &q, &a) != 0)
        fail_msg("%s", w.err.text);
    assert_true(a.u.license_install.is_dry_run);
    assert_int_equal(a.u.license_install.facts.serial, 8);
    assert_int_equal(get(&a)->serial, 7); /* nothing changed */
    q.u.license_install.is_dry_run = false;
    if (world_ask(&w, WORLD_ADMIN, &q, &a) != 0)
        fail_msg("%s", w.err.text);
    assert_false(a.u.license_install.is_dry_run);
    assert_int_equal(a.u.license_install.facts.serial, 8);
    assert_int_equal(get(&a)->serial, 8);
    world_write(&w, read_notes, &n);
    assert_int_equal(n, 1);
    text[strlen(text) / 2] ^= 1; /* one bit */
    assert_true(world_ask(&w, WORLD_ADMIN, &q, &a) < 0);
    assert_int_equal(get(&a)->serial, 8);
    phx_mem_free(text);
    world_close(&w);
}

static void seats_come_in_pages(void **state)
{
    struct phx_rpc_request q = {.method = PHX_RPC_LICENSE_SEATS, .u.seats = {.page_size = 100}};
    struct phx_rpc_answer  a = {0};
    char                   last[65] = "";
    int                    n = 0, pages = 0;

    (void)state;
    world_open(&w, &forge, false);
    sit(230, "acme", false);
    sit(20, "zeta", true);
    world_start(&w);
    do {
        q.u.seats.page_token = pages > 0 ? a.u.seats.next_page_token : "";
        if (world_ask(&w, WORLD_AUDITOR, &q, &a) != 0)
            fail_msg("%s", w.err.text);
        for (int i = 0; i < a.u.seats.n_seats; i++) {
            assert_true(strcmp(a.u.seats.seats[i].seat_id, last) > 0); /* ascending: none twice */
            memcpy(last, a.u.seats.seats[i].seat_id, sizeof(last));
            n++;
        }
        pages++;
    } while (*a.u.seats.next_page_token != '\0');
    assert_int_equal(n, 250);
    assert_int_equal(pages, 3);
    q.u.seats = (struct phx_rpc_seats){.tenant = "zeta", .page_size = 20};
    assert_int_equal(world_ask(&w, WORLD_AUDITOR, &q, &a), 0);
    assert_int_equal(a.u.seats.n_seats, 20);
    assert_true(a.u.seats.seats[0].is_indirect);
    assert_string_equal(a.u.seats.next_page_token, "");
    q.u.seats.page_token = "nonsense";
    fails(world_ask(&w, WORLD_AUDITOR, &q, &a), PHX_E_INVALID, "page_token");
    q.u.seats = (struct phx_rpc_seats){.period = "2026-13"};
    fails(world_ask(&w, WORLD_AUDITOR, &q, &a), PHX_E_INVALID, "2026-13");
    world_close(&w);
}

static void a_clock_is_accepted_by_two_and_in_ones_own_name(void **state)
{
    struct phx_rpc_request q = {.method = PHX_RPC_LICENSE_ACCEPT_CLOCK};

    (void)state;
    world_open(&w, &forge, false);
    world_start(&w);
    q.u.accept_clock = (struct phx_rpc_accept_clock){"acme/bob", "acme/eve"};
    fails(world_ask(&w, WORLD_ADMIN, &q, NULL), PHX_E_DENIED, "may not speak for another");
    q.u.accept_clock = (struct phx_rpc_accept_clock){"", "acme/ada"};
    fails(world_ask(&w, WORLD_ADMIN, &q, NULL), PHX_E_INVALID, "");
    q.u.accept_clock = (struct phx_rpc_accept_clock){"", "acme/eve"};
    fails(world_ask(&w, WORLD_ADMIN, &q, NULL), PHX_E_STATE, ""); /* the clock is not suspect */
    q.u.accept_clock = (struct phx_rpc_accept_clock){"bob", "eve"};
    fails(world_ask(&w, WORLD_CONSOLE, &q, NULL), PHX_E_STATE, "");
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_licence_the_facts_say_so),
        cmocka_unit_test(the_facts_are_those_of_the_licence),
        cmocka_unit_test(a_licence_is_tried_and_installed),
        cmocka_unit_test(seats_come_in_pages),
        cmocka_unit_test(a_clock_is_accepted_by_two_and_in_ones_own_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
