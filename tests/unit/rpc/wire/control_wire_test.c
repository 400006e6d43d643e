/* SPDX-License-Identifier: Apache-2.0
 * Requests and answers of Admission, License, Metering and Audit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/wire/map.h"

struct bytes {
    uint8_t *data;
    size_t   size;
};

static struct phx_arena *arena;
static struct phx_err    err;

static int set_up(void **state)
{
    (void)state;
    arena = phx_arena_create();
    memset(&err, 0, sizeof(err));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    phx_arena_destroy(arena);
    return 0;
}

static void assert_fails(int rc, int want, const char *text)
{
    assert_int_equal(rc, want);
    if (strstr(err.text, text) == NULL)
        fail_msg("\"%s\" does not contain \"%s\"", err.text, text);
}

static const char *repeat(char c, size_t n)
{
    char *s = phx_arena_calloc(arena, 1, n + 1);

    memset(s, c, n);
    return s;
}

static struct bytes pack(const struct phx_wire_out *out)
{
    struct bytes b = {phx_arena_calloc(arena, 1, out->size + 1), out->size};

    phx_wire_pack(out, b.data);
    return b;
}

static int ask(const struct phx_rpc_request *q, struct phx_rpc_request *r)
{
    struct phx_wire_out out;
    struct bytes        b;
    int                 rc = phx_wire_encode_request(q, arena, &out, &err);

    if (rc != 0)
        return rc;
    b = pack(&out);
    return phx_wire_decode_request(q->method, b.data, b.size, arena, r, &err);
}

static int answer(enum phx_rpc_method method, const struct phx_rpc_answer *a,
                  struct phx_rpc_answer *r)
{
    struct phx_wire_out out;
    struct bytes        b;
    int                 rc = phx_wire_encode_answer(method, a, arena, &out, &err);

    if (rc != 0)
        return rc;
    b = pack(&out);
    return phx_wire_decode_answer(method, b.data, b.size, arena, r, &err);
}

/* ---- the tables against the protos --------------------------------------------------------------- */

static bool is_fitting(enum phx_map_kind kind, const ProtobufCFieldDescriptor *f)
{
    static const int types[] = {
        [PHX_MAP_STRING] = PROTOBUF_C_TYPE_STRING,   [PHX_MAP_I64] = PROTOBUF_C_TYPE_INT64,
        [PHX_MAP_U64] = PROTOBUF_C_TYPE_UINT64,      [PHX_MAP_I32] = PROTOBUF_C_TYPE_INT32,
        [PHX_MAP_ENUM] = PROTOBUF_C_TYPE_ENUM,       [PHX_MAP_BOOL] = PROTOBUF_C_TYPE_BOOL,
        [PHX_MAP_BYTES] = PROTOBUF_C_TYPE_BYTES,     [PHX_MAP_MESSAGE] = PROTOBUF_C_TYPE_MESSAGE,
        [PHX_MAP_STRINGS] = PROTOBUF_C_TYPE_STRING,  [PHX_MAP_DIGESTS] = PROTOBUF_C_TYPE_BYTES,
        [PHX_MAP_MESSAGES] = PROTOBUF_C_TYPE_MESSAGE};

    return (int)f->type == types[kind] &&
           (f->label == PROTOBUF_C_LABEL_REPEATED) == (kind >= PHX_MAP_STRINGS);
}

static int n_rows_seen;

static void check_table(const struct phx_map *map)
{
    assert_int_equal(map->n_rows, map->type->n_fields); /* no field is forgotten */
    for (size_t i = 0; i < map->n_rows; i++) {
        const struct phx_map_row       *row = &map->rows[i];
        const ProtobufCFieldDescriptor *f =
            protobuf_c_message_descriptor_get_field(map->type, row->id);

        n_rows_seen++;
        assert_non_null(f);
        if (strcmp(row->member, "replay_class") != 0) /* "class" is a word of C++ */
            assert_string_equal(row->member, f->name);
        if (!is_fitting(row->kind, f))
            fail_msg("%s.%s: the table has another type", map->type->name, f->name);
        assert_true(row->at < map->size);
        if (row->kind == PHX_MAP_ENUM)
            assert_int_equal(row->max, ((const ProtobufCEnumDescriptor *)f->descriptor)->n_values - 1);
        if (row->kind >= PHX_MAP_STRINGS)
            assert_true(phx_wire_limit(map->type, f) > 0);
        if (row->sub != NULL) {
            assert_ptr_equal(row->sub->type, f->descriptor);
            check_table(row->sub);
        }
    }
}

