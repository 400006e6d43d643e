/* SPDX-License-Identifier: Apache-2.0
 * Who may sign what.  A log key speaks for its own epoch alone: a checkpoint that another epoch's key has
 * signed is refused, since whoever holds the newest key could else seal old records anew. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/verify/verify.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

enum { LINES_MAX = 8, LINE_MAX_BYTES = 300 };

/* ---- texts ------------------------------------------------------------------------------------------------ */

struct lines {
    char text[LINES_MAX][LINE_MAX_BYTES];
    int  n;
};

/* The lines of a note's text, which ends with a newline.  More than LINES_MAX are counted only. */
static int split_lines(const char *text, size_t size, struct lines *out, struct phx_err *err)
{
    const char *p = text, *end = text + size, *line_end;

    out->n = 0;
    for (; p < end; p = line_end + 1, out->n++) {
        line_end = memchr(p, '\n', (size_t)(end - p));
        if (line_end == NULL || line_end - p >= LINE_MAX_BYTES)
            return phx_fail(err, PHX_E_FORMAT, "a line without end or above %d bytes", LINE_MAX_BYTES);
        if (out->n < LINES_MAX) {
            memcpy(out->text[out->n], p, (size_t)(line_end - p));
            out->text[out->n][line_end - p] = '\0';
        }
    }
    return 0;
}

static bool read_number(const char *text, int64_t *out)
{
    size_t n = strspn(text, "0123456789");

    if (n == 0 || n > 18 || text[n] != '\0' || (text[0] == '0' && n > 1))
        return false;
    *out = strtoll(text, NULL, 10);
    return true;
}

/* Exactly 32 bytes in the one base64 spelling. */
static bool read_hash(const char *text, uint8_t out[32])
{
    char   again[64];
    size_t n = 0;

    if (sodium_base642bin(out, 32, text, strlen(text), NULL, &n, NULL, sodium_base64_VARIANT_ORIGINAL) != 0 ||
        n != 32)
        return false;
    sodium_bin2base64(again, sizeof(again), out, 32, sodium_base64_VARIANT_ORIGINAL);
    return strcmp(text, again) == 0;
}

/* ---- signatures ------------------------------------------------------------------------------------------- */

static void make_verifier(const char *origin, int64_t epoch, const uint8_t key[32], struct phx_note_verifier *out)
{
    struct phx_buf b = {0};
    uint8_t        digest[crypto_hash_sha256_BYTES];

    (void)snprintf(out->name, sizeof(out->name), "%s/%lld", origin, (long long)epoch);
    phx_buf_printf(&b, "%s\n\x01", out->name);
    phx_buf_put(&b, key, 32);
    (void)crypto_hash_sha256(digest, (const unsigned char *)b.data, b.size);
    memcpy(out->hash, digest, sizeof(out->hash));
    memcpy(out->public_key, key, 32);
    phx_buf_fini(&b);
}

/* The names of the signature lines: every log key but the allowed ones is refused, each of these signs once;
 * names of others are added to `others`, or refused when there is nowhere to put them. */
static int check_names(const char *lines, const char *end, const char *origin,
                       const struct phx_note_verifier *allowed, int n_allowed, json_t *others,
                       struct phx_err *err)
{
    int    n_seen[2] = {0};
    size_t origin_size = strlen(origin);

    while (lines < end) {
        const char *name = lines + 4; /* an em dash and a space */
        const char *name_end = memchr(name, ' ', (size_t)(end - name));
        const char *line_end = memchr(lines, '\n', (size_t)(end - lines));
        size_t      size;
        int         which = -1;

        if (name_end == NULL || line_end == NULL || name_end > line_end)
            return phx_fail(err, PHX_E_FORMAT, "malformed signature line");
        size = (size_t)(name_end - name);
        for (int i = 0; i < n_allowed; i++)
            if (strlen(allowed[i].name) == size && memcmp(name, allowed[i].name, size) == 0)
                which = i;
        if (which >= 0 ? ++n_seen[which] > 1
                       : (size > origin_size && memcmp(name, origin, origin_size) == 0 && name[origin_size] == '/'))
            return phx_fail(err, PHX_E_FORMAT, "signed by %.*s, which may not sign it", size < 80 ? (int)size : 80,
                            name);
        if (which < 0 && others == NULL)
            return phx_fail(err, PHX_E_FORMAT, "signed by somebody else too");
        if (which < 0)
            json_array_append_new(others, json_stringn(name, size));
        lines = line_end + 1;
    }
    return 0;
}

static int check_signatures(const void *note, size_t size, const char *origin,
                            const struct phx_note_verifier *keys, int n_keys, json_t *others, struct phx_err *err)
{
    bool   is_signed[2] = {false, false};
    size_t text_size = 0;
    int    rc = phx_note_open(note, size, keys, n_keys, is_signed, &text_size, err);

    for (int i = 0; i < n_keys && rc == 0; i++)
        if (!is_signed[i])
            rc = phx_fail(err, PHX_E_LICENSE, "no valid signature of %.100s", keys[i].name);
    if (rc == 0)
        rc = check_names((const char *)note + text_size + 1, (const char *)note + size, origin, keys, n_keys, others,
                         err);
    return rc;
}

