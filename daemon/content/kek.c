/* SPDX-License-Identifier: Apache-2.0
 * The site's key, and the keys it wraps: one per tenant and month, and one per tenant and year for names. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/content/vault.h"
#include "rpc/base/hash.h"
#include "rpc/base/hex.h"
#include "rpc/base/id.h"
#include "rpc/base/mem.h"

#define WRONG_SITE_KEY                                                                                      \
    "keys/content.key is not the key this database was written with: bring it back from its backup, or "    \
    "accept the loss (phalanx content key-lost)"

static void format_period(int64_t at_ns, const char *format, char period[8])
{
    time_t    seconds = (time_t)(at_ns / 1000000000);
    struct tm tm;

    phx_assert(gmtime_r(&seconds, &tm) != NULL && strftime(period, 8, format, &tm) > 0);
}

void phx_month_format(int64_t at_ns, char period[8])
{
    format_period(at_ns, "%Y-%m", period);
}

void phx_year_format(int64_t at_ns, char period[8])
{
    format_period(at_ns, "%Y", period);
}

/* ---- the file ---------------------------------------------------------------------------------------------- */

static int sync_dir(const char *dir, struct phx_err *err)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 || fsync(fd) != 0 ? phx_fail(err, PHX_E_IO, "sync %s: %s", dir, strerror(errno)) : 0;

    if (fd >= 0)
        (void)close(fd); /* nothing was written through it */
    return rc;
}

/* By link(2), not rename(2): of two processes that start at once, one makes the key and both use it. */
static int make_file(const char *path, struct phx_err *err)
{
    char *dir = phx_mem_strdup(path), *temp = phx_mem_printf("%s.new.%ld", path, (long)getpid());
    char  hex[2 * PHX_CONTENT_KEY_BYTES + 1];
    char *slash = strrchr(dir, '/');
    int   rc = 0;

    if (slash != NULL)
        *slash = '\0';
    if (slash != NULL && mkdir(dir, 0700) != 0 && errno != EEXIST)
        rc = phx_fail(err, PHX_E_IO, "make %s: %s", dir, strerror(errno));
    phx_id_hex(hex, sizeof(hex), PHX_CONTENT_KEY_BYTES);
    if (rc == 0)
        rc = phx_file_write(temp, hex, sizeof(hex) - 1, 0600, err);
    sodium_memzero(hex, sizeof(hex));
    if (rc == 0 && link(temp, path) != 0 && errno != EEXIST)
        rc = phx_fail(err, PHX_E_IO, "link %s: %s", path, strerror(errno));
    (void)unlink(temp); /* it may not be there */
    if (rc == 0)
        rc = sync_dir(slash != NULL ? dir : ".", err);
    phx_mem_free(temp);
    phx_mem_free(dir);
    return rc;
}

int phx_content_key_read(const char *path, uint8_t key[PHX_CONTENT_KEY_BYTES], struct phx_err *err)
{
    struct phx_buf text = {0};
    struct stat    st;
    int            rc = 0;

    if (sodium_init() < 0)
        return phx_fail(err, PHX_E_INTERNAL, "libsodium does not start");
    if (stat(path, &st) != 0)
        rc = errno == ENOENT ? make_file(path, err)
                             : phx_fail(err, PHX_E_IO, "%s: %s", path, strerror(errno));
    if (rc == 0 && stat(path, &st) == 0 && (st.st_mode & 077) != 0)
        rc = phx_fail(err, PHX_E_STATE, "%s: others may read it (mode %03o); set it to 600", path,
                      (unsigned)(st.st_mode & 0777));
    if (rc == 0)
        rc = phx_buf_read_file(&text, path, 4096, err);
    if (rc == 0) {
        text.data[strcspn(text.data, "\r\n")] = '\0';
        if (phx_hex_decode(key, PHX_CONTENT_KEY_BYTES, text.data, NULL) != 0)
            rc = phx_fail(err, PHX_E_FORMAT, "%s: %d hex digits are needed; bring it back from its backup",
                          path, 2 * PHX_CONTENT_KEY_BYTES);
    }
    if (text.data != NULL)
        sodium_memzero(text.data, text.size);
    phx_buf_fini(&text);
    return rc;
}

/* ---- wrapped keys --------------------------------------------------------------------------------------------- */

struct row {
    uint8_t wrapped[PHX_SEALED_KEY_BYTES];
    size_t  size;
    int64_t generation, destroyed_ns;
    bool    is_there;
};

static int read_row(void *ctx, const struct phx_value *columns, int n_columns)
{
    struct row *r = ctx;

    (void)n_columns;
    r->is_there = true;
    r->generation = columns[1].number;
    r->destroyed_ns = columns[2].number;
    if (columns[0].kind == PHX_VALUE_BLOB) {
        r->size = columns[0].size;
        if (r->size == sizeof(r->wrapped))
            memcpy(r->wrapped, columns[0].data, r->size);
    }
    return 0;
}

static int load_row(struct phx_tx *tx, const char *tenant, const char *period, struct row *out,
                    struct phx_err *err)
{
    const struct phx_value values[] = {phx_value_text(tenant), phx_value_text(period)};