static void every_field_of_every_message_has_its_row(void **state)
{
    (void)state;
    for (int m = PHX_RPC_ADMIT; m < PHX_RPC_METHODS; m++) {
        const struct phx_map_pair *pair = phx_map_find((enum phx_rpc_method)m);

        assert_non_null(pair);
        check_table(pair->request);
        check_table(pair->answer);
    }
    assert_null(phx_map_find(PHX_RPC_CLUSTER_GET));
    assert_true(n_rows_seen > 150);
}

/* ---- Admission ----------------------------------------------------------------------------------- */

static struct phx_rpc_request admit_of(void)
{
    struct phx_rpc_request q = {.method = PHX_RPC_ADMIT};

    q.u.admit = (struct phx_rpc_admit){
        .tenant = "t", .user = "u", .model = "m", .purpose = "p", .idempotency_key = "k",
        .request_digest = {repeat('d', 32), 32}, .max_input_tokens = 7, .max_output_tokens = 8,
        .cost_centre = "cc", .session = "s"};
    return q;
}

static void admit_comes_back_whole(void **state)
{
    struct phx_rpc_request q = admit_of(), r;

    (void)state;
    assert_int_equal(ask(&q, &r), 0);
    assert_string_equal(r.u.admit.tenant, "t");
    assert_string_equal(r.u.admit.user, "u");
    assert_string_equal(r.u.admit.model, "m");
    assert_string_equal(r.u.admit.purpose, "p");
    assert_string_equal(r.u.admit.idempotency_key, "k");
    assert_int_equal(r.u.admit.request_digest.size, 32);
    assert_memory_equal(r.u.admit.request_digest.data, repeat('d', 32), 32);
    assert_int_equal(r.u.admit.max_input_tokens, 7);
    assert_int_equal(r.u.admit.max_output_tokens, 8);
    assert_string_equal(r.u.admit.cost_centre, "cc");
    assert_string_equal(r.u.admit.session, "s");
    q.u.admit = (struct phx_rpc_admit){.model = "m"}; /* NULL is "" */
    assert_int_equal(ask(&q, &r), 0);
    assert_string_equal(r.u.admit.session, "");
    assert_int_equal(r.u.admit.request_digest.size, 0);
}

static void limits_of_admit_hold_when_encoding(void **state)
{
    struct phx_rpc_request q = admit_of(), r;

    (void)state;
    q.u.admit.idempotency_key = repeat('k', 128);
    assert_int_equal(ask(&q, &r), 0);
    q.u.admit.idempotency_key = repeat('k', 129);
    assert_fails(ask(&q, &r), PHX_E_TOOBIG, "AdmitRequest.idempotency_key has 129 bytes (limit 128)");
    q = admit_of();
    q.u.admit.request_digest.size = 31;
    assert_fails(ask(&q, &r), PHX_E_INVALID, "AdmitRequest.request_digest has 31 bytes");
    q.u.admit.request_digest = (struct phx_rpc_bytes){repeat('d', 33), 33};
    assert_fails(ask(&q, &r), PHX_E_INVALID, "AdmitRequest.request_digest has 33 bytes");
    q = admit_of();
    q.u.admit.model = "";
    assert_fails(ask(&q, &r), PHX_E_INVALID, "AdmitRequest.model is missing");
    q = admit_of();
    q.u.admit.max_output_tokens = -1;
    assert_fails(ask(&q, &r), PHX_E_INVALID, "AdmitRequest.max_output_tokens is -1");
    q.u.admit.max_output_tokens = PHX_RPC_COUNT_MAX + 1;
    assert_fails(ask(&q, &r), PHX_E_INVALID, "AdmitRequest.max_output_tokens");
    q = admit_of();
    q.u.admit.user = repeat('u', 257);
    assert_fails(ask(&q, &r), PHX_E_TOOBIG, "AdmitRequest.user has 257 bytes (limit 256)");
    q.u.admit.user = "\xff";
    assert_fails(ask(&q, &r), PHX_E_INVALID, "AdmitRequest.user is not valid UTF-8");
}

