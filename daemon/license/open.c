/* SPDX-License-Identifier: Apache-2.0
 * Opening: which of the files and the installed copies serve.  A bad licence never stops the daemon. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/license/held.h"
#include "daemon/sign/sign.h"
#include "rpc/base/clock.h"
#include "rpc/base/log.h"

static const int64_t NONE_NS = (int64_t)PHX_LICENSE_NONE_HOURS * 3600 * 1000000000;

void phx_license_pair_fini(struct phx_license_pair *p)
{
    phx_license_free(p->license);
    phx_buf_fini(&p->license_file);
    phx_buf_fini(&p->key_set_file);
    memset(p, 0, sizeof(*p));
}

/* The first one is the cause of the others. */
static void note_problem(struct phx_license_store *s, const struct phx_err *err)
{
    phx_log(PHX_LOG_WARN, "license.problem", "reason=%s", err->text);
    if (s->problem[0] == '\0')
        (void)snprintf(s->problem, sizeof(s->problem), "%s", err->text);
}

/* ---- what may follow what ------------------------------------------------------------------------------------- */

int phx_key_set_follows(const struct phx_key_set *keys, const struct phx_key_set *next, struct phx_err *err)
{
    if (next->version < keys->version)
        return phx_fail(err, PHX_E_LICENSE,
                        "key set version %" PRId64 " is older than version %" PRId64 ", which was seen already",
                        next->version, keys->version);
    if (next->version == keys->version && keys->n_issuers > 0 && strcmp(next->digest, keys->digest) != 0)
        return phx_fail(err, PHX_E_LICENSE,
                        "another key set of version %" PRId64 " is installed: ask the licensor which one is right",
                        next->version);
    return 0;
}

int phx_license_follows(const struct phx_license *installed, int64_t serial_seen, const struct phx_license *next,
                        struct phx_err *err)
{
    const struct phx_license_terms *t = &next->terms;

    if (installed != NULL && strcmp(t->digest, installed->terms.digest) == 0)
        return 0;
    if (t->serial < serial_seen)
        return phx_fail(err, PHX_E_LICENSE,
                        "licence serial %" PRId64 " is older than serial %" PRId64 ", which was installed",
                        t->serial, serial_seen);
    if (t->serial == serial_seen && installed != NULL)
        return phx_fail(err, PHX_E_LICENSE, "another licence of serial %" PRId64 " was installed", t->serial);
    if (t->serial > serial_seen && t->supersedes != 0 && serial_seen > t->supersedes)
        return phx_fail(err, PHX_E_LICENSE,
                        "the licence supersedes serial %" PRId64 ", but %" PRId64
                        " is installed: ask the licensor for one that supersedes that",
                        t->supersedes, serial_seen);
    return 0;
}

void phx_license_note_stored(struct phx_license_store *s, const struct phx_license_pair *p)
{
    if (p->is_new_key_set)
        s->version_stored = p->keys.version;
    if (p->is_new_license)
        s->serial_stored = p->license->terms.serial;
}

void phx_license_take(struct phx_license_store *s, struct phx_license_pair *p)
{
    s->keys = p->keys;
    s->none_since_ns = 0;
    if (p->license == NULL ||
        (s->current != NULL && strcmp(p->license->terms.digest, s->current->terms.digest) == 0))
        return;
    s->held = phx_mem_realloc(s->held, (size_t)s->n_held + 1, sizeof(struct phx_license *));
    s->held[s->n_held++] = s->current = p->license;
    s->serial_seen = p->license->terms.serial;
    p->license = NULL;
}

/* ---- choosing ---------------------------------------------------------------------------------------------------- */

static void choose_key_set(struct phx_license_store *s, const struct phx_license_rows *rows,
                           struct phx_license_pair *p)
{
    struct phx_key_set file = {0};
    struct phx_err     err = {0};

    if (rows->key_set.size > 0 &&
        phx_key_set_parse(rows->key_set.data, rows->key_set.size, &s->roots, &p->keys, &err) != 0) {
        phx_err_prefix(&err, "the installed copy: ");
        note_problem(s, &err);
        p->keys.version = rows->key_set_version; /* still the highest that was seen */
    }
    if (phx_buf_read_file(&p->key_set_file, s->key_set_file, PHX_LICENSE_MAX_BYTES, &err) == 0 &&
        phx_key_set_parse(p->key_set_file.data, p->key_set_file.size, &s->roots, &file, &err) == 0 &&
        phx_key_set_follows(&p->keys, &file, &err) == 0) {
        p->is_new_key_set = file.version > s->version_stored;
        p->keys = file;
        return;
    }
    phx_err_prefix(&err, "%s: ", s->key_set_file);
    note_problem(s, &err);
}

static int check_file(const struct phx_license_store *s, const struct phx_license *installed,
                      const struct phx_license *next, int64_t now_ns, struct phx_err *err)
{
    char from[PHX_DATE_BYTES];
    int  rc = phx_license_binds(next, s->fingerprint, err);

    if (rc == 0)
        rc = phx_license_follows(installed, s->serial_seen, next, err);
    if (rc == 0 && installed != NULL && phx_license_state(next, now_ns) == PHX_LICENSE_EARLY) {
        phx_date_format(next->terms.not_before_ns, from); /* what serves must not be lost to what does not yet */
        rc = phx_fail(err, PHX_E_LICENSE, "it is in force from %s; until then the installed one serves", from);
    }
    return rc;
}

