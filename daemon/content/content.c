/* SPDX-License-Identifier: Apache-2.0
 * Keeping and reading.  The salt of every row is sealed under the key of the month and bound to all that the
 * row says about itself, so that a row which was changed does not open in any mode. */
#include "daemon/content/content.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "daemon/audit/audit.h"
#include "daemon/content/vault.h"
#include "rpc/base/clock.h"
#include "rpc/base/hash.h"
#include "rpc/base/id.h"
#include "rpc/base/mem.h"

enum { SALT_BYTES = 32, SEALED_SALT_BYTES = SALT_BYTES + PHX_SEAL_OVERHEAD };
static const int64_t day_ns = INT64_C(86400) * 1000000000;

const char *phx_privacy_name(enum phx_privacy p)
{
    switch (p) {
    case PHX_PRIVACY_COMMIT_ONLY: return "commit-only";
    case PHX_PRIVACY_ENCRYPTED: return "encrypted";
    case PHX_PRIVACY_CLEAR: return "clear";
    }
    return "?";
}

int phx_privacy_parse(const char *text, enum phx_privacy *out, struct phx_err *err)
{
    for (enum phx_privacy p = PHX_PRIVACY_COMMIT_ONLY; p <= PHX_PRIVACY_CLEAR; p++)
        if (strcmp(text, phx_privacy_name(p)) == 0) {
            *out = p;
            return 0;
        }
    return phx_fail(err, PHX_E_INVALID, "privacy: commit-only, encrypted or clear");
}

int phx_content_check_text(const char *field, const char *text, size_t max, struct phx_err *err)
{
    size_t n = text != NULL ? strlen(text) : 0;

    if (n == 0 || n > max)
        return phx_fail(err, PHX_E_INVALID, "%s: 1 to %zu bytes are needed", field, max);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
            return phx_fail(err, PHX_E_INVALID, "%s: no control characters", field);
    return 0;
}

/* ---- rows ------------------------------------------------------------------------------------------------- */

struct blob {
    uint8_t *data; /* owned; NULL = an SQL null */
    size_t   size;
};

struct row {
    char            *receipt, *tenant, *user, *period, *mode; /* owned */
    enum phx_privacy privacy;
    int64_t          generation, at_ns, keep_until_ns, shredded_ns;
    struct blob      salt, wrapped_dek, request, request_tag, response, response_tag;
    bool             is_there;
};

static void free_blob(struct blob *b)
{
    if (b->data != NULL)
        sodium_memzero(b->data, b->size);
    phx_mem_free(b->data);
    *b = (struct blob){0};
}

static void free_row(struct row *r)
{
    struct blob *blobs[] = {&r->salt, &r->wrapped_dek, &r->request, &r->request_tag, &r->response,
                            &r->response_tag};

    for (size_t i = 0; i < sizeof(blobs) / sizeof(blobs[0]); i++)
        free_blob(blobs[i]);
    phx_mem_free(r->receipt);
    phx_mem_free(r->tenant);
    phx_mem_free(r->user);
    phx_mem_free(r->period);
    phx_mem_free(r->mode);
    *r = (struct row){0};
}

static struct blob copy_blob(const struct phx_value *v)
{
    struct blob b = {0};

    if (v->kind != PHX_VALUE_BLOB)
        return b;
    b.size = v->size;
    b.data = phx_mem_calloc(1, v->size + 1); /* of a row of ours: at most PHX_CONTENT_MAX_BYTES */
    if (v->size > 0)
        memcpy(b.data, v->data, v->size);
    return b;
}

static char *copy_text(const struct phx_value *v)
{
    return v->kind == PHX_VALUE_TEXT ? phx_mem_strndup(v->data, v->size) : phx_mem_strdup("");
}

static int read_row(void *ctx, const struct phx_value *c, int n_columns)
{
    struct row *r = ctx;

    r->is_there = true;
    r->receipt = copy_text(&c[0]);
    r->tenant = copy_text(&c[1]);
    r->user = copy_text(&c[2]);
    r->period = copy_text(&c[3]);
    r->mode = copy_text(&c[4]);
    r->generation = c[5].number;
    r->at_ns = c[6].number;
    r->keep_until_ns = c[7].number;
    r->shredded_ns = c[8].number;
    r->salt = copy_blob(&c[9]);
    r->wrapped_dek = copy_blob(&c[10]);
    if (n_columns == 15) {
        r->request = copy_blob(&c[11]);
        r->request_tag = copy_blob(&c[12]);
        r->response = copy_blob(&c[13]);
        r->response_tag = copy_blob(&c[14]);
    }
    return 0;
}

