/* SPDX-License-Identifier: Apache-2.0
 * `phalanx license install|seats`, and the evaluation licence of a first start. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/certs/certs.h"
#include "daemon/config/config.h"
#include "daemon/ctl/ctl.h"
#include "daemon/ctl/license.h"
#include "daemon/ledger/ledger.h"
#include "daemon/seat/seat.h"
#include "rpc/base/hash.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

/* ---- the site ------------------------------------------------------------------------------------------------- */

/* The names that the daemon's configuration gives, or the defaults. */
static int open_license(struct phx_ctl_site *site, const char *data_dir, bool is_read_only, struct phx_err *err)
{
    char              *config = phx_ctl_path(data_dir, "phalanxd.yaml");
    char              *file = phx_ctl_path(data_dir, "license.json");
    char              *key_set = phx_ctl_path(data_dir, "keyset.json");
    char               fingerprint[PHX_SHA256_HEX];
    struct phx_config *c = NULL;
    int                rc = phx_certs_fingerprint(data_dir, fingerprint, err);

    if (rc == 0 && access(config, F_OK) == 0)
        rc = phx_config_load(config, &c, err);
    if (rc == 0) {
        struct phx_license_source source = {file, key_set, "", fingerprint, site->now_ns, is_read_only};

        if (c != NULL && c->license_file[0] != '\0')
            source.file = c->license_file;
        if (c != NULL && c->license_key_set[0] != '\0')
            source.key_set_file = c->license_key_set;
        if (c != NULL)
            source.roots_file = c->license_roots;
        rc = phx_license_open(site->store, &source, &site->license, err);
    }
    phx_config_destroy(c);
    phx_mem_free(key_set);
    phx_mem_free(file);
    phx_mem_free(config);
    return rc;
}

int phx_ctl_site_open(const char *data_dir, bool is_read_only, struct phx_ctl_site *out, struct phx_err *err)
{
    int rc;

    memset(out, 0, sizeof(*out));
    rc = phx_ctl_store_open(data_dir, &out->store, &out->now_ns, err);
    if (rc == 0)
        rc = open_license(out, data_dir, is_read_only, err);
    if (rc != 0)
        phx_ctl_site_close(out);
    return rc;
}

void phx_ctl_site_close(struct phx_ctl_site *site)
{
    phx_license_close(site->license);
    phx_store_close(site->store);
    memset(site, 0, sizeof(*site));
}

/* ---- install ----------------------------------------------------------------------------------------------------- */

static void print_install(const struct phx_ctl_license *a, const struct phx_license_preview *p)
{
    const char *done = a->is_dry_run ? "would install" : "installed";

    if (p->is_same)
        done = a->is_dry_run ? "would change nothing" : "was installed already";
    if (a->is_json) {
        json_t *out = json_pack("{s:b,s:b,s:b,s:I,s:I,s:s,s:s}", "dry_run", (int)a->is_dry_run, "same",
                                (int)p->is_same, "new_seat_salt", (int)p->is_new_salt, "serial", (json_int_t)p->serial, "key_set_version",
                                (json_int_t)p->key_set_version, "state", phx_license_state_name(p->state),
                                "licence", p->text);

        phx_ctl_print_json(out);
        return;
    }
    printf("%s: %s; key set version %lld\n", done, p->text, (long long)p->key_set_version);
    if (p->is_new_salt)
        printf("attention: its seat_salt is another one than before: whoever has a seat in this month takes a\n"
               "second one.  Ask the licensor for one that was issued with --renews, or wait for the month's end.\n");
    if (!a->is_dry_run && !p->is_same)
        printf("a running phalanxd takes it over at its next start\n");
}

static int install(const struct phx_ctl_license *a, const struct phx_buf *license, const struct phx_buf *key_set,
                   struct phx_err *err)
{
    struct phx_license_preview preview;
    struct phx_ctl_site        site;
    char                      *by;
    int                        rc = phx_ctl_site_open(a->data_dir, true, &site, err);

    if (rc != 0)
        return rc;
    by = a->by != NULL ? phx_mem_strdup(a->by) : phx_ctl_login();
    rc = phx_license_preview(site.license, license->data, license->size, key_set->data, key_set->size, site.now_ns,
                             &preview, err);
    if (rc == 0 && !a->is_dry_run)
        rc = phx_license_install_run(site.license, license->data, license->size, key_set->data, key_set->size,
                                     by, site.now_ns, err);
    if (rc == 0)
        print_install(a, &preview);
    phx_mem_free(by);
    phx_ctl_site_close(&site);
    return rc;
}

int phx_ctl_license_install(const struct phx_ctl_license *a, struct phx_err *err)
{
    struct phx_buf license = {0}, key_set = {0};
    int            rc = phx_buf_read_file(&license, a->files[0], PHX_LICENSE_MAX_BYTES, err);

    if (rc == 0 && a->key_set != NULL)
        rc = phx_buf_read_file(&key_set, a->key_set, PHX_LICENSE_MAX_BYTES, err);
    if (rc == 0)
        rc = install(a, &license, &key_set, err);
    phx_buf_fini(&license);
    phx_buf_fini(&key_set);
    return rc;
}