    *out = (struct row){.generation = 1};
    return phx_tx_exec(tx, "SELECT wrapped, generation, destroyed_ns FROM tenant_kek"
                           " WHERE tenant = ? AND period = ?", values, 2, read_row, out, err);
}

static void make_place(const char *tenant, const char *period, int64_t generation, char number[24],
                       struct phx_seal_place *out)
{
    (void)snprintf(number, 24, "%" PRId64, generation);
    *out = (struct phx_seal_place){{"phalanx kek v1", tenant, period, number, NULL}};
}

int phx_kek_find(struct phx_tx *tx, const uint8_t *site_key, const char *tenant, const char *period,
                 struct phx_kek *out, struct phx_err *err)
{
    struct phx_seal_place place;
    struct row            row;
    char                  number[24];
    int                   rc = load_row(tx, tenant, period, &row, err);

    *out = (struct phx_kek){.generation = row.generation, .destroyed_ns = row.destroyed_ns};
    if (rc != 0 || row.size == 0)
        return rc;
    make_place(tenant, period, row.generation, number, &place);
    if (row.size != sizeof(row.wrapped) ||
        !phx_unseal(site_key, &place, row.wrapped, row.size, out->key))
        return phx_fail(err, PHX_E_STATE, "the key of %s for %s does not open: " WRONG_SITE_KEY, tenant,
                        period);
    out->has_key = true;
    return 0;
}

int phx_kek_need(struct phx_tx *tx, const uint8_t *site_key, const char *tenant, const char *period,
                 struct phx_kek *out, struct phx_err *err)
{
    struct phx_seal_place place;
    uint8_t               wrapped[PHX_SEALED_KEY_BYTES];
    char                  number[24];
    struct phx_value      values[4];
    int                   rc = phx_kek_find(tx, site_key, tenant, period, out, err);

    if (rc != 0 || out->has_key)
        return rc;
    phx_id_random(out->key, sizeof(out->key));
    make_place(tenant, period, out->generation, number, &place);
    phx_seal(site_key, &place, out->key, sizeof(out->key), wrapped);
    values[0] = phx_value_text(tenant);
    values[1] = phx_value_text(period);
    values[2] = phx_value_blob(wrapped, sizeof(wrapped));
    values[3] = phx_value_int(out->generation);
    out->has_key = true;
    rc = phx_tx_exec(tx, "INSERT INTO tenant_kek(tenant, period, wrapped, generation, destroyed_ns)"
                         " VALUES(?, ?, ?, ?, 0) ON CONFLICT(tenant, period)"
                         " DO UPDATE SET wrapped = excluded.wrapped", values, 4, NULL, NULL, err);
    if (rc != 0)
        sodium_memzero(out, sizeof(*out));
    return rc;
}

int phx_kek_destroy(struct phx_tx *tx, const char *tenant, const char *period, int64_t at_ns,
                    struct phx_err *err)
{
    const struct phx_value values[] = {phx_value_int(at_ns), phx_value_text(tenant), phx_value_text(period)};
    int rc = phx_tx_exec(tx, "UPDATE tenant_kek SET wrapped = NULL, generation = generation + 1,"
                             " destroyed_ns = ? WHERE tenant = ? AND period = ? AND wrapped IS NOT NULL",
                         values, 3, NULL, NULL, err);

    phx_tx_scrub(tx);
    return rc == 0 ? phx_tx_changes(tx) > 0 : rc;
}

/* ---- the site key and this database ------------------------------------------------------------------------ */

/* A row of no tenant: whoever opens it has the right key. */
int phx_content_key_check(struct phx_tx *tx, const uint8_t site_key[PHX_CONTENT_KEY_BYTES],
                          struct phx_err *err)
{
    struct phx_kek kek;
    int            rc = phx_kek_need(tx, site_key, "", "site", &kek, NULL);

    sodium_memzero(&kek, sizeof(kek));
    return rc == PHX_E_STATE ? phx_fail(err, rc, "%s", WRONG_SITE_KEY)
           : rc != 0         ? phx_fail(err, rc, "the check of keys/content.key cannot be read")
                             : 0;
}

/* ---- names -------------------------------------------------------------------------------------------------- */

int phx_content_pseudonym(struct phx_tx *tx, const uint8_t site_key[PHX_CONTENT_KEY_BYTES],
                          const char *tenant, const char *subject, int64_t at_ns, char hex[65],
                          struct phx_err *err)
{
    uint8_t        digest[PHX_SHA256_BYTES];
    struct phx_kek pepper;
    char           year[8];
    int            rc;

    phx_year_format(at_ns, year);
    rc = phx_kek_need(tx, site_key, tenant, year, &pepper, err);
    if (rc == 0) {
        phx_hmac_sha256(pepper.key, sizeof(pepper.key), subject, strlen(subject), digest);
        phx_hex_encode(hex, 65, digest, sizeof(digest));
    }
    sodium_memzero(&pepper, sizeof(pepper));
    return rc;
}
