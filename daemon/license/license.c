/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/license/license.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/license/envelope.h"
#include "rpc/base/buf.h"
#include "rpc/base/clock.h"
#include "rpc/base/hash.h"
#include "rpc/base/id.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

enum { FILE_MAX_BYTES = 64 << 10, DEPTH_MAX = 8, ISSUERS_MAX = 16, DAYS_MAX = 3650, EVALUATION_DAYS = 30 };

static const int64_t DAY_NS = (int64_t)86400 * 1000000000;

struct phx_license {
    struct phx_license_facts facts;
};

const char *phx_license_state_name(enum phx_license_state state)
{
    static const char *const names[] = {"none",  "early",      "valid",  "expiring",
                                        "grace", "continuity", "expired"};

    return names[state];
}

static int get_text(const json_t *root, const char *key, char *out, size_t size, struct phx_err *err)
{
    const char *text;
    int         rc = phx_json_get_str(root, "", key, size - 1, &text, err);

    if (rc == 0)
        (void)snprintf(out, size, "%s", text); /* fits: the length was checked */
    return rc;
}

static int get_days(const json_t *root, const char *key, int32_t *out, struct phx_err *err)
{
    int64_t days = 0;
    int     rc = phx_json_opt_int(root, "", key, 0, DAYS_MAX, &days, err);

    *out = (int32_t)days;
    return rc;
}

static int read_payload(const json_t *root, struct phx_license_facts *f, struct phx_err *err)
{
    static const char *const keys[] = {"id", "customer", "class", "serial", "not_before", "not_after",
                                       "warn_days", "grace_days", "continuity_days",
                                       "max_concurrent", NULL};
    int64_t not_before = 0, not_after = 0, concurrent = 0;
    int     rc = phx_json_check_object(root, "", err);

    if (rc == 0) /* a field this build does not enforce must not pass unseen */
        rc = phx_json_check_keys(root, "", keys, err);
    if (rc == 0)
        rc = get_text(root, "id", f->id, sizeof(f->id), err);
    if (rc == 0)
        rc = get_text(root, "customer", f->customer, sizeof(f->customer), err);
    if (rc == 0)
        rc = get_text(root, "class", f->class_name, sizeof(f->class_name), err);
    if (rc == 0)
        rc = phx_json_get_int(root, "", "serial", 1, INT64_MAX, &f->serial, err);
    if (rc == 0)
        rc = phx_json_get_int(root, "", "not_before", 0, INT32_MAX * (int64_t)4, &not_before, err);
    if (rc == 0)
        rc = phx_json_get_int(root, "", "not_after", not_before, INT32_MAX * (int64_t)4, &not_after,
                              err);
    if (rc == 0)
        rc = phx_json_opt_int(root, "", "max_concurrent", 0, INT32_MAX, &concurrent, err);
    if (rc == 0)
        rc = get_days(root, "warn_days", &f->warn_days, err);
    if (rc == 0)
        rc = get_days(root, "grace_days", &f->grace_days, err);
    if (rc == 0)
        rc = get_days(root, "continuity_days", &f->continuity_days, err);
    f->not_before_ns = not_before * 1000000000;
    f->not_after_ns = not_after * 1000000000;
    f->max_concurrent = (int32_t)concurrent;
    return rc;
}

int phx_license_parse(const void *data, size_t size, const uint8_t (*issuers)[32], size_t n_issuers,
                      struct phx_license **out, struct phx_err *err)
{
    struct phx_license *l = phx_mem_calloc(1, sizeof(*l));
    struct phx_buf      payload = {0};
    json_t             *root = NULL;
    size_t              issuer = 0;
    int rc = phx_envelope_open(data, size, issuers, n_issuers, &payload, &issuer, err);

    *out = NULL;
    if (rc == 0)
        rc = phx_json_parse(&root, payload.data, payload.size, FILE_MAX_BYTES, DEPTH_MAX,
                            "licence payload", err);
    if (rc == 0)
        rc = read_payload(root, &l->facts, err);
    if (rc == 0) {
        phx_sha256_hex(payload.data, payload.size, l->facts.digest);
        phx_sha256_hex(issuers[issuer], 32, l->facts.issuer);
        *out = l;
        l = NULL;
    } else
        phx_err_prefix(err, "licence: ");
    json_decref(root);
    phx_buf_fini(&payload);
    phx_mem_free(l);
    return rc;
}

/* One hexadecimal public key a line; # begins a comment. */
static int read_issuers(const char *file, uint8_t (*issuers)[32], size_t *n, struct phx_err *err)
{
    struct phx_buf text;
    char          *save = NULL;
    int            rc = phx_buf_read_file(&text, file, FILE_MAX_BYTES, err);

    *n = 0;
    if (rc != 0)
        return rc;
    for (char *line = strtok_r(text.data, "\n", &save); line != NULL && rc == 0;
         line = strtok_r(NULL, "\n", &save)) {
        line[strcspn(line, "#\r \t")] = '\0';
        if (line[0] == '\0')
            continue;
        if (*n == ISSUERS_MAX)
            rc = phx_fail(err, PHX_E_TOOBIG, "%s: more than %d keys", file, ISSUERS_MAX);
        else
            rc = phx_hex_decode(issuers[(*n)++], 32, line, err);
    }
    phx_buf_fini(&text);
    return rc;
}

