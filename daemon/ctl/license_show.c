/* SPDX-License-Identifier: Apache-2.0
 * `phalanx license show`: of a data folder, or of files.  Nothing is shown that was not verified. */
#include <stdio.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/license.h"
#include "rpc/base/clock.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

static json_t *limit_json(int64_t limit)
{
    return limit < 0 ? json_null() : json_integer(limit);
}

static json_t *limits_json(const struct phx_license_limits *l)
{
    return json_pack("{s:o,s:I,s:o,s:o,s:o,s:o,s:o}", "seats", limit_json(l->seats), "overdraft_pct",
                     (json_int_t)l->overdraft_pct, "indirect_users", limit_json(l->indirect_users), "concurrent",
                     limit_json(l->concurrent), "nodes", limit_json(l->nodes), "gpus", limit_json(l->gpus),
                     "tokens_per_month", limit_json(l->tokens_per_month));
}

static json_t *list_json(const char *const *items, int32_t n)
{
    json_t *out = json_array();

    for (int32_t i = 0; i < n; i++)
        json_array_append_new(out, json_string(items[i]));
    return out;
}

static json_t *models_json(const struct phx_license *l)
{
    const struct phx_license_terms *t = phx_license_terms(l);
    json_t                         *out = json_array();

    for (int32_t i = 0; i < t->n_models; i++) {
        const struct phx_license_model *m = &t->models[i];

        json_array_append_new(
            out, json_pack("{s:s,s:s,s:s,s:s,s:o,s:o,s:o}", "manifest_root", m->manifest_root, "policy", m->policy,
                           "derived_from", m->derived_from, "redistribution", m->redistribution,
                           "denied_purposes", list_json(m->denied_purposes, m->n_denied_purposes),
                           "denied_licensee_classes", list_json(m->denied_classes, m->n_denied_classes), "limits",
                           limits_json(phx_license_limits(l, m))));
    }
    return out;
}

static json_t *license_json(const struct phx_license *l, int64_t now_ns)
{
    static const char *const        enforce[] = {"", "observe", "soft", "hard"};
    const struct phx_license_terms *t = phx_license_terms(l);
    char                            from[32], until[32], issued[32];

    phx_clock_format_utc(t->not_before_ns, from);
    phx_clock_format_utc(t->not_after_ns, until);
    phx_clock_format_utc(t->issued_ns, issued);
    return json_pack("{s:s,s:I,s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:i,s:i,s:i,s:s,s:o,s:o,s:o,s:o,s:i,s:I,s:s,s:s}",
                     "licence_id", t->license_id, "serial", (json_int_t)t->serial, "state",
                     phx_license_state_name(phx_license_state(l, now_ns)), "licensee", t->legal_name, "licensee_id",
                     t->licensee_id, "class", t->class_name, "not_before", from, "not_after", until, "issued_at",
                     issued, "warn_days", (int)t->warn_days, "grace_days", (int)t->grace_days, "continuity_days",
                     (int)t->continuity_days, "enforce", enforce[t->enforce], "limits", limits_json(&t->limits),
                     "models", models_json(l), "clusters", list_json(t->clusters, t->n_clusters), "exempt_tenants",
                     list_json(t->exempt_tenants, t->n_exempt_tenants), "exempt_cap_pct", (int)t->exempt_cap_pct,
                     "key_set_min_version", (json_int_t)t->key_set_min_version, "issuer_kid", t->issuer_kid,
                     "digest", t->digest);
}

static void print_limit(const char *name, int64_t limit)
{
    if (limit < 0)
        printf("%-17s no limit\n", name);
    else
        printf("%-17s %lld\n", name, (long long)limit);
}

static void print_license(const struct phx_license *l, int64_t now_ns)
{
    const struct phx_license_terms *t = phx_license_terms(l);
    char                            text[256];

    phx_license_format(l, now_ns, text, sizeof(text));
    printf("%s\n", text);
    printf("%-17s %s (%s)\n", "licensee", t->legal_name, t->licensee_id);
    print_limit("seats", t->limits.seats);
    printf("%-17s %lld %%\n", "overdraft", (long long)t->limits.overdraft_pct);
    print_limit("indirect users", t->limits.indirect_users);
    print_limit("concurrent", t->limits.concurrent);
    print_limit("nodes", t->limits.nodes);
    print_limit("gpus", t->limits.gpus);
    print_limit("tokens per month", t->limits.tokens_per_month);
    printf("%-17s warn %d, grace %d, continuity %d\n", "days", t->warn_days, t->grace_days, t->continuity_days);
    for (int32_t i = 0; i < t->n_models; i++)
        printf("%-17s %s, terms %s\n", "model", t->models[i].manifest_root, t->models[i].policy);
    if (t->n_clusters == 0)
        printf("%-17s any\n", "cluster");
    for (int32_t i = 0; i < t->n_clusters; i++)
        printf("%-17s %s\n", "cluster", t->clusters[i]);
    printf("%-17s %s\n", "issuer", t->issuer_kid);
}

