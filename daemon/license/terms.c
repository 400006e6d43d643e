/* SPDX-License-Identifier: Apache-2.0
 * The payload of a licence.  A field that this build does not know is refused at every level: a rule that it
 * cannot enforce must not pass unseen. */
#include "daemon/license/terms.h"

#include <sodium.h>
#include <string.h>

#include "rpc/base/hash.h"
#include "rpc/base/json.h"

enum { TEXT_MAX = 512, SALT_TEXT_MAX = 64 };

static const int64_t DAYS_MAX = 3650, SERIAL_MAX = INT64_C(1) << 53;

bool phx_digest_is_valid(const char *text, const char *prefix)
{
    size_t n = strlen(prefix);

    return strncmp(text, prefix, n) == 0 && strlen(text + n) == 64 &&
           strspn(text + n, "0123456789abcdef") == 64;
}

/* ---- readers ----------------------------------------------------------------------------------------------- */

static int check_text(const char *text, const char *where, const char *key, struct phx_err *err)
{
    for (const char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return phx_fail(err, PHX_E_INVALID, "%s%s%s: control characters are not allowed", where,
                            *where ? "." : "", key);
    if (text[0] == '\0')
        return phx_fail(err, PHX_E_INVALID, "%s%s%s is empty", where, *where ? "." : "", key);
    return 0;
}

int phx_terms_opt_text(struct phx_arena *arena, const json_t *object, const char *where, const char *key,
                       const char **out, struct phx_err *err)
{
    const char *text = NULL;
    int         rc = phx_json_opt_str(object, where, key, TEXT_MAX, &text, err);

    *out = "";
    if (rc != 0 || text == NULL)
        return rc;
    rc = check_text(text, where, key, err);
    if (rc == 0)
        *out = phx_arena_strdup(arena, text);
    return rc;
}

int phx_terms_text(struct phx_arena *arena, const json_t *object, const char *where, const char *key,
                   const char **out, struct phx_err *err)
{
    const char *text;
    int         rc = phx_json_get_str(object, where, key, TEXT_MAX, &text, err);

    return rc != 0 ? rc : phx_terms_opt_text(arena, object, where, key, out, err);
}

int phx_terms_list(struct phx_arena *arena, const json_t *object, const char *where, const char *key,
                   size_t max_items, const char *const **out, int32_t *n, struct phx_err *err)
{
    const json_t *array = NULL;
    const char  **items;
    int           rc = phx_json_opt_array(object, where, key, max_items, &array, err);

    *n = 0;
    if (rc != 0 || array == NULL)
        return rc;
    items = phx_arena_calloc(arena, json_array_size(array) + 1, sizeof(*items));
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *item = json_array_get(array, i);

        if (!json_is_string(item) || json_string_length(item) > TEXT_MAX)
            return phx_fail(err, PHX_E_INVALID, "%s%s%s[%zu] must be a text of at most %d bytes", where,
                            *where ? "." : "", key, i, TEXT_MAX);
        rc = check_text(json_string_value(item), where, key, err);
        if (rc != 0)
            return rc;
        for (size_t j = 0; j < i; j++)
            if (strcmp(items[j], json_string_value(item)) == 0)
                return phx_fail(err, PHX_E_INVALID, "%s%s%s[%zu] is there twice", where,
                                *where ? "." : "", key, i);
        items[i] = phx_arena_strdup(arena, json_string_value(item));
    }
    *out = items;
    *n = (int32_t)json_array_size(array);
    return 0;
}

int phx_terms_time(const json_t *object, const char *where, const char *key, int64_t *out,
                   struct phx_err *err)
{
    const char *text;
    int         rc = phx_json_get_str(object, where, key, TEXT_MAX, &text, err);

    if (rc == 0 && !phx_date_parse(text, out))
        rc = phx_fail(err, PHX_E_INVALID,
                      "%s%s%s must be a time in UTC like \"2026-10-01T00:00:00Z\" (1970 to 2199)", where,
                      *where ? "." : "", key);
    return rc;
}

static int read_days(const json_t *root, const char *key, int32_t *out, struct phx_err *err)
{
    int64_t days = 0;
    int     rc = phx_json_get_int(root, "", key, 0, DAYS_MAX, &days, err);

    *out = (int32_t)days;
    return rc;
}