static void choose_license(struct phx_license_store *s, const struct phx_license_rows *rows, int64_t now_ns,
                           struct phx_license_pair *p)
{
    struct phx_license *file = NULL;
    struct phx_err      err = {0};

    if (rows->license.size > 0 &&
        (phx_license_parse(rows->license.data, rows->license.size, &p->keys, &p->license, &err) != 0 ||
         phx_license_binds(p->license, s->fingerprint, &err) != 0)) {
        phx_err_prefix(&err, "the installed copy: ");
        note_problem(s, &err);
        phx_license_free(p->license);
        p->license = NULL;
    }
    if (phx_buf_read_file(&p->license_file, s->file, PHX_LICENSE_MAX_BYTES, &err) == 0 &&
        phx_license_parse(p->license_file.data, p->license_file.size, &p->keys, &file, &err) == 0 &&
        check_file(s, p->license, file, now_ns, &err) == 0) {
        p->is_new_license = file->terms.serial > s->serial_stored;
        phx_license_free(p->license);
        p->license = file;
        return;
    }
    phx_license_free(file);
    phx_err_prefix(&err, "%s: ", s->file);
    note_problem(s, &err);
}

/* ---- opening -------------------------------------------------------------------------------------------------------- */

struct adoption {
    struct phx_license_store      *s;
    const struct phx_license_pair *pair;
    int64_t                        now_ns;
};

static int write_choice(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct adoption *a = ctx;
    int                    rc = phx_license_rows_add(tx, a->pair, "file", a->now_ns, err);

    if (rc == 0 && a->pair->license == NULL)
        rc = phx_license_rows_set_none(tx, a->s->none_since_ns, err);
    return rc;
}

static int choose(struct phx_license_store *s, int64_t now_ns, struct phx_err *err)
{
    struct phx_license_rows rows = {0};
    struct phx_license_pair pair = {0};
    struct adoption         adoption = {s, &pair, now_ns};
    int                     rc = phx_license_rows_read(s->store, &rows, err);

    if (rc == 0) {
        s->serial_seen = s->serial_stored = rows.serial;
        s->version_stored = rows.key_set_version;
        choose_key_set(s, &rows, &pair);
        choose_license(s, &rows, now_ns, &pair);
        s->none_since_ns = rows.none_since_ns != 0 ? rows.none_since_ns : now_ns;
        if (!s->is_read_only)
            rc = phx_store_run(s->store, write_choice, &adoption, err);
        if (rc == 0 && !s->is_read_only)
            phx_license_note_stored(s, &pair);
    }
    if (rc == 0 && pair.license != NULL)
        phx_license_take(s, &pair);
    else
        s->keys = pair.keys;
    phx_license_pair_fini(&pair);
    phx_license_rows_fini(&rows);
    return rc;
}

static void read_roots(struct phx_license_store *s, const char *path)
{
    struct phx_err err = {0};

    if (path == NULL || path[0] == '\0') {
        phx_license_roots_builtin(&s->roots);
        return;
    }
    if (phx_license_roots_read(path, &s->roots, &err) != 0) {
        note_problem(s, &err);
        memset(&s->roots, 0, sizeof(s->roots));
        s->roots.threshold = 1; /* of no key: nothing verifies */
    }
}

int phx_license_open(struct phx_store *store, const struct phx_license_source *source,
                     struct phx_license_store **out, struct phx_err *err)
{
    struct phx_license_store *s = phx_mem_calloc(1, sizeof(*s));
    int64_t                   now_ns = source->now_ns != 0 ? source->now_ns : phx_clock_wall_ns();
    int                       rc = phx_sign_init(err);

    *out = NULL;
    s->store = store;
    s->is_read_only = source->is_read_only;
    s->file = phx_mem_strdup(source->file);
    s->key_set_file = phx_mem_strdup(source->key_set_file);
    s->fingerprint = phx_mem_strdup(source->cluster_fingerprint);
    read_roots(s, source->roots_file);
    if (rc == 0)
        rc = choose(s, now_ns, err);
    if (rc != 0) {
        phx_license_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

void phx_license_close(struct phx_license_store *s)
{
    if (s == NULL)
        return;
    for (int32_t i = 0; i < s->n_held; i++)
        phx_license_free(s->held[i]);
    phx_mem_free(s->held);
    phx_mem_free(s->file);
    phx_mem_free(s->key_set_file);
    phx_mem_free(s->fingerprint);
    phx_mem_free(s);
}

const struct phx_license *phx_license_now(const struct phx_license_store *s)
{
    return s->current;
}

bool phx_license_is_observing(const struct phx_license_store *s, int64_t now_ns)
{
    return s->none_since_ns != 0 && now_ns - s->none_since_ns < NONE_NS;
}

int64_t phx_license_key_set_version(const struct phx_license_store *s)
{
    return s->keys.version;
}

const char *phx_license_problem(const struct phx_license_store *s)
{
    return s->problem;
}