/* ---- of a data folder ------------------------------------------------------------------------------------------- */

static int show_data(const struct phx_ctl_license *a, struct phx_err *err)
{
    struct phx_ctl_site       site;
    const struct phx_license *l;
    const char               *problem;
    int64_t                   version;
    int                       rc = phx_ctl_site_open(a->data_dir, true, &site, err);

    if (rc != 0)
        return rc;
    l = phx_license_now(site.license);
    problem = phx_license_problem(site.license);
    version = phx_license_key_set_version(site.license);
    if (a->is_json)
        phx_ctl_print_json(json_pack("{s:s,s:o,s:I,s:s}", "state", phx_license_state_name(phx_license_state(l, site.now_ns)),
                             "licence", l != NULL ? license_json(l, site.now_ns) : json_null(), "key_set_version",
                             (json_int_t)version, "problem", problem));
    else {
        if (l != NULL)
            print_license(l, site.now_ns);
        else
            printf("no licence: %s\n", phx_license_is_observing(site.license, site.now_ns)
                                           ? "use is only observed, for 72 hours"
                                           : "new users are refused");
        printf("%-17s version %lld\n", "key set", (long long)version);
        if (problem[0] != '\0')
            printf("%-17s %s\n", "problem", problem);
    }
    phx_ctl_site_close(&site);
    return 0;
}

/* ---- of files ----------------------------------------------------------------------------------------------------- */

/* The type says which of the two it is; whether that is true the signature says. */
static int read_file(const char *path, struct phx_buf *text, bool *is_key_set, struct phx_err *err)
{
    json_t     *root = NULL;
    const char *type = "";
    int         rc = phx_buf_read_file(text, path, PHX_LICENSE_MAX_BYTES, err);

    if (rc == 0)
        rc = phx_json_parse(&root, text->data, text->size, PHX_LICENSE_MAX_BYTES, 0, path, err);
    if (rc == 0)
        rc = phx_json_get_str(root, "", "payloadType", 128, &type, err);
    *is_key_set = rc == 0 && strcmp(type, PHX_KEY_SET_PAYLOAD_TYPE) == 0;
    json_decref(root);
    return rc;
}

static int show_license(const struct phx_ctl_license *a, const struct phx_buf *text, const struct phx_key_set *keys,
                        struct phx_err *err)
{
    struct phx_license *l = NULL;
    int64_t             now_ns = phx_clock_wall_ns();
    int                 rc = 0;

    if (keys->version == 0)
        return phx_fail(err, PHX_E_LICENSE, "a licence is verified with its key set: give that file too");
    rc = phx_license_parse(text->data, text->size, keys, &l, err);
    if (rc == 0 && a->is_json)
        phx_ctl_print_json(license_json(l, now_ns));
    else if (rc == 0)
        print_license(l, now_ns);
    phx_license_free(l);
    return rc;
}

static void show_key_set(const struct phx_ctl_license *a, const struct phx_key_set *keys)
{
    if (a->is_json)
        phx_ctl_print_json(json_pack("{s:I,s:i,s:i}", "key_set_version", (json_int_t)keys->version, "issuers",
                             (int)keys->n_issuers, "revoked", (int)keys->n_revoked));
    else
        printf("%-17s version %lld, %d issuers, %d revoked serials\n", "key set", (long long)keys->version,
               keys->n_issuers, keys->n_revoked);
}

static int show_file(const struct phx_ctl_license *a, const char *path, bool is_key_sets_turn,
                     const struct phx_license_roots *roots, struct phx_key_set *keys, struct phx_err *err)
{
    struct phx_buf text = {0};
    bool           is_key_set;
    int            rc = read_file(path, &text, &is_key_set, err);

    if (rc == 0 && is_key_set == is_key_sets_turn) {
        if (!is_key_set)
            rc = show_license(a, &text, keys, err);
        else if ((rc = phx_key_set_parse(text.data, text.size, roots, keys, err)) == 0)
            show_key_set(a, keys);
        if (rc != 0)
            phx_err_prefix(err, "%s: ", path);
    }
    phx_buf_fini(&text);
    return rc;
}

static int show_files(const struct phx_ctl_license *a, struct phx_err *err)
{
    struct phx_key_set      *keys = phx_mem_calloc(1, sizeof(*keys));
    struct phx_license_roots roots;
    int                      rc = 0;

    phx_license_roots_builtin(&roots);
    if (a->roots != NULL)
        rc = phx_license_roots_read(a->roots, &roots, err);
    for (int turn = 0; turn < 2; turn++) /* key sets first, they verify the licences */
        for (int i = 0; i < a->n_files && rc == 0; i++)
            rc = show_file(a, a->files[i], turn == 0, &roots, keys, err);
    phx_mem_free(keys);
    return rc;
}

int phx_ctl_license_show(const struct phx_ctl_license *a, struct phx_err *err)
{
    return a->data_dir != NULL ? show_data(a, err) : show_files(a, err);
}