static int read_percent(const json_t *root, const char *key, int32_t *out, struct phx_err *err)
{
    int64_t percent = 0;
    int     rc = phx_json_opt_int(root, "", key, 0, 100, &percent, err);

    *out = (int32_t)percent;
    return rc;
}

/* ---- parts of the payload ------------------------------------------------------------------------------------ */

static bool is_class(const char *name)
{
    static const char *const names[] = {"commercial", "research",   "education",
                                        "government", "evaluation", "small-business"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static int read_licensee(struct phx_license *l, const json_t *root, struct phx_err *err)
{
    static const char *const  known[] = {"legal_name", "id", "affiliates", "class", NULL};
    struct phx_license_terms *t = &l->terms;
    const json_t             *o;
    int                       rc = phx_json_get_object(root, "", "licensee", &o, err);

    if (rc == 0)
        rc = phx_json_check_keys(o, "licensee", known, err);
    if (rc == 0)
        rc = phx_terms_text(l->arena, o, "licensee", "legal_name", &t->legal_name, err);
    if (rc == 0)
        rc = phx_terms_text(l->arena, o, "licensee", "id", &t->licensee_id, err);
    if (rc == 0)
        rc = phx_terms_text(l->arena, o, "licensee", "class", &t->class_name, err);
    if (rc == 0)
        rc = phx_terms_list(l->arena, o, "licensee", "affiliates", PHX_LICENSE_AFFILIATES_MAX, &t->affiliates,
                            &t->n_affiliates, err);
    if (rc == 0 && !is_class(t->class_name))
        rc = phx_fail(err, PHX_E_INVALID, "licensee.class must be commercial, research, education, "
                                          "small-business, government or evaluation");
    return rc;
}

static int check_attestation(const struct phx_license_terms *t, struct phx_err *err)
{
    if (!phx_digest_is_valid(t->attestation_sha256, ""))
        return phx_fail(err, PHX_E_INVALID, "attestation.sha256 must be 64 lower-case hex digits");
    if (t->attested_on[0] != '\0' && !phx_date_parse_day(t->attested_on))
        return phx_fail(err, PHX_E_INVALID, "attestation.on must be a day like \"2026-10-01\"");
    return 0;
}

static int read_attestation(struct phx_license *l, const json_t *root, struct phx_err *err)
{
    static const char *const  known[] = {"sha256", "revenue_band", "signed_by", "on", NULL};
    struct phx_license_terms *t = &l->terms;
    const json_t             *o = NULL;
    int                       rc = phx_json_opt_object(root, "", "attestation", &o, err);

    t->attestation_sha256 = t->revenue_band = t->attested_by = t->attested_on = "";
    if (rc == 0 && o == NULL && strcmp(t->class_name, "small-business") == 0)
        rc = phx_fail(err, PHX_E_INVALID,
                      "attestation is missing: class small-business needs a signed revenue_band and sha256");
    if (rc != 0 || o == NULL)
        return rc;
    rc = phx_json_check_keys(o, "attestation", known, err);
    if (rc == 0)
        rc = phx_terms_text(l->arena, o, "attestation", "sha256", &t->attestation_sha256, err);
    if (rc == 0)
        rc = phx_terms_text(l->arena, o, "attestation", "revenue_band", &t->revenue_band, err);
    if (rc == 0)
        rc = phx_terms_opt_text(l->arena, o, "attestation", "signed_by", &t->attested_by, err);
    if (rc == 0)
        rc = phx_terms_opt_text(l->arena, o, "attestation", "on", &t->attested_on, err);
    return rc == 0 ? check_attestation(t, err) : rc;
}

static int read_reporting(struct phx_license *l, const json_t *root, struct phx_err *err)
{
    static const char *const  known[] = {"mode", "every_days", "retain_days", NULL};
    struct phx_license_terms *t = &l->terms;
    const json_t             *o = NULL;
    int64_t                   every = 0, retain = 0;
    int                       rc = phx_json_opt_object(root, "", "reporting", &o, err);

    t->reporting_mode = "none";
    if (rc != 0 || o == NULL)
        return rc;
    rc = phx_json_check_keys(o, "reporting", known, err);
    if (rc == 0)
        rc = phx_terms_text(l->arena, o, "reporting", "mode", &t->reporting_mode, err);
    if (rc == 0 && strcmp(t->reporting_mode, "offline-bundle") != 0 && strcmp(t->reporting_mode, "none") != 0)
        rc = phx_fail(err, PHX_E_INVALID, "reporting.mode must be offline-bundle or none");
    if (rc == 0)
        rc = phx_json_opt_int(o, "reporting", "every_days", 1, DAYS_MAX, &every, err);
    if (rc == 0)
        rc = phx_json_opt_int(o, "reporting", "retain_days", 1, DAYS_MAX, &retain, err);
    t->reporting_days = (int32_t)every;
    t->retain_days = (int32_t)retain;
    return rc;
}

static int read_serials(struct phx_license *l, const json_t *root, struct phx_err *err)
{
    struct phx_license_terms *t = &l->terms;
    int rc = phx_terms_text(l->arena, root, "", "licence_id", &t->license_id, err);

    if (rc == 0)
        rc = phx_json_get_int(root, "", "serial", 1, SERIAL_MAX, &t->serial, err);
    if (rc == 0)
        rc = phx_json_opt_int(root, "", "supersedes", 0, SERIAL_MAX, &t->supersedes, err);
    if (rc == 0 && t->supersedes >= t->serial)
        rc = phx_fail(err, PHX_E_INVALID, "supersedes must be below serial");
    if (rc == 0)
        rc = phx_json_get_int(root, "", "key_set_min_version", 1, PHX_LICENSE_KEY_SETS_MAX,
                              &t->key_set_min_version, err);
    if (rc == 0)
        rc = phx_terms_text(l->arena, root, "", "issuer_kid", &t->issuer_kid, err);
    if (rc == 0 && !phx_digest_is_valid(t->issuer_kid, "ed25519:"))
        rc = phx_fail(err, PHX_E_INVALID, "issuer_kid must be \"ed25519:\" and 64 lower-case hex digits");
    return rc;
}

static int read_seat_salt(struct phx_license *l, const json_t *root, struct phx_err *err)
{
    const char *text;
    size_t      size = 0;
    int         rc = phx_json_get_str(root, "", "seat_salt", SALT_TEXT_MAX, &text, err);

    if (rc == 0 && (sodium_base642bin(l->terms.seat_salt, sizeof(l->terms.seat_salt), text, strlen(text), NULL,
                                      &size, NULL, sodium_base64_VARIANT_ORIGINAL) != 0 ||
                    size != sizeof(l->terms.seat_salt)))
        rc = phx_fail(err, PHX_E_INVALID, "seat_salt must be 32 bytes in base64");
    return rc;
}

static int read_times(struct phx_license *l, const json_t *root, struct phx_err *err)
{
    struct phx_license_terms *t = &l->terms;
    int                       rc = phx_terms_time(root, "", "not_before", &t->not_before_ns, err);

    if (rc == 0)
        rc = phx_terms_time(root, "", "not_after", &t->not_after_ns, err);
    if (rc == 0)
        rc = phx_terms_time(root, "", "issued_at", &t->issued_ns, err);
    if (rc == 0 && t->not_after_ns <= t->not_before_ns)
        rc = phx_fail(err, PHX_E_INVALID, "not_after must be later than not_before");
    if (rc == 0 && t->issued_ns >= t->not_after_ns)
        rc = phx_fail(err, PHX_E_INVALID, "issued_at must be before not_after");
    if (rc == 0)
        rc = read_days(root, "warn_days", &t->warn_days, err);
    if (rc == 0)
        rc = read_days(root, "grace_days", &t->grace_days, err);
    if (rc == 0)
        rc = read_days(root, "continuity_days", &t->continuity_days, err);
    return rc;
}

static int check_clusters(const struct phx_license_terms *t, struct phx_err *err)
{
    for (int32_t i = 0; i < t->n_clusters; i++)
        if (!phx_digest_is_valid(t->clusters[i], ""))
            return phx_fail(err, PHX_E_INVALID, "clusters[%d] must be a fingerprint of 64 lower-case hex digits",
                            i);
    return 0;
}

static int read_enforcement(struct phx_license *l, const json_t *root, struct phx_err *err)
{
    struct phx_license_terms *t = &l->terms;
    const char               *name = "";
    int                       rc = phx_terms_text(l->arena, root, "", "enforce", &name, err);

    if (rc != 0)
        return rc;
    t->enforce = strcmp(name, "observe") == 0 ? PHX_ENFORCE_OBSERVE
                 : strcmp(name, "soft") == 0  ? PHX_ENFORCE_SOFT
                                              : PHX_ENFORCE_HARD;
    if (t->enforce == PHX_ENFORCE_HARD && strcmp(name, "hard") != 0)
        return phx_fail(err, PHX_E_INVALID, "enforce must be observe, soft or hard");
    rc = phx_terms_list(l->arena, root, "", "clusters", PHX_LICENSE_CLUSTERS_MAX, &t->clusters, &t->n_clusters,
                        err);
    if (rc == 0)
        rc = check_clusters(t, err);
    if (rc == 0)
        rc = phx_terms_list(l->arena, root, "", "exempt_tenants", PHX_LICENSE_TENANTS_MAX, &t->exempt_tenants,
                            &t->n_exempt_tenants, err);
    if (rc == 0)
        rc = read_percent(root, "exempt_cap_pct", &t->exempt_cap_pct, err);
    return rc;
}

static int check_top(const json_t *root, struct phx_err *err)
{
    static const char *const known[] = {
        "schema",         "licence_id",     "serial",    "supersedes",          "licensee",   "attestation",
        "models",         "limits",         "seat_salt", "clusters",            "not_before", "not_after",
        "warn_days",      "grace_days",     "enforce",   "continuity_days",     "reporting",  "exempt_tenants",
        "exempt_cap_pct", "key_set_min_version", "issuer_kid", "issued_at",     NULL};
    const char *schema;
    int         rc = phx_json_check_object(root, "", err);

    if (rc == 0)
        rc = phx_json_get_str(root, "", "schema", TEXT_MAX, &schema, err);
    if (rc == 0 && strcmp(schema, "licence/1") != 0)
        rc = phx_fail(err, PHX_E_UNSUPPORTED, "schema must be \"licence/1\"; a newer phalanx may know it");
    if (rc == 0)
        rc = phx_json_check_keys(root, "", known, err);
    return rc;
}

static int read_payload(struct phx_license *l, const json_t *root, struct phx_err *err)
{
    const json_t *limits;
    int           rc = check_top(root, err);

    if (rc == 0)
        rc = read_serials(l, root, err);
    if (rc == 0)
        rc = read_licensee(l, root, err);
    if (rc == 0)
        rc = read_attestation(l, root, err);
    if (rc == 0)
        rc = phx_license_read_models(l, root, err);
    if (rc == 0)
        rc = phx_json_get_object(root, "", "limits", &limits, err);
    if (rc == 0)
        rc = phx_license_read_limits(limits, "limits", &l->terms.limits, err);
    if (rc == 0)
        rc = read_seat_salt(l, root, err);
    if (rc == 0)
        rc = read_times(l, root, err);
    if (rc == 0)
        rc = read_enforcement(l, root, err);
    if (rc == 0)
        rc = read_reporting(l, root, err);
    return rc;
}

int phx_license_read(const void *payload, size_t size, struct phx_license **out, struct phx_err *err)
{
    struct phx_license *l = phx_mem_calloc(1, sizeof(*l));
    json_t             *root = NULL;
    int rc = phx_json_parse(&root, payload, size, PHX_LICENSE_MAX_BYTES, PHX_LICENSE_DEPTH_MAX,
                            "the licence's payload", err);

    *out = NULL;
    l->arena = phx_arena_create();
    if (rc == 0)
        rc = read_payload(l, root, err);
    json_decref(root);
    if (rc != 0) {
        phx_license_free(l);
        return rc;
    }
    phx_sha256_hex(payload, size, l->terms.digest);
    *out = l;
    return 0;
}

void phx_license_free(struct phx_license *l)
{
    if (l == NULL)
        return;
    phx_secret_wipe(l->terms.seat_salt, sizeof(l->terms.seat_salt));
    phx_arena_destroy(l->arena);
    phx_mem_free(l);
}

const struct phx_license_terms *phx_license_terms(const struct phx_license *l)
{
    return &l->terms;
}