/* The same limits where another program made the bytes. */
static void limits_of_admit_hold_when_decoding(void **state)
{
    static const uint8_t short_digest[] = {0x1a, 1, 'm', 0x32, 2, 1, 2};
    static const uint8_t negative[] = {0x1a, 1, 'm', 0x38, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1};
    static const uint8_t no_model[] = {0x12, 1, 'u'};
    static const uint8_t nul[] = {0x1a, 2, 'm', 0};
    struct phx_rpc_request r;

    (void)state;
    assert_fails(phx_wire_decode_request(PHX_RPC_ADMIT, short_digest, sizeof(short_digest), arena, &r,
                                         &err), PHX_E_INVALID, "request_digest has 2 bytes");
    assert_fails(phx_wire_decode_request(PHX_RPC_ADMIT, negative, sizeof(negative), arena, &r, &err),
                 PHX_E_INVALID, "AdmitRequest.max_input_tokens is -1");
    assert_fails(phx_wire_decode_request(PHX_RPC_ADMIT, no_model, sizeof(no_model), arena, &r, &err),
                 PHX_E_INVALID, "AdmitRequest.model is missing");
    assert_fails(phx_wire_decode_request(PHX_RPC_ADMIT, nul, sizeof(nul), arena, &r, &err),
                 PHX_E_INVALID, "NUL");
}

static void an_admission_comes_back_whole(void **state)
{
    static const char *const warnings[] = {"90 % of the seats are used", "ends in 9 days"};
    struct phx_rpc_answer    a = {0}, r;

    (void)state;
    a.u.admit = (struct phx_rpc_admit_answer){
        .decision = PHX_RPC_DECISION_REPLAYED, .lease_id = "l", .expires_unix_ns = 5, .seat_id = "ab",
        .budget_left_tokens = -1, .usage = {10, 4, 6, 2}, .warnings = warnings, .n_warnings = 2};
    assert_int_equal(answer(PHX_RPC_ADMIT, &a, &r), 0);
    assert_int_equal(r.u.admit.decision, PHX_RPC_DECISION_REPLAYED);
    assert_int_equal(r.u.admit.budget_left_tokens, -1);
    assert_int_equal(r.u.admit.usage.cached_input_tokens, 4);
    assert_int_equal(r.u.admit.n_warnings, 2);
    assert_string_equal(r.u.admit.warnings[1], "ends in 9 days");
    a.u.admit.n_warnings = PHX_RPC_WARNINGS_MAX + 1;
    assert_fails(answer(PHX_RPC_ADMIT, &a, &r), PHX_E_TOOBIG, "AdmitResponse.warnings has 17 items");
    a.u.admit.n_warnings = -1;
    assert_fails(answer(PHX_RPC_ADMIT, &a, &r), PHX_E_TOOBIG, "AdmitResponse.warnings has -1 items");
    a.u.admit.n_warnings = 0;
    a.u.admit.decision = (enum phx_rpc_decision)4;
    assert_fails(answer(PHX_RPC_ADMIT, &a, &r), PHX_E_INVALID, "AdmitResponse.decision is 4");
}

static void leases_are_renewed_settled_and_cancelled(void **state)
{
    struct phx_rpc_request q = {.method = PHX_RPC_SETTLE}, r;
    static const uint8_t   no_usage[] = {0x0a, 1, 'l', 0x1a, 1, 's'};

    (void)state;
    q.u.settle = (struct phx_rpc_settle){.lease_id = "l", .has_usage = true, .usage = {5, 5, 3, 3},
                                         .outcome = "stop"};
    assert_int_equal(ask(&q, &r), 0);
    assert_true(r.u.settle.has_usage);
    assert_int_equal(r.u.settle.usage.reasoning_tokens, 3);
    q.u.settle.usage.cached_input_tokens = 6;
    assert_fails(ask(&q, &r), PHX_E_INVALID, "cached_input_tokens is above input_tokens");
    q.u.settle.usage = (struct phx_rpc_lease_usage){5, 0, 3, 4};
    assert_fails(ask(&q, &r), PHX_E_INVALID, "reasoning_tokens is above output_tokens");
    q.u.settle.has_usage = false; /* silence is not the same as nothing */
    assert_fails(ask(&q, &r), PHX_E_INVALID, "SettleRequest.usage is missing");
    assert_fails(phx_wire_decode_request(PHX_RPC_SETTLE, no_usage, sizeof(no_usage), arena, &r, &err),
                 PHX_E_INVALID, "SettleRequest.usage is missing");
    q = (struct phx_rpc_request){.method = PHX_RPC_RENEW, .u.renew = {.lease_id = "l"}};
    assert_int_equal(ask(&q, &r), 0);
    assert_int_equal(r.u.renew.so_far.output_tokens, 0);
    q.u.renew.lease_id = "";
    assert_fails(ask(&q, &r), PHX_E_INVALID, "RenewRequest.lease_id is missing");
    q = (struct phx_rpc_request){.method = PHX_RPC_CANCEL_LEASE,
                                 .u.cancel_lease = {"l", repeat('r', PHX_RPC_TEXT_MAX + 1)}};
    assert_fails(ask(&q, &r), PHX_E_TOOBIG, "CancelLeaseRequest.reason has 4097 bytes (limit 4096)");
}

