/* SPDX-License-Identifier: Apache-2.0
 * Installing: the check, the rows with their leaves in one transaction, then the files.  When the files cannot
 * be written the installed copy still serves at the next start. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/license/held.h"
#include "rpc/base/log.h"

struct install {
    struct phx_license_store *s;
    struct phx_license_pair   pair;
    char                     *by;
    int64_t                   now_ns;
    phx_license_installed_fn  fn; /* NULL = somebody waits */
    void                     *ctx;
};

static int check_in_force(const struct phx_license *l, int64_t now_ns, struct phx_err *err)
{
    enum phx_license_state state = phx_license_state(l, now_ns);
    char                   from[PHX_DATE_BYTES], until[PHX_DATE_BYTES];

    phx_date_format(l->terms.not_before_ns, from);
    phx_date_format(l->terms.not_after_ns, until);
    if (state == PHX_LICENSE_EARLY)
        return phx_fail(err, PHX_E_LICENSE, "the licence is in force from %s: install it then", from);
    if (state == PHX_LICENSE_EXPIRED)
        return phx_fail(err, PHX_E_LICENSE, "the licence ended at %s and its continuity has passed", until);
    return 0;
}

/* Fills pair from copies of the files; whatever it says, the pair must be finished. */
static int verify(const struct phx_license_store *s, const void *licence, size_t licence_size,
                  const void *key_set, size_t key_set_size, int64_t now_ns, struct phx_license_pair *p,
                  struct phx_err *err)
{
    int rc = 0;

    memset(p, 0, sizeof(*p));
    phx_buf_init(&p->license_file, PHX_LICENSE_MAX_BYTES);
    phx_buf_init(&p->key_set_file, PHX_LICENSE_MAX_BYTES);
    phx_buf_put(&p->license_file, licence, licence_size);
    phx_buf_put(&p->key_set_file, key_set, key_set_size);
    p->keys = s->keys;
    if (phx_buf_check(&p->license_file, "the licence", err) != 0 ||
        phx_buf_check(&p->key_set_file, "the key set", err) != 0)
        return PHX_E_TOOBIG;
    if (key_set_size > 0)
        rc = phx_key_set_parse(key_set, key_set_size, &s->roots, &p->keys, err);
    if (rc == 0)
        rc = phx_key_set_follows(&s->keys, &p->keys, err);
    if (rc == 0 && p->keys.n_issuers == 0)
        rc = phx_fail(err, PHX_E_LICENSE, "there is no key set yet: install one with the licence");
    if (rc == 0)
        rc = phx_license_parse(licence, licence_size, &p->keys, &p->license, err);
    if (rc == 0)
        rc = phx_license_binds(p->license, s->fingerprint, err);
    if (rc == 0)
        rc = phx_license_follows(s->current, s->serial_seen, p->license, err);
    if (rc == 0)
        rc = check_in_force(p->license, now_ns, err);
    p->is_new_key_set = key_set_size > 0 && p->keys.version > s->version_stored;
    p->is_new_license = rc == 0 && p->license->terms.serial > s->serial_stored;
    return rc;
}

int phx_license_preview(const struct phx_license_store *s, const void *licence, size_t licence_size,
                        const void *key_set, size_t key_set_size, int64_t now_ns,
                        struct phx_license_preview *out, struct phx_err *err)
{
    struct phx_license_pair pair;
    int rc = verify(s, licence, licence_size, key_set, key_set_size, now_ns, &pair, err);

    memset(out, 0, sizeof(*out));
    if (rc == 0) {
        out->serial = pair.license->terms.serial;
        out->key_set_version = pair.keys.version;
        out->state = phx_license_state(pair.license, now_ns);
        out->is_same = !pair.is_new_license && !pair.is_new_key_set;
        out->is_new_salt = s->current != NULL && memcmp(s->current->terms.seat_salt, pair.license->terms.seat_salt,
                                                        sizeof(s->current->terms.seat_salt)) != 0;
        phx_license_format(pair.license, now_ns, out->text, sizeof(out->text));
    }
    phx_license_pair_fini(&pair);
    return rc;
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

static struct install *create_install(struct phx_license_store *s, const char *by, int64_t now_ns)
{
    struct install *i = phx_mem_calloc(1, sizeof(*i));

    i->s = s;
    i->by = phx_mem_strdup(by);
    i->now_ns = now_ns;
    return i;
}

static void destroy_install(struct install *i)
{
    phx_license_pair_fini(&i->pair);
    phx_mem_free(i->by);
    phx_mem_free(i);
}

static int write_install(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct install *i = ctx;

    return phx_license_rows_add(tx, &i->pair, i->by, i->now_ns, err);
}

static void write_file(const char *path, const struct phx_buf *file)
{
    struct phx_err err = {0};

    if (file->size > 0 && phx_file_write(path, file->data, file->size, 0600, &err) != 0)
        phx_log(PHX_LOG_WARN, "license.file", "path=%s reason=%s remedy=%s", path, err.text,
                "the installed copy serves");
}

static void finish_install(struct install *i)
{
    write_file(i->s->key_set_file, &i->pair.key_set_file);
    write_file(i->s->file, &i->pair.license_file);
    phx_log(PHX_LOG_INFO, "license.install", "serial=%" PRId64 " key_set=%" PRId64 " by=%s",
            i->pair.license->terms.serial, i->pair.keys.version, i->by);
    phx_license_note_stored(i->s, &i->pair);
    phx_license_take(i->s, &i->pair);
    i->s->problem[0] = '\0';
}

static void on_installed(void *ctx, const struct phx_err *err)
{
    struct install *i = ctx;

    if (err == NULL)
        finish_install(i);
    i->fn(i->ctx, err);
    destroy_install(i);
}

void phx_license_install(struct phx_license_store *s, const void *licence, size_t licence_size,
                         const void *key_set, size_t key_set_size, bool is_dry_run, const char *by,
                         int64_t now_ns, phx_license_installed_fn fn, void *ctx)
{
    struct install *i = create_install(s, by, now_ns);
    struct phx_err  err = {0};
    int rc = verify(s, licence, licence_size, key_set, key_set_size, now_ns, &i->pair, &err);

    if (rc != 0 || is_dry_run) {
        fn(ctx, rc != 0 ? &err : NULL);
        destroy_install(i);
        return;
    }
    i->fn = fn;
    i->ctx = ctx;
    phx_store_submit(s->store, write_install, on_installed, i);
}

int phx_license_install_run(struct phx_license_store *s, const void *licence, size_t licence_size,
                            const void *key_set, size_t key_set_size, const char *by, int64_t now_ns,
                            struct phx_err *err)
{
    struct install *i = create_install(s, by, now_ns);
    int rc = verify(s, licence, licence_size, key_set, key_set_size, now_ns, &i->pair, err);

    if (rc == 0)
        rc = phx_store_run(s->store, write_install, i, err);
    if (rc == 0)
        finish_install(i);
    destroy_install(i);
    return rc;
}
