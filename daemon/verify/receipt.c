/* SPDX-License-Identifier: Apache-2.0
 * A receipt: one record with everything that proves it, but for the trusted key.  Made by `prove`, checked
 * by `check` years later with nothing else. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/verify/verify.h"
#include "rpc/base/json.h"

enum { PROOF_TEXT = 2 * PHX_TLOG_HASH_BYTES };

/* ---- check -------------------------------------------------------------------------------------------------- */

struct receipt {
    json_t       *root;
    const char   *origin, *checkpoint, *record;
    int64_t       index;
    const json_t *keys, *proof;
};

static int parse_fields(struct receipt *r, struct phx_err *err)
{
    int rc = phx_json_get_str(r->root, "", "checkpoint", PHX_V_FILE_MAX, &r->checkpoint, err);

    if (rc == 0)
        rc = phx_json_get_str(r->root, "", "origin", 255, &r->origin, err);
    if (rc == 0)
        rc = phx_json_get_str(r->root, "", "record", PHX_TLOG_ENTRY_MAX_BYTES, &r->record, err);
    if (rc == 0)
        rc = phx_json_get_int(r->root, "", "index", 0, INT64_MAX, &r->index, err);
    if (rc == 0)
        rc = phx_json_get_array(r->root, "", "keys", PHX_V_EPOCHS_MAX, &r->keys, err);
    if (rc == 0)
        rc = phx_json_get_array(r->root, "", "proof", PHX_TLOG_PROOF_MAX, &r->proof, err);
    return rc == 0 ? 0 : phx_fail(err, PHX_E_FORMAT, "a field is missing, of another type or too large");
}

static int parse_receipt(struct receipt *r, const void *data, size_t size, struct phx_err *err)
{
    static const char *const known[] = {"checkpoint", "index", "keys", "origin", "proof", "record", "v", NULL};
    int64_t                  v = 0;
    int rc = phx_json_parse(&r->root, data, size, PHX_V_RECEIPT_MAX, 0, "receipt", err);

    if (rc == 0)
        rc = phx_json_check_object(r->root, "", err);
    if (rc != 0)
        return phx_fail(err, PHX_E_FORMAT, "not JSON, too large, or a key is there twice");
    if (phx_json_check_keys(r->root, "", known, err) != 0)
        return err->code = PHX_E_UNSUPPORTED;
    if (phx_json_get_int(r->root, "", "v", INT64_MIN, INT64_MAX, &v, err) == 0 && v != 1)
        return phx_fail(err, PHX_E_UNSUPPORTED, "unknown version of a receipt");
    return v != 1 ? phx_fail(err, PHX_E_FORMAT, "v is missing") : parse_fields(r, err);
}

static int check_chain(const struct receipt *r, const struct phx_trust *trust, struct phx_report *report,
                       struct phx_vcheckpoint *cp, struct phx_err *err)
{
    struct phx_chain chain;
    json_t          *others = json_array(), *other;
    size_t           i;
    int              rc = 0;

    phx_chain_init(&chain, r->origin);
    for (i = 0; i < json_array_size(r->keys) && rc == 0; i++) {
        const json_t *note = json_array_get(r->keys, i);

        rc = json_is_string(note) ? phx_chain_push(&chain, "keys", json_string_value(note),
                                                   json_string_length(note), err)
                                  : phx_fail(err, PHX_E_FORMAT, "keys: not a note");
    }
    if (rc == 0)
        rc = phx_trust_check(trust, &chain, "--trust", PHX_E_UNSUPPORTED, err);
    if (rc == 0)
        rc = phx_chain_check(&chain, cp, others, err);
    json_array_foreach(others, i, other)
        phx_report_skip(report, "the signature of %.80s on the checkpoint", json_string_value(other));
    phx_chain_fini(&chain);
    json_decref(others);
    return rc;
}

static int check_inclusion(const struct receipt *r, const struct phx_checkpoint *c, struct phx_err *err)
{
    struct phx_tlog_hash proof[PHX_TLOG_PROOF_MAX], leaf;
    int                  n = (int)json_array_size(r->proof);

    for (int i = 0; i < n; i++) {
        const char *text = json_string_value(json_array_get(r->proof, (size_t)i));

        if (text == NULL || strspn(text, "0123456789abcdef") != PROOF_TEXT || text[PROOF_TEXT] != '\0')
            return phx_fail(err, PHX_E_FORMAT, "proof: not a hash");
        (void)sodium_hex2bin(proof[i].bytes, sizeof(proof[i].bytes), text, PROOF_TEXT, NULL, NULL, NULL);
    }
    phx_tlog_leaf(r->record, strlen(r->record), &leaf);
    if ((uint64_t)r->index >= c->size ||
        !phx_tlog_check_inclusion((uint64_t)r->index, c->size, &leaf, proof, n, &c->root))
        return phx_fail(err, PHX_E_FORMAT, "the record is not in the tree of the checkpoint at this index");
    return 0;
}

static int check_parsed(const struct receipt *r, const struct phx_trust *trust, struct phx_report *report,
                        struct phx_err *err)
{
    struct phx_vcheckpoint cp;
    struct phx_fields      f;
    int rc = phx_vcheckpoint_parse(&cp, "checkpoint", r->checkpoint, strlen(r->checkpoint), err);

    if (rc != 0)
        return rc;
    rc = check_chain(r, trust, report, &cp, err);
    if (rc == 0)
        rc = check_inclusion(r, &cp.c, err);
    if (rc == 0)
        rc = phx_record_scan(r->record, strlen(r->record), &f, err);
    if (rc == 0)
        rc = phx_record_check(&f, err);
    if (rc == 0) {
        phx_report_fact(report, "origin", json_string(cp.c.origin));
        phx_report_fact(report, "index", json_integer(r->index));
        phx_report_fact(report, "size", json_integer((json_int_t)cp.c.size));
        phx_report_fact(report, "record", json_string(r->record));
        phx_report_skip(report, "the rest of the log; whether what the record says is true");
    }
    phx_vcheckpoint_fini(&cp);
    return rc;
}

