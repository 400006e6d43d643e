/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/keys/keys.h"

#include <event2/event.h>
#include <stdio.h>
#include <string.h>

#include "daemon/audit/audit.h"
#include "daemon/store/store.h"
#include "daemon/time/time.h"
#include "rpc/base/clock.h"
#include "rpc/base/hash.h"
#include "rpc/base/hex.h"
#include "rpc/base/id.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"
#include "rpc/base/table.h"

enum { KEYS_MAX = 1 << 20, RANDOM_CHARS = 43, KEY_LENGTH_MAX = 256 };

static const char    PREFIX[] = "phx_";
static const int64_t RELOAD_NS = 400000000;

struct entry {
    struct phx_identity identity;
    char                digest_hex[PHX_SHA256_HEX];
    struct entry       *next;
};

/* One snapshot of the table of keys; replaced whole. */
struct snapshot {
    struct phx_table *by_digest;
    struct entry     *first;
    size_t            n;
    int64_t           generation;
};

struct phx_keys {
    struct phx_store *store;
    struct snapshot  *now;
    int64_t           checked_ns;
    struct look      *look; /* under way */
    struct event     *tick; /* NULL = looks only when asked */
};

/* One look at the table.  It may outlive the keys, whose pointer is then cleared. */
struct look {
    struct phx_keys *keys;
    int64_t          generation; /* that is known already */
    struct snapshot *loaded;     /* NULL = nothing has changed */
};

/* ---- reading ---------------------------------------------------------------------------------- */

static void copy_text(char *to, size_t size, const struct phx_value *v)
{
    (void)snprintf(to, size, "%s", v->kind == PHX_VALUE_TEXT ? (const char *)v->data : "");
}

static const char ISSUER[] = "phalanx"; /* users of keys are named by this cluster */

static int read_identity(const struct phx_value *c, struct phx_identity *out)
{
    memset(out, 0, sizeof(*out));
    out->auth = PHX_AUTH_KEY;
    memcpy(out->issuer, ISSUER, sizeof(ISSUER));
    copy_text(out->key_id, sizeof(out->key_id), &c[0]);
    copy_text(out->tenant, sizeof(out->tenant), &c[2]);
    copy_text(out->user, sizeof(out->user), &c[3]);
    out->roles = (unsigned)c[4].number;
    out->created_ns = c[5].number;
    out->expires_ns = c[6].number;
    out->revoked_ns = c[7].number;
    out->is_person = c[8].number == 0;
    copy_text(out->cost_centre, sizeof(out->cost_centre), &c[9]);
    return 0;
}

static const char SELECT_KEYS[] =
    "SELECT key_id, digest, tenant, user, roles, created_ns, expires_ns, revoked_ns,"
    " is_service, cost_centre FROM api_key ORDER BY created_ns";

static void destroy_snapshot(struct snapshot *s)
{
    if (s == NULL)
        return;
    for (struct entry *e = s->first, *next; e != NULL; e = next) {
        next = e->next;
        phx_mem_free(e);
    }
    phx_table_destroy(s->by_digest);
    phx_mem_free(s);
}

static int add_row(void *ctx, const struct phx_value *columns, int n_columns)
{
    struct snapshot *s = ctx;
    struct entry    *e;

    (void)n_columns;
    if (columns[1].kind != PHX_VALUE_BLOB || columns[1].size != PHX_SHA256_BYTES || s->n >= KEYS_MAX)
        return 0; /* not a key of ours: it opens nothing */
    e = phx_mem_calloc(1, sizeof(*e));
    (void)read_identity(columns, &e->identity);
    phx_hex_encode(e->digest_hex, sizeof(e->digest_hex), columns[1].data, columns[1].size);
    e->next = s->first;
    s->first = e;
    s->n++;
    return phx_table_set_str(s->by_digest, e->digest_hex, e);
}

static int read_number(void *ctx, const struct phx_value *columns, int n_columns)
{
    (void)n_columns;
    *(int64_t *)ctx = columns[0].number;
    return 0;
}

static int read_generation(struct phx_tx *tx, int64_t *out, struct phx_err *err)
{
    return phx_tx_exec(tx, "SELECT value FROM meta WHERE name = 'key_generation'", NULL, 0,
                       read_number, out, err);
}

static int load_snapshot(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct look     *l = ctx;
    struct snapshot *s;
    int64_t          generation = -1;
    int              rc = read_generation(tx, &generation, err);

    l->loaded = NULL;
    if (rc != 0 || generation == l->generation)
        return rc;
    s = phx_mem_calloc(1, sizeof(*s));
    s->by_digest = phx_table_create(KEYS_MAX);
    s->generation = generation;
    rc = phx_tx_exec(tx, SELECT_KEYS, NULL, 0, add_row, s, err);
    if (rc == 0)
        l->loaded = s;
    else
        destroy_snapshot(s);
    return rc;
}