int phx_license_open(const char *file, const char *issuers_file, struct phx_license **out,
                     struct phx_err *err)
{
    uint8_t        issuers[ISSUERS_MAX][32];
    size_t         n_issuers;
    struct phx_buf text = {0};
    int            rc = read_issuers(issuers_file, issuers, &n_issuers, err);

    *out = NULL;
    if (rc == 0)
        rc = phx_buf_read_file(&text, file, FILE_MAX_BYTES, err);
    if (rc == 0) {
        rc = phx_license_parse(text.data, text.size, (const uint8_t(*)[32])issuers, n_issuers, out,
                               err);
        if (rc != 0)
            phx_err_prefix(err, "%s: ", file);
    }
    phx_buf_fini(&text);
    return rc;
}

void phx_license_close(struct phx_license *l)
{
    phx_mem_free(l);
}

const struct phx_license_facts *phx_license_facts(const struct phx_license *l)
{
    return &l->facts;
}

enum phx_license_state phx_license_state(const struct phx_license *l, int64_t now)
{
    const struct phx_license_facts *f = &l->facts;
    int64_t grace_end = f->not_after_ns + f->grace_days * DAY_NS;

    if (now < f->not_before_ns)
        return PHX_LICENSE_EARLY;
    if (now < f->not_after_ns - f->warn_days * DAY_NS)
        return PHX_LICENSE_VALID;
    if (now < f->not_after_ns)
        return PHX_LICENSE_EXPIRING;
    if (now < grace_end)
        return PHX_LICENSE_GRACE;
    return now < grace_end + f->continuity_days * DAY_NS ? PHX_LICENSE_CONTINUITY
                                                          : PHX_LICENSE_EXPIRED;
}

int phx_license_check(const struct phx_license *l, int64_t now, const char **rule, struct phx_err *err)
{
    *rule = "";
    switch (phx_license_state(l, now)) {
    case PHX_LICENSE_EARLY:
        *rule = "licence.early";
        return phx_fail(err, PHX_E_LICENSE, "the licence is not valid yet; check the clock");
    case PHX_LICENSE_EXPIRED:
        *rule = "licence.expired";
        return phx_fail(err, PHX_E_LICENSE, "the licence has expired; install a new one");
    default: return 0;
    }
}

void phx_license_format(const struct phx_license *l, int64_t now, char *text, size_t size)
{
    char until[32];

    phx_clock_format_utc(l->facts.not_after_ns, until);
    (void)snprintf(text, size, "%s licence %.32s serial %lld, %s, until %.10s", l->facts.class_name,
                   l->facts.id, (long long)l->facts.serial,
                   phx_license_state_name(phx_license_state(l, now)), until);
}

int phx_license_sign(const char *payload, const uint8_t secret_key[64], char **out, struct phx_err *err)
{
    return phx_envelope_seal(payload, strlen(payload), secret_key, out, err);
}

static int write_evaluation(const char *file, const char *issuers_file, struct phx_err *err)
{
    uint8_t public_key[crypto_sign_PUBLICKEYBYTES], secret_key[crypto_sign_SECRETKEYBYTES];
    char    id[33], hex[65], *payload, *envelope = NULL, *issuers;
    int64_t now_s = phx_clock_wall_ns() / 1000000000;
    int     rc;

    (void)crypto_sign_keypair(public_key, secret_key); /* always answers 0 */
    phx_id_hex(id, sizeof(id), 16);
    phx_hex_encode(hex, sizeof(hex), public_key, sizeof(public_key));
    payload = phx_mem_printf("{\"class\":\"evaluation\",\"continuity_days\":0,\"customer\":\"evaluation\","
                             "\"grace_days\":14,\"id\":\"%s\",\"not_after\":%lld,\"not_before\":%lld,"
                             "\"serial\":1,\"warn_days\":7}",
                             id, (long long)(now_s + EVALUATION_DAYS * 86400LL),
                             (long long)(now_s - 86400));
    issuers = phx_mem_printf("# issuer of this site's evaluation licence\n%s\n", hex);
    rc = phx_license_sign(payload, secret_key, &envelope, err);
    sodium_memzero(secret_key, sizeof(secret_key)); /* signs once: nobody can extend it here */
    if (rc == 0)
        rc = phx_file_write(issuers_file, issuers, strlen(issuers), 0600, err);
    if (rc == 0)
        rc = phx_file_write(file, envelope, strlen(envelope), 0600, err);
    phx_mem_free(envelope);
    phx_mem_free(issuers);
    phx_mem_free(payload);
    return rc;
}

int phx_license_ensure_evaluation(const char *file, const char *issuers_file, struct phx_err *err)
{
    if (access(file, F_OK) == 0 && access(issuers_file, F_OK) == 0)
        return 0;
    return write_evaluation(file, issuers_file, err);
}
