/* SPDX-License-Identifier: Apache-2.0
 * Every role against every method, by the table and over the wire. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "world.h"

/* What the documentation says (docs/api-grpc.md): user, operator, auditor, admin. */
static const struct {
    enum phx_rpc_method method;
    const char         *roles;
} expected[] = {
    {PHX_RPC_CLUSTER_GET, ".o.a"},       {PHX_RPC_CLUSTER_WATCH, ".o.a"},
    {PHX_RPC_CLUSTER_DRAIN, ".o.a"},     {PHX_RPC_CLUSTER_RESTART, ".o.a"},
    {PHX_RPC_INFERENCE_GENERATE, "u..."}, {PHX_RPC_ADMIT, "u..."},
    {PHX_RPC_RENEW, "u..."},             {PHX_RPC_SETTLE, "u..."},
    {PHX_RPC_CANCEL_LEASE, "u..."},      {PHX_RPC_LICENSE_GET, ".oua"},
    {PHX_RPC_LICENSE_INSTALL, "...a"},   {PHX_RPC_LICENSE_SEATS, "..ua"},
    {PHX_RPC_LICENSE_ACCEPT_CLOCK, "...a"}, {PHX_RPC_METERING_QUERY, "uoua"},
    {PHX_RPC_METERING_EXPORT, "..ua"},   {PHX_RPC_AUDIT_GET, "..u."},
    {PHX_RPC_AUDIT_PROVE, "..u."},       {PHX_RPC_AUDIT_CHECKPOINT, ".oua"},
    {PHX_RPC_AUDIT_SEARCH, "..u."},      {PHX_RPC_AUDIT_REPLAY, "..u."},
};
static const unsigned bits[] = {PHX_ROLE_BIT_USER, PHX_ROLE_BIT_OPERATOR, PHX_ROLE_BIT_AUDITOR,
                                PHX_ROLE_BIT_ADMIN};

static const char *find_roles(enum phx_rpc_method method)
{
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
        if (expected[i].method == method)
            return expected[i].roles;
    return "....";
}

static void the_table_is_what_is_written_down(void **state)
{
    (void)state;
    for (int m = -1; m <= PHX_RPC_METHODS + 1; m++) {
        const char *roles = find_roles((enum phx_rpc_method)m);

        assert_false(phx_control_may((enum phx_rpc_method)m, 0));
        assert_false(phx_control_may((enum phx_rpc_method)m, 16)); /* a bit of no role */
        for (int r = 0; r < 4; r++)
            if (phx_control_may((enum phx_rpc_method)m, bits[r]) != (roles[r] != '.'))
                fail_msg("method %d, role %d", m, r);
    }
    assert_int_equal(sizeof(expected) / sizeof(expected[0]), PHX_RPC_METHODS - 1); /* none is forgotten */
}

static struct world w;
static struct forge forge;

/* The role of a client as a column of the table; the console has all but user. */
static bool is_expected(enum world_who who, const char *roles)
{
    switch (who) {
    case WORLD_CONSOLE: return strcmp(roles + 1, "...") != 0;
    case WORLD_USER: return roles[0] != '.';
    case WORLD_OPERATOR: return roles[1] != '.';
    case WORLD_AUDITOR: return roles[2] != '.';
    case WORLD_ADMIN: return roles[3] != '.';
    default: return false;
    }
}

static int ask(enum world_who who, enum phx_rpc_method method)
{
    struct phx_rpc_request q = world_request(method);
    struct phx_rpc_answer  answer;
    struct phx_rpc_stream *stream;
    int                    rc;

    if (method != PHX_RPC_METERING_EXPORT)
        return world_ask(&w, who, &q, &answer);
    assert_int_equal(phx_rpc_stream_open(w.clients[who], 5000, &q, &stream, &w.err), 0);
    while ((rc = phx_rpc_stream_recv(stream, w.arena, &answer, &w.err)) == 1)
        continue;
    phx_rpc_stream_close(stream);
    return rc;
}

static void every_client_meets_the_table_over_the_wire(void **state)
{
    int n_allowed = 0, n_refused = 0;

    (void)state;
    world_open(&w, &forge, false);
    world_start(&w);
    for (int m = PHX_RPC_LICENSE_GET; m < PHX_RPC_METHODS; m++)
        for (int who = 0; who < WORLD_CLIENTS; who++) {
            struct phx_rpc_refusal refusal;
            int                    rc = ask((enum world_who)who, (enum phx_rpc_method)m);
            bool                   is_refused = rc == PHX_E_DENIED || rc == PHX_E_UNAUTH;

            if (is_refused == is_expected((enum world_who)who, find_roles((enum phx_rpc_method)m)))
                fail_msg("method %d, client %d: %d %s", m, who, rc, w.err.text);
            phx_rpc_client_refusal(w.clients[who], &refusal);
            if (is_refused)
                assert_string_equal(refusal.rule, who == WORLD_NOBODY ? "identity" : "role");
            if (who == WORLD_NOBODY)
                assert_int_equal(rc, PHX_E_UNAUTH);
            n_allowed += !is_refused;
            n_refused += is_refused;
        }
    assert_int_equal(n_allowed + n_refused, 11 * WORLD_CLIENTS);
    assert_int_equal(n_allowed, 11 + 1 + 3 + 9 + 7); /* console, user, operator, auditor, admin */
    world_close(&w);
}

/* Its certificate opens the cluster's own doors: with somebody's key in hand it still opens no other. */
static void a_rank_is_nobody_even_with_a_key(void **state)
{
    struct phx_rpc_request q = {.method = PHX_RPC_LICENSE_GET};

    (void)state;
    world_open(&w, &forge, false);
    world_start(&w);
    assert_int_equal(world_ask(&w, WORLD_ADMIN, &q, NULL), 0);
    assert_int_equal(world_ask(&w, WORLD_RANK, &q, NULL), PHX_E_DENIED);
    assert_non_null(strstr(w.err.text, "certificate of the cluster itself"));
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_is_what_is_written_down),
        cmocka_unit_test(every_client_meets_the_table_over_the_wire),
        cmocka_unit_test(a_rank_is_nobody_even_with_a_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