int phx_keys_open(struct phx_store *store, struct phx_keys **out, struct phx_err *err)
{
    struct phx_keys *k;
    struct look      l = {.generation = -1};
    int              rc = phx_store_run(store, load_snapshot, &l, err);

    *out = NULL;
    if (rc != 0)
        return rc;
    k = phx_mem_calloc(1, sizeof(*k));
    k->store = store;
    k->now = l.loaded;
    k->checked_ns = phx_clock_mono_ns();
    *out = k;
    return 0;
}

void phx_keys_close(struct phx_keys *k)
{
    if (k == NULL)
        return;
    if (k->tick != NULL)
        event_free(k->tick);
    if (k->look != NULL)
        k->look->keys = NULL;
    destroy_snapshot(k->now);
    phx_mem_free(k);
}

static void on_looked(void *ctx, const struct phx_err *err)
{
    struct look     *l = ctx;
    struct phx_keys *k = l->keys;

    if (k != NULL)
        k->look = NULL;
    if (err != NULL)
        phx_log(PHX_LOG_WARN, "keys.reload.fail", "reason=%s", err->text);
    else if (k != NULL && l->loaded != NULL) {
        destroy_snapshot(k->now);
        k->now = l->loaded;
        l->loaded = NULL;
    }
    destroy_snapshot(l->loaded);
    phx_mem_free(l);
}

/* Another process may have changed the keys: look again, but not for each request. */
static void refresh(struct phx_keys *k)
{
    int64_t now = phx_clock_mono_ns();

    if (k->look != NULL || now - k->checked_ns < RELOAD_NS)
        return;
    k->checked_ns = now;
    k->look = phx_mem_calloc(1, sizeof(*k->look));
    k->look->keys = k;
    k->look->generation = k->now->generation;
    phx_store_submit(k->store, load_snapshot, on_looked, k->look);
}

static void on_tick(evutil_socket_t fd, short what, void *ctx)
{
    (void)fd;
    (void)what;
    refresh(ctx);
}

/* Without it a daemon that nobody has asked for an hour would let a revoked key in once more. */
void phx_keys_watch(struct phx_keys *k, struct event_base *base)
{
    const struct timeval half_second = {0, 500000};

    k->tick = event_new(base, -1, EV_PERSIST, on_tick, k);
    phx_assert(k->tick != NULL && event_add(k->tick, &half_second) == 0);
}

int phx_keys_check(struct phx_keys *k, const char *key, int64_t now_ns, struct phx_identity *out,
                   struct phx_err *err)
{
    char                digest[PHX_SHA256_HEX];
    const struct entry *e = NULL;

    refresh(k);
    memset(out, 0, sizeof(*out));
    if (strlen(key) <= KEY_LENGTH_MAX) { /* the digest is looked up: timing tells nothing of the key */
        phx_sha256_hex(key, strlen(key), digest);
        e = phx_table_get_str(k->now->by_digest, digest);
    }
    if (e == NULL || !phx_secret_equal(e->digest_hex, digest, sizeof(digest)) ||
        e->identity.revoked_ns != 0 || (e->identity.expires_ns != 0 && e->identity.expires_ns <= now_ns))
        return phx_fail(err, PHX_E_UNAUTH, "the API key is not valid");
    *out = e->identity;
    return 0;
}

/* ---- the command line ------------------------------------------------------------------------- */

struct creation {
    struct phx_identity *identity;
    uint8_t              digest[PHX_SHA256_BYTES];
};

/* Who gave the command is not known to the database: whoever may open the file may do this. */
static int write_leaf(struct phx_tx *tx, const char *event, const char *key_id,
                      const struct phx_identity *made, struct phx_err *err)
{
    char    detail[256] = "", roles[64];
    int64_t at_ns;
    int     rc = phx_time_in(tx, &at_ns, err);

    if (made != NULL) {
        phx_key_format_roles(made->roles, roles);
        (void)snprintf(detail, sizeof(detail), "%s %s/%s, roles %s", made->is_person ? "user" : "service",
                       made->tenant, made->user, roles);
    }
    return rc != 0 ? rc : phx_audit_event(tx, "key", event, key_id, "command line", detail, at_ns, err);
}

static int bump_generation(struct phx_tx *tx, struct phx_err *err)
{
    return phx_tx_exec(tx, "UPDATE meta SET value = value + 1 WHERE name = 'key_generation'", NULL, 0,
                       NULL, NULL, err);
}