#define ROW_COLUMNS                                                                                          \
    "receipt, tenant, user, period, mode, generation, at_ns, keep_until_ns, shredded_ns, salt, wrapped_dek"

static int load_row(struct phx_tx *tx, const char *receipt, bool has_text, struct row *r,
                    struct phx_err *err)
{
    const struct phx_value value = phx_value_text(receipt);
    int                    rc;

    *r = (struct row){0};
    if (has_text)
        rc = phx_tx_exec(tx, "SELECT " ROW_COLUMNS ", request, request_tag, response, response_tag"
                             " FROM content WHERE receipt = ?", &value, 1, read_row, r, err);
    else
        rc = phx_tx_exec(tx, "SELECT " ROW_COLUMNS " FROM content WHERE receipt = ?", &value, 1, read_row,
                         r, err);
    if (rc == 0 && !r->is_there)
        rc = phx_fail(err, PHX_E_NOTFOUND, "no content is kept for %.64s", receipt);
    if (rc == 0 && phx_privacy_parse(r->mode, &r->privacy, NULL) != 0)
        rc = phx_fail(err, PHX_E_FORMAT, "the content of %s is not as it was written", receipt);
    return rc;
}

/* ---- places ------------------------------------------------------------------------------------------------- */

struct numbers {
    char generation[24], at_ns[24], keep_until_ns[24];
};

/* All that a row says about itself. */
static struct phx_seal_place salt_place(const struct row *r, struct numbers *n)
{
    (void)snprintf(n->generation, sizeof(n->generation), "%" PRId64, r->generation);
    (void)snprintf(n->at_ns, sizeof(n->at_ns), "%" PRId64, r->at_ns);
    (void)snprintf(n->keep_until_ns, sizeof(n->keep_until_ns), "%" PRId64, r->keep_until_ns);
    return (struct phx_seal_place){{"phalanx salt v1", r->receipt, r->tenant, r->user, r->period, r->mode,
                                    n->generation, n->at_ns, n->keep_until_ns, NULL}};
}

static struct phx_seal_place place_of(const char *purpose, const char *receipt)
{
    return (struct phx_seal_place){{purpose, receipt, NULL}};
}