/* ---- License --------------------------------------------------------------------------------------- */

static void licence_facts_come_back_whole(void **state)
{
    static const char *const                   denied[] = {"biometric"};
    static const struct phx_rpc_licensed_model models[] = {{"sha256:aa", "pplus", denied, 1},
                                                           {"*", "", NULL, 0}};
    struct phx_rpc_answer a = {0}, r;

    (void)state;
    a.u.license.facts = (struct phx_rpc_license){
        .license_id = "L", .serial = 3, .state = PHX_RPC_LICENSE_EARLY, .seats = -1,
        .overdraft_pct = 100, .models = models, .n_models = 2, .is_clock_suspect = true,
        .tokens_per_month = 9, .exempt_used = 1, .problem = "old"};
    assert_int_equal(answer(PHX_RPC_LICENSE_GET, &a, &r), 0);
    assert_int_equal(r.u.license.facts.state, PHX_RPC_LICENSE_EARLY);
    assert_int_equal(r.u.license.facts.seats, -1);
    assert_true(r.u.license.facts.is_clock_suspect);
    assert_int_equal(r.u.license.facts.n_models, 2);
    assert_string_equal(r.u.license.facts.models[0].denied_purposes[0], "biometric");
    assert_int_equal(r.u.license.facts.models[1].n_denied_purposes, 0);
    assert_int_equal(r.u.license.facts.tokens_per_month, 9);
    assert_string_equal(r.u.license.facts.problem, "old");
    a.u.license.facts.overdraft_pct = 101;
    assert_fails(answer(PHX_RPC_LICENSE_GET, &a, &r), PHX_E_INVALID, "LicenseFacts.overdraft_pct");
    assert_int_equal(phx_wire_decode_answer(PHX_RPC_LICENSE_GET, (const uint8_t *)"", 0, arena, &r,
                                            &err), 0);
    assert_string_equal(r.u.license.facts.license_id, ""); /* never NULL */
}

static void an_envelope_has_one_to_65536_bytes(void **state)
{
    struct phx_rpc_request q = {.method = PHX_RPC_LICENSE_INSTALL}, r;

    (void)state;
    q.u.license_install.envelope = (struct phx_rpc_bytes){repeat('e', 65537), 65536};
    q.u.license_install.key_set = q.u.license_install.envelope;
    q.u.license_install.is_dry_run = true;
    assert_int_equal(ask(&q, &r), 0);
    assert_int_equal(r.u.license_install.key_set.size, 65536);
    assert_true(r.u.license_install.is_dry_run);
    q.u.license_install.envelope.size = 65537;
    assert_fails(ask(&q, &r), PHX_E_TOOBIG, "InstallLicenseRequest.envelope has 65537 bytes");
    q.u.license_install.envelope.size = 0;
    assert_fails(ask(&q, &r), PHX_E_INVALID, "InstallLicenseRequest.envelope is missing");
    q = (struct phx_rpc_request){.method = PHX_RPC_LICENSE_SEATS, .u.seats.page_size = 1001};
    assert_fails(ask(&q, &r), PHX_E_INVALID, "ListSeatsRequest.page_size is 1001 (allowed 0 to 1000)");
    q = (struct phx_rpc_request){.method = PHX_RPC_LICENSE_ACCEPT_CLOCK};
    assert_fails(ask(&q, &r), PHX_E_INVALID, "AcceptClockRequest.approved_by is missing");
}

/* ---- Metering ---------------------------------------------------------------------------------------- */