static int insert_key(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct creation     *c = ctx;
    const struct phx_identity *id = c->identity;
    const struct phx_value     values[] = {
        phx_value_text(id->key_id),        phx_value_blob(c->digest, sizeof(c->digest)),
        phx_value_text(id->tenant),        phx_value_text(id->user),
        phx_value_int(id->roles),          phx_value_int(id->created_ns),
        phx_value_int(id->expires_ns),     phx_value_int(!id->is_person),
        phx_value_text(id->cost_centre),
    };
    int rc = phx_tx_exec(tx,
                         "INSERT INTO api_key(key_id, digest, tenant, user, roles, created_ns,"
                         " expires_ns, is_service, cost_centre) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
                         values, 9, NULL, NULL, err);

    if (rc == 0)
        rc = bump_generation(tx, err);
    if (rc == 0)
        rc = write_leaf(tx, "key.create", id->key_id, id, err);
    return rc;
}

/* 43 base62 characters hold 256 bits; a byte above 247 would favour some and is drawn again. */
static void make_key(char key[PHX_KEY_TEXT_BYTES])
{
    static const char alphabet[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    size_t            n = sizeof(PREFIX) - 1;

    memcpy(key, PREFIX, n);
    while (n < sizeof(PREFIX) - 1 + RANDOM_CHARS) {
        uint8_t byte;

        phx_id_random(&byte, 1);
        if (byte < 248)
            key[n++] = alphabet[byte % 62];
    }
    key[n] = '\0';
}

static int check_new(const struct phx_key_new *what, struct phx_err *err)
{
    int rc = phx_key_check_name("tenant", what->tenant, err);

    if (rc == 0)
        rc = phx_key_check_name("user", what->user, err);
    if (rc == 0 && what->cost_centre != NULL && what->cost_centre[0] != '\0')
        rc = phx_key_check_name("cost centre", what->cost_centre, err);
    return rc;
}

int phx_key_create(struct phx_store *store, const struct phx_key_new *what, char key[PHX_KEY_TEXT_BYTES],
                   struct phx_identity *out, struct phx_err *err)
{
    struct creation c = {.identity = out};
    int             rc = check_new(what, err);

    if (rc != 0)
        return rc;
    *out = (struct phx_identity){.auth = PHX_AUTH_KEY,
                                 .is_person = !what->is_service,
                                 .roles = what->roles,
                                 .created_ns = phx_clock_wall_ns(),
                                 .expires_ns = what->expires_ns};
    phx_id_hex(out->key_id, sizeof(out->key_id), 8);
    memcpy(out->issuer, ISSUER, sizeof(ISSUER));
    (void)snprintf(out->tenant, sizeof(out->tenant), "%s", what->tenant);
    (void)snprintf(out->user, sizeof(out->user), "%s", what->user);
    (void)snprintf(out->cost_centre, sizeof(out->cost_centre), "%s",
                   what->cost_centre != NULL ? what->cost_centre : "");
    make_key(key);
    phx_sha256(key, strlen(key), c.digest);
    return phx_store_run(store, insert_key, &c, err);
}

struct listing {
    struct phx_identity *out;
    size_t               max, n;
};

static int list_row(void *ctx, const struct phx_value *columns, int n_columns)
{
    struct listing *l = ctx;

    (void)n_columns;
    if (l->n < l->max)
        (void)read_identity(columns, &l->out[l->n]);
    l->n++;
    return 0;
}

static int list_keys(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    return phx_tx_exec(tx, SELECT_KEYS, NULL, 0, list_row, ctx, err);
}

int phx_key_list(struct phx_store *store, struct phx_identity *out, size_t max, struct phx_err *err)
{
    struct listing l = {out, max, 0};
    int            rc = phx_store_run(store, list_keys, &l, err);

    return rc == 0 ? (int)l.n : rc;
}

static int revoke_key(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const char            *key_id = ctx;
    const struct phx_value values[] = {phx_value_int(phx_clock_wall_ns()), phx_value_text(key_id)};
    int rc = phx_tx_exec(tx, "UPDATE api_key SET revoked_ns = ? WHERE key_id = ? AND revoked_ns = 0",
                         values, 2, NULL, NULL, err);

    if (rc == 0 && phx_tx_changes(tx) == 0)
        rc = phx_fail(err, PHX_E_NOTFOUND, "key %.40s is unknown or revoked already", key_id);
    if (rc == 0)
        rc = bump_generation(tx, err);
    if (rc == 0)
        rc = write_leaf(tx, "key.revoke", key_id, NULL, err);
    return rc;
}

int phx_key_revoke(struct phx_store *store, const char *key_id, struct phx_err *err)
{
    return phx_store_run(store, revoke_key, (void *)(uintptr_t)key_id, err); /* only read */
}