int phx_check_receipt(const void *data, size_t size, const struct phx_trust *trust, struct phx_report *report,
                      struct phx_err *err)
{
    struct receipt r = {0};
    int            rc = parse_receipt(&r, data, size, err);

    if (rc == 0)
        rc = check_parsed(&r, trust, report, err);
    json_decref(r.root);
    return rc;
}

enum phx_verdict phx_cmd_check(const struct phx_options *o, const char *path)
{
    struct phx_report report;
    struct phx_buf    data = {0};
    struct phx_err    err = {0};
    enum phx_verdict  verdict;
    int               rc;

    if (!o->has_trust) {
        (void)phx_fail(&err, PHX_E_INVALID, "check needs --trust FILE: a receipt cannot vouch for itself");
        return phx_cmd_fail(&err);
    }
    if (phx_buf_read_file(&data, path, PHX_V_RECEIPT_MAX, &err) != 0) {
        err.code = PHX_E_INVALID;
        return phx_cmd_fail(&err);
    }
    phx_report_init(&report, path);
    rc = phx_check_receipt(data.data, data.size, &o->trust, &report, &err);
    if (rc != 0)
        phx_report_err(&report, &err);
    verdict = phx_report_show(&report, o->is_json);
    phx_report_fini(&report);
    phx_buf_fini(&data);
    return verdict;
}

/* ---- prove -------------------------------------------------------------------------------------------------- */

struct search {
    const char *receipt;
    bool        is_intent, is_found, has_intent;
    uint64_t    leaf;
};

static int match_record(void *ctx, uint64_t leaf, const char *bytes, size_t size, struct phx_err *err)
{
    struct search    *s = ctx;
    struct phx_fields f;

    (void)err;
    if (phx_record_scan(bytes, size, &f, NULL) != 0 || f.f[PHX_F_RECEIPT].type != PHX_V_STR ||
        !phx_slice_is(f.f[PHX_F_RECEIPT].text, s->receipt))
        return 0;
    if (phx_slice_is(f.f[PHX_F_KIND].text, "intent")) {
        s->has_intent = true;
        s->is_found = s->is_found || s->is_intent;
    } else {
        s->is_found = s->is_found || !s->is_intent;
    }
    if (s->is_found)
        s->leaf = leaf;
    return s->is_found;
}

static int find_leaf(struct phx_log *l, const char *what, bool is_intent, uint64_t *leaf, struct phx_err *err)
{
    struct search s = {.receipt = what, .is_intent = is_intent};
    char         *end;
    int           rc;

    if (what[0] >= '0' && what[0] <= '9') {
        *leaf = strtoull(what, &end, 10);
        return *end == '\0' ? 0 : phx_fail(err, PHX_E_INVALID, "'%.60s' is neither a receipt nor an index", what);
    }
    rc = phx_log_walk(l, match_record, &s, err);
    if (rc == 0 && !s.is_found)
        rc = s.has_intent ? phx_fail(err, PHX_E_NOTFOUND, "%.60s has no result yet; --intent proves its intent", what)
                          : phx_fail(err, PHX_E_NOTFOUND, "%.60s is not in this log", what);
    *leaf = s.leaf;
    return rc;
}

static void print_receipt(const struct phx_log *l, uint64_t leaf, const struct phx_buf *record,
                          const struct phx_tlog_hash *proof, int n)
{
    json_t *keys = json_array(), *hashes = json_array(), *out;
    char    hex[PROOF_TEXT + 1];

    for (int64_t i = 0; i < l->chain.n; i++)
        json_array_append_new(keys, json_stringn(l->key_notes[i].data, l->key_notes[i].size));
    for (int i = 0; i < n; i++)
        json_array_append_new(hashes,
                              json_string(sodium_bin2hex(hex, sizeof(hex), proof[i].bytes, sizeof(proof[i].bytes))));
    out = json_pack("{s:s%,s:I,s:o,s:s,s:o,s:s%,s:i}", "checkpoint", l->cp.note.data, l->cp.note.size, "index",
                    (json_int_t)leaf, "keys", keys, "origin", l->chain.origin, "proof", hashes, "record",
                    record->data, record->size, "v", 1);
    json_dumpf(out, stdout, JSON_COMPACT | JSON_SORT_KEYS);
    fputs("\n", stdout);
    json_decref(out);
}

enum phx_verdict phx_cmd_prove(const struct phx_options *o)
{
    struct phx_tlog_hash proof[PHX_TLOG_PROOF_MAX];
    struct phx_log       l;
    struct phx_buf       record = {0};
    struct phx_err       err = {0};
    uint64_t             leaf = 0;
    int                  n = 0, rc = phx_log_open(&l, o->args[0], o, &err);

    if (rc != 0)
        return phx_cmd_fail(&err);
    rc = find_leaf(&l, o->args[1], o->is_intent, &leaf, &err);
    if (rc == 0)
        rc = phx_log_entry(&l, leaf, &record, &err);
    if (rc == 0 && (n = phx_log_prove(&l, leaf, &record, proof, &err)) < 0)
        rc = n;
    if (rc == 0)
        print_receipt(&l, leaf, &record, proof, n);
    phx_buf_fini(&record);
    phx_log_close(&l);
    return rc == 0 ? PHX_V_OK : phx_cmd_fail(&err);
}