/* ---- seats -------------------------------------------------------------------------------------------------------- */

struct count {
    char                   period[8];
    struct phx_seat_counts n;
};

static int count_seats(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct count *c = ctx;

    return phx_seat_count(tx, c->period, &c->n, err);
}

static json_t *limit_json(int64_t limit)
{
    return limit < 0 || limit == INT64_MAX ? json_null() : json_integer(limit);
}

static void print_limit(const char *name, int64_t used, int64_t limit)
{
    if (limit < 0 || limit == INT64_MAX)
        printf("%-10s %10lld of no limit\n", name, (long long)used);
    else
        printf("%-10s %10lld of %lld\n", name, (long long)used, (long long)limit);
}

static void print_seats(const struct phx_ctl_license *a, const struct phx_ctl_site *site, const struct count *c)
{
    static const struct phx_license_limits none = {-1, 0, -1, -1, -1, -1, -1};
    const struct phx_license        *l = phx_license_now(site->license);
    const struct phx_license_limits *limits = l != NULL ? &phx_license_terms(l)->limits : &none;
    int64_t                          cap = l != NULL ? phx_license_exempt_cap(l) : 0;
    int64_t overdraft = limits->seats < 0 ? -1 : limits->seats * limits->overdraft_pct / 100;
    json_t *out;

    if (!a->is_json) {
        printf("period     %10s\n", c->period);
        print_limit("people", c->n.people, limits->seats);
        print_limit("overdraft", c->n.overdraft, overdraft);
        print_limit("indirect", c->n.indirect, limits->indirect_users);
        print_limit("exempt", c->n.exempt, cap);
        return;
    }
    out = json_pack("{s:s,s:I,s:I,s:I,s:I,s:o,s:o,s:o,s:o,s:s}", "period", c->period, "people",
                    (json_int_t)c->n.people, "overdraft", (json_int_t)c->n.overdraft, "indirect",
                    (json_int_t)c->n.indirect, "exempt", (json_int_t)c->n.exempt, "seats",
                    limit_json(limits->seats), "overdraft_seats", limit_json(overdraft), "indirect_users",
                    limit_json(limits->indirect_users), "exempt_cap", limit_json(cap), "state",
                    phx_license_state_name(phx_license_state(l, site->now_ns)));
    phx_ctl_print_json(out);
}

int phx_ctl_license_seats(const struct phx_ctl_license *a, struct phx_err *err)
{
    struct phx_ctl_site site;
    struct count        c = {0};
    int64_t             from_ns, to_ns;
    int                 rc = phx_ctl_site_open(a->data_dir, true, &site, err);

    if (rc != 0)
        return rc;
    if (a->period == NULL)
        phx_period_format(site.now_ns, c.period);
    else if ((rc = phx_period_parse(a->period, &from_ns, &to_ns, err)) == 0)
        (void)snprintf(c.period, sizeof(c.period), "%.7s", a->period);
    if (rc == 0)
        rc = phx_store_run(site.store, count_seats, &c, err);
    if (rc == 0)
        print_seats(a, &site, &c);
    phx_ctl_site_close(&site);
    return rc;
}

/* ---- first start ---------------------------------------------------------------------------------------------------- */

static int copy_file(const char *dir, const char *name, const char *data_dir, const char *as, struct phx_err *err)
{
    struct phx_buf text;
    char          *from = phx_mem_printf("%s/%s", dir, name), *to = phx_ctl_path(data_dir, as);
    int            rc = phx_buf_read_file(&text, from, PHX_LICENSE_MAX_BYTES, err);

    if (rc == 0) {
        rc = phx_file_write(to, text.data, text.size, 0600, err);
        phx_buf_fini(&text);
    }
    phx_mem_free(from);
    phx_mem_free(to);
    return rc;
}

static int find_bundle(char dir[PATH_MAX], struct phx_err *err)
{
    static const char below[] = "/../share/phalanx/license";
    ssize_t           n = readlink("/proc/self/exe", dir, PATH_MAX - 1);
    char             *slash;

    if (n <= 0)
        return phx_fail(err, PHX_E_IO, "cannot find the folder of this program: %s", strerror(errno));
    dir[n] = '\0';
    slash = strrchr(dir, '/');
    if ((size_t)(slash - dir) + sizeof(below) > PATH_MAX)
        return phx_fail(err, PHX_E_TOOBIG, "the path of this program is too long");
    memcpy(slash, below, sizeof(below));
    return 0;
}

int phx_ctl_license_ensure(const char *data_dir, struct phx_err *err)
{
    char  dir[PATH_MAX];
    char *file = phx_ctl_path(data_dir, "license.json");
    int   rc = 0;

    if (access(file, F_OK) != 0) {
        rc = find_bundle(dir, err);
        if (rc == 0 && access(dir, F_OK) == 0) { /* a licensor's own build may bundle none */
            rc = copy_file(dir, "evaluation-keyset.json", data_dir, "keyset.json", err);
            if (rc == 0)
                rc = copy_file(dir, "evaluation.json", data_dir, "license.json", err);
        }
    }
    phx_mem_free(file);
    return rc;
}
