/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/daemon/admission/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpc/base/clock.h"
#include "rpc/base/hex.h"
#include "rpc/base/mem.h"

static const uint8_t SITE_KEY[32] = {1, 2, 3};

static void write_owned(const char *path, char *text)
{
    struct phx_err err = {0};

    assert_int_equal(phx_file_write(path, text, strlen(text), 0600, &err), 0);
    phx_mem_free(text);
}

static void write_roots(const struct world *w)
{
    struct phx_buf text;
    char           hex[65];

    phx_buf_init(&text, 0);
    for (int i = 0; i < 3; i++) {
        phx_hex_encode(hex, sizeof(hex), w->forge.roots[i].public_key, 32);
        phx_buf_printf(&text, "%s\n", hex);
    }
    phx_buf_puts(&text, "threshold 2\n");
    write_owned(w->roots, phx_buf_take(&text));
}

json_t *world_payload(struct world *w)
{
    json_t *payload;

    forge_init(&w->forge);
    payload = forge_payload(&w->forge);
    json_object_set_new(payload, "not_before", json_string("2026-01-01T00:00:00Z"));
    json_object_set_new(payload, "not_after", json_string("2036-01-01T00:00:00Z"));
    json_object_set_new(payload, "issued_at", json_string("2026-02-01T00:00:00Z"));
    return payload;
}

void world_make(struct world *w, json_t *payload)
{
    json_t *mine = payload != NULL ? payload : world_payload(w), *keys;

    scratch_make(&w->scratch);
    (void)snprintf(w->license, sizeof(w->license), "%s/license.json", w->scratch.dir);
    (void)snprintf(w->key_set, sizeof(w->key_set), "%s/keyset.json", w->scratch.dir);
    (void)snprintf(w->roots, sizeof(w->roots), "%s/roots.pub", w->scratch.dir);
    write_roots(w);
    write_owned(w->license, forge_sign(mine, &w->forge.issuers[0]));
    keys = forge_key_set(&w->forge, 3);
    write_owned(w->key_set, forge_sign_key_set(keys, w->forge.roots, 2));
    json_decref(keys);
    json_decref(mine);
    w->options = (struct phx_admission_options){
        .site_key = SITE_KEY,
        .engine = {"b", "c", "bitwise", "cpu", "avx2", "bf16", "auto", "f32", "A", 1, 1, true},
        .model_name = "m",
        .aup_sha256 = "",
        .space_dir = "",
        .max_active = 3,
        .max_active_per_tenant = 2,
        .max_prompt_tokens = 4,
        .max_output_tokens = 40,
        .gateway_ttl_ms = 60000,
    };
}

void world_open(struct world *w)
{
    const struct phx_license_source source = {w->license, w->key_set, w->roots, "cluster"};
    struct phx_err                  err = {0};

    w->base = event_base_new();
    assert_int_equal(phx_store_open(w->scratch.db, w->base, &w->store, &err), 0);
    assert_int_equal(phx_time_open(w->store, &w->time, &err), 0);
    assert_int_equal(phx_license_open(w->store, &source, &w->licenses, &err), 0);
    w->options.base = w->base;
    w->options.store = w->store;
    w->options.time = w->time;
    w->options.license = w->licenses;
    assert_int_equal(phx_admission_open(&w->options, &w->admission, &err), 0);
}

void world_close(struct world *w)
{
    phx_store_drain(w->store);
    phx_admission_close(w->admission);
    phx_license_close(w->licenses);
    phx_time_close(w->time);
    phx_store_close(w->store);
    event_base_free(w->base);
}

void world_remove(struct world *w)
{
    scratch_remove(&w->scratch);
}

int64_t world_int(const struct world *w, const char *sql)
{
    return scratch_int(&w->scratch, sql);
}

void world_turn(struct world *w, const int *count, int n)
{
    int64_t deadline = phx_clock_mono_ns() + INT64_C(10000000000);

    while (*count < n && phx_clock_mono_ns() < deadline) {
        assert_true(event_base_loop(w->base, EVLOOP_NONBLOCK) >= 0);
        usleep(200);
    }
    usleep(2000);
    assert_true(event_base_loop(w->base, EVLOOP_NONBLOCK) >= 0);
    assert_int_equal(*count, n);
}

static void on_begun(void *ctx, struct phx_lease *lease, const struct phx_refusal *refusal)
{
    struct call *c = ctx;

    assert_true((lease == NULL) != (refusal == NULL));
    c->n_begun++;
    c->lease = lease;
    if (refusal != NULL) {
        c->refusal = refusal->code;
        c->retry_after_ms = refusal->retry_after_ms;
        (void)snprintf(c->rule, sizeof(c->rule), "%s", refusal->rule);
        (void)snprintf(c->receipt, sizeof(c->receipt), "%s", refusal->receipt);
        assert_true(strlen(refusal->text) > 10);
        return;
    }
    (void)snprintf(c->receipt, sizeof(c->receipt), "%s", phx_lease_receipt(lease));
}

static void on_settled(void *ctx, const struct phx_err *err)
{
    struct call *c = ctx;

    c->n_settled++;
    c->settle_code = err != NULL ? err->code : 0;
}

void world_begin(struct world *w, struct call *c, struct person p)
{
    const int32_t              prompt[] = {p.first_token + 7, 8, 9, 10};
    struct phx_identity        id = {.auth = PHX_AUTH_KEY, .is_person = !p.is_service, .issuer = "phalanx"};
    struct phx_sampling        sampling;
    struct phx_admission_facts facts = {
        .identity = &id,
        .request_id = "req-1",
        .endpoint = "completions",
        .purpose = p.purpose,
        .idempotency_key = p.idempotency_key,
        .prompt = prompt,
        .n_prompt = 4,
        .max_new = p.max_new > 0 ? p.max_new : 10,
        .n_choices = p.n_choices > 0 ? p.n_choices : 1,
        .sampling = &sampling,
    };

    phx_sampling_init(&sampling);
    id.roles = p.roles != 0 ? p.roles : PHX_ROLE_BIT_USER;
    (void)snprintf(id.tenant, sizeof(id.tenant), "%s", p.tenant != NULL ? p.tenant : "acme");
    (void)snprintf(id.user, sizeof(id.user), "%s", p.user != NULL ? p.user : "ann");
    (void)snprintf(id.key_id, sizeof(id.key_id), "%s", p.key_id != NULL ? p.key_id : "k1");
    memset(c, 0, sizeof(*c));
    (void)phx_admission_begin(w->admission, &facts, on_begun, c);
    assert_int_equal(c->n_begun, 0); /* later, on the loop */
    world_turn(w, &c->n_begun, 1);
}

void world_end(struct world *w, struct call *c, const char *finish, int32_t n_output)
{
    static const int32_t        ids[64] = {100, 101, 102};
    const struct phx_choice_ids choice = {ids, n_output};
    const struct phx_outcome    o = {
           .finish = finish,
           .choices = &choice,
           .n_choices = 1,
           .n_reasoning = n_output > 0,
           .n_cached = 2,
           .queue_ms = 1,
           .first_token_ms = 2,
           .total_ms = 3,
    };

    phx_lease_end(c->lease, &o, on_settled, c);
    assert_int_equal(c->n_settled, 0);
    world_turn(w, &c->n_settled, 1);
    assert_int_equal(c->settle_code, 0);
}
