/* SPDX-License-Identifier: Apache-2.0
 * models[] and limits{} of a licence. */
#include <stdio.h>
#include <string.h>

#include "daemon/license/terms.h"
#include "rpc/base/json.h"

enum { WHERE_BYTES = 32 };

static const int64_t PEOPLE_MAX = 1000000000, TOKENS_MAX = INT64_C(1) << 53;

int phx_license_read_limits(const json_t *object, const char *where, struct phx_license_limits *out,
                            struct phx_err *err)
{
    static const char *const known[] = {"unit", "seats", "overdraft_pct", "indirect_users", "concurrent", "nodes",
                                        "gpus", "tokens_per_month", NULL};
    const char *unit = "";
    int         rc = phx_json_check_keys(object, where, known, err);

    *out = (struct phx_license_limits){-1, 0, -1, -1, -1, -1, -1};
    if (rc == 0)
        rc = phx_json_get_str(object, where, "unit", 32, &unit, err);
    if (rc == 0 && strcmp(unit, "person-month") != 0)
        rc = phx_fail(err, PHX_E_INVALID, "%s.unit must be \"person-month\"", where);
    if (rc == 0 && json_object_get(object, "seats") == NULL) /* no limit must be said, not forgotten */
        rc = phx_fail(err, PHX_E_INVALID, "%s.seats is missing; null is no limit", where);
    if (rc == 0)
        rc = phx_json_opt_int(object, where, "seats", 0, PEOPLE_MAX, &out->seats, err);
    if (rc == 0)
        rc = phx_json_opt_int(object, where, "overdraft_pct", 0, 100, &out->overdraft_pct, err);
    if (rc == 0)
        rc = phx_json_opt_int(object, where, "indirect_users", 0, PEOPLE_MAX, &out->indirect_users, err);
    if (rc == 0)
        rc = phx_json_opt_int(object, where, "concurrent", 0, PEOPLE_MAX, &out->concurrent, err);
    if (rc == 0)
        rc = phx_json_opt_int(object, where, "nodes", 0, PEOPLE_MAX, &out->nodes, err);
    if (rc == 0)
        rc = phx_json_opt_int(object, where, "gpus", 0, PEOPLE_MAX, &out->gpus, err);
    if (rc == 0)
        rc = phx_json_opt_int(object, where, "tokens_per_month", 0, TOKENS_MAX, &out->tokens_per_month, err);
    return rc;
}

static int read_own_limits(const json_t *object, const char *where, struct phx_license_model *m,
                           struct phx_err *err)
{
    char          below[WHERE_BYTES];
    const json_t *limits = NULL;
    int           rc = phx_json_opt_object(object, where, "limits", &limits, err);

    if (rc != 0 || limits == NULL)
        return rc;
    m->has_limits = true;
    (void)snprintf(below, sizeof(below), "%s.limits", where);
    return phx_license_read_limits(limits, below, &m->limits, err);
}

static int read_model(struct phx_arena *arena, const json_t *object, const char *where,
                      struct phx_license_model *m, struct phx_err *err)
{
    static const char *const known[] = {"manifest_root",   "policy",  "derived_from",
                                        "redistribution",  "limits",  "denied_purposes",
                                        "denied_licensee_classes", NULL};
    int rc = phx_json_check_object(object, where, err);

    if (rc == 0)
        rc = phx_json_check_keys(object, where, known, err);
    if (rc == 0)
        rc = phx_terms_text(arena, object, where, "manifest_root", &m->manifest_root, err);
    if (rc == 0 && strcmp(m->manifest_root, "*") != 0 && !phx_digest_is_valid(m->manifest_root, "sha256:"))
        rc = phx_fail(err, PHX_E_INVALID,
                      "%s.manifest_root must be \"*\" or \"sha256:\" and 64 lower-case hex digits", where);
    if (rc == 0)
        rc = phx_terms_text(arena, object, where, "policy", &m->policy, err);
    if (rc == 0)
        rc = phx_terms_opt_text(arena, object, where, "derived_from", &m->derived_from, err);
    if (rc == 0 && m->derived_from[0] != '\0' && !phx_digest_is_valid(m->derived_from, "sha256:"))
        rc = phx_fail(err, PHX_E_INVALID,
                      "%s.derived_from must be null or \"sha256:\" and 64 lower-case hex digits", where);
    if (rc == 0)
        rc = phx_terms_opt_text(arena, object, where, "redistribution", &m->redistribution, err);
    if (rc == 0)
        rc = phx_terms_list(arena, object, where, "denied_purposes", PHX_LICENSE_PURPOSES_MAX,
                            &m->denied_purposes, &m->n_denied_purposes, err);
    if (rc == 0)
        rc = phx_terms_list(arena, object, where, "denied_licensee_classes", PHX_LICENSE_PURPOSES_MAX,
                            &m->denied_classes, &m->n_denied_classes, err);
    return rc == 0 ? read_own_limits(object, where, m, err) : rc;
}

int phx_license_read_models(struct phx_license *l, const json_t *root, struct phx_err *err)
{
    struct phx_license_model *models;
    const json_t             *array;
    int rc = phx_json_get_array(root, "", "models", PHX_LICENSE_MODELS_MAX, &array, err);
    size_t n = rc == 0 ? json_array_size(array) : 0;

    if (rc == 0 && n == 0)
        rc = phx_fail(err, PHX_E_INVALID, "models is empty; an entry with manifest_root \"*\" is any model");
    if (rc != 0)
        return rc;
    models = phx_arena_calloc(l->arena, n, sizeof(*models));
    for (size_t i = 0; i < n; i++) {
        char where[WHERE_BYTES];

        (void)snprintf(where, sizeof(where), "models[%zu]", i);
        rc = read_model(l->arena, json_array_get(array, i), where, &models[i], err);
        for (size_t j = 0; j < i && rc == 0; j++)
            if (strcmp(models[i].manifest_root, models[j].manifest_root) == 0)
                rc = phx_fail(err, PHX_E_INVALID, "%s.manifest_root is there twice", where);
        if (rc != 0)
            return rc;
    }
    l->terms.models = models;
    l->terms.n_models = (int32_t)n;
    return 0;
}

const struct phx_license_model *phx_license_find_model(const struct phx_license *l, const char *manifest_root)
{
    const struct phx_license_model *any = NULL;

    for (int32_t i = 0; i < l->terms.n_models; i++) {
        const struct phx_license_model *m = &l->terms.models[i];

        if (strcmp(m->manifest_root, "*") == 0)
            any = m;
        else if (strcmp(m->manifest_root, manifest_root) == 0)
            return m;
    }
    return any;
}

const struct phx_license_limits *phx_license_limits(const struct phx_license *l,
                                                    const struct phx_license_model *model)
{
    return model != NULL && model->has_limits ? &model->limits : &l->terms.limits;
}

int phx_license_binds(const struct phx_license *l, const char *cluster_fingerprint, struct phx_err *err)
{
    for (int32_t i = 0; i < l->terms.n_clusters; i++)
        if (strcmp(l->terms.clusters[i], cluster_fingerprint) == 0)
            return 0;
    if (l->terms.n_clusters == 0)
        return 0;
    return phx_fail(err, PHX_E_LICENSE,
                    "the licence is for other clusters; this one is %.80s: have it issued for that",
                    cluster_fingerprint);
}