static void usage_comes_back_whole(void **state)
{
    static const char *const groups[] = {"tenant", "model"}, *const values[] = {"t1", "m1"};
    struct phx_rpc_usage_row row = {values, 2, {1, 2, 3, 4, 5, 6, 7, -8}};
    struct phx_rpc_request   q = {.method = PHX_RPC_METERING_QUERY}, r;
    struct phx_rpc_answer    a = {0}, b;

    (void)state;
    q.u.usage_query = (struct phx_rpc_usage_query){.filter = {.from_unix_ns = 1, .to_unix_ns = 2},
                                                   .group_by = groups, .n_group_by = 2};
    assert_int_equal(ask(&q, &r), 0);
    assert_string_equal(r.u.usage_query.group_by[1], "model");
    assert_string_equal(r.u.usage_query.filter.cost_centre, "");
    q.u.usage_query.filter.from_unix_ns = 3;
    assert_fails(ask(&q, &r), PHX_E_INVALID, "UsageFilter.from_unix_ns, to_unix_ns: the end lies before");
    q.u.usage_query.filter.to_unix_ns = 0; /* now */
    assert_int_equal(ask(&q, &r), 0);
    q.u.usage_query.n_group_by = 5;
    assert_fails(ask(&q, &r), PHX_E_TOOBIG, "QueryUsageRequest.group_by has 5 items (limit 4)");
    a.u.usage_query = (struct phx_rpc_usage_answer){&row, 1, "next", 77};
    assert_int_equal(answer(PHX_RPC_METERING_QUERY, &a, &b), 0);
    assert_string_equal(b.u.usage_query.rows[0].group[0], "t1");
    assert_int_equal(b.u.usage_query.rows[0].totals.kv_block_seconds, -8);
    assert_int_equal(b.u.usage_query.ledger_index, 77);
}

static void an_export_names_its_format_and_range(void **state)
{
    struct phx_rpc_request q = {.method = PHX_RPC_METERING_EXPORT}, r;
    struct phx_rpc_answer  a = {0}, b;

    (void)state;
    assert_fails(ask(&q, &r), PHX_E_INVALID, "ExportUsageRequest.format is 0 (allowed 1 to 3)");
    q.u.usage_export.format = PHX_RPC_EXPORT_CSV;
    q.u.usage_export.from_index = 9;
    q.u.usage_export.to_index = 8;
    assert_fails(ask(&q, &r), PHX_E_INVALID, "from_index, to_index");
    q.u.usage_export.to_index = UINT64_MAX;
    assert_int_equal(ask(&q, &r), 0);
    assert_true(r.u.usage_export.to_index == UINT64_MAX);
    a.u.usage_export.data = (struct phx_rpc_bytes){repeat('x', (1 << 20) + 1), 1 << 20};
    assert_int_equal(answer(PHX_RPC_METERING_EXPORT, &a, &b), 0);
    a.u.usage_export.data.size++;
    assert_fails(answer(PHX_RPC_METERING_EXPORT, &a, &b), PHX_E_TOOBIG, "ExportUsageResponse.data");
}

/* ---- Audit --------------------------------------------------------------------------------------------- */

static void a_question_for_records_says_which(void **state)
{
    struct phx_rpc_request q = {.method = PHX_RPC_AUDIT_GET}, r;

    (void)state;
    assert_fails(ask(&q, &r), PHX_E_INVALID, "GetRecordRequest does not say which one");
    assert_fails(phx_wire_decode_request(PHX_RPC_AUDIT_GET, (const uint8_t *)"", 0, arena, &r, &err),
                 PHX_E_INVALID, "GetRecordRequest does not say which one");
    q.u.audit_get = (struct phx_rpc_audit_get){.by = PHX_RPC_BY_INDEX, .index = 0, .receipt_id = "no"};
    assert_int_equal(ask(&q, &r), 0); /* record 0 is a record */
    assert_int_equal(r.u.audit_get.by, PHX_RPC_BY_INDEX);
    assert_string_equal(r.u.audit_get.receipt_id, "");
    q.u.audit_get = (struct phx_rpc_audit_get){.by = PHX_RPC_BY_REQUEST, .request_id = "q"};
    assert_int_equal(ask(&q, &r), 0);
    assert_int_equal(r.u.audit_get.by, PHX_RPC_BY_REQUEST);
    assert_string_equal(r.u.audit_get.request_id, "q");
    assert_int_equal(r.u.audit_get.index, 0);
    q.u.audit_get.request_id = "";
    assert_fails(ask(&q, &r), PHX_E_INVALID, "GetRecordRequest.request_id is missing");
    q.u.audit_get.by = (enum phx_rpc_record_by)4;
    assert_fails(ask(&q, &r), PHX_E_INVALID, "does not say which one");
    q = (struct phx_rpc_request){.method = PHX_RPC_AUDIT_PROVE};
    q.u.audit_prove = (struct phx_rpc_audit_prove){.what = PHX_RPC_PROVE_CONSISTENCY,
                                                   .old_tree_size = 5, .tree_size = 9};
    assert_int_equal(ask(&q, &r), 0);
    assert_int_equal(r.u.audit_prove.old_tree_size, 5);
    assert_int_equal(r.u.audit_prove.tree_size, 9);
    q.u.audit_prove.tree_size = 4; /* not for the transport to say: the log refuses it */
    assert_int_equal(ask(&q, &r), 0);
}