/* ---- checkpoints ------------------------------------------------------------------------------------------ */

void phx_vcheckpoint_fini(struct phx_vcheckpoint *cp)
{
    phx_buf_fini(&cp->note);
}

static int parse_text(struct phx_vcheckpoint *cp, size_t text_size, struct phx_err *err)
{
    struct lines l;
    int          rc = split_lines(cp->note.data, text_size, &l, err);

    if (rc != 0)
        return rc;
    if (l.n < 4 || strncmp(l.text[3], "epoch ", 6) != 0 || !read_number(l.text[3] + 6, &cp->epoch))
        return phx_fail(err, PHX_E_FORMAT, "not a checkpoint of a phalanx log");
    if (l.n > 4)
        return phx_fail(err, PHX_E_UNSUPPORTED, "unknown line after the epoch");
    rc = phx_checkpoint_parse(cp->note.data, text_size, &cp->c, err);
    if (rc == 0 && cp->c.size >= (uint64_t)1000000000000000000)
        rc = phx_fail(err, PHX_E_FORMAT, "size above 18 digits");
    return rc;
}

int phx_vcheckpoint_parse(struct phx_vcheckpoint *cp, const char *what, const void *note, size_t size,
                          struct phx_err *err)
{
    size_t text_size = 0;
    int    rc;

    memset(cp, 0, sizeof(*cp));
    cp->what = what;
    phx_buf_put(&cp->note, note, size);
    rc = phx_note_open(note, size, NULL, 0, NULL, &text_size, err);
    if (rc == 0)
        rc = parse_text(cp, text_size, err);
    if (rc == 0)
        return 0;
    phx_vcheckpoint_fini(cp);
    phx_err_prefix(err, "%.80s: ", what);
    return rc;
}

/* ---- the chain -------------------------------------------------------------------------------------------- */

void phx_chain_init(struct phx_chain *c, const char *origin)
{
    memset(c, 0, sizeof(*c));
    (void)snprintf(c->origin, sizeof(c->origin), "%s", origin);
}

void phx_chain_fini(struct phx_chain *c)
{
    phx_mem_free(c->keys);
}

static int parse_key(const struct phx_chain *c, const char *text, size_t size, struct phx_log_key *out,
                     struct phx_err *err)
{
    struct lines l;
    int64_t      epoch = 0, from = 0;
    int          rc = split_lines(text, size, &l, err);

    if (rc != 0)
        return rc;
    if (l.n != 5 || strcmp(l.text[0], "phalanx log key") != 0 || strcmp(l.text[1], c->origin) != 0 ||
        !read_number(l.text[2], &epoch) || epoch != c->n + 1)
        return phx_fail(err, PHX_E_FORMAT, "not the log key of epoch %lld of %.80s", (long long)c->n + 1, c->origin);
    if (!read_number(l.text[3], &from) || !read_hash(l.text[4], out->key) ||
        (c->n == 0 ? from != 0 : (uint64_t)from < c->keys[c->n - 1].from_size))
        return phx_fail(err, PHX_E_FORMAT, "wrong key or first size");
    out->from_size = (uint64_t)from;
    return 0;
}

int phx_chain_push(struct phx_chain *c, const char *what, const void *note, size_t size, struct phx_err *err)
{
    struct phx_note_verifier keys[2];
    struct phx_log_key       key;
    size_t                   text_size = 0;
    int                      n = 0, rc = phx_note_open(note, size, NULL, 0, NULL, &text_size, err);

    if (rc == 0)
        rc = parse_key(c, note, text_size, &key, err);
    if (rc == 0) {
        if (c->n > 0)
            make_verifier(c->origin, c->n, c->keys[c->n - 1].key, &keys[n++]);
        make_verifier(c->origin, c->n + 1, key.key, &keys[n++]);
        rc = check_signatures(note, size, c->origin, keys, n, NULL, err);
    }
    if (rc != 0) {
        phx_err_prefix(err, "%.80s: ", what);
        return rc;
    }
    if ((c->n & (c->n + 1)) == 0) /* at 0, 1, 3, 7, ... */
        c->keys = phx_mem_realloc(c->keys, (size_t)c->n * 2 + 1, sizeof(*c->keys));
    c->keys[c->n++] = key;
    return 0;
}

int phx_chain_check(const struct phx_chain *c, const struct phx_vcheckpoint *cp, json_t *others,
                    struct phx_err *err)
{
    struct phx_note_verifier key;
    json_t                  *names = others != NULL ? json_incref(others) : json_array();
    int                      rc;