/* What keeps a clear text from being changed: an empty text sealed with the hash of the clear one. */
static struct phx_seal_place tag_place(const char *part, const char *receipt, const struct blob *text,
                                       char hash[65])
{
    phx_sha256_hex(text->data != NULL ? (const char *)text->data : "", text->size, hash);
    return (struct phx_seal_place){{"phalanx tag v1", part, receipt, hash, NULL}};
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

/* One part as it is stored: sealed under the request's key, or as it is with a tag of the month's key. */
static int store_part(enum phx_privacy privacy, const char *part, const char *receipt, const uint8_t *dek,
                      const uint8_t *kek, const void *text, size_t size, struct blob *out, struct blob *tag,
                      struct phx_err *err)
{
    struct phx_seal_place place;
    char                  hash[65];

    *out = *tag = (struct blob){0};
    if (privacy == PHX_PRIVACY_COMMIT_ONLY)
        return 0;
    if (size > PHX_CONTENT_MAX_BYTES)
        return phx_fail(err, PHX_E_TOOBIG, "kept %s: %zu bytes, at most %d", part, size,
                        PHX_CONTENT_MAX_BYTES);
    out->size = size + (privacy == PHX_PRIVACY_ENCRYPTED ? PHX_SEAL_OVERHEAD : 0);
    out->data = phx_mem_try(1, out->size + 1);
    if (out->data == NULL)
        return phx_fail(err, PHX_E_NOMEM, "kept %s: no memory for %zu bytes", part, out->size);
    if (privacy == PHX_PRIVACY_ENCRYPTED) {
        place = place_of(part, receipt);
        phx_seal(dek, &place, text, size, out->data);
        return 0;
    }
    if (size > 0)
        memcpy(out->data, text, size);
    tag->size = PHX_SEAL_OVERHEAD;
    tag->data = phx_mem_calloc(1, tag->size);
    place = tag_place(part, receipt, out, hash);
    phx_seal(kek, &place, NULL, 0, tag->data);
    return 0;
}

static struct phx_value blob_value(const struct blob *b)
{
    return b->data != NULL ? phx_value_blob(b->data, b->size) : phx_value_text(NULL);
}

static int insert_row(struct phx_tx *tx, const struct row *r, struct phx_err *err)
{
    const struct phx_value values[] = {
        phx_value_text(r->receipt),       phx_value_text(r->tenant),      phx_value_text(r->user),
        phx_value_text(r->period),        phx_value_int(r->generation),   phx_value_text(r->mode),
        phx_value_int(r->at_ns),          phx_value_int(r->keep_until_ns), blob_value(&r->salt),
        blob_value(&r->wrapped_dek),      blob_value(&r->request),        blob_value(&r->request_tag),
    };

    return phx_tx_exec(tx, "INSERT INTO content(receipt, tenant, user, period, generation, mode, at_ns,"
                           " keep_until_ns, salt, wrapped_dek, request, request_tag)"
                           " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                       values, 12, NULL, NULL, err);
}

static void make_row(const struct phx_content *c, const struct phx_kek *kek, struct row *r)
{
    char period[8];

    phx_month_format(c->at_ns, period);
    *r = (struct row){
        .receipt = phx_mem_strdup(c->receipt),
        .tenant = phx_mem_strdup(c->tenant),
        .user = phx_mem_strdup(c->user != NULL ? c->user : ""),
        .period = phx_mem_strdup(period),
        .mode = phx_mem_strdup(phx_privacy_name(c->mode)),
        .privacy = c->mode,
        .generation = kek->generation,
        .at_ns = c->at_ns,
        .keep_until_ns = c->keep_until_ns,
    };
}

/* Fills in what is sealed: salt, the request's key, the request. */
static int seal_row(const struct phx_content *c, const struct phx_kek *kek, struct row *r,
                    struct phx_err *err)
{
    uint8_t               dek[PHX_CONTENT_KEY_BYTES];
    struct numbers        numbers;
    struct phx_seal_place place = salt_place(r, &numbers);
    int                   rc;

    r->salt = (struct blob){phx_mem_calloc(1, SEALED_SALT_BYTES), SEALED_SALT_BYTES};
    phx_seal(kek->key, &place, c->salt, SALT_BYTES, r->salt.data);
    phx_id_random(dek, sizeof(dek));
    if (c->mode == PHX_PRIVACY_ENCRYPTED) {
        place = place_of("phalanx dek v1", c->receipt);
        r->wrapped_dek = (struct blob){phx_mem_calloc(1, PHX_SEALED_KEY_BYTES), PHX_SEALED_KEY_BYTES};
        phx_seal(kek->key, &place, dek, sizeof(dek), r->wrapped_dek.data);
    }
    rc = store_part(c->mode, "request", c->receipt, dek, kek->key, c->request, c->request_size, &r->request,
                    &r->request_tag, err);
    sodium_memzero(dek, sizeof(dek));
    return rc;
}

static void hash_stored(const struct blob *b, char sha256[65])
{
    sha256[0] = '\0';
    if (b->data != NULL)
        phx_sha256_hex(b->data, b->size, sha256);
}

int phx_content_put_request(struct phx_tx *tx, const uint8_t site_key[PHX_CONTENT_KEY_BYTES],
                            const struct phx_content *c, char sha256[65], struct phx_err *err)
{
    struct phx_kek kek;
    struct row     r = {0};
    char           period[8];
    int            rc;

    sha256[0] = '\0';
    if (c->keep_until_ns - c->at_ns < PHX_RETENTION_FLOOR_DAYS * day_ns)
        return phx_fail(err, PHX_E_INVALID, "keep_until_ns: content is kept for at least %d days",
                        PHX_RETENTION_FLOOR_DAYS);
    phx_month_format(c->at_ns, period);
    rc = phx_kek_need(tx, site_key, c->tenant, period, &kek, err);
    if (rc == 0) {
        make_row(c, &kek, &r);
        rc = seal_row(c, &kek, &r, err);
    }
    sodium_memzero(&kek, sizeof(kek));
    if (rc == 0)
        rc = insert_row(tx, &r, err);
    if (rc == 0)
        hash_stored(&r.request, sha256);
    free_row(&r);
    return rc;
}

/* ---- opening a row ------------------------------------------------------------------------------------------- */

static int fail_changed(const struct row *r, struct phx_err *err)
{
    return phx_fail(err, PHX_E_FORMAT, "the content of %s is not as it was written", r->receipt);
}

/* The key of the row's month.  1 = it is there, 0 = it was destroyed (*gone_ns), or negative. */
static int open_month(struct phx_tx *tx, const uint8_t *site_key, const struct row *r, struct phx_kek *kek,
                      int64_t *gone_ns, struct phx_err *err)
{
    int rc = phx_kek_find(tx, site_key, r->tenant, r->period, kek, err);

    *gone_ns = r->shredded_ns != 0 ? r->shredded_ns : kek->destroyed_ns;
    if (rc != 0)
        return rc;
    if (r->generation > kek->generation || (r->generation == kek->generation && !kek->has_key))
        return fail_changed(r, err);
    return r->shredded_ns == 0 && r->generation == kek->generation;
}

static int open_dek(const struct row *r, const struct phx_kek *kek, uint8_t dek[PHX_CONTENT_KEY_BYTES],
                    struct phx_err *err)
{
    struct phx_seal_place place = place_of("phalanx dek v1", r->receipt);

    if (r->privacy != PHX_PRIVACY_ENCRYPTED)
        return r->wrapped_dek.data == NULL ? 0 : fail_changed(r, err);
    return r->wrapped_dek.size == PHX_SEALED_KEY_BYTES &&
                   phx_unseal(kek->key, &place, r->wrapped_dek.data, r->wrapped_dek.size, dek)
               ? 0
               : fail_changed(r, err);
}

static int put_response(struct phx_tx *tx, const struct row *r, const struct phx_kek *kek,
                        const struct phx_content *c, char sha256[65], struct phx_err *err)
{
    uint8_t          dek[PHX_CONTENT_KEY_BYTES] = {0};
    struct blob      text = {0}, tag = {0};
    struct phx_value values[3];
    int              rc = open_dek(r, kek, dek, err);

    if (rc == 0)
        rc = store_part(r->privacy, "response", r->receipt, dek, kek->key, c->response, c->response_size,
                        &text, &tag, err);
    sodium_memzero(dek, sizeof(dek));
    values[0] = blob_value(&text);
    values[1] = blob_value(&tag);
    values[2] = phx_value_text(r->receipt);
    if (rc == 0)
        rc = phx_tx_exec(tx, "UPDATE content SET response = ?, response_tag = ?"
                             " WHERE receipt = ? AND response IS NULL", values, 3, NULL, NULL, err);
    if (rc == 0 && phx_tx_changes(tx) != 1)
        rc = phx_fail(err, PHX_E_STATE, "%s has an answer already", r->receipt);
    if (rc == 0)
        hash_stored(&text, sha256);
    free_blob(&text);
    free_blob(&tag);
    return rc;
}

int phx_content_put_response(struct phx_tx *tx, const uint8_t site_key[PHX_CONTENT_KEY_BYTES],
                             const struct phx_content *c, char sha256[65], struct phx_err *err)
{
    struct phx_kek kek = {0};
    struct row     r;
    int64_t        gone_ns;
    int            rc = load_row(tx, c->receipt, false, &r, err);

    sha256[0] = '\0';
    if (rc == 0 && r.privacy != PHX_PRIVACY_COMMIT_ONLY) {
        rc = open_month(tx, site_key, &r, &kek, &gone_ns, err);
        if (rc == 1)
            rc = put_response(tx, &r, &kek, c, sha256, err);
    }
    sodium_memzero(&kek, sizeof(kek));
    free_row(&r);
    return rc;
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static int open_part(const struct row *r, const char *part, const uint8_t *dek, const struct phx_kek *kek,
                     const struct blob *stored, const struct blob *tag, struct phx_buf *out,
                     struct phx_err *err)
{
    struct phx_seal_place place = place_of(part, r->receipt);
    char                  hash[65];
    uint8_t              *text, nothing[1];
    bool                  is_good;

    if (r->privacy == PHX_PRIVACY_CLEAR) {
        place = tag_place(part, r->receipt, stored, hash);
        if (tag->size != PHX_SEAL_OVERHEAD || !phx_unseal(kek->key, &place, tag->data, tag->size, nothing))
            return fail_changed(r, err);
        phx_buf_put(out, stored->data, stored->size);
        return 0;
    }
    if (tag->data != NULL || stored->size < PHX_SEAL_OVERHEAD)
        return fail_changed(r, err);
    text = phx_mem_calloc(1, stored->size);
    is_good = phx_unseal(dek, &place, stored->data, stored->size, text);
    if (is_good)
        phx_buf_put(out, text, stored->size - PHX_SEAL_OVERHEAD);
    sodium_memzero(text, stored->size);
    phx_mem_free(text);
    return is_good ? 0 : fail_changed(r, err);
}

static int open_texts(const struct row *r, const struct phx_kek *kek, struct phx_content_text *out,
                      struct phx_err *err)
{
    uint8_t dek[PHX_CONTENT_KEY_BYTES] = {0};
    int     rc = open_dek(r, kek, dek, err);

    out->has_text = r->privacy != PHX_PRIVACY_COMMIT_ONLY;
    if (rc == 0 && out->has_text)
        rc = r->request.data == NULL ? fail_changed(r, err)
                                     : open_part(r, "request", dek, kek, &r->request, &r->request_tag,
                                                 &out->request, err);
    if (rc == 0 && out->has_text && r->response.data != NULL)
        rc = open_part(r, "response", dek, kek, &r->response, &r->response_tag, &out->response, err);
    if (rc == 0 && !out->has_text && (r->request.data != NULL || r->response.data != NULL))
        rc = fail_changed(r, err);
    sodium_memzero(dek, sizeof(dek));
    return rc;
}

static int fail_shredded(const struct row *r, int64_t gone_ns, struct phx_err *err)
{
    char when[32];

    phx_clock_format_utc(gone_ns, when);
    return phx_fail(err, PHX_E_STATE, "the content of %s was shredded on %s", r->receipt, when);
}

static int open_row(struct phx_tx *tx, const uint8_t *site_key, const struct row *r,
                    struct phx_content_text *out, struct phx_err *err)
{
    struct numbers        numbers;
    struct phx_seal_place place = salt_place(r, &numbers);
    struct phx_kek        kek = {0};
    int64_t               gone_ns = 0;
    int                   rc = open_month(tx, site_key, r, &kek, &gone_ns, err);

    if (rc == 0)
        rc = fail_shredded(r, gone_ns, err);
    else if (rc == 1)
        rc = r->salt.size == SEALED_SALT_BYTES &&
                     phx_unseal(kek.key, &place, r->salt.data, r->salt.size, out->salt)
                 ? open_texts(r, &kek, out, err)
                 : fail_changed(r, err);
    sodium_memzero(&kek, sizeof(kek));
    return rc;
}

int phx_content_read(struct phx_tx *tx, const uint8_t site_key[PHX_CONTENT_KEY_BYTES], const char *receipt,
                     const char *by, const char *why, int64_t at_ns, struct phx_content_text *out,
                     struct phx_err *err)
{
    struct row r = {0};
    int        rc = phx_content_check_text("by", by, PHX_WHY_MAX_BYTES, err);

    *out = (struct phx_content_text){0};
    phx_buf_init(&out->request, PHX_CONTENT_MAX_BYTES);
    phx_buf_init(&out->response, PHX_CONTENT_MAX_BYTES);
    if (rc == 0)
        rc = phx_content_check_text("why", why, PHX_WHY_MAX_BYTES, err);
    if (rc == 0)
        rc = load_row(tx, receipt, true, &r, err);
    if (rc == 0)
        rc = open_row(tx, site_key, &r, out, err);
    if (rc == 0)
        rc = phx_audit_event(tx, "read", "content.read", receipt, by, why, at_ns, err);
    if (rc != 0)
        phx_content_text_fini(out);
    free_row(&r);
    return rc;
}

void phx_content_text_fini(struct phx_content_text *t)
{
    struct phx_buf *bufs[] = {&t->request, &t->response};

    for (int i = 0; i < 2; i++) {
        if (bufs[i]->data != NULL)
            sodium_memzero(bufs[i]->data, bufs[i]->size);
        phx_buf_fini(bufs[i]);
    }
    sodium_memzero(t, sizeof(*t));
}