static void proofs_come_back_whole(void **state)
{
    struct phx_rpc_bytes  hashes[3] = {{repeat('a', 32), 32}, {repeat('b', 32), 32}, {"x", 1}};
    struct phx_rpc_answer a = {0}, r;

    (void)state;
    a.u.audit_prove = (struct phx_rpc_prove_answer){
        .index = 1, .tree_size = 4, .hashes = hashes, .n_hashes = 2, .checkpoint = {"note", 4},
        .has_record = true, .record = {.index = 1, .kind = "intent", .leaf = {"{}", 2}}};
    assert_int_equal(answer(PHX_RPC_AUDIT_PROVE, &a, &r), 0);
    assert_int_equal(r.u.audit_prove.n_hashes, 2);
    assert_memory_equal(r.u.audit_prove.hashes[1].data, repeat('b', 32), 32);
    assert_true(r.u.audit_prove.has_record);
    assert_string_equal(r.u.audit_prove.record.kind, "intent");
    a.u.audit_prove.has_record = false;
    assert_int_equal(answer(PHX_RPC_AUDIT_PROVE, &a, &r), 0);
    assert_false(r.u.audit_prove.has_record);
    assert_string_equal(r.u.audit_prove.record.kind, "");
    a.u.audit_prove.n_hashes = 3;
    assert_fails(answer(PHX_RPC_AUDIT_PROVE, &a, &r), PHX_E_INVALID, "ProveResponse.hashes has 1 bytes");
}

static void records_and_verdicts_come_back_whole(void **state)
{
    struct phx_rpc_record  records[2] = {{7, "intent", 1, "q", "t", {repeat('l', 65536), 65535}},
                                         {8, "result", 2, "q", "t", {"{}", 2}}};
    struct phx_rpc_answer  a = {0}, r;
    struct phx_rpc_request q = {.method = PHX_RPC_AUDIT_REPLAY}, s;

    (void)state;
    a.u.audit_search = (struct phx_rpc_search_answer){records, 2, "8"};
    assert_int_equal(answer(PHX_RPC_AUDIT_SEARCH, &a, &r), 0);
    assert_int_equal(r.u.audit_search.records[0].leaf.size, 65535);
    assert_int_equal(r.u.audit_search.records[1].index, 8);
    assert_string_equal(r.u.audit_search.next_page_token, "8");
    records[0].leaf.size = 65536;
    assert_fails(answer(PHX_RPC_AUDIT_GET, &(struct phx_rpc_answer){.u.audit_get = {records, 2}}, &r),
                 PHX_E_TOOBIG, "AuditRecord.leaf has 65536 bytes (limit 65535)");
    a.u.audit_replay = (struct phx_rpc_replay_answer){"rcpt", "A", true, 5, 5, -1, "none"};
    assert_int_equal(answer(PHX_RPC_AUDIT_REPLAY, &a, &r), 0);
    assert_string_equal(r.u.audit_replay.replay_class, "A");
    assert_int_equal(r.u.audit_replay.first_difference, -1);
    assert_fails(ask(&q, &s), PHX_E_INVALID, "ReplayRequest.receipt_id is missing");
    q = (struct phx_rpc_request){.method = PHX_RPC_AUDIT_SEARCH,
                                 .u.audit_search = {.from_unix_ns = 5, .to_unix_ns = 4}};
    assert_fails(ask(&q, &s), PHX_E_INVALID, "SearchRecordsRequest.from_unix_ns");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_field_of_every_message_has_its_row),
        TEST(admit_comes_back_whole),
        TEST(limits_of_admit_hold_when_encoding),
        TEST(limits_of_admit_hold_when_decoding),
        TEST(an_admission_comes_back_whole),
        TEST(leases_are_renewed_settled_and_cancelled),
        TEST(licence_facts_come_back_whole),
        TEST(an_envelope_has_one_to_65536_bytes),
        TEST(usage_comes_back_whole),
        TEST(an_export_names_its_format_and_range),
        TEST(a_question_for_records_says_which),
        TEST(proofs_come_back_whole),
        TEST(records_and_verdicts_come_back_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