    if (strcmp(cp->c.origin, c->origin) != 0)
        rc = phx_fail(err, PHX_E_FORMAT, "of another log, %.100s", cp->c.origin);
    else if (cp->epoch < 1 || cp->epoch > c->n)
        rc = phx_fail(err, PHX_E_UNSUPPORTED, "the key of epoch %lld is unknown", (long long)cp->epoch);
    else {
        make_verifier(c->origin, cp->epoch, c->keys[cp->epoch - 1].key, &key);
        rc = check_signatures(cp->note.data, cp->note.size, c->origin, &key, 1, names, err);
    }
    if (rc == 0 && (cp->c.size < c->keys[cp->epoch - 1].from_size ||
                    (cp->epoch < c->n && cp->c.size > c->keys[cp->epoch].from_size)))
        rc = phx_fail(err, PHX_E_FORMAT, "size %llu is outside of epoch %lld", (unsigned long long)cp->c.size,
                      (long long)cp->epoch);
    json_decref(names);
    if (rc != 0)
        phx_err_prefix(err, "%.80s: ", cp->what);
    return rc;
}

/* ---- trust ------------------------------------------------------------------------------------------------ */

static int check_trust_key(json_t *item, struct phx_err *err)
{
    static const char *const known[] = {"epoch", "public_key", NULL};
    const char              *text;
    int64_t                  epoch;
    int                      rc = phx_json_check_object(item, "keys", err);

    if (rc == 0)
        rc = phx_json_check_keys(item, "keys", known, err);
    if (rc == 0)
        rc = phx_json_get_int(item, "keys", "epoch", 1, INT64_MAX, &epoch, err);
    if (rc == 0)
        rc = phx_json_get_str(item, "keys", "public_key", 64, &text, err);
    return rc == 0 && strspn(text, "0123456789abcdef") != 64 ? PHX_E_FORMAT : rc;
}

static int check_trust_keys(const json_t *root, struct phx_err *err)
{
    const json_t *list;
    int           rc = phx_json_get_array(root, "", "keys", 4096, &list, err);

    if (rc == 0 && json_array_size(list) == 0)
        rc = phx_fail(err, PHX_E_FORMAT, "no keys");
    for (size_t i = 0; rc == 0 && i < json_array_size(list); i++) {
        rc = check_trust_key(json_array_get(list, i), err);
        for (size_t j = 0; rc == 0 && j < i; j++)
            if (json_equal(json_object_get(json_array_get(list, i), "epoch"),
                           json_object_get(json_array_get(list, j), "epoch")))
                rc = phx_fail(err, PHX_E_FORMAT, "two keys of one epoch");
    }
    return rc;
}

int phx_trust_parse(struct phx_trust *t, const char *what, const void *data, size_t size, int bad,
                    struct phx_err *err)
{
    static const char *const known[] = {"keys", "origin", "v", NULL};
    json_t                  *root = NULL;
    const char              *origin;
    int64_t                  v = 0;
    int                      rc = phx_json_parse(&root, data, size, PHX_V_FILE_MAX, 0, what, err);

    memset(t, 0, sizeof(*t));
    if (rc == 0)
        rc = phx_json_check_object(root, "", err);
    if (rc != 0)
        rc = bad;
    else if (phx_json_check_keys(root, "", known, err) != 0)
        rc = PHX_E_UNSUPPORTED;
    else if (phx_json_get_int(root, "", "v", INT64_MIN, INT64_MAX, &v, err) == 0 && v != 1)
        rc = phx_fail(err, PHX_E_UNSUPPORTED, "unknown version");
    else if (v != 1 || phx_json_get_str(root, "", "origin", 255, &origin, err) != 0 ||
             check_trust_keys(root, err) != 0)
        rc = phx_fail(err, bad, "needs v, origin and keys, each with an epoch and a public_key of 64 hex digits");
    if (rc == 0) {
        (void)snprintf(t->origin, sizeof(t->origin), "%s", origin);
        t->keys = json_incref(json_object_get(root, "keys"));
    } else {
        err->code = rc;
        phx_err_prefix(err, "%.80s: ", what);
    }
    json_decref(root);
    return rc;
}

void phx_trust_fini(struct phx_trust *t)
{
    json_decref(t->keys);
    t->keys = NULL;
}

static int64_t epoch_of(const json_t *item)
{
    return json_integer_value(json_object_get(item, "epoch"));
}

int64_t phx_trust_first(const struct phx_trust *t)
{
    int64_t first = INT64_MAX;
    size_t  i;
    json_t *item;

    json_array_foreach(t->keys, i, item)
        if (epoch_of(item) < first)
            first = epoch_of(item);
    return first;
}

int phx_trust_check(const struct phx_trust *t, const struct phx_chain *c, const char *what, int bad,
                    struct phx_err *err)
{
    bool    is_good = strcmp(t->origin, c->origin) == 0;
    size_t  i;
    json_t *item;

    json_array_foreach(t->keys, i, item) {
        char hex[65];

        is_good = is_good && epoch_of(item) <= c->n;
        if (is_good) {
            (void)sodium_bin2hex(hex, sizeof(hex), c->keys[epoch_of(item) - 1].key, 32);
            is_good = strcmp(hex, json_string_value(json_object_get(item, "public_key"))) == 0;
        }
    }
    return is_good ? 0
                   : phx_fail(err, bad, "%.80s: the trusted keys of %.80s are not those of this log", what, t->origin);
}
